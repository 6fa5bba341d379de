//! `watch completeness`: whenever a cache was looked at, it held what etcd held at the cache's revision.

use std::collections::BTreeMap;

use setpoint_apis::Keyspace;

use super::Finding;
use crate::faults::history::{Change, History, Sample};
use crate::faults::probe::is_cached;

/// The most differences that are named of one sample.
const MOST: usize = 5;

pub(super) fn check(history: &History, keyspace: &Keyspace) -> Vec<Finding> {
    let mut samples: Vec<&Sample> = history.samples.iter().collect();
    samples.sort_by_key(|s| s.revision);
    let mut found = Vec::new();
    let mut present: BTreeMap<&str, i64> = BTreeMap::new();
    let mut changes = history.changes.iter().peekable();
    for sample in samples {
        while let Some(change) = changes.next_if(|c| c.revision <= sample.revision) {
            apply(&mut present, change, keyspace);
        }
        let held = sample.keys.iter().map(|(k, r)| (k.as_str(), *r)).collect();
        if present != held {
            found.push(Finding {
                check: "watch completeness",
                revision: sample.revision,
                message: format!("{}: {}", sample.cache, difference(&present, &held)),
            });
        }
    }
    found
}

fn apply<'a>(present: &mut BTreeMap<&'a str, i64>, change: &'a Change, keyspace: &Keyspace) {
    if !is_cached(keyspace, &change.key) {
        return;
    }
    match change.value {
        Some(_) => drop(present.insert(&change.key, change.revision)),
        None => drop(present.remove(change.key.as_str())),
    }
}

fn difference(store: &BTreeMap<&str, i64>, cache: &BTreeMap<&str, i64>) -> String {
    let missing = store.iter().filter(|(k, r)| cache.get(*k) != Some(r));
    let missing = missing.map(|(k, r)| {
        let has = cache.get(k).map_or("nothing".into(), |r| format!("r{r}"));
        format!("{k} is r{r} and the cache has {has}")
    });
    let stale = cache.iter().filter(|(k, _)| !store.contains_key(*k));
    let stale = stale.map(|(k, r)| format!("{k} is gone and the cache has r{r}"));
    let all: Vec<String> = missing.chain(stale).take(MOST).collect();
    all.join("; ")
}
