//! StatefulSets against a real etcd.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::apps::{ControllerRevision, Deployment, StatefulSet, StatefulSetStatus};
use setpoint_apis::core::{ConfigMap, PersistentVolumeClaim, Pod};
use setpoint_apis::meta::OwnerReference;
use setpoint_apis::records::PodStage;
use setpoint_apis::{Key, Kind, ObjectKey, document, owners};
use setpoint_runtime::View;
use setpoint_store::{Revision, Txn};

use crate::rig::{BROKEN, Rig};
use crate::{controllers, rig};

fn db() -> ObjectKey {
    named("db")
}

fn named(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// A manifest; `more` are lines of its spec.
fn manifest(replicas: i32, image: &str, more: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db, namespace: default}}\nspec:\n  \
         replicas: {replicas}\n  serviceName: peers\n  selector: {{matchLabels: {{app: db}}}}\n  template:\n    \
         metadata: {{labels: {{app: db}}}}\n    spec: {{containers: [{{name: c, image: {image}}}]}}\n{more}"
    )
}

const CLAIMS: &str = "  volumeClaimTemplates:\n  - metadata: {name: data}\n    \
                      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";

async fn apply(rig: &Rig, text: &str) -> Revision {
    rig.put_desired::<StatefulSet>(&db(), text).await
}

fn status<'a>(view: &'a View<'_>) -> Option<&'a StatefulSetStatus> {
    Some(&view.actual::<StatefulSet>().get(&db())?.value)
}

/// Waits until every pod is of the newest revision and available.
async fn rolled_out(rig: &Rig, document: Revision) {
    rig.until("the set is rolled out", |view| {
        let set = view.desired::<StatefulSet>().get(&db())?;
        let status = status(view)?;
        let n = set.value.spec.replicas();
        let all = |count: Option<i32>| count.unwrap_or(0) == n;
        (set.mod_revision >= document.0
            && status.observed_generation == Some(set.version)
            && status.replicas == n
            && all(status.updated_replicas)
            && all(status.available_replicas)
            && status.current_revision == status.update_revision)
            .then_some(())
    })
    .await;
}

/// Images and create revisions of the pods, by name.
fn pods(rig: &Rig) -> BTreeMap<String, (String, i64)> {
    let view = rig.cache.view();
    let all = view.desired::<Pod>().iter();
    all.map(|(key, pod)| {
        let image = pod.value.spec.containers[0].image.clone();
        (key.name.to_string(), (image, pod.create_revision))
    })
    .collect()
}

fn claims(rig: &Rig) -> BTreeSet<String> {
    let view = rig.cache.view();
    let all = view.desired::<PersistentVolumeClaim>().entries();
    all.map(|(key, _)| key.name.to_string()).collect()
}

async fn delete<K: Kind>(rig: &Rig, key: &ObjectKey) {
    let name = rig.keyspace.build(&Key::Desired(K::PLURAL, key.clone()));
    let done = rig.store.txn(Txn::new().delete(name)).await.unwrap();
    rig.cache.wait_for(done.revision).await;
}

