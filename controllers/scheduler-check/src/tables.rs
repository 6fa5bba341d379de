//! Cases as data: a small world, a pod, and what must come out. Checker and core are held against the same ones.
//!
//! The cases cover what Kubernetes' scheduler plugins test in their own tables, told in other words, and the examples of
//! its documentation. They are in `tables/*.yaml`, one file for each area.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};
use setpoint_apis::core::{PodSpec, Taint};
use setpoint_apis::selector::LabelSelector;
use setpoint_apis::{ObjectKey, Quantity, ResourceList};

use crate::preemption::{Budgets, Proposal};
use crate::world::{Node, Pod, Reservation, World};

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The world; the pods that ask are in it, waiting.
    pub world: World,
    /// The pod that asks (the first member, of a gang).
    pub pod: ObjectKey,
    /// How nodes are scored; plain `LeastAllocated` when absent.
    pub profile: Profile,
    /// Disruption budgets.
    pub budgets: Budgets,
    /// What must come out.
    pub expected: Expected,
}

/// What must come out of a case.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Exactly these nodes are feasible.
    Fits(BTreeSet<String>),
    /// This node is chosen.
    Chooses(String),
    /// These victims are chosen, or none.
    Preempts(Option<Proposal>),
    /// So many of these members are placed; `None` when the gang must be refused.
    Gang {
        /// The members.
        members: Vec<ObjectKey>,
        /// How many are needed.
        min: usize,
        /// How many find nodes.
        placed: Option<usize>,
    },
}

/// How nodes are scored, in the words of the `SchedulerProfile` kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Profile {
    /// `LeastAllocated`, `MostAllocated` or `Balanced`.
    pub strategy: Option<String>,
    /// Weights by the names of the parts; the documented ones for those that are not named.
    pub weights: BTreeMap<String, i32>,
}

/// A case that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}, case {name:?}")]
pub struct BadCase {
    /// The file.
    pub file: &'static str,
    /// The case's name, empty when the file as a whole cannot be read.
    pub name: String,
    /// Why.
    #[source]
    pub source: serde_yaml::Error,
}

const FILES: &[(&str, &str)] = &[
    ("nodes.yaml", include_str!("../tables/nodes.yaml")),
    ("room.yaml", include_str!("../tables/room.yaml")),
    ("affinity.yaml", include_str!("../tables/affinity.yaml")),
    ("spread.yaml", include_str!("../tables/spread.yaml")),
    ("preemption.yaml", include_str!("../tables/preemption.yaml")),
    ("gangs.yaml", include_str!("../tables/gangs.yaml")),
    ("scores.yaml", include_str!("../tables/scores.yaml")),
];

/// All cases, in the order of the files.
///
/// # Errors
///
/// The first that cannot be read.
pub fn cases() -> Result<Vec<Case>, BadCase> {
    let mut cases = Vec::new();
    for (file, text) in FILES {
        let bad = |name: &str, source| BadCase {
            file,
            name: name.into(),
            source,
        };
        let texts: Vec<CaseText> = serde_yaml::from_str(text).map_err(|e| bad("", e))?;
        for text in texts {
            let name = text.case.clone();
            cases.push(text.read().map_err(|e| bad(&name, e))?);
        }
    }
    Ok(cases)
}

