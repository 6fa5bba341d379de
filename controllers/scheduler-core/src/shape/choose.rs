//! The decision: which groups can be chosen, how good they are, and the best node of the best of them.

use crate::score;
use crate::shape::plan::{At, UNCLAIMED};
use crate::shape::{Group, Shape};
use crate::state::State;
use crate::topology::NOWHERE;

/// A node, and what it was chosen from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) slot: u32,
    pub(crate) score: i64,
    pub(crate) feasible: u32,
    pub(crate) runner_up: Option<(u32, i64)>,
}

/// The parts of the score that depend on other pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Social {
    pub(crate) affinity: i64,
    pub(crate) spread: i64,
}

/// A group that can be chosen.
#[derive(Clone, Copy, Debug)]
struct Open {
    group: usize,
    affinity: i64,
    /// `None` when the nodes lack a key of a spread constraint.
    spread: Option<i64>,
    social: Social,
}

impl Shape {
    /// How many nodes can run a pod.
    pub(crate) fn feasible(&self, state: &State) -> u32 {
        if self.plan.flat {
            return self.groups[0].ranking.feasible();
        }
        let least = self.least(state);
        let affine = self.nobody_yet(state);
        let open = self
            .groups
            .iter()
            .filter(|g| self.is_open(g, &least, affine, state));
        open.map(|g| g.ranking.feasible()).sum()
    }

    /// The best node, of several equal ones the one that `draw` falls on.
    pub(crate) fn choose(&self, draw: u64, state: &State) -> Option<Choice> {
        if self.plan.flat {
            let ranking = &self.groups[0].ranking;
            let (score, count) = ranking.best()?;
            // The remainder is below `count`, so it fits.
            let slot = ranking.nth(score, (draw % u64::from(count)) as u32)?;
            let runner_up = ranking.runner_up(slot);
            return Some(Choice {
                slot: slot as u32,
                score: i64::from(score),
                feasible: ranking.feasible(),
                runner_up: runner_up.map(|(slot, score)| (slot as u32, i64::from(score))),
            });
        }
        let open = self.open(state);
        let best_of = |o: &Open| {
            let (score, count) = self.groups[o.group].ranking.best()?;
            Some((
                i64::from(score) + o.social.affinity + o.social.spread,
                score,
                count,
            ))
        };
        let (mut best, mut count) = (i64::MIN, 0);
        for (total, _, n) in open.iter().filter_map(best_of) {
            if total > best {
                (best, count) = (total, 0);
            }
            if total == best {
                count += n;
            }
        }
        let mut n = if count == 0 {
            return None;
        } else {
            (draw % u64::from(count)) as u32
        };
        let (mut chosen, mut runner_up) = (None, None::<(u32, i64)>);
        for o in &open {
            let Some((total, score, held)) = best_of(o) else {
                continue;
            };
            let group = &self.groups[o.group];
            let other = if total == best && chosen.is_none() && n < held {
                let place = group.ranking.nth(score, n)?;
                chosen = Some(group.slots[place]);
                let social = o.social.affinity + o.social.spread;
                group
                    .ranking
                    .runner_up(place)
                    .map(|(p, s)| (p, i64::from(s) + social))
            } else {
                n = if total == best {
                    n.saturating_sub(held)
                } else {
                    n
                };
                group.ranking.nth(score, 0).map(|p| (p, total))
            };
            if let Some((place, score)) = other
                && runner_up.is_none_or(|r| score > r.1)
            {
                runner_up = Some((group.slots[place], score));
            }
        }
        Some(Choice {
            slot: chosen?,
            score: best,
            feasible: open
                .iter()
                .map(|o| self.groups[o.group].ranking.feasible())
                .sum(),
            runner_up,
        })
    }

    /// The best nodes for a pod, at least `most` of them if there are so many, with what other pods make them worth; in no
    /// particular order, and of equals those that are found first.
    pub(crate) fn best(&self, most: usize, state: &State) -> Vec<(u32, Social)> {
        if self.plan.flat {
            let best = self.groups[0].ranking.best_first().take(most);
            return best
                .map(|(slot, _)| (slot as u32, Social::default()))
                .collect();
        }
        let nodes = |o: Open| {
            let group = &self.groups[o.group];
            let best = group.ranking.best_first().take(most);
            best.map(move |(place, _)| (group.slots[place], o.social))
        };
        self.open(state).into_iter().flat_map(nodes).collect()
    }

    /// What other pods make two nodes worth, of which both can be chosen.
    pub(crate) fn social_of(&self, slots: [u32; 2], state: &State) -> [Social; 2] {
        if self.plan.flat {
            return [Social::default(); 2];
        }
        let open = self.open(state);
        slots.map(|slot| {
            let group = self.places.get(slot as usize).map_or(super::NONE, |p| p.0);
            let found = open.iter().find(|o| o.group as u32 == group);
            found.map_or_else(Social::default, |o| o.social)
        })
    }

    /// The least number of pods of any domain, by spread constraint: now, and once nominated pods have come.
    fn least(&self, state: &State) -> Vec<(i64, i64)> {
        let of = |table: &super::Table| {
            let now = table.least();
            let then = if state.nominated > 0 && table.spread.hard {
                table.least_then()
            } else {
                now
            };
            (now, then)
        };
        self.tables.iter().map(of).collect()
    }

    /// Whether the pods want to be near pods like themselves, and there is none anywhere: then the first may start.
    pub(crate) fn nobody_yet(&self, state: &State) -> bool {
        let terms = &state.registry.terms;
        self.own_affinity
            && self
                .plan
                .affinity
                .iter()
                .all(|(t, _)| terms[*t].pods.total == 0)
    }

