//! Pods that are withdrawn with a time to stop that is not their own.

use setpoint_apis::records::StopOrder;

use super::*;

/// A pod is taken back with an order to stop it within so many seconds, which is about one of its placements.
async fn take_back_within(w: &World, name: &str, placement: u32, seconds: i64) {
    let order = StopOrder {
        placement,
        grace_seconds: seconds,
    };
    let txn = Txn::new()
        .delete(w.key(&Key::WorkPod(NODE, pod_key(name))))
        .put(
            w.key(&Key::WorkStop(NODE, pod_key(name))),
            document::encode(&order),
        );
    w.txn(txn).await;
}

#[tokio::test]
async fn a_withdrawn_pod_stops_within_the_time_that_was_asked_for_and_not_its_own() {
    let w = World::new("stops").await;
    let _agent = w.agent();
    let give = async |name: &str, grace: u32, script: String| {
        let command =
            format!("containers: [{{name: c, image: host, command: [sh, -c, \"{script}\"]}}]");
        let (key, value) = w.work(name, 1, &command);
        let own = format!("terminationGracePeriodSeconds: {grace}");
        w.put(
            &key,
            value.replace("terminationGracePeriodSeconds: 1", &own),
        )
        .await;
    };
    // One that does not listen, and would be given ten minutes.
    let deaf = w.f.path("deaf");
    let script = format!(
        "trap '' TERM; touch {}; while :; do sleep 0.05; done",
        deaf.display()
    );
    give("deaf", 600, script).await;
    // One that would be killed at once, and needs a moment.
    let (begun, ended) = (w.f.path("begun"), w.f.path("ended"));
    let script = format!(
        "trap 'sleep 0.2; touch {}; exit 0' TERM; touch {}; while :; do sleep 0.05; done",
        ended.display(),
        begun.display()
    );
    give("slow", 0, script).await;
    // Of an order about another placement nothing is taken.
    let (other, kept) = (w.f.path("other"), w.f.path("kept"));
    let script = format!(
        "trap 'sleep 0.2; touch {}; exit 0' TERM; touch {}; while :; do sleep 0.05; done",
        kept.display(),
        other.display()
    );
    give("other", 600, script).await;
    for (name, file) in [("deaf", &deaf), ("slow", &begun), ("other", &other)] {
        w.ready(name).await;
        eventually("its traps are set", || file.exists()).await;
    }
    take_back_within(&w, "deaf", 1, 0).await;
    take_back_within(&w, "slow", 1, 600).await;
    take_back_within(&w, "other", 7, 0).await;
    for name in ["deaf", "slow", "other"] {
        w.gone(name).await;
    }
    assert!(ended.exists(), "it was given its time");
    assert!(kept.exists(), "it was given its own time");
}
