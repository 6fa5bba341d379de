//! Listings of one moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use setpoint_store::list::{List, Listed, list_all, list_stream};
use setpoint_store::testing::{TestEtcd, prefix_end};
use setpoint_store::{RangeRequest, Revision, Store, StoreError, Txn};

use crate::support::{Hooked, put};

async fn fill(store: &dyn Store, prefix: &str, count: usize) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let txn = chunk.iter().fold(Txn::new(), |txn, n| {
            txn.put(format!("{prefix}{n:04}"), "old")
        });
        store.txn(txn).await.unwrap();
    }
}

#[tokio::test]
async fn a_listing_shows_one_moment_however_long_it_takes() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.store().await;
    let prefix = etcd.prefix("list") + "/";
    fill(&*store, &prefix, 250).await;

    // Before every page but the first a key of a later page changes and one comes and goes.
    let hooked = Hooked::new(store.clone(), {
        let (store, prefix) = (store.clone(), prefix.clone());
        let pages = AtomicUsize::new(0);
        move || {
            let (store, prefix, page) = (
                store.clone(),
                prefix.clone(),
                pages.fetch_add(1, Ordering::Relaxed),
            );
            Box::pin(async move {
                if page > 0 {
                    put(&*store, format!("{prefix}0249"), "new").await;
                    put(&*store, format!("{prefix}9{page}"), "new").await;
                    store
                        .txn(Txn::new().delete(format!("{prefix}0{}50", page % 2)))
                        .await
                        .unwrap();
                }
            })
        }
    });
    let list = List::new(&prefix, prefix_end(&prefix)).page_size(100);
    let (kvs, revision) = list_all(&hooked, list.clone()).await.unwrap();
    assert_eq!(kvs.len(), 250);
    assert!(kvs.is_sorted_by(|a, b| a.key < b.key) && kvs.iter().all(|kv| &*kv.value == b"old"));
    assert!(kvs.iter().all(|kv| kv.mod_revision <= revision.0));

    let (keys, later) = list_all(&*store, list.keys_only()).await.unwrap();
    assert!(later > revision && keys.iter().all(|kv| kv.value.is_empty()));
    let has = |name: &str| keys.iter().any(|kv| kv.key == format!("{prefix}{name}"));
    assert!(has("91") && has("92") && !has("0150") && !has("0050"));
}

#[tokio::test]
async fn a_listing_begins_again_when_it_is_overtaken_by_a_compaction() {
    let etcd = Arc::new(TestEtcd::start().await);
    let store = etcd.store().await;
    fill(&*store, "/l/", 30).await;
    let compact_before = |times: usize| {
        let (etcd, store) = (etcd.clone(), store.clone());
        let requests = AtomicUsize::new(0);
        Hooked::new(store.clone(), move || {
            let (etcd, store, request) = (
                etcd.clone(),
                store.clone(),
                requests.fetch_add(1, Ordering::Relaxed),
            );
            Box::pin(async move {
                // The second request of each attempt.
                if request % 2 == 1 && request / 2 < times {
                    let now = put(&*store, "/elsewhere", "x").await;
                    etcd.etcdctl(&["compact", &now.to_string()]);
                }
            })
        })
    };
    let list = List::new("/l/", "/l0").page_size(10);

    let steps: Vec<_> = list_stream(Arc::new(compact_before(2)), list.clone())
        .try_collect()
        .await
        .unwrap();
    let shape: Vec<_> = steps
        .iter()
        .map(|step| match step {
            Listed::Begin => "begin",
            Listed::Page(_) => "page",
            Listed::Done(_) => "done",
        })
        .collect();
    assert_eq!(
        shape,
        [
            "begin", "page", "begin", "page", "begin", "page", "page", "page", "done"
        ]
    );
    let (kvs, _) = list_all(&compact_before(3), list.clone()).await.unwrap();
    assert_eq!(kvs.len(), 30);

    let error = list_all(&compact_before(usize::MAX), list)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
}

#[tokio::test]
async fn an_empty_range_has_a_revision_too() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.store().await;
    let prefix = etcd.prefix("empty") + "/";
    let before = put(&*store, etcd.prefix("before"), "x").await;
    let (kvs, revision) = list_all(&*store, List::new(&prefix, prefix_end(&prefix)))
        .await
        .unwrap();
    assert!(kvs.is_empty() && revision >= before && revision > Revision(0));
    let page = store
        .range(RangeRequest {
            start: prefix.clone(),
            end: prefix_end(&prefix),
            ..RangeRequest::default()
        })
        .await;
    assert!(!page.unwrap().more);
}
