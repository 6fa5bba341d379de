//! Many small guarded transactions in few big ones, each with an outcome of its own.
//!
//! An etcd transaction costs a Raft round whether it writes two keys or two hundred. Items that are submitted while
//! transactions are under way travel together: each becomes a nested transaction, with its own guards, of one outer
//! transaction. On an idle line an item goes at once, alone, as the plain transaction it is; there is no timer.
//!
//! # Guarantees
//! - Every item is applied at most once, as a whole, and only if all its guards hold.
//! - Every item learns its own outcome. What another item of the same transaction does, or why the transaction was
//!   refused because of it, is invisible: when a whole transaction is refused, its items are tried again alone.
//! - Items that touch a common key, one of them writing it, take effect in the order in which they were submitted. etcd
//!   evaluates all guards of a transaction before any of its writes, so such items never share a transaction, and the
//!   later one waits until the outcome of the earlier one is there. Ranges count as all keys in them.
//! - Nothing is promised about the order of items that share no written key.
//! - What waits is bounded (`Options::max_queued_bytes`); beyond that `submit` waits for room.
//!
//! # Unknown outcomes
//! After [`ItemOutcome::Unknown`] the item may have been applied, or may still be. The order above ends there: a later
//! item may overtake the lost one. Writers who care carry an epoch guard, and raise the epoch before they go on.

mod footprint;
mod queue;
mod run;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};

use self::footprint::Footprint;
use self::queue::{Entry, Queue};
use crate::SharedStore;
use crate::error::StoreError;
use crate::types::{Compare, Revision, TxnOp};

pub use self::queue::Stats;

/// One guarded transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// All must hold, or nothing is written.
    pub guards: Vec<Compare>,
    /// The writes.
    pub then: Vec<TxnOp>,
    /// What it is for: `bind default/web-1 to n1`. Stands at the head of errors.
    pub context: String,
}

/// What became of an item.
#[derive(Clone, Debug)]
pub enum ItemOutcome {
    /// The guards held and the writes were made, at this revision.
    Committed {
        /// The store's revision after the transaction.
        revision: Revision,
    },
    /// A guard did not hold; nothing was written.
    Rejected {
        /// The store's revision when that was found.
        revision: Revision,
    },
    /// Nothing was written, and will not be.
    Failed(StoreError),
    /// It may have been written, or may still be.
    Unknown(StoreError),
}

impl ItemOutcome {
    /// The revision of the item's writes, if it is known that they were made.
    pub fn committed(&self) -> Option<Revision> {
        match self {
            Self::Committed { revision } => Some(*revision),
            _ => None,
        }
    }
}

/// Limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// etcd's `--max-txn-ops`. It counts along the nesting: the items of the transaction plus the longest list within
    /// one of them. 127 items with one guard and one write each just fit 128.
    pub max_ops: usize,
    /// At most so many items per transaction.
    pub max_items: usize,
    /// At most so many bytes of keys and values per transaction; etcd takes 1.5 MiB.
    pub max_bytes: usize,
    /// At most so many transactions at a time.
    pub max_in_flight: usize,
    /// Bytes of keys and values that may wait to be sent.
    pub max_queued_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_ops: 128,
            max_items: 120,
            max_bytes: 1 << 20,
            max_in_flight: 6,
            max_queued_bytes: 32 << 20,
        }
    }
}

/// Commits items in groups. Clones share the queue.
#[derive(Clone)]
pub struct GroupCommit {
    inner: Arc<Inner>,
}

struct Inner {
    store: SharedStore,
    options: Options,
    queue: Mutex<Queue>,
    /// Bytes that may still be queued.
    room: Semaphore,
    idle: Notify,
}

impl GroupCommit {
    /// Commits to `store`.
    pub fn new(store: SharedStore, options: Options) -> Self {
        let room = Semaphore::new(options.max_queued_bytes.clamp(1, Semaphore::MAX_PERMITS));
        let queue = Mutex::new(Queue::default());
        Self {
            inner: Arc::new(Inner {
                store,
                options,
                queue,
                room,
                idle: Notify::new(),
            }),
        }
    }

