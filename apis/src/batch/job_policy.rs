//! What a Job makes of pods that fail, and when it has succeeded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which failures of pods count, and which end the Job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodFailurePolicy {
    /// The first that fits says what to do. A failure that none fits counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PodFailurePolicyRule>,
}

/// What to do with some failures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodFailurePolicyRule {
    /// What to do.
    pub action: PodFailurePolicyAction,
    /// It fits by how containers ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exit_codes: Option<PodFailurePolicyOnExitCodesRequirement>,
    /// It fits when the pod has one of these conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_pod_conditions: Vec<PodFailurePolicyOnPodConditionsPattern>,
}

/// What to do with a failure.
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
pub enum PodFailurePolicyAction {
    /// It counts against the limits.
    #[default]
    Count,
    /// It does not count.
    Ignore,
    /// The number of the pod has failed.
    FailIndex,
    /// The Job has failed.
    FailJob,
}

impl PodFailurePolicyAction {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Ignore => "Ignore",
            Self::FailIndex => "FailIndex",
            Self::FailJob => "FailJob",
        }
    }
}

impl std::fmt::Display for PodFailurePolicyAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How containers ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodFailurePolicyOnExitCodesRequirement {
    /// Which container. Any, when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Whether the code is one of `values`.
    pub operator: ExitCodeOperator,
    /// Exit codes, in rising order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<i32>,
}

/// Whether an exit code is one of some.
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
pub enum ExitCodeOperator {
    /// It is one of them. Then 0 is not possible.
    #[default]
    In,
    /// It is neither one of them nor 0.
    NotIn,
}

impl ExitCodeOperator {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
        }
    }
}

impl std::fmt::Display for ExitCodeOperator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodFailurePolicyOnPodConditionsPattern {
    /// Its type: `DisruptionTarget`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`; `True` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// When a Job has succeeded, before all numbers have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuccessPolicy {
    /// One that holds is enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<SuccessPolicyRule>,
}

/// One way in which a Job has succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuccessPolicyRule {
    /// The numbers that it is about: `0,2-4`; all, when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_indexes: Option<String>,
    /// How many of them must succeed; all, when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_count: Option<i32>,
}

/// When a pod is replaced.
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
pub enum PodReplacementPolicy {
    /// As soon as it is to go, or has failed.
    #[default]
    TerminatingOrFailed,
    /// When it has ended.
    Failed,
}

impl PodReplacementPolicy {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TerminatingOrFailed => "TerminatingOrFailed",
            Self::Failed => "Failed",
        }
    }
}

impl std::fmt::Display for PodReplacementPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
