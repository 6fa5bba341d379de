//! Every operation of the trait, once, as the trait describes it, on every store.

use std::time::Duration;

use bytes::Bytes;
use setpoint_store::testing::dump;
use setpoint_store::{Compare, LeaseId, Put, RangeRequest, Revision, StoreError, Txn, TxnOp};

use crate::servers::Subject;
use crate::support::{end_of, events, put, short, soon, under, until, watching};

pub(super) async fn a_key_is_read_with_what_etcd_keeps_about_it(subject: &Subject) {
    let store = &*subject.store;
    let key = subject.prefix("get") + "/a";
    let (missing, before) = store.get(&key).await.unwrap();
    assert_eq!(missing, None);

    let first = put(store, &key, "one").await;
    let second = put(store, &key, "two").await;
    assert!(before < first && first < second);
    let (kv, revision) = store.get(&key).await.unwrap();
    let kv = kv.unwrap();
    assert!(revision >= second);
    assert_eq!(
        (kv.key.as_str(), &*kv.value, kv.version, kv.lease),
        (key.as_str(), &b"two"[..], 2, None)
    );
    assert_eq!((kv.create_revision, kv.mod_revision), (first.0, second.0));
}

pub(super) async fn a_range_is_read_in_pages_at_one_revision(subject: &Subject) {
    let store = &*subject.store;
    let prefix = subject.prefix("range") + "/";
    for n in 0..10 {
        put(store, format!("{prefix}{n}"), "old").await;
    }
    let first = store
        .range(RangeRequest {
            limit: 4,
            ..under(&prefix)
        })
        .await
        .unwrap();
    assert_eq!((first.kvs.len(), first.more, first.count), (4, true, 10));

    // What happens between the pages does not show.
    put(store, format!("{prefix}5"), "new").await;
    store
        .txn(Txn::new().delete(format!("{prefix}6")))
        .await
        .unwrap();
    let rest = RangeRequest {
        start: format!("{}\0", first.kvs[3].key),
        revision: Some(first.revision),
        ..under(&prefix)
    };
    let rest = store.range(rest).await.unwrap();
    assert_eq!((rest.kvs.len(), rest.more), (6, false));
    assert!(rest.kvs.iter().all(|kv| &*kv.value == b"old"));
    assert!(
        rest.revision > first.revision,
        "the revision is the store's, not the pinned one"
    );

    let keys = store
        .range(RangeRequest {
            keys_only: true,
            ..under(&prefix)
        })
        .await
        .unwrap();
    assert!(
        keys.kvs.len() == 9
            && keys
                .kvs
                .iter()
                .all(|kv| kv.value.is_empty() && kv.mod_revision > 0)
    );
    let count = store
        .range(RangeRequest {
            count_only: true,
            ..under(&prefix)
        })
        .await
        .unwrap();
    assert!(count.count == 9 && count.kvs.is_empty());
}

