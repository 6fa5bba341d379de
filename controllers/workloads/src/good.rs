//! Which revisions of a workload have proven good: what a rollout that fails goes back to.
//!
//! A revision is good once all pods were of it and available. Without a readiness probe and `minReadySeconds` a pod is
//! available as soon as its process runs, be it for a moment before it crashes. So what was good before is kept for a
//! while, and gone back to when the pods of the new one crash.

use std::time::Duration;

use setpoint_apis::Timestamp;
use setpoint_apis::apps::{FormerRevision, RollbackRecord};

/// How long a revision that has become good may still prove bad. A pod crashes for good when it waits after its third
/// restart ([`Trouble::MANY`](crate::pod::Trouble::MANY)): 10 + 20 + 40 s of waiting, and as much again for what it does in
/// between.
pub(crate) const PROBATION: Duration = Duration::from_secs(140);

/// What a rollout of `revision` that has failed goes back to: the `last` good one, and when that is itself, the `former` one
/// for as long as it may prove bad.
pub(crate) fn back_to<'a>(
    revision: &str,
    last: Option<&'a str>,
    former: Option<&'a FormerRevision>,
    now: Timestamp,
) -> Option<&'a str> {
    let last = last?;
    if last != revision {
        return Some(last);
    }
    in_force(former, now).filter(|former| *former != revision)
}

/// The former revision, while it may be gone back to: until then it is kept.
pub(crate) fn in_force(former: Option<&FormerRevision>, now: Timestamp) -> Option<&str> {
    let former = former.filter(|former| now < end(former))?;
    Some(&former.revision)
}

/// In how long the former revision cannot be gone back to any more.
pub(crate) fn look_again(former: Option<&FormerRevision>, now: Timestamp) -> Option<Duration> {
    let end = end(former?);
    (end > now).then(|| end.duration_since(now))
}

fn end(former: &FormerRevision) -> Timestamp {
    former.replaced_at.saturating_add(PROBATION)
}

/// All pods are of `revision` and available. What has not proven itself takes the place of nothing that has: the former
/// revision stays while it may be gone back to, unless it is the one that has come back.
pub(crate) fn note(
    last: &mut Option<String>,
    former: &mut Option<FormerRevision>,
    revision: &str,
    now: Timestamp,
) {
    if last.as_deref() == Some(revision) {
        return;
    }
    let before = last.replace(revision.to_owned());
    let proven = in_force(former.as_ref(), now).map(str::to_owned);
    *former = proven
        .or(before)
        .filter(|former| former != revision)
        .map(|revision| FormerRevision {
            revision,
            replaced_at: now.whole_seconds(),
        });
}

/// What ran is taken back: it has not been good after all. When that was not said of it yet, and what is gone back to may
/// still prove bad, its time begins anew with its pods. Gives the record to be kept: none when what is gone back to is what
/// is asked for. It had failed before, and was good before that; now nothing else is known, so it has another try.
pub(crate) fn take_back(
    last: &mut Option<String>,
    former: &mut Option<FormerRevision>,
    ran: &str,
    record: RollbackRecord,
) -> Option<RollbackRecord> {
    if last.as_deref() == Some(ran) {
        *last = Some(record.to_revision.clone());
        *former = None;
    } else if let Some(former) = former
        && in_force(Some(former), record.at).is_some()
    {
        former.replaced_at = record.at;
    }
    Some(record).filter(|r| r.to_revision != r.failed_revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn what_was_good_before_is_gone_back_to_for_a_while() {
        let (mut last, mut former) = (None, None);
        note(&mut last, &mut former, "a", at(0));
        assert_eq!(back_to("a", last.as_deref(), former.as_ref(), at(1)), None);
        assert_eq!(
            back_to("b", last.as_deref(), former.as_ref(), at(1)),
            Some("a")
        );
        note(&mut last, &mut former, "b", at(100));
        note(&mut last, &mut former, "b", at(200));
        let to = |revision, now| back_to(revision, last.as_deref(), former.as_ref(), at(now));
        assert_eq!(to("b", 239), Some("a"));
        assert_eq!(to("b", 240), None);
        assert_eq!(to("c", 1_000), Some("b"));
        assert_eq!(
            look_again(former.as_ref(), at(200)),
            Some(Duration::from_secs(40))
        );
        assert_eq!(look_again(former.as_ref(), at(240)), None);
    }

    #[test]
    fn what_has_proven_itself_is_not_given_up_for_what_has_not() {
        let (mut last, mut former) = (None, None);
        for (revision, seconds) in [("a", 0), ("b", 1_000), ("c", 1_060)] {
            note(&mut last, &mut former, revision, at(seconds));
        }
        let to = |revision, now| back_to(revision, last.as_deref(), former.as_ref(), at(now));
        assert_eq!(to("c", 1_100), Some("a"));
        // Who has come back by hand does not go forth by itself.
        note(&mut last, &mut former, "a", at(1_120));
        assert_eq!((last.as_deref(), former), (Some("a"), None));
    }

    #[test]
    fn what_was_taken_back_is_not_good() {
        let (mut last, mut former) = (None, None);
        note(&mut last, &mut former, "a", at(0));
        note(&mut last, &mut former, "b", at(1));
        let record = RollbackRecord {
            failed_revision: "b".into(),
            to_revision: "a".into(),
            ..RollbackRecord::default()
        };
        let kept = take_back(&mut last, &mut former, "b", record.clone());
        assert_eq!(kept.as_ref(), Some(&record));
        assert_eq!((last.as_deref(), &former), (Some("a"), &None));
        // What fails before it was good changes nothing.
        note(&mut last, &mut former, "c", at(2));
        take_back(&mut last, &mut former, "b", record);
        assert_eq!(last.as_deref(), Some("c"));
    }

    #[test]
    fn what_is_gone_back_to_may_prove_bad_for_as_long_again() {
        let (mut last, mut former) = (None, None);
        note(&mut last, &mut former, "a", at(0));
        note(&mut last, &mut former, "b", at(1_000));
        let record = |seconds| RollbackRecord {
            failed_revision: "c".into(),
            to_revision: "b".into(),
            at: at(seconds),
            ..RollbackRecord::default()
        };
        take_back(&mut last, &mut former, "c", record(1_130));
        let to = |now| back_to("b", last.as_deref(), former.as_ref(), at(now));
        assert_eq!((to(1_269), to(1_270)), (Some("a"), None));
        // What has proven itself stays good.
        take_back(&mut last, &mut former, "c", record(1_300));
        assert_eq!(in_force(former.as_ref(), at(1_300)), None);
    }
}
