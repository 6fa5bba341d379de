//! Pods come and go in order.

use std::time::Duration;

use setpoint_apis::ObjectKey;

use super::*;
use crate::standing::Unusable;

#[test]
fn pods_come_one_after_the_other_and_the_status_says_how_far_it_is() {
    let mut w = World::new(set(2, "a"));
    let text = |plans: &[Plan]| plans.iter().map(Plan::to_string).collect::<Vec<_>>();
    let plans = w.settle();
    let name = w.s.revisions[0].name().to_owned();
    assert_eq!(
        text(&plans),
        [
            format!("create revision {name} number=1\n"),
            format!(
                "create pod db-0 of {name}\n\
                 status replicas=0 ready=0 available=0 current=0*{name} updated=0*{name} generation=1 \
                 Progressing=True/RevisionRolling\nlook again in 600000 ms\n"
            ),
            format!(
                "status replicas=1 ready=0 available=0 current=1*{name} updated=1*{name} generation=1 \
                 Progressing=True/RevisionRolling\nlook again in 600000 ms\n"
            ),
        ]
    );
    w.start_pods();
    let plans = w.settle();
    assert_eq!(
        plans[0].to_string(),
        format!("create pod db-1 of {name}\nlook again in 600000 ms\n")
    );
    w.run();
    assert_eq!(
        w.plan().to_string(),
        "",
        "nothing is planned when all is done"
    );
    let status = w.s.status.as_ref().unwrap();
    assert_eq!(
        (
            status.replicas,
            status.ready_replicas,
            status.available_replicas
        ),
        (2, Some(2), Some(2))
    );
    assert_eq!(status.last_available_revision.as_deref(), Some(&*name));
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("True/RevisionAvailable")
    );
}

#[test]
fn in_order_only_the_highest_is_ever_not_available() {
    let mut w = World::new(set(5, "a"));
    w.run_with(|w| {
        let unavailable = w.s.members.len() - w.available();
        assert!(unavailable <= 1, "{}", w.images());
        let numbers: Vec<i32> = w.s.members.iter().map(|m| m.ordinal).collect();
        assert_eq!(
            numbers,
            (0..i32::try_from(numbers.len()).unwrap()).collect::<Vec<_>>()
        );
    });
    assert_eq!(w.history, ["+0", "+1", "+2", "+3", "+4"]);
}

#[test]
fn parallel_pods_come_and_go_all_at_once() {
    let mut w = World::new(parallel(set(5, "a")));
    w.settle();
    assert_eq!(w.history, ["+0", "+1", "+2", "+3", "+4"]);
    w.run();
    w.history.clear();
    w.s.wanted = 2;
    w.settle();
    assert_eq!(w.history, ["-4", "-3", "-2"]);
}

#[test]
fn scaling_down_goes_from_the_highest_number_each_when_the_one_above_has_stopped() {
    let mut w = running(set(5, "a"));
    w.s.wanted = 2;
    w.run_with(|w| assert!(w.stopping().len() <= 1));
    assert_eq!(w.history, ["-4", "-3", "-2"]);
    assert_eq!(w.images(), "a0 a1");
}

#[test]
fn an_autoscaler_that_cannot_be_read_is_told_of_once_while_it_lasts() {
    let mut w = running(set(2, "a"));
    w.s.broken_scaler = Some(crate::conditions::Finding::new(
        crate::autoscale::AUTOSCALER_INVALID,
        true,
        "AutoscalerInvalid",
        "it does not parse",
    ));
    assert_eq!(w.settle().len(), 1);
    let said = |w: &World| w.condition("AutoscalerInvalid");
    assert_eq!(said(&w).as_deref(), Some("True/AutoscalerInvalid"));
    w.s.broken_scaler = None;
    assert_eq!(w.settle().len(), 1);
    assert_eq!(said(&w), None);
}

