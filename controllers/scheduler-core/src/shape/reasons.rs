//! Why a single node cannot run a pod: the same rules as for groups, read for one node, also as they would be without
//! some of the pods that are there.

use crate::admission::{Admission, Cell};
use crate::node::Node;
use crate::reasons::Reason;
use crate::resources::{NAMES, PODS};
use crate::room::{Room, Without};
use crate::shape::Shape;
use crate::state::State;
use crate::topology::NOWHERE;

/// What keeps a pod off a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) reason: Reason,
    /// Whether pods that leave or arrive can change it.
    pub(crate) waits: bool,
    /// How much is missing of a resource, in its unit; 0 for other reasons.
    pub(crate) missing: i64,
}

impl Finding {
    fn new(reason: Reason, waits: bool) -> Self {
        Self {
            reason,
            waits,
            missing: 0,
        }
    }
}

impl Shape {
    /// The score of a node for pods that can run there alone.
    pub(crate) fn score_alone(
        &self,
        slot: u32,
        admission: &Admission,
        state: &State,
    ) -> Option<i64> {
        let cell = admission.peek(slot as usize, state);
        let fits = self.fits(slot, &cell, state, Without::default());
        fits.then(|| i64::from(self.worth(slot as usize, &cell, state)))
    }

    /// Whether a pod could run on a node.
    pub(crate) fn fits(&self, slot: u32, cell: &Cell, state: &State, without: Without<'_>) -> bool {
        if !cell.admitted {
            return false;
        }
        let node = &state.nodes[slot as usize];
        self.room_fits(node, state, without)
            && self.ports_free(node, state, without)
            && (!self.is_social() || {
                let mut open = true;
                self.social_findings(slot, state, without, &mut |_| open = false);
                open
            })
    }

    /// Whether there is room.
    pub(super) fn room_fits(&self, node: &Node, state: &State, without: Without<'_>) -> bool {
        let rooms = self.rooms(node, state, without);
        rooms.iter().all(|r| r.fits(&self.kind.requests))
    }

    /// What there must be room in: the node as it is now, and as it will be when those who leave have made room for
    /// nominated pods.
    fn rooms(&self, node: &Node, state: &State, without: Without<'_>) -> Vec<Room> {
        let room = |without| Room::of(state, node, self.asker(), without);
        if node.nominated.is_empty() || without.nominated || !without.removed.is_empty() {
            return vec![room(without)];
        }
        let pods = node.pods.iter().copied();
        let leaving: Vec<u32> = pods.filter(|p| state.pods[*p].leaving).collect();
        let now = Without {
            removed: &[],
            nominated: true,
        };
        let then = Without {
            removed: &leaving,
            nominated: false,
        };
        vec![room(now), room(then)]
    }

    /// Whether the ports are free.
    fn ports_free(&self, node: &Node, state: &State, without: Without<'_>) -> bool {
        let removed = without.removed;
        let kind = &self.kind;
        if kind.ports.is_empty() {
            return true;
        }
        let free = if removed.is_empty() {
            node.ports.free(&kind.ports)
        } else {
            let clash = |pod: &u32| {
                let ports = &state.pods[*pod].class.0.kind.ports;
                ports
                    .iter()
                    .any(|p| kind.ports.iter().any(|q| q.conflicts(p)))
            };
            !node.pods.iter().any(|p| !removed.contains(p) && clash(p))
        };
        free && (without.nominated || self.ports_not_nominated(node, state))
    }

    /// Everything that keeps a pod off a node now. When the node is out of the question whatever runs there, only that
    /// is told.
    pub(crate) fn findings(&self, slot: u32, admission: &Admission, state: &State) -> Vec<Finding> {
        let node = &state.nodes[slot as usize];
        let mut found = Vec::new();
        admission
            .rules
            .refusals(node, &mut |r| found.push(Finding::new(r, false)));
        self.room_findings(node, state, &mut found);
        if !self.ports_free(node, state, Without::default()) {
            found.push(Finding::new(Reason::Ports, true));
        }
        if self.is_social() {
            self.social_findings(slot, state, Without::default(), &mut |f| found.push(f));
        }
        found
    }

