//! Cascades, as Kubernetes' end-to-end tests of its collector ask for them: several owners, circles, what blocks and what
//! does not, and what a workload leaves behind that is deleted without its dependents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setpoint_apis::apps::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{ConfigMap, Namespace, Node, Pod};
use setpoint_apis::kind::{ApiVersion, KindName, NoStatus};
use setpoint_apis::{Key, Kind, ObjectKey, ObjectMeta};
use setpoint_gc::Kinds;
use setpoint_runtime::View;
use setpoint_store::Txn;

use crate::rig::Rig;
use crate::{both, collector, delete, delete_with, gone, has, key, owner, put, rig, swept};

/// The reference of a dependent that nobody waits for.
fn loose<K: Kind>(name: &str, uid: &str) -> String {
    owner::<K>(name, uid).replace(", controller: true, blockOwnerDeletion: true", "")
}

fn owners(rig: &Rig, pod: &str) -> Vec<String> {
    let view = rig.cache.view();
    let pod = view.desired::<Pod>().get(&key(pod)).unwrap();
    let owners = pod.value.metadata.owner_references.iter();
    owners.map(|o| o.name.clone()).collect()
}

#[tokio::test]
async fn a_pod_of_two_owners_stays_with_the_one_that_stays_and_the_other_goes_in_the_foreground() {
    let rig = rig("two-owners").await;
    let _collector = collector(&rig).await;
    let a = put::<ReplicaSet>(&rig, "a", &[]).await;
    let b = put::<ReplicaSet>(&rig, "b", &[]).await;
    for i in 0..3 {
        let own = owner::<ReplicaSet>("a", &a);
        put::<Pod>(&rig, &format!("of-a-{i}"), std::slice::from_ref(&own)).await;
        let both = [own, loose::<ReplicaSet>("b", &b)];
        put::<Pod>(&rig, &format!("of-both-{i}"), &both).await;
    }
    delete_with::<ReplicaSet>(&rig, "a", "Foreground", false).await;
    gone::<ReplicaSet>(&rig, "a").await;
    swept(&rig).await;
    rig.level().await;
    let view = rig.cache.view();
    let left: Vec<&str> = view
        .desired::<Pod>()
        .entries()
        .map(|(k, _)| &*k.name)
        .collect();
    assert_eq!(left, ["of-both-0", "of-both-1", "of-both-2"]);
    assert!(view.deletions(ReplicaSet::PLURAL).is_none());
    drop(view);
    assert_eq!(owners(&rig, "of-both-0"), ["b"]);
}

#[tokio::test]
async fn an_owner_waits_only_for_those_that_block_it() {
    let rig = rig("blocking").await;
    let set = put::<ReplicaSet>(&rig, "set", &[]).await;
    let broken = Key::Desired(Pod::PLURAL, key("loose"));
    put::<Pod>(&rig, "loose", &[loose::<ReplicaSet>("set", &set)]).await;
    let _collector = collector(&rig).await;
    swept(&rig).await;
    // What does not parse is not deleted, so that an owner that waited for it would wait for long.
    rig.put(&broken, "metadata: [").await;
    delete_with::<ReplicaSet>(&rig, "set", "Foreground", false).await;
    gone::<ReplicaSet>(&rig, "set").await;
    assert!(has::<Pod>(&rig.cache.view(), "loose"));

    let set = put::<ReplicaSet>(&rig, "set", &[]).await;
    put::<Pod>(&rig, "tied", &[owner::<ReplicaSet>("set", &set)]).await;
    swept(&rig).await;
    let broken = Key::Desired(Pod::PLURAL, key("tied"));
    let (good, _) = rig.store.get(&rig.keyspace.build(&broken)).await.unwrap();
    rig.put(&broken, "metadata: [").await;
    delete_with::<ReplicaSet>(&rig, "set", "Foreground", false).await;
    swept(&rig).await;
    rig.level().await;
    assert!(has::<ReplicaSet>(&rig.cache.view(), "set"));
    rig.put(&broken, std::str::from_utf8(&good.unwrap().value).unwrap())
        .await;
    gone::<ReplicaSet>(&rig, "set").await;
    gone::<Pod>(&rig, "tied").await;
}

