//! Topology spread constraints that forbid (`DoNotSchedule`).

use std::collections::{BTreeMap, BTreeSet};

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
    let constraints = forbidding(pod);
    let mut found = Vec::new();
    for constraint in &constraints {
        let Some(domain) = node.labels.get(&constraint.topology_key) else {
            found.push(Violation::SpreadKeyMissing(constraint.topology_key.clone()));
            continue;
        };
        if !holds(world, key, pod, constraint, &constraints, domain) {
            found.push(Violation::Spread(constraint.topology_key.clone()));
        }
    }
    found
}

/// Whether one of the pod's constraints does not hold on the node in a world where `others` are placed, and counts one of
/// these in the node's domain.
pub(crate) fn is_crowded_by(
    world: &World,
    others: &BTreeSet<ObjectKey>,
    key: &ObjectKey,
    pod: &Pod,
    node: &Node,
) -> bool {
    let constraints = forbidding(pod);
    constraints.iter().any(|constraint| {
        let Some(domain) = node.labels.get(&constraint.topology_key) else {
            return false;
        };
        let counts_here = |other: &ObjectKey| {
            let Some(theirs) = world.pods.get(other) else {
                return false;
            };
            let place = theirs.node.as_ref();
            let place = place.and_then(|name| Some((name, world.nodes.get(name)?)));
            other.namespace == key.namespace
                && counted(constraint, pod, &theirs.labels)
                && place.is_some_and(|(name, at)| {
                    at.labels.get(&constraint.topology_key) == Some(domain)
                        && is_eligible(pod, constraint, &constraints, name, at)
                })
        };
        others.iter().any(counts_here) && !holds(world, key, pod, constraint, &constraints, domain)
    })
}

/// The constraints that forbid.
fn forbidding(pod: &Pod) -> Vec<&TopologySpreadConstraint> {
    pod.spec
        .topology_spread_constraints
        .iter()
        .filter(|c| c.when_unsatisfiable == UnsatisfiableAction::DoNotSchedule)
        .collect()
}

/// Whether a constraint holds with the pod in a domain.
fn holds(
    world: &World,
    key: &ObjectKey,
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    all: &[&TopologySpreadConstraint],
    domain: &str,
) -> bool {
    let counts = domains(world, key, pod, constraint, all);
    let wanted = usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1);
    let least = match counts.values().min() {
        Some(least) if counts.len() >= wanted => *least,
        _ => 0,
    };
    let here = counts.get(domain).copied().unwrap_or(0);
    let itself = i64::from(counted(constraint, pod, &pod.labels));
    here + itself - least <= i64::from(constraint.max_skew)
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
        if !is_eligible(pod, constraint, all, name, node) {
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

/// Whether pods on a node count.
fn is_eligible(
    pod: &Pod,
    constraint: &TopologySpreadConstraint,
    all: &[&TopologySpreadConstraint],
    name: &str,
    node: &Node,
) -> bool {
    let mut keys = all.iter().map(|c| &c.topology_key);
    keys.all(|key| node.labels.contains_key(key)) && let_in(pod, constraint, name, node)
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
