//! What comes to an end in a standard scenario, and what is on every node: Jobs, CronJobs and DaemonSets. By luck of their
//! own, which leaves everything else of a seed as it is.

use fastrand::Rng;
use serde_json::{Value, json};
use setpoint_apis::Timestamp;

use super::FAULTS_UNTIL;
use super::workloads::applied;
use crate::fnv::Fnv;
use crate::pods::{ENDS_AFTER, FAILS};
use crate::scenario::{Event, ScenarioSpec, Time};

/// Adds them to some of the seeds.
pub(super) fn add(seed: u64, spec: &mut ScenarioSpec) {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "jobs"));
    if rng.u32(0..3) == 0 {
        for i in 0..rng.u32(1..=3) {
            job(&mut rng, spec, &format!("sum-{i}"));
        }
    }
    if rng.u32(0..5) == 0 {
        cron_job(&mut rng, spec);
    }
    if rng.u32(0..5) == 0 {
        daemon_set(&mut rng, spec);
    }
}

/// A pod that runs for a while, and may fail.
fn template(rng: &mut Rng, name: &str) -> Value {
    let ends = Time::milliseconds(rng.u64(200..=8_000)).to_string();
    let fails = ["0", "0", "0.1", "0.4"][rng.usize(0..4)];
    json!({
        "metadata": {"annotations": {ENDS_AFTER: ends, FAILS: fails}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main",
                "image": format!("example/{name}:1"),
                "resources": {"requests": {"cpu": "50m"}},
            }],
        },
    })
}

/// A Job's spec, of any sort, that has ended within two minutes whatever fails.
pub(super) fn job_spec(rng: &mut Rng, name: &str) -> Value {
    let completions = rng.u32(1..=8);
    let replacement = ["TerminatingOrFailed", "Failed"][rng.usize(0..2)];
    let mut spec = json!({
        "completions": completions,
        "parallelism": rng.u32(1..=5),
        "backoffLimit": rng.u32(0..=2),
        "podReplacementPolicy": replacement,
        "template": template(rng, name),
    });
    if rng.bool() {
        spec["completionMode"] = json!("Indexed");
        if rng.bool() {
            spec["backoffLimitPerIndex"] = json!(rng.u32(0..=1));
            spec["backoffLimit"] = Value::Null;
        }
    } else if rng.u32(0..4) == 0 {
        // A work queue.
        spec["completions"] = Value::Null;
    }
    if rng.u32(0..4) == 0 {
        spec["activeDeadlineSeconds"] = json!(rng.u32(5..=30));
    }
    spec
}

pub(super) fn manifest(kind: &str, name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}

/// A Job, which some change, suspend, delete, or have deleted when it has ended.
fn job(rng: &mut Rng, spec: &mut ScenarioSpec, name: &str) {
    let mut job = job_spec(rng, name);
    if rng.u32(0..4) == 0 {
        job["ttlSecondsAfterFinished"] = json!(rng.u32(0..=20));
    }
    let at = rng.u64(0..=40_000);
    applied(spec, at, vec![manifest("Job", name, job.clone())]);
    let later = at + rng.u64(500..=20_000);
    match rng.u32(0..6) {
        0 => {
            // Nothing else of it may be changed.
            job["parallelism"] = json!(rng.u32(1..=5));
            applied(spec, later, vec![manifest("Job", name, job)]);
        }
        1 => {
            job["suspend"] = json!(true);
            applied(spec, later, vec![manifest("Job", name, job.clone())]);
            job["suspend"] = json!(false);
            let again = later + rng.u64(500..=15_000);
            applied(spec, again, vec![manifest("Job", name, job)]);
        }
        2 => spec.timeline.push(Event {
            at: Time::milliseconds(later),
            delete: vec![format!("jobs/default/{name}")],
            ..Event::default()
        }),
        _ => {}
    }
}

/// A CronJob that fires in each of the first minutes, and then no more for a year: it must become quiet. The last time is
/// there before the faults are over.
fn cron_job(rng: &mut Rng, spec: &mut ScenarioSpec) {
    let begins = Timestamp::from_unix_seconds(1_893_456_000 + rng.i64(30..60));
    spec.begins = Some(begins);
    let policy = ["Allow", "Forbid", "Replace"][rng.usize(0..3)];
    let deadline = [None, Some(20), Some(100)][rng.usize(0..3)];
    let cron_job = json!({
        "schedule": "0-2 0 1 1 *",
        "concurrencyPolicy": policy,
        "startingDeadlineSeconds": deadline,
        "successfulJobsHistoryLimit": rng.u32(0..=2),
        "failedJobsHistoryLimit": rng.u32(0..=1),
        "jobTemplate": {"spec": {
            "completions": rng.u32(1..=2),
            "backoffLimit": rng.u32(0..=1),
            "template": template(rng, "report"),
        }},
    });
    let at = rng.u64(0..=FAULTS_UNTIL / 2);
    applied(spec, at, vec![manifest("CronJob", "report", cron_job)]);
}

/// A DaemonSet that is rolled out. Its pods request nothing, so that they have room everywhere.
fn daemon_set(rng: &mut Rng, spec: &mut ScenarioSpec) {
    let rolling = match rng.bool() {
        true => json!({"maxUnavailable": rng.u32(1..=2)}),
        false => json!({"maxUnavailable": 0, "maxSurge": rng.u32(1..=2)}),
    };
    let set = |version: u32| {
        json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "daemon", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": "daemon"}},
                "updateStrategy": {"rollingUpdate": rolling},
                "template": {
                    "metadata": {"labels": {"app": "daemon"}},
                    "spec": {"containers": [{
                        "name": "main",
                        "image": format!("example/daemon:{version}"),
                    }]},
                },
            },
        })
    };
    applied(spec, rng.u64(0..=8_000), vec![set(1)]);
    for _ in 0..rng.u32(0..=2) {
        let version = rng.u32(2..=3);
        applied(spec, rng.u64(9_000..=FAULTS_UNTIL), vec![set(version)]);
    }
}
