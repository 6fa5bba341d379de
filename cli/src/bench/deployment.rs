//! How long Deployments take with all controllers and hollow nodes: to be written, bound and Running, to roll out another
//! template, to go away; and what that costs.

mod cluster;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use setpoint_apis::apps::{Deployment, DeploymentStatus};
use setpoint_apis::{Key, Kind, ObjectKey, strict};
use setpoint_store::Txn;

use super::bed::Bed;
use super::{Output, print, round, settle};
use cluster::{Cluster, Counted, NAMESPACE, Statuses};

/// Deployments that are applied with one transaction, as `setpoint apply` of one file does it.
const PER_TRANSACTION: usize = 100;
/// After a step the cluster has settled when nothing was written for so long.
const QUIET: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Flags of `setpoint bench deployment`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeploymentArgs {
    /// How many pods a Deployment has
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    replicas: u32,
    /// How many Deployments
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    deployments: u32,
    /// How many hollow nodes; each has room for 110 pods
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    nodes: u32,
    /// How many pods more than wanted there may be during the rolling update, and how many less: `maxSurge` and
    /// `maxUnavailable`
    #[arg(long, default_value = "25%", value_name = "NUMBER|PERCENT")]
    step: String,
    /// For how long the settled cluster is watched when all pods run, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    idle_seconds: u64,
    /// No step may take longer
    #[arg(long, default_value = "300s", value_name = "DURATION", value_parser = crate::commands::duration)]
    timeout: Duration,
    /// Use this running etcd instead of starting one
    #[arg(long, value_name = "ENDPOINT")]
    etcd: Option<String>,
    /// How to report
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Times are from the write of the Deployments.
#[derive(Debug, Serialize)]
struct Report {
    nodes: u32,
    deployments: u32,
    replicas: u32,
    /// To all desired pods stored.
    written_ms: f64,
    /// To all pods bound.
    bound_ms: f64,
    /// To all Deployments saying that all their pods are available.
    running_ms: f64,
    /// From the change of the template until all Deployments say that all their pods are of it and available, and that
    /// there are no others.
    rolling_update_ms: f64,
    /// From the write of `replicas: 0` until no pod is stored, bound, or known to any node.
    scaled_to_zero_ms: f64,
    /// When all pods of the first template run.
    controllers_rss_bytes: u64,
    /// From the write of the Deployments until all pods of the first template run, as the next ones.
    controllers_cpu_seconds: f64,
    /// `null` when etcd is not on this machine.
    etcd_cpu_seconds: Option<f64>,
    agents_cpu_seconds: f64,
    /// The whole run, up to the end of the last step, waits in between left out.
    total_cpu_seconds: Option<f64>,
    /// Of the settled cluster.
    idle_writes: i64,
    idle_controllers_cpu_percent: f64,
}

/// Runs the benchmark and prints the report.
pub(crate) async fn run(args: DeploymentArgs) -> Result<()> {
    let pods = u64::from(args.replicas) * u64::from(args.deployments);
    ensure!(
        pods <= u64::from(args.nodes) * 110,
        "{pods} pods do not fit on {} nodes of 110 pods each",
        args.nodes
    );
    let checked = document("bench", args.replicas, 1, &args.step);
    let read = strict::read_manifest("--step", &checked, &strict::Options::default());
    if let Some(problem) = read.errors.first() {
        bail!("--step {}: {}", args.step, problem.message);
    }
    let bed = Bed::make(args.etcd.as_deref()).await?;
    let result = tokio::select! {
        report = on(&args, &bed) => report,
        () = crate::signals::interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    bed.end().await?;
    print(&result?, args.output, rows)
}

async fn on(args: &DeploymentArgs, bed: &Bed) -> Result<Report> {
    let mut cluster = Cluster::start(bed, args.nodes, args.timeout)
        .await
        .context("starting a cluster to measure")?;
    let report = measure(args, &mut cluster).await;
    cluster.stop().await;
    report
}

async fn measure(args: &DeploymentArgs, cluster: &mut Cluster<'_>) -> Result<Report> {
    let pods = args.replicas as usize * args.deployments as usize;
    let deployments = args.deployments as usize;
    let mut statuses = Statuses::follow(cluster.store(), cluster.keyspace()).await?;
    settle(cluster.store(), LOOK_EVERY, QUIET, args.timeout).await?;
    let others = cluster.count(Counted::NodeRecords).await?;

    let before = cluster.cpu();
    let begin = Instant::now();
    apply(args, cluster, args.replicas, 1).await?;
    let written = cluster.until_counted(Counted::Pods, pods).await?;
    let bound = cluster.until_counted(Counted::Bindings, pods).await?;
    let running = cluster
        .until_statuses(&mut statuses, "available", deployments, |status| {
            all_available(status, args.replicas, 1)
        })
        .await?;
    let first = cluster.cpu().since(before);
    let controllers_rss_bytes = cluster.controllers_rss_bytes();

    settle(cluster.store(), LOOK_EVERY, QUIET, args.timeout).await?;
    let (idle_writes, idle_controllers_cpu_percent) = idle(args, cluster).await?;

    let before = cluster.cpu();
    let update = Instant::now();
    apply(args, cluster, args.replicas, 2).await?;
    let updated = cluster
        .until_statuses(&mut statuses, "rolled out", deployments, |status| {
            all_available(status, args.replicas, 2)
        })
        .await?;
    let second = cluster.cpu().since(before);

    settle(cluster.store(), LOOK_EVERY, QUIET, args.timeout).await?;
    let before = cluster.cpu();
    let scale = Instant::now();
    apply(args, cluster, 0, 2).await?;
    for (what, left) in [
        (Counted::Pods, 0),
        (Counted::Bindings, 0),
        (Counted::NodeRecords, others),
    ] {
        cluster.until_counted(what, left).await?;
    }
    let scaled = Instant::now();
    let third = cluster.cpu().since(before);

    let total = [first, second, third]
        .iter()
        .map(|cpu| Some(cpu.controllers + cpu.agents + cpu.etcd?))
        .sum::<Option<f64>>();
    Ok(Report {
        nodes: args.nodes,
        deployments: args.deployments,
        replicas: args.replicas,
        written_ms: millis(written - begin),
        bound_ms: millis(bound - begin),
        running_ms: millis(running - begin),
        rolling_update_ms: millis(updated - update),
        scaled_to_zero_ms: millis(scaled - scale),
        controllers_rss_bytes,
        controllers_cpu_seconds: round(first.controllers),
        etcd_cpu_seconds: first.etcd.map(round),
        agents_cpu_seconds: round(first.agents),
        total_cpu_seconds: total.map(round),
        idle_writes,
        idle_controllers_cpu_percent: round(idle_controllers_cpu_percent),
    })
}

/// Whether all pods are of the template of this generation and available, and no others are left.
fn all_available(status: &DeploymentStatus, replicas: u32, generation: i64) -> bool {
    let all = i32::try_from(replicas).ok();
    status.observed_generation >= Some(generation)
        && [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ]
        .iter()
        .all(|count| *count == all)
}

/// Writes all Deployments, as one client does it.
async fn apply(
    args: &DeploymentArgs,
    cluster: &Cluster<'_>,
    replicas: u32,
    version: u32,
) -> Result<()> {
    let numbers: Vec<u32> = (0..args.deployments).collect();
    for chunk in numbers.chunks(PER_TRANSACTION) {
        let mut txn = Txn::new();
        for number in chunk {
            let name = format!("bench-{number:05}");
            let key = ObjectKey::namespaced(NAMESPACE, name.as_str());
            let key = cluster
                .keyspace()
                .build(&Key::Desired(Deployment::PLURAL, key));
            txn = txn.put(key, document(&name, replicas, version, &args.step));
        }
        let done = cluster
            .store()
            .txn(txn)
            .await
            .context("applying Deployments")?;
        ensure!(done.succeeded, "a transaction without guards failed");
    }
    Ok(())
}

fn document(name: &str, replicas: u32, version: u32, step: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\nspec:\n  \
         replicas: {replicas}\n  strategy:\n    rollingUpdate:\n      maxSurge: {step}\n      maxUnavailable: {step}\n  \
         selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      labels:\n        app: {name}\n    \
         spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        \
         image: registry.example.com/app:{version}\n        resources:\n          requests:\n            cpu: 10m\n            memory: 32Mi\n"
    )
}

/// Writes, and percent of a core that the controllers take, while nothing is asked of them.
async fn idle(args: &DeploymentArgs, cluster: &Cluster<'_>) -> Result<(i64, f64)> {
    if args.idle_seconds == 0 {
        return Ok((0, 0.0));
    }
    let (writes, cpu) = (cluster::revision(cluster.store()).await?, cluster.cpu());
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(args.idle_seconds)).await;
    let spent = cluster.cpu().since(cpu).controllers;
    Ok((
        cluster::revision(cluster.store()).await?.0 - writes.0,
        100.0 * spent / begin.elapsed().as_secs_f64(),
    ))
}

