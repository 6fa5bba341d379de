//! Documents that somebody has overwritten with what does not parse: shown with what is still known, and told with a way
//! out.

use setpoint_apis::{Key, ObjectKey};

use crate::fixture::{Fixture, deployment, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

const GARBAGE: &str = "@@@";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_document_was_overwritten_is_known_by_the_copy_of_its_node() {
    let f = Fixture::new("broken-pod").await;
    f.apply(&format!("{}---\n{}", pod("a"), pod("b")));
    let binding =
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n";
    f.put(&Key::Binding(key("a")), binding).await;
    f.put(
        &Key::NodePod("n1", key("a")),
        "placement: 1\nuid: u-a\nstage: Running\nstartTime: 2026-01-01T00:00:00Z\n\
         conditions:\n- {type: Ready, status: 'True'}\n",
    )
    .await;
    let given = pod("a").replace(
        "  labels:",
        "  ownerReferences:\n  - {apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: r, controller: true}\n  labels:",
    );
    let work = format!("placement: 1\nuid: u-a\nsourceRevision: 1\n---\n{given}");
    f.put(&Key::WorkPod("n1", key("a")), &work).await;
    for name in ["a", "b"] {
        f.put(&Key::Desired("pods", key(name)), GARBAGE).await;
    }

    let out = f.run(&["get", "pods", "-l", "app=a", "--show-labels"]).ok();
    assert!(out.contains("Invalid") && out.contains("app=a"), "{out}");
    let path = "jsonpath={.spec.containers[0].command[0]} {.spec.nodeName} {.metadata.uid} {.metadata.generation} \
                {.status.phase} {.invalid.document}";
    let shown = f.run(&["get", "pod", "a", "-o", path]).ok();
    assert_eq!(shown, "sleep n1 u-a 2 Running @@@");
    let out = f.run(&["describe", "pod", "a"]).ok();
    assert!(
        out.contains("app=a") && out.contains("ReplicaSet/web") && out.contains("Invalid:"),
        "{out}"
    );
    f.run(&[
        "wait",
        "--for=condition=Ready",
        "pod",
        "-l",
        "app=a",
        "--timeout=30s",
    ])
    .ok();
    // Of this one nothing else is known.
    let out = f.run(&["get", "pod", "b", "-o", "yaml"]).ok();
    assert!(!out.contains("labels") && out.contains("@@@"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_with_a_broken_replica_set_says_so() {
    let f = Fixture::new("broken-set").await;
    f.apply(&format!(
        "{}---\n{}",
        deployment("web", 2),
        deployment("web-b", 2)
    ));
    let status = "observedGeneration: 1\nreplicas: 2\nupdatedReplicas: 2\nreadyReplicas: 2\navailableReplicas: 2\n";
    let invalid = "conditions:\n- {type: Invalid, status: 'True', reason: ReplicaSetInvalid, message: 'ReplicaSet web-1: no'}\n";
    f.put(
        &Key::Actual("deployments", key("web")),
        &format!("{status}{invalid}"),
    )
    .await;
    for name in ["web-1", "web-b-1"] {
        f.put(&Key::Desired("replicasets", key(name)), GARBAGE)
            .await;
    }
    f.put(&Key::Actual("replicasets", key("web-1")), "replicas: 2\n")
        .await;
    let err = f
        .run(&["rollout", "status", "deploy/web", "--timeout=30s"])
        .fails();
    assert!(
        err.contains("ReplicaSet web-1: no") && !err.contains("timed out"),
        "{err}"
    );
    let out = f.run(&["describe", "deploy", "web"]).ok();
    assert!(
        out.contains("web-1 (Invalid, 2 replicas)") && !out.contains("web-b-1"),
        "{out}"
    );

    f.put(&Key::Desired("deployments", key("web")), GARBAGE)
        .await;
    let err = f.run(&["rollout", "status", "deploy/web"]).fails();
    assert!(err.contains("deployment.apps/web is invalid"), "{err}");
    let row = f.run(&["get", "deploy", "web", "--no-headers"]).ok();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..4], ["web", "Invalid", "2", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn changing_a_broken_document_names_the_object_and_a_way_out() {
    let f = Fixture::new("broken-change").await;
    f.apply(&deployment("web", 2));
    let node = Key::Desired("nodes", ObjectKey::cluster("n3"));
    f.put(&node, GARBAGE).await;
    let web = Key::Desired("deployments", key("web"));
    f.put(&web, GARBAGE).await;
    for (args, name, key) in [
        (
            &["scale", "deploy", "web", "--replicas=1"][..],
            "deployment.apps/web",
            &web,
        ),
        (
            &["label", "deploy", "web", "a=b"],
            "deployment.apps/web",
            &web,
        ),
        (
            &["rollout", "pause", "deploy/web"],
            "deployment.apps/web",
            &web,
        ),
        (&["cordon", "n3"], "node/n3", &node),
    ] {
        let err = f.run(args).fails();
        let key = f.key(key);
        for word in [name, "apply", "-o yaml", &format!("etcdctl put '{key}'")] {
            assert!(err.contains(word), "{args:?}: no {word:?} in {err}");
        }
    }
    // A change that mends the document is made.
    f.put(
        &web,
        &deployment("web", 2).replace("replicas: 2", "replicas: many"),
    )
    .await;
    f.run(&["scale", "deploy", "web", "--replicas=1"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_can_be_no_objects_is_named_with_its_removal() {
    let f = Fixture::new("broken-key").await;
    let odd = Key::Desired("pods", key(".."));
    f.put(&odd, GARBAGE).await;
    let ran = f.run(&["get", "pods"]);
    let command = format!("etcdctl del '{}'", f.key(&odd));
    assert!(ran.err.contains(&command), "{ran:?}");
    ran.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_controllers_run_is_only_asked_when_none_leads() {
    let f = Fixture::new("broken-led").await;
    f.apply(&pod("a"));
    let describe = || f.run(&["describe", "pod", "a"]).ok();
    assert!(describe().contains("is `setpoint controllers` running?"));
    f.put(&Key::Leader("scheduler", None), "h").await;
    let out = describe();
    assert!(
        out.contains("has not looked at it yet") && !out.contains("running?"),
        "{out}"
    );
    for broken in [Key::Desired("pods", key("a")), Key::Binding(key("a"))] {
        f.put(&broken, GARBAGE).await;
    }
    let out = describe();
    assert!(
        out.contains("put right first") && !out.contains("running?"),
        "{out}"
    );
}
