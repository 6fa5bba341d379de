//! The node's work tree, mirrored: pods and tombstones into the state, content into what pods read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::core::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use setpoint_apis::keyspace::uid_name;
use setpoint_apis::records::{StopOrder, Tombstone};
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};
use setpoint_store::KeyValue;
use tracing::warn;

use super::disk::{Disk, SavedContent};
use super::state::{Grave, State, Work};
use crate::content::Content;

/// Keys that a listing has named.
#[derive(Default)]
pub(crate) struct Named {
    pods: BTreeSet<ObjectKey>,
    stops: BTreeSet<ObjectKey>,
    content: BTreeSet<(String, ObjectKey)>,
    tombstones: BTreeSet<String>,
}

/// Applies changes of the work tree.
pub(crate) struct WorkTree {
    keyspace: Keyspace,
    /// The mod revisions of content, so that a fresh listing of the same changes nothing.
    content_revisions: BTreeMap<(String, ObjectKey), i64>,
    content: Arc<Content>,
}

impl WorkTree {
    pub(crate) fn new(keyspace: Keyspace, content: Arc<Content>) -> Self {
        Self {
            keyspace,
            content_revisions: BTreeMap::new(),
            content,
        }
    }

    /// Takes up the content that the disk copy has.
    pub(crate) fn restore(&mut self, saved: Vec<SavedContent>) {
        for item in saved {
            let key = ObjectKey::namespaced(item.namespace, item.name);
            // No revision: the first listing brings the present one.
            self.content_revisions
                .insert((item.plural.clone(), key.clone()), 0);
            self.decode_content(&item.plural, &key, item.document.as_bytes());
        }
    }

    /// A key was written. Returns whether content changed.
    pub(crate) fn put(
        &mut self,
        state: &mut State,
        disk: &Disk,
        kv: &KeyValue,
        named: Option<&mut Named>,
    ) -> bool {
        match self.keyspace.split(&kv.key) {
            Ok(Key::WorkPod(_, key)) => {
                if let Some(named) = named {
                    named.pods.insert(key.clone());
                }
                self.put_pod(state, key, kv);
                false
            }
            Ok(Key::WorkStop(_, key)) => {
                if let Some(named) = named {
                    named.stops.insert(key.clone());
                }
                match document::decode_value::<StopOrder>(&kv.value) {
                    Ok(order) => drop(state.stops.insert(key, order)),
                    // Then it is stopped within its own grace period.
                    Err(error) => {
                        warn!(object = %key, error = &error as &dyn std::error::Error, "an order to stop that does not parse");
                        state.stops.remove(&key);
                    }
                }
                false
            }
            Ok(Key::WorkContent(_, plural, key)) => {
                if let Some(named) = named {
                    named.content.insert((plural.to_owned(), key.clone()));
                }
                self.put_content(disk, plural, key, kv)
            }
            Ok(Key::WorkTombstone(_, name)) => {
                if let Some(named) = named {
                    named.tombstones.insert(name.to_owned());
                }
                put_tombstone(state, name, kv);
                false
            }
            _ => false,
        }
    }

    /// A key was deleted. Returns whether content changed.
    pub(crate) fn delete(&mut self, state: &mut State, disk: &Disk, key: &str) -> bool {
        match self.keyspace.split(key) {
            Ok(Key::WorkPod(_, key)) => {
                state.work.remove(&key);
                state.frozen.remove(&key);
                false
            }
            Ok(Key::WorkStop(_, key)) => {
                state.stops.remove(&key);
                false
            }
            Ok(Key::WorkContent(_, plural, key)) => self.delete_content(disk, plural, &key),
            Ok(Key::WorkTombstone(_, name)) => {
                state.tombstones.remove(name);
                false
            }
            _ => false,
        }
    }

    /// A listing is complete: what it did not name is gone. Returns whether content changed.
    pub(crate) fn listed(&mut self, state: &mut State, disk: &Disk, named: &Named) -> bool {
        state.work.retain(|key, _| named.pods.contains(key));
        state.frozen.retain(|key| named.pods.contains(key));
        state.stops.retain(|key, _| named.stops.contains(key));
        state
            .tombstones
            .retain(|name, _| named.tombstones.contains(name));
        let gone: Vec<_> = self
            .content_revisions
            .keys()
            .filter(|id| !named.content.contains(id))
            .cloned()
            .collect();
        for (plural, key) in &gone {
            self.delete_content(disk, plural, key);
        }
        !gone.is_empty()
    }

