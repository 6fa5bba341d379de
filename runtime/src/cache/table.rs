//! One typed table of the cache: the documents of one kind under one tree.

use std::any::Any;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;
use std::sync::Arc;

use setpoint_apis::ObjectKey;
use setpoint_apis::stored::{Entry, Invalid, Stored};
use setpoint_store::KeyValue;

/// The documents of one kind, in key order.
#[derive(Debug)]
pub struct Table<T> {
    entries: BTreeMap<ObjectKey, Entry<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }
}

impl<T> Table<T> {
    /// What is held under a key; `None` only when the key does not exist in etcd.
    pub fn entry(&self, key: &ObjectKey) -> Option<&Entry<T>> {
        self.entries.get(key)
    }

    /// The document under a key, when it exists and parses.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Stored<T>>> {
        self.entries.get(key).and_then(Entry::valid)
    }

    /// Whether the key exists in etcd, whatever its document looks like.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.entries.contains_key(key)
    }

    /// All entries, in key order.
    pub fn entries(&self) -> btree_map::Iter<'_, ObjectKey, Entry<T>> {
        self.entries.iter()
    }

    /// All documents that parse, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Stored<T>>)> {
        self.entries
            .iter()
            .filter_map(|(k, e)| Some((k, e.valid()?)))
    }

    /// The entries of one namespace, in key order.
    pub fn namespace<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Entry<T>)> {
        let first = ObjectKey::namespaced(namespace, "");
        self.entries
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(move |(k, _)| &*k.namespace == namespace)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// How a table reads its documents.
pub(super) type Decode<T> = Box<dyn Fn(&ObjectKey, &[u8]) -> Result<T, String> + Send + Sync>;

/// A decoded document on its way into a table of a type that only the table knows.
pub(super) type Decoded = Box<dyn Any + Send>;

/// A table with its decoder, as the cache handles it.
///
/// Decoding is apart from putting so that it happens outside the cache's lock.
pub(super) trait AnyTable: Send + Sync {
    fn decoder(&self) -> Arc<dyn Decoder>;
    /// Returns whether anything changed.
    fn put(&mut self, key: &ObjectKey, decoded: Decoded) -> bool;
    fn delete(&mut self, key: &ObjectKey) -> bool;
    fn mod_revision(&self, key: &ObjectKey) -> Option<i64>;
    fn keys(&self) -> Vec<ObjectKey>;
    fn len(&self) -> usize;
    fn invalid(&self) -> Vec<(ObjectKey, Arc<Invalid>)>;
    fn as_any(&self) -> &dyn Any;
}

pub(super) trait Decoder: Send + Sync {
    fn decode(&self, row: &ObjectKey, kv: &KeyValue) -> Decoded;
}

pub(super) struct TypedTable<T> {
    table: Table<T>,
    decoder: Arc<dyn Decoder>,
}

impl<T: Send + Sync + 'static> TypedTable<T> {
    pub(super) fn new(decode: Decode<T>) -> Self {
        Self {
            table: Table::default(),
            decoder: Arc::new(TypedDecoder(decode)),
        }
    }
}

struct TypedDecoder<T>(Decode<T>);

impl<T: Send + Sync + 'static> Decoder for TypedDecoder<T> {
    fn decode(&self, row: &ObjectKey, kv: &KeyValue) -> Decoded {
        let result: Result<Arc<Stored<T>>, Arc<Invalid>> = match (self.0)(row, &kv.value) {
            Ok(value) => Ok(Arc::new(Stored {
                value,
                create_revision: kv.create_revision,
                mod_revision: kv.mod_revision,
                version: kv.version,
            })),
            Err(message) => Err(Arc::new(Invalid {
                mod_revision: kv.mod_revision,
                message,
            })),
        };
        Box::new(result)
    }
}

impl<T: Send + Sync + 'static> AnyTable for TypedTable<T> {
    fn decoder(&self) -> Arc<dyn Decoder> {
        self.decoder.clone()
    }

    fn put(&mut self, key: &ObjectKey, decoded: Decoded) -> bool {
        let decoded = decoded
            .downcast::<Result<Arc<Stored<T>>, Arc<Invalid>>>()
            .expect("the decoder of a table makes what the table holds");
        let entry = self.table.entries.entry(key.clone()).or_default();
        match *decoded {
            Ok(stored) => {
                if entry.invalid().is_none() && entry.mod_revision() >= stored.mod_revision {
                    return false;
                }
                *entry = Entry::good(stored);
            }
            Err(invalid) => {
                if entry.mod_revision() >= invalid.mod_revision {
                    return false;
                }
                *entry = std::mem::take(entry).frozen(invalid);
            }
        }
        true
    }

    fn delete(&mut self, key: &ObjectKey) -> bool {
        self.table.entries.remove(key).is_some()
    }

    fn mod_revision(&self, key: &ObjectKey) -> Option<i64> {
        self.table.entries.get(key).map(Entry::mod_revision)
    }

    fn keys(&self) -> Vec<ObjectKey> {
        self.table.entries.keys().cloned().collect()
    }

    fn len(&self) -> usize {
        self.table.len()
    }

    fn invalid(&self) -> Vec<(ObjectKey, Arc<Invalid>)> {
        self.table
            .entries
            .iter()
            .filter_map(|(k, e)| Some((k.clone(), e.invalid()?.clone())))
            .collect()
    }

    fn as_any(&self) -> &dyn Any {
        &self.table
    }
}
