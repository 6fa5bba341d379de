//! Which node, why none, and many pods.

use std::collections::BTreeMap;

use setpoint_apis::records::ScorePart;
use setpoint_apis::{Key, ObjectKey};
use setpoint_store::Txn;

use crate::rig::{Rig, pod, pod_key, pod_with};

#[tokio::test]
async fn a_pod_that_fits_nowhere_says_why_and_is_bound_when_a_node_comes() {
    let (rig, _s, _agents) = Rig::with_nodes("unschedulable", &[1, 1]).await;
    rig.apply("big", pod("big").replace("cpu: 100m", "cpu: 2"))
        .await;
    rig.apply("web", pod("web").replace("image: host", "image: nginx"))
        .await;
    let record = rig
        .until_record("big", "0/2 nodes are available: 2 Insufficient cpu.")
        .await;
    let condition = &record.conditions[0];
    assert_eq!(
        (
            condition.type_.as_str(),
            condition.status.as_str(),
            condition.reason.as_deref()
        ),
        ("PodScheduled", "False", Some("Unschedulable"))
    );
    rig.until_record(
        "web",
        "image \"nginx\" needs a node that runs container images; none of 2 does.",
    )
    .await;
    rig.node("n3", 4).await;
    assert_eq!(rig.until_bound("big").await.value.node, "n3");
    assert!(
        rig.get(&Key::Actual("pods", pod_key("big")))
            .await
            .is_none()
    );
    rig.until_record("web", "0/3 nodes are available").await;
    rig.delete_pod("web").await;
    rig.until_gone(&Key::Actual("pods", pod_key("web"))).await;
}

#[tokio::test]
async fn room_that_becomes_free_is_used_by_who_waits_longest() {
    let (rig, _s, _agents) = Rig::with_nodes("room", &[1]).await;
    let whole = |name: &str| pod(name).replace("cpu: 100m", "cpu: 1");
    for name in ["a", "b", "c"] {
        rig.apply(name, whole(name)).await;
    }
    rig.until_bound("a").await;
    rig.until_record("c", "Insufficient cpu").await;
    rig.delete_pod("a").await;
    rig.until_bound("b").await;
    rig.delete_pod("b").await;
    rig.until_bound("c").await;
}

#[tokio::test]
async fn cordons_labels_taints_and_sessions_count_as_they_change() {
    let (rig, _s, agents) = Rig::with_nodes("filters", &[4]).await;
    let node = |more: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n1, labels: {{disk: ssd}}}}\nspec: {{{more}}}\n"
        )
    };
    let n1 = Key::Desired("nodes", ObjectKey::cluster("n1"));
    rig.put(&n1, node("unschedulable: true")).await;
    rig.until("the cordon is seen", |v| {
        let node = v
            .desired::<setpoint_apis::core::Node>()
            .get(&ObjectKey::cluster("n1"))?;
        (node.value.spec.unschedulable == Some(true)).then_some(())
    })
    .await;
    rig.apply("a", pod_with("a", "  nodeSelector: {disk: ssd}\n"))
        .await;
    rig.until_record("a", "1 node(s) were unschedulable").await;
    rig.put(
        &n1,
        node("taints: [{key: dedicated, value: gpu, effect: NoSchedule}]"),
    )
    .await;
    rig.until_record("a", "1 node(s) had untolerated taint {dedicated: gpu}")
        .await;
    agents[0].lose().await;
    rig.put(&n1, node("")).await;
    rig.until_record("a", "1 node(s) were unreachable").await;
    let mut agents = agents;
    agents[0].begin_session().await;
    assert_eq!(rig.until_bound("a").await.value.session, agents[0].session);
}

#[tokio::test]
async fn scheduling_gates_hold_a_pod_back() {
    let (rig, _s, _agents) = Rig::with_nodes("gates", &[4]).await;
    rig.apply("a", pod_with("a", "  schedulingGates: [{name: x}]\n"))
        .await;
    rig.until_record("a", "scheduling gates").await;
    rig.apply("a", pod("a")).await;
    rig.until_bound("a").await;
}

