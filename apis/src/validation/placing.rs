//! Where a pod may run: tolerations, affinity, spreading, gates, priority.

use std::collections::BTreeSet;

use super::Findings;
use crate::core::{
    Affinity, NodeSelectorOperator, NodeSelectorTerm, PodAffinityTerm, PodSpec, TaintEffect,
    Toleration, TolerationOperator, TopologySpreadConstraint, UnsatisfiableAction,
};
use crate::names;
use crate::scheduling::{HIGHEST_USER_PRIORITY, SYSTEM_PREFIX};
use crate::selector::LabelSelector;

/// All rules of a pod's spec about where it may run.
pub(super) fn placing(f: &mut Findings, path: &str, spec: &PodSpec) {
    super::labels(f, &format!("{path}.nodeSelector"), &spec.node_selector);
    tolerations(f, path, &spec.tolerations);
    if let Some(a) = &spec.affinity {
        affinity(f, &format!("{path}.affinity"), a);
    }
    spreading(f, path, &spec.topology_spread_constraints);
    gates(f, path, spec);
    priority(f, path, spec);
    if let Some(name) = spec.scheduler_name.as_deref().filter(|n| !n.is_empty()) {
        f.name(
            format!("{path}.schedulerName"),
            name,
            names::dns_subdomain(name),
        );
    }
}

fn spreading(f: &mut Findings, path: &str, constraints: &[TopologySpreadConstraint]) {
    let mut seen = BTreeSet::new();
    for (i, c) in constraints.iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        f.at_least(format!("{path}.maxSkew"), Some(c.max_skew), 1);
        topology_key(f, &path, &c.topology_key);
        if !seen.insert((&c.topology_key, c.when_unsatisfiable)) {
            f.add(
                path.clone(),
                format!(
                    "another constraint has the topologyKey {:?} and whenUnsatisfiable {}",
                    c.topology_key, c.when_unsatisfiable
                ),
            );
        }
        f.at_least(format!("{path}.minDomains"), c.min_domains, 1);
        if c.min_domains.is_some() && c.when_unsatisfiable != UnsatisfiableAction::DoNotSchedule {
            f.add(
                format!("{path}.minDomains"),
                "has no meaning unless whenUnsatisfiable is DoNotSchedule",
            );
        }
        for (field, policy) in [
            ("nodeAffinityPolicy", &c.node_affinity_policy),
            ("nodeTaintsPolicy", &c.node_taints_policy),
        ] {
            f.one_of(
                format!("{path}.{field}"),
                policy.as_deref(),
                &["Honor", "Ignore"],
            );
        }
        if let Some(s) = &c.label_selector {
            super::selector(f, &format!("{path}.labelSelector"), s);
        }
        label_keys(
            f,
            &path,
            ("matchLabelKeys", &c.match_label_keys),
            c.label_selector.as_ref(),
        );
        no_key_twice(f, &path, &c.match_label_keys, c.label_selector.as_ref());
    }
}

fn gates(f: &mut Findings, path: &str, spec: &PodSpec) {
    let mut seen = BTreeSet::new();
    for (i, gate) in spec.scheduling_gates.iter().enumerate() {
        let path = format!("{path}.schedulingGates[{i}].name");
        f.name(path.clone(), &gate.name, names::label_key(&gate.name));
        if !seen.insert(&gate.name) {
            f.add(path, format!("another gate is called {:?}", gate.name));
        }
    }
    if !spec.scheduling_gates.is_empty() && spec.node_name.as_deref().is_some_and(|n| !n.is_empty())
    {
        f.add(
            format!("{path}.nodeName"),
            "cannot be set while there are schedulingGates",
        );
    }
}

fn priority(f: &mut Findings, path: &str, spec: &PodSpec) {
    let class = spec.priority_class_name.as_deref().unwrap_or_default();
    if !class.is_empty() {
        f.name(
            format!("{path}.priorityClassName"),
            class,
            names::dns_subdomain(class),
        );
    }
    if !class.starts_with(SYSTEM_PREFIX) {
        f.at_most(
            format!("{path}.priority"),
            spec.priority.map(Into::into),
            HIGHEST_USER_PRIORITY.into(),
        );
    }
}

