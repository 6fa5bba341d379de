//! Garbage collection: what nobody owns any more goes.
//!
//! # Promise
//! - An object whose owners are all gone is deleted. An owner is matched by uid: one of the same name and another uid is
//!   another object. Only what is certain counts: an owner whose document does not parse exists, one of a kind that is
//!   not known here exists, and nothing is decided on a view older than the election.
//! - The delete holds in the store only while object and owners are as they were seen.
//! - A deletion record says otherwise: `Orphan` lets dependents go, `Foreground` deletes them before their owner, which
//!   waits for those whose reference says `blockOwnerDeletion`. Whoever has another owner that stays loses the one that
//!   goes, and objects that own one another in a circle do not wait for one another.
//! - A status whose object is gone is deleted, those of pods and volume claims (the scheduler's) and nodes
//!   (node-lifecycle's) excepted.
//! - What a deleted namespace leaves behind, and what comes within a minute after it went, is deleted. Any other object
//!   whose namespace is not there has ten minutes of its own for that to come, whether it was ever there or not.
//! - A full pass every ten minutes finds what was missed, and says so when it finds something.
//!
//! A pass takes everything that changed since the last one, decides (`decide.rs`) and commits in one go, so that ten
//! thousand pods of a deleted Deployment are a few batches.
//!
//! The objects may be split among processes: [`Sharded`].

mod behind;
mod decide;
mod homes;
mod index;
mod kinds;
mod observe;
mod plan;
mod seats;
mod slots;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_runtime::backoff::Backoff;
use setpoint_runtime::events::{EventRef, Recorder};
use setpoint_runtime::{Cache, CacheBuilder, Clock, Leader, Shards, StateKey};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::behind::Behind;
use crate::decide::decide;
use crate::index::{Index, Item, Scene};
use crate::kinds::KindEntry;
pub use crate::kinds::Kinds;
use crate::plan::{ObjectId, Plan};
use crate::seats::{News, Seat, Seats};

/// News of elections that wait for the end of a pass: what all shards have to say. Whoever has more waits.
const MOST_NEWS: usize = 128;
const FULL_PASS: Duration = Duration::from_secs(600);
/// What could not be written for want of a leadership is looked at again after this.
const SOON: Duration = Duration::from_millis(20);
/// Things whose facts are in memory at a time. There can be tens of thousands to look at, and of most nothing follows.
const AT_A_TIME: usize = 256;

/// Names the kinds that are looked after to a cache: all of Setpoint's own.
#[must_use]
pub fn register(builder: CacheBuilder) -> CacheBuilder {
    Kinds::builtin().register(builder)
}

/// Collects Setpoint's own kinds until the leadership is lost or given up.
pub async fn run(leader: Leader, clock: Clock, recorder: Recorder) {
    run_with(Kinds::builtin(), leader, clock, recorder).await;
}

/// Collects the given kinds, which must be registered with the cache, until the leadership is lost or given up.
///
/// # Cancel safety
/// What was handed to the store is carried out; everything else is decided afresh by the next leader.
pub async fn run_with(kinds: Kinds, leader: Leader, clock: Clock, recorder: Recorder) {
    let seed = leader.epoch().0.unsigned_abs();
    let cache = leader.cache().clone();
    let collector = Collector::new(kinds, None, cache, clock, recorder, seed);
    let (team, collecting) = Sharded::of(collector);
    futures::join!(async move { team.lead(leader).await }, collecting);
}

/// Collects in shards, with one collector per process: it serves all shards that the process leads, so that who depends
/// on whom is kept once. Cheap to clone.
///
/// What belongs together is in one shard: an object, its status and its deletion record. Everything that is
/// written about it carries the epoch of that shard, and of no other.
#[derive(Clone)]
pub struct Sharded {
    news: mpsc::Sender<News>,
}

impl Sharded {
    /// The handle for the elections, and the work: a future that is to be run beside them. It ends when all handles are
    /// gone and all leaderships over. `shards` is how the elections split the work, `seed` spreads retries.
    pub fn new(
        shards: Shards,
        cache: Cache,
        clock: Clock,
        recorder: Recorder,
        seed: u64,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let kinds = Kinds::builtin();
        let collector = Collector::new(kinds, Some(shards), cache, clock, recorder, seed);
        Self::of(collector)
    }

