//! Objects of one kind by the uid of their controller, kept from the cache's changes: the revisions of a StatefulSet,
//! the Jobs of a CronJob. Pods have an index of their own, [`crate::index`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::{Kind, ObjectKey, OwnerReference};
use setpoint_runtime::{Cache, StateKey, Stored, Subscription, View};

use crate::touched::Touched;

/// An object that is somebody's.
#[derive(Debug)]
pub struct Child<K> {
    /// Its last good document.
    pub object: Arc<Stored<K>>,
    /// Why its present document cannot be used.
    pub invalid: Option<Arc<str>>,
    owner: OwnerReference,
}

/// See the module.
pub struct Children<K: Kind> {
    subscription: Subscription,
    rows: BTreeMap<ObjectKey, Child<K>>,
    by_owner: FxHashMap<String, BTreeSet<ObjectKey>>,
    /// Objects that never parsed since this process looks.
    unreadable: BTreeMap<ObjectKey, Arc<str>>,
    touched: Touched,
}

impl<K: Kind> Children<K> {
    /// An empty index of what `cache` holds, for the controllers of the kinds `owners`.
    pub fn new(cache: &Cache, owners: &[&'static str]) -> Self {
        Self {
            subscription: cache.subscribe(Self::concerns),
            rows: BTreeMap::new(),
            by_owner: FxHashMap::default(),
            unreadable: BTreeMap::new(),
            touched: Touched::new(owners),
        }
    }

    /// What the index is made of.
    pub fn concerns(key: &StateKey) -> bool {
        matches!(key, StateKey::Desired(plural, _) if *plural == K::PLURAL)
    }

    /// Brings the index level with `view`.
    pub fn catch_up(&mut self, view: &View<'_>) {
        let Some(changes) = self.subscription.try_next() else {
            return;
        };
        if changes.resync {
            for (key, _) in view.desired::<K>().entries() {
                self.refresh(view, key);
            }
        }
        for key in &changes.keys {
            if let StateKey::Desired(plural, key) = key
                && *plural == K::PLURAL
            {
                self.refresh(view, key);
            }
        }
    }

    /// The objects that `uid` manages, in key order.
    pub fn of(&self, uid: &str) -> impl Iterator<Item = (&ObjectKey, &Child<K>)> {
        let keys = self.by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.rows.get(key)?)))
    }

    /// Whose an object is, when its owner is of kind `Owner`.
    pub fn owner_of<Owner: Kind>(&self, child: &ObjectKey) -> Option<ObjectKey> {
        let owner = &self.rows.get(child)?.owner;
        let named = || ObjectKey::namespaced(child.namespace.clone(), owner.name.as_str());
        (owner.kind == Owner::KIND).then(named)
    }

    /// Objects whose documents never parsed: nobody knows whose they are.
    pub fn unreadable(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<str>)> {
        self.unreadable.iter()
    }

    /// The owners of kind `Owner` that changes since the last call concern.
    pub fn take_touched<Owner: Kind>(&mut self) -> Vec<ObjectKey> {
        self.touched.take::<Owner>()
    }

    fn refresh(&mut self, view: &View<'_>, key: &ObjectKey) {
        self.unreadable.remove(key);
        if let Some(old) = self.rows.remove(key) {
            self.touch(key, &old.owner);
            if let Some(keys) = self.by_owner.get_mut(&old.owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(&old.owner.uid);
                }
            }
        }
        let Some(entry) = view.desired::<K>().entry(key) else {
            return;
        };
        let invalid = entry.invalid().map(|i| Arc::from(i.message.as_str()));
        let Some(object) = entry.last_good() else {
            self.unreadable
                .insert(key.clone(), invalid.unwrap_or_default());
            return;
        };
        let Some(owner) = object.value.metadata().controller().cloned() else {
            return;
        };
        self.touch(key, &owner);
        self.by_owner
            .entry(owner.uid.clone())
            .or_default()
            .insert(key.clone());
        let row = Child {
            object: object.clone(),
            invalid,
            owner,
        };
        self.rows.insert(key.clone(), row);
    }

    fn touch(&mut self, child: &ObjectKey, owner: &OwnerReference) {
        let owned = ObjectKey::namespaced(child.namespace.clone(), owner.name.as_str());
        self.touched.insert(&owner.kind, owned);
    }
}
