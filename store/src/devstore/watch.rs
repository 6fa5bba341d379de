//! Watches: many on one stream, each answered in order.

mod fragments;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::engine::{Engine, Signal};
use super::leases::stopping;
use crate::model::api::{
    ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse, WatchUnion,
};
use crate::model::{KeyRange, WatchCompacted, WatcherId};

/// Answers that wait for a client that does not read. Events wait in the model.
const QUEUE: usize = 16;

/// About how many events are sent at once. Never a part of a revision.
const BATCH: usize = 1_000;

/// The watch id of answers that are about all watches of a stream.
const ALL: i64 = -1;

/// Nobody reads the answers any more.
struct Gone;

pub(super) fn serve(
    engine: Arc<Engine>,
    requests: Streaming<WatchRequest>,
) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static {
    let (answers, stream) = mpsc::channel(QUEUE);
    let watches = Watches {
        engine,
        signal: Arc::default(),
        answers,
        watches: BTreeMap::new(),
        ids: BTreeMap::new(),
        next: 0,
        progress_wanted: false,
    };
    tokio::spawn(async move {
        // Nobody is there to be told.
        let _: Result<(), Gone> = watches.run(requests).await;
    });
    ReceiverStream::new(stream)
}

struct Watch {
    id: WatcherId,
    fragment: bool,
    progress_notify: bool,
    /// Whether it has got something since the last round of progress.
    active: bool,
}

/// The watches of one stream.
struct Watches {
    engine: Arc<Engine>,
    signal: Arc<Signal>,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    watches: BTreeMap<i64, Watch>,
    ids: BTreeMap<WatcherId, i64>,
    next: i64,
    /// The client asked how far all watches are, and they were not all there.
    progress_wanted: bool,
}

impl Watches {
    async fn run(mut self, mut requests: Streaming<WatchRequest>) -> Result<(), Gone> {
        let mut rounds = interval(self.engine.options().progress_interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rounds.reset();
        let engine = Arc::clone(&self.engine);
        let (signal, answers) = (Arc::clone(&self.signal), self.answers.clone());
        let mut asking = true;
        loop {
            tokio::select! {
                request = requests.message(), if asking => match request {
                    Ok(Some(request)) => self.handle(request).await?,
                    // A client that has no more to ask may go on reading.
                    Ok(None) => asking = false,
                    Err(_) => return Ok(()),
                },
                () = signal.wait() => self.deliver().await?,
                _ = rounds.tick() => self.round().await?,
                () = engine.closed() => {
                    let _ = answers.try_send(Err(stopping()));
                    return Ok(());
                }
                () = answers.closed() => return Ok(()),
            }
        }
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(response)).await.map_err(|_| Gone)
    }

    /// Ends the stream when what was seen cannot be told.
    async fn end(&self, status: Status) -> Result<(), Gone> {
        let _ = self.answers.send(Err(status)).await;
        Err(Gone)
    }

