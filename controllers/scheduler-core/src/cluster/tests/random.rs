//! Random clusters: what is kept as things change against what a cluster that is told everything at once says, groups
//! of nodes against single nodes, and victims against what happens without them.

use proptest::prelude::*;
use setpoint_apis::core::{Taint, TaintEffect};

use super::*;
use crate::{BudgetState, ReservationFacts};

#[derive(Clone, Debug)]
enum Step {
    Node(usize, Shape),
    RemoveNode(usize),
    Namespace(usize, Option<u8>),
    Reserve(Option<usize>, u8),
    Schedule(usize, Ask),
    Place(usize, usize, Ask),
    Nominate(usize, usize, Ask, usize),
    Forget(usize),
    Look(Ask),
}

#[derive(Clone, Debug)]
struct Shape {
    cpu: i64,
    zone: Option<u8>,
    rack: Option<u8>,
    tainted: bool,
    measured: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
struct Ask {
    spec: usize,
    app: u8,
    namespace: u8,
    priority: i32,
}

const SPECS: &[&str] = &[
    "",
    "hostNetwork: true",
    "nodeSelector: {zone: '1'}",
    "tolerations: [{key: k, operator: Exists}]",
    // Anti-affinity to pods like itself, by host, zone and rack.
    "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: a0}}, topologyKey: host}]}}",
    "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: a1}}, topologyKey: zone}]}}",
    "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [a2]}]}, topologyKey: rack, namespaceSelector: {matchLabels: {team: t1}}}]}}",
    // Affinity.
    "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: a0}}, topologyKey: zone}]}}",
    "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: a1}}, topologyKey: rack}, {labelSelector: {matchExpressions: [{key: app, operator: Exists}]}, topologyKey: zone, namespaces: [n0, n1]}]}}",
    "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}, matchLabelKeys: [app], topologyKey: host}]}}",
    // Preferences.
    "affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 7, podAffinityTerm: {labelSelector: {matchLabels: {app: a0}}, topologyKey: zone}}]}, podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 3, podAffinityTerm: {labelSelector: {matchLabels: {app: a1}}, topologyKey: host}}, {weight: 5, podAffinityTerm: {labelSelector: {}, mismatchLabelKeys: [app], namespaceSelector: {}, topologyKey: rack}}]}}",
    // Spreading.
    "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchExpressions: [{key: app, operator: Exists}]}}]",
    "topologySpreadConstraints: [{maxSkew: 1, topologyKey: host, whenUnsatisfiable: DoNotSchedule, nodeTaintsPolicy: Honor, labelSelector: {matchLabels: {app: a0}}}]",
    "topologySpreadConstraints: [{maxSkew: 2, topologyKey: rack, whenUnsatisfiable: DoNotSchedule, minDomains: 3, labelSelector: {}, matchLabelKeys: [app]}, {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}]",
    "topologySpreadConstraints: [{maxSkew: 1, topologyKey: host, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}]\nnodeSelector: {zone: '1'}",
    "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, nodeAffinityPolicy: Ignore, labelSelector: {matchLabels: {app: a1}}}]\nnodeSelector: {rack: '0'}",
    "preemptionPolicy: Never",
    "nodeName: n2",
    "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [n1]}]}]}}, podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: a0}}, topologyKey: zone}]}}",
];

fn spec_of(ask: Ask) -> &'static PodSpec {
    static ALL: std::sync::OnceLock<Vec<PodSpec>> = std::sync::OnceLock::new();
    let one = |(n, more): (usize, &&str)| {
        let port = match n % 5 {
            1 => "ports: [{containerPort: 80, hostPort: 80}], ",
            _ => "",
        };
        spec(&format!(
            "containers: [{{name: a, image: host, {port}resources: {{requests: {{cpu: {}}}}}}}]\n{more}",
            1 + n % 2
        ))
    };
    &ALL.get_or_init(|| SPECS.iter().enumerate().map(one).collect())[ask.spec]
}

