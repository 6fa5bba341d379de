//! What the scheduler says of a decision: why a pod is where it is, and why a pod waits.
//!
//! Both are stored with every pod, so they are small: scores are one line per node, and a reason is a word, a detail and a
//! count. What can be said from them (`setpoint why`) is put into sentences by whoever shows them.

mod parts;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::ResourceList;

pub use parts::{ScorePart, ScoreParts};

/// The stored decision behind a binding, for `describe` and `why`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlacementDecision {
    /// The revision of the snapshot that it was decided on.
    pub revision: i64,
    /// How many nodes there were.
    pub nodes: u32,
    /// How many of them could run the pod.
    pub feasible: u32,
    /// The score of the chosen node.
    pub score: i64,
    /// The best node that was not chosen, with its score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<(String, i64)>,
    /// The best few nodes, the chosen one first, then by score.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub best: Vec<NodeScore>,
    /// The scheduler profile, when it is not the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The pods that gave way, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub preempted: Vec<String>,
    /// The node that the pod was on before a move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
}

impl PlacementDecision {
    /// Why the best of the others was not chosen. `None` when there was no other, or the parts of the scores were not
    /// kept.
    pub fn runner_up_lost(&self) -> Option<RunnerUpLost<'_>> {
        let [chosen, other, ..] = self.best.as_slice() else {
            return None;
        };
        let by = chosen.score.saturating_sub(other.score);
        let part = ScorePart::ALL
            .into_iter()
            .map(|part| {
                let more = chosen.parts.get(part).saturating_sub(other.parts.get(part));
                (part, more)
            })
            .filter(|(_, more)| *more > 0)
            // Of equal differences the first part is told.
            .reduce(|a, b| if b.1 > a.1 { b } else { a });
        Some(RunnerUpLost {
            node: &other.node,
            by,
            part: part.filter(|_| by > 0),
        })
    }
}

/// A node and what it was worth to a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeScore {
    /// The node.
    pub node: String,
    /// The sum of the parts.
    pub score: i64,
    /// The weighted parts, in one line: `resources=80 topologySpread=12`.
    #[serde(default, skip_serializing_if = "ScoreParts::is_empty")]
    pub parts: ScoreParts,
}

/// Why the best of the others was not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerUpLost<'a> {
    /// The node.
    pub node: &'a str,
    /// How much less it was worth; 0 when the choice between equals decided.
    pub by: i64,
    /// The part in which the chosen node was ahead most, and by how much.
    pub part: Option<(ScorePart, i32)>,
}

impl fmt::Display for RunnerUpLost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.by, self.part) {
            (..=0, _) => write!(f, "{} was worth the same", self.node),
            (by, None) => write!(f, "{} was worth {by} less", self.node),
            (by, Some((part, most))) => {
                write!(
                    f,
                    "{} was worth {by} less: {most} less for {part}",
                    self.node
                )
            }
        }
    }
}

/// What keeps a pod from a node, or from all.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum ConstraintKind {
    /// The pod has scheduling gates.
    SchedulingGates,
    /// The pod's scheduler profile does not exist or is not valid.
    SchedulerProfile,
    /// The pod's priority class does not exist.
    PriorityClass,
    /// A quota of the namespace would be exceeded.
    Quota,
    /// The pod's group is not complete, or not all of it fits.
    PodGroup,
    /// The node is cordoned.
    Unschedulable,
    /// The node is not ready.
    NodeNotReady,
    /// `spec.nodeName` names another node, or none that exists.
    NodeName,
    /// `spec.nodeSelector`.
    NodeSelector,
    /// Required node affinity.
    NodeAffinity,
    /// A taint that the pod does not tolerate.
    Taint,
    /// The node has too little of a resource.
    Resources,
    /// What is free is reserved for others.
    Reservation,
    /// A host port is taken.
    HostPorts,
    /// Required pod affinity.
    PodAffinity,
    /// Required pod anti-affinity.
    PodAntiAffinity,
    /// Required pod anti-affinity of a pod that is there.
    ExistingAntiAffinity,
    /// A topology spread constraint.
    TopologySpread,
    /// A volume claim does not exist, or its directory is on another node.
    VolumeClaim,
    /// Something that a newer scheduler knows.
    #[default]
    #[serde(other)]
    Other,
}

/// Whether waiting can help.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Hope {
    /// It cannot hold on these nodes, whatever other pods do: the pod or the nodes have to be changed.
    Never,
    /// It may come to hold by itself: other pods end, a node becomes ready, a gate is removed.
    #[default]
    #[serde(other)]
    Waits,
}

/// Why a pod waits: one constraint, and how many nodes fail on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitReason {
    /// The constraint.
    pub constraint: ConstraintKind,
    /// What of it: `cpu`, `dedicated=gpu:NoSchedule`, a label, a port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// On how many nodes it fails first; 0 when it is not about nodes.
    #[serde(default)]
    pub nodes: u32,
    /// Whether waiting can help.
    #[serde(default)]
    pub hope: Hope,
}

/// The least that would have to change for the pod to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NearestMiss {
    /// The constraint that alone stands in the way.
    pub constraint: ConstraintKind,
    /// How many nodes would fit without it.
    pub nodes: u32,
    /// The node that is meant, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// For resources: how much less would have to be requested.
    #[serde(default, skip_serializing_if = "ResourceList::is_empty")]
    pub shortfall: ResourceList,
    /// What the nodes would fit without, as in `taint dedicated=gpu`; not where shortfall or constraint say it (too
    /// little of a resource, not ready, cordoned).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub without: String,
}

impl fmt::Display for NearestMiss {
    /// `n7 would fit with 200m cpu less requested`, `3 nodes would fit without taint dedicated=gpu`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.node, self.nodes) {
            (Some(node), _) => f.write_str(node)?,
            (None, 1) => f.write_str("1 node")?,
            (None, n) => write!(f, "{n} nodes")?,
        }
        f.write_str(" would fit")?;
        if !self.without.is_empty() {
            return write!(f, " without {}", self.without);
        }
        match self.constraint {
            ConstraintKind::NodeNotReady => return f.write_str(" if ready"),
            ConstraintKind::Unschedulable => return f.write_str(" if not cordoned"),
            _ => {}
        }
        for (i, (name, amount)) in self.shortfall.iter().enumerate() {
            f.write_str(if i == 0 { " with " } else { ", " })?;
            write!(f, "{amount} {name}")?;
        }
        if !self.shortfall.is_empty() {
            f.write_str(" less requested")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
