//! Leases: who holds which keys, and until when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::error::ModelError;

/// etcd's longest time to live, in seconds.
const MAX_TTL: i64 = 9_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// Seconds.
    pub(super) ttl: i64,
    pub(super) expiry: Duration,
    pub(super) keys: BTreeSet<Bytes>,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: BTreeMap<i64, Lease>,
    by_expiry: BTreeSet<(Duration, i64)>,
}

impl Leases {
    pub(super) fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// In the order in which they expire, as etcd lists them.
    pub(super) fn ids(&self) -> impl Iterator<Item = i64> {
        self.by_expiry.iter().map(|(_, id)| *id)
    }

    /// The lease that expires first, and when.
    pub(super) fn first(&self) -> Option<(Duration, i64)> {
        self.by_expiry.first().copied()
    }

    /// What a grant would give, in seconds.
    pub(super) fn check_grant(&self, id: i64, ttl: i64, min_ttl: i64) -> Result<i64, ModelError> {
        if ttl > MAX_TTL {
            return Err(ModelError::LeaseTtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(ModelError::LeaseExists);
        }
        Ok(ttl.max(min_ttl))
    }

    pub(super) fn insert(&mut self, id: i64, ttl: i64, expiry: Duration) {
        self.by_expiry.insert((expiry, id));
        let lease = Lease {
            ttl,
            expiry,
            keys: BTreeSet::new(),
        };
        if let Some(before) = self.leases.insert(id, lease) {
            self.by_expiry.remove(&(before.expiry, id));
        }
    }

    /// Sets when it expires. Whether there is one.
    pub(super) fn renew(&mut self, id: i64, expiry: Duration) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        self.by_expiry.remove(&(lease.expiry, id));
        lease.expiry = expiry;
        self.by_expiry.insert((expiry, id))
    }

    /// Takes it out; its keys are still there.
    pub(super) fn remove(&mut self, id: i64) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.by_expiry.remove(&(lease.expiry, id));
        Some(lease)
    }

    /// Moves a key from one lease to another; 0 is none.
    pub(super) fn reattach(&mut self, key: &Bytes, from: i64, to: i64) {
        if from == to {
            return;
        }
        if let Some(lease) = self.leases.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&to) {
            lease.keys.insert(key.clone());
        }
    }
}

/// When a lease that is over at `expiry` is noticed: leases are looked at from time to time.
pub(super) fn noticed(expiry: Duration, sweep: Duration) -> Duration {
    let (expiry, sweep) = (expiry.as_nanos(), sweep.as_nanos());
    if sweep == 0 {
        return nanos(expiry);
    }
    nanos(expiry.div_ceil(sweep).saturating_mul(sweep))
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
