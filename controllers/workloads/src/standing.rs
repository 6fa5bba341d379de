//! Whether an object may be acted on as its document says, and what people are told when not.
//!
//! Whoever writes a key by hand may change what `apply` would have refused. A controller that followed a changed selector
//! would let go of all pods and make new ones; so such an object is frozen like one whose document does not parse, until
//! what was there is put back, or it is deleted and made anew. What may not change is recorded in the status
//! ([`setpoint_apis::fixed`]), so every later leader knows it too.

use setpoint_apis::apps::{
    DaemonSetStatus, DeploymentStatus, ReplicaSetStatus, RollbackRecord, StatefulSetStatus,
    WorkloadCondition,
};
use setpoint_apis::fixed::{self, Fixed, FixedFields};
use setpoint_apis::{Kind, ObjectKey, Timestamp};
use setpoint_runtime::Stored;
use setpoint_runtime::events::{EventRef, Recorder};
use tracing::info;

use crate::autoscale::AUTOSCALER_INVALID;
use crate::conditions::{self, Finding, INVALID};
use crate::rollback;

/// The condition of a workload whose selector and that of an older one select each other's pods.
pub const SELECTOR_OVERLAP: &str = "SelectorOverlap";
/// Why [`SELECTOR_OVERLAP`] is so.
pub const OVERLAPS: &str = "SelectorOverlaps";

/// The conditions that people are told of when they come up.
const TOLD: [&str; 3] = [INVALID, SELECTOR_OVERLAP, AUTOSCALER_INVALID];

/// Why a document that does not parse, or says what cannot be, cannot be acted on.
const DOCUMENT_INVALID: &str = "DocumentInvalid";

/// Why an object cannot be acted on whose revisions cannot be read.
const REVISION_INVALID: &str = "RevisionInvalid";

/// Why the document of an object, or that of one of its revisions, cannot be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Unusable {
    /// The document does not parse, or what it says cannot be.
    pub fn document(message: &str) -> Self {
        Self {
            reason: DOCUMENT_INVALID,
            message: message.to_owned(),
        }
    }

    /// Revisions of it cannot be read; `broken` says of each what is wrong with it.
    pub fn revisions(broken: &[String]) -> Self {
        Self {
            reason: REVISION_INVALID,
            message: broken.join("; "),
        }
    }

    /// The condition `Invalid`.
    pub fn finding(&self) -> Finding {
        Finding::new(INVALID, true, self.reason, self.message.as_str())
    }

    /// Why nothing is done.
    pub fn note(&self) -> &'static str {
        match self.reason {
            DOCUMENT_INVALID => "the document does not parse: frozen",
            REVISION_INVALID => "the document of a revision does not parse: frozen",
            _ => "what may not change has changed: frozen",
        }
    }

    /// The generation that a status with this is about; of what does not parse, the one that it was about before.
    pub fn observed(&self, present: i64, before: Option<i64>) -> Option<i64> {
        match self.reason {
            DOCUMENT_INVALID | REVISION_INVALID => before,
            _ => Some(present),
        }
    }
}

/// What is to be recorded of an object that may be acted on.
///
/// # Errors
/// When it changes what is recorded and may not change.
pub(crate) fn take_up<K: Fixed>(
    object: &Stored<K>,
    uid: &str,
    recorded: Option<&FixedFields>,
) -> Result<FixedFields, Unusable> {
    let now = FixedFields::of(uid, &object.value);
    let changes = recorded.map(|r| r.changed_by(&object.value, &now));
    let Some(changes) = changes.filter(|all| !all.is_empty()) else {
        return Ok(now);
    };
    let all: Vec<String> = changes.iter().map(ToString::to_string).collect();
    Err(Unusable {
        reason: fixed::CHANGED,
        message: format!(
            "{}; put it back, or delete the object and apply it again",
            all.join("; ")
        ),
    })
}

/// Sets or removes the condition about an older workload that selects the same pods.
pub(crate) fn set_overlap(
    conditions: &mut Vec<WorkloadCondition>,
    overlap: Option<&String>,
    now: Timestamp,
) {
    let finding =
        overlap.map(|message| Finding::new(SELECTOR_OVERLAP, true, OVERLAPS, message.as_str()));
    conditions::set_or_remove(conditions, SELECTOR_OVERLAP, finding, now);
}

