//! What disruption budgets allow.

use std::collections::BTreeMap;

use setpoint_apis::ObjectKey;
use setpoint_apis::records::PodStage;
use setpoint_apis::resolve::{self, Disruption, PodHealth};
use setpoint_scheduler_core::BudgetState;

use crate::world::{KnownPod, World};

/// What disruption budgets still allow, by the pods that they are about.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    by_pod: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    left: BTreeMap<ObjectKey, u32>,
}

impl Budgets {
    /// What the budgets of a world allow. The pods that are there count as those that are wanted.
    pub(crate) fn of_world(world: &World) -> Self {
        let mut budgets = Self::default();
        for (key, budget) in &world.budgets {
            let pods: Vec<(&ObjectKey, PodHealth)> = world
                .pods
                .iter()
                .filter(|(_, known)| {
                    known
                        .pod
                        .as_ref()
                        .is_some_and(|p| resolve::selects(budget, &p.metadata))
                        && !known.is_finished()
                })
                .map(|(pod, known)| (pod, health(known)))
                .collect();
            let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
            let ready = pods.iter().filter(|(_, h)| *h == PodHealth::Ready).count();
            let now = resolve::allowance(
                &budget.spec,
                count(pods.len()),
                count(pods.len()),
                count(ready),
            );
            for (pod, health) in pods {
                if resolve::disruption(&budget.spec, now, health) != Disruption::Free {
                    let of_pod = budgets.by_pod.entry(pod.clone()).or_default();
                    of_pod.push(key.clone());
                }
            }
            let left = u32::try_from(now.disruptions_allowed).unwrap_or(0);
            budgets.left.insert(key.clone(), left);
        }
        budgets
    }

    /// What the budgets say of a pod.
    pub(crate) fn of(&self, pod: &ObjectKey) -> BudgetState {
        let keys = self.by_pod.get(pod).into_iter().flatten();
        BudgetState {
            budgets: keys
                .map(|k| (k.clone(), self.left.get(k).copied().unwrap_or(0)))
                .collect(),
        }
    }

    /// A pod goes: what it counted for is used up.
    pub(crate) fn spend(&mut self, pod: &ObjectKey) {
        for budget in self.by_pod.remove(pod).into_iter().flatten() {
            if let Some(left) = self.left.get_mut(&budget) {
                *left = left.saturating_sub(1);
            }
        }
    }
}

fn health(known: &KnownPod) -> PodHealth {
    match known.report() {
        Some(actual) if actual.is_ready() => PodHealth::Ready,
        Some(actual) if matches!(actual.stage, PodStage::Starting | PodStage::Running) => {
            PodHealth::Unready
        }
        _ => PodHealth::Idle,
    }
}
