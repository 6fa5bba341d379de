//! Deployments and ReplicaSets.

use super::{Findings, pod_template};
use crate::apps::{Deployment, DeploymentStrategyType, ReplicaSet};
use crate::core::{PodTemplateSpec, RestartPolicy};
use crate::int_or_string::IntOrString;
use crate::kind::FieldError;
use crate::names;
use crate::selector::LabelSelector;

/// What is wrong with a Deployment.
pub fn deployment(d: &Deployment) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &d.metadata, true, names::dns_subdomain);
    let s = &d.spec;
    f.at_least("spec.replicas", s.replicas, 0);
    f.at_least("spec.minReadySeconds", s.min_ready_seconds, 0);
    f.at_least("spec.revisionHistoryLimit", s.revision_history_limit, 0);
    f.at_least(
        "spec.progressDeadlineSeconds",
        s.progress_deadline_seconds,
        0,
    );
    if let (Some(deadline), Some(ready)) = (s.progress_deadline_seconds, s.min_ready_seconds)
        && deadline <= ready
    {
        f.add(
            "spec.progressDeadlineSeconds",
            format!("{deadline} must be more than minReadySeconds, {ready}"),
        );
    }
    selected(&mut f, &s.selector, &s.template);
    f.0.extend(pod_template("spec.template", &s.template));
    let Some(strategy) = &s.strategy else {
        return f.0;
    };
    let Some(rolling) = &strategy.rolling_update else {
        return f.0;
    };
    if strategy.type_ == Some(DeploymentStrategyType::Recreate) {
        f.add(
            "spec.strategy.rollingUpdate",
            "has no meaning when the type is Recreate",
        );
        return f.0;
    }
    let mut zero = [false, false];
    let fields = [
        ("maxUnavailable", &rolling.max_unavailable),
        ("maxSurge", &rolling.max_surge),
    ];
    for (i, (field, value)) in fields.into_iter().enumerate() {
        let path = format!("spec.strategy.rollingUpdate.{field}");
        match value {
            Some(IntOrString::Int(n)) if *n < 0 => f.add(path, format!("{n} is negative")),
            Some(IntOrString::Int(n)) => zero[i] = *n == 0,
            Some(text) => match text.percent() {
                None => f.add(
                    path,
                    format!("{text:?} is neither a number nor a percentage such as 25%"),
                ),
                Some(p) if p > 100 && field == "maxUnavailable" => {
                    f.add(path, format!("{p}% is more than 100%"))
                }
                Some(p) => zero[i] = p == 0,
            },
            None => {}
        }
    }
    if zero == [true, true] {
        f.add(
            "spec.strategy.rollingUpdate.maxUnavailable",
            "must not be 0 when maxSurge is 0: nothing could move",
        );
    }
    f.0
}

/// What is wrong with a ReplicaSet.
pub fn replica_set(r: &ReplicaSet) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &r.metadata, true, names::dns_subdomain);
    f.at_least("spec.replicas", r.spec.replicas, 0);
    f.at_least("spec.minReadySeconds", r.spec.min_ready_seconds, 0);
    match &r.spec.template {
        None => f.add("spec.template", "is missing"),
        Some(template) => {
            selected(&mut f, &r.spec.selector, template);
            f.0.extend(pod_template("spec.template", template));
        }
    }
    f.0
}

fn selected(f: &mut Findings, selector: &LabelSelector, template: &PodTemplateSpec) {
    super::selector(f, "spec.selector", selector);
    if selector.is_empty() {
        f.add(
            "spec.selector",
            "must not be empty: it would take every pod of the namespace",
        );
    } else if !selector.matches(&template.metadata.labels) {
        f.add(
            "spec.template.metadata.labels",
            format!("the selector ({selector}) does not select the pods of this template"),
        );
    }
    if template.spec.restart_policy() != RestartPolicy::Always {
        f.add("spec.template.spec.restartPolicy", "must be Always here");
    }
    if template.spec.active_deadline_seconds.is_some() {
        f.add(
            "spec.template.spec.activeDeadlineSeconds",
            "is not possible here: these pods are to run for ever",
        );
    }
}
