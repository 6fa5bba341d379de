//! Gangs whose members must be near each other.
//!
//! When nobody is there yet that they want to be near, wherever the first of them goes all others must follow: into its
//! domains by the topology keys of the affinity. Nodes that share all of these are a *place*. The best node for the
//! first member may be in a place that is too small for the gang, so each place is worth a try of its own.

use std::cmp::Reverse;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::cluster::{Cluster, PodRequest};
use crate::preempt::Budgets;
use crate::resources::Resources;
use crate::room::Room;
use crate::state::State;
use crate::topology::NOWHERE;

/// How many places are tried for one gang: so many that may have room for all of it.
const MOST_PLACES: usize = 64;

/// Nodes that share the domains of all keys.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The node for the first member.
    pub(crate) slot: u32,
    /// All of its nodes; the members go nowhere else.
    pub(crate) slots: Vec<u32>,
}

/// What the members of a gang have in common that can only be in one place.
pub(crate) struct Company {
    /// The topology keys.
    keys: Vec<u32>,
    /// What each member asks for at least.
    least: Resources,
    /// The greatest priority of those that may displace others.
    priority: Option<i32>,
}

impl Cluster {
    /// What to know of a gang that can only be in one place; `None` when its members may be apart, or when there is
    /// somebody already whom they want to be near: then the places of some do not change where others may go.
    pub(crate) fn company(&mut self, pods: &[PodRequest]) -> Option<Company> {
        let first = &pods.first()?.class.0.kind;
        let affinity = first.own.affinity.clone();
        if affinity.is_empty() {
            return None;
        }
        let mut company = Company {
            keys: Vec::new(),
            least: first.requests.clone(),
            priority: None,
        };
        for (i, pod) in pods.iter().enumerate() {
            let kind = &pod.class.0.kind;
            if kind.own.affinity != affinity {
                return None;
            }
            company.count(&kind.requests);
            if kind.preempts {
                company.priority = company.priority.max(Some(kind.priority));
            }
            if i > 0 && pods[i - 1].class == pod.class {
                continue;
            }
            let id = self.shape(&pod.class);
            self.refresh(id);
            let shape = &self.shapes[id];
            if shape.only_node().is_some() || !shape.nobody_yet(&self.state) {
                return None;
            }
        }
        let registry = &self.state.registry;
        company.keys = affinity.iter().map(|t| registry.terms[*t].key).collect();
        company.keys.sort_unstable();
        company.keys.dedup();
        Some(company)
    }

    /// The places in which there may be room for `min` members, with the first of `order` that fits into any, and
    /// its best node there: the best place first.
    pub(crate) fn places(
        &mut self,
        company: &Company,
        pods: &[PodRequest],
        order: &[usize],
        min: usize,
    ) -> Vec<(usize, Place)> {
        for i in first_of_each(pods, order) {
            let id = self.shape(&pods[i].class);
            self.refresh(id);
            let nodes = self.shapes[id].best(usize::MAX, &self.state);
            let rated = nodes.into_iter().map(|(slot, social)| {
                let parts = self.parts(id, slot, social);
                (Reverse(parts.iter().map(|p| p.1).sum::<i64>()), slot)
            });
            let found = company.group(&self.state, rated, min, None);
            if !found.is_empty() {
                return found.into_iter().map(|place| (i, place)).collect();
            }
        }
        Vec::new()
    }

    /// The same when pods of lower priority may be displaced: with the node where the member does the least
    /// harm.
    pub(crate) fn places_by_force(
        &mut self,
        company: &Company,
        pods: &[PodRequest],
        order: &[usize],
        min: usize,
        budgets: Budgets<'_>,
    ) -> Vec<(usize, Place)> {
        for i in first_of_each(pods, order) {
            let id = self.shape(&pods[i].class);
            self.refresh(id);
            let rated = self.by_harm(id, budgets).into_iter();
            let found = company.group(&self.state, rated, min, company.priority);
            if !found.is_empty() {
                return found.into_iter().map(|place| (i, place)).collect();
            }
        }
        Vec::new()
    }
}

/// Of the members that ask for the same, the first in the order.
fn first_of_each(pods: &[PodRequest], order: &[usize]) -> Vec<usize> {
    let mut seen = FxHashSet::default();
    let members = order.iter().copied();
    members.filter(|i| seen.insert(&pods[*i].class)).collect()
}

impl Company {
    /// Takes a member's requests into account.
    fn count(&mut self, requests: &Resources) {
        for (least, amount) in self.least.fixed.iter_mut().zip(requests.fixed) {
            *least = (*least).min(amount);
        }
        let of = |name| requests.extended.iter().find(|e| e.0 == name);
        let least = self.least.extended.iter();
        let least = least.filter_map(|(name, least)| Some((*name, of(*name)?.1.min(*least))));
        self.least.extended = least.collect();
    }

    /// The domains of a node; `None` when it lacks one of the keys.
    fn domains(&self, state: &State, slot: u32) -> Option<Vec<u32>> {
        let of = |key: &u32| Some(state.registry.keys[*key].of(slot)).filter(|d| *d != NOWHERE);
        self.keys.iter().map(of).collect()
    }

    /// The places of nodes with ratings, by the least rating in each, without those that have no room for `min`
    /// members even when everybody with a priority below `below` is gone.
    fn group<R: Ord + Copy>(
        &self,
        state: &State,
        rated: impl Iterator<Item = (R, u32)>,
        min: usize,
        below: Option<i32>,
    ) -> Vec<Place> {
        let mut best: FxHashMap<Vec<u32>, (R, u32)> = FxHashMap::default();
        for (rating, slot) in rated {
            if let Some(domains) = self.domains(state, slot) {
                let known = best.entry(domains).or_insert((rating, slot));
                *known = (*known).min((rating, slot));
            }
        }
        let mut best: Vec<_> = best.into_iter().collect();
        best.sort_unstable_by_key(|(_, rated)| *rated);
        let places = best.into_iter().filter_map(|(domains, (_, slot))| {
            let of_first = state.registry.keys[self.keys[0]].slots(domains[0]).iter();
            let all = of_first.copied();
            let all = all.filter(|s| self.domains(state, *s).as_ref() == Some(&domains));
            let slots: Vec<u32> = all.collect();
            let mut room = 0;
            slots
                .iter()
                .any(|s| {
                    room += self.capacity(state, *s, below);
                    usize::try_from(room).is_ok_and(|room| room >= min)
                })
                .then_some(Place { slot, slots })
        });
        places.take(MOST_PLACES).collect()
    }

    /// How many members a node has room for at most.
    fn capacity(&self, state: &State, slot: u32, below: Option<i32>) -> i64 {
        let node = &state.nodes[slot as usize];
        let mut room = Room::bare(node);
        if let Some(below) = below {
            let pods = node.pods.iter().map(|p| &state.pods[*p]);
            let goes =
                |p: &&crate::state::Pod| p.leaving || (!p.stays && p.class.0.kind.priority < below);
            for pod in pods.filter(goes) {
                room.change(&pod.class.0.kind.requests, -1);
            }
        }
        room.times(&self.least)
    }
}
