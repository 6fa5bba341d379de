//! Agents: adoption after a kill, one agent per name, nothing escapes.

use rustix::process::{Pid, Signal, kill_process};
use setpoint_e2e::Cluster;

const PATIENT: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: patient}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: host\n    \
                       command: [sh, -c, 'echo begun; while [ ! -e \"$GO\" ]; do sleep 0.1; done; exit 7']\n    env: [{name: GO, value: GOFILE}]\n";

#[test]
fn a_container_survives_its_agent_and_the_next_one_learns_its_exit_code() {
    let cluster = Cluster::start(1, 106);
    let go = cluster.dir().join("go");
    cluster.apply(&PATIENT.replace("GOFILE", &go.to_string_lossy()));
    let pod = cluster.pod_in_phase("patient", "Running");
    let agent = cluster.agents()[0].clone();
    cluster.kill_agent(&agent);

    // The next agent: the same name and directory.
    let mut next = cluster
        .command()
        .args([
            "agent",
            "--node-name",
            "n1",
            "--listen",
            "127.0.0.1:0",
            "--pod-cidr",
            "127.106.1.0/24",
            "--lease-ttl",
            "20s",
            "--stop-pods-on-exit",
        ])
        .arg("--data-dir")
        .arg(&agent.data_dir)
        .spawn()
        .unwrap();
    std::fs::write(&go, "").unwrap();
    let ended = cluster.pod_in_phase("patient", "Failed");
    let status = &ended["status"]["containerStatuses"][0];
    assert_eq!(status["state"]["terminated"]["exitCode"], 7, "{status}");
    assert_eq!(status["restartCount"], 0);
    assert_eq!(
        ended["status"]["startTime"], pod["status"]["startTime"],
        "the same placement"
    );
    assert_eq!(cluster.setpoint(["logs", "patient"]).ok().trim(), "begun");
    kill_process(Pid::from_child(&next), Signal::TERM).unwrap();
    assert!(next.wait().unwrap().success());
}

#[test]
fn a_deleted_node_is_registered_anew_when_its_agent_is_restarted_within_its_session() {
    let cluster = Cluster::start(1, 109);
    let agent = cluster.agents()[0].clone();
    let session = || {
        let alive = ["get", "/setpoint/actual/nodes/n1/alive", "-w", "json"];
        let answer: serde_json::Value = serde_json::from_str(&cluster.etcdctl(&alive)).unwrap();
        answer["kvs"][0]["create_revision"].as_i64()
    };
    let before = session();
    assert!(before.is_some());
    let document = "/setpoint/desired/nodes/n1";
    cluster.etcdctl(&["del", document]);
    let health = || cluster.etcdctl(&["get", "--print-value-only", "/setpoint/actual/health/n1"]);
    cluster.eventually("the deletion is noted", || match health() {
        text if text.contains("state: Removed") => Ok(()),
        text => Err(text),
    });
    cluster.kill_agent(&agent);
    let mut next = cluster
        .command()
        .args(["agent", "--node-name", "n1", "--listen", "127.0.0.1:0"])
        .args(["--lease-ttl", "20s", "--stop-pods-on-exit", "--data-dir"])
        .arg(&agent.data_dir)
        .spawn()
        .unwrap();
    cluster.eventually("the node is registered anew", || match health() {
        text if text.contains("state: Ready") => Ok(()),
        text => Err(text),
    });
    let registered = cluster.etcdctl(&["get", "--print-value-only", document]);
    assert!(registered.contains("name: n1"), "{registered}");
    assert_eq!(session(), before, "the session went on");
    kill_process(Pid::from_child(&next), Signal::TERM).unwrap();
    assert!(next.wait().unwrap().success());
}

#[test]
fn a_second_agent_of_the_same_name_is_refused_and_told_who_holds_it() {
    let cluster = Cluster::start(1, 107);
    let refused = cluster
        .setpoint([
            "agent",
            "--node-name",
            "n1",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            &cluster.dir().join("other").to_string_lossy(),
        ])
        .refused();
    assert!(
        refused.contains("node n1 is held by another agent"),
        "{refused}"
    );
    assert!(
        refused.contains(&format!("process {}", cluster.agents()[0].pid)),
        "{refused}"
    );
    cluster.eventually("the first one is not disturbed", || {
        let node = cluster.setpoint(["get", "node", "n1"]).stdout;
        if node.contains("Ready") && !node.contains("NotReady") {
            Ok(())
        } else {
            Err(node)
        }
    });
}

#[test]
fn a_stopped_pod_leaves_no_process_behind_not_even_one_that_hid() {
    let cluster = Cluster::start(1, 108);
    let marker = format!("8{:06}", cluster.dev_pid() % 1_000_000);
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: hider}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: host\n    \
         command: [sh, -c, 'setsid sh -c \"setsid sleep {marker} & exit 0\"; trap \"\" TERM; while :; do sleep {marker}; done']\n"
    ));
    cluster.pod_in_phase("hider", "Running");
    let sleeping = || {
        let listing = std::process::Command::new("pgrep")
            .args(["-fc", &format!("^sleep {marker}$")])
            .output()
            .unwrap();
        String::from_utf8_lossy(&listing.stdout)
            .trim()
            .parse::<u32>()
            .unwrap_or(0)
    };
    cluster.eventually("both sleep", || {
        if sleeping() == 2 {
            Ok(())
        } else {
            Err(sleeping().to_string())
        }
    });
    cluster.setpoint(["delete", "pod", "hider", "--wait"]).ok();
    assert_eq!(sleeping(), 0);
}
