//! Broken documents, take-overs, an etcd that dies, and quiet.

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::records::{Intent, PodStage};
use setpoint_apis::{Key, ObjectKey};
use setpoint_scheduler::Options;
use setpoint_store::Txn;
use setpoint_store::testing::TestEtcd;

use crate::rig::{Rig, pod, pod_key, pod_with};

#[tokio::test]
async fn what_does_not_parse_is_frozen_and_disturbs_no_other() {
    let (rig, _s, agents) = Rig::with_nodes("frozen", &[1]).await;
    let (big, small) = (pod("a").replace("cpu: 100m", "cpu: 900m"), |name: &str| {
        pod(name)
    });
    rig.apply("a", big.clone()).await;
    agents[0].run(&rig, "a").await;
    let bound = rig.until_bound("a").await;

    // Broken documents in every tree that the scheduler reads.
    rig.apply("a", "spec: [broken").await;
    rig.apply("never-good", "{{{").await;
    // At once, so that it is not placed before.
    let ghost = Txn::new()
        .put(rig.keyspace.build(&Key::Binding(pod_key("ghost"))), ": : :")
        .put(
            rig.keyspace.build(&Key::Desired("pods", pod_key("ghost"))),
            small("ghost"),
        );
    rig.store.txn(ghost).await.unwrap();
    rig.put(&Key::Actual("pods", pod_key("a")), "[[[").await;
    rig.put(&Key::NodeStatus("n9"), "- 1").await;
    rig.put(&Key::NodeAlive("n8"), "\u{0}").await;
    rig.put(&Key::Health("n7"), "state: Sideways").await;
    rig.apply("b", small("b")).await;
    rig.apply("c", small("c")).await;

    rig.until_bound("b").await;
    rig.until_record("c", "1 Insufficient cpu").await;
    assert_eq!(
        rig.until_bound("a").await,
        bound,
        "neither withdrawn nor written again"
    );
    assert_eq!(rig.work("n1", "a").await.unwrap().2, bound.mod_revision);
    assert!(
        rig.work("n1", "ghost").await.is_none(),
        "a binding that cannot be read is a binding"
    );

    // A node that comes to an invalid document keeps what runs there.
    rig.put(&Key::Desired("nodes", ObjectKey::cluster("n1")), "spec: 7")
        .await;
    rig.delete_pod("b").await;
    rig.until_bound("c").await;

    // Mended, it goes on where it was.
    rig.apply("a", big.replace("app: x", "app: y")).await;
    rig.until("the work follows", |v| {
        let b = v.bindings().get(&pod_key("a"))?;
        (b.value.pod_revision > bound.value.pod_revision && b.value.placement == 1).then_some(())
    })
    .await;
    rig.delete(&Key::Binding(pod_key("ghost"))).await;
    rig.delete_pod("a").await;
    assert_eq!(rig.until_withdrawn("a").await, "Deleted");
    agents[0].stopped("a").await;
    rig.until_bound("ghost").await;
}

