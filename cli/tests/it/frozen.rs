//! Objects that are frozen, because somebody has changed by hand what may not change: they can be put right with the tool.

use setpoint_apis::{Key, ObjectKey, meta};

use crate::fixture::{Fixture, deployment};

/// A Deployment that its controller has taken up as it was, and that somebody has given another selector.
async fn frozen(name: &str) -> Fixture {
    let f = Fixture::new(name).await;
    f.apply(&deployment("web", 3));
    let key = ObjectKey::namespaced("default", "web");
    let desired = Key::Desired("deployments", key.clone());
    let created = f.get(&desired).await.unwrap().create_revision;
    let uid = meta::derived_uid(created, "deployments", &key);
    let status = format!(
        "observedGeneration: 2\nreadyReplicas: 3\nfixed: {{of: {uid}, fields: {{spec.selector: app=web}}}}\n\
         conditions:\n- {{type: Invalid, status: 'True', reason: ImmutableFieldChanged, message: 'it was another'}}\n"
    );
    f.put(&Key::Actual("deployments", key), &status).await;
    f.put(&desired, &bad()).await;
    f
}

fn bad() -> String {
    deployment("web", 3).replace("app: web", "app: web9")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_former_document_puts_a_frozen_object_right_and_no_other_does() {
    let f = frozen("frozen-apply").await;
    let other = deployment("web", 3).replace("app: web", "app: third");
    let err = f.run_with_input(&["apply", "-f", "-"], &other).fails();
    assert!(
        err.contains("it was \"app=web\", and is \"app=third\"; put it back"),
        "{err}"
    );
    assert_eq!(
        f.apply(&deployment("web", 3)),
        "deployment.apps/web configured\n"
    );
    // Of one that is right the document counts again.
    let err = f.run_with_input(&["apply", "-f", "-"], &bad()).fails();
    assert!(err.contains("spec.selector: field is immutable"), "{err}");

    let f = frozen("frozen-edit").await;
    let mut edit = f.command(&["edit", "deploy/web"]);
    edit.env("SETPOINT_EDITOR", "sed -i s/web9/web/g");
    let output = edit.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        !f.desired("deployments", "web")
            .await
            .unwrap()
            .contains("web9")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_or_looks_at_a_frozen_object_is_told() {
    let f = frozen("frozen-told").await;
    for args in [
        &["scale", "deploy/web", "--replicas=5"][..],
        &["rollout", "restart", "deploy/web"],
    ] {
        let ran = f.run(args);
        assert!(
            ran.err.contains("web is frozen") && ran.err.contains("it was \"app=web\""),
            "{ran:?}"
        );
        ran.ok();
    }
    let ran = f.run_with_input(&["apply", "-f", "-"], &bad());
    assert!(ran.err.contains("web is frozen"), "{ran:?}");
    let ran = f.run(&["get", "deploy", "--no-headers"]);
    assert!(ran.err.contains("web is frozen: it was another"), "{ran:?}");
    let row = ran.ok();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..3], ["web", "Invalid", "0"]);
}
