//! Pod affinity and anti-affinity, from both sides.

use setpoint_apis::ObjectKey;
use setpoint_apis::core::PodAffinityTerm;

use crate::filters::Violation;
use crate::matching::term_means;
use crate::world::{Node, Pod, World};

/// The required terms of affinity.
fn affinity(pod: &Pod) -> &[PodAffinityTerm] {
    pod.spec
        .affinity
        .as_ref()
        .and_then(|a| a.pod_affinity.as_ref())
        .map_or(&[], |a| {
            &a.required_during_scheduling_ignored_during_execution
        })
}

/// The required terms of anti-affinity.
fn anti_affinity(pod: &Pod) -> &[PodAffinityTerm] {
    pod.spec
        .affinity
        .as_ref()
        .and_then(|a| a.pod_anti_affinity.as_ref())
        .map_or(&[], |a| {
            &a.required_during_scheduling_ignored_during_execution
        })
}

/// Whether both nodes are in one domain of a topology. A node without the label is in none, not even its own.
fn together(a: &Node, b: &Node, key: &str) -> bool {
    match (a.labels.get(key), b.labels.get(key)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// What terms of this pod and of those that are placed say against a node.
pub(crate) fn violations(world: &World, key: &ObjectKey, pod: &Pod, node: &Node) -> Vec<Violation> {
    let mut found = affinity_violations(world, key, pod, node);
    // Anti-affinity: nobody that a term means may be in the node's domain.
    for term in anti_affinity(pod) {
        for (other_key, other, there) in world.placed() {
            if together(node, there, &term.topology_key)
                && means(world, term, key, pod, other_key, other)
            {
                found.push(Violation::AntiAffinity(other_key.clone()));
            }
        }
    }
    // The same from the other side, which nobody has to declare twice.
    for (other_key, other, there) in world.placed() {
        for term in anti_affinity(other) {
            if together(node, there, &term.topology_key)
                && means(world, term, other_key, other, key, pod)
            {
                found.push(Violation::UnwantedBy(other_key.clone()));
            }
        }
    }
    found
}

/// Whether a term of `owner` means `other`.
fn means(
    world: &World,
    term: &PodAffinityTerm,
    owner_key: &ObjectKey,
    owner: &Pod,
    other_key: &ObjectKey,
    other: &Pod,
) -> bool {
    term_means(
        world,
        term,
        &owner_key.namespace,
        &owner.labels,
        &other_key.namespace,
        &other.labels,
    )
}

/// Affinity: in the node's domain of each term there must be a pod that all terms mean. The first pod of a group that
/// wants to be together is let through: when no placed pod is one that all terms mean, but the pod itself is. Every
/// node it can go to must have all the topology keys even so.
fn affinity_violations(world: &World, key: &ObjectKey, pod: &Pod, node: &Node) -> Vec<Violation> {
    let terms = affinity(pod);
    let missing: Vec<_> = terms
        .iter()
        .filter(|t| !node.labels.contains_key(&t.topology_key))
        .map(|t| Violation::Affinity(t.topology_key.clone()))
        .collect();
    if !missing.is_empty() {
        return missing;
    }
    let meant_by_all = |other_key: &ObjectKey, other: &Pod| {
        terms
            .iter()
            .all(|t| means(world, t, key, pod, other_key, other))
    };
    let friends: Vec<_> = world
        .placed()
        .filter(|(other_key, other, _)| meant_by_all(other_key, other))
        .collect();
    let first = meant_by_all(key, pod)
        && !friends.iter().any(|(_, _, there)| {
            terms
                .iter()
                .any(|t| there.labels.contains_key(&t.topology_key))
        });
    if first {
        return Vec::new();
    }
    terms
        .iter()
        .filter(|t| {
            !friends
                .iter()
                .any(|(_, _, there)| together(node, there, &t.topology_key))
        })
        .map(|t| Violation::Affinity(t.topology_key.clone()))
        .collect()
}