#[tokio::test]
async fn pods_have_their_identity_and_claims_and_nothing_is_written_when_it_is_done() {
    let rig = rig("sts-basic").await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    for replicas in [3, 1, 4] {
        let revision = apply(&rig, &manifest(replicas, "host", CLAIMS)).await;
        rolled_out(&rig, revision).await;
        let names = (0..replicas).map(|i| format!("db-{i}"));
        assert_eq!(rig.pods(), names.collect());
    }
    assert_eq!(
        claims(&rig),
        ["data-db-0", "data-db-1", "data-db-2", "data-db-3"]
            .map(String::from)
            .into(),
        "claims outlive their pods"
    );
    {
        let view = rig.cache.view();
        let pod = view.desired::<Pod>().get(&named("db-2")).unwrap();
        let (meta, spec) = (&pod.value.metadata, &pod.value.spec);
        let set = view.desired::<StatefulSet>().get(&db()).unwrap();
        let owner = meta.controller().unwrap();
        assert_eq!(
            (owner.kind.as_str(), &owner.uid),
            ("StatefulSet", &set.uid())
        );
        let label = |name: &str| meta.labels.get(name).map(String::as_str);
        assert_eq!(label("statefulset.kubernetes.io/pod-name"), Some("db-2"));
        assert_eq!(label("apps.kubernetes.io/pod-index"), Some("2"));
        let (revision, _) = view.desired::<ControllerRevision>().iter().next().unwrap();
        assert_eq!(label("controller-revision-hash"), Some(&*revision.name));
        assert_eq!(
            (spec.hostname.as_deref(), spec.subdomain.as_deref()),
            (Some("db-2"), Some("peers"))
        );
        let claim = spec.volumes[0].persistent_volume_claim.as_ref().unwrap();
        assert_eq!(
            (&*spec.volumes[0].name, &*claim.claim_name),
            ("data", "data-db-2")
        );
    }
    // The next leader looks at everything, and finds nothing to write: all that it writes is for what comes new.
    process.stop().await;
    rig.level().await;
    let history = rig.history().await;
    let process = controllers(&rig).await;
    let other = manifest(1, "host", "").replace("name: db,", "name: probe,");
    rig.put_desired::<StatefulSet>(&named("probe"), &other.replace("app: db", "app: probe"))
        .await;
    rig.until("the probe is available", |view| {
        let status = &view.actual::<StatefulSet>().get(&named("probe"))?.value;
        (status.available_replicas == Some(1)).then_some(())
    })
    .await;
    process.stop().await;
    let end = rig
        .put(&Key::Actual("leaders", ObjectKey::cluster("end")), "x: 1\n")
        .await;
    history.until(end).await;
    let written = history.written();
    assert!(written.iter().all(|k| k.contains("/probe")), "{written:?}");
}

#[tokio::test]
async fn a_rollout_makes_one_pod_unavailable_at_a_time_also_when_the_controller_changes() {
    for policy in ["OrderedReady", "Parallel"] {
        let rig = rig(&format!("sts-rolling-{}", policy.to_ascii_lowercase())).await;
        let mut process = controllers(&rig).await;
        let _agents = rig.agents();
        let more = format!("  podManagementPolicy: {policy}\n");
        let history = rig.history().await;
        let revision = apply(&rig, &manifest(5, "v1", &more)).await;
        rolled_out(&rig, revision).await;
        let begin = apply(&rig, &manifest(5, "v2", &more)).await;
        for left in [4, 3, 1] {
            rig.until("a pod has been replaced", |view| {
                let pods = view.desired::<Pod>().iter();
                let old = pods.filter(|(_, p)| p.value.spec.containers[0].image == "v1");
                (old.count() <= left).then_some(())
            })
            .await;
            if left == 3 && policy == "Parallel" {
                process.crash();
            } else {
                process.stop().await;
            }
            process = controllers(&rig).await;
        }
        rolled_out(&rig, begin).await;
        let end = rig
            .put(&Key::Actual("leaders", ObjectKey::cluster("end")), "x: 1\n")
            .await;
        history.until(end).await;
        let counts = history.counts().into_iter().skip_while(|c| c.pods < 5);
        let counts: Vec<_> = counts.collect();
        assert!(counts.len() > 10);
        assert!(counts.iter().all(|c| c.pods >= 4), "{policy}: {counts:?}");
        let deleted = history.deleted();
        let order = deleted.iter().filter(|k| k.contains("/desired/pods/"));
        let order: Vec<_> = order.map(|k| k.rsplit('/').next().unwrap()).collect();
        assert_eq!(order, ["db-4", "db-3", "db-2", "db-1", "db-0"], "{policy}");
    }
}

#[tokio::test]
async fn a_broken_rollout_is_taken_back_by_hand_though_its_pod_never_becomes_ready() {
    let rig = rig("sts-stuck").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let revision = apply(&rig, &manifest(3, "v1", "")).await;
    rolled_out(&rig, revision).await;
    let first = pods(&rig);
    apply(&rig, &manifest(3, BROKEN, "")).await;
    rig.until("the rollout stands still", |view| {
        let pod = view.desired::<Pod>().get(&named("db-2"))?;
        let status = status(view)?;
        (pod.value.spec.containers[0].image == BROKEN
            && view.pod_actual(&named("db-2")).is_some()
            && status.updated_replicas == Some(1))
        .then_some(())
    })
    .await;
    let revision = apply(&rig, &manifest(3, "v1", "")).await;
    rolled_out(&rig, revision).await;
    let now = pods(&rig);
    assert_eq!(now["db-0"], first["db-0"]);
    assert_eq!(now["db-1"], first["db-1"]);
    assert_eq!(now["db-2"].0, "v1");
}

