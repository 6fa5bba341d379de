//! Servers that are not there, freeze, die, or are full.

use std::net::Ipv4Addr;
use std::time::Duration;

use setpoint_store::etcd::ConnectOptions;
use setpoint_store::testing::{Options, TestEtcd};
use setpoint_store::{EtcdStore, Store, StoreError, Txn, TxnOp};

use crate::support::{put, soon, under, until, watching};

/// A port that nobody is given.
const NOBODY: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn a_missing_server_is_named_in_clear_words() {
    let store = EtcdStore::connect(&ConnectOptions::new([NOBODY]))
        .await
        .unwrap();
    let error = store.check().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "checking etcd: etcd is not reachable: etcd at {NOBODY} does not answer (connection refused): is it running, \
             and is that its client URL?"
        )
    );
    // Nothing was sent, and that is known, for writes as well.
    let error = store.txn(Txn::new().put("/a", "1")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    for error in [
        store.get("/a").await.unwrap_err(),
        store.watch(watching("/a", None)).await.err().unwrap(),
        store.lease_grant(Duration::from_secs(5)).await.unwrap_err(),
        store
            .lease_renew(setpoint_store::LeaseId(1))
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("connection refused"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_no_etcd_is_named_as_well() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let store = EtcdStore::connect(&ConnectOptions::new([&endpoint]))
        .await
        .unwrap();
    let error = soon("the check's answer", store.check()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("etcd at {endpoint} does not answer")),
        "{error}"
    );
}

#[tokio::test]
async fn calls_go_to_the_endpoint_that_lives() {
    let etcd = TestEtcd::start().await;
    let options = ConnectOptions::new([NOBODY, &etcd.endpoint(), NOBODY]);
    let fresh = || async { EtcdStore::connect(&options).await.unwrap() };
    // Each kind of call finds its way, writes included: what was not sent may be sent elsewhere.
    put(&fresh().await, "/a", "1").await;
    assert!(fresh().await.get("/a").await.unwrap().0.is_some());
    let (lease, _) = fresh()
        .await
        .lease_grant(Duration::from_secs(10))
        .await
        .unwrap();
    let store = fresh().await;
    let mut renewals = 0;
    while store.lease_renew(lease).await.is_err() {
        renewals += 1;
        assert!(
            renewals < 3,
            "each failed stream moves on to the next endpoint"
        );
    }
    let _watch = fresh().await.watch(watching("/a", None)).await.unwrap();
    assert!(fresh().await.check().await.is_ok());
}

#[tokio::test]
async fn a_frozen_endpoint_is_left_for_the_next() {
    let (frozen, alive) = (TestEtcd::start().await, TestEtcd::start().await);
    let options = ConnectOptions {
        request_timeout: Duration::from_secs(4),
        ..ConnectOptions::new([frozen.endpoint(), alive.endpoint()])
    };
    let store = EtcdStore::connect(&options).await.unwrap();
    put(&store, "/a", "1").await;
    frozen.freeze();
    let write = store.txn(Txn::new().put("/a", "2"));
    let error = soon("the write's end", write).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Unknown { .. }),
        "sent and not answered: {error}"
    );
    assert!(error.to_string().contains("no answer within 4s"), "{error}");
    put(&store, "/a", "3").await;
    assert_eq!(
        &*alive
            .connect()
            .await
            .get("/a")
            .await
            .unwrap()
            .0
            .unwrap()
            .value,
        b"3"
    );
    frozen.thaw();
}

#[tokio::test]
async fn what_was_sent_and_not_answered_has_an_unknown_outcome() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    put(&store, "/u/a", "1").await;
    etcd.freeze();
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.txn(Txn::new().put("/u/a", "2")).await }
    });
    let read = tokio::spawn({
        let store = store.clone();
        async move { store.get("/u/a").await }
    });
    // Both are on the wire, or at least nobody can know that they are not.
    tokio::time::sleep(Duration::from_millis(300)).await;
    etcd.kill();
    let error = soon("the write's end", write).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    let error = soon("the read's end", read).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");

    etcd.restart().await;
    until("the store works again", || async {
        store.get("/u/a").await.is_ok()
    })
    .await;
    put(&store, "/u/a", "3").await;
}

#[tokio::test]
async fn a_restarted_server_is_found_again_by_the_next_call() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    for n in 0..3 {
        put(&store, "/a", n.to_string()).await;
        etcd.restart().await;
        // Not even one call fails when nothing was under way.
        put(&store, "/a", "after").await;
    }
}

#[tokio::test]
async fn a_full_server_refuses_puts_and_serves_the_rest() {
    let etcd = TestEtcd::start_with(Options {
        quota_bytes: Some(8 << 20),
        ..Options::default()
    })
    .await;
    let store = etcd.connect().await;
    let value = "x".repeat(1 << 20);
    put(&store, "/n/small", "1").await;
    let error = soon("no space", async {
        for n in 0.. {
            let txn = Txn::new().put(format!("/n/{n}"), value.clone());
            if let Err(error) = store.txn(txn).await {
                return error;
            }
        }
        unreachable!()
    })
    .await;
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert_eq!(error.outcome(), setpoint_store::Outcome::Unknown);
    let error = store.lease_grant(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");

    assert!(store.get("/n/small").await.unwrap().0.is_some());
    let count = store.range(under("/n/")).await.unwrap().count;
    let health = store.check().await.unwrap();
    assert_eq!(health.status.alarms, ["NOSPACE"]);
    assert!(
        health
            .warnings
            .iter()
            .any(|warning| warning.contains("out of space")),
        "{:?}",
        health.warnings
    );
    let delete = store.txn(Txn::new().delete("/n/0")).await.unwrap();
    assert!(delete.succeeded);
    assert_eq!(store.range(under("/n/")).await.unwrap().count, count - 1);

    let rest = TxnOp::DeleteRange {
        start: "/n/".into(),
        end: "/n0".into(),
    };
    let emptied = store
        .txn(Txn {
            then: vec![rest],
            ..Txn::default()
        })
        .await
        .unwrap();
    etcd.etcdctl(&["compact", "--physical", &emptied.revision.to_string()]);
    etcd.etcdctl(&["defrag"]);
    etcd.etcdctl(&["alarm", "disarm"]);
    put(&store, "/n/small", "2").await;
    assert!(store.check().await.unwrap().status.alarms.is_empty());
}
