//! CronJobs at every write: a time has at most one Job, which is made at that time or, when it was missed, as the latest
//! one; `Forbid` and `Replace` never leave two Jobs running; what is kept of the history stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use setpoint_apis::batch::{ConcurrencyPolicy, CronJob, CronJobStatus, Job, JobStatus};
use setpoint_apis::cron::{self, Schedule};
use setpoint_apis::{Key, ObjectKey, Timestamp, document};

use super::{Change, Finding, Times};

/// How late what was decided at a time may be carried out: requests and answers are waited for 5 s each, and those that
/// come late are as late as the network lets them be.
const LATE: Duration = Duration::from_secs(40);

#[derive(Debug, Default)]
pub(super) struct CronJobCheck {
    /// By uid.
    all: BTreeMap<String, CronJob>,
    uids: BTreeMap<ObjectKey, String>,
    jobs: BTreeMap<ObjectKey, Made>,
    /// What is said of Jobs, by the uid of the Job.
    ended: BTreeMap<String, bool>,
    /// The times for which Jobs were made, by CronJob.
    times: BTreeSet<(String, i64)>,
    /// The last time that is done, as the status says.
    done: BTreeMap<String, Timestamp>,
}

/// A Job of a CronJob.
#[derive(Debug)]
struct Made {
    uid: String,
    owner: String,
    /// It may be deleted for another reason.
    expires: bool,
}

impl CronJobCheck {
    /// Takes note of a change.
    pub(super) fn enter(&mut self, change: &Change<'_>, times: &Times, found: &mut Vec<Finding>) {
        match (&change.key, change.entry.value) {
            (Key::Desired("cronjobs", key), Some(value)) => {
                let Ok(cron_job) = document::decode_keyed::<CronJob>(key, value) else {
                    return;
                };
                let since = change.entry.create_revision;
                let uid = cron_job.metadata.uid_since(since, "cronjobs", key);
                self.uids.insert(key.clone(), uid.clone());
                self.all.insert(uid, cron_job);
            }
            (Key::Desired("cronjobs", key), None) => {
                let uid = self.uids.remove(key);
                uid.map(|uid| self.all.remove(&uid));
            }
            (Key::Actual("cronjobs", key), Some(value)) => self.status(key, value, found),
            (Key::Desired("jobs", key), Some(value)) => {
                self.made(change, key, value, times, found);
            }
            (Key::Desired("jobs", key), None) => {
                let Some(gone) = self.jobs.remove(key) else {
                    return;
                };
                if change.by_controllers() {
                    self.deleted(key, &gone, found);
                }
            }
            (Key::Actual("jobs", key), Some(value)) => {
                let (Some(job), Ok(status)) = (
                    self.jobs.get(key),
                    document::decode_value::<JobStatus>(value),
                ) else {
                    return;
                };
                if status.is_finished() && status.counted.as_ref().is_some_and(|c| c.of == job.uid)
                {
                    self.ended.insert(job.uid.clone(), status.is("Complete"));
                }
            }
            _ => {}
        }
    }

    fn status(&mut self, key: &ObjectKey, value: &[u8], found: &mut Vec<Finding>) {
        let Ok(status) = document::decode_value::<CronJobStatus>(value) else {
            return;
        };
        let (Some(seen), Some(last)) = (status.first_seen, status.last_schedule_time) else {
            return;
        };
        let before = self.done.insert(seen.uid, last);
        if let Some(before) = before.filter(|before| *before > last) {
            let message = format!("cronjob {key} went back from {before} to {last}");
            found.push(("cronjob", message));
        }
    }