/// A status with conditions.
pub(crate) trait Conditions {
    /// What is so or not.
    fn conditions(&self) -> &[WorkloadCondition];
    /// What may not change of the object that it is about.
    fn fixed(&self) -> Option<&FixedFields>;
    /// The rollout that was taken back.
    fn rollback(&self) -> Option<&RollbackRecord>;
}

/// Whether a status is about the object of this uid, as far as is known: one that a former object of the name has left
/// behind is not.
pub(crate) fn is_of(status: &impl Conditions, uid: &str) -> bool {
    uid.is_empty() || status.fixed().is_none_or(|fixed| fixed.of == uid)
}

macro_rules! conditions {
    ($($status:ty: $rollback:expr),*) => {
        $(impl Conditions for $status {
            fn conditions(&self) -> &[WorkloadCondition] {
                &self.conditions
            }

            fn fixed(&self) -> Option<&FixedFields> {
                self.fixed.as_ref()
            }

            fn rollback(&self) -> Option<&RollbackRecord> {
                let of: fn(&Self) -> Option<&RollbackRecord> = $rollback;
                of(self)
            }
        })*
    };
}

conditions!(
    DeploymentStatus: |s| s.rollback.as_ref(),
    ReplicaSetStatus: |_| None,
    StatefulSetStatus: |s| s.rollback.as_ref(),
    DaemonSetStatus: |s| s.rollback.as_ref()
);

/// Tells people what a status that has just been written says for the first time: that the object cannot be acted on, that
/// it overlaps with another, that its autoscaler cannot be read, that a rollout is taken back. What is decided and not
/// written yet is decided again in the next pass, so it is told with that.
pub(crate) fn tell<K: Kind>(
    recorder: &Recorder,
    key: &ObjectKey,
    uid: &str,
    before: Option<&K::Status>,
    now: Option<&K::Status>,
) where
    K::Status: Conditions,
{
    for (reason, message) in now.map(|now| news(before, now)).unwrap_or_default() {
        info!(object = %key, reason, message, "people are told");
        recorder.warning(EventRef::of::<K>(key, uid), reason, message);
    }
}

/// Reasons and sentences for what one status says and the one before did not.
fn news<S: Conditions>(before: Option<&S>, now: &S) -> Vec<(String, String)> {
    let former = before.map(Conditions::conditions).unwrap_or_default();
    let mut news = Vec::new();
    for c in now.conditions() {
        let said = |b: &WorkloadCondition| b.status == c.status && b.message == c.message;
        let new = !conditions::get(former, &c.type_).is_some_and(said);
        if new && c.status == "True" && TOLD.contains(&&*c.type_) {
            let reason = c.reason.clone().unwrap_or_default();
            news.push((reason, c.message.clone().unwrap_or_default()));
        }
    }
    let former = before.and_then(Conditions::rollback);
    let record = now.rollback().filter(|now| former != Some(now));
    news.extend(record.map(rollback::news));
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_says_is_news_once() {
        let record = RollbackRecord {
            failed_revision: "web-b".into(),
            to_revision: "web-a".into(),
            reason: "PodsCrash".into(),
            message: "one does".into(),
            ..RollbackRecord::default()
        };
        let good = DeploymentStatus::default();
        let mut back = good.clone();
        back.rollback = Some(record.clone());
        let told = (
            "RolledBack".to_owned(),
            "web-b has failed, back to web-a: one does".to_owned(),
        );
        assert_eq!(news(None, &back), std::slice::from_ref(&told));
        assert_eq!(news(Some(&good), &back), [told]);
        assert_eq!(news(Some(&back), &back), []);
        assert_eq!(news(Some(&back), &good), []);
        let mut other = back.clone();
        other.rollback = Some(RollbackRecord {
            failed_revision: "web-c".into(),
            ..record
        });
        assert_eq!(news(Some(&back), &other).len(), 1);
    }

    #[test]
    fn a_status_that_a_former_object_of_the_name_left_behind_is_told_from_ones_own() {
        let mut status = DeploymentStatus::default();
        assert!(is_of(&status, "u"), "an older version recorded nothing");
        status.fixed = Some(FixedFields {
            of: "u".into(),
            ..FixedFields::default()
        });
        assert!(is_of(&status, "u") && !is_of(&status, "v"));
        assert!(is_of(&status, ""), "nobody knows whose name it is");
    }
}
