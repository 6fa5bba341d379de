//! Carries a plan out, and keeps the account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::core::{Node, Pod};
use setpoint_apis::records::Intent;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, Timestamp, document};
use setpoint_runtime::events::{EventRef, Recorder};
use setpoint_runtime::{Leader, LeaderError, Write, WriteOutcome};
use setpoint_store::{Compare, Put, TxnOp};
use tracing::{info, warn};

use crate::account::{Account, BY, News, VERB};
use crate::decide::{Held, PARTITION_POLICY, Plan, Request, Step};

/// What became of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executed {
    /// All of it is written.
    Done,
    /// Something is not, and is to be decided again soon.
    Again,
    /// Outcomes were unknown: list anew and decide again.
    Refenced,
    /// Somebody else leads.
    Deposed,
}

pub(crate) async fn execute(
    leader: &Leader,
    recorder: &Recorder,
    account: &mut Account,
    plan: &Plan,
) -> Executed {
    plan.settled.iter().for_each(|pod| account.forget(pod));
    let writes = plan
        .steps
        .iter()
        .map(|step| write(leader.keyspace(), step))
        .collect();
    // Intents are outside the state trees: the cache never sees them, the account does.
    let outcomes = match leader.commit_only(writes).await {
        Ok(outcomes) => outcomes,
        Err(LeaderError::Refenced { .. }) => return Executed::Refenced,
        Err(LeaderError::Deposed { .. }) => return Executed::Deposed,
    };
    let mut executed = Executed::Done;
    let mut lost = BTreeMap::<Arc<str>, usize>::new();
    for (step, outcome) in plan.steps.iter().zip(outcomes) {
        match (outcome, step) {
            (
                WriteOutcome::Committed(_),
                Step::Release {
                    pod,
                    binding,
                    health_revision,
                    ..
                },
            ) => {
                account.note(
                    pod.clone(),
                    Request {
                        node: binding.node.clone(),
                        session: binding.session,
                        health_revision: *health_revision,
                        read: false,
                    },
                );
                tell(leader, recorder, pod, &binding.node);
                *lost.entry(binding.node.clone()).or_default() += 1;
            }
            (WriteOutcome::Committed(_), Step::Withdraw { pod, .. }) => account.forget(pod),
            (WriteOutcome::Conflict(_), _) => executed = Executed::Again,
            (WriteOutcome::Failed(error), _) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "an intent was not written; trying again"
                );
                executed = Executed::Again;
            }
        }
    }
    for (node, pods) in lost {
        let about = reference::<Node>(leader, &ObjectKey::cluster(node.clone()));
        recorder.normal(
            about,
            "PodsReleased",
            format!("asked for the release of {pods} pods of node {node}"),
        );
    }
    executed
}

fn write(keyspace: &Keyspace, step: &Step) -> Write {
    let key = |pod: &ObjectKey| {
        keyspace.build(&Key::Intent {
            verb: VERB,
            pod: pod.clone(),
            by: BY,
        })
    };
    match step {
        Step::Release {
            pod,
            binding,
            health_revision,
            unfenced,
        } => {
            let intent = Intent {
                node: Some(binding.node.to_string()),
                session: Some(binding.session),
                reason: format!("node {} is unreachable", binding.node),
                ..Intent::default()
            };
            let mut guards = vec![
                Compare::absent(keyspace.build(&Key::NodeAlive(&binding.node))),
                Compare::ModRevision(
                    keyspace.build(&Key::Health(&binding.node)),
                    *health_revision,
                ),
                Compare::ModRevision(keyspace.build(&Key::Binding(pod.clone())), binding.revision),
            ];
            if *unfenced {
                guards.push(Compare::absent(
                    keyspace.build(&Key::NodeFence(&binding.node)),
                ));
            }
            Write {
                guards,
                ops: vec![TxnOp::Put(Put {
                    key: key(pod),
                    value: document::encode(&intent).into(),
                    lease: None,
                })],
                context: format!("release of pod {pod} from node {}", binding.node),
            }
        }
        Step::Withdraw { pod, node } => Write {
            guards: Vec::new(),
            ops: vec![TxnOp::Delete(key(pod))],
            context: format!("withdrawal of the release of pod {pod} from node {node}"),
        },
    }
}

fn tell(leader: &Leader, recorder: &Recorder, pod: &ObjectKey, node: &str) {
    let message = format!("node {node} is unreachable: the pod is released from it");
    recorder.warning(reference::<Pod>(leader, pod), "NodeLost", message);
}

/// Says of a pod that it is left on a lost node, why, and what can be done or until when.
pub(crate) fn tell_held(
    leader: &Leader,
    recorder: &Recorder,
    pod: &ObjectKey,
    node: &str,
    News { held, wanted }: News,
) {
    let message = if held == Held::Fenced {
        waits(node, fence_end(leader, pod, node))
    } else {
        kept(leader.keyspace(), pod, node, held, wanted)
    };
    info!(object = %pod, node, reason = held.as_str(), "a pod is left on a lost node");
    recorder.warning(reference::<Pod>(leader, pod), "NodeLost", message);
}

/// When the fence that a pod was claimed under ends, about: it was renewed for the last time before the loss was noticed.
fn fence_end(leader: &Leader, pod: &ObjectKey, node: &str) -> Option<Timestamp> {
    let view = leader.cache().view();
    let health = view.health().entry(&ObjectKey::cluster(node))?.valid()?;
    let fence = view.pod_on(node, pod)?.valid()?.value.fence?;
    Some(health.value.since + Duration::from_secs(fence.lease_ttl_seconds.try_into().ok()?))
}

fn waits(node: &str, end: Option<Timestamp>) -> String {
    let when = end.map_or_else(String::new, |end| format!(", about {end} at the latest"));
    format!(
        "node {node} is unreachable, and the pod must never run twice ({PARTITION_POLICY}: stop): it is released when the node's fence lease has ended{when}"
    )
}

fn kept(keyspace: &Keyspace, pod: &ObjectKey, node: &str, held: Held, wanted: bool) -> String {
    let command = if wanted {
        let (name, namespace) = (&pod.name, &pod.namespace);
        format!(
            "setpoint annotate pod {name} -n {namespace} {PARTITION_POLICY}=replace --overwrite"
        )
    } else {
        // There is no document left to annotate.
        format!("etcdctl del {}", keyspace.build(&Key::Binding(pod.clone())))
    };
    format!(
        "node {node} is unreachable, and the pod is kept on it until it is back ({}). Once it is certain that nothing of the pod runs there any more, this gives it up: {command}",
        held.as_str()
    )
}

fn reference<K: Kind>(leader: &Leader, key: &ObjectKey) -> EventRef {
    let view = leader.cache().view();
    let uid = view
        .desired::<K>()
        .entry(key)
        .and_then(|e| e.last_good())
        .map_or_else(String::new, |s| s.uid());
    EventRef::of::<K>(key, uid)
}

#[cfg(test)]
mod tests;
