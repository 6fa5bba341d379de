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
    let seeds = number("SIM_SEEDS").unwrap_or(200);
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
