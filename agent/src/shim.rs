//! The process that supervises one container: `setpoint shim <dir>`.
//!
//! The agent starts one per container, in a session of its own, so that containers outlive the agent. The shim starts
//! the container's main process, keeps its output in a log file, and writes down how it ended ([`crate::spec`]). It is
//! the subreaper of everything the container starts, so it can see to it that nothing is left when the main process
//! has ended. It kills the container when the fence that this runs under has ended ([`crate::deadline`]). It has one thread and no runtime, because there is one per container.
//!
//! `setpoint shim exec` runs one command in the surroundings of a running container: it reads its
//! [`ContainerSpec`] from stdin, leaves the output to the caller, and ends with the command's exit code.

mod fence;
mod launch;
mod logfile;
mod mountpoints;
mod reap;
mod sys;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FallocateFlags;
use rustix::process::{Signal, WaitStatus, set_child_subreaper, setsid};

use crate::procfs;
use crate::spec::{
    ContainerSpec, EXIT_FILE, ExitRecord, PID_FILE, PidRecord, ProcessId, SPEC_FILE, StepError,
    read_record, write_record,
};
use fence::Fence;
use launch::Launched;
use logfile::{LogFile, Stream};

/// What `setpoint shim exec` ends with when the command could not be started.
pub const EXEC_FAILED: u8 = 126;

/// The entry point of the hidden subcommand; `args` is what follows the word `shim`.
///
/// To be called before anything else is set up: the process must have one thread.
pub fn main(args: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    match args.as_slice() {
        [word] if word == "exec" => exec(),
        [dir] => match std::path::absolute(dir) {
            Ok(dir) => supervise(&dir),
            Err(_) => ExitCode::from(2),
        },
        _ => ExitCode::from(2),
    }
}

