//! An in-memory model of etcd: one member, as a step function over its state.
//!
//! [`Model`] knows neither sockets nor clocks nor threads. Time is handed in, so the same steps give the same state and the
//! same answers, bit for bit. What a request means, and how it is refused, is etcd's: `tests/it/differential.rs` drives random
//! operations into the model and into etcd servers and compares every field; `docs/etcd-quirks.md` lists what differs.
//!
//! | Part | Holds |
//! |---|---|
//! | [`api`] | etcd's messages: what goes in and comes out |
//! | `kv`, `range`, `txn`, `check` | versions of keys, reads, transactions, refusals |
//! | `lease`, `watch` | leases with their keys, watchers with their queues |
//! | [`record`] | changes as entries of a log, and snapshots, from which the same state is made again |
//! | [`store`] | [`ModelStore`]: the model behind the [`Store`](crate::Store) trait, with tokio's timers |

pub mod api;
mod check;
mod error;
pub(crate) mod hash;
mod kv;
mod lease;
mod range;
pub mod record;
pub mod store;
mod txn;
mod watch;

pub use error::ModelError;
pub use kv::Change;
pub use range::KeyRange;
pub use record::{Record, ReplayError, Snapshot};
pub use store::ModelStore;
pub use watch::{Events, WatchCompacted, WatcherId};

use std::collections::BTreeSet;
use std::time::Duration;

use self::api::{
    AlarmAction, AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionRequest,
    CompactionResponse, DefragmentRequest, DefragmentResponse, DeleteRangeRequest,
    DeleteRangeResponse, HashKvRequest, HashKvResponse, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, StatusResponse, TxnRequest,
    TxnResponse, WatchCreateRequest,
};
use self::kv::Kv;
use self::lease::Leases;
use self::watch::Watchers;

/// What an empty database takes on disk, in bytes.
const EMPTY_SIZE: i64 = 20 * 1024;

/// How a model behaves. The defaults are etcd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// In every header.
    pub cluster_id: u64,
    /// In every header, and who raises alarms.
    pub member_id: u64,
    /// In every header.
    pub raft_term: u64,
    /// What the status says.
    pub version: String,
    /// Bytes of the database from which on writes are refused.
    pub quota_bytes: i64,
    /// The largest request that writes, in bytes.
    pub max_request_bytes: usize,
    /// Operations of a transaction, along one path of nesting.
    pub max_txn_ops: usize,
    /// The shortest lease, in seconds. etcd: one and a half election timeouts, rounded up.
    pub min_lease_ttl: i64,
    /// How often expired leases are looked for: a lease ends up to so much later than it says. Zero: at once.
    pub lease_sweep: Duration,
    /// For the ids of leases.
    pub seed: u64,
    /// Events that wait for one watcher before it is left to read the history.
    pub watch_queue: usize,
    /// Keep a [`Record`] of every change, for [`Model::take_records`].
    pub journal: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_id: 0x7365_7470_6f69_6e74,
            member_id: 0x6d6f_6465_6c00_0001,
            raft_term: 2,
            version: "3.6.16".to_owned(),
            quota_bytes: 2 * 1024 * 1024 * 1024,
            max_request_bytes: 1_572_864,
            max_txn_ops: 128,
            min_lease_ttl: 2,
            lease_sweep: Duration::from_millis(500),
            seed: 0,
            watch_queue: 10_000,
            journal: false,
        }
    }
}

/// A call of etcd's API.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the call of its message's name")]
pub enum Request {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(LeaseRevokeRequest),
    LeaseKeepAlive(LeaseKeepAliveRequest),
    LeaseTimeToLive(LeaseTimeToLiveRequest),
    LeaseLeases,
    Alarm(AlarmRequest),
    HashKv(HashKvRequest),
    Status,
    Defragment,
}

/// The answer to the [`Request`] of the same name.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each is the answer to the call of its name")]
pub enum Response {
    Range(RangeResponse),
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    LeaseKeepAlive(LeaseKeepAliveResponse),
    LeaseTimeToLive(LeaseTimeToLiveResponse),
    LeaseLeases(LeaseLeasesResponse),
    Alarm(AlarmResponse),
    HashKv(HashKvResponse),
    Status(StatusResponse),
    Defragment(DefragmentResponse),
}

/// The state of one etcd member, and the rules by which it changes.
#[derive(Debug)]
pub struct Model {
    config: Config,
    kv: Kv,
    leases: Leases,
    watchers: Watchers,
    alarms: BTreeSet<(AlarmType, u64)>,
    /// Bytes of the database at its largest: it shrinks only when it is defragmented.
    high_water: i64,
    /// Leases that were granted, ever.
    granted: u64,
    /// Changes that were made, ever.
    applied: u64,
    now: Duration,
    records: Vec<Record>,
}