#[tokio::test]
async fn a_circle_of_owners_goes_whichever_way_one_of_it_is_deleted() {
    for foreground in [true, false] {
        let rig = rig("circle").await;
        let _collector = collector(&rig).await;
        // They are written before they name one another, so that each is there when it is named.
        let names = ["one", "two", "three"];
        let mut uids = Vec::new();
        for name in names {
            uids.push(put::<Pod>(&rig, name, &[]).await);
        }
        for (i, name) in names.iter().enumerate() {
            let of = (i + 2) % 3;
            put_again(&rig, name, &owner::<Pod>(names[of], &uids[of])).await;
        }
        swept(&rig).await;
        if foreground {
            delete_with::<Pod>(&rig, "one", "Foreground", false).await;
        } else {
            delete::<Pod>(&rig, "one").await;
        }
        for name in names {
            gone::<Pod>(&rig, name).await;
        }
        rig.until("no record is left", |view| {
            view.deletions(Pod::PLURAL).is_none().then_some(())
        })
        .await;
    }
}

/// Writes a pod over itself, with one owner: it stays the same object.
async fn put_again(rig: &Rig, name: &str, owner: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, ownerReferences: [{owner}]}}\nspec: \
         {{containers: [{{name: c, image: host}}]}}\n"
    );
    rig.put_desired::<Pod>(&key(name), &text).await;
}

#[tokio::test]
async fn an_owner_in_another_namespace_is_none_and_who_lives_in_none_has_no_owner_in_one() {
    let rig = rig("across").await;
    let _collector = collector(&rig).await;
    let document = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n";
    rig.put_desired::<Namespace>(&ObjectKey::cluster("other"), document)
        .await;
    let set = put::<ReplicaSet>(&rig, "set", &[]).await;
    let node = put::<Node>(&rig, "n1", &[owner::<ReplicaSet>("gone", "x")]).await;
    let pod = |owner: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: other, ownerReferences: [{owner}]}}\nspec: \
             {{containers: [{{name: c, image: host}}]}}\n"
        )
    };
    let there = ObjectKey::namespaced("other", "p");
    rig.put_desired::<Pod>(&there, &pod(&owner::<Node>("n1", &node)))
        .await;
    swept(&rig).await;
    assert!(rig.cache.view().desired::<Pod>().contains(&there));
    rig.put_desired::<Pod>(&there, &pod(&owner::<ReplicaSet>("set", &set)))
        .await;
    rig.until("the pod is gone", |view| {
        (!view.desired::<Pod>().contains(&there)).then_some(())
    })
    .await;
    // Nobody can say that the owner of the node is gone.
    let node = ObjectKey::cluster("n1");
    assert!(rig.cache.view().desired::<Node>().contains(&node));
}

#[tokio::test]
async fn an_owner_that_is_deleted_in_the_foreground_takes_what_it_owns_through_two_levels() {
    let rig = rig("levels").await;
    let _collector = collector(&rig).await;
    let top = put::<ConfigMap>(&rig, "top", &[]).await;
    let middle = put::<ConfigMap>(&rig, "middle", &[owner::<ConfigMap>("top", &top)]).await;
    let low = put::<ConfigMap>(&rig, "low", &[owner::<ConfigMap>("middle", &middle)]).await;
    put::<Pod>(&rig, "leaf", &[owner::<ConfigMap>("low", &low)]).await;
    swept(&rig).await;
    let history = rig.history().await;
    delete_with::<ConfigMap>(&rig, "top", "Foreground", false).await;
    gone::<ConfigMap>(&rig, "top").await;
    let end = rig
        .put(&Key::Actual("leaders", ObjectKey::cluster("end")), "x: 1\n")
        .await;
    history.until(end).await;
    let order: Vec<String> = history
        .deleted()
        .into_iter()
        .filter(|k| k.contains("/desired/"))
        .filter_map(|k| k.rsplit('/').next().map(str::to_owned))
        .collect();
    assert_eq!(order, ["leaf", "low", "middle", "top"]);
}

fn pods(rig: &Rig) -> Vec<(String, i64, Option<String>)> {
    let view = rig.cache.view();
    let row = |(k, p): (&ObjectKey, &std::sync::Arc<setpoint_runtime::Stored<Pod>>)| {
        let owner = p.value.metadata.controller().map(|o| o.name.clone());
        (k.name.to_string(), p.create_revision, owner)
    };
    view.desired::<Pod>().iter().map(row).collect()
}

const POD: &str = "{metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: host}]}}";

