//! The decision: from what is known of every node, and the time, to a plan. No clock, no store.

mod brake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::core::{Taint, TaintEffect};
use setpoint_apis::names;
use setpoint_apis::records::{NodeHealth, NodeState};
use setpoint_apis::time::Timestamp;

pub use brake::{BrakeFacts, GRACE, WINDOW};

/// Keeps pods away from a node that is not there; `NoExecute` where its pods are given up.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Keeps pods away from a node that its user has deleted.
pub const TAINT_REMOVED: &str = "setpoint.dev/removed";

/// How long a deleted node is remembered after its session was lost, so that an agent that was only held up for a moment
/// does not register it again. Five times the usual time to live of a session.
pub const REMEMBERED: Duration = Duration::from_secs(30);

/// What is known of all nodes, at one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By name: every node that has a session, a desired document, a health record, records of its agent, or a pod
    /// bound to it.
    pub nodes: BTreeMap<Arc<str>, NodeFacts>,
    /// Whether there are bindings that cannot be read: any node may have a pod then.
    pub unreadable_bindings: bool,
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Its session.
    pub session: Session,
    /// When the agent that holds the session was started.
    pub agent_since: Option<Timestamp>,
    /// Whether it has a desired document, readable or not.
    pub desired: bool,
    /// What was concluded last.
    pub health: Option<NodeHealth>,
    /// Whether the present health record cannot be read (somebody else wrote it): `health` is the last good one.
    pub health_unreadable: bool,
    /// How many bindings name it.
    pub bindings: usize,
    /// The newest session that a binding names.
    pub bound_session: i64,
    /// Whether its agent has left records.
    pub recorded: bool,
    /// Whether its lease has missed a renewal. Only known when it was asked for.
    pub late: bool,
    /// Whether that was asked for and there was no answer.
    pub in_doubt: bool,
}

impl NodeFacts {
    /// Whether its desired document was deleted while this agent ran. An agent that nothing was concluded about yet
    /// registers its node instead, be its session a new one or that of the agent before it; an agent that has lost its
    /// session and taken another is still the same.
    fn is_unwanted(&self, session: i64) -> bool {
        let known = |h: &NodeHealth| match h.agent_since {
            Some(_) => h.agent_since == self.agent_since,
            None => h.session == session,
        };
        !self.desired && self.health.as_ref().is_some_and(known)
    }

    /// Until when the agent of a deleted node may come back and is to be known again; `None` when it is not waited for.
    fn remembered(&self, now: Timestamp) -> Option<Timestamp> {
        let health = self.health.as_ref()?;
        health.agent_since?;
        if !SILENT.contains(&health.state) {
            return Some(now + REMEMBERED);
        }
        // A silence that lies ahead is a clock that was set back: waiting for its end could take for ever.
        let until = health.since + REMEMBERED;
        (health.since <= now && now < until).then_some(until)
    }

    /// The start of its agent, of the last one when it has none.
    fn last_agent(&self) -> Option<Timestamp> {
        let before = self.health.as_ref().and_then(|h| h.agent_since);
        self.agent_since.or(before)
    }

    /// Whether it was concluded that it is lost.
    fn is_given_up(&self) -> bool {
        self.health
            .as_ref()
            .is_some_and(|h| h.state == NodeState::Unreachable)
    }

    /// Whether it has never had a session. With a pod bound to it, it has: the scheduler saw it at least.
    fn never_seen(&self) -> bool {
        self.session == Session::Absent
            && self.health.is_none()
            && !self.health_unreadable
            && self.bindings == 0
    }
}

/// A node's session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Session {
    /// There is none.
    #[default]
    Absent,
    /// Alive: the create revision of the key.
    Alive(i64),
    /// The key exists and has never been readable: nothing is concluded from it.
    Unreadable,
}

/// What to do, and what is waited for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Independent of each other.
    pub steps: Vec<Step>,
    /// What the brake was decided on.
    pub brake: BrakeFacts,
    /// Nodes for which something is due that cannot be done yet, with the reason.
    pub waiting: Vec<(Arc<str>, String)>,
    /// When to decide again even when nothing changes.
    pub next_look: Option<Timestamp>,
}

