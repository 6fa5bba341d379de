//! DaemonSets while controllers die at any write, caches are stale, and nodes are lost in the middle of a rollout.

use serde_json::{Value, json};
use setpoint_sim::{Report, Scenario};

use crate::common::run_well;

/// Runs five nodes under two processes of controllers; in the end each node that is up has its pod.
fn check(seed: u64, timeline: Value) -> Report {
    let scenario: Scenario = serde_json::from_value(json!({
        "metadata": {"name": "daemons"},
        "spec": {
            "controllers": {"replicas": 2},
            "nodes": [{"name": "node", "count": 5}],
            "timeline": timeline,
        },
    }))
    .unwrap();
    run_well(&scenario, seed, None)
}

fn daemon_set(version: u32, rolling: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "daemon", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "daemon"}},
            "updateStrategy": {"rollingUpdate": rolling},
            "template": {
                "metadata": {"labels": {"app": "daemon"}},
                "spec": {"containers": [{"name": "main", "image": format!("example/daemon:{version}")}]},
            },
        },
    })
}

/// One pod missing at a time; or two nodes with one pod more.
fn strategies() -> [Value; 2] {
    [
        json!({"maxUnavailable": 1}),
        json!({"maxUnavailable": 0, "maxSurge": 2}),
    ]
}

#[test]
fn controllers_that_die_in_the_middle_of_a_rollout_are_succeeded() {
    let lossy = json!({"lostRequests": 0.02, "lostAnswers": 0.02, "lateWrites": 0.02, "brokenWatches": 0.02});
    for (seed, strategy) in (0..3).flat_map(|seed| strategies().map(|s| (seed, s))) {
        let at = |millis: u64| format!("{}ms", millis + seed * 137);
        let report = check(
            seed,
            json!([
                {"at": "1s", "apply": [daemon_set(1, strategy.clone())]},
                {"at": "9s", "for": "30s", "network": lossy},
                {"at": "10s", "apply": [daemon_set(2, strategy.clone())]},
                {"at": at(10_050), "for": "8s", "crash": ["controllers-0"]},
                {"at": at(11_200), "for": "12s", "freeze": ["controllers-1"]},
                {"at": at(26_000), "for": "3s", "crash": ["controllers-0", "controllers-1"]},
                {"at": at(31_000), "apply": [daemon_set(3, strategy)]},
            ]),
        );
        assert_eq!(report.pods, 5, "{report}");
    }
}

#[test]
fn nodes_that_are_lost_in_the_middle_of_a_rollout_get_their_pod_when_they_are_back() {
    for (seed, strategy) in (0..3).flat_map(|seed| strategies().map(|s| (seed, s))) {
        let at = |millis: u64| format!("{}ms", millis + seed * 211);
        let report = check(
            seed,
            json!([
                {"at": "1s", "apply": [daemon_set(1, strategy.clone())]},
                {"at": "10s", "apply": [daemon_set(2, strategy.clone())]},
                {"at": at(10_100), "for": "40s", "powerOff": ["node-1"]},
                {"at": at(11_000), "for": "25s", "cut": ["node-2"]},
                {"at": at(12_000), "for": "5s", "crash": ["node-3"]},
                {"at": "20s", "cordon": ["node-4"]},
                // While two are away.
                {"at": "28s", "apply": [daemon_set(3, strategy)]},
                {"at": at(60_000), "for": "20s", "corrupt": ["nodes/node-0"]},
            ]),
        );
        assert_eq!(report.pods, 5, "{report}");
    }
}

#[test]
fn a_node_that_never_comes_back_holds_nobody_up() {
    for seed in 0..2 {
        let report = check(
            seed,
            json!([
                {"at": "1s", "apply": [daemon_set(1, json!({"maxUnavailable": 1}))]},
                {"at": "10s", "powerOff": ["node-1"]},
                {"at": "30s", "apply": [daemon_set(2, json!({"maxUnavailable": 1}))]},
            ]),
        );
        assert_eq!(report.pods, 4, "{report}");
    }
}
