//! Which revision of a DaemonSet runs: that of the present template, or the last good one when that has failed.

use setpoint_apis::Timestamp;
use setpoint_apis::apps::{FormerRevision, RollbackRecord};
use setpoint_apis::core::PodTemplateSpec;

use super::plan::Snapshot;
use super::status::timed_out;
use crate::good;
use crate::revisions::{Revision, Wanted, wanted};
use crate::rollback::{Failure, Run, choose};

/// The revision that the pods are to be of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target<'a> {
    /// Its name; `None` when there is none at all.
    pub(super) name: Option<String>,
    /// What its pods are made from.
    pub(super) template: &'a PodTemplateSpec,
    /// The revision of the present template, when it is to be written first.
    pub(super) write: Option<Wanted>,
    /// The revision that is asked for; `None` while nobody knows what it reads.
    pub(super) asked: Option<String>,
    /// Whether what is asked for has failed, and another one runs instead.
    pub(super) failed: bool,
    /// There is no revision of the present template, and none comes for now: something that it reads is missing, or it
    /// was refused. What runs goes on running.
    pub(super) held: bool,
}

impl Target<'_> {
    /// Whether the revision that is to run is there.
    pub(super) fn is_there(&self) -> bool {
        self.write.is_none() || self.held
    }
}

/// Chooses.
pub(super) fn target(s: &Snapshot) -> Target<'_> {
    if s.missing.is_some() {
        return held(s, None);
    }
    let collisions = s.status.as_ref().and_then(|s| s.collision_count);
    let wanted = wanted(
        &s.key.name,
        &s.template,
        &s.revisions,
        collisions.unwrap_or(0),
        &s.taken_revisions,
    );
    let frozen = wanted.there.is_some_and(|i| s.revisions[i].frozen);
    let mut target = Target {
        name: Some(wanted.name.clone()),
        template: &s.template,
        asked: Some(wanted.name.clone()),
        write: (!wanted.is_settled(&s.revisions) && !frozen).then_some(wanted),
        failed: false,
        held: false,
    };
    if s.is_refused() && target.write.is_some() {
        return held(s, target.write);
    }
    let (Some(name), Some(record)) = (&target.name, record(s)) else {
        return target;
    };
    let found = choose(name, Some(record), |to| usable(s, to).is_some());
    if let Run::Instead(to) = found
        && let Some((revision, template)) = usable(s, to)
    {
        target.name = Some(revision.name().to_owned());
        target.template = template;
        target.failed = true;
    }
    target
}

/// While there is no revision of the present template the newest that is there runs, or what runs instead of that.
fn held(s: &Snapshot, write: Option<Wanted>) -> Target<'_> {
    let newest = s.revisions.iter().rev().find(|r| r.template.is_some());
    let newest = newest.map(
        |r| match choose(r.name(), record(s), |to| usable(s, to).is_some()) {
            Run::Instead(to) => usable(s, to).map_or(r, |(instead, _)| instead),
            Run::Wanted => r,
        },
    );
    let template = newest.and_then(|r| r.template.as_ref());
    Target {
        name: newest.map(|r| r.name().to_owned()),
        template: template.unwrap_or(&s.template),
        write,
        asked: None,
        failed: false,
        held: true,
    }
}

/// What the record of a rollback says: which revision has failed, and which one runs instead.
fn record(s: &Snapshot) -> Option<(&str, &str)> {
    let record = s.status.as_ref()?.rollback.as_ref()?;
    s.rolls_back
        .then_some((&*record.failed_revision, &*record.to_revision))
}

/// A revision that is there and can be read.
fn usable<'a>(s: &'a Snapshot, name: &str) -> Option<(&'a Revision, &'a PodTemplateSpec)> {
    let revision = s.revisions.iter().find(|r| r.name() == name)?;
    Some((revision, revision.template.as_ref()?))
}

/// The last revision of which all pods were available.
pub(super) fn last_available(s: &Snapshot) -> Option<&str> {
    s.status.as_ref()?.last_available_revision.as_deref()
}

/// The one before that.
pub(super) fn former_available(s: &Snapshot) -> Option<&FormerRevision> {
    s.status.as_ref()?.former_available_revision.as_ref()
}

/// The record of a rollback, when what runs has failed and there is something to go back to: what is asked for, or what runs
/// instead of it.
/// `crash` is what is wrong with its pods.
pub(super) fn rollback(
    s: &Snapshot,
    target: &Target<'_>,
    crash: Option<Failure>,
    now: Timestamp,
) -> Option<RollbackRecord> {
    if !s.rolls_back || !s.rolls() {
        return None;
    }
    let (asked, name) = (target.asked.as_deref()?, target.name.as_deref()?);
    let good = good::back_to(name, last_available(s), former_available(s), now)?;
    usable(s, good)?;
    let failure = Failure::of_rollout(
        crash,
        last_available(s) == Some(name),
        s.status.as_ref().map_or(&[], |s| &s.conditions),
        &timed_out(name),
        s.progress_deadline,
    )?;
    Some(failure.record(asked, good, now))
}
