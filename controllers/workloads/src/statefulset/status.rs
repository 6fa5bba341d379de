//! The status of a StatefulSet, and the verdict on its rollout.

use setpoint_apis::Timestamp;
use setpoint_apis::apps::{StatefulSetStatus, WorkloadCondition};

use super::plan::{Member, Plan, Snapshot};
use super::revision::{self, Target};
use crate::autoscale;
use crate::conditions::{self, DEADLINE_EXCEEDED, Finding, INVALID, PROGRESSING, REPLICA_FAILURE};
use crate::config;
use crate::good;
use crate::replicaset::decide::{some, sooner};
use crate::rollback;
use crate::standing;

/// The rollout is done.
const AVAILABLE: &str = "RevisionAvailable";
/// The rollout goes on.
const ROLLING: &str = "RevisionRolling";

/// Puts the status of a StatefulSet into the plan whose document, or that of one of its revisions, does not parse: what
/// was last known, and the reason.
pub(super) fn frozen(mut plan: Plan, s: &Snapshot, now: Timestamp) -> Plan {
    let finding = match &s.invalid {
        Some(unusable) => unusable.finding(),
        None => {
            let all = s.broken_revisions.join("; ");
            Finding::new(INVALID, true, "RevisionInvalid", all)
        }
    };
    let mut status = s.status.clone().unwrap_or_default();
    conditions::set(&mut status.conditions, finding, now);
    if let Some(unusable) = &s.invalid {
        status.observed_generation = unusable.observed(s.generation, status.observed_generation);
    }
    plan.status = (s.status.as_ref() != Some(&status)).then_some(status);
    plan
}

/// Puts the status into the plan when it is to be written: when it differs, and either nothing else is done (what is
/// done changes it again in a moment) or it has something to say that does not pass by itself.
pub(super) fn settle(
    mut plan: Plan,
    s: &Snapshot,
    target: Option<&Target>,
    now: Timestamp,
) -> Plan {
    let stored = s.status.clone().unwrap_or_default();
    let mut status = count(s, target, &stored, now);
    status.conditions.clone_from(&stored.conditions);
    status.rollback.clone_from(&stored.rollback);
    status
        .last_available_revision
        .clone_from(&stored.last_available_revision);
    status
        .former_available_revision
        .clone_from(&stored.former_available_revision);
    conditions::remove(&mut status.conditions, INVALID);
    standing::set_overlap(&mut status.conditions, s.overlap.as_ref(), now);
    autoscale::set_broken(&mut status.conditions, s.broken_scaler.as_ref(), now);
    config::set_missing(&mut status.conditions, s.missing.as_ref(), now);
    conditions::set_or_remove(&mut status.conditions, REPLICA_FAILURE, failure(s), now);
    if let Some(target) = target.filter(|_| !s.terminating && s.namespace_exists) {
        progress(&mut status, &stored, s, target, now);
        if !revision::is_held(s) {
            keep_record(&mut status, &mut plan, &stored, s, target, now);
        }
        deadline(&mut plan, &status, s, now);
    }
    availability(&mut plan, s, now);

    // What the next pass builds on does not wait until there is nothing else to do, and while creates are refused there is
    // always something.
    let turned = s.status.is_none()
        || s.setbacks.failure.is_some()
        || status.rollback != stored.rollback
        || status.current_revision != stored.current_revision
        || status.last_available_revision != stored.last_available_revision
        || conditions::sides(&stored.conditions) != conditions::sides(&status.conditions);
    if s.status.as_ref() != Some(&status) && (!plan.acts() || turned) {
        plan.status = Some(status);
    }
    plan
}

fn count(
    s: &Snapshot,
    target: Option<&Target>,
    stored: &StatefulSetStatus,
    now: Timestamp,
) -> StatefulSetStatus {
    let count = |f: &dyn Fn(&Member) -> bool| {
        let n = s.members.iter().filter(|m| m.counts() && f(m)).count();
        i32::try_from(n).unwrap_or(i32::MAX)
    };
    let current = target.map(|t| match revision::is_complete(s, t, now) {
        true => t.runs.clone(),
        false => t.base.clone(),
    });
    let of = |name: Option<&str>| name.map_or(0, |name| count(&|m| m.is_of(name)));
    StatefulSetStatus {
        observed_generation: Some(s.generation),
        replicas: count(&|_| true),
        ready_replicas: some(count(&|m| m.facts.ready_since.is_some())),
        available_replicas: some(count(&|m| m.is_available(s.min_ready, now))),
        current_replicas: some(of(current.as_deref())),
        updated_replicas: some(of(target.map(|t| &*t.asked))),
        current_revision: current,
        update_revision: target.map(|t| t.asked.clone()),
        collision_count: revision::asked(s)
            .map_or(stored.collision_count, |asked| some(asked.collisions)),
        conditions: Vec::new(),
        rollback: None,
        last_available_revision: None,
        former_available_revision: None,
        observed_config: s.config_seen.clone(),
        desired_replicas: s.decided,
        fixed: s.fixed.clone(),
    }
}

