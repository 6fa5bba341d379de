//! The node agent: takes the work of one node, runs it, and reports what became of it.
//!
//! From the bottom up: [`spec`] and [`shim`] are one container and the process that supervises it; [`driver`] and
//! [`process`] start, stop and adopt containers; [`mod@env`], [`volumes`] and [`pod`] make pods of them; [`node`] takes work
//! from the store and hands it to them through [`workload`] and [`runner`]; [`server`] shows logs. [`hollow`] pretends, and [`fleet`] does so for many nodes.

mod asyncfd;
pub mod cgroup;
pub mod content;
pub mod deadline;
pub mod driver;
pub mod env;
pub mod fleet;
pub mod hollow;
pub mod layout;
mod locked;
pub mod logs;
pub mod node;
mod openfiles;
pub mod pod;
pub mod process;
mod procfs;
pub mod runner;
pub mod server;
pub mod shim;
pub mod spec;
pub mod volumes;
pub mod workload;

use setpoint_apis::Keyspace;
use setpoint_store::SharedStore;
use tokio_util::sync::CancellationToken;

use cgroup::Cgroups;
use node::config::AgentConfig;
use node::{AgentError, Surroundings};

/// Runs an agent with the process driver until `shutdown`.
///
/// # Errors
/// [`AgentError`] when it cannot begin, or another agent took its name.
pub async fn run(
    config: AgentConfig,
    store: SharedStore,
    keyspace: Keyspace,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    openfiles::raise();
    // First: an agent that is just ending has the port as well as the directory.
    let surroundings = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(()),
        surroundings = Surroundings::this("process", &config) => surroundings?,
    };
    let server = server::Server::bind(&config.listen, &config.data_dir)
        .await
        .map_err(AgentError::Listen)?;
    let endpoint = server.endpoint(config.address);
    let serving = tokio::spawn(server.run(shutdown.clone()));
    let groups = Cgroups::detect(&config.cgroup_root);
    let result = node::run(
        config,
        surroundings,
        store,
        keyspace,
        Some(endpoint),
        runner::Runner::with_processes,
        shutdown,
    )
    .await;
    // Nothing is left of an agent that has stopped its pods; the groups of pods that go on stay.
    groups.remove_base();
    serving.abort();
    result
}
