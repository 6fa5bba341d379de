//! Moves: a pod is started on another node before it is stopped where it is.

use std::sync::Arc;

use setpoint_apis::Key;
use setpoint_apis::records::{Binding, Intent, MoveOutcome, MoveResult, Moving, PodStage};
use setpoint_runtime::Stored;
use setpoint_scheduler::decide::PARTITION_POLICY;

use crate::rig::{Agent, Rig, pod, pod_key, pod_with};

fn request(name: &str) -> Key<'static> {
    Key::Intent {
        verb: "move",
        pod: pod_key(name),
        by: "test",
    }
}

fn to(node: &str) -> Intent {
    Intent {
        to: Some(node.into()),
        reason: "n1 is old".into(),
        ..Intent::default()
    }
}

fn stop_pod(name: &str) -> String {
    let annotations = format!("  annotations: {{{PARTITION_POLICY}: stop}}\nspec:");
    pod(name).replace("spec:", &annotations)
}

async fn until_moving(rig: &Rig, name: &str) -> Moving {
    rig.until(&format!("{name} moves"), |v| {
        let binding = v.bindings().get(&pod_key(name))?;
        binding.value.moving.as_deref().cloned()
    })
    .await
}

async fn until_on(rig: &Rig, name: &str, node: &str) -> Arc<Stored<Binding>> {
    rig.until(&format!("{name} is on {node} alone"), |v| {
        let binding = v.bindings().get(&pod_key(name))?;
        let b = &binding.value;
        let alone = b.moving.is_none() && b.leaving.is_none() && b.withdrawn.is_none();
        (b.node == node && alone).then(|| binding.clone())
    })
    .await
}

async fn until_answered(rig: &Rig, name: &str, request: i64) -> MoveResult {
    rig.until(&format!("something became of {name}'s request"), |v| {
        let binding = v.bindings().get(&pod_key(name))?;
        let last = binding.value.last_move.as_deref()?;
        (last.request == request).then(|| last.clone())
    })
    .await
}

async fn until_result(rig: &Rig, name: &str, outcome: MoveOutcome) -> MoveResult {
    rig.until(&format!("{name} was moved: {outcome:?}"), |v| {
        let binding = v.bindings().get(&pod_key(name))?;
        let last = binding.value.last_move.as_deref()?;
        (last.outcome == outcome).then(|| last.clone())
    })
    .await
}

/// A pod that serves on n1, which has just room for it, as n2 has; n3 has room for probes.
async fn serving(name: &str) -> (Rig, crate::rig::Scheduler, Vec<Agent>) {
    let (rig, s, agents) = Rig::with_nodes(name, &[2]).await;
    s.stop().await;
    let whole = pod("a").replace("cpu: 100m", "cpu: 2");
    let s = rig.telling_scheduler();
    rig.apply("a", whole).await;
    let mut agents = agents;
    agents[0].run(&rig, "a").await;
    agents[0].report_ready(&rig, "a").await;
    agents.push(rig.node("n2", 2).await);
    agents.push(rig.node("n3", 1).await);
    (rig, s, agents)
}

#[tokio::test]
async fn a_pod_serves_here_until_it_serves_there_and_takes_room_on_both() {
    let (rig, _s, agents) = serving("move").await;
    let asked = rig.ask("move", "a", &to("n2")).await;
    let moving = until_moving(&rig, "a").await;
    assert_eq!((moving.to.as_str(), moving.placement), ("n2", 2));
    assert_eq!((moving.request, moving.by.as_str()), (asked.0, "test"));
    assert_eq!(moving.session, agents[1].session);
    rig.until_gone(&request("a")).await;
    rig.until_event(&["Moving", "from n1 to n2", "n1 is old"])
        .await;
    // It is n1's all the while, under the copy that it was claimed under.
    let bound = rig.until_bound("a").await;
    assert_eq!(
        (bound.value.node.as_str(), bound.value.placement),
        ("n1", 1)
    );
    let (header, _, copy) = rig.work("n1", "a").await.expect("work here");
    assert_eq!(header.placement, Some(1));
    assert_eq!(bound.value.work_revision, Some(copy));
    let (there, ..) = rig.work("n2", "a").await.expect("work there");
    assert_eq!(there.placement, Some(2));
    // Neither node has room for another.
    let whole = pod("b").replace("cpu: 100m", "cpu: 2");
    rig.apply("b", whole).await;
    rig.until_record("b", "3 Insufficient cpu").await;

    agents[1].run(&rig, "a").await;
    assert!(rig.work("n1", "a").await.is_some(), "it is not ready there");
    agents[1].report_ready(&rig, "a").await;
    let result = until_result(&rig, "a", MoveOutcome::Moved).await;
    assert_eq!((result.from.as_str(), result.request), ("n1", asked.0));
    let bound = rig.until_bound("a").await;
    assert_eq!(
        (bound.value.node.as_str(), bound.value.placement),
        ("n2", 2)
    );
    assert_eq!(bound.value.leaving.as_deref(), Some("n1"));
    let decision = bound.value.decision.as_ref().expect("a decision");
    assert_eq!(decision.moved_from.as_deref(), Some("n1"));
    assert!(rig.work("n1", "a").await.is_none());
    rig.until_event(&["reason: Moved", "from n1 to n2"]).await;
    // Its room on n1 is free when it has stopped there.
    rig.settle("probe").await;
    assert!(!rig.cache.view().bindings().contains(&pod_key("b")));
    agents[0].stopped("a").await;
    until_on(&rig, "a", "n2").await;
    assert_eq!(rig.until_bound("b").await.value.node, "n1");
}

