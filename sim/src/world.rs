//! The processes of a simulation: controllers and agents, each with a link of its own to the store.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use setpoint_agent::hollow::{HollowPods, HollowRunner, Latencies, Observer, Play};
use setpoint_agent::node::config::AgentConfig;
use setpoint_agent::node::{self, Disk, HollowDisk, Machine, Surroundings};
use setpoint_agent::workload::PodWork;
use setpoint_apis::{Keyspace, ObjectKey, Quantity, ResourceList, Timestamp};
use setpoint_controllers::{Name, Options, Shardable};
use setpoint_runtime::Clock;
use setpoint_runtime::clock::drifted;
use setpoint_store::model::{Config, Model, ModelStore};
use setpoint_store::task::Process;
use setpoint_store::{SharedStore, Store, StoreError, Txn};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::check::Times;
use crate::fnv::Fnv;
use crate::ledger::Ledger;
use crate::link::Link;
use crate::network::Network;
use crate::pods;
use crate::scenario::{NodeGroup, ScenarioSpec};
use crate::strike::Strikes;

/// By how many millionths each clock, the store's and those of the machines, may run fast or slow. Clocks that are kept by
/// NTP differ by 500 at most (the kernel's limit for slewing).
const DRIFT_PPM: i32 = 1_000;
/// How long an ended process stays down before something starts it again, as systemd would.
const RESTART: Duration = Duration::from_millis(500);

/// What a process is, told from its name: `user`, `controllers-0#1`, `pool-3#2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role<'a> {
    /// Whoever applies manifests.
    User,
    /// A process of controllers.
    Controllers,
    /// The agent of a node.
    Agent(&'a str),
}

impl<'a> Role<'a> {
    pub(crate) fn of(process: &'a str) -> Self {
        match process.split_once('#') {
            None => Self::User,
            Some((name, _)) if name.starts_with("controllers-") => Self::Controllers,
            Some((node, _)) => Self::Agent(node),
        }
    }
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) keyspace: Keyspace,
    pub(crate) store: ModelStore,
    pub(crate) network: Network,
    pub(crate) ledger: Ledger,
    pub(crate) strikes: Strikes,
    seed: u64,
    begins: Timestamp,
    clock: Clock,
    clock_error: Duration,
    leader_lease: Duration,
    hosts: BTreeMap<Arc<str>, Host>,
}

/// What may run a process: a replica of the controllers, or a node.
struct Host {
    name: Arc<str>,
    kind: HostKind,
    /// Counts the processes that ran here.
    lives: u32,
    life: Option<Life>,
}

enum HostKind {
    Controllers { sharded: Vec<Shardable> },
    Node(Box<Node>),
}

struct Node {
    group: NodeGroup,
    disk: HollowDisk,
    pods: HollowPods,
}

struct Life {
    process: Process,
    shutdown: CancellationToken,
}

/// Tells the checks what runs on a node.
struct Running {
    ledger: Ledger,
    node: Arc<str>,
    seed: u64,
}

impl Observer for Running {
    fn play(&self, work: &PodWork) -> Play {
        pods::play(work, self.seed)
    }

    fn started(&self, pod: &ObjectKey) {
        let millis = self.ledger.millis();
        self.ledger
            .with_checks(|checks| checks.started(millis, pod, &self.node));
    }

    fn ended(&self, pod: &ObjectKey) {
        self.ledger
            .with_checks(|checks| checks.ended(pod, &self.node));
    }
}

