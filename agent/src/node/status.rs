//! The node's report: what the machine has, who it is, and how much of it is used, so coarsely that an idle node writes
//! nothing.

use std::collections::BTreeMap;
use std::path::Path;

use setpoint_apis::core::{NodeAddress, NodeCondition, NodeSystemInfo};
use setpoint_apis::records::NodeStatusRecord;
use setpoint_apis::{Quantity, ResourceList, Timestamp};

use super::config::AgentConfig;

/// What pods may be at most on a node, as Kubernetes has it.
const MAX_PODS: i64 = 110;
/// Usage is reported in steps of this share of the capacity, and only when it has moved by more than one step.
const USAGE_STEP: f64 = 0.1;
/// How much of a new sample goes into the smoothed usage of the cpu: a burst of seconds is not reported.
const CPU_SMOOTHING: f64 = 0.25;
/// Less free space than this share of the disk is disk pressure (kubelet's `nodefs.available<10%`).
const DISK_PRESSURE: f64 = 0.1;

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
pub(crate) fn sample(data_dir: &Path) -> Sample {
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

/// Shares of the capacity, as last reported.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shares {
    cpu: f64,
    memory: f64,
    disk: f64,
}

/// Turns samples into reports that change seldom.
#[derive(Debug, Default)]
pub(crate) struct UsageMeter {
    last: Option<Sample>,
    cpu: Option<f64>,
    reported: Option<Shares>,
}

impl UsageMeter {
    /// Takes a sample. Returns the usage to report.
    pub(crate) fn take(&mut self, sample: &Sample) -> ResourceList {
        if let Some(last) = &self.last {
            let total = sample.cpu_total.saturating_sub(last.cpu_total);
            let busy = sample.cpu_busy.saturating_sub(last.cpu_busy);
            if total > 0 {
                let now = share(busy, total);
                self.cpu = Some(
                    self.cpu
                        .map_or(now, |cpu| cpu + (now - cpu) * CPU_SMOOTHING),
                );
            }
        }
        self.last = Some(*sample);
        let now = Shares {
            cpu: self.cpu.unwrap_or(0.0),
            memory: share(sample.memory_used, sample.memory_total),
            disk: share(sample.disk_used, sample.disk_total),
        };
        let reported = match self.reported {
            None => Shares {
                cpu: step(now.cpu),
                memory: step(now.memory),
                disk: step(now.disk),
            },
            Some(old) => Shares {
                cpu: follow(old.cpu, now.cpu),
                memory: follow(old.memory, now.memory),
                disk: follow(old.disk, now.disk),
            },
        };
        self.reported = Some(reported);
        let cpus = cpu_count();
        ResourceList::from([
            (
                "cpu".into(),
                quantity(&format!(
                    "{}m",
                    (reported.cpu * cpus as f64 * 1000.0).round()
                )),
            ),
            (
                "memory".into(),
                bytes((reported.memory * sample.memory_total as f64) as u64),
            ),
            (
                "ephemeral-storage".into(),
                bytes((reported.disk * sample.disk_total as f64) as u64),
            ),
        ])
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

fn step(share: f64) -> f64 {
    (share / USAGE_STEP).round() * USAGE_STEP
}

/// Stays at what was reported until the present share is more than one step away.
fn follow(reported: f64, now: f64) -> f64 {
    if (now - reported).abs() > USAGE_STEP {
        step(now)
    } else {
        reported
    }
}

/// The report, apart from the usage.
pub(crate) fn describe(
    config: &AgentConfig,
    endpoint: Option<String>,
    sample: &Sample,
    now: Timestamp,
) -> NodeStatusRecord {
    let mut capacity = ResourceList::from([
        ("cpu".into(), quantity(&cpu_count().to_string())),
        ("memory".into(), bytes(sample.memory_total)),
        ("ephemeral-storage".into(), bytes(sample.disk_total)),
        ("pods".into(), quantity(&MAX_PODS.to_string())),
    ]);
    capacity.extend(config.capacity.clone());
    let mut allocatable = capacity.clone();
    for (name, reserved) in &config.reserved {
        if let Some(all) = allocatable.get_mut(name) {
            let left = (all.milli_value() - reserved.milli_value()).max(0);
            *all = if left % 1000 == 0 {
                quantity(&(left / 1000).to_string())
            } else {
                quantity(&format!("{left}m"))
            };
        }
    }
    let uname = rustix::system::uname();
    let text = |t: &std::ffi::CStr| t.to_string_lossy().into_owned();
    let hostname = text(uname.nodename());
    let architecture = match uname.machine().to_bytes() {
        b"x86_64" => "amd64".to_owned(),
        b"aarch64" => "arm64".to_owned(),
        _ => text(uname.machine()),
    };
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.node.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), architecture.clone()),
    ]);
    labels.extend(config.labels.clone());
    NodeStatusRecord {
        capacity,
        allocatable,
        conditions: conditions(sample, now),
        addresses: vec![
            NodeAddress {
                type_: "InternalIP".into(),
                address: config.address.to_string(),
            },
            NodeAddress {
                type_: "Hostname".into(),
                address: hostname,
            },
        ],
        labels,
        taints: config.taints.clone(),
        drivers: vec!["process".into()],
        node_info: NodeSystemInfo {
            machine_id: machine_id(),
            boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            kernel_version: text(uname.release()),
            os_image: os_image(),
            operating_system: "linux".into(),
            architecture,
            kubelet_version: format!("v{}", env!("CARGO_PKG_VERSION")),
            container_runtime_version: format!("process://{}", env!("CARGO_PKG_VERSION")),
            ..NodeSystemInfo::default()
        },
        usage: ResourceList::new(),
        endpoint,
        data_dir: Some(config.data_dir.to_string_lossy().into_owned()),
    }
}

