//! Logs: from the agent's files on the same machine, and over its endpoint from elsewhere.

use setpoint_agent::layout::DataDir;
use setpoint_agent::server::Server;
use setpoint_apis::{Key, ObjectKey};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, Running, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// A node whose agent has run the pod `p`: its log holds two lines, and the run before one.
async fn node_with_logs(f: &Fixture, machine_id: &str, endpoint: &str) {
    let data = f.dir.path().join("data");
    let place = DataDir::new(&data).pod("u-1", 1);
    for (attempt, lines) in [(0, "before"), (1, "one\ntwo")] {
        let path = place.log("c", attempt);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text: String = lines
            .lines()
            .map(|l| format!("2026-01-01T00:00:00.000000000Z stdout F {l}\n"))
            .collect();
        std::fs::write(path, text).unwrap();
    }
    let status = format!(
        "capacity: {{}}\nallocatable: {{}}\nendpoint: {endpoint}\ndataDir: {}\nnodeInfo: {{machineID: '{machine_id}'}}\n",
        data.display()
    );
    f.put(&Key::NodeStatus("n1"), &status).await;
    f.put(
        &Key::Binding(key("p")),
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n",
    )
    .await;
    f.put(
        &Key::NodePod("n1", key("p")),
        "placement: 1\nuid: u-1\nstage: Running\n",
    )
    .await;
}

async fn shown(f: &Fixture) {
    assert_eq!(f.run(&["logs", "p"]).ok(), "one\ntwo\n");
    assert_eq!(f.run(&["logs", "p", "--tail=1"]).ok(), "two\n");
    assert_eq!(
        f.run(&["logs", "pod/p", "c", "--previous"]).ok(),
        "before\n"
    );
    assert_eq!(
        f.run(&["logs", "p", "--tail=1", "--timestamps"]).ok(),
        "2026-01-01T00:00:00.000000000Z two\n"
    );
    assert_eq!(
        f.run(&[
            "logs",
            "-l",
            "app=p",
            "--since-time",
            "2026-01-02T00:00:00Z"
        ])
        .ok(),
        ""
    );
    assert_eq!(
        f.run(&["logs", "-l", "app=p", "--show-names"]).ok(),
        "[pod/p/c] one\n[pod/p/c] two\n"
    );
    let place = DataDir::new(f.dir.path().join("data")).pod("u-1", 1);
    std::fs::create_dir_all(place.attempt("c", 1)).unwrap();
    let mut running = Running::start(f.command(&["logs", "-f", "p"]));
    running
        .until("what there is", |out| out == "one\ntwo\n")
        .await;
    let more = std::fs::read_to_string(place.log("c", 1)).unwrap()
        + "2026-01-01T00:00:01.000000000Z stdout F three\n";
    std::fs::write(place.log("c", 1), more).unwrap();
    running
        .until("what comes", |out| out == "one\ntwo\nthree\n")
        .await;
    let exit = place.attempt("c", 1).join(setpoint_agent::spec::EXIT_FILE);
    std::fs::write(exit, "{}").unwrap();
    assert_eq!(running.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_from_the_agents_files_on_the_same_machine() {
    let Ok(machine_id) = std::fs::read_to_string("/etc/machine-id") else {
        return; // A machine without an id takes the other way.
    };
    let f = Fixture::new("logs-local").await;
    f.apply(&pod("p"));
    // Nobody listens there: only the files can answer.
    node_with_logs(&f, machine_id.trim(), "http://127.0.0.1:1").await;
    shown(&f).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_over_the_agents_endpoint_from_another_machine() {
    let f = Fixture::new("logs-http").await;
    f.apply(&pod("p"));
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), &f.dir.path().join("data"))
        .await
        .unwrap();
    let endpoint = server.endpoint();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone()));
    node_with_logs(&f, "another", &endpoint).await;
    shown(&f).await;
    let err = f.run(&["logs", "p", "--previous", "-c", "x"]).fails();
    assert!(err.contains("it has c"), "{err}");
    stop.cancel();
    serving.await.unwrap();
    node_with_logs(&f, "another", "http://127.0.0.1:1").await;
    let err = f.run(&["logs", "p"]).fails();
    assert!(
        err.contains("asking the agent at http://127.0.0.1:1"),
        "{err}"
    );
}