fn millis(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1e3)
}

/// The report as a table.
fn rows(report: &Report) -> Vec<(String, String)> {
    let ms = |value: f64| format!("{value:.0} ms");
    let seconds = |value: Option<f64>| value.map_or("unknown".to_owned(), |v| format!("{v:.2} s"));
    [
        ("nodes", report.nodes.to_string()),
        (
            "Deployments, pods each",
            format!("{}, {}", report.deployments, report.replicas),
        ),
        ("apply to all pods written", ms(report.written_ms)),
        ("apply to all pods bound", ms(report.bound_ms)),
        ("apply to all Deployments available", ms(report.running_ms)),
        ("rolling update", ms(report.rolling_update_ms)),
        (
            "scale to zero until nothing is left",
            ms(report.scaled_to_zero_ms),
        ),
        (
            "controllers' memory",
            format!(
                "{:.1} MiB",
                report.controllers_rss_bytes as f64 / f64::from(1 << 20)
            ),
        ),
        (
            "controllers' CPU until all are available",
            seconds(Some(report.controllers_cpu_seconds)),
        ),
        ("  etcd's", seconds(report.etcd_cpu_seconds)),
        (
            "  the hollow nodes'",
            seconds(Some(report.agents_cpu_seconds)),
        ),
        (
            "CPU of all over the whole run",
            seconds(report.total_cpu_seconds),
        ),
        ("writes of the idle cluster", report.idle_writes.to_string()),
        (
            "controllers' CPU when idle",
            format!("{:.2} % of a core", report.idle_controllers_cpu_percent),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deployments_are_what_apply_takes() {
        for step in ["25%", "3"] {
            let text = document("bench-00001", 5, 2, step);
            let read = strict::read_manifest("bench", &text, &strict::Options::default());
            assert!(
                read.errors.is_empty() && read.warnings.is_empty(),
                "{read:?}"
            );
            assert_eq!(read.documents.len(), 1);
        }
    }

    #[test]
    fn a_deployment_is_done_when_all_its_pods_are_new_and_available() {
        let mut status = DeploymentStatus {
            observed_generation: Some(2),
            replicas: Some(4),
            updated_replicas: Some(4),
            available_replicas: Some(4),
            ..DeploymentStatus::default()
        };
        assert!(all_available(&status, 4, 2));
        assert!(!all_available(&status, 4, 3), "a change was not seen yet");
        status.replicas = Some(5);
        assert!(!all_available(&status, 4, 2), "an old one is left");
    }
}
