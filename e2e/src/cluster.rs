//! A development cluster of its own for each test.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;

use crate::tools::{Outcome, eventually, pause, repository, run, setpoint_binary};

/// Long enough for a debug build on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(90);

/// The lease of a node that is to stay, in seconds: longer than an agent is held up on such a machine.
const LASTING: u64 = 20;

/// The lease of a node whose loss is waited for, in seconds.
const MORTAL: u64 = 3;

/// A running `setpoint dev`. Dropping it stops everything, also when the test has failed.
pub struct Cluster {
    dev: Child,
    dir: tempfile::TempDir,
    description: Description,
}

#[derive(Debug, Deserialize)]
struct Description {
    endpoint: String,
    etcd_pid: Option<i32>,
    devstore_pid: Option<i32>,
    controllers_pid: i32,
    agents: Vec<Agent>,
}

/// An agent of the cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Agent {
    /// The node's name.
    pub name: String,
    /// The agent's process id.
    pub pid: i32,
    /// Where it keeps its things.
    pub data_dir: PathBuf,
}

impl Cluster {
    /// Starts a cluster of `nodes` nodes and waits until they are Ready. `second` sets it apart from other clusters on
    /// this machine: its pods' addresses are in `127.<second>.0.0/16`. A node that dies is missed only after a while.
    ///
    /// # Panics
    /// When it does not come up, with what it said.
    pub fn start(nodes: u16, second: u8) -> Self {
        Self::start_with(nodes, second, LASTING, |_, _| {})
    }

