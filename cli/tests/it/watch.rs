//! Following changes: watches, waits, rollouts; and how they end.

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::{Key, ObjectKey};
use setpoint_store::testing::TestEtcd;

use crate::fixture::{Fixture, Running, config_map, deployment, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_what_changes_and_headers_once() {
    let f = Fixture::new("watch").await;
    f.apply(&pod("a"));
    let running = Running::start(f.command(&["get", "pods", "-w"]));
    running
        .until("the first row", |out| {
            out.contains("a      0/1     Pending")
        })
        .await;
    let binding =
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n";
    f.put(&Key::Binding(key("a")), binding).await;
    let actual = "placement: 1\nuid: u\nstage: Running\nconditions: [{type: Ready, status: 'True'}]\n\
                  containerStatuses: [{name: c, ready: true, restartCount: 0, state: {running: {}}}]\n";
    f.put(&Key::NodePod("n1", key("a")), actual).await;
    running
        .until("the second row", |out| {
            out.contains("a      1/1     Running")
        })
        .await;
    f.apply(&pod("b"));
    let out = running
        .until("another pod", |out| out.contains("b      0/1     Pending"))
        .await;
    assert_eq!(out.matches("NAME").count(), 1, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_after_etcd_has_restarted() {
    let etcd = TestEtcd::start().await;
    let f = Fixture::of(Arc::new(etcd), "watch-restart").await;
    f.run(&["init"]).ok();
    f.apply(&config_map("a", "1"));
    let running = Running::start(f.command(&["get", "cm", "-w", "-o", "name"]));
    running
        .until("the first row", |out| out.contains("configmap/a"))
        .await;
    f.etcd.kill();
    f.etcd.restart().await;
    f.apply(&config_map("b", "1"));
    running
        .until("what came after", |out| out.contains("configmap/b"))
        .await;

    // It is away for longer than a few attempts take.
    f.etcd.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    f.etcd.restart().await;
    f.apply(&config_map("c", "1"));
    running
        .until("what came later", |out| out.contains("configmap/c"))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_watch_with_130() {
    let f = Fixture::new("ctrl-c").await;
    f.apply(&config_map("a", "1"));
    let mut running = Running::start(f.command(&["get", "cm", "-w", "-o", "name"]));
    running
        .until("the first row", |out| out.contains("configmap/a"))
        .await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(running.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(running.ended().await, Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_end_when_the_condition_holds_and_say_when_it_does_not() {
    let f = Fixture::new("wait").await;
    f.apply(&deployment("web", 1));
    let err = f
        .run(&[
            "wait",
            "deploy/web",
            "--for=condition=Available",
            "--timeout=200ms",
        ])
        .fails();
    assert!(
        err.contains("timed out waiting for the condition on deployment.apps/web"),
        "{err}"
    );
    let mut running = Running::start(f.command(&[
        "wait",
        "deploy/web",
        "--for=condition=Available",
        "--timeout=60s",
    ]));
    // A status about an earlier document does not count.
    let status = |observed: i64| {
        format!(
            "observedGeneration: {observed}\nreplicas: 1\nupdatedReplicas: 1\nreadyReplicas: 1\navailableReplicas: 1\n\
             conditions: [{{type: Available, status: 'True'}}]\n"
        )
    };
    f.put(&Key::Actual("deployments", key("web")), &status(0))
        .await;
    f.put(&Key::Actual("deployments", key("web")), &status(1))
        .await;
    running
        .until("the word", |out| {
            out == "deployment.apps/web condition met\n"
        })
        .await;
    assert_eq!(running.ended().await, Some(0));
    let out = f.run(&["rollout", "status", "deploy/web"]).ok();
    assert_eq!(out, "deployment \"web\" successfully rolled out\n");
    f.run(&[
        "wait",
        "deploy",
        "--all",
        "--for=jsonpath={.status.replicas}=1",
    ])
    .ok();
    f.run(&["wait", "pod/none", "--for=delete"]).ok();
    let err = f
        .run(&["wait", "pod/none", "--for=condition=Ready"])
        .fails();
    assert!(err.contains("pods \"none\" not found"), "{err}");
    let err = f.run(&["wait", "deploy/web", "--for=ready"]).fails();
    assert!(err.contains("condition=NAME"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_followed_line_by_line() {
    let f = Fixture::new("rollout").await;
    f.apply(&deployment("web", 2));
    let mut running = Running::start(f.command(&["rollout", "status", "deploy/web"]));
    running
        .until("the first line", |out| {
            out.contains("spec update to be observed")
        })
        .await;
    let status = |available: i64| {
        format!(
            "observedGeneration: 1\nreplicas: 2\nupdatedReplicas: 2\navailableReplicas: {available}\n"
        )
    };
    f.put(&Key::Actual("deployments", key("web")), &status(1))
        .await;
    running
        .until("progress", |out| {
            out.contains("1 of 2 updated replicas are available")
        })
        .await;
    f.put(&Key::Actual("deployments", key("web")), &status(2))
        .await;
    running
        .until("the end", |out| out.contains("successfully rolled out"))
        .await;
    assert_eq!(running.ended().await, Some(0));
    let err = f.run(&["rollout", "status", "deploy/none"]).fails();
    assert!(err.contains("deployments.apps \"none\" not found"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_former_object_of_the_name_is_not_believed() {
    let f = Fixture::new("former").await;
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  template:\n    \
               spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n";
    let manifest = format!("{}---\n{job}", deployment("web", 1));
    f.apply(&manifest);
    let uid = |what: &str| {
        let out = f.run(&["get", what, "-o", "jsonpath={.metadata.uid}"]).ok();
        out.trim().to_owned()
    };
    let statuses = async |web: &str, j: &str| {
        let of_web = format!(
            "observedGeneration: 1\nreplicas: 1\nupdatedReplicas: 1\nreadyReplicas: 1\navailableReplicas: 1\n\
             conditions: [{{type: Available, status: 'True'}}]\nfixed: {{of: '{web}'}}\n"
        );
        let of_job = format!(
            "succeeded: 1\nconditions: [{{type: Complete, status: 'True'}}]\ncounted: {{of: '{j}', pods: '0'}}\n"
        );
        f.put(&Key::Actual("deployments", key("web")), &of_web)
            .await;
        f.put(&Key::Actual("jobs", key("j")), &of_job).await;
    };
    let status = ["rollout", "status", "deploy/web", "--watch=false"];
    let done = "deployment \"web\" successfully rolled out\n";
    let waits = [
        ["wait", "--for=condition=Available", "deploy/web"],
        ["wait", "--for=condition=Complete", "job/j"],
    ];
    statuses(&uid("deploy/web"), &uid("job/j")).await;
    assert_eq!(f.run(&status).ok(), done);
    for wait in waits {
        f.run(&wait).ok();
    }
    // Nobody has removed or mended the statuses since.
    f.run_with_input(&["delete", "-f", "-"], &manifest).ok();
    f.apply(&manifest);
    let out = f.run(&status).ok();
    assert!(out.contains("spec update to be observed"), "{out}");
    let out = f.run(&["get", "deploy,jobs", "--no-headers"]).ok();
    assert!(out.contains("0/1") && !out.contains("1/1"), "{out}");
    for wait in waits {
        let err = f.run(&[&wait[..], &["--timeout=100ms"]].concat()).fails();
        assert!(err.contains("timed out"), "{err}");
    }
    statuses(&uid("deploy/web"), &uid("job/j")).await;
    assert_eq!(f.run(&status).ok(), done);
    for wait in waits {
        f.run(&wait).ok();
    }
    // What cannot be read says no uid; it is frozen, and still there.
    let broken = "metadata: {uid: x}\nspec: {replicas: many}\n";
    f.put(&Key::Desired("deployments", key("web")), broken)
        .await;
    let out = f
        .run(&[
            "get",
            "deploy/web",
            "-o",
            "jsonpath={.status.readyReplicas}",
        ])
        .ok();
    assert_eq!(out.trim(), "1");
}
