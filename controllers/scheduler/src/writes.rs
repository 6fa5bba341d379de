//! From steps to guarded transactions, and what each makes of the account when it is carried out.
//!
//! The guards follow the table of protocols in the design; the epoch is added by the leader.

mod moves;

use std::sync::Arc;

use setpoint_apis::core::{Pod, PodCondition};
use setpoint_apis::records::{
    Binding, NearestMiss, NodeScore, PlacementDecision, PodScheduling, StopOrder, WaitReason,
    Withdrawal, WorkHeader,
};
use setpoint_apis::time::Timestamp;
use setpoint_apis::view::pod_requests;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_runtime::{Stored, Write};
use setpoint_scheduler_core::Placement;
use setpoint_store::{Compare, Put, TxnOp};

use crate::asks::{Hold, UNSCHEDULABLE};
use crate::decide::{Facts, Seen, Session, Stale, Step, Verb, Why, stops};
use crate::text;

pub(crate) use moves::{NewMove, Refusal};

/// What a write changes of what the account remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Effects {
    /// The binding is written or deleted: the pod is not decided again before the cache has seen it.
    pub(crate) binding: bool,
    /// The work copies are written for these nodes, at the revision of the write.
    pub(crate) work_put: Vec<Arc<str>>,
    /// The work copies on these nodes are gone.
    pub(crate) work_gone: Vec<Arc<str>>,
    /// The scheduling record becomes this.
    pub(crate) recorded: Option<Option<Recorded>>,
    /// These intents are gone, as of these revisions.
    pub(crate) intents_gone: Vec<(Verb, Arc<str>, i64)>,
}

/// What the account remembers of a scheduling record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) placements: u32,
    /// Reason and message, hashed; 0 when there is no condition.
    pub(crate) message: u64,
    /// Whether it says that no node can run the pod.
    pub(crate) unschedulable: bool,
    /// Since when it is not scheduled.
    pub(crate) since: Option<Timestamp>,
    /// The node that is being cleared for it.
    pub(crate) nominated: Option<Arc<str>>,
}

/// What a scheduling record is to say of a pod that waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Says {
    /// Reason and message of the condition.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// The node that is being cleared for it.
    pub(crate) nominated: Option<Arc<str>>,
    /// How many nodes were asked; `None` when none were.
    pub(crate) nodes: Option<u32>,
    pub(crate) reasons: Vec<WaitReason>,
    pub(crate) nearest: Vec<NearestMiss>,
}

impl Says {
    /// That a pod is held back before any node is asked.
    pub(crate) fn held(hold: &Hold) -> Self {
        Self {
            reason: hold.reason,
            message: hold.message.clone(),
            reasons: vec![hold.wait_reason()],
            ..Self::default()
        }
    }

    /// Whether a record says this already.
    pub(crate) fn is_said_by(&self, recorded: Option<&Recorded>) -> bool {
        recorded.is_some_and(|r| {
            r.message == hash(self.reason, &self.message) && r.nominated == self.nominated
        })
    }
}

/// What else is kept of the decision behind a binding.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    /// The best few nodes, the chosen one first.
    pub(crate) best: Vec<NodeScore>,
    /// The profile, when it is not the built-in one.
    pub(crate) profile: Option<String>,
    /// Who gave way.
    pub(crate) preempted: Vec<String>,
}

impl Recorded {
    /// What to remember of a record.
    pub(crate) fn of(record: &PodScheduling) -> Self {
        let condition = record.conditions.iter().find(|c| c.type_ == SCHEDULED);
        Self {
            placements: record.placements,
            message: condition.map_or(0, |c| {
                hash(
                    c.reason.as_deref().unwrap_or_default(),
                    c.message.as_deref().unwrap_or_default(),
                )
            }),
            unschedulable: condition.is_some_and(|c| c.reason.as_deref() == Some(UNSCHEDULABLE)),
            since: condition.and_then(|c| c.last_transition_time),
            nominated: record.nominated_node.as_deref().map(Arc::from),
        }
    }
}

