//! What is particular to the client of etcd.

use setpoint_store::testing::TestEtcd;
use setpoint_store::{RangeRequest, Store};

use crate::support::{put, under};

#[tokio::test]
async fn keys_that_are_not_text_are_skipped_and_counted() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    put(&store, "/x/a", "1").await;
    put(&store, "/x/z", "1").await;
    // printf makes the bytes that no Rust string can hold.
    for n in 0..3 {
        let script = format!(
            "etcdctl --endpoints {} put \"$(printf '/x/b\\377%d' {n})\" v",
            etcd.endpoint()
        );
        let status = std::process::Command::new("sh")
            .args(["-c", &script])
            .env("ETCDCTL_API", "3")
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
    }
    let mut start = "/x/".to_owned();
    let mut found = Vec::new();
    loop {
        let page = store
            .range(RangeRequest {
                start,
                limit: 1,
                ..under("/x/")
            })
            .await
            .unwrap();
        found.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        match page.kvs.last() {
            Some(last) if page.more => start = format!("{}\0", last.key),
            _ => break,
        }
    }
    assert_eq!(found, ["/x/a", "/x/z"]);
    assert_eq!(store.skipped_keys(), 3);
}

#[tokio::test]
async fn the_status_is_that_of_the_member() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.connect().await;
    let revision = put(&store, etcd.prefix("status"), "v").await;
    let health = store.check().await.unwrap();
    assert!(
        health.status.has_leader
            && health.status.db_size_bytes > 0
            && health.status.db_size_in_use_bytes > 0
    );
    assert!(health.status.revision >= revision && health.status.alarms.is_empty());
    let version = health.version.unwrap();
    assert_eq!(version.to_string(), health.status.version);
}
