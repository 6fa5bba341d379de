//! SchedulerProfile: what makes a node good, for the pods that name it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::PodSpec;
use crate::kind::{ApiVersion, FieldError, Kind, KindName, NoStatus};
use crate::meta::ObjectMeta;
use crate::records::ScorePart;

/// The name of the built-in profile, which pods without a `schedulerName` have. No stored profile can have it.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// What makes a node good, for the pods whose `schedulerName` is its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulerProfile {
    /// `setpoint.dev/v1`.
    pub api_version: ApiVersion<Self>,
    /// `SchedulerProfile`.
    pub kind: KindName<Self>,
    /// The name is the `schedulerName` of pods.
    pub metadata: ObjectMeta,
    /// What makes a node good.
    #[serde(default)]
    pub spec: SchedulerProfileSpec,
}

impl Kind for SchedulerProfile {
    const API_VERSION: &'static str = "setpoint.dev/v1";
    const KIND: &'static str = "SchedulerProfile";
    const PLURAL: &'static str = "schedulerprofiles";
    const SHORT_NAMES: &'static [&'static str] = &["profile"];
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
        self.spec.strategy.get_or_insert_default();
        let weights = self.spec.weights.get_or_insert_default();
        for part in ScorePart::ALL {
            weights
                .part_mut(part)
                .get_or_insert(i32::from(Weights::default().get(part)));
        }
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::scheduler_profile(self)
    }
}

/// What makes a node good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchedulerProfileSpec {
    /// Which nodes fit best; `LeastAllocated` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<ScoringStrategy>,
    /// How much the parts of a score count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<ProfileWeights>,
}

/// Which nodes fit best.
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
pub enum ScoringStrategy {
    /// Those with most room left: pods spread.
    #[default]
    LeastAllocated,
    /// Those with least room left: pods fill nodes one by one.
    MostAllocated,
    /// Those whose resources are then used to equal parts.
    Balanced,
}

impl ScoringStrategy {
    /// The word as documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastAllocated => "LeastAllocated",
            Self::MostAllocated => "MostAllocated",
            Self::Balanced => "Balanced",
        }
    }
}

impl std::fmt::Display for ScoringStrategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much the parts of a score count, 0 (not at all) to 100 each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileWeights {
    /// How well the pod fits what is free; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<i32>,
    /// Preferred node affinity; 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<i32>,
    /// Preferred pod affinity and anti-affinity; 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_affinity: Option<i32>,
    /// How evenly pods are spread; 2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology_spread: Option<i32>,
    /// Taints that would rather have other pods; 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taint_toleration: Option<i32>,
    /// Images that are there already; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_locality: Option<i32>,
}

impl ProfileWeights {
    /// The weight of a part as the document has it.
    pub fn part(&self, part: ScorePart) -> Option<i32> {
        match part {
            ScorePart::Resources => self.resources,
            ScorePart::NodeAffinity => self.node_affinity,
            ScorePart::PodAffinity => self.pod_affinity,
            ScorePart::TopologySpread => self.topology_spread,
            ScorePart::TaintToleration => self.taint_toleration,
            ScorePart::ImageLocality => self.image_locality,
        }
    }

    fn part_mut(&mut self, part: ScorePart) -> &mut Option<i32> {
        match part {
            ScorePart::Resources => &mut self.resources,
            ScorePart::NodeAffinity => &mut self.node_affinity,
            ScorePart::PodAffinity => &mut self.pod_affinity,
            ScorePart::TopologySpread => &mut self.topology_spread,
            ScorePart::TaintToleration => &mut self.taint_toleration,
            ScorePart::ImageLocality => &mut self.image_locality,
        }
    }
}

/// Weights that are all there and in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weights([u8; ScorePart::ALL.len()]);

impl Weights {
    /// The most that a weight can be.
    pub const MOST: u8 = 100;

    /// The weight of a part.
    pub const fn get(&self, part: ScorePart) -> u8 {
        self.0[part as usize]
    }
}

impl Default for Weights {
    /// Those of the built-in profile.
    fn default() -> Self {
        // In the order of `ScorePart::ALL`. What somebody asked for (affinity, spreading) counts twice what nobody did,
        // and a taint most: Kubernetes' own choice.
        Self([1, 2, 2, 2, 3, 1])
    }
}

/// A profile with nothing left out. The default is the built-in one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Profile {
    /// Which nodes fit best.
    pub strategy: ScoringStrategy,
    /// How much the parts of a score count.
    pub weights: Weights,
}

impl From<&SchedulerProfileSpec> for Profile {
    /// What is absent is as in the built-in profile; what is out of range (documents that were never valid) is capped.
    fn from(spec: &SchedulerProfileSpec) -> Self {
        let mut weights = Weights::default();
        for part in ScorePart::ALL {
            if let Some(weight) = spec.weights.as_ref().and_then(|w| w.part(part)) {
                weights.0[part as usize] = weight.clamp(0, i32::from(Weights::MOST)) as u8;
            }
        }
        Self {
            strategy: spec.strategy.unwrap_or_default(),
            weights,
        }
    }
}

/// The name of the stored profile that a pod asks for; `None` for the built-in one.
pub fn profile_of(spec: &PodSpec) -> Option<&str> {
    spec.scheduler_name
        .as_deref()
        .filter(|name| !name.is_empty() && *name != DEFAULT_SCHEDULER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_profile_leaves_out_is_as_in_the_built_in_one() {
        let text = b"{apiVersion: setpoint.dev/v1, kind: SchedulerProfile, metadata: {name: p}, spec: {strategy: MostAllocated, weights: {podAffinity: 50}}}";
        let p: SchedulerProfile = crate::document::decode(text).unwrap();
        let profile = Profile::from(&p.spec);
        assert_eq!(profile.strategy, ScoringStrategy::MostAllocated);
        assert_eq!(profile.weights.get(ScorePart::PodAffinity), 50);
        assert_eq!(profile.weights.get(ScorePart::TaintToleration), 3);
        assert_eq!(p.spec.weights.unwrap().image_locality, Some(1));
        assert_eq!(
            Profile::from(&SchedulerProfileSpec::default()),
            Profile::default()
        );
    }

    #[test]
    fn the_built_in_profile_has_no_name_and_a_name() {
        let named = |name: Option<&str>| PodSpec {
            scheduler_name: name.map(Into::into),
            ..PodSpec::default()
        };
        for name in [None, Some(""), Some("default-scheduler")] {
            assert_eq!(profile_of(&named(name)), None);
        }
        assert_eq!(profile_of(&named(Some("batch"))), Some("batch"));
    }
}
