//! `setpoint bench`: measures a cluster on this machine. Benchmarks are part of the product, so that a claim about
//! speed can be checked where it matters.

mod bed;
mod deployment;
mod process;
mod schedule;
mod startup;
mod store;
mod takeover;

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use setpoint_store::SharedStore;

/// Flags of `setpoint bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand, Clone, Debug)]
enum Benchmark {
    /// Time from apply to running processes, failover time and memory, with real agents and processes
    Startup(startup::StartupArgs),
    /// Pods bound per second, with the real scheduler and nodes that are written without agents; or by its core alone
    Schedule(schedule::ScheduleArgs),
    /// Time until Deployments are written, bound, Running, rolled out and gone, with all controllers and hollow nodes
    Deployment(deployment::DeploymentArgs),
    /// Writes in groups against writes one by one; cold start and memory of a cache with many pods
    Store(store::StoreArgs),
    /// One read of `bench store`, in a process of its own
    #[command(hide = true)]
    StoreProbe(store::ProbeArgs),
    /// How long controllers are without a leader after it was killed, and after it was asked to end
    Takeover(takeover::TakeoverArgs),
    /// A member of the sharded controller of `bench takeover`
    #[command(hide = true)]
    TakeoverMember(takeover::MemberArgs),
}

/// How a benchmark reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table
    #[default]
    Table,
    /// One JSON object
    Json,
}

/// Prints a report as one JSON object, or what `rows` makes of it as a table.
fn print<R: Serialize>(
    report: &R,
    output: Output,
    rows: impl FnOnce(&R) -> Vec<(String, String)>,
) -> Result<()> {
    let mut out = std::io::stdout();
    if output == Output::Json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
        return Ok(());
    }
    let rows = rows(report);
    let width = rows
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or_default();
    for (name, value) in rows {
        writeln!(out, "{name:width$}  {value}")?;
    }
    Ok(())
}

/// The median of a sample; 0 of none.
fn median(sample: &mut [f64]) -> f64 {
    sample.sort_by(f64::total_cmp);
    let middle = sample.len() / 2;
    match sample {
        [] => 0.0,
        _ if sample.len() % 2 == 1 => sample[middle],
        _ => f64::midpoint(sample[middle - 1], sample[middle]),
    }
}

/// Two decimals.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Waits until nothing has been written for a `quiet` time, `limit` at most: what settles after a step (events, the nodes'
/// usage) belongs to it. etcd counts every write with its revision, which is looked at `every` so often.
async fn settle(
    store: &SharedStore,
    every: Duration,
    quiet: Duration,
    limit: Duration,
) -> Result<()> {
    let begin = Instant::now();
    let (mut last, mut since) = (store.status().await?.revision, begin);
    while since.elapsed() < quiet && begin.elapsed() < limit {
        tokio::time::sleep(every).await;
        let now = store.status().await?.revision;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// Runs a benchmark and prints its report.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    match args.benchmark {
        Benchmark::Startup(args) => startup::run(args).await,
        Benchmark::Schedule(args) => schedule::run(args).await,
        Benchmark::Deployment(args) => deployment::run(args).await,
        Benchmark::Store(args) => store::run(args).await,
        Benchmark::StoreProbe(args) => store::probe(args).await,
        Benchmark::Takeover(args) => takeover::run(args).await,
        Benchmark::TakeoverMember(args) => takeover::member(args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_sample() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }
}
