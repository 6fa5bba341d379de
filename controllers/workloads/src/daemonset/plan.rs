//! What a DaemonSet's pass sees and what it decides, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::{
    DaemonSetStatus, DaemonSetUpdateStrategy, DaemonSetUpdateStrategyType, RollbackRecord,
    RollingUpdateDaemonSet,
};
use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::fixed::FixedFields;
use setpoint_apis::{IntOrString, ObjectKey, Timestamp};

use super::nodes::Nodes;
use crate::conditions;
use crate::config::{ContentCopy, CopyPlan, Missing};
use crate::content::CopySeen;
use crate::pod::PodFacts;
use crate::revisions::{REVISION_REFUSED, Revision, Wanted};
use crate::rollback;
pub use crate::seen::Seen;
use crate::standing::Unusable;

/// A pod of a DaemonSet.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonPod {
    /// What counts about it.
    pub facts: PodFacts,
    /// The node that it is on or for; `None` when nothing says so: then it is left alone.
    pub node: Option<Arc<str>>,
    /// The revision that it is of: the value of [`crate::revisions::REVISION_LABEL`].
    pub hash: Option<Arc<str>>,
}

impl DaemonPod {
    /// Whether it counts as the pod of its node.
    pub fn is_active(&self) -> bool {
        self.facts.is_active() || self.facts.frozen
    }
}

/// What went wrong with the pods on one node; kept in memory, so a new leader begins with a clean slate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// The generation of the DaemonSet that it happened to. Another one is tried at once.
    pub generation: i64,
    /// When a pod that had ended was last removed.
    pub at: Timestamp,
    /// How long the next one stays that ends.
    pub delay: Duration,
}

/// Everything that a DaemonSet's pass looks at, at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The DaemonSet.
    pub key: ObjectKey,
    /// Its uid, in the references of its pods.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Why its document, or that of one of its revisions, cannot be used. Then nothing is created or deleted.
    pub invalid: Option<Unusable>,
    /// What may not change of it.
    pub fixed: Option<FixedFields>,
    /// What is to be said about an older workload that selects the same pods.
    pub overlap: Option<String>,
    /// Which contents the template reads, for the status.
    pub config_seen: Option<String>,
    /// It is being deleted, dependents first.
    pub terminating: bool,
    /// Whether its namespace exists.
    pub namespace_exists: bool,
    /// How pods are replaced.
    pub strategy: DaemonSetUpdateStrategy,
    /// What pods are made from; when the revisions are pinned, reading copies.
    pub template: PodTemplateSpec,
    /// The copies that the template reads.
    pub reads: Vec<ContentCopy>,
    /// What the template reads and cannot do without is missing, so there is no revision of it yet.
    pub missing: Option<Missing>,
    /// The copies that are there.
    pub copies: Vec<CopySeen>,
    /// Whether a rollout that fails is taken back.
    pub rolls_back: bool,
    /// How long a pod must be ready to be available.
    pub min_ready: Duration,
    /// How long a rollout may stand still; `None`: for ever.
    pub progress_deadline: Option<Duration>,
    /// Since when it could have got on: before that nobody led, or no node was there. The time that a rollout may stand
    /// still counts from then at the earliest, or an outage of ours would be taken for a failure of the rollout.
    pub up_since: Timestamp,
    /// How many old revisions that no pod has are kept.
    pub history_limit: i32,
    /// All nodes.
    pub nodes: Arc<Nodes>,
    /// Its pods that the selector matches: by node, and on each those that are bound first, then by age.
    pub pods: Vec<DaemonPod>,
    /// Nodes on which a pod of it that is not wanted any more has not stopped.
    pub stopping: BTreeSet<Arc<str>>,
    /// Its revisions, by number.
    pub revisions: Vec<Revision>,
    /// Names of revisions of others that begin like its own.
    pub taken_revisions: BTreeSet<String>,
    /// Pods that nobody manages and that the selector matches.
    pub adoptable: Vec<Seen>,
    /// Revisions that nobody manages and that the selector matches; looked for while the template has none.
    pub adoptable_revisions: Vec<Seen>,
    /// Pods with its reference that the selector does not match any more.
    pub releasable: Vec<Seen>,
    /// Pods of names like its own that never parsed and are bound nowhere: nobody knows which node they are for.
    pub unreadable: usize,
    /// Names that are taken though no pod here has them.
    pub taken: BTreeSet<Arc<str>>,
    /// What went wrong lately, by node.
    pub setbacks: BTreeMap<Arc<str>, Setback>,
    /// Why the last create did not succeed: reason and sentence.
    pub failure: Option<(String, String)>,
    /// The status as stored.
    pub status: Option<DaemonSetStatus>,
    /// Makes names differ between passes.
    pub salt: u64,
}

impl Snapshot {
    /// Whether pods of old revisions are replaced here, and not by whoever deletes them.
    pub(super) fn rolls(&self) -> bool {
        self.strategy.type_ != Some(DaemonSetUpdateStrategyType::OnDelete)
    }

    /// Whether the revision of the template could not be made when that was tried last.
    pub(super) fn is_refused(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(|(reason, _)| reason == REVISION_REFUSED)
    }

    /// Whether a new pod comes before the old one of its node goes, and not after.
    pub(super) fn surges(&self) -> bool {
        self.share(1, |r| r.max_surge.as_ref()) > 0
    }

    /// How many of `desired` nodes may have a new pod beside the old one.
    pub(super) fn surge(&self, desired: usize) -> usize {
        self.share(desired, |r| r.max_surge.as_ref())
    }

