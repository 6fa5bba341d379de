//! What a StatefulSet's pass sees and what it decides, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use setpoint_apis::apps::{RollbackRecord, StatefulSetStatus};
use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::fixed::FixedFields;
use setpoint_apis::{ObjectKey, Timestamp};

use crate::conditions::{self, Finding};
use crate::config::{ContentCopy, CopyPlan, Missing};
use crate::content::CopySeen;
use crate::pod::{PodFacts, available_at};
pub use crate::replicaset::plan::Setbacks;
use crate::revisions::Revision;
use crate::rollback;
pub use crate::seen::Seen;
use crate::standing::Unusable;

/// A pod of a StatefulSet.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Its number.
    pub ordinal: i32,
    /// The revision that its label names.
    pub revision: Option<String>,
    /// What counts about it.
    pub facts: PodFacts,
}

impl Member {
    /// Whether it is there: it has not ended, as far as that is known.
    pub(super) fn counts(&self) -> bool {
        self.facts.is_active() || self.facts.frozen
    }

    /// Whether it has been ready for long enough.
    pub(super) fn is_available(&self, min_ready: Duration, now: Timestamp) -> bool {
        let since = self.facts.ready_since;
        self.counts() && since.is_some_and(|since| available_at(since, min_ready) <= now)
    }

    pub(super) fn is_of(&self, revision: &str) -> bool {
        self.revision.as_deref() == Some(revision)
    }
}

/// A claim that is there under the name that a member's claim has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSeen {
    /// Whose it is.
    pub ordinal: i32,
    /// It, as seen.
    pub seen: Seen,
    /// Whether this controller made it. What a user made under its name, or has taken over, is used and never deleted,
    /// and not changed but for what is said at `taken_over`.
    pub made_here: bool,
    /// Whether another object is its controller: then it does not go together with the StatefulSet, unless this made it.
    pub taken_over: bool,
    /// Whether it goes together with the StatefulSet.
    pub owned: bool,
}

/// Everything that a StatefulSet's pass looks at, at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The StatefulSet.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Why its document cannot be used. Then nothing is created or deleted.
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
    /// Revisions that are or may be its own and do not parse. While there is one, nothing is done either.
    pub broken_revisions: Vec<String>,
    /// It is being deleted, dependents first.
    pub terminating: bool,
    /// Whether its namespace exists.
    pub namespace_exists: bool,
    /// How many pods are wanted.
    pub wanted: i32,
    /// The number of the first.
    pub first: i32,
    /// Whether pods come and go one after the other.
    pub ordered: bool,
    /// Whether pods of other revisions are replaced, and not only when somebody deletes them.
    pub rolling: bool,
    /// How many of the lowest numbers stay at the revision that all had last.
    pub partition: i32,
    /// How many pods a rollout may make unavailable at a time; at least 1.
    pub max_unavailable: i32,
    /// How long a pod must be ready to be available.
    pub min_ready: Duration,
    /// What pods are made from; when revisions are pinned, reading copies.
    pub template: PodTemplateSpec,
    /// The copies that the template reads.
    pub reads: Vec<ContentCopy>,
    /// What the template reads and cannot do without is missing, so there is no revision of it yet.
    pub missing: Option<Missing>,
    /// The copies that are there.
    pub copies: Vec<CopySeen>,
    /// Whether a rollout that fails is taken back.
    pub rolls_back: bool,
    /// How long a rollout may stand still.
    pub progress_deadline: Option<Duration>,
    /// Since when it could have got on: before that nobody led, or no node was there. The time that a rollout may stand
    /// still counts from then at the earliest, or an outage of ours would be taken for a failure of the rollout.
    pub up_since: Timestamp,
    /// How many revisions that are not in use are kept.
    pub history_limit: i32,
    /// Its revisions, by number.
    pub revisions: Vec<Revision>,
    /// Revisions that nobody manages and that are of such a StatefulSet.
    pub adoptable_revisions: Vec<Seen>,
    /// Names of others' revisions that one of its own might have had.
    pub taken: BTreeSet<String>,
    /// Its pods, by number.
    pub members: Vec<Member>,
    /// Numbers whose pod is not wanted any more and has not stopped: its name is taken until then.
    pub stopping: BTreeSet<i32>,
    /// Numbers whose name a pod has that is not its own.
    pub foreign: BTreeSet<i32>,
    /// Pods that nobody manages, that the selector matches and whose names fit.
    pub adoptable: Vec<Seen>,
    /// Pods with its reference that the selector does not match any more, or whose names do not fit.
    pub releasable: Vec<Seen>,
    /// Which claims of which numbers do not exist, by the place of their template: of pods that are there and of those
    /// that come next.
    pub absent_claims: BTreeSet<(i32, usize)>,
    /// Claims of pods that are there.
    pub claims: Vec<ClaimSeen>,
    /// Whether the claims of pods that scaling down removes go with them.
    pub claims_go_with_pods: bool,
    /// Whether the claims go with the StatefulSet.
    pub claims_go_with_set: bool,
    /// What went wrong lately.
    pub setbacks: Setbacks,
    /// The status as stored.
    pub status: Option<StatefulSetStatus>,
}

impl Snapshot {
    /// Whether a pod of this number is wanted.
    pub(super) fn in_range(&self, ordinal: i32) -> bool {
        let offset = i64::from(ordinal) - i64::from(self.first);
        (0..i64::from(self.wanted)).contains(&offset)
    }

    /// The members whose numbers are wanted.
    pub(super) fn wanted_members(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.members.iter().filter(|m| self.in_range(m.ordinal))
    }

    /// The name of the pod of this number.
    pub fn pod_name(&self, ordinal: i32) -> String {
        format!("{}-{ordinal}", self.key.name)
    }
}

