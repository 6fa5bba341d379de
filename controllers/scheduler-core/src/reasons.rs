//! Why a pod is not placed, in words that users of Kubernetes know.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use setpoint_apis::core::PodSpec;

use crate::admission::HOST_IMAGE;
use crate::node::NotReady;

/// What keeps a pod off a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Nothing can be placed on the node.
    NotReady(NotReady),
    /// The node is cordoned.
    Unschedulable,
    /// The pod names another node, which need not exist.
    NodeName,
    /// The node has a taint that the pod does not tolerate.
    Taint {
        /// The taint's key.
        key: Box<str>,
        /// The taint's value, empty when it has none.
        value: Box<str>,
    },
    /// The node's labels (or name) are not what `nodeSelector` or the required node affinity asks for.
    Selector,
    /// The directory of a volume claim of the pod is on another node.
    VolumeClaim {
        /// The claim.
        claim: Arc<str>,
        /// That node.
        node: Arc<str>,
    },
    /// No driver of the node runs container images.
    Images,
    /// No driver of the node runs programs of the host.
    Host,
    /// The node has as many pods as it takes.
    TooManyPods,
    /// The node has less left of this resource than the pod asks for.
    Insufficient(Arc<str>),
    /// Ports of the node that the pod wants are taken.
    Ports,
    /// The pods that the pod must be near are not there, or the node lacks a label that says where it is.
    PodAffinity,
    /// Pods that the pod must not be near are there.
    PodAntiAffinity,
    /// Pods are there that must not be near the pod.
    ExistingAntiAffinity,
    /// The pod would make its domain too much fuller than others.
    Spread,
    /// The node lacks a label of a spread constraint.
    SpreadLabel,
}

impl Reason {
    /// Whether it is a matter of the node and the pod alone, whatever else runs.
    pub fn is_of_node(&self) -> bool {
        match self {
            Self::NotReady(_)
            | Self::Unschedulable
            | Self::NodeName
            | Self::Taint { .. }
            | Self::Selector
            | Self::VolumeClaim { .. }
            | Self::Images
            | Self::Host => true,
            Self::TooManyPods
            | Self::Insufficient(_)
            | Self::Ports
            | Self::PodAffinity
            | Self::PodAntiAffinity
            | Self::ExistingAntiAffinity
            | Self::Spread
            | Self::SpreadLabel => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady(NotReady::NotReported) => "node(s) had not reported yet",
            Self::NotReady(NotReady::Lost) => "node(s) were unreachable",
            Self::NotReady(NotReady::Suspended) => {
                "node(s) were unreachable together with most others"
            }
            Self::NotReady(NotReady::Removed) => "node(s) were removed",
            Self::NotReady(NotReady::AgentNotReady) => "node(s) were not ready",
            Self::NotReady(NotReady::Invalid) => "node(s) had an invalid document",
            Self::Unschedulable => "node(s) were unschedulable",
            Self::NodeName => "node(s) didn't match the requested node name",
            Self::Taint { key, value } => {
                return write!(f, "node(s) had untolerated taint {{{key}: {value}}}");
            }
            Self::Selector => "node(s) didn't match Pod's node affinity/selector",
            Self::VolumeClaim { claim, node } => {
                return write!(f, "node(s) refused: volume claim {claim} is on node {node}");
            }
            Self::Images => "node(s) cannot run container images",
            Self::Host => "node(s) cannot run host processes",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::PodAffinity => "node(s) didn't match pod affinity rules",
            Self::PodAntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::ExistingAntiAffinity => {
                "node(s) didn't satisfy existing pods anti-affinity rules"
            }
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::SpreadLabel => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
        })
    }
}

/// What can help a pod that could not be placed: Kubernetes' queueing hints, coarsely. None that helps is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Helps {
    /// A node that is added or changes.
    pub nodes: bool,
    /// A pod that goes away, a nomination that ends, a reservation that ends or moves.
    pub room: bool,
    /// A pod that is placed: one to be near, or one that fills another domain.
    pub arrivals: bool,
    /// Labels of namespaces that change.
    pub namespaces: bool,
}

