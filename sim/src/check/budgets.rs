//! No pod is evicted when that leaves fewer healthy ones than a disruption budget demands, however many are asked to go at
//! once and whoever decides.
//!
//! The scheduler alone spends budgets, so what it has taken down counts as down at once, until it is available again
//! somewhere. What becomes of pods otherwise it learns of late: such a pod counts as healthy for [`STALE`] more. So do
//! numbers and budgets that users have changed.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::policy::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use setpoint_apis::records::Intent;
use setpoint_apis::resolve::allowance;
use setpoint_apis::{Key, Kind, ObjectKey, StringMap, document};

use super::known::{Held, Known, NEWS, STALE};
use super::{Change, Finding};

#[derive(Debug, Default)]
pub(super) struct BudgetCheck {
    budgets: BTreeMap<ObjectKey, Held<Option<PodDisruptionBudgetSpec>>>,
    /// What workloads ask for, by uid.
    wanted: BTreeMap<String, Held<Option<i32>>>,
    uids: BTreeMap<(&'static str, ObjectKey), String>,
    /// From the uids of ReplicaSets to those of their Deployments.
    owners: BTreeMap<String, String>,
    labels: BTreeMap<ObjectKey, StringMap>,
    /// Since when nodes are alive.
    alive: BTreeMap<String, u64>,
    /// Whether a request to evict a pod heeds no budgets.
    ignoring: BTreeMap<(ObjectKey, String), bool>,
    /// Whose requests were carried out at a revision, and whether they heeded budgets.
    carried_out: (i64, BTreeMap<ObjectKey, bool>),
    /// Pods that are being taken down.
    withdrawn: BTreeSet<ObjectKey>,
    /// Pods that were taken down, and have not been available since.
    down: BTreeSet<ObjectKey>,
    /// Pods that were deleted while they were available, and when.
    deleted: Vec<(ObjectKey, StringMap, u64)>,
}

impl BudgetCheck {
    /// Takes note of a change, before [`Known`] does.
    pub(super) fn enter(&mut self, change: &Change<'_>, known: &Known, found: &mut Vec<Finding>) {
        let (entry, now) = (change.entry, change.entry.millis);
        match (&change.key, entry.value) {
            (Key::Desired("poddisruptionbudgets", key), value) => {
                let read = value.map(|v| document::decode_keyed::<PodDisruptionBudget>(key, v));
                // One that does not parse is frozen.
                if let Ok(budget) = read.transpose() {
                    let budgets = self
                        .budgets
                        .entry(key.clone())
                        .or_insert_with(Held::nothing);
                    budgets.set(now, budget.map(|b| b.spec));
                }
            }
            (Key::Desired("deployments", key), value) => {
                self.workload::<Deployment>(change, key, value, |d| Some(d.spec.replicas()));
            }
            (Key::Desired("statefulsets", key), value) => {
                self.workload::<StatefulSet>(change, key, value, |s| Some(s.spec.replicas()));
            }
            (Key::Desired("replicasets", key), value) => {
                let of = |set: &ReplicaSet| Some(set.metadata.controller()?.uid.clone());
                let set = value.and_then(|v| document::decode_keyed::<ReplicaSet>(key, v).ok());
                let owner = set.as_ref().and_then(of);
                let number = |set: &ReplicaSet| owner.is_none().then(|| set.spec.replicas());
                let uid = self.workload::<ReplicaSet>(change, key, value, number);
                if let (Some(uid), Some(owner)) = (uid, owner) {
                    self.owners.insert(uid, owner);
                }
            }
            (Key::Desired("pods", key), Some(_)) => {
                if let Some(pod) = &change.pod {
                    self.labels.insert(key.clone(), pod.metadata.labels.clone());
                }
            }
            (Key::Desired("pods", key), None) => {
                let healthy = self.is_healthy(key, known, now);
                self.down.remove(key);
                self.deleted.retain(|(_, _, at)| now < at + STALE);
                if let Some(labels) = self.labels.remove(key).filter(|_| healthy) {
                    self.deleted.push((key.clone(), labels, now));
                }
            }
            (
                Key::Intent {
                    verb: "evict",
                    pod,
                    by,
                },
                Some(value),
            ) => {
                let intent = document::decode_value::<Intent>(value);
                let ignores = intent.is_ok_and(|intent| intent.ignore_budgets);
                let id = (pod.clone(), (*by).to_owned());
                self.ignoring.insert(id, ignores);
            }
            (
                Key::Intent {
                    verb: "evict",
                    pod,
                    by,
                },
                None,
            ) => {
                let ignores = self.ignoring.remove(&(pod.clone(), (*by).to_owned()));
                if self.carried_out.0 != entry.revision {
                    self.carried_out = (entry.revision, BTreeMap::new());
                }
                let any = self.carried_out.1.entry(pod.clone()).or_default();
                *any |= ignores == Some(true);
            }
            (Key::Binding(pod), Some(_)) => {
                let withdrawn = change
                    .binding
                    .as_ref()
                    .is_some_and(|b| b.withdrawn.is_some());
                if !withdrawn {
                    self.withdrawn.remove(pod);
                    return;
                }
                if self.withdrawn.contains(pod) {
                    return;
                }
                let (revision, asked) = &self.carried_out;
                if *revision == entry.revision && asked.get(pod) == Some(&false) {
                    self.evicted(pod, known, now, found);
                }
                self.withdrawn.insert(pod.clone());
                self.down.insert(pod.clone());
            }
            (Key::Binding(pod), None) => drop(self.withdrawn.remove(pod)),
            (Key::NodeAlive(node), Some(_)) => {
                self.alive.entry((*node).to_owned()).or_insert(now);
            }
            (Key::NodeAlive(node), None) => drop(self.alive.remove(*node)),
            _ => {}
        }
    }

