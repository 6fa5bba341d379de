//! The checks of workloads notice what they are there for: each is told a short history, once as it should be and once with
//! the write that breaks it.

mod budgets;
mod claims;
mod namespaces;
mod quotas;
mod told;

use serde_json::{Value, json};
use setpoint_apis::{Key, ObjectKey};

use super::known::{NEWS, STALE};
use told::{BEGUN, Told, manifest, object, of_pods, pod_spec};

/// A Deployment of two with its pods, of which one may be missing and none too many.
fn deployment() -> (Told, String, String) {
    let mut told = Told::new();
    let strategy = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
    let spec = of_pods(json!({"replicas": 2, "strategy": strategy}));
    let web = told.user("deployments", "web", spec);
    let spec = of_pods(json!({"replicas": 2}));
    let set = told.controller("replicasets", "web-1", spec, ("Deployment", &web));
    for name in ["web-1-a", "web-1-b"] {
        told.controller("pods", name, pod_spec(), ("ReplicaSet", &set));
        told.runs(name, "Running");
    }
    // So that controllers know that they run.
    told.millis += NEWS;
    (told, web, set)
}

#[test]
fn a_rollout_that_asks_for_too_many_pods_is_noticed() {
    let (mut told, web, set) = deployment();
    assert_eq!(told.found("surge"), [""; 0]);
    told.controller(
        "replicasets",
        "web-2",
        of_pods(json!({"replicas": 0})),
        ("Deployment", &web),
    );
    assert_eq!(told.found("surge"), [""; 0]);
    told.controller(
        "replicasets",
        "web-2",
        of_pods(json!({"replicas": 1})),
        ("Deployment", &web),
    );
    told.breaks("surge", 1);
    told.controller("pods", "web-1-c", pod_spec(), ("ReplicaSet", &set));
    told.breaks("surge", 2);
}

#[test]
fn an_available_pod_that_is_deleted_though_another_one_is_missing_is_noticed() {
    let (mut told, ..) = deployment();
    told.delete("pods", "web-1-a");
    assert_eq!(told.found("availability"), [""; 0]);
    told.delete("pods", "web-1-b");
    told.breaks("availability", 1);
}

#[test]
fn a_pod_that_has_just_become_available_may_go_by_what_was_decided_before() {
    for (passed, found) in [(NEWS - 20, 0), (NEWS, 1)] {
        let (mut told, ..) = deployment();
        told.delete("pods", "web-1-a");
        told.runs("web-1-b", "Starting");
        told.millis += STALE;
        told.runs("web-1-b", "Running");
        told.millis = told.millis - NEWS + passed;
        told.delete("pods", "web-1-b");
        assert_eq!(told.found("availability").len(), found, "{passed}");
    }
}

fn job(spec: Value) -> (Told, String) {
    let mut told = Told::new();
    let mut all = json!({"template": {"spec": pod_spec()}});
    for (field, value) in spec.as_object().unwrap() {
        all[field] = value.clone();
    }
    let uid = told.user("jobs", "sum", all);
    (told, uid)
}

/// A status that counts so many of these pods.
fn counts(uid: &str, pods: &str, succeeded: i32, failed: i32) -> Value {
    json!({
        "succeeded": succeeded, "failed": failed, "counted": {"of": uid, "pods": pods},
    })
}

#[test]
fn a_job_that_has_too_many_pods_or_one_number_twice_is_noticed() {
    let (mut told, uid) = job(json!({"completions": 3, "parallelism": 2}));
    told.controller("pods", "sum-0", pod_spec(), ("Job", &uid));
    told.controller("pods", "sum-1", pod_spec(), ("Job", &uid));
    assert_eq!(told.found("job"), [""; 0]);
    told.controller("pods", "sum-2", pod_spec(), ("Job", &uid));
    told.breaks("job", 1);
    told.runs("sum-0", "Succeeded");
    told.runs("sum-1", "Succeeded");
    told.controller("pods", "again-2", pod_spec(), ("Job", &uid));
    told.breaks("job", 2);
}