/// One guarded write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the desired document of a node that nobody has declared, and its health.
    Register {
        /// The node.
        node: Arc<str>,
        /// `Ready`.
        health: NodeHealth,
    },
    /// Write the health of a node.
    Conclude {
        /// The node.
        node: Arc<str>,
        /// What is written.
        health: NodeHealth,
        /// What the conclusion is drawn from.
        because: Because,
        /// State and session before, when there was one.
        before: Option<(NodeState, i64)>,
    },
    /// Remove everything that is recorded of a node that is neither wanted nor there.
    Forget {
        /// The node.
        node: Arc<str>,
    },
}

/// What a conclusion is drawn from, and hence guarded on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// This session is alive.
    Alive(i64),
    /// This session is alive and there is no desired document.
    AliveUnwanted(i64),
    /// There is no session.
    Silent,
}

impl Step {
    /// Whether it leads to a state in which the node's pods are waited for.
    pub fn waits_for_bindings(&self) -> bool {
        matches!(
            self,
            Self::Conclude {
                because: Because::Silent,
                ..
            }
        )
    }
}

impl Plan {
    /// Whether it gives up a node of which we do not know for certain that its user wants that.
    pub fn gives_up_nodes(&self) -> bool {
        self.steps
            .iter()
            .any(|s| matches!(s, Step::Conclude { health, .. } if health.state == NodeState::Unreachable))
    }
}

/// Decides what to conclude.
pub fn decide(snapshot: &Snapshot, now: Timestamp) -> Plan {
    let brake = BrakeFacts::of(snapshot, now);
    let mut plan = Plan {
        brake,
        ..Plan::default()
    };
    for (name, facts) in &snapshot.nodes {
        match facts.session {
            Session::Alive(session) => present(&mut plan, name, facts, session, now),
            Session::Absent => absent(&mut plan, snapshot, name, facts, now),
            Session::Unreadable => plan
                .waiting
                .push((name.clone(), "its session cannot be read".into())),
        }
    }
    plan
}

fn present(plan: &mut Plan, name: &Arc<str>, facts: &NodeFacts, session: i64, now: Timestamp) {
    if facts.is_unwanted(session) {
        return conclude(
            plan,
            name,
            facts,
            removed(session, facts, now),
            Because::AliveUnwanted(session),
        );
    }
    let health = ready(session, facts, now);
    if facts.desired {
        return conclude(plan, name, facts, health, Because::Alive(session));
    }
    match names::dns_subdomain(name) {
        Ok(()) => plan.steps.push(Step::Register {
            node: name.clone(),
            health,
        }),
        Err(problem) => plan.waiting.push((
            name.clone(),
            format!("cannot be registered: its name {problem}"),
        )),
    }
}

fn absent(
    plan: &mut Plan,
    snapshot: &Snapshot,
    name: &Arc<str>,
    facts: &NodeFacts,
    now: Timestamp,
) {
    let deleted = || unreachable(facts, "its lease expired, and it has been deleted", now);
    if facts.desired {
        if facts.never_seen() {
            return;
        }
        let health = if plan.brake.engaged() {
            if !brake::recently_silent(facts, now) {
                // Given up long before this outage.
                return;
            }
            suspended(facts, &plan.brake, now)
        } else if let Some(until) = plan.brake.grace(facts, now) {
            plan.next_look = Some(plan.next_look.map_or(until, |at| at.min(until)));
            plan.waiting.push((
                name.clone(),
                "the outage has just ended: it may still come back".into(),
            ));
            return;
        } else if plan.brake.could_engage() && !facts.is_given_up() {
            plan.waiting
                .push((name.clone(), "it is not known who else is late".into()));
            return;
        } else {
            unreachable(facts, "its lease expired", now)
        };
        return conclude(plan, name, facts, health, Because::Silent);
    }
    if facts.bindings > 0 || snapshot.unreadable_bindings {
        // Its user has said that it is gone, so not even the brake keeps its pods there.
        conclude(plan, name, facts, deleted(), Because::Silent);
        plan.waiting.push(match facts.bindings {
            0 => (
                name.clone(),
                "a binding cannot be read: it may be of a pod there".into(),
            ),
            n => (name.clone(), format!("{n} pods are not yet released")),
        });
        return;
    }
    if let Some(until) = facts.remembered(now) {
        conclude(plan, name, facts, deleted(), Because::Silent);
        plan.next_look = Some(plan.next_look.map_or(until, |at| at.min(until)));
        plan.waiting.push((
            name.clone(),
            "its agent may only have been held up, and must not register it again".into(),
        ));
        return;
    }
    if facts.health.is_some() || facts.health_unreadable || facts.recorded {
        plan.steps.push(Step::Forget { node: name.clone() });
    }
}

