//! Random scenarios, as many as asked for, from a seed.
//!
//! `SETPOINT_CHECK_CASES` says how many (of each kind), `SETPOINT_CHECK_SEED` which. What fails is made smaller before
//! it is shown. Without them it is the same scenarios each time, so that a change is to blame for what it breaks;
//! `make check-scheduler` looks at new ones.

use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use setpoint_scheduler_check::generate::{Kinds, Scenario, scenarios};

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}

/// Runs `test` on scenarios of these kinds: `cases` of them unless the environment says otherwise.
pub(crate) fn search(kinds: Kinds, cases: u64, test: impl Fn(&Scenario) -> TestCaseResult) {
    let cases = number("SETPOINT_CHECK_CASES", cases);
    let seed = number("SETPOINT_CHECK_SEED", 1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: u32::try_from(cases).unwrap_or(u32::MAX),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    if let Err(failure) = runner.run(&scenarios(kinds), |scenario| test(&scenario)) {
        panic!("SETPOINT_CHECK_SEED={seed} SETPOINT_CHECK_CASES={cases}: {failure}");
    }
}
