//! Deployment: so many pods of one template, and how to go from one template to the next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::{FormerRevision, RollbackRecord, WorkloadCondition};
use crate::core::PodTemplateSpec;
use crate::fixed::FixedFields;
use crate::int_or_string::IntOrString;
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::ObjectMeta;
use crate::selector::LabelSelector;

/// So many pods of one template, and how to go from one template to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// `apps/v1`.
    pub api_version: ApiVersion<Self>,
    /// `Deployment`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// How many, of what.
    pub spec: DeploymentSpec,
}

impl Kind for Deployment {
    const API_VERSION: &'static str = "apps/v1";
    const KIND: &'static str = "Deployment";
    const PLURAL: &'static str = "deployments";
    const SHORT_NAMES: &'static [&'static str] = &["deploy"];
    type Status = DeploymentStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        crate::defaults::deployment(&mut self.spec);
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::deployment(self)
    }

    fn immutable_changes(&self, new: &Self) -> Vec<FieldError> {
        crate::validation::immutable::deployment(self, new)
    }
}

/// How many pods, of what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// How many; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Which pods; never changes.
    pub selector: LabelSelector,
    /// What they are made from.
    pub template: PodTemplateSpec,
    /// How pods are replaced by newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<DeploymentStrategy>,
    /// Seconds a pod must be ready before it counts as available; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// How many old ReplicaSets are kept; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
    /// Seconds without progress after which a rollout has failed; 600 by default. The annotation of StatefulSets and
    /// DaemonSets for that, `setpoint.dev/progress-deadline-seconds`, has no effect here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline_seconds: Option<i32>,
    /// Whether changes of the template wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

impl DeploymentSpec {
    /// How many pods.
    pub fn replicas(&self) -> i32 {
        self.replicas.unwrap_or(1)
    }
}

/// How pods are replaced by newer ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStrategy {
    /// `RollingUpdate` by default.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub type_: Option<DeploymentStrategyType>,
    /// For `RollingUpdate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdateDeployment>,
}

/// How pods are replaced by newer ones.
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
pub enum DeploymentStrategyType {
    /// A few at a time.
    #[default]
    RollingUpdate,
    /// All old ones go first.
    Recreate,
}

impl DeploymentStrategyType {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RollingUpdate => "RollingUpdate",
            Self::Recreate => "Recreate",
        }
    }
}

impl std::fmt::Display for DeploymentStrategyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdateDeployment {
    /// How many may be missing; 25% by default, rounded down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// How many there may be too many; 25% by default, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,
}

/// What is, of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// The generation it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Of them, of the template that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// Of them, of the revision that runs instead, while a rollback is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted_replicas: Option<i32>,
    /// Of them, ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Of them, available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// Pods missing to be available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable_replicas: Option<i32>,
    /// Hashes that were taken already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// `Available`, `Progressing`, `ReplicaFailure`, `AutoscalerInvalid`, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<WorkloadCondition>,
    /// The automatic rollback in force: it ends when another revision is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollbackRecord>,
    /// The last revision of which all pods were available: what a rollout that fails goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_available_revision: Option<String>,
    /// The one before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_available_revision: Option<FormerRevision>,
    /// Which contents of ConfigMaps and Secrets it is about ([`content_seen`](crate::content_seen)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_config: Option<String>,
    /// How many pods are wanted, when an autoscaler has decided and the document says otherwise or the autoscaler cannot be
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// What may not change of it, as its controller has taken it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<FixedFields>,
}
