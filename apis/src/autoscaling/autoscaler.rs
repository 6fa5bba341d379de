//! HorizontalPodAutoscaler: between which numbers a workload is scaled, and by what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::behavior::HorizontalPodAutoscalerBehavior;
use super::metric::{CrossVersionObjectReference, MetricSpec};
use super::metric_status::MetricStatus;
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::{Condition, ObjectMeta};
use crate::time::Timestamp;

/// Says how many pods a workload has, from what is measured of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HorizontalPodAutoscaler {
    /// `autoscaling/v2`.
    pub api_version: ApiVersion<Self>,
    /// `HorizontalPodAutoscaler`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// Which workload, between which numbers, by what.
    pub spec: HorizontalPodAutoscalerSpec,
}

impl Kind for HorizontalPodAutoscaler {
    const API_VERSION: &'static str = "autoscaling/v2";
    const KIND: &'static str = "HorizontalPodAutoscaler";
    const PLURAL: &'static str = "horizontalpodautoscalers";
    const SHORT_NAMES: &'static [&'static str] = &["hpa"];
    type Status = HorizontalPodAutoscalerStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        crate::defaults::autoscaler(&mut self.spec);
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::autoscaler(self)
    }
}

/// Which workload is scaled, between which numbers, by what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HorizontalPodAutoscalerSpec {
    /// Which workload.
    pub scale_target_ref: CrossVersionObjectReference,
    /// The least; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    /// The most.
    pub max_replicas: i32,
    /// What it is scaled by: the one that wants the most decides. By default the cpu, to 80 %.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricSpec>,
    /// How fast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

impl HorizontalPodAutoscalerSpec {
    /// How many pods a workload is to have whose document asks for `asked`: that, before the autoscaler has decided, and
    /// when it is not above 0, which switches the autoscaler off, as in Kubernetes. Otherwise what it has decided.
    pub fn wanted(&self, asked: i32, recorded: Option<&HorizontalPodAutoscalerStatus>) -> i32 {
        let decided = recorded.and_then(|recorded| self.decided(recorded));
        decided.filter(|_| asked > 0).unwrap_or(asked)
    }

    /// What the autoscaler has recorded, within its bounds; `None` before it has decided.
    pub fn decided(&self, recorded: &HorizontalPodAutoscalerStatus) -> Option<i32> {
        let least = self.min_replicas.unwrap_or(1).max(0);
        match recorded.desired_replicas {
            0 if least > 0 => None,
            n => Some(n.clamp(least, self.max_replicas.max(least))),
        }
    }
}

/// What the autoscaler has decided: the record that controllers of workloads read the number of pods from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HorizontalPodAutoscalerStatus {
    /// The generation it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the number last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scale_time: Option<Timestamp>,
    /// How many pods there were when it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_replicas: Option<i32>,
    /// How many there should be.
    #[serde(default)]
    pub desired_replicas: i32,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub current_metrics: Vec<MetricStatus>,
    /// `AbleToScale`, `ScalingActive`, `ScalingLimited`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
