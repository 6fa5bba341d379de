//! Whom a pod may displace, and on which node that does the least harm.
//!
//! For classes to which other pods matter by their room alone, the harm on every node is kept up to date as nodes
//! change, so that one more preemptor costs the nodes that changed since the last. For others every node is looked at.

mod costs;
mod gang;

use std::cmp::Reverse;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::ObjectKey;

use crate::class::Class;
use crate::cluster::{Cluster, PodRequest, draw};
use crate::room::{Room, Without};
use crate::shape::Shape;
use crate::state::State;

pub(crate) use costs::{Cost, Costs};

/// What disruption budgets say of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetState {
    /// The budgets that protect it, each with how many of its pods may still be disrupted now.
    pub budgets: Vec<(ObjectKey, u32)>,
}

/// Pods whose removal lets another fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// The node that they are on.
    pub node: Arc<str>,
    /// [`NodeFacts::session`](crate::NodeFacts::session) of the node.
    pub session: i64,
    /// They, the most important first; empty when the pods that leave already are enough.
    pub victims: Vec<ObjectKey>,
    /// How many of them a disruption budget protects.
    pub violations: u32,
}

/// Victims on a node, as numbers of pods, the most important first.
struct Harm {
    victims: Vec<u32>,
    violations: u32,
    cost: Cost,
}

pub(crate) type Budgets<'a> = &'a dyn Fn(&ObjectKey) -> BudgetState;

impl Cluster {
    /// The victims whose removal lets the pod fit, all on one node; changes nothing.
    ///
    /// Victims have a lower priority than the pod. None of them can be left out: the most important ones are kept first,
    /// and before these those that a budget protects. Among nodes the first counts with the fewest violated budgets,
    /// then the lowest priority of its most important victim, the smallest sum of priorities (each counted from the least
    /// that there is, so fewer are less), the fewest victims, the newest of the most important ones; then the pod's draw.
    /// Pods that leave already cost nothing. Nominated pods of lower priority are no hindrance, others keep their room.
    pub fn preempt(
        &mut self,
        pod: &PodRequest,
        budgets: &dyn Fn(&ObjectKey) -> BudgetState,
    ) -> Option<Preemption> {
        self.preempt_among(pod, None, budgets)
    }

    /// The same on one of these nodes, when they are said.
    fn preempt_among(
        &mut self,
        pod: &PodRequest,
        among: Option<&[u32]>,
        budgets: Budgets<'_>,
    ) -> Option<Preemption> {
        if !pod.class.0.kind.preempts {
            return None;
        }
        // Its own former place or nomination must not stand in its way.
        let own = self.state.remove(&pod.pod);
        let id = self.shape(&pod.class);
        let found = match among {
            None => self.least_harm(id, draw(&pod.pod, 0), budgets),
            Some(slots) => {
                self.refresh(id);
                self.least_harm_of_these(id, slots.iter().copied(), draw(&pod.pod, 0), budgets)
            }
        };
        let found = found.map(|(slot, harm)| {
            let node = &self.state.nodes[slot as usize];
            let keys = harm.victims.iter().map(|p| self.state.pods[*p].key.clone());
            Preemption {
                node: node.name.clone(),
                session: node.session,
                victims: keys.collect(),
                violations: harm.violations,
            }
        });
        if let Some(own) = own {
            self.restore(own);
        }
        found
    }

    /// Keeps room on a node for a pod whose victims are still stopping: nothing of lower or equal priority may take its
    /// resources and ports, or come where anti-affinity between the two forbids it.
    /// Victims on the node count until they are forgotten, but cost nothing while another pod needs their room. Undone
    /// by [`Cluster::forget`], replaced by [`Cluster::place`] and by a decision.
    pub fn nominate(&mut self, pod: &ObjectKey, node: &str, class: &Class, victims: &[ObjectKey]) {
        self.state.remove(pod);
        let slot = self.state.slot_of(node);
        self.state
            .add(pod, slot, class.clone(), 0, Some(victims.into()));
    }

