//! Whether a node is to have a pod of a DaemonSet.

use std::collections::BTreeMap;

use setpoint_apis::core::{
    NodeSelector, NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
    TaintEffect, Toleration, TolerationOperator, tolerated,
};

use super::nodes::NodeFacts;

/// The field of a node that `matchFields` may name.
const NAME_FIELD: &str = "metadata.name";

/// What pods of a DaemonSet tolerate whatever their template says: they belong to their node, and stay with it when it
/// is in trouble.
const TOLERATED: [(&str, TaintEffect); 6] = [
    ("node.kubernetes.io/not-ready", TaintEffect::NoExecute),
    ("node.kubernetes.io/unreachable", TaintEffect::NoExecute),
    ("node.kubernetes.io/disk-pressure", TaintEffect::NoSchedule),
    (
        "node.kubernetes.io/memory-pressure",
        TaintEffect::NoSchedule,
    ),
    ("node.kubernetes.io/pid-pressure", TaintEffect::NoSchedule),
    ("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule),
];
/// What those tolerate as well that use their node's network.
const TOLERATED_ON_HOST_NETWORK: (&str, TaintEffect) = (
    "node.kubernetes.io/network-unavailable",
    TaintEffect::NoSchedule,
);

/// What a node is to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is to have a pod.
    Runs,
    /// A pod that is there stays, but none is made: a taint keeps new pods away.
    Stays,
    /// It is to have none.
    Leaves,
    /// Nobody can tell: everything stays as it is.
    Unknown,
}

/// Where the pods of a template are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    node_name: Option<String>,
    node_selector: BTreeMap<String, String>,
    required: Option<NodeSelector>,
    tolerations: Vec<Toleration>,
}

impl Placement {
    /// Of the pods of this spec.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|a| a.node_affinity.as_ref());
        Self {
            node_name: spec.node_name.clone().filter(|n| !n.is_empty()),
            node_selector: spec.node_selector.clone(),
            required: affinity.and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .clone()
            }),
            tolerations: tolerations(spec),
        }
    }

    /// What a node is to them.
    pub fn fit(&self, name: &str, node: &NodeFacts) -> Fit {
        if node.unreadable {
            return Fit::Unknown;
        }
        let labels = &node.labels;
        let named = self.node_name.as_ref().is_none_or(|wanted| wanted == name);
        let mut selector = self.node_selector.iter();
        let selected = selector.all(|(key, value)| labels.get(key) == Some(value));
        let term = |term: &NodeSelectorTerm| term_holds(term, name, labels);
        let required = self.required.as_ref();
        if !named || !selected || !required.is_none_or(|r| r.node_selector_terms.iter().any(term)) {
            return Fit::Leaves;
        }
        let mut fit = if node.removed { Fit::Stays } else { Fit::Runs };
        for taint in &node.taints {
            if tolerated(&self.tolerations, taint) {
                continue;
            }
            match taint.effect {
                TaintEffect::NoExecute => return Fit::Leaves,
                TaintEffect::NoSchedule => fit = Fit::Stays,
                TaintEffect::PreferNoSchedule => {}
            }
        }
        fit
    }
}

/// The tolerations of a template with those that each pod of a DaemonSet has.
pub fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone();
    let host_network = spec.host_network == Some(true);
    let more = host_network.then_some(TOLERATED_ON_HOST_NETWORK);
    for (key, effect) in TOLERATED.into_iter().chain(more) {
        let own = Toleration {
            key: Some(key.to_owned()),
            operator: Some(TolerationOperator::Exists),
            effect: Some(effect),
            ..Toleration::default()
        };
        // One that the template limits in time holds for ever.
        let same = |t: &&mut Toleration| {
            t.key == own.key && t.operator == own.operator && t.effect == own.effect
        };
        match all.iter_mut().find(same) {
            Some(there) => *there = own,
            None => all.push(own),
        }
    }
    all
}

