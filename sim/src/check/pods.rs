//! No pod claimed on two nodes at once, no node over its allocatable, no `stop` pod running twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::core::Pod;
use setpoint_apis::records::{Binding, NodeStatusRecord, PARTITION_POLICY};
use setpoint_apis::view::pod_requests;
use setpoint_apis::{Key, ObjectKey, ResourceList, document};

use super::{Check, Finding};
use crate::ledger::Entry;

#[derive(Debug, Default)]
pub(super) struct PodCheck {
    /// What each pod requests, by its document; shared among pods of equal requests.
    requests: BTreeMap<ObjectKey, Wanted>,
    /// Where each pod is bound, with what it requested then.
    bound: BTreeMap<ObjectKey, (Box<str>, Arc<Amounts>)>,
    /// Which nodes have a record of a pod.
    claims: BTreeMap<ObjectKey, BTreeSet<Box<str>>>,
    nodes: BTreeMap<Box<str>, Node>,
    /// Which nodes have ever claimed a pod.
    claimed: BTreeSet<(ObjectKey, Box<str>)>,
    /// The revisions of the pods' documents and of the nodes' sessions.
    documents: BTreeMap<ObjectKey, i64>,
    sessions: BTreeMap<Box<str>, i64>,
    /// Instances that run, whatever the store says.
    running: BTreeMap<ObjectKey, Vec<Box<str>>>,
    never_twice: BTreeSet<ObjectKey>,
}

type Amounts = BTreeMap<String, i64>;

#[derive(Clone, Debug)]
struct Wanted {
    amounts: Arc<Amounts>,
}

#[derive(Debug, Default)]
struct Node {
    allocatable: Amounts,
    used: Amounts,
    pods: i64,
}

/// In thousandths, so that cpu adds up exactly.
fn amounts(list: &ResourceList) -> Amounts {
    list.iter()
        .map(|(name, quantity)| (name.clone(), quantity.milli_value()))
        .collect()
}

impl PodCheck {
    /// What a new binding is made from must be so when it takes effect.
    fn check_binding(&self, pod: &ObjectKey, binding: &Binding, found: &mut Vec<Finding>) {
        let node = binding.node.as_str();
        if let Some((at, _)) = self.bound.get(pod) {
            if **at != *node {
                found.push((
                    "binding",
                    format!("{pod} was bound to {node} while it was bound to {at}"),
                ));
            }
            return;
        }
        let document = self.documents.get(pod).copied();
        if document != Some(binding.pod_revision) {
            let message = format!(
                "{pod} was bound as of {}, and is at {document:?}",
                binding.pod_revision
            );
            found.push(("binding", message));
        }
        let session = self.sessions.get(node).copied();
        if session != Some(binding.session) {
            let message = format!(
                "{pod} was bound to {node} in session {}, and that is {session:?}",
                binding.session
            );
            found.push(("binding", message));
        }
    }

    fn bind(&mut self, pod: &ObjectKey, node: &str, found: &mut Vec<Finding>) {
        if self.bound.get(pod).is_some_and(|(at, _)| **at == *node) {
            return;
        }
        self.unbind(pod);
        let amounts = self
            .requests
            .get(pod)
            .map(|w| Arc::clone(&w.amounts))
            .unwrap_or_default();
        let held = self.nodes.entry(node.into()).or_default();
        held.pods += 1;
        for (name, amount) in &*amounts {
            *held.used.entry(name.clone()).or_default() += amount;
        }
        if let Some(over) = held.over() {
            found.push((
                "allocatable",
                format!("{pod} was bound to {node}, which then has {over}"),
            ));
        }
        self.bound.insert(pod.clone(), (node.into(), amounts));
    }

    fn unbind(&mut self, pod: &ObjectKey) {
        let Some((node, amounts)) = self.bound.remove(pod) else {
            return;
        };
        if let Some(held) = self.nodes.get_mut(&node) {
            held.pods -= 1;
            for (name, amount) in &*amounts {
                *held.used.entry(name.clone()).or_default() -= amount;
            }
        }
    }

