//! scheduler: gives every pod a node, takes it back, and hands nodes the work that is theirs.
//!
//! # Promises
//! - It alone writes bindings, work and scheduling records. Every write carries the leader's epoch and guards on all that
//!   it was decided from; what was decided from an outdated view fails in the store and is decided again.
//! - A pod is bound to a node that can run it, has room, and whose session is the one that was seen; binding and work copy
//!   are written in one transaction. A pod that no node can run carries a condition with the reasons, and is tried again
//!   when a node or a departing pod makes room for its class.
//! - A pod is taken back in one step while its agent has not claimed it, and in two when it has: the agent stops it first.
//!   Two incarnations, or two placements, of a pod are never bound at the same time.
//! - **A lost node's pods are released on request** (`intents/release`), guarded on the absence of the node's session. A
//!   request says under which session the pod was bound there; one that comes late cannot hit a newer placement.
//! - **A pod with the partition policy `stop` is released when the fence of its node is gone too**, whoever asks; until
//!   then the request waits. One that was claimed without a fence (by an agent that held none, or before the policy was
//!   `stop`) is not released: nothing proves that a node that is cut off has stopped it, and the request is dropped with
//!   an event. So is one about such a former pod of the name of a `stop` pod. A binding remembers the policy, so deleting
//!   the document does not release it either; making it `replace` before does.
//! - **A node that comes back before its pods were released keeps them.** The work key is what makes a pod a node's own, under
//!   whatever session: its agent finds the key and adopts what runs. The binding keeps the session under which it was made,
//!   and the request is dropped. Only when the node is lost again, and somebody asks again, are the pods released.
//! - The ConfigMaps and Secrets that a node's pods use are projected into its work, kept current, and removed with the last
//!   user. A pod is bound also while they are missing; its agent says that it waits.
//! - A volume claim is on the node where the first pod that uses it was bound, which is written in the same transaction.
//!   Other pods that use it go there; while that node is away they wait. When the claim is gone, or another one has its
//!   name, its node is told so by a tombstone, and removes the directory when no pod there uses it.
//! - What does not parse is frozen: a pod with an invalid document, binding or status is not withdrawn, not placed again,
//!   and keeps its room.
//! - A binding that does not parse is written again when what was last known of it, the pod's work copies and what nodes
//!   report agree on where the pod is. When they do not it stays, and an event says what there is and how to mend it.
//! - What ended (Succeeded, Failed) takes no room; its binding stays until it is deleted. It is not released or evicted,
//!   which would run it again.
//! - **What a pod refers to is looked up here**: its priority class, its profile, its group. A pod that names one that does
//!   not exist waits with that reason, and goes on when it does. A document that does not parse any more counts as it did.
//! - **A pod that fits nowhere makes pods of lower priority leave** (reason `Preempted`; they go back to waiting). It is
//!   nominated for their node: nothing of its own priority or less gets the room that they leave, also under a new
//!   leader. It is bound there when the room is real, or elsewhere when that is sooner.
//! - **`evict` is carried out within disruption budgets.** What is decided counts at once, so two who evict cannot overshoot
//!   together. A request that is not allowed now waits; people are told once. Preemption respects budgets where it can.
//! - **A quota of a namespace is never exceeded by a binding**: not by a pod that names its node, not by one that preempts,
//!   not by a group. A pod over quota waits with that reason. A quota or a budget that never parsed lets nothing past.
//! - **A group (PodGroup) is placed with `minMember` of its pods at least, or not at all.** Of a group that was never
//!   complete no part stays: half a group is completed before anything else is placed, or taken apart. Groups do not
//!   preempt.
//! - **`move` starts a pod on another node, and stops it where it is when it is ready there.** Until then it is the first
//!   node's; it takes room on both. A move that comes to nothing in its time is undone. One that cannot be made is refused
//!   with the reasons, once the scheduler has seen all that was written before the request, or a second later. A pod that
//!   must never run twice is stopped first, within budgets. All of it is in the binding, so a new leader goes on with it; a binding is not deleted while any node has an instance of its pod.
//! - **What has ended is not run again**: a withdrawal for another reason than that the pod was deleted guards on the status
//!   that was seen.
//! - **A reservation keeps room for its owners** until it is deleted or its time is over.
//! - The statuses of quotas, budgets, groups and reservations are written when they change, and of one object not more
//!   often than twice a second.
//!
//! # How
//! One task owns an `account`: a pure structure that takes changes and outcomes and returns writes. Writes go out in
//! batches, several under way at a time, at most one per pod. Beside the core, which knows nodes, the account keeps books of
//! its own that are pure and tested by value: `asks` (priorities and profiles), `quota`, `budgets`, `gangs`,
//! `nominations`, `reservations`, `pending` (who waits for what).

