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

/// Shares of the capacity, as last reported; `None` of what is not, or not yet, measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Shares {
    cpu: Option<f64>,
    memory: Option<f64>,
    disk: Option<f64>,
}

/// Turns samples into reports that change seldom.
#[derive(Debug, Default)]
pub(crate) struct UsageMeter {
    last: Option<Sample>,
    cpu: Option<f64>,
    reported: Shares,
}

impl UsageMeter {
    /// Takes a sample. Returns the usage to report. What cannot be told is left out: of the cpu, everything before the
    /// second sample.
    pub(crate) fn take(&mut self, cpus: usize, sample: &Sample) -> ResourceList {
        if let Some(last) = &self.last {
            let total = sample.cpu_total.saturating_sub(last.cpu_total);
            let busy = sample.cpu_busy.saturating_sub(last.cpu_busy);
            if let Some(now) = share(busy, total) {
                self.cpu = Some(
                    self.cpu
                        .map_or(now, |cpu| cpu + (now - cpu) * CPU_SMOOTHING),
                );
            }
        }
        self.last = Some(*sample);
        let old = self.reported;
        self.reported = Shares {
            cpu: follow(old.cpu, self.cpu),
            memory: follow(old.memory, share(sample.memory_used, sample.memory_total)),
            disk: follow(old.disk, share(sample.disk_used, sample.disk_total)),
        };
        let millis = |cpu: f64| quantity(&format!("{}m", (cpu * cpus as f64 * 1000.0).round()));
        let part = |share: f64, of: u64| bytes((share * of as f64) as u64);
        let Shares { cpu, memory, disk } = self.reported;
        let measured = [
            ("cpu", cpu.map(millis)),
            ("memory", memory.map(|m| part(m, sample.memory_total))),
            (
                "ephemeral-storage",
                disk.map(|d| part(d, sample.disk_total)),
            ),
        ];
        let known = measured.into_iter();
        known
            .filter_map(|(name, amount)| Some((name.to_owned(), amount?)))
            .collect()
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn step(share: f64) -> f64 {
    (share / USAGE_STEP).round() * USAGE_STEP
}

/// Stays at what was reported until the present share is more than one step away.
fn follow(reported: Option<f64>, now: Option<f64>) -> Option<f64> {
    let now = now?;
    Some(match reported {
        Some(reported) if (now - reported).abs() <= USAGE_STEP => reported,
        _ => step(now),
    })
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
        session: None,
        images: config.images.clone(),
        endpoint,
        data_dir: Some(config.data_dir.to_string_lossy().into_owned()),
        discarded: BTreeMap::new(),
    }
}

fn conditions(sample: &Sample, now: Timestamp) -> Vec<NodeCondition> {
    let disk_pressure =
        share(sample.disk_used, sample.disk_total).is_some_and(|used| used > 1.0 - DISK_PRESSURE);
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

/// Takes over from the older report what still holds: what of the usage this agent has not measured yet and the one before
/// it has, under the same session; and the times of what has not changed, of conditions and of the usage. Two reports that
/// say the same are equal then.
pub(crate) fn keep(old: &NodeStatusRecord, new: &mut NodeStatusRecord) {
    if old.session == new.session
        && let (Some(cpu), false) = (old.usage.get("cpu"), new.usage.contains_key("cpu"))
    {
        new.usage.insert("cpu".into(), *cpu);
    }
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
    use setpoint_apis::core::NodeImage;

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
        keep(&old, &mut same);
        assert_eq!(same, old, "an idle node writes nothing");
        let mut more = report("800m", 70);
        keep(&old, &mut more);
        assert_eq!(more.usage_at, at(70));
        let undated = NodeStatusRecord {
            usage_at: None,
            ..report("400m", 0)
        };
        let mut dated = report("400m", 70);
        keep(&undated, &mut dated);
        assert_eq!(
            dated.usage_at,
            at(70),
            "reports of older agents have no time"
        );
    }

    #[test]
    fn what_is_not_measured_is_left_out_instead_of_being_called_nothing() {
        let mut meter = UsageMeter::default();
        let first = meter.take(2, &mk_sample(0, 0, 42));
        assert!(
            !first.contains_key("cpu"),
            "one sample is no rate: {first:?}"
        );
        let blind = Sample::default();
        let mut meter = UsageMeter::default();
        meter.take(2, &blind);
        assert!(meter.take(2, &blind).is_empty());
    }

    #[test]
    fn a_new_session_says_everything_again_and_a_new_agent_of_the_same_keeps_what_was_measured() {
        let report = |session, usage: &[(&str, &str)]| NodeStatusRecord {
            usage: usage
                .iter()
                .map(|(name, amount)| ((*name).to_owned(), quantity(amount)))
                .collect(),
            session: Some(session),
            ..NodeStatusRecord::default()
        };
        let old = report(7, &[("cpu", "800m"), ("memory", "1Gi")]);
        let mut restarted = report(7, &[("memory", "1Gi")]);
        keep(&old, &mut restarted);
        assert_eq!(restarted, old, "nothing to write");
        let mut anew = report(8, &[("memory", "1Gi")]);
        keep(&old, &mut anew);
        assert_ne!(anew, old);
        assert!(!anew.usage.contains_key("cpu"), "of a former session");
    }

    #[test]
    fn this_machine_describes_itself() {
        let config = AgentConfig {
            reserved: ResourceList::from([("cpu".into(), quantity("100m"))]),
            images: vec![NodeImage {
                names: vec!["registry.example/app:1".into()],
                size_bytes: 1 << 20,
            }],
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
        assert_eq!(status.images, config.images);
    }
}
