//! What `apply` would have refused, written by hand: it is said, and nothing is lost.

use setpoint_apis::apps::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{Event, Pod};
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_runtime::View;
use setpoint_runtime::events::Recorder;
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::{RangeRequest, Txn};
use tokio_util::sync::CancellationToken;

use crate::daemonset::add_node;
use crate::rig::{Process, Rig};
use crate::{controllers, rig};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// A manifest of a kind of `apps/v1` whose pods have the labels `app` and `tier`; `more` are lines of its spec.
fn apps(kind: &str, name: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n{more}  template:\n    \
         metadata: {{labels: {{app: {name}, tier: front}}}}\n    spec: {{containers: [{{name: c, image: host}}]}}\n"
    )
}

fn batch(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec:\n{spec}"
    )
}

/// Reason and message of a condition that is so.
fn condition(
    view: &View<'_>,
    plural: &str,
    key: &ObjectKey,
    type_: &str,
) -> Option<(String, String)> {
    let workload = |all: &[setpoint_apis::apps::WorkloadCondition]| {
        let mut all = all.iter();
        let found = all.find(|c| c.type_ == type_ && c.status == "True")?;
        Some((found.reason.clone()?, found.message.clone()?))
    };
    match plural {
        Deployment::PLURAL => workload(&view.actual::<Deployment>().get(key)?.value.conditions),
        ReplicaSet::PLURAL => workload(&view.actual::<ReplicaSet>().get(key)?.value.conditions),
        StatefulSet::PLURAL => workload(&view.actual::<StatefulSet>().get(key)?.value.conditions),
        DaemonSet::PLURAL => workload(&view.actual::<DaemonSet>().get(key)?.value.conditions),
        CronJob::PLURAL => workload(&view.actual::<CronJob>().get(key)?.value.conditions),
        Job::PLURAL => {
            let mut all = view.actual::<Job>().get(key)?.value.conditions.iter();
            let found = all.find(|c| c.type_ == type_ && c.status == "True")?;
            Some((found.reason.clone()?, found.message.clone()?))
        }
        other => panic!("{other} have no conditions"),
    }
}

/// Whether what may not change of an object is recorded.
fn is_recorded(view: &View<'_>, plural: &str, key: &ObjectKey) -> Option<bool> {
    Some(match plural {
        Deployment::PLURAL => view.actual::<Deployment>().get(key)?.value.fixed.is_some(),
        ReplicaSet::PLURAL => view.actual::<ReplicaSet>().get(key)?.value.fixed.is_some(),
        StatefulSet::PLURAL => view.actual::<StatefulSet>().get(key)?.value.fixed.is_some(),
        DaemonSet::PLURAL => view.actual::<DaemonSet>().get(key)?.value.fixed.is_some(),
        _ => view.actual::<Job>().get(key)?.value.fixed.is_some(),
    })
}

async fn put(rig: &Rig, plural: &'static str, key: &ObjectKey, text: &str) {
    rig.put(&Key::Desired(plural, key.clone()), text).await;
}

async fn nodes(rig: &Rig) {
    for name in ["n0", "n1", "n2"] {
        add_node(rig, name, "{}").await;
    }
}

const CLAIMS: &str = "  serviceName: peers\n  podManagementPolicy: Parallel\n  volumeClaimTemplates:\n  - metadata: {name: data}\n    \
                      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
const SUM: &str = "  completions: 2\n  parallelism: 2\n  template:\n    \
                   spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n";
const MODES: &str = "  completionMode: Indexed\n  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, \
                     values: [1]}}]}\n";

