//! What is wanted in a standard scenario, and how it changes.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Value, json};
use setpoint_apis::records::PARTITION_POLICY;

use super::{FAULTS_UNTIL, Size};
use crate::scenario::{Event, ScenarioSpec, Time};

/// Adds Deployments, ReplicaSets, StatefulSets, pods and a ConfigMap, with their changes; gives back the Deployments that stay.
pub(super) fn add(rng: &mut Rng, spec: &mut ScenarioSpec, size: Size) -> Vec<String> {
    let names = deployments(rng, spec, size);
    if rng.u32(0..3) == 0 {
        replica_set(rng, spec, size);
    }
    if rng.u32(0..2) == 0 {
        pods(rng, spec);
    }
    if rng.u32(0..3) == 0 {
        stateful_set(rng, spec, size);
    }
    names
}

pub(super) fn applied(spec: &mut ScenarioSpec, at: u64, manifests: Vec<Value>) {
    spec.timeline.push(Event {
        at: Time::milliseconds(at),
        apply: manifests,
        ..Event::default()
    });
}

fn deployments(rng: &mut Rng, spec: &mut ScenarioSpec, size: Size) -> Vec<String> {
    let mut names = Vec::new();
    let mut room = size.pods;
    let large = size.pods >= 500;
    for i in 0..rng.u32(1..=4) {
        let name = format!("web-{i}");
        let most = if large { size.pods / 2 } else { 15 };
        let replicas = rng.u32(1..=most).min(room);
        room -= replicas;
        if replicas == 0 {
            break;
        }
        // Its pods read a ConfigMap that changes.
        let config = rng.u32(0..3) == 0;
        let mut manifests = vec![deployment(&name, replicas, 1, config)];
        if config {
            manifests.insert(0, config_map(&name, 1));
            for version in 2..2 + rng.u32(0..=2) {
                let at = rng.u64(9_000..=FAULTS_UNTIL);
                applied(spec, at, vec![config_map(&name, version)]);
            }
        }
        applied(spec, rng.u64(0..=8_000), manifests);
        for _ in 0..rng.u32(0..=3) {
            let at = rng.u64(9_000..=FAULTS_UNTIL);
            if rng.bool() {
                spec.timeline.push(Event {
                    at: Time::milliseconds(at),
                    scale: BTreeMap::from([(format!("default/{name}"), rng.u32(0..=replicas))]),
                    ..Event::default()
                });
            } else {
                let version = rng.u32(2..=3);
                applied(spec, at, vec![deployment(&name, replicas, version, config)]);
            }
        }
        if rng.u32(0..5) == 0 {
            spec.timeline.push(Event {
                at: Time::milliseconds(rng.u64(FAULTS_UNTIL..=FAULTS_UNTIL + 5_000)),
                delete: vec![format!("deployments/default/{name}")],
                ..Event::default()
            });
        } else {
            names.push(name);
        }
    }
    names
}

/// A ReplicaSet that no Deployment owns.
fn replica_set(rng: &mut Rng, spec: &mut ScenarioSpec, size: Size) {
    let name = "set-0";
    let set = |replicas: u32| {
        let mut set = deployment(name, replicas, 1, false);
        set["kind"] = json!("ReplicaSet");
        set
    };
    let most = size.nodes.min(10);
    applied(spec, rng.u64(0..=8_000), vec![set(rng.u32(1..=most))]);
    for _ in 0..rng.u32(0..=2) {
        let at = rng.u64(9_000..=FAULTS_UNTIL);
        applied(spec, at, vec![set(rng.u32(0..=most))]);
    }
}

/// A StatefulSet that is scaled and rolled out. Some are never to run twice.
fn stateful_set(rng: &mut Rng, spec: &mut ScenarioSpec, size: Size) {
    let name = "db";
    let policy = ["Parallel", "OrderedReady"][rng.usize(0..2)];
    let stops = rng.bool();
    let set = |replicas: u32, version: u32| {
        let mut set = deployment(name, replicas, version, false);
        set["kind"] = json!("StatefulSet");
        set["spec"]["podManagementPolicy"] = json!(policy);
        if stops {
            set["spec"]["template"]["metadata"]["annotations"] = json!({PARTITION_POLICY: "stop"});
        }
        set
    };
    let most = size.nodes.min(6);
    let first = set(rng.u32(1..=most), 1);
    applied(spec, rng.u64(0..=8_000), vec![first]);
    for _ in 0..rng.u32(0..=3) {
        let at = rng.u64(9_000..=FAULTS_UNTIL);
        let next = set(rng.u32(0..=most), rng.u32(1..=3));
        applied(spec, at, vec![next]);
    }
}

/// Pods that nothing owns, with all partition policies. Some are deleted, and of these some come back.
fn pods(rng: &mut Rng, spec: &mut ScenarioSpec) {
    for i in 0..rng.u32(1..=5) {
        let name = format!("pod-{i}");
        let policy = ["replace", "keep", "stop"][rng.usize(0..3)];
        applied(spec, rng.u64(0..=20_000), vec![pod(&name, policy)]);
        if rng.u32(0..3) == 0 {
            let at = rng.u64(25_000..=FAULTS_UNTIL);
            spec.timeline.push(Event {
                at: Time::milliseconds(at),
                delete: vec![format!("pods/default/{name}")],
                ..Event::default()
            });
            if rng.bool() {
                let again = at + rng.u64(0..=10_000);
                applied(spec, again, vec![pod(&name, policy)]);
            }
        }
    }
}

pub(super) fn config_map(name: &str, version: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"version": version.to_string()},
    })
}

pub(super) fn pod(name: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {PARTITION_POLICY: policy},
        },
        "spec": {"containers": [container(name, 1, false)]},
    })
}

fn container(name: &str, version: u32, config: bool) -> Value {
    let mut container = json!({
        "name": "main",
        "image": format!("example/{name}:{version}"),
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    });
    if config {
        container["envFrom"] = json!([{"configMapRef": {"name": name}}]);
    }
    container
}

pub(super) fn deployment(name: &str, replicas: u32, version: u32, config: bool) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, "version": format!("v{version}")}},
                "spec": {"containers": [container(name, version, config)]},
            },
        },
    })
}
