//! The status of a DaemonSet, and the verdict on its rollout.

use setpoint_apis::Timestamp;
use setpoint_apis::apps::DaemonSetStatus;

use super::fit::Fit;
use super::ground::{Ground, Row};
use super::plan::{Plan, Snapshot, Why};
use super::revision::{self, Target};
use crate::conditions::{self, DEADLINE_EXCEEDED, Finding, INVALID, PROGRESSING, REPLICA_FAILURE};
use crate::config;
use crate::good;
use crate::pod::available_at;
use crate::replicaset::decide::{some, sooner};
use crate::rollback::{self, Failure, crashing};
use crate::standing::{self, Unusable};

/// The rollout is complete.
const AVAILABLE: &str = "NewRevisionAvailable";
/// The rollout has begun.
const CREATED: &str = "NewRevisionCreated";
/// The rollout goes on.
const UPDATED: &str = "RevisionUpdated";

/// Puts the status of a DaemonSet into the plan whose document cannot be acted on: what was last known, and the reason.
pub(super) fn frozen(mut plan: Plan, s: &Snapshot, why: &Unusable, now: Timestamp) -> Plan {
    let mut status = s.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, why.finding(), now);
    status.observed_generation = why.observed(s.generation, status.observed_generation);
    plan.status = (s.status.as_ref() != Some(&status)).then_some(status);
    plan
}

/// Puts the status into the plan when it is to be written: when it differs, and either nothing else is done (what is
/// done changes it again in a moment) or a condition has changed sides.
pub(super) fn settle(
    mut plan: Plan,
    s: &Snapshot,
    target: &Target<'_>,
    ground: &Ground<'_>,
    now: Timestamp,
) -> Plan {
    let stored = s.status.clone().unwrap_or_default();
    let mut status = count(s, ground);
    status.conditions.clone_from(&stored.conditions);
    let made = plan.revision.as_ref();
    status.collision_count = match made.filter(|w| w.there.is_none()) {
        Some(wanted) => some(wanted.collisions),
        None => stored.collision_count,
    };
    conditions::remove(&mut status.conditions, INVALID);
    standing::set_overlap(&mut status.conditions, s.overlap.as_ref(), now);
    config::set_missing(&mut status.conditions, s.missing.as_ref(), now);
    let old = old_pods(ground);
    if s.rolls() && s.progress_deadline.is_some() {
        progress(&mut status, &stored, s, target, ground, old, now);
    } else {
        conditions::remove(&mut status.conditions, PROGRESSING);
    }
    keep_record(&mut status, &mut plan, &stored, s, target, ground, now);
    if let Some(asked) = target.asked.as_deref().filter(|_| target.failed) {
        // What was counted so far is of the revision that runs instead.
        status.reverted_number_scheduled = status.updated_number_scheduled;
        status.updated_number_scheduled = some(of_revision(s, ground, asked));
    }
    let failure = failure(s);
    conditions::set_or_remove(&mut status.conditions, REPLICA_FAILURE, failure, now);

    let turned = s.failure.is_some()
        || status.rollback != stored.rollback
        || status.collision_count != stored.collision_count
        || (s.status.is_some()
            && conditions::sides(&stored.conditions) != conditions::sides(&status.conditions));
    appointments(&mut plan, &status, s, ground, now);
    if s.status.as_ref() != Some(&status) && (!plan.acts() || turned) {
        plan.status = Some(status);
    }
    plan
}

