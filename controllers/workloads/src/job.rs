//! Jobs: pods of one template that run until enough of them have succeeded.
//!
//! # Promise
//! - Every pod that ends is counted once, whatever becomes of controllers: [`decide`](mod@decide) says how.
//! - A pod that is moved to another node has not failed. It is the same pod: only how it ends where it is now counts, and
//!   not while it is being taken back from there (evicted, preempted, released).
//! - At most `parallelism` pods are wanted at a time, of an Indexed Job one of each index. Replacements of pods that
//!   failed wait longer and longer.
//! - How the Job ends is written down (`SuccessCriteriaMet`, `FailureTarget`) before what still runs is deleted, and that
//!   it has ended (`Complete`, `Failed`) when nothing runs any more. That never changes again. Pods that have ended stay
//!   for their logs until the Job is deleted.
//! - The user's document is never written. A selector that it leaves out is made from the uid: pods carry it as a label.
//! - While the document, or the status with the counts, does not parse nothing is created, deleted or counted.
//!
//! # The one user's document that is deleted
//! With `ttlSecondsAfterFinished` a Job is deleted so long after its end. Nothing else here deletes what a user wrote
//! (one writer per key), and this is no second writer: the document itself says when it is to go, the delete
//! holds only while document and status are as they were seen, and nobody changes what it says. The alternatives were a
//! key of its own with a lease, which etcd would delete without looking, and a mark that others take for a deletion,
//! which every reader would have to know.

mod count;
pub mod decide;
mod documents;
mod names;
pub mod numbers;
mod observe;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::batch::Job;
use setpoint_apis::core::Namespace;
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_runtime::events::EventRef;
use setpoint_runtime::{Action, Leader, StateKey, Stored, View, Write};
use setpoint_store::{Compare, TxnOp};
use tokio::time::Instant;
use tracing::info;

use crate::door::Doors;
use crate::index::OwnerIndex;
pub use crate::manager::Error;
use crate::manager::Manager;
use crate::memory::Memory;
use crate::overlaps::Overlaps;
use crate::owner::PodOwner;
use crate::seen::Seen;
use crate::{Shared, pass, writes};
use decide::decide;
use documents::PodWriter;
use observe::{Found, observe};
use plan::{NewPod, Plan, Record, Snapshot};

/// What is remembered about Jobs.
pub(crate) type Jobs = Memory<Notes>;

/// What is remembered about a Job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// The store refused the last pod.
    refused: bool,
    /// What people were told of a status that cannot be read.
    told: Option<String>,
}

/// Which changes make a Job look again.
pub(crate) fn concerns(key: &StateKey) -> bool {
    match key {
        StateKey::Desired(plural, _) => {
            [Namespace::PLURAL, Job::PLURAL].contains(plural)
                || OwnerIndex::concerns(key)
                || Overlaps::concerns(key)
                || Doors::concerns(key)
        }
        StateKey::Actual(plural, _) => *plural == Job::PLURAL,
        StateKey::Deletion(plural, _) => **plural == *Job::PLURAL,
        _ => OwnerIndex::concerns(key),
    }
}

/// Which Jobs a change concerns.
pub(crate) fn keys(shared: &Shared, change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
    let mut index = shared.index.lock();
    index.catch_up(view);
    let mut keys = index.take_touched(PodOwner::Job);
    keys.extend(shared.overlapping::<Job>(view));
    keys.extend(shared.doors.roused::<Job>(change, view));
    match change {
        StateKey::Actual(_, key) | StateKey::Deletion(_, key) => keys.push(key.clone()),
        StateKey::Desired(plural, key) if *plural == Job::PLURAL => keys.push(key.clone()),
        StateKey::Desired(plural, namespace) if *plural == Namespace::PLURAL => {
            let jobs = view.desired::<Job>().namespace(&namespace.name);
            keys.extend(jobs.map(|(key, _)| key.clone()));
        }
        _ => {}
    }
    keys
}

/// One pass over one Job.
pub(crate) async fn reconcile(
    shared: Arc<Shared>,
    leader: Leader,
    key: ObjectKey,
) -> Result<Action, Error> {
    let planned = pass::plan(
        &shared.jobs,
        &shared.clock,
        &key,
        || observe(&shared, &leader.cache().view(), &key),
        |(s, _)| s.pods.len(),
        |(s, _), now| decide(s, now),
    );
    match planned {
        Ok(((snapshot, found), plan)) => execute(&shared, &leader, &snapshot, found, plan).await,
        Err(action) => Ok(action),
    }
}