    fn of<'a>(&'a self, owner: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a Made)> {
        self.jobs.iter().filter(move |(_, job)| job.owner == owner)
    }

    fn made(
        &mut self,
        change: &Change<'_>,
        key: &ObjectKey,
        value: &[u8],
        times: &Times,
        found: &mut Vec<Finding>,
    ) {
        let Ok(job) = document::decode_keyed::<Job>(key, value) else {
            return;
        };
        let owner = job.metadata.controller().filter(|o| o.kind == "CronJob");
        let Some(owner) = owner.map(|o| o.uid.clone()) else {
            return;
        };
        if change.by_controllers() && !self.jobs.contains_key(key) {
            self.check(change, key, &owner, times, found);
        }
        let since = change.entry.create_revision;
        let made = Made {
            uid: job.metadata.uid_since(since, "jobs", key),
            owner,
            expires: job.spec.ttl_seconds_after_finished.is_some(),
        };
        self.jobs.insert(key.clone(), made);
    }

    /// Whether this is the time to make a Job.
    fn check(
        &mut self,
        change: &Change<'_>,
        key: &ObjectKey,
        owner: &str,
        times: &Times,
        found: &mut Vec<Finding>,
    ) {
        let mut wrong = |message: String| found.push(("cronjob", format!("job {key} {message}")));
        let Some(cron_job) = self.all.get(owner) else {
            return wrong("was made for a cronjob that is gone".to_owned());
        };
        let spec = &cron_job.spec;
        let minute = key
            .name
            .rsplit_once('-')
            .and_then(|(_, n)| n.parse::<i64>().ok());
        let (Some(minute), Ok(schedule), Ok(zone)) = (
            minute,
            spec.schedule.parse::<Schedule>(),
            cron::time_zone(spec.time_zone.as_deref()),
        ) else {
            return wrong("is of no time".to_owned());
        };
        let at = Timestamp::from_unix_seconds(minute.saturating_mul(60));
        if !self.times.insert((owner.to_owned(), minute)) {
            wrong(format!("is the second one for {at}"));
        }
        if schedule.next_after(at.saturating_sub(Duration::from_secs(1)), &zone) != Some(at) {
            wrong(format!(
                "is for {at}, when {:?} does not fire",
                spec.schedule
            ));
        }
        let (now, error) = times.now(change.entry.millis);
        if at > now.saturating_add(error) {
            wrong(format!("is for {at}, and it is {now}"));
        }
        let then = now.saturating_sub(error + LATE);
        if let Some(next) = schedule.next_after(at, &zone).filter(|next| *next <= then) {
            wrong(format!("is for {at} though there was {next} since"));
        }
        if let Some(limit) = spec.starting_deadline_seconds {
            let limit = Duration::from_secs(u64::try_from(limit).unwrap_or(0));
            if at < then.saturating_sub(limit) {
                wrong(format!("is for {at}, which is too late"));
            }
        }
        if spec.suspend == Some(true) {
            wrong("was made though the cronjob is suspended".to_owned());
        }
        let alone = spec.concurrency_policy.unwrap_or_default() != ConcurrencyPolicy::Allow;
        let mut active = self
            .of(owner)
            .filter(|(_, job)| alone && !self.ended.contains_key(&job.uid));
        if let Some((other, _)) = active.next() {
            wrong(format!("was made while {other} is active"));
        }
    }

    fn deleted(&self, key: &ObjectKey, gone: &Made, found: &mut Vec<Finding>) {
        let Some(cron_job) = self.all.get(&gone.owner) else {
            return;
        };
        let spec = &cron_job.spec;
        let mut wrong = |message: String| found.push(("cronjob", format!("job {key} {message}")));
        let Some(complete) = self.ended.get(&gone.uid) else {
            if spec.concurrency_policy != Some(ConcurrencyPolicy::Replace) {
                wrong("was deleted before it had ended".to_owned());
            }
            return;
        };
        let (limit, default) = match complete {
            true => (spec.successful_jobs_history_limit, 3),
            false => (spec.failed_jobs_history_limit, 1),
        };
        let limit = usize::try_from(limit.unwrap_or(default)).unwrap_or(0);
        let same = |job: &&Made| self.ended.get(&job.uid) == Some(complete);
        let left = self.of(&gone.owner).filter(|(_, job)| same(job)).count();
        if left < limit && !gone.expires {
            wrong(format!(
                "was deleted, which leaves {left} of {limit} that are to be kept"
            ));
        }
    }
}
