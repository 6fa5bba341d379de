//! Handing plans to the store.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;
use setpoint_apis::core::Namespace;
use setpoint_apis::records::Deletion;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_runtime::{Leader, Shard, Write, WriteOutcome};
use setpoint_store::{Compare, Put, StoreError, TxnOp};

use crate::decide::FOREGROUND;
use crate::index::Item;
use crate::kinds::Kinds;
use crate::plan::{Gone, ObjectId, Plan, RecordStep, Release, Removal};
use crate::seats::Seats;

/// Documents that are read at a time to take owners from them.
const READS: usize = 32;

/// What became of a plan.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) committed: usize,
    /// What is to be looked at again: a guard did not hold, or the store refused.
    pub(crate) again: Vec<Item>,
    pub(crate) first_error: Option<StoreError>,
    /// The leaderships that have ended, or of which outcomes are unknown.
    pub(crate) fenced: BTreeSet<Option<Shard>>,
}

/// The writes of a plan, each with what to look at again when it does not succeed. It reads through `leader`.
pub(crate) async fn writes(kinds: &Kinds, leader: &Leader, plan: &Plan) -> Vec<(Item, Write)> {
    let mut writes: Vec<(Item, Write)> = Vec::new();
    writes.extend(
        plan.delete
            .iter()
            .map(|r| (Item::Object(r.id.clone()), removal(leader, r))),
    );
    writes.extend(
        plan.statuses
            .iter()
            .map(|id| (Item::Status(id.clone()), status(leader.keyspace(), id))),
    );
    for step in &plan.records {
        writes.extend(record(kinds, leader, step));
    }
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
                WriteOutcome::Conflict(_) => outcome.again.push(item),
                WriteOutcome::Failed(error) => {
                    outcome.again.push(item);
                    outcome.first_error.get_or_insert(error);
                }
            }
        }
    }
    outcome
}

fn desired(leader: &Leader, id: &ObjectId) -> String {
    leader
        .keyspace()
        .build(&Key::Desired(id.plural, id.key.clone()))
}

fn deletion(leader: &Leader, id: &ObjectId) -> String {
    leader
        .keyspace()
        .build(&Key::Deletion(id.plural, id.key.clone()))
}

fn removal(leader: &Leader, r: &Removal) -> Write {
    let key = desired(leader, &r.id);
    let mut guards = vec![Compare::ModRevision(key.clone(), r.mod_revision)];
    for gone in &r.gone {
        guards.push(match gone {
            Gone::Absent(owner) => Compare::absent(desired(leader, owner)),
            Gone::Replaced(owner, at) => Compare::ModRevision(desired(leader, owner), *at),
        });
    }
    for (owner, at) in &r.unchanged {
        guards.push(Compare::ModRevision(desired(leader, owner), *at));
        guards.push(Compare::Exists(deletion(leader, owner)));
    }
    if r.homeless {
        let namespace = ObjectId::new(
            Namespace::PLURAL,
            ObjectKey::cluster(r.id.key.namespace.clone()),
        );
        guards.push(Compare::absent(desired(leader, &namespace)));
    }
    Write {
        guards,
        ops: vec![TxnOp::Delete(key)],
        context: format!("collect {}", r.id),
    }
}

fn status(keyspace: &Keyspace, id: &ObjectId) -> Write {
    let key = keyspace.build(&Key::Actual(id.plural, id.key.clone()));
    let object = keyspace.build(&Key::Desired(id.plural, id.key.clone()));
    Write {
        // A transaction that deletes nothing makes no revision of its own: it is committed at that of the whole store,
        // which the cache reaches only when something else is written.
        guards: vec![Compare::absent(object), Compare::Exists(key.clone())],
        ops: vec![TxnOp::Delete(key)],
        context: format!("collect the status of {id}"),
    }
}

fn record(kinds: &Kinds, leader: &Leader, step: &RecordStep) -> Option<(Item, Write)> {
    let (id, guards, ops, item) = match step {
        RecordStep::Remove(id, at) => {
            let key = deletion(leader, id);
            (
                id,
                vec![Compare::ModRevision(key.clone(), *at)],
                vec![TxnOp::Delete(key)],
                Item::Record(id.clone()),
            )
        }
        RecordStep::Finish(id, at) => {
            let key = desired(leader, id);
            let guards = vec![Compare::ModRevision(key.clone(), *at)];
            (
                id,
                guards,
                vec![TxnOp::Delete(key), TxnOp::Delete(deletion(leader, id))],
                Item::Record(id.clone()),
            )
        }
        RecordStep::DeleteObject(id, at) => {
            let key = desired(leader, id);
            (
                id,
                vec![Compare::ModRevision(key.clone(), *at)],
                vec![TxnOp::Delete(key)],
                Item::Record(id.clone()),
            )
        }
        RecordStep::Pass(id) => {
            let object = kinds
                .by_plural(id.plural)?
                .object(&leader.cache().view(), &id.key)?;
            let record = Deletion {
                propagation_policy: FOREGROUND.into(),
                uid: object.uid?,
            };
            let key = deletion(leader, id);
            let guards = vec![
                Compare::absent(key.clone()),
                Compare::ModRevision(desired(leader, id), object.mod_revision),
            ];
            let value = document::encode(&record).into();
            (
                id,
                guards,
                vec![TxnOp::Put(Put {
                    key,
                    value,
                    lease: None,
                })],
                Item::Object(id.clone()),
            )
        }
    };
    Some((
        item,
        Write {
            guards,
            ops,
            context: format!("carry out the deletion record of {id}"),
        },
    ))
}

/// `None` when the document is another by now, which brings a pass of its own.
async fn release(kinds: &Kinds, leader: &Leader, r: &Release) -> Option<Write> {
    let key = desired(leader, &r.id);
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
        guards: vec![Compare::ModRevision(key.clone(), r.mod_revision)],
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
}
