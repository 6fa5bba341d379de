//! Parts of the control plane that die and come back.

use rustix::process::{Pid, Signal, kill_process};
use setpoint_e2e::Cluster;

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{{name: main, image: host, command: [sleep, '86400']}}]\n"
    )
}

#[test]
fn a_second_set_of_controllers_takes_over_from_a_killed_one() {
    let cluster = Cluster::start(1, 112);
    let mut standby = cluster
        .command()
        .args(["controllers"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    cluster.apply(&pod("before"));
    cluster.pod_in_phase("before", "Running");
    // `setpoint dev` gives up when its controllers end, so the ones to be killed are the others: whoever leads, one of
    // the two sets goes on.
    kill_process(Pid::from_child(&standby), Signal::KILL).unwrap();
    standby.wait().unwrap();
    cluster.apply(&pod("after"));
    cluster.pod_in_phase("after", "Running");
}

#[test]
fn pods_outlive_a_frozen_etcd_and_work_goes_on_when_it_thaws() {
    let cluster = Cluster::start(1, 113);
    cluster.apply(&pod("patient"));
    let before = cluster.pod_in_phase("patient", "Running");
    let etcd = Pid::from_raw(cluster.etcd_pid()).unwrap();
    kill_process(etcd, Signal::STOP).unwrap();
    let failed = cluster.setpoint(["get", "pods", "--request-timeout=2s"]);
    kill_process(etcd, Signal::CONT).unwrap();
    assert_eq!(failed.code, 1, "{failed:?}");
    cluster.apply(&pod("next"));
    cluster.pod_in_phase("next", "Running");
    let after = cluster.pod_in_phase("patient", "Running");
    let id = |p: &serde_json::Value| p["status"]["containerStatuses"][0]["containerID"].to_string();
    assert_eq!(id(&before), id(&after), "it was not restarted");
}

#[test]
fn an_etcd_whose_port_is_taken_in_the_moment_of_its_start_is_started_with_another() {
    let cluster = Cluster::start_where_a_port_is_taken(1, 147);
    assert!(cluster.log("etcd").contains("address already in use"));
    assert!(!cluster.has_devstore());
}
