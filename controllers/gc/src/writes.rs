//! Handing plans to the store.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use setpoint_apis::core::Namespace;
use setpoint_apis::records::Deletion;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_runtime::{Leader, Shard, Write, WriteOutcome};
use setpoint_store::{Compare, Put, Revision, StoreError, TxnOp};

use crate::index::Item;
use crate::kinds::Kinds;
use crate::plan::{ObjectId, Plan, Reason, RecordStep, Release, Removal};
use crate::seats::Seats;

/// Documents that are read at a time to take owners from them.
const READS: usize = 32;

/// What became of a plan.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) committed: usize,
    /// What a guard did not hold for, and the newest revision at which one did not.
    pub(crate) conflicts: Vec<Item>,
    pub(crate) newest_conflict: Option<Revision>,
    /// What the store refused.
    pub(crate) refused: Vec<Item>,
    pub(crate) first_error: Option<StoreError>,
    /// The leaderships that have ended, or of which outcomes are unknown.
    pub(crate) fenced: BTreeSet<Option<Shard>>,
}

/// The writes of a plan, each with what to look at again when it does not succeed. It reads through `leader`.
pub(crate) async fn writes(kinds: &Kinds, leader: &Leader, plan: &Plan) -> Vec<(Item, Write)> {
    let keyspace = leader.keyspace();
    let mut writes: Vec<(Item, Write)> = Vec::new();
    writes.extend(
        plan.delete
            .iter()
            .map(|r| (Item::Object(r.id.clone()), removal(keyspace, r))),
    );
    writes.extend(
        plan.statuses
            .iter()
            .map(|id| (Item::Status(id.clone()), status(keyspace, id))),
    );
    writes.extend(plan.records.iter().map(|step| record(keyspace, step)));
    // By value: a closure over references of any lifetime would make the whole controller's future one that cannot be
    // spawned (rust-lang/rust#102211).
    let releases = stream::iter(plan.release.clone())
        .map(|r| async move { (Item::Object(r.id.clone()), release(kinds, leader, &r).await) })
        .buffered(READS);
    let mut releases = std::pin::pin!(releases);
    while let Some((item, write)) = releases.next().await {
        writes.extend(write.map(|w| (item, w)));
    }
    writes
}

/// Commits each write under the leadership that its object is in, all at a time.
pub(crate) async fn commit(seats: &Seats, writes: Vec<(Item, Write)>) -> Outcome {
    let mut by_shard: BTreeMap<Option<Shard>, (Leader, Vec<Item>, Vec<Write>)> = BTreeMap::new();
    for (item, write) in writes {
        // A pass looks at nothing that is another process's.
        let Some(leader) = seats.of(item.id()) else {
            continue;
        };
        let (_, items, writes) = by_shard
            .entry(leader.shard())
            .or_insert_with(|| (leader.clone(), Vec::new(), Vec::new()));
        items.push(item);
        writes.push(write);
    }
    let commits = by_shard
        .into_iter()
        .map(|(shard, (leader, items, writes))| async move {
            (shard, items, leader.commit(writes).await)
        });
    let mut outcome = Outcome::default();
    for (shard, items, results) in join_all(commits).await {
        let Ok(results) = results else {
            outcome.fenced.insert(shard);
            continue;
        };
        for (item, result) in items.into_iter().zip(results) {
            match result {
                WriteOutcome::Committed(_) => outcome.committed += 1,
                WriteOutcome::Conflict(at) => {
                    outcome.conflicts.push(item);
                    outcome.newest_conflict = outcome.newest_conflict.max(Some(at));
                }
                WriteOutcome::Failed(error) => {
                    outcome.refused.push(item);
                    outcome.first_error.get_or_insert(error);
                }
            }
        }
    }
    outcome
}

fn desired(keyspace: &Keyspace, id: &ObjectId) -> String {
    keyspace.build(&Key::Desired(id.plural, id.key.clone()))
}

fn deletion(keyspace: &Keyspace, id: &ObjectId) -> String {
    keyspace.build(&Key::Deletion(id.plural, id.key.clone()))
}

