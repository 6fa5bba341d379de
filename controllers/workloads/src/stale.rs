//! Passes over a cache that has fallen behind. Each test changes one thing that the cache does not hear of: nothing that was
//! decided from what it was takes effect. The mutations of `hack/mutants` take the guards away one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{Namespace, Pod};
use setpoint_apis::{Key, Kind, ObjectKey};
use setpoint_runtime::Clock;
use setpoint_runtime::events::Recorder;
use setpoint_store::{RangeRequest, Txn};

use crate::led::Led;
use crate::{Shared, cronjob, deployment, job, replicaset, statefulset};

/// Controllers of which each pass is asked for.
struct Late {
    led: Led,
    shared: Arc<Shared>,
}

/// What is stored: the text of each key.
type Stored = BTreeMap<String, String>;

const UID: &str = "11111111-2222-4333-8444-555555555555";

fn named(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn desired<K: Kind>(name: &str) -> Key<'static> {
    Key::Desired(K::PLURAL, named(name))
}

fn template(restart: &str) -> String {
    format!(
        "{{metadata: {{labels: {{app: web}}}}, spec: {{{restart}containers: [{{name: c, image: host}}]}}}}"
    )
}

fn replica_set(replicas: i32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: web, uid: {UID}}}\n\
         spec: {{replicas: {replicas}, selector: {{matchLabels: {{app: web}}}}, template: {}}}\n",
        template("")
    )
}

fn stateful_set(replicas: i32) -> String {
    replica_set(replicas).replace("kind: ReplicaSet", "kind: StatefulSet")
}

fn deployment(replicas: i32) -> String {
    replica_set(replicas).replace("kind: ReplicaSet", "kind: Deployment")
}

fn job(more: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: sum, uid: {UID}}}\nspec: {{{more}template: {}}}\n",
        template("restartPolicy: Never, ")
    )
}

fn cron_job(more: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: bill, uid: {UID}}}\n\
         spec: {{schedule: '* * * * *', {more}jobTemplate: {{spec: {{template: {}}}}}}}\n",
        template("restartPolicy: Never, ")
    )
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: web}}\n  \
         ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: {UID}, controller: true}}]\n\
         spec: {{containers: [{{name: c, image: host}}]}}\n"
    )
}

impl Late {
    /// In the namespace `default`; the clock shows some seconds before the full hour.
    async fn start() -> Self {
        let led = Led::start().await;
        let clock = Clock::starting_at("2026-05-01T10:59:55Z".parse().unwrap());
        let shared = Shared::new(&led.leader, clock, Recorder::discarding(), 1);
        let late = Self {
            led,
            shared: Arc::new(shared),
        };
        let home = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n";
        let key = Key::Desired(Namespace::PLURAL, ObjectKey::cluster("default"));
        late.put(&key, home).await;
        late
    }

    /// Writes a key; the cache has it then.
    async fn put(&self, key: &Key<'_>, text: &str) {
        let key = self.led.leader.keyspace().build(key);
        let revision = self.led.put(key, text).await;
        self.led.leader.cache().wait_for(revision).await;
    }

    /// Writes or deletes a key past the cache, which hears nothing from then on.
    async fn meanwhile(&self, key: &Key<'_>, text: Option<&str>) {
        self.led.cut_the_cache_off();
        let key = self.led.leader.keyspace().build(key);
        let txn = match text {
            Some(text) => Txn::new().put(key, text.to_owned()),
            None => Txn::new().delete(key),
        };
        self.led.store.txn(txn).await.unwrap();
    }

    /// One pass over an object. What it says of its success is not asked: the store tells. A cache that is cut off may be
    /// waited for, so it has no more than a while.
    async fn pass<K: Kind>(&self, name: &str) {
        let (shared, leader, key) = (self.shared.clone(), self.led.leader.clone(), named(name));
        let pass = async {
            match K::KIND {
                ReplicaSet::KIND => drop(replicaset::reconcile(shared, leader, key).await),
                Deployment::KIND => drop(deployment::reconcile(shared, leader, key).await),
                StatefulSet::KIND => drop(statefulset::reconcile(shared, leader, key).await),
                Job::KIND => drop(job::reconcile(shared, leader, key).await),
                CronJob::KIND => drop(cronjob::reconcile(shared, leader, key).await),
                other => panic!("no pass over a {other}"),
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), pass).await;
    }

    /// As [`Self::pass`]; the cache has what it has written then.
    async fn pass_in_time<K: Kind>(&self, name: &str) {
        self.pass::<K>(name).await;
        let key = Key::Actual("leaders", ObjectKey::cluster("test"));
        self.put(&key, "x: 1\n").await;
    }

