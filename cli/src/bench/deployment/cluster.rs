//! The cluster under measurement: an etcd, hollow nodes in a process of their own, and all controllers in another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use setpoint_apis::apps::{Deployment, DeploymentStatus};
use setpoint_apis::{Key, Keyspace, Kind, document};
use setpoint_store::{EventKind, RangeRequest, Revision, SharedStore, StoreError, WatchRequest};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::bed::Bed;
use super::super::process;
use crate::dev::{Managed, rss_bytes};

/// The namespace of what is measured.
pub(super) const NAMESPACE: &str = "default";
/// Nodes are called so, with a number.
const NODE: &str = "hollow";
/// How often keys are counted: each time costs etcd about a millisecond for 10,000 of them.
const COUNT_EVERY: Duration = Duration::from_millis(15);
/// How long nothing has to come before it is looked whether controllers and nodes still run.
const LOOK_AFTER_PARTS: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Cluster<'a> {
    bed: &'a Bed,
    /// Of the bed's etcd, or of one on this machine.
    etcd: Option<u32>,
    agents: Managed,
    controllers: Managed,
    /// No wait may take longer; a hang is a failure that says how far it came.
    limit: Duration,
}

/// Seconds of CPU time so far, or in between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    pub(super) controllers: f64,
    pub(super) etcd: Option<f64>,
    pub(super) agents: f64,
}

impl Cpu {
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            controllers: self.controllers - earlier.controllers,
            etcd: self.etcd.zip(earlier.etcd).map(|(now, then)| now - then),
            agents: self.agents - earlier.agents,
        }
    }
}

/// What there are keys of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Desired pods.
    Pods,
    /// Bindings.
    Bindings,
    /// What nodes say of themselves and of their pods.
    NodeRecords,
}

impl<'a> Cluster<'a> {
    /// Starts nodes and controllers, and waits until all nodes are Ready.
    pub(super) async fn start(bed: &'a Bed, nodes: u32, limit: Duration) -> Result<Self> {
        crate::init::initialise(&bed.store, &bed.keyspace).await?;
        let program = std::env::current_exe().context("finding the setpoint program")?;
        let command = |subcommand: &str| {
            let mut command = Command::new(&program);
            command.args([subcommand, "--endpoints", &bed.endpoint]);
            command.args(["--key-prefix", bed.keyspace.as_str()]);
            command
        };
        let mut agents = command("agent");
        agents.args(["--driver", "hollow", "--node-name", NODE]);
        agents.args(["--count", &nodes.to_string()]);
        let etcd = bed.own_pid().or_else(|| process::listener(&bed.endpoint));
        let mut cluster = Self {
            bed,
            etcd,
            controllers: Managed::start("controllers", command("controllers"), bed.directory())?,
            agents: Managed::start("agents", agents, bed.directory())?,
            limit,
        };
        let ready = cluster.nodes_ready(nodes as usize).await;
        if let Err(error) = ready {
            cluster.stop().await;
            return Err(error);
        }
        Ok(cluster)
    }

    /// Health is recorded when a node's session has been seen, and a node registers before.
    async fn nodes_ready(&mut self, nodes: usize) -> Result<()> {
        let range = self.bed.keyspace.health_range();
        self.until("all nodes are known", nodes, &range, |count, wanted| {
            count >= wanted
        })
        .await?;
        Ok(())
    }

    pub(super) fn store(&self) -> &SharedStore {
        &self.bed.store
    }

    pub(super) fn keyspace(&self) -> &Keyspace {
        &self.bed.keyspace
    }

    pub(super) fn cpu(&self) -> Cpu {
        Cpu {
            controllers: process::cpu_seconds(self.controllers.pid()),
            etcd: self.etcd.map(process::cpu_seconds),
            agents: process::cpu_seconds(self.agents.pid()),
        }
    }

    pub(super) fn controllers_rss_bytes(&self) -> u64 {
        rss_bytes(self.controllers.pid())
    }

    pub(super) async fn count(&self, what: Counted) -> Result<usize> {
        let range = self.range(what);
        Ok(count(&self.bed.store, &range).await?)
    }

    /// Waits until there are exactly so many keys; when that was first seen.
    pub(super) async fn until_counted(&mut self, what: Counted, wanted: usize) -> Result<Instant> {
        let range = self.range(what);
        let name = match what {
            Counted::Pods => "desired pods",
            Counted::Bindings => "bindings",
            Counted::NodeRecords => "records of nodes",
        };
        self.until(name, wanted, &range, |count, wanted| count == wanted)
            .await
    }

