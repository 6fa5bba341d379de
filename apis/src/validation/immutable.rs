//! What may not be changed of an object once it is there: Kubernetes' rules. Both versions have their defaults.

use crate::apps::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use crate::batch::{Job, JobSpec};
use crate::fixed::{completes_by_default, placed_anywhere};
use crate::kind::FieldError;

const IMMUTABLE: &str = "field is immutable";

/// Collects the fields that differ.
#[derive(Default)]
struct Changes(Vec<FieldError>);

impl Changes {
    fn same<T: PartialEq>(&mut self, path: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(FieldError::new(path, IMMUTABLE));
        }
    }
}

/// Of a Deployment: its selector.
pub fn deployment(old: &Deployment, new: &Deployment) -> Vec<FieldError> {
    let mut c = Changes::default();
    c.same("spec.selector", &old.spec.selector, &new.spec.selector);
    c.0
}

/// Of a ReplicaSet: its selector.
pub fn replica_set(old: &ReplicaSet, new: &ReplicaSet) -> Vec<FieldError> {
    let mut c = Changes::default();
    c.same("spec.selector", &old.spec.selector, &new.spec.selector);
    c.0
}

/// Of a DaemonSet: its selector.
pub fn daemon_set(old: &DaemonSet, new: &DaemonSet) -> Vec<FieldError> {
    let mut c = Changes::default();
    c.same("spec.selector", &old.spec.selector, &new.spec.selector);
    c.0
}

/// Of a StatefulSet: all but `replicas`, `ordinals`, `template`, `updateStrategy`, `minReadySeconds`,
/// `revisionHistoryLimit` and `persistentVolumeClaimRetentionPolicy`.
pub fn stateful_set(old: &StatefulSet, new: &StatefulSet) -> Vec<FieldError> {
    let mut c = Changes::default();
    let (old, new) = (&old.spec, &new.spec);
    c.same("spec.selector", &old.selector, &new.selector);
    c.same(
        "spec.serviceName",
        &old.service_name.as_deref().unwrap_or_default(),
        &new.service_name.as_deref().unwrap_or_default(),
    );
    c.same(
        "spec.podManagementPolicy",
        &old.pod_management_policy,
        &new.pod_management_policy,
    );
    c.same(
        "spec.volumeClaimTemplates",
        &old.volume_claim_templates,
        &new.volume_claim_templates,
    );
    c.0
}

/// Of a ControllerRevision: its data.
pub fn controller_revision(old: &ControllerRevision, new: &ControllerRevision) -> Vec<FieldError> {
    let mut c = Changes::default();
    c.same("data", &old.data, &new.data);
    c.0
}

/// Of a Job: how its pods are made, chosen and counted. Where pods run may change while the Job is suspended, and an
/// Indexed Job may get more or fewer numbers together with its parallelism.
pub fn job(old: &Job, new: &Job) -> Vec<FieldError> {
    let mut c = Changes::default();
    let suspended = old.spec.is_suspended();
    let (old, new) = (&old.spec, &new.spec);
    completions(&mut c, old, new);
    c.same("spec.selector", &old.selector, &new.selector);
    c.same(
        "spec.completionMode",
        &old.completion_mode,
        &new.completion_mode,
    );
    c.same(
        "spec.podFailurePolicy",
        &old.pod_failure_policy,
        &new.pod_failure_policy,
    );
    c.same(
        "spec.backoffLimitPerIndex",
        &old.backoff_limit_per_index,
        &new.backoff_limit_per_index,
    );
    c.same("spec.managedBy", &old.managed_by, &new.managed_by);
    c.same(
        "spec.successPolicy",
        &old.success_policy,
        &new.success_policy,
    );
    if suspended {
        c.same(
            "spec.template",
            &placed_anywhere(&old.template),
            &placed_anywhere(&new.template),
        );
    } else {
        c.same("spec.template", &old.template, &new.template);
    }
    c.0
}

fn completions(c: &mut Changes, old: &JobSpec, new: &JobSpec) {
    if old.completions == new.completions {
        return;
    }
    // Neither says a number, and only one says a parallelism: the default is not the same.
    let left_to_default = |with: &JobSpec, without: &JobSpec| {
        completes_by_default(with) && without.completions.is_none()
    };
    if !old.is_indexed()
        && !new.is_indexed()
        && (left_to_default(old, new) || left_to_default(new, old))
    {
        return;
    }
    if !new.is_indexed() || new.completions.is_none() {
        c.0.push(FieldError::new("spec.completions", IMMUTABLE));
    } else if new.completions != Some(new.parallelism()) {
        c.0.push(FieldError::new(
            "spec.completions",
            "can only be changed together with spec.parallelism, to the same number",
        ));
    }
}
