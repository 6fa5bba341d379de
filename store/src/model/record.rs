//! Changes as entries of a log, and the whole state as a snapshot: from either the same state is made again.

use std::time::Duration;

use super::api::{
    AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest, DeleteRangeRequest, KeyValue,
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, TxnRequest,
};
use super::kv::Change;
use super::{Config, Model, ModelError, Request};

/// One change of a [`Model`], with the time it was made at. Encoded as a protobuf message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    #[prost(uint64, tag = "1")]
    nanoseconds: u64,
    #[prost(oneof = "Step", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    step: Option<Step>,
}

/// What was done: a request that changed something.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Step {
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
    #[prost(message, tag = "5")]
    Compact(CompactionRequest),
    #[prost(message, tag = "6")]
    LeaseGrant(LeaseGrantRequest),
    /// By a client, or because it expired.
    #[prost(message, tag = "7")]
    LeaseRevoke(LeaseRevokeRequest),
    #[prost(message, tag = "8")]
    LeaseKeepAlive(LeaseKeepAliveRequest),
    #[prost(message, tag = "9")]
    Alarm(AlarmRequest),
    #[prost(message, tag = "10")]
    Defragment(DefragmentRequest),
}

macro_rules! steps {
    ($($request:ty => $step:ident),*) => {$(
        impl From<$request> for Step {
            fn from(request: $request) -> Self {
                Self::$step(request)
            }
        }
    )*};
}

steps!(
    PutRequest => Put,
    DeleteRangeRequest => DeleteRange,
    TxnRequest => Txn,
    CompactionRequest => Compact,
    LeaseGrantRequest => LeaseGrant,
    LeaseRevokeRequest => LeaseRevoke,
    LeaseKeepAliveRequest => LeaseKeepAlive,
    AlarmRequest => Alarm,
    DefragmentRequest => Defragment
);

impl Record {
    pub(super) fn new(now: Duration, step: Step) -> Self {
        Self {
            nanoseconds: nanoseconds(now),
            step: Some(step),
        }
    }

    /// When it was made, counted as the times of the steps were.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds)
    }

    /// Whether it must outlive a crash. A renewed lease need not: after a restart all leases are as if just renewed.
    pub fn is_durable(&self) -> bool {
        !matches!(self.step, Some(Step::LeaseKeepAlive(_)))
    }
}

/// A record that the model refuses: not one of its own, or not in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It has no content that is known here.
    #[error(
        "record {index} has no known content: it was written by another version, or is damaged"
    )]
    Unknown {
        /// Its place, counted from 0.
        index: usize,
    },
    /// It cannot be applied to the state that came before it.
    #[error(
        "record {index} does not fit what came before it: records are missing, or out of order"
    )]
    Refused {
        /// Its place, counted from 0.
        index: usize,
        /// Why.
        #[source]
        reason: ModelError,
    },
}

/// The whole state of a [`Model`], without its watchers. Encoded as a protobuf message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(int64, tag = "2")]
    compacted: i64,
    #[prost(uint64, tag = "3")]
    granted: u64,
    #[prost(uint64, tag = "4")]
    applied: u64,
    #[prost(int64, tag = "5")]
    high_water: i64,
    #[prost(uint64, tag = "6")]
    nanoseconds: u64,
    /// In order of revision.
    #[prost(message, repeated, tag = "7")]
    changes: Vec<SavedChange>,
    #[prost(message, repeated, tag = "8")]
    leases: Vec<SavedLease>,
    #[prost(message, repeated, tag = "9")]
    alarms: Vec<super::api::AlarmMember>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedChange {
    #[prost(int64, tag = "1")]
    main: i64,
    #[prost(int64, tag = "2")]
    sub: i64,
    #[prost(bool, tag = "3")]
    deleted: bool,
    #[prost(message, required, tag = "4")]
    kv: KeyValue,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(uint64, tag = "3")]
    expiry_nanoseconds: u64,
}