#[tokio::test]
async fn a_rollout_that_misses_its_deadline_is_taken_back_and_says_so() {
    let rig = rig("sts-deadline").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let revision = apply(&rig, &manifest(2, "v1", "")).await;
    rolled_out(&rig, revision).await;
    let first = pods(&rig);
    // A short deadline for this one alone: on a busy machine a good rollout would miss it too.
    let broken = manifest(2, BROKEN, "").replace(
        "namespace: default}",
        "namespace: default, annotations: {setpoint.dev/progress-deadline-seconds: '1'}}",
    );
    apply(&rig, &broken).await;
    rig.until("the rollout is taken back", |view| {
        let status = status(view)?;
        let rolled_back = status.conditions.iter().any(|c| c.type_ == "RolledBack");
        (rolled_back && status.current_replicas == Some(2) && status.available_replicas == Some(2))
            .then_some(())
    })
    .await;
    let now = pods(&rig);
    assert_eq!((&now["db-0"], &*now["db-1"].0), (&first["db-0"], "v1"));
}

#[tokio::test]
async fn a_name_is_taken_until_its_pod_has_stopped() {
    let rig = rig("sts-name").await;
    let (_controllers, agents) = (controllers(&rig).await, rig.agents());
    let revision = apply(&rig, &manifest(2, "v1", "")).await;
    rolled_out(&rig, revision).await;
    agents.hold_stops(true);
    delete::<Pod>(&rig, &named("db-1")).await;
    rig.until("the status says that it is gone", |view| {
        (status(view)?.replicas == 1).then_some(())
    })
    .await;
    // Something else is done in the meantime: it is not that nobody looked.
    let revision = apply(&rig, &manifest(1, "v1", "")).await;
    rig.until("the new size has been seen", |view| {
        let set = view.desired::<StatefulSet>().get(&db())?;
        let seen = status(view)?.observed_generation == Some(set.version);
        (set.mod_revision >= revision.0 && seen).then_some(())
    })
    .await;
    let revision = apply(&rig, &manifest(2, "v1", "")).await;
    rig.until("the old size has been seen", |view| {
        let set = view.desired::<StatefulSet>().get(&db())?;
        let seen = status(view)?.observed_generation == Some(set.version);
        (set.mod_revision >= revision.0 && seen).then_some(())
    })
    .await;
    assert_eq!(rig.pods(), ["db-0".to_owned()].into());
    agents.hold_stops(false);
    rolled_out(&rig, revision).await;
}