/// As Kubernetes counts: of each node its oldest pod.
fn count(s: &Snapshot, ground: &Ground<'_>) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        observed_generation: Some(s.generation),
        observed_config: s.config_seen.clone(),
        fixed: s.fixed.clone(),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for row in &ground.rows {
        let pod = row.pods.first();
        match (row.fit, pod) {
            (Fit::Runs, _) | (Fit::Unknown, Some(_)) => {}
            (Fit::Stays | Fit::Leaves, Some(_)) => {
                status.number_misscheduled += 1;
                continue;
            }
            (_, None) => continue,
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = pod else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(ground.is_ready(row, pod));
        available += i32::from(ground.is_available(row, pod));
        updated += i32::from(ground.is_new(pod));
    }
    status.updated_number_scheduled = some(updated);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status
}

/// How many nodes have a pod of a revision, as they are counted.
fn of_revision(s: &Snapshot, ground: &Ground<'_>, name: &str) -> i32 {
    let hash = Some(s.hash_of(name));
    let counted = |r: &&Row<'_>| matches!(r.fit, Fit::Runs | Fit::Unknown);
    let pods = ground.rows.iter().filter(counted);
    let pods = pods.filter_map(|r| r.pods.first());
    let of = pods.filter(|p| p.hash.as_deref() == hash);
    i32::try_from(of.count()).unwrap_or(i32::MAX)
}

/// How many pods are of another revision than the one that is to run, and count.
fn old_pods(ground: &Ground<'_>) -> i32 {
    let rows = ground.rows.iter().filter(|r| r.fit == Fit::Runs && !r.lost);
    let old = rows
        .flat_map(|r| r.pods)
        .filter(|p| p.facts.is_active() && !p.facts.frozen && !ground.is_new(p));
    i32::try_from(old.count()).unwrap_or(i32::MAX)
}

/// Why the pods of the revision that runs are taken to have failed. What was known of a lost node says nothing now.
fn crash(ground: &Ground<'_>) -> Option<Failure> {
    let known = ground.rows.iter().filter(|r| !r.lost);
    let new = known.flat_map(|r| r.pods).filter(|p| ground.is_new(p));
    crashing(new.map(|p| &p.facts))
}

/// Keeps, makes or drops the record of a rollback, and notes a revision that has proven good.
fn keep_record(
    status: &mut DaemonSetStatus,
    plan: &mut Plan,
    stored: &DaemonSetStatus,
    s: &Snapshot,
    target: &Target<'_>,
    ground: &Ground<'_>,
    now: Timestamp,
) {
    let last = &mut status.last_available_revision;
    last.clone_from(&stored.last_available_revision);
    let former = &mut status.former_available_revision;
    former.clone_from(&stored.former_available_revision);
    let complete = target.is_there() && ground.is_complete();
    let is_undecided = target.held || ground.is_blind();
    status.rollback = match is_undecided || target.failed {
        true => stored.rollback.clone(),
        false => None,
    };
    if let Some(runs) = target.name.as_deref().filter(|_| !is_undecided) {
        let crash = || target.is_there().then(|| crash(ground)).flatten();
        let any = status.number_available.unwrap_or(0) > 0;
        if complete && any && !target.failed {
            good::note(last, former, runs, now);
        } else if !complete && let Some(record) = revision::rollback(s, target, crash(), now) {
            status.rollback = good::take_back(last, former, runs, record);
        }
    }
    if status.rollback != stored.rollback {
        plan.rolled_back.clone_from(&status.rollback);
        if plan.rolled_back.is_some() {
            // No step further with what has just failed.
            plan.create.clear();
            plan.delete.retain(|r| r.why != Why::Outdated);
        }
    }
    let record = status.rollback.as_ref();
    rollback::set_condition(&mut status.conditions, record, now);
}

pub(super) fn timed_out(revision: &str) -> String {
    format!("Revision \"{revision}\" has timed out progressing.")
}

/// The way of a rollout: begun, going on, complete, or standing still for too long. The deadline counts from the last
/// time at which something moved.
fn progress(
    status: &mut DaemonSetStatus,
    stored: &DaemonSetStatus,
    s: &Snapshot,
    target: &Target<'_>,
    ground: &Ground<'_>,
    old: i32,
    now: Timestamp,
) {
    let (Some(name), Some(deadline)) = (&target.name, s.progress_deadline) else {
        return;
    };
    if ground.is_blind() {
        return;
    }
    let created = format!("Created new revision \"{name}\"");
    let going_on = format!("Revision \"{name}\" is progressing.");
    let complete = format!("Revision \"{name}\" has successfully progressed.");
    let present = conditions::get(&status.conditions, PROGRESSING).cloned();
    let says = |m: &str| {
        present
            .as_ref()
            .is_some_and(|c| c.message.as_deref() == Some(m))
    };
    let own = [&created, &going_on, &complete, &timed_out(name)]
        .into_iter()
        .any(|m| says(m));
    let all = &mut status.conditions;
    let finding = |holds, reason: &str, message| Finding::new(PROGRESSING, holds, reason, message);
    // A rollout that was complete stays so while pods come and go. One that had none to roll out has proven nothing.
    let proven = stored.last_available_revision.as_ref() == Some(name);
    if says(&complete) && old == 0 && proven {
        return;
    }
    if target.is_there() && ground.is_complete() {
        conditions::set(all, finding(true, AVAILABLE, complete), now);
        return;
    }
    if !own {
        // Another revision: whatever was said about the one before is not about this one.
        conditions::touch(all, finding(true, CREATED, created), now);
        return;
    }
    let n = |n: Option<i32>| n.unwrap_or(0);
    let new = |s: &DaemonSetStatus| n(s.reverted_number_scheduled.or(s.updated_number_scheduled));
    let behind = |s: &DaemonSetStatus| s.current_number_scheduled - new(s);
    // Nodes that come, or come back, are more to do.
    let progress = status.desired_number_scheduled > stored.desired_number_scheduled
        || new(status) > new(stored)
        || behind(status) < behind(stored)
        || status.number_ready > stored.number_ready
        || n(status.number_available) > n(stored.number_available);
    let all = &mut status.conditions;
    let since = present.as_ref().and_then(|c| c.last_update_time);
    if progress || says(&complete) {
        conditions::touch(all, finding(true, UPDATED, going_on), now);
    } else if !says(&timed_out(name))
        && rollback::due(since.unwrap_or(now), s.up_since, deadline) <= now
    {
        let missed = finding(false, DEADLINE_EXCEEDED, timed_out(name));
        conditions::set(all, missed, now);
    }
}

fn failure(s: &Snapshot) -> Option<Finding> {
    if !s.namespace_exists {
        return Some(conditions::no_namespace(&s.key.namespace));
    }
    s.failure.as_ref().map(conditions::failed)
}

/// When something changes by time alone: a pod becomes available, a deadline passes.
fn appointments(
    plan: &mut Plan,
    status: &DaemonSetStatus,
    s: &Snapshot,
    ground: &Ground<'_>,
    now: Timestamp,
) {
    if !s.min_ready.is_zero() {
        let known = ground.rows.iter().filter(|r| !r.lost);
        let pods = known.flat_map(|r| r.pods);
        for since in pods.filter_map(|p| p.facts.ready_since) {
            let at = available_at(since, s.min_ready);
            if at > now {
                sooner(&mut plan.look_again, at.duration_since(now));
            }
        }
    }
    if let Some(wait) = good::look_again(status.former_available_revision.as_ref(), now) {
        sooner(&mut plan.look_again, wait);
    }
    let progressing = conditions::get(&status.conditions, PROGRESSING)
        .filter(|c| c.status != "False" && c.reason.as_deref() != Some(AVAILABLE));
    let since = progressing.and_then(|c| c.last_update_time);
    if let (Some(since), Some(deadline)) = (since, s.progress_deadline) {
        let at = rollback::due(since, s.up_since, deadline);
        if at > now {
            sooner(&mut plan.look_again, at.duration_since(now));
        }
    }
}
