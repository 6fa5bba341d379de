//! Evictions within disruption budgets.

use setpoint_apis::Key;
use setpoint_apis::records::Intent;

use crate::rig::{Rig, pod, pod_key};

const BUDGET: &str = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: web, namespace: default}, spec: {maxUnavailable: 1, selector: {matchLabels: {app: x}}}}";

#[tokio::test]
async fn two_who_evict_together_do_not_overshoot_and_the_second_has_its_turn() {
    let (rig, s, agents) = Rig::with_nodes("evict_budget", &[8]).await;
    s.stop().await;
    let _s = rig.telling_scheduler();
    for name in ["a", "b", "c"] {
        rig.apply(name, pod(name)).await;
        agents[0].run(&rig, name).await;
        agents[0].report_ready(&rig, name).await;
    }
    rig.apply_as("poddisruptionbudgets", "web", BUDGET).await;
    rig.until_status("poddisruptionbudgets", "web", "disruptionsAllowed: 1")
        .await;
    for (by, name) in [("drain", "a"), ("rebalancer", "b")] {
        let key = Key::Intent {
            verb: "evict",
            pod: pod_key(name),
            by,
        };
        rig.put(&key, setpoint_apis::document::encode(&Intent::default()))
            .await;
    }
    let blocked = rig
        .until_event(&["EvictionBlocked", "disruption budget web"])
        .await;
    let (first, second) = if blocked.contains("name: a\n") {
        ("b", "a")
    } else {
        ("a", "b")
    };
    assert_eq!(rig.until_withdrawn(first).await, "Evicted");
    let binding = rig.until_bound(second).await;
    assert_eq!(binding.value.placement, 1);
    rig.until_status(
        "poddisruptionbudgets",
        "web",
        "disruptionsAllowed: 0\ncurrentHealthy: 2",
    )
    .await;
    // The first serves again, elsewhere or here: then the second goes.
    agents[0].stopped(first).await;
    rig.until_bound(first).await;
    agents[0].run(&rig, first).await;
    assert!(rig.until_bound(second).await.value.withdrawn.is_none());
    agents[0].report_ready(&rig, first).await;
    assert_eq!(rig.until_withdrawn(second).await, "Evicted");
}

#[tokio::test]
async fn an_eviction_that_ignores_budgets_is_carried_out_and_a_blocked_one_when_the_budget_goes() {
    let (rig, _s, agents) = Rig::with_nodes("evict_ignore", &[8]).await;
    rig.apply_as(
        "poddisruptionbudgets",
        "web",
        &BUDGET.replace("maxUnavailable: 1", "maxUnavailable: 0"),
    )
    .await;
    for name in ["a", "b"] {
        rig.apply(name, pod(name)).await;
        agents[0].run(&rig, name).await;
        agents[0].report_ready(&rig, name).await;
    }
    rig.until_status("poddisruptionbudgets", "web", "currentHealthy: 2")
        .await;
    rig.ask("evict", "a", &Intent::default()).await;
    let force = Intent {
        ignore_budgets: true,
        ..Intent::default()
    };
    rig.ask("evict", "b", &force).await;
    assert_eq!(rig.until_withdrawn("b").await, "Evicted");
    assert!(rig.until_bound("a").await.value.withdrawn.is_none());
    rig.delete(&Key::Desired("poddisruptionbudgets", pod_key("web")))
        .await;
    assert_eq!(rig.until_withdrawn("a").await, "Evicted");
    rig.until_gone(&Key::Actual("poddisruptionbudgets", pod_key("web")))
        .await;
}