#[tokio::test]
async fn claims_go_as_the_retention_policy_says_and_a_users_claim_stays() {
    let rig = rig("sts-retention").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let mine = named("data-db-2");
    rig.put_desired::<PersistentVolumeClaim>(
        &mine,
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data-db-2, namespace: default}\n\
         spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n",
    )
    .await;
    let policy = |scaled: &str, deleted: &str| {
        format!(
            "{CLAIMS}  persistentVolumeClaimRetentionPolicy: {{whenScaled: {scaled}, whenDeleted: {deleted}}}\n"
        )
    };
    let revision = apply(&rig, &manifest(3, "v1", &policy("Delete", "Retain"))).await;
    rolled_out(&rig, revision).await;
    let revision = apply(&rig, &manifest(1, "v1", &policy("Delete", "Retain"))).await;
    rolled_out(&rig, revision).await;
    rig.settled().await;
    assert_eq!(
        claims(&rig),
        ["data-db-0", "data-db-2"].map(String::from).into()
    );
    let owners = |view: &View<'_>, name: &str| {
        let claim = view.desired::<PersistentVolumeClaim>().get(&named(name))?;
        Some(claim.value.metadata.owner_references.clone())
    };
    let revision = apply(&rig, &manifest(3, "v1", &policy("Retain", "Delete"))).await;
    rolled_out(&rig, revision).await;
    rig.until("the claims belong to the set", |view| {
        let uid = view.desired::<StatefulSet>().get(&db())?.uid();
        let owned = |name: &str| owners(view, name).is_some_and(|o| o.iter().any(|o| o.uid == uid));
        (owned("data-db-0") && owned("data-db-1")).then_some(())
    })
    .await;
    assert_eq!(owners(&rig.cache.view(), "data-db-2"), Some(vec![]));
    apply(&rig, &manifest(3, "v1", &policy("Retain", "Retain"))).await;
    rig.until("they do not any more", |view| {
        (owners(view, "data-db-0")?.is_empty() && owners(view, "data-db-1")?.is_empty())
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_set_takes_on_the_pods_and_revisions_that_a_former_one_left_behind() {
    let rig = rig("sts-orphans").await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    let revision = apply(&rig, &manifest(2, "v1", "")).await;
    rolled_out(&rig, revision).await;
    let first = pods(&rig);
    process.stop().await;
    // As gc does when a set is deleted and its dependents are to stay.
    delete::<StatefulSet>(&rig, &db()).await;
    free::<Pod>(&rig).await;
    free::<ControllerRevision>(&rig).await;
    let _controllers = controllers(&rig).await;
    let revision = apply(&rig, &manifest(2, "v1", "")).await;
    rig.until("the pods are the new one's", |view| {
        let uid = view.desired::<StatefulSet>().get(&db())?.uid();
        let pods = view.desired::<Pod>().iter();
        let mut owners = pods.map(|(_, pod)| pod.value.metadata.controller());
        owners
            .all(|o| o.is_some_and(|o| o.uid == uid))
            .then_some(())
    })
    .await;
    rolled_out(&rig, revision).await;
    rig.settled().await;
    assert_eq!(pods(&rig), first);
    let view = rig.cache.view();
    assert_eq!(view.desired::<ControllerRevision>().len(), 1);
    let uid = view.desired::<StatefulSet>().get(&db()).unwrap().uid();
    for (_, pod) in view.desired::<Pod>().iter() {
        assert_eq!(pod.value.metadata.controller().unwrap().uid, uid);
    }
}

#[tokio::test]
async fn an_ended_pod_that_nobody_has_makes_room_for_the_one_of_its_name() {
    let rig = rig("sts-ended-orphan").await;
    let _agents = rig.agents();
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: db-0, namespace: default, labels: {app: db}}\n\
                spec: {restartPolicy: Never, containers: [{name: c, image: ends-with-1}]}\n";
    let orphan = rig.put_desired::<Pod>(&named("db-0"), text).await;
    rig.until("it has ended", |view| {
        let node = &view.bindings().get(&named("db-0"))?.value.node;
        let report = view.pod_on(node, &named("db-0"))?.last_good()?;
        (report.value.stage == PodStage::Failed).then_some(())
    })
    .await;
    let _controllers = controllers(&rig).await;
    let revision = apply(&rig, &manifest(1, "v1", "")).await;
    rolled_out(&rig, revision).await;
    let (image, created) = &pods(&rig)["db-0"];
    assert!(image == "v1" && *created > orphan.0, "{image} {created}");
}

#[tokio::test]
async fn a_pod_whose_labels_fit_no_more_is_let_go_and_taken_on_again_when_they_do() {
    let rig = rig("sts-labels").await;
    let (mut process, _agents) = (controllers(&rig).await, rig.agents());
    let revision = apply(&rig, &manifest(2, "v1", "")).await;
    rolled_out(&rig, revision).await;
    let first = pods(&rig);
    let relabel = async |from: &str, to: &str| {
        let key = Key::Desired(Pod::PLURAL, named("db-1"));
        let (kv, _) = rig.store.get(&rig.keyspace.build(&key)).await.unwrap();
        let text = String::from_utf8(kv.unwrap().value.to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        rig.put(&key, &text.replace(from, to)).await;
    };
    let managed = |view: &View<'_>| {
        let pod = view.desired::<Pod>().get(&named("db-1"))?;
        Some(pod.value.metadata.controller().is_some())
    };
    let failure = |view: &View<'_>| {
        let mut all = status(view)?.conditions.iter();
        Some(all.find(|c| c.type_ == "ReplicaFailure")?.reason.clone())
    };
    // The second time who let it go is not who takes it on.
    for hands_over in [false, true] {
        relabel("app: db", "app: other").await;
        rig.until("it is let go, and its name is taken", |view| {
            let waits = failure(view)?.as_deref() == Some("NameTaken");
            (!managed(view)? && waits && status(view)?.replicas == 1).then_some(())
        })
        .await;
        rig.settled().await;
        assert_eq!(pods(&rig), first, "nothing is deleted and nothing made");
        if hands_over {
            process.stop().await;
            process = controllers(&rig).await;
        }
        relabel("app: other", "app: db").await;
        rig.until("it is taken on", |view| {
            (managed(view)? && failure(view).is_none()).then_some(())
        })
        .await;
        rolled_out(&rig, revision).await;
        rig.settled().await;
        assert_eq!(pods(&rig), first);
    }
    process.stop().await;
}

