//! The loop of an ordinary controller: changes become keys, keys are reconciled one at a time each.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::cache::{StateKey, View};
use crate::leader::Leader;
use crate::queue::Queue;

/// When to look at a key again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// Look again after this time even when nothing changes; `None`: when something changes.
    pub requeue_after: Option<Duration>,
}

impl Action {
    /// Nothing to do until something changes.
    pub fn await_change() -> Self {
        Self::default()
    }

    /// Look again after `delay`, or when something changes.
    pub fn requeue(delay: Duration) -> Self {
        Self {
            requeue_after: Some(delay),
        }
    }
}

/// Maps a change to the keys it concerns.
type KeysOf<K> = Box<dyn Fn(&StateKey, &View<'_>) -> Vec<K> + Send + Sync>;

/// A controller that reconciles keys `K`.
///
/// `keys` maps a change to the keys it concerns, with the state to look at; `all` names every key there is, for the
/// first pass and for the slow full pass that repairs what a bug missed.
pub struct Controller<K> {
    name: &'static str,
    interest: Box<dyn Fn(&StateKey) -> bool + Send + Sync>,
    keys: KeysOf<K>,
    all: fn(&View<'_>) -> Vec<K>,
    concurrency: usize,
    backoff: Backoff,
    full_pass: Duration,
}

impl<K: Clone + Eq + Hash + Display + Send + 'static> Controller<K> {
    /// A controller with the defaults: 16 keys at a time, backoff from 100 ms to 60 s, a full pass every 10 minutes.
    pub fn new(
        name: &'static str,
        interest: impl Fn(&StateKey) -> bool + Send + Sync + 'static,
        keys: impl Fn(&StateKey, &View<'_>) -> Vec<K> + Send + Sync + 'static,
        all: fn(&View<'_>) -> Vec<K>,
    ) -> Self {
        Self {
            name,
            interest: Box::new(interest),
            keys: Box::new(keys),
            all,
            concurrency: 16,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(60)),
            full_pass: Duration::from_secs(600),
        }
    }

    /// At most so many keys at a time.
    #[must_use]
    pub fn concurrency(mut self, keys: usize) -> Self {
        self.concurrency = keys.max(1);
        self
    }

    /// The wait after failures of a key.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Reconciles until the leadership is lost or given up; what runs then is finished.
    ///
    /// # Guarantees
    /// One run per key at a time. A key that changed during its run is run again. After an error the key is run again
    /// with backoff. A run that wrote through [`Leader::commit`] is followed by one that sees what it wrote.
    pub async fn run<F, Fut, E>(self, leader: Leader, reconcile: F)
    where
        F: Fn(K) -> Fut,
        Fut: Future<Output = Result<Action, E>>,
        E: std::error::Error + 'static,
    {
        let mut subscription = leader.cache().subscribe(self.interest);
        let mut queue: Queue<K> = Queue::default();
        let mut running = FuturesUnordered::new();
        let mut rng = fastrand::Rng::with_seed(leader.epoch().0.unsigned_abs());
        let mut next_full_pass = Instant::now() + self.full_pass;
        loop {
            while running.len() < self.concurrency
                && let Some(key) = queue.take(Instant::now())
            {
                debug!(controller = self.name, object = %key, "reconciling");
                let work = reconcile(key.clone());
                running.push(async move { (key, work.await) });
            }
            // With no hand free a key that is due waits for one, and not for the time.
            let due = match running.len() < self.concurrency {
                true => queue
                    .next_due()
                    .map_or(next_full_pass, |due| due.min(next_full_pass)),
                false => next_full_pass,
            };
            tokio::select! {
                biased;
                () = leader.lost().cancelled() => break,
                changes = subscription.next() => {
                    let view = leader.cache().view();
                    if changes.resync {
                        (self.all)(&view).into_iter().for_each(|k| queue.add(k));
                    }
                    for change in &changes.keys {
                        (self.keys)(change, &view).into_iter().for_each(|k| queue.add(k));
                    }
                }
                Some((key, result)) = running.next() => {
                    queue.done(&key);
                    match result {
                        Ok(action) => {
                            queue.succeeded(&key);
                            if let Some(delay) = action.requeue_after {
                                queue.add_at(key, Instant::now() + delay);
                            }
                        }
                        Err(error) => {
                            let failures = queue.failed(&key);
                            let delay = self.backoff.delay(failures, &mut rng);
                            warn!(
                                controller = self.name,
                                object = %key,
                                failures,
                                retry_after_ms = delay.as_millis(),
                                error = &error as &dyn std::error::Error,
                                "reconciling failed"
                            );
                            queue.add_at(key, Instant::now() + delay);
                        }
                    }
                }
                () = tokio::time::sleep_until(due) => {
                    if Instant::now() >= next_full_pass {
                        next_full_pass = Instant::now() + self.full_pass;
                        (self.all)(&leader.cache().view()).into_iter().for_each(|k| queue.add(k));
                    }
                }
            }
        }
        while running.next().await.is_some() {}
    }
}
