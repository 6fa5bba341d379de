//! One watch on one stream: fragments joined, whole revisions in order, and an end when the server goes silent.
//!
//! A frozen server, or a network that swallows packets, leaves a stream open and quiet, which looks just like a range in
//! which nothing happens. So a watch that hears nothing asks for progress, and ends with `Unavailable` when not even
//! that is answered. The clock runs only while the consumer waits: a slow consumer does not end its own watch, and nor
//! does a process that was stopped, or had no processor, for longer than the limit (see `Silence`).
//!
//! Progress from a server that orders it behind the events (see `Version::orders_requested_progress`) is handed on as
//! it comes. Older servers answer at once with the store's revision, possibly ahead of events that are still queued for
//! this watcher. There, an answer counts only after a second one has come on the same stream, a pause later, with no event
//! in between: by then a synced watcher has been sent whatever was queued before the first. An event that comes late all
//! the same is delivered, in a batch whose revision does not go back.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::debug;

use super::convert;
use super::errors::{Access, Refusal, Verdict, judge, known_text};
use super::link::{Link, Route};
use super::wire::{self, WatchCreateRequest, WatchProgressRequest, WatchUnion};
use crate::error::StoreError;
use crate::types::{Event, Revision, WatchBatch, WatchRequest};

const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// How long a watcher of an older server must be quiet between two answers. Such a server brings watchers that lag up to
/// date every 100 ms.
const SETTLING: Duration = Duration::from_millis(250);

