//! Disruption budgets: how many of the selected pods may be taken down now, counted in one place.
//!
//! Pure bookkeeping over what it is told of pods. A pod that is being taken down counts as down from the moment that is
//! decided, before anything is written, so that two who ask cannot overshoot together.
//!
//! The pods that are expected are those whose documents exist and that have not ended. Evicting does not delete a pod
//! here, so this number does not shrink with every eviction, which is what Kubernetes asks the owning controllers for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::policy::PodDisruptionBudgetSpec;
use setpoint_apis::resolve::{Allowance, Disruption, PodHealth, allowance, disruption};
use setpoint_apis::{ObjectKey, StringMap};

/// What a budget says, and how its pods are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) expected: i32,
    pub(crate) healthy: i32,
    /// How many have to be healthy.
    pub(crate) desired: i32,
    /// How many may be taken down now.
    pub(crate) allowed: i32,
    /// Whether the budget cannot be understood, so that nothing is allowed.
    pub(crate) senseless: bool,
}

/// A budget that does not allow an eviction now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocked {
    /// Its name.
    pub(crate) budget: Arc<str>,
    pub(crate) counts: Counts,
}

impl Blocked {
    /// The sentence for people.
    pub(crate) fn message(&self) -> String {
        let Counts {
            healthy, desired, ..
        } = self.counts;
        let budget = &self.budget;
        if self.counts.senseless {
            return format!(
                "the disruption budget {budget} cannot be understood, so it allows nothing"
            );
        }
        format!(
            "the disruption budget {budget} needs {desired} healthy pods and has {healthy} currently"
        )
    }
}

/// A budget as it is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Budget {
    Is(Box<PodDisruptionBudgetSpec>),
    /// A document that never parsed: it could be about any pod of its namespace, and could allow nothing.
    Unknown,
}

#[derive(Debug)]
struct Entry {
    budget: Budget,
    expected: i32,
    healthy: i32,
    waiting: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Member {
    labels: StringMap,
    health: PodHealth,
    of: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Namespace {
    budgets: BTreeMap<Arc<str>, Entry>,
    pods: FxHashMap<Arc<str>, Member>,
}

/// The budgets of all namespaces. Namespaces without budgets cost nothing.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    namespaces: FxHashMap<Arc<str>, Namespace>,
    /// Those who waited for a budget that has room by now, or is gone.
    woken: BTreeSet<ObjectKey>,
    changed: FxHashSet<ObjectKey>,
}

impl Budgets {
    /// Whether a namespace has budgets.
    pub(crate) fn covers(&self, namespace: &str) -> bool {
        !self.namespaces.is_empty() && self.namespaces.contains_key(namespace)
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// A budget is there, or changed. Returns whether it is the first of its namespace: then the pods there are to be told
    /// of.
    pub(crate) fn set(&mut self, key: &ObjectKey, budget: Budget) -> bool {
        let first = !self.namespaces.contains_key(&*key.namespace);
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        if namespace
            .budgets
            .get(&key.name)
            .is_some_and(|known| known.budget == budget)
        {
            return first;
        }
        let mut entry = Entry {
            budget,
            expected: 0,
            healthy: 0,
            waiting: BTreeSet::new(),
        };
        for member in namespace.pods.values_mut() {
            member.of.retain(|name| *name != key.name);
            if entry.budget.selects(&member.labels) {
                member.of.push(key.name.clone());
                member.of.sort_unstable();
                entry.count(member.health, 1);
            }
        }
        let before = namespace.budgets.insert(key.name.clone(), entry);
        self.woken
            .extend(before.into_iter().flat_map(|before| before.waiting));
        self.changed.insert(key.clone());
        first
    }

    /// A budget is gone.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        let Some(namespace) = self.namespaces.get_mut(&*key.namespace) else {
            return;
        };
        if let Some(entry) = namespace.budgets.remove(&key.name) {
            self.woken.extend(entry.waiting);
            self.changed.insert(key.clone());
            for member in namespace.pods.values_mut() {
                member.of.retain(|name| *name != key.name);
            }
        }
        if namespace.budgets.is_empty() {
            self.namespaces.remove(&*key.namespace);
        }
    }

    /// How a pod is now; `None` when it does not exist or has ended.
    pub(crate) fn observe(&mut self, pod: &ObjectKey, now: Option<(&StringMap, PodHealth)>) {
        let Some(namespace) = self.namespaces.get_mut(&*pod.namespace) else {
            return;
        };
        let known = namespace.pods.get(&pod.name);
        match (known, now) {
            (None, None) => return,
            (Some(known), Some((labels, health)))
                if known.health == health && *known.labels == **labels =>
            {
                return;
            }
            _ => {}
        }
        let before = namespace.pods.remove(&pod.name);
        let member = now.map(|(labels, health)| {
            let selecting = namespace
                .budgets
                .iter()
                .filter(|(_, entry)| entry.budget.selects(labels));
            Member {
                labels: labels.clone(),
                health,
                of: selecting.map(|(name, _)| name.clone()).collect(),
            }
        });
        let mut concerned = BTreeSet::new();
        for (member, sign) in [(&before, -1), (&member, 1)] {
            for name in member.iter().flat_map(|m| &m.of) {
                if let (Some(entry), Some(member)) = (namespace.budgets.get_mut(name), member) {
                    entry.count(member.health, sign);
                    concerned.insert(name.clone());
                }
            }
        }
        if let Some(member) = member {
            namespace.pods.insert(pod.name.clone(), member);
        }
        for name in concerned {
            if let Some(entry) = namespace.budgets.get_mut(&name)
                && !entry.waiting.is_empty()
            {
                let counts = entry.counts();
                // The latter lets pods go that are not ready.
                if counts.allowed > 0 || counts.healthy >= counts.desired {
                    self.woken.append(&mut entry.waiting);
                }
            }
            self.changed.insert(ObjectKey {
                namespace: pod.namespace.clone(),
                name,
            });
        }
    }

