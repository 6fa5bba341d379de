//! From a view of the cache to the plain facts that are decided on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::{ObjectKey, OwnerReference, Timestamp};
use setpoint_runtime::View;

use crate::decide::{FOREGROUND, ORPHAN};
use crate::index::{Index, Item, exists};
use crate::kinds::{KindEntry, Kinds, Object};
use crate::plan::{Candidate, Gone, Home, ObjectId, Owner, Record, Snapshot};

/// The facts about `items`, at the revision of `view`.
pub(crate) fn observe(
    kinds: &Kinds,
    index: &Index,
    never_seen: &mut BTreeMap<Arc<str>, Timestamp>,
    view: &View<'_>,
    items: &BTreeSet<Item>,
    now: Timestamp,
) -> Snapshot {
    let mut snapshot = Snapshot::default();
    never_seen.retain(|namespace, _| !exists(view, namespace));
    for item in items {
        match item {
            Item::Object(id) => {
                let Some(kind) = kinds.by_plural(id.plural) else {
                    continue;
                };
                let Some(object) = kind.object(view, &id.key) else {
                    continue;
                };
                let owners = owners(kinds, view, kind, &id.key, &object);
                let uid = object.uid.as_deref().unwrap_or_default();
                let circular = owners.iter().any(|(_, owner)| match owner {
                    Owner::Leaving(owner, _) => index.depends_on(owner, uid),
                    _ => false,
                });
                snapshot.candidates.push(Candidate {
                    id: id.clone(),
                    mod_revision: object.mod_revision,
                    valid: object.valid,
                    home: home(index, never_seen, view, kind, &id.key, now),
                    owners,
                    dependents: index.dependents(uid).count(),
                    circular,
                    recorded: view
                        .deletions(id.plural)
                        .is_some_and(|t| t.contains(&id.key)),
                });
            }
            Item::Status(id) => {
                let Some(kind) = kinds.by_plural(id.plural) else {
                    continue;
                };
                if kind.has_status(view, &id.key) && kind.object(view, &id.key).is_none() {
                    snapshot.statuses.push(id.clone());
                }
            }
            Item::Record(id) => snapshot.records.extend(record(kinds, index, view, id)),
        }
    }
    snapshot
}

fn home(
    index: &Index,
    never_seen: &mut BTreeMap<Arc<str>, Timestamp>,
    view: &View<'_>,
    kind: &KindEntry,
    key: &ObjectKey,
    now: Timestamp,
) -> Home {
    if !kind.namespaced || exists(view, &key.namespace) {
        Home::Exists
    } else if index.was_deleted(&key.namespace) {
        Home::Deleted
    } else {
        Home::NeverSeen(*never_seen.entry(key.namespace.clone()).or_insert(now))
    }
}

fn owners(
    kinds: &Kinds,
    view: &View<'_>,
    kind: &KindEntry,
    key: &ObjectKey,
    object: &Object,
) -> Vec<(OwnerReference, Owner)> {
    let state = |reference: &OwnerReference| owner(kinds, view, kind, key, reference);
    object
        .owners
        .iter()
        .map(|r| (r.clone(), state(r)))
        .collect()
}

fn owner(
    kinds: &Kinds,
    view: &View<'_>,
    kind: &KindEntry,
    key: &ObjectKey,
    reference: &OwnerReference,
) -> Owner {
    let Some(owner_kind) = kinds.of_reference(reference) else {
        return Owner::Unknown;
    };
    let owner_key = match (owner_kind.namespaced, kind.namespaced) {
        (false, _) => ObjectKey::cluster(reference.name.as_str()),
        (true, true) => ObjectKey::namespaced(key.namespace.clone(), reference.name.as_str()),
        // In which namespace? Nobody can say that it is gone.
        (true, false) => return Owner::Unknown,
    };
    let id = ObjectId::new(owner_kind.plural, owner_key);
    let record = view.deletions(id.plural).and_then(|t| t.entry(&id.key));
    let policy = match record {
        // What a record that does not parse says nobody knows: whatever it is about stays.
        Some(entry) if entry.valid().is_none() => return Owner::Present,
        Some(entry) => entry
            .valid()
            .filter(|r| r.value.uid == reference.uid)
            .map(|r| r.value.propagation_policy.clone()),
        None => None,
    };
    let gone = match owner_kind.object(view, &id.key) {
        None => Gone::Absent(id),
        Some(owner) if !owner.valid => return Owner::Present,
        Some(owner) if owner.uid.as_deref() == Some(&reference.uid) => {
            return match policy.as_deref() {
                Some(FOREGROUND) => Owner::Leaving(id, owner.mod_revision),
                _ => Owner::Present,
            };
        }
        Some(owner) => Gone::Replaced(id, owner.mod_revision),
    };
    match policy.as_deref() {
        Some(ORPHAN) => Owner::Orphaned(gone),
        _ => Owner::Gone(gone),
    }
}

fn record(kinds: &Kinds, index: &Index, view: &View<'_>, id: &ObjectId) -> Option<Record> {
    let stored = view.deletions(id.plural)?.get(&id.key)?;
    let object = kinds.by_plural(id.plural)?.object(view, &id.key);
    // While the object does not parse its uid is not certain: the record waits.
    if object.as_ref().is_some_and(|o| !o.valid) {
        return None;
    }
    let same = object.filter(|o| o.uid.as_deref() == Some(&stored.value.uid));
    Some(Record {
        id: id.clone(),
        mod_revision: stored.mod_revision,
        policy: stored.value.propagation_policy.clone(),
        object: same.map(|o| o.mod_revision),
        dependents: index.dependents(&stored.value.uid).count(),
        blocking: index.blocking(&stored.value.uid),
    })
}
