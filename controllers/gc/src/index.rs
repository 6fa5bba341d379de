//! Who depends on whom, by uid, kept from the cache's changes. It only finds what to look at: what is decided is
//! decided on the view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::core::Namespace;
use setpoint_apis::{Kind, ObjectKey};
use setpoint_runtime::{StateKey, View};

use crate::kinds::Kinds;
use crate::plan::ObjectId;

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// An object: its owners, its namespace.
    Object(ObjectId),
    /// A status: its object.
    Status(ObjectId),
    /// A deletion record.
    Record(ObjectId),
}

impl Item {
    /// The object that it is about.
    pub fn id(&self) -> &ObjectId {
        match self {
            Self::Object(id) | Self::Status(id) | Self::Record(id) => id,
        }
    }
}

#[derive(Debug)]
struct Row {
    uid: Option<Arc<str>>,
    owners: Vec<Arc<str>>,
}

/// Objects that depend on one, each with whether its owner waits for it in the foreground (`blockOwnerDeletion`).
type Dependents = BTreeMap<ObjectId, bool>;

/// See the module.
#[derive(Debug, Default)]
pub struct Index {
    rows: FxHashMap<ObjectId, Row>,
    dependents: FxHashMap<Arc<str>, Dependents>,
    /// Namespaces that were there and are not any more.
    deleted_namespaces: FxHashSet<Arc<str>>,
}

impl Index {
    /// Takes a change in, and names what is to be looked at because of it.
    pub fn change(
        &mut self,
        kinds: &Kinds,
        view: &View<'_>,
        change: &StateKey,
        items: &mut BTreeSet<Item>,
    ) {
        match change {
            StateKey::Desired(plural, key) => {
                self.object(kinds, view, ObjectId::new(plural, key.clone()), items);
            }
            StateKey::Actual(plural, key) => {
                items.insert(Item::Status(ObjectId::new(plural, key.clone())));
            }
            StateKey::Deletion(plural, key) => {
                if let Some(kind) = kinds.by_plural(plural) {
                    let id = ObjectId::new(kind.plural, key.clone());
                    let uid = self.rows.get(&id).and_then(|row| row.uid.clone());
                    items.extend(
                        uid.iter()
                            .flat_map(|uid| self.dependents(uid))
                            .cloned()
                            .map(Item::Object),
                    );
                    items.insert(Item::Record(id));
                }
            }
            _ => {}
        }
    }

    /// Takes everything in, and names everything. What is here and is gone from the view goes from here too: no change
    /// need ever name it, since a subscription begins with "everything" and may do so after a first look at everything.
    pub fn all(&mut self, kinds: &Kinds, view: &View<'_>, items: &mut BTreeSet<Item>) {
        let is_there = |id: &ObjectId| {
            let kind = kinds.by_plural(id.plural);
            kind.is_some_and(|kind| kind.object(view, &id.key).is_some())
        };
        let known = self.rows.keys();
        let gone: Vec<ObjectId> = known.filter(|id| !is_there(id)).cloned().collect();
        for id in gone {
            self.object(kinds, view, id, items);
        }
        for kind in kinds.iter() {
            for key in kind.keys(view) {
                self.object(kinds, view, ObjectId::new(kind.plural, key), items);
            }
            for key in kind.status_keys(view) {
                items.insert(Item::Status(ObjectId::new(kind.plural, key)));
            }
            if let Some(records) = view.deletions(kind.plural) {
                items.extend(
                    records
                        .entries()
                        .map(|(k, _)| Item::Record(ObjectId::new(kind.plural, k.clone()))),
                );
            }
        }
    }

