//! What is known about a CronJob, and what to do: plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::batch::{CronJobSpec, CronJobStatus};
use setpoint_apis::{ObjectKey, Timestamp};

use crate::conditions;
pub use crate::seen::Seen;

/// What there is to know.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The CronJob.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Why its document cannot be used; then all that follows is as it last was or empty.
    pub invalid: Option<String>,
    /// Why its status cannot be used: what was last started is not known.
    pub lost_status: Option<String>,
    /// Whether it is being deleted, dependents first.
    pub terminating: bool,
    /// Whether its namespace exists.
    pub namespace_exists: bool,
    /// What is wanted, with defaults.
    pub spec: CronJobSpec,
    /// Its Jobs, in key order.
    pub jobs: Vec<JobFacts>,
    /// The time whose Job has a name that somebody else's Job has.
    pub taken: Option<Timestamp>,
    /// What people were told, and about which time last: two things may be to say about one.
    pub told: BTreeMap<&'static str, Timestamp>,
    /// The uids of the Jobs of unknown origin that people know of.
    pub told_of: BTreeSet<String>,
    /// The status as stored, when it is of this CronJob.
    pub status: Option<CronJobStatus>,
}

/// A Job of a CronJob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// The Job as seen.
    pub seen: Seen,
    /// Its uid.
    pub uid: String,
    /// Its document does not parse: it counts as it last was, and is left alone.
    pub frozen: bool,
    /// How far it has come.
    pub state: JobState,
    /// When it was started.
    pub started: Option<Timestamp>,
    /// Who made it.
    pub origin: Origin,
}

/// Who made a Job of a CronJob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The controller, for a time of the schedule.
    Schedule,
    /// Somebody, and it says so: `create job --from`.
    Hand,
    /// Nobody knows who has made the CronJob its owner.
    Unknown,
}

/// How far a Job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It has not ended.
    Active,
    /// It is complete, since then.
    Complete(Option<Timestamp>),
    /// It has failed.
    Failed,
}

/// A Job to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub name: String,
    /// The time for which it is made.
    pub at: Timestamp,
    /// The same as the clocks of the CronJob's time zone show it.
    pub stamp: String,
}

/// Something that people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether something is wrong.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
    /// The time that it is about: people are told once.
    pub about: Option<Timestamp>,
}

/// What to do for a CronJob.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Jobs to delete.
    pub delete: Vec<Seen>,
    /// A Job to create, in one transaction with the status that says for which time.
    pub create: Option<NewJob>,
    /// The status to write.
    pub status: Option<CronJobStatus>,
    /// What people are told.
    pub tell: Vec<Told>,
    /// The uids of the Jobs of unknown origin that people know of then; `None`: of the same as before.
    pub told_of: Option<BTreeSet<String>>,
    /// When to look again though nothing changes.
    pub look_again: Option<Duration>,
    /// Why something was not done.
    pub notes: Vec<String>,
}

impl Plan {
    /// The namespace does not let the Job in: its time is not done, and all else that is to be said still is.
    pub fn put_off(&mut self, before: Option<&CronJobStatus>) {
        if self.create.take().is_none() {
            return;
        }
        if let Some(status) = &mut self.status {
            status.last_schedule_time = before.and_then(|s| s.last_schedule_time);
        }
        self.status.take_if(|status| before == Some(status));
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.create.is_none() && self.status.is_none()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for job in &self.delete {
            writeln!(f, "delete job {} at {}", job.key.name, job.mod_revision)?;
        }
        if let Some(new) = &self.create {
            writeln!(f, "create job {} for {}", new.name, new.stamp)?;
        }
        if let Some(status) = &self.status {
            write!(f, "status active=")?;
            let names = status.active.iter().filter_map(|r| r.name.as_deref());
            write!(f, "{}", names.collect::<Vec<_>>().join(","))?;
            for (word, time) in [
                ("scheduled", status.last_schedule_time),
                ("successful", status.last_successful_time),
            ] {
                if let Some(time) = time {
                    write!(f, " {word}={time}")?;
                }
            }
            conditions::show(f, &status.conditions)?;
            writeln!(f)?;
        }
        for told in &self.tell {
            writeln!(f, "tell {}: {}", told.reason, told.message)?;
        }
        if let Some(delay) = self.look_again {
            writeln!(f, "look again in {} s", delay.as_secs_f64())?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

impl JobFacts {
    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.seen.key.name
    }
}
