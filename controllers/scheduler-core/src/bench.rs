//! How many pods per second the core places: the cases, what they are made of, and the measuring.
//!
//! The clock is handed in: it gives the time since whenever it began. Every case builds a cluster of equal nodes in ten zones, makes the requests, and measures the decisions alone. The
//! time of preemption includes everything that a scheduler does with the core for a preemptor: the failed attempt, the
//! choice of victims, the nomination, the removal of the victims, and the binding.

use std::collections::BTreeMap;
use std::time::Duration;

use setpoint_apis::core::{
    Affinity, Container, PodAffinity, PodAffinityTerm, PodSpec, ResourceRequirements,
    TopologySpreadConstraint,
};
use setpoint_apis::{LabelSelector, ObjectKey, Quantity};

use crate::{BudgetState, Class, Cluster, Decision, NodeFacts, PodAsk, PodRequest, Profile};

/// How many pods are decided on in one call, as the scheduler does.
const BATCH: usize = 500;
const ZONES: usize = 10;
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// How many nodes there are where nobody says another number.
pub const USUAL_NODES: usize = 5_000;
/// For which numbers of nodes the growth of the cost is measured.
pub const GROWTH_NODES: [usize; 5] = [500, 1_000, 2_000, 5_000, 10_000];

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// Equal pods.
    Basic,
    /// Pods of so many classes, taking turns.
    Classes(usize),
    /// Pods that must be in the zone of others like them.
    Affinity,
    /// Pods that must not share a node with others like them.
    AntiAffinity,
    /// Pods of a hundred groups, each of which must not share a zone with others of its group.
    AntiAffinityZone,
    /// Pods that must be spread over zones.
    Spread,
    /// Pods that must be spread over nodes.
    SpreadHostname,
    /// Preemptors, as many as nodes or fewer, on nodes that pods of lower priority fill.
    Preemption,
    /// The same where a disruption budget that allows nothing more protects all of these pods.
    PreemptionAgainstBudgets,
    /// Gangs of ten.
    Gang,
}

impl Case {
    /// Every case.
    pub const ALL: [Self; 11] = [
        Self::Basic,
        Self::Classes(20),
        Self::Classes(200),
        Self::Affinity,
        Self::AntiAffinity,
        Self::AntiAffinityZone,
        Self::Spread,
        Self::SpreadHostname,
        Self::Preemption,
        Self::PreemptionAgainstBudgets,
        Self::Gang,
    ];

    /// How many pods are worth measuring on so many nodes.
    pub fn usual_pods(self, nodes: usize) -> usize {
        match self {
            Self::Basic | Self::Classes(_) | Self::Gang => 20_000,
            // Each looks at all nodes, since one might do without breaking the budget.
            Self::PreemptionAgainstBudgets => nodes.min(200),
            // One to a node is what fits.
            Self::AntiAffinity | Self::Preemption => nodes.min(5_000),
            _ => 5_000,
        }
    }

