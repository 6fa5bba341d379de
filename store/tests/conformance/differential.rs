//! Random operations, carried out by the model and by etcd, with every field of every answer and every event compared.
//!
//! A sequence is made from a seed, which a failure names. `SETPOINT_DIFFERENTIAL=n` runs n sequences instead of a few
//! hundred, `SETPOINT_DIFFERENTIAL_SEED=s` only that one. What differs is a bug of the model, or it is in
//! `docs/etcd-quirks.md`. Excluded are the times at which leases expire, and orders that etcd leaves open.

mod client;
mod generate;
mod run;

use crate::servers;

/// Sequences by default: some seconds for each server.
const SEQUENCES: u64 = 300;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, which is not a number")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_answers_as_etcd_does() {
    let seeds = match variable("SETPOINT_DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SETPOINT_DIFFERENTIAL").unwrap_or(SEQUENCES),
    };
    let runs = servers::start_all()
        .await
        .into_iter()
        .map(|server| tokio::spawn(run::compare(server, seeds.clone())));
    for result in futures::future::join_all(runs).await {
        if let Err(error) = result {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