#[tokio::test]
async fn a_pod_that_is_not_ready_in_time_stays_where_it_is() {
    let (rig, _s, agents) = serving("move_late").await;
    let (mut seconds, mut number) = (5, 2);
    // Nothing else changes: the time alone ends it.
    let result = loop {
        let soon = Intent {
            timeout_seconds: Some(seconds),
            ..Intent::default()
        };
        let asked = rig.ask("move", "a", &soon).await.0;
        rig.until("it moves, or did", |v| {
            let binding = &v.bindings().get(&pod_key("a"))?.value;
            let moves = binding.moving.as_ref().is_some_and(|m| m.request == asked);
            let ended = binding.last_move.as_ref();
            (moves || ended.is_some_and(|m| m.request == asked)).then_some(())
        })
        .await;
        let claimed = agents[1].claim("a").await;
        let result = until_answered(&rig, "a", asked).await;
        if claimed {
            break result;
        }
        // This test was held up until its time was over: again, with more of it.
        assert_eq!(result.outcome, MoveOutcome::Undone);
        until_on(&rig, "a", "n1").await;
        (seconds, number) = (seconds * 3, number + 1);
    };
    assert_eq!(
        (result.outcome, result.message),
        (
            MoveOutcome::Undone,
            format!("it was not ready on n2 within {seconds} s")
        )
    );
    assert!(rig.work("n2", "a").await.is_none());
    rig.until_event(&["MoveUndone", "it stays on n1"]).await;
    let bound = rig.until_bound("a").await;
    assert_eq!(bound.value.leaving.as_deref(), Some("n2"));
    agents[1].stopped("a").await;
    let bound = until_on(&rig, "a", "n1").await;
    assert_eq!(
        (bound.value.placement, bound.value.placements),
        (1, Some(number))
    );
    // The number is spent: the next attempt has another.
    rig.ask("move", "a", &Intent::default()).await;
    assert_eq!(until_moving(&rig, "a").await.placement, number + 1);
}

#[tokio::test]
async fn a_move_is_undone_when_the_pod_ends_there_or_the_node_is_lost() {
    let (rig, _s, mut agents) = serving("move_failed").await;
    rig.ask("move", "a", &Intent::default()).await;
    agents[1].run(&rig, "a").await;
    agents[1].report_placement("a", 2, PodStage::Failed).await;
    let result = until_result(&rig, "a", MoveOutcome::Undone).await;
    assert_eq!(result.message, "it ended on n2");
    agents[1].stopped("a").await;
    until_on(&rig, "a", "n1").await;

    let asked = rig.ask("move", "a", &Intent::default()).await;
    agents[1].run(&rig, "a").await;
    agents[1].lose().await;
    let result = until_answered(&rig, "a", asked.0).await;
    assert_eq!(
        (result.outcome, result.message.as_str()),
        (MoveOutcome::Undone, "n2 is lost")
    );
    until_on(&rig, "a", "n1").await;
    let there = Key::NodePod("n2", pod_key("a"));
    assert!(
        rig.get(&there).await.is_none(),
        "what a lost node reported is forgotten"
    );
    agents[1].begin_session().await;
    assert!(!agents[1].claim("a").await, "nothing is left to be claimed");
}

#[tokio::test]
async fn a_pod_that_cannot_be_moved_stays_and_says_why_once() {
    let (rig, _s, _agents) = serving("move_no").await;
    rig.apply("b", pod("b").replace("cpu: 100m", "cpu: 1500m"))
        .await;
    assert_eq!(rig.until_bound("b").await.value.node, "n2");
    let tries = [
        (Intent::default(), "2 Insufficient cpu"),
        (to("n2"), "1 Insufficient cpu"),
        (to("n1"), "it is on n1 already"),
        (to("n9"), "there is no node n9"),
        (
            Intent {
                timeout_seconds: Some(0),
                ..Intent::default()
            },
            "timeoutSeconds of the request must be between 1 and 86400, and is 0",
        ),
    ];
    for (intent, words) in tries {
        let asked = rig.ask("move", "a", &intent).await;
        let result = until_answered(&rig, "a", asked.0).await;
        assert_eq!(result.outcome, MoveOutcome::Refused);
        assert!(result.message.contains(words), "{}", result.message);
        rig.until_gone(&request("a")).await;
        rig.until_event(&["NotMoved", words]).await;
    }
    let bound = until_on(&rig, "a", "n1").await;
    assert_eq!(bound.value.placement, 1);
    rig.settle("probe").await;
    let after = until_on(&rig, "a", "n1").await;
    assert_eq!(after.mod_revision, bound.mod_revision, "nothing is written");
}

