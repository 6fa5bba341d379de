//! Nodes out of files. What a node has stands in its status, which the strict reader leaves out of documents that are to
//! be stored; here it is what matters.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize as _;
use serde_json::Value;
use setpoint_apis::core::{Node, NodeStatus};
use setpoint_apis::{Kind, Quantity, ResourceList, strict};
use setpoint_sim::Scenario;

use crate::manifest::Source;

/// The statuses of the nodes of files, by name.
///
/// # Errors
/// When a file is not YAML.
pub(super) fn statuses(sources: &[Source]) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    for source in sources {
        for document in serde_yaml::Deserializer::from_str(&source.text) {
            let value = Value::deserialize(document)
                .with_context(|| format!("{} is not valid YAML", source.name))?;
            collect(value, None, &mut found);
        }
    }
    Ok(found)
}

fn collect(mut value: Value, of_list: Option<&str>, found: &mut BTreeMap<String, Value>) {
    let kind = value["kind"].as_str().or(of_list).unwrap_or_default();
    if let (Some(item), Value::Array(items)) = (kind.strip_suffix("List"), &value["items"]) {
        for listed in items {
            collect(listed.clone(), Some(item), found);
        }
    } else if kind == Node::KIND
        && let Some(name) = value["metadata"]["name"].as_str()
    {
        let name = name.to_owned();
        found.insert(name, value["status"].take());
    }
}

/// What a file says that a node has.
///
/// # Errors
/// Names the field that is missing or wrong.
pub(super) fn status(statuses: &BTreeMap<String, Value>, name: &str) -> Result<NodeStatus> {
    let status = statuses.get(name).unwrap_or(&Value::Null);
    let stated = |field: &str| status[field].as_object().is_some_and(|m| !m.is_empty());
    if !stated("allocatable") && !stated("capacity") {
        let words = status.as_object().into_iter().flat_map(|m| m.keys());
        let slip = words
            .filter(|w| strict::nearest(w, ["allocatable", "capacity"]).is_some())
            .map(|w| format!(" (is {w:?} meant to be it?)"))
            .next();
        bail!(
            "status.allocatable: is required, for it says what pods may request on the node, such as {{cpu: '4', memory: 8Gi}}{}",
            slip.unwrap_or_default()
        );
    }
    for field in ["allocatable", "capacity"] {
        for (resource, amount) in status[field].as_object().into_iter().flatten() {
            let text = match amount {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match text.parse::<Quantity>() {
                Ok(amount) if !amount.is_negative() => {}
                Ok(_) => bail!("status.{field}.{resource}: {text} is less than nothing"),
                Err(error) => bail!("status.{field}.{resource}: {text:?} is no quantity: {error}"),
            }
        }
    }
    serde_json::from_value(status.clone()).context("status")
}

/// The nodes of a scenario, as a simulation of it would have them.
pub(super) fn of_scenario(scenario: &Scenario) -> Vec<(Node, NodeStatus)> {
    let mut nodes = Vec::new();
    for group in &scenario.spec.nodes {
        let mut allocatable = ResourceList::from([
            ("cpu".into(), Quantity::from_whole(4)),
            ("memory".into(), Quantity::from_bytes(8 << 30)),
            ("pods".into(), Quantity::from_whole(110)),
        ]);
        allocatable.extend(group.capacity.clone());
        for number in 0..group.count {
            let mut node = Node::named(&format!("{}-{number}", group.name));
            node.metadata
                .labels
                .extend(group.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
            let status = NodeStatus {
                allocatable: allocatable.clone(),
                ..NodeStatus::default()
            };
            nodes.push((node, status));
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, name: &str) -> Result<NodeStatus> {
        let source = Source {
            name: "nodes.yaml".into(),
            text: text.into(),
        };
        status(&statuses(&[source])?, name)
    }

    #[test]
    fn what_a_node_has_is_found_in_documents_and_in_lists() {
        let one = "kind: Node\nmetadata: {name: a}\nstatus: {allocatable: {cpu: 2, memory: 1Gi}}\n";
        let list = "kind: List\nitems:\n- {kind: Node, metadata: {name: b}, status: {capacity: {cpu: 500m}}}\n";
        let text = format!("{one}---\n{list}");
        assert_eq!(
            of(&text, "a").unwrap().allocatable["cpu"].milli_value(),
            2000
        );
        assert_eq!(of(&text, "b").unwrap().capacity["cpu"].milli_value(), 500);
        let nodes =
            "kind: NodeList\nitems: [{metadata: {name: c}, status: {allocatable: {cpu: 1}}}]\n";
        assert_eq!(of(nodes, "c").unwrap().allocatable["cpu"].value(), 1);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let says = |status: &str| {
            let text = format!("kind: Node\nmetadata: {{name: a}}\nstatus: {{{status}}}\n");
            of(&text, "a").unwrap_err().to_string()
        };
        assert!(says("").contains("status.allocatable: is required"));
        let slip = says("allocateable: {cpu: 1}");
        assert!(slip.contains("\"allocateable\""), "{slip}");
        let bad = says("allocatable: {cpu: lots}");
        assert!(bad.contains("status.allocatable.cpu: \"lots\""), "{bad}");
        let less = says("capacity: {cpu: -1}");
        assert!(less.contains("status.capacity.cpu: -1 is less"), "{less}");
    }

    #[test]
    fn the_groups_of_a_scenario_are_nodes() {
        let text = "apiVersion: setpoint.dev/v1\nkind: Scenario\nmetadata: {name: s}\nspec:\n  nodes:\n  \
                    - {name: big, count: 2, capacity: {cpu: 16}, labels: {zone: a}}\n  - {name: usual, count: 1}\n";
        let scenario: Scenario = setpoint_apis::document::decode(text.as_bytes()).unwrap();
        let nodes = of_scenario(&scenario);
        let names: Vec<&str> = nodes
            .iter()
            .map(|(n, _)| n.metadata.name.as_str())
            .collect();
        assert_eq!(names, ["big-0", "big-1", "usual-0"]);
        assert_eq!(nodes[1].0.metadata.labels["zone"], "a");
        assert_eq!(nodes[1].1.allocatable["cpu"].value(), 16);
        assert_eq!(nodes[2].1.allocatable["memory"].value(), 8 << 30);
    }
}
