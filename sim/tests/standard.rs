//! The standard scenarios. `SIM_SEEDS` sets how many seeds run, `SIM_FIRST` with which one they begin.

use std::sync::atomic::{AtomicU64, Ordering};

use setpoint_sim::{Options, generate, run};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[test]
fn no_seed_breaks_an_invariant() {
    let first = number("SIM_FIRST").unwrap_or(0);
    let seeds = number("SIM_SEEDS").unwrap_or(60);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let report = run(&generate::standard(seed), seed, Options::default()).unwrap();
                    assert!(report.is_good(), "{report}");
                }
            });
        }
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 7, 11] {
        let once = run(&generate::standard(seed), seed, Options::default()).unwrap();
        let again = run(&generate::standard(seed), seed, Options::default()).unwrap();
        assert_eq!(once, again);
        assert!(once.writes > 50, "{once}");
        let other = run(&generate::standard(seed), seed + 1000, Options::default()).unwrap();
        assert_ne!(once.digest, other.digest);
    }
}

#[test]
fn keeping_the_writes_changes_nothing() {
    let scenario = generate::standard(3);
    let plain = run(&scenario, 3, Options::default()).unwrap();
    let traced = run(
        &scenario,
        3,
        Options {
            trace: true,
            ..Options::default()
        },
    )
    .unwrap();
    assert_eq!(plain.digest, traced.digest);
    assert_eq!(traced.trace.len() as u64, traced.writes);
    assert!(traced.trace.is_sorted_by_key(|w| (w.millis, w.revision)));
}

#[test]
fn what_is_left_of_a_scenario_breaks_the_same_invariant() {
    // Nobody is left to do what is asked for last.
    let mut scenario = generate::standard(3);
    scenario.spec.settle = "2s".parse().unwrap();
    scenario.spec.controllers.replicas = 1;
    let mut late = scenario.spec.timeline[0].clone();
    late.at = "5m".parse().unwrap();
    late.crash = vec!["controllers-0".to_owned()];
    late.apply[0]["metadata"]["name"] = "late".into();
    scenario.spec.timeline.push(late);
    let report = run(&scenario, 3, Options::default()).unwrap();
    let broken = report.violations[0].invariant;
    let least = setpoint_sim::minimize(&scenario, 3, |_, _| {}).unwrap();
    assert_eq!((broken, least.invariant), ("converges", "converges"));
    assert_eq!(
        least.scenario.spec.timeline.len(),
        1,
        "{:?}",
        least.scenario
    );
    let again = run(&least.scenario, 3, Options::default()).unwrap();
    assert_eq!(again.violations[0].invariant, broken);
}
