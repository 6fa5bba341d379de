//! The environment of a container, and the references that it shares with files in volumes.

use super::Findings;
use super::container::exactly_one;
use crate::core::{Container, EnvVar, ResourceFieldSelector};
use crate::names;

pub(super) fn env(f: &mut Findings, path: &str, c: &Container) {
    for (i, e) in c.env.iter().enumerate() {
        let path = format!("{path}.env[{i}]");
        f.name(format!("{path}.name"), &e.name, names::env_name(&e.name));
        value_from(f, &path, e);
    }
    for (i, e) in c.env_from.iter().enumerate() {
        let path = format!("{path}.envFrom[{i}]");
        if let Some(prefix) = e.prefix.as_deref().filter(|p| !p.is_empty()) {
            f.name(format!("{path}.prefix"), prefix, names::env_name(prefix));
        }
        exactly_one(
            f,
            &path,
            &[
                ("configMapRef", e.config_map_ref.is_some()),
                ("secretRef", e.secret_ref.is_some()),
            ],
        );
        for (field, r) in [
            ("configMapRef", &e.config_map_ref),
            ("secretRef", &e.secret_ref),
        ] {
            if let Some(r) = r {
                f.name(
                    format!("{path}.{field}.name"),
                    &r.name,
                    names::dns_subdomain(&r.name),
                );
            }
        }
    }
}

/// The fields of a pod that its environment can hold, besides labels and annotations by key.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn value_from(f: &mut Findings, path: &str, e: &EnvVar) {
    let Some(from) = &e.value_from else { return };
    if e.value.as_deref().is_some_and(|v| !v.is_empty()) {
        f.add(
            format!("{path}.valueFrom"),
            "there is a value already; one of the two must go",
        );
    }
    let path = format!("{path}.valueFrom");
    exactly_one(
        f,
        &path,
        &[
            ("fieldRef", from.field_ref.is_some()),
            ("resourceFieldRef", from.resource_field_ref.is_some()),
            ("configMapKeyRef", from.config_map_key_ref.is_some()),
            ("secretKeyRef", from.secret_key_ref.is_some()),
        ],
    );
    for (field, r) in [
        ("configMapKeyRef", &from.config_map_key_ref),
        ("secretKeyRef", &from.secret_key_ref),
    ] {
        if let Some(r) = r {
            f.name(
                format!("{path}.{field}.name"),
                &r.name,
                names::dns_subdomain(&r.name),
            );
            f.name(
                format!("{path}.{field}.key"),
                &r.key,
                names::data_key(&r.key),
            );
        }
    }
    if let Some(r) = &from.field_ref {
        field_path(
            f,
            &format!("{path}.fieldRef.fieldPath"),
            &r.field_path,
            ENV_FIELDS,
        );
    }
    if let Some(r) = &from.resource_field_ref {
        resource_field(f, &format!("{path}.resourceFieldRef"), r);
    }
}

/// Whether `field` is one of `fields`, or a label or annotation by its key.
pub(super) fn field_path(f: &mut Findings, path: &str, field: &str, fields: &[&str]) {
    let keyed = ["metadata.labels['", "metadata.annotations['"];
    if let Some(key) = keyed
        .iter()
        .find_map(|k| field.strip_prefix(k)?.strip_suffix("']"))
    {
        f.name(path, key, names::label_key(&key.to_lowercase()));
    } else if !fields.contains(&field) {
        f.add(
            path,
            format!(
                "{field:?} is not one of {}, metadata.labels['<key>'], metadata.annotations['<key>']",
                fields.join(", ")
            ),
        );
    }
}

pub(super) fn resource_field(f: &mut Findings, path: &str, r: &ResourceFieldSelector) {
    let known = r.resource.split_once('.').is_some_and(|(which, resource)| {
        matches!(which, "limits" | "requests")
            && (matches!(resource, "cpu" | "memory" | "ephemeral-storage")
                || resource.starts_with("hugepages-"))
    });
    if !known {
        f.add(
            format!("{path}.resource"),
            format!(
                "{:?} is not limits or requests of cpu, memory, ephemeral-storage or hugepages-*",
                r.resource
            ),
        );
    }
}
