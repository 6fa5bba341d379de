//! Work that is split among the processes of controllers.

use serde_json::{Value, json};
use setpoint_sim::{Options, Report, Scenario, generate, run};

/// Runs three nodes under three processes of controllers that share gc; of these, `unsharded` do not. Nothing may be wrong.
fn check(seed: u64, unsharded: u32, timeline: Value) -> Report {
    let scenario: Scenario = serde_json::from_value(json!({
        "metadata": {"name": "shards"},
        "spec": {
            "controllers": {"replicas": 3, "shard": ["gc"], "unsharded": unsharded},
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

fn web(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": 6,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "example/web:1"}]},
            },
        },
    })
}

/// The processes that have deleted desired objects.
fn collectors(report: &Report) -> Vec<&str> {
    let deleted = |key: &str| {
        key.starts_with("/setpoint/desired/pods/")
            || key.starts_with("/setpoint/desired/replicasets/")
    };
    let writes = report.trace.iter().filter(|w| w.deleted && deleted(&w.key));
    let mut senders: Vec<&str> = writes.filter_map(|w| w.sender.as_deref()).collect();
    senders.sort_unstable();
    senders.dedup();
    senders
}

#[test]
fn an_object_is_collected_under_the_epoch_of_its_own_shard() {
    for seed in 0..3 {
        let report = check(
            seed,
            0,
            json!([
                {"at": "2s", "apply": [web("a"), web("b"), web("c")]},
                {"at": "15s", "delete": ["deployments/default/a"]},
                {"at": "25s", "for": "10s", "freeze": ["controllers-1"]},
                {"at": "27s", "delete": ["deployments/default/b"]},
            ]),
        );
        assert_eq!(report.pods, 6, "{report}");
        assert!(collectors(&report).len() > 1, "{report}");
    }
}

#[test]
fn processes_that_disagree_whether_to_share_exclude_each_other() {
    for seed in 0..6 {
        let report = check(
            seed,
            1,
            json!([
                {"at": "2s", "apply": [web("a"), web("b")]},
                {"at": "10s", "delete": ["deployments/default/a"]},
                // Whoever has it ends, and may find it taken by those of the other mind.
                {"at": "20s", "for": "8s", "crash": ["controllers-0"]},
                {"at": "35s", "for": "8s", "freeze": ["controllers-1", "controllers-2"]},
                {"at": "38s", "delete": ["deployments/default/b"]},
                {"at": "50s", "restart": ["controllers-0", "controllers-1"]},
            ]),
        );
        assert_eq!(report.pods, 0, "{report}");
    }
}

#[test]
fn a_run_in_shards_is_the_same_run_for_the_same_seed() {
    let seeds = (0..).filter(|seed| {
        let spec = generate::standard(*seed).spec;
        !spec.controllers.shard.is_empty() && spec.controllers.replicas > 1
    });
    for seed in seeds.take(3) {
        let scenario = generate::standard(seed);
        let once = run(&scenario, seed, Options::default()).unwrap();
        let again = run(&scenario, seed, Options::default()).unwrap();
        assert_eq!(once, again);
    }
}
