//! Disruption budgets: how many of the selected pods may be taken down now, counted in one place.
//!
//! Pure bookkeeping over what it is told of pods. A pod that is being taken down counts as down from the moment that is
//! decided, before anything is written, so that two who ask cannot overshoot together.
//!
//! What `maxUnavailable` and percentages count among is how many pods are wanted: what the workloads that the pods belong to
//! ask for, so that a pod that is missing counts as down, and one more of a rollout lets none go in its place. Pods that
//! belong to nothing that has a number count themselves, as long as their documents exist and they have not ended. Evicting
//! deletes no pod here, so that number does not shrink with every eviction.

mod count;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use setpoint_apis::policy::PodDisruptionBudgetSpec;
use setpoint_apis::resolve::PodHealth;
use setpoint_apis::{ObjectKey, StringMap};

use crate::BudgetState;
use count::{Entry, Member, Scales};

/// What a budget says, and how its pods are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What the amount counts among.
    pub expected: i32,
    /// How many are healthy.
    pub healthy: i32,
    /// How many have to be healthy.
    pub desired: i32,
    /// How many may be taken down now.
    pub allowed: i32,
    /// Whether the budget cannot be understood, so that nothing is allowed.
    pub senseless: bool,
}

/// A budget that does not allow an eviction now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Its name.
    pub budget: Arc<str>,
    /// How its pods are.
    pub counts: Counts,
}

impl Blocked {
    /// The sentence for people.
    pub fn message(&self) -> String {
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
pub enum Budget {
    /// This.
    Is(Box<PodDisruptionBudgetSpec>),
    /// A document that never parsed: it could be about any pod of its namespace, and could allow nothing.
    Unknown,
}

/// A workload of a namespace that says how many pods it wants: `<plural>/<name>`.
pub type Owner = Arc<str>;

/// A pod, as budgets see it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its labels.
    pub labels: &'a StringMap,
    /// How it is.
    pub health: PodHealth,
    /// The workload that it belongs to, when that has a number.
    pub owner: Option<&'a Owner>,
}

#[derive(Debug, Default)]
struct Namespace {
    budgets: BTreeMap<Arc<str>, Entry>,
    pods: FxHashMap<Arc<str>, Member>,
    scales: Scales,
}

impl Namespace {
    /// The budgets that select a pod with these labels, by name.
    fn selecting(&self, labels: &StringMap) -> Vec<Arc<str>> {
        let budgets = self.budgets.iter();
        let selecting = budgets.filter(|(_, entry)| entry.budget.selects(labels));
        selecting.map(|(name, _)| name.clone()).collect()
    }
}

/// The budgets of all namespaces. Namespaces without budgets cost nothing.
#[derive(Debug, Default)]
pub struct Budgets {
    namespaces: FxHashMap<Arc<str>, Namespace>,
    /// Those who waited for a budget that has room by now, or is gone.
    woken: BTreeSet<ObjectKey>,
    changed: FxHashSet<ObjectKey>,
}

impl Budgets {
    /// Whether a namespace has budgets.
    pub fn covers(&self, namespace: &str) -> bool {
        !self.namespaces.is_empty() && self.namespaces.contains_key(namespace)
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// A budget is there, or changed. Returns whether it is the first of its namespace: then the pods there are to be told
    /// of.
    pub fn set(&mut self, key: &ObjectKey, budget: Budget) -> bool {
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
            pods: 0,
            healthy: 0,
            wanted: 0,
            owners: FxHashMap::default(),
            waiting: BTreeSet::new(),
        };
        for member in namespace.pods.values_mut() {
            member.of.retain(|name| *name != key.name);
            if entry.budget.selects(&member.labels) {
                member.of.push(key.name.clone());
                member.of.sort_unstable();
                entry.count(member, 1, &namespace.scales);
            }
        }
        let before = namespace.budgets.insert(key.name.clone(), entry);
        self.woken
            .extend(before.into_iter().flat_map(|before| before.waiting));
        self.changed.insert(key.clone());
        first
    }

    /// A budget is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
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

    /// How a pod is now; `None` when it does not exist or has ended. A workload that is new here has the
    /// scale that [`Budgets::set_scale`] says after that.
    pub fn observe(&mut self, pod: &ObjectKey, now: Option<Seen<'_>>) {
        let Some(namespace) = self.namespaces.get_mut(&*pod.namespace) else {
            return;
        };
        let known = namespace.pods.get(&pod.name);
        match (known, now) {
            (None, None) => return,
            (Some(known), Some(now))
                if known.health == now.health
                    && known.owner.as_ref() == now.owner
                    && *known.labels == **now.labels =>
            {
                return;
            }
            _ => {}
        }
        let before = namespace.pods.remove(&pod.name);
        let member = now.map(|now| {
            let alike = before.as_ref().filter(|b| b.labels == *now.labels);
            let of = alike.map_or_else(
                || namespace.selecting(now.labels),
                |before| before.of.clone(),
            );
            Member {
                labels: now.labels.clone(),
                health: now.health,
                owner: now.owner.cloned(),
                of,
            }
        });
        if let (Some(before), None) = (&before, &member) {
            for name in &before.of {
                if let Some(entry) = namespace.budgets.get_mut(name) {
                    entry.waiting.remove(pod);
                }
            }
        }
        // What the workload wants is known as long as it has pods.
        if let Some(owner) = member.as_ref().and_then(|m| m.owner.as_ref()) {
            namespace.scales.joins(owner);
        }
        let mut concerned = BTreeSet::new();
        for (member, sign) in [(&before, -1), (&member, 1)] {
            for name in member.iter().flat_map(|m| &m.of) {
                if let (Some(entry), Some(member)) = (namespace.budgets.get_mut(name), member) {
                    entry.count(member, sign, &namespace.scales);
                    concerned.insert(name.clone());
                }
            }
        }
        if let Some(owner) = before.as_ref().and_then(|m| m.owner.as_ref()) {
            namespace.scales.leaves(owner);
        }
        if let Some(member) = member {
            namespace.pods.insert(pod.name.clone(), member);
        }
        self.look_again(&pod.namespace, concerned);
    }

