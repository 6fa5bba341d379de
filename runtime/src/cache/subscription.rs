//! Who wants to know what changed. A subscriber gets the set of keys that changed since it last asked, not their
//! history: it reads the present state from a [`View`](super::View), so a slow one never makes a queue grow.

use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::sync::Notify;

use super::StateKey;
use setpoint_store::watched::Watcher;

/// What changed since the subscriber last asked.
#[derive(Debug, Default)]
pub struct Changes {
    /// Everything may have changed: look at the whole state, which is what `keys` would name. Set once, at the beginning.
    pub resync: bool,
    /// The keys, in the order in which they first changed. Empty with `resync`.
    pub keys: Vec<StateKey>,
}

type Interest = Box<dyn Fn(&StateKey) -> bool + Send + Sync>;

pub(super) struct Mailbox {
    interest: Interest,
    pending: Mutex<Pending>,
    notify: Notify,
}

#[derive(Default)]
struct Pending {
    resync: bool,
    keys: Vec<StateKey>,
    known: FxHashSet<StateKey>,
}

impl Mailbox {
    pub(super) fn new(interest: Interest) -> Arc<Self> {
        let pending = Pending {
            resync: true,
            ..Pending::default()
        };
        Arc::new(Self {
            interest,
            pending: Mutex::new(pending),
            notify: Notify::new(),
        })
    }

    pub(super) fn post(&self, keys: &[StateKey], wake: bool) {
        let mut pending = self.pending.lock();
        let before = pending.keys.len();
        // Whoever is to look at everything needs no list of it, and the first listing can be long.
        let keys = if pending.resync { &[] } else { keys };
        for key in keys {
            if (self.interest)(key) && pending.known.insert(key.clone()) {
                pending.keys.push(key.clone());
            }
        }
        let woke = wake || pending.keys.len() > before;
        drop(pending);
        if woke {
            self.notify.notify_one();
        }
    }
}

/// A subscription to changes of the cache. Dropping it ends it.
pub struct Subscription {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) ready: Watcher<i64>,
}

impl Subscription {
    /// Waits until something of interest changed, and takes it. The first answer comes when the cache has been filled,
    /// with `resync` set. What is returned is already in the cache.
    ///
    /// Cancel safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Changes {
        loop {
            if self.ready.get() > 0
                && let Some(changes) = self.try_next()
            {
                return changes;
            }
            self.mailbox.notify.notified().await;
        }
    }

    /// Takes what changed so far, without waiting.
    pub fn try_next(&mut self) -> Option<Changes> {
        let mut pending = self.mailbox.pending.lock();
        if !pending.resync && pending.keys.is_empty() {
            return None;
        }
        let taken = std::mem::take(&mut *pending);
        Some(Changes {
            resync: taken.resync,
            keys: taken.keys,
        })
    }
}
