//! What the scheduler answers to requests to evict: it changes the binding of the pod, or says in an event that a disruption
//! budget does not allow it now.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures::stream::{BoxStream, StreamExt};
use setpoint_apis::core::Event;
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::{EventKind, KeyValue, Revision, StoreError, WatchBatch};
use tokio::time::Instant;

use crate::client::Client;
use crate::commands::displace::Target;

/// The reason of the event.
const BLOCKED: &str = "EvictionBlocked";
/// What is not heard of is looked at all the same.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Requests, and what is heard of them.
pub(super) struct Answers<'a> {
    /// Those without an answer, with their revisions.
    pub(super) waiting: Vec<(&'a Target, Revision)>,
    /// Why requests are held back.
    pub(super) refused: BTreeMap<ObjectKey, String>,
    client: &'a Client,
    /// What changes of the bindings and events of the namespace; ends when the store is away, and is missed by nobody.
    changes: BoxStream<'static, Result<WatchBatch, StoreError>>,
}

impl<'a> Answers<'a> {
    /// Listens from the first of these requests on, which are about pods of one namespace.
    pub(super) async fn of(
        client: &'a Client,
        namespace: &str,
        asked: impl Iterator<Item = (&'a Target, Revision)>,
    ) -> Result<Self> {
        let waiting: Vec<_> = asked.collect();
        let first = waiting.iter().map(|(_, at)| *at).min().unwrap_or_default();
        let keyspace = client.keyspace();
        let events = keyspace.event_range(namespace);
        let bindings = keyspace.binding_range(Some(namespace));
        let changes = [
            client.follow(events, first).await?,
            client.follow(bindings, first).await?,
        ];
        Ok(Self {
            waiting,
            refused: BTreeMap::new(),
            client,
            changes: futures::stream::select_all(changes).boxed(),
        })
    }

    /// Waits until something has changed, or it is time to look again.
    pub(super) async fn wait(&mut self, end: Instant) {
        let look = end.min(Instant::now() + LOOK_EVERY);
        tokio::select! {
            batch = self.changes.next() => match batch {
                Some(Ok(batch)) => {
                    let written = batch.events.iter().filter(|e| e.kind == EventKind::Put);
                    written.for_each(|event| self.note(&event.kv));
                }
                _ => tokio::time::sleep_until(look).await,
            },
            () = tokio::time::sleep_until(look) => {}
        }
    }

    /// Takes note of an event that holds one of the requests back.
    fn note(&mut self, kv: &KeyValue) {
        if !matches!(self.client.keyspace().split(&kv.key), Ok(Key::Event { .. })) {
            return;
        }
        let Ok(event) = document::decode_value::<Event>(&kv.value) else {
            return;
        };
        if event.reason.as_deref() != Some(BLOCKED) {
            return;
        }
        let about = &event.involved_object;
        let asked = self.waiting.iter().find(|(target, at)| {
            about.name.as_deref() == Some(&*target.key.name)
                && target.is(about.uid.as_deref().unwrap_or_default())
                && kv.mod_revision > at.0
        });
        if let Some((target, _)) = asked {
            let said = event.message.unwrap_or_default();
            let why = said.split_once(": ").map_or(said.as_str(), |(_, why)| why);
            self.refused.insert(target.key.clone(), why.to_owned());
        }
    }
}