    /// On how many of `desired` nodes no pod need be available; at least on one, or nothing could ever move.
    pub(super) fn unavailable(&self, desired: usize) -> usize {
        self.share(desired, |r| r.max_unavailable.as_ref()).max(1)
    }

    /// Percentages are rounded up.
    fn share(
        &self,
        of: usize,
        field: impl Fn(&RollingUpdateDaemonSet) -> Option<&IntOrString>,
    ) -> usize {
        let rolling = self.strategy.rolling_update.as_ref();
        let value = rolling.filter(|_| self.rolls()).and_then(field);
        let of = i32::try_from(of).unwrap_or(i32::MAX);
        // Validation lets no other text through than percentages.
        let scaled = value.map_or(0, |v| v.scaled(of, true).unwrap_or(0));
        usize::try_from(scaled).unwrap_or(0)
    }

    /// The label value of a revision of this name.
    pub(super) fn hash_of<'a>(&self, revision: &'a str) -> &'a str {
        hash_of(&self.key, revision)
    }
}

/// The part of a revision's name that its pods carry.
pub(super) fn hash_of<'a>(key: &ObjectKey, revision: &'a str) -> &'a str {
    let stem = revision.strip_prefix(&*key.name);
    stem.and_then(|s| s.strip_prefix('-')).unwrap_or(revision)
}

/// A pod to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPod {
    /// Its name.
    pub name: String,
    /// The node that it is for.
    pub node: Arc<str>,
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has ended.
    Ended,
    /// Its node has another one.
    Extra,
    /// Its node is not to have one any more, or is gone.
    NotWanted,
    /// It is of another revision.
    Outdated,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "it has ended",
            Self::Extra => "another one is there",
            Self::NotWanted => "the node is not to have one",
            Self::Outdated => "it is outdated",
        }
    }
}

/// A pod that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// It, as seen.
    pub pod: Seen,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Why it goes.
    pub why: Why,
}

/// What to do for a DaemonSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Copies of what its revisions read.
    pub copies: CopyPlan,
    /// A rollout that has failed: the record of it is in the status.
    pub rolled_back: Option<RollbackRecord>,
    /// The revision of the present template, to be made or to be numbered anew.
    pub revision: Option<Wanted>,
    /// The revision of the pods that are created.
    pub run: Option<String>,
    /// Pods to create.
    pub create: Vec<NewPod>,
    /// Pods to delete.
    pub delete: Vec<Removal>,
    /// Pods to take on.
    pub adopt: Vec<Seen>,
    /// Revisions to take on.
    pub adopt_revisions: Vec<Seen>,
    /// Pods to let go.
    pub release: Vec<Seen>,
    /// Old revisions beyond the history.
    pub forget: Vec<Seen>,
    /// The status to write.
    pub status: Option<DaemonSetStatus>,
    /// When to look again though nothing changes.
    pub look_again: Option<Duration>,
    /// Why something was not done.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether it changes anything but the status.
    pub fn acts(&self) -> bool {
        self.revision.is_some()
            || !(self.copies.is_empty()
                && self.create.is_empty()
                && self.delete.is_empty()
                && self.adopt.is_empty()
                && self.adopt_revisions.is_empty()
                && self.release.is_empty()
                && self.forget.is_empty())
    }

    /// Whether it makes nothing that a namespace could refuse.
    pub fn asks_for_nothing(&self) -> bool {
        self.create.is_empty() && self.revision.is_none() && self.copies.create.is_empty()
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
        if let Some(w) = &self.revision {
            let verb = if w.there.is_some() {
                "number"
            } else {
                "create"
            };
            writeln!(f, "{verb} revision {} as {}", w.name, w.number)?;
        }
        let run = self.run.as_deref().unwrap_or_default();
        for pod in &self.create {
            writeln!(f, "create pod {} of {run} on {}", pod.name, pod.node)?;
        }
        for r in &self.delete {
            let (name, at, why) = (&r.pod.key.name, r.pod.mod_revision, r.why.as_str());
            let node = r.node.as_deref().unwrap_or("no node");
            writeln!(f, "delete pod {name} at {at} on {node} ({why})")?;
        }
        for (verb, pods) in [("adopt", &self.adopt), ("release", &self.release)] {
            for p in pods {
                writeln!(f, "{verb} pod {} at {}", p.key.name, p.mod_revision)?;
            }
        }
        for r in &self.adopt_revisions {
            writeln!(f, "adopt revision {} at {}", r.key.name, r.mod_revision)?;
        }
        for r in &self.forget {
            writeln!(f, "delete revision {} at {}", r.key.name, r.mod_revision)?;
        }
        if let Some(s) = &self.status {
            write_status(f, s)?;
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

fn write_status(f: &mut fmt::Formatter<'_>, s: &DaemonSetStatus) -> fmt::Result {
    let n = |n: Option<i32>| n.unwrap_or(0);
    write!(f, "status desired={}", s.desired_number_scheduled)?;
    write!(f, " current={}", s.current_number_scheduled)?;
    write!(f, " misscheduled={}", s.number_misscheduled)?;
    write!(f, " updated={}", n(s.updated_number_scheduled))?;
    write!(f, " ready={}", s.number_ready)?;
    write!(f, " available={}", n(s.number_available))?;
    write!(f, " unavailable={}", n(s.number_unavailable))?;
    write!(f, " generation={}", s.observed_generation.unwrap_or(0))?;
    conditions::show(f, &s.conditions)?;
    writeln!(f)
}
