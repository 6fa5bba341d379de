//! Pods with the partition policy `stop` under partitions, frozen and killed agents, and restarts that come late.
//!
//! Each run ends with one node that does not come back: its pods must run elsewhere, and before that they must have ended
//! where they were, whatever has become of their agent.

use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use serde_json::json;
use setpoint_apis::ObjectMeta;
use setpoint_apis::records::PARTITION_POLICY;
use setpoint_sim::scenario::{Event, Network, NodeGroup, Scenario, ScenarioSpec, Time};
use setpoint_sim::{Options, run};

const SEEDS: u64 = 80;
/// Until when faults begin, in milliseconds. The last ones go on for longer than a fence lease.
const FAULTS_UNTIL: u64 = 120_000;

fn scenario(seed: u64) -> Scenario {
    let mut rng = Rng::with_seed(seed);
    let nodes = rng.u32(3..=6);
    let mut spec = ScenarioSpec {
        nodes: vec![NodeGroup {
            name: "node".to_owned(),
            count: nodes,
            capacity: setpoint_apis::ResourceList::new(),
            labels: std::collections::BTreeMap::new(),
            start_latency: Time::milliseconds(rng.u64(0..=3_000)),
            // Some are slower than there is room for in the fence lease.
            stop_latency: Time::milliseconds([500, 5_000, 20_000][rng.usize(0..3)]),
            lease: Time::seconds(6),
        }],
        network: network(&mut rng, 0.01),
        settle: Time::seconds(180),
        quiet: Time::seconds(60),
        ..ScenarioSpec::default()
    };
    let replicas = rng.u32(1..=2 * nodes);
    spec.timeline.push(Event {
        at: Time::milliseconds(500),
        apply: vec![deployment(replicas), pod("single-0"), pod("single-1")],
        ..Event::default()
    });
    for _ in 0..rng.u32(2..=8) {
        let node = format!("node-{}", rng.u32(0..nodes));
        let mut event = Event {
            at: Time::milliseconds(rng.u64(3_000..=FAULTS_UNTIL)),
            lasts: Some(Time::milliseconds(rng.u64(500..=60_000))),
            ..Event::default()
        };
        match rng.u32(0..8) {
            0 | 1 => event.cut = vec![node],
            2 => event.freeze = vec![node],
            3 => event.crash = vec![node],
            4 => event.restart = vec![node],
            5 => event.power_off = vec![node],
            6 => event.freeze = vec!["controllers-0".to_owned()],
            _ => event.network = Some(network(&mut rng, 0.2)),
        }
        spec.timeline.push(event);
    }
    let over = FAULTS_UNTIL + 65_000;
    let mut last = Event {
        at: Time::milliseconds(over),
        network: Some(Network::default()),
        ..Event::default()
    };
    let lost = vec![format!("node-{}", rng.u32(0..nodes))];
    match rng.u32(0..3) {
        0 => last.cut = lost,
        1 => last.freeze = lost,
        _ => last.crash = lost,
    }
    spec.timeline.push(last);
    Scenario {
        metadata: ObjectMeta {
            name: format!("at-most-one-{seed}"),
            ..ObjectMeta::default()
        },
        spec,
        ..Scenario::default()
    }
}

fn network(rng: &mut Rng, worst: f64) -> Network {
    let mut share = || rng.f64() * worst;
    Network {
        lost_requests: share(),
        lost_answers: share(),
        late_writes: share(),
        broken_watches: share(),
        min_delay: Time::milliseconds(1),
        max_delay: Time::milliseconds(rng.u64(1..=100)),
        ..Network::default()
    }
}

fn spec() -> serde_json::Value {
    json!({"containers": [{
        "name": "main",
        "image": "example/single:1",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }]})
}

fn pod(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "annotations": {PARTITION_POLICY: "stop"}},
        "spec": spec(),
    })
}

fn deployment(replicas: u32) -> serde_json::Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {
                "metadata": {"labels": {"app": "many"}, "annotations": {PARTITION_POLICY: "stop"}},
                "spec": spec(),
            },
        },
    })
}

#[test]
fn a_stop_pod_never_runs_twice_and_runs_again_elsewhere() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |t| t.parse().expect("a number"))
    };
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
