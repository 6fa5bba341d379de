//! How many pods an autoscaler wants.
//!
//! An autoscaler records its decision in the status of its HorizontalPodAutoscaler, and the workload's controller uses
//! that instead of `spec.replicas`. So nobody but its user writes a workload's document, and applying a manifest again
//! changes no size.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::resolve::{Decider, Recorded};
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::{Cache, StateKey, Subscription, View};

use crate::touched::Touched;

/// A workload: kind and name.
type Target = (String, ObjectKey);

/// Which autoscalers name which workloads.
pub struct Autoscalers {
    subscription: Subscription,
    targets: FxHashMap<ObjectKey, Target>,
    /// Those of which nobody knows what they name.
    unreadable: BTreeSet<ObjectKey>,
    by_target: FxHashMap<Target, BTreeSet<ObjectKey>>,
    touched: Touched,
}

impl Autoscalers {
    /// An empty index of what `cache` holds.
    pub fn new(cache: &Cache) -> Self {
        Self {
            subscription: cache.subscribe(Self::concerns),
            targets: FxHashMap::default(),
            unreadable: BTreeSet::new(),
            by_target: FxHashMap::default(),
            touched: Touched::new(&[Deployment::KIND, ReplicaSet::KIND, StatefulSet::KIND]),
        }
    }

    /// What the index is made of, and what it says depends on.
    pub fn concerns(key: &StateKey) -> bool {
        match key {
            StateKey::Desired(plural, _) => *plural == HorizontalPodAutoscaler::PLURAL,
            StateKey::Actual(plural, _) => *plural == HorizontalPodAutoscaler::PLURAL,
            _ => false,
        }
    }

    /// Brings the index level with `view`.
    pub fn catch_up(&mut self, view: &View<'_>) {
        let Some(changes) = self.subscription.try_next() else {
            return;
        };
        if changes.resync {
            for (key, _) in view.desired::<HorizontalPodAutoscaler>().entries() {
                self.refresh(view, key);
            }
        }
        for key in &changes.keys {
            match key {
                StateKey::Desired(_, key) => self.refresh(view, key),
                StateKey::Actual(_, key) => {
                    if let Some((kind, target)) = self.targets.get(key) {
                        self.touched.insert(kind, target.clone());
                    }
                }
                _ => {}
            }
        }
    }

    /// The objects of kind `K` that changes since the last call concern.
    pub fn take_touched<K: Kind>(&mut self) -> Vec<ObjectKey> {
        self.touched.take::<K>()
    }

    /// How many pods an object of kind `K` is to have, whose document asks for `asked`: that, without an autoscaler. Of
    /// several the first by name counts. `before` is what an autoscaler had decided when the object's status was written;
    /// [`Decider::wanted`] says what that is for.
    pub fn wanted<K: Kind>(
        &self,
        view: &View<'_>,
        key: &ObjectKey,
        asked: i32,
        before: Option<i32>,
    ) -> i32 {
        self.decider::<K>(view, key).wanted(asked, before)
    }

    fn decider<'v, K: Kind>(&self, view: &'v View<'_>, key: &ObjectKey) -> Decider<'v> {
        let target = (K::KIND.to_owned(), key.clone());
        let first = self.by_target.get(&target).and_then(BTreeSet::first);
        let scaler = first.and_then(|name| {
            let scaler = view.desired::<HorizontalPodAutoscaler>().entry(name);
            Some((name, scaler?.last_good()?))
        });
        let Some((name, scaler)) = scaler else {
            let mut unreadable = self.unreadable.iter();
            return match unreadable.any(|scaler| scaler.namespace == key.namespace) {
                true => Decider::Unknown,
                false => Decider::Nobody,
            };
        };
        let recorded = match view.actual::<HorizontalPodAutoscaler>().entry(name) {
            None => Recorded::Nothing,
            Some(record) => record
                .last_good()
                .map_or(Recorded::Unreadable, |r| Recorded::Is(&r.value)),
        };
        Decider::Autoscaler(&scaler.value, recorded)
    }

    fn refresh(&mut self, view: &View<'_>, key: &ObjectKey) {
        if let Some(old) = self.targets.remove(key) {
            if let Some(scalers) = self.by_target.get_mut(&old) {
                scalers.remove(key);
                if scalers.is_empty() {
                    self.by_target.remove(&old);
                }
            }
            self.touched.insert(&old.0, old.1);
        }
        if self.unreadable.remove(key) {
            self.touch_all::<Deployment>(view, &key.namespace);
            self.touch_all::<ReplicaSet>(view, &key.namespace);
            self.touch_all::<StatefulSet>(view, &key.namespace);
        }
        let Some(entry) = view.desired::<HorizontalPodAutoscaler>().entry(key) else {
            return;
        };
        let Some(scaler) = entry.last_good() else {
            self.unreadable.insert(key.clone());
            return;
        };
        let target = &scaler.value.spec.scale_target_ref;
        let name = ObjectKey::namespaced(key.namespace.clone(), target.name.as_str());
        let target = (target.kind.clone(), name);
        self.touched.insert(&target.0, target.1.clone());
        let scalers = self.by_target.entry(target.clone()).or_default();
        scalers.insert(key.clone());
        self.targets.insert(key.clone(), target);
    }

    /// Whatever the unreadable autoscaler may have named.
    fn touch_all<K: Kind>(&mut self, view: &View<'_>, namespace: &str) {
        for (key, _) in view.desired::<K>().namespace(namespace) {
            self.touched.insert(K::KIND, key.clone());
        }
    }
}
