//! How many pods a Job has, and which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::batch::PodReplacementPolicy;

use super::{Decision, removal, size};
use crate::job::count::{
    backoff, failures_by_index, failures_in_a_row, has_place, per_index_limit,
};
use crate::job::names;
use crate::job::plan::{JobPod, NewPod};
use crate::pod::{PodFacts, sort_for_deletion};
use crate::replicaset::decide::MOST_CREATED;

/// Names that are tried for a pod before it is left for the next pass.
const TRIES: usize = 8;

impl<'a> Decision<'a> {
    /// Brings the number of pods to what is wanted.
    pub(super) fn manage(&mut self) {
        let s = self.s;
        if s.spec.is_suspended() {
            self.delete_all();
            return;
        }
        self.plan
            .delete
            .extend(self.again.iter().filter_map(|p| removal(p)));
        let parallelism = s.spec.parallelism();
        let wanted = match s.spec.completions {
            Some(completions) => parallelism.min(completions - self.counted.succeeded).max(0),
            // One that has succeeded has settled it; what runs may come to its end.
            None if self.counted.succeeded > 0 => size(self.live.len()),
            None => parallelism,
        };
        let excess = usize::try_from(size(self.live.len()) - wanted).unwrap_or(0);
        let surplus = self.surplus(excess);
        let before = self.plan.delete.len();
        self.plan
            .delete
            .extend(surplus.into_iter().filter_map(removal));
        if self.plan.delete.len() > before {
            return;
        }
        let stopping = match s.spec.pod_replacement_policy {
            Some(PodReplacementPolicy::Failed) => size(s.stopping.len() + self.again.len()),
            _ => 0,
        };
        let missing = wanted - size(self.live.len()) - stopping;
        if missing > 0 {
            self.create(usize::try_from(missing).unwrap_or(0));
        }
    }

    /// Pods that are one too many: of an Indexed Job those without a place and all but one of each index, and as many
    /// more as there are too many.
    fn surplus(&self, excess: usize) -> Vec<&'a JobPod> {
        if excess == 0 && self.all_have_their_place() {
            return Vec::new();
        }
        let mut order: Vec<&PodFacts> = self.live.iter().map(|p| &p.facts).collect();
        sort_for_deletion(&mut order, |_| 0);
        let by_key: BTreeMap<_, &'a JobPod> =
            self.live.iter().map(|p| (&p.facts.key, *p)).collect();
        let order = order
            .into_iter()
            .filter_map(|f| by_key.get(&f.key).copied());
        let (mut surplus, mut rest) = (Vec::new(), Vec::new());
        let mut kept = BTreeSet::new();
        // The most useful ones first: they are kept.
        for pod in order.rev() {
            let stays = !self.s.spec.is_indexed()
                || (has_place(self.s, pod) && pod.index.is_none_or(|i| kept.insert(i)));
            if stays {
                rest.push(pod);
            } else {
                surplus.push(pod);
            }
        }
        let more = excess.saturating_sub(surplus.len());
        surplus.extend(
            rest.into_iter()
                .rev()
                .filter(|p| !p.facts.frozen)
                .take(more),
        );
        surplus
    }

    /// Whether no pod of an Indexed Job is without a place, or in that of another one.
    fn all_have_their_place(&self) -> bool {
        let mut places = BTreeSet::new();
        let mut own = |p: &JobPod| has_place(self.s, p) && p.index.is_none_or(|i| places.insert(i));
        !self.s.spec.is_indexed() || self.live.iter().all(|p| own(p))
    }

    fn create(&mut self, missing: usize) {
        let s = self.s;
        if !s.namespace_exists {
            self.plan.notes.push(format!(
                "{missing} pods are missing, but the namespace does not exist"
            ));
            return;
        }
        if per_index_limit(s).is_none() {
            let (failures, last) = failures_in_a_row(s);
            let wait = backoff(failures, last, self.now);
            if !wait.is_zero() {
                self.plan.notes.push(format!(
                    "{missing} pods are missing; after {failures} failures in a row the next come later"
                ));
                self.plan.look_again_in(wait);
                return;
            }
        }
        let most = if s.refused { 1 } else { MOST_CREATED };
        let missing = missing.min(most);
        if s.spec.is_indexed() {
            self.create_indexes(missing);
        } else {
            let names = names::generate(&s.key.name, &s.uid, None, s.salt);
            let names = names.take(missing.saturating_mul(TRIES));
            self.create_named(names, missing);
        }
    }

    fn create_named(&mut self, names: impl Iterator<Item = String>, missing: usize) {
        let s = self.s;
        let there = s.pods.iter().map(|p| &p.facts.key.name);
        let mut taken: BTreeSet<Arc<str>> = there.cloned().collect();
        taken.extend(s.stopping.iter().map(|(name, _)| name.clone()));
        let mut number = self.next_number();
        let before = self.plan.create.len();
        for name in names {
            if self.plan.create.len() == before + missing {
                break;
            }
            if taken.insert(name.as_str().into()) {
                self.plan.create.push(NewPod {
                    name,
                    number,
                    index: None,
                    failures: None,
                });
                number = number.saturating_add(1);
            }
        }
    }

    /// A number above all that are counted or there, or may be there again.
    fn next_number(&self) -> i32 {
        let there = self.s.pods.iter().filter_map(|p| p.number);
        let there = there.chain(self.s.loose_numbers.iter().copied());
        let last = there.chain(self.counted.ranges.pods.last()).max();
        last.map_or(0, |n| n.saturating_add(1))
    }

    fn create_indexes(&mut self, missing: usize) {
        let s = self.s;
        let of_pods = self.live.iter().chain(&self.again);
        let mut busy: BTreeSet<i32> = of_pods.filter_map(|p| p.index).collect();
        if s.spec.pod_replacement_policy == Some(PodReplacementPolicy::Failed) {
            busy.extend(s.stopping.iter().filter_map(|(_, index)| *index));
        }
        let limited = per_index_limit(s).is_some();
        let failures = match limited {
            true => failures_by_index(s),
            false => BTreeMap::new(),
        };
        let ranges = &self.counted.ranges;
        let over = ranges
            .completed
            .clone()
            .with(ranges.failed_indexes.ranges());
        let mut number = self.next_number();
        let mut waiting = 0_usize;
        let taken: BTreeSet<&str> = s
            .pods
            .iter()
            .map(|p| &*p.facts.key.name)
            .chain(s.stopping.iter().map(|(name, _)| &**name))
            .collect();
        for index in over.missing(s.spec.completions.unwrap_or(0)) {
            if self.plan.create.len() >= missing {
                break;
            }
            if busy.contains(&index) {
                continue;
            }
            let before = failures.get(&index).copied().unwrap_or_default();
            let wait = backoff(before.all(), before.last, self.now);
            if !wait.is_zero() {
                waiting += 1;
                self.plan.look_again_in(wait);
                continue;
            }
            let salt = s.salt ^ u64::from(index.unsigned_abs()) << 32;
            let mut names = names::generate(&s.key.name, &s.uid, Some(index), salt).take(TRIES);
            let Some(name) = names.find(|name| !taken.contains(name.as_str())) else {
                continue;
            };
            self.plan.create.push(NewPod {
                name,
                number,
                index: Some(index),
                failures: limited.then_some((before.counted, before.ignored)),
            });
            number = number.saturating_add(1);
        }
        if waiting > 0 {
            self.plan.notes.push(format!(
                "{waiting} indexes have failed; their next pods come later"
            ));
        }
    }
}
