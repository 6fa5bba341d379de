//! Rollouts stay within their bounds at every write, whatever becomes of controllers: no more pods are asked for than
//! `maxSurge` allows, and no pod is deleted that is available when that leaves fewer than `maxUnavailable` allows.
//!
//! What makes a pod unavailable otherwise (a node that is lost, a user who deletes it) is not a controller's doing, and it
//! learns of it late: such a pod counts as available for [`STALE`] more. So do bounds that a user has changed. Of a pod
//! that has just become available it learns late as well ([`NEWS`](super::known::NEWS)), and may have decided before that it goes.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::apps::{
    DaemonSet, Deployment, DeploymentStrategyType, ReplicaSet, StatefulSet,
    StatefulSetUpdateStrategyType,
};
use setpoint_apis::{IntOrString, Key, Kind, ObjectKey, document};

use super::known::{Held, Known, KnownPod, STALE, pinned};
use super::{Change, Finding};

#[derive(Debug, Default)]
pub(super) struct RolloutCheck {
    /// Deployments, StatefulSets and DaemonSets, by uid.
    workloads: BTreeMap<String, Workload>,
    uids: BTreeMap<(&'static str, ObjectKey), String>,
    sets: BTreeMap<ObjectKey, Set>,
    /// Since when nodes are there and alive.
    nodes: BTreeMap<String, Node>,
    /// What is being deleted with its dependents.
    going: BTreeSet<(String, ObjectKey)>,
}

#[derive(Debug)]
struct Workload {
    key: ObjectKey,
    plural: &'static str,
    bounds: Held<Bounds>,
}

/// How many pods there may be, and how many have to be available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    /// At most so many are asked for.
    most: i32,
    /// At least so many are to be available; of a DaemonSet, so many nodes may be without.
    least: i32,
    /// The number that is asked for.
    replicas: i32,
    /// For so long, in milliseconds, a pod is ready at the most before every controller has it as available.
    ready: u64,
}

/// By so much, in milliseconds, the clocks of an agent and of a controller differ at the most, with times in whole seconds.
const CLOCKS: u64 = 5_000;

/// From `minReadySeconds` to [`Bounds::ready`].
fn ready(seconds: Option<i32>) -> u64 {
    match u64::try_from(seconds.unwrap_or(0)) {
        Ok(0) | Err(_) => 0,
        Ok(seconds) => seconds * 1_000 + CLOCKS,
    }
}

/// A ReplicaSet.
#[derive(Debug)]
struct Set {
    uid: String,
    replicas: i32,
    /// The uid of its Deployment.
    owner: Option<String>,
}

#[derive(Debug, Default)]
struct Node {
    /// There is a document.
    known: Option<u64>,
    alive: Option<u64>,
}

impl Node {
    /// Whether every controller knows that it is there.
    fn counts(&self, now: u64) -> bool {
        let since = |at: Option<u64>| at.is_some_and(|at| at + STALE <= now);
        since(self.known) && since(self.alive)
    }
}

fn scaled(value: Option<&IntOrString>, default: impl Into<IntOrString>, of: i32, up: bool) -> i32 {
    let default = default.into();
    let value = value.unwrap_or(&default);
    value.scaled(of, up).unwrap_or(0).max(0)
}

