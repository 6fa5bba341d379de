//! The claims of group commit, one by one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use setpoint_store::group_commit::{GroupCommit, Item, ItemOutcome, Options};
use setpoint_store::testing::{TestEtcd, dump};
use setpoint_store::{
    Compare, EtcdStore, LeaseId, Put, Revision, SharedStore, Store, StoreError, Txn, TxnOp,
};

use crate::support::{Hooked, put, soon, until};

fn write(key: impl Into<String>, value: &str) -> TxnOp {
    TxnOp::Put(Put {
        key: key.into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        lease: None,
    })
}

fn item(guards: impl IntoIterator<Item = Compare>, then: impl IntoIterator<Item = TxnOp>) -> Item {
    Item {
        guards: guards.into_iter().collect(),
        then: then.into_iter().collect(),
        context: "a test".into(),
    }
}

fn committed(outcome: &ItemOutcome) -> Revision {
    outcome.committed().unwrap_or_else(|| panic!("{outcome:?}"))
}

fn all_committed(outcomes: &[ItemOutcome]) -> Vec<Revision> {
    outcomes.iter().map(committed).collect()
}

async fn recorded(etcd: &TestEtcd, options: Options) -> (GroupCommit, Arc<Hooked>) {
    let store = Hooked::recording(etcd.store().await);
    (GroupCommit::new(store.clone(), options), store)
}

#[tokio::test]
async fn every_item_has_an_outcome_of_its_own() {
    let etcd = TestEtcd::shared().await;
    let (commit, store) = recorded(&etcd, Options::default()).await;
    let prefix = etcd.prefix("own") + "/";
    let key = |name: &str| format!("{prefix}{name}");
    put(&*store, key("there"), "0").await;
    store.txns.lock().unwrap().clear();

    let outcomes = commit
        .submit_all(vec![
            item(
                [Compare::absent(key("a"))],
                [write(key("a"), "1"), write(key("a2"), "1")],
            ),
            item([Compare::absent(key("there"))], [write(key("b"), "1")]),
            item(
                [
                    Compare::Exists(key("there")),
                    Compare::absent(key("nothing")),
                ],
                [write(key("c"), "1")],
            ),
            item([Compare::Exists(key("nothing"))], [write(key("d"), "1")]),
            item([], [write(key("e"), "1"), TxnOp::Delete(key("f"))]),
        ])
        .await;
    let revision = committed(&outcomes[0]);
    assert!(
        matches!(outcomes[1], ItemOutcome::Rejected { revision: at } if at == revision),
        "{outcomes:?}"
    );
    assert_eq!(
        committed(&outcomes[2]),
        revision,
        "one transaction has one revision"
    );
    assert!(matches!(outcomes[3], ItemOutcome::Rejected { .. }));
    assert_eq!(committed(&outcomes[4]), revision);
    assert_eq!(*store.txns.lock().unwrap(), [5]);
    let names: Vec<_> = dump(&*store, &prefix)
        .await
        .into_iter()
        .map(|(key, _)| key.replace(&prefix, ""))
        .collect();
    assert_eq!(names, ["a", "a2", "c", "e", "there"]);
    let (kv, _) = store.get(&key("a2")).await.unwrap();
    assert_eq!(kv.unwrap().mod_revision, revision.0);
}

