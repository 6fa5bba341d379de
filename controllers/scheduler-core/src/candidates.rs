//! The nodes that can run the pods of one class, ordered by score, repaired as nodes change.

use std::sync::Arc;

use crate::class::ClassInner;
use crate::intern::Interner;
use crate::node::Node;
use crate::reasons::Unschedulable;
use crate::score::least_allocated;
use crate::tree::ScoreTree;

/// What is remembered of a node besides its place in the tree.
#[derive(Clone, Copy, Debug)]
struct Cell {
    /// The version of the node's facts that `base` was made from.
    facts_version: u32,
    /// The part of the score that does not depend on what is placed; `None` when the node is out of the question.
    base: Option<i32>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    cells: Vec<Cell>,
    tree: ScoreTree,
    feasible: u32,
    /// Everything in the log of changes before this has been seen.
    seen: u64,
    /// The verdict at `seen`, when it was asked for.
    verdict: Option<Arc<Unschedulable>>,
    /// When it was last used, in calls.
    pub(crate) used_at: u64,
}

/// The nodes that changed, in order, with gaps at the front: who is behind looks at all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangeLog {
    /// How many entries have been dropped.
    start: u64,
    slots: std::collections::VecDeque<u32>,
}

impl ChangeLog {
    pub(crate) fn push(&mut self, slot: u32, nodes: usize) {
        // Whoever is further behind than the number of nodes is better off looking at all of them.
        if self.slots.len() > nodes.max(64) {
            self.slots.pop_front();
            self.start += 1;
        }
        self.slots.push_back(slot);
    }

    fn end(&self) -> u64 {
        self.start + self.slots.len() as u64
    }

    fn since(&self, seen: u64) -> Option<impl Iterator<Item = u32> + '_> {
        let skip = seen.checked_sub(self.start)?;
        Some(self.slots.range(usize::try_from(skip).ok()?..).copied())
    }
}

/// What candidates look at.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    pub(crate) nodes: &'a [Node],
    pub(crate) interner: &'a Interner,
    pub(crate) log: &'a ChangeLog,
}

impl Candidates {
    /// Brings everything up to date.
    pub(crate) fn sync(&mut self, class: &ClassInner, now: Snapshot<'_>) {
        let end = now.log.end();
        if self.seen == end && self.cells.len() == now.nodes.len() {
            return;
        }
        self.verdict = None;
        let same_size = now.nodes.len() <= self.tree.capacity() && !self.cells.is_empty();
        match now.log.since(self.seen) {
            Some(slots) if same_size => {
                self.cells.resize(now.nodes.len(), UNSEEN);
                for slot in slots {
                    self.refresh(slot as usize, class, now);
                }
            }
            _ => self.rebuild(class, now),
        }
        self.seen = end;
    }

    fn refresh(&mut self, slot: usize, class: &ClassInner, now: Snapshot<'_>) {
        let score = score(&mut self.cells[slot], class, &now.nodes[slot], now.interner);
        let before = self.tree.get(slot);
        if before != score {
            self.feasible =
                self.feasible + u32::from(score.is_some()) - u32::from(before.is_some());
            self.tree.set(slot, score);
        }
    }

    fn rebuild(&mut self, class: &ClassInner, now: Snapshot<'_>) {
        self.cells.resize(now.nodes.len(), UNSEEN);
        let scores: Vec<_> = self
            .cells
            .iter_mut()
            .zip(now.nodes)
            .map(|(cell, node)| score(cell, class, node, now.interner))
            .collect();
        self.feasible = scores.iter().flatten().count() as u32;
        self.tree = ScoreTree::build(scores.into_iter());
    }

    /// How many nodes can run a pod of the class.
    pub(crate) fn feasible(&self) -> u32 {
        self.feasible
    }

    /// The best node, of several equal ones the one that `draw` falls on, with its score, and the next best.
    pub(crate) fn best(&self, draw: u64) -> Option<Best> {
        let (score, count) = self.tree.best()?;
        // The remainder is below `count`, so it fits.
        let slot = self.tree.nth_best((draw % u64::from(count)) as u32);
        Some(Best {
            slot,
            score,
            runner_up: self.tree.runner_up(slot),
        })
    }

    /// Why no node can run a pod of the class; made once per change of the cluster.
    pub(crate) fn verdict(&mut self, make: impl FnOnce() -> Unschedulable) -> Arc<Unschedulable> {
        self.verdict.get_or_insert_with(|| Arc::new(make())).clone()
    }

    /// How much it holds, in nodes.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }
}

/// A choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Best {
    pub(crate) slot: usize,
    pub(crate) score: i32,
    pub(crate) runner_up: Option<(usize, i32)>,
}

/// No node has this version until it has changed four billion times.
const UNSEEN: Cell = Cell {
    facts_version: u32::MAX,
    base: None,
};

fn score(cell: &mut Cell, class: &ClassInner, node: &Node, interner: &Interner) -> Option<i32> {
    if cell.facts_version != node.facts_version {
        *cell = Cell {
            facts_version: node.facts_version,
            base: class.asks.admit(node, interner).ok(),
        };
    }
    let base = cell.base?;
    node.fits(&class.asks.requests)
        .then(|| base + least_allocated(node, class.weighed))
}

/// The same without memory, for classes that name one node.
pub(crate) fn score_alone(class: &ClassInner, node: &Node, interner: &Interner) -> Option<i32> {
    score(&mut UNSEEN.clone(), class, node, interner)
}