    /// What is wanted of a kind, by name.
    async fn stored<K: Kind>(&self) -> Stored {
        let range = self.led.leader.keyspace().desired_range(K::PLURAL, None);
        let request = RangeRequest {
            start: range.start,
            end: range.end,
            ..RangeRequest::default()
        };
        let page = self.led.store.range(request).await.unwrap();
        let kvs = page.kvs.iter().map(|kv| {
            let name = kv.key.rsplit('/').next().unwrap_or_default();
            let text = String::from_utf8_lossy(&kv.value);
            (name.to_owned(), text.into_owned())
        });
        kvs.collect()
    }

    async fn get(&self, key: &Key<'_>) -> Option<String> {
        let key = self.led.leader.keyspace().build(key);
        let (kv, _) = self.led.store.get(&key).await.unwrap();
        kv.map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
    }
}

/// The pods that are wanted after a pass over a ReplicaSet of so many replicas, which had pods of these names. `change`: what the
/// cache does not hear of.
async fn after_a_set(
    replicas: i32,
    pods: &[&str],
    change: Option<(Key<'_>, Option<&str>)>,
) -> Stored {
    let late = Late::start().await;
    late.put(&desired::<ReplicaSet>("web"), &replica_set(replicas))
        .await;
    for name in pods {
        late.put(&desired::<Pod>(name), &pod(name)).await;
    }
    if let Some((key, text)) = change {
        late.meanwhile(&key, text).await;
    }
    late.pass::<ReplicaSet>("web").await;
    late.stored::<Pod>().await
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_made_for_a_set_that_has_changed_or_in_a_namespace_that_has() {
    assert_eq!(after_a_set(2, &[], None).await.len(), 2);
    let fewer = replica_set(0);
    let changed = (desired::<ReplicaSet>("web"), Some(fewer.as_str()));
    assert_eq!(after_a_set(2, &[], Some(changed)).await.len(), 0);
    let home = Key::Desired(Namespace::PLURAL, ObjectKey::cluster("default"));
    assert_eq!(after_a_set(2, &[], Some((home, None))).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_deleted_for_a_set_that_has_changed_nor_one_that_has() {
    let pods = ["web-a", "web-b"];
    assert_eq!(after_a_set(0, &pods, None).await.len(), 0);
    let more = replica_set(2);
    let changed = (desired::<ReplicaSet>("web"), Some(more.as_str()));
    assert_eq!(after_a_set(0, &pods, Some(changed)).await.len(), 2);
    let other = pod("web-a").replace("app: web", "app: other");
    let changed = (desired::<Pod>("web-a"), Some(other.as_str()));
    let left = after_a_set(0, &pods, Some(changed)).await;
    assert_eq!(left, Stored::from([("web-a".to_owned(), other.clone())]));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_come_meanwhile_is_not_overwritten() {
    let set = desired::<StatefulSet>("web");
    let stranger = "apiVersion: v1\nkind: Pod\nmetadata: {name: web-0}\nspec: {containers: [{name: c, image: host}]}\n";
    for comes in [false, true] {
        let late = Late::start().await;
        // The revision comes before the pods.
        late.put(&set, &stateful_set(0)).await;
        late.pass_in_time::<StatefulSet>("web").await;
        late.put(&set, &stateful_set(1)).await;
        if comes {
            late.meanwhile(&desired::<Pod>("web-0"), Some(stranger))
                .await;
        }
        late.pass::<StatefulSet>("web").await;
        let pods = late.stored::<Pod>().await;
        assert_eq!(pods.len(), 1);
        assert_eq!(pods["web-0"] == stranger, comes);
    }
}

/// The texts of the ReplicaSets after a pass over a Deployment that has grown. `change` edits its text, or that of its
/// ReplicaSet.
async fn after_a_deployment(change: Option<&str>) -> (Stored, Stored) {
    let late = Late::start().await;
    let key = desired::<Deployment>("web");
    late.put(&key, &deployment(3)).await;
    late.pass_in_time::<Deployment>("web").await;
    let sets = late.stored::<ReplicaSet>().await;
    let (name, set) = sets.first_key_value().unwrap();
    late.put(&key, &deployment(5)).await;
    match change {
        Some("deployment") => late.meanwhile(&key, Some(&deployment(1))).await,
        Some(_) => {
            let edited = format!("{set}# by hand\n");
            late.meanwhile(&desired::<ReplicaSet>(name), Some(&edited))
                .await;
        }
        None => {}
    }
    let before = late.stored::<ReplicaSet>().await;
    late.pass::<Deployment>("web").await;
    (before, late.stored::<ReplicaSet>().await)
}

#[tokio::test(start_paused = true)]
async fn no_replica_set_is_scaled_that_has_changed_nor_for_a_deployment_that_has() {
    let (before, after) = after_a_deployment(None).await;
    assert_ne!(before, after);
    for change in ["deployment", "set"] {
        let (before, after) = after_a_deployment(Some(change)).await;
        assert_eq!(before, after, "{change}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_of_a_job_that_has_changed_is_not_overwritten_and_no_pod_is_deleted_that_has_ended()
 {
    let status = Key::Actual(Job::PLURAL, named("sum"));
    for changed in [false, true] {
        let late = Late::start().await;
        late.put(&desired::<Job>("sum"), &job("")).await;
        late.pass_in_time::<Job>("sum").await;
        late.pass_in_time::<Job>("sum").await;
        late.put(&desired::<Job>("sum"), &job("suspend: true, "))
            .await;
        // Statuses are written some time apart.
        tokio::time::advance(Duration::from_secs(5)).await;
        let pods = late.stored::<Pod>().await;
        assert_eq!(pods.len(), 1);
        let (pod, _) = pods.first_key_value().unwrap();
        let written = late.get(&status).await.unwrap();
        if changed {
            // It is bound by now.
            let binding = "{node: n1, session: 1, placement: 1}\n";
            late.meanwhile(&Key::Binding(named(pod)), Some(binding))
                .await;
            let other = format!("{written}# counted\n");
            late.meanwhile(&status, Some(&other)).await;
            late.pass::<Job>("sum").await;
            assert_eq!(late.stored::<Pod>().await, pods);
            assert_eq!(late.get(&status).await, Some(other));
        } else {
            late.pass::<Job>("sum").await;
            assert_eq!(late.stored::<Pod>().await.len(), 0);
            assert_ne!(late.get(&status).await, Some(written));
        }
    }
}

/// The Jobs that are wanted after a pass over a CronJob whose time has come, and what they were before. `more` is of its
/// spec. `change`: what the cache does not hear of.
async fn after_a_cron_job(
    more: &str,
    runs: Option<&str>,
    change: Option<(Key<'_>, &str)>,
) -> (Stored, Stored) {
    let late = Late::start().await;
    late.put(&desired::<CronJob>("bill"), &cron_job(more)).await;
    late.pass_in_time::<CronJob>("bill").await;
    if let Some(run) = runs {
        late.put(&desired::<Job>("bill-1"), run).await;
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    if let Some((key, text)) = change {
        late.meanwhile(&key, Some(text)).await;
    }
    let before = late.stored::<Job>().await;
    late.pass::<CronJob>("bill").await;
    (before, late.stored::<Job>().await)
}

#[tokio::test(start_paused = true)]
async fn no_job_is_made_of_a_cron_job_that_has_changed_for_a_time_that_is_done_or_over_another() {
    let name = "bill-29627220";
    let (before, after) = after_a_cron_job("", None, None).await;
    assert_eq!((before.len(), after.contains_key(name)), (0, true));
    let suspended = cron_job("suspend: true, ");
    let done = format!(
        "{{firstSeen: {{uid: {UID}, at: '2026-05-01T10:59:55Z'}}, lastScheduleTime: '2026-05-01T11:00:00Z'}}\n"
    );
    let other = job("").replace("name: sum", "name: bill-29627220");
    for (key, text) in [
        (desired::<CronJob>("bill"), &suspended),
        (Key::Actual(CronJob::PLURAL, named("bill")), &done),
        (desired::<Job>(name), &other),
    ] {
        let (before, after) = after_a_cron_job("", None, Some((key, text))).await;
        assert_eq!(before, after);
    }
}

#[tokio::test(start_paused = true)]
async fn no_job_is_replaced_that_has_changed_nor_of_a_cron_job_that_has() {
    let run = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: bill-1\n  \
         annotations: {{batch.kubernetes.io/cronjob-scheduled-timestamp: '2026-05-01T10:59:00Z'}}\n  \
         ownerReferences: [{{apiVersion: batch/v1, kind: CronJob, name: bill, uid: {UID}, controller: true}}]\n\
         spec: {{template: {}}}\n",
        template("restartPolicy: Never, ")
    );
    let replace = "concurrencyPolicy: Replace, ";
    let (before, after) = after_a_cron_job(replace, Some(&run), None).await;
    assert_eq!((before.len(), after.contains_key("bill-1")), (1, false));
    let edited = format!("{run}# by hand\n");
    let allows = cron_job("concurrencyPolicy: Allow, ");
    for (key, text) in [
        (desired::<Job>("bill-1"), &edited),
        (desired::<CronJob>("bill"), &allows),
    ] {
        let (before, after) = after_a_cron_job(replace, Some(&run), Some((key, text))).await;
        assert_eq!(before, after);
    }
}
