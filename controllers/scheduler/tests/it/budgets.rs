//! Evictions within disruption budgets.

use setpoint_apis::Key;
use setpoint_apis::policy::PodDisruptionBudget;
use setpoint_apis::records::{Binding, Intent, StopOrder};

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
async fn a_budget_that_somebody_has_broken_holds_as_it_was_says_so_and_counts_on() {
    let (rig, _s, agents) = Rig::with_nodes("broken_budget", &[8]).await;
    rig.apply_as("poddisruptionbudgets", "web", BUDGET).await;
    let runs = |name: &'static str| {
        let (rig, agent) = (&rig, &agents[0]);
        async move {
            rig.apply(name, pod(name)).await;
            agent.run(rig, name).await;
            agent.report_ready(rig, name).await;
        }
    };
    runs("a").await;
    let until = async |said: &str| {
        rig.until_status("poddisruptionbudgets", "web", said).await;
    };
    until("currentHealthy: 1").await;
    let broken = BUDGET.replace("maxUnavailable: 1", "maxUnavailable: lots");
    rig.apply_as("poddisruptionbudgets", "web", &broken).await;
    until("reason: DocumentInvalid").await;
    runs("b").await;
    until("currentHealthy: 2\ndesiredHealthy: 1\nexpectedPods: 2").await;
    rig.apply_as("poddisruptionbudgets", "web", BUDGET).await;
    rig.until("it is mended", |view| {
        let key = setpoint_apis::ObjectKey::namespaced("default", "web");
        let status = view.actual::<PodDisruptionBudget>().get(&key)?;
        (status.value.conditions.len() == 1).then_some(())
    })
    .await;
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

/// A pod of app x, of a ReplicaSet of this name, whose uid is `<name>-uid`.
fn owned(name: &str, set: &str) -> String {
    let owner = format!(
        "metadata:\n  ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: {set}, uid: {set}-uid, controller: true}}]\n"
    );
    pod(name).replacen("metadata:\n", &owner, 1)
}

fn workload(kind: &str, name: &str, replicas: i32, meta: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {name}, namespace: default, uid: {name}-uid{meta}}}, spec: {{replicas: {replicas}, selector: {{matchLabels: {{app: x}}}}, template: {{metadata: {{labels: {{app: x}}}}, spec: {{containers: [{{name: c, image: host}}]}}}}}}}}"
    )
}

#[tokio::test]
async fn a_pod_that_its_workload_wants_and_that_is_missing_counts_as_down() {
    let (rig, s, agents) = Rig::with_nodes("evict_scale", &[8]).await;
    s.stop().await;
    let _s = rig.telling_scheduler();
    rig.apply_as("replicasets", "web", &workload("ReplicaSet", "web", 4, ""))
        .await;
    rig.apply_as("poddisruptionbudgets", "web", BUDGET).await;
    for name in ["a", "b", "c"] {
        rig.apply(name, owned(name, "web")).await;
        agents[0].run(&rig, name).await;
        agents[0].report_ready(&rig, name).await;
    }
    rig.until_status(
        "poddisruptionbudgets",
        "web",
        "disruptionsAllowed: 0\ncurrentHealthy: 3\ndesiredHealthy: 3\nexpectedPods: 4",
    )
    .await;
    rig.ask("evict", "a", &Intent::default()).await;
    rig.until_event(&["EvictionBlocked", "disruption budget web"])
        .await;
    assert!(rig.until_bound("a").await.value.withdrawn.is_none());
    // It wants no more than there are.
    rig.apply_as("replicasets", "web", &workload("ReplicaSet", "web", 3, ""))
        .await;
    assert_eq!(rig.until_withdrawn("a").await, "Evicted");
}

