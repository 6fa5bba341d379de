//! Jobs and CronJobs.

use std::collections::BTreeSet;

use setpoint_apis::batch::{CronJob, Job, JobStatus, labels};
use setpoint_apis::core::{Namespace, Pod, PodCondition};
use setpoint_apis::records::{Binding, PodActual, PodStage};
use setpoint_apis::{Key, Kind, ObjectKey, Timestamp, document};
use setpoint_runtime::Clock;
use setpoint_store::Txn;

use crate::rig::{Process, Rig, ended};
use crate::{controllers, rig};

fn sum() -> ObjectKey {
    ObjectKey::namespaced("default", "sum")
}

fn template(image: &str) -> String {
    format!("{{spec: {{restartPolicy: Never, containers: [{{name: c, image: {image}}}]}}}}")
}

/// Writes a Job of this spec, in flow style.
async fn apply(rig: &Rig, spec: &str, image: &str) {
    let text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: sum, namespace: default}}\nspec: {{{spec}, template: {}}}\n",
        template(image)
    );
    rig.put_desired::<Job>(&sum(), &text).await;
}

async fn until(rig: &Rig, what: &str, is: impl Fn(&JobStatus) -> bool) -> JobStatus {
    rig.until(what, |view| {
        let status = &view.actual::<Job>().get(&sum())?.value;
        is(status).then(|| status.clone())
    })
    .await
}

#[tokio::test]
async fn a_job_is_counted_exactly_though_its_controllers_crash_and_writes_nothing_when_it_is_done()
{
    let rig = rig("job-crashes").await;
    let mut process = controllers(&rig).await;
    let _agents = rig.agents();
    let history = rig.history().await;
    apply(
        &rig,
        "completions: 40, parallelism: 6, completionMode: Indexed",
        "ends-with-0",
    )
    .await;
    for done in [5, 15, 30] {
        until(&rig, "some have succeeded", |s| {
            s.succeeded.unwrap_or(0) >= done
        })
        .await;
        process.crash();
        process = controllers(&rig).await;
    }
    let status = until(&rig, "the job is complete", |s| s.is("Complete")).await;
    assert_eq!(
        (status.succeeded, status.failed, status.active),
        (Some(40), None, None)
    );
    assert_eq!(status.completed_indexes.as_deref(), Some("0-39"));
    assert_eq!(
        rig.pods().len(),
        40,
        "one pod of each index, and all of them stay"
    );
    let hosts: BTreeSet<String> = {
        let view = rig.cache.view();
        let pods = view.desired::<Pod>();
        pods.iter()
            .filter_map(|(_, p)| p.value.spec.hostname.clone())
            .collect()
    };
    assert_eq!(hosts, (0..40).map(|i| format!("sum-{i}")).collect());
    assert_eq!(history.deleted(), Vec::<String>::new());
    // The next leader looks at everything, and finds nothing to write.
    process.stop().await;
    rig.level().await;
    let history = rig.history().await;
    let process = controllers(&rig).await;
    let probe = ObjectKey::namespaced("default", "probe");
    let text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: probe, namespace: default}}\nspec: {{template: {}}}\n",
        template("ends-with-0")
    );
    rig.put_desired::<Job>(&probe, &text).await;
    rig.until("the probe is complete", |view| {
        view.actual::<Job>()
            .get(&probe)?
            .value
            .is("Complete")
            .then_some(())
    })
    .await;
    process.stop().await;
    let end = Key::Actual("leaders", ObjectKey::cluster("end"));
    history.until(rig.put(&end, "x: 1\n").await).await;
    let written = history.written();
    assert!(written.iter().all(|k| k.contains("/probe")), "{written:?}");
}

