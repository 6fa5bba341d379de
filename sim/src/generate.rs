//! The standard scenarios: a cluster, workloads that come, change and go, and faults, all drawn from one seed.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::json;
use setpoint_apis::ObjectMeta;

use crate::fnv::Fnv;
use crate::scenario::{Controllers, Event, Network, NodeGroup, Scenario, ScenarioSpec, Time};

/// Until when faults happen, in milliseconds.
const FAULTS_UNTIL: u64 = 60_000;

/// The standard scenario of a seed.
pub fn standard(seed: u64) -> Scenario {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "scenario"));
    let nodes = rng.u32(3..=12);
    let mut spec = ScenarioSpec {
        seed: Some(seed),
        controllers: Controllers {
            replicas: rng.u32(1..=3),
            ..Controllers::default()
        },
        nodes: vec![NodeGroup {
            name: "node".to_owned(),
            count: nodes,
            capacity: setpoint_apis::ResourceList::new(),
            labels: BTreeMap::new(),
            start_latency: Time::milliseconds(rng.u64(0..=500)),
            stop_latency: Time::milliseconds(rng.u64(0..=500)),
            lease: Time::seconds(6),
        }],
        network: network(&mut rng),
        timeline: Vec::new(),
        settle: Time::seconds(120),
        quiet: Time::seconds(60),
    };
    let deployments = workloads(&mut rng, &mut spec, nodes);
    faults(&mut rng, &mut spec, nodes, &deployments);
    // However bad it was: from here on the network is good, and everything that died has been started again.
    spec.timeline.push(Event {
        at: Time::milliseconds(FAULTS_UNTIL + 20_000),
        network: Some(Network::default()),
        ..Event::default()
    });
    Scenario {
        metadata: ObjectMeta {
            name: format!("standard-{seed}"),
            ..ObjectMeta::default()
        },
        spec,
        ..Scenario::default()
    }
}

fn network(rng: &mut Rng) -> Network {
    // Most seeds have some bad luck, some have none and some have much.
    let much = [0.0, 0.002, 0.02][rng.usize(0..3)];
    let mut share = || rng.f64() * much;
    Network {
        lost_requests: share(),
        lost_answers: share(),
        late_writes: share(),
        broken_watches: share(),
        min_delay: Time::milliseconds(1),
        max_delay: Time::milliseconds(rng.u64(1..=30)),
    }
}

/// Deployments that are applied, scaled, rolled out and deleted. No more than the cluster holds with two nodes less.
fn workloads(rng: &mut Rng, spec: &mut ScenarioSpec, nodes: u32) -> Vec<String> {
    let mut names = Vec::new();
    let mut room = i64::from(nodes.saturating_sub(2).max(1)) * 30;
    for i in 0..rng.u32(1..=4) {
        let name = format!("web-{i}");
        let replicas = rng.u32(1..=15).min(u32::try_from(room).unwrap_or(0));
        room -= i64::from(replicas) * 2;
        if room < 0 {
            break;
        }
        spec.timeline.push(Event {
            at: Time::milliseconds(rng.u64(0..=8_000)),
            apply: vec![deployment(&name, replicas, 1)],
            ..Event::default()
        });
        for _ in 0..rng.u32(0..=3) {
            let at = Time::milliseconds(rng.u64(9_000..=FAULTS_UNTIL));
            spec.timeline.push(match rng.u32(0..10) {
                0..=4 => Event {
                    at,
                    scale: BTreeMap::from([(format!("default/{name}"), rng.u32(0..=replicas))]),
                    ..Event::default()
                },
                _ => Event {
                    at,
                    apply: vec![deployment(&name, replicas, rng.u32(2..=3))],
                    ..Event::default()
                },
            });
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

fn deployment(name: &str, replicas: u32, version: u32) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, "version": format!("v{version}")}},
                "spec": {"containers": [{
                    "name": "main",
                    "image": format!("example/{name}:{version}"),
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }]},
            },
        },
    })
}

fn faults(rng: &mut Rng, spec: &mut ScenarioSpec, nodes: u32, deployments: &[String]) {
    let controllers = spec.controllers.replicas;
    for _ in 0..rng.u32(0..=8) {
        let at = Time::milliseconds(rng.u64(2_000..=FAULTS_UNTIL));
        let lasts = Some(Time::milliseconds(rng.u64(200..=15_000)));
        let node = |rng: &mut Rng| format!("node-{}", rng.u32(0..nodes));
        let controller = |rng: &mut Rng| format!("controllers-{}", rng.u32(0..controllers));
        let any = |rng: &mut Rng| match rng.bool() {
            true => node(rng),
            false => controller(rng),
        };
        let mut event = Event {
            at,
            lasts,
            ..Event::default()
        };
        match rng.u32(0..9) {
            0 => event.cut = vec![any(rng)],
            1 => {
                event.cut = (0..rng.u32(1..=nodes))
                    .map(|i| format!("node-{i}"))
                    .collect()
            }
            2 => event.crash = vec![any(rng)],
            3 => event.power_off = vec![node(rng)],
            4 => event.freeze = vec![any(rng)],
            5 => event.restart = vec![any(rng)],
            6 => {
                event.compact = true;
                event.lasts = None;
            }
            7 => match deployments.get(rng.usize(0..deployments.len().max(1))) {
                Some(name) => event.corrupt = vec![format!("deployments/default/{name}")],
                None => continue,
            },
            _ => {
                event.network = Some(Network {
                    lost_requests: rng.f64() * 0.2,
                    lost_answers: rng.f64() * 0.2,
                    late_writes: rng.f64() * 0.2,
                    broken_watches: rng.f64() * 0.1,
                    min_delay: Time::milliseconds(1),
                    max_delay: Time::milliseconds(rng.u64(5..=300)),
                });
            }
        }
        spec.timeline.push(event);
    }
}