    /// Whether a pod may be taken down now.
    ///
    /// # Errors
    /// The first budget, by name, that does not allow it.
    pub(crate) fn may_disrupt(&self, pod: &ObjectKey) -> Result<(), Blocked> {
        let Some(namespace) = self.namespaces.get(&*pod.namespace) else {
            return Ok(());
        };
        let Some(member) = namespace.pods.get(&pod.name) else {
            return Ok(());
        };
        if member.health == PodHealth::Idle {
            return Ok(());
        }
        for name in &member.of {
            let Some(entry) = namespace.budgets.get(name) else {
                continue;
            };
            if entry.refuses(member.health) {
                return Err(Blocked {
                    budget: name.clone(),
                    counts: entry.counts(),
                });
            }
        }
        Ok(())
    }

    /// The budgets that a pod counts for, when taking it down would take from them.
    pub(crate) fn of(&self, pod: &ObjectKey) -> impl Iterator<Item = (&Arc<str>, Counts)> {
        let namespace = self.namespaces.get(&*pod.namespace);
        let member = namespace
            .and_then(|n| n.pods.get(&pod.name))
            .filter(|m| m.health != PodHealth::Idle);
        let names = member.into_iter().flat_map(|m| &m.of);
        names.filter_map(move |name| {
            let entry = namespace?.budgets.get(name)?;
            Some((name, entry.counts()))
        })
    }

    /// A pod is being taken down: it counts as down at once. If that fails, [`Budgets::observe`] says so.
    pub(crate) fn disrupt(&mut self, pod: &ObjectKey) {
        let Some(namespace) = self.namespaces.get(&*pod.namespace) else {
            return;
        };
        if let Some(labels) = namespace.pods.get(&pod.name).map(|m| m.labels.clone()) {
            self.observe(pod, Some((&labels, PodHealth::Idle)));
        }
    }

    /// A pod waits to be taken down until a budget allows it.
    pub(crate) fn wait(&mut self, pod: &ObjectKey, blocked: &Blocked) {
        let namespace = self.namespaces.get_mut(&*pod.namespace);
        if let Some(entry) = namespace.and_then(|n| n.budgets.get_mut(&blocked.budget)) {
            entry.waiting.insert(pod.clone());
        }
    }

    /// The pods whose budget has room by now.
    pub(crate) fn take_woken(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.woken)
    }

    /// Whether there are such pods.
    pub(crate) fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// The budgets of which anything changed.
    pub(crate) fn take_changed(&mut self) -> Vec<ObjectKey> {
        let mut changed: Vec<_> = std::mem::take(&mut self.changed).into_iter().collect();
        changed.sort_unstable();
        changed
    }

    /// How a budget's pods are; `None` when there is none of that name.
    pub(crate) fn counts(&self, key: &ObjectKey) -> Option<Counts> {
        let entry = self
            .namespaces
            .get(&*key.namespace)?
            .budgets
            .get(&key.name)?;
        Some(entry.counts())
    }
}

impl Budget {
    fn selects(&self, labels: &StringMap) -> bool {
        match self {
            Self::Is(spec) => spec.selector.as_ref().is_some_and(|s| s.matches(labels)),
            Self::Unknown => true,
        }
    }
}

impl Entry {
    fn count(&mut self, health: PodHealth, sign: i32) {
        self.expected += sign;
        if health == PodHealth::Ready {
            self.healthy += sign;
        }
    }

    fn counts(&self) -> Counts {
        let Some(now) = self.allowance() else {
            return Counts {
                expected: self.expected,
                healthy: self.healthy,
                desired: self.expected,
                allowed: 0,
                senseless: true,
            };
        };
        Counts {
            expected: self.expected,
            healthy: now.current_healthy,
            desired: now.desired_healthy,
            allowed: now.disruptions_allowed,
            senseless: false,
        }
    }

    /// `None` when the budget does not say how much in a way that makes sense.
    fn allowance(&self) -> Option<Allowance> {
        let Budget::Is(spec) = &self.budget else {
            return None;
        };
        let amount = match (&spec.max_unavailable, &spec.min_available) {
            (Some(amount), None) | (None, Some(amount)) => amount,
            _ => return None,
        };
        amount
            .scaled(self.expected, true)
            .ok()
            .filter(|n| *n >= 0)?;
        Some(allowance(spec, self.expected, self.expected, self.healthy))
    }

    fn refuses(&self, pod: PodHealth) -> bool {
        match (&self.budget, self.allowance()) {
            (Budget::Is(spec), Some(now)) => disruption(spec, now, pod) == Disruption::Refused,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
