//! What to do for a ReplicaSet: a pure function of what is, and of the time.

use std::time::Duration;

use setpoint_apis::Timestamp;
use setpoint_apis::apps::ReplicaSetStatus;

use super::plan::{Plan, Removal, Seen, Setbacks, Snapshot};
use crate::autoscale;
use crate::conditions::{self, INVALID, REPLICA_FAILURE};
use crate::hash::PodNames;
use crate::pod::{PodFacts, available_at, sort_for_deletion};
use crate::standing;

/// A pod that ends for good is replaced at once. When as many as are wanted have ended, and again, replacements wait
/// this long after the last end: so a pod that its node refuses each time does not spin.
const REPLACEMENT_DELAYS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(60),
];

/// Pods that are created in one pass. That they are there is a change, which brings the next pass.
pub const MOST_CREATED: usize = 10_000;

/// Names that are tried for each pod to be created. When nearly all names are taken the row of names, which is endless,
/// hardly finds another one.
const TRIES: usize = 8;

/// After so long without another end all is forgotten.
pub const SETBACKS_FORGOTTEN: Duration = Duration::from_secs(600);

/// Decides.
///
/// # Guarantees
/// Nothing is created or deleted while the document does not parse, while the set is being deleted, or in the same pass
/// in which pods are adopted or released (then the numbers are not known yet).
pub fn decide(s: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if let Some(unusable) = &s.invalid {
        plan.notes.push(unusable.note().into());
        let mut status = s.status.clone().unwrap_or_default();
        conditions::set(&mut status.conditions, unusable.finding(), now);
        status.observed_generation = unusable.observed(s.generation, status.observed_generation);
        return settle(plan, s, status);
    }
    if s.terminating {
        plan.notes
            .push("it is being deleted, dependents first".into());
    } else if !s.adoptable.is_empty() || !s.releasable.is_empty() {
        plan.adopt.clone_from(&s.adoptable);
        plan.release.clone_from(&s.releasable);
        return plan;
    } else {
        act(&mut plan, s, now);
    }
    let status = status(s, now, &mut plan);
    settle(plan, s, status)
}

fn act(plan: &mut Plan, s: &Snapshot, now: Timestamp) {
    let finished = s.pods.iter().filter(|p| !p.is_active() && !p.frozen);
    plan.delete.extend(finished.map(|p| removal(p, true)));

    let active: Vec<&PodFacts> = s
        .pods
        .iter()
        .filter(|p| p.is_active() || p.frozen)
        .collect();
    let wanted = usize::try_from(s.wanted).unwrap_or(0);
    if active.len() < wanted {
        create(plan, s, wanted - active.len(), now);
    } else if active.len() > wanted {
        let mut candidates: Vec<&PodFacts> = active.iter().copied().filter(|p| !p.frozen).collect();
        sort_for_deletion(&mut candidates, |node| {
            s.load.get(node).copied().unwrap_or(0)
        });
        let excess = active.len() - wanted;
        if candidates.len() < excess {
            plan.notes.push(format!(
                "{} pods are too many but do not parse: left alone",
                excess - candidates.len()
            ));
        }
        plan.delete.extend(
            candidates
                .into_iter()
                .take(excess)
                .map(|p| removal(p, false)),
        );
    }
}

fn create(plan: &mut Plan, s: &Snapshot, missing: usize, now: Timestamp) {
    if !s.namespace_exists {
        plan.notes.push(format!(
            "{missing} pods are missing, but the namespace does not exist"
        ));
        return;
    }
    let ended_now = u32::try_from(plan.delete.len()).unwrap_or(u32::MAX);
    if let Some(wait) = held_back(&s.setbacks, ended_now, s.wanted, now) {
        plan.notes.push(format!(
            "{missing} pods are missing; they end too soon, so the next come later"
        ));
        sooner(&mut plan.look_again, wait);
        return;
    }
    // What failed for one fails for all most of the time: one is enough to find out whether it still does.
    let count = if s.setbacks.failure.is_some() {
        1
    } else {
        missing.min(MOST_CREATED)
    };
    let mut names = std::collections::BTreeSet::new();
    let tries = count.saturating_mul(TRIES).saturating_add(100);
    for name in PodNames::new(&s.key.name, &s.uid, s.salt).take(tries) {
        if names.len() == count {
            break;
        }
        let there = s.taken.contains(name.as_str())
            || s.pods
                .binary_search_by(|p| (*p.key.name).cmp(name.as_str()))
                .is_ok();
        if !there && !names.contains(&name) {
            names.insert(name.clone());
            plan.create.push(name);
        }
    }
    if names.len() < count {
        plan.notes.push(format!(
            "{missing} pods are missing, but there are hardly any names left for them"
        ));
    }
}

