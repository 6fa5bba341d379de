//! Control groups, versions 1 and 2: limits for containers, what they use, and a sure way to find all their processes.
//!
//! [`Cgroups`] knows where this machine keeps them and makes one per container; [`Cgroup`] is one, by its paths, and
//! can be stored and picked up by another process. What cannot be applied is reported per controller and does not
//! keep a container from running.

mod layout;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::spec::Degraded;
pub use layout::Layout;

/// What a container may use. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// The share of the cpu when it is scarce, in thousandths of a core: the request.
    pub cpu_request_milli: Option<u64>,
    /// The most cpu, in thousandths of a core.
    pub cpu_limit_milli: Option<u64>,
    /// The most memory, in bytes. A container that needs more is killed.
    pub memory_limit_bytes: Option<u64>,
    /// The most processes and threads.
    pub pids_limit: Option<u64>,
}

/// What a container uses. `None` where it cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Cpu time since the start, in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory that cannot be reclaimed easily: all but inactive file pages, in bytes.
    pub memory_bytes: Option<u64>,
}

/// The control groups of one agent.
#[derive(Clone, Debug)]
pub struct Cgroups {
    layout: Layout,
    /// Relative to the root of each hierarchy: `setpoint/<node>`.
    base: PathBuf,
}

/// The control group of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroup {
    /// Version 2: one directory, listed under the name `unified`. Otherwise one per controller.
    pub unified: bool,
    /// The directories by controller.
    pub dirs: BTreeMap<String, PathBuf>,
}

const UNIFIED: &str = "unified";
/// Kubernetes' and everybody's period for cpu limits.
const CPU_PERIOD_MICROS: u64 = 100_000;

impl Cgroups {
    /// Control groups as this machine has them, under `base` (as in `setpoint/<node>`).
    pub fn detect(base: impl Into<PathBuf>) -> Self {
        Self::new(Layout::detect(), base)
    }

    /// Control groups of a known layout.
    pub fn new(layout: Layout, base: impl Into<PathBuf>) -> Self {
        Self {
            layout,
            base: base.into(),
        }
    }

    /// Makes the group `name` (as in `<pod>/<container>`) with limits. Without permission there is no group at all.
    /// The list says which of the limits that were asked for do not apply.
    pub fn create(&self, name: &Path, limits: &Limits) -> (Option<Cgroup>, Vec<Degraded>) {
        let mut missing = Vec::new();
        let group = match &self.layout {
            Layout::None => Err("this machine has no control groups".to_owned()),
            Layout::V1(mounts) => self.create_v1(mounts, name, limits, &mut missing),
            Layout::V2(root) => self.create_v2(root, name, limits, &mut missing),
        };
        match group {
            Ok(group) => (Some(group), missing),
            Err(why) => (
                None,
                asked(limits)
                    .map(|c| Degraded {
                        what: format!("cgroup.{c}"),
                        why: why.clone(),
                    })
                    .collect(),
            ),
        }
    }

    /// Removes the group of the agent itself, and what it holds, in every hierarchy. What has processes stays.
    pub fn remove_base(&self) {
        let roots: Vec<&PathBuf> = match &self.layout {
            Layout::None => Vec::new(),
            Layout::V1(mounts) => mounts.values().collect(),
            Layout::V2(root) => vec![root],
        };
        for root in roots {
            // An error means that there is none, or that it is in use.
            let _ = remove_tree(&root.join(&self.base));
            if let Some(parent) = self.base.parent().filter(|p| !p.as_os_str().is_empty()) {
                let _ = fs::remove_dir(root.join(parent));
            }
        }
    }

