//! Who leads and who has written, as a watch of etcd tells it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::stream::BoxStream;
use setpoint_apis::{Key, Keyspace};
use setpoint_store::{Event, EventKind, SharedStore, StoreError, WatchBatch, WatchRequest};
use tokio::time::{Instant, timeout_at};

use super::WITHIN;

/// See the module. It is current only while it is asked for more.
pub(super) struct Witness {
    keyspace: Keyspace,
    stream: BoxStream<'static, Result<WatchBatch, StoreError>>,
    /// By controller, or by shard: the process that was elected last.
    pub(super) elected: BTreeMap<String, u32>,
    /// By shard: the process that has written for it last.
    pub(super) wrote: BTreeMap<String, u32>,
    /// Controllers, one for each election key that is gone.
    pub(super) vacant: Vec<String>,
    /// Deployments, or the objects that are made for them, that a controller has written to.
    pub(super) answered: Vec<String>,
}

impl Witness {
    pub(super) async fn new(store: &SharedStore, keyspace: &Keyspace) -> Result<Self> {
        let all = keyspace.all();
        let request = WatchRequest {
            start: all.start,
            end: all.end,
            from: None,
        };
        Ok(Self {
            keyspace: keyspace.clone(),
            stream: store.watch(request).await?,
            elected: BTreeMap::new(),
            wrote: BTreeMap::new(),
            vacant: Vec::new(),
            answered: Vec::new(),
        })
    }

    /// Takes in what comes until then.
    pub(super) async fn until(&mut self, then: Instant) -> Result<()> {
        while let Ok(next) = timeout_at(then, self.stream.next()).await {
            self.take(next)?;
        }
        Ok(())
    }

    /// Takes in what comes next.
    pub(super) async fn next(&mut self, limit: Instant) -> Result<()> {
        match timeout_at(limit, self.stream.next()).await {
            Ok(next) => self.take(next),
            Err(_) => bail!(
                "nobody has followed within {} s: elected are {:?}, {:?} have written",
                WITHIN.as_secs(),
                self.elected,
                self.wrote
            ),
        }
    }

    fn take(&mut self, next: Option<Result<WatchBatch, StoreError>>) -> Result<()> {
        let batch = next.context("the watch of the benchmark ended")??;
        for event in &batch.events {
            self.note(event);
        }
        Ok(())
    }

    fn note(&mut self, event: &Event) {
        let Ok(key) = self.keyspace.split(&event.kv.key) else {
            return;
        };
        match (key, event.kind) {
            (Key::Leader(controller, _), EventKind::Delete) => {
                self.vacant.push(controller.to_owned());
            }
            (Key::Actual("leaders", seat), EventKind::Put) => {
                let process = process_of(&event.kv.value);
                self.elected.insert(seat.name.to_string(), process);
            }
            (Key::Desired("configmaps", shard), EventKind::Put) => {
                let process = process_of(&event.kv.value);
                self.wrote.insert(shard.name.to_string(), process);
            }
            (
                Key::Actual("deployments", object) | Key::Desired("replicasets", object),
                EventKind::Put,
            ) => {
                self.answered.push(object.name.to_string());
            }
            _ => {}
        }
    }
}

/// The process whose identity stands in the first line; 0 when none does.
fn process_of(value: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(value);
    let identity = text.lines().next().unwrap_or_default();
    let process = identity.rsplit('-').nth(1);
    process.and_then(|pid| pid.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_identity() {
        assert_eq!(
            process_of(b"leader: a-host-42-0badcafe\ngeneration: 7\n"),
            42
        );
        assert_eq!(process_of(b"{{{"), 0);
    }
}
