//! What disruption budgets allow, by the scheduler's own count.

use setpoint_apis::ObjectKey;
use setpoint_apis::resolve::PodHealth;
use setpoint_scheduler_core::BudgetState;
use setpoint_scheduler_core::budgets::{self, Budget, Owner, Seen};

use crate::world::{KnownPod, World};

/// What disruption budgets still allow.
#[derive(Debug, Default)]
pub(crate) struct Budgets(budgets::Budgets);

impl Budgets {
    /// What the budgets of a world allow.
    pub(crate) fn of_world(world: &World) -> Self {
        let mut all = budgets::Budgets::default();
        for (key, budget) in &world.budgets {
            all.set(key, Budget::Is(Box::new(budget.spec.clone())));
        }
        for key in &world.unknown_budgets {
            all.set(key, Budget::Unknown);
        }
        for (key, known) in &world.pods {
            if !all.covers(&key.namespace) {
                continue;
            }
            let (Some(pod), Some(health)) = (&known.pod, health(world, known)) else {
                continue;
            };
            let owner = world.owner(key, pod);
            let owner = owner.map(|(plural, name)| Owner::from(format!("{plural}/{name}")));
            let seen = Seen {
                labels: &pod.metadata.labels,
                health,
                owner: owner.as_ref(),
            };
            all.observe(key, Some(seen));
        }
        let mut scalers = None;
        // By namespace, so that the autoscalers of each are looked through once.
        let mut owners = all.owners();
        owners.sort_unstable();
        for (namespace, owner) in owners {
            let known = scalers
                .take_if(|(of, _)| *of == namespace)
                .unwrap_or_else(|| (namespace.clone(), world.scalers_of(&namespace)));
            let wanted = owner
                .split_once('/')
                .and_then(|workload| world.wanted(&namespace, workload, &known.1));
            all.set_scale(&namespace, &owner, wanted);
            scalers = Some(known);
        }
        Self(all)
    }

    /// What the budgets say of a pod.
    pub(crate) fn of(&self, pod: &ObjectKey) -> BudgetState {
        self.0.state(pod)
    }

    /// A pod goes: it counts as down.
    pub(crate) fn spend(&mut self, pod: &ObjectKey) {
        self.0.disrupt(pod);
    }
}

/// How a pod is, as budgets see it; `None` when it has ended.
fn health(world: &World, known: &KnownPod) -> Option<PodHealth> {
    let binding = known.binding.as_ref().map(|(binding, _)| binding);
    // One that is being withdrawn, or is of a former pod of that name.
    let stays = |b: &&setpoint_apis::records::Binding| {
        b.withdrawn.is_none() && known.created <= b.pod_revision
    };
    let Some(binding) = binding.filter(stays) else {
        return Some(PodHealth::Idle);
    };
    if known.unreadable_reports.contains(&binding.node) {
        return Some(PodHealth::Unready);
    }
    let node = world.nodes.get(&binding.node);
    let alive = node.is_some_and(|node| node.session.is_some());
    PodHealth::reported(known.actual.get(&binding.node), alive)
}
