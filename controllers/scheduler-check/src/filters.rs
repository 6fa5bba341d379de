//! Which pods a node can take: every filter, evaluated for one pod and one node from nothing but the world.

use std::collections::BTreeSet;
use std::fmt;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::{Taint, TaintEffect};

use crate::world::{Node, Pod, World};
use crate::{matching, neighbours, room, spread};

/// One thing that keeps a pod off a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// The world has no such pod.
    UnknownPod,
    /// The world has no such node.
    UnknownNode,
    /// A scheduling gate holds the pod back.
    Gated(String),
    /// Nothing can be placed on the node.
    NotReady,
    /// The pod names another node.
    NodeName,
    /// A taint that the pod does not tolerate, the one of a cordoned node among them: its key.
    Taint(String),
    /// The node is not what `nodeSelector` or the required node affinity asks for.
    Selector,
    /// No driver of the node runs the image of this container.
    Driver(String),
    /// The node has as many pods as it takes.
    TooManyPods,
    /// There is less left of this resource than the pod asks for.
    Insufficient(String),
    /// There would be enough left of this resource if none were set aside for others.
    Reserved(String),
    /// A port of the node is bound by this pod.
    HostPort(ObjectKey),
    /// A required term of pod affinity has nobody there; its topology key.
    Affinity(String),
    /// A required term of pod anti-affinity has somebody there: who.
    AntiAffinity(ObjectKey),
    /// A pod there (or in the same topology domain) does not want this one near: who.
    UnwantedBy(ObjectKey),
    /// The node lacks the topology key of a spread constraint.
    SpreadKeyMissing(String),
    /// A spread constraint would be exceeded; its topology key.
    Spread(String),
    /// What is free is kept for pods whose victims are stopping.
    Kept(BTreeSet<ObjectKey>),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether the pod can be placed on the node now.
