//! Streams of one kind, for those who want a part of the state and not a whole [`Cache`](crate::Cache).
//!
//! [`watch_kind`] follows the desired documents of a kind, [`watch_status`] their statuses. Both are ordinary
//! [`Stream`]s, so the combinators of `futures` work on them; [`KindStreamExt`] adds those that know what the events
//! mean, and [`reflector`] mirrors a stream into a [`Reader`].
//!
//! ```no_run
//! # use std::pin::pin;
//! # use futures::StreamExt;
//! # use setpoint_apis::{Keyspace, core::ConfigMap};
//! # use setpoint_runtime::streams::{KindStreamExt, WatchOptions, predicates, watch_kind};
//! # async fn example(store: setpoint_store::SharedStore) {
//! let (reader, events) = watch_kind::<ConfigMap>(store, Keyspace::default(), WatchOptions::default()).reflect();
//! let mut changed = pin!(events.predicate_filter(predicates::labels).applied_objects());
//! while let Some(next) = changed.next().await {
//!     match next {
//!         Ok(object) => println!("{} has other labels; there are {}", object.key, reader.len()),
//!         Err(error) => eprintln!("{error}"),
//!     }
//! }
//! # }
//! ```
//!
//! # Guarantees
//! - Events come in the order of revisions, and none is left out that leaves a trace: what was deleted while a watch
//!   could not be resumed (compaction) is told of when the listing that follows is complete.
//! - A document that does not parse is an event, not an error, and disturbs no other object. It carries the last version
//!   that parsed.
//! - A stream never ends. Errors of the store are told of in between, and are retried with backoff: an error is for
//!   logs, not a reason to give up.
//! - Memory is bounded by the objects themselves: a stream holds the last good version of each (shared with those who
//!   got it), and at most one page or batch of events.

mod ext;
pub mod predicates;
mod reflector;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use setpoint_apis::{Key, KeyRange, Keyspace, Kind, ObjectKey, document};
use setpoint_store::{EventKind, KeyValue, Revision, SharedStore, StoreError};
use tracing::debug;

use crate::cache::{Invalid, Stored};
use crate::watcher::{WatcherEvent, WatcherOptions, watcher};

pub use ext::KindStreamExt;
pub use reflector::{Reader, StreamDropped, reflector};

/// What to follow, and how.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// How the watch lists and retries.
    pub watcher: WatcherOptions,
}

/// A document under its key. Cheap to clone.
#[derive(Debug)]
pub struct Object<T> {
    /// The key.
    pub key: ObjectKey,
    /// The document, with what etcd keeps about its key.
    pub stored: Arc<Stored<T>>,
}

impl<T> Clone for Object<T> {
    fn clone(&self) -> Self {
        Self {
            key: self.key.clone(),
            stored: self.stored.clone(),
        }
    }
}

impl<T> Deref for Object<T> {
    type Target = Stored<T>;

    fn deref(&self) -> &Stored<T> {
        &self.stored
    }
}

/// What happened to the objects of a kind.
#[derive(Debug)]
pub enum KindEvent<T> {
    /// A listing begins. What was known stays valid until [`KindEvent::InitDone`].
    Init,
    /// An object of the listing.
    InitApply(Object<T>),
    /// The listing is complete as of this revision. What it did not name does not exist; what of that was known has been
    /// told of as [`KindEvent::Delete`] before this.
    InitDone(Revision),
    /// An object was created or changed.
    Apply(Object<T>),
    /// An object was deleted.
    Delete {
        /// Its key.
        key: ObjectKey,
        /// The last version that parsed, when there was one.
        last_good: Option<Arc<Stored<T>>>,
    },
    /// A document does not parse: the object exists, and nobody can say what it is. Also part of listings.
    Invalid {
        /// Its key.
        key: ObjectKey,
        /// What is wrong.
        invalid: Arc<Invalid>,
        /// The last version that parsed, when there was one.
        last_good: Option<Arc<Stored<T>>>,
    },
}

