//! Rollouts while caches are stale, nodes are lost, and users change their minds in the middle of a rollback.

use serde_json::{Value, json};
use setpoint_sim::pods::BROKEN;
use setpoint_sim::{Report, Scenario};

use crate::common::run_well;

/// Runs four nodes under two processes of controllers; nothing may be wrong.
fn check(seed: u64, network: Value, timeline: Value) -> Report {
    let scenario: Scenario = serde_json::from_value(json!({
        "metadata": {"name": "rollouts"},
        "spec": {
            "controllers": {"replicas": 2},
            "nodes": [{"name": "node", "count": 4, "startLatency": "1s", "stopLatency": "1s"}],
            "network": network,
            "quiet": "20s",
            "timeline": timeline,
        },
    }))
    .unwrap();
    run_well(&scenario, seed, None)
}

fn workload(kind: &str, version: u32, annotations: Value, more: Value) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": kind.to_lowercase()}},
        "template": {
            "metadata": {"labels": {"app": kind.to_lowercase()}, "annotations": annotations},
            "spec": {"containers": [{"name": "main", "image": format!("example/web:{version}")}]},
        },
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": kind.to_lowercase(), "namespace": "default"},
        "spec": spec,
    })
}

/// One of each kind that is rolled out.
fn all(version: u32) -> Vec<Value> {
    all_with(version, &json!({}))
}

/// The same with annotations of the pods.
fn all_with(version: u32, annotations: &Value) -> Vec<Value> {
    let of = |kind, more| workload(kind, version, annotations.clone(), more);
    vec![
        of("Deployment", json!({"replicas": 6})),
        of("StatefulSet", json!({"replicas": 3})),
        of("DaemonSet", json!({})),
    ]
}

/// A Deployment whose new pods need not be broken for long to be taken back.
fn web(version: u32, annotations: Value, more: Value) -> Value {
    let mut spec = json!({"replicas": 4, "progressDeadlineSeconds": 10});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    workload("Deployment", version, annotations, spec)
}

/// How many pods there are at the end of each version.
fn versions(report: &Report) -> Vec<(u32, usize)> {
    let pods = report
        .state
        .iter()
        .filter(|(key, _)| key.starts_with("/setpoint/desired/pods/"));
    let texts: Vec<&String> = pods.map(|(_, text)| text).collect();
    let of = |version: u32| {
        let image = format!("example/web:{version}");
        texts.iter().filter(|text| text.contains(&image)).count()
    };
    (1..=9)
        .map(|v| (v, of(v)))
        .filter(|(_, n)| *n > 0)
        .collect()
}

/// What the status of the Deployment says of a rollback: what has failed for which reason, if there was one.
fn rolled_back(report: &Report) -> Option<String> {
    let status = &report.state["/setpoint/actual/deployments/default/deployment"];
    let status: Value = setpoint_apis::document::decode_value(status.as_bytes()).unwrap();
    let conditions = status["conditions"].as_array().unwrap();
    let condition = conditions
        .iter()
        .find(|c| c["type"] == "RolledBack" && c["status"] == "True");
    condition.map(|c| c["reason"].as_str().unwrap().to_owned())
}

#[test]
fn caches_that_are_seconds_behind_break_no_bound() {
    for seed in 0..2 {
        let stale = json!({"watchDelay": "3s", "brokenWatches": 0.02});
        let report = check(
            seed,
            stale,
            json!([
                {"at": "1s", "apply": all(1)},
                {"at": "20s", "apply": all(2)},
                {"at": "23s", "scale": {"default/deployment": 9}},
                {"at": "26s", "apply": all(3)},
                {"at": "28s", "scale": {"default/deployment": 4}},
                {"at": "30s", "for": "5s", "crash": ["controllers-0"]},
                {"at": "40s", "apply": all(4)},
                {"at": "60s", "network": {}},
            ]),
        );
        assert_eq!(versions(&report), [(4, 13)], "{report}");
    }
}

#[test]
fn nodes_that_are_lost_in_the_middle_of_a_rollout_delay_it_and_no_more() {
    for seed in 0..3 {
        let at = |millis: u64| format!("{}ms", millis + seed * 173);
        let report = check(
            seed,
            json!({}),
            json!([
                {"at": "1s", "apply": all(1)},
                {"at": "20s", "apply": all(2)},
                {"at": at(20_500), "for": "30s", "powerOff": ["node-1"]},
                {"at": at(22_000), "for": "25s", "cut": ["node-2"]},
                {"at": "35s", "apply": all(3)},
                {"at": at(36_000), "for": "3s", "crash": ["controllers-0", "controllers-1"]},
            ]),
        );
        assert_eq!(versions(&report), [(3, 13)], "{report}");
    }
}

