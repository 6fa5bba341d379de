//! The cache: one ordered watch over the four state trees, typed, consistent.
//!
//! A process keeps one. Every reader sees all kinds at one revision; a document that does not parse is present and
//! frozen with its last good version, and disturbs nobody else's.

mod listing;
mod state;
mod subscription;
mod table;
mod view;

use std::sync::Arc;

use futures::StreamExt;
use parking_lot::RwLock;
use setpoint_apis::{Key, Keyspace, Kind};
use setpoint_store::watched::Watched;
use setpoint_store::{EventKind, Revision, SharedStore};
use tracing::{debug, warn};

use crate::watcher::{WatcherEvent, WatcherOptions, watcher};
use listing::Listing;
use state::{Place, State};
use subscription::Mailbox;

pub use setpoint_apis::stored::{Entry, Invalid, Stored};
pub use state::StateKey;
pub use subscription::{Changes, Subscription};
pub use table::Table;
pub use view::View;

/// Names the kinds that a cache holds.
pub struct CacheBuilder {
    state: State,
    options: WatcherOptions,
}

impl Default for CacheBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl CacheBuilder {
    /// A cache of no kinds: nodes, bindings and health are always held.
    pub fn new() -> Self {
        Self {
            state: State::new(),
            options: WatcherOptions::default(),
        }
    }

    /// Holds a kind: ours or a user's own.
    #[must_use]
    pub fn kind<K: Kind>(mut self) -> Self {
        self.state.register::<K>();
        self
    }

    /// How the watch lists and retries.
    #[must_use]
    pub fn options(mut self, options: WatcherOptions) -> Self {
        self.options = options;
        self
    }

    /// Makes the cache, and the driver that fills it: spawn the driver.
    pub fn build(self, store: SharedStore, keyspace: Keyspace) -> (Cache, CacheDriver) {
        let cache = Cache {
            inner: Arc::new(Inner {
                state: RwLock::new(self.state),
                mailboxes: RwLock::default(),
                revision: Watched::new(0),
                keyspace,
            }),
        };
        let driver = CacheDriver {
            cache: cache.clone(),
            store,
            options: self.options,
        };
        (cache, driver)
    }
}

/// A handle to the cache; cheap to clone.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

struct Inner {
    state: RwLock<State>,
    mailboxes: RwLock<Vec<std::sync::Weak<Mailbox>>>,
    /// The revision of the cache; 0 until the first listing is complete.
    revision: Watched<i64>,
    keyspace: Keyspace,
}

impl Cache {
    /// A consistent snapshot of everything. Before the first listing is complete it is empty and at revision 0.
    pub fn view(&self) -> View<'_> {
        View {
            state: self.inner.state.read(),
        }
    }

    /// The keyspace that the cache reads.
    pub fn keyspace(&self) -> &Keyspace {
        &self.inner.keyspace
    }

    /// Subscribes to changes of the keys that `interest` names.
    pub fn subscribe(
        &self,
        interest: impl Fn(&StateKey) -> bool + Send + Sync + 'static,
    ) -> Subscription {
        let mailbox = Mailbox::new(Box::new(interest));
        self.inner.mailboxes.write().push(Arc::downgrade(&mailbox));
        Subscription {
            mailbox,
            ready: self.inner.revision.watcher(),
        }
    }

    /// The cache's revision; 0 until the first listing is complete.
    pub fn revision(&self) -> Revision {
        Revision(self.inner.revision.get())
    }

    /// Waits until the cache has seen `revision`. Only the revision of a write into the state trees is sure to come
    /// soon; others come with the next change or progress notification.
    pub async fn wait_for(&self, revision: Revision) {
        self.inner
            .revision
            .wait_for(|seen| *seen >= revision.0)
            .await;
    }

    /// Waits until the first listing is complete.
    pub async fn ready(&self) {
        self.wait_for(Revision(1)).await;
    }
}

/// Fills a [`Cache`].
pub struct CacheDriver {
    cache: Cache,
    store: SharedStore,
    options: WatcherOptions,
}

impl CacheDriver {
    /// Follows the store for ever. Errors of the store are logged and retried; until then the cache stands still.
    pub async fn run(self) {
        let Self {
            cache,
            store,
            options,
        } = self;
        let mut stream = std::pin::pin!(watcher(store, cache.inner.keyspace.state(), options));
        let mut listing = Listing::default();
        while let Some(event) = stream.next().await {
            match event {
                Ok(WatcherEvent::Init) => listing = Listing::default(),
                Ok(WatcherEvent::InitPage(kvs)) => {
                    if listing.page(&cache.inner, kvs).await.is_err() {
                        return;
                    }
                }
                Ok(WatcherEvent::InitDone(revision)) => {
                    match std::mem::take(&mut listing).finish().await {
                        Ok(rows) => cache.inner.list_done(rows, revision),
                        Err(_) => return,
                    }
                }
                Ok(WatcherEvent::Batch(batch)) => cache.inner.apply(batch),
                Err(error) => warn!(
                    error = &error as &dyn std::error::Error,
                    "the watch of the state trees failed; trying again"
                ),
            }
        }
    }
}

impl Inner {
    fn apply(&self, batch: setpoint_store::WatchBatch) {
        let mut rows = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let Some(place) = self.place(&event.kv.key) else {
                continue;
            };
            let decoded = match event.kind {
                EventKind::Delete => None,
                EventKind::Put => {
                    let decoder = self.state.read().decoder(&place);
                    Some(decoder.decode(place.row(), &event.kv))
                }
            };
            rows.push((place, decoded));
        }
        let mut changed = Vec::with_capacity(rows.len());
        let mut state = self.state.write();
        for (place, decoded) in rows {
            let moved = match decoded {
                None => state.delete(&place),
                Some(decoded) => state.table_mut(&place).put(place.row(), decoded),
            };
            if moved {
                changed.push(place.state_key());
            }
        }
        state.revision = state.revision.max(batch.revision.0);
        self.publish(batch.revision, &changed, false);
        drop(state);
    }

    fn place(&self, key: &str) -> Option<Place> {
        match self.keyspace.split(key) {
            Ok(Key::Fleet(_)) => None,
            Ok(key) => self.state.read().locate(&key),
            Err(unknown) => {
                debug!(
                    key = unknown.key,
                    "skipped a key that is not part of the keyspace"
                );
                None
            }
        }
    }

    /// `wake_all`: also subscribers that nothing of interest changed for, because their first answer may be due.
    ///
    /// Called with the state locked: whoever holds a view finds every change that led to it in its mailbox already, so
    /// an index that a controller keeps from its subscription can be brought level with the view it decides on.
    fn publish(&self, revision: Revision, changed: &[StateKey], wake_all: bool) {
        // Only this moves it on, and under the state's lock.
        if revision.0 > self.revision.get() {
            self.revision.set(revision.0);
        }
        let mut dead = false;
        for mailbox in self.mailboxes.read().iter() {
            match mailbox.upgrade() {
                Some(mailbox) => mailbox.post(changed, wake_all),
                None => dead = true,
            }
        }
        if dead {
            self.mailboxes.write().retain(|m| m.strong_count() > 0);
        }
    }
}
