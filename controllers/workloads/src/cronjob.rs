//! CronJobs: a Job of one template at each time of a schedule.
//!
//! # Promise
//! - For each time at most one Job is made, whatever becomes of controllers and of the Job: [`decide`](mod@decide) says
//!   how. After an outage the latest time that was missed is made up for, within `startingDeadlineSeconds`.
//! - Schedules are those of [`setpoint_apis::cron`], in the CronJob's time zone; it says what happens when clocks are
//!   changed.
//! - Jobs that have ended are kept as the history limits say; nothing but Jobs of its own is deleted.
//! - Between times nothing is done and nothing is written.
//! - While the document or the status does not parse no Job is created or deleted. The condition `Invalid` says why; so it
//!   does for a schedule that never fires.
//!
//! Nothing in a document says when it was written, so times count from when a controller first sees the CronJob.

pub mod decide;
pub mod plan;
#[cfg(test)]
mod tests;
pub mod timing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::batch::{CronJob, CronJobStatus, Job, labels};
use setpoint_apis::core::Namespace;
use setpoint_apis::{Key, Kind, ObjectKey, ObjectMeta, Timestamp, document};
use setpoint_runtime::events::EventRef;
use setpoint_runtime::{Action, Leader, StateKey, Stored, View, Write, WriteOutcome};
use setpoint_store::{Compare, StoreError, TxnOp};
use tracing::info;

use crate::children::{Child, Children};
use crate::documents::controller_reference;
use crate::door::{Asked, Doors};
use crate::memory::Memory;
use crate::seen::Seen;
use crate::{Shared, pass, writes};
use decide::decide;
use plan::{JobFacts, JobState, NewJob, Origin, Plan, Snapshot};

/// The store refused writes. They are tried again with backoff, and an event says so.
#[derive(Debug, thiserror::Error)]
#[error("{refused} writes were refused")]
pub struct Error {
    refused: usize,
    #[source]
    source: StoreError,
}

/// What is remembered about CronJobs.
pub(crate) type CronJobs = Memory<Notes>;

/// What is remembered about a CronJob.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    taken: Option<Timestamp>,
    /// By what was said; no more than there are things to say.
    told: BTreeMap<&'static str, Timestamp>,
    told_of: BTreeSet<String>,
    /// What people were told of a status that cannot be read.
    lost: Option<String>,
}

/// Which changes make a CronJob look again.
pub(crate) fn concerns(key: &StateKey) -> bool {
    match key {
        StateKey::Desired(plural, _) => {
            [Namespace::PLURAL, CronJob::PLURAL, Job::PLURAL].contains(plural)
                || Doors::concerns(key)
        }
        StateKey::Actual(plural, _) => [CronJob::PLURAL, Job::PLURAL].contains(plural),
        StateKey::Deletion(plural, _) => **plural == *CronJob::PLURAL,
        _ => false,
    }
}

/// Which CronJobs a change concerns.
pub(crate) fn keys(shared: &Shared, change: &StateKey, view: &View<'_>) -> Vec<ObjectKey> {
    let mut children = shared.jobs_by_owner.lock();
    children.catch_up(view);
    let mut keys = children.take_touched::<CronJob>();
    keys.extend(shared.doors.roused::<CronJob>(change, view));
    match change {
        StateKey::Actual(plural, key) if *plural == Job::PLURAL => {
            keys.extend(children.owner_of::<CronJob>(key));
        }
        StateKey::Desired(plural, key) if *plural == CronJob::PLURAL => keys.push(key.clone()),
        StateKey::Desired(plural, namespace) if *plural == Namespace::PLURAL => {
            let all = view.desired::<CronJob>().namespace(&namespace.name);
            keys.extend(all.map(|(key, _)| key.clone()));
        }
        StateKey::Actual(_, key) | StateKey::Deletion(_, key) => keys.push(key.clone()),
        _ => {}
    }
    keys
}

