//! The core against the tables that the checker was held against.

use setpoint_scheduler_check::check_gang_placed;
use setpoint_scheduler_check::tables::{self, Case, Expected, cases};
use setpoint_scheduler_core::{Decision, Preemption, Profile, Strategy};

use crate::budgets::states;
use crate::twin::Twin;

#[test]
fn the_core_says_what_the_tables_say() {
    let mut wrong = Vec::new();
    for case in cases().unwrap() {
        if let Some(difference) = difference(&case) {
            wrong.push(format!("{}: {difference}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(case: &Case) -> Option<String> {
    let mut twin = Twin::of(&case.world, profile(&case.profile));
    match &case.expected {
        Expected::Fits(nodes) => {
            // Node by node: the one that is chosen is removed, until none is left.
            let mut fits = std::collections::BTreeSet::new();
            for node in case.world.nodes.keys() {
                if fits_there(case, node) {
                    fits.insert(node.clone());
                }
            }
            let class = twin.class(&case.pod);
            let room = twin.cluster.has_room(&class);
            (&fits != nodes || room == nodes.is_empty()).then(|| {
                let why = twin.cluster.explain(&class);
                format!(
                    "fits {fits:?} (room: {room}), not {nodes:?}; {:?}",
                    why.reasons
                )
            })
        }
        Expected::Chooses(node) => {
            // The draw between equals is another one for each seed.
            let chosen: std::collections::BTreeSet<_> = (0..8)
                .filter_map(|seed| {
                    choice(
                        &mut Twin::of(&case.world, profile(&case.profile)),
                        case,
                        seed,
                    )
                })
                .collect();
            (chosen.len() != 1 || !chosen.contains(node)).then(|| {
                format!(
                    "chooses {chosen:?}, not {node}; {:?}",
                    parts(&mut twin, case)
                )
            })
        }
        Expected::Preempts(told) => {
            let request = twin.request(&case.pod);
            let found = twin.cluster.preempt(&request, &states(&case.budgets));
            let found = found.as_ref().map(proposal);
            (sorted(&found) != sorted(told)).then(|| format!("{found:?}, not {told:?}"))
        }
        Expected::Gang {
            members,
            min,
            placed,
        } => gang(&mut twin, case, members, *min, *placed),
    }
}

/// Whether the core takes a node when it is the one that the pod would like best.
fn fits_there(case: &Case, node: &str) -> bool {
    let mut twin = Twin::of(&case.world, profile(&case.profile));
    let class = twin.class(&case.pod);
    let all = twin.cluster.node_count() as usize;
    let best = twin.cluster.breakdown(&class, all);
    best.iter().any(|s| *s.node == *node)
}

fn parts(twin: &mut Twin, case: &Case) -> impl std::fmt::Debug + use<> {
    let class = twin.class(&case.pod);
    twin.cluster.breakdown(&class, 8)
}

fn choice(twin: &mut Twin, case: &Case, seed: u64) -> Option<String> {
    let request = twin.request(&case.pod);
    match twin.cluster.schedule(&[request], seed).as_slice() {
        [Decision::Bind(placement)] => Some(placement.node.to_string()),
        _ => None,
    }
}

fn proposal(found: &Preemption) -> setpoint_scheduler_check::Proposal {
    setpoint_scheduler_check::Proposal {
        node: found.node.to_string(),
        victims: found.victims.clone(),
        violations: found.violations,
    }
}

/// The same with the victims in one order.
fn sorted(
    found: &Option<setpoint_scheduler_check::Proposal>,
) -> Option<setpoint_scheduler_check::Proposal> {
    let mut found = found.clone()?;
    found.victims.sort();
    Some(found)
}

fn gang(
    twin: &mut Twin,
    case: &Case,
    members: &[setpoint_apis::ObjectKey],
    min: usize,
    expected: Option<usize>,
) -> Option<String> {
    let before = twin.cluster.placed_count();
    let requests: Vec<_> = members.iter().map(|m| twin.request(m)).collect();
    match twin.cluster.schedule_gang(&requests, min, 3) {
        Ok(decisions) => {
            let placed: Vec<_> = decisions.iter().map(node_of).collect();
            let count = placed.iter().flatten().count();
            if expected != Some(count) {
                return Some(format!("{count} were placed, not {expected:?}"));
            }
            let right = check_gang_placed(&case.world, members, min, &placed);
            right.err().map(|e| e.to_string())
        }
        Err(why) => {
            if expected.is_some() {
                return Some(format!("was refused: {:?}", why.reasons));
            }
            let after = twin.cluster.placed_count();
            (after != before).then(|| format!("{} members were left over", after - before))
        }
    }
}

/// The node that a decision names.
pub(crate) fn node_of(decision: &Decision) -> Option<String> {
    match decision {
        Decision::Bind(placement) => Some(placement.node.to_string()),
        Decision::Unschedulable(_) => None,
    }
}

fn profile(text: &tables::Profile) -> Profile {
    let mut profile = Profile::default();
    profile.strategy = match text.strategy.as_deref() {
        None | Some("LeastAllocated") => Strategy::LeastAllocated,
        Some("MostAllocated") => Strategy::MostAllocated,
        Some("Balanced") => Strategy::Balanced,
        Some(other) => panic!("no strategy {other}"),
    };
    profile
}
