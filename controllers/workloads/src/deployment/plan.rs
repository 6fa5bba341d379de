//! What a Deployment's pass sees and what it decides, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::{DeploymentStatus, DeploymentStrategy, RollbackRecord};
use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::fixed::FixedFields;
use setpoint_apis::{ObjectKey, Timestamp};

use crate::conditions::{self, Finding};
use crate::config::{ContentCopy, CopyPlan, Missing};
use crate::content::CopySeen;
use crate::rollback::{self, Failure};
pub use crate::seen::Seen;
use crate::standing::Unusable;

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Counts the templates of a Deployment.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The revisions that a ReplicaSet had before, when a Deployment came back to its template.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many pods the Deployment wanted when it last set this ReplicaSet's size.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Written by kubectl; not for ReplicaSets.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The facts about one ReplicaSet of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct SetFacts {
    /// It, as seen.
    pub seen: Seen,
    /// Its age.
    pub create_revision: i64,
    /// How many pods it is to have.
    pub replicas: i32,
    /// From when on its pods are available.
    pub min_ready_seconds: i32,
    /// What its pods are made from.
    pub template: PodTemplateSpec,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Why it is taken to have failed, looking at its pods alone.
    pub crash: Option<Failure>,
    /// Its pods that exist and have not ended.
    pub pods: i32,
    /// Those of them whose documents do not parse: they are left alone, whatever its size.
    pub frozen: i32,
    /// Since when those of these that are ready are ready.
    pub frozen_ready_since: Vec<Timestamp>,
    /// Since when those that are ready are ready.
    pub ready_since: Vec<Timestamp>,
    /// Pods of it that are not wanted any more and have not stopped.
    pub stopping: i32,
    /// Its `Invalid` or `ReplicaFailure`: reason and sentence.
    pub failure: Option<(String, String)>,
}

impl SetFacts {
    /// The revision of the Deployment that it was made for last; 0 when it does not say.
    pub fn revision(&self) -> i64 {
        number(&self.annotations, REVISION).unwrap_or(0)
    }
}

/// A number in an annotation.
pub(super) fn number(annotations: &BTreeMap<String, String>, name: &str) -> Option<i64> {
    annotations.get(name)?.parse().ok()
}

/// Everything that a Deployment's pass looks at, at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The Deployment.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Why its document cannot be acted on. Then nothing is created, scaled or deleted.
    pub invalid: Option<Unusable>,
    /// What may not change of it.
    pub fixed: Option<FixedFields>,
    /// What is to be said about an older workload that selects the same pods.
    pub overlap: Option<String>,
    /// Which contents the template reads, for the status.
    pub config_seen: Option<String>,
    /// How many pods an autoscaler wants, when the document says otherwise or that cannot be read.
    pub decided: Option<i32>,
    /// What is to be said of an autoscaler that cannot be read.
    pub broken_scaler: Option<Finding>,
    /// ReplicaSets that are or may be its own and do not parse. While there is one, nothing is done either.
    pub broken_sets: Vec<String>,
    /// It is being deleted, dependents first.
    pub terminating: bool,
    /// Whether its namespace exists.
    pub namespace_exists: bool,
    /// How many pods are wanted.
    pub wanted: i32,
    /// Whether changes of the template wait.
    pub paused: bool,
    /// How pods are replaced.
    pub strategy: DeploymentStrategy,
    /// What pods are made from; when the Deployment's revisions are pinned, reading copies.
    pub template: PodTemplateSpec,
    /// The copies that the template reads.
    pub reads: Vec<ContentCopy>,
    /// What the template reads and cannot do without is missing, so there is no revision of it yet.
    pub missing: Option<Missing>,
    /// The copies that are there.
    pub copies: Vec<CopySeen>,
    /// Whether a rollout that fails is taken back.
    pub rolls_back: bool,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// From when on a pod is available.
    pub min_ready_seconds: i32,
    /// How long a rollout may stand still; `None`: for ever.
    pub progress_deadline: Option<Duration>,
    /// Since when it could have got on: before that nobody led, or no node was there. The time that a rollout may stand
    /// still counts from then at the earliest, or an outage of ours would be taken for a failure of the rollout.
    pub up_since: Timestamp,
    /// How many old ReplicaSets without pods are kept.
    pub history_limit: i32,
    /// Its ReplicaSets, oldest first.
    pub sets: Vec<SetFacts>,
    /// ReplicaSets that nobody manages and that the selector matches.
    pub adoptable: Vec<Seen>,
    /// ReplicaSets with its reference that the selector does not match any more.
    pub releasable: Vec<Seen>,
    /// Names of ReplicaSets of others that begin like its own.
    pub taken: BTreeSet<Arc<str>>,
    /// Why the last write to a ReplicaSet did not succeed: reason and sentence.
    pub failure: Option<(String, String)>,
    /// The status as stored.
    pub status: Option<DeploymentStatus>,
}

