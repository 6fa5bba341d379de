//! What commands have set outlives `apply`, and what a manifest says holds.

use setpoint_apis::{Key, ObjectKey};

use crate::fixture::{Fixture, deployment};

const NOTE: &str = "setpoint.dev/set-by-command";

#[tokio::test(flavor = "multi_thread")]
async fn what_commands_have_set_outlives_an_apply_that_says_nothing_of_it() {
    let f = Fixture::new("kept").await;
    let manifest = deployment("web", 3).replace("  replicas: 3 # so many\n", "");
    f.apply(&manifest);
    f.run(&["scale", "deploy/web", "--replicas=6"]).ok();
    f.run(&["rollout", "restart", "deploy/web"]).ok();
    f.run(&["rollout", "pause", "deploy/web"]).ok();
    f.run(&["label", "deploy/web", "example.com/team=a"]).ok();
    f.run(&["annotate", "deploy/web", "note=b"]).ok();
    let live = f.desired("deployments", "web").await.unwrap();
    for path in [
        "/spec/replicas",
        "/spec/paused",
        "/metadata/labels/example.com~1team",
        "/metadata/annotations/note",
        "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt",
    ] {
        assert!(live.contains(path), "{path} in {live}");
    }
    assert_eq!(f.apply(&manifest), "deployment.apps/web unchanged\n");
    let dry = |how: &str| f.run_with_input(&["apply", "-f", "-", how], &manifest).ok();
    assert!(dry("--dry-run=client").contains("unchanged"));
    assert!(dry("--dry-run=server").contains("unchanged"));
    // As `get` prints it, it can be applied too.
    let printed = f.run(&["get", "deploy/web", "-o", "yaml"]).ok();
    assert_eq!(f.apply(&printed), "deployment.apps/web unchanged\n");
    assert_eq!(f.desired("deployments", "web").await.unwrap(), live);

    let other = manifest.replace("image: host", "image: other");
    assert_eq!(f.apply(&other), "deployment.apps/web configured\n");
    let live = f.desired("deployments", "web").await.unwrap();
    for word in [
        "# Kept.",
        "image: other",
        "replicas: 6",
        "paused: true",
        "restartedAt",
        "note: b",
    ] {
        assert!(live.contains(word), "{word} in {live}");
    }
    let out = f.run(&["rollout", "resume", "deploy/web"]).ok();
    assert!(out.contains("web resumed"), "{out}");
    f.run(&["label", "deploy/web", "example.com/team-"]).ok();
    f.apply(&other);
    let live = f.desired("deployments", "web").await.unwrap();
    assert!(!live.contains("paused") && !live.contains("team"), "{live}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manifest_says_or_no_longer_says_holds() {
    let f = Fixture::new("kept-said").await;
    let silent = deployment("web", 3).replace("  replicas: 3 # so many\n", "");
    f.apply(&silent);
    f.run(&["scale", "deploy/web", "--replicas=6"]).ok();
    let said = deployment("web", 3);
    f.apply(&said);
    assert_eq!(f.desired("deployments", "web").await.unwrap(), said);
    f.apply(&silent);
    assert_eq!(f.desired("deployments", "web").await.unwrap(), silent);
    // Whoever writes the whole document writes it as it is.
    f.run(&["scale", "deploy/web", "--replicas=6"]).ok();
    f.run(&["delete", "deploy/web", "--wait=false"]).ok();
    f.run_with_input(&["create", "-f", "-"], &silent).ok();
    assert!(
        !f.desired("deployments", "web")
            .await
            .unwrap()
            .contains(NOTE)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_sets_are_scaled_and_manifests_name_what_is_scaled() {
    let f = Fixture::new("kept-scale").await;
    let set = deployment("db", 3)
        .replace("kind: Deployment", "kind: StatefulSet")
        .replace("spec:\n  replicas", "spec:\n  serviceName: db\n  replicas");
    let path = f.file("set.yaml", &set);
    f.apply(&set);
    let out = f.run(&["scale", "statefulset/db", "--replicas=2"]).ok();
    assert_eq!(out, "statefulset.apps/db scaled\n");
    let text = f.desired("statefulsets", "db").await.unwrap();
    assert!(text.contains("replicas: 2 # so many"), "{text}");
    f.run(&["scale", "-f", path.to_str().unwrap(), "--replicas=4"])
        .ok();
    let text = f.desired("statefulsets", "db").await.unwrap();
    assert!(text.contains("replicas: 4 # so many"), "{text}");
    let err = f.run(&["scale", "cm/a", "--replicas=2"]).fails();
    assert!(err.contains("configmaps cannot be scaled"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_node_stays_cordoned() {
    let f = Fixture::new("kept-node").await;
    let node = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n";
    f.apply(node);
    f.run(&["cordon", "n1"]).ok();
    assert_eq!(f.apply(node), "node/n1 unchanged\n");
    f.run(&["uncordon", "n1"]).ok();
    let key = setpoint_apis::Key::Desired("nodes", ObjectKey::cluster("n1"));
    let text = f.get(&key).await.unwrap();
    assert_eq!(text.value, node.as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn rollout_takes_all_of_a_namespace_or_those_with_labels() {
    let f = Fixture::new("kept-all").await;
    f.apply(&format!(
        "{}---\n{}",
        deployment("a", 1),
        deployment("b", 1)
    ));
    f.run(&["label", "deploy/b", "team=x"]).ok();
    let out = f.run(&["rollout", "restart", "deploy"]).ok();
    assert_eq!(
        out,
        "deployment.apps/a restarted\ndeployment.apps/b restarted\n"
    );
    let out = f.run(&["rollout", "pause", "deploy", "-l", "team=x"]).ok();
    assert_eq!(out, "deployment.apps/b paused\n");
    let err = f
        .run(&["rollout", "pause", "deploy", "-l", "team=y"])
        .fails();
    assert!(err.contains("No resources found"), "{err}");
    let err = f
        .run(&["rollout", "pause", "deploy/a", "-l", "team=x"])
        .fails();
    assert!(err.contains("exclude a selector"), "{err}");
    f.run(&["rollout", "status", "deploy", "--watch=false"])
        .ok();
}

/// Restored with its uid, say. What goes by the uid would be lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_keeps_the_uid_that_its_manifest_leaves_out() {
    let f = Fixture::new("kept-uid").await;
    let claim = |label: &str, uid: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data # its name\n  labels: {{a: {label}}}\n{uid}spec: \
             {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}\n"
        )
    };
    let place = Key::Desired(
        "persistentvolumeclaims",
        ObjectKey::namespaced("default", "data"),
    );
    f.put(&place, &claim("b", "  uid: c1\n")).await;
    f.apply(&claim("c", ""));
    let text = f.desired("persistentvolumeclaims", "data").await.unwrap();
    assert!(
        text.contains("uid: c1") && text.contains("a: c") && text.contains("# its name"),
        "{text}"
    );
}