async fn execute(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    found: Found,
    plan: Plan,
) -> Result<Action, Error> {
    let mut action = Action {
        requeue_after: plan.look_again,
    };
    let about = || EventRef::of::<Job>(&s.key, s.uid.as_str());
    // Once per message, not at every pass.
    let told = shared.jobs.with(&s.key, |memo| {
        std::mem::replace(&mut memo.notes.told, s.lost_count.clone())
    });
    if let Some(error) = s.lost_count.as_ref().filter(|e| told.as_ref() != Some(e)) {
        let message = format!("{error}; mend or delete the status, and pods are counted again");
        shared
            .recorder
            .warning(about(), "StatusUnreadable", message);
    }
    let mut tally = writes::Tally::default();
    if let Some(object) = found.object.as_deref() {
        if plan.create.is_empty() {
            // Whatever the namespace did not let in is not wanted any more.
            shared.doors.forget((Job::KIND, &s.key));
        }
        if plan.expire {
            let expire = expire(leader, s, object, &found);
            if !tally.commit(leader, vec![expire]).await {
                return Ok(Action::requeue(writes::SOON));
            }
            if tally.committed > 0 {
                info!(object = %s.key, "deleted a Job: its time after its end is over");
            }
        } else if plan.acts() && !act(shared, leader, s, object, &plan, &mut tally).await? {
            // Deposed, or fenced off: whatever is due is decided afresh.
            return Ok(Action::requeue(writes::SOON));
        }
    }
    if found.object.is_some() && plan.create.is_empty() {
        shared.doors.forget((Job::KIND, &s.key));
    }
    if let Some(status) = &plan.status {
        let wait = shared
            .jobs
            .with(&s.key, |memo| memo.status_too_soon(Instant::now()));
        if let Some(wait) = wait {
            action.requeue_after = Some(action.requeue_after.map_or(wait, |d| d.min(wait)));
        } else {
            let before = tally.committed;
            let write = status_write(leader, s, &found, document::encode(status));
            if !tally.commit(leader, vec![write]).await {
                return Ok(Action::requeue(writes::SOON));
            }
            if tally.committed > before {
                for told in plan.tell {
                    info!(object = %s.key, reason = told.reason, "the state of a Job changed");
                    let recorder = &shared.recorder;
                    match told.warning {
                        true => recorder.warning(about(), told.reason, told.message),
                        false => recorder.normal(about(), told.reason, told.message),
                    }
                }
            }
        }
    }
    tally.catch_up(leader).await;
    action.requeue_after = tally.comes_back(action.requeue_after);
    match tally.first_error {
        Some(source) => Err(Error::Refused {
            refused: tally.refused,
            source,
        }),
        None => Ok(action),
    }
}

/// Adopts, releases, deletes, creates. `false` when nothing more may be written on this snapshot.
async fn act(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    object: &Stored<Job>,
    plan: &Plan,
    tally: &mut writes::Tally,
) -> Result<bool, Error> {
    let manager = Manager::new(shared, leader, &s.key, object);
    for (pods, adopts) in [(&plan.adopt, true), (&plan.release, false)] {
        if !manager.change_owner(tally, pods, adopts).await? {
            return Ok(false);
        }
    }
    let records: BTreeMap<&ObjectKey, &Record> = plan
        .delete
        .iter()
        .map(|r| (&r.pod.key, &r.record))
        .collect();
    let going: Vec<&Seen> = plan.delete.iter().map(|r| &r.pod).collect();
    let as_seen = |pod: &Seen| record_guard(leader, &pod.key, records.get(&pod.key)?);
    if !manager.delete_when(tally, &going, as_seen).await {
        return Ok(false);
    }
    if plan.create.is_empty() {
        return Ok(true);
    }
    let by_name: BTreeMap<&str, &NewPod> =
        plan.create.iter().map(|p| (p.name.as_str(), p)).collect();
    let names: Vec<String> = plan.create.iter().map(|p| p.name.clone()).collect();
    let made = manager.furnished(&object.value.spec.template);
    let writer = PodWriter::new(&object.value, &made.template, manager.reference());
    let document = |name: &str| {
        let pod = by_name.get(name);
        pod.map(|pod| writer.document(pod)).unwrap_or_default()
    };
    let created = manager.create(tally, &names, &made.asked(), document).await;
    shared.jobs.with(&s.key, |memo| {
        memo.notes.refused = created.failure.is_some();
    });
    Ok(created.go_on)
}

/// Holds while a node reports of a pod what was seen.
fn record_guard(leader: &Leader, pod: &ObjectKey, record: &Record) -> Option<Compare> {
    let keyspace = leader.keyspace();
    let on = |node: &str| keyspace.build(&Key::NodePod(node, pod.clone()));
    Some(match record {
        Record::Unbound => Compare::absent(keyspace.build(&Key::Binding(pod.clone()))),
        Record::Absent(node) => Compare::absent(on(node)),
        Record::At(node, revision) => Compare::ModRevision(on(node), *revision),
    })
}

/// The write of a status. What is counted in it was counted from the status as seen, of the Job as seen.
fn status_write(leader: &Leader, s: &Snapshot, found: &Found, text: String) -> Write {
    let keyspace = leader.keyspace();
    let status = keyspace.build(&Key::Actual(Job::PLURAL, s.key.clone()));
    let desired = keyspace.build(&Key::Desired(Job::PLURAL, s.key.clone()));
    let before = match found.status_revision {
        Some(revision) => Compare::ModRevision(status.clone(), revision),
        None => Compare::absent(status.clone()),
    };
    Write {
        guards: vec![Compare::ModRevision(desired, found.revision), before],
        ops: vec![writes::put(status, text)],
        context: format!("status of job {}", s.key),
    }
}

/// The deletion of a Job whose time after its end is over.
fn expire(leader: &Leader, s: &Snapshot, object: &Stored<Job>, found: &Found) -> Write {
    let keyspace = leader.keyspace();
    let status = keyspace.build(&Key::Actual(Job::PLURAL, s.key.clone()));
    let desired = keyspace.build(&Key::Desired(Job::PLURAL, s.key.clone()));
    Write {
        guards: vec![
            Compare::ModRevision(desired.clone(), object.mod_revision),
            Compare::ModRevision(status, found.status_revision.unwrap_or(0)),
        ],
        ops: vec![TxnOp::Delete(desired)],
        context: format!("delete job {}, ttlSecondsAfterFinished", s.key),
    }
}
