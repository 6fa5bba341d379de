//! Jobs and CronJobs.

mod policy;

use super::{Findings, pod_template};
use crate::batch::{CronJob, Job, JobSpec, PodReplacementPolicy};
use crate::core::RestartPolicy;
use crate::cron::{self, Schedule};
use crate::kind::FieldError;
use crate::names;

/// The longest name of a CronJob: a Job's name has eleven characters more.
const CRON_JOB_NAME: usize = 52;

/// The most pods of an Indexed Job at a time, and the most of its numbers that may fail.
const MOST_INDEXED: i64 = 100_000;

/// The same for Jobs with `backoffLimitPerIndex` of more numbers than [`MOST_INDEXED`].
const MOST_OF_MANY: i64 = 10_000;

/// The longest name of the controller that looks after a Job.
const MANAGED_BY: usize = 63;

/// What is wrong with a Job.
pub fn job(j: &Job) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &j.metadata, true, job_name);
    job_spec(&mut f, "spec", &j.spec);
    let spec = &j.spec;
    let manual = spec.manual_selector == Some(true);
    match &spec.selector {
        None if manual => f.add("spec.selector", "is missing: manualSelector is true"),
        None => {}
        Some(_) if !manual => f.add(
            "spec.selector",
            "is made by the controller; leave it out, or say manualSelector: true",
        ),
        Some(selector) => {
            super::selector(&mut f, "spec.selector", selector);
            if selector.is_empty() {
                f.add(
                    "spec.selector",
                    "must not be empty: it would take every pod of the namespace",
                );
            } else if !selector.matches(&spec.template.metadata.labels) {
                f.add(
                    "spec.template.metadata.labels",
                    format!("the selector ({selector}) does not select the pods of this template"),
                );
            }
        }
    }
    if spec.is_indexed()
        && let Some(last) = spec.completions.filter(|n| *n > 0).map(|n| n - 1)
        && !j.metadata.name.is_empty()
    {
        // It is the host name of the pod.
        let name = format!("{}-{last}", j.metadata.name);
        if let Err(problem) = names::dns_label(&name) {
            f.add(
                "metadata.name",
                format!("the host name of the last pod would be {name:?}, which {problem}"),
            );
        }
    }
    f.0
}

/// The name of a Job is a label of its pods.
fn job_name(name: &str) -> Result<(), String> {
    names::dns_subdomain(name)?;
    names::label_value(name)
}

fn job_spec(f: &mut Findings, path: &str, spec: &JobSpec) {
    for (field, value) in [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
    ] {
        f.at_least(format!("{path}.{field}"), value, 0);
    }
    f.at_least(
        format!("{path}.activeDeadlineSeconds"),
        spec.active_deadline_seconds,
        0,
    );
    if let Some(name) = &spec.managed_by {
        managed_by(f, &format!("{path}.managedBy"), name);
    }
    indexes(f, path, spec);
    policy::failures(f, path, spec);
    policy::success(f, path, spec);
    if spec.pod_failure_policy.is_some()
        && spec.pod_replacement_policy == Some(PodReplacementPolicy::TerminatingOrFailed)
    {
        f.add(
            format!("{path}.podReplacementPolicy"),
            "must be Failed when there is a podFailurePolicy, which looks at pods that have ended",
        );
    }
    let restarts = spec.template.spec.restart_policy();
    if restarts == RestartPolicy::Always {
        f.add(
            format!("{path}.template.spec.restartPolicy"),
            "must be Never or OnFailure here: these pods are to come to an end",
        );
    }
    f.0.extend(pod_template(&format!("{path}.template"), &spec.template));
}

/// The name of a controller: a domain, and something of it.
fn managed_by(f: &mut Findings, path: &str, name: &str) {
    if name.len() > MANAGED_BY {
        f.add(
            path,
            format!("has {} characters, the most is {MANAGED_BY}", name.len()),
        );
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    let parts = name.split_once('/');
    let good = parts.is_some_and(|(domain, rest)| {
        names::dns_subdomain(domain).is_ok() && !rest.is_empty() && rest.chars().all(allowed)
    });
    if !good {
        f.add(
            path,
            format!("{name:?} is not a name with a domain, such as example.com/controller"),
        );
    }
}

/// What only Indexed Jobs have, and how much of it.
fn indexes(f: &mut Findings, path: &str, spec: &JobSpec) {
    if !spec.is_indexed() {
        for (field, there) in [
            (
                "backoffLimitPerIndex",
                spec.backoff_limit_per_index.is_some(),
            ),
            ("maxFailedIndexes", spec.max_failed_indexes.is_some()),
            ("successPolicy", spec.success_policy.is_some()),
        ] {
            if there {
                f.add(
                    format!("{path}.{field}"),
                    "has a meaning only when the completionMode is Indexed",
                );
            }
        }
        return;
    }
    let Some(completions) = spec.completions else {
        f.add(
            format!("{path}.completions"),
            "is missing: the completionMode is Indexed",
        );
        return;
    };
    let parallelism = spec.parallelism.map(i64::from);
    f.at_most(format!("{path}.parallelism"), parallelism, MOST_INDEXED);
    let failed = spec.max_failed_indexes;
    if spec.backoff_limit_per_index.is_none() {
        if failed.is_some() {
            f.add(
                format!("{path}.maxFailedIndexes"),
                "has a meaning only with backoffLimitPerIndex",
            );
        }
        return;
    }
    f.at_most(
        format!("{path}.maxFailedIndexes"),
        failed.map(Into::into),
        i64::from(completions).min(MOST_INDEXED),
    );
    if i64::from(completions) > MOST_INDEXED {
        if failed.is_none() {
            f.add(
                format!("{path}.maxFailedIndexes"),
                format!("is missing: there are more than {MOST_INDEXED} completions"),
            );
        }
        f.at_most(
            format!("{path}.maxFailedIndexes"),
            failed.map(Into::into),
            MOST_OF_MANY,
        );
        f.at_most(format!("{path}.parallelism"), parallelism, MOST_OF_MANY);
    }
}

/// What is wrong with a CronJob.
pub fn cron_job(c: &CronJob) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &c.metadata, true, cron_job_name);
    let spec = &c.spec;
    if let Err(e) = Schedule::parse(&spec.schedule) {
        f.add("spec.schedule", e.to_string());
    }
    if let Some(name) = &spec.time_zone
        && let Err(e) = cron::time_zone(Some(name))
    {
        f.add("spec.timeZone", e.to_string());
    }
    f.at_least(
        "spec.startingDeadlineSeconds",
        spec.starting_deadline_seconds,
        0,
    );
    for (field, value) in [
        (
            "successfulJobsHistoryLimit",
            spec.successful_jobs_history_limit,
        ),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ] {
        f.at_least(format!("spec.{field}"), value, 0);
    }
    let (path, template) = ("spec.jobTemplate", &spec.job_template);
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
    for (field, there) in [
        ("selector", template.spec.selector.is_some()),
        (
            "manualSelector",
            template.spec.manual_selector == Some(true),
        ),
    ] {
        if there {
            f.add(
                format!("{path}.spec.{field}"),
                "is not possible here: every Job gets a selector of its own",
            );
        }
    }
    job_spec(&mut f, &format!("{path}.spec"), &template.spec);
    f.0
}

fn cron_job_name(name: &str) -> Result<(), String> {
    names::dns_subdomain(name)?;
    if name.len() > CRON_JOB_NAME {
        return Err(format!(
            "must not be longer than {CRON_JOB_NAME} characters: the names of its Jobs are longer"
        ));
    }
    Ok(())
}
