//! `fencing`: every write that took effect was made by the process that held the fence it needed, and carried the epoch
//! that held; epochs do not go back.
//!
//! Who wrote is told from the wire, not from the guards; that the guard was there is a second question. Where a controller
//! is led in shards, the fence of a write is that of the shard that its key is in; led as a whole and in shards at once it
//! never is.

use std::collections::BTreeMap;

use setpoint_apis::{Key, KeyRange, Keyspace};
use setpoint_runtime::Shards;

use super::Finding;
use crate::faults::history::{Change, History, Writer};
use crate::faults::tap::{Guard, Sender};
use crate::faults::{Role, role};

/// Who holds what.
#[derive(Clone, Debug, Default)]
struct Fences {
    /// By election key, session key or key of a member.
    held: BTreeMap<String, Held>,
    /// The newest epoch that a write was made under, by the same keys.
    used: BTreeMap<String, i64>,
}

#[derive(Clone, Debug)]
struct Held {
    by: Sender,
    epoch: i64,
}

pub(super) fn check(history: &History, keyspace: &Keyspace) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut fences = Fences::default();
    let writers = history.writers();
    for revision in history.revisions() {
        let candidates = writers.of(revision);
        // Where the answer was lost and more than one process may have sent it, one that may do so is enough.
        let judged = candidates
            .iter()
            .map(|w| (w, fences.judge(revision, w, keyspace)));
        let best = judged.min_by_key(|(_, wrong)| wrong.len());
        let (writer, wrong) = match best {
            Some((writer, wrong)) => (Some(writer), wrong),
            None => {
                let keys: Vec<&str> = revision.iter().map(|c| c.key.as_str()).collect();
                let message = format!("nobody is known to have written {}", keys.join(", "));
                (None, vec![message])
            }
        };
        found.extend(wrong.into_iter().map(|message| Finding {
            check: "fencing",
            revision: revision[0].revision,
            message,
        }));
        if let Some(writer) = writer {
            fences.apply(revision, writer, keyspace);
        }
    }
    found
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

/// The kinds that the workload controllers make, copies of what revisions read among them.
const MADE_BY_WORKLOADS: [&str; 7] = [
    "pods",
    "replicasets",
    "jobs",
    "controllerrevisions",
    "persistentvolumeclaims",
    "configmaps",
    "secrets",
];

