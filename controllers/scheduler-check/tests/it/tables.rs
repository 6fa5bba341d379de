//! The core against the tables that the checker was held against.

use std::collections::BTreeSet;

use setpoint_apis::ObjectKey;
use setpoint_scheduler_check::tables::{self, Case, Expected, cases};
use setpoint_scheduler_check::{Proposal, check_gang_placed};
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
            let class = twin.class(&case.pod);
            let all = case.world.nodes.len();
            let best = twin.cluster.breakdown(&class, all);
            let fits: BTreeSet<_> = best.iter().map(|s| s.node.to_string()).collect();
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
            let chosen: BTreeSet<_> = (0..8)
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

fn proposal(found: &Preemption) -> Proposal {
    Proposal {
        node: found.node.to_string(),
        victims: found.victims.clone(),
        violations: found.violations,
    }
}

/// The same with the victims in one order.
fn sorted(found: &Option<Proposal>) -> Option<Proposal> {
    let mut found = found.clone()?;
    found.victims.sort();
    Some(found)
}

fn gang(
    twin: &mut Twin,
    case: &Case,
    members: &[ObjectKey],
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
    let strategy = match text.strategy.as_deref() {
        None | Some("LeastAllocated") => Strategy::LeastAllocated,
        Some("MostAllocated") => Strategy::MostAllocated,
        Some("Balanced") => Strategy::Balanced,
        Some(other) => panic!("no strategy {other}"),
    };
    let mut profile = Profile {
        strategy,
        ..Profile::default()
    };
    for (part, weight) in &text.weights {
        let of = &mut profile.weights;
        *match part.as_str() {
            "resources" => &mut of.resources,
            "nodeAffinity" => &mut of.node_affinity,
            "podAffinity" => &mut of.pod_affinity,
            "topologySpread" => &mut of.spread,
            "taintToleration" => &mut of.taints,
            "imageLocality" => &mut of.image_locality,
            other => panic!("no part {other}"),
        } = *weight;
    }
    profile
}
