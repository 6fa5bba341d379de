//! The model as a [`Store`]: for tests and simulations, on tokio's clock (a paused one as well).

mod convert;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::convert::store_error;
use super::api::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, WatchCreateRequest,
};
use super::{Config, Model, ModelError, Request, Response, WatchCompacted, WatcherId};
use crate::Store;
use crate::error::StoreError;
use crate::types::{
    KeyValue, LeaseId, LeaseTime, Page, RangeRequest, Revision, ServerStatus, Txn, TxnResult,
    WatchBatch, WatchRequest,
};

/// How often a quiet watch tells that the store has moved on elsewhere. As etcd's client here asks for it.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// About how many events a batch has.
const BATCH: usize = 1_000;

/// A [`Model`] that is shared. Clones are the same store.
///
/// Every call takes effect when its future is first polled, and is ready at once. On a current-thread runtime the same
/// program has the same outcome each time. Leases expire while a runtime is there to tell the time.
#[derive(Clone)]
pub struct ModelStore {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// What the model's times are counted from: the first use, so that it is of the runtime's clock.
    start: OnceLock<Instant>,
    /// A lease may expire sooner than the timer knows.
    sooner: Arc<Notify>,
    /// By how many millionths the store's clock is faster than everybody else's.
    drift_ppm: i32,
}

struct State {
    model: Model,
    watchers: BTreeMap<WatcherId, Arc<Notify>>,
    timer: Option<JoinHandle<()>>,
    /// What the timer waits for.
    planned: Option<Duration>,
}

impl Default for ModelStore {
    fn default() -> Self {
        Self::new(Config::default())
    }
}

impl ModelStore {
    /// An empty store.
    pub fn new(config: Config) -> Self {
        Self::of(Model::new(config))
    }

    /// A store that goes on from a model. Its times are counted anew, so its leases should be renewed with
    /// [`Model::restart`].
    pub fn of(model: Model) -> Self {
        Self::with_drift(model, 0)
    }

    /// As [`ModelStore::of`], with a clock that is faster than tokio's by so many millionths, or slower: leases expire
    /// the sooner, or the later.
    pub fn with_drift(model: Model, drift_ppm: i32) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    model,
                    watchers: BTreeMap::new(),
                    timer: None,
                    planned: None,
                }),
                start: OnceLock::new(),
                sooner: Arc::new(Notify::new()),
                drift_ppm,
            }),
        }
    }

    /// Carries out any call of etcd's API now.
    ///
    /// # Errors
    /// As [`Model::step`].
    pub fn step(&self, request: Request) -> Result<Response, ModelError> {
        let now = self.shared.now();
        self.with(|model| model.step(now, request))
    }

    /// Forgets the history before a revision, as `etcdctl compaction` does.
    ///
    /// # Errors
    /// When it has been compacted, or has not happened.
    pub fn compact(&self, revision: Revision) -> Result<(), ModelError> {
        let request = CompactionRequest {
            revision: revision.0,
            physical: false,
        };
        self.step(Request::Compact(request)).map(|_| ())
    }

    /// Looks at the model, or changes it: watchers are woken and the timer set afterwards.
    pub fn with<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        let mut state = self.shared.state.lock();
        let result = look(&mut state.model);
        state.wake();
        self.plan(&mut state);
        result
    }

    /// Sees to it that there is a timer while a lease can expire.
    fn plan(&self, state: &mut State) {
        let Some(next) = state.model.next_expiry() else {
            return;
        };
        if state
            .timer
            .as_ref()
            .is_some_and(|timer| !timer.is_finished())
        {
            if state.planned.is_none_or(|planned| next < planned) {
                state.planned = Some(next);
                self.shared.sooner.notify_one();
            }
        } else if let Ok(runtime) = Handle::try_current() {
            state.planned = Some(next);
            let sooner = Arc::clone(&self.shared.sooner);
            // Not `task::spawn`: the timer is the store's, whichever simulated process happens to call.
            state.timer = Some(runtime.spawn(expire(Arc::downgrade(&self.shared), sooner)));
        }
    }
}

