//! Places that nodes share: for every topology key in use, the domain that each node is in.

use std::sync::Arc;

use rustc_hash::FxHashMap;

/// The domain of a node that lacks the key.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// A topology key, and the domains that the values of nodes' labels make.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The label's key.
    pub(crate) name: Arc<str>,
    ids: FxHashMap<Arc<str>, u32>,
    domains: Vec<Domain>,
    free: Vec<u32>,
    /// By slot.
    of: Vec<u32>,
    /// How many domains have nodes.
    pub(crate) inhabited: u32,
    /// Whether there are so many domains that looking at each for a decision costs more than following each node.
    pub(crate) fine: bool,
    /// Counts the changes of `fine`.
    pub(crate) turns: u64,
}

#[derive(Clone, Debug)]
struct Domain {
    value: Arc<str>,
    slots: Vec<u32>,
}

impl Key {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            ids: FxHashMap::default(),
            domains: Vec::new(),
            free: Vec::new(),
            of: Vec::new(),
            inhabited: 0,
            fine: false,
            turns: 0,
        }
    }

    /// The domain of a node; [`NOWHERE`] when it lacks the key.
    pub(crate) fn of(&self, slot: u32) -> u32 {
        self.of.get(slot as usize).copied().unwrap_or(NOWHERE)
    }

    /// The nodes of a domain.
    pub(crate) fn slots(&self, domain: u32) -> &[u32] {
        self.domains.get(domain as usize).map_or(&[], |d| &d.slots)
    }

    /// Whether a node with this value would be in `domain`.
    pub(crate) fn is(&self, domain: u32, value: Option<&str>) -> bool {
        match (value, self.domains.get(domain as usize)) {
            (None, _) => domain == NOWHERE,
            (Some(value), Some(known)) => *known.value == *value,
            (Some(_), None) => false,
        }
    }

    /// Puts a node where its label says.
    pub(crate) fn move_to(&mut self, slot: u32, value: Option<&str>) {
        let at = slot as usize;
        if at >= self.of.len() {
            self.of.resize(at + 1, NOWHERE);
        }
        let old = self.of[at];
        if self.is(old, value) {
            return;
        }
        if old != NOWHERE {
            let domain = &mut self.domains[old as usize];
            domain.slots.retain(|s| *s != slot);
            if domain.slots.is_empty() {
                // Nothing is counted in a domain without nodes, so its number can stand for another value.
                self.ids.remove(&domain.value);
                self.free.push(old);
                self.inhabited -= 1;
            }
        }
        self.of[at] = value.map_or(NOWHERE, |value| self.enter(slot, value));
    }

    fn enter(&mut self, slot: u32, value: &str) -> u32 {
        let id = match self.ids.get(value) {
            Some(id) => *id,
            None => {
                let value: Arc<str> = Arc::from(value);
                let domain = Domain {
                    value: value.clone(),
                    slots: Vec::new(),
                };
                let id = match self.free.pop() {
                    Some(id) => {
                        self.domains[id as usize] = domain;
                        id
                    }
                    None => {
                        self.domains.push(domain);
                        (self.domains.len() - 1) as u32
                    }
                };
                self.ids.insert(value, id);
                self.inhabited += 1;
                id
            }
        };
        self.domains[id as usize].slots.push(slot);
        id
    }

    /// Decides anew whether the key is fine; `most` is the number of domains up to which it is not.
    pub(crate) fn judge(&mut self, most: u32) {
        // With a gap between the two bounds, so that a node that comes and goes does not turn it every time.
        let bound = if self.fine { most / 2 } else { most };
        let fine = self.inhabited > bound;
        if fine != self.fine {
            self.fine = fine;
            self.turns += 1;
        }
    }
}

/// How many domains are counted in an array; the others are in a map.
const LOW: u32 = 256;

/// Amounts by domain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    low: Vec<i64>,
    high: FxHashMap<u32, i64>,
    /// The sum over all domains.
    pub(crate) total: i64,
}

impl Counts {
    pub(crate) fn get(&self, domain: u32) -> i64 {
        if domain < LOW {
            self.low.get(domain as usize).copied().unwrap_or(0)
        } else {
            self.high.get(&domain).copied().unwrap_or(0)
        }
    }

    pub(crate) fn add(&mut self, domain: u32, amount: i64) {
        self.total += amount;
        if domain < LOW {
            let at = domain as usize;
            if at >= self.low.len() {
                self.low.resize(at + 1, 0);
            }
            self.low[at] += amount;
            return;
        }
        let count = self.high.entry(domain).or_insert(0);
        *count += amount;
        if *count == 0 {
            self.high.remove(&domain);
        }
    }
}
