//! The work queue of a controller, as a value: no tasks, no timers, time handed in.
//!
//! Keys are de-duplicated. A key that is being worked on is not handed out again; what is added for it meanwhile is
//! handed out when it is done. A key can be asked for later; the earliest time wins.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::Hash;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    queued: FxHashSet<K>,
    running: FxHashSet<K>,
    /// Asked for again while running.
    again: FxHashSet<K>,
    /// The time that counts for each delayed key; entries of the heap that disagree are stale.
    due: FxHashMap<K, Instant>,
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    timer_keys: FxHashMap<u64, K>,
    next_timer: u64,
    failures: FxHashMap<K, u32>,
}

/// Fewer timers than this are not worth tidying.
const FEW_TIMERS: usize = 64;

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            queued: FxHashSet::default(),
            running: FxHashSet::default(),
            again: FxHashSet::default(),
            due: FxHashMap::default(),
            timers: BinaryHeap::new(),
            timer_keys: FxHashMap::default(),
            next_timer: 0,
            failures: FxHashMap::default(),
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Asks for `key` as soon as possible.
    pub fn add(&mut self, key: K) {
        if self.due.remove(&key).is_some() {
            self.tidy();
        }
        if self.running.contains(&key) {
            self.again.insert(key);
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Asks for `key` at `at`, unless it is asked for earlier anyway.
    pub fn add_at(&mut self, key: K, at: Instant) {
        if self.queued.contains(&key)
            || self.again.contains(&key)
            || self.due.get(&key).is_some_and(|due| *due <= at)
        {
            return;
        }
        self.due.insert(key.clone(), at);
        self.timers.push(Reverse((at, self.next_timer)));
        self.timer_keys.insert(self.next_timer, key);
        self.next_timer += 1;
        self.tidy();
    }

    /// Drops the timers that were cancelled when they are more than half: those of far times would stay until then.
    fn tidy(&mut self) {
        if self.timers.len() <= FEW_TIMERS || self.timers.len() <= self.due.len().saturating_mul(2)
        {
            return;
        }
        let Self {
            timers,
            timer_keys,
            due,
            ..
        } = self;
        // One per key: two wishes for the same time are one.
        let mut kept = FxHashSet::default();
        timers.retain(|Reverse((at, id))| {
            timer_keys
                .get(id)
                .is_some_and(|key| due.get(key) == Some(at) && kept.insert(key.clone()))
        });
        let left: FxHashSet<u64> = timers.iter().map(|Reverse((_, id))| *id).collect();
        timer_keys.retain(|id, _| left.contains(id));
    }

    /// Hands out the next key, which then counts as running until [`Queue::done`].
    pub fn take(&mut self, now: Instant) -> Option<K> {
        self.fire(now);
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// The work on `key` has ended.
    pub fn done(&mut self, key: &K) {
        self.running.remove(key);
        if self.again.remove(key) {
            self.add(key.clone());
        }
    }

    /// Counts a failure of `key` and returns how many there were in a row.
    pub fn failed(&mut self, key: &K) -> u32 {
        let count = self.failures.entry(key.clone()).or_insert(0);
        *count = count.saturating_add(1);
        *count
    }

    /// Forgets the failures of `key`.
    pub fn succeeded(&mut self, key: &K) {
        self.failures.remove(key);
    }

    /// When the next delayed key is due.
    pub fn next_due(&mut self) -> Option<Instant> {
        loop {
            let Reverse((at, id)) = self.timers.peek()?;
            let (at, id) = (*at, *id);
            if self
                .timer_keys
                .get(&id)
                .is_some_and(|k| self.due.get(k) == Some(&at))
            {
                return Some(at);
            }
            self.timers.pop();
            self.timer_keys.remove(&id);
        }
    }

    /// How many keys wait to be handed out at once.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// How many keys are being worked on.
    pub fn running_len(&self) -> usize {
        self.running.len()
    }

    fn fire(&mut self, now: Instant) {
        while let Some(at) = self.next_due() {
            if at > now {
                break;
            }
            if let Some(Reverse((_, id))) = self.timers.pop()
                && let Some(key) = self.timer_keys.remove(&id)
            {
                self.add(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(base: Instant, secs: u64) -> Instant {
        base + Duration::from_secs(secs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_handed_out_once_however_often_it_is_added() {
        let now = Instant::now();
        let mut q = Queue::default();
        q.add("a");
        q.add("b");
        q.add("a");
        assert_eq!(
            (q.take(now), q.take(now), q.take(now)),
            (Some("a"), Some("b"), None)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_key_waits_and_comes_again_when_it_was_added_meanwhile() {
        let now = Instant::now();
        let mut q = Queue::default();
        q.add("a");
        assert_eq!(q.take(now), Some("a"));
        q.add("a");
        assert_eq!(q.take(now), None);
        q.done(&"a");
        assert_eq!(q.take(now), Some("a"));
        q.done(&"a");
        assert_eq!(q.take(now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_wins_and_an_immediate_wish_cancels_a_delayed_one() {
        let base = Instant::now();
        let mut q = Queue::default();
        q.add_at("a", at(base, 10));
        q.add_at("a", at(base, 5));
        q.add_at("a", at(base, 20));
        assert_eq!(q.next_due(), Some(at(base, 5)));
        assert_eq!(q.take(at(base, 4)), None);
        assert_eq!(q.take(at(base, 5)), Some("a"));
        q.done(&"a");
        assert_eq!(q.take(at(base, 60)), None, "the other wishes are spent");
        q.add_at("b", at(base, 70));
        q.add("b");
        assert_eq!(q.take(base), Some("b"));
        q.done(&"b");
        assert_eq!(q.next_due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_for_later_by_a_running_key_is_kept() {
        let base = Instant::now();
        let mut q = Queue::default();
        q.add("a");
        assert_eq!(q.take(base), Some("a"));
        q.add_at("a", at(base, 1));
        q.done(&"a");
        assert_eq!(q.take(base), None);
        assert_eq!(q.take(at(base, 1)), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_wishes_for_far_times_do_not_pile_up() {
        let base = Instant::now();
        let mut q = Queue::default();
        let far = |n: u64| at(base, 1_000_000 - n);
        for n in 0..100 {
            q.add_at(n, far(0));
        }
        for n in 0..100_000 {
            // Alternately cancelled and brought forward.
            let key = n % 100;
            if n % 3 == 0 {
                q.add(key);
                assert_eq!(q.take(base), Some(key));
                q.done(&key);
            }
            q.add_at(key, far(n));
            assert!(q.timers.len() <= 200, "{}", q.timers.len());
            assert_eq!(q.timers.len(), q.timer_keys.len());
        }
        for n in 0..100 {
            q.add(n);
            assert_eq!(q.take(base), Some(n));
            q.done(&n);
        }
        assert!(q.timers.len() <= FEW_TIMERS, "{}", q.timers.len());
        for n in 0..100 {
            q.add_at(n, far(n));
        }
        for n in 0..100 {
            q.add(n);
            assert_eq!(q.take(base), Some(n));
            q.done(&n);
        }
        q.add_at(7, at(base, 1));
        assert!(q.timers.len() <= FEW_TIMERS + 1, "{}", q.timers.len());
        assert_eq!(q.timers.len(), q.timer_keys.len());
        assert_eq!(q.take(at(base, 1)), Some(7));
        q.done(&7);
        assert_eq!((q.take(far(0)), q.next_due()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_counted_in_a_row() {
        let mut q = Queue::default();
        assert_eq!((q.failed(&"a"), q.failed(&"a")), (1, 2));
        q.succeeded(&"a");
        assert_eq!(q.failed(&"a"), 1);
    }
}
