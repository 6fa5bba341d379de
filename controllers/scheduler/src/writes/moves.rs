//! The writes of moves.
//!
//! The copy under which a pod runs is not written again when a move changes the binding: its agent would take that for a
//! change. So the binding says which revision of it it speaks of (`workRevision`).

use std::time::Duration;

use setpoint_apis::Key;
use setpoint_apis::core::Pod;
use setpoint_apis::records::{
    Binding, Intent, MOVE_TIMEOUT_SECONDS, MoveOutcome, MoveResult, Moving, Withdrawal,
};
use setpoint_apis::view::pod_requests;
use setpoint_runtime::{Stored, Write};
use setpoint_scheduler_core::Placement;
use setpoint_store::{Compare, TxnOp};

use super::{Building, Effects, Extras, Writer, decision};
use crate::decide::{Facts, Seen, Session, Switch, Undo, Why, stops};

/// A move that begins.
pub(crate) struct NewMove<'a> {
    /// The index of the request.
    pub(crate) which: usize,
    /// Indices of all requests that it carries out.
    pub(crate) consume: &'a [usize],
    pub(crate) placement: &'a Placement,
    pub(crate) extras: Extras,
    /// The revision that it was decided on.
    pub(crate) revision: i64,
    pub(crate) stop_first: bool,
    /// The text of the pod's spec.
    pub(crate) spec: &'a str,
}

/// A request to move a pod that comes to nothing.
pub(crate) struct Refusal<'a> {
    /// The index of the request.
    pub(crate) which: usize,
    pub(crate) to: Option<&'a str>,
    pub(crate) message: &'a str,
}

/// [`Binding::placements`] for a binding that does not move any more.
pub(super) fn most_placements(binding: &Binding) -> Option<u32> {
    let most = binding.most_placements();
    (most > binding.placement).then_some(most)
}

