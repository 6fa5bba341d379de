//! One container of the `process` driver, seen from the agent.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tracing::warn;

use super::{ProcessDriverConfig, blocking, lost};
use crate::cgroup::{Cgroup, Usage};
use crate::driver::{Container, DriverError, EXEC_OUTPUT_LIMIT, ExecOutput, ExecRequest};
use crate::spec::{
    ContainerSpec, EXIT_FILE, ExitRecord, PidRecord, ProcessId, SPEC_FILE, StepError, read_record,
    write_record,
};
use crate::{asyncfd, procfs};

pub(super) struct ProcessContainer {
    config: Arc<ProcessDriverConfig>,
    dir: PathBuf,
    record: PidRecord,
    cgroup: Option<Cgroup>,
    /// The main process; `None` when it ended before we could look.
    main: Option<OwnedFd>,
    ended: watch::Receiver<Option<ExitRecord>>,
}

impl ProcessContainer {
    /// Follows a container whose shim is alive, or has just ended. `child` is the shim when it is our own child.
    pub(super) fn watch(
        config: Arc<ProcessDriverConfig>,
        dir: PathBuf,
        cgroup: Option<Cgroup>,
        record: PidRecord,
        child: Option<Child>,
        handles: Handles,
    ) -> Self {
        let Handles { shim, main } = handles;
        let (tell, ended) = watch::channel(None);
        let (task_dir, task_cgroup, task_record) = (dir.clone(), cgroup.clone(), record.clone());
        tokio::spawn(async move {
            if let Some(shim) = shim {
                // An error would mean that the reactor is gone, and the process with it.
                let _ = shim.readable().await;
            }
            let exit =
                blocking(move || conclude(&task_dir, task_cgroup.as_ref(), &task_record, child))
                    .await;
            let _ = tell.send(Some(exit));
        });
        Self {
            config,
            dir,
            record,
            cgroup,
            main,
            ended,
        }
    }
}

/// What a container's processes are followed by; `None` for one that has ended.
pub(super) struct Handles {
    shim: Option<AsyncFd<OwnedFd>>,
    main: Option<OwnedFd>,
}

impl Handles {
    /// An error says nothing about the container, which may run.
    pub(super) fn open(record: &PidRecord, shim_is_child: bool) -> io::Result<Self> {
        let shim = open_process(record.shim, shim_is_child)?;
        Ok(Self {
            shim: shim.map(asyncfd::readable).transpose()?,
            main: open_process(record.container, false)?,
        })
    }
}

/// A descriptor of exactly this process; `None` when it has ended. A child of ours that was not waited for cannot be
/// mistaken for another.
fn open_process(process: ProcessId, is_child: bool) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return Ok(None);
    };
    let fd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let same = is_child
        || procfs::look(process.pid)?.is_some_and(|s| s.start_ticks == process.start_ticks);
    Ok(same.then_some(fd))
}

/// How long a process may take to end that was killed: it does so at once, unless the kernel waits for a disk.
const KILLED_ENDS: Duration = Duration::from_secs(30);

/// Waits until a process has ended; whether it has.
fn is_gone(process: &OwnedFd, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        };
        // It is readable when the process is no more, or a zombie.
        let mut ended = [PollFd::new(process, PollFlags::IN)];
        match poll(&mut ended, Some(&timeout)) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

