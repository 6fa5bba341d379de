//! Workloads whose size an autoscaler decides: what scaling them comes to, and what they keep when it is deleted.

use setpoint_apis::{Key, ObjectKey};

use crate::fixture::{Fixture, deployment};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn scaler(name: &str, target: &str) -> String {
    format!(
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {{name: {name}, labels: {{of: {name}}}}}\n\
         spec:\n  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {target}}}\n  maxReplicas: 9\n"
    )
}

/// A Deployment that does not say how many.
fn open(name: &str) -> String {
    deployment(name, 2).replace("  replicas: 2 # so many\n", "")
}

async fn recorded(f: &Fixture, scaler: &str, replicas: i32) {
    let place = Key::Actual("horizontalpodautoscalers", key(scaler));
    f.put(&place, &format!("desiredReplicas: {replicas}\n"))
        .await;
}

/// What the controller says of a Deployment that an autoscaler decides for.
async fn in_use(f: &Fixture, name: &str, replicas: i32) {
    let place = Key::Actual("deployments", key(name));
    let status = format!("observedGeneration: 1\ndesiredReplicas: {replicas}\n");
    f.put(&place, &status).await;
}

async fn says(f: &Fixture, name: &str, what: &str) -> bool {
    let text = f.desired("deployments", name).await.expect("it is there");
    text.contains(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_what_an_autoscaler_decides_is_written_and_warned_of() {
    let f = Fixture::new("scale-decided").await;
    for text in [
        deployment("web", 2),
        deployment("api", 2),
        scaler("b", "web"),
    ] {
        f.apply(&text);
    }
    let scale = |name: &str, replicas: &str| {
        let ran = f.run(&["scale", "deploy", name, "--replicas", replicas]);
        let err = ran.err.clone();
        assert_eq!(ran.ok(), format!("deployment.apps/{name} scaled\n"));
        err
    };
    assert_eq!(scale("web", "3"), "", "nothing is decided yet");
    recorded(&f, "b", 4).await;
    assert_eq!(
        scale("web", "7"),
        "warning: deployment.apps/web: horizontalpodautoscaler.autoscaling/b decides how many there are (4 now), \
         whatever the document says\n"
    );
    assert!(says(&f, "web", "replicas: 7").await);
    assert_eq!(scale("api", "7"), "", "it has none");
    assert_eq!(scale("web", "0"), "", "that switches it off");
    // Of several the first by name decides, and that one has not yet.
    f.apply(&scaler("a", "web"));
    assert_eq!(scale("web", "6"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_what_an_autoscaler_decided_that_cannot_be_read_is_warned_of() {
    let f = Fixture::new("scale-broken").await;
    for text in [
        deployment("web", 2),
        deployment("api", 2),
        scaler("b", "web"),
    ] {
        f.apply(&text);
    }
    let scale = |name: &str, replicas: &str| {
        let ran = f.run(&["scale", "deploy", name, "--replicas", replicas]);
        let err = ran.err.clone();
        assert_eq!(ran.ok(), format!("deployment.apps/{name} scaled\n"));
        err
    };
    let broken = scaler("b", "web").replace("maxReplicas: 9", "maxReplicas: many");
    for (place, text) in [
        (
            Key::Actual("horizontalpodautoscalers", key("b")),
            "desiredReplicas: many\n",
        ),
        (
            Key::Desired("horizontalpodautoscalers", key("b")),
            broken.as_str(),
        ),
    ] {
        f.put(
            &Key::Actual("deployments", key("web")),
            "observedGeneration: 1\n",
        )
        .await;
        f.put(&place, text).await;
        assert_eq!(scale("web", "5"), "", "nothing was decided");
        in_use(&f, "web", 4).await;
        let said = scale("web", "7");
        let words = "warning: deployment.apps/web: horizontalpodautoscaler.autoscaling/b cannot be read, so there are as \
                     many as it decided last (4 now), whatever the document says: ";
        assert!(said.starts_with(words) && said.contains("many"), "{said}");
        assert_eq!(scale("api", "7"), "", "nothing is decided for it");
        assert_eq!(scale("web", "0"), "", "that switches it off");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_keeps_its_size_when_its_autoscaler_is_deleted() {
    let f = Fixture::new("delete-scaler").await;
    f.apply(&open("web"));
    f.apply(&scaler("s", "web"));
    recorded(&f, "s", 4).await;
    in_use(&f, "web", 4).await;
    let before = f.desired("deployments", "web").await;
    let out = f.run(&["delete", "hpa", "s", "--dry-run"]).ok();
    assert_eq!(
        out,
        "deployment.apps/web would keep its 4 replicas\nhorizontalpodautoscaler.autoscaling \"s\" deleted (dry run)\n"
    );
    assert_eq!(f.desired("deployments", "web").await, before);
    let out = f.run(&["delete", "hpa", "s"]).ok();
    assert_eq!(
        out,
        "deployment.apps/web keeps its 4 replicas\nhorizontalpodautoscaler.autoscaling \"s\" deleted\n"
    );
    assert!(says(&f, "web", "replicas: 4").await && says(&f, "web", "# Kept.").await);
    assert_eq!(f.desired("horizontalpodautoscalers", "s").await, None);
    // A manifest that leaves it open does not take it away; one that says a number does.
    f.apply(&open("web"));
    assert!(says(&f, "web", "replicas: 4").await);
    f.apply(&deployment("web", 2));
    assert!(says(&f, "web", "replicas: 2").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_kept_however_the_autoscaler_is_named_even_if_it_cannot_be_read() {
    let f = Fixture::new("delete-scalers").await;
    let file = f.file("s.yaml", &scaler("s", "web"));
    f.apply(&deployment("web", 2));
    in_use(&f, "web", 1).await;
    let ways: [&[&str]; 5] = [
        &["hpa", "-l", "of=s"],
        &["hpa", "--all"],
        &["-f", file.to_str().unwrap()],
        &["hpa/s"],
        &["hpa", "s"],
    ];
    for (n, way) in ways.iter().enumerate() {
        f.apply(&scaler("s", "web"));
        f.apply(&deployment("web", 2));
        if n == 3 {
            let broken = scaler("s", "web").replace("maxReplicas: 9", "maxReplicas: many");
            f.put(&Key::Desired("horizontalpodautoscalers", key("s")), &broken)
                .await;
        }
        if n == 4 {
            let place = Key::Desired("horizontalpodautoscalers", key("s"));
            f.put(&place, "spec: [").await;
        }
        let out = f.run(&[&["delete"], *way].concat()).ok();
        assert!(
            out.starts_with("deployment.apps/web keeps its 1 replica\n"),
            "{way:?}: {out}"
        );
        assert!(says(&f, "web", "replicas: 1").await, "{way:?}");
    }
    f.apply(&scaler("s", "web"));
    let out = f.run(&["delete", "hpa", "s", "-o", "name"]).ok();
    assert_eq!(out, "horizontalpodautoscaler.autoscaling/s\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_stays_where_the_deletion_of_an_autoscaler_changes_no_size() {
    let f = Fixture::new("delete-scaler-not").await;
    f.apply(&deployment("web", 2));
    for name in ["a", "b"] {
        f.apply(&scaler(name, "web"));
        recorded(&f, name, 4).await;
    }
    in_use(&f, "web", 4).await;
    let before = f.desired("deployments", "web").await;
    let deleted = |name: &str| f.run(&["delete", "hpa", name]).ok();
    let plain = |name: &str| format!("horizontalpodautoscaler.autoscaling \"{name}\" deleted\n");
    // The other one decides from now on.
    assert_eq!(deleted("a"), plain("a"));
    // It is scaled to nothing, so no autoscaler decides; its status is from before.
    f.run(&["scale", "deploy", "web", "--replicas=0"]).ok();
    assert_eq!(deleted("b"), plain("b"));
    assert!(says(&f, "web", "replicas: 0").await);
    // Nothing else was ever decided than the document says.
    f.put(&Key::Desired("deployments", key("web")), &before.unwrap())
        .await;
    f.put(
        &Key::Actual("deployments", key("web")),
        "observedGeneration: 1\n",
    )
    .await;
    f.apply(&scaler("a", "web"));
    assert_eq!(deleted("a"), plain("a"));
    // Its workload goes by the same command.
    in_use(&f, "web", 4).await;
    f.apply(&scaler("a", "web"));
    let manifest = format!("{}---\n{}", deployment("web", 2), scaler("a", "web"));
    let out = f.run_with_input(&["delete", "-f", "-"], &manifest).ok();
    assert!(!out.contains("keeps"), "{out}");
    assert_eq!(f.desired("deployments", "web").await, None);
}
