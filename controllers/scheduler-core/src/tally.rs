//! How many pods of some sort each node has: a map while few nodes have any, and an array once many do, where counting is
//! one step to a place that is known.

use rustc_hash::FxHashMap;

/// From what share of the nodes on that have any the array is used, as a divisor: it takes as much memory as the map then.
const MANY: usize = 6;
/// Below so many it is the map in any case.
const FEW: usize = 64;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    map: FxHashMap<u32, u32>,
    /// By slot; used instead of the map when it is not empty.
    array: Vec<u32>,
    /// How many slots have any, where that is in the array.
    held: usize,
    /// No slot that was ever counted is greater.
    most: u32,
}

impl Tally {
    /// How many a node has.
    pub(crate) fn get(&self, slot: u32) -> u32 {
        if self.array.is_empty() {
            self.map.get(&slot).copied().unwrap_or(0)
        } else {
            self.array.get(slot as usize).copied().unwrap_or(0)
        }
    }

    /// Counts so many more on a node.
    pub(crate) fn add(&mut self, slot: u32, count: u32) {
        if count > 0 {
            self.set(slot, self.get(slot).saturating_add(count));
        }
    }

    /// Counts so many fewer on a node.
    pub(crate) fn take(&mut self, slot: u32, count: u32) {
        self.set(slot, self.get(slot).saturating_sub(count));
    }

    /// The nodes that have any, with how many, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let array = self.array.iter().enumerate();
        let array = array.map(|(slot, count)| (slot as u32, *count));
        let map = self.map.iter().map(|(slot, count)| (*slot, *count));
        array.chain(map).filter(|(_, count)| *count > 0)
    }

    fn set(&mut self, slot: u32, count: u32) {
        if self.array.is_empty() {
            if count == 0 {
                self.map.remove(&slot);
                return;
            }
            self.map.insert(slot, count);
            self.most = self.most.max(slot);
            if self.map.len() >= FEW && self.map.len() * MANY > self.most as usize {
                self.unfold();
            }
            return;
        }
        let at = slot as usize;
        if at >= self.array.len() {
            if count == 0 {
                return;
            }
            self.most = slot;
            self.array.resize(at + 1, 0);
        }
        let known = std::mem::replace(&mut self.array[at], count);
        self.held = self.held + usize::from(count > 0) - usize::from(known > 0);
        // With a gap between the two bounds, so that one that comes and goes does not turn it every time.
        if self.held * MANY * 4 < self.array.len() || self.held < FEW / 4 {
            self.map = self.iter().collect();
            self.array = Vec::new();
        }
    }

    fn unfold(&mut self) {
        self.held = self.map.len();
        self.array = vec![0; self.most as usize + 1];
        for (slot, count) in std::mem::take(&mut self.map) {
            self.array[slot as usize] = count;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tally_counts_as_a_map_does(steps in proptest::collection::vec((0..700_u32, 0..4_u32, proptest::bool::weighted(0.6)), 0..1500), spread in 1..40_u32) {
            let (mut tally, mut map) = (Tally::default(), BTreeMap::<u32, u32>::new());
            for (slot, count, more) in steps {
                let slot = if slot < 200 { slot } else { slot * spread };
                let known = map.entry(slot).or_insert(0);
                if more {
                    tally.add(slot, count);
                    *known += count;
                } else {
                    tally.take(slot, count);
                    *known = known.saturating_sub(count);
                }
                prop_assert_eq!(tally.get(slot), *known);
            }
            map.retain(|_, count| *count > 0);
            prop_assert_eq!(tally.iter().collect::<BTreeMap<_, _>>(), map);
        }
    }
}