impl<T> Clone for KindEvent<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Init => Self::Init,
            Self::InitApply(object) => Self::InitApply(object.clone()),
            Self::InitDone(revision) => Self::InitDone(*revision),
            Self::Apply(object) => Self::Apply(object.clone()),
            Self::Delete { key, last_good } => Self::Delete {
                key: key.clone(),
                last_good: last_good.clone(),
            },
            Self::Invalid {
                key,
                invalid,
                last_good,
            } => Self::Invalid {
                key: key.clone(),
                invalid: invalid.clone(),
                last_good: last_good.clone(),
            },
        }
    }
}

/// The store failed. The watch goes on by itself.
#[derive(Debug, thiserror::Error)]
#[error("the watch of {plural} failed and is tried again")]
pub struct WatchError {
    /// The kind.
    pub plural: &'static str,
    /// What the store said.
    #[source]
    pub source: StoreError,
}

/// Follows the desired documents of a kind: ours or a user's own.
pub fn watch_kind<K: Kind>(
    store: SharedStore,
    keyspace: Keyspace,
    options: WatchOptions,
) -> impl Stream<Item = Result<KindEvent<K>, WatchError>> + Send + 'static {
    let range = keyspace.desired_range(K::PLURAL, options.namespace.as_deref());
    let mirror = Mirror::new(
        K::PLURAL,
        keyspace,
        |key| match key {
            Key::Desired(_, key) => Some(key),
            _ => None,
        },
        |key, bytes| document::decode_keyed(key, bytes).map_err(|e| e.to_string()),
    );
    follow(store, range, options, mirror)
}

/// Follows the statuses of a kind, which are written by its controller.
pub fn watch_status<K: Kind>(
    store: SharedStore,
    keyspace: Keyspace,
    options: WatchOptions,
) -> impl Stream<Item = Result<KindEvent<K::Status>, WatchError>> + Send + 'static {
    let range = keyspace.actual_range(K::PLURAL, options.namespace.as_deref());
    let mirror = Mirror::<K::Status>::new(K::PLURAL, keyspace, status_key, decode_status::<K>);
    follow(store, range, options, mirror)
}

fn status_key(key: Key<'_>) -> Option<ObjectKey> {
    match key {
        Key::Actual(_, key) => Some(key),
        _ => None,
    }
}

fn decode_status<K: Kind>(_: &ObjectKey, bytes: &[u8]) -> Result<K::Status, String> {
    K::status_from_document(bytes).map_err(|e| e.to_string())
}

fn follow<T: Send + Sync + 'static>(
    store: SharedStore,
    range: KeyRange,
    options: WatchOptions,
    mirror: Mirror<T>,
) -> impl Stream<Item = Result<KindEvent<T>, WatchError>> + Send + 'static {
    mirrored(watcher(store, range, options.watcher), mirror)
}

/// Turns keys and values into events of a kind.
fn mirrored<T: Send + Sync + 'static>(
    events: impl Stream<Item = Result<WatcherEvent, StoreError>> + Send + 'static,
    mut mirror: Mirror<T>,
) -> impl Stream<Item = Result<KindEvent<T>, WatchError>> + Send + 'static {
    events.flat_map(move |event| stream::iter(mirror.step(event)))
}

type KeyOf = for<'a> fn(Key<'a>) -> Option<ObjectKey>;
type Decode<T> = fn(&ObjectKey, &[u8]) -> Result<T, String>;

/// What a stream knows of its objects: enough to tell what vanished between two watches, and to pass the last good
/// version on.
struct Mirror<T> {
    plural: &'static str,
    keyspace: Keyspace,
    key_of: KeyOf,
    decode: Decode<T>,
    known: BTreeMap<ObjectKey, Known<T>>,
    /// The keys that the listing in progress has named.
    named: BTreeSet<ObjectKey>,
}

