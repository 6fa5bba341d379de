//! The incremental cluster against an exhaustive reference that shares no code with it: filters and scores are written
//! down again, over plain maps, and evaluated for every node before every decision.

use std::collections::BTreeMap;

use proptest::prelude::*;
use setpoint_apis::core::{PodSpec, Taint, TaintEffect};
use setpoint_apis::{ObjectKey, Quantity};
use setpoint_scheduler_core::{
    Class, Cluster, Decision, NodeFacts, NotReady, PodAsk, PodRequest, Profile,
};

#[derive(Clone, Debug)]
enum Step {
    Node(usize, Shape),
    RemoveNode(usize),
    Schedule(usize, usize),
    Place(usize, usize, usize),
    Forget(usize),
}

#[derive(Clone, Debug)]
struct Shape {
    cpu: i64,
    memory: i64,
    pods: i64,
    gpu: i64,
    zone: Option<u8>,
    taint: Option<TaintEffect>,
    unschedulable: bool,
    ready: bool,
    driver: &'static str,
}

fn shape() -> impl Strategy<Value = Shape> {
    let effect = prop_oneof![
        Just(TaintEffect::NoSchedule),
        Just(TaintEffect::PreferNoSchedule),
        Just(TaintEffect::NoExecute)
    ];
    let driver = prop_oneof![4 => Just("process"), 1 => Just("cri"), 1 => Just("hollow")];
    (
        (0..5_i64, 0..5_i64, 0..6_i64, 0..3_i64),
        (
            proptest::option::of(0..3_u8),
            proptest::option::weighted(0.3, effect),
            proptest::bool::weighted(0.1),
            proptest::bool::weighted(0.9),
        ),
        driver,
    )
        .prop_map(
            |((cpu, memory, pods, gpu), (zone, taint, unschedulable, ready), driver)| Shape {
                cpu,
                memory,
                pods,
                gpu,
                zone,
                taint,
                unschedulable,
                ready,
                driver,
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..7_usize, shape()).prop_map(|(n, s)| Step::Node(n, s)),
        1 => (0..7_usize).prop_map(Step::RemoveNode),
        8 => (0..25_usize, 0..SPECS.len()).prop_map(|(p, s)| Step::Schedule(p, s)),
        1 => (0..25_usize, 0..8_usize, 0..SPECS.len()).prop_map(|(p, n, s)| Step::Place(p, n, s)),
        3 => (0..25_usize).prop_map(Step::Forget),
    ]
}

const SPECS: &[&str] = &[
    "containers: [{name: a, image: host}]",
    "containers: [{name: a, image: host, resources: {requests: {cpu: 500m, memory: 1Gi}}}]",
    "containers: [{name: a, image: host, resources: {requests: {cpu: 1}}}]",
    "containers: [{name: a, image: nginx, resources: {requests: {memory: 1Gi}}}]",
    "containers: [{name: a, image: host, resources: {requests: {example.com/gpu: 1}}}]",
    "containers: [{name: a, image: host}]\nnodeSelector: {zone: '1'}",
    "containers: [{name: a, image: host}]\ntolerations: [{key: k, operator: Exists}]",
    "containers: [{name: a, image: host}]\nnodeName: n2",
    "containers: [{name: a, image: host}]\naffinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: NotIn, values: ['0']}]}, {matchExpressions: [{key: zone, operator: Lt, values: ['1']}, {key: zone, operator: Exists}]}]}}}",
    "containers: [{name: a, image: host}]\naffinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 3, preference: {matchExpressions: [{key: zone, operator: In, values: ['2']}]}}, {weight: 1, preference: {matchExpressions: [{key: zone, operator: DoesNotExist}]}}]}}",
];

/// The reference: what there is, as plain values.
#[derive(Default)]
struct Model {
    nodes: BTreeMap<String, Shape>,
    pods: BTreeMap<usize, (String, usize)>,
}

/// cpu (milli), memory (bytes), gpus.
fn requests(spec: usize) -> (i64, i64, i64) {
    match spec {
        1 => (500, 1 << 30, 0),
        2 => (1000, 0, 0),
        3 => (0, 1 << 30, 0),
        4 => (0, 0, 1),
        _ => (0, 0, 0),
    }
}

impl Model {
    fn on(&self, node: &str) -> impl Iterator<Item = usize> {
        self.pods
            .values()
            .filter(move |(n, _)| n == node)
            .map(|(_, s)| *s)
    }

    fn feasible(&self, name: &str, n: &Shape, spec: usize) -> bool {
        let (cpu, memory, gpu) = requests(spec);
        let used = self
            .on(name)
            .map(requests)
            .fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
        let tolerates = spec == 6;
        let named = spec == 7;
        let taint_ok = match n.taint {
            Some(TaintEffect::NoSchedule) => tolerates || named,
            Some(TaintEffect::NoExecute) => tolerates,
            _ => true,
        };
        let image_ok = if spec == 3 {
            n.driver != "process"
        } else {
            n.driver != "cri"
        };
        let labels_ok = match spec {
            5 => n.zone == Some(1),
            8 => n.zone != Some(0) || n.zone == Some(0),
            _ => true,
        };
        n.ready
            && (!n.unschedulable || named)
            && (!named || name == "n2")
            && taint_ok
            && image_ok
            && labels_ok
            && (self.on(name).count() as i64) < n.pods
            && (cpu == 0 || used.0 + cpu <= n.cpu * 1000)
            && (memory == 0 || used.1 + memory <= n.memory << 30)
            && (gpu == 0 || used.2 + gpu <= n.gpu)
    }

