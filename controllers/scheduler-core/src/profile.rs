//! How nodes are scored, as far as users choose.

use setpoint_apis::placement::{self, ScoringStrategy};
use setpoint_apis::records::ScorePart;

/// How nodes are scored. The fields are those of the kind SchedulerProfile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Profile {
    /// What is good about free room.
    pub strategy: Strategy,
    /// How much each part of the score counts.
    pub weights: Weights,
}

/// What is good about free room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Nodes of which much is free: pods are spread.
    #[default]
    LeastAllocated,
    /// Nodes of which little is free: pods are packed.
    MostAllocated,
    /// Nodes of which cpu and memory are used to the same share.
    Balanced,
}

/// How much each part of the score counts, 0 to 100 each; the defaults are Kubernetes'. What is outside of the bounds
/// counts as the nearest bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    /// Free room, by the strategy.
    pub resources: i32,
    /// Preferred node affinity.
    pub node_affinity: i32,
    /// Preferred affinity and anti-affinity to pods, in both directions.
    pub pod_affinity: i32,
    /// Spread constraints that may be broken.
    pub spread: i32,
    /// Taints `PreferNoSchedule`.
    pub taints: i32,
    /// Images that are there already.
    pub image_locality: i32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            resources: 1,
            node_affinity: 2,
            pod_affinity: 2,
            spread: 2,
            taints: 3,
            image_locality: 1,
        }
    }
}

impl From<&placement::Profile> for Profile {
    fn from(stored: &placement::Profile) -> Self {
        let weight = |part| i32::from(stored.weights.get(part));
        Self {
            strategy: match stored.strategy {
                ScoringStrategy::LeastAllocated => Strategy::LeastAllocated,
                ScoringStrategy::MostAllocated => Strategy::MostAllocated,
                ScoringStrategy::Balanced => Strategy::Balanced,
            },
            weights: Weights {
                resources: weight(ScorePart::Resources),
                node_affinity: weight(ScorePart::NodeAffinity),
                pod_affinity: weight(ScorePart::PodAffinity),
                spread: weight(ScorePart::TopologySpread),
                taints: weight(ScorePart::TaintToleration),
                image_locality: weight(ScorePart::ImageLocality),
            },
        }
    }
}

impl Weights {
    /// The same within the bounds.
    pub(crate) fn bounded(&self) -> Self {
        let bound = |w: i32| w.clamp(0, 100);
        Self {
            resources: bound(self.resources),
            node_affinity: bound(self.node_affinity),
            pod_affinity: bound(self.pod_affinity),
            spread: bound(self.spread),
            taints: bound(self.taints),
            image_locality: bound(self.image_locality),
        }
    }
}
