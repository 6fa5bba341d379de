//! The kinds of the group `apps`.

use std::collections::BTreeSet;

use super::{Findings, key_path, objects, pod, pod_template};
use crate::apps::{
    CONFIG_ROLLOUT, ControllerRevision, DaemonSet, DaemonSetUpdateStrategyType, Deployment,
    DeploymentStrategyType, PROGRESS_DEADLINE, ROLLBACK_ON_FAILURE, ReplicaSet, StatefulSet,
    StatefulSetUpdateStrategyType, VolumeClaimTemplate,
};
use crate::core::{PodTemplateSpec, RestartPolicy};
use crate::kind::FieldError;
use crate::meta::ObjectMeta;
use crate::names;
use crate::selector::LabelSelector;

/// What is wrong with a Deployment.
pub fn deployment(d: &Deployment) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &d.metadata, true, names::dns_subdomain);
    rollouts(&mut f, &d.metadata);
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
    let path = "spec.strategy.rollingUpdate";
    let zero = [
        f.share(
            &format!("{path}.maxUnavailable"),
            rolling.max_unavailable.as_ref(),
            Some(100),
        ),
        f.share(
            &format!("{path}.maxSurge"),
            rolling.max_surge.as_ref(),
            None,
        ),
    ];
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

/// What is wrong with a StatefulSet.
pub fn stateful_set(s: &StatefulSet) -> Vec<FieldError> {
    let mut f = Findings::default();
    // The name is part of the host names of its pods.
    super::metadata(&mut f, &s.metadata, true, names::dns_label);
    rollouts(&mut f, &s.metadata);
    let spec = &s.spec;
    f.at_least("spec.replicas", spec.replicas, 0);
    f.at_least("spec.minReadySeconds", spec.min_ready_seconds, 0);
    f.at_least("spec.revisionHistoryLimit", spec.revision_history_limit, 0);
    progress_deadline(&mut f, &s.metadata, spec.min_ready_seconds);
    let start = spec.ordinals.as_ref().and_then(|o| o.start);
    f.at_least("spec.ordinals.start", start, 0);
    f.at_most(
        "spec.ordinals.start",
        start.map(|n| i64::from(n) + i64::from(spec.replicas())),
        i32::MAX.into(),
    );
    if let Some(name) = spec.service_name.as_deref().filter(|n| !n.is_empty()) {
        f.name("spec.serviceName", name, names::dns_label(name));
    }
    if let Some(strategy) = &spec.update_strategy
        && let Some(rolling) = &strategy.rolling_update
    {
        let path = "spec.updateStrategy.rollingUpdate";
        if strategy.type_ == Some(StatefulSetUpdateStrategyType::OnDelete) {
            f.add(path, "has no meaning when the type is OnDelete");
        } else {
            f.at_least(format!("{path}.partition"), rolling.partition, 0);
            let path = format!("{path}.maxUnavailable");
            if f.share(&path, rolling.max_unavailable.as_ref(), Some(100)) {
                f.add(path, "must not be 0: nothing could move");
            }
        }
    }
    host_names(&mut f, s);
    let claims = claims(&mut f, &spec.volume_claim_templates);
    selected(&mut f, &spec.selector, &spec.template);
    pod::pod_template_with(&mut f, "spec.template", &spec.template, &claims);
    f.0
}

/// The names of the pods are host names too.
fn host_names(f: &mut Findings, s: &StatefulSet) {
    let first = i64::from(s.spec.first_ordinal());
    let last = first + i64::from(s.spec.replicas()).max(1) - 1;
    let pod = format!("{}-{last}", s.metadata.name);
    if names::dns_label(&s.metadata.name).is_ok() && names::dns_label(&pod).is_err() {
        f.add(
            "metadata.name",
            format!("is too long: pod {pod:?} could not be called so, a host name has 63 letters at most"),
        );
    }
}

