//! Pods that are placed together or not at all.

use setpoint_apis::records::{Binding, PodStage};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::Txn;

use crate::rig::{Agent, Rig, pod, pod_key};

fn member(name: &str, group: &str) -> String {
    pod(name)
        .replace("cpu: 100m", "cpu: 1")
        .replace("{app: x}", &format!("{{setpoint.dev/pod-group: {group}}}"))
}

fn group(name: &str, min: u32) -> String {
    format!(
        "{{apiVersion: setpoint.dev/v1, kind: PodGroup, metadata: {{name: {name}, namespace: default}}, spec: {{minMember: {min}}}}}"
    )
}

/// What a leader leaves that ends after the first of several transactions.
async fn bind_by_hand(rig: &Rig, agent: &Agent, name: &str) {
    let document = rig
        .get(&Key::Desired("pods", pod_key(name)))
        .await
        .expect("a pod");
    let binding = Binding {
        node: agent.node.clone(),
        session: agent.session,
        placement: 1,
        pod_revision: document.mod_revision,
        bound_at: Timestamp::EPOCH,
        never_twice: false,
        requests: Default::default(),
        withdrawn: None,
        decision: None,
        ..Binding::default()
    };
    rig.put(&Key::Binding(pod_key(name)), document::encode(&binding))
        .await;
}

#[tokio::test]
async fn a_group_waits_for_its_members_and_for_room_for_all_of_them() {
    let (rig, _s, _agents) = Rig::with_nodes("group", &[1, 1]).await;
    rig.apply("a", member("a", "g")).await;
    rig.until_record("a", "there is no PodGroup of this name")
        .await;
    rig.apply_as("podgroups", "g", &group("g", 3)).await;
    let record = rig.until_record("a", "1 of 3 members exist").await;
    // In the words in which `setpoint why` works it out.
    assert_eq!(record.reasons[0].detail, "g: 1 of 3 members exist");
    rig.until_status("podgroups", "g", "NotEnoughMembers").await;
    rig.apply("b", member("b", "g")).await;
    rig.apply("c", member("c", "g")).await;
    let record = rig
        .until_record("c", "2 of the 3 pods that must run together fit")
        .await;
    assert_eq!(
        record.reasons[0].detail,
        "g: 2 of the 3 that must run together fit"
    );
    assert!(rig.cache.view().bindings().is_empty());
    rig.node("n3", 1).await;
    for name in ["a", "b", "c"] {
        rig.until_bound(name).await;
    }
    rig.until_status("podgroups", "g", "phase: Placed").await;
    // One more than needed is placed by itself.
    rig.apply("d", member("d", "g")).await;
    rig.until_record("d", "0/3 nodes are available").await;
    rig.node("n4", 1).await;
    rig.until_bound("d").await;
}

#[tokio::test]
async fn half_a_group_that_a_leader_left_is_completed_before_others_are_placed() {
    let rig = Rig::start("group_half").await;
    let n1 = rig.node("n1", 1).await;
    rig.node("n2", 1).await;
    rig.apply("older", pod("older").replace("cpu: 100m", "cpu: 1"))
        .await;
    rig.apply_as("podgroups", "g", &group("g", 2)).await;
    rig.apply("a", member("a", "g")).await;
    rig.apply("b", member("b", "g")).await;
    bind_by_hand(&rig, &n1, "a").await;
    let _s = rig.scheduler();
    assert_eq!(rig.until_bound("b").await.value.node, "n2");
    rig.until_record("older", "Insufficient cpu").await;
    assert_eq!(rig.until_bound("a").await.value.placement, 1);
}

