//! Gangs: all or nothing.
//!
//! What is promised of a gang that was placed: at least `min` members are; and in some order each of these could be
//! where it is when its turn came, and each of the others had no node.
//!
//! What is promised of a gang that was refused is less than that no arrangement exists, since members are placed one
//! after the other and what the first one takes may stand in the way of the last. It is: **some** way of taking a
//! feasible node for each member in turn gets stuck with fewer than `min` placed. Where members ask for the same and do
//! not care about each other every way places the same number, and then this is exact.

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
/// [`Complaint::RefusedGang`] when every way places it.
pub fn check_gang_refused(
    world: &World,
    members: &[ObjectKey],
    min: usize,
) -> Result<bool, Complaint> {
    let mut crowded = world.clone();
    for (key, nomination) in &world.nominations {
        if let Some(nominated) = world.pods.get(key) {
            crowded = crowded.with(key, nominated, &nomination.node);
        }
    }
    let mut steps = 0;
    let verdicts = [
        gets_stuck(world, members, min, 0, &mut steps),
        gets_stuck(&crowded, members, min, 0, &mut steps),
    ];
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
