//! Random clusters and workloads: few labels, few values, little room, so that constraints meet each other often.
//!
//! A [`Scenario`] is a short description that shrinks well and prints small; [`PodShape::pod`] and [`NodeShape::node`]
//! make the documents.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;

use crate::score::Strategy as Room;

mod build;

pub use build::{namespace_labels, pod_labels};

/// The namespaces that pods are in.
pub const NAMESPACES: [&str; 3] = ["default", "red-team", "blue-team"];

/// A cluster, and what happens to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The first nodes, named `n0`, `n1`, ...
    pub nodes: Vec<NodeShape>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// How free room is valued, for all pods.
    pub strategy: Room,
}

/// One thing that happens. Nodes and pods are counted from 0 and taken modulo how many there are.
#[derive(Clone, Debug)]
pub enum Step {
    /// A node appears or changes.
    Node(usize, NodeShape),
    /// A node goes. Its pods stay counted on it.
    RemoveNode(usize),
    /// The labels of a namespace change: `team` is this. Without one nothing is known of the namespace.
    Namespace(usize, Option<u8>),
    /// Pods appear and are decided on together.
    Schedule(Vec<PodShape>),
    /// Somebody else has placed a pod, whether it fits or not.
    Place(PodShape, usize),
    /// A placed pod goes.
    Forget(usize),
    /// A placed pod turns out to be elsewhere.
    Move(usize, usize),
    /// A placed pod has other labels: `app` and `rev`.
    Relabel(usize, Option<u8>, Option<u8>),
    /// All pods that wait are decided on again.
    Retry,
    /// A pod appears; when it has no node, others may give way: at once, or while room is kept for it.
    Preempt {
        /// The pod.
        pod: PodShape,
        /// The budgets: for pods of each value of `app`, how many may go.
        budgets: BTreeMap<u8, u32>,
        /// Whether the victims take their time.
        slowly: bool,
    },
    /// Victims that take their time have gone, and pods that room is kept for are placed.
    Settle,
    /// A gang appears, of which so many are needed.
    Gang(Vec<PodShape>, usize),
    /// Capacity is set aside on a node, or no longer.
    Reserve(usize, ReservationShape),
    /// It is no longer.
    Unreserve(usize),
}

/// What a node is like.
#[derive(Clone, Debug, Default)]
pub struct NodeShape {
    /// `zone`.
    pub zone: Option<u8>,
    /// `rack`.
    pub rack: Option<u8>,
    /// `size`: a number or not.
    pub size: Option<u8>,
    /// Halves of a cpu.
    pub cpu: u8,
    /// Gibibytes.
    pub memory: u8,
    /// Of `example.com/gpu`.
    pub gpu: u8,
    /// The most pods.
    pub pods: u8,
    /// Key, value, effect.
    pub taints: Vec<(u8, u8, u8)>,
    /// Whether it is cordoned.
    pub cordoned: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// 0: programs of the host, 1: images, else both.
    pub drivers: u8,
    /// What was measured: halves of a cpu, and as many halves of a gibibyte; 0: nothing was.
    pub load: u8,
}

/// What a pod is like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodShape {
    /// Which of [`NAMESPACES`].
    pub namespace: usize,
    /// `app`.
    pub app: Option<u8>,
    /// `rev`.
    pub rev: Option<u8>,
    /// The priority.
    pub priority: i32,
    /// Halves of a cpu.
    pub cpu: u8,
    /// Gibibytes.
    pub memory: u8,
    /// Of `example.com/gpu`.
    pub gpu: u8,
    /// Init containers: halves of a cpu, whether it is a sidecar.
    pub inits: Vec<(u8, bool)>,
    /// Whether there is overhead of half a cpu.
    pub overhead: bool,
    /// Host ports: number, whether UDP, address.
    pub ports: Vec<(u8, bool, u8)>,
    /// What is asked of the node.
    pub node: Option<NodeRule>,
    /// Key (or all), value (or any), effect (or all).
    pub tolerations: Vec<(Option<u8>, Option<u8>, Option<u8>)>,
    /// Required affinity.
    pub near: Vec<Term>,
    /// Required anti-affinity.
    pub apart: Vec<Term>,
    /// Preferred affinity (positive weights) and anti-affinity.
    pub prefers: Vec<(i8, Term)>,
    /// Spread constraints.
    pub spread: Vec<Spread>,
    /// Whether it is a container image instead of a program of the host.
    pub image: bool,
    /// Whether it displaces nobody.
    pub patient: bool,
}

