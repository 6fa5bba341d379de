//! All lease renewals of a process over one stream.
//!
//! The server answers a stream's renewals in order. The stream is opened with the first renewal and again, at the next
//! endpoint, after it broke; renewals that were waiting then fail, and their callers ask again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::debug;

use super::errors::{Access, Verdict, judge};
use super::link::{Link, Route};
use crate::error::StoreError;
use crate::types::LeaseId;

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// Renewals that wait for the stream, and those under way on it.
const CAPACITY: usize = 4096;

/// A renewal that nobody waits for any more after so long is a sign that the stream hangs. Keepers wait for a third of
/// the lease's time, which is more than this for the shortest lease that etcd grants (2 s by default).
const IMPATIENCE: Duration = Duration::from_millis(500);

/// The process's keep-alive stream.
pub(super) struct Renewer {
    link: Arc<Link>,
    asks: Mutex<Option<mpsc::Sender<Ask>>>,
}

struct Ask {
    lease: LeaseId,
    reply: oneshot::Sender<Result<Duration, StoreError>>,
}

struct Waiting {
    ask: Ask,
    since: Instant,
}

impl Renewer {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            asks: Mutex::new(None),
        }
    }

    /// Renews a lease once.
    pub(super) async fn renew(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        let limit = self.link.options.request_timeout;
        let unavailable = |message: String| StoreError::Unavailable {
            context: context(lease),
            message,
        };
        let (reply, answer) = oneshot::channel();
        let asks = self.asks();
        let renewal = async {
            asks.send(Ask { lease, reply })
                .await
                .map_err(|_| unavailable("the keep-alive stream has ended".to_owned()))?;
            answer
                .await
                .map_err(|_| unavailable("the keep-alive stream has ended".to_owned()))?
        };
        timeout(limit, renewal).await.unwrap_or_else(|_| {
            Err(unavailable(format!(
                "{}: no answer within {limit:?}",
                self.link.names()
            )))
        })
    }

    /// The way to the stream's task, which is started when there is none (any more).
    fn asks(&self) -> mpsc::Sender<Ask> {
        let mut slot = self.asks.lock();
        match &*slot {
            Some(asks) if !asks.is_closed() => asks.clone(),
            _ => {
                let (sender, receiver) = mpsc::channel(CAPACITY);
                tokio::spawn(run(Arc::clone(&self.link), receiver));
                *slot = Some(sender.clone());
                sender
            }
        }
    }
}

fn context(lease: LeaseId) -> String {
    format!("renewal of lease {:x}", lease.0)
}

/// Lives as long as the store.
async fn run(link: Arc<Link>, mut asks: mpsc::Receiver<Ask>) {
    while let Some(mut first) = asks.recv().await {
        let (outbound, requests) = mpsc::channel(CAPACITY);
        // The channel is empty, so this cannot fail. The server confirms the stream only with its first answer.
        let _ = outbound.try_send(PbLeaseKeepAliveRequest { id: first.lease.0 });
        let since = Instant::now();
        let (lease, route) = (first.lease, link.route());
        let opening = link.open(KEEP_ALIVE, ReceiverStream::new(requests), || context(lease));
        // A member that is silent from the start would hold up the renewals for longer than leases live.
        let opened = tokio::select! {
            biased;
            opened = opening => opened,
            () = given_up(&mut first.reply, since) => {
                debug!(lease = lease.0, "opening the keep-alive stream takes too long; trying another member");
                link.distrust(&route);
                continue;
            }
        };
        match opened {
            Ok(opened) => {
                let stream = KeepAlive {
                    link: &link,
                    route: opened.route,
                    inbound: opened.inbound,
                    outbound,
                    waiting: VecDeque::from([Waiting { ask: first, since }]),
                };
                stream.serve(&mut asks).await;
            }
            Err(error) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    "the keep-alive stream could not be opened"
                );
                // Who came meanwhile would wait for the same failure.
                let others = std::iter::from_fn(|| asks.try_recv().ok());
                for ask in std::iter::once(first).chain(others) {
                    let _ = ask
                        .reply
                        .send(Err(error.clone().with_context(context(ask.lease))));
                }
            }
        }
    }
}

/// Waits until nobody waits for a renewal any more that was asked for a while ago.
async fn given_up(reply: &mut oneshot::Sender<Result<Duration, StoreError>>, since: Instant) {
    reply.closed().await;
    sleep_until(since + IMPATIENCE).await;
}

struct KeepAlive<'a> {
    link: &'a Link,
    route: Route,
    inbound: Streaming<PbLeaseKeepAliveResponse>,
    outbound: mpsc::Sender<PbLeaseKeepAliveRequest>,
    waiting: VecDeque<Waiting>,
}

impl KeepAlive<'_> {
    /// Serves until the stream breaks or nobody can ask any more.
    async fn serve(mut self, asks: &mut mpsc::Receiver<Ask>) {
        let verdict = loop {
            let oldest = self.waiting.front().map(|waiting| waiting.since);
            let overdue = oldest.map_or_else(Instant::now, |since| {
                since + self.link.options.request_timeout
            });
            tokio::select! {
                biased;
                message = self.inbound.message() => match message {
                    Ok(Some(answer)) => self.answered(&answer),
                    Ok(None) => break Verdict::Lost("the server ended the keep-alive stream".to_owned()),
                    Err(status) => break judge(&status),
                },
                ask = asks.recv(), if self.waiting.len() < CAPACITY => {
                    let Some(ask) = ask else { return };
                    let given_up = self.waiting.front()
                        .is_some_and(|waiting| waiting.ask.reply.is_closed() && waiting.since.elapsed() > IMPATIENCE);
                    let sent = self.outbound.try_send(PbLeaseKeepAliveRequest { id: ask.lease.0 });
                    self.waiting.push_back(Waiting { ask, since: Instant::now() });
                    if given_up || sent.is_err() {
                        break Verdict::Lost("the keep-alive stream hangs".to_owned());
                    }
                }
                () = sleep_until(overdue), if oldest.is_some() => {
                    break Verdict::Lost("the keep-alive stream is silent".to_owned());
                }
            }
        };
        match &verdict {
            Verdict::Lost(_) | Verdict::NotSent(_) => self.link.distrust(&self.route),
            Verdict::TokenRefused(_) => self.link.forget_token(),
            Verdict::Answer(_) => {}
        }
        let error = self
            .link
            .error(Access::Read, &self.route, verdict, String::new());
        debug!(
            error = &error as &dyn std::error::Error,
            waiting = self.waiting.len(),
            "the keep-alive stream broke"
        );
        for waiting in self.waiting {
            let error = error.clone().with_context(context(waiting.ask.lease));
            let _ = waiting.ask.reply.send(Err(error));
        }
    }

    fn answered(&mut self, answer: &PbLeaseKeepAliveResponse) {
        // Answers come in order, so it is the first.
        let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| waiting.ask.lease.0 == answer.id)
        else {
            return;
        };
        let Some(waiting) = self.waiting.remove(at) else {
            return;
        };
        let lease = waiting.ask.lease;
        let _ = waiting.ask.reply.send(match u64::try_from(answer.ttl) {
            Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
            _ => Err(StoreError::LeaseNotFound {
                context: context(lease),
            }),
        });
    }
}
