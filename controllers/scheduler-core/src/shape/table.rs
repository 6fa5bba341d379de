//! The domains among which a spread constraint spreads, with the pods that it counts in each.

use std::collections::BTreeMap;

use crate::admission::Cell;
use crate::class::Kind;
use crate::own::Spread;
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
    /// By slot: the domain that the node counts in, and with how many pods.
    by_slot: Vec<(u32, u32)>,
    /// By domain: nodes, pods.
    domains: Vec<(u32, i64)>,
    /// How many domains that have nodes have how many pods.
    by_pods: BTreeMap<i64, u32>,
    inhabited: u32,
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
                by_slot: Vec::new(),
                domains: Vec::new(),
                by_pods: BTreeMap::new(),
                inhabited: 0,
            }
        };
        spread.iter().map(one).collect()
    }

    /// Looks at a node again. Adds the nodes of a fine domain whose count changed to `more`.
    pub(super) fn update(
        &mut self,
        slot: u32,
        cell: &Cell,
        registry: &Registry,
        more: &mut Vec<u32>,
    ) {
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

    /// Whether pods on the node are counted.
    pub(super) fn counts(&self, slot: u32) -> bool {
        self.by_slot
            .get(slot as usize)
            .is_some_and(|s| s.0 != NOWHERE)
    }
}
