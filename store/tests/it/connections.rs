//! When a connection on which nothing comes is given up, and when not. The longest waits of all: this module's name lets them
//! begin early.

use std::time::Duration;

use futures::StreamExt;
use setpoint_store::etcd::ConnectOptions;
use setpoint_store::testing::TestEtcd;
use setpoint_store::{EtcdStore, Store, StoreError};
use tokio::time::Instant;

use crate::support::{LONG, end_of, put, soon, until, watching};

#[tokio::test]
async fn a_server_that_freezes_ends_the_watch_within_the_limit() {
    let etcd = TestEtcd::start().await;
    let limit = Duration::from_secs(5);
    let options = ConnectOptions {
        watch_progress_interval: Duration::from_secs(1),
        watch_silence_limit: limit,
        // Long, so that it is not the ping that notices.
        keep_alive_interval: Duration::from_secs(600),
        request_timeout: Duration::from_secs(4),
        ..etcd.connect_options()
    };
    let store = EtcdStore::connect(&options).await.unwrap();
    let mut watch = store.watch(watching("/f/", None)).await.unwrap();

    // Quiet is not silent: progress is answered.
    let quiet = tokio::time::timeout(limit + Duration::from_secs(2), async {
        while let Some(batch) = watch.next().await {
            assert!(batch.unwrap().events.is_empty());
        }
    });
    assert!(quiet.await.is_err(), "a quiet watch must not end");

    etcd.freeze();
    let frozen = Instant::now();
    let error = end_of(watch).await;
    let taken = frozen.elapsed();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("silent for 5s"), "{error}");
    assert!(taken < limit * 4, "{taken:?}");

    // Opening one does not hang either.
    let error = store
        .watch(watching("/f/", None))
        .await
        .err()
        .expect("the server is frozen");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    etcd.thaw();
    until("a watch after the thaw", || async {
        store.watch(watching("/f/", None)).await.is_ok()
    })
    .await;
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "what is tested is a process in which nothing runs for a while"
)]
async fn a_pause_of_the_client_ends_no_watch() {
    let etcd = TestEtcd::start().await;
    let limit = Duration::from_secs(8);
    let options = ConnectOptions {
        watch_silence_limit: limit,
        keep_alive_interval: Duration::from_secs(600),
        request_timeout: LONG,
        ..etcd.connect_options()
    };
    let store = EtcdStore::connect(&options).await.unwrap();
    let mut watch = store.watch(watching("/a/", None)).await.unwrap();
    let mut next = watch.next();
    assert!(futures::poll!(&mut next).is_pending(), "it waits");
    std::thread::sleep(limit + Duration::from_secs(1));
    let (batch, _) = tokio::join!(soon("the event", next), put(&store, "/a/a", "1"));
    assert_eq!(batch.unwrap().unwrap().events.len(), 1);
}

#[tokio::test]
async fn a_frozen_server_is_noticed_by_pings_too() {
    let etcd = TestEtcd::start().await;
    let options = ConnectOptions {
        watch_silence_limit: Duration::from_secs(600),
        watch_progress_interval: Duration::from_secs(600),
        keep_alive_interval: Duration::from_secs(5),
        keep_alive_timeout: Duration::from_secs(1),
        ..etcd.connect_options()
    };
    let store = EtcdStore::connect(&options).await.unwrap();
    let watch = store.watch(watching("/p/", None)).await.unwrap();
    etcd.freeze();
    let error = end_of(watch).await;
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn pings_are_slow_enough_for_a_server_with_default_settings() {
    let etcd = TestEtcd::start().await;
    let options = ConnectOptions {
        watch_silence_limit: Duration::from_secs(600),
        watch_progress_interval: Duration::from_secs(600),
        // As much as etcd permits; the default is twice that.
        keep_alive_interval: Duration::from_secs(5),
        ..etcd.connect_options()
    };
    let store = EtcdStore::connect(&options).await.unwrap();
    let mut watch = store.watch(watching("/p/", None)).await.unwrap();
    // Three pings too many would end the connection.
    let quiet = tokio::time::timeout(Duration::from_secs(22), watch.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}
