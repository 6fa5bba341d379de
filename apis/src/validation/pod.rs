//! Pods and pod templates.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, container, key_path, volume};
use crate::core::{
    Container, DELETION_COST, DnsPolicy, Pod, PodSpec, PodTemplateSpec, RestartPolicy,
};
use crate::kind::FieldError;
use crate::meta::ObjectMeta;
use crate::names;
use crate::records::PARTITION_POLICY;

/// What is wrong with a Pod.
pub fn pod(pod: &Pod) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &pod.metadata, true, names::dns_subdomain);
    annotations(&mut f, "metadata", &pod.metadata);
    spec(&mut f, "spec", &pod.spec, &[]);
    f.0
}

/// What is wrong with a pod template at `path`.
pub fn pod_template(path: &str, template: &PodTemplateSpec) -> Vec<FieldError> {
    let mut f = Findings::default();
    pod_template_with(&mut f, path, template, &[]);
    f.0
}

/// The annotations that say something of a pod.
fn annotations(f: &mut Findings, path: &str, meta: &ObjectMeta) {
    let path = format!("{path}.annotations");
    let value = |key: &str| meta.annotations.get(key).map(String::as_str);
    f.one_of(
        key_path(&path, PARTITION_POLICY),
        value(PARTITION_POLICY),
        &["replace", "keep", "stop"],
    );
    if let Some(text) = value(DELETION_COST)
        && text.parse::<i32>().map(|n| n.to_string()).ok().as_deref() != Some(text)
    {
        f.add(
            key_path(&path, DELETION_COST),
            format!("{text:?} is not a whole number of 32 bits"),
        );
    }
}

/// The same of a template whose pods get further volumes, with these names.
pub(super) fn pod_template_with(
    f: &mut Findings,
    path: &str,
    template: &PodTemplateSpec,
    claims: &[&str],
) {
    super::labels(
        f,
        &format!("{path}.metadata.labels"),
        &template.metadata.labels,
    );
    super::annotations(
        f,
        &format!("{path}.metadata.annotations"),
        &template.metadata.annotations,
    );
    annotations(f, &format!("{path}.metadata"), &template.metadata);
    spec(f, &format!("{path}.spec"), &template.spec, claims);
}

fn spec(f: &mut Findings, path: &str, spec: &PodSpec, claims: &[&str]) {
    if spec.containers.is_empty() {
        f.add(
            format!("{path}.containers"),
            "a pod needs at least one container",
        );
    }
    let mut volumes = volume::volumes(f, &format!("{path}.volumes"), &spec.volumes);
    volumes.extend(claims);
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
    super::placing::placing(f, path, spec);
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
    for (i, alias) in spec.host_aliases.iter().enumerate() {
        if alias.ip.parse::<std::net::IpAddr>().is_err() {
            f.add(
                format!("{path}.hostAliases[{i}].ip"),
                format!("{:?} is not an IP address", alias.ip),
            );
        }
    }
    container::amounts(f, &format!("{path}.overhead"), &spec.overhead);
    host_network(f, path, spec);
}

/// On the node's network a container's port is the node's.
fn host_network(f: &mut Findings, path: &str, spec: &PodSpec) {
    if spec.host_network != Some(true) {
        return;
    }
    for (list, containers) in [
        ("initContainers", &spec.init_containers),
        ("containers", &spec.containers),
    ] {
        for (i, c) in containers.iter().enumerate() {
            for (j, port) in c.ports.iter().enumerate() {
                if port.host_port.is_some_and(|p| p != port.container_port) {
                    f.add(
                        format!("{path}.{list}[{i}].ports[{j}].hostPort"),
                        "must be the containerPort when hostNetwork is true",
                    );
                }
            }
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
            if let Some(host_port) = port.host_port.filter(|&p| p != 0) {
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
