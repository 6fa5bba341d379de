//! What is remembered about an object between its passes: when it was looked at and reported on last, and what went
//! wrong. A new leader begins without.

use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;
use tokio::time::Instant;

/// At most one status per object in this time: an agent's status of each of a thousand pods is no reason to write a
/// thousand statuses of their owner.
pub const STATUS_INTERVAL: Duration = Duration::from_millis(30);

/// Passes over an object with many pods keep a distance of this much per thousand pods.
const PASS_INTERVAL_PER_THOUSAND: Duration = Duration::from_millis(3);

/// About one object.
#[derive(Debug, Default)]
pub struct Memo<T> {
    last_status: Option<Instant>,
    last_pass: Option<(Instant, usize)>,
    /// What else the controller remembers.
    pub notes: T,
}

impl<T> Memo<T> {
    /// How long the next pass waits, when it comes too soon after one that saw many pods.
    pub fn too_soon(&self, now: Instant) -> Option<Duration> {
        let (at, pods) = self.last_pass?;
        let distance = PASS_INTERVAL_PER_THOUSAND * u32::try_from(pods / 1000).unwrap_or(u32::MAX);
        distance
            .checked_sub(now.saturating_duration_since(at))
            .filter(|d| !d.is_zero())
    }

    /// A pass begins that saw so many pods.
    pub fn pass(&mut self, now: Instant, pods: usize) {
        self.last_pass = Some((now, pods));
    }

    /// How long the next status waits; when it need not, it counts as written.
    pub fn status_too_soon(&mut self, now: Instant) -> Option<Duration> {
        let wait = self
            .last_status
            .and_then(|at| STATUS_INTERVAL.checked_sub(now.saturating_duration_since(at)));
        match wait.filter(|d| !d.is_zero()) {
            Some(wait) => Some(wait),
            None => {
                self.last_status = Some(now);
                None
            }
        }
    }
}

/// What is remembered about all objects.
#[derive(Debug)]
pub struct Memory<T>(Mutex<FxHashMap<ObjectKey, Memo<T>>>);

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> Memory<T>
where
    ObjectKey: Hash,
{
    /// Looks at or changes what is remembered about an object.
    pub fn with<R>(&self, key: &ObjectKey, f: impl FnOnce(&mut Memo<T>) -> R) -> R {
        let mut all = self.0.lock();
        match all.get_mut(key) {
            Some(memo) => f(memo),
            None => f(all.entry(key.clone()).or_default()),
        }
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn statuses_keep_their_distance() {
        let mut memo = Memo::<()>::default();
        let start = Instant::now();
        assert_eq!(memo.status_too_soon(start), None);
        assert_eq!(
            memo.status_too_soon(start + Duration::from_millis(10)),
            Some(Duration::from_millis(20))
        );
        assert_eq!(
            memo.status_too_soon(start + Duration::from_millis(30)),
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_big_objects_wait_between_passes() {
        let mut memo = Memo::<()>::default();
        let start = Instant::now();
        memo.pass(start, 999);
        assert_eq!(memo.too_soon(start), None);
        memo.pass(start, 10_000);
        assert_eq!(
            memo.too_soon(start + Duration::from_millis(10)),
            Some(Duration::from_millis(20))
        );
        assert_eq!(memo.too_soon(start + Duration::from_millis(30)), None);
    }
}
