//! The node's fence: a second key, under a longer lease than the session's, that is there while containers of pods may run
//! that must never run twice. When it is gone, whoever wants to may run such a pod elsewhere.
//!
//! # Guarantees
//! - Nothing runs under a fence when its lease can have ended: the deadline that containers are killed at ([`deadline`])
//!   follows the lease, and lies before its end, which is counted from before the last renewal was sent.
//! - Pods are asked to stop before that, so that their grace period fits in, as far as there is room for it.
//! - A fence goes on over a restart of the agent and over a new session. Once it has ended it does not come back: the next
//!   one has another revision, and what ran under the former does not run under it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use setpoint_apis::records::{ClaimFence, NodeFence};
use setpoint_apis::{Key, Keyspace, ObjectKey, document};
use setpoint_store::lease::{LeaseKeeper, LeaseState};
use setpoint_store::{Compare, SharedStore, StoreError, Txn, task};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::deadline::{self, Deadline};
use crate::workload::PodRunner;

/// By how much the clocks differ more than before when the machine was suspended: less can come of reading one after the
/// other. Deadlines may be early by that.
const SUSPENDED: Duration = Duration::from_millis(1);

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FenceError {
    /// Another agent's stands under this name.
    #[error(
        "another agent of this name, on host {host}, may still run pods that must never run twice: its fence lease stands"
    )]
    Held { host: String },
    /// The session is over, or the key has changed meanwhile.
    #[error("the node's session or fence changed meanwhile")]
    Moved,
    /// The store did not do it.
    #[error("taking the node's fence")]
    Store(#[from] StoreError),
}

/// What it takes to have a fence.
pub(crate) struct Fences {
    pub(crate) store: SharedStore,
    pub(crate) keyspace: Keyspace,
    pub(crate) node: String,
    pub(crate) ttl: Duration,
    pub(crate) me: NodeFence,
}

/// A fence whose lease is being renewed and over which nobody watches yet.
pub(crate) struct Acquired {
    claim: ClaimFence,
    lease: LeaseKeeper,
    clocks: Clocks,
}

impl Fences {
    /// Takes the fence: creates it, or takes it over where it is our own from before a restart.
    ///
    /// A lease that was granted in vain expires. It is not revoked: a write whose outcome is unknown may have put the key
    /// under it, and the key must not go before what runs under it.
    pub(crate) async fn acquire(self, session: i64) -> Result<Acquired, FenceError> {
        let key = self.keyspace.build(&Key::NodeFence(&self.node));
        let present = self.store.get(&key).await?.0;
        let mut me = self.me;
        let mut ttl = self.ttl;
        let unchanged = match &present {
            None => Compare::absent(key.clone()),
            Some(kv) => {
                let holder: NodeFence = document::decode_value(&kv.value).unwrap_or_default();
                if holder.instance != me.instance {
                    return Err(FenceError::Held {
                        host: holder.hostname,
                    });
                }
                // What runs under it counts on that time, its supervisors too: a shorter one has to wait for the next fence.
                ttl = ttl.max(Duration::from_secs(
                    holder.lease_ttl_seconds.try_into().unwrap_or_default(),
                ));
                Compare::ModRevision(key.clone(), kv.mod_revision)
            }
        };
        let mut clocks = Clocks::default();
        clocks.note();
        let lease = LeaseKeeper::grant(self.store.clone(), ttl).await?;
        me.lease_ttl_seconds = lease.ttl().as_secs().try_into().unwrap_or(i64::MAX);
        let alive = self.keyspace.build(&Key::NodeAlive(&self.node));
        let txn = Txn::new()
            .when(Compare::ModRevision(alive, session))
            .when(unchanged)
            .put_with_lease(key, document::encode(&me), lease.id());
        let done = self.store.txn(txn).await?;
        if !done.succeeded {
            return Err(FenceError::Moved);
        }
        let revision = present.map_or(done.revision.0, |kv| kv.create_revision);
        info!(node = self.node, fence = revision, "fence taken");
        Ok(Acquired {
            claim: ClaimFence {
                revision,
                lease_ttl_seconds: me.lease_ttl_seconds,
            },
            lease,
            clocks,
        })
    }
}