#[tokio::test]
async fn two_halves_do_not_wait_for_one_another() {
    let rig = Rig::start("group_halves").await;
    let n1 = rig.node("n1", 1).await;
    let n2 = rig.node("n2", 1).await;
    for name in ["g", "h"] {
        rig.apply_as("podgroups", name, &group(name, 2)).await;
        for n in 1..=2 {
            let pod = format!("{name}{n}");
            rig.apply(&pod, member(&pod, name)).await;
        }
    }
    bind_by_hand(&rig, &n1, "g1").await;
    bind_by_hand(&rig, &n2, "h1").await;
    let _s = rig.scheduler();
    // One of them is taken apart, and the other one is completed with its room.
    let whole = rig
        .until("one group is whole and the other has nothing", |v| {
            let bound = |n: &str| v.bindings().contains(&pod_key(n));
            let both = |g: &str| bound(&format!("{g}1")) && bound(&format!("{g}2"));
            let none = |g: &str| !bound(&format!("{g}1")) && !bound(&format!("{g}2"));
            match () {
                () if both("g") && none("h") => Some("g"),
                () if both("h") && none("g") => Some("h"),
                () => None,
            }
        })
        .await;
    rig.until_status("podgroups", whole, "phase: Placed").await;
    let other = if whole == "g" { "h" } else { "g" };
    rig.until_record(&format!("{other}1"), "pods that must run together fit")
        .await;
    rig.node("n3", 2).await;
    rig.until_bound(&format!("{other}1")).await;
    rig.until_bound(&format!("{other}2")).await;
}

#[tokio::test]
async fn a_group_of_more_members_than_a_transaction_holds_is_bound_whole_over_two_leaders() {
    let (rig, s, _agents) = Rig::with_nodes("group_large", &[100, 100, 100]).await;
    s.stop().await;
    rig.apply_as("podgroups", "g", &group("g", 300)).await;
    let names: Vec<_> = (0..300).map(|n| format!("p{n}")).collect();
    for chunk in names.chunks(100) {
        let put = |txn: Txn, name: &String| {
            txn.put(
                rig.key(&Key::Desired("pods", pod_key(name))),
                member(name, "g"),
            )
        };
        rig.store
            .txn(chunk.iter().fold(Txn::new(), put))
            .await
            .expect("a put");
    }
    let first = rig.scheduler();
    rig.until("some are bound", |v| {
        (!v.bindings().is_empty()).then_some(())
    })
    .await;
    first.stop().await;
    let _s = rig.scheduler();
    rig.until("all are bound", |v| {
        (v.bindings().iter().count() == 300).then_some(())
    })
    .await;
    rig.until_status("podgroups", "g", "phase: Placed\nmembers: 300\nbound: 300")
        .await;
    let again = rig.cache.view();
    assert!(again.bindings().iter().all(|(_, b)| b.value.placement == 1));
}

#[tokio::test]
async fn a_new_leader_leaves_a_group_running_that_was_placed_and_lost_a_pod() {
    let (rig, first, _agents) = Rig::with_nodes("group_placed", &[3, 1]).await;
    let names = ["a", "b", "c", "d"];
    rig.apply_as("podgroups", "g", &group("g", 4)).await;
    for name in names {
        rig.apply(name, member(name, "g")).await;
    }
    rig.until_status("podgroups", "g", "phase: Placed\nmembers: 4\nbound: 4")
        .await;
    first.stop().await;
    // The small node dies, and what it ran is released; there is no other room.
    let on = |name: &&str| rig.cache.view().bindings().get(&pod_key(name)).cloned();
    let lost = names
        .into_iter()
        .find(|n| on(n).is_some_and(|b| b.value.node == "n2"))
        .expect("a pod on n2");
    let gone = [
        Key::WorkPod("n2", pod_key(lost)),
        Key::Binding(pod_key(lost)),
        Key::NodeAlive("n2"),
        Key::NodeStatus("n2"),
        Key::Desired("nodes", ObjectKey::cluster("n2")),
    ];
    for key in &gone {
        rig.delete(key).await;
    }
    rig.until("the node and its pod's binding are gone", |v| {
        let node = v.node_alive().contains(&ObjectKey::cluster("n2"));
        (!node && !v.bindings().contains(&pod_key(lost))).then_some(())
    })
    .await;
    let _second = rig.scheduler();
    rig.until_record(lost, "nodes are available").await;
    rig.until_status("podgroups", "g", "phase: Placed\nmembers: 4\nbound: 3")
        .await;
    rig.node("n3", 1).await;
    assert_eq!(rig.until_bound(lost).await.value.node, "n3");
    for name in names.into_iter().filter(|n| *n != lost) {
        let binding = rig.until_bound(name).await;
        assert_eq!(binding.value.placement, 1, "{name} was never taken back");
    }
}

