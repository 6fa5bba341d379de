//! Which workloads select each other's pods, kept from the cache's changes.
//!
//! Pods and ReplicaSets say whose they are, so two workloads never take each other's. But what is nobody's would be taken
//! by whoever comes first, and people who look for pods by a selector see both. So the younger one says so in a condition,
//! and takes on nothing that is nobody's.
//!
//! Who is compared with whom says [`setpoint_apis::overlap::Index`]: many objects of different names cost nothing per pass.

use std::collections::BTreeSet;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::apps::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::batch::Job;
use setpoint_apis::overlap::{Choice, Index};
use setpoint_apis::{Kind, ObjectKey, StringMap};
use setpoint_runtime::{Cache, StateKey, Stored, Subscription, View};

use crate::owner::Selects;

/// The kinds that select pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Selecting {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
}

impl Selecting {
    fn of(plural: &str) -> Option<Self> {
        Some(match plural {
            Deployment::PLURAL => Self::Deployment,
            ReplicaSet::PLURAL => Self::ReplicaSet,
            StatefulSet::PLURAL => Self::StatefulSet,
            DaemonSet::PLURAL => Self::DaemonSet,
            Job::PLURAL => Self::Job,
            _ => return None,
        })
    }

    /// `statefulset.apps`.
    fn word(self) -> &'static str {
        match self {
            Self::Deployment => "deployment.apps",
            Self::ReplicaSet => "replicaset.apps",
            Self::StatefulSet => "statefulset.apps",
            Self::DaemonSet => "daemonset.apps",
            Self::Job => "job.batch",
        }
    }
}

type Id = (Selecting, ObjectKey);

/// What counts about an object.
struct Facts<'a> {
    choice: Choice<'a>,
    /// The labels of the object itself.
    own: &'a StringMap,
    created: i64,
}

/// An object that selects pods.
#[derive(Debug)]
struct Row {
    created: i64,
    /// With whom it overlaps.
    partners: BTreeSet<Id>,
}

/// See the module.
pub struct Overlaps {
    subscription: Subscription,
    rows: FxHashMap<Id, Row>,
    index: Index<Id>,
    touched: FxHashSet<Id>,
}

impl Overlaps {
    /// An empty index of what `cache` holds.
    pub fn new(cache: &Cache) -> Self {
        Self {
            subscription: cache.subscribe(Self::concerns),
            rows: FxHashMap::default(),
            index: Index::default(),
            touched: FxHashSet::default(),
        }
    }

    /// What the index is made of.
    pub fn concerns(key: &StateKey) -> bool {
        matches!(key, StateKey::Desired(plural, _) if Selecting::of(plural).is_some())
    }

    /// Brings the index level with `view`.
    pub fn catch_up(&mut self, view: &View<'_>) {
        let Some(changes) = self.subscription.try_next() else {
            return;
        };
        if changes.resync {
            for kind in [
                Selecting::Deployment,
                Selecting::ReplicaSet,
                Selecting::StatefulSet,
                Selecting::DaemonSet,
                Selecting::Job,
            ] {
                for key in keys(view, kind) {
                    self.refresh(view, (kind, key));
                }
            }
        }
        for key in &changes.keys {
            if let StateKey::Desired(plural, key) = key
                && let Some(kind) = Selecting::of(plural)
            {
                self.refresh(view, (kind, key.clone()));
            }
        }
    }

    /// The objects of kind `K` of which something else is so since the last call.
    pub fn take_touched<K: Kind>(&mut self) -> Vec<ObjectKey> {
        let kind = Selecting::of(K::PLURAL);
        let touched = self.touched.extract_if(|(k, _)| Some(*k) == kind);
        touched.map(|(_, key)| key).collect()
    }

    /// What is to be said of an object of kind `K` that overlaps with an older one: with the oldest of them.
    pub fn older<K: Kind>(&self, key: &ObjectKey) -> Option<String> {
        let id = (Selecting::of(K::PLURAL)?, key.clone());
        let row = self.rows.get(&id)?;
        let age = |id: &Id| self.rows.get(id).map(|r| (r.created, id.clone()));
        let oldest = row.partners.iter().filter_map(age).min()?;
        let (_, (kind, other)) = (oldest < (row.created, id)).then_some(oldest)?;
        Some(format!(
            "{}/{} is older, and one of the two selects the pods of the other: each keeps those that it has made, and this one takes \
             on none that are nobody's; a selector and template labels of its own end that",
            kind.word(),
            other.name
        ))
    }

