//! The `process` driver: containers are processes of the host, each supervised by a shim ([`crate::shim`]) in a
//! session of its own, so that they outlive the agent.
//!
//! Whether a shim is alive is answered by the kernel alone: it holds an exclusive lock on `spec.json`, inherited from
//! the agent that started it, so there is no moment at which a container could be started twice.

mod adopt;
mod container;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

use crate::cgroup::Cgroups;
use crate::driver::{Adopted, Container, Driver, DriverError, StartRequest};
use crate::spec::{
    ContainerSpec, EXIT_FILE, ExitRecord, LogSpec, PidRecord, SPEC_FILE, StepError, read_record,
};
use container::{Handles, ProcessContainer, conclude};

/// How the driver works on this machine.
#[derive(Clone, Debug)]
pub struct ProcessDriverConfig {
    /// The program that supervises a container and the arguments before the container's directory:
    /// `[/usr/bin/setpoint, shim]`.
    pub shim: Vec<PathBuf>,
    /// The control groups; `None` goes without.
    pub cgroups: Option<Cgroups>,
}

impl ProcessDriverConfig {
    /// The running program as its own shim (`setpoint shim`), with the control groups of this machine under `base`.
    ///
    /// # Errors
    /// The path of the running program cannot be told.
    pub fn detect(cgroup_base: impl Into<PathBuf>) -> io::Result<Self> {
        let shim = vec![std::env::current_exe()?, PathBuf::from("shim")];
        Ok(Self {
            shim,
            cgroups: Some(Cgroups::detect(cgroup_base)),
        })
    }
}

/// How long a shim may take from its start to the start of the container: milliseconds are usual, and disks that hang
/// for seconds happen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Runs containers as processes.
#[derive(Debug)]
pub struct ProcessDriver {
    config: Arc<ProcessDriverConfig>,
    start_limit: Duration,
}

impl ProcessDriver {
    /// A driver.
    pub fn new(config: ProcessDriverConfig) -> Self {
        Self {
            config: Arc::new(config),
            start_limit: START_LIMIT,
        }
    }

    /// The same with another limit for what takes 30 s at most: a shim that has not started its container by then is
    /// killed.
    pub fn with_start_limit(self, start_limit: Duration) -> Self {
        Self {
            start_limit,
            ..self
        }
    }
}

impl Driver for ProcessDriver {
    fn name(&self) -> &'static str {
        "process"
    }

    fn start(
        &self,
        request: StartRequest,
    ) -> BoxFuture<'_, Result<Arc<dyn Container>, DriverError>> {
        start(self.config.clone(), request, self.start_limit).boxed()
    }

    fn adopt(&self, dir: PathBuf) -> BoxFuture<'_, Result<Adopted, DriverError>> {
        adopt::adopt(self.config.clone(), dir, self.start_limit).boxed()
    }

    fn remove(&self, dir: PathBuf) -> BoxFuture<'_, Result<(), DriverError>> {
        blocking(move || remove(&dir)).boxed()
    }
}

async fn start(
    config: Arc<ProcessDriverConfig>,
    request: StartRequest,
    limit: Duration,
) -> Result<Arc<dyn Container>, DriverError> {
    let dir = request.dir.clone();
    let (spawned, announce) = {
        let config = config.clone();
        blocking(move || spawn(&config, request)).await?
    };
    let mut line = String::new();
    let announced = match pipe::Receiver::from_owned_fd(announce.into()) {
        Ok(pipe) => {
            let mut reader = BufReader::with_capacity(1024, pipe);
            match tokio::time::timeout(limit, reader.read_line(&mut line)).await {
                Ok(read) => read,
                Err(_) => {
                    give_up(dir, spawned, None).await;
                    return Err(DriverError::Hung(limit));
                }
            }
        }
        Err(e) => Err(e),
    };
    let record = match announced {
        Ok(_) => serde_json::from_str::<PidRecord>(&line).ok(),
        // Whatever it has started or is about to start, nobody would follow it.
        Err(source) => {
            give_up(dir.clone(), spawned, None).await;
            return Err(DriverError::Directory { dir, source });
        }
    };
    let Some(record) = record else {
        return Err(why_not_started(dir, spawned.child).await);
    };
    match Handles::open(&record, true) {
        Ok(handles) => Ok(Arc::new(ProcessContainer::watch(
            config,
            dir,
            spawned.cgroup,
            record,
            Some(spawned.child),
            handles,
        ))),
        Err(source) => {
            give_up(dir.clone(), spawned, Some(record)).await;
            Err(DriverError::Directory { dir, source })
        }
    }
}

