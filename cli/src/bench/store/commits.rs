//! What group commit makes of etcd: items per second against single transactions and against fixed batches.
//!
//! An item is what a bind is: two guards, two puts, one of them 1 kB.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use serde::Serialize;
use setpoint_store::group_commit::{GroupCommit, Item, ItemOutcome, Options};
use setpoint_store::{Compare, SharedStore, Txn, TxnOp};

use super::{median, round};

/// Items that wait for their outcome at a time where few do: all of them fit one transaction.
const FEW: usize = 64;
/// The same where there is work without end: as many as the largest of the loops holds.
const MANY: usize = 960;
/// Keys are written over and over, so that etcd holds little while it is measured.
const KEYS: u64 = 20_000;
/// No measurement writes more items, because etcd keeps what is overwritten until it is compacted: 18 MB.
const MOST_ITEMS: u64 = 15_000;
/// The loops that a person would write: items per transaction, transactions in flight.
const LOOPS: [(usize, usize); 10] = [
    (8, 8),
    (16, 4),
    (21, 3),
    (32, 2),
    (64, 1),
    (64, 4),
    (120, 2),
    (120, 4),
    (120, 6),
    (120, 8),
];

/// The figures; all are medians over the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// One transaction per item, with [`FEW`] in flight.
    pub(super) raw_single_per_second: f64,
    /// The best loop of all.
    pub(super) raw_batch_per_second: f64,
    pub(super) raw_batch_items: usize,
    pub(super) raw_batch_transactions: usize,
    /// With [`MANY`] items in flight.
    pub(super) group_commit_per_second: f64,
    pub(super) group_commit_mean_batch: f64,
    pub(super) group_to_single_ratio: f64,
    pub(super) group_to_batch_ratio: f64,
    pub(super) few_in_flight: usize,
    pub(super) many_in_flight: usize,
    /// The best loop with no more than [`FEW`] items in flight.
    pub(super) few_raw_batch_per_second: f64,
    pub(super) few_raw_batch_items: usize,
    /// With [`FEW`] items in flight.
    pub(super) few_group_commit_per_second: f64,
    pub(super) few_group_commit_mean_batch: f64,
    pub(super) few_group_to_single_ratio: f64,
    pub(super) few_group_to_batch_ratio: f64,
    pub(super) plain_latency_us: f64,
    pub(super) idle_latency_us: f64,
    pub(super) idle_latency_ratio: f64,
}

/// Measures on `store`, in keys under `prefix`. Every loop runs once to find the best; then what is compared takes
/// turns, `rounds` times, each for `time`.
pub(super) async fn measure(
    store: &SharedStore,
    prefix: &str,
    rounds: u32,
    time: Duration,
) -> Result<Figures> {
    let bench = Arc::new(Bench {
        store: Arc::clone(store),
        prefix: format!("{prefix}/commits"),
        time,
        next: AtomicU64::new(0),
        value: Bytes::from(vec![b'x'; 1024]),
    });
    // The first one fills the keyspace and warms the connection.
    bench.single().await?;
    let mut tried = Vec::new();
    for (items, transactions) in LOOPS {
        tried.push((
            bench.batches(items, transactions).await?,
            (items, transactions),
        ));
    }
    let best = |most: usize| {
        tried
            .iter()
            .filter(|(_, (items, transactions))| items * transactions <= most)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, shape)| *shape)
            .context("there are loops of every size")
    };
    let (few_best, best) = (best(FEW)?, best(usize::MAX)?);
    let mut samples: [Vec<f64>; 7] = Default::default();
    for _ in 0..rounds {
        let (group, batch) = bench.grouped(MANY).await?;
        let (few, few_batch) = bench.grouped(FEW).await?;
        let round = [
            bench.single().await?,
            bench.batches(best.0, best.1).await?,
            group,
            batch,
            bench.batches(few_best.0, few_best.1).await?,
            few,
            few_batch,
        ];
        for (samples, value) in samples.iter_mut().zip(round) {
            samples.push(value);
        }
    }
    let [single, loops, group, batch, few_loops, few, few_batch] =
        samples.map(|mut values| median(&mut values));
    let (plain, idle) = bench.idle_latency(time * rounds).await?;
    Ok(Figures {
        raw_single_per_second: single.round(),
        raw_batch_per_second: loops.round(),
        raw_batch_items: best.0,
        raw_batch_transactions: best.1,
        group_commit_per_second: group.round(),
        group_commit_mean_batch: round(batch),
        group_to_single_ratio: round(group / single),
        group_to_batch_ratio: round(group / loops),
        few_in_flight: FEW,
        many_in_flight: MANY,
        few_raw_batch_per_second: few_loops.round(),
        few_raw_batch_items: few_best.0,
        few_group_commit_per_second: few.round(),
        few_group_commit_mean_batch: round(few_batch),
        few_group_to_single_ratio: round(few / single),
        few_group_to_batch_ratio: round(few / few_loops),
        plain_latency_us: (plain * 1e6).round(),
        idle_latency_us: (idle * 1e6).round(),
        idle_latency_ratio: round(idle / plain),
    })
}