/// One pass over one CronJob.
pub(crate) async fn reconcile(
    shared: Arc<Shared>,
    leader: Leader,
    key: ObjectKey,
) -> Result<Action, Error> {
    let planned = pass::plan(
        &shared.cron_jobs,
        &shared.clock,
        &key,
        || observe(&shared, &leader.cache().view(), &key),
        |(s, _)| s.jobs.len(),
        |(s, _), now| decide(s, now),
    );
    match planned {
        Ok(((snapshot, found), plan)) => execute(&shared, &leader, &snapshot, &found, plan).await,
        Err(action) => Ok(action),
    }
}

/// What a snapshot was made from.
struct Found {
    object: Option<Arc<Stored<CronJob>>>,
    revision: i64,
    status_revision: Option<i64>,
}

/// `None` when the CronJob does not exist.
fn observe(shared: &Shared, view: &View<'_>, key: &ObjectKey) -> Option<(Snapshot, Found)> {
    let entry = view.desired::<CronJob>().entry(key)?;
    let status = view.actual::<CronJob>().entry(key);
    let found = Found {
        object: entry.valid().cloned(),
        revision: entry.mod_revision(),
        status_revision: status.map(|s| s.mod_revision()),
    };
    let notes = shared.cron_jobs.with(key, |memo| memo.notes.clone());
    let unreadable = status.and_then(|s| s.invalid());
    let mut snapshot = Snapshot {
        key: key.clone(),
        uid: String::new(),
        invalid: entry.invalid().map(|i| i.message.clone()),
        lost_status: unreadable.map(|i| i.message.clone()),
        terminating: false,
        namespace_exists: view
            .desired::<Namespace>()
            .contains(&ObjectKey::cluster(key.namespace.clone())),
        spec: Default::default(),
        jobs: Vec::new(),
        taken: notes.taken,
        told: notes.told,
        told_of: notes.told_of,
        status: status.and_then(|s| s.valid()).map(|s| s.value.clone()),
    };
    let Some(object) = &found.object else {
        return Some((snapshot, found));
    };
    snapshot.uid = object.uid();
    let uid = &snapshot.uid;
    // Of a former CronJob of this name.
    let own = |s: &CronJobStatus| s.first_seen.as_ref().is_some_and(|f| f.uid == *uid);
    snapshot.status = snapshot.status.filter(own);
    snapshot.terminating = writes::terminating::<CronJob>(view, key, uid);
    snapshot.spec = object.value.spec.clone();
    let mut children = shared.jobs_by_owner.lock();
    children.catch_up(view);
    snapshot.jobs = jobs(&children, view, &key.name, uid);
    Some((snapshot, found))
}

fn jobs(children: &Children<Job>, view: &View<'_>, cron_job: &str, uid: &str) -> Vec<JobFacts> {
    let facts = |(key, child): (&ObjectKey, &Child<Job>)| {
        let uid = child.object.uid();
        let status = view.actual::<Job>().entry(key).and_then(|s| s.last_good());
        // Of a former Job of this name; whoever else looks after a Job need not say of which one his status is.
        let elsewhere = child.object.value.spec.other_manager().is_some();
        let status = status.map(|s| &s.value).filter(|s| {
            let counted = s.counted.as_ref();
            elsewhere || counted.is_some_and(|c| c.of == uid)
        });
        let state = match status {
            Some(s) if s.is("Complete") => JobState::Complete(s.completion_time),
            Some(s) if s.is("Failed") => JobState::Failed,
            _ => JobState::Active,
        };
        JobFacts {
            seen: Seen::of(key, &child.object),
            uid,
            frozen: child.invalid.is_some(),
            state,
            started: status.and_then(|s| s.start_time),
            origin: origin(cron_job, &child.object.value.metadata),
        }
    };
    children.of(uid).map(facts).collect()
}