struct Case {
    plural: &'static str,
    name: &'static str,
    good: String,
    pods: usize,
    /// What is written instead of what, and which field the condition names.
    edits: Vec<(&'static str, &'static str, &'static str)>,
}

fn cases() -> Vec<Case> {
    let selector = |name: &'static str| match name {
        "web" => (
            "matchLabels: {app: web}",
            "matchLabels: {tier: front}",
            "spec.selector",
        ),
        "log" => (
            "matchLabels: {app: log}",
            "matchLabels: {tier: front}",
            "spec.selector",
        ),
        "db" => (
            "matchLabels: {app: db}",
            "matchLabels: {tier: front}",
            "spec.selector",
        ),
        _ => (
            "matchLabels: {app: set}",
            "matchLabels: {tier: front}",
            "spec.selector",
        ),
    };
    vec![
        Case {
            plural: Deployment::PLURAL,
            name: "web",
            good: apps("Deployment", "web", "  replicas: 2\n"),
            pods: 2,
            edits: vec![selector("web")],
        },
        Case {
            plural: ReplicaSet::PLURAL,
            name: "set",
            good: apps("ReplicaSet", "set", "  replicas: 2\n"),
            pods: 2,
            edits: vec![selector("set")],
        },
        Case {
            plural: DaemonSet::PLURAL,
            name: "log",
            good: apps("DaemonSet", "log", ""),
            pods: 3,
            edits: vec![selector("log")],
        },
        Case {
            plural: StatefulSet::PLURAL,
            name: "db",
            good: apps("StatefulSet", "db", &format!("  replicas: 2\n{CLAIMS}")),
            pods: 2,
            edits: vec![
                selector("db"),
                (
                    "serviceName: peers",
                    "serviceName: others",
                    "spec.serviceName",
                ),
                (
                    "policy: Parallel",
                    "policy: OrderedReady",
                    "spec.podManagementPolicy",
                ),
                ("storage: 1Gi", "storage: 2Gi", "spec.volumeClaimTemplates"),
            ],
        },
        Case {
            plural: Job::PLURAL,
            name: "sum",
            good: batch("Job", "sum", SUM),
            pods: 2,
            edits: vec![
                ("completions: 2", "completions: 3", "spec.completions"),
                ("image: host", "image: other", "spec.template"),
            ],
        },
        Case {
            plural: Job::PLURAL,
            name: "parts",
            good: batch("Job", "parts", &format!("{MODES}{SUM}")),
            pods: 2,
            edits: vec![
                ("Mode: Indexed", "Mode: NonIndexed", "spec.completionMode"),
                ("values: [1]", "values: [2]", "spec.podFailurePolicy"),
                (
                    "completions: 2",
                    "completions: 2\n  managedBy: example.com/a",
                    "spec.managedBy",
                ),
            ],
        },
    ]
}

#[tokio::test]
async fn a_field_that_may_not_change_and_was_changed_by_hand_is_said_and_no_pod_is_lost() {
    let rig = rig("by-hand").await;
    nodes(&rig).await;
    let mut process = controllers(&rig).await;
    let _agents = rig.agents();
    for mut case in cases() {
        // `policy:` is the end of a longer word.
        for edit in &mut case.edits {
            if edit.0.starts_with("policy") {
                *edit = (
                    "podManagementPolicy: Parallel",
                    "podManagementPolicy: OrderedReady",
                    edit.2,
                );
            }
        }
        let (plural, name) = (case.plural, key(case.name));
        put(&rig, plural, &name, &case.good).await;
        rig.until(&format!("{plural} has its pods"), |view| {
            let ready = view
                .desired::<Pod>()
                .iter()
                .filter(|(pod, _)| view.pod_actual(pod).is_some_and(|a| a.value.is_ready()));
            (ready.count() == case.pods && is_recorded(view, plural, &name)?).then_some(())
        })
        .await;
        rig.settled().await;
        let pods = rig.pods();
        let owners = |rig: &Rig| -> Vec<Option<String>> {
            let view = rig.cache.view();
            let pods = view.desired::<Pod>().iter();
            pods.map(|(_, p)| p.value.metadata.controller().map(|c| c.uid.clone()))
                .collect()
        };
        let owned = owners(&rig);
        let history = rig.history().await;
        for (i, (from, to, path)) in case.edits.iter().enumerate() {
            let bad = case.good.replacen(from, to, 1);
            assert_ne!(bad, case.good, "{from}");
            put(&rig, plural, &name, &bad).await;
            let said = |view: &View<'_>| condition(view, plural, &name, "Invalid");
            let (reason, message) = rig.until(&format!("{plural}: {path} is said"), said).await;
            assert_eq!(reason, "ImmutableFieldChanged", "{message}");
            assert!(
                message.starts_with(path) && message.contains("put it back"),
                "{message}"
            );
            if i == 0 {
                // Who comes next knows it too.
                process.crash();
                process = controllers(&rig).await;
            }
            rig.settled().await;
            put(&rig, plural, &name, &case.good).await;
            rig.until(&format!("{plural}: all is well again"), |view| {
                is_recorded(view, plural, &name)?;
                condition(view, plural, &name, "Invalid")
                    .is_none()
                    .then_some(())
            })
            .await;
        }
        rig.settled().await;
        assert_eq!((rig.pods(), owners(&rig)), (pods, owned), "{plural}");
        assert_eq!(history.deleted(), Vec::<String>::new(), "{plural}");
        // The next case begins with nothing.
        let gone = rig.keyspace.build(&Key::Desired(plural, name.clone()));
        let mut txn = Txn::new().delete(gone);
        let sets: Vec<ObjectKey> = {
            let view = rig.cache.view();
            view.desired::<ReplicaSet>()
                .entries()
                .map(|(k, _)| k.clone())
                .collect()
        };
        for set in sets {
            txn = txn.delete(rig.keyspace.build(&Key::Desired(ReplicaSet::PLURAL, set)));
        }
        rig.store.txn(txn).await.unwrap();
        for pod in rig.pods() {
            let pod = rig.keyspace.build(&Key::Desired(Pod::PLURAL, key(&pod)));
            let done = rig.store.txn(Txn::new().delete(pod)).await.unwrap();
            rig.cache.wait_for(done.revision).await;
        }
        rig.until("nothing is left", |view| {
            (view.desired::<Pod>().is_empty() && view.bindings().is_empty()).then_some(())
        })
        .await;
    }
}

