//! PodGroup: pods that are placed together or not at all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::{Condition, ObjectMeta};

/// The label by which a pod belongs to the PodGroup of that name in its namespace.
pub const POD_GROUP_LABEL: &str = "setpoint.dev/pod-group";

/// Pods that are placed together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodGroup {
    /// `setpoint.dev/v1`.
    pub api_version: ApiVersion<Self>,
    /// `PodGroup`.
    pub kind: KindName<Self>,
    /// Name and labels. Pods belong to it by the label `setpoint.dev/pod-group`.
    pub metadata: ObjectMeta,
    /// How many pods at least.
    pub spec: PodGroupSpec,
}

impl Kind for PodGroup {
    const API_VERSION: &'static str = "setpoint.dev/v1";
    const KIND: &'static str = "PodGroup";
    const PLURAL: &'static str = "podgroups";
    const SHORT_NAMES: &'static [&'static str] = &["pg"];
    type Status = PodGroupStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::pod_group(self)
    }
}

/// How many pods are placed together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupSpec {
    /// The least number of pods that are placed together: while fewer exist, or fewer fit, none is placed. Further pods
    /// are placed one by one.
    pub min_member: i32,
    /// Seconds that a group that is placed in several steps may take until all its bindings stand; then those that do
    /// are taken back. The scheduler's own limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_timeout_seconds: Option<i32>,
}

/// Where in its life a group is.
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
pub enum PodGroupPhase {
    /// Fewer pods exist than `minMember`.
    #[default]
    Incomplete,
    /// Enough pods exist; they do not all fit yet.
    Pending,
    /// Bindings are being made: not all stand yet.
    Placing,
    /// At least `minMember` pods are bound.
    Placed,
}

impl PodGroupPhase {
    /// The word as documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "Incomplete",
            Self::Pending => "Pending",
            Self::Placing => "Placing",
            Self::Placed => "Placed",
        }
    }
}

impl std::fmt::Display for PodGroupPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is, of a group. Written by the scheduler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodGroupStatus {
    /// The generation of the group that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where in its life the group is.
    #[serde(default)]
    pub phase: PodGroupPhase,
    /// How many pods belong to it.
    #[serde(default)]
    pub members: i32,
    /// How many of them are bound.
    #[serde(default)]
    pub bound: i32,
    /// `Placed`, with what stands in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The PodGroup that a pod belongs to.
pub fn pod_group_of(metadata: &ObjectMeta) -> Option<&str> {
    metadata
        .labels
        .get(POD_GROUP_LABEL)
        .map(String::as_str)
        .filter(|name| !name.is_empty())
}