fn supervise(dir: &Path) -> ExitCode {
    // Fails when we lead a process group, which the agent avoids; then we are in a session of our own already.
    let _ = setsid();
    let mut record = ExitRecord::default();
    let place = ExitPlace::reserve(dir);
    match run(dir, &mut record) {
        Ok(()) => {}
        Err(error) => record.error = Some(error),
    }
    record.finished_at = now();
    match place.write(dir, &record) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(dir: &Path, record: &mut ExitRecord) -> Result<(), StepError> {
    let spec: ContainerSpec = read_record(dir, SPEC_FILE)
        .and_then(|s| s.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
        .map_err(|e| StepError::new("spec", e))?;
    let signals = prepare()?;
    let points = if spec.mounts.is_empty() || !rustix::process::geteuid().is_root() {
        None
    } else {
        Some(mountpoints::MountPoints::prepare(
            &spec.mount_registry,
            &spec.mounts,
        )?)
    };
    let ooms_before = spec.cgroup.as_ref().map_or(0, |c| c.oom_kills());
    let ended = Fence::of(spec.fence.as_deref()).and_then(|mut fence| {
        let launched = launch::launch(&spec, fence.as_ref())?;
        supervise_launched(dir, &spec, record, &signals, launched, &mut fence)
    });
    // Whatever happened: nothing is left, and then nobody uses the mount points any more.
    reap::kill_rest(spec.cgroup.as_ref(), &signals, || {});
    if let Some(points) = points {
        points.release();
    }
    let ooms = spec.cgroup.as_ref().map_or(0, |c| c.oom_kills());
    record.oom_killed = ended.is_ok() && ooms > ooms_before && record.exit_code != Some(0);
    ended
}

/// Makes this process the one that everything below it ends up with, and protects it from the OOM killer.
fn prepare() -> Result<OwnedFd, StepError> {
    let signals = sys::signal_fd().map_err(|e| StepError::new("signals", e))?;
    set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| StepError::new("subreaper", errno(e)))?;
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    let _ = rustix::process::chdir("/");
    Ok(signals)
}

fn supervise_launched(
    dir: &Path,
    spec: &ContainerSpec,
    record: &mut ExitRecord,
    signals: &OwnedFd,
    launched: Launched,
    fence: &mut Option<Fence>,
) -> Result<(), StepError> {
    record.started_at = now();
    let container = procfs::identify(launched.pid).unwrap_or(ProcessId {
        pid: launched.pid,
        start_ticks: 0,
    });
    let pid_record = PidRecord {
        container,
        shim: procfs::identify(std::process::id() as i32).unwrap_or_default(),
        boot_id: procfs::boot_id(),
        started_at: record.started_at,
        degraded: spec
            .degraded
            .iter()
            .cloned()
            .chain(launched.degraded)
            .collect(),
    };
    let written = write_record(dir, PID_FILE, &pid_record)
        .map_err(|e| StepError::new("record", format_args!("{PID_FILE}: {e}")));
    if written.is_err() {
        // Nobody could find this container again.
        reap::signal(launched.pid, Signal::KILL);
    } else {
        announce(&pid_record);
    }
    let mut pump = Pump::new(spec, launched.output);
    let status = pump.until_ended(launched.pid, signals, fence.as_mut(), spec);
    record.exit_code = status.exit_status();
    record.signal = status.terminating_signal();
    reap::kill_rest(spec.cgroup.as_ref(), signals, || pump.drain());
    pump.drain();
    pump.finish();
    record.log_lines_dropped = pump.log.as_ref().map_or(0, LogFile::dropped);
    record.error = fence.as_ref().and_then(Fence::why);
    written
}

/// Tells the agent, if it is still there, through the pipe that it gave us as stdout. Then lets go of the pipe.
fn announce(record: &PidRecord) {
    if let Ok(mut line) = serde_json::to_vec(record) {
        line.push(b'\n');
        let _ = std::io::stdout().write_all(&line);
        let _ = std::io::stdout().flush();
    }
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Moves output from the container's pipes to its log.
struct Pump {
    log: Option<LogFile>,
    pipes: [Option<OwnedFd>; 2],
    streams: [Stream; 2],
    buffer: Vec<u8>,
}

impl Pump {
    fn new(spec: &ContainerSpec, output: Option<(OwnedFd, OwnedFd)>) -> Self {
        let pipes = match output {
            Some((out, err)) => [Some(out), Some(err)],
            None => [None, None],
        };
        let buffer = if spec.log.is_some() {
            vec![0; 32 * 1024]
        } else {
            Vec::new()
        };
        Self {
            log: spec.log.clone().map(LogFile::new),
            pipes,
            streams: [Stream::new("stdout"), Stream::new("stderr")],
            buffer,
        }
    }

    /// Runs until the main process has ended, by itself or with its fence.
    fn until_ended(
        &mut self,
        main: i32,
        signals: &OwnedFd,
        mut fence: Option<&mut Fence>,
        spec: &ContainerSpec,
    ) -> WaitStatus {
        loop {
            if let Some(fence) = &mut fence
                && fence.is_over()
            {
                reap::kill_now(spec.cgroup.as_ref());
            }
            let timer = fence.as_ref().map(|f| f.timer());
            let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
            fds.extend(timer.as_ref().map(|t| PollFd::new(t, PollFlags::IN)));
            fds.extend(
                self.pipes
                    .iter()
                    .flatten()
                    .map(|p| PollFd::new(p, PollFlags::IN)),
            );
            // A note about lost lines is owed: try once a second whether there is room again.
            let owes = self.log.as_ref().is_some_and(LogFile::owes_a_note);
            let timeout = owes.then_some(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            });
            let _ = poll(&mut fds, timeout.as_ref());
            let signalled = !fds[0].revents().is_empty();
            drop(fds);
            self.read_available();
            if let Some(log) = &mut self.log
                && log.owes_a_note()
            {
                log.retry(now());
            }
            if signalled {
                for signal in sys::pending_signals(signals) {
                    if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT) {
                        reap::signal(main, Signal::TERM);
                    }
                }
                for (pid, status) in reap::reap_all() {
                    if pid == main {
                        return status;
                    }
                }
            }
        }
    }

    /// Reads each pipe once, so that one busy stream does not hold up the other.
    fn read_available(&mut self) -> bool {
        let mut any = false;
        for (pipe, stream) in self.pipes.iter_mut().zip(&mut self.streams) {
            let Some(fd) = pipe else { continue };
            match rustix::io::read(&*fd, &mut self.buffer) {
                Ok(0) => *pipe = None,
                Ok(n) => {
                    any = true;
                    if let Some(log) = &mut self.log {
                        log.feed(stream, &self.buffer[..n], now());
                    }
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(_) => *pipe = None,
            }
        }
        any
    }

    /// Reads whatever is in the pipes.
    fn drain(&mut self) {
        while self.read_available() {}
    }

    fn finish(&mut self) {
        if let Some(log) = &mut self.log {
            log.finish(&mut self.streams, now());
        }
    }
}

/// Room on disk for the exit record, taken while there is some: a full disk must not lose an exit code.
struct ExitPlace(Option<(File, PathBuf)>);

impl ExitPlace {
    fn reserve(dir: &Path) -> Self {
        let path = dir.join(format!(".{EXIT_FILE}.reserved"));
        let file = File::create(&path)
            .ok()
            .filter(|f| rustix::fs::fallocate(f, FallocateFlags::KEEP_SIZE, 0, 4096).is_ok());
        Self(file.map(|f| (f, path)))
    }

    fn write(self, dir: &Path, record: &ExitRecord) -> std::io::Result<()> {
        if let Some((mut file, path)) = self.0
            && file.write_all(&serde_json::to_vec(record)?).is_ok()
            && std::fs::rename(&path, dir.join(EXIT_FILE)).is_ok()
        {
            return Ok(());
        }
        write_record(dir, EXIT_FILE, record)
    }
}

fn exec() -> ExitCode {
    match exec_inner() {
        Ok(status) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitCode::from(code as u8),
            (None, Some(signal)) => ExitCode::from((128 + signal) as u8),
            (None, None) => ExitCode::FAILURE,
        },
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(EXEC_FAILED)
        }
    }
}

