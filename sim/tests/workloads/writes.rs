//! Every kind of workload, with controllers that lose one of their writes or die at it: at each of them, before it is carried
//! out or after. Whatever write it was, no invariant breaks and the end is the same.
//!
//! `SIM_EVERY_STRIKE=1` tries everything that can happen at each write; otherwise the four things take turns.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use setpoint_sim::pods::{BROKEN, ENDS_AFTER, FAILS};
use setpoint_sim::scenario::Strike;
use setpoint_sim::{Report, Scenario};

use crate::common::{at, run_well, turn};

fn scenario(timeline: Value) -> Scenario {
    serde_json::from_value(json!({
        "metadata": {"name": "writes"},
        "spec": {
            "controllers": {"replicas": 2},
            // Nodes are not what this is about: the less they write the quicker it is.
            "nodes": [{"name": "node", "count": 2, "lease": "30s"}],
            "quiet": "20s",
            "timeline": timeline,
        },
    }))
    .unwrap()
}

/// A manifest of pods that are of this version, and come to what the annotations say.
fn workload(kind: &str, version: u32, annotations: Value, spec: Value) -> Value {
    let mut all = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}, "annotations": annotations},
            "spec": {"containers": [{"name": "main", "image": format!("example/web:{version}")}]},
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "web", "namespace": "default"},
        "spec": all,
    })
}

fn job(annotations: Value, spec: Value) -> Value {
    let mut all = json!({
        "template": {
            "metadata": {"annotations": annotations},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "example/sum:1"}],
            },
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "sum", "namespace": "default"},
        "spec": all,
    })
}

/// What is left at the end, without names and times that are another's at every run.
fn end(report: &Report) -> BTreeMap<String, u32> {
    let mut all: BTreeMap<String, u32> = BTreeMap::new();
    let mut count = |what: String| *all.entry(what).or_default() += 1;
    for (key, text) in &report.state {
        let value: Value = setpoint_apis::document::decode_value(text.as_bytes()).unwrap();
        let image = || {
            let pods = value
                .pointer("/spec/template/spec")
                .or(value.pointer("/spec"));
            pods.and_then(|spec| spec.pointer("/containers/0/image").cloned())
        };
        let mut parts = key.trim_start_matches("/setpoint/").splitn(4, '/');
        let (tree, plural) = (parts.next().unwrap(), parts.next().unwrap_or_default());
        match (tree, plural) {
            ("desired", "pods") => count(format!("pod of {:?}", image())),
            ("desired", "replicasets") => {
                let replicas = value.pointer("/spec/replicas");
                count(format!("{key}: {replicas:?} of {:?}", image()));
            }
            ("desired", "controllerrevisions" | "jobs") => count(key.clone()),
            ("actual", "deployments" | "statefulsets" | "daemonsets" | "jobs" | "cronjobs") => {
                count(format!("{key}: {}", status(value)));
            }
            _ => {}
        }
    }
    all
}

/// A status without what differs from run to run.
fn status(mut status: Value) -> Value {
    let fields = status.as_object_mut().unwrap();
    for field in [
        "startTime",
        "completionTime",
        "counted",
        "active",
        "firstSeen",
    ] {
        fields.remove(field);
    }
    fields.retain(|name, _| !name.starts_with("last"));
    // The uid is made of the revision at which the object came.
    if let Some(fixed) = fields.get_mut("fixed").and_then(Value::as_object_mut) {
        fixed.remove("of");
    }
    for c in fields
        .get_mut("conditions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let c = c.as_object_mut().unwrap();
        c.retain(|name, _| ["type", "status", "reason"].contains(&name.as_str()));
    }
    if let Some(former) = fields.get_mut("formerAvailableRevision") {
        former.as_object_mut().unwrap().remove("replacedAt");
    }
    if let Some(record) = fields.get_mut("rollback").and_then(Value::as_object_mut) {
        record.retain(|name, _| !["at", "message"].contains(&name.as_str()));
    }
    status
}

/// Runs it as it is, and then with something happening at each write of the controller of workloads.
fn at_every_write(timeline: Value) -> BTreeMap<String, u32> {
    let scenario = scenario(timeline);
    let undisturbed = run_well(&scenario, 1, None);
    let expected = end(&undisturbed);
    let writes = undisturbed.transactions["workloads"];
    assert!(writes > 3, "{undisturbed}");
    let every = std::env::var("SIM_EVERY_STRIKE").is_ok();
    let all = (1..=writes).flat_map(|write| Strike::ALL.map(|strike| (write, strike)));
    let taken = all.filter(|(write, strike)| every || *strike == turn(*write));
    let taken: Vec<(u64, Strike)> = taken.collect();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                    let Some((write, strike)) = taken.get(i).copied() else {
                        return;
                    };
                    let report = run_well(&scenario, 1, Some(at("workloads", write, strike)));
                    assert_eq!(
                        end(&report),
                        expected,
                        "{strike:?} at {write} of {writes}: {report}"
                    );
                }
            });
        }
    });
    expected
}

