//! Rollouts that fail: taken back, by hand or by themselves, also when they are stuck on a broken pod.

use super::*;
use crate::config::Missing;

/// Three pods of `a`, and a rollout whose first pod never becomes ready.
fn stuck(s: Snapshot) -> World {
    let mut w = running(s);
    w.roll_to("broken");
    w.run();
    assert_eq!(w.images(), "a0 a1 broken2");
    assert_eq!(w.available(), 2);
    w
}

#[test]
fn a_manual_revert_replaces_the_broken_pod_without_waiting_for_it() {
    for s in [set(3, "a"), parallel(set(3, "a"))] {
        let mut w = stuck(s);
        w.roll_to("a");
        w.run_with(|w| assert!(w.available() >= 2));
        assert_eq!(w.history, ["-2", "+2"]);
        assert_eq!(
            (w.images(), w.status()),
            ("a0 a1 a2".into(), "a*3 a*3".into())
        );
    }
}

#[test]
fn another_template_replaces_the_broken_pod_without_waiting_for_it() {
    let mut w = stuck(set(3, "a"));
    w.roll_to("b");
    w.run_with(|w| assert!(w.available() >= 2));
    assert_eq!(w.images(), "b0 b1 b2");
}

#[test]
fn a_broken_first_rollout_is_mended_by_the_next_template() {
    let mut w = World::new(set(3, "broken"));
    w.run();
    assert_eq!(w.images(), "broken0");
    w.roll_to("a");
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
}

#[test]
fn a_revert_replaces_a_broken_pod_also_when_a_good_one_waits_for_it() {
    let mut w = stuck(set(3, "a"));
    w.facts(0).ready_since = None;
    w.roll_to("a");
    w.settle();
    assert_eq!(w.history, ["-2"]);
}

#[test]
fn a_rollout_whose_pod_crashes_goes_back_and_says_so() {
    for s in [set(3, "a"), parallel(set(3, "a"))] {
        let mut w = stuck(s);
        let names: Vec<String> = w.s.revisions.iter().map(|r| r.name().to_owned()).collect();
        w.crash(2);
        let plan = w.plan().to_string();
        let expected = format!("roll back from {} to {}: PodsCrash\n", names[1], names[0]);
        assert!(plan.starts_with(&expected), "{plan}");
        w.history.clear();
        w.run_with(|w| assert!(w.available() >= 2));
        assert_eq!(w.history, ["-2", "+2"]);
        assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
        assert_eq!(
            w.condition("Progressing").as_deref(),
            Some("True/RevisionAvailable")
        );
        // What is asked for stays what is asked for.
        assert_eq!(
            (w.images(), w.status()),
            ("a0 a1 a2".into(), "a*3 broken*0".into())
        );
        assert_eq!(w.plan().to_string(), "");
    }
}

/// A process that runs is available, be it for a moment.
#[test]
fn what_was_available_for_a_moment_and_crashes_is_taken_back_and_not_good() {
    for s in [set(3, "a"), parallel(set(3, "a"))] {
        let mut w = running(Snapshot {
            history_limit: 0,
            ..s
        });
        w.roll_to("b");
        w.run();
        assert_eq!(w.images(), "b0 b1 b2");
        w.now += 100;
        w.crash(2);
        w.run();
        assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
        assert_eq!(w.images(), "a0 a1 a2");
    }
}

/// b was good for a moment, c fails, and b crashes when it has come back.
#[test]
fn what_is_gone_back_to_and_crashes_too_is_taken_back_to_what_was_before_it() {
    for s in [set(3, "a"), parallel(set(3, "a"))] {
        let mut w = running(Snapshot {
            history_limit: 0,
            ..s
        });
        w.roll_to("b");
        w.run();
        w.now += 100;
        w.roll_to("broken");
        w.run();
        w.crash(2);
        w.run();
        assert_eq!(w.images(), "b0 b1 b2");
        w.now += 100;
        w.crash(2);
        w.run();
        assert_eq!(w.images(), "a0 a1 a2");
        assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
        assert!(w.plan().is_empty());
    }
}

