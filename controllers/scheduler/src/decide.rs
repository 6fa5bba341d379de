//! What is to be done about one pod: a pure function from what is known of it to one step.
//!
//! Every step becomes one guarded transaction (see `writes`); its guards are exactly what was relied on here, so a step
//! that was decided from an outdated snapshot fails in the store and is decided again. The steps are idempotent in the
//! sense that the state after a step never asks for the same step again.

mod moves;
mod recover;

use std::sync::Arc;

use setpoint_apis::Kind;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{Binding, Intent, PodActual, PodStage, never_twice};
use setpoint_apis::stored::{Entry, Stored};
use setpoint_apis::time::Timestamp;

pub use moves::{ReadyThere, Switch, Undo, look_again, ready_there, stops_first};
pub use recover::{Broken, Report};
pub use setpoint_apis::records::PARTITION_POLICY;

/// A key of the state trees as it is now.
#[derive(Debug)]
pub enum Seen<'a, T> {
    /// It does not exist.
    Absent,
    /// It exists, and does not parse: nothing is concluded from it.
    Frozen,
    /// It exists and parses.
    Valid(&'a Stored<T>),
}

impl<T> Clone for Seen<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Seen<'_, T> {}

impl<'a, T> From<Option<&'a Entry<T>>> for Seen<'a, T> {
    fn from(entry: Option<&'a Entry<T>>) -> Self {
        match entry {
            None => Self::Absent,
            Some(entry) => entry.valid().map_or(Self::Frozen, |s| Self::Valid(s)),
        }
    }
}

/// The session of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// There is none.
    Absent,
    /// There is one, and it cannot be told which.
    Unreadable,
    /// The create revision of its `alive` key.
    Alive(i64),
}

/// A key `work/<node>/pods/<pod>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkCopy {
    /// The node.
    pub node: Arc<str>,
    /// The key's mod revision. Equal to the binding's when both were written together, as they always are.
    pub revision: i64,
}

/// What is asked of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Stop the pod and place it again.
    Evict,
    /// Start it elsewhere, then stop it here.
    Move,
    /// Give it up where its node is lost, and place it again.
    Release,
}

impl Verb {
    /// The verb of an intent's key.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "evict" => Some(Self::Evict),
            "move" => Some(Self::Move),
            "release" => Some(Self::Release),
            _ => None,
        }
    }

    /// The word in the key.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evict => "evict",
            Self::Move => "move",
            Self::Release => "release",
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct IntentFacts {
    /// What is asked.
    pub verb: Verb,
    /// Who asks.
    pub by: Arc<str>,
    /// The key's mod revision.
    pub revision: i64,
    /// The request, when it can be read.
    pub intent: Option<Intent>,
}

/// What is known of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What is wanted.
    pub desired: Seen<'a, Pod>,
    /// Where it is.
    pub binding: Seen<'a, Binding>,
    /// What else there is to know when the binding does not parse.
    pub broken: Option<&'a Broken<'a>>,
    /// What the node that it is bound to reports of it.
    pub actual: Seen<'a, PodActual>,
    /// That node's session.
    pub session: Session,
    /// Whether that node's fence lease stands.
    pub fenced: bool,
    /// The other node that a move concerns, when there is one: [`Binding::other_node`].
    pub other: Option<Other<'a>>,
    /// Wall time: moves have deadlines.
    pub now: Timestamp,
    /// Its work keys, on any node.
    pub work: &'a [WorkCopy],
    /// The placements counted by its scheduling record, when there is one.
    pub recorded: Option<u32>,
    /// What is asked about it.
    pub intents: &'a [IntentFacts],
    /// Why the scheduler itself wants it to leave its node, when it does.
    pub leave: Option<Why>,
    /// Whether disruption budgets allow it to be evicted now.
    pub may_evict: bool,
}

/// The other node that a move of a pod concerns.
#[derive(Clone, Copy, Debug)]
pub struct Other<'a> {
    /// What it reports of the pod.
    pub actual: Seen<'a, PodActual>,
    /// Its session.
    pub session: Session,
    /// When the one who decides first saw [`ready_there`] as it is. Not what the node says: its clock may be wrong.
    pub ready_seen: Option<Timestamp>,
}

