//! The account: what the scheduler knows beyond the cache, kept by events and by the outcomes of its own writes.
//!
//! A [`Account::turn`] is synchronous and does no IO: it takes what changed, looks at it in a consistent view, and returns
//! the writes to be made. For every pod at most one write is under way. After a write that touches a pod's binding, the
//! pod is not decided again before the view has reached that write.

mod audit;
mod changes;
mod count;
mod groups;
mod invalid;
mod moves;
mod outcome;
mod place;
mod preempt;
mod reserve;
mod statuses;
mod step;
mod tell;
mod tombstones;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Keyspace, ObjectKey};
use setpoint_runtime::{View, Write};
use setpoint_scheduler_core::{Class, Cluster};
use tokio::time::Instant;

use crate::asks::Asks;
use crate::claims::Watchers;
use crate::content::{self, Contents, Somewhere, Uses};
use crate::decide::{ReadyThere, Why, WorkCopy};
use crate::gangs::Gangs;
use crate::intents::Intents;
use crate::listing::Listing;
use crate::nominations::Nominations;
use crate::pending::Pending;
use crate::quota::Quotas;
use crate::reservations::Reservations;
use crate::specs::Specs;
use crate::tombstones::{Effect, Item, Tombstones};
use crate::writes::{Effects, Recorded, Writer};
use setpoint_scheduler_core::budgets::Budgets;

pub(crate) use statuses::StatusOf;
pub(crate) use tell::Tell;

/// Pods that are decided in one turn: some milliseconds, for which the cache stands still.
const DECIDE: usize = 1_000;
/// Pods that nodes are chosen for in one turn to be moved there. Each is a decision of its own.
const MOVES: usize = 20;
/// Pods that are placed in one turn.
const PLACE: usize = 500;
/// Bindings that are under way at a time. More would only make other writes wait longer.
const MOST_BINDING: usize = 2_000;
/// Writes that are under way at a time, beyond which nothing more is decided: a flood waits here and not in memory.
const MOST_WRITES: usize = 4_000;
/// Projections that are written in one turn.
const CONTENT: usize = 500;
/// Writes about volume claims and tombstones in one turn.
const TOMBSTONES: usize = 500;
/// What a turn looks at.
pub(crate) struct Turn<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) keyspace: &'a Keyspace,
    /// Wall time, for documents.
    pub(crate) now: Timestamp,
    /// Time for waiting.
    pub(crate) tick: Instant,
}

impl Turn<'_> {
    fn revision(&self) -> i64 {
        self.view.revision().0
    }

    fn writer<'a>(&'a self, key: &'a ObjectKey) -> Writer<'a> {
        Writer {
            keyspace: self.keyspace,
            key,
            now: self.now,
        }
    }
}

/// A write, and what it means when it is carried out.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) write: Write,
    pub(crate) then: Then,
}

/// See [`Planned`].
#[derive(Debug)]
pub(crate) enum Then {
    Pod {
        key: ObjectKey,
        effects: Effects,
        binds: bool,
        tell: Option<Tell>,
    },
    Content {
        place: content::Place,
        written: Option<i64>,
    },
    Status {
        of: StatusOf,
        key: ObjectKey,
    },
    /// About the place of a volume claim.
    Claim {
        item: Item,
        effect: Effect,
    },
}

/// What is remembered of a pod.
#[derive(Debug, Default)]
struct PodState {
    /// A write about it is under way.
    busy: bool,
    /// Something changed meanwhile.
    again: bool,
    /// Not decided before the view has reached this revision.
    not_before: i64,
    /// The revision of the last write about it.
    changed_at: i64,
    failures: u32,
    /// Its work keys. Nobody else writes them.
    work: Vec<WorkCopy>,
    /// Its scheduling record. Nobody else writes it.
    recorded: Option<Recorded>,
    /// The node on which it is counted as a user of content.
    content: Option<(Arc<str>, Uses)>,
    /// Where it is, while it is not known what it uses.
    unknown: Option<Somewhere>,
    /// The revision of a binding that does not parse and that people were told of.
    told: Option<i64>,
    /// The revision of the request to evict it that people were told has to wait.
    told_blocked: Option<i64>,
    /// What it takes on another node, while it is moved.
    aside: Option<moves::Aside>,
    /// The other node of its binding, under which it stands among `movers`.
    other_node: Option<Arc<str>>,
    /// How it is ready on the node that it moves to, and when that was first seen.
    ready_seen: Option<(ReadyThere, Timestamp)>,
    /// The time for which it is looked at again though nothing changes, and when.
    look_again: Option<(Timestamp, Instant)>,
    /// A request to move it for which no node was found yet.
    in_vain: Option<moves::InVain>,
}