    pub(super) fn requested(&self, resource: &str) -> f64 {
        let sum = |of: fn(&Node) -> &Amounts| -> i64 {
            let amounts = self.nodes.values().map(|n| of(n).get(resource).copied());
            amounts.map(|amount| amount.unwrap_or(0)).sum()
        };
        let (used, all) = (sum(|n| &n.used), sum(|n| &n.allocatable));
        if all == 0 {
            0.0
        } else {
            used as f64 / all as f64
        }
    }

    pub(super) fn started(&mut self, pod: &ObjectKey, node: &str) -> Option<Finding> {
        let running = self.running.entry(pod.clone()).or_default();
        running.push(node.into());
        if !self.claimed.contains(&(pod.clone(), node.into())) {
            return Some((
                "claim",
                format!("{pod} starts on {node}, which has never claimed it"),
            ));
        }
        (running.len() > 1 && self.never_twice.contains(pod)).then(|| {
            (
                "at most one",
                format!("{pod} runs on {}", running.join(" and on ")),
            )
        })
    }

    pub(super) fn ended(&mut self, pod: &ObjectKey, node: &str) {
        if let Some(running) = self.running.get_mut(pod)
            && let Some(i) = running.iter().position(|at| **at == *node)
        {
            running.swap_remove(i);
        }
    }
}

impl Node {
    /// What there is too much of.
    fn over(&self) -> Option<String> {
        let pods = self.allocatable.get("pods").copied().unwrap_or(0);
        if self.pods * 1000 > pods {
            return Some(format!("{} pods of {}", self.pods, pods / 1000));
        }
        self.used.iter().find_map(|(name, used)| {
            let most = self.allocatable.get(name).copied().unwrap_or(0);
            (*used > most).then(|| format!("{used}m {name} of {most}m requested"))
        })
    }
}

impl Check for PodCheck {
    fn enter(&mut self, entry: &Entry<'_>, key: &Key<'_>, found: &mut Vec<Finding>) {
        match (key, entry.value) {
            (Key::Desired("pods", pod), Some(value)) => {
                self.documents.insert(pod.clone(), entry.revision);
                // A document that does not parse is frozen: what it requested stays.
                let Ok(parsed) = document::decode_keyed::<Pod>(pod, value) else {
                    return;
                };
                if parsed
                    .metadata
                    .annotations
                    .get(PARTITION_POLICY)
                    .is_some_and(|p| p == "stop")
                {
                    self.never_twice.insert(pod.clone());
                }
                let amounts = Arc::new(amounts(&pod_requests(&parsed.spec)));
                self.requests.insert(pod.clone(), Wanted { amounts });
            }
            (Key::Desired("pods", pod), None) => {
                self.documents.remove(pod);
                self.requests.remove(pod);
            }
            (Key::NodeAlive(node), Some(_)) => {
                self.sessions.insert((*node).into(), entry.create_revision);
            }
            (Key::NodeAlive(node), None) => drop(self.sessions.remove(*node)),
            (Key::Binding(pod), Some(value)) => {
                if let Ok(binding) = document::decode_value::<Binding>(value) {
                    self.check_binding(pod, &binding, found);
                    self.bind(pod, &binding.node, found);
                }
            }
            (Key::Binding(pod), None) => self.unbind(pod),
            (Key::NodeStatus(node), Some(value)) => {
                if let Ok(status) = document::decode_value::<NodeStatusRecord>(value) {
                    self.nodes.entry((*node).into()).or_default().allocatable =
                        amounts(&status.allocatable);
                }
            }
            (Key::NodePod(node, pod), Some(_)) => {
                self.claimed.insert((pod.clone(), (*node).into()));
                let claims = self.claims.entry(pod.clone()).or_default();
                if claims.insert((*node).into()) && claims.len() > 1 {
                    let nodes: Vec<&str> = claims.iter().map(AsRef::as_ref).collect();
                    found.push((
                        "single placement",
                        format!("{pod} is claimed on {}", nodes.join(" and on ")),
                    ));
                }
            }
            (Key::NodePod(node, pod), None) => {
                if let Some(claims) = self.claims.get_mut(pod) {
                    claims.remove(*node);
                }
            }
            _ => {}
        }
    }
}
