//! What group commit makes of etcd: items per second against single transactions and against fixed batches, in one run on
//! one etcd. Prints one JSON object.
//!
//! `cargo run --release -p setpoint-store --example bench_store [-- --etcd ENDPOINT] [--seconds 3]`; without an endpoint
//! it starts an etcd of its own. An item is what a bind is: two guards, two puts, one of them 1 kB.

#![expect(clippy::print_stdout, reason = "the result is its output")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use setpoint_store::etcd::ConnectOptions;
use setpoint_store::group_commit::{GroupCommit, Item, ItemOutcome, Options};
use setpoint_store::testing::{Options as EtcdOptions, TestEtcd, clear};
use setpoint_store::{Compare, EtcdStore, Put, SharedStore, Txn, TxnOp};
use tokio::time::Instant;

/// Items that wait for their outcome at a time.
const IN_FLIGHT: usize = 64;
/// Keys are written over and over, so that etcd does not grow while it is measured.
const KEYS: u64 = 20_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse()?;
    let (_own, options) = match &args.etcd {
        Some(endpoint) => (None, ConnectOptions::new([endpoint])),
        None => {
            let args = [
                "--quota-backend-bytes=8589934592",
                "--auto-compaction-mode=revision",
                "--auto-compaction-retention=10000",
            ];
            let etcd = TestEtcd::start_with(EtcdOptions {
                args: args.map(str::to_owned).into(),
                ..EtcdOptions::default()
            })
            .await;
            let options = etcd.connect_options();
            (Some(etcd), options)
        }
    };
    let store: SharedStore = Arc::new(EtcdStore::connect(&options).await?);
    let bench = Arc::new(Bench {
        store,
        seconds: args.seconds,
        next: AtomicU64::new(0),
        value: Bytes::from(vec![b'x'; 1024]),
    });

    bench.singles(IN_FLIGHT).await?;
    let singles = bench.singles(IN_FLIGHT).await?;
    let mut loops = Vec::new();
    for (size, in_flight) in [
        (8, 8),
        (16, 4),
        (21, 3),
        (32, 2),
        (64, 1),
        (120, 4),
        (120, 8),
    ] {
        loops.push((size, in_flight, bench.batches(size, in_flight).await?));
    }
    let best = |fits: &dyn Fn(usize) -> bool| {
        loops
            .iter()
            .filter(|(size, in_flight, _)| fits(size * in_flight))
            .map(|(.., rate)| *rate)
            .fold(0.0, f64::max)
    };
    let same_in_flight = best(&|items| items <= IN_FLIGHT);
    let any_in_flight = best(&|_| true);
    let (grouped, mean_batch) = bench.grouped(IN_FLIGHT).await?;
    let (grouped_many, mean_batch_many) = bench.grouped(1024).await?;
    let (plain, idle) = bench.idle_latency().await?;
    clear(&*bench.store, "/bench/").await;

    let result = serde_json::json!({
        "in_flight": IN_FLIGHT,
        "raw_single_per_second": singles.round(),
        "raw_batch_per_second": same_in_flight.round(),
        "group_commit_per_second": grouped.round(),
        "group_commit_mean_batch": round(mean_batch),
        "to_single_ratio": round(grouped / singles),
        "to_batch_ratio": round(grouped / same_in_flight),
        "raw_batch_unlimited_per_second": any_in_flight.round(),
        "group_commit_1024_in_flight_per_second": grouped_many.round(),
        "group_commit_1024_in_flight_mean_batch": round(mean_batch_many),
        "plain_latency_us": plain.as_micros() as u64,
        "idle_latency_us": idle.as_micros() as u64,
        "idle_latency_ratio": round(idle.as_secs_f64() / plain.as_secs_f64()),
        "loops": loops.iter().map(|(size, in_flight, rate)| {
            serde_json::json!({ "items": size, "in_flight": in_flight, "per_second": rate.round() })
        }).collect::<Vec<_>>(),
    });
    println!("{result:#}");
    Ok(())
}

struct Args {
    etcd: Option<String>,
    seconds: f64,
}

impl Args {
    fn parse() -> anyhow::Result<Self> {
        let mut args = Self {
            etcd: None,
            seconds: 3.0,
        };
        let mut given = std::env::args().skip(1);
        while let Some(name) = given.next() {
            let value = given
                .next()
                .with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--etcd" => args.etcd = Some(value),
                "--seconds" => args.seconds = value.parse().context("--seconds")?,
                _ => bail!("unknown flag {name}"),
            }
        }
        Ok(args)
    }
}