fn shape() -> impl Strategy<Value = Shape> {
    let key = || proptest::option::weighted(0.85, 0..3_u8);
    let measured = proptest::option::weighted(0.2, 0..8000_i64);
    (
        1..7_i64,
        key(),
        key(),
        proptest::bool::weighted(0.15),
        measured,
    )
        .prop_map(|(cpu, zone, rack, tainted, measured)| Shape {
            cpu,
            zone,
            rack,
            tainted,
            measured,
        })
}

fn ask() -> impl Strategy<Value = Ask> {
    (0..SPECS.len(), 0..3_u8, 0..2_u8, 0..4_i32).prop_map(|(spec, app, namespace, priority)| Ask {
        spec,
        app,
        namespace,
        priority,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let (pod, node) = (0..20_usize, 0..7_usize);
    prop_oneof![
        4 => (node.clone(), shape()).prop_map(|(n, s)| Step::Node(n, s)),
        1 => node.clone().prop_map(Step::RemoveNode),
        1 => (0..2_usize, proptest::option::of(0..3_u8)).prop_map(|(n, t)| Step::Namespace(n, t)),
        1 => (proptest::option::of(node.clone()), 0..3_u8).prop_map(|(n, a)| Step::Reserve(n, a)),
        8 => (pod.clone(), ask()).prop_map(|(p, a)| Step::Schedule(p, a)),
        4 => (pod.clone(), node.clone(), ask()).prop_map(|(p, n, a)| Step::Place(p, n, a)),
        1 => (pod.clone(), node, ask(), pod.clone()).prop_map(|(p, n, a, v)| Step::Nominate(p, n, a, v)),
        3 => pod.prop_map(Step::Forget),
        4 => ask().prop_map(Step::Look),
    ]
}

/// What there is, told in one go to a new cluster when it is wanted.
#[derive(Clone, Default)]
struct Model {
    nodes: BTreeMap<usize, Shape>,
    namespaces: BTreeMap<usize, u8>,
    reservation: Option<(Option<usize>, u8)>,
    /// Node, ask, since.
    pods: BTreeMap<usize, (String, Ask, i64)>,
    nominated: BTreeMap<usize, (String, Ask, usize)>,
}

fn facts(n: usize, s: &Shape) -> NodeFacts {
    let label = |k: &str, v: Option<u8>| v.map(|v| (k.to_owned(), v.to_string()));
    let host = Some(("host".to_owned(), format!("h{n}")));
    let labels = [host, label("zone", s.zone), label("rack", s.rack)];
    let taint = Taint {
        key: "k".into(),
        effect: TaintEffect::NoSchedule,
        ..Taint::default()
    };
    NodeFacts {
        labels: labels.into_iter().flatten().collect(),
        taints: s.tainted.then_some(taint).into_iter().collect(),
        usage: s.measured.map(|m| crate::Usage {
            cpu_milli: m,
            memory_bytes: 1 << 30,
        }),
        ..node(&format!("n{n}"), &s.cpu.to_string())
    }
}

fn reservation(node: Option<usize>, app: u8) -> ReservationFacts {
    ReservationFacts {
        key: ObjectKey::cluster("r"),
        owner: setpoint_apis::LabelSelector::labels([("app".into(), format!("a{app}"))].into()),
        namespaces: vec!["n0".into()],
        resources: [("cpu".to_owned(), "3".parse().unwrap())].into(),
        node: node.map(|n| format!("n{n}").into()),
    }
}

fn class(c: &mut Cluster, ask: Ask) -> Class {
    c.class(&PodAsk {
        namespace: &format!("n{}", ask.namespace),
        labels: &[("app".to_owned(), format!("a{}", ask.app))].into(),
        spec: spec_of(ask),
        priority: ask.priority,
        profile: Profile::default(),
    })
}

fn team(t: u8) -> BTreeMap<String, String> {
    [("team".to_owned(), format!("t{t}"))].into()
}

impl Model {
    fn cluster(&self, coarse_most: Option<u32>) -> Cluster {
        let mut c = Cluster::new();
        c.state.registry.coarse_most = coarse_most;
        for (n, t) in &self.namespaces {
            c.set_namespace(&format!("n{n}"), &team(*t));
        }
        for (n, s) in self.nodes.iter().rev() {
            c.set_node(facts(*n, s));
        }
        for (p, (node, ask, since)) in self.pods.iter().rev() {
            let class = class(&mut c, *ask);
            c.place(&pod(*p), node, &class, *since);
        }
        for (p, (node, ask, victim)) in &self.nominated {
            let class = class(&mut c, *ask);
            c.nominate(&pod(*p), node, &class, &[pod(*victim)]);
        }
        if let Some((node, app)) = self.reservation {
            c.set_reservation(reservation(node, app));
        }
        c
    }

    fn forget(&mut self, p: usize) -> bool {
        self.pods.remove(&p).is_some() | self.nominated.remove(&p).is_some()
    }
}

/// What keeps a pod of the class off each node, read node by node.
fn reasons_by_node(c: &mut Cluster, class: &Class) -> BTreeMap<String, Vec<Reason>> {
    let id = c.shape(class);
    c.refresh(id);
    let shape = &c.shapes[id];
    let admission = &c.admissions[shape.kind.admission];
    let present = c
        .state
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, n)| n.facts.is_some());
    present
        .map(|(slot, n)| {
            let found = shape.findings(slot as u32, admission, &c.state);
            (
                n.name.to_string(),
                found.into_iter().map(|f| f.reason).collect(),
            )
        })
        .collect()
}

