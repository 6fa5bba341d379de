//! Combinators that know what the events mean.

use std::collections::HashMap;

use futures::{Stream, StreamExt, future};
use setpoint_apis::ObjectKey;

use super::reflector::{Reader, reflector};
use super::{KindEvent, Object, WatchError};

/// Combinators for streams of [`KindEvent`]s. Errors pass through all of them.
pub trait KindStreamExt<T: Send + Sync + 'static>:
    Stream<Item = Result<KindEvent<T>, WatchError>> + Send + Sized + 'static
{
    /// The objects as they are listed, created and changed. Some come again after a watch could not be resumed.
    fn applied_objects(self) -> impl Stream<Item = Result<Object<T>, WatchError>> + Send + 'static {
        self.filter_map(|event| {
            future::ready(match event {
                Ok(KindEvent::Apply(object) | KindEvent::InitApply(object)) => Some(Ok(object)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
        })
    }

    /// The last versions of objects that were deleted. Those that were never readable are left out.
    fn deleted_objects(self) -> impl Stream<Item = Result<Object<T>, WatchError>> + Send + 'static {
        self.filter_map(|event| {
            future::ready(match event {
                Ok(KindEvent::Delete {
                    key,
                    last_good: Some(stored),
                }) => Some(Ok(Object { key, stored })),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
        })
    }

    /// The objects that were listed, created, changed or deleted, in the last version that parsed.
    fn touched_objects(self) -> impl Stream<Item = Result<Object<T>, WatchError>> + Send + 'static {
        self.filter_map(|event| {
            future::ready(match event {
                Ok(KindEvent::Apply(object) | KindEvent::InitApply(object)) => Some(Ok(object)),
                Ok(
                    KindEvent::Delete {
                        key,
                        last_good: Some(stored),
                    }
                    | KindEvent::Invalid {
                        key,
                        last_good: Some(stored),
                        ..
                    },
                ) => Some(Ok(Object { key, stored })),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
        })
    }

    /// The keys of objects that something happened to, readable or not: what a work queue wants.
    fn touched_keys(self) -> impl Stream<Item = Result<ObjectKey, WatchError>> + Send + 'static {
        self.filter_map(|event| {
            future::ready(match event {
                Ok(KindEvent::Apply(object) | KindEvent::InitApply(object)) => Some(Ok(object.key)),
                Ok(KindEvent::Delete { key, .. } | KindEvent::Invalid { key, .. }) => Some(Ok(key)),
                Ok(KindEvent::Init | KindEvent::InitDone(_)) => None,
                Err(error) => Some(Err(error)),
            })
        })
    }

    /// Leaves out versions of an object for which `predicate` gives the same number as for the one before; see
    /// [`predicates`](super::predicates). Deletions, invalid documents and brackets pass.
    ///
    /// A listing comes through with gaps, so a [`reflector`] belongs before this, not after it.
    fn predicate_filter(
        self,
        predicate: impl Fn(&Object<T>) -> u64 + Send + 'static,
    ) -> impl Stream<Item = Result<KindEvent<T>, WatchError>> + Send + 'static {
        // Bounded by the objects that exist: what is deleted is forgotten.
        let mut seen = HashMap::<ObjectKey, u64>::new();
        self.filter(move |event| {
            future::ready(match event {
                Ok(KindEvent::Apply(object) | KindEvent::InitApply(object)) => {
                    let number = predicate(object);
                    seen.insert(object.key.clone(), number) != Some(number)
                }
                Ok(KindEvent::Delete { key, .. } | KindEvent::Invalid { key, .. }) => {
                    seen.remove(key);
                    true
                }
                Ok(KindEvent::Init | KindEvent::InitDone(_)) | Err(_) => true,
            })
        })
    }

    /// Mirrors the stream; see [`reflector`].
    fn reflect(
        self,
    ) -> (
        Reader<T>,
        impl Stream<Item = Result<KindEvent<T>, WatchError>> + Send + 'static,
    ) {
        reflector(self)
    }
}

impl<T, S> KindStreamExt<T> for S
where
    T: Send + Sync + 'static,
    S: Stream<Item = Result<KindEvent<T>, WatchError>> + Send + Sized + 'static,
{
}
