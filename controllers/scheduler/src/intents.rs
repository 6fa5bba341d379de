//! The requests to the scheduler, by pod. They lie outside the state trees, so the cache does not hold them; a watcher
//! of their own range feeds this account.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use setpoint_apis::{Key, Keyspace, ObjectKey, document};
use setpoint_runtime::watcher::WatcherEvent;
use setpoint_store::{EventKind, KeyValue};
use tracing::warn;

use crate::decide::{IntentFacts, Verb};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Intents {
    by_pod: FxHashMap<ObjectKey, Vec<IntentFacts>>,
    /// A listing in progress.
    listing: Option<FxHashMap<ObjectKey, Vec<IntentFacts>>>,
}

impl Intents {
    /// What is asked about a pod.
    pub(crate) fn about(&self, pod: &ObjectKey) -> &[IntentFacts] {
        self.by_pod.get(pod).map_or(&[], Vec::as_slice)
    }

    /// The pods of requests that name this node, or none.
    pub(crate) fn concerning(&self, node: &str) -> Vec<ObjectKey> {
        let names = |i: &IntentFacts| {
            i.intent
                .as_ref()
                .and_then(|i| i.node.as_deref())
                .is_none_or(|n| n == node)
        };
        self.by_pod
            .iter()
            .filter(|(_, intents)| intents.iter().any(names))
            .map(|(pod, _)| pod.clone())
            .collect()
    }

    /// Takes over what a watcher says. Returns the pods that it is about.
    pub(crate) fn observe(&mut self, event: WatcherEvent, keyspace: &Keyspace) -> Vec<ObjectKey> {
        let mut touched = Vec::new();
        match event {
            WatcherEvent::Init => self.listing = Some(FxHashMap::default()),
            WatcherEvent::InitPage(page) => {
                let listing = self.listing.get_or_insert_default();
                for kv in page {
                    if let Some((pod, intent)) = read(&kv, keyspace) {
                        listing.entry(pod).or_default().push(intent);
                    }
                }
            }
            WatcherEvent::InitDone(_) => {
                let listed = self.listing.take().unwrap_or_default();
                touched.extend(self.by_pod.keys().chain(listed.keys()).cloned());
                self.by_pod = listed;
            }
            WatcherEvent::Batch(batch) => {
                for event in batch.events {
                    let Some((pod, intent)) = read(&event.kv, keyspace) else {
                        continue;
                    };
                    self.gone(&pod, intent.verb, &intent.by, i64::MAX);
                    if event.kind == EventKind::Put {
                        self.by_pod.entry(pod.clone()).or_default().push(intent);
                    }
                    touched.push(pod);
                }
            }
        }
        touched
    }

    /// A request is gone, as of `revision`.
    pub(crate) fn gone(&mut self, pod: &ObjectKey, verb: Verb, by: &Arc<str>, revision: i64) {
        if let Some(intents) = self.by_pod.get_mut(pod) {
            intents.retain(|i| i.verb != verb || i.by != *by || i.revision > revision);
            if intents.is_empty() {
                self.by_pod.remove(pod);
            }
        }
    }
}

fn read(kv: &KeyValue, keyspace: &Keyspace) -> Option<(ObjectKey, IntentFacts)> {
    let Ok(Key::Intent { verb, pod, by }) = keyspace.split(&kv.key) else {
        return None;
    };
    let Some(verb) = Verb::parse(verb) else {
        warn!(key = kv.key, "a request with an unknown verb is left alone");
        return None;
    };
    let intent = if kv.value.is_empty() {
        // A deletion, or somebody who has nothing more to say.
        Some(Default::default())
    } else {
        document::decode_value(&kv.value)
            .inspect_err(|e| {
                warn!(
                    key = kv.key,
                    error = e as &dyn std::error::Error,
                    "a request cannot be read and is left alone"
                )
            })
            .ok()
    };
    Some((
        pod,
        IntentFacts {
            verb,
            by: by.into(),
            revision: kv.mod_revision,
            intent,
        },
    ))
}
