//! What a small range of etcd holds, kept current by a watch.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use setpoint_apis::KeyRange;
use setpoint_store::{EventKind, KeyValue, LeaseId, SharedStore, StoreError};
use tracing::warn;

use crate::watcher::{WatcherEvent, WatcherOptions, watcher};

/// A key.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) value: Bytes,
    pub(super) mod_revision: i64,
    pub(super) lease: Option<LeaseId>,
}

/// See the module. It is current only while [`Mirror::next`] is polled.
pub(super) struct Mirror {
    prefix: String,
    stream: BoxStream<'static, Result<WatcherEvent, StoreError>>,
    listing: BTreeMap<String, Row>,
    /// By what follows the prefix.
    pub(super) rows: BTreeMap<String, Row>,
    /// Everything up to here is in; 0 until the first listing is complete.
    pub(super) revision: i64,
    /// Counts what has come.
    pub(super) news: u64,
}

impl Mirror {
    pub(super) fn new(store: SharedStore, range: KeyRange, seed: u64) -> Self {
        let options = WatcherOptions {
            seed,
            ..WatcherOptions::default()
        };
        Self {
            prefix: range.start.clone(),
            stream: watcher(store, range, options).boxed(),
            listing: BTreeMap::new(),
            rows: BTreeMap::new(),
            revision: 0,
            news: 0,
        }
    }

    /// Takes one piece of news in. Cancel safe.
    pub(super) async fn next(&mut self) {
        match self.stream.next().await {
            Some(Ok(event)) => self.take(event),
            Some(Err(error)) => warn!(
                range = self.prefix,
                error = &error as &dyn std::error::Error,
                "the watch of an election failed; trying again"
            ),
            // A watcher never ends.
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, event: WatcherEvent) {
        match event {
            WatcherEvent::Init => self.listing.clear(),
            WatcherEvent::InitPage(page) => {
                for kv in page {
                    self.listing.extend(self.row(kv));
                }
            }
            WatcherEvent::InitDone(revision) => {
                self.rows = std::mem::take(&mut self.listing);
                self.revision = revision.0;
                self.news += 1;
            }
            WatcherEvent::Batch(batch) => {
                for event in batch.events {
                    self.news += 1;
                    match event.kind {
                        EventKind::Put => {
                            let row = self.row(event.kv);
                            self.rows.extend(row);
                        }
                        EventKind::Delete => {
                            if let Some(name) = event.kv.key.strip_prefix(&self.prefix) {
                                self.rows.remove(name);
                            }
                        }
                    }
                }
                self.revision = self.revision.max(batch.revision.0);
            }
        }
    }

    fn row(&self, kv: KeyValue) -> Option<(String, Row)> {
        let name = kv.key.strip_prefix(&self.prefix)?.to_owned();
        let row = Row {
            value: kv.value,
            mod_revision: kv.mod_revision,
            lease: kv.lease,
        };
        Some((name, row))
    }
}