    fn score(&self, name: &str, n: &Shape, spec: usize) -> i64 {
        let weigh = |spec| {
            let (cpu, memory, _) = requests(spec);
            (
                if cpu == 0 { 100 } else { cpu },
                if memory == 0 { 200 << 20 } else { memory },
            )
        };
        let used = self
            .on(name)
            .map(weigh)
            .chain([weigh(spec)])
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let mut shares = Vec::new();
        if n.cpu > 0 {
            shares.push(1.0 - used.0 as f64 * (1.0 / (n.cpu * 1000) as f64));
        }
        if n.memory > 0 {
            shares.push(1.0 - used.1 as f64 * (1.0 / (n.memory << 30) as f64));
        }
        let least = if shares.is_empty() {
            0
        } else {
            (10_000.0 * shares.iter().sum::<f64>() / shares.len() as f64).floor() as i64
        };
        let avoided = if n.taint == Some(TaintEffect::PreferNoSchedule) && spec != 6 {
            30_000
        } else {
            0
        };
        let preferred = match (spec, n.zone) {
            (9, Some(2)) => 15_000,
            (9, None) => 5_000,
            _ => 0,
        };
        least + preferred - avoided
    }
}

fn facts(name: &str, n: &Shape) -> NodeFacts {
    let amount = |q: Quantity| q;
    NodeFacts {
        name: name.into(),
        session: 1,
        not_ready: (!n.ready).then_some(NotReady::Lost),
        unschedulable: n.unschedulable,
        labels: n
            .zone
            .map(|z| ("zone".to_owned(), z.to_string()))
            .into_iter()
            .collect(),
        taints: n
            .taint
            .map(|effect| Taint {
                key: "k".into(),
                effect,
                ..Taint::default()
            })
            .into_iter()
            .collect(),
        drivers: vec![n.driver.into()],
        allocatable: [
            ("cpu".to_owned(), amount(Quantity::from_whole(n.cpu))),
            (
                "memory".to_owned(),
                amount(Quantity::from_bytes(n.memory << 30)),
            ),
            ("pods".to_owned(), amount(Quantity::from_whole(n.pods))),
            (
                "example.com/gpu".to_owned(),
                amount(Quantity::from_whole(n.gpu)),
            ),
        ]
        .into(),
        ..NodeFacts::default()
    }
}

fn class_of(cluster: &mut Cluster, spec: &PodSpec) -> Class {
    cluster.class(&PodAsk {
        namespace: "default",
        labels: &BTreeMap::new(),
        spec,
        priority: 0,
        profile: Profile::default(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_decision_is_the_one_that_looking_at_every_node_gives(steps in proptest::collection::vec(step(), 1..80), seed: u64) {
        let specs: Vec<PodSpec> = SPECS.iter().map(|s| serde_yaml::from_str(s).unwrap()).collect();
        let mut cluster = Cluster::new();
        let mut model = Model::default();
        let key = |p: usize| ObjectKey::namespaced("default", format!("p{p}"));
        for step in steps {
            match step {
                Step::Node(n, shape) => {
                    let name = format!("n{n}");
                    cluster.set_node(facts(&name, &shape));
                    model.nodes.insert(name, shape);
                }
                Step::RemoveNode(n) => {
                    let name = format!("n{n}");
                    prop_assert_eq!(cluster.remove_node(&name), model.nodes.remove(&name).is_some());
                }
                Step::Place(p, n, s) => {
                    let name = format!("n{n}");
                    let class = class_of(&mut cluster, &specs[s]);
                    cluster.place(&key(p), &name, &class, 0);
                    model.pods.insert(p, (name, s));
                }
                Step::Forget(p) => {
                    prop_assert_eq!(cluster.forget(&key(p)), model.pods.remove(&p).is_some());
                }
                Step::Schedule(p, s) => {
                    model.pods.remove(&p);
                    let mut scores: Vec<(i64, String)> = model.nodes.iter()
                        .filter(|(name, n)| model.feasible(name, n, s))
                        .map(|(name, n)| (model.score(name, n, s), name.clone()))
                        .collect();
                    scores.sort();
                    let class = class_of(&mut cluster, &specs[s]);
                    // Asking does not change the answer.
                    cluster.forget(&key(p));
                    prop_assert_eq!(cluster.has_room(&class), !scores.is_empty());
                    let decision = cluster.schedule(&[PodRequest { pod: key(p), class }], seed).remove(0);
                    match decision {
                        Decision::Bind(b) => {
                            let best = scores.last().map(|s| s.0);
                            prop_assert_eq!(Some(b.score), best, "{:?} {:?}", b, scores);
                            prop_assert!(scores.contains(&(b.score, b.node.to_string())));
                            prop_assert_eq!(b.feasible as usize, scores.len());
                            prop_assert_eq!(b.nodes as usize, model.nodes.len());
                            let second = scores.iter().rev().filter(|(_, n)| **n != *b.node).map(|s| s.0).next();
                            prop_assert_eq!(b.runner_up.map(|r| r.score), second);
                            model.pods.insert(p, (b.node.to_string(), s));
                        }
                        Decision::Unschedulable(why) => {
                            prop_assert!(scores.is_empty(), "{:?} {:?}", why, scores);
                            prop_assert_eq!(why.nodes as usize, model.nodes.len());
                            let counted: u32 = why.reasons.values().sum();
                            prop_assert!(counted as usize >= model.nodes.len());
                        }
                    }
                }
            }
            prop_assert_eq!(cluster.placed_count(), model.pods.len());
        }
    }
}
