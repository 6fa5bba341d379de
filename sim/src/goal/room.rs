//! Whether a pod that waits could be placed: a pod may wait only where no node has room for it.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::core::{Node, PersistentVolumeClaimStatus, Pod};
use setpoint_apis::records::{NodeHealth, NodeState, NodeStatusRecord, PodScheduling};
use setpoint_apis::view::pod_requests;
use setpoint_apis::{Key, ObjectKey, ResourceList, document};

use crate::check::pinned;

/// What is known of room, as far as it is documented in the store.
#[derive(Default)]
pub(super) struct Room {
    nodes: BTreeMap<String, Facts>,
    requests: BTreeMap<ObjectKey, ResourceList>,
    /// Which claims pods use, and where the data of claims is.
    uses: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    homes: BTreeMap<ObjectKey, String>,
    /// Pods that are for one node.
    pins: BTreeMap<ObjectKey, String>,
    /// Pods of which the scheduler says why they wait.
    explained: BTreeSet<ObjectKey>,
}

#[derive(Default)]
struct Facts {
    /// There is a document of it that lets pods come.
    open: bool,
    /// There is a document of it.
    known: bool,
    alive: bool,
    ready: bool,
    allocatable: ResourceList,
}

impl Room {
    /// Takes note of what matters here, and says what cannot be read.
    pub(super) fn take(&mut self, key: &Key<'_>, value: &[u8]) -> Option<String> {
        let unread = |what: &str| Some(format!("{what} cannot be read"));
        match key {
            Key::Desired("nodes", object) => match document::decode_keyed::<Node>(object, value) {
                Ok(node) => {
                    let facts = self.node(&object.name);
                    facts.open = node.spec.unschedulable != Some(true);
                    facts.known = true;
                    None
                }
                Err(_) => unread(&format!("node {object}")),
            },
            Key::NodeAlive(node) => {
                self.node(node).alive = true;
                None
            }
            Key::Health(node) => match document::decode_value::<NodeHealth>(value) {
                Ok(health) => {
                    self.node(node).ready = health.state == NodeState::Ready;
                    None
                }
                Err(_) => unread(&format!("health of {node}")),
            },
            Key::NodeStatus(node) => match document::decode_value::<NodeStatusRecord>(value) {
                Ok(status) => {
                    self.node(node).allocatable = status.allocatable;
                    None
                }
                Err(_) => unread(&format!("status of {node}")),
            },
            Key::Desired("pods", object) => match document::decode_keyed::<Pod>(object, value) {
                Ok(pod) => {
                    let requests = pod_requests(&pod.spec);
                    let pin = pinned(&pod).map(|node| (object.clone(), node));
                    self.pins.extend(pin);
                    let claims = pod.spec.claim_names().into_iter();
                    let claims =
                        claims.map(|name| ObjectKey::namespaced(object.namespace.clone(), name));
                    self.uses.insert(object.clone(), claims.collect());
                    self.requests.insert(object.clone(), requests);
                    None
                }
                Err(_) => unread(&format!("pod {object}")),
            },
            Key::Actual("persistentvolumeclaims", object) => {
                match document::decode_value::<PersistentVolumeClaimStatus>(value) {
                    Ok(status) => {
                        self.homes
                            .extend(status.node.map(|node| (object.clone(), node)));
                        None
                    }
                    Err(_) => unread(&format!("status of claim {object}")),
                }
            }
            Key::Actual("pods", object) => {
                let says = document::decode_value::<PodScheduling>(value);
                let waits = |c: &setpoint_apis::core::PodCondition| {
                    c.type_ == "PodScheduled" && c.status == "False"
                };
                if says.is_ok_and(|s| s.conditions.iter().any(waits)) {
                    self.explained.insert(object.clone());
                }
                None
            }
            _ => None,
        }
    }

    fn node(&mut self, name: &str) -> &mut Facts {
        self.nodes.entry(name.to_owned()).or_default()
    }

    /// The nodes on which each DaemonSet has a pod: being closed to others does not matter.
    pub(super) fn with_daemons(&self) -> impl Iterator<Item = &String> {
        let nodes = self.nodes.iter();
        let up = nodes.filter(|(_, node)| node.known && node.alive && node.ready);
        up.map(|(name, _)| name)
    }

    /// The node that a pod is for, when it is for one.
    pub(super) fn pin(&self, pod: &ObjectKey) -> Option<&String> {
        self.pins.get(pod)
    }

    /// Why a pod without a binding should have one, or what else is wrong; `None`: it may wait.
    pub(super) fn should_be_bound<'a>(
        &self,
        pod: &ObjectKey,
        bound: impl Iterator<Item = (&'a ObjectKey, &'a str)>,
    ) -> Option<String> {
        let mut used: BTreeMap<&str, (i64, BTreeMap<&str, i64>)> = BTreeMap::new();
        for (other, node) in bound {
            let (pods, amounts) = used.entry(node).or_default();
            *pods += 1;
            for (name, amount) in self.requests.get(other).into_iter().flatten() {
                *amounts.entry(name).or_default() += amount.milli_value();
            }
        }
        let asked = self.requests.get(pod)?;
        let pin = self.pins.get(pod);
        let fits = |(name, node): &(&String, &Facts)| {
            let (pods, amounts) = used.get(name.as_str()).cloned().unwrap_or_default();
            let most = |resource: &str| {
                let quantity = node.allocatable.get(resource);
                quantity.map_or(0, |q| q.milli_value())
            };
            let claims = self.uses.get(pod).into_iter().flatten();
            let mut homes = claims.filter_map(|claim| self.homes.get(claim));
            homes.all(|home| home == *name)
                && pin.is_none_or(|pin| pin == *name)
                && (node.open || pin.is_some())
                && node.alive
                && node.ready
                && (pods + 1) * 1000 <= most("pods")
                && asked.iter().all(|(resource, amount)| {
                    let used = amounts.get(&**resource).copied().unwrap_or(0);
                    used + amount.milli_value() <= most(resource)
                })
        };
        if let Some((node, _)) = self.nodes.iter().find(fits) {
            return Some(format!("is not bound, though {node} has room for it"));
        }
        self.unexplained(pod)
    }

    /// What is wrong with a pod that may wait: nothing says why it does.
    pub(super) fn unexplained(&self, pod: &ObjectKey) -> Option<String> {
        match self.explained.contains(pod) {
            true => None,
            false => Some("is not bound, and nothing says why".to_owned()),
        }
    }
}
