//! How long a controller process takes until its cache may be trusted, against a plain read of the same keys, and what
//! the cache holds in memory.
//!
//! Each read is made by a process of its own, because memory that a former read has left behind would hide what this
//! one takes. Memory is the growth of the process's resident set, so it counts what the allocator wastes and what the
//! reading itself has left behind.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use futures::{StreamExt, TryStreamExt, future, stream};
use serde::{Deserialize, Serialize};
use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::{Pod, PodTemplateSpec};
use setpoint_apis::{Key, Keyspace, ObjectKey, document};
use setpoint_runtime::watcher::WatcherOptions;
use setpoint_runtime::{Cache, CacheBuilder, StateKey};
use setpoint_store::list::{List, Listed, list_stream};
use setpoint_store::{SharedStore, Txn};
use setpoint_workloads::documents::{PodWriter, controller_reference};
use tokio::process::Command;

use super::median;
use crate::dev::rss_bytes;

/// The Deployments that the pods belong to.
const DEPLOYMENTS: u32 = 10;
/// Pods that are stored with one transaction; 100 of them are a tenth of what etcd takes.
const PODS_PER_TRANSACTION: usize = 100;

/// The figures.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) pods: u32,
    pub(super) yaml_bytes_per_pod: f64,
    pub(super) raw_read_ms: f64,
    pub(super) cold_start_ms: f64,
    pub(super) cold_start_ratio: f64,
    pub(super) bytes_per_pod: f64,
}

/// What one process reads.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProbeArgs {
    /// The etcd that holds the pods
    #[arg(long, value_name = "ENDPOINT")]
    etcd: String,
    /// The prefix of the keys
    #[arg(long, value_name = "PREFIX")]
    keys: String,
    /// What to read them into
    #[arg(long, value_enum)]
    into: Into,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Into {
    /// Nothing: the pages are dropped
    Nothing,
    /// The cache of a controller process
    Cache,
}

/// What it found.
#[derive(Debug, Serialize, Deserialize)]
struct Probed {
    seconds: f64,
    /// Growth of the resident set.
    bytes: u64,
    keys: usize,
    value_bytes: usize,
}

/// Stores `pods` pods under `keyspace`, and reads them `rounds` times each way, by turns.
pub(super) async fn measure(
    store: &SharedStore,
    endpoint: &str,
    keyspace: &Keyspace,
    pods: u32,
    rounds: u32,
) -> Result<Figures> {
    fill(store, keyspace, pods).await?;
    // What is read first pays for what etcd has not read yet itself.
    let first = spawn_probe(endpoint, keyspace, Into::Nothing).await?;
    let (mut raw, mut cache, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        raw.push(
            spawn_probe(endpoint, keyspace, Into::Nothing)
                .await?
                .seconds,
        );
        let probed = spawn_probe(endpoint, keyspace, Into::Cache).await?;
        ensure!(
            probed.keys == first.keys,
            "the cache holds {} of {} pods",
            probed.keys,
            first.keys
        );
        cache.push(probed.seconds);
        bytes.push(probed.bytes as f64);
    }
    let (raw, cache) = (median(&mut raw), median(&mut cache));
    let per_pod = |bytes: f64| (bytes / f64::from(pods)).round();
    let millis = |seconds: f64| (seconds * 1e4).round() / 10.0;
    Ok(Figures {
        pods,
        yaml_bytes_per_pod: per_pod(first.value_bytes as f64),
        raw_read_ms: millis(raw),
        cold_start_ms: millis(cache),
        cold_start_ratio: (cache / raw * 100.0).round() / 100.0,
        bytes_per_pod: per_pod(median(&mut bytes)),
    })
}

/// Writes the pods as the workloads controller writes those of Deployments.
async fn fill(store: &SharedStore, keyspace: &Keyspace, pods: u32) -> Result<()> {
    let mut batches = Vec::new();
    let mut txn = Txn::new();
    for deployment in 0..DEPLOYMENTS {
        let set = format!("shop-{deployment}-6d4cf56db6");
        let uid = format!("0000a1b2-{deployment:04}-8000-9000-0123456789ab");
        let writer = PodWriter::new(
            NAMESPACE,
            &template(deployment)?,
            controller_reference::<ReplicaSet>(&set, &uid),
        );
        for n in (deployment..pods).step_by(DEPLOYMENTS as usize) {
            let name = format!("{set}-{}", suffix(n));
            let key = ObjectKey::namespaced(NAMESPACE, name.as_str());
            txn = txn.put(
                keyspace.build(&Key::Desired("pods", key)),
                writer.document(&name),
            );
            if txn.then.len() == PODS_PER_TRANSACTION {
                batches.push(std::mem::take(&mut txn));
            }
        }
    }
    batches.push(txn);
    stream::iter(batches)
        .map(|txn| store.txn(txn))
        .buffer_unordered(4)
        .try_for_each(|_| future::ok(()))
        .await
        .context("storing pods")
}

const NAMESPACE: &str = "default";

