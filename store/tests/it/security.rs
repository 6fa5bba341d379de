//! Certificates, users, permissions.

use std::time::Duration;

use setpoint_store::etcd::{ConnectOptions, Credentials, Pem, TlsOptions};
use setpoint_store::testing::TestEtcd;
use setpoint_store::{EtcdStore, Store, StoreError, Txn};

use crate::support::{end_of, events, put, short, soon, under, until, watching};

#[tokio::test]
async fn client_certificates_open_the_door() {
    let etcd = TestEtcd::start_tls().await;
    let store = etcd.connect().await;
    put(&store, "/a", "1").await;
    let mut watch = store.watch(watching("/a", None)).await.unwrap();
    put(&store, "/a", "2").await;
    assert_eq!(short("/a", &events(&mut watch, 1).await), ["+=2"]);
    let (lease, _) = store.lease_grant(Duration::from_secs(10)).await.unwrap();
    store.lease_renew(lease).await.unwrap();

    // The same from files.
    let (ca, certificate, key) = etcd.tls_files("root");
    let tls = TlsOptions {
        ca: Pem::File(ca),
        client: Some((Pem::File(certificate), Pem::File(key))),
        server_name: None,
    };
    let store = EtcdStore::connect(&ConnectOptions {
        tls: Some(tls),
        ..ConnectOptions::new([etcd.endpoint()])
    })
    .await
    .unwrap();
    store.check().await.unwrap();
}

#[tokio::test]
async fn wrong_certificates_are_named_as_the_problem() {
    let (etcd, other) = (TestEtcd::start_tls().await, TestEtcd::start_tls().await);
    let check = |tls: TlsOptions| {
        let options = ConnectOptions {
            tls: Some(tls),
            ..ConnectOptions::new([etcd.endpoint()])
        };
        async move {
            EtcdStore::connect(&options)
                .await
                .unwrap()
                .check()
                .await
                .unwrap_err()
        }
    };
    let ours = etcd.tls_options("root").unwrap();
    let theirs = other.tls_options("root").unwrap();

    let error = check(TlsOptions {
        ca: theirs.ca.clone(),
        ..ours.clone()
    })
    .await;
    assert!(
        matches!(&error, StoreError::Unauthenticated { message, .. } if message.contains("certificate")),
        "{error}"
    );
    // The server's refusal can be lost when it hangs up; the question for it is put all the same.
    for client in [theirs.client, None] {
        let error = check(TlsOptions {
            client,
            ..ours.clone()
        })
        .await;
        let asked = error
            .to_string()
            .contains("does it accept the client's certificate?");
        assert!(
            matches!(&error, StoreError::Unauthenticated { .. }) || asked,
            "{error}"
        );
    }
    let error = check(TlsOptions {
        server_name: Some("example.org".into()),
        ..ours
    })
    .await;
    assert!(
        matches!(&error, StoreError::Unauthenticated { .. }),
        "another name: {error}"
    );

    let plain = ConnectOptions::new([etcd.endpoint().replace("https", "http")]);
    let error = soon("the check's answer", async {
        EtcdStore::connect(&plain).await.unwrap().check().await
    })
    .await
    .unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    let missing = Pem::File("/nonexistent/ca.pem".into());
    let options = ConnectOptions {
        tls: Some(TlsOptions {
            ca: missing,
            client: None,
            server_name: None,
        }),
        ..ConnectOptions::new([etcd.endpoint()])
    };
    let error = EtcdStore::connect(&options).await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains("/nonexistent/ca.pem cannot be read"),
        "{error}"
    );
}

/// An etcd with the users root and alice, who may use `/alice/`.
async fn with_users() -> TestEtcd {
    let etcd = TestEtcd::start().await;
    for args in [
        &["user", "add", "root:secret"][..],
        &["user", "add", "alice:wonder"],
        &["role", "add", "alice"],
        &[
            "role",
            "grant-permission",
            "alice",
            "readwrite",
            "/alice/",
            "/alice0",
        ],
        &["user", "grant-role", "alice", "alice"],
        &["auth", "enable"],
    ] {
        etcd.etcdctl(args);
    }
    etcd
}

fn as_user(etcd: &TestEtcd, name: &str, password: &str) -> ConnectOptions {
    let user = Credentials {
        name: name.into(),
        password: password.into(),
    };
    ConnectOptions {
        user: Some(user),
        ..etcd.connect_options()
    }
}

#[tokio::test]
async fn users_are_kept_to_their_permissions() {
    let etcd = with_users().await;
    let store = EtcdStore::connect(&as_user(&etcd, "alice", "wonder"))
        .await
        .unwrap();
    store.check().await.unwrap();
    put(&store, "/alice/a", "1").await;
    let mut watch = store.watch(watching("/alice/", None)).await.unwrap();
    put(&store, "/alice/a", "2").await;
    assert_eq!(short("/alice/", &events(&mut watch, 1).await), ["+a=2"]);
    let (lease, _) = store.lease_grant(Duration::from_secs(10)).await.unwrap();
    store.lease_renew(lease).await.unwrap();

    for error in [
        store.txn(Txn::new().put("/bob/a", "1")).await.unwrap_err(),
        store.range(under("/bob/")).await.unwrap_err(),
        match store.watch(watching("/bob/", None)).await {
            Ok(watch) => end_of(watch).await,
            Err(error) => error,
        },
    ] {
        assert!(
            matches!(error, StoreError::PermissionDenied { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn wrong_or_missing_passwords_are_named() {
    let etcd = with_users().await;
    let wrong = EtcdStore::connect(&as_user(&etcd, "alice", "wrong"))
        .await
        .unwrap();
    let nobody = EtcdStore::connect(&etcd.connect_options()).await.unwrap();
    for error in [
        wrong.get("/alice/a").await.unwrap_err(),
        wrong.watch(watching("/alice/", None)).await.err().unwrap(),
        wrong.check().await.unwrap_err(),
        nobody.get("/alice/a").await.unwrap_err(),
        nobody
            .txn(Txn::new().put("/alice/a", "1"))
            .await
            .unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::Unauthenticated { .. }),
            "{error}"
        );
    }
    let error = nobody.get("/alice/a").await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("give --user, or a client certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn a_login_is_renewed_when_the_server_has_forgotten_it() {
    let etcd = with_users().await;
    let store = EtcdStore::connect(&as_user(&etcd, "alice", "wonder"))
        .await
        .unwrap();
    let (lease, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
    put(&store, "/alice/a", "1").await;
    // Simple tokens die with the server.
    etcd.restart().await;
    until("the server is back", || async {
        store.status().await.is_ok()
    })
    .await;
    let _watch = store.watch(watching("/alice/", None)).await.unwrap();
    put(&store, "/alice/a", "2").await;
    until("the lease is renewed", || async {
        store.lease_renew(lease).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_password_that_the_server_does_not_ask_for_does_no_harm() {
    let etcd = TestEtcd::start().await;
    let store = EtcdStore::connect(&as_user(&etcd, "alice", "wonder"))
        .await
        .unwrap();
    put(&store, "/a", "1").await;
    let _watch = store.watch(watching("/a", None)).await.unwrap();
}
