//! A namespace with a quota in a standard scenario: more may be wanted there than it lets in, and both change. By luck of its
//! own, which leaves everything else of a seed as it is.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Value, json};

use super::FAULTS_UNTIL;
use super::jobs::{job_spec, manifest};
use super::workloads::{applied, deployment};
use crate::fnv::Fnv;
use crate::scenario::{Event, ScenarioSpec, Time};

/// What it is called.
const NAMESPACE: &str = "quota";

/// Adds it to some of the seeds.
pub(super) fn add(seed: u64, spec: &mut ScenarioSpec) {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "quotas"));
    if rng.u32(0..5) > 0 {
        return;
    }
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        quota(&mut rng),
    ];
    let given = rng.bool();
    if given {
        all.push(limit_range());
    }
    let web = |replicas: u32, version: u32| {
        let mut web = within(deployment("web-0", replicas, version, false));
        let container = &mut web["spec"]["template"]["spec"]["containers"][0];
        container["resources"] = match given {
            true => json!({}),
            false => json!({"requests": {"cpu": "100m"}}),
        };
        web
    };
    let replicas = rng.u32(1..=8);
    all.push(web(replicas, 1));
    if rng.u32(0..3) > 0 {
        all.push(within(manifest(
            "Job",
            "sum-0",
            job_spec(&mut rng, "sum-0"),
        )));
    }
    if rng.u32(0..3) == 0 {
        all.push(cron_job(&mut rng));
    }
    let at = rng.u64(0..=8_000);
    applied(spec, at, all);
    for _ in 0..rng.u32(0..=4) {
        let at = rng.u64(at + 100..=FAULTS_UNTIL);
        match rng.u32(0..5) {
            0 => applied(spec, at, vec![web(replicas, rng.u32(2..=3))]),
            1 => spec.timeline.push(Event {
                at: Time::milliseconds(at),
                scale: BTreeMap::from([(format!("{NAMESPACE}/web-0"), rng.u32(0..=8))]),
                ..Event::default()
            }),
            2 if rng.u32(0..3) == 0 => spec.timeline.push(Event {
                at: Time::milliseconds(at),
                delete: vec![format!("resourcequotas/{NAMESPACE}/most")],
                ..Event::default()
            }),
            _ => applied(spec, at, vec![quota(&mut rng)]),
        }
    }
}

fn within(mut manifest: Value) -> Value {
    manifest["metadata"]["namespace"] = json!(NAMESPACE);
    manifest
}

fn quota(rng: &mut Rng) -> Value {
    let mut hard = json!({});
    match rng.u32(0..4) {
        0 => {}
        1 => hard["count/pods"] = json!(rng.u32(4..=12).to_string()),
        _ => hard["pods"] = json!(rng.u32(1..=8).to_string()),
    }
    if rng.bool() {
        hard["requests.cpu"] = json!(format!("{}m", rng.u32(2..=9) * 100));
    }
    if rng.bool() {
        hard["count/jobs.batch"] = json!(rng.u32(1..=2).to_string());
    }
    if rng.u32(0..4) == 0 {
        hard["count/replicasets.apps"] = json!(rng.u32(1..=2).to_string());
    }
    within(json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "most"},
        "spec": {"hard": hard},
    }))
}

fn limit_range() -> Value {
    within(json!({
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "given"},
        "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "100m"}}]},
    }))
}

/// A CronJob that fires after a minute, and when the faults are over no more.
fn cron_job(rng: &mut Rng) -> Value {
    let spec = json!({
        "schedule": "0-1 0 1 1 *",
        "successfulJobsHistoryLimit": rng.u32(0..=1),
        "failedJobsHistoryLimit": rng.u32(0..=1),
        "jobTemplate": {"spec": job_spec(rng, "report")},
    });
    let mut cron_job = within(manifest("CronJob", "report", spec));
    if let Some(job) = cron_job["spec"]["jobTemplate"]["spec"].as_object_mut() {
        job.retain(|_, value| !value.is_null());
    }
    cron_job
}
