//! The domains among which a spread constraint spreads, with the pods that it counts in each.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::admission::Cell;
use crate::class::Kind;
use crate::own::Spread;
use crate::state::State;
use crate::terms::Registry;
use crate::topology::NOWHERE;

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) spread: Spread,
    pub(super) key: u32,
    matcher: u32,
    /// The keys that a node must have to count: those of all constraints of the same sort.
    keys: Vec<u32>,
    /// The priority from which nominated pods count.
    priority: i32,
    /// By slot: the domain that the node counts in, and with how many pods.
    by_slot: Vec<(u32, u32)>,
    /// By slot, where pods are nominated for the node: what that changes.
    claims_by_slot: FxHashMap<u32, Claims>,
    /// The same by domain.
    claims: FxHashMap<u32, Claims>,
    /// By domain: nodes, pods.
    domains: Vec<(u32, i64)>,
    /// How many domains that have nodes have how many pods.
    by_pods: BTreeMap<i64, u32>,
    inhabited: u32,
}

/// What the nominated pods of a node, or of a domain, make of the number of pods there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Claims {
    /// How many come.
    coming: i64,
    /// How many leave for nominated pods, whatever the priority of these.
    leaving: i64,
}

impl Table {
    pub(super) fn all(kind: &Kind, registry: &Registry) -> Vec<Self> {
        let spread = &kind.own.spread;
        let one = |s: &Spread| {
            let term = &registry.terms[s.term];
            let alike = spread.iter().filter(|o| o.hard == s.hard);
            Self {
                spread: s.clone(),
                key: term.key,
                matcher: term.matcher,
                keys: alike.map(|o| registry.terms[o.term].key).collect(),
                priority: kind.priority,
                by_slot: Vec::new(),
                claims_by_slot: FxHashMap::default(),
                claims: FxHashMap::default(),
                domains: Vec::new(),
                by_pods: BTreeMap::new(),
                inhabited: 0,
            }
        };
        spread.iter().map(one).collect()
    }

    /// Looks at a node again. Adds the nodes of a fine domain whose count changed to `more`.
    pub(super) fn update(&mut self, slot: u32, cell: &Cell, state: &State, more: &mut Vec<u32>) {
        let registry = &state.registry;
        let counts = self
            .keys
            .iter()
            .all(|k| registry.keys[*k].of(slot) != NOWHERE)
            && (!self.spread.honor_affinity || cell.selected)
            && (!self.spread.honor_taints || cell.tolerated);
        let key = &registry.keys[self.key];
        let now = if counts {
            let pods = registry.matchers[self.matcher].slots.get(slot);
            (key.of(slot), pods)
        } else {
            (NOWHERE, 0)
        };
        let at = slot as usize;
        if at >= self.by_slot.len() {
            self.by_slot.resize(at + 1, (NOWHERE, 0));
        }
        let old = std::mem::replace(&mut self.by_slot[at], now);
        if state.nominated > 0 || !self.claims_by_slot.is_empty() {
            self.claim(slot, old.0, now.0, state, more);
        }
        if old == now {
            return;
        }
        for ((domain, pods), sign) in [(old, -1), (now, 1)] {
            if domain != NOWHERE {
                self.count(domain, sign, sign * i64::from(pods));
                if key.fine {
                    more.extend(key.slots(domain));
                }
            }
        }
    }

    /// Looks again at who is nominated for a node, which counted in the domain `before` and counts in `now`.
    fn claim(&mut self, slot: u32, before: u32, now: u32, state: &State, more: &mut Vec<u32>) {
        let node = &state.nodes[slot as usize];
        let mut found = Claims::default();
        if now != NOWHERE && self.spread.hard && !node.nominated.is_empty() {
            let matching = |pod: &&u32| {
                let class = &state.pods[**pod].class.0;
                state.registry.selects(self.matcher, class.identity)
            };
            let counts = |pod: &&u32| state.pods[**pod].class.0.kind.priority >= self.priority;
            let coming = node.nominated.iter().filter(matching).filter(counts);
            let leaving = node.pods.iter().filter(matching);
            let leaving = leaving.filter(|pod| state.pods[**pod].leaving);
            found = Claims {
                coming: coming.count() as i64,
                leaving: leaving.count() as i64,
            };
        }
        let old = if found == Claims::default() {
            self.claims_by_slot.remove(&slot)
        } else {
            self.claims_by_slot.insert(slot, found)
        };
        let old = old.unwrap_or_default();
        if (before, old) == (now, found) {
            return;
        }
        for (domain, claims, sign) in [(before, old, -1), (now, found, 1)] {
            if domain == NOWHERE || claims == Claims::default() {
                continue;
            }
            let of_domain = self.claims.entry(domain).or_default();
            of_domain.coming += sign * claims.coming;
            of_domain.leaving += sign * claims.leaving;
            if *of_domain == Claims::default() {
                self.claims.remove(&domain);
            }
            let key = &state.registry.keys[self.key];
            if key.fine {
                more.extend(key.slots(domain));
            }
        }
    }

