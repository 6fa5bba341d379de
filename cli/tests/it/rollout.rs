//! `setpoint rollout history` and `undo`: what was before, and going back to it.

use setpoint_apis::{Key, ObjectKey};

use crate::fixture::Fixture;

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  # How many people may come.
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: 'host:2', envFrom: [{configMapRef: {name: app}}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app}
data: {a: two}
";

/// A Deployment with two revisions; each reads its copy of a ConfigMap.
async fn two_revisions(name: &str) -> Fixture {
    let f = Fixture::new(name).await;
    f.apply(WEB);
    let uid = f
        .run(&["get", "deploy", "web", "-o", "jsonpath={.metadata.uid}"])
        .ok();
    let uid = uid.trim();
    let owner = format!(
        "ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: {uid}, controller: true}}]"
    );
    for (n, word) in [(1, "one"), (2, "two")] {
        let set = format!(
            "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: web-{n}, namespace: default, annotations: {{deployment.kubernetes.io/revision: '{n}'}}, {owner}}}\n\
             spec:\n  replicas: 0\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web, pod-template-hash: '{n}'}}}}\n    \
             spec: {{containers: [{{name: c, image: 'host:{n}', envFrom: [{{configMapRef: {{name: app-{n}}}}}]}}]}}\n"
        );
        f.put(&Key::Desired("replicasets", key(&format!("web-{n}"))), &set)
            .await;
        let copy = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app-{n}, namespace: default, annotations: {{setpoint.dev/copy-of: app}}, {owner}}}\ndata: {{a: {word}}}\n"
        );
        f.put(&Key::Desired("configmaps", key(&format!("app-{n}"))), &copy)
            .await;
    }
    f
}