///
/// Room that is kept for nominated pods counts as follows. A nominated pod of at least the same priority must find its
/// room: the pod has to fit beside everything that is placed now, and once the victims have gone and the nominated pods
/// have come there must be room for it as well, and no anti-affinity between these and it; and its spread constraints
/// must hold then as well in each domain to which a nominated pod comes that they count.
///
/// # Errors
///
/// Everything that keeps it off. Several filters are evaluated even when one has failed, so that counts of reasons can
/// be compared.
pub fn feasible(world: &World, pod: &ObjectKey, node: &str) -> Result<(), Vec<Violation>> {
    let mut found = violations_now(world, pod, node);
    if found.is_empty() {
        let keepers = nominated_over(world, pod);
        if !keepers.is_empty() {
            let after = after_nominations(world, &keepers);
            let later = violations_now(&after, pod, node);
            if later.iter().any(|v| takes_room_of(v, &keepers))
                || unbalances(&after, &keepers, pod, node)
            {
                found.push(Violation::Kept(keepers));
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Whether a violation, found once nominated pods have come, says that these and the pod cannot both be there.
fn takes_room_of(violation: &Violation, keepers: &BTreeSet<ObjectKey>) -> bool {
    match violation {
        Violation::TooManyPods
        | Violation::Insufficient(_)
        | Violation::Reserved(_)
        | Violation::HostPort(_) => true,
        Violation::AntiAffinity(other) | Violation::UnwantedBy(other) => keepers.contains(other),
        _ => false,
    }
}

/// Whether the pod has a spread constraint that does not hold on the node beside nominated pods in its domain.
fn unbalances(after: &World, keepers: &BTreeSet<ObjectKey>, key: &ObjectKey, name: &str) -> bool {
    let (Some(pod), Some(node)) = (after.pods.get(key), after.nodes.get(name)) else {
        return false;
    };
    named(pod).is_none() && spread::is_crowded_by(after, keepers, key, pod, node)
}

/// The nodes that can take the pod now.
pub fn feasible_nodes(world: &World, pod: &ObjectKey) -> BTreeSet<String> {
    world
        .nodes
        .keys()
        .filter(|node| feasible(world, pod, node).is_ok())
        .cloned()
        .collect()
}

/// The nominated pods that come before `pod`: others, of at least its priority.
pub(crate) fn nominated_over(world: &World, pod: &ObjectKey) -> BTreeSet<ObjectKey> {
    let Some(own) = world.pods.get(pod) else {
        return BTreeSet::new();
    };
    world
        .nominations
        .keys()
        .filter(|key| *key != pod)
        .filter(|key| {
            world
                .pods
                .get(*key)
                .is_some_and(|p| p.node.is_none() && p.priority >= own.priority)
        })
        .cloned()
        .collect()
}

/// The world once all victims have gone, also those of other nominated pods, and the `nominated` ones are placed.
pub(crate) fn after_nominations(world: &World, nominated: &BTreeSet<ObjectKey>) -> World {
    let mut after = world.clone();
    for nomination in world.nominations.values() {
        after = after.without(world.leaving(nomination));
    }
    for key in nominated {
        let nomination = &world.nominations[key];
        if let Some(pod) = world.pods.get(key) {
            after = after.with(key, pod, &nomination.node);
        }
    }
    after
}

/// All violations beside what is placed, nominations aside.
pub(crate) fn violations_now(world: &World, key: &ObjectKey, name: &str) -> Vec<Violation> {
    let Some(pod) = world.pods.get(key) else {
        return vec![Violation::UnknownPod];
    };
    let Some(node) = world.nodes.get(name) else {
        return vec![Violation::UnknownNode];
    };
    // The pod does not stand in its own way.
    let without;
    let world = if pod.node.is_some() {
        without = world.without([key]);
        &without
    } else {
        world
    };
    let mut found = node_violations(pod, name, node);
    found.extend(room::violations(world, key, pod, name, node));
    // Naming a node overrules affinity and anti-affinity between pods, and spreading as well.
    if named(pod).is_none() {
        found.extend(neighbours::violations(world, key, pod, node));
        found.extend(spread::violations(world, key, pod, node));
    }
    found
}

/// The one node that the pod names.
fn named(pod: &Pod) -> Option<&str> {
    pod.spec.node_name.as_deref().filter(|n| !n.is_empty())
}

/// What pod and node say by themselves, whatever else is placed.
fn node_violations(pod: &Pod, name: &str, node: &Node) -> Vec<Violation> {
    let mut found = Vec::new();
    let spec = &pod.spec;
    if let Some(gate) = spec.scheduling_gates.first() {
        found.push(Violation::Gated(gate.name.clone()));
    }
    if !node.ready {
        found.push(Violation::NotReady);
    }
    let named = named(pod);
    if named.is_some_and(|n| n != name) {
        found.push(Violation::NodeName);
    }
    for taint in matching::untolerated(spec, &taints(node)) {
        // Whoever names its node goes past the scheduler in Kubernetes; only what would also evict it counts.
        if named.is_some() && taint.effect == TaintEffect::NoSchedule {
            continue;
        }
        found.push(Violation::Taint(taint.key.clone()));
    }
    if !matching::node_selected(spec, name, node) {
        found.push(Violation::Selector);
    }
    for container in spec.init_containers.iter().chain(&spec.containers) {
        if !node
            .drivers
            .iter()
            .any(|d| driver_runs(d, &container.image))
        {
            found.push(Violation::Driver(container.name.clone()));
        }
    }
    found
}

/// The taints of a node, with the one that stands for being cordoned.
pub(crate) fn taints(node: &Node) -> Vec<Taint> {
    let mut taints = node.taints.clone();
    if node.cordoned {
        taints.push(matching::cordon_taint());
    }
    taints
}

/// Whether a driver runs an image: `process` runs programs of the host and nothing else, `hollow` pretends to run
/// anything, all others run container images.
fn driver_runs(driver: &str, image: &str) -> bool {
    match driver {
        "process" => image == "host",
        "hollow" => true,
        _ => image != "host",
    }
}