/// Writes a workload, waits for its pods, deletes it without them, sees that they stay as they are, and writes it again.
/// Returns the pods before and after.
async fn left_and_taken_up_again<K: Kind>(
    text: &str,
    n: usize,
) -> (
    Vec<(String, i64, Option<String>)>,
    Vec<(String, i64, Option<String>)>,
) {
    let (rig, _running) = both("orphans").await;
    let _agents = rig.agents();
    put::<Node>(&rig, "n1", &[]).await;
    rig.put_desired::<K>(&key("web"), text).await;
    rig.until("the pods are wanted", |view| {
        (view.desired::<Pod>().len() == n).then_some(())
    })
    .await;
    rig.settled().await;
    let before = pods(&rig);
    delete_with::<K>(&rig, "web", "Orphan", true).await;
    rig.until("the record is gone", |view| {
        view.deletions(K::PLURAL).is_none().then_some(())
    })
    .await;
    swept(&rig).await;
    rig.settled().await;
    let without: Vec<_> = pods(&rig).into_iter().map(|p| (p.0, p.1)).collect();
    let same: Vec<_> = before.iter().map(|p| (p.0.clone(), p.1)).collect();
    assert_eq!(without, same, "{}", K::KIND);
    rig.put_desired::<K>(&key("web"), text).await;
    rig.until("the workload has been looked at", |view| {
        let status = view.actual::<K>().contains(&key("web"));
        let owned = view.desired::<Pod>().iter();
        let owned = owned.filter(|(_, p)| p.value.metadata.controller().is_some());
        (status && owned.count() >= n).then_some(())
    })
    .await;
    swept(&rig).await;
    rig.settled().await;
    let after = pods(&rig);
    (before, after)
}

#[tokio::test]
async fn what_was_orphaned_is_taken_up_by_the_next_workload_that_selects_it() {
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec: {{replicas: 3, selector: \
         {{matchLabels: {{a: b}}}}, template: {POD}}}\n"
    );
    let stateful = format!(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: web}}\nspec: {{replicas: 3, podManagementPolicy: \
         Parallel, serviceName: s, selector: {{matchLabels: {{a: b}}}}, template: {POD}}}\n"
    );
    let daemon = format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: web}}\nspec: {{selector: {{matchLabels: {{a: b}}}}, \
         template: {POD}}}\n"
    );
    let set = deployment.replace("Deployment", "ReplicaSet");
    for (before, after) in [
        left_and_taken_up_again::<Deployment>(&deployment, 3).await,
        left_and_taken_up_again::<ReplicaSet>(&set, 3).await,
        left_and_taken_up_again::<StatefulSet>(&stateful, 3).await,
        left_and_taken_up_again::<DaemonSet>(&daemon, 1).await,
    ] {
        assert_eq!(before, after);
    }
}

/// Alone and as a collection: what its pods are of goes with a DaemonSet or a StatefulSet, and nothing else does.
#[tokio::test]
async fn daemon_sets_and_stateful_sets_take_their_pods_and_revisions_with_them() {
    let (rig, _running) = both("orphans").await;
    let _agents = rig.agents();
    put::<Node>(&rig, "n1", &[]).await;
    let set = |kind: &str, name: &str, more: &str| {
        format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{more}selector: {{matchLabels: \
             {{a: {name}}}}}, template: {{metadata: {{labels: {{a: {name}}}}}, spec: {{containers: [{{name: c, image: \
             host}}]}}}}}}\n"
        )
    };
    for name in ["a", "b", "c", "stays"] {
        rig.put_desired::<DaemonSet>(&key(name), &set("DaemonSet", name, ""))
            .await;
    }
    for name in ["x", "y", "z"] {
        rig.put_desired::<StatefulSet>(&key(name), &set("StatefulSet", name, "serviceName: s, "))
            .await;
    }
    // What there is, by the name of the set that it is of.
    let of = |view: &View<'_>| {
        // Others than these are the rig's own.
        let owner = |key: &ObjectKey, meta: &ObjectMeta| {
            let name = || meta.controller().unwrap().name.clone();
            (&*key.namespace == "default").then(name)
        };
        let pods = view.desired::<Pod>().iter();
        let pods = pods.filter_map(|(k, p)| owner(k, &p.value.metadata));
        let revisions = view.desired::<ControllerRevision>().iter();
        let revisions = revisions.filter_map(|(k, r)| owner(k, &r.value.metadata));
        let (pods, revisions) = (pods.collect(), revisions.collect());
        [pods, revisions].map(|mut all: Vec<String>| {
            all.sort();
            all.join(" ")
        })
    };
    let left = async |expected: &str| {
        rig.until(&format!("what is left is of {expected}"), |view| {
            of(view).iter().all(|all| all == expected).then_some(())
        })
        .await;
    };
    left("a b c stays x y z").await;
    delete::<DaemonSet>(&rig, "a").await;
    delete::<StatefulSet>(&rig, "x").await;
    left("b c stays y z").await;
    let gone = |kind, name| rig.keyspace.build(&Key::Desired(kind, key(name)));
    let (daemons, sets) = (DaemonSet::PLURAL, StatefulSet::PLURAL);
    let all = [(daemons, "b"), (daemons, "c"), (sets, "y"), (sets, "z")];
    let all = all
        .iter()
        .fold(Txn::new(), |txn, (kind, name)| txn.delete(gone(kind, name)));
    rig.store.txn(all).await.unwrap();
    left("stays").await;
    swept(&rig).await;
    rig.settled().await;
    assert_eq!(of(&rig.cache.view()), ["stays", "stays"]);
}