/// How long replacements wait, when they do.
pub(crate) fn held_back(
    setbacks: &Setbacks,
    ended_now: u32,
    wanted: i32,
    now: Timestamp,
) -> Option<Duration> {
    let forgotten = setbacks
        .last_finished
        .is_none_or(|t| now.duration_since(t) >= SETBACKS_FORGOTTEN);
    let before = if forgotten { 0 } else { setbacks.finished };
    let last = if ended_now > 0 {
        now
    } else {
        setbacks.last_finished?
    };
    let ended = before.saturating_add(ended_now);
    let rounds = ended.div_ceil(u32::try_from(wanted).unwrap_or(1).max(1)) as usize;
    let delay = REPLACEMENT_DELAYS[rounds.saturating_sub(1).min(REPLACEMENT_DELAYS.len() - 1)];
    let due = last.saturating_add(delay);
    (due > now).then(|| due.duration_since(now))
}

fn status(s: &Snapshot, now: Timestamp, plan: &mut Plan) -> ReplicaSetStatus {
    let active = || s.pods.iter().filter(|p| p.is_active() || p.frozen);
    let mut available = 0;
    for since in active().filter_map(|p| p.ready_since) {
        let at = available_at(since, s.min_ready);
        if at <= now {
            available += 1;
        } else {
            sooner(&mut plan.look_again, at.duration_since(now));
        }
    }
    let mut status = ReplicaSetStatus {
        observed_generation: Some(s.generation),
        replicas: count(active()),
        fully_labeled_replicas: some(s.fully_labeled),
        ready_replicas: some(count(active().filter(|p| p.ready_since.is_some()))),
        available_replicas: some(available),
        conditions: s
            .status
            .as_ref()
            .map(|s| s.conditions.clone())
            .unwrap_or_default(),
        desired_replicas: s.decided,
        fixed: s.fixed.clone(),
    };
    conditions::remove(&mut status.conditions, INVALID);
    standing::set_overlap(&mut status.conditions, s.overlap.as_ref(), now);
    autoscale::set_broken(&mut status.conditions, s.broken_scaler.as_ref(), now);
    let failure = if s.namespace_exists {
        // Nothing has failed that is not to be done any more.
        let missing = status.replicas < s.wanted;
        let failure = s.setbacks.failure.as_ref().filter(|_| missing);
        failure.map(conditions::failed)
    } else {
        Some(conditions::no_namespace(&s.key.namespace))
    };
    conditions::set_or_remove(&mut status.conditions, REPLICA_FAILURE, failure, now);
    status
}

/// Puts the status into the plan when it is to be written: when it differs, and either nothing else is done (what is
/// done changes it again in a moment) or it has something to say that does not pass by itself. While creates are refused there
/// is always one to be done, and nothing comes of it.
fn settle(mut plan: Plan, s: &Snapshot, status: ReplicaSetStatus) -> Plan {
    let conditions_differ = s
        .status
        .as_ref()
        .map(|s| &s.conditions[..])
        .unwrap_or_default()
        != status.conditions;
    let refused = s.setbacks.failure.is_some();
    if s.status.as_ref() != Some(&status) && (!plan.acts() || conditions_differ || refused) {
        plan.status = Some(status);
    }
    plan
}

fn removal(pod: &PodFacts, finished: bool) -> Removal {
    Removal {
        pod: Seen {
            key: pod.key.clone(),
            mod_revision: pod.mod_revision,
        },
        finished,
    }
}

fn count<'a>(pods: impl Iterator<Item = &'a PodFacts>) -> i32 {
    i32::try_from(pods.count()).unwrap_or(i32::MAX)
}

/// Kubernetes leaves zeros out.
pub(crate) fn some(n: i32) -> Option<i32> {
    (n != 0).then_some(n)
}

/// Brings an appointment forward.
pub(crate) fn sooner(look_again: &mut Option<Duration>, wait: Duration) {
    *look_again = Some(look_again.map_or(wait, |w| w.min(wait)));
}
