//! LimitRanges and object counts, as the controllers that create are held by them.

use std::collections::BTreeMap;
use std::time::Duration;

use setpoint_apis::apps::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet, WorkloadCondition,
};
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{
    ConfigMap, LimitRange, Namespace, PersistentVolumeClaim, Pod, ResourceQuota,
};
use setpoint_apis::{Key, Kind, ObjectKey, keyspace};
use setpoint_runtime::{Clock, View};
use setpoint_store::{Compare, EventKind, Txn, TxnOp};

use crate::by_hand::{telling, told};
use crate::daemonset::add_node;
use crate::rig::{BROKEN, ENDS, History, Rig, is_probe};
use crate::{DEFAULT, apply, controllers, manifest, rig, web};

fn named(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

async fn limit_range(rig: &Rig, limits: &str) {
    let text = format!(
        "apiVersion: v1\nkind: LimitRange\nmetadata: {{name: r}}\nspec: {{limits: [{limits}]}}\n"
    );
    rig.put_desired::<LimitRange>(&named("r"), &text).await;
}

async fn quota(rig: &Rig, hard: &str) {
    let text = format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: q}}\nspec: {{hard: {{{hard}}}}}\n"
    );
    rig.put_desired::<ResourceQuota>(&named("q"), &text).await;
}

async fn remove<K: Kind>(rig: &Rig, key: &ObjectKey) {
    let name = rig.keyspace.build(&Key::Desired(K::PLURAL, key.clone()));
    let done = rig.store.txn(Txn::new().delete(name)).await.unwrap();
    rig.cache.wait_for(done.revision).await;
}

/// What the ReplicaSets and Deployments of the namespace say of their failures, by name.
fn failures(view: &View<'_>) -> BTreeMap<String, String> {
    let of = |conditions: &[WorkloadCondition]| {
        let failure = conditions.iter().find(|c| c.type_ == "ReplicaFailure");
        failure.map(|c| {
            let reason = c.reason.clone().unwrap_or_default();
            format!("{reason}: {}", c.message.clone().unwrap_or_default())
        })
    };
    let mut all = BTreeMap::new();
    for (key, status) in view.actual::<ReplicaSet>().iter() {
        all.extend(of(&status.value.conditions).map(|f| (key.name.to_string(), f)));
    }
    for (key, status) in view.actual::<Deployment>().iter() {
        all.extend(of(&status.value.conditions).map(|f| (key.name.to_string(), f)));
    }
    all
}

/// The limits on cpu of the pods, by name.
fn limits(rig: &Rig) -> BTreeMap<String, String> {
    let view = rig.cache.view();
    let limit = |pod: &Pod| {
        let limit = pod.spec.containers[0].limits().get("cpu");
        limit.map_or_else(String::new, ToString::to_string)
    };
    let pods = view.desired::<Pod>().iter();
    pods.map(|(key, pod)| (key.name.to_string(), limit(&pod.value)))
        .collect()
}

/// That nothing is written any more, for longer than whoever spins waits: passes come every 20 ms then. What is still
/// written when this begins on a busy machine is no spinning.
async fn quiet(rig: &Rig, history: &History) {
    let mut written = Vec::new();
    for _ in 0..10 {
        let before = history.written().len();
        tokio::time::sleep(Duration::from_millis(600)).await;
        rig.settled().await;
        written = history.written().split_off(before);
        if written.is_empty() {
            return;
        }
    }
    panic!("it goes on writing: {written:?}");
}