fn topology_key(f: &mut Findings, path: &str, key: &str) {
    let path = format!("{path}.topologyKey");
    if key.is_empty() {
        f.add(
            path,
            "must not be empty: it names the label of nodes that makes a place",
        );
    } else {
        f.name(path, key, names::label_key(key));
    }
}

/// Keys whose values are taken from the pod's own labels.
fn label_keys(
    f: &mut Findings,
    path: &str,
    (field, keys): (&str, &[String]),
    selector: Option<&LabelSelector>,
) {
    if !keys.is_empty() && selector.is_none() {
        f.add(
            format!("{path}.{field}"),
            "has no meaning without a labelSelector",
        );
    }
    for (i, key) in keys.iter().enumerate() {
        f.name(format!("{path}.{field}[{i}]"), key, names::label_key(key));
    }
}

/// A key of `matchLabelKeys` adds a requirement to the selector, which must not have one on that key. One of
/// `mismatchLabelKeys` may: it narrows further.
fn no_key_twice(f: &mut Findings, path: &str, keys: &[String], selector: Option<&LabelSelector>) {
    let Some(selector) = selector else { return };
    for (i, key) in keys.iter().enumerate() {
        let there = selector.match_labels.contains_key(key)
            || selector.match_expressions.iter().any(|r| r.key == *key);
        if there {
            f.add(
                format!("{path}.matchLabelKeys[{i}]"),
                format!("{key:?} is in the labelSelector as well; one of the two must go"),
            );
        }
    }
}

fn pod_term(f: &mut Findings, path: &str, term: &PodAffinityTerm) {
    topology_key(f, path, &term.topology_key);
    let selector = term.label_selector.as_ref();
    if let Some(s) = selector {
        super::selector(f, &format!("{path}.labelSelector"), s);
    }
    if let Some(s) = &term.namespace_selector {
        super::selector(f, &format!("{path}.namespaceSelector"), s);
    }
    for (i, ns) in term.namespaces.iter().enumerate() {
        f.name(format!("{path}.namespaces[{i}]"), ns, names::dns_label(ns));
    }
    label_keys(
        f,
        path,
        ("matchLabelKeys", &term.match_label_keys),
        selector,
    );
    label_keys(
        f,
        path,
        ("mismatchLabelKeys", &term.mismatch_label_keys),
        selector,
    );
    no_key_twice(f, path, &term.match_label_keys, selector);
    for (i, key) in term.mismatch_label_keys.iter().enumerate() {
        if term.match_label_keys.contains(key) {
            f.add(
                format!("{path}.mismatchLabelKeys[{i}]"),
                format!("{key:?} is in matchLabelKeys as well: no pod could match"),
            );
        }
    }
}

pub(super) fn tolerations(f: &mut Findings, path: &str, list: &[Toleration]) {
    for (i, t) in list.iter().enumerate() {
        let path = format!("{path}.tolerations[{i}]");
        let key = t.key.as_deref().unwrap_or_default();
        if !key.is_empty() {
            f.name(format!("{path}.key"), key, names::label_key(key));
        } else if t.operator != Some(TolerationOperator::Exists) {
            f.add(
                format!("{path}.operator"),
                "must be Exists when there is no key",
            );
        }
        let value = t.value.as_deref().unwrap_or_default();
        if t.operator == Some(TolerationOperator::Exists) && !value.is_empty() {
            f.add(
                format!("{path}.value"),
                "must be empty when the operator is Exists",
            );
        } else {
            f.name(format!("{path}.value"), value, names::label_value(value));
        }
        if t.toleration_seconds.is_some() && t.effect != Some(TaintEffect::NoExecute) {
            f.add(
                format!("{path}.effect"),
                "must be NoExecute when tolerationSeconds is given",
            );
        }
    }
}

