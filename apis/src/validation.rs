//! What must hold of documents beyond their shape. Kubernetes' rules, as far as they matter here.
//!
//! These run after defaulting, on every read: at the door, where each finding is shown at its place in the file, and on
//! stored documents, where a finding makes the document Invalid.

mod autoscaling;
mod batch;
mod container;
mod env;
pub mod immutable;
mod limits;
mod objects;
mod placing;
mod pod;
mod policy;
mod volume;
mod workload;

use std::collections::BTreeMap;

pub use autoscaling::autoscaler;
pub use batch::{cron_job, job};
pub use limits::limit_range;
pub use objects::{
    claim, config_map, event, ingress, namespace, node, secret, service, service_account,
};
pub use pod::{pod, pod_template};
pub use policy::{
    disruption_budget, pod_group, priority_class, quota, reservation, scheduler_profile,
};
pub use workload::{controller_revision, daemon_set, deployment, replica_set, stateful_set};

use crate::int_or_string::IntOrString;
use crate::kind::FieldError;
use crate::meta::ObjectMeta;
use crate::names::{self, Problem};
use crate::selector::{LabelSelector, LabelSelectorOperator};

/// The most that all annotations of an object may hold together.
const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// The most that the data of a ConfigMap or Secret may hold together.
pub(crate) const DATA_BYTES: usize = 1024 * 1024;

/// Collects findings, each with the path of its field.
#[derive(Default)]
struct Findings(Vec<FieldError>);

impl Findings {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(FieldError::new(path, message));
    }

    /// Adds `"<name>" <problem>` when there is one.
    fn name(&mut self, path: impl Into<String>, name: &str, result: Result<(), Problem>) {
        if let Err(problem) = result {
            self.add(path, format!("{name:?} {problem}"));
        }
    }

    fn port(&mut self, path: impl Into<String>, port: i32) {
        if !(1..=65535).contains(&port) {
            self.add(
                path,
                format!("{port} is not a port: it must be between 1 and 65535"),
            );
        }
    }

    fn at_least(&mut self, path: impl Into<String>, value: Option<impl Into<i64>>, least: i64) {
        if let Some(value) = value.map(Into::into)
            && value < least
        {
            self.add(
                path,
                format!("{value} is too small: it must be at least {least}"),
            );
        }
    }

    fn at_most(&mut self, path: impl Into<String>, value: Option<i64>, most: i64) {
        if let Some(value) = value
            && value > most
        {
            self.add(
                path,
                format!("{value} is too large: it must be at most {most}"),
            );
        }
    }

    /// A number or a percentage, of which neither may be negative, nor the percentage above `most`. Gives back whether it
    /// is nothing.
    fn share(&mut self, path: &str, value: Option<&IntOrString>, most: Option<i32>) -> bool {
        match value {
            Some(IntOrString::Int(n)) => {
                self.at_least(path, Some(*n), 0);
                *n == 0
            }
            Some(text @ IntOrString::String(s)) => match text.percent() {
                None => {
                    self.add(
                        path,
                        format!("{s:?} is neither a number nor a percentage such as 25%"),
                    );
                    false
                }
                Some(percent) => {
                    if let Some(most) = most
                        && percent > most
                    {
                        self.add(path, format!("{s} is more than {most}%"));
                    }
                    percent == 0
                }
            },
            None => false,
        }
    }

    fn one_of(&mut self, path: impl Into<String>, value: Option<&str>, words: &[&str]) {
        if let Some(value) = value
            && !words.contains(&value)
        {
            self.add(
                path,
                format!("{value:?} is not one of {}", words.join(", ")),
            );
        }
    }
}

/// What the name of an object must be.
type NameRule = fn(&str) -> Result<(), Problem>;

fn metadata(f: &mut Findings, meta: &ObjectMeta, namespaced: bool, rule: NameRule) {
    match (&meta.name, &meta.generate_name) {
        (name, Some(prefix)) if name.is_empty() && !prefix.is_empty() => {
            // What will be put behind the prefix is made of letters and digits.
            f.name("metadata.generateName", prefix, rule(&format!("{prefix}x")));
        }
        (name, _) if name.is_empty() => f.add("metadata.name", "an object needs a name"),
        (name, _) => f.name("metadata.name", name, rule(name)),
    }
    if !meta.namespace.is_empty() {
        if namespaced {
            f.name(
                "metadata.namespace",
                &meta.namespace,
                names::dns_label(&meta.namespace),
            );
        } else {
            f.add(
                "metadata.namespace",
                "this kind does not live in a namespace",
            );
        }
    }
    labels(f, "metadata.labels", &meta.labels);
    annotations(f, "metadata.annotations", &meta.annotations);
    let mut controllers = 0;
    for (i, owner) in meta.owner_references.iter().enumerate() {
        for (field, value) in [
            ("apiVersion", &owner.api_version),
            ("kind", &owner.kind),
            ("name", &owner.name),
            ("uid", &owner.uid),
        ] {
            if value.is_empty() {
                f.add(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    "must not be empty",
                );
            }
        }
        controllers += usize::from(owner.controller == Some(true));
    }
    if controllers > 1 {
        f.add(
            "metadata.ownerReferences",
            "only one owner may have controller: true",
        );
    }
}

fn labels(f: &mut Findings, path: &str, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        f.name(key_path(path, key), key, names::label_key(key));
        f.name(key_path(path, key), value, names::label_value(value));
    }
}

fn annotations(f: &mut Findings, path: &str, annotations: &BTreeMap<String, String>) {
    let mut bytes = 0;
    for (key, value) in annotations {
        f.name(
            key_path(path, key),
            key,
            names::label_key(&key.to_lowercase()),
        );
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES {
        f.add(
            path,
            format!("annotations hold {bytes} bytes, the most is {ANNOTATIONS_BYTES}"),
        );
    }
}

fn selector(f: &mut Findings, path: &str, selector: &LabelSelector) {
    labels(f, &format!("{path}.matchLabels"), &selector.match_labels);
    for (i, r) in selector.match_expressions.iter().enumerate() {
        let path = format!("{path}.matchExpressions[{i}]");
        f.name(format!("{path}.key"), &r.key, names::label_key(&r.key));
        let wants_values = matches!(
            r.operator,
            LabelSelectorOperator::In | LabelSelectorOperator::NotIn
        );
        if wants_values && r.values.is_empty() {
            f.add(
                format!("{path}.values"),
                format!("operator {:?} needs values", r.operator),
            );
        }
        if !wants_values && !r.values.is_empty() {
            f.add(
                format!("{path}.values"),
                format!("operator {:?} takes no values", r.operator),
            );
        }
        for (j, value) in r.values.iter().enumerate() {
            f.name(
                format!("{path}.values[{j}]"),
                value,
                names::label_value(value),
            );
        }
    }
}

/// The path of a key of a map: in brackets when it is not a plain word.
pub(crate) fn key_path(path: &str, key: &str) -> String {
    if !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        format!("{path}.{key}")
    } else {
        format!("{path}[{key:?}]")
    }
}

#[cfg(test)]
mod tests;