fn of_deployment(d: &Deployment) -> Bounds {
    let replicas = d.spec.replicas();
    let strategy = d.spec.strategy.as_ref();
    if strategy.and_then(|s| s.type_) == Some(DeploymentStrategyType::Recreate) {
        return Bounds {
            most: replicas,
            least: 0,
            replicas,
            ready: ready(d.spec.min_ready_seconds),
        };
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = rolling.and_then(|r| r.max_surge.as_ref());
    let missing = rolling.and_then(|r| r.max_unavailable.as_ref());
    let surge = scaled(surge, "25%", replicas, true);
    let missing = match scaled(missing, "25%", replicas, false) {
        0 if surge == 0 => 1,
        missing => missing,
    };
    Bounds {
        most: replicas.saturating_add(surge),
        least: replicas.saturating_sub(missing),
        replicas,
        ready: ready(d.spec.min_ready_seconds),
    }
}

fn of_stateful_set(s: &StatefulSet) -> Bounds {
    let replicas = s.spec.replicas();
    let strategy = s.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let missing = rolling.and_then(|r| r.max_unavailable.as_ref());
    // With OnDelete only users delete pods.
    let missing = match strategy.and_then(|s| s.type_) {
        Some(StatefulSetUpdateStrategyType::OnDelete) => 0,
        _ => scaled(missing, 1, replicas, false).max(1),
    };
    Bounds {
        most: replicas,
        least: replicas.saturating_sub(missing),
        replicas,
        ready: ready(s.spec.min_ready_seconds),
    }
}

/// Here `most` is how many pods of it a node may have, and `least` how many nodes may be without one.
fn of_daemon_set(d: &DaemonSet, nodes: i32) -> Bounds {
    let strategy = d.spec.update_strategy.as_ref();
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = rolling.and_then(|r| r.max_surge.as_ref());
    let missing = rolling.and_then(|r| r.max_unavailable.as_ref());
    let surge = scaled(surge, 0, nodes, true);
    Bounds {
        most: 1 + i32::from(surge > 0),
        least: scaled(missing, 1, nodes, true),
        replicas: nodes,
        ready: ready(d.spec.min_ready_seconds),
    }
}

impl RolloutCheck {
    /// Takes note of a change, before [`Known`] does.
    pub(super) fn enter(&mut self, change: &Change<'_>, known: &Known, found: &mut Vec<Finding>) {
        let (entry, now) = (change.entry, change.entry.millis);
        match (&change.key, entry.value) {
            (Key::Desired("deployments", key), Some(value)) => {
                self.workload::<Deployment>(change, key, value, of_deployment);
            }
            (Key::Desired("statefulsets", key), Some(value)) => {
                self.workload::<StatefulSet>(change, key, value, of_stateful_set);
            }
            (Key::Desired("daemonsets", key), Some(value)) => {
                let nodes = i32::try_from(self.nodes.len()).unwrap_or(i32::MAX);
                self.workload::<DaemonSet>(change, key, value, |d| of_daemon_set(d, nodes));
            }
            (Key::Desired(plural @ ("deployments" | "statefulsets" | "daemonsets"), key), None) => {
                let uid = self
                    .uids
                    .iter()
                    .find(|((of, name), _)| of == plural && name == key);
                let uid = uid.map(|(_, uid)| uid.clone());
                uid.map(|uid| self.workloads.remove(&uid));
            }
            (Key::Desired("replicasets", key), Some(value)) => {
                self.replica_set(change, key, value, found);
            }
            (Key::Desired("replicasets", key), None) => drop(self.sets.remove(key)),
            (Key::Deletion(plural, key), value) => {
                let id = ((*plural).to_owned(), key.clone());
                match value {
                    Some(_) => self.going.insert(id),
                    None => self.going.remove(&id),
                };
            }
            (Key::Desired("nodes", key), value) => {
                let node = self.nodes.entry(key.name.to_string()).or_default();
                node.known = value.map(|_| node.known.unwrap_or(now));
            }
            (Key::NodeAlive(name), value) => {
                let node = self.nodes.entry((*name).to_owned()).or_default();
                node.alive = value.map(|_| node.alive.unwrap_or(now));
            }
            (Key::Desired("pods", key), Some(_))
                if change.by_controllers() && known.pod(key).is_none() =>
            {
                self.created(change, key, known, found);
            }
            (Key::Desired("pods", key), None) if change.by_controllers() => {
                self.deleted(change, key, known, found);
            }
            _ => {}
        }
    }

    fn workload<K: Kind>(
        &mut self,
        change: &Change<'_>,
        key: &ObjectKey,
        value: &[u8],
        bounds: impl FnOnce(&K) -> Bounds,
    ) {
        // One that does not parse is frozen.
        let Ok(object) = document::decode_keyed::<K>(key, value) else {
            return;
        };
        let now = change.entry.millis;
        let uid = object
            .metadata()
            .uid_since(change.entry.create_revision, K::PLURAL, key);
        self.uids.insert((K::PLURAL, key.clone()), uid.clone());
        let workload = self.workloads.entry(uid).or_insert_with(|| Workload {
            key: key.clone(),
            plural: K::PLURAL,
            bounds: Held::default(),
        });
        workload.bounds.set(now, bounds(&object));
    }

    /// The most and the least that a controller may go by.
    fn bounds(&self, uid: &str, now: u64) -> Option<(&Workload, Bounds)> {
        let workload = self.workloads.get(uid)?;
        let all = workload.bounds.at(now).copied();
        let bounds = all.reduce(|a, b| Bounds {
            most: a.most.max(b.most),
            least: match workload.plural {
                "daemonsets" => a.least.max(b.least),
                _ => a.least.min(b.least),
            },
            replicas: a.replicas.min(b.replicas),
            ready: a.ready.max(b.ready),
        })?;
        Some((workload, bounds))
    }

    fn replica_set(
        &mut self,
        change: &Change<'_>,
        key: &ObjectKey,
        value: &[u8],
        found: &mut Vec<Finding>,
    ) {
        let Ok(set) = document::decode_keyed::<ReplicaSet>(key, value) else {
            return;
        };
        let since = change.entry.create_revision;
        let set = Set {
            uid: set.metadata.uid_since(since, "replicasets", key),
            replicas: set.spec.replicas(),
            owner: set.metadata.controller().map(|o| o.uid.clone()),
        };
        let owner = set.owner.clone();
        let asked = |all: &BTreeMap<ObjectKey, Set>| -> i32 {
            let of = all.values().filter(|s| owner.is_some() && s.owner == owner);
            of.map(|s| s.replicas).sum()
        };
        let before = asked(&self.sets);
        self.sets.insert(key.clone(), set);
        let after = asked(&self.sets);
        let bounds = owner
            .as_ref()
            .and_then(|uid| self.bounds(uid, change.entry.millis));
        if let Some((workload, bounds)) = bounds
            && change.by_controllers()
            && after > before.max(bounds.most)
        {
            let (of, most) = (&workload.key, bounds.most);
            let message = format!("deployment {of} asks for {after} pods, {most} at most");
            found.push(("surge", message));
        }
    }

    fn created(
        &self,
        change: &Change<'_>,
        key: &ObjectKey,
        known: &Known,
        found: &mut Vec<Finding>,
    ) {
        let Some(pod) = &change.pod else {
            return;
        };
        let Some(owner) = pod.metadata.controller().map(|o| o.uid.as_str()) else {
            return;
        };
        let live = known.of(owner).filter(|(_, p)| !p.ever.ended());
        if let Some((of, set)) = self.sets.iter().find(|(_, set)| set.uid == owner) {
            let (live, most) = (live.count() + 1, set.replicas);
            if i32::try_from(live).unwrap_or(i32::MAX) > most {
                let message = format!("{key} is the {live}th pod of replicaset {of}, of {most}");
                found.push(("surge", message));
            }
        } else if let Some((set, bounds)) = self.bounds(owner, change.entry.millis)
            && set.plural == "daemonsets"
        {
            let pin = pinned(pod);
            let here = live.filter(|(_, p)| p.pin == pin).count() + 1;
            if i32::try_from(here).unwrap_or(i32::MAX) > bounds.most {
                let (of, most) = (&set.key, bounds.most);
                let message =
                    format!("{key} is the {here}th pod of daemonset {of} on {pin:?}, of {most}");
                found.push(("surge", message));
            }
        }
    }

    fn deleted(
        &self,
        change: &Change<'_>,
        key: &ObjectKey,
        known: &Known,
        found: &mut Vec<Finding>,
    ) {
        let now = change.entry.millis;
        let Some(pod) = known.pod(key).filter(|p| p.is_known_available(now)) else {
            return;
        };
        let Some(owner) = pod.owner.as_deref() else {
            return;
        };
        let set = self.sets.values().find(|set| set.uid == owner);
        let owner = set.map_or(Some(owner), |set| set.owner.as_deref());
        let Some((workload, bounds)) = owner.and_then(|uid| self.bounds(uid, now)) else {
            return;
        };
        if !pod.is_known_ready(now, bounds.ready) {
            return;
        }
        // A Deployment says how many pods of a ReplicaSet go, and not which: one that it took for unavailable then may be
        // available by now, and this one go in its place.
        let meant = |(other, p): (&ObjectKey, &KnownPod)| {
            other != key && p.available && !p.is_known_ready(now, bounds.ready)
        };
        if set.is_some_and(|set| known.of(&set.uid).any(meant)) {
            return;
        }
        let (uid, of) = (owner.unwrap_or_default(), &workload.key);
        if self
            .going
            .contains(&(workload.plural.to_owned(), of.clone()))
        {
            return;
        }
        let others = |uid: &str| -> usize {
            let available = known.of(uid).filter(|(k, p)| *k != key && p.counts(now));
            available.count() + known.taken(uid, now)
        };
        let (left, least) = match workload.plural {
            "deployments" => {
                let sets = self
                    .sets
                    .values()
                    .filter(|s| s.owner.as_deref() == Some(uid));
                (sets.map(|s| others(&s.uid)).sum(), bounds.least)
            }
            "statefulsets" => {
                let ordinal = key
                    .name
                    .rsplit_once('-')
                    .and_then(|(_, n)| n.parse::<i32>().ok());
                if ordinal.is_none_or(|n| n >= bounds.replicas) {
                    return;
                }
                (others(uid), bounds.least)
            }
            _ => {
                let Some(node) = known.node(key) else {
                    return;
                };
                let is_there = |n: &Node| n.known.is_some() && n.alive.is_some();
                if !self.nodes.get(node).is_some_and(is_there) {
                    return;
                }
                let with: BTreeSet<&str> = known
                    .of(uid)
                    .filter(|(k, p)| *k != key && p.counts(now))
                    .filter_map(|(k, _)| known.node(k))
                    .collect();
                // Another one runs there: however many nodes are without, it is not for this.
                if with.contains(node) {
                    return;
                }
                let without = self
                    .nodes
                    .iter()
                    .filter(|(name, node)| node.counts(now) && !with.contains(name.as_str()));
                let without = without.count().saturating_sub(known.taken(uid, now));
                let most = usize::try_from(bounds.least).unwrap_or(0);
                if without > most {
                    found.push((
                        "availability",
                        format!("{key} was deleted, so that {without} nodes are without a pod of daemonset {of}, {most} at most"),
                    ));
                }
                return;
            }
        };
        if i32::try_from(left).unwrap_or(i32::MAX) < least {
            found.push((
                "availability",
                format!(
                    "{key} was deleted, which leaves {left} available pods of {} {of}, {least} at least",
                    workload.plural
                ),
            ));
        }
    }
}