const SCHEDULED: &str = "PodScheduled";
/// The reason of a withdrawal that was found under way, when what had said why is lost.
const LOST_REASON: &str = "BindingLost";
/// A hash of a condition's words.
pub(crate) fn hash(reason: &str, message: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(reason.as_bytes());
    hasher.write_u8(0);
    hasher.write(message.as_bytes());
    hasher.finish() | 1
}

/// Builds writes about one pod.
pub(crate) struct Writer<'a> {
    pub(crate) keyspace: &'a Keyspace,
    pub(crate) key: &'a ObjectKey,
    pub(crate) now: Timestamp,
}

impl Writer<'_> {
    /// Binds a pod that has no binding.
    pub(crate) fn bind(
        &self,
        pod: &Stored<Pod>,
        spec: &str,
        placement: &Placement,
        extras: Extras,
        recorded: Option<&Recorded>,
        revision: i64,
    ) -> (Write, Effects) {
        let binding = Binding {
            node: (*placement.node).into(),
            session: placement.session,
            placement: recorded.map_or(0, |r| r.placements).saturating_add(1),
            pod_revision: pod.mod_revision,
            bound_at: self.now,
            never_twice: stops(&pod.value),
            requests: pod_requests(&pod.value.spec).into(),
            decision: Some(decision(placement, extras, revision)),
            ..Binding::default()
        };
        let mut ops = vec![
            put(self.binding_key(), text::binding(&binding)),
            put(
                self.work_key(&placement.node),
                work(pod, binding.placement, spec),
            ),
        ];
        if recorded.is_some() {
            ops.push(TxnOp::Delete(self.record_key()));
        }
        let write = Write {
            guards: vec![
                Compare::ModRevision(self.desired_key(), pod.mod_revision),
                Compare::absent(self.binding_key()),
                Compare::CreateRevision(
                    self.keyspace.build(&Key::NodeAlive(&placement.node)),
                    placement.session,
                ),
            ],
            ops,
            context: format!("binding of {} to {}", self.key, placement.node),
        };
        let effects = Effects {
            binding: true,
            work_put: vec![placement.node.clone()],
            recorded: Some(None),
            ..Effects::default()
        };
        (write, effects)
    }

    /// Says why a pod has no node.
    pub(crate) fn record(
        &self,
        pod: &Stored<Pod>,
        before: Option<&Recorded>,
        says: Says,
    ) -> (Write, Effects) {
        // A record of a pod that is gone would be left behind.
        let exists = Compare::CreateRevision(self.desired_key(), pod.create_revision);
        self.record_while(exists, before, says)
    }

    /// Says what is wrong with the document of a pod that has no node, as it was brought by this revision.
    pub(crate) fn record_invalid(
        &self,
        revision: i64,
        before: Option<&Recorded>,
        says: Says,
    ) -> (Write, Effects) {
        let stands = Compare::ModRevision(self.desired_key(), revision);
        self.record_while(stands, before, says)
    }

    fn record_while(
        &self,
        guard: Compare,
        before: Option<&Recorded>,
        says: Says,
    ) -> (Write, Effects) {
        let since = before
            .and_then(|b| b.since)
            .unwrap_or_else(|| self.now.whole_seconds());
        let record = PodScheduling {
            placements: before.map_or(0, |b| b.placements),
            conditions: vec![
                PodCondition::new(SCHEDULED, false, since).because(says.reason, &says.message),
            ],
            nominated_node: says.nominated.as_deref().map(Into::into),
            nodes: says.nodes,
            reasons: says.reasons,
            nearest: says.nearest,
        };
        let write = Write {
            guards: vec![guard, Compare::absent(self.binding_key())],
            ops: vec![put(self.record_key(), document::encode(&record))],
            context: format!("condition of {}", self.key),
        };
        (
            write,
            Effects {
                recorded: Some(Some(Recorded::of(&record))),
                ..Effects::default()
            },
        )
    }

    /// The write of a step; `None` for steps that write nothing.
    pub(crate) fn step(
        &self,
        facts: &Facts<'_>,
        step: &Step,
        spec: impl Fn(&Pod) -> String,
    ) -> Option<(Write, Effects)> {
        match step {
            // The account chooses the node first.
            Step::Place | Step::Move { .. } => None,
            Step::Rest | Step::Wait(_) | Step::Frozen(_) | Step::Invalid | Step::Stuck { .. } => {
                None
            }
            Step::Restore { binding, leaving } => Some(self.restore(facts, binding, *leaving)),
            Step::Forget { node } => Some(self.forget(facts, node.as_deref())),
            Step::Withdraw {
                why,
                claimed,
                consume,
            } => Some(self.withdraw(facts, *why, *claimed, consume)),
            Step::Finish => self.finish(facts),
            Step::Release { consume, fence } => self.release(facts, consume, *fence),
            Step::Refresh => self.refresh(facts, spec),
            Step::Switch { consume, how } => self.switch(facts, consume, *how, spec),
            Step::Undo(undo) => self.undo(facts, undo),
            Step::Left { lost } => self.left(facts, *lost),
            Step::DropIntents { which, why } => Some(self.drop_intents(facts, which, *why)),
            Step::DropWork { nodes } => Some(self.drop_work(facts, nodes)),
            Step::DropRecord => Some(self.drop_record(facts)),
        }
    }

    fn withdraw(
        &self,
        facts: &Facts<'_>,
        why: Why,
        claimed: bool,
        consume: &[usize],
    ) -> (Write, Effects) {
        let mut b = Building::new(
            self,
            facts,
            format!("withdrawal of {} ({})", self.key, why.as_str()),
        );
        b.consume(consume);
        if let Seen::Valid(binding) = facts.binding {
            let node = binding.value.node.as_str();
            b.drop_work(node);
            let other = binding.value.other_node();
            if let Some(moving) = &binding.value.moving {
                b.drop_work(&moving.to);
            }
            b.effects.binding = true;
            if claimed {
                // What has ended meanwhile would run again.
                if why != Why::Deleted {
                    b.guard_status(node);
                }
                // A budget lets a pod go from a node that does not answer, and not when it does again.
                if why == Why::Evicted && facts.session == Session::Absent {
                    b.guard_no_session(node);
                }
                let withdrawn = Withdrawal {
                    reason: why.as_str().into(),
                    at: self.now,
                    grace_seconds: match why {
                        Why::Evicted => grace_seconds(facts, consume),
                        _ => None,
                    },
                };
                if let Some(grace_seconds) = withdrawn.grace_seconds {
                    let order = StopOrder {
                        placement: binding.value.placement,
                        grace_seconds,
                    };
                    let order = document::encode(&order);
                    b.write.ops.push(put(self.stop_key(node), order));
                }
                let binding = Binding {
                    withdrawn: Some(withdrawn),
                    placements: moves::most_placements(&binding.value),
                    work_revision: None,
                    moving: None,
                    leaving: other.map(Into::into),
                    ..binding.value.clone()
                };
                b.write
                    .ops
                    .push(put(self.binding_key(), text::binding(&binding)));
            } else {
                b.write.guards.push(Compare::absent(self.actual_key(node)));
                b.unbind(&binding.value, self.wanted_again(facts, why.as_str(), node));
            }
        }
        b.done()
    }

    /// Writes a binding in the place of one that does not parse.
    fn restore(&self, facts: &Facts<'_>, binding: &Binding, leaving: bool) -> (Write, Effects) {
        let mut b = Building::new(self, facts, format!("restored binding of {}", self.key));
        let withdrawn = || Withdrawal {
            reason: LOST_REASON.into(),
            at: self.now,
            grace_seconds: None,
        };
        let binding = Binding {
            withdrawn: binding.withdrawn.clone().or(leaving.then(withdrawn)),
            ..binding.clone()
        };
        b.write
            .ops
            .push(put(self.binding_key(), text::binding(&binding)));
        b.effects.binding = true;
        b.done()
    }

    /// Deletes a binding that does not parse, and the work that no agent has claimed.
    fn forget(&self, facts: &Facts<'_>, node: Option<&str>) -> (Write, Effects) {
        let mut b = Building::new(self, facts, format!("broken binding of {}", self.key));
        match node {
            Some(node) => {
                b.write.guards.push(Compare::absent(self.actual_key(node)));
                b.drop_work(node);
            }
            None => b.write.guards.push(Compare::absent(self.desired_key())),
        }
        b.write.ops.push(TxnOp::Delete(self.binding_key()));
        b.effects.binding = true;
        b.done()
    }

    fn finish(&self, facts: &Facts<'_>) -> Option<(Write, Effects)> {
        let Seen::Valid(binding) = facts.binding else {
            return None;
        };
        let node = binding.value.node.as_str();
        let mut b = Building::new(self, facts, format!("end of the binding of {}", self.key));
        b.write.guards.push(Compare::absent(self.actual_key(node)));
        if let Some(leaving) = &binding.value.leaving {
            b.write
                .guards
                .push(Compare::absent(self.actual_key(leaving)));
        }
        let why = binding
            .value
            .withdrawn
            .as_ref()
            .map_or("Withdrawn", |w| w.reason.as_str());
        b.unbind(&binding.value, self.wanted_again(facts, why, node));
        Some(b.done())
    }

    fn release(
        &self,
        facts: &Facts<'_>,
        consume: &[usize],
        fence: bool,
    ) -> Option<(Write, Effects)> {
        let Seen::Valid(binding) = facts.binding else {
            return None;
        };
        let node = binding.value.node.as_str();
        let mut b = Building::new(self, facts, format!("release of {} from {node}", self.key));
        b.guard_no_session(node);
        if fence {
            b.write
                .guards
                .push(Compare::absent(self.keyspace.build(&Key::NodeFence(node))));
            // A claim without a fence that was not seen would prove nothing.
            let seen = match facts.actual {
                Seen::Valid(actual) => {
                    Compare::ModRevision(self.actual_key(node), actual.mod_revision)
                }
                Seen::Absent | Seen::Frozen => Compare::absent(self.actual_key(node)),
            };
            b.write.guards.push(seen);
        }
        b.consume(consume);
        b.write.ops.push(TxnOp::Delete(self.actual_key(node)));
        b.drop_work(node);
        let asked = consume
            .first()
            .and_then(|i| facts.intents[*i].intent.as_ref());
        let reason = asked
            .map(|i| i.reason.as_str())
            .filter(|r| !r.is_empty())
            .unwrap_or("the node is lost");
        let record = wanted(facts).map(|_| ("Released", format!("released from {node}: {reason}")));
        b.unbind(&binding.value, record);
        Some(b.done())
    }

    fn refresh(
        &self,
        facts: &Facts<'_>,
        spec: impl Fn(&Pod) -> String,
    ) -> Option<(Write, Effects)> {
        let (Seen::Valid(pod), Seen::Valid(binding)) = (facts.desired, facts.binding) else {
            return None;
        };
        let mut b = Building::new(self, facts, format!("work of {}", self.key));
        b.write
            .guards
            .push(Compare::ModRevision(self.desired_key(), pod.mod_revision));
        let binding = Binding {
            pod_revision: pod.mod_revision,
            never_twice: stops(&pod.value),
            requests: pod_requests(&pod.value.spec).into(),
            work_revision: None,
            ..binding.value.clone()
        };
        b.put_binding(&binding);
        let spec = spec(&pod.value);
        b.put_work(pod, &binding.node, binding.placement, &spec);
        if let Some(moving) = &binding.moving {
            b.put_work(pod, &moving.to, moving.placement, &spec);
        }
        Some(b.done())
    }

    fn drop_intents(&self, facts: &Facts<'_>, which: &[usize], why: Stale) -> (Write, Effects) {
        let mut b = Building::new(self, facts, format!("moot requests about {}", self.key));
        b.consume(which);
        if let Seen::Valid(binding) = facts.binding {
            let node = binding.value.node.as_str();
            match why {
                Stale::Elsewhere | Stale::Moving => {}
                Stale::NodeAlive(session) => {
                    b.write.guards.push(Compare::CreateRevision(
                        self.keyspace.build(&Key::NodeAlive(node)),
                        session,
                    ));
                }
                Stale::Ended(revision) => b
                    .write
                    .guards
                    .push(Compare::ModRevision(self.actual_key(node), revision)),
                Stale::NeverTwice(document) => b
                    .write
                    .guards
                    .extend(document.map(|at| Compare::ModRevision(self.desired_key(), at))),
            }
        }
        b.done()
    }

    fn drop_work(&self, facts: &Facts<'_>, nodes: &[Arc<str>]) -> (Write, Effects) {
        let mut b = Building::new(self, facts, format!("stray work of {}", self.key));
        for node in nodes {
            b.drop_work(node);
        }
        b.done()
    }

    fn drop_record(&self, facts: &Facts<'_>) -> (Write, Effects) {
        let mut b = Building::new(self, facts, format!("record of {}", self.key));
        if matches!(facts.desired, Seen::Absent) {
            b.write.guards.push(Compare::absent(self.desired_key()));
        }
        b.write.ops.push(TxnOp::Delete(self.record_key()));
        b.effects.recorded = Some(None);
        b.done()
    }

    /// The reason and message of a pod that leaves a node and is to be placed again; `None` when it is not wanted.
    fn wanted_again(
        &self,
        facts: &Facts<'_>,
        why: &str,
        node: &str,
    ) -> Option<(&'static str, String)> {
        wanted(facts)?;
        Some(("Withdrawn", format!("withdrawn from {node}: {why}")))
    }

    fn desired_key(&self) -> String {
        self.keyspace
            .build(&Key::Desired(Pod::PLURAL, self.key.clone()))
    }

    fn binding_key(&self) -> String {
        self.keyspace.build(&Key::Binding(self.key.clone()))
    }

    fn record_key(&self) -> String {
        self.keyspace
            .build(&Key::Actual(Pod::PLURAL, self.key.clone()))
    }

    fn work_key(&self, node: &str) -> String {
        self.keyspace.build(&Key::WorkPod(node, self.key.clone()))
    }

    fn stop_key(&self, node: &str) -> String {
        self.keyspace.build(&Key::WorkStop(node, self.key.clone()))
    }

    fn actual_key(&self, node: &str) -> String {
        self.keyspace.build(&Key::NodePod(node, self.key.clone()))
    }
}