#[tokio::test]
async fn the_pods_of_a_deployment_count_among_what_it_wants_and_its_autoscaler_has_decided() {
    let (rig, _s, agents) = Rig::with_nodes("evict_deployment", &[8]).await;
    rig.apply_as("deployments", "web", &workload("Deployment", "web", 2, ""))
        .await;
    // Two ReplicaSets in the middle of a rollout, and one pod more than wanted.
    let of_web = ", ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: web-uid, controller: true}]";
    for (set, replicas) in [("web-1", 1), ("web-2", 2)] {
        rig.apply_as(
            "replicasets",
            set,
            &workload("ReplicaSet", set, replicas, of_web),
        )
        .await;
    }
    rig.apply_as("poddisruptionbudgets", "web", BUDGET).await;
    for (name, set) in [("a", "web-1"), ("b", "web-2"), ("c", "web-2")] {
        rig.apply(name, owned(name, set)).await;
        agents[0].run(&rig, name).await;
        agents[0].report_ready(&rig, name).await;
    }
    rig.until_status(
        "poddisruptionbudgets",
        "web",
        "disruptionsAllowed: 2\ncurrentHealthy: 3\ndesiredHealthy: 1\nexpectedPods: 2",
    )
    .await;
    rig.until_status("poddisruptionbudgets", "web", "SufficientPods")
        .await;
    rig.apply_as(
        "horizontalpodautoscalers",
        "web",
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: default}, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 9}}",
    )
    .await;
    rig.put(
        &Key::Actual("horizontalpodautoscalers", pod_key("web")),
        "desiredReplicas: 3",
    )
    .await;
    rig.until_status(
        "poddisruptionbudgets",
        "web",
        "disruptionsAllowed: 1\ncurrentHealthy: 3\ndesiredHealthy: 2\nexpectedPods: 3",
    )
    .await;
    // The Deployment goes, and leaves its pods: these are counted then.
    rig.delete(&Key::Desired("horizontalpodautoscalers", pod_key("web")))
        .await;
    rig.apply_as("deployments", "web", &workload("Deployment", "web", 4, ""))
        .await;
    rig.until_status("poddisruptionbudgets", "web", "expectedPods: 4")
        .await;
    rig.delete(&Key::Desired("deployments", pod_key("web")))
        .await;
    rig.until_status(
        "poddisruptionbudgets",
        "web",
        "disruptionsAllowed: 1\ncurrentHealthy: 3\ndesiredHealthy: 2\nexpectedPods: 3",
    )
    .await;
}

#[tokio::test]
async fn a_budget_that_changes_lets_an_eviction_go_on_and_holds_back_the_next() {
    let (rig, s, agents) = Rig::with_nodes("evict_changes", &[8]).await;
    s.stop().await;
    let _s = rig.telling_scheduler();
    let at_least = |least: &str| BUDGET.replace("maxUnavailable: 1", least);
    rig.apply_as("poddisruptionbudgets", "web", &at_least("minAvailable: 3"))
        .await;
    for name in ["a", "b", "c"] {
        rig.apply(name, pod(name)).await;
        agents[0].run(&rig, name).await;
        agents[0].report_ready(&rig, name).await;
    }
    rig.until_status("poddisruptionbudgets", "web", "currentHealthy: 3")
        .await;
    rig.ask("evict", "a", &Intent::default()).await;
    rig.until_event(&["EvictionBlocked", "needs 3 healthy pods"])
        .await;
    rig.apply_as("poddisruptionbudgets", "web", &at_least("minAvailable: 2"))
        .await;
    assert_eq!(rig.until_withdrawn("a").await, "Evicted");
    agents[0].stopped("a").await;
    agents[0].run(&rig, "a").await;
    agents[0].report_ready(&rig, "a").await;
    rig.apply_as(
        "poddisruptionbudgets",
        "web",
        &at_least("maxUnavailable: 0"),
    )
    .await;
    let status = rig
        .until_status("poddisruptionbudgets", "web", "observedGeneration: 3")
        .await;
    for words in [
        "desiredHealthy: 3",
        "disruptionsAllowed: 0",
        "InsufficientPods",
    ] {
        assert!(status.contains(words), "no {words} in {status}");
    }
    rig.ask("evict", "b", &Intent::default()).await;
    rig.until_event(&["EvictionBlocked", "name: b\n"]).await;
    rig.delete(&Key::Desired("poddisruptionbudgets", pod_key("web")))
        .await;
    assert_eq!(rig.until_withdrawn("b").await, "Evicted");
    rig.apply_as(
        "poddisruptionbudgets",
        "web",
        &at_least("maxUnavailable: abc"),
    )
    .await;
    rig.settle("probe").await;
    rig.ask("evict", "c", &Intent::default()).await;
    rig.until_event(&["EvictionBlocked", "name: c\n", "cannot be understood"])
        .await;
}

