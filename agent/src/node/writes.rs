//! The node's guarded writes, and what becomes of them.

use std::sync::Arc;

use setpoint_apis::records::{ClaimFence, PodActual, PodStage};
use setpoint_apis::{Key, Keyspace, ObjectKey, Timestamp, document};
use setpoint_store::group_commit::{GroupCommit, Item, ItemOutcome};
use setpoint_store::{Compare, Put, StoreError, TxnOp};

use super::session::Session;
use super::state::{NodeWrite, State};

/// A write on its way, with what it would make true.
pub(crate) struct Pending {
    pub(crate) write: NodeWrite,
    /// The record that the write puts; `None` for a deletion.
    pub(crate) record: Option<Arc<PodActual>>,
}

/// How a batch ended.
pub(crate) struct Done {
    /// Per write: what became of it.
    pub(crate) outcomes: Vec<(Pending, Fate)>,
    /// At least one outcome is unknown: the fence is to be renewed before anything else is written.
    pub(crate) unknown: bool,
}

/// What became of one write.
#[derive(Debug)]
pub(crate) enum Fate {
    Written,
    Rejected,
    Failed(StoreError),
}

/// Makes the items of a batch: each guarded by the session, claims by more.
pub(crate) fn items(
    keyspace: &Keyspace,
    node: &str,
    session: &Session,
    state: &State,
    writes: Vec<NodeWrite>,
    now: Timestamp,
    host_ip: Option<String>,
) -> Vec<(Pending, Item)> {
    let fence = Compare::ModRevision(keyspace.build(&Key::NodeAlive(node)), session.epoch);
    writes
        .into_iter()
        .filter_map(|write| {
            let (key, guards, record) = match &write {
                NodeWrite::Claim(key, revision) => {
                    let work = state.work.get(key)?;
                    let claim = PodActual {
                        placement: work.placement(),
                        uid: work.header.uid.clone(),
                        stage: PodStage::Starting,
                        host_ip: host_ip.clone(),
                        start_time: Some(now),
                        fence: match work.never_twice() {
                            true => Some(state.fence?.claim),
                            false => None,
                        },
                        ..PodActual::default()
                    };
                    let guards = record_guards(keyspace, node, key, *revision, claim.fence);
                    (key, guards, Some(Arc::new(claim)))
                }
                NodeWrite::Status(key) => (
                    key,
                    Vec::new(),
                    Some(state.locals.get(key)?.actual.clone()?),
                ),
                NodeWrite::Restore(key, revision) => {
                    let record = state.locals.get(key)?.actual.clone()?;
                    let guards = record_guards(keyspace, node, key, *revision, record.fence);
                    (key, guards, Some(record))
                }
                NodeWrite::Forget(key) => (key, Vec::new(), None),
            };
            let target = actual_key(keyspace, node, key);
            let op = match &record {
                Some(record) => TxnOp::Put(Put {
                    key: target,
                    value: document::encode(&**record).into(),
                    lease: None,
                }),
                None => TxnOp::Delete(target),
            };
            let context = match &write {
                NodeWrite::Claim(key, _) => format!("claiming pod {key}"),
                NodeWrite::Status(key) => format!("reporting pod {key}"),
                NodeWrite::Restore(key, _) => format!("restoring the record of pod {key}"),
                NodeWrite::Forget(key) => format!("removing the record of pod {key}"),
            };
            let mut all = vec![fence.clone()];
            all.extend(guards);
            Some((
                Pending { write, record },
                Item {
                    guards: all,
                    then: vec![op],
                    context,
                },
            ))
        })
        .collect()
}

/// What must hold when a record is created: the work is as it was seen, there is no record, and the fence stands under
/// which the pod is claimed.
fn record_guards(
    keyspace: &Keyspace,
    node: &str,
    pod: &ObjectKey,
    work_revision: i64,
    fence: Option<ClaimFence>,
) -> Vec<Compare> {
    let work = keyspace.build(&Key::WorkPod(node, pod.clone()));
    let mut guards = vec![
        Compare::ModRevision(work, work_revision),
        Compare::absent(actual_key(keyspace, node, pod)),
    ];
    guards.extend(fence.map(|fence| {
        let key = keyspace.build(&Key::NodeFence(node));
        Compare::CreateRevision(key, fence.revision)
    }));
    guards
}

/// Sends a batch.
pub(crate) async fn send(commits: GroupCommit, batch: Vec<(Pending, Item)>) -> Done {
    let (pending, items): (Vec<Pending>, Vec<Item>) = batch.into_iter().unzip();
    let mut unknown = false;
    let outcomes = commits
        .submit_all(items)
        .await
        .into_iter()
        .zip(pending)
        .map(|(outcome, pending)| {
            let fate = match outcome {
                ItemOutcome::Committed { .. } => Fate::Written,
                ItemOutcome::Rejected { .. } => Fate::Rejected,
                ItemOutcome::Failed(error) => Fate::Failed(error),
                ItemOutcome::Unknown(error) => {
                    unknown = true;
                    Fate::Failed(error)
                }
            };
            (pending, fate)
        })
        .collect();
    Done { outcomes, unknown }
}

pub(crate) fn actual_key(keyspace: &Keyspace, node: &str, pod: &ObjectKey) -> String {
    keyspace.build(&Key::NodePod(node, pod.clone()))
}