impl Model {
    /// An empty store, at revision 1.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            kv: Kv::default(),
            leases: Leases::default(),
            watchers: Watchers::default(),
            alarms: BTreeSet::new(),
            high_water: 0,
            granted: 0,
            applied: 0,
            now: Duration::ZERO,
            records: Vec::new(),
        }
    }

    /// Carries out one request at a time, counted from an arbitrary start. A time before that of the step before counts as
    /// that one. Leases that have expired by then are revoked first.
    ///
    /// # Errors
    /// As etcd's. A refused request has changed nothing, except that one over the quota raises the alarm.
    pub fn step(&mut self, now: Duration, request: Request) -> Result<Response, ModelError> {
        self.tick(now);
        self.carry_out(request)
    }

    fn carry_out(&mut self, request: Request) -> Result<Response, ModelError> {
        Ok(match request {
            Request::Range(request) => Response::Range(self.range(&request)?),
            Request::Put(request) => Response::Put(self.put(request)?),
            Request::DeleteRange(request) => Response::DeleteRange(self.delete_range(request)?),
            Request::Txn(request) => Response::Txn(self.txn(request)?),
            Request::Compact(request) => Response::Compact(self.compact(request)?),
            Request::LeaseGrant(request) => Response::LeaseGrant(self.grant(request)?),
            Request::LeaseRevoke(request) => Response::LeaseRevoke(self.revoke(request)?),
            Request::LeaseKeepAlive(request) => Response::LeaseKeepAlive(self.keep_alive(request)),
            Request::LeaseTimeToLive(request) => {
                Response::LeaseTimeToLive(self.time_to_live(&request))
            }
            Request::LeaseLeases => Response::LeaseLeases(LeaseLeasesResponse {
                header: self.header(),
                leases: self.leases.ids().map(|id| LeaseStatus { id }).collect(),
            }),
            Request::Alarm(request) => Response::Alarm(self.alarm(request)),
            Request::HashKv(request) => Response::HashKv(self.hash_kv(&request)?),
            Request::Status => Response::Status(self.status()),
            Request::Defragment => {
                self.high_water = self.kv.bytes();
                self.record(DefragmentRequest {});
                Response::Defragment(DefragmentResponse {
                    header: self.header(),
                })
            }
        })
    }

    /// Lets time pass: revokes the leases that have expired, in the order in which they did, each with a revision of its
    /// own if it has keys.
    pub fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some((expiry, id)) = self.leases.first() {
            if lease::noticed(expiry, self.config.lease_sweep) > self.now {
                break;
            }
            self.record(LeaseRevokeRequest { id });
            self.end_lease(id);
        }
    }

    /// When [`Model::tick`] has something to do, if nothing is renewed until then.
    pub fn next_expiry(&self) -> Option<Duration> {
        let (expiry, _) = self.leases.first()?;
        Some(lease::noticed(expiry, self.config.lease_sweep))
    }

    /// The revision of the last change.
    pub fn revision(&self) -> i64 {
        self.kv.revision
    }

    /// The revision of the last compaction; -1 before the first.
    pub fn compacted(&self) -> i64 {
        self.kv.compacted
    }

    /// How it was made.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The header of an answer given now.
    pub fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: self.config.cluster_id,
            member_id: self.config.member_id,
            revision: self.kv.revision,
            raft_term: self.config.raft_term,
        })
    }

    /// The changes from a revision on, in order, whoever watches.
    ///
    /// # Errors
    /// When that revision is older than the last compaction.
    pub fn changes_since(
        &self,
        revision: i64,
    ) -> Result<impl Iterator<Item = &Change>, WatchCompacted> {
        if revision < self.kv.compacted {
            return Err(WatchCompacted(self.kv.compacted));
        }
        Ok(self.kv.changes_since(revision).map(|change| &**change))
    }

    /// Registers a watcher. It begins where the request says, now if that is 0. Its id in the request, `fragment` and
    /// `progress_notify` are the business of whoever serves it.
    pub fn watch(&mut self, request: &WatchCreateRequest) -> WatcherId {
        self.watchers.add(&self.kv, request)
    }

    /// Ends a watcher. Whether there was one.
    pub fn unwatch(&mut self, id: WatcherId) -> bool {
        self.watchers.remove(id)
    }

    /// The watchers for which there has been something since the last call. Each is named once, until it is pulled empty.
    pub fn take_ready(&mut self) -> Vec<WatcherId> {
        self.watchers.take_ready()
    }

    /// The next events of a watcher: whole revisions, about `limit` events. `None` when there is nothing.
    ///
    /// # Errors
    /// When it lagged, and what it still needed has been compacted.
    pub fn pull(&mut self, id: WatcherId, limit: usize) -> Result<Option<Events>, WatchCompacted> {
        self.watchers
            .pull(&self.kv, id, limit, self.config.watch_queue)
    }

    /// The revision up to which a watcher has been given everything; `None` while something waits for it.
    pub fn progress(&self, id: WatcherId) -> Option<i64> {
        self.watchers.progress(&self.kv, id)
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, ModelError> {
        check::range(request)?;
        let mut response = range::read(&self.kv, request, self.kv.revision)?;
        response.header = self.header();
        Ok(response)
    }

    fn put(&mut self, request: PutRequest) -> Result<PutResponse, ModelError> {
        self.afford(check::put_cost(&request))?;
        check::put(&request)?;
        check::size(&request, self.config.max_request_bytes)?;
        self.refuse_when_full()?;
        if request.lease != 0 && self.leases.get(request.lease).is_none() {
            return Err(ModelError::LeaseNotFound);
        }
        let record = self.config.journal.then(|| request.clone());
        let mut write = self.kv.write(&mut self.leases);
        let mut response = write.put(request)?;
        write.finish();
        self.wrote(record);
        response.header = self.header();
        Ok(response)
    }

    fn delete_range(
        &mut self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ModelError> {
        check::delete_range(&request)?;
        check::size(&request, self.config.max_request_bytes)?;
        let mut write = self.kv.write(&mut self.leases);
        let mut response = write.delete_range(&request);
        if write.finish() {
            self.wrote(Some(request));
        }
        response.header = self.header();
        Ok(response)
    }

    fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, ModelError> {
        let cost = check::txn_cost(&request);
        self.afford(cost)?;
        check::txn(&request, self.config.max_txn_ops)?;
        if !check::is_read_only(&request) {
            check::size(&request, self.config.max_request_bytes)?;
            if cost > 0 {
                self.refuse_when_full()?;
            }
        }
        let path = txn::path(&self.kv, &request);
        txn::check(&self.kv, &self.leases, &request, &path)?;
        let record = self.config.journal.then(|| request.clone());
        let mut write = self.kv.write(&mut self.leases);
        let mut response = txn::execute(&mut write, request, &path)?;
        if write.finish() {
            self.wrote(record);
        }
        response.header = self.header();
        Ok(response)
    }

    fn compact(&mut self, request: CompactionRequest) -> Result<CompactionResponse, ModelError> {
        self.kv.compact(request.revision)?;
        self.record(request);
        Ok(CompactionResponse {
            header: self.header(),
        })
    }

    fn grant(&mut self, mut request: LeaseGrantRequest) -> Result<LeaseGrantResponse, ModelError> {
        self.afford(check::LEASE_COST)?;
        self.refuse_when_full()?;
        if request.id == 0 {
            request.id = self.fresh_lease_id();
        }
        let (id, min) = (request.id, self.config.min_lease_ttl);
        let ttl = self.leases.check_grant(id, request.ttl, min)?;
        self.leases.insert(id, ttl, self.now + seconds(ttl));
        self.granted += 1;
        self.record(request);
        Ok(LeaseGrantResponse {
            header: self.header(),
            id,
            ttl,
            error: String::new(),
        })
    }

    /// Positive, and the same for the same steps.
    fn fresh_lease_id(&self) -> i64 {
        let mut counter = self.config.seed.wrapping_add(self.granted);
        loop {
            counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let id = (mixed(counter) >> 1).cast_signed();
            if id != 0 && self.leases.get(id).is_none() {
                return id;
            }
        }
    }

    fn revoke(&mut self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, ModelError> {
        if self.leases.get(request.id).is_none() {
            return Err(ModelError::LeaseNotFound);
        }
        self.end_lease(request.id);
        self.record(request);
        Ok(LeaseRevokeResponse {
            header: self.header(),
        })
    }

    /// Takes a lease and its keys away, the keys in their order and at one revision.
    fn end_lease(&mut self, id: i64) {
        let Some(lease) = self.leases.remove(id) else {
            return;
        };
        let mut write = self.kv.write(&mut self.leases);
        for key in lease.keys {
            write.delete_range(&DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            });
        }
        if write.finish() {
            self.publish();
        }
    }

    /// Renews a lease; answers 0 seconds for one that does not exist, or that is over and has not been noticed yet.
    fn keep_alive(&mut self, request: LeaseKeepAliveRequest) -> LeaseKeepAliveResponse {
        let id = request.id;
        let ttl = match self.leases.get(id) {
            Some(lease) if lease.expiry > self.now => lease.ttl,
            _ => 0,
        };
        if ttl > 0 {
            self.leases.renew(id, self.now + seconds(ttl));
            self.record(request);
        }
        LeaseKeepAliveResponse {
            header: self.header(),
            id,
            ttl,
        }
    }

    fn time_to_live(&self, request: &LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse {
        let mut response = LeaseTimeToLiveResponse {
            header: self.header(),
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        if let Some(lease) = self.leases.get(request.id) {
            let left = lease.expiry.saturating_sub(self.now).as_secs();
            response.ttl = i64::try_from(left).unwrap_or(i64::MAX);
            response.granted_ttl = lease.ttl;
            if request.keys {
                response.keys = lease.keys.iter().cloned().collect();
            }
        }
        response
    }

    fn alarm(&mut self, request: AlarmRequest) -> AlarmResponse {
        let alarm = request.alarm();
        let member = |&(alarm, member_id): &(AlarmType, u64)| AlarmMember {
            member_id,
            alarm: alarm.into(),
        };
        let entry = (alarm, request.member_id);
        let alarms = match request.action() {
            AlarmAction::Get => self
                .alarms
                .iter()
                .filter(|(raised, _)| alarm == AlarmType::None || *raised == alarm)
                .map(member)
                .collect(),
            AlarmAction::Activate if alarm == AlarmType::None => Vec::new(),
            AlarmAction::Activate => {
                self.alarms.insert(entry);
                self.record(request);
                vec![member(&entry)]
            }
            AlarmAction::Deactivate if self.alarms.remove(&entry) => {
                self.record(request);
                vec![member(&entry)]
            }
            AlarmAction::Deactivate => Vec::new(),
        };
        AlarmResponse {
            header: self.header(),
            alarms,
        }
    }

    fn hash_kv(&self, request: &HashKvRequest) -> Result<HashKvResponse, ModelError> {
        let revision = match request.revision {
            0 => self.kv.revision,
            revision => revision,
        };
        if revision > 0 && revision < self.kv.compacted {
            return Err(ModelError::Compacted);
        }
        if revision > self.kv.revision {
            return Err(ModelError::FutureRevision);
        }
        Ok(HashKvResponse {
            header: self.header(),
            hash: hash::hash_kv(&self.kv, revision),
            compact_revision: self.kv.compacted,
            hash_revision: revision,
        })
    }

    fn status(&self) -> StatusResponse {
        StatusResponse {
            header: self.header(),
            version: self.config.version.clone(),
            db_size: self.db_size(),
            leader: self.config.member_id,
            raft_index: self.applied,
            raft_term: self.config.raft_term,
            raft_applied_index: self.applied,
            errors: self
                .alarms
                .iter()
                .map(|(alarm, member)| {
                    let name = match alarm {
                        AlarmType::None => "NONE",
                        AlarmType::NoSpace => "NOSPACE",
                        AlarmType::Corrupt => "CORRUPT",
                    };
                    format!("memberID:{member} alarm:{name} ")
                })
                .collect(),
            db_size_in_use: EMPTY_SIZE + self.kv.bytes(),
            is_learner: false,
            storage_version: self
                .config
                .version
                .rsplit_once('.')
                .map_or(String::new(), |(minor, _)| format!("{minor}.0")),
            db_size_quota: self.config.quota_bytes,
        }
    }

    fn db_size(&self) -> i64 {
        EMPTY_SIZE + self.high_water
    }

    /// Refuses what does not fit into the quota, and raises the alarm.
    fn afford(&mut self, cost: i64) -> Result<(), ModelError> {
        if cost == 0 || self.db_size().saturating_add(cost) < self.config.quota_bytes {
            return Ok(());
        }
        if self
            .alarms
            .insert((AlarmType::NoSpace, self.config.member_id))
        {
            self.record(AlarmRequest {
                action: AlarmAction::Activate.into(),
                member_id: self.config.member_id,
                alarm: AlarmType::NoSpace.into(),
            });
        }
        Err(ModelError::NoSpace)
    }

    fn refuse_when_full(&self) -> Result<(), ModelError> {
        let full = self
            .alarms
            .iter()
            .any(|(alarm, _)| *alarm == AlarmType::NoSpace);
        if full {
            Err(ModelError::NoSpace)
        } else {
            Ok(())
        }
    }

    /// After a write that changed something.
    fn wrote(&mut self, record: Option<impl Into<record::Step>>) {
        if let Some(record) = record {
            self.record(record);
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.high_water = self.high_water.max(self.kv.bytes());
        for change in self.kv.changes_since(self.kv.revision) {
            self.watchers.publish(change, self.config.watch_queue);
        }
    }

    fn record(&mut self, step: impl Into<record::Step>) {
        self.applied += 1;
        if self.config.journal {
            self.records.push(Record::new(self.now, step.into()));
        }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// splitmix64's finisher: every number to another one, far away.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
