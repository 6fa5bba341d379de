//! Faults that strike at single writes of a controller: what happens to the k-th transaction in which it writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use setpoint_apis::{Key, Keyspace};

use crate::named::Named;
use crate::scenario::{AtWrite, Strike};

/// Counts the transactions of each controller, over all its processes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Strikes {
    inner: Arc<Inner>,
}

struct Inner {
    keyspace: Keyspace,
    wanted: Vec<AtWrite>,
    sent: Mutex<BTreeMap<String, u64>>,
}

impl Strikes {
    pub(crate) fn new(keyspace: Keyspace, wanted: &[AtWrite]) -> Self {
        Self {
            inner: Arc::new(Inner {
                keyspace,
                wanted: wanted.to_vec(),
                sent: Mutex::default(),
            }),
        }
    }

    /// Counts a transaction that is being sent, and says what is to befall it.
    pub(crate) fn count(&self, named: &Named) -> Option<Strike> {
        let mut sent = self.inner.sent.lock();
        let mut found = None;
        for controller in named.controllers(&self.inner.keyspace) {
            let mut wanted = self.inner.wanted.iter();
            let count = sent.entry(controller.clone()).or_default();
            *count += 1;
            let at = |w: &&AtWrite| w.write == *count && w.controller == controller;
            found = wanted.find(at).map(|w| w.strike).or(found);
        }
        found
    }

    /// How many transactions each controller has sent.
    pub(crate) fn sent(&self) -> BTreeMap<String, u64> {
        self.inner.sent.lock().clone()
    }
}

impl Named {
    /// The controllers in whose names something is written.
    fn controllers(&self, keyspace: &Keyspace) -> BTreeSet<String> {
        let named = self.all().flatten();
        let controllers = named.filter_map(|(key, _)| match keyspace.split(key) {
            Ok(Key::Leader(controller, _)) => Some(controller.to_owned()),
            _ => None,
        });
        controllers.collect()
    }
}