/// Why a pod is withdrawn: the word in the binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is no longer wanted.
    Deleted,
    /// It is wanted on another node.
    NodeNameChanged,
    /// It was asked to leave.
    Evicted,
    /// It makes room for a pod of higher priority.
    Preempted,
    /// Its group was placed in part, and cannot be completed.
    GroupIncomplete,
    /// It is to be moved, and must be stopped first.
    Moved,
}

impl Why {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "Deleted",
            Self::NodeNameChanged => "NodeNameChanged",
            Self::Evicted => "Evicted",
            Self::Preempted => "Preempted",
            Self::GroupIncomplete => "GroupIncomplete",
            Self::Moved => "Moved",
        }
    }
}

/// Why intents are dropped without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The pod is not, or no longer, bound as they say.
    Elsewhere,
    /// The node has this session.
    NodeAlive(i64),
    /// The pod has ended: this mod revision of its status says so.
    Ended(i64),
    /// It is being moved already, as they ask.
    Moving,
    /// The pod must never run twice, and was claimed without a fence, so that nothing proves that its lost node has stopped
    /// it: this mod revision of its document says so, or its binding when there is no document any more.
    NeverTwice(Option<i64>),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// Nothing until something changes; for logs, what.
    Wait(&'static str),
    /// Something that the decision depends on does not parse.
    Frozen(&'static str),
    /// Its document does not parse, and it is nowhere: its record is to say so.
    Invalid,
    /// Its binding does not parse, and what else there is does not tell where it is.
    Stuck {
        /// The nodes that have work for it or report it.
        places: Vec<Arc<str>>,
    },
    /// Its binding does not parse: write this one in its place.
    Restore {
        /// The binding.
        binding: Box<Binding>,
        /// Whether it is being taken back, which the binding does not say.
        leaving: bool,
    },
    /// Its binding does not parse, and no agent has begun anything: delete it.
    Forget {
        /// The node that has work for it; `None` when none has, and nobody wants it.
        node: Option<Arc<str>>,
    },
    /// It wants a node.
    Place,
    /// Take it back from its node.
    Withdraw {
        /// Why.
        why: Why,
        /// Whether its agent has claimed it, so that it has to be stopped first.
        claimed: bool,
        /// Indices of the intents that this carries out.
        consume: Vec<usize>,
    },
    /// Its agent has stopped it: delete the binding.
    Finish,
    /// Its node is lost: delete everything that says that it is there.
    Release {
        /// Indices of the intents that this carries out.
        consume: Vec<usize>,
        /// Whether the fence lease has to be gone too, and what the node reported of the pod has to be what was seen.
        fence: bool,
    },
    /// Write binding and work copy again from the present document.
    Refresh,
    /// It is to be moved: a node is to be chosen.
    Move {
        /// The index of the request.
        which: usize,
        /// Whether it must be stopped before it is started there.
        stop_first: bool,
    },
    /// The move is done: the binding is the other node's.
    Switch {
        /// Indices of the intents that this carries out.
        consume: Vec<usize>,
        /// What has been reached.
        how: Switch,
    },
    /// The move has come to nothing: the pod stays where it is, and is stopped on the other node.
    Undo(Undo),
    /// The other node has nothing of the pod any more.
    Left {
        /// Because it is lost: what it reported is to be deleted.
        lost: bool,
    },
    /// Delete intents that ask for nothing that can be done.
    DropIntents {
        /// Indices.
        which: Vec<usize>,
        /// Why.
        why: Stale,
    },
    /// Delete work keys that no binding stands behind.
    DropWork {
        /// The nodes.
        nodes: Vec<Arc<str>>,
    },
    /// Delete the scheduling record.
    DropRecord,
}

/// Decides what to do about a pod.
pub fn decide(facts: &Facts<'_>) -> Step {
    match facts.binding {
        Seen::Frozen => facts
            .broken
            .map_or(Step::Frozen("binding"), |b| recover::recover(facts, b)),
        Seen::Absent => unbound(facts),
        Seen::Valid(binding) => bound(facts, binding),
    }
}

fn unbound(facts: &Facts<'_>) -> Step {
    let moot = readable(facts, |_| true);
    if !moot.is_empty() {
        return Step::DropIntents {
            which: moot,
            why: Stale::Elsewhere,
        };
    }
    if !facts.work.is_empty() {
        return Step::DropWork {
            nodes: facts.work.iter().map(|w| w.node.clone()).collect(),
        };
    }
    match facts.desired {
        Seen::Frozen => Step::Invalid,
        Seen::Absent if facts.recorded.is_some() => Step::DropRecord,
        Seen::Absent => Step::Rest,
        Seen::Valid(_) => Step::Place,
    }
}

fn bound(facts: &Facts<'_>, binding: &Stored<Binding>) -> Step {
    let bound = &binding.value;
    let wanted = match facts.desired {
        Seen::Frozen => return Step::Frozen("desired document"),
        Seen::Absent => None,
        Seen::Valid(pod) => belongs(pod, bound).then_some(pod),
    };
    let ended = match facts.actual {
        Seen::Valid(actual) => is_terminal(&actual.value).then_some(actual.mod_revision),
        _ => None,
    };

    let elsewhere = readable(facts, |i| !concerns(i, bound, wanted));
    if !elsewhere.is_empty() {
        return Step::DropIntents {
            which: elsewhere,
            why: Stale::Elsewhere,
        };
    }
    let asked = readable(facts, |_| true);
    if let (Some(revision), Some(_), None, false) =
        (ended, wanted, &bound.withdrawn, asked.is_empty())
    {
        // Nothing of it runs, and placing it again would run it a second time.
        return Step::DropIntents {
            which: asked,
            why: Stale::Ended(revision),
        };
    }
    let releases = of_verb(facts, &asked, Verb::Release);
    // A pod that is being moved and is not wanted any more, or must not run twice any more, is withdrawn first.
    if !releases.is_empty() && moves::may_release(bound, wanted) {
        return release(facts, bound, wanted, releases);
    }
    let evictions = of_verb(facts, &asked, Verb::Evict);
    let moves = of_verb(facts, &asked, Verb::Move);
    if bound.withdrawn.is_some() {
        return withdrawn(facts, bound, wanted, [evictions, moves].concat());
    }
    let why = match wanted {
        None => Some(Why::Deleted),
        Some(pod)
            if pod
                .value
                .spec
                .node_name
                .as_deref()
                .is_some_and(|n| !n.is_empty() && n != bound.node) =>
        {
            Some(Why::NodeNameChanged)
        }
        // What is evicted anyway need not be told that it makes room.
        Some(_) if may_evict(facts, &evictions) => Some(Why::Evicted),
        // Nothing of it runs, and placing it again would run it a second time.
        Some(_) if ended.is_some() => None,
        Some(_) => facts.leave,
    };
    if let Some(why) = why {
        // What cannot be read exists all the same.
        let claimed = !matches!(facts.actual, Seen::Absent) || bound.other_node().is_some();
        // A status that cannot be read may say that it has ended: placing it again would run it a second time.
        if why != Why::Deleted && matches!(facts.actual, Seen::Frozen) {
            return Step::Frozen("status");
        }
        return Step::Withdraw {
            why,
            claimed,
            consume: [evictions, moves].concat(),
        };
    }
    let wanted_pod = wanted.filter(|pod| pod.mod_revision == bound.pod_revision);
    let (Some(pod), true) = (wanted_pod, moves::copies_are_current(facts, binding)) else {
        return Step::Refresh;
    };
    let strays: Vec<_> = facts
        .work
        .iter()
        .filter(|w| !moves::stands(bound, &w.node))
        .map(|w| w.node.clone())
        .collect();
    if !strays.is_empty() {
        return Step::DropWork { nodes: strays };
    }
    if facts.recorded.is_some() {
        return Step::DropRecord;
    }
    if let Some(step) = moves::step(facts, bound, pod, &moves) {
        return step;
    }
    if !evictions.is_empty() {
        return Step::Wait(BUDGET);
    }
    Step::Rest
}

/// What an eviction waits for that is not allowed yet.
pub const BUDGET: &str = "a disruption budget to allow its eviction";

/// Whether one of these evictions may be carried out: then all are.
fn may_evict(facts: &Facts<'_>, evictions: &[usize]) -> bool {
    let ignores = |i: &usize| {
        let intent = facts.intents[*i].intent.as_ref();
        intent.is_some_and(|i| i.ignore_budgets)
    };
    !evictions.is_empty() && (facts.may_evict || evictions.iter().any(ignores))
}

/// A binding that is being taken back.
fn withdrawn(
    facts: &Facts<'_>,
    bound: &Binding,
    wanted: Option<&Stored<Pod>>,
    asked: Vec<usize>,
) -> Step {
    if !asked.is_empty() {
        // It is leaving already.
        return Step::DropIntents {
            which: asked,
            why: Stale::Elsewhere,
        };
    }
    if !facts.work.is_empty() {
        return Step::DropWork {
            nodes: facts.work.iter().map(|w| w.node.clone()).collect(),
        };
    }
    match facts.actual {
        Seen::Absent => {}
        Seen::Frozen => return Step::Frozen("status"),
        Seen::Valid(_) => return Step::Wait("its agent to stop it"),
    }
    if let Some(step) = moves::still_there(facts, bound) {
        return step;
    }
    if moves::may_start_now(facts, bound, wanted) {
        return Step::Switch {
            consume: Vec::new(),
            how: Switch::Stopped,
        };
    }
    Step::Finish
}

fn release(
    facts: &Facts<'_>,
    bound: &Binding,
    wanted: Option<&Stored<Pod>>,
    consume: Vec<usize>,
) -> Step {
    match facts.session {
        // The node came back: its agent sees that the work is still its own, and adopts what runs. If it is lost again
        // somebody will ask again.
        Session::Alive(session) => {
            return Step::DropIntents {
                which: consume,
                why: Stale::NodeAlive(session),
            };
        }
        Session::Unreadable => return Step::Frozen("node session"),
        Session::Absent => {}
    }
    if matches!(facts.actual, Seen::Frozen) {
        return Step::Frozen("status");
    }
    if bound.moving.is_some() && bound.withdrawn.is_none() {
        // It has been started elsewhere already.
        return Step::Switch {
            consume,
            how: Switch::Lost,
        };
    }
    if let Some(step) = moves::still_there(facts, bound) {
        return step;
    }
    // Also when the document is that of a new pod of the same name, which must not run beside the former.
    let says = match facts.desired {
        Seen::Valid(pod) if stops(&pod.value) => Some(Some(pod.mod_revision)),
        _ => (wanted.is_none() && bound.never_twice).then_some(None),
    };
    if let Some(document) = says
        && let Seen::Valid(actual) = facts.actual
        && actual.value.fence.is_none()
    {
        return Step::DropIntents {
            which: consume,
            why: Stale::NeverTwice(document),
        };
    }
    // A new pod of the name of one that is gone must not run beside it.
    let fence = wanted.is_none_or(|pod| stops(&pod.value));
    if fence && facts.fenced {
        return Step::Wait("the fence lease of its node to end");
    }
    Step::Release { consume, fence }
}

/// Whether the pod must never run twice.
pub fn stops(pod: &Pod) -> bool {
    never_twice(pod.metadata())
}

/// Whether the binding was made for this incarnation of the pod, and not for a former one of the same name.
pub fn belongs(pod: &Stored<Pod>, binding: &Binding) -> bool {
    pod.create_revision <= binding.pod_revision
}

/// Whether a pod has ended for good.
pub fn is_terminal(actual: &PodActual) -> bool {
    matches!(actual.stage, PodStage::Succeeded | PodStage::Failed)
}

/// Whether an intent is about this binding: the node is the one it names, and was not bound under a later session than
/// the one it speaks of. Sessions of a node grow, so a late intent cannot hit a newer placement; nor, when it names the
/// pod's uid, another pod of the same name.
fn concerns(intent: &Intent, binding: &Binding, wanted: Option<&Stored<Pod>>) -> bool {
    let other = |uid: &String| wanted.is_some_and(|pod| pod.uid() != *uid);
    if intent.uid.as_ref().is_some_and(other) {
        return false;
    }
    intent.node.as_ref().is_none_or(|n| *n == binding.node)
        && intent
            .session
            .is_none_or(|session| binding.session <= session)
}

/// The intents that can be read and of which `pick` holds.
fn readable(facts: &Facts<'_>, pick: impl Fn(&Intent) -> bool) -> Vec<usize> {
    let candidates = facts.intents.iter().enumerate();
    candidates
        .filter(|(_, i)| i.intent.as_ref().is_some_and(&pick))
        .map(|(n, _)| n)
        .collect()
}

fn of_verb(facts: &Facts<'_>, among: &[usize], verb: Verb) -> Vec<usize> {
    among
        .iter()
        .copied()
        .filter(|i| facts.intents[*i].verb == verb)
        .collect()
}

#[cfg(test)]
mod tests;
