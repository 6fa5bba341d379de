//! The best of many scores, where single scores change: blocks of scores, each with its best, blocks of these, and so
//! on, brought up to date when the best is asked for. A change costs a write; a question costs a pass over one block of
//! each level for every block that was touched.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The score of a place that is out of the question.
const NONE: i32 = i32::MIN;
/// How many scores a block has: as many as fit into a line of the processor's cache.
const BLOCK: usize = 16;

/// What a block knows: its best score and how many places have it; no place has any when `count` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Best {
    score: i32,
    count: u32,
}

const EMPTY: Best = Best {
    score: NONE,
    count: 0,
};

/// Scores by place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranking {
    /// A multiple of [`BLOCK`].
    scores: Vec<i32>,
    /// The first has a best per block of scores, each further one a best per block of the one before; the last has one.
    levels: Vec<Level>,
    feasible: u32,
}

#[derive(Clone, Debug, Default)]
struct Level {
    bests: Vec<Best>,
    /// A bit per best that is out of date.
    stale: Vec<u64>,
}

impl Level {
    fn mark(&mut self, at: usize) {
        self.stale[at / 64] |= 1 << (at % 64);
    }
}

impl Ranking {
    /// How many places have a score.
    pub(crate) fn feasible(&self) -> u32 {
        self.feasible
    }

    /// The score of a place.
    #[cfg(test)]
    pub(crate) fn get(&self, place: usize) -> Option<i32> {
        self.scores.get(place).copied().filter(|s| *s != NONE)
    }

    /// Makes room for so many places.
    pub(crate) fn reserve(&mut self, places: usize) {
        let mut blocks = places.div_ceil(BLOCK);
        if blocks * BLOCK <= self.scores.len() {
            return;
        }
        self.scores.resize(blocks * BLOCK, NONE);
        self.levels.clear();
        loop {
            let mut level = Level {
                bests: vec![EMPTY; blocks],
                stale: vec![0; blocks.div_ceil(64)],
            };
            if self.levels.is_empty() {
                (0..blocks).for_each(|b| level.mark(b));
            }
            self.levels.push(level);
            if blocks <= 1 {
                return;
            }
            blocks = blocks.div_ceil(BLOCK);
        }
    }

    /// Changes one score; `None` when the place is out of the question.
    pub(crate) fn set(&mut self, place: usize, score: Option<i32>) {
        let score = score.map_or(NONE, |s| s.max(NONE + 1));
        if place >= self.scores.len() {
            if score == NONE {
                return;
            }
            // By half, so that one after the other costs little.
            self.reserve((place + 1).max(self.scores.len() * 3 / 2));
        }
        let known = &mut self.scores[place];
        if *known != score {
            self.feasible = self.feasible + u32::from(score != NONE) - u32::from(*known != NONE);
            *known = score;
            self.levels[0].mark(place / BLOCK);
        }
    }

