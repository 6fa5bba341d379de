//! Everything in a namespace goes at one revision, and the namespace with it.
//!
//! # Guarantee
//! Whoever creates something in a namespace guards on its existence, so a create comes before this transaction, and goes
//! with the rest, or fails. That holds for kinds too of which the first object ever is created meanwhile: the transaction
//! holds only while the store has documents of no other kinds than those whose ranges it deletes.
//!
//! What controllers have told of its objects in events goes with it too. The events of agents are apart, under their nodes,
//! and all of them may still tell how its pods stop: [`forget_events`] removes those.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use setpoint_apis::timeline::Timeline;
use setpoint_apis::{Key, KeyRange, Keyspace, ObjectKey, keyspace};
use setpoint_store::{Compare, Revision, Txn, TxnOp};

use super::retried;
use crate::client::Client;
use crate::kinds;
use crate::object::Object;

/// How often it is tried while kinds come that were not there before.
const TRIES: usize = 10;

/// What etcd takes on each path through nested transactions: the longest lists of their levels add up to this.
const OPERATIONS: usize = 128;

/// Deletes a namespace, unless it is gone or another one by now.
///
/// # Errors
/// When the store does not do it, or has documents of more kinds than one transaction can delete.
pub(super) async fn remove(client: &Client, object: &Object, timeline: &Timeline) -> Result<()> {
    let wanted = Key::Desired(object.kind.plural, object.key.clone());
    let Some(created) = object.revisions.map(|r| r.created) else {
        return Ok(());
    };
    for _ in 0..TRIES {
        let (plurals, revision) = client.plurals_now().await?;
        let mut txn = Txn::new().when(Compare::CreateRevision(client.key(&wanted), created));
        let gaps = gaps(client.keyspace(), &plurals);
        txn.compares
            .extend(gaps.into_iter().map(|gap| unchanged(gap, revision)));
        let mut ranges = ranges(client.keyspace(), plurals, &object.key.name);
        let events = client.keyspace().event_range(&object.key.name);
        ranges.push(TxnOp::DeleteRange {
            start: events.start,
            end: events.end,
        });
        txn.then = nested(ranges, txn.compares.len())?;
        let mark = keyspace::admissions(&object.key.name);
        txn.then.push(TxnOp::Delete(client.key(&Key::Meta(&mark))));
        txn.then.push(TxnOp::Delete(client.key(&wanted)));
        txn.then.push(client.clock_put(timeline));
        if retried(client, txn).await? {
            return Ok(());
        }
        let (found, _) = client.get(&wanted).await?;
        if found.is_none_or(|kv| kv.create_revision != created) {
            return Ok(());
        }
    }
    bail!("kinds come all the time that were not there before, so nothing was deleted; try again")
}

/// Deletes the events about objects of a namespace, as long as it is gone.
///
/// # Errors
/// When the store does not do it.
pub(super) async fn forget_events(client: &Client, namespace: &str) -> Result<()> {
    let keyspace = client.keyspace();
    let (all, _) = client.keys(&keyspace.node_events(None), None).await?;
    let of_agents = all.into_iter().filter(|key| {
        matches!(keyspace.split(key), Ok(Key::Event { namespace: of, .. }) if of == namespace)
    });
    let events = keyspace.event_range(namespace);
    let mut operations = vec![TxnOp::DeleteRange {
        start: events.start,
        end: events.end,
    }];
    operations.extend(of_agents.map(TxnOp::Delete));
    let document = client.key(&Key::Desired("namespaces", ObjectKey::cluster(namespace)));
    for chunk in operations.chunks(OPERATIONS - 1) {
        let mut txn = Txn::new().when(Compare::absent(document.clone()));
        txn.then.extend(chunk.iter().cloned());
        if !retried(client, txn).await? {
            break;
        }
    }
    Ok(())
}

