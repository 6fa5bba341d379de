//! Documents from shapes.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::core::{
    Affinity, Container, ContainerPort, NodeAffinity, NodeSelector, NodeSelectorOperator,
    NodeSelectorRequirement, NodeSelectorTerm, PodAffinity, PodAffinityTerm, PodSpec,
    PreemptionPolicy, PreferredSchedulingTerm, Protocol, ResourceRequirements, RestartPolicy,
    Taint, TaintEffect, Toleration, TolerationOperator, TopologySpreadConstraint,
    UnsatisfiableAction, WeightedPodAffinityTerm,
};
use setpoint_apis::selector::{LabelSelector, LabelSelectorOperator, LabelSelectorRequirement};
use setpoint_apis::{Quantity, ResourceList};

use super::{
    NAMESPACES, Namespaces, NodeRule, NodeShape, PodShape, ReservationShape, Selects, Spread, Term,
};
use crate::world::{Node, Pod, Reservation};

const TOPOLOGIES: [&str; 3] = ["zone", "rack", "kubernetes.io/hostname"];
const SIZES: [&str; 4] = ["1", "5", "10", "large"];
const EFFECTS: [TaintEffect; 3] = [
    TaintEffect::NoSchedule,
    TaintEffect::NoExecute,
    TaintEffect::PreferNoSchedule,
];
const GIB: i64 = 1 << 30;

