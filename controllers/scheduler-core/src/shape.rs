//! The nodes that can run the pods of a class, repaired as nodes change: all nodes in groups that other pods treat alike,
//! each group ordered by what the nodes themselves are worth.
//!
//! What depends on other pods (affinity, anti-affinity, spreading) is a matter of domains. A topology key with few
//! domains is *coarse*: the groups are told apart by the domain, and whether a group can be chosen, and how good it is, is
//! read from the counts of its domain when a decision is made. So a pod that comes to a zone costs nothing per node of
//! the zone. A key with many domains, as host names have, is *fine*: groups are told apart by the count itself, and the
//! nodes of a domain change groups when its count changes. A class that nothing of this matters to has one group.

mod choose;
mod plan;
mod reasons;
mod table;

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::admission::{Admission, Cell};
use crate::class::Kind;
use crate::node::Node;
use crate::preempt::Costs;
use crate::rank::Ranking;
use crate::reasons::Unschedulable;
use crate::room::{Asker, Without};
use crate::state::State;

pub(crate) use choose::{Choice, Social};
use plan::Plan;
pub(crate) use reasons::Finding;
use table::Table;

/// No group.
const NONE: u32 = u32::MAX;

/// See the module. Classes share a shape when they ask the same, and the same wishes of others are about them.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) kind: Arc<Kind>,
    /// The terms by which other pods want something of these.
    pub(crate) foreign: Box<[u32]>,
    /// The matchers of reservations that they own.
    owned: Box<[u32]>,
    /// Whether they match their own required affinity.
    own_affinity: bool,
    plan: Plan,
    tables: Vec<Table>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    by_signature: FxHashMap<Box<[i64]>, u32>,
    /// By slot: the group and the place in it. Empty when there is one group, where the place is the slot.
    places: Vec<(u32, u32)>,
    nodes: usize,
    built: bool,
    epoch: u64,
    seen: u64,
    /// When the reasons were made (in which call that decides, at which end of the log), and they.
    pub(crate) verdict: Option<((u64, u64), Arc<Unschedulable>)>,
    pub(crate) costs: Costs,
    /// When it was last used, in calls.
    pub(crate) used_at: u64,
}

/// Nodes that other pods treat alike.
#[derive(Debug, Default)]
struct Group {
    signature: Box<[i64]>,
    ranking: Ranking,
    /// By place.
    slots: Vec<u32>,
    free: Vec<u32>,
}

impl Shape {
    pub(crate) fn new(
        kind: Arc<Kind>,
        foreign: Box<[u32]>,
        owned: Box<[u32]>,
        own_affinity: bool,
    ) -> Self {
        Self {
            kind,
            foreign,
            owned,
            own_affinity,
            plan: Plan::default(),
            tables: Vec::new(),
            groups: Vec::new(),
            free_groups: Vec::new(),
            by_signature: FxHashMap::default(),
            places: Vec::new(),
            nodes: 0,
            built: false,
            epoch: 0,
            seen: 0,
            verdict: None,
            costs: Costs::default(),
            used_at: 0,
        }
    }

    /// The node of pods that name one, and that need no look at the others.
    pub(crate) fn only_node(&self) -> Option<&Arc<str>> {
        let alone = self.kind.bound || self.kind.own.spread.is_empty();
        self.kind.only_node.as_ref().filter(|_| alone)
    }

    /// Whether other pods matter beyond the room that they take.
    pub(crate) fn is_social(&self) -> bool {
        let own = &self.kind.own;
        !self.kind.bound
            && (!own.affinity.is_empty()
                || !own.anti.is_empty()
                || own.spread.iter().any(|s| s.hard)
                || !self.foreign.is_empty())
    }

    /// Whether the pods want to be near others, or spread: then pods that arrive can help.
    pub(crate) fn needs_others(&self) -> bool {
        let own = &self.kind.own;
        !self.kind.bound && (!own.affinity.is_empty() || own.spread.iter().any(|s| s.hard))
    }

    /// How much is remembered, in nodes.
    pub(crate) fn len(&self) -> usize {
        self.nodes * (1 + 2 * usize::from(!self.plan.flat) + 2 * self.tables.len())
            + self.costs.len()
    }

