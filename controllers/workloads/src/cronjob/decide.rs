//! What to do for a CronJob: a pure function of what is, and of the time.
//!
//! # No time runs twice
//! The Job of a time is created, and the status that says that this time is done is written, in one transaction, guarded
//! on the status as seen. So whatever becomes of controllers, and of the Job, no Job is made for a time that is done.
//! The name of the Job says the time as well, as in Kubernetes.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use setpoint_apis::batch::{ConcurrencyPolicy, CronJobStatus, FirstSeen, Job};
use setpoint_apis::core::ObjectReference;
use setpoint_apis::cron::{self, Schedule, TimeZone};
use setpoint_apis::{Kind, Timestamp};

use super::plan::{JobFacts, JobState, NewJob, Origin, Plan, Seen, Snapshot, Told};
use super::timing::{Due, due};
use crate::conditions::{self, Finding, INVALID};

/// The longest wait for the next time. The clock may be set, and a machine sleep, while a timer runs.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Decides.
///
/// # Guarantees
/// Nothing is created or deleted while the document or the status does not parse.
pub fn decide(s: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if let Some(error) = &s.lost_status {
        plan.notes
            .push(format!("what is done cannot be read: frozen: {error}"));
        return plan;
    }
    if let Some(error) = &s.invalid {
        plan.notes
            .push("the document does not parse: frozen".into());
        let mut status = s.status.clone().unwrap_or_default();
        let finding = Finding::new(INVALID, true, "DocumentInvalid", error.as_str());
        conditions::set(&mut status.conditions, finding, now);
        if s.status.as_ref() != Some(&status) {
            plan.tell.push(Told {
                warning: true,
                reason: "DocumentInvalid",
                message: error.clone(),
                about: None,
            });
        }
        return settle(plan, s, status);
    }
    let mut status = s.status.clone().unwrap_or_default();
    status.first_seen.get_or_insert_with(|| FirstSeen {
        uid: s.uid.clone(),
        at: now.whole_seconds(),
    });
    conditions::remove(&mut status.conditions, INVALID);
    if !s.terminating {
        history(&mut plan, s);
        schedule(&mut plan, s, &mut status, now);
    }
    report(&mut plan, s, &mut status);
    settle(plan, s, status)
}

/// The Jobs that run for times of the schedule. One that was made by hand holds nothing up and is not replaced.
fn active(s: &Snapshot) -> impl Iterator<Item = &JobFacts> {
    let runs = |j: &&JobFacts| j.state == JobState::Active && j.origin == Origin::Schedule;
    s.jobs.iter().filter(runs)
}

/// Deletes the oldest Jobs that have ended, beyond as many as are kept.
fn history(plan: &mut Plan, s: &Snapshot) {
    let limits = [
        (true, s.spec.successful_jobs_history_limit),
        (false, s.spec.failed_jobs_history_limit),
    ];
    for (complete, limit) in limits {
        let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else {
            continue;
        };
        let mut ended: Vec<&JobFacts> = s
            .jobs
            .iter()
            .filter(|j| match j.state {
                JobState::Active => false,
                JobState::Complete(_) => complete,
                JobState::Failed => !complete,
            })
            .collect();
        // The oldest come last, those of which nobody knows the age among the youngest.
        ended.sort_by_key(|j| (j.started.is_some(), Reverse(j.started), Reverse(j.name())));
        let excess = ended.into_iter().skip(limit);
        plan.delete
            .extend(excess.filter(|j| !j.frozen).map(|j| j.seen.clone()));
    }
}

fn schedule(plan: &mut Plan, s: &Snapshot, status: &mut CronJobStatus, now: Timestamp) {
    let parsed = s.spec.schedule.parse::<Schedule>();
    let zone = cron::time_zone(s.spec.time_zone.as_deref());
    let (schedule, zone) = match (parsed, zone) {
        (Ok(schedule), Ok(zone)) => (schedule, zone),
        // Validation lets neither pass; a version that reads schedules otherwise may have written this one.
        (Err(error), _) => return unusable(status, "UnparseableSchedule", error.to_string(), now),
        (_, Err(error)) => return unusable(status, "UnknownTimeZone", error.to_string(), now),
    };
    if s.spec.suspend == Some(true) {
        plan.notes.push("it is suspended".into());
        return;
    }
    if let Some(next) = schedule.next_after(now, &zone) {
        plan.look_again = Some(next.duration_since(now).min(LONGEST_WAIT));
    }
    let since = status.first_seen.as_ref().map_or(now, |f| f.at);
    let done = status.last_schedule_time.unwrap_or(since);
    let too_late = s.spec.starting_deadline_seconds.map(|n| {
        let n = Duration::from_secs(u64::try_from(n).unwrap_or(0));
        now.saturating_sub(n)
    });
    let from = too_late.map_or(done, |t| done.max(t));
    match due(&schedule, &zone, from, now) {
        Some(due) => start(plan, s, status, &zone, due),
        None if from > done => {
            if let Some(missed) = due(&schedule, &zone, done, from) {
                let message = format!(
                    "Missed scheduled time to start a job: {}",
                    cron::local_time(missed.at, &zone)
                );
                tell(plan, s, true, "MissSchedule", message, missed.at);
            }
        }
        None => {}
    }
}