/// Every Job that is made for a time says for which, and is named after it: a copy of one has another name.
fn origin(cron_job: &str, job: &ObjectMeta) -> Origin {
    let minutes = job.name.strip_prefix(cron_job);
    let minutes = minutes.and_then(|rest| rest.strip_prefix('-')?.parse::<i64>().ok());
    if job.annotations.contains_key(labels::SCHEDULED_TIMESTAMP) && minutes.is_some() {
        Origin::Schedule
    } else if job.annotations.contains_key(labels::INSTANTIATE) {
        Origin::Hand
    } else {
        Origin::Unknown
    }
}

async fn execute(
    shared: &Shared,
    leader: &Leader,
    s: &Snapshot,
    found: &Found,
    mut plan: Plan,
) -> Result<Action, Error> {
    let mut action = Action {
        requeue_after: plan.look_again,
    };
    let about = || EventRef::of::<CronJob>(&s.key, s.uid.as_str());
    let told = shared.cron_jobs.with(&s.key, |memo| {
        std::mem::replace(&mut memo.notes.lost, s.lost_status.clone())
    });
    if let Some(error) = s.lost_status.as_ref().filter(|e| told.as_ref() != Some(e)) {
        let message = format!("{error}; mend or delete the status, and times count from then");
        shared
            .recorder
            .warning(about(), "StatusUnreadable", message);
    }
    let mut tally = writes::Tally::default();
    let going: &[Seen] = if found.object.is_some() {
        &plan.delete
    } else {
        &[]
    };
    let deletes = going.iter().map(|job| delete(leader, s, found, job));
    let outcomes = leader.commit(deletes.collect()).await;
    for (job, outcome) in going.iter().zip(outcomes.as_deref().unwrap_or_default()) {
        if let WriteOutcome::Committed(_) = outcome {
            let name = &job.key.name;
            info!(object = %s.key, job = %name, "deleted a Job");
            let message = format!("Deleted job {name}");
            shared.recorder.normal(about(), "SuccessfulDelete", message);
        }
    }
    if !tally.count(outcomes) {
        return Ok(Action::requeue(writes::SOON));
    }
    let mut door = None;
    if plan.create.is_some() {
        let by = (CronJob::KIND, &s.key);
        match shared
            .doors
            .enter(leader, by, &Asked::object::<Job>(), 1)
            .await
        {
            Ok(admission) => door = Some(admission),
            Err(error) => tally.refuse(error),
        }
    }
    if let Some((door, refusal)) = door.as_ref().and_then(|d| Some((d, d.refusal.as_ref()?))) {
        // The time is not done: it is made up for as soon as the namespace lets the Job in, unless it is too late then.
        if door.is_news {
            let message = format!("Error creating job: {refusal}");
            shared.recorder.warning(about(), "FailedCreate", message);
        }
        tally.contested = door.is_contested;
        plan.put_off(s.status.as_ref());
    } else {
        shared.doors.forget((CronJob::KIND, &s.key));
    }
    let before = tally.committed;
    let mut write = status_write(leader, s, found, &plan);
    if tally.first_error.is_some() {
        write = None;
    } else if let (Some(write), Some(door)) = (&mut write, &door) {
        write.guards.extend(door.guard.clone());
    }
    if !tally.commit(leader, write.into_iter().collect()).await {
        return Ok(Action::requeue(writes::SOON));
    }
    let written = tally.committed > before;
    if let Some(new) = &plan.create {
        if written {
            info!(object = %s.key, job = new.name, "created a Job");
            let message = format!("Created job {}", new.name);
            shared.recorder.normal(about(), "SuccessfulCreate", message);
        } else if let Some(error) = &tally.first_error {
            let message = format!("Error creating job: {error}");
            shared.recorder.warning(about(), "FailedCreate", message);
        } else {
            note_taken(shared, leader, s, new);
        }
    }
    if written || plan.status.is_none() {
        if let Some(told_of) = plan.told_of.take() {
            shared
                .cron_jobs
                .with(&s.key, |memo| memo.notes.told_of = told_of);
        }
        for told in plan.tell {
            if let Some(time) = told.about {
                shared.cron_jobs.with(&s.key, |memo| {
                    memo.notes.told.insert(told.reason, time);
                });
            }
            match told.warning {
                true => shared.recorder.warning(about(), told.reason, told.message),
                false => shared.recorder.normal(about(), told.reason, told.message),
            }
        }
    }
    tally.catch_up(leader).await;
    action.requeue_after = tally.comes_back(action.requeue_after);
    match tally.first_error {
        Some(source) => Err(Error {
            refused: tally.refused,
            source,
        }),
        None => Ok(action),
    }
}