#[tokio::test(flavor = "multi_thread")]
async fn history_lists_the_revisions_and_shows_one() {
    let f = two_revisions("history").await;
    let out = f.run(&["rollout", "history", "deploy/web"]).ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "deployment.apps/web", "{out}");
    assert!(lines[1].starts_with("REVISION"), "{out}");
    assert!(
        lines[2].starts_with('1') && lines[2].contains("web-1"),
        "{out}"
    );
    assert!(
        lines[3].starts_with('2') && lines[3].contains("current"),
        "{out}"
    );
    let out = f
        .run(&["rollout", "history", "deploy/web", "--revision=1"])
        .ok();
    assert!(out.contains("image: host:1"), "{out}");
    let err = f
        .run(&["rollout", "history", "deploy/web", "--revision=7"])
        .fails();
    assert!(err.contains("has no revision 7: there are 1, 2"), "{err}");
    let err = f.run(&["rollout", "history", "cm/app"]).fails();
    assert!(err.contains("configmaps have no rollouts"), "{err}");

    let record = "rollback: {failedRevision: web-2, toRevision: web-1, reason: PodsCrash, at: 2026-01-01T00:00:00Z}\n";
    f.put(&Key::Actual("deployments", key("web")), record).await;
    let out = f.run(&["rollout", "history", "deploy/web"]).ok();
    assert!(
        out.contains("runs instead") && out.contains("failed"),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_asks_for_the_template_before_and_restores_content_only_when_told() {
    let f = two_revisions("undo").await;
    let ran = f.run(&["rollout", "undo", "deploy/web", "--dry-run"]);
    assert!(
        ran.err
            .contains("configmap/app is not what revision 1 read"),
        "{}",
        ran.err
    );
    assert_eq!(
        ran.ok(),
        "deployment.apps/web would go back to revision 1\n"
    );
    assert!(
        f.desired("deployments", "web")
            .await
            .unwrap()
            .contains("host:2")
    );

    let out = f
        .run(&["rollout", "undo", "deploy/web", "--restore-config"])
        .ok();
    assert_eq!(
        out,
        "configmap/app put back\ndeployment.apps/web goes back to revision 1\n"
    );
    let text = f.desired("deployments", "web").await.unwrap();
    assert!(
        text.contains("host:1") && text.contains("name: app\n"),
        "{text}"
    );
    assert!(!text.contains("pod-template-hash"), "{text}");
    assert!(text.contains("# How many people may come."), "{text}");
    assert!(
        f.desired("configmaps", "app")
            .await
            .unwrap()
            .contains("a: one")
    );

    let err = f
        .run(&["rollout", "undo", "deploy/web", "--to-revision=9"])
        .fails();
    assert!(err.contains("has no revision 9"), "{err}");
    f.run(&["rollout", "pause", "deploy/web"]).ok();
    let err = f.run(&["rollout", "undo", "deploy/web"]).fails();
    assert!(err.contains("is paused"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_brings_back_what_was_told_of_the_revision() {
    let f = two_revisions("undo-cause").await;
    let set = Key::Desired("replicasets", key("web-1"));
    let text = f.get(&set).await.unwrap();
    let text = String::from_utf8_lossy(&text.value).into_owned();
    let cause = "annotations: {kubernetes.io/change-cause: first, deployment.kubernetes.io/max-replicas: '9', ";
    f.put(&set, &text.replacen("annotations: {", cause, 1))
        .await;
    for word in [
        "kubernetes.io/change-cause=second",
        "late=x",
        "setpoint.dev/config-rollout=false",
    ] {
        f.run(&["annotate", "deploy/web", word]).ok();
    }
    f.run(&["rollout", "undo", "deploy/web"]).ok();
    let path = "jsonpath={.metadata.annotations}";
    let shown = f.run(&["get", "deploy/web", "-o", path]).ok();
    assert!(
        shown.contains("first") && shown.contains("config-rollout"),
        "{shown}"
    );
    for gone in [
        "second",
        "late",
        "max-replicas",
        "deployment.kubernetes.io/revision",
    ] {
        assert!(!shown.contains(gone), "{gone} in {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_prints_objects_and_dry_runs_are_said_as_elsewhere() {
    let f = two_revisions("history-out").await;
    let out = f
        .run(&["rollout", "history", "deploy/web", "-o", "name"])
        .ok();
    assert_eq!(out, "replicaset.apps/web-1\nreplicaset.apps/web-2\n");
    let out = f
        .run(&[
            "rollout",
            "history",
            "deploy/web",
            "--revision=1",
            "-o",
            "yaml",
        ])
        .ok();
    assert!(
        out.contains("name: web-1") && out.contains("kind: ReplicaSet"),
        "{out}"
    );
    let out = f
        .run(&["rollout", "undo", "deploy/web", "--dry-run=client"])
        .ok();
    assert_eq!(out, "deployment.apps/web would go back to revision 1\n");
    let status = ["rollout", "status", "deploy/web", "--watch=false"];
    f.run(&[&status[..], &["--revision=2"]].concat()).ok();
    let err = f.run(&[&status[..], &["--revision=1"]].concat()).fails();
    assert!(
        err.contains("not the one that was asked for last, 2"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_are_restarted_together_and_what_cannot_be_hinders_no_other() {
    let f = Fixture::new("restart-several").await;
    for name in ["a", "b", "c"] {
        f.apply(&crate::fixture::deployment(name, 1));
    }
    f.apply(&crate::fixture::config_map("m", "1"));
    let restarted = async |name: &str| {
        let text = f.desired("deployments", name).await.unwrap();
        text.contains("kubectl.kubernetes.io/restartedAt")
    };
    // Of a kind that has none: nothing is done.
    let err = f
        .run(&["rollout", "restart", "deploy/a", "configmap/m"])
        .fails();
    assert!(err.contains("configmaps cannot be restarted"), "{err}");
    assert!(!restarted("a").await);

    f.run(&["rollout", "pause", "deploy/b"]).ok();
    let ran = f.run(&["rollout", "restart", "deployment", "a", "b", "x", "c"]);
    assert_eq!(
        ran.out,
        "deployment.apps/a restarted\ndeployment.apps/c restarted\n"
    );
    let err = ran.fails();
    assert!(
        err.contains(
            "deployment.apps/b is paused: `setpoint rollout resume deployment.apps/b` first"
        ) && err.contains("\"x\" not found"),
        "{err}"
    );
    assert!(restarted("a").await && !restarted("b").await && restarted("c").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_undo_of_several_go_on_past_what_has_failed() {
    let f = two_revisions("undo-several").await;
    f.apply(&crate::fixture::deployment("a", 1));
    let words = |what: &'static str, more: &[&'static str]| {
        [&["rollout", what, "deployment", "a", "x", "web"][..], more].concat()
    };
    let ran = f.run(&words("history", &["--revision=1"]));
    assert!(ran.out.contains("web revision 1"), "{}", ran.out);
    let err = ran.fails();
    assert!(
        err.contains("deployment.apps/a has no revision 1") && err.contains("\"x\" not found"),
        "{err}"
    );
    let ran = f.run(&words("history", &["--revision=1", "-o", "name"]));
    assert_eq!(ran.out, "replicaset.apps/web-1\n");
    ran.fails();

    let ran = f.run(&words("undo", &[]));
    assert_eq!(ran.out, "deployment.apps/web goes back to revision 1\n");
    let err = ran.fails();
    assert!(
        err.contains("deployment.apps/a has no revision before its present one")
            && err.contains("\"x\" not found"),
        "{err}"
    );
    let web = f.desired("deployments", "web").await.unwrap();
    assert!(web.contains("host:1"), "{web}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_rollouts_is_told_at_once_and_not_waited_for() {
    let f = Fixture::new("rollout-kinds").await;
    f.apply(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  template:\n    \
         spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n",
    );
    f.apply(&crate::fixture::pod("p"));
    for words in [
        &["rollout", "status", "job/j"][..],
        &["rollout", "status", "pod/p"],
        &["rollout", "history", "job/j"],
        &["rollout", "undo", "job/j"],
    ] {
        let err = f.run(words).fails();
        assert!(err.contains("have no rollouts; `setpoint wait"), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_is_tried_with_every_form_of_the_flag() {
    let f = two_revisions("undo-dry").await;
    let before = f.desired("deployments", "web").await;
    for flag in ["--dry-run", "--dry-run=client", "--dry-run=server"] {
        let out = f.run(&["rollout", "undo", "deploy/web", flag]).ok();
        assert!(
            out.contains("deployment.apps/web would go back to revision 1"),
            "{flag}: {out}"
        );
    }
    assert_eq!(f.desired("deployments", "web").await, before);
    let err = f
        .run(&["rollout", "undo", "deploy/web", "--to-revision=99"])
        .fails();
    assert!(err.contains("has no revision 99: there are 1, 2"), "{err}");
    let all = f.run(&["rollout", "history", "deploy/web"]).ok();
    let zero = f
        .run(&["rollout", "history", "deploy/web", "--revision=0"])
        .ok();
    assert_eq!(zero.lines().count(), all.lines().count());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_to_a_template_that_is_asked_for_already_leaves_the_document_alone() {
    let f = two_revisions("undo-content").await;
    // As after a change of the ConfigMap alone that was taken back: another ReplicaSet of the same template.
    let set = Key::Desired("replicasets", key("web-2"));
    let text = f.get(&set).await.unwrap();
    let text = String::from_utf8_lossy(&text.value).into_owned();
    let failed = text
        .replace("web-2", "web-3")
        .replace("app-2", "app-3")
        .replace("'2'", "'3'");
    f.put(&Key::Desired("replicasets", key("web-3")), &failed)
        .await;
    f.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata: {a: three}\n");
    let record = "rollback: {failedRevision: web-3, toRevision: web-2, reason: PodsCrash, at: 2026-01-01T00:00:00Z}\n";
    f.put(&Key::Actual("deployments", key("web")), record).await;
    let before = f.desired("deployments", "web").await;
    let says = "deployment.apps/web asks for the template of revision 2 already\n";
    for words in [
        &["rollout", "undo", "deploy/web", "--dry-run"][..],
        &["rollout", "undo", "deploy/web"],
    ] {
        let ran = f.run(words);
        assert!(
            ran.err
                .contains("configmap/app is not what revision 2 read: it stays as it is now, unless you add --restore-config"),
            "{ran:#?}"
        );
        assert_eq!(ran.ok(), says);
        assert_eq!(f.desired("deployments", "web").await, before);
    }
    let out = f
        .run(&["rollout", "undo", "deploy/web", "--restore-config"])
        .ok();
    assert_eq!(out, format!("configmap/app put back\n{says}"));
    assert_eq!(f.desired("deployments", "web").await, before);
    let content = f.desired("configmaps", "app").await.unwrap();
    assert!(content.contains("a: two"), "{content}");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_of_several_tells_of_all_and_fails_when_one_has() {
    let f = Fixture::new("rollout-several").await;
    for name in ["a", "b", "c"] {
        f.apply(&crate::fixture::deployment(name, 1));
    }
    let up = "observedGeneration: 1\nreplicas: 1\nupdatedReplicas: 1\navailableReplicas: 1\n";
    let condition = |type_: &str| {
        format!("{up}conditions: [{{type: {type_}, status: 'True', reason: X, message: m}}]\n")
    };
    f.put(
        &Key::Actual("deployments", key("a")),
        &condition("RolledBack"),
    )
    .await;
    f.put(&Key::Actual("deployments", key("c")), up).await;
    for watch in ["--watch=true", "--watch=false"] {
        let words = ["rollout", "status", watch, "--timeout=1s", "deploy"];
        let ran = f.run(&[&words[..], &["a", "x", "b", "c"]].concat());
        assert!(
            ran.out
                .ends_with("deployment \"c\" successfully rolled out\n"),
            "{ran:#?}"
        );
        let err = ran.fails();
        assert!(
            err.contains("error: deployment.apps/a is rolled back: m")
                && err.contains("error: deployments.apps \"x\" not found"),
            "{err}"
        );
        // One that is waited for too long; what it waits for does not name it.
        let of_b = "error: deployment.apps/b: timed out: Waiting for deployment spec update";
        assert_eq!(err.contains(of_b), watch == "--watch=true", "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_a_command_does_not_have_is_refused_with_those_it_has() {
    let f = Fixture::new("formats").await;
    f.apply(&crate::fixture::deployment("a", 1));
    let refused = |words: &[&str], why: &str| {
        let err = f.run_with_input(words, &crate::fixture::config_map("m", "1"));
        assert_eq!(err.fails(), format!("error: {why}\n"), "{words:?}");
    };
    let of_objects = "is not supported here: name, yaml, json or jsonpath=TEMPLATE";
    for format in ["wide", "custom-columns=A:.a"] {
        let word = format.split('=').next().unwrap();
        let why = format!("-o {word} {of_objects}");
        refused(&["rollout", "history", "deploy/a", "-o", format], &why);
        refused(&["apply", "-f", "-", "-o", format], &why);
    }
    refused(
        &["delete", "deploy", "a", "-o", "jsonpath={.a}"],
        "-o jsonpath is not supported here: name",
    );
    refused(
        &["version", "-o", "wide"],
        "-o wide is not supported here: yaml, json or jsonpath=TEMPLATE",
    );
    assert!(f.desired("deployments", "a").await.is_some());
    assert_eq!(f.desired("configmaps", "m").await, None);
}