    fn is_open(
        &self,
        group: &Group,
        least: &[(i64, i64)],
        nobody_yet: bool,
        state: &State,
    ) -> bool {
        if group.ranking.feasible() == 0 {
            return false;
        }
        let signature = &*group.signature;
        let domain = |at: usize| u32::try_from(signature[at]).unwrap_or(NOWHERE);
        let near = |(term, at): &(u32, At)| match at {
            At::Domain(at) => match domain(*at) {
                NOWHERE => false,
                domain => nobody_yet || state.registry.terms[*term].pods.get(domain) > 0,
            },
            At::Value(at) => nobody_yet || signature[*at] > 0,
            At::Node => false,
        };
        let apart = |anti: &super::plan::Anti| match anti.at {
            At::Domain(at) => !self.clashes(anti, domain(at), state),
            _ => true,
        };
        let hard = self.tables.iter().zip(&self.plan.spread).zip(least);
        let mut hard = hard.filter(|((t, _), _)| t.spread.hard);
        self.plan.anti.iter().all(apart)
            && self.plan.affinity.iter().all(near)
            && hard.all(|((table, at), least)| {
                let (now, then) = match at {
                    At::Domain(at) => match domain(*at) {
                        NOWHERE => return false,
                        domain => (table.pods(domain), table.pods_then(domain)),
                    },
                    At::Value(at) => {
                        let then = Some(signature[*at + 1]).filter(|n| *n != UNCLAIMED);
                        (signature[*at], then)
                    }
                    At::Node => return false,
                };
                let allows = |crowd: i64, least: i64| {
                    crowd + i64::from(table.spread.own) - least <= table.spread.max_skew
                };
                allows(now, least.0) && then.is_none_or(|then| allows(then, least.1))
            })
    }

    /// The groups that can be chosen, with what they are worth.
    fn open(&self, state: &State) -> Vec<Open> {
        let least = self.least(state);
        let nobody_yet = self.nobody_yet(state);
        let groups = self.groups.iter().enumerate();
        let groups = groups.filter(|(_, g)| self.is_open(g, &least, nobody_yet, state));
        let mut open: Vec<Open> = groups
            .map(|(group, g)| Open {
                group,
                affinity: self.affinity_of(&g.signature, state),
                spread: None,
                social: Social::default(),
            })
            .collect();
        let soft = self.tables.iter().any(|t| !t.spread.hard);
        if soft {
            self.spread_all(&mut open, state);
        }
        let weights = &self.kind.profile.weights;
        let affinity = open.iter().map(|o| o.affinity);
        let (least, most) = (
            affinity.clone().min().unwrap_or(0),
            affinity.max().unwrap_or(0),
        );
        let spread = open.iter().filter_map(|o| o.spread);
        let (nearest, farthest) = (spread.clone().min().unwrap_or(0), spread.max().unwrap_or(0));
        for o in &mut open {
            o.social.affinity = score::between(o.affinity, least, most, weights.pod_affinity);
            if let Some(value) = o.spread {
                o.social.spread = score::fewest(value, nearest, farthest, weights.spread);
            }
        }
        open
    }

    fn affinity_of(&self, signature: &[i64], state: &State) -> i64 {
        let terms = &state.registry.terms;
        let domain = |at: &At| match at {
            At::Domain(at) => u32::try_from(signature[*at]).unwrap_or(NOWHERE),
            _ => NOWHERE,
        };
        let wishes = self
            .plan
            .wishes
            .iter()
            .map(|(t, w, at)| w * terms[*t].pods.get(domain(at)));
        let wished = self
            .plan
            .wished
            .iter()
            .map(|(t, at)| terms[*t].weight.get(domain(at)));
        let fine = self.plan.fine_score.map_or(0, |at| signature[at]);
        wishes.sum::<i64>() + wished.sum::<i64>() + fine
    }

    /// How crowded each group is by the spread constraints that may be broken: the more domains there are, the more a
    /// pod in one counts.
    fn spread_all(&self, open: &mut [Open], state: &State) {
        let soft = self
            .tables
            .iter()
            .zip(&self.plan.spread)
            .filter(|(t, _)| !t.spread.hard);
        let soft: Vec<_> = soft.collect();
        let value = |o: &Open, at: &At| match at {
            At::Domain(at) | At::Value(at) => self.groups[o.group].signature[*at],
            At::Node => -1,
        };
        let weigh = |(table, at): &(&super::Table, &At)| {
            let counted = open.iter().filter(|o| value(o, at) >= 0);
            let domains = match at {
                At::Domain(_) => {
                    let mut all: Vec<i64> = counted.map(|o| value(o, at)).collect();
                    all.sort_unstable();
                    all.dedup();
                    all.len() as u32
                }
                _ => {
                    let nodes = counted
                        .map(|o| self.groups[o.group].ranking.feasible())
                        .sum::<u32>();
                    nodes.min(state.registry.keys[table.key].inhabited)
                }
            };
            (f64::from(domains + 2).ln() * 1000.0) as i64
        };
        let weights: Vec<i64> = soft.iter().map(weigh).collect();
        let crowds: Vec<Option<i64>> = open
            .iter()
            .map(|o| {
                let mut sum = 0;
                for ((table, at), weight) in soft.iter().zip(&weights) {
                    let value = value(o, at);
                    if value < 0 {
                        return None;
                    }
                    let pods = match at {
                        At::Domain(_) => table.pods(value as u32),
                        _ => value,
                    };
                    sum += pods * weight + (table.spread.max_skew - 1) * 1000;
                }
                Some(sum)
            })
            .collect();
        for (o, crowd) in open.iter_mut().zip(crowds) {
            o.spread = crowd;
        }
    }
}
