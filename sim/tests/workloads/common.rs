//! How the scenarios of these tests are run.

use setpoint_sim::scenario::{AtWrite, Strike};
use setpoint_sim::{Options, Report, Scenario, run};

/// Runs a scenario, with a strike besides where there is one, and keeps what the store holds at the end. Nothing may be
/// wrong.
#[track_caller]
pub(crate) fn run_well(scenario: &Scenario, seed: u64, strike: Option<AtWrite>) -> Report {
    let mut scenario = scenario.clone();
    scenario.spec.at_writes.extend(strike);
    let options = Options {
        state: true,
        ..Options::default()
    };
    let report = run(&scenario, seed, options).unwrap();
    assert!(report.is_good(), "{:?}: {report}", scenario.spec.at_writes);
    report
}

/// A strike at a write of a controller.
pub(crate) fn at(controller: &str, write: u64, strike: Strike) -> AtWrite {
    AtWrite {
        controller: controller.to_owned(),
        write,
        strike,
    }
}

/// What strikes at a write where all four take turns.
pub(crate) fn turn(write: u64) -> Strike {
    Strike::ALL[usize::try_from(write % 4).unwrap()]
}