    fn create_v1(
        &self,
        mounts: &BTreeMap<String, PathBuf>,
        name: &Path,
        limits: &Limits,
        missing: &mut Vec<Degraded>,
    ) -> Result<Cgroup, String> {
        let mut group = Cgroup::default();
        let mut failures: BTreeMap<&str, String> = BTreeMap::new();
        for controller in ["cpu", "cpuacct", "memory", "pids", "freezer"] {
            let Some(mount) = mounts.get(controller) else {
                failures.insert(
                    controller,
                    "the kernel does not offer this controller".into(),
                );
                continue;
            };
            let dir = mount.join(&self.base).join(name);
            match fs::create_dir_all(&dir) {
                Ok(()) => {
                    group.dirs.insert(controller.into(), dir);
                }
                Err(e) => {
                    failures.insert(controller, format!("{}: {}", dir.display(), text(&e)));
                }
            }
        }
        let mut settings = Vec::new();
        if let Some(milli) = limits.cpu_request_milli {
            settings.push(("cpu", "cpu.shares", shares(milli).to_string()));
        }
        if let Some(milli) = limits.cpu_limit_milli {
            settings.push(("cpu", "cpu.cfs_period_us", CPU_PERIOD_MICROS.to_string()));
            settings.push(("cpu", "cpu.cfs_quota_us", quota(milli).to_string()));
        }
        if let Some(bytes) = limits.memory_limit_bytes {
            settings.push(("memory", "memory.limit_in_bytes", bytes.to_string()));
        }
        if let Some(pids) = limits.pids_limit {
            settings.push(("pids", "pids.max", pids.to_string()));
        }
        for (controller, file, value) in settings {
            let failure = match group.dirs.get(controller) {
                Some(dir) => fs::write(dir.join(file), &value)
                    .err()
                    .map(|e| format!("{file} = {value}: {}", text(&e))),
                None => failures.get(controller).cloned(),
            };
            if let Some(why) = failure {
                note(missing, controller, why);
            }
        }
        if let (Some(bytes), Some(dir)) = (limits.memory_limit_bytes, group.dirs.get("memory")) {
            // Swap counts too, where the kernel counts it.
            let _ = fs::write(dir.join("memory.memsw.limit_in_bytes"), bytes.to_string());
        }
        if group.dirs.is_empty() {
            return Err(failures.into_values().next().unwrap_or_default());
        }
        Ok(group)
    }

    fn create_v2(
        &self,
        root: &Path,
        name: &Path,
        limits: &Limits,
        missing: &mut Vec<Degraded>,
    ) -> Result<Cgroup, String> {
        let relative = self.base.join(name);
        let dir = root.join(&relative);
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {}", dir.display(), text(&e)))?;
        // Each level passes the controllers on to the next.
        let mut level = root.to_path_buf();
        for part in relative.components() {
            for controller in ["cpu", "memory", "pids"] {
                let _ = fs::write(
                    level.join("cgroup.subtree_control"),
                    format!("+{controller}"),
                );
            }
            level.push(part);
        }
        let mut settings = Vec::new();
        if let Some(milli) = limits.cpu_request_milli {
            settings.push(("cpu", "cpu.weight", weight(milli).to_string()));
        }
        if let Some(milli) = limits.cpu_limit_milli {
            settings.push((
                "cpu",
                "cpu.max",
                format!("{} {CPU_PERIOD_MICROS}", quota(milli)),
            ));
        }
        if let Some(bytes) = limits.memory_limit_bytes {
            settings.push(("memory", "memory.max", bytes.to_string()));
        }
        if let Some(pids) = limits.pids_limit {
            settings.push(("pids", "pids.max", pids.to_string()));
        }
        for (controller, file, value) in settings {
            if let Err(e) = fs::write(dir.join(file), &value) {
                let why = if e.kind() == io::ErrorKind::NotFound
                    || e.kind() == io::ErrorKind::PermissionDenied
                {
                    format!("the controller is not available in {}", dir.display())
                } else {
                    format!("{file} = {value}: {}", text(&e))
                };
                note(missing, controller, why);
            }
        }
        if limits.memory_limit_bytes.is_some() {
            let _ = fs::write(dir.join("memory.swap.max"), "0");
            // A container without one of its processes is seldom of use: they go together.
            let _ = fs::write(dir.join("memory.oom.group"), "1");
        }
        Ok(Cgroup {
            unified: true,
            dirs: BTreeMap::from([(UNIFIED.to_owned(), dir)]),
        })
    }
}

impl Cgroup {
    /// Moves the calling process, which must have one thread, into the group.
    ///
    /// # Errors
    /// The file that could not be written, and why.
    pub(crate) fn join_self(&self) -> Result<(), (PathBuf, io::Error)> {
        // Writing 0 to version 1's `tasks` moves this thread alone, which needs no lock over all processes.
        let file = if self.unified {
            "cgroup.procs"
        } else {
            "tasks"
        };
        for dir in self.distinct() {
            let file = dir.join(file);
            fs::write(&file, "0").map_err(|e| (file, e))?;
        }
        Ok(())
    }

