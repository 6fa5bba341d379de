//! What lies between the processes of a simulation and the store: how long messages take, which are lost, and who is cut
//! off.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How messages fare while nobody is cut off. Shares are between 0 and 1, of single messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// How long a message takes one way.
    pub delay: RangeInclusive<Duration>,
    /// How long a delivery of a watch takes.
    pub watch_delay: RangeInclusive<Duration>,
    /// Requests that never arrive.
    pub lost_requests: f64,
    /// Answers that never arrive: what was asked for has happened.
    pub lost_answers: f64,
    /// Writes that arrive only after their sender has given up waiting.
    pub late_writes: f64,
    /// How late those arrive, from when they were sent.
    pub late_by: RangeInclusive<Duration>,
    /// Deliveries after which a watch breaks.
    pub broken_watches: f64,
}

impl Default for Weather {
    /// A quiet local network.
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(1)..=Duration::from_millis(3),
            watch_delay: Duration::from_millis(1)..=Duration::from_millis(3),
            lost_requests: 0.0,
            lost_answers: 0.0,
            late_writes: 0.0,
            late_by: Duration::from_secs(4)..=Duration::from_secs(15),
            broken_watches: 0.0,
        }
    }
}

/// What becomes of one request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// When it arrives, from now; `None`: never.
    pub(crate) arrives: Option<Duration>,
    /// How long the answer takes; `None`: it is lost.
    pub(crate) returns: Option<Duration>,
}

impl Fate {
    /// It never arrives.
    pub(crate) const LOST: Self = Self {
        arrives: None,
        returns: None,
    };
}

/// The network of one simulation. Cheap to clone.
#[derive(Clone, Default)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Somebody was cut off or reconnected.
    changed: Notify,
}

#[derive(Default)]
struct State {
    weather: Weather,
    cut: BTreeSet<Arc<str>>,
}

impl Network {
    /// Changes how messages fare from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.inner.state.lock().weather = weather;
    }

    /// Cuts a process off: nothing arrives any more, in either direction.
    pub fn cut(&self, process: &Arc<str>) {
        self.inner.state.lock().cut.insert(Arc::clone(process));
        self.inner.changed.notify_waiters();
    }

    /// Reconnects a process.
    pub fn reconnect(&self, process: &Arc<str>) {
        self.inner.state.lock().cut.remove(process);
        self.inner.changed.notify_waiters();
    }

    /// Whether a process is cut off.
    pub(crate) fn is_cut(&self, process: &Arc<str>) -> bool {
        self.inner.state.lock().cut.contains(process)
    }

    /// Waits until a process has been cut off for `time` without a break.
    pub(crate) async fn cut_for(&self, process: &Arc<str>, time: Duration) {
        let mut since: Option<Instant> = None;
        loop {
            let changed = self.inner.changed.notified();
            since = self
                .is_cut(process)
                .then(|| since.unwrap_or_else(Instant::now));
            match since {
                None => changed.await,
                Some(since) => {
                    if tokio::time::timeout_at(since + time, changed)
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Waits until a process is not cut off.
    pub(crate) async fn connected(&self, process: &Arc<str>) {
        loop {
            let changed = self.inner.changed.notified();
            if !self.is_cut(process) {
                return;
            }
            changed.await;
        }
    }

    /// What becomes of a request that `process` sends now.
    pub(crate) fn fate(&self, process: &Arc<str>, writes: bool, rng: &mut Rng) -> Fate {
        let state = self.inner.state.lock();
        let weather = &state.weather;
        // Always the same number of draws, so that one message's luck does not change the next one's.
        let (lost, lost_answer, late) = (rng.f64(), rng.f64(), rng.f64());
        let (there, back) = (draw(rng, &weather.delay), draw(rng, &weather.delay));
        let late_by = draw(rng, &weather.late_by);
        if state.cut.contains(process) || lost < weather.lost_requests {
            return Fate::LOST;
        }
        if writes && late < weather.late_writes {
            return Fate {
                arrives: Some(late_by),
                returns: None,
            };
        }
        Fate {
            arrives: Some(there),
            returns: (lost_answer >= weather.lost_answers).then_some(back),
        }
    }

    /// How long a delivery of a watch takes, and whether the watch breaks after it.
    pub(crate) fn delivery(&self, rng: &mut Rng) -> (Duration, bool) {
        let state = self.inner.state.lock();
        let (breaks, delay) = (rng.f64(), draw(rng, &state.weather.watch_delay));
        (delay, breaks < state.weather.broken_watches)
    }
}

/// Whole milliseconds, the resolution of tokio's timers.
fn draw(rng: &mut Rng, range: &RangeInclusive<Duration>) -> Duration {
    let millis = |d: &Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let (from, to) = (millis(range.start()), millis(range.end()));
    Duration::from_millis(rng.u64(from..=to.max(from)))
}
