//! No effective write of an old epoch or session, and none by somebody whose key it is not.
//!
//! A controller is led as a whole or in shards, and never both; a key belongs to one shard. Who leads what is told from
//! the election keys, and who wrote from the sender. Only then it is asked whether the write's guards name the epoch that
//! it was allowed by, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_runtime::Shards;

use super::{Change, Check, Finding};
use crate::ledger::{Entry, Sent};
use crate::world::Role;

/// Who leads what, and who holds which node, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fences {
    /// By controller, or controller and shard (`gc/12`): the process and its epoch.
    leaders: BTreeMap<Box<str>, (Arc<str>, i64)>,
    /// By node: the process, the session and its epoch.
    sessions: BTreeMap<Box<str>, (Arc<str>, i64, i64)>,
}

#[derive(Debug, Default)]
pub(super) struct FenceCheck {
    keyspace: Keyspace,
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

    /// What the sender leads, and has led when it sent this, that allows it to write the key: a controller as a whole, or
    /// the shard that the key is in. With its epoch.
    fn leads(&self, entry: &Entry<'_>, key: &Key<'_>) -> Vec<(String, i64)> {
        let Some(sent) = entry.sent else {
            return Vec::new();
        };
        let seats = owners(key, entry.value.is_none())
            .iter()
            .flat_map(|controller| seats(controller, key));
        seats
            .filter_map(|seat| {
                let (process, epoch) = self.now.leaders.get(&*seat)?;
                let same = sent.fences.leaders.get(&*seat);
                let holds = *process == sent.process
                    && same.is_some_and(|(then, since)| then == process && since == epoch);
                holds.then_some((seat, *epoch))
            })
            .collect()
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

/// The kinds that the workload controllers report on.
const WORKLOADS: [&str; 6] = [
    "deployments",
    "replicasets",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
];

/// The controllers that may write a key; an empty list: none.
fn owners(key: &Key<'_>, deletes: bool) -> &'static [&'static str] {
    match key {
        Key::Binding(_) | Key::WorkPod(..) | Key::WorkStop(..) | Key::WorkContent(..) => {
            &["scheduler"]
        }
        Key::Health(_) => &["node-lifecycle"],
        Key::Actual("pods", _) => &["scheduler"],
        Key::Actual("persistentvolumeclaims", _) | Key::WorkTombstone(..) => &["scheduler"],
        Key::Actual("poddisruptionbudgets", _) if deletes => &["scheduler", "gc"],
        Key::Actual("poddisruptionbudgets", _) => &["scheduler"],
        Key::Actual("resourcequotas", _) if deletes => &["scheduler", "gc"],
        Key::Actual("resourcequotas", _) => &["scheduler"],
        Key::Actual(kind, _) if WORKLOADS.contains(kind) && deletes => &["workloads", "gc"],
        Key::Actual(kind, _) if WORKLOADS.contains(kind) => &["workloads"],
        Key::NodePod(..) if deletes => &["scheduler", "node-lifecycle"],
        Key::NodeStatus(_) | Key::NodeFence(_) if deletes => &["node-lifecycle"],
        Key::Intent { .. } => &["failover", "scheduler"],
        Key::Desired("pods" | "replicasets" | "jobs", _) => &["workloads", "gc"],
        Key::Desired("controllerrevisions" | "persistentvolumeclaims", _) => &["workloads", "gc"],
        // Copies that revisions of workloads read.
        Key::Desired("configmaps" | "secrets", _) => &["workloads", "gc"],
        // Nodes are registered by whoever sees their sessions.
        Key::Desired("nodes", _) if !deletes => &["node-lifecycle"],
        Key::Desired(..) if deletes => &["gc"],
        Key::Deletion(..) => &["gc"],
        Key::Meta("clock") => &["node-lifecycle"],
        _ => &[],
    }
}

/// What a controller as a whole, or one of its shards, is called here: `gc`, `gc/12`.
fn seat(controller: &str, shard: Option<&str>) -> String {
    match shard {
        Some(shard) => format!("{controller}/{shard}"),
        None => controller.to_owned(),
    }
}

/// The election keys that the right of a controller to write a key may hang on, without what they all begin with.
fn seats(controller: &str, key: &Key<'_>) -> impl Iterator<Item = String> {
    let object = match key {
        Key::Desired(plural, object)
        | Key::Actual(plural, object)
        | Key::Deletion(plural, object) => Some((*plural, object)),
        _ => None,
    };
    let sharded = object
        .filter(|_| controller == "gc")
        .map(|(plural, object)| {
            let ObjectKey { namespace, name } = object;
            let shard = Shards::DEFAULT.of_key(&format!("{plural}/{namespace}/{name}"));
            seat(controller, Some(&shard.to_string()))
        });
    std::iter::once(controller.to_owned()).chain(sharded)
}

impl Check for FenceCheck {
    fn enter(&mut self, change: &Change<'_>, found: &mut Vec<Finding>) {
        let (entry, key) = (change.entry, &change.key);
        match key {
            Key::Leader(controller, shard) => {
                return self.election(entry, controller, *shard, found);
            }
            Key::NodeAlive(node) => return self.session(entry, node, found),
            // Best effort, by whoever saw something.
            Key::Event { .. } => return,
            // It hangs on a lease.
            Key::NodeFence(_) | Key::Member(..)
                if entry.sent.is_none() && entry.value.is_none() =>
            {
                return;
            }
            _ => {}
        }
        let Some(sent) = entry.sent else {
            found.push((
                "one writer",
                format!("{} ended with a lease, and hangs on none", entry.key),
            ));
            return;
        };
        let mut seats = Vec::new();
        let mut claimed = false;
        let allowed = match Role::of(&sent.process) {
            Role::User => true,
            Role::Controllers => {
                claimed = matches!(key, Key::Actual("leaders", _))
                    && self.elected == Some((Arc::clone(&sent.process), entry.revision));
                seats = self.leads(entry, key);
                // Each takes part for itself.
                let own = matches!(key, Key::Member(_, name) if **name == *sent.process);
                claimed || own || !seats.is_empty()
            }
            Role::Agent(own) => match key {
                Key::NodeStatus(node) | Key::NodeFence(node) | Key::NodePod(node, _) => {
                    *node == own && self.holds(entry, node)
                }
                Key::Desired("nodes", name) => &*name.name == own && entry.value.is_some(),
                _ => false,
            },
        };
        if !seats.is_empty()
            && let Some(wrong) = misnamed(&self.keyspace, entry, sent, &seats)
        {
            found.push(("named fence", wrong));
        }
        // Nothing is decided about a registration: one that comes late says what the next one said, on the same lease, and
        // costs others a claim that they make again. Nor is anything written under a claim that comes late: its process
        // finds the key taken by itself, and takes it again under a new epoch before it leads. A node's fence that comes late
        // can only stand where there is none (what it demands of the key), in the session that asked for it: after the one
        // that was taken meanwhile was given back, as nothing ran under it any more. Nothing runs under this one either; it
        // is taken over when it is needed, or ends with its lease.
        let harmless = claimed || matches!(key, Key::Member(..) | Key::NodeFence(_));
        if let Some(late) = self.late(entry).filter(|_| !harmless) {
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

    fn election(
        &mut self,
        entry: &Entry<'_>,
        controller: &str,
        shard: Option<&str>,
        found: &mut Vec<Finding>,
    ) {
        let fences = Arc::make_mut(&mut self.now);
        let parts = format!("{controller}/");
        let seat = seat(controller, shard);
        match (entry.value, entry.sent) {
            (Some(_), Some(sent)) => {
                let other = match shard {
                    Some(_) => fences.leaders.get_key_value(controller),
                    None => {
                        let mut after = fences.leaders.range(parts.clone().into_boxed_str()..);
                        after.next().filter(|(seat, _)| seat.starts_with(&parts))
                    }
                };
                if let Some((other, (process, _))) = other {
                    let message =
                        format!("{} took {seat} while {process} had {other}", sent.process);
                    found.push(("one mode", message));
                }
                let leader = (Arc::clone(&sent.process), entry.revision);
                fences.leaders.insert(seat.into(), leader);
                self.elected = Some((Arc::clone(&sent.process), entry.revision));
            }
            _ => drop(fences.leaders.remove(&*seat)),
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

/// The elections that a write says it is made under: the seats, and their epochs.
pub(super) fn elections(keyspace: &Keyspace, entry: &Entry<'_>, sent: &Sent) -> Vec<(String, i64)> {
    let guards = sent.named.guards(entry.key).map_or(&[][..], Vec::as_slice);
    let elections = guards
        .iter()
        .filter_map(|(key, at)| match keyspace.split(key) {
            Ok(Key::Leader(controller, shard)) => Some((seat(controller, shard), *at)),
            _ => None,
        });
    elections.collect()
}

/// Whether the garbage collector made a write.
pub(super) fn collected(keyspace: &Keyspace, entry: &Entry<'_>) -> bool {
    entry.sent.is_some_and(|sent| {
        let elections = elections(keyspace, entry, sent);
        let mut seats = elections.iter().map(|(seat, _)| seat.split('/').next());
        seats.any(|controller| controller == Some("gc"))
    })
}

/// What is wrong with the guards on elections of a write that one of these seats allows: each write names the epoch of
/// one of them, and of nothing else.
fn misnamed(
    keyspace: &Keyspace,
    entry: &Entry<'_>,
    sent: &Sent,
    seats: &[(String, i64)],
) -> Option<String> {
    let named = elections(keyspace, entry, sent);
    let right = match &named[..] {
        [one] => seats.contains(one),
        _ => false,
    };
    (!right).then(|| {
        format!(
            "{} wrote {} under {named:?}, and may do so under {seats:?}",
            sent.process, entry.key
        )
    })
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
                // One that may delete it may not always put it; here they are one.
                let owners = owners(key, false).iter().chain(owners(key, true));
                let seats: BTreeSet<String> = owners.flat_map(|c| seats(c, key)).collect();
                let leaders = seats.iter().map(|seat| match self.leaders.get(&**seat) {
                    Some((process, epoch)) => format!("{seat} led by {process} since r{epoch}"),
                    None => format!("{seat} led by nobody"),
                });
                leaders.collect::<Vec<_>>().join(", ")
            }
        }
    }
}