/// The desired document when the binding was made for it: the pod is wanted though it leaves its node.
fn wanted<'a>(facts: &Facts<'a>) -> Option<&'a Stored<Pod>> {
    match (facts.desired, facts.binding) {
        (Seen::Valid(pod), Seen::Valid(binding)) if crate::decide::belongs(pod, &binding.value) => {
            Some(pod)
        }
        _ => None,
    }
}

/// A write in the making. Its first guard is that the binding is as it was seen.
struct Building<'a, 'b> {
    writer: &'a Writer<'a>,
    facts: &'a Facts<'b>,
    write: Write,
    effects: Effects,
}

impl<'a, 'b> Building<'a, 'b> {
    fn new(writer: &'a Writer<'a>, facts: &'a Facts<'b>, context: String) -> Self {
        let guard = match facts.binding {
            Seen::Valid(binding) => Some(Compare::ModRevision(
                writer.binding_key(),
                binding.mod_revision,
            )),
            Seen::Absent => Some(Compare::absent(writer.binding_key())),
            Seen::Frozen => facts
                .broken
                .map(|broken| Compare::ModRevision(writer.binding_key(), broken.mod_revision)),
        };
        let write = Write {
            guards: guard.into_iter().collect(),
            ops: Vec::new(),
            context,
        };
        Self {
            writer,
            facts,
            write,
            effects: Effects::default(),
        }
    }

