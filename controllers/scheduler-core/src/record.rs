//! What the core says of nodes, in the words of the records: reasons to wait, near misses, scores.
//!
//! The scheduler stores these and `setpoint why` works them out afresh; both take them from here, so that the same thing
//! has the same words.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use setpoint_apis::core::PodSpec;
use setpoint_apis::records::{
    self, ConstraintKind, Hope, NearestMiss, ScorePart, ScoreParts, WaitReason,
};
use setpoint_apis::{Quantity, ResourceList};

use crate::cluster::{NodeScore, Part, Placement};
use crate::node::NotReady;
use crate::reasons::{Miss, Reason, Unschedulable};

impl Unschedulable {
    /// Why no node can run a pod with this spec: by constraint, most nodes first. Nodes on which waiting can help are
    /// told apart from those on which it cannot.
    pub fn wait_reasons(&self, spec: &PodSpec) -> Vec<WaitReason> {
        let mut all: BTreeMap<(ConstraintKind, String, Hope), u32> = BTreeMap::new();
        for (reason, count) in &self.reasons {
            let (constraint, detail) = constraint(reason, spec);
            let waiting = self.waiting_for(reason).min(*count);
            for (nodes, hope) in [(waiting, Hope::Waits), (count - waiting, Hope::Never)] {
                if nodes > 0 {
                    *all.entry((constraint, detail.clone(), hope)).or_default() += nodes;
                }
            }
        }
        let reason = |((constraint, detail, hope), nodes)| WaitReason {
            constraint,
            detail,
            nodes,
            hope,
        };
        let mut all: Vec<_> = all.into_iter().map(reason).collect();
        all.sort_by_key(|reason| Reverse(reason.nodes));
        all
    }

    /// On how many nodes that fail for this reason waiting can help: other pods leave or arrive, or the node recovers.
    fn waiting_for(&self, reason: &Reason) -> u32 {
        match reason {
            Reason::NotReady(NotReady::Removed) => 0,
            Reason::NotReady(_) => self.reasons.get(reason).copied().unwrap_or(0),
            _ => self.waiting.get(reason).copied().unwrap_or(0),
        }
    }

    /// What would have to change for a pod with this spec to fit, what helps on most nodes first.
    pub fn nearest(&self, spec: &PodSpec) -> Vec<NearestMiss> {
        self.misses.iter().map(|miss| nearest(miss, spec)).collect()
    }
}

