//! What the same etcd does of the same writes when nobody decides anything: the measure of the scheduler.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use setpoint_apis::Keyspace;
use setpoint_store::group_commit::{GroupCommit, Item, Options};
use setpoint_store::{Compare, SharedStore, Txn, TxnOp};

/// What a bind writes: a binding of this size, and a copy of the pod.
const BINDING_BYTES: usize = 330;
/// What a work copy has beyond the document: placement, uid and revision.
const HEADER_BYTES: usize = 80;
/// Binds of one measurement at most.
const MOST_BINDS: usize = 10_000;

/// Writes of the shape of binds, in keys of their own.
pub(super) struct Raw<'a> {
    pub(super) store: &'a SharedStore,
    pub(super) keyspace: &'a Keyspace,
    pub(super) document_bytes: usize,
}

impl Raw<'_> {
    /// Binds per second through group commit, all submitted at once: as good as it gets. The keys are new, as those of
    /// binds are, and are deleted afterwards.
    pub(super) async fn binds_per_second(&self, pods: usize) -> Result<f64> {
        let count = pods.clamp(500, MOST_BINDS);
        let items = (0..count).map(|number| self.bind(number)).collect();
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

    /// The time of two transactions, one after the other, each as large as half a bind.
    pub(super) async fn two_transactions(&self, number: usize) -> Result<Duration> {
        let begin = Instant::now();
        for half in self.bind(number).then {
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

    fn bind(&self, number: usize) -> Item {
        let txn = Txn::new()
            .when(Compare::absent(self.key("epoch")))
            .when(Compare::absent(self.key(&format!("desired/{number:06}"))))
            .when(Compare::absent(self.key(&format!("binding/{number:06}"))))
            .when(Compare::CreateRevision(
                self.key(&format!("alive/{}", number % 1000)),
                0,
            ))
            .put(
                self.key(&format!("binding/{number:06}")),
                Bytes::from(vec![b'x'; BINDING_BYTES]),
            )
            .put(
                self.key(&format!("work/{number:06}")),
                Bytes::from(vec![b'x'; self.document_bytes + HEADER_BYTES]),
            );
        Item {
            guards: txn.compares,
            then: txn.then,
            context: String::new(),
        }
    }

    /// After everything that is watched.
    fn key(&self, rest: &str) -> String {
        format!("{}/raw/{rest}", self.keyspace)
    }
}