mod account;
mod asks;
mod claims;
mod content;
pub mod decide;
mod gangs;
mod intents;
mod listing;
mod nominations;
mod observe;
mod pending;
mod quota;
mod reservations;
mod scales;
mod specs;
mod text;
mod tombstones;
mod verdict;
mod writes;

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use setpoint_apis::ObjectKey;
use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::core::{
    ConfigMap, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota, Secret,
};
use setpoint_apis::placement::{PodGroup, Reservation, SchedulerProfile};
use setpoint_apis::policy::PodDisruptionBudget;
use setpoint_apis::scheduling::PriorityClass;
use setpoint_runtime::backoff::Backoff;
use setpoint_runtime::events::{EventRef, EventType, Recorder};
use setpoint_runtime::watcher::{WatcherOptions, watcher};
use setpoint_runtime::{CacheBuilder, Clock, Leader, LeaderError, Write, WriteOutcome};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use account::{Account, Planned, Tell, Then, Turn};
use listing::Listing;

/// Writes that are handed over together. Their outcomes are taken note of together, so more would only delay.
const BATCH: usize = 500;

/// How to schedule.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Breaks ties between equally good nodes.
    pub seed: u64,
    /// The time between slow passes over everything, which repair what a bug missed.
    pub full_pass: Duration,
}

impl Options {
    /// A full pass every ten minutes.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            full_pass: Duration::from_secs(600),
        }
    }
}

/// Names the kinds that this controller reads.
pub fn register(cache: CacheBuilder) -> CacheBuilder {
    cache
        .kind::<Pod>()
        .kind::<Node>()
        .kind::<ConfigMap>()
        .kind::<Secret>()
        .kind::<PersistentVolumeClaim>()
        .kind::<Namespace>()
        .kind::<PriorityClass>()
        .kind::<SchedulerProfile>()
        .kind::<ResourceQuota>()
        .kind::<PodDisruptionBudget>()
        .kind::<Deployment>()
        .kind::<ReplicaSet>()
        .kind::<StatefulSet>()
        .kind::<HorizontalPodAutoscaler>()
        .kind::<PodGroup>()
        .kind::<Reservation>()
}

/// Schedules until the leadership is lost or given up. The seed breaks ties between equally good nodes.
pub async fn run(leader: Leader, clock: Clock, recorder: Recorder, seed: u64) {
    run_with(leader, clock, recorder, Options::new(seed)).await;
}

/// As [`run`], with options.
pub async fn run_with(leader: Leader, clock: Clock, recorder: Recorder, options: Options) {
    loop {
        match term(&leader, &clock, &recorder, options).await {
            End::Lost => return,
            End::Refenced => info!(
                "some writes had unknown outcomes and are fenced off; building the account anew"
            ),
        }
    }
}

enum End {
    /// Somebody else leads, or this process stops.
    Lost,
    /// Writes with unknown outcomes are fenced off: what is in the store has to be read again.
    Refenced,
}

