//! No effective write of an old epoch or session, and none by somebody whose key it is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::Key;

use super::{Check, Finding};
use crate::ledger::Entry;
use crate::world::Role;

/// Who leads what, and who holds which node, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fences {
    /// By controller: the process and its epoch.
    leaders: BTreeMap<Box<str>, (Arc<str>, i64)>,
    /// By node: the process, the session and its epoch.
    sessions: BTreeMap<Box<str>, (Arc<str>, i64, i64)>,
}

#[derive(Debug, Default)]
pub(super) struct FenceCheck {
    now: Arc<Fences>,
    /// The process that changed its own election key, and the revision at which: what else it wrote there belongs to
    /// the election.
    elected: Option<(Arc<str>, i64)>,
    /// Who wrote a key last, and with which of its writes.
    newest: BTreeMap<Box<str>, (Arc<str>, u64)>,
}

impl FenceCheck {
    pub(super) fn now(&self) -> Arc<Fences> {
        Arc::clone(&self.now)
    }

    fn leads(&self, entry: &Entry<'_>, controllers: &[&str]) -> bool {
        let Some(sent) = entry.sent else {
            return false;
        };
        controllers.iter().any(|controller| {
            let now = self.now.leaders.get(*controller);
            now.is_some_and(|(process, _)| *process == sent.process)
                && now == sent.fences.leaders.get(*controller)
        })
    }

    fn holds(&self, entry: &Entry<'_>, node: &str) -> bool {
        let Some(sent) = entry.sent else {
            return false;
        };
        let now = self.now.sessions.get(node);
        now.is_some_and(|(process, ..)| *process == sent.process)
            && now == sent.fences.sessions.get(node)
    }
}

/// The controllers that may write a key; an empty list: none.
fn owners(key: &Key<'_>, deletes: bool) -> &'static [&'static str] {
    match key {
        Key::Binding(_) | Key::WorkPod(..) | Key::WorkContent(..) => &["scheduler"],
        Key::Health(_) => &["node-lifecycle"],
        Key::Actual("pods", _) => &["scheduler"],
        Key::Actual("deployments" | "replicasets", _) if deletes => &["workloads", "gc"],
        Key::Actual("deployments" | "replicasets", _) => &["workloads"],
        Key::NodePod(..) if deletes => &["scheduler", "node-lifecycle"],
        Key::NodeStatus(_) | Key::NodeFence(_) if deletes => &["node-lifecycle"],
        Key::Intent { .. } => &["failover", "scheduler"],
        Key::Desired("pods" | "replicasets", _) => &["workloads", "gc"],
        // Nodes are registered by whoever sees their sessions.
        Key::Desired("nodes", _) if !deletes => &["node-lifecycle"],
        Key::Desired(..) if deletes => &["gc"],
        Key::Deletion(..) => &["gc"],
        Key::Meta("clock") => &["node-lifecycle"],
        _ => &[],
    }
}

impl Check for FenceCheck {
    fn enter(&mut self, entry: &Entry<'_>, key: &Key<'_>, found: &mut Vec<Finding>) {
        match key {
            Key::Leader(controller, None) => return self.election(entry, controller),
            Key::NodeAlive(node) => return self.session(entry, node, found),
            // Best effort, by whoever saw something.
            Key::Event { .. } => return,
            // It hangs on a lease.
            Key::NodeFence(_) if entry.sent.is_none() && entry.value.is_none() => return,
            _ => {}
        }
        let Some(sent) = entry.sent else {
            found.push((
                "one writer",
                format!("{} ended with a lease, and hangs on none", entry.key),
            ));
            return;
        };
        let allowed = match Role::of(&sent.process) {
            Role::User => true,
            Role::Controllers => {
                let claimed = matches!(key, Key::Actual("leaders", _))
                    && self.elected == Some((Arc::clone(&sent.process), entry.revision));
                claimed || self.leads(entry, owners(key, entry.value.is_none()))
            }
            Role::Agent(own) => match key {
                Key::NodeStatus(node) | Key::NodeFence(node) | Key::NodePod(node, _) => {
                    *node == own && self.holds(entry, node)
                }
                Key::Desired("nodes", name) => &*name.name == own && entry.value.is_some(),
                _ => false,
            },
        };
        if let Some(late) = self.late(entry) {
            found.push(("late write", late));
        }
        if !allowed {
            let invariant = match Role::of(&sent.process) {
                Role::Agent(_) => "session fence",
                _ => "epoch fence",
            };
            let verb = if entry.value.is_some() {
                "put"
            } else {
                "deleted"
            };
            found.push((
                invariant,
                format!(
                    "{} {verb} {}; when it was sent: {}; when it took effect: {}",
                    sent.process,
                    entry.key,
                    sent.fences.tell(key),
                    self.now.tell(key),
                ),
            ));
        }
    }
}

impl FenceCheck {
    /// A write whose outcome its sender was told to be unknown must not take effect after what the sender has decided
    /// about the same key since.
    fn late(&mut self, entry: &Entry<'_>) -> Option<String> {
        let sent = entry.sent?;
        let now = (Arc::clone(&sent.process), sent.number);
        let (process, newest) = self.newest.insert(entry.key.into(), now)?;
        let late = process == sent.process && sent.given_up().is_some_and(|at| newest > at);
        late.then(|| {
            format!(
                "{process} wrote {} after it had given that write up and decided anew",
                entry.key
            )
        })
    }

    fn election(&mut self, entry: &Entry<'_>, controller: &str) {
        let fences = Arc::make_mut(&mut self.now);
        match (entry.value, entry.sent) {
            (Some(_), Some(sent)) => {
                let leader = (Arc::clone(&sent.process), entry.revision);
                fences.leaders.insert(controller.into(), leader);
                self.elected = Some((Arc::clone(&sent.process), entry.revision));
            }
            _ => drop(fences.leaders.remove(controller)),
        }
    }

    fn session(&mut self, entry: &Entry<'_>, node: &str, found: &mut Vec<Finding>) {
        let fences = Arc::make_mut(&mut self.now);
        match (entry.value, entry.sent) {
            (Some(_), Some(sent)) => {
                if Role::of(&sent.process) != Role::Agent(node) {
                    found.push(("one writer", format!("{} put {}", sent.process, entry.key)));
                }
                let session = (
                    Arc::clone(&sent.process),
                    entry.create_revision,
                    entry.revision,
                );
                fences.sessions.insert(node.into(), session);
            }
            _ => drop(fences.sessions.remove(node)),
        }
    }
}

impl Fences {
    /// The fences that matter for a key, for people.
    fn tell(&self, key: &Key<'_>) -> String {
        match key {
            Key::NodeStatus(node) | Key::NodeFence(node) | Key::NodePod(node, _) => {
                match self.sessions.get(*node) {
                    Some((process, session, epoch)) => {
                        format!("{node} held by {process}, session {session}, epoch {epoch}")
                    }
                    None => format!("{node} held by nobody"),
                }
            }
            _ => {
                let leaders = self.leaders.iter().map(|(controller, (process, epoch))| {
                    format!("{controller} led by {process} since r{epoch}")
                });
                leaders.collect::<Vec<_>>().join(", ")
            }
        }
    }
}
