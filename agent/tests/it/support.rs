//! What the tests share: a driver in a directory of its own, and guards that leave no process behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use setpoint_agent::cgroup::{Cgroups, Layout, Limits};
use setpoint_agent::driver::{Container, Driver, DriverError, StartRequest};
use setpoint_agent::logs::{LogOptions, LogReader};
use setpoint_agent::process::{ProcessDriver, ProcessDriverConfig};
use setpoint_agent::spec::{ContainerSpec, LogSpec, PID_FILE, PidRecord, read_record};

/// Long enough for a busy machine; nothing waits for it to pass unless it fails.
const LIMIT: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Fixture {
    tmp: tempfile::TempDir,
    pub(crate) driver: ProcessDriver,
    cgroups: Option<Cgroups>,
    base: PathBuf,
    started: Mutex<Vec<PathBuf>>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let base = PathBuf::from(format!(
            "setpoint-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        Self::with(Some(Cgroups::detect(base.clone())), base)
    }

    pub(crate) fn without_cgroups() -> Self {
        Self::with(None, PathBuf::new())
    }

    fn with(cgroups: Option<Cgroups>, base: PathBuf) -> Self {
        let driver = make_driver(&[env!("CARGO_BIN_EXE_setpoint-shim")], cgroups.clone());
        Self {
            tmp: tempfile::tempdir().unwrap(),
            driver,
            cgroups,
            base,
            started: Mutex::default(),
        }
    }

    pub(crate) fn cgroups(&self) -> Option<Cgroups> {
        self.cgroups.clone()
    }

    pub(crate) fn another_driver(&self) -> ProcessDriver {
        make_driver(&[env!("CARGO_BIN_EXE_setpoint-shim")], self.cgroups.clone())
    }

    pub(crate) fn driver_with(&self, shim: &[&str]) -> ProcessDriver {
        make_driver(shim, self.cgroups.clone())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.path("containers").join(name)
    }

    pub(crate) fn log_path(&self, name: &str) -> PathBuf {
        self.path("logs").join(name).join("0.log")
    }

    pub(crate) fn log(&self, name: &str) -> String {
        let mut text = Vec::new();
        let mut reader = LogReader::open(&self.log_path(name), &LogOptions::default()).unwrap();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            text.extend(chunk);
        }
        String::from_utf8(text).unwrap()
    }

    pub(crate) fn request(
        &self,
        name: &str,
        mut spec: ContainerSpec,
        limits: Limits,
    ) -> StartRequest {
        spec.log
            .get_or_insert_with(|| LogSpec::at(self.log_path(name)));
        let dir = self.dir(name);
        self.track(&dir);
        StartRequest {
            dir,
            spec,
            limits,
            cgroup_name: Path::new("pod").join(name),
        }
    }

    /// Sees to it that a container in `dir` does not outlive the test.
    pub(crate) fn track(&self, dir: &Path) {
        self.started.lock().unwrap().push(dir.into());
    }

    pub(crate) async fn start(
        &self,
        name: &str,
        spec: ContainerSpec,
    ) -> Result<Arc<dyn Container>, DriverError> {
        self.start_limited(name, spec, Limits::default()).await
    }

    pub(crate) async fn start_limited(
        &self,
        name: &str,
        spec: ContainerSpec,
        limits: Limits,
    ) -> Result<Arc<dyn Container>, DriverError> {
        let request = self.request(name, spec, limits);
        self.driver.start(request).await
    }

    /// The groups of this test's containers that exist.
    pub(crate) fn control_groups(&self) -> Vec<PathBuf> {
        self.bases()
            .into_iter()
            .flat_map(|b| [b.join("pod/c")])
            .filter(|p| p.exists())
            .collect()
    }

    fn bases(&self) -> Vec<PathBuf> {
        if self.base.as_os_str().is_empty() {
            return Vec::new();
        }
        match Layout::detect() {
            Layout::V1(mounts) => mounts.values().map(|m| m.join(&self.base)).collect(),
            Layout::V2(root) => vec![root.join(&self.base)],
            Layout::None => Vec::new(),
        }
    }
}

impl Drop for Fixture {
    #[expect(
        clippy::disallowed_methods,
        reason = "a destructor cannot wait asynchronously"
    )]
    fn drop(&mut self) {
        for dir in self.started.lock().unwrap().drain(..) {
            let Ok(Some(record)) = read_record::<PidRecord>(&dir, PID_FILE) else {
                continue;
            };
            if start_ticks(record.container.pid) == Some(record.container.start_ticks) {
                kill(record.container.pid);
            }
            let begun = Instant::now();
            while start_ticks(record.shim.pid) == Some(record.shim.start_ticks)
                && alive(record.shim.pid)
                && begun.elapsed() < LIMIT
            {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        for base in self.bases() {
            remove_groups(&base);
        }
    }
}

fn remove_groups(dir: &Path) {
    if let Ok(entries) = fs::read_dir(dir) {
        entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .for_each(|e| remove_groups(&e.path()));
    }
    let _ = fs::remove_dir(dir);
}

fn make_driver(shim: &[&str], cgroups: Option<Cgroups>) -> ProcessDriver {
    ProcessDriver::new(ProcessDriverConfig {
        shim: shim.iter().map(PathBuf::from).collect(),
        cgroups,
    })
}

/// A container that runs a shell script.
pub(crate) fn sh(script: &str) -> ContainerSpec {
    ContainerSpec {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        ..ContainerSpec::default()
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("it happens in time")
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(
        text[text.rfind(')')? + 2..]
            .split(' ')
            .map(str::to_owned)
            .collect(),
    )
}

fn start_ticks(pid: i32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Whether a process exists and is not a zombie.
pub(crate) fn alive(pid: i32) -> bool {
    stat(pid).is_some_and(|s| s[0] != "Z" && s[0] != "X")
}

pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|p| Some((p, stat(p)?.get(1)?.parse().ok()?)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        let parent_of = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == parent_of)
                .map(|(p, _)| *p),
        );
        next += 1;
    }
    found.remove(0);
    found
}

/// A small file system that goes with the test.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    pub(crate) fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount(
            "tmpfs",
            at,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        Self(at.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

pub(crate) fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            open_to_all(&entry.path());
        }
    }
}