/// What lies between the documents of these kinds.
fn gaps(keyspace: &Keyspace, plurals: &BTreeSet<String>) -> Vec<KeyRange> {
    let all = keyspace.all_desired();
    let mut kinds: Vec<KeyRange> = plurals
        .iter()
        .map(|plural| keyspace.desired_range(plural, None))
        .collect();
    kinds.sort_by(|a, b| a.start.cmp(&b.start));
    let mut gaps = Vec::new();
    let mut start = all.start;
    for kind in kinds {
        gaps.push(KeyRange {
            start,
            end: kind.start,
        });
        start = kind.end;
    }
    gaps.push(KeyRange {
        start,
        end: all.end,
    });
    gaps.retain(|gap| gap.start < gap.end);
    gaps
}

fn unchanged(range: KeyRange, revision: Revision) -> Compare {
    Compare::RangeUnchangedSince {
        start: range.start,
        end: range.end,
        revision: revision.0,
    }
}

/// The documents of each kind in the namespace.
fn ranges(keyspace: &Keyspace, plurals: BTreeSet<String>, namespace: &str) -> Vec<TxnOp> {
    let cluster_wide = |plural: &str| kinds::all().any(|k| k.plural == plural && !k.namespaced);
    let plurals = plurals.into_iter().filter(|plural| !cluster_wide(plural));
    let range = |plural: String| {
        let range = keyspace.desired_range(&plural, Some(namespace));
        TxnOp::DeleteRange {
            start: range.start,
            end: range.end,
        }
    };
    plurals.map(range).collect()
}

/// The operations, in nested transactions of as many as go beside so many guards.
fn nested(operations: Vec<TxnOp>, guards: usize) -> Result<Vec<TxnOp>> {
    // The outer level has these and a few operations of its own.
    let outer = guards.max(8);
    let room = OPERATIONS.saturating_sub(outer);
    if room == 0 || operations.len().div_ceil(room) + 3 > outer {
        bail!("there are objects of more kinds than one transaction of etcd can delete");
    }
    let nested = operations.chunks(room).map(|chunk| {
        TxnOp::Txn(Box::new(Txn {
            then: chunk.to_vec(),
            ..Txn::default()
        }))
    });
    Ok(nested.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plurals(n: usize) -> BTreeSet<String> {
        (0..n).map(|i| format!("kind{i:03}s")).collect()
    }

    #[test]
    fn a_key_is_in_the_range_of_its_kind_or_in_a_gap() {
        let keyspace = Keyspace::default();
        let known = ["pods", "pods.x", "secrets"].map(str::to_owned).into();
        let gaps = gaps(&keyspace, &known);
        let all = keyspace.all_desired();
        for (plural, is_known) in [
            ("a", false),
            ("pods", true),
            ("pods.x", true),
            ("pods.y", false),
            ("podsa", false),
            ("secrets", true),
            ("zebras", false),
        ] {
            let range = keyspace.desired_range(plural, Some("team"));
            assert!(all.contains(&range.start));
            let holes = gaps.iter().filter(|gap| gap.contains(&range.start));
            assert_eq!(holes.count(), usize::from(!is_known), "{plural}");
        }
    }

    #[test]
    fn what_etcd_takes_is_kept_to_up_to_a_hundred_kinds_and_more() {
        for n in [0, 1, 7, 40, 100, 120] {
            let guards = gaps(&Keyspace::default(), &plurals(n)).len() + 1;
            let operations = ranges(&Keyspace::default(), plurals(n), "team");
            assert_eq!(operations.len(), n);
            let nested = nested(operations, guards).unwrap();
            let longest = nested.iter().map(|op| match op {
                TxnOp::Txn(txn) => txn.then.len(),
                _ => 0,
            });
            let path = guards.max(nested.len() + 3) + longest.max().unwrap_or(0);
            assert!(path <= OPERATIONS, "{n}: {path}");
        }
        let guards = OPERATIONS;
        assert!(nested(ranges(&Keyspace::default(), plurals(3), "team"), guards).is_err());
    }
}
