//! A namespace that is deleted while controllers make what is in it, and made again: with a controller that loses one of its
//! writes or dies at it, and with stale caches. Nothing of the former is left, and the new one comes to what it asks for.

use serde_json::{Value, json};
use setpoint_sim::pods::ENDS_AFTER;
use setpoint_sim::{Report, Scenario};

use crate::common::{at, run_well, turn};

fn scenario(network: Value, timeline: Value) -> Scenario {
    serde_json::from_value(json!({
        "metadata": {"name": "namespaces"},
        "spec": {
            "controllers": {"replicas": 2},
            "nodes": [{"name": "node", "count": 2, "lease": "30s", "stopLatency": "1s"}],
            "network": network,
            "quiet": "20s",
            "timeline": timeline,
        },
    }))
    .unwrap()
}

fn manifest(version: &str, kind: &str, spec: Value) -> Value {
    let name = kind.to_lowercase();
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "team"},
        "spec": spec,
    })
}

fn workload(kind: &str) -> Value {
    let app = kind.to_lowercase();
    let template = json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "example/web"}]},
    });
    let spec = json!({"selector": {"matchLabels": {"app": app}}, "template": template});
    manifest("apps/v1", kind, spec)
}

/// The namespace, with one of each kind in it: a Deployment of three pods, a StatefulSet of two, a DaemonSet, and a Job of
/// two pods that end.
fn everything() -> Vec<Value> {
    let mut deployment = workload("Deployment");
    deployment["spec"]["replicas"] = json!(3);
    let mut set = workload("StatefulSet");
    set["spec"]["replicas"] = json!(2);
    set["spec"]["podManagementPolicy"] = json!("Parallel");
    let ends = json!({"annotations": {ENDS_AFTER: "2s"}});
    let containers = json!([{"name": "main", "image": "example/sum"}]);
    let pods = json!({"restartPolicy": "Never", "containers": containers});
    let job = json!({
        "completions": 2, "parallelism": 2, "template": {"metadata": ends, "spec": pods},
    });
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}),
        deployment,
        set,
        workload("DaemonSet"),
        manifest("batch/v1", "Job", job),
    ]
}

/// How many keys of the namespace there are at the end.
fn left(report: &Report) -> usize {
    let keys = report.state.keys();
    keys.filter(|key| key.contains("/team")).count()
}

#[test]
fn nothing_is_left_of_a_namespace_whichever_write_of_a_controller_is_struck() {
    for (goes, controllers) in [
        // While its pods are made, and when they run.
        ("1080ms", ["workloads", "scheduler"]),
        ("9s", ["scheduler", "gc"]),
    ] {
        let timeline = json!([
            {"at": "1s", "apply": everything()},
            {"at": goes, "delete": ["namespaces/team"]},
        ]);
        let scenario = scenario(json!({}), timeline);
        let undisturbed = run_well(&scenario, 1, None);
        assert_eq!((undisturbed.pods, left(&undisturbed)), (0, 0));
        for controller in controllers {
            let writes = undisturbed.transactions[controller];
            assert!(writes > 1, "{controller}: {undisturbed}");
            for write in 1..=writes {
                let strike = at(controller, write, turn(write));
                let report = run_well(&scenario, 1, Some(strike));
                assert_eq!((report.pods, left(&report)), (0, 0), "{report}");
            }
        }
    }
}

#[test]
fn a_namespace_that_is_made_again_while_the_former_pods_stop_comes_to_what_it_asks_for() {
    // Caches know half a second late that the namespace has gone, and that it is another one.
    let network = json!({"watchDelay": "500ms"});
    for (seed, pause) in [(1, 30), (2, 200), (3, 700), (4, 3_000)] {
        let timeline = json!([
            {"at": "1s", "apply": everything()},
            {"at": "12s", "delete": ["namespaces/team"]},
            {"at": format!("{}ms", 12_000 + pause), "apply": everything()},
        ]);
        let report = run_well(&scenario(network.clone(), timeline), seed, None);
        // Three of the Deployment, two of the StatefulSet, one on each node.
        assert_eq!(report.pods, 7, "{report}");
        let ended = report.state.get("/setpoint/actual/jobs/team/job");
        let ended = ended.map(String::as_str).unwrap_or_default();
        assert!(ended.contains("Complete"), "{ended}");
    }
}

#[test]
fn what_is_applied_to_a_namespace_that_is_not_there_is_refused() {
    let timeline = json!([
        {"at": "1s", "apply": &everything()[1..2]},
        {"at": "2s", "delete": ["namespaces/team"]},
        {"at": "3s", "apply": &everything()[..2]},
        {"at": "4s", "delete": ["namespaces/team", "namespaces/team"]},
    ]);
    let report = run_well(&scenario(json!({}), timeline), 1, None);
    let said: Vec<&str> = report.timeline.iter().map(|(_, what)| &**what).collect();
    assert_eq!(
        said[..6],
        [
            "deployment team/deployment is refused: there is no such namespace",
            "there is no namespace team to be deleted",
            "namespace team is applied",
            "deployment team/deployment is applied",
            "namespace team is deleted with all that is in it",
            "there is no namespace team to be deleted",
        ]
    );
}
