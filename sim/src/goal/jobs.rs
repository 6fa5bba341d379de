//! Whether Jobs have come to the end that their documents say, and CronJobs keep what they are to keep.

use std::collections::BTreeMap;

use setpoint_apis::batch::{CronJob, Job, JobStatus, indexes};
use setpoint_apis::{Key, Kind, ObjectKey, document};

#[derive(Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<ObjectKey, Job>,
    statuses: BTreeMap<ObjectKey, JobStatus>,
    cron_jobs: BTreeMap<ObjectKey, CronJob>,
}

impl Jobs {
    /// Takes note of what matters here, and says what cannot be read.
    pub(super) fn take(&mut self, key: &Key<'_>, value: &[u8]) -> Option<String> {
        fn read<K: Kind>(all: &mut BTreeMap<ObjectKey, K>, key: &ObjectKey, v: &[u8]) -> bool {
            let read = document::decode_keyed::<K>(key, v).ok();
            read.map(|value| all.insert(key.clone(), value)).is_some()
        }
        let good = match key {
            Key::Desired("jobs", key) => read(&mut self.jobs, key, value),
            Key::Desired("cronjobs", key) => read(&mut self.cron_jobs, key, value),
            Key::Actual("jobs", key) => {
                let status = document::decode_value(value).ok();
                let there = status.map(|status| self.statuses.insert(key.clone(), status));
                there.is_some()
            }
            _ => true,
        };
        (!good).then(|| format!("{key:?} cannot be read"))
    }

    /// Whether there is a Job of this name.
    pub(super) fn is_one(&self, key: &ObjectKey) -> bool {
        self.jobs.contains_key(key)
    }

    /// What is not as it should be. A Job that waits for room need not have ended.
    pub(super) fn unmet(&self, waits: impl Fn(&ObjectKey) -> bool) -> Vec<String> {
        let mut unmet = Vec::new();
        for (key, job) in self.jobs.iter().filter(|(key, _)| !waits(key)) {
            let status = self.statuses.get(key);
            let wrong = match status {
                Some(status) => end(job, status),
                None => Some("has no status".to_owned()),
            };
            unmet.extend(wrong.map(|wrong| format!("job {key} {wrong}")));
        }
        for (key, cron_job) in &self.cron_jobs {
            let spec = &cron_job.spec;
            for (type_, limit) in [
                ("Complete", spec.successful_jobs_history_limit),
                ("Failed", spec.failed_jobs_history_limit),
            ] {
                let own = |job: &Job| {
                    let owner = job.metadata.controller();
                    owner.is_some_and(|o| o.kind == CronJob::KIND && *o.name == *key.name)
                };
                let ended = self.jobs.iter().filter(|(of, job)| {
                    let status = self.statuses.get(*of);
                    of.namespace == key.namespace && own(job) && status.is_some_and(|s| s.is(type_))
                });
                let (ended, limit) = (ended.count(), limit.unwrap_or(0));
                if i32::try_from(ended).unwrap_or(i32::MAX) > limit {
                    let message = format!("cronjob {key} keeps {ended} {type_} jobs of {limit}");
                    unmet.push(message);
                }
            }
        }
        unmet
    }
}

/// What is wrong with the end of a Job.
fn end(job: &Job, status: &JobStatus) -> Option<String> {
    let spec = &job.spec;
    let (active, failed) = (status.active.unwrap_or(0), status.failed.unwrap_or(0));
    let succeeded = status.succeeded.unwrap_or(0);
    if !status.is_finished() {
        let rests = spec.is_suspended() && active == 0 && status.is("Suspended");
        return (!rests).then(|| "has not ended".to_owned());
    }
    if active > 0 || status.is("Complete") == status.is("Failed") {
        return Some(format!("has ended with {active} active pods: {status:?}"));
    }
    if status.is("Failed") {
        let reason = status.conditions.iter().find(|c| c.type_ == "Failed");
        let reason = reason.and_then(|c| c.reason.as_deref()).unwrap_or_default();
        let right = match reason {
            "BackoffLimitExceeded" => failed > spec.backoff_limit.unwrap_or(6),
            "DeadlineExceeded" => spec.active_deadline_seconds.is_some(),
            "FailedIndexes" | "MaxFailedIndexesExceeded" => spec.backoff_limit_per_index.is_some(),
            "PodFailurePolicy" => spec.pod_failure_policy.is_some(),
            _ => false,
        };
        return (!right).then(|| format!("has failed with {failed} failures: {reason}"));
    }
    if spec.success_policy.is_some() {
        return None;
    }
    match spec.completions {
        Some(wanted) if succeeded != wanted => Some(format!(
            "is complete with {succeeded} successes of {wanted}"
        )),
        Some(wanted) if spec.is_indexed() => {
            let all = indexes::format(0..wanted);
            let done = status.completed_indexes.as_deref().unwrap_or_default();
            (done != all).then(|| format!("is complete with the indexes {done}, not {all}"))
        }
        Some(_) => None,
        None => (succeeded == 0).then(|| "is complete without a success".to_owned()),
    }
}