fn exec_inner() -> Result<WaitStatus, StepError> {
    let _ = setsid();
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| StepError::new("spec", e))?;
    let spec: ContainerSpec = serde_json::from_str(&text).map_err(|e| StepError::new("spec", e))?;
    let signals = prepare()?;
    if let Some(process) = spec.enter_mounts_of
        && !procfs::is_alive(process)
    {
        return Err(StepError::new("container", "it does not run"));
    }
    let mut fence = Fence::of(spec.fence.as_deref())?;
    let launched = launch::launch(&spec, fence.as_ref())?;
    // Here a signal is the caller's way to say that it has waited long enough.
    let status = loop {
        if let Some(fence) = &mut fence
            && fence.is_over()
        {
            // Only what this command started: the cgroup is the container's, whose own shim sees to it.
            reap::kill_now(None);
        }
        let timer = fence.as_ref().map(Fence::timer);
        let mut fds = vec![PollFd::new(&signals, PollFlags::IN)];
        fds.extend(timer.as_ref().map(|t| PollFd::new(t, PollFlags::IN)));
        let _ = poll(&mut fds, None);
        let stop = sys::pending_signals(&signals)
            .into_iter()
            .any(|s| s != libc::SIGCHLD);
        if stop {
            reap::signal(launched.pid, Signal::KILL);
        }
        if let Some((_, status)) = reap::reap_all()
            .into_iter()
            .find(|(pid, _)| *pid == launched.pid)
        {
            break status;
        }
    };
    // Only what this command started: the cgroup is the container's.
    reap::kill_rest(None, &signals, || {});
    Ok(status)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shim is a shell of its own; it decides nothing by time"
)]
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as i64)
}

fn errno(e: rustix::io::Errno) -> String {
    let text = std::io::Error::from(e).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}