/// Ends a container that was started and cannot be followed. Nothing of it is left when this returns.
async fn give_up(dir: PathBuf, spawned: Spawned, record: Option<PidRecord>) {
    let Spawned {
        mut child, cgroup, ..
    } = spawned;
    blocking(move || {
        // The shim is alive or has not been waited for, so these numbers are still its own and its child's.
        match record.as_ref().and_then(|r| Pid::from_raw(r.container.pid)) {
            // It does the rest when its main process has ended.
            Some(main) if kill_process(main, Signal::KILL).is_ok() => {}
            _ => {
                let _ = child.kill();
            }
        }
        conclude(
            &dir,
            cgroup.as_ref(),
            &record.unwrap_or_default(),
            Some(child),
        )
    })
    .await;
}

/// A shim that closed its pipe without a word has failed; it leaves a record before it ends.
async fn why_not_started(dir: PathBuf, mut child: Child) -> DriverError {
    blocking(move || {
        let _ = child.wait();
        match read_record::<ExitRecord>(&dir, EXIT_FILE) {
            Ok(Some(ExitRecord {
                error: Some(error), ..
            })) => DriverError::Start(error),
            Ok(_) => DriverError::Supervisor,
            Err(source) => DriverError::Directory { dir, source },
        }
    })
    .await
}

struct Spawned {
    child: Child,
    cgroup: Option<crate::cgroup::Cgroup>,
}

fn spawn(
    config: &ProcessDriverConfig,
    request: StartRequest,
) -> Result<(Spawned, io::PipeReader), DriverError> {
    let StartRequest {
        dir,
        mut spec,
        limits,
        cgroup_name,
    } = request;
    if let Some(cgroups) = &config.cgroups {
        let (cgroup, degraded) = cgroups.create(&cgroup_name, &limits);
        spec.cgroup = cgroup;
        spec.degraded.extend(degraded);
    }
    spec.open_files = spec.open_files.or(crate::openfiles::original());
    if spec.log.is_none() {
        spec.log = Some(LogSpec::at(dir.join("output.log")));
    }
    let lock = prepare_dir(&dir, &spec).map_err(|source| DriverError::Directory {
        dir: dir.clone(),
        source,
    })?;
    let program = &config.shim[0];
    let launch = || {
        let (announce, announce_out) = io::pipe()?;
        let mut command = Command::new(program);
        command
            .args(&config.shim[1..])
            .arg(&dir)
            .env_clear()
            .current_dir("/");
        // The lock goes to the shim as its stdin, and is released by the kernel when the shim ends.
        command
            .stdin(lock)
            .stdout(announce_out)
            .stderr(Stdio::null());
        Ok((command.spawn()?, announce))
    };
    let (child, announce) = launch().map_err(|source| DriverError::Spawn {
        program: program.clone(),
        source,
    })?;
    let cgroup = spec.cgroup;
    Ok((Spawned { child, cgroup }, announce))
}

fn prepare_dir(dir: &Path, spec: &ContainerSpec) -> io::Result<File> {
    fs::create_dir_all(dir)?;
    let path = dir.join(SPEC_FILE);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    io::Write::write_all(&mut file, &serde_json::to_vec(spec)?)?;
    Ok(file)
}

fn remove(dir: &Path) -> Result<(), DriverError> {
    // A torn spec has never been started, so it has no group with processes in it.
    if let Ok(Some(ContainerSpec {
        cgroup: Some(cgroup),
        ..
    })) = read_record::<ContainerSpec>(dir, SPEC_FILE)
    {
        cgroup.remove();
    }
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DriverError::Directory {
            dir: dir.into(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Runs something that touches disks on a thread where that is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

fn lost(message: &str, record: Option<&PidRecord>, finished_at: i64) -> ExitRecord {
    ExitRecord {
        signal: Some(9),
        started_at: record.map_or(0, |r| r.started_at),
        finished_at,
        error: Some(StepError::new("supervise", message)),
        ..ExitRecord::default()
    }
}
