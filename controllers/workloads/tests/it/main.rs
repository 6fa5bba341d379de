//! Workload controllers against a real etcd. Scheduler and agents are played by a task that binds pods and makes them
//! ready a few at a time.

mod by_hand;
mod daemonset;
mod doors;
mod jobs;
mod revisions;
mod rig;
mod stateful_set;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::Pod;
use setpoint_apis::policy::PodDisruptionBudget;
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_runtime::Clock;
use setpoint_store::testing::{Options, TestEtcd};
use setpoint_store::{Revision, Txn};
use setpoint_workloads::index::OwnerIndex;
use setpoint_workloads::owner::{PodOwner, Takers, takers};

use rig::{BROKEN, Process, Rig};

async fn rig(name: &str) -> Rig {
    Rig::start(name, setpoint_workloads::register).await
}

async fn controllers(rig: &Rig) -> Process {
    rig.process("workloads", |leader, clock, recorder| {
        setpoint_workloads::run(leader, clock, recorder, 1)
    })
    .await
}

fn web() -> ObjectKey {
    ObjectKey::namespaced("default", "web")
}

fn manifest(replicas: i32, image: &str, strategy: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: default}}\nspec:\n  \
         replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  strategy: {strategy}\n  template:\n    \
         metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: c, image: {image}}}]}}\n"
    )
}

async fn apply(rig: &Rig, replicas: i32, image: &str, strategy: &str) -> Revision {
    rig.put_desired::<Deployment>(&web(), &manifest(replicas, image, strategy))
        .await
}

const DEFAULT: &str = "{}";
const RECREATE: &str = "{type: Recreate}";

fn sets(rig: &Rig) -> Vec<(ObjectKey, i32)> {
    let view = rig.cache.view();
    view.desired::<ReplicaSet>()
        .iter()
        .map(|(k, s)| (k.clone(), s.value.spec.replicas()))
        .collect()
}

#[tokio::test]
async fn a_deployment_becomes_available_is_scaled_and_writes_nothing_when_it_is_done() {
    let rig = rig("basic").await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    for replicas in [3, 10, 2, 0, 1] {
        let revision = apply(&rig, replicas, "host", DEFAULT).await;
        rig.rolled_out(&web(), revision).await;
        assert_eq!(rig.pods().len(), usize::try_from(replicas).unwrap());
        let [(set, size)] = &sets(&rig)[..] else {
            panic!("one set")
        };
        assert_eq!(*size, replicas);
        let (set, n) = (set.clone(), replicas);
        rig.until("the set's status says so", |view| {
            let status = &view.actual::<ReplicaSet>().get(&set)?.value;
            (status.replicas == n && status.available_replicas.unwrap_or(0) == n).then_some(())
        })
        .await;
    }
    {
        let view = rig.cache.view();
        let (name, pod) = view.desired::<Pod>().iter().next().unwrap();
        let owner = pod.value.metadata.controller().unwrap();
        let (set_name, set) = view.desired::<ReplicaSet>().iter().next().unwrap();
        assert_eq!(
            (owner.kind.as_str(), &*owner.name, &owner.uid),
            ("ReplicaSet", &*set_name.name, &set.uid())
        );
        assert!(name.name.starts_with(&format!("{}-", set_name.name)));
        assert_eq!(
            pod.value.metadata.labels["pod-template-hash"],
            set_name.name["web-".len()..]
        );
        assert_eq!(
            set.value.metadata.annotations["deployment.kubernetes.io/revision"],
            "1"
        );
    }
    // The next leader looks at everything, and finds nothing to write: all that it writes is for what comes new. Until
    // then those who play agents are to be done too: a binding of a pod that is gone is theirs.
    rig.until("only one binding is left", |view| {
        (view.bindings().len() == 1).then_some(())
    })
    .await;
    process.stop().await;
    rig.level().await;
    let history = rig.history().await;
    let process = controllers(&rig).await;
    let probe = ObjectKey::namespaced("default", "probe");
    let text = manifest(1, "host", DEFAULT).replace("name: web,", "name: probe,");
    let revision = rig
        .put_desired::<Deployment>(&probe, &text.replace("app: web", "app: probe"))
        .await;
    rig.rolled_out(&probe, revision).await;
    process.stop().await;
    history.end(&rig).await;
    let written = history.written();
    assert!(written.iter().all(|k| k.contains("/probe")), "{written:?}");
}

