//! Random items, submitted at once, end as if they had been carried out one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use setpoint_store::group_commit::{GroupCommit, Item, ItemOutcome, Options};
use setpoint_store::model::ModelStore;
use setpoint_store::testing::{TestEtcd, clear, dump};
use setpoint_store::{Compare, Put, Revision, SharedStore, TxnOp};
use tokio::runtime::Runtime;

use crate::support::put;

const KEYS: u8 = 8;

#[derive(Clone, Debug)]
enum Guard {
    Absent(u8),
    Exists(u8),
    /// No key in `[from, to)` was written since the run began.
    Untouched(u8, u8),
}

#[derive(Clone, Debug)]
enum Write {
    Put(u8),
    Delete(u8),
    DeleteRange(u8, u8),
}

type Small = (Vec<Guard>, Vec<Write>);

fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        3 => (0..KEYS).prop_map(Guard::Absent),
        3 => (0..KEYS).prop_map(Guard::Exists),
        1 => (0..KEYS, 1..4_u8).prop_map(|(from, len)| Guard::Untouched(from, from + len)),
    ]
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        6 => (0..KEYS).prop_map(Write::Put),
        3 => (0..KEYS).prop_map(Write::Delete),
        1 => (0..KEYS, 1..4_u8).prop_map(|(from, len)| Write::DeleteRange(from, from + len)),
    ];
    // etcd refuses a transaction that puts a key twice, or that puts and deletes it, in whichever order.
    prop::collection::vec(write, 1..4).prop_filter(
        "a key put twice, or put and deleted",
        |writes| {
            let mut put = BTreeSet::new();
            let deleted = |key: &u8| {
                writes.iter().any(|write| match write {
                    Write::Put(_) => false,
                    Write::Delete(other) => other == key,
                    Write::DeleteRange(from, to) => (from..to).contains(&key),
                })
            };
            writes.iter().all(|write| match write {
                Write::Put(key) => put.insert(*key) && !deleted(key),
                Write::Delete(_) | Write::DeleteRange(..) => true,
            })
        },
    )
}

fn small() -> impl Strategy<Value = Small> {
    (prop::collection::vec(guard(), 0..3), writes())
}

/// What happens when the items are carried out in order.
#[derive(Default)]
struct Reference {
    values: BTreeMap<u8, usize>,
    written: BTreeSet<u8>,
}

impl Reference {
    fn apply(&mut self, at: usize, (guards, writes): &Small) -> bool {
        let holds = guards.iter().all(|guard| match guard {
            Guard::Absent(key) => !self.values.contains_key(key),
            Guard::Exists(key) => self.values.contains_key(key),
            // A deleted key has no revision, so its deletion does not show.
            Guard::Untouched(from, to) => self
                .values
                .keys()
                .all(|key| !(from..to).contains(&key) || !self.written.contains(key)),
        });
        for write in writes.iter().filter(|_| holds) {
            match write {
                Write::Put(key) => {
                    self.values.insert(*key, at);
                    self.written.insert(*key);
                }
                Write::Delete(key) => drop(self.values.remove(key)),
                Write::DeleteRange(from, to) => {
                    self.values.retain(|key, _| !(from..to).contains(&key))
                }
            }
        }
        holds
    }
}

fn real(prefix: &str, since: Revision, at: usize, (guards, writes): &Small) -> Item {
    let key = |key: u8| format!("{prefix}{key:02}");
    Item {
        guards: guards
            .iter()
            .map(|guard| match guard {
                Guard::Absent(at) => Compare::absent(key(*at)),
                Guard::Exists(at) => Compare::Exists(key(*at)),
                Guard::Untouched(from, to) => Compare::RangeUnchangedSince {
                    start: key(*from),
                    end: key(*to),
                    revision: since.0,
                },
            })
            .collect(),
        then: writes
            .iter()
            .map(|write| match write {
                Write::Put(to) => TxnOp::Put(Put {
                    key: key(*to),
                    value: Bytes::from(at.to_string()),
                    lease: None,
                }),
                Write::Delete(from) => TxnOp::Delete(key(*from)),
                Write::DeleteRange(from, to) => TxnOp::DeleteRange {
                    start: key(*from),
                    end: key(*to),
                },
            })
            .collect(),
        context: format!("item {at}"),
    }
}

#[test]
fn items_submitted_at_once_end_as_if_one_after_the_other() {
    let runtime = runtime();
    let (etcd, store) = runtime.block_on(async {
        let etcd = TestEtcd::shared().await;
        let store = etcd.store().await;
        (etcd, store)
    });
    end_in_order(&runtime, &store, 60);
    drop(store);
    drop(etcd);
}

#[test]
fn items_end_so_on_the_model_too() {
    let store: SharedStore = Arc::new(ModelStore::default());
    end_in_order(&runtime(), &store, 400);
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Keys that no other run of this process has.
fn fresh(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("/r{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn end_in_order(runtime: &Runtime, store: &SharedStore, cases: u32) {
    let case = (
        prop::collection::btree_set(0..KEYS, 0..4),
        prop::collection::vec(small(), 1..60),
        1..5_usize,
        any::<bool>(),
    );
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or(7);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&case, |(present, items, max_in_flight, one_by_one)| {
        runtime.block_on(async {
            let prefix = fresh("random") + "/";
            let mut since = put(&**store, fresh("begin"), "x").await;
            let mut reference = Reference::default();
            for key in present {
                since = put(&**store, format!("{prefix}{key:02}"), "begin").await;
                reference.values.insert(key, usize::MAX);
            }
            let commit = GroupCommit::new(
                store.clone(),
                Options {
                    max_in_flight,
                    ..Options::default()
                },
            );
            let real_items = items
                .iter()
                .enumerate()
                .map(|(at, item)| real(&prefix, since, at, item));
            let outcomes = if one_by_one {
                futures::future::join_all(real_items.map(|item| commit.submit(item))).await
            } else {
                commit.submit_all(real_items.collect()).await
            };
            for (at, (item, outcome)) in items.iter().zip(&outcomes).enumerate() {
                let expected = reference.apply(at, item);
                let got = match outcome {
                    ItemOutcome::Committed { .. } => true,
                    ItemOutcome::Rejected { .. } => false,
                    other => return Err(TestCaseError::fail(format!("item {at}: {other:?}"))),
                };
                prop_assert_eq!(got, expected, "item {} of {:?}", at, items);
            }
            let name = |at: &usize| {
                if *at == usize::MAX {
                    "begin".to_owned()
                } else {
                    at.to_string()
                }
            };
            let expected: Vec<_> = reference
                .values
                .iter()
                .map(|(key, at)| (format!("{prefix}{key:02}"), name(at)))
                .collect();
            prop_assert_eq!(dump(&**store, &prefix).await, expected);
            clear(&**store, &prefix).await;
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("SEED={seed}: {error}");
    }
}
