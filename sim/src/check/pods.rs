//! No pod claimed on two nodes at once but for one that is moved, no node over its allocatable, no `stop` pod running
//! twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::records::{Binding, NodeStatusRecord, PARTITION_POLICY};
use setpoint_apis::view::pod_requests;
use setpoint_apis::{Key, ObjectKey, ResourceList, document};

use super::known::Known;
use super::{Change, Finding};

#[derive(Debug, Default)]
pub(super) struct PodCheck {
    /// What each pod requests, by its document; shared among pods of equal requests.
    requests: BTreeMap<ObjectKey, Wanted>,
    bindings: BTreeMap<ObjectKey, Binding>,
    /// What each pod takes of which nodes: of the one that it is bound to, and of another one while it is moved.
    takes: BTreeMap<ObjectKey, BTreeMap<Box<str>, Arc<Amounts>>>,
    /// Which nodes have a record of a pod.
    claims: BTreeMap<ObjectKey, BTreeSet<Box<str>>>,
    /// Where pods are ready, and as which placement.
    ready: BTreeMap<(ObjectKey, Box<str>), u32>,
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

/// In thousandths, so that cpu adds up exactly.
pub(super) type Amounts = BTreeMap<String, i64>;

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

/// What a list says.
pub(super) fn amounts(list: &ResourceList) -> Amounts {
    list.iter()
        .map(|(name, quantity)| (name.clone(), quantity.milli_value()))
        .collect()
}

impl PodCheck {
    /// What a new binding is made from must be so when it takes effect.
    fn check_binding(&self, pod: &ObjectKey, binding: &Binding, found: &mut Vec<Finding>) {
        let mut wrong = |message| found.push(("binding", message));
        let node = binding.node.as_str();
        let before = self.bindings.get(pod);
        if let Some(before) = before.filter(|before| before.node != node) {
            self.check_switch(pod, before, binding, found);
            return;
        }
        let document = self.documents.get(pod).copied();
        if before.is_none() && document != Some(binding.pod_revision) {
            wrong(format!(
                "{pod} was bound as of {}, and is at {document:?}",
                binding.pod_revision
            ));
        }
        // What a move begins with must be so as well.
        let (of, node, session) = match (before, &binding.moving) {
            (None, _) => ("bound to", node, binding.session),
            (Some(before), Some(moving)) if before.moving.is_none() => {
                if self.never_twice.contains(pod) && binding.withdrawn.is_none() {
                    wrong(format!(
                        "{pod} moves from {node}, and must stop there first"
                    ));
                }
                if let Some(leaving) = &before.leaving {
                    wrong(format!("{pod} moves while it has not left {leaving}"));
                }
                ("moved to", moving.to.as_str(), moving.session)
            }
            _ => return,
        };
        let present = self.sessions.get(node).copied();
        if present != Some(session) {
            wrong(format!(
                "{pod} was {of} {node} in session {session}, and that is {present:?}"
            ));
        }
    }

    /// A binding becomes another node's only by the move that it speaks of, when that is done.
    fn check_switch(
        &self,
        pod: &ObjectKey,
        before: &Binding,
        binding: &Binding,
        found: &mut Vec<Finding>,
    ) {
        let (from, to) = (before.node.as_str(), binding.node.as_str());
        let moving = before.moving.as_ref().filter(|m| m.to == to);
        let Some(moving) = moving.filter(|m| m.placement == binding.placement) else {
            let message = format!("{pod} was bound to {to} while it was bound to {from}");
            found.push(("binding", message));
            return;
        };
        let claims = |node: &str| self.claims.get(pod).is_some_and(|c| c.contains(node));
        if before.withdrawn.is_some() {
            if claims(from) {
                let message = format!("{pod} was moved to {to} before it had stopped on {from}");
                found.push(("move", message));
            }
            return;
        }
        // From a node that is lost it may be moved before.
        let ready = self.ready.get(&(pod.clone(), to.into())) == Some(&moving.placement);
        if !ready && self.sessions.contains_key(from) {
            let message = format!("{pod} was moved from {from} to {to}, where it is not ready");
            found.push(("move", message));
        }
    }

