//! Who owns what: pods and ReplicaSets by the uid of their controller, kept from the cache's changes so that no pass
//! scans what is not its own.
//!
//! The index is brought level with the view under the view's lock ([`OwnerIndex::catch_up`]); the cache posts changes
//! before it lets a view see them, so the two never disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::Pod;
use setpoint_apis::records::PodActual;
use setpoint_apis::{Kind, ObjectKey, ObjectMeta, OwnerReference};
use setpoint_runtime::{Cache, StateKey, Stored, Subscription, View};

use crate::owner::{PodOwner, Takers};
use crate::pod::PodFacts;

/// A pod of some owner.
#[derive(Clone, Debug)]
pub struct PodRow {
    /// What counts about it.
    pub facts: PodFacts,
    /// Its last good document.
    pub pod: Arc<Stored<Pod>>,
    /// What its node reports of its present placement.
    pub actual: Option<Arc<Stored<PodActual>>>,
}

impl PodRow {
    /// Whether those who may take the pod on, while it is nobody's, are the same as of another state of it.
    fn is_as_free_as(&self, other: &Self) -> bool {
        let state = |row: &Self| (row.facts.is_active(), row.facts.frozen);
        let labels = |row: &Self| row.pod.value.metadata.labels.clone();
        state(self) == state(other) && labels(self) == labels(other)
    }
}

/// A ReplicaSet.
#[derive(Clone, Debug)]
pub struct SetRow {
    /// Its last good document.
    pub set: Arc<Stored<ReplicaSet>>,
    /// Why its present document cannot be used.
    pub invalid: Option<Arc<str>>,
    controller: Option<SetController>,
}

/// Whom an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Controller<Owner> {
    uid: Arc<str>,
    /// For the kinds reconciled here.
    owner: Option<(Owner, ObjectKey)>,
}

/// Whom a pod belongs to.
type PodController = Controller<PodOwner>;
/// Whom a ReplicaSet belongs to: a Deployment, or somebody else.
type SetController = Controller<()>;

impl<Owner> Controller<Owner> {
    fn of(
        metadata: &ObjectMeta,
        key: &ObjectKey,
        ours: impl FnOnce(&OwnerReference) -> Option<Owner>,
    ) -> Option<Self> {
        let owner = metadata.controller()?;
        let named = |kind| {
            let name = ObjectKey::namespaced(key.namespace.clone(), owner.name.as_str());
            (kind, name)
        };
        Some(Self {
            uid: owner.uid.as_str().into(),
            owner: ours(owner).map(named),
        })
    }
}

fn deployment(owner: &OwnerReference) -> Option<()> {
    (owner.kind == Deployment::KIND && owner.api_version == Deployment::API_VERSION).then_some(())
}

/// See the module.
pub struct OwnerIndex {
    subscription: Subscription,
    /// Where each pod is filed; `None`: nobody manages it.
    controller_of: FxHashMap<ObjectKey, Option<PodController>>,
    pods: FxHashMap<Arc<str>, BTreeMap<ObjectKey, PodRow>>,
    loose_pods: BTreeMap<ObjectKey, PodRow>,
    /// Pods that never parsed since this process looks, with their revision.
    unreadable_pods: BTreeMap<ObjectKey, i64>,
    /// Pods that are bound or run though their desired document is gone, and whose they were, where that is known.
    stopping: BTreeMap<ObjectKey, Option<PodController>>,
    sets: BTreeMap<ObjectKey, SetRow>,
    sets_of: FxHashMap<Arc<str>, BTreeSet<ObjectKey>>,
    loose_sets: BTreeSet<ObjectKey>,
    /// ReplicaSets that never parsed since this process looks.
    unreadable_sets: BTreeMap<ObjectKey, Arc<str>>,
    /// Per [`PodOwner`].
    touched: [FxHashSet<ObjectKey>; PodOwner::ALL.len()],
    touched_deployments: FxHashSet<ObjectKey>,
    takers: Vec<(PodOwner, Takers)>,
}

impl OwnerIndex {
    /// An empty index of what `cache` holds. `takers` find who may take on a pod that nobody manages.
    pub fn new(cache: &Cache, takers: Vec<(PodOwner, Takers)>) -> Self {
        Self {
            subscription: cache.subscribe(Self::concerns),
            controller_of: FxHashMap::default(),
            pods: FxHashMap::default(),
            loose_pods: BTreeMap::new(),
            unreadable_pods: BTreeMap::new(),
            stopping: BTreeMap::new(),
            sets: BTreeMap::new(),
            sets_of: FxHashMap::default(),
            loose_sets: BTreeSet::new(),
            unreadable_sets: BTreeMap::new(),
            touched: Default::default(),
            touched_deployments: FxHashSet::default(),
            takers,
        }
    }

