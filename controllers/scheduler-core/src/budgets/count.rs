//! What one budget counts, and what workloads want.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::int_or_string::IntOrString;
use setpoint_apis::resolve::{Allowance, Disruption, PodHealth, allowance, disruption};
use setpoint_apis::{ObjectKey, StringMap};

use super::{Budget, Counts, Owner};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) budget: Budget,
    /// How many pods there are.
    pub(super) pods: i32,
    pub(super) healthy: i32,
    /// How many pods are wanted: a sum of what documents say, which is more than they can say each.
    pub(super) wanted: i64,
    /// How many of the pods belong to which workload.
    pub(super) owners: FxHashMap<Owner, i32>,
    pub(super) waiting: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) labels: StringMap,
    pub(super) health: PodHealth,
    pub(super) owner: Option<Owner>,
    pub(super) of: Vec<Arc<str>>,
}

/// What the workloads of a namespace want, that have pods.
#[derive(Debug, Default)]
pub(super) struct Scales {
    pub(super) of: FxHashMap<Owner, Scale>,
}

#[derive(Debug, Default)]
pub(super) struct Scale {
    /// `None` when that is not known: its pods are counted instead.
    pub(super) wanted: Option<i32>,
    pub(super) pods: usize,
}

impl Scales {
    pub(super) fn get(&self, owner: &Owner) -> Option<i32> {
        self.of.get(owner)?.wanted
    }

    pub(super) fn joins(&mut self, owner: &Owner) {
        self.of.entry(owner.clone()).or_default().pods += 1;
    }

    pub(super) fn leaves(&mut self, owner: &Owner) {
        if let Some(scale) = self.of.get_mut(owner) {
            scale.pods = scale.pods.saturating_sub(1);
            if scale.pods == 0 {
                self.of.remove(owner);
            }
        }
    }
}

impl Entry {
    pub(super) fn count(&mut self, pod: &Member, sign: i32, scales: &Scales) {
        self.pods += sign;
        if pod.health == PodHealth::Ready {
            self.healthy += sign;
        }
        let Some(owner) = &pod.owner else {
            self.wanted += i64::from(sign);
            return;
        };
        let pods = self.owners.entry(owner.clone()).or_default();
        let before = *pods;
        *pods += sign;
        let after = *pods;
        if after == 0 {
            self.owners.remove(owner);
        }
        // What it wants counts once, with its first pod.
        self.wanted += match scales.get(owner) {
            None => i64::from(sign),
            Some(wanted) if before == 0 => i64::from(wanted),
            Some(wanted) if after == 0 => -i64::from(wanted),
            Some(_) => 0,
        };
    }

    pub(super) fn counts(&self) -> Counts {
        let Some(now) = self.allowance() else {
            return Counts {
                expected: self.pods,
                healthy: self.healthy,
                desired: self.pods,
                allowed: 0,
                senseless: true,
            };
        };
        Counts {
            expected: self.expected(),
            healthy: now.current_healthy,
            desired: now.desired_healthy,
            allowed: now.disruptions_allowed,
            senseless: false,
        }
    }

    /// What the amount counts among: a number in `minAvailable` the pods there are, all else those that are wanted.
    pub(super) fn expected(&self) -> i32 {
        match &self.budget {
            Budget::Is(spec) if matches!(spec.min_available, Some(IntOrString::Int(_))) => {
                self.pods
            }
            _ => self.wanted(),
        }
    }

    /// How many pods are wanted, or as many as can be said.
    fn wanted(&self) -> i32 {
        let most = if self.wanted < 0 { i32::MIN } else { i32::MAX };
        i32::try_from(self.wanted).unwrap_or(most)
    }

    /// `None` when the budget does not say how much in a way that makes sense.
    pub(super) fn allowance(&self) -> Option<Allowance> {
        let Budget::Is(spec) = &self.budget else {
            return None;
        };
        let amount = match (&spec.max_unavailable, &spec.min_available) {
            (Some(amount), None) | (None, Some(amount)) => amount,
            _ => return None,
        };
        let wanted = self.wanted();
        amount.scaled(wanted, true).ok().filter(|n| *n >= 0)?;
        Some(allowance(spec, self.pods, wanted, self.healthy))
    }

    pub(super) fn refuses(&self, pod: PodHealth) -> bool {
        match (&self.budget, self.allowance()) {
            (Budget::Is(spec), Some(now)) => disruption(spec, now, pod) == Disruption::Refused,
            _ => true,
        }
    }
}
