//! Nodes that come, go, change and are lost.

use setpoint_apis::core::{Taint, TaintEffect};

use super::{World, daemon_set, running};

fn taint(key: &str, effect: TaintEffect) -> Taint {
    Taint {
        key: key.into(),
        effect,
        ..Taint::default()
    }
}

#[test]
fn nodes_that_come_get_a_pod_and_those_that_go_lose_it() {
    let mut w = running(2, "a");
    w.change_node("n3", |_| {});
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    std::sync::Arc::make_mut(&mut w.s.nodes).remove("n1");
    let plans = w.settle();
    assert!(
        plans[0]
            .to_string()
            .contains("on n1 (the node is not to have one)"),
        "{}",
        plans[0]
    );
    assert_eq!(w.pods(), "n2:a n3:a");
}

#[test]
fn labels_decide_and_their_change_moves_pods() {
    let mut s = daemon_set(3, "a");
    std::sync::Arc::make_mut(&mut s.template.spec)
        .node_selector
        .insert("disk".into(), "ssd".into());
    let mut w = World::new(s);
    w.run();
    assert_eq!(w.pods(), "");
    assert_eq!(w.numbers(), [0; 7]);
    for node in ["n1", "n3"] {
        w.change_node(node, |n| drop(n.labels.insert("disk".into(), "ssd".into())));
    }
    w.run();
    assert_eq!(w.pods(), "n1:a n3:a");
    w.change_node("n1", |n| drop(n.labels.insert("disk".into(), "hdd".into())));
    w.run();
    assert_eq!(w.pods(), "n3:a");
}

#[test]
fn a_taint_that_keeps_away_leaves_what_is_there_and_one_that_evicts_does_not() {
    let mut w = running(3, "a");
    w.change_node("n1", |n| {
        n.taints = vec![taint("x", TaintEffect::NoSchedule)]
    });
    w.change_node("n4", |n| {
        n.taints = vec![taint("x", TaintEffect::NoSchedule)]
    });
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    assert_eq!(w.numbers(), [2, 2, 1, 2, 2, 2, 0]);
    w.change_node("n1", |n| {
        n.taints = vec![taint("x", TaintEffect::NoExecute)]
    });
    w.run();
    assert_eq!(w.pods(), "n2:a n3:a");
    assert_eq!(w.numbers(), [2, 2, 0, 2, 2, 2, 0]);
}

#[test]
fn the_pod_of_a_lost_node_waits_for_it_and_is_not_available() {
    let mut w = running(3, "a");
    w.lose("n2");
    // Before failover has released it, and after that.
    for released in [false, true] {
        if released {
            w.release("n2");
        }
        let plans = w.settle();
        assert!(plans.iter().all(|p| !p.acts()), "{plans:?}");
        assert_eq!(w.numbers(), [2, 2, 1, 2, 2, 2, 0]);
        assert_eq!(w.s.pods.len(), 3);
    }
    w.regain("n2");
    w.run();
    assert_eq!(w.pods(), "n1:a n2:a n3:a");
    assert_eq!(w.numbers(), [3, 3, 0, 3, 3, 3, 0]);
    assert_eq!(w.condition("RolledBack"), None);
}

#[test]
fn a_pod_that_waits_for_a_node_that_was_removed_goes() {
    let mut w = running(3, "a");
    w.lose("n2");
    w.change_node("n2", |n| n.removed = true);
    // What is bound there may run.
    let plans = w.settle();
    assert!(plans.iter().all(|p| !p.acts()), "{plans:?}");
    assert_eq!(w.s.pods.len(), 3);
    w.release("n2");
    w.run();
    assert_eq!(w.pods(), "n1:a n3:a");
}

#[test]
fn whoever_tolerates_everything_counts_a_lost_node_and_makes_no_second_pod() {
    let mut s = daemon_set(2, "a");
    std::sync::Arc::make_mut(&mut s.template.spec).tolerations =
        serde_yaml::from_str("[{operator: Exists}]").unwrap();
    let mut w = World::new(s);
    w.run();
    w.lose("n1");
    let plans = w.settle();
    assert!(plans.iter().all(|p| !p.acts()));
    assert_eq!(w.numbers(), [2, 2, 0, 2, 1, 1, 1]);
}

#[test]
fn an_unreadable_node_keeps_what_it_has_and_gets_nothing() {
    let mut w = running(2, "a");
    w.change_node("n1", |n| n.unreadable = true);
    w.change_node("n3", |n| n.unreadable = true);
    let plans = w.settle();
    assert!(plans.iter().all(|p| !p.acts()), "{plans:?}");
    assert!(w.plan().to_string().contains("note: 2 nodes do not parse"));
    // Not even a rollout touches it.
    w.s.template = super::template("b");
    w.run();
    assert_eq!(w.pods(), "n1:a n2:b");
}
