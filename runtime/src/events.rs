//! Events: what a component has to say about an object, for people.
//!
//! A [`Recorder`] takes events without waiting and without failing; its driver coalesces them and writes them in
//! batches. Events are best effort by design: when the queue or the memory for them is full, or one object has too
//! much to say, they are dropped and counted, and no caller ever notices.
//!
//! # What is written
//! Kubernetes' `v1` Event. The same (object, type, reason, message) is one event whose `count` and `lastTimestamp`
//! grow; see `correlate` for the limits. All events of a writer hang on one lease at a time. A new one of 70 minutes
//! is granted when an event is to be written and the last one is older than 10 minutes, so an event outlives its last
//! update by at least an hour, nothing needs a keep-alive, and who has nothing to say writes nothing.

mod correlate;
mod lease;

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey};
use setpoint_store::group_commit::{GroupCommit, Item, ItemOutcome};
use setpoint_store::{Put, SharedStore, StoreError, TxnOp};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::backoff::Backoff;
use crate::cache::Stored;
use crate::clock::Clock;
use crate::shutdown::CancellationToken;
use correlate::{Correlator, Occurrence, Outgoing, Verdict, Writer};
use lease::RotatingLease;

/// Events that wait for the driver. At one kilobyte each this is the most memory that a stuck driver costs.
const QUEUE: usize = 2048;
/// Occurrences that are taken from the queue at once.
const TAKE: usize = 256;
/// How long occurrences are collected before they are written.
const COLLECT: Duration = Duration::from_millis(250);
/// Events that are handed to the group commit at a time. They share its line with writes that matter, so only a
/// handful of events ever stands before those.
const CHUNK: usize = 64;
/// Events that are written in one go before what came meanwhile is looked at.
const BATCH: usize = 512;
/// How long the last flush may take: an event never holds up a shutdown.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Whether an event tells of something expected or of something to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something that a person may want to look at.
    Warning,
}

impl EventType {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventRef {
    /// `apps/v1`.
    pub api_version: Cow<'static, str>,
    /// `Deployment`.
    pub kind: Cow<'static, str>,
    /// Its namespace, empty for cluster-scoped objects (their events are in `default`, as in Kubernetes).
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid; empty when it is not known.
    pub uid: Arc<str>,
}

impl EventRef {
    /// An object of kind `K`.
    pub fn of<K: Kind>(key: &ObjectKey, uid: impl Into<Arc<str>>) -> Self {
        Self {
            api_version: Cow::Borrowed(K::API_VERSION),
            kind: Cow::Borrowed(K::KIND),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid.into(),
        }
    }

    /// An object of kind `K` as it is in the cache.
    pub fn stored<K: Kind>(object: &Stored<K>) -> Self {
        Self::of::<K>(&object.value.metadata().key(), object.uid())
    }

    /// The namespace that its events are in.
    fn event_namespace(&self) -> &str {
        if self.namespace.is_empty() {
            "default"
        } else {
            &self.namespace
        }
    }
}

/// Takes events. Cheap to clone; all clones feed one driver.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
    clock: Clock,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    recorded: AtomicU64,
    overflowed: AtomicU64,
    suppressed: AtomicU64,
    written: AtomicU64,
    failed: AtomicU64,
}

/// What a recorder has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecorderStats {
    /// Events that were handed in.
    pub recorded: u64,
    /// Of these, dropped because the queue was full or the driver had ended.
    pub overflowed: u64,
    /// Of these, dropped because their object had too much to say, or because too many events wait to be written.
    pub suppressed: u64,
    /// Documents that were written; several events of one series may be one document.
    pub written: u64,
    /// Writes that failed. They are tried again, unless the document itself was refused.
    pub failed: u64,
}

