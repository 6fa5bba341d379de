//! Carries out what [`decide`](super::decide) says: claims and releases in batches, a task for each shard that this
//! process leads.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use setpoint_apis::Key;
use setpoint_store::group_commit::{Item, ItemOutcome};
use setpoint_store::lease::LeaseKeeper;
use setpoint_store::task::inherit;
use setpoint_store::{LeaseId, Revision, StoreError};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::decide::{Member, Mine, Observed, Plan, decide};
use super::requests::{self, Answer};
use super::world::World;
use super::{Shard, Shards};
use crate::backoff::Backoff;
use crate::election::{Elector, Expiry, seed_of};
use crate::leader::{Leader, Part, Seat};
use crate::metrics::ControllerMetrics;

/// The wait after failures of the store, and after a rejection that no news explains.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

impl Elector {
    /// Runs `lead` for each shard of `controller` that this process owns, until `shutdown`: mode `hash`.
    ///
    /// Each shard has a [`Leader`] of its own, which says what is its business ([`Leader::owns`]). An election leaves it
    /// to `lead` to look at nothing else.
    ///
    /// # Guarantees
    /// - `lead` starts when the cache has seen the claim. Its [`Leader::lost`] is cancelled when the shard belongs to
    ///   another member, when the lease is lost, and on `shutdown`. It is waited for before the shard's key is given up,
    ///   so the next owner begins where it has ended.
    /// - A write for a shard has an effect only while its leader's claim stands: its guard names the mod revision of the
    ///   shard's key. So no two members write for one shard, whatever they believe.
    /// - A claim is made only under a map that no later member has outdated: its transaction says so. The store's revision
    ///   of that map, the generation, stands in the shard's key.
    /// - No shard is claimed while a process leads the controller as a whole ([`Elector::run`]), and the reverse: both
    ///   claims say so. Whoever is there first stays, the others wait, and follow it as they would a member.
    /// - A member that dies is followed by the others within the time of its lease, as in [`Elector::run`].
    ///
    /// # Assumptions
    /// All processes split the work into the same number of shards. A member with another number claims nothing, and
    /// nobody claims anything, until that member has gone; what is led stays led.
    ///
    /// # Panics
    /// When a `lead` has.
    pub async fn run_sharded<F, Fut>(
        &self,
        controller: &'static str,
        shards: Shards,
        shutdown: CancellationToken,
        lead: F,
    ) where
        F: Fn(Leader) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let seed = seed_of(&self.identity, controller);
        let keyspace = self.cache.keyspace();
        let mut world = World::new(&self.store, keyspace, controller, &self.identity, seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut failures = 0;
        while !shutdown.is_cancelled() {
            let granted = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                granted = self.lease() => granted,
            };
            match granted {
                Ok(lease) => {
                    failures = 0;
                    let session = Session {
                        elector: self,
                        controller,
                        shards,
                        lease,
                        metrics: self.metrics.of(controller),
                        lead: lead.clone(),
                        mine: BTreeMap::new(),
                        work: JoinSet::new(),
                        requests: FuturesUnordered::new(),
                        registration: Registration::Due,
                        again: None,
                        failures: 0,
                        rng: rng.fork(),
                        ending: false,
                        watched: None,
                        disagreement: None,
                        led_whole: false,
                        removing: 0,
                    };
                    session.run(&mut world, &shutdown).await;
                }
                Err(error) => {
                    failures += 1;
                    warn!(
                        controller,
                        error = &error as &dyn std::error::Error,
                        "no lease for an election; trying again"
                    );
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(BACKOFF.delay(failures, &mut rng)) => {}
                    }
                }
            }
        }
    }
}

/// What one lease lives through.
struct Session<'a, F> {
    elector: &'a Elector,
    controller: &'static str,
    shards: Shards,
    lease: LeaseKeeper,
    metrics: ControllerMetrics,
    lead: F,
    mine: BTreeMap<Shard, Condition>,
    /// The shards that are led; each ends with the revision at which its key was given up.
    work: JoinSet<(Shard, Option<Revision>)>,
    requests: FuturesUnordered<BoxFuture<'static, Answer>>,
    registration: Registration,
    /// When to try again what has failed.
    again: Option<Instant>,
    failures: u32,
    rng: fastrand::Rng,
    ending: bool,
    /// The lease of the member that this one watches over; nothing to wait for when it has ended.
    watched: Option<(LeaseId, Option<Expiry>)>,
    /// Said already.
    disagreement: Option<String>,
    /// Said already.
    led_whole: bool,
    /// The mod revision of the last key of a stranger that was asked to be removed.
    removing: i64,
}

