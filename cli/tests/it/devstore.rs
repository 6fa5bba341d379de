//! `setpoint devstore` as a process: its words, and what it keeps when it is killed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use setpoint_store::{ConnectOptions, EtcdStore, SharedStore, Txn};

use crate::fixture::{Running, program, run_alone, run_alone_with_input};

const WRITERS: usize = 16;

async fn start(directory: &Path) -> (Running, String) {
    let mut command = program();
    command
        .args(["devstore", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory);
    let running = Running::start(command);
    let said = running
        .until("the address", |text| text.contains("for development"))
        .await;
    (running, said)
}

async fn connect(said: &str) -> SharedStore {
    let (_, rest) = said.split_once("etcd's API on ").expect("the address");
    let (endpoint, _) = rest.split_once(',').expect("a place after it");
    let options = ConnectOptions::new([endpoint.to_owned()]);
    Arc::new(EtcdStore::connect(&options).await.expect("it connects"))
}

/// Writes 1, 2, 3 ... to a key until the store is gone, and counts what was acknowledged.
async fn count(store: SharedStore, key: String, acknowledged: Arc<AtomicU64>) {
    loop {
        let next = acknowledged.load(Ordering::SeqCst) + 1;
        let txn = Txn::new().put(key.clone(), next.to_string());
        if store.txn(txn).await.is_err() {
            return;
        }
        acknowledged.store(next, Ordering::SeqCst);
    }
}

async fn stored(store: &SharedStore, key: &str) -> u64 {
    let (kv, _) = store.get(key).await.expect("a read");
    kv.map_or(0, |kv| {
        String::from_utf8_lossy(&kv.value)
            .parse()
            .expect("a number")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_under_load_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let counters: Vec<_> = (0..WRITERS).map(|_| Arc::new(AtomicU64::new(0))).collect();
    for round in 1..=4_u64 {
        let (running, said) = start(directory.path()).await;
        let store = connect(&said).await;
        assert_eq!(said.contains("recovered revision"), round > 1, "{said}");
        for (n, counter) in counters.iter().enumerate() {
            let (stored, acknowledged) = (
                stored(&store, &format!("count/{n}")).await,
                counter.load(Ordering::SeqCst),
            );
            // One write may have been under way.
            assert!(
                stored == acknowledged || stored == acknowledged + 1,
                "{stored} is stored, {acknowledged} was acknowledged"
            );
            counter.store(stored, Ordering::SeqCst);
        }
        let writers: Vec<_> = counters
            .iter()
            .enumerate()
            .map(|(n, counter)| {
                let counter = Arc::clone(counter);
                tokio::spawn(count(store.clone(), format!("count/{n}"), counter))
            })
            .collect();
        let last = counters[WRITERS - 1].load(Ordering::SeqCst);
        let load = async {
            while counters[WRITERS - 1].load(Ordering::SeqCst) < last + 40 * round {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(crate::fixture::LONG, load)
            .await
            .expect("writes are acknowledged");
        // SIGKILL.
        drop(running);
        for writer in writers {
            // The client tries again for as long as it may be worth it.
            writer.abort();
            let _ = writer.await;
        }
    }
}

#[test]
fn it_listens_beyond_loopback_only_when_told_to() {
    let refused = run_alone(&["devstore", "--listen", "0.0.0.0:0"]).fails();
    assert!(refused.contains("no users and no TLS"), "{refused}");
    assert!(refused.contains("--listen-anywhere"), "{refused}");
}

#[tokio::test]
async fn it_says_what_it_dropped_and_refuses_what_it_cannot_trust() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log-1");
    let (running, said) = start(directory.path()).await;
    let store = connect(&said).await;
    for n in 0..5 {
        let txn = Txn::new().put(format!("k/{n}"), "value");
        store.txn(txn).await.expect("a write");
    }
    drop(running);
    let mut bytes = std::fs::read(&log).expect("the log");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("an end") + 1;
    bytes.truncate(used - 25);
    std::fs::write(&log, &bytes).expect("the log is cut");
    let (running, said) = start(directory.path()).await;
    assert!(said.contains("recovered revision 5"), "{said}");
    assert!(said.contains("dropped the last"), "{said}");
    drop(running);

    let mut bytes = std::fs::read(&log).expect("the log");
    let at = bytes
        .windows(3)
        .position(|bytes| bytes == b"k/1")
        .expect("a record");
    bytes[at] ^= 1;
    std::fs::write(&log, &bytes).expect("the log is damaged");
    let path = directory.path().to_str().expect("a path");
    let refused = run_alone(&["devstore", "--listen", "127.0.0.1:0", "--data-dir", path]).fails();
    assert!(refused.contains("is damaged at byte"), "{refused}");
    assert!(refused.contains("--truncate-damaged-log"), "{refused}");
}

/// A development store in this process that says to be an etcd of this version.
async fn as_version(version: &str) -> String {
    use setpoint_store::devstore::{DevStore, Options};
    let options = Options {
        model: setpoint_store::model::Config {
            version: version.to_owned(),
            ..setpoint_store::model::Config::default()
        },
        ..Options::default()
    };
    let store = DevStore::open(options).expect("the store opens");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(store.serve(listener, std::future::pending()));
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_must_never_run_twice_is_applied_with_a_warning_where_etcd_has_known_holes() {
    let pod = |name: &str, policy: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  annotations: {{setpoint.dev/partition-policy: {policy}}}\nspec:\n  \
             containers: [{{name: c, image: host, command: [sleep, inf]}}]\n"
        )
    };
    for (version, warns) in [("3.4.23", true), ("3.6.16", false)] {
        let endpoint = as_version(version).await;
        run_alone(&["init", "--endpoints", &endpoint]).ok();
        let apply = |text: &str| {
            run_alone_with_input(&["apply", "-f", "-", "--endpoints", &endpoint], text)
        };
        let ran = apply(&pod("single", "stop"));
        let said = ran.err.contains("pod/single has the partition policy stop")
            && ran.err.contains("etcd 3.4.23 has known holes");
        assert_eq!(said, warns, "{version}: {ran:#?}");
        assert_eq!(ran.ok(), "pod/single created\n");
        let template = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {app: d}}\n  \
                        template:\n    metadata:\n      labels: {app: d}\n      annotations: {setpoint.dev/partition-policy: stop}\n    \
                        spec:\n      containers: [{name: c, image: host, command: [sleep, inf]}]\n";
        let ran = apply(template);
        assert_eq!(ran.err.contains("deployment.apps/d has"), warns, "{ran:#?}");
        let ran = apply(&pod("plain", "keep"));
        assert!(!ran.err.contains("known holes"), "{ran:#?}");
        ran.ok();
    }
}
