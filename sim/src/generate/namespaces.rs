//! A second namespace in a standard scenario, which is deleted while all else happens, and sometimes made again. What is in
//! it is called as in `default`, so that the two are easily confused. By luck of its own, as below.

use fastrand::Rng;
use serde_json::{Value, json};
use setpoint_apis::records::PARTITION_POLICY;

use super::FAULTS_UNTIL;
use super::jobs::{job_spec, manifest};
use super::workloads::{applied, config_map, deployment, pod};
use crate::fnv::Fnv;
use crate::scenario::{Event, ScenarioSpec, Time};

/// What it is called.
const TEAM: &str = "team";

/// Adds it to some of the seeds.
pub(super) fn add(seed: u64, spec: &mut ScenarioSpec) {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "namespaces"));
    if rng.u32(0..5) > 0 {
        return;
    }
    let contents = contents(&mut rng);
    let mut all = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM},
    })];
    all.extend(contents.iter().cloned());
    let mut made = rng.u64(0..=15_000);
    loop {
        applied(spec, made, all.clone());
        // In the middle of what it makes, or when all of it is there.
        let longest = [2_000, 25_000][rng.usize(0..2)];
        let goes = made + rng.u64(50..=longest);
        if goes > FAULTS_UNTIL {
            break;
        }
        changes(&mut rng, spec, (made, goes));
        spec.timeline.push(Event {
            at: Time::milliseconds(goes),
            delete: vec![format!("namespaces/{TEAM}")],
            ..Event::default()
        });
        if rng.bool() {
            break;
        }
        // While the pods of the former stop, or later.
        let longest = [300, 15_000][rng.usize(0..2)];
        made = goes + rng.u64(25..=longest);
    }
}

/// What befalls it between two times, around the second of which it is deleted.
fn changes(rng: &mut Rng, spec: &mut ScenarioSpec, (made, goes): (u64, u64)) {
    if rng.u32(0..4) == 0 {
        // Nobody may take a namespace for gone because its document does not parse.
        spec.timeline.push(Event {
            at: Time::milliseconds(rng.u64(made..=goes)),
            lasts: Some(Time::milliseconds(rng.u64(100..=3_000))),
            corrupt: vec![format!("namespaces/{TEAM}")],
            ..Event::default()
        });
    }
    if rng.bool() {
        let next = within(deployment("web-0", rng.u32(1..=5), 2, false));
        applied(spec, rng.u64(made..=goes), vec![next]);
    }
    if rng.bool() {
        spec.timeline.push(Event {
            at: Time::milliseconds(goes.saturating_sub(rng.u64(0..=300))),
            moves: rng.u32(1..=6),
            ..Event::default()
        });
    }
    // Some of it comes too late, and is refused.
    for i in 0..rng.u32(0..=3) {
        let name = format!("late-{i}");
        let late = match rng.u32(0..4) {
            0 => pod(&name, "replace"),
            1 => config_map(&name, 1),
            2 => deployment(&name, rng.u32(1..=2), 1, false),
            _ => manifest("Job", &name, job_spec(rng, &name)),
        };
        let at = goes.saturating_sub(30) + rng.u64(0..=80);
        applied(spec, at, vec![within(late)]);
    }
}

fn within(mut manifest: Value) -> Value {
    manifest["metadata"]["namespace"] = json!(TEAM);
    manifest
}

fn contents(rng: &mut Rng) -> Vec<Value> {
    let mut all = Vec::new();
    let config = rng.bool();
    if config {
        all.push(config_map("web-0", 1));
    }
    all.push(deployment("web-0", rng.u32(1..=5), 1, config));
    if rng.u32(0..3) > 0 {
        let job = job_spec(rng, "sum-0");
        all.push(manifest("Job", "sum-0", job));
    }
    if rng.bool() {
        all.push(stateful_set(rng));
    }
    if rng.u32(0..3) == 0 {
        all.push(daemon_set());
    }
    all.into_iter().map(within).collect()
}

fn stateful_set(rng: &mut Rng) -> Value {
    let mut set = deployment("db", rng.u32(1..=3), 1, false);
    set["kind"] = json!("StatefulSet");
    set["spec"]["podManagementPolicy"] = json!(["Parallel", "OrderedReady"][rng.usize(0..2)]);
    if rng.bool() {
        set["spec"]["template"]["metadata"]["annotations"] = json!({PARTITION_POLICY: "stop"});
    }
    set
}

/// Its pods request nothing, so that they have room everywhere.
fn daemon_set() -> Value {
    let mut set = deployment("daemon", 1, 1, false);
    set["kind"] = json!("DaemonSet");
    if let Some(spec) = set["spec"].as_object_mut() {
        spec.remove("replicas");
    }
    set["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
    set
}
