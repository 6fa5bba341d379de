//! Pods and pod templates.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, container, volume};
use crate::core::{
    Affinity, Container, DnsPolicy, NodeSelectorOperator, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, RestartPolicy, TaintEffect, TolerationOperator,
};
use crate::kind::FieldError;
use crate::names;

/// What is wrong with a Pod.
pub fn pod(pod: &Pod) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &pod.metadata, true, names::dns_subdomain);
    spec(&mut f, "spec", &pod.spec);
    f.0
}

/// What is wrong with a pod template at `path`.
pub fn pod_template(path: &str, template: &PodTemplateSpec) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::labels(
        &mut f,
        &format!("{path}.metadata.labels"),
        &template.metadata.labels,
    );
    super::annotations(
        &mut f,
        &format!("{path}.metadata.annotations"),
        &template.metadata.annotations,
    );
    spec(&mut f, &format!("{path}.spec"), &template.spec);
    f.0
}

fn spec(f: &mut Findings, path: &str, spec: &PodSpec) {
    if spec.containers.is_empty() {
        f.add(
            format!("{path}.containers"),
            "a pod needs at least one container",
        );
    }
    let volumes = volume::volumes(f, &format!("{path}.volumes"), &spec.volumes);
    let mut seen = BTreeSet::new();
    containers(
        f,
        &format!("{path}.initContainers"),
        &spec.init_containers,
        true,
        &volumes,
        &mut seen,
    );
    containers(
        f,
        &format!("{path}.containers"),
        &spec.containers,
        false,
        &volumes,
        &mut seen,
    );
    f.at_least(
        format!("{path}.terminationGracePeriodSeconds"),
        spec.termination_grace_period_seconds,
        0,
    );
    f.at_least(
        format!("{path}.activeDeadlineSeconds"),
        spec.active_deadline_seconds,
        1,
    );
    for (field, value) in [
        (
            "terminationGracePeriodSeconds",
            spec.termination_grace_period_seconds,
        ),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
    ] {
        f.at_most(format!("{path}.{field}"), value, i32::MAX.into());
    }
    super::labels(f, &format!("{path}.nodeSelector"), &spec.node_selector);
    for (field, name) in [
        ("nodeName", &spec.node_name),
        ("serviceAccountName", &spec.service_account_name),
    ] {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            f.name(format!("{path}.{field}"), name, names::dns_subdomain(name));
        }
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            f.name(format!("{path}.{field}"), name, names::dns_label(name));
        }
    }
    if spec.dns_policy == Some(DnsPolicy::None)
        && spec
            .dns_config
            .as_ref()
            .is_none_or(|d| d.nameservers.is_empty())
    {
        f.add(
            format!("{path}.dnsConfig.nameservers"),
            "dnsPolicy None needs at least one name server",
        );
    }
    tolerations(f, path, spec);
    if let Some(a) = &spec.affinity {
        affinity(f, &format!("{path}.affinity"), a);
    }
    for (i, c) in spec.topology_spread_constraints.iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        f.at_least(format!("{path}.maxSkew"), Some(c.max_skew), 1);
        f.name(
            format!("{path}.topologyKey"),
            &c.topology_key,
            names::label_key(&c.topology_key),
        );
        if let Some(s) = &c.label_selector {
            super::selector(f, &format!("{path}.labelSelector"), s);
        }
    }
    for (i, alias) in spec.host_aliases.iter().enumerate() {
        if alias.ip.parse::<std::net::IpAddr>().is_err() {
            f.add(
                format!("{path}.hostAliases[{i}].ip"),
                format!("{:?} is not an IP address", alias.ip),
            );
        }
    }
    for (name, amount) in &spec.overhead {
        if amount.is_negative() {
            f.add(
                super::key_path(&format!("{path}.overhead"), name),
                "must not be negative",
            );
        }
    }
}

fn containers<'a>(
    f: &mut Findings,
    path: &str,
    list: &'a [Container],
    init: bool,
    volumes: &BTreeSet<&str>,
    seen: &mut BTreeSet<&'a str>,
) {
    let mut host_ports = BTreeMap::new();
    for (i, c) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        f.name(format!("{path}.name"), &c.name, names::dns_label(&c.name));
        if !c.name.is_empty() && !seen.insert(&c.name) {
            f.add(
                format!("{path}.name"),
                format!("another container of the pod is called {:?}", c.name),
            );
        }
        container::container(f, &path, c, volumes);
        match c.restart_policy {
            Some(_) if !init => {
                f.add(
                    format!("{path}.restartPolicy"),
                    "only init containers have a restartPolicy of their own (Always)",
                );
            }
            Some(p) if p != RestartPolicy::Always => {
                f.add(
                    format!("{path}.restartPolicy"),
                    format!("{p} is not possible here: Always, or nothing"),
                );
            }
            _ => {}
        }
        if init && !c.is_sidecar() {
            let hooks = [
                ("livenessProbe", c.liveness_probe.is_some()),
                ("readinessProbe", c.readiness_probe.is_some()),
                ("startupProbe", c.startup_probe.is_some()),
                ("lifecycle", c.lifecycle.is_some()),
            ];
            for (field, _) in hooks.into_iter().filter(|(_, there)| *there) {
                f.add(
                    format!("{path}.{field}"),
                    "an init container may have this only with restartPolicy: Always",
                );
            }
        }
        for (j, port) in c.ports.iter().enumerate() {
            if let Some(host_port) = port.host_port {
                let key = (host_port, port.protocol, port.host_ip.clone());
                if let Some(other) = host_ports.insert(key, &c.name) {
                    f.add(
                        format!("{path}.ports[{j}].hostPort"),
                        format!("container {other:?} has this host port already"),
                    );
                }
            }
        }
    }
}

fn tolerations(f: &mut Findings, path: &str, spec: &PodSpec) {
    for (i, t) in spec.tolerations.iter().enumerate() {
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

fn affinity(f: &mut Findings, path: &str, a: &Affinity) {
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
            f.name(
                format!("{path}.topologyKey"),
                &term.topology_key,
                names::label_key(&term.topology_key),
            );
            if let Some(s) = &term.label_selector {
                super::selector(f, &format!("{path}.labelSelector"), s);
            }
            if let Some(s) = &term.namespace_selector {
                super::selector(f, &format!("{path}.namespaceSelector"), s);
            }
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
