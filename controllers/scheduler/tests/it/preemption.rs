//! Pods of higher priority make others leave.

use setpoint_apis::Key;
use setpoint_apis::records::Intent;
use setpoint_scheduler::decide::PARTITION_POLICY;

use crate::rig::{Rig, pod, pod_key, pod_with};

const HIGH: &str =
    "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 1000}";

fn whole(name: &str) -> String {
    pod(name).replace("cpu: 100m", "cpu: 1")
}

fn high(name: &str) -> String {
    pod_with(name, "  priorityClassName: high\n").replace("cpu: 100m", "cpu: 1")
}

#[tokio::test]
async fn a_pod_of_lower_priority_gives_way_and_goes_back_to_waiting() {
    let (rig, s, agents) = Rig::with_nodes("preempt", &[1]).await;
    s.stop().await;
    let _s = rig.telling_scheduler();
    rig.apply_as("priorityclasses", "high", HIGH).await;
    rig.apply("low", whole("low")).await;
    agents[0].run(&rig, "low").await;
    rig.apply("high", high("high")).await;
    assert_eq!(rig.until_withdrawn("low").await, "Preempted");
    let record = rig.until_record("high", "Others make room on n1").await;
    assert_eq!(record.nominated_node.as_deref(), Some("n1"));
    rig.until_event(&["Preempted", "preempted by default/high on n1"])
        .await;
    rig.until_event(&["Preempting", "default/low gives way"])
        .await;
    agents[0].stopped("low").await;
    let binding = rig.until_bound("high").await;
    let decision = binding.value.decision.clone().unwrap();
    assert_eq!(decision.preempted, ["default/low"]);
    rig.until_record("low", "Insufficient cpu").await;
    // It is not deleted: it runs again when there is room.
    rig.node("n2", 1).await;
    assert_eq!(rig.until_bound("low").await.value.node, "n2");
}

