//! Which workloads select each other's pods, kept from the cache's changes.
//!
//! Pods and ReplicaSets say whose they are, so two workloads never take each other's. But what is nobody's would be taken
//! by whoever comes first, and people who look for pods by a selector see both. So the younger one says so in a condition,
//! and takes on nothing that is nobody's.
//!
//! Who is compared with whom says [`setpoint_apis::overlap::Index`]: many objects of different names cost nothing per pass.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::apps::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::batch::Job;
use setpoint_apis::overlap::{Choice, Index};
use setpoint_apis::{Kind, LabelSelector, ObjectKey, StringMap};
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

/// Everything of an object that says with whom it overlaps.
#[derive(PartialEq, Eq, Hash)]
struct Alike {
    kind: Selecting,
    namespace: Arc<str>,
    selector: LabelSelector,
    labels: BTreeMap<String, String>,
    own: StringMap,
}

impl Alike {
    fn of((kind, key): &Id, facts: &Facts<'_>) -> Self {
        Self {
            kind: *kind,
            namespace: key.namespace.clone(),
            selector: facts.choice.selector.clone(),
            labels: facts.choice.labels.clone(),
            own: facts.own.clone(),
        }
    }
}

/// An object that selects pods.
#[derive(Debug)]
struct Row {
    created: i64,
    /// The oldest of those that it overlaps with, when that is older than itself.
    older: Option<Id>,
}

/// See the module.
pub struct Overlaps {
    subscription: Subscription,
    rows: FxHashMap<Id, Row>,
    /// Of whom an object is the older one: all of them, however many there are, name but one.
    younger: FxHashMap<Id, BTreeSet<Id>>,
    index: Index<Id>,
    touched: FxHashSet<Id>,
    /// How often all that an object might overlap with was looked at: what this costs.
    looks: Cell<u64>,
}

impl Overlaps {
    /// An empty index of what `cache` holds.
    pub fn new(cache: &Cache) -> Self {
        Self {
            subscription: cache.subscribe(Self::concerns),
            rows: FxHashMap::default(),
            younger: FxHashMap::default(),
            index: Index::default(),
            touched: FxHashSet::default(),
            looks: Cell::new(0),
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
        let (kind, other) = self.rows.get(&id)?.older.as_ref()?;
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
        let older = before.and_then(|r| r.older);
        if let Some(older) = &older {
            self.unname(older, &id);
        }
        let followers = self.younger.remove(&id).unwrap_or_default();
        let mut partners = BTreeSet::new();
        let found = facts(view, &id);
        if let Some(facts) = &found {
            partners = self.partners(view, &id, facts);
            self.index.insert(&id, &id.1.namespace, &facts.choice);
            let created = facts.created;
            let row = Row {
                created,
                older: None,
            };
            self.rows.insert(id.clone(), row);
            self.set_older(&id, self.oldest(&partners, (created, &id)));
            if self.rows.get(&id).and_then(|r| r.older.as_ref()) != older.as_ref() {
                self.touched.insert(id.clone());
            }
        }
        let now = found.map(|f| f.created);
        let mut oldest_of = FxHashMap::default();
        for follower in followers {
            let stays = known == now && partners.contains(&follower);
            if stays {
                let named = self.younger.entry(id.clone()).or_default();
                named.insert(follower);
            } else {
                // Somebody else may be older than it.
                let oldest = self.next_oldest(view, &follower, &mut oldest_of);
                if let Some(row) = self.rows.get_mut(&follower) {
                    row.older = None;
                }
                self.set_older(&follower, oldest);
                self.touched.insert(follower);
            }
        }
        let Some(created) = now else { return };
        for partner in partners {
            let age = |id: &Id| self.rows.get(id).map(|r| (r.created, id.clone()));
            let of = self.rows.get(&partner).and_then(|r| r.older.as_ref());
            let least = of.and_then(age).or_else(|| age(&partner));
            if least.is_some_and(|least| (created, id.clone()) < least) {
                self.set_older(&partner, Some(id.clone()));
                self.touched.insert(partner);
            }
        }
    }

    /// The oldest that an object overlaps with, when that is older than itself. Objects that select, and are selected, alike
    /// overlap with the same others and with each other, so one look serves them all: there may be thousands of them.
    fn next_oldest(
        &self,
        view: &View<'_>,
        id: &Id,
        known: &mut FxHashMap<Alike, Option<(i64, Id)>>,
    ) -> Option<Id> {
        let facts = facts(view, id)?;
        let oldest = known.entry(Alike::of(id, &facts)).or_insert_with(|| {
            // It is filed, so it is among those that it selects itself.
            let all = self.partners(view, id, &facts);
            let ages = all
                .into_iter()
                .filter_map(|id| Some((self.rows.get(&id)?.created, id)));
            ages.min()
        });
        let (created, other) = oldest.as_ref()?;
        ((*created, other) < (facts.created, id)).then(|| other.clone())
    }

    /// The oldest of these, when it is older than an object.
    fn oldest(&self, of: &BTreeSet<Id>, (created, id): (i64, &Id)) -> Option<Id> {
        let ages = of
            .iter()
            .filter_map(|id| Some((self.rows.get(id)?.created, id)));
        let oldest = ages.min()?;
        (oldest < (created, id)).then(|| oldest.1.clone())
    }

    fn set_older(&mut self, id: &Id, older: Option<Id>) {
        let Some(row) = self.rows.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut row.older, older.clone());
        if let Some(before) = before {
            self.unname(&before, id);
        }
        if let Some(older) = older {
            self.younger.entry(older).or_default().insert(id.clone());
        }
    }

    fn unname(&mut self, older: &Id, id: &Id) {
        if let Some(named) = self.younger.get_mut(older) {
            named.remove(id);
            if named.is_empty() {
                self.younger.remove(older);
            }
        }
    }

    /// With whom of those that are filed an object overlaps.
    fn partners(&self, view: &View<'_>, id: &Id, of: &Facts<'_>) -> BTreeSet<Id> {
        self.looks.set(self.looks.get() + 1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::led::Led;

    #[tokio::test(start_paused = true)]
    async fn when_the_oldest_of_many_alike_goes_all_name_the_next_after_one_look() {
        let led = Led::start().await;
        let cache = led.leader.cache();
        let key = |n: usize| ObjectKey::namespaced("default", format!("set-{n:03}"));
        let count = 60;
        for n in 0..count {
            // One is alike in all but a label more of its pods.
            let more = if n == 5 { ", tier: front" } else { "" };
            let text = format!(
                "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: set-{n:03}}}\nspec:\n  \
                 selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web{more}}}}}\n    \
                 spec: {{containers: [{{name: c, image: host}}]}}\n"
            );
            led.put_desired::<ReplicaSet>(&key(n), &text).await;
        }
        let mut overlaps = Overlaps::new(cache);
        overlaps.catch_up(&cache.view());
        let names = |overlaps: &Overlaps, n: usize, oldest: &str| {
            let said = overlaps.older::<ReplicaSet>(&key(n));
            said.is_some_and(|s| s.starts_with(&format!("replicaset.apps/{oldest} is older")))
        };
        assert!((1..count).all(|n| names(&overlaps, n, "set-000")));
        let before = overlaps.looks.get();
        led.delete_desired::<ReplicaSet>(&key(0)).await;
        overlaps.catch_up(&cache.view());
        assert!((2..count).all(|n| names(&overlaps, n, "set-001")));
        assert_eq!(overlaps.older::<ReplicaSet>(&key(1)), None);
        assert_eq!(
            overlaps.looks.get() - before,
            2,
            "one for each that differs"
        );
    }
}
