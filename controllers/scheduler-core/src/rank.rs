//! The best of many scores, where single scores change: blocks of scores, each with its best, brought up to date when
//! the best is asked for. A change costs a write; a question costs a pass over the touched blocks and one over the bests.

/// The score of a place that is out of the question.
const NONE: i32 = i32::MIN;
/// How many scores a block has: few enough to look through in a few vector instructions.
const BLOCK: usize = 64;

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
    blocks: Vec<Best>,
    /// A bit per block whose best is out of date.
    stale: Vec<u64>,
    feasible: u32,
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

    /// Changes one score; `None` when the place is out of the question.
    pub(crate) fn set(&mut self, place: usize, score: Option<i32>) {
        let score = score.map_or(NONE, |s| s.max(NONE + 1));
        if place >= self.scores.len() {
            if score == NONE {
                return;
            }
            let blocks = place / BLOCK + 1;
            self.scores.resize(blocks * BLOCK, NONE);
            self.blocks.resize(blocks, EMPTY);
            self.stale.resize(blocks.div_ceil(64), 0);
        }
        let known = &mut self.scores[place];
        if *known != score {
            self.feasible = self.feasible + u32::from(score != NONE) - u32::from(*known != NONE);
            *known = score;
            let block = place / BLOCK;
            self.stale[block / 64] |= 1 << (block % 64);
        }
    }

    /// Brings the bests of the blocks up to date; to be called between changes and questions.
    pub(crate) fn settle(&mut self) {
        for (word, bits) in self.stale.iter_mut().enumerate() {
            while *bits != 0 {
                let block = word * 64 + bits.trailing_zeros() as usize;
                *bits &= *bits - 1;
                self.blocks[block] = best_of(&self.scores[block * BLOCK..][..BLOCK]);
            }
        }
    }

    /// The best score, and how many places have it.
    pub(crate) fn best(&self) -> Option<(i32, u32)> {
        let score = self.blocks.iter().map(|b| b.score).max()?;
        let same = self.blocks.iter().filter(|b| b.score == score);
        let count = same.map(|b| b.count).sum();
        (score != NONE).then_some((score, count))
    }

    /// The `n`-th, from 0, of the places that have the best score `score`, in order of places.
    pub(crate) fn nth(&self, score: i32, mut n: u32) -> Option<usize> {
        for (i, block) in self.blocks.iter().enumerate() {
            if block.score != score {
                continue;
            }
            if n >= block.count {
                n -= block.count;
                continue;
            }
            let places = self.scores[i * BLOCK..][..BLOCK].iter().enumerate();
            let mut holders = places.filter(|(_, s)| **s == score);
            return holders.nth(n as usize).map(|(p, _)| i * BLOCK + p);
        }
        None
    }

    /// The best place but `place`, the first of several.
    pub(crate) fn runner_up(&self, place: usize) -> Option<(usize, i32)> {
        let own = place / BLOCK;
        let mut best = (NONE, usize::MAX);
        for (i, block) in self.blocks.iter().enumerate() {
            if i == own {
                let rest = self.scores[i * BLOCK..][..BLOCK].iter().enumerate();
                for (p, score) in rest.filter(|(p, _)| i * BLOCK + p != place) {
                    if *score > best.0 {
                        best = (*score, i * BLOCK + p);
                    }
                }
            } else if block.score > best.0 {
                best = (block.score, i * BLOCK);
            }
        }
        let (score, at) = best;
        if score == NONE {
            return None;
        }
        let from = at..(at / BLOCK + 1) * BLOCK;
        let mut places = from.filter(|p| *p != place && self.scores[*p] == score);
        places.next().map(|p| (p, score))
    }

    /// All places that have a score.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, i32)> + '_ {
        let all = self.scores.iter().copied().enumerate();
        all.filter(|(_, s)| *s != NONE)
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
            changes in proptest::collection::vec((0..200_usize, proptest::option::of(-3..4_i32)), 0..60),
        ) {
            let mut scores = first;
            let mut ranking = Ranking::default();
            for (place, score) in scores.iter().enumerate() {
                ranking.set(place, *score);
            }
            for (place, score) in changes {
                let place = place % scores.len();
                scores[place] = score;
                ranking.set(place, score);
            }
            ranking.settle();
            let max = scores.iter().flatten().max().copied();
            let holders: Vec<_> = (0..scores.len()).filter(|i| max.is_some() && scores[*i] == max).collect();
            prop_assert_eq!(ranking.best(), max.map(|m| (m, holders.len() as u32)));
            prop_assert_eq!(ranking.feasible() as usize, scores.iter().flatten().count());
            for (n, place) in holders.iter().enumerate() {
                prop_assert_eq!(ranking.nth(max.unwrap(), n as u32), Some(*place));
            }
            for (place, score) in scores.iter().enumerate() {
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