/// What a pod asks of a node's labels.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeRule {
    /// `nodeName`.
    Named(u8),
    /// `nodeSelector` of `zone`.
    Zone(u8),
    /// Required affinity: any of the terms.
    Terms(Vec<Vec<(u8, u8, u8)>>),
    /// `matchFields`: not this node.
    NotNamed(u8),
    /// Preferred: `zone`, with a weight.
    Prefers(u8, u8),
}

/// Which pods, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Which pods by label.
    pub selects: Selects,
    /// Which topology key.
    pub key: u8,
    /// Which namespaces.
    pub namespaces: Namespaces,
    /// Whether `rev` must be the same.
    pub same_rev: bool,
    /// Whether `app` must differ.
    pub other_app: bool,
}

/// A label selector.
#[derive(Clone, Debug, PartialEq)]
pub enum Selects {
    /// Absent.
    None,
    /// Empty.
    All,
    /// `app` is this.
    App(u8),
    /// `app` is not this.
    NotApp(u8),
    /// There is an `app`.
    HasApp,
    /// There is none.
    NoApp,
    /// `rev` is one of two.
    RevIn(u8, u8),
}

/// Which namespaces a term means.
#[derive(Clone, Debug, PartialEq)]
pub enum Namespaces {
    /// The own one.
    Own,
    /// A list.
    Listed(Vec<usize>),
    /// All.
    All,
    /// Those of this team, and a listed one.
    Team(u8, Option<usize>),
    /// Those without a team.
    NoTeam,
}

/// A spread constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// `maxSkew`.
    pub skew: u8,
    /// Which topology key.
    pub key: u8,
    /// Which pods are counted.
    pub selects: Selects,
    /// `minDomains`.
    pub min_domains: Option<u8>,
    /// Whether `nodeAffinityPolicy` is `Ignore`.
    pub ignores_affinity: bool,
    /// Whether `nodeTaintsPolicy` is `Honor`.
    pub honours_taints: bool,
    /// Whether `rev` must be the same.
    pub same_rev: bool,
    /// Whether it forbids.
    pub hard: bool,
}

/// What is set aside for whom.
#[derive(Clone, Debug)]
pub struct ReservationShape {
    /// Which: a reservation is replaced by a later one of the same number.
    pub number: u8,
    /// Owners by `app`.
    pub app: u8,
    /// Their namespace; all when absent.
    pub namespace: Option<usize>,
    /// Halves of a cpu.
    pub cpu: u8,
    /// Gibibytes.
    pub memory: u8,
}

/// Which steps a scenario may have beside those of nodes, namespaces and single pods.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kinds {
    /// Preemption and nominated pods.
    pub preemption: bool,
    /// Gangs.
    pub gangs: bool,
    /// Reservations.
    pub reservations: bool,
}

/// Scenarios of 1 to 8 nodes.
pub fn scenarios(kinds: Kinds) -> impl Strategy<Value = Scenario> {
    let strategy = prop_oneof![
        2 => Just(Room::LeastAllocated),
        1 => Just(Room::MostAllocated),
        1 => Just(Room::Balanced),
    ];
    (vec(node(), 1..=8), vec(step(kinds), 1..24), strategy).prop_map(|(nodes, steps, strategy)| {
        Scenario {
            nodes,
            steps,
            strategy,
        }
    })
}

/// True once in `n` times.
fn rarely(n: u32) -> impl Strategy<Value = bool> {
    prop_oneof![n - 1 => Just(false), 1 => Just(true)]
}

/// Something once in `n` times.
fn sometimes<S: Strategy>(n: f64, some: S) -> impl Strategy<Value = Option<S::Value>> {
    option::weighted(1.0 / n, some)
}

