//! `setpoint controllers`: all controllers, or some of them, in one process with one cache. Any number of replicas may
//! run; all are warm, one leads, or each leads some shards (`--shard`).

mod http;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use setpoint_apis::Keyspace;
use setpoint_apis::fnv::fnv64;
use setpoint_controllers::{Name, Options, Shardable, Started};
use setpoint_runtime::Clock;
use setpoint_store::SharedStore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::gate::HolesArgs;

/// Flags of `setpoint controllers`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ControllersArgs {
    /// Run only these
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", value_parser = PossibleValuesParser::new(Name::ALL.map(Name::as_str)).try_map(|name| name.parse::<Name>()))]
    pub(crate) only: Vec<Name>,
    /// Split the work of these among all replicas, instead of one leading and the others waiting. All replicas must agree:
    /// one that would lead as a whole and those that share wait for each other to end
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", value_parser = PossibleValuesParser::new(Shardable::ALL.map(|s| s.name().as_str())).try_map(|name| name.parse::<Shardable>()))]
    pub(crate) shard: Vec<Shardable>,
    /// Time to live of the leader's lease, in seconds: a killed leader is followed at most this long after
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) leader_lease_ttl: u64,
    /// Seeds names and tie-breaks; for repeating a run
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) holes: HolesArgs,
    /// Serve /metrics, /healthz and /readyz here, over plain HTTP; nothing is served without it
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

/// Runs until `shutdown`; hands every leadership over before it returns.
pub(crate) async fn run(
    args: ControllersArgs,
    store: SharedStore,
    keyspace: Keyspace,
    shutdown: CancellationToken,
) -> Result<()> {
    let mut controllers = args.only;
    if controllers.is_empty() {
        controllers = Name::ALL.to_vec();
    }
    controllers.sort_unstable();
    controllers.dedup();
    let idle = args.shard.iter().find(|s| !controllers.contains(&s.name()));
    if let Some(idle) = idle {
        let name = idle.name().as_str();
        bail!("--shard {name}: --only leaves {name} out; add it there, or leave it out of --shard");
    }
    let identity = identity()?;
    let options = Options {
        controllers,
        sharded: args.shard,
        seed: args.seed.unwrap_or_else(|| fnv64(identity.as_bytes())),
        identity,
        leader_lease_ttl: Duration::from_secs(args.leader_lease_ttl),
        clock: Clock::system(),
    };
    let Some(address) = args.metrics_listen else {
        setpoint_controllers::run(options, store, keyspace, |_| {}, shutdown).await?;
        return Ok(());
    };
    let endpoint = http::Endpoint::bind(address).await?;
    info!(address = %endpoint.address(), "serving metrics");
    let (show, shown) = watch::channel(None);
    let serving = tokio::spawn(endpoint.serve(shown, std::future::pending()));
    let started = |started: &Started| {
        show.send_replace(Some(started.clone()));
    };
    let result = setpoint_controllers::run(options, store, keyspace, started, shutdown).await;
    // Seen until the last leadership is handed over. A connection that somebody keeps open does not hold the process.
    serving.abort();
    Ok(result?)
}

/// Host, process and something that differs between two lives of the same process id.
pub(crate) fn identity() -> Result<String> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let unique = u32::from_ne_bytes(crate::random::bytes()?);
    Ok(format!("{host}-{}-{unique:08x}", std::process::id()))
}
