//! `setpoint controllers`: all controllers, or some of them, in one process with one cache. Any number of replicas may
//! run; all are warm, one leads.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use futures::future::BoxFuture;
use setpoint_apis::Keyspace;
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{CacheBuilder, Clock, Elector};
use setpoint_store::SharedStore;
use setpoint_store::group_commit::{GroupCommit, Options as CommitOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// A controller, as `--only` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    Scheduler,
    Workloads,
    NodeLifecycle,
    Failover,
    Gc,
}

/// Flags of `setpoint controllers`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControllersArgs {
    /// Run only these
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub(crate) only: Vec<Name>,
    /// Time to live of the leader's lease, in seconds: a killed leader is followed at most this long after
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) leader_lease_ttl: u64,
    /// Seeds names and tie-breaks; for repeating a run
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
}

/// Runs until `shutdown`; hands every leadership over before it returns.
pub(crate) async fn run(
    args: ControllersArgs,
    store: SharedStore,
    keyspace: Keyspace,
    shutdown: CancellationToken,
) -> Result<()> {
    let runs = |name| args.only.is_empty() || args.only.contains(&name);
    let identity = identity()?;
    let seed = args.seed.unwrap_or_else(|| seed_from(&identity));
    let clock = Clock::system();
    let commits = GroupCommit::new(store.clone(), CommitOptions::default());

    let mut builder = CacheBuilder::new();
    builder = setpoint_scheduler::register(builder);
    builder = setpoint_workloads::register(builder);
    builder = setpoint_node_lifecycle::register(builder);
    builder = setpoint_failover::register(builder);
    builder = setpoint_gc::register(builder);
    let (cache, driver) = builder.build(store.clone(), keyspace.clone());

    let cache_task = tokio::spawn(driver.run());
    let elector = Elector::new(
        store.clone(),
        commits.clone(),
        cache.clone(),
        identity.clone(),
        Duration::from_secs(args.leader_lease_ttl),
    );
    // A recorder flushes after the controllers have stopped.
    let events_done = CancellationToken::new();
    let events = TaskTracker::new();
    let recorder = |source: &'static str| {
        let (recorder, driver) = Recorder::new(
            store.clone(),
            commits.clone(),
            keyspace.clone(),
            clock.clone(),
            source,
            None,
            events_done.clone(),
        );
        events.spawn(driver);
        recorder
    };
    let mut tasks = JoinSet::new();
    macro_rules! lead {
        ($name:expr, $key:literal, |$leader:ident, $clock:ident, $recorder:ident| $run:expr) => {
            if runs($name) {
                let (elector, shutdown, $clock, $recorder) = (
                    elector.clone(),
                    shutdown.clone(),
                    clock.clone(),
                    recorder($key),
                );
                tasks.spawn(async move {
                    elector
                        .run($key, shutdown, |$leader| {
                            let ($clock, $recorder) = ($clock.clone(), $recorder.clone());
                            // Boxed here, so that the compiler looks at each controller by itself.
                            let work: BoxFuture<'static, ()> = Box::pin($run);
                            work
                        })
                        .await;
                });
            }
        };
    }
    lead!(Name::Scheduler, "scheduler", |leader, clock, recorder| {
        setpoint_scheduler::run(leader, clock, recorder, seed)
    });
    lead!(Name::Workloads, "workloads", |leader, clock, recorder| {
        setpoint_workloads::run(leader, clock, recorder, seed)
    });
    lead!(
        Name::NodeLifecycle,
        "node-lifecycle",
        |leader, clock, recorder| setpoint_node_lifecycle::run(leader, clock, recorder)
    );
    lead!(Name::Failover, "failover", |leader, clock, recorder| {
        setpoint_failover::run(leader, clock, recorder)
    });
    lead!(Name::Gc, "gc", |leader, clock, recorder| setpoint_gc::run(
        leader, clock, recorder
    ));
    info!(identity, "controllers started");

    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = cache_task => bail!("the cache's task ended: {ended:?}"),
        // With a controller dead the process would run on as half of one: better to end, and be started again.
        Some(ended) = tasks.join_next() => if !shutdown.is_cancelled() { bail!("a controller ended by itself: {ended:?}") },
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            warn!(
                error = &error as &dyn std::error::Error,
                "a controller ended badly"
            );
        }
    }
    elector.resign().await;
    events_done.cancel();
    events.close();
    if tokio::time::timeout(Duration::from_secs(2), events.wait())
        .await
        .is_err()
    {
        info!("some events were not written");
    }
    Ok(())
}

/// Host, process and something that differs between two lives of the same process id.
fn identity() -> Result<String> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let unique = u32::from_ne_bytes(crate::random::bytes()?);
    Ok(format!("{host}-{}-{unique:08x}", std::process::id()))
}

fn seed_from(identity: &str) -> u64 {
    identity.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