    /// Says whether a pod is on its way out, whyever: then its room costs nobody anything. Victims of nominated pods are
    /// without being told.
    pub fn set_leaving(&mut self, pod: &ObjectKey, leaving: bool) {
        self.state.set_leaving(pod, leaving);
    }

    /// The node that a pod is nominated for.
    pub fn nominated(&self, pod: &ObjectKey) -> Option<&Arc<str>> {
        let pod = self.state.pod(pod).filter(|p| p.nominated.is_some())?;
        Some(&self.state.nodes[pod.slot as usize].name)
    }

    /// Whether a node exists and admits pods of the class, however full it is.
    pub fn admits(&mut self, class: &Class, node: &str) -> bool {
        let Some(slot) = self.state.slots.get(node).copied() else {
            return false;
        };
        let id = self.shape(class);
        self.refresh(id);
        let admission = &self.admissions[self.shapes[id].kind.admission];
        admission.peek(slot as usize, &self.state).admitted
    }

    /// Says whether a pod cannot be made to leave now, whoever needs its room: then it is nobody's victim. Holds while it
    /// is counted where it is.
    pub fn set_staying(&mut self, pod: &ObjectKey, stays: bool) {
        self.state.set_staying(pod, stays);
    }

    /// Whether a nominated pod can be bound on its node now: its victims are gone from there, it fits, and it takes
    /// nothing that other nominated pods of equal or higher priority wait for.
    pub fn nominated_fits(&mut self, pod: &ObjectKey) -> bool {
        let Some(known) = self.state.pod(pod) else {
            return false;
        };
        let (Some(victims), slot) = (&known.nominated, known.slot) else {
            return false;
        };
        let there = |v: &ObjectKey| {
            self.state
                .pod(v)
                .is_some_and(|p| p.slot == slot && p.nominated.is_none())
        };
        if victims.iter().any(there) {
            return false;
        }
        let Some(own) = self.state.remove(pod) else {
            return false;
        };
        let id = self.shape(&own.class);
        self.refresh(id);
        let shape = &self.shapes[id];
        let cell = self.admissions[shape.kind.admission].peek(slot as usize, &self.state);
        let fits = shape.fits(slot, &cell, &self.state, Without::default());
        self.restore(own);
        fits
    }

    /// Whether displacing pods of lower priority could help a pod of the shape, budgets aside.
    pub(crate) fn could_preempt(&mut self, id: u32) -> bool {
        if !self.shapes[id].kind.preempts {
            return false;
        }
        self.refresh(id);
        let shape = &self.shapes[id];
        let admission = &self.admissions[shape.kind.admission];
        let clears = |slot: u32| {
            let cell = admission.peek(slot as usize, &self.state);
            cleared(shape, slot, &cell, &self.state).is_some()
        };
        match shape.only_node() {
            Some(name) => self.state.slots.get(name).is_some_and(|s| clears(*s)),
            None => (0..self.state.nodes.len() as u32).any(clears),
        }
    }

    fn least_harm(&mut self, id: u32, draw: u64, budgets: Budgets<'_>) -> Option<(u32, Harm)> {
        if let Some(name) = self.shapes[id].only_node() {
            let slot = *self.state.slots.get(name)?;
            return Some((slot, self.harm(id, slot, Some(budgets))?));
        }
        if self.shapes[id].is_apart(&self.state) {
            self.least_harm_of_few(id, draw, budgets)
        } else {
            self.sync(id);
            let slots = 0..self.state.nodes.len() as u32;
            self.least_harm_of_these(id, slots, draw, budgets)
        }
    }

    /// All nodes on which others may be displaced for a pod of the shape, with the harm.
    pub(crate) fn by_harm(&self, id: u32, budgets: Budgets<'_>) -> Vec<((u32, Cost), u32)> {
        let slots = 0..self.state.nodes.len() as u32;
        let harm = |slot| Some((self.harm(id, slot, Some(budgets))?.order(), slot));
        slots.filter_map(harm).collect()
    }

