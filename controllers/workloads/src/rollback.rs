//! Which revision of a workload runs: the one that its document asks for, unless that has failed.
//!
//! A document belongs to its user, so a controller never takes a change in it back. What it takes back is its own doing:
//! the status records that the revision that is asked for has failed and which one runs instead. The record holds for
//! exactly that revision: any other one that is asked for later is rolled out as always.
//!
//! A revision is named by its hash. It is *good* once all pods were of it and available; the status names the last such
//! one, so a workload that was never available has nothing to go back to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use setpoint_apis::Timestamp;
use setpoint_apis::apps::{
    PROGRESS_DEADLINE, ROLLBACK_ON_FAILURE, RollbackRecord, WorkloadCondition,
};

use crate::conditions::{self, DEADLINE_EXCEEDED, Finding, PROGRESSING, REPLICA_FAILURE};
use crate::pod::{PodFacts, Trouble};

/// How long a rollout of a workload with these annotations may stand still before it has failed; `None`: for ever, which
/// is written as Kubernetes does it, as the greatest number of 32 bits.
pub fn progress_deadline(annotations: &BTreeMap<String, String>) -> Option<Duration> {
    let written = annotations.get(PROGRESS_DEADLINE);
    let seconds = written.and_then(|s| s.parse().ok().filter(|s| *s > 0));
    let seconds: i32 = seconds.unwrap_or(600);
    let limit = Duration::from_secs(u64::from(seconds.unsigned_abs()));
    (seconds != i32::MAX).then_some(limit)
}

/// When a rollout that got on at `since` for the last time misses its deadline. `up_since`: since when it could have got on
/// at all.
pub fn due(since: Timestamp, up_since: Timestamp, deadline: Duration) -> Timestamp {
    since.max(up_since).saturating_add(deadline)
}

/// The condition of a workload whose rollout was taken back.
const ROLLED_BACK: &str = "RolledBack";

/// Which revision runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run<'a> {
    /// The one that is asked for.
    Wanted,
    /// The one before it, of this hash: what is asked for has failed.
    Instead(&'a str),
}

/// Chooses. `failed` and `instead` are what the record says: the hash that has failed, and the one that runs instead.
/// `exists` says whether a revision is still there.
pub fn choose<'a>(
    wanted: &str,
    record: Option<(&str, &'a str)>,
    exists: impl Fn(&str) -> bool,
) -> Run<'a> {
    match record {
        Some((failed, instead)) if failed == wanted && instead != wanted && exists(instead) => {
            Run::Instead(instead)
        }
        _ => Run::Wanted,
    }
}

/// Why a revision has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// One CamelCase word: `PodsCrash`, `ProgressDeadlineExceeded`.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Failure {
    /// Why the rollout of a revision has failed: its pods crash, or it has missed its deadline. What has been `complete` once
    /// has kept that.
    pub fn of_rollout(
        crash: Option<Self>,
        complete: bool,
        conditions: &[WorkloadCondition],
        timed_out: &str,
        deadline: Option<Duration>,
    ) -> Option<Self> {
        let missed = || Self::missed_deadline(conditions, timed_out, deadline);
        crash.or_else(|| if complete { None } else { missed() })
    }

    /// The deadline that was missed, as the conditions of a status say it: so people see the verdict before its
    /// consequence. `timed_out` is what they say of the revision in question.
    fn missed_deadline(
        conditions: &[WorkloadCondition],
        timed_out: &str,
        deadline: Option<Duration>,
    ) -> Option<Self> {
        let c = conditions::get(conditions, PROGRESSING)?;
        let missed = c.reason.as_deref() == Some(DEADLINE_EXCEEDED)
            && c.message.as_deref() == Some(timed_out);
        let seconds = deadline.map_or(0, |d| d.as_secs());
        let mut message = format!("there was no progress for {seconds} s");
        // What stood in the way is gone from the status with what is taken back.
        let refused = conditions::get(conditions, REPLICA_FAILURE).filter(|c| c.status == "True");
        if let Some(why) = refused.and_then(|c| c.message.as_deref()) {
            message.push_str(": ");
            message.push_str(why);
        }
        missed.then_some(Self {
            reason: DEADLINE_EXCEEDED,
            message,
        })
    }

    /// The record: `failed` has failed, `to` runs instead.
    pub fn record(self, failed: &str, to: &str, now: Timestamp) -> RollbackRecord {
        RollbackRecord {
            failed_revision: failed.to_owned(),
            to_revision: to.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            at: now.whole_seconds(),
        }
    }
}

/// Whether the rollouts of a workload with these annotations are taken back when they fail.
pub fn is_on(annotations: &BTreeMap<String, String>) -> bool {
    let said = annotations.get(ROLLBACK_ON_FAILURE);
    said.is_none_or(|v| v != "false")
}

/// Sets or removes the condition `RolledBack`: what is asked for has failed, and the revision before it runs.
pub fn set_condition(
    conditions: &mut Vec<WorkloadCondition>,
    record: Option<&RollbackRecord>,
    now: Timestamp,
) {
    let finding = record.map(|r| {
        let (failed, to) = (&r.failed_revision, &r.to_revision);
        let message = format!("{failed} has failed, {to} runs instead: {}.", r.message);
        Finding::new(ROLLED_BACK, true, r.reason.as_str(), message)
    });
    conditions::set_or_remove(conditions, ROLLED_BACK, finding, now);
}

