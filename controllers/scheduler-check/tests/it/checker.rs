//! The checker against the tables, before it is used to judge anything.

use setpoint_scheduler_check::tables::{Case, Expected, cases};
use setpoint_scheduler_check::{
    check_gang_refused, check_preemption, feasible, feasible_nodes, proposals,
};

#[test]
fn the_tables_are_read_and_have_enough_cases() {
    let cases = cases().unwrap();
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut names: Vec<_> = cases.iter().map(|c| &c.name).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert!(pair[0] != pair[1], "two cases: {}", pair[0]);
    }
}

#[test]
fn the_checker_says_what_the_tables_say() {
    let mut wrong = Vec::new();
    for case in cases().unwrap() {
        if let Some(difference) = difference(&case) {
            wrong.push(format!("{}: {difference}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(case: &Case) -> Option<String> {
    let world = &case.world;
    let fits = feasible_nodes(world, &case.pod);
    match &case.expected {
        Expected::Fits(nodes) => (&fits != nodes).then(|| {
            let why: Vec<_> = world
                .nodes
                .keys()
                .map(|n| format!("{n}: {:?}", feasible(world, &case.pod, n)))
                .collect();
            format!("fits {fits:?}, not {nodes:?}; {why:?}")
        }),
        // Scores are not the checker's: that the better node is feasible is all it can say.
        Expected::Chooses(node) => {
            (!fits.contains(node)).then(|| format!("{node} is not among {fits:?}"))
        }
        Expected::Preempts(told) => {
            if !fits.is_empty() {
                return Some(format!("fits without preemption on {fits:?}"));
            }
            check_preemption(world, &case.pod, &case.budgets, told.as_ref())
                .err()
                .map(|e| format!("{e}; {:?}", proposals(world, &case.pod, &case.budgets)))
        }
        Expected::Gang {
            members,
            min,
            placed,
        } => {
            let refused = check_gang_refused(world, members, *min);
            match (placed, refused) {
                (None, Ok(true)) | (Some(_), Err(_)) => None,
                (_, verdict) => Some(format!("{verdict:?}")),
            }
        }
    }
}
