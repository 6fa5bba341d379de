//! What a drain does about the pods of a node: a pure function from what is known of each of them.

use std::collections::BTreeMap;

use setpoint_apis::ObjectKey;
use setpoint_apis::core::{Pod, RestartPolicy, Taint, tolerated};
use setpoint_apis::records::{Binding, Intent, PodActual, PodStage};
use setpoint_apis::stored::Stored;
use setpoint_apis::view::UNSCHEDULABLE_TAINT;

/// What the flags allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Allows {
    /// `--ignore-daemonsets`.
    pub(super) ignore_daemon_sets: bool,
    /// `--delete-emptydir-data`.
    pub(super) delete_local_data: bool,
    /// `--stop-pinned`.
    pub(super) stop_pinned: bool,
    /// `--force`.
    pub(super) force: bool,
    /// `--ignore-budgets`.
    pub(super) ignore_budgets: bool,
    /// `--grace-period`.
    pub(super) grace_seconds: Option<i64>,
}

/// A document as it was read.
#[derive(Debug)]
pub(super) enum Part<T> {
    /// There is none.
    Absent,
    /// There is one, and it does not parse.
    Unreadable,
    /// It says this.
    Is(T),
}

impl<T> Part<T> {
    /// What it says, when it can be read.
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            _ => None,
        }
    }
}

/// A pod that a node has work for, or reports.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) key: ObjectKey,
    /// The node.
    pub(super) node: String,
    pub(super) pod: Part<Stored<Pod>>,
    pub(super) binding: Part<Binding>,
    /// What the node reports of it.
    pub(super) report: Part<PodActual>,
    /// Whether the DaemonSet that it names as its controller exists.
    pub(super) has_daemon_set: bool,
    /// Its volume claims whose directories are on the node.
    pub(super) claims: Vec<String>,
    /// What an earlier look of a drain, this one or another, has asked for.
    pub(super) asked: Option<Intent>,
}

/// Why a pod is not evicted, which is a reason to evict none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// A DaemonSet would have it back at once.
    OfDaemonSet,
    /// The DaemonSet that it belongs to does not exist.
    OfNoDaemonSet,
    /// It names the node, and would be back at once.
    NamesNode,
    /// It was evicted, and is back.
    Returned,
    /// No other node has the directory of a volume claim of it.
    Pinned,
    /// What it keeps in `emptyDir` volumes would be lost.
    LocalData,
    /// It runs to an end, would begin anew, and nobody has it in his care.
    BeginsAnew,
    /// Its document or its binding cannot be read, so that the scheduler leaves it alone.
    Unreadable,
}

impl Refusal {
    /// Which pods these are, and what lets the drain go on.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::OfDaemonSet => {
                "pods of DaemonSets, which would be back at once (--ignore-daemonsets leaves them where they are)"
            }
            Self::OfNoDaemonSet => "pods whose DaemonSet does not exist (--force evicts them)",
            Self::NamesNode => {
                "pods that name the node in spec.nodeName, and would be back at once (delete them, or leave them out with --pod-selector)"
            }
            Self::Returned => {
                "pods that were evicted and are back, as those may be that tolerate node.kubernetes.io/unschedulable (delete them, or leave them out with --pod-selector)"
            }
            Self::Pinned => {
                "pods with a volume claim whose directory is on the node, which no other node can run (--stop-pinned evicts them; they wait until the node takes pods again)"
            }
            Self::LocalData => {
                "pods with emptyDir volumes, whose content is lost (--delete-emptydir-data evicts them)"
            }
            Self::BeginsAnew => {
                "pods without a controller that run to an end, and would begin anew (--force evicts them)"
            }
            Self::Unreadable => {
                "pods whose document or binding cannot be read; `setpoint why` says what is to be mended"
            }
        }
    }
}

/// What a drain waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// That the scheduler acts on the request, when the budgets allow it.
    Request,
    /// That the pod stops.
    Stopping,
    /// That a move from here to another node is over.
    MovingTo(String),
    /// That a move from another node to here is over.
    ComingFrom(String),
}

/// What a drain does about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it belongs to a DaemonSet, and stays.
    Stays,
    /// Nothing: it has ended, and nothing of it runs.
    Ended,
    /// Ask for its eviction.
    Ask,
    /// Wait.
    Wait(Wait),
    /// It is in the way, for these reasons.
    Refused(Vec<Refusal>),
}

impl Verdict {
    /// Whether the pod is no reason why its node is not drained.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Stays | Self::Ended)
    }
}

/// The placements of pods of which this drain has asked that they end.
pub(super) type Asked = BTreeMap<ObjectKey, u32>;

