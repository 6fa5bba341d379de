//! The book of claims to look at and of tombstones that stand. Pure: it takes changes and outcomes and returns writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::keyspace::uid_name;
use setpoint_apis::{Keyspace, ObjectKey};
use setpoint_runtime::{View, Write};

use super::look::{claim_write, facts, stone_write};
use super::{ClaimStep, StoneStep, claim_step, stone_step};
use crate::observe::node_exists;

/// A tombstone: its node and its name, [`uid_name`] of the claim's uid.
pub(crate) type Stone = (Arc<str>, String);

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// The claim of a name, and its status.
    Claim(ObjectKey),
    /// A tombstone.
    Stone(Stone),
}

impl Item {
    /// For logs.
    pub(crate) fn object(&self) -> ObjectKey {
        match self {
            Self::Claim(key) => key.clone(),
            Self::Stone((node, name)) => ObjectKey::namespaced(node.clone(), name.as_str()),
        }
    }
}

/// What a write makes true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The status of a claim has changed, or is gone.
    Status,
    /// There is a tombstone, and the claim is no longer among the content of that node.
    Buried(Stone),
    /// The tombstone of this revision is gone.
    Cleared(i64),
}

/// A write about an item.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) item: Item,
    pub(crate) write: Write,
    pub(crate) effect: Effect,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// A write is under way.
    busy: bool,
    /// Something changed meanwhile.
    again: bool,
    /// Not decided before the view has reached this revision: the change that brings it there is one of this item.
    not_before: i64,
    failures: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    dirty: BTreeSet<Item>,
    slots: FxHashMap<Item, Slot>,
    /// Those that stand, with the revisions at which they were written.
    stones: BTreeMap<Stone, i64>,
    /// Claims that pods on nodes without a session wait for: looked at when a node comes back.
    waiting: BTreeSet<ObjectKey>,
}

impl Tombstones {
    /// A tombstone that is found in the store.
    pub(crate) fn found(&mut self, stone: Stone, revision: i64) {
        self.dirty.insert(Item::Stone(stone.clone()));
        self.stones.insert(stone, revision);
    }

    /// Looks at something.
    pub(crate) fn touch(&mut self, item: Item) {
        self.dirty.insert(item);
    }

    /// A node has changed: its tombstones are looked at.
    pub(crate) fn node_changed(&mut self, node: &Arc<str>) {
        let from = (node.clone(), String::new());
        let there = self.stones.range(from..);
        let there = there.take_while(|((on, _), _)| on == node);
        let items: Vec<_> = there.map(|(stone, _)| Item::Stone(stone.clone())).collect();
        self.dirty.extend(items);
    }

    /// A node's session has begun or ended.
    pub(crate) fn session_changed(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.dirty.extend(waiting.into_iter().map(Item::Claim));
    }

    /// All tombstones are looked at.
    pub(crate) fn resync(&mut self) {
        let all = self.stones.keys().cloned().map(Item::Stone);
        self.dirty.extend(all.collect::<Vec<_>>());
    }

    /// Whether there is something to look at.
    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Plans at most `limit` writes. `used`: whether pods that are bound, or are about to be, use a claim.
    pub(crate) fn plan(
        &mut self,
        view: &View<'_>,
        keyspace: &Keyspace,
        limit: usize,
        used: impl Fn(&ObjectKey) -> bool,
    ) -> Vec<Planned> {
        let mut planned = Vec::new();
        while planned.len() < limit
            && let Some(item) = self.dirty.pop_first()
        {
            if let Some(slot) = self.slots.get_mut(&item) {
                if slot.busy {
                    slot.again = true;
                    continue;
                }
                if slot.not_before > view.revision().0 {
                    continue;
                }
            }
            let next = match &item {
                Item::Claim(key) => self.look_at_claim(view, keyspace, key, used(key)),
                Item::Stone(stone) => self.look_at_stone(view, keyspace, stone),
            };
            match next {
                Some((write, effect)) => {
                    self.slots.entry(item.clone()).or_default().busy = true;
                    planned.push(Planned {
                        item,
                        write,
                        effect,
                    });
                }
                None => drop(self.slots.remove(&item)),
            }
        }
        planned
    }

