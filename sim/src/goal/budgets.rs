//! Whether disruption budgets say how their pods are, and no eviction waits that every budget allows.

use std::collections::BTreeMap;

use setpoint_apis::core::Pod;
use setpoint_apis::policy::{
    PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus,
};
use setpoint_apis::records::Intent;
use setpoint_apis::{Key, ObjectKey, StringMap, document};

#[derive(Default)]
pub(super) struct Budgets {
    budgets: BTreeMap<ObjectKey, PodDisruptionBudgetSpec>,
    statuses: BTreeMap<ObjectKey, PodDisruptionBudgetStatus>,
    labels: BTreeMap<ObjectKey, StringMap>,
    /// Pods that are to be evicted, and whether budgets are not heeded.
    asked: BTreeMap<ObjectKey, bool>,
}

impl Budgets {
    /// Takes note of what matters here, and says what cannot be read.
    pub(super) fn take(&mut self, key: &Key<'_>, value: &[u8]) -> Option<String> {
        let good = match key {
            Key::Desired("poddisruptionbudgets", object) => {
                let read = document::decode_keyed::<PodDisruptionBudget>(object, value).ok();
                read.map(|budget| self.budgets.insert(object.clone(), budget.spec))
                    .is_some()
            }
            Key::Actual("poddisruptionbudgets", object) => {
                let read = document::decode_value(value).ok();
                read.map(|status| self.statuses.insert(object.clone(), status))
                    .is_some()
            }
            Key::Desired("pods", object) => {
                // Whoever counts pods says when one cannot be read.
                if let Ok(pod) = document::decode_keyed::<Pod>(object, value) {
                    self.labels.insert(object.clone(), pod.metadata.labels);
                }
                true
            }
            Key::Intent {
                verb: "evict", pod, ..
            } => {
                let intent = document::decode_value::<Intent>(value).ok();
                let ignores = intent.map(|i| self.asked.insert(pod.clone(), i.ignore_budgets));
                ignores.is_some()
            }
            _ => true,
        };
        (!good).then(|| format!("{key:?} cannot be read"))
    }

    /// What is not as it should be; `runs`: whether a pod is where it is bound, and ready.
    pub(super) fn unmet(&self, runs: impl Fn(&ObjectKey) -> bool) -> Vec<String> {
        let mut unmet = Vec::new();
        for (budget, spec) in &self.budgets {
            let selected = self.labels.iter().filter(|(pod, labels)| {
                let selects = |s: &setpoint_apis::LabelSelector| s.matches(labels);
                pod.namespace == budget.namespace && spec.selector.as_ref().is_some_and(selects)
            });
            let healthy = selected.filter(|(pod, _)| runs(pod)).count();
            let says = self.statuses.get(budget).map(|s| s.current_healthy);
            if says != i32::try_from(healthy).ok() {
                unmet.push(format!(
                    "budget {budget} says that {says:?} pods are healthy, and {healthy} are"
                ));
            }
        }
        for (pod, ignores) in self.asked.iter().filter(|(pod, _)| runs(pod)) {
            let refuses = |(budget, spec): &(&ObjectKey, &PodDisruptionBudgetSpec)| {
                let labels = self.labels.get(pod);
                let selects =
                    |s: &setpoint_apis::LabelSelector| labels.is_some_and(|l| s.matches(l));
                let allowed = self
                    .statuses
                    .get(*budget)
                    .map_or(0, |s| s.disruptions_allowed);
                budget.namespace == pod.namespace
                    && spec.selector.as_ref().is_some_and(selects)
                    && allowed <= 0
            };
            if *ignores || !self.budgets.iter().any(|budget| refuses(&budget)) {
                unmet.push(format!(
                    "pod {pod} is to be evicted, no budget forbids it, and it is not done"
                ));
            }
        }
        unmet
    }
}