/// Why no node can run a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: u32,
    /// How many nodes each reason keeps the pod off. A node can have several reasons when all of them depend on what
    /// else runs.
    pub reasons: BTreeMap<Reason, u32>,
    /// On how many of these nodes it is a matter of waiting: pods that leave, or arrive, can change it. On the others
    /// only a change of the node or of the pod does.
    pub waiting: BTreeMap<Reason, u32>,
    /// What single thing some nodes would do without, those that most nodes share first.
    pub misses: Vec<Miss>,
    /// Whether displacing pods of lower priority could help, budgets aside; `None` when that was not looked at.
    pub preemption: Option<bool>,
    /// For a gang: how many of it fit, and how many must.
    pub gang: Option<(usize, usize)>,
    /// Whether the pod wants to be near others or among as many as elsewhere.
    pub(crate) wants_others: bool,
}

/// Nodes that would run the pod but for one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The thing.
    pub reason: Reason,
    /// How many nodes.
    pub nodes: u32,
    /// The node that lacks the least; the first by name of several.
    pub nearest: Arc<str>,
    /// How much that one lacks of a resource: thousandths for cpu, else whole units; 0 for other reasons.
    pub missing: i64,
}

/// How many sorts of near misses are told.
const MOST_MISSES: usize = 8;

impl Unschedulable {
    /// What can help.
    pub fn helps(&self) -> Helps {
        let waits = !self.waiting.is_empty();
        let social = |r: &Reason| {
            matches!(
                r,
                Reason::PodAffinity | Reason::PodAntiAffinity | Reason::ExistingAntiAffinity
            )
        };
        // Whatever the reason, a new or changed node can be the one that fits.
        Helps {
            nodes: true,
            room: waits,
            arrivals: waits && self.wants_others,
            namespaces: self.waiting.keys().any(social),
        }
    }

    /// Takes over near misses by reason: how many nodes, how much the nearest lacks, and its name.
    pub(crate) fn set_nearest(&mut self, nearest: BTreeMap<Reason, (u32, i64, Arc<str>)>) {
        let unhelpful = |r: &Reason| matches!(r, Reason::NodeName | Reason::VolumeClaim { .. });
        let misses = nearest.into_iter().filter(|(r, _)| !unhelpful(r));
        self.misses = misses
            .map(|(reason, (nodes, missing, nearest))| Miss {
                reason,
                nodes,
                nearest,
                missing,
            })
            .collect();
        self.misses.sort_by_key(|m| std::cmp::Reverse(m.nodes));
        self.misses.truncate(MOST_MISSES);
    }

    /// The sentences for people: Kubernetes' message, then what waits where it is not obvious.
    pub fn message(&self, spec: &PodSpec) -> String {
        use fmt::Write;
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let mut parts: Vec<_> = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        parts.sort_unstable();
        let mut message = String::new();
        if let Some((fit, min)) = self.gang {
            let _ = write!(
                message,
                "{fit} of the {min} pods that must run together fit; for the next: "
            );
        }
        let _ = write!(
            message,
            "0/{} nodes are available: {}.",
            self.nodes,
            parts.join(", ")
        );
        let mut needs = |reason: &Reason, image: &mut dyn Iterator<Item = &str>, what: &str| {
            if self.reasons.contains_key(reason)
                && let Some(image) = image.next()
            {
                let which = match self.reasons[reason] {
                    all if all == self.nodes => format!("none of {all} does"),
                    some => format!("{some} of {} do not", self.nodes),
                };
                let _ = write!(
                    message,
                    " image {image:?} needs a node that runs {what}; {which}."
                );
            }
        };
        let images = || spec.all_containers().map(|c| c.image.as_str());
        needs(
            &Reason::Images,
            &mut images().filter(|i| *i != HOST_IMAGE),
            "container images",
        );
        needs(
            &Reason::Host,
            &mut images().filter(|i| *i == HOST_IMAGE),
            "host processes",
        );
        message
    }
}