pub(super) fn affinity(f: &mut Findings, path: &str, a: &Affinity) {
    if let Some(node) = &a.node_affinity {
        let path = format!("{path}.nodeAffinity");
        if let Some(required) = &node.required_during_scheduling_ignored_during_execution {
            let path =
                format!("{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
            if required.node_selector_terms.is_empty() {
                f.add(path.clone(), "needs at least one term");
            }
            for (i, term) in required.node_selector_terms.iter().enumerate() {
                node_term(f, &format!("{path}[{i}]"), term);
            }
        }
        for (i, p) in node
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .enumerate()
        {
            let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
            weight(f, &path, p.weight);
            node_term(f, &format!("{path}.preference"), &p.preference);
        }
    }
    for (field, pods) in [
        ("podAffinity", &a.pod_affinity),
        ("podAntiAffinity", &a.pod_anti_affinity),
    ] {
        let Some(pods) = pods else { continue };
        let required = pods
            .required_during_scheduling_ignored_during_execution
            .iter()
            .enumerate()
            .map(|(i, t)| {
                (
                    format!("{path}.{field}.requiredDuringSchedulingIgnoredDuringExecution[{i}]"),
                    t,
                )
            });
        let preferred = pods
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .enumerate()
            .map(|(i, w)| {
                let path =
                    format!("{path}.{field}.preferredDuringSchedulingIgnoredDuringExecution[{i}]");
                (format!("{path}.podAffinityTerm"), &w.pod_affinity_term)
            });
        for (path, term) in required.chain(preferred) {
            pod_term(f, &path, term);
        }
        for (i, w) in pods
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .enumerate()
        {
            weight(
                f,
                &format!("{path}.{field}.preferredDuringSchedulingIgnoredDuringExecution[{i}]"),
                w.weight,
            );
        }
    }
}

fn weight(f: &mut Findings, path: &str, weight: i32) {
    if !(1..=100).contains(&weight) {
        f.add(
            format!("{path}.weight"),
            format!("{weight} is not between 1 and 100"),
        );
    }
}

fn node_term(f: &mut Findings, path: &str, term: &NodeSelectorTerm) {
    for (i, r) in term.match_expressions.iter().enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        f.name(format!("{path}.key"), &r.key, names::label_key(&r.key));
        match r.operator {
            NodeSelectorOperator::In | NodeSelectorOperator::NotIn if r.values.is_empty() => {
                f.add(
                    format!("{path}.values"),
                    format!("operator {} needs values", r.operator),
                );
            }
            NodeSelectorOperator::Exists | NodeSelectorOperator::DoesNotExist
                if !r.values.is_empty() =>
            {
                f.add(
                    format!("{path}.values"),
                    format!("operator {} takes no values", r.operator),
                );
            }
            NodeSelectorOperator::Gt | NodeSelectorOperator::Lt
                if r.values.len() != 1 || r.values[0].parse::<i64>().is_err() =>
            {
                f.add(
                    format!("{path}.values"),
                    format!("operator {} needs one whole number", r.operator),
                );
            }
            NodeSelectorOperator::In | NodeSelectorOperator::NotIn => {
                for (j, value) in r.values.iter().enumerate() {
                    f.name(
                        format!("{path}.values[{j}]"),
                        value,
                        names::label_value(value),
                    );
                }
            }
            _ => {}
        }
    }
    for (i, r) in term.match_fields.iter().enumerate() {
        let path = format!("{path}.matchFields[{i}]");
        if r.key != "metadata.name" {
            f.add(
                format!("{path}.key"),
                format!("{:?} is not possible here: metadata.name is", r.key),
            );
        }
        if !matches!(
            r.operator,
            NodeSelectorOperator::In | NodeSelectorOperator::NotIn
        ) || r.values.len() != 1
        {
            f.add(
                format!("{path}.operator"),
                "must be In or NotIn with one value",
            );
        }
    }
}
