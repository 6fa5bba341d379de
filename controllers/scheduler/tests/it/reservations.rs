//! Room that is kept for those who own it.

use setpoint_apis::Key;

use crate::rig::{Rig, pod, pod_key};

fn reservation(more: &str) -> String {
    format!(
        "{{apiVersion: setpoint.dev/v1, kind: Reservation, metadata: {{name: r, namespace: default}}, spec: {{owners: {{selector: {{matchLabels: {{app: train}}}}}}, resources: {{cpu: '1'}}{more}}}}}"
    )
}

fn whole(name: &str, app: &str) -> String {
    pod(name)
        .replace("cpu: 100m", "cpu: 1")
        .replace("app: x", &format!("app: {app}"))
}

#[tokio::test]
async fn only_owners_use_what_is_reserved_and_others_when_it_is_deleted() {
    let (rig, s, agents) = Rig::with_nodes("reserve", &[2]).await;
    rig.apply_as("reservations", "r", &reservation("")).await;
    let status = rig
        .until_status("reservations", "r", "reason: Reserved")
        .await;
    assert!(status.contains("name: n1"), "{status}");
    rig.apply("a", whole("a", "web")).await;
    rig.until_bound("a").await;
    rig.apply("b", whole("b", "web")).await;
    rig.until_record("b", "0/1 nodes are available").await;
    // A new leader keeps it.
    s.stop().await;
    let _s = rig.scheduler();
    rig.apply("c", whole("c", "web")).await;
    rig.until_record("c", "0/1 nodes are available").await;
    rig.apply("t", whole("t", "train")).await;
    rig.until_bound("t").await;
    agents[0].run(&rig, "t").await;
    rig.until_status("reservations", "r", "used:\n  cpu: '1'")
        .await;
    rig.delete_pod("t").await;
    rig.until_withdrawn("t").await;
    agents[0].stopped("t").await;
    rig.until_unbound("t").await;
    assert!(rig.get(&Key::Binding(pod_key("b"))).await.is_none());
    rig.delete(&Key::Desired("reservations", pod_key("r")))
        .await;
    rig.until_bound("b").await;
    rig.until_gone(&Key::Actual("reservations", pod_key("r")))
        .await;
}

#[tokio::test]
async fn a_reservation_without_a_place_says_so_and_one_whose_time_is_over_gives_it_back() {
    let (rig, _s, _agents) = Rig::with_nodes("reserve_ttl", &[1]).await;
    rig.apply_as("reservations", "r", &reservation(", count: 2"))
        .await;
    rig.until_status(
        "reservations",
        "r",
        "1 of 2 have no place: 0/1 nodes are available",
    )
    .await;
    rig.node("n2", 1).await;
    rig.until_status("reservations", "r", "reason: Reserved")
        .await;
    rig.apply("b", whole("b", "web")).await;
    rig.until_record("b", "0/2 nodes are available").await;
    rig.apply_as(
        "reservations",
        "r",
        &reservation(", count: 2, ttlSeconds: 2"),
    )
    .await;
    rig.until_bound("b").await;
    rig.until_status("reservations", "r", "type: Expired").await;
}

/// What stands in for a share while it looks for a place is no owner, not even where every pod of the namespace is one.
#[tokio::test]
async fn the_shares_of_a_reservation_for_every_pod_do_not_lie_on_each_other() {
    let (rig, _s, _agents) = Rig::with_nodes("reserve_all", &[1]).await;
    let all = reservation(", count: 2").replace("{matchLabels: {app: train}}", "{}");
    rig.apply_as("reservations", "r", &all).await;
    let status = rig
        .until_status("reservations", "r", "type: Reserved")
        .await;
    assert!(
        status.contains("1 of 2 have no place: 0/1 nodes are available"),
        "{status}"
    );
}

#[tokio::test]
async fn a_new_leader_places_nobody_before_it_has_looked_at_all_reservations() {
    let (rig, s, _agents) = Rig::with_nodes("reserve_many", &[2]).await;
    let named = |name: &str, cpu: &str| {
        reservation("")
            .replace("name: r,", &format!("name: {name},"))
            .replace("cpu: '1'", &format!("cpu: {cpu}"))
    };
    // More than are looked at in one turn; the last one keeps what a stranger would fit into.
    for n in 0..150 {
        let name = format!("r{n:03}");
        rig.apply_as("reservations", &name, &named(&name, "10m"))
            .await;
    }
    rig.apply_as("reservations", "z", &named("z", "500m")).await;
    rig.until_status("reservations", "z", "reason: Reserved")
        .await;
    s.stop().await;
    let stranger = pod("stranger").replace("cpu: 100m", "cpu: 400m");
    rig.apply("stranger", stranger).await;
    let _s = rig.scheduler();
    rig.until_record("stranger", "0/1 nodes are available")
        .await;
    assert!(rig.get(&Key::Binding(pod_key("stranger"))).await.is_none());
}