struct Bench {
    store: SharedStore,
    seconds: f64,
    next: AtomicU64,
    value: Bytes,
}

impl Bench {
    fn item(&self) -> Item {
        let n = self.next.fetch_add(1, Ordering::Relaxed) % KEYS;
        let put = |key: String, value: Bytes| {
            TxnOp::Put(Put {
                key,
                value,
                lease: None,
            })
        };
        Item {
            guards: vec![
                Compare::absent("/bench/epoch"),
                Compare::absent(format!("/bench/guard/{n}")),
            ],
            then: vec![
                put(
                    format!("/bench/binding/{n}"),
                    Bytes::from_static(b"node: n1\nplacement: 1\n"),
                ),
                put(format!("/bench/copy/{n}"), self.value.clone()),
            ],
            context: String::new(),
        }
    }

    /// Runs `step`, which does so many items at a time, in so many tasks; items per second.
    async fn rate<F, Fut>(
        self: &Arc<Self>,
        tasks: usize,
        items: usize,
        step: F,
    ) -> anyhow::Result<f64>
    where
        F: Fn(Arc<Self>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = anyhow::Result<()>> + Send,
    {
        let started = Instant::now();
        let until = started + Duration::from_secs_f64(self.seconds);
        let workers: Vec<_> = (0..tasks)
            .map(|_| {
                let (bench, step) = (Arc::clone(self), step.clone());
                tokio::spawn(async move {
                    let mut done = 0;
                    while Instant::now() < until {
                        step(Arc::clone(&bench)).await?;
                        done += items;
                    }
                    anyhow::Ok(done)
                })
            })
            .collect();
        let mut done = 0;
        for worker in workers {
            done += worker.await??;
        }
        Ok(done as f64 / started.elapsed().as_secs_f64())
    }

    async fn singles(self: &Arc<Self>, in_flight: usize) -> anyhow::Result<f64> {
        self.rate(in_flight, 1, |bench| async move {
            let item = bench.item();
            let done = bench
                .store
                .txn(Txn {
                    compares: item.guards,
                    then: item.then,
                    or_else: vec![],
                })
                .await?;
            anyhow::ensure!(done.succeeded);
            Ok(())
        })
        .await
    }

    async fn batches(self: &Arc<Self>, size: usize, in_flight: usize) -> anyhow::Result<f64> {
        self.rate(in_flight, size, move |bench| async move {
            let nested = |item: Item| {
                TxnOp::Txn(Box::new(Txn {
                    compares: item.guards,
                    then: item.then,
                    or_else: vec![],
                }))
            };
            let then = (0..size).map(|_| nested(bench.item())).collect();
            let done = bench
                .store
                .txn(Txn {
                    then,
                    ..Txn::default()
                })
                .await?;
            anyhow::ensure!(
                done.nested
                    .iter()
                    .all(|nested| nested.as_ref().is_some_and(|nested| nested.succeeded))
            );
            Ok(())
        })
        .await
    }

    async fn grouped(self: &Arc<Self>, in_flight: usize) -> anyhow::Result<(f64, f64)> {
        let commit = GroupCommit::new(Arc::clone(&self.store), Options::default());
        let submit = commit.clone();
        let rate = self
            .rate(in_flight, 1, move |bench| {
                let outcome = submit.submit(bench.item());
                async move {
                    match outcome.await {
                        ItemOutcome::Committed { .. } => Ok(()),
                        other => bail!("{other:?}"),
                    }
                }
            })
            .await?;
        let stats = commit.stats();
        Ok((rate, stats.items as f64 / stats.batches as f64))
    }

    /// Median latency of a plain transaction, and of an item on an idle line. They take turns, so that both see the same
    /// machine.
    async fn idle_latency(self: &Arc<Self>) -> anyhow::Result<(Duration, Duration)> {
        let commit = GroupCommit::new(Arc::clone(&self.store), Options::default());
        let (mut plain, mut idle) = (Vec::new(), Vec::new());
        let until = Instant::now() + Duration::from_secs_f64(self.seconds);
        while Instant::now() < until {
            let item = self.item();
            let started = Instant::now();
            self.store
                .txn(Txn {
                    compares: item.guards,
                    then: item.then,
                    or_else: vec![],
                })
                .await?;
            plain.push(started.elapsed());
            let item = self.item();
            let started = Instant::now();
            if commit.submit(item).await.committed().is_none() {
                bail!("an item was not committed");
            }
            idle.push(started.elapsed());
        }
        plain.sort_unstable();
        idle.sort_unstable();
        Ok((plain[plain.len() / 2], idle[idle.len() / 2]))
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