#[tokio::test]
async fn a_member_that_has_ended_keeps_no_other_half_of_a_group_waiting() {
    let rig = Rig::start("group_ended").await;
    let n1 = rig.node("n1", 1).await;
    let n2 = rig.node("n2", 1).await;
    for name in ["g", "h"] {
        rig.apply_as("podgroups", name, &group(name, 3)).await;
        for n in 1..=3 {
            let pod = format!("{name}{n}");
            rig.apply(&pod, member(&pod, name)).await;
        }
    }
    bind_by_hand(&rig, &n1, "g1").await;
    bind_by_hand(&rig, &n2, "h1").await;
    n1.report("g1", PodStage::Succeeded).await;
    rig.until("its end is seen", |v| {
        v.pod_on("n1", &pod_key("g1")).map(|_| ())
    })
    .await;
    let _s = rig.scheduler();
    // Neither can be completed, and nothing takes back what has ended: so the other one goes, and makes room for this.
    rig.until_status("podgroups", "g", "phase: Placed").await;
    rig.until_unbound("h1").await;
    assert_eq!(rig.until_bound("g1").await.value.placement, 1);
}

const HIGH: &str =
    "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 1000}";

fn high(name: &str, group: &str) -> String {
    member(name, group).replace("spec:\n", "spec:\n  priorityClassName: high\n")
}

#[tokio::test]
async fn a_group_makes_others_leave_when_all_of_it_fits_then_and_for_nothing_less() {
    let (rig, _s, agents) = Rig::with_nodes("group_preempt", &[1, 1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    for name in ["low1", "low2"] {
        rig.apply(name, pod(name).replace("cpu: 100m", "cpu: 1"))
            .await;
    }
    for name in ["low1", "low2"] {
        let node = rig.until_bound(name).await.value.node.clone();
        let agent = agents.iter().find(|a| a.node == node).expect("an agent");
        agent.run(&rig, name).await;
    }
    // Three do not fit whoever leaves.
    rig.apply_as("podgroups", "g", &group("g", 3)).await;
    for name in ["a", "b", "c"] {
        rig.apply(name, high(name, "g")).await;
    }
    rig.until_record("c", "nodes are available").await;
    let bound = rig.until_bound("low1").await;
    assert!(bound.value.withdrawn.is_none());
    rig.apply_as("podgroups", "g", &group("g", 2)).await;
    for name in ["low1", "low2"] {
        assert_eq!(rig.until_withdrawn(name).await, "Preempted");
    }
    rig.until_record("a", "Others make room on").await;
    // What the first one leaves is kept for the group, and no half of the group is placed there.
    let node = bound.value.node.clone();
    let first = agents.iter().find(|a| a.node == node).expect("an agent");
    first.stopped("low1").await;
    rig.apply("between", pod("between")).await;
    rig.until_record("between", "Insufficient cpu").await;
    for name in ["a", "b", "c"] {
        assert!(!rig.cache.view().bindings().contains(&pod_key(name)));
    }
    let second = agents.iter().find(|a| a.node != node).expect("an agent");
    second.stopped("low2").await;
    rig.until_status("podgroups", "g", "phase: Placed\nmembers: 3\nbound: 2")
        .await;
    rig.until_record("low1", "Insufficient cpu").await;
    let view = rig.cache.view();
    assert!(!view.bindings().contains(&pod_key("between")));
}

#[tokio::test]
async fn who_was_to_leave_for_a_group_stays_when_that_lost_a_member() {
    let (rig, _s, agents) = Rig::with_nodes("group_preempt_lost", &[1, 1]).await;
    rig.apply_as("priorityclasses", "high", HIGH).await;
    rig.apply("low1", pod("low1").replace("cpu: 100m", "cpu: 1"))
        .await;
    let node = rig.until_bound("low1").await.value.node.clone();
    let agent = agents.iter().find(|a| a.node == node).expect("an agent");
    agent.run(&rig, "low1").await;
    rig.apply_as("podgroups", "g", &group("g", 2)).await;
    for name in ["a", "b"] {
        rig.apply(name, high(name, "g")).await;
    }
    rig.until_withdrawn("low1").await;
    // The other node is free, and kept all the same.
    rig.apply("small", pod("small")).await;
    rig.until_record("small", "Insufficient cpu").await;
    rig.delete_pod("b").await;
    rig.until_bound("small").await;
    rig.until_record("a", "1 of 2 members exist").await;
    agent.stopped("low1").await;
    rig.until_bound("low1").await;
}
