//! What the statuses of workloads share: conditions, and the record of an automatic rollback.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// One thing about a workload that is so or not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadCondition {
    /// `Available`, ...
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A CamelCase word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Timestamp>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
}

/// An automatic rollback: a rollout failed, and the controller went back to the last revision that was available.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackRecord {
    /// The revision that has failed: the name of its ReplicaSet or ControllerRevision. It is not tried again while it is
    /// the one that is asked for.
    pub failed_revision: String,
    /// The revision that runs instead, named likewise.
    pub to_revision: String,
    /// Why, as a CamelCase word: `ProgressDeadlineExceeded`, `PodsCrash`.
    pub reason: String,
    /// Why, as a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it was decided.
    pub at: Timestamp,
}

/// The revision that was good before the last one: what is gone back to when that one soon proves bad.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FormerRevision {
    /// The name of its ReplicaSet or ControllerRevision.
    pub revision: String,
    /// Since when the last one counts as good.
    pub replaced_at: Timestamp,
}
