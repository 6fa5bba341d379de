//! Quotas of a namespace are kept when pods are bound; and pods that refer to what does not exist wait for it.

use setpoint_apis::Key;
use setpoint_apis::records::{Intent, PodStage};

use crate::rig::{Rig, pod, pod_key, pod_with};

fn quota(hard: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: compute, namespace: default}}, spec: {{hard: {{{hard}}}}}}}"
    )
}

#[tokio::test]
async fn a_pod_over_quota_waits_until_there_is_room_in_it() {
    let (rig, _s, _agents) = Rig::with_nodes("quota", &[9]).await;
    rig.apply("a", pod("a")).await;
    rig.until_bound("a").await;
    rig.apply_as("resourcequotas", "compute", &quota("requests.cpu: 150m"))
        .await;
    rig.until_status("resourcequotas", "compute", "used:\n  requests.cpu: 100m")
        .await;
    rig.apply("b", pod("b")).await;
    let record = rig
        .until_record(
            "b",
            "exceeded quota: compute, requested: requests.cpu=100m, used: requests.cpu=100m, limited: requests.cpu=150m",
        )
        .await;
    assert_eq!(
        record.reasons[0].constraint,
        setpoint_apis::records::ConstraintKind::Quota
    );
    // Nor does a pod that names its node get round it.
    rig.apply("named", pod_with("named", "  nodeName: n1\n"))
        .await;
    rig.until_record("named", "exceeded quota: compute").await;
    rig.delete_pod("a").await;
    rig.until_bound("b").await;
    assert!(rig.get(&Key::Binding(pod_key("named"))).await.is_none());
    rig.apply_as("resourcequotas", "compute", &quota("requests.cpu: '1'"))
        .await;
    rig.until_bound("named").await;
    rig.until_status("resourcequotas", "compute", "requests.cpu: 200m")
        .await;
    let key = Key::Desired("resourcequotas", pod_key("compute"));
    rig.delete(&key).await;
    rig.until_gone(&Key::Actual("resourcequotas", pod_key("compute")))
        .await;
}

#[tokio::test]
async fn what_a_quota_limits_has_to_be_said() {
    let (rig, _s, _agents) = Rig::with_nodes("quota_said", &[9]).await;
    rig.apply_as("resourcequotas", "compute", &quota("limits.cpu: '4'"))
        .await;
    rig.until_status("resourcequotas", "compute", "limits.cpu: '0'")
        .await;
    rig.apply("a", pod("a")).await;
    rig.until_record("a", "failed quota: compute: must specify limits.cpu for: c")
        .await;
    rig.apply("b", pod("b").replace("requests:", "limits:"))
        .await;
    rig.until_bound("b").await;
    assert!(rig.get(&Key::Binding(pod_key("a"))).await.is_none());
}

#[tokio::test]
async fn a_flood_never_exceeds_a_quota() {
    let (rig, s, _agents) = Rig::with_nodes("quota_flood", &[50, 50]).await;
    s.stop().await;
    rig.apply_as("resourcequotas", "compute", &quota("pods: '7'"))
        .await;
    for n in 0..40 {
        let name = format!("p{n}");
        rig.apply(&name, pod(&name)).await;
    }
    let _s = rig.scheduler();
    rig.until_status("resourcequotas", "compute", "pods: '7'\nused:\n  pods: '7'")
        .await;
    rig.until_record(
        "p39",
        "exceeded quota: compute, requested: pods=1, used: pods=7, limited: pods=7",
    )
    .await;
    // The records are read from the store, and the bindings from the cache.
    rig.until("seven are bound", |v| {
        (v.bindings().len() >= 7).then_some(())
    })
    .await;
    assert_eq!(rig.cache.view().bindings().len(), 7);
}

#[tokio::test]
async fn a_profile_that_does_not_exist_is_waited_for_and_then_scores() {
    let (rig, _s, _agents) = Rig::with_nodes("profile", &[4, 8]).await;
    rig.apply("a", pod_with("a", "  schedulerName: batch\n"))
        .await;
    let record = rig
        .until_record("a", "there is no scheduler profile \"batch\"")
        .await;
    assert_eq!(record.reasons[0].detail, "batch");
    let profile = "{apiVersion: setpoint.dev/v1, kind: SchedulerProfile, metadata: {name: batch}, spec: {strategy: MostAllocated}}";
    rig.apply_as("schedulerprofiles", "batch", profile).await;
    let binding = rig.until_bound("a").await;
    // The smaller node is fuller with it.
    assert_eq!(binding.value.node, "n1");
    let decision = binding.value.decision.clone().unwrap();
    assert_eq!(decision.profile.as_deref(), Some("batch"));
    assert_eq!(decision.best[0].node, "n1");
    assert_eq!(decision.best.len(), 2);
    // One that does not parse any more stays what it was.
    rig.apply_as("schedulerprofiles", "batch", "spec: [").await;
    rig.apply("b", pod_with("b", "  schedulerName: batch\n"))
        .await;
    assert_eq!(rig.until_bound("b").await.value.node, "n1");
}

