//! Garbage collection against a real etcd.

mod cascades;
mod claims;
mod homes;
#[path = "../../../workloads/tests/it/rig.rs"]
#[expect(dead_code, reason = "nothing is scheduled here")]
mod rig;

use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::{ConfigMap, Namespace, Node, Pod};
use setpoint_apis::meta::derived_uid;
use setpoint_apis::records::Deletion;
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_runtime::View;
use setpoint_store::{Revision, Txn};

use rig::{Process, Rig};

async fn rig(name: &str) -> Rig {
    Rig::start(name, setpoint_gc::register).await
}

async fn collector(rig: &Rig) -> Process {
    rig.process("gc", setpoint_gc::run).await
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn owner<K: Kind>(name: &str, uid: &str) -> String {
    format!(
        "{{apiVersion: {}, kind: {}, name: {name}, uid: {uid}, controller: true, blockOwnerDeletion: true}}",
        K::API_VERSION,
        K::KIND
    )
}

const TEMPLATE: &str = "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: \
                        {containers: [{name: c, image: host}]}}";

/// Writes an object with owners, and returns its uid.
async fn put<K: Kind>(rig: &Rig, name: &str, owners: &[String]) -> String {
    let spec = match K::PLURAL {
        "pods" => "spec: {containers: [{name: c, image: host}]}".to_owned(),
        "deployments" | "replicasets" => format!("spec: {{{TEMPLATE}}}"),
        _ => String::new(),
    };
    let owners = owners.join(", ");
    let text = format!(
        "apiVersion: {}\nkind: {}\nmetadata: {{name: {name}, ownerReferences: [{owners}]}}\n{spec}\n",
        K::API_VERSION,
        K::KIND
    );
    let key = if K::NAMESPACED {
        key(name)
    } else {
        ObjectKey::cluster(name)
    };
    derived_uid(rig.put_desired::<K>(&key, &text).await.0, K::PLURAL, &key)
}

async fn delete<K: Kind>(rig: &Rig, name: &str) -> Revision {
    let key = rig.keyspace.build(&Key::Desired(K::PLURAL, key(name)));
    rig.store
        .txn(Txn::new().delete(key))
        .await
        .unwrap()
        .revision
}

fn has<K: Kind>(view: &View<'_>, name: &str) -> bool {
    view.desired::<K>().contains(&key(name))
}

async fn gone<K: Kind>(rig: &Rig, name: &str) {
    rig.until(&format!("{} {name} is gone", K::KIND), |view| {
        (!has::<K>(view, name)).then_some(())
    })
    .await;
}

/// Waits until the collector has looked at everything that is written by now: it deletes an object that is put last.
async fn swept(rig: &Rig) {
    put::<ConfigMap>(rig, "sweep", &[owner::<ConfigMap>("nobody", "nothing")]).await;
    gone::<ConfigMap>(rig, "sweep").await;
}

async fn chain(rig: &Rig, pods: usize) {
    let deployment = put::<Deployment>(rig, "web", &[]).await;
    let set = put::<ReplicaSet>(rig, "web-1", &[owner::<Deployment>("web", &deployment)]).await;
    for i in 0..pods {
        put::<Pod>(
            rig,
            &format!("web-1-{i}"),
            &[owner::<ReplicaSet>("web-1", &set)],
        )
        .await;
    }
}

fn left(rig: &Rig) -> (usize, usize, usize) {
    let view = rig.cache.view();
    (
        view.desired::<Deployment>().len(),
        view.desired::<ReplicaSet>().len(),
        view.desired::<Pod>().len(),
    )
}

async fn record(rig: &Rig, policy: &str, remove: bool) {
    delete_with::<Deployment>(rig, "web", policy, remove).await;
}

/// Leaves a record of how to delete an object, as `setpoint delete --cascade` does, and removes the object with it
/// where that goes first.
async fn delete_with<K: Kind>(rig: &Rig, name: &str, policy: &str, remove: bool) {
    let uid = rig
        .cache
        .view()
        .desired::<K>()
        .get(&key(name))
        .unwrap()
        .uid();
    let record = Deletion {
        propagation_policy: policy.into(),
        uid,
    };
    let place = rig.keyspace.build(&Key::Deletion(K::PLURAL, key(name)));
    let mut txn = Txn::new().put(place, document::encode(&record));
    if remove {
        txn = txn.delete(rig.keyspace.build(&Key::Desired(K::PLURAL, key(name))));
    }
    rig.store.txn(txn).await.unwrap();
}

#[tokio::test]
async fn what_depended_on_a_deleted_object_goes_down_to_the_last_pod() {
    let rig = rig("chain").await;
    let _collector = collector(&rig).await;
    chain(&rig, 20).await;
    put::<Pod>(&rig, "free", &[]).await;
    swept(&rig).await;
    rig.level().await;
    assert_eq!(left(&rig), (1, 1, 21));
    delete::<Deployment>(&rig, "web").await;
    rig.until("only the free pod is left", |view| {
        (view.desired::<Pod>().len() == 1).then_some(())
    })
    .await;
    rig.level().await;
    assert_eq!(left(&rig), (0, 0, 1));
}

#[tokio::test]
async fn what_was_left_while_nobody_collected_is_found() {
    let rig = rig("late").await;
    chain(&rig, 3).await;
    delete::<Deployment>(&rig, "web").await;
    delete::<ReplicaSet>(&rig, "web-1").await;
    let _collector = collector(&rig).await;
    rig.until("no pod is left", |view| {
        view.desired::<Pod>().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn broken_yaml_over_an_owner_or_a_dependent_deletes_nothing() {
    let rig = rig("broken").await;
    chain(&rig, 2).await;
    for plural in [Deployment::PLURAL, ReplicaSet::PLURAL, Pod::PLURAL] {
        let name = match plural {
            "deployments" => "web",
            "replicasets" => "web-1",
            _ => "web-1-0",
        };
        let key = Key::Desired(plural, key(name));
        let (good, _) = rig.store.get(&rig.keyspace.build(&key)).await.unwrap();
        rig.put(&key, "metadata: [").await;
        let collector = collector(&rig).await;
        swept(&rig).await;
        rig.level().await;
        assert_eq!(left(&rig), (1, 1, 2), "{plural}");
        let good = String::from_utf8(good.unwrap().value.to_vec()).unwrap();
        rig.put(&key, &good).await;
        collector.stop().await;
    }
    // A broken dependent of a deleted owner stays until it is mended.
    let _collector = collector(&rig).await;
    let broken = Key::Desired(Pod::PLURAL, key("web-1-0"));
    let (good, _) = rig.store.get(&rig.keyspace.build(&broken)).await.unwrap();
    rig.put(&broken, "metadata: [").await;
    delete::<Deployment>(&rig, "web").await;
    rig.until("the others are gone", |view| {
        (view.desired::<Pod>().len() == 1).then_some(())
    })
    .await;
    swept(&rig).await;
    rig.level().await;
    assert_eq!(left(&rig), (0, 0, 1));
    rig.put(&broken, std::str::from_utf8(&good.unwrap().value).unwrap())
        .await;
    gone::<Pod>(&rig, "web-1-0").await;
}

#[tokio::test]
async fn an_owner_of_the_same_name_and_another_uid_is_another_object() {
    let rig = rig("uid").await;
    let _collector = collector(&rig).await;
    let first = put::<ConfigMap>(&rig, "owner", &[]).await;
    put::<Pod>(&rig, "old", &[owner::<ConfigMap>("owner", &first)]).await;
    let txn = Txn::new().delete(
        rig.keyspace
            .build(&Key::Desired(ConfigMap::PLURAL, key("owner"))),
    );
    rig.store.txn(txn).await.unwrap();
    let second = put::<ConfigMap>(&rig, "owner", &[]).await;
    put::<Pod>(&rig, "new", &[owner::<ConfigMap>("owner", &second)]).await;
    put::<Pod>(&rig, "late", &[owner::<ConfigMap>("owner", &first)]).await;
    gone::<Pod>(&rig, "old").await;
    gone::<Pod>(&rig, "late").await;
    assert!(has::<Pod>(&rig.cache.view(), "new"));
}

#[tokio::test]
async fn owners_of_unknown_kinds_and_one_owner_that_lives_keep_an_object() {
    let rig = rig("unknown").await;
    let _collector = collector(&rig).await;
    let node = put::<Node>(&rig, "n1", &[]).await;
    let unknown = "{apiVersion: example.com/v1, kind: Widget, name: w, uid: x}".to_owned();
    put::<Pod>(&rig, "of-unknown", &[unknown]).await;
    put::<Pod>(
        &rig,
        "of-two",
        &[
            owner::<Node>("n1", &node),
            owner::<ConfigMap>("gone", "x").replace("controller: true", "controller: false"),
        ],
    )
    .await;
    put::<Pod>(&rig, "of-none", &[owner::<Node>("n2", "y")]).await;
    gone::<Pod>(&rig, "of-none").await;
    swept(&rig).await;
    rig.level().await;
    assert_eq!(left(&rig), (0, 0, 2));
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let rig = rig("orphan").await;
    let _collector = collector(&rig).await;
    chain(&rig, 2).await;
    rig.level().await;
    record(&rig, "Orphan", true).await;
    rig.until("the set is free and the record gone", |view| {
        let set = view.desired::<ReplicaSet>().get(&key("web-1"))?;
        (set.value.metadata.owner_references.is_empty()
            && view.deletions(Deployment::PLURAL).is_none())
        .then_some(())
    })
    .await;
    swept(&rig).await;
    rig.level().await;
    assert_eq!(left(&rig), (0, 1, 2));
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let rig = rig("foreground").await;
    let _collector = collector(&rig).await;
    chain(&rig, 5).await;
    rig.level().await;
    let history = rig.history().await;
    record(&rig, "Foreground", false).await;
    gone::<Deployment>(&rig, "web").await;
    let end = rig
        .put(&Key::Actual("leaders", ObjectKey::cluster("end")), "x: 1\n")
        .await;
    history.until(end).await;
    let deleted = history.deleted();
    let at = |part: &str| {
        deleted
            .iter()
            .rposition(|k| k.contains(part))
            .unwrap_or_else(|| panic!("{part}: {deleted:?}"))
    };
    assert!(
        at("/desired/pods/") < at("/desired/replicasets/")
            && at("/desired/replicasets/") < at("/desired/deployments/")
    );
    rig.level().await;
    assert_eq!(left(&rig), (0, 0, 0));
    let view = rig.cache.view();
    assert!(
        view.deletions(Deployment::PLURAL).is_none()
            && view.deletions(ReplicaSet::PLURAL).is_none()
    );
}

#[tokio::test]
async fn statuses_go_with_their_objects_except_those_of_pods() {
    let rig = rig("statuses").await;
    put::<Deployment>(&rig, "web", &[]).await;
    for (plural, name) in [
        ("deployments", "web"),
        ("deployments", "gone"),
        ("replicasets", "gone"),
        ("pods", "gone"),
    ] {
        rig.put(
            &Key::Actual(plural, key(name)),
            "replicas: 1\nplacements: 1\n",
        )
        .await;
    }
    let _collector = collector(&rig).await;
    rig.until("the statuses of what is gone are gone", |view| {
        let (d, r) = (view.actual::<Deployment>(), view.actual::<ReplicaSet>());
        (d.len() == 1 && r.is_empty()).then_some(())
    })
    .await;
    delete::<Deployment>(&rig, "web").await;
    rig.until("that of the Deployment follows", |view| {
        view.actual::<Deployment>().is_empty().then_some(())
    })
    .await;
    assert_eq!(rig.cache.view().actual::<Pod>().len(), 1);
}

#[tokio::test]
async fn what_is_left_in_a_deleted_namespace_goes_and_one_that_was_never_there_gets_time() {
    let rig = rig("namespace").await;
    let _collector = collector(&rig).await;
    let home = ObjectKey::cluster("team");
    let document = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n";
    rig.put_desired::<Namespace>(&home, document).await;
    let object = |namespace: &str| ObjectKey::namespaced(namespace, "c");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
    for namespace in ["team", "never", "default"] {
        rig.put_desired::<ConfigMap>(&object(namespace), map).await;
    }
    swept(&rig).await;
    let txn = Txn::new().delete(
        rig.keyspace
            .build(&Key::Desired(Namespace::PLURAL, home.clone())),
    );
    rig.store.txn(txn).await.unwrap();
    rig.until("the map is gone", |view| {
        (!view.desired::<ConfigMap>().contains(&object("team"))).then_some(())
    })
    .await;
    // A racing create that comes after it goes, too, and so does what does not parse.
    rig.put_desired::<ConfigMap>(&object("team"), "data: [")
        .await;
    rig.until("the late one is gone", |view| {
        (!view.desired::<ConfigMap>().contains(&object("team"))).then_some(())
    })
    .await;
    swept(&rig).await;
    rig.level().await;
    let view = rig.cache.view();
    assert!(view.desired::<ConfigMap>().contains(&object("never")));
    assert!(view.desired::<ConfigMap>().contains(&object("default")));
}

/// Garbage collection and workloads, each in a process of its own.
async fn both(name: &str) -> (Rig, [Process; 2]) {
    let rig = Rig::start(name, |b| {
        setpoint_gc::register(setpoint_workloads::register(b))
    })
    .await;
    let collector = collector(&rig).await;
    let workloads = rig
        .process("workloads", |leader, clock, recorder| {
            setpoint_workloads::run(leader, clock, recorder, 1)
        })
        .await;
    (rig, [collector, workloads])
}

/// Both at work: what is deleted is not made again.
#[tokio::test]
async fn a_deployment_under_control_is_deleted_in_all_three_ways() {
    for (policy, remove) in [
        ("Background", true),
        ("Foreground", false),
        ("Orphan", true),
    ] {
        let (rig, _processes) = both("together").await;
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec: {{replicas: 5, {TEMPLATE}}}\n"
        );
        rig.put_desired::<Deployment>(&key("web"), &text).await;
        rig.until("the pods are wanted", |view| {
            (view.desired::<Pod>().len() == 5).then_some(())
        })
        .await;
        rig.level().await;
        record(&rig, policy, remove).await;
        rig.until("it is deleted and the record gone", |view| {
            (view.desired::<Deployment>().is_empty()
                && view.deletions(Deployment::PLURAL).is_none())
            .then_some(())
        })
        .await;
        let pods = if policy == "Orphan" { 5 } else { 0 };
        rig.until("the pods are as many as they are to be", |view| {
            (view.desired::<Pod>().len() == pods).then_some(())
        })
        .await;
        swept(&rig).await;
        rig.level().await;
        assert_eq!(left(&rig), (0, usize::from(pods > 0), pods), "{policy}");
        let view = rig.cache.view();
        assert!(
            view.actual::<Deployment>().is_empty(),
            "its status goes, too"
        );
    }
}
