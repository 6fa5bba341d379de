//! The model, one request at a time. Nothing that is told outside depends on a change that is not on the disk: answers,
//! reads and events wait for the log up to where it was when they were made.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};

use super::log::{self, Log, LogError, OpenError};
use super::{Options, Recovery};
use crate::model::api::{CompactionRequest, WatchCreateRequest};
use crate::model::{
    Config, Events, Model, ModelError, Request, Response, WatchCompacted, WatcherId,
};

/// Times per retention that the revision is noted, so history goes in steps of a tenth of it.
const NOTES: u32 = 10;

/// What etcd grants a gRPC message beside the request in it.
const GRPC_OVERHEAD: usize = 512 * 1024;

/// Whoever serves watchers: told which of them have something.
#[derive(Debug, Default)]
pub(super) struct Signal {
    ready: Mutex<Vec<WatcherId>>,
    notify: Notify,
}

impl Signal {
    /// Waits for watchers that have something.
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }

    pub(super) fn take(&self) -> Vec<WatcherId> {
        std::mem::take(&mut self.ready.lock())
    }
}

struct State {
    model: Model,
    signals: BTreeMap<WatcherId, Arc<Signal>>,
    /// What the timer waits for.
    planned: Option<Duration>,
}

/// A state that was looked at, and how far the log must be before anybody may know.
#[must_use]
pub(super) struct Seen<T> {
    pub(super) value: T,
    position: u64,
}

impl<T> Seen<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Seen<U> {
        Seen {
            value: change(self.value),
            position: self.position,
        }
    }
}

pub(super) struct Engine {
    options: Options,
    id: u64,
    state: Mutex<State>,
    log: Option<Log>,
    start: Instant,
    /// A lease may expire sooner than the timer knows.
    sooner: Notify,
    closed: watch::Sender<bool>,
    /// Requests that are being carried out.
    under_way: watch::Sender<usize>,
}

/// Counts a request as long as it is there.
struct UnderWay<'a>(&'a watch::Sender<usize>);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Engine {
    pub(super) fn open(mut options: Options) -> Result<(Self, Recovery), OpenError> {
        options.model.journal = options.directory.is_some();
        let (model, log, id, records, dropped) = match &options.directory {
            Some(directory) => {
                let opened = log::open(directory, &options)?;
                (
                    opened.model,
                    Some(opened.log),
                    opened.id,
                    opened.records,
                    opened.dropped,
                )
            }
            None => {
                let id = log::fresh_id();
                let config = Config {
                    cluster_id: id,
                    ..options.model.clone()
                };
                (Model::new(config), None, id, 0, None)
            }
        };
        let recovery = Recovery {
            revision: model.revision(),
            records,
            dropped,
        };
        let engine = Self {
            options,
            id,
            state: Mutex::new(State {
                model,
                signals: BTreeMap::new(),
                planned: None,
            }),
            log,
            start: Instant::now(),
            sooner: Notify::new(),
            closed: watch::Sender::default(),
            under_way: watch::Sender::default(),
        };
        Ok((engine, recovery))
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// The largest message that a client may send, and part of an answer to a watch that wants parts.
    pub(super) fn message_limit(&self) -> usize {
        self.options.model.max_request_bytes + GRPC_OVERHEAD
    }

    /// The store's own number, in snapshots and as the cluster's.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Carries out a request, and waits until its outcome cannot be lost.
    pub(super) async fn call(&self, request: Request) -> Result<Response, Status> {
        let _under_way = UnderWay::begin(&self.under_way);
        let size = written(&request);
        let seen = loop {
            {
                let mut state = self.state.lock();
                let fits = match (&self.log, size) {
                    (Some(log), Some(size)) => log.has_room(size),
                    _ => true,
                };
                if fits {
                    let value = state.model.step(self.now(), request);
                    let position = self.settle(&mut state);
                    break Seen { value, position };
                }
            }
            if let (Some(log), Some(size)) = (&self.log, size) {
                log.make_room(size).await.map_err(refusal)?;
            }
        };
        let outcome: Result<Response, ModelError> = self.durable(seen).await?;
        Ok(outcome?)
    }

    /// Hands out what was seen once the log has it.
    pub(super) async fn durable<T>(&self, seen: Seen<T>) -> Result<T, Status> {
        if let Some(log) = &self.log {
            log.durable(seen.position).await.map_err(refusal)?;
        }
        Ok(seen.value)
    }

    /// Looks at the model, or changes what does not go to the log.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Model) -> T) -> Seen<T> {
        let mut state = self.state.lock();
        state.model.tick(self.now());
        let value = look(&mut state.model);
        let position = self.settle(&mut state);
        Seen { value, position }
    }

