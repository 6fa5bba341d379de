//! A lease that is kept alive for as long as its keeper is.
//!
//! # Guarantees
//! - `valid_until` is counted from the moment *before* the last successful renewal was sent, so a server that keeps time
//!   no slower than this machine does not expire the lease before it. Whoever must be gone by then (a leader, a node's
//!   pods) has to stop ahead of it.
//! - `Lost` is said once the server has said that the lease does not exist, and is final.
//! - A passed `valid_until` does not mean `Lost`: the server may have been away, and a restarted server gives all leases
//!   their full time again. The keeper goes on trying until it has an answer.
//! - When the last clone is dropped, nobody renews any more and the lease expires by itself. `revoke` ends it at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::SharedStore;
use crate::error::StoreError;
use crate::task;
use crate::types::LeaseId;
use crate::watched::{Watched, Watcher};

/// Waits between failed renewals: from this, doubled each time, up to a sixth of the lease's time or a second.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// What is known about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// The server had it when last asked.
    Alive {
        /// Until when it lives if no renewal arrives any more, on a clock that stands still while the machine sleeps.
        valid_until: Instant,
    },
    /// It has expired or was revoked.
    Lost,
}

/// Keeps a lease alive. Clones share it.
#[derive(Clone)]
pub struct LeaseKeeper {
    inner: Arc<Inner>,
}

struct Inner {
    store: SharedStore,
    id: LeaseId,
    ttl: Duration,
    state: Watched<LeaseState>,
    renewing: AbortHandle,
}