/// What a user deletes goes whatever budgets say, and so does what a controller deletes for a rollout; both count.
#[tokio::test]
async fn a_budget_that_allows_nothing_holds_back_no_deletion_and_no_rollout() {
    let (rig, s, agents) = Rig::with_nodes("evict_not", &[8]).await;
    s.stop().await;
    let _s = rig.telling_scheduler();
    rig.apply_as("deployments", "web", &workload("Deployment", "web", 2, ""))
        .await;
    let of_web = ", ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: web-uid, controller: true}]";
    for set in ["web-1", "web-2"] {
        let text = workload("ReplicaSet", set, 1, of_web);
        rig.apply_as("replicasets", set, &text).await;
    }
    let none = BUDGET.replace("maxUnavailable: 1", "maxUnavailable: 0");
    rig.apply_as("poddisruptionbudgets", "web", &none).await;
    let runs = async |name: &str, set: &str| {
        rig.apply(name, owned(name, set)).await;
        agents[0].run(&rig, name).await;
        agents[0].report_ready(&rig, name).await;
    };
    let healthy = async |n: u32| {
        let says = format!("disruptionsAllowed: 0\ncurrentHealthy: {n}\n");
        rig.until_status("poddisruptionbudgets", "web", &says).await;
    };
    runs("a", "web-1").await;
    runs("b", "web-1").await;
    healthy(2).await;
    rig.delete_pod("a").await;
    assert_eq!(rig.until_withdrawn("a").await, "Deleted");
    healthy(1).await;
    agents[0].stopped("a").await;
    rig.until_unbound("a").await;
    // The next one is of another template, and then the last of the former goes.
    runs("c", "web-2").await;
    healthy(2).await;
    rig.delete_pod("b").await;
    assert_eq!(rig.until_withdrawn("b").await, "Deleted");
    healthy(1).await;
    rig.ask("evict", "c", &Intent::default()).await;
    rig.until_event(&["EvictionBlocked", "disruption budget web"])
        .await;
    assert!(rig.until_bound("c").await.value.withdrawn.is_none());
}

#[tokio::test]
async fn the_node_is_told_in_how_many_seconds_an_evicted_pod_is_to_stop() {
    let (rig, s, agents) = Rig::with_nodes("evict_grace", &[8]).await;
    s.stop().await;
    let _s = rig.telling_scheduler();
    for name in ["a", "b"] {
        rig.apply(name, pod(name)).await;
        agents[0].run(&rig, name).await;
        agents[0].report_ready(&rig, name).await;
    }
    // Both at a time: the shortest counts, and what says nothing asks for nothing.
    let budget = BUDGET.replace("maxUnavailable: 1", "maxUnavailable: 0");
    rig.apply_as("poddisruptionbudgets", "web", &budget).await;
    rig.until_status("poddisruptionbudgets", "web", "disruptionsAllowed: 0")
        .await;
    let within = |seconds| Intent {
        grace_seconds: seconds,
        ..Intent::default()
    };
    for (name, cli, drain) in [
        ("a", within(Some(7)), within(Some(5))),
        ("b", within(Some(-1)), within(None)),
    ] {
        rig.ask_together(&[
            ("evict", name, "cli", &cli),
            ("evict", name, "drain", &drain),
        ])
        .await;
        // Neither may go yet, so both requests are there when it may.
        rig.until_event(&["EvictionBlocked", &format!("name: {name}\n")])
            .await;
    }
    rig.delete(&Key::Desired("poddisruptionbudgets", pod_key("web")))
        .await;
    for name in ["a", "b"] {
        assert_eq!(rig.until_withdrawn(name).await, "Evicted");
    }
    let stored = rig.get(&Key::Binding(pod_key("a"))).await;
    let stored = stored.expect("a binding");
    let binding: Binding = setpoint_apis::document::decode_value(&stored.value).unwrap();
    let withdrawn = binding.withdrawn.expect("a withdrawal");
    assert_eq!(withdrawn.grace_seconds, Some(5));
    let node = binding.node;
    let order = Key::WorkStop(&node, pod_key("a"));
    let stored = rig.get(&order).await.expect("an order");
    let told: StopOrder = setpoint_apis::document::decode_value(&stored.value).unwrap();
    assert_eq!((told.placement, told.grace_seconds), (1, 5));
    assert!(rig.get(&Key::WorkStop(&node, pod_key("b"))).await.is_none());
    agents[0].stopped("a").await;
    rig.until_gone(&order).await;
}
