//! The best of many scores, where single scores change: a tree of maxima over a fixed number of places.

/// What a subtree knows: its best score and how many places have it; no place has any when `count` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Best {
    score: i32,
    count: u32,
}

const NONE: Best = Best {
    score: i32::MIN,
    count: 0,
};

impl Best {
    fn join(self, other: Self) -> Self {
        if self.count == 0 || (other.count > 0 && other.score > self.score) {
            other
        } else if other.count > 0 && other.score == self.score {
            Self {
                score: self.score,
                count: self.count + other.count,
            }
        } else {
            self
        }
    }
}

/// Scores by place.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScoreTree {
    /// A power of two, at least the number of places.
    leaves: usize,
    /// The root is 1, the children of `i` are `2 * i` and `2 * i + 1`, place `p` is `leaves + p`.
    nodes: Vec<Best>,
}

impl ScoreTree {
    /// A tree with these scores; `None` for places that are out of the question.
    pub(crate) fn build(scores: impl ExactSizeIterator<Item = Option<i32>>) -> Self {
        let leaves = scores.len().next_power_of_two();
        let mut nodes = vec![NONE; 2 * leaves];
        for (leaf, score) in nodes[leaves..].iter_mut().zip(scores) {
            *leaf = best(score);
        }
        for i in (1..leaves).rev() {
            nodes[i] = nodes[2 * i].join(nodes[2 * i + 1]);
        }
        Self { leaves, nodes }
    }

    /// How many places there is room for.
    pub(crate) fn capacity(&self) -> usize {
        self.leaves
    }

    /// The score of a place.
    pub(crate) fn get(&self, place: usize) -> Option<i32> {
        let leaf = self.nodes[self.leaves + place];
        (leaf.count > 0).then_some(leaf.score)
    }

    /// Changes one score.
    pub(crate) fn set(&mut self, place: usize, score: Option<i32>) {
        let mut i = self.leaves + place;
        self.nodes[i] = best(score);
        while i > 1 {
            i /= 2;
            let joined = self.nodes[2 * i].join(self.nodes[2 * i + 1]);
            if self.nodes[i] == joined {
                return;
            }
            self.nodes[i] = joined;
        }
    }

    /// The best score, and how many places have it.
    pub(crate) fn best(&self) -> Option<(i32, u32)> {
        let root = self.nodes.get(1)?;
        (root.count > 0).then_some((root.score, root.count))
    }

    /// The `n`-th, from 0, of the places that have the best score, in order of places.
    pub(crate) fn nth_best(&self, mut n: u32) -> usize {
        let score = self.nodes[1].score;
        let mut i = 1;
        while i < self.leaves {
            let left = self.nodes[2 * i];
            let there = if left.score == score { left.count } else { 0 };
            i = if n < there {
                2 * i
            } else {
                n -= there;
                2 * i + 1
            };
        }
        i - self.leaves
    }

    /// The best place but `place`, the first of several.
    pub(crate) fn runner_up(&self, place: usize) -> Option<(usize, i32)> {
        let mut best_at: Option<usize> = None;
        let mut i = self.leaves + place;
        while i > 1 {
            let sibling = self.nodes[i ^ 1];
            let better = best_at.is_none_or(|at| {
                let known = self.nodes[at].score;
                // On the way up, a left sibling holds lower places than everything seen so far.
                sibling.score > known || (sibling.score == known && i % 2 == 1)
            });
            if sibling.count > 0 && better {
                best_at = Some(i ^ 1);
            }
            i /= 2;
        }
        let mut i = best_at?;
        let score = self.nodes[i].score;
        while i < self.leaves {
            let left = self.nodes[2 * i];
            i = if left.count > 0 && left.score == score {
                2 * i
            } else {
                2 * i + 1
            };
        }
        Some((i - self.leaves, score))
    }
}

fn best(score: Option<i32>) -> Best {
    score.map_or(NONE, |score| Best { score, count: 1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_tree_agrees_with_a_walk_over_all_places(
            first in proptest::collection::vec(proptest::option::of(-3..4_i32), 1..40),
            changes in proptest::collection::vec((0..40_usize, proptest::option::of(-3..4_i32)), 0..60),
        ) {
            let mut scores = first;
            let mut tree = ScoreTree::build(scores.iter().copied());
            for (place, score) in changes {
                let place = place % scores.len();
                scores[place] = score;
                tree.set(place, score);
            }
            let max = scores.iter().flatten().max().copied();
            let holders: Vec<_> = (0..scores.len()).filter(|i| max.is_some() && scores[*i] == max).collect();
            prop_assert_eq!(tree.best(), max.map(|m| (m, holders.len() as u32)));
            for (n, place) in holders.iter().enumerate() {
                prop_assert_eq!(tree.nth_best(n as u32), *place);
            }
            for (place, score) in scores.iter().enumerate() {
                prop_assert_eq!(tree.get(place), *score);
                let others = (0..scores.len()).filter(|i| *i != place && scores[*i].is_some());
                let second = others.max_by_key(|i| (scores[*i], std::cmp::Reverse(*i)));
                prop_assert_eq!(tree.runner_up(place), second.map(|i| (i, scores[i].unwrap())));
            }
        }
    }

    #[test]
    fn an_empty_tree_has_no_best() {
        assert_eq!(ScoreTree::default().best(), None);
        assert_eq!(ScoreTree::build([].into_iter()).best(), None);
    }
}