/// What this process does with a shard.
enum Condition {
    Leading(Leader),
    /// A request is under way, or a leader is ending.
    Busy,
    /// It was claimed or given up at this revision: what was seen before does not count.
    Settled(i64),
    /// What was asked for has failed; wait until more news have come than these.
    Waiting(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Registration {
    Due,
    UnderWay,
    /// At this revision.
    Done(i64),
}

impl<F, Fut> Session<'_, F>
where
    F: Fn(Leader) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    async fn run(mut self, world: &mut World, shutdown: &CancellationToken) {
        loop {
            if !self.ending {
                self.act(world);
            } else if self.work.is_empty() && self.requests.is_empty() {
                break;
            }
            let again = self.again;
            let neighbour = || world.neighbour(&self.elector.identity, self.lease.id());
            // While the whole is led nobody leads a shard, so nobody else is to be followed.
            self.watch_over(world.lease_of_whole().or_else(neighbour));
            tokio::select! {
                biased;
                () = self.lease.lost(), if !self.ending => {
                    warn!(controller = self.controller, "the election lease is lost");
                    self.end();
                }
                () = shutdown.cancelled(), if !self.ending => {
                    self.end();
                    self.leave(world);
                }
                Some(answer) = self.requests.next() => self.answered(answer).await,
                Some(ended) = self.work.join_next() => match ended {
                    Ok((shard, given_up)) => self.ended(shard, given_up),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    // Only a runtime that ends cancels a task.
                    Err(_) => {}
                },
                () = world.next() => {}
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                    self.again = None;
                    self.mine.retain(|_, c| !matches!(c, Condition::Waiting(_)));
                }
                () = end_of(&mut self.watched) => {
                    // Its keys go with it, which comes as news.
                    self.watched = self.watched.take().map(|(lease, _)| (lease, None));
                }
            }
        }
        if !self.lease.is_lost() {
            let item = requests::departure(world.own.clone(), self.controller);
            self.elector.commits.submit(item).await;
        }
    }

    fn watch_over(&mut self, neighbour: Option<LeaseId>) {
        if self.watched.as_ref().map(|(lease, _)| *lease) != neighbour {
            self.watched = neighbour.map(|lease| (lease, Some(self.elector.expiry(lease))));
        }
    }

    /// Looks, decides, and starts what is to be done.
    fn act(&mut self, world: &World) {
        if !world.is_known() {
            return;
        }
        self.register(world);
        self.remove_strangers(world);
        let news = world.news();
        self.mine.retain(|_, condition| match condition {
            Condition::Settled(at) => world.seats.revision < *at,
            Condition::Waiting(since) => news <= *since,
            Condition::Leading(_) | Condition::Busy => true,
        });
        let plan = self.plan(world);
        if plan.disagreement != self.disagreement {
            if let Some(member) = &plan.disagreement {
                warn!(
                    controller = self.controller,
                    member,
                    "a member splits the work into another number of shards; nothing is claimed until it has gone"
                );
            }
            self.disagreement.clone_from(&plan.disagreement);
        }
        let led_whole = world.lease_of_whole().is_some();
        if !std::mem::replace(&mut self.led_whole, led_whole) && led_whole {
            warn!(
                controller = self.controller,
                key = world.whole_key,
                "another process leads this controller as a whole; no shard is claimed while that key exists"
            );
        }
        for shard in plan.hand_over.iter().chain(&plan.lost) {
            if let Some(Condition::Leading(leader)) = self.mine.insert(*shard, Condition::Busy) {
                leader.step_down();
            }
        }
        if !plan.claim.is_empty() {
            self.claim(plan.claim, world);
        }
        if !plan.free.is_empty() {
            self.free(plan.free);
        }
    }