#[tokio::test]
async fn a_job_that_fails_has_failed_when_what_ran_has_stopped_also_for_the_next_leader() {
    let rig = rig("job-fails").await;
    let (process, agents) = (controllers(&rig).await, rig.agents());
    apply(
        &rig,
        "completions: 3, parallelism: 3, backoffLimit: 0",
        "host",
    )
    .await;
    until(&rig, "three run", |s| s.ready == Some(3)).await;
    agents.hold_stops(true);
    let (pod, node, running) = {
        let view = rig.cache.view();
        let (key, _) = view.desired::<Pod>().iter().next().unwrap();
        let node = view.bindings().get(key).unwrap().value.node.clone();
        let actual = view.pod_actual(key).unwrap().value.clone();
        (key.clone(), node, actual)
    };
    let failed = document::encode(&ended(&running, 3, Clock::system().now()));
    rig.put(&Key::NodePod(&node, pod), &failed).await;
    let stops = |s: &JobStatus| s.is("FailureTarget") && s.terminating == Some(2);
    let status = until(&rig, "the others are to stop", stops).await;
    assert_eq!((status.active, status.failed), (None, Some(3)));
    // The next leader has not seen whose they were.
    process.stop().await;
    let _process = controllers(&rig).await;
    let probe = ObjectKey::namespaced("default", "probe");
    let text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: probe, namespace: default}}\nspec: {{template: {}}}\n",
        template("ends-with-0")
    );
    rig.put_desired::<Job>(&probe, &text).await;
    rig.until("the probe is complete", |view| {
        view.actual::<Job>()
            .get(&probe)?
            .value
            .is("Complete")
            .then_some(())
    })
    .await;
    let status = until(&rig, "there is a status", |_| true).await;
    assert!(!status.is("Failed") && stops(&status), "{status:?}");
    agents.hold_stops(false);
    let status = until(&rig, "the job has failed", |s| s.is("Failed")).await;
    let mut conditions = status.conditions.iter();
    let reason = conditions.find(|c| c.type_ == "Failed").unwrap();
    assert_eq!(reason.reason.as_deref(), Some("BackoffLimitExceeded"));
    assert_eq!((status.active, status.failed), (None, Some(3)));
}

#[tokio::test]
async fn a_pod_that_moved_has_not_failed_whatever_its_former_node_says() {
    let rig = rig("job-moves").await;
    let _process = controllers(&rig).await;
    apply(&rig, "backoffLimit: 0", "host").await;
    let (key, uid, revision) = rig
        .until("there is a pod", |view| {
            let (key, pod) = view.desired::<Pod>().iter().next()?;
            Some((key.clone(), pod.uid(), pod.mod_revision))
        })
        .await;
    let now = Clock::system().now();
    let binding = |node: &str, placement| Binding {
        node: node.into(),
        session: 1,
        placement,
        pod_revision: revision,
        bound_at: now,
        ..Binding::default()
    };
    let running = |placement| PodActual {
        placement,
        uid: uid.clone(),
        stage: PodStage::Running,
        conditions: vec![PodCondition::new("Ready", true, now)],
        ..PodActual::default()
    };
    let put = async |key: &Key<'_>, text: String| {
        rig.put(key, &text).await;
    };
    put(
        &Key::Binding(key.clone()),
        document::encode(&binding("n1", 1)),
    )
    .await;
    put(
        &Key::NodePod("n1", key.clone()),
        document::encode(&running(1)),
    )
    .await;
    until(&rig, "it is ready", |s| s.ready == Some(1)).await;
    // Failover: the node's session was gone, so the binding is another one; then the old node speaks up.
    put(
        &Key::Binding(key.clone()),
        document::encode(&binding("n2", 2)),
    )
    .await;
    put(
        &Key::NodePod("n1", key.clone()),
        document::encode(&ended(&running(1), 137, now)),
    )
    .await;
    until(&rig, "it is not ready any more", |s| s.ready == Some(0)).await;
    put(
        &Key::NodePod("n2", key.clone()),
        document::encode(&running(2)),
    )
    .await;
    let status = until(&rig, "it is ready again", |s| s.ready == Some(1)).await;
    assert_eq!((status.failed, status.active), (None, Some(1)));
    put(
        &Key::NodePod("n2", key.clone()),
        document::encode(&ended(&running(2), 0, now)),
    )
    .await;
    let status = until(&rig, "the job is complete", |s| s.is("Complete")).await;
    assert_eq!((status.failed, status.succeeded), (None, Some(1)));
    assert_eq!(rig.pods().len(), 1, "it was the same pod all the time");
}