/// A fence that this agent holds. Dropping it leaves the lease to expire, and what runs under it to its deadline.
pub(crate) struct Fence {
    pub(crate) claim: ClaimFence,
    pub(crate) lease: LeaseKeeper,
    watched: Arc<Watched>,
    guard: AbortHandle,
    runner: Arc<dyn PodRunner>,
}

/// A pod that runs under the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guarded {
    pub(crate) key: ObjectKey,
    pub(crate) placement: u32,
    pub(crate) grace: Duration,
}

#[derive(Default)]
struct Watched {
    pods: Mutex<Vec<Guarded>>,
    changed: Notify,
}

impl Fence {
    /// Begins to watch over what runs under the fence. From when this returns pods may be started.
    pub(crate) fn begin(acquired: Acquired, runner: Arc<dyn PodRunner>) -> Self {
        let Acquired {
            claim,
            lease,
            clocks,
        } = acquired;
        let watched = Arc::<Watched>::default();
        let mut guard = Guard {
            revision: claim.revision,
            ttl: lease.ttl(),
            clocks,
            watched: watched.clone(),
            runner: runner.clone(),
        };
        let state = lease.state();
        if let LeaseState::Alive { valid_until } = state.get() {
            guard.extend(valid_until);
        }
        let guard = task::spawn(guard.run(lease.clone())).abort_handle();
        Self {
            claim,
            lease,
            watched,
            guard,
            runner,
        }
    }

    /// Whether it has just been renewed, so that what begins now is not to be stopped at once.
    pub(crate) fn is_fresh(&self) -> bool {
        let ttl = self.lease.ttl();
        let least = deadline::margin(ttl) + deadline::room(ttl);
        self.lease
            .valid_until()
            .is_some_and(|until| Instant::now() + least < until)
    }

    /// Which pods run under it.
    pub(crate) fn watch_over(&self, pods: Vec<Guarded>) {
        let mut present = self.watched.pods.lock();
        if *present != pods {
            *present = pods;
            self.watched.changed.notify_one();
        }
    }

    /// Ends the fence. Nothing runs under it any more.
    ///
    /// # Errors
    /// As [`LeaseKeeper::revoke`]; the lease expires all the same.
    pub(crate) async fn end(self) -> Result<(), StoreError> {
        self.guard.abort();
        self.runner.forget_fence(self.claim.revision);
        self.lease.revoke().await
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.guard.abort();
    }
}

/// Turns renewals into deadlines, and has pods stopped while there is time.
struct Guard {
    revision: i64,
    ttl: Duration,
    clocks: Clocks,
    watched: Arc<Watched>,
    runner: Arc<dyn PodRunner>,
}

impl Guard {
    async fn run(mut self, lease: LeaseKeeper) {
        let state = lease.state();
        // Without this the guard would keep the lease alive after its owner is gone.
        drop(lease);
        let mut seen = state.get();
        let mut told = BTreeSet::new();
        loop {
            self.clocks.note();
            let LeaseState::Alive { valid_until } = seen else {
                warn!(
                    fence = self.revision,
                    "the node's fence is lost: killing what runs under it"
                );
                for pod in &*self.watched.pods.lock() {
                    self.runner
                        .stop_within(&pod.key, pod.placement, Duration::ZERO);
                }
                return;
            };
            let (due, next) = due(
                &self.watched.pods.lock(),
                &told,
                self.ttl,
                valid_until,
                Instant::now(),
            );
            for (pod, within) in due {
                warn!(
                    object = %pod.key,
                    fence = self.revision,
                    ?within,
                    "the node's fence is not renewed: stopping a pod that must never run twice"
                );
                self.runner.stop_within(&pod.key, pod.placement, within);
                told.insert((pod.key, pod.placement));
            }
            tokio::select! {
                biased;
                next = state.wait_for(|state| *state != seen) => {
                    seen = next;
                    if let LeaseState::Alive { valid_until } = next {
                        told.clear();
                        self.extend(valid_until);
                    }
                }
                () = self.watched.changed.notified() => {}
                () = sleep_until(next.unwrap_or(valid_until)), if next.is_some() => {}
            }
        }
    }

    fn extend(&mut self, valid_until: Instant) {
        let margin = deadline::margin(self.ttl);
        let Some(boot) = self.clocks.boot_of(valid_until, self.ttl) else {
            return;
        };
        let deadline = Deadline {
            at: valid_until - margin,
            boot: boot.saturating_sub(margin),
        };
        self.runner.extend(self.revision, deadline);
    }
}