#[tokio::test]
async fn rolling_updates_keep_within_their_bounds_at_every_revision_also_when_the_controller_changes()
 {
    for (i, (surge, unavailable, most, least)) in [
        ("25%", "25%", 13, 8),
        ("1", "0", 11, 10),
        ("0", "1", 10, 9),
        ("50%", "30%", 15, 7),
    ]
    .into_iter()
    .enumerate()
    {
        let rig = rig(&format!("rolling{i}")).await;
        let mut process = controllers(&rig).await;
        let _agents = rig.agents();
        let strategy =
            format!("{{rollingUpdate: {{maxSurge: {surge}, maxUnavailable: {unavailable}}}}}");
        let history = rig.history().await;
        let revision = apply(&rig, 10, "v1", &strategy).await;
        rig.rolled_out(&web(), revision).await;
        rig.settled().await;
        let first = rig.pods();

        let begin = apply(&rig, 10, "v2", &strategy).await;
        for left in [8, 5, 2] {
            // In the middle of it another process takes over; once without notice, when the lease has expired.
            rig.until(&format!("{left} old pods are left"), |view| {
                let old = view
                    .desired::<Pod>()
                    .entries()
                    .filter(|(k, _)| first.contains(&*k.name))
                    .count();
                (old <= left).then_some(())
            })
            .await;
            if left == 5 && i == 0 {
                process.crash();
            } else {
                process.stop().await;
            }
            process = controllers(&rig).await;
        }
        rig.rolled_out(&web(), begin).await;
        history.end(&rig).await;
        let counts: Vec<_> = history
            .counts()
            .into_iter()
            .filter(|c| c.revision >= begin.0)
            .collect();
        // The counts are of the rollout. How many there are is up to how many pods come and go in one transaction.
        let moved = counts.iter().any(|c| c.pods > 10 || c.ready < 10);
        assert!(moved, "{counts:?}");
        for c in &counts {
            assert!(
                c.pods <= most && c.ready >= least,
                "surge {surge}, unavailable {unavailable}: {c:?}"
            );
        }
        rig.settled().await;
        assert_eq!(rig.pods().intersection(&first).count(), 0);
    }
}

#[tokio::test]
async fn a_budget_that_allows_nothing_holds_back_no_rollout_and_no_smaller_size() {
    let rig = rig("budget").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let text = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: web, namespace: default}\nspec: \
                {maxUnavailable: 0, selector: {matchLabels: {app: web}}}\n";
    rig.put_desired::<PodDisruptionBudget>(&web(), text).await;
    for (replicas, image, strategy) in [
        (3, "v1", DEFAULT),
        (3, "v2", DEFAULT),
        (3, "v3", RECREATE),
        (1, "v3", RECREATE),
    ] {
        let revision = apply(&rig, replicas, image, strategy).await;
        rig.rolled_out(&web(), revision).await;
    }
    assert_eq!(rig.pods().len(), 1);
}