/// A set with claims, as `more` of them says, whose pods and claims a former one of its name has left behind.
async fn left_behind(rig: &Rig, more: &str) -> Revision {
    let text = manifest(2, "v1", &format!("{CLAIMS}{more}"));
    let process = controllers(rig).await;
    let revision = apply(rig, &text).await;
    rolled_out(rig, revision).await;
    rig.settled().await;
    process.stop().await;
    // As gc does when a set is deleted and its dependents are to stay.
    delete::<StatefulSet>(rig, &db()).await;
    free::<Pod>(rig).await;
    free::<ControllerRevision>(rig).await;
    free::<PersistentVolumeClaim>(rig).await;
    apply(rig, &text).await
}

#[tokio::test]
async fn the_claims_of_pods_that_are_taken_on_are_kept_as_the_policy_says() {
    let rig = rig("sts-claims-adopted").await;
    let _agents = rig.agents();
    let policy =
        "  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Delete}\n";
    let revision = left_behind(&rig, policy).await;
    let left = pods(&rig);
    let _controllers = controllers(&rig).await;
    rolled_out(&rig, revision).await;
    rig.until("the claims are the new one's", |view| {
        let uid = view.desired::<StatefulSet>().get(&db())?.uid();
        let mut claims = view.desired::<PersistentVolumeClaim>().iter();
        let own = |c: &PersistentVolumeClaim| {
            let owners = &c.metadata.owner_references;
            owners.len() == 1 && owners[0].uid == uid
        };
        claims.all(|(_, c)| own(&c.value)).then_some(())
    })
    .await;
    assert_eq!(pods(&rig), left, "none was restarted");
    let one = manifest(1, "v1", &format!("{CLAIMS}{policy}"));
    let revision = apply(&rig, &one).await;
    rolled_out(&rig, revision).await;
    rig.settled().await;
    assert_eq!(claims(&rig), ["data-db-0".to_owned()].into());
}

/// In Kubernetes a claim that another controller owns stays. Here what says whose a claim is is the annotation, which
/// somebody who takes it over removes.
#[tokio::test]
async fn a_claim_that_somebody_has_taken_over_stays_and_a_further_owner_alone_takes_nothing_over() {
    let rig = rig("sts-claims-owned").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let policy =
        "  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Delete}\n";
    let set = |replicas| manifest(replicas, "v1", &format!("{CLAIMS}{policy}"));
    let revision = apply(&rig, &set(3)).await;
    rolled_out(&rig, revision).await;
    rig.settled().await;
    let other = OwnerReference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        name: "other".into(),
        uid: "other".into(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    let uid = {
        let view = rig.cache.view();
        view.desired::<StatefulSet>().get(&db()).unwrap().uid()
    };
    let change = async |name: &str, change: &dyn Fn(&mut PersistentVolumeClaim)| {
        let key = named(name);
        let mut claim = {
            let view = rig.cache.view();
            let stored = view.desired::<PersistentVolumeClaim>().get(&key).unwrap();
            stored.value.clone()
        };
        change(&mut claim);
        rig.put_desired::<PersistentVolumeClaim>(&key, &document::encode(&claim))
            .await;
    };
    for name in ["data-db-1", "data-db-2"] {
        // In one write: in between the set could make itself an owner again.
        change(name, &|claim| {
            claim.metadata.owner_references = vec![other.clone()];
            if name == "data-db-2" {
                claim.metadata.annotations.clear();
            }
        })
        .await;
    }
    let owners = |view: &View<'_>, name: &str| {
        let claim = view.desired::<PersistentVolumeClaim>().get(&named(name))?;
        let owners = claim.value.metadata.owner_references.iter();
        Some(owners.map(|o| o.kind.clone()).collect::<Vec<_>>())
    };
    // So gc keeps this one as well when the set is deleted, for as long as its other owner is there.
    rig.until("the claim has two owners", |view| {
        (owners(view, "data-db-1")? == ["ConfigMap", "StatefulSet"]).then_some(())
    })
    .await;
    rig.settled().await;
    let others = owners(&rig.cache.view(), "data-db-2");
    assert_eq!(others.unwrap(), ["ConfigMap"]);
    // It had made itself an owner before somebody had taken the claim over wholly.
    change("data-db-2", &|claim| {
        claim.metadata.owner_references.push(OwnerReference {
            api_version: StatefulSet::API_VERSION.into(),
            kind: StatefulSet::KIND.into(),
            name: "db".into(),
            uid: uid.clone(),
            controller: None,
            block_owner_deletion: None,
        });
    })
    .await;
    rig.until("it is an owner no longer", |view| {
        (owners(view, "data-db-2")? == ["ConfigMap"]).then_some(())
    })
    .await;
    let revision = apply(&rig, &set(1)).await;
    rolled_out(&rig, revision).await;
    rig.settled().await;
    assert_eq!(
        claims(&rig),
        ["data-db-0", "data-db-2"].map(String::from).into()
    );
}

