//! Everything that was written while a test ran, in order, and who may have written it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use setpoint_store::KeyValue;

use super::tap::{Item, Transaction};

/// A change of one key that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the recorder heard of it, since the test began.
    pub at: Duration,
    /// Its revision.
    pub revision: i64,
    /// The key.
    pub key: String,
    /// The value; `None` for a deletion.
    pub value: Option<Bytes>,
    /// The revision of the key's creation; of the key that is deleted.
    pub create_revision: i64,
    /// How often the key had been written; of a key that is deleted, before that.
    pub version: i64,
    /// The lease that the key hangs on; for a deletion, that it hung on.
    pub lease: Option<i64>,
}

/// What a cache held at one moment: its revision, and the mod revision of every key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Whose cache.
    pub cache: &'static str,
    /// The revision that it claims to be at.
    pub revision: i64,
    /// What it holds.
    pub keys: BTreeMap<String, i64>,
}

/// A run, recorded.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// All changes under the prefix, in the order of their revisions.
    pub changes: Vec<Change>,
    /// All transactions that passed through a proxy.
    pub transactions: Vec<Transaction>,
    /// What caches held.
    pub samples: Vec<Sample>,
    /// What etcd listed in the end.
    pub listed: Vec<KeyValue>,
    /// What the test itself wanted in the end, by key.
    pub wanted: BTreeMap<String, String>,
}

/// Who made the changes of one revision.
#[derive(Clone, Copy, Debug)]
pub enum Writer<'a> {
    /// The sender of this transaction.
    Sent(&'a Transaction),
    /// etcd, because a lease ended.
    Lease,
}

impl<'a> Writer<'a> {
    /// The part of the transaction that made a change.
    pub fn item(&self, change: &Change) -> Option<&'a Item> {
        match self {
            Writer::Sent(t) => t.explains(&change.key, change.value.as_deref()),
            Writer::Lease => None,
        }
    }
}

impl std::fmt::Display for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Writer::Sent(t) => t.sender.fmt(f),
            Writer::Lease => f.write_str("(lease)"),
        }
    }
}

impl History {
    /// The changes, revision by revision.
    pub fn revisions(&self) -> impl Iterator<Item = &[Change]> {
        self.changes.chunk_by(|a, b| a.revision == b.revision)
    }

    /// Finds out who can have written what.
    pub fn writers(&self) -> Writers<'_> {
        let mut answered = BTreeMap::new();
        let mut unanswered = Vec::new();
        for transaction in &self.transactions {
            match transaction.answered {
                Some(revision) if wrote(transaction) => {
                    let all: &mut Vec<_> = answered.entry(revision).or_default();
                    all.push(transaction);
                }
                Some(_) => {}
                None => unanswered.push(transaction),
            }
        }
        Writers {
            answered,
            unanswered,
        }
    }
}

/// Whether a part with effects was carried out. A deletion of what is not there has none, so this may be too much.
fn wrote(transaction: &Transaction) -> bool {
    let done = transaction.items.iter().filter(|i| i.done == Some(true));
    done.clone().any(|i| !i.effects.is_empty())
}

/// Who can have written what.
pub struct Writers<'a> {
    /// By the revision that the answer names.
    answered: BTreeMap<i64, Vec<&'a Transaction>>,
    unanswered: Vec<&'a Transaction>,
}

impl<'a> Writers<'a> {
    /// Who can have made the changes of one revision. One transaction makes all of them. Where an answer names the
    /// revision that is certain; otherwise it is whoever sent the same writes and never heard of them again.
    pub fn of(&self, changes: &[Change]) -> Vec<Writer<'a>> {
        let Some(first) = changes.first() else {
            return Vec::new();
        };
        let explains = |t: &&&Transaction| {
            let mut all = changes.iter();
            all.all(|c| t.explains(&c.key, c.value.as_deref()).is_some())
        };
        let sure = self.answered.get(&first.revision).map(Vec::as_slice);
        let sure: Vec<&&Transaction> = sure.unwrap_or_default().iter().filter(explains).collect();
        let sent = if sure.is_empty() {
            self.unanswered.iter().filter(explains).collect()
        } else {
            sure
        };
        let mut writers: Vec<_> = sent.into_iter().map(|t| Writer::Sent(t)).collect();
        let lease = first.lease;
        let ends = |c: &Change| c.value.is_none() && c.lease.is_some() && c.lease == lease;
        if writers.is_empty() && changes.iter().all(ends) {
            writers.push(Writer::Lease);
        }
        writers
    }
}
