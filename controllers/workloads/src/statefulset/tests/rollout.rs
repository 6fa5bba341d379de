//! From one template to the next.

use super::*;
use crate::config::{ContentCopy, Missing};
use crate::good::PROBATION;
use crate::revisions::REVISION_REFUSED;

#[test]
fn a_rollout_goes_from_the_highest_number_down_one_at_a_time() {
    for s in [set(4, "a"), parallel(set(4, "a"))] {
        let mut w = running(s);
        w.roll_to("b");
        w.run_with(|w| assert!(w.available() >= 3, "{}", w.images()));
        assert_eq!(w.history, ["-3", "+3", "-2", "+2", "-1", "+1", "-0", "+0"]);
        assert_eq!(w.status(), "b*4 b*4");
        assert!(w.plan().is_empty());
    }
}

#[test]
fn the_status_names_both_revisions_on_the_way() {
    let mut w = running(set(3, "a"));
    w.roll_to("b");
    w.settle();
    w.stop_pods();
    w.settle();
    w.start_pods();
    w.settle();
    // One is done, the next one has just gone.
    assert_eq!(w.images(), "a0 b2");
    assert_eq!(w.status(), "a*1 b*1");
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("True/RevisionRolling")
    );
}

#[test]
fn so_many_may_be_unavailable_as_it_says() {
    for (max, s) in [(2, set(5, "a")), (3, parallel(set(5, "a")))] {
        let mut w = running(Snapshot {
            max_unavailable: max,
            ..s
        });
        w.roll_to("b");
        let least = 5 - usize::try_from(max).unwrap();
        let mut fewest = 5;
        w.run_with(|w| {
            fewest = fewest.min(w.available());
            assert!(w.available() >= least, "{}", w.images());
        });
        assert_eq!(fewest, least, "and it makes use of that");
        assert_eq!(w.images(), "b0 b1 b2 b3 b4");
    }
}

#[test]
fn a_pod_that_is_unavailable_anyway_takes_the_room_of_a_rollout() {
    let mut w = running(set(3, "a"));
    w.facts(0).ready_since = None;
    w.roll_to("b");
    w.settle();
    // Nothing would be won by waiting for it: it goes first, and nothing else with it.
    assert_eq!(w.history, ["-0"]);
    w.run();
    assert_eq!(w.history, ["-0", "+0", "-2", "+2", "-1", "+1"]);
}

#[test]
fn pods_of_a_good_revision_that_wait_for_their_peers_are_not_all_replaced() {
    let mut w = running(set(3, "a"));
    w.roll_to("b");
    w.settle();
    w.stop_pods();
    w.settle();
    assert_eq!(w.history, ["-2", "+2"]);
    // They lose their quorum while the third one starts.
    w.facts(0).ready_since = None;
    w.facts(1).ready_since = None;
    w.settle();
    assert_eq!(w.history, ["-2", "+2"]);
}

#[test]
fn what_is_below_the_partition_stays_and_comes_again_as_it_was() {
    let mut w = running(Snapshot {
        partition: 2,
        ..set(4, "a")
    });
    w.roll_to("b");
    w.run();
    assert_eq!(w.images(), "a0 a1 b2 b3");
    assert_eq!(w.status(), "a*2 b*2");
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("True/RevisionAvailable")
    );
    for ordinal in [0, 3] {
        w.s.members.retain(|m| m.ordinal != ordinal);
        w.run();
        assert_eq!(w.images(), "a0 a1 b2 b3");
    }
    w.s.partition = 1;
    w.run();
    assert_eq!(w.images(), "a0 b1 b2 b3");
    w.s.partition = 0;
    w.run();
    assert_eq!(w.status(), "b*4 b*4");
    // A partition beyond all numbers holds everything back.
    w.s.partition = 9;
    w.roll_to("c");
    w.run();
    assert_eq!(w.images(), "b0 b1 b2 b3");
}

#[test]
fn a_partition_counts_from_the_first_number() {
    let mut w = running(Snapshot {
        partition: 1,
        first: 5,
        ..set(3, "a")
    });
    w.roll_to("b");
    w.run();
    assert_eq!(w.images(), "a5 b6 b7");
}

#[test]
fn with_on_delete_pods_are_replaced_when_somebody_deletes_them() {
    let mut w = running(Snapshot {
        rolling: false,
        ..set(3, "a")
    });
    w.roll_to("b");
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
    assert_eq!(w.condition("Progressing"), None);
    for ordinal in [1, 0, 2] {
        w.s.members.retain(|m| m.ordinal != ordinal);
        w.run();
    }
    assert_eq!(w.images(), "b0 b1 b2");
    assert_eq!(w.status(), "b*3 b*3");
}

#[test]
fn scaling_in_the_middle_of_a_rollout_comes_first() {
    let mut w = running(set(3, "a"));
    w.roll_to("b");
    w.settle();
    w.s.wanted = 5;
    w.run();
    assert_eq!(w.history, ["-2", "+2", "+3", "+4", "-1", "+1", "-0", "+0"]);
    assert_eq!(w.images(), "b0 b1 b2 b3 b4");
}

