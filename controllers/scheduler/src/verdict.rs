//! What the core says of nodes, as records keep it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::ResourceList;
use setpoint_apis::core::PodSpec;
use setpoint_apis::quantity::Quantity;
use setpoint_apis::records::{self, ConstraintKind, Hope, NearestMiss, ScorePart, WaitReason};
use setpoint_scheduler_core::{Miss, NodeScore, Part, Placement, Reason, Unschedulable};

use crate::asks::UNSCHEDULABLE;
use crate::writes::Says;

/// Why no node can run a pod with this spec.
pub(crate) fn says(verdict: &Unschedulable, spec: &PodSpec, nominated: Option<Arc<str>>) -> Says {
    let mut message = verdict.message(spec);
    if let Some(node) = &nominated {
        message.push_str(&format!(" Others make room on {node}."));
    }
    Says {
        reason: UNSCHEDULABLE,
        message,
        nominated,
        nodes: Some(verdict.nodes),
        reasons: reasons(verdict),
        nearest: verdict.misses.iter().map(nearest).collect(),
    }
}

/// By constraint, most nodes first.
fn reasons(verdict: &Unschedulable) -> Vec<WaitReason> {
    let mut all: BTreeMap<(ConstraintKind, String), (u32, u32)> = BTreeMap::new();
    for (reason, nodes) in &verdict.reasons {
        let sums = all.entry(constraint(reason)).or_default();
        sums.0 += nodes;
        sums.1 += verdict.waiting.get(reason).copied().unwrap_or(0);
    }
    let mut all: Vec<_> = all
        .into_iter()
        .map(|((constraint, detail), (nodes, waiting))| WaitReason {
            constraint,
            detail,
            nodes,
            hope: if waiting > 0 {
                Hope::Waits
            } else {
                Hope::Never
            },
        })
        .collect();
    all.sort_by_key(|reason| Reverse(reason.nodes));
    all
}

fn constraint(reason: &Reason) -> (ConstraintKind, String) {
    let none = String::new();
    match reason {
        Reason::NodeName => (ConstraintKind::NodeName, none),
        Reason::NotReady(_) => (ConstraintKind::NodeNotReady, none),
        Reason::Unschedulable => (ConstraintKind::Unschedulable, none),
        Reason::Taint { key, value } if value.is_empty() => {
            (ConstraintKind::Taint, key.to_string())
        }
        Reason::Taint { key, value } => (ConstraintKind::Taint, format!("{key}={value}")),
        Reason::Selector => (ConstraintKind::NodeAffinity, none),
        Reason::Images => (ConstraintKind::Other, "images".into()),
        Reason::Host => (ConstraintKind::Other, "host".into()),
        Reason::TooManyPods => (ConstraintKind::Resources, "pods".into()),
        Reason::Insufficient(resource) => (ConstraintKind::Resources, resource.to_string()),
        Reason::Ports => (ConstraintKind::HostPorts, none),
        Reason::PodAffinity => (ConstraintKind::PodAffinity, none),
        Reason::PodAntiAffinity => (ConstraintKind::PodAntiAffinity, none),
        Reason::ExistingAntiAffinity => (ConstraintKind::ExistingAntiAffinity, none),
        Reason::Spread => (ConstraintKind::TopologySpread, none),
        Reason::SpreadLabel => (ConstraintKind::TopologySpread, "label".into()),
    }
}

fn nearest(miss: &Miss) -> NearestMiss {
    let (constraint, detail) = constraint(&miss.reason);
    let mut shortfall = ResourceList::new();
    let mut without = String::new();
    match &miss.reason {
        Reason::Insufficient(resource) => {
            let amount = match &**resource {
                "cpu" => Quantity::from_milli(miss.missing),
                "memory" | "ephemeral-storage" => Quantity::from_bytes(miss.missing),
                _ => Quantity::from_whole(miss.missing),
            };
            shortfall.insert(resource.to_string(), amount);
        }
        Reason::TooManyPods => {
            shortfall.insert("pods".into(), Quantity::from_whole(1));
        }
        Reason::Taint { .. } => without = format!("taint {detail}"),
        other => without = words(other).into(),
    }
    let one = matches!(miss.reason, Reason::Insufficient(_)) || miss.nodes == 1;
    NearestMiss {
        constraint,
        nodes: miss.nodes,
        node: one.then(|| miss.nearest.to_string()),
        shortfall,
        without,
    }
}

/// What nodes would fit without.
fn words(reason: &Reason) -> &'static str {
    match reason {
        Reason::NotReady(_) => "being unreachable or not ready",
        Reason::Unschedulable => "being cordoned",
        Reason::NodeName => "the node name",
        Reason::Selector => "the node selector and node affinity",
        Reason::Images => "container images, which they cannot run",
        Reason::Host => "programs of the host, which they cannot run",
        Reason::Ports => "the host ports",
        Reason::PodAffinity => "the pod affinity",
        Reason::PodAntiAffinity => "the pod anti-affinity",
        Reason::ExistingAntiAffinity => "the anti-affinity of pods that are there",
        Reason::Spread | Reason::SpreadLabel => "the topology spread constraints",
        Reason::Taint { .. } | Reason::TooManyPods | Reason::Insufficient(_) => "",
    }
}

/// The best few nodes as they are kept with a binding, the chosen one first.
pub(crate) fn best(scores: &[NodeScore], placement: &Placement) -> Vec<records::NodeScore> {
    let mut best: Vec<_> = scores
        .iter()
        .map(|score| records::NodeScore {
            node: (*score.node).into(),
            score: score.score,
            parts: score
                .parts
                .iter()
                .map(|(p, worth)| (part(*p), i32::try_from(*worth).unwrap_or(i32::MAX)))
                .collect(),
        })
        .collect();
    let Some(chosen) = best.iter().position(|b| *b.node == *placement.node) else {
        // Chosen among more equals than are kept.
        return Vec::new();
    };
    best[..=chosen].rotate_right(1);
    best
}

fn part(part: Part) -> ScorePart {
    match part {
        Part::Resources => ScorePart::Resources,
        Part::NodeAffinity => ScorePart::NodeAffinity,
        Part::PodAffinity => ScorePart::PodAffinity,
        Part::Spread => ScorePart::TopologySpread,
        Part::Taints => ScorePart::TaintToleration,
        Part::ImageLocality => ScorePart::ImageLocality,
    }
}
