//! Changes of objects, whatever part of them changed.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use setpoint_apis::{Key, KeyRange, ObjectKey};
use setpoint_store::{Revision, StoreError, WatchBatch, WatchRequest};
use tokio::time::Instant;

use super::Client;
use crate::kinds::KindInfo;

/// How long etcd may be away before whoever watches gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Objects of which some part has changed.
pub(crate) struct Change {
    /// The objects, each once.
    pub(crate) keys: Vec<ObjectKey>,
}

/// Follows the changes of one kind.
pub(crate) struct ChangeStream<'a> {
    client: &'a Client,
    kind: KindInfo,
    stream: BoxStream<'static, Result<WatchBatch, StoreError>>,
    seen: Revision,
}

impl Client {
    /// Follows the changes of a kind that come after a revision. A store that is away at this moment is waited for by
    /// [`ChangeStream::next`], as at any later one.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn changes(
        &self,
        kind: KindInfo,
        after: Revision,
    ) -> Result<ChangeStream<'_>> {
        let stream = match self.open(kind, after).await {
            Err(error) if !error.is_retryable() => {
                return Err(error).context("following changes");
            }
            opened => opened.unwrap_or_else(|_| futures::stream::empty().boxed()),
        };
        Ok(ChangeStream {
            client: self,
            kind,
            stream,
            seen: after,
        })
    }

    async fn open(
        &self,
        kind: KindInfo,
        after: Revision,
    ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
        let range = if kind.plural == "events" {
            self.keyspace.all_events()
        } else {
            self.keyspace.state()
        };
        self.follow(range, after).await
    }

    /// Follows the keys of a range, as of what comes after a revision.
    ///
    /// # Errors
    /// When the store refuses, or does not answer.
    pub(crate) async fn follow(
        &self,
        range: KeyRange,
        after: Revision,
    ) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
        let request = WatchRequest {
            start: range.start,
            end: range.end,
            from: Some(Revision(after.0 + 1)),
        };
        self.store.watch(request).await
    }

    /// The object of a kind that a key is a part of.
    fn object_of(&self, kind: KindInfo, key: &str) -> Option<ObjectKey> {
        Some(match self.keyspace.split(key).ok()? {
            Key::Desired(plural, key) | Key::Actual(plural, key) | Key::Deletion(plural, key)
                if plural == kind.plural =>
            {
                key
            }
            Key::Binding(key) | Key::NodePod(_, key) if kind.plural == "pods" => key,
            Key::NodeAlive(node) | Key::NodeStatus(node) | Key::Health(node)
                if kind.plural == "nodes" =>
            {
                ObjectKey::cluster(node)
            }
            Key::Event { namespace, id, .. } if kind.plural == "events" => {
                ObjectKey::namespaced(namespace, id)
            }
            _ => return None,
        })
    }
}

impl ChangeStream<'_> {
    /// Waits for the next change. A watch that breaks is taken up where it stopped; a store that stays away is an error.
    ///
    /// # Errors
    /// When the store does not answer for a while.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is given up.
    pub(crate) async fn next(&mut self) -> Result<Change> {
        let mut failing_since: Option<Instant> = None;
        loop {
            match self.stream.next().await {
                Some(Ok(batch)) => {
                    failing_since = None;
                    self.seen = self.seen.max(batch.revision);
                    let mut keys: Vec<ObjectKey> = batch
                        .events
                        .iter()
                        .filter_map(|e| self.client.object_of(self.kind, &e.kv.key))
                        .collect();
                    keys.sort();
                    keys.dedup();
                    if !keys.is_empty() {
                        return Ok(Change { keys });
                    }
                }
                ended => {
                    let patient =
                        failing_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE;
                    if let Some(Err(error)) = ended
                        && !(patient && error.is_retryable())
                    {
                        return Err(error).context("following changes");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    match self.client.open(self.kind, self.seen).await {
                        Ok(stream) => self.stream = stream,
                        Err(error) if !patient => return Err(error).context("following changes"),
                        Err(_) => {}
                    }
                }
            }
        }
    }
}