/// Documents that `apply` refuses, each with what the condition says of it.
#[tokio::test]
async fn a_document_that_cannot_be_is_said_and_nothing_is_made_of_it() {
    let rig = rig("by-hand-bad").await;
    let _process = controllers(&rig).await;
    let annotated = |kind: &str, name: &str, annotation: &str| {
        let plain = format!("name: {name}, namespace: default");
        apps(kind, name, "").replacen(
            &plain,
            &format!("{plain}, annotations: {{{annotation}}}"),
            1,
        )
    };
    let rolling = |kind: &str, name: &str, field: &str, strategy: &str| {
        apps(
            kind,
            name,
            &format!("  {field}: {{rollingUpdate: {{{strategy}}}}}\n"),
        )
    };
    let other = |kind: &str, name: &str| {
        apps(kind, name, "").replacen("matchLabels: {app", "matchLabels: {other", 1)
    };
    let to_all = |kind: &str, name: &str| {
        apps(kind, name, "").replacen(&format!("{{app: {name}}}"), "{}", 1)
    };
    let of_pods = |name: &str, annotation: &str| {
        let bad = format!("tier: front}}, annotations: {{{annotation}}}}}");
        apps("Deployment", name, "").replacen("tier: front}}", &bad, 1)
    };
    const EMPTY: &str = "spec.selector: must not be empty";
    let jobs = "  jobTemplate:\n    spec:\n      template:\n        \
                spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n";
    let cases: Vec<(&'static str, &str, String, &str)> = vec![
        (
            Deployment::PLURAL,
            "a",
            other("Deployment", "a"),
            "does not select the pods of this template",
        ),
        (
            ReplicaSet::PLURAL,
            "b",
            other("ReplicaSet", "b"),
            "does not select the pods of this template",
        ),
        (
            StatefulSet::PLURAL,
            "c",
            other("StatefulSet", "c"),
            "does not select the pods of this template",
        ),
        (
            DaemonSet::PLURAL,
            "d",
            other("DaemonSet", "d"),
            "does not select the pods of this template",
        ),
        (
            Deployment::PLURAL,
            "e",
            rolling("Deployment", "e", "strategy", "maxUnavailable: 101%"),
            "101% is more than 100%",
        ),
        (
            StatefulSet::PLURAL,
            "f",
            rolling("StatefulSet", "f", "updateStrategy", "maxUnavailable: 101%"),
            "101% is more than 100%",
        ),
        (
            DaemonSet::PLURAL,
            "g",
            rolling(
                "DaemonSet",
                "g",
                "updateStrategy",
                "maxUnavailable: 0, maxSurge: 101%",
            ),
            "101% is more than 100%",
        ),
        (
            CronJob::PLURAL,
            "h",
            batch("CronJob", "h", &format!("  schedule: 0 0 31 2 *\n{jobs}")),
            "never fires",
        ),
        (
            StatefulSet::PLURAL,
            "i",
            annotated(
                "StatefulSet",
                "i",
                "setpoint.dev/progress-deadline-seconds: soon",
            ),
            "not a number of seconds",
        ),
        (
            Deployment::PLURAL,
            "j",
            annotated("Deployment", "j", "setpoint.dev/rollback-on-failure: maybe"),
            "not one of true, false",
        ),
        (
            Deployment::PLURAL,
            "k",
            apps("Deployment", "k", "  minReadySeconds: 600\n"),
            "must be more than minReadySeconds",
        ),
        (
            Job::PLURAL,
            "l",
            batch("Job", "l", &format!("  managedBy: me\n{SUM}")),
            "not a name with a domain",
        ),
        (
            Job::PLURAL,
            "m",
            batch("Job", "m", &format!("  backoffLimitPerIndex: 1\n{SUM}")),
            "has a meaning only when the completionMode is Indexed",
        ),
        (Deployment::PLURAL, "n", to_all("Deployment", "n"), EMPTY),
        (ReplicaSet::PLURAL, "o", to_all("ReplicaSet", "o"), EMPTY),
        (StatefulSet::PLURAL, "p", to_all("StatefulSet", "p"), EMPTY),
        (DaemonSet::PLURAL, "q", to_all("DaemonSet", "q"), EMPTY),
        (
            Deployment::PLURAL,
            "r",
            rolling(
                "Deployment",
                "r",
                "strategy",
                "maxUnavailable: 0, maxSurge: 0%",
            ),
            "must not be 0 when maxSurge is 0",
        ),
        (
            DaemonSet::PLURAL,
            "s",
            rolling("DaemonSet", "s", "updateStrategy", "maxUnavailable: 0"),
            "must not be 0 when maxSurge is 0",
        ),
        (
            StatefulSet::PLURAL,
            "t",
            rolling("StatefulSet", "t", "updateStrategy", "maxUnavailable: 0"),
            "must not be 0: nothing could move",
        ),
        (
            Deployment::PLURAL,
            "u",
            annotated("Deployment", "u", "setpoint.dev/config-rollout: maybe"),
            "not one of true, false",
        ),
        (
            Deployment::PLURAL,
            "v",
            of_pods("v", "setpoint.dev/partition-policy: wait"),
            "not one of replace, keep, stop",
        ),
        (
            Deployment::PLURAL,
            "w",
            of_pods("w", "controller.kubernetes.io/pod-deletion-cost: '07'"),
            "not a whole number of 32 bits",
        ),
        (
            Deployment::PLURAL,
            "x",
            "metadata: [".into(),
            "the document does not parse",
        ),
        (
            Deployment::PLURAL,
            "y",
            apps("Deployment", "y", "  replicas: [2]\n"),
            "spec.replicas",
        ),
    ];
    for (plural, name, text, expected) in &cases {
        put(&rig, plural, &key(name), text).await;
        let said = |view: &View<'_>| condition(view, plural, &key(name), "Invalid");
        let (reason, message) = rig.until(&format!("{plural} {name} is said"), said).await;
        assert_eq!(reason, "DocumentInvalid");
        assert!(message.contains(expected), "{name}: {message}");
    }
    rig.settled().await;
    let view = rig.cache.view();
    let made = [
        view.desired::<Pod>().len(),
        view.desired::<ReplicaSet>().len() - 2,
    ];
    assert_eq!(
        made,
        [0, 0],
        "but for the ReplicaSets that were written here"
    );
    assert_eq!(
        view.desired::<Job>().len(),
        2,
        "those that were written here"
    );
}