    fn look_at_claim(
        &mut self,
        view: &View<'_>,
        keyspace: &Keyspace,
        key: &ObjectKey,
        used: bool,
    ) -> Option<(Write, Effect)> {
        let (facts, lost) = facts(view, key, used);
        match lost && facts.waited_for_on.is_none() {
            true => drop(self.waiting.insert(key.clone())),
            false => drop(self.waiting.remove(key)),
        }
        let step = claim_step(&facts);
        let effect = match &step {
            ClaimStep::Bury(node, uid) => Effect::Buried((node.clone(), uid_name(uid))),
            _ => Effect::Status,
        };
        Some((claim_write(view, keyspace, key, &step)?, effect))
    }

    fn look_at_stone(
        &self,
        view: &View<'_>,
        keyspace: &Keyspace,
        stone: &Stone,
    ) -> Option<(Write, Effect)> {
        let revision = *self.stones.get(stone)?;
        let (node, name) = stone;
        let step = self.step_of(view, stone, revision);
        let write = stone_write(keyspace, node, name, revision, step)?;
        Some((write, Effect::Cleared(revision)))
    }

    fn step_of(&self, view: &View<'_>, (node, name): &Stone, revision: i64) -> StoneStep {
        let status = view.node_status().get(&ObjectKey::cluster(node.clone()));
        let obeyed = status.and_then(|s| s.value.discarded.get(name).copied());
        stone_step(revision, node_exists(view, node), obeyed)
    }

    /// A write was carried out.
    pub(crate) fn committed(&mut self, item: &Item, effect: &Effect, at: i64) {
        let again = self.slots.remove(item).is_some_and(|slot| slot.again);
        if again {
            self.dirty.insert(item.clone());
        }
        match (item, effect) {
            (Item::Stone(stone), Effect::Cleared(gone)) if self.stones.get(stone) == Some(gone) => {
                self.stones.remove(stone);
            }
            (Item::Claim(_), effect) => {
                let slot = Slot {
                    not_before: at,
                    ..Slot::default()
                };
                self.slots.insert(item.clone(), slot);
                if let Effect::Buried(stone) = effect {
                    self.found(stone.clone(), at);
                }
            }
            _ => {}
        }
    }

    /// A write was not carried out. Returns how often in a row.
    pub(crate) fn failed(&mut self, item: &Item) -> u32 {
        let slot = self.slots.entry(item.clone()).or_default();
        slot.busy = false;
        slot.again = false;
        slot.failures = slot.failures.saturating_add(1);
        slot.failures
    }

    /// Compares with what is in the store as of `revision`, and corrects the book. Returns how often.
    pub(crate) fn audit(&mut self, found: &BTreeMap<Stone, i64>, revision: i64) -> usize {
        let settled = |slots: &FxHashMap<Item, Slot>, stone: &Stone| {
            let slot = slots.get(&Item::Stone(stone.clone()));
            slot.is_none_or(|s| !s.busy)
        };
        let known: Vec<_> = self
            .stones
            .iter()
            .filter(|(stone, at)| {
                **at <= revision && found.get(*stone) != Some(at) && settled(&self.slots, stone)
            })
            .map(|(stone, _)| stone.clone())
            .collect();
        let unknown: Vec<_> = found
            .keys()
            .filter(|stone| !self.stones.contains_key(*stone) && settled(&self.slots, stone))
            .cloned()
            .collect();
        let count = known.len() + unknown.len();
        for stone in known.into_iter().chain(unknown) {
            match found.get(&stone) {
                Some(at) => self.found(stone, *at),
                None => drop(self.stones.remove(&stone)),
            }
        }
        count
    }

    /// How many claims and tombstones there are about which something is to be done that nobody has noticed. They are
    /// looked at in the next turn.
    pub(crate) fn missed(
        &mut self,
        view: &View<'_>,
        claims: &[ObjectKey],
        used: impl Fn(&ObjectKey) -> bool,
    ) -> usize {
        let claims = claims.iter().filter(|key| {
            let (facts, _) = facts(view, key, used(key));
            claim_step(&facts) != ClaimStep::Rest
        });
        let stones = self
            .stones
            .iter()
            .filter(|(stone, at)| self.step_of(view, stone, **at) != StoneStep::Rest)
            .map(|(stone, _)| Item::Stone(stone.clone()));
        let due = claims.cloned().map(Item::Claim).chain(stones);
        let missed: Vec<_> = due
            .filter(|item| !self.slots.contains_key(item) && !self.dirty.contains(item))
            .collect();
        let count = missed.len();
        self.dirty.extend(missed);
        count
    }
}
