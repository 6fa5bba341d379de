//! The standard scenarios: a cluster, workloads that come, change and go, and faults, all drawn from one seed.

mod budgets;
mod claims;
mod faults;
mod jobs;
mod namespaces;
mod quotas;
mod rollouts;
mod workloads;

use std::collections::BTreeMap;

use fastrand::Rng;
use setpoint_apis::{ObjectMeta, ResourceList};

use crate::fnv::Fnv;
use crate::scenario::{
    AtWrite, Controllers, Event, Network, NodeGroup, Scenario, ScenarioSpec, Strike, Time,
};

/// Until when faults begin, in milliseconds.
const FAULTS_UNTIL: u64 = 60_000;
/// How long a fault lasts at most, in milliseconds.
const LONGEST_FAULT: u64 = 15_000;

/// How big a cluster is.
#[derive(Clone, Copy, Debug)]
struct Size {
    nodes: u32,
    controllers: u32,
    /// Pods that Deployments may ask for in all.
    pods: u32,
}

/// The standard scenario of a seed.
pub fn standard(seed: u64) -> Scenario {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "scenario"));
    // Few are large, as they take as long as all the others together.
    let large = rng.u32(0..250) == 0;
    let nodes = if large {
        rng.u32(50..=100)
    } else {
        rng.u32(3..=12)
    };
    let (mut controllers, split) = (rng.u32(1..=3), split(seed));
    if split.is_some() {
        controllers = controllers.max(2);
    }
    let size = Size {
        nodes,
        controllers,
        pods: match large {
            true => rng.u32(500..=1000),
            // As much as the cluster holds with two nodes less.
            false => nodes.saturating_sub(2).max(1) * 15,
        },
    };
    let mut spec = ScenarioSpec {
        seed: Some(seed),
        controllers: Controllers {
            replicas: size.controllers,
            shard: split.iter().map(|_| "gc".to_owned()).collect(),
            unsharded: split.unwrap_or_default(),
            ..Controllers::default()
        },
        nodes: vec![NodeGroup {
            name: "node".to_owned(),
            count: nodes,
            capacity: capacity(&mut rng),
            labels: BTreeMap::new(),
            start_latency: Time::milliseconds(rng.u64(0..=500)),
            stop_latency: Time::milliseconds(rng.u64(0..=500)),
            lease: Time::seconds(6),
        }],
        network: network(&mut rng),
        clock_error: Time::milliseconds([0, 50, 2_000][rng.usize(0..3)]),
        settle: Time::seconds(120),
        quiet: Time::seconds(60),
        ..ScenarioSpec::default()
    };
    let deployments = workloads::add(&mut rng, &mut spec, size);
    faults::add(&mut rng, &mut spec, size, &deployments);
    moves(seed, &mut spec);
    jobs::add(seed, &mut spec);
    budgets::add(seed, &mut spec);
    claims::add(seed, &mut spec);
    namespaces::add(seed, &mut spec);
    quotas::add(seed, &mut spec);
    rollouts::add(seed, &mut spec);
    strikes(seed, &mut spec);
    // However bad it was: from here on the network is good, and everything that died has been started again.
    spec.timeline.push(Event {
        at: Time::milliseconds(FAULTS_UNTIL + 2 * LONGEST_FAULT),
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

/// For half of the seeds, pods that are to be moved while all else happens. By luck of its own, as below.
fn moves(seed: u64, spec: &mut ScenarioSpec) {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "moves"));
    if rng.bool() {
        return;
    }
    for _ in 0..rng.u32(1..=8) {
        spec.timeline.push(Event {
            at: Time::milliseconds(rng.u64(2_000..=FAULTS_UNTIL)),
            moves: rng.u32(1..=6),
            ..Event::default()
        });
    }
}

/// For a third of the seeds, faults that strike at single writes of the controllers that make and bind pods. By luck of its
/// own. What dies of it is not started again, so one process stays.
fn strikes(seed: u64, spec: &mut ScenarioSpec) {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "strikes"));
    if rng.u32(0..3) > 0 {
        return;
    }
    let mut may_die = spec.controllers.replicas.saturating_sub(1);
    for _ in 0..rng.u32(1..=3) {
        let strike = Strike::ALL[rng.usize(..Strike::ALL.len())];
        let dies = matches!(strike, Strike::CrashBefore | Strike::CrashAfter);
        if dies && may_die == 0 {
            continue;
        }
        may_die -= u32::from(dies);
        spec.at_writes.push(AtWrite {
            controller: ["workloads", "scheduler", "gc"][rng.usize(0..3)].to_owned(),
            write: rng.u64(1..=60),
            strike,
        });
    }
}

/// For a third of the seeds, in which controllers share work: how many of the processes do not, as when they are changed
/// over. By luck of its own, which leaves all other seeds as they are.
fn split(seed: u64) -> Option<u32> {
    let mut rng = Rng::with_seed(Fnv::seed(seed, "split"));
    (rng.u32(0..3) == 0).then(|| u32::from(rng.u32(0..4) == 0))
}

/// Now and then so little that pods wait for the room of others.
fn capacity(rng: &mut Rng) -> ResourceList {
    match rng.u32(0..6) {
        0 => ResourceList::from([("cpu".into(), "600m".parse().unwrap_or_default())]),
        _ => ResourceList::new(),
    }
}

fn network(rng: &mut Rng) -> Network {
    // Most seeds have some bad luck, some have none and some have much.
    let much = [0.0, 0.002, 0.02][rng.usize(0..3)];
    let mut share = || share(rng, much);
    Network {
        lost_requests: share(),
        lost_answers: share(),
        late_writes: share(),
        broken_watches: share(),
        min_delay: Time::milliseconds(1),
        max_delay: Time::milliseconds(rng.u64(1..=30)),
        ..Network::default()
    }
}

/// A share of at most `most`, that is easily read.
fn share(rng: &mut Rng, most: f64) -> f64 {
    (rng.f64() * most * 10_000.0).round() / 10_000.0
}