#[tokio::test]
async fn a_new_leader_keeps_the_room_for_whom_it_was_promised() {
    let (rig, s, agents) = Rig::with_nodes("preempt_leader", &[1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    rig.apply("low", whole("low")).await;
    agents[0].run(&rig, "low").await;
    rig.apply("high", high("high")).await;
    rig.until_withdrawn("low").await;
    rig.until_record("high", "Others make room on n1").await;
    s.stop().await;
    // One that would be first in any other order.
    rig.apply("other", whole("other").replace("cpu: 1", "cpu: 500m"))
        .await;
    let _s = rig.scheduler();
    rig.until_record("other", "Insufficient cpu").await;
    agents[0].stopped("low").await;
    assert_eq!(rig.until_bound("high").await.value.node, "n1");
    rig.until_record("low", "Insufficient cpu").await;
    assert!(rig.get(&Key::Binding(pod_key("other"))).await.is_none());
}

#[tokio::test]
async fn a_better_place_that_appears_is_taken_and_who_left_for_nothing_comes_back() {
    let (rig, _s, agents) = Rig::with_nodes("preempt_elsewhere", &[1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    rig.apply("low", whole("low")).await;
    agents[0].run(&rig, "low").await;
    rig.apply("high", high("high")).await;
    rig.until_withdrawn("low").await;
    rig.node("n2", 1).await;
    let binding = rig.until_bound("high").await;
    assert_eq!(binding.value.node, "n2");
    assert!(
        binding
            .value
            .decision
            .as_ref()
            .unwrap()
            .preempted
            .is_empty()
    );
    agents[0].stopped("low").await;
    assert_eq!(rig.until_bound("low").await.value.placement, 2);
}

#[tokio::test]
async fn nobody_gives_way_to_a_pod_that_may_not_preempt_or_has_no_more_priority() {
    let (rig, _s, agents) = Rig::with_nodes("preempt_never", &[1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    rig.apply("low", whole("low")).await;
    agents[0].run(&rig, "low").await;
    rig.apply("equal", whole("equal")).await;
    rig.apply("meek", high("meek") + "  preemptionPolicy: Never\n")
        .await;
    rig.until_record("equal", "Insufficient cpu").await;
    rig.until_record("meek", "Insufficient cpu").await;
    let binding = rig.until_bound("low").await;
    assert_eq!(binding.value.placement, 1);
    // A class that is missing is waited for.
    let odd = high("odd").replace("priorityClassName: high", "priorityClassName: odd");
    rig.apply("odd", odd).await;
    rig.until_record("odd", "there is no priority class \"odd\"")
        .await;
    rig.apply_as(
        "priorityclasses",
        "odd",
        &HIGH.replace("name: high", "name: odd"),
    )
    .await;
    assert_eq!(rig.until_withdrawn("low").await, "Preempted");
}

#[tokio::test]
async fn nobody_of_less_priority_gets_the_room_while_some_victims_still_stop() {
    let (rig, _s, agents) = Rig::with_nodes("preempt_room", &[2]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    let mid = HIGH
        .replace("name: high", "name: mid")
        .replace("1000", "500");
    rig.apply_as("priorityclasses", "mid", &mid).await;
    for name in ["low-1", "low-2"] {
        rig.apply(name, whole(name)).await;
        agents[0].run(&rig, name).await;
    }
    rig.apply("high", high("high").replace("cpu: 1", "cpu: 2"))
        .await;
    rig.until_withdrawn("low-1").await;
    rig.until_withdrawn("low-2").await;
    rig.until_record("high", "Others make room on n1").await;
    agents[0].stopped("low-1").await;
    rig.until_unbound("low-1").await;
    rig.apply("mid", high("mid").replace("Name: high", "Name: mid"))
        .await;
    rig.until_record("mid", "0/1 nodes are available").await;
    agents[0].stopped("low-2").await;
    assert_eq!(rig.until_bound("high").await.value.node, "n1");
    assert!(rig.get(&Key::Binding(pod_key("mid"))).await.is_none());
}

#[tokio::test]
async fn when_the_pod_that_preempts_is_deleted_its_room_is_for_everybody() {
    let (rig, _s, agents) = Rig::with_nodes("preempt_deleted", &[1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    rig.apply("low", whole("low")).await;
    agents[0].run(&rig, "low").await;
    rig.apply("high", high("high")).await;
    rig.until_withdrawn("low").await;
    rig.delete_pod("high").await;
    rig.until_gone(&Key::Actual("pods", pod_key("high"))).await;
    agents[0].stopped("low").await;
    assert_eq!(rig.until_bound("low").await.value.placement, 2);
}

#[tokio::test]
async fn nobody_is_displaced_when_who_leaves_anyway_is_enough() {
    let (rig, _s, agents) = Rig::with_nodes("preempt_leaving", &[1, 1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    for name in ["low-1", "low-2"] {
        rig.apply(name, whole(name)).await;
    }
    let node = rig.until_bound("low-1").await.value.node.clone();
    let (there, other) = if node == "n1" {
        (&agents[0], &agents[1])
    } else {
        (&agents[1], &agents[0])
    };
    there.run(&rig, "low-1").await;
    other.run(&rig, "low-2").await;
    rig.delete_pod("low-1").await;
    assert_eq!(rig.until_withdrawn("low-1").await, "Deleted");
    rig.apply("high", high("high")).await;
    rig.until_record("high", &format!("Others make room on {node}"))
        .await;
    there.stopped("low-1").await;
    assert_eq!(rig.until_bound("high").await.value.node, node);
    let kept = rig.until_bound("low-2").await;
    assert_eq!(kept.value.placement, 1);
}

#[tokio::test]
async fn two_who_preempt_in_one_turn_do_not_overshoot_a_disruption_budget() {
    let (rig, s, agents) = Rig::with_nodes("preempt_budget", &[1, 1, 1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    let mid = HIGH
        .replace("name: high", "name: mid")
        .replace("1000", "500");
    rig.apply_as("priorityclasses", "mid", &mid).await;
    for (name, agent) in [("a", &agents[0]), ("b", &agents[1])] {
        let there = format!("  nodeName: {}\n", agent.node);
        rig.apply(name, whole(name) + &there).await;
        agent.run(&rig, name).await;
        agent.report_ready(&rig, name).await;
    }
    // Worth more than the others, and of no budget.
    let free = high("free")
        .replace("Name: high", "Name: mid")
        .replace("app: x", "app: y");
    rig.apply("free", free).await;
    agents[2].run(&rig, "free").await;
    let budget = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: x, namespace: default}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: x}}}}";
    rig.apply_as("poddisruptionbudgets", "x", budget).await;
    rig.until_status("poddisruptionbudgets", "x", "disruptionsAllowed: 1")
        .await;
    s.stop().await;
    for name in ["high-1", "high-2"] {
        rig.apply(name, high(name).replace("app: x", "app: y"))
            .await;
    }
    // Both are decided in its first turn.
    let _s = rig.scheduler();
    assert_eq!(rig.until_withdrawn("free").await, "Preempted");
    rig.until_record("high-1", "Others make room on").await;
    rig.until_record("high-2", "Others make room on").await;
    // What is decided later than all that.
    rig.apply("last", whole("last")).await;
    rig.until_record("last", "Insufficient cpu").await;
    let mut down = Vec::new();
    for name in ["a", "b"] {
        let binding = rig.get(&Key::Binding(pod_key(name))).await.unwrap();
        let binding = String::from_utf8_lossy(&binding.value);
        down.extend(binding.contains("withdrawn").then_some(name));
    }
    assert_eq!(down.len(), 1, "{down:?}");
}

#[tokio::test]
async fn a_pod_whose_promised_node_is_lost_makes_room_elsewhere() {
    let (rig, _s, agents) = Rig::with_nodes("preempt_lost", &[1, 1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    for (name, agent) in [("low-1", &agents[0]), ("low-2", &agents[1])] {
        let there = format!("  nodeName: {}\n", agent.node);
        rig.apply(name, whole(name) + &there).await;
        agent.run(&rig, name).await;
    }
    rig.apply("high", high("high")).await;
    let record = rig.until_record("high", "Others make room on").await;
    let (lost, other) = match record.nominated_node.as_deref() {
        Some("n1") => (0, 1),
        _ => (1, 0),
    };
    let lows = ["low-1", "low-2"];
    rig.until_withdrawn(lows[lost]).await;
    agents[lost].lose().await;
    assert_eq!(rig.until_withdrawn(lows[other]).await, "Preempted");
    agents[other].stopped(lows[other]).await;
    assert_eq!(rig.until_bound("high").await.value.node, agents[other].node);
}

#[tokio::test]
async fn a_pod_whose_document_does_not_parse_is_nobodys_victim() {
    let (rig, _s, agents) = Rig::with_nodes("preempt_frozen", &[1, 1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    let mid = HIGH
        .replace("name: high", "name: mid")
        .replace("1000", "500");
    rig.apply_as("priorityclasses", "mid", &mid).await;
    rig.apply("low", whole("low") + "  nodeName: n1\n").await;
    agents[0].run(&rig, "low").await;
    let dear = high("dear").replace("Name: high", "Name: mid");
    rig.apply("dear", dear + "  nodeName: n2\n").await;
    agents[1].run(&rig, "dear").await;
    rig.apply("low", "spec: [").await;
    rig.apply("high", high("high")).await;
    assert_eq!(rig.until_withdrawn("dear").await, "Preempted");
    agents[1].stopped("dear").await;
    assert_eq!(rig.until_bound("high").await.value.node, "n2");
}

/// A pod on n1, which it fills, that is being stopped there to be moved to n2, which it will fill.
async fn moving_away(name: &str) -> (Rig, crate::rig::Scheduler, Vec<crate::rig::Agent>) {
    let (rig, s, mut agents) = Rig::with_nodes(name, &[1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    let annotations = format!("  annotations: {{{PARTITION_POLICY}: stop}}\nspec:");
    rig.apply("low", whole("low").replace("spec:", &annotations))
        .await;
    agents[0].run(&rig, "low").await;
    agents.push(rig.node("n2", 1).await);
    rig.ask("move", "low", &Intent::default()).await;
    assert_eq!(rig.until_withdrawn("low").await, "Moved");
    (rig, s, agents)
}

#[tokio::test]
async fn a_pod_that_counted_on_one_that_is_moved_is_placed_when_that_has_gone() {
    let (rig, _s, agents) = moving_away("preempt_moved").await;
    rig.apply("high", high("high")).await;
    rig.until_record("high", "Others make room on n1").await;
    agents[0].stopped("low").await;
    assert_eq!(rig.until_bound("high").await.value.node, "n1");
    // Where it is now it makes room for nobody.
    let moved = rig.until_bound("low").await;
    assert_eq!(moved.value.node, "n2");
    agents[1].run(&rig, "low").await;
    rig.apply("equal", whole("equal")).await;
    let record = rig.until_record("equal", "2 Insufficient cpu").await;
    assert_eq!(record.nominated_node, None);
    let after = rig.until_bound("low").await;
    assert_eq!(after.mod_revision, moved.mod_revision);
}

#[tokio::test]
async fn a_group_that_counted_on_one_that_is_moved_is_placed_when_that_has_gone() {
    let (rig, _s, agents) = moving_away("preempt_moved_group").await;
    let group = "{apiVersion: setpoint.dev/v1, kind: PodGroup, metadata: {name: g, namespace: default}, spec: {minMember: 2}}";
    rig.apply_as("podgroups", "g", group).await;
    for name in ["g1", "g2"] {
        let member = high(name)
            .replace("cpu: 1}", "cpu: 500m}")
            .replace("{app: x}", "{setpoint.dev/pod-group: g}");
        rig.apply(name, member).await;
    }
    for name in ["g1", "g2"] {
        rig.until_record(name, "Others make room on n1").await;
    }
    agents[0].stopped("low").await;
    for name in ["g1", "g2"] {
        assert_eq!(rig.until_bound(name).await.value.node, "n1");
    }
}

#[tokio::test]
async fn who_counts_on_one_that_serves_elsewhere_by_now_waits_until_it_has_stopped() {
    let (rig, s, mut agents) = Rig::with_nodes("preempt_moving", &[1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    rig.apply("low", whole("low")).await;
    agents[0].run(&rig, "low").await;
    agents[0].report_ready(&rig, "low").await;
    agents.push(rig.node("n2", 1).await);
    rig.ask("move", "low", &Intent::default()).await;
    agents[1].run(&rig, "low").await;
    // Both at once are what the next leader finds.
    s.stop().await;
    rig.apply("high", high("high")).await;
    agents[1].report_ready(&rig, "low").await;
    let _s = rig.scheduler();
    rig.until_record("high", "Others make room on n1").await;
    // It makes room on n1 by itself.
    rig.until("low serves on n2", |v| {
        let binding = &v.bindings().get(&pod_key("low"))?.value;
        (binding.node == "n2" && binding.withdrawn.is_none()).then_some(())
    })
    .await;
    assert!(!rig.cache.view().bindings().contains(&pod_key("high")));
    agents[0].stopped("low").await;
    assert_eq!(rig.until_bound("high").await.value.node, "n1");
}