    fn room_findings(&self, node: &Node, state: &State, found: &mut Vec<Finding>) {
        let rooms = self.rooms(node, state, Without::default());
        let requests = &self.kind.requests;
        for (i, amount) in requests.fixed.into_iter().enumerate() {
            let missing = rooms.iter().map(|r| r.lacks(i, amount)).max().unwrap_or(0);
            if missing > 0 {
                let reason = if i == PODS {
                    Reason::TooManyPods
                } else {
                    Reason::Insufficient(NAMES[i].into())
                };
                let waits = amount <= node.allocatable[i];
                found.push(Finding {
                    reason,
                    waits,
                    missing,
                });
            }
        }
        for (name, amount) in &requests.extended {
            let missing = rooms
                .iter()
                .map(|r| r.lacks_extended(*name, *amount))
                .max()
                .unwrap_or(0);
            if missing > 0 {
                let reason = Reason::Insufficient(state.interner.text(*name).clone());
                let has = node
                    .extended
                    .iter()
                    .find(|e| e.0 == *name)
                    .map_or(0, |e| e.1);
                found.push(Finding {
                    reason,
                    waits: *amount <= has,
                    missing,
                });
            }
        }
    }

    /// What other pods are a reason of.
    fn social_findings(
        &self,
        slot: u32,
        state: &State,
        without: Without<'_>,
        tell: &mut dyn FnMut(Finding),
    ) {
        let (registry, removed) = (&state.registry, without.removed);
        let domain_of = |term: u32| registry.keys[registry.terms[term].key].of(slot);
        let matching = |term: u32| {
            let matcher = registry.terms[term].matcher;
            let matches = |p: &&u32| registry.selects(matcher, state.pods[**p].class.0.identity);
            removed.iter().filter(matches).count() as i64
        };
        let left_out = |term: u32| {
            let matcher = registry.terms[term].matcher;
            let pods = removed.iter().map(|p| &state.pods[*p]);
            let pods = pods.filter(|p| p.leaving);
            let pods = pods.filter(|p| registry.selects(matcher, p.class.0.identity));
            pods.count() as i64
        };
        let holders = |term: u32| {
            let holds = |p: &&u32| state.pods[**p].class.0.kind.own.anti.contains(&term);
            removed.iter().filter(holds).count() as i64
        };
        let own = &self.kind.own;
        let mut lacks_key = false;
        let (mut here, mut anywhere) = (true, 0);
        for term in &own.affinity {
            let domain = domain_of(*term);
            let pods = &registry.terms[*term].pods;
            anywhere += pods.total;
            if domain == NOWHERE {
                lacks_key = true;
            } else {
                let gone = matching(*term);
                here &= pods.get(domain) > gone;
                anywhere -= gone;
            }
        }
        if lacks_key {
            tell(Finding::new(Reason::PodAffinity, false));
        } else if !(here || (anywhere == 0 && self.own_affinity)) {
            tell(Finding::new(Reason::PodAffinity, true));
        }
        let priority = self.kind.priority;
        let coming = |n: i64| if without.nominated { 0 } else { n };
        let away = own.anti.iter().any(|t| {
            let (term, domain) = (&registry.terms[*t], domain_of(*t));
            domain != NOWHERE
                && (term.pods.get(domain) > matching(*t)
                    || coming(term.nominated(domain, priority)) > 0)
        });
        if away {
            tell(Finding::new(Reason::PodAntiAffinity, true));
        }
        let kept_away = self.foreign.iter().any(|t| {
            let (term, domain) = (&registry.terms[*t], domain_of(*t));
            domain != NOWHERE
                && (term.anti.get(domain) > holders(*t)
                    || coming(term.anti_nominated(domain, priority)) > 0)
        });
        if kept_away {
            tell(Finding::new(Reason::ExistingAntiAffinity, true));
        }
        let (mut unlabelled, mut crowded) = (false, false);
        for table in self.tables.iter().filter(|t| t.spread.hard) {
            let domain = domain_of(table.spread.term);
            if domain == NOWHERE {
                unlabelled = true;
                continue;
            }
            let gone = if table.counts(slot) {
                matching(table.spread.term)
            } else {
                0
            };
            let crowds = |pods: i64, least: i64| {
                pods + i64::from(table.spread.own) - least > table.spread.max_skew
            };
            let pods = table.pods(domain) - gone;
            crowded |= crowds(pods, table.least_without(domain, gone));
            if without.nominated {
                continue;
            }
            if let Some(then) = table.pods_then(domain) {
                // Those who leave for nominated pods are left out of it already.
                let gone = match table.is_claimed(slot) {
                    true => gone - left_out(table.spread.term),
                    false => gone,
                };
                crowded |= crowds(then - gone, table.least_then_without(domain, gone));
            }
        }
        if unlabelled {
            tell(Finding::new(Reason::SpreadLabel, false));
        } else if crowded {
            tell(Finding::new(Reason::Spread, true));
        }
    }
}