/// Takes all objects of a kind out from under their owners.
pub(crate) async fn free<K: Kind>(rig: &Rig) {
    let keys: Vec<ObjectKey> = {
        let view = rig.cache.view();
        let all = view.desired::<K>().iter();
        all.map(|(key, _)| key.clone()).collect()
    };
    for key in keys {
        let name = rig.keyspace.build(&Key::Desired(K::PLURAL, key.clone()));
        let (kv, _) = rig.store.get(&name).await.unwrap();
        let text = owners::with_owner_references::<K>(&key, &kv.unwrap().value, &[]).unwrap();
        rig.put_desired::<K>(&key, &text).await;
    }
}

#[tokio::test]
async fn a_change_of_a_config_map_is_a_rollout() {
    let rig = rig("sts-config").await;
    let (_controllers, _agents) = (controllers(&rig).await, rig.agents());
    let config = async |value: &str| {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app, namespace: default}}\ndata: {{a: {value}}}\n"
        );
        rig.put_desired::<ConfigMap>(&named("app"), &text).await
    };
    config("one").await;
    let text = manifest(2, "v1", "").replace(
        "image: v1}",
        "image: v1, envFrom: [{configMapRef: {name: app}}]}",
    );
    let revision = apply(&rig, &text).await;
    rolled_out(&rig, revision).await;
    let first = pods(&rig);
    config("two").await;
    rig.until("both pods are replaced", |view| {
        let pods = view.desired::<Pod>().iter();
        let new = pods.filter(|(key, p)| p.create_revision > first[&*key.name].1);
        (new.count() == 2 && status(view)?.available_replicas == Some(2)).then_some(())
    })
    .await;
    let view = rig.cache.view();
    for (_, pod) in view.desired::<Pod>().iter() {
        let read = pod.value.spec.config_maps().into_keys().next().unwrap();
        let copy = view.desired::<ConfigMap>().get(&named(read)).unwrap();
        assert_eq!(copy.value.data["a"], "two");
    }
}

