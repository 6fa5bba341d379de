//! A cluster's worth of fixtures: an etcd, a cache of a few kinds, and waiting with a limit.

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::apps::Deployment;
use setpoint_apis::core::{ConfigMap, Pod};
use setpoint_apis::{Key, Keyspace, ObjectKey};
use setpoint_runtime::{Cache, CacheBuilder, View};
use setpoint_store::etcd::{ConnectOptions, EtcdStore};
use setpoint_store::testing::TestEtcd;
use setpoint_store::{Revision, SharedStore, Txn};

use crate::proxy::Proxy;

/// Long enough for a busy machine, short enough to notice a hang.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Fixture {
    pub(crate) etcd: TestEtcd,
    pub(crate) store: SharedStore,
    pub(crate) keyspace: Keyspace,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        let etcd = TestEtcd::start().await;
        let store = etcd.store().await;
        Self {
            etcd,
            store,
            keyspace: Keyspace::default(),
        }
    }

    /// A cache that is ready, with its driver running until the test ends.
    pub(crate) async fn cache(&self) -> Cache {
        self.cache_over(self.store.clone()).await
    }

    /// A cache whose connection goes through a relay that can be cut.
    pub(crate) async fn cache_through_proxy(&self) -> (Cache, Proxy) {
        let proxy = Proxy::start(&self.etcd.endpoint()).await;
        let options = ConnectOptions {
            endpoints: vec![proxy.endpoint.clone()],
            ..ConnectOptions::default()
        };
        let store = EtcdStore::connect(&options).await.unwrap();
        (self.cache_over(Arc::new(store)).await, proxy)
    }

    async fn cache_over(&self, store: SharedStore) -> Cache {
        let (cache, driver) = CacheBuilder::new()
            .kind::<Pod>()
            .kind::<ConfigMap>()
            .kind::<Deployment>()
            .build(store, self.keyspace.clone());
        tokio::spawn(driver.run());
        // An empty store has revision 1, so even its listing makes the cache ready.
        cache.ready().await;
        cache
    }

    pub(crate) async fn put(&self, key: &Key<'_>, value: impl Into<String>) -> Revision {
        let txn = Txn::new().put(self.keyspace.build(key), value.into());
        self.store.txn(txn).await.unwrap().revision
    }

    pub(crate) async fn delete(&self, key: &Key<'_>) -> Revision {
        self.store
            .txn(Txn::new().delete(self.keyspace.build(key)))
            .await
            .unwrap()
            .revision
    }
}

/// Waits until `holds`, and fails with `state` otherwise.
pub(crate) async fn eventually(
    cache: &Cache,
    holds: impl Fn(&View<'_>) -> bool,
    state: impl Fn(&View<'_>) -> String,
) {
    let mut subscription = cache.subscribe(|_| true);
    let waited = tokio::time::timeout(LIMIT, async {
        while !holds(&cache.view()) {
            subscription.next().await;
        }
    });
    if waited.await.is_err() {
        panic!("not within {LIMIT:?}: {}", state(&cache.view()));
    }
}

pub(crate) fn config_map(name: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: default\ndata:\n  value: {value:?}\n"
    )
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// The value of a config map made by [`config_map`], as the view has it.
pub(crate) fn value_of(view: &View<'_>, name: &str) -> Option<String> {
    view.desired::<ConfigMap>()
        .get(&key(name))
        .and_then(|c| c.value.data.get("value").cloned())
}