    /// As [`Cluster::start`], with nodes that are missed soon when they die.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub fn start_mortal(nodes: u16, second: u8) -> Self {
        Self::start_with(nodes, second, MORTAL, |_, _| {})
    }

    /// As [`Cluster::start_mortal`], on a machine that has no etcd.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub fn start_without_etcd(nodes: u16, second: u8) -> Self {
        Self::start_with(nodes, second, MORTAL, |command, dir| {
            // Nothing but what the pods of the test need.
            let programs = dir.join("programs");
            fs::create_dir(&programs).expect("a directory");
            for name in ["sh", "sleep"] {
                let path = std::env::var_os("PATH").expect("a PATH");
                let program = std::env::split_paths(&path)
                    .map(|directory| directory.join(name))
                    .find(|program| program.is_file())
                    .expect("a program that every machine has");
                std::os::unix::fs::symlink(program, programs.join(name)).expect("a link");
            }
            command
                .env_remove("SETPOINT_ETCD")
                .env("XDG_CACHE_HOME", dir.join("cache"))
                .env("PATH", programs);
        })
    }

    /// As [`Cluster::start`], with an etcd that finds its port taken when it is started first.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub fn start_where_a_port_is_taken(nodes: u16, second: u8) -> Self {
        Self::start_with(nodes, second, LASTING, |command, dir| {
            let (script, tried) = (dir.join("etcd-script"), dir.join("tried"));
            let text = format!(
                "#!/bin/sh\nif ! [ -e {tried} ]; then\n  : > {tried}\n  \
                 echo 'listen tcp 127.0.0.1:1: bind: address already in use' >&2\n  exit 1\nfi\n\
                 exec \"${{SETPOINT_ETCD:-etcd}}\" \"$@\"\n",
                tried = tried.display(),
            );
            // By another process: what a child of another test that is just being started has open for writing cannot be
            // run.
            let write = format!("cat > {0} && chmod +x {0}", script.display());
            run(Command::new("sh").args(["-c", &write]), &text).ok();
            command.arg("--etcd-bin").arg(script);
        })
    }

    fn start_with(
        nodes: u16,
        second: u8,
        lease: u64,
        change: impl FnOnce(&mut Command, &Path),
    ) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("setpoint-e2e-")
            .tempdir()
            .expect("a temporary directory");
        let log = fs::File::create(dir.path().join("dev.log")).expect("a log file");
        let mut command = Command::new(setpoint_binary());
        command
            .args(["dev", "--etcd-port", "0"])
            .args(["--lease-ttl", &lease.to_string()])
            .args(["--nodes", &nodes.to_string()])
            .args(["--pod-cidr-base", &format!("127.{second}.0.0/16")])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file can be shared"))
            .stderr(log);
        with_programs(&mut command);
        change(&mut command, dir.path());
        let mut dev = command.spawn().expect("setpoint dev starts");
        let text = || fs::read_to_string(dir.path().join("dev.log")).unwrap_or_default();
        eventually("setpoint dev is ready", LIMIT, || {
            if let Ok(Some(status)) = dev.try_wait() {
                panic!("setpoint dev ended: {status}\n{}", text());
            }
            if text().contains("setpoint dev: ready") {
                Ok(())
            } else {
                Err(text())
            }
        });
        let description = fs::read(dir.path().join("data/dev.json")).expect("dev.json is there");
        let description =
            serde_json::from_slice(&description).expect("dev.json is what it should be");
        Self {
            dev,
            dir,
            description,
        }
    }

    /// etcd's endpoint.
    pub fn endpoint(&self) -> &str {
        &self.description.endpoint
    }

    /// The agents, in the order of their names.
    pub fn agents(&self) -> &[Agent] {
        &self.description.agents
    }

    /// The process id of the controllers.
    pub fn controllers_pid(&self) -> i32 {
        self.description.controllers_pid
    }

    /// The process id of etcd.
    pub fn etcd_pid(&self) -> i32 {
        self.description
            .etcd_pid
            .expect("the cluster has started its etcd")
    }

    /// Whether the cluster's state is in the development store.
    pub fn has_devstore(&self) -> bool {
        self.description.devstore_pid.is_some()
    }

    /// The process id of `setpoint dev`.
    pub fn dev_pid(&self) -> i32 {
        i32::try_from(self.dev.id()).expect("process ids are small")
    }

    /// A directory for the test's own files, removed with the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `setpoint` against this cluster.
    pub fn setpoint(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        self.setpoint_with(args, "")
    }

    /// Runs `setpoint` against this cluster, with something on its standard input.
    pub fn setpoint_with(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Outcome {
        run(self.command().args(args), input)
    }

    /// A `setpoint` command against this cluster, to be started by the test.
    pub fn command(&self) -> Command {
        let mut command = Command::new(setpoint_binary());
        command
            .env("SETPOINT_ENDPOINTS", self.endpoint())
            .current_dir(repository());
        with_programs(&mut command);
        command
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> String {
        self.setpoint_with(["apply", "-f", "-"], manifest).ok()
    }

    /// Runs `etcdctl` against this cluster's etcd.
    pub fn etcdctl(&self, args: &[&str]) -> String {
        self.etcdctl_with(args, "")
    }

    /// Runs `etcdctl` against this cluster's etcd, with something on its standard input.
    pub fn etcdctl_with(&self, args: &[&str], input: &str) -> String {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", self.endpoint()])
            // Longer than a busy machine lets an etcd stand.
            .args(["--dial-timeout=30s", "--command-timeout=60s"])
            .args(args);
        run(&mut command, input).ok()
    }

    /// etcd's revision, which counts every write.
    pub fn revision(&self) -> i64 {
        let status: Value =
            serde_json::from_str(&self.etcdctl(&["endpoint", "status", "-w", "json"]))
                .expect("JSON");
        status[0]["Status"]["header"]["revision"]
            .as_i64()
            .expect("a revision")
    }

    /// An object, or a list of them, as `get -o json` shows it; null when there is none.
    pub fn get(&self, args: &[&str]) -> Value {
        let outcome = self.setpoint(["get", "-o", "json"].iter().chain(args));
        serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null)
    }

    /// The pods that a selector names.
    pub fn pods(&self, selector: &str) -> Vec<Value> {
        self.get(&["pods", "-l", selector])["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// Waits until the pods of a selector are `count` and all of them are Running and Ready; returns them.
    #[track_caller]
    pub fn ready_pods(&self, selector: &str, count: usize) -> Vec<Value> {
        eventually(
            &format!("{count} pods with {selector} are ready"),
            LIMIT,
            || {
                let pods = self.pods(selector);
                let ready = pods.iter().filter(|p| is_ready(p)).count();
                if ready == count && pods.len() == count {
                    Ok(pods)
                } else {
                    Err(self.pods_table())
                }
            },
        )
    }

    /// Waits until a pod is in a phase.
    #[track_caller]
    pub fn pod_in_phase(&self, name: &str, phase: &str) -> Value {
        eventually(&format!("pod {name} is {phase}"), LIMIT, || {
            let pod = self.get(&["pod", name]);
            if pod["status"]["phase"] == phase {
                Ok(pod)
            } else {
                Err(self.setpoint(["describe", "pod", name]).stdout)
            }
        })
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, holds: impl FnMut() -> Result<T, String>) -> T {
        eventually(what, LIMIT, holds)
    }

    /// All pods as a person sees them.
    pub fn pods_table(&self) -> String {
        let outcome = self.setpoint(["get", "pods", "-A", "-o", "wide"]);
        outcome.stdout + &outcome.stderr
    }

    /// Kills an agent alone, and waits until nothing of it is left: the next one of its directory may be started. What it
    /// has started lives on.
    pub fn kill_agent(&self, agent: &Agent) {
        signal(agent.pid, Signal::KILL);
        // `setpoint dev` is its parent and waits for it.
        self.eventually("the agent is gone", || {
            match Path::new(&format!("/proc/{}", agent.pid)).exists() {
                false => Ok(()),
                true => Err(format!("process {} is there", agent.pid)),
            }
        });
    }

    /// Kills an agent with all that it has started, as a power failure would.
    pub fn kill_node(&self, name: &str) {
        self.kill_nodes(&[name]);
    }

    /// Kills several nodes at the same moment, as [`Cluster::kill_node`] does one.
    pub fn kill_nodes(&self, names: &[&str]) {
        let agents = self.agents().iter();
        let doomed: Vec<&Agent> = agents
            .filter(|a| names.contains(&a.name.as_str()))
            .collect();
        assert_eq!(doomed.len(), names.len(), "nodes of this cluster");
        // Looking for what one has started takes a while.
        for agent in &doomed {
            signal(agent.pid, Signal::KILL);
        }
        for agent in doomed {
            kill_family(&agent.data_dir);
        }
    }

    /// What a component of the cluster has logged.
    pub fn log(&self, component: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("data/logs/{component}.log")))
            .unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for component in ["controllers", "n1", "n2", "n3"] {
                let log = self.log(component);
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(15)..].join("\n");
                #[expect(
                    clippy::print_stderr,
                    reason = "a failed test shows what the cluster said"
                )]
                {
                    eprintln!("--- the end of the log of {component}:\n{tail}");
                }
            }
        }
        signal(self.dev_pid(), Signal::TERM);
        // Not `eventually`: a panic while panicking would abort the whole test program.
        let deadline = std::time::Instant::now() + LIMIT;
        while matches!(self.dev.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            pause();
        }
        let _ = self.dev.kill();
        let _ = self.dev.wait();
        for pid in self
            .description
            .agents
            .iter()
            .map(|a| a.pid)
            .chain([self.controllers_pid()])
            .chain(self.description.etcd_pid)
            .chain(self.description.devstore_pid)
        {
            if command_line(pid)
                .iter()
                .any(|a| a.contains(&*self.dir.path().to_string_lossy()))
            {
                signal(pid, Signal::KILL);
            }
        }
        for agent in &self.description.agents {
            kill_family(&agent.data_dir);
        }
    }
}

