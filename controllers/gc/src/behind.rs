//! What met a conflict waits until the cache has seen what the store held then, so that it is not decided about again on
//! what is known to be old.

use std::collections::BTreeSet;
use std::time::Duration;

use setpoint_runtime::backoff::Backoff;
use setpoint_store::Revision;
use tokio::time::Instant;

use crate::index::Item;

/// The store counts writes, too, that no cache follows, such as events: what the conflict came from is in a cache that
/// is not behind for so long.
const LIMIT: Duration = Duration::from_secs(1);
/// The pause before a conflict is met again on what the cache has seen. It grows.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(10));

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    waiting: Option<Waiting>,
    /// How many times in a row a conflict was followed by another.
    streak: u32,
    /// Something that waited has come back, and what becomes of it is not known yet.
    returned: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Waiting {
    items: BTreeSet<Item>,
    revision: Revision,
    from: Instant,
    limit: Instant,
}

impl Behind {
    /// Takes in which items met conflicts in a pass, and the newest revision at which any did.
    pub(crate) fn met(
        &mut self,
        items: Vec<Item>,
        newest: Option<Revision>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) {
        let returned = std::mem::take(&mut self.returned);
        let Some(revision) = newest else {
            if returned {
                self.streak = 0;
            }
            return;
        };
        let pause = match self.streak {
            // What it came from is on its way: nothing but that has to be waited for.
            0 => Duration::ZERO,
            streak => AGAIN.delay(streak, rng),
        };
        if returned || self.streak == 0 {
            self.streak = self.streak.saturating_add(1);
        }
        let from = now + pause;
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            items: BTreeSet::new(),
            revision,
            from,
            limit: from + LIMIT,
        });
        waiting.items.extend(items);
        waiting.revision = waiting.revision.max(revision);
        waiting.from = waiting.from.max(from);
    }

    /// Waits until what waits may be looked at again; for ever when nothing does. `seen` waits until the cache has seen a
    /// revision.
    ///
    /// Cancel safe.
    pub(crate) async fn over<F: Future<Output = ()>>(&self, seen: impl FnOnce(Revision) -> F) {
        let Some(waiting) = &self.waiting else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(waiting.from).await;
        // Running out of time is as good.
        let _ = tokio::time::timeout_at(waiting.limit, seen(waiting.revision)).await;
    }

    /// Takes what has waited.
    pub(crate) fn take(&mut self) -> BTreeSet<Item> {
        let waiting = self.waiting.take();
        self.returned = waiting.is_some();
        waiting.map(|w| w.items).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::ObjectKey;

    use super::*;
    use crate::plan::ObjectId;

    fn item(name: &str) -> Item {
        let key = ObjectKey::namespaced("default", name);
        Item::Object(ObjectId::new("configmaps", key))
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_is_looked_at_again_when_the_cache_has_seen_it_or_after_a_limit() {
        let (mut behind, mut rng) = (Behind::default(), fastrand::Rng::with_seed(1));
        let start = Instant::now();
        behind.met(vec![item("a")], Some(Revision(7)), start, &mut rng);
        behind.met(vec![item("b")], Some(Revision(9)), start, &mut rng);
        behind.met(vec![item("c")], Some(Revision(8)), start, &mut rng);
        let arrives = |revision| {
            assert_eq!(revision, Revision(9));
            tokio::time::sleep(Duration::from_millis(300))
        };
        behind.over(arrives).await;
        assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < LIMIT);
        assert_eq!(behind.take(), BTreeSet::from(["a", "b", "c"].map(item)));
        behind.met(Vec::new(), None, Instant::now(), &mut rng);

        let start = Instant::now();
        behind.met(vec![item("a")], Some(Revision(10)), start, &mut rng);
        behind.over(|_| std::future::pending()).await;
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_that_follow_one_another_come_at_growing_distances() {
        let (mut behind, mut rng) = (Behind::default(), fastrand::Rng::with_seed(1));
        let mut distances = Vec::new();
        for _ in 0..12 {
            let start = Instant::now();
            behind.met(vec![item("a")], Some(Revision(7)), start, &mut rng);
            behind.over(|_| std::future::ready(())).await;
            behind.take();
            distances.push(start.elapsed().as_millis());
        }
        assert_eq!(distances[0], 0);
        assert!((15..=20).contains(&distances[1]), "{distances:?}");
        assert!(distances[11] >= 7_500, "{distances:?}");
        // One that is met for the first time after that is over waits for the cache alone.
        behind.met(Vec::new(), None, Instant::now(), &mut rng);
        let start = Instant::now();
        behind.met(vec![item("b")], Some(Revision(8)), start, &mut rng);
        behind.over(|_| std::future::ready(())).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