fn budgets(pod: &ObjectKey) -> BudgetState {
    let n: u32 = pod.name[1..].parse().unwrap();
    let budgets = if n.is_multiple_of(3) {
        vec![(ObjectKey::cluster("b"), n % 2)]
    } else {
        Vec::new()
    };
    BudgetState { budgets }
}

fn same_answers(
    c: &mut Cluster,
    model: &Model,
    ask: Ask,
    coarse: Option<u32>,
) -> Result<(), TestCaseError> {
    let mut fresh = model.cluster(coarse);
    let (mine, theirs) = (class(c, ask), class(&mut fresh, ask));
    let by_node = reasons_by_node(c, &mine);
    prop_assert_eq!(&by_node, &reasons_by_node(&mut fresh, &theirs));
    let open: Vec<_> = by_node
        .iter()
        .filter(|(_, r)| r.is_empty())
        .map(|(n, _)| n.clone())
        .collect();
    let scores = c.breakdown(&mine, 99);
    prop_assert_eq!(&scores, &fresh.breakdown(&theirs, 99));
    let mut can: Vec<_> = scores.iter().map(|s| s.node.to_string()).collect();
    can.sort();
    prop_assert_eq!(&can, &open);
    prop_assert_eq!(c.has_room(&mine), !open.is_empty());
    let (why, again) = (c.explain(&mine), fresh.explain(&theirs));
    prop_assert_eq!(&why, &again);
    // Whom it may displace.
    let request = |class| PodRequest {
        pod: pod(99),
        class,
    };
    let found = c.preempt(&request(mine.clone()), &budgets);
    let harm = |p: &Option<crate::Preemption>| p.as_ref().map(|p| (p.violations, p.victims.len()));
    let other = fresh.preempt(&request(theirs), &budgets);
    prop_assert_eq!(harm(&found), harm(&other), "{:?} {:?}", found, other);
    if mine.may_preempt() {
        prop_assert_eq!(found.is_some(), why.preemption == Some(true));
    } else {
        prop_assert_eq!(&found, &None);
    }
    if let Some(found) = found {
        let without = |kept: Option<&ObjectKey>| {
            let mut less = model.clone();
            less.pods.retain(|p, known| {
                let key = pod(*p);
                let mut waiting = model.nominated.values();
                let leaves = known.0 == *found.node && waiting.any(|n| n.0 == known.0 && n.2 == *p);
                Some(&key) == kept || !(leaves || found.victims.contains(&key))
            });
            let mut c = less.cluster(coarse);
            let class = class(&mut c, ask);
            reasons_by_node(&mut c, &class)[&*found.node].is_empty()
        };
        prop_assert!(without(None), "{:?} is not enough", found);
        for victim in &found.victims {
            let n: usize = victim.name[1..].parse().unwrap();
            prop_assert!(model.pods[&n].1.priority < ask.priority);
            prop_assert!(!without(Some(victim)), "{} can stay: {:?}", victim, found);
        }
    }
    Ok(())
}