impl Shared {
    fn now(&self) -> Duration {
        let elapsed = self.start.get_or_init(Instant::now).elapsed();
        match self.drift_ppm {
            0 => elapsed,
            _ => elapsed.mul_f64(self.rate()),
        }
    }

    /// When a time of the store's clock has come. A little late rather than early, for whoever waits for it.
    fn when(&self, start: Instant, time: Duration) -> Instant {
        start + time.div_f64(self.rate()) + Duration::from_micros(1)
    }

    fn rate(&self) -> f64 {
        1.0 + f64::from(self.drift_ppm) * 1e-6
    }
}

impl State {
    fn wake(&mut self) {
        for id in self.model.take_ready() {
            if let Some(notify) = self.watchers.get(&id) {
                notify.notify_one();
            }
        }
    }
}

/// Revokes leases as they expire, while there are any and somebody has the store.
async fn expire(shared: Weak<Shared>, sooner: Arc<Notify>) {
    loop {
        let due = {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let now = shared.now();
            let mut state = shared.state.lock();
            state.model.tick(now);
            state.wake();
            state.planned = state.model.next_expiry();
            match (state.planned, shared.start.get()) {
                (Some(next), Some(start)) if shared.drift_ppm == 0 => *start + next,
                (Some(next), Some(start)) => shared.when(*start, next),
                _ => {
                    // Gone before the lock is: whoever grants the next lease starts another one.
                    state.timer = None;
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = sleep_until(due) => {}
            () = sooner.notified() => {}
        }
    }
}

/// A watcher that is removed when nobody follows it any more.
struct Follower {
    store: ModelStore,
    id: WatcherId,
    notify: Arc<Notify>,
    context: String,
    delivered: i64,
}

impl Follower {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            let pulled = self.store.with(|model| {
                let pulled = model.pull(self.id, BATCH);
                (pulled, model.progress(self.id))
            });
            match pulled {
                (Ok(Some(events)), _) => {
                    self.delivered = self.delivered.max(events.revision);
                    let batch = convert::batch(events.events, self.delivered);
                    if !batch.events.is_empty() {
                        return Ok(batch);
                    }
                    continue;
                }
                (Err(WatchCompacted(compact_revision)), _) => {
                    return Err(StoreError::Compacted {
                        context: self.context.clone(),
                        compact_revision,
                    });
                }
                (Ok(None), _) => {}
            }
            if timeout(PROGRESS_INTERVAL, self.notify.notified())
                .await
                .is_ok()
            {
                continue;
            }
            let progress = self.store.with(|model| model.progress(self.id));
            if let Some(revision) = progress.filter(|revision| *revision > self.delivered) {
                self.delivered = revision;
                return Ok(WatchBatch {
                    revision: Revision(revision),
                    events: Vec::new(),
                });
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.store.shared.state.lock();
        state.model.unwatch(self.id);
        state.watchers.remove(&self.id);
    }
}

impl Store for ModelStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        let key = key.to_owned();
        Box::pin(async move {
            let request = super::api::RangeRequest {
                key: key.clone().into(),
                ..Default::default()
            };
            match self.step(Request::Range(request)) {
                Ok(Response::Range(response)) => {
                    let page = convert::page(response);
                    Ok((page.kvs.into_iter().next(), page.revision))
                }
                other => Err(unexpected(other, format!("read of {key}"))),
            }
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let context = format!("read of [{}, {})", request.start, request.end);
            let mut raw = convert::range_request(request);
            loop {
                match self.step(Request::Range(raw.clone())) {
                    Ok(Response::Range(response)) => {
                        let last = response.kvs.last().map(|kv| kv.key.clone());
                        let page = convert::page(response);
                        match last {
                            // Nothing but keys that are not text: the caller could not go on from such a page.
                            Some(last) if page.more && page.kvs.is_empty() => {
                                raw.key = [&*last, b"\0"].concat().into();
                            }
                            _ => return Ok(page),
                        }
                    }
                    other => return Err(unexpected(other, context)),
                }
            }
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        Box::pin(async move {
            let size = txn.then.len();
            let first = crate::etcd::first_key(&txn).map(str::to_owned);
            match self.step(Request::Txn(convert::txn_request(txn))) {
                Ok(Response::Txn(response)) => Ok(convert::txn_result(response)),
                other => Err(unexpected(
                    other,
                    first.map_or_else(
                        || "empty transaction".to_owned(),
                        |key| format!("transaction of {size} operations on {key}"),
                    ),
                )),
            }
        })
    }

    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>> {
        Box::pin(async move {
            let context = format!("watch of [{}, {})", request.start, request.end);
            let create = WatchCreateRequest {
                key: request.start.into(),
                range_end: request.end.into(),
                start_revision: request.from.map_or(0, |revision| revision.0),
                ..WatchCreateRequest::default()
            };
            let notify = Arc::new(Notify::new());
            let now = self.shared.now();
            let (id, delivered) = {
                let mut state = self.shared.state.lock();
                state.model.tick(now);
                let id = state.model.watch(&create);
                state.watchers.insert(id, Arc::clone(&notify));
                state.wake();
                let current = state.model.revision();
                (id, request.from.map_or(current, |from| from.0 - 1))
            };
            let follower = Follower {
                store: self.clone(),
                id,
                notify,
                context,
                delivered,
            };
            let stream = stream::unfold(Some(follower), |follower| async move {
                let mut follower = follower?;
                match follower.next().await {
                    Ok(batch) => Some((Ok(batch), Some(follower))),
                    Err(error) => Some((Err(error), None)),
                }
            });
            Ok(stream.fuse().boxed())
        })
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        Box::pin(async move {
            // etcd counts in seconds; a shorter lease than asked for would be a surprise.
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let request = LeaseGrantRequest {
                ttl: i64::try_from(seconds).unwrap_or(i64::MAX),
                id: 0,
            };
            match self.step(Request::LeaseGrant(request)) {
                Ok(Response::LeaseGrant(granted)) => {
                    Ok((LeaseId(granted.id), super::seconds(granted.ttl)))
                }
                other => Err(unexpected(other, format!("grant of a lease for {ttl:?}"))),
            }
        })
    }

    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        Box::pin(async move {
            let context = || format!("renewal of lease {:x}", lease.0);
            let request = LeaseKeepAliveRequest { id: lease.0 };
            match self.step(Request::LeaseKeepAlive(request)) {
                Ok(Response::LeaseKeepAlive(renewed)) if renewed.ttl > 0 => {
                    Ok(super::seconds(renewed.ttl))
                }
                Ok(_) => Err(StoreError::LeaseNotFound { context: context() }),
                Err(error) => Err(store_error(error, context())),
            }
        })
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.step(Request::LeaseRevoke(LeaseRevokeRequest { id: lease.0 }))
                .map(|_| ())
                .map_err(|error| store_error(error, format!("revocation of lease {:x}", lease.0)))
        })
    }

    fn lease_time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<LeaseTime>, StoreError>> {
        Box::pin(async move {
            let context = format!("remaining time of lease {:x}", lease.0);
            let request = LeaseTimeToLiveRequest {
                id: lease.0,
                keys: false,
            };
            match self.step(Request::LeaseTimeToLive(request)) {
                Ok(Response::LeaseTimeToLive(left)) if left.granted_ttl > 0 => {
                    Ok(Some(LeaseTime {
                        granted: super::seconds(left.granted_ttl),
                        remaining: super::seconds(left.ttl),
                    }))
                }
                Ok(_) => Err(StoreError::LeaseNotFound { context }),
                Err(error) => Err(store_error(error, context)),
            }
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        Box::pin(async move {
            match self.step(Request::Status) {
                Ok(Response::Status(status)) => Ok(convert::status(status)),
                other => Err(unexpected(other, "reading the model's status".to_owned())),
            }
        })
    }
}

/// The error of a step, or of one that gave the answer to something else: that would be a bug of the model.
fn unexpected(result: Result<Response, ModelError>, context: String) -> StoreError {
    match result {
        Err(error) => store_error(error, context),
        Ok(_) => StoreError::Invalid {
            context,
            message: "the model answered something else".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Compare;

    fn watching(from: Option<Revision>) -> WatchRequest {
        WatchRequest {
            start: "/a/".to_owned(),
            end: "/a0".to_owned(),
            from,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_clock_ends_leases_early() {
        let ttl = Duration::from_secs(10);
        for (drift, ends) in [(0, 10_000), (100_000, 9_091), (-100_000, 11_112)] {
            let store = ModelStore::with_drift(Model::new(Config::default()), drift);
            let start = Instant::now();
            let (lease, _) = store.lease_grant(ttl).await.unwrap();
            while store.lease_time_left(lease).await.is_ok() {
                sleep_until(Instant::now() + Duration::from_millis(1)).await;
            }
            let lived = start.elapsed().as_millis();
            let sweep = Config::default().lease_sweep.as_millis() * 2;
            assert!(
                (ends..=ends + sweep).contains(&lived),
                "{drift}: {lived} ms"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_takes_its_keys_along_on_the_runtimes_clock() {
        let store = ModelStore::default();
        let start = Instant::now();
        let (lease, ttl) = store.lease_grant(Duration::from_secs(6)).await.unwrap();
        let put = Txn::new().put_with_lease("/a/x", "v", lease);
        store.txn(put).await.unwrap();
        let mut watch = store.watch(watching(None)).await.unwrap();

        tokio::time::sleep(Duration::from_secs(4)).await;
        store.lease_renew(lease).await.unwrap();
        let batch = watch.next().await.unwrap().unwrap();
        // Progress is told first: nothing happened in the range, nothing elsewhere, so the next batch is the end.
        assert_eq!(batch.events[0].kind, crate::EventKind::Delete);
        assert_eq!(start.elapsed().as_secs(), 4 + ttl.as_secs());
        assert!(matches!(
            store.lease_renew(lease).await,
            Err(StoreError::LeaseNotFound { .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_lease_granted_later_expires_first() {
        let store = ModelStore::default();
        let (long, _) = store.lease_grant(Duration::from_secs(60)).await.unwrap();
        let mut watch = store.watch(watching(None)).await.unwrap();
        let (short, _) = store.lease_grant(Duration::from_secs(5)).await.unwrap();
        let txn = Txn::new()
            .put_with_lease("/a/long", "", long)
            .put_with_lease("/a/short", "", short);
        store.txn(txn).await.unwrap();
        let start = Instant::now();
        let mut deleted = Vec::new();
        while deleted.len() < 2 {
            let batch = watch.next().await.unwrap().unwrap();
            let gone = batch
                .events
                .into_iter()
                .filter(|event| event.kind == crate::EventKind::Delete);
            deleted.extend(gone.map(|event| (event.kv.key, start.elapsed().as_secs())));
        }
        assert_eq!(
            deleted,
            [("/a/short".to_owned(), 5), ("/a/long".to_owned(), 60)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_watch_tells_that_the_store_has_moved_on() {
        let store = ModelStore::default();
        let mut watch = store.watch(watching(None)).await.unwrap();
        let elsewhere = Txn::new().when(Compare::absent("/b")).put("/b", "");
        let revision = store.txn(elsewhere).await.unwrap().revision;
        let batch = watch.next().await.unwrap().unwrap();
        assert_eq!((batch.revision, batch.events.len()), (revision, 0));
        let quiet = timeout(Duration::from_secs(60), watch.next()).await;
        assert!(quiet.is_err(), "there is nothing more to tell");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_nobody_follows_is_gone() {
        let store = ModelStore::default();
        let watch = store.watch(watching(None)).await.unwrap();
        assert_eq!(store.shared.state.lock().watchers.len(), 1);
        drop(watch);
        assert_eq!(store.shared.state.lock().watchers.len(), 0);
    }
}
