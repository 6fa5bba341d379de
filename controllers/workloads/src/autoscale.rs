//! How many pods an autoscaler wants.
//!
//! An autoscaler records its decision in the status of its HorizontalPodAutoscaler, and the workload's controller uses
//! that instead of `spec.replicas`. So nobody but its user writes a workload's document, and applying a manifest again
//! changes no size.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;
use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet, WorkloadCondition};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::resolve::{Decider, Recorded};
use setpoint_apis::{Kind, ObjectKey, Timestamp};
use setpoint_runtime::{Cache, StateKey, Subscription, View};

use crate::conditions::{self, Finding};
use crate::touched::Touched;

/// The condition of a workload whose size stays as it was last decided, because its autoscaler cannot be read; and why that
/// is so, when the autoscaler's document does not parse.
pub const AUTOSCALER_INVALID: &str = "AutoscalerInvalid";

/// Why [`AUTOSCALER_INVALID`] is so, when what the autoscaler has recorded does not parse.
const RECORD_INVALID: &str = "AutoscalerRecordInvalid";

/// How many pods an object is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// So many.
    pub wanted: i32,
    /// The same for the object's status: when the document asks for another number; and while the autoscaler cannot be
    /// read, so that it holds as well when other controllers lead or the document changes.
    pub decided: Option<i32>,
    /// What is to be said of an autoscaler that cannot be read.
    pub broken_scaler: Option<Finding>,
}

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
    pub fn size<K: Kind>(
        &self,
        view: &View<'_>,
        key: &ObjectKey,
        asked: i32,
        before: Option<i32>,
    ) -> Size {
        let scaler = self.scaler_of::<K>(key);
        let decider = scaler.map_or(Decider::Nobody, |scaler| decider(view, scaler));
        let wanted = decider.wanted(asked, before);
        // By what could be read last, or by what the status says. Asking for none switches autoscalers off.
        let is_decided = match decider {
            Decider::Nobody | Decider::Autoscaler(_, Recorded::Nothing) => false,
            Decider::Autoscaler(scaler, Recorded::Is(status)) => {
                scaler.spec.decided(status).is_some()
            }
            Decider::Autoscaler(_, Recorded::Unreadable) | Decider::Unknown => before.is_some(),
        };
        let holds = is_decided && asked > 0;
        let broken_scaler = scaler.filter(|_| holds).and_then(|s| broken(view, s));
        Size {
            wanted,
            decided: (wanted != asked || broken_scaler.is_some()).then_some(wanted),
            broken_scaler,
        }
    }

    /// The autoscaler that decides for an object, or that may be the one as nobody knows what it is about.
    fn scaler_of<K: Kind>(&self, key: &ObjectKey) -> Option<&ObjectKey> {
        let target = (K::KIND.to_owned(), key.clone());
        let first = self.by_target.get(&target).and_then(BTreeSet::first);
        first.or_else(|| {
            let mut unreadable = self.unreadable.iter();
            unreadable.find(|scaler| scaler.namespace == key.namespace)
        })
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
        let was_unreadable = self.unreadable.remove(key);
        let entry = view.desired::<HorizontalPodAutoscaler>().entry(key);
        let is_unreadable = entry.is_some_and(|entry| entry.last_good().is_none());
        if was_unreadable || is_unreadable {
            self.touch_all::<Deployment>(view, &key.namespace);
            self.touch_all::<ReplicaSet>(view, &key.namespace);
            self.touch_all::<StatefulSet>(view, &key.namespace);
        }
        if is_unreadable {
            self.unreadable.insert(key.clone());
        }
        let Some(scaler) = entry.and_then(|entry| entry.last_good()) else {
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

/// What an autoscaler has to say, by its last good document and record.
fn decider<'v>(view: &'v View<'_>, name: &ObjectKey) -> Decider<'v> {
    let Some(entry) = view.desired::<HorizontalPodAutoscaler>().entry(name) else {
        return Decider::Nobody;
    };
    let Some(scaler) = entry.last_good() else {
        return Decider::Unknown;
    };
    let recorded = match view.actual::<HorizontalPodAutoscaler>().entry(name) {
        None => Recorded::Nothing,
        Some(record) => record
            .last_good()
            .map_or(Recorded::Unreadable, |r| Recorded::Is(&r.value)),
    };
    Decider::Autoscaler(&scaler.value, recorded)
}

/// What is to be said of an autoscaler whose document or record does not parse.
fn broken(view: &View<'_>, scaler: &ObjectKey) -> Option<Finding> {
    let ObjectKey { namespace, name } = scaler;
    let document = view.desired::<HorizontalPodAutoscaler>().entry(scaler);
    let record = view.actual::<HorizontalPodAutoscaler>().entry(scaler);
    let stays = "so the number of pods stays as it was last decided";
    let (reason, message) = if let Some(why) = document?.invalid() {
        let why = &why.message;
        (
            AUTOSCALER_INVALID,
            format!(
                "HorizontalPodAutoscaler {name:?} cannot be read, {stays}: {why}; mend it with `setpoint edit hpa {name} -n \
                 {namespace}`"
            ),
        )
    } else {
        let why = &record?.invalid()?.message;
        let plural = HorizontalPodAutoscaler::PLURAL;
        (
            RECORD_INVALID,
            format!(
                "what HorizontalPodAutoscaler {name:?} has decided cannot be read, {stays}: {why}; write \
                 actual/{plural}/{namespace}/{name} anew"
            ),
        )
    };
    Some(Finding::new(AUTOSCALER_INVALID, true, reason, message))
}

/// Sets or removes the condition about an autoscaler that cannot be read.
pub fn set_broken(
    conditions: &mut Vec<WorkloadCondition>,
    finding: Option<&Finding>,
    now: Timestamp,
) {
    conditions::set_or_remove(conditions, AUTOSCALER_INVALID, finding.cloned(), now);
}
