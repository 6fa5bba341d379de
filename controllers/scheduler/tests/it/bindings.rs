//! Bindings that do not parse: written again where it can be told where the pod is, and left alone where it cannot.

use setpoint_apis::records::{PodActual, PodStage};
use setpoint_apis::{Key, document};

use crate::rig::{Agent, Rig, pod, pod_key};

const BROKEN: &str = "node: [";

/// Breaks a binding in a way that leaves nothing of it: not even what this process had read before.
async fn lose_binding(rig: &Rig, name: &str) {
    rig.delete(&Key::Binding(pod_key(name))).await;
    let at = rig.put(&Key::Binding(pod_key(name)), BROKEN).await;
    rig.until("the broken binding is seen", |v| {
        let entry = v.bindings().entry(&pod_key(name))?;
        // What is there before may still be that of which something is left.
        (entry.mod_revision() == at.0).then(|| assert!(entry.last_good().is_none()))
    })
    .await;
}

/// Goes through the end of a pod that runs on a node.
async fn ends(rig: &Rig, agent: &Agent, name: &str) {
    rig.delete_pod(name).await;
    assert_eq!(rig.until_withdrawn(name).await, "Deleted");
    rig.until_gone(&Key::WorkPod(&agent.node, pod_key(name)))
        .await;
    agent.stopped(name).await;
    rig.until_unbound(name).await;
}

#[tokio::test]
async fn a_binding_that_breaks_is_written_again_and_its_pod_goes_on() {
    let (rig, s, agents) = Rig::with_nodes("broken-binding", &[1]).await;
    for name in ["a", "b"] {
        rig.apply(name, pod(name)).await;
        agents[0].run(&rig, name).await;
        let bound = rig.until_bound(name).await;
        let broken = rig.put(&Key::Binding(pod_key(name)), BROKEN).await;
        let again = rig
            .until("it is written again", |v| {
                let binding = v.bindings().get(&pod_key(name))?;
                (binding.mod_revision > broken.0).then(|| binding.clone())
            })
            .await;
        assert_eq!(again.value, bound.value);
    }
    ends(&rig, &agents[0], "a").await;

    // Broken and deleted while nobody leads.
    s.stop().await;
    rig.put(&Key::Binding(pod_key("b")), BROKEN).await;
    rig.delete_pod("b").await;
    let _s = rig.scheduler();
    ends(&rig, &agents[0], "b").await;
}

#[tokio::test]
async fn a_binding_that_was_never_read_is_made_from_where_the_pod_is() {
    let (rig, s, agents) = Rig::with_nodes("lost-binding", &[1]).await;
    for name in ["runs", "goes", "stops", "begins"] {
        rig.apply(name, pod(name)).await;
        rig.until_bound(name).await;
    }
    for name in ["runs", "goes", "stops"] {
        agents[0].run(&rig, name).await;
    }
    let bound = rig.until_bound("runs").await;
    rig.delete_pod("stops").await;
    rig.until_withdrawn("stops").await;
    s.stop().await;
    for name in ["runs", "goes", "stops", "begins"] {
        lose_binding(&rig, name).await;
    }
    rig.delete_pod("goes").await;

    let _s = rig.scheduler();
    let again = rig.until_bound("runs").await;
    let known = |b: &setpoint_apis::records::Binding| {
        (b.node.clone(), b.session, b.placement, b.pod_revision)
    };
    assert_eq!(known(&again.value), known(&bound.value));
    ends(&rig, &agents[0], "runs").await;
    ends(&rig, &agents[0], "goes").await;
    // Its work was gone already.
    rig.until_withdrawn("stops").await;
    agents[0].stopped("stops").await;
    rig.until_unbound("stops").await;
    // No agent had begun it: it is placed anew.
    rig.until_bound("begins").await;
    agents[0].run(&rig, "begins").await;
    ends(&rig, &agents[0], "begins").await;
}

#[tokio::test]
async fn where_it_cannot_be_told_where_a_pod_is_the_way_out_is_said_and_works() {
    let rig = Rig::start("stuck-binding").await;
    let agents = [rig.node("n1", 1).await, rig.node("n2", 1).await];
    for agent in &agents {
        let report = PodActual {
            placement: 1,
            uid: "u".into(),
            stage: PodStage::Running,
            ..PodActual::default()
        };
        rig.put(
            &Key::NodePod(&agent.node, pod_key("a")),
            document::encode(&report),
        )
        .await;
    }
    rig.put(&Key::WorkPod("n1", pod_key("a")), "x").await;
    let key = Key::Binding(pod_key("a"));
    rig.put(&key, BROKEN).await;
    rig.put(&Key::Binding(pod_key("nowhere")), BROKEN).await;
    rig.apply("nowhere", pod("nowhere")).await;

    let _s = rig.telling_scheduler();
    for (name, what) in [
        ("a", "each of n1, n2 has work"),
        ("nowhere", "no node has work"),
    ] {
        let event = rig.until_event(&["BindingInvalid", name, what]).await;
        let remedy = format!("etcdctl del {}/bindings/default/{name}", rig.keyspace);
        assert!(event.contains(&remedy), "{event}");
    }
    rig.settle("probe").await;
    let binding = rig.get(&key).await.unwrap();
    assert_eq!(&binding.value[..], BROKEN.as_bytes());
    assert!(rig.get(&Key::WorkPod("n1", pod_key("a"))).await.is_some());

    // As the event says.
    rig.delete(&Key::Binding(pod_key("nowhere"))).await;
    rig.until_bound("nowhere").await;
    rig.delete(&key).await;
    rig.until_gone(&Key::WorkPod("n1", pod_key("a"))).await;
    rig.until_unbound("a").await;
}
