//! The whole cluster: members, proxies, processes, the record; and what a scenario does with it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use etcd_client::GetOptions;
use parking_lot::Mutex;
use rustix::process::Signal;
use setpoint_agent::cgroup::Cgroups;
use setpoint_agent::node::config::AgentConfig;
use setpoint_apis::records::Binding;
use setpoint_apis::{KeyRange, Keyspace, document};
use setpoint_runtime::Shards;
use setpoint_store::list::{List, list_all};
use setpoint_store::{ConnectOptions, EtcdStore, SharedStore};
use tokio::runtime::Runtime;

use super::check::{self, Fenced, Finding};
use super::etcd::{EtcdCluster, MEMBERS};
use super::goal;
use super::history::History;
use super::probe::Probe;
use super::process::{Nursery, Process};
use super::proxy::{Mode, Proxy};
use super::recorder::{PREFIX, Recorder};
use super::report::Report;
use super::tap::{Transaction, Wire};
use super::user::{Load, User};
use crate::cluster::{kill_family, with_programs};
use crate::tools::{Outcome, eventually, pause, repository, run, setpoint_binary};

/// Long enough for debug builds on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(120);

/// How long the user's load waits for an answer before it asks another member.
const REQUEST: Duration = Duration::from_secs(2);

/// The two processes of controllers.
pub const CONTROLLERS: [&str; 2] = ["controllers-a", "controllers-b"];

/// The agents.
pub const AGENTS: [&str; 3] = ["n1", "n2", "n3"];

/// The caches that are looked at.
pub const PROBES: [&str; 2] = ["probe-a", "probe-b"];

/// A cluster for one scenario. Dropping it stops everything, also when the test has failed; then it says what happened.
pub struct Rig {
    name: &'static str,
    started: Instant,
    /// The members.
    pub etcd: EtcdCluster,
    store: SharedStore,
    clients: BTreeMap<&'static str, Client>,
    processes: BTreeMap<&'static str, Process>,
    probes: Vec<Probe>,
    user: User,
    marker: String,
    wire: Arc<Wire>,
    recorder: Recorder,
    notes: Mutex<Vec<(Duration, String)>>,
    nursery: Nursery,
    /// After what needs it to be dropped.
    runtime: Runtime,
    dir: tempfile::TempDir,
    /// The controllers share the work of gc.
    sharded: bool,
}

/// A process's way to etcd: a proxy per member.
struct Client {
    life: Arc<AtomicU32>,
    proxies: Vec<Proxy>,
    /// The member that it prefers, so that not all are on one.
    first: usize,
}

impl Client {
    fn endpoints(&self) -> Vec<String> {
        let order = (0..MEMBERS).map(|i| (self.first + i) % MEMBERS);
        let urls = order.map(|i| format!("http://{}", self.proxies[i].address()));
        urls.collect()
    }
}

