//! DaemonSet: one pod on every node that takes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::{FormerRevision, RollbackRecord, WorkloadCondition};
use crate::core::PodTemplateSpec;
use crate::fixed::FixedFields;
use crate::int_or_string::IntOrString;
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::ObjectMeta;
use crate::selector::LabelSelector;

/// One pod of a template on every node that takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonSet {
    /// `apps/v1`.
    pub api_version: ApiVersion<Self>,
    /// `DaemonSet`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// Of what.
    pub spec: DaemonSetSpec,
}

impl Kind for DaemonSet {
    const API_VERSION: &'static str = "apps/v1";
    const KIND: &'static str = "DaemonSet";
    const PLURAL: &'static str = "daemonsets";
    const SHORT_NAMES: &'static [&'static str] = &["ds"];
    type Status = DaemonSetStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        crate::defaults::daemon_set(&mut self.spec);
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::daemon_set(self)
    }

    fn immutable_changes(&self, new: &Self) -> Vec<FieldError> {
        crate::validation::immutable::daemon_set(self, new)
    }
}

/// One pod per node: of what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonSetSpec {
    /// Which pods; never changes.
    pub selector: LabelSelector,
    /// What they are made from. Its node selector and affinity choose the nodes.
    pub template: PodTemplateSpec,
    /// How pods are replaced by newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<DaemonSetUpdateStrategy>,
    /// Seconds a pod must be ready before it counts as available; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// How many old ControllerRevisions are kept; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
}

/// How pods are replaced by newer ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonSetUpdateStrategy {
    /// `RollingUpdate` by default.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub type_: Option<DaemonSetUpdateStrategyType>,
    /// For `RollingUpdate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdateDaemonSet>,
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
pub enum DaemonSetUpdateStrategyType {
    /// A few nodes at a time.
    #[default]
    RollingUpdate,
    /// When somebody deletes them.
    OnDelete,
}

impl DaemonSetUpdateStrategyType {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RollingUpdate => "RollingUpdate",
            Self::OnDelete => "OnDelete",
        }
    }
}

impl std::fmt::Display for DaemonSetUpdateStrategyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many nodes at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdateDaemonSet {
    /// On how many nodes the pod may be missing; 1 by default. A percentage is rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// On how many nodes a new pod may run beside the old one; 0 by default. A percentage is rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,
}

/// What is, of a DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DaemonSetStatus {
    /// The generation it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nodes that should have a pod.
    #[serde(default)]
    pub desired_number_scheduled: i32,
    /// Of them, those that have one.
    #[serde(default)]
    pub current_number_scheduled: i32,
    /// Nodes that have one and should not.
    #[serde(default)]
    pub number_misscheduled: i32,
    /// Nodes that should have one and have one that is ready.
    #[serde(default)]
    pub number_ready: i32,
    /// Nodes with a pod of the template that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_number_scheduled: Option<i32>,
    /// Nodes with a pod of the revision that runs instead, while a rollback is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted_number_scheduled: Option<i32>,
    /// Nodes that should have one and have one that is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_available: Option<i32>,
    /// Nodes that should have one and have none that is available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number_unavailable: Option<i32>,
    /// Hashes that were taken already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// What is so or not.
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
    /// What may not change of it, as its controller has taken it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<FixedFields>,
}
