//! A control plane in the test's process, against a real etcd, and agents that are only leases.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_runtime::cache::View;
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{Cache, CacheBuilder, Clock, Elector, Leader};
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::lease::LeaseKeeper;
use setpoint_store::testing::TestEtcd;
use setpoint_store::{Compare, Event, EventKind, Revision, SharedStore, Txn, WatchRequest};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes: only a hang runs into it.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) store: SharedStore,
    pub(crate) keyspace: Keyspace,
    pub(crate) cache: Cache,
    commits: GroupCommit,
    shutdown: CancellationToken,
    driver: JoinHandle<()>,
    _etcd: Arc<TestEtcd>,
}

/// An agent, as far as etcd sees one.
pub(crate) struct Agent {
    pub(crate) session: i64,
    lease: LeaseKeeper,
}

impl Agent {
    /// The process is killed: nobody renews the lease any more.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// The session is over at once.
    pub(crate) async fn stop(self) {
        self.lease.revoke().await.unwrap();
    }
}

impl Rig {
    pub(crate) async fn start(
        name: &str,
        kinds: impl FnOnce(CacheBuilder) -> CacheBuilder,
    ) -> Self {
        let etcd = TestEtcd::shared().await;
        let store = etcd.store().await;
        let keyspace = Keyspace::new(&etcd.prefix(name)).unwrap();
        let commits = GroupCommit::new(store.clone(), Options::default());
        let (cache, driver) = kinds(CacheBuilder::new()).build(store.clone(), keyspace.clone());
        let driver = tokio::spawn(driver.run());
        cache.ready().await;
        Self {
            store,
            keyspace,
            cache,
            commits,
            shutdown: CancellationToken::new(),
            driver,
            _etcd: etcd,
        }
    }

    /// Runs a controller, as a process of its own would. Cancelling the token hands its leadership over.
    pub(crate) fn controller<F, Fut>(&self, name: &'static str, run: F) -> CancellationToken
    where
        F: Fn(Leader, Clock, Recorder) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let shutdown = self.shutdown.child_token();
        let elector = Elector::new(
            self.store.clone(),
            self.commits.clone(),
            self.cache.clone(),
            "test",
            Duration::from_secs(30),
        );
        let (recorder, events) = Recorder::new(
            self.store.clone(),
            self.commits.clone(),
            self.keyspace.clone(),
            Clock::system(),
            name,
            None,
            shutdown.clone(),
        );
        tokio::spawn(events);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            elector
                .run(name, stop, |leader| {
                    run(leader, Clock::system(), recorder.clone())
                })
                .await;
            elector.resign().await;
        });
        shutdown
    }

    /// Begins a session of a node, of an agent that starts now.
    pub(crate) async fn agent(&self, node: &str, ttl: Duration) -> Agent {
        let lease = LeaseKeeper::grant(self.store.clone(), ttl).await.unwrap();
        let key = self.keyspace.build(&Key::NodeAlive(node));
        let txn = Txn::new()
            .when(Compare::absent(key.clone()))
            .put_with_lease(
                key,
                format!(
                    "hostname: test\npid: 1\ninstance: x\nsince: {}\nleaseTtlSeconds: 2\n",
                    Clock::system().now()
                ),
                lease.id(),
            );
        let done = self.store.txn(txn).await.unwrap();
        assert!(done.succeeded, "node {node} is taken");
        Agent {
            session: done.revision.0,
            lease,
        }
    }

    pub(crate) async fn put(&self, key: &Key<'_>, value: &str) -> Revision {
        self.store
            .txn(Txn::new().put(self.keyspace.build(key), value.to_owned()))
            .await
            .unwrap()
            .revision
    }

    pub(crate) async fn delete(&self, key: &Key<'_>) {
        self.store
            .txn(Txn::new().delete(self.keyspace.build(key)))
            .await
            .unwrap();
    }

    pub(crate) async fn get(&self, key: &Key<'_>) -> Option<String> {
        let (kv, _) = self.store.get(&self.keyspace.build(key)).await.unwrap();
        kv.map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
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
            Err(_) => panic!(
                "waited in vain until {what}; health: {:?}",
                self.cache.view().health()
            ),
        }
    }

    /// Everything that happens under the prefix from now on.
    pub(crate) async fn history(&self) -> History {
        let (_, now) = self.store.get(self.keyspace.as_str()).await.unwrap();
        let range = self.keyspace.all();
        let request = WatchRequest {
            start: range.start,
            end: range.end,
            from: Some(Revision(now.0 + 1)),
        };
        let mut stream = self.store.watch(request).await.unwrap();
        let events = Arc::<parking_lot::Mutex<Vec<Event>>>::default();
        let seen = tokio::sync::watch::Sender::new(0_usize);
        let task = tokio::spawn({
            let (events, seen) = (events.clone(), seen.clone());
            async move {
                while let Some(batch) = stream.next().await {
                    events.lock().extend(batch.unwrap().events);
                    seen.send_modify(|n| *n += 1);
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
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.driver.abort();
    }
}

/// What has happened under a prefix.
pub(crate) struct History {
    keyspace: Keyspace,
    events: Arc<parking_lot::Mutex<Vec<Event>>>,
    seen: tokio::sync::watch::Sender<usize>,
    task: JoinHandle<()>,
}

impl History {
    /// Every value that a key has had, `None` for its deletions.
    pub(crate) fn of(&self, key: &Key<'_>) -> Vec<Option<String>> {
        let key = self.keyspace.build(key);
        let events = self.events.lock();
        let values = events
            .iter()
            .filter(|e| e.kv.key == key)
            .map(|e| match e.kind {
                EventKind::Put => Some(String::from_utf8(e.kv.value.to_vec()).unwrap()),
                EventKind::Delete => None,
            });
        values.collect()
    }

    /// The keys that were touched, with what was put there; with nothing where they were deleted.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let events = self.events.lock();
        let all = events.iter().map(|e| {
            let value = String::from_utf8_lossy(&e.kv.value).into_owned();
            (e.kv.key.clone(), value)
        });
        all.collect()
    }

    /// The keys that were touched.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.all().into_iter().map(|(key, _)| key).collect()
    }

    /// Waits until the history shows what is waited for.
    pub(crate) async fn until(&self, what: &str, mut look: impl FnMut(&Self) -> bool) {
        let mut seen = self.seen.subscribe();
        let found = tokio::time::timeout(LIMIT, async {
            while !look(self) {
                seen.changed().await.unwrap();
            }
        });
        assert!(
            found.await.is_ok(),
            "waited in vain until {what}; seen: {:?}",
            self.keys()
        );
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn cluster_key(name: &str) -> ObjectKey {
    ObjectKey::cluster(name)
}
