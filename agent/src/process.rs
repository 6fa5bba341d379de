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

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

use crate::cgroup::Cgroups;
use crate::driver::{Adopted, Container, Driver, DriverError, StartRequest};
use crate::spec::{
    ContainerSpec, EXIT_FILE, ExitRecord, LogSpec, PidRecord, SPEC_FILE, StepError, read_record,
};
use container::ProcessContainer;

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

/// Runs containers as processes.
#[derive(Debug)]
pub struct ProcessDriver {
    config: Arc<ProcessDriverConfig>,
}

impl ProcessDriver {
    /// A driver.
    pub fn new(config: ProcessDriverConfig) -> Self {
        Self {
            config: Arc::new(config),
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
        start(self.config.clone(), request).boxed()
    }

    fn adopt(&self, dir: PathBuf) -> BoxFuture<'_, Result<Adopted, DriverError>> {
        adopt::adopt(self.config.clone(), dir).boxed()
    }

    fn remove(&self, dir: PathBuf) -> BoxFuture<'_, Result<(), DriverError>> {
        blocking(move || remove(&dir)).boxed()
    }
}

async fn start(
    config: Arc<ProcessDriverConfig>,
    request: StartRequest,
) -> Result<Arc<dyn Container>, DriverError> {
    let dir = request.dir.clone();
    let spawned = {
        let config = config.clone();
        blocking(move || spawn(&config, request)).await?
    };
    let mut line = String::new();
    let announced = match pipe::Receiver::from_owned_fd(spawned.announce.into()) {
        Ok(pipe) => {
            BufReader::with_capacity(1024, pipe)
                .read_line(&mut line)
                .await
        }
        Err(e) => Err(e),
    };
    match announced
        .ok()
        .and_then(|_| serde_json::from_str::<PidRecord>(&line).ok())
    {
        Some(record) => {
            let container = ProcessContainer::watch(
                config,
                dir.clone(),
                spawned.cgroup,
                record,
                Some(spawned.child),
            );
            Ok(Arc::new(container.map_err(|source| {
                DriverError::Directory { dir, source }
            })?))
        }
        None => Err(why_not_started(dir, spawned.child).await),
    }
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
    announce: io::PipeReader,
    cgroup: Option<crate::cgroup::Cgroup>,
}

fn spawn(config: &ProcessDriverConfig, request: StartRequest) -> Result<Spawned, DriverError> {
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
    Ok(Spawned {
        child,
        announce,
        cgroup: spec.cgroup,
    })
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