/// The controllers that may write a key; an empty list: none.
fn owners(key: &Key<'_>, deletes: bool) -> &'static [&'static str] {
    match key {
        Key::Binding(_)
        | Key::WorkPod(..)
        | Key::WorkStop(..)
        | Key::WorkContent(..)
        | Key::Actual("pods", _) => &["scheduler"],
        Key::Health(_) | Key::Meta("clock") => &["node-lifecycle"],
        Key::Actual("persistentvolumeclaims", _) | Key::WorkTombstone(..) => &["scheduler"],
        Key::Actual(kind, _) if WORKLOADS.contains(kind) && deletes => &["workloads", "gc"],
        Key::Actual(kind, _) if WORKLOADS.contains(kind) => &["workloads"],
        Key::NodePod(..) if deletes => &["scheduler", "node-lifecycle"],
        Key::NodeStatus(_) if deletes => &["node-lifecycle"],
        Key::Intent { .. } => &["failover", "scheduler"],
        Key::Desired(kind, _) if MADE_BY_WORKLOADS.contains(kind) => &["workloads", "gc"],
        Key::Desired("nodes", _) if !deletes => &["node-lifecycle"],
        Key::Desired(..) if deletes => &["gc"],
        Key::Deletion(..) => &["gc"],
        _ => &[],
    }
}

/// The shard of gc that an object's keys are in.
fn shard_of(key: &Key<'_>) -> Option<String> {
    let (Key::Desired(plural, object)
    | Key::Actual(plural, object)
    | Key::Deletion(plural, object)) = key
    else {
        return None;
    };
    let (namespace, name) = (&object.namespace, &object.name);
    let shard = Shards::DEFAULT.of_key(&format!("{plural}/{namespace}/{name}"));
    Some(shard.to_string())
}

impl Fences {
    /// What is wrong with this writer having made these changes.
    fn judge(&self, changes: &[Change], writer: &Writer<'_>, keyspace: &Keyspace) -> Vec<String> {
        let Writer::Sent(transaction) = writer else {
            return Vec::new();
        };
        let sender = &transaction.sender;
        let wrong = changes.iter().filter_map(|change| {
            let key = keyspace.split(&change.key).ok()?;
            let allowed = match role(sender) {
                Role::User => Ok(()),
                Role::Controllers => self.controller(sender, change, &key, writer, keyspace),
                Role::Agent => self.agent(sender, change, &key, writer, keyspace),
                Role::Probe => Err("only reads".to_owned()),
            };
            let verb = change.value.as_ref().map_or("deleted", |_| "put");
            let error = allowed.err()?;
            Some(format!("{sender} {verb} {}: {error}", change.key))
        });
        wrong.collect()
    }

    fn controller(
        &self,
        sender: &Sender,
        change: &Change,
        key: &Key<'_>,
        writer: &Writer<'_>,
        keyspace: &Keyspace,
    ) -> Result<(), String> {
        match key {
            // Best effort, by whoever saw something.
            Key::Event { .. } => return Ok(()),
            Key::Leader(controller, shard) => {
                return match self.held.get(&change.key) {
                    Some(held) if held.by != *sender => {
                        Err(format!("{} holds it since r{}", held.by, held.epoch))
                    }
                    _ if change.value.is_some() => {
                        let whole = keyspace.build(&Key::Leader(controller, None));
                        self.one_mode(&whole, shard.is_some())
                    }
                    _ => Ok(()),
                };
            }
            // Each takes part for itself.
            Key::Member(..) => {
                return match self.held.get(&change.key) {
                    Some(held) if held.by != *sender => Err(format!("it is {}'s", held.by)),
                    _ => Ok(()),
                };
            }
            // Part of a claim: the election key is put by the same transaction.
            Key::Actual("leaders", object) => {
                let election = match &*object.namespace {
                    "" => keyspace.build(&Key::Leader(&object.name, None)),
                    controller => keyspace.build(&Key::Leader(controller, Some(&object.name))),
                };
                let claims = writer.item(change).is_some_and(|i| {
                    i.effects
                        .iter()
                        .any(|e| e.key == election && e.value.is_some())
                });
                return claims
                    .then_some(())
                    .ok_or_else(|| "without the election key".to_owned());
            }
            _ => {}
        }
        let owners = owners(key, change.value.is_none());
        let guards = writer.item(change).into_iter().flat_map(|i| &i.guards);
        let fences: Vec<&Guard> = guards
            .filter(|guard| matches!(keyspace.split(&guard.key), Ok(Key::Leader(..))))
            .collect();
        let [fence] = fences[..] else {
            return Err(format!(
                "{} guards on epochs, and not one of {owners:?}",
                fences.len()
            ));
        };
        match keyspace.split(&fence.key) {
            Ok(Key::Leader(controller, None)) if owners.contains(&controller) => {}
            Ok(Key::Leader("gc", Some(shard))) if owners.contains(&"gc") => {
                let right = shard_of(key).unwrap_or_default();
                if shard != right {
                    return Err(format!(
                        "under the epoch of shard {shard}, and it is in {right}"
                    ));
                }
            }
            _ => {
                return Err(format!(
                    "under {}, and not an epoch of {owners:?}",
                    fence.key
                ));
            }
        }
        self.under(sender, fence)
    }

    /// Whether an election key may be put: one of the whole only while there is none of a shard, and the reverse.
    fn one_mode(&self, whole: &str, shard: bool) -> Result<(), String> {
        let shards = KeyRange::prefix(format!("{whole}/"));
        let other = match shard {
            true => self.held.get_key_value(whole),
            false => self.held.range(shards.start..shards.end).next(),
        };
        match other {
            Some((key, held)) => Err(format!("{} holds {key} since r{}", held.by, held.epoch)),
            None => Ok(()),
        }
    }

    fn agent(
        &self,
        sender: &Sender,
        change: &Change,
        key: &Key<'_>,
        writer: &Writer<'_>,
        keyspace: &Keyspace,
    ) -> Result<(), String> {
        match key {
            Key::Event {
                node: Some(node), ..
            } if **node == *sender.name => Ok(()),
            Key::NodeAlive(node) | Key::NodeFence(node) if **node == *sender.name => Ok(()),
            Key::NodeStatus(node) | Key::NodePod(node, _) if **node == *sender.name => {
                let alive = keyspace.build(&Key::NodeAlive(node));
                let guards = writer.item(change).into_iter().flat_map(|i| &i.guards);
                let mut fences = guards.filter(|guard| guard.key == alive);
                match fences.next() {
                    Some(guard) => self.under(sender, guard),
                    None => Err("no guard on the session".to_owned()),
                }
            }
            _ => Err("it is not this agent's".to_owned()),
        }
    }

    /// Whether a write under this guard was made by the holder of the fence, and under the epoch that holds.
    fn under(&self, sender: &Sender, guard: &Guard) -> Result<(), String> {
        let fence = &guard.key;
        let held = self.held.get(fence);
        let held = held.ok_or_else(|| format!("nobody holds {fence}"))?;
        if held.by != *sender {
            return Err(format!("{} holds {fence} since r{}", held.by, held.epoch));
        }
        match guard.mod_revision {
            Some(epoch) if epoch != held.epoch => Err(format!(
                "under epoch {epoch} of {fence}, and it is {}",
                held.epoch
            )),
            Some(epoch) if self.used.get(fence).is_some_and(|used| *used > epoch) => {
                Err(format!("epoch {epoch} of {fence} after a newer one"))
            }
            Some(_) => Ok(()),
            None => Err(format!("no guard on the epoch of {fence}")),
        }
    }

    fn apply(&mut self, changes: &[Change], writer: &Writer<'_>, keyspace: &Keyspace) {
        for change in changes {
            let member = matches!(keyspace.split(&change.key), Ok(Key::Member(..)));
            if !member && !is_fence(&change.key, keyspace) {
                let guards = writer.item(change).into_iter().flat_map(|i| &i.guards);
                for (guard, epoch) in guards.filter_map(|g| Some((g, g.mod_revision?))) {
                    let used = self.used.entry(guard.key.clone()).or_default();
                    *used = epoch.max(*used);
                }
                continue;
            }
            match (&change.value, writer) {
                (Some(_), Writer::Sent(t)) => {
                    let held = Held {
                        by: t.sender.clone(),
                        epoch: change.revision,
                    };
                    self.held.insert(change.key.clone(), held);
                }
                _ => drop(self.held.remove(&change.key)),
            }
        }
    }
}

fn is_fence(key: &str, keyspace: &Keyspace) -> bool {
    let key = keyspace.split(key);
    matches!(key, Ok(Key::Leader(..) | Key::NodeAlive(_)))
}

/// A part of a transaction that was refused because its epoch had passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// Who sent it.
    pub sender: Sender,
    /// The election key or the session that it was guarded by.
    pub fence: String,
    /// The epoch it was sent under.
    pub epoch: i64,
    /// The epoch that held when it arrived; 0: nobody held the fence.
    pub held: i64,
    /// The revision at which it arrived.
    pub revision: i64,
    /// The keys it would have written.
    pub keys: Vec<String>,
}

