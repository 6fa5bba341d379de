//! What is to be done about a pod that is to be moved, is being moved, or was.
//!
//! A pod is started on the other node first, and stopped here when it has become ready there, so that it serves all the
//! time. Until then it is this node's: what it does here is its status. A pod of which there must be one instance at the
//! most is stopped first, and started there by the transaction that notes that it has stopped.
//!
//! While a binding says that a pod moves, or that it is leaving another node, that node has or may have an instance of
//! it; the binding is not deleted before that is gone.

use std::time::Duration;

use setpoint_apis::core::{Pod, RestartPolicy};
use setpoint_apis::records::{Binding, Moving, PodActual};
use setpoint_apis::stored::Stored;
use setpoint_apis::time::Timestamp;

use super::{BUDGET, Facts, Other, Seen, Session, Stale, Step, is_terminal, may_evict, stops};

/// What lets a move be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is ready on the other node: this mod revision of its status there says so.
    Ready(i64),
    /// It has stopped here, and has yet to be started there.
    Stopped,
    /// The node that it was on is lost, and somebody asks to release it from there.
    Lost,
}

/// Why a move comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// It did not become ready in time.
    NotReady,
    /// The other node is lost.
    TargetLost,
    /// It ended there.
    EndedThere,
    /// One of its containers ended there and was started again.
    Crashed {
        /// The container.
        container: String,
    },
    /// It ended here, so that there is nothing to be moved.
    EndedHere,
    /// It must never run twice, which was not so when the move began.
    NeverTwice,
}

impl Undo {
    /// The words for people.
    pub(crate) fn message(&self, m: &Moving) -> String {
        let to = &m.to;
        match self {
            Self::NotReady => {
                let seconds = m.deadline.duration_since(m.since).as_secs();
                format!("it was not ready on {to} within {seconds} s")
            }
            Self::TargetLost => format!("{to} is lost"),
            Self::EndedThere => format!("it ended on {to}"),
            Self::Crashed { container } => {
                format!("its container {container} ended on {to} before the pod was ready")
            }
            Self::EndedHere => "it has ended".into(),
            Self::NeverTwice => {
                "its partition policy is stop by now, and it must not run twice".into()
            }
        }
    }
}

/// Whether a pod has to be stopped before it is started elsewhere: when it must never run twice; when it is a member of a
/// StatefulSet, whose name and volumes are those of one instance; and when it runs to an end, because that would be
/// reached twice.
pub fn stops_first(pod: &Pod, bound: &Binding) -> bool {
    let owner = pod.metadata.controller();
    must_not_run_twice(pod, bound)
        || pod.spec.restart_policy() != RestartPolicy::Always
        || owner.is_some_and(|owner| owner.kind == "StatefulSet")
}

/// Whether nothing may start a pod while an instance of it may run, whatever becomes of nodes.
fn must_not_run_twice(pod: &Pod, bound: &Binding) -> bool {
    stops(pod) || bound.never_twice
}

/// Whether a pod may be released from its node as it is. One that has begun to run elsewhere, and is not wanted or must
/// not run twice, is to be stopped there before anything forgets about it.
pub(super) fn may_release(bound: &Binding, wanted: Option<&Stored<Pod>>) -> bool {
    let started = bound.moving.is_some() && bound.withdrawn.is_none();
    !started || wanted.is_some_and(|pod| !must_not_run_twice(&pod.value, bound))
}

/// Whether work for the pod belongs on a node.
pub(super) fn stands(bound: &Binding, node: &str) -> bool {
    bound.node == node || bound.moving.as_ref().is_some_and(|m| m.to == node)
}

/// Whether the work copies are those that the binding speaks of.
pub(super) fn copies_are_current(facts: &Facts<'_>, binding: &Stored<Binding>) -> bool {
    let bound = &binding.value;
    let at = |node: &str, revision: i64| {
        let copy = facts.work.iter().find(|w| *w.node == *node);
        copy.is_some_and(|w| w.revision == revision)
    };
    let own = bound.work_revision.unwrap_or(binding.mod_revision);
    at(&bound.node, own)
        && bound
            .moving
            .as_ref()
            .is_none_or(|m| at(&m.to, binding.mod_revision))
}

/// What is to be done for a move of a pod that is bound and not withdrawn; `None`: nothing.
pub(super) fn step(
    facts: &Facts<'_>,
    bound: &Binding,
    pod: &Stored<Pod>,
    asked: &[usize],
) -> Option<Step> {
    if let Some(moving) = &bound.moving {
        let same = |i: &usize| {
            let intent = facts.intents[*i].intent.as_ref();
            intent.is_some_and(|i| i.to.as_ref().is_none_or(|to| *to == moving.to))
        };
        let same: Vec<_> = asked.iter().copied().filter(same).collect();
        if !same.is_empty() {
            return Some(Step::DropIntents {
                which: same,
                why: Stale::Moving,
            });
        }
        return Some(under_way(facts, bound, moving, &pod.value));
    }
    if let Some(step) = still_there(facts, bound) {
        return Some(step);
    }
    if bound.leaving.is_some() {
        return Some(Step::Left { lost: false });
    }
    // The oldest request.
    let which = asked
        .iter()
        .copied()
        .min_by_key(|i| facts.intents[*i].revision)?;
    let unclaimed = matches!(facts.actual, Seen::Absent);
    let alone = stops_first(&pod.value, bound);
    let stop_first = alone || unclaimed;
    // Nothing is known of whether it has ended.
    if matches!(facts.actual, Seen::Frozen) {
        return Some(Step::Frozen("status"));
    }
    // While it is started elsewhere first, it serves all the time; so it does when nothing of it runs yet.
    if alone && !may_evict(facts, asked) {
        return Some(Step::Wait(BUDGET));
    }
    Some(Step::Move { which, stop_first })
}