    /// The processes in the group and in groups that they made below it.
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        if let Some(dir) = self.main_dir() {
            collect_processes(dir, &mut found);
        }
        found
    }

    /// Kills all processes of the group, once. Frozen first where the kernel cannot do it in one go, so that none can
    /// fork away. New ones cannot appear afterwards except by a process outside the group.
    pub fn kill_all(&self) {
        let Some(dir) = self.main_dir() else { return };
        if self.unified && fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        let (file, freeze, thaw) = if self.unified {
            ("cgroup.freeze", "1", "0")
        } else {
            ("freezer.state", "FROZEN", "THAWED")
        };
        let frozen = fs::write(dir.join(file), freeze).is_ok();
        for pid in self.processes() {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if frozen {
            let _ = fs::write(dir.join(file), thaw);
        }
    }

    /// How many processes of the group the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        self.dir("memory")
            .and_then(|d| field(&d.join(file), "oom_kill"))
            .unwrap_or(0)
    }

    /// What the group uses.
    pub fn usage(&self) -> Usage {
        let number = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let (used, inactive) = if self.unified {
            ("memory.current", "inactive_file")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file")
        };
        let memory = self.dir("memory").and_then(|d| {
            Some(
                number(d.join(used))?
                    .saturating_sub(field(&d.join("memory.stat"), inactive).unwrap_or(0)),
            )
        });
        let cpu = if self.unified {
            self.dir("cpu")
                .and_then(|d| field(&d.join("cpu.stat"), "usage_usec"))
                .map(|us| us * 1000)
        } else {
            self.dir("cpuacct")
                .and_then(|d| number(d.join("cpuacct.usage")))
        };
        Usage {
            cpu_nanos: cpu,
            memory_bytes: memory,
        }
    }

    /// Removes the group, and its parent when that has no other. The kernel may need a moment after the last process.
    #[expect(
        clippy::disallowed_methods,
        reason = "version 1 has no event for a group that can be removed"
    )]
    pub fn remove(&self) {
        for dir in self.distinct() {
            for attempt in 0..20 {
                match remove_tree(dir) {
                    Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempt < 19 => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    _ => break,
                }
            }
            if let Some(parent) = dir.parent() {
                let _ = fs::remove_dir(parent);
            }
        }
    }

    fn dir(&self, controller: &str) -> Option<&Path> {
        self.dirs
            .get(if self.unified { UNIFIED } else { controller })
            .map(PathBuf::as_path)
    }

    /// The hierarchy in which processes are found and frozen.
    fn main_dir(&self) -> Option<&Path> {
        self.dir("freezer")
            .or_else(|| self.dirs.values().next().map(PathBuf::as_path))
    }

    /// Some machines mount several controllers together.
    fn distinct(&self) -> Vec<&PathBuf> {
        let mut dirs: Vec<&PathBuf> = self.dirs.values().collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }
}