    /// A word for tables.
    pub fn name(self) -> String {
        match self {
            Self::Basic => "basic".into(),
            Self::Classes(n) => format!("classes-{n}"),
            Self::Affinity => "affinity".into(),
            Self::AntiAffinity => "anti-affinity".into(),
            Self::AntiAffinityZone => "anti-affinity-zone".into(),
            Self::Spread => "spread".into(),
            Self::SpreadHostname => "spread-hostname".into(),
            Self::Preemption => "preemption".into(),
            Self::PreemptionAgainstBudgets => "preemption-budgets".into(),
            Self::Gang => "gang".into(),
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The case.
    pub case: Case,
    /// How many nodes there were.
    pub nodes: usize,
    /// How many pods were decided on.
    pub pods: usize,
    /// How many of them got a node.
    pub bound: usize,
    /// How long that took.
    pub took: Duration,
}

impl Measured {
    /// Pods decided on per second.
    pub fn pods_per_second(&self) -> f64 {
        self.pods as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Seconds per pod.
    pub fn seconds_per_pod(&self) -> f64 {
        self.took.as_secs_f64() / self.pods.max(1) as f64
    }
}

/// Measures a case once, by `clock`.
pub fn run(case: Case, nodes: usize, pods: usize, clock: &dyn Fn() -> Duration) -> Measured {
    let mut cluster = cluster(nodes);
    if let Case::Preemption | Case::PreemptionAgainstBudgets = case {
        return preemption(case, cluster, nodes, pods, clock);
    }
    let requests: Vec<PodRequest> = (0..pods)
        .map(|p| PodRequest {
            pod: ObjectKey::namespaced("default", format!("p{p}")),
            class: class(&mut cluster, case, p),
        })
        .collect();
    let start = clock();
    let mut bound = 0;
    let is_bound = |d: &&Decision| matches!(d, Decision::Bind(_));
    if case == Case::Gang {
        for gang in requests.chunks(10) {
            let decisions = cluster
                .schedule_gang(gang, gang.len(), 42)
                .unwrap_or_default();
            bound += decisions.iter().filter(is_bound).count();
        }
    } else {
        for batch in requests.chunks(BATCH) {
            let decisions = cluster.schedule(batch, 42);
            bound += decisions.iter().filter(is_bound).count();
        }
    }
    Measured {
        case,
        nodes,
        pods,
        bound,
        took: clock().saturating_sub(start),
    }
}

/// The exponent with which the time per pod grows with the number of nodes: the slope of the line through the logarithms
/// of both, by least squares.
pub fn exponent(measured: &[Measured]) -> f64 {
    let points = measured
        .iter()
        .map(|m| ((m.nodes.max(1) as f64).ln(), m.seconds_per_pod().ln()));
    let points: Vec<(f64, f64)> = points.collect();
    let n = points.len().max(1) as f64;
    let mean = (
        points.iter().map(|p| p.0).sum::<f64>() / n,
        points.iter().map(|p| p.1).sum::<f64>() / n,
    );
    let both: f64 = points.iter().map(|p| (p.0 - mean.0) * (p.1 - mean.1)).sum();
    let square: f64 = points.iter().map(|p| (p.0 - mean.0).powi(2)).sum();
    if square > 0.0 { both / square } else { 0.0 }
}

fn preemption(
    case: Case,
    mut cluster: Cluster,
    nodes: usize,
    pods: usize,
    clock: &dyn Fn() -> Duration,
) -> Measured {
    // Four pods fill a node: all of its cpu is requested.
    let low: Vec<Class> = (0..4)
        .map(|p| asked(&mut cluster, &requesting(8000, 1024), "low", p))
        .collect();
    for p in 0..nodes * 4 {
        let pod = ObjectKey::namespaced("default", format!("low-{p}"));
        cluster.place(&pod, &format!("n{}", p % nodes), &low[p % 4], p as i64);
    }
    let high = asked(&mut cluster, &requesting(8000, 1024), "high", 100);
    let requests: Vec<PodRequest> = (0..pods)
        .map(|p| PodRequest {
            pod: ObjectKey::namespaced("default", format!("high-{p}")),
            class: high.clone(),
        })
        .collect();
    let budget = BudgetState {
        budgets: match case {
            Case::PreemptionAgainstBudgets => vec![(ObjectKey::namespaced("default", "all"), 0)],
            _ => Vec::new(),
        },
    };
    let start = clock();
    let mut bound = 0;
    for batch in requests.chunks(BATCH) {
        let decisions = cluster.schedule(batch, 42);
        let mut waiting = Vec::new();
        for (request, decision) in batch.iter().zip(decisions) {
            if matches!(decision, Decision::Bind(_)) {
                bound += 1;
                continue;
            }
            if let Some(found) = cluster.preempt(request, &|_| budget.clone()) {
                cluster.nominate(&request.pod, &found.node, &request.class, &found.victims);
                waiting.push((request, found));
            }
        }
        for (request, found) in waiting {
            for victim in &found.victims {
                cluster.forget(victim);
            }
            if cluster.nominated_fits(&request.pod) {
                cluster.place(&request.pod, &found.node, &request.class, 0);
                bound += 1;
            }
        }
    }
    Measured {
        case,
        nodes,
        pods,
        bound,
        took: clock().saturating_sub(start),
    }
}

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new();
    for n in 0..nodes {
        cluster.set_node(NodeFacts {
            name: format!("n{n}").into(),
            labels: [
                (HOSTNAME.to_owned(), format!("n{n}")),
                (ZONE.to_owned(), format!("z{}", n % ZONES)),
            ]
            .into(),
            drivers: vec!["hollow".into()],
            allocatable: [
                ("cpu".to_owned(), Quantity::from_whole(32)),
                ("memory".to_owned(), Quantity::from_bytes(128 << 30)),
                ("pods".to_owned(), Quantity::from_whole(110)),
            ]
            .into(),
            ..NodeFacts::default()
        });
    }
    cluster
}

fn class(cluster: &mut Cluster, case: Case, p: usize) -> Class {
    let n = match case {
        Case::Classes(classes) => p % classes.max(1),
        _ => 0,
    };
    let mut spec = requesting(100 + n as i64, 128 + n as i64);
    let app = match case {
        Case::AntiAffinityZone => format!("app{}", p / ZONES),
        _ => "app".to_owned(),
    };
    let selector = LabelSelector::labels([("app".to_owned(), app.clone())].into());
    let term = |key: &str| PodAffinity {
        required_during_scheduling_ignored_during_execution: vec![PodAffinityTerm {
            label_selector: Some(selector.clone()),
            topology_key: key.into(),
            ..PodAffinityTerm::default()
        }],
        ..PodAffinity::default()
    };
    let spread = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.into(),
        label_selector: Some(selector.clone()),
        ..TopologySpreadConstraint::default()
    };
    let away = |key: &str| {
        Box::new(Affinity {
            pod_anti_affinity: Some(term(key)),
            ..Affinity::default()
        })
    };
    match case {
        Case::Affinity => {
            spec.affinity = Some(Box::new(Affinity {
                pod_affinity: Some(term(ZONE)),
                ..Affinity::default()
            }));
        }
        Case::AntiAffinity => spec.affinity = Some(away(HOSTNAME)),
        Case::AntiAffinityZone => spec.affinity = Some(away(ZONE)),
        Case::Spread => spec.topology_spread_constraints = vec![spread(ZONE)],
        Case::SpreadHostname => spec.topology_spread_constraints = vec![spread(HOSTNAME)],
        Case::Basic
        | Case::Classes(_)
        | Case::Preemption
        | Case::PreemptionAgainstBudgets
        | Case::Gang => {}
    }
    asked(cluster, &spec, &app, 0)
}

fn asked(cluster: &mut Cluster, spec: &PodSpec, app: &str, priority: i32) -> Class {
    cluster.class(&PodAsk {
        namespace: "default",
        labels: &BTreeMap::from([("app".to_owned(), app.to_owned())]),
        spec,
        priority,
        profile: Profile::default(),
    })
}

fn requesting(cpu_milli: i64, memory_mib: i64) -> PodSpec {
    PodSpec {
        containers: vec![Container {
            name: "a".into(),
            image: "host".into(),
            resources: Some(ResourceRequirements {
                requests: [
                    ("cpu".to_owned(), Quantity::from_milli(cpu_milli)),
                    ("memory".to_owned(), Quantity::from_bytes(memory_mib << 20)),
                ]
                .into(),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn every_case_places_every_pod() {
        for case in Case::ALL {
            let ticks = Cell::new(0);
            let clock = || {
                ticks.set(ticks.get() + 3);
                Duration::from_secs(ticks.get())
            };
            let measured = run(case, 100, 100, &clock);
            assert_eq!(measured.bound, 100, "{}", case.name());
            assert_eq!(measured.took, Duration::from_secs(3), "{}", case.name());
        }
    }

    #[test]
    fn the_exponent_is_the_slope_of_the_logarithms() {
        let point = |nodes: usize, micros: u64| Measured {
            case: Case::Basic,
            nodes,
            pods: 1,
            bound: 1,
            took: Duration::from_micros(micros),
        };
        let linear = [point(10, 10), point(100, 100), point(1000, 1000)];
        assert!((exponent(&linear) - 1.0).abs() < 1e-9);
        let flat = [point(10, 7), point(1000, 7)];
        assert!(exponent(&flat).abs() < 1e-9);
        assert_eq!(exponent(&[]), 0.0);
    }
}
