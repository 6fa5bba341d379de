//! Why a pod is not placed, in words that users of Kubernetes know.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use setpoint_apis::core::PodSpec;

use crate::class::HOST_IMAGE;
use crate::node::NotReady;

/// What keeps a pod off a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The pod names a node that does not exist.
    NoNode,
    /// Nothing can be placed on the node.
    NotReady(NotReady),
    /// The node is cordoned.
    Unschedulable,
    /// The pod names another node.
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
    /// No driver of the node runs container images.
    Images,
    /// No driver of the node runs programs of the host.
    Host,
    /// The node has as many pods as it takes.
    TooManyPods,
    /// The node has less left of this resource than the pod asks for.
    Insufficient(Arc<str>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoNode => "node(s) did not exist",
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
            Self::Images => "node(s) cannot run container images",
            Self::Host => "node(s) cannot run host processes",
            Self::TooManyPods => "Too many pods",
            Self::Insufficient(resource) => return write!(f, "Insufficient {resource}"),
        })
    }
}

/// What can help a pod that could not be placed: Kubernetes' queueing hints, coarsely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Helps {
    /// A node that is added or changes.
    pub nodes: bool,
    /// A pod that goes away.
    pub room: bool,
}

/// Why no node can run a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: u32,
    /// How many nodes each reason keeps the pod off. A node can have several reasons when all of them are resources.
    pub reasons: BTreeMap<Reason, u32>,
}

impl Unschedulable {
    /// What can help.
    pub fn helps(&self) -> Helps {
        let room = |r: &Reason| matches!(r, Reason::TooManyPods | Reason::Insufficient(_));
        // Whatever the reason, a new or changed node can be the one that fits.
        Helps {
            nodes: true,
            room: self.reasons.keys().any(room),
        }
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
        let mut message = format!(
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
