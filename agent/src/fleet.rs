//! Many hollow nodes in one process: each has a session, a lease, a watch and a node loop of its own, as agents have, and
//! none has a disk. They share connections to etcd and the group commit of their claims and statuses.
//!
//! # Guarantees
//! - To everybody else each is a node like any other; what it says it runs does not exist.
//! - All end together. As agents do, they leave their leases, which expire, unless they are to stop their pods; what
//!   "runs" ends with the process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use setpoint_apis::{Keyspace, ObjectKey};
use setpoint_runtime::Clock;
use setpoint_store::SharedStore;
use setpoint_store::group_commit::{GroupCommit, Options};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::hollow::{HollowPods, HollowRunner, Latencies, Observer};
use crate::node::config::AgentConfig;
use crate::node::{self, AgentError, Disk, HollowDisk, Machine, Surroundings};
use crate::workload::PodRunner;

/// The label of a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Nodes that begin at a time, each until it has a session and has listed its work: all at once, thousands of first
/// requests would wait for longer than a request may take.
const BEGINNING: usize = 64;

/// The wait before a name is tried again that an earlier process still holds: until its lease has ended.
const HELD: Duration = Duration::from_millis(500);

/// How a fleet is set up.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// What all nodes have. Its name is the node's, or with a `count` the beginning of the nodes' names; its directory is
    /// not used.
    pub node: AgentConfig,
    /// How many nodes, named `NAME-0`, `NAME-1`, and so on; `None`: one, with the name as it is.
    pub count: Option<u32>,
    /// How many zones the nodes are in, by turns: `zone-0`, `zone-1`, and so on. 0: they have no zone.
    pub zones: u32,
    /// How long pretending takes.
    pub latencies: Latencies,
    /// Seeds latencies.
    pub seed: u64,
}

impl FleetConfig {
    /// Number, name and labels of every node.
    fn nodes(&self) -> impl Iterator<Item = (u32, String, BTreeMap<String, String>)> {
        (0..self.count.unwrap_or(1)).map(|number| {
            let name = match self.count {
                Some(_) => format!("{}-{number}", self.node.node),
                None => self.node.node.clone(),
            };
            let mut labels = self.node.labels.clone();
            if self.zones > 0 {
                labels.insert(ZONE_LABEL.into(), format!("zone-{}", number % self.zones));
            }
            (number, name, labels)
        })
    }
}

/// Runs hollow nodes until `shutdown`. They share the `stores`, by turns: each is a connection.
///
/// `instance` differs between processes: a process that is started again waits until the leases of the former have ended.
///
/// # Errors
/// [`AgentError`] of the first node that ended by itself: another agent has its name.
pub async fn run(
    config: FleetConfig,
    instance: &str,
    stores: Vec<SharedStore>,
    keyspace: Keyspace,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let begin = Instant::now();
    let count = config.count.unwrap_or(1);
    let stores: Vec<(SharedStore, GroupCommit)> = stores
        .into_iter()
        .map(|store| {
            let commits = GroupCommit::new(store.clone(), Options::default());
            (store, commits)
        })
        .collect();
    let registered = Arc::new(AtomicU32::new(0));
    let mut nodes = JoinSet::new();
    let beginning = Arc::new(Semaphore::new(BEGINNING));
    for (number, name, labels) in config.nodes() {
        let permit = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            permit = beginning.clone().acquire_owned() => permit.ok(),
        };
        let (store, commits) = &stores[number as usize % stores.len()];
        let node = Node {
            config: AgentConfig {
                labels,
                data_dir: PathBuf::from("hollow"),
                node: name,
                ..config.node.clone()
            },
            latencies: config.latencies.clone(),
            seed: config.seed.wrapping_add(number.into()),
            instance: format!("{instance}-{number}"),
            pods: HollowPods::new(Registered {
                nodes: registered.clone(),
                count,
                begin,
                permit: Mutex::new(permit),
            }),
        };
        nodes.spawn(node.run(
            store.clone(),
            commits.clone(),
            keyspace.clone(),
            shutdown.clone(),
        ));
    }
    let mut result = Ok(());
    while let Some(ended) = nodes.join_next().await {
        // The others end after the first error, and what they say then explains nothing.
        result = result.and(take_note(ended, &shutdown));
    }
    result
}