fn step(kinds: Kinds) -> impl Strategy<Value = Step> {
    let mut all = vec![
        (
            3,
            (0..8usize, node())
                .prop_map(|(i, n)| Step::Node(i, n))
                .boxed(),
        ),
        (1, (0..8usize).prop_map(Step::RemoveNode).boxed()),
        (
            1,
            (0..NAMESPACES.len(), option::of(0..2u8))
                .prop_map(|(i, t)| Step::Namespace(i, t))
                .boxed(),
        ),
        (8, vec(pod(), 1..5).prop_map(Step::Schedule).boxed()),
        (
            3,
            (pod(), 1..5usize)
                .prop_map(|(p, n)| Step::Schedule(vec![p; n]))
                .boxed(),
        ),
        (
            2,
            (pod(), 0..8usize)
                .prop_map(|(p, n)| Step::Place(p, n))
                .boxed(),
        ),
        (3, (0..64usize).prop_map(Step::Forget).boxed()),
        (
            1,
            (0..64usize, 0..8usize)
                .prop_map(|(i, n)| Step::Move(i, n))
                .boxed(),
        ),
        (
            1,
            (0..64usize, option::of(0..2u8), option::of(0..2u8))
                .prop_map(|(i, app, rev)| Step::Relabel(i, app, rev))
                .boxed(),
        ),
        (2, Just(Step::Retry).boxed()),
    ];
    if kinds.preemption {
        all.push((5, preempt().boxed()));
        all.push((2, Just(Step::Settle).boxed()));
    }
    if kinds.gangs {
        all.push((5, gang().boxed()));
    }
    if kinds.reservations {
        all.push((
            4,
            (0..8usize, reservation())
                .prop_map(|(i, r)| Step::Reserve(i, r))
                .boxed(),
        ));
        all.push((1, (0..3usize).prop_map(Step::Unreserve).boxed()));
    }
    Union::new_weighted(all)
}

fn preempt() -> impl Strategy<Value = Step> {
    let budgets = proptest::collection::btree_map(0..2u8, 0..3u32, 0..3);
    (pod(), 5..12i32, budgets, any::<bool>()).prop_map(|(mut pod, priority, budgets, slowly)| {
        pod.priority = priority;
        Step::Preempt {
            pod,
            budgets,
            slowly,
        }
    })
}

fn gang() -> impl Strategy<Value = Step> {
    let alike = (pod(), 2..6usize).prop_map(|(p, n)| vec![p; n]);
    let members = prop_oneof![2 => alike, 1 => vec(pod(), 2..4)];
    (members, 0..100usize).prop_map(|(members, share)| {
        let min = 1 + share * members.len() / 100;
        Step::Gang(members, min)
    })
}

fn reservation() -> impl Strategy<Value = ReservationShape> {
    let namespace = option::of(0..NAMESPACES.len());
    (0..3u8, 0..2u8, namespace, 0..6u8, 0..4u8).prop_map(|(number, app, namespace, cpu, memory)| {
        ReservationShape {
            number,
            app,
            namespace,
            cpu,
            memory,
        }
    })
}

fn node() -> impl Strategy<Value = NodeShape> {
    let labels = (
        option::weighted(0.85, 0..3u8),
        option::weighted(0.7, 0..2u8),
        option::weighted(0.5, 0..4u8),
    );
    let room = (2..10u8, 2..10u8, 0..3u8, 1..7u8);
    let taints = prop_oneof![4 => Just(Vec::new()), 1 => vec((0..2u8, 0..2u8, 0..3u8), 1..3)];
    let load = prop_oneof![2 => Just(0u8), 1 => 1..8u8];
    let kind = (0..12u8, load);
    (labels, room, taints, rarely(10), rarely(10), kind).prop_map(
        |(
            (zone, rack, size),
            (cpu, memory, gpu, pods),
            taints,
            cordoned,
            lost,
            (drivers, load),
        )| {
            NodeShape {
                zone,
                rack,
                size,
                cpu,
                memory,
                gpu,
                pods,
                taints,
                cordoned,
                ready: !lost,
                drivers,
                load,
            }
        },
    )
}