impl Rig {
    /// Starts a cluster and waits until its nodes are Ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(name: &'static str) -> Self {
        Self::start_with(name, false)
    }

    /// As [`Rig::start`], with controllers that share the work of gc.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_sharded(name: &'static str) -> Self {
        Self::start_with(name, true)
    }

    fn start_with(name: &'static str, sharded: bool) -> Self {
        static RIGS: AtomicU8 = AtomicU8::new(0);
        let sub = RIGS.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // Apart from what other tests listen on, and, most likely, from other runs of this one.
        let net = 130 + u8::try_from(pid % 120).unwrap_or(0);
        let marker = format!("8{:07}{sub:02}", pid % 10_000_000);
        let dir = tempfile::Builder::new()
            .prefix("setpoint-faults-")
            .tempdir()
            .expect("a temporary directory");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let nursery = Nursery::new();
        let etcd = EtcdCluster::start(net, sub, dir.path(), nursery.clone());
        let wire = Arc::<Wire>::default();
        let ip = Ipv4Addr::new(127, net, sub, 1);
        let names = CONTROLLERS.iter().chain(&AGENTS).chain(&PROBES);
        let clients: BTreeMap<&'static str, Client> = names
            .chain(&["user"])
            .enumerate()
            .map(|(i, name)| (*name, client(&runtime, &etcd, &wire, ip, name, i)))
            .collect();
        let started = Instant::now();
        let _entered = runtime.enter();
        let connect = |endpoints: Vec<String>| -> SharedStore {
            let options = ConnectOptions {
                request_timeout: REQUEST,
                connect_timeout: Duration::from_secs(1),
                watch_progress_interval: Duration::from_secs(1),
                ..ConnectOptions::new(endpoints)
            };
            let store = runtime.block_on(EtcdStore::connect(&options));
            Arc::new(store.expect("options that work"))
        };
        let store = connect(etcd.endpoints());
        let user = User::new(connect(clients["user"].endpoints()), marker.clone());
        let recorder = Recorder::start(store.clone(), started);
        let mut rig = Self {
            name,
            started,
            etcd,
            store,
            clients,
            processes: BTreeMap::new(),
            probes: Vec::new(),
            user,
            marker,
            wire,
            recorder,
            notes: Mutex::default(),
            nursery,
            runtime,
            dir,
            sharded,
        };
        rig.boot();
        rig
    }

    fn boot(&mut self) {
        self.eventually("etcd has a leader", |rig| rig.block(rig.etcd.leader()));
        self.eventually("the keyspace is initialised", |rig| {
            let done = rig.setpoint(&["init"]);
            if done.code == 0 {
                Ok(())
            } else {
                Err(done.stderr)
            }
        });
        self.start_process(CONTROLLERS[0]);
        // The others find that everything is led, so that one process leads all.
        self.eventually("all is led", |rig| {
            let mut all = ["scheduler", "workloads", "node-lifecycle", "failover"].iter();
            all.try_for_each(|controller| rig.leader(controller).map(drop))?;
            match rig.sharded {
                false => rig.leader("gc").map(drop),
                true => rig.share(CONTROLLERS[0]).map(drop),
            }
        });
        for name in CONTROLLERS.into_iter().skip(1).chain(AGENTS) {
            self.start_process(name);
        }
        for name in PROBES {
            // As the process would: these are what the scenarios are about.
            let options = ConnectOptions::new(self.clients[name].endpoints());
            let store = self
                .block(EtcdStore::connect(&options))
                .expect("options that work");
            let _entered = self.runtime.enter();
            self.probes.push(Probe::start(name, Arc::new(store)));
        }
        for node in AGENTS {
            self.node_is(node, "Ready");
        }
        self.note("the cluster is up");
    }

    /// The user.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The caches that are looked at.
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// Waits for something asynchronous.
    pub fn block<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs a `setpoint` command as the user.
    pub fn setpoint(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(setpoint_binary());
        let endpoints = self.clients["user"].endpoints().join(",");
        command
            .env("SETPOINT_ENDPOINTS", endpoints)
            .current_dir(repository())
            .args(args);
        run(&mut command, "")
    }

    /// Writes down what happens, for the timeline.
    pub fn note(&self, what: impl Into<String>) {
        let at = self.started.elapsed();
        self.notes.lock().push((at, what.into()));
    }

    /// Waits until a condition holds; ends at once when a process has ended that should not have.
    #[track_caller]
    pub fn eventually<T>(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> T {
        eventually(what, LIMIT, || {
            let ended = self.processes.values_mut().find_map(Process::ended);
            if let Some(ended) = ended {
                panic!("while waiting until {what}: {ended}");
            }
            holds(self)
        })
    }

    // Processes.

    /// Starts a process, or the next one of its name, on the same directory.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_process(&mut self, name: &'static str) {
        let client = &self.clients[name];
        client.life.fetch_add(1, Ordering::Release);
        let endpoints = client.endpoints().join(",");
        let mut command = Command::new(setpoint_binary());
        if AGENTS.contains(&name) {
            command
                .args(["agent", "--node-name", name, "--listen", "127.0.0.1:0"])
                .args(["--lease-ttl", "3s", "--stop-pods-on-exit", "--data-dir"])
                .arg(self.data_dir(name));
        } else {
            command
                .args(["controllers", "--leader-lease-ttl", "3"])
                .args(["--metrics-listen", "127.0.0.1:0"]);
            if self.sharded {
                command.args(["--shard", "gc"]);
            }
        }
        command
            .args(["--endpoints", &endpoints])
            .env("SETPOINT_LOG", "info,setpoint_store=debug");
        with_programs(&mut command);
        let log = self.dir.path().join(format!("{name}.log"));
        let process = Process::start(&self.nursery, name, command, &log);
        self.note(format!("{name} starts as process {}", process.pid()));
        self.processes.insert(name, process);
    }

    /// Ends a process as a crash would.
    pub fn kill(&mut self, name: &str) {
        self.processes.remove(name);
        self.note(format!("{name} is killed"));
    }

    /// Freezes a process.
    pub fn freeze(&self, name: &str) {
        self.processes[name].freeze();
        self.note(format!("{name} is frozen"));
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self, name: &str) {
        self.processes[name].signal(Signal::CONT);
        self.note(format!("{name} goes on"));
    }

    /// What a process, and those that had its name before, have logged.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// The sum over all controllers of a counter of a process of controllers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn counter(&self, name: &str, counter: &str) -> Result<u64, String> {
        let log = self.log(name);
        // Of the last process of that name.
        let line = log.lines().rfind(|line| line.contains("serving metrics"));
        let address = line.and_then(|line| line.split("address=").nth(1));
        let address = address.ok_or("it does not serve metrics yet")?.trim();
        let text = http_get(address, "/metrics").map_err(|e| format!("{address}: {e}"))?;
        let values = text.lines().filter(|line| line.starts_with(counter));
        let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        Ok(values.sum())
    }

    fn data_dir(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    // Faults of the network.

    /// Sets what lies between a process and one member.
    pub fn set_member(&self, name: &str, member: usize, mode: Mode) {
        self.clients[name].proxies[member].set(mode);
        self.note(format!("{name} to m{member}: {mode:?}"));
    }

    /// Sets what lies between a process and all members.
    pub fn set(&self, name: &str, mode: Mode) {
        for proxy in &self.clients[name].proxies {
            proxy.set(mode);
        }
        self.note(format!("{name} to etcd: {mode:?}"));
    }

    /// Cuts a process off from all members, and returns when nothing more can reach it.
    #[track_caller]
    pub fn cut_off(&mut self, name: &str) {
        self.set(name, Mode::Cut);
        self.eventually(&format!("{name} has no connection"), |rig| {
            let open = rig.clients[name].proxies.iter().filter(|p| !p.is_idle());
            match open.count() {
                0 => Ok(()),
                some => Err(format!("those through {some} proxies are there")),
            }
        });
    }

    /// Breaks the connections of a process.
    pub fn reset(&self, name: &str) {
        for proxy in &self.clients[name].proxies {
            proxy.reset();
        }
        self.note(format!("the connections of {name} break"));
    }

    /// Everybody reaches everybody again.
    pub fn heal(&self) {
        for client in self.clients.values() {
            for proxy in &client.proxies {
                proxy.set(Mode::Pass);
            }
        }
        self.note("the network is healed");
    }

    /// The member that a process prefers.
    pub fn first_member(&self, name: &str) -> usize {
        self.clients[name].first
    }

    // What the store says.

    /// The value of a key, as etcd has it now.
    pub fn value(&self, key: &str) -> Result<String, String> {
        match self.block(self.store.get(key)) {
            Ok((Some(kv), _)) => Ok(String::from_utf8_lossy(&kv.value).into_owned()),
            Ok((None, _)) => Err(format!("{key} does not exist")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Which process leads a controller.
    pub fn leader(&self, controller: &str) -> Result<&'static str, String> {
        let said = self.value(&format!("/setpoint/leaders/{controller}"))?;
        self.meant(&said).ok_or(said)
    }

    /// The process that an election key names.
    fn meant(&self, said: &str) -> Option<&'static str> {
        let leads = |name: &&&str| {
            let process = self.processes.get(**name);
            process.is_some_and(|p| said.contains(&format!("-{}-", p.pid())))
        };
        CONTROLLERS.iter().find(leads).copied()
    }

    /// How many shards of gc a process leads, while all of them are led by processes that run.
    pub fn share(&self, name: &str) -> Result<usize, String> {
        let range = KeyRange::prefix("/setpoint/leaders/gc/");
        let listed = list_all(&*self.store, List::new(range.start, range.end));
        let (seats, _) = self.block(listed).map_err(|e| e.to_string())?;
        let said = seats.iter().map(|kv| String::from_utf8_lossy(&kv.value));
        let leaders: Vec<&str> = said.filter_map(|said| self.meant(&said)).collect();
        match leaders.len() == usize::from(Shards::DEFAULT.count()) {
            true => Ok(leaders.iter().filter(|leader| **leader == name).count()),
            false => Err(format!("{} shards are led", leaders.len())),
        }
    }

    /// Waits until every shard of gc is led and these processes, and no others, share them.
    #[track_caller]
    pub fn shared_by(&mut self, names: &[&str]) {
        let what = format!("{} lead the shards of gc", names.join(" and "));
        let shares = self.eventually(&what, |rig| {
            let shares: Vec<usize> = CONTROLLERS
                .iter()
                .map(|name| rig.share(name))
                .collect::<Result<_, _>>()?;
            let mut each = CONTROLLERS.iter().zip(&shares);
            match each.all(|(name, share)| names.contains(name) == (*share > 0)) {
                true => Ok(shares),
                false => Err(format!("{shares:?}")),
            }
        });
        self.note(format!("{CONTROLLERS:?} lead {shares:?} shards of gc"));
    }

    /// Waits until the scheduler is led by a process other than `but`; returns which. Usually it leads the others too.
    #[track_caller]
    pub fn leading(&mut self, but: Option<&str>) -> &'static str {
        let what = format!("somebody leads (but not {but:?})");
        let leader = self.eventually(&what, |rig| match rig.leader("scheduler") {
            Ok(leader) if Some(leader) == but => Err(format!("{leader} leads")),
            said => said,
        });
        self.note(format!("{leader} leads"));
        leader
    }

    /// How many pods are bound to a node.
    pub fn bound_to(&self, node: &str) -> Result<usize, String> {
        let range = Keyspace::default().binding_range(None);
        let listed = list_all(&*self.store, List::new(range.start, range.end));
        let (bindings, _) = self.block(listed).map_err(|e| e.to_string())?;
        let mut count = 0;
        for kv in &bindings {
            // A binding names other nodes as well: those that were considered.
            let binding: Binding = document::decode_value(&kv.value).map_err(|e| e.to_string())?;
            count += usize::from(binding.node == node);
        }
        Ok(count)
    }

    /// Kills the process of a pod on a node, so that its agent has something to say.
    ///
    /// # Panics
    /// When none runs there.
    pub fn kill_a_pod_of(&self, node: &str) {
        let dir = self.data_dir(node).to_string_lossy().into_owned();
        let mut pods = goal::pids(&self.marker).into_iter();
        let pod = pods.find(|pid| goal::supervisor(*pid).contains(&dir));
        let pod = pod.unwrap_or_else(|| panic!("no pod runs on {node}"));
        crate::cluster::signal(pod, Signal::KILL);
        self.note(format!("a pod of {node} is killed: process {pod}"));
    }

    /// Waits until node-lifecycle concludes this of a node.
    #[track_caller]
    pub fn node_is(&mut self, node: &str, state: &str) {
        let key = format!("/setpoint/actual/health/{node}");
        self.eventually(&format!("{node} is {state}"), |rig| {
            let health = rig.value(&key)?;
            let is = health.contains(&format!("state: {state}\n"));
            if is { Ok(()) } else { Err(health) }
        });
        self.note(format!("{node} is {state}"));
    }

    /// How many processes of pods run.
    pub fn pod_processes(&self) -> usize {
        goal::pids(&self.marker).len()
    }

    /// Waits until every wanted pod runs exactly once and nothing else does.
    #[track_caller]
    pub fn converge(&mut self) {
        self.eventually("actual matches desired", |rig| {
            match rig.block(goal::unmet(&rig.store, &rig.marker)) {
                Ok(unmet) if unmet.is_empty() => Ok(()),
                Ok(unmet) => Err(unmet.join("\n")),
                Err(error) => Err(error.to_string()),
            }
        });
        self.note("actual matches desired");
    }

    /// Waits until all caches have seen a write that is made now, and holds each against a listing at its own revision.
    ///
    /// # Panics
    /// When one does not come so far, or differs.
    #[track_caller]
    pub fn caches_are_complete(&mut self, after: &str) {
        let revision = self.block(self.user.note("seen", after));
        for i in 0..self.probes.len() {
            let name = self.probes[i].name();
            self.eventually(&format!("{name} has seen r{revision}"), |rig| {
                let seen = rig.probes[i].revision().0;
                if seen >= revision {
                    Ok(())
                } else {
                    Err(format!("it is at r{seen}"))
                }
            });
            let sample = self.probes[i].sample();
            let listed = self.eventually("a listing at the cache's revision", |rig| {
                let listed = super::report::listing(&rig.store, sample.revision);
                rig.block(listed).map_err(|e| e.to_string())
            });
            assert_eq!(
                sample.keys, listed,
                "{name} at r{} (right: the listing), after {after}",
                sample.revision
            );
        }
        self.note(format!("all caches are complete after {after}"));
    }

    /// Starts load on a Deployment, between these numbers of replicas.
    pub fn load(&self, name: &'static str, least: usize, most: usize) -> Load {
        let _entered = self.runtime.enter();
        self.note(format!("load begins: {name} between {least} and {most}"));
        self.user.load(name, least, most)
    }

    /// Waits until so many more revisions are on record: until things are in full swing.
    #[track_caller]
    pub fn moves_on(&mut self, revisions: i64) {
        let end = self.recorder.revision() + revisions;
        self.eventually("there is more on record", |rig| {
            let at = rig.recorder.revision();
            if at >= end {
                Ok(())
            } else {
                Err(format!("r{at} of r{end}"))
            }
        });
    }

    /// Ends load; then so many replicas are wanted.
    pub fn end_load(&self, load: Load, name: &str, replicas: usize) {
        let writes = self.block(load.end());
        self.block(self.user.deploy(name, replicas));
        self.note(format!(
            "load ends after {writes} writes: {replicas} of {name}"
        ));
    }

    // Upkeep of etcd.

    /// Discards history up to `behind` revisions before the newest on record.
    pub fn compact(&self, behind: i64) -> Result<i64, String> {
        // What the recorder has not seen is never discarded.
        self.block(self.recorder.catch_up());
        let revision = self.recorder.revision() - behind;
        if revision < 1 {
            return Err("nothing to compact yet".to_owned());
        }
        self.block(async {
            let member = self.etcd.running()[0];
            let mut client = self.etcd.client(member).await?;
            client.compact(revision, None).await
        })
        .map_err(|e| e.to_string())?;
        self.note(format!("compacted at r{revision}"));
        Ok(revision)
    }

    /// Whether no member that runs can tell any more what was before a revision: each applies a compaction in its time.
    pub fn is_discarded(&self, revision: i64) -> Result<(), String> {
        let before = GetOptions::new()
            .with_revision(revision - 1)
            .with_serializable();
        for member in self.etcd.running() {
            let asked = async {
                let mut client = self.etcd.client(member).await?;
                client.get(PREFIX.0, Some(before.clone())).await
            };
            match self.block(asked) {
                Ok(_) => return Err(format!("m{member} has it yet")),
                Err(error) if error.to_string().contains("compacted") => {}
                Err(error) => return Err(format!("m{member}: {error}")),
            }
        }
        Ok(())
    }

    /// Defragments a member, which answers nobody meanwhile.
    pub fn defragment(&self, member: usize) -> Result<(), String> {
        self.block(async { self.etcd.client(member).await?.defragment().await })
            .map_err(|e| e.to_string())?;
        self.note(format!("m{member} is defragmented"));
        Ok(())
    }

    // The record.

    /// Holds back the requests of a process from now on. Returns how many transactions have come to the proxies before:
    /// all of its that are behind that are held.
    pub fn hold_requests(&self, name: &str) -> usize {
        self.set(name, Mode::HoldRequests);
        self.wire.count()
    }

    /// Lets the requests of a process pass that were held back, and waits until a fence has rejected one of them that
    /// matches.
    #[track_caller]
    pub fn arrives_late(&mut self, name: &str, matches: impl Fn(&Fenced) -> bool) {
        let since = self.block(self.user.note("requests", "arrive late"));
        self.set(name, Mode::Pass);
        let late = self.eventually("a late write is rejected", |rig| {
            let mut fenced = rig.fenced().into_iter();
            let late =
                fenced.find(|f| *f.sender.name == *name && f.revision >= since && matches(f));
            late.ok_or_else(|| "nothing was fenced off".to_owned())
        });
        self.note(format!("{late:?}"));
    }

    /// A transaction that has come to a proxy behind so many.
    pub fn sent(
        &self,
        since: usize,
        matches: impl Fn(&Transaction) -> bool,
    ) -> Option<Transaction> {
        self.wire.find(since, matches)
    }

    /// Writes that fences have rejected so far.
    pub fn fenced(&self) -> Vec<Fenced> {
        check::fenced(&self.history())
    }

    /// The record so far, up to now.
    pub fn history(&self) -> History {
        self.block(self.recorder.catch_up());
        let samples = self.probes.iter().flat_map(Probe::samples);
        History {
            samples: samples.collect(),
            transactions: self.wire.transactions(),
            changes: self.recorder.changes(),
            listed: Vec::new(),
            wanted: self.user.wanted(),
        }
    }

    /// Heals everything, waits until actual matches desired, and holds the run against all checks.
    ///
    /// # Panics
    /// When a promise was broken, with the first findings.
    pub fn finish(mut self) {
        self.heal();
        self.converge();
        self.caches_are_complete("everything");
        let found = self.findings();
        let first: Vec<String> = found.iter().take(10).map(ToString::to_string).collect();
        assert!(
            found.is_empty(),
            "{} findings:\n{}",
            found.len(),
            first.join("\n")
        );
        if std::env::var_os("SETPOINT_FAULTS_SHOW").is_some() {
            self.report().print();
        }
    }

    /// What the checks find in the run so far.
    pub fn findings(&mut self) -> Vec<Finding> {
        let history = self.eventually("a listing to hold the record against", |rig| {
            let listing = List::new(PREFIX.0, PREFIX.1);
            let listed = rig.block(list_all(&*rig.store, listing));
            let (listed, at) = listed.map_err(|e| e.to_string())?;
            let mut history = rig.history();
            // Both of one moment, whatever has been written since.
            history.changes.retain(|c| c.revision <= at.0);
            history.samples.retain(|s| s.revision <= at.0);
            history.listed = listed;
            Ok(history)
        });
        let found = check::all(&history);
        for finding in &found {
            self.note(format!("found: {finding}"));
        }
        let fenced = check::fenced(&history).len();
        self.note(format!(
            "{} changes, {} transactions, {} samples of caches, {fenced} writes fenced off",
            history.changes.len(),
            history.transactions.len(),
            history.samples.len()
        ));
        found
    }

    /// A connection over the proxies of a process, which cannot be told from the process itself.
    pub fn impostor(&self, name: &str) -> SharedStore {
        let options = ConnectOptions::new(self.clients[name].endpoints());
        let store = self.block(EtcdStore::connect(&options));
        Arc::new(store.expect("options that work"))
    }

    fn report(&self) -> Report {
        let mut logs: Vec<(String, PathBuf)> = self
            .etcd
            .logs()
            .map(|(name, path)| (name.to_owned(), path))
            .collect();
        for name in CONTROLLERS.into_iter().chain(AGENTS) {
            logs.push((name.to_owned(), self.dir.path().join(format!("{name}.log"))));
        }
        Report {
            name: self.name,
            notes: self.notes.lock().clone(),
            changes: self.recorder.changes(),
            transactions: self.wire.transactions(),
            logs,
        }
    }
}