#[tokio::test]
async fn many_pods_are_bound_each_once_and_no_node_is_over_full() {
    let (rig, s, _agents) = Rig::with_nodes("many", &[10; 20]).await;
    s.stop().await;
    // 20 nodes of 10 cpus take 2,000 pods of 0.1; 100 more wait.
    let names: Vec<_> = (0..2_100).map(|n| format!("p{n}")).collect();
    for chunk in names.chunks(100) {
        let put = |txn: Txn, name: &String| {
            txn.put(rig.key(&Key::Desired("pods", pod_key(name))), pod(name))
        };
        rig.store
            .txn(chunk.iter().fold(Txn::new(), put))
            .await
            .expect("a put");
    }
    let _s = rig.scheduler();
    let bound = |v: &setpoint_runtime::View<'_>| {
        let mut counts = BTreeMap::<String, usize>::new();
        for (_, b) in v.bindings().iter() {
            *counts.entry(b.value.node.clone()).or_default() += 1;
        }
        counts
    };
    let counts = rig
        .until("2,000 are bound", |v| {
            let counts = bound(v);
            (counts.values().sum::<usize>() == 2_000).then_some(counts)
        })
        .await;
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [100; 20]);
    rig.until_record("p2099", "0/20 nodes are available: 20 Insufficient cpu.")
        .await;
    for name in &names[..100] {
        rig.delete_pod(name).await;
    }
    rig.until("the others are bound", |v| {
        (bound(v).values().sum::<usize>() == 2_000 && v.bindings().contains(&pod_key("p2099")))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_goes_where_its_image_is_and_away_from_what_is_measured_there() {
    let (rig, _s, agents) = Rig::with_nodes("images", &[4, 4]).await;
    let reports = |more: String| {
        format!(
            "allocatable: {{cpu: '4', memory: 8Gi, pods: '1000'}}\ncapacity: {{cpu: '4'}}\ndrivers: [cri]\n{more}"
        )
    };
    let images = "images: [{names: ['registry.example/app:1'], sizeBytes: 900000000}]\n";
    for (node, more) in [("n1", String::new()), ("n2", images.to_owned())] {
        rig.put(&Key::NodeStatus(node), reports(more)).await;
    }
    let seen = |usage: bool| {
        move |v: &setpoint_runtime::View<'_>| {
            let status = v.node_status().get(&ObjectKey::cluster("n2"))?;
            let known = !status.value.images.is_empty() && status.value.usage.is_empty() != usage;
            known.then_some(())
        }
    };
    rig.until("the images are seen", seen(false)).await;
    let app = |name: &str| pod(name).replace("image: host", "image: registry.example/app:1");
    rig.apply("a", app("a")).await;
    let binding = rig.until_bound("a").await;
    assert_eq!(binding.value.node, "n2");
    let decision = binding.value.decision.clone().expect("a decision");
    let best = &decision.best[0];
    assert!(best.parts.get(ScorePart::ImageLocality) > 0, "{best:?}");

    // Half of the nodes have the image, so that it is worth less than a busy node costs.
    let busy =
        |session: i64| format!("{images}usage: {{cpu: '4', memory: 8Gi}}\nsession: {session}\n");
    let report = reports(busy(agents[1].session));
    rig.put(&Key::NodeStatus("n2"), report).await;
    rig.until("the load is seen", seen(true)).await;
    rig.apply("b", app("b")).await;
    assert_eq!(rig.until_bound("b").await.value.node, "n1");

    // What was measured under a former session is not believed.
    let report = reports(busy(agents[1].session - 1));
    rig.put(&Key::NodeStatus("n2"), report).await;
    let former = agents[1].session - 1;
    rig.until("the other session is seen", |v| {
        let status = v.node_status().get(&ObjectKey::cluster("n2"))?;
        (status.value.session == Some(former)).then_some(())
    })
    .await;
    rig.apply("c", app("c")).await;
    assert_eq!(rig.until_bound("c").await.value.node, "n2");
}
