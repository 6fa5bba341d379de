//! A cluster in the plainest form: maps that anybody can read, and nothing that is derived from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::core::{PodSpec, Taint};
use setpoint_apis::selector::LabelSelector;
use setpoint_apis::{ObjectKey, ResourceList};

/// Everything that a decision may depend on.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Labels of namespaces by name.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Pods, placed or waiting.
    pub pods: BTreeMap<ObjectKey, Pod>,
    /// Capacity that is set aside, by key.
    pub reservations: BTreeMap<String, Reservation>,
    /// Pods for which room is kept while their victims stop.
    pub nominations: BTreeMap<ObjectKey, Nomination>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints, without the one that `cordoned` stands for.
    pub taints: Vec<Taint>,
    /// What pods may request of it.
    pub allocatable: ResourceList,
    /// Whether anything can be placed on it at all.
    pub ready: bool,
    /// Whether users keep new pods away.
    pub cordoned: bool,
    /// The images that are there, with their sizes in bytes.
    pub images: BTreeMap<String, i64>,
    /// What was measured of it, `cpu` and `memory`; empty when nothing was.
    pub usage: ResourceList,
    /// The drivers that run containers.
    pub drivers: Vec<String>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it asks.
    pub spec: Arc<PodSpec>,
    /// Its priority, resolved.
    pub priority: i32,
    /// The node it is placed on, which need not exist any more. `None` while it waits.
    pub node: Option<String>,
    /// When it came there, in an order of the caller's; greater is newer.
    pub since: i64,
}

/// Capacity of one node that only certain pods may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reservation {
    /// Whose it is, by labels.
    pub owners: LabelSelector,
    /// The namespaces of the owners.
    pub namespaces: Vec<String>,
    /// How much is set aside.
    pub resources: ResourceList,
    /// Where; `None` while there was no room for it.
    pub node: Option<String>,
}

/// Room that is kept for a pod which has taken it from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nomination {
    /// On this node.
    pub node: String,
    /// The pods that give way; those that have left the node already do not matter.
    pub victims: Vec<ObjectKey>,
}

impl World {
    /// The pods that are placed on `node`.
    pub fn pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Pod)> {
        self.pods
            .iter()
            .filter(move |(_, p)| p.node.as_deref() == Some(node))
    }

    /// The pods that are placed on nodes that exist, with their nodes.
    pub fn placed(&self) -> impl Iterator<Item = (&ObjectKey, &Pod, &Node)> {
        self.pods.iter().filter_map(|(key, pod)| {
            let node = self.nodes.get(pod.node.as_deref()?)?;
            Some((key, pod, node))
        })
    }

    /// The same world with a pod on a node.
    #[must_use]
    pub fn with(&self, key: &ObjectKey, pod: &Pod, node: &str) -> Self {
        let mut world = self.clone();
        world.pods.insert(
            key.clone(),
            Pod {
                node: Some(node.into()),
                ..pod.clone()
            },
        );
        world
    }

    /// The victims of a nominated pod that have not left its node yet.
    pub(crate) fn leaving<'a>(
        &'a self,
        nomination: &'a Nomination,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        nomination.victims.iter().filter(|victim| {
            let there = self.pods.get(*victim).and_then(|p| p.node.as_deref());
            there == Some(&*nomination.node)
        })
    }

    /// The same world with some pods waiting instead of placed.
    #[must_use]
    pub fn without<'a>(&self, keys: impl IntoIterator<Item = &'a ObjectKey>) -> Self {
        let mut world = self.clone();
        for key in keys {
            if let Some(pod) = world.pods.get_mut(key) {
                pod.node = None;
            }
        }
        world
    }
}