#[test]
fn counts_of_a_job_that_are_not_what_its_pods_came_to_are_noticed() {
    for (pods, succeeded, failed, wrong) in [
        ("", 0, 0, 0),
        ("0", 1, 0, 0),
        ("0-1", 1, 1, 0),
        // One has not ended, and one failed and is counted as what it was not.
        ("0,2", 2, 0, 2),
        ("0-1", 2, 0, 2),
        // Counted twice.
        ("0-1", 1, 2, 2),
        ("0", 2, 0, 2),
    ] {
        let (mut told, uid) = job(json!({"completions": 3, "parallelism": 3}));
        for (name, stage) in [
            ("sum-0", "Succeeded"),
            ("sum-1", "Failed"),
            ("sum-2", "Running"),
        ] {
            told.controller("pods", name, pod_spec(), ("Job", &uid));
            told.runs(name, stage);
        }
        told.status("jobs", "sum", counts(&uid, pods, succeeded, failed));
        let found = told.found("job");
        assert_eq!(found.len(), wrong, "{pods} {succeeded} {failed}: {found:?}");
    }
}

#[test]
fn a_pod_that_failed_while_it_was_taken_back_must_not_be_counted_and_one_that_ended_not_be_deleted()
{
    let (mut told, uid) = job(json!({"completions": 3, "parallelism": 3}));
    told.controller("pods", "sum-0", pod_spec(), ("Job", &uid));
    let binding = json!({
        "node": "n1", "session": 1, "placement": 1, "podRevision": 1, "boundAt": "2030-01-01T00:00:01Z",
        "withdrawn": {"reason": "NodeLost", "at": "2030-01-01T00:00:02Z"},
    });
    told.write(
        "controllers-0#1",
        &Key::Binding(object("sum-0")),
        Some(binding),
    );
    let record = json!({"placement": 1, "uid": "", "stage": "Failed"});
    told.write("n1#1", &Key::NodePod("n1", object("sum-0")), Some(record));
    told.status("jobs", "sum", counts(&uid, "0", 0, 1));
    told.breaks("job", 2);
    told.controller("pods", "sum-1", pod_spec(), ("Job", &uid));
    told.runs("sum-1", "Failed");
    told.delete("pods", "sum-1");
    told.breaks("job", 3);
}

#[test]
fn jobs_of_a_cron_job_that_overlap_or_come_at_the_wrong_time_are_noticed() {
    let mut told = Told::new();
    let spec = json!({
        "schedule": "*/2 * * * *",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 100,
        "jobTemplate": {"spec": {"template": {"spec": pod_spec()}}},
    });
    let report = told.user("cronjobs", "report", spec);
    let job = json!({"template": {"spec": pod_spec()}});
    let name = |minute: i64| format!("report-{}", BEGUN / 60 + minute);
    let make = |told: &mut Told, second: u64, minute: i64| {
        told.millis = second * 1_000;
        let uid = told.controller("jobs", &name(minute), job.clone(), ("CronJob", &report));
        let complete = json!([{"type": "Complete", "status": "True"}]);
        let status = json!({"conditions": complete, "counted": {"of": uid, "pods": ""}});
        let wrong = told.found("cronjob").len();
        told.status("jobs", &name(minute), status);
        wrong
    };
    assert_eq!(make(&mut told, 120, 2), 0, "{:?}", told.checks.violations());
    assert_eq!(make(&mut told, 241, 4), 0, "{:?}", told.checks.violations());
    // It does not fire then; it is not yet time; it is too late, and there was another time since; it was done before.
    assert_eq!(make(&mut told, 310, 5), 1, "{:?}", told.checks.violations());
    assert_eq!(make(&mut told, 350, 6), 2, "{:?}", told.checks.violations());
    assert_eq!(make(&mut told, 800, 8), 4, "{:?}", told.checks.violations());
    told.delete("jobs", &name(4));
    let before = told.found("cronjob").len();
    told.millis = 801_000;
    told.controller("jobs", &name(4), job.clone(), ("CronJob", &report));
    assert!(
        told.found("cronjob").len() > before,
        "{:?}",
        told.checks.violations()
    );
    // Two that run.
    let before = told.found("cronjob").len();
    told.millis = 840_000;
    told.controller("jobs", &name(14), job.clone(), ("CronJob", &report));
    assert_eq!(
        told.found("cronjob").len(),
        before + 1,
        "{:?}",
        told.checks.violations()
    );
}