/// The shim has ended: reads what it left, or finishes its work when it left nothing.
#[expect(
    clippy::disallowed_methods,
    reason = "version 1 has no event for an empty group; this thread may block"
)]
pub(super) fn conclude(
    dir: &Path,
    cgroup: Option<&Cgroup>,
    record: &PidRecord,
    child: Option<Child>,
) -> ExitRecord {
    if let Some(mut child) = child {
        let _ = child.wait();
    }
    if let Ok(Some(exit)) = read_record::<ExitRecord>(dir, EXIT_FILE) {
        return exit;
    }
    // The main process dies with the shim; the rest is found through the control group.
    let mut pause = Duration::from_millis(10);
    loop {
        match open_process(record.container, false) {
            Ok(Some(main)) => {
                let _ = pidfd_send_signal(&main, Signal::KILL);
                if !is_gone(&main, KILLED_ENDS) {
                    warn!(dir = %dir.display(), pid = record.container.pid, "a process that was killed does not end; going on without it");
                }
                break;
            }
            Ok(None) => break,
            // No descriptors are left, say: whether it has ended must be known before anything takes its place.
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    if let Some(cgroup) = cgroup {
        empty(cgroup);
    }
    let exit = lost(
        "the supervising process was killed, so the exit code is not known",
        Some(record),
        now(),
    );
    let _ = write_record(dir, EXIT_FILE, &exit);
    exit
}

/// Kills what is in a group until nothing is.
#[expect(
    clippy::disallowed_methods,
    reason = "version 1 has no event for an empty group; this thread may block"
)]
pub(super) fn empty(cgroup: &Cgroup) {
    let mut pause = Duration::from_millis(1);
    while !cgroup.processes().is_empty() {
        cgroup.kill_all();
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

impl Container for ProcessContainer {
    fn record(&self) -> &PidRecord {
        &self.record
    }

    fn ended(&self) -> BoxFuture<'static, ExitRecord> {
        let mut ended = self.ended.clone();
        async move {
            let record = ended
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|r| r.clone());
            match record {
                Some(record) => record,
                // The runtime is shutting down: nothing will come any more.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn signal(&self, signal: i32) {
        if let (Some(main), Some(signal)) = (&self.main, Signal::from_named_raw(signal)) {
            let _ = pidfd_send_signal(main, signal);
        }
    }

    fn kill(&self) {
        // The shim does the rest, control group or not, when the main process has ended.
        self.signal(Signal::KILL.as_raw());
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill_all();
        }
    }

    fn usage(&self) -> Usage {
        let mut usage = self.cgroup.as_ref().map(Cgroup::usage).unwrap_or_default();
        if usage.cpu_nanos.is_none() || usage.memory_bytes.is_none() {
            let from_proc = usage_of_tree(self.record.shim.pid);
            usage.cpu_nanos = usage.cpu_nanos.or(from_proc.cpu_nanos);
            usage.memory_bytes = usage.memory_bytes.or(from_proc.memory_bytes);
        }
        usage
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecOutput, DriverError>> {
        exec(&self.config, &self.dir, self.record.container, request).boxed()
    }
}

/// What the processes that live now use: less than what those used that have ended.
fn usage_of_tree(shim: i32) -> Usage {
    let nanos_per_tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let (mut ticks, mut pages) = (0, 0);
    for stat in procfs::descendants(shim)
        .into_iter()
        .filter_map(procfs::stat)
    {
        ticks += stat.cpu_ticks;
        pages += stat.resident_pages;
    }
    Usage {
        cpu_nanos: Some(ticks * nanos_per_tick),
        memory_bytes: Some(pages * rustix::param::page_size() as u64),
    }
}

async fn exec(
    config: &ProcessDriverConfig,
    dir: &Path,
    container: ProcessId,
    request: ExecRequest,
) -> Result<ExecOutput, DriverError> {
    let failed = |source| DriverError::Spawn {
        program: config.shim[0].clone(),
        source,
    };
    let in_dir = |source| DriverError::Directory {
        dir: dir.into(),
        source,
    };
    let spec: ContainerSpec = read_record(dir, SPEC_FILE)
        .map_err(in_dir)?
        .ok_or_else(|| in_dir(io::ErrorKind::NotFound.into()))?;
    let spec = ContainerSpec {
        argv: request.argv,
        log: None,
        mounts: Vec::new(),
        enter_mounts_of: Some(container),
        ..spec
    };

    let (output, output_end) = io::pipe().map_err(failed)?;
    let mut command = tokio::process::Command::new(&config.shim[0]);
    command
        .args(&config.shim[1..])
        .arg("exec")
        .env_clear()
        .current_dir("/")
        .kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(output_end.try_clone().map_err(failed)?)
        .stderr(output_end);
    let mut child = command.spawn().map_err(failed)?;
    drop(command); // It holds writing ends of the pipe.
    let mut output = pipe::Receiver::from_owned_fd(output.into()).map_err(failed)?;

    let mut kept = Vec::new();
    let run = async {
        if let Some(mut stdin) = child.stdin.take() {
            let text = serde_json::to_vec(&spec).map_err(io::Error::from)?;
            let _ = stdin.write_all(&text).await;
        }
        let mut chunk = [0; 4096];
        loop {
            match output.read(&mut chunk).await? {
                0 => break,
                n => kept.extend_from_slice(&chunk[..n.min(EXEC_OUTPUT_LIMIT - kept.len())]),
            }
        }
        child.wait().await
    };
    let status = match tokio::time::timeout(request.timeout, run).await {
        Ok(status) => status.map_err(failed)?,
        Err(_) => {
            if let Some(pid) = child.id().and_then(|p| Pid::from_raw(p as i32)) {
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
            // It kills what it started and ends; should it hang, it is killed when dropped.
            let _ = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
            return Err(DriverError::Timeout(request.timeout));
        }
    };
    let output = String::from_utf8_lossy(&kept).into_owned();
    let exit_code = status.code().unwrap_or(128);
    if exit_code == i32::from(crate::shim::EXEC_FAILED)
        && let Some((step, message)) = output.lines().next().and_then(|l| l.split_once(": "))
        && matches!(
            step,
            "exec" | "container" | "mount" | "cgroup" | "user" | "cwd"
        )
    {
        return Err(DriverError::Start(StepError::new(step, message)));
    }
    Ok(ExecOutput { exit_code, output })
}

#[expect(
    clippy::disallowed_methods,
    reason = "completes a record that a shim, which has no clock handed in, began"
)]
pub(super) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_gone_or_another_counts_as_ended() {
        let own = procfs::identify(std::process::id() as i32).unwrap();
        assert!(open_process(own, false).unwrap().is_some());
        let former = ProcessId {
            start_ticks: own.start_ticks + 1,
            ..own
        };
        assert!(open_process(former, false).unwrap().is_none());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = ProcessId {
            pid: child.id() as i32,
            start_ticks: 0,
        };
        child.wait().unwrap();
        assert!(open_process(gone, false).unwrap().is_none());
    }

    #[test]
    fn only_a_process_that_has_ended_is_gone() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert!(!is_gone(&process, Duration::from_millis(10)));
        child.kill().unwrap();
        assert!(is_gone(&process, Duration::from_secs(60)));
        child.wait().unwrap();
    }
}
