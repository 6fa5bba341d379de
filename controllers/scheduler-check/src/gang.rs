//! Gangs: all or nothing.
//!
//! What is promised of a gang that was placed: at least `min` members are; and in some order each of these could be
//! where it is when its turn came, and each of the others had no node.
//!
//! What is promised of a gang that was refused: **no** way exists to place `min` of its members, in whatever order and on
//! whatever nodes ([`gang_placement`] looks at all of them). This holds where the members are alike, also when they must
//! be near each other. Members that differ are placed one after the other, each where it is best, without taking back
//! what one of them has taken; of these less is promised: **some** way of taking a feasible node for each member in turn
//! gets stuck with fewer than `min` placed.

use std::collections::BTreeSet;

use setpoint_apis::ObjectKey;

use crate::checks::{Complaint, check_binding, check_unschedulable};
use crate::filters::feasible_nodes;
use crate::world::World;

/// How many steps a search may take.
const SEARCH_LIMIT: usize = 20_000;

/// That a gang which was placed is; `placed` says for each of `members` which node it got.
///
/// # Errors
///
/// What is wrong with it; of orders that all fail, what is wrong in the order given.
pub fn check_gang_placed(
    world: &World,
    members: &[ObjectKey],
    min: usize,
    placed: &[Option<String>],
) -> Result<(), Complaint> {
    let count = placed.iter().flatten().count();
    if count < min || placed.len() != members.len() {
        return Err(Complaint::PartialGang { placed: count, min });
    }
    let turns: Vec<_> = members.iter().zip(placed).collect();
    in_some_order(world, &turns, &mut 0)
}

/// Whether these can be decided so, in an order that begins as given when that is possible.
fn in_some_order(
    world: &World,
    turns: &[(&ObjectKey, &Option<String>)],
    steps: &mut usize,
) -> Result<(), Complaint> {
    let mut first = Ok(());
    for (i, (member, node)) in turns.iter().enumerate() {
        *steps += 1;
        if *steps > SEARCH_LIMIT {
            break;
        }
        let turn = match node {
            Some(node) => check_binding(world, member, node),
            None => check_unschedulable(world, member),
        };
        let rest: Vec<_> = [&turns[..i], &turns[i + 1..]].concat();
        let outcome = turn.and_then(|()| match (node, world.pods.get(member)) {
            (Some(node), Some(pod)) => in_some_order(&world.with(member, pod, node), &rest, steps),
            _ => in_some_order(world, &rest, steps),
        });
        if outcome.is_ok() {
            return Ok(());
        }
        first = first.and(outcome);
    }
    first
}

/// That a gang which was refused was refused rightly; see the module. A search that takes too long says so by
/// returning `Ok(false)`. As in [`check_unschedulable`] it is enough to get stuck when nominated pods and their victims
/// are both counted.
///
/// # Errors
///
/// [`Complaint::RefusedGang`] when a gang of which refusals are exact can be placed, or another is placed every way.
pub fn check_gang_refused(
    world: &World,
    members: &[ObjectKey],
    min: usize,
) -> Result<bool, Complaint> {
    let crowded = crowded(world);
    let exact = members.windows(2).all(|two| alike(world, &two[0], &two[1]));
    let refusable = |world: &World| match exact {
        true => match gang_placement(world, members, min) {
            Search::Found(_) => Some(false),
            Search::Impossible => Some(true),
            Search::GivenUp => None,
        },
        false => gets_stuck(world, members, min, 0, &mut 0),
    };
    let verdicts = [refusable(world), refusable(&crowded)];
    if verdicts.contains(&Some(true)) {
        return Ok(true);
    }
    if verdicts.contains(&None) {
        return Ok(false);
    }
    Err(Complaint::RefusedGang {
        members: members.len(),
        min,
    })
}

/// The world with nominated pods where they are going.
fn crowded(world: &World) -> World {
    let mut crowded = world.clone();
    for (key, nomination) in &world.nominations {
        if let Some(nominated) = world.pods.get(key) {
            crowded = crowded.with(key, nominated, &nomination.node);
        }
    }
    crowded
}

