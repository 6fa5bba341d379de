//! Watches: complete, in whole revisions, honest about progress, and over when the server is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use setpoint_store::etcd::ConnectOptions;
use setpoint_store::testing::{Options, TestEtcd};
use setpoint_store::{Compare, EtcdStore, Revision, Store, StoreError, Txn};
use tokio::time::Instant;

use crate::support::{LONG, end_of, events, put, short, soon, until, watching};

#[tokio::test]
async fn catching_up_over_big_values_takes_fragments_and_yields_whole_revisions() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    let value = |n: usize| vec![b'a' + u8::try_from(n % 26).unwrap(); 450_000];
    let mut first = None;
    for n in 0..40 {
        let txn = (0..3).fold(Txn::new(), |txn, k| {
            txn.put(format!("/big/{n:02}-{k}"), value(n))
        });
        let revision = store.txn(txn).await.unwrap().revision;
        first.get_or_insert(revision);
    }
    let mut watch = store.watch(watching("/big/", first)).await.unwrap();
    let (mut seen, mut last) = (0, first.unwrap().0 - 1);
    while seen < 120 {
        let batch = soon("the next batch", watch.next()).await.unwrap().unwrap();
        for chunk in batch.events.chunks(3) {
            assert!(
                chunk.len() == 3 && chunk.iter().all(|event| event.kv.mod_revision == last + 1),
                "a torn revision"
            );
            assert!(chunk.iter().all(|event| *event.kv.value == value(seen / 3)));
            last += 1;
            seen += 3;
        }
        assert_eq!(batch.revision.0, last);
    }
}

#[tokio::test]
async fn a_restarted_server_ends_the_watch_and_nothing_is_missed() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    let mut watch = store.watch(watching("/r/", None)).await.unwrap();
    put(&store, "/r/a", "1").await;
    let seen = events(&mut watch, 1).await;
    etcd.kill();
    let error = end_of(watch).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    etcd.restart().await;

    // Somebody else writes before we are back.
    put(&etcd.connect().await, "/r/b", "2").await;
    let from = Some(Revision(seen[0].kv.mod_revision + 1));
    let mut watch = store.watch(watching("/r/", from)).await.unwrap();
    put(&store, "/r/c", "3").await;
    assert_eq!(short("/r/", &events(&mut watch, 2).await), ["+b=2", "+c=3"]);
}

#[tokio::test]
async fn compaction_does_not_disturb_a_watch_that_is_up_to_date() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    let mut watch = store.watch(watching("/c/", None)).await.unwrap();
    for round in 0..5 {
        let mut last = Revision(0);
        for n in 0..20 {
            last = put(&store, format!("/c/{n}"), format!("{round}")).await;
        }
        assert_eq!(
            events(&mut watch, 20).await.last().unwrap().kv.mod_revision,
            last.0
        );
        etcd.etcdctl(&["compact", &last.to_string()]);
    }
}

#[tokio::test]
async fn progress_comes_while_everything_happens_elsewhere() {
    let etcd = TestEtcd::start().await;
    let options = ConnectOptions {
        watch_progress_interval: Duration::from_millis(100),
        ..etcd.connect_options()
    };
    let store = EtcdStore::connect(&options).await.unwrap();
    let mut watch = store.watch(watching("/here/", None)).await.unwrap();
    let elsewhere = put(&store, "/there/a", "1").await;
    soon("progress", async {
        loop {
            let batch = watch.next().await.unwrap().unwrap();
            assert!(batch.events.is_empty());
            if batch.revision >= elsewhere {
                break;
            }
        }
    })
    .await;
}

/// Old servers answer progress requests out of order; what is handed on must be right all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_never_ahead_of_events() {
    let etcd = TestEtcd::start_with(Options {
        args: vec!["--snapshot-count=100000".into()],
        ..Options::default()
    })
    .await;
    let options = ConnectOptions {
        watch_progress_interval: Duration::from_millis(10),
        ..etcd.connect_options()
    };
    let store = EtcdStore::connect(&options).await.unwrap();
    let first = put(&store, "/p/0", "0").await;
    // A backlog that takes the server several rounds to deliver.
    for n in 0..3_000 {
        put(&store, format!("/p/{}", n % 10), "backlog").await;
    }
    // Progress is for pauses; on a busy machine the first ones may be over before the backlog is read.
    let had_progress = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, had_progress) = (store.clone(), had_progress.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let mut n = 0;
            while begun.elapsed() < Duration::from_secs(4)
                || (!had_progress.load(Ordering::Relaxed) && begun.elapsed() < LONG / 2)
            {
                let key = if n % 3 == 0 {
                    format!("/p/{}", n % 10)
                } else {
                    format!("/q/{}", n % 10)
                };
                put(&store, key, "now").await;
                n += 1;
                if n % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
            put(&store, "/p/end", "end").await
        })
    };
    let mut watch = store.watch(watching("/p/", Some(first))).await.unwrap();
    let mut promised = Revision(0);
    soon("the last event", async {
        loop {
            let batch = watch.next().await.unwrap().unwrap();
            assert!(batch.revision >= promised);
            if let Some(event) = batch.events.first() {
                assert!(
                    event.kv.mod_revision > promised.0,
                    "an event at {} after {promised}",
                    event.kv.mod_revision
                );
            } else {
                assert!(batch.revision > promised, "progress that says nothing new");
                had_progress.store(true, Ordering::Relaxed);
            }
            promised = batch.revision;
            if batch.events.iter().any(|event| event.kv.key == "/p/end") {
                break;
            }
        }
    })
    .await;
    assert!(
        had_progress.load(Ordering::Relaxed),
        "there was no progress at all"
    );
    writer.await.unwrap();
}

#[tokio::test]
async fn a_dropped_watch_is_cancelled_on_the_server() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    let watchers = || async {
        let script = format!("curl -s {}/metrics", etcd.endpoint());
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "))
            .and_then(|count| count.parse::<u32>().ok())
    };
    let watches =
        futures::future::join_all((0..5).map(|_| store.watch(watching("/d/", None)))).await;
    until("five watchers", || async { watchers().await == Some(5) }).await;
    drop(watches);
    until("no watcher", || async { watchers().await == Some(0) }).await;
}

#[tokio::test]
async fn a_guard_that_was_seen_by_a_watch_holds() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.connect().await;
    let prefix = etcd.prefix("guard") + "/";
    let mut watch = store.watch(watching(&prefix, None)).await.unwrap();
    let key = format!("{prefix}a");
    for n in 0..20 {
        put(&store, &key, n.to_string()).await;
        let seen = events(&mut watch, 1).await;
        let guard = Compare::ModRevision(key.clone(), seen[0].kv.mod_revision);
        assert!(
            store
                .txn(Txn::new().when(guard).put(&key, "again"))
                .await
                .unwrap()
                .succeeded
        );
        events(&mut watch, 1).await;
    }
}
