//! What the agent and the supervising process of a container (the shim) tell each other, through files in the
//! container's directory: `spec.json` goes in, `pid.json` and `exit.json` come out.
//!
//! These types are the contract between two versions of the binary: an agent adopts containers that an older shim
//! supervises. So fields are only added, each with a default.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;

/// The file that says what to run. The shim holds an exclusive `flock` on it for as long as it lives.
pub const SPEC_FILE: &str = "spec.json";
/// The file that says what runs.
pub const PID_FILE: &str = "pid.json";
/// The file that says how it ended.
pub const EXIT_FILE: &str = "exit.json";

/// One container, ready to be run: nothing in it needs to be looked up any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The program and its arguments. A program without a `/` is looked up in `PATH`.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Where to look for the program when `env` has no `PATH`.
    pub search_path: String,
    /// The working directory; `/` when there is none.
    pub cwd: Option<PathBuf>,
    /// The user to become; `None` stays what the agent is.
    pub uid: Option<u32>,
    /// The group to become; `None` stays what the agent is.
    pub gid: Option<u32>,
    /// Supplemental groups. Set, possibly to none, whenever `uid` or `gid` is; otherwise when there are any.
    pub groups: Vec<u32>,
    /// Set-user-id programs gain nothing.
    pub no_new_privileges: bool,
    /// Bind mounts, seen by this container alone.
    pub mounts: Vec<BindMount>,
    /// Where directories that were created as mount points are registered, shared by all agents of the machine. Needed
    /// only with mounts.
    pub mount_registry: PathBuf,
    /// The cgroup to join.
    pub cgroup: Option<Cgroup>,
    /// Where output goes; `None` leaves the shim's own stdout and stderr.
    pub log: Option<LogSpec>,
    /// The container's `oom_score_adj`.
    pub oom_score_adj: Option<i32>,
    /// How many files may be open; `None` leaves the limit as it is.
    pub open_files: Option<u64>,
    /// The file with the deadline of the fence under which the container runs ([`crate::deadline`]); `None`: it runs until
    /// somebody stops it.
    pub fence: Option<PathBuf>,
    /// What could not be applied, found before the start. Copied to [`PidRecord::degraded`].
    pub degraded: Vec<Degraded>,
    /// Means something to whoever wrote the spec: the agent knows by it whether the definition has changed since.
    pub definition: String,
    /// Join the mount namespace of this process instead of making an own one (`exec` into a running container).
    pub enter_mounts_of: Option<ProcessId>,
}

/// A directory or file that the container sees at another place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindMount {
    /// What is shown. Must exist.
    pub source: PathBuf,
    /// Where: an absolute path. Created when missing, and removed again if still empty when the container has ended.
    pub target: PathBuf,
    /// Whether writes fail.
    pub read_only: bool,
}

/// Where output is kept, in the format of the container runtime interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The file that is being written. Rotated ones are beside it: `<path>.1`, `<path>.2`, ..., the highest the newest.
    pub path: PathBuf,
    /// Rotate when the file would exceed so many bytes.
    pub max_bytes: u64,
    /// Keep at most so many files, the one being written included.
    pub max_files: u32,
}

impl LogSpec {
    /// A log at `path` with Kubernetes' limits: 10 MiB, five files.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 10 << 20,
            max_files: 5,
        }
    }
}

/// Something that was asked for and could not be applied: the container runs without it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Degraded {
    /// What: `mounts`, or a cgroup controller as in `cgroup.memory`.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start_ticks: u64,
}

/// `pid.json`: written when the container's program has been started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidRecord {
    /// The container's main process.
    pub container: ProcessId,
    /// The process that supervises it.
    pub shim: ProcessId,
    /// The boot in which these numbers have a meaning.
    pub boot_id: String,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    /// What could not be applied.
    pub degraded: Vec<Degraded>,
}

/// `exit.json`: written when nothing of the container is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitRecord {
    /// The main process's exit code, when it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of the container for want of memory, and the container failed.
    pub oom_killed: bool,
    /// Nanoseconds since the epoch; 0 when it never started.
    pub started_at: i64,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    /// Lines of output that were lost because the log could not be written.
    pub log_lines_dropped: u64,
    /// Why it never started, or why its end is not known exactly.
    pub error: Option<StepError>,
}

impl ExitRecord {
    /// The exit code as a shell shows it: 128 + signal for a process that a signal ended, 128 for one that never started.
    pub fn shell_code(&self) -> i32 {
        match (self.exit_code, self.signal) {
            (Some(code), _) => code,
            (None, Some(signal)) => 128 + signal,
            (None, None) => 128,
        }
    }
}

/// A step of starting a container that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepError {
    /// Which: `exec`, `mount`, `cgroup`, `user`, `cwd`, `log`, `record`, ...
    pub step: String,
    /// What happened, on which object.
    pub message: String,
}

impl StepError {
    /// A failure of `step`.
    pub fn new(step: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            step: step.into(),
            message: message.to_string(),
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.message)
    }
}

/// Reads a record. `None` when it does not exist; a record that does not parse is an error, since they are put in
/// place whole.
///
/// # Errors
/// IO errors, and `InvalidData` for a record that does not parse.
pub fn read_record<T: serde::de::DeserializeOwned>(
    dir: &Path,
    file: &str,
) -> std::io::Result<Option<T>> {
    match std::fs::read(dir.join(file)) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(std::io::Error::from),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Puts a record in place whole: a reader sees it complete or not at all.
///
/// # Errors
/// IO errors.
pub fn write_record<T: Serialize>(dir: &Path, file: &str, record: &T) -> std::io::Result<()> {
    let tmp = dir.join(format!(".{file}.tmp"));
    std::fs::write(&tmp, serde_json::to_vec(record)?)?;
    std::fs::rename(&tmp, dir.join(file))
}