#[tokio::test]
async fn a_pod_that_must_never_run_twice_stops_here_before_it_has_work_there() {
    let (rig, s, agents) = Rig::with_nodes("move_stop", &[1]).await;
    rig.apply("a", stop_pod("a")).await;
    agents[0].run(&rig, "a").await;
    agents[0].report_ready(&rig, "a").await;
    let n2 = rig.node("n2", 1).await;
    let budget = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web, namespace: default}, spec: {maxUnavailable: 0, selector: {matchLabels: {app: x}}}}";
    rig.apply_as("poddisruptionbudgets", "web", budget).await;
    rig.until_status("poddisruptionbudgets", "web", "currentHealthy: 1")
        .await;
    rig.ask("move", "a", &to("n2")).await;
    rig.settle("probe").await;
    assert!(
        rig.get(&request("a")).await.is_some(),
        "the budget does not allow it"
    );
    rig.delete(&Key::Desired("poddisruptionbudgets", pod_key("web")))
        .await;
    assert_eq!(rig.until_withdrawn("a").await, "Moved");
    assert!(rig.work("n1", "a").await.is_none() && rig.work("n2", "a").await.is_none());
    rig.until_gone(&request("a")).await;
    // Another scheduler goes on.
    s.stop().await;
    let _s = rig.scheduler();
    rig.settle("probe2").await;
    assert!(rig.work("n2", "a").await.is_none(), "it runs on n1");
    agents[0].stopped("a").await;
    let bound = until_on(&rig, "a", "n2").await;
    assert_eq!(
        (bound.value.placement, bound.value.session),
        (2, n2.session)
    );
    n2.run(&rig, "a").await;
}

#[tokio::test]
async fn a_new_leader_goes_on_with_moves_and_a_deletion_withdraws_from_both_nodes() {
    let (rig, s, agents) = serving("move_leader").await;
    rig.ask("move", "a", &Intent::default()).await;
    agents[1].run(&rig, "a").await;
    s.stop().await;
    agents[1].report_ready(&rig, "a").await;
    let s = rig.scheduler();
    until_result(&rig, "a", MoveOutcome::Moved).await;
    s.stop().await;
    agents[0].stopped("a").await;
    let s = rig.scheduler();
    until_on(&rig, "a", "n2").await;
    // And back, until the pod is deleted.
    rig.ask("move", "a", &Intent::default()).await;
    agents[0].run(&rig, "a").await;
    s.stop().await;
    rig.delete_pod("a").await;
    let _s = rig.scheduler();
    assert_eq!(rig.until_withdrawn("a").await, "Deleted");
    assert!(rig.work("n1", "a").await.is_none() && rig.work("n2", "a").await.is_none());
    agents[1].stopped("a").await;
    rig.settle("probe").await;
    assert!(
        rig.cache.view().bindings().contains(&pod_key("a")),
        "it still runs on n1"
    );
    agents[0].stopped("a").await;
    rig.until_unbound("a").await;
}

#[tokio::test]
async fn a_pod_whose_node_is_lost_while_it_moves_goes_on_at_the_other_node() {
    let (rig, _s, agents) = serving("move_lost").await;
    rig.ask("move", "a", &Intent::default()).await;
    agents[1].run(&rig, "a").await;
    agents[0].lose().await;
    rig.settle("probe").await;
    assert_eq!(rig.until_bound("a").await.value.node, "n1");
    let release = Intent {
        node: Some("n1".into()),
        session: Some(agents[0].session),
        ..Intent::default()
    };
    rig.ask("release", "a", &release).await;
    let bound = until_on(&rig, "a", "n2").await;
    assert_eq!(bound.value.placement, 2);
    let here = Key::NodePod("n1", pod_key("a"));
    assert!(rig.get(&here).await.is_none());
    assert!(rig.work("n1", "a").await.is_none());
}