/// The template of one Deployment: its pods' documents have about 1.2 kB.
fn template(deployment: u32) -> Result<PodTemplateSpec> {
    let manifest = format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop-{deployment}, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: shop-{deployment}}}}}
  template:
    metadata:
      labels:
        app: shop-{deployment}
        app.kubernetes.io/part-of: shop
        pod-template-hash: 6d4cf56db6
      annotations:
        prometheus.io/scrape: \"true\"
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - name: web
        image: registry.example.com/shop/web-{deployment}:1.27.3
        args: [--listen=:8080]
        ports:
        - {{name: http, containerPort: 8080}}
        env:
        - {{name: DATABASE_HOST, value: db.default.svc}}
        resources:
          requests: {{cpu: 100m, memory: 64Mi}}
        readinessProbe:
          httpGet: {{path: /healthz, port: http}}
"
    );
    let deployment: Deployment =
        document::decode(manifest.as_bytes()).context("reading the benchmark's manifest")?;
    Ok(deployment.spec.template)
}

/// Five letters and digits, as the workloads controller puts behind a pod's name, another one for each `n`.
fn suffix(n: u32) -> String {
    const LETTERS: &[u8; 32] = b"0123456789abcdfghjklmnpqrstvwxyz";
    // Odd factors permute the numbers below a power of two, so neighbours are spread as random names are.
    let mixed = n.wrapping_mul(0x0009_E375) & 0x01FF_FFFF;
    (0..5)
        .map(|place| char::from(LETTERS[(mixed >> (5 * place)) as usize % LETTERS.len()]))
        .collect()
}

async fn spawn_probe(endpoint: &str, keyspace: &Keyspace, into: Into) -> Result<Probed> {
    let program = std::env::current_exe().context("finding the setpoint program")?;
    let into = into
        .to_possible_value()
        .context("every way to read has a name")?;
    let output = Command::new(program)
        .args(["bench", "store-probe", "--etcd", endpoint])
        .args(["--keys", keyspace.as_str(), "--into", into.get_name()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .context("starting a process that reads the pods")?;
    ensure!(
        output.status.success(),
        "the process that reads the pods ended with {}",
        output.status
    );
    serde_json::from_slice(&output.stdout)
        .context("reading what the process that reads the pods found")
}

/// Reads everything, once, and prints what it took.
pub(crate) async fn probe(args: ProbeArgs) -> Result<()> {
    let keyspace = Keyspace::new(&args.keys)?;
    let store = crate::connect::open(&args.etcd).await?;
    let pid = std::process::id();
    let before = rss_bytes(pid);
    let begin = Instant::now();
    let (seconds, keys, value_bytes) = match args.into {
        Into::Nothing => {
            let (keys, bytes) = read_raw(store, &keyspace).await?;
            (begin.elapsed().as_secs_f64(), keys, bytes)
        }
        Into::Cache => {
            let cache = read_into_cache(store, &keyspace).await;
            let seconds = begin.elapsed().as_secs_f64();
            let view = cache.view();
            ensure!(view.invalid().is_empty(), "some pods do not parse");
            (seconds, view.desired::<Pod>().len(), 0)
        }
    };
    let probed = Probed {
        seconds,
        bytes: rss_bytes(pid).saturating_sub(before),
        keys,
        value_bytes,
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&probed)?)?;
    Ok(())
}

async fn read_raw(store: SharedStore, keyspace: &Keyspace) -> Result<(usize, usize)> {
    let range = keyspace.state();
    let list = List::new(range.start, range.end).page_size(WatcherOptions::default().page_size);
    let mut pages = std::pin::pin!(list_stream(store, list));
    let (mut keys, mut bytes) = (0, 0);
    while let Some(step) = pages.try_next().await? {
        if let Listed::Page(page) = step {
            keys += page.len();
            bytes += page.iter().map(|kv| kv.value.len()).sum::<usize>();
        }
    }
    Ok((keys, bytes))
}

/// As `setpoint controllers` does, with a subscriber that wants to know of everything, as controllers do.
async fn read_into_cache(store: SharedStore, keyspace: &Keyspace) -> Cache {
    let builder = setpoint_controllers::register(CacheBuilder::new());
    let (cache, driver) = builder.build(store, keyspace.clone());
    let mut subscription = cache.subscribe(|key| matches!(key, StateKey::Desired(..)));
    tokio::spawn(driver.run());
    subscription.next().await;
    cache
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pod_has_a_name_of_its_own() {
        let names: BTreeSet<String> = (0..100_000).map(suffix).collect();
        assert_eq!(names.len(), 100_000);
    }

    #[test]
    fn pods_are_as_long_as_they_are_said_to_be() {
        let owner = controller_reference::<ReplicaSet>("shop-1-6d4cf56db6", &"u".repeat(36));
        let writer = PodWriter::new(NAMESPACE, &template(1).unwrap(), owner);
        let text = writer.document("shop-1-6d4cf56db6-abcde");
        assert!(
            (1150..1300).contains(&text.len()),
            "{}:\n{text}",
            text.len()
        );
        document::decode::<Pod>(text.as_bytes()).unwrap();
    }
}
