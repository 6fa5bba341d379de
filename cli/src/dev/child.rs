//! Child processes of a development cluster: started in their own process group, so that a Ctrl-C on the terminal
//! reaches only the parent, which then stops them in order.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// A running child with its log file.
pub(crate) struct Managed {
    pub(crate) name: String,
    pub(crate) log: PathBuf,
    child: Child,
    pid: u32,
}

impl Managed {
    /// Starts `command` with its output in `<log_dir>/<name>.log`.
    pub(crate) fn start(name: &str, mut command: Command, log_dir: &Path) -> Result<Self> {
        let log = log_dir.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening the log file {} of {name}", log.display()))?;
        let errors = file.try_clone().context("sharing a log file")?;
        command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true);
        let program = command.as_std().get_program().to_owned();
        let child = command
            .spawn()
            .with_context(|| format!("starting {name} ({})", program.display()))?;
        let pid = child
            .id()
            .context("a child that was just started has a process id")?;
        Ok(Self {
            name: name.into(),
            log,
            child,
            pid,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for its end. Cancel safe.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        self.child
            .wait()
            .await
            .with_context(|| format!("waiting for {}", self.name))
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, and SIGKILL after `grace`.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        if !self.is_running() {
            return;
        }
        self.signal(Signal::TERM);
        if timeout(grace, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill().await;
    }

    /// Sends a signal, and does not wait for what it does.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// The last lines of its log, to say why it ended.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