    fn plan(&self, world: &World) -> Plan {
        let mine = self
            .mine
            .iter()
            .map(|(shard, condition)| {
                let mine = match condition {
                    Condition::Leading(leader) => Mine::Leading(leader.epoch().0),
                    _ => Mine::Busy,
                };
                (*shard, mine)
            })
            .collect();
        decide(&Observed {
            me: &self.elector.identity,
            shards: self.shards,
            members: &world.members(),
            taken: &world.taken(self.shards, self.lease.id()),
            taken_at: world.seats.revision,
            mine: &mine,
            led_whole: world.is_led_whole(),
        })
    }

    fn register(&mut self, world: &World) {
        let known = world.members.rows.get(&self.elector.identity);
        let due = match self.registration {
            Registration::Due => self.again.is_none(),
            Registration::UnderWay => false,
            Registration::Done(at) => {
                world.members.revision >= at
                    && known.is_none_or(|row| row.lease != Some(self.lease.id()))
            }
        };
        if due {
            self.registration = Registration::UnderWay;
            let item = self.membership(world, false);
            let commits = self.elector.commits.clone();
            self.requests
                .push(async move { Answer::Registered(commits.submit(item).await) }.boxed());
        }
    }

    /// A key of the whole without a lease is no leader's, and would keep everybody from claiming for good.
    fn remove_strangers(&mut self, world: &World) {
        let Some(at) = world.strangers_whole() else {
            return;
        };
        if at > self.removing && self.again.is_none() {
            self.removing = at;
            warn!(
                controller = self.controller,
                key = world.whole_key,
                "a stranger wrote the election key of the whole; removing it"
            );
            let item = requests::release(world.whole_key.clone(), at);
            let commits = self.elector.commits.clone();
            self.requests
                .push(async move { Answer::Removed(commits.submit(item).await) }.boxed());
        }
    }

    fn membership(&self, world: &World, leaving: bool) -> Item {
        let member = Member {
            shards: self.shards.count(),
            leaving,
        };
        requests::membership(world.own.clone(), &member, self.lease.id(), self.controller)
    }

    fn claim(&mut self, claims: Vec<(Shard, i64)>, world: &World) {
        let (generation, unchanged) = world.generation();
        let keyspace = self.elector.cache.keyspace();
        let mut items = Vec::with_capacity(claims.len());
        let mut seats = Vec::with_capacity(claims.len());
        for (shard, over) in claims {
            let part = Part {
                shard,
                of: self.shards,
                generation,
            };
            let seat = Seat::new(
                keyspace,
                self.controller,
                Some(part),
                &self.elector.identity,
                self.lease.id(),
            );
            items.push(requests::claim(
                &seat,
                over,
                unchanged.clone(),
                &world.whole_key,
                keyspace,
                shard,
            ));
            self.mine.insert(shard, Condition::Busy);
            seats.push((shard, seat));
        }
        let (commits, news) = (self.elector.commits.clone(), world.news());
        self.requests.push(
            async move {
                Answer::Claimed {
                    claims: seats,
                    outcomes: commits.submit_all(items).await,
                    news,
                }
            }
            .boxed(),
        );
    }

    fn free(&mut self, keys: Vec<(Shard, i64)>) {
        let mut items = Vec::with_capacity(keys.len());
        let mut shards = Vec::with_capacity(keys.len());
        for (shard, revision) in keys {
            let name = shard.to_string();
            let keyspace = self.elector.cache.keyspace();
            let key = keyspace.build(&Key::Leader(self.controller, Some(&name)));
            items.push(requests::release(key, revision));
            self.mine.insert(shard, Condition::Busy);
            shards.push(shard);
        }
        let commits = self.elector.commits.clone();
        self.requests
            .push(async move { Answer::Freed(shards, commits.submit_all(items).await) }.boxed());
    }

