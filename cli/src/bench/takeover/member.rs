//! One member of a sharded controller: it writes once for each shard that it begins to lead.

use anyhow::Result;
use clap::Args;
use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_runtime::{CacheBuilder, Elector, Leader, Shards, Write, election};
use setpoint_store::group_commit::{GroupCommit, Options};
use tokio_util::sync::CancellationToken;

use super::CONTROLLER;
use crate::controllers::identity;

/// Flags of `setpoint bench takeover-member`.
#[derive(Args, Clone, Debug)]
pub(crate) struct MemberArgs {
    /// The etcd of the benchmark
    #[arg(long, value_name = "ENDPOINT")]
    etcd: String,
    /// The prefix of the keys
    #[arg(long, value_name = "PREFIX")]
    keys: String,
}

/// Takes part until Ctrl-C or SIGTERM.
pub(crate) async fn member(args: MemberArgs) -> Result<()> {
    let store = crate::connect::open(&args.etcd).await?;
    let keyspace = Keyspace::new(&args.keys)?;
    let (cache, driver) = CacheBuilder::new().build(store.clone(), keyspace);
    tokio::spawn(driver.run());
    let commits = GroupCommit::new(store.clone(), Options::default());
    let identity = identity()?;
    let elector = Elector::new(
        store,
        commits,
        cache,
        identity.clone(),
        election::DEFAULT_LEASE_TTL,
    );
    let shutdown = CancellationToken::new();
    let asked = shutdown.clone();
    tokio::spawn(async move {
        crate::signals::interrupted().await;
        asked.cancel();
    });
    let lead = move |leader: Leader| write_once(leader, identity.clone());
    elector
        .run_sharded(CONTROLLER, Shards::DEFAULT, shutdown, lead)
        .await;
    elector.resign().await;
    Ok(())
}

async fn write_once(leader: Leader, identity: String) {
    if let Some(shard) = leader.shard() {
        let object = ObjectKey::namespaced("default", shard.to_string());
        let key = leader.keyspace().build(&Key::Desired("configmaps", object));
        // What fails shows in the benchmark, which waits for the key.
        let write = Write::put("a first write", key, format!("by: {identity}\n"));
        let _ = leader.commit_only(vec![write]).await;
    }
    leader.lost().cancelled().await;
}
