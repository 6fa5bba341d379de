//! Sentences about the reasons and near misses of the records.

use serde::Serialize;
use setpoint_apis::core::PodSpec;
use setpoint_apis::records::{ConstraintKind, NearestMiss, WaitReason};
use setpoint_scheduler_core::Unschedulable;

/// What would have to change for a pod to fit, with the sentence that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// `n7 would fit with 200m cpu less requested`: what `miss` says.
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

/// What would have to change, what helps on most nodes first.
pub(crate) fn nearest(why: &Unschedulable, spec: &PodSpec) -> Vec<Nearest> {
    why.nearest(spec).iter().map(Nearest::from).collect()
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
        C::VolumeClaim if detail.contains(' ') => detail.to_owned(),
        C::VolumeClaim => format!("volume claim {detail:?} does not exist, or cannot be read"),
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
