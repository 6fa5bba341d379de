//! Who depends on whom, by uid, kept from the cache's changes. It only finds what to look at: what is decided is
//! decided on the view.
//!
//! It is kept small, since it is about every object that there is: texts are in memory once, everything else is numbers,
//! and who neither has owners nor is one takes no room.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::core::Namespace;
use setpoint_apis::{Kind, ObjectKey, OwnerReference, Timestamp};
use setpoint_runtime::{StateKey, View};

use crate::homes::Homes;
use crate::kinds::{KindEntry, Kinds, Object};
use crate::plan::ObjectId;
use crate::slots::{Named, Slot, Slots};

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// An object: its owners, its namespace.
    Object(ObjectId),
    /// A status: its object.
    Status(ObjectId),
    /// A deletion record.
    Record(ObjectId),
}

impl Item {
    /// The object that it is about.
    pub(crate) fn id(&self) -> &ObjectId {
        match self {
            Self::Object(id) | Self::Status(id) | Self::Record(id) => id,
        }
    }
}

/// What is there, and when.
pub(crate) struct Scene<'a> {
    pub(crate) kinds: &'a Kinds,
    pub(crate) view: &'a View<'a>,
    pub(crate) now: Timestamp,
}

/// An object that has owners, or is one.
#[derive(Debug)]
struct Row {
    id: ObjectId,
    /// Its uid; there only when somebody names it as an owner, or did so when the object was last looked at. While the
    /// object has never parsed: the uid that is named.
    uid: Option<Arc<str>>,
    owners: Links,
}

impl Named for Row {
    type Name = ObjectId;

    fn name(&self) -> &ObjectId {
        &self.id
    }
}

/// A uid that is named as an owner's, whether there is such an object or not.
#[derive(Debug)]
struct Owner {
    uid: Arc<str>,
    dependents: u32,
    /// How many of these it waits for in the foreground (`blockOwnerDeletion`).
    blocking: u32,
}

impl Named for Owner {
    type Name = str;

    fn name(&self) -> &str {
        &self.uid
    }
}

#[derive(Clone, Copy, Debug)]
struct Link {
    owner: Slot,
    blocks: bool,
}

/// The owners of an object, each once; nearly always one.
#[derive(Debug)]
enum Links {
    One(Link),
    Many(Box<[Link]>),
}

