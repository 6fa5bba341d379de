//! Label selectors, node selectors, taints: which names what.
//!
//! `setpoint-apis` has methods for some of this. They are not used here, so that a mistake in them shows.

use std::collections::BTreeMap;

use setpoint_apis::core::{
    NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
    Taint, TaintEffect, Toleration, TolerationOperator,
};
use setpoint_apis::selector::{LabelSelector, LabelSelectorOperator};

use crate::world::{Node, World};

/// Labels of anything.
pub(crate) type Labels = BTreeMap<String, String>;

/// Whether a selector selects labels. Both of its fields must hold; one without any requirement selects everything.
pub(crate) fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    for (key, value) in &selector.match_labels {
        if labels.get(key) != Some(value) {
            return false;
        }
    }
    for requirement in &selector.match_expressions {
        let present = labels.get(&requirement.key);
        let listed = match present {
            Some(value) => requirement.values.iter().any(|v| v == value),
            None => false,
        };
        let holds = match requirement.operator {
            LabelSelectorOperator::In => listed,
            // An absent label has none of the values.
            LabelSelectorOperator::NotIn => !listed,
            LabelSelectorOperator::Exists => present.is_some(),
            LabelSelectorOperator::DoesNotExist => present.is_none(),
        };
        if !holds {
            return false;
        }
    }
    true
}

/// The same for a field that may be absent: an absent selector selects nothing.
pub(crate) fn selects_if_given(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    selector.is_some_and(|s| selects(s, labels))
}

/// Whether labels agree with those of `own` in `keys`. Keys that `own` lacks are ignored.
pub(crate) fn agrees(keys: &[String], own: &Labels, labels: &Labels) -> bool {
    keys.iter().all(|key| match own.get(key) {
        Some(value) => labels.get(key) == Some(value),
        None => true,
    })
}

/// Whether labels differ from those of `own` in each of `keys`. Keys that `own` lacks are ignored.
pub(crate) fn differs(keys: &[String], own: &Labels, labels: &Labels) -> bool {
    keys.iter().all(|key| match own.get(key) {
        Some(value) => labels.get(key) != Some(value),
        None => true,
    })
}

/// Whether a term of pod (anti-)affinity, written in a pod with labels `own` in `own_namespace`, means a pod with
/// `labels` in `namespace`.
pub(crate) fn term_means(
    world: &World,
    term: &PodAffinityTerm,
    own_namespace: &str,
    own: &Labels,
    namespace: &str,
    labels: &Labels,
) -> bool {
    namespace_meant(world, term, own_namespace, namespace)
        && selects_if_given(term.label_selector.as_ref(), labels)
        && agrees(&term.match_label_keys, own, labels)
        && differs(&term.mismatch_label_keys, own, labels)
}

fn namespace_meant(world: &World, term: &PodAffinityTerm, own: &str, namespace: &str) -> bool {
    if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        return namespace == own;
    }
    let none = Labels::new();
    let labels = world.namespaces.get(namespace).unwrap_or(&none);
    term.namespaces.iter().any(|n| n == namespace)
        || selects_if_given(term.namespace_selector.as_ref(), labels)
}

/// Whether a node has what `nodeSelector` and the required node affinity ask for.
pub(crate) fn node_selected(spec: &PodSpec, name: &str, node: &Node) -> bool {
    for (key, value) in &spec.node_selector {
        if node.labels.get(key) != Some(value) {
            return false;
        }
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    match required {
        None => true,
        Some(selector) => selector
            .node_selector_terms
            .iter()
            .any(|term| node_term_holds(term, name, &node.labels)),
    }
}

/// Whether all requirements of a term hold; a term without any matches no node.
fn node_term_holds(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    let fields = Labels::from([("metadata.name".into(), name.into())]);
    term.match_expressions
        .iter()
        .all(|r| node_requirement_holds(r, labels))
        && term
            .match_fields
            .iter()
            .all(|r| node_requirement_holds(r, &fields))
}

fn node_requirement_holds(requirement: &NodeSelectorRequirement, labels: &Labels) -> bool {
    let present = labels.get(&requirement.key);
    let listed = present.is_some_and(|v| requirement.values.contains(v));
    // Both sides are read as integers; where one is none the requirement does not hold.
    let numbers = || {
        let have: i64 = present?.parse().ok()?;
        let [bound] = requirement.values.as_slice() else {
            return None;
        };
        Some((have, bound.parse::<i64>().ok()?))
    };
    match requirement.operator {
        NodeSelectorOperator::In => listed,
        NodeSelectorOperator::NotIn => !listed,
        NodeSelectorOperator::Exists => present.is_some(),
        NodeSelectorOperator::DoesNotExist => present.is_none(),
        NodeSelectorOperator::Gt => numbers().is_some_and(|(have, bound)| have > bound),
        NodeSelectorOperator::Lt => numbers().is_some_and(|(have, bound)| have < bound),
    }
}

/// The taint that a cordoned node has.
pub(crate) fn cordon_taint() -> Taint {
    Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: None,
        effect: TaintEffect::NoSchedule,
        time_added: None,
    }
}

/// The taints of those that keep a pod away, `NoSchedule` or `NoExecute`, which it does not tolerate.
pub(crate) fn untolerated<'a>(spec: &PodSpec, taints: &'a [Taint]) -> Vec<&'a Taint> {
    let keeps_away =
        |t: &&Taint| t.effect == TaintEffect::NoSchedule || t.effect == TaintEffect::NoExecute;
    taints
        .iter()
        .filter(keeps_away)
        .filter(|taint| !spec.tolerations.iter().any(|t| tolerates(t, taint)))
        .collect()
}

/// Whether a toleration matches a taint: the keys are the same (no key means all), the effects are the same (no effect
/// means all), and the operator is `Exists` or the values are equal.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator == Some(TolerationOperator::Exists);
    let key_matches = if key.is_empty() {
        exists
    } else {
        key == taint.key
    };
    let effect_matches = match toleration.effect {
        None => true,
        Some(effect) => effect == taint.effect,
    };
    let value_matches = toleration.value.as_deref().unwrap_or_default()
        == taint.value.as_deref().unwrap_or_default();
    key_matches && effect_matches && (exists || value_matches)
}
