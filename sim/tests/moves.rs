//! Pods that are moved all the time, while leaders and nodes come and go. `SIM_SEEDS` sets how many seeds run, `SIM_FIRST`
//! with which one they begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use serde_json::json;
use setpoint_apis::ObjectMeta;
use setpoint_apis::records::PARTITION_POLICY;
use setpoint_sim::scenario::{
    Controllers, Event, Network, NodeGroup, Scenario, ScenarioSpec, Time,
};
use setpoint_sim::{Options, run};

const NODES: u32 = 5;
/// Until when something happens, in milliseconds.
const UNTIL: u64 = 60_000;
const SEEDS: u64 = 15;

fn scenario(seed: u64) -> Scenario {
    let mut rng = Rng::with_seed(seed);
    let at = |millis| Event {
        at: Time::milliseconds(millis),
        ..Event::default()
    };
    let mut timeline = vec![Event {
        apply: vec![deployment("web", 8, false), deployment("single", 4, true)],
        ..at(500)
    }];
    for _ in 0..40 {
        timeline.push(Event {
            moves: rng.u32(1..=3),
            ..at(rng.u64(3_000..=UNTIL))
        });
    }
    let node = |rng: &mut Rng| vec![format!("node-{}", rng.u32(0..NODES))];
    for _ in 0..rng.u32(2..=8) {
        let mut event = Event {
            lasts: Some(Time::milliseconds(rng.u64(200..=15_000))),
            ..at(rng.u64(3_000..=UNTIL))
        };
        let leader = vec![format!("controllers-{}", rng.u32(0..3))];
        match rng.u32(0..8) {
            0 => event.crash = leader,
            1 => event.freeze = leader,
            2 => event.cut = leader,
            3 => event.crash = node(&mut rng),
            4 => event.power_off = node(&mut rng),
            5 => event.cut = node(&mut rng),
            6 => event.freeze = node(&mut rng),
            _ => event.cordon = node(&mut rng),
        }
        timeline.push(event);
    }
    timeline.push(Event {
        network: Some(Network::default()),
        ..at(UNTIL + 16_000)
    });
    let bad = [0.0, 0.002, 0.01][rng.usize(0..3)];
    Scenario {
        metadata: ObjectMeta {
            name: format!("moves-{seed}"),
            ..ObjectMeta::default()
        },
        spec: ScenarioSpec {
            seed: Some(seed),
            controllers: Controllers {
                replicas: 3,
                ..Controllers::default()
            },
            nodes: vec![NodeGroup {
                name: "node".to_owned(),
                count: NODES,
                // Little enough that not everything can be moved at any time.
                capacity: [("cpu".to_owned(), "600m".parse().unwrap())].into(),
                labels: Default::default(),
                start_latency: Time::milliseconds(rng.u64(0..=5_000)),
                stop_latency: Time::milliseconds(rng.u64(0..=2_000)),
                lease: Time::seconds(6),
            }],
            network: Network {
                lost_requests: bad,
                lost_answers: bad,
                late_writes: bad,
                ..Network::default()
            },
            clock_error: Time::milliseconds([0, 2_000][rng.usize(0..2)]),
            timeline,
            settle: Time::seconds(180),
            quiet: Time::seconds(60),
            ..ScenarioSpec::default()
        },
        ..Scenario::default()
    }
}

fn deployment(name: &str, replicas: u32, never_twice: bool) -> serde_json::Value {
    let annotations = match never_twice {
        true => json!({PARTITION_POLICY: "stop"}),
        false => json!({}),
    };
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": annotations},
                "spec": {"containers": [{
                    "name": "main",
                    "image": "example/moves:1",
                    "resources": {"requests": {"cpu": "100m"}},
                }]},
            },
        },
    })
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |t| t.parse().expect("a number"))
}

#[test]
fn pods_are_moved_whatever_befalls_leaders_and_nodes() {
    let first = number("SIM_FIRST", 0);
    let seeds = number("SIM_SEEDS", SEEDS);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let report = run(&scenario(seed), seed, Options::default()).unwrap();
                    assert!(report.is_good(), "{report}");
                }
            });
        }
    });
}

#[test]
fn pods_come_to_run_on_other_nodes_though_no_node_was_lost() {
    let mut quiet = scenario(1);
    quiet.spec.timeline.retain(|e| e.lasts.is_none());
    let report = run(
        &quiet,
        1,
        Options {
            trace: true,
            ..Options::default()
        },
    )
    .unwrap();
    assert!(report.is_good(), "{report}");
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for write in report.trace.iter().filter(|w| !w.deleted) {
        let place = write.key.strip_prefix("/setpoint/actual/nodes/");
        if let Some((node, pod)) = place.and_then(|p| p.split_once("/pods/")) {
            places.entry(pod).or_default().insert(node);
        }
    }
    let moved = |of: &str| {
        let pods = places.iter().filter(|(pod, _)| pod.contains(of));
        pods.filter(|(_, nodes)| nodes.len() > 1).count()
    };
    assert!(moved("/web-") >= 3, "{places:?}");
    assert!(moved("/single-") >= 1, "{places:?}");
}
