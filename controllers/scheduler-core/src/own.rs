//! What a pod wants of other pods: affinity, anti-affinity and spreading, as terms of the registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::core::{
    PodAffinityTerm, PodSpec, TopologySpreadConstraint, UnsatisfiableAction,
};
use setpoint_apis::selector::{LabelSelector, LabelSelectorOperator, LabelSelectorRequirement};

use crate::node::Node;
use crate::terms::{Member, Registry};

/// What a pod wants of other pods. Numbers are those of terms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Own {
    /// The required affinity: pods that match *all* of its terms, by the topology key of each.
    pub(crate) affinity: Box<[u32]>,
    /// The single terms of the required affinity: they count in the score of other pods.
    pub(crate) required: Box<[u32]>,
    /// The required anti-affinity.
    pub(crate) anti: Box<[u32]>,
    /// The preferences, with negative weights for those against.
    pub(crate) preferred: Box<[(u32, i32)]>,
    /// The spread constraints.
    pub(crate) spread: Box<[Spread]>,
}

/// A spread constraint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Spread {
    pub(crate) term: u32,
    pub(crate) max_skew: i64,
    /// Fewer domains than this count as if one of them were empty.
    pub(crate) min_domains: u32,
    /// Whether the pod waits when it cannot be kept.
    pub(crate) hard: bool,
    /// Whether nodes that the pod's node selector and affinity rule out are left out of account.
    pub(crate) honor_affinity: bool,
    /// Whether nodes with taints that the pod does not tolerate are.
    pub(crate) honor_taints: bool,
    /// Whether the pod itself counts.
    pub(crate) own: bool,
}

impl Own {
    /// All terms.
    pub(crate) fn terms(&self) -> impl Iterator<Item = u32> + '_ {
        let plain = [&self.affinity, &self.required, &self.anti];
        let plain = plain.into_iter().flatten().copied();
        let preferred = self.preferred.iter().map(|p| p.0);
        plain
            .chain(preferred)
            .chain(self.spread.iter().map(|s| s.term))
    }
}

/// Reads a pod's wishes and enters their terms. `fresh` collects the terms that were not known before.
pub(crate) fn own(
    pod: (&str, &BTreeMap<String, String>),
    spec: &PodSpec,
    registry: &mut Registry,
    nodes: &[Node],
    fresh: &mut Vec<u32>,
) -> Own {
    let (near, away) = spec.affinity.as_ref().map_or((None, None), |a| {
        (a.pod_affinity.as_ref(), a.pod_anti_affinity.as_ref())
    });
    if near.is_none() && away.is_none() && spec.topology_spread_constraints.is_empty() {
        return Own::default();
    }
    let identity = registry.identity(pod.0, pod.1);
    let mut enter = |members: Vec<Member>, key: &str, foreign: bool| {
        let matcher = registry.matcher(members);
        let (term, new) = registry.term(matcher, key, nodes);
        if new {
            fresh.push(term);
        }
        if foreign {
            registry.set_foreign(term);
        }
        (term, registry.selects(matcher, identity))
    };
    let member = |t: &PodAffinityTerm| affinity_member(t, pod);
    let required = |a: &setpoint_apis::core::PodAffinity| {
        let terms = &a.required_during_scheduling_ignored_during_execution;
        terms
            .iter()
            .map(|t| (member(t), t.topology_key.clone()))
            .collect::<Vec<_>>()
    };
    let preferred = |a: &setpoint_apis::core::PodAffinity, sign: i32| {
        let terms = &a.preferred_during_scheduling_ignored_during_execution;
        let one = |t: &setpoint_apis::core::WeightedPodAffinityTerm| {
            let term = &t.pod_affinity_term;
            (
                member(term),
                term.topology_key.clone(),
                sign * t.weight.clamp(0, 100),
            )
        };
        terms.iter().map(one).collect::<Vec<_>>()
    };
    let near_required = near.map(required).unwrap_or_default();
    let all: Vec<Member> = near_required.iter().map(|t| t.0.clone()).collect();
    let affinity = near_required
        .iter()
        .map(|t| enter(all.clone(), &t.1, false).0)
        .collect();
    let single = near_required
        .into_iter()
        .map(|t| enter(vec![t.0], &t.1, true).0)
        .collect();
    let away_required = away.map(required).unwrap_or_default().into_iter();
    let mut anti: Vec<u32> = away_required
        .map(|t| enter(vec![t.0], &t.1, true).0)
        .collect();
    anti.sort_unstable();
    anti.dedup();
    let mut wishes = near.map(|a| preferred(a, 1)).unwrap_or_default();
    wishes.extend(away.map(|a| preferred(a, -1)).unwrap_or_default());
    let preferred = wishes
        .into_iter()
        .map(|t| (enter(vec![t.0], &t.1, true).0, t.2))
        .collect();
    let spread = spec.topology_spread_constraints.iter().map(|c| {
        let (term, own) = enter(vec![spread_member(c, pod)], &c.topology_key, false);
        spread_of(c, term, own)
    });
    Own {
        affinity,
        required: single,
        anti: anti.into(),
        preferred,
        spread: spread.collect(),
    }
}