/// Whether two pods ask for the same.
fn alike(world: &World, one: &ObjectKey, other: &ObjectKey) -> bool {
    let (Some(a), Some(b)) = (world.pods.get(one), world.pods.get(other)) else {
        return false;
    };
    let same = (&a.labels, &a.spec, a.priority) == (&b.labels, &b.spec, b.priority);
    same && one.namespace == other.namespace
}

/// What a search for places has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// Places for enough members, in the order in which each of them is feasible.
    Found(Vec<(ObjectKey, String)>),
    /// There are none.
    Impossible,
    /// It would have taken too long to tell.
    GivenUp,
}

/// Looks for places for `min` of `members`: every order, every feasible node. What was looked at once, with alike
/// members in each other's places, is not looked at again. So five alike members on eight nodes are fewer than 1,300
/// states, and four that all differ at most 9^4; the limit is 20,000.
pub fn gang_placement(world: &World, members: &[ObjectKey], min: usize) -> Search {
    let kinds: Vec<usize> = members
        .iter()
        .map(|member| {
            let same = members.iter().position(|other| alike(world, member, other));
            same.unwrap_or(0)
        })
        .collect();
    let mut search = Placing {
        members,
        kinds,
        min,
        seen: BTreeSet::new(),
    };
    search.from(world, &mut Vec::new())
}

struct Placing<'a> {
    members: &'a [ObjectKey],
    /// For each member the first that asks for the same.
    kinds: Vec<usize>,
    min: usize,
    /// Which kinds are on which nodes, in order.
    seen: BTreeSet<Vec<(usize, String)>>,
}

impl Placing<'_> {
    fn from(&mut self, world: &World, placed: &mut Vec<(usize, String)>) -> Search {
        if placed.len() >= self.min {
            let places = placed.iter();
            let places = places.map(|(i, node)| (self.members[*i].clone(), node.clone()));
            return Search::Found(places.collect());
        }
        let kinds = &self.kinds;
        let mut state: Vec<_> = placed.iter().map(|(i, n)| (kinds[*i], n.clone())).collect();
        state.sort();
        if !self.seen.insert(state) {
            return Search::Impossible;
        }
        if self.seen.len() > SEARCH_LIMIT {
            return Search::GivenUp;
        }
        let mut tried = BTreeSet::new();
        for (i, member) in self.members.iter().enumerate() {
            // Of alike members the first that has no place yet stands for all.
            if placed.iter().any(|(p, _)| *p == i) || !tried.insert(self.kinds[i]) {
                continue;
            }
            let Some(pod) = world.pods.get(member) else {
                continue;
            };
            for node in feasible_nodes(world, member) {
                let next = world.with(member, pod, &node);
                placed.push((i, node));
                let found = self.from(&next, placed);
                placed.pop();
                if found != Search::Impossible {
                    return found;
                }
            }
        }
        Search::Impossible
    }
}

/// Whether some way of placing `members` one after the other ends with fewer than `min` placed, of which there are
/// `placed` already. `None` when the search was given up.
fn gets_stuck(
    world: &World,
    members: &[ObjectKey],
    min: usize,
    placed: usize,
    steps: &mut usize,
) -> Option<bool> {
    *steps += 1;
    if *steps > SEARCH_LIMIT {
        return None;
    }
    if placed >= min {
        return Some(false);
    }
    if placed + members.len() < min {
        return Some(true);
    }
    let Some((member, rest)) = members.split_first() else {
        return Some(true);
    };
    let nodes = feasible_nodes(world, member);
    if nodes.is_empty() {
        return gets_stuck(world, rest, min, placed, steps);
    }
    let pod = world.pods.get(member)?;
    for node in nodes {
        if gets_stuck(
            &world.with(member, pod, &node),
            rest,
            min,
            placed + 1,
            steps,
        )? {
            return Some(true);
        }
    }
    Some(false)
}