    fn refresh(&mut self, view: &View<'_>, id: Id) {
        let before = self.rows.remove(&id);
        self.index.remove(&id);
        let known = before.as_ref().map(|r| r.created);
        let before = before.map(|r| r.partners).unwrap_or_default();
        let (mut now, mut partners) = (None, BTreeSet::new());
        if let Some(facts) = facts(view, &id) {
            now = Some(facts.created);
            partners = self.partners(view, &id, &facts);
            self.index.insert(&id, &id.1.namespace, &facts.choice);
            let row = Row {
                created: facts.created,
                partners: partners.clone(),
            };
            self.rows.insert(id.clone(), row);
        }
        for partner in before.union(&partners) {
            let is = partners.contains(partner);
            if let Some(row) = self.rows.get_mut(partner) {
                match is {
                    true => row.partners.insert(id.clone()),
                    false => row.partners.remove(&id),
                };
            }
            if !(is && before.contains(partner) && known == now) {
                self.touched.insert(partner.clone());
                self.touched.insert(id.clone());
            }
        }
    }

    /// With whom of those that are filed an object overlaps.
    fn partners(&self, view: &View<'_>, id: &Id, of: &Facts<'_>) -> BTreeSet<Id> {
        let candidates = self.index.candidates(&id.1.namespace, &of.choice);
        let overlaps = |other: &&&Id| {
            let found = facts(view, other).filter(|_| other.1.namespace == id.1.namespace);
            found.is_some_and(|found| {
                of.choice.overlaps(&found.choice) && !takes_on((id, of), (other, &found))
            })
        };
        candidates
            .iter()
            .filter(overlaps)
            .map(|id| (*id).clone())
            .collect()
    }
}

/// Whether one of two is a Deployment and the other a ReplicaSet that it takes on: that is no conflict.
fn takes_on(a: (&Id, &Facts<'_>), b: (&Id, &Facts<'_>)) -> bool {
    let takes = |(d, of_d): (&Id, &Facts<'_>), (r, of_r): (&Id, &Facts<'_>)| {
        d.0 == Selecting::Deployment
            && r.0 == Selecting::ReplicaSet
            && of_d.choice.selector.matches(of_r.own)
    };
    takes(a, b) || takes(b, a)
}

fn keys(view: &View<'_>, kind: Selecting) -> Vec<ObjectKey> {
    fn all<K: Kind>(view: &View<'_>) -> Vec<ObjectKey> {
        let entries = view.desired::<K>().entries();
        entries.map(|(key, _)| key.clone()).collect()
    }
    match kind {
        Selecting::Deployment => all::<Deployment>(view),
        Selecting::ReplicaSet => all::<ReplicaSet>(view),
        Selecting::StatefulSet => all::<StatefulSet>(view),
        Selecting::DaemonSet => all::<DaemonSet>(view),
        Selecting::Job => all::<Job>(view),
    }
}

/// `None` for an object that is gone, never parsed, or has no selector of its own: what a Deployment owns selects as that
/// does, and most Jobs select by their uid.
fn facts<'a>(view: &'a View<'_>, (kind, key): &Id) -> Option<Facts<'a>> {
    fn good<'a, K: Kind>(view: &'a View<'_>, key: &ObjectKey) -> Option<&'a Stored<K>> {
        let object = &**view.desired::<K>().entry(key)?.last_good()?;
        object
            .value
            .metadata()
            .controller()
            .is_none()
            .then_some(object)
    }
    fn of<'a, K: Kind>(
        object: &'a Stored<K>,
        selector: &'a setpoint_apis::LabelSelector,
        labels: &'a StringMap,
    ) -> Facts<'a> {
        Facts {
            choice: Choice { selector, labels },
            own: &object.value.metadata().labels,
            created: object.create_revision,
        }
    }
    Some(match kind {
        Selecting::Deployment => {
            let o = good::<Deployment>(view, key)?;
            of(
                o,
                &o.value.spec.selector,
                &o.value.spec.template.metadata.labels,
            )
        }
        Selecting::ReplicaSet => {
            let o = good::<ReplicaSet>(view, key)?;
            let template = o.value.spec.template.as_ref()?;
            of(o, &o.value.spec.selector, &template.metadata.labels)
        }
        Selecting::StatefulSet => {
            let o = good::<StatefulSet>(view, key)?;
            of(
                o,
                &o.value.spec.selector,
                &o.value.spec.template.metadata.labels,
            )
        }
        Selecting::DaemonSet => {
            let o = good::<DaemonSet>(view, key)?;
            of(
                o,
                &o.value.spec.selector,
                &o.value.spec.template.metadata.labels,
            )
        }
        Selecting::Job => {
            let o = good::<Job>(view, key)?;
            of(
                o,
                o.value.selector()?,
                &o.value.spec.template.metadata.labels,
            )
        }
    })
}
