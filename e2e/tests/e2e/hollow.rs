//! Many nodes in one process, and the benchmark of the scheduler.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use setpoint_e2e::Cluster;

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ready_nodes(cluster: &Cluster) -> usize {
    let nodes = cluster.get(&["nodes"]);
    let is_ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
    };
    let items = nodes["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .filter(|n| {
            let name = n["metadata"]["name"].as_str();
            name.is_some_and(|name| name.starts_with("h-")) && is_ready(n)
        })
        .count()
}

#[test]
fn fifty_hollow_nodes_register_run_pods_and_end_with_their_process() {
    let cluster = Cluster::start(1, 121);
    let child = cluster
        .command()
        .args(["agent", "--driver", "hollow", "--count", "50"])
        .args(["--node-name", "h", "--zones", "5", "--lease-ttl", "10s"])
        .args(["--start-latency", "10ms-50ms", "--capacity", "pods=4"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the agent starts");
    let mut fleet = Running(child);
    cluster.eventually("50 hollow nodes are Ready", || {
        match ready_nodes(&cluster) {
            50 => Ok(()),
            n => Err(format!("{n} are")),
        }
    });

    // A zone has ten of the nodes, with room for 40 pods; images are no matter for them.
    let deployment = |name: &str, replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
             template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      nodeSelector: {{topology.kubernetes.io/zone: zone-3}}\n      containers:\n      \
             - name: main\n        image: registry.example.com/web:1\n"
        )
    };
    cluster.apply(&deployment("web", 40));
    for pod in cluster.ready_pods("app=web", 40) {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let number = node.strip_prefix("h-").and_then(|n| n.parse::<u32>().ok());
        assert!(number.is_some_and(|n| n % 5 == 3), "{node}");
    }
    cluster.apply(&deployment("web", 7));
    cluster.ready_pods("app=web", 7);

    let pid = i32::try_from(fleet.0.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("it runs"), Signal::TERM).expect("it can be told to end");
    let status = cluster.eventually("the hollow agent ends", || match fleet.0.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    });
    assert!(status.success(), "{status}");
    cluster.eventually("no hollow node is Ready", || match ready_nodes(&cluster) {
        0 => Ok(()),
        n => Err(format!("{n} are")),
    });
}

#[test]
fn flags_that_mean_nothing_for_a_driver_are_refused() {
    let setpoint = |args: &[&str]| {
        let mut command = std::process::Command::new(setpoint_e2e::setpoint_binary());
        command.arg("agent").args(args);
        setpoint_e2e::run(&mut command, "").refused()
    };
    let hollow = |flag: &str, value: &str| setpoint(&["--driver", "hollow", flag, value]);
    for (flag, value) in [
        ("--data-dir", "d"),
        ("--listen", "127.0.0.1:0"),
        ("--pod-cidr", "127.9.0.0/24"),
    ] {
        let said = hollow(flag, value);
        assert!(
            said.contains(&format!("{flag} has no meaning with --driver hollow")),
            "{said}"
        );
    }
    let said = setpoint(&["--count", "3"]);
    assert!(said.contains("--driver hollow"), "{said}");
}

/// The report of a benchmark with few nodes and pods.
fn bench(args: &[&str]) -> Value {
    let mut command = std::process::Command::new(setpoint_e2e::setpoint_binary());
    command
        .args(["bench", "schedule", "--nodes", "20", "-o", "json"])
        .args(args);
    let report = setpoint_e2e::run(&mut command, "").ok();
    serde_json::from_str(&report).expect("one JSON object")
}

#[test]
fn the_scheduler_is_measured_against_what_etcd_does() {
    for mode in ["preloaded", "streaming"] {
        let report = bench(&["--pods", "400", "--mode", mode]);
        assert_eq!(
            (&report["case"], &report["mode"]),
            (&"basic".into(), &mode.into())
        );
        assert_eq!(
            (&report["nodes"], &report["pods"]),
            (&20.into(), &400.into())
        );
        for field in [
            "pods_per_second",
            "middle80_pods_per_second",
            "p50_ms",
            "p99_ms",
            "scheduler_rss_bytes",
            "etcd_rss_bytes",
            "scheduler_cpu_seconds",
            "etcd_cpu_seconds",
            "raw_binds_per_second",
            "ratio_to_raw",
        ] {
            let value = report[field].as_f64();
            assert!(value.is_some_and(|v| v >= 0.0), "{field}: {report}");
        }
        let number = |field: &str| report[field].as_f64().unwrap_or_default();
        assert!(number("raw_binds_per_second") > 100.0, "{report}");
        assert!(number("p50_ms") <= number("p99_ms"), "{report}");
        assert!(number("scheduler_rss_bytes") > 1e6, "{report}");
    }
}

#[test]
fn more_pods_than_nodes_can_take_are_refused_at_once() {
    let mut command = std::process::Command::new(setpoint_e2e::setpoint_binary());
    command.args(["bench", "schedule", "--nodes", "1", "--pods", "101"]);
    let said = setpoint_e2e::run(&mut command, "").refused();
    assert!(said.contains("too many for 1 nodes"), "{said}");
}

#[test]
fn a_single_pod_is_timed_on_an_idle_cluster() {
    let report = bench(&["--case", "idle", "--pods", "20"]);
    // Some milliseconds; a second would mean that something waits for a timer. The slowest of twenty is as slow as the machine
    // was busy at that moment.
    for (field, limit) in [("idle_p50_ms", 1000.0), ("idle_p99_ms", 60_000.0)] {
        let value = report[field].as_f64();
        assert!(value.is_some_and(|v| v < limit), "{field}: {report}");
    }
}
