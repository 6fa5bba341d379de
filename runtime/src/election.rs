//! Leader election, mode `lease`: the first to create the key leads, the others wait warm for its deletion.
//!
//! A controller is led as a whole or in shards: neither key is claimed while one of the other sort exists. Keys without a
//! lease, which no leader writes and which would never expire, are removed by whoever they are in the way of.
//!
//! One lease per process carries all its election keys. Losing the lease ends every leadership of the process. Mode
//! `hash`, for work that splits by key, is [`Elector::run_sharded`] in [`crate::shards`].

mod expiry;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use parking_lot::Mutex;
use setpoint_apis::{Key, KeyRange};
use setpoint_store::group_commit::GroupCommit;
use setpoint_store::lease::LeaseKeeper;
use setpoint_store::{
    Compare, Event, EventKind, LeaseId, RangeRequest, Revision, SharedStore, StoreError, Txn,
    WatchRequest,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::backoff::Backoff;
use crate::cache::Cache;
use crate::leader::{Leader, Seat};
use crate::metrics::Metrics;

/// The time to live of the process's lease. A killed leader is followed about this long after its last keep-alive: a
/// standby revokes the lease as soon as it has expired, without waiting for etcd to notice.
pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(3);

/// The wait before a question is asked again that should have had another answer.
const SOON: Duration = Duration::from_millis(100);

/// How many election keys of shards are looked at together: more than there are, unless strangers put some.
const AT_ONCE: i64 = 128;

/// Campaigns on behalf of controllers of one process; cheap to clone.
#[derive(Clone)]
pub struct Elector {
    pub(crate) store: SharedStore,
    pub(crate) commits: GroupCommit,
    pub(crate) cache: Cache,
    pub(crate) identity: String,
    pub(crate) metrics: Metrics,
    lease: Arc<tokio::sync::Mutex<Option<LeaseKeeper>>>,
    ttl: Duration,
    expiries: Expiries,
}

/// Waits for the end of a lease of another process.
pub(crate) type Expiry = Shared<BoxFuture<'static, ()>>;

/// What is waited for: several controllers wait for the same lease, and one question serves them all.
type Expiries = Arc<Mutex<BTreeMap<LeaseId, WeakShared<BoxFuture<'static, ()>>>>>;

enum Campaign {
    Elected(Revision, LeaseKeeper),
    /// Somebody holds the key, as of this revision, under this lease.
    Held(Revision, LeaseId),
    /// Others lead it in shards, as of this revision; one of them under this lease.
    InShards(Revision, LeaseId),
    /// What was in the way when it was claimed was gone before it was read: claim it again at once, but not twice in a row,
    /// since there may be keys in the way that are not shown (those that are not UTF-8).
    GivenUp,
    /// It may be free: ask again soon.
    Unclear,
}

impl Elector {
    /// An elector for a process that calls itself `identity` (host, process id, something random).
    pub fn new(
        store: SharedStore,
        commits: GroupCommit,
        cache: Cache,
        identity: impl Into<String>,
        ttl: Duration,
    ) -> Self {
        Self {
            store,
            commits,
            cache,
            identity: identity.into(),
            metrics: Metrics::default(),
            lease: Arc::default(),
            ttl,
            expiries: Expiries::default(),
        }
    }

    /// Counts in `metrics`, rather than in some of its own that nobody sees.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Runs `lead` whenever this process leads `controller`, until `shutdown`.
    ///
    /// # Guarantees
    /// `lead` starts when the cache has seen the election; its [`Leader::lost`] is cancelled as soon as the leadership
    /// is known to be lost, when `shutdown` is cancelled, and it is waited for before the key is given up, so that the
    /// next leader can begin at once after a graceful stop.
    pub async fn run<F, Fut>(
        &self,
        controller: &'static str,
        shutdown: CancellationToken,
        mut lead: F,
    ) where
        F: FnMut(Leader) -> Fut,
        Fut: Future<Output = ()>,
    {
        let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut rng = fastrand::Rng::with_seed(seed_of(&self.identity, controller));
        let mut failures = 0_u32;
        let (mut told, mut given_up) = (false, false);
        while !shutdown.is_cancelled() {
            let campaign = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                campaign = self.campaign(controller) => campaign,
            };
            let again = std::mem::replace(&mut given_up, matches!(campaign, Ok(Campaign::GivenUp)));
            match campaign {
                Ok(Campaign::Elected(epoch, lease)) => {
                    failures = 0;
                    let span = info_span!("lead", controller, epoch = epoch.0);
                    self.lead(controller, epoch, lease, &shutdown, &mut lead)
                        .instrument(span)
                        .await;
                }
                Ok(Campaign::Held(revision, by)) => {
                    failures = 0;
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = self.vacancy(controller, revision) => {}
                        () = self.expiry(by) => {}
                    }
                }
                Ok(Campaign::InShards(revision, by)) => {
                    failures = 0;
                    if !std::mem::replace(&mut told, true) {
                        warn!(
                            controller,
                            "others lead this controller in shards, and this process would lead it as a whole: waiting until they have gone"
                        );
                    }
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = self.fewer_shards(controller, revision) => {}
                        () = self.expiry(by) => {}
                    }
                }
                Ok(Campaign::GivenUp) if !again => failures = 0,
                Ok(Campaign::GivenUp | Campaign::Unclear) => {
                    failures = 0;
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(SOON) => {}
                    }
                }
                Err(error) => {
                    failures += 1;
                    warn!(
                        controller,
                        error = &error as &dyn std::error::Error,
                        "campaign failed; trying again"
                    );
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(backoff.delay(failures, &mut rng)) => {}
                    }
                }
            }
        }
    }

    /// Gives the process's lease up, and with it every key that is left on it.
    pub async fn resign(&self) {
        if let Some(lease) = self.lease.lock().await.take()
            && let Err(error) = lease.revoke().await
        {
            warn!(
                error = &error as &dyn std::error::Error,
                "the election lease could not be revoked; it will expire"
            );
        }
    }

    async fn campaign(&self, controller: &str) -> Result<Campaign, StoreError> {
        let lease = self.lease().await?;
        let seat = self.seat(controller, lease.id());
        let key = seat.key();
        let shards = seats_of(key);
        let no_shards = Compare::RangeUnchangedSince {
            start: shards.start.clone(),
            end: shards.end.clone(),
            revision: 0,
        };
        let claim = |guard| Txn {
            compares: vec![guard, no_shards.clone()],
            then: seat.claim(self.cache.keyspace()),
            or_else: Vec::new(),
        };
        let mut rejected = false;
        match self.store.txn(claim(Compare::absent(key))).await {
            Ok(done) if done.succeeded => return Ok(Campaign::Elected(done.revision, lease)),
            Ok(_) => rejected = true,
            Err(StoreError::LeaseNotFound { .. }) => {
                self.forget(&lease).await;
                return Ok(Campaign::Unclear);
            }
            // The outcome may be unknown: the read tells whether the key is ours.
            Err(error) => warn!(
                controller,
                error = &error as &dyn std::error::Error,
                "campaigning"
            ),
        }
        let (Some(kv), revision) = self.store.get(key).await? else {
            return self.look_at(controller, shards, rejected).await;
        };
        if let Some(by) = kv.lease.filter(|by| *by != lease.id()) {
            return Ok(Campaign::Held(revision, by));
        }
        // Ours: from a claim of unknown outcome, or left over from a former leadership, whose late writes a new epoch
        // shuts out. Or without a lease, as no leader writes it: somebody else has, and it would never expire. Whoever led
        // before has lost its fence by that write, so taking the key deposes nobody.
        if kv.lease.is_none() {
            warn!(
                controller,
                key, "the election key was overwritten by a stranger; taking it back"
            );
        }
        let guard = Compare::ModRevision(key.into(), kv.mod_revision);
        let done = self.store.txn(claim(guard)).await?;
        Ok(if done.succeeded {
            Campaign::Elected(done.revision, lease)
        } else {
            Campaign::Unclear
        })
    }

    /// Nobody leads the whole: does anybody lead shards? What strangers have put among them goes.
    async fn look_at(
        &self,
        controller: &str,
        shards: KeyRange,
        rejected: bool,
    ) -> Result<Campaign, StoreError> {
        let request = RangeRequest {
            start: shards.start,
            end: shards.end,
            limit: AT_ONCE,
            ..RangeRequest::default()
        };
        let page = self.store.range(request).await?;
        if let Some(lease) = page.kvs.iter().find_map(|kv| kv.lease) {
            return Ok(Campaign::InShards(page.revision, lease));
        }
        for kv in &page.kvs {
            warn!(
                controller,
                key = kv.key,
                "a stranger wrote a key among the election keys of shards, where it keeps everybody from leading; removing it"
            );
            let guard = Compare::ModRevision(kv.key.clone(), kv.mod_revision);
            let txn = Txn::new().when(guard).delete(kv.key.clone());
            self.store.txn(txn).await?;
        }
        Ok(match rejected {
            true => Campaign::GivenUp,
            false => Campaign::Unclear,
        })
    }

    fn seat(&self, controller: &str, lease: LeaseId) -> Seat {
        Seat::new(
            self.cache.keyspace(),
            controller,
            None,
            &self.identity,
            lease,
        )
    }

    /// The store says that the lease does not exist: the next one who needs one grants another.
    pub(crate) async fn forget(&self, lease: &LeaseKeeper) {
        let mut slot = self.lease.lock().await;
        if slot.as_ref().is_some_and(|known| known.id() == lease.id()) {
            *slot = None;
        }
    }

    /// The process's lease; a new one when there is none or it is lost.
    pub(crate) async fn lease(&self) -> Result<LeaseKeeper, StoreError> {
        let mut slot = self.lease.lock().await;
        if let Some(lease) = slot.as_ref()
            && !lease.is_lost()
        {
            return Ok(lease.clone());
        }
        let lease = LeaseKeeper::grant(self.store.clone(), self.ttl).await?;
        *slot = Some(lease.clone());
        Ok(lease)
    }

    async fn lead<F, Fut>(
        &self,
        controller: &str,
        epoch: Revision,
        lease: LeaseKeeper,
        shutdown: &CancellationToken,
        lead: &mut F,
    ) where
        F: FnMut(Leader) -> Fut,
        Fut: Future<Output = ()>,
    {
        let metrics = self.metrics.of(controller);
        metrics.leader_changes.inc();
        metrics.leading.inc();
        let leader = Leader::new(
            self.seat(controller, lease.id()),
            epoch,
            self.store.clone(),
            self.commits.clone(),
            self.cache.clone(),
            metrics.clone(),
        );
        let work = async {
            tokio::select! {
                biased;
                () = leader.lost().cancelled() => return,
                () = self.cache.wait_for(epoch) => {}
            }
            info!(
                controller,
                epoch = epoch.0,
                identity = self.identity,
                "leading"
            );
            lead(leader.clone()).await;
        };
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            () = lease.lost() => {
                warn!(controller, "the election lease is lost");
                leader.step_down();
                work.await;
            }
            () = shutdown.cancelled() => {
                leader.step_down();
                work.await;
            }
            () = &mut work => {}
        }
        leader.step_down();
        metrics.leading.dec();
        // Only our own claim is deleted: the epoch guards it.
        let key = self.cache.keyspace().build(&Key::Leader(controller, None));
        if let Err(error) = self
            .store
            .txn(Txn::new().when(leader.guard()).delete(key))
            .await
        {
            warn!(
                controller,
                error = &error as &dyn std::error::Error,
                "the election key could not be given up; it will expire"
            );
        }
        info!(controller, "no longer leading");
    }

    /// Waits until the key of `controller` may be free.
    async fn vacancy(&self, controller: &str, held_at: Revision) {
        let key = self.cache.keyspace().build(&Key::Leader(controller, None));
        let vacant = |e: &Event| e.kind == EventKind::Delete || e.kv.lease.is_none();
        let range = KeyRange::prefix(key.clone());
        self.event(range, held_at, |e| e.kv.key == key && vacant(e))
            .await;
    }

    /// Waits until a shard of `controller` is given up.
    async fn fewer_shards(&self, controller: &str, seen_at: Revision) {
        let key = self.cache.keyspace().build(&Key::Leader(controller, None));
        self.event(seats_of(&key), seen_at, |e| e.kind == EventKind::Delete)
            .await;
    }

    /// Waits for such an event after `seen_at`, or until the watch breaks.
    async fn event(&self, range: KeyRange, seen_at: Revision, matches: impl Fn(&Event) -> bool) {
        let request = WatchRequest {
            start: range.start,
            end: range.end,
            from: Some(Revision(seen_at.0 + 1)),
        };
        if let Ok(mut watch) = self.store.watch(request).await {
            while let Some(Ok(batch)) = watch.next().await {
                if batch.events.iter().any(&matches) {
                    return;
                }
            }
        }
        // The watch broke.
        tokio::time::sleep(SOON).await;
    }

    /// Ends when the lease of another process has; sees to it that it ends on time.
    pub(crate) fn expiry(&self, lease: LeaseId) -> Expiry {
        let mut expiries = self.expiries.lock();
        expiries.retain(|_, waited| waited.upgrade().is_some_and(|w| w.peek().is_none()));
        if let Some(shared) = expiries.get(&lease).and_then(WeakShared::upgrade) {
            return shared;
        }
        let store = self.store.clone();
        let shared = async move { expiry::ended(&*store, lease).await }
            .boxed()
            .shared();
        expiries.extend(shared.downgrade().map(|weak| (lease, weak)));
        shared
    }
}

/// The keys of the shards of the controller whose election key is this.
pub(crate) fn seats_of(whole: &str) -> KeyRange {
    KeyRange::prefix(format!("{whole}/"))
}

/// Two processes never share their jitter, and a run with the same names repeats it.
pub(crate) fn seed_of(identity: &str, controller: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(identity.as_bytes());
    hasher.write(controller.as_bytes());
    hasher.finish()
}