impl Recorder {
    /// A recorder for `source` (`scheduler`, `agent`, ...), and the driver that writes its events: spawn the driver.
    ///
    /// `node` is given by agents: it becomes the event's host, and their events have a range of their own. The driver
    /// ends, with a last flush of at most a second, when `shutdown` is cancelled or the last clone is dropped.
    pub fn new(
        store: SharedStore,
        commits: GroupCommit,
        keyspace: Keyspace,
        clock: Clock,
        source: impl Into<String>,
        node: Option<String>,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let counters = Arc::<Counters>::default();
        let recorder = Self {
            queue,
            clock: clock.clone(),
            counters: counters.clone(),
        };
        let writer = Writer {
            component: source.into(),
            node,
        };
        let sink = Sink {
            commits,
            keyspace,
            node: writer.node.clone(),
            lease: RotatingLease::new(store),
        };
        let driver = Driver {
            receiver,
            correlator: Correlator::new(writer),
            counters,
            sink: Some(sink),
            failures: 0,
        };
        (recorder, driver.run(shutdown))
    }

    /// A recorder whose events go nowhere, for tests of controllers that do not look at events.
    pub fn discarding() -> Self {
        let (queue, _) = mpsc::channel(1);
        Self {
            queue,
            clock: Clock::system(),
            counters: Arc::default(),
        }
    }

    /// Records an event. Never waits and never fails.
    ///
    /// `reason` is one CamelCase word out of a small set; `message` is a sentence, cut at 1,024 bytes.
    pub fn event(
        &self,
        object: EventRef,
        event_type: EventType,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) {
        self.counters.recorded.fetch_add(1, Ordering::Relaxed);
        let occurrence = Occurrence {
            object,
            event_type,
            reason: reason.into(),
            message: message.into(),
            at: self.clock.now(),
        };
        if self.queue.try_send(occurrence).is_err() {
            self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that something happened as it should.
    pub fn normal(
        &self,
        object: EventRef,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) {
        self.event(object, EventType::Normal, reason, message);
    }

    /// Records something that a person may want to look at.
    pub fn warning(
        &self,
        object: EventRef,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) {
        self.event(object, EventType::Warning, reason, message);
    }

    /// What this recorder and its clones have done so far.
    pub fn stats(&self) -> RecorderStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RecorderStats {
            recorded: read(&self.counters.recorded),
            overflowed: read(&self.counters.overflowed),
            suppressed: read(&self.counters.suppressed),
            written: read(&self.counters.written),
            failed: read(&self.counters.failed),
        }
    }
}

struct Driver {
    receiver: mpsc::Receiver<Occurrence>,
    correlator: Correlator,
    counters: Arc<Counters>,
    /// Absent while a flush has it.
    sink: Option<Sink>,
    failures: u32,
}

/// What one flush came to.
struct Flushed {
    sink: Sink,
    written: u64,
    /// To be tried again.
    retry: Vec<u64>,
    /// Refused for what they are.
    refused: u64,
}

impl Driver {
    async fn run(mut self, shutdown: CancellationToken) {
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        // Writers that fail together need not come back together.
        let mut rng = fastrand::Rng::with_seed(self.correlator.seed());
        let mut taken = Vec::with_capacity(TAKE);
        let mut flushing: Option<BoxFuture<'static, Flushed>> = None;
        let mut flush_at: Option<Instant> = None;
        loop {
            if flush_at.is_none() && self.correlator.has_dirty() {
                flush_at = Some(Instant::now() + COLLECT);
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                flushed = poll(&mut flushing) => {
                    flushing = None;
                    if self.settle(flushed) {
                        self.failures = 0;
                    } else {
                        self.failures = self.failures.saturating_add(1);
                        flush_at = Some(Instant::now() + backoff.delay(self.failures, &mut rng));
                    }
                }
                n = self.receiver.recv_many(&mut taken, TAKE) => {
                    if n == 0 {
                        break;
                    }
                    taken.drain(..).for_each(|o| self.observe(o));
                }
                () = tokio::time::sleep_until(flush_at.unwrap_or_else(Instant::now)),
                    if flush_at.is_some() && self.sink.is_some() =>
                {
                    flush_at = None;
                    flushing = self.flush();
                }
            }
        }
        self.receiver.close();
        while let Ok(occurrence) = self.receiver.try_recv() {
            self.observe(occurrence);
        }
        let last = async {
            loop {
                if flushing.is_some() {
                    let flushed = poll(&mut flushing).await;
                    if !self.settle(flushed) {
                        return;
                    }
                }
                flushing = self.flush();
                if flushing.is_none() {
                    return;
                }
            }
        };
        if tokio::time::timeout(LAST_FLUSH, last).await.is_err() {
            debug!("the last events were not written in time");
        }
    }