/// The line of a plan that takes a rollout back.
pub(crate) fn show(f: &mut fmt::Formatter<'_>, record: Option<&RollbackRecord>) -> fmt::Result {
    let Some(r) = record else { return Ok(()) };
    let (from, to) = (&r.failed_revision, &r.to_revision);
    writeln!(f, "roll back from {from} to {to}: {}", r.reason)
}

/// What people are told when a rollout is taken back: reason and sentence.
pub(crate) fn news(r: &RollbackRecord) -> (String, String) {
    let (failed, to) = (&r.failed_revision, &r.to_revision);
    let message = format!("{failed} has failed, back to {to}: {}", r.message);
    (ROLLED_BACK.to_owned(), message)
}

/// Whether the pods of a new revision crash: one of them was restarted [`Trouble::MANY`] times or more, waits for its
/// next restart, and has not been ready since.
pub fn crashing<'a>(pods: impl Iterator<Item = &'a PodFacts>) -> Option<Failure> {
    let mut crashing = pods.filter_map(|pod| {
        let trouble = pod.trouble.as_ref()?;
        let crashes = &*trouble.reason == "CrashLoopBackOff" && trouble.restarts >= Trouble::MANY;
        crashes.then_some((pod, trouble))
    });
    let (pod, trouble) = crashing.next()?;
    let more = match crashing.count() {
        0 => String::new(),
        1 => ", and so does 1 other pod".to_owned(),
        n => format!(", and so do {n} other pods"),
    };
    Some(Failure {
        reason: "PodsCrash",
        message: format!(
            "container {:?} of pod {} crashes again and again{more}",
            &*trouble.container, pod.key.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::tests::facts;

    #[test]
    fn the_deadline_is_ten_minutes_unless_the_annotation_says_otherwise() {
        let deadline = |text: &str| {
            let annotations = [(PROGRESS_DEADLINE.to_owned(), text.to_owned())];
            progress_deadline(&annotations.into()).map(|d| d.as_secs())
        };
        assert_eq!(
            progress_deadline(&BTreeMap::new()),
            Some(Duration::from_secs(600))
        );
        assert_eq!(deadline("30"), Some(30));
        assert_eq!(deadline("2147483647"), None);
        for not_a_limit in ["", "0", "-5", "10m"] {
            assert_eq!(deadline(not_a_limit), Some(600), "{not_a_limit:?}");
        }
    }

    #[test]
    fn a_record_holds_for_the_revision_that_has_failed_and_no_other() {
        let all = |_: &str| true;
        assert_eq!(choose("b", None, all), Run::Wanted);
        assert_eq!(choose("b", Some(("b", "a")), all), Run::Instead("a"));
        assert_eq!(choose("c", Some(("b", "a")), all), Run::Wanted);
        assert_eq!(choose("a", Some(("b", "a")), all), Run::Wanted);
    }

    #[test]
    fn what_is_gone_cannot_be_gone_back_to() {
        assert_eq!(choose("b", Some(("b", "a")), |_| false), Run::Wanted);
        assert_eq!(choose("b", Some(("b", "b")), |_| true), Run::Wanted);
    }

    #[test]
    fn a_deadline_is_what_the_annotation_says_or_ten_minutes() {
        let deadline = |value: Option<&str>| {
            let pair = value.map(|v| (PROGRESS_DEADLINE.to_owned(), v.to_owned()));
            progress_deadline(&pair.into_iter().collect()).map(|d| d.as_secs())
        };
        assert_eq!(deadline(None), Some(600));
        assert_eq!(deadline(Some("30")), Some(30));
        assert_eq!(deadline(Some("-1")), Some(600));
        assert_eq!(deadline(Some("soon")), Some(600));
        assert_eq!(deadline(Some("2147483647")), None);
    }

    #[test]
    fn pods_crash_when_they_were_restarted_often_and_wait() {
        let pod = |name: &str, reason: &str, restarts| PodFacts {
            ready_since: None,
            restarts,
            trouble: Some(Trouble {
                container: "c".into(),
                reason: reason.into(),
                restarts: restarts.min(Trouble::MANY),
            }),
            ..facts(name)
        };
        let message = |pods: &[PodFacts]| crashing(pods.iter()).map(|f| f.message);
        assert_eq!(message(&[facts("a")]), None);
        assert_eq!(message(&[pod("a", "CrashLoopBackOff", 2)]), None);
        assert_eq!(message(&[pod("a", "ErrImagePull", 9)]), None);
        let crash = pod("a", "CrashLoopBackOff", 7);
        assert_eq!(
            message(&[facts("x"), crash.clone()]).as_deref(),
            Some("container \"c\" of pod a crashes again and again")
        );
        let other = pod("b", "CrashLoopBackOff", 3);
        assert_eq!(
            message(&[crash, other]).as_deref(),
            Some("container \"c\" of pod a crashes again and again, and so does 1 other pod")
        );
    }
}
