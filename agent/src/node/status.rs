//! The node's report: what the machine has, who it is, and how much of it is used, so coarsely that an idle node writes
//! nothing.

use std::collections::BTreeMap;

use setpoint_apis::core::{NodeAddress, NodeCondition};
use setpoint_apis::records::NodeStatusRecord;
use setpoint_apis::{Quantity, ResourceList, Timestamp};

use super::config::AgentConfig;
use super::machine::{Machine, Sample};

/// What pods may be at most on a node, as Kubernetes has it.
const MAX_PODS: i64 = 110;
/// Usage is reported in steps of this share of the capacity, and only when it has moved by more than one step.
const USAGE_STEP: f64 = 0.1;
/// How much of a new sample goes into the smoothed usage of the cpu: a burst of seconds is not reported.
const CPU_SMOOTHING: f64 = 0.25;
/// Less free space than this share of the disk is disk pressure (kubelet's `nodefs.available<10%`).
const DISK_PRESSURE: f64 = 0.1;

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
    pub(crate) fn take(&mut self, cpus: usize, sample: &Sample) -> ResourceList {
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
    machine: &Machine,
    endpoint: Option<String>,
    sample: &Sample,
    now: Timestamp,
) -> NodeStatusRecord {
    let mut capacity = ResourceList::from([
        ("cpu".into(), quantity(&machine.cpus.to_string())),
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
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.node.clone()),
        (
            "kubernetes.io/os".to_owned(),
            machine.info.operating_system.clone(),
        ),
        (
            "kubernetes.io/arch".to_owned(),
            machine.info.architecture.clone(),
        ),
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
                address: machine.hostname.clone(),
            },
        ],
        labels,
        taints: config.taints.clone(),
        drivers: vec![machine.driver.to_owned()],
        node_info: machine.info.clone(),
        usage: ResourceList::new(),
        usage_at: None,
        // The process driver runs what the host has.
        images: Vec::new(),
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

/// Keeps the times of what has not changed since the older report: of conditions, and of the measurement of the usage.
/// Two reports that say the same are equal then.
pub(crate) fn keep_times(old: &NodeStatusRecord, new: &mut NodeStatusRecord) {
    if old.usage == new.usage && old.usage_at.is_some() {
        new.usage_at = old.usage_at;
    }
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
        let first = meter.take(2, &mk_sample(0, 0, 42));
        for n in 1..50 {
            let trembling = 38 + n % 9;
            assert_eq!(
                meter.take(2, &mk_sample(n * 5, n * 100, trembling))["memory"],
                first["memory"]
            );
        }
        assert_ne!(
            meter.take(2, &mk_sample(250, 5000, 80))["memory"],
            first["memory"]
        );
    }

    #[test]
    fn a_short_burst_of_the_cpu_is_not_reported_and_a_long_load_is() {
        let mut meter = UsageMeter::default();
        meter.take(2, &mk_sample(0, 0, 10));
        let idle = meter.take(2, &mk_sample(0, 100, 10))["cpu"];
        assert_eq!(
            meter.take(2, &mk_sample(30, 200, 10))["cpu"],
            idle,
            "30 % once"
        );
        let mut busy = idle;
        for n in 3..20 {
            busy = meter.take(2, &mk_sample(30 + (n - 2) * 90, n * 100, 10))["cpu"];
        }
        assert!(busy.milli_value() > idle.milli_value());
    }

    #[test]
    fn the_time_of_the_usage_is_that_of_its_last_change() {
        let at = |seconds| Some(Timestamp::from_unix_seconds(seconds));
        let report = |cpu: &str, seconds| NodeStatusRecord {
            usage: ResourceList::from([("cpu".into(), quantity(cpu))]),
            usage_at: at(seconds),
            ..NodeStatusRecord::default()
        };
        let old = report("400m", 10);
        let mut same = report("400m", 70);
        keep_times(&old, &mut same);
        assert_eq!(same, old, "an idle node writes nothing");
        let mut more = report("800m", 70);
        keep_times(&old, &mut more);
        assert_eq!(more.usage_at, at(70));
        let undated = NodeStatusRecord {
            usage_at: None,
            ..report("400m", 0)
        };
        let mut dated = report("400m", 70);
        keep_times(&undated, &mut dated);
        assert_eq!(
            dated.usage_at,
            at(70),
            "reports of older agents have no time"
        );
    }

    #[test]
    fn this_machine_describes_itself() {
        let config = AgentConfig {
            reserved: ResourceList::from([("cpu".into(), quantity("100m"))]),
            ..AgentConfig::new("n1", std::env::temp_dir())
        };
        let machine = Machine::this("process");
        let sample = machine.sample(&config.data_dir);
        let status = describe(&config, &machine, None, &sample, Timestamp::default());
        assert!(status.capacity["memory"].value() > 0);
        assert_eq!(
            status.capacity["cpu"].milli_value() - status.allocatable["cpu"].milli_value(),
            100
        );
        assert_eq!(status.labels["kubernetes.io/hostname"], "n1");
        assert!(!machine.info.machine_id.is_empty());
    }
}
