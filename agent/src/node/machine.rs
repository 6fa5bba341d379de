//! The machine that an agent runs on: who it is, and what it has and uses.

use std::collections::BTreeMap;
use std::path::Path;

use setpoint_apis::core::NodeSystemInfo;

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it calls itself.
    pub hostname: String,
    /// The agent's process id there.
    pub pid: u32,
    /// What runs containers there.
    pub driver: &'static str,
    /// How many cpus it has.
    pub cpus: usize,
    /// Versions and identity.
    pub info: NodeSystemInfo,
    readings: Readings,
}

#[derive(Clone, Copy, Debug)]
enum Readings {
    Kernel,
    Fixed(Sample),
}

impl Machine {
    /// This machine.
    pub fn this(driver: &'static str) -> Self {
        let uname = rustix::system::uname();
        let text = |t: &std::ffi::CStr| t.to_string_lossy().into_owned();
        let architecture = match uname.machine().to_bytes() {
            b"x86_64" => "amd64".to_owned(),
            b"aarch64" => "arm64".to_owned(),
            _ => text(uname.machine()),
        };
        Self {
            hostname: text(uname.nodename()),
            pid: std::process::id(),
            driver,
            cpus: cpu_count(),
            info: NodeSystemInfo {
                machine_id: machine_id(),
                boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
                kernel_version: text(uname.release()),
                os_image: os_image(),
                operating_system: "linux".into(),
                architecture,
                kubelet_version: format!("v{}", env!("CARGO_PKG_VERSION")),
                container_runtime_version: format!("{driver}://{}", env!("CARGO_PKG_VERSION")),
                ..NodeSystemInfo::default()
            },
            readings: Readings::Kernel,
        }
    }

    /// A machine that does not exist, with 1 cpu, 1 GiB of memory and 10 GiB of disk of which nothing is used; an
    /// agent's configuration may say otherwise.
    pub fn hollow(name: impl Into<String>) -> Self {
        let hostname = name.into();
        Self {
            pid: 1,
            driver: "hollow",
            cpus: 1,
            info: NodeSystemInfo {
                machine_id: format!("hollow-{hostname}"),
                operating_system: "linux".into(),
                architecture: "amd64".into(),
                kubelet_version: format!("v{}", env!("CARGO_PKG_VERSION")),
                container_runtime_version: format!("hollow://{}", env!("CARGO_PKG_VERSION")),
                ..NodeSystemInfo::default()
            },
            hostname,
            readings: Readings::Fixed(Sample {
                memory_total: 1 << 30,
                disk_total: 10 << 30,
                ..Sample::default()
            }),
        }
    }

    /// What it uses now.
    pub(crate) fn sample(&self, data_dir: &Path) -> Sample {
        match self.readings {
            Readings::Kernel => sample(data_dir),
            Readings::Fixed(sample) => sample,
        }
    }
}

/// What the kernel says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Busy and total cpu time since boot, in the kernel's ticks.
    pub(crate) cpu_busy: u64,
    pub(crate) cpu_total: u64,
    pub(crate) memory_used: u64,
    pub(crate) memory_total: u64,
    pub(crate) disk_used: u64,
    pub(crate) disk_total: u64,
}

/// Reads a [`Sample`]; what cannot be read is 0 and reported as no usage.
fn sample(data_dir: &Path) -> Sample {
    let mut s = Sample::default();
    if let Some(line) = read("/proc/stat").lines().next() {
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .filter_map(|f| f.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is part of user.
        s.cpu_total = ticks.iter().take(8).sum();
        s.cpu_busy =
            s.cpu_total - ticks.get(3).copied().unwrap_or(0) - ticks.get(4).copied().unwrap_or(0);
    }
    let memory: BTreeMap<String, u64> = read("/proc/meminfo")
        .lines()
        .filter_map(|l| {
            let (name, value) = l.split_once(':')?;
            Some((
                name.to_owned(),
                value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024,
            ))
        })
        .collect();
    s.memory_total = memory.get("MemTotal").copied().unwrap_or(0);
    s.memory_used = s
        .memory_total
        .saturating_sub(memory.get("MemAvailable").copied().unwrap_or(0));
    if let Ok(fs) = rustix::fs::statvfs(data_dir) {
        s.disk_total = fs.f_blocks * fs.f_frsize;
        s.disk_used = s.disk_total.saturating_sub(fs.f_bavail * fs.f_frsize);
    }
    s
}

/// The machine's id: the same for everything that runs on it, so a reader knows whether the files are at hand.
fn machine_id() -> String {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .iter()
        .map(|path| read(path).trim().to_owned())
        .find(|id| !id.is_empty())
        .unwrap_or_else(|| read("/proc/sys/kernel/random/boot_id").trim().to_owned())
}

fn os_image() -> String {
    read("/etc/os-release")
        .lines()
        .find_map(|l| Some(l.strip_prefix("PRETTY_NAME=")?.trim_matches('"').to_owned()))
        .unwrap_or_else(|| "Linux".into())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
