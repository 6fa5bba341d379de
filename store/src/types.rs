//! The vocabulary of the [`Store`](crate::Store) trait.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// A revision of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// How long a lease has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// The time to live that it was granted.
    pub granted: Duration,
    /// What is left of it without another renewal, in whole seconds, rounded down.
    pub remaining: Duration,
}

/// A key with its value and what etcd keeps about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key. Keys that are not UTF-8 are skipped (and counted) by the reader: none of ours are.
    pub key: String,
    /// The value. It may share the memory of the whole message it came in: who keeps it for long should copy it.
    pub value: Bytes,
    /// The revision of the key's creation.
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// How often it has been written since its creation.
    pub version: i64,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
}

/// What to read of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// The first key.
    pub start: String,
    /// The first key past the range.
    pub end: String,
    /// At most so many keys; 0 for all (the server's message limit applies: prefer pages).
    pub limit: i64,
    /// Read as of this revision; `None` for now.
    pub revision: Option<Revision>,
    /// Leave the values out.
    pub keys_only: bool,
    /// Leave keys and values out: only [`Page::count`].
    pub count_only: bool,
}

/// One page of a range, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the range has more keys than these.
    pub more: bool,
    /// How many keys the whole range has.
    pub count: i64,
    /// The store's revision when it answered (not the pinned one).
    pub revision: Revision,
}

/// A condition on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key was last changed at this revision; 0 means that it does not exist.
    ModRevision(String, i64),
    /// The key was created at this revision; 0 means that it does not exist.
    CreateRevision(String, i64),
    /// The key exists.
    Exists(String),
    /// No key of the range was changed after this revision (deletions do not count).
    RangeUnchangedSince {
        /// The first key.
        start: String,
        /// The first key past the range.
        end: String,
        /// The revision.
        revision: i64,
    },
}

impl Compare {
    /// The key does not exist.
    pub fn absent(key: impl Into<String>) -> Self {
        Self::ModRevision(key.into(), 0)
    }
}

/// A value to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The lease to hang it on.
    pub lease: Option<LeaseId>,
}

/// An operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnOp {
    /// Write a key.
    Put(Put),
    /// Delete one key.
    Delete(String),
    /// Delete a range.
    DeleteRange {
        /// The first key.
        start: String,
        /// The first key past the range.
        end: String,
    },
    /// Read one key.
    Get(String),
    /// A nested transaction.
    Txn(Box<Txn>),
}

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `then` to run.
    pub compares: Vec<Compare>,
    /// Runs when they hold.
    pub then: Vec<TxnOp>,
    /// Runs when one does not.
    pub or_else: Vec<TxnOp>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Self {
        self.compares.push(compare);
        self
    }

    /// Adds a write to `then`.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.then.push(TxnOp::Put(Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        }));
        self
    }

    /// Adds a write under a lease to `then`.
    #[must_use]
    pub fn put_with_lease(
        mut self,
        key: impl Into<String>,
        value: impl Into<Bytes>,
        lease: LeaseId,
    ) -> Self {
        self.then.push(TxnOp::Put(Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        }));
        self
    }

    /// Adds a deletion to `then`.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.then.push(TxnOp::Delete(key.into()));
        self
    }
}

/// What a transaction did. Nested results stand in the order of their operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether the compares held.
    pub succeeded: bool,
    /// The store's revision after it.
    pub revision: Revision,
    /// The results of nested transactions (`None` for other operations, `Get` included), one per operation that ran.
    pub nested: Vec<Option<TxnResult>>,
    /// The results of `Get` operations, one per `Get` that ran, in order.
    pub reads: Vec<Option<KeyValue>>,
}

/// From where to follow which range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// The first key.
    pub start: String,
    /// The first key past the range.
    pub end: String,
    /// The first revision of interest; `None` for whatever comes from now on.
    pub from: Option<Revision>,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key with its new value; for a deletion only `key` and `mod_revision` have a meaning.
    pub kv: KeyValue,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Written.
    Put,
    /// Deleted, or its lease expired.
    Delete,
}

/// Whole revisions of changes, in order; empty for a progress notification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchBatch {
    /// Everything in the range up to this revision has been delivered once the batch is applied.
    pub revision: Revision,
    /// The changes.
    pub events: Vec<Event>,
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerStatus {
    /// `3.5.21`.
    pub version: String,
    /// Bytes of the backend on disk.
    pub db_size_bytes: i64,
    /// Bytes in use.
    pub db_size_in_use_bytes: i64,
    /// Whether the cluster has a leader.
    pub has_leader: bool,
    /// Raised alarms: `NOSPACE`, `CORRUPT`.
    pub alarms: Vec<String>,
    /// The store's revision.
    pub revision: Revision,
}
