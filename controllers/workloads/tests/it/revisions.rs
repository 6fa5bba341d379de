//! What a revision is: pinned to what it reads, taken back when it fails, as big as an autoscaler says.

use std::time::Duration;

use setpoint_apis::ObjectKey;
use setpoint_apis::apps::{Deployment, DeploymentStatus, ReplicaSet};
use setpoint_apis::autoscaling::HorizontalPodAutoscaler;
use setpoint_apis::core::{ConfigMap, Pod};
use setpoint_apis::{Key, Kind, document};

use crate::rig::{BROKEN, Rig};
use crate::{DEFAULT, apply, controllers, manifest, rig, sets, web};

/// The value of `a` that each pod reads, through its copy.
fn read_by_pods(rig: &Rig) -> Vec<String> {
    let view = rig.cache.view();
    let mut values = Vec::new();
    for (key, pod) in view.desired::<Pod>().iter() {
        for name in pod.value.spec.config_maps().into_keys() {
            let name = ObjectKey::namespaced(key.namespace.clone(), name);
            let config = view.desired::<ConfigMap>().get(&name).unwrap();
            values.push(config.value.data["a"].clone());
        }
    }
    values.sort();
    values
}

fn copies(rig: &Rig) -> usize {
    rig.cache.view().desired::<ConfigMap>().len() - 1
}

async fn put_config(rig: &Rig, value: &str) {
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app, namespace: default}}\ndata: {{a: {value}}}\n"
    );
    let key = ObjectKey::namespaced("default", "app");
    rig.put_desired::<ConfigMap>(&key, &text).await;
}

fn status(view: &setpoint_runtime::View<'_>) -> Option<DeploymentStatus> {
    Some(view.actual::<Deployment>().get(&web())?.value.clone())
}

fn is_true(status: &DeploymentStatus, type_: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|c| c.type_ == type_ && c.status == "True")
}

#[tokio::test]
async fn a_config_map_that_changes_is_rolled_out_and_the_old_content_stays_with_its_revision() {
    let rig = rig("config").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    let text = manifest(3, "host", DEFAULT).replace(
        "image: host",
        "image: host, envFrom: [{configMapRef: {name: app}}]",
    );
    let text = text.replace(
        "spec:\n  replicas",
        "spec:\n  revisionHistoryLimit: 1\n  replicas",
    );
    let revision = rig.put_desired::<Deployment>(&web(), &text).await;
    rig.until("it is said that the ConfigMap is missing", |view| {
        is_true(&status(view)?, "ConfigMissing").then_some(())
    })
    .await;
    assert!(sets(&rig).is_empty());

    put_config(&rig, "one").await;
    rig.rolled_out(&web(), revision).await;
    assert_eq!(read_by_pods(&rig), ["one"; 3]);
    assert!(!is_true(
        &status(&rig.cache.view()).unwrap(),
        "ConfigMissing"
    ));

    for (value, copied) in [("two", 2), ("three", 2), ("one", 2)] {
        put_config(&rig, value).await;
        rig.until(&format!("all pods read {value}"), |view| {
            let s = status(view)?;
            let done = s.updated_replicas == Some(3)
                && s.replicas == Some(3)
                && s.available_replicas == Some(3);
            let pods = view.desired::<Pod>();
            let read = pods.iter().all(|(_, pod)| {
                let copy = pod.value.spec.config_maps().into_keys().next().unwrap();
                let name = ObjectKey::namespaced("default", copy);
                let config = view.desired::<ConfigMap>().get(&name);
                config.is_some_and(|c| c.value.data["a"] == value)
            });
            // History is trimmed a moment later.
            let copies = view.desired::<ConfigMap>().len() - 1;
            (done && read && copies == copied).then_some(())
        })
        .await;
        assert_eq!(read_by_pods(&rig), [value; 3]);
    }
    assert_eq!(
        copies(&rig),
        2,
        "of the revision that runs, and of the one before"
    );
}

