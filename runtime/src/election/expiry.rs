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
