//! What can run containers: the seam between the pod layer and the machine.
//!
//! A driver starts a container from a directory of its own, finds it again after a restart of the agent, and cleans up
//! after it. It decides nothing: when to start, stop or restart is the business of the pod layer.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tracing::warn;

use crate::cgroup::{Limits, Usage};
use crate::spec::{ContainerSpec, ExitRecord, PidRecord, StepError};

/// How soon, and how late, it is asked again what became of a container.
const ADOPT_RETRY: Duration = Duration::from_millis(100);
const ADOPT_RETRY_MAX: Duration = Duration::from_secs(10);

/// Runs containers.
pub trait Driver: Send + Sync + 'static {
    /// The name that node status and container ids carry: `process`.
    fn name(&self) -> &'static str;

    /// Starts a container and returns when its program runs.
    ///
    /// # Cancel safety
    /// A start that is given up may have happened: [`Driver::adopt`] tells.
    fn start(
        &self,
        request: StartRequest,
    ) -> BoxFuture<'_, Result<Arc<dyn Container>, DriverError>>;

    /// Finds out what became of a container that an earlier agent started, or was about to start.
    fn adopt(&self, dir: PathBuf) -> BoxFuture<'_, Result<Adopted, DriverError>>;

    /// Removes what a container that has ended left behind, its directory included. Logs are elsewhere and stay.
    fn remove(&self, dir: PathBuf) -> BoxFuture<'_, Result<(), DriverError>>;
}

/// Finds out what became of a container, however long that takes: as long as it is not known, nothing may be started in
/// its place, and nothing of it may be removed.
pub(crate) async fn adopt_surely(driver: &dyn Driver, dir: &Path) -> Adopted {
    let mut pause = ADOPT_RETRY;
    loop {
        match driver.adopt(dir.to_owned()).await {
            Ok(adopted) => return adopted,
            Err(error) => {
                warn!(
                    dir = %dir.display(),
                    error = &error as &dyn std::error::Error,
                    "what became of a container cannot be told; trying again"
                );
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ADOPT_RETRY_MAX);
    }
}

/// A container that was started, whether it still runs or not.
pub trait Container: Send + Sync + 'static {
    /// What was recorded when it started.
    fn record(&self) -> &PidRecord;

    /// Resolves when nothing of the container is left.
    fn ended(&self) -> BoxFuture<'static, ExitRecord>;

    /// Sends a signal to the main process. Does nothing when that has ended.
    fn signal(&self, signal: i32);

    /// Kills the whole container at once, main process and all that it started.
    fn kill(&self);

    /// What it uses.
    fn usage(&self) -> Usage;

    /// Runs a command in the container's surroundings: environment, user, working directory, mounts, limits.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutput, DriverError>>;
}

impl fmt::Debug for dyn Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Container({})", self.record().container.pid)
    }
}

/// What to start, and where.
#[derive(Clone, Debug, Default)]
pub struct StartRequest {
    /// The container's own directory, absolute. Made if it does not exist; must not have been used before.
    pub dir: PathBuf,
    /// What to run. `cgroup` and `degraded` are filled in by the driver.
    pub spec: ContainerSpec,
    /// What it may use.
    pub limits: Limits,
    /// The name of its control group, unique on this node: `<pod>/<container>`.
    pub cgroup_name: PathBuf,
}

/// What became of a container.
#[derive(Debug)]
pub enum Adopted {
    /// It was never started, and nobody will: the directory may be used again after [`Driver::remove`].
    NotStarted,
    /// It runs, or is ending.
    Running(Arc<dyn Container>),
    /// It has ended.
    Ended(ExitRecord),
}

/// A command to run in a container.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

/// How a command in a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code; 128 + signal for one that a signal ended.
    pub exit_code: i32,
    /// The first [`EXEC_OUTPUT_LIMIT`] bytes of stdout and stderr together.
    pub output: String,
}

/// How much of a command's output is kept. Kubernetes keeps as much of a probe's.
pub const EXEC_OUTPUT_LIMIT: usize = 10 * 1024;

/// A driver that could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The container's directory could not be prepared, read or removed.
    #[error("container directory {dir}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The supervising process could not be started.
    #[error("cannot start the supervising process {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A step of starting the container failed: a mistake in the manifest or a limit of this machine.
    #[error("{0}")]
    Start(StepError),
    /// The supervising process did not start the container in time, and was killed.
    #[error("the supervising process did not start the container within {0:?} and was killed")]
    Hung(Duration),
    /// The supervising process ended without a word.
    #[error("the supervising process ended without saying why")]
    Supervisor,
    /// A command took longer than it may.
    #[error("timed out after {0:?}")]
    Timeout(Duration),
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;

    use super::*;

    /// Does not know what became of a container until it is asked for the third time.
    struct Forgetful(AtomicU32);

    impl Driver for Forgetful {
        fn name(&self) -> &'static str {
            "forgetful"
        }

        fn start(
            &self,
            _request: StartRequest,
        ) -> BoxFuture<'_, Result<Arc<dyn Container>, DriverError>> {
            async { Err(DriverError::Supervisor) }.boxed()
        }

        fn adopt(&self, _dir: PathBuf) -> BoxFuture<'_, Result<Adopted, DriverError>> {
            async {
                match self.0.fetch_add(1, Ordering::Relaxed) {
                    0 | 1 => Err(DriverError::Supervisor),
                    _ => Ok(Adopted::Ended(ExitRecord::default())),
                }
            }
            .boxed()
        }

        fn remove(&self, _dir: PathBuf) -> BoxFuture<'_, Result<(), DriverError>> {
            async { Ok(()) }.boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_cannot_be_told_about_is_asked_about_again() {
        let driver = Forgetful(AtomicU32::new(0));
        let adopted = adopt_surely(&driver, Path::new("dir")).await;
        assert!(matches!(adopted, Adopted::Ended(_)));
        assert_eq!(driver.0.load(Ordering::Relaxed), 3);
    }
}