    /// Forgets what is remembered of nodes.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(
            self.kind.clone(),
            std::mem::take(&mut self.foreign),
            std::mem::take(&mut self.owned),
            self.own_affinity,
        );
    }

    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker {
            kind: &self.kind,
            owned: &self.owned,
        }
    }

    /// Brings everything up to date.
    pub(crate) fn sync(&mut self, admission: &mut Admission, state: &State) {
        let end = state.log.end();
        admission.refresh(&state.images, state.known);
        let valid = self.built
            && self.epoch == admission.epoch
            && self.plan.turns == state.registry.turns(&self.plan.keys);
        if valid && self.seen == end {
            return;
        }
        match state.log.since(self.seen) {
            Some(slots) if valid => self.repair(slots, admission, state),
            _ => self.rebuild(admission, state),
        }
        for group in &mut self.groups {
            group.ranking.settle();
        }
        self.seen = end;
        self.nodes = state.nodes.len();
    }

    fn rebuild(&mut self, admission: &mut Admission, state: &State) {
        self.built = true;
        self.epoch = admission.epoch;
        self.plan = Plan::new(&self.kind, &self.foreign, &state.registry);
        self.groups.clear();
        self.free_groups.clear();
        self.by_signature.clear();
        self.places.clear();
        self.tables = if self.plan.flat {
            Vec::new()
        } else {
            Table::all(&self.kind, &state.registry)
        };
        if self.plan.flat {
            self.groups.push(Group::default());
        }
        self.repair(0..state.nodes.len() as u32, admission, state);
    }

    fn repair(
        &mut self,
        slots: impl Iterator<Item = u32> + Clone,
        admission: &mut Admission,
        state: &State,
    ) {
        if self.plan.flat {
            self.groups[0].ranking.reserve(state.nodes.len());
            for slot in slots {
                let at = slot as usize;
                let score = self.local(at, &admission.cell(at, state), state);
                self.groups[0].ranking.set(at, score);
            }
            return;
        }
        // First the counts of all domains, then what follows from them for single nodes.
        let mut more = Vec::new();
        if !self.tables.is_empty() {
            for slot in slots.clone() {
                let cell = admission.cell(slot as usize, state);
                for table in &mut self.tables {
                    table.update(slot, &cell, state, &mut more);
                }
            }
        }
        self.places.resize(state.nodes.len(), (NONE, 0));
        let mut signature = Vec::new();
        for slot in slots.chain(more) {
            let at = slot as usize;
            let cell = admission.cell(at, state);
            let score = self
                .local(at, &cell, state)
                .filter(|_| self.sign(slot, state, &mut signature));
            self.put(slot, score, &signature);
        }
    }

    /// What a node is worth by itself; `None` when it cannot run the pods whatever runs elsewhere.
    fn local(&self, slot: usize, cell: &Cell, state: &State) -> Option<i32> {
        let kind = &*self.kind;
        let glance = &state.glances[slot];
        if !cell.admitted {
            return None;
        }
        let fits = if glance.needs_look(&kind.requests) {
            let node = &state.nodes[slot];
            if node.is_special() {
                self.room_fits(node, state, Without::default())
                    && self.ports_not_nominated(node, state)
            } else {
                node.fits(&kind.requests)
            }
        } else {
            glance.fits(&kind.requests)
        };
        let fits = fits && (kind.ports.is_empty() || state.nodes[slot].ports.free(&kind.ports));
        fits.then(|| self.worth(slot, cell, state))
    }

    fn worth(&self, slot: usize, cell: &Cell, state: &State) -> i32 {
        cell.parts.iter().sum::<i32>() + self.room_score(slot, state)
    }

    /// The part of the score that is for free room.
    pub(crate) fn room_score(&self, slot: usize, state: &State) -> i32 {
        let profile = &self.kind.profile;
        state.glances[slot].score(
            self.kind.weighed,
            profile.strategy,
            profile.weights.resources,
        )
    }

    fn ports_not_nominated(&self, node: &Node, state: &State) -> bool {
        let kind = &self.kind;
        kind.ports.is_empty()
            || !node.nominated.iter().any(|pod| {
                let other = &state.pods[*pod].class.0.kind;
                let clash = |p: &crate::ports::Port| kind.ports.iter().any(|q| q.conflicts(p));
                other.priority >= kind.priority && other.ports.iter().any(clash)
            })
    }

    /// Puts a node into the group with a signature, or takes it out of all.
    fn put(&mut self, slot: u32, score: Option<i32>, signature: &[i64]) {
        let (group, place) = self.places[slot as usize];
        let stays = group != NONE
            && score.is_some()
            && *self.groups[group as usize].signature == *signature;
        if stays {
            self.groups[group as usize]
                .ranking
                .set(place as usize, score);
            return;
        }
        if group != NONE {
            self.leave(group, place);
            self.places[slot as usize] = (NONE, 0);
        }
        if let Some(score) = score {
            self.places[slot as usize] = self.enter(slot, score, signature);
        }
    }

    fn leave(&mut self, id: u32, place: u32) {
        let group = &mut self.groups[id as usize];
        group.ranking.set(place as usize, None);
        group.free.push(place);
        if group.ranking.feasible() == 0 {
            let group = std::mem::take(group);
            self.by_signature.remove(&group.signature);
            self.free_groups.push(id);
        }
    }

    fn enter(&mut self, slot: u32, score: i32, signature: &[i64]) -> (u32, u32) {
        let id = match self.by_signature.get(signature) {
            Some(id) => *id,
            None => {
                let id = self.free_groups.pop().unwrap_or_else(|| {
                    self.groups.push(Group::default());
                    (self.groups.len() - 1) as u32
                });
                self.groups[id as usize].signature = signature.into();
                self.by_signature.insert(signature.into(), id);
                id
            }
        };
        let group = &mut self.groups[id as usize];
        let place = group.free.pop().unwrap_or_else(|| {
            group.slots.push(slot);
            (group.slots.len() - 1) as u32
        });
        group.slots[place as usize] = slot;
        group.ranking.set(place as usize, Some(score));
        (id, place)
    }
}