impl Snapshot {
    pub(super) fn min_ready(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.min_ready_seconds).unwrap_or(0))
    }
}

/// A ReplicaSet to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSet {
    /// `<deployment>-<hash>`.
    pub name: String,
    /// The value of [`HASH_LABEL`].
    pub hash: String,
    /// How many hashes were taken already.
    pub collisions: i32,
    /// Its first size.
    pub replicas: i32,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A ReplicaSet to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// It, as seen.
    pub set: Seen,
    /// Its size as seen.
    pub from: i32,
    /// Its size.
    pub replicas: i32,
    /// From when on its pods are available.
    pub min_ready_seconds: i32,
    /// All its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What to do for a Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Copies of what its revisions read.
    pub copies: CopyPlan,
    /// A rollout that has failed: the record of it is in the status.
    pub rolled_back: Option<RollbackRecord>,
    /// The ReplicaSet of the present template, when there is none.
    pub create: Option<NewSet>,
    /// ReplicaSets to scale or to annotate.
    pub change: Vec<Change>,
    /// ReplicaSets to take on.
    pub adopt: Vec<Seen>,
    /// ReplicaSets to let go.
    pub release: Vec<Seen>,
    /// Old ReplicaSets beyond the history.
    pub delete: Vec<Seen>,
    /// The status to write.
    pub status: Option<DeploymentStatus>,
    /// When to look again though nothing changes.
    pub look_again: Option<Duration>,
    /// Why something was not done.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether it changes ReplicaSets.
    pub fn acts(&self) -> bool {
        self.create.is_some()
            || !(self.copies.is_empty()
                && self.change.is_empty()
                && self.adopt.is_empty()
                && self.release.is_empty()
                && self.delete.is_empty())
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        !self.acts() && self.status.is_none()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.copies)?;
        rollback::show(f, self.rolled_back.as_ref())?;
        if let Some(n) = &self.create {
            let revision = n.annotations.get(REVISION).map_or("?", String::as_str);
            writeln!(
                f,
                "create replicaset {} replicas={} revision={revision}",
                n.name, n.replicas
            )?;
        }
        for c in &self.change {
            let (name, at) = (&c.set.key.name, c.set.mod_revision);
            match c.from == c.replicas {
                true => writeln!(f, "annotate replicaset {name} at {at}")?,
                false => writeln!(
                    f,
                    "scale replicaset {name} at {at} from {} to {}",
                    c.from, c.replicas
                )?,
            }
        }
        for (verb, sets) in [
            ("adopt", &self.adopt),
            ("release", &self.release),
            ("delete", &self.delete),
        ] {
            for s in sets {
                writeln!(f, "{verb} replicaset {} at {}", s.key.name, s.mod_revision)?;
            }
        }
        if let Some(s) = &self.status {
            let n = |n: Option<i32>| n.unwrap_or(0);
            write!(
                f,
                "status replicas={} updated={}",
                n(s.replicas),
                n(s.updated_replicas)
            )?;
            write!(
                f,
                " ready={} available={}",
                n(s.ready_replicas),
                n(s.available_replicas)
            )?;
            write!(f, " unavailable={}", n(s.unavailable_replicas))?;
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
