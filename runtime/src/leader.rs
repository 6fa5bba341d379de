//! What a leader writes with. Every write carries the epoch of its leadership as a guard, so that a deposed leader's
//! write fails in the store; and a write whose outcome is unknown is fenced off before anything else is decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_store::group_commit::{GroupCommit, Item, ItemOutcome};
use setpoint_store::{Compare, LeaseId, Put, Revision, SharedStore, StoreError, Txn, TxnOp};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::cache::Cache;
use crate::metrics::ControllerMetrics;
use crate::shards::{Shard, Shards};

/// A guarded write.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// What must hold, besides the leadership.
    pub guards: Vec<Compare>,
    /// What is written or deleted.
    pub ops: Vec<TxnOp>,
    /// What it is for, on which object: for errors and logs.
    pub context: String,
}

impl Write {
    /// Puts one key.
    pub fn put(
        context: impl Into<String>,
        key: impl Into<String>,
        value: impl Into<Bytes>,
    ) -> Self {
        let put = Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        };
        Self {
            guards: Vec::new(),
            ops: vec![TxnOp::Put(put)],
            context: context.into(),
        }
    }

    /// Deletes one key.
    pub fn delete(context: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            guards: Vec::new(),
            ops: vec![TxnOp::Delete(key.into())],
            context: context.into(),
        }
    }

    /// Adds a guard.
    #[must_use]
    pub fn when(mut self, guard: Compare) -> Self {
        self.guards.push(guard);
        self
    }
}

/// What became of one [`Write`].
#[derive(Clone, Debug)]
pub enum WriteOutcome {
    /// It is written, at this revision.
    Committed(Revision),
    /// A guard did not hold when the store was at this revision: decide again from a snapshot of it or a newer one, which
    /// [`Leader::see`] waits for.
    Conflict(Revision),
    /// The store refused it, and it is not written.
    Failed(StoreError),
}

/// Why a leader's writes were not carried out as a whole.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaderError {
    /// Somebody else leads, or the lease is gone: stop.
    #[error("{controller} is no longer led by this process")]
    Deposed {
        /// The controller.
        controller: String,
    },
    /// Some outcomes were unknown. Older writes are fenced off and the cache has caught up: decide again.
    #[error("the outcome of some writes of {controller} is unknown; they have been fenced off")]
    Refenced {
        /// The controller.
        controller: String,
    },
}

/// The right to write on behalf of a controller. Handed out by the [`Elector`](crate::Elector); cheap to clone.
#[derive(Clone)]
pub struct Leader {
    inner: Arc<Inner>,
}

struct Inner {
    seat: Seat,
    epoch: AtomicI64,
    store: SharedStore,
    commits: GroupCommit,
    cache: Cache,
    metrics: ControllerMetrics,
    lost: CancellationToken,
    /// Only one at a time renews the fence.
    bump: tokio::sync::Mutex<()>,
    /// The last epoch under which something may have been written of which nobody knows; -1 when there is none.
    doubtful: AtomicI64,
}

/// Held over what must not be dropped half-way: if it is, the present epoch is doubtful, and the next to write renews the
/// fence first.
struct Undecided<'a>(Option<&'a Inner>);

impl Undecided<'_> {
    fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if let Some(inner) = self.0 {
            let epoch = inner.epoch.load(Ordering::Acquire);
            inner.doubtful.fetch_max(epoch, Ordering::AcqRel);
        }
    }
}