fn unusable(status: &mut CronJobStatus, reason: &str, message: String, now: Timestamp) {
    let finding = Finding::new(INVALID, true, reason, message);
    conditions::set(&mut status.conditions, finding, now);
}

/// Makes the Job of a time that is due, unless something is against it.
fn start(plan: &mut Plan, s: &Snapshot, status: &mut CronJobStatus, zone: &TimeZone, due: Due) {
    if due.many_missed {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds \
                       or check clock skew";
        tell(plan, s, true, "TooManyMissedTimes", message.into(), due.at);
    }
    let name = job_name(&s.key.name, due.at);
    if s.jobs.iter().any(|j| **j.name() == name) {
        // The status was lost, or somebody was quicker.
        status.last_schedule_time = Some(due.at);
        return;
    }
    if s.taken == Some(due.at) {
        let message = format!("job {name} is somebody else's; this time is left out");
        tell(plan, s, true, "FailedCreate", message, due.at);
        status.last_schedule_time = Some(due.at);
        return;
    }
    let mut running = active(s).peekable();
    let busy = running.peek().is_some();
    match s.spec.concurrency_policy.unwrap_or_default() {
        ConcurrencyPolicy::Forbid if busy => {
            let message = "Not starting job because prior execution is running and concurrency \
                           policy is Forbid";
            tell(plan, s, false, "JobAlreadyActive", message.into(), due.at);
        }
        ConcurrencyPolicy::Replace if busy => {
            let (frozen, gone): (Vec<_>, Vec<_>) = running.partition(|j| j.frozen);
            if !frozen.is_empty() {
                plan.notes.push(format!(
                    "{} Jobs that run do not parse and are not replaced",
                    frozen.len()
                ));
            }
            // The next pass sees that they are gone.
            plan.delete.extend(gone.into_iter().map(|j| j.seen.clone()));
        }
        _ if !s.namespace_exists => {
            plan.notes.push("the namespace does not exist".into());
        }
        _ => {
            status.last_schedule_time = Some(due.at);
            plan.create = Some(NewJob {
                name,
                at: due.at,
                stamp: cron::local_time(due.at, zone),
            });
        }
    }
}

/// The name of the Job of a time.
pub fn job_name(cron_job: &str, at: Timestamp) -> String {
    format!("{cron_job}-{}", at.as_unix_seconds().div_euclid(60))
}

fn tell(
    plan: &mut Plan,
    s: &Snapshot,
    warning: bool,
    reason: &'static str,
    message: String,
    about: Timestamp,
) {
    if s.told.get(reason) != Some(&about) {
        plan.tell.push(Told {
            warning,
            reason,
            message,
            about: Some(about),
        });
    }
}

/// What became of the Jobs.
fn report(plan: &mut Plan, s: &Snapshot, status: &mut CronJobStatus) {
    let known: BTreeSet<String> = status.active.iter().filter_map(|r| r.uid.clone()).collect();
    for job in s.jobs.iter().filter(|j| known.contains(&j.uid)) {
        let condition = match job.state {
            JobState::Active => continue,
            JobState::Complete(_) => "Complete",
            JobState::Failed => "Failed",
        };
        plan.tell.push(Told {
            warning: false,
            reason: "SawCompletedJob",
            message: format!("Saw completed job: {}, condition: {condition}", job.name()),
            about: None,
        });
    }
    for gone in &status.active {
        if gone
            .uid
            .as_ref()
            .is_some_and(|uid| s.jobs.iter().all(|j| j.uid != *uid))
        {
            plan.tell.push(Told {
                warning: false,
                reason: "MissingJob",
                message: format!(
                    "Active job went missing: {}",
                    gone.name.as_deref().unwrap_or_default()
                ),
                about: None,
            });
        }
    }
    unexpected(plan, s);
    let stays = |j: &&JobFacts| plan.delete.iter().all(|d: &Seen| d.key != j.seen.key);
    status.active = active(s).filter(stays).map(reference).collect();
    let successes = s.jobs.iter().filter_map(|j| match j.state {
        JobState::Complete(at) => at,
        _ => None,
    });
    status.last_successful_time = successes.chain(status.last_successful_time).max();
}

/// Says once that a Job runs of which nobody knows who made it.
fn unexpected(plan: &mut Plan, s: &Snapshot) {
    let jobs = s.jobs.iter();
    let told_of = plan.told_of.insert(BTreeSet::new());
    for job in jobs.filter(|j| j.state == JobState::Active && j.origin == Origin::Unknown) {
        told_of.insert(job.uid.clone());
        if !s.told_of.contains(&job.uid) {
            plan.tell.push(Told {
                warning: true,
                reason: "UnexpectedJob",
                message: format!(
                    "Saw a job that the controller did not create: {}",
                    job.name()
                ),
                about: None,
            });
        }
    }
}

fn reference(job: &JobFacts) -> ObjectReference {
    ObjectReference {
        api_version: Some(Job::API_VERSION.into()),
        kind: Some(Job::KIND.into()),
        namespace: Some((*job.seen.key.namespace).into()),
        name: Some((**job.name()).into()),
        uid: Some(job.uid.clone()),
        ..ObjectReference::default()
    }
}

fn settle(mut plan: Plan, s: &Snapshot, status: CronJobStatus) -> Plan {
    if s.status.as_ref() != Some(&status) {
        plan.status = Some(status);
    }
    plan
}