impl Writer<'_> {
    /// Starts the pod on another node, or stops it in order to be started there.
    pub(crate) fn begin_move(
        &self,
        facts: &Facts<'_>,
        pod: &Stored<Pod>,
        new: NewMove<'_>,
    ) -> Option<(Write, Effects)> {
        let Seen::Valid(bound) = facts.binding else {
            return None;
        };
        let request = &facts.intents[new.which];
        let intent = request.intent.clone().unwrap_or_default();
        let node = bound.value.node.as_str();
        let to = &*new.placement.node;
        let mut b = Building::new(
            self,
            facts,
            format!("move of {} from {node} to {to}", self.key),
        );
        b.write
            .guards
            .push(Compare::ModRevision(self.desired_key(), pod.mod_revision));
        b.write.guards.push(Compare::CreateRevision(
            self.keyspace.build(&Key::NodeAlive(to)),
            new.placement.session,
        ));
        b.consume(new.consume);
        let number = bound.value.most_placements().saturating_add(1);
        let moving = Moving {
            to: to.into(),
            session: new.placement.session,
            placement: number,
            since: self.now,
            deadline: self.now.saturating_add(timeout(&intent)),
            min_ready_seconds: intent.min_ready_seconds.filter(|s| *s > 0),
            by: (*request.by).into(),
            reason: intent.reason,
            request: request.revision,
            decision: Some(decision(new.placement, new.extras, new.revision)),
        };
        let binding = Binding {
            moving: Some(Box::new(moving)),
            ..bound.value.clone()
        };
        // What has ended meanwhile would run again.
        b.guard_status(node);
        if new.stop_first {
            if matches!(facts.actual, Seen::Absent) {
                b.write.guards.push(Compare::absent(self.actual_key(node)));
            }
            b.drop_work(node);
            b.put_binding(&Binding {
                withdrawn: Some(Withdrawal {
                    reason: Why::Moved.as_str().into(),
                    at: self.now,
                    grace_seconds: None,
                }),
                work_revision: None,
                ..binding
            });
        } else {
            b.put_binding(&Binding {
                work_revision: copy_revision(facts, node),
                ..binding
            });
            b.put_work(pod, to, number, new.spec);
        }
        Some(b.done())
    }

    /// Says why a pod is not moved.
    pub(crate) fn refuse_move(
        &self,
        facts: &Facts<'_>,
        refusal: &Refusal<'_>,
    ) -> Option<(Write, Effects)> {
        let Seen::Valid(bound) = facts.binding else {
            return None;
        };
        let node = bound.value.node.as_str();
        let mut b = Building::new(self, facts, format!("refused move of {}", self.key));
        b.consume(&[refusal.which]);
        let result = MoveResult {
            outcome: MoveOutcome::Refused,
            from: node.into(),
            to: refusal.to.map(Into::into),
            at: self.now,
            request: facts.intents[refusal.which].revision,
            message: refusal.message.into(),
        };
        b.put_binding(&Binding {
            work_revision: copy_revision(facts, node),
            last_move: Some(Box::new(result)),
            ..bound.value.clone()
        });
        Some(b.done())
    }

    /// The binding becomes the other node's.
    pub(super) fn switch(
        &self,
        facts: &Facts<'_>,
        consume: &[usize],
        how: Switch,
        spec: impl Fn(&Pod) -> String,
    ) -> Option<(Write, Effects)> {
        let Seen::Valid(bound) = facts.binding else {
            return None;
        };
        let moving = bound.value.moving.as_deref()?;
        let (node, to) = (bound.value.node.as_str(), moving.to.as_str());
        let mut b = Building::new(
            self,
            facts,
            format!("end of the move of {} from {node} to {to}", self.key),
        );
        b.consume(consume);
        let message = match how {
            Switch::Ready(revision) => {
                b.write
                    .guards
                    .push(Compare::ModRevision(self.actual_key(to), revision));
                // What has ended here meanwhile would run again there.
                b.guard_status(node);
                b.drop_work(node);
                String::new()
            }
            Switch::Lost => {
                b.write
                    .guards
                    .push(Compare::absent(self.keyspace.build(&Key::NodeAlive(node))));
                b.write.ops.push(TxnOp::Delete(self.actual_key(node)));
                b.drop_work(node);
                format!("{node} is lost")
            }
            Switch::Stopped => {
                b.write.guards.push(Compare::absent(self.actual_key(node)));
                "it was stopped first".into()
            }
        };
        let mut next = bound.value.clone();
        match (how, facts.desired) {
            (Switch::Stopped, Seen::Valid(pod)) => {
                let Some(Session::Alive(session)) = facts.other.map(|o| o.session) else {
                    return None;
                };
                b.write.guards.push(Compare::CreateRevision(
                    self.keyspace.build(&Key::NodeAlive(to)),
                    session,
                ));
                b.write
                    .guards
                    .push(Compare::ModRevision(self.desired_key(), pod.mod_revision));
                b.put_work(pod, to, moving.placement, &spec(&pod.value));
                next.session = session;
                next.pod_revision = pod.mod_revision;
                next.never_twice = stops(&pod.value);
                next.requests = pod_requests(&pod.value.spec).into();
            }
            _ => {
                next.session = moving.session;
                next.work_revision = copy_revision(facts, to);
            }
        }
        let mut decision = moving.decision.clone();
        if let Some(decision) = &mut decision {
            decision.moved_from = Some(node.into());
        }
        let binding = Binding {
            node: to.into(),
            placement: moving.placement,
            bound_at: self.now,
            withdrawn: None,
            decision,
            moving: None,
            // Of a node that has stopped it, or is lost, nothing more is to be waited for.
            leaving: matches!(how, Switch::Ready(_)).then(|| node.into()),
            placements: None,
            last_move: Some(Box::new(MoveResult {
                outcome: MoveOutcome::Moved,
                from: node.into(),
                to: Some(to.into()),
                at: self.now,
                request: moving.request,
                message,
            })),
            ..next
        };
        b.put_binding(&binding);
        Some(b.done())
    }

    /// The pod stays where it is.
    pub(super) fn undo(&self, facts: &Facts<'_>, undo: &Undo) -> Option<(Write, Effects)> {
        let Seen::Valid(bound) = facts.binding else {
            return None;
        };
        let moving = bound.value.moving.as_deref()?;
        let (node, to) = (bound.value.node.as_str(), moving.to.as_str());
        let mut b = Building::new(self, facts, format!("undone move of {} to {to}", self.key));
        b.drop_work(to);
        b.put_binding(&Binding {
            work_revision: copy_revision(facts, node),
            moving: None,
            leaving: Some(to.into()),
            placements: most_placements(&bound.value),
            last_move: Some(Box::new(MoveResult {
                outcome: MoveOutcome::Undone,
                from: node.into(),
                to: Some(to.into()),
                at: self.now,
                request: moving.request,
                message: undo.message(moving),
            })),
            ..bound.value.clone()
        });
        Some(b.done())
    }

    /// The other node has nothing of the pod any more.
    pub(super) fn left(&self, facts: &Facts<'_>, lost: bool) -> Option<(Write, Effects)> {
        let Seen::Valid(bound) = facts.binding else {
            return None;
        };
        let leaving = bound.value.leaving.as_deref()?;
        let mut b = Building::new(self, facts, format!("{} has left {leaving}", self.key));
        let actual = self.actual_key(leaving);
        if lost {
            b.write.guards.push(Compare::absent(
                self.keyspace.build(&Key::NodeAlive(leaving)),
            ));
            b.write.ops.push(TxnOp::Delete(actual));
        } else {
            b.write.guards.push(Compare::absent(actual));
        }
        b.put_binding(&Binding {
            work_revision: copy_revision(facts, &bound.value.node),
            leaving: None,
            ..bound.value.clone()
        });
        Some(b.done())
    }
}

/// How long a move may take.
fn timeout(intent: &Intent) -> Duration {
    let seconds = intent.timeout_seconds.unwrap_or(MOVE_TIMEOUT_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The revision of the work copy that stays as it is.
fn copy_revision(facts: &Facts<'_>, node: &str) -> Option<i64> {
    let copy = facts.work.iter().find(|w| *w.node == *node)?;
    Some(copy.revision)
}
