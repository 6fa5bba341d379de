//! Control planes in the test's process, against a real etcd; scheduler and agents are played by one task.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use setpoint_apis::apps::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Namespace, Pod, PodCondition,
};
use setpoint_apis::records::{Binding, PodActual, PodStage};
use setpoint_apis::view::pod_requests;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, Timestamp, document};
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{Cache, CacheBuilder, Clock, Elector, Leader, View};
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::testing::TestEtcd;
use setpoint_store::{Event, EventKind, Revision, SharedStore, Txn, WatchRequest};
use setpoint_workloads::daemonset::fit::pinned_to;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The namespace of what [`Rig::settled`] puts.
const PROBES: &str = "probes";

/// Far longer than anything here takes: only a hang runs into it.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) struct Rig {
    pub(crate) store: SharedStore,
    pub(crate) keyspace: Keyspace,
    pub(crate) cache: Cache,
    register: fn(CacheBuilder) -> CacheBuilder,
    driver: JoinHandle<()>,
    /// How many there were so far.
    probes: AtomicUsize,
    _etcd: Arc<TestEtcd>,
}

impl Rig {
    pub(crate) async fn start(name: &str, register: fn(CacheBuilder) -> CacheBuilder) -> Self {
        Self::on(TestEtcd::shared().await, name, register).await
    }

    pub(crate) async fn on(
        etcd: Arc<TestEtcd>,
        name: &str,
        register: fn(CacheBuilder) -> CacheBuilder,
    ) -> Self {
        // `RUST_LOG=debug` shows what the controllers decide.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let store = etcd.store().await;
        let keyspace = Keyspace::new(&etcd.prefix(name)).unwrap();
        let (cache, driver) = register(CacheBuilder::new()).build(store.clone(), keyspace.clone());
        let driver = tokio::spawn(driver.run());
        cache.ready().await;
        let rig = Self {
            store,
            keyspace,
            cache,
            register,
            driver,
            probes: AtomicUsize::default(),
            _etcd: etcd,
        };
        for name in ["default", PROBES] {
            let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
            rig.put_desired::<Namespace>(&ObjectKey::cluster(name), &text)
                .await;
        }
        rig
    }

