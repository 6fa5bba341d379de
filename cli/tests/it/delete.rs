//! Deleting: what is wanted goes at once, what runs is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use setpoint_apis::{Key, ObjectKey};
use setpoint_store::testing::{Options, TestEtcd};
use setpoint_store::{Compare, Txn};

use crate::fixture::{Fixture, Running, config_map, deployment, eventually, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_deleted_by_name_file_selector_and_kind() {
    let f = Fixture::new("delete").await;
    let manifest = format!(
        "{}---\n{}---\n{}",
        config_map("a", "1"),
        pod("p"),
        deployment("web", 1)
    );
    let file = f.file("m.yaml", &manifest);
    let path = file.to_str().unwrap();
    f.run(&["apply", "-f", path]).ok();
    assert_eq!(
        f.run(&["delete", "cm", "a"]).ok(),
        "configmap \"a\" deleted\n"
    );
    let ran = f.run(&["delete", "-f", path]);
    assert!(
        ran.out.contains("pod \"p\" deleted")
            && ran.out.contains("deployment.apps \"web\" deleted"),
        "{ran:?}"
    );
    assert!(ran.fails().contains("configmaps \"a\" not found"));
    f.run(&["delete", "-f", path, "--ignore-not-found"]).ok();
    f.run(&["apply", "-f", path]).ok();
    assert_eq!(
        f.run(&["delete", "pods", "-l", "app=p", "-o", "name"]).ok(),
        "pod/p\n"
    );
    f.run(&["delete", "cm", "--all"]).ok();
    assert_eq!(f.run(&["get", "cm,pods", "-o", "name"]).ok(), "");
    let err = f.run(&["delete", "deploy"]).fails();
    assert!(err.contains("--all"), "{err}");
    let out = f.run(&["delete", "deploy", "web", "--dry-run=server"]).ok();
    assert!(out.contains("(server dry run)"), "{out}");
    assert!(f.desired("deployments", "web").await.is_some());
    for unsupported in ["--force", "--now", "--grace-period=0"] {
        let err = f.run(&["delete", "deploy", "web", unsupported]).fails();
        assert!(err.contains("not supported"), "{err}");
    }
    assert!(f.desired("deployments", "web").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_of_all_kinds_are_listed_and_deleted() {
    let f = Fixture::new("delete-collections").await;
    let pods = "{metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: host}]}}";
    let apps = format!("selector: {{matchLabels: {{a: b}}}}, template: {pods}");
    let job = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: host}]}}";
    let cron = format!("schedule: '@daily', jobTemplate: {{spec: {{{job}}}}}");
    for (plural, kind, version, spec) in [
        ("deployments", "Deployment", "apps/v1", apps.as_str()),
        ("replicasets", "ReplicaSet", "apps/v1", &apps),
        ("statefulsets", "StatefulSet", "apps/v1", &apps),
        ("daemonsets", "DaemonSet", "apps/v1", &apps),
        ("jobs", "Job", "batch/v1", job),
        ("cronjobs", "CronJob", "batch/v1", &cron),
        (
            "limitranges",
            "LimitRange",
            "v1",
            "limits: [{type: Pod, max: {cpu: 1}}]",
        ),
        ("resourcequotas", "ResourceQuota", "v1", "hard: {pods: 9}"),
    ] {
        for (name, of) in [("a", "one"), ("b", "one"), ("c", "other")] {
            f.apply(&format!(
                "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, labels: {{of: {of}}}}}\nspec: {{{spec}}}\n"
            ));
        }
        let listed = |more: &[&str]| {
            let args = [&["get", plural, "-o", "name"], more].concat();
            let names = f.run(&args).ok();
            let names = names.lines().filter_map(|n| n.rsplit_once('/'));
            names.map(|(_, name)| name.to_owned()).collect::<String>()
        };
        assert_eq!(listed(&["-l", "of=one"]), "ab", "{plural}");
        f.run(&["delete", plural, "-l", "of=one"]).ok();
        assert_eq!(listed(&[]), "c", "{plural}");
        f.run(&["delete", plural, "--all"]).ok();
        assert_eq!(listed(&[]), "", "{plural}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_need_not_be_valid_to_delete_what_it_names() {
    let f = Fixture::new("delete-loose").await;
    f.apply(&format!("{}---\n{}", pod("p"), config_map("a", "1")));
    let text = format!(
        "{}---\napiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}}}\n",
        pod("p").replace("image", "imgae")
    );
    let out = f.run_with_input(&["delete", "-f", "-"], &text).ok();
    assert_eq!(out, "configmap \"a\" deleted\npod \"p\" deleted\n");
    let err = f
        .run_with_input(
            &["delete", "-f", "-"],
            &text.replace("name: a", "name: ../a"),
        )
        .fails();
    assert!(err.contains("not a valid name"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_waits_until_the_pod_has_stopped() {
    let f = Fixture::new("delete-wait").await;
    f.apply(&pod("p"));
    let binding =
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n";
    f.put(&Key::Binding(key("p")), binding).await;
    f.put(
        &Key::NodePod("n1", key("p")),
        "placement: 1\nuid: ''\nstage: Running\n",
    )
    .await;
    let err = f.run(&["delete", "pod", "p", "--timeout", "200ms"]).fails();
    assert!(err.contains("timed out waiting for pod/p"), "{err}");
    assert!(!err.contains("elapsed"), "{err}");
    assert_eq!(f.desired("pods", "p").await, None);
    let mut running = Running::start(f.command(&["delete", "pod", "p"]));
    running
        .until("the word", |out| out == "pod \"p\" deleted\n")
        .await;
    f.remove(&Key::NodePod("n1", key("p"))).await;
    f.remove(&Key::Binding(key("p"))).await;
    assert_eq!(running.ended().await, Some(0));
    let err = f.run(&["delete", "pod", "p"]).fails();
    assert!(err.contains("pods \"p\" not found"), "{err}");
    f.apply(&pod("p"));
    f.put(&Key::Binding(key("p")), binding).await;
    f.run(&["delete", "pod", "p", "--wait=false"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn cascades_leave_a_record_for_the_collector() {
    let f = Fixture::new("cascade").await;
    f.apply(&deployment("web", 1));
    f.run(&["delete", "deploy", "web", "--cascade=orphan"]).ok();
    assert_eq!(f.desired("deployments", "web").await, None);
    let record = f
        .get(&Key::Deletion("deployments", key("web")))
        .await
        .expect("a record");
    let record = String::from_utf8_lossy(&record.value).into_owned();
    assert!(
        record.contains("propagationPolicy: Orphan") && record.contains("uid: "),
        "{record}"
    );
    f.apply(&deployment("api", 1));
    f.run(&[
        "delete",
        "deploy",
        "api",
        "--cascade=foreground",
        "--wait=false",
    ])
    .ok();
    // The owner goes last, and the collector sees to that.
    assert!(f.desired("deployments", "api").await.is_some());
    assert!(
        f.get(&Key::Deletion("deployments", key("api")))
            .await
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_with_everything_in_it_at_one_revision() {
    let f = Fixture::new("delete-ns").await;
    f.run(&["create", "ns", "team"]).ok();
    for text in [pod("p"), deployment("web", 1), config_map("a", "1")] {
        f.run_with_input(&["apply", "-n", "team", "-f", "-"], &text)
            .ok();
    }
    f.apply(&config_map("stays", "1"));
    let foreign = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\n";
    f.put(
        &Key::Desired("widgets", ObjectKey::namespaced("team", "w")),
        foreign,
    )
    .await;
    assert_eq!(
        f.run(&["delete", "ns", "team"]).ok(),
        "namespace \"team\" deleted\n"
    );
    let left: Vec<String> = f
        .range(f.keyspace.all_desired())
        .await
        .into_iter()
        .map(|kv| kv.key)
        .collect();
    assert!(left.iter().all(|k| !k.contains("/team")), "{left:?}");
    assert!(
        left.iter()
            .any(|k| k.ends_with("/configmaps/default/stays"))
    );
    let err = f.run(&["delete", "ns", "default"]).fails();
    assert!(err.contains("may not be deleted"), "{err}");
    let err = f
        .run_with_input(&["apply", "-n", "team", "-f", "-"], &pod("p"))
        .fails();
    assert!(err.contains("namespaces \"team\" not found"), "{err}");
}

/// Kubernetes' own test wants 90 of them gone after 150 seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_namespaces_are_gone_within_the_time_that_kubernetes_gives_itself() {
    let f = Fixture::new("delete-many").await;
    let names: Vec<String> = (0..100).map(|i| format!("team-{i}")).collect();
    let mut manifest = String::new();
    for name in &names {
        manifest += &format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n{}---\n{}",
            pod("p").replacen("name: p", &format!("namespace: {name}\n  name: p"), 1),
            config_map("a", "1").replacen("name: a", &format!("namespace: {name}\n  name: a"), 1),
        );
    }
    f.run_with_input(&["apply", "--split", "-f", "-"], &manifest)
        .ok();
    let left = async || {
        let all = f.range(f.keyspace.all_desired()).await;
        all.iter().filter(|kv| kv.key.contains("/team-")).count()
    };
    assert_eq!(left().await, 300);
    let args: Vec<&str> = ["delete", "ns"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let begun = Instant::now();
    let out = f.run(&args).ok();
    let took = begun.elapsed();
    assert_eq!(out.lines().count(), 100, "{out}");
    assert_eq!(left().await, 0);
    assert!(took < Duration::from_secs(150), "it took {took:?}");
}

/// Creators of all sorts while the namespace goes: nothing of theirs is left, not even of kinds that nobody had before.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_created_while_a_namespace_goes_survives_it() {
    let f = Fixture::new("delete-race").await;
    let namespace = f.key(&Key::Desired("namespaces", ObjectKey::cluster("team")));
    for round in 0..3 {
        f.run(&["create", "ns", "team"]).ok();
        let creators: Vec<_> = (0..8)
            .map(|who| {
                let (store, keyspace) = (f.store.clone(), f.keyspace.clone());
                let namespace = namespace.clone();
                tokio::spawn(async move {
                    // As `apply` and the controllers do it.
                    for i in 0.. {
                        let plural = match who {
                            0..3 => "configmaps".to_owned(),
                            3 => "pods".to_owned(),
                            // Kinds that nobody had before, a few.
                            _ => format!("widgets{round}x{who}x{}", (i / 20).min(4)),
                        };
                        let key = ObjectKey::namespaced("team", format!("o{who}-{i}"));
                        let key = keyspace.build(&Key::Desired(&plural, key));
                        let txn = Txn::new()
                            .when(Compare::absent(key.clone()))
                            .when(Compare::Exists(namespace.clone()))
                            .put(key, "kind: Any\n");
                        if !store.txn(txn).await.expect("a transaction").succeeded {
                            return i;
                        }
                    }
                    0
                })
            })
            .collect();
        let ran = std::thread::scope(|s| {
            for i in 0..3 {
                let f = &f;
                s.spawn(move || {
                    let text = config_map(&format!("applied{i}"), "1");
                    f.run_with_input(&["apply", "-n", "team", "-f", "-"], &text)
                });
            }
            f.run(&["delete", "ns", "team"])
        });
        ran.ok();
        let mut created = 0;
        for creator in creators {
            created += creator.await.unwrap();
        }
        assert!(created > 0, "nobody raced");
        let left: Vec<String> = f
            .range(f.keyspace.all_desired())
            .await
            .into_iter()
            .map(|kv| kv.key)
            .filter(|k| k.contains("/team"))
            .collect();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
}

/// A manifest that holds the namespace as well, which is there already, so that it is not written.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_created_in_a_namespace_that_is_gone_although_the_manifest_has_it_too() {
    let f = Fixture::new("delete-own-race").await;
    let team = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n";
    let namespace = Key::Desired("namespaces", ObjectKey::cluster("team"));
    let map = Key::Desired("configmaps", ObjectKey::namespaced("team", "a"));
    f.put(&namespace, team).await;
    let over = AtomicBool::new(false);
    let text = config_map("a", "1").replace("name: a", "name: a\n  namespace: team");
    let text = format!("{team}---\n{text}");
    let applied = std::thread::scope(|s| {
        let applies = s.spawn(|| {
            let apply = |_: &i32| f.run_with_input(&["apply", "-f", "-"], &text).code == Some(0);
            let applied = (0..40).filter(apply).count();
            over.store(true, Ordering::Relaxed);
            applied
        });
        let (handle, f, over) = (tokio::runtime::Handle::current(), &f, &over);
        let (namespace, map) = (&namespace, &map);
        let coming_and_going = s.spawn(move || {
            handle.block_on(async move {
                while !over.load(Ordering::Relaxed) {
                    let gone = Txn::new().delete(f.key(namespace)).delete(f.key(map));
                    let mut last = f.store.txn(gone).await.expect("a transaction").revision;
                    // As long as it is gone; whoever writes it makes it exist.
                    for _ in 0..10 {
                        let (kv, at) = f.store.get(&f.key(map)).await.expect("a read");
                        let is_there = f.get(namespace).await.is_some();
                        assert!(
                            kv.is_none() || is_there,
                            "written between {last:?} and {at:?}"
                        );
                        last = at;
                    }
                    f.put(namespace, team).await;
                    for _ in 0..10 {
                        f.get(namespace).await;
                    }
                }
            });
        });
        let applied = applies.join().expect("the applies");
        coming_and_going.join().expect("the others");
        applied
    });
    assert!(applied > 0, "nothing was ever applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_created_anew_meanwhile_is_not_taken_for_gone_or_deleted() {
    let f = Fixture::new("delete-anew").await;
    f.apply(&pod("p"));
    f.put(
        &Key::Binding(key("p")),
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n",
    )
    .await;
    let mut running = Running::start(f.command(&["delete", "pod", "p"]));
    running
        .until("the word", |out| out.contains("deleted"))
        .await;
    // A pod of the same name: the one that was deleted is gone.
    f.remove(&Key::Binding(key("p"))).await;
    f.apply(&pod("p"));
    assert_eq!(running.ended().await, Some(0));
    eventually("the new pod", || {
        f.run(&["get", "pod", "p"])
            .out
            .contains('p')
            .then_some(())
            .ok_or_else(String::new)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreground_deletion_ends_when_the_last_pod_has_stopped() {
    let f = Fixture::new("cascade-wait").await;
    let uid = |kind: &str, name: &str| {
        let path = "jsonpath={.metadata.uid}";
        f.run(&["get", kind, name, "-o", path]).ok()
    };
    let owned_by = |kind: &str, name: &str| {
        let uid = uid(kind, name);
        format!(
            "ownerReferences: [{{apiVersion: apps/v1, kind: {kind}, name: {name}, uid: {uid}}}]"
        )
    };
    let binding = "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n\
                   withdrawn: {reason: Deleted, at: 2026-01-01T00:00:01Z}\n";
    for stops in [false, true] {
        f.apply(&deployment("web", 1));
        let set = deployment("web-1", 1)
            .replace("kind: Deployment", "kind: ReplicaSet")
            .replace(
                "  name: web-1\n",
                &format!("  name: web-1\n  {}\n", owned_by("Deployment", "web")),
            );
        f.apply(&set);
        // Its one pod is being stopped.
        let actual = format!(
            "placement: 1\nuid: u-p\nstage: Stopping\nmetadata: {{{}}}\n",
            owned_by("ReplicaSet", "web-1")
        );
        f.put(&Key::Binding(key("p")), binding).await;
        f.put(&Key::NodePod("n1", key("p")), &actual).await;
        let limit = if stops { "0" } else { "2s" };
        let mut deleting = Running::start(f.command(&[
            "delete",
            "deploy",
            "web",
            "--cascade=foreground",
            "--timeout",
            limit,
        ]));
        deleting
            .until("the word", |out| out.contains("\"web\" deleted"))
            .await;
        // As the collector would.
        f.remove(&Key::Desired("replicasets", key("web-1"))).await;
        f.remove(&Key::Desired("deployments", key("web"))).await;
        f.remove(&Key::Deletion("deployments", key("web"))).await;
        if stops {
            f.remove(&Key::NodePod("n1", key("p"))).await;
            f.remove(&Key::Binding(key("p"))).await;
        }
        assert_eq!(deleting.ended().await, Some(i32::from(!stops)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_full_takes_deletions_or_says_what_to_do() {
    let options = Options {
        quota_bytes: Some(300_000),
        ..Options::default()
    };
    let f = Fixture::of(Arc::new(TestEtcd::start_with(options).await), "full").await;
    f.run(&["init"]).ok();
    f.apply(&deployment("web", 1));
    let big = "y".repeat(30_000);
    let refused = (0..40)
        .map(|i| f.run_with_input(&["apply", "-f", "-"], &config_map(&format!("m{i}"), &big)))
        .find(|ran| ran.code != Some(0))
        .expect("its quota is small");
    assert!(refused.fails().contains("NOSPACE"));
    // A record of how to delete has to be written.
    let err = f
        .run(&["delete", "deploy", "web", "--cascade=orphan"])
        .fails();
    assert!(
        err.contains("NOSPACE") && err.contains("deleting again is safe"),
        "{err}"
    );
    let ran = f.run(&["delete", "cm", "m0"]);
    match ran.code {
        Some(0) => assert_eq!(f.desired("configmaps", "m0").await, None),
        // Old versions refuse whatever comes in a transaction.
        _ => assert!(ran.fails().contains("deleting again is safe")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_with_their_namespace_and_others_stay() {
    let f = Fixture::new("delete-events").await;
    for name in ["q", "q2"] {
        f.apply(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
        ));
    }
    let event = |node, namespace| Key::Event {
        node,
        namespace,
        id: "e",
    };
    for node in [None, Some("n1")] {
        for namespace in ["q", "q2"] {
            f.put(&event(node, namespace), "reason: R\n").await;
        }
    }
    f.run(&["delete", "ns", "q"]).ok();
    for node in [None, Some("n1")] {
        assert_eq!(f.get(&event(node, "q")).await, None, "{node:?}");
        assert!(f.get(&event(node, "q2")).await.is_some(), "{node:?}");
    }
}