impl Default for Links {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl Links {
    fn as_slice(&self) -> &[Link] {
        match self {
            Self::One(link) => std::slice::from_ref(link),
            Self::Many(links) => links,
        }
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        let links: Vec<Link> = links.into_iter().collect();
        match links[..] {
            [link] => Self::One(link),
            _ => Self::Many(links.into_boxed_slice()),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    rows: Slots<Row>,
    owners: Slots<Owner>,
    /// Of `owners`, then of `rows`: who depends on an owner.
    dependents: BTreeSet<(Slot, Slot)>,
    records: Records,
    pub(crate) homes: Homes,
}

impl Index {
    /// Takes a change in, and names what is to be looked at because of it.
    pub(crate) fn change(
        &mut self,
        scene: &Scene<'_>,
        change: &StateKey,
        items: &mut BTreeSet<Item>,
    ) {
        match change {
            StateKey::Desired(plural, key) => {
                self.object(scene, ObjectId::new(plural, key.clone()), items);
            }
            StateKey::Actual(plural, key) => {
                items.insert(Item::Status(ObjectId::new(plural, key.clone())));
            }
            StateKey::Deletion(plural, key) => {
                if let Some(kind) = scene.kinds.by_plural(plural) {
                    self.record(scene, ObjectId::new(kind.plural, key.clone()), items);
                }
            }
            _ => {}
        }
    }

    /// Takes everything in, and names everything. What is here and is gone from the view goes from here too: no change
    /// need ever name it, since a subscription begins with "everything" and may do so after a first look at everything.
    pub(crate) fn all(&mut self, scene: &Scene<'_>, items: &mut BTreeSet<Item>) {
        let Scene { kinds, view, .. } = scene;
        let is_there = |id: &ObjectId| {
            let kind = kinds.by_plural(id.plural);
            kind.is_some_and(|kind| kind.exists(view, &id.key))
        };
        let rows = self.rows.iter().map(|row| &row.id);
        let known = rows.chain(self.homes.waiting());
        let mut gone: Vec<ObjectId> = known.filter(|id| !is_there(id)).cloned().collect();
        let namespaces = self.homes.there().map(|name| {
            let key = ObjectKey::cluster(name.clone());
            ObjectId::new(Namespace::PLURAL, key)
        });
        gone.extend(namespaces.filter(|id| !is_there(id)));
        for id in gone {
            self.object(scene, id, items);
        }
        self.records = Records::default();
        for kind in kinds.iter() {
            for key in kind.keys(view) {
                self.object(scene, ObjectId::new(kind.plural, key), items);
            }
            for key in kind.status_keys(view) {
                items.insert(Item::Status(ObjectId::new(kind.plural, key)));
            }
            for (key, record) in view
                .deletions(kind.plural)
                .into_iter()
                .flat_map(|t| t.entries())
            {
                let id = ObjectId::new(kind.plural, key.clone());
                let uid = record.valid().map(|r| Arc::from(r.value.uid.as_str()));
                self.records.set(&id, uid);
                items.insert(Item::Record(id));
            }
        }
    }

    /// The objects that name this uid as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> impl Iterator<Item = &ObjectId> {
        let slot = self.owners.find(uid).into_iter();
        let rows = slot.flat_map(|slot| self.rows_of(slot));
        rows.filter_map(|row| Some(&self.rows.get(row)?.id))
    }

    /// How many these are.
    pub(crate) fn count(&self, uid: &str) -> usize {
        self.owner(uid).map_or(0, |o| o.dependents as usize)
    }

    /// How many of these this uid waits for when it is deleted in the foreground.
    pub(crate) fn blocking(&self, uid: &str) -> usize {
        self.owner(uid).map_or(0, |o| o.blocking as usize)
    }

    /// Whether `owner` depends on `uid`, directly or not: then whoever depends on `owner` and is `uid` is in a circle.
    pub(crate) fn depends_on(&self, owner: &ObjectId, uid: &str) -> bool {
        let Some(owner) = self.rows.find(owner) else {
            return false;
        };
        if self.owners_of(owner).is_empty() {
            return false;
        }
        let mut open: Vec<Slot> = self.owners.find(uid).into_iter().collect();
        let mut seen: FxHashSet<Slot> = open.iter().copied().collect();
        while let Some(slot) = open.pop() {
            for dependent in self.rows_of(slot) {
                if dependent == owner {
                    return true;
                }
                let row = self.rows.get(dependent);
                let uid = row.and_then(|row| row.uid.as_deref());
                let next = uid.and_then(|uid| self.owners.find(uid));
                open.extend(next.filter(|next| seen.insert(*next)));
            }
        }
        false
    }

    fn owner(&self, uid: &str) -> Option<&Owner> {
        self.owners.get(self.owners.find(uid)?)
    }

    fn rows_of(&self, owner: Slot) -> impl Iterator<Item = Slot> {
        let range = (owner, Slot::FIRST)..=(owner, Slot::LAST);
        self.dependents.range(range).map(|(_, row)| *row)
    }

    fn owners_of(&self, row: Slot) -> &[Link] {
        self.rows.get(row).map_or(&[], |row| row.owners.as_slice())
    }

    fn object(&mut self, scene: &Scene<'_>, id: ObjectId, items: &mut BTreeSet<Item>) {
        let Some(kind) = scene.kinds.by_plural(id.plural) else {
            return;
        };
        let object = kind.object(scene.view, &id.key);
        if id.plural == Namespace::PLURAL {
            self.namespace(scene, &id.key.name, object.is_some(), items);
        }
        self.identify(&id, object.as_ref(), items);
        let owners = object.as_ref().map_or(&[][..], |o| &o.owners);
        self.relink(scene, kind, &id, owners, items);
        if object.is_none() {
            self.homes.forget(&id);
            items.insert(Item::Status(id.clone()));
            items.insert(Item::Record(id));
        } else if !owners.is_empty() || kind.namespaced && !exists(scene.view, &id.key.namespace) {
            items.insert(Item::Object(id));
        }
    }

    /// Who an object is by now. When it is another than before, or is gone, those are named that depend on who it was.
    fn identify(&mut self, id: &ObjectId, object: Option<&Object>, items: &mut BTreeSet<Item>) {
        let former = self.rows.find(id).and_then(|row| self.rows.get(row));
        let former = former.and_then(|row| row.uid.clone());
        // What has never parsed may be who it is taken for.
        let uid = object.and_then(|o| o.uid.as_deref().or(former.as_deref()));
        if let Some(former) = former.as_deref().filter(|former| Some(*former) != uid) {
            items.extend(self.dependents(former).cloned().map(Item::Object));
        }
        let named = uid.and_then(|uid| self.owner(uid)).map(|o| o.uid.clone());
        self.set_uid(id, named);
    }

    fn set_uid(&mut self, id: &ObjectId, uid: Option<Arc<str>>) {
        let row = match uid {
            Some(_) => Some(self.row(id)),
            None => self.rows.find(id),
        };
        let Some(row) = row else {
            return;
        };
        if let Some(row) = self.rows.get_mut(row) {
            row.uid = uid;
        }
        self.drop_if_empty(row);
    }

    fn row(&mut self, id: &ObjectId) -> Slot {
        self.rows.find_or_insert(id, || Row {
            id: id.clone(),
            uid: None,
            owners: Links::default(),
        })
    }

    fn drop_if_empty(&mut self, row: Slot) {
        let empty = |row: &Row| row.uid.is_none() && row.owners.as_slice().is_empty();
        if self.rows.get(row).is_some_and(empty) {
            self.rows.remove(row);
        }
    }

    /// Has an object depend on those whom it names, and on nobody else.
    fn relink(
        &mut self,
        scene: &Scene<'_>,
        kind: &KindEntry,
        id: &ObjectId,
        references: &[OwnerReference],
        items: &mut BTreeSet<Item>,
    ) {
        let wanted = each_once(references);
        let old = self.rows.find(id);
        let linked = old.map_or(&[][..], |row| self.owners_of(row));
        let is_so = |(link, (reference, blocks)): (&Link, &(&OwnerReference, bool))| {
            let owner = self.owners.get(link.owner);
            owner.is_some_and(|o| *o.uid == *reference.uid) && link.blocks == *blocks
        };
        if linked.len() == wanted.len() && linked.iter().zip(&wanted).all(is_so) {
            return;
        }
        let row = self.row(id);
        let linked = self.rows.get_mut(row).map(|row| mem::take(&mut row.owners));
        for link in linked.unwrap_or_default().as_slice() {
            self.unlink(row, *link, items);
        }
        let links: Links = wanted
            .into_iter()
            .map(|(reference, blocks)| {
                let owner = self.link(row, &reference.uid, blocks);
                self.meet(scene, kind, id, reference);
                Link { owner, blocks }
            })
            .collect();
        if let Some(row) = self.rows.get_mut(row) {
            row.owners = links;
        }
        self.drop_if_empty(row);
    }

    fn link(&mut self, row: Slot, uid: &str, blocks: bool) -> Slot {
        let slot = self.owners.find_or_insert(uid, || Owner {
            uid: Arc::from(uid),
            dependents: 0,
            blocking: 0,
        });
        if self.dependents.insert((slot, row))
            && let Some(owner) = self.owners.get_mut(slot)
        {
            owner.dependents += 1;
            owner.blocking += u32::from(blocks);
        }
        slot
    }

    fn unlink(&mut self, row: Slot, link: Link, items: &mut BTreeSet<Item>) {
        if !self.dependents.remove(&(link.owner, row)) {
            return;
        }
        let Some(owner) = self.owners.get_mut(link.owner) else {
            return;
        };
        owner.dependents -= 1;
        owner.blocking -= u32::from(link.blocks);
        // Somebody may wait for its last dependent to go.
        let waiting = self.records.about(&owner.uid);
        items.extend(waiting.cloned().map(Item::Record));
        if owner.dependents == 0 {
            self.owners.remove(link.owner);
        }
    }

    /// Keeps the uid of an owner that is there, so that its dependents are found when it goes.
    fn meet(
        &mut self,
        scene: &Scene<'_>,
        kind: &KindEntry,
        id: &ObjectId,
        reference: &OwnerReference,
    ) {
        let Some((owner_kind, owner)) = scene.kinds.owner(kind, &id.key, reference) else {
            return;
        };
        let row = self.rows.find(&owner).and_then(|row| self.rows.get(row));
        let known = row.and_then(|row| row.uid.as_deref());
        if known == Some(&reference.uid) {
            return;
        }
        let Some(found) = owner_kind.object(scene.view, &owner.key) else {
            return;
        };
        if found.uid.is_none_or(|uid| uid == reference.uid) {
            let uid = self.owner(&reference.uid).map(|o| o.uid.clone());
            self.set_uid(&owner, uid);
        }
    }

    /// A deletion record has come, changed or gone: what it is about, and those that depend on that.
    fn record(&mut self, scene: &Scene<'_>, id: ObjectId, items: &mut BTreeSet<Item>) {
        let record = scene.view.deletions(id.plural);
        let record = record.and_then(|records| records.get(&id.key));
        let now = record.map(|r| Arc::from(r.value.uid.as_str()));
        let before = self.records.set(&id, now.clone());
        let row = self.rows.find(&id).and_then(|row| self.rows.get(row));
        let object = row.and_then(|row| row.uid.clone());
        for uid in [before, now, object].into_iter().flatten() {
            items.extend(self.dependents(&uid).cloned().map(Item::Object));
        }
        items.insert(Item::Record(id));
    }

    fn namespace(
        &mut self,
        scene: &Scene<'_>,
        name: &Arc<str>,
        is: bool,
        items: &mut BTreeSet<Item>,
    ) {
        if is {
            self.homes.came(name);
        } else if self.homes.went(name, scene.now) {
            for kind in scene.kinds.iter() {
                let keys = kind.keys_in(scene.view, name).into_iter();
                items.extend(keys.map(|k| Item::Object(ObjectId::new(kind.plural, k))));
            }
        }
    }
}

/// The references, one for each uid, and whether any of that uid blocks.
fn each_once(references: &[OwnerReference]) -> Vec<(&OwnerReference, bool)> {
    let mut once: Vec<(&OwnerReference, bool)> = Vec::with_capacity(references.len());
    for reference in references {
        let blocks = reference.block_owner_deletion == Some(true);
        match once.iter_mut().find(|(r, _)| r.uid == reference.uid) {
            Some((_, any)) => *any |= blocks,
            None => once.push((reference, blocks)),
        }
    }
    once
}

/// Which deletion records there are, by the uid that each is about.
#[derive(Debug, Default)]
struct Records {
    uids: FxHashMap<ObjectId, Arc<str>>,
    by_uid: FxHashMap<Arc<str>, Vec<ObjectId>>,
}

impl Records {
    /// The record of an object is about this uid from now on, or gone; returns the uid that it was about.
    fn set(&mut self, id: &ObjectId, uid: Option<Arc<str>>) -> Option<Arc<str>> {
        let before = match &uid {
            Some(uid) => self.uids.insert(id.clone(), uid.clone()),
            None => self.uids.remove(id),
        };
        if before == uid {
            return before;
        }
        if let Some(before) = &before
            && let Some(ids) = self.by_uid.get_mut(before)
        {
            ids.retain(|other| other != id);
            if ids.is_empty() {
                self.by_uid.remove(before);
            }
        }
        if let Some(uid) = uid {
            self.by_uid.entry(uid).or_default().push(id.clone());
        }
        before
    }

    /// The objects whose records are about a uid: one, unless somebody errs.
    fn about(&self, uid: &str) -> impl Iterator<Item = &ObjectId> {
        self.by_uid.get(uid).into_iter().flatten()
    }
}

/// Whether a namespace exists, whatever its document looks like.
pub(crate) fn exists(view: &View<'_>, namespace: &str) -> bool {
    view.desired::<Namespace>()
        .contains(&ObjectKey::cluster(namespace))
}

#[cfg(test)]
mod tests;
