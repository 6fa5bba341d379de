//! Whom a gang may displace: nobody, unless enough of it fits then.
//!
//! The members are tried one after the other, each with what the others have been given: where one fits it takes its
//! place, where none has room those are displaced that do the least harm. Whoever turns out not to be needed once all
//! have their places is left alone. What is found is put back; it is for the caller to act on.

use std::cell::RefCell;
use std::cmp::Reverse;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;

use super::{BudgetState, Budgets, Cost, Preemption};
use crate::cluster::gang::orders;
use crate::cluster::near::Place;
use crate::cluster::{Cluster, PodRequest};
use crate::room::Without;
use crate::state::Pod;

/// What was taken out while a gang is tried, and where its members would be.
#[derive(Default)]
struct Trial {
    /// By member: the slot that it gets.
    slots: Vec<Option<u32>>,
    /// Those that are displaced.
    victims: Vec<Pod>,
    /// Those that leave anyway.
    leaving: Vec<Pod>,
}

/// The harm of a way in which a gang fits, and by member its place there.
type Tried = ((u32, Cost), Vec<Option<Preemption>>);

impl Cluster {
    /// Where at least `min` pods of a gang fit when others of lower priority are gone, and who these are; changes
    /// nothing. By member, in the order of the pods: its node and the victims there, who are those of all members on
    /// that node; `None` for members beyond `min`, who get no place. A member of whom nobody is displaced has no victims:
    /// its place is to be kept for it all the same. Nobody of `spared` is displaced, nor anybody of the gang.
    ///
    /// # Guarantees
    ///
    /// - `None` unless `min` members fit together once the victims are gone.
    /// - A member displaces none but pods of lower priority than its own, and nobody when it must not preempt.
    /// - None of the victims can be left out when the members go where they are said to: those that a budget protects
    ///   are kept first, then the most important ones.
    ///
    /// Members are placed one by one as [`Cluster::schedule_gang`] does, each with the least harm for itself: another
    /// way to place all of them that displaces fewer can be missed, and so can the only one there is where constraints
    /// between the members make some orders fail. When that gets stuck and they must be near each other, the place is
    /// taken in which the whole does the least harm, of at most 64.
    pub fn preempt_gang(
        &mut self,
        pods: &[PodRequest],
        min: usize,
        spared: &[ObjectKey],
        budgets: &dyn Fn(&ObjectKey) -> BudgetState,
    ) -> Option<Vec<Option<Preemption>>> {
        if !pods.iter().any(|p| p.class.0.kind.preempts) {
            return None;
        }
        let latest = self.state.latest;
        let before: Vec<Pod> = pods
            .iter()
            .filter_map(|p| self.state.remove(&p.pod))
            .collect();
        let movable = |pod: &&ObjectKey| self.state.pod(pod).is_some_and(|p| !p.stays);
        let spared: Vec<&ObjectKey> = spared.iter().filter(movable).collect();
        for pod in &spared {
            self.state.set_staying(pod, true);
        }
        let orders = orders(pods);
        let mut tries = orders.iter();
        let found = tries.find_map(|order| self.trial(pods, order, None, min, budgets));
        let found = found.or_else(|| self.least_of_places(pods, orders.last()?, min, budgets));
        let found = found.map(|(_, told)| told);
        for pod in spared {
            self.state.set_staying(pod, false);
        }
        for pod in before {
            self.restore(pod);
        }
        self.state.latest = latest;
        found
    }

    /// Of the places where all of the gang could be, when it can only be in one, that with the least harm.
    fn least_of_places(
        &mut self,
        pods: &[PodRequest],
        order: &[usize],
        min: usize,
        budgets: Budgets<'_>,
    ) -> Option<Tried> {
        let company = self.company(pods)?;
        let mut best: Option<Tried> = None;
        for (first, place) in self.places_by_force(&company, pods, order, min, budgets) {
            let mut order = order.to_vec();
            order.sort_by_key(|i| *i != first);
            if let Some(tried) = self.trial(pods, &order, Some(&place), min, budgets)
                && best.as_ref().is_none_or(|b| tried.0 < b.0)
            {
                best = Some(tried);
            }
        }
        best
    }

    /// Tries one order, in one place when that is said. Everything is as before then.
    fn trial(
        &mut self,
        pods: &[PodRequest],
        order: &[usize],
        place: Option<&Place>,
        min: usize,
        budgets: Budgets<'_>,
    ) -> Option<Tried> {
        let mut trial = Trial {
            slots: vec![None; pods.len()],
            ..Trial::default()
        };
        let fits = self.try_gang_by_force(pods, order, place, min, budgets, &mut trial);
        let told = fits.then(|| {
            self.spare(pods, budgets, &mut trial);
            self.told(pods, budgets, &trial)
        });
        for pod in pods {
            self.state.remove(&pod.pod);
        }
        for pod in trial.victims.into_iter().chain(trial.leaving) {
            self.restore(pod);
        }
        told
    }