/// A case as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseText {
    case: String,
    nodes: BTreeMap<String, NodeText>,
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Pods by name, placed.
    #[serde(default)]
    pods: BTreeMap<String, PodText>,
    #[serde(default)]
    reservations: BTreeMap<String, ReservationText>,
    #[serde(default)]
    budgets: BTreeMap<String, BudgetText>,
    #[serde(default)]
    profile: Profile,
    /// The one that asks.
    pod: PodText,
    /// Members of the gang, all as `pod` is.
    #[serde(default)]
    gang: Option<GangText>,
    #[serde(default)]
    fits: Option<BTreeSet<String>>,
    #[serde(default)]
    chooses: Option<String>,
    #[serde(default)]
    preempts: Option<PreemptsText>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct NodeText {
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    /// Over `{cpu: 10, memory: 10Gi, pods: 110}`.
    has: ResourceList,
    #[serde(rename = "notReady")]
    not_ready: bool,
    cordoned: bool,
    images: BTreeMap<String, i64>,
    /// What was measured.
    usage: ResourceList,
    drivers: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PodText {
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
    on: Option<String>,
    priority: i32,
    since: i64,
    /// What its one container requests.
    asks: ResourceList,
    /// Host ports of that container: `[<address>:]<port>[/<protocol>]`.
    ports: Vec<Value>,
    /// Its image.
    image: Option<String>,
    /// The rest of its spec.
    spec: Mapping,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReservationText {
    owners: LabelSelector,
    /// `[default]` by default.
    namespaces: Option<Vec<String>>,
    resources: ResourceList,
    on: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BudgetText {
    covers: Vec<String>,
    allowed: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GangText {
    members: usize,
    min: usize,
    placed: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreemptsText {
    /// Absent: nobody.
    node: Option<String>,
    #[serde(default)]
    victims: Vec<String>,
    #[serde(default)]
    violations: u32,
}

impl CaseText {
    fn read(self) -> Result<Case, serde_yaml::Error> {
        use serde::de::Error;
        let mut world = World {
            namespaces: self.namespaces,
            ..World::default()
        };
        world.namespaces.entry("default".into()).or_default();
        for (name, node) in self.nodes {
            world.nodes.insert(name, node.read());
        }
        for (name, text) in self.pods {
            let (key, pod) = text.read(&name)?;
            world
                .namespaces
                .entry(key.namespace.to_string())
                .or_default();
            world.pods.insert(key, pod);
        }
        for (key, r) in self.reservations {
            let reservation = Reservation {
                owners: r.owners,
                namespaces: r.namespaces.unwrap_or_else(|| vec!["default".into()]),
                resources: r.resources,
                node: r.on,
            };
            world.reservations.insert(key, reservation);
        }
        let budgets = self.budgets.into_iter().map(|(name, b)| {
            let covered = b.covers.iter().map(|p| key_of("default", p)).collect();
            (name, (covered, b.allowed))
        });
        let (pod, asking) = self.pod.read("asks")?;
        world
            .namespaces
            .entry(pod.namespace.to_string())
            .or_default();
        let expected = match (self.fits, self.chooses, self.preempts, self.gang) {
            (Some(nodes), None, None, None) => Expected::Fits(nodes),
            (None, Some(node), None, None) => Expected::Chooses(node),
            (None, None, Some(told), None) => Expected::Preempts(told.read()),
            (None, None, None, Some(gang)) => {
                let members: Vec<_> = (1..gang.members)
                    .map(|i| key_of(&pod.namespace, &format!("asks-{i}")))
                    .collect();
                for member in &members {
                    world.pods.insert(member.clone(), asking.clone());
                }
                Expected::Gang {
                    members: [pod.clone()].into_iter().chain(members).collect(),
                    min: gang.min,
                    placed: gang.placed,
                }
            }
            _ => {
                return Err(Error::custom(
                    "one of fits, chooses, preempts, gang is expected",
                ));
            }
        };
        world.pods.insert(pod.clone(), asking);
        Ok(Case {
            name: self.case,
            world,
            pod,
            profile: self.profile,
            budgets: Budgets {
                budgets: budgets.collect(),
            },
            expected,
        })
    }
}

impl PreemptsText {
    fn read(self) -> Option<Proposal> {
        let node = self.node?;
        let victims = self.victims.iter().map(|v| key_of("default", v)).collect();
        Some(Proposal {
            node,
            victims,
            violations: self.violations,
        })
    }
}

impl NodeText {
    fn read(self) -> Node {
        let mut allocatable = ResourceList::from([
            ("cpu".into(), Quantity::from_whole(10)),
            ("memory".into(), Quantity::from_bytes(10 << 30)),
            ("pods".into(), Quantity::from_whole(110)),
        ]);
        allocatable.extend(self.has);
        Node {
            labels: self.labels,
            taints: self.taints,
            allocatable,
            ready: !self.not_ready,
            cordoned: self.cordoned,
            images: self.images,
            usage: self.usage,
            drivers: self.drivers.unwrap_or_else(|| vec!["process".into()]),
        }
    }
}

impl PodText {
    /// The name is `[<namespace>/]<name>`, for two pods of one name.
    fn read(self, name: &str) -> Result<(ObjectKey, Pod), serde_yaml::Error> {
        let ports = self.ports.iter().map(port).collect::<Result<Vec<_>, _>>()?;
        let mut container = Mapping::new();
        container.insert("name".into(), "c".into());
        container.insert(
            "image".into(),
            self.image.as_deref().unwrap_or("host").into(),
        );
        container.insert("ports".into(), Value::Sequence(ports));
        let mut resources = Mapping::new();
        resources.insert("requests".into(), serde_yaml::to_value(&self.asks)?);
        container.insert("resources".into(), Value::Mapping(resources));
        let mut spec = self.spec;
        spec.entry("containers".into())
            .or_insert(Value::Sequence(vec![Value::Mapping(container)]));
        let spec: PodSpec = serde_yaml::from_value(Value::Mapping(spec))?;
        let pod = Pod {
            labels: self.labels,
            spec: Arc::new(spec),
            priority: self.priority,
            node: self.on,
            since: self.since,
        };
        Ok((
            key_of(self.namespace.as_deref().unwrap_or("default"), name),
            pod,
        ))
    }
}

fn key_of(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::namespaced(namespace, name)
}

fn port(text: &Value) -> Result<Value, serde_yaml::Error> {
    use serde::de::Error;
    let text = match text {
        Value::Number(number) => number.to_string(),
        other => other.as_str().unwrap_or_default().to_owned(),
    };
    let (address, protocol) = text.split_once('/').unwrap_or((&text, "TCP"));
    let (ip, number) = address.rsplit_once(':').unwrap_or(("", address));
    let number: i64 = number.parse().map_err(serde_yaml::Error::custom)?;
    let mut port = Mapping::new();
    port.insert("containerPort".into(), number.into());
    port.insert("hostPort".into(), number.into());
    port.insert("protocol".into(), protocol.into());
    if !ip.is_empty() {
        port.insert("hostIP".into(), ip.into());
    }
    Ok(Value::Mapping(port))
}
