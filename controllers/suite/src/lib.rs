//! All controllers in one process: one cache, one group commit, one election lease; what `setpoint controllers` runs,
//! and what a simulation runs.

use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use setpoint_apis::Keyspace;
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{Cache, CacheBuilder, Clock, Elector, Leader, Metrics, Shards};
use setpoint_store::SharedStore;
use setpoint_store::group_commit::{GroupCommit, Options as CommitOptions};
use setpoint_store::task::inherit;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// How long events may take to be written after the controllers have stopped.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// A controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Binds pods to nodes.
    Scheduler,
    /// Deployments and ReplicaSets.
    Workloads,
    /// Says which nodes are there.
    NodeLifecycle,
    /// Says what becomes of the pods of lost nodes.
    Failover,
    /// Deletes objects whose owner is gone.
    Gc,
}

impl Name {
    /// Every controller.
    pub const ALL: [Self; 5] = [
        Self::Scheduler,
        Self::Workloads,
        Self::NodeLifecycle,
        Self::Failover,
        Self::Gc,
    ];

    /// The name that election keys, events and flags carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Workloads => "workloads",
            Self::NodeLifecycle => "node-lifecycle",
            Self::Failover => "failover",
            Self::Gc => "gc",
        }
    }
}

impl std::str::FromStr for Name {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == name)
            .ok_or_else(|| UnknownName(name.to_owned()))
    }
}

/// A controller whose work can be split among the processes, by key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shardable {
    /// Its objects are looked at one by one.
    Gc,
}

impl Shardable {
    /// Every one.
    pub const ALL: [Self; 1] = [Self::Gc];

    /// The controller.
    pub const fn name(self) -> Name {
        match self {
            Self::Gc => Name::Gc,
        }
    }

    /// Into how many shards its work falls, in all processes.
    pub const fn shards(self) -> Shards {
        Shards::DEFAULT
    }
}

impl std::str::FromStr for Shardable {
    type Err = NotShardable;

    fn from_str(name: &str) -> Result<Self, NotShardable> {
        Self::ALL
            .into_iter()
            .find(|known| known.name().as_str() == name)
            .ok_or_else(|| NotShardable(name.to_owned()))
    }
}

/// The work of no such controller can be split.
#[derive(Debug, thiserror::Error)]
#[error("the work of {0:?} cannot be split; that of gc can")]
pub struct NotShardable(String);

/// No controller has this name.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no controller {0:?}; the controllers are scheduler, workloads, node-lifecycle, failover and gc"
)]
pub struct UnknownName(String);

/// How a process of controllers runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which ones.
    pub controllers: Vec<Name>,
    /// Those of them whose work is split among the processes. A process that leads such a controller as a whole and one
    /// that would have a part of it exclude each other: the later one waits until the other has ended.
    pub sharded: Vec<Shardable>,
    /// What the process calls itself in elections: differs between any two lives of any two processes.
    pub identity: String,
    /// Time to live of the election lease.
    pub leader_lease_ttl: Duration,
    /// Seeds generated names and tie-breaks.
    pub seed: u64,
    /// Wall time.
    pub clock: Clock,
}

/// What others may look at while the controllers run.
#[derive(Clone)]
pub struct Started {
    /// The one cache.
    pub cache: Cache,
    /// What the process counts.
    pub metrics: Metrics,
}

