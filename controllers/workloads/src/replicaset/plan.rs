//! What a ReplicaSet's pass sees and what it decides, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::ReplicaSetStatus;
use setpoint_apis::fixed::FixedFields;
use setpoint_apis::{ObjectKey, Timestamp};

use super::decide::SETBACKS_FORGOTTEN;
use crate::conditions::{self, Finding};
use crate::pod::PodFacts;
pub use crate::seen::Seen;
use crate::standing::Unusable;

/// What went wrong with pods lately; kept in memory, so a new leader begins with a clean slate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setbacks {
    /// Pods that ended for good, in a row.
    pub finished: u32,
    /// When the last of them was seen.
    pub last_finished: Option<Timestamp>,
    /// Why the last create or delete did not succeed: reason and sentence.
    pub failure: Option<(String, String)>,
}

impl Setbacks {
    /// So many pods have ended for good. Those before do not count when that is long ago.
    pub fn note_finished(&mut self, count: u32, now: Timestamp) {
        let old = |t| now.duration_since(t) >= SETBACKS_FORGOTTEN;
        if self.last_finished.is_none_or(old) {
            self.finished = 0;
        }
        self.finished = self.finished.saturating_add(count);
        self.last_finished = Some(now);
    }
}

/// Everything that a ReplicaSet's pass looks at, at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The ReplicaSet.
    pub key: ObjectKey,
    /// Its uid, in the references of its pods.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Why its document cannot be acted on. Then nothing is created or deleted.
    pub invalid: Option<Unusable>,
    /// What may not change of it.
    pub fixed: Option<FixedFields>,
    /// What is to be said about an older workload that selects the same pods.
    pub overlap: Option<String>,
    /// How many pods an autoscaler wants, when the document says otherwise or that cannot be read.
    pub decided: Option<i32>,
    /// What is to be said of an autoscaler that cannot be read.
    pub broken_scaler: Option<Finding>,
    /// It is being deleted, dependents first.
    pub terminating: bool,
    /// Whether its namespace exists.
    pub namespace_exists: bool,
    /// How many pods are wanted.
    pub wanted: i32,
    /// How long a pod must be ready to be available.
    pub min_ready: Duration,
    /// Its pods that the selector matches, in key order.
    pub pods: Vec<PodFacts>,
    /// How many of `pods` have all labels of the template.
    pub fully_labeled: i32,
    /// Pods that nobody manages and that the selector matches.
    pub adoptable: Vec<Seen>,
    /// Pods with its reference that the selector does not match any more.
    pub releasable: Vec<Seen>,
    /// Names that are taken though no pod here has them: of pods that are still being stopped, or do not parse.
    pub taken: BTreeSet<Arc<str>>,
    /// How many pods of this set and its siblings (same owner) are on each node; filled when some must go.
    pub load: BTreeMap<Arc<str>, u32>,
    /// What went wrong lately.
    pub setbacks: Setbacks,
    /// The status as stored.
    pub status: Option<ReplicaSetStatus>,
    /// Makes names differ between passes.
    pub salt: u64,
}

/// A pod that goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The pod as seen.
    pub pod: Seen,
    /// Whether it had ended by itself.
    pub finished: bool,
}

/// What to do for a ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Names of pods to create.
    pub create: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<Removal>,
    /// Pods to take on.
    pub adopt: Vec<Seen>,
    /// Pods to let go.
    pub release: Vec<Seen>,
    /// The status to write.
    pub status: Option<ReplicaSetStatus>,
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
        !self.acts() && self.status.is_none()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.create {
            writeln!(f, "create pod {name}")?;
        }
        for r in &self.delete {
            let why = if r.finished { " (it has ended)" } else { "" };
            writeln!(
                f,
                "delete pod {} at {}{why}",
                r.pod.key.name, r.pod.mod_revision
            )?;
        }
        for p in &self.adopt {
            writeln!(f, "adopt pod {} at {}", p.key.name, p.mod_revision)?;
        }
        for p in &self.release {
            writeln!(f, "release pod {} at {}", p.key.name, p.mod_revision)?;
        }
        if let Some(s) = &self.status {
            write!(f, "status replicas={}", s.replicas)?;
            write!(f, " ready={}", s.ready_replicas.unwrap_or(0))?;
            write!(f, " available={}", s.available_replicas.unwrap_or(0))?;
            write!(f, " generation={}", s.observed_generation.unwrap_or(0))?;
            conditions::show(f, &s.conditions)?;
            writeln!(f)?;
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
