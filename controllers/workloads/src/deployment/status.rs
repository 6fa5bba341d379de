//! The status of a Deployment, and the verdict on its rollout.

use setpoint_apis::Timestamp;
use setpoint_apis::apps::DeploymentStatus;

use super::decide::{available, count_available, sum};
use super::numbers::room;
use super::plan::{Plan, SetFacts, Snapshot};
use super::revision::{self, Target};
use crate::autoscale;
use crate::conditions::{self, DEADLINE_EXCEEDED, Finding, INVALID, PROGRESSING, REPLICA_FAILURE};
use crate::config;
use crate::good;
use crate::pod::available_at;
use crate::replicaset::decide::{some, sooner};
use crate::rollback;
use crate::standing;

const AVAILABLE: &str = "Available";
/// The rollout is complete.
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
/// The rollout has begun.
const CREATED: &str = "NewReplicaSetCreated";
/// The rollout cannot begin.
const NOT_CREATED: &str = "ReplicaSetCreateError";
/// The rollout goes on.
const UPDATED: &str = "ReplicaSetUpdated";
const PAUSED: &str = "DeploymentPaused";

/// Puts the status of a Deployment into the plan whose document, or that of one of its ReplicaSets, does not parse: what
/// was last known, and the reason.
pub(super) fn frozen(mut plan: Plan, s: &Snapshot, now: Timestamp) -> Plan {
    let finding = match &s.invalid {
        Some(unusable) => unusable.finding(),
        None => Finding::new(INVALID, true, "ReplicaSetInvalid", s.broken_sets.join("; ")),
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
/// done changes it again in a moment) or a condition has changed sides.
pub(super) fn settle(
    mut plan: Plan,
    s: &Snapshot,
    target: &Target,
    rolls: bool,
    now: Timestamp,
) -> Plan {
    let new = target.set;
    let stored = s.status.clone().unwrap_or_default();
    let mut status = count(s, new, now);
    status.conditions.clone_from(&stored.conditions);
    status.collision_count = match &plan.create {
        Some(new) => some(new.collisions),
        None => stored.collision_count,
    };
    conditions::remove(&mut status.conditions, INVALID);
    standing::set_overlap(&mut status.conditions, s.overlap.as_ref(), now);
    autoscale::set_broken(&mut status.conditions, s.broken_scaler.as_ref(), now);
    config::set_missing(&mut status.conditions, s.missing.as_ref(), now);
    available_condition(&mut status, s, now);
    pause_condition(&mut status, s, now);
    forget_missed_deadline(&mut status, &plan, s, new, now);
    if rolls {
        progress_condition(&mut status, &stored, s, new, now);
    }
    keep_record(&mut status, &mut plan, &stored, s, target, now);
    let failure = failure(s, new);
    conditions::set_or_remove(&mut status.conditions, REPLICA_FAILURE, failure, now);
    if let Some(asked) = &target.failed {
        // What was counted so far is of the revision that runs instead.
        let of_asked = s.sets.iter().filter(|r| *r.seen.key.name == **asked);
        status.reverted_replicas = status.updated_replicas;
        status.updated_replicas = some(sum(of_asked.map(|r| r.pods)));
    }

    let turned = s.failure.is_some()
        || status.rollback != stored.rollback
        || status.collision_count != stored.collision_count
        || (s.status.is_some()
            && conditions::sides(&stored.conditions) != conditions::sides(&status.conditions));
    if s.status.as_ref() != Some(&status) && (!plan.acts() || turned) {
        plan.status = Some(status.clone());
    }
    appointments(&mut plan, &status, s, rolls, now);
    plan
}

/// Whether the rollout is done and every pod available.
pub(super) fn is_complete(s: &Snapshot, new: Option<usize>, now: Timestamp) -> bool {
    is_done(s, new, &count(s, new, now), now)
}

/// The same by what was counted.
fn is_done(s: &Snapshot, new: Option<usize>, status: &DeploymentStatus, now: Timestamp) -> bool {
    let n = |n: Option<i32>| n.unwrap_or(0);
    let (pods, available) = left_alone(s, new, now);
    n(status.updated_replicas) == s.wanted
        && n(status.replicas) - pods == s.wanted
        && n(status.available_replicas) - available == s.wanted
}

/// Pods of ReplicaSets that are to have none, which stay because their documents do not parse, and how many of them are
/// available. Waiting for these would end in a missed deadline, and a good revision would be taken back for them.
fn left_alone(s: &Snapshot, new: Option<usize>, now: Timestamp) -> (i32, i32) {
    let old = || {
        let all = s.sets.iter().enumerate();
        all.filter(|(i, r)| Some(*i) != new && r.replicas == 0)
    };
    let available = |r: &SetFacts| count_available(&r.frozen_ready_since, s, now);
    (
        sum(old().map(|(_, r)| r.frozen)),
        sum(old().map(|(_, r)| available(r))),
    )
}

fn count(s: &Snapshot, new: Option<usize>, now: Timestamp) -> DeploymentStatus {
    let of_all = |f: &dyn Fn(&SetFacts) -> i32| sum(s.sets.iter().map(f));
    let available = of_all(&|r| available(r, s, now));
    let meant = of_all(&|r| r.replicas).max(if new.is_none() && s.sets.is_empty() {
        s.wanted
    } else {
        0
    });
    DeploymentStatus {
        observed_generation: Some(s.generation),
        replicas: some(of_all(&|r| r.pods)),
        updated_replicas: some(new.map_or(0, |i| s.sets[i].pods)),
        reverted_replicas: None,
        ready_replicas: some(of_all(&|r| {
            i32::try_from(r.ready_since.len()).unwrap_or(i32::MAX)
        })),
        available_replicas: some(available),
        unavailable_replicas: some((meant - available).max(0)),
        collision_count: None,
        rollback: None,
        last_available_revision: None,
        former_available_revision: None,
        conditions: Vec::new(),
        observed_config: s.config_seen.clone(),
        desired_replicas: s.decided,
        fixed: s.fixed.clone(),
    }
}

/// Keeps, makes or drops the record of a rollback, and notes a revision that has proven good.
fn keep_record(
    status: &mut DeploymentStatus,
    plan: &mut Plan,
    stored: &DeploymentStatus,
    s: &Snapshot,
    target: &Target,
    now: Timestamp,
) {
    status
        .last_available_revision
        .clone_from(&stored.last_available_revision);
    status
        .former_available_revision
        .clone_from(&stored.former_available_revision);
    let is_instead = s.missing.is_some() || target.failed.is_some();
    if is_instead {
        status.rollback.clone_from(&stored.rollback);
    }
    if let Some(set) = target.set.filter(|_| s.missing.is_none()) {
        let runs = &s.sets[set].seen.key.name;
        let (last, former) = (
            &mut status.last_available_revision,
            &mut status.former_available_revision,
        );
        let complete = is_complete(s, target.set, now);
        if complete && s.wanted > 0 && !is_instead {
            good::note(last, former, runs, now);
        }
        if let Some(record) = revision::rollback(s, target, complete, now) {
            status.rollback = good::take_back(last, former, runs, record);
        }
    }
    if status.rollback != stored.rollback {
        plan.rolled_back.clone_from(&status.rollback);
    }
    let record = status.rollback.as_ref();
    rollback::set_condition(&mut status.conditions, record, now);
}

fn available_condition(status: &mut DeploymentStatus, s: &Snapshot, now: Timestamp) {
    let least = s.wanted - room(&s.strategy, s.wanted).unavailable;
    let finding = if status.available_replicas.unwrap_or(0) >= least {
        Finding::new(
            AVAILABLE,
            true,
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        Finding::new(
            AVAILABLE,
            false,
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    conditions::set(&mut status.conditions, finding, now);
}

fn pause_condition(status: &mut DeploymentStatus, s: &Snapshot, now: Timestamp) {
    let present =
        conditions::get(&status.conditions, PROGRESSING).and_then(|c| c.reason.as_deref());
    // A missed deadline stays visible through a pause.
    let (reason, message) = match (s.paused, present) {
        (true, Some(PAUSED | DEADLINE_EXCEEDED)) => return,
        (true, _) => (PAUSED, "Deployment is paused"),
        (false, Some(PAUSED)) => ("DeploymentResumed", "Deployment is resumed"),
        (false, _) => return,
    };
    let unknown = Finding {
        type_: PROGRESSING,
        status: "Unknown",
        reason: reason.into(),
        message: message.into(),
    };
    conditions::set(&mut status.conditions, unknown, now);
}

/// A missed deadline is that of one template. The first status of another one says that its rollout has begun, or
/// whoever waits for that rollout would take the former verdict for the verdict on it. The deadline counts from here.
///
/// What else changes of a Deployment leaves the verdict as it is until there is progress, as in Kubernetes.
fn forget_missed_deadline(
    status: &mut DeploymentStatus,
    plan: &Plan,
    s: &Snapshot,
    new: Option<usize>,
    now: Timestamp,
) {
    let missed = conditions::get(&status.conditions, PROGRESSING)
        .filter(|c| c.reason.as_deref() == Some(DEADLINE_EXCEEDED));
    let Some(missed) = missed.filter(|_| !s.paused && s.progress_deadline.is_some()) else {
        return;
    };
    let (reason, message) = match (new.map(|i| &s.sets[i].seen.key.name), &plan.create) {
        (Some(name), _) if missed.message == Some(timed_out(name)) => return,
        (Some(name), _) => (UPDATED, format!("ReplicaSet \"{name}\" is progressing.")),
        (None, Some(new)) => (CREATED, created(&new.name)),
        (None, None) => {
            let name = &s.key.name;
            (UPDATED, format!("Deployment \"{name}\" is progressing."))
        }
    };
    let begun = Finding::new(PROGRESSING, true, reason, message);
    conditions::touch(&mut status.conditions, begun, now);
}

fn created(replica_set: &str) -> String {
    format!("Created new replica set \"{replica_set}\"")
}

pub(super) fn timed_out(replica_set: &str) -> String {
    format!("ReplicaSet \"{replica_set}\" has timed out progressing.")
}

fn progress_condition(
    status: &mut DeploymentStatus,
    stored: &DeploymentStatus,
    s: &Snapshot,
    new: Option<usize>,
    now: Timestamp,
) {
    let Some(deadline) = s.progress_deadline else {
        conditions::remove(&mut status.conditions, PROGRESSING);
        return;
    };
    let Some(new) = new else {
        if let Some((_, why)) = &s.failure {
            let failed = Finding::new(PROGRESSING, false, NOT_CREATED, why.as_str());
            conditions::set(&mut status.conditions, failed, now);
        }
        return;
    };
    let name = &s.sets[new].seen.key.name;
    let finding =
        |holds, reason: &str, message: String| Finding::new(PROGRESSING, holds, reason, message);
    let present = conditions::get(&status.conditions, PROGRESSING).cloned();
    let reason = present
        .as_ref()
        .and_then(|c| c.reason.clone())
        .unwrap_or_default();
    let n = |n: Option<i32>| n.unwrap_or(0);

    // A rollout that was complete stays so while pods come and go, until there are pods of another template. One that had
    // none to roll out has proven nothing.
    let proven = stored.last_available_revision.as_deref() == Some(name);
    let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
    let said = present.as_ref().and_then(|c| c.message.as_deref()) == Some(&message);
    let complete = reason == NEW_AVAILABLE && said && proven;
    let (left, _) = left_alone(s, Some(new), now);
    if complete && n(status.replicas) - left == n(status.updated_replicas) {
        return;
    }
    if is_done(s, Some(new), status, now) {
        conditions::set(
            &mut status.conditions,
            finding(true, NEW_AVAILABLE, message),
            now,
        );
        return;
    }
    let stored_new = n(stored.reverted_replicas.or(stored.updated_replicas));
    let old = n(status.replicas) - n(status.updated_replicas);
    let progress = n(status.updated_replicas) > stored_new
        || old < n(stored.replicas) - stored_new
        || n(status.ready_replicas) > n(stored.ready_replicas)
        || n(status.available_replicas) > n(stored.available_replicas);
    match present {
        None => {
            conditions::touch(
                &mut status.conditions,
                finding(true, CREATED, created(name)),
                now,
            );
        }
        // The next rollout begins: its deadline counts from now.
        Some(_) if progress || [NEW_AVAILABLE, NOT_CREATED].contains(&&*reason) => {
            let message = format!("ReplicaSet \"{name}\" is progressing.");
            conditions::touch(&mut status.conditions, finding(true, UPDATED, message), now);
        }
        Some(c) => {
            let since = c.last_update_time.unwrap_or(now);
            let due = rollback::due(since, s.up_since, deadline);
            if reason != DEADLINE_EXCEEDED && due <= now {
                conditions::set(
                    &mut status.conditions,
                    finding(false, DEADLINE_EXCEEDED, timed_out(name)),
                    now,
                );
            }
        }
    }
}

fn failure(s: &Snapshot, new: Option<usize>) -> Option<Finding> {
    if !s.namespace_exists {
        return Some(conditions::no_namespace(&s.key.namespace));
    }
    let of_new = || s.sets[new?].failure.as_ref();
    let of_any = || s.sets.iter().find_map(|r| r.failure.as_ref());
    let found = s.failure.as_ref().or_else(of_new).or_else(of_any);
    found.map(conditions::failed)
}

/// When something changes by time alone: a pod becomes available, a deadline passes.
fn appointments(
    plan: &mut Plan,
    status: &DeploymentStatus,
    s: &Snapshot,
    rolls: bool,
    now: Timestamp,
) {
    for since in s.sets.iter().flat_map(|r| &r.ready_since) {
        let at = available_at(*since, s.min_ready());
        if at > now {
            sooner(&mut plan.look_again, at.duration_since(now));
        }
    }
    if let Some(wait) = good::look_again(status.former_available_revision.as_ref(), now) {
        sooner(&mut plan.look_again, wait);
    }
    let progressing = conditions::get(&status.conditions, PROGRESSING)
        .filter(|c| rolls && c.status != "False" && c.reason.as_deref() != Some(NEW_AVAILABLE));
    if let (Some(since), Some(deadline)) = (
        progressing.and_then(|c| c.last_update_time),
        s.progress_deadline,
    ) {
        let at = rollback::due(since, s.up_since, deadline);
        if at > now {
            sooner(&mut plan.look_again, at.duration_since(now));
        }
    }
}