impl Model {
    /// The records of what was changed since the last call, in order. Empty without [`Config::journal`].
    pub fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// The model that a log of records describes.
    ///
    /// # Errors
    /// At the first record that does not fit.
    pub fn replay(
        config: Config,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, ReplayError> {
        let mut model = Self::new(config);
        for (index, record) in records.into_iter().enumerate() {
            model.apply(index, record)?;
        }
        Ok(model)
    }

    /// Makes the change of one record again; `index` is for the error. No lease expires by itself meanwhile: its end is a
    /// record.
    ///
    /// # Errors
    /// When the record does not fit; nothing was changed then.
    pub fn apply(&mut self, index: usize, record: Record) -> Result<(), ReplayError> {
        let time = record.time();
        let request = match record.step.ok_or(ReplayError::Unknown { index })? {
            Step::Put(request) => Request::Put(request),
            Step::DeleteRange(request) => Request::DeleteRange(request),
            Step::Txn(request) => Request::Txn(request),
            Step::Compact(request) => Request::Compact(request),
            Step::LeaseGrant(request) => Request::LeaseGrant(request),
            Step::LeaseRevoke(request) => Request::LeaseRevoke(request),
            Step::LeaseKeepAlive(request) => Request::LeaseKeepAlive(request),
            Step::Alarm(request) => Request::Alarm(request),
            Step::Defragment(_) => Request::Defragment,
        };
        self.now = self.now.max(time);
        let recorded = self.records.len();
        // It was within the limits of its time, which may have been others, and the room of a database that has been
        // defragmented since.
        let unlimited = Config {
            quota_bytes: i64::MAX,
            max_request_bytes: usize::MAX,
            max_txn_ops: usize::MAX,
            ..self.config.clone()
        };
        let limited = std::mem::replace(&mut self.config, unlimited);
        let done = self.carry_out(request);
        self.config = limited;
        // What is replayed is in the log already.
        self.records.truncate(recorded);
        done.map(|_| ())
            .map_err(|reason| ReplayError::Refused { index, reason })
    }

    /// After a restart, at a time that may count from another start: every lease gets its full time again, as after an
    /// election in etcd.
    pub fn restart(&mut self, now: Duration) {
        self.now = now;
        let ids: Vec<_> = self.leases.ids().collect();
        for id in ids {
            if let Some(ttl) = self.leases.get(id).map(|lease| lease.ttl) {
                self.leases.renew(id, now + super::seconds(ttl));
            }
        }
    }

    /// The whole state. Values are shared with the model, not copied.
    pub fn snapshot(&self) -> Snapshot {
        let mut changes: Vec<_> = self
            .kv
            .versions()
            .map(|change| SavedChange {
                main: change.main,
                sub: change.sub,
                deleted: change.deleted,
                kv: change.kv.clone(),
            })
            .collect();
        changes.sort_unstable_by_key(|change| (change.main, change.sub));
        Snapshot {
            revision: self.kv.revision,
            compacted: self.kv.compacted,
            granted: self.granted,
            applied: self.applied,
            high_water: self.high_water,
            nanoseconds: nanoseconds(self.now),
            changes,
            leases: self
                .leases
                .ids()
                .filter_map(|id| {
                    let lease = self.leases.get(id)?;
                    Some(SavedLease {
                        id,
                        ttl: lease.ttl,
                        expiry_nanoseconds: nanoseconds(lease.expiry),
                    })
                })
                .collect(),
            alarms: self
                .alarms
                .iter()
                .map(|(alarm, member_id)| super::api::AlarmMember {
                    member_id: *member_id,
                    alarm: (*alarm).into(),
                })
                .collect(),
        }
    }

    /// The model that a snapshot is of.
    pub fn restore(config: Config, snapshot: Snapshot) -> Self {
        let mut model = Self::new(config);
        for lease in snapshot.leases {
            let expiry = Duration::from_nanos(lease.expiry_nanoseconds);
            model.leases.insert(lease.id, lease.ttl, expiry);
        }
        let changes = snapshot.changes.into_iter().map(|change| Change {
            main: change.main,
            sub: change.sub,
            deleted: change.deleted,
            kv: change.kv,
        });
        model.kv = super::kv::Kv::restore(snapshot.revision, snapshot.compacted, changes);
        for change in model.kv.scan(b"\0", b"\0", snapshot.revision) {
            model.leases.reattach(&change.kv.key, 0, change.kv.lease);
        }
        for alarm in snapshot.alarms {
            if let Ok(kind) = AlarmType::try_from(alarm.alarm) {
                model.alarms.insert((kind, alarm.member_id));
            }
        }
        model.high_water = snapshot.high_water;
        model.granted = snapshot.granted;
        model.applied = snapshot.applied;
        model.now = Duration::from_nanos(snapshot.nanoseconds);
        model
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