#[tokio::test]
async fn a_pod_that_must_be_near_others_is_placed_when_they_arrive() {
    let (rig, _s, _agents) = Rig::with_nodes("arrival", &[4, 4]).await;
    for name in ["n1", "n2"] {
        let node = format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: {name}, labels: {{zone: {name}}}}}, spec: {{}}}}"
        );
        rig.apply_as("nodes", name, &node).await;
    }
    let near = "  affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: db}}}]}}\n";
    rig.apply("web", pod_with("web", near)).await;
    rig.until_record("web", "pod affinity rules").await;
    rig.apply("db", pod("db").replace("app: x", "app: db"))
        .await;
    let db = rig.until_bound("db").await;
    assert_eq!(rig.until_bound("web").await.value.node, db.value.node);
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_does_not_keep_the_quota_from_those_that_do() {
    let (rig, s, _agents) = Rig::with_nodes("quota_nowhere", &[1]).await;
    s.stop().await;
    rig.apply_as("resourcequotas", "compute", &quota("requests.cpu: '4'"))
        .await;
    rig.apply("huge", pod("huge").replace("cpu: 100m", "cpu: 4"))
        .await;
    rig.apply("small", pod("small")).await;
    let _s = rig.scheduler();
    rig.until_bound("small").await;
    rig.until_record("huge", "0/1 nodes are available").await;
    // When it is tried again, there is too little of the quota left.
    rig.node("n2", 8).await;
    rig.until_record("huge", "exceeded quota: compute").await;
}

#[tokio::test]
async fn a_node_that_evicts_what_does_not_tolerate_it_gets_nothing_new() {
    let (rig, _s, _agents) = Rig::with_nodes("no_execute", &[4]).await;
    let node = "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {taints: [{key: gone, effect: NoExecute}]}}";
    rig.apply_as("nodes", "n1", node).await;
    rig.until("the taint is seen", |v| {
        let node = v
            .desired::<setpoint_apis::core::Node>()
            .get(&setpoint_apis::ObjectKey::cluster("n1"))?;
        (!node.value.spec.taints.is_empty()).then_some(())
    })
    .await;
    rig.apply("a", pod("a")).await;
    rig.until_record("a", "untolerated taint").await;
    // For as long as it says, it would stay there, and so it may go there.
    let some = "  tolerations: [{key: gone, operator: Exists, effect: NoExecute, tolerationSeconds: 60}]\n";
    rig.apply("b", pod_with("b", some)).await;
    rig.until_bound("b").await;
}

fn member(name: &str) -> String {
    pod_with(name, "  nodeSelector: {a: nobody}\n")
        .replace("{app: x}", "{setpoint.dev/pod-group: g}")
}

#[tokio::test]
async fn a_group_that_has_no_room_keeps_no_quota_from_others() {
    let (rig, _s, _agents) = Rig::with_nodes("quota_group", &[9]).await;
    rig.apply_as("resourcequotas", "compute", &quota("requests.cpu: 200m"))
        .await;
    rig.until_status("resourcequotas", "compute", "requests.cpu: '0'")
        .await;
    let large = pod("large").replace("cpu: 100m", "cpu: 200m");
    rig.apply("large", large).await;
    rig.until_bound("large").await;
    let group = "{apiVersion: setpoint.dev/v1, kind: PodGroup, metadata: {name: g, namespace: default}, spec: {minMember: 2}}";
    rig.apply_as("podgroups", "g", group).await;
    for name in ["g1", "g2"] {
        rig.apply(name, member(name)).await;
        rig.until_record(
            name,
            if name == "g1" {
                "members exist"
            } else {
                "quota"
            },
        )
        .await;
    }
    rig.apply("single", pod("single")).await;
    rig.until_record("single", "exceeded quota: compute").await;
    // The group is older: it is asked first, and can do nothing with it.
    rig.delete_pod("large").await;
    rig.until_bound("single").await;
}