    fn header(&self, revision: i64) -> Option<ResponseHeader> {
        let config = &self.engine.options().model;
        Some(ResponseHeader {
            cluster_id: self.engine.id(),
            member_id: config.member_id,
            revision,
            raft_term: config.raft_term,
        })
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(WatchUnion::Create(request)) => self.create(request).await,
            Some(WatchUnion::Cancel(request)) => {
                let Some(watch) = self.watches.remove(&request.watch_id) else {
                    return Ok(());
                };
                self.ids.remove(&watch.id);
                self.engine.unwatch(watch.id);
                let now = self.engine.look(|model| model.revision());
                let revision = match self.engine.durable(now).await {
                    Ok(revision) => revision,
                    Err(status) => return self.end(status).await,
                };
                self.send(WatchResponse {
                    header: self.header(revision),
                    watch_id: request.watch_id,
                    canceled: true,
                    ..WatchResponse::default()
                })
                .await
            }
            Some(WatchUnion::Progress(_)) => {
                self.progress_wanted = true;
                self.deliver().await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Gone> {
        let id = match request.watch_id {
            0 => {
                while self.watches.contains_key(&self.next) {
                    self.next += 1;
                }
                self.next
            }
            id => id,
        };
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let refused = if range.is_empty() {
            Some("mvcc: watcher range is empty")
        } else if self.watches.contains_key(&id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream")
        } else {
            None
        };
        let seen = match refused {
            Some(_) => self.engine.look(|model| (None, model.revision())),
            None => self
                .engine
                .watch(&request, &self.signal)
                .map(|(id, at)| (Some(id), at)),
        };
        if let (Some(watcher), _) = seen.value {
            // Before anything is awaited, so that it is removed with the stream.
            self.ids.insert(watcher, id);
            self.watches.insert(
                id,
                Watch {
                    id: watcher,
                    fragment: request.fragment,
                    progress_notify: request.progress_notify,
                    active: true,
                },
            );
        }
        let revision = match self.engine.durable(seen).await {
            Ok((_, revision)) => revision,
            Err(status) => return self.end(status).await,
        };
        self.send(WatchResponse {
            header: self.header(revision),
            watch_id: if refused.is_some() { ALL } else { id },
            created: true,
            canceled: refused.is_some(),
            cancel_reason: refused.unwrap_or_default().to_owned(),
            ..WatchResponse::default()
        })
        .await
    }

    /// Sends what the watches have got, then the progress that was asked for.
    async fn deliver(&mut self) -> Result<(), Gone> {
        loop {
            let ready = self.signal.take();
            if ready.is_empty() {
                break;
            }
            for watcher in ready {
                self.forward(watcher).await?;
            }
        }
        if !self.progress_wanted {
            return Ok(());
        }
        let watchers: Vec<_> = self.ids.keys().copied().collect();
        let seen = self.engine.look(|model| {
            watchers
                .iter()
                .all(|id| model.progress(*id).is_some())
                .then(|| model.revision())
        });
        let revision = match self.engine.durable(seen).await {
            Ok(Some(revision)) => revision,
            // They are called again when there is something, and it is asked again then.
            Ok(None) => return Ok(()),
            Err(status) => return self.end(status).await,
        };
        self.progress_wanted = false;
        self.send(WatchResponse {
            header: self.header(revision),
            watch_id: ALL,
            ..WatchResponse::default()
        })
        .await
    }

    async fn forward(&mut self, watcher: WatcherId) -> Result<(), Gone> {
        // Cancelled meanwhile.
        let Some(id) = self.ids.get(&watcher).copied() else {
            return Ok(());
        };
        let pulled = self.engine.pull(watcher, BATCH);
        let (pulled, seen_at) = match self.engine.durable(pulled).await {
            Ok(pulled) => pulled,
            Err(status) => return self.end(status).await,
        };
        let mut response = WatchResponse {
            watch_id: id,
            ..WatchResponse::default()
        };
        let fragment = match (pulled, self.watches.get_mut(&id)) {
            (Ok(Some(events)), Some(watch)) => {
                watch.active = true;
                response.header = self.header(events.revision);
                response.events = events.events;
                self.watches.get(&id).is_some_and(|watch| watch.fragment)
            }
            (Err(WatchCompacted(revision)), Some(_)) => {
                self.watches.remove(&id);
                self.ids.remove(&watcher);
                self.engine.unwatch(watcher);
                // Not that of now: it need not be on the disk yet.
                response.header = self.header(seen_at);
                response.canceled = true;
                response.compact_revision = revision;
                false
            }
            (Ok(None), _) | (_, None) => return Ok(()),
        };
        if !fragment {
            return self.send(response).await;
        }
        for part in fragments::split(response, self.engine.message_limit()) {
            self.send(part).await?;
        }
        Ok(())
    }

    /// Tells watches that were quiet, and asked for it, how far the store is.
    async fn round(&mut self) -> Result<(), Gone> {
        self.deliver().await?;
        let quiet: Vec<_> = self
            .watches
            .iter_mut()
            .filter(|(_, watch)| watch.progress_notify)
            .filter_map(|(id, watch)| {
                (!std::mem::take(&mut watch.active)).then_some((*id, watch.id))
            })
            .collect();
        for (id, watcher) in quiet {
            let seen = self.engine.look(|model| model.progress(watcher));
            let revision = match self.engine.durable(seen).await {
                Ok(Some(revision)) => revision,
                Ok(None) => continue,
                Err(status) => return self.end(status).await,
            };
            self.send(WatchResponse {
                header: self.header(revision),
                watch_id: id,
                ..WatchResponse::default()
            })
            .await?;
        }
        Ok(())
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for id in self.ids.keys() {
            self.engine.unwatch(*id);
        }
    }
}
