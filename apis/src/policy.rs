//! PodDisruptionBudget (`policy/v1`): how many pods of a kind may be taken down at once.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::int_or_string::IntOrString;
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::{Condition, ObjectMeta};
use crate::selector::LabelSelector;
use crate::time::Timestamp;

/// How many of the selected pods must stay up when pods are evicted, moved or preempted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodDisruptionBudget {
    /// `policy/v1`.
    pub api_version: ApiVersion<Self>,
    /// `PodDisruptionBudget`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// Which pods, and how many.
    #[serde(default)]
    pub spec: PodDisruptionBudgetSpec,
}

impl Kind for PodDisruptionBudget {
    const API_VERSION: &'static str = "policy/v1";
    const KIND: &'static str = "PodDisruptionBudget";
    const PLURAL: &'static str = "poddisruptionbudgets";
    const SHORT_NAMES: &'static [&'static str] = &["pdb"];
    type Status = PodDisruptionBudgetStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::disruption_budget(self)
    }
}

/// Which pods must stay up, and how many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodDisruptionBudgetSpec {
    /// How many must stay available, as a number or a percentage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_available: Option<IntOrString>,
    /// How many may be unavailable, as a number or a percentage; not together with `minAvailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// The pods: none when absent, all of the namespace when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// When running pods that are not ready may be evicted; `IfHealthyBudget` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_pod_eviction_policy: Option<UnhealthyPodEvictionPolicy>,
}

/// When running pods that are not ready may be evicted.
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
pub enum UnhealthyPodEvictionPolicy {
    /// While enough others are available.
    #[default]
    IfHealthyBudget,
    /// Always.
    AlwaysAllow,
}

impl UnhealthyPodEvictionPolicy {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IfHealthyBudget => "IfHealthyBudget",
            Self::AlwaysAllow => "AlwaysAllow",
        }
    }
}

impl std::fmt::Display for UnhealthyPodEvictionPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is, of a budget. Written by the scheduler, which alone spends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodDisruptionBudgetStatus {
    /// The generation of the budget that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many pods may be taken down now.
    #[serde(default)]
    pub disruptions_allowed: i32,
    /// How many pods are ready.
    #[serde(default)]
    pub current_healthy: i32,
    /// How many must be.
    #[serde(default)]
    pub desired_healthy: i32,
    /// How many pods are counted.
    #[serde(default)]
    pub expected_pods: i32,
    /// Pods that are being taken down and still look ready, with since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disrupted_pods: BTreeMap<String, Timestamp>,
    /// `DisruptionAllowed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