    /// Brings the bests up to date; to be called between changes and questions.
    pub(crate) fn settle(&mut self) {
        for level in 0..self.levels.len() {
            let (below, rest) = self.levels.split_at_mut(level);
            let Some((this, above)) = rest.split_first_mut() else {
                return;
            };
            let mut changed = false;
            for word in 0..this.stale.len() {
                let mut bits = std::mem::take(&mut this.stale[word]);
                while bits != 0 {
                    let block = word * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    let best = match below.last() {
                        None => best_of(&self.scores[block * BLOCK..][..BLOCK]),
                        Some(below) => join(children(&below.bests, block)),
                    };
                    if this.bests[block] != best {
                        this.bests[block] = best;
                        changed = true;
                        if let Some(above) = above.first_mut() {
                            above.mark(block / BLOCK);
                        }
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// The best score, and how many places have it.
    pub(crate) fn best(&self) -> Option<(i32, u32)> {
        let root = self.levels.last()?.bests.first()?;
        (root.count > 0).then_some((root.score, root.count))
    }

    /// The `n`-th, from 0, of the places that have the best score `score`, in order of places.
    pub(crate) fn nth(&self, score: i32, n: u32) -> Option<usize> {
        self.nth_below(self.levels.len(), 0, score, n)
    }

    /// The same among the places below the best number `at` of a level, counted from the scores up.
    fn nth_below(&self, mut level: usize, mut at: usize, score: i32, mut n: u32) -> Option<usize> {
        while level > 1 {
            let bests = &self.levels[level - 2].bests;
            let first = at * BLOCK;
            let mut found = None;
            for (i, best) in children(bests, at)
                .iter()
                .enumerate()
                .filter(|(_, b)| b.score == score)
            {
                if n < best.count {
                    found = Some(first + i);
                    break;
                }
                n -= best.count;
            }
            at = found?;
            level -= 1;
        }
        let places = self
            .scores
            .get(at * BLOCK..(at + 1) * BLOCK)?
            .iter()
            .enumerate();
        let mut holders = places.filter(|(_, s)| **s == score);
        holders.nth(n as usize).map(|(p, _)| at * BLOCK + p)
    }

    /// The best place but `place`, which there is room for, the first of several.
    pub(crate) fn runner_up(&self, place: usize) -> Option<(usize, i32)> {
        let own = place / BLOCK;
        let first = own * BLOCK;
        let rest = self
            .scores
            .get(first..first + BLOCK)
            .unwrap_or(&[])
            .iter()
            .enumerate();
        let rest = rest.filter(|(p, _)| first + p != place);
        // By score, then the lower place; what is held is the level and the number of the best there, or the place.
        let (mut score, mut lowest, mut found) = (NONE, usize::MAX, (0, usize::MAX));
        for (p, s) in rest {
            if *s > score {
                (score, lowest, found) = (*s, first + p, (0, first + p));
            }
        }
        let (mut path, mut width) = (own, BLOCK);
        for (i, level) in self.levels.iter().enumerate() {
            let block = path / BLOCK;
            for (j, best) in children(&level.bests, block).iter().enumerate() {
                let at = block * BLOCK + j;
                let begins = at * width;
                let better = best.score > score || (best.score == score && begins < lowest);
                if at != path && best.count > 0 && better {
                    (score, lowest, found) = (best.score, begins, (i + 1, at));
                }
            }
            path = block;
            width *= BLOCK;
        }
        if score == NONE {
            return None;
        }
        match found {
            (0, place) => Some((place, score)),
            (level, at) => self.nth_below(level, at, score, 0).map(|p| (p, score)),
        }
    }

    /// The places that have a score, the best first and of equals the first, each found when it is asked for. The bests
    /// must be up to date.
    pub(crate) fn best_first(&self) -> impl Iterator<Item = (usize, i32)> + '_ {
        let mut heap = BinaryHeap::new();
        if let Some((score, _)) = self.best() {
            heap.push((score, Reverse(0), self.levels.len()));
        }
        std::iter::from_fn(move || {
            loop {
                // What is left of a block begins where the block does, and is no better than its best.
                let (score, Reverse(begins), level) = heap.pop()?;
                let Some(below) = level.checked_sub(1) else {
                    return Some((begins, score));
                };
                let width = BLOCK.pow(below as u32);
                let mut push = |i: usize, score: i32| {
                    if score != NONE {
                        heap.push((score, Reverse(begins + i * width), below));
                    }
                };
                match below.checked_sub(1) {
                    None => {
                        let scores = self.scores[begins..].iter().take(BLOCK);
                        scores.enumerate().for_each(|(i, score)| push(i, *score));
                    }
                    Some(at) => {
                        let bests = children(&self.levels[at].bests, begins / width / BLOCK);
                        bests.iter().enumerate().for_each(|(i, b)| push(i, b.score));
                    }
                }
            }
        })
    }
}

/// The bests of which a block of the next level is made.
fn children(bests: &[Best], block: usize) -> &[Best] {
    let first = (block * BLOCK).min(bests.len());
    &bests[first..(first + BLOCK).min(bests.len())]
}

fn join(bests: &[Best]) -> Best {
    let score = bests.iter().map(|b| b.score).max().unwrap_or(NONE);
    let same = bests.iter().filter(|b| b.score == score);
    Best {
        score,
        count: same.map(|b| b.count).sum(),
    }
}

fn best_of(scores: &[i32]) -> Best {
    let score = scores.iter().copied().fold(NONE, i32::max);
    let count = if score == NONE {
        0
    } else {
        scores.iter().map(|s| u32::from(*s == score)).sum()
    };
    Best { score, count }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_ranking_agrees_with_a_walk_over_all_places(
            first in proptest::collection::vec(proptest::option::of(-3..4_i32), 1..200),
            wide: bool,
            changes in proptest::collection::vec((0..BLOCK * BLOCK * 3 + 7, proptest::option::of(-3..4_i32)), 0..60),
        ) {
            // Also with more than one block of blocks.
            let mut scores = first;
            if wide {
                scores.resize(BLOCK * BLOCK * 3 + 7, None);
            }
            let mut ranking = Ranking::default();
            if wide {
                ranking.reserve(scores.len());
            }
            for (place, score) in scores.iter().enumerate() {
                ranking.set(place, *score);
            }
            for (place, score) in changes {
                let place = place % scores.len();
                scores[place] = score;
                ranking.set(place, score);
            }
            ranking.settle();
            let mut sorted: Vec<_> = (0..scores.len()).filter_map(|i| Some((i, scores[i]?))).collect();
            sorted.sort_by_key(|(i, score)| (Reverse(*score), *i));
            prop_assert_eq!(ranking.best_first().collect::<Vec<_>>(), sorted);
            let max = scores.iter().flatten().max().copied();
            let holders: Vec<_> = (0..scores.len()).filter(|i| max.is_some() && scores[*i] == max).collect();
            prop_assert_eq!(ranking.best(), max.map(|m| (m, holders.len() as u32)));
            prop_assert_eq!(ranking.feasible() as usize, scores.iter().flatten().count());
            for (n, place) in holders.iter().enumerate() {
                prop_assert_eq!(ranking.nth(max.unwrap(), n as u32), Some(*place));
            }
            for (place, score) in scores.iter().enumerate().filter(|(p, _)| p % 41 < 3 || *p < 80) {
                prop_assert_eq!(ranking.get(place), *score);
                let others = (0..scores.len()).filter(|i| *i != place && scores[*i].is_some());
                let second = others.max_by_key(|i| (scores[*i], std::cmp::Reverse(*i)));
                prop_assert_eq!(ranking.runner_up(place), second.map(|i| (i, scores[i].unwrap())));
            }
        }
    }

    #[test]
    fn an_empty_ranking_has_no_best() {
        let mut ranking = Ranking::default();
        ranking.settle();
        assert_eq!((ranking.best(), ranking.runner_up(3)), (None, None));
    }
}