#[tokio::test]
async fn a_full_pass_finds_nothing_to_repair_while_pods_move() {
    let (rig, s, agents) = serving("move_audit").await;
    s.stop().await;
    let options = setpoint_scheduler::Options {
        full_pass: std::time::Duration::from_millis(50),
        ..setpoint_scheduler::Options::new(1)
    };
    let _s = rig.scheduler_with(options);
    rig.ask("move", "a", &Intent::default()).await;
    agents[1].run(&rig, "a").await;
    let moving = rig.until_bound("a").await;
    for probe in ["p1", "p2", "p3"] {
        rig.settle(probe).await;
    }
    let after = rig.until_bound("a").await;
    assert_eq!(after.mod_revision, moving.mod_revision);
    agents[1].report_ready(&rig, "a").await;
    agents[0].stopped("a").await;
    until_on(&rig, "a", "n2").await;
}

#[tokio::test]
async fn min_ready_is_measured_here_and_not_by_the_clock_of_the_node() {
    let (rig, s, agents) = serving("move_min_ready").await;
    let long = Intent {
        timeout_seconds: Some(7_200),
        min_ready_seconds: Some(3_600),
        ..Intent::default()
    };
    rig.ask("move", "a", &long).await;
    agents[1].run(&rig, "a").await;
    // It says that it has been ready for half a century.
    agents[1].report_ready(&rig, "a").await;
    rig.settle("probe").await;
    assert_eq!(rig.until_bound("a").await.value.node, "n1");
    // A new leader begins anew.
    s.stop().await;
    let _s = rig.scheduler();
    rig.settle("probe2").await;
    assert_eq!(rig.until_bound("a").await.value.node, "n1");
}

#[tokio::test]
async fn a_pod_that_has_been_ready_for_long_enough_is_moved_though_nothing_changes() {
    let (rig, _s, agents) = serving("move_min_ready_over").await;
    let short = Intent {
        min_ready_seconds: Some(1),
        ..Intent::default()
    };
    rig.ask("move", "a", &short).await;
    agents[1].run(&rig, "a").await;
    agents[1].report_ready(&rig, "a").await;
    until_result(&rig, "a", MoveOutcome::Moved).await;
}

#[tokio::test]
async fn what_a_lost_node_has_ended_is_forgotten_there_as_well() {
    let (rig, _s, agents) = serving("move_ended_lost").await;
    rig.ask("move", "a", &Intent::default()).await;
    agents[1].run(&rig, "a").await;
    agents[1].report_ready(&rig, "a").await;
    until_result(&rig, "a", MoveOutcome::Moved).await;
    // It takes no room there any more, and its agent has yet to forget it.
    agents[0].report("a", PodStage::Succeeded).await;
    rig.apply("b", pod("b").replace("cpu: 100m", "cpu: 2"))
        .await;
    assert_eq!(rig.until_bound("b").await.value.node, "n1");
    agents[0].lose().await;
    until_on(&rig, "a", "n2").await;
}

#[tokio::test]
async fn many_requests_at_once_are_all_acted_on() {
    let (rig, _s, agents) = Rig::with_nodes("move_many", &[8]).await;
    let names: Vec<_> = (0..50).map(|i| format!("a{i}")).collect();
    for name in &names {
        rig.apply(name, pod(name)).await;
    }
    for name in &names {
        agents[0].run(&rig, name).await;
    }
    rig.node("n2", 8).await;
    let there = to("n2");
    let requests = names.iter().map(|name| ("move", &**name, "test", &there));
    rig.ask_together(&requests.collect::<Vec<_>>()).await;
    for name in &names {
        assert_eq!(until_moving(&rig, name).await.to, "n2");
    }
}

#[tokio::test]
async fn a_new_leader_moves_nothing_into_room_that_is_reserved() {
    let (rig, s, _agents) = serving("move_reserved").await;
    let reservation = "{apiVersion: setpoint.dev/v1, kind: Reservation, metadata: {name: r, namespace: default}, spec: {owners: {selector: {matchLabels: {app: train}}}, resources: {cpu: '1500m'}}}";
    rig.apply_as("reservations", "r", reservation).await;
    rig.until_status("reservations", "r", "reason: Reserved")
        .await;
    s.stop().await;
    rig.ask("move", "a", &Intent::default()).await;
    let _s = rig.scheduler();
    let result = until_result(&rig, "a", MoveOutcome::Refused).await;
    assert!(result.message.contains("nodes are available"), "{result:?}");
}

#[tokio::test]
async fn who_waits_for_a_neighbour_finds_one_that_comes_by_a_move() {
    let (rig, _s, _agents) = serving("move_arrives").await;
    rig.node("n4", 3).await;
    let near = "  affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: x}}, topologyKey: kubernetes.io/hostname}]}}\n";
    let waits = pod_with("b", near).replace("app: x}\nspec", "app: y}\nspec");
    rig.apply("b", waits).await;
    rig.until_record("b", "0/4 nodes are available").await;
    rig.ask("move", "a", &to("n4")).await;
    assert_eq!(rig.until_bound("b").await.value.node, "n4");
}
