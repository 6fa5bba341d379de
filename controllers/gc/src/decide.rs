//! What goes: a pure function of what is, and of the time.

use std::time::Duration;

use setpoint_apis::Timestamp;
use setpoint_apis::records::Deletion;

use crate::plan::{
    Candidate, Home, Owner, Plan, Reason, Record, RecordStep, Release, Removal, Snapshot,
};

/// An object whose namespace is not there waits this long. Whoever writes keys by hand, or restores them in any order,
/// writes the namespace within that time.
pub(crate) const NAMESPACE_GRACE: Duration = Duration::from_secs(600);

/// Decides.
///
/// # Guarantees
/// - An object goes only when all its owners are gone for certain: absent, or replaced by an object with another uid.
///   An owner that does not parse, or whose kind is not known, is taken to exist.
/// - An object that does not parse is left alone, unless its namespace has been deleted.
/// - An object that another owner keeps does not hold back one that goes: it loses that owner.
/// - Objects that own one another in a circle do not wait for one another.
/// - What is decided about one object does not hang on which others are decided about at the same time.
pub(crate) fn decide(s: &Snapshot, now: Timestamp) -> Plan {
    let mut plan = Plan {
        statuses: s.statuses.clone(),
        ..Plan::default()
    };
    for candidate in &s.candidates {
        object(&mut plan, candidate, now);
    }
    for r in &s.records {
        plan.records.extend(record(r));
    }
    plan
}

fn object(plan: &mut Plan, c: &Candidate, now: Timestamp) {
    match c.home {
        Home::Exists => {}
        Home::Deleted => {
            plan.delete.push(removal(c, vec![Reason::Homeless]));
            return;
        }
        Home::Missing(since) => {
            let due = since.saturating_add(NAMESPACE_GRACE);
            if due <= now {
                plan.delete.push(removal(c, vec![Reason::Homeless]));
                return;
            }
            plan.later.push((c.id.clone(), due.duration_since(now)));
        }
    }
    if c.owners.is_empty() {
        return;
    }
    if !c.valid {
        plan.notes
            .push(format!("{} does not parse: left alone", c.id));
        return;
    }
    let orphaned = |o: &Owner| matches!(o, Owner::Orphaned(..));
    let stays = |o: &Owner| matches!(o, Owner::Present | Owner::Unknown);
    let leaves = |o: &Owner| matches!(o, Owner::Leaving(_));
    let any = |is: fn(&Owner) -> bool| c.owners.iter().any(|(_, o)| is(o));
    if any(orphaned) {
        plan.release.push(release(c, orphaned));
    } else if any(stays) {
        // One owner keeps it. One that waits for its dependents would wait for ever.
        if any(leaves) {
            plan.release.push(release(c, leaves));
        }
    } else {
        let because = c.owners.iter().flat_map(|(_, o)| o.reasons()).collect();
        if !any(leaves) || c.dependents == 0 || c.circular {
            plan.delete.push(removal(c, because));
        } else if let Some(uid) = c.uid.clone().filter(|_| !c.recorded) {
            // With a record of its own it goes when that has been carried out.
            plan.records.push(RecordStep::Pass {
                id: c.id.clone(),
                uid,
                object: c.mod_revision,
                because,
            });
        }
    }
}

fn removal(c: &Candidate, because: Vec<Reason>) -> Removal {
    Removal {
        id: c.id.clone(),
        mod_revision: c.mod_revision,
        because,
    }
}

/// Takes those owners from an object that `loses` names.
fn release(c: &Candidate, loses: fn(&Owner) -> bool) -> Release {
    let (lost, kept): (Vec<_>, Vec<_>) = c.owners.iter().partition(|(_, o)| loses(o));
    Release {
        id: c.id.clone(),
        mod_revision: c.mod_revision,
        keep: kept.into_iter().map(|(r, _)| r.clone()).collect(),
        because: lost.into_iter().flat_map(|(_, o)| o.reasons()).collect(),
    }
}

fn record(r: &Record) -> Option<RecordStep> {
    let (id, record) = (r.id.clone(), r.mod_revision);
    Some(match (r.policy.as_str(), r.object) {
        // Its dependents are let go one by one; each is a candidate of its own.
        (Deletion::ORPHAN, None) if r.dependents > 0 => return None,
        (Deletion::ORPHAN, Some(object)) => RecordStep::DeleteObject { id, object, record },
        (Deletion::FOREGROUND, Some(_)) if r.blocking > 0 => return None,
        (Deletion::FOREGROUND, Some(object)) => RecordStep::Finish { id, object, record },
        // A policy of a later version: it is for that to carry out.
        (_, Some(_)) => return None,
        _ => RecordStep::Remove { id, record },
    })
}

#[cfg(test)]
mod tests {
    use setpoint_apis::{ObjectKey, OwnerReference};

    use super::*;
    use crate::plan::{Gone, Leaving, ObjectId};

    fn id(plural: &'static str, name: &str) -> ObjectId {
        ObjectId::new(plural, ObjectKey::namespaced("default", name))
    }

    fn reference(name: &str) -> OwnerReference {
        OwnerReference {
            name: name.into(),
            uid: format!("uid-{name}"),
            ..OwnerReference::default()
        }
    }

    fn absent(name: &str) -> (OwnerReference, Owner) {
        (
            reference(name),
            Owner::Gone(Gone::Absent(id("deployments", name))),
        )
    }

    fn candidate(owners: Vec<(OwnerReference, Owner)>) -> Candidate {
        Candidate {
            id: id("replicasets", "web-1"),
            uid: Some("uid-web-1".into()),
            mod_revision: 7,
            valid: true,
            home: Home::Exists,
            owners,
            dependents: 0,
            circular: false,
            recorded: false,
        }
    }