fn spread_of(c: &TopologySpreadConstraint, term: u32, own: bool) -> Spread {
    let honor = |policy: &Option<String>, default: bool| match policy.as_deref() {
        Some("Honor") => true,
        Some("Ignore") => false,
        _ => default,
    };
    Spread {
        term,
        max_skew: i64::from(c.max_skew.max(1)),
        min_domains: c.min_domains.map_or(1, |m| m.max(1).unsigned_abs()),
        hard: c.when_unsatisfiable == UnsatisfiableAction::DoNotSchedule,
        honor_affinity: honor(&c.node_affinity_policy, true),
        honor_taints: honor(&c.node_taints_policy, false),
        own,
    }
}

fn affinity_member(term: &PodAffinityTerm, pod: (&str, &BTreeMap<String, String>)) -> Member {
    let unsaid = term.namespaces.is_empty() && term.namespace_selector.is_none();
    let mut namespaces: Vec<Arc<str>> = if unsaid {
        vec![Arc::from(pod.0)]
    } else {
        term.namespaces
            .iter()
            .map(|n| Arc::from(n.as_str()))
            .collect()
    };
    namespaces.sort_unstable();
    namespaces.dedup();
    let selector = term.label_selector.as_ref().map(|s| {
        let mut s = s.clone();
        with_keys(
            &mut s,
            &term.match_label_keys,
            pod.1,
            LabelSelectorOperator::In,
        );
        with_keys(
            &mut s,
            &term.mismatch_label_keys,
            pod.1,
            LabelSelectorOperator::NotIn,
        );
        s
    });
    Member {
        namespaces,
        namespace_selector: term.namespace_selector.clone(),
        selector,
    }
}

fn spread_member(c: &TopologySpreadConstraint, pod: (&str, &BTreeMap<String, String>)) -> Member {
    let selector = c.label_selector.as_ref().map(|s| {
        let mut s = s.clone();
        with_keys(
            &mut s,
            &c.match_label_keys,
            pod.1,
            LabelSelectorOperator::In,
        );
        s
    });
    Member {
        namespaces: vec![Arc::from(pod.0)],
        namespace_selector: None,
        selector,
    }
}

/// Adds the pod's own values of `keys` to a selector; keys that the pod has no label of are left out.
fn with_keys(
    selector: &mut LabelSelector,
    keys: &[String],
    labels: &BTreeMap<String, String>,
    operator: LabelSelectorOperator,
) {
    for key in keys {
        let Some(value) = labels.get(key) else {
            continue;
        };
        if operator == LabelSelectorOperator::In && !selector.match_labels.contains_key(key) {
            selector.match_labels.insert(key.clone(), value.clone());
            continue;
        }
        selector.match_expressions.push(LabelSelectorRequirement {
            key: key.clone(),
            operator,
            values: vec![value.clone()],
        });
    }
}