/// Whether a pod, as `get -o json` shows it, is Running and Ready.
fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|c| {
        c.iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
    });
    pod["status"]["phase"] == "Running" && ready
}

/// Sends a signal to a process that this cluster has started.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills the supervisors of an agent's containers, and what descends from them.
pub(crate) fn kill_family(data_dir: &Path) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    let pids: Vec<i32> = entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let parent = |pid: i32| -> Option<i32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?
            .1
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()
    };
    let family: Vec<(i32, i32)> = pids
        .iter()
        .filter_map(|pid| Some((*pid, parent(*pid)?)))
        .collect();
    let mut doomed: Vec<i32> = pids
        .iter()
        .copied()
        .filter(|pid| {
            let arguments = command_line(*pid);
            arguments.iter().any(|a| a == "shim")
                && arguments.iter().any(|a| Path::new(a).starts_with(data_dir))
        })
        .collect();
    let mut next = 0;
    while next < doomed.len() {
        let of = doomed[next];
        doomed.extend(family.iter().filter(|(_, p)| *p == of).map(|(pid, _)| *pid));
        next += 1;
    }
    for pid in doomed {
        signal(pid, Signal::KILL);
    }
}

pub(crate) fn command_line(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|b| *b == 0)
        .filter(|a| !a.is_empty())
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect()
}

/// Puts the programs that were built beside `setpoint` (hello-http) on the PATH of what it starts.
pub(crate) fn with_programs(command: &mut Command) {
    let binary = setpoint_binary();
    let beside = binary.parent().unwrap_or(Path::new("/"));
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", beside.display()));
}