#[tokio::test]
async fn a_rollout_to_a_broken_template_keeps_the_old_pods_and_can_be_taken_back() {
    let rig = rig("broken-template").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let revision = apply(&rig, 4, "v1", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    rig.settled().await;
    let first = rig.pods();
    apply(&rig, 4, BROKEN, DEFAULT).await;
    // Surge 1, unavailable 1: two of the new template, three of the old.
    rig.until("the rollout stands still", |view| {
        let status = &view.actual::<Deployment>().get(&web())?.value;
        (status.updated_replicas == Some(2) && status.replicas == Some(5)).then_some(())
    })
    .await;
    rig.settled().await;
    assert_eq!(rig.pods().intersection(&first).count(), 3);
    let revision = apply(&rig, 4, "v1", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    rig.settled().await;
    assert_eq!(
        rig.pods().intersection(&first).count(),
        3,
        "those that were there stayed"
    );
}

#[tokio::test]
async fn a_template_that_comes_in_the_middle_of_a_rollout_is_rolled_out_instead() {
    let rig = rig("rollover").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let history = rig.history().await;
    let first = apply(&rig, 4, "v1", DEFAULT).await;
    rig.rolled_out(&web(), first).await;
    let second = apply(&rig, 4, BROKEN, DEFAULT).await;
    // Surge 1, unavailable 1: pods of both templates are there.
    rig.until("the rollout stands still", |view| {
        let status = &view.actual::<Deployment>().get(&web())?.value;
        (status.updated_replicas == Some(2) && status.replicas == Some(5)).then_some(())
    })
    .await;
    let third = apply(&rig, 4, "v3", DEFAULT).await;
    rig.rolled_out(&web(), third).await;
    rig.settled().await;
    let mut sizes: Vec<i32> = sets(&rig).into_iter().map(|(_, size)| size).collect();
    sizes.sort_unstable();
    assert_eq!((sizes, rig.pods().len()), (vec![0, 0, 4], 4));
    history.end(&rig).await;
    for c in history.counts().iter().filter(|c| c.revision >= second.0) {
        assert!(c.pods <= 5 && c.ready >= 3, "{c:?}");
    }
}

#[tokio::test]
async fn broken_yaml_over_a_deployment_its_set_or_its_pods_deletes_nothing() {
    let rig = rig("broken-yaml").await;
    let mut process = controllers(&rig).await;
    let _agents = rig.agents();
    let revision = apply(&rig, 3, "v1", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    rig.settled().await;
    let pods = rig.pods();
    let [(set, _)] = &sets(&rig)[..] else {
        panic!("one set")
    };
    let pod = ObjectKey::namespaced("default", pods.first().unwrap().as_str());
    let history = rig.history().await;

    for round in 0..2 {
        // The second time the controllers start on broken documents and have never seen good ones.
        for (plural, key) in [
            (Deployment::PLURAL, web()),
            (ReplicaSet::PLURAL, set.clone()),
            (Pod::PLURAL, pod.clone()),
        ] {
            let key = Key::Desired(plural, key);
            let (good, _) = rig.store.get(&rig.keyspace.build(&key)).await.unwrap();
            let good = String::from_utf8(good.unwrap().value.to_vec()).unwrap();
            rig.put(&key, "spec: {replicas: 0\n  what: [").await;
            if round == 1 {
                process.stop().await;
                process = controllers(&rig).await;
            }
            if plural != Pod::PLURAL {
                let actual = plural;
                rig.until(&format!("{actual} says that it is invalid"), |view| {
                    let conditions = match actual {
                        "deployments" => &view.actual::<Deployment>().get(&web())?.value.conditions,
                        _ => &view.actual::<ReplicaSet>().get(set)?.value.conditions,
                    };
                    conditions
                        .iter()
                        .any(|c| c.type_ == "Invalid" && c.status == "True")
                        .then_some(())
                })
                .await;
            }
            rig.settled().await;
            assert_eq!(rig.pods(), pods, "{plural}");
            rig.put(&key, &good).await;
        }
        rig.until("all is well again", |view| {
            let d = view.actual::<Deployment>().get(&web())?;
            let s = view.actual::<ReplicaSet>().get(set)?;
            let all = d.value.conditions.iter().chain(&s.value.conditions);
            (all.clone().all(|c| c.type_ != "Invalid") && d.value.available_replicas == Some(3))
                .then_some(())
        })
        .await;
    }
    // It is reconciled again.
    let revision = apply(&rig, 4, "v1", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    history.end(&rig).await;
    assert_eq!(history.deleted(), Vec::<String>::new());
    rig.settled().await;
    assert_eq!(rig.pods().intersection(&pods).count(), 3);
}

#[tokio::test]
async fn recreate_starts_nothing_before_the_last_old_pod_has_stopped() {
    let rig = rig("recreate").await;
    let process = controllers(&rig).await;
    let agents = rig.agents();
    let revision = apply(&rig, 3, "v1", RECREATE).await;
    rig.rolled_out(&web(), revision).await;
    rig.settled().await;
    let first = rig.pods();
    agents.hold_stops(true);
    let revision = apply(&rig, 3, "v2", RECREATE).await;
    rig.until("no old pod is wanted", |view| {
        view.desired::<Pod>().is_empty().then_some(())
    })
    .await;
    // A new controller knows of the stopping pods by their names alone.
    process.stop().await;
    let _process = controllers(&rig).await;
    rig.until("the status says so", |view| {
        let status = &view.actual::<Deployment>().get(&web())?.value;
        (status.replicas.is_none() && status.available_replicas.is_none()).then_some(())
    })
    .await;
    rig.settled().await;
    assert!(rig.pods().is_empty());
    assert_eq!(sets(&rig).len(), 1);
    agents.hold_stops(false);
    rig.rolled_out(&web(), revision).await;
    rig.settled().await;
    assert_eq!(rig.pods().intersection(&first).count(), 0);
}

#[tokio::test]
async fn pods_are_adopted_and_released_by_their_labels() {
    let rig = rig("adoption").await;
    let stray = ObjectKey::namespaced("default", "stray");
    let document = "apiVersion: v1\nkind: Pod\nmetadata: {name: stray, labels: {app: web}}\nfuture: {kept: 1}\n\
                    spec: {containers: [{name: c, image: host}]}\n";
    rig.put_desired::<Pod>(&stray, document).await;
    let set = ObjectKey::namespaced("default", "set");
    let text = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: set}\nspec:\n  replicas: 2\n  \
                selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    \
                spec: {containers: [{name: c, image: host}]}\n";
    rig.put_desired::<ReplicaSet>(&set, text).await;
    let _controllers = controllers(&rig).await;
    rig.until("the stray pod is adopted, and has one sibling", |view| {
        let owner = view
            .desired::<Pod>()
            .get(&stray)?
            .value
            .metadata
            .controller()?
            .uid
            .clone();
        let set = view.desired::<ReplicaSet>().get(&set)?;
        (owner == set.uid() && view.desired::<Pod>().len() == 2).then_some(())
    })
    .await;
    let (kv, _) = rig
        .store
        .get(
            &rig.keyspace
                .build(&Key::Desired(Pod::PLURAL, stray.clone())),
        )
        .await
        .unwrap();
    let adopted = String::from_utf8(kv.unwrap().value.to_vec()).unwrap();
    assert!(adopted.contains("future:\n  kept: 1"), "{adopted}");
    rig.put_desired::<Pod>(&stray, &adopted.replace("app: web", "app: other"))
        .await;
    rig.until("the stray pod is free, and replaced", |view| {
        let free = view
            .desired::<Pod>()
            .get(&stray)?
            .value
            .metadata
            .owner_references
            .is_empty();
        (free && view.desired::<Pod>().len() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_pods_are_created_and_deleted_in_few_revisions() {
    let rig = rig("thousand").await;
    let _controllers = controllers(&rig).await;
    let history = rig.history().await;
    apply(&rig, 1_000, "host", DEFAULT).await;
    rig.until("all pods are wanted", |view| {
        (view.desired::<Pod>().len() == 1_000).then_some(())
    })
    .await;
    apply(&rig, 0, "host", DEFAULT).await;
    rig.until("none is", |view| {
        view.desired::<Pod>().is_empty().then_some(())
    })
    .await;
    history.end(&rig).await;
    let revisions = history.counts().len();
    assert!(revisions < 60, "{revisions} revisions for 2,000 changes");
}

#[tokio::test]
async fn pods_that_are_nobody_s_are_adopted_in_few_revisions() {
    let rig = rig("many-adopted").await;
    let loose = |txn: Txn, n: usize| {
        let key = ObjectKey::namespaced("default", format!("loose-{n}"));
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: loose-{n}, namespace: default, labels: {{app: web}}}}\n\
             spec: {{containers: [{{name: c, image: host}}]}}\n"
        );
        txn.put(rig.keyspace.build(&Key::Desired(Pod::PLURAL, key)), text)
    };
    for first in [0, 100, 200] {
        let txn = (first..first + 100).fold(Txn::new(), loose);
        rig.store.txn(txn).await.unwrap();
    }
    let set = ObjectKey::namespaced("default", "set");
    let text = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: set}\nspec:\n  replicas: 300\n  \
                selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    \
                spec: {containers: [{name: c, image: host}]}\n";
    rig.put_desired::<ReplicaSet>(&set, text).await;
    let _controllers = controllers(&rig).await;
    let revisions = rig
        .until("all are adopted", |view| {
            let pods = view.desired::<Pod>();
            let owned = |p: &Pod| p.metadata.controller().is_some();
            let all = pods.len() == 300 && pods.iter().all(|(_, p)| owned(&p.value));
            let revisions = || pods.iter().map(|(_, p)| p.mod_revision).collect();
            all.then(revisions)
        })
        .await;
    let revisions: BTreeSet<i64> = revisions;
    assert!(revisions.len() <= 12, "{revisions:?}");
    assert!(rig.pods().iter().all(|name| name.starts_with("loose-")));
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_does_not_exist_until_it_does() {
    let rig = rig("namespace").await;
    let _controllers = controllers(&rig).await;
    let key = ObjectKey::namespaced("other", "web");
    rig.put_desired::<Deployment>(
        &key,
        &manifest(2, "host", DEFAULT).replace("default", "other"),
    )
    .await;
    rig.until("the condition says so", |view| {
        let conditions = &view.actual::<Deployment>().get(&key)?.value.conditions;
        conditions
            .iter()
            .any(|c| c.reason.as_deref() == Some("NamespaceNotFound"))
            .then_some(())
    })
    .await;
    assert!(rig.pods().is_empty());
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n";
    rig.put_desired::<setpoint_apis::core::Namespace>(&ObjectKey::cluster("other"), namespace)
        .await;
    rig.until("the pods are there", |view| {
        (view.desired::<Pod>().len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_rollout_survives_an_etcd_that_freezes_and_one_that_is_killed() {
    let etcd = Arc::new(TestEtcd::start().await);
    let rig = Rig::on(etcd.clone(), "faults", setpoint_workloads::register).await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let strategy = "{rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}";
    let history = rig.history().await;
    let revision = apply(&rig, 6, "v1", strategy).await;
    rig.rolled_out(&web(), revision).await;
    let begin = apply(&rig, 6, "v2", strategy).await;
    rig.until("the rollout has begun", |view| {
        (view
            .actual::<Deployment>()
            .get(&web())?
            .value
            .updated_replicas?
            >= 2)
            .then_some(())
    })
    .await;
    // Longer than the election lease: the leadership is lost, and won again.
    etcd.freeze();
    tokio::time::sleep(Duration::from_secs(5)).await;
    etcd.thaw();
    rig.rolled_out(&web(), begin).await;
    let middle = apply(&rig, 6, "v3", strategy).await;
    etcd.restart().await;
    rig.rolled_out(&web(), middle).await;
    let end = apply(&rig, 6, "v3", strategy).await;
    history.until(end).await;
    for c in history.counts().iter().filter(|c| c.revision >= begin.0) {
        assert!(c.pods <= 7 && c.ready >= 6, "{c:?}");
    }
}

#[tokio::test]
async fn deployments_that_one_transaction_created_do_not_mix_up_their_pods() {
    let rig = rig("together").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let key = |i: usize| ObjectKey::namespaced("default", format!("web{i}"));
    let mut txn = Txn::new();
    for i in 0..40 {
        let text = manifest(3, "host", DEFAULT)
            .replace("name: web,", &format!("name: web{i},"))
            .replace("app: web", &format!("app: web{i}"));
        txn = txn.put(
            rig.keyspace
                .build(&Key::Desired(Deployment::PLURAL, key(i))),
            text,
        );
    }
    let revision = rig.store.txn(txn).await.unwrap().revision;
    for i in 0..40 {
        rig.rolled_out(&key(i), revision).await;
    }
    rig.settled().await;
    assert_eq!((sets(&rig).len(), rig.pods().len()), (40, 120));
}

#[tokio::test]
async fn what_the_store_refuses_is_said_and_tried_again() {
    let args = vec!["--max-request-bytes=2500".to_owned()];
    let etcd = Arc::new(
        TestEtcd::start_with(Options {
            args,
            ..Options::default()
        })
        .await,
    );
    let rig = Rig::on(etcd, "refused", setpoint_workloads::register).await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    // A ReplicaSet that just fits: its pods, with owner and defaults, do not.
    let set = ObjectKey::namespaced("default", "set");
    let text = |size: usize| {
        format!(
            "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: set}}\nspec:\n  replicas: 20\n  selector: \
             {{matchLabels: {{app: set}}}}\n  template:\n    metadata: {{labels: {{app: set}}, annotations: {{x: {}}}}}\n    \
             spec: {{containers: [{{name: c, image: host}}]}}\n",
            "x".repeat(size)
        )
    };
    rig.put_desired::<ReplicaSet>(&set, &text(1_800)).await;
    rig.until("the set says so", |view| {
        let status = &view.actual::<ReplicaSet>().get(&set)?.value;
        let failure = status
            .conditions
            .iter()
            .find(|c| c.type_ == "ReplicaFailure")?;
        (failure.reason.as_deref() == Some("FailedCreate") && status.replicas == 0).then_some(())
    })
    .await;
    // A Deployment whose ReplicaSet does not fit.
    let manifest = |size: usize| {
        let text = manifest(2, "host", DEFAULT);
        text.replace(
            "{labels: {app: web}}",
            &format!(
                "{{labels: {{app: web}}, annotations: {{x: {}}}}}",
                "x".repeat(size)
            ),
        )
    };
    rig.put_desired::<Deployment>(&web(), &manifest(1_800))
        .await;
    rig.until("the Deployment says so", |view| {
        let status = &view.actual::<Deployment>().get(&web())?.value;
        let failure = status
            .conditions
            .iter()
            .find(|c| c.type_ == "ReplicaFailure")?;
        (failure.reason.as_deref() == Some("ReplicaSetCreateError")).then_some(())
    })
    .await;
    // Mended, they go on, and the conditions go.
    rig.put_desired::<ReplicaSet>(&set, &text(10)).await;
    let revision = rig.put_desired::<Deployment>(&web(), &manifest(10)).await;
    rig.rolled_out(&web(), revision).await;
    rig.until("all is well", |view| {
        let (set, web) = (
            view.actual::<ReplicaSet>().get(&set)?,
            view.actual::<Deployment>().get(&web())?,
        );
        let mut all = set.value.conditions.iter().chain(&web.value.conditions);
        (set.value.available_replicas == Some(20) && all.all(|c| c.type_ != "ReplicaFailure"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_reported_of_a_pod_that_is_nobody_s_wakes_nobody_who_knows_of_it() {
    let rig = rig("loose-pods").await;
    let takers: Vec<(PodOwner, Takers)> = vec![(PodOwner::ReplicaSet, takers::<ReplicaSet>)];
    let mut index = OwnerIndex::new(&rig.cache, takers);
    for name in ["a", "b"] {
        let text = format!(
            "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: {name}}}\nspec:\n  \
             selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
             spec: {{containers: [{{name: c, image: host}}]}}\n"
        );
        let key = ObjectKey::namespaced("default", name);
        rig.put_desired::<ReplicaSet>(&key, &text).await;
    }
    let mut touched = |rig: &Rig| {
        index.catch_up(&rig.cache.view());
        let touched = index.take_touched(PodOwner::ReplicaSet);
        let names: BTreeSet<String> = touched.iter().map(|k| k.name.to_string()).collect();
        names.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(touched(&rig), "a b");
    let loose = ObjectKey::namespaced("default", "loose");
    let pod = |app: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: loose, namespace: default, labels: {{app: {app}}}{more}}}\n\
             spec: {{containers: [{{name: c, image: host}}]}}\n"
        )
    };
    rig.put_desired::<Pod>(&loose, &pod("a", "")).await;
    assert_eq!(touched(&rig), "a");
    // It is placed, starts, and runs; and its document changes in what selects nothing.
    let agents = rig.agents();
    rig.until("it runs", |view| view.pod_actual(&loose).map(|_| ()))
        .await;
    drop(agents);
    rig.put_desired::<Pod>(&loose, &pod("a", ", annotations: {x: y}"))
        .await;
    assert_eq!(touched(&rig), "");
    rig.put_desired::<Pod>(&loose, &pod("b", "")).await;
    assert_eq!(touched(&rig), "b");
    // What has ended is nobody's to take on, which its taker learns.
    let running = {
        let view = rig.cache.view();
        view.pod_actual(&loose).unwrap().value.clone()
    };
    let node = {
        let view = rig.cache.view();
        view.bindings().get(&loose).unwrap().value.node.clone()
    };
    let over = rig::ended(&running, 0, Clock::system().now().whole_seconds());
    rig.put(
        &Key::NodePod(&node, loose.clone()),
        &document::encode(&over),
    )
    .await;
    assert_eq!(touched(&rig), "b");
}