/// Opens a watch; returns once the server has confirmed it. Endpoints that fail are left for the next.
pub(super) async fn open(
    link: Arc<Link>,
    request: WatchRequest,
    ordered_progress: bool,
    skipped: Arc<AtomicU64>,
) -> Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError> {
    let mut attempts = link.endpoint_count();
    let mut login_renewed = false;
    loop {
        attempts -= 1;
        match Follow::open(&link, &request, ordered_progress, &skipped).await {
            Ok(follow) => return Ok(into_stream(follow)),
            Err(StoreError::Unavailable { .. }) if attempts > 0 => {}
            // Older servers say "permission denied" when they mean a stale token.
            Err(StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. })
                if link.has_user() && !login_renewed =>
            {
                link.forget_token();
                login_renewed = true;
                attempts += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn into_stream(follow: Follow) -> BoxStream<'static, Result<WatchBatch, StoreError>> {
    stream::unfold(Some(follow), |state| async move {
        let mut follow = state?;
        match follow.next().await {
            Ok(batch) => Some((Ok(batch), Some(follow))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .fuse()
    .boxed()
}

/// For how long nothing was heard, counted in small steps. One that took longer than it should have counts no more than
/// that: this process did not run then, so it neither asked nor read what may have come, and does so before the next.
struct Silence {
    limit: Duration,
    counted: Duration,
}

impl Silence {
    const STEPS: u32 = 4;

    fn new(limit: Duration) -> Self {
        Self {
            limit,
            counted: Duration::ZERO,
        }
    }

    /// How long to wait next.
    fn step(&self) -> Duration {
        (self.limit / Self::STEPS).min(self.limit - self.counted)
    }

    /// It has lasted so much longer; whether that is too long.
    fn lasts(&mut self, waited: Duration) -> bool {
        self.counted += waited.min(self.step());
        self.counted >= self.limit
    }
}

struct Follow {
    link: Arc<Link>,
    route: Route,
    skipped: Arc<AtomicU64>,
    inbound: Streaming<wire::WatchResponse>,
    outbound: mpsc::Sender<wire::WatchRequest>,
    range: String,
    /// Events of a revision whose end has not been received.
    held: Vec<Event>,
    /// Everything up to here was handed out, events or progress.
    delivered: i64,
    /// The newest event that was handed out.
    newest_event: i64,
    ordered_progress: bool,
    /// An older server's answer that waits to be confirmed, and since when.
    unconfirmed: Option<(i64, Instant)>,
}

impl Follow {
    async fn open(
        link: &Arc<Link>,
        request: &WatchRequest,
        ordered_progress: bool,
        skipped: &Arc<AtomicU64>,
    ) -> Result<Self, StoreError> {
        let range = format!("watch of [{}, {})", request.start, request.end);
        let create = WatchCreateRequest {
            key: request.start.clone().into_bytes(),
            range_end: request.end.clone().into_bytes(),
            start_revision: request.from.map_or(0, |revision| revision.0),
            fragment: true,
        };
        let (outbound, requests) = mpsc::channel(4);
        // The channel is empty, so this cannot fail.
        let _ = outbound.try_send(wire::WatchRequest {
            request_union: Some(WatchUnion::Create(create)),
        });
        let deadline = Instant::now() + link.options.request_timeout;
        let opened = link
            .open::<_, wire::WatchResponse>(WATCH, ReceiverStream::new(requests), || range.clone())
            .await?;
        let mut follow = Self {
            link: Arc::clone(link),
            route: opened.route,
            skipped: Arc::clone(skipped),
            inbound: opened.inbound,
            outbound,
            range,
            held: Vec::new(),
            delivered: 0,
            newest_event: 0,
            ordered_progress,
            unconfirmed: None,
        };
        let created = loop {
            match timeout_at(deadline, follow.inbound.message()).await {
                Ok(Ok(Some(message))) if message.canceled => return Err(follow.canceled(&message)),
                Ok(Ok(Some(message))) if message.created => break message,
                Ok(Ok(Some(_))) => {}
                Ok(other) => return Err(follow.broken(other.err())),
                Err(_) => return Err(follow.silent(link.options.request_timeout)),
            }
        };
        follow.delivered = match request.from {
            Some(from) => from.0 - 1,
            // Without a revision to start from, the server starts behind the one that it confirms with.
            None => convert::revision_of(created.header.as_ref()).0,
        };
        Ok(follow)
    }

    /// The next batch, or how the watch ended.
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        let limit = self.link.options.watch_silence_limit;
        // Who was not asked need not answer.
        let ask_every = self.link.options.watch_progress_interval.min(limit / 2);
        let mut heard = Instant::now();
        let mut asked = heard;
        let mut silence = Silence::new(limit);
        loop {
            let ask_at = match self.unconfirmed {
                Some((revision, since)) if revision > self.delivered && asked <= since => {
                    since + SETTLING
                }
                _ => heard.max(asked) + ask_every,
            };
            let waits = Instant::now();
            let until = ask_at.min(waits + silence.step());
            let message = tokio::select! {
                biased;
                message = self.inbound.message() => match message {
                    Ok(Some(message)) => message,
                    other => return Err(self.broken(other.err())),
                },
                () = sleep_until(until) => {
                    if silence.lasts(waits.elapsed()) {
                        return Err(self.silent(limit));
                    }
                    if Instant::now() < ask_at {
                        continue;
                    }
                    asked = Instant::now();
                    // Full only when the server does not read, and then the silence will tell.
                    let _ = self.outbound.try_send(wire::WatchRequest {
                        request_union: Some(WatchUnion::Progress(WatchProgressRequest {})),
                    });
                    continue;
                }
            };
            heard = Instant::now();
            silence = Silence::new(limit);
            if message.canceled {
                return Err(self.canceled(&message));
            }
            if message.events.is_empty() && self.held.is_empty() {
                if let Some(batch) = self.progress(&message, heard) {
                    return Ok(batch);
                }
            } else if let Some(batch) = self.events(message) {
                return Ok(batch);
            }
        }
    }

    /// Whole revisions out of a message; the rest of a fragment is held back.
    fn events(&mut self, message: wire::WatchResponse) -> Option<WatchBatch> {
        self.unconfirmed = None;
        let mut events = std::mem::take(&mut self.held);
        events.reserve(message.events.len());
        let skipped = &*self.skipped;
        events.extend(
            message
                .events
                .into_iter()
                .filter_map(|event| convert::event(event, skipped)),
        );
        if message.fragment {
            // More of the last revision may follow. Earlier ones are complete, and go out: a catch-up over big values
            // need not fit into memory.
            let open = events.last().map(|event| event.kv.mod_revision)?;
            let split = events.partition_point(|event| event.kv.mod_revision < open);
            self.held = events.split_off(split);
        }
        if events
            .first()
            .is_some_and(|event| event.kv.mod_revision <= self.newest_event)
        {
            // Servers before 3.4.25 and 3.5.8 may send an event twice.
            events.retain(|event| event.kv.mod_revision > self.newest_event);
        }
        self.newest_event = events.last()?.kv.mod_revision;
        self.delivered = self.delivered.max(self.newest_event);
        Some(WatchBatch {
            revision: Revision(self.delivered),
            events,
        })
    }

    /// What an answer without events says about progress, if anything new.
    fn progress(&mut self, message: &wire::WatchResponse, now: Instant) -> Option<WatchBatch> {
        if message.created {
            return None;
        }
        let revision = convert::revision_of(message.header.as_ref()).0;
        let safe = if self.ordered_progress {
            revision
        } else {
            let before = self
                .unconfirmed
                .filter(|(_, since)| now.duration_since(*since) >= SETTLING);
            if before.is_some() || self.unconfirmed.is_none() {
                self.unconfirmed = Some((revision, now));
            }
            before?.0
        };
        (safe > self.delivered).then(|| {
            self.delivered = safe;
            WatchBatch {
                revision: Revision(safe),
                events: Vec::new(),
            }
        })
    }

    fn canceled(&self, message: &wire::WatchResponse) -> StoreError {
        debug!(
            range = self.range,
            compact_revision = message.compact_revision,
            reason = message.cancel_reason,
            "watch canceled"
        );
        let context = self.range.clone();
        if message.compact_revision > 0 {
            return StoreError::Compacted {
                context,
                compact_revision: message.compact_revision,
            };
        }
        let reason = message.cancel_reason.as_str();
        let verdict = match known_text(reason) {
            Some(Refusal::Unauthenticated(text)) => Verdict::TokenRefused(text),
            Some(refusal) => Verdict::Answer(refusal),
            None => Verdict::Lost(format!(
                "the server ended the watch: {}",
                if reason.is_empty() {
                    "no reason given"
                } else {
                    reason
                }
            )),
        };
        self.link.error(Access::Read, &self.route, verdict, context)
    }

    fn broken(&self, status: Option<Status>) -> StoreError {
        self.link.leave(&self.route);
        let verdict = status.map_or_else(
            || Verdict::Lost("the server ended the stream".to_owned()),
            |status| judge(&status),
        );
        self.link
            .error(Access::Read, &self.route, verdict, self.range.clone())
    }

    fn silent(&self, limit: Duration) -> StoreError {
        self.link.distrust(&self.route);
        let verdict = Verdict::Lost(format!("silent for {limit:?}"));
        self.link
            .error(Access::Read, &self.route, verdict, self.range.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn silence_is_noticed_at_its_limit() {
        let mut silence = Silence::new(LIMIT);
        let mut waited = Duration::ZERO;
        loop {
            // Less than a step where progress is asked for.
            let part = silence.step().min(Duration::from_millis(700));
            waited += part;
            if silence.lasts(part) {
                break;
            }
        }
        assert_eq!(waited, LIMIT);
    }

    #[test]
    fn a_pause_of_the_process_is_no_silence_of_the_server() {
        let mut silence = Silence::new(LIMIT);
        assert!(!silence.lasts(LIMIT * 100));
        assert!(
            silence.limit - silence.counted >= LIMIT / 2,
            "there is time for an answer"
        );
    }
}
