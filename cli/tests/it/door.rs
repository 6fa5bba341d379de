//! What `apply` refuses or warns of, of workloads; and what waits for a rollout looks at.

use setpoint_apis::content_seen;
use setpoint_apis::core::PodSpec;
use setpoint_apis::{Key, ObjectKey};

use crate::fixture::{Fixture, Running, config_map};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// A manifest of a kind of `apps/v1`; `more` are lines of its spec.
fn apps(kind: &str, name: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n{more}  template:\n    \
         metadata: {{labels: {{app: {name}, tier: front}}}}\n    spec: {{containers: [{{name: c, image: host}}]}}\n"
    )
}

fn batch(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: batch/v1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{spec}")
}

const CLAIMS: &str = "  serviceName: peers\n  volumeClaimTemplates:\n  - metadata: {name: data}\n    \
                      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
const JOB: &str = "  completions: 2\n  template:\n    \
                   spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n";
const MODES: &str = "  completionMode: Indexed\n  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, \
                     values: [1]}}]}\n";
const JOBS: &str = "  jobTemplate:\n    spec:\n      template:\n        \
                    spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n";

/// Everything is said at the line it is about, the exit code is 1, and nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_and_nothing_is_written() {
    let f = Fixture::new("door-bad").await;
    let other =
        |kind: &str| apps(kind, "x", "").replacen("matchLabels: {app", "matchLabels: {other", 1);
    let rolling = |kind: &str, field: &str, strategy: &str| {
        apps(
            kind,
            "x",
            &format!("  {field}: {{rollingUpdate: {{{strategy}}}}}\n"),
        )
    };
    let annotated = |kind: &str, more: &str, annotation: &str| {
        apps(kind, "x", more).replacen(
            "name: x\n",
            &format!("name: x\n  annotations: {{{annotation}}}\n"),
            1,
        )
    };
    let of_pods = |annotation: &str| {
        let bad = format!("tier: front}}, annotations: {{{annotation}}}}}");
        apps("Deployment", "x", "").replacen("tier: front}}", &bad, 1)
    };
    let labels = "does not select the pods of this template";
    let empty = "spec.selector: must not be empty";
    let deadline = "setpoint.dev/progress-deadline-seconds";
    let cases = [
        ("deployments", other("Deployment"), labels),
        ("replicasets", other("ReplicaSet"), labels),
        ("statefulsets", other("StatefulSet"), labels),
        ("daemonsets", other("DaemonSet"), labels),
        (
            "deployments",
            rolling("Deployment", "strategy", "maxUnavailable: 101%"),
            "101% is more than 100%",
        ),
        (
            "statefulsets",
            rolling("StatefulSet", "updateStrategy", "maxUnavailable: 101%"),
            "101% is more than 100%",
        ),
        (
            "daemonsets",
            rolling(
                "DaemonSet",
                "updateStrategy",
                "maxUnavailable: 0, maxSurge: 101%",
            ),
            "101% is more than 100%",
        ),
        (
            "deployments",
            apps("Deployment", "x", "  minReadySeconds: 600\n"),
            "must be more than minReadySeconds",
        ),
        (
            "cronjobs",
            batch("CronJob", "x", &format!("  schedule: 0 0 31 2 *\n{JOBS}")),
            "never fires",
        ),
        (
            "cronjobs",
            batch(
                "CronJob",
                "x",
                &format!("  schedule: 0 0 31 4,6,9,11 *\n{JOBS}"),
            ),
            "never fires",
        ),
        (
            "statefulsets",
            annotated("StatefulSet", "", &format!("{deadline}: soon")),
            "not a number of seconds",
        ),
        (
            "daemonsets",
            annotated(
                "DaemonSet",
                "  minReadySeconds: 30\n",
                &format!("{deadline}: '30'"),
            ),
            "30 must be more than minReadySeconds, 30",
        ),
        (
            "deployments",
            annotated("Deployment", "", "setpoint.dev/rollback-on-failure: maybe"),
            "is not one of true, false",
        ),
        (
            "jobs",
            batch("Job", "x", &format!("  managedBy: me\n{JOB}")),
            "is not a name with a domain",
        ),
        (
            "jobs",
            batch(
                "Job",
                "x",
                &format!("  managedBy: example.com/{}\n{JOB}", "x".repeat(60)),
            ),
            "has 72 characters, the most is 63",
        ),
        (
            "jobs",
            batch("Job", "x", &format!("  backoffLimitPerIndex: 1\n{JOB}")),
            "has a meaning only when the completionMode is Indexed",
        ),
        (
            "jobs",
            batch(
                "Job",
                "x",
                &format!(
                    "  podFailurePolicy: {{rules: [{{action: FailIndex, onExitCodes: {{operator: In, values: [1]}}}}]}}\n{JOB}"
                ),
            ),
            "spec.podFailurePolicy.rules[0].action",
        ),
        (
            "deployments",
            apps("Deployment", "x", "").replacen("{app: x}", "{}", 1),
            empty,
        ),
        (
            "replicasets",
            apps("ReplicaSet", "x", "").replacen("{app: x}", "{}", 1),
            empty,
        ),
        (
            "statefulsets",
            apps("StatefulSet", "x", "").replacen("{app: x}", "{}", 1),
            empty,
        ),
        (
            "daemonsets",
            apps("DaemonSet", "x", "").replacen("{app: x}", "{}", 1),
            empty,
        ),
        (
            "deployments",
            rolling("Deployment", "strategy", "maxUnavailable: 0, maxSurge: 0%"),
            "must not be 0 when maxSurge is 0",
        ),
        (
            "daemonsets",
            rolling("DaemonSet", "updateStrategy", "maxUnavailable: 0"),
            "must not be 0 when maxSurge is 0",
        ),
        (
            "statefulsets",
            rolling("StatefulSet", "updateStrategy", "maxUnavailable: 0"),
            "must not be 0: nothing could move",
        ),
        (
            "deployments",
            annotated("Deployment", "", "setpoint.dev/config-rollout: maybe"),
            "is not one of true, false",
        ),
        (
            "deployments",
            of_pods("setpoint.dev/partition-policy: wait"),
            "is not one of replace, keep, stop",
        ),
        (
            "deployments",
            of_pods("controller.kubernetes.io/pod-deletion-cost: '07'"),
            "is not a whole number of 32 bits",
        ),
        (
            "deployments",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: [\n".into(),
            "the YAML cannot be read",
        ),
        (
            "deployments",
            apps("Deployment", "x", "  replicas: [2]\n"),
            "spec.replicas",
        ),
    ];
    for (plural, text, expected) in cases {
        let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
        assert!(err.contains("-:") && err.contains(expected), "{err}");
        assert_eq!(f.desired(plural, "x").await, None, "{text}");
    }
    // 150 % of surge is fine, as in Kubernetes.
    f.apply(&rolling("Deployment", "strategy", "maxSurge: 150%"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_may_not_change_stays_and_the_words_say_what_to_do() {
    let f = Fixture::new("door-fixed").await;
    let selector = |name: &str| {
        (
            format!("matchLabels: {{app: {name}}}"),
            "matchLabels: {tier: front}".to_owned(),
        )
    };
    let fixed = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let cases = [
        (
            "deployments",
            "web",
            apps("Deployment", "web", ""),
            selector("web"),
            "spec.selector",
        ),
        (
            "replicasets",
            "set",
            apps("ReplicaSet", "set", ""),
            selector("set"),
            "spec.selector",
        ),
        (
            "daemonsets",
            "log",
            apps("DaemonSet", "log", ""),
            selector("log"),
            "spec.selector",
        ),
        (
            "statefulsets",
            "db",
            apps("StatefulSet", "db", CLAIMS),
            selector("db"),
            "spec.selector",
        ),
        (
            "statefulsets",
            "db",
            apps("StatefulSet", "db", CLAIMS),
            fixed("serviceName: peers", "serviceName: others"),
            "spec.serviceName",
        ),
        (
            "statefulsets",
            "db",
            apps("StatefulSet", "db", CLAIMS),
            fixed("storage: 1Gi", "storage: 2Gi"),
            "spec.volumeClaimTemplates",
        ),
        (
            "jobs",
            "sum",
            batch("Job", "sum", JOB),
            fixed("completions: 2", "completions: 3"),
            "spec.completions",
        ),
        (
            "jobs",
            "sum",
            batch("Job", "sum", JOB),
            fixed("image: host", "image: other"),
            "spec.template",
        ),
        (
            "jobs",
            "theirs",
            batch(
                "Job",
                "theirs",
                &format!("  managedBy: example.com/a\n{JOB}"),
            ),
            fixed("example.com/a", "example.com/b"),
            "spec.managedBy",
        ),
        (
            "jobs",
            "parts",
            batch("Job", "parts", &format!("{MODES}{JOB}")),
            fixed("completionMode: Indexed", "completionMode: NonIndexed"),
            "spec.completionMode",
        ),
        (
            "jobs",
            "parts",
            batch("Job", "parts", &format!("{MODES}{JOB}")),
            fixed("values: [1]", "values: [2]"),
            "spec.podFailurePolicy",
        ),
    ];
    for (plural, name, text, (from, to), path) in cases {
        f.apply(&text);
        let bad = text.replacen(&from, &to, 1);
        assert_ne!(bad, text);
        let err = f.run_with_input(&["apply", "-f", "-"], &bad).fails();
        let says = format!(
            "{path}: field is immutable; to change it, delete the object and apply it again"
        );
        assert!(err.contains(&says), "{err}");
        assert_eq!(f.desired(plural, name).await.unwrap(), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_that_select_each_others_pods_are_warned_of() {
    let f = Fixture::new("door-overlap").await;
    let apply = |text: &str| f.run_with_input(&["apply", "-f", "-"], text);
    let ran = apply(&apps("Deployment", "web", ""));
    assert!(!ran.err.contains("warning"), "{ran:#?}");
    ran.ok();
    // Another one of the same labels, of another kind.
    let db = apps("StatefulSet", "db", "").replace("app: db", "app: web");
    let ran = apply(&db);
    let says = "statefulset.apps/db and deployment.apps/web in namespace \"default\" select each other's pods (app=web; app=web)";
    assert!(
        ran.err.contains("warning:") && ran.err.contains(says),
        "{ran:#?}"
    );
    assert_eq!(ran.ok(), "statefulset.apps/db created\n");
    // What was said is not said again while nothing changes.
    let ran = apply(&db);
    assert!(!ran.err.contains("warning"), "{ran:#?}");
    // One that selects what the other makes is enough.
    let wide = apps("DaemonSet", "all", "").replacen("{app: all}", "{tier: front}", 1);
    let ran = apply(&wide);
    assert!(
        ran.err
            .contains("daemonset.apps/all and deployment.apps/web"),
        "{ran:#?}"
    );
    // Of another namespace, or of other labels: nothing.
    f.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n");
    let elsewhere =
        apps("Deployment", "web", "").replacen("name: web\n", "name: web\n  namespace: team\n", 1);
    let ran = apply(&elsewhere);
    assert!(!ran.err.contains("warning"), "{ran:#?}");
    // A ReplicaSet that a Deployment takes on is no conflict.
    let set = apps("ReplicaSet", "web-1", "")
        .replace("app: web-1", "app: web")
        .replacen("name: web-1\n", "name: web-1\n  labels: {app: web}\n", 1);
    let ran = apply(&set);
    assert!(!ran.err.contains("and deployment.apps/web "), "{ran:#?}");
}

/// Names of `get`, with what an autoscaler has decided.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_autoscaler_decided_is_what_is_wanted() {
    let f = Fixture::new("door-scaled").await;
    f.apply(&apps("StatefulSet", "db", "  replicas: 2\n"));
    let status = |decided: &str, ready: i32| {
        format!(
            "observedGeneration: 1\nreplicas: {ready}\nreadyReplicas: {ready}\nupdatedReplicas: {ready}\n\
             currentRevision: a\nupdateRevision: a\n{decided}"
        )
    };
    let actual = Key::Actual("statefulsets", key("db"));
    f.put(&actual, &status("desiredReplicas: 5\n", 2)).await;
    let out = f.run(&["get", "sts", "db"]).ok();
    assert!(out.contains("2/5"), "{out}");
    let out = f
        .run(&["rollout", "status", "sts/db", "--watch=false"])
        .ok();
    assert!(out.contains("3 pods are not ready"), "{out}");
    f.put(&actual, &status("", 2)).await;
    assert!(f.run(&["get", "sts", "db"]).ok().contains("2/2"));
    f.run(&["rollout", "status", "sts/db"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_not_done_before_a_changed_config_map_was_seen() {
    let f = Fixture::new("door-config").await;
    let text = apps("Deployment", "web", "  replicas: 1\n").replacen(
        "image: host",
        "image: host, envFrom: [{configMapRef: {name: settings}}]",
        1,
    );
    f.apply(&config_map("settings", "1"));
    f.apply(&text);
    let spec: PodSpec = serde_yaml::from_str(
        "containers: [{name: c, image: host, envFrom: [{configMapRef: {name: settings}}]}]",
    )
    .unwrap();
    let revision = f
        .get(&Key::Desired("configmaps", key("settings")))
        .await
        .unwrap()
        .mod_revision;
    let status = |revision: i64| {
        let seen = content_seen::fingerprint(&spec, |_| Some(revision)).unwrap();
        format!(
            "observedGeneration: 1\nreplicas: 1\nupdatedReplicas: 1\nreadyReplicas: 1\navailableReplicas: 1\nobservedConfig: '{seen}'\n"
        )
    };
    let actual = Key::Actual("deployments", key("web"));
    f.put(&actual, &status(revision)).await;
    f.run(&["rollout", "status", "deploy/web"]).ok();
    f.apply(&config_map("settings", "2"));
    let mut running = Running::start(f.command(&["rollout", "status", "deploy/web"]));
    running
        .until("it waits", |out| {
            out.contains("ConfigMaps and Secrets of deployment \"web\" to be observed")
        })
        .await;
    let revision = f
        .get(&Key::Desired("configmaps", key("settings")))
        .await
        .unwrap()
        .mod_revision;
    f.put(&actual, &status(revision)).await;
    running
        .until("the end", |out| out.contains("successfully rolled out"))
        .await;
    assert_eq!(running.ended().await, Some(0));
}