    /// Deletes intents, as they were seen.
    fn consume(&mut self, which: &[usize]) {
        for intent in which.iter().map(|i| &self.facts.intents[*i]) {
            let key = Key::Intent {
                verb: intent.verb.as_str(),
                pod: self.writer.key.clone(),
                by: &intent.by,
            };
            let key = self.writer.keyspace.build(&key);
            self.write
                .guards
                .push(Compare::ModRevision(key.clone(), intent.revision));
            self.write.ops.push(TxnOp::Delete(key));
            self.effects
                .intents_gone
                .push((intent.verb, intent.by.clone(), intent.revision));
        }
    }

    /// What the node reports is as it was seen.
    fn guard_status(&mut self, node: &str) {
        if let Seen::Valid(actual) = self.facts.actual {
            let key = self.writer.actual_key(node);
            self.write
                .guards
                .push(Compare::ModRevision(key, actual.mod_revision));
        }
    }

    fn guard_no_session(&mut self, node: &str) {
        let alive = self.writer.keyspace.build(&Key::NodeAlive(node));
        self.write.guards.push(Compare::absent(alive));
    }

    fn put_binding(&mut self, binding: &Binding) {
        self.write
            .ops
            .push(put(self.writer.binding_key(), text::binding(binding)));
        self.effects.binding = true;
    }