/// Plans to write `health`, unless it says nothing new.
fn conclude(
    plan: &mut Plan,
    name: &Arc<str>,
    facts: &NodeFacts,
    health: NodeHealth,
    because: Because,
) {
    let before = facts.health.as_ref();
    // Numbers in a message may move on; that alone is not worth a write per node.
    let same = before.is_some_and(|b| {
        (b.state, b.session, b.agent_since, &b.taints)
            == (
                health.state,
                health.session,
                health.agent_since,
                &health.taints,
            )
    });
    if !same || facts.health_unreadable {
        plan.steps.push(Step::Conclude {
            node: name.clone(),
            health,
            because,
            before: before.map(|b| (b.state, b.session)),
        });
    }
}

fn ready(session: i64, facts: &NodeFacts, now: Timestamp) -> NodeHealth {
    NodeHealth {
        state: NodeState::Ready,
        session,
        agent_since: facts.agent_since,
        since: since(facts, &[NodeState::Ready], now),
        message: String::new(),
        taints: Vec::new(),
    }
}

fn removed(session: i64, facts: &NodeFacts, now: Timestamp) -> NodeHealth {
    NodeHealth {
        state: NodeState::Removed,
        session,
        agent_since: facts.agent_since,
        since: since(facts, &[NodeState::Removed], now),
        message: "deleted while its agent is running: nothing new is placed here; restart the agent to register it again"
            .into(),
        taints: vec![taint(TAINT_REMOVED, TaintEffect::NoSchedule, None)],
    }
}

fn unreachable(facts: &NodeFacts, message: &str, now: Timestamp) -> NodeHealth {
    let since = since(facts, SILENT, now);
    NodeHealth {
        state: NodeState::Unreachable,
        session: last_session(facts),
        agent_since: facts.last_agent(),
        since,
        message: message.into(),
        taints: vec![
            taint(TAINT_UNREACHABLE, TaintEffect::NoSchedule, None),
            taint(TAINT_UNREACHABLE, TaintEffect::NoExecute, Some(since)),
        ],
    }
}

fn suspended(facts: &NodeFacts, brake: &BrakeFacts, now: Timestamp) -> NodeHealth {
    NodeHealth {
        state: NodeState::Suspended,
        session: last_session(facts),
        agent_since: facts.last_agent(),
        since: since(facts, SILENT, now),
        message: brake.to_string(),
        taints: vec![taint(TAINT_UNREACHABLE, TaintEffect::NoSchedule, None)],
    }
}

/// The states of a node that is silent: `since` is the beginning of the silence in both.
const SILENT: &[NodeState] = &[NodeState::Unreachable, NodeState::Suspended];

fn since(facts: &NodeFacts, states: &[NodeState], now: Timestamp) -> Timestamp {
    facts
        .health
        .as_ref()
        .filter(|h| states.contains(&h.state))
        .map_or(now, |h| h.since)
}

fn last_session(facts: &NodeFacts) -> i64 {
    facts
        .health
        .as_ref()
        .map_or(0, |h| h.session)
        .max(facts.bound_session)
}

fn taint(key: &str, effect: TaintEffect, time_added: Option<Timestamp>) -> Taint {
    Taint {
        key: key.into(),
        value: None,
        effect,
        time_added,
    }
}

#[cfg(test)]
mod tests;
