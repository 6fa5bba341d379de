//! The core's reasons in the words of the records, and sentences of both.

use serde::Serialize;
use setpoint_apis::core::PodSpec;
use setpoint_apis::records::{
    ConstraintKind, Hope, NearestMiss, NodeScore, ScorePart, ScoreParts, WaitReason,
};
use setpoint_apis::{Quantity, ResourceList};
use setpoint_scheduler_core::{self as core, Miss, NotReady, Part, Reason, Unschedulable};

/// What would have to change for a pod to fit, with the sentence that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// `n7 would fit with 200m cpu less requested`.
    pub text: String,
    /// The same in parts.
    #[serde(flatten)]
    pub miss: NearestMiss,
}

impl From<&NearestMiss> for Nearest {
    fn from(miss: &NearestMiss) -> Self {
        Self {
            text: miss.to_string(),
            miss: miss.clone(),
        }
    }
}

/// Why no node can run a pod, by constraint, most nodes first. Nodes on which waiting can help are told apart.
pub(crate) fn reasons(why: &Unschedulable, spec: &PodSpec) -> Vec<WaitReason> {
    let mut all: Vec<WaitReason> = Vec::new();
    for (reason, count) in &why.reasons {
        let (constraint, detail) = constraint(reason, spec);
        let waiting = match reason {
            // A node becomes ready by itself.
            Reason::NotReady(NotReady::Removed) => 0,
            Reason::NotReady(_) => *count,
            _ => why.waiting.get(reason).copied().unwrap_or(0),
        };
        for (nodes, hope) in [
            (waiting, Hope::Waits),
            (count.saturating_sub(waiting), Hope::Never),
        ] {
            let same = |r: &&mut WaitReason| {
                (r.constraint, r.hope) == (constraint, hope) && r.detail == detail
            };
            match all.iter_mut().find(same) {
                _ if nodes == 0 => {}
                Some(known) => known.nodes += nodes,
                None => all.push(WaitReason {
                    constraint,
                    detail: detail.clone(),
                    nodes,
                    hope,
                }),
            }
        }
    }
    all.sort_by_key(|r| std::cmp::Reverse(r.nodes));
    all
}

/// What would have to change, least change first.
pub(crate) fn nearest(why: &Unschedulable, spec: &PodSpec) -> Vec<Nearest> {
    why.misses.iter().map(|m| one_nearest(m, spec)).collect()
}

fn one_nearest(miss: &Miss, spec: &PodSpec) -> Nearest {
    let (constraint, detail) = constraint(&miss.reason, spec);
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
        Reason::Taint { .. } => without = format!("taint {detail}"),
        _ if detail.is_empty() => without = phrase(constraint).trim_end_matches(':').into(),
        _ => without = format!("{} {detail}", phrase(constraint)),
    }
    let one = miss.nodes == 1 || matches!(miss.reason, Reason::Insufficient(_));
    Nearest {
        text: miss.to_string(),
        miss: NearestMiss {
            constraint,
            nodes: miss.nodes,
            node: one.then(|| miss.nearest.to_string()),
            shortfall,
            without,
        },
    }
}

fn constraint(reason: &Reason, spec: &PodSpec) -> (ConstraintKind, String) {
    use ConstraintKind as C;
    let plain = |kind| (kind, String::new());
    match reason {
        Reason::NodeName => plain(C::NodeName),
        Reason::NotReady(why) => (C::NodeNotReady, not_ready(*why).into()),
        Reason::Unschedulable => plain(C::Unschedulable),
        Reason::Taint { key, value } if value.is_empty() => (C::Taint, key.to_string()),
        Reason::Taint { key, value } => (C::Taint, format!("{key}={value}")),
        Reason::Selector => {
            let affinity = spec
                .affinity
                .as_ref()
                .and_then(|a| a.node_affinity.as_ref());
            let required = affinity.is_some_and(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .is_some()
            });
            plain(if required && spec.node_selector.is_empty() {
                C::NodeAffinity
            } else {
                C::NodeSelector
            })
        }
        Reason::Images => (C::Other, "images".into()),
        Reason::Host => (C::Other, "host".into()),
        Reason::TooManyPods => (C::Resources, "pods".into()),
        Reason::Insufficient(resource) => (C::Resources, resource.to_string()),
        Reason::Ports => plain(C::HostPorts),
        Reason::PodAffinity => plain(C::PodAffinity),
        Reason::PodAntiAffinity => plain(C::PodAntiAffinity),
        Reason::ExistingAntiAffinity => plain(C::ExistingAntiAffinity),
        Reason::Spread => plain(C::TopologySpread),
        Reason::SpreadLabel => (C::TopologySpread, "label missing".into()),
    }
}

