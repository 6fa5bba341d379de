//! What is known about a Job, and what to do: plain values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::batch::{JobSpec, JobStatus};
use setpoint_apis::fixed::FixedFields;
use setpoint_apis::{ObjectKey, Timestamp};

pub use crate::seen::Seen;

use super::numbers::Numbers;
use crate::conditions::INVALID;
use crate::pod::PodFacts;
use crate::standing::Unusable;

/// What there is to know.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The Job.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Why its document cannot be used; then all that follows is as it last was or empty.
    pub invalid: Option<Unusable>,
    /// What may not change of it.
    pub fixed: Option<FixedFields>,
    /// What is to be said about an older workload that selects the same pods.
    pub overlap: Option<String>,
    /// Why its status cannot be used: what is counted is not known.
    pub lost_count: Option<String>,
    /// Whether it is being deleted, dependents first.
    pub terminating: bool,
    /// Whether its namespace exists.
    pub namespace_exists: bool,
    /// What is wanted, with defaults.
    pub spec: JobSpec,
    /// Its pods, in key order.
    pub pods: Vec<JobPod>,
    /// Pods that are still being stopped, and which index they had.
    pub stopping: Vec<(Arc<str>, Option<i32>)>,
    /// Numbers of pods that nobody manages and that may have been its own, and be again.
    pub loose_numbers: Vec<i32>,
    /// Pods that nobody manages and that the selector matches.
    pub adoptable: Vec<Seen>,
    /// Pods with its reference that the selector does not match any more.
    pub releasable: Vec<Seen>,
    /// Whether the store refused the last pod.
    pub refused: bool,
    /// What is counted, as stored.
    pub stored: Counts,
    /// The status as stored, when it is of this Job.
    pub status: Option<JobStatus>,
    /// Makes names differ between passes.
    pub salt: u64,
}

impl Snapshot {
    /// Whether the document was never read, and the status may be of another controller that looks after the Job.
    pub(super) fn is_unknown(&self) -> bool {
        let of_another = |status: &JobStatus| {
            let other = status.conditions.iter().any(|c| c.type_ != INVALID);
            status.counted.is_none() && (other || status.start_time.is_some())
        };
        self.uid.is_empty() && self.status.as_ref().is_some_and(of_another)
    }
}

/// What the status says in ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The numbers of the pods that are counted.
    pub pods: Numbers,
    /// The indexes that have succeeded.
    pub completed: Numbers,
    /// The indexes that have failed.
    pub failed_indexes: Numbers,
}

/// The greatest number that a pod of a Job may have: far more than any Job makes, and far from what a number can hold.
/// The next pod has the number above all that are counted, so one that is written by hand must leave room.
pub const GREATEST_NUMBER: i32 = 1_000_000_000;

impl Counts {
    /// What a status says.
    ///
    /// # Errors
    /// Which field is no list of numbers, or has one that no pod can have.
    pub fn of(status: &JobStatus) -> Result<Self, String> {
        let parse = |field: &str, text: Option<&str>| {
            let text = text.unwrap_or_default();
            Numbers::parse(text).map_err(|e| format!("status.{field}: {text:?} {e}"))
        };
        let counted = status.counted.as_ref().map(|c| c.pods.as_str());
        let pods = parse("counted.pods", counted)?;
        if let Some(last) = pods.last().filter(|last| *last > GREATEST_NUMBER) {
            return Err(format!(
                "status.counted.pods: {last} is more than {GREATEST_NUMBER}, the greatest number of a pod"
            ));
        }
        Ok(Self {
            pods,
            completed: parse("completedIndexes", status.completed_indexes.as_deref())?,
            failed_indexes: parse("failedIndexes", status.failed_indexes.as_deref())?,
        })
    }
}

/// A pod of a Job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPod {
    /// What counts about every pod.
    pub facts: PodFacts,
    /// Its number among all pods that were made for the Job.
    pub number: Option<i32>,
    /// Its uid, for one without a number.
    pub uid: Option<String>,
    /// Its index, of an Indexed Job.
    pub index: Option<i32>,
    /// How it has ended.
    pub outcome: Outcome,
    /// How often its containers were restarted, init containers included.
    pub restarts: i32,
    /// How many failures of its index counted before it was made.
    pub failures_before: i32,
    /// How many failures of its index were ignored before it was made.
    pub ignored_before: i32,
    /// What its node reports, as seen: its deletion is guarded on that.
    pub record: Record,
}

