//! One cluster told to both: to the core, and to the checker's world.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::{Taint, TaintEffect};
use setpoint_scheduler_check::{Node, Nomination, Pod, Reservation, Violation, World, feasible};
use setpoint_scheduler_core::{
    Class, Cluster, NodeFacts, NodeImage, NotReady, PodAsk, PodRequest, Profile, Reason,
    ReservationFacts, Unschedulable, Usage,
};

/// The core's cluster and the checker's world, kept alike.
#[derive(Default)]
pub(crate) struct Twin {
    pub(crate) world: World,
    pub(crate) cluster: Cluster,
    classes: BTreeMap<ObjectKey, Class>,
    pub(crate) profile: Profile,
    since: i64,
}

impl Twin {
    /// Tells the core everything about a world.
    pub(crate) fn of(world: &World, profile: Profile) -> Self {
        let mut twin = Self {
            profile,
            ..Self::default()
        };
        for (name, labels) in &world.namespaces {
            twin.set_namespace(name, labels);
        }
        for (name, node) in &world.nodes {
            twin.set_node(name, node.clone());
        }
        for (key, pod) in &world.pods {
            let node = pod.node.clone();
            twin.add(
                key,
                Pod {
                    node: None,
                    ..pod.clone()
                },
            );
            if let Some(node) = node {
                twin.place(key, &node, pod.since);
            }
        }
        for (key, reservation) in &world.reservations {
            twin.reserve(key, reservation.clone());
        }
        for (key, nomination) in &world.nominations {
            twin.nominate(key, &nomination.node, &nomination.victims);
        }
        twin
    }

    pub(crate) fn set_node(&mut self, name: &str, node: Node) {
        self.cluster.set_node(facts(name, &node));
        self.world.nodes.insert(name.into(), node);
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.cluster.remove_node(name);
        self.world.nodes.remove(name);
    }

    pub(crate) fn set_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) {
        self.cluster.set_namespace(name, labels);
        self.world.namespaces.insert(name.into(), labels.clone());
    }

    /// Nothing is known of a namespace any more.
    pub(crate) fn forget_namespace(&mut self, name: &str) {
        self.cluster.remove_namespace(name);
        self.world.namespaces.remove(name);
    }

    /// A pod appears, waiting; or one that is there asks for something else from now on.
    pub(crate) fn add(&mut self, key: &ObjectKey, pod: Pod) {
        let class = self.cluster.class(&PodAsk {
            namespace: &key.namespace,
            labels: &pod.labels,
            spec: &pod.spec,
            priority: pod.priority,
            profile: self.profile.clone(),
        });
        self.classes.insert(key.clone(), class);
        self.world.pods.insert(key.clone(), pod);
    }

    /// A pod that is placed has other labels.
    pub(crate) fn relabel(&mut self, key: &ObjectKey, labels: BTreeMap<String, String>) {
        let Some(pod) = self.world.pods.get(key).cloned() else {
            return;
        };
        let (node, since) = (pod.node.clone(), pod.since);
        self.add(key, Pod { labels, ..pod });
        if let Some(node) = node {
            self.place(key, &node, since);
        }
    }

    pub(crate) fn class(&self, key: &ObjectKey) -> Class {
        self.classes[key].clone()
    }

    pub(crate) fn request(&self, key: &ObjectKey) -> PodRequest {
        PodRequest {
            pod: key.clone(),
            class: self.class(key),
        }
    }

    /// When the next pod is placed.
    pub(crate) fn now(&mut self) -> i64 {
        self.since += 1;
        self.since
    }

    /// Puts a pod on a node in both.
    pub(crate) fn place(&mut self, key: &ObjectKey, node: &str, since: i64) {
        let class = self.class(key);
        self.cluster.place(key, node, &class, since);
        self.placed(key, node, since);
    }

    /// Puts a pod on a node in the world alone: the core has done so itself.
    pub(crate) fn placed(&mut self, key: &ObjectKey, node: &str, since: i64) {
        self.since = self.since.max(since);
        self.world.nominations.remove(key);
        if let Some(pod) = self.world.pods.get_mut(key) {
            pod.node = Some(node.into());
            pod.since = since;
        }
    }

    /// Takes a pod off its node in both; it waits again.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.cluster.forget(key);
        self.world.nominations.remove(key);
        if let Some(pod) = self.world.pods.get_mut(key) {
            pod.node = None;
        }
    }

    /// Keeps room for a pod whose victims stop.
    pub(crate) fn nominate(&mut self, key: &ObjectKey, node: &str, victims: &[ObjectKey]) {
        let class = self.class(key);
        self.cluster.nominate(key, node, &class, victims);
        let nomination = Nomination {
            node: node.into(),
            victims: victims.to_vec(),
        };
        self.world.nominations.insert(key.clone(), nomination);
    }

    pub(crate) fn reserve(&mut self, key: &str, reservation: Reservation) {
        self.cluster.set_reservation(ReservationFacts {
            key: ObjectKey::cluster(key),
            owner: reservation.owners.clone(),
            namespaces: reservation.namespaces.clone(),
            resources: reservation.resources.clone(),
            node: reservation.node.as_deref().map(Arc::from),
        });
        self.world.reservations.insert(key.into(), reservation);
    }

    pub(crate) fn unreserve(&mut self, key: &str) {
        self.cluster.remove_reservation(&ObjectKey::cluster(key));
        self.world.reservations.remove(key);
    }
}