#[tokio::test]
async fn revisions_are_known_by_their_names_also_long_ones_and_no_others_are_taken_on() {
    let rig = rig("sts-names").await;
    let (mut process, _agents) = (controllers(&rig).await, rig.agents());
    // What `db-x` has left behind has all labels of `db`, and a name that begins like those of its revisions.
    let other = manifest(1, "host", "")
        .replace("name: db,", "name: db-x,")
        .replace("labels: {app: db}", "labels: {app: db, x: y}")
        .replace("{matchLabels: {app: db}}", "{matchLabels: {x: y}}");
    rig.put_desired::<StatefulSet>(&named("db-x"), &other).await;
    let revision = |stem: &'static str| {
        move |view: &View<'_>| {
            let mut all = view.desired::<ControllerRevision>().entries();
            let found = all.find(|(key, _)| key.name.starts_with(stem))?;
            Some(found.0.clone())
        }
    };
    let left = rig.until("it has a revision", revision("db-x-")).await;
    rig.until("it has a pod", |view| {
        view.desired::<Pod>()
            .contains(&named("db-x-0"))
            .then_some(())
    })
    .await;
    delete::<StatefulSet>(&rig, &named("db-x")).await;
    for key in [Key::Desired(ControllerRevision::PLURAL, left.clone())] {
        let name = rig.keyspace.build(&key);
        let (kv, _) = rig.store.get(&name).await.unwrap();
        let text =
            owners::with_owner_references::<ControllerRevision>(&left, &kv.unwrap().value, &[]);
        rig.put(&key, &text.unwrap()).await;
    }
    let document = apply(&rig, &manifest(1, "v2", "")).await;
    rolled_out(&rig, document).await;
    rig.settled().await;
    let found = rig
        .cache
        .view()
        .desired::<ControllerRevision>()
        .get(&left)
        .cloned();
    assert!(found.unwrap().value.metadata.owner_references.is_empty());

    // A name that its revisions' names do not hold as a whole. Who comes next has never seen a good one.
    let long: &'static str = "a-set-with-a-name-that-is-too-long-to-be-part-of-a-label";
    assert!(long.len() > 52);
    let text = manifest(1, "host", "").replace("db", "long").replacen(
        "name: long",
        &format!("name: {long}"),
        1,
    );
    rig.put_desired::<StatefulSet>(&named(long), &text).await;
    let own = rig
        .until("it has a revision", revision("a-set-with-a-name"))
        .await;
    rig.until("it has a pod", |view| {
        let pod = named(&format!("{long}-0"));
        view.pod_actual(&pod).map(|_| ())
    })
    .await;
    let key = Key::Desired(ControllerRevision::PLURAL, own);
    let name = rig.keyspace.build(&key);
    let good = rig.store.get(&name).await.unwrap().0.unwrap().value;
    rig.put(&key, "what: [").await;
    process.stop().await;
    process = controllers(&rig).await;
    let invalid = |view: &View<'_>| {
        let status = &view.actual::<StatefulSet>().get(&named(long))?.value;
        let mut all = status.conditions.iter();
        Some(all.any(|c| c.type_ == "Invalid" && c.status == "True"))
    };
    rig.until("it is frozen", |view| invalid(view)?.then_some(()))
        .await;
    rig.put(&key, std::str::from_utf8(&good).unwrap()).await;
    rig.until("it goes on", |view| (!invalid(view)?).then_some(()))
        .await;
    process.stop().await;
}

/// An older workload selects the same pods: who comes after it takes on neither pods nor revisions, though they have its
/// names, until it is alone. Then none of them is restarted. What another set of a longer name left behind is never its.
#[tokio::test]
async fn a_set_that_overlaps_takes_on_nothing_until_it_is_alone() {
    let rig = rig("sts-overlap").await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    let revision = apply(&rig, &manifest(2, "v1", "")).await;
    rolled_out(&rig, revision).await;
    let first = pods(&rig);
    process.stop().await;
    delete::<StatefulSet>(&rig, &db()).await;
    free::<Pod>(&rig).await;
    free::<ControllerRevision>(&rig).await;
    let others = named("db-other-6b474476c4");
    let text = {
        let view = rig.cache.view();
        let (_, own) = view.desired::<ControllerRevision>().iter().next().unwrap();
        let mut text = own.value.clone();
        text.metadata.name = (&*others.name).into();
        document::encode(&text)
    };
    rig.put_desired::<ControllerRevision>(&others, &text).await;
    let older = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\nspec: {replicas: 0, \
                 selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: \
                 [{name: c, image: host}]}}}\n";
    rig.put_desired::<Deployment>(&named("web"), older).await;
    let _controllers = controllers(&rig).await;
    let revision = apply(&rig, &manifest(2, "v1", "")).await;
    let failure = rig
        .until("it says that it overlaps, and what is in its way", |view| {
            let conditions = &status(view)?.conditions;
            let find = |type_: &str| conditions.iter().find(|c| c.type_ == type_);
            find("SelectorOverlap")?;
            find("ReplicaFailure")?.reason.clone()
        })
        .await;
    assert_eq!(failure, "NameTaken");
    rig.settled().await;
    fn owned(view: &View<'_>) -> (usize, bool) {
        let pods = view.desired::<Pod>().iter();
        let pods = pods.filter(|(_, p)| p.value.metadata.controller().is_some());
        let mut revisions = view.desired::<ControllerRevision>().iter();
        let strange = |name: &str| name.starts_with("db-other-");
        let others =
            revisions.any(|(k, r)| strange(&k.name) && r.value.metadata.controller().is_some());
        (pods.count(), others)
    }
    assert_eq!(owned(&rig.cache.view()), (0, false));
    delete::<Deployment>(&rig, &named("web")).await;
    rig.until("both pods are its own", |view| {
        (owned(view) == (2, false)).then_some(())
    })
    .await;
    rolled_out(&rig, revision).await;
    rig.settled().await;
    assert_eq!(pods(&rig), first, "none was restarted");
    assert_eq!(owned(&rig.cache.view()), (2, false));
}
