//! Follows everything that is written, from the first revision on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use parking_lot::Mutex;
use setpoint_store::{EventKind, KeyValue, Revision, SharedStore, StoreError, Txn, WatchRequest};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::history::Change;

/// Outside of Setpoint's prefix, and inside of what is followed: written to learn that everything before has arrived.
const MARKER: &str = "/faults/marker";

/// Everything that is followed.
const RANGE: (&str, &str) = ("/", "0");

/// Setpoint's keys.
pub(super) const PREFIX: (&str, &str) = ("/setpoint/", "/setpoint0");

pub(super) struct Recorder {
    store: SharedStore,
    recorded: Arc<Mutex<Recorded>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Recorded {
    revision: i64,
    changes: Vec<Change>,
    /// What is there: create revision, version and lease, for the deletion.
    present: BTreeMap<String, (i64, i64, Option<i64>)>,
}

impl Recorder {
    /// Records what comes through `store`, a connection that no fault touches but the deaths of members.
    pub(super) fn start(store: SharedStore, started: Instant) -> Self {
        let recorded = Arc::<Mutex<Recorded>>::default();
        let task = tokio::spawn(follow(store.clone(), Arc::clone(&recorded), started));
        Self {
            store,
            recorded,
            task,
        }
    }

    /// Waits until everything that is in the store now is on record.
    pub(super) async fn catch_up(&self) {
        let revision = loop {
            match self.store.txn(Txn::new().put(MARKER, "")).await {
                Ok(done) => break done.revision.0,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        };
        while self.recorded.lock().revision < revision {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The changes under Setpoint's prefix.
    pub(super) fn changes(&self) -> Vec<Change> {
        self.recorded.lock().changes.clone()
    }

    /// The newest revision on record.
    pub(super) fn revision(&self) -> i64 {
        self.recorded.lock().revision
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(store: SharedStore, recorded: Arc<Mutex<Recorded>>, started: Instant) {
    loop {
        // A member may be gone; the connection moves on to the next one.
        if follow_once(&store, &recorded, started).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn follow_once(
    store: &SharedStore,
    recorded: &Mutex<Recorded>,
    started: Instant,
) -> Result<(), StoreError> {
    let from = Revision(recorded.lock().revision + 1);
    let request = WatchRequest {
        start: RANGE.0.to_owned(),
        end: RANGE.1.to_owned(),
        from: Some(from),
    };
    let mut stream = store.watch(request).await?;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let mut recorded = recorded.lock();
        for event in batch.events {
            recorded.enter(event.kind, event.kv, started.elapsed());
        }
        recorded.revision = recorded.revision.max(batch.revision.0);
    }
    Ok(())
}

impl Recorded {
    fn enter(&mut self, kind: EventKind, kv: KeyValue, at: Duration) {
        if kv.key.as_str() < PREFIX.0 || kv.key.as_str() >= PREFIX.1 {
            return;
        }
        let lease = kv.lease.map(|l| l.0);
        let change = match kind {
            EventKind::Put => {
                let now = (kv.create_revision, kv.version, lease);
                self.present.insert(kv.key.clone(), now);
                Change {
                    at,
                    revision: kv.mod_revision,
                    key: kv.key,
                    value: Some(kv.value),
                    create_revision: kv.create_revision,
                    version: kv.version,
                    lease,
                }
            }
            EventKind::Delete => {
                let (create_revision, version, lease) =
                    self.present.remove(&kv.key).unwrap_or_default();
                Change {
                    at,
                    revision: kv.mod_revision,
                    key: kv.key,
                    value: None,
                    create_revision,
                    version,
                    lease,
                }
            }
        };
        self.changes.push(change);
    }
}
