//! Pods that ask the same of a node.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use setpoint_apis::core::PodSpec;

use crate::own::Own;
use crate::ports::Port;
use crate::profile::Profile;
use crate::resources::Resources;

/// What the core is told of a pod, from which it makes a class. Nothing is kept but what matters for placing.
#[derive(Clone, Debug)]
pub struct PodAsk<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// What it runs, and where it may.
    pub spec: &'a PodSpec,
    /// Its priority, resolved from `priorityClassName` and `priority`; 0 by default.
    pub priority: i32,
    /// How nodes are scored for it, resolved from `schedulerName`.
    pub profile: Profile,
}

/// The node that has the directory of a volume claim: pods that use the claim run there and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin {
    /// The claim.
    pub claim: Arc<str>,
    /// The node, which need not exist.
    pub node: Arc<str>,
}

/// All pods that ask the same of a node, have the same namespace and labels, priority and profile.
///
/// A cheap handle, made by [`Cluster::class`](crate::Cluster::class) and of use with that cluster only. Classes that
/// differ in labels alone share what is remembered of nodes, unless somebody's selector tells them apart.
#[derive(Clone)]
pub struct Class(pub(crate) Arc<ClassInner>);

pub(crate) struct ClassInner {
    /// Given out again when nobody holds the class any more.
    pub(crate) id: u32,
    pub(crate) kind: Arc<Kind>,
    pub(crate) kind_id: u32,
    pub(crate) identity: u32,
}

impl Class {
    /// The priority of the pods.
    pub fn priority(&self) -> i32 {
        self.0.kind.priority
    }

    /// Whether the pods may displace others.
    pub fn may_preempt(&self) -> bool {
        self.0.kind.preempts
    }
}

impl std::fmt::Debug for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Class({})", self.0.id)
    }
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Class {}

impl Hash for Class {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

/// What pods ask, whoever they are.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) requests: Resources,
    /// Cpu and memory as the score counts them.
    pub(crate) weighed: [i64; 2],
    /// What they ask besides room.
    pub(crate) admission: u32,
    /// The one node that they can run on, when they name one.
    pub(crate) only_node: Option<Arc<str>>,
    /// Whether the node was chosen by who wrote the pod: then other pods are no reason to refuse it.
    pub(crate) bound: bool,
    pub(crate) ports: Box<[Port]>,
    pub(crate) own: Own,
    pub(crate) priority: i32,
    pub(crate) preempts: bool,
    pub(crate) profile: Profile,
}