fn conditions(sample: &Sample, now: Timestamp) -> Vec<NodeCondition> {
    let disk_pressure =
        sample.disk_total > 0 && share(sample.disk_used, sample.disk_total) > 1.0 - DISK_PRESSURE;
    let (status, reason, message) = if disk_pressure {
        (
            "True",
            "AgentHasDiskPressure",
            "less than 10 % of the disk is free",
        )
    } else {
        (
            "False",
            "AgentHasNoDiskPressure",
            "more than 10 % of the disk is free",
        )
    };
    vec![NodeCondition {
        type_: "DiskPressure".into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(now),
        ..NodeCondition::default()
    }]
}

/// Whether two reports say the same; the time of a condition's last change is kept from the older one when they do.
pub(crate) fn keep_transition_times(old: &NodeStatusRecord, new: &mut NodeStatusRecord) {
    for condition in &mut new.conditions {
        if let Some(before) = old
            .conditions
            .iter()
            .find(|c| c.type_ == condition.type_ && c.status == condition.status)
        {
            condition.last_transition_time = before.last_transition_time;
        }
    }
}

/// The machine's id: the same for everything that runs on it, so a reader knows whether the files are at hand.
pub fn machine_id() -> String {
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

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_default()
}

/// In whole KiB, as kubelet reports.
fn bytes(bytes: u64) -> Quantity {
    quantity(&format!("{}Ki", bytes / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_sample(busy: u64, total: u64, memory_percent: u64) -> Sample {
        Sample {
            cpu_busy: busy,
            cpu_total: total,
            memory_used: memory_percent << 20,
            memory_total: 100 << 20,
            disk_used: 1,
            disk_total: 100,
        }
    }

    #[test]
    fn usage_that_trembles_is_reported_once() {
        let mut meter = UsageMeter::default();
        let first = meter.take(&mk_sample(0, 0, 42));
        for n in 1..50 {
            let trembling = 38 + n % 9;
            assert_eq!(
                meter.take(&mk_sample(n * 5, n * 100, trembling))["memory"],
                first["memory"]
            );
        }
        assert_ne!(
            meter.take(&mk_sample(250, 5000, 80))["memory"],
            first["memory"]
        );
    }

    #[test]
    fn a_short_burst_of_the_cpu_is_not_reported_and_a_long_load_is() {
        let mut meter = UsageMeter::default();
        meter.take(&mk_sample(0, 0, 10));
        let idle = meter.take(&mk_sample(0, 100, 10))["cpu"];
        assert_eq!(
            meter.take(&mk_sample(30, 200, 10))["cpu"],
            idle,
            "30 % once"
        );
        let mut busy = idle;
        for n in 3..20 {
            busy = meter.take(&mk_sample(30 + (n - 2) * 90, n * 100, 10))["cpu"];
        }
        assert!(busy.milli_value() > idle.milli_value());
    }

    #[test]
    fn this_machine_describes_itself() {
        let config = AgentConfig {
            reserved: ResourceList::from([("cpu".into(), quantity("100m"))]),
            ..AgentConfig::new("n1", std::env::temp_dir())
        };
        let status = describe(
            &config,
            None,
            &sample(&std::env::temp_dir()),
            Timestamp::default(),
        );
        assert!(status.capacity["memory"].value() > 0);
        assert_eq!(
            status.capacity["cpu"].milli_value() - status.allocatable["cpu"].milli_value(),
            100
        );
        assert_eq!(status.labels["kubernetes.io/hostname"], "n1");
        assert!(!machine_id().is_empty());
    }
}
