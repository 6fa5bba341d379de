//! etcd behind one narrow trait, and what is built on that trait alone: group commit, leases, paged lists.
//!
//! Nothing above this crate knows gRPC. The trait speaks of keys, values, revisions and guards; what the keys mean is
//! the business of `setpoint-apis`.
//!
//! | Module | Holds |
//! |---|---|
//! | [`types`], [`error`] | the vocabulary of [`Store`], and whether a failed write may have happened |
//! | [`etcd`] | [`EtcdStore`]: deadlines, failover, watches that notice a silent server, one keep-alive stream |
//! | [`group_commit`] | many guarded items in few transactions, each with its own outcome |
//! | [`lease`] | [`LeaseKeeper`]: a lease kept alive, and until when it is sure to live |
//! | [`list`] | whole ranges, in pages, of one revision |
//! | [`task`], [`watched`] | background work and shared values, so that a simulation can freeze, kill and repeat them |
//! | [`config`] | where etcd is: flags, environment, a file with named contexts |
//! | [`model`] | etcd in memory, as a step function; [`ModelStore`](model::ModelStore) is a store on it |
//! | `devstore` | the model as a server of etcd's API, with a log on disk (feature `devstore`) |
//! | `testing` | real etcd servers for tests (feature `testing`) |

pub mod config;
#[cfg(feature = "devstore")]
pub mod devstore;
pub mod error;
pub mod etcd;
pub mod group_commit;
pub mod lease;
pub mod list;
pub mod model;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod types;
pub mod watched;

pub use etcd::{ConnectOptions, EtcdStore};
pub use group_commit::{GroupCommit, Item, ItemOutcome};
pub use lease::{LeaseKeeper, LeaseState};

pub use error::{Outcome, StoreError};
pub use types::{
    Compare, Event, EventKind, KeyValue, LeaseId, LeaseTime, Page, Put, RangeRequest, Revision,
    ServerStatus, Txn, TxnOp, TxnResult, WatchBatch, WatchRequest,
};

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// A shared handle to a store.
pub type SharedStore = Arc<dyn Store>;

/// What Setpoint needs of etcd, and nothing more.
///
/// All operations are linearizable. Every error says what was attempted and whether the outcome is known
/// ([`StoreError::outcome`]).
pub trait Store: Send + Sync + 'static {
    /// Reads one key. `None` when it does not exist; the revision is the store's at the time of the read.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>>;

    /// Reads one page of a range, at a pinned revision when the request names one.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the pinned revision has been compacted.
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Runs a transaction: when all compares hold `then`, otherwise `or_else`. Either list may nest transactions.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>>;

    /// Follows a range from a revision on. The stream yields batches in revision order, each a whole number of
    /// revisions, and ends after its first error; it may be asked for more after its end. Dropping the stream cancels the
    /// watch.
    ///
    /// The watch stands when the future is ready: a change made afterwards is seen. In a quiet range an empty batch tells
    /// from time to time (every few seconds, and only when there is something to tell) that the store has moved on
    /// elsewhere. Whoever must see a certain revision soon should have written into the range at that revision.
    ///
    /// # Errors
    /// Of the future and of the stream: [`StoreError::Compacted`] when the revision to start from is gone (list anew),
    /// [`StoreError::Unavailable`] when the connection or the server is, be it only by silence (go on from the revision
    /// after the last batch's).
    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>>;

    /// Grants a lease. etcd may grant a longer time than asked; the granted one is returned.
    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>>;

    /// Renews a lease once over the shared keep-alive stream. Returns the remaining time to live.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] when it has expired or was revoked.
    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>>;

    /// Revokes a lease; its keys are deleted at once.
    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// How long a lease has left; `None` when this store cannot tell.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] when it has expired or was revoked.
    fn lease_time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<LeaseTime>, StoreError>> {
        let _ = lease;
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Version, size and alarms of the member that answers.
    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>>;

    /// The versions of all members that this store may talk to and that answer; at least one. Members that do not answer
    /// are left out, so whoever relies on the answer asks again from time to time.
    ///
    /// # Errors
    /// When none answers, or one does not tell its version to this user.
    fn versions(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move { Ok(vec![self.status().await?.version]) })
    }
}
