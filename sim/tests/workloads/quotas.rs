//! Namespaces with quotas: what is wanted beyond them waits, and comes when there is room, whatever becomes of controllers.

use serde_json::{Value, json};
use setpoint_sim::scenario::AtWrite;
use setpoint_sim::{Report, Scenario};

use crate::common::{at, run_well, turn};

fn within(version: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "small"},
        "spec": spec,
    })
}

fn quota(hard: Value) -> Value {
    within("v1", "ResourceQuota", "most", json!({"hard": hard}))
}

fn web(name: &str, replicas: u32) -> Value {
    let template = json!({
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "example/web"}]},
    });
    let selector = json!({"matchLabels": {"app": name}});
    let spec = json!({"replicas": replicas, "selector": selector, "template": template});
    within("apps/v1", "Deployment", name, spec)
}

/// A namespace in which containers that do not say it request 100m, with a quota and two Deployments of four pods each.
fn begin(hard: Value) -> Vec<Value> {
    let limits = json!([{"type": "Container", "defaultRequest": {"cpu": "100m"}}]);
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "small"}}),
        quota(hard),
        within("v1", "LimitRange", "given", json!({"limits": limits})),
        web("one", 4),
        web("two", 4),
    ]
}

fn check(timeline: Value, strike: Option<AtWrite>) -> Report {
    let scenario: Scenario = serde_json::from_value(json!({
        "metadata": {"name": "quotas"},
        "spec": {
            "controllers": {"replicas": 2},
            "nodes": [{"name": "node", "count": 2, "lease": "30s"}],
            "quiet": "20s",
            "timeline": timeline,
        },
    }))
    .unwrap();
    run_well(&scenario, 1, strike)
}

/// How many pods are wanted at the end.
fn wanted(report: &Report) -> usize {
    let keys = report.state.keys();
    keys.filter(|key| key.contains("/desired/pods/")).count()
}

#[test]
fn as_many_pods_are_made_as_a_quota_lets_in_and_more_when_it_grows() {
    for (first, then, made) in [
        ("5", json!({"pods": "5"}), 5),
        ("5", json!({"pods": "7"}), 7),
        ("5", json!({"pods": "20"}), 8),
        // Nothing that is there goes.
        ("5", json!({"pods": "3"}), 5),
    ] {
        let told = then.to_string();
        let report = check(
            json!([
                {"at": "1s", "apply": begin(json!({"pods": first}))},
                {"at": "10s", "apply": [quota(then)]},
            ]),
            None,
        );
        assert_eq!((wanted(&report), report.pods), (made, made), "{told}");
    }
}

#[test]
fn pods_that_exceed_what_may_be_requested_wait_and_come_when_others_go() {
    let report = check(
        json!([{"at": "1s", "apply": begin(json!({"requests.cpu": "450m"}))}]),
        None,
    );
    assert_eq!((wanted(&report), report.pods), (8, 4), "{report}");
    let report = check(
        json!([
            {"at": "1s", "apply": begin(json!({"requests.cpu": "650m"}))},
            {"at": "10s", "delete": ["deployments/small/one"]},
        ]),
        None,
    );
    assert_eq!((wanted(&report), report.pods), (4, 4), "{report}");
}

#[test]
fn no_write_that_is_struck_makes_more_pods_than_a_quota_lets_in_or_fewer() {
    let timeline = json!([
        {"at": "1s", "apply": begin(json!({"pods": "5", "requests.cpu": "400m"}))},
        {"at": "8s", "apply": [quota(json!({"pods": "7", "requests.cpu": "600m"}))]},
    ]);
    let undisturbed = check(timeline.clone(), None);
    assert_eq!((wanted(&undisturbed), undisturbed.pods), (7, 6));
    for controller in ["workloads", "scheduler"] {
        let writes = undisturbed.transactions[controller];
        assert!(writes > 3, "{controller}: {undisturbed}");
        for write in 1..=writes {
            let strike = at(controller, write, turn(write));
            let report = check(timeline.clone(), Some(strike));
            assert_eq!((wanted(&report), report.pods), (7, 6), "{report}");
        }
    }
}
