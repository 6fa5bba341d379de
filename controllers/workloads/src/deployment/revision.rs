//! Which ReplicaSet of a Deployment runs: that of the present template, or the last good one when that has failed.

use setpoint_apis::Timestamp;
use setpoint_apis::apps::{FormerRevision, RollbackRecord};

use super::decide::plain;
use super::plan::Snapshot;
use super::status::timed_out;
use crate::good;
use crate::hash::template_hash;
use crate::rollback::{Failure, Run, choose};

/// The ReplicaSet that is to have the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// It, among the snapshot's; `None`: it is not there yet.
    pub(super) set: Option<usize>,
    /// Whether it is to be made when it is not there.
    pub(super) creates: bool,
    /// The revision that is asked for and has failed, when another one runs instead.
    pub(super) failed: Option<String>,
}

/// Chooses.
pub(super) fn target(s: &Snapshot) -> Target {
    if s.missing.is_some() {
        // Nobody knows what the present template is. What runs goes on running.
        let newest = (0..s.sets.len()).max_by_key(|i| (s.sets[*i].revision(), *i));
        return Target {
            set: newest,
            creates: false,
            failed: None,
        };
    }
    let wanted = plain(&s.template);
    let wanted = s.sets.iter().position(|r| plain(&r.template) == wanted);
    let mut target = Target {
        set: wanted,
        creates: true,
        failed: None,
    };
    let record = s.status.as_ref().and_then(|s| s.rollback.as_ref());
    let Some(record) = record.filter(|_| s.rolls_back) else {
        return target;
    };
    let name = match wanted {
        Some(i) => s.sets[i].seen.key.name.to_string(),
        None => new_name(s).0,
    };
    let find = |name: &str| s.sets.iter().position(|r| *r.seen.key.name == *name);
    let record = (&*record.failed_revision, &*record.to_revision);
    if let Run::Instead(to) = choose(&name, Some(record), |to| find(to).is_some()) {
        target.set = find(to);
        target.failed = Some(name);
    }
    target
}

/// The name of the ReplicaSet of the present template, its hash, and how many hashes were taken already.
pub(super) fn new_name(s: &Snapshot) -> (String, String, i32) {
    let known = s.status.as_ref().and_then(|s| s.collision_count);
    let mut collisions = known.unwrap_or(0);
    let template = plain(&s.template);
    loop {
        let hash = template_hash(&template, collisions);
        let name = format!("{}-{hash}", s.key.name);
        let own = s.sets.iter().any(|r| *r.seen.key.name == *name);
        if !own && !s.taken.contains(name.as_str()) {
            return (name, hash, collisions);
        }
        collisions += 1;
    }
}

/// The last revision of which all pods were available.
pub(super) fn last_available(s: &Snapshot) -> Option<&str> {
    s.status.as_ref()?.last_available_revision.as_deref()
}

/// The one before that.
pub(super) fn former_available(s: &Snapshot) -> Option<&FormerRevision> {
    s.status.as_ref()?.former_available_revision.as_ref()
}

/// The record of a rollback, when what runs has failed and there is something to go back to: the present template, or what
/// runs instead of it.
pub(super) fn rollback(
    s: &Snapshot,
    target: &Target,
    complete: bool,
    now: Timestamp,
) -> Option<RollbackRecord> {
    let set = &s.sets[target.set?];
    if !s.rolls_back || s.paused || complete || s.missing.is_some() {
        return None;
    }
    let name = &*set.seen.key.name;
    let former = former_available(s);
    let good = good::back_to(name, last_available(s), former, now)?;
    let asked = target.failed.as_deref().unwrap_or(name);
    if !s.sets.iter().any(|r| *r.seen.key.name == *good) {
        return None;
    }
    let failure = Failure::of_rollout(
        set.crash.clone(),
        last_available(s) == Some(name),
        s.status.as_ref().map_or(&[], |s| &s.conditions),
        &timed_out(name),
        s.progress_deadline,
    )?;
    Some(failure.record(asked, good, now))
}