#[tokio::test]
async fn a_copy_that_somebody_has_broken_stops_no_rollout_and_stays() {
    let rig = rig("config-broken").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    let text = manifest(1, "host", DEFAULT).replace(
        "image: host",
        "image: host, envFrom: [{configMapRef: {name: app}}]",
    );
    let text = text.replace(
        "spec:\n  replicas",
        "spec:\n  revisionHistoryLimit: 0\n  replicas",
    );
    put_config(&rig, "one").await;
    let revision = rig.put_desired::<Deployment>(&web(), &text).await;
    rig.rolled_out(&web(), revision).await;
    let copy = {
        let view = rig.cache.view();
        let mut all = view.desired::<ConfigMap>().entries();
        let copy = all.find(|(key, _)| *key.name != *"app");
        copy.map(|(key, _)| key.clone()).unwrap()
    };
    rig.put_desired::<ConfigMap>(&copy, "what: [").await;
    // The revision that read it stays while it may be gone back to; the one in between is no history here.
    for value in ["two", "three"] {
        put_config(&rig, value).await;
        rig.until(&format!("the set with a pod reads {value}"), |view| {
            let s = status(view)?;
            let done = s.updated_replicas == Some(1)
                && s.replicas == Some(1)
                && s.available_replicas == Some(1);
            let sets = view.desired::<ReplicaSet>();
            let present = |set: &ReplicaSet| set.spec.replicas() > 0;
            let mut present = sets.iter().filter(|(_, set)| present(&set.value));
            let read = present.all(|(_, set)| {
                let template = set.value.spec.template.as_ref().unwrap();
                let names = template.spec.config_maps().into_keys();
                let mut configs = names.filter_map(|name| {
                    let name = ObjectKey::namespaced("default", name);
                    view.desired::<ConfigMap>().get(&name)
                });
                configs.any(|c| c.value.data["a"] == value)
            });
            // The broken one, those of the two revisions, and the source.
            let kept = sets.len() == 2 && view.desired::<ConfigMap>().len() == 3;
            (done && read && kept).then_some(())
        })
        .await;
    }
    let view = rig.cache.view();
    let entry = view.desired::<ConfigMap>().entry(&copy).unwrap();
    assert!(entry.invalid().is_some());
}

#[tokio::test]
async fn a_rollout_that_misses_its_deadline_is_taken_back_also_when_the_controller_changes() {
    let rig = rig("rollback").await;
    let process = controllers(&rig).await;
    let _agents = rig.agents();
    let revision = rig
        .put_desired::<Deployment>(&web(), &manifest(4, "good", DEFAULT))
        .await;
    rig.rolled_out(&web(), revision).await;
    let good = sets(&rig)[0].0.clone();
    // A short deadline for this one alone: on a busy machine a good rollout would miss it too.
    let broken = manifest(4, BROKEN, DEFAULT).replace(
        "spec:\n  replicas",
        "spec:\n  progressDeadlineSeconds: 1\n  replicas",
    );
    rig.put_desired::<Deployment>(&web(), &broken).await;
    rig.until("there are broken pods", |view| {
        let pods = view.desired::<Pod>();
        let mut pods = pods.iter();
        pods.any(|(_, p)| p.value.spec.containers[0].image == BROKEN)
            .then_some(())
    })
    .await;
    process.crash();
    let _process = controllers(&rig).await;
    let taken_back = |view: &setpoint_runtime::View<'_>| {
        let s = status(view)?;
        let pods = view.desired::<Pod>();
        let good = pods
            .iter()
            .all(|(_, p)| p.value.spec.containers[0].image == "good");
        (is_true(&s, "RolledBack") && good && s.available_replicas == Some(4)).then_some(s)
    };
    let s = rig.until("the good pods are back", taken_back).await;
    let record = s.rollback.unwrap();
    assert_eq!(record.to_revision, *good.name);
    assert_eq!(record.reason, "ProgressDeadlineExceeded");

    // The same document again is no other revision.
    let pods = rig.pods();
    rig.put_desired::<Deployment>(&web(), &broken).await;
    rig.until("the generation is observed", |view| {
        let generation = view.desired::<Deployment>().get(&web())?.version;
        (status(view)?.observed_generation == Some(generation)).then_some(())
    })
    .await;
    assert_eq!(rig.pods(), pods);
    // Another one is.
    let revision = rig
        .put_desired::<Deployment>(&web(), &manifest(4, "better", DEFAULT))
        .await;
    rig.rolled_out(&web(), revision).await;
    let s = status(&rig.cache.view()).unwrap();
    assert!(s.rollback.is_none() && !is_true(&s, "RolledBack"));
}

/// Nobody led for two hours in the middle of a rollout: that is no time in which the rollout stood still.
#[tokio::test]
async fn an_outage_of_the_controllers_is_no_failure_of_a_rollout() {
    let rig = rig("outage").await;
    let process = controllers(&rig).await;
    let _agents = rig.agents();
    let revision = rig
        .put_desired::<Deployment>(&web(), &manifest(4, "good", DEFAULT))
        .await;
    rig.rolled_out(&web(), revision).await;
    rig.put_desired::<Deployment>(&web(), &manifest(4, BROKEN, DEFAULT))
        .await;
    let progressing = |s: &DeploymentStatus| {
        let mut all = s.conditions.iter();
        all.find(|c| c.type_ == "Progressing").cloned()
    };
    rig.until("the rollout goes on", |view| {
        let progressing = progressing(&status(view)?)?;
        (progressing.reason.as_deref() == Some("ReplicaSetUpdated")).then_some(())
    })
    .await;
    rig.settled().await;
    process.stop().await;
    let mut stood = status(&rig.cache.view()).unwrap();
    for c in stood
        .conditions
        .iter_mut()
        .filter(|c| c.type_ == "Progressing")
    {
        let at = c.last_update_time.unwrap();
        c.last_update_time = Some(at.saturating_sub(Duration::from_secs(7_200)));
    }
    let key = Key::Actual(Deployment::PLURAL, web());
    rig.put(&key, &document::encode(&stood)).await;
    let _process = controllers(&rig).await;
    rig.settled().await;
    let seen = status(&rig.cache.view()).unwrap();
    assert_eq!(progressing(&seen).unwrap().status, "True");
    assert!(seen.rollback.is_none());
    let revision = rig
        .put_desired::<Deployment>(&web(), &manifest(4, "better", DEFAULT))
        .await;
    rig.rolled_out(&web(), revision).await;
}

