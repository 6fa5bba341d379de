//! One lease at a time for all events of a writer, replaced before it is old: no keep-alive, no lease per event.

use std::time::Duration;

use setpoint_store::{LeaseId, SharedStore, StoreError};
use tokio::time::Instant;

/// How long a lease lives: events that were put last before the rotation stay for an hour.
const TTL: Duration = Duration::from_secs(70 * 60);
/// How long a lease takes new events.
const ROTATE: Duration = Duration::from_secs(10 * 60);

pub(super) struct RotatingLease {
    store: SharedStore,
    current: Option<(LeaseId, Instant)>,
}

impl RotatingLease {
    pub(super) fn new(store: SharedStore) -> Self {
        Self {
            store,
            current: None,
        }
    }

    /// A lease that lives for an hour at least. The one before is left to expire with its events.
    pub(super) async fn current(&mut self) -> Result<LeaseId, StoreError> {
        if let Some((lease, since)) = self.current
            && since.elapsed() < ROTATE
        {
            return Ok(lease);
        }
        let since = Instant::now();
        let (lease, _) = self.store.lease_grant(TTL).await?;
        self.current = Some((lease, since));
        Ok(lease)
    }

    /// The lease is gone: somebody revoked it, or etcd was restored from a backup.
    pub(super) fn forget(&mut self) {
        self.current = None;
    }
}
