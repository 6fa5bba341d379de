//! Which revision the pods of a StatefulSet are of: that of the present template, or the last good one when that has
//! failed; and below the partition the one that all had last.

use setpoint_apis::Timestamp;
use setpoint_apis::apps::{FormerRevision, RollbackRecord};

use super::plan::{Member, Snapshot};
use super::status::timed_out;
use crate::good;
use crate::revisions::{self, REVISION_REFUSED, Wanted};
use crate::rollback::{Failure, Run, choose, crashing};

/// The revisions that count, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The one that is asked for.
    pub(super) asked: String,
    /// The one that is rolled out: that, or the one before it when that has failed.
    pub(super) runs: String,
    /// The one of the pods below the partition.
    pub(super) base: String,
}

impl Target {
    /// Whether what is asked for has failed and another one runs instead.
    pub(super) fn is_rolled_back(&self) -> bool {
        self.asked != self.runs
    }

    /// The revision that the pod of this number is to be of.
    pub(super) fn of(&self, s: &Snapshot, ordinal: i32) -> &str {
        if s.rolling && !above_partition(s, ordinal) {
            &self.base
        } else {
            &self.runs
        }
    }
}

/// Whether a rollout reaches the pod of this number.
pub(super) fn above_partition(s: &Snapshot, ordinal: i32) -> bool {
    i64::from(ordinal) - i64::from(s.first) >= i64::from(s.partition)
}

fn collisions(s: &Snapshot) -> i32 {
    let stored = s.status.as_ref().and_then(|s| s.collision_count);
    stored.unwrap_or(0)
}

/// The revision of the present template, there or to be made; `None` while nobody knows what the template reads.
pub(super) fn wanted(s: &Snapshot) -> Option<Wanted> {
    let (template, revisions) = (&s.template, &s.revisions);
    let find = || revisions::wanted(&s.key.name, template, revisions, collisions(s), &s.taken);
    s.missing.is_none().then(find)
}

/// Whether there is no revision of the present template and none comes for now: something that it reads is missing, or
/// it was refused. What runs goes on running.
pub(super) fn is_held(s: &Snapshot) -> bool {
    let failure = s.setbacks.failure.as_ref();
    let refused = failure.is_some_and(|(reason, _)| reason == REVISION_REFUSED);
    s.missing.is_some() || (refused && wanted(s).is_some_and(|w| !w.is_settled(&s.revisions)))
}

/// The revision that counts as asked for: that of the present template, and while that is held back the newest one that
/// is there; `None`: there is none.
pub(super) fn asked(s: &Snapshot) -> Option<Wanted> {
    if !is_held(s) {
        return wanted(s);
    }
    let newest = s.revisions.last()?;
    Some(Wanted {
        name: newest.name().to_owned(),
        there: Some(s.revisions.len() - 1),
        number: newest.number,
        collisions: collisions(s),
    })
}

/// Chooses what runs, when this revision is asked for.
pub(super) fn target(s: &Snapshot, asked: &str) -> Target {
    let exists = |name: &str| s.revisions.iter().any(|r| r.name() == name);
    let stored = s.status.as_ref();
    let record = stored.and_then(|s| s.rollback.as_ref());
    let record = record.filter(|_| s.rolls_back && s.rolling);
    let record = record.map(|r| (&*r.failed_revision, &*r.to_revision));
    let runs = match choose(asked, record, exists) {
        Run::Instead(to) => to,
        Run::Wanted => asked,
    };
    let current = stored.and_then(|s| s.current_revision.as_deref());
    // What all pods were of last may be what has failed.
    let base = current.filter(|name| exists(name) && runs == asked);
    Target {
        asked: asked.to_owned(),
        runs: runs.to_owned(),
        base: base.unwrap_or(runs).to_owned(),
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

/// Whether every pod is there, of the revision that runs, and available, and no other one is left.
pub(super) fn is_complete(s: &Snapshot, target: &Target, now: Timestamp) -> bool {
    let done = |m: &Member| m.is_of(&target.runs) && m.is_available(s.min_ready, now);
    is_full(s) && s.members.iter().all(done)
}

/// As [`is_complete`], where pods below the partition may be of any revision.
pub(super) fn is_rolled_out(s: &Snapshot, target: &Target, now: Timestamp) -> bool {
    // Those whose documents do not parse are left alone, and not waited for.
    let done = |m: &Member| {
        m.facts.frozen
            || m.is_available(s.min_ready, now)
                && (!above_partition(s, m.ordinal) || m.is_of(&target.runs))
    };
    is_full(s) && s.members.iter().all(done)
}

fn is_full(s: &Snapshot) -> bool {
    let wanted = usize::try_from(s.wanted).unwrap_or(0);
    s.members.len() == wanted && s.members.iter().all(|m| s.in_range(m.ordinal))
}

/// The record of a rollback, when what runs has failed and there is something to go back to: what is asked for, or what runs
/// instead of it.
pub(super) fn rollback(s: &Snapshot, target: &Target, now: Timestamp) -> Option<RollbackRecord> {
    if !s.rolls_back || !s.rolling || s.missing.is_some() || is_rolled_out(s, target, now) {
        return None;
    }
    let runs = &target.runs;
    let good = good::back_to(runs, last_available(s), former_available(s), now)?;
    if !s.revisions.iter().any(|r| r.name() == good) {
        return None;
    }
    let of_it = s.members.iter().filter(|m| m.is_of(runs));
    let crash = crashing(of_it.map(|m| &m.facts));
    let failure = Failure::of_rollout(
        crash,
        last_available(s) == Some(runs),
        s.status.as_ref().map_or(&[], |s| &s.conditions),
        &timed_out(runs),
        s.progress_deadline,
    )?;
    Some(failure.record(&target.asked, good, now))
}
