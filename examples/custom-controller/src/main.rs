//! Runs the controller: `SETPOINT_ENDPOINTS=http://127.0.0.1:2379 custom-controller`. Any number of replicas may run;
//! all are warm, one leads.

use std::sync::Arc;

use anyhow::{Context, Result};
use setpoint_apis::Keyspace;
use setpoint_runtime::shutdown::CancellationToken;
use setpoint_runtime::{CacheBuilder, Elector, election};
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::{EtcdStore, SharedStore, config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let connection = config::load(&config::Flags::default())?;
    let store: SharedStore = Arc::new(EtcdStore::connect(&connection.options).await?);
    let keyspace = Keyspace::new(&connection.prefix)?;
    let commits = GroupCommit::new(store.clone(), Options::default());
    let (cache, driver) =
        custom_controller::register(CacheBuilder::new()).build(store.clone(), keyspace);
    let cache_task = tokio::spawn(driver.run());

    let identity = format!("custom-controller-{}", std::process::id());
    let elector = Elector::new(store, commits, cache, identity, election::DEFAULT_LEASE_TTL);
    let shutdown = CancellationToken::new();
    let leading = elector.run("websites", shutdown.clone(), custom_controller::run);
    let stop = async {
        let signal = tokio::signal::ctrl_c().await;
        shutdown.cancel();
        signal.context("waiting for Ctrl-C")
    };
    let (stopped, ()) = tokio::join!(stop, leading);
    elector.resign().await;
    cache_task.abort();
    stopped
}
