//! Watchers: each has a queue of the changes it waits for, which its owner empties.
//!
//! A watcher that is up to date gets each change as it is made, so a compaction does not disturb it. One that lags (it
//! begins in the past, or its owner does not come) reads the history when it is asked, and fails when that is compacted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::api::{Event, EventType, FilterType, WatchCreateRequest};
use super::kv::{Change, Kv};
use super::range::KeyRange;

/// What a watcher is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatcherId(pub u64);

/// Whole revisions of changes, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Events {
    /// Everything up to this revision has been given out with these.
    pub revision: i64,
    /// The changes.
    pub events: Vec<Event>,
}

/// The changes that a watcher still needs are gone; the revision is the one that was compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("etcdserver: mvcc: required revision has been compacted")]
pub struct WatchCompacted(pub i64);

#[derive(Debug)]
struct Watcher {
    range: KeyRange,
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    /// Nothing before this revision is wanted.
    start: i64,
    queue: VecDeque<Arc<Change>>,
    /// From here on the history has to be read; the queue gets nothing new meanwhile.
    lags_from: Option<i64>,
    /// Whether its owner has been told that there is something.
    called: bool,
}

impl Watcher {
    fn wants(&self, change: &Change) -> bool {
        let filtered = if change.deleted {
            self.no_delete
        } else {
            self.no_put
        };
        !filtered && change.main >= self.start && self.range.contains(&change.kv.key)
    }
}

#[derive(Debug, Default)]
pub(super) struct Watchers {
    watchers: BTreeMap<u64, Watcher>,
    next: u64,
    ready: Vec<WatcherId>,
}

impl Watchers {
    pub(super) fn add(&mut self, kv: &Kv, request: &WatchCreateRequest) -> WatcherId {
        let id = WatcherId(self.next);
        self.next += 1;
        let start = match request.start_revision {
            0 => kv.revision + 1,
            revision => revision,
        };
        let key = if request.key.is_empty() {
            // The smallest key there can be.
            bytes::Bytes::from_static(b"\0")
        } else {
            request.key.clone()
        };
        let lags = start <= kv.revision;
        let watcher = Watcher {
            range: KeyRange::new(key, request.range_end.clone()),
            no_put: request.filters.contains(&(FilterType::NoPut as i32)),
            no_delete: request.filters.contains(&(FilterType::NoDelete as i32)),
            prev_kv: request.prev_kv,
            start,
            queue: VecDeque::new(),
            lags_from: lags.then_some(start),
            called: lags,
        };
        self.watchers.insert(id.0, watcher);
        if lags {
            self.ready.push(id);
        }
        id
    }

    pub(super) fn remove(&mut self, id: WatcherId) -> bool {
        self.watchers.remove(&id.0).is_some()
    }

    /// Hands a change to all that wait for it. A queue that is full leaves the rest to the history.
    pub(super) fn publish(&mut self, change: &Arc<Change>, queue_limit: usize) {
        for (id, watcher) in &mut self.watchers {
            if !watcher.wants(change) {
                continue;
            }
            match watcher.lags_from {
                Some(_) => {}
                // A revision is not torn: what follows of it belongs to the queue as well.
                None if watcher.queue.len() >= queue_limit
                    && watcher
                        .queue
                        .back()
                        .is_some_and(|last| last.main < change.main) =>
                {
                    watcher.lags_from = Some(change.main);
                }
                None => watcher.queue.push_back(Arc::clone(change)),
            }
            if !watcher.called {
                watcher.called = true;
                self.ready.push(WatcherId(*id));
            }
        }
    }

    /// Those that have got something since the last call, each once, until it is asked for it.
    pub(super) fn take_ready(&mut self) -> Vec<WatcherId> {
        std::mem::take(&mut self.ready)
    }

    /// The next whole revisions for a watcher, with at least `limit` events if there are so many; `None` when there is
    /// nothing, or no such watcher.
    pub(super) fn pull(
        &mut self,
        kv: &Kv,
        id: WatcherId,
        limit: usize,
        queue_limit: usize,
    ) -> Result<Option<Events>, WatchCompacted> {
        let Some(watcher) = self.watchers.get_mut(&id.0) else {
            return Ok(None);
        };
        watcher.called = false;
        if watcher.queue.is_empty()
            && let Some(from) = watcher.lags_from
        {
            if from < kv.compacted {
                return Err(WatchCompacted(kv.compacted));
            }
            watcher.lags_from = None;
            for change in kv.changes_since(from) {
                let next_revision = watcher
                    .queue
                    .back()
                    .is_some_and(|last| last.main < change.main);
                if watcher.queue.len() >= queue_limit && next_revision {
                    watcher.lags_from = Some(change.main);
                    break;
                }
                if watcher.wants(change) {
                    watcher.queue.push_back(Arc::clone(change));
                }
            }
        }
        let mut events = Events::default();
        while let Some(change) = watcher.queue.front() {
            if events.events.len() >= limit.max(1) && change.main > events.revision {
                break;
            }
            events.revision = change.main;
            events.events.push(event(kv, change, watcher.prev_kv));
            watcher.queue.pop_front();
        }
        if events.events.is_empty() {
            return Ok(None);
        }
        if let Some(next) = watcher.queue.front() {
            events.revision = events.revision.max(next.main - 1);
            call(&mut self.ready, watcher, id);
        } else if let Some(from) = watcher.lags_from {
            events.revision = events.revision.max(from - 1);
            call(&mut self.ready, watcher, id);
        } else {
            events.revision = events.revision.max(kv.revision);
        }
        Ok(Some(events))
    }

    /// The revision up to which a watcher has got everything; `None` while something waits for it, or it has not begun.
    pub(super) fn progress(&self, kv: &Kv, id: WatcherId) -> Option<i64> {
        let watcher = self.watchers.get(&id.0)?;
        let current = watcher.queue.is_empty()
            && watcher.lags_from.is_none()
            && watcher.start <= kv.revision + 1;
        current.then_some(kv.revision)
    }
}

fn call(ready: &mut Vec<WatcherId>, watcher: &mut Watcher, id: WatcherId) {
    if !watcher.called {
        watcher.called = true;
        ready.push(id);
    }
}

fn event(kv: &Kv, change: &Change, prev_kv: bool) -> Event {
    let created = !change.deleted && change.kv.create_revision == change.kv.mod_revision;
    // The change itself has taken the place of what a compaction would have kept, so this never finds too old a one.
    let prev_kv = (prev_kv && !created)
        .then(|| kv.at(&change.kv.key, change.main - 1))
        .flatten()
        .map(|change| change.kv.clone());
    Event {
        r#type: if change.deleted {
            EventType::Delete
        } else {
            EventType::Put
        }
        .into(),
        kv: Some(change.kv.clone()),
        prev_kv,
    }
}
