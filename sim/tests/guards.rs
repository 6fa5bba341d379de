//! Scenarios that are directed at one guard each: what the standard ones hit only now and then.

use serde_json::{Value, json};
use setpoint_sim::{Options, Report, Scenario, run};

/// Runs three nodes under controllers that have no standby, with these events; nothing may be wrong.
fn check(seed: u64, timeline: Value) -> Report {
    let scenario: Scenario = serde_json::from_value(json!({
        "metadata": {"name": "directed"},
        "spec": {
            "controllers": {"replicas": 1},
            "nodes": [{"name": "node", "count": 3}],
            "timeline": timeline,
        },
    }))
    .unwrap();
    let report = run(
        &scenario,
        seed,
        Options {
            trace: true,
            ..Options::default()
        },
    )
    .unwrap();
    assert!(report.is_good(), "{report}");
    report
}

fn spec() -> Value {
    json!({"containers": [{"name": "main", "image": "example/web:1"}]})
}

#[test]
fn what_happened_behind_a_compaction_is_learned_by_listing() {
    let web = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec()},
        },
    });
    for seed in 0..3 {
        let report = check(
            seed,
            json!([
                {"at": "1s", "apply": [web]},
                // Longer than a watch waits for a sign of life.
                {"at": "10s", "for": "15s", "cut": ["controllers-0", "node-0"]},
                {"at": "12s", "scale": {"default/web": 5}},
                {"at": "15s", "compact": true},
            ]),
        );
        assert_eq!(report.pods, 5, "{report}");
    }
}

#[test]
fn a_pod_whose_document_breaks_stays_where_it_is() {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "single", "namespace": "default"},
        "spec": spec(),
    });
    for seed in 0..3 {
        let report = check(
            seed,
            json!([
                {"at": "1s", "apply": [pod]},
                {"at": "10s", "for": "20s", "corrupt": ["pods/default/single"]},
                // Whoever lists anew finds it broken.
                {"at": "12s", "for": "2s", "restart": ["controllers-0"]},
            ]),
        );
        let lost = report.trace.iter().find(|w| {
            w.deleted && w.key.ends_with("/default/single") && !w.key.contains("/events/")
        });
        assert!(
            lost.is_none(),
            "taken for gone: {}\n{report}",
            lost.unwrap()
        );
    }
}

#[test]
fn a_pod_that_is_stopping_keeps_its_room_also_for_a_leader_that_begins_anew() {
    // Room for six pods per node. The first Deployment fills the cluster and is deleted; while its pods still stop, the
    // leader forgets what it knew, and pods of the second one wait for room.
    let deployment = |name: &str, replicas: u32| {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{
                        "name": "main",
                        "image": "example/web:1",
                        "resources": {"requests": {"cpu": "100m"}},
                    }]},
                },
            },
        })
    };
    let scenario: Scenario = serde_json::from_value(json!({
        "metadata": {"name": "room"},
        "spec": {
            "controllers": {"replicas": 1},
            "nodes": [{
                "name": "node",
                "count": 2,
                "capacity": {"cpu": "600m"},
                "stopLatency": "20s",
            }],
            "timeline": [
                {"at": "1s", "apply": [deployment("old", 12)]},
                {"at": "5s", "apply": [deployment("new", 12)]},
                {"at": "10s", "delete": ["deployments/default/old"]},
                {"at": "11s", "for": "2s", "crash": ["controllers-0"]},
            ],
        },
    }))
    .unwrap();
    for seed in 0..5 {
        let report = run(&scenario, seed, Options::default()).unwrap();
        assert!(report.is_good(), "{report}");
        assert_eq!(report.pods, 12);
    }
}