    fn least_harm_of_these(
        &self,
        id: u32,
        slots: impl Iterator<Item = u32>,
        draw: u64,
        budgets: Budgets<'_>,
    ) -> Option<(u32, Harm)> {
        let all = slots.filter_map(|slot| Some((slot, self.harm(id, slot, Some(budgets))?)));
        let mut best: Vec<(u32, Harm)> = Vec::new();
        for (slot, harm) in all {
            let order = best.first().map_or(std::cmp::Ordering::Less, |(_, b)| {
                harm.order().cmp(&b.order())
            });
            if order.is_lt() {
                best.clear();
            }
            if order.is_le() {
                best.push((slot, harm));
            }
        }
        let count = best.len() as u64;
        (count > 0).then(|| best.swap_remove((draw % count) as usize))
    }

    /// By what the harm on nodes is when no budget is in the way; nodes are looked at until one stays as it seemed.
    fn least_harm_of_few(
        &mut self,
        id: u32,
        draw: u64,
        budgets: Budgets<'_>,
    ) -> Option<(u32, Harm)> {
        self.sync_costs(id);
        let (slot, cost) = self.shapes[id].costs.best(draw)?;
        let harm = self.harm(id, slot, Some(budgets));
        if let Some(harm) = harm
            && harm.violations == 0
            && harm.cost == cost
        {
            return Some((slot, harm));
        }
        let mut order = self.shapes[id].costs.all();
        order.sort_unstable();
        let mut best: Option<(u32, Harm)> = None;
        for (cost, slot) in order {
            if let Some((_, b)) = &best
                && b.violations == 0
                && b.cost <= cost
            {
                break;
            }
            if let Some(harm) = self.harm(id, slot, Some(budgets))
                && best.as_ref().is_none_or(|(_, b)| harm.order() < b.order())
            {
                best = Some((slot, harm));
            }
        }
        best
    }

    /// Brings the costs of displacing up to date.
    fn sync_costs(&mut self, id: u32) {
        let mut costs = std::mem::take(&mut self.shapes[id].costs);
        self.state.log.close();
        let Self {
            shapes,
            admissions,
            state,
            ..
        } = self;
        let shape = &shapes[id];
        let admission = &mut admissions[shape.kind.admission];
        admission.refresh(&state.images, state.known);
        let apart = shape.is_apart(state);
        costs.sync(admission.epoch, state, |slot| {
            let cell = admission.cell(slot as usize, state);
            let harm = if cell.admitted {
                harm(shape, slot, &cell, state, None, apart)
            } else {
                None
            };
            harm.map(|h| h.cost)
        });
        shapes[id].costs = costs;
    }

    fn harm(&self, id: u32, slot: u32, budgets: Option<Budgets<'_>>) -> Option<Harm> {
        let shape = &self.shapes[id];
        let cell = self.admissions[shape.kind.admission].peek(slot as usize, &self.state);
        harm(
            shape,
            slot,
            &cell,
            &self.state,
            budgets,
            shape.is_apart(&self.state),
        )
    }
}

impl Harm {
    fn order(&self) -> (u32, Cost) {
        (self.violations, self.cost)
    }
}

impl Shape {
    /// Whether other pods matter by their room and their ports alone.
    fn is_apart(&self, state: &State) -> bool {
        let own = &self.kind.own;
        let foreign = |t: &u32| {
            let term = &state.registry.terms[*t];
            term.anti.total != 0 || !term.anti_nominated.is_empty()
        };
        self.kind.bound
            || (own.affinity.is_empty()
                && own.anti.is_empty()
                && !own.spread.iter().any(|s| s.hard)
                && !self.foreign.iter().any(foreign))
    }
}

