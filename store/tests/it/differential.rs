//! Random operations, carried out by the model and by etcd, with every field of every answer and every event compared.
//!
//! A sequence is made from a seed, which a failure names. `SETPOINT_DIFFERENTIAL=n` runs n sequences instead of a few
//! hundred, `SETPOINT_DIFFERENTIAL_SEED=s` only that one. What differs is a bug of the model, or it is in
//! `docs/etcd-quirks.md`. Excluded are the times at which leases expire, and orders that etcd leaves open.

pub(crate) mod client;
mod generate;
mod itself;
mod run;

use setpoint_store::model::Config;

use crate::servers;

/// Sequences by default: half a minute.
const SEQUENCES: u64 = 200;

/// Servers of each version, which share the sequences: most of the time goes into waiting.
const WORKERS: u64 = 2;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is {text:?}, which is not a number")),
    )
}

fn seeds() -> std::ops::Range<u64> {
    match variable("SETPOINT_DIFFERENTIAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SETPOINT_DIFFERENTIAL").unwrap_or(SEQUENCES),
    }
}

#[tokio::test]
async fn the_development_store_answers_as_its_model_does() {
    let (endpoint, _directory) = servers::devstore(Config::default()).await;
    run::compare(endpoint, seeds().collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_answers_as_etcd_does() {
    let seeds = seeds();
    let workers = servers::binaries()
        .into_iter()
        .flat_map(|binary| (0..WORKERS).map(move |worker| (binary.clone(), worker)));
    let runs = workers.map(|(binary, worker)| {
        let mine: Vec<u64> = seeds
            .clone()
            .filter(|seed| seed % WORKERS == worker)
            .collect();
        tokio::spawn(async move {
            let server = servers::start(binary, None).await;
            run::compare(server.endpoint(), mine).await;
        })
    });
    for result in futures::future::join_all(runs).await {
        if let Err(error) = result {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