/// Which pods are to be stopped now, and within what time; and when to look again. A pod begins to stop as late as its
/// grace period, or what there is room for, lets it.
fn due(
    pods: &[Guarded],
    told: &BTreeSet<(ObjectKey, u32)>,
    ttl: Duration,
    valid_until: Instant,
    now: Instant,
) -> (Vec<(Guarded, Duration)>, Option<Instant>) {
    let end = valid_until - deadline::margin(ttl);
    let mut stop = Vec::new();
    let mut next: Option<Instant> = None;
    for pod in pods {
        if told.contains(&(pod.key.clone(), pod.placement)) {
            continue;
        }
        let at = end - pod.grace.min(deadline::room(ttl));
        if now >= at {
            stop.push((
                pod.clone(),
                end.saturating_duration_since(now).min(pod.grace),
            ));
        } else {
            next = Some(next.map_or(at, |next| next.min(at)));
        }
    }
    (stop, next)
}

/// Moments on tokio's clock, which stands still while the machine is suspended, with the same moments on `CLOCK_BOOTTIME`.
///
/// The clocks run alike but for suspends. So a moment says nothing that the one before it does not, unless the machine was
/// suspended in between, and only then it is kept; and those before the last renewal are of no use to the next one. What is
/// kept is thus the last moment before the renewal that comes next, whenever that is sent and however often the clocks are
/// looked at meanwhile, and as many more as there were suspends since.
#[derive(Default)]
struct Clocks {
    moments: Vec<(Instant, Duration)>,
}

impl Clocks {
    fn note(&mut self) {
        // In this order: what passes in between makes deadlines earlier.
        let boot = deadline::boot_time();
        self.add(Instant::now(), boot);
    }

    fn add(&mut self, at: Instant, boot: Duration) {
        let known = self.moments.last().is_some_and(|(before, then)| {
            boot <= *then + at.saturating_duration_since(*before) + SUSPENDED
        });
        if !known {
            self.moments.push((at, boot));
        }
    }