#[test]
fn in_order_scaling_down_halts_while_a_pod_of_lower_number_is_not_available() {
    let mut w = running(set(4, "a"));
    w.s.wanted = 2;
    for unavailable in [0, 2] {
        w.facts(unavailable).ready_since = None;
        w.facts(3).ready_since = None;
        w.settle();
        assert_eq!(w.images(), "a0 a1 a2 a3");
        w.facts(unavailable).ready_since = Some(at(1_000));
    }
    // The only one that is not available is the one that goes.
    w.run();
    assert_eq!(w.images(), "a0 a1");
    // Kubernetes' own case: none is ready, and all are to go.
    let mut w = running(set(3, "a"));
    w.s.wanted = 0;
    for ordinal in 0..3 {
        w.facts(ordinal).ready_since = None;
    }
    w.settle();
    assert_eq!(w.images(), "a0 a1 a2");
    // One that has no node may never have one: it is no reason to wait.
    w.facts(2).node = None;
    w.run();
    assert_eq!(w.images(), "a0 a1");
    // All at once there is nothing to wait for.
    w.s.ordered = false;
    w.run();
    assert_eq!(w.images(), "");
}

#[test]
fn scaling_down_does_not_wait_for_pods_of_a_revision_that_nobody_wants_any_more() {
    let mut w = World::new(parallel(set(3, "broken")));
    w.run();
    w.s.ordered = true;
    w.s.wanted = 0;
    w.settle();
    assert_eq!(w.images(), "broken0 broken1 broken2");
    w.roll_to("a");
    w.run();
    assert_eq!(
        (w.images(), w.history.join(" ")),
        (String::new(), "-2 -1 -0".into())
    );
}

#[test]
fn numbers_begin_where_they_are_to_begin() {
    let mut w = World::new(Snapshot {
        first: 3,
        ..set(2, "a")
    });
    w.run();
    assert_eq!(w.images(), "a3 a4");
    // Another start: 5 comes when 4 is there, and 3 goes after that.
    w.history.clear();
    w.s.first = 4;
    w.run();
    assert_eq!(w.history, ["+5", "-3"]);
}

#[test]
fn a_pod_that_is_missing_in_the_middle_comes_before_anything_else() {
    let mut w = running(set(3, "a"));
    w.s.members.remove(1);
    w.s.stopping.insert(1);
    w.settle();
    assert_eq!(
        w.images(),
        "a0 a2",
        "its name is taken until it has stopped"
    );
    w.stop_pods();
    w.s.wanted = 5;
    w.run();
    assert_eq!(w.history, ["+1", "+3", "+4"]);
}

#[test]
fn a_pod_that_has_ended_is_made_again_under_its_name() {
    for ended in [PodState::Failed, PodState::Succeeded] {
        let mut w = running(set(3, "a"));
        w.facts(1).state = ended;
        w.facts(1).ready_since = None;
        let plan = w.plan();
        let text = plan.to_string();
        assert!(
            text.contains("delete pod db-1 at") && text.contains("(it has ended)"),
            "{text}"
        );
        w.run();
        assert_eq!(w.history, ["-1", "+1"]);
        assert_eq!(w.available(), 3);
    }
}

#[test]
fn a_pod_that_ends_again_and_again_comes_later_each_time() {
    let mut w = running(set(1, "a"));
    w.s.members.clear();
    w.s.setbacks = Setbacks {
        finished: 3,
        last_finished: Some(at(w.now)),
        failure: None,
    };
    let plan = w.plan();
    assert!(plan.create.is_empty());
    assert_eq!(plan.look_again, Some(Duration::from_secs(20)));
    w.now += 20;
    assert_eq!(w.plan().create.len(), 1);
}

#[test]
fn a_pod_that_moves_is_the_same_pod() {
    let mut w = running(set(3, "a"));
    // Its node is lost: for a while it is nowhere.
    let facts = w.facts(1);
    (facts.state, facts.node, facts.ready_since) = (PodState::Unbound, None, None);
    w.settle();
    assert_eq!(w.history, Vec::<String>::new());
    w.run();
    assert_eq!(w.history, Vec::<String>::new());
    assert_eq!(w.available(), 3);
}

#[test]
fn pods_must_be_ready_for_a_while_before_the_next_one_comes() {
    let mut w = World::new(Snapshot {
        min_ready: Duration::from_secs(30),
        ..set(2, "a")
    });
    w.settle();
    w.start_pods();
    w.settle();
    assert_eq!(w.images(), "a0");
    assert_eq!(w.plan().look_again, Some(Duration::from_secs(30)));
    w.now += 30;
    w.settle();
    assert_eq!(w.images(), "a0 a1");
}

