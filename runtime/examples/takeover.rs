//! How long a controller is without a leader, with a real etcd: from the death of the leader, or from the request to end,
//! to the first write of the next one. Prints one line per kind of end.
//!
//! `SETPOINT_ETCD=$(scripts/etcd.sh --quiet) cargo run -p setpoint-runtime --example takeover -- 20`
//!
//! Leader and standby are tasks of one process, each with a connection of its own. A leader is killed by dropping its
//! tasks and its connection, at a random time after its last keep-alive.

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_runtime::{CacheBuilder, Elector, Leader, Shards, Write, WriteOutcome};
use setpoint_store::SharedStore;
use setpoint_store::etcd::{ConnectOptions, EtcdStore};
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::task::Process;
use setpoint_store::testing::TestEtcd;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TTL: Duration = Duration::from_secs(3);

struct Replica {
    process: Process,
    shutdown: CancellationToken,
}

/// A replica that writes once whenever it begins to lead, and says when that was done.
async fn replica(
    endpoint: &str,
    name: String,
    sharded: bool,
    led: mpsc::Sender<Instant>,
) -> Replica {
    let process = Process::new();
    let shutdown = CancellationToken::new();
    let options = ConnectOptions {
        endpoints: vec![endpoint.to_owned()],
        ..ConnectOptions::default()
    };
    let stop = shutdown.clone();
    let (warm, is_warm) = tokio::sync::oneshot::channel();
    tokio::spawn(process.own(async move {
        let store: SharedStore = Arc::new(EtcdStore::connect(&options).await.expect("connects"));
        let (cache, driver) = CacheBuilder::new().build(store.clone(), Keyspace::default());
        setpoint_store::task::spawn(driver.run());
        cache.ready().await;
        let commits = GroupCommit::new(store.clone(), Options::default());
        let elector = Elector::new(store, commits, cache, name, TTL);
        let _ = warm.send(());
        let lead = move |leader: Leader| first_write(leader, led.clone());
        if sharded {
            elector
                .run_sharded("bench", Shards::DEFAULT, stop, lead)
                .await;
        } else {
            elector.run("bench", stop, lead).await;
        }
        elector.resign().await;
    }));
    is_warm.await.expect("a replica starts");
    Replica { process, shutdown }
}

async fn first_write(leader: Leader, led: mpsc::Sender<Instant>) {
    let name = match leader.shard() {
        Some(shard) => format!("bench-{shard}"),
        None => "bench".to_owned(),
    };
    let key = Key::Desired("configmaps", ObjectKey::namespaced("default", name));
    let write = Write::put("a first write", leader.keyspace().build(&key), "x: 1\n");
    if let Ok(outcomes) = leader.commit_only(vec![write]).await
        && let [WriteOutcome::Committed(_)] = outcomes[..]
    {
        let _ = led.send(Instant::now()).await;
    }
    leader.lost().cancelled().await;
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Killed,
    Asked,
}

async fn measure(end: End, sharded: bool, rounds: usize) -> Vec<Duration> {
    let etcd = TestEtcd::start().await;
    let endpoint = etcd.endpoint();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut measured = Vec::with_capacity(rounds);
    // All of the work is led again when so many have written.
    let shards = usize::from(if sharded { Shards::DEFAULT.count() } else { 1 });
    let (led, mut wrote) = mpsc::channel(1024);
    let mut leader = replica(&endpoint, "0".into(), sharded, led.clone()).await;
    for _ in 0..shards {
        wrote.recv().await;
    }
    for round in 1..=rounds {
        let standby = replica(&endpoint, round.to_string(), sharded, led.clone()).await;
        tokio::time::sleep(TTL + TTL.mul_f64(rng.f64() / 3.0)).await;
        let moved = std::iter::from_fn(|| wrote.try_recv().ok()).count();
        let begin = Instant::now();
        match end {
            End::Killed => leader.process.kill(),
            End::Asked => leader.shutdown.cancel(),
        }
        let mut last = begin;
        for _ in moved..shards {
            last = wrote.recv().await.expect("somebody leads");
        }
        measured.push(last - begin);
        leader = standby;
    }
    leader.process.kill();
    measured.sort_unstable();
    measured
}

#[expect(clippy::print_stdout, reason = "a program that prints figures")]
#[tokio::main]
async fn main() {
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok());
    let rounds = rounds.unwrap_or(10).max(1);
    for (name, end, sharded) in [
        ("asked to end", End::Asked, false),
        ("killed", End::Killed, false),
        ("asked to end, 64 shards", End::Asked, true),
        ("killed, 64 shards", End::Killed, true),
    ] {
        let times = measure(end, sharded, rounds).await;
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        println!(
            "{name}, lease {TTL:?}, {rounds} times: median {} ms, longest {} ms",
            at(0.5).as_millis(),
            at(1.0).as_millis()
        );
    }
}