    /// Takes note of a change, after [`Known`] has.
    pub(super) fn note(&mut self, change: &Change<'_>, known: &Known) {
        if let Key::NodePod(_, pod) | Key::Binding(pod) = &change.key
            && !self.withdrawn.contains(pod)
            && known.pod(pod).is_some_and(|p| p.available)
        {
            self.down.remove(pod);
        }
    }

    /// Gives back the workload's uid while it is there.
    fn workload<K: Kind>(
        &mut self,
        change: &Change<'_>,
        key: &ObjectKey,
        value: Option<&[u8]>,
        number: impl FnOnce(&K) -> Option<i32>,
    ) -> Option<String> {
        let now = change.entry.millis;
        let Some(value) = value else {
            let uid = self.uids.remove(&(K::PLURAL, key.clone()))?;
            if let Some(wanted) = self.wanted.get_mut(&uid) {
                wanted.set(now, None);
            }
            return None;
        };
        // One that does not parse is frozen.
        let object = document::decode_keyed::<K>(key, value).ok()?;
        let uid = object
            .metadata()
            .uid_since(change.entry.create_revision, K::PLURAL, key);
        self.uids.insert((K::PLURAL, key.clone()), uid.clone());
        if let Some(number) = number(&object) {
            let wanted = self.wanted.entry(uid.clone()).or_insert_with(Held::nothing);
            wanted.set(now, Some(number));
        }
        Some(uid)
    }

    /// Whether the scheduler may take a pod for healthy.
    fn is_healthy(&self, pod: &ObjectKey, known: &Known, now: u64) -> bool {
        let down = self.down.contains(pod);
        let counts = |p: &super::known::KnownPod| match down {
            true => p.available,
            false => p.counts(now),
        };
        !self.withdrawn.contains(pod) && known.pod(pod).is_some_and(counts)
    }

    /// A pod is evicted within budgets.
    fn evicted(&self, pod: &ObjectKey, known: &Known, now: u64, found: &mut Vec<Finding>) {
        // Those that are not healthy have rules of their own, and so have those whose nodes are lost.
        let since = known.node(pod).and_then(|node| self.alive.get(node));
        let lives = since.is_some_and(|since| since + NEWS <= now);
        if !lives || !known.pod(pod).is_some_and(|p| p.is_known_available(now)) {
            return;
        }
        let Some(labels) = self.labels.get(pod) else {
            return;
        };
        let of_namespace = |key: &ObjectKey| key.namespace == pod.namespace;
        for (budget, held) in self.budgets.iter().filter(|(key, _)| of_namespace(key)) {
            let least = held
                .at(now)
                .map(|spec| self.least(spec.as_ref(), pod, labels, known, now));
            let Some(least) = least.min().filter(|least| *least > 0) else {
                continue;
            };
            let selector = held
                .at(now)
                .flatten()
                .find_map(|spec| spec.selector.as_ref());
            let selects = |labels: &StringMap| selector.is_some_and(|s| s.matches(labels));
            let others = self.labels.iter().filter(|(key, labels)| {
                let counts = *key != pod && of_namespace(key) && selects(labels);
                counts && self.is_healthy(key, known, now)
            });
            let gone = self.deleted.iter().filter(|(key, labels, at)| {
                of_namespace(key) && selects(labels) && now < at + STALE
            });
            let left = others.count() + gone.count();
            if i32::try_from(left).unwrap_or(i32::MAX) < least {
                found.push((
                    "disruption budget",
                    format!(
                        "{pod} was evicted, which leaves {left} healthy pods of budget {budget}, {least} at least"
                    ),
                ));
            }
        }
    }

    /// How many pods of a budget that selects this one must be healthy, by what may be known of what workloads ask for.
    fn least(
        &self,
        spec: Option<&PodDisruptionBudgetSpec>,
        pod: &ObjectKey,
        labels: &StringMap,
        known: &Known,
        now: u64,
    ) -> i32 {
        let selects = |labels: &StringMap| {
            let selector = spec.and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|s| s.matches(labels))
        };
        let Some(spec) = spec.filter(|_| selects(labels)) else {
            return 0;
        };
        let mut asking = BTreeSet::new();
        let (mut pods, mut wanted) = (0, 0);
        for (key, labels) in &self.labels {
            if key.namespace != pod.namespace || !selects(labels) {
                continue;
            }
            pods += 1;
            let owner = known.pod(key).and_then(|p| p.owner.as_ref());
            let root = owner.map(|uid| self.owners.get(uid).unwrap_or(uid));
            match root.and_then(|uid| self.wanted.get_key_value(uid)) {
                Some((uid, held)) => {
                    if asking.insert(uid) {
                        let numbers = held.at(now).map(|n| n.unwrap_or(0));
                        wanted += numbers.min().unwrap_or(0);
                    }
                }
                None => wanted += 1,
            }
        }
        allowance(spec, pods, wanted, 0).desired_healthy
    }
}