    fn put_work(&mut self, pod: &Stored<Pod>, node: &str, placement: u32, spec: &str) {
        self.write
            .ops
            .push(put(self.writer.work_key(node), work(pod, placement, spec)));
        self.effects.work_put.push(node.into());
    }

    fn drop_work(&mut self, node: &str) {
        self.write
            .ops
            .push(TxnOp::Delete(self.writer.work_key(node)));
        self.effects.work_gone.push(node.into());
    }

    /// Deletes the binding. A pod that is wanted keeps the count of its placements, and says why it has no node.
    fn unbind(&mut self, binding: &Binding, record: Option<(&str, String)>) {
        self.write
            .ops
            .push(TxnOp::Delete(self.writer.binding_key()));
        self.effects.binding = true;
        let ordered = binding.withdrawn.as_ref().and_then(|w| w.grace_seconds);
        if ordered.is_some() {
            let order = self.writer.stop_key(&binding.node);
            self.write.ops.push(TxnOp::Delete(order));
        }
        if let Some((reason, message)) = record {
            let since = self.writer.now.whole_seconds();
            let record = PodScheduling {
                placements: binding.most_placements(),
                conditions: vec![
                    PodCondition::new(SCHEDULED, false, since).because(reason, &message),
                ],
                ..PodScheduling::default()
            };
            self.write
                .ops
                .push(put(self.writer.record_key(), document::encode(&record)));
            self.effects.recorded = Some(Some(Recorded::of(&record)));
        } else if self.facts.recorded.is_some() {
            self.write.ops.push(TxnOp::Delete(self.writer.record_key()));
            self.effects.recorded = Some(None);
        }
    }

