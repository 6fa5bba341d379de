//! Leases kept alive: many over one stream, through restarts, and lost only when they are.

use std::collections::BTreeSet;
use std::time::Duration;

use setpoint_store::etcd::ConnectOptions;
use setpoint_store::testing::TestEtcd;
use setpoint_store::{EtcdStore, LeaseKeeper, LeaseState, Store, StoreError, Txn};
use tokio::time::Instant;

use crate::support::{soon, until};

#[tokio::test]
async fn a_kept_lease_outlives_its_time_and_ends_with_its_keeper() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.store().await;
    let key = etcd.prefix("keeper");
    let started = Instant::now();
    // Long enough for a renewal on a busy machine.
    let ttl = Duration::from_secs(5);
    let keeper = LeaseKeeper::grant(store.clone(), ttl).await.unwrap();
    store
        .txn(Txn::new().put_with_lease(&key, "v", keeper.id()))
        .await
        .unwrap();
    let state = keeper.state();
    soon(
        "a renewal after its time",
        state.wait_for(|state| match state {
            LeaseState::Alive { valid_until } => {
                *valid_until > started + ttl * 2 + Duration::from_secs(1)
            }
            LeaseState::Lost => panic!("lost"),
        }),
    )
    .await;
    assert!(store.get(&key).await.unwrap().0.is_some());
    drop(keeper);
    until("the key expires", || async {
        store.get(&key).await.unwrap().0.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_somebody_else_revokes_is_lost() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.store().await;
    let keeper = LeaseKeeper::grant(store.clone(), Duration::from_secs(6))
        .await
        .unwrap();
    assert!(!keeper.is_lost());
    store.lease_revoke(keeper.id()).await.unwrap();
    soon("the loss", keeper.lost()).await;
    keeper.revoke().await.unwrap();
}

#[tokio::test]
async fn revoking_takes_the_keys_along_at_once() {
    let etcd = TestEtcd::shared().await;
    let store = etcd.store().await;
    let key = etcd.prefix("revoke");
    let keeper = LeaseKeeper::grant(store.clone(), Duration::from_secs(600))
        .await
        .unwrap();
    store
        .txn(Txn::new().put_with_lease(&key, "v", keeper.id()))
        .await
        .unwrap();
    keeper.revoke().await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().0, None);
}

#[tokio::test]
async fn a_lease_survives_a_restart_of_the_server() {
    let etcd = TestEtcd::start().await;
    let store = etcd.store().await;
    let keeper = LeaseKeeper::grant(store.clone(), Duration::from_secs(6))
        .await
        .unwrap();
    let key = "/lease/a";
    store
        .txn(Txn::new().put_with_lease(key, "v", keeper.id()))
        .await
        .unwrap();
    for _ in 0..2 {
        etcd.restart().await;
        let restarted = Instant::now();
        let state = keeper.state();
        let renewed = |state: &LeaseState| matches!(state, LeaseState::Alive { valid_until } if *valid_until > restarted + Duration::from_secs(6));
        soon("a renewal by the new server", state.wait_for(renewed)).await;
    }
    assert!(!keeper.is_lost() && store.get(key).await.unwrap().0.is_some());
}

#[tokio::test]
async fn all_leases_of_a_process_share_one_stream() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    let mut leases = Vec::new();
    for _ in 0..50 {
        leases.push(store.lease_grant(Duration::from_secs(60)).await.unwrap().0);
    }
    assert_eq!(
        leases
            .iter()
            .map(|lease| lease.0)
            .collect::<BTreeSet<_>>()
            .len(),
        50
    );
    let gone = leases[7];
    store.lease_revoke(gone).await.unwrap();
    for _ in 0..3 {
        let renewals =
            futures::future::join_all(leases.iter().map(|lease| store.lease_renew(*lease))).await;
        for (lease, renewal) in leases.iter().zip(renewals) {
            match renewal {
                Err(StoreError::LeaseNotFound { .. }) => assert_eq!(*lease, gone),
                other => assert_eq!(other.unwrap(), Duration::from_secs(60)),
            }
        }
    }
    let script = format!("curl -s {}/metrics", etcd.endpoint());
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .output()
        .unwrap();
    let metrics = String::from_utf8_lossy(&output.stdout).into_owned();
    let started = metrics
        .lines()
        .find(|line| {
            line.starts_with("grpc_server_started_total") && line.contains("LeaseKeepAlive")
        })
        .and_then(|line| line.rsplit(' ').next());
    assert_eq!(started, Some("1"), "{metrics}");
}

#[tokio::test]
async fn renewals_fail_together_when_the_stream_breaks_and_go_on_afterwards() {
    let etcd = TestEtcd::start().await;
    let store = etcd.connect().await;
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(store.lease_grant(Duration::from_secs(60)).await.unwrap().0);
    }
    store.lease_renew(leases[0]).await.unwrap();
    etcd.freeze();
    let waiting: Vec<_> = leases
        .iter()
        .map(|lease| {
            let (store, lease) = (store.clone(), *lease);
            tokio::spawn(async move { store.lease_renew(lease).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    etcd.kill();
    for renewal in waiting {
        let error = soon("the renewal's end", renewal)
            .await
            .unwrap()
            .unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    etcd.restart().await;
    for lease in leases {
        until("the lease is renewed", || async {
            store.lease_renew(lease).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn a_member_that_is_silent_from_the_start_costs_one_renewal_and_not_the_lease() {
    let etcd = TestEtcd::shared().await;
    let (lease, _) = etcd
        .connect()
        .await
        .lease_grant(Duration::from_secs(600))
        .await
        .unwrap();
    // Connections to it succeed, and nothing is ever answered.
    let silent = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent_endpoint = format!("http://{}", silent.local_addr().unwrap());
    let options = ConnectOptions {
        request_timeout: Duration::from_secs(600),
        ..ConnectOptions::new([silent_endpoint, etcd.endpoint()])
    };
    let store = EtcdStore::connect(&options).await.unwrap();
    // As long as the keeper of a lease of 3 s waits.
    let patience = Duration::from_secs(1);
    let first = tokio::time::timeout(patience, store.lease_renew(lease)).await;
    assert!(first.is_err(), "{first:?}");
    soon("the next renewal", store.lease_renew(lease))
        .await
        .unwrap();
}
