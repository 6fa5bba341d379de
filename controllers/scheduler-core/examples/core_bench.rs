//! How many pods per second the core places, by case, and how that grows with nodes. Run with `--release`; arguments name
//! the cases, `growth` among them.

#![expect(clippy::print_stdout, reason = "a bench prints what it measured")]

use std::time::Instant;

use setpoint_scheduler_core::bench::{Case, GROWTH_NODES, Measured, USUAL_NODES, exponent, run};

fn tell(m: &Measured) {
    println!(
        "{:>20} {:>7} {:>8} {:>8} {:>14.0} {:>10.2}",
        m.case.name(),
        m.nodes,
        m.pods,
        m.bound,
        m.pods_per_second(),
        m.seconds_per_pod() * 1e6
    );
}

fn main() {
    let began = Instant::now();
    let clock = || began.elapsed();
    println!(
        "{:>20} {:>7} {:>8} {:>8} {:>14} {:>10}",
        "case", "nodes", "pods", "bound", "pods/s", "us/pod"
    );
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    for case in Case::ALL.into_iter().filter(|c| wants(&c.name())) {
        tell(&run(
            case,
            USUAL_NODES,
            case.usual_pods(USUAL_NODES),
            &clock,
        ));
    }
    if !wants("growth") {
        return;
    }
    let growth = GROWTH_NODES.map(|nodes| run(Case::Basic, nodes, 20_000, &clock));
    growth.iter().for_each(tell);
    println!(
        "time per pod grows with nodes to the power of {:.3}",
        exponent(&growth)
    );
}
