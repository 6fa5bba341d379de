//! The ConfigMaps, Secrets and volume claims that this node was given.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};
use setpoint_apis::core::{ConfigMap, PersistentVolumeClaim, Secret};
use setpoint_apis::{Kind, ObjectKey};

/// What pods of this node may read. Cheap to read, shared by all pods.
#[derive(Debug, Default)]
pub struct Content {
    objects: RwLock<Objects>,
    claims: Mutex<()>,
}

#[derive(Debug, Default)]
struct Objects {
    config_maps: BTreeMap<ObjectKey, Arc<ConfigMap>>,
    secrets: BTreeMap<ObjectKey, Arc<Secret>>,
    claims: BTreeMap<ObjectKey, Arc<PersistentVolumeClaim>>,
}

impl Content {
    /// The ConfigMap, if it was given.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.objects
            .read()
            .config_maps
            .get(&ObjectKey::namespaced(namespace, name))
            .cloned()
    }

    /// The Secret, if it was given.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.objects
            .read()
            .secrets
            .get(&ObjectKey::namespaced(namespace, name))
            .cloned()
    }

    /// The volume claim, if it was given. Its metadata hold its uid.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.objects
            .read()
            .claims
            .get(&ObjectKey::namespaced(namespace, name))
            .cloned()
    }

    /// Held while the directory of a claim is chosen for a pod, and while directories of claims are given up.
    pub fn hold_claims(&self) -> MutexGuard<'_, ()> {
        self.claims.lock()
    }

    /// Takes a ConfigMap, or takes it away. Says whether that changed anything.
    pub fn put_config_map(&self, key: ObjectKey, value: Option<ConfigMap>) -> bool {
        replace(&mut self.objects.write().config_maps, key, value)
    }

    /// Takes a Secret, or takes it away. Says whether that changed anything.
    pub fn put_secret(&self, key: ObjectKey, value: Option<Secret>) -> bool {
        replace(&mut self.objects.write().secrets, key, value)
    }

    /// Takes a volume claim, or takes it away. Says whether that changed anything.
    pub fn put_claim(&self, key: ObjectKey, value: Option<PersistentVolumeClaim>) -> bool {
        replace(&mut self.objects.write().claims, key, value)
    }
}

fn replace<K: Kind>(
    map: &mut BTreeMap<ObjectKey, Arc<K>>,
    key: ObjectKey,
    value: Option<K>,
) -> bool {
    match value {
        Some(value) if map.get(&key).is_some_and(|old| **old == value) => false,
        Some(value) => {
            map.insert(key, Arc::new(value));
            true
        }
        None => map.remove(&key).is_some(),
    }
}
