//! StatefulSet: pods with stable names and volumes of their own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition::{FormerRevision, RollbackRecord, WorkloadCondition};
use crate::core::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec};
use crate::fixed::FixedFields;
use crate::int_or_string::IntOrString;
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::ObjectMeta;
use crate::selector::LabelSelector;

/// Pods of one template, each with a number, a name that stays and volumes that stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSet {
    /// `apps/v1`.
    pub api_version: ApiVersion<Self>,
    /// `StatefulSet`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// How many, of what, in which order.
    pub spec: StatefulSetSpec,
}

impl Kind for StatefulSet {
    const API_VERSION: &'static str = "apps/v1";
    const KIND: &'static str = "StatefulSet";
    const PLURAL: &'static str = "statefulsets";
    const SHORT_NAMES: &'static [&'static str] = &["sts"];
    type Status = StatefulSetStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        crate::defaults::stateful_set(&mut self.spec);
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::stateful_set(self)
    }

    fn immutable_changes(&self, new: &Self) -> Vec<FieldError> {
        crate::validation::immutable::stateful_set(self, new)
    }
}

/// How many pods, of what, in which order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetSpec {
    /// How many; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Which pods; never changes.
    pub selector: LabelSelector,
    /// What they are made from.
    pub template: PodTemplateSpec,
    /// The service that gives the pods their names in DNS; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Whether pods come and go one after the other; never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_management_policy: Option<PodManagementPolicy>,
    /// How pods are replaced by newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<StatefulSetUpdateStrategy>,
    /// Seconds a pod must be ready before it counts as available; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// How many old ControllerRevisions are kept; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
    /// Which number the first pod has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<StatefulSetOrdinals>,
    /// The claims that every pod gets for itself, which outlive it; never change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_templates: Vec<VolumeClaimTemplate>,
    /// When these claims go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_retention_policy:
        Option<StatefulSetPersistentVolumeClaimRetentionPolicy>,
}

impl StatefulSetSpec {
    /// How many pods.
    pub fn replicas(&self) -> i32 {
        self.replicas.unwrap_or(1)
    }

    /// The number of the first pod.
    pub fn first_ordinal(&self) -> i32 {
        self.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
    }

    /// Whether pods come and go one after the other.
    pub fn is_ordered(&self) -> bool {
        self.pod_management_policy.unwrap_or_default() == PodManagementPolicy::OrderedReady
    }

    /// Whether the controller replaces pods itself.
    pub fn is_rolling(&self) -> bool {
        let type_ = self.update_strategy.as_ref().and_then(|s| s.type_);
        type_.unwrap_or_default() == StatefulSetUpdateStrategyType::RollingUpdate
    }

    /// The lowest number whose pod is replaced by a newer one.
    pub fn partition(&self) -> i32 {
        let rolling = self
            .update_strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        rolling.and_then(|r| r.partition).unwrap_or(0)
    }
}

/// Whether pods come and go one after the other.
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
pub enum PodManagementPolicy {
    /// From the lowest number up, each when the one before is ready; down from the highest.
    #[default]
    OrderedReady,
    /// All at once.
    Parallel,
}

impl PodManagementPolicy {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderedReady => "OrderedReady",
            Self::Parallel => "Parallel",
        }
    }
}

impl std::fmt::Display for PodManagementPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How pods are replaced by newer ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetUpdateStrategy {
    /// `RollingUpdate` by default.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub type_: Option<StatefulSetUpdateStrategyType>,
    /// For `RollingUpdate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdateStatefulSet>,
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
pub enum StatefulSetUpdateStrategyType {
    /// From the highest number down, each when the one before is available.
    #[default]
    RollingUpdate,
    /// When somebody deletes them.
    OnDelete,
}

impl StatefulSetUpdateStrategyType {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RollingUpdate => "RollingUpdate",
            Self::OnDelete => "OnDelete",
        }
    }
}

impl std::fmt::Display for StatefulSetUpdateStrategyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far, and how many at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdateStatefulSet {
    /// Pods with a lower number stay as they are; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// How many may be missing at a time; 1 by default. A percentage is rounded down, and never 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// Which numbers pods have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetOrdinals {
    /// The first; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i32>,
}

/// What the claim of each pod is made from. It may say that it is a PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaimTemplate {
    /// `v1`.
    #[serde(default)]
    pub api_version: ApiVersion<PersistentVolumeClaim>,
    /// `PersistentVolumeClaim`.
    #[serde(default)]
    pub kind: KindName<PersistentVolumeClaim>,
    /// The name, by which pods mount it, and labels and annotations of the claims.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The spec of the claims.
    #[serde(default)]
    pub spec: PersistentVolumeClaimSpec,
}

impl VolumeClaimTemplate {
    /// The name of the claim that belongs to the pod `pod`.
    pub fn claim_name(&self, pod: &str) -> String {
        format!("{}-{pod}", self.metadata.name)
    }
}

/// When the claims of pods go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetPersistentVolumeClaimRetentionPolicy {
    /// What becomes of them when the StatefulSet is deleted; `Retain` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<ClaimRetention>,
    /// What becomes of those of pods that scaling down has removed; `Retain` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_scaled: Option<ClaimRetention>,
}

/// What becomes of a claim.
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
pub enum ClaimRetention {
    /// It stays.
    #[default]
    Retain,
    /// It goes.
    Delete,
}

impl ClaimRetention {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retain => "Retain",
            Self::Delete => "Delete",
        }
    }
}

impl std::fmt::Display for ClaimRetention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is, of a StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatefulSetStatus {
    /// The generation it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods there are.
    #[serde(default)]
    pub replicas: i32,
    /// Of them, ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Of them, available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
    /// Of them, of `currentRevision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_replicas: Option<i32>,
    /// Of them, of `updateRevision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_replicas: Option<i32>,
    /// The ControllerRevision that all pods had last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// The ControllerRevision of the newest template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
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
    /// How many pods are wanted, when an autoscaler has decided and the document says otherwise or the autoscaler cannot be
    /// read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
    /// What may not change of it, as its controller has taken it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed: Option<FixedFields>,
}