/// How a pod has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It has not, or will run again elsewhere.
    #[default]
    None,
    /// All is well.
    Succeeded {
        /// When.
        at: Timestamp,
    },
    /// It has failed.
    Failed(Failure),
}

/// A failure, as far as a policy looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// The containers that ended, not with 0, and their exit codes; init containers come last.
    pub exits: Vec<(String, i32)>,
    /// Type and status of the pod's conditions.
    pub conditions: Vec<(String, String)>,
}

/// What a node reports of a pod, as far as the store is to compare it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// The pod is bound to no node.
    #[default]
    Unbound,
    /// Its node has reported nothing.
    Absent(Arc<str>),
    /// Its node has reported something, at this revision.
    At(Arc<str>, i64),
}

/// A pod to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPod {
    /// Its name.
    pub name: String,
    /// Its number among all pods of the Job.
    pub number: i32,
    /// Its index, of an Indexed Job.
    pub index: Option<i32>,
    /// How many failures of its index counted and were ignored, of a Job with a limit per index.
    pub failures: Option<(i32, i32)>,
}

/// A pod to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The pod as seen.
    pub pod: Seen,
    /// What its node reported: should it end in this moment, it stays and is counted.
    pub record: Record,
}

/// Something that people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether something is wrong.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What to do for a Job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods to take on.
    pub adopt: Vec<Seen>,
    /// Pods to let go.
    pub release: Vec<Seen>,
    /// Pods to delete.
    pub delete: Vec<Removal>,
    /// Pods to create.
    pub create: Vec<NewPod>,
    /// The status to write.
    pub status: Option<JobStatus>,
    /// Whether the Job's own document is to go: its time after its end is over.
    pub expire: bool,
    /// What is told once the status is written.
    pub tell: Vec<Told>,
    /// When to look again though nothing changes.
    pub look_again: Option<Duration>,
    /// Why something was not done.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether it changes pods.
    pub fn acts(&self) -> bool {
        !(self.create.is_empty()
            && self.delete.is_empty()
            && self.adopt.is_empty()
            && self.release.is_empty())
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        !self.acts() && self.status.is_none() && !self.expire
    }

    /// Looks again after this time at the latest.
    pub(super) fn look_again_in(&mut self, wait: Duration) {
        self.look_again = Some(self.look_again.map_or(wait, |w| w.min(wait)));
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for p in &self.adopt {
            writeln!(f, "adopt pod {} at {}", p.key.name, p.mod_revision)?;
        }
        for p in &self.release {
            writeln!(f, "release pod {} at {}", p.key.name, p.mod_revision)?;
        }
        for r in &self.delete {
            writeln!(f, "delete pod {} at {}", r.pod.key.name, r.pod.mod_revision)?;
        }
        for p in &self.create {
            write!(f, "create pod {} number={}", p.name, p.number)?;
            if let Some((failures, ignored)) = p.failures {
                write!(f, " failures={failures} ignored={ignored}")?;
            }
            writeln!(f)?;
        }
        if let Some(status) = &self.status {
            show(f, status)?;
        }
        if self.expire {
            writeln!(f, "delete the Job")?;
        }
        for told in &self.tell {
            writeln!(f, "tell {}: {}", told.reason, told.message)?;
        }
        if let Some(delay) = self.look_again {
            writeln!(f, "look again in {} ms", delay.as_millis())?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, s: &JobStatus) -> fmt::Result {
    let n = |n: Option<i32>| n.unwrap_or(0);
    write!(f, "status active={} ready={}", n(s.active), n(s.ready))?;
    write!(f, " terminating={}", n(s.terminating))?;
    write!(f, " succeeded={} failed={}", n(s.succeeded), n(s.failed))?;
    if let Some(indexes) = &s.completed_indexes {
        write!(f, " completedIndexes={indexes}")?;
    }
    if let Some(indexes) = &s.failed_indexes {
        write!(f, " failedIndexes={indexes}")?;
    }
    if let Some(counted) = &s.counted {
        write!(f, " counted={}", counted.pods)?;
    }
    for c in &s.conditions {
        write!(f, " {}={}", c.type_, c.status)?;
        if let Some(reason) = &c.reason {
            write!(f, "/{reason}")?;
        }
    }
    writeln!(f)
}