/// Whether all requirements of a term hold. A term without any holds nowhere.
fn term_holds(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let (by_label, by_field) = (&term.match_expressions, &term.match_fields);
    if by_label.is_empty() && by_field.is_empty() {
        return false;
    }
    let label = |r: &NodeSelectorRequirement| holds(r, labels.get(&r.key).map(String::as_str));
    let field = |r: &NodeSelectorRequirement| holds(r, (r.key == NAME_FIELD).then_some(name));
    by_label.iter().all(label) && by_field.iter().all(field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let is_listed = || value.is_some_and(|v| requirement.values.iter().any(|w| w == v));
    // What is no number is neither greater nor less than anything.
    let compared = || {
        let value: i64 = value?.parse().ok()?;
        let bound: i64 = requirement.values.first()?.parse().ok()?;
        Some(value.cmp(&bound))
    };
    match requirement.operator {
        NodeSelectorOperator::In => is_listed(),
        NodeSelectorOperator::NotIn => !is_listed(),
        NodeSelectorOperator::Exists => value.is_some(),
        NodeSelectorOperator::DoesNotExist => value.is_none(),
        NodeSelectorOperator::Gt => compared().is_some_and(std::cmp::Ordering::is_gt),
        NodeSelectorOperator::Lt => compared().is_some_and(std::cmp::Ordering::is_lt),
    }
}

/// The node that a spec names: by its name, or by the affinity that pins it to one.
pub fn pinned_to(spec: &PodSpec) -> Option<&str> {
    if let Some(name) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let [term] = &required.node_selector_terms[..] else {
        return None;
    };
    let by_name = |r: &&NodeSelectorRequirement| {
        r.key == NAME_FIELD && r.operator == NodeSelectorOperator::In
    };
    match &term.match_fields.iter().find(by_name)?.values[..] {
        [name] => Some(name),
        _ => None,
    }
}

/// A requirement that holds on the node of this name alone.
pub fn only_on(node: &str) -> NodeSelector {
    NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: vec![NodeSelectorRequirement {
                key: NAME_FIELD.into(),
                operator: NodeSelectorOperator::In,
                values: vec![node.into()],
            }],
            ..NodeSelectorTerm::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::core::Taint;

    use super::*;

    fn spec(yaml: &str) -> PodSpec {
        serde_yaml::from_str(&format!("{{containers: [], {yaml}}}")).unwrap()
    }

    fn node(labels: &str, taints: &[(&str, TaintEffect)]) -> NodeFacts {
        let taint = |(key, effect): &(&str, TaintEffect)| Taint {
            key: (*key).into(),
            effect: *effect,
            ..Taint::default()
        };
        NodeFacts {
            labels: serde_yaml::from_str(labels).unwrap(),
            taints: taints.iter().map(taint).collect(),
            ..NodeFacts::default()
        }
    }

    fn fit(yaml: &str, node: &NodeFacts) -> Fit {
        Placement::of(&spec(yaml)).fit("n1", node)
    }

    fn required(term: &str) -> String {
        let key = "requiredDuringSchedulingIgnoredDuringExecution";
        format!("affinity: {{nodeAffinity: {{{key}: {{nodeSelectorTerms: [{term}]}}}}}}")
    }

    #[test]
    fn name_selector_and_affinity_must_all_hold() {
        let n = node("{disk: ssd, cores: '8'}", &[]);
        assert_eq!(fit("", &n), Fit::Runs);
        for (yaml, holds) in [
            ("nodeName: n1", true),
            ("nodeName: n2", false),
            ("nodeSelector: {disk: ssd}", true),
            ("nodeSelector: {disk: ssd, gpu: a}", false),
        ] {
            assert_eq!(fit(yaml, &n) == Fit::Runs, holds, "{yaml}");
        }
        for (term, holds) in [
            ("", false),
            ("{}", false),
            (
                "{}, {matchFields: [{key: metadata.name, operator: In, values: [n1]}]}",
                true,
            ),
            (
                "{matchFields: [{key: metadata.name, operator: NotIn, values: [n1]}]}",
                false,
            ),
            (
                "{matchExpressions: [{key: disk, operator: In, values: [hdd, ssd]}]}",
                true,
            ),
            (
                "{matchExpressions: [{key: disk, operator: NotIn, values: [ssd]}]}",
                false,
            ),
            (
                "{matchExpressions: [{key: gpu, operator: NotIn, values: [a]}]}",
                true,
            ),
            ("{matchExpressions: [{key: gpu, operator: Exists}]}", false),
            (
                "{matchExpressions: [{key: gpu, operator: DoesNotExist}]}",
                true,
            ),
            (
                "{matchExpressions: [{key: cores, operator: Gt, values: ['7']}]}",
                true,
            ),
            (
                "{matchExpressions: [{key: cores, operator: Gt, values: ['8']}]}",
                false,
            ),
            (
                "{matchExpressions: [{key: cores, operator: Lt, values: ['9']}]}",
                true,
            ),
            (
                "{matchExpressions: [{key: disk, operator: Lt, values: ['9']}]}",
                false,
            ),
            (
                "{matchExpressions: [{key: disk, operator: Exists}, {key: gpu, operator: Exists}]}",
                false,
            ),
        ] {
            assert_eq!(fit(&required(term), &n) == Fit::Runs, holds, "{term}");
        }
    }

    #[test]
    fn a_preferred_affinity_decides_nothing() {
        let n = node("{disk: hdd}", &[]);
        let key = "preferredDuringSchedulingIgnoredDuringExecution";
        let ssd = "{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}";
        let preferred = format!("{key}: [{{weight: 100, preference: {ssd}}}]");
        let affinity = |more: &str| format!("affinity: {{nodeAffinity: {{{preferred}{more}}}}}");
        assert_eq!(fit(&affinity(""), &n), Fit::Runs);
        let required = |disk: &str| {
            let term = ssd.replace("ssd", disk);
            let key = "requiredDuringSchedulingIgnoredDuringExecution";
            affinity(&format!(", {key}: {{nodeSelectorTerms: [{term}]}}"))
        };
        assert_eq!(fit(&required("hdd"), &n), Fit::Runs);
        assert_eq!(fit(&required("ssd"), &n), Fit::Leaves);
    }

    #[test]
    fn taints_keep_new_pods_away_and_those_that_evict_end_it() {
        let with = |key, effect| node("{}", &[(key, effect)]);
        let dedicated = |effect| fit("", &with("dedicated", effect));
        assert_eq!(dedicated(TaintEffect::PreferNoSchedule), Fit::Runs);
        assert_eq!(dedicated(TaintEffect::NoSchedule), Fit::Stays);
        assert_eq!(dedicated(TaintEffect::NoExecute), Fit::Leaves);
        let tolerates = "tolerations: [{key: dedicated, operator: Exists}]";
        let n = with("dedicated", TaintEffect::NoExecute);
        assert_eq!(fit(tolerates, &n), Fit::Runs);
        let both = node(
            "{}",
            &[
                ("a", TaintEffect::NoExecute),
                ("b", TaintEffect::NoSchedule),
            ],
        );
        assert_eq!(fit("", &both), Fit::Leaves);
        let some = "tolerations: [{key: a, operator: Exists}]";
        assert_eq!(fit(some, &both), Fit::Stays);
    }

    #[test]
    fn a_node_in_trouble_keeps_its_pods() {
        for (key, effect) in TOLERATED {
            assert_eq!(fit("", &node("{}", &[(key, effect)])), Fit::Runs, "{key}");
        }
        let (key, effect) = TOLERATED_ON_HOST_NETWORK;
        let offline = node("{}", &[(key, effect)]);
        assert_eq!(fit("", &offline), Fit::Stays);
        assert_eq!(fit("hostNetwork: true", &offline), Fit::Runs);
        // As node-lifecycle taints a lost node.
        let unreachable = "node.kubernetes.io/unreachable";
        let lost = node(
            "{}",
            &[
                (unreachable, TaintEffect::NoSchedule),
                (unreachable, TaintEffect::NoExecute),
            ],
        );
        assert_eq!(fit("", &lost), Fit::Stays);
    }

    #[test]
    fn what_is_removed_or_unreadable_gets_nothing_and_loses_nothing() {
        let all = "tolerations: [{operator: Exists}]";
        let removed = NodeFacts {
            removed: true,
            ..NodeFacts::default()
        };
        assert_eq!(fit(all, &removed), Fit::Stays);
        let unreadable = NodeFacts {
            unreadable: true,
            ..NodeFacts::default()
        };
        assert_eq!(fit("nodeSelector: {a: b}", &unreadable), Fit::Unknown);
    }

    #[test]
    fn own_tolerations_are_added_once_and_hold_for_ever() {
        let own = "tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, \
                   tolerationSeconds: 30}, {key: mine, operator: Exists}]";
        let all = tolerations(&spec(own));
        assert_eq!(all.len(), TOLERATED.len() + 1);
        assert!(all.iter().all(|t| t.toleration_seconds.is_none()));
        assert_eq!(all[1].key.as_deref(), Some("mine"));
    }

    #[test]
    fn a_pin_names_its_node() {
        let mut pinned = spec("");
        assert_eq!(pinned_to(&pinned), None);
        let affinity = pinned.affinity.get_or_insert_default();
        let node_affinity = affinity.node_affinity.get_or_insert_default();
        node_affinity.required_during_scheduling_ignored_during_execution = Some(only_on("n7"));
        assert_eq!(pinned_to(&pinned), Some("n7"));
        let placement = Placement::of(&pinned);
        assert_eq!(placement.fit("n7", &NodeFacts::default()), Fit::Runs);
        assert_eq!(placement.fit("n8", &NodeFacts::default()), Fit::Leaves);
        assert_eq!(pinned_to(&spec("nodeName: n1")), Some("n1"));
    }
}
