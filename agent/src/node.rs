//! The node loop: one session, one watch of the node's work, claims before anything starts, and status writes that are
//! coalesced and guarded by the session.
//!
//! # Guarantees
//! - Nothing is started that was not claimed in a transaction of the present session or an earlier one of this node.
//! - A new session lists its work afresh, and claims nothing before all that is no longer its own has been stopped.
//! - Without etcd what was claimed goes on, across restarts of the agent as well.
//! - A quiet node writes nothing.
//! - A pod with the partition policy `stop` is claimed under the node's fence, and does not run when that can have ended. On
//!   a version of etcd that breaks the rules that fences rest on it is not claimed.
//! - The directory of a volume claim goes only for a tombstone of its uid, and never while a pod here uses it.

pub mod config;
mod disk;
mod fence;
mod looping;
mod machine;
mod session;
mod state;
pub mod status;
mod work;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::records::NodeAlive;
use setpoint_apis::{Keyspace, ResourceList};
use setpoint_runtime::Clock;
use setpoint_runtime::events::Recorder;
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::{SharedStore, task};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::content::Content;
use crate::workload::{PodRunner, Reports};
use config::AgentConfig;
use looping::{NodeLoop, Parts};

pub use disk::{Disk, DiskError, HollowDisk};
pub use machine::Machine;

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its directory cannot be used.
    #[error("cannot use the data directory")]
    Disk(#[source] DiskError),
    /// Another agent holds the node.
    #[error("node {node} is held by another agent: host {}, process {}, since {}. Stop that one, or give this one another --node-name", holder.hostname, holder.pid, holder.since)]
    Held {
        /// The node.
        node: String,
        /// Who holds it.
        holder: Box<NodeAlive>,
    },
    /// Logs cannot be served.
    #[error("cannot serve logs")]
    Listen(#[source] crate::server::ServerError),
    /// The pod layer could not be set up.
    #[error("cannot set up the pod layer")]
    Runner(#[source] std::io::Error),
}

/// What the pod layer is made from.
pub struct RunnerContext {
    /// Where reports go.
    pub reports: Arc<Reports>,
    /// The config maps and secrets that the node was given. A document that does not parse is absent when it never did,
    /// and the last good one otherwise.
    pub content: Arc<Content>,
    /// Counts the changes of `content`.
    pub content_version: watch::Receiver<u64>,
    /// What the machine has.
    pub capacity: ResourceList,
    /// What pods may request.
    pub allocatable: ResourceList,
    /// Events about pods.
    pub recorder: Recorder,
    /// Wall time.
    pub clock: Clock,
}

/// How long the agent before may take to let go of the data directory.
const FORMER_AGENT_ENDS: Duration = Duration::from_secs(5);

/// What an agent runs on.
pub struct Surroundings {
    /// The machine.
    pub machine: Machine,
    /// Its copy on disk.
    pub disk: Disk,
    /// Wall time.
    pub clock: Clock,
}

impl Surroundings {
    /// This machine, with containers run by `driver`.
    ///
    /// # Errors
    /// The agent's directory cannot be used.
    pub async fn this(driver: &'static str, config: &AgentConfig) -> Result<Self, AgentError> {
        Ok(Self {
            machine: Machine::this(driver),
            disk: Disk::open_within(&config.data_dir, FORMER_AGENT_ENDS)
                .await
                .map_err(AgentError::Disk)?,
            clock: Clock::system(),
        })
    }
}

/// Runs the agent until `shutdown`.
///
/// `runner` makes the pod layer. `endpoint` is where logs are served.
///
/// # Errors
/// [`AgentError`] when the agent cannot begin, or another one took its name.
pub async fn run(
    config: AgentConfig,
    surroundings: Surroundings,
    store: SharedStore,
    keyspace: Keyspace,
    endpoint: Option<String>,
    runner: impl FnOnce(&AgentConfig, RunnerContext) -> Result<Arc<dyn PodRunner>, std::io::Error>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let commits = GroupCommit::new(store.clone(), Options::default());
    run_sharing(
        commits,
        config,
        surroundings,
        store,
        keyspace,
        endpoint,
        runner,
        shutdown,
    )
    .await
}

/// As [`run`], with a group commit to `store` that other agents of the process share.
///
/// # Errors
/// As [`run`].
#[expect(
    clippy::too_many_arguments,
    reason = "what an agent is made of, handed in by two callers"
)]
pub async fn run_sharing(
    commits: GroupCommit,
    config: AgentConfig,
    surroundings: Surroundings,
    store: SharedStore,
    keyspace: Keyspace,
    endpoint: Option<String>,
    runner: impl FnOnce(&AgentConfig, RunnerContext) -> Result<Arc<dyn PodRunner>, std::io::Error>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let Surroundings {
        machine,
        disk,
        clock,
    } = surroundings;
    let events_done = CancellationToken::new();
    let (recorder, driver) = Recorder::new(
        store.clone(),
        commits.clone(),
        keyspace.clone(),
        clock.clone(),
        "agent",
        Some(config.node.clone()),
        events_done.clone(),
    );
    let events = task::spawn(driver);
    let reports = Arc::new(Reports::default());
    let content = Arc::new(Content::default());
    let content_version = watch::Sender::new(0);
    let sample = machine.sample(&config.data_dir);
    let described = status::describe(&config, &machine, endpoint.clone(), &sample, clock.now());
    let context = RunnerContext {
        reports: reports.clone(),
        content: content.clone(),
        content_version: content_version.subscribe(),
        capacity: described.capacity,
        allocatable: described.allocatable,
        recorder: recorder.clone(),
        clock: clock.clone(),
    };
    let runner = runner(&config, context).map_err(AgentError::Runner)?;
    let parts = Parts {
        config,
        store,
        keyspace,
        commits,
        clock,
        machine,
        disk,
        runner,
        reports,
        content,
        content_version,
        endpoint,
        recorder,
    };
    let result = NodeLoop::new(parts).run(shutdown).await;
    events_done.cancel();
    let _ = tokio::time::timeout(looping::FAREWELL, events).await;
    result
}
