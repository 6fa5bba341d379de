//! List, then watch: the state machine under every cache and mirror.
//!
//! A watcher lists a range at one pinned revision, then follows it from the next one. It survives whatever ends a
//! watch: a lost connection resumes where it stopped, a compaction lists anew. The listing is bracketed, so that a
//! consumer can build it aside and swap it in, or diff it against what it has.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream, Stream};
use setpoint_apis::KeyRange;
use setpoint_store::{
    KeyValue, RangeRequest, Revision, SharedStore, StoreError, WatchBatch, WatchRequest,
};

use crate::backoff::Backoff;

/// What a watcher has to say.
#[derive(Debug)]
pub enum WatcherEvent {
    /// A listing begins; what was known before stays valid until [`WatcherEvent::InitDone`].
    Init,
    /// A part of the listing, in key order.
    InitPage(Vec<KeyValue>),
    /// The listing is complete as of this revision. What it did not name does not exist.
    InitDone(Revision),
    /// Whole revisions of changes.
    Batch(WatchBatch),
}

/// How a watcher lists and retries.
#[derive(Clone, Debug)]
pub struct WatcherOptions {
    /// Keys per page of a listing. 3,500 pods of 1.2 kB just fit etcd's 4 MiB message; big documents need fewer.
    pub page_size: i64,
    /// The wait after failures in a row.
    pub backoff: Backoff,
    /// Seeds the jitter of the backoff.
    pub seed: u64,
}

impl Default for WatcherOptions {
    fn default() -> Self {
        Self {
            page_size: 2_000,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
            seed: 0,
        }
    }
}

/// Follows `range` for ever. Errors are reported in between; the stream itself never ends.
pub fn watcher(
    store: SharedStore,
    range: KeyRange,
    options: WatcherOptions,
) -> impl Stream<Item = Result<WatcherEvent, StoreError>> + Send + 'static {
    let rng = fastrand::Rng::with_seed(options.seed);
    let machine = Machine {
        store,
        range,
        options,
        rng,
        failures: 0,
        pending: VecDeque::new(),
    };
    stream::unfold(
        (machine, State::List),
        |(mut machine, mut state)| async move {
            loop {
                if let Some(event) = machine.pending.pop_front() {
                    return Some((event, (machine, state)));
                }
                state = machine.step(state).await;
            }
        },
    )
}

enum State {
    /// Nothing is known, or what is known is too old to resume from.
    List,
    /// In the middle of a listing.
    Listing { next: String, revision: Revision },
    /// Everything up to `seen` has been handed out, and no watch is open.
    Resume { seen: Revision },
    /// Following.
    Watching {
        seen: Revision,
        stream: BoxStream<'static, Result<WatchBatch, StoreError>>,
    },
}

struct Machine {
    store: SharedStore,
    range: KeyRange,
    options: WatcherOptions,
    rng: fastrand::Rng,
    failures: u32,
    pending: VecDeque<Result<WatcherEvent, StoreError>>,
}

impl Machine {
    /// One step: does one thing with the store, queues what it learned, names the next state.
    async fn step(&mut self, state: State) -> State {
        match state {
            State::List => self.page(None).await,
            State::Listing { next, revision } => self.page(Some((next, revision))).await,
            State::Resume { seen } => {
                let request = WatchRequest {
                    start: self.range.start.clone(),
                    end: self.range.end.clone(),
                    from: Some(Revision(seen.0 + 1)),
                };
                match self.store.watch(request).await {
                    Ok(stream) => State::Watching { seen, stream },
                    Err(error) => self.failed(error, seen).await,
                }
            }
            State::Watching { seen, mut stream } => match stream.next().await {
                Some(Ok(batch)) => {
                    self.failures = 0;
                    let seen = seen.max(batch.revision);
                    self.pending.push_back(Ok(WatcherEvent::Batch(batch)));
                    State::Watching { seen, stream }
                }
                Some(Err(error)) => self.failed(error, seen).await,
                None => State::Resume { seen },
            },
        }
    }

    async fn page(&mut self, position: Option<(String, Revision)>) -> State {
        let first = position.is_none();
        let (start, pinned) = match position {
            Some((next, revision)) => (next, Some(revision)),
            None => (self.range.start.clone(), None),
        };
        let request = RangeRequest {
            start,
            end: self.range.end.clone(),
            limit: self.options.page_size,
            revision: pinned,
            ..RangeRequest::default()
        };
        let page = match self.store.range(request).await {
            Ok(page) => page,
            Err(error) => {
                self.report(error).await;
                return State::List;
            }
        };
        let revision = pinned.unwrap_or(page.revision);
        if first {
            self.pending.push_back(Ok(WatcherEvent::Init));
        }
        // The smallest key after the last one of this page.
        let next = page
            .kvs
            .last()
            .filter(|_| page.more)
            .map(|kv| format!("{}\0", kv.key));
        self.pending.push_back(Ok(WatcherEvent::InitPage(page.kvs)));
        match next {
            Some(next) => State::Listing { next, revision },
            None => {
                self.failures = 0;
                self.pending.push_back(Ok(WatcherEvent::InitDone(revision)));
                State::Resume { seen: revision }
            }
        }
    }

    async fn failed(&mut self, error: StoreError, seen: Revision) -> State {
        let compacted = matches!(error, StoreError::Compacted { .. });
        self.report(error).await;
        if compacted {
            State::List
        } else {
            State::Resume { seen }
        }
    }

    /// Queues the error for the consumer, and waits before anything is tried again. The first failure after a success
    /// is retried at once: most are a server that restarted or a compaction.
    async fn report(&mut self, error: StoreError) {
        self.failures += 1;
        self.pending.push_back(Err(error));
        if self.failures > 1 {
            tokio::time::sleep(self.options.backoff.delay(self.failures - 1, &mut self.rng)).await;
        }
    }
}