/// A revision to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRevision {
    /// `<set>-<hash>`.
    pub name: String,
    /// Its number.
    pub number: i64,
    /// It, as seen, when it is there and only its number changes.
    pub there: Option<Seen>,
}

/// A pod to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPod {
    /// Its number.
    pub ordinal: i32,
    /// Its name.
    pub name: String,
    /// The revision that it is made from.
    pub revision: String,
}

/// A claim to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClaim {
    /// The place of its template.
    pub template: usize,
    /// The name of its pod.
    pub pod: String,
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It had ended by itself, and another one of its number comes.
    Ended,
    /// There are to be fewer.
    ScaledDown,
    /// It is of another revision than it is to be.
    Outdated,
    /// The same, and it is not available: nothing waits for it.
    Stuck,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "it has ended",
            Self::ScaledDown => "scaled down",
            Self::Outdated => "another revision is wanted",
            Self::Stuck => "another revision is wanted, and it is not available",
        })
    }
}

/// A pod that goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The pod as seen.
    pub pod: Seen,
    /// Why.
    pub why: Why,
    /// Claims that go with it.
    pub claims: Vec<Seen>,
}

/// What to do for a StatefulSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Copies of ConfigMaps and Secrets.
    pub copies: CopyPlan,
    /// The revision of the present template, when it is to be written.
    pub revision: Option<NewRevision>,
    /// Revisions to take on.
    pub adopt_revisions: Vec<Seen>,
    /// Revisions beyond the history.
    pub delete_revisions: Vec<Seen>,
    /// Set when a rollout is taken back in this pass.
    pub rolled_back: Option<RollbackRecord>,
    /// Claims to create, before the pods that use them.
    pub claims: Vec<NewClaim>,
    /// Claims that are to go with the StatefulSet.
    pub own_claims: Vec<Seen>,
    /// Claims that are to outlive it.
    pub disown_claims: Vec<Seen>,
    /// Pods to create.
    pub create: Vec<NewPod>,
    /// Pods to delete.
    pub delete: Vec<Removal>,
    /// Pods to take on.
    pub adopt: Vec<Seen>,
    /// Pods to let go.
    pub release: Vec<Seen>,
    /// The status to write.
    pub status: Option<StatefulSetStatus>,
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
                && self.adopt_revisions.is_empty()
                && self.delete_revisions.is_empty()
                && self.claims.is_empty()
                && self.own_claims.is_empty()
                && self.disown_claims.is_empty()
                && self.create.is_empty()
                && self.delete.is_empty()
                && self.adopt.is_empty()
                && self.release.is_empty())
    }

    /// Whether it makes nothing that a namespace could refuse, and that pods need.
    pub fn asks_for_nothing(&self) -> bool {
        let parts = self.revision.is_none() && self.copies.create.is_empty();
        parts && self.create.is_empty() && self.claims.is_empty()
    }

    /// The names of the pods that have to wait, when of the claims of each template only the first so many are let in: a
    /// pod comes with all of its claims or not at all.
    pub fn shut_out(&self, let_in: &BTreeMap<usize, usize>) -> BTreeSet<String> {
        let mut left = let_in.clone();
        let mut shut_out = BTreeSet::new();
        for new in &self.claims {
            match left.get_mut(&new.template) {
                Some(n) if *n > 0 => *n -= 1,
                _ => {
                    shut_out.insert(new.pod.clone());
                }
            }
        }
        shut_out
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        !self.acts() && self.status.is_none()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.copies)?;
        if let Some(r) = &self.revision {
            match &r.there {
                None => writeln!(f, "create revision {} number={}", r.name, r.number)?,
                Some(seen) => {
                    let at = seen.mod_revision;
                    writeln!(f, "renumber revision {} at {at} to {}", r.name, r.number)?;
                }
            }
        }
        rollback::show(f, self.rolled_back.as_ref())?;
        for c in &self.claims {
            writeln!(f, "create claim {} of pod {}", c.template, c.pod)?;
        }
        for p in &self.create {
            writeln!(f, "create pod {} of {}", p.name, p.revision)?;
        }
        for r in &self.delete {
            let (name, at) = (&r.pod.key.name, r.pod.mod_revision);
            writeln!(f, "delete pod {name} at {at} ({})", r.why)?;
            for claim in &r.claims {
                writeln!(f, "  with claim {}", claim.key.name)?;
            }
        }
        for (verb, objects) in [
            ("adopt pod", &self.adopt),
            ("release pod", &self.release),
            ("adopt revision", &self.adopt_revisions),
            ("delete revision", &self.delete_revisions),
            ("own claim", &self.own_claims),
            ("disown claim", &self.disown_claims),
        ] {
            for s in objects {
                writeln!(f, "{verb} {} at {}", s.key.name, s.mod_revision)?;
            }
        }
        if let Some(s) = &self.status {
            status(f, s)?;
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

fn status(f: &mut fmt::Formatter<'_>, s: &StatefulSetStatus) -> fmt::Result {
    let n = |n: Option<i32>| n.unwrap_or(0);
    write!(f, "status replicas={}", s.replicas)?;
    write!(f, " ready={}", n(s.ready_replicas))?;
    write!(f, " available={}", n(s.available_replicas))?;
    let name = |r: &Option<String>| r.clone().unwrap_or_default();
    write!(
        f,
        " current={}*{}",
        n(s.current_replicas),
        name(&s.current_revision)
    )?;
    write!(
        f,
        " updated={}*{}",
        n(s.updated_replicas),
        name(&s.update_revision)
    )?;
    write!(f, " generation={}", s.observed_generation.unwrap_or(0))?;
    conditions::show(f, &s.conditions)?;
    writeln!(f)
}
