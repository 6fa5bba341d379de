//! `setpoint dev`: a whole cluster in the foreground. A store (an etcd of its own, one that runs already, or the
//! development store), the controllers and N agents, each a child process with a name and a directory of its own.

mod child;
pub(crate) mod etcd;
mod processes;
mod store;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::future::select_all;
use serde::Serialize;
use setpoint_agent::cgroup::Cgroups;
use setpoint_agent::node::config::AgentConfig;
use setpoint_apis::Keyspace;
use setpoint_apis::records::NodeState;
use setpoint_runtime::{CacheBuilder, StateKey};
use setpoint_store::SharedStore;
use tokio::process::Command;

pub(crate) use child::Managed;
pub(crate) use processes::{kill_node, rss_bytes};
pub(crate) use store::{StoreKind, StoreProcess};

/// How long the parts of a cluster may take to come up on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What a store says that cannot have its port.
const PORT_TAKEN: &str = "address already in use";
/// How often a store is started with other ports.
const PORT_TRIES: u32 = 3;

/// Flags of `setpoint dev`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=250))]
    pub(crate) nodes: u16,
    /// Where the store's data, the nodes' files and the logs go; kept afterwards. Default: a temporary directory
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// What keeps the state. Default: an etcd where one is found, else the development store of this program
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "etcd")]
    pub(crate) store: Option<StoreKind>,
    /// Use this running etcd instead of starting one
    #[arg(long, value_name = "ENDPOINT", conflicts_with = "etcd_bin")]
    pub(crate) etcd: Option<String>,
    /// The etcd program to start. Default: SETPOINT_ETCD, then PATH, then the one `make setup` built
    #[arg(long, value_name = "PATH")]
    pub(crate) etcd_bin: Option<PathBuf>,
    /// The store's client port; a free one is taken when it is in use
    #[arg(long, default_value_t = 2379, value_name = "PORT")]
    pub(crate) etcd_port: u16,
    /// Pods get addresses out of this /16 of loopback, a /24 per node
    #[arg(long, default_value = "127.10.0.0/16", value_name = "CIDR", value_parser = parse_base)]
    pub(crate) pod_cidr_base: (u8, u8),
    /// Time to live of a node's detection lease, in seconds
    #[arg(long, default_value_t = 6, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) lease_ttl: u64,
    /// Key prefix in etcd: the flag is one that every command takes
    #[arg(skip)]
    pub(crate) key_prefix: Keyspace,
}

fn parse_base(text: &str) -> Result<(u8, u8), String> {
    let wrong = || format!("{text:?} is not a /16 of loopback such as 127.10.0.0/16");
    let address: Ipv4Addr = text
        .strip_suffix("/16")
        .and_then(|a| a.parse().ok())
        .ok_or_else(wrong)?;
    match address.octets() {
        [127, b, 0, 0] => Ok((127, b)),
        _ => Err(wrong()),
    }
}

/// What `<data-dir>/dev.json` tells scripts.
#[derive(Serialize)]
struct Description<'a> {
    endpoint: &'a str,
    /// Of the etcd that was started.
    etcd_pid: Option<u32>,
    /// Of the development store.
    devstore_pid: Option<u32>,
    controllers_pid: u32,
    agents: Vec<AgentDescription<'a>>,
}

#[derive(Serialize)]
struct AgentDescription<'a> {
    name: &'a str,
    pid: u32,
    data_dir: &'a Path,
}

/// A running development cluster. Dropping it kills its processes; [`DevCluster::stop`] stops them in order.
pub(crate) struct DevCluster {
    pub(crate) endpoint: String,
    pub(crate) store: SharedStore,
    pub(crate) keyspace: Keyspace,
    pub(crate) dir: PathBuf,
    /// Removes the directory when it was a temporary one.
    _temporary: Option<tempfile::TempDir>,
    /// `None` when it runs already.
    own_store: Option<StoreProcess>,
    pub(crate) controllers: Managed,
    pub(crate) agents: Vec<Agent>,
}

/// One agent of a development cluster.
pub(crate) struct Agent {
    pub(crate) process: Managed,
    pub(crate) data_dir: PathBuf,
}