#[tokio::test]
async fn the_pods_of_an_orphaned_job_stay_and_the_next_job_of_its_name_runs_its_own() {
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: web}\nspec: {parallelism: 2, completions: 2, template: \
               {spec: {restartPolicy: Never, containers: [{name: c, image: host}]}}}\n";
    let (rig, _running) = both("orphans").await;
    rig.put_desired::<Job>(&key("web"), job).await;
    rig.until("the pods are wanted", |view| {
        (view.desired::<Pod>().len() == 2).then_some(())
    })
    .await;
    rig.settled().await;
    let before: Vec<String> = pods(&rig).into_iter().map(|p| p.0).collect();
    delete_with::<Job>(&rig, "web", "Orphan", true).await;
    rig.until("the record is gone", |view| {
        view.deletions(Job::PLURAL).is_none().then_some(())
    })
    .await;
    rig.put_desired::<Job>(&key("web"), job).await;
    // Its selector is its uid, which no other pod carries.
    rig.until("it has pods of its own", |view| {
        (view.desired::<Pod>().len() == 4).then_some(())
    })
    .await;
    let free: Vec<String> = pods(&rig)
        .into_iter()
        .filter(|p| p.2.is_none())
        .map(|p| p.0)
        .collect();
    assert_eq!(free, before);
}

#[tokio::test]
async fn a_cron_job_takes_its_jobs_and_their_pods_with_it_or_leaves_the_jobs() {
    for policy in ["Background", "Orphan"] {
        let (rig, _running) = both("orphans").await;
        let text = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: tick}\nspec: {schedule: '0 0 1 1 *', \
                    jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: host}]}}}}}\n";
        rig.put_desired::<CronJob>(&key("tick"), text).await;
        let view = rig.cache.view();
        let uid = view.desired::<CronJob>().get(&key("tick")).unwrap().uid();
        drop(view);
        // As the CronJob makes it when its time has come.
        let job = format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: tick-1, ownerReferences: [{}]}}\nspec: {{template: \
             {{spec: {{restartPolicy: Never, containers: [{{name: c, image: host}}]}}}}}}\n",
            owner::<CronJob>("tick", &uid)
        );
        rig.put_desired::<Job>(&key("tick-1"), &job).await;
        rig.until("the pod is wanted", |view| {
            (view.desired::<Pod>().len() == 1).then_some(())
        })
        .await;
        rig.settled().await;
        delete_with::<CronJob>(&rig, "tick", policy, true).await;
        let left = usize::from(policy == "Orphan");
        rig.until("what is to go is gone", |view| {
            let free = view.desired::<Job>().iter();
            let free = free.filter(|(_, j)| j.value.metadata.owner_references.is_empty());
            (view.desired::<Job>().len() == left
                && view.desired::<Pod>().len() == left
                && free.count() == left)
                .then_some(())
        })
        .await;
        swept(&rig).await;
        assert_eq!(rig.pods().len(), left, "{policy}");
    }
}

/// A kind of somebody else's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Widget {
    api_version: ApiVersion<Self>,
    kind: KindName<Self>,
    metadata: ObjectMeta,
}