/// What to look at again after a while.
#[derive(Debug)]
enum Retry {
    Pod(ObjectKey),
    Content(content::Place),
    /// A volume claim or a tombstone.
    Claim(Item),
    /// The reasons of a group's pods have stood for a while.
    Group(ObjectKey),
    /// A group that does not fit has rested.
    GroupRested(ObjectKey),
    /// All bindings of this attempt to place a group have to stand by then.
    GroupDeadline(ObjectKey, u64),
    Reservation(ObjectKey),
}

/// See the module.
pub(crate) struct Account {
    cluster: Cluster,
    specs: Specs,
    /// Boxed: a table of them would keep room for several thousand that are not there.
    pods: FxHashMap<ObjectKey, Box<PodState>>,
    pending: Pending,
    contents: Contents,
    intents: Intents,
    /// Priority classes and profiles.
    asks: Asks,
    claims: Watchers,
    tombstones: Tombstones,
    quotas: Quotas,
    budgets: Budgets,
    gangs: Gangs,
    nominations: Nominations,
    reservations: Reservations,
    statuses: statuses::Statuses,
    /// The pods whose bindings speak of a node beside their own: they go there, or something of them may still be there.
    movers: FxHashMap<Arc<str>, BTreeSet<ObjectKey>>,
    /// How many moves this turn has chosen nodes for.
    moves: usize,
    /// Pods that are to be moved and that no node was chosen for yet.
    later_moves: Vec<ObjectKey>,
    /// Why pods are to leave their nodes that nobody else asked to.
    leave: FxHashMap<ObjectKey, Why>,
    group_reasons: groups::GroupReasons,
    dirty: VecDeque<ObjectKey>,
    is_dirty: FxHashSet<ObjectKey>,
    dirty_nodes: FxHashSet<Arc<str>>,
    dirty_reservations: BTreeSet<ObjectKey>,
    /// Those that have not been looked at since everything was read: nothing is placed while it is not known where they
    /// keep room.
    unread_reservations: BTreeSet<ObjectKey>,
    /// Pods to be looked at once the view has reached a revision.
    deferred: BTreeMap<i64, Vec<ObjectKey>>,
    retries: BTreeMap<(Instant, u64), Retry>,
    next_retry: u64,
    /// Bindings under way.
    binding: usize,
    /// Writes under way, bindings included.
    writing: usize,
    nodes_changed: bool,
    room_freed: bool,
    /// Something was placed.
    arrived: bool,
    /// No pod that was ever placed has a lower priority.
    lowest: i32,
    /// The classes whose pods found nobody to displace in this turn.
    no_victims: FxHashSet<Class>,
    /// What people are to be told though nothing is written.
    notices: Vec<(ObjectKey, Tell)>,
    seed: u64,
    rng: fastrand::Rng,
}

impl Account {
    /// An account that knows what its predecessor left in the store.
    pub(crate) fn new(listing: Listing, seed: u64) -> Self {
        let mut account = Self {
            cluster: Cluster::new(),
            specs: Specs::default(),
            pods: FxHashMap::default(),
            pending: Pending::default(),
            contents: Contents::default(),
            intents: Intents::default(),
            asks: Asks::default(),
            claims: Watchers::default(),
            tombstones: Tombstones::default(),
            quotas: Quotas::default(),
            budgets: Budgets::default(),
            gangs: Gangs::default(),
            nominations: Nominations::default(),
            reservations: Reservations::default(),
            statuses: statuses::Statuses::default(),
            movers: FxHashMap::default(),
            moves: 0,
            later_moves: Vec::new(),
            leave: FxHashMap::default(),
            group_reasons: groups::GroupReasons::default(),
            dirty: VecDeque::new(),
            is_dirty: FxHashSet::default(),
            dirty_nodes: FxHashSet::default(),
            dirty_reservations: BTreeSet::new(),
            unread_reservations: BTreeSet::new(),
            deferred: BTreeMap::new(),
            retries: BTreeMap::new(),
            next_retry: 0,
            binding: 0,
            writing: 0,
            nodes_changed: false,
            room_freed: false,
            arrived: false,
            lowest: i32::MAX,
            no_victims: FxHashSet::default(),
            notices: Vec::new(),
            seed,
            rng: fastrand::Rng::with_seed(seed),
        };
        for (pod, work) in listing.work {
            account.pods.entry(pod.clone()).or_default().work = work;
            account.touch(pod);
        }
        for (pod, record) in listing.records {
            account.pods.entry(pod.clone()).or_default().recorded = Some(record);
            account.touch(pod);
        }
        for (place, revision) in listing.content {
            account.contents.found(place, revision);
        }
        for (stone, revision) in listing.tombstones {
            account.tombstones.found(stone, revision);
        }
        account
    }

