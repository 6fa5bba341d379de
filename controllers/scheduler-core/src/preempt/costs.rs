//! What displacing costs, by node, kept up to date as nodes change.

use std::cmp::Reverse;

use crate::state::State;

const BLOCK: usize = 64;

/// How much harm it does to take a pod's victims; less is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    /// The priority of the most important one.
    top: i32,
    /// The sum of the priorities, each counted from the least one that there is.
    sum: i64,
    count: u32,
    /// When the oldest of the most important ones began: newer is better.
    since: Reverse<i64>,
}

impl Cost {
    /// The cost of victims with these priorities and beginnings.
    pub(super) fn of(victims: impl Iterator<Item = (i32, i64)> + Clone) -> Self {
        let top = victims.clone().map(|v| v.0).max();
        let oldest = victims
            .clone()
            .filter(|v| Some(v.0) == top)
            .map(|v| v.1)
            .min();
        let above = |p: i32| i64::from(p) - i64::from(i32::MIN);
        Self {
            top: top.unwrap_or(i32::MIN),
            sum: victims.clone().map(|v| above(v.0)).sum(),
            count: victims.count() as u32,
            since: Reverse(oldest.unwrap_or(i64::MAX)),
        }
    }
}

/// The costs by node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs {
    by_slot: Vec<Option<Cost>>,
    /// By block of slots: the least cost, and how many have it.
    blocks: Vec<Option<(Cost, u32)>>,
    seen: Option<(u64, u64)>,
}

impl Costs {
    /// How much is remembered, in words of 4 bytes.
    pub(crate) fn len(&self) -> usize {
        self.by_slot.len() * 8
    }

    /// Looks again at the nodes that changed.
    pub(super) fn sync(
        &mut self,
        epoch: u64,
        state: &State,
        mut cost: impl FnMut(u32) -> Option<Cost>,
    ) {
        let end = state.log.end();
        let seen = self.seen.filter(|s| s.0 == epoch).map(|s| s.1);
        self.by_slot.resize(state.nodes.len(), None);
        self.blocks.resize(state.nodes.len().div_ceil(BLOCK), None);
        match seen.and_then(|seen| state.log.since(seen)) {
            Some(slots) => {
                let mut touched = Vec::new();
                for slot in slots {
                    let now = cost(slot);
                    let known = &mut self.by_slot[slot as usize];
                    if *known != now {
                        *known = now;
                        touched.push(slot as usize / BLOCK);
                    }
                }
                touched.sort_unstable();
                touched.dedup();
                for block in touched {
                    self.settle(block);
                }
            }
            None => {
                for slot in 0..state.nodes.len() {
                    self.by_slot[slot] = cost(slot as u32);
                }
                for block in 0..self.blocks.len() {
                    self.settle(block);
                }
            }
        }
        self.seen = Some((epoch, end));
    }

    fn settle(&mut self, block: usize) {
        let slots = block * BLOCK..((block + 1) * BLOCK).min(self.by_slot.len());
        let costs = self.by_slot[slots].iter().flatten();
        let least = costs.clone().min();
        self.blocks[block] =
            least.map(|least| (*least, costs.filter(|c| *c == least).count() as u32));
    }

    /// The node with the least cost, of several the one that `draw` falls on.
    pub(super) fn best(&self, draw: u64) -> Option<(u32, Cost)> {
        let least = self.blocks.iter().flatten().map(|b| b.0).min()?;
        let same = self.blocks.iter().enumerate();
        let same = same.filter_map(|(i, b)| Some((i, b.filter(|b| b.0 == least)?.1)));
        let count: u32 = same.clone().map(|b| b.1).sum();
        let mut n = (draw % u64::from(count)) as u32;
        for (block, held) in same {
            if n < held {
                let slots = block * BLOCK..((block + 1) * BLOCK).min(self.by_slot.len());
                let mut holders = slots.filter(|s| self.by_slot[*s] == Some(least));
                return holders.nth(n as usize).map(|s| (s as u32, least));
            }
            n -= held;
        }
        None
    }

    /// All nodes with their costs.
    pub(super) fn all(&self) -> Vec<(Cost, u32)> {
        let all = self.by_slot.iter().enumerate();
        all.filter_map(|(slot, cost)| Some(((*cost)?, slot as u32)))
            .collect()
    }
}