struct Bench {
    store: SharedStore,
    prefix: String,
    time: Duration,
    next: AtomicU64,
    value: Bytes,
}

impl Bench {
    fn item(&self) -> Item {
        let n = self.next.fetch_add(1, Ordering::Relaxed) % KEYS;
        let prefix = &self.prefix;
        let txn = Txn::new()
            .when(Compare::absent(format!("{prefix}/epoch")))
            .when(Compare::absent(format!("{prefix}/guard/{n}")))
            .put(
                format!("{prefix}/binding/{n}"),
                Bytes::from_static(b"node: n1\nplacement: 1\n"),
            )
            .put(format!("{prefix}/copy/{n}"), self.value.clone());
        Item {
            guards: txn.compares,
            then: txn.then,
            context: String::new(),
        }
    }

    fn plain(&self) -> Txn {
        let item = self.item();
        Txn {
            compares: item.guards,
            then: item.then,
            or_else: Vec::new(),
        }
    }

    /// Runs `step`, which does so many items at a time, in so many tasks; items per second.
    async fn rate<F, Fut>(self: &Arc<Self>, tasks: usize, items: usize, step: F) -> Result<f64>
    where
        F: Fn(Arc<Self>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<()>> + Send,
    {
        let begin = Instant::now();
        let until = begin + self.time;
        let last = self.next.load(Ordering::Relaxed) + MOST_ITEMS;
        let workers: Vec<_> = (0..tasks)
            .map(|_| {
                let (bench, step) = (Arc::clone(self), step.clone());
                tokio::spawn(async move {
                    let mut done = 0;
                    while Instant::now() < until && bench.next.load(Ordering::Relaxed) < last {
                        step(Arc::clone(&bench)).await?;
                        done += items;
                    }
                    anyhow::Ok(done)
                })
            })
            .collect();
        let mut done = 0;
        for worker in workers {
            done += worker.await.context("a measuring task ended")??;
        }
        Ok(done as f64 / begin.elapsed().as_secs_f64())
    }

    async fn single(self: &Arc<Self>) -> Result<f64> {
        self.rate(FEW, 1, |bench| async move {
            let done = bench.store.txn(bench.plain()).await?;
            ensure!(done.succeeded, "a guard of the benchmark's own keys failed");
            Ok(())
        })
        .await
    }

    async fn batches(self: &Arc<Self>, items: usize, transactions: usize) -> Result<f64> {
        self.rate(transactions, items, move |bench| async move {
            let nested = |_| TxnOp::Txn(Box::new(bench.plain()));
            let then = (0..items).map(nested).collect();
            let done = bench
                .store
                .txn(Txn {
                    then,
                    ..Txn::default()
                })
                .await?;
            let all = |nested: &Option<_>| {
                nested
                    .as_ref()
                    .is_some_and(|n: &setpoint_store::TxnResult| n.succeeded)
            };
            ensure!(
                done.nested.iter().all(all),
                "a guard of the benchmark's own keys failed"
            );
            Ok(())
        })
        .await
    }

    /// Items per second, and items per transaction.
    async fn grouped(self: &Arc<Self>, in_flight: usize) -> Result<(f64, f64)> {
        let commit = GroupCommit::new(Arc::clone(&self.store), Options::default());
        let submit = commit.clone();
        let rate = self
            .rate(in_flight, 1, move |bench| {
                let outcome = submit.submit(bench.item());
                async move {
                    match outcome.await {
                        ItemOutcome::Committed { .. } => Ok(()),
                        other => bail!("an item was not committed: {other:?}"),
                    }
                }
            })
            .await?;
        let stats = commit.stats();
        Ok((rate, stats.items as f64 / stats.batches.max(1) as f64))
    }

    /// Median seconds of a plain transaction, and of an item on an idle line. They take turns, so that both see the
    /// same machine.
    async fn idle_latency(&self, time: Duration) -> Result<(f64, f64)> {
        let commit = GroupCommit::new(Arc::clone(&self.store), Options::default());
        let (mut plain, mut idle) = (Vec::new(), Vec::new());
        let until = Instant::now() + time;
        while Instant::now() < until {
            let txn = self.plain();
            let begin = Instant::now();
            self.store.txn(txn).await?;
            plain.push(begin.elapsed().as_secs_f64());
            let item = self.item();
            let begin = Instant::now();
            let outcome = commit.submit(item).await;
            idle.push(begin.elapsed().as_secs_f64());
            ensure!(
                outcome.committed().is_some(),
                "an item was not committed: {outcome:?}"
            );
        }
        Ok((median(&mut plain), median(&mut idle)))
    }
}