    fn range(&self, what: Counted) -> setpoint_apis::KeyRange {
        let keyspace = &self.bed.keyspace;
        match what {
            Counted::Pods => keyspace.desired_range("pods", Some(NAMESPACE)),
            Counted::Bindings => keyspace.binding_range(Some(NAMESPACE)),
            Counted::NodeRecords => keyspace.node_actual_range(None),
        }
    }

    async fn until(
        &mut self,
        what: &str,
        wanted: usize,
        range: &setpoint_apis::KeyRange,
        holds: impl Fn(usize, usize) -> bool,
    ) -> Result<Instant> {
        let begin = Instant::now();
        let mut ticks = tokio::time::interval(COUNT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let there = count(&self.bed.store, range).await?;
            if holds(there, wanted) {
                return Ok(Instant::now());
            }
            if let Some(ended) = self.ended() {
                bail!("{ended}");
            }
            if begin.elapsed() > self.limit {
                bail!(
                    "waited {} s for {wanted} ({what}): there are {there}",
                    self.limit.as_secs()
                );
            }
        }
    }

    /// Why a part has ended, if one has.
    pub(super) fn ended(&mut self) -> Option<String> {
        let parts = [&mut self.controllers, &mut self.agents];
        parts.into_iter().find_map(|part| {
            (!part.is_running())
                .then(|| format!("{} ended; the last words:\n{}", part.name, part.log_tail(5)))
        })
    }

    /// Waits until the statuses of so many Deployments fit.
    pub(super) async fn until_statuses(
        &mut self,
        statuses: &mut Statuses,
        what: &str,
        wanted: usize,
        fits: impl Fn(&DeploymentStatus) -> bool,
    ) -> Result<Instant> {
        let deadline = tokio::time::Instant::now() + self.limit;
        loop {
            let fitting = {
                let seen = statuses.known.borrow_and_update();
                let (at, known) = &*seen;
                let fitting = known.values().filter(|status| fits(status)).count();
                if fitting >= wanted {
                    return Ok(*at);
                }
                fitting
            };
            let look = deadline.min(tokio::time::Instant::now() + LOOK_AFTER_PARTS);
            match tokio::time::timeout_at(look, statuses.known.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => bail!("the watch of the Deployments' statuses has ended"),
                Err(_) => {
                    let ended = self.ended();
                    if ended.is_some() || tokio::time::Instant::now() >= deadline {
                        bail!(
                            "waited {} s at most until {wanted} Deployments are {what}: {fitting} are{}",
                            self.limit.as_secs(),
                            ended.map_or_else(String::new, |e| format!("; {e}"))
                        );
                    }
                }
            }
        }
    }

    /// Stops all parts but etcd.
    pub(super) async fn stop(&mut self) {
        self.agents.stop(Duration::from_secs(5)).await;
        self.controllers.stop(Duration::from_secs(5)).await;
    }
}

/// What the Deployments' statuses say, and when the newest was seen.
pub(super) struct Statuses {
    known: watch::Receiver<(Instant, BTreeMap<String, DeploymentStatus>)>,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Statuses {
    /// Follows them from now on.
    pub(super) async fn follow(store: &SharedStore, keyspace: &Keyspace) -> Result<Self> {
        let range = keyspace.actual_range(Deployment::PLURAL, Some(NAMESPACE));
        let request = WatchRequest {
            start: range.start,
            end: range.end,
            from: None,
        };
        let mut stream = store
            .watch(request)
            .await
            .context("watching the Deployments' statuses")?;
        let (tell, known) = watch::channel((Instant::now(), BTreeMap::new()));
        let keyspace = keyspace.clone();
        let task = tokio::spawn(async move {
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                let now = Instant::now();
                tell.send_modify(|(at, known): &mut (_, BTreeMap<_, _>)| {
                    *at = now;
                    for event in &batch.events {
                        let Ok(Key::Actual(_, key)) = keyspace.split(&event.kv.key) else {
                            continue;
                        };
                        let status = document::decode_value::<DeploymentStatus>(&event.kv.value);
                        match (event.kind, status) {
                            (EventKind::Put, Ok(status)) => {
                                known.insert(key.name.to_string(), status);
                            }
                            _ => drop(known.remove(&*key.name)),
                        }
                    }
                });
            }
            Ok(())
        });
        Ok(Self { known, task })
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn count(store: &SharedStore, range: &setpoint_apis::KeyRange) -> Result<usize, StoreError> {
    let request = RangeRequest {
        start: range.start.clone(),
        end: range.end.clone(),
        count_only: true,
        ..RangeRequest::default()
    };
    let page = store.range(request).await?;
    Ok(usize::try_from(page.count).unwrap_or_default())
}

/// The store's newest revision: every write counts one.
pub(super) async fn revision(store: &SharedStore) -> Result<Revision> {
    Ok(store
        .status()
        .await
        .context("reading etcd's status")?
        .revision)
}