fn facts(name: &str, node: &Node) -> NodeFacts {
    let mut taints = node.taints.clone();
    if node.cordoned {
        // As `view::NodeView` merges it.
        taints.push(Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: TaintEffect::NoSchedule,
            ..Taint::default()
        });
    }
    NodeFacts {
        name: Arc::from(name),
        session: 1,
        not_ready: (!node.ready).then_some(NotReady::Lost),
        unschedulable: node.cordoned,
        labels: node.labels.clone(),
        taints,
        drivers: node.drivers.clone(),
        allocatable: node.allocatable.clone(),
        images: node
            .images
            .iter()
            .map(|(name, bytes)| NodeImage {
                names: vec![name.clone()],
                bytes: u64::try_from(*bytes).unwrap_or(0),
            })
            .collect(),
        usage: (!node.usage.is_empty()).then(|| Usage {
            cpu_milli: node.usage.get("cpu").map_or(0, |q| q.milli_value()),
            memory_bytes: node.usage.get("memory").map_or(0, |q| q.value()),
        }),
    }
}

/// What is against each node.
pub(crate) fn verdicts(world: &World, key: &ObjectKey) -> BTreeMap<String, Vec<Violation>> {
    let against = |node: &String| feasible(world, key, node).err().unwrap_or_default();
    world
        .nodes
        .keys()
        .map(|n| (n.clone(), against(n)))
        .collect()
}

/// The nodes that nothing is against.
pub(crate) fn fits(verdicts: &BTreeMap<String, Vec<Violation>>) -> Vec<&str> {
    let free = verdicts.iter().filter(|(_, against)| against.is_empty());
    free.map(|(node, _)| node.as_str()).collect()
}

/// What is wrong with the core's account of why nodes cannot take a pod; `None` when nothing is.
///
/// Each reason must hold for at least as many nodes as the core counts, and there must be a reason for every node that
/// cannot.
pub(crate) fn account(
    verdicts: &BTreeMap<String, Vec<Violation>>,
    told: &Unschedulable,
) -> Option<String> {
    let show = || format!("{:?}; checker: {verdicts:?}", told.reasons);
    if told.nodes as usize != verdicts.len() {
        return Some(format!("counts {} nodes of {}", told.nodes, verdicts.len()));
    }
    for (reason, count) in &told.reasons {
        let having = verdicts
            .values()
            .filter(|found| found.iter().any(|v| says(reason, v)))
            .count();
        if *count as usize > having {
            return Some(format!("{count} {reason}, but only {having}: {}", show()));
        }
    }
    let infeasible = verdicts.values().filter(|v| !v.is_empty()).count();
    let counted: u32 = told.reasons.values().sum();
    ((counted as usize) < infeasible)
        .then(|| format!("{infeasible} nodes cannot, {counted} counted: {}", show()))
}

/// Whether a reason of the core is about a violation.
fn says(reason: &Reason, violation: &Violation) -> bool {
    match reason {
        Reason::NotReady(_) => *violation == Violation::NotReady,
        Reason::Unschedulable => {
            matches!(violation, Violation::Taint(k) if k == "node.kubernetes.io/unschedulable")
        }
        Reason::NodeName => *violation == Violation::NodeName,
        Reason::Taint { .. } => matches!(violation, Violation::Taint(_)),
        Reason::Selector => *violation == Violation::Selector,
        // The cases have no claims.
        Reason::VolumeClaim { .. } => false,
        Reason::Images | Reason::Host => matches!(violation, Violation::Driver(_)),
        Reason::TooManyPods => *violation == Violation::TooManyPods,
        Reason::Insufficient(resource) => match violation {
            Violation::Insufficient(r) | Violation::Reserved(r) => **r == **resource,
            _ => false,
        },
        Reason::Ports => matches!(violation, Violation::HostPort(_)),
        Reason::PodAffinity => matches!(violation, Violation::Affinity(_)),
        Reason::PodAntiAffinity => matches!(violation, Violation::AntiAffinity(_)),
        Reason::ExistingAntiAffinity => matches!(violation, Violation::UnwantedBy(_)),
        Reason::Spread => matches!(violation, Violation::Spread(_)),
        Reason::SpreadLabel => matches!(violation, Violation::SpreadKeyMissing(_)),
    }
}
