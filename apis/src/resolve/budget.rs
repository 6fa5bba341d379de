//! What a disruption budget lets go.

use crate::int_or_string::IntOrString;
use crate::meta::ObjectMeta;
use crate::policy::{PodDisruptionBudget, PodDisruptionBudgetSpec, UnhealthyPodEvictionPolicy};
use crate::records::{PodActual, PodStage};

/// Whether a budget is about a pod.
pub fn selects(budget: &PodDisruptionBudget, pod: &ObjectMeta) -> bool {
    budget.metadata.namespace == pod.namespace
        && budget
            .spec
            .selector
            .as_ref()
            .is_some_and(|s| s.matches(&pod.labels))
}

/// What a budget amounts to at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// How many pods are ready.
    pub current_healthy: i32,
    /// How many must be.
    pub desired_healthy: i32,
    /// How many ready pods may be taken down now.
    pub disruptions_allowed: i32,
}

/// What a budget amounts to when its pods are `pods` in number, their owners want `wanted` of them, and `healthy` are
/// ready.
///
/// A number in `minAvailable` counts among the pods there are. `maxUnavailable` and percentages count among those that
/// are wanted, so that pods that are missing already count as taken down; percentages are rounded up.
pub fn allowance(
    spec: &PodDisruptionBudgetSpec,
    pods: i32,
    wanted: i32,
    healthy: i32,
) -> Allowance {
    // A text that is no percentage is never valid. Nothing may go by it.
    let scaled = |amount: &IntOrString| amount.scaled(wanted, true).ok();
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (
            wanted,
            scaled(most).map(|most| wanted.saturating_sub(most).max(0)),
        ),
        (None, Some(IntOrString::Int(least))) => (pods, Some(*least)),
        (None, Some(percent)) => (wanted, scaled(percent)),
        (None, None) => (0, Some(0)),
    };
    let desired = desired.unwrap_or(i32::MAX);
    let allowed = if expected > 0 {
        healthy.saturating_sub(desired).max(0)
    } else {
        0
    };
    Allowance {
        current_healthy: healthy,
        desired_healthy: desired,
        disruptions_allowed: allowed,
    }
}

/// What a pod does, as budgets see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodHealth {
    /// It has not been started, has ended, or is being stopped: taking it down disrupts nothing.
    Idle,
    /// It runs and is not ready.
    Unready,
    /// It runs and is ready.
    Ready,
}

impl PodHealth {
    /// How a pod is that has a node and keeps it, by what the node reports, if anything; `alive`: whether the node's session
    /// is. `None` when the pod has ended.
    pub fn reported(report: Option<&PodActual>, alive: bool) -> Option<Self> {
        let Some(report) = report else {
            return Some(Self::Idle);
        };
        match report.stage {
            PodStage::Succeeded | PodStage::Failed => None,
            PodStage::Running if alive && report.is_ready() => Some(Self::Ready),
            PodStage::Running => Some(Self::Unready),
            _ => Some(Self::Idle),
        }
    }
}

/// What a budget says to taking one pod down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disruption {
    /// It may go, and costs nothing.
    Free,
    /// It may go, and one disruption less is allowed then.
    Spends,
    /// It may not go now.
    Refused,
}

/// What a budget says to taking one of its pods down.
pub fn disruption(spec: &PodDisruptionBudgetSpec, now: Allowance, pod: PodHealth) -> Disruption {
    let policy = spec.unhealthy_pod_eviction_policy.unwrap_or_default();
    let free = match (pod, policy) {
        (PodHealth::Idle, _) | (PodHealth::Unready, UnhealthyPodEvictionPolicy::AlwaysAllow) => {
            true
        }
        (PodHealth::Unready, UnhealthyPodEvictionPolicy::IfHealthyBudget) => {
            now.desired_healthy > 0 && now.current_healthy >= now.desired_healthy
        }
        (PodHealth::Ready, _) => false,
    };
    if free {
        Disruption::Free
    } else if now.disruptions_allowed > 0 {
        Disruption::Spends
    } else {
        Disruption::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> PodDisruptionBudgetSpec {
        crate::document::decode_value(yaml.as_bytes()).unwrap()
    }

    #[test]
    fn budgets_count_as_kubernetes_does() {
        // Budget; pods, wanted, ready; must be ready, may go.
        for (yaml, (pods, wanted, ready), (desired, allowed)) in [
            ("{minAvailable: 2}", (3, 3, 3), (2, 1)),
            ("{minAvailable: 2}", (3, 3, 2), (2, 0)),
            ("{minAvailable: 2}", (3, 3, 0), (2, 0)),
            ("{minAvailable: 0}", (3, 3, 3), (0, 3)),
            // Half of seven is four.
            ("{minAvailable: 50%}", (7, 7, 7), (4, 3)),
            ("{minAvailable: 100%}", (7, 7, 7), (7, 0)),
            // Pods that are missing already are unavailable.
            ("{minAvailable: 50%}", (5, 7, 5), (4, 1)),
            ("{maxUnavailable: 1}", (3, 3, 3), (2, 1)),
            ("{maxUnavailable: 1}", (2, 3, 2), (2, 0)),
            ("{maxUnavailable: 30%}", (7, 7, 7), (4, 3)),
            ("{maxUnavailable: 0}", (3, 3, 3), (3, 0)),
            ("{maxUnavailable: 9}", (3, 3, 3), (0, 3)),
            ("{minAvailable: 1}", (0, 0, 0), (1, 0)),
            ("{minAvailable: 2147483647}", (3, 3, 3), (i32::MAX, 0)),
            ("{minAvailable: x}", (3, 3, 3), (i32::MAX, 0)),
            ("{}", (3, 3, 3), (0, 0)),
        ] {
            let a = allowance(&spec(yaml), pods, wanted, ready);
            assert_eq!(
                (a.desired_healthy, a.disruptions_allowed),
                (desired, allowed),
                "{yaml} {pods} {wanted} {ready}"
            );
        }
    }

    #[test]
    fn pods_that_serve_nobody_go_by_the_policy() {
        let careful = spec("{minAvailable: 2}");
        let free = spec("{minAvailable: 2, unhealthyPodEvictionPolicy: AlwaysAllow}");
        let at =
            |s: &PodDisruptionBudgetSpec, ready, pod| disruption(s, allowance(s, 3, 3, ready), pod);
        assert_eq!(at(&careful, 3, PodHealth::Ready), Disruption::Spends);
        assert_eq!(at(&careful, 2, PodHealth::Ready), Disruption::Refused);
        assert_eq!(at(&careful, 2, PodHealth::Unready), Disruption::Free);
        assert_eq!(at(&careful, 1, PodHealth::Unready), Disruption::Refused);
        assert_eq!(at(&free, 1, PodHealth::Unready), Disruption::Free);
        assert_eq!(at(&free, 2, PodHealth::Ready), Disruption::Refused);
        assert_eq!(at(&careful, 0, PodHealth::Idle), Disruption::Free);
    }

    #[test]
    fn a_budget_without_a_selector_is_about_no_pod_and_with_an_empty_one_about_all() {
        let mut budget = PodDisruptionBudget::default();
        budget.metadata.namespace = "a".into();
        let mut pod = ObjectMeta {
            namespace: "a".into(),
            ..ObjectMeta::default()
        };
        assert!(!selects(&budget, &pod));
        budget.spec.selector = Some(Default::default());
        assert!(selects(&budget, &pod));
        pod.namespace = "b".into();
        assert!(!selects(&budget, &pod));
    }
}