/// Gives back the names of the claims, by which containers mount them.
fn claims<'a>(f: &mut Findings, templates: &'a [VolumeClaimTemplate]) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    for (i, claim) in templates.iter().enumerate() {
        let path = format!("spec.volumeClaimTemplates[{i}]");
        let meta = &claim.metadata;
        let name = meta.name.as_str();
        f.name(
            format!("{path}.metadata.name"),
            name,
            names::dns_label(name),
        );
        if !seen.insert(name) {
            f.add(
                format!("{path}.metadata.name"),
                format!("another claim is called {name:?}"),
            );
        }
        super::labels(f, &format!("{path}.metadata.labels"), &meta.labels);
        super::annotations(
            f,
            &format!("{path}.metadata.annotations"),
            &meta.annotations,
        );
        objects::claim_spec(f, &format!("{path}.spec"), &claim.spec);
    }
    seen.into_iter().collect()
}

/// What is wrong with a DaemonSet.
pub fn daemon_set(d: &DaemonSet) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &d.metadata, true, names::dns_subdomain);
    rollouts(&mut f, &d.metadata);
    let spec = &d.spec;
    f.at_least("spec.minReadySeconds", spec.min_ready_seconds, 0);
    f.at_least("spec.revisionHistoryLimit", spec.revision_history_limit, 0);
    progress_deadline(&mut f, &d.metadata, spec.min_ready_seconds);
    if let Some(strategy) = &spec.update_strategy
        && let Some(rolling) = &strategy.rolling_update
    {
        let path = "spec.updateStrategy.rollingUpdate";
        if strategy.type_ == Some(DaemonSetUpdateStrategyType::OnDelete) {
            f.add(path, "has no meaning when the type is OnDelete");
        } else {
            let (unavailable, surge) = (&rolling.max_unavailable, &rolling.max_surge);
            let none_missing = f.share(
                &format!("{path}.maxUnavailable"),
                unavailable.as_ref(),
                Some(100),
            );
            let none_more = f.share(&format!("{path}.maxSurge"), surge.as_ref(), Some(100));
            if none_missing && none_more {
                f.add(
                    format!("{path}.maxUnavailable"),
                    "must not be 0 when maxSurge is 0: nothing could move",
                );
            }
            if !none_missing && !none_more {
                f.add(
                    format!("{path}.maxSurge"),
                    "must be 0 unless maxUnavailable is: on a node the new pod comes before the old one goes, or after",
                );
            }
        }
    }
    selected(&mut f, &spec.selector, &spec.template);
    f.0.extend(pod_template("spec.template", &spec.template));
    f.0
}

/// What is wrong with a ControllerRevision.
pub fn controller_revision(r: &ControllerRevision) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &r.metadata, true, names::dns_subdomain);
    f.at_least("revision", Some(r.revision), 0);
    if r.data.is_null() {
        f.add("data", "is missing");
    }
    f.0
}

/// The annotations that say how a workload's rollouts go.
fn rollouts(f: &mut Findings, meta: &ObjectMeta) {
    for key in [ROLLBACK_ON_FAILURE, CONFIG_ROLLOUT] {
        let value = meta.annotations.get(key).map(String::as_str);
        f.one_of(
            key_path("metadata.annotations", key),
            value,
            &["true", "false"],
        );
    }
}

/// The annotation that says how long a rollout may stand still: more than a pod takes to be available.
fn progress_deadline(f: &mut Findings, meta: &ObjectMeta, min_ready: Option<i32>) {
    let Some(text) = meta.annotations.get(PROGRESS_DEADLINE) else {
        return;
    };
    let path = key_path("metadata.annotations", PROGRESS_DEADLINE);
    match text.parse::<i32>() {
        Ok(seconds) => {
            f.at_least(path.as_str(), Some(seconds), 1);
            if let Some(ready) = min_ready.filter(|ready| seconds > 0 && seconds <= *ready) {
                f.add(
                    path,
                    format!("{seconds} must be more than minReadySeconds, {ready}"),
                );
            }
        }
        Err(_) => f.add(
            path,
            format!(
                "{text:?} is not a number of seconds, from 1 to {}",
                i32::MAX
            ),
        ),
    }
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