    /// Whether a workload of a covered namespace has pods here, so that it matters how many it wants.
    pub fn has_owner(&self, namespace: &str, owner: &Owner) -> bool {
        let namespace = self.namespaces.get(namespace);
        namespace.is_some_and(|n| n.scales.of.contains_key(owner))
    }

    /// All workloads that have pods here, with their namespaces.
    pub fn owners(&self) -> Vec<(Arc<str>, Owner)> {
        let all = self.namespaces.iter();
        all.flat_map(|(name, n)| {
            n.scales
                .of
                .keys()
                .map(|owner| (name.clone(), owner.clone()))
        })
        .collect()
    }

    /// How many pods a workload wants; `None` when that is not known.
    pub fn set_scale(&mut self, namespace: &Arc<str>, owner: &Owner, wanted: Option<i32>) {
        let Some(n) = self.namespaces.get_mut(namespace) else {
            return;
        };
        let Some(scale) = n.scales.of.get_mut(owner).filter(|s| s.wanted != wanted) else {
            return;
        };
        let before = std::mem::replace(&mut scale.wanted, wanted);
        let mut concerned = BTreeSet::new();
        for (name, entry) in &mut n.budgets {
            if let Some(pods) = entry.owners.get(owner).copied() {
                entry.wanted +=
                    i64::from(wanted.unwrap_or(pods)) - i64::from(before.unwrap_or(pods));
                concerned.insert(name.clone());
            }
        }
        self.look_again(namespace, concerned);
    }

    /// Something about these budgets has changed: whoever waits for one that has room by now is woken.
    fn look_again(&mut self, namespace: &Arc<str>, concerned: BTreeSet<Arc<str>>) {
        let Some(n) = self.namespaces.get_mut(namespace) else {
            return;
        };
        for name in concerned {
            if let Some(entry) = n.budgets.get_mut(&name)
                && !entry.waiting.is_empty()
            {
                let counts = entry.counts();
                // The latter lets pods go that are not ready.
                if counts.allowed > 0 || counts.healthy >= counts.desired {
                    self.woken.append(&mut entry.waiting);
                }
            }
            self.changed.insert(ObjectKey {
                namespace: namespace.clone(),
                name,
            });
        }
    }

    /// Whether a pod may be taken down now.
    ///
    /// # Errors
    /// The first budget, by name, that does not allow it.
    pub fn may_disrupt(&self, pod: &ObjectKey) -> Result<(), Blocked> {
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
    pub fn of(&self, pod: &ObjectKey) -> impl Iterator<Item = (&Arc<str>, Counts)> {
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

    /// The same, as preemption asks for it.
    pub fn state(&self, pod: &ObjectKey) -> BudgetState {
        let budgets = self.of(pod).map(|(name, counts)| {
            let budget = ObjectKey {
                namespace: pod.namespace.clone(),
                name: name.clone(),
            };
            (budget, u32::try_from(counts.allowed).unwrap_or(0))
        });
        BudgetState {
            budgets: budgets.collect(),
        }
    }

    /// A pod is being taken down: it counts as down at once. If that fails, [`Budgets::observe`] says so.
    pub fn disrupt(&mut self, pod: &ObjectKey) {
        let Some(namespace) = self.namespaces.get(&*pod.namespace) else {
            return;
        };
        let member = namespace.pods.get(&pod.name);
        if let Some((labels, owner)) = member.map(|m| (m.labels.clone(), m.owner.clone())) {
            let now = Seen {
                labels: &labels,
                health: PodHealth::Idle,
                owner: owner.as_ref(),
            };
            self.observe(pod, Some(now));
        }
    }

    /// A pod waits to be taken down until a budget allows it.
    pub fn wait(&mut self, pod: &ObjectKey, blocked: &Blocked) {
        let namespace = self.namespaces.get_mut(&*pod.namespace);
        if let Some(entry) = namespace.and_then(|n| n.budgets.get_mut(&blocked.budget)) {
            entry.waiting.insert(pod.clone());
        }
    }

    /// The pods whose budget has room by now.
    pub fn take_woken(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.woken)
    }

    /// Whether there are such pods.
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }

    /// The budgets of which anything changed.
    pub fn take_changed(&mut self) -> Vec<ObjectKey> {
        let mut changed: Vec<_> = std::mem::take(&mut self.changed).into_iter().collect();
        changed.sort_unstable();
        changed
    }

    /// How a budget's pods are; `None` when there is none of that name.
    pub fn counts(&self, key: &ObjectKey) -> Option<Counts> {
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

#[cfg(test)]
mod tests;