    fn put_pod(&self, state: &mut State, key: ObjectKey, kv: &KeyValue) {
        let decoded = document::split_work(&kv.value).and_then(|(header, pod)| {
            Ok((
                document::decode_value(header)?,
                document::decode_keyed::<Pod>(&key, pod)?,
            ))
        });
        match decoded {
            Ok((header, pod)) => {
                state.frozen.remove(&key);
                let work = Work {
                    mod_revision: kv.mod_revision,
                    header,
                    pod: Arc::new(pod),
                    text: Arc::from(String::from_utf8_lossy(&kv.value)),
                };
                state.work.insert(key, work);
            }
            Err(error) => {
                warn!(object = %key, error = &error as &dyn std::error::Error, "work that does not parse; what runs of it stays as it is");
                state.frozen.insert(key);
            }
        }
    }

    fn put_content(&mut self, disk: &Disk, plural: &str, key: ObjectKey, kv: &KeyValue) -> bool {
        let id = (plural.to_owned(), key.clone());
        if self.content_revisions.insert(id, kv.mod_revision) == Some(kv.mod_revision) {
            return false;
        }
        let document = match document::split_work(&kv.value) {
            Ok((_, document)) => document,
            Err(error) => {
                warn!(object = %key, plural, error = &error as &dyn std::error::Error, "content that does not parse; the last good one stays");
                return false;
            }
        };
        let changed = self.decode_content(plural, &key, document);
        if changed {
            let saved = SavedContent {
                plural: plural.to_owned(),
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                document: String::from_utf8_lossy(document).into_owned(),
            };
            if let Err(error) = disk.save_content(&saved) {
                warn!(object = %key, plural, error = &error as &dyn std::error::Error, "content is not in the disk copy");
            }
        }
        changed
    }

    fn decode_content(&mut self, plural: &str, key: &ObjectKey, document: &[u8]) -> bool {
        fn read<K: Kind>(key: &ObjectKey, document: &[u8]) -> Option<K> {
            document::decode_keyed(key, document)
                .map_err(|error| {
                    warn!(object = %key, kind = K::KIND, error = &error as &dyn std::error::Error, "content that does not parse; the last good one stays");
                })
                .ok()
        }
        match plural {
            ConfigMap::PLURAL => read(key, document)
                .is_some_and(|object| self.content.put_config_map(key.clone(), Some(object))),
            Secret::PLURAL => read(key, document)
                .is_some_and(|object| self.content.put_secret(key.clone(), Some(object))),
            PersistentVolumeClaim::PLURAL => read(key, document)
                .is_some_and(|object| self.content.put_claim(key.clone(), Some(object))),
            _ => false,
        }
    }

    fn delete_content(&mut self, disk: &Disk, plural: &str, key: &ObjectKey) -> bool {
        self.content_revisions
            .remove(&(plural.to_owned(), key.clone()));
        if let Err(error) = disk.drop_content(plural, key) {
            warn!(object = %key, plural, error = &error as &dyn std::error::Error, "content stays in the disk copy");
        }
        match plural {
            ConfigMap::PLURAL => self.content.put_config_map(key.clone(), None),
            Secret::PLURAL => self.content.put_secret(key.clone(), None),
            PersistentVolumeClaim::PLURAL => self.content.put_claim(key.clone(), None),
            _ => false,
        }
    }
}

/// One that does not parse, or is about another claim than its name says, is left alone: files are deleted for it.
fn put_tombstone(state: &mut State, name: &str, kv: &KeyValue) {
    let known = state.tombstones.get(name);
    if known.is_some_and(|grave| grave.revision == kv.mod_revision) {
        return;
    }
    match document::decode_value::<Tombstone>(&kv.value) {
        Ok(tombstone) if uid_name(&tombstone.uid) == name => {
            let grave = Grave {
                revision: kv.mod_revision,
                tombstone,
                obeyed: false,
            };
            state.tombstones.insert(name.to_owned(), grave);
        }
        Ok(tombstone) => {
            warn!(
                key = kv.key,
                uid = tombstone.uid,
                "a tombstone of another uid than its key says; it is left alone"
            );
            state.tombstones.remove(name);
        }
        Err(error) => {
            warn!(
                key = kv.key,
                error = &error as &dyn std::error::Error,
                "a tombstone that does not parse; it is left alone"
            );
            state.tombstones.remove(name);
        }
    }
}