/// a is asked for again while b may still prove bad, fails, and b fails too: nothing else is known.
#[test]
fn what_is_asked_for_and_was_good_before_has_another_try_when_what_runs_instead_crashes() {
    let mut w = running(parallel(set(3, "a")));
    w.roll_to("b");
    w.run();
    w.now += 40;
    w.roll_to("a");
    w.settle();
    w.stop_pods();
    w.settle();
    w.crash(2);
    w.run();
    assert_eq!(w.images(), "b0 b1 b2");
    w.now += 40;
    w.crash(2);
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
    assert_eq!(w.condition("RolledBack"), None);
    // And then no other: it does not go back and forth.
    w.crash(2);
    assert!(w.settle().iter().all(|p| p.rolled_back.is_none()));
    assert_eq!(w.images(), "a0 a1 a2");
}

#[test]
fn a_pod_that_does_not_parse_is_no_reason_to_take_a_rollout_back() {
    let mut w = running(parallel(set(3, "a")));
    w.facts(1).frozen = true;
    w.roll_to("b");
    w.run();
    assert_eq!(w.images(), "b0 a1 b2");
    w.now += 5_000;
    let plans = w.settle();
    assert!(plans.iter().all(|p| p.rolled_back.is_none()), "{plans:?}");
    assert_eq!(w.condition("RolledBack"), None);
}

#[test]
fn a_set_that_grows_from_nothing_has_a_deadline() {
    let mut w = running(set(1, "a"));
    w.s.wanted = 0;
    w.run();
    w.roll_to("broken");
    w.run();
    w.s.wanted = 1;
    w.run();
    assert_eq!(w.images(), "broken0");
    w.now += 601;
    let plans = w.settle();
    assert!(plans.iter().any(|p| p.rolled_back.is_some()), "{plans:?}");
}

#[test]
fn a_missed_deadline_is_said_first_and_then_taken_back() {
    let mut w = stuck(set(3, "a"));
    assert_eq!(w.plan().look_again, Some(Duration::from_secs(600)));
    w.now += 599;
    assert!(w.plan().is_empty());
    w.now += 1;
    let plans = w.settle();
    assert!(
        plans[0]
            .to_string()
            .contains("Progressing=False/ProgressDeadlineExceeded")
    );
    assert!(plans[0].rolled_back.is_none() && plans[1].rolled_back.is_some());
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
    assert_eq!(
        w.condition("RolledBack").as_deref(),
        Some("True/ProgressDeadlineExceeded")
    );
}

#[test]
fn time_in_which_nobody_led_or_no_node_was_there_does_not_count() {
    let mut w = stuck(set(3, "a"));
    w.now += 5_000;
    // As seen by a new leader, or while all nodes are lost.
    w.s.up_since = at(w.now);
    let plans = w.settle();
    assert!(plans.iter().all(|p| p.rolled_back.is_none()));
    assert_eq!(w.plan().look_again, Some(Duration::from_secs(600)));
    w.now += 600;
    let plans = w.settle();
    assert!(plans.iter().any(|p| p.rolled_back.is_some()));
}

#[test]
fn what_is_not_to_be_taken_back_stays() {
    let mut w = running(Snapshot {
        rolls_back: false,
        ..set(3, "a")
    });
    w.roll_to("broken");
    w.run();
    w.crash(2);
    w.now += 600;
    w.run();
    assert_eq!(w.images(), "a0 a1 broken2");
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("False/ProgressDeadlineExceeded")
    );
    assert_eq!(w.plan().to_string(), "");
}

#[test]
fn a_set_that_never_was_available_has_nothing_to_go_back_to() {
    let mut w = World::new(set(3, "broken"));
    w.run();
    w.crash(0);
    w.now += 600;
    w.run();
    assert_eq!(w.images(), "broken0");
    assert_eq!(w.condition("RolledBack"), None);
}