struct Known<T> {
    mod_revision: i64,
    last_good: Option<Arc<Stored<T>>>,
    invalid: Option<Arc<Invalid>>,
}

impl<T> Mirror<T> {
    fn new(plural: &'static str, keyspace: Keyspace, key_of: KeyOf, decode: Decode<T>) -> Self {
        Self {
            plural,
            keyspace,
            key_of,
            decode,
            known: BTreeMap::new(),
            named: BTreeSet::new(),
        }
    }

    fn step(
        &mut self,
        event: Result<WatcherEvent, StoreError>,
    ) -> Vec<Result<KindEvent<T>, WatchError>> {
        let mut out = Vec::new();
        match event {
            Err(source) => out.push(Err(WatchError {
                plural: self.plural,
                source,
            })),
            Ok(WatcherEvent::Init) => {
                self.named.clear();
                out.push(Ok(KindEvent::Init));
            }
            Ok(WatcherEvent::InitPage(kvs)) => {
                for kv in kvs {
                    let Some(key) = self.key(&kv.key) else {
                        continue;
                    };
                    self.named.insert(key.clone());
                    out.push(Ok(match self.put(&key, &kv) {
                        KindEvent::Apply(object) => KindEvent::InitApply(object),
                        other => other,
                    }));
                }
            }
            Ok(WatcherEvent::InitDone(revision)) => {
                let named = std::mem::take(&mut self.named);
                let vanished: Vec<ObjectKey> = self
                    .known
                    .keys()
                    .filter(|k| !named.contains(*k))
                    .cloned()
                    .collect();
                out.extend(
                    vanished
                        .into_iter()
                        .filter_map(|key| self.delete(key))
                        .map(Ok),
                );
                out.push(Ok(KindEvent::InitDone(revision)));
            }
            Ok(WatcherEvent::Batch(batch)) => {
                for event in batch.events {
                    let Some(key) = self.key(&event.kv.key) else {
                        continue;
                    };
                    match event.kind {
                        EventKind::Put => out.push(Ok(self.put(&key, &event.kv))),
                        EventKind::Delete => out.extend(self.delete(key).map(Ok)),
                    }
                }
            }
        }
        out
    }

    fn key(&self, key: &str) -> Option<ObjectKey> {
        let found = self.keyspace.split(key).ok().and_then(self.key_of);
        if found.is_none() {
            debug!(key, "skipped a key that names no object");
        }
        found
    }

    fn put(&mut self, key: &ObjectKey, kv: &KeyValue) -> KindEvent<T> {
        let known = self.known.entry(key.clone()).or_insert(Known {
            mod_revision: 0,
            last_good: None,
            invalid: None,
        });
        // A listing repeats what is known already: it is not decoded again.
        if known.mod_revision != kv.mod_revision {
            known.mod_revision = kv.mod_revision;
            match (self.decode)(key, &kv.value) {
                Ok(value) => {
                    known.last_good = Some(Arc::new(Stored {
                        value,
                        create_revision: kv.create_revision,
                        mod_revision: kv.mod_revision,
                        version: kv.version,
                    }));
                    known.invalid = None;
                }
                Err(message) => {
                    known.invalid = Some(Arc::new(Invalid {
                        mod_revision: kv.mod_revision,
                        message,
                    }))
                }
            }
        }
        match (&known.invalid, &known.last_good) {
            (None, Some(stored)) => KindEvent::Apply(Object {
                key: key.clone(),
                stored: stored.clone(),
            }),
            (Some(invalid), last_good) => KindEvent::Invalid {
                key: key.clone(),
                invalid: invalid.clone(),
                last_good: last_good.clone(),
            },
            (None, None) => unreachable!("a document parses or it does not"),
        }
    }

    fn delete(&mut self, key: ObjectKey) -> Option<KindEvent<T>> {
        let known = self.known.remove(&key)?;
        Some(KindEvent::Delete {
            key,
            last_good: known.last_good,
        })
    }
}

#[cfg(test)]
mod tests;