    /// The objects that name this uid as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &ObjectId> {
        self.dependents
            .get(uid)
            .into_iter()
            .flat_map(BTreeMap::keys)
    }

    /// How many of these this uid waits for when it is deleted in the foreground.
    pub fn blocking(&self, uid: &str) -> usize {
        let dependents = self.dependents.get(uid).into_iter();
        dependents
            .flat_map(BTreeMap::values)
            .filter(|b| **b)
            .count()
    }

    /// Whether `owner` depends on `uid`, directly or not: then whoever depends on `owner` and is `uid` is in a circle.
    pub fn depends_on(&self, owner: &ObjectId, uid: &str) -> bool {
        let mut seen = FxHashSet::default();
        let mut open: Vec<&str> = vec![uid];
        while let Some(uid) = open.pop() {
            for dependent in self.dependents(uid) {
                if dependent == owner {
                    return true;
                }
                let next = self.rows.get(dependent).and_then(|row| row.uid.as_deref());
                let next = next.filter(|next| self.dependents.contains_key(*next));
                open.extend(next.filter(|next| seen.insert(*next)));
            }
        }
        false
    }

    /// Whether a namespace was there and is not any more.
    pub fn was_deleted(&self, namespace: &str) -> bool {
        self.deleted_namespaces.contains(namespace)
    }

    fn object(&mut self, kinds: &Kinds, view: &View<'_>, id: ObjectId, items: &mut BTreeSet<Item>) {
        let Some(kind) = kinds.by_plural(id.plural) else {
            return;
        };
        let object = kind.object(view, &id.key);
        let old = self.rows.remove(&id);
        let uid: Option<Arc<str>> = object
            .as_ref()
            .and_then(|o| o.uid.as_deref())
            .map(Arc::from);
        if let Some(old) = &old {
            for owner in &old.owners {
                self.unlink(owner, &id);
                // Somebody may wait for its last dependent to go.
                self.waiting(kinds, view, owner, items);
            }
            if let Some(former) = old.uid.as_ref().filter(|u| Some(*u) != uid.as_ref()) {
                items.extend(self.dependents(former).cloned().map(Item::Object));
            }
        }
        if id.plural == Namespace::PLURAL {
            self.namespace(kinds, view, &id.key, old.is_some(), object.is_some(), items);
        }
        let Some(object) = object else {
            items.insert(Item::Status(id.clone()));
            items.insert(Item::Record(id));
            return;
        };
        let owners: Vec<Arc<str>> = object
            .owners
            .iter()
            .map(|o| Arc::from(o.uid.as_str()))
            .collect();
        for (owner, reference) in owners.iter().zip(&object.owners) {
            let blocks = reference.block_owner_deletion == Some(true);
            let dependents = self.dependents.entry(owner.clone()).or_default();
            *dependents.entry(id.clone()).or_default() |= blocks;
        }
        let homeless = kind.namespaced && !exists(view, &id.key.namespace);
        if !owners.is_empty() || homeless {
            items.insert(Item::Object(id.clone()));
        }
        self.rows.insert(id, Row { uid, owners });
    }

    fn unlink(&mut self, owner: &str, id: &ObjectId) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(id);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// The records about an owner: there are few, and mostly none.
    fn waiting(&self, kinds: &Kinds, view: &View<'_>, owner: &str, items: &mut BTreeSet<Item>) {
        for kind in kinds.iter() {
            for (key, record) in view
                .deletions(kind.plural)
                .into_iter()
                .flat_map(|t| t.iter())
            {
                if record.value.uid == owner {
                    items.insert(Item::Record(ObjectId::new(kind.plural, key.clone())));
                }
            }
        }
    }

    fn namespace(
        &mut self,
        kinds: &Kinds,
        view: &View<'_>,
        key: &ObjectKey,
        was: bool,
        is: bool,
        items: &mut BTreeSet<Item>,
    ) {
        if is {
            self.deleted_namespaces.remove(&key.name);
        } else if was {
            self.deleted_namespaces.insert(key.name.clone());
            for kind in kinds.iter() {
                let keys = kind.keys_in(view, &key.name).into_iter();
                items.extend(keys.map(|k| Item::Object(ObjectId::new(kind.plural, k))));
            }
        }
    }
}

/// Whether a namespace exists, whatever its document looks like.
pub fn exists(view: &View<'_>, namespace: &str) -> bool {
    view.desired::<Namespace>()
        .contains(&ObjectKey::cluster(namespace))
}
