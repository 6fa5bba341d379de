//! The kinds of the group `batch`.

use std::sync::Arc;

use super::pod_spec;
use crate::batch::{CompletionMode, ConcurrencyPolicy, CronJobSpec, JobSpec, PodReplacementPolicy};

/// Fills in a Job's spec, its template included.
pub fn job(spec: &mut JobSpec) {
    // With parallelism alone the pods agree among themselves on what is done: one that succeeds is enough.
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let failures = if spec.backoff_limit_per_index.is_some() {
        i32::MAX
    } else {
        6
    };
    spec.backoff_limit.get_or_insert(failures);
    spec.completion_mode
        .get_or_insert(CompletionMode::NonIndexed);
    spec.suspend.get_or_insert(false);
    let replaced = if spec.pod_failure_policy.is_some() {
        PodReplacementPolicy::Failed
    } else {
        PodReplacementPolicy::TerminatingOrFailed
    };
    spec.pod_replacement_policy.get_or_insert(replaced);
    for rule in spec
        .pod_failure_policy
        .iter_mut()
        .flat_map(|p| &mut p.rules)
    {
        for condition in &mut rule.on_pod_conditions {
            condition.status.get_or_insert_with(|| "True".into());
        }
    }
    pod_spec(Arc::make_mut(&mut spec.template.spec));
}

/// Fills in a CronJob's spec, the template of its Jobs included.
pub fn cron_job(spec: &mut CronJobSpec) {
    spec.concurrency_policy
        .get_or_insert(ConcurrencyPolicy::Allow);
    spec.suspend.get_or_insert(false);
    spec.successful_jobs_history_limit.get_or_insert(3);
    spec.failed_jobs_history_limit.get_or_insert(1);
    job(&mut spec.job_template.spec);
}