fn labels(pairs: &[(&str, Option<String>)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .filter_map(|(k, v)| Some(((*k).to_owned(), v.clone()?)))
        .collect()
}

fn value(prefix: &str, number: Option<u8>) -> Option<String> {
    number.map(|n| format!("{prefix}{n}"))
}

fn resources(cpu: u8, memory: u8, gpu: u8) -> ResourceList {
    let mut list = ResourceList::new();
    if cpu > 0 {
        list.insert("cpu".into(), Quantity::from_milli(i64::from(cpu) * 500));
    }
    if memory > 0 {
        list.insert(
            "memory".into(),
            Quantity::from_bytes(i64::from(memory) * GIB),
        );
    }
    if gpu > 0 {
        list.insert("example.com/gpu".into(), Quantity::from_whole(gpu.into()));
    }
    list
}

/// The labels of a namespace of this team.
pub fn namespace_labels(team: Option<u8>) -> BTreeMap<String, String> {
    labels(&[("team", value("t", team))])
}

/// The labels of a pod.
pub fn pod_labels(app: Option<u8>, rev: Option<u8>) -> BTreeMap<String, String> {
    labels(&[("app", value("a", app)), ("rev", value("r", rev))])
}

impl NodeShape {
    /// The node.
    pub fn node(&self, name: &str) -> Node {
        let size = self
            .size
            .map(|s| SIZES[usize::from(s) % SIZES.len()].to_owned());
        let mut allocatable = resources(self.cpu, self.memory, self.gpu);
        allocatable.insert("pods".into(), Quantity::from_whole(self.pods.into()));
        let mut taints: Vec<Taint> = Vec::new();
        for (key, number, effect) in &self.taints {
            let taint = Taint {
                key: format!("k{key}"),
                value: value("v", Some(*number)),
                effect: EFFECTS[usize::from(*effect) % EFFECTS.len()],
                time_added: None,
            };
            // Key and effect make a taint.
            if !taints
                .iter()
                .any(|t| (&t.key, t.effect) == (&taint.key, taint.effect))
            {
                taints.push(taint);
            }
        }
        Node {
            labels: labels(&[
                ("zone", value("z", self.zone)),
                ("rack", value("r", self.rack)),
                ("size", size),
                (TOPOLOGIES[2], Some(name.to_owned())),
            ]),
            taints,
            allocatable,
            ready: self.ready,
            cordoned: self.cordoned,
            images: BTreeMap::new(),
            usage: resources(self.load, self.load / 2, 0),
            drivers: match self.drivers {
                0 => vec!["cri".into()],
                1 => vec!["process".into()],
                _ => vec!["process".into(), "cri".into()],
            },
        }
    }
}

impl ReservationShape {
    /// The reservation, on a node.
    pub fn reservation(&self, node: Option<&str>) -> Reservation {
        Reservation {
            owners: LabelSelector::labels(labels(&[("app", value("a", Some(self.app)))])),
            namespaces: NAMESPACES
                .iter()
                .enumerate()
                .filter(|(i, _)| self.namespace.is_none_or(|n| n == *i))
                .map(|(_, name)| (*name).to_owned())
                .collect(),
            resources: resources(self.cpu, self.memory, 0),
            node: node.map(str::to_owned),
        }
    }
}

impl PodShape {
    /// Its namespace.
    pub fn namespace(&self) -> &'static str {
        NAMESPACES[self.namespace % NAMESPACES.len()]
    }

    /// The pod, waiting.
    pub fn pod(&self) -> Pod {
        Pod {
            labels: pod_labels(self.app, self.rev),
            spec: Arc::new(self.spec()),
            priority: self.priority,
            node: None,
            since: 0,
        }
    }

    fn spec(&self) -> PodSpec {
        let image = if self.image { "nginx" } else { "host" };
        let container = |name: String, cpu, memory, gpu| Container {
            name,
            image: image.into(),
            resources: Some(ResourceRequirements {
                requests: resources(cpu, memory, gpu),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        };
        let inits = self
            .inits
            .iter()
            .enumerate()
            .map(|(i, (cpu, sidecar))| Container {
                restart_policy: sidecar.then_some(RestartPolicy::Always),
                ..container(format!("i{i}"), *cpu, 0, 0)
            });
        let mut spec = PodSpec {
            init_containers: inits.collect(),
            containers: vec![Container {
                ports: self.ports.iter().map(port).collect(),
                ..container("c".into(), self.cpu, self.memory, self.gpu)
            }],
            tolerations: self.tolerations.iter().map(toleration).collect(),
            topology_spread_constraints: self.spread.iter().map(Spread::constraint).collect(),
            preemption_policy: self.patient.then_some(PreemptionPolicy::Never),
            priority: Some(self.priority),
            ..PodSpec::default()
        };
        if self.overhead {
            spec.overhead = resources(1, 0, 0);
        }
        let mut affinity = Affinity {
            node_affinity: None,
            pod_affinity: pod_affinity(&self.near, &self.prefers, 1),
            pod_anti_affinity: pod_affinity(&self.apart, &self.prefers, -1),
        };
        match &self.node {
            Some(NodeRule::Named(n)) => spec.node_name = Some(format!("n{n}")),
            Some(NodeRule::Zone(z)) => {
                spec.node_selector = labels(&[("zone", value("z", Some(*z)))]);
            }
            Some(rule) => affinity.node_affinity = Some(node_affinity(rule)),
            None => {}
        }
        if affinity != Affinity::default() {
            spec.affinity = Some(Box::new(affinity));
        }
        spec
    }
}

fn port((number, udp, ip): &(u8, bool, u8)) -> ContainerPort {
    let number = 8080 + i32::from(*number);
    ContainerPort {
        container_port: number,
        host_port: Some(number),
        host_ip: ["", "0.0.0.0", "127.0.0.1"]
            .get(usize::from(*ip))
            .filter(|ip| !ip.is_empty())
            .map(|ip| (*ip).to_owned()),
        protocol: Some(if *udp { Protocol::Udp } else { Protocol::Tcp }),
        ..ContainerPort::default()
    }
}

fn toleration((key, number, effect): &(Option<u8>, Option<u8>, Option<u8>)) -> Toleration {
    Toleration {
        key: value("k", *key),
        // Without a key only `Exists` is allowed.
        operator: (key.is_none() || number.is_none()).then_some(TolerationOperator::Exists),
        value: key.and_then(|_| value("v", *number)),
        effect: effect.map(|e| EFFECTS[usize::from(e) % EFFECTS.len()]),
        toleration_seconds: None,
    }
}

fn node_affinity(rule: &NodeRule) -> NodeAffinity {
    let mut affinity = NodeAffinity::default();
    let required = |terms| {
        Some(NodeSelector {
            node_selector_terms: terms,
        })
    };
    match rule {
        NodeRule::Terms(terms) => {
            let terms = terms.iter().map(|requirements| NodeSelectorTerm {
                match_expressions: requirements.iter().map(node_requirement).collect(),
                match_fields: Vec::new(),
            });
            affinity.required_during_scheduling_ignored_during_execution =
                required(terms.collect());
        }
        NodeRule::NotNamed(n) => {
            let name = NodeSelectorRequirement {
                key: "metadata.name".into(),
                operator: NodeSelectorOperator::NotIn,
                values: vec![format!("n{n}")],
            };
            affinity.required_during_scheduling_ignored_during_execution =
                required(vec![NodeSelectorTerm {
                    match_expressions: Vec::new(),
                    match_fields: vec![name],
                }]);
        }
        NodeRule::Prefers(zone, weight) => {
            affinity.preferred_during_scheduling_ignored_during_execution =
                vec![PreferredSchedulingTerm {
                    weight: i32::from(*weight),
                    preference: NodeSelectorTerm {
                        match_expressions: vec![NodeSelectorRequirement {
                            key: "zone".into(),
                            operator: NodeSelectorOperator::In,
                            values: vec![format!("z{zone}")],
                        }],
                        match_fields: Vec::new(),
                    },
                }];
        }
        NodeRule::Named(_) | NodeRule::Zone(_) => {}
    }
    affinity
}

fn node_requirement((key, operator, number): &(u8, u8, u8)) -> NodeSelectorRequirement {
    use NodeSelectorOperator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
    let operator = [In, NotIn, Exists, DoesNotExist, Gt, Lt][usize::from(*operator) % 6];
    let (key, one) = match (operator, key) {
        (Gt | Lt, _) | (_, 0) => ("size", SIZES[usize::from(*number) % 4].to_owned()),
        (_, 1) => ("zone", format!("z{number}")),
        _ => ("rack", format!("r{number}")),
    };
    let values = match operator {
        Exists | DoesNotExist => Vec::new(),
        // A bound is a number at the door.
        Gt | Lt => vec![["0", "1", "5", "7"][usize::from(*number) % 4].to_owned()],
        In | NotIn => vec![one],
    };
    NodeSelectorRequirement {
        key: key.into(),
        operator,
        values,
    }
}

fn pod_affinity(required: &[Term], prefers: &[(i8, Term)], sign: i8) -> Option<PodAffinity> {
    let preferred = prefers
        .iter()
        .filter(|(weight, _)| *weight != 0 && weight.signum() == sign)
        .map(|(weight, term)| WeightedPodAffinityTerm {
            weight: i32::from(weight.unsigned_abs()),
            pod_affinity_term: term.term(),
        });
    let affinity = PodAffinity {
        required_during_scheduling_ignored_during_execution: required
            .iter()
            .map(Term::term)
            .collect(),
        preferred_during_scheduling_ignored_during_execution: preferred.collect(),
    };
    (affinity != PodAffinity::default()).then_some(affinity)
}

impl Term {
    fn term(&self) -> PodAffinityTerm {
        // Keys of labels need a selector that they narrow, and the same key is not allowed in both.
        let selector = self.selects.selector();
        let has = |key| self.selects.key() != Some(key) && selector.is_some();
        let keys = |on: bool, key: &str| if on { vec![key.to_owned()] } else { Vec::new() };
        let team = |team| LabelSelector::labels(namespace_labels(Some(team)));
        let (namespaces, namespace_selector) = match &self.namespaces {
            Namespaces::Own => (Vec::new(), None),
            Namespaces::Listed(list) => (list.clone(), None),
            Namespaces::All => (Vec::new(), Some(LabelSelector::default())),
            Namespaces::Team(t, more) => (more.iter().copied().collect(), Some(team(*t))),
            Namespaces::NoTeam => {
                let none = expression("team", LabelSelectorOperator::DoesNotExist, Vec::new());
                (Vec::new(), Some(none))
            }
        };
        PodAffinityTerm {
            match_label_keys: keys(self.same_rev && has("rev"), "rev"),
            mismatch_label_keys: keys(self.other_app && has("app"), "app"),
            label_selector: selector,
            namespaces: namespaces
                .iter()
                .map(|n| NAMESPACES[*n].to_owned())
                .collect(),
            namespace_selector,
            topology_key: TOPOLOGIES[usize::from(self.key) % 3].into(),
        }
    }
}

impl Spread {
    fn constraint(&self) -> TopologySpreadConstraint {
        let selector = self.selects.selector();
        let same_rev = self.same_rev && selector.is_some() && self.selects.key() != Some("rev");
        TopologySpreadConstraint {
            max_skew: i32::from(self.skew),
            topology_key: TOPOLOGIES[usize::from(self.key) % 3].into(),
            when_unsatisfiable: if self.hard {
                UnsatisfiableAction::DoNotSchedule
            } else {
                UnsatisfiableAction::ScheduleAnyway
            },
            label_selector: selector,
            match_label_keys: if same_rev {
                vec!["rev".into()]
            } else {
                Vec::new()
            },
            min_domains: self.min_domains.map(i32::from),
            node_affinity_policy: self.ignores_affinity.then(|| "Ignore".into()),
            node_taints_policy: self.honours_taints.then(|| "Honor".into()),
        }
    }
}

fn expression(key: &str, operator: LabelSelectorOperator, values: Vec<String>) -> LabelSelector {
    LabelSelector {
        match_labels: BTreeMap::new(),
        match_expressions: vec![LabelSelectorRequirement {
            key: key.into(),
            operator,
            values,
        }],
    }
}

impl Selects {
    /// The label it is about.
    fn key(&self) -> Option<&'static str> {
        match self {
            Self::None | Self::All => None,
            Self::App(_) | Self::NotApp(_) | Self::HasApp | Self::NoApp => Some("app"),
            Self::RevIn(..) => Some("rev"),
        }
    }

    fn selector(&self) -> Option<LabelSelector> {
        use LabelSelectorOperator::{DoesNotExist, Exists, In, NotIn};
        Some(match self {
            Self::None => return None,
            Self::All => LabelSelector::default(),
            Self::App(a) => LabelSelector::labels(labels(&[("app", value("a", Some(*a)))])),
            Self::NotApp(a) => expression("app", NotIn, vec![format!("a{a}")]),
            Self::HasApp => expression("app", Exists, Vec::new()),
            Self::NoApp => expression("app", DoesNotExist, Vec::new()),
            Self::RevIn(a, b) => expression("rev", In, vec![format!("r{a}"), format!("r{b}")]),
        })
    }
}
