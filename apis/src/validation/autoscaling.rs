//! The HorizontalPodAutoscaler.

use super::{Findings, container};
use crate::autoscaling::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HpaScalingRules, MetricIdentifier,
    MetricSourceType, MetricSpec, MetricTarget, MetricTargetType,
};
use crate::kind::FieldError;
use crate::names;

/// The longest time over which wishes are looked at, in seconds.
const WINDOW_SECONDS: i64 = 3600;

/// The longest time of a scaling policy, in seconds.
const PERIOD_SECONDS: i64 = 1800;

/// What is wrong with a HorizontalPodAutoscaler.
pub fn autoscaler(h: &HorizontalPodAutoscaler) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &h.metadata, true, names::dns_subdomain);
    let spec = &h.spec;
    f.at_least("spec.minReplicas", spec.min_replicas, 1);
    f.at_least("spec.maxReplicas", Some(spec.max_replicas), 1);
    if let Some(least) = spec.min_replicas
        && spec.max_replicas < least
    {
        f.add(
            "spec.maxReplicas",
            format!("{} is less than minReplicas, {least}", spec.max_replicas),
        );
    }
    reference(&mut f, "spec.scaleTargetRef", &spec.scale_target_ref);
    for (i, metric) in spec.metrics.iter().enumerate() {
        metric_spec(&mut f, &format!("spec.metrics[{i}]"), metric);
    }
    if let Some(behavior) = &spec.behavior {
        for (field, rules) in [
            ("scaleUp", &behavior.scale_up),
            ("scaleDown", &behavior.scale_down),
        ] {
            if let Some(rules) = rules {
                scaling_rules(&mut f, &format!("spec.behavior.{field}"), rules);
            }
        }
    }
    f.0
}

fn reference(f: &mut Findings, path: &str, r: &CrossVersionObjectReference) {
    for (field, value) in [("kind", &r.kind), ("name", &r.name)] {
        if value.is_empty() {
            f.add(format!("{path}.{field}"), "must not be empty");
        } else if value == "." || value == ".." || value.contains(['/', '%']) {
            f.add(
                format!("{path}.{field}"),
                format!("{value:?} must not be '.' or '..', or have a '/' or '%'"),
            );
        }
    }
}

fn metric_spec(f: &mut Findings, path: &str, m: &MetricSpec) {
    let fields = [
        (MetricSourceType::Object, "object", m.object.is_some()),
        (MetricSourceType::Pods, "pods", m.pods.is_some()),
        (MetricSourceType::Resource, "resource", m.resource.is_some()),
        (
            MetricSourceType::ContainerResource,
            "containerResource",
            m.container_resource.is_some(),
        ),
        (MetricSourceType::External, "external", m.external.is_some()),
    ];
    for (type_, field, there) in fields {
        if type_ == m.type_ && !there {
            f.add(
                format!("{path}.{field}"),
                format!("is missing: the type is {type_}"),
            );
        } else if type_ != m.type_ && there {
            f.add(
                format!("{path}.{field}"),
                format!("must not be there: the type is {}", m.type_),
            );
        }
    }
    if let Some(s) = &m.object {
        let path = format!("{path}.object");
        reference(f, &format!("{path}.describedObject"), &s.described_object);
        identifier(f, &path, &s.metric);
        target(f, &path, &s.target, &["value", "averageValue"], true);
    }
    if let Some(s) = &m.pods {
        let path = format!("{path}.pods");
        identifier(f, &path, &s.metric);
        target(f, &path, &s.target, &["averageValue"], false);
    }
    if let Some(s) = &m.resource {
        let path = format!("{path}.resource");
        text(f, format!("{path}.name"), &s.name);
        target(
            f,
            &path,
            &s.target,
            &["averageUtilization", "averageValue"],
            false,
        );
    }
    if let Some(s) = &m.container_resource {
        let path = format!("{path}.containerResource");
        text(f, format!("{path}.name"), &s.name);
        resource_name(f, &format!("{path}.name"), &s.name);
        let container = &s.container;
        f.name(
            format!("{path}.container"),
            container,
            names::dns_label(container),
        );
        target(
            f,
            &path,
            &s.target,
            &["averageUtilization", "averageValue"],
            false,
        );
    }
    if let Some(s) = &m.external {
        let path = format!("{path}.external");
        identifier(f, &path, &s.metric);
        target(f, &path, &s.target, &["value", "averageValue"], false);
    }
}