impl World {
    /// A world in which nothing runs yet, whose ledger keeps at most the last `most_kept` writes. Call within the
    /// simulation's runtime.
    pub(crate) fn new(spec: &ScenarioSpec, seed: u64, most_kept: usize) -> Self {
        let keyspace = Keyspace::default();
        let config = Config {
            seed: Fnv::seed(seed, "store"),
            ..Config::default()
        };
        let drift = fastrand::Rng::with_seed(Fnv::seed(seed, "clock")).i32(-DRIFT_PPM..=DRIFT_PPM);
        let store = ModelStore::with_drift(Model::new(config), drift);
        let times = Times {
            begun: spec.begins(),
            error: spec.clock_error.get(),
            drift_ppm: DRIFT_PPM.unsigned_abs(),
        };
        let ledger = Ledger::new(store.clone(), keyspace.clone(), times, most_kept);
        let mut hosts = BTreeMap::new();
        let mut add = |name: Arc<str>, kind| {
            let host = Host {
                name: Arc::clone(&name),
                kind,
                lives: 0,
                life: None,
            };
            hosts.insert(name, host);
        };
        let shard = spec.controllers.shard.iter();
        let shard: Vec<Shardable> = shard.filter_map(|name| name.parse().ok()).collect();
        for i in 0..spec.controllers.replicas {
            let sharded = match i < spec.controllers.unsharded {
                true => Vec::new(),
                false => shard.clone(),
            };
            let kind = HostKind::Controllers { sharded };
            add(format!("controllers-{i}").into(), kind);
        }
        for group in &spec.nodes {
            for i in 0..group.count {
                let name: Arc<str> = format!("{}-{i}", group.name).into();
                let running = Running {
                    ledger: ledger.clone(),
                    node: Arc::clone(&name),
                    seed,
                };
                let node = Node {
                    group: group.clone(),
                    disk: HollowDisk::default(),
                    pods: HollowPods::new(running),
                };
                add(name, HostKind::Node(Box::new(node)));
            }
        }
        Self {
            strikes: Strikes::new(keyspace.clone(), &spec.at_writes),
            keyspace,
            store,
            network: Network::default(),
            ledger,
            seed,
            begins: spec.begins(),
            clock: Clock::starting_at(spec.begins()),
            clock_error: spec.clock_error.get(),
            leader_lease: spec.controllers.lease.get(),
            hosts,
        }
    }

    /// Starts every process.
    pub(crate) fn start_all(&mut self) {
        let names: Vec<_> = self.hosts.keys().cloned().collect();
        names.iter().for_each(|name| self.start(name));
    }

    /// Starts a process where none runs.
    pub(crate) fn start(&mut self, name: &str) {
        let Some(host) = self.hosts.get_mut(name) else {
            return;
        };
        if host.life.as_ref().is_some_and(|l| !l.process.is_killed()) {
            return;
        }
        host.lives += 1;
        let identity: Arc<str> = format!("{name}#{}", host.lives).into();
        let seed = Fnv::seed(self.seed, &identity);
        let process = Process::new();
        let link: SharedStore = Arc::new(Link::new(
            (Arc::clone(&identity), process.clone()),
            Arc::clone(&host.name),
            self.store.clone(),
            (self.network.clone(), self.strikes.clone()),
            self.ledger.clone(),
            drift_of(name, self.seed),
            seed,
        ));
        let shutdown = CancellationToken::new();
        let clock = clock_of(
            (self.begins, &self.clock),
            name,
            self.seed,
            self.clock_error,
        );
        match &host.kind {
            HostKind::Controllers { sharded } => {
                let options = Options {
                    controllers: Name::ALL.to_vec(),
                    sharded: sharded.clone(),
                    identity: identity.to_string(),
                    leader_lease_ttl: self.leader_lease,
                    seed,
                    clock,
                };
                let keyspace = self.keyspace.clone();
                let shutdown = shutdown.clone();
                run(&process, identity, async move {
                    setpoint_controllers::run(options, link, keyspace, |_| {}, shutdown).await
                });
            }
            HostKind::Node(node) => {
                let keyspace = self.keyspace.clone();
                let agent = agent(&host.name, node, clock, seed);
                let shutdown = shutdown.clone();
                run(&process, identity, agent(link, keyspace, shutdown));
            }
        }
        host.life = Some(Life { process, shutdown });
    }

    /// Kills a process, as of SIGKILL. What runs on a node goes on.
    pub(crate) fn crash(&mut self, name: &str) {
        if let Some(life) = self.hosts.get_mut(name).and_then(|host| host.life.take()) {
            life.process.kill();
        }
    }

    /// A machine loses power: the process and what runs there are gone.
    pub(crate) fn power_off(&mut self, name: &str) {
        self.crash(name);
        if let Some(HostKind::Node(node)) = self.hosts.get(name).map(|host| &host.kind) {
            node.pods.power_off();
        }
    }

    /// Asks a process to end. Returns how long to wait before it may be started again.
    pub(crate) fn stop(&mut self, name: &str) -> Duration {
        if let Some(life) = self.hosts.get_mut(name).and_then(|host| host.life.take()) {
            life.shutdown.cancel();
        }
        RESTART
    }

    /// Freezes a process, as of SIGSTOP, or lets it go on.
    pub(crate) fn freeze(&self, name: &str, frozen: bool) {
        let Some(life) = self.hosts.get(name).and_then(|host| host.life.as_ref()) else {
            return;
        };
        match frozen {
            true => life.process.freeze(),
            false => life.process.thaw(),
        }
    }

