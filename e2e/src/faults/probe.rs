//! A cache as a process of controllers keeps one, run within the test behind proxies of its own, so that it can be
//! looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::{ConfigMap, Namespace, Node, Pod};
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey};
use setpoint_runtime::cache::Table;
use setpoint_runtime::{Cache, CacheBuilder};
use setpoint_store::{Revision, SharedStore};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::history::Sample;

/// How often the cache is looked at while it moves.
const EVERY: Duration = Duration::from_millis(100);

/// The kinds that the cache holds, by their plurals.
const KINDS: [&str; 6] = [
    Deployment::PLURAL,
    ReplicaSet::PLURAL,
    Pod::PLURAL,
    Node::PLURAL,
    ConfigMap::PLURAL,
    Namespace::PLURAL,
];

/// Whether the cache of a probe holds a key.
pub(super) fn is_cached(keyspace: &Keyspace, key: &str) -> bool {
    match keyspace.split(key) {
        Ok(Key::Desired(plural, _) | Key::Actual(plural, _) | Key::Deletion(plural, _)) => {
            KINDS.contains(&plural)
        }
        Ok(
            Key::NodeAlive(_)
            | Key::NodeFence(_)
            | Key::NodeStatus(_)
            | Key::NodePod(..)
            | Key::Health(_)
            | Key::Binding(_),
        ) => true,
        _ => false,
    }
}

/// A cache that is looked at again and again.
pub struct Probe {
    name: &'static str,
    cache: Cache,
    samples: Arc<Mutex<Vec<Sample>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Probe {
    pub(super) fn start(name: &'static str, store: SharedStore) -> Self {
        let builder = CacheBuilder::new()
            .kind::<Deployment>()
            .kind::<ReplicaSet>()
            .kind::<Pod>()
            .kind::<Node>()
            .kind::<ConfigMap>()
            .kind::<Namespace>();
        let (cache, driver) = builder.build(store, Keyspace::default());
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let looking = look(name, cache.clone(), Arc::clone(&samples));
        Self {
            name,
            cache,
            samples,
            tasks: [tokio::spawn(driver.run()), tokio::spawn(looking)],
        }
    }

    /// The probe's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The cache's revision.
    pub fn revision(&self) -> Revision {
        self.cache.revision()
    }

    /// What the cache holds now.
    pub fn sample(&self) -> Sample {
        sample(self.name, &self.cache)
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn look(name: &'static str, cache: Cache, samples: Arc<Mutex<Vec<Sample>>>) {
    let mut seen = 0;
    loop {
        cache.wait_for(Revision(seen + 1)).await;
        let sample = sample(name, &cache);
        seen = sample.revision;
        samples.lock().push(sample);
        sleep(EVERY).await;
    }
}

fn sample(name: &'static str, cache: &Cache) -> Sample {
    fn rows<T>(
        keys: &mut BTreeMap<String, i64>,
        table: &Table<T>,
        name: impl Fn(&ObjectKey) -> String,
    ) {
        keys.extend(table.entries().map(|(k, e)| (name(k), e.mod_revision())));
    }
    fn kind<K: Kind>(
        keys: &mut BTreeMap<String, i64>,
        view: &setpoint_runtime::cache::View<'_>,
        space: &Keyspace,
    ) {
        let plural = K::PLURAL;
        rows(keys, view.desired::<K>(), |k| {
            space.build(&Key::Desired(plural, k.clone()))
        });
        rows(keys, view.actual::<K>(), |k| {
            space.build(&Key::Actual(plural, k.clone()))
        });
    }
    let space = cache.keyspace();
    let view = cache.view();
    let mut keys = BTreeMap::new();
    kind::<Deployment>(&mut keys, &view, space);
    kind::<ReplicaSet>(&mut keys, &view, space);
    kind::<Pod>(&mut keys, &view, space);
    kind::<Node>(&mut keys, &view, space);
    kind::<ConfigMap>(&mut keys, &view, space);
    kind::<Namespace>(&mut keys, &view, space);
    rows(&mut keys, view.node_alive(), |k| {
        space.build(&Key::NodeAlive(&k.name))
    });
    rows(&mut keys, view.node_status(), |k| {
        space.build(&Key::NodeStatus(&k.name))
    });
    rows(&mut keys, view.health(), |k| {
        space.build(&Key::Health(&k.name))
    });
    rows(&mut keys, view.bindings(), |k| {
        space.build(&Key::Binding(k.clone()))
    });
    for node in view.nodes_with_pods() {
        if let Some(pods) = view.pods_on(node) {
            rows(&mut keys, pods, |k| {
                space.build(&Key::NodePod(node, k.clone()))
            });
        }
    }
    for plural in KINDS {
        if let Some(deletions) = view.deletions(plural) {
            rows(&mut keys, deletions, |k| {
                space.build(&Key::Deletion(plural, k.clone()))
            });
        }
    }
    Sample {
        cache: name,
        revision: view.revision().0,
        keys,
    }
}
