//! A mirror of a stream: one writer, many cheap readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use parking_lot::RwLock;
use setpoint_apis::ObjectKey;
use setpoint_store::Revision;
use tokio::sync::watch;

use super::{KindEvent, Object, WatchError};
use crate::cache::{Invalid, Stored};

/// The stream that fed a [`Reader`] was dropped before its first listing was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream was dropped before its first listing was complete")]
pub struct StreamDropped;

/// Mirrors what a stream tells of, and passes it on.
///
/// # Guarantees
/// What is read is up to date with the events that have been taken from the returned stream: it moves only while that
/// is polled. A listing becomes visible in one step when it is complete, so that nothing vanishes for a moment and comes
/// back. Before the first one is complete a reader is empty; [`Reader::ready`] says when it may be trusted.
pub fn reflector<T: Send + Sync + 'static>(
    stream: impl Stream<Item = Result<KindEvent<T>, WatchError>> + Send + 'static,
) -> (
    Reader<T>,
    impl Stream<Item = Result<KindEvent<T>, WatchError>> + Send + 'static,
) {
    let shared = Arc::new(Shared {
        rows: RwLock::default(),
    });
    let (revision, ready) = watch::channel(Revision(0));
    let mut writer = Writer {
        shared: shared.clone(),
        listing: None,
        revision,
    };
    let stream = stream.inspect(move |event| {
        if let Ok(event) = event {
            writer.apply(event);
        }
    });
    (Reader { shared, ready }, stream)
}

struct Shared<T> {
    rows: RwLock<BTreeMap<ObjectKey, Row<T>>>,
}

struct Row<T> {
    last_good: Option<Arc<Stored<T>>>,
    invalid: Option<Arc<Invalid>>,
}

struct Writer<T> {
    shared: Arc<Shared<T>>,
    /// The listing in progress, built aside.
    listing: Option<BTreeMap<ObjectKey, Row<T>>>,
    revision: watch::Sender<Revision>,
}

impl<T> Writer<T> {
    fn apply(&mut self, event: &KindEvent<T>) {
        let (key, row) = match event {
            KindEvent::Init => {
                self.listing = Some(BTreeMap::new());
                return;
            }
            KindEvent::InitDone(revision) => {
                if let Some(listing) = self.listing.take() {
                    *self.shared.rows.write() = listing;
                }
                self.revision.send_replace(*revision);
                return;
            }
            KindEvent::Delete { key, .. } => {
                // A listing in progress does not name it anyway.
                if self.listing.is_none() {
                    self.shared.rows.write().remove(key);
                }
                return;
            }
            KindEvent::InitApply(object) | KindEvent::Apply(object) => (
                &object.key,
                Row {
                    last_good: Some(object.stored.clone()),
                    invalid: None,
                },
            ),
            KindEvent::Invalid {
                key,
                invalid,
                last_good,
            } => (
                key,
                Row {
                    last_good: last_good.clone(),
                    invalid: Some(invalid.clone()),
                },
            ),
        };
        match &mut self.listing {
            Some(listing) => drop(listing.insert(key.clone(), row)),
            None => drop(self.shared.rows.write().insert(key.clone(), row)),
        }
    }
}

/// Reads what a stream has told of. Cheap to clone. What is read may be old by the time it is used.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    ready: watch::Receiver<Revision>,
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            ready: self.ready.clone(),
        }
    }
}

impl<T> Reader<T> {
    /// Waits until the first listing is complete.
    ///
    /// # Errors
    /// [`StreamDropped`] when that can no longer happen.
    pub async fn ready(&self) -> Result<(), StreamDropped> {
        self.ready
            .clone()
            .wait_for(|revision| revision.0 > 0)
            .await
            .map(drop)
            .map_err(|_| StreamDropped)
    }

    /// The object, when it exists and is readable.
    pub fn get(&self, key: &ObjectKey) -> Option<Object<T>> {
        let rows = self.shared.rows.read();
        let row = rows.get(key).filter(|row| row.invalid.is_none())?;
        row.last_good.as_ref().map(|stored| Object {
            key: key.clone(),
            stored: stored.clone(),
        })
    }

    /// The last version of the object that parsed, though the present one may not.
    pub fn last_good(&self, key: &ObjectKey) -> Option<Object<T>> {
        let rows = self.shared.rows.read();
        rows.get(key)?.last_good.as_ref().map(|stored| Object {
            key: key.clone(),
            stored: stored.clone(),
        })
    }

    /// Whether the object exists, readable or not. Only what this denies may be treated as absent.
    pub fn contains(&self, key: &ObjectKey) -> bool {
        self.shared.rows.read().contains_key(key)
    }

    /// All readable objects, in key order.
    pub fn state(&self) -> Vec<Object<T>> {
        let rows = self.shared.rows.read();
        let readable = rows.iter().filter(|(_, row)| row.invalid.is_none());
        readable
            .filter_map(|(key, row)| {
                Some(Object {
                    key: key.clone(),
                    stored: row.last_good.clone()?,
                })
            })
            .collect()
    }

    /// The first readable object, in key order, that fits.
    pub fn find(&self, fits: impl Fn(&Stored<T>) -> bool) -> Option<Object<T>> {
        let rows = self.shared.rows.read();
        rows.iter()
            .filter(|(_, row)| row.invalid.is_none())
            .find_map(|(key, row)| {
                let stored = row.last_good.as_ref().filter(|stored| fits(stored))?;
                Some(Object {
                    key: key.clone(),
                    stored: stored.clone(),
                })
            })
    }

    /// The objects that cannot be read, and why.
    pub fn invalid(&self) -> Vec<(ObjectKey, Arc<Invalid>)> {
        let rows = self.shared.rows.read();
        rows.iter()
            .filter_map(|(key, row)| Some((key.clone(), row.invalid.clone()?)))
            .collect()
    }

    /// How many objects exist, readable or not.
    pub fn len(&self) -> usize {
        self.shared.rows.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