    /// Cuts a process off, or reconnects it.
    pub(crate) fn cut(&self, name: &str, cut: bool) {
        let Some(host) = self.hosts.get(name) else {
            return;
        };
        match cut {
            true => self.network.cut(&host.name),
            false => self.network.reconnect(&host.name),
        }
    }

    /// How many pods run, whatever the store says.
    pub(crate) fn running(&self) -> usize {
        let pods = |host: &Host| match &host.kind {
            HostKind::Node(node) => node.pods.len(),
            HostKind::Controllers { .. } => 0,
        };
        self.hosts.values().map(pods).sum()
    }

    /// A transaction of the user, whose network is good.
    ///
    /// # Errors
    /// As the store's.
    pub(crate) async fn user(&self, txn: Txn) -> Result<bool, StoreError> {
        let user = Arc::from("user");
        let sent = self.ledger.sending(&user);
        self.ledger.catch_up(None);
        let done = self.store.txn(txn).await;
        self.ledger.catch_up(Some(sent));
        done.map(|done| done.succeeded)
    }
}

/// By how many millionths the clock of a machine is fast.
fn drift_of(name: &str, seed: u64) -> i32 {
    let mut rng = fastrand::Rng::with_seed(Fnv::seed(seed, &format!("drift of {name}")));
    rng.i32(-DRIFT_PPM..=DRIFT_PPM)
}

/// The clock of a machine: wrong by no more than `most` when the simulation begins, and from then on by what it drifts.
fn clock_of(
    (begins, true_time): (Timestamp, &Clock),
    name: &str,
    seed: u64,
    most: Duration,
) -> Clock {
    let most = i64::try_from(most.as_millis()).unwrap_or(i64::MAX);
    let error =
        fastrand::Rng::with_seed(Fnv::seed(seed, &format!("clock of {name}"))).i64(-most..=most);
    let ppm = drift_of(name, seed);
    let begun = begins.as_unix_millis();
    let passed = true_time.now().as_unix_millis() - begun;
    let shown = begun.saturating_add(error) + drifted(passed, ppm);
    Clock::drifting(Timestamp::from_unix_millis(shown), ppm)
}

/// Runs a process's main task. One that ends by itself says so; nothing starts it again.
fn run<E: std::error::Error + Send + 'static>(
    process: &Process,
    identity: Arc<str>,
    work: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    tokio::spawn(process.own(async move {
        if let Err(error) = work.await {
            warn!(
                %identity,
                error = &error as &dyn std::error::Error,
                "a process ended by itself"
            );
        }
    }));
}

/// What the agent of a node runs.
fn agent(
    name: &Arc<str>,
    node: &Node,
    clock: Clock,
    seed: u64,
) -> impl FnOnce(
    SharedStore,
    Keyspace,
    CancellationToken,
) -> futures::future::BoxFuture<'static, Result<(), node::AgentError>> {
    let config = AgentConfig {
        labels: node.group.labels.clone(),
        capacity: capacity(&node.group.capacity),
        lease_ttl: node.group.lease.get(),
        ..AgentConfig::new(name.to_string(), "hollow")
    };
    let surroundings = Surroundings {
        machine: Machine::hollow(name.to_string()),
        disk: Disk::hollow(format!("disk-of-{name}"), node.disk.clone()),
        clock: clock.clone(),
    };
    let pods = node.pods.clone();
    let latencies = Latencies {
        start: Duration::ZERO..=node.group.start_latency.get(),
        stop: Duration::ZERO..=node.group.stop_latency.get(),
    };
    move |store, keyspace, shutdown| {
        Box::pin(node::run(
            config,
            surroundings,
            store,
            keyspace,
            None,
            move |config, context| {
                let address = config.address.to_string();
                let runner =
                    HollowRunner::new(pods, context.reports, clock, latencies, address, seed);
                Ok(Arc::new(runner) as Arc<dyn setpoint_agent::workload::PodRunner>)
            },
            shutdown,
        ))
    }
}

/// What a node has, with the defaults of scenarios.
fn capacity(stated: &ResourceList) -> ResourceList {
    let quantity = |text: &str| text.parse::<Quantity>().unwrap_or_default();
    let mut all = ResourceList::from([
        ("cpu".into(), quantity("4")),
        ("memory".into(), quantity("8Gi")),
        ("pods".into(), quantity("110")),
    ]);
    all.extend(stated.clone());
    all
}
