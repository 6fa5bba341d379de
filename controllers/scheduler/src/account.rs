//! The account: what the scheduler knows beyond the cache, kept by events and by the outcomes of its own writes.
//!
//! A [`Account::turn`] is synchronous and does no IO: it takes what changed, looks at it in a consistent view, and returns
//! the writes to be made. For every pod at most one write is under way. After a write that touches a pod's binding, the
//! pod is not decided again before the view has reached that write.

mod audit;
mod place;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::core::{Pod, PodSpec};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_runtime::backoff::Backoff;
use setpoint_runtime::watcher::WatcherEvent;
use setpoint_runtime::{Changes, View, Write, WriteOutcome};
use setpoint_scheduler_core::{Cluster, PodAsk, Profile};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::content::{self, Contents, Somewhere, Uses};
use crate::decide::{Facts, Seen, Stale, Step, WorkCopy, belongs, decide, is_terminal};
use crate::intents::Intents;
use crate::listing::Listing;
use crate::observe::{self, Subject};
use crate::pending::Pending;
use crate::specs::{SpecInfo, Specs};
use crate::writes::{Effects, Recorded, Writer};

/// Pods that are decided in one turn: some milliseconds, for which the cache stands still.
const DECIDE: usize = 1_000;
/// Pods that are placed in one turn.
const PLACE: usize = 500;
/// Bindings that are under way at a time. More would only make other writes wait longer.
const MOST_BINDING: usize = 2_000;
/// Writes that are under way at a time, beyond which nothing more is decided: a flood waits here and not in memory.
const MOST_WRITES: usize = 4_000;
/// Projections that are written in one turn.
const CONTENT: usize = 500;
/// The wait after a write whose guards did not hold: until the cache has caught up, mostly.
const AFTER_CONFLICT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(2));
/// The wait after a write that the store refused.
const AFTER_FAILURE: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));

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
}

/// Something to tell people when a write has been carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tell {
    pub(crate) uid: String,
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
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
}

/// What to look at again after a while.
#[derive(Debug)]
enum Retry {
    Pod(ObjectKey),
    Content(content::Place),
}