/// What holds in the store while an object is as it was seen, and so is all that is decided about it by.
fn guards(keyspace: &Keyspace, id: &ObjectId, at: i64, because: &[Reason]) -> Vec<Compare> {
    let as_seen = Compare::ModRevision(desired(keyspace, id), at);
    let because = because.iter().map(|reason| match reason {
        Reason::Absent(owner) => Compare::absent(desired(keyspace, owner)),
        Reason::Replaced(owner, at) | Reason::Waits(owner, at) => {
            Compare::ModRevision(desired(keyspace, owner), *at)
        }
        Reason::Record(owner, at) => Compare::ModRevision(deletion(keyspace, owner), *at),
        Reason::Homeless => {
            let namespace = ObjectKey::cluster(id.key.namespace.clone());
            let namespace = ObjectId::new(Namespace::PLURAL, namespace);
            Compare::absent(desired(keyspace, &namespace))
        }
    });
    std::iter::once(as_seen).chain(because).collect()
}

fn removal(keyspace: &Keyspace, r: &Removal) -> Write {
    Write {
        guards: guards(keyspace, &r.id, r.mod_revision, &r.because),
        ops: vec![TxnOp::Delete(desired(keyspace, &r.id))],
        context: format!("collect {}", r.id),
    }
}

fn status(keyspace: &Keyspace, id: &ObjectId) -> Write {
    let key = keyspace.build(&Key::Actual(id.plural, id.key.clone()));
    let object = desired(keyspace, id);
    Write {
        // A transaction that deletes nothing makes no revision of its own: it is committed at that of the whole store,
        // which the cache reaches only when something else is written.
        guards: vec![Compare::absent(object), Compare::Exists(key.clone())],
        ops: vec![TxnOp::Delete(key)],
        context: format!("collect the status of {id}"),
    }
}

/// The write of a step, with what to look at again when it does not succeed.
fn record(keyspace: &Keyspace, step: &RecordStep) -> (Item, Write) {
    let seen = |id: &ObjectId, at: i64| Compare::ModRevision(deletion(keyspace, id), at);
    let (item, guards, ops) = match step {
        RecordStep::Remove { id, record } => (
            Item::Record(id.clone()),
            vec![seen(id, *record)],
            vec![TxnOp::Delete(deletion(keyspace, id))],
        ),
        RecordStep::Finish { id, object, record } => {
            let mut guards = guards(keyspace, id, *object, &[]);
            guards.push(seen(id, *record));
            let object = TxnOp::Delete(desired(keyspace, id));
            let record = TxnOp::Delete(deletion(keyspace, id));
            (Item::Record(id.clone()), guards, vec![object, record])
        }
        RecordStep::DeleteObject { id, object, record } => {
            let mut guards = guards(keyspace, id, *object, &[]);
            guards.push(seen(id, *record));
            let object = TxnOp::Delete(desired(keyspace, id));
            (Item::Record(id.clone()), guards, vec![object])
        }
        RecordStep::Pass {
            id,
            uid,
            object,
            because,
        } => {
            let key = deletion(keyspace, id);
            let mut guards = guards(keyspace, id, *object, because);
            guards.push(Compare::absent(key.clone()));
            let record = Deletion {
                propagation_policy: Deletion::FOREGROUND.into(),
                uid: uid.clone(),
            };
            let put = TxnOp::Put(Put {
                key,
                value: document::encode(&record).into(),
                lease: None,
            });
            (Item::Object(id.clone()), guards, vec![put])
        }
    };
    let context = format!("carry out the deletion record of {}", item.id());
    let write = Write {
        guards,
        ops,
        context,
    };
    (item, write)
}