#[tokio::test]
async fn items_with_a_common_key_are_deferred_and_take_effect_in_order() {
    let etcd = TestEtcd::shared().await;
    let (commit, store) = recorded(&etcd, Options::default()).await;
    let prefix = etcd.prefix("order") + "/";
    let key = |n: usize| format!("{prefix}{n:03}");
    // Each needs what the one before it writes; in one transaction only the first could pass its guard.
    let chain = (0..40).map(|n| {
        let guards = if n == 0 {
            vec![]
        } else {
            vec![Compare::Exists(key(n - 1)), Compare::absent(key(n))]
        };
        item(
            guards,
            [
                write(key(n), "x"),
                write(format!("{prefix}last"), &n.to_string()),
            ],
        )
    });
    let outcomes = commit.submit_all(chain.collect()).await;
    let revisions = all_committed(&outcomes);
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert_eq!(
        &*store
            .get(&format!("{prefix}last"))
            .await
            .unwrap()
            .0
            .unwrap()
            .value,
        b"39"
    );
    assert!(commit.stats().deferred > 0);

    // A guard on what an earlier item changes sees the change, also when it is a range.
    let all = || (prefix.clone(), format!("{prefix}~"));
    let (start, end) = all();
    let unchanged = Compare::RangeUnchangedSince {
        start: start.clone(),
        end: end.clone(),
        revision: revisions[39].0,
    };
    let outcomes = commit
        .submit_all(vec![
            item([unchanged.clone()], [write(key(500), "x")]),
            item([unchanged], [write(key(501), "x")]),
            item(
                [Compare::Exists(key(500))],
                [TxnOp::DeleteRange { start, end }],
            ),
            item(
                [Compare::absent(key(500)), Compare::absent(key(0))],
                [write(key(502), "x")],
            ),
        ])
        .await;
    assert!(
        outcomes[0].committed().is_some() && outcomes[1].committed().is_none(),
        "{outcomes:?}"
    );
    assert!(
        outcomes[2].committed().is_some() && outcomes[3].committed().is_some(),
        "{outcomes:?}"
    );
    assert_eq!(dump(&*store, &prefix).await, [(key(502), "x".to_owned())]);
}

#[tokio::test]
async fn an_item_on_an_idle_line_is_a_plain_transaction() {
    let etcd = TestEtcd::shared().await;
    let (commit, store) = recorded(&etcd, Options::default()).await;
    let key = etcd.prefix("idle");
    for n in 0..10 {
        let outcome = commit.submit(item([], [write(&key, &n.to_string())])).await;
        committed(&outcome);
    }
    assert_eq!(*store.txns.lock().unwrap(), [1; 10]);
    commit.idle().await;
    assert_eq!((commit.stats().queued, commit.stats().in_flight), (0, 0));
}

#[tokio::test]
async fn items_gather_while_transactions_are_under_way() {
    let etcd = TestEtcd::shared().await;
    let (commit, store) = recorded(
        &etcd,
        Options {
            max_in_flight: 2,
            ..Options::default()
        },
    )
    .await;
    let prefix = etcd.prefix("gather") + "/";
    let submit = |n: usize| commit.submit(item([], [write(format!("{prefix}{n}"), "x")]));
    let outcomes = futures::future::join_all((0..100).map(submit)).await;
    all_committed(&outcomes);
    let txns = store.txns.lock().unwrap().clone();
    assert_eq!(txns.iter().sum::<usize>(), 100);
    assert!(
        txns[0] == 1 && txns.len() < 10,
        "the first at once, the others together: {txns:?}"
    );
}