fn collect_processes(dir: &Path, found: &mut Vec<i32>) {
    if let Ok(list) = fs::read_to_string(dir.join("cgroup.procs")) {
        found.extend(list.lines().filter_map(|l| l.parse::<i32>().ok()));
    }
    for sub in subdirs(dir) {
        collect_processes(&sub, found);
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for sub in subdirs(dir) {
        remove_tree(&sub)?;
    }
    fs::remove_dir(dir)
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// The value after `name` in a file of `name value` lines.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The controllers that limits ask for.
fn asked(limits: &Limits) -> impl Iterator<Item = &'static str> {
    let cpu = limits
        .cpu_request_milli
        .or(limits.cpu_limit_milli)
        .map(|_| "cpu");
    [
        cpu,
        limits.memory_limit_bytes.map(|_| "memory"),
        limits.pids_limit.map(|_| "pids"),
    ]
    .into_iter()
    .flatten()
}

fn note(missing: &mut Vec<Degraded>, controller: &str, why: String) {
    let what = format!("cgroup.{controller}");
    if !missing.iter().any(|d| d.what == what) {
        missing.push(Degraded { what, why });
    }
}

fn shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

/// Version 2's 1 to 10,000 for version 1's 2 to 262,144, as Kubernetes maps them.
fn weight(milli: u64) -> u64 {
    1 + (shares(milli) - 2) * 9_999 / 262_142
}

/// Microseconds per period. The kernel refuses less than a millisecond.
fn quota(milli: u64) -> u64 {
    (milli * CPU_PERIOD_MICROS / 1000).max(1000)
}

fn text(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        cpu_request_milli: Some(250),
        cpu_limit_milli: Some(500),
        memory_limit_bytes: Some(64 << 20),
        pids_limit: Some(32),
    };

    fn read(path: PathBuf) -> String {
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    #[test]
    fn version_1_has_a_directory_and_settings_per_controller() {
        let tmp = tempfile::tempdir().unwrap();
        let mounts = ["cpu", "memory", "pids", "freezer"]
            .map(|c| (c.to_owned(), tmp.path().join(c)))
            .into();
        let (group, missing) =
            Cgroups::new(Layout::V1(mounts), "setpoint/n1").create(Path::new("p/c"), &LIMITS);
        assert_eq!(missing, []);
        let dir = |c: &str| tmp.path().join(c).join("setpoint/n1/p/c");
        assert_eq!(group.unwrap().dirs.len(), 4);
        assert_eq!(read(dir("cpu").join("cpu.shares")), "256");
        assert_eq!(read(dir("cpu").join("cpu.cfs_quota_us")), "50000");
        assert_eq!(
            read(dir("memory").join("memory.limit_in_bytes")),
            "67108864"
        );
        assert_eq!(read(dir("pids").join("pids.max")), "32");
    }

    #[test]
    fn version_2_passes_controllers_down_and_sets_one_directory() {
        let tmp = tempfile::tempdir().unwrap();
        let (group, missing) = Cgroups::new(Layout::V2(tmp.path().into()), "setpoint/n1")
            .create(Path::new("p/c"), &LIMITS);
        assert_eq!(missing, []);
        assert!(group.unwrap().unified);
        let dir = tmp.path().join("setpoint/n1/p/c");
        assert_eq!(read(dir.join("cpu.max")), "50000 100000");
        assert_eq!(read(dir.join("cpu.weight")), "10");
        assert_eq!(read(dir.join("memory.max")), "67108864");
        assert_eq!(
            read(tmp.path().join("setpoint/n1/p/cgroup.subtree_control")),
            "+pids"
        );
    }

    #[test]
    fn what_was_not_asked_for_is_not_reported_missing() {
        let tmp = tempfile::tempdir().unwrap();
        let only_memory = Limits {
            memory_limit_bytes: Some(1 << 20),
            ..Limits::default()
        };
        let mounts = BTreeMap::from([("freezer".to_owned(), tmp.path().join("freezer"))]);
        let groups = Cgroups::new(Layout::V1(mounts), "b");
        let (group, missing) = groups.create(Path::new("p/c"), &only_memory);
        assert!(group.is_some());
        assert_eq!(
            missing.iter().map(|d| d.what.as_str()).collect::<Vec<_>>(),
            ["cgroup.memory"]
        );
        assert_eq!(groups.create(Path::new("p/c"), &Limits::default()).1, []);
        let (group, missing) =
            Cgroups::new(Layout::None, "b").create(Path::new("p/c"), &only_memory);
        assert!(group.is_none() && missing.len() == 1);
    }

    #[test]
    fn usage_leaves_out_what_can_be_reclaimed() {
        let tmp = tempfile::tempdir().unwrap();
        let group = Cgroup {
            unified: true,
            dirs: BTreeMap::from([(UNIFIED.to_owned(), tmp.path().to_path_buf())]),
        };
        fs::write(tmp.path().join("memory.current"), "1000\n").unwrap();
        fs::write(
            tmp.path().join("memory.stat"),
            "anon 1\ninactive_file 300\n",
        )
        .unwrap();
        fs::write(tmp.path().join("cpu.stat"), "usage_usec 5\n").unwrap();
        fs::write(
            tmp.path().join("memory.events"),
            "oom 3\noom_kill 2\noom_group_kill 0\n",
        )
        .unwrap();
        assert_eq!(
            group.usage(),
            Usage {
                cpu_nanos: Some(5000),
                memory_bytes: Some(700)
            }
        );
        assert_eq!(group.oom_kills(), 2);
    }
}