/// A page of a server that ends the connection after it.
fn http_get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn client(
    runtime: &Runtime,
    etcd: &EtcdCluster,
    wire: &Arc<Wire>,
    ip: Ipv4Addr,
    name: &str,
    number: usize,
) -> Client {
    let life = Arc::<AtomicU32>::default();
    let proxies = (0..MEMBERS).map(|i| {
        let (wire, life) = (Arc::clone(wire), Arc::clone(&life));
        let started = Proxy::start(ip, etcd.address(i), wire, name.into(), life);
        runtime.block_on(started).expect("a free port")
    });
    Client {
        proxies: proxies.collect(),
        life,
        first: number % MEMBERS,
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let report = self.report();
            report.print();
            report.keep();
        }
        // What does not run cannot be told to end.
        for process in self.processes.values() {
            process.signal(Signal::CONT);
        }
        self.probes.clear();
        self.processes.clear();
        // Supervisors may have been starting something. A group of processes goes when its last process has.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for node in AGENTS {
                kill_family(&self.data_dir(node));
            }
            if goal::pids(&self.marker).is_empty() || Instant::now() > deadline {
                break;
            }
            pause();
        }
        for node in AGENTS {
            let config = AgentConfig::new(node, self.data_dir(node));
            Cgroups::detect(config.cgroup_root).remove_base();
        }
    }
}