/// How many pods there are of a version.
fn pods(end: &BTreeMap<String, u32>, version: u32) -> u32 {
    let of = format!("example/web:{version}");
    let mut found = end
        .iter()
        .filter(|(what, _)| what.starts_with("pod of") && what.contains(&of));
    found.next().map_or(0, |(_, n)| *n)
}

#[test]
fn a_deployment_is_rolled_out() {
    let strategy = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}});
    let web = |version| {
        let spec = json!({"replicas": 4, "strategy": strategy});
        workload("Deployment", version, json!({}), spec)
    };
    let end = at_every_write(json!([
        {"at": "1s", "apply": [web(1)]},
        {"at": "15s", "apply": [web(2)]},
    ]));
    assert_eq!((pods(&end, 1), pods(&end, 2)), (0, 4), "{end:?}");
}

#[test]
fn a_deployment_that_crashes_is_taken_back() {
    let web =
        |version, annotations| workload("Deployment", version, annotations, json!({"replicas": 3}));
    let end = at_every_write(json!([
        {"at": "1s", "apply": [web(1, json!({}))]},
        {"at": "15s", "apply": [web(2, json!({BROKEN: "crashes"}))]},
    ]));
    assert_eq!((pods(&end, 1), pods(&end, 2)), (3, 0), "{end:?}");
}

#[test]
fn a_stateful_set_is_rolled_out() {
    let web = |version| workload("StatefulSet", version, json!({}), json!({"replicas": 3}));
    let end = at_every_write(json!([
        {"at": "1s", "apply": [web(1)]},
        {"at": "15s", "apply": [web(2)]},
    ]));
    assert_eq!((pods(&end, 1), pods(&end, 2)), (0, 3), "{end:?}");
}

#[test]
fn a_stateful_set_that_crashes_is_taken_back() {
    let web = |version, annotations| {
        let spec = json!({"replicas": 3, "podManagementPolicy": "Parallel"});
        workload("StatefulSet", version, annotations, spec)
    };
    let end = at_every_write(json!([
        {"at": "1s", "apply": [web(1, json!({}))]},
        {"at": "15s", "apply": [web(2, json!({BROKEN: "crashes"}))]},
    ]));
    assert_eq!((pods(&end, 1), pods(&end, 2)), (3, 0), "{end:?}");
}

#[test]
fn a_daemon_set_is_rolled_out_and_one_that_crashes_is_taken_back() {
    let web = |version, annotations| {
        let strategy = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
        workload(
            "DaemonSet",
            version,
            annotations,
            json!({"updateStrategy": strategy}),
        )
    };
    let end = at_every_write(json!([
        {"at": "3s", "apply": [web(1, json!({}))]},
        {"at": "15s", "apply": [web(2, json!({}))]},
        {"at": "30s", "apply": [web(3, json!({BROKEN: "crashes"}))]},
    ]));
    assert_eq!((pods(&end, 2), pods(&end, 3)), (2, 0), "{end:?}");
}

#[test]
fn a_job_runs_to_its_end() {
    let sum = job(
        json!({ENDS_AFTER: "2s"}),
        json!({"completions": 5, "parallelism": 2, "completionMode": "Indexed"}),
    );
    let end = at_every_write(json!([{"at": "1s", "apply": [sum]}]));
    let complete = |what: &&String| what.contains("\"completedIndexes\":\"0-4\"");
    assert_eq!(end.keys().filter(complete).count(), 1, "{end:?}");
}

#[test]
fn a_job_fails_after_as_many_failures_as_it_may_have() {
    let sum = job(
        json!({ENDS_AFTER: "1s", FAILS: "1"}),
        json!({"completions": 3, "backoffLimit": 1}),
    );
    let end = at_every_write(json!([{"at": "1s", "apply": [sum]}]));
    let failed = |what: &&String| what.contains("\"failed\":2");
    assert_eq!(end.keys().filter(failed).count(), 1, "{end:?}");
}

#[test]
fn a_cron_job_makes_one_job_for_each_of_its_times() {
    let mut report = job(json!({ENDS_AFTER: "3s"}), json!({}));
    let template = json!({"spec": report["spec"].take()});
    let cron_job = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "report", "namespace": "default"},
        "spec": {
            "schedule": "1-3 0 1 1 *",
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 2,
            "jobTemplate": template,
        },
    });
    let mut all = at_every_write(json!([
        {"at": "1s", "apply": [cron_job]},
        {"at": "190s", "apply": []},
    ]));
    all.retain(|what, _| what.contains("/desired/jobs/"));
    let minutes = 1_893_456_000 / 60;
    let jobs = [2, 3].map(|m| {
        (
            format!("/setpoint/desired/jobs/default/report-{}", minutes + m),
            1,
        )
    });
    assert_eq!(all, BTreeMap::from(jobs));
}