/// Why a process of controllers ended by itself. With one of its tasks dead it would run on as half of one: better to
/// end, and to be started again.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The task that fills the cache.
    #[error("the cache's task ended")]
    Cache(#[source] Option<JoinError>),
    /// A controller.
    #[error("a controller ended by itself")]
    Controller(#[source] Option<JoinError>),
}

/// Runs controllers until `shutdown`; hands every leadership over before it returns. `started` is given what there is to look at.
///
/// # Errors
/// [`Ended`] when a part ended that never should.
pub async fn run(
    options: Options,
    store: SharedStore,
    keyspace: Keyspace,
    started: impl FnOnce(&Started),
    shutdown: CancellationToken,
) -> Result<(), Ended> {
    let commits = GroupCommit::new(store.clone(), CommitOptions::default());
    let (cache, driver) = register(CacheBuilder::new()).build(store.clone(), keyspace.clone());
    let metrics = Metrics::default();
    metrics.show_commits(commits.clone());
    metrics.show_cache(cache.clone());
    started(&Started {
        cache: cache.clone(),
        metrics: metrics.clone(),
    });

    let mut cache_task = JoinSet::new();
    cache_task.spawn(inherit(driver.run()));
    let elector = Elector::new(
        store.clone(),
        commits.clone(),
        cache.clone(),
        options.identity.clone(),
        options.leader_lease_ttl,
    )
    .with_metrics(metrics);
    // A recorder flushes after the controllers have stopped.
    let events_done = CancellationToken::new();
    let events = TaskTracker::new();
    let mut controllers = JoinSet::new();
    for &name in &options.controllers {
        let (recorder, driver) = Recorder::new(
            store.clone(),
            commits.clone(),
            keyspace.clone(),
            options.clock.clone(),
            name.as_str(),
            None,
            events_done.clone(),
        );
        events.spawn(inherit(driver));
        let (elector, shutdown) = (elector.clone(), shutdown.clone());
        let (clock, seed) = (options.clock.clone(), options.seed);
        let sharded = options.sharded.iter().find(|s| s.name() == name);
        if let Some(sharded) = sharded {
            let shards = sharded.shards();
            match sharded {
                Shardable::Gc => {
                    let (team, collecting) =
                        setpoint_gc::Sharded::new(shards, cache.clone(), clock, recorder, seed);
                    controllers.spawn(inherit(collecting));
                    controllers.spawn(inherit(async move {
                        let lead = move |leader| {
                            let team = team.clone();
                            async move { team.lead(leader).await }
                        };
                        elector
                            .run_sharded(name.as_str(), shards, shutdown, lead)
                            .await;
                    }));
                }
            }
            continue;
        }
        controllers.spawn(inherit(async move {
            let lead = |leader| controller(name, leader, clock.clone(), recorder.clone(), seed);
            elector.run(name.as_str(), shutdown, lead).await;
        }));
    }
    info!(identity = options.identity, "controllers started");

    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        ended = cache_task.join_next() => return Err(Ended::Cache(ended.and_then(Result::err))),
        Some(ended) = controllers.join_next() => {
            if !shutdown.is_cancelled() {
                return Err(Ended::Controller(ended.err()));
            }
        }
    }
    while let Some(ended) = controllers.join_next().await {
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
    if tokio::time::timeout(LAST_EVENTS, events.wait())
        .await
        .is_err()
    {
        info!("some events were not written");
    }
    Ok(())
}

/// Registers every kind that any controller reads.
pub fn register(builder: CacheBuilder) -> CacheBuilder {
    let builder = setpoint_scheduler::register(builder);
    let builder = setpoint_workloads::register(builder);
    let builder = setpoint_node_lifecycle::register(builder);
    let builder = setpoint_failover::register(builder);
    setpoint_gc::register(builder)
}

/// Boxed one by one, so that the compiler looks at each controller by itself.
fn controller(
    name: Name,
    leader: Leader,
    clock: Clock,
    recorder: Recorder,
    seed: u64,
) -> BoxFuture<'static, ()> {
    fn boxed(work: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, ()> {
        Box::pin(work)
    }
    match name {
        Name::Scheduler => boxed(setpoint_scheduler::run(leader, clock, recorder, seed)),
        Name::Workloads => boxed(setpoint_workloads::run(leader, clock, recorder, seed)),
        Name::NodeLifecycle => boxed(setpoint_node_lifecycle::run(leader, clock, recorder)),
        Name::Failover => boxed(setpoint_failover::run(leader, clock, recorder)),
        Name::Gc => boxed(setpoint_gc::run(leader, clock, recorder)),
    }
}
