//! Disruption budgets as the core asks for them.

use setpoint_apis::ObjectKey;
use setpoint_scheduler_check::Budgets;
use setpoint_scheduler_core::BudgetState;

/// What the budgets say of each pod.
pub(crate) fn states(budgets: &Budgets) -> impl Fn(&ObjectKey) -> BudgetState + '_ {
    |pod| BudgetState {
        budgets: budgets
            .budgets
            .iter()
            .filter(|(_, (covered, _))| covered.contains(pod))
            .map(|(name, (_, allowed))| (ObjectKey::namespaced("default", name.as_str()), *allowed))
            .collect(),
    }
}