#[test]
fn another_broken_template_in_the_middle_of_a_rollback_is_taken_back_too() {
    for (seed, how) in (0..2).flat_map(|seed| ["crashes", "unready"].map(|how| (seed, how))) {
        let broken = |version| web(version, json!({BROKEN: how}), json!({}));
        // When the first one is given up depends on how it is broken; the second one comes just then.
        let taken_back = if how == "crashes" { 16_500 } else { 25_500 };
        let report = check(
            seed,
            json!({}),
            json!([
                {"at": "1s", "apply": [web(1, json!({}), json!({}))]},
                {"at": "15s", "apply": [broken(2)]},
                {"at": format!("{}ms", taken_back + seed * 200), "apply": [broken(3)]},
            ]),
        );
        assert_eq!(versions(&report), [(1, 4)], "{how}: {report}");
        assert!(rolled_back(&report).is_some(), "{how}: {report}");
    }
}

#[test]
fn whoever_undoes_a_rollout_while_it_is_taken_back_has_what_was_there_before() {
    for seed in 0..3 {
        let report = check(
            seed,
            json!({}),
            json!([
                {"at": "1s", "apply": [web(1, json!({}), json!({}))]},
                {"at": "15s", "apply": [web(2, json!({BROKEN: "crashes"}), json!({}))]},
                {"at": format!("{}ms", 16_000 + seed * 250), "apply": [web(1, json!({}), json!({}))]},
            ]),
        );
        assert_eq!(versions(&report), [(1, 4)], "{report}");
        assert_eq!(rolled_back(&report), None, "{report}");
    }
}

#[test]
fn a_good_template_in_the_middle_of_a_rollback_is_rolled_out() {
    for seed in 0..3 {
        let report = check(
            seed,
            json!({}),
            json!([
                {"at": "1s", "apply": [web(1, json!({}), json!({}))]},
                {"at": "15s", "apply": [web(2, json!({BROKEN: "crashes"}), json!({}))]},
                {"at": format!("{}ms", 16_000 + seed * 250), "apply": [web(3, json!({}), json!({}))]},
                {"at": format!("{}ms", 16_400 + seed * 250), "for": "5s", "crash": ["controllers-1"]},
                {"at": format!("{}ms", 16_400 + seed * 350), "for": "4s", "crash": ["controllers-0"]},
            ]),
        );
        assert_eq!(versions(&report), [(3, 4)], "{report}");
        assert_eq!(rolled_back(&report), None, "{report}");
    }
}

#[test]
fn a_rollback_that_is_paused_goes_on_when_it_may() {
    for seed in 0..3 {
        let crashes = json!({BROKEN: "crashes"});
        let report = check(
            seed,
            json!({}),
            json!([
                {"at": "1s", "apply": [web(1, json!({}), json!({}))]},
                {"at": "15s", "apply": [web(2, crashes.clone(), json!({}))]},
                {"at": format!("{}ms", 16_000 + seed * 250),
                 "apply": [web(2, crashes.clone(), json!({"paused": true}))]},
                {"at": "40s", "apply": [web(2, crashes.clone(), json!({"paused": false}))]},
            ]),
        );
        assert_eq!(versions(&report), [(1, 4)], "{report}");
        assert!(rolled_back(&report).is_some(), "{report}");
    }
}

#[test]
fn what_is_available_for_a_moment_and_crashes_is_taken_back_whatever_kind_it_is() {
    for seed in 0..3 {
        let report = check(
            seed,
            json!({}),
            json!([
                {"at": "1s", "apply": all(1)},
                {"at": "15s", "apply": all_with(2, &json!({BROKEN: "falters"}))},
                {"at": format!("{}ms", 16_000 + seed * 250), "for": "4s", "crash": ["controllers-0"]},
                // What was good before is kept for so long.
                {"at": "200s", "network": {}},
            ]),
        );
        assert_eq!(
            rolled_back(&report),
            Some("PodsCrash".to_owned()),
            "{report}"
        );
        assert_eq!(versions(&report), [(1, 13)], "{report}");
    }
}

#[test]
fn standard_scenarios_have_rollouts_that_are_taken_back() {
    let taken_back = |seed: &u64| {
        let scenario = setpoint_sim::generate::standard(*seed);
        if !serde_json::to_string(&scenario).unwrap().contains(BROKEN) {
            return false;
        }
        let report = run_well(&scenario, *seed, None);
        let mut statuses = report.state.iter();
        statuses.any(|(key, text)| key.contains("/actual/") && text.contains("\nrollback:"))
    };
    assert_eq!((0..30).filter(taken_back).take(2).count(), 2);
}