    /// Gives members places until there are enough of them: the first at the node of `place`, and nobody displaces
    /// others elsewhere.
    fn try_gang_by_force(
        &mut self,
        pods: &[PodRequest],
        order: &[usize],
        place: Option<&Place>,
        min: usize,
        budgets: Budgets<'_>,
        trial: &mut Trial,
    ) -> bool {
        let spent: RefCell<FxHashMap<ObjectKey, u32>> = RefCell::default();
        let left = |pod: &ObjectKey| {
            let mut state = budgets(pod);
            for (budget, allowed) in &mut state.budgets {
                let taken = spent.borrow().get(budget).copied().unwrap_or(0);
                *allowed = allowed.saturating_sub(taken);
            }
            state
        };
        let mut placed = 0;
        for (tried, i) in order.iter().enumerate() {
            if placed >= min || placed + (order.len() - tried) < min {
                break;
            }
            let request = &pods[*i];
            let id = self.shape(&request.class);
            let pinned = place.filter(|_| placed == 0).map(|p| p.slot);
            let choice = match pinned {
                Some(slot) => self.choice_at(id, slot),
                None => self.choice(id, &request.pod, 0),
            };
            let slot = match choice {
                Some(choice) => choice.slot,
                None => {
                    let only = pinned.as_ref().map(std::slice::from_ref);
                    let among = only.or_else(|| place.map(|p| &*p.slots));
                    let Some(found) = self.preempt_among(request, among, &left) else {
                        continue;
                    };
                    for victim in &found.victims {
                        for (budget, _) in budgets(victim).budgets {
                            *spent.borrow_mut().entry(budget).or_insert(0) += 1;
                        }
                        trial.victims.extend(self.state.remove(victim));
                    }
                    let Some(slot) = self.state.slots.get(&found.node).copied() else {
                        continue;
                    };
                    let here = self.state.nodes[slot as usize].pods.iter();
                    let leaving = here.map(|p| &self.state.pods[*p]);
                    let leaving: Vec<_> = leaving
                        .filter(|p| p.leaving)
                        .map(|p| p.key.clone())
                        .collect();
                    for pod in leaving {
                        trial.leaving.extend(self.state.remove(&pod));
                    }
                    slot
                }
            };
            let since = self.state.latest;
            self.state
                .add(&request.pod, slot, request.class.clone(), since, None);
            // No other member may displace it.
            self.state.set_staying(&request.pod, true);
            trial.slots[*i] = Some(slot);
            placed += 1;
        }
        placed >= min
    }

    /// Puts those back who are not needed any more.
    fn spare(&mut self, pods: &[PodRequest], budgets: Budgets<'_>, trial: &mut Trial) {
        let mut victims = std::mem::take(&mut trial.victims);
        let exhausted = |pod: &Pod| budgets(&pod.key).budgets.iter().any(|b| b.1 == 0);
        victims.sort_by_cached_key(|p| {
            let priority = Reverse(p.class.0.kind.priority);
            (!exhausted(p), priority, p.since, p.key.clone())
        });
        for victim in victims {
            let (key, slot) = (victim.key.clone(), victim.slot);
            self.restore(victim);
            let mut members = pods.iter().zip(&trial.slots);
            let all_fit = members.all(|(pod, at)| match at {
                Some(at) => self.still_fits(pod, *at, slot),
                None => true,
            });
            if !all_fit {
                trial.victims.extend(self.state.remove(&key));
            }
        }
    }

    /// Whether a member still fits where it is, when somebody came back to `changed`.
    fn still_fits(&mut self, pod: &PodRequest, at: u32, changed: u32) -> bool {
        let id = self.shape(&pod.class);
        if at != changed && !self.shapes[id].is_social() {
            return true;
        }
        let Some(member) = self.state.remove(&pod.pod) else {
            return false;
        };
        self.refresh(id);
        let shape = &self.shapes[id];
        let cell = self.admissions[shape.kind.admission].peek(at as usize, &self.state);
        let fits = shape.fits(at, &cell, &self.state, Without::default());
        self.restore(member);
        fits
    }

    fn told(&self, pods: &[PodRequest], budgets: Budgets<'_>, trial: &Trial) -> Tried {
        let mut victims: Vec<&Pod> = trial.victims.iter().collect();
        victims.sort_by_key(|p| (Reverse(p.class.0.kind.priority), p.since, &p.key));
        let mut spent: FxHashMap<ObjectKey, u32> = FxHashMap::default();
        let mut violating: FxHashMap<&ObjectKey, bool> = FxHashMap::default();
        for victim in &victims {
            let mut violates = false;
            for (budget, allowed) in budgets(&victim.key).budgets {
                let spent = spent.entry(budget).or_insert(0);
                *spent += 1;
                violates |= *spent > allowed;
            }
            violating.insert(&victim.key, violates);
        }
        let one = |at: &Option<u32>| {
            let node = &self.state.nodes[(*at)? as usize];
            let here = victims.iter().filter(|v| Some(v.slot) == *at);
            let here: Vec<ObjectKey> = here.map(|v| v.key.clone()).collect();
            let violations = here.iter().filter(|v| violating.get(v) == Some(&true));
            Some(Preemption {
                node: node.name.clone(),
                session: node.session,
                violations: violations.count() as u32,
                victims: here,
            })
        };
        debug_assert_eq!(pods.len(), trial.slots.len());
        let violations = violating.values().filter(|v| **v).count() as u32;
        let of = |v: &&Pod| (v.class.0.kind.priority, v.since);
        let cost = Cost::of(victims.iter().map(of));
        ((violations, cost), trial.slots.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests;
