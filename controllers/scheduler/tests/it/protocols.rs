//! Every row of the table of protocols.

use setpoint_apis::records::{ClaimFence, Intent, PodStage};
use setpoint_apis::{Key, Keyspace};
use setpoint_scheduler::decide::PARTITION_POLICY;

use crate::rig::{Rig, pod, pod_key, pod_with};

fn release(node: &str, session: i64) -> Intent {
    Intent {
        node: Some(node.into()),
        session: Some(session),
        reason: "it is lost".into(),
        ..Intent::default()
    }
}

fn request(verb: &'static str, name: &str) -> Key<'static> {
    Key::Intent {
        verb,
        pod: pod_key(name),
        by: "test",
    }
}

#[tokio::test]
async fn a_pod_is_bound_with_its_work_in_one_revision() {
    let (rig, _s, agents) = Rig::with_nodes("bind", &[2]).await;
    let applied = rig.apply("a", pod("a")).await;
    let binding = rig.until_bound("a").await;
    let b = &binding.value;
    assert_eq!(
        (b.node.as_str(), b.session, b.placement, b.pod_revision),
        ("n1", agents[0].session, 1, applied.0)
    );
    let d = b.decision.as_ref().expect("a decision");
    assert_eq!((d.nodes, d.feasible, d.runner_up.as_ref()), (1, 1, None));
    let (header, work, revision) = rig.work("n1", "a").await.expect("work");
    assert_eq!(revision, binding.mod_revision);
    assert_eq!(
        (header.placement, header.source_revision),
        (Some(1), applied.0)
    );
    let view = rig.cache.view();
    let desired = view
        .desired::<setpoint_apis::core::Pod>()
        .get(&pod_key("a"))
        .unwrap();
    assert_eq!((header.uid, &work), (desired.uid(), &desired.value));
}

#[tokio::test]
async fn an_unclaimed_pod_is_withdrawn_in_one_step() {
    let (rig, _s, _agents) = Rig::with_nodes("unclaimed", &[2]).await;
    rig.apply("a", pod("a")).await;
    rig.until_bound("a").await;
    rig.delete_pod("a").await;
    rig.until_unbound("a").await;
    assert!(rig.work("n1", "a").await.is_none());
}

#[tokio::test]
async fn a_claimed_pod_is_stopped_by_its_agent_before_its_binding_goes() {
    let (rig, _s, agents) = Rig::with_nodes("claimed", &[2]).await;
    rig.apply("a", pod("a")).await;
    agents[0].run(&rig, "a").await;
    rig.delete_pod("a").await;
    assert_eq!(rig.until_withdrawn("a").await, "Deleted");
    assert!(rig.work("n1", "a").await.is_none());
    rig.settle("probe").await;
    assert!(
        rig.cache.view().bindings().contains(&pod_key("a")),
        "it still runs"
    );
    agents[0].stopped("a").await;
    rig.until_unbound("a").await;
}

#[tokio::test]
async fn a_new_incarnation_is_not_bound_while_the_former_runs() {
    let (rig, _s, agents) = Rig::with_nodes("incarnation", &[2, 2]).await;
    rig.apply("a", pod_with("a", "  nodeName: n1\n")).await;
    agents[0].run(&rig, "a").await;
    let first = rig.work("n1", "a").await.unwrap().0.uid;
    rig.delete_pod("a").await;
    rig.apply("a", pod_with("a", "  nodeName: n2\n")).await;
    assert_eq!(rig.until_withdrawn("a").await, "Deleted");
    rig.settle("probe").await;
    assert!(rig.work("n2", "a").await.is_none());
    agents[0].stopped("a").await;
    rig.until_key(
        "the new one has work",
        &Key::WorkPod("n2", pod_key("a")),
        |v| v.map(|_| ()),
    )
    .await;
    let (header, ..) = rig.work("n2", "a").await.unwrap();
    assert_ne!(header.uid, first);
}

#[tokio::test]
async fn a_changed_document_reaches_the_node_and_the_placement_stays() {
    let (rig, _s, agents) = Rig::with_nodes("change", &[2]).await;
    rig.apply("a", pod("a")).await;
    agents[0].run(&rig, "a").await;
    let changed = rig.apply("a", pod("a").replace("app: x", "app: y")).await;
    rig.until("the binding names the new revision", |v| {
        (v.bindings().get(&pod_key("a"))?.value.pod_revision == changed.0).then_some(())
    })
    .await;
    let (header, work, _) = rig.work("n1", "a").await.unwrap();
    assert_eq!(
        (header.placement, header.source_revision),
        (Some(1), changed.0)
    );
    assert_eq!(work.metadata.labels["app"], "y");
}

#[tokio::test]
async fn a_pod_that_names_another_node_moves_there_when_it_has_stopped() {
    let (rig, _s, agents) = Rig::with_nodes("rename", &[2, 2]).await;
    rig.apply("a", pod_with("a", "  nodeName: n1\n")).await;
    agents[0].run(&rig, "a").await;
    rig.apply("a", pod_with("a", "  nodeName: n2\n")).await;
    assert_eq!(rig.until_withdrawn("a").await, "NodeNameChanged");
    agents[0].stopped("a").await;
    let binding = rig.until_bound("a").await;
    assert_eq!(
        (binding.value.node.as_str(), binding.value.placement),
        ("n2", 2)
    );
}

#[tokio::test]
async fn a_lost_nodes_pod_is_released_and_runs_elsewhere() {
    let (rig, _s, agents) = Rig::with_nodes("release", &[2, 1]).await;
    rig.apply("a", pod("a")).await;
    assert_eq!(rig.until_bound("a").await.value.node, "n1");
    agents[0].run(&rig, "a").await;
    agents[0].lose().await;
    rig.settle("probe").await;
    assert_eq!(
        rig.until_bound("a").await.value.node,
        "n1",
        "nobody has asked"
    );
    rig.ask("release", "a", &release("n1", agents[0].session))
        .await;
    let binding = rig
        .until("it is bound elsewhere", |v| {
            v.bindings()
                .get(&pod_key("a"))
                .filter(|b| b.value.node == "n2")
                .cloned()
        })
        .await;
    assert_eq!(
        (binding.value.placement, binding.value.session),
        (2, agents[1].session)
    );
    assert!(rig.work("n1", "a").await.is_none());
    for key in [
        Key::NodePod("n1", pod_key("a")),
        request("release", "a"),
        Key::Actual("pods", pod_key("a")),
    ] {
        assert!(rig.get(&key).await.is_none(), "{key:?}");
    }
    assert_eq!(rig.work("n2", "a").await.unwrap().0.placement, Some(2));
}

#[tokio::test]
async fn a_released_pod_without_a_node_says_where_it_was() {
    let (rig, _s, agents) = Rig::with_nodes("stranded", &[2]).await;
    rig.apply("a", pod("a")).await;
    agents[0].run(&rig, "a").await;
    agents[0].lose().await;
    rig.ask("release", "a", &release("n1", agents[0].session))
        .await;
    let record = rig
        .until_record("a", "0/1 nodes are available: 1 node(s) were unreachable.")
        .await;
    assert_eq!(record.placements, 1);
}

#[tokio::test]
async fn a_node_that_comes_back_in_time_keeps_its_pods_and_the_request_is_dropped() {
    let (rig, s, mut agents) = Rig::with_nodes("return", &[2]).await;
    rig.apply("a", pod("a")).await;
    agents[0].run(&rig, "a").await;
    let lost = agents[0].session;
    // Nobody schedules while the node goes, failover asks, and the node comes back.
    s.stop().await;
    agents[0].lose().await;
    rig.ask("release", "a", &release("n1", lost)).await;
    agents[0].begin_session().await;
    let before = rig.work("n1", "a").await.unwrap().2;
    let _s = rig.scheduler();
    rig.until_gone(&request("release", "a")).await;
    let binding = rig.until_bound("a").await;
    assert_eq!(
        (binding.value.node.as_str(), binding.value.session),
        ("n1", lost)
    );
    assert_eq!(rig.work("n1", "a").await.unwrap().2, before);
    // Lost again: a request that speaks of the newer session is about this placement all the same.
    agents[0].lose().await;
    rig.ask("release", "a", &release("n1", agents[0].session))
        .await;
    rig.until_unbound("a").await;
}

#[tokio::test]
async fn a_request_that_comes_late_does_not_hit_the_next_placement() {
    let (rig, _s, mut agents) = Rig::with_nodes("late", &[2]).await;
    let first = agents[0].session;
    agents[0].lose().await;
    agents[0].begin_session().await;
    rig.apply("a", pod("a")).await;
    agents[0].run(&rig, "a").await;
    agents[0].lose().await;
    rig.ask("release", "a", &release("n1", first)).await;
    rig.until_gone(&request("release", "a")).await;
    assert_eq!(rig.until_bound("a").await.value.session, agents[0].session);
    assert!(rig.get(&Key::NodePod("n1", pod_key("a"))).await.is_some());
}

#[tokio::test]
async fn a_pod_that_was_claimed_without_a_fence_and_must_never_run_twice_is_not_released() {
    let (rig, _s, agents) = Rig::with_nodes("unfenced", &[2]).await;
    let annotations = format!("  annotations: {{{PARTITION_POLICY}: stop}}\nspec:");
    rig.apply("a", pod("a").replace("spec:", &annotations))
        .await;
    agents[0].run(&rig, "a").await;
    let before = rig.get(&Key::Binding(pod_key("a"))).await.unwrap();
    agents[0].lose().await;
    rig.node("n2", 2).await;
    for fenced in [true, false] {
        if fenced {
            rig.put(&Key::NodeFence("n1"), "").await;
        } else {
            rig.delete(&Key::NodeFence("n1")).await;
        }
        rig.settle("probe").await;
        rig.ask("release", "a", &release("n1", agents[0].session))
            .await;
        rig.until_gone(&request("release", "a")).await;
        let after = rig.get(&Key::Binding(pod_key("a"))).await.unwrap();
        assert_eq!(after, before, "it is where it was");
        assert!(rig.get(&Key::NodePod("n1", pod_key("a"))).await.is_some());
    }
    // The document is gone: the binding remembers.
    rig.delete_pod("a").await;
    assert_eq!(rig.until_withdrawn("a").await, "Deleted");
    rig.ask("release", "a", &release("n1", agents[0].session))
        .await;
    rig.until_gone(&request("release", "a")).await;
    assert!(rig.get(&Key::NodePod("n1", pod_key("a"))).await.is_some());
    assert!(rig.get(&Key::Binding(pod_key("a"))).await.is_some());
}

#[tokio::test]
async fn a_pod_that_must_never_run_twice_is_released_when_the_fence_is_gone_too() {
    let (rig, _s, agents) = Rig::with_nodes("fence", &[2]).await;
    let annotations = format!("  annotations: {{{PARTITION_POLICY}: stop}}\nspec:");
    rig.apply("a", pod("a").replace("spec:", &annotations))
        .await;
    rig.put(&Key::NodeFence("n1"), "").await;
    agents[0].run(&rig, "a").await;
    let fence = ClaimFence {
        revision: 1,
        lease_ttl_seconds: 30,
    };
    agents[0]
        .report_under("a", PodStage::Running, Some(fence))
        .await;
    agents[0].lose().await;
    rig.node("n2", 2).await;
    rig.ask("release", "a", &release("n1", agents[0].session))
        .await;
    rig.settle("probe").await;
    let bound = rig.until_bound("a").await;
    assert_eq!(bound.value.node, "n1", "the fence stands");
    rig.delete(&Key::NodeFence("n1")).await;
    let binding = rig
        .until("it is bound elsewhere", |v| {
            v.bindings()
                .get(&pod_key("a"))
                .filter(|b| b.value.node == "n2")
                .cloned()
        })
        .await;
    assert_eq!(binding.value.placement, 2);
    rig.until_gone(&request("release", "a")).await;
    assert!(rig.get(&Key::NodePod("n1", pod_key("a"))).await.is_none());
}

#[tokio::test]
async fn an_evicted_pod_is_stopped_and_placed_again() {
    let (rig, _s, agents) = Rig::with_nodes("evict", &[2, 1]).await;
    for claimed in [true, false] {
        let name = if claimed { "a" } else { "b" };
        rig.apply(name, pod(name)).await;
        assert_eq!(rig.until_bound(name).await.value.node, "n1");
        if claimed {
            agents[0].run(&rig, name).await;
        }
        let cordoned =
            "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {unschedulable: true}\n";
        let node = Key::Desired("nodes", setpoint_apis::ObjectKey::cluster("n1"));
        rig.put(&node, cordoned).await;
        rig.settle("probe").await;
        rig.ask(
            "evict",
            name,
            &Intent {
                reason: "drain".into(),
                ..Intent::default()
            },
        )
        .await;
        if claimed {
            assert_eq!(rig.until_withdrawn(name).await, "Evicted");
            agents[0].stopped(name).await;
        }
        let binding = rig
            .until("it is bound elsewhere", |v| {
                v.bindings()
                    .get(&pod_key(name))
                    .filter(|b| b.value.node == "n2")
                    .cloned()
            })
            .await;
        assert_eq!(binding.value.placement, 2);
        rig.until_gone(&request("evict", name)).await;
        rig.put(&node, cordoned.replace("true", "false")).await;
        rig.settle("probe").await;
    }
}

#[tokio::test]
async fn what_has_ended_takes_no_room_keeps_its_binding_and_is_not_run_again() {
    let (rig, _s, agents) = Rig::with_nodes("ended", &[1]).await;
    let whole = |name: &str| pod(name).replace("cpu: 100m", "cpu: 1");
    rig.apply("a", whole("a")).await;
    agents[0].run(&rig, "a").await;
    rig.apply("b", whole("b")).await;
    rig.until_record("b", "1 Insufficient cpu").await;
    agents[0].report("a", PodStage::Succeeded).await;
    rig.until_bound("b").await;
    agents[0].lose().await;
    for verb in ["release", "evict"] {
        rig.ask(verb, "a", &release("n1", agents[0].session)).await;
        rig.until_gone(&request(verb, "a")).await;
    }
    assert_eq!(rig.until_bound("a").await.value.placement, 1);
}

#[tokio::test]
async fn requests_that_cannot_be_read_and_keys_of_others_do_no_harm() {
    let (rig, _s, _agents) = Rig::with_nodes("foreign", &[2]).await;
    rig.apply("a", pod("a")).await;
    rig.until_bound("a").await;
    rig.put(&request("move", "a"), "[ not a request").await;
    rig.put(&request("evict", "a"), "[ not a request").await;
    let foreign = format!(
        "{}/intents/dance/default/a/x",
        Keyspace::as_str(&rig.keyspace)
    );
    rig.store
        .txn(setpoint_store::Txn::new().put(foreign, "x"))
        .await
        .unwrap();
    rig.settle("probe").await;
    assert!(
        rig.get(&request("move", "a")).await.is_some()
            && rig.get(&request("evict", "a")).await.is_some()
    );
    assert_eq!(rig.until_bound("a").await.value.placement, 1);
}
