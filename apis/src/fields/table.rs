//! The table itself, by group. One block per type; a field that is not here does not exist.

mod autoscaling;
mod containers;
mod later;
mod placing;
mod plain;
mod pods;
mod volumes;
mod workloads;

use super::{Class, Group};

const fn supported(fields: &'static str) -> Group {
    Group {
        class: Class::Supported,
        fields,
        unless: &[],
        why: "",
    }
}

const fn accepted(
    fields: &'static str,
    unless: &'static [&'static str],
    why: &'static str,
) -> Group {
    Group {
        class: Class::Accepted,
        fields,
        unless,
        why,
    }
}

const fn refused(
    fields: &'static str,
    unless: &'static [&'static str],
    why: &'static str,
) -> Group {
    Group {
        class: Class::Refused,
        fields,
        unless,
        why,
    }
}

const fn dropped(fields: &'static str, why: &'static str) -> Group {
    Group {
        class: Class::Dropped,
        fields,
        unless: &[],
        why,
    }
}

const NO_SERVICES: &str = "stored and shown; nothing serves it yet";
const LOCAL_STORAGE: &str = "a claim is a directory of a node, whatever else it asks for";
const NO_STORAGE: &str = "nothing provides storage yet";
const NO_ACCOUNTS: &str = "there is no API server that a pod could speak to";
const NO_REPORT: &str = "the status is a document of its own";
const HOST_PROCESS: &str = "containers are processes of the node and have this anyway";
const NODE_RESOLVER: &str = "processes resolve names as their node does";
const NOT_FILTERED: &str = "the process driver applies no such profile";

/// Types and their fields.
type Types = &'static [(&'static str, &'static [Group])];

/// Kinds that are stored and shown but act later.
pub const KINDS: &[(&str, &str)] = &[
    (
        "Service",
        "a Service is stored and shown; nothing serves it yet",
    ),
    (
        "Ingress",
        "an Ingress is stored and shown; nothing serves it yet",
    ),
    (
        "ServiceAccount",
        "a ServiceAccount is stored and shown; there is no API server that a pod could speak to",
    ),
    (
        "HorizontalPodAutoscaler",
        "a HorizontalPodAutoscaler is stored and shown, and what an autoscaler has recorded for it decides the size; none comes with Setpoint yet",
    ),
];

/// Annotations that say something to other kinds and nothing to this one: kind, annotation, why.
pub(super) const IDLE_ANNOTATIONS: &[(&str, &str, &str)] = &[(
    "Deployment",
    crate::apps::PROGRESS_DEADLINE,
    "a Deployment has the field spec.progressDeadlineSeconds for that",
)];

/// Types and their fields, by group.
pub(super) const GROUPS: &[Types] = &[
    plain::TYPES,
    workloads::TYPES,
    autoscaling::TYPES,
    pods::TYPES,
    containers::TYPES,
    volumes::TYPES,
    placing::TYPES,
    later::TYPES,
];
