//! Gangs: all or nothing.
//!
//! What is promised of a gang that was placed: at least `min` members are, each where it could be when its turn came,
//! in the order given; and each of the others had no node when its turn came.
//!
//! What is promised of a gang that was refused is less than that no arrangement exists, since members are placed one
//! after the other and what the first one takes may stand in the way of the last. It is: **some** way of taking a
//! feasible node for each member in turn gets stuck with fewer than `min` placed. Where members ask for the same and do
//! not care about each other every way places the same number, and then this is exact.

use setpoint_apis::ObjectKey;

use crate::checks::{Complaint, check_binding, check_unschedulable};
use crate::filters::feasible_nodes;
use crate::world::World;

/// How many steps a search for a way that gets stuck may take.
const SEARCH_LIMIT: usize = 20_000;

/// That a gang which was placed is; `placed` says for each of `members`, in order, which node it got.
///
/// # Errors
///
/// What is wrong with it.
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
    let mut world = world.clone();
    for (member, node) in members.iter().zip(placed) {
        match node {
            Some(node) => {
                check_binding(&world, member, node)?;
                if let Some(pod) = world.pods.get(member).cloned() {
                    world = world.with(member, &pod, node);
                }
            }
            None => check_unschedulable(&world, member)?,
        }
    }
    Ok(())
}

/// That a gang which was refused was refused rightly; see the module. A search that takes too long says so by
/// returning `Ok(false)`.
///
/// # Errors
///
/// [`Complaint::RefusedGang`] when every way places it.
pub fn check_gang_refused(
    world: &World,
    members: &[ObjectKey],
    min: usize,
) -> Result<bool, Complaint> {
    let mut steps = 0;
    match gets_stuck(world, members, min, 0, &mut steps) {
        Some(true) => Ok(true),
        None => Ok(false),
        Some(false) => Err(Complaint::RefusedGang {
            members: members.len(),
            min,
        }),
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
