//! What the store gives: writes in groups against writes one by one, and how fast and how small a full cache is.

mod cold_start;
mod commits;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::bed::Bed;
use super::{Output, median, print, round};

pub(crate) use cold_start::{ProbeArgs, probe};

/// Flags of `setpoint bench store`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// Use this running etcd instead of starting one
    #[arg(long, value_name = "ENDPOINT")]
    etcd: Option<String>,
    /// How many pods the cache is filled with; they belong to ten Deployments
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pods: u32,
    /// How often each measurement is repeated; what is compared takes turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How to report
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// How long each round of writes lasts.
const ROUND: Duration = Duration::from_millis(700);

#[derive(Debug, Serialize)]
struct Report {
    etcd_version: String,
    rounds: u32,
    #[serde(flatten)]
    commits: commits::Figures,
    #[serde(flatten)]
    cold_start: cold_start::Figures,
}

/// Runs the benchmark under a prefix of its own and prints the report.
pub(crate) async fn run(args: StoreArgs) -> Result<()> {
    let bed = Bed::make(args.etcd.as_deref()).await?;
    let result = tokio::select! {
        report = measure(&args, &bed) => report,
        () = crate::signals::interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    let removed = bed.end().await;
    // What went wrong first is what explains the rest.
    let report = result?;
    removed?;
    print(&report, args.output, rows)
}

async fn measure(args: &StoreArgs, bed: &Bed) -> Result<Report> {
    let Bed {
        store,
        endpoint,
        keyspace,
        ..
    } = bed;
    let etcd_version = store.status().await?.version;
    let cold_start = cold_start::measure(store, endpoint, keyspace, args.pods, args.rounds).await?;
    bed.wipe().await?;
    let commits = commits::measure(store, keyspace.as_str(), args.rounds, ROUND).await?;
    Ok(Report {
        etcd_version,
        rounds: args.rounds,
        commits,
        cold_start,
    })
}

/// The report as a table.
fn rows(report: &Report) -> Vec<(String, String)> {
    let (c, s) = (&report.commits, &report.cold_start);
    vec![
        ("etcd".to_owned(), report.etcd_version.clone()),
        (
            format!("one transaction per item, {} in flight", c.few_in_flight),
            format!("{:.0} items/s", c.raw_single_per_second),
        ),
        (
            format!(
                "best loop of fixed batches ({} times {} items)",
                c.raw_batch_transactions, c.raw_batch_items
            ),
            format!("{:.0} items/s", c.raw_batch_per_second),
        ),
        (
            format!("group commit, {} items in flight", c.many_in_flight),
            format!(
                "{:.0} items/s: {:.2} times single, {:.2} of the best loop",
                c.group_commit_per_second, c.group_to_single_ratio, c.group_to_batch_ratio
            ),
        ),
        (
            format!("best loop with {} items in flight", c.few_in_flight),
            format!("{:.0} items/s", c.few_raw_batch_per_second),
        ),
        (
            format!("group commit, {} items in flight", c.few_in_flight),
            format!(
                "{:.0} items/s: {:.2} times single, {:.2} of that loop",
                c.few_group_commit_per_second,
                c.few_group_to_single_ratio,
                c.few_group_to_batch_ratio
            ),
        ),
        (
            "one item on an idle line".to_owned(),
            format!(
                "{:.0} us: {:.2} of a plain transaction",
                c.idle_latency_us, c.idle_latency_ratio
            ),
        ),
        (
            format!(
                "plain read of {} pods of {:.0} bytes",
                s.pods, s.yaml_bytes_per_pod
            ),
            format!("{:.0} ms", s.raw_read_ms),
        ),
        (
            "cold start of a cache with them".to_owned(),
            format!(
                "{:.0} ms: {:.2} times the read",
                s.cold_start_ms, s.cold_start_ratio
            ),
        ),
        (
            "memory per cached pod".to_owned(),
            format!("{:.0} bytes", s.bytes_per_pod),
        ),
    ]
}