/// Controllers whose events are written.
pub(crate) async fn telling(rig: &Rig) -> (Process, CancellationToken) {
    let (store, keyspace) = (rig.store.clone(), rig.keyspace.clone());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let process = rig
        .process("workloads", move |leader, clock, _| {
            let commits = GroupCommit::new(store.clone(), Options::default());
            let (recorder, driver) = Recorder::new(
                store.clone(),
                commits,
                keyspace.clone(),
                clock.clone(),
                "workloads",
                None,
                stopped.clone(),
            );
            tokio::spawn(driver);
            setpoint_workloads::run(leader, clock, recorder, 1)
        })
        .await;
    (process, stop)
}

/// Waits for an event of this reason about an object, until it was told so many times.
pub(crate) async fn told(rig: &Rig, reason: &str, name: &str, times: i32) -> String {
    let range = rig.keyspace.all_events();
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let request = RangeRequest {
            start: range.start.clone(),
            end: range.end.clone(),
            ..RangeRequest::default()
        };
        for kv in rig.store.range(request).await.unwrap().kvs {
            let event: Event = document::decode_value(&kv.value).unwrap();
            let about = event.involved_object.name.as_deref();
            let count = event.count.unwrap_or(1);
            if event.reason.as_deref() == Some(reason) && about == Some(name) && count >= times {
                return event.message.unwrap_or_default();
            }
        }
        assert!(
            tokio::time::Instant::now() < limit,
            "no event {reason} about {name}"
        );
        // Events have no cache; this is the pace of looking.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn of_two_that_select_the_same_pods_the_younger_says_so_and_takes_on_nothing() {
    let rig = rig("overlap").await;
    let ((_process, _stop), _agents) = (telling(&rig).await, rig.agents());
    let set = |name: &str, replicas: i32| {
        apps("ReplicaSet", name, &format!("  replicas: {replicas}\n"))
            .replace(&format!("app: {name}"), "app: both")
    };
    let (older, younger) = (key("older"), key("younger"));
    put(&rig, ReplicaSet::PLURAL, &older, &set("older", 1)).await;
    put(&rig, ReplicaSet::PLURAL, &younger, &set("younger", 2)).await;
    let overlap = |key: ObjectKey| {
        move |view: &View<'_>| condition(view, ReplicaSet::PLURAL, &key, "SelectorOverlap")
    };
    let (reason, message) = rig
        .until("the younger says so", overlap(younger.clone()))
        .await;
    assert_eq!(reason, "SelectorOverlaps");
    assert!(
        message.starts_with("replicaset.apps/older is older"),
        "{message}"
    );
    assert_eq!(told(&rig, "SelectorOverlaps", "younger", 1).await, message);
    let available = |name: ObjectKey, n: i32| {
        move |view: &View<'_>| {
            let status = &view.actual::<ReplicaSet>().get(&name)?.value;
            (status.available_replicas == Some(n)).then_some(())
        }
    };
    rig.until("each has its pods", available(younger.clone(), 2))
        .await;
    rig.until("each has its pods", available(older.clone(), 1))
        .await;
    assert_eq!(overlap(older.clone())(&rig.cache.view()), None);

    // Of a pod that is nobody's the older one takes care.
    let loose = key("loose");
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: loose, namespace: default, labels: {app: both}}\n\
                spec: {containers: [{name: c, image: host}]}\n";
    put(&rig, ReplicaSet::PLURAL, &older, &set("older", 2)).await;
    put(&rig, ReplicaSet::PLURAL, &younger, &set("younger", 3)).await;
    rig.until("each has its pods", available(older.clone(), 2))
        .await;
    rig.until("each has its pods", available(younger.clone(), 3))
        .await;
    put(&rig, Pod::PLURAL, &loose, text).await;
    rig.until(
        "the older one has taken it on, and has one too many",
        |view| {
            let of = |owner: &str| {
                let all = view.desired::<Pod>().iter().filter(|(_, p)| {
                    p.value
                        .metadata
                        .controller()
                        .is_some_and(|c| c.name == owner)
                });
                all.count()
            };
            (of("older") == 2 && of("younger") == 3 && view.desired::<Pod>().len() == 5)
                .then_some(())
        },
    )
    .await;

    // Of three the oldest is named, and when that is gone the next one.
    let third = key("third");
    put(&rig, ReplicaSet::PLURAL, &third, &set("third", 0)).await;
    let names = |who: &'static str| {
        let third = third.clone();
        move |view: &View<'_>| {
            let (_, message) = condition(view, ReplicaSet::PLURAL, &third, "SelectorOverlap")?;
            message
                .starts_with(&format!("replicaset.apps/{who} is older"))
                .then_some(())
        }
    };
    rig.until("the third names the oldest", names("older"))
        .await;

    // When the older one is gone nothing is to be said of the next any more.
    let gone = rig.keyspace.build(&Key::Desired(ReplicaSet::PLURAL, older));
    rig.store.txn(Txn::new().delete(gone)).await.unwrap();
    rig.until("the younger is alone", |view| {
        overlap(younger.clone())(view).is_none().then_some(())
    })
    .await;
    rig.until("the third names the next", names("younger"))
        .await;
}