#[test]
fn a_pod_of_a_stateful_set_that_is_deleted_though_another_one_is_missing_is_noticed() {
    let mut told = Told::new();
    let db = told.user("statefulsets", "db", of_pods(json!({"replicas": 3})));
    for name in ["db-0", "db-1", "db-2"] {
        told.controller("pods", name, pod_spec(), ("StatefulSet", &db));
        told.runs(name, "Running");
    }
    told.millis += NEWS;
    told.delete("pods", "db-2");
    assert_eq!(told.found("availability"), [""; 0]);
    told.delete("pods", "db-1");
    told.breaks("availability", 1);
}

#[test]
fn pods_of_a_daemon_set_that_are_two_on_a_node_or_missing_on_too_many_are_noticed() {
    let mut told = Told::new();
    for node in ["n1", "n2"] {
        told.node(node);
    }
    let logs = told.user("daemonsets", "logs", of_pods(json!({})));
    let on = |node: &str| {
        let term =
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
        let required = json!({"nodeSelectorTerms": [term]});
        let key = "requiredDuringSchedulingIgnoredDuringExecution";
        let mut spec = pod_spec();
        spec["affinity"] = json!({"nodeAffinity": {key: required}});
        spec
    };
    for (name, node) in [("logs-a", "n1"), ("logs-b", "n2")] {
        told.controller("pods", name, on(node), ("DaemonSet", &logs));
        told.runs_on(node, name, "Running");
    }
    assert_eq!(told.found("surge"), [""; 0]);
    told.controller("pods", "logs-c", on("n1"), ("DaemonSet", &logs));
    told.breaks("surge", 1);
    // So that every controller knows of the nodes.
    told.millis += STALE;
    told.delete("pods", "logs-a");
    assert_eq!(told.found("availability"), [""; 0]);
    told.delete("pods", "logs-b");
    told.breaks("availability", 1);
}

#[test]
fn indexes_of_a_job_that_are_done_twice_or_not_done_are_noticed() {
    let spec = json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed"});
    let made = |told: &mut Told, uid: &str, name: &str, index: &str| {
        let mut pod = manifest("pods", name, pod_spec(), Some(("Job", uid)));
        let annotation = "batch.kubernetes.io/job-completion-index";
        pod["metadata"]["annotations"][annotation] = json!(index);
        let key = Key::Desired("pods", object(name));
        told.write("controllers-0#1", &key, Some(pod));
    };
    let (mut told, uid) = job(spec);
    made(&mut told, &uid, "sum-0", "0");
    made(&mut told, &uid, "sum-1", "1");
    told.runs("sum-0", "Succeeded");
    told.runs("sum-1", "Failed");
    let status = |indexes: &str, succeeded: i32, failed: i32| {
        let mut status = counts(&uid, "0-1", succeeded, failed);
        status["completedIndexes"] = json!(indexes);
        status
    };
    told.status("jobs", "sum", status("0", 1, 1));
    assert_eq!(told.found("job"), [""; 0]);
    made(&mut told, &uid, "sum-2", "0");
    told.breaks("job", 1);
    // One that failed is no success, and is a failure.
    told.status("jobs", "sum", status("0-1", 2, 1));
    told.breaks("job", 2);
    told.status("jobs", "sum", status("0", 1, 0));
    told.breaks("job", 3);
}

#[test]
fn a_job_that_ends_with_pods_that_it_has_not_counted_is_noticed() {
    let (mut told, uid) = job(json!({"completions": 2, "parallelism": 2}));
    for name in ["sum-0", "sum-1"] {
        told.controller("pods", name, pod_spec(), ("Job", &uid));
        told.runs(name, "Succeeded");
    }
    let complete = json!([{"type": "Complete", "status": "True"}]);
    let mut status = counts(&uid, "0", 1, 0);
    status["conditions"] = complete;
    told.status("jobs", "sum", status);
    told.breaks("job", 1);
}