/// Decides about one pod. `before`: what this drain has asked for already.
pub(super) fn decide(resident: &Resident, allows: Allows, before: &Asked) -> Verdict {
    let stopping = Verdict::Wait(Wait::Stopping);
    let unreadable = Verdict::Refused(vec![Refusal::Unreadable]);
    let (pod, binding) = match (&resident.pod, &resident.binding) {
        // Its binding goes when it has stopped.
        (Part::Absent, _) | (_, Part::Absent) => return stopping,
        (Part::Unreadable, _) | (_, Part::Unreadable) => return unreadable,
        (Part::Is(pod), Part::Is(binding)) => (pod, binding),
    };
    // A former pod of that name, which is deleted.
    if pod.create_revision > binding.pod_revision {
        return stopping;
    }
    let node = &resident.node;
    let ended = resident
        .report
        .get()
        .is_some_and(|report| matches!(report.stage, PodStage::Succeeded | PodStage::Failed));
    match binding.moving.as_ref().map(|moving| &moving.to) {
        Some(to) if to == node => {
            return Verdict::Wait(Wait::ComingFrom(binding.node.clone()));
        }
        Some(to) if binding.node == *node && !ended => {
            return Verdict::Wait(Wait::MovingTo(to.clone()));
        }
        _ => {}
    }
    if binding.withdrawn.is_some() || binding.node != *node {
        return stopping;
    }
    if ended {
        return Verdict::Ended;
    }
    if of_daemon_set(&pod.value).is_some() {
        match resident.has_daemon_set {
            true if allows.ignore_daemon_sets => return Verdict::Stays,
            true => return Verdict::Refused(vec![Refusal::OfDaemonSet]),
            false if !allows.force => return Verdict::Refused(vec![Refusal::OfNoDaemonSet]),
            false => {}
        }
    }
    if before
        .get(&resident.key)
        .is_some_and(|placement| *placement < binding.placement)
    {
        return Verdict::Refused(vec![Refusal::Returned]);
    }
    let refusals = refusals(resident, &pod.value, allows);
    if !refusals.is_empty() {
        return Verdict::Refused(refusals);
    }
    match &resident.asked {
        Some(asked) if is_enough(asked, allows) => Verdict::Wait(Wait::Request),
        _ => Verdict::Ask,
    }
}

/// Whether a request does what is wanted now. Drains that differ in the time to stop make it shorter and never longer, so
/// that two of them come to an end.
fn is_enough(asked: &Intent, allows: Allows) -> bool {
    let as_soon = match (asked.grace_seconds, allows.grace_seconds) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(before), Some(now)) => before <= now,
    };
    as_soon && (asked.ignore_budgets || !allows.ignore_budgets)
}

fn refusals(resident: &Resident, pod: &Pod, allows: Allows) -> Vec<Refusal> {
    let spec = &pod.spec;
    if spec.node_name.as_ref() == Some(&resident.node) {
        return vec![Refusal::NamesNode];
    }
    let mut refusals = Vec::new();
    if !resident.claims.is_empty() && !allows.stop_pinned {
        refusals.push(Refusal::Pinned);
    }
    if spec.volumes.iter().any(|v| v.empty_dir.is_some()) && !allows.delete_local_data {
        refusals.push(Refusal::LocalData);
    }
    let alone = pod.metadata.controller().is_none();
    if alone && spec.restart_policy() != RestartPolicy::Always && !allows.force {
        refusals.push(Refusal::BeginsAnew);
    }
    refusals
}

/// Whether a pod may be placed on a cordoned node.
pub(super) fn tolerates_cordon(pod: &Pod) -> bool {
    let cordon = Taint {
        key: UNSCHEDULABLE_TAINT.into(),
        ..Taint::default()
    };
    tolerated(&pod.spec.tolerations, &cordon)
}

/// The DaemonSet that a pod names as its controller.
pub(super) fn of_daemon_set(pod: &Pod) -> Option<&str> {
    let controller = pod.metadata.controller()?;
    (controller.kind == "DaemonSet").then_some(controller.name.as_str())
}

/// The pods that are in the way, by reason.
pub(super) fn in_the_way<'a>(
    verdicts: impl IntoIterator<Item = (&'a Resident, &'a Verdict)>,
) -> BTreeMap<Refusal, Vec<&'a ObjectKey>> {
    let mut by_reason: BTreeMap<Refusal, Vec<&ObjectKey>> = BTreeMap::new();
    for (resident, verdict) in verdicts {
        let Verdict::Refused(refusals) = verdict else {
            continue;
        };
        for refusal in refusals {
            by_reason.entry(*refusal).or_default().push(&resident.key);
        }
    }
    by_reason
}
