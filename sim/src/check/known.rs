//! What is known of pods, for the checks of those who make and delete them.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::batch::labels;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{Binding, PodActual, PodStage};
use setpoint_apis::{Key, ObjectKey, Timestamp};

use super::Change;

/// For so long, in milliseconds, a controller may take for available what is so no more: its view lags behind, and what
/// it decides is carried out in two steps by two controllers.
pub(super) const STALE: u64 = 30_000;

/// For so long, in milliseconds, a controller may not know that a pod has become available: what it decided before may
/// still be carried out. It is as long as a leader can stand still and stay one.
pub(super) const NEWS: u64 = 3_000;

/// What was so, and until when: the last one is so now.
#[derive(Debug)]
pub(super) struct Held<T>(Vec<(u64, T)>);

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Held<T> {
    /// It is so from now on.
    pub(super) fn set(&mut self, now: u64, value: T) {
        if let Some((until, _)) = self.0.last_mut() {
            *until = now;
        }
        self.0.retain(|(until, _)| now < until + STALE);
        self.0.push((u64::MAX, value));
    }

    /// What is so.
    pub(super) fn last(&self) -> Option<&T> {
        self.0.last().map(|(_, value)| value)
    }

    /// All that somebody may go by.
    pub(super) fn at(&self, now: u64) -> impl Iterator<Item = &T> {
        let held = move |until: u64| until == u64::MAX || now < until + STALE;
        let all = self.0.iter().filter(move |(until, _)| held(*until));
        all.map(|(_, value)| value)
    }
}

impl<T> Held<Option<T>> {
    /// Of something that there has not been until now.
    pub(super) fn nothing() -> Self {
        Self(vec![(u64::MAX, None)])
    }
}

/// All pods that there are.
#[derive(Debug, Default)]
pub(super) struct Known {
    pods: BTreeMap<ObjectKey, KnownPod>,
    /// By the uid of who manages them.
    of: BTreeMap<String, BTreeSet<ObjectKey>>,
    bindings: BTreeMap<ObjectKey, Binding>,
    records: BTreeMap<ObjectKey, BTreeMap<Box<str>, PodActual>>,
    /// Pods that users deleted while they were available: who managed them, and when it was.
    taken: Vec<(String, u64)>,
}

/// A pod.
#[derive(Debug)]
pub(super) struct KnownPod {
    /// Its uid.
    pub(super) uid: String,
    /// The uid of who manages it.
    pub(super) owner: Option<String>,
    /// Its number among those of its Job.
    pub(super) number: Option<i32>,
    /// Its index in its Job.
    pub(super) index: Option<i32>,
    /// The node that it is for.
    pub(super) pin: Option<String>,
    /// It is ready where it is.
    pub(super) available: bool,
    /// Since when it is, or is not.
    pub(super) since: u64,
    /// Since when it is ready, as its node has it.
    ready_since: Option<Timestamp>,
    /// When it was last available and then no more.
    pub(super) lost_at: Option<u64>,
    /// How it has ended where it is now.
    pub(super) outcome: Option<Outcome>,
    /// Whether it ever had ended.
    pub(super) ever: Ever,
}

/// How a pod has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Succeeded,
    Failed,
}

/// How a pod has ended at any time: it may run again when its node, with the record, is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ever {
    pub(super) succeeded: bool,
    pub(super) failed: bool,
}

impl Ever {
    pub(super) fn ended(self) -> bool {
        self.succeeded || self.failed
    }
}

/// The number of a pod among those of its Job, and its index there.
pub(super) fn numbers(pod: &Pod) -> (Option<i32>, Option<i32>) {
    let number = |annotation: &str| {
        let text = pod.metadata.annotations.get(annotation)?;
        text.parse().ok()
    };
    (
        number(labels::JOB_POD_NUMBER),
        number(labels::COMPLETION_INDEX),
    )
}

impl KnownPod {
    fn new(pod: &Pod, uid: String) -> Self {
        let (number, index) = numbers(pod);
        Self {
            uid,
            owner: pod.metadata.controller().map(|o| o.uid.clone()),
            number,
            index,
            pin: pinned(pod),
            available: false,
            since: 0,
            ready_since: None,
            lost_at: None,
            outcome: None,
            ever: Ever::default(),
        }
    }

    /// Whether every controller takes it for available.
    pub(super) fn is_known_available(&self, now: u64) -> bool {
        self.is_known_ready(now, 0)
    }

    /// The same, when that takes so many milliseconds from when it is ready.
    pub(super) fn is_known_ready(&self, now: u64, least: u64) -> bool {
        self.available && self.since + least + NEWS <= now
    }

    /// Whether a controller may take it for available.
    pub(super) fn counts(&self, now: u64) -> bool {
        self.available || self.lost_at.is_some_and(|at| now < at + STALE)
    }
}

fn has_ended(record: &PodActual) -> bool {
    [PodStage::Succeeded, PodStage::Failed].contains(&record.stage)
}

/// The only node that a pod's affinity admits by name.
pub(crate) fn pinned(pod: &Pod) -> Option<String> {
    let nodes = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = nodes
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    match &required.node_selector_terms[..] {
        [term] => term.match_fields.first()?.values.first().cloned(),
        _ => None,
    }
}

impl Known {
    pub(super) fn pod(&self, key: &ObjectKey) -> Option<&KnownPod> {
        self.pods.get(key)
    }

    /// The node that a pod is bound to.
    pub(super) fn node(&self, pod: &ObjectKey) -> Option<&str> {
        self.bindings.get(pod).map(|b| b.node.as_str())
    }

    /// Whether a pod has ended where it is now, and takes no room any more: also one whose document is gone already.
    pub(super) fn over(&self, key: &ObjectKey) -> bool {
        let record = self.record(key, self.pods.get(key).map(|p| p.uid.as_str()));
        record.is_some_and(has_ended)
    }

