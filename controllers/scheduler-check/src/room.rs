//! Room on a node: number of pods, resources, what is set aside, host ports.

use setpoint_apis::ObjectKey;

use crate::amounts::{Amounts, add, amounts, host_ports, pod_amounts};
use crate::filters::Violation;
use crate::matching::selects;
use crate::world::{Node, Pod, Reservation, World};

/// What is missing on a node.
pub(crate) fn violations(
    world: &World,
    key: &ObjectKey,
    pod: &Pod,
    name: &str,
    node: &Node,
) -> Vec<Violation> {
    let mut found = Vec::new();
    let allocatable = amounts(&node.allocatable);
    let of = |list: &Amounts, resource: &str| list.get(resource).copied().unwrap_or(0);

    let count = i128::try_from(world.pods_on(name).count()).unwrap_or(i128::MAX);
    if count >= of(&allocatable, "pods") {
        found.push(Violation::TooManyPods);
    }

    let mut used = Amounts::new();
    for (_, other) in world.pods_on(name) {
        add(&mut used, &pod_amounts(&other.spec));
    }
    let kept = set_aside(world, key, pod, name);
    for (resource, asked) in pod_amounts(&pod.spec) {
        // Whoever asks for nothing of a resource fits, however much of it is taken.
        if asked <= 0 || resource == "pods" {
            continue;
        }
        let free = of(&allocatable, &resource) - of(&used, &resource);
        if asked > free {
            found.push(Violation::Insufficient(resource));
        } else if asked > free - of(&kept, &resource) {
            found.push(Violation::Reserved(resource));
        }
    }

    let wanted = host_ports(&pod.spec);
    for (other_key, other) in world.pods_on(name) {
        let bound = host_ports(&other.spec);
        if wanted.iter().any(|w| bound.iter().any(|b| w.conflicts(b))) {
            found.push(Violation::HostPort(other_key.clone()));
        }
    }
    found
}

/// Whether a pod may use what is set aside.
pub(crate) fn owns(reservation: &Reservation, key: &ObjectKey, pod: &Pod) -> bool {
    let namespaces = &reservation.namespaces;
    namespaces.iter().any(|n| **n == *key.namespace) && selects(&reservation.owners, &pod.labels)
}

/// What is set aside on a node for others than `pod`, beyond what its owners already use of it.
fn set_aside(world: &World, key: &ObjectKey, pod: &Pod, name: &str) -> Amounts {
    let mut kept = Amounts::new();
    for reservation in world.reservations.values() {
        if reservation.node.as_deref() != Some(name) || owns(reservation, key, pod) {
            continue;
        }
        let mut used = Amounts::new();
        for (other_key, other) in world.pods_on(name) {
            if owns(reservation, other_key, other) {
                add(&mut used, &pod_amounts(&other.spec));
            }
        }
        for (resource, amount) in amounts(&reservation.resources) {
            let left = amount - used.get(&resource).copied().unwrap_or(0);
            *kept.entry(resource).or_default() += left.max(0);
        }
    }
    kept
}