impl Kind for Widget {
    const API_VERSION: &'static str = "example.com/v1";
    const KIND: &'static str = "Widget";
    const PLURAL: &'static str = "widgets";
    type Status = NoStatus;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[tokio::test]
async fn custom_kinds_own_and_are_owned_where_they_are_known() {
    let rig = Rig::start("custom", |b| Kinds::builtin().with::<Widget>().register(b)).await;
    let _collector = rig
        .process("gc", |leader, clock, recorder| {
            setpoint_gc::run_with(Kinds::builtin().with::<Widget>(), leader, clock, recorder)
        })
        .await;
    for (policy, remove) in [
        ("Background", true),
        ("Foreground", false),
        ("Orphan", true),
    ] {
        let top = put::<Widget>(&rig, "top", &[]).await;
        let low = put::<Widget>(&rig, "low", &[owner::<Widget>("top", &top)]).await;
        put::<Pod>(&rig, "leaf", &[owner::<Widget>("low", &low)]).await;
        swept(&rig).await;
        rig.level().await;
        assert!(has::<Pod>(&rig.cache.view(), "leaf"));
        delete_with::<Widget>(&rig, "top", policy, remove).await;
        gone::<Widget>(&rig, "top").await;
        rig.until("the record is gone", |view| {
            view.deletions(Widget::PLURAL).is_none().then_some(())
        })
        .await;
        swept(&rig).await;
        rig.level().await;
        let stays = policy == "Orphan";
        let view = rig.cache.view();
        assert_eq!(
            (has::<Widget>(&view, "low"), has::<Pod>(&view, "leaf")),
            (stays, stays),
            "{policy}"
        );
    }
}

#[tokio::test]
async fn who_follows_at_once_waits_for_what_is_being_let_go_and_takes_it_on() {
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec: {{replicas: 3, selector: \
         {{matchLabels: {{a: b}}}}, template: {POD}}}\n"
    );
    let (rig, _running) = both("orphans").await;
    rig.put_desired::<Deployment>(&key("web"), &deployment)
        .await;
    rig.until("the pods are wanted", |view| {
        (view.desired::<Pod>().len() == 3).then_some(())
    })
    .await;
    rig.settled().await;
    let before = pods(&rig);
    let names = |all: &[(String, i64, Option<String>)]| -> Vec<(String, i64)> {
        all.iter().map(|p| (p.0.clone(), p.1)).collect()
    };
    let set = rig
        .cache
        .view()
        .desired::<ReplicaSet>()
        .iter()
        .next()
        .unwrap()
        .0
        .name
        .to_string();
    let uid_of = |view: &View<'_>| Some(view.desired::<ReplicaSet>().get(&key(&set))?.uid());
    let former = uid_of(&rig.cache.view()).unwrap();
    // Its Deployment makes it anew as soon as it sees that it is gone.
    delete_with::<ReplicaSet>(&rig, &set, "Orphan", true).await;
    rig.until("another one has taken the pods on", |view| {
        let uid = uid_of(view).filter(|uid| *uid != former)?;
        let mut all = view.desired::<Pod>().iter();
        let owned = all.all(|(_, p)| {
            let owner = p.value.metadata.controller();
            owner.is_some_and(|o| *o.uid == *uid)
        });
        owned.then_some(())
    })
    .await;
    swept(&rig).await;
    assert_eq!(names(&pods(&rig)), names(&before));
    let owners = rig.cache.view().desired::<ReplicaSet>().len();
    assert_eq!(owners, 1);
    // And so does a person.
    delete_with::<Deployment>(&rig, "web", "Orphan", true).await;
    rig.put_desired::<Deployment>(&key("web"), &deployment)
        .await;
    rig.until("the next one has the ReplicaSet", |view| {
        let uid = view.desired::<Deployment>().get(&key("web"))?.uid();
        let set = view.desired::<ReplicaSet>().get(&key(&set))?;
        let owned = set
            .value
            .metadata
            .controller()
            .is_some_and(|o| *o.uid == *uid);
        (owned && view.actual::<Deployment>().contains(&key("web"))).then_some(())
    })
    .await;
    swept(&rig).await;
    assert_eq!(names(&pods(&rig)), names(&before));
    assert_eq!(rig.cache.view().desired::<ReplicaSet>().len(), 1);
}
