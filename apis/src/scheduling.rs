//! PriorityClass (`scheduling.k8s.io/v1`): names for priorities.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::PreemptionPolicy;
use crate::kind::{ApiVersion, FieldError, Kind, KindName, NoStatus};
use crate::meta::ObjectMeta;

/// The greatest priority that a user may give. What is above is for the system's own classes.
pub const HIGHEST_USER_PRIORITY: i32 = 1_000_000_000;

/// Pods that the cluster cannot do without.
pub const SYSTEM_CLUSTER_CRITICAL: &str = "system-cluster-critical";

/// Pods that their node cannot do without.
pub const SYSTEM_NODE_CRITICAL: &str = "system-node-critical";

/// What the names of the system's own classes begin with.
pub(crate) const SYSTEM_PREFIX: &str = "system-";

/// A name for a priority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriorityClass {
    /// `scheduling.k8s.io/v1`.
    pub api_version: ApiVersion<Self>,
    /// `PriorityClass`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// The priority: of two pods the one with more is placed first, and the one with less gives way.
    pub value: i32,
    /// Whether pods without a class have this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_default: Option<bool>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether its pods may displace others; `PreemptLowerPriority` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_policy: Option<PreemptionPolicy>,
}

impl Kind for PriorityClass {
    const API_VERSION: &'static str = "scheduling.k8s.io/v1";
    const KIND: &'static str = "PriorityClass";
    const PLURAL: &'static str = "priorityclasses";
    const SHORT_NAMES: &'static [&'static str] = &["pc"];
    const NAMESPACED: bool = false;
    type Status = NoStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        self.preemption_policy.get_or_insert_default();
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::priority_class(self)
    }
}

impl PriorityClass {
    /// Whether pods without a class have this one.
    pub fn is_global_default(&self) -> bool {
        self.global_default == Some(true)
    }

    /// Whether its pods may displace others.
    pub fn preemption_policy(&self) -> PreemptionPolicy {
        self.preemption_policy.unwrap_or_default()
    }
}

/// The classes that are there without anybody having stored them.
pub fn system_priority(name: &str) -> Option<i32> {
    match name {
        SYSTEM_CLUSTER_CRITICAL => Some(2 * HIGHEST_USER_PRIORITY),
        SYSTEM_NODE_CRITICAL => Some(2 * HIGHEST_USER_PRIORITY + 1000),
        _ => None,
    }
}