#[test]
fn a_template_that_was_there_before_finds_its_revision_again() {
    let mut w = running(set(1, "a"));
    let first = w.s.revisions[0].name().to_owned();
    w.roll_to("b");
    w.run();
    w.roll_to("a");
    let plan = w.plan().to_string();
    assert!(
        plan.starts_with(&format!("renumber revision {first} at ")) && plan.ends_with(" to 3\n"),
        "{plan}"
    );
    w.run();
    assert_eq!((w.images(), w.s.revisions.len()), ("a0".into(), 2));
}

#[test]
fn a_name_that_somebody_else_has_makes_another_one() {
    let other = World::new(set(1, "a")).plan().revision.unwrap().name;
    let mut w = World::new(Snapshot {
        taken: [other.clone()].into(),
        ..set(1, "a")
    });
    w.run();
    assert_eq!(w.images(), "a0");
    assert_eq!(w.s.revisions.len(), 1);
    assert_ne!(w.s.revisions[0].name(), other);
    // Nothing is made anew when the name is free.
    w.s.taken.clear();
    assert_eq!(w.plan().to_string(), "");
}

#[test]
fn history_is_kept_as_long_as_wanted() {
    let mut w = running(Snapshot {
        history_limit: 2,
        ..set(1, "a")
    });
    for image in ["b", "c", "d", "e"] {
        w.roll_to(image);
        w.run();
        w.now += PROBATION.as_secs().cast_signed();
    }
    w.run();
    let kept: Vec<i64> = w.s.revisions.iter().map(|r| r.number).collect();
    assert_eq!(kept, [3, 4, 5]);
    w.s.history_limit = 0;
    w.run();
    assert_eq!(w.s.revisions.len(), 1);
}

#[test]
fn a_rollout_needs_pods_to_be_ready_for_a_while() {
    let mut w = World::new(Snapshot {
        min_ready: Duration::from_secs(30),
        ..parallel(set(2, "a"))
    });
    w.run();
    w.now += 30;
    w.run();
    w.roll_to("b");
    w.run();
    assert_eq!(w.images(), "a0 b1");
    w.now += 29;
    w.run();
    assert_eq!(w.images(), "a0 b1");
    w.now += 1;
    w.run();
    assert_eq!(w.images(), "b0 b1");
}

#[test]
fn copies_are_made_before_the_revision_and_the_pods_that_read_them() {
    let mut w = World::new(set(1, "a"));
    w.s.reads = vec![ContentCopy {
        secret: false,
        of: "app".into(),
        name: "app-1".into(),
    }];
    let plan = w.plan().to_string();
    assert!(
        plan.starts_with("copy configmap app as app-1\ncreate revision db-"),
        "{plan}"
    );
}

#[test]
fn while_something_is_missing_what_runs_goes_on_and_nothing_new_begins() {
    let missing = || Some(Missing(vec!["ConfigMap \"app\"".into()]));
    let mut w = World::new(set(2, "a"));
    w.s.missing = missing();
    w.run();
    assert_eq!((w.images(), w.s.revisions.len()), (String::new(), 0));
    assert_eq!(
        w.condition("ConfigMissing").as_deref(),
        Some("True/ConfigMissing")
    );
    w.s.missing = None;
    w.run();
    w.roll_to("b");
    w.s.missing = missing();
    w.s.wanted = 3;
    w.run();
    assert_eq!(w.images(), "a0 a1 a2");
}

#[test]
fn while_a_new_revision_is_refused_what_runs_goes_on_and_it_is_asked_for_again() {
    let mut w = running(set(2, "a"));
    w.roll_to("b");
    w.s.setbacks.failure = Some((REVISION_REFUSED.into(), "exceeded quota".into()));
    w.s.members.pop();
    let plan = w.plan();
    let text = plan.to_string();
    assert!(text.contains("create revision db-"), "{text}");
    let first = w.s.revisions[0].name().to_owned();
    assert!(
        text.contains(&format!("create pod db-1 of {first}\n")),
        "{text}"
    );
    assert!(
        text.contains("ReplicaFailure=True/RevisionCreateError"),
        "{text}"
    );
    assert!(plan.delete.is_empty(), "{text}");
    w.s.setbacks.failure = None;
    w.run();
    assert_eq!(w.images(), "b0 b1");
    // A first revision that is refused has nothing that goes on.
    let mut w = World::new(set(2, "a"));
    w.s.setbacks.failure = Some((REVISION_REFUSED.into(), "exceeded quota".into()));
    let plan = w.plan();
    assert!(plan.revision.is_some() && plan.create.is_empty(), "{plan}");
    assert!(plan.status.is_some(), "the failure is said: {plan}");
}

#[test]
fn above_the_partition_so_many_may_be_unavailable_as_it_says() {
    let mut w = running(Snapshot {
        partition: 2,
        max_unavailable: 2,
        ..set(6, "a")
    });
    w.roll_to("b");
    let mut least = 6;
    w.run_with(|w| {
        least = least.min(w.available());
        assert!(w.available() >= 4, "{}", w.images());
    });
    assert_eq!((least, w.images()), (4, "a0 a1 b2 b3 b4 b5".into()));
    // One below it that is not available takes of the room; in order it would be waited for.
    w.s.ordered = false;
    w.facts(0).ready_since = None;
    w.roll_to("c");
    w.settle();
    assert_eq!(w.history, ["-5"]);
}
