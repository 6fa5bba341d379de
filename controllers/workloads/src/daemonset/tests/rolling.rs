//! Rolling updates, OnDelete, and the revisions that they go along.

use setpoint_apis::apps::{DaemonSetUpdateStrategy, DaemonSetUpdateStrategyType};
use setpoint_apis::core::{Taint, TaintEffect};

use super::{World, daemon_set, rolling, running, template};
use crate::good::PROBATION;

impl World {
    /// Nodes on which a pod is ready.
    fn served(&self) -> usize {
        let ready = self.s.pods.iter().filter(|p| p.facts.ready_since.is_some());
        let nodes: std::collections::BTreeSet<_> = ready.map(|p| &p.node).collect();
        nodes.len()
    }

    /// Pods beyond the first of their node, those that still stop included.
    fn doubled(&self) -> usize {
        let nodes = self.s.nodes.keys();
        let here = |node: &str| {
            let pods = self
                .s
                .pods
                .iter()
                .filter(|p| p.node.as_deref() == Some(node));
            pods.count() + usize::from(self.s.stopping.contains(node))
        };
        nodes.map(|n| here(n).saturating_sub(1)).sum()
    }
}

#[test]
fn rolling_updates_keep_within_their_bounds_at_every_step() {
    for (surge, unavailable, doubled, missing) in [
        ("0", "1", 0, 1),
        ("0", "3", 0, 3),
        // Percentages are rounded up: of 9 nodes.
        ("0", "25%", 0, 3),
        ("0", "1%", 0, 1),
        ("1", "0", 1, 0),
        ("25%", "0", 3, 0),
        ("100%", "0", 9, 0),
        // Nothing could move, so one may be missing.
        ("0", "0", 0, 1),
    ] {
        let context = format!("surge {surge}, unavailable {unavailable}");
        let mut s = daemon_set(9, "a");
        s.strategy = rolling(surge, unavailable);
        let mut w = World::new(s);
        w.run();
        w.s.template = template("b");
        w.s.generation = 2;
        let mut least = 9;
        let mut most = 0;
        for step in 0..200 {
            let plan = w.plan();
            w.apply(&plan);
            // What surges may have a third that still stops.
            if step % 3 == 2 || surge != "0" {
                w.stops();
            }
            (least, most) = (least.min(w.served()), most.max(w.doubled()));
            w.starts(1);
            (least, most) = (least.min(w.served()), most.max(w.doubled()));
        }
        assert_eq!((9 - least, most), (missing, doubled), "{context}");
        let all: Vec<String> = (1..10).map(|i| format!("n{i}:b")).collect();
        assert_eq!(w.pods(), all.join(" "), "{context}");
        let verdict = w.condition("Progressing");
        assert_eq!(
            verdict.as_deref(),
            Some("True/NewRevisionAvailable"),
            "{context}"
        );
        assert!(w.plan().is_empty(), "{context}");
    }
}

#[test]
fn the_next_pod_waits_until_the_last_one_has_stopped() {
    let mut w = running(2, "a");
    w.s.template = template("b");
    let plans = w.settle();
    assert_eq!(w.pods(), "n2:a");
    assert!(plans.iter().all(|p| p.create.is_empty()));
    w.stops();
    w.settle();
    assert_eq!(w.pods(), "n1:b? n2:a");
}

#[test]
fn a_template_that_changes_in_the_middle_of_a_rollout_takes_no_second_pod_away() {
    let mut w = running(3, "a");
    w.s.template = template("b");
    w.settle();
    w.stops();
    w.settle();
    assert_eq!(w.pods(), "n1:b? n2:a n3:a");
    // The pod that starts is replaced, as it is missing already. No other one may be.
    w.s.template = template("c");
    w.settle();
    assert_eq!(w.pods(), "n1:c? n2:a n3:a");
}

#[test]
fn with_surge_the_new_pod_is_there_before_the_old_one_goes() {
    let mut s = daemon_set(2, "a");
    s.strategy = rolling("1", "0");
    s.min_ready = std::time::Duration::from_secs(10);
    let mut w = World::new(s);
    w.run();
    w.now += 10;
    w.run();
    w.s.template = template("b");
    w.settle();
    assert_eq!(w.pods(), "n1:a n1:b? n2:a");
    w.starts(1);
    w.settle();
    assert_eq!(w.pods(), "n1:a n1:b n2:a", "ready is not yet available");
    w.now += 10;
    w.settle();
    assert_eq!(w.pods(), "n1:b n2:a n2:b?");
    // The old one does not serve any more: nothing is lost with it.
    w.s.pods[1].facts.ready_since = None;
    w.settle();
    assert_eq!(w.pods(), "n1:b n2:b?");
}

/// What is created comes before what is deleted goes.
#[test]
fn a_template_that_changes_while_two_pods_are_on_a_node_brings_no_third_one() {
    let mut s = daemon_set(2, "a");
    s.strategy = rolling("1", "0");
    let mut w = World::new(s);
    w.run();
    w.s.template = template("b");
    w.settle();
    assert_eq!(w.pods(), "n1:a n1:b? n2:a");
    w.s.template = template("c");
    for plan in w.settle() {
        let goes = |node: &str| plan.delete.iter().any(|r| r.node.as_deref() == Some(node));
        assert!(!plan.create.iter().any(|new| goes(&new.node)), "{plan}");
    }
    assert_eq!(w.pods(), "n1:a n2:a n2:c?");
    w.run();
    assert_eq!(w.pods(), "n1:c n2:c");
}

