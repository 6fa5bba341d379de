//! How long it takes from an apply to running processes, and from a node's death to their replacements.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::Pod;
use setpoint_apis::records::PodStage;
use setpoint_apis::{Key, ObjectKey};
use setpoint_runtime::{Cache, CacheBuilder, StateKey, Subscription, View};
use setpoint_store::{Compare, Txn};

use super::{Output, print, settle};
use crate::dev::{DevArgs, DevCluster, StoreKind, kill_node, rss_bytes};

const NAMESPACE: &str = "default";
/// No step may take longer; a hang is a failure with the last state in its message.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// A cluster has settled when nothing was written for this long: two samples of a node's usage.
const QUIET: Duration = Duration::from_secs(30);

/// Flags of `setpoint bench startup`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StartupArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=50))]
    nodes: u16,
    /// How many pods the Deployment has
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pods: u32,
    /// How many single pods are started one after the other
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    single_pods: u32,
    /// For how long the idle cluster is watched, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    idle_seconds: u64,
    /// Use this running etcd instead of starting one
    #[arg(long, value_name = "ENDPOINT")]
    etcd: Option<String>,
    /// How to report
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report {
    nodes: u16,
    pods: u32,
    apply_to_running_ms: f64,
    single_pod_p50_ms: f64,
    single_pod_p99_ms: f64,
    failover_ms: f64,
    lease_ttl_ms: u64,
    agent_rss_bytes: u64,
    controllers_rss_bytes: u64,
    idle_writes_per_minute: f64,
}

/// Runs the benchmark on a cluster of its own and prints the report.
pub(crate) async fn run(args: StartupArgs) -> Result<()> {
    let dev = DevArgs {
        nodes: args.nodes,
        data_dir: None,
        store: Some(StoreKind::Etcd),
        etcd: args.etcd.clone(),
        etcd_bin: None,
        etcd_port: 0,
        pod_cidr_base: (127, 77),
        lease_ttl: 6,
        // A prefix of its own keeps a shared etcd's other users apart.
        key_prefix: setpoint_apis::Keyspace::new(&format!(
            "/setpoint-bench-{}",
            std::process::id()
        ))?,
    };
    let mut cluster = DevCluster::start(&dev)
        .await
        .context("starting a cluster to measure")?;
    let result = tokio::select! {
        report = measure(&args, &dev, &mut cluster) => report,
        () = crate::signals::interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    cluster.stop().await;
    if args.etcd.is_some() {
        let all = cluster.keyspace.all();
        let wipe = Txn {
            then: vec![setpoint_store::TxnOp::DeleteRange {
                start: all.start,
                end: all.end,
            }],
            ..Txn::new()
        };
        cluster
            .store
            .txn(wipe)
            .await
            .context("removing the benchmark's keys")?;
    }
    print(&result?, args.output, rows)
}

async fn measure(args: &StartupArgs, dev: &DevArgs, cluster: &mut DevCluster) -> Result<Report> {
    let (cache, driver) = CacheBuilder::new()
        .kind::<Pod>()
        .kind::<ReplicaSet>()
        .kind::<Deployment>()
        .build(cluster.store.clone(), cluster.keyspace.clone());
    let driver = tokio::spawn(driver.run());
    cache.ready().await;
    let mut watch = Watch::new(&cache);

    let mut singles = Vec::new();
    for number in 0..args.single_pods {
        singles.push(single_pod(cluster, &mut watch, number).await?);
    }
    singles.sort_by(f64::total_cmp);

    let begin = Instant::now();
    put(cluster, "deployments", "bench", deployment(args.pods)).await?;
    watch
        .until("all pods run", |view| {
            running(view, None) == args.pods as usize
        })
        .await?;
    let apply_to_running_ms = millis(begin);

    settle(&cluster.store, Duration::from_secs(1), QUIET, STEP_LIMIT).await?;
    let agent_rss_bytes = cluster
        .agents
        .iter()
        .map(|a| rss_bytes(a.process.pid()))
        .max()
        .unwrap_or_default();
    let controllers_rss_bytes = rss_bytes(cluster.controllers.pid());
    let idle_writes_per_minute = idle_writes(args, cluster).await?;

    let victim = cluster.agents.first().context("a cluster has nodes")?;
    let name = victim.process.name.clone();
    let begin = Instant::now();
    kill_node(Some(victim.process.pid()), &victim.data_dir);
    watch
        .until("the pods of the dead node run elsewhere", |view| {
            running(view, Some(&name)) == args.pods as usize
        })
        .await?;
    let failover_ms = millis(begin);
    driver.abort();

    Ok(Report {
        nodes: args.nodes,
        pods: args.pods,
        apply_to_running_ms,
        single_pod_p50_ms: quantile(&singles, 0.5),
        single_pod_p99_ms: quantile(&singles, 0.99),
        failover_ms,
        lease_ttl_ms: dev.lease_ttl * 1000,
        agent_rss_bytes,
        controllers_rss_bytes,
        idle_writes_per_minute,
    })
}

/// From the write of a pod to its process running, as a watcher sees it; the pod is removed afterwards.
async fn single_pod(cluster: &DevCluster, watch: &mut Watch<'_>, number: u32) -> Result<f64> {
    let name = format!("single-{number}");
    let key = ObjectKey::namespaced(NAMESPACE, name.as_str());
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - name: main\n    image: host\n    command: [sleep, \"86400\"]\n"
    );
    let begin = Instant::now();
    put(cluster, "pods", &name, text).await?;
    watch
        .until("a single pod runs", |view| is_running(view, &key, None))
        .await?;
    let took = millis(begin);
    let desired = cluster.keyspace.build(&Key::Desired("pods", key.clone()));
    cluster
        .store
        .txn(Txn::new().delete(desired))
        .await
        .context("deleting a pod")?;
    watch
        .until("a single pod is gone", |view| {
            !view.bindings().contains(&key)
        })
        .await?;
    Ok(took)
}

/// etcd counts every write with its revision: the difference over a quiet time is what the cluster writes for nothing.
async fn idle_writes(args: &StartupArgs, cluster: &DevCluster) -> Result<f64> {
    if args.idle_seconds == 0 {
        return Ok(0.0);
    }
    let before = cluster.store.status().await?.revision.0;
    let begin = Instant::now();
    tokio::time::sleep(Duration::from_secs(args.idle_seconds)).await;
    let after = cluster.store.status().await?.revision.0;
    Ok((after - before) as f64 * 60.0 / begin.elapsed().as_secs_f64())
}

/// Waits for states of the cache.
struct Watch<'a> {
    cache: &'a Cache,
    subscription: Subscription,
}

