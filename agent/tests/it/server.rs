//! Logs over HTTP.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use setpoint_agent::layout::DataDir;
use setpoint_agent::server::{Listen, Server, ServerError, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

struct Endpoint {
    address: SocketAddr,
    data: DataDir,
    stop: CancellationToken,
    _tmp: tempfile::TempDir,
}

async fn endpoint() -> Endpoint {
    let tmp = tempfile::tempdir().unwrap();
    let listen = Listen::plain("127.0.0.1:0".parse().unwrap());
    let server = Server::bind(&listen, tmp.path()).await.unwrap();
    let address = server
        .endpoint(listen.address.ip())
        .strip_prefix("http://")
        .unwrap()
        .parse()
        .unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(server.run(stop.clone()));
    Endpoint {
        address,
        data: DataDir::new(tmp.path()),
        stop,
        _tmp: tmp,
    }
}

impl Endpoint {
    async fn ask(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn get(&self, path: &str) -> String {
        let mut text = String::new();
        let mut stream = self.ask(path).await;
        tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut text))
            .await
            .unwrap()
            .unwrap();
        text
    }

    fn log(&self, attempt: u32, lines: &[&str]) {
        let path = self.data.pod("u", 1).log("c", attempt);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::create_dir_all(self.data.pod("u", 1).attempt("c", attempt)).unwrap();
        let text: String = lines
            .iter()
            .map(|l| format!("2026-11-23T10:00:00.000000000Z stdout F {l}\n"))
            .collect();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn the_present_and_the_previous_log_are_served_and_what_is_not_there_is_said() {
    let e = endpoint().await;
    e.log(0, &["old"]);
    e.log(1, &["one", "two"]);
    assert!(e.get("/healthz").await.contains("200 OK"));
    assert!(e.get("/logs/u/1/c").await.contains("one\ntwo\n"));
    let tail = e.get("/logs/u/1/c?tail=1").await;
    assert!(tail.contains("two\n") && !tail.contains("one"));
    assert!(e.get("/logs/u/1/c?previous=true").await.contains("old\n"));
    assert!(e.get("/logs/u/1/d").await.contains("404"));
    assert!(e.get("/logs/u/2/c").await.contains("404"));
    for hostile in [
        "/logs/u/1/..%2f..%2fx",
        "/logs/..%2f..%2fetc/1/c",
        "/logs/u/1/%2e%2e",
    ] {
        let answer = e.get(hostile).await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{hostile}: {answer}");
    }
}

#[tokio::test]
async fn a_followed_log_ends_with_its_container() {
    let e = endpoint().await;
    e.log(0, &["first"]);
    let mut stream = e.ask("/logs/u/1/c?follow=true").await;
    let mut seen = String::new();
    let mut chunk = [0; 1024];
    while !seen.contains("first\n") {
        let n = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut chunk))
            .await
            .unwrap()
            .unwrap();
        assert!(n > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    e.log(0, &["first", "second"]);
    fs::write(e.data.pod("u", 1).attempt("c", 0).join("exit.json"), "{}").unwrap();
    tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut seen))
        .await
        .unwrap()
        .unwrap();
    assert!(seen.contains("second\n"), "{seen}");
}

#[tokio::test]
async fn beyond_loopback_nothing_is_served_that_everybody_may_read_unless_that_is_meant() {
    let tmp = tempfile::tempdir().unwrap();
    let everywhere = Listen::plain("0.0.0.0:0".parse().unwrap());
    let Err(refused) = Server::bind(&everywhere, tmp.path()).await else {
        panic!("it listens");
    };
    assert!(matches!(refused, ServerError::Unprotected(_)));
    assert!(refused.to_string().contains("--listen-insecure"));
    let meant = Listen {
        insecure: true,
        ..everywhere
    };
    let server = Server::bind(&meant, tmp.path()).await.unwrap();
    let endpoint = server.endpoint("192.0.2.7".parse().unwrap());
    assert!(endpoint.starts_with("http://192.0.2.7:"), "{endpoint}");
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named() {
    let tmp = tempfile::tempdir().unwrap();
    let certs = setpoint_store::testing::Certs::write(tmp.path());
    let (ca, _, other_key) = certs.files("someone");
    let (certificate, key) = certs.server("agent", &["127.0.0.1"]);
    let right = TlsFiles {
        certificate,
        key,
        client_ca: ca,
    };
    let bind = async |tls: TlsFiles| {
        let listen = Listen {
            tls: Some(tls),
            ..Listen::plain("0.0.0.0:0".parse().unwrap())
        };
        let server = Server::bind(&listen, tmp.path())
            .await
            .map_err(|error| std::error::Error::source(&error).unwrap().to_string())?;
        Ok::<_, String>(server.endpoint("192.0.2.7".parse().unwrap()))
    };
    assert!(
        bind(right.clone())
            .await
            .unwrap()
            .starts_with("https://192.0.2.7:")
    );
    let missing = TlsFiles {
        client_ca: tmp.path().join("none.pem"),
        ..right.clone()
    };
    assert!(bind(missing).await.unwrap_err().contains("none.pem"));
    let swapped = TlsFiles {
        certificate: right.key.clone(),
        ..right.clone()
    };
    assert!(
        bind(swapped)
            .await
            .unwrap_err()
            .contains("holds no certificate")
    );
    let foreign = TlsFiles {
        key: other_key,
        ..right
    };
    assert!(bind(foreign).await.unwrap_err().contains("cannot be used"));
}