    /// Whether nothing of a bound pod runs any more, and nothing will under this binding: it has ended, or was taken back
    /// and has left no record. One that is wanted and was stopped to be moved starts elsewhere.
    pub(super) fn is_done(&self, key: &ObjectKey) -> bool {
        let Some(binding) = self.bindings.get(key) else {
            return true;
        };
        let recorded = self.records.get(key);
        let recorded = recorded.is_some_and(|r| r.contains_key(binding.node.as_str()));
        let withdrawn = binding.withdrawn.is_some();
        let starts = withdrawn && binding.moving.is_some() && self.pods.contains_key(key);
        !starts && (self.over(key) || (withdrawn && !recorded))
    }

    /// What the node that a pod is bound to says of it: of that placement, and of the pod of this uid.
    fn record(&self, key: &ObjectKey, uid: Option<&str>) -> Option<&PodActual> {
        let binding = self.bindings.get(key)?;
        let record = self.records.get(key)?.get(binding.node.as_str())?;
        let same = uid.is_none_or(|uid| record.uid.is_empty() || record.uid == uid);
        (record.placement == binding.placement && same).then_some(record)
    }

    /// The pods that an object manages.
    pub(super) fn of(&self, owner: &str) -> impl Iterator<Item = (&ObjectKey, &KnownPod)> {
        let keys = self.of.get(owner).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.pods.get(key)?)))
    }

    /// How many pods of an object, which users have deleted, controllers may still take for available.
    pub(super) fn taken(&self, owner: &str, now: u64) -> usize {
        let taken = self.taken.iter();
        taken
            .filter(|(of, at)| of == owner && now < at + STALE)
            .count()
    }

    /// Takes note of a change.
    pub(super) fn enter(&mut self, change: &Change<'_>) {
        let now = change.entry.millis;
        match (&change.key, change.entry.value) {
            (Key::Desired("pods", key), Some(_)) => self.document(change, key),
            (Key::Desired("pods", key), None) => {
                let Some(gone) = self.pods.remove(key) else {
                    return;
                };
                if let Some(owner) = gone.owner {
                    if let Some(all) = self.of.get_mut(&owner) {
                        all.remove(key);
                    }
                    self.taken.retain(|(_, at)| now < at + STALE);
                    if gone.available && !change.by_controllers() {
                        self.taken.push((owner, now));
                    }
                }
            }
            (Key::Binding(key), Some(_)) => {
                if let Some(binding) = &change.binding {
                    self.bindings.insert(key.clone(), binding.clone());
                    self.look(key, now);
                }
            }
            (Key::Binding(key), None) => {
                self.bindings.remove(key);
                self.look(key, now);
            }
            (Key::NodePod(node, key), Some(_)) => {
                let records = self.records.entry(key.clone()).or_default();
                match &change.record {
                    Some(record) => drop(records.insert((*node).into(), record.clone())),
                    // What has ended does not run again because its record cannot be read any more.
                    None if records.get(*node).is_some_and(has_ended) => {}
                    None => drop(records.remove(*node)),
                }
                self.look(key, now);
            }
            (Key::NodePod(node, key), None) => {
                if let Some(records) = self.records.get_mut(key) {
                    records.remove(*node);
                    if records.is_empty() {
                        self.records.remove(key);
                    }
                }
                self.look(key, now);
            }
            _ => {}
        }
    }

    fn document(&mut self, change: &Change<'_>, key: &ObjectKey) {
        // One that does not parse is taken for what it was.
        let Some(pod) = &change.pod else {
            return;
        };
        let uid = pod
            .metadata
            .uid_since(change.entry.create_revision, "pods", key);
        let mut now = KnownPod::new(pod, uid);
        if let Some(before) = self.pods.remove(key) {
            if let Some(owner) = &before.owner
                && let Some(all) = self.of.get_mut(owner)
            {
                all.remove(key);
            }
            if before.uid == now.uid {
                now = KnownPod {
                    owner: now.owner,
                    ..before
                };
            }
        }
        if let Some(owner) = &now.owner {
            let all = self.of.entry(owner.clone()).or_default();
            all.insert(key.clone());
        }
        self.pods.insert(key.clone(), now);
        self.look(key, change.entry.millis);
    }

    /// What its binding and the record of its node say of a pod now.
    fn look(&mut self, key: &ObjectKey, now: u64) {
        let uid = self.pods.get(key).map(|p| p.uid.as_str());
        let record = self.record(key, uid);
        let available = record.is_some_and(PodActual::is_ready);
        let ready = record.and_then(|r| r.conditions.iter().find(|c| c.type_ == "Ready"));
        let ready_since = ready.and_then(|c| c.last_transition_time);
        let stage = record.map(|r| r.stage);
        let binding = self.bindings.get(key);
        let taken_back = binding.is_some_and(|b| b.withdrawn.is_some());
        let Some(pod) = self.pods.get_mut(key) else {
            return;
        };
        if pod.available && !available {
            pod.lost_at = Some(now);
        }
        // Its node may have lost power and started it anew before anybody heard that it was not ready.
        if pod.available != available || pod.ready_since != ready_since {
            (pod.available, pod.since) = (available, now);
            pod.ready_since = ready_since;
        }
        pod.outcome = match stage {
            Some(PodStage::Succeeded) => Some(Outcome::Succeeded),
            Some(PodStage::Failed) if !taken_back => Some(Outcome::Failed),
            _ => None,
        };
        pod.ever.succeeded |= pod.outcome == Some(Outcome::Succeeded);
        pod.ever.failed |= pod.outcome == Some(Outcome::Failed);
    }
}