    /// What the index is made of.
    pub fn concerns(key: &StateKey) -> bool {
        match key {
            StateKey::Desired(plural, _) => *plural == Pod::PLURAL || *plural == ReplicaSet::PLURAL,
            StateKey::Binding(_) | StateKey::NodePod(..) => true,
            _ => false,
        }
    }

    /// Brings the index level with `view`.
    pub fn catch_up(&mut self, view: &View<'_>) {
        let Some(changes) = self.subscription.try_next() else {
            return;
        };
        if changes.resync {
            for (key, _) in view.desired::<ReplicaSet>().entries() {
                self.refresh_set(view, key);
            }
            for (key, _) in view.desired::<Pod>().entries() {
                self.refresh_pod(view, key);
            }
            for (key, _) in view.bindings().entries() {
                self.refresh_stopping(view, key, None);
            }
        }
        for key in &changes.keys {
            match key {
                StateKey::Desired(plural, key) if *plural == ReplicaSet::PLURAL => {
                    self.refresh_set(view, key)
                }
                StateKey::Desired(_, key) | StateKey::Binding(key) | StateKey::NodePod(_, key) => {
                    let before = self.controller_of.get(key).cloned().flatten();
                    self.refresh_pod(view, key);
                    self.refresh_stopping(view, key, before);
                }
                _ => {}
            }
        }
    }

    /// The objects of a kind that changes since the last call concern.
    pub fn take_touched(&mut self, kind: PodOwner) -> Vec<ObjectKey> {
        self.touched[kind as usize].drain().collect()
    }

    /// The Deployments that changes since the last call concern.
    pub fn take_touched_deployments(&mut self) -> Vec<ObjectKey> {
        self.touched_deployments.drain().collect()
    }

    /// The pods of an owner, in key order.
    pub fn pods_of(&self, uid: &str) -> impl Iterator<Item = &PodRow> {
        self.pods.get(uid).into_iter().flat_map(BTreeMap::values)
    }

    /// The pods of a namespace that nobody manages.
    pub fn loose_pods(&self, namespace: &str) -> impl Iterator<Item = &PodRow> {
        in_namespace(&self.loose_pods, namespace, "").map(|(_, row)| row)
    }

    /// Pods whose documents never parsed, of names that begin with `stem`, with their revisions.
    pub fn unreadable_pods(
        &self,
        namespace: &str,
        stem: &str,
    ) -> impl Iterator<Item = (&ObjectKey, i64)> {
        in_namespace(&self.unreadable_pods, namespace, stem).map(|(key, revision)| (key, *revision))
    }

    /// Pods that are still being stopped, of names that begin with `stem`.
    pub fn stopping(&self, namespace: &str, stem: &str) -> impl Iterator<Item = &ObjectKey> {
        in_namespace(&self.stopping, namespace, stem).map(|(key, _)| key)
    }

    /// The same, with the uid of whom they belonged to. `None`: only the name tells.
    pub fn stopping_with_owner(
        &self,
        namespace: &str,
        stem: &str,
    ) -> impl Iterator<Item = (&ObjectKey, Option<&str>)> {
        in_namespace(&self.stopping, namespace, stem)
            .map(|(key, was)| (key, was.as_ref().map(|c| &*c.uid)))
    }