impl LeaseKeeper {
    /// Grants a lease for `ttl`, or longer if the server insists, and keeps it alive.
    ///
    /// # Errors
    /// As [`Store::lease_grant`](crate::Store::lease_grant). A lease whose grant has an unknown outcome expires unused.
    ///
    /// # Cancel safety
    /// A dropped future may leave a lease behind, which expires.
    pub async fn grant(store: SharedStore, ttl: Duration) -> Result<Self, StoreError> {
        let sent = Instant::now();
        let (id, ttl) = store.lease_grant(ttl).await?;
        let state = Watched::new(LeaseState::Alive {
            valid_until: sent + ttl,
        });
        let renewing =
            task::spawn(renew(Arc::clone(&store), id, ttl, sent, state.clone())).abort_handle();
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                id,
                ttl,
                state,
                renewing,
            }),
        })
    }

    /// The lease.
    pub fn id(&self) -> LeaseId {
        self.inner.id
    }

    /// The granted time to live.
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// Follows the state.
    pub fn state(&self) -> Watcher<LeaseState> {
        self.inner.state.watcher()
    }

    /// Until when the lease lives if no renewal arrives any more; `None` when it is lost.
    pub fn valid_until(&self) -> Option<Instant> {
        match self.inner.state.get() {
            LeaseState::Alive { valid_until } => Some(valid_until),
            LeaseState::Lost => None,
        }
    }

    /// Whether the server has said that it is gone.
    pub fn is_lost(&self) -> bool {
        self.valid_until().is_none()
    }

    /// Waits until the server says that it is gone.
    pub async fn lost(&self) {
        self.inner
            .state
            .wait_for(|state| *state == LeaseState::Lost)
            .await;
    }

    /// Stops renewing, for all clones, and ends the lease; its keys are deleted at once.
    ///
    /// # Errors
    /// As [`Store::lease_revoke`](crate::Store::lease_revoke); a lease that is gone already is no error. After an error
    /// the lease expires by itself.
    pub async fn revoke(&self) -> Result<(), StoreError> {
        self.inner.renewing.abort();
        let result = match self.inner.store.lease_revoke(self.inner.id).await {
            Err(StoreError::LeaseNotFound { .. }) => Ok(()),
            result => result,
        };
        self.inner.state.set(LeaseState::Lost);
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Renews every third of the time to live, sooner after a failure, until the lease is gone.
async fn renew(
    store: SharedStore,
    id: LeaseId,
    ttl: Duration,
    granted: Instant,
    state: Watched<LeaseState>,
) {
    // Each attempt gets a third as well, so that two fit in before the lease expires.
    let interval = ttl / 3;
    let longest_retry = LONGEST_RETRY.min(ttl / 6).max(FIRST_RETRY);
    let mut retry = FIRST_RETRY;
    let mut failures = 0_u32;
    sleep_until(granted + interval).await;
    loop {
        let sent = Instant::now();
        let error = match timeout(interval, store.lease_renew(id)).await {
            Ok(Ok(remaining)) => {
                state.set(LeaseState::Alive {
                    valid_until: sent + remaining,
                });
                if failures > 1 {
                    info!(lease = id.0, failures, "lease renewed again");
                }
                retry = FIRST_RETRY;
                failures = 0;
                sleep_until(sent + interval).await;
                continue;
            }
            Ok(Err(StoreError::LeaseNotFound { .. })) => {
                warn!(lease = id.0, "lease lost");
                state.set(LeaseState::Lost);
                return;
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        failures += 1;
        if failures == 2 {
            // One failure is a restart or a new stream; from the second on it is worth a word.
            warn!(
                lease = id.0,
                error = error.as_ref().map(|error| error as &dyn std::error::Error),
                "lease not renewed; trying again"
            );
        } else {
            debug!(lease = id.0, failures, "lease not renewed; trying again");
        }
        if failures > 1 {
            sleep(retry).await;
            retry = (retry * 2).min(longest_retry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use futures::stream::BoxStream;
    use parking_lot::Mutex;

    use super::*;
    use crate::Store;
    use crate::types::{
        KeyValue, Page, RangeRequest, Revision, ServerStatus, Txn, TxnResult, WatchBatch,
        WatchRequest,
    };

    const TTL: Duration = Duration::from_secs(6);

    /// Answers renewals from a script, then with success; `None` never answers.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Option<Result<Duration, StoreError>>>>,
        asked: AtomicUsize,
    }

    fn unavailable() -> StoreError {
        StoreError::Unavailable {
            context: "test".into(),
            message: "away".into(),
        }
    }

    fn gone() -> StoreError {
        StoreError::LeaseNotFound {
            context: "test".into(),
        }
    }

    impl Store for Script {
        fn get(&self, _: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
            unreachable!("a keeper only deals with leases")
        }
        fn range(&self, _: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
            unreachable!("a keeper only deals with leases")
        }
        fn txn(&self, _: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
            unreachable!("a keeper only deals with leases")
        }
        fn watch(
            &self,
            _: WatchRequest,
        ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>>
        {
            unreachable!("a keeper only deals with leases")
        }
        fn lease_grant(
            &self,
            ttl: Duration,
        ) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
            async move { Ok((LeaseId(7), ttl)) }.boxed()
        }
        fn lease_renew(&self, _: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            match self.answers.lock().pop_front() {
                Some(Some(answer)) => async move { answer }.boxed(),
                Some(None) => std::future::pending().boxed(),
                None => async { Ok(TTL) }.boxed(),
            }
        }
        fn lease_revoke(&self, _: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
            async { Err(gone()) }.boxed()
        }
        fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
            unreachable!("a keeper only deals with leases")
        }
    }

    async fn keeper(
        answers: impl IntoIterator<Item = Option<Result<Duration, StoreError>>>,
    ) -> (Arc<Script>, LeaseKeeper) {
        let script = Arc::new(Script {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: AtomicUsize::new(0),
        });
        let keeper = LeaseKeeper::grant(script.clone(), TTL).await.unwrap();
        (script, keeper)
    }

    async fn changed(keeper: &LeaseKeeper) {
        let before = keeper.inner.state.get();
        keeper.inner.state.wait_for(|state| *state != before).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_renewed_every_third_of_its_time() {
        let start = Instant::now();
        let (script, keeper) = keeper([]).await;
        assert_eq!(keeper.valid_until(), Some(start + TTL));
        sleep(Duration::from_secs(61)).await;
        assert_eq!(script.asked.load(Ordering::Relaxed), 30);
        assert_eq!(
            keeper.valid_until(),
            Some(start + Duration::from_secs(60) + TTL)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_is_repeated_at_once_and_then_with_backoff() {
        let start = Instant::now();
        let (script, keeper) = keeper((0..4).map(|_| Some(Err(unavailable())))).await;
        changed(&keeper).await;
        // At 2 s, at once, and after 50, 100 and 200 ms.
        assert_eq!(script.asked.load(Ordering::Relaxed), 5);
        let renewed = Duration::from_millis(2_350);
        assert!(
            start.elapsed() >= renewed && start.elapsed() < renewed + Duration::from_millis(20),
            "{:?}",
            start.elapsed()
        );
        assert!(!keeper.is_lost());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_renewal_counts_from_when_it_was_sent() {
        let start = Instant::now();
        let (_script, keeper) = keeper([None]).await;
        changed(&keeper).await;
        // Sent at 2 s, given up at 4 s, sent again and answered.
        let valid_until = keeper.valid_until().unwrap() - start;
        assert!(
            valid_until >= Duration::from_secs(10) && valid_until < Duration::from_millis(10_020),
            "{valid_until:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_lost_only_when_the_server_says_so() {
        let start = Instant::now();
        let (_script, keeper) = keeper(
            std::iter::repeat_with(|| Some(Err(unavailable())))
                .take(40)
                .chain([Some(Err(gone()))]),
        )
        .await;
        sleep(TTL * 2).await;
        assert!(!keeper.is_lost() && keeper.valid_until() == Some(start + TTL));
        keeper.lost().await;
        assert!(keeper.is_lost());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_keeper_renews_no_more() {
        let (script, keeper) = keeper([]).await;
        let clone = keeper.clone();
        drop(keeper);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(script.asked.load(Ordering::Relaxed), 1);
        drop(clone);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(script.asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn revoking_a_lease_that_is_gone_is_no_error() {
        let (script, keeper) = keeper([]).await;
        keeper.revoke().await.unwrap();
        assert!(keeper.is_lost());
        sleep(Duration::from_secs(30)).await;
        assert_eq!(script.asked.load(Ordering::Relaxed), 0);
    }
}