    /// Submits an item and waits for its outcome.
    ///
    /// # Cancel safety
    /// The item is submitted at the first poll, or once there is room. From then on dropping the future does not withdraw
    /// it: it is carried out, and nobody learns its outcome.
    pub fn submit(&self, item: Item) -> impl Future<Output = ItemOutcome> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        async move {
            let entry = Prepared::new(item, &inner.options);
            inner.reserve(entry.cost).await;
            let (entry, outcome) = entry.into_entry();
            inner.enqueue([entry]);
            wait(outcome).await
        }
    }

    /// Submits items and waits for all outcomes, which stand in the order of the items. They need not share a
    /// transaction, but will if they fit.
    ///
    /// # Cancel safety
    /// As [`GroupCommit::submit`]; of many items, those behind the first that found no room are not submitted.
    pub async fn submit_all(&self, items: Vec<Item>) -> Vec<ItemOutcome> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut waiting = Vec::with_capacity(items.len().min(1024));
        for item in items {
            let prepared = Prepared::new(item, &self.inner.options);
            match self.inner.room.try_acquire_many(prepared.cost) {
                Ok(permit) => permit.forget(),
                Err(_) => {
                    self.inner.enqueue(waiting.drain(..));
                    self.inner.reserve(prepared.cost).await;
                }
            }
            let (entry, outcome) = prepared.into_entry();
            outcomes.push(outcome);
            waiting.push(entry);
        }
        self.inner.enqueue(waiting);
        let mut results = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            results.push(wait(outcome).await);
        }
        results
    }

    /// Waits until nothing is queued or under way.
    pub async fn idle(&self) {
        loop {
            let notified = self.inner.idle.notified();
            if self.inner.queue.lock().is_idle() {
                return;
            }
            notified.await;
        }
    }

    /// Counters since the start, and what is there now.
    pub fn stats(&self) -> Stats {
        self.inner.queue.lock().stats()
    }
}

impl Inner {
    async fn reserve(&self, cost: u32) {
        // The semaphore is never closed.
        if let Ok(permit) = self.room.acquire_many(cost).await {
            permit.forget();
        }
    }

    fn enqueue(self: &Arc<Self>, entries: impl IntoIterator<Item = Entry>) {
        let mut queue = self.queue.lock();
        queue.push(entries);
        self.start(queue);
    }

    /// Starts whatever may start.
    fn start(self: &Arc<Self>, mut queue: parking_lot::MutexGuard<'_, Queue>) {
        while let Some(batch) = queue.take(&self.options) {
            crate::task::spawn(run::work(Arc::clone(self), batch));
        }
    }
}

/// An item with what is known about it before it has a place.
struct Prepared {
    item: Item,
    footprint: Footprint,
    cost: u32,
}

impl Prepared {
    fn new(item: Item, options: &Options) -> Self {
        let footprint = Footprint::of(&item);
        let most = u32::try_from(options.max_queued_bytes.clamp(1, Semaphore::MAX_PERMITS))
            .unwrap_or(u32::MAX);
        let cost = u32::try_from(footprint.bytes).unwrap_or(u32::MAX).min(most);
        Self {
            item,
            footprint,
            cost,
        }
    }

    fn into_entry(self) -> (Entry, oneshot::Receiver<ItemOutcome>) {
        let (reply, outcome) = oneshot::channel();
        (
            Entry {
                item: self.item,
                footprint: self.footprint,
                cost: self.cost,
                reply,
            },
            outcome,
        )
    }
}

async fn wait(outcome: oneshot::Receiver<ItemOutcome>) -> ItemOutcome {
    outcome.await.unwrap_or_else(|_| {
        let message = "the runtime ended before the answer came".to_owned();
        ItemOutcome::Unknown(StoreError::Unknown {
            context: "group commit".to_owned(),
            message,
        })
    })
}
