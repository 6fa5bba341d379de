//! A leader over a store in memory, for tests of what needs one.

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::{Key, Kind, ObjectKey};
use setpoint_runtime::{CacheBuilder, Elector, Leader};
use setpoint_store::group_commit::{GroupCommit, Options};
use setpoint_store::model::ModelStore;
use setpoint_store::{Revision, SharedStore, Txn};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// See the module. Its cache has all kinds that the controllers look at.
pub(crate) struct Led {
    pub(crate) store: SharedStore,
    pub(crate) commits: GroupCommit,
    pub(crate) leader: Leader,
    follows: AbortHandle,
}

impl Led {
    /// For tests whose clock stands still but for timers.
    pub(crate) async fn start() -> Self {
        let store: SharedStore = Arc::new(ModelStore::default());
        let (cache, driver) =
            crate::register(CacheBuilder::new()).build(store.clone(), Default::default());
        let follows = tokio::spawn(driver.run()).abort_handle();
        let commits = GroupCommit::new(store.clone(), Options::default());
        let ttl = Duration::from_secs(60);
        let elector = Elector::new(store.clone(), commits.clone(), cache, "test", ttl);
        let (led, mut leaders) = mpsc::channel(1);
        tokio::spawn(async move {
            let stop = CancellationToken::new();
            let lead = |leader: Leader| {
                let led = led.clone();
                async move {
                    led.send(leader.clone()).await.unwrap();
                    leader.lost().cancelled().await;
                }
            };
            elector.run("workloads", stop, lead).await;
        });
        let leader = leaders.recv().await.unwrap();
        Self {
            store,
            commits,
            leader,
            follows,
        }
    }

    /// From now on the cache hears nothing of what is written.
    pub(crate) fn cut_the_cache_off(&self) {
        self.follows.abort();
    }

    /// The key of what is wanted of an object.
    pub(crate) fn desired<K: Kind>(&self, key: &ObjectKey) -> String {
        let key = Key::Desired(K::PLURAL, key.clone());
        self.leader.keyspace().build(&key)
    }

    /// Writes a key past the leader. The cache need not have it yet.
    pub(crate) async fn put(&self, key: String, value: &str) -> Revision {
        let txn = Txn::new().put(key, value.to_owned());
        self.store.txn(txn).await.unwrap().revision
    }

    /// As [`Self::put`], of what is wanted of an object; the cache has it then.
    pub(crate) async fn put_desired<K: Kind>(&self, key: &ObjectKey, value: &str) -> Revision {
        let revision = self.put(self.desired::<K>(key), value).await;
        self.leader.cache().wait_for(revision).await;
        revision
    }

    /// Deletes what is wanted of an object; the cache does not have it then.
    pub(crate) async fn delete_desired<K: Kind>(&self, key: &ObjectKey) {
        let txn = Txn::new().delete(self.desired::<K>(key));
        let gone = self.store.txn(txn).await.unwrap().revision;
        self.leader.cache().wait_for(gone).await;
    }
}
