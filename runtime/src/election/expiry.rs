//! The end of another process's lease, to the tenth of a second.
//!
//! etcd looks for expired leases every 500 ms (`lessor.runLoop` in its `server/lease/lessor.go`), so the keys of a killed
//! leader stay up to half a second longer than its lease. A standby need not wait for that: it may revoke a lease that
//! has expired, which deletes the keys at once. It costs the standby a question about every second, which the etcd
//! leader answers from memory, without a Raft round.
//!
//! Revoking too early would depose a living leader, and no more: its writes would be fenced. etcd gives the remaining time
//! in whole seconds, rounded towards zero. A lease that was seen below one second, and a second later is seen below one
//! second again, has either expired or been renewed in between, and a renewal is seen below one second only when all but
//! one second of the lease's time has passed since. So two looks tell that a lease has expired when at least one second
//! lies between them, and less than the lease's time without one. Both are counted here, from before the first question
//! is sent to after the last answer has come, since the looks themselves lie anywhere in between. Answers that take longer
//! prove nothing, and the second look counts as a first one; where etcd always answers as slowly as that, it ends the lease
//! itself.
//!
//! What this cannot see: a machine that is suspended between the looks, and an etcd whose new leader gives all leases
//! their full time again between the last answer and the revocation. Both depose, as above.

use std::time::Duration;

use setpoint_store::{LeaseId, Store, StoreError};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

/// The unit in which etcd tells the remaining time.
const SECOND: Duration = Duration::from_secs(1);

/// How often to ask while the remaining time is between one and two seconds. Half of the inaccuracy of the result.
const CLOSE: Duration = Duration::from_millis(50);

/// For clocks that do not run alike: the second is counted here, the lease by etcd.
const SPARE: Duration = Duration::from_millis(20);

/// Leases for a shorter time are left to etcd: with less than two seconds between a renewal and the last second, two looks
/// that lie a second apart would tell nothing.
const SHORTEST: Duration = Duration::from_secs(3);

/// Ends when the lease has gone; revokes it when it has expired and etcd has not noticed yet. Never ends when the store
/// cannot tell how long a lease has left, or the lease is too short for this.
///
/// # Cancel safety
/// Can be dropped at any time.
pub(super) async fn ended(store: &dyn Store, lease: LeaseId) {
    // When the question was sent whose answer said: below one second.
    let mut first: Option<Instant> = None;
    loop {
        let asked = Instant::now();
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
                first = None;
                sleep(SECOND).await;
                continue;
            }
        };
        if left.granted < SHORTEST {
            return std::future::pending().await;
        }
        if !left.remaining.is_zero() {
            first = None;
            sleep(pause(left.remaining)).await;
        } else if first.is_some_and(|first| first.elapsed() < conclusive(left.granted)) {
            return revoke(store, lease).await;
        } else {
            first = Some(asked);
            sleep(SECOND + SPARE).await;
        }
    }
}

/// How long two looks may take, together with what lies between them, for a renewal in between to show in the second.
fn conclusive(granted: Duration) -> Duration {
    granted.saturating_sub(SECOND + SPARE)
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
        granted: Duration,
        /// How long a question is under way, and its answer.
        delays: Mutex<Box<dyn FnMut() -> (Duration, Duration) + Send>>,
        expires: Mutex<Instant>,
        revoked: Mutex<Option<Instant>>,
        asked: Mutex<u32>,
        tells: bool,
    }

    impl Lazy {
        fn new(tells: bool) -> Arc<Self> {
            Arc::new(Self {
                granted: TTL,
                delays: Mutex::new(Box::new(Default::default)),
                expires: Mutex::new(Instant::now() + TTL),
                revoked: Mutex::default(),
                asked: Mutex::default(),
                tells,
            })
        }

        fn slow(
            granted: Duration,
            delays: impl FnMut() -> (Duration, Duration) + Send + 'static,
        ) -> Arc<Self> {
            Arc::new(Self {
                granted,
                delays: Mutex::new(Box::new(delays)),
                expires: Mutex::new(Instant::now() + granted),
                revoked: Mutex::default(),
                asked: Mutex::default(),
                tells: true,
            })
        }

        fn renew(&self) {
            *self.expires.lock() = Instant::now() + self.granted;
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
            Box::pin(async move {
                *self.asked.lock() += 1;
                let (there, back) = (self.delays.lock())();
                sleep(there).await;
                let left = self
                    .expires
                    .lock()
                    .saturating_duration_since(Instant::now());
                let answer = self.tells.then_some(LeaseTime {
                    granted: self.granted,
                    remaining: Duration::from_secs(left.as_secs()),
                });
                sleep(back).await;
                Ok(answer)
            })
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
                    store.renew();
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
                store.renew();
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
    async fn a_living_leader_keeps_its_lease_however_slow_the_looks_are() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let granted = Duration::from_secs(rng.u64(2..6));
            // It renews in its last second, each time, so that looks find what a dead leader's lease shows as well.
            let interval = granted - Duration::from_millis(rng.u64(1..1000));
            let longest = interval.mul_f64(rng.f64());
            let store = Lazy::slow(granted, move || {
                (longest.mul_f64(rng.f64()), longest.mul_f64(rng.f64()))
            });
            let renewed = async {
                for _ in 0..100 {
                    store.renew();
                    sleep(interval).await;
                }
            };
            tokio::select! {
                biased;
                () = ended(&*store, LEASE) => panic!("seed {seed}: a living leader was deposed"),
                () = renewed => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn looks_that_are_slow_once_delay_the_end_of_a_dead_leaders_lease_and_no_more() {
        let mut slow = [Duration::from_secs(4), Duration::from_secs(3)].into_iter();
        let store = Lazy::slow(TTL, move || {
            (Duration::ZERO, slow.next().unwrap_or_default())
        });
        ended(&*store, LEASE).await;
        // The first says 3 s. The second says below one, 3 s late, so that together with the third it proves nothing; the
        // third and the fourth do.
        assert_eq!(*store.asked.lock(), 4);
        assert!(store.revoked.lock().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_cannot_tell_is_asked_once() {
        let store = Lazy::new(false);
        let waited = tokio::time::timeout(TTL * 10, ended(&*store, LEASE)).await;
        assert!(waited.is_err());
        assert_eq!((*store.asked.lock(), *store.revoked.lock()), (1, None));
    }
}