impl DevCluster {
    /// Starts everything and waits until all nodes are Ready.
    pub(crate) async fn start(args: &DevArgs) -> Result<Self> {
        let (dir, temporary) = directory(args.data_dir.as_deref())?;
        let logs = dir.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        let (own_store, endpoint, store) = match &args.etcd {
            Some(endpoint) => (None, endpoint.clone(), connect(endpoint, None).await?),
            None => {
                let start = async || store::start(args, &dir, &logs).await;
                let (started, store) = start_store(start).await?;
                let endpoint = started.endpoint.clone();
                (Some(started), endpoint, store)
            }
        };
        let keyspace = args.key_prefix.clone();
        crate::init::initialise(&store, &keyspace).await?;

        let program = std::env::current_exe().context("finding the setpoint program")?;
        let command = |subcommand: &str| {
            let mut command = Command::new(&program);
            command.arg(subcommand).args([
                "--endpoints",
                &endpoint,
                "--key-prefix",
                keyspace.as_str(),
            ]);
            command
        };
        let controllers = Managed::start("controllers", command("controllers"), &logs)?;
        let mut agents = Vec::new();
        for number in 1..=args.nodes {
            let name = format!("n{number}");
            let data_dir = dir.join("nodes").join(&name);
            let mut agent = command("agent");
            agent
                .args([
                    "--node-name",
                    &name,
                    "--listen",
                    "127.0.0.1:0",
                    "--stop-pods-on-exit",
                ])
                .args(["--lease-ttl", &format!("{}s", args.lease_ttl)])
                .args([
                    "--pod-cidr",
                    &format!(
                        "{}.{}.{number}.0/24",
                        args.pod_cidr_base.0, args.pod_cidr_base.1
                    ),
                ])
                .arg("--data-dir")
                .arg(&data_dir);
            agents.push(Agent {
                process: Managed::start(&name, agent, &logs)?,
                data_dir,
            });
        }
        let mut cluster = Self {
            endpoint,
            store,
            keyspace,
            dir,
            _temporary: temporary,
            own_store,
            controllers,
            agents,
        };
        cluster.describe()?;
        let nodes: Vec<String> = cluster
            .agents
            .iter()
            .map(|a| a.process.name.clone())
            .collect();
        let ready = nodes_ready(cluster.store.clone(), cluster.keyspace.clone(), nodes);
        let failed = tokio::select! {
            ready = tokio::time::timeout(START_LIMIT, ready) => match ready {
                Ok(()) => None,
                Err(_) => Some(format!("the nodes were not Ready after {} s", START_LIMIT.as_secs())),
            },
            ended = cluster.child_ended() => Some(ended),
        };
        match failed {
            None => Ok(cluster),
            Some(why) => {
                cluster.stop().await;
                bail!("{why}")
            }
        }
    }