fn apply(
    c: &mut Cluster,
    model: &mut Model,
    step: Step,
    n: usize,
    seed: u64,
) -> Result<(), TestCaseError> {
    match step {
        Step::Node(n, s) => {
            c.set_node(facts(n, &s));
            model.nodes.insert(n, s);
        }
        Step::RemoveNode(n) => {
            prop_assert_eq!(
                c.remove_node(&format!("n{n}")),
                model.nodes.remove(&n).is_some()
            );
        }
        Step::Namespace(n, Some(t)) => {
            c.set_namespace(&format!("n{n}"), &team(t));
            model.namespaces.insert(n, t);
        }
        Step::Namespace(n, None) => {
            let was = model.namespaces.remove(&n).is_some();
            prop_assert_eq!(c.remove_namespace(&format!("n{n}")), was);
        }
        Step::Reserve(node, app) => {
            c.set_reservation(reservation(node, app));
            model.reservation = Some((node, app));
        }
        Step::Schedule(p, ask) => {
            model.forget(p);
            let class = class(c, ask);
            c.forget(&pod(p));
            let best = c.breakdown(&class, 99);
            let request = PodRequest { pod: pod(p), class };
            match c.schedule(&[request], seed).remove(0) {
                Decision::Bind(b) => {
                    prop_assert_eq!(b.feasible as usize, best.len());
                    prop_assert_eq!(b.score, best[0].score);
                    prop_assert!(best.iter().any(|s| s.node == b.node && s.score == b.score));
                    prop_assert_eq!(b.runner_up.map(|r| r.score), best.get(1).map(|s| s.score));
                    let since = c.state.pod(&pod(p)).unwrap().since;
                    model.pods.insert(p, (b.node.to_string(), ask, since));
                }
                Decision::Unschedulable(_) => prop_assert!(best.is_empty()),
            }
        }
        Step::Place(p, node, ask) => {
            model.forget(p);
            c.forget(&pod(p));
            let class = class(c, ask);
            c.place(&pod(p), &format!("n{node}"), &class, n as i64);
            model.pods.insert(p, (format!("n{node}"), ask, n as i64));
        }
        Step::Nominate(p, node, ask, victim) => {
            model.forget(p);
            let class = class(c, ask);
            c.nominate(&pod(p), &format!("n{node}"), &class, &[pod(victim)]);
            model.nominated.insert(p, (format!("n{node}"), ask, victim));
            let gone = model
                .pods
                .get(&victim)
                .is_none_or(|v| v.0 != format!("n{node}"));
            let fits = c.nominated_fits(&pod(p));
            prop_assert!(gone || !fits);
        }
        Step::Forget(p) => {
            prop_assert_eq!(c.forget(&pod(p)), model.forget(p));
        }
        Step::Look(_) => {}
    }
    prop_assert_eq!(c.placed_count(), model.pods.len());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_is_kept_is_what_a_cluster_told_at_once_says(
        steps in proptest::collection::vec(step(), 1..60),
        // All keys coarse, all fine, and turning from one to the other.
        (mine, theirs) in proptest::sample::select(vec![(Some(99), Some(0)), (Some(0), Some(99)), (Some(2), None)]),
        seed: u64,
    ) {
        let mut c = Cluster::new();
        c.state.registry.coarse_most = mine;
        let mut model = Model::default();
        for (n, step) in steps.into_iter().enumerate() {
            if let Step::Look(ask) | Step::Schedule(_, ask) = &step {
                same_answers(&mut c, &model, *ask, theirs)?;
            }
            apply(&mut c, &mut model, step, n, seed)?;
        }
        for spec in 0..SPECS.len() {
            let ask = Ask { spec, app: (spec % 3) as u8, namespace: 0, priority: 2 };
            same_answers(&mut c, &model, ask, theirs)?;
        }
    }
}
