//! A scheduler that leads, nodes with hand-driven agents, and waiting with a limit.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use setpoint_apis::core::{Node, Pod, PodCondition};
use setpoint_apis::records::{
    Binding, ClaimFence, Intent, PodActual, PodScheduling, PodStage, WorkHeader,
};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{Cache, CacheBuilder, Clock, Elector, Stored, View};
use setpoint_scheduler::Options;
use setpoint_store::group_commit::{GroupCommit, Options as CommitOptions};
use setpoint_store::testing::{TestEtcd, dump};
use setpoint_store::{Compare, KeyValue, Revision, SharedStore, Txn, WatchRequest};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine, short enough to notice a hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) etcd: Arc<TestEtcd>,
    pub(crate) store: SharedStore,
    pub(crate) keyspace: Keyspace,
    pub(crate) cache: Cache,
    commits: GroupCommit,
}

/// A scheduler process. Dropping it abandons it as a crash would, but for its lease.
pub(crate) struct Scheduler {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Scheduler {
    /// Hands the leadership over and ends.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LIMIT, self.task)
            .await
            .expect("it stops")
            .expect("it does not panic");
    }
}

pub(crate) fn pod_key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// A pod of one host container.
pub(crate) fn pod(name: &str) -> String {
    pod_with(name, "")
}

/// The same with more lines of the spec, indented by two.
pub(crate) fn pod_with(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\n  labels: {{app: x}}\nspec:\n  containers:\n  - name: c\n    image: host\n    command: [sleep, '60']\n    resources: {{requests: {{cpu: 100m}}}}\n{more}"
    )
}

impl Rig {
    /// A cluster without a scheduler.
    pub(crate) async fn start(name: &str) -> Self {
        let etcd = TestEtcd::shared().await;
        Self::over(etcd, name).await
    }

    pub(crate) async fn over(etcd: Arc<TestEtcd>, name: &str) -> Self {
        let store = etcd.store().await;
        let keyspace = Keyspace::new(&etcd.prefix(name)).expect("a good prefix");
        let (cache, driver) = setpoint_scheduler::register(CacheBuilder::new())
            .build(store.clone(), keyspace.clone());
        tokio::spawn(driver.run());
        cache.ready().await;
        let commits = GroupCommit::new(store.clone(), CommitOptions::default());
        Self {
            etcd,
            store,
            keyspace,
            cache,
            commits,
        }
    }

    /// A cluster with a scheduler and nodes n1, n2, ... of this many cpus.
    pub(crate) async fn with_nodes(name: &str, cpus: &[u32]) -> (Self, Scheduler, Vec<Agent>) {
        let rig = Self::start(name).await;
        let mut agents = Vec::new();
        for (i, cpus) in cpus.iter().enumerate() {
            agents.push(rig.node(&format!("n{}", i + 1), *cpus).await);
        }
        let scheduler = rig.scheduler();
        (rig, scheduler, agents)
    }

    pub(crate) fn scheduler(&self) -> Scheduler {
        self.scheduler_with(Options::new(1))
    }

    pub(crate) fn scheduler_with(&self, options: Options) -> Scheduler {
        self.run_scheduler(options, Recorder::discarding(), CancellationToken::new())
    }

    /// One that writes its events.
    pub(crate) fn telling_scheduler(&self) -> Scheduler {
        let shutdown = CancellationToken::new();
        let (recorder, events) = Recorder::new(
            self.store.clone(),
            self.commits.clone(),
            self.keyspace.clone(),
            Clock::system(),
            "scheduler",
            None,
            shutdown.clone(),
        );
        tokio::spawn(events);
        self.run_scheduler(Options::new(1), recorder, shutdown)
    }

