//! The end of another process's lease, to the tenth of a second.
//!
//! etcd looks for expired leases every 500 ms (`lessor.runLoop` in its `server/lease/lessor.go`), so the keys of a killed
//! leader stay up to half a second longer than its lease. A standby need not wait for that: it may revoke a lease that
//! has expired, which deletes the keys at once. It costs the standby a question about every second, which the etcd
//! leader answers from memory, without a Raft round.
//!
//! Revoking too early would depose a living leader, and no more: its writes would be fenced. It does not happen, because
//! etcd gives the remaining time in whole seconds, rounded towards zero, and a lease that was seen below one second, and
//! a second later is seen below one second again, has not been renewed in between (a renewal gives at least two).

use std::time::Duration;

use setpoint_store::{LeaseId, Store, StoreError};
use tokio::time::sleep;
use tracing::{debug, info};

/// The unit in which etcd tells the remaining time.
const SECOND: Duration = Duration::from_secs(1);

/// How often to ask while the remaining time is between one and two seconds. Half of the inaccuracy of the result.
const CLOSE: Duration = Duration::from_millis(50);

/// For clocks that do not run alike: the second is counted here, the lease by etcd.
const SPARE: Duration = Duration::from_millis(20);

/// Leases for a shorter time are left to etcd: below this one, "not renewed in between" could not be told.
const SHORTEST: Duration = Duration::from_secs(2);

/// Ends when the lease has gone; revokes it when it has expired and etcd has not noticed yet. Never ends when the store
/// cannot tell how long a lease has left, or the lease is too short for this.
///
/// # Cancel safety
/// Can be dropped at any time.
pub(super) async fn ended(store: &dyn Store, lease: LeaseId) {
    // Seen below one second, a second ago.
    let mut late = false;
    loop {
        let left = match store.lease_time_left(lease).await {
            Ok(Some(left)) => left,
            Ok(None) => return std::future::pending().await,
            Err(StoreError::LeaseNotFound { .. }) => return,
            Err(error) => {
                debug!(
                    lease = lease.0,
                    error = &error as &dyn std::error::Error,
                    "how long the leader's lease has left is not known"
                );
                late = false;
                sleep(SECOND).await;
                continue;
            }
        };
        if left.granted < SHORTEST {
            return std::future::pending().await;
        }
        if !left.remaining.is_zero() {
            late = false;
            sleep(pause(left.remaining)).await;
        } else if late {
            return revoke(store, lease).await;
        } else {
            late = true;
            sleep(SECOND + SPARE).await;
        }
    }
}

/// Until the earliest time at which the lease can be seen below one second.
fn pause(remaining: Duration) -> Duration {
    remaining.saturating_sub(SECOND).max(CLOSE)
}

async fn revoke(store: &dyn Store, lease: LeaseId) {
    match store.lease_revoke(lease).await {
        Ok(()) => info!(
            lease = lease.0,
            "revoked the lease of a leader that has gone"
        ),
        // Somebody else was faster.
        Err(StoreError::LeaseNotFound { .. }) => {}
        Err(error) => {
            debug!(
                lease = lease.0,
                error = &error as &dyn std::error::Error,
                "an expired lease could not be revoked; etcd will do it"
            );
            sleep(SECOND).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::stream::BoxStream;
    use parking_lot::Mutex;
    use setpoint_store::{
        KeyValue, LeaseTime, Page, RangeRequest, Revision, ServerStatus, Txn, TxnResult,
        WatchBatch, WatchRequest,
    };
    use tokio::time::Instant;

    use super::*;
    use futures::future::BoxFuture;

    const LEASE: LeaseId = LeaseId(7);
    const TTL: Duration = Duration::from_secs(3);

    /// One lease, which nobody but a client revokes.
    struct Lazy {
        expires: Mutex<Instant>,
        revoked: Mutex<Option<Instant>>,
        asked: Mutex<u32>,
        tells: bool,
    }

    impl Lazy {
        fn new(tells: bool) -> Arc<Self> {
            Arc::new(Self {
                expires: Mutex::new(Instant::now() + TTL),
                revoked: Mutex::default(),
                asked: Mutex::default(),
                tells,
            })
        }
    }

    impl Store for Lazy {
        fn get(&self, _: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
            unreachable!("this is about leases only")
        }
        fn range(&self, _: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
            unreachable!("this is about leases only")
        }
        fn txn(&self, _: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
            unreachable!("this is about leases only")
        }
        fn watch(
            &self,
            _: WatchRequest,
        ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>>
        {
            unreachable!("this is about leases only")
        }
        fn lease_grant(
            &self,
            _: Duration,
        ) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
            unreachable!("this is about the lease of another")
        }
        fn lease_renew(&self, _: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
            unreachable!("this is about the lease of another")
        }
        fn lease_revoke(&self, _: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
            *self.revoked.lock() = Some(Instant::now());
            Box::pin(std::future::ready(Ok(())))
        }
        fn lease_time_left(
            &self,
            _: LeaseId,
        ) -> BoxFuture<'_, Result<Option<LeaseTime>, StoreError>> {
            *self.asked.lock() += 1;
            let left = self
                .expires
                .lock()
                .saturating_duration_since(Instant::now());
            let answer = self.tells.then_some(LeaseTime {
                granted: TTL,
                remaining: Duration::from_secs(left.as_secs()),
            });
            Box::pin(std::future::ready(Ok(answer)))
        }
        fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
            unreachable!("this is about leases only")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_revoked_soon_after_it_has_expired_and_never_before() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let store = Lazy::new(true);
            let renewed = async {
                // It may be renewed at the last moment, too.
                for _ in 0..rng.u32(..4) {
                    sleep(TTL.mul_f64(rng.f64())).await;
                    *store.expires.lock() = Instant::now() + TTL;
                }
            };
            tokio::join!(renewed, async {
                sleep(Duration::from_millis(300)).await;
                ended(&*store, LEASE).await;
            });
            let revoked = store.revoked.lock().unwrap();
            let late = revoked.checked_duration_since(*store.expires.lock());
            assert!(
                late.is_some_and(|late| late <= CLOSE + SPARE * 2),
                "{late:?} after the end"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_kept_alive_costs_about_a_question_each_second() {
        let store = Lazy::new(true);
        let renewed = async {
            for _ in 0..100 {
                *store.expires.lock() = Instant::now() + TTL;
                sleep(TTL / 3).await;
            }
        };
        tokio::select! {
            biased;
            () = ended(&*store, LEASE) => panic!("a living leader was deposed"),
            () = renewed => {}
        }
        let asked = *store.asked.lock();
        assert!((90..=250).contains(&asked), "{asked}");
        assert_eq!(*store.revoked.lock(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_cannot_tell_is_asked_once() {
        let store = Lazy::new(false);
        let waited = tokio::time::timeout(TTL * 10, ended(&*store, LEASE)).await;
        assert!(waited.is_err());
        assert_eq!((*store.asked.lock(), *store.revoked.lock()), (1, None));
    }
}