/// Ends all nodes when one has ended by itself.
fn take_note(
    ended: Result<Result<(), AgentError>, JoinError>,
    shutdown: &CancellationToken,
) -> Result<(), AgentError> {
    match ended {
        Ok(Err(error)) => {
            shutdown.cancel();
            return Err(error);
        }
        Ok(Ok(())) => {}
        Err(error) => warn!(%error, "a node's task ended"),
    }
    Ok(())
}

/// One node.
struct Node {
    config: AgentConfig,
    latencies: Latencies,
    seed: u64,
    instance: String,
    pods: HollowPods,
}

impl Node {
    async fn run(
        self,
        store: SharedStore,
        commits: GroupCommit,
        keyspace: Keyspace,
        shutdown: CancellationToken,
    ) -> Result<(), AgentError> {
        let patience = Instant::now() + self.config.lease_ttl * 2;
        let disk = HollowDisk::default();
        loop {
            let clock = Clock::system();
            let surroundings = Surroundings {
                machine: Machine::hollow(self.config.node.clone()),
                disk: Disk::hollow(self.instance.clone(), disk.clone()),
                clock: clock.clone(),
            };
            let (pods, latencies, seed) = (self.pods.clone(), self.latencies.clone(), self.seed);
            let ended = node::run_sharing(
                commits.clone(),
                self.config.clone(),
                surroundings,
                store.clone(),
                keyspace.clone(),
                None,
                move |config, context| {
                    let address = config.address.to_string();
                    let runner =
                        HollowRunner::new(pods, context.reports, clock, latencies, address, seed);
                    Ok(Arc::new(runner) as Arc<dyn PodRunner>)
                },
                shutdown.clone(),
            )
            .await;
            match ended {
                Err(AgentError::Held { node, holder }) if Instant::now() < patience => {
                    info!(
                        node,
                        holder = holder.pid,
                        "an earlier process holds the node; waiting for its lease to end"
                    );
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(()),
                        () = sleep(HELD) => {}
                    }
                }
                ended => return ended,
            }
        }
    }
}

/// Says when all nodes have a session.
struct Registered {
    nodes: Arc<AtomicU32>,
    count: u32,
    begin: Instant,
    /// Held until the node has begun.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Observer for Registered {
    fn started(&self, _pod: &ObjectKey) {}

    fn ended(&self, _pod: &ObjectKey) {}

    fn session_began(&self, first: bool) {
        self.permit.lock().take();
        if first && self.nodes.fetch_add(1, Ordering::Relaxed) + 1 == self.count {
            info!(
                nodes = self.count,
                seconds = self.begin.elapsed().as_secs_f64(),
                "all hollow nodes are registered"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(count: Option<u32>, zones: u32) -> Vec<(String, Option<String>)> {
        let config = FleetConfig {
            node: AgentConfig::new("n", "hollow"),
            count,
            zones,
            latencies: Latencies::default(),
            seed: 1,
        };
        let nodes = config.nodes();
        nodes
            .map(|(_, name, mut labels)| (name, labels.remove(ZONE_LABEL)))
            .collect()
    }

    #[test]
    fn nodes_are_numbered_and_take_turns_in_zones() {
        let zone = |n: u32| Some(format!("zone-{n}"));
        assert_eq!(
            fleet(Some(3), 2),
            [
                ("n-0".to_owned(), zone(0)),
                ("n-1".to_owned(), zone(1)),
                ("n-2".to_owned(), zone(0))
            ]
        );
        assert_eq!(fleet(None, 0), [("n".to_owned(), None)]);
    }
}