    async fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Registered(outcome) => {
                self.registration = match outcome.committed() {
                    Some(revision) => Registration::Done(revision.0),
                    None => Registration::Due,
                };
                self.failed(&outcome).await;
            }
            Answer::Claimed {
                claims,
                outcomes,
                news,
            } => {
                let mut unwanted = Vec::new();
                for ((shard, seat), outcome) in claims.into_iter().zip(outcomes) {
                    match outcome {
                        ItemOutcome::Committed { revision } if self.ending => {
                            unwanted.push((shard, revision.0));
                        }
                        ItemOutcome::Committed { revision } => self.start(shard, seat, revision),
                        ItemOutcome::Rejected { .. } => {
                            // What was in the way comes as news, or has come already.
                            self.mine.insert(shard, Condition::Waiting(news));
                            self.try_again();
                        }
                        outcome => {
                            self.mine.insert(shard, Condition::Waiting(u64::MAX));
                            self.failed(&outcome).await;
                        }
                    }
                }
                if !unwanted.is_empty() {
                    self.free(unwanted);
                }
            }
            Answer::Freed(shards, outcomes) => {
                for (shard, outcome) in shards.into_iter().zip(outcomes) {
                    self.failed(&outcome).await;
                    self.given_up(shard, outcome.committed());
                }
            }
            Answer::Removed(outcome) => {
                // Whether it went or changed is told by the watch.
                if matches!(outcome, ItemOutcome::Failed(_) | ItemOutcome::Unknown(_)) {
                    self.removing = 0;
                }
                self.failed(&outcome).await;
            }
            Answer::Left => {}
        }
    }

    fn start(&mut self, shard: Shard, seat: Seat, epoch: Revision) {
        self.failures = 0;
        self.metrics.leader_changes.inc();
        self.metrics.leading.inc();
        let elector = self.elector;
        let key = seat.key().to_owned();
        let leader = Leader::new(
            seat,
            epoch,
            elector.store.clone(),
            elector.commits.clone(),
            elector.cache.clone(),
            self.metrics.clone(),
        );
        self.mine.insert(shard, Condition::Leading(leader.clone()));
        let (lead, commits) = (self.lead.clone(), elector.commits.clone());
        self.work.spawn(inherit(async move {
            let seen = tokio::select! {
                biased;
                () = leader.lost().cancelled() => false,
                () = leader.cache().wait_for(epoch) => true,
            };
            if seen {
                lead(leader.clone()).await;
            }
            leader.step_down();
            let item = requests::release(key, leader.epoch().0);
            (shard, commits.submit(item).await.committed())
        }));
    }

    fn ended(&mut self, shard: Shard, given_up: Option<Revision>) {
        self.metrics.leading.dec();
        self.given_up(shard, given_up);
    }

    fn given_up(&mut self, shard: Shard, at: Option<Revision>) {
        let condition = match at {
            Some(revision) => Condition::Settled(revision.0),
            None => {
                self.try_again();
                Condition::Waiting(u64::MAX)
            }
        };
        self.mine.insert(shard, condition);
    }

    /// Steps down from everything.
    fn end(&mut self) {
        self.ending = true;
        for condition in self.mine.values_mut() {
            if let Condition::Leading(leader) = condition {
                leader.step_down();
                *condition = Condition::Busy;
            }
        }
    }

    /// Tells the others at once, so that each shard is claimed as soon as it is free.
    fn leave(&mut self, world: &World) {
        let item = self.membership(world, true);
        let commits = self.elector.commits.clone();
        let left = async move {
            commits.submit(item).await;
            Answer::Left
        };
        self.requests.push(left.boxed());
    }

    async fn failed(&mut self, outcome: &ItemOutcome) {
        let (ItemOutcome::Failed(error) | ItemOutcome::Unknown(error)) = outcome else {
            return;
        };
        if let StoreError::LeaseNotFound { .. } = error {
            if !self.ending {
                info!(
                    controller = self.controller,
                    "the election lease is gone; taking another"
                );
                self.elector.forget(&self.lease).await;
                self.end();
            }
            return;
        }
        if self.again.is_none() {
            warn!(
                controller = self.controller,
                error = error as &dyn std::error::Error,
                "an election of shards failed; trying again"
            );
        }
        self.try_again();
    }

    fn try_again(&mut self) {
        if self.again.is_none() {
            self.failures += 1;
            let delay = BACKOFF.delay(self.failures, &mut self.rng);
            self.again = Some(Instant::now() + delay);
        }
    }
}

async fn end_of(watched: &mut Option<(LeaseId, Option<Expiry>)>) {
    match watched {
        Some((_, Some(expiry))) => expiry.await,
        _ => std::future::pending().await,
    }
}
