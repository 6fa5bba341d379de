//! CronJob: Jobs at times of the clock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job::JobSpec;
use crate::apps::WorkloadCondition;
use crate::core::ObjectReference;
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::ObjectMeta;
use crate::time::Timestamp;

/// Jobs of one template, made at times of the clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronJob {
    /// `batch/v1`.
    pub api_version: ApiVersion<Self>,
    /// `CronJob`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// When, and what.
    pub spec: CronJobSpec,
}

impl Kind for CronJob {
    const API_VERSION: &'static str = "batch/v1";
    const KIND: &'static str = "CronJob";
    const PLURAL: &'static str = "cronjobs";
    const SHORT_NAMES: &'static [&'static str] = &["cj"];
    type Status = CronJobStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        crate::defaults::cron_job(&mut self.spec);
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::cron_job(self)
    }
}

/// When Jobs are made, and from what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronJobSpec {
    /// When, in five fields: minute, hour, day of the month, month, day of the week; or `@hourly`, `@daily`, ...
    pub schedule: String,
    /// Where the clock is: `Europe/Berlin`; UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Seconds after its time when a Job is still made. Without limit, when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline_seconds: Option<i64>,
    /// What to do when the Job before still runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,
    /// Whether no Jobs are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What Jobs are made from.
    pub job_template: JobTemplateSpec,
    /// How many Jobs that are complete are kept; 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successful_jobs_history_limit: Option<i32>,
    /// How many Jobs that have failed are kept; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_jobs_history_limit: Option<i32>,
}

/// What to do when the Job before still runs.
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
pub enum ConcurrencyPolicy {
    /// Both run.
    #[default]
    Allow,
    /// The new one is left out.
    Forbid,
    /// The old one is deleted.
    Replace,
}

impl ConcurrencyPolicy {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Forbid => "Forbid",
            Self::Replace => "Replace",
        }
    }
}

impl std::fmt::Display for ConcurrencyPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a Job is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplateSpec {
    /// Labels and annotations of the Jobs.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The spec of the Jobs.
    pub spec: JobSpec,
}

/// What is, of a CronJob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CronJobStatus {
    /// The Jobs that run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<ObjectReference>,
    /// The last time for which a Job was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Timestamp>,
    /// When a Job was last complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_time: Option<Timestamp>,
    /// Since when Jobs are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<FirstSeen>,
    /// `Invalid`: the document cannot be used, so no Jobs are made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<WorkloadCondition>,
}

/// Since when Jobs of a CronJob are made: nothing in a document says when it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirstSeen {
    /// The uid of the CronJob that the status is about: another one of its name begins with nothing.
    pub uid: String,
    /// When a controller saw it first.
    pub at: Timestamp,
}
