//! Topology spread constraints that forbid (`DoNotSchedule`).

use std::collections::BTreeMap;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::{TopologySpreadConstraint, UnsatisfiableAction};

use crate::filters::{Violation, taints};
use crate::matching::{Labels, agrees, node_selected, selects_if_given, untolerated};
use crate::world::{Node, Pod, World};

/// What the pod's constraints say against a node.
///
/// A constraint holds when (matching pods in the node's domain) + (1 if the pod matches itself) - (the least number of
/// matching pods in any eligible domain, or 0 when there are fewer eligible domains than `minDomains`) is at most
/// `maxSkew`. Matching pods are of the pod's own namespace.
pub(crate) fn violations(world: &World, key: &ObjectKey, pod: &Pod, node: &Node) -> Vec<Violation> {
    let constraints: Vec<_> = pod
        .spec
        .topology_spread_constraints
        .iter()
        .filter(|c| c.when_unsatisfiable == UnsatisfiableAction::DoNotSchedule)
        .collect();
    let mut found = Vec::new();
    for constraint in &constraints {
        let Some(domain) = node.labels.get(&constraint.topology_key) else {
            found.push(Violation::SpreadKeyMissing(constraint.topology_key.clone()));
            continue;
        };
        let counts = domains(world, key, pod, constraint, &constraints);
        let wanted = usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1);
        let least = match counts.values().min() {
            Some(least) if counts.len() >= wanted => *least,
            _ => 0,
        };
        let here = counts.get(domain).copied().unwrap_or(0);
        let itself = i64::from(counted(constraint, pod, &pod.labels));
        if here + itself - least > i64::from(constraint.max_skew) {
            found.push(Violation::Spread(constraint.topology_key.clone()));
        }
    }
    found
}

/// The eligible domains of a constraint, with the number of matching pods in each.
///
/// A node counts when it has the topology keys of all constraints and the constraint's policies let it in.
fn domains(
    world: &World,
    key: &ObjectKey,
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    all: &[&TopologySpreadConstraint],
) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for (name, node) in &world.nodes {
        if !all
            .iter()
            .all(|c| node.labels.contains_key(&c.topology_key))
            || !let_in(pod, constraint, name, node)
        {
            continue;
        }
        let matching = world
            .pods_on(name)
            .filter(|(other, _)| other.namespace == key.namespace)
            .filter(|(_, other)| counted(constraint, pod, &other.labels))
            .count();
        let domain = node.labels[&constraint.topology_key].clone();
        *counts.entry(domain).or_insert(0) += i64::try_from(matching).unwrap_or(i64::MAX);
    }
    counts
}

/// `nodeAffinityPolicy` (`Honor` when absent) and `nodeTaintsPolicy` (`Ignore` when absent). A node that is not ready is
/// a tainted one in Kubernetes; here nobody can tolerate that.
fn let_in(pod: &Pod, constraint: &TopologySpreadConstraint, name: &str, node: &Node) -> bool {
    let honours_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let honours_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    (!honours_affinity || node_selected(&pod.spec, name, node))
        && (!honours_taints || (node.ready && untolerated(&pod.spec, &taints(node)).is_empty()))
}

/// Whether a pod with these labels is one that the constraint of `pod` counts.
fn counted(constraint: &TopologySpreadConstraint, pod: &Pod, labels: &Labels) -> bool {
    selects_if_given(constraint.label_selector.as_ref(), labels)
        && agrees(&constraint.match_label_keys, &pod.labels, labels)
}