    /// Decides about what changed. Returns the writes to be made.
    pub(crate) fn turn(&mut self, turn: &Turn<'_>) -> Vec<Planned> {
        self.wake(turn);
        for node in std::mem::take(&mut self.dirty_nodes) {
            self.set_node(turn.view, &node);
        }
        for pod in self.budgets.take_woken() {
            self.touch(pod);
        }
        self.moves = 0;
        for pod in std::mem::take(&mut self.later_moves) {
            self.touch(pod);
        }
        let mut pods = Vec::new();
        let decide = DECIDE.min(MOST_WRITES.saturating_sub(self.writing));
        for _ in 0..decide {
            let Some(key) = self.dirty.pop_front() else {
                break;
            };
            self.is_dirty.remove(&key);
            pods.extend(self.decide(key, turn));
        }
        self.place_reservations(turn);
        self.wake_waiting(turn);
        self.refresh_reasons(turn, &mut pods);
        if self.may_place() {
            self.place(turn, PLACE, &mut pods);
        }
        self.write_statuses(turn, &mut pods);
        // Content goes first, so that pods mostly find it.
        let content = self.contents.plan(turn.view, turn.keyspace, CONTENT);
        let content = content.into_iter().map(|c| Planned {
            write: c.write,
            then: Then::Content {
                place: c.place,
                written: c.written,
            },
        });
        let mut planned: Vec<_> = content.collect();
        self.plan_tombstones(turn, &mut planned);
        planned.append(&mut pods);
        self.writing += planned.len();
        planned
    }

    /// What people are to be told since the last call.
    pub(crate) fn take_notices(&mut self) -> Vec<(ObjectKey, Tell)> {
        std::mem::take(&mut self.notices)
    }

    /// Whether another turn has something to do at once.
    pub(crate) fn has_more(&self) -> bool {
        (!self.dirty.is_empty() && self.writing < MOST_WRITES)
            || !self.dirty_nodes.is_empty()
            || !self.later_moves.is_empty()
            || self.contents.has_dirty()
            || self.tombstones.has_dirty()
            || self.budgets.has_woken()
            || !self.dirty_reservations.is_empty()
            || !self.unread_reservations.is_empty()
            || self.nodes_changed
            || self.room_freed
            || self.quotas.has_eased()
            || ((self.pending.is_runnable() || self.gangs.is_runnable()) && self.may_place())
    }

    /// Pods are placed when all that is known to have changed has been looked at, so that the first in order are among
    /// them; and in a flood of other writes too, because bindings are made here alone, so that nothing is over-filled
    /// for what has not been looked at.
    fn may_place(&self) -> bool {
        self.binding < MOST_BINDING
            && self.unread_reservations.is_empty()
            && (self.dirty.is_empty() || self.writing >= MOST_WRITES)
    }

    /// How many pods are to be placed, and how many wait for room.
    pub(crate) fn pending(&self) -> (usize, usize) {
        self.pending.lens()
    }

    /// When a turn has something to do though nothing changes.
    pub(crate) fn next_due(&self, tick: Instant) -> Option<Instant> {
        let retry = self.retries.keys().next().map(|(at, _)| *at);
        // The cache reaches a revision without a change of interest only now and then.
        let deferred = (!self.deferred.is_empty()).then(|| tick + Duration::from_millis(100));
        // Statuses say what has been counted, so they wait for that.
        let status = self.statuses.next_due().filter(|_| self.dirty.is_empty());
        [retry, deferred, self.pending.next_refresh(), status]
            .into_iter()
            .flatten()
            .min()
    }

    fn touch(&mut self, key: ObjectKey) {
        if self.is_dirty.insert(key.clone()) {
            self.dirty.push_back(key);
        }
    }
}

/// All nodes that anything says something about.
fn nodes(view: &View<'_>) -> FxHashSet<Arc<str>> {
    let desired = view
        .desired::<setpoint_apis::core::Node>()
        .entries()
        .map(|(k, _)| k);
    let alive = view.node_alive().entries().map(|(k, _)| k);
    let status = view.node_status().entries().map(|(k, _)| k);
    let health = view.health().entries().map(|(k, _)| k);
    desired
        .chain(alive)
        .chain(status)
        .chain(health)
        .map(|k| k.name.clone())
        .collect()
}

#[cfg(test)]
mod tests;
