//! From a view of the cache to the plain facts that are decided on.

use setpoint_apis::records::Deletion;
use setpoint_apis::{ObjectKey, OwnerReference};

use crate::index::{Index, Item, Scene, exists};
use crate::kinds::{KindEntry, Object};
use crate::plan::{Candidate, Gone, Home, Leaving, ObjectId, Owner, Record, Snapshot};

/// The facts about `items`.
pub(crate) fn observe<'a>(
    scene: &Scene<'_>,
    index: &mut Index,
    items: impl IntoIterator<Item = &'a Item>,
) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for item in items {
        match item {
            Item::Object(id) => snapshot.candidates.extend(candidate(scene, index, id)),
            Item::Status(id) => {
                let kind = scene.kinds.by_plural(id.plural);
                let left = |kind: &KindEntry| {
                    kind.has_status(scene.view, &id.key) && !kind.exists(scene.view, &id.key)
                };
                if kind.is_some_and(left) {
                    snapshot.statuses.push(id.clone());
                }
            }
            Item::Record(id) => snapshot.records.extend(record(scene, index, id)),
        }
    }
    snapshot
}

fn candidate(scene: &Scene<'_>, index: &mut Index, id: &ObjectId) -> Option<Candidate> {
    let kind = scene.kinds.by_plural(id.plural)?;
    let object = kind.object(scene.view, &id.key)?;
    let owners = owners(scene, kind, &id.key, &object);
    let uid = object.uid.as_deref().unwrap_or_default();
    let circular = owners.iter().any(|(_, owner)| match owner {
        Owner::Leaving(owner) => index.depends_on(&owner.id, uid),
        _ => false,
    });
    let records = scene.view.deletions(id.plural);
    Some(Candidate {
        id: id.clone(),
        mod_revision: object.mod_revision,
        valid: object.valid,
        home: home(scene, index, kind, id, &object),
        owners,
        dependents: index.count(uid),
        circular,
        recorded: records.is_some_and(|t| t.contains(&id.key)),
        uid: object.uid,
    })
}

fn home(
    scene: &Scene<'_>,
    index: &mut Index,
    kind: &KindEntry,
    id: &ObjectId,
    object: &Object,
) -> Home {
    if !kind.namespaced || exists(scene.view, &id.key.namespace) {
        Home::Exists
    } else {
        index.homes.missing(id, object.created, scene.now)
    }
}

fn owners(
    scene: &Scene<'_>,
    kind: &KindEntry,
    key: &ObjectKey,
    object: &Object,
) -> Vec<(OwnerReference, Owner)> {
    let state = |reference: &OwnerReference| owner(scene, kind, key, reference);
    object
        .owners
        .iter()
        .map(|r| (r.clone(), state(r)))
        .collect()
}

fn owner(
    scene: &Scene<'_>,
    kind: &KindEntry,
    key: &ObjectKey,
    reference: &OwnerReference,
) -> Owner {
    let Some((owner_kind, id)) = scene.kinds.owner(kind, key, reference) else {
        return Owner::Unknown;
    };
    let records = scene.view.deletions(id.plural);
    let record = records.and_then(|t| t.entry(&id.key));
    let record = match record.map(|entry| entry.valid()) {
        // What a record that does not parse says nobody knows: whatever it is about stays.
        Some(None) => return Owner::Present,
        Some(Some(record)) => Some(record).filter(|r| r.value.uid == reference.uid),
        None => None,
    };
    let said = |policy: &str| record.filter(|r| r.value.propagation_policy == policy);
    let gone = match owner_kind.object(scene.view, &id.key) {
        None => Gone::Absent(id),
        Some(owner) if !owner.valid => return Owner::Present,
        Some(owner) if owner.uid.as_deref() == Some(&reference.uid) => {
            return match said(Deletion::FOREGROUND) {
                Some(record) => Owner::Leaving(Leaving {
                    id,
                    at: owner.mod_revision,
                    record: record.mod_revision,
                }),
                None => Owner::Present,
            };
        }
        Some(owner) => Gone::Replaced(id, owner.mod_revision),
    };
    match said(Deletion::ORPHAN) {
        Some(record) => Owner::Orphaned(gone, record.mod_revision),
        None => Owner::Gone(gone),
    }
}

fn record(scene: &Scene<'_>, index: &Index, id: &ObjectId) -> Option<Record> {
    let stored = scene.view.deletions(id.plural)?.get(&id.key)?;
    let kind = scene.kinds.by_plural(id.plural)?;
    let object = kind.object(scene.view, &id.key);
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
        dependents: index.count(&stored.value.uid),
        blocking: index.blocking(&stored.value.uid),
    })
}
