//! Claims come before their pods and outlive them.

use super::*;
use crate::statefulset::plan::ClaimSeen;

fn claim(ordinal: i32) -> ClaimSeen {
    ClaimSeen {
        ordinal,
        seen: Seen {
            key: ObjectKey::namespaced("default", format!("data-db-{ordinal}")),
            mod_revision: 7,
        },
        made_here: true,
        taken_over: false,
        owned: false,
    }
}

/// Three pods with a claim each.
fn with_claims() -> World {
    let mut w = running(set(3, "a"));
    w.s.claims = (0..3).map(claim).collect();
    assert_eq!(w.plan().to_string(), "");
    w
}

#[test]
fn a_claim_is_made_with_its_pod_and_made_again_for_a_pod_that_waits() {
    let mut w = World::new(set(2, "a"));
    w.settle();
    w.s.members.clear();
    w.s.absent_claims = [(0, 0), (0, 1), (1, 0)].into();
    let plan = w.plan().to_string();
    assert!(
        plan.starts_with(
            "create claim 0 of pod db-0\ncreate claim 1 of pod db-0\ncreate pod db-0 of "
        ),
        "{plan}"
    );
    w.settle();
    assert_eq!(
        w.s.absent_claims,
        [(1, 0)].into(),
        "that of the next one comes with it"
    );
    w.s.absent_claims.insert((0, 1));
    assert_eq!(
        w.plan().to_string().lines().next(),
        Some("create claim 1 of pod db-0")
    );
    w.run();
    assert!(w.s.absent_claims.is_empty());
    w.s.absent_claims.insert((0, 1));
    assert_eq!(
        w.plan().to_string(),
        "",
        "a pod that is ready does not miss its claim"
    );
}

#[test]
fn claims_stay_when_pods_go_unless_they_are_to_go_with_them() {
    let mut w = with_claims();
    w.s.wanted = 2;
    let plan = w.plan();
    assert_eq!((plan.delete.len(), plan.delete[0].claims.len()), (1, 0));
    w.s.claims_go_with_pods = true;
    let plan = w.plan().to_string();
    assert!(
        plan.contains("(scaled down)\n  with claim data-db-2\n"),
        "{plan}"
    );
}

#[test]
fn a_pod_that_is_replaced_keeps_its_claim() {
    let mut w = with_claims();
    w.s.claims_go_with_pods = true;
    w.roll_to("b");
    w.run();
    assert_eq!(w.images(), "b0 b1 b2");
    assert_eq!(w.s.claims.len(), 3);
}

#[test]
fn claims_go_with_the_set_when_they_are_to() {
    let mut w = with_claims();
    w.s.claims_go_with_set = true;
    assert_eq!(
        w.plan().to_string(),
        "own claim data-db-0 at 7\nown claim data-db-1 at 7\nown claim data-db-2 at 7\n"
    );
    for c in &mut w.s.claims {
        c.owned = true;
    }
    assert_eq!(w.plan().to_string(), "");
    w.s.claims_go_with_set = false;
    assert_eq!(w.plan().disown_claims.len(), 3);
}

#[test]
fn a_claim_that_somebody_has_taken_over_does_not_go_with_the_set() {
    let mut w = with_claims();
    for c in &mut w.s.claims {
        c.owned = true;
    }
    // It lost the annotation after the reference was put there.
    w.s.claims[1].made_here = false;
    w.s.claims[1].taken_over = true;
    for (goes, plan) in [
        (true, "disown claim data-db-1 at 7\n"),
        (
            false,
            "disown claim data-db-0 at 7\ndisown claim data-db-1 at 7\ndisown claim data-db-2 at 7\n",
        ),
    ] {
        w.s.claims_go_with_set = goes;
        assert_eq!(w.plan().to_string(), plan);
    }
    w.s.claims_go_with_set = true;
    w.s.claims[1].owned = false;
    assert_eq!(w.plan().to_string(), "");
    // What a user made and put under the set is the user's business.
    w.s.claims[1].owned = true;
    w.s.claims[1].taken_over = false;
    assert_eq!(w.plan().to_string(), "");
}

#[test]
fn a_claim_that_a_user_made_is_never_touched() {
    let mut w = with_claims();
    for c in &mut w.s.claims {
        c.made_here = false;
    }
    w.s.claims_go_with_set = true;
    w.s.claims_go_with_pods = true;
    assert_eq!(w.plan().to_string(), "");
    w.s.wanted = 2;
    assert_eq!(w.plan().delete[0].claims.len(), 0);
}

#[test]
fn a_pod_comes_with_all_of_its_claims_or_not_at_all() {
    let mut w = World::new(set(3, "a"));
    w.s.ordered = false;
    w.settle();
    w.s.members.clear();
    w.s.absent_claims = (0..3).flat_map(|n| [(n, 0), (n, 1)]).collect();
    let plan = w.plan();
    assert_eq!((plan.create.len(), plan.claims.len()), (3, 6));
    let out = |first: usize, second: usize| {
        let names = plan.shut_out(&[(0, first), (1, second)].into());
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(out(3, 3), "");
    assert_eq!(out(3, 1), "db-1 db-2");
    assert_eq!(out(2, 3), "db-2");
    assert_eq!(out(0, 3), "db-0 db-1 db-2");
}

#[test]
fn while_a_claim_is_refused_the_status_goes_on_and_what_failed_is_forgotten_with_the_wish() {
    let mut w = World::new(set(2, "a"));
    w.s.ordered = false;
    w.settle();
    w.s.members.truncate(1);
    w.s.absent_claims = [(1, 0)].into();
    w.s.setbacks.failure = Some(("FailedCreate".into(), "exceeded quota: q".into()));
    let plan = w.plan();
    assert!(!plan.asks_for_nothing() && plan.create.len() == 1);
    let before = plan.status.expect("it says what is wrong");
    assert!(
        before
            .conditions
            .iter()
            .any(|c| c.type_ == "ReplicaFailure")
    );
    w.s.status = Some(before.clone());
    assert_eq!(w.plan().status, None);
    w.start_pods();
    let after = w.plan().status.expect("db-0 is ready");
    assert_eq!(
        (before.ready_replicas, after.ready_replicas),
        (None, Some(1))
    );
    w.s.wanted = 1;
    assert!(w.plan().asks_for_nothing());
}