#[tokio::test]
async fn an_autoscaler_s_record_counts_and_applying_the_manifest_again_does_not_fight_it() {
    let rig = rig("autoscaler").await;
    let (process, _agents) = (controllers(&rig).await, rig.agents());
    let revision = apply(&rig, 2, "host", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    let scaler = ObjectKey::namespaced("default", "web");
    let text = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web, namespace: default}\nspec:\n  \
                scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 2\n  maxReplicas: 6\n";
    rig.put_desired::<HorizontalPodAutoscaler>(&scaler, text)
        .await;
    let record = Key::Actual(HorizontalPodAutoscaler::PLURAL, scaler.clone());
    for (desired, pods) in [(5, 5), (100, 6), (1, 2)] {
        rig.put(&record, &format!("desiredReplicas: {desired}\n"))
            .await;
        rig.until(&format!("there are {pods} pods"), |view| {
            (view.desired::<Pod>().len() == pods
                && status(view)?.available_replicas == i32::try_from(pods).ok())
            .then_some(())
        })
        .await;
    }
    rig.put(&record, "desiredReplicas: 4\n").await;
    let four = |view: &setpoint_runtime::View<'_>| {
        (view.desired::<Pod>().len() == 4 && status(view)?.available_replicas == Some(4))
            .then_some(())
    };
    rig.until("there are 4 pods", four).await;
    let pods = rig.pods();
    let applied = async |replicas: i32| {
        apply(&rig, replicas, "host", DEFAULT).await;
        rig.until("the generation is observed", |view| {
            let generation = view.desired::<Deployment>().get(&web())?.version;
            (status(view)?.observed_generation == Some(generation)).then_some(())
        })
        .await;
        assert_eq!(rig.pods(), pods);
    };
    applied(2).await;

    // Somebody breaks the record, and the autoscaler: nothing is lost, neither now nor when other controllers lead, which
    // have never seen them whole.
    let says = async |reason: &str, words: &str| {
        rig.until(&format!("it says {reason}"), |view| {
            let status = status(view)?;
            let mut all = status.conditions.iter();
            let found = all.find(|c| c.type_ == "AutoscalerInvalid" && c.status == "True")?;
            let message = found.message.as_ref()?;
            (found.reason.as_deref() == Some(reason) && message.contains(words)).then_some(())
        })
        .await;
    };
    rig.put(&record, "desiredReplicas: [4\n").await;
    says(
        "AutoscalerRecordInvalid",
        "actual/horizontalpodautoscalers/default/web",
    )
    .await;
    applied(2).await;
    rig.put_desired::<HorizontalPodAutoscaler>(&scaler, "spec: [")
        .await;
    says("AutoscalerInvalid", "setpoint edit hpa web -n default").await;
    applied(2).await;
    drop(process);
    let _process = controllers(&rig).await;
    applied(2).await;
    says("AutoscalerInvalid", "setpoint edit hpa web -n default").await;
    // Nor when the document asks for as many, and then for others.
    applied(4).await;
    applied(2).await;
    rig.put_desired::<HorizontalPodAutoscaler>(&scaler, text)
        .await;
    says("AutoscalerRecordInvalid", "default/web anew").await;
    applied(2).await;
    rig.put(&record, "desiredReplicas: 3\n").await;
    rig.until("there are 3 pods, and nothing is said any more", |view| {
        let status = status(view)?;
        let is_said = is_true(&status, "AutoscalerInvalid");
        (status.available_replicas == Some(3) && !is_said).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_autoscaler_that_nobody_can_read_holds_only_what_was_decided() {
    let rig = rig("autoscaler-broken").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    let scaler = ObjectKey::namespaced("default", "web");
    rig.put_desired::<HorizontalPodAutoscaler>(&scaler, "spec: [")
        .await;
    // Nothing was decided for it.
    let revision = apply(&rig, 2, "host", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    let revision = apply(&rig, 3, "host", DEFAULT).await;
    rig.rolled_out(&web(), revision).await;
    let now = status(&rig.cache.view()).unwrap();
    assert_eq!(now.desired_replicas, None);
    assert!(!is_true(&now, "AutoscalerInvalid"));
    // It counts for nothing when it is asked for none.
    apply(&rig, 0, "host", DEFAULT).await;
    rig.until("there are no pods", |view| {
        (view.desired::<Pod>().is_empty()).then_some(())
    })
    .await;
}