#[tokio::test]
async fn a_deployment_and_a_stateful_set_of_the_same_labels_are_told_apart_by_age() {
    let rig = rig("overlap-kinds").await;
    let ((_process, _stop), _agents) = (telling(&rig).await, rig.agents());
    put(
        &rig,
        Deployment::PLURAL,
        &key("web"),
        &apps("Deployment", "web", ""),
    )
    .await;
    let db = apps("StatefulSet", "db", "").replace("app: db", "app: web");
    put(&rig, StatefulSet::PLURAL, &key("db"), &db).await;
    let overlap =
        |view: &View<'_>| condition(view, StatefulSet::PLURAL, &key("db"), "SelectorOverlap");
    let (_, message) = rig.until("it is said", overlap).await;
    assert!(
        message.starts_with("deployment.apps/web is older"),
        "{message}"
    );
    // By hand the selector of the Deployment becomes another one: it is frozen, and people are told.
    let bad = apps("Deployment", "web", "").replacen("{app: web}", "{tier: front}", 1);
    put(&rig, Deployment::PLURAL, &key("web"), &bad).await;
    let message = told(&rig, "ImmutableFieldChanged", "web", 1).await;
    assert!(message.starts_with("spec.selector"), "{message}");
}

#[tokio::test]
async fn an_autoscaler_decides_for_a_replica_set_too() {
    let rig = rig("rs-autoscaler").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    let scaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: set, namespace: default}\nspec:\n  \
                  scaleTargetRef: {apiVersion: apps/v1, kind: ReplicaSet, name: set}\n  maxReplicas: 4\n";
    let set = key("set");
    let text = apps("ReplicaSet", "set", "  replicas: 2\n");
    put(&rig, ReplicaSet::PLURAL, &set, &text).await;
    rig.put_desired::<HorizontalPodAutoscaler>(&set, scaler)
        .await;
    let record = Key::Actual(HorizontalPodAutoscaler::PLURAL, set.clone());
    for (decided, pods) in [(3, 3), (100, 4), (1, 1)] {
        rig.put(&record, &format!("desiredReplicas: {decided}\n"))
            .await;
        rig.until(&format!("there are {pods} pods"), |view| {
            let status = &view.actual::<ReplicaSet>().get(&set)?.value;
            (status.available_replicas == Some(pods) && status.replicas == pods).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn an_autoscaler_decides_for_a_stateful_set_too() {
    let rig = rig("sts-autoscaler").await;
    let ((_process, _stop), _agents) = (telling(&rig).await, rig.agents());
    let db = key("db");
    let text = apps("StatefulSet", "db", "  replicas: 2\n");
    put(&rig, StatefulSet::PLURAL, &db, &text).await;
    let text_of_scaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: db, namespace: default}\nspec:\n  \
                          scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: db}\n  minReplicas: 2\n  maxReplicas: 4\n";
    rig.put_desired::<HorizontalPodAutoscaler>(&db, text_of_scaler)
        .await;
    let record = Key::Actual(HorizontalPodAutoscaler::PLURAL, db.clone());
    for (decided, pods, said) in [(3, 3, Some(3)), (100, 4, Some(4)), (1, 2, None)] {
        rig.put(&record, &format!("desiredReplicas: {decided}\n"))
            .await;
        rig.until(&format!("there are {pods} pods"), |view| {
            let status = &view.actual::<StatefulSet>().get(&db)?.value;
            (status.available_replicas == Some(pods)
                && status.replicas == pods
                && status.desired_replicas == said)
                .then_some(())
        })
        .await;
    }
    rig.put(&record, "desiredReplicas: 3\n").await;
    rig.until("there are 3 pods", |view| {
        let status = &view.actual::<StatefulSet>().get(&db)?.value;
        (status.available_replicas == Some(3)).then_some(())
    })
    .await;
    // Applying the manifest again changes no size.
    put(&rig, StatefulSet::PLURAL, &db, &text).await;
    rig.until("the generation is observed", |view| {
        let generation = view.desired::<StatefulSet>().get(&db)?.version;
        let status = &view.actual::<StatefulSet>().get(&db)?.value;
        (status.observed_generation == Some(generation)).then_some(())
    })
    .await;
    assert_eq!(
        rig.pods(),
        ["db-0", "db-1", "db-2"].map(String::from).into()
    );

    // Nor does breaking the autoscaler, which is told of while it lasts.
    rig.put_desired::<HorizontalPodAutoscaler>(&db, "spec: [")
        .await;
    let said =
        |view: &View<'_>| condition(view, StatefulSet::PLURAL, &key("db"), "AutoscalerInvalid");
    let (reason, message) = rig.until("the condition says so", said).await;
    assert!(
        message.contains("`setpoint edit hpa db -n default`"),
        "{message}"
    );
    assert_eq!(told(&rig, &reason, "db", 1).await, message);
    rig.put_desired::<HorizontalPodAutoscaler>(&db, text_of_scaler)
        .await;
    rig.until("nothing is said any more", |view| {
        said(view).is_none().then_some(())
    })
    .await;
    assert_eq!(rig.pods().len(), 3);
}
