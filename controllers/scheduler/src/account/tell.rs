//! What people are told of what is done to a pod, or not.

use std::sync::Arc;

use crate::decide::{Facts, Seen, Stale, Step, Switch, Why};

/// Something to tell people, when a write has been carried out or at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tell {
    pub(crate) uid: String,
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What people have to know of a binding that only they can mend.
pub(super) fn stuck(facts: &Facts<'_>, places: &[Arc<str>], key: &str) -> Tell {
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

pub(super) fn uid(facts: &Facts<'_>) -> String {
    match facts.desired {
        Seen::Valid(pod) => pod.uid(),
        _ => String::new(),
    }
}

/// What people want to know of a step. `detail`: for whom it makes room.
pub(super) fn tell(facts: &Facts<'_>, step: &Step, detail: Option<String>) -> Option<Tell> {
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
    let moving = binding.value.moving.as_deref();
    let (warning, reason, message) = match step {
        Step::Switch { how, .. } => {
            let to = moving.map_or("", |m| m.to.as_str());
            let message = match how {
                Switch::Ready(_) => format!("moved from {node} to {to}, where it is ready"),
                Switch::Stopped => {
                    format!("moved from {node}, where it has stopped, to {to}")
                }
                Switch::Lost => format!("moved from {node}, which is lost, to {to}"),
            };
            (false, "Moved", message)
        }
        Step::Undo(undo) => {
            let moving = moving?;
            let message = format!(
                "not moved to {}: {}; it stays on {node}",
                moving.to,
                undo.message(moving)
            );
            (true, "MoveUndone", message)
        }
        Step::Finish if moving.is_some() => {
            let to = moving.map_or("", |m| m.to.as_str());
            let message = format!(
                "has stopped on {node} to be moved to {to}, which cannot take it any more; placing it elsewhere"
            );
            (true, "MoveUndone", message)
        }
        Step::Withdraw {
            why: Why::Preempted,
            ..
        } => (
            false,
            "Preempted",
            detail.unwrap_or_else(|| format!("preempted on {node}")),
        ),
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