pub(super) async fn a_transaction_takes_the_branch_that_its_guards_choose(subject: &Subject) {
    let store = &*subject.store;
    let prefix = subject.prefix("txn") + "/";
    let key = |name: &str| format!("{prefix}{name}");

    let create = || {
        Txn::new()
            .when(Compare::absent(key("a")))
            .put(key("a"), "1")
    };
    let created = store.txn(create()).await.unwrap();
    assert!(created.succeeded);
    let again = store
        .txn(Txn {
            or_else: vec![TxnOp::Get(key("a")), TxnOp::Get(key("b"))],
            ..create()
        })
        .await
        .unwrap();
    assert!(!again.succeeded && again.revision >= created.revision);
    assert_eq!(again.nested, [None, None]);
    let read = again.reads[0].as_ref().unwrap();
    assert_eq!(
        (&*read.value, read.mod_revision),
        (&b"1"[..], created.revision.0)
    );
    assert_eq!(again.reads[1], None);

    let since = |revision: Revision| Compare::RangeUnchangedSince {
        start: key(""),
        end: key("~"),
        revision: revision.0,
    };
    for (guard, holds) in [
        (Compare::ModRevision(key("a"), created.revision.0), true),
        (Compare::ModRevision(key("a"), 1), false),
        (Compare::CreateRevision(key("a"), created.revision.0), true),
        (Compare::CreateRevision(key("a"), 0), false),
        (Compare::CreateRevision(key("b"), 0), true),
        (Compare::Exists(key("a")), true),
        (Compare::Exists(key("b")), false),
        (since(created.revision), true),
        (since(Revision(created.revision.0 - 1)), false),
    ] {
        let result = store.txn(Txn::new().when(guard.clone())).await.unwrap();
        assert_eq!(result.succeeded, holds, "{guard:?}");
    }

    let ops = vec![
        TxnOp::Put(Put {
            key: key("b"),
            value: Bytes::from_static(b"2"),
            lease: None,
        }),
        TxnOp::DeleteRange {
            start: key("a"),
            end: key("b"),
        },
        TxnOp::Txn(Box::new(
            Txn::new()
                .when(Compare::Exists(key("nothing")))
                .put(key("never"), "x"),
        )),
        TxnOp::Txn(Box::new(Txn {
            then: vec![TxnOp::Get(key("b"))],
            ..Txn::default()
        })),
    ];
    let result = store
        .txn(Txn {
            then: ops,
            ..Txn::default()
        })
        .await
        .unwrap();
    assert_eq!(dump(store, &prefix).await, [(key("b"), "2".to_owned())]);
    assert_eq!(result.nested.len(), 4);
    assert!(result.nested[0].is_none() && result.nested[1].is_none());
    let (refused, read) = (
        result.nested[2].as_ref().unwrap(),
        result.nested[3].as_ref().unwrap(),
    );
    assert!(!refused.succeeded && read.succeeded);
    assert_eq!(
        &*read.reads[0].as_ref().unwrap().value,
        b"2",
        "a nested read sees what was written before it"
    );
    assert_eq!(read.revision, result.revision);

    store.txn(Txn::new().delete(key("b"))).await.unwrap();
    assert!(dump(store, &prefix).await.is_empty());
}

pub(super) async fn errors_say_what_is_wrong_and_that_nothing_happened(subject: &Subject) {
    let store = &*subject.store;
    let prefix = subject.prefix("errors") + "/";
    let many =
        |count: usize| (0..count).fold(Txn::new(), |txn, n| txn.put(format!("{prefix}{n}"), "v"));
    let big = |bytes: usize| Txn::new().put(format!("{prefix}big"), vec![b'x'; bytes]);

    let twice = store
        .txn(
            Txn::new()
                .put(format!("{prefix}a"), "1")
                .put(format!("{prefix}a"), "2"),
        )
        .await
        .unwrap_err();
    assert!(
        matches!(&twice, StoreError::Invalid { message, .. } if message.contains("duplicate key")),
        "{twice}"
    );
    let long = store.txn(many(129)).await.unwrap_err();
    assert!(matches!(&long, StoreError::TooLarge { .. }), "{long}");
    for bytes in [1_600_000, 3_000_000] {
        let error = store.txn(big(bytes)).await.unwrap_err();
        assert!(
            matches!(error, StoreError::TooLarge { .. }),
            "{bytes}: {error}"
        );
        assert!(
            error.to_string().contains(&format!("{prefix}big")),
            "{error}"
        );
    }
    let dead = store
        .txn(Txn::new().put_with_lease(format!("{prefix}l"), "v", LeaseId(12345)))
        .await
        .unwrap_err();
    assert!(matches!(dead, StoreError::LeaseNotFound { .. }), "{dead}");
    let future = store
        .range(RangeRequest {
            revision: Some(Revision(i64::MAX)),
            ..under(&prefix)
        })
        .await
        .unwrap_err();
    assert!(matches!(future, StoreError::Invalid { .. }), "{future}");
    assert!(dump(store, &prefix).await.is_empty());
    store.txn(many(128)).await.unwrap();
    store.txn(big(1_500_000)).await.unwrap();
}

