//! Leader election, mode `lease`: the first to create the key leads, the others wait warm for its deletion.
//!
//! One lease per process carries all its election keys. Losing the lease ends every leadership of the process.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use setpoint_apis::Key;
use setpoint_store::group_commit::GroupCommit;
use setpoint_store::lease::LeaseKeeper;
use setpoint_store::{Compare, Event, EventKind, Revision, SharedStore, StoreError, WatchRequest};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use crate::backoff::Backoff;
use crate::cache::Cache;
use crate::leader::{Leader, claim};

/// The time to live of the process's lease. A killed leader is followed at most this long, and etcd's own half second,
/// after its last keep-alive.
pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(3);

/// Campaigns on behalf of controllers of one process; cheap to clone.
#[derive(Clone)]
pub struct Elector {
    store: SharedStore,
    commits: GroupCommit,
    cache: Cache,
    identity: String,
    lease: std::sync::Arc<tokio::sync::Mutex<Option<LeaseKeeper>>>,
    ttl: Duration,
}

enum Campaign {
    Elected(Revision, LeaseKeeper),
    /// Somebody holds the key, as of this revision.
    Held(Revision),
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
            lease: std::sync::Arc::default(),
            ttl,
        }
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
        while !shutdown.is_cancelled() {
            let campaign = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                campaign = self.campaign(controller) => campaign,
            };
            match campaign {
                Ok(Campaign::Elected(epoch, lease)) => {
                    failures = 0;
                    let span = info_span!("lead", controller, epoch = epoch.0);
                    self.lead(controller, epoch, lease, &shutdown, &mut lead)
                        .instrument(span)
                        .await;
                }
                Ok(Campaign::Held(revision)) => {
                    failures = 0;
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = self.vacancy(controller, revision) => {}
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
        let keyspace = self.cache.keyspace();
        let key = keyspace.build(&Key::Leader(controller, None));
        let txn = claim(keyspace, controller, &self.identity, lease.id())
            .when(Compare::absent(key.clone()));
        match self.store.txn(txn).await {
            Ok(done) if done.succeeded => return Ok(Campaign::Elected(done.revision, lease)),
            Ok(_) => {}
            Err(StoreError::LeaseNotFound { .. }) => {
                *self.lease.lock().await = None;
                return Ok(Campaign::Held(Revision(0)));
            }
            // The outcome may be unknown: the read tells whether the key is ours.
            Err(error) => warn!(
                controller,
                error = &error as &dyn std::error::Error,
                "campaigning"
            ),
        }
        match self.store.get(&key).await? {
            (Some(kv), _) if kv.lease == Some(lease.id()) => {
                Ok(Campaign::Elected(Revision(kv.mod_revision), lease))
            }
            // No leader writes its key without a lease: somebody else has, and it would never expire. Whoever led before
            // has lost its fence by that write, so taking the key deposes nobody.
            (Some(kv), _) if kv.lease.is_none() => {
                warn!(
                    controller,
                    key, "the election key was overwritten by a stranger; taking it back"
                );
                let txn = claim(keyspace, controller, &self.identity, lease.id())
                    .when(Compare::ModRevision(key, kv.mod_revision));
                let done = self.store.txn(txn).await?;
                Ok(if done.succeeded {
                    Campaign::Elected(done.revision, lease)
                } else {
                    Campaign::Held(Revision(0))
                })
            }
            (Some(_), revision) => Ok(Campaign::Held(revision)),
            (None, _) => Ok(Campaign::Held(Revision(0))),
        }
    }

    /// The process's lease; a new one when there is none or it is lost.
    async fn lease(&self) -> Result<LeaseKeeper, StoreError> {
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
        let leader = Leader::new(
            controller,
            &self.identity,
            lease.id(),
            epoch,
            self.store.clone(),
            self.commits.clone(),
            self.cache.clone(),
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
        // Only our own claim is deleted: the epoch guards it.
        let key = self.cache.keyspace().build(&Key::Leader(controller, None));
        if let Err(error) = self
            .store
            .txn(setpoint_store::Txn::new().when(leader.guard()).delete(key))
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
        let range = setpoint_apis::KeyRange::prefix(
            self.cache.keyspace().build(&Key::Leader(controller, None)),
        );
        let request = WatchRequest {
            start: range.start.clone(),
            end: range.end,
            from: Some(Revision(held_at.0 + 1)),
        };
        let key = range.start;
        if held_at.0 > 0
            && let Ok(mut watch) = self.store.watch(request).await
        {
            while let Some(Ok(batch)) = watch.next().await {
                let vacant = |e: &Event| e.kind == EventKind::Delete || e.kv.lease.is_none();
                if batch.events.iter().any(|e| e.kv.key == key && vacant(e)) {
                    return;
                }
            }
        }
        // The key vanished in between, or the watch broke: ask again, not too fast.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Two processes never share their jitter, and a run with the same names repeats it.
fn seed_of(identity: &str, controller: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(identity.as_bytes());
    hasher.write(controller.as_bytes());
    hasher.finish()
}