    fn describe(&self) -> Result<()> {
        let pid_of = |kind| {
            let own = self.own_store.as_ref().filter(|own| own.kind == kind);
            own.map(|own| own.process.pid())
        };
        let description = Description {
            endpoint: &self.endpoint,
            etcd_pid: pid_of(StoreKind::Etcd),
            devstore_pid: pid_of(StoreKind::Builtin),
            controllers_pid: self.controllers.pid(),
            agents: self
                .agents
                .iter()
                .map(|a| AgentDescription {
                    name: &a.process.name,
                    pid: a.process.pid(),
                    data_dir: &a.data_dir,
                })
                .collect(),
        };
        let path = self.dir.join("dev.json");
        let text = serde_json::to_string_pretty(&description).context("describing the cluster")?;
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Waits until a child ends that should not have, and says which and why. Children that had ended before are not
    /// named again.
    pub(crate) async fn child_ended(&mut self) -> String {
        let children = self
            .own_store
            .iter_mut()
            .map(|own| &mut own.process)
            .chain([&mut self.controllers])
            .chain(self.agents.iter_mut().map(|a| &mut a.process));
        let waits: Vec<_> = children
            .filter_map(|child| child.is_running().then_some(child))
            .map(|child| {
                Box::pin(async move {
                    let status = child.wait().await;
                    let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    format!(
                        "{} ended: {how}; the end of {}:\n{}",
                        child.name,
                        child.log.display(),
                        child.log_tail(5)
                    )
                })
            })
            .collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        select_all(waits).await.0
    }

    /// Whether the parts without which nothing goes on are running.
    pub(crate) fn is_viable(&mut self) -> bool {
        let store = self.own_store.as_mut();
        store.is_none_or(|own| own.process.is_running()) && self.controllers.is_running()
    }

    /// Stops the agents with their pods, then the controllers, then the store.
    pub(crate) async fn stop(&mut self) {
        let agents = self
            .agents
            .iter_mut()
            .map(|a| a.process.stop(Duration::from_secs(40)));
        futures::future::join_all(agents).await;
        for agent in &self.agents {
            // What an agent that was killed has left behind.
            kill_node(None, &agent.data_dir);
            let config = AgentConfig::new(&agent.process.name, &agent.data_dir);
            Cgroups::detect(config.cgroup_root).remove_base();
        }
        self.controllers.stop(Duration::from_secs(5)).await;
        if let Some(own) = &mut self.own_store {
            own.process.stop(Duration::from_secs(5)).await;
        }
    }
}

impl Drop for DevCluster {
    /// The children are killed by their handles; what the agents started is not theirs to kill.
    fn drop(&mut self) {
        for agent in &mut self.agents {
            // A process that has ended gave its number away.
            let pid = agent.process.is_running().then(|| agent.process.pid());
            kill_node(pid, &agent.data_dir);
        }
    }
}

/// Runs a cluster until Ctrl-C.
pub(crate) async fn run(args: DevArgs) -> Result<()> {
    let mut out = std::io::stdout();
    let mut cluster = tokio::select! {
        cluster = DevCluster::start(&args) => cluster?,
        () = crate::signals::interrupted() => bail!("interrupted"),
    };
    writeln!(
        out,
        "setpoint dev: {} nodes, data and logs in {}",
        cluster.agents.len(),
        cluster.dir.display()
    )?;
    let kind = cluster.own_store.as_ref().map(|own| own.kind);
    if kind == Some(StoreKind::Builtin) {
        writeln!(
            out,
            "setpoint dev: the state is in the development store; --store etcd keeps it in an etcd"
        )?;
    }
    writeln!(
        out,
        "setpoint dev: export SETPOINT_ENDPOINTS={}",
        cluster.endpoint
    )?;
    if cluster.keyspace != Keyspace::default() {
        writeln!(
            out,
            "setpoint dev: export SETPOINT_PREFIX={}",
            cluster.keyspace
        )?;
    }
    writeln!(out, "setpoint dev: ready")?;
    out.flush()?;
    let mut failed = false;
    loop {
        tokio::select! {
            () = crate::signals::interrupted() => break,
            ended = cluster.child_ended() => {
                writeln!(out, "setpoint dev: {ended}")?;
                if !cluster.is_viable() {
                    failed = true;
                    break;
                }
            }
        }
    }
    writeln!(out, "setpoint dev: stopping; again Ctrl-C to kill")?;
    tokio::select! {
        () = cluster.stop() => {}
        () = crate::signals::interrupted() => {}
    }
    if failed {
        bail!("a part of the cluster ended")
    } else {
        Ok(())
    }
}

fn directory(asked: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    match asked {
        Some(dir) => {
            std::fs::create_dir_all(dir)
                .with_context(|| format!("creating the data directory {}", dir.display()))?;
            Ok((
                std::path::absolute(dir).context("making the data directory's path absolute")?,
                None,
            ))
        }
        None => {
            let temporary = tempfile::Builder::new()
                .prefix("setpoint-dev-")
                .tempdir()
                .context("creating a temporary directory")?;
            Ok((temporary.path().into(), Some(temporary)))
        }
    }
}

/// Starts a store and connects to it. Somebody else may take a port that was free a moment ago: then others are tried.
pub(crate) async fn start_store(
    start: impl AsyncFn() -> Result<StoreProcess>,
) -> Result<(StoreProcess, SharedStore)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut started = start().await?;
        match connect(&started.endpoint, Some(&mut started.process)).await {
            Ok(store) => return Ok((started, store)),
            Err(error) => {
                let ended = !started.process.is_running();
                let last = started.process.log_tail(5).to_lowercase();
                let taken = ended && last.contains(PORT_TAKEN);
                if !taken || tries == PORT_TRIES {
                    return Err(error);
                }
            }
        }
    }
}

/// Connects, and waits for a store that was just started.
pub(crate) async fn connect(
    endpoint: &str,
    mut started: Option<&mut Managed>,
) -> Result<SharedStore> {
    let deadline = tokio::time::Instant::now() + START_LIMIT;
    loop {
        match crate::connect::open(endpoint).await {
            Ok(store) => return Ok(store),
            Err(error) => {
                let Some(process) = started.as_mut() else {
                    return Err(error);
                };
                if !process.is_running() {
                    bail!(
                        "{} ended at its start; the end of {}:\n{}",
                        process.name,
                        process.log.display(),
                        process.log_tail(5)
                    );
                }
                if tokio::time::Instant::now() > deadline {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn nodes_ready(store: SharedStore, keyspace: Keyspace, nodes: Vec<String>) {
    let (cache, driver) = CacheBuilder::new().build(store, keyspace);
    let mut subscription =
        cache.subscribe(|key| matches!(key, StateKey::Health(_) | StateKey::NodeStatus(_)));
    let all_ready = async {
        loop {
            subscription.next().await;
            let view = cache.view();
            let ready = |node: &String| {
                let key = setpoint_apis::ObjectKey::cluster(node.as_str());
                let (health, status) = (view.health().get(&key), view.node_status().get(&key));
                let session = view.session(node);
                // A node that has not said what it has gets no pods.
                health.is_some_and(|h| {
                    h.value.state == NodeState::Ready && Some(h.value.session) == session
                }) && status.is_some_and(|s| s.value.session == session)
            };
            if nodes.iter().all(ready) {
                return;
            }
        }
    };
    tokio::select! {
        () = all_ready => {}
        () = driver.run() => {}
    }
}