/// Pods, most of them with one or two kinds of constraints.
pub fn pod() -> impl Strategy<Value = PodShape> {
    let who = (
        0..10usize,
        option::weighted(0.8, 0..2u8),
        option::weighted(0.6, 0..2u8),
        0..6i32,
    );
    let asks = (
        0..5u8,
        prop_oneof![2 => Just(0u8), 1 => 1..4u8],
        prop_oneof![9 => Just(0u8), 1 => 1..3u8],
        prop_oneof![5 => Just(Vec::new()), 1 => vec((0..6u8, any::<bool>()), 1..4)],
        rarely(10),
        prop_oneof![6 => Just(Vec::new()), 1 => vec((0..2u8, any::<bool>(), 0..3u8), 1..3)],
    );
    let toleration = (
        option::weighted(0.8, 0..2u8),
        option::of(0..2u8),
        option::of(0..3u8),
    );
    let rules = (
        sometimes(4.0, node_rule()),
        prop_oneof![3 => Just(Vec::new()), 1 => vec(toleration, 1..3)],
        prop_oneof![5 => Just(Vec::new()), 1 => vec(term(), 1..3)],
        prop_oneof![4 => Just(Vec::new()), 1 => vec(term(), 1..3)],
        prop_oneof![6 => Just(Vec::new()), 1 => vec((-100..100i8, term()), 1..3)],
        prop_oneof![3 => Just(Vec::new()), 1 => vec(spread(), 1..3)],
    );
    (who, asks, rules, rarely(12), rarely(8)).prop_map(
        |(
            (namespace, app, rev, priority),
            (cpu, memory, gpu, inits, overhead, ports),
            (node, tolerations, near, apart, prefers, spread),
            image,
            patient,
        )| PodShape {
            // Most are in the first namespace.
            namespace: namespace.saturating_sub(7),
            app,
            rev,
            priority: [0, 0, 1, 2, 5, -1][priority.unsigned_abs() as usize % 6],
            cpu,
            memory,
            gpu,
            inits,
            overhead,
            ports,
            node,
            tolerations,
            near,
            apart,
            prefers,
            spread,
            image,
            patient,
        },
    )
}

fn node_rule() -> impl Strategy<Value = NodeRule> {
    let requirement = (0..3u8, 0..6u8, 0..4u8);
    prop_oneof![
        1 => (0..8u8).prop_map(NodeRule::Named),
        3 => (0..3u8).prop_map(NodeRule::Zone),
        4 => vec(vec(requirement, 0..3), 1..3).prop_map(NodeRule::Terms),
        1 => (0..8u8).prop_map(NodeRule::NotNamed),
        1 => (0..3u8, 1..100u8).prop_map(|(z, w)| NodeRule::Prefers(z, w)),
    ]
}

fn selects() -> impl Strategy<Value = Selects> {
    prop_oneof![
        1 => Just(Selects::None),
        2 => Just(Selects::All),
        8 => (0..2u8).prop_map(Selects::App),
        2 => (0..2u8).prop_map(Selects::NotApp),
        2 => Just(Selects::HasApp),
        1 => Just(Selects::NoApp),
        2 => (0..3u8, 0..3u8).prop_map(|(a, b)| Selects::RevIn(a, b)),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let listed = vec(0..NAMESPACES.len(), 1..3);
    let namespaces = prop_oneof![
        6 => Just(Namespaces::Own),
        1 => listed.prop_map(Namespaces::Listed),
        1 => Just(Namespaces::All),
        2 => (0..2u8, option::weighted(0.3, 0..NAMESPACES.len())).prop_map(|(t, n)| Namespaces::Team(t, n)),
        1 => Just(Namespaces::NoTeam),
    ];
    (selects(), 0..3u8, namespaces, rarely(6), rarely(8)).prop_map(
        |(selects, key, namespaces, same_rev, other_app)| Term {
            selects,
            key,
            namespaces,
            same_rev,
            other_app,
        },
    )
}

fn spread() -> impl Strategy<Value = Spread> {
    let flags = (rarely(5), rarely(4), rarely(5), rarely(5));
    (1..3u8, 0..3u8, selects(), sometimes(4.0, 1..5u8), flags).prop_map(
        |(skew, key, selects, min_domains, (ignores_affinity, honours_taints, same_rev, soft))| {
            Spread {
                skew,
                key,
                selects,
                min_domains: min_domains.filter(|_| !soft),
                ignores_affinity,
                honours_taints,
                same_rev,
                hard: !soft,
            }
        },
    )
}