    fn observe(&mut self, occurrence: Occurrence) {
        if self.correlator.observe(occurrence) == Verdict::Suppressed {
            self.counters.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to write what is dirty; `None` when nothing is.
    fn flush(&mut self) -> Option<BoxFuture<'static, Flushed>> {
        let batch = self.correlator.take_dirty(BATCH);
        if batch.is_empty() {
            return None;
        }
        let sink = self.sink.take()?;
        Some(Box::pin(sink.write(batch)))
    }

    /// Takes note of a flush; whether nothing is left of it.
    fn settle(&mut self, flushed: Flushed) -> bool {
        self.sink = Some(flushed.sink);
        self.counters
            .written
            .fetch_add(flushed.written, Ordering::Relaxed);
        self.counters.failed.fetch_add(
            flushed.retry.len() as u64 + flushed.refused,
            Ordering::Relaxed,
        );
        let all = flushed.retry.is_empty();
        for series in flushed.retry {
            self.correlator.mark_dirty(series);
        }
        all
    }
}

async fn poll<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Where events are written.
struct Sink {
    commits: GroupCommit,
    keyspace: Keyspace,
    node: Option<String>,
    lease: RotatingLease,
}

impl Sink {
    async fn write(mut self, batch: Vec<Outgoing>) -> Flushed {
        let mut retry = Vec::new();
        let (mut written, mut refused) = (0, 0);
        let lease = match self.lease.current().await {
            Ok(lease) => lease,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "no lease for events; trying again"
                );
                retry.extend(batch.iter().map(|o| o.series));
                return Flushed {
                    sink: self,
                    written,
                    retry,
                    refused,
                };
            }
        };
        let mut batch = batch.into_iter();
        loop {
            let chunk: Vec<Outgoing> = batch.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return Flushed {
                    sink: self,
                    written,
                    retry,
                    refused,
                };
            }
            let (series, items): (Vec<u64>, Vec<Item>) =
                chunk.into_iter().map(|o| self.item(o, lease)).unzip();
            for (series, outcome) in series.into_iter().zip(self.commits.submit_all(items).await) {
                match outcome {
                    ItemOutcome::Committed { .. } => written += 1,
                    ItemOutcome::Failed(error) if !worth_retrying(&error) => {
                        warn!(
                            error = &error as &dyn std::error::Error,
                            "an event was refused"
                        );
                        refused += 1;
                    }
                    // Writing the same event twice does no harm.
                    ItemOutcome::Failed(error) | ItemOutcome::Unknown(error) => {
                        debug!(
                            error = &error as &dyn std::error::Error,
                            "an event was not written; trying again"
                        );
                        if matches!(error, StoreError::LeaseNotFound { .. }) {
                            self.lease.forget();
                        }
                        retry.push(series);
                    }
                    ItemOutcome::Rejected { .. } => retry.push(series),
                }
            }
        }
    }

    fn item(&self, out: Outgoing, lease: setpoint_store::LeaseId) -> (u64, Item) {
        let key = Key::Event {
            node: self.node.as_deref(),
            namespace: &out.namespace,
            id: &out.id,
        };
        let put = Put {
            key: self.keyspace.build(&key),
            value: out.document.into(),
            lease: Some(lease),
        };
        (
            out.series,
            Item {
                guards: Vec::new(),
                then: vec![TxnOp::Put(put)],
                context: format!("event {}", out.id),
            },
        )
    }
}

fn worth_retrying(error: &StoreError) -> bool {
    error.is_retryable() || matches!(error, StoreError::LeaseNotFound { .. })
}