    /// Counts what a pod takes of which nodes.
    fn count(&mut self, pod: &ObjectKey, known: &Known, found: &mut Vec<Finding>) {
        let mut now: BTreeSet<Box<str>> = BTreeSet::new();
        if let Some(binding) = self.bindings.get(pod) {
            let claims = self.claims.get(pod);
            // What has ended takes nothing, nor what was withdrawn and has left no record.
            let node = binding.node.as_str();
            let stops = binding.withdrawn.is_some();
            let stopped = stops && !claims.is_some_and(|c| c.contains(node));
            if !stopped && !known.over(pod) {
                now.insert(node.into());
            }
            now.extend(binding.moving.iter().map(|m| Box::from(m.to.as_str())));
            let left = binding.leaving.as_deref().map(Box::from);
            now.extend(left.filter(|node| claims.is_some_and(|c| c.contains(node))));
        }
        let amounts = self
            .requests
            .get(pod)
            .map(|w| Arc::clone(&w.amounts))
            .unwrap_or_default();
        let takes = self.takes.entry(pod.clone()).or_default();
        takes.retain(|node, amounts| {
            let stays = now.contains(node);
            if !stays && let Some(held) = self.nodes.get_mut(node) {
                held.take(amounts, -1);
            }
            stays
        });
        for node in now {
            if takes.contains_key(&node) {
                continue;
            }
            let held = self.nodes.entry(node.clone()).or_default();
            held.take(&amounts, 1);
            if let Some(over) = held.over() {
                found.push((
                    "allocatable",
                    format!("{pod} was bound to {node}, which then has {over}"),
                ));
            }
            takes.insert(node, Arc::clone(&amounts));
        }
        if takes.is_empty() {
            self.takes.remove(pod);
        }
    }

    /// Whether the nodes that have a record of a pod are those that its binding speaks of.
    fn check_claims(&self, pod: &ObjectKey, found: &mut Vec<Finding>) {
        let Some(claims) = self.claims.get(pod).filter(|c| c.len() > 1) else {
            return;
        };
        let binding = self.bindings.get(pod);
        let known =
            |node: &str| binding.is_some_and(|b| b.node == node || b.other_node() == Some(node));
        if !claims.iter().all(|node| known(node)) {
            let nodes: Vec<&str> = claims.iter().map(AsRef::as_ref).collect();
            found.push((
                "single placement",
                format!("{pod} is claimed on {}", nodes.join(" and on ")),
            ));
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
    fn take(&mut self, amounts: &Amounts, sign: i64) {
        self.pods += sign;
        for (name, amount) in amounts {
            *self.used.entry(name.clone()).or_default() += sign * amount;
        }
    }

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

impl PodCheck {
    /// Takes note of a change, after [`Known`] has, and says what is wrong with it.
    pub(super) fn enter(&mut self, change: &Change<'_>, known: &Known, found: &mut Vec<Finding>) {
        let entry = change.entry;
        match (&change.key, entry.value) {
            (Key::Desired("pods", pod), Some(_)) => {
                self.documents.insert(pod.clone(), entry.revision);
                // A document that does not parse is frozen: what it requested stays.
                let Some(parsed) = &change.pod else {
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
            (Key::Binding(pod), Some(_)) => {
                if let Some(binding) = &change.binding {
                    self.check_binding(pod, binding, found);
                    self.bindings.insert(pod.clone(), binding.clone());
                    self.count(pod, known, found);
                }
            }
            (Key::Binding(pod), None) => {
                self.bindings.remove(pod);
                self.count(pod, known, found);
            }
            (Key::NodeStatus(node), Some(value)) => {
                if let Ok(status) = document::decode_value::<NodeStatusRecord>(value) {
                    self.nodes.entry((*node).into()).or_default().allocatable =
                        amounts(&status.allocatable);
                }
            }
            (Key::NodePod(node, pod), Some(_)) => {
                self.claimed.insert((pod.clone(), (*node).into()));
                let place = (pod.clone(), Box::from(*node));
                match &change.record {
                    Some(actual) if actual.is_ready() => {
                        self.ready.insert(place, actual.placement);
                    }
                    _ => drop(self.ready.remove(&place)),
                }
                let claims = self.claims.entry(pod.clone()).or_default();
                if claims.insert((*node).into()) {
                    self.check_claims(pod, found);
                }
                self.count(pod, known, found);
            }
            (Key::NodePod(node, pod), None) => {
                self.ready.remove(&(pod.clone(), Box::from(*node)));
                if let Some(claims) = self.claims.get_mut(pod) {
                    claims.remove(*node);
                }
                self.count(pod, known, found);
            }
            _ => {}
        }
    }
}
