//! The cluster under measurement: an etcd, nodes without agents, and the scheduler as a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use setpoint_apis::core::PodCondition;
use setpoint_apis::records::{NodeAlive, NodeStatusRecord, PodScheduling};
use setpoint_apis::{Key, Keyspace, ObjectKey, Quantity, ResourceList, document};
use setpoint_runtime::Clock;
use setpoint_store::lease::LeaseKeeper;
use setpoint_store::{RangeRequest, SharedStore, Txn};
use tokio::process::Command;

use super::cases::{NODE_MEMORY_MIB, NODE_PODS, Placed, Plan};
use super::watch::{NAMESPACE, Role};
use crate::dev::Managed;

/// The nodes' sessions hang on few leases: what they cost is not measured here.
const NODES_PER_LEASE: usize = 500;
const LEASE_TTL: Duration = Duration::from_secs(60);
/// Objects that are written with one transaction, and transactions that are under way.
const PER_TRANSACTION: usize = 100;
const IN_FLIGHT: usize = 4;

/// See the module.
pub(super) struct Lab {
    pub(super) store: SharedStore,
    pub(super) keyspace: Keyspace,
    pub(super) endpoint: String,
    /// Where logs go.
    pub(super) directory: PathBuf,
    leases: Vec<LeaseKeeper>,
    scheduler: Option<Managed>,
}

impl Lab {
    pub(super) fn new(
        store: SharedStore,
        keyspace: Keyspace,
        endpoint: String,
        directory: PathBuf,
    ) -> Self {
        Self {
            store,
            keyspace,
            endpoint,
            directory,
            leases: Vec::new(),
            scheduler: None,
        }
    }

    /// Writes nodes as their agents would: a session and a status each.
    pub(super) async fn put_nodes(&mut self, count: usize, plan: &Plan) -> Result<()> {
        let now = Clock::system().now();
        let quantity = |text: String| text.parse::<Quantity>().context("a node's capacity");
        let capacity = ResourceList::from([
            ("cpu".to_owned(), quantity(plan.cpus().to_string())?),
            (
                "memory".to_owned(),
                quantity(format!("{NODE_MEMORY_MIB}Mi"))?,
            ),
            ("pods".to_owned(), quantity(NODE_PODS.to_string())?),
        ]);
        let mut batches = Vec::new();
        let mut txn = Txn::new();
        for number in 0..count {
            if number % NODES_PER_LEASE == 0 {
                let lease = LeaseKeeper::grant(self.store.clone(), LEASE_TTL);
                self.leases.push(lease.await.context("a lease for nodes")?);
            }
            let lease = self.leases.last().context("every node has a lease")?.id();
            let name = format!("node-{number}");
            let alive = NodeAlive {
                hostname: name.clone(),
                instance: format!("bench-{number}"),
                since: now,
                lease_ttl_seconds: LEASE_TTL.as_secs().cast_signed(),
                ..NodeAlive::default()
            };
            let status = NodeStatusRecord {
                capacity: capacity.clone(),
                allocatable: capacity.clone(),
                labels: [
                    ("kubernetes.io/hostname".to_owned(), name.clone()),
                    (
                        "topology.kubernetes.io/zone".to_owned(),
                        format!("zone-{}", number % plan.zones),
                    ),
                ]
                .into(),
                drivers: vec!["hollow".to_owned()],
                ..NodeStatusRecord::default()
            };
            txn = txn
                .put_with_lease(
                    self.keyspace.build(&Key::NodeAlive(&name)),
                    document::encode(&alive),
                    lease,
                )
                .put(
                    self.keyspace.build(&Key::NodeStatus(&name)),
                    document::encode(&status),
                );
            if txn.then.len() >= PER_TRANSACTION {
                batches.push(std::mem::take(&mut txn));
            }
        }
        batches.push(txn);
        self.send(batches.into_iter())
            .await
            .context("writing nodes")
    }

    /// Writes the PodGroups.
    pub(super) async fn put_pod_groups(&self, plan: &Plan) -> Result<()> {
        let groups = plan.pod_groups();
        let batches = groups.chunks(PER_TRANSACTION).map(|chunk| {
            chunk.iter().fold(Txn::new(), |txn, (name, document)| {
                let key = ObjectKey::namespaced(NAMESPACE, name.as_str());
                txn.put(
                    self.keyspace.build(&Key::Desired("podgroups", key)),
                    document.clone(),
                )
            })
        });
        self.send(batches).await.context("writing PodGroups")
    }

    /// Creates pods, as a client does that has many to create: in batches, several under way.
    pub(super) async fn put_pods(
        &self,
        role: Role,
        count: usize,
        document: impl Fn(&str, usize) -> String,
    ) -> Result<()> {
        let numbers: Vec<usize> = (0..count).collect();
        let batches = numbers.chunks(PER_TRANSACTION).map(|chunk| {
            chunk.iter().fold(Txn::new(), |txn, number| {
                let name = role.name(*number);
                let document = document(&name, *number);
                txn.put(self.pod_key(&name), document)
            })
        });
        self.send(batches).await.context("creating pods")
    }

    /// Creates one pod.
    pub(super) async fn put_pod(&self, name: &str, document: String) -> Result<()> {
        let txn = Txn::new().put(self.pod_key(name), document);
        self.store.txn(txn).await.context("creating a pod")?;
        Ok(())
    }