    /// When a lease ends at the earliest that was renewed with a request that was sent `ttl` before `valid_until`, or later.
    /// The last moment before it was sent counts: had the machine been suspended since, the lease has gone on. Requests that
    /// were sent before this one are not asked for any more.
    fn boot_of(&mut self, valid_until: Instant, ttl: Duration) -> Option<Duration> {
        let sent = valid_until - ttl;
        let after = self.moments.partition_point(|(at, _)| *at <= sent);
        self.moments.drain(..after.saturating_sub(1));
        let (at, boot) = self.moments.first()?;
        Some(*boot + valid_until.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn pod(name: &str, grace: u64) -> Guarded {
        Guarded {
            key: ObjectKey::namespaced("default", name),
            placement: 1,
            grace: Duration::from_secs(grace),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_that_is_taken_over_keeps_its_time() {
        let store = setpoint_store::model::ModelStore::default();
        let keyspace = Keyspace::default();
        let fences = |ttl| Fences {
            store: Arc::new(store.clone()),
            keyspace: keyspace.clone(),
            node: "n1".to_owned(),
            ttl,
            me: NodeFence {
                instance: "i".to_owned(),
                lease_ttl_seconds: ttl.as_secs().cast_signed(),
                ..NodeFence::default()
            },
        };
        let alive = Txn::new().put(keyspace.build(&Key::NodeAlive("n1")), "");
        let shared: SharedStore = Arc::new(store.clone());
        let session = shared.txn(alive).await.unwrap().revision.0;
        let first = fences(TTL).acquire(session).await.unwrap();
        // The agent was restarted with a shorter time. What runs under the fence counts on the longer one.
        let second = fences(TTL / 6).acquire(session).await.unwrap();
        assert_eq!(second.claim, first.claim);
        assert_eq!(second.lease.ttl(), TTL);
        let (kv, _) = shared
            .get(&keyspace.build(&Key::NodeFence("n1")))
            .await
            .unwrap();
        let stored: NodeFence = document::decode_value(&kv.unwrap().value).unwrap();
        assert_eq!(stored.lease_ttl_seconds, 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_stopped_as_late_as_its_grace_period_lets_it() {
        let renewed = Instant::now();
        let until = renewed + TTL;
        let pods = [pod("quick", 2), pod("slow", 600)];
        let at = |seconds| {
            let now = renewed + Duration::from_secs(seconds);
            let (stop, next) = due(&pods, &BTreeSet::new(), TTL, until, now);
            let stop: Vec<_> = stop
                .into_iter()
                .map(|(pod, within)| (pod.key.name.to_string(), within.as_secs()))
                .collect();
            (stop, next.map(|next| (next - renewed).as_secs()))
        };
        let both = |quick, slow| vec![("quick".to_owned(), quick), ("slow".to_owned(), slow)];
        assert_eq!(at(0), (vec![], Some(15)));
        assert_eq!(at(15), (vec![("slow".to_owned(), 12)], Some(25)));
        assert_eq!(at(25), (both(2, 2), None));
        assert_eq!(at(26), (both(1, 1), None));
        assert_eq!(at(99), (both(0, 0), None));
        let told = pods.iter().map(|p| (p.key.clone(), 1)).collect();
        assert_eq!(due(&pods, &told, TTL, until, until), (vec![], None));
    }

    #[tokio::test(start_paused = true)]
    async fn time_for_which_the_machine_was_suspended_counts() {
        let start = Instant::now();
        let seconds = Duration::from_secs;
        let mut clocks = Clocks::default();
        assert_eq!(clocks.boot_of(start + TTL, TTL), None);
        clocks.add(start, seconds(1000));
        // Sent 10 s after the moment, without a suspend or with one that nobody has noticed yet.
        assert_eq!(
            clocks.boot_of(start + seconds(40), TTL),
            Some(seconds(1040))
        );
        // The machine was suspended for 100 s, and this is noticed after the request was sent: it may have been after it.
        clocks.add(start + seconds(11), seconds(1111));
        assert_eq!(
            clocks.boot_of(start + seconds(40), TTL),
            Some(seconds(1040))
        );
        // The next request is sent after it.
        assert_eq!(
            clocks.boot_of(start + seconds(50), TTL),
            Some(seconds(1150))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn looks_at_the_clocks_never_push_out_the_one_before_a_renewal() {
        let start = Instant::now();
        let (seconds, millis) = (Duration::from_secs, Duration::from_millis);
        let mut clocks = Clocks::default();
        clocks.add(start, seconds(1000));
        // A renewal is sent at 10 s. Before its answer is there the machine is suspended, for 100 s, and pods come and go,
        // each of which is a look at the clocks.
        let sent = start + seconds(10);
        for look in 1..=100 {
            clocks.add(sent + millis(10 * look), seconds(1110) + millis(10 * look));
        }
        assert_eq!(clocks.boot_of(sent + TTL, TTL), Some(seconds(1040)));
        // The next one is sent after the last look.
        let sent = start + seconds(20);
        assert_eq!(clocks.boot_of(sent + TTL, TTL), Some(seconds(1150)));
        assert_eq!(clocks.moments.len(), 1);
    }

    /// Against all moments that ever were.
    #[tokio::test(start_paused = true)]
    async fn deadlines_are_those_of_somebody_who_forgets_nothing() {
        const LATE: Duration = Duration::from_micros(100);
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut clocks = Clocks::default();
            let mut all = Vec::new();
            let (mut now, mut boot) = (Instant::now(), Duration::from_secs(1000));
            let mut sent = now;
            for _ in 0..200 {
                let passed = Duration::from_millis(rng.u64(..500));
                now += passed;
                boot += passed;
                match rng.u32(..20) {
                    0 => boot += Duration::from_millis(rng.u64(2..100_000)),
                    1..4 if !all.is_empty() => {
                        // An answer. Requests are sent in order.
                        sent += (now - sent).mul_f64(rng.f64());
                        let until = sent + TTL;
                        let (at, then): &(Instant, Duration) =
                            all.iter().rfind(|(at, _)| *at <= sent).unwrap_or(&all[0]);
                        let exact = *then + (until - *at);
                        let found = clocks.boot_of(until, TTL).unwrap();
                        assert!(
                            found <= exact && exact <= found + SUSPENDED + LATE,
                            "seed {seed}: {found:?} for {exact:?}"
                        );
                    }
                    _ => {
                        // The second clock is read a little later.
                        let late = LATE.mul_f64(rng.f64());
                        now += late;
                        clocks.add(now, boot);
                        boot += late;
                        all.push((now, boot));
                    }
                }
            }
        }
    }
}