/// Every write that a fence has rejected, of controllers and agents.
pub fn fenced(history: &History) -> Vec<Fenced> {
    let keyspace = Keyspace::default();
    let mut epochs: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    for change in history
        .changes
        .iter()
        .filter(|c| is_fence(&c.key, &keyspace))
    {
        let epoch = change.value.as_ref().map_or(0, |_| change.revision);
        let of = epochs.entry(&change.key).or_default();
        of.push((change.revision, epoch));
    }
    let held_at = |fence: &str, revision: i64| {
        let of = epochs.get(fence).map(Vec::as_slice).unwrap_or_default();
        let before = of.partition_point(|(r, _)| *r <= revision);
        before.checked_sub(1).map_or(0, |i| of[i].1)
    };
    let mut all = Vec::new();
    for transaction in &history.transactions {
        let Some(revision) = transaction.answered else {
            continue;
        };
        for item in &transaction.items {
            if item.done != Some(false) || item.effects.is_empty() {
                continue;
            }
            let passed = item.guards.iter().find_map(|g| {
                let epoch = g
                    .mod_revision
                    .filter(|e| *e > 0 && is_fence(&g.key, &keyspace))?;
                let held = held_at(&g.key, revision);
                (held != epoch).then(|| (g.key.clone(), epoch, held))
            });
            if let Some((fence, epoch, held)) = passed {
                all.push(Fenced {
                    sender: transaction.sender.clone(),
                    fence,
                    epoch,
                    held,
                    revision,
                    keys: item.effects.iter().map(|e| e.key.clone()).collect(),
                });
            }
        }
    }
    all
}