/// A pod that has been started on the other node too.
fn under_way(facts: &Facts<'_>, bound: &Binding, moving: &Moving, pod: &Pod) -> Step {
    let Some(other) = facts.other else {
        return Step::Wait("what is known of the other node");
    };
    if matches!(facts.actual, Seen::Valid(actual) if is_terminal(&actual.value)) {
        return Step::Undo(Undo::EndedHere);
    }
    if must_not_run_twice(pod, bound) {
        return Step::Undo(Undo::NeverTwice);
    }
    if let Seen::Valid(actual) = other.actual
        && actual.value.placement == moving.placement
    {
        if is_terminal(&actual.value) {
            return Step::Undo(Undo::EndedThere);
        }
        if let Some(container) = crashed(&actual.value) {
            return Step::Undo(Undo::Crashed { container });
        }
        let ready = ready_at(&other, moving).is_some_and(|at| at <= facts.now);
        // A status here that cannot be read may say that it has ended.
        let readable = !matches!(facts.actual, Seen::Frozen);
        if ready && readable && matches!(other.session, Session::Alive(_)) {
            return Step::Switch {
                consume: Vec::new(),
                how: Switch::Ready(actual.mod_revision),
            };
        }
    }
    if other.session == Session::Absent {
        return Step::Undo(Undo::TargetLost);
    }
    if facts.now >= moving.deadline {
        return Step::Undo(Undo::NotReady);
    }
    Step::Wait("it to be ready on the node that it moves to")
}

/// A stretch of time for which a pod has been ready on the node that it moves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyThere {
    /// The number of its placement there.
    pub placement: u32,
    /// Since when, as its node has it: good for telling stretches apart, and not for measuring them.
    pub since: Option<Timestamp>,
}

/// Whether a pod is ready on the node that it moves to.
pub fn ready_there(facts: &Facts<'_>) -> Option<ReadyThere> {
    let Seen::Valid(binding) = facts.binding else {
        return None;
    };
    ready_on(&facts.other?, binding.value.moving.as_deref()?)
}

fn ready_on(other: &Other<'_>, moving: &Moving) -> Option<ReadyThere> {
    let Seen::Valid(actual) = other.actual else {
        return None;
    };
    let actual = &actual.value;
    if actual.placement != moving.placement || !actual.is_ready() {
        return None;
    }
    let ready = actual.conditions.iter().find(|c| c.type_ == "Ready");
    Some(ReadyThere {
        placement: actual.placement,
        since: ready.and_then(|c| c.last_transition_time),
    })
}

/// When a pod has been ready for long enough; `None` while it is not ready, or nobody has noted since when it is.
fn ready_at(other: &Other<'_>, moving: &Moving) -> Option<Timestamp> {
    ready_on(other, moving)?;
    let least = moving.min_ready_seconds.unwrap_or(0);
    let least = Duration::from_secs(u64::try_from(least).unwrap_or(0));
    if least.is_zero() {
        return Some(moving.since);
    }
    Some(other.ready_seen?.saturating_add(least))
}

/// The first container that ended and was started again.
fn crashed(actual: &PodActual) -> Option<String> {
    let ended = actual
        .container_statuses
        .iter()
        .find(|c| c.restart_count > 0)?;
    Some(ended.name.clone())
}

/// When a pod that is being moved is to be looked at again though nothing changes.
pub fn look_again(facts: &Facts<'_>) -> Option<Timestamp> {
    let Seen::Valid(binding) = facts.binding else {
        return None;
    };
    let bound = &binding.value;
    let moving = bound
        .moving
        .as_ref()
        .filter(|_| bound.withdrawn.is_none())?;
    let ready = facts.other.and_then(|other| ready_at(&other, moving));
    let ready = ready.filter(|at| *at > facts.now);
    Some(ready.map_or(moving.deadline, |at| at.min(moving.deadline)))
}

/// What is to be done while the other node of a binding that leaves it has something of the pod.
pub(super) fn still_there(facts: &Facts<'_>, bound: &Binding) -> Option<Step> {
    bound.leaving.as_ref()?;
    let other = facts.other?;
    match other.actual {
        Seen::Absent => None,
        Seen::Frozen => Some(Step::Frozen("status")),
        // Nothing proves that a node that is cut off has stopped what must not run twice.
        Seen::Valid(_) if other.session == Session::Absent && !bound.never_twice => {
            Some(Step::Left { lost: true })
        }
        Seen::Valid(_) => Some(Step::Wait("the other node's agent to stop it")),
    }
}

/// Whether a pod that was stopped in order to be moved can be started on the other node.
pub(super) fn may_start_now(
    facts: &Facts<'_>,
    bound: &Binding,
    wanted: Option<&Stored<Pod>>,
) -> bool {
    let alive = matches!(facts.other.map(|o| o.session), Some(Session::Alive(_)));
    bound.moving.is_some() && wanted.is_some() && alive
}