/// `None` when the document is another by now, which brings a pass of its own.
async fn release(kinds: &Kinds, leader: &Leader, r: &Release) -> Option<Write> {
    let key = desired(leader.keyspace(), &r.id);
    let found = match leader.store().get(&key).await {
        Ok((found, _)) => found?,
        // The guard will not hold, and the object is looked at again.
        Err(_) => {
            let guards = vec![Compare::absent(key.clone()), Compare::Exists(key)];
            return Some(Write {
                guards,
                ops: Vec::new(),
                context: format!("release {}", r.id),
            });
        }
    };
    if found.mod_revision != r.mod_revision {
        return None;
    }
    let text = kinds
        .by_plural(r.id.plural)?
        .reown(&r.id.key, &found.value, &r.keep)
        .ok()?;
    Some(Write {
        guards: guards(leader.keyspace(), &r.id, r.mod_revision, &r.because),
        ops: vec![TxnOp::Put(Put {
            key,
            value: text.into(),
            lease: None,
        })],
        context: format!("release {}", r.id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_deleted_only_while_it_is_there_and_its_object_is_not() {
        let id = ObjectId::new("deployments", ObjectKey::namespaced("shop", "web"));
        let keyspace = Keyspace::default();
        let desired = keyspace.build(&Key::Desired(id.plural, id.key.clone()));
        let actual = keyspace.build(&Key::Actual(id.plural, id.key.clone()));
        let write = status(&keyspace, &id);
        assert_eq!(
            write.guards,
            [Compare::absent(desired), Compare::Exists(actual.clone()),]
        );
        let [TxnOp::Delete(key)] = &write.ops[..] else {
            panic!("{:?}", write.ops)
        };
        assert_eq!(*key, actual);
    }

    #[test]
    fn a_record_is_carried_out_only_as_it_was_seen() {
        let id = ObjectId::new("deployments", ObjectKey::namespaced("shop", "web"));
        let keyspace = Keyspace::default();
        let object = Compare::ModRevision(desired(&keyspace, &id), 5);
        let seen = Compare::ModRevision(deletion(&keyspace, &id), 9);
        let of = |step: RecordStep| record(&keyspace, &step).1.guards;
        let remove = RecordStep::Remove {
            id: id.clone(),
            record: 9,
        };
        assert_eq!(of(remove), std::slice::from_ref(&seen));
        let finish = RecordStep::Finish {
            id: id.clone(),
            object: 5,
            record: 9,
        };
        assert_eq!(of(finish), [object.clone(), seen.clone()]);
        let delete = RecordStep::DeleteObject {
            id,
            object: 5,
            record: 9,
        };
        assert_eq!(of(delete), [object, seen]);
    }

    #[test]
    fn what_happens_because_an_owner_leaves_happens_only_while_it_does() {
        let keyspace = Keyspace::default();
        let id = |plural, name| ObjectId::new(plural, ObjectKey::namespaced("shop", name));
        let (set, owner) = (id("replicasets", "web-1"), id("deployments", "web"));
        let because = vec![
            Reason::Waits(owner.clone(), 5),
            Reason::Record(owner.clone(), 9),
        ];
        let as_seen = [
            Compare::ModRevision(desired(&keyspace, &set), 7),
            Compare::ModRevision(desired(&keyspace, &owner), 5),
            Compare::ModRevision(deletion(&keyspace, &owner), 9),
        ];
        let removal = Removal {
            id: set.clone(),
            mod_revision: 7,
            because: because.clone(),
        };
        assert_eq!(super::removal(&keyspace, &removal).guards, as_seen);
        let pass = RecordStep::Pass {
            id: set.clone(),
            uid: "uid-web-1".into(),
            object: 7,
            because,
        };
        let (item, write) = record(&keyspace, &pass);
        assert_eq!(item, Item::Object(set.clone()));
        let mut guards = as_seen.to_vec();
        guards.push(Compare::absent(deletion(&keyspace, &set)));
        assert_eq!(write.guards, guards);
        let [TxnOp::Put(put)] = &write.ops[..] else {
            panic!("{:?}", write.ops)
        };
        let written: Deletion = document::decode_value(&put.value).unwrap();
        assert_eq!(written.uid, "uid-web-1");
        assert_eq!(written.propagation_policy, "Foreground");
    }
}