    /// Deletes the pods of these numbers.
    pub(super) async fn delete_pods(
        &self,
        role: Role,
        numbers: std::ops::Range<usize>,
    ) -> Result<()> {
        let numbers: Vec<usize> = numbers.collect();
        let batches = numbers.chunks(PER_TRANSACTION).map(|chunk| {
            chunk.iter().fold(Txn::new(), |txn, number| {
                txn.delete(self.pod_key(&role.name(*number)))
            })
        });
        self.send(batches).await.context("deleting pods")
    }

    async fn send(&self, batches: impl Iterator<Item = Txn>) -> Result<()> {
        stream::iter(batches)
            .map(|txn| self.store.txn(txn))
            .buffer_unordered(IN_FLIGHT)
            .map_err(anyhow::Error::from)
            .try_for_each(async |done| {
                ensure!(done.succeeded, "a transaction without guards failed");
                Ok(())
            })
            .await
    }

    fn pod_key(&self, name: &str) -> String {
        let key = ObjectKey::namespaced(NAMESPACE, name);
        self.keyspace.build(&Key::Desired("pods", key))
    }

    /// Starts the scheduler, as users do.
    pub(super) fn start_scheduler(&mut self) -> Result<u32> {
        let program = std::env::current_exe().context("finding the setpoint program")?;
        let mut command = Command::new(program);
        command.args(["controllers", "--only", "scheduler"]);
        command.args(["--endpoints", &self.endpoint]);
        command.args(["--key-prefix", self.keyspace.as_str()]);
        let scheduler = Managed::start("scheduler", command, &self.directory)?;
        Ok(self.scheduler.insert(scheduler).pid())
    }

    /// Its process.
    pub(super) fn scheduler(&self) -> Option<u32> {
        self.scheduler.as_ref().map(Managed::pid)
    }

    /// Stops the scheduler, which hands its leadership over.
    pub(super) async fn stop_scheduler(&mut self) {
        if let Some(mut scheduler) = self.scheduler.take() {
            scheduler.stop(Duration::from_secs(5)).await;
        }
    }

    /// Why the scheduler has ended, if it has.
    pub(super) fn scheduler_ended(&mut self) -> Option<String> {
        let scheduler = self.scheduler.as_mut()?;
        (!scheduler.is_running()).then(|| {
            format!(
                "the scheduler ended; its last words:\n{}",
                scheduler.log_tail(5)
            )
        })
    }

    /// What the scheduler says of a pod that it has not bound.
    pub(super) async fn reason(&self, pod: &str) -> Result<String> {
        let key = ObjectKey::namespaced(NAMESPACE, pod);
        let record = self
            .store
            .get(&self.keyspace.build(&Key::Actual("pods", key)))
            .await
            .context("reading why a pod is not bound")?
            .0;
        let Some(kv) = record else {
            return Ok("the scheduler says nothing of it".to_owned());
        };
        let record: PodScheduling =
            document::decode_value(&kv.value).context("why a pod is not bound")?;
        let say = |c: &PodCondition| {
            let (reason, message) = (c.reason.as_deref(), c.message.as_deref());
            format!(
                "{}: {}",
                reason.unwrap_or_default(),
                message.unwrap_or_default()
            )
        };
        Ok(record.conditions.first().map(say).unwrap_or_default())
    }

    /// Where pods are bound now.
    pub(super) async fn placements(&self) -> Result<Vec<(Role, Placed)>> {
        const PAGE: i64 = 5_000;
        let range = self.keyspace.binding_range(Some(NAMESPACE));
        let mut start = range.start;
        let mut placed = Vec::new();
        loop {
            let page = self
                .store
                .range(RangeRequest {
                    start: start.clone(),
                    end: range.end.clone(),
                    limit: PAGE,
                    ..RangeRequest::default()
                })
                .await
                .context("reading bindings")?;
            for kv in &page.kvs {
                let Ok(Key::Binding(key)) = self.keyspace.split(&kv.key) else {
                    continue;
                };
                let Some((role, pod)) = Role::parse(&key.name) else {
                    continue;
                };
                match node_of(&kv.value) {
                    Some(node) => placed.push((role, (pod, node))),
                    None => bail!("the binding {} names no node of the benchmark", kv.key),
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => start = format!("{}\0", last.key),
                _ => return Ok(placed),
            }
        }
    }

    /// Stops everything.
    pub(super) async fn stop(&mut self) {
        self.stop_scheduler().await;
        for lease in self.leases.drain(..) {
            // It ends by itself otherwise.
            let _ = lease.revoke().await;
        }
    }
}

/// The number of the node of a binding, whose field is the first: decoding 100,000 documents would take seconds.
fn node_of(binding: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(binding).ok()?;
    let node = text.lines().find_map(|line| line.strip_prefix("node: "))?;
    node.trim_matches(['"', '\''])
        .strip_prefix("node-")?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_of_a_binding_is_read() {
        assert_eq!(node_of(b"node: node-17\nsession: 4\n"), Some(17));
        assert_eq!(node_of(b"node: 'node-3'\n"), Some(3));
        assert_eq!(node_of(b"session: 4\n"), None);
    }
}
