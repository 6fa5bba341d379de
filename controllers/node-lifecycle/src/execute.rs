//! Carries a plan out, and tells of what was written.

use std::sync::Arc;

use setpoint_apis::core::Node;
use setpoint_apis::records::{NodeHealth, NodeState};
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_runtime::events::{EventRef, Recorder};
use setpoint_runtime::{Leader, LeaderError, Write, WriteOutcome};
use setpoint_store::{Compare, Put, TxnOp};
use tracing::{info, warn};

use crate::decide::{Because, Plan, Step};

/// What became of a plan.
#[derive(Debug)]
pub(crate) enum Executed {
    /// All of it is written.
    Done,
    /// Something is not, and is to be decided again soon.
    Again(&'static str),
    /// Outcomes were unknown: decide again at once.
    Refenced,
    /// Somebody else leads.
    Deposed,
}

pub(crate) async fn execute(leader: &Leader, recorder: &Recorder, plan: Plan) -> Executed {
    let writes = plan
        .steps
        .iter()
        .map(|step| write(leader.keyspace(), step))
        .collect();
    let outcomes = match leader.commit(writes).await {
        Ok(outcomes) => outcomes,
        Err(LeaderError::Refenced { .. }) => return Executed::Refenced,
        Err(LeaderError::Deposed { .. }) => return Executed::Deposed,
    };
    let mut executed = Executed::Done;
    for (step, outcome) in plan.steps.iter().zip(outcomes) {
        match outcome {
            WriteOutcome::Committed(_) => tell(leader, recorder, step),
            WriteOutcome::Conflict(_) => executed = Executed::Again("a guard did not hold"),
            WriteOutcome::Failed(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "a conclusion was not written; trying again"
                );
                executed = Executed::Again("a write failed");
            }
        }
    }
    executed
}

fn write(keyspace: &Keyspace, step: &Step) -> Write {
    let desired =
        |node: &str| keyspace.build(&Key::Desired(Node::PLURAL, ObjectKey::cluster(node)));
    let alive = |node: &str| keyspace.build(&Key::NodeAlive(node));
    let put = |key: String, value: String| {
        TxnOp::Put(Put {
            key,
            value: value.into(),
            lease: None,
        })
    };
    let health_put = |node: &str, health: &NodeHealth| {
        put(keyspace.build(&Key::Health(node)), document::encode(health))
    };
    match step {
        Step::Register { node, health } => Write {
            guards: vec![
                Compare::absent(desired(node)),
                Compare::CreateRevision(alive(node), health.session),
            ],
            ops: vec![
                put(desired(node), declaration(node)),
                health_put(node, health),
            ],
            context: format!("registration of node {node}"),
        },
        Step::Conclude {
            node,
            health,
            because,
            ..
        } => Write {
            guards: match because {
                Because::Alive(session) => vec![Compare::CreateRevision(alive(node), *session)],
                Because::AliveUnwanted(session) => {
                    vec![
                        Compare::CreateRevision(alive(node), *session),
                        Compare::absent(desired(node)),
                    ]
                }
                Because::Silent => vec![Compare::absent(alive(node))],
            },
            ops: vec![health_put(node, health)],
            context: format!("health of node {node}"),
        },
        Step::Forget { node } => {
            let records = keyspace.node_actual_range(Some(node));
            Write {
                guards: vec![Compare::absent(alive(node)), Compare::absent(desired(node))],
                ops: vec![
                    TxnOp::Delete(keyspace.build(&Key::Health(node))),
                    TxnOp::DeleteRange {
                        start: records.start,
                        end: records.end,
                    },
                ],
                context: format!("removal of what is recorded of node {node}"),
            }
        }
    }
}

/// The desired document of a node that registers itself.
fn declaration(node: &str) -> String {
    // A name such as `1` or `true` has to be quoted.
    let name = document::encode(&node);
    format!(
        "apiVersion: {}\nkind: {}\nmetadata:\n  name: {}\n",
        Node::API_VERSION,
        Node::KIND,
        name.trim_end()
    )
}

fn tell(leader: &Leader, recorder: &Recorder, step: &Step) {
    let node = match step {
        Step::Register { node, .. } | Step::Conclude { node, .. } | Step::Forget { node } => node,
    };
    let about = reference(leader, node);
    match step {
        Step::Register { health, .. } => {
            info!(%node, session = health.session, "node registered");
            recorder.normal(
                about.clone(),
                "RegisteredNode",
                format!("node {node} registered itself"),
            );
            recorder.normal(
                about,
                "NodeReady",
                format!("session {} began", health.session),
            );
        }
        Step::Conclude { health, before, .. } => {
            info!(%node, state = ?health.state, session = health.session, message = health.message, "node health");
            match health.state {
                // Another agent in the same session.
                NodeState::Ready if *before == Some((NodeState::Ready, health.session)) => {}
                NodeState::Ready => {
                    recorder.normal(
                        about,
                        "NodeReady",
                        format!("session {} began", health.session),
                    );
                }
                NodeState::Unreachable
                    if before.is_some_and(|(state, _)| state == NodeState::Suspended) =>
                {
                    recorder.warning(
                        about,
                        "NodeNotReady",
                        "the outage is over and it did not come back: its pods are moved",
                    );
                }
                NodeState::Unreachable => {
                    recorder.warning(
                        about,
                        "NodeNotReady",
                        format!("{}: its pods are moved", health.message),
                    );
                }
                NodeState::Suspended => {
                    recorder.warning(about, "OutageBrake", health.message.clone())
                }
                NodeState::Removed => {
                    recorder.normal(about, "RemovingNode", health.message.clone())
                }
            }
        }
        Step::Forget { .. } => {
            info!(%node, "node forgotten");
            recorder.normal(
                about,
                "RemovedNode",
                format!("everything recorded of node {node} has been removed"),
            );
        }
    }
}

fn reference(leader: &Leader, node: &Arc<str>) -> EventRef {
    let key = ObjectKey::cluster(node.clone());
    let view = leader.cache().view();
    let uid = view
        .desired::<Node>()
        .entry(&key)
        .and_then(|e| e.last_good())
        .map_or_else(String::new, |s| s.uid());
    EventRef::of::<Node>(&key, uid)
}

#[cfg(test)]
mod tests;