/// Remembers when somebody else has a Job of the name that the new one would have.
fn note_taken(shared: &Shared, leader: &Leader, s: &Snapshot, new: &NewJob) {
    let view = leader.cache().view();
    let key = ObjectKey::namespaced(s.key.namespace.clone(), new.name.as_str());
    let Some(entry) = view.desired::<Job>().entry(&key) else {
        return;
    };
    let owner = entry
        .last_good()
        .and_then(|j| j.value.metadata.controller());
    if owner.is_none_or(|o| o.uid != s.uid) {
        shared
            .cron_jobs
            .with(&s.key, |memo| memo.notes.taken = Some(new.at));
    }
}

fn desired<K: Kind>(leader: &Leader, key: &ObjectKey) -> String {
    leader
        .keyspace()
        .build(&Key::Desired(K::PLURAL, key.clone()))
}

/// The write of the status, and of the Job of the time that it says is done: both or neither.
fn status_write(leader: &Leader, s: &Snapshot, found: &Found, plan: &Plan) -> Option<Write> {
    let status = plan.status.as_ref()?;
    let key = leader
        .keyspace()
        .build(&Key::Actual(CronJob::PLURAL, s.key.clone()));
    let before = match found.status_revision {
        Some(revision) => Compare::ModRevision(key.clone(), revision),
        None => Compare::absent(key.clone()),
    };
    let own = Compare::ModRevision(desired::<CronJob>(leader, &s.key), found.revision);
    let mut write = Write {
        guards: vec![own, before],
        ops: vec![writes::put(key, document::encode(status))],
        context: format!("status of cronjob {}", s.key),
    };
    if let (Some(new), Some(object)) = (&plan.create, &found.object) {
        let job = ObjectKey::namespaced(s.key.namespace.clone(), new.name.as_str());
        let namespace = ObjectKey::cluster(s.key.namespace.clone());
        let key = desired::<Job>(leader, &job);
        write.guards.push(Compare::absent(key.clone()));
        write
            .guards
            .push(Compare::Exists(desired::<Namespace>(leader, &namespace)));
        let text = document::encode(&new_job(&object.value, &s.uid, new));
        write.ops.push(writes::put(key, text));
        write.context = format!("create job {job}");
    }
    Some(write)
}

fn delete(leader: &Leader, s: &Snapshot, found: &Found, job: &Seen) -> Write {
    let key = desired::<Job>(leader, &job.key);
    Write {
        guards: vec![
            Compare::ModRevision(key.clone(), job.mod_revision),
            Compare::ModRevision(desired::<CronJob>(leader, &s.key), found.revision),
        ],
        ops: vec![TxnOp::Delete(key)],
        context: format!("delete job {}", job.key),
    }
}

/// The Job of a time.
fn new_job(cron_job: &CronJob, uid: &str, new: &NewJob) -> Job {
    let template = &cron_job.spec.job_template;
    let mut annotations = template.metadata.annotations.clone();
    annotations.insert(labels::SCHEDULED_TIMESTAMP.into(), new.stamp.clone());
    let metadata = ObjectMeta {
        name: new.name.as_str().into(),
        namespace: cron_job.metadata.namespace.clone(),
        labels: template.metadata.labels.clone(),
        annotations,
        owner_references: vec![controller_reference::<CronJob>(
            &cron_job.metadata.name,
            uid,
        )],
        ..ObjectMeta::default()
    };
    Job {
        metadata,
        spec: template.spec.clone(),
        ..Job::default()
    }
}