    fn count(&mut self, domain: u32, nodes: i64, pods: i64) {
        let at = domain as usize;
        if at >= self.domains.len() {
            self.domains.resize(at + 1, (0, 0));
        }
        let (had, counted) = self.domains[at];
        if had > 0 {
            self.inhabited -= 1;
            if let Some(n) = self.by_pods.get_mut(&counted) {
                *n -= 1;
                if *n == 0 {
                    self.by_pods.remove(&counted);
                }
            }
        }
        let now = (had.saturating_add_signed(nodes as i32), counted + pods);
        self.domains[at] = now;
        if now.0 > 0 {
            self.inhabited += 1;
            *self.by_pods.entry(now.1).or_insert(0) += 1;
        }
    }

    /// How many pods a domain has.
    pub(super) fn pods(&self, domain: u32) -> i64 {
        self.domains.get(domain as usize).map_or(0, |d| d.1)
    }

    /// The least number of pods of any domain.
    pub(super) fn least(&self) -> i64 {
        self.least_without(NOWHERE, 0)
    }

    /// The same when `domain` had `fewer` pods fewer.
    pub(super) fn least_without(&self, domain: u32, fewer: i64) -> i64 {
        if self.inhabited < self.spread.min_domains {
            return 0;
        }
        let first = self.by_pods.keys().next().copied().unwrap_or(0);
        match self.domains.get(domain as usize) {
            Some((nodes, pods)) if *nodes > 0 => first.min(pods - fewer),
            _ => first,
        }
    }

    /// How many pods a domain will have once the pods that are nominated for nodes there have come and those have left
    /// that make room for them; `None` when none of them counts.
    pub(super) fn pods_then(&self, domain: u32) -> Option<i64> {
        let claims = self.claims.get(&domain).filter(|c| c.coming > 0)?;
        Some(self.pods(domain) + claims.coming - claims.leaving)
    }

    /// The least number of pods that any domain will have then.
    pub(super) fn least_then(&self) -> i64 {
        self.least_then_without(NOWHERE, 0)
    }

    /// The same when `domain` had `fewer` pods fewer.
    pub(super) fn least_then_without(&self, domain: u32, fewer: i64) -> i64 {
        if self.inhabited < self.spread.min_domains {
            return 0;
        }
        let mut others: FxHashMap<i64, u32> = FxHashMap::default();
        let mut least = i64::MAX;
        let mut all = self.claims.keys().copied().collect::<Vec<_>>();
        if domain != NOWHERE && !self.claims.contains_key(&domain) {
            all.push(domain);
        }
        for domain_then in all {
            let Some((nodes, pods)) = self.domains.get(domain_then as usize) else {
                continue;
            };
            if *nodes == 0 {
                continue;
            }
            *others.entry(*pods).or_insert(0) += 1;
            let claims = self.claims.get(&domain_then).copied().unwrap_or_default();
            let gone = if domain_then == domain { fewer } else { 0 };
            least = least.min(pods + claims.coming - claims.leaving - gone);
        }
        // Of the domains where nothing changes the emptiest.
        let same = self.by_pods.iter();
        let mut same = same.filter(|(pods, n)| others.get(pods).is_none_or(|o| o < *n));
        let same = same.next().map_or(i64::MAX, |(pods, _)| *pods);
        match least.min(same) {
            i64::MAX => 0,
            least => least,
        }
    }

    /// Whether somebody is nominated for the node, so that those who leave it are left out of what it will have.
    pub(super) fn is_claimed(&self, slot: u32) -> bool {
        self.claims_by_slot.contains_key(&slot)
    }

    /// Whether pods on the node are counted.
    pub(super) fn counts(&self, slot: u32) -> bool {
        self.by_slot
            .get(slot as usize)
            .is_some_and(|s| s.0 != NOWHERE)
    }
}