fn nearest(miss: &Miss, spec: &PodSpec) -> NearestMiss {
    let (constraint, detail) = constraint(&miss.reason, spec);
    let mut shortfall = ResourceList::new();
    if let Reason::Insufficient(resource) = &miss.reason {
        let amount = match &**resource {
            "cpu" => Quantity::from_milli(miss.missing),
            "memory" | "ephemeral-storage" => Quantity::from_bytes(miss.missing),
            _ => Quantity::from_whole(miss.missing),
        };
        shortfall.insert(resource.to_string(), amount);
    }
    let without = match &miss.reason {
        // Said by the shortfall, or by the constraint.
        Reason::Insufficient(_) | Reason::NotReady(_) | Reason::Unschedulable => String::new(),
        Reason::Taint { .. } => format!("taint {detail}"),
        Reason::Selector => selectors(spec).into(),
        Reason::NodeName => "the node name".into(),
        Reason::VolumeClaim { claim, .. } => format!("volume claim {claim}"),
        Reason::Images => "container images".into(),
        Reason::Host => "programs of the host".into(),
        Reason::TooManyPods => "one of the pods there".into(),
        Reason::Ports => "the host ports".into(),
        Reason::PodAffinity => "the pod affinity".into(),
        Reason::PodAntiAffinity => "the pod anti-affinity".into(),
        Reason::ExistingAntiAffinity => "the anti-affinity of pods that are there".into(),
        Reason::Spread => "the topology spread constraints".into(),
        Reason::SpreadLabel => "the topology spread constraints, whose label is missing".into(),
    };
    let one = matches!(miss.reason, Reason::Insufficient(_)) || miss.nodes == 1;
    NearestMiss {
        constraint,
        nodes: miss.nodes,
        node: one.then(|| miss.nearest.to_string()),
        shortfall,
        without,
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
        Reason::Selector if spec.node_selector.is_empty() => plain(C::NodeAffinity),
        Reason::Selector => plain(C::NodeSelector),
        Reason::VolumeClaim { claim, node } => (
            C::VolumeClaim,
            format!("volume claim {claim} is on node {node}"),
        ),
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

/// What of a spec looks at the labels of nodes.
fn selectors(spec: &PodSpec) -> &'static str {
    let affinity = spec.affinity.as_ref();
    let affinity = affinity.and_then(|a| a.node_affinity.as_ref());
    let required = affinity.is_some_and(|a| {
        a.required_during_scheduling_ignored_during_execution
            .is_some()
    });
    match (spec.node_selector.is_empty(), required) {
        (false, true) => "the node selector and the node affinity",
        (false, false) => "the node selector",
        (true, _) => "the node affinity",
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

/// That a group keeps its pods waiting, and why.
pub fn group_waits(group: &str, why: &str) -> WaitReason {
    WaitReason {
        constraint: ConstraintKind::PodGroup,
        detail: format!("{group}: {why}"),
        nodes: 0,
        hope: Hope::Waits,
    }
}

/// That not as many pods of a group find places as have to be placed together.
pub fn group_fits_in_part(group: &str, fit: usize, needed: usize) -> WaitReason {
    group_waits(
        group,
        &format!("{fit} of the {needed} that must run together fit"),
    )
}

impl From<&NodeScore> for records::NodeScore {
    fn from(score: &NodeScore) -> Self {
        let parts = score.parts.iter().map(|(part, worth)| {
            let worth = (*worth).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            (score_part(*part), worth)
        });
        let parts: ScoreParts = parts.collect();
        Self {
            node: score.node.to_string(),
            score: score.score,
            parts,
        }
    }
}

/// Up to `most` nodes as they are kept with a binding: the chosen one first, then the best of the others. `scores` holds
/// the best nodes that could be chosen, the best first, and the chosen one. None when that is not among them.
pub fn best(scores: &[NodeScore], placement: &Placement, most: usize) -> Vec<records::NodeScore> {
    let is_chosen = |score: &&NodeScore| score.node == placement.node;
    let Some(chosen) = scores.iter().find(is_chosen) else {
        return Vec::new();
    };
    let others = scores.iter().filter(|score| !is_chosen(score));
    let best = std::iter::once(chosen).chain(others).take(most);
    best.map(records::NodeScore::from).collect()
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

#[cfg(test)]
mod tests {
    use setpoint_apis::document;

    use super::*;

    fn spec(yaml: &str) -> PodSpec {
        let text = format!("{{containers: [{{name: c, image: host}}], {yaml}}}");
        document::decode_value(text.as_bytes()).unwrap()
    }

    fn told(verdict: &Unschedulable, spec: &PodSpec) -> Vec<(ConstraintKind, String, u32, Hope)> {
        let reasons = verdict.wait_reasons(spec).into_iter();
        reasons
            .map(|r| (r.constraint, r.detail, r.nodes, r.hope))
            .collect()
    }

    #[test]
    fn nodes_on_which_waiting_helps_are_told_apart_and_a_node_that_is_not_ready_is_one() {
        let lost = Reason::NotReady(NotReady::Lost);
        let removed = Reason::NotReady(NotReady::Removed);
        let cpu = Reason::Insufficient("cpu".into());
        let verdict = Unschedulable {
            nodes: 10,
            reasons: [(lost, 2), (removed, 1), (cpu.clone(), 7)].into(),
            waiting: [(cpu, 3)].into(),
            ..Unschedulable::default()
        };
        let (resources, not_ready) = (ConstraintKind::Resources, ConstraintKind::NodeNotReady);
        assert_eq!(
            told(&verdict, &spec("")),
            [
                (resources, "cpu".into(), 4, Hope::Never),
                (resources, "cpu".into(), 3, Hope::Waits),
                (not_ready, "agent lost".into(), 2, Hope::Waits),
                (not_ready, "deleted".into(), 1, Hope::Never),
            ]
        );
    }

    #[test]
    fn the_node_selector_is_told_from_the_node_affinity() {
        let verdict = Unschedulable {
            nodes: 1,
            reasons: [(Reason::Selector, 1)].into(),
            ..Unschedulable::default()
        };
        let affinity = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}";
        let both = format!("nodeSelector: {{a: b}}, {affinity}");
        for (yaml, kind, words) in [
            (
                "nodeSelector: {a: b}",
                ConstraintKind::NodeSelector,
                "the node selector",
            ),
            (affinity, ConstraintKind::NodeAffinity, "the node affinity"),
            (
                &both,
                ConstraintKind::NodeSelector,
                "the node selector and the node affinity",
            ),
        ] {
            let spec = spec(yaml);
            assert_eq!(told(&verdict, &spec)[0].0, kind, "{yaml}");
            assert_eq!(selectors(&spec), words, "{yaml}");
        }
    }

    #[test]
    fn near_misses_read_as_sentences() {
        let says = |reason: Reason, nodes: u32, missing: i64| {
            let miss = Miss {
                reason,
                nodes,
                nearest: "n7".into(),
                missing,
            };
            nearest(&miss, &spec("")).to_string()
        };
        let taint = Reason::Taint {
            key: "dedicated".into(),
            value: "gpu".into(),
        };
        for (said, sentence) in [
            (
                says(Reason::Insufficient("cpu".into()), 3, 200),
                "n7 would fit with 200m cpu less requested",
            ),
            (
                says(taint, 3, 0),
                "3 nodes would fit without taint dedicated=gpu",
            ),
            (
                says(Reason::NotReady(NotReady::Lost), 2, 0),
                "2 nodes would fit if ready",
            ),
            (
                says(Reason::Unschedulable, 1, 0),
                "n7 would fit if not cordoned",
            ),
            (
                says(Reason::TooManyPods, 1, 1),
                "n7 would fit without one of the pods there",
            ),
        ] {
            assert_eq!(said, sentence);
        }
    }

    #[test]
    fn the_chosen_node_is_kept_first_and_nothing_when_it_is_not_known() {
        let scores = ["a", "b", "c", "d", "e"].map(|node| NodeScore {
            node: node.into(),
            score: 1,
            parts: [(Part::Spread, 1)].into(),
        });
        let placement = |node: &str| Placement {
            node: node.into(),
            session: 1,
            nodes: 3,
            feasible: 3,
            score: 1,
            runner_up: None,
        };
        let names = |node| {
            let best = best(&scores, &placement(node), 3);
            best.into_iter().map(|b| b.node).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["a", "b", "c"]);
        assert_eq!(names("b"), ["b", "a", "c"]);
        // Drawn among more equals than are kept.
        assert_eq!(names("e"), ["e", "a", "b"]);
        assert!(names("z").is_empty());
    }
}