    fn run_scheduler(
        &self,
        options: Options,
        recorder: Recorder,
        shutdown: CancellationToken,
    ) -> Scheduler {
        let ttl = Duration::from_secs(5);
        let elector = Elector::new(
            self.store.clone(),
            self.commits.clone(),
            self.cache.clone(),
            "test",
            ttl,
        );
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            let lead = |leader| {
                setpoint_scheduler::run_with(leader, Clock::system(), recorder.clone(), options)
            };
            elector.run("scheduler", stop, lead).await;
            elector.resign().await;
        });
        Scheduler { shutdown, task }
    }

    /// A node with an agent that does nothing by itself.
    pub(crate) async fn node(&self, name: &str, cpus: u32) -> Agent {
        let status = format!(
            "allocatable: {{cpu: '{cpus}', memory: 8Gi, pods: '1000'}}\ncapacity: {{cpu: '{cpus}'}}\ndrivers: [process]\n"
        );
        self.put(&Key::NodeStatus(name), status).await;
        let desired = document::encode(&Node::named(name));
        self.put(&Key::Desired("nodes", ObjectKey::cluster(name)), desired)
            .await;
        let mut agent = Agent {
            store: self.store.clone(),
            keyspace: self.keyspace.clone(),
            node: name.into(),
            session: 0,
        };
        agent.begin_session().await;
        agent
    }

    pub(crate) fn key(&self, key: &Key<'_>) -> String {
        self.keyspace.build(key)
    }

    pub(crate) async fn put(&self, key: &Key<'_>, value: impl Into<String>) -> Revision {
        let txn = Txn::new().put(self.key(key), value.into());
        self.store.txn(txn).await.expect("a put").revision
    }

    pub(crate) async fn delete(&self, key: &Key<'_>) -> Revision {
        self.store
            .txn(Txn::new().delete(self.key(key)))
            .await
            .expect("a delete")
            .revision
    }

    pub(crate) async fn get(&self, key: &Key<'_>) -> Option<KeyValue> {
        self.store.get(&self.key(key)).await.expect("a get").0
    }

    pub(crate) async fn apply(&self, name: &str, document: impl Into<String>) -> Revision {
        self.put(&Key::Desired(Pod::PLURAL, pod_key(name)), document)
            .await
    }

    /// A document of a kind in the namespace of the pods, or in none.
    pub(crate) async fn apply_as(&self, plural: &str, name: &str, document: &str) -> Revision {
        let key = match plural {
            "priorityclasses" | "schedulerprofiles" | "nodes" | "namespaces" => {
                ObjectKey::cluster(name)
            }
            _ => pod_key(name),
        };
        self.put(&Key::Desired(plural, key), document).await
    }

    /// Waits until the status of an object holds `words`.
    pub(crate) async fn until_status(&self, plural: &str, name: &str, words: &str) -> String {
        let key = Key::Actual(plural, pod_key(name));
        let what = format!("the status of {plural} {name} says {words:?}");
        self.until_key(&what, &key, |value| {
            value.filter(|v| v.contains(words)).map(Into::into)
        })
        .await
    }

    pub(crate) async fn delete_pod(&self, name: &str) -> Revision {
        self.delete(&Key::Desired(Pod::PLURAL, pod_key(name))).await
    }

    /// Waits until the cache has seen all that is written by now.
    pub(crate) async fn level(&self) {
        let (key, value) = self.mark();
        let txn = Txn::new().put(key, value);
        let mark = self.store.txn(txn).await.expect("a put").revision;
        let seen = tokio::time::timeout(LIMIT, self.cache.wait_for(mark)).await;
        seen.expect("the cache follows");
    }

    /// What nobody looks at, in the state trees: a cache that has seen it is level with it.
    fn mark(&self) -> (String, &'static str) {
        let key = Key::Actual("leaders", ObjectKey::cluster("test"));
        (self.key(&key), "x: 1\n")
    }

    /// Asks for something about a pod, when the cache has seen all that was written before: requests have a watch of
    /// their own. The cache comes to be level with the request too.
    pub(crate) async fn ask(&self, verb: &str, name: &str, intent: &Intent) -> Revision {
        self.ask_together(&[(verb, name, "test", intent)]).await
    }

    /// The same for several requests at once: the verb, the pod, who asks, and the details.
    pub(crate) async fn ask_together(&self, requests: &[(&str, &str, &str, &Intent)]) -> Revision {
        self.level().await;
        let (key, value) = self.mark();
        let mut txn = Txn::new().put(key, value);
        for (verb, name, by, intent) in requests {
            let pod = pod_key(name);
            let key = self.key(&Key::Intent { verb, pod, by });
            txn = txn.put(key, document::encode(*intent));
        }
        self.store.txn(txn).await.expect("a put").revision
    }

    /// Waits until the view shows what is looked for.
    pub(crate) async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&View<'_>) -> Option<T>,
    ) -> T {
        let mut subscription = self.cache.subscribe(|_| true);
        let waited = tokio::time::timeout(LIMIT, async {
            loop {
                if let Some(found) = look(&self.cache.view()) {
                    return found;
                }
                subscription.next().await;
            }
        });
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!("not within {LIMIT:?}: {what}\n{}", self.state().await),
        }
    }

    /// Waits until a key outside the state trees is as it is looked for.
    pub(crate) async fn until_key<T>(
        &self,
        what: &str,
        key: &Key<'_>,
        mut look: impl FnMut(Option<&str>) -> Option<T>,
    ) -> T {
        let waited = tokio::time::timeout(LIMIT, async {
            loop {
                let value = self
                    .get(key)
                    .await
                    .map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
                if let Some(found) = look(value.as_deref()) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!("not within {LIMIT:?}: {what}\n{}", self.state().await),
        }
    }

    pub(crate) async fn until_gone(&self, key: &Key<'_>) {
        self.until_key(&format!("{key:?} is gone"), key, |v| {
            v.is_none().then_some(())
        })
        .await;
    }

    pub(crate) async fn until_bound(&self, name: &str) -> Arc<Stored<Binding>> {
        self.until(&format!("{name} is bound"), |view| {
            view.bindings()
                .get(&pod_key(name))
                .filter(|b| b.value.withdrawn.is_none())
                .cloned()
        })
        .await
    }

    pub(crate) async fn until_unbound(&self, name: &str) {
        self.until(&format!("{name} has no binding"), |view| {
            (!view.bindings().contains(&pod_key(name))).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_withdrawn(&self, name: &str) -> String {
        self.until(&format!("{name} is withdrawn"), |view| {
            let binding = view.bindings().get(&pod_key(name))?;
            Some(binding.value.withdrawn.as_ref()?.reason.clone())
        })
        .await
    }

    /// Waits until the scheduling record says something that holds `words`.
    pub(crate) async fn until_record(&self, name: &str, words: &str) -> PodScheduling {
        let key = Key::Actual(Pod::PLURAL, pod_key(name));
        self.until_key(
            &format!("the record of {name} says {words:?}"),
            &key,
            |value| {
                let record: PodScheduling = document::decode_value(value?.as_bytes()).ok()?;
                let says = record
                    .conditions
                    .iter()
                    .any(|c| c.message.as_deref().is_some_and(|m| m.contains(words)));
                says.then_some(record)
            },
        )
        .await
    }

    /// Waits for an event that has all these words.
    pub(crate) async fn until_event(&self, words: &[&str]) -> String {
        let prefix = self.keyspace.event_range("default").start;
        let waited = tokio::time::timeout(LIMIT, async {
            loop {
                let events = dump(&*self.store, &prefix).await;
                let found = events
                    .into_iter()
                    .find(|(_, event)| words.iter().all(|w| event.contains(w)));
                if let Some((_, event)) = found {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        match waited.await {
            Ok(found) => found,
            Err(_) => panic!(
                "not within {LIMIT:?}: an event of {words:?}\n{}",
                self.state().await
            ),
        }
    }

    /// The events that have all these words.
    pub(crate) async fn events(&self, words: &[&str]) -> Vec<String> {
        let prefix = self.keyspace.event_range("default").start;
        let events = dump(&*self.store, &prefix).await.into_iter();
        let events = events.map(|(_, event)| event);
        events
            .filter(|event| words.iter().all(|w| event.contains(w)))
            .collect()
    }

    /// The work copy of a pod on a node.
    pub(crate) async fn work(&self, node: &str, name: &str) -> Option<(WorkHeader, Pod, i64)> {
        let kv = self.get(&Key::WorkPod(node, pod_key(name))).await?;
        let (header, pod) = document::decode_work(&kv.value).expect("a work copy that can be read");
        Some((header, pod, kv.mod_revision))
    }

    /// Waits until the scheduler has seen everything written so far, and has acted on it: a pod that is applied now has
    /// been bound, and one that came before it has been decided.
    pub(crate) async fn settle(&self, probe: &str) {
        self.apply(
            probe,
            pod_with(probe, "  tolerations: [{operator: Exists}]\n"),
        )
        .await;
        self.until_bound(probe).await;
        self.delete_pod(probe).await;
        self.until_unbound(probe).await;
    }

    pub(crate) async fn state(&self) -> String {
        let all = dump(&*self.store, &format!("{}/", self.keyspace)).await;
        all.into_iter()
            .map(|(k, v)| format!("--- {k}\n{v}"))
            .collect()
    }
}

/// A node's agent, driven by hand.
pub(crate) struct Agent {
    store: SharedStore,
    keyspace: Keyspace,
    pub(crate) node: String,
    pub(crate) session: i64,
}

impl Agent {
    fn alive(&self) -> String {
        self.keyspace.build(&Key::NodeAlive(&self.node))
    }

    /// Its lease is gone.
    pub(crate) async fn lose(&self) -> Revision {
        self.store
            .txn(Txn::new().delete(self.alive()))
            .await
            .expect("a delete")
            .revision
    }

    /// It comes (back).
    pub(crate) async fn begin_session(&mut self) {
        let value =
            "hostname: h\npid: 1\ninstance: a\nsince: 2026-11-23T15:25:03Z\nleaseTtlSeconds: 6\n";
        let txn = Txn::new()
            .when(Compare::absent(self.alive()))
            .put(self.alive(), value);
        let done = self.store.txn(txn).await.expect("a put");
        assert!(done.succeeded);
        self.session = done.revision.0;
    }

    fn actual(&self, name: &str) -> String {
        self.keyspace
            .build(&Key::NodePod(&self.node, pod_key(name)))
    }

    fn own_session(&self) -> Compare {
        Compare::CreateRevision(self.alive(), self.session)
    }

    /// Claims a pod by the protocol. Whether it could.
    pub(crate) async fn claim(&self, name: &str) -> bool {
        let key = self
            .keyspace
            .build(&Key::WorkPod(&self.node, pod_key(name)));
        let Some(kv) = self.store.get(&key).await.expect("a get").0 else {
            return false;
        };
        let (header, _) =
            document::decode_work::<Pod>(&kv.value).expect("a work copy that can be read");
        let actual = PodActual {
            placement: header.placement.unwrap(),
            uid: header.uid,
            ..PodActual::default()
        };
        let txn = Txn::new()
            .when(self.own_session())
            .when(Compare::ModRevision(key, kv.mod_revision))
            .when(Compare::absent(self.actual(name)))
            .put(self.actual(name), document::encode(&actual));
        self.store.txn(txn).await.expect("a claim").succeeded
    }

    /// Waits for the work, and claims it.
    pub(crate) async fn run(&self, rig: &Rig, name: &str) {
        let key = Key::WorkPod(&self.node, pod_key(name));
        rig.until_key("there is work", &key, |v| v.map(|_| ()))
            .await;
        assert!(self.claim(name).await);
        rig.until("the claim is seen", |v| {
            v.pod_on(&self.node, &pod_key(name)).map(|_| ())
        })
        .await;
    }

    /// It serves.
    pub(crate) async fn report_ready(&self, rig: &Rig, name: &str) {
        let claim = self.store.get(&self.actual(name)).await.expect("a get").0;
        let claim = claim.expect("a claim");
        let actual = PodActual {
            stage: PodStage::Running,
            conditions: vec![PodCondition::new("Ready", true, Timestamp::EPOCH)],
            ..document::decode_value(&claim.value).expect("a claim that can be read")
        };
        let txn = Txn::new()
            .when(self.own_session())
            .put(self.actual(name), document::encode(&actual));
        assert!(self.store.txn(txn).await.expect("a status").succeeded);
        rig.until("it is seen to serve", |v| {
            let actual = v.pod_on(&self.node, &pod_key(name))?.valid()?;
            actual.value.is_ready().then_some(())
        })
        .await;
    }

    pub(crate) async fn report(&self, name: &str, stage: PodStage) {
        self.report_under(name, stage, None).await;
    }

    /// The same of a placement that is not the first.
    pub(crate) async fn report_placement(&self, name: &str, placement: u32, stage: PodStage) {
        let actual = PodActual {
            placement,
            stage,
            ..PodActual::default()
        };
        let txn = Txn::new()
            .when(self.own_session())
            .put(self.actual(name), document::encode(&actual));
        assert!(self.store.txn(txn).await.expect("a status").succeeded);
    }

    /// The same of a pod that was claimed under a fence.
    pub(crate) async fn report_under(
        &self,
        name: &str,
        stage: PodStage,
        fence: Option<ClaimFence>,
    ) {
        let actual = PodActual {
            placement: 1,
            stage,
            fence,
            ..PodActual::default()
        };
        let txn = Txn::new()
            .when(self.own_session())
            .put(self.actual(name), document::encode(&actual));
        assert!(self.store.txn(txn).await.expect("a status").succeeded);
    }

    /// It has stopped a pod, and says so.
    pub(crate) async fn stopped(&self, name: &str) {
        let txn = Txn::new()
            .when(self.own_session())
            .delete(self.actual(name));
        assert!(self.store.txn(txn).await.expect("a status").succeeded);
    }

    /// Acts by itself until the task is ended: claims what it is given, stops what it is given no longer, and comes
    /// back when its session is gone.
    pub(crate) fn automatic(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let range = self.keyspace.work_range(Some(&self.node));
            loop {
                let Some(seen) = self.sync_all().await else {
                    self.come_back().await;
                    continue;
                };
                let from = Some(Revision(seen.0 + 1));
                let request = WatchRequest {
                    start: range.start.clone(),
                    end: range.end.clone(),
                    from,
                };
                let Ok(mut watch) = self.store.watch(request).await else {
                    continue;
                };
                let mut alive = true;
                while alive {
                    // Its own session is looked at now and then, as by a keep-alive.
                    let batch = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
                    alive = match batch {
                        Err(_) => self.has_session().await,
                        Ok(Some(Ok(batch))) => self.sync_batch(&batch).await,
                        Ok(_) => break,
                    };
                }
            }
        })
    }

    async fn has_session(&self) -> bool {
        match self.store.get(&self.alive()).await {
            Ok((alive, _)) => alive.is_some_and(|kv| kv.create_revision == self.session),
            Err(_) => true,
        }
    }

    async fn come_back(&mut self) {
        // Long enough for those who were asked to take its pods back to see that it is away.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if self
            .store
            .get(&self.alive())
            .await
            .is_ok_and(|(alive, _)| alive.is_none())
        {
            self.begin_session().await;
        }
    }

    async fn sync_batch(&self, batch: &setpoint_store::WatchBatch) -> bool {
        for event in &batch.events {
            let Ok(Key::WorkPod(_, pod)) = self.keyspace.split(&event.kv.key) else {
                continue;
            };
            if !self.sync(&pod.name).await {
                return false;
            }
        }
        true
    }

    /// Looks at everything that it is given, and at everything that it runs: first stops what is no longer its own.
    async fn sync_all(&self) -> Option<Revision> {
        let work = dump(
            &*self.store,
            &format!("{}pods/", self.keyspace.work_range(Some(&self.node)).start),
        )
        .await;
        let running = dump(
            &*self.store,
            &format!(
                "{}pods/",
                self.keyspace.node_actual_range(Some(&self.node)).start
            ),
        )
        .await;
        let (_, revision) = self.store.get(&self.alive()).await.ok()?;
        let name = |key: &str| key.rsplit('/').next().unwrap().to_owned();
        for (key, _) in running.iter().chain(&work) {
            if !self.sync(&name(key)).await {
                return None;
            }
        }
        // What changed since the lists were read is read again: harmless, and nothing is missed.
        Some(Revision(revision.0.saturating_sub(500).max(1)))
    }

    /// Does what is to be done about one pod. `false` when the session is gone.
    async fn sync(&self, name: &str) -> bool {
        let key = self
            .keyspace
            .build(&Key::WorkPod(&self.node, pod_key(name)));
        loop {
            let Ok((kv, _)) = self.store.get(&key).await else {
                continue;
            };
            let Ok((claimed, _)) = self.store.get(&self.actual(name)).await else {
                continue;
            };
            let known = claimed.and_then(|c| document::decode_value::<PodActual>(&c.value).ok());
            let txn = match (kv, known) {
                (None, None) => return true,
                // Not given any more: it is stopped.
                (None, Some(_)) => Txn::new()
                    .when(self.own_session())
                    .delete(self.actual(name)),
                (Some(kv), known) => {
                    let (header, _) = document::decode_work::<Pod>(&kv.value)
                        .expect("a work copy that can be read");
                    let (uid, placement) = (header.uid, header.placement.expect("a placement"));
                    match known {
                        Some(known) if known.uid == uid && known.placement == placement => {
                            return true;
                        }
                        // A former placement still runs here: it is stopped first.
                        Some(_) => Txn::new()
                            .when(self.own_session())
                            .delete(self.actual(name)),
                        None => {
                            let actual = PodActual {
                                placement,
                                uid,
                                ..PodActual::default()
                            };
                            Txn::new()
                                .when(self.own_session())
                                .when(Compare::ModRevision(key.clone(), kv.mod_revision))
                                .when(Compare::absent(self.actual(name)))
                                .put(self.actual(name), document::encode(&actual))
                        }
                    }
                }
            };
            match self.store.txn(txn).await {
                Ok(done) if !done.succeeded && !self.has_session().await => return false,
                _ => {}
            }
        }
    }
}