/// The rule that the limits are built on, asked of etcd itself.
#[tokio::test]
async fn etcd_counts_operations_along_the_nesting() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.connect().await;
    let prefix = etcd.prefix("rule") + "/";
    let nested = |items: usize, ops: usize, guards: usize| {
        let inner = |n: usize| Txn {
            compares: (0..guards)
                .map(|g| Compare::absent(format!("{prefix}guard-{g}")))
                .collect(),
            then: (0..ops)
                .map(|op| write(format!("{prefix}{n}-{op}"), "x"))
                .collect(),
            or_else: vec![],
        };
        Txn {
            then: (0..items).map(|n| TxnOp::Txn(Box::new(inner(n)))).collect(),
            ..Txn::default()
        }
    };
    for (items, ops, guards, fits) in [
        (127, 1, 1, true),
        (128, 1, 1, false),
        (126, 2, 2, true),
        (127, 2, 1, false),
        (127, 1, 2, false),
        (64, 64, 0, true),
        (64, 65, 0, false),
        (1, 127, 127, true),
        (1, 128, 0, false),
    ] {
        match store.txn(nested(items, ops, guards)).await {
            Ok(result) => assert!(
                fits && result.succeeded,
                "{items} items of {ops} operations, {guards} guards"
            ),
            Err(error) => {
                assert!(
                    !fits && matches!(error, StoreError::TooLarge { .. }),
                    "{items} of {ops}, {guards}: {error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn as_many_items_go_together_as_etcd_takes() {
    let etcd = TestEtcd::shared().await;
    let prefix = etcd.prefix("border") + "/";
    let items = |count: usize| -> Vec<_> {
        (0..count)
            .map(|n| {
                item(
                    [Compare::absent(format!("{prefix}epoch"))],
                    [write(format!("{prefix}{n}"), "x")],
                )
            })
            .collect()
    };
    let (commit, store) = recorded(
        &etcd,
        Options {
            max_items: 1_000,
            ..Options::default()
        },
    )
    .await;
    let outcomes = commit.submit_all(items(127)).await;
    all_committed(&outcomes);
    assert_eq!(*store.txns.lock().unwrap(), [127]);

    // One more, and there are two transactions.
    all_committed(&commit.submit_all(items(128)).await);
    assert_eq!(store.txns.lock().unwrap()[1..], [127, 1]);

    // With a limit that is set too high etcd refuses the whole, and the items go alone.
    let (commit, store) = recorded(
        &etcd,
        Options {
            max_items: 1_000,
            max_ops: 1_000,
            ..Options::default()
        },
    )
    .await;
    all_committed(&commit.submit_all(items(128)).await);
    assert_eq!(store.txns.lock().unwrap()[..2], [128, 1]);
    assert_eq!(commit.stats().alone, 128);
}

#[tokio::test]
async fn batches_stay_below_the_limit_of_bytes() {
    let etcd = TestEtcd::shared().await;
    let (commit, store) = recorded(&etcd, Options::default()).await;
    let prefix = etcd.prefix("bytes") + "/";
    let value = "x".repeat(100_000);
    let items = (0..30)
        .map(|n| item([], [write(format!("{prefix}{n}"), &value)]))
        .collect();
    all_committed(&commit.submit_all(items).await);
    let txns = store.txns.lock().unwrap().clone();
    assert!(
        txns.iter().all(|items| *items <= 10) && txns.len() >= 3,
        "{txns:?}"
    );
    let huge = commit
        .submit(item(
            [],
            [write(format!("{prefix}huge"), &"x".repeat(3 << 20))],
        ))
        .await;
    assert!(
        matches!(huge, ItemOutcome::Failed(StoreError::TooLarge { .. })),
        "{huge:?}"
    );
}

#[tokio::test]
async fn one_bad_item_does_not_spoil_the_others() {
    let etcd = TestEtcd::shared().await;
    let (commit, store) = recorded(&etcd, Options::default()).await;
    let prefix = etcd.prefix("spoil") + "/";
    let key = |name: &str| format!("{prefix}{name}");
    let leased = |lease| {
        TxnOp::Put(Put {
            key: key("leased"),
            value: Bytes::new(),
            lease: Some(LeaseId(lease)),
        })
    };
    let outcomes = commit
        .submit_all(vec![
            item([], [write(key("a"), "1")]),
            item([], [write(key("b"), "1"), write(key("b"), "2")]),
            item([Compare::Exists(key("nothing"))], [write(key("c"), "1")]),
            item([], [leased(4711)]),
            item([], [write(key("d"), &"x".repeat(2 << 20))]),
            item([], [write(key("e"), "1")]),
        ])
        .await;
    committed(&outcomes[0]);
    assert!(
        matches!(&outcomes[1], ItemOutcome::Failed(StoreError::Invalid { message, .. }) if message.contains("duplicate"))
    );
    assert!(matches!(outcomes[2], ItemOutcome::Rejected { .. }));
    assert!(
        matches!(
            outcomes[3],
            ItemOutcome::Failed(StoreError::LeaseNotFound { .. })
        ),
        "{outcomes:?}"
    );
    assert!(
        matches!(
            outcomes[4],
            ItemOutcome::Failed(StoreError::TooLarge { .. })
        ),
        "{outcomes:?}"
    );
    committed(&outcomes[5]);
    let ItemOutcome::Failed(error) = &outcomes[3] else {
        unreachable!()
    };
    assert!(error.to_string().starts_with("a test: "), "{error}");
    let names: Vec<_> = dump(&*store, &prefix)
        .await
        .into_iter()
        .map(|(key, _)| key.replace(&prefix, ""))
        .collect();
    assert_eq!(names, ["a", "e"]);
}

#[tokio::test]
async fn a_lost_answer_is_an_unknown_outcome_and_an_unsent_item_is_not() {
    let etcd = TestEtcd::start().await;
    let store: SharedStore = Arc::new(EtcdStore::connect(&etcd.connect_options()).await.unwrap());
    let commit = GroupCommit::new(store.clone(), Options::default());
    let items = |round: usize| {
        (0..10)
            .map(|n| item([], [write(format!("/u/{round}-{n}"), "x")]))
            .collect()
    };
    all_committed(&commit.submit_all(items(0)).await);

    etcd.freeze();
    let lost = tokio::spawn({
        let (commit, items) = (commit.clone(), items(1));
        async move { commit.submit_all(items).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    etcd.kill();
    for outcome in soon("the outcomes", lost).await.unwrap() {
        assert!(
            matches!(outcome, ItemOutcome::Unknown(StoreError::Unknown { .. })),
            "{outcome:?}"
        );
    }
    for outcome in commit.submit_all(items(2)).await {
        assert!(
            matches!(outcome, ItemOutcome::Failed(StoreError::Unavailable { .. })),
            "{outcome:?}"
        );
    }
    etcd.restart().await;
    all_committed(&commit.submit_all(items(3)).await);
    commit.idle().await;
}

#[tokio::test]
async fn a_dropped_future_does_not_withdraw_its_item() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.store().await;
    let commit = GroupCommit::new(store.clone(), Options::default());
    let key = etcd.prefix("dropped");
    {
        let mut submitted = Box::pin(commit.submit(item([], [write(&key, "x")])));
        assert!(futures::poll!(&mut submitted).is_pending());
    }
    until("the item is carried out", || async {
        store.get(&key).await.unwrap().0.is_some()
    })
    .await;
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let etcd = TestEtcd::shared().await;
    let options = Options {
        max_queued_bytes: 8_000,
        max_in_flight: 1,
        ..Options::default()
    };
    let (commit, _store) = recorded(&etcd, options).await;
    let prefix = etcd.prefix("bounded") + "/";
    let value = "x".repeat(900);
    let items: Vec<_> = (0..200)
        .map(|n| item([], [write(format!("{prefix}{n}"), &value)]))
        .collect();
    let watcher = tokio::spawn({
        let commit = commit.clone();
        async move {
            let mut most = 0;
            loop {
                most = most.max(commit.stats().queued);
                if commit.stats().items >= 200 {
                    return most;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    let (many, one) = items.split_at(100);
    let one = futures::future::join_all(one.iter().cloned().map(|item| commit.submit(item)));
    let (many, one) = tokio::join!(commit.submit_all(many.to_vec()), one);
    all_committed(&many);
    all_committed(&one);
    assert!(soon("the last item", watcher).await.unwrap() <= 8);
    // An item bigger than all room still goes.
    committed(
        &commit
            .submit(item(
                [],
                [write(format!("{prefix}big"), &"x".repeat(50_000))],
            ))
            .await,
    );
}