#[tokio::test]
async fn a_job_is_suspended_resumed_and_deleted_when_its_time_is_over() {
    let rig = rig("job-suspend").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    apply(&rig, "completions: 4, parallelism: 2", "host").await;
    until(&rig, "two run", |s| s.ready == Some(2)).await;
    apply(
        &rig,
        "completions: 4, parallelism: 2, suspend: true",
        "host",
    )
    .await;
    until(&rig, "none runs", |s| {
        s.is("Suspended") && s.active.is_none() && s.terminating == Some(0)
    })
    .await;
    rig.settled().await;
    assert!(rig.pods().is_empty());
    apply(
        &rig,
        "completions: 4, parallelism: 2, activeDeadlineSeconds: 1, ttlSecondsAfterFinished: 0",
        "host",
    )
    .await;
    rig.until("the job is gone", |view| {
        (!view.desired::<Job>().contains(&sum())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn another_job_of_the_name_begins_with_nothing() {
    let rig = rig("job-again").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    apply(&rig, "completions: 2", "ends-with-0").await;
    let first = until(&rig, "the job is complete", |s| s.is("Complete")).await;
    let key = rig.keyspace.build(&Key::Desired(Job::PLURAL, sum()));
    let done = rig.store.txn(Txn::new().delete(key)).await.unwrap();
    rig.cache.wait_for(done.revision).await;
    apply(&rig, "completions: 2", "ends-with-0").await;
    let second = until(&rig, "the next job is complete", |s| {
        s.is("Complete") && s.counted != first.counted
    })
    .await;
    assert_eq!(second.succeeded, Some(2));
    assert_eq!(rig.pods().len(), 4);
}

fn bill() -> ObjectKey {
    ObjectKey::namespaced("default", "bill")
}

async fn schedule(rig: &Rig, schedule: &str) {
    schedule_with(rig, schedule, "Allow").await;
}

async fn schedule_with(rig: &Rig, schedule: &str, policy: &str) {
    let text = format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: bill, namespace: default}}\nspec:\n  \
         schedule: '{schedule}'\n  concurrencyPolicy: {policy}\n  jobTemplate: {{metadata: {{labels: {{of: bill}}}}, spec: {{template: {}}}}}\n",
        template("ends-with-0")
    );
    rig.put_desired::<CronJob>(&bill(), &text).await;
}

/// The CronJob has been seen before the first of its times, however late its controller begins to look.
async fn was_seen(rig: &Rig) {
    let uid = {
        let view = rig.cache.view();
        view.desired::<CronJob>().get(&bill()).unwrap().uid()
    };
    let seen = format!("firstSeen: {{uid: {uid}, at: '2026-05-01T10:59:00Z'}}\n");
    rig.put(&Key::Actual(CronJob::PLURAL, bill()), &seen).await;
}

/// Controllers whose clock shows this when they begin.
async fn controllers_at(rig: &Rig, time: &'static str) -> Process {
    let begin: Timestamp = time.parse().unwrap();
    rig.process("workloads", move |leader, _, recorder| {
        setpoint_workloads::run(leader, Clock::starting_at(begin), recorder, 1)
    })
    .await
}

#[tokio::test]
async fn an_own_pod_that_lost_its_reference_is_taken_back_and_one_that_lost_its_label_is_let_go() {
    let rig = rig("job-adoption").await;
    let _agents = rig.agents();
    apply(&rig, "parallelism: 2, completions: 2", "host").await;
    let _process = controllers(&rig).await;
    until(&rig, "both run", |s| s.ready == Some(2)).await;
    let pod = rig
        .cache
        .view()
        .desired::<Pod>()
        .iter()
        .next()
        .unwrap()
        .0
        .clone();
    let stored = rig.keyspace.build(&Key::Desired(Pod::PLURAL, pod.clone()));
    let (kv, _) = rig.store.get(&stored).await.unwrap();
    let before: Pod = document::decode_keyed(&pod, &kv.unwrap().value).unwrap();
    let owned = |pod: &Pod| pod.metadata.controller().is_some();
    assert!(owned(&before));

    let mut orphan = before.clone();
    orphan.metadata.owner_references.clear();
    let history = rig.history().await;
    let text = document::encode(&orphan);
    let orphaned = rig.put_desired::<Pod>(&pod, &text).await;
    rig.until("it is taken back", |view| {
        let stored = view.desired::<Pod>().get(&pod)?;
        (stored.mod_revision > orphaned.0 && owned(&stored.value)).then_some(())
    })
    .await;
    rig.settled().await;
    history.end(&rig).await;
    let of_pods = |e: &setpoint_store::Event| {
        matches!(
            rig.keyspace.split(&e.kv.key),
            Ok(Key::Desired(Pod::PLURAL, key)) if &*key.namespace == "default"
        )
    };
    let events = history.events().into_iter().filter(of_pods);
    let written: Vec<_> = events.map(|e| e.kv.key.to_string()).collect();
    assert_eq!(
        written,
        [stored.clone(), stored.clone()],
        "no other pod came"
    );

    let mut stranger = before;
    stranger.metadata.labels.clear();
    rig.put_desired::<Pod>(&pod, &document::encode(&stranger))
        .await;
    let number = |pod: &Pod| {
        pod.metadata
            .annotations
            .get(labels::JOB_POD_NUMBER)
            .cloned()
    };
    let numbers = rig
        .until("it is let go, and another comes instead", |view| {
            let pods = view.desired::<Pod>();
            let others = !owned(&pods.get(&pod)?.value) && pods.len() == 3;
            others.then(|| pods.iter().filter_map(|(_, p)| number(&p.value)).collect())
        })
        .await;
    // It may come back: its number is nobody else's.
    let numbers: BTreeSet<String> = numbers;
    assert_eq!(numbers.len(), 3, "{numbers:?}");
    // A copy of a pod has the number of the one that it was made from.
    let (_, own) = {
        let view = rig.cache.view();
        let mut own = view
            .desired::<Pod>()
            .iter()
            .filter(|(_, p)| owned(&p.value));
        own.next()
            .map(|(key, pod)| (key.clone(), pod.value.clone()))
            .unwrap()
    };
    let copy = ObjectKey::namespaced("default", "copy");
    let mut copied = own;
    copied.metadata.name = "copy".into();
    copied.metadata.owner_references.clear();
    rig.put_desired::<Pod>(&copy, &document::encode(&copied))
        .await;
    rig.settled().await;
    assert!(!owned(
        &rig.cache.view().desired::<Pod>().get(&copy).unwrap().value
    ));
    // And it does.
    rig.put_desired::<Pod>(&pod, &document::encode(&orphan))
        .await;
    rig.until("it is taken back, and one of three goes", |view| {
        let pods = view.desired::<Pod>().iter();
        let own: BTreeSet<_> = pods
            .filter(|(_, p)| owned(&p.value))
            .map(|(key, p)| (key.clone(), number(&p.value)))
            .collect();
        let unique: BTreeSet<_> = own.iter().map(|(_, number)| number.clone()).collect();
        assert_eq!(unique.len(), own.len());
        (own.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cron_job_makes_one_job_for_each_time_whatever_becomes_of_it() {
    let rig = rig("cron").await;
    let _agents = rig.agents();
    schedule(&rig, "* * * * *").await;
    was_seen(&rig).await;
    let process = controllers_at(&rig, "2026-05-01T10:59:55Z").await;
    let name = "bill-29627220";
    let first = ObjectKey::namespaced("default", name);
    rig.until("its first job is complete", |view| {
        let status = &view.actual::<CronJob>().get(&bill())?.value;
        let done = status.last_successful_time.is_some() && status.active.is_empty();
        done.then_some(())
    })
    .await;
    {
        let view = rig.cache.view();
        let job = view.desired::<Job>().get(&first).unwrap();
        let metadata = &job.value.metadata;
        assert_eq!(
            metadata.annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"],
            "2026-05-01T11:00:00Z"
        );
        assert_eq!(metadata.labels["of"], "bill");
        let owner = metadata.controller().unwrap();
        assert_eq!((owner.kind.as_str(), &*owner.name), ("CronJob", "bill"));
    }
    // Its job is gone, and so is the controller.
    process.crash();
    let key = rig
        .keyspace
        .build(&Key::Desired(Job::PLURAL, first.clone()));
    rig.store.txn(Txn::new().delete(key)).await.unwrap();
    let _process = controllers_at(&rig, "2026-05-01T11:00:59Z").await;
    rig.until("the job of the next time is there", |view| {
        let next = ObjectKey::namespaced("default", "bill-29627221");
        let jobs = view.desired::<Job>();
        assert!(
            !jobs.contains(&first) || !jobs.contains(&next),
            "it comes again"
        );
        jobs.contains(&next).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_made_by_hand_runs_beside_those_of_the_schedule() {
    let rig = rig("cron-by-hand").await;
    let _agents = rig.agents();
    schedule_with(&rig, "* * * * *", "Forbid").await;
    let uid = rig
        .until("it is there", |view| {
            Some(view.desired::<CronJob>().get(&bill())?.uid())
        })
        .await;
    let by_hand = ObjectKey::namespaced("default", "by-hand");
    let text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: by-hand\n  namespace: default\n  \
         annotations: {{cronjob.kubernetes.io/instantiate: manual}}\n  \
         ownerReferences: [{{apiVersion: batch/v1, kind: CronJob, name: bill, uid: {uid}, controller: true}}]\n\
         spec: {{template: {}}}\n",
        template("host")
    );
    rig.put_desired::<Job>(&by_hand, &text).await;
    was_seen(&rig).await;
    let _process = controllers_at(&rig, "2026-05-01T10:59:55Z").await;
    let active = rig
        .until("the Job of the schedule runs too", |view| {
            let status = &view.actual::<CronJob>().get(&bill())?.value;
            (!status.active.is_empty()).then(|| status.active.clone())
        })
        .await;
    let names: Vec<_> = active.iter().filter_map(|r| r.name.as_deref()).collect();
    assert_eq!(names, ["bill-29627220"]);
    assert!(rig.cache.view().desired::<Job>().contains(&by_hand));
}

#[tokio::test]
async fn a_schedule_that_never_fires_and_was_written_by_hand_is_said() {
    let rig = rig("cron-never").await;
    let _process = controllers(&rig).await;
    schedule(&rig, "0 0 30 2 *").await;
    let message = rig
        .until("the condition says why", |view| {
            let status = &view.actual::<CronJob>().get(&bill())?.value;
            let invalid = status.conditions.iter().find(|c| c.type_ == "Invalid")?;
            invalid.message.clone()
        })
        .await;
    assert!(message.contains("never fires"), "{message}");
    schedule(&rig, "0 0 29 2 *").await;
    rig.until("it is mended", |view| {
        let status = &view.actual::<CronJob>().get(&bill())?.value;
        status.conditions.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_status_that_does_not_parse_stops_a_job_and_nothing_is_lost_when_it_is_deleted() {
    let rig = rig("job-status").await;
    let (_process, _agents) = (controllers(&rig).await, rig.agents());
    apply(&rig, "completions: 1, parallelism: 0", "ends-with-0").await;
    until(&rig, "it is looked after", |s| s.start_time.is_some()).await;
    let key = Key::Actual(Job::PLURAL, sum());
    rig.put(&key, "counted: [no\n").await;
    apply(&rig, "completions: 1", "ends-with-0").await;
    // Another Job is looked after meanwhile, so this one has been looked at.
    let other = ObjectKey::cluster("other");
    rig.put_desired::<Namespace>(
        &other,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n",
    )
    .await;
    let probe = ObjectKey::namespaced("other", "probe");
    let text = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: probe, namespace: other}}\nspec: {{template: {}}}\n",
        template("ends-with-0")
    );
    rig.put_desired::<Job>(&probe, &text).await;
    rig.until("the other is complete", |view| {
        view.actual::<Job>()
            .get(&probe)?
            .value
            .is("Complete")
            .then_some(())
    })
    .await;
    assert_eq!(rig.pods().len(), 1, "the probe's");
    let key = rig.keyspace.build(&key);
    rig.store.txn(Txn::new().delete(key)).await.unwrap();
    let status = until(&rig, "it is complete", |s| s.is("Complete")).await;
    assert_eq!(status.succeeded, Some(1));
}