    /// Runs a controller with a cache of its own, as a process would.
    pub(crate) async fn process<F, Fut>(&self, name: &'static str, run: F) -> Process
    where
        F: Fn(Leader, Clock, Recorder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let commits = GroupCommit::new(self.store.clone(), Options::default());
        let (cache, driver) =
            (self.register)(CacheBuilder::new()).build(self.store.clone(), self.keyspace.clone());
        let driver = tokio::spawn(driver.run());
        let shutdown = CancellationToken::new();
        let elector = Elector::new(
            self.store.clone(),
            commits,
            cache,
            "test",
            Duration::from_secs(3),
        );
        let stop = shutdown.clone();
        let work = tokio::spawn(async move {
            elector
                .run(name, stop, |leader| {
                    run(leader, Clock::system(), Recorder::discarding())
                })
                .await;
            elector.resign().await;
        });
        Process {
            shutdown,
            driver,
            work: Some(work),
        }
    }

    /// Writes a key of the state trees; the rig's cache has it then.
    pub(crate) async fn put(&self, key: &Key<'_>, value: &str) -> Revision {
        let txn = Txn::new().put(self.keyspace.build(key), value.to_owned());
        let revision = self.store.txn(txn).await.unwrap().revision;
        self.cache.wait_for(revision).await;
        revision
    }

    pub(crate) async fn put_desired<K: Kind>(&self, key: &ObjectKey, value: &str) -> Revision {
        self.put(&Key::Desired(K::PLURAL, key.clone()), value).await
    }

    /// Waits until the cache shows what is waited for.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&View<'_>) -> Option<T>,
    ) -> T {
        let mut changes = self.cache.subscribe(|_| true);
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                changes.next().await;
                if let Some(found) = look(&self.cache.view()) {
                    return found;
                }
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain until {what}; there is:\n{}", self.dump()),
        }
    }

    fn dump(&self) -> String {
        let view = self.cache.view();
        let mut text = format!(
            "revision {}, {} sets, {} pods\n",
            view.revision(),
            view.desired::<ReplicaSet>().len(),
            view.desired::<Pod>().len()
        );
        for (key, d) in view.actual::<Deployment>().iter() {
            text += &format!("deployment {key}: {}\n", document::encode(&d.value));
        }
        for (key, j) in view.actual::<Job>().iter() {
            text += &format!("job {key}: {}\n", document::encode(&j.value));
        }
        for (key, c) in view.actual::<CronJob>().iter() {
            text += &format!("cronjob {key}: {}\n", document::encode(&c.value));
        }
        for (key, r) in view.desired::<ReplicaSet>().iter() {
            text += &format!(
                "replicaset {key} at {}: {:?}\n",
                r.mod_revision, r.value.spec.replicas
            );
        }
        for (key, d) in view.actual::<DaemonSet>().iter() {
            text += &format!("daemonset {key}: {}\n", document::encode(&d.value));
        }
        for (key, _) in view.desired::<Pod>().entries().take(30) {
            text += &format!(
                "pod {key}: {:?}\n",
                view.pod_actual(key).map(|a| a.value.stage)
            );
        }
        text
    }

    /// Waits until a Deployment is rolled out at the generation of this revision of its document.
    pub(crate) async fn rolled_out(&self, key: &ObjectKey, document: Revision) {
        self.until(&format!("{key} is rolled out"), |view| {
            let desired = view.desired::<Deployment>().get(key)?;
            let status = &view.actual::<Deployment>().get(key)?.value;
            let n = desired.value.spec.replicas();
            (desired.mod_revision >= document.0
                && status.observed_generation == Some(desired.version)
                && status.updated_replicas.unwrap_or(0) == n
                && status.replicas.unwrap_or(0) == n
                && status.available_replicas.unwrap_or(0) == n)
                .then_some(())
        })
        .await;
    }

    /// The pods that are wanted, by name.
    pub(crate) fn pods(&self) -> BTreeSet<String> {
        let view = self.cache.view();
        view.desired::<Pod>()
            .entries()
            .map(|(k, _)| k.name.to_string())
            .collect()
    }

    /// Waits until the rig's cache has seen all that is written by now, for when no controllers run. With controllers see
    /// [`Rig::settled`].
    pub(crate) async fn level(&self) {
        let key = Key::Actual("leaders", ObjectKey::cluster("test"));
        self.put(&key, "x: 1\n").await;
    }

    /// Waits until the controllers have acted on what was written by now, and the rig's cache has seen it. An object of each
    /// kind is put where there was none; a controller takes up what has changed in the order of the changes, and a new
    /// leader takes up everything at first, so whoever has reported on these has looked at all others.
    pub(crate) async fn settled(&self) {
        let n = self.probes.fetch_add(1, Ordering::SeqCst);
        let key = ObjectKey::namespaced(PROBES, format!("probe-{n}"));
        let name = &key.name;
        let text = |kind: &str, more: &str, pod: &str| {
            format!(
                "kind: {kind}\nmetadata: {{name: {name}, namespace: {PROBES}}}\nspec: {{{more}, template: {{\
                 metadata: {{labels: {{probe: {kind}-{n}}}}}, spec: {{{pod}containers: [{{name: c, image: host}}]}}}}}}\n"
            )
        };
        let apps = |kind: &str, more: &str, pod: &str| {
            let selector = format!("{more}selector: {{matchLabels: {{probe: {kind}-{n}}}}}");
            format!("apiVersion: apps/v1\n{}", text(kind, &selector, pod))
        };
        let job = text("Job", "suspend: true", "restartPolicy: Never, ");
        let objects = [
            (
                Deployment::PLURAL,
                apps(Deployment::KIND, "replicas: 0, ", ""),
            ),
            (
                StatefulSet::PLURAL,
                apps(StatefulSet::KIND, "replicas: 0, ", ""),
            ),
            (
                DaemonSet::PLURAL,
                apps(DaemonSet::KIND, "", "nodeName: nowhere, "),
            ),
            (Job::PLURAL, format!("apiVersion: batch/v1\n{job}")),
        ];
        let desired = |plural, key: &ObjectKey| {
            let key = Key::Desired(plural, key.clone());
            self.keyspace.build(&key)
        };
        let put = objects.iter().fold(Txn::new(), |txn, (plural, text)| {
            txn.put(desired(plural, &key), text.clone())
        });
        self.store.txn(put).await.unwrap();
        let made = self.until("the controllers have acted on probes", |view| {
            let observed = view
                .actual::<Deployment>()
                .get(&key)?
                .value
                .observed_generation?;
            let sets = view.desired::<ReplicaSet>().namespace(PROBES);
            let sets: Vec<_> = sets.map(|(set, _)| set.clone()).collect();
            let seen = |set| view.actual::<ReplicaSet>().get(set).is_some();
            let all = !sets.is_empty() && sets.iter().all(seen);
            view.actual::<StatefulSet>()
                .get(&key)?
                .value
                .observed_generation?;
            view.actual::<DaemonSet>()
                .get(&key)?
                .value
                .observed_generation?;
            let is_suspended = view.actual::<Job>().get(&key)?.value.is("Suspended");
            let revisions = view.desired::<ControllerRevision>().namespace(PROBES);
            let revisions = revisions.map(|(key, _)| (ControllerRevision::PLURAL, key.clone()));
            let sets = sets.into_iter().map(|set| (ReplicaSet::PLURAL, set));
            (observed > 0 && all && is_suspended).then(|| sets.chain(revisions).collect::<Vec<_>>())
        });
        let made = made.await;
        let own = objects.iter().map(|(plural, _)| (*plural, key.clone()));
        let gone = own.chain(made).fold(Txn::new(), |txn, (plural, key)| {
            let status = Key::Actual(plural, key.clone());
            let txn = txn.delete(desired(plural, &key));
            txn.delete(self.keyspace.build(&status))
        });
        let gone = self.store.txn(gone).await.unwrap().revision;
        self.cache.wait_for(gone).await;
    }

    /// Follows what happens from now on.
    pub(crate) async fn history(&self) -> History {
        let (_, now) = self.store.get(self.keyspace.as_str()).await.unwrap();
        let range = self.keyspace.state();
        let store = self.store.clone();
        let events = Arc::<parking_lot::Mutex<Vec<Event>>>::default();
        let seen = tokio::sync::watch::Sender::new(now.0);
        let task = tokio::spawn({
            let (events, seen) = (events.clone(), seen.clone());
            async move {
                loop {
                    let from = Some(Revision(*seen.borrow() + 1));
                    let request = WatchRequest {
                        start: range.start.clone(),
                        end: range.end.clone(),
                        from,
                    };
                    let Ok(mut stream) = store.watch(request).await else {
                        continue;
                    };
                    while let Some(Ok(batch)) = stream.next().await {
                        events.lock().extend(batch.events);
                        seen.send_replace(batch.revision.0);
                    }
                }
            }
        });
        History {
            keyspace: self.keyspace.clone(),
            events,
            seen,
            task,
        }
    }

    /// Begins to play scheduler and agents.
    pub(crate) fn agents(&self) -> Agents {
        let switch = Arc::<Switches>::default();
        let task = tokio::spawn(play(self.store.clone(), self.cache.clone(), switch.clone()));
        Agents { switch, task }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A controller with a cache of its own.
pub(crate) struct Process {
    shutdown: CancellationToken,
    driver: JoinHandle<()>,
    work: Option<JoinHandle<()>>,
}

impl Process {
    /// Hands its leadership over and ends.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        if let Some(work) = self.work.take() {
            work.await.unwrap();
        }
    }

    /// Ends between two instructions, wherever it is: nothing is handed over.
    pub(crate) fn crash(self) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        self.driver.abort();
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