/// A pod that could never be bound would stand in the way of the old one for ever.
#[test]
fn a_node_whose_taint_keeps_new_pods_away_gets_no_second_one_and_holds_nothing_up() {
    let mut s = daemon_set(3, "a");
    s.strategy = rolling("1", "0");
    let mut w = World::new(s);
    w.run();
    w.change_node("n1", |n| {
        n.taints = vec![Taint {
            key: "x".into(),
            effect: TaintEffect::NoSchedule,
            ..Taint::default()
        }];
    });
    w.s.template = template("b");
    for _ in 0..10 {
        w.settle();
        let here = |p: &&super::DaemonPod| p.node.as_deref() == Some("n1");
        assert_eq!(w.s.pods.iter().filter(here).count(), 1, "{}", w.pods());
        w.starts(1);
    }
    assert_eq!(w.pods(), "n1:a n2:b n3:b");
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("True/NewRevisionAvailable")
    );
    w.regain("n1");
    w.settle();
    assert_eq!(w.pods(), "n1:a n1:b? n2:b n3:b");
    w.run();
    assert_eq!(w.pods(), "n1:b n2:b n3:b");
}

#[test]
fn what_is_not_available_anyway_is_replaced_at_once() {
    // Three that were missing already. Without surge no other one may be for that; with it a new one may be beside it.
    for (surge, unavailable, replaced) in [("0", "1", 3), ("0", "4", 4), ("1", "0", 4)] {
        let mut s = daemon_set(4, "a");
        s.strategy = rolling(surge, unavailable);
        let mut w = World::new(s);
        w.run();
        for i in [1, 2, 3] {
            w.s.pods[i].facts.ready_since = None;
        }
        w.s.template = template("b");
        w.settle();
        w.stops();
        w.settle();
        let new = w.pods().matches(":b?").count();
        assert_eq!(new, replaced, "{}", w.pods());
    }
}

#[test]
fn on_delete_leaves_it_to_whoever_deletes() {
    let mut w = running(2, "a");
    w.s.strategy = DaemonSetUpdateStrategy {
        type_: Some(DaemonSetUpdateStrategyType::OnDelete),
        rolling_update: None,
    };
    w.s.template = template("b");
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a");
    assert_eq!(w.numbers(), [2, 2, 0, 0, 2, 2, 0]);
    assert_eq!(w.condition("Progressing"), None);
    w.s.pods.remove(0);
    w.run();
    assert_eq!(w.pods(), "n1:b n2:a");
    // An old pod is not replaced for being broken either, and nothing is taken back.
    w.s.pods[1].facts.ready_since = None;
    w.now += 10_000;
    assert!(w.settle().iter().all(|p| !p.acts()));
}

#[test]
fn a_rollout_goes_on_while_nodes_are_lost_and_leaves_them_alone() {
    let mut w = running(4, "a");
    w.lose("n1");
    w.lose("n2");
    w.release("n2");
    w.settle();
    w.s.template = template("b");
    w.run();
    // n1 may still run its pod; that of n2 runs nowhere, and the next one comes with the node.
    assert_eq!(w.pods(), "n1:a n3:b n4:b");
    assert_eq!(
        w.condition("Progressing").as_deref(),
        Some("True/NewRevisionAvailable")
    );
    w.regain("n1");
    w.regain("n2");
    w.run();
    assert_eq!(w.pods(), "n1:b n2:b n3:b n4:b");
    assert_eq!(w.condition("RolledBack"), None);
}

#[test]
fn a_name_that_somebody_else_has_makes_another_one_and_is_counted() {
    let mut w = World::new(daemon_set(1, "a"));
    let other = w.plan().revision.unwrap().name;
    w.s.taken_revisions = [other.clone()].into();
    let plans = w.settle();
    let first = plans[0].status.as_ref();
    assert_eq!(
        first.and_then(|s| s.collision_count),
        Some(1),
        "it is said before the pods are there"
    );
    assert_eq!(w.s.revisions.len(), 1);
    assert_ne!(w.s.revisions[0].name(), other);
    w.run();
    assert_eq!(w.pods(), "n1:a");
    // It stays, and the names of the next templates are made with it.
    w.s.taken_revisions.clear();
    w.s.template = template("b");
    w.run();
    assert_eq!(w.pods(), "n1:b");
    assert_eq!(w.status().collision_count, Some(1));
}

#[test]
fn a_template_that_was_there_before_finds_its_revision_and_history_is_bounded() {
    let mut w = running(1, "a");
    w.s.history_limit = 2;
    for image in ["b", "c", "a", "d", "e"] {
        w.s.template = template(image);
        w.run();
        assert_eq!(w.pods(), format!("n1:{image}"));
    }
    w.now += PROBATION.as_secs().cast_signed();
    w.run();
    let mut numbers: Vec<_> = w.s.revisions.iter().map(|r| r.number).collect();
    numbers.sort_unstable();
    // a came back as the fourth; b, c and the first number are gone.
    assert_eq!(numbers, [4, 5, 6]);
}