/// Keeps, makes or drops the record of a rollback, and notes a revision that has proven good.
fn keep_record(
    status: &mut StatefulSetStatus,
    plan: &mut Plan,
    stored: &StatefulSetStatus,
    s: &Snapshot,
    target: &Target,
    now: Timestamp,
) {
    let (last, former) = (
        &mut status.last_available_revision,
        &mut status.former_available_revision,
    );
    if !target.is_rolled_back() {
        status.rollback = None;
        if s.wanted > 0 && revision::is_complete(s, target, now) {
            good::note(last, former, &target.asked, now);
        }
    }
    if let Some(record) = revision::rollback(s, target, now) {
        status.rollback = good::take_back(last, former, &target.runs, record);
    }
    if status.rollback != stored.rollback {
        plan.rolled_back.clone_from(&status.rollback);
    }
    let record = status.rollback.as_ref();
    rollback::set_condition(&mut status.conditions, record, now);
}

pub(super) fn timed_out(revision: &str) -> String {
    format!("Revision \"{revision}\" has timed out progressing.")
}

fn rolling(revision: &str) -> String {
    format!("Revision \"{revision}\" is being rolled out.")
}

fn available(revision: &str) -> String {
    format!("Revision \"{revision}\" is rolled out.")
}

/// The condition `Progressing`: about the revision that runs. Without it nothing is known, as with OnDelete, where only
/// those who delete pods know how fast they do.
fn progress(
    status: &mut StatefulSetStatus,
    stored: &StatefulSetStatus,
    s: &Snapshot,
    target: &Target,
    now: Timestamp,
) {
    if !s.rolling {
        conditions::remove(&mut status.conditions, PROGRESSING);
        return;
    }
    let runs = &*target.runs;
    let finding =
        |holds, reason: &str, message: String| Finding::new(PROGRESSING, holds, reason, message);
    let present = conditions::get(&status.conditions, PROGRESSING).cloned();
    let of = |reason: &str, message: String| {
        let is = |c: &WorkloadCondition| {
            c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(&message)
        };
        present.as_ref().is_some_and(is)
    };
    // A rollout that was complete stays so while pods come and go. One that had none to roll out has proven nothing.
    let proven = stored.replicas > 0 || stored.last_available_revision.as_deref() == Some(runs);
    let complete = of(AVAILABLE, available(runs)) && proven;
    if complete && s.members.iter().all(|m| settled(s, target, m)) {
        return;
    }
    if revision::is_rolled_out(s, target, now) {
        let done = finding(true, AVAILABLE, available(runs));
        conditions::set(&mut status.conditions, done, now);
        return;
    }
    let missed = of(DEADLINE_EXCEEDED, timed_out(runs));
    let begun = of(ROLLING, rolling(runs)) || missed;
    if !begun || has_progressed(status, stored) {
        let on = finding(true, ROLLING, rolling(runs));
        conditions::touch(&mut status.conditions, on, now);
        return;
    }
    let since = present.as_ref().and_then(|c| c.last_update_time);
    let since = since.unwrap_or(now);
    let due = s.progress_deadline;
    let due = due.map(|d| rollback::due(since, s.up_since, d));
    if !missed && due.is_some_and(|due| due <= now) {
        let late = finding(false, DEADLINE_EXCEEDED, timed_out(runs));
        conditions::set(&mut status.conditions, late, now);
    }
}

/// Whether the rollout has nothing left to do about a pod.
fn settled(s: &Snapshot, target: &Target, m: &Member) -> bool {
    !revision::above_partition(s, m.ordinal) || m.is_of(&target.runs) || m.facts.frozen
}

fn has_progressed(status: &StatefulSetStatus, stored: &StatefulSetStatus) -> bool {
    let more = |now: Option<i32>, before: Option<i32>| now.unwrap_or(0) > before.unwrap_or(0);
    more(status.ready_replicas, stored.ready_replicas)
        || more(status.available_replicas, stored.available_replicas)
        || more(status.updated_replicas, stored.updated_replicas)
        || (status.current_revision == stored.current_revision
            && more(status.current_replicas, stored.current_replicas))
}

fn failure(s: &Snapshot) -> Option<Finding> {
    if !s.namespace_exists {
        return Some(conditions::no_namespace(&s.key.namespace));
    }
    let failed = s.setbacks.failure.as_ref().map(conditions::failed);
    failed.or_else(|| {
        let name = s.pod_name(*s.foreign.first()?);
        let message = format!("pod {name:?} is there and not its own");
        let taken = Finding::new(REPLICA_FAILURE, true, "NameTaken", message);
        Some(taken)
    })
}

/// When a pod becomes available by time alone.
fn availability(plan: &mut Plan, s: &Snapshot, now: Timestamp) {
    for since in s.members.iter().filter_map(|m| m.facts.ready_since) {
        let at = since.saturating_add(s.min_ready);
        if at > now && !s.min_ready.is_zero() {
            sooner(&mut plan.look_again, at.duration_since(now));
        }
    }
}

/// When the deadline of the rollout passes.
fn deadline(plan: &mut Plan, status: &StatefulSetStatus, s: &Snapshot, now: Timestamp) {
    if let Some(wait) = good::look_again(status.former_available_revision.as_ref(), now) {
        sooner(&mut plan.look_again, wait);
    }
    let c = conditions::get(&status.conditions, PROGRESSING);
    let c = c.filter(|c| c.reason.as_deref() == Some(ROLLING));
    let since = c.and_then(|c| c.last_update_time);
    if let (Some(since), Some(deadline)) = (since, s.progress_deadline) {
        let at = rollback::due(since, s.up_since, deadline);
        if at > now {
            sooner(&mut plan.look_again, at.duration_since(now));
        }
    }
}