impl<'a> Watch<'a> {
    fn new(cache: &'a Cache) -> Self {
        let interest = |key: &StateKey| matches!(key, StateKey::NodePod(..) | StateKey::Binding(_));
        Self {
            cache,
            subscription: cache.subscribe(interest),
        }
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&View<'_>) -> bool) -> Result<()> {
        let waited = tokio::time::timeout(STEP_LIMIT, async {
            while !holds(&self.cache.view()) {
                self.subscription.next().await;
            }
        });
        if waited.await.is_err() {
            let view = self.cache.view();
            bail!(
                "waited {} s until {what}: {} pods wanted, {} bound, {} running",
                STEP_LIMIT.as_secs(),
                view.desired::<Pod>().len(),
                view.bindings().len(),
                running(&view, None)
            );
        }
        Ok(())
    }
}

/// How many of the Deployment's pods run where they are bound, which is not on `dead`.
fn running(view: &View<'_>, dead: Option<&str>) -> usize {
    view.desired::<Pod>()
        .iter()
        .filter(|(key, pod)| {
            pod.value.metadata.labels.contains_key("app") && is_running(view, key, dead)
        })
        .count()
}

fn is_running(view: &View<'_>, pod: &ObjectKey, dead: Option<&str>) -> bool {
    view.bindings().get(pod).is_some_and(|binding| {
        dead != Some(binding.value.node.as_str())
            && view
                .pod_on(&binding.value.node, pod)
                .and_then(|e| e.valid())
                .is_some_and(|a| {
                    a.value.stage == PodStage::Running
                        && a.value.placement == binding.value.placement
                })
    })
}

async fn put(cluster: &DevCluster, plural: &str, name: &str, text: String) -> Result<()> {
    let key = cluster.keyspace.build(&Key::Desired(
        plural,
        ObjectKey::namespaced(NAMESPACE, name),
    ));
    let txn = Txn::new().when(Compare::absent(key.clone())).put(key, text);
    let done = cluster
        .store
        .txn(txn)
        .await
        .with_context(|| format!("creating {plural}/{name}"))?;
    ensure!(done.succeeded, "{plural}/{name} exists already");
    Ok(())
}

fn deployment(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: bench\n  namespace: {NAMESPACE}\nspec:\n  replicas: {replicas}\n  \
         selector:\n    matchLabels:\n      app: bench\n  template:\n    metadata:\n      labels:\n        app: bench\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: host\n        command: [sleep, \"86400\"]\n"
    )
}

fn millis(begin: Instant) -> f64 {
    (begin.elapsed().as_secs_f64() * 1e5).round() / 100.0
}

/// The nearest-rank quantile of a sorted sample.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// The report as a table.
fn rows(report: &Report) -> Vec<(String, String)> {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    vec![
        ("nodes".to_owned(), report.nodes.to_string()),
        (
            format!("Deployment of {} pods: apply to all Running", report.pods),
            format!("{:.0} ms", report.apply_to_running_ms),
        ),
        (
            "one pod: apply to Running, median".to_owned(),
            format!("{:.1} ms", report.single_pod_p50_ms),
        ),
        (
            "one pod: apply to Running, 99th percentile".to_owned(),
            format!("{:.1} ms", report.single_pod_p99_ms),
        ),
        (
            "node killed to replacements Running".to_owned(),
            format!("{:.0} ms", report.failover_ms),
        ),
        (
            "  of that the node's lease".to_owned(),
            format!("{} ms", report.lease_ttl_ms),
        ),
        (
            "largest agent's memory".to_owned(),
            mib(report.agent_rss_bytes),
        ),
        (
            "controllers' memory".to_owned(),
            mib(report.controllers_rss_bytes),
        ),
        (
            "writes of the idle cluster per minute".to_owned(),
            format!("{:.1}", report.idle_writes_per_minute),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sample() {
        let sample: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            (
                quantile(&sample, 0.5),
                quantile(&sample, 0.99),
                quantile(&[], 0.5)
            ),
            (50.0, 99.0, 0.0)
        );
    }
}