    fn check(c: Candidate, expected: &str) {
        let snapshot = Snapshot {
            candidates: vec![c],
            ..Snapshot::default()
        };
        assert_eq!(
            decide(&snapshot, Timestamp::from_unix_seconds(1_000)).to_string(),
            expected
        );
    }

    fn check_record(policy: &str, object: Option<i64>, dependents: usize, expected: &str) {
        let record = Record {
            id: id("deployments", "web"),
            mod_revision: 9,
            policy: policy.into(),
            object,
            dependents,
            blocking: dependents,
        };
        let snapshot = Snapshot {
            records: vec![record],
            ..Snapshot::default()
        };
        assert_eq!(
            decide(&snapshot, Timestamp::EPOCH).to_string(),
            expected,
            "{policy} {object:?} {dependents}"
        );
    }

    #[test]
    fn an_object_goes_when_all_its_owners_are_gone() {
        check(candidate(vec![]), "");
        check(
            candidate(vec![absent("web")]),
            "delete replicasets default/web-1 at 7, deployments default/web is gone\n",
        );
        check(
            candidate(vec![absent("web"), (reference("b"), Owner::Present)]),
            "",
        );
        let replaced = (
            reference("web"),
            Owner::Gone(Gone::Replaced(id("deployments", "web"), 5)),
        );
        check(
            candidate(vec![absent("a"), replaced]),
            "delete replicasets default/web-1 at 7, deployments default/a is gone, deployments default/web is another at 5\n",
        );
    }

    #[test]
    fn an_owner_of_a_kind_that_is_not_known_keeps_its_dependents() {
        check(
            candidate(vec![absent("web"), (reference("b"), Owner::Unknown)]),
            "",
        );
    }

    #[test]
    fn an_object_that_does_not_parse_is_left_alone_unless_its_namespace_is_deleted() {
        let broken = Candidate {
            valid: false,
            ..candidate(vec![absent("web")])
        };
        check(
            broken.clone(),
            "note: replicasets default/web-1 does not parse: left alone\n",
        );
        check(
            Candidate {
                home: Home::Deleted,
                ..broken
            },
            "delete replicasets default/web-1 at 7, its namespace is gone\n",
        );
    }

    #[test]
    fn a_namespace_that_is_not_there_gets_time_to_come() {
        let since = |seconds| Home::Missing(Timestamp::from_unix_seconds(seconds));
        let homeless = |home| Candidate {
            home,
            ..candidate(vec![])
        };
        check(
            homeless(since(900)),
            "look at replicasets default/web-1 again in 500 s\n",
        );
        check(
            homeless(since(400)),
            "delete replicasets default/web-1 at 7, its namespace is gone\n",
        );
        check(
            homeless(Home::Deleted),
            "delete replicasets default/web-1 at 7, its namespace is gone\n",
        );
    }

    #[test]
    fn orphans_lose_the_owner_and_stay() {
        let orphaned = (
            reference("web"),
            Owner::Orphaned(Gone::Absent(id("deployments", "web")), 9),
        );
        check(
            candidate(vec![orphaned.clone()]),
            "release replicasets default/web-1 at 7, it keeps 0 owners, deployments default/web is gone by its record at 9\n",
        );
        check(
            candidate(vec![orphaned, absent("b")]),
            "release replicasets default/web-1 at 7, it keeps 1 owners, deployments default/web is gone by its record at 9\n",
        );
        check_record(
            Deletion::ORPHAN,
            Some(5),
            1,
            "delete deployments default/web at 5 and keep its record at 9\n",
        );
        check_record(Deletion::ORPHAN, None, 1, "");
        check_record(
            Deletion::ORPHAN,
            None,
            0,
            "delete record of deployments default/web at 9\n",
        );
    }

    #[test]
    fn dependents_go_first_when_the_owner_is_to_wait() {
        let leaving = (
            reference("web"),
            Owner::Leaving(Leaving {
                id: id("deployments", "web"),
                at: 5,
                record: 9,
            }),
        );
        check(
            candidate(vec![leaving.clone()]),
            "delete replicasets default/web-1 at 7, deployments default/web waits at 5 by its record at 9\n",
        );
        check(
            Candidate {
                dependents: 3,
                ..candidate(vec![leaving.clone()])
            },
            "record replicasets default/web-1 at 7 as leaving, deployments default/web waits at 5 by its record at 9\n",
        );
        check(
            Candidate {
                dependents: 3,
                circular: true,
                ..candidate(vec![leaving.clone()])
            },
            "delete replicasets default/web-1 at 7, deployments default/web waits at 5 by its record at 9\n",
        );
        for keeps in [Owner::Present, Owner::Unknown] {
            check(
                candidate(vec![leaving.clone(), (reference("b"), keeps), absent("c")]),
                "release replicasets default/web-1 at 7, it keeps 2 owners, deployments default/web waits at 5 by its record at 9\n",
            );
        }
        check_record(Deletion::FOREGROUND, Some(5), 1, "");
        check_record(
            Deletion::FOREGROUND,
            Some(5),
            0,
            "delete deployments default/web at 5 and its record at 9\n",
        );
        check_record(
            Deletion::FOREGROUND,
            None,
            3,
            "delete record of deployments default/web at 9\n",
        );
    }

    #[test]
    fn a_policy_of_a_later_version_is_left_to_it() {
        check_record("Sideways", Some(5), 0, "");
        check_record(
            "Sideways",
            None,
            0,
            "delete record of deployments default/web at 9\n",
        );
    }
}