impl Leader {
    pub(crate) fn new(
        seat: Seat,
        epoch: Revision,
        store: SharedStore,
        commits: GroupCommit,
        cache: Cache,
        metrics: ControllerMetrics,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                seat,
                epoch: AtomicI64::new(epoch.0),
                store,
                commits,
                cache,
                metrics,
                lost: CancellationToken::new(),
                bump: tokio::sync::Mutex::default(),
                doubtful: AtomicI64::new(-1),
            }),
        }
    }

    /// The fencing epoch: the mod revision of the election key.
    pub fn epoch(&self) -> Revision {
        Revision(self.inner.epoch.load(Ordering::Acquire))
    }

    /// The controller that this leads.
    pub fn controller(&self) -> &str {
        &self.inner.seat.controller
    }

    /// The shard that this leads; `None` when it leads the controller as a whole.
    pub fn shard(&self) -> Option<Shard> {
        self.inner.seat.part.map(|part| part.shard)
    }

    /// Whether the object that a controller calls `key` is this leader's business. Every key is, when there are no
    /// shards. The same key belongs to the same shard in every version of the program.
    pub fn owns(&self, key: &str) -> bool {
        self.inner
            .seat
            .part
            .is_none_or(|part| part.of.of_key(key) == part.shard)
    }

    /// The process's cache.
    pub fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// The keyspace.
    pub fn keyspace(&self) -> &Keyspace {
        self.inner.cache.keyspace()
    }

    /// The store, for reads.
    pub fn store(&self) -> &SharedStore {
        &self.inner.store
    }

    /// Cancelled when the leadership is lost or given up.
    pub fn lost(&self) -> &CancellationToken {
        &self.inner.lost
    }

    /// The guard that every write carries.
    pub fn guard(&self) -> Compare {
        Compare::ModRevision(self.inner.seat.key.clone(), self.epoch().0)
    }

    /// Commits guarded writes, each with an outcome of its own, and waits until the cache has seen those that were
    /// committed into the state trees.
    ///
    /// # Errors
    /// [`LeaderError::Deposed`]: stop. [`LeaderError::Refenced`]: some outcomes are unknown, decide again from the
    /// present view; what was not applied by now never will be.
    ///
    /// # Cancel safety
    /// Writes that were handed over may be carried out even when the future is dropped. Nobody knows their outcomes then, so
    /// the next call fences them off first: it writes nothing and ends with [`LeaderError::Refenced`].
    pub async fn commit(&self, writes: Vec<Write>) -> Result<Vec<WriteOutcome>, LeaderError> {
        let undecided = Undecided(Some(&*self.inner));
        let result = self.commit_and_see(writes).await;
        undecided.settle();
        result
    }

    async fn commit_and_see(&self, writes: Vec<Write>) -> Result<Vec<WriteOutcome>, LeaderError> {
        let outcomes = self.write(writes).await?;
        if let Some(newest) = newest(&outcomes) {
            // A leader that is to stop does not wait for an etcd that has gone away in between.
            tokio::select! {
                biased;
                () = self.inner.lost.cancelled() => return Err(self.deposed()),
                () = self.inner.cache.wait_for(newest) => {}
            }
        }
        Ok(outcomes)
    }

    /// As [`Leader::commit`], without waiting for the cache: for writes outside the state trees, and for those who
    /// keep account of their own writes.
    ///
    /// # Errors
    /// As [`Leader::commit`].
    ///
    /// # Cancel safety
    /// As [`Leader::commit`].
    pub async fn commit_only(&self, writes: Vec<Write>) -> Result<Vec<WriteOutcome>, LeaderError> {
        let undecided = Undecided(Some(&*self.inner));
        let result = self.write(writes).await;
        undecided.settle();
        result
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<WriteOutcome>, LeaderError> {
        if self.inner.lost.is_cancelled() {
            return Err(self.deposed());
        }
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let epoch = self.epoch();
        if self.inner.doubtful.load(Ordering::Acquire) >= epoch.0 {
            warn!(
                controller = self.controller(),
                "nobody has waited for the outcome of a write; fencing it off"
            );
            return self.refence().await;
        }
        let guard = Compare::ModRevision(self.inner.seat.key.clone(), epoch.0);
        let items = writes
            .into_iter()
            .map(|w| {
                let mut guards = Vec::with_capacity(w.guards.len() + 1);
                guards.push(guard.clone());
                guards.extend(w.guards);
                Item {
                    guards,
                    then: w.ops,
                    context: w.context,
                }
            })
            .collect();
        let mut unknown = false;
        let mut rejected = 0;
        let mut outcomes = Vec::new();
        for outcome in self.inner.commits.submit_all(items).await {
            outcomes.push(match outcome {
                ItemOutcome::Committed { revision } => WriteOutcome::Committed(revision),
                ItemOutcome::Rejected { revision } => {
                    rejected += 1;
                    WriteOutcome::Conflict(revision)
                }
                ItemOutcome::Failed(error) => WriteOutcome::Failed(error),
                ItemOutcome::Unknown(error) => {
                    self.inner.metrics.unknown_outcomes.inc();
                    warn!(
                        controller = self.controller(),
                        error = &error as &dyn std::error::Error,
                        "a write has an unknown outcome"
                    );
                    unknown = true;
                    WriteOutcome::Failed(error)
                }
            });
        }
        if unknown {
            return self.refence().await;
        }
        if rejected > 0 {
            let still = match self.check().await {
                Ok(true) => Ok(()),
                Ok(false) => self.refence().await,
                Err(error) => Err(error),
            };
            // The epoch went while these were under way: it is why they were rejected.
            if still.is_err() || self.epoch() != epoch {
                self.inner.metrics.fenced_writes.inc_by(rejected);
            }
            still?;
        }
        Ok(outcomes)
    }

    /// Waits until the cache has seen what the store held at `revision`, up to `limit`: for whoever met a conflict there.
    /// Whether it has. The limit is needed since the store also counts writes that no cache follows, such as events: a
    /// cache that is level with everything else reaches their revision only with the next change or progress notification.
    /// Ends early when the leadership is lost.
    pub async fn see(&self, revision: Revision, limit: Duration) -> bool {
        let seen = async {
            tokio::select! {
                biased;
                () = self.inner.lost.cancelled() => {}
                () = self.inner.cache.wait_for(revision) => {}
            }
        };
        // Running out of time is an answer too.
        let _ = tokio::time::timeout(limit, seen).await;
        self.inner.cache.revision() >= revision
    }

    /// Ends the leadership on this side; the elector gives up the key.
    pub fn step_down(&self) {
        self.inner.lost.cancel();
    }

    async fn refence<T>(&self) -> Result<T, LeaderError> {
        self.bump().await?;
        Err(LeaderError::Refenced {
            controller: self.controller().into(),
        })
    }

    /// A guard did not hold: was it the epoch? `false` when the key is this leader's under another epoch than it knows,
    /// since somebody who renewed the fence was dropped before the answer came. Costs one read, and conflicts are rare.
    async fn check(&self) -> Result<bool, LeaderError> {
        // While another write's unknown outcome is being fenced off, the key may be newer than the epoch known here.
        let _one = self.inner.bump.lock().await;
        match self.inner.store.get(&self.inner.seat.key).await {
            Ok((Some(kv), _)) if kv.mod_revision == self.epoch().0 => Ok(true),
            Ok((Some(kv), _)) if kv.lease == Some(self.inner.seat.lease) => Ok(false),
            Ok(_) => {
                self.inner.lost.cancel();
                Err(self.deposed())
            }
            // Not known: the guard in the next write asks again.
            Err(_) => Ok(true),
        }
    }

    /// Writes the election key again, which makes every older transaction of this leader fail; then waits until the
    /// cache has seen it.
    async fn bump(&self) -> Result<(), LeaderError> {
        let _one = self.inner.bump.lock().await;
        let seat = &self.inner.seat;
        let mut attempt = 0_u32;
        loop {
            if self.inner.lost.is_cancelled() {
                return Err(self.deposed());
            }
            let old = self.epoch();
            let txn = Txn {
                compares: vec![Compare::ModRevision(seat.key.clone(), old.0)],
                then: seat.claim(self.keyspace()),
                or_else: Vec::new(),
            };
            let revision = match self.inner.store.txn(txn).await {
                Ok(done) if done.succeeded => done.revision,
                // Either a bump of ours whose outcome was unknown has been applied, or somebody else leads.
                Ok(_) => match self.inner.store.get(&self.inner.seat.key).await {
                    Ok((Some(kv), _)) if kv.lease == Some(seat.lease) => Revision(kv.mod_revision),
                    Ok(_) => {
                        self.inner.lost.cancel();
                        return Err(self.deposed());
                    }
                    Err(error) => {
                        self.pause(&mut attempt, &error).await;
                        continue;
                    }
                },
                Err(error) => {
                    self.pause(&mut attempt, &error).await;
                    continue;
                }
            };
            self.inner.epoch.store(revision.0, Ordering::Release);
            tokio::select! {
                biased;
                () = self.inner.lost.cancelled() => return Err(self.deposed()),
                () = self.inner.cache.wait_for(revision) => return Ok(()),
            }
        }
    }

    /// Waits a little before the fence is renewed again. The elector ends this through `lost` when the lease is gone.
    async fn pause(&self, attempt: &mut u32, error: &StoreError) {
        warn!(
            controller = self.controller(),
            error = error as &dyn std::error::Error,
            "the fence could not be renewed; trying again"
        );
        *attempt = (*attempt + 1).min(5);
        let wait = Duration::from_millis(50 << *attempt);
        tokio::select! {
            biased;
            () = self.inner.lost.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    fn deposed(&self) -> LeaderError {
        LeaderError::Deposed {
            controller: self.controller().into(),
        }
    }
}

/// What an election is about: a controller as a whole or one of its shards, and who takes it under which lease.
#[derive(Clone)]
pub(crate) struct Seat {
    controller: String,
    part: Option<Part>,
    identity: String,
    lease: LeaseId,
    key: String,
}

/// A shard, and the map that gave it to whoever claims it.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) shard: Shard,
    pub(crate) of: Shards,
    /// The store's revision at which the members were seen.
    pub(crate) generation: i64,
}

impl Seat {
    pub(crate) fn new(
        keyspace: &Keyspace,
        controller: &str,
        part: Option<Part>,
        identity: &str,
        lease: LeaseId,
    ) -> Self {
        let shard = part.map(|part| part.shard.to_string());
        Self {
            key: keyspace.build(&Key::Leader(controller, shard.as_deref())),
            controller: controller.into(),
            part,
            identity: identity.into(),
            lease,
        }
    }

    /// The election key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The writes that make a leader: the election key under the lease, and a record in the state tree, whose event
    /// tells the cache that it has seen everything up to the election.
    pub(crate) fn claim(&self, keyspace: &Keyspace) -> Vec<TxnOp> {
        let (value, record) = match self.part {
            None => (
                format!("leader: {}\n", self.identity),
                ObjectKey::cluster(self.controller.as_str()),
            ),
            Some(part) => (
                format!(
                    "leader: {}\ngeneration: {}\n",
                    self.identity, part.generation
                ),
                ObjectKey::namespaced(self.controller.as_str(), part.shard.to_string()),
            ),
        };
        let put = |key: String, lease| {
            let value = value.clone().into();
            TxnOp::Put(Put { key, value, lease })
        };
        vec![
            put(self.key.clone(), Some(self.lease)),
            put(keyspace.build(&Key::Actual("leaders", record)), None),
        ]
    }
}

fn newest(outcomes: &[WriteOutcome]) -> Option<Revision> {
    outcomes
        .iter()
        .filter_map(|o| match o {
            WriteOutcome::Committed(revision) => Some(*revision),
            _ => None,
        })
        .max()
}