/// A resource that a container can have.
fn resource_name(f: &mut Findings, path: &str, name: &str) {
    let native = ["cpu", "memory", "ephemeral-storage"].contains(&name);
    if !(native || name.starts_with("hugepages-") || name.contains('/') || name.is_empty()) {
        f.add(
            path,
            format!("{name:?} is not cpu, memory, ephemeral-storage or a name with a domain (example.com/gpu)"),
        );
    } else if name.contains('/') {
        f.name(path, name, names::label_key(name));
    }
}

fn text(f: &mut Findings, path: String, value: &str) {
    if value.is_empty() {
        f.add(path, "must not be empty");
    }
}

fn identifier(f: &mut Findings, path: &str, m: &MetricIdentifier) {
    text(f, format!("{path}.metric.name"), &m.name);
    if m.name.contains(['/', '%']) || m.name == "." || m.name == ".." {
        f.add(
            format!("{path}.metric.name"),
            format!("{:?} must not be '.' or '..', or have a '/' or '%'", m.name),
        );
    }
    if let Some(s) = &m.selector {
        super::selector(f, &format!("{path}.metric.selector"), s);
    }
}

/// A target has one of the fields `possible`; of an Object it may have both.
fn target(f: &mut Findings, path: &str, t: &MetricTarget, possible: &[&str], both: bool) {
    let path = format!("{path}.target");
    let there = [
        ("value", t.value.is_some()),
        ("averageValue", t.average_value.is_some()),
        ("averageUtilization", t.average_utilization.is_some()),
    ];
    let of_kind: Vec<(&str, bool)> = there
        .into_iter()
        .filter(|(field, _)| possible.contains(field))
        .collect();
    if !both || !of_kind.iter().any(|(_, there)| *there) {
        container::exactly_one(f, &path, &of_kind);
    }
    let named = match t.type_ {
        MetricTargetType::Utilization => "averageUtilization",
        MetricTargetType::Value => "value",
        MetricTargetType::AverageValue => "averageValue",
    };
    // Of an Object the type says which of the two counts; elsewhere there is but one, and Kubernetes does not look at it.
    if both && !possible.contains(&named) {
        f.add(
            format!("{path}.type"),
            format!("{} is not possible for this metric", t.type_),
        );
    }
    f.at_least(
        format!("{path}.averageUtilization"),
        t.average_utilization,
        1,
    );
    for (field, value) in [("value", &t.value), ("averageValue", &t.average_value)] {
        if value.is_some_and(|v| v.is_zero() || v.is_negative()) {
            f.add(format!("{path}.{field}"), "must be more than nothing");
        }
    }
}

fn scaling_rules(f: &mut Findings, path: &str, rules: &HpaScalingRules) {
    let window = rules.stabilization_window_seconds;
    let window_path = format!("{path}.stabilizationWindowSeconds");
    f.at_least(window_path.as_str(), window, 0);
    f.at_most(window_path, window.map(Into::into), WINDOW_SECONDS);
    if rules.tolerance.is_some_and(|t| t.is_negative()) {
        f.add(format!("{path}.tolerance"), "must not be negative");
    }
    if rules.policies.is_empty() {
        f.add(format!("{path}.policies"), "needs at least one policy");
    }
    for (i, policy) in rules.policies.iter().enumerate() {
        let path = format!("{path}.policies[{i}]");
        f.at_least(format!("{path}.value"), Some(policy.value), 1);
        let seconds = format!("{path}.periodSeconds");
        f.at_least(seconds.as_str(), Some(policy.period_seconds), 1);
        f.at_most(seconds, Some(policy.period_seconds.into()), PERIOD_SECONDS);
    }
}
