//! Another number of pods, in the middle of a rollout or without one.

use setpoint_apis::apps::DeploymentStrategyType;

use super::super::numbers::{Share, Stay, proportional, spare_available};
use super::super::plan::{DESIRED_REPLICAS, MAX_REPLICAS, number};
use super::{Rollout, set_sizes, sum};

impl Rollout<'_> {
    /// Another number is wanted, or the rollout is paused: no step of the rollout, only sizes. No more is added than there
    /// is room for; the rest comes with the steps of the rollout, and with another look while it is paused.
    pub(super) fn resize(&mut self) {
        let wanted = self.s.wanted;
        let active: Vec<usize> = (0..self.targets.len())
            .filter(|i| self.targets[*i].replicas > 0)
            .collect();
        let saturated = self.new.is_some_and(|i| {
            let r = &self.s.sets[i];
            r.replicas == wanted
                && number(&r.annotations, DESIRED_REPLICAS) == Some(i64::from(wanted))
                && self.stay[i].least == wanted
        });
        if active.len() <= 1 {
            let only = active
                .first()
                .copied()
                .or(self.new)
                .or_else(|| self.targets.len().checked_sub(1));
            if let Some(i) = only {
                // Its own pods that are to go are as good as new ones.
                let free = self.most().saturating_sub(self.there(|other| other != i));
                self.scale(i, wanted.min(free.max(self.targets[i].replicas)));
            }
        } else if saturated {
            for i in self.old() {
                self.scale(i, 0);
            }
        } else if self.s.strategy.type_ != Some(DeploymentStrategyType::Recreate) {
            self.resize_in_proportion(active);
        }
        for t in &mut self.targets {
            if t.replicas > 0 {
                set_sizes(&mut t.annotations, wanted, self.room);
            }
        }
    }

    fn resize_in_proportion(&mut self, mut active: Vec<usize>) {
        let wanted = self.s.wanted;
        let present = sum(active.iter().map(|i| self.targets[*i].replicas));
        let total = if wanted > 0 { self.most() } else { 0 };
        let total = total.min(present.saturating_add(self.free()));
        let age = |i: usize| self.s.sets[i].create_revision;
        if total > present {
            active.sort_by_key(|i| (-self.targets[*i].replicas, -age(*i)));
        } else {
            active.sort_by_key(|i| (-self.targets[*i].replicas, age(*i)));
        }
        let known = self
            .s
            .status
            .as_ref()
            .and_then(|s| s.replicas)
            .unwrap_or(present);
        let share = |i: &usize| {
            let out_of = number(&self.targets[*i].annotations, MAX_REPLICAS)
                .and_then(|n| i32::try_from(n).ok());
            Share {
                replicas: self.targets[*i].replicas,
                out_of: out_of.unwrap_or(known),
            }
        };
        let shares: Vec<Share> = active.iter().map(share).collect();
        for (i, size) in active.iter().zip(proportional(&shares, wanted, total)) {
            self.scale(*i, size);
        }
        if total < present {
            self.spare_available();
        }
    }

    /// A smaller number takes no pods that are available while others can go, when too few would stay.
    fn spare_available(&mut self) {
        let order: Vec<usize> = self.old().chain(self.new).collect();
        let mut sizes: Vec<i32> = order.iter().map(|i| self.targets[*i].replicas).collect();
        let stay: Vec<Stay> = order.iter().map(|i| self.stay[*i]).collect();
        spare_available(&mut sizes, &stay, self.s.wanted - self.room.unavailable);
        for (i, size) in order.into_iter().zip(sizes) {
            self.scale(i, size);
        }
    }
}