/// One life of an account.
async fn term(leader: &Leader, clock: &Clock, recorder: &Recorder, options: Options) -> End {
    let mut subscription = leader
        .cache()
        .subscribe(|key| observe::subject(key).is_some());
    let range = leader.keyspace().intent_range(None);
    let mut requests = std::pin::pin!(watcher(
        leader.store().clone(),
        range,
        WatcherOptions::default()
    ));
    let Some(listing) = list(leader).await else {
        return End::Lost;
    };
    debug!(
        pods = listing.work.len(),
        content = listing.content.len(),
        revision = listing.revision,
        "listed the work"
    );
    let mut account = Account::new(listing, options.seed);
    // The first changes say that everything is to be looked at, and until then nothing is counted.
    let first = tokio::select! {
        biased;
        () = leader.lost().cancelled() => return End::Lost,
        changes = subscription.next() => changes,
    };
    account.changed(&first, &leader.cache().view());

    let mut in_flight = FuturesUnordered::new();
    let mut audits = FuturesUnordered::new();
    let mut full_pass = Instant::now() + options.full_pass;
    loop {
        let (planned, due) = {
            let view = leader.cache().view();
            if let Some(changes) = subscription.try_next() {
                account.changed(&changes, &view);
            }
            let tick = Instant::now();
            let turn = Turn {
                view: &view,
                keyspace: leader.keyspace(),
                now: clock.now(),
                tick,
            };
            (account.turn(&turn), account.next_due(tick))
        };
        for (pod, notice) in account.take_notices() {
            say(recorder, &pod, notice);
        }
        let mut planned = planned.into_iter();
        loop {
            let (writes, thens): (Vec<Write>, Vec<Then>) = planned
                .by_ref()
                .take(BATCH)
                .map(|Planned { write, then }| (write, then))
                .unzip();
            if writes.is_empty() {
                break;
            }
            in_flight.push(async move { (thens, leader.commit_only(writes).await) });
        }
        if Instant::now() >= full_pass {
            full_pass = Instant::now() + options.full_pass;
            if audits.is_empty() {
                audits.push(list(leader));
            }
        }
        let more = account.has_more();
        let wake_at = due.unwrap_or(full_pass).min(full_pass);
        // Every arm takes one thing that is complete, or waits; nothing is lost when another arm is faster. What is rare
        // comes before what may come without end; changes are taken note of in every round anyway.
        tokio::select! {
            biased;
            () = leader.lost().cancelled() => return End::Lost,
            Some(listing) = audits.next() => {
                let Some(listing) = listing else { return End::Lost };
                audit(&mut account, &mut subscription, leader, clock, &listing);
            }
            Some((thens, outcomes)) = in_flight.next() => {
                match outcomes {
                    Ok(outcomes) => settle(&mut account, recorder, thens, &outcomes),
                    Err(LeaderError::Deposed { .. }) => return End::Lost,
                    Err(LeaderError::Refenced { .. }) => {
                        // The rest is decided by now or never will be: none of it may be forgotten half-way.
                        while in_flight.next().await.is_some() {}
                        return End::Refenced;
                    }
                }
            }
            Some(event) = requests.next() => match event {
                Ok(event) => account.requested(event, leader.keyspace()),
                Err(error) => warn!(error = &error as &dyn std::error::Error, "the watch of requests failed; trying again"),
            },
            changes = subscription.next() => account.changed(&changes, &leader.cache().view()),
            () = tokio::time::sleep_until(wake_at), if !more => {}
            () = tokio::task::yield_now(), if more => {}
        }
    }
}

/// Takes note of outcomes, and tells people.
fn settle(account: &mut Account, recorder: &Recorder, thens: Vec<Then>, outcomes: &[WriteOutcome]) {
    let tick = Instant::now();
    for (then, outcome) in thens.into_iter().zip(outcomes) {
        if let Some((pod, tell)) = account.finished(then, outcome, tick) {
            say(recorder, &pod, tell);
        }
    }
}

fn say(recorder: &Recorder, pod: &ObjectKey, tell: Tell) {
    let kind = if tell.warning {
        EventType::Warning
    } else {
        EventType::Normal
    };
    let about = EventRef::of::<Pod>(pod, tell.uid);
    recorder.event(about, kind, tell.reason, tell.message);
}

/// What is in the store outside the cache; `None` when the leadership is lost meanwhile.
async fn list(leader: &Leader) -> Option<Listing> {
    let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    let mut rng = fastrand::Rng::with_seed(leader.epoch().0.unsigned_abs());
    let mut failures = 0;
    loop {
        let listing = tokio::select! {
            biased;
            () = leader.lost().cancelled() => return None,
            listing = listing::list(leader.store(), leader.keyspace()) => listing,
        };
        match listing {
            Ok(listing) => return Some(listing),
            Err(error) => {
                failures += 1;
                warn!(
                    error = &error as &dyn std::error::Error,
                    "the work could not be listed; trying again"
                );
                tokio::select! {
                    biased;
                    () = leader.lost().cancelled() => return None,
                    () = tokio::time::sleep(backoff.delay(failures, &mut rng)) => {}
                }
            }
        }
    }
}

fn audit(
    account: &mut Account,
    subscription: &mut setpoint_runtime::Subscription,
    leader: &Leader,
    clock: &Clock,
    listing: &Listing,
) {
    let view = leader.cache().view();
    if let Some(changes) = subscription.try_next() {
        account.changed(&changes, &view);
    }
    let turn = Turn {
        view: &view,
        keyspace: leader.keyspace(),
        now: clock.now(),
        tick: Instant::now(),
    };
    let found = account.audit(listing, &turn);
    if found.repairs() > 0 {
        warn!(
            store = found.store,
            nodes = found.nodes,
            missed = found.missed,
            "a full pass found something to repair"
        );
    } else {
        let (ready, waiting) = account.pending();
        debug!(
            pods = found.pods,
            ready, waiting, "a full pass found nothing to repair"
        );
    }
}