    fn of(collector: Collector) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (news, told) = mpsc::channel(MOST_NEWS);
        (Self { news }, collector.run(told))
    }

    /// Has the shard of this leader collected, until its leadership is lost or given up and nothing is under way under it.
    pub async fn lead(&self, leader: Leader) {
        let lost = leader.lost().clone();
        let (_held, left) = oneshot::channel();
        let seat = Seat { leader, _held };
        if self.news.send(News::Take(seat)).await.is_err() {
            return;
        }
        lost.cancelled().await;
        if self.news.send(News::Leave).await.is_ok() {
            // Nothing is ever sent: the seat is dropped.
            let _ = left.await;
        }
    }
}

struct Collector {
    kinds: Kinds,
    seats: Seats,
    cache: Cache,
    clock: Clock,
    recorder: Recorder,
    index: Index,
    /// To look at in the next pass.
    items: BTreeSet<Item>,
    /// To look at when their time has come.
    later: BTreeMap<Item, Instant>,
    /// To look at when the cache has seen why it could not be written.
    behind: Behind,
    failures: u32,
    rng: fastrand::Rng,
}

impl Collector {
    fn new(
        kinds: Kinds,
        shards: Option<Shards>,
        cache: Cache,
        clock: Clock,
        recorder: Recorder,
        seed: u64,
    ) -> Self {
        Self {
            kinds,
            seats: Seats::new(shards),
            cache,
            clock,
            recorder,
            index: Index::default(),
            items: BTreeSet::new(),
            later: BTreeMap::new(),
            behind: Behind::default(),
            failures: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    async fn run(mut self, mut elections: mpsc::Receiver<News>) {
        let mut subscription = self.cache.subscribe(|key| {
            matches!(
                key,
                StateKey::Desired(..) | StateKey::Actual(..) | StateKey::Deletion(..)
            )
        });
        let mut next_full_pass = Instant::now() + FULL_PASS;
        loop {
            let due = self
                .later
                .values()
                .min()
                .copied()
                .unwrap_or(next_full_pass)
                .min(next_full_pass);
            let idle = tokio::select! {
                biased;
                news = elections.recv() => {
                    let Some(news) = news else {
                        return;
                    };
                    // Shards are claimed by the dozen: one look for all of them.
                    let more = std::iter::from_fn(|| elections.try_recv().ok());
                    let taken = self.seats.hear(std::iter::once(news).chain(more));
                    let seats = &self.seats;
                    self.later.retain(|item, _| seats.of(item.id()).is_some());
                    if taken {
                        self.look_at_all();
                    }
                    false
                }
                changes = subscription.next() => {
                    if changes.resync {
                        self.look_at_all();
                    }
                    let view = self.cache.view();
                    let scene = Scene {
                        kinds: &self.kinds,
                        view: &view,
                        now: self.clock.now(),
                    };
                    for change in &changes.keys {
                        self.index.change(&scene, change, &mut self.items);
                    }
                    false
                }
                () = self.behind.over(|revision| self.cache.wait_for(revision)) => {
                    self.items.extend(self.behind.take());
                    false
                }
                () = tokio::time::sleep_until(due) => true,
            };
            // Whatever woke it: a steady stream of changes does not hold back what has become due.
            let now = Instant::now();
            let ripe = self.later.extract_if(.., |_, at| *at <= now);
            self.items.extend(ripe.map(|(item, _)| item));
            let full = now >= next_full_pass;
            if full {
                next_full_pass = now + FULL_PASS;
                self.look_at_all();
            }
            self.pass(full && idle).await;
        }
    }

    fn look_at_all(&mut self) {
        let view = self.cache.view();
        let scene = Scene {
            kinds: &self.kinds,
            view: &view,
            now: self.clock.now(),
        };
        self.index.all(&scene, &mut self.items);
    }

    /// What is to be done about these, all at one revision.
    fn decide(&mut self, items: &BTreeSet<Item>) -> Plan {
        let view = self.cache.view();
        let scene = Scene {
            kinds: &self.kinds,
            view: &view,
            now: self.clock.now(),
        };
        let mut plan = Plan::default();
        let mut items = items.iter().peekable();
        while items.peek().is_some() {
            let some = items.by_ref().take(AT_A_TIME);
            let snapshot = observe::observe(&scene, &mut self.index, some);
            plan.append(decide(&snapshot, scene.now));
        }
        plan
    }

    /// One pass over all that waits and is this process's; `full` when no change has asked for any of it.
    async fn pass(&mut self, full: bool) {
        let mut items = std::mem::take(&mut self.items);
        items.retain(|item| self.seats.of(item.id()).is_some());
        let Some(leader) = self.seats.any().filter(|_| !items.is_empty()).cloned() else {
            return;
        };
        let plan = self.decide(&items);
        if !plan.is_empty() {
            debug!(%plan, "decided");
            if full {
                warn!(%plan, "a full pass found what the changes did not: this is a bug");
            }
        }
        self.tell(leader.keyspace(), &plan);
        for (id, wait) in &plan.later {
            self.later
                .insert(Item::Object(id.clone()), Instant::now() + *wait);
        }
        let writes = writes::writes(&self.kinds, &leader, &plan).await;
        let outcome = writes::commit(&self.seats, writes).await;
        if outcome.committed > 0 {
            info!(writes = outcome.committed, "collected");
        }
        if !outcome.fenced.is_empty() {
            // Deposed, or fenced off: what is due is decided afresh.
            let fenced = items
                .into_iter()
                .filter(|item| outcome.fenced.contains(&self.seats.shard(item.id())));
            let at = Instant::now() + SOON;
            self.later.extend(fenced.map(|item| (item, at)));
        }
        self.behind.met(
            outcome.conflicts,
            outcome.newest_conflict,
            Instant::now(),
            &mut self.rng,
        );
        let Some(error) = &outcome.first_error else {
            self.failures = 0;
            return;
        };
        self.failures += 1;
        let wait = Backoff::new(Duration::from_millis(100), Duration::from_secs(60))
            .delay(self.failures, &mut self.rng);
        warn!(
            error = error as &dyn std::error::Error,
            retry_after_ms = wait.as_millis(),
            "objects could not be collected"
        );
        let at = Instant::now() + wait;
        self.later
            .extend(outcome.refused.into_iter().map(|item| (item, at)));
    }

    /// Says so once to whoever put objects into a namespace that does not exist, or into none.
    fn tell(&self, keyspace: &Keyspace, plan: &Plan) {
        for (id, wait) in &plan.later {
            let known = self.later.contains_key(&Item::Object(id.clone()));
            let kind = self.kinds.by_plural(id.plural).filter(|_| !known);
            if let Some(kind) = kind {
                let (reason, message) = homeless(keyspace, kind, id, *wait);
                warn!(object = %id, reason, message, "an object will be deleted");
                let about = EventRef {
                    api_version: kind.api_version.into(),
                    kind: kind.kind.into(),
                    namespace: id.key.namespace.clone(),
                    name: id.key.name.clone(),
                    uid: Arc::from(""),
                };
                self.recorder.warning(about, reason, message);
            }
        }
    }
}

/// What is wrong with an object that has no namespace to be in, and what can be done: reason and sentence.
fn homeless(
    keyspace: &Keyspace,
    kind: &KindEntry,
    id: &ObjectId,
    wait: Duration,
) -> (&'static str, String) {
    let seconds = wait.as_secs();
    let key = |key: ObjectKey| keyspace.build(&Key::Desired(id.plural, key));
    let (namespace, name) = (&id.key.namespace, &id.key.name);
    if namespace.is_empty() {
        let (wrong, right) = (
            key(id.key.clone()),
            key(ObjectKey::namespaced("<namespace>", name.clone())),
        );
        let message = format!(
            "the key {wrong} names no namespace, and a {} is in one: write the document to {right}; this key will be deleted in {seconds} s, or at once by `etcdctl del {wrong}`",
            kind.kind
        );
        return ("MalformedKey", message);
    }
    let message = format!(
        "namespace {namespace} does not exist: the object will be deleted in {seconds} s; `setpoint create namespace {namespace}` keeps it"
    );
    ("NamespaceNotFound", message)
}

#[cfg(test)]
mod tests {
    use setpoint_apis::Kind;
    use setpoint_apis::core::Pod;

    use super::*;

    #[test]
    fn an_object_without_a_namespace_is_told_what_is_wrong_and_what_helps() {
        let kind = KindEntry::of::<Pod>();
        let said = |key| {
            let id = ObjectId::new(Pod::PLURAL, key);
            homeless(&Keyspace::default(), &kind, &id, Duration::from_secs(600))
        };
        let (reason, message) = said(ObjectKey::cluster("x"));
        assert_eq!(reason, "MalformedKey");
        let wrong = Keyspace::default().build(&Key::Desired(Pod::PLURAL, ObjectKey::cluster("x")));
        let right = wrong.replace("/x", "/<namespace>/x");
        assert_eq!(
            message,
            format!(
                "the key {wrong} names no namespace, and a Pod is in one: write the document to {right}; this key will be \
                 deleted in 600 s, or at once by `etcdctl del {wrong}`"
            )
        );
        let (reason, message) = said(ObjectKey::namespaced("shop", "x"));
        assert_eq!(reason, "NamespaceNotFound");
        assert!(
            message.contains("setpoint create namespace shop"),
            "{message}"
        );
    }
}