fn without(removed: &[u32]) -> Without<'_> {
    Without {
        removed,
        nominated: false,
    }
}

/// Whether a pod fits onto a node when all that may go are gone: these, and those of them that do not leave already.
fn cleared(
    shape: &Shape,
    slot: u32,
    cell: &crate::admission::Cell,
    state: &State,
) -> Option<(Vec<u32>, Vec<u32>)> {
    if !cell.admitted {
        return None;
    }
    let (mut removed, mut lower) = (Vec::new(), Vec::new());
    for pod in &state.nodes[slot as usize].pods {
        let known = &state.pods[*pod];
        if known.leaving {
            removed.push(*pod);
        } else if !known.stays && known.class.0.kind.priority < shape.kind.priority {
            lower.push(*pod);
        }
    }
    removed.extend(&lower);
    let fits = shape.fits(slot, cell, state, without(&removed));
    fits.then_some((removed, lower))
}

/// The least harm with which a pod gets onto a node; `None` when it does not even when all that may go are gone.
fn harm(
    shape: &Shape,
    slot: u32,
    cell: &crate::admission::Cell,
    state: &State,
    budgets: Option<Budgets<'_>>,
    apart: bool,
) -> Option<Harm> {
    let (mut removed, mut lower) = cleared(shape, slot, cell, state)?;
    let node = &state.nodes[slot as usize];
    // The most important first: these are kept first.
    lower.sort_unstable_by(|a, b| {
        let (a, b) = (&state.pods[*a], &state.pods[*b]);
        let by = |p: &crate::state::Pod| (Reverse(p.class.0.kind.priority), p.since);
        by(a).cmp(&by(b)).then_with(|| a.key.cmp(&b.key))
    });
    let (protected, free) = match budgets {
        Some(budgets) => protect(&lower, state, budgets),
        None => (Vec::new(), lower),
    };
    let by_room = apart && node.reserved.is_empty();
    let mut room = by_room.then(|| Room::of(state, node, shape.asker(), without(&removed)));
    let mut stays = |pod: u32, removed: &mut Vec<u32>| match &mut room {
        Some(room) => {
            let kind = &state.pods[pod].class.0.kind;
            room.change(&kind.requests, 1);
            let clash = |p: &crate::ports::Port| shape.kind.ports.iter().any(|q| q.conflicts(p));
            let stays = room.fits(&shape.kind.requests) && !kind.ports.iter().any(clash);
            if !stays {
                room.change(&kind.requests, -1);
            }
            stays
        }
        None => {
            removed.retain(|p| *p != pod);
            let stays = shape.fits(slot, cell, state, without(removed));
            if !stays {
                removed.push(pod);
            }
            stays
        }
    };
    let mut victims = Vec::new();
    for pod in protected {
        if !stays(pod, &mut removed) {
            victims.push(pod);
        }
    }
    let violations = victims.len() as u32;
    for pod in free {
        if !stays(pod, &mut removed) {
            victims.push(pod);
        }
    }
    victims.sort_by_key(|p| {
        (
            Reverse(state.pods[*p].class.0.kind.priority),
            state.pods[*p].since,
        )
    });
    Some(Harm {
        cost: Cost::of(victims.iter().map(|p| {
            let pod = &state.pods[*p];
            (pod.class.0.kind.priority, pod.since)
        })),
        victims,
        violations,
    })
}

/// Tells the pods apart whose removal, one after the other, would violate a budget.
fn protect(pods: &[u32], state: &State, budgets: Budgets<'_>) -> (Vec<u32>, Vec<u32>) {
    let mut spent: FxHashMap<ObjectKey, u32> = FxHashMap::default();
    pods.iter().copied().partition(|pod| {
        let mut violates = false;
        for (budget, allowed) in budgets(&state.pods[*pod].key).budgets {
            let spent = spent.entry(budget).or_insert(0);
            *spent += 1;
            violates |= *spent > allowed;
        }
        violates
    })
}