/// See the module.
pub(crate) struct Account {
    cluster: Cluster,
    specs: Specs,
    pods: FxHashMap<ObjectKey, PodState>,
    pending: Pending,
    contents: Contents,
    intents: Intents,
    dirty: VecDeque<ObjectKey>,
    is_dirty: FxHashSet<ObjectKey>,
    dirty_nodes: FxHashSet<Arc<str>>,
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
            dirty: VecDeque::new(),
            is_dirty: FxHashSet::default(),
            dirty_nodes: FxHashSet::default(),
            deferred: BTreeMap::new(),
            retries: BTreeMap::new(),
            next_retry: 0,
            binding: 0,
            writing: 0,
            nodes_changed: false,
            room_freed: false,
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
        account
    }

    /// Counts everything that is there. Nothing is placed before that.
    pub(crate) fn resync(&mut self, view: &View<'_>) {
        for node in nodes(view) {
            self.set_node(view, &node);
        }
        let pods = view.desired::<Pod>().entries().map(|(k, _)| k);
        let all: Vec<_> = pods
            .chain(view.bindings().entries().map(|(k, _)| k))
            .cloned()
            .collect();
        for key in all {
            let mut state = self.pods.remove(&key).unwrap_or_default();
            self.count(&key, &mut state, view);
            self.pods.insert(key.clone(), state);
            self.touch(key);
        }
    }

    /// Takes note of changes of the state trees.
    pub(crate) fn changed(&mut self, changes: &Changes, view: &View<'_>) {
        if changes.resync {
            self.resync(view);
        }
        for subject in changes.keys.iter().filter_map(observe::subject) {
            match subject {
                Subject::Pod(key) => self.touch(key),
                Subject::Node(node) => {
                    self.dirty_nodes.insert(node);
                }
                Subject::Session(node) => {
                    self.touch_requested(&node);
                    self.dirty_nodes.insert(node);
                }
                Subject::Fence(node) => self.touch_requested(&node),
                Subject::Source(source) => self.contents.source_changed(&source),
            }
        }
    }

    /// Takes note of requests.
    pub(crate) fn requested(&mut self, event: WatcherEvent, keyspace: &Keyspace) {
        for pod in self.intents.observe(event, keyspace) {
            self.touch(pod);
        }
    }

    /// Decides about what changed. Returns the writes to be made.
    pub(crate) fn turn(&mut self, turn: &Turn<'_>) -> Vec<Planned> {
        self.wake(turn);
        for node in std::mem::take(&mut self.dirty_nodes) {
            self.set_node(turn.view, &node);
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
        if self.nodes_changed || self.room_freed {
            self.pending.changed(
                self.nodes_changed,
                self.room_freed,
                &mut self.cluster,
                turn.tick,
            );
            (self.nodes_changed, self.room_freed) = (false, false);
        }
        self.refresh_reasons(turn, &mut pods);
        if self.may_place() {
            self.place(turn, PLACE, &mut pods);
        }
        // Content goes first, so that pods mostly find it.
        let content = self.contents.plan(turn.view, turn.keyspace, CONTENT);
        let content = content.into_iter().map(|c| Planned {
            write: c.write,
            then: Then::Content {
                place: c.place,
                written: c.written,
            },
        });
        let planned: Vec<_> = content.chain(pods).collect();
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
            || self.contents.has_dirty()
            || (self.pending.is_runnable() && self.may_place())
    }

    /// Pods are placed when all that is known to have changed has been looked at, so that the first in order are among
    /// them; and in a flood of other writes too, because bindings are made here alone, so that nothing is over-filled
    /// for what has not been looked at.
    fn may_place(&self) -> bool {
        self.binding < MOST_BINDING && (self.dirty.is_empty() || self.writing >= MOST_WRITES)
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
        [retry, deferred, self.pending.next_refresh()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes note of what became of a write. Returns what to tell people.
    pub(crate) fn finished(
        &mut self,
        then: Then,
        outcome: &WriteOutcome,
        tick: Instant,
    ) -> Option<(ObjectKey, Tell)> {
        self.writing -= 1;
        match then {
            Then::Pod {
                key,
                effects,
                binds,
                tell,
            } => {
                self.binding -= usize::from(binds);
                let committed = self.finished_pod(&key, effects, binds, outcome, tick);
                tell.filter(|_| committed).map(|t| (key, t))
            }
            Then::Content { place, written } => {
                match outcome {
                    WriteOutcome::Committed(revision) => {
                        self.contents.committed(&place, written, revision.0)
                    }
                    other => {
                        let failures = self.contents.failed(&place);
                        let delay = self.delay(other, failures, &place.1.object);
                        self.retry(tick + delay, Retry::Content(place));
                    }
                }
                None
            }
        }
    }

    fn finished_pod(
        &mut self,
        key: &ObjectKey,
        effects: Effects,
        binds: bool,
        outcome: &WriteOutcome,
        tick: Instant,
    ) -> bool {
        let mut state = self.pods.remove(key).unwrap_or_default();
        state.busy = false;
        let again = std::mem::take(&mut state.again);
        let committed = if let WriteOutcome::Committed(revision) = outcome {
            state.failures = 0;
            state.changed_at = revision.0;
            if effects.binding {
                state.not_before = revision.0;
            }
            state.work.retain(|w| {
                !effects.work_gone.contains(&w.node) && Some(&w.node) != effects.work_put.as_ref()
            });
            state.work.extend(effects.work_put.map(|node| WorkCopy {
                node,
                revision: revision.0,
            }));
            if let Some(recorded) = effects.recorded {
                state.recorded = recorded;
            }
            for (verb, by, revision) in &effects.intents_gone {
                self.intents.gone(key, *verb, by, *revision);
            }
            self.touch(key.clone());
            true
        } else {
            state.failures = state.failures.saturating_add(1);
            if binds {
                self.room_freed |= self.cluster.forget(key);
            }
            // If it still wants a node it is lined up anew, with nothing left to wait for.
            self.pending.remove(key);
            let delay = self.delay(outcome, state.failures, key);
            self.retry(tick + delay, Retry::Pod(key.clone()));
            if again {
                self.touch(key.clone());
            }
            false
        };
        self.pods.insert(key.clone(), state);
        committed
    }

    fn delay(&mut self, outcome: &WriteOutcome, failures: u32, object: &ObjectKey) -> Duration {
        match outcome {
            WriteOutcome::Failed(error) => {
                warn!(%object, failures, error = error as &dyn std::error::Error, "a write was refused; trying again");
                AFTER_FAILURE.delay(failures, &mut self.rng)
            }
            _ => {
                debug!(%object, failures, "a guard did not hold; deciding again");
                AFTER_CONFLICT.delay(failures, &mut self.rng)
            }
        }
    }

    /// Decides about one pod.
    fn decide(&mut self, key: ObjectKey, turn: &Turn<'_>) -> Option<Planned> {
        let mut state = self.pods.remove(&key).unwrap_or_default();
        if state.busy {
            state.again = true;
            self.pods.insert(key, state);
            return None;
        }
        let broken = observe::broken(turn.view, &key);
        // What is concluded from where there is work holds only with all that agents have made of it.
        let not_before = match broken {
            Some(_) => state.not_before.max(state.changed_at),
            None => state.not_before,
        };
        if not_before > turn.revision() {
            self.deferred
                .entry(not_before)
                .or_default()
                .push(key.clone());
            self.pods.insert(key, state);
            return None;
        }
        let info = self.count(&key, &mut state, turn.view);
        let recorded = state.recorded.as_ref().map(|r| r.placements);
        let facts = observe::facts(
            turn.view,
            &key,
            broken.as_ref(),
            &state.work,
            recorded,
            self.intents.about(&key),
        );
        let step = decide(&facts);
        match &step {
            Step::Frozen(what) => debug!(object = %key, what, "frozen: a document does not parse"),
            Step::Wait(what) => debug!(object = %key, what, "waiting"),
            Step::Stuck { places } => {
                let told = broken.as_ref().map(|b| b.mod_revision);
                if state.told != told {
                    state.told = told;
                    let tell = stuck(
                        &facts,
                        places,
                        &turn.keyspace.build(&Key::Binding(key.clone())),
                    );
                    warn!(object = %key, places = ?places, "a binding does not parse, and where its pod is cannot be told: {}", tell.message);
                    self.notices.push((key.clone(), tell));
                }
            }
            Step::Restore { .. } | Step::Forget { .. } => warn!(
                object = %key,
                error = broken.as_ref().map_or("", |b| b.message),
                step = ?step,
                "a binding does not parse; mending it"
            ),
            Step::DropIntents {
                why: Stale::NeverTwice(_),
                ..
            } => warn!(
                object = %key,
                "a release is refused: the partition policy is stop, and the pod was claimed without a fence: nothing proves that the lost node has stopped it"
            ),
            _ => {}
        }
        let planned =
            if let (Step::Place, Seen::Valid(pod), Some(info)) = (&step, facts.desired, &info) {
                place::want(&mut self.pending, &state, &key, pod, info, turn)
            } else {
                self.pending.remove(&key);
                let spec = |_: &Pod| {
                    info.as_ref()
                        .map_or_else(String::new, |i| i.text().to_owned())
                };
                turn.writer(&key)
                    .step(&facts, &step, spec)
                    .map(|(write, effects)| {
                        let tell = tell(&facts, &step);
                        Planned {
                            write,
                            then: Then::Pod {
                                key: key.clone(),
                                effects,
                                binds: false,
                                tell,
                            },
                        }
                    })
            };
        let known = !matches!((facts.desired, facts.binding), (Seen::Absent, Seen::Absent));
        state.busy = planned.is_some();
        if known || state.busy || !state.work.is_empty() || state.recorded.is_some() {
            self.pods.insert(key, state);
        }
        planned
    }

    /// Counts what a pod takes where it is bound: its resources until it has ended, its content until it is gone. What
    /// does not parse counts as it did when it last parsed; if it never did (before this process began), or the document
    /// is gone and the binding is not yet, the pod takes what its binding says, and may use any content of its node.
    fn count(
        &mut self,
        key: &ObjectKey,
        state: &mut PodState,
        view: &View<'_>,
    ) -> Option<Arc<SpecInfo>> {
        let Self {
            cluster,
            specs,
            contents,
            room_freed,
            ..
        } = self;
        let desired = observe::last_good(view.desired::<Pod>().entry(key));
        let Some(binding) = observe::binding(view, key) else {
            if view.bindings().contains(key) {
                uses_unknown(contents, state, Some(Somewhere::Anywhere));
            } else {
                *room_freed |= cluster.forget(key);
                uses_content(contents, key, state, None);
                uses_unknown(contents, state, None);
            }
            return desired.map(|pod| specs.get(&pod.value, cluster));
        };
        let info = desired
            .filter(|pod| belongs(pod, &binding.value))
            .map(|pod| specs.get(&pod.value, cluster));
        let node = &binding.value.node;
        let ended = view
            .pod_on(node, key)
            .and_then(|e| e.valid())
            .is_some_and(|a| is_terminal(&a.value));
        let counted = cluster
            .placed(key)
            .filter(|(at, _)| ***at == *node.as_str());
        let class = match (&info, counted) {
            (Some(info), _) => info.class.clone(),
            (None, Some((_, class))) => class.clone(),
            (None, None) => cluster.class(&PodAsk {
                namespace: &key.namespace,
                labels: &BTreeMap::new(),
                spec: &PodSpec {
                    overhead: binding.value.requests.clone(),
                    ..PodSpec::default()
                },
                priority: 0,
                profile: Profile::default(),
            }),
        };
        if ended {
            *room_freed |= cluster.forget(key);
        } else {
            cluster.place(key, node, &class, binding.mod_revision);
        }
        if let Some(info) = &info {
            uses_content(contents, key, state, Some((node, &info.uses)));
            uses_unknown(contents, state, None);
        } else if state
            .content
            .as_ref()
            .is_none_or(|(at, _)| **at != *node.as_str())
        {
            uses_unknown(contents, state, Some(Somewhere::On(node.as_str().into())));
        }
        info
    }

    fn set_node(&mut self, view: &View<'_>, name: &Arc<str>) {
        self.nodes_changed |= match observe::node_facts(view, name) {
            Some(facts) => self.cluster.set_node(facts),
            None => self.cluster.remove_node(name),
        };
    }

    /// What has become due.
    fn wake(&mut self, turn: &Turn<'_>) {
        let later = self.deferred.split_off(&(turn.revision() + 1));
        for key in std::mem::replace(&mut self.deferred, later)
            .into_values()
            .flatten()
        {
            self.touch(key);
        }
        while let Some(entry) = self.retries.first_entry()
            && entry.key().0 <= turn.tick
        {
            match entry.remove() {
                Retry::Pod(key) => self.touch(key),
                Retry::Content(place) => self.contents.touch(place),
            }
        }
    }

    fn retry(&mut self, at: Instant, retry: Retry) {
        self.retries.insert((at, self.next_retry), retry);
        self.next_retry += 1;
    }

    fn touch(&mut self, key: ObjectKey) {
        if self.is_dirty.insert(key.clone()) {
            self.dirty.push_back(key);
        }
    }

    /// Requests depend on the sessions and fences of the nodes that they are about.
    fn touch_requested(&mut self, node: &str) {
        for pod in self.intents.concerning(node) {
            self.touch(pod);
        }
    }
}

/// Counts a pod as a user of content on the node where it is.
fn uses_content(
    contents: &mut Contents,
    key: &ObjectKey,
    state: &mut PodState,
    now: Option<(&str, &Uses)>,
) {
    let now = now.filter(|(_, uses)| !uses.is_empty());
    let same = match (&state.content, now) {
        (None, None) => true,
        (Some((node, uses)), Some((at, now))) => **node == *at && uses == now,
        _ => false,
    };
    if same {
        return;
    }
    let now = now.map(|(node, uses)| (Arc::<str>::from(node), uses.clone()));
    // First in, then out, so that what stays is not taken away in between.
    if let Some((node, uses)) = &now {
        contents.add(node, &key.namespace, uses);
    }
    if let Some((node, uses)) = std::mem::replace(&mut state.content, now) {
        contents.remove(&node, &key.namespace, &uses);
    }
}

/// Counts a pod of which it is not known what it uses.
fn uses_unknown(contents: &mut Contents, state: &mut PodState, now: Option<Somewhere>) {
    if state.unknown == now {
        return;
    }
    if let Some(now) = &now {
        contents.add_unknown(now);
    }
    if let Some(before) = std::mem::replace(&mut state.unknown, now) {
        contents.remove_unknown(&before);
    }
}

/// What people have to know of a binding that only they can mend.
fn stuck(facts: &Facts<'_>, places: &[Arc<str>], key: &str) -> Tell {
    let error = facts.broken.map_or("", |b| b.message);
    let (what, after) = match places {
        [] => (
            "no node has work for it or reports it".to_owned(),
            String::new(),
        ),
        [node] => (
            format!("what {node} reports of it does not parse either"),
            format!(
                ", and stops on {node} what is left of it, perhaps later than it begins elsewhere"
            ),
        ),
        _ => {
            let all = places.join(", ");
            (
                format!("each of {all} has work for it or reports it"),
                format!(
                    ", and stops what is left of it on {all}, perhaps later than it begins elsewhere"
                ),
            )
        }
    };
    Tell {
        uid: uid(facts),
        warning: true,
        reason: "BindingInvalid",
        message: format!(
            "the binding {key} does not parse ({error}), and where the pod is cannot be told: {what}. Nothing is done about the pod. `etcdctl del {key}` places it anew{after}"
        ),
    }
}

fn uid(facts: &Facts<'_>) -> String {
    match facts.desired {
        Seen::Valid(pod) => pod.uid(),
        _ => String::new(),
    }
}

/// What people want to know of a step.
fn tell(facts: &Facts<'_>, step: &Step) -> Option<Tell> {
    if let Step::Restore { .. } | Step::Forget { .. } = step {
        let error = facts.broken.map_or("", |b| b.message);
        let what = match step {
            Step::Restore { binding, .. } => format!(
                "it was written again: the pod is on {}, as its work copy, what nodes report and what was last known say",
                binding.node
            ),
            _ => "it was deleted: no agent had begun anything".to_owned(),
        };
        return Some(Tell {
            uid: uid(facts),
            warning: true,
            reason: "BindingRestored",
            message: format!("the binding of the pod did not parse ({error}); {what}"),
        });
    }
    let (Seen::Valid(pod), Seen::Valid(binding)) = (facts.desired, facts.binding) else {
        return None;
    };
    let node = &binding.value.node;
    let (warning, reason, message) = match step {
        Step::Withdraw { why, .. } => (
            false,
            "Withdrawn",
            format!("withdrawn from {node}: {}", why.as_str()),
        ),
        Step::Release { .. } => (
            true,
            "Released",
            format!("released from {node}, which is lost; placing it elsewhere"),
        ),
        Step::DropIntents {
            why: Stale::NeverTwice(_),
            ..
        } => (
            true,
            "NotReleased",
            format!(
                "not released from {node}, which is lost: its partition policy is stop, and it was claimed there without a fence, so that nothing proves that {node} has stopped it"
            ),
        ),
        _ => return None,
    };
    Some(Tell {
        uid: pod.uid(),
        warning,
        reason,
        message,
    })
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
