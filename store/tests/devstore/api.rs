//! Calls through etcd's client library: limits, errors, HTTP, and what is not supported.

use etcd_client::{GetOptions, PutOptions};
use setpoint_store::devstore::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::server::{LONG, Server, in_directory, temporary};

fn code(error: etcd_client::Error) -> (Code, String) {
    match error {
        etcd_client::Error::GRpcStatus(status) => (status.code(), status.message().to_owned()),
        other => panic!("not an answer of the server: {other}"),
    }
}

#[tokio::test]
async fn requests_have_etcds_limits() {
    let server = Server::memory().await;
    let mut client = server.client().await;
    let (refused, text) = code(client.put("k", vec![1; 1_600_000], None).await.unwrap_err());
    assert_eq!(refused, Code::InvalidArgument);
    assert_eq!(text, "etcdserver: request is too large");
    // Beyond what a gRPC message may be.
    let (refused, text) = code(client.put("k", vec![1; 2_200_000], None).await.unwrap_err());
    assert_eq!(refused, Code::ResourceExhausted);
    assert!(
        text.contains("received message larger than max (2097152 bytes)"),
        "{text}"
    );
    client.put("k", vec![1; 1_500_000], None).await.unwrap();
    // An answer may be larger.
    client.put("l", vec![1; 1_500_000], None).await.unwrap();
    let all = client
        .get("", Some(GetOptions::new().with_all_keys()))
        .await
        .unwrap();
    assert_eq!(all.kvs().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn users_and_members_are_refused_with_a_reason() {
    let server = Server::memory().await;
    let mut client = server.client().await;
    let (refused, text) = code(client.auth_enable().await.unwrap_err());
    assert_eq!(refused, Code::Unimplemented);
    assert!(text.contains("no users and roles"), "{text}");
    let (refused, text) = code(
        client
            .member_add(["http://127.0.0.1:1"], None)
            .await
            .unwrap_err(),
    );
    assert_eq!(refused, Code::Unimplemented);
    assert!(text.contains("one process without members"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn health_and_version_are_plain_http() {
    let server = Server::memory().await;
    let get = async |path: &str| {
        let address = server.endpoint.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let health = get("/health").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(health.contains(r#"{"health":"true""#), "{health}");
    assert!(get("/version").await.contains(r#""etcdserver":"3."#));
    server.stop().await;
}

#[tokio::test]
async fn a_lease_expires_by_itself_and_lives_on_through_a_restart() {
    let directory = temporary();
    let server = Server::start(in_directory(directory.path())).await;
    let mut client = server.client().await;
    let lease = client.lease_grant(600, None).await.unwrap().id();
    let options = PutOptions::new().with_lease(lease);
    client.put("kept", "1", Some(options)).await.unwrap();
    server.stop().await;

    let server = Server::start(in_directory(directory.path())).await;
    let mut client = server.client().await;
    let left = client.lease_time_to_live(lease, None).await.unwrap();
    assert_eq!(left.granted_ttl(), 600);
    assert!(left.ttl() >= 590, "{left:?}");

    let short = client.lease_grant(5, None).await.unwrap().id();
    let (mut keeper, mut answers) = client.lease_keep_alive(short).await.unwrap();
    keeper.keep_alive().await.unwrap();
    assert!(answers.message().await.unwrap().unwrap().ttl() > 0);
    let options = PutOptions::new().with_lease(short);
    let mut gone = client.watch("short", None).await.unwrap();
    client.put("short", "1", Some(options)).await.unwrap();
    let mut deleted = false;
    while !deleted {
        let events = gone.message().await.unwrap().unwrap();
        deleted = events
            .events()
            .iter()
            .any(|event| event.event_type() == etcd_client::EventType::Delete);
    }
    keeper.keep_alive().await.unwrap();
    while answers.message().await.unwrap().unwrap().ttl() > 0 {}
    assert_eq!(client.get("kept", None).await.unwrap().kvs().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn history_is_forgotten_when_it_is_old() {
    let retention = std::time::Duration::from_secs(1);
    let server = Server::start(Options {
        retention: Some(retention),
        ..Options::default()
    })
    .await;
    let mut client = server.client().await;
    let begun = std::time::Instant::now();
    client.put("k", "1", None).await.unwrap();
    client.put("k", "2", None).await.unwrap();
    let old = async || {
        let options = GetOptions::new().with_revision(2);
        client.clone().get("k", Some(options)).await
    };
    let early = old().await;
    assert!(early.is_ok() || begun.elapsed() >= retention, "{early:?}");
    let refused = loop {
        if let Err(error) = old().await {
            break error;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(code(refused).0, Code::OutOfRange);
    let now = client.get("k", None).await.unwrap();
    assert_eq!(now.kvs()[0].value(), b"2");
    server.stop().await;
}

#[tokio::test]
async fn the_versions_of_all_members_that_answer_are_told() {
    use setpoint_store::model::Config;
    use setpoint_store::{ConnectOptions, EtcdStore, Store};
    let member = |version: &str| {
        Server::start(setpoint_store::devstore::Options {
            model: Config {
                version: version.to_owned(),
                ..Config::default()
            },
            ..setpoint_store::devstore::Options::default()
        })
    };
    let (one, other) = (member("3.6.16").await, member("3.4.23").await);
    let gone = member("3.5.33").await;
    let endpoints = [&gone, &one, &other].map(|server| server.endpoint.clone());
    gone.stop().await;
    let store = EtcdStore::connect(&ConnectOptions::new(endpoints.clone()))
        .await
        .unwrap();
    // In the order in which they answer; the second is waited for only a moment when the first has.
    let told = async {
        loop {
            match store.versions().await {
                Ok(mut versions) if versions.len() > 1 => {
                    versions.sort();
                    return versions;
                }
                Ok(_) => {}
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
    };
    let told = tokio::time::timeout(LONG, told).await;
    assert_eq!(told.expect("both are told"), ["3.4.23", "3.6.16"]);
    let store = EtcdStore::connect(&ConnectOptions::new([endpoints[0].clone()]))
        .await
        .unwrap();
    assert!(store.versions().await.unwrap_err().is_retryable());
    one.stop().await;
    other.stop().await;
}