#[tokio::test]
async fn pods_are_written_with_what_a_limit_range_gives_and_its_change_rolls_nothing_out() {
    let rig = rig("given").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    limit_range(
        &rig,
        "{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m}}",
    )
    .await;
    let revision = apply(&rig, 3, "host", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    let first = limits(&rig);
    assert!(
        first.len() == 3 && first.values().all(|l| l == "500m"),
        "{first:?}"
    );
    {
        let view = rig.cache.view();
        let (_, pod) = view.desired::<Pod>().iter().next().unwrap();
        assert_eq!(
            pod.value.metadata.annotations["kubernetes.io/limit-ranger"],
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
        );
        // The ReplicaSet says what the Deployment says.
        let (_, set) = view.desired::<ReplicaSet>().iter().next().unwrap();
        let template = set.value.spec.template.as_ref().unwrap();
        assert_eq!(template.spec.containers[0].resources, None);
    }
    limit_range(
        &rig,
        "{type: Container, default: {cpu: 1}, max: {cpu: 1}, min: {cpu: 600m}}",
    )
    .await;
    let revision = apply(&rig, 4, "host", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    let now = limits(&rig);
    assert!(
        first
            .iter()
            .all(|(name, limit)| now.get(name) == Some(limit)),
        "{now:?}"
    );
    let new: Vec<_> = now
        .iter()
        .filter(|(name, _)| !first.contains_key(*name))
        .collect();
    assert!(matches!(&new[..], [(_, limit)] if *limit == "1"), "{now:?}");
}

#[tokio::test]
async fn what_a_limit_range_forbids_is_said_and_comes_when_the_range_goes() {
    let rig = rig("forbidden").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    limit_range(&rig, "{type: Pod, min: {memory: 1Gi}}").await;
    apply(&rig, 3, "host", DEFAULT).await;
    let said = rig
        .until("the Deployment says what is wrong", |view| {
            failures(view).remove("web")
        })
        .await;
    assert!(
        said.starts_with(
            "FailedCreate: pods are forbidden: spec.resources.requests.memory: is missing"
        ) && said.contains("LimitRange \"r\""),
        "{said}"
    );
    let history = rig.history().await;
    quiet(&rig, &history).await;
    assert!(rig.pods().is_empty());
    remove::<LimitRange>(&rig, &named("r")).await;
    rig.until("the pods are there and nothing is wrong any more", |view| {
        (view.desired::<Pod>().len() == 3 && failures(view).is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_quota_on_pods_lets_so_many_in_and_the_rest_when_it_is_raised_or_one_goes() {
    let rig = rig("count").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    quota(&rig, "pods: 3").await;
    apply(&rig, 5, "host", DEFAULT).await;
    let said = rig
        .until(
            "three pods are there, and the Deployment says why",
            |view| (view.desired::<Pod>().len() == 3).then(|| failures(view).remove("web"))?,
        )
        .await;
    assert_eq!(
        said,
        "FailedCreate: pods are forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"
    );
    let history = rig.history().await;
    quiet(&rig, &history).await;
    assert_eq!(rig.pods().len(), 3);
    // Somebody else's pod takes the place of one that goes, in whichever order that happens.
    quota(&rig, "pods: 4").await;
    rig.until("the fourth comes", |view| {
        (view.desired::<Pod>().len() == 4).then_some(())
    })
    .await;
    let other = "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: other}\nspec: {replicas: 2, selector: \
                 {matchLabels: {app: other}}, template: {metadata: {labels: {app: other}}, spec: {containers: \
                 [{name: c, image: host}]}}}\n";
    rig.put_desired::<ReplicaSet>(&named("other"), other).await;
    rig.until("the other waits too", |view| failures(view).remove("other"))
        .await;
    apply(&rig, 2, "host", DEFAULT).await;
    rig.until("the other has the room that was left", |view| {
        let of = |app: &str| {
            let pods = view.desired::<Pod>().iter();
            pods.filter(|(_, p)| p.value.metadata.labels["app"] == app)
                .count()
        };
        (of("web") == 2 && of("other") == 2 && failures(view).is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_has_ended_makes_room_and_jobs_wait_for_it() {
    let rig = rig("ended").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    quota(&rig, "pods: 1, count/jobs.batch: 2").await;
    for name in ["a", "b"] {
        let job = format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{completions: 2, parallelism: 2, template: \
             {{spec: {{restartPolicy: Never, containers: [{{name: c, image: {ENDS}0}}]}}}}}}\n"
        );
        rig.put_desired::<Job>(&named(name), &job).await;
    }
    rig.until("both are complete, one pod at a time", |view| {
        let done = view.actual::<Job>().iter();
        (done.filter(|(_, j)| j.value.is("Complete")).count() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn claims_replica_sets_and_jobs_are_counted_where_they_are_made() {
    let rig = rig("others").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    quota(
        &rig,
        "persistentvolumeclaims: 1, count/replicasets.apps: 0, count/jobs.batch: 0",
    )
    .await;
    let db = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  replicas: 2\n  \
              podManagementPolicy: Parallel\n  serviceName: s\n  selector: {matchLabels: {app: db}}\n  template: {metadata: \
              {labels: {app: db}}, spec: {containers: [{name: c, image: host}]}}\n  volumeClaimTemplates: [{metadata: \
              {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]\n";
    rig.put_desired::<StatefulSet>(&named("db"), db).await;
    apply(&rig, 1, "host", DEFAULT).await;
    let tick = "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: tick}\nspec: {schedule: '* * * * *', jobTemplate: \
                {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: host}]}}}}}\n";
    // It has been there for a while, and its last time was two minutes ago: it is late.
    let suspended = tick.replace("schedule:", "suspend: true, schedule:");
    rig.put_desired::<CronJob>(&named("tick"), &suspended).await;
    let uid = rig
        .until("the CronJob has been seen", |view| {
            view.actual::<CronJob>().get(&named("tick"))?;
            Some(view.desired::<CronJob>().get(&named("tick"))?.uid())
        })
        .await;
    let last = Clock::system().now().whole_seconds();
    let last = last.saturating_sub(Duration::from_secs(120));
    let status = Key::Actual(CronJob::PLURAL, named("tick"));
    let seen = format!("lastScheduleTime: {last}\nfirstSeen: {{uid: {uid}, at: {last}}}\n");
    rig.put(&status, &seen).await;
    rig.put_desired::<CronJob>(&named("tick"), tick).await;
    let said = rig
        .until("the Deployment says why it has no ReplicaSet", |view| {
            let status = &view.actual::<Deployment>().get(&web())?.value;
            let mut messages = status.conditions.iter().filter_map(|c| c.message.clone());
            messages.find(|m| m.contains("exceeded quota"))
        })
        .await;
    assert!(said.contains("count/replicasets.apps=1"), "{said}");
    let history = rig.history().await;
    quiet(&rig, &history).await;
    {
        let view = rig.cache.view();
        assert!(view.desired::<PersistentVolumeClaim>().len() <= 1);
        assert!(view.desired::<ReplicaSet>().is_empty() && view.desired::<Job>().is_empty());
    }
    quota(
        &rig,
        "persistentvolumeclaims: 2, count/replicasets.apps: 1, count/jobs.batch: 1",
    )
    .await;
    rig.until("all is made", |view| {
        (view.desired::<PersistentVolumeClaim>().len() == 2
            && view.desired::<ReplicaSet>().len() == 1
            && view.desired::<Job>().len() == 1
            && view.desired::<Pod>().len() == 4)
            .then_some(())
    })
    .await;
}

/// One claim of two is refused: what has its claim is rolled out and replaced, and the failure is over with the wish.
#[tokio::test]
async fn a_stateful_set_whose_next_claim_is_refused_goes_on_with_the_rest() {
    let rig = rig("shut-out").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    quota(&rig, "persistentvolumeclaims: 1").await;
    let db = |replicas: i32, image: &str| {
        format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db}}\nspec:\n  replicas: {replicas}\n  \
             podManagementPolicy: Parallel\n  serviceName: s\n  selector: {{matchLabels: {{app: db}}}}\n  template: \
             {{metadata: {{labels: {{app: db}}}}, spec: {{containers: [{{name: c, image: {image}}}]}}}}\n  \
             volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], resources: \
             {{requests: {{storage: 1Gi}}}}}}}}]\n"
        )
    };
    let put = |text: String| {
        let rig = &rig;
        async move { rig.put_desired::<StatefulSet>(&named("db"), &text).await }
    };
    fn state(view: &View<'_>) -> Option<(String, i32, bool)> {
        let (_, pod) = view.desired::<Pod>().iter().next()?;
        let status = &view.actual::<StatefulSet>().get(&named("db"))?.value;
        let failed = status
            .conditions
            .iter()
            .any(|c| c.type_ == "ReplicaFailure");
        let image = pod.value.spec.containers[0].image.clone();
        let one = view.desired::<Pod>().len() == 1;
        one.then_some((image, status.ready_replicas.unwrap_or(0), failed))
    }
    put(db(2, BROKEN)).await;
    rig.until("one pod has its claim, the other is refused", |view| {
        (state(view)? == (BROKEN.to_owned(), 0, true)).then_some(())
    })
    .await;
    put(db(2, "host")).await;
    rig.until("the broken one is replaced meanwhile", |view| {
        (state(view)? == ("host".to_owned(), 1, true)).then_some(())
    })
    .await;
    let history = rig.history().await;
    quiet(&rig, &history).await;
    put(db(1, "host")).await;
    rig.until("nothing has failed that is wanted", |view| {
        (state(view)? == ("host".to_owned(), 1, false)).then_some(())
    })
    .await;
    put(db(2, "host")).await;
    rig.until("it is refused again", |view| {
        (state(view)? == ("host".to_owned(), 1, true)).then_some(())
    })
    .await;
    quota(&rig, "persistentvolumeclaims: 2").await;
    rig.until("both are there", |view| {
        (view.desired::<Pod>().len() == 2).then_some(())
    })
    .await;
}

/// A revision is refused like anything else that a quota counts; what runs goes on meanwhile, and it is rolled out when
/// there is room.
#[tokio::test]
async fn a_new_revision_that_a_quota_refuses_is_said_and_what_runs_goes_on() {
    let rig = rig("revisions").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    for name in ["n0", "n1", "n2"] {
        add_node(&rig, name, "{}").await;
    }
    let put = async |image: &str| {
        let spec = |name: &str, more: &str| {
            format!(
                "spec: {{{more}selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, \
                 spec: {{containers: [{{name: c, image: {image}}}]}}}}}}\n"
            )
        };
        let head = |kind: &str, name: &str| {
            format!("apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n")
        };
        let db = head("StatefulSet", "db") + &spec("db", "replicas: 2, serviceName: s, ");
        rig.put_desired::<StatefulSet>(&named("db"), &db).await;
        let log = head("DaemonSet", "log") + &spec("log", "");
        rig.put_desired::<DaemonSet>(&named("log"), &log).await;
    };
    fn images(view: &View<'_>) -> BTreeMap<String, usize> {
        let mut all = BTreeMap::new();
        for (_, pod) in view.desired::<Pod>().iter() {
            let image = pod.value.spec.containers[0].image.clone();
            *all.entry(image).or_default() += 1;
        }
        all
    }
    fn ready(view: &View<'_>) -> bool {
        let db = view.actual::<StatefulSet>().get(&named("db"));
        let log = view.actual::<DaemonSet>().get(&named("log"));
        db.is_some_and(|s| s.value.ready_replicas == Some(2))
            && log.is_some_and(|s| s.value.number_ready == 3)
    }
    fn refused(view: &View<'_>) -> Option<[String; 2]> {
        let of = |conditions: &[WorkloadCondition]| {
            let failure = conditions.iter().find(|c| c.type_ == "ReplicaFailure")?;
            let reason = failure.reason.clone()?;
            Some(format!("{reason}: {}", failure.message.clone()?))
        };
        let db = &view.actual::<StatefulSet>().get(&named("db"))?.value;
        let log = &view.actual::<DaemonSet>().get(&named("log"))?.value;
        Some([of(&db.conditions)?, of(&log.conditions)?])
    }
    // The first one already.
    quota(&rig, "count/controllerrevisions.apps: 0").await;
    put("one").await;
    rig.until("both say why there are no pods", refused).await;
    let history = rig.history().await;
    quiet(&rig, &history).await;
    assert!(rig.pods().is_empty());
    quota(&rig, "count/controllerrevisions.apps: 2").await;
    rig.until("all pods are there", |view| ready(view).then_some(()))
        .await;
    put("two").await;
    let said = rig.until("both say why nothing begins", refused).await;
    let expected = "RevisionCreateError: controllerrevisions are forbidden: exceeded quota: q, requested: \
                    count/controllerrevisions.apps=1, used: count/controllerrevisions.apps=2, limited: \
                    count/controllerrevisions.apps=2";
    assert_eq!(said, [expected, expected]);
    // One pod of each goes, and another one comes in its place, as it was.
    let gone: Vec<(ObjectKey, i64)> = {
        let view = rig.cache.view();
        let pods = view.desired::<Pod>().iter();
        let first = pods.filter(|(_, p)| p.value.metadata.labels["app"] == "log");
        let log = first.map(|(key, _)| key.clone()).next().unwrap();
        [named("db-1"), log]
            .map(|key| {
                (
                    key.clone(),
                    view.desired::<Pod>().get(&key).unwrap().create_revision,
                )
            })
            .into()
    };
    for (key, _) in &gone {
        remove::<Pod>(&rig, key).await;
    }
    rig.until("they are replaced", |view| {
        let anew = gone.iter().all(|(key, created)| {
            let now = view.desired::<Pod>().get(key);
            now.is_none_or(|now| now.create_revision > *created)
        });
        (anew && ready(view) && images(view) == [("one".to_owned(), 5)].into()).then_some(())
    })
    .await;
    let history = rig.history().await;
    quiet(&rig, &history).await;
    assert_eq!(rig.cache.view().desired::<ControllerRevision>().len(), 2);
    assert!(refused(&rig.cache.view()).is_some());
    quota(&rig, "count/controllerrevisions.apps: 4").await;
    rig.until("both are rolled out, and nothing is wrong", |view| {
        let done = images(view) == [("two".to_owned(), 5)].into();
        (done && ready(view) && refused(view).is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_copy_of_a_config_map_that_a_quota_refuses_is_said_and_what_runs_goes_on() {
    let rig = rig("copies").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    let put = async |value: &str| {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app}}\ndata: {{a: {value}}}\n"
        );
        rig.put_desired::<ConfigMap>(&named("app"), &text).await;
    };
    put("one").await;
    quota(&rig, "configmaps: 2").await;
    let text = manifest(2, "host", DEFAULT).replace(
        "image: host",
        "image: host, envFrom: [{configMapRef: {name: app}}]",
    );
    let revision = rig.put_desired::<Deployment>(&web(), &text).await;
    rig.rolled_out(&web(), revision).await;
    let first = rig.pods();
    put("two").await;
    let said = rig
        .until("the Deployment says why nothing begins", |view| {
            failures(view).remove("web")
        })
        .await;
    assert_eq!(
        said,
        "ReplicaSetCreateError: configmaps are forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=2, \
         limited: configmaps=2"
    );
    let history = rig.history().await;
    quiet(&rig, &history).await;
    assert_eq!(rig.pods(), first);
    assert_eq!(rig.cache.view().desired::<ConfigMap>().len(), 2);
    assert_eq!(rig.cache.view().desired::<ReplicaSet>().len(), 1);
    quota(&rig, "configmaps: 3").await;
    rig.until("all pods are new ones, and nothing is wrong", |view| {
        let pods = view.desired::<Pod>();
        let new = pods.iter().filter(|(key, _)| !first.contains(&*key.name));
        (new.count() == 2 && pods.len() == 2 && failures(view).is_empty()).then_some(())
    })
    .await;
}

/// Who does not want anything any more does not wait: when it is refused later, people are told again.
#[tokio::test]
async fn a_job_that_is_refused_again_after_it_was_suspended_says_so_again() {
    let rig = rig("told-again").await;
    let ((_process, _stop), _agents) = (telling(&rig).await, rig.agents());
    quota(&rig, "pods: 0").await;
    let job = |suspend: bool| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: sum}}\nspec: {{suspend: {suspend}, template: {{spec: \
             {{restartPolicy: Never, containers: [{{name: c, image: host}}]}}}}}}\n"
        )
    };
    let suspended = |is: bool| {
        move |view: &View<'_>| {
            let status = &view.actual::<Job>().get(&named("sum"))?.value;
            (status.is("Suspended") == is).then_some(())
        }
    };
    rig.put_desired::<Job>(&named("sum"), &job(false)).await;
    told(&rig, "FailedCreate", "sum", 1).await;
    rig.put_desired::<Job>(&named("sum"), &job(true)).await;
    rig.until("it is suspended", suspended(true)).await;
    rig.put_desired::<Job>(&named("sum"), &job(false)).await;
    rig.until("it goes on", suspended(false)).await;
    told(&rig, "FailedCreate", "sum", 2).await;
}

#[tokio::test]
async fn controllers_and_commands_that_create_at_once_exceed_no_quota_together() {
    let rig = rig("together").await;
    quota(&rig, "pods: 20").await;
    let history = rig.history().await;
    let _process = controllers(&rig).await;
    for i in 0..4 {
        let text = manifest(8, "host", DEFAULT)
            .replace("name: web,", &format!("name: web{i},"))
            .replace("app: web", &format!("app: web{i}"));
        rig.put_desired::<Deployment>(&named(&format!("web{i}")), &text)
            .await;
    }
    // As a command creates a pod: counted, and guarded on what was counted.
    let range = rig.keyspace.desired_range(Pod::PLURAL, Some("default"));
    let mark = rig
        .keyspace
        .build(&Key::Meta(&keyspace::admissions("default")));
    let mut created = 0;
    for i in 0..200 {
        let request = setpoint_store::RangeRequest {
            start: range.start.clone(),
            end: range.end.clone(),
            keys_only: true,
            ..Default::default()
        };
        let page = rig.store.range(request).await.unwrap();
        if page.kvs.len() >= 20 {
            break;
        }
        let key = rig
            .keyspace
            .build(&Key::Desired(Pod::PLURAL, named(&format!("own{i}"))));
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: own{i}}}\nspec: {{containers: [{{name: c, image: host}}]}}\n"
        );
        let txn = Txn::new()
            .when(Compare::absent(key.clone()))
            .when(Compare::RangeUnchangedSince {
                start: range.start.clone(),
                end: range.end.clone(),
                revision: page.revision.0,
            })
            .put(key, pod)
            .put(mark.clone(), format!("n: {i}\n"));
        created += usize::from(rig.store.txn(txn).await.unwrap().succeeded);
    }
    rig.until("the quota is used up", |view| {
        (view.desired::<Pod>().len() == 20).then_some(())
    })
    .await;
    // Some go, and others come in their place.
    for name in rig.pods().into_iter().take(6) {
        remove::<Pod>(&rig, &named(&name)).await;
    }
    rig.until("it is used up again", |view| {
        (view.desired::<Pod>().len() == 20).then_some(())
    })
    .await;
    let end = rig
        .put(&Key::Actual("leaders", ObjectKey::cluster("end")), "x: 1\n")
        .await;
    history.until(end).await;
    let most = history.counts().iter().map(|c| c.pods).max();
    assert_eq!(most, Some(20), "{created} of them by commands");
}