pub(super) async fn a_watch_tells_everything_from_its_revision_on(subject: &Subject) {
    let store = &*subject.store;
    let prefix = subject.prefix("watch") + "/";
    let first = put(store, format!("{prefix}a"), "1").await;
    put(store, format!("{prefix}b"), "2").await;

    let mut all = store.watch(watching(&prefix, Some(first))).await.unwrap();
    let mut now = store.watch(watching(&prefix, None)).await.unwrap();
    let txn = Txn::new()
        .put(format!("{prefix}c"), "3")
        .delete(format!("{prefix}a"));
    let last = store.txn(txn).await.unwrap().revision;
    put(store, subject.prefix("elsewhere"), "x").await;

    let seen = events(&mut all, 4).await;
    assert_eq!(short(&prefix, &seen), ["+a=1", "+b=2", "+c=3", "-a"]);
    assert_eq!(seen[3].kv.mod_revision, last.0);
    assert_eq!(
        short(&prefix, &events(&mut now, 2).await),
        ["+c=3", "-a"],
        "from now on: confirmed before watch() returns"
    );
}

pub(super) async fn leases_carry_keys_and_take_them_along(subject: &Subject) {
    let store = &*subject.store;
    let prefix = subject.prefix("lease") + "/";
    let (lease, ttl) = store
        .lease_grant(Duration::from_millis(29_500))
        .await
        .unwrap();
    assert_eq!(ttl, Duration::from_secs(30), "never less than asked for");
    let key = format!("{prefix}a");
    store
        .txn(Txn::new().put_with_lease(&key, "v", lease))
        .await
        .unwrap();
    assert_eq!(store.get(&key).await.unwrap().0.unwrap().lease, Some(lease));
    assert_eq!(store.lease_renew(lease).await.unwrap(), ttl);
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().0, None);
    for error in [
        store.lease_renew(lease).await.unwrap_err(),
        store.lease_revoke(lease).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::LeaseNotFound { .. }), "{error}");
    }
}

pub(super) async fn a_lease_that_nobody_renews_expires(subject: &Subject) {
    let store = &*subject.store;
    let key = subject.prefix("expiry");
    let mut watch = store.watch(watching(&key, None)).await.unwrap();
    let lease = soon("a lease that lasts until the key is put", async {
        loop {
            let (lease, _) = store.lease_grant(Duration::from_secs(1)).await.unwrap();
            let put = Txn::new().put_with_lease(&key, "v", lease);
            match store.txn(put).await {
                Ok(_) => return lease,
                Err(error) => assert!(matches!(error, StoreError::LeaseNotFound { .. }), "{error}"),
            }
        }
    })
    .await;
    assert_eq!(short(&key, &events(&mut watch, 2).await), ["+=v", "-"]);
    let error = store.lease_renew(lease).await.unwrap_err();
    assert!(matches!(error, StoreError::LeaseNotFound { .. }), "{error}");
}

pub(super) async fn a_compacted_revision_is_named_as_such(subject: &Subject) {
    let store = &*subject.store;
    let first = put(store, "/c/a", "1").await;
    let mut last = first;
    for n in 0..10 {
        last = put(store, "/c/a", n.to_string()).await;
    }
    subject.compact(last).await;
    let error = store
        .range(RangeRequest {
            revision: Some(first),
            ..under("/c/")
        })
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    let error = match store.watch(watching("/c/", Some(first))).await {
        Ok(watch) => end_of(watch).await,
        Err(error) => error,
    };
    assert!(
        matches!(error, StoreError::Compacted { compact_revision, .. } if compact_revision == last.0),
        "{error}"
    );
    until("a watch from the compacted revision itself", || async {
        store.watch(watching("/c/", Some(last))).await.is_ok()
    })
    .await;
}
