//! What the same etcd does of the same writes when nobody decides anything: the measure of the scheduler.
//!
//! A raw bind has the keys, values, guards and operations of a bind: it is guarded on a leader's key, a pod's document, a
//! node's session, all there at a known revision, and on a binding that is not; it writes a binding and a work copy.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use setpoint_apis::core::Pod;
use setpoint_apis::{Keyspace, document};
use setpoint_store::group_commit::{GroupCommit, Item, Options};
use setpoint_store::{Compare, SharedStore, Txn, TxnOp, TxnResult};

/// What a bind writes: a binding of this size, and a copy of the pod.
const BINDING_BYTES: usize = 240;
/// What a work copy has beyond the document: placement, uid and revision.
const HEADER_BYTES: usize = 84;
/// What a session's key holds.
const ALIVE_BYTES: usize = 95;
/// Binds of one measurement at most.
const MOST_BINDS: usize = 10_000;
/// Keys that are prepared with one transaction, and transactions that are under way.
const PER_TRANSACTION: usize = 100;
const IN_FLIGHT: usize = 4;

/// Writes of the shape of binds, in keys of their own.
pub(super) struct Raw<'a> {
    pub(super) store: &'a SharedStore,
    pub(super) keyspace: &'a Keyspace,
    nodes: usize,
    /// Of the pod's document, as it was written and as it is in a work copy, where defaults are filled in.
    document_bytes: usize,
    work_bytes: usize,
}

impl<'a> Raw<'a> {
    /// Binds of pods with this document to so many nodes.
    pub(super) fn new(
        store: &'a SharedStore,
        keyspace: &'a Keyspace,
        document: &str,
        nodes: usize,
    ) -> Result<Self> {
        let pod: Pod = document::decode(document.as_bytes()).context("a pod of the benchmark")?;
        Ok(Self {
            store,
            keyspace,
            nodes,
            document_bytes: document.len(),
            work_bytes: document::encode(&pod).len() + HEADER_BYTES,
        })
    }

    /// Binds per second through group commit, all submitted at once: as good as it gets. The keys are new, as those of
    /// binds are, and are deleted afterwards, with those that the guards are on.
    pub(super) async fn binds_per_second(&self, pods: usize) -> Result<f64> {
        let count = pods.clamp(500, MOST_BINDS);
        let items = self.prepare(count).await?;
        let commits = GroupCommit::new(self.store.clone(), Options::default());
        let begin = Instant::now();
        let outcomes = commits.submit_all(items).await;
        let took = begin.elapsed();
        for outcome in outcomes {
            if outcome.committed().is_none() {
                bail!("a raw bind was not committed: {outcome:?}");
            }
        }
        self.remove().await?;
        Ok(count as f64 / took.as_secs_f64())
    }

    /// Writes what the guards are on; the binds.
    async fn prepare(&self, count: usize) -> Result<Vec<Item>> {
        let epoch = self.put(vec![(self.key("leaders/scheduler"), 40)]);
        let epoch = epoch.await?.revision.0;
        let alive = (0..self.nodes).map(|node| (self.alive_key(node), ALIVE_BYTES));
        let alive = self.put_all(alive.collect()).await?;
        let desired = (0..count).map(|number| (self.desired_key(number), self.document_bytes));
        let desired = self.put_all(desired.collect()).await?;
        let binds = desired.into_iter().enumerate().map(|(number, desired)| {
            let node = number % self.nodes;
            Item {
                guards: vec![
                    Compare::ModRevision(self.key("leaders/scheduler"), epoch),
                    Compare::ModRevision(self.desired_key(number), desired),
                    Compare::absent(self.binding_key(number)),
                    Compare::CreateRevision(self.alive_key(node), alive[node]),
                ],
                then: self.writes(number),
                context: String::new(),
            }
        });
        Ok(binds.collect())
    }

    /// Puts keys with values of so many bytes; the revision of each.
    async fn put_all(&self, keys: Vec<(String, usize)>) -> Result<Vec<i64>> {
        let chunks: Vec<_> = keys.chunks(PER_TRANSACTION).map(<[_]>::to_vec).collect();
        let done: Vec<Vec<i64>> = stream::iter(chunks)
            .map(async |keys| {
                let count = keys.len();
                let done = self.put(keys).await?;
                anyhow::Ok(vec![done.revision.0; count])
            })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
        Ok(done.concat())
    }

    async fn put(&self, keys: Vec<(String, usize)>) -> Result<TxnResult> {
        let puts = keys
            .into_iter()
            .fold(Txn::new(), |txn, (key, bytes)| txn.put(key, filler(bytes)));
        let done = self.store.txn(puts).await;
        done.context("writing what raw binds are guarded on")
    }

    /// The time of two transactions, one after the other, each as large as half a bind.
    pub(super) async fn two_transactions(&self, number: usize) -> Result<Duration> {
        let begin = Instant::now();
        for half in self.writes(number) {
            let txn = Txn {
                then: vec![half],
                ..Txn::new()
            };
            let done = self.store.txn(txn).await.context("a raw transaction")?;
            ensure!(done.succeeded, "a raw transaction without guards failed");
        }
        Ok(begin.elapsed())
    }

    /// Deletes the keys.
    pub(super) async fn remove(&self) -> Result<()> {
        let start = self.key("");
        // The byte after the slash.
        let end = format!("{}0", start.trim_end_matches('/'));
        let wipe = Txn {
            then: vec![TxnOp::DeleteRange { start, end }],
            ..Txn::new()
        };
        self.store.txn(wipe).await.context("removing raw binds")?;
        Ok(())
    }

    fn writes(&self, number: usize) -> Vec<TxnOp> {
        let node = number % self.nodes;
        let work = format!("work/node-{node}/pods/default/bench-{number:06}");
        let txn = Txn::new()
            .put(self.binding_key(number), filler(BINDING_BYTES))
            .put(self.key(&work), filler(self.work_bytes));
        txn.then
    }

    fn desired_key(&self, number: usize) -> String {
        self.key(&format!("desired/pods/default/bench-{number:06}"))
    }

    fn binding_key(&self, number: usize) -> String {
        self.key(&format!("bindings/default/bench-{number:06}"))
    }

    fn alive_key(&self, node: usize) -> String {
        self.key(&format!("actual/nodes/node-{node}/alive"))
    }

    /// After everything that is watched.
    fn key(&self, rest: &str) -> String {
        format!("{}/raw/{rest}", self.keyspace)
    }
}

fn filler(bytes: usize) -> Bytes {
    Bytes::from(vec![b'x'; bytes])
}
