//! Who wrote what: every change that took effect in the store, with its sender, handed to the checks as it happens.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;
use setpoint_apis::{KeyRange, Keyspace};
use setpoint_store::model::ModelStore;
use tokio::time::Instant;

use crate::check::{Checks, Fences, Times, Violation};
use crate::fnv::Fnv;
use crate::named::Named;

/// A change of the store, as the checks see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// Its revision.
    pub(crate) revision: i64,
    /// When it happened, in milliseconds since the simulation began.
    pub(crate) millis: u64,
    /// Who sent it; `None`: a lease expired or was revoked.
    pub(crate) sent: Option<&'a Sent>,
    /// The key.
    pub(crate) key: &'a str,
    /// The value; `None` for a deletion.
    pub(crate) value: Option<&'a [u8]>,
    /// The revision of the key's creation. 0 for a deletion.
    pub(crate) create_revision: i64,
}

/// What is known of a write when it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Who sends it.
    pub(crate) process: Arc<str>,
    /// The fences at that moment: whoever decided on older ones must not be obeyed.
    pub(crate) fences: Arc<Fences>,
    /// Counts what is sent, by anybody.
    pub(crate) number: u64,
    /// The guards that each of its keys is written under, where controllers write.
    pub(crate) named: Named,
    /// The number of the newest write when the sender gave up waiting for the answer to this one; 0: it never did.
    given_up: Arc<AtomicU64>,
}

impl Sent {
    /// A write of this process, for tests of the checks.
    #[cfg(test)]
    pub(crate) fn of(process: &str) -> Self {
        Self {
            process: process.into(),
            fences: Arc::default(),
            number: 1,
            named: Named::default(),
            given_up: Arc::default(),
        }
    }

    /// The number of the newest write when the sender gave up waiting for this one's answer.
    pub(crate) fn given_up(&self) -> Option<u64> {
        Some(self.given_up.load(Ordering::Relaxed)).filter(|number| *number > 0)
    }
}

/// The ledger of one simulation. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    store: ModelStore,
    started: Instant,
    /// How many writes were sent.
    sent: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Everything up to this revision has been checked.
    revision: i64,
    checks: Checks,
    /// Of every change, its time and its sender, in order: two runs of one seed must agree.
    digest: Fnv,
    changes: u64,
    /// When the last change happened that was no lease's end, in milliseconds.
    last_write: u64,
    /// Where documents are.
    documents: KeyRange,
    /// When the last of them changed, in milliseconds.
    last_document: u64,
    /// The last changes.
    kept: VecDeque<Write>,
    /// How many are kept at most.
    most_kept: usize,
}

/// A change, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Write {
    /// When, in milliseconds since the simulation began.
    pub millis: u64,
    /// Its revision.
    pub revision: i64,
    /// Who sent it; `None`: a lease ended.
    pub sender: Option<Arc<str>>,
    /// Whether the key was deleted.
    pub deleted: bool,
    /// The key.
    pub key: String,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.millis as f64 / 1000.0;
        let (revision, verb) = (self.revision, if self.deleted { "del" } else { "put" });
        let sender = self.sender.as_deref().unwrap_or("(lease)");
        write!(
            f,
            "{seconds:>9.3} s  r{revision:<7} {sender:<18} {verb} {}",
            self.key
        )
    }
}

impl Ledger {
    /// The ledger of a store, which keeps at most the last `most_kept` changes for [`Ledger::kept`].
    pub(crate) fn new(
        store: ModelStore,
        keyspace: Keyspace,
        times: Times,
        most_kept: usize,
    ) -> Self {
        let state = State {
            documents: keyspace.all_desired(),
            last_document: 0,
            revision: store.with(|model| model.revision()),
            checks: Checks::new(keyspace, times),
            digest: Fnv::default(),
            changes: 0,
            last_write: 0,
            kept: VecDeque::new(),
            most_kept,
        };
        Self {
            inner: Arc::new(Inner {
                store,
                started: Instant::now(),
                sent: AtomicU64::new(0),
                state: Mutex::new(state),
            }),
        }
    }

    /// A write is being sent.
    pub(crate) fn sending(&self, process: &Arc<str>) -> Sent {
        Sent {
            process: Arc::clone(process),
            fences: self.inner.state.lock().checks.fences(),
            number: self.inner.sent.fetch_add(1, Ordering::Relaxed) + 1,
            named: Named::default(),
            given_up: Arc::default(),
        }
    }

    /// The sender of a write has been told that nobody knows what became of it.
    pub(crate) fn give_up(&self, sent: &Sent) {
        let newest = self.inner.sent.load(Ordering::Relaxed);
        sent.given_up.store(newest, Ordering::Relaxed);
    }

    /// Enters what has happened since the last call, all of it by `sent`.
    pub(crate) fn catch_up(&self, sent: Option<Sent>) {
        let millis = self.millis();
        let mut state = self.inner.state.lock();
        self.inner.store.with(|model| {
            // Whoever compacts calls this first, so nothing is missed.
            let Ok(changes) = model.changes_since(state.revision + 1) else {
                return;
            };
            for change in changes {
                let key = String::from_utf8_lossy(&change.kv.key);
                let entry = Entry {
                    revision: change.main,
                    millis,
                    sent: sent.as_ref(),
                    key: &key,
                    value: (!change.deleted).then_some(&change.kv.value[..]),
                    create_revision: change.kv.create_revision,
                };
                state.enter(&entry);
            }
            state.revision = model.revision();
        });
    }

    /// Milliseconds since the simulation began.
    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How many changes there were, when the last one was, and the last of a document, in milliseconds, and a digest of
    /// all of them.
    pub(crate) fn summary(&self) -> Summary {
        let state = self.inner.state.lock();
        Summary {
            changes: state.changes,
            last_write: state.last_write,
            last_document: state.last_document,
            digest: state.digest.value(),
        }
    }

    /// What has been found so far.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.inner.state.lock().checks.violations().to_vec()
    }

    /// Tells the checks what only the simulation knows.
    pub(crate) fn with_checks<T>(&self, tell: impl FnOnce(&mut Checks) -> T) -> T {
        tell(&mut self.inner.state.lock().checks)
    }

    /// The last changes, oldest first.
    pub(crate) fn kept(&self) -> Vec<Write> {
        self.inner.state.lock().kept.iter().cloned().collect()
    }
}

/// What a ledger amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) changes: u64,
    pub(crate) last_write: u64,
    pub(crate) last_document: u64,
    pub(crate) digest: u64,
}

impl State {
    fn enter(&mut self, entry: &Entry<'_>) {
        let process = entry.sent.map_or("", |s| &s.process);
        self.changes += 1;
        if entry.sent.is_some() {
            self.last_write = entry.millis;
        }
        if self.documents.contains(entry.key) {
            self.last_document = entry.millis;
        }
        self.digest.write(&entry.millis.to_le_bytes());
        self.digest.write(process.as_bytes());
        self.digest.write(entry.key.as_bytes());
        self.digest.write(entry.value.unwrap_or(b"-"));
        self.checks.enter(entry);
        if self.kept.len() == self.most_kept {
            self.kept.pop_front();
        }
        self.kept.push_back(Write {
            millis: entry.millis,
            revision: entry.revision,
            sender: entry.sent.map(|s| Arc::clone(&s.process)),
            deleted: entry.value.is_none(),
            key: entry.key.to_owned(),
        });
    }
}