#[test]
fn of_the_history_of_a_cron_job_no_more_goes_than_may() {
    let mut told = Told::new();
    let spec = json!({
        "schedule": "* * * * *",
        "successfulJobsHistoryLimit": 1,
        "jobTemplate": {"spec": {"template": {"spec": pod_spec()}}},
    });
    let report = told.user("cronjobs", "report", spec);
    let name = |minute: i64| format!("report-{}", BEGUN / 60 + minute);
    for minute in [2, 3] {
        told.millis = u64::try_from(minute).unwrap() * 60_000 + 100;
        let job = json!({"template": {"spec": pod_spec()}});
        let uid = told.controller("jobs", &name(minute), job, ("CronJob", &report));
        let complete = json!([{"type": "Complete", "status": "True"}]);
        let status = json!({"conditions": complete, "counted": {"of": uid, "pods": ""}});
        told.status("jobs", &name(minute), status);
    }
    told.delete("jobs", &name(2));
    assert_eq!(told.found("cronjob"), [""; 0]);
    told.delete("jobs", &name(3));
    told.breaks("cronjob", 1);
}

#[test]
fn what_is_collected_though_its_owner_is_there_is_noticed() {
    let settings = |told: &mut Told, owner: &str| {
        let mut value = manifest("configmaps", "copy", json!({}), Some(("Deployment", owner)));
        value["metadata"]["ownerReferences"][0]["name"] = json!("web");
        let key = Key::Desired("configmaps", object("copy"));
        told.write("controllers-0#1", &key, Some(value));
    };
    let begin = || {
        let mut told = Told::new();
        let web = told.user("deployments", "web", of_pods(json!({"replicas": 1})));
        settings(&mut told, &web);
        told
    };
    let mut told = begin();
    told.collect("configmaps", "copy");
    told.breaks("nothing lost", 1);
    // Whoever manages it may do without it; it goes with its owner, and before an owner that waits for it.
    let mut told = begin();
    told.delete("configmaps", "copy");
    assert_eq!(told.found("nothing lost"), [""; 0]);
    let mut told = begin();
    told.write("user", &Key::Desired("deployments", object("web")), None);
    told.collect("configmaps", "copy");
    assert_eq!(told.found("nothing lost"), [""; 0]);
    let mut told = begin();
    let record = json!({"propagationPolicy": "Foreground", "uid": "x"});
    told.write(
        "user",
        &Key::Deletion("deployments", object("web")),
        Some(record),
    );
    told.collect("configmaps", "copy");
    assert_eq!(told.found("nothing lost"), [""; 0]);
}

#[test]
fn a_pod_of_a_daemon_set_whose_successor_runs_may_go_however_many_nodes_are_without() {
    let mut told = Told::new();
    for node in ["n1", "n2"] {
        told.node(node);
    }
    let strategy = json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    let spec = of_pods(json!({"updateStrategy": strategy}));
    let logs = told.user("daemonsets", "logs", spec);
    for name in ["logs-a", "logs-b"] {
        told.controller("pods", name, pod_spec(), ("DaemonSet", &logs));
        told.runs_on("n1", name, "Running");
    }
    told.millis += STALE;
    told.delete("pods", "logs-a");
    assert_eq!(told.found("availability"), [""; 0]);
    told.delete("pods", "logs-b");
    told.breaks("availability", 1);
}

#[test]
fn a_pod_too_many_for_a_node_is_noticed_and_one_that_has_ended_and_is_deleted_takes_no_room() {
    let mut told = Told::new();
    told.node("n1");
    let room = json!({"cpu": "1", "pods": "10"});
    told.write(
        "n1#1",
        &Key::NodeStatus("n1"),
        Some(json!({"capacity": room, "allocatable": room})),
    );
    let mut spec = pod_spec();
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "600m"}});
    told.user("pods", "first", spec.clone());
    told.runs("first", "Running");
    told.write("user", &Key::Desired("pods", object("first")), None);
    told.runs("first", "Failed");
    told.user("pods", "second", spec.clone());
    told.runs("second", "Running");
    told.withdraw("first");
    told.write("n1#1", &Key::NodePod("n1", object("first")), None);
    assert_eq!(told.found("allocatable"), [""; 0]);
    told.user("pods", "third", spec);
    told.runs("third", "Running");
    told.breaks("allocatable", 1);
}