    /// The ReplicaSets of an owner.
    pub fn sets_of(&self, uid: &str) -> impl Iterator<Item = (&ObjectKey, &SetRow)> {
        let keys = self.sets_of.get(uid).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.sets.get(key)?)))
    }

    /// The ReplicaSets of a namespace that nobody manages.
    pub fn loose_sets(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &SetRow)> {
        let first = ObjectKey::namespaced(namespace, "");
        let namespace = namespace.to_owned();
        self.loose_sets
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |k| *k.namespace == namespace)
            .filter_map(|key| Some((key, self.sets.get(key)?)))
    }

    /// The ReplicaSets of names that begin with `stem`, with the uid of their controller.
    pub fn sets_named(
        &self,
        namespace: &str,
        stem: &str,
    ) -> impl Iterator<Item = (&ObjectKey, Option<&str>)> {
        in_namespace(&self.sets, namespace, stem)
            .map(|(key, row)| (key, row.controller.as_ref().map(|c| &*c.uid)))
    }

    /// ReplicaSets whose documents never parsed, of names that begin with `stem`, and why.
    pub fn unreadable_sets(
        &self,
        namespace: &str,
        stem: &str,
    ) -> impl Iterator<Item = (&ObjectKey, &Arc<str>)> {
        in_namespace(&self.unreadable_sets, namespace, stem)
    }

    /// The Deployment that manages a ReplicaSet.
    pub fn deployment_of(&self, set: &ObjectKey) -> Option<ObjectKey> {
        let controller = self.sets.get(set)?.controller.as_ref()?;
        Some(controller.owner.as_ref()?.1.clone())
    }

    fn refresh_pod(&mut self, view: &View<'_>, key: &ObjectKey) {
        if self.unreadable_pods.remove(key).is_some() {
            self.touch_by_name(key);
        }
        let Some(entry) = view.desired::<Pod>().entry(key) else {
            self.file_pod(view, key, None);
            return;
        };
        let Some(good) = entry.last_good() else {
            let revision = entry.invalid().map_or(0, |i| i.mod_revision);
            self.unreadable_pods.insert(key.clone(), revision);
            self.file_pod(view, key, None);
            return;
        };
        let binding = view.bindings().entry(key).and_then(|e| e.last_good());
        let actual = binding
            .and_then(|b| view.pod_on(&b.value.node, key))
            .and_then(|e| e.last_good());
        let mut facts = PodFacts::new(
            key,
            &good.uid(),
            (good.create_revision, good.mod_revision),
            &good.value,
            binding.map(|b| &b.value),
            actual.map(|a| &a.value),
        );
        if let Some(invalid) = entry.invalid() {
            facts.frozen = true;
            facts.mod_revision = invalid.mod_revision;
        }
        let controller = Controller::of(&good.value.metadata, key, PodOwner::of);
        self.file_pod(
            view,
            key,
            Some((
                PodRow {
                    actual: facts.reported.then(|| actual.cloned()).flatten(),
                    facts,
                    pod: good.clone(),
                },
                controller,
            )),
        );
    }

    fn file_pod(
        &mut self,
        view: &View<'_>,
        key: &ObjectKey,
        new: Option<(PodRow, Option<PodController>)>,
    ) {
        // The usual case: another report about a pod that is filed where it belongs.
        let new = match new {
            Some((row, Some(controller)))
                if self
                    .controller_of
                    .get(key)
                    .is_some_and(|old| old.as_ref() == Some(&controller)) =>
            {
                let pods = self.pods.entry(controller.uid).or_default();
                // A Job counts restarts; to the others they make no difference.
                let job = matches!(controller.owner, Some((PodOwner::Job, _)));
                let old = pods.get(key).map(|old| {
                    old.facts.differs_from(&row.facts)
                        || (job && old.facts.restarts != row.facts.restarts)
                });
                pods.insert(key.clone(), row);
                if old != Some(false) {
                    self.touch(controller.owner.as_ref());
                }
                return;
            }
            Some((row, None))
                if self
                    .loose_pods
                    .get(key)
                    .is_some_and(|old| old.is_as_free_as(&row)) =>
            {
                // Another report about a pod that is nobody's: whoever may take it on knows of it.
                self.loose_pods.insert(key.clone(), row);
                return;
            }
            new => new,
        };
        match self.controller_of.remove(key) {
            Some(Some(old)) => {
                if let Some(pods) = self.pods.get_mut(&old.uid) {
                    pods.remove(key);
                    if pods.is_empty() {
                        self.pods.remove(&old.uid);
                    }
                }
                self.touch(old.owner.as_ref());
            }
            Some(None) => {
                self.loose_pods.remove(key);
            }
            None => {}
        }
        match new {
            Some((row, Some(controller))) => {
                self.pods
                    .entry(controller.uid.clone())
                    .or_default()
                    .insert(key.clone(), row);
                self.touch(controller.owner.as_ref());
                self.controller_of.insert(key.clone(), Some(controller));
            }
            Some((row, None)) => {
                // Whoever selects it may take it on.
                let labels = &row.pod.value.metadata.labels;
                for (kind, takers) in &self.takers {
                    self.touched[*kind as usize].extend(takers(view, &key.namespace, labels));
                }
                self.loose_pods.insert(key.clone(), row);
                self.controller_of.insert(key.clone(), None);
            }
            None => {}
        }
    }

    /// `before`: whose the pod was until now.
    fn refresh_stopping(
        &mut self,
        view: &View<'_>,
        key: &ObjectKey,
        before: Option<PodController>,
    ) {
        let wanted = view.desired::<Pod>().contains(key);
        if view.bindings().contains(key) && !wanted {
            let reported = || {
                let metadata = view.pod_actual(key)?.value.metadata.as_ref()?;
                Controller::of(metadata, key, PodOwner::of)
            };
            let known = before.or_else(|| self.stopping.get(key).cloned().flatten());
            self.stopping.insert(key.clone(), known.or_else(reported));
        } else if let Some(was) = self.stopping.remove(key)
            && !wanted
        {
            // Somebody may have waited for this.
            match was {
                Some(was) => self.touch(was.owner.as_ref()),
                // Only the name tells who.
                None => self.touch_by_name(key),
            }
        }
    }

    fn refresh_set(&mut self, view: &View<'_>, key: &ObjectKey) {
        self.unreadable_sets.remove(key);
        self.touched[PodOwner::ReplicaSet as usize].insert(key.clone());
        if let Some(old) = self.sets.remove(key) {
            match old.controller {
                Some(c) => {
                    if let Some(sets) = self.sets_of.get_mut(&c.uid) {
                        sets.remove(key);
                        if sets.is_empty() {
                            self.sets_of.remove(&c.uid);
                        }
                    }
                    self.touched_deployments.extend(c.owner.map(|o| o.1));
                }
                None => {
                    self.loose_sets.remove(key);
                }
            }
        }
        let Some(entry) = view.desired::<ReplicaSet>().entry(key) else {
            return;
        };
        let invalid = entry.invalid().map(|i| Arc::from(i.message.as_str()));
        let Some(good) = entry.last_good() else {
            let message = invalid.unwrap_or_default();
            self.unreadable_sets.insert(key.clone(), message);
            // Only its name says whose it may be.
            self.touched_deployments.extend(owner_by_name(key));
            return;
        };
        let controller = Controller::of(&good.value.metadata, key, deployment);
        match &controller {
            Some(c) => {
                self.sets_of
                    .entry(c.uid.clone())
                    .or_default()
                    .insert(key.clone());
                self.touched_deployments
                    .extend(c.owner.as_ref().map(|o| o.1.clone()));
            }
            None => {
                let labels = &good.value.metadata.labels;
                for (deployment, entry) in view.desired::<Deployment>().namespace(&key.namespace) {
                    if entry
                        .valid()
                        .is_some_and(|d| d.value.spec.selector.matches(labels))
                    {
                        self.touched_deployments.insert(deployment.clone());
                    }
                }
                self.loose_sets.insert(key.clone());
            }
        }
        self.sets.insert(
            key.clone(),
            SetRow {
                set: good.clone(),
                invalid,
                controller,
            },
        );
    }

    /// Something about the pods of an object changed: it wants to know, and for a ReplicaSet its Deployment.
    fn touch(&mut self, owner: Option<&(PodOwner, ObjectKey)>) {
        let Some((kind, key)) = owner else { return };
        if *kind == PodOwner::ReplicaSet {
            let deployment = self.deployment_of(key);
            self.touched_deployments.extend(deployment);
        }
        self.touched[*kind as usize].insert(key.clone());
    }

    /// As [`Self::touch`], for a pod of which only the name is known: whose it is by that, of whatever kind.
    fn touch_by_name(&mut self, pod: &ObjectKey) {
        let Some(owner) = owner_by_name(pod) else {
            return;
        };
        for kind in PodOwner::ALL {
            self.touch(Some(&(kind, owner.clone())));
        }
        // The pods of an Indexed Job have their index in between.
        self.touch(
            owner_by_name(&owner)
                .map(|job| (PodOwner::Job, job))
                .as_ref(),
        );
    }
}

/// Who made an object whose name is all that is known: generated names are `<owner>-<letters>`.
fn owner_by_name(key: &ObjectKey) -> Option<ObjectKey> {
    let (owner, _) = key.name.rsplit_once('-')?;
    Some(ObjectKey::namespaced(key.namespace.clone(), owner))
}

fn in_namespace<'a, T>(
    map: &'a BTreeMap<ObjectKey, T>,
    namespace: &str,
    stem: &str,
) -> impl Iterator<Item = (&'a ObjectKey, &'a T)> + use<'a, T> {
    let first = ObjectKey::namespaced(namespace, stem);
    let (namespace, stem) = (namespace.to_owned(), stem.to_owned());
    map.range((Bound::Included(first), Bound::Unbounded))
        .take_while(move |(k, _)| *k.namespace == namespace && k.name.starts_with(&stem))
}