#[tokio::test]
async fn a_member_whose_group_lost_another_is_not_placed_alone_when_there_is_quota_for_it() {
    let (rig, _s, _agents) = Rig::with_nodes("quota_alone", &[9]).await;
    rig.apply_as("resourcequotas", "compute", &quota("requests.cpu: 200m"))
        .await;
    rig.apply("large", pod("large").replace("cpu: 100m", "cpu: 200m"))
        .await;
    rig.until_bound("large").await;
    let group = "{apiVersion: setpoint.dev/v1, kind: PodGroup, metadata: {name: g, namespace: default}, spec: {minMember: 2}}";
    rig.apply_as("podgroups", "g", group).await;
    let member = |name: &str| pod(name).replace("{app: x}", "{setpoint.dev/pod-group: g}");
    rig.apply("g1", member("g1")).await;
    rig.apply("g2", member("g2")).await;
    rig.until_record("g1", "exceeded quota: compute").await;
    rig.delete_pod("g2").await;
    rig.until_record("g1", "1 of 2 members exist").await;
    rig.delete_pod("large").await;
    // Placed after everything that the quota let in before.
    rig.apply("later", pod("later")).await;
    rig.until_bound("later").await;
    assert!(rig.get(&Key::Binding(pod_key("g1"))).await.is_none());
    rig.apply("g2", member("g2")).await;
    rig.until_record("g2", "exceeded quota: compute").await;
    rig.delete_pod("later").await;
    rig.until_bound("g1").await;
    rig.until_bound("g2").await;
}

#[tokio::test]
async fn a_pod_that_ends_while_it_is_moved_keeps_its_part_of_the_quota() {
    let (rig, _s, agents) = Rig::with_nodes("quota_move", &[9]).await;
    rig.apply_as("resourcequotas", "compute", &quota("requests.cpu: 150m"))
        .await;
    rig.until_status("resourcequotas", "compute", "used:").await;
    rig.apply("a", pod_with("a", "  restartPolicy: Never\n"))
        .await;
    agents[0].run(&rig, "a").await;
    let _second = rig.node("n2", 9).await;
    rig.apply("b", pod("b")).await;
    rig.until_record("b", "exceeded quota: compute").await;
    let to = Intent {
        to: Some("n2".into()),
        ..Intent::default()
    };
    rig.ask("move", "a", &to).await;
    rig.until_withdrawn("a").await;
    // It is about to start on n2, as its agent has stopped it and not said so yet.
    agents[0].report("a", PodStage::Succeeded).await;
    rig.apply("probe", pod("probe").replace("cpu: 100m", "cpu: '0'"))
        .await;
    rig.until_bound("probe").await;
    assert!(rig.get(&Key::Binding(pod_key("b"))).await.is_none());
    agents[0].stopped("a").await;
    rig.until("a is on n2", |v| {
        let binding = &v.bindings().get(&pod_key("a"))?.value;
        (binding.node == "n2" && binding.withdrawn.is_none()).then_some(())
    })
    .await;
    rig.apply("later", pod("later").replace("cpu: 100m", "cpu: '0'"))
        .await;
    rig.until_bound("later").await;
    assert!(rig.get(&Key::Binding(pod_key("b"))).await.is_none());
    rig.delete_pod("a").await;
    rig.until_bound("b").await;
}

#[tokio::test]
async fn a_pod_that_has_ended_counts_no_more_when_it_is_deleted_and_its_node_says_nothing() {
    let (rig, _s, agents) = Rig::with_nodes("quota_ended", &[9]).await;
    rig.apply_as("resourcequotas", "compute", &quota("requests.cpu: 150m"))
        .await;
    rig.until_status("resourcequotas", "compute", "used:").await;
    rig.apply("a", pod_with("a", "  restartPolicy: Never\n"))
        .await;
    agents[0].run(&rig, "a").await;
    rig.until_status("resourcequotas", "compute", "requests.cpu: 100m")
        .await;
    agents[0].report("a", PodStage::Succeeded).await;
    rig.delete_pod("a").await;
    rig.until_withdrawn("a").await;
    rig.apply("b", pod("b")).await;
    rig.until_bound("b").await;
    assert!(rig.get(&Key::Binding(pod_key("a"))).await.is_some());
    agents[0].stopped("a").await;
    rig.until_unbound("a").await;
}
