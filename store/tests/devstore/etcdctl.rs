//! The official client: what people have at hand.

use std::process::{Output, Stdio};
use std::sync::Arc;

use setpoint_store::devstore::Options;
use setpoint_store::testing::find_etcdctl;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::server::{LONG, Server, in_directory, recovered, temporary};

fn etcdctl(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(find_etcdctl());
    command
        .env("ETCDCTL_API", "3")
        // The defaults are 5 s and 2 s: little on a busy machine.
        .args(["--command-timeout=60s", "--dial-timeout=30s"])
        .args(["--endpoints", &server.endpoint])
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn output(server: &Server, args: &[&str]) -> Output {
    tokio::time::timeout(LONG, etcdctl(server, args).output())
        .await
        .expect("etcdctl ends")
        .expect("etcdctl can be started")
}

async fn ok(server: &Server, args: &[&str]) -> String {
    let output = output(server, args).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "etcdctl {args:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

async fn fails(server: &Server, args: &[&str]) -> String {
    let output = output(server, args).await;
    assert!(!output.status.success(), "etcdctl {args:?} went well");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn keys_are_put_read_deleted_and_compacted() {
    let server = Server::memory().await;
    assert_eq!(ok(&server, &["put", "a/1", "one"]).await, "OK\n");
    assert_eq!(ok(&server, &["put", "a/2", "two"]).await, "OK\n");
    let put = ok(&server, &["put", "a/1", "uno", "--prev-kv"]).await;
    assert_eq!(put, "OK\na/1\none\n");
    assert_eq!(ok(&server, &["get", "a/1"]).await, "a/1\nuno\n");
    let keys = ok(&server, &["get", "--prefix", "a/", "--keys-only"]).await;
    assert_eq!(keys, "a/1\n\na/2\n\n");
    let descending = ok(
        &server,
        &["get", "--prefix", "a/", "--order=DESCEND", "--limit=1"],
    )
    .await;
    assert_eq!(descending, "a/2\ntwo\n");
    assert_eq!(ok(&server, &["get", "a/1", "--rev=2"]).await, "a/1\none\n");
    assert_eq!(ok(&server, &["del", "--prefix", "a/"]).await, "2\n");
    assert_eq!(ok(&server, &["get", "--prefix", ""]).await, "");

    assert_eq!(
        ok(&server, &["compaction", "4"]).await,
        "compacted revision 4\n"
    );
    let error = fails(&server, &["get", "a/1", "--rev=3"]).await;
    assert!(error.contains("has been compacted"), "{error}");
    let error = fails(&server, &["compaction", "99"]).await;
    assert!(error.contains("future revision"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_transaction_runs_one_of_its_branches() {
    let server = Server::memory().await;
    ok(&server, &["put", "k", "old"]).await;
    let run = async |text: &str| {
        let mut child = etcdctl(&server, &["txn"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(text.as_bytes()).await.unwrap();
        drop(input);
        let output = child.wait_with_output().await.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = "value(\"k\") = \"old\"\n\nput k new\nget k\n\nget nothing\n\n";
    assert_eq!(run(text).await, "SUCCESS\n\nOK\n\nk\nnew\n");
    assert_eq!(run(text).await, "FAILURE\n\n");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_shows_changes_as_they_happen() {
    let server = Server::memory().await;
    ok(&server, &["put", "w/0", "before"]).await;
    let mut child = etcdctl(
        &server,
        &["watch", "--prefix", "w/", "--rev=2", "--prev-kv"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = async |count: usize| {
        let mut all = Vec::new();
        while all.len() < count {
            let line = tokio::time::timeout(LONG, lines.next_line())
                .await
                .expect("a line comes")
                .unwrap();
            all.push(line.expect("the watch goes on"));
        }
        all
    };
    assert_eq!(read(3).await, ["PUT", "w/0", "before"]);
    ok(&server, &["put", "w/0", "after"]).await;
    assert_eq!(read(5).await, ["PUT", "w/0", "before", "w/0", "after"]);
    ok(&server, &["del", "w/0"]).await;
    assert_eq!(read(4).await, ["DELETE", "w/0", "after", "w/0"]);
    child.kill().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn leases_are_granted_listed_kept_alive_and_revoked() {
    let server = Server::memory().await;
    let granted = ok(&server, &["lease", "grant", "300"]).await;
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(300s)\n"));
    let option = format!("--lease={id}");
    ok(&server, &["put", "leased", "v", &option]).await;
    let listed = ok(&server, &["lease", "list"]).await;
    assert!(listed.contains(&id), "{listed}");
    let left = ok(&server, &["lease", "timetolive", "--keys", &id]).await;
    assert!(left.contains("granted with TTL(300s)"), "{left}");
    assert!(left.contains("attached keys([leased])"), "{left}");
    let kept = ok(&server, &["lease", "keep-alive", "--once", &id]).await;
    assert_eq!(kept, format!("lease {id} keepalived with TTL(300)\n"));
    let revoked = ok(&server, &["lease", "revoke", &id]).await;
    assert_eq!(revoked, format!("lease {id} revoked\n"));
    assert_eq!(ok(&server, &["get", "leased"]).await, "");
    let error = fails(&server, &["lease", "revoke", &id]).await;
    assert!(error.contains("requested lease not found"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn the_endpoint_says_how_it_is() {
    let server = Server::memory().await;
    let health = output(&server, &["endpoint", "health"]).await;
    assert!(health.status.success());
    let text = [health.stdout, health.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("is healthy"), "{text}");

    let status = ok(&server, &["endpoint", "status", "-w", "json"]).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let status = &status[0]["Status"];
    assert_eq!(status["header"]["member_id"], status["leader"]);
    assert!(status["dbSize"].as_i64().unwrap() > 0);

    let members = ok(&server, &["member", "list"]).await;
    assert!(members.contains("devstore"), "{members}");
    assert!(members.contains(&server.endpoint), "{members}");
    let hash = ok(&server, &["endpoint", "hashkv"]).await;
    assert!(hash.starts_with(&server.endpoint), "{hash}");
    assert_eq!(ok(&server, &["alarm", "list"]).await, "");
    ok(&server, &["defrag"]).await;
    let error = fails(&server, &["auth", "enable"]).await;
    assert!(error.contains("no users and roles"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_saved_snapshot_begins_another_store() {
    let server = Server::memory().await;
    for n in 0..50 {
        let value = format!("{n}").repeat(4_000);
        ok(&server, &["put", &format!("s/{}", n % 10), &value]).await;
    }
    let directory = temporary();
    let file = directory.path().join("saved.db");
    let path = file.to_str().unwrap();
    let saved = ok(&server, &["snapshot", "save", path]).await;
    assert!(saved.contains(path), "{saved}");
    let before = ok(&server, &["get", "--prefix", "s/", "-w", "json"]).await;
    server.stop().await;

    let restore = |into: &str, file| Options {
        restore: Some(file),
        ..in_directory(&directory.path().join(into))
    };
    let server = Server::start(restore("one", file.clone())).await;
    assert_eq!(server.recovery.revision, 51);
    let after = ok(&server, &["get", "--prefix", "s/", "-w", "json"]).await;
    let kvs = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["kvs"].take();
    assert_eq!(kvs(&after), kvs(&before));
    ok(&server, &["put", "s/new", "1"]).await;
    server.stop().await;
    let again = recovered(in_directory(&directory.path().join("one"))).unwrap();
    assert_eq!(again.revision, 52);

    // A store is not restored over, and no other file is taken for a snapshot.
    let error = recovered(restore("one", file.clone())).unwrap_err();
    assert!(
        error.to_string().contains("holds a store already"),
        "{error}"
    );
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = directory.path().join("damaged.db");
    std::fs::write(&damaged, &bytes).unwrap();
    let error = recovered(restore("two", damaged)).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    let foreign = directory.path().join("foreign.db");
    std::fs::write(&foreign, [1; 4096]).unwrap();
    let error = recovered(restore("three", foreign)).unwrap_err();
    assert!(error.to_string().contains("is not a snapshot"), "{error}");
}

#[tokio::test]
async fn many_clients_at_once_get_what_they_ask_for() {
    let server = Arc::new(Server::memory().await);
    let clients = (0..4).map(|n| {
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let key = format!("c/{n}");
            ok(&server, &["put", &key, "v"]).await;
            assert_eq!(ok(&server, &["get", &key]).await, format!("{key}\nv\n"));
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let count = ok(
        &server,
        &["get", "--prefix", "c/", "--count-only", "-w", "fields"],
    )
    .await;
    assert!(count.contains("\"Count\" : 4"), "{count}");
}