fn not_ready(why: NotReady) -> &'static str {
    match why {
        NotReady::NotReported => "has not reported yet",
        NotReady::Lost => "agent lost",
        NotReady::Suspended => "agent lost together with many others",
        NotReady::Removed => "deleted",
        NotReady::AgentNotReady => "agent not ready",
        NotReady::Invalid => "document cannot be read",
    }
}

/// A constraint as a thing.
fn phrase(constraint: ConstraintKind) -> &'static str {
    match constraint {
        ConstraintKind::SchedulingGates => "scheduling gates",
        ConstraintKind::SchedulerProfile => "the scheduler profile",
        ConstraintKind::PriorityClass => "the priority class",
        ConstraintKind::Quota => "the quota",
        ConstraintKind::PodGroup => "the pod group",
        ConstraintKind::Unschedulable => "being cordoned",
        ConstraintKind::NodeNotReady => "being not ready:",
        ConstraintKind::NodeName => "spec.nodeName",
        ConstraintKind::NodeSelector => "the node selector",
        ConstraintKind::NodeAffinity => "the node affinity",
        ConstraintKind::Taint => "taint",
        ConstraintKind::Resources => "the limit of",
        ConstraintKind::Reservation => "the reservations of others",
        ConstraintKind::HostPorts => "the host ports",
        ConstraintKind::PodAffinity => "the pod affinity",
        ConstraintKind::PodAntiAffinity => "the pod anti-affinity",
        ConstraintKind::ExistingAntiAffinity => "the anti-affinity of pods that are there",
        ConstraintKind::TopologySpread => "the topology spread constraints:",
        ConstraintKind::Other => "the need to run",
    }
}

/// What a reason says, for people: `3 nodes: taint dedicated=gpu is not tolerated`.
pub fn describe(reason: &WaitReason) -> String {
    use ConstraintKind as C;
    let detail = reason.detail.as_str();
    let what = match reason.constraint {
        C::SchedulingGates => format!("it has scheduling gates: {detail}"),
        C::SchedulerProfile => {
            format!("its scheduler profile {detail:?} does not exist, or is not valid")
        }
        C::PriorityClass if detail.contains(' ') => detail.to_owned(),
        C::PriorityClass => format!("its priority class {detail:?} does not exist, or disagrees"),
        C::Quota if detail.is_empty() => "a quota of its namespace would be exceeded".to_owned(),
        C::Quota => format!("quota {detail}"),
        C::PodGroup if detail.is_empty() => {
            "its pod group is not complete, or does not all fit".to_owned()
        }
        C::PodGroup => format!("pod group {detail}"),
        C::Unschedulable => "cordoned".to_owned(),
        C::NodeNotReady if detail.is_empty() => "not ready".to_owned(),
        C::NodeNotReady => format!("not ready: {detail}"),
        C::NodeName => "not the node that the pod names".to_owned(),
        C::NodeSelector => "the node selector does not match".to_owned(),
        C::NodeAffinity => "the required node affinity does not match".to_owned(),
        C::Taint => format!("taint {detail} is not tolerated"),
        C::Resources if detail == "pods" => "as many pods as it takes".to_owned(),
        C::Resources => format!("too little {detail}"),
        C::Reservation => "what is free is reserved for others".to_owned(),
        C::HostPorts => "host ports are taken".to_owned(),
        C::PodAffinity => "the required pod affinity does not hold".to_owned(),
        C::PodAntiAffinity => "pods that it must not be near are there".to_owned(),
        C::ExistingAntiAffinity => "pods are there that must not be near it".to_owned(),
        C::TopologySpread if detail.is_empty() => {
            "a topology spread constraint would be broken".to_owned()
        }
        C::TopologySpread => format!("topology spread constraint: {detail}"),
        C::Other if detail.is_empty() => "a constraint that this version does not know".to_owned(),
        C::Other if detail == "images" => "does not run container images".to_owned(),
        C::Other if detail == "host" => "does not run host processes".to_owned(),
        C::Other => detail.to_owned(),
    };
    match reason.nodes {
        0 => what,
        1 => format!("1 node: {what}"),
        n => format!("{n} nodes: {what}"),
    }
}

/// A score as the records have it.
pub(crate) fn score(node: &core::NodeScore) -> NodeScore {
    let parts: ScoreParts = node
        .parts
        .iter()
        .map(|(part, worth)| {
            let worth = (*worth).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            (score_part(*part), worth)
        })
        .collect();
    NodeScore {
        node: node.node.to_string(),
        score: node.score,
        parts,
    }
}

fn score_part(part: Part) -> ScorePart {
    match part {
        Part::Resources => ScorePart::Resources,
        Part::NodeAffinity => ScorePart::NodeAffinity,
        Part::PodAffinity => ScorePart::PodAffinity,
        Part::Spread => ScorePart::TopologySpread,
        Part::Taints => ScorePart::TaintToleration,
        Part::ImageLocality => ScorePart::ImageLocality,
    }
}