#[tokio::test]
async fn a_frozen_pod_is_not_released() {
    let (rig, _s, agents) = Rig::with_nodes("frozen-release", &[1]).await;
    rig.apply("a", pod("a")).await;
    agents[0].run(&rig, "a").await;
    rig.apply("a", "spec: [broken").await;
    agents[0].lose().await;
    let ask = Intent {
        node: Some("n1".into()),
        session: Some(agents[0].session),
        ..Intent::default()
    };
    rig.ask("release", "a", &ask).await;
    let _n2 = rig.node("n2", 1).await;
    rig.settle("probe").await;
    assert_eq!(rig.until_bound("a").await.value.node, "n1");
    rig.apply("a", pod("a")).await;
    rig.until("it is released and bound elsewhere", |v| {
        (v.bindings().get(&pod_key("a"))?.value.node == "n2").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_new_leader_changes_nothing_that_is_right_and_repairs_what_is_not() {
    let (rig, s, agents) = Rig::with_nodes("takeover", &[2, 2]).await;
    for name in ["a", "b", "c"] {
        rig.apply(name, pod(name)).await;
        rig.until_bound(name).await;
    }
    rig.apply("waits", pod("waits").replace("cpu: 100m", "cpu: 9"))
        .await;
    rig.until_record("waits", "Insufficient cpu").await;
    let on = |name: &'static str| {
        let view = rig.cache.view();
        view.bindings()
            .get(&pod_key(name))
            .unwrap()
            .value
            .node
            .clone()
    };
    let node_of_b = on("b");
    let agent_of_b = agents.iter().find(|a| a.node == node_of_b).unwrap();
    agent_of_b.run(&rig, "b").await;
    s.stop().await;

    let s = rig.scheduler();
    rig.settle("probe").await;
    let before = rig.state().await;
    s.stop().await;
    let s = rig.scheduler();
    rig.settle("probe").await;
    let cut = |state: &str| {
        // All but who leads.
        state
            .split("--- ")
            .filter(|k| !k.contains("leaders/"))
            .collect::<String>()
    };
    assert_eq!(
        cut(&rig.state().await),
        cut(&before),
        "a second leader finds nothing to do"
    );
    s.stop().await;

    // While nobody leads: work vanishes, work appears that nobody is bound to, a claimed pod is deleted, a record is left.
    let node_of_a = on("a");
    rig.delete(&Key::WorkPod(&node_of_a, pod_key("a"))).await;
    rig.put(&Key::WorkPod("n1", pod_key("stray")), "x").await;
    rig.put(&Key::WorkPod("gone", pod_key("c")), "x").await;
    rig.put(&Key::Actual("pods", pod_key("deleted")), "placements: 1\n")
        .await;
    rig.delete_pod("b").await;
    let _s = rig.scheduler();
    rig.until_key(
        "the work is back",
        &Key::WorkPod(&node_of_a, pod_key("a")),
        |v| v.map(|_| ()),
    )
    .await;
    rig.until_gone(&Key::WorkPod("n1", pod_key("stray"))).await;
    rig.until_gone(&Key::WorkPod("gone", pod_key("c"))).await;
    rig.until_gone(&Key::Actual("pods", pod_key("deleted")))
        .await;
    rig.until_withdrawn("b").await;
    agent_of_b.stopped("b").await;
    rig.until_unbound("b").await;
}

#[tokio::test]
async fn a_full_pass_repairs_what_others_did_to_the_schedulers_keys() {
    let (rig, s, _agents) = Rig::with_nodes("repair", &[2]).await;
    s.stop().await;
    let _s = rig.scheduler_with(Options {
        full_pass: Duration::from_millis(200),
        ..Options::new(1)
    });
    rig.put(
        &Key::Desired("configmaps", pod_key("settings")),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n",
    )
    .await;
    rig.apply(
        "a",
        pod_with("a", "  volumes: [{name: v, configMap: {name: settings}}]\n"),
    )
    .await;
    rig.until_bound("a").await;
    let content = Key::WorkContent("n1", "configmaps", pod_key("settings"));
    rig.until_key("the content is there", &content, |v| v.map(|_| ()))
        .await;
    let work = Key::WorkPod("n1", pod_key("a"));
    for broken in [&work, &content] {
        rig.delete(broken).await;
        rig.until_key("it is back", broken, |v| v.map(|_| ())).await;
        rig.put(broken, "broken").await;
        rig.until_key("it is right again", broken, |v| {
            v.filter(|v| *v != "broken").map(|_| ())
        })
        .await;
    }
    rig.put(&Key::WorkPod("n7", pod_key("stray")), "x").await;
    rig.put(&Key::WorkContent("n7", "secrets", pod_key("stray")), "x")
        .await;
    rig.put(&Key::Actual("pods", pod_key("stray")), "x").await;
    rig.until_gone(&Key::WorkPod("n7", pod_key("stray"))).await;
    rig.until_gone(&Key::WorkContent("n7", "secrets", pod_key("stray")))
        .await;
    rig.until_gone(&Key::Actual("pods", pod_key("stray"))).await;
}

#[tokio::test]
async fn a_quiet_cluster_is_not_written_to() {
    let (rig, s, agents) = Rig::with_nodes("quiet", &[2]).await;
    // Full passes all the time find nothing.
    s.stop().await;
    let _s = rig.scheduler_with(Options {
        full_pass: Duration::from_millis(20),
        ..Options::new(1)
    });
    rig.apply("a", pod("a")).await;
    agents[0].run(&rig, "a").await;
    rig.apply("waits", pod("waits").replace("cpu: 100m", "cpu: 9"))
        .await;
    rig.until_record("waits", "Insufficient cpu").await;
    agents[0].report("a", PodStage::Running).await;
    rig.settle("probe").await;
    let revisions = |state: &TestEtcd| {
        let all = state.etcdctl(&[
            "get",
            "--prefix",
            &format!("{}/", rig.keyspace),
            "-w",
            "fields",
        ]);
        let of = |field: &str| {
            let field = format!("\"{field}\" : ");
            let lines = all.lines().filter_map(move |l| l.strip_prefix(&field));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut pairs: Vec<_> = of("Key").into_iter().zip(of("ModRevision")).collect();
        // A leader that was held up may have to renew its claim.
        pairs.retain(|(key, _)| !key.contains("/leaders/"));
        assert!(!pairs.is_empty(), "{all}");
        pairs
    };
    let before = revisions(&rig.etcd);
    // What is looked at again for no reason does not lead to a write: the same document, the same status.
    let status = rig.get(&Key::NodeStatus("n1")).await.unwrap();
    rig.put(
        &Key::NodeStatus("n1"),
        String::from_utf8(status.value.to_vec()).unwrap(),
    )
    .await;
    rig.settle("probe").await;
    let after = revisions(&rig.etcd);
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert_eq!(
        (before.len(), changed),
        (after.len(), 1),
        "only the status itself"
    );
}

#[tokio::test]
async fn an_etcd_that_dies_in_the_middle_loses_no_pod_and_binds_none_twice() {
    let etcd = Arc::new(TestEtcd::start().await);
    let rig = Rig::over(etcd.clone(), "restart").await;
    for n in 0..5 {
        rig.node(&format!("n{n}"), 10).await;
    }
    let _s = rig.scheduler();
    let mut applied = 0;
    for round in 0..3 {
        for _ in 0..100 {
            rig.apply(&format!("p{applied}"), pod(&format!("p{applied}")))
                .await;
            applied += 1;
        }
        // In the middle of binding, with outcomes that nobody learns.
        if round < 2 {
            etcd.restart().await;
        }
    }
    rig.until("all are bound", |v| {
        (v.bindings().len() == applied).then_some(())
    })
    .await;
    let mut on = std::collections::BTreeMap::<String, usize>::new();
    for (pod, binding) in rig.cache.view().bindings().iter() {
        *on.entry(binding.value.node.clone()).or_default() += 1;
        assert_eq!(binding.value.placement, 1, "{pod}");
    }
    assert!(on.values().all(|n| *n <= 100), "{on:?}");
    for n in 0..applied {
        let name = format!("p{n}");
        let node = rig.until_bound(&name).await.value.node.clone();
        assert!(rig.work(&node, &name).await.is_some(), "{name}");
    }
    let all = rig.state().await;
    assert_eq!(
        all.matches("/work/").count(),
        applied,
        "no work without a binding"
    );
}