    pub(super) fn watch(
        &self,
        request: &WatchCreateRequest,
        signal: &Arc<Signal>,
    ) -> Seen<(WatcherId, i64)> {
        let mut state = self.state.lock();
        state.model.tick(self.now());
        let id = state.model.watch(request);
        state.signals.insert(id, Arc::clone(signal));
        let value = (id, state.model.revision());
        let position = self.settle(&mut state);
        Seen { value, position }
    }

    pub(super) fn unwatch(&self, id: WatcherId) {
        let mut state = self.state.lock();
        state.model.unwatch(id);
        state.signals.remove(&id);
    }

    /// What a watcher has got, and the store's revision at that moment.
    pub(super) fn pull(
        &self,
        id: WatcherId,
        limit: usize,
    ) -> Seen<(Result<Option<Events>, WatchCompacted>, i64)> {
        let mut state = self.state.lock();
        let value = (state.model.pull(id, limit), state.model.revision());
        let position = self.settle(&mut state);
        Seen { value, position }
    }

    /// Begins the log anew, if there is one.
    pub(super) fn compact_log(&self) {
        if let Some(log) = &self.log {
            // Under the lock, so that the log ends where the snapshot was taken.
            let state = self.state.lock();
            log.compact(state.model.snapshot());
        }
    }

    /// Ready when the log can no longer be written.
    pub(super) async fn failed(&self) -> LogError {
        match &self.log {
            Some(log) => log.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Ends the streams.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Ready when no request is being carried out.
    pub(super) async fn idle(&self) {
        let mut under_way = self.under_way.subscribe();
        // The sender is this engine's.
        let _ = under_way.wait_for(|count| *count == 0).await;
    }

    /// Nothing more is acknowledged after this.
    pub(super) fn close_log(&self) {
        if let Some(log) = &self.log {
            log.close();
        }
    }

    /// Ready when the store stops.
    pub(super) async fn closed(&self) {
        let mut closed = self.closed.subscribe();
        // The sender is this engine's.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Ends leases as they expire, and forgets history as it gets old. Never returns.
    pub(super) async fn housekeeping(&self) {
        tokio::join!(self.expire(), self.forget());
    }

    async fn expire(&self) {
        loop {
            let due = {
                let mut state = self.state.lock();
                state.model.tick(self.now());
                self.settle(&mut state);
                state.planned = state.model.next_expiry();
                state.planned.map(|planned| self.start + planned)
            };
            let timer = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    async fn forget(&self) {
        let Some(retention) = self.options.retention else {
            return std::future::pending().await;
        };
        let step = (retention / NOTES).max(Duration::from_millis(100));
        let mut notes: VecDeque<(Instant, i64)> = VecDeque::new();
        loop {
            let now = Instant::now();
            notes.push_back((now, self.state.lock().model.revision()));
            let mut old = None;
            while let Some((noted, revision)) = notes.front().copied()
                && now.duration_since(noted) >= retention
            {
                old = Some(revision);
                notes.pop_front();
            }
            if let Some(revision) = old {
                // Refused when somebody has compacted further, or nothing has happened.
                let request = CompactionRequest {
                    revision,
                    physical: false,
                };
                let _ = self.call(Request::Compact(request)).await;
            }
            sleep(step).await;
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// After anything was done with the model: hands its records to the log and its news to the watchers. Returns how far
    /// the log is then.
    fn settle(&self, state: &mut State) -> u64 {
        let position = match &self.log {
            Some(log) => {
                let mut records = state.model.take_records();
                records.retain(crate::model::Record::is_durable);
                let position = log.append(&records);
                if !records.is_empty() && log.wants_compaction() {
                    log.compact(state.model.snapshot());
                }
                position
            }
            None => 0,
        };
        for id in state.model.take_ready() {
            if let Some(signal) = state.signals.get(&id) {
                signal.ready.lock().push(id);
                signal.notify.notify_one();
            }
        }
        if let Some(next) = state.model.next_expiry()
            && state.planned.is_none_or(|planned| next < planned)
        {
            state.planned = Some(next);
            self.sooner.notify_one();
        }
        position
    }
}

/// Bytes that a request may add to the log; `None` when it adds nothing.
fn written(request: &Request) -> Option<u64> {
    let length = match request {
        Request::Put(request) => request.encoded_len(),
        Request::DeleteRange(request) => request.encoded_len(),
        Request::Txn(request) => request.encoded_len(),
        Request::Compact(request) => request.encoded_len(),
        Request::LeaseGrant(request) => request.encoded_len(),
        Request::LeaseRevoke(request) => request.encoded_len(),
        Request::Alarm(request) => request.encoded_len(),
        Request::Defragment => 0,
        Request::Range(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases
        | Request::HashKv(_)
        | Request::Status => return None,
    };
    Some(length as u64)
}

/// What a client is told. Only a log that failed leaves the outcome open.
fn refusal(error: LogError) -> Status {
    let code = match error {
        LogError::Full(_) => Code::ResourceExhausted,
        LogError::Failed(_) | LogError::Closed => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}