/// The controllers make whatever they can while the namespace goes: nothing of it is left afterwards.
#[tokio::test]
async fn nothing_that_controllers_create_survives_the_deletion_of_the_namespace() {
    let rig = rig("gone").await;
    let _process = controllers(&rig).await;
    let home = ObjectKey::cluster("team");
    let document = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n";
    for round in 0..4_u64 {
        rig.put_desired::<Namespace>(&home, document).await;
        for i in 0..10 {
            let text = manifest(30, "host", DEFAULT)
                .replace("namespace: default", "namespace: team")
                .replace("name: web,", &format!("name: web{i},"));
            let key = ObjectKey::namespaced("team", format!("web{i}"));
            rig.put_desired::<Deployment>(&key, &text).await;
        }
        // In the midst of it, each time at another place.
        let n = usize::try_from(round * 60 + 1).unwrap();
        rig.until("it is under way", |view| {
            (view.desired::<Pod>().len() >= n).then_some(())
        })
        .await;
        let mut txn = Txn::new();
        for plural in ["deployments", "replicasets", "pods"] {
            let range = rig.keyspace.desired_range(plural, Some("team"));
            txn.then.push(TxnOp::DeleteRange {
                start: range.start,
                end: range.end,
            });
        }
        let key = rig
            .keyspace
            .build(&Key::Desired(Namespace::PLURAL, home.clone()));
        let history = rig.history().await;
        let deleted = rig.store.txn(txn.delete(key)).await.unwrap().revision;
        rig.cache.wait_for(deleted).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.settled().await;
        let view = rig.cache.view();
        let left = (
            view.desired::<Deployment>().len(),
            view.desired::<ReplicaSet>().len(),
            view.desired::<Pod>().len(),
        );
        assert_eq!(left, (0, 0, 0), "round {round}");
        let late = history.events().into_iter().filter(|e| {
            e.kind == EventKind::Put
                && e.kv.key.contains("/desired/")
                && !is_probe(&e.kv.key)
                && e.kv.mod_revision > deleted.0
        });
        assert_eq!(late.count(), 0, "round {round}");
    }
}
