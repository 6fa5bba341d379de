//! Job: pods that run to their end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job_policy::{PodFailurePolicy, PodReplacementPolicy, SuccessPolicy};
use super::labels;
use crate::core::PodTemplateSpec;
use crate::fixed::FixedFields;
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::ObjectMeta;
use crate::selector::LabelSelector;
use crate::time::Timestamp;

/// Pods of one template that run until enough of them have succeeded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// `batch/v1`.
    pub api_version: ApiVersion<Self>,
    /// `Job`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// How many, of what, and what to do with those that fail.
    pub spec: JobSpec,
}

impl Kind for Job {
    const API_VERSION: &'static str = "batch/v1";
    const KIND: &'static str = "Job";
    const PLURAL: &'static str = "jobs";
    type Status = JobStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        crate::defaults::job(&mut self.spec);
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::job(self)
    }

    fn immutable_changes(&self, new: &Self) -> Vec<FieldError> {
        crate::validation::immutable::job(self, new)
    }
}

/// How many pods must succeed, of what, and what to do with those that fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// How many run at a time; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<i32>,
    /// How many must succeed. Without it, one that succeeds is enough and no more are started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<i32>,
    /// Whether every pod has a number of its own; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_mode: Option<CompletionMode>,
    /// How many pods may fail before the Job does; 6 by default, without limit when there is `backoffLimitPerIndex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<i32>,
    /// How many pods of one number may fail before the number does; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit_per_index: Option<i32>,
    /// How many numbers may fail before the Job does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_indexes: Option<i32>,
    /// Seconds after which the Job has failed, whatever runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// Which failures count, and which end the Job; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_failure_policy: Option<PodFailurePolicy>,
    /// When the Job has succeeded, before all numbers have; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,
    /// When a pod is replaced: as soon as it is to go, or when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_replacement_policy: Option<PodReplacementPolicy>,
    /// Seconds after its end when the Job is deleted. It stays when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<i32>,
    /// Whether nothing runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Which pods, with `manualSelector` alone; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Whether the selector is what the manifest says. By default it is made from the uid of the Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual_selector: Option<bool>,
    /// Which controller looks after the Job: one of another name than `kubernetes.io/job-controller` is left to do all of
    /// it, the status and the TTL too; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// What pods are made from; never changes.
    pub template: PodTemplateSpec,
}

impl JobSpec {
    /// The controller that looks after the Job, when it is not the one of this system.
    pub fn other_manager(&self) -> Option<&str> {
        let manager = self.managed_by.as_deref();
        manager.filter(|m| *m != labels::MANAGED_BY)
    }

    /// The selector that the manifest brings; otherwise the Job's pods are known by its uid.
    pub fn own_selector(&self) -> Option<&LabelSelector> {
        let manual = self.manual_selector == Some(true);
        self.selector.as_ref().filter(|_| manual)
    }

    /// How many pods run at a time.
    pub fn parallelism(&self) -> i32 {
        self.parallelism.unwrap_or(1)
    }

    /// Whether every pod has a number of its own.
    pub fn is_indexed(&self) -> bool {
        self.completion_mode == Some(CompletionMode::Indexed)
    }

    /// Whether nothing runs.
    pub fn is_suspended(&self) -> bool {
        self.suspend == Some(true)
    }
}

/// Whether every pod has a number of its own.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum CompletionMode {
    /// They are all alike.
    #[default]
    NonIndexed,
    /// Numbers from 0 to `completions` - 1; one pod of each must succeed.
    Indexed,
}

impl CompletionMode {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NonIndexed => "NonIndexed",
            Self::Indexed => "Indexed",
        }
    }
}

impl std::fmt::Display for CompletionMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is, of a Job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// Pods that run or wait, and are not to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<i32>,
    /// Of them, ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<i32>,
    /// Pods that are to go and have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminating: Option<i32>,
    /// Pods that have succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<i32>,
    /// Pods that have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<i32>,
    /// When it was first looked after, or last resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it was complete. There is none for a Job that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Timestamp>,
    /// The numbers that have succeeded: `0,2-4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_indexes: Option<String>,
    /// The numbers that have failed: `1,5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_indexes: Option<String>,
    /// `Complete`, `Failed`, `Suspended`, `SuccessCriteriaMet`, `FailureTarget`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<JobCondition>,
    /// Which pods are in `succeeded` and `failed`. Kubernetes marks the pods themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<CountedPods>,
    /// What may not change of it, as its controller has taken it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<FixedFields>,
}

impl JobStatus {
    /// Whether a condition is so.
    pub fn is(&self, type_: &str) -> bool {
        self.conditions
            .iter()
            .any(|c| c.type_ == type_ && c.status == "True")
    }

    /// Whether the Job is complete or has failed.
    pub fn is_finished(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }
}

/// One thing about a Job that is so or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobCondition {
    /// `Complete`, ...
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
    /// When it was last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Timestamp>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
}

/// Which pods of a Job are counted.
///
/// Every pod that is made for a Job has a number of its own, [`JOB_POD_NUMBER`](super::labels::JOB_POD_NUMBER). So what is
/// counted is a few ranges however many pods there are, and stands in the same value as the counts themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountedPods {
    /// The uid of the Job that the status is about: another Job of its name begins with nothing.
    pub of: String,
    /// The numbers of the pods that are counted: `0-16,18`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pods: String,
    /// The uids of those that are counted, still there, and without a number: the Job has adopted them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<String>,
}