#[test]
fn a_name_that_somebody_else_has_is_waited_for_and_named() {
    let mut w = World::new(parallel(set(3, "a")));
    w.s.foreign = [1].into();
    w.run();
    assert_eq!(w.images(), "a0 a2");
    assert_eq!(
        w.condition("ReplicaFailure").as_deref(),
        Some("True/NameTaken")
    );
    w.s.foreign.clear();
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
    assert_eq!(w.condition("ReplicaFailure"), None);
    let mut w = World::new(set(3, "a"));
    w.s.foreign = [0].into();
    w.run();
    assert_eq!(w.images(), "", "in order nothing comes before the first");
}

#[test]
fn pods_are_adopted_and_released_before_anything_else() {
    let seen = |name: &str| Seen {
        key: ObjectKey::namespaced("default", name),
        mod_revision: 3,
    };
    let mut w = running(set(1, "a"));
    w.s.wanted = 5;
    w.s.adoptable = vec![seen("db-1")];
    w.s.releasable = vec![seen("db-x")];
    w.s.adoptable_revisions = vec![seen("db-5f7")];
    assert_eq!(
        w.plan().to_string(),
        "adopt pod db-1 at 3\nrelease pod db-x at 3\nadopt revision db-5f7 at 3\n"
    );
    w.s.terminating = true;
    assert!(!w.plan().acts(), "not while it is being deleted");
}

#[test]
fn a_broken_document_freezes_everything_and_says_so() {
    let mut w = running(set(3, "a"));
    let ready = w.s.status.clone().unwrap().ready_replicas;
    w.s.invalid = Some(Unusable::document("line 7: no"));
    w.s.wanted = 0;
    assert!(w.settle().iter().all(|p| !p.acts()));
    assert_eq!(
        w.condition("Invalid").as_deref(),
        Some("True/DocumentInvalid")
    );
    assert_eq!(w.s.status.clone().unwrap().ready_replicas, ready);
    w.s.invalid = None;
    w.s.broken_revisions = vec!["ControllerRevision db-5f7: line 7: no".into()];
    assert!(w.settle().iter().all(|p| !p.acts()));
    assert_eq!(
        w.condition("Invalid").as_deref(),
        Some("True/RevisionInvalid")
    );
    w.s.broken_revisions.clear();
    w.run();
    assert_eq!((w.images(), w.condition("Invalid")), (String::new(), None));
}

#[test]
fn a_pod_that_does_not_parse_counts_and_is_left_alone() {
    let mut w = running(set(3, "a"));
    let facts = w.facts(2);
    facts.frozen = true;
    w.s.wanted = 2;
    w.settle();
    assert_eq!(w.images(), "a0 a1 a2");
    w.s.wanted = 3;
    w.roll_to("b");
    w.run();
    assert_eq!(w.images(), "b0 b1 a2");
}

#[test]
fn nothing_is_created_in_a_namespace_that_does_not_exist() {
    let mut w = World::new(set(3, "a"));
    w.s.namespace_exists = false;
    assert!(w.settle().iter().all(|p| !p.acts()));
    assert_eq!(
        w.condition("ReplicaFailure").as_deref(),
        Some("True/NamespaceNotFound")
    );
}

#[test]
fn the_largest_numbers_are_planned_with_like_any_other() {
    for s in [set(i32::MAX, "a"), parallel(set(i32::MAX, "a"))] {
        let mut w = World::new(s);
        let plan = w.plan();
        w.apply(&plan);
        let plan = w.plan();
        assert!(!plan.create.is_empty());
        w.apply(&plan);
        w.s.wanted = 0;
        w.s.first = i32::MAX;
        assert!(!w.plan().delete.is_empty());
    }
}

#[test]
fn what_the_store_refuses_is_shown_and_tried_one_at_a_time() {
    let mut w = World::new(parallel(set(3, "a")));
    w.settle();
    w.s.members.clear();
    w.s.setbacks.failure = Some(("FailedCreate".into(), "too large".into()));
    let plan = w.plan();
    assert_eq!(plan.create.len(), 1);
    assert_eq!(w.condition("ReplicaFailure"), None);
    w.s.status = plan.status;
    assert_eq!(
        w.condition("ReplicaFailure").as_deref(),
        Some("True/FailedCreate")
    );
}