#[test]
fn what_has_failed_is_not_tried_again_until_something_else_is_asked_for() {
    let mut w = stuck(set(3, "a"));
    w.crash(2);
    w.run();
    // The same manifest again, and more pods.
    w.s.generation += 1;
    w.s.wanted = 4;
    w.run();
    assert_eq!(w.images(), "a0 a1 a2 a3");
    w.roll_to("c");
    w.run();
    assert_eq!(w.images(), "c0 c1 c2 c3");
    assert_eq!(w.condition("RolledBack"), None);
    // What failed once may be asked for again after that.
    w.roll_to("broken");
    w.run();
    assert_eq!(w.images(), "c0 c1 c2 broken3");
}

#[test]
fn a_rollout_during_a_rollback_fails_and_goes_back_to_the_same_good_revision() {
    let mut w = stuck(set(3, "a"));
    w.crash(2);
    w.settle();
    w.roll_to("broken-too");
    w.run();
    assert_eq!(w.images(), "a0 a1 broken-too2");
    w.crash(2);
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
}

#[test]
fn going_back_by_hand_ends_the_record() {
    let mut w = stuck(set(3, "a"));
    w.crash(2);
    w.run();
    w.roll_to("a");
    w.run();
    assert!(w.s.status.as_ref().unwrap().rollback.is_none());
    assert_eq!(
        (w.images(), w.condition("RolledBack")),
        ("a0 a1 a2".into(), None)
    );
}

#[test]
fn a_canary_that_crashes_is_taken_back_and_the_rest_never_moved() {
    let mut w = running(Snapshot {
        partition: 2,
        ..set(3, "a")
    });
    w.roll_to("broken");
    w.run();
    w.crash(2);
    w.history.clear();
    w.run();
    assert_eq!(w.history, ["-2", "+2"]);
    assert_eq!(w.images(), "a0 a1 a2");
}

#[test]
fn several_broken_pods_go_at_once() {
    let mut w = running(Snapshot {
        max_unavailable: 2,
        ..parallel(set(4, "a"))
    });
    w.roll_to("broken");
    w.run();
    assert_eq!(w.images(), "a0 a1 broken2 broken3");
    w.roll_to("a");
    w.settle();
    assert_eq!(w.history, ["-2", "-3"]);
    w.run();
    assert_eq!(w.images(), "a0 a1 a2 a3");
}

/// They are peers of a quorum, and the first step of a rollout makes all of them unready for a while.
#[test]
fn pods_that_lose_their_peers_for_a_while_are_not_replaced_one_after_the_other() {
    let mut w = running(set(3, "a"));
    w.roll_to("b");
    w.settle();
    assert_eq!(w.history, ["-2"]);
    for ordinal in [0, 1] {
        w.facts(ordinal).ready_since = None;
    }
    w.settle();
    w.stop_pods();
    w.settle();
    assert_eq!(w.history, ["-2"]);
    for ordinal in [0, 1] {
        w.facts(ordinal).ready_since = Some(at(w.now));
    }
    w.run();
    assert_eq!(w.images(), "b0 b1 b2");
}

/// In order nothing comes before the pod of the lowest number is available, and that was good once.
#[test]
fn a_pod_that_crashes_and_holds_up_all_others_is_replaced_by_the_next_template() {
    for max_unavailable in [1, 2] {
        let mut w = running(Snapshot {
            max_unavailable,
            ..set(3, "a")
        });
        w.crash(0);
        w.s.members.truncate(1);
        w.run();
        assert_eq!(w.images(), "a0");
        w.roll_to("b");
        w.run();
        assert_eq!(w.images(), "b0 b1 b2");
    }
}

#[test]
fn the_revision_to_go_back_to_is_no_history() {
    let mut w = running(Snapshot {
        history_limit: 0,
        ..set(2, "a")
    });
    w.roll_to("broken");
    w.run();
    w.crash(1);
    w.run();
    assert_eq!(w.images(), "a0 a1");
}

#[test]
fn what_has_failed_does_not_come_again_while_nobody_knows_what_is_to_come() {
    let mut w = stuck(set(3, "a"));
    w.crash(2);
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
    w.s.missing = Some(Missing(vec!["ConfigMap \"app\"".into()]));
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
    assert_eq!(w.condition("RolledBack").as_deref(), Some("True/PodsCrash"));
}