#[derive(Default)]
struct Switches {
    /// Pods that are not wanted any more stay where they are.
    hold_stops: AtomicBool,
}

/// Binds pods, makes them ready, and stops those that are not wanted, a few at a time.
pub(crate) struct Agents {
    switch: Arc<Switches>,
    task: JoinHandle<()>,
}

impl Agents {
    pub(crate) fn hold_stops(&self, hold: bool) {
        self.switch.hold_stops.store(hold, Ordering::SeqCst);
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Pods of an image that begins so run and then end, with the exit code that follows.
pub(crate) const ENDS: &str = "ends-with-";

/// Pods of this image start and never become ready.
pub(crate) const BROKEN: &str = "broken";

async fn play(store: SharedStore, cache: Cache, switch: Arc<Switches>) {
    let mut rng = fastrand::Rng::with_seed(7);
    loop {
        let txn = {
            let view = cache.view();
            let many = if view.desired::<Pod>().len() > 50 {
                60
            } else {
                rng.usize(1..4)
            };
            let stops = !switch.hold_stops.load(Ordering::SeqCst);
            step(&view, cache.keyspace(), many, stops, rng.usize(..3))
        };
        if !txn.then.is_empty() {
            // An etcd that is away comes back, and what was written all the same shows in the cache.
            if let Ok(done) = store.txn(txn).await {
                cache.wait_for(done.revision).await;
            }
        }
        // The pace of the play, not a wait for anything.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn step(view: &View<'_>, keyspace: &Keyspace, many: usize, stops: bool, node: usize) -> Txn {
    let node = format!("n{node}");
    let mut txn = Txn::new();
    let unbound = view
        .desired::<Pod>()
        .iter()
        .filter(|(k, _)| !view.bindings().contains(k));
    // A pod that names its node waits for that one, and for room there.
    let placed = unbound.filter_map(|(key, pod)| match pinned_to(&pod.value.spec) {
        Some(pin) => {
            view.session(pin)?;
            has_room(view, pin, &pod.value).then(|| (key, pod, pin.to_owned()))
        }
        None => Some((key, pod, node.clone())),
    });
    for (key, pod, node) in placed.take(many) {
        let now = Clock::system().now();
        let binding = Binding {
            node: node.clone(),
            session: 1,
            placement: 1,
            pod_revision: pod.mod_revision,
            bound_at: now,
            never_twice: false,
            requests: Default::default(),
            withdrawn: None,
            decision: None,
            ..Binding::default()
        };
        let ready = pod.value.spec.containers[0].image != BROKEN;
        let actual = PodActual {
            placement: 1,
            uid: pod.uid(),
            stage: PodStage::Running,
            conditions: vec![PodCondition::new("Ready", ready, now)],
            ..PodActual::default()
        };
        txn = txn
            .put(
                keyspace.build(&Key::Binding(key.clone())),
                document::encode(&binding),
            )
            .put(
                keyspace.build(&Key::NodePod(&node, key.clone())),
                document::encode(&actual),
            );
    }
    let running = view.desired::<Pod>().iter().filter_map(|(key, pod)| {
        let code = pod.value.spec.containers[0].image.strip_prefix(ENDS)?;
        let actual = view.pod_actual(key)?;
        (actual.value.stage == PodStage::Running).then_some((key, code.parse().unwrap(), actual))
    });
    for (key, code, actual) in running.take(many) {
        let at = Clock::system().now().whole_seconds();
        let ended = ended(&actual.value, code, at);
        let node = &view.bindings().get(key).unwrap().value.node;
        txn = txn.put(
            keyspace.build(&Key::NodePod(node, key.clone())),
            document::encode(&ended),
        );
    }
    let unwanted = view
        .bindings()
        .iter()
        .filter(|(k, _)| !view.desired::<Pod>().contains(k));
    for (key, binding) in unwanted.take(if stops { many } else { 0 }) {
        txn = txn
            .delete(keyspace.build(&Key::Binding(key.clone())))
            .delete(keyspace.build(&Key::NodePod(&binding.value.node, key.clone())));
    }
    txn
}

/// Whether a node has as much as a pod asks for, when it is the only one there.
fn has_room(view: &View<'_>, node: &str, pod: &Pod) -> bool {
    let status = view.node_status().get(&ObjectKey::cluster(node));
    let there = |name: &String| status.and_then(|s| s.value.allocatable.get(name).copied());
    let mut asked = pod_requests(&pod.spec).into_iter();
    asked.all(|(name, quantity)| quantity <= there(&name).unwrap_or_default())
}

/// What a node reports of a pod whose one container has ended.
pub(crate) fn ended(running: &PodActual, code: i32, at: Timestamp) -> PodActual {
    let terminated = ContainerStateTerminated {
        exit_code: code,
        finished_at: Some(at),
        ..ContainerStateTerminated::default()
    };
    PodActual {
        stage: match code {
            0 => PodStage::Succeeded,
            _ => PodStage::Failed,
        },
        conditions: vec![PodCondition::new("Ready", false, at)],
        container_statuses: vec![ContainerStatus {
            name: "c".into(),
            state: ContainerState {
                terminated: Some(terminated),
                ..ContainerState::default()
            },
            ..ContainerStatus::default()
        }],
        ..running.clone()
    }
}

/// What has happened.
pub(crate) struct History {
    keyspace: Keyspace,
    events: Arc<parking_lot::Mutex<Vec<Event>>>,
    seen: tokio::sync::watch::Sender<i64>,
    task: JoinHandle<()>,
}

/// How many pods there were after a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) revision: i64,
    pub(crate) pods: usize,
    pub(crate) ready: usize,
}

impl History {
    /// Waits until it reaches a revision.
    pub(crate) async fn until(&self, revision: Revision) {
        let mut seen = self.seen.subscribe();
        let found = tokio::time::timeout(LIMIT, seen.wait_for(|s| *s >= revision.0));
        assert!(found.await.is_ok(), "the history does not reach {revision}");
    }

    /// Waits until it has all that the rig's cache has seen.
    pub(crate) async fn end(&self, rig: &Rig) {
        let end = Key::Actual("leaders", ObjectKey::cluster("end"));
        self.until(rig.put(&end, "x: 1\n").await).await;
    }

    /// The numbers after every revision: of pods that are wanted, and of those that are ready.
    pub(crate) fn counts(&self) -> Vec<Count> {
        let events = self.events.lock();
        let mut counts: Vec<Count> = Vec::new();
        let (mut pods, mut ready) = (BTreeSet::new(), BTreeMap::new());
        for e in events.iter() {
            match self.keyspace.split(&e.kv.key) {
                Ok(Key::Desired("pods", key)) if e.kind == EventKind::Put => drop(pods.insert(key)),
                Ok(Key::Desired("pods", key)) => drop(pods.remove(&key)),
                Ok(Key::NodePod(_, key)) if e.kind == EventKind::Put => {
                    let actual: PodActual = document::decode_value(&e.kv.value).unwrap();
                    ready.insert(key, actual.is_ready());
                }
                Ok(Key::NodePod(_, key)) => drop(ready.remove(&key)),
                _ => continue,
            }
            let revision = e.kv.mod_revision;
            if counts.last().is_some_and(|c| c.revision == revision) {
                counts.pop();
            }
            let ready = pods.iter().filter(|p| ready.get(*p) == Some(&true)).count();
            counts.push(Count {
                revision,
                pods: pods.len(),
                ready,
            });
        }
        counts
    }

    /// All events, oldest first.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    /// The keys that were written, elections and probes aside.
    pub(crate) fn written(&self) -> Vec<String> {
        let events = self.events.lock();
        let keys = events.iter().map(|e| e.kv.key.clone());
        keys.filter(|k| !k.contains("/actual/leaders/") && !is_probe(k))
            .collect()
    }

    /// The keys that were deleted, probes aside.
    pub(crate) fn deleted(&self) -> Vec<String> {
        let events = self.events.lock();
        events
            .iter()
            .filter(|e| e.kind == EventKind::Delete && !is_probe(&e.kv.key))
            .map(|e| e.kv.key.clone())
            .collect()
    }
}

/// Whether a key is of what [`Rig::settled`] puts.
pub(crate) fn is_probe(key: &str) -> bool {
    key.contains(&format!("/{PROBES}/"))
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}