    fn done(self) -> (Write, Effects) {
        (self.write, self.effects)
    }
}

/// The shortest time to stop that the requests to evict ask for which are carried out; `None`: the pod's own.
fn grace_seconds(facts: &Facts<'_>, consume: &[usize]) -> Option<i64> {
    let intents = consume.iter().map(|i| &facts.intents[*i]);
    let evict = intents.filter(|i| i.verb == Verb::Evict);
    evict
        .filter_map(|i| i.intent.as_ref()?.grace_seconds)
        .filter(|seconds| *seconds >= 0)
        .min()
}

/// What is kept of a decision.
fn decision(placement: &Placement, extras: Extras, revision: i64) -> PlacementDecision {
    PlacementDecision {
        revision,
        nodes: placement.nodes,
        feasible: placement.feasible,
        score: placement.score,
        runner_up: placement
            .runner_up
            .as_ref()
            .map(|r| ((*r.node).into(), r.score)),
        best: extras.best,
        profile: extras.profile,
        preempted: extras.preempted,
        ..PlacementDecision::default()
    }
}

fn work(pod: &Stored<Pod>, placement: u32, spec: &str) -> String {
    let header = WorkHeader {
        placement: Some(placement),
        uid: pod.uid(),
        source_revision: pod.mod_revision,
    };
    text::work(&header, &pod.value, spec)
}

pub(crate) fn put(key: String, value: String) -> TxnOp {
    TxnOp::Put(Put {
        key,
        value: value.into(),
        lease: None,
    })
}

#[cfg(test)]
mod tests;
