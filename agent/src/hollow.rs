//! The driver that pretends: pods become Running after a while, and nothing runs. For simulations, and for clusters of
//! thousands of nodes on one machine. Whoever has the machine may say that a pod comes to something else ([`Play`]).

mod play;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use setpoint_apis::records::PodActual;
use setpoint_apis::{ObjectKey, Timestamp};
use setpoint_runtime::Clock;
use setpoint_store::task;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::deadline::Deadline;
use crate::volumes::Discarded;
use crate::workload::{Begin, PodReport, PodRunner, PodWork, Reports};
use play::{Ending, Progress};
pub use play::{Play, RESTART_AFTER, RESTARTS};

/// How long pretending takes.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From the claim until the pod is Running and ready.
    pub start: RangeInclusive<Duration>,
    /// From the order to stop until nothing is left.
    pub stop: RangeInclusive<Duration>,
}

impl Default for Latencies {
    /// None at all.
    fn default() -> Self {
        Self {
            start: Duration::ZERO..=Duration::ZERO,
            stop: Duration::ZERO..=Duration::ZERO,
        }
    }
}

/// What runs on a pretended machine. It outlives the agent, as containers do, as long as a clone of it is kept.
#[derive(Clone)]
pub struct HollowPods {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Mutex<Pretended>,
    observer: Box<dyn Observer>,
}

#[derive(Default)]
struct Pretended {
    running: BTreeMap<Id, Run>,
    /// How pods ended by themselves: it is on the machine's disk, and stays until the pod is stopped.
    ended: BTreeMap<Id, Ending>,
    /// Until when what runs under a fence may run. A watchdog waits for each.
    deadlines: BTreeMap<i64, Instant>,
    had_session: bool,
}

#[derive(Clone, Copy)]
struct Run {
    since: Timestamp,
    begun: Instant,
    fence: Option<i64>,
    play: Play,
}

impl Run {
    /// When a status says something new of it next.
    fn next(&self) -> Option<Instant> {
        match self.play {
            Play::Run | Play::Unready => None,
            Play::Crash { serves } => Some(self.begun + self.cycle(serves).until?),
            Play::End { after, .. } => Some(self.begun + after),
        }
    }

    fn progress(&self) -> Progress {
        let since = self.since;
        match self.play {
            Play::Run | Play::End { .. } => Progress::Ready { since, restarts: 0 },
            Play::Unready => Progress::Unready { since },
            Play::Crash { serves } => {
                let cycle = self.cycle(serves);
                let since = since.saturating_add(cycle.since).whole_seconds();
                let restarts = cycle.restarts;
                match cycle.ready {
                    true => Progress::Ready { since, restarts },
                    false => Progress::Crashes { since, restarts },
                }
            }
        }
    }

    /// Where a pod is that serves for so long after each start, and crashes.
    fn cycle(&self, serves: Duration) -> Cycle {
        let (elapsed, period) = (self.begun.elapsed(), serves + RESTART_AFTER);
        let restarts = elapsed.as_nanos() / period.as_nanos();
        let restarts = u32::try_from(restarts).unwrap_or(RESTARTS).min(RESTARTS);
        let start = period * restarts;
        let ready = elapsed < start + serves;
        let (since, until) = match ready {
            true => (start, start + serves),
            false => (start + serves, start + period),
        };
        Cycle {
            restarts,
            ready,
            since,
            until: (ready || restarts < RESTARTS).then_some(until),
        }
    }
}

/// Where a pod is that crashes again and again. Times are from its first start.
struct Cycle {
    restarts: u32,
    ready: bool,
    /// Since when it is ready or waits.
    since: Duration,
    /// And until when; `None`: for good.
    until: Option<Duration>,
}

/// Pod, uid and placement.
type Id = (ObjectKey, Arc<str>, u32);

/// Hears of what begins and ends to run on a pretended machine, and says what becomes of it.
pub trait Observer: Send + Sync + 'static {
    /// What a pod comes to that is started now.
    fn play(&self, work: &PodWork) -> Play {
        let _ = work;
        Play::Run
    }
    /// A pod's containers run from now on.
    fn started(&self, pod: &ObjectKey);
    /// A pod's containers have ended.
    fn ended(&self, pod: &ObjectKey);
    /// The machine's agent has begun its work under a session; `first` when it is the machine's first one.
    fn session_began(&self, first: bool) {
        let _ = first;
    }
}

/// Nobody listens.
impl Observer for () {
    fn started(&self, _pod: &ObjectKey) {}
    fn ended(&self, _pod: &ObjectKey) {}
}

impl HollowPods {
    /// A machine on which nothing runs.
    pub fn new(observer: impl Observer) -> Self {
        Self {
            inner: Arc::new(Inner {
                machine: Mutex::default(),
                observer: Box::new(observer),
            }),
        }
    }

    /// How many pods run.
    pub fn len(&self) -> usize {
        self.inner.machine.lock().running.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The machine loses power: everything ends at once. What ran begins anew when it is back.
    pub fn power_off(&self) {
        let mut machine = self.inner.machine.lock();
        let ended = std::mem::take(&mut machine.ended);
        let before = std::mem::replace(
            &mut *machine,
            Pretended {
                ended,
                ..Pretended::default()
            },
        );
        drop(machine);
        before
            .running
            .keys()
            .for_each(|(pod, ..)| self.inner.observer.ended(pod));
    }

    /// Does nothing under a fence that has ended.
    fn start(&self, id: &Id, work: &PodWork, clock: &Clock) {
        let fence = work.fence.map(|fence| fence.revision);
        let run = Run {
            since: clock.now().whole_seconds(),
            begun: Instant::now(),
            fence,
            play: self.inner.observer.play(work),
        };
        let mut machine = self.inner.machine.lock();
        let in_time = |fence| {
            let deadline = machine.deadlines.get(&fence);
            deadline.is_some_and(|deadline| Instant::now() < *deadline)
        };
        if !fence.is_none_or(in_time) {
            return;
        }
        match machine.running.entry(id.clone()) {
            // What runs goes on since it began, under the fence of who took it over.
            Entry::Occupied(mut runs) => {
                runs.get_mut().fence = fence;
                return;
            }
            Entry::Vacant(free) => free.insert(run),
        };
        drop(machine);
        self.inner.observer.started(&id.0);
        if let Play::End { after, .. } = run.play {
            // Of the machine, as containers are: it ends whether an agent is there or not.
            let (machine, id, clock) = (Arc::downgrade(&self.inner), id.clone(), clock.clone());
            tokio::spawn(async move {
                sleep_until(run.begun + after).await;
                if let Some(machine) = machine.upgrade() {
                    machine.finish(&id, &clock);
                }
            });
        }
    }

    /// How far a pod has come, and when to look again; `None`: it neither runs nor has it ended.
    fn progress(&self, id: &Id) -> Option<(Progress, Option<Instant>)> {
        let machine = self.inner.machine.lock();
        let ended = machine.ended.get(id).copied();
        let ended = ended.map(|ending| (Progress::Ended(ending), None));
        let runs = || machine.running.get(id).map(|r| (r.progress(), r.next()));
        ended.or_else(runs)
    }

    /// Ends a pod, and forgets how it ended by itself.
    fn end(&self, id: &Id) {
        let mut machine = self.inner.machine.lock();
        machine.ended.remove(id);
        let ended = machine.running.remove(id);
        drop(machine);
        if ended.is_some() {
            self.inner.observer.ended(&id.0);
        }
    }

    /// Moves a fence's deadline. Its watchdog is of the machine, as a shim is: it goes on when the agent is frozen or dead.
    fn extend(&self, fence: i64, deadline: Instant) {
        let before = self.inner.machine.lock().deadlines.insert(fence, deadline);
        if before.is_none() {
            let machine = Arc::downgrade(&self.inner);
            tokio::spawn(async move {
                while let Some(next) = machine.upgrade().and_then(|m| m.watch(fence)) {
                    sleep_until(next).await;
                }
            });
        }
    }
}

impl Inner {
    /// A pod ends by itself, if its time has come.
    fn finish(&self, id: &Id, clock: &Clock) {
        let mut machine = self.machine.lock();
        let Some(run) = machine.running.get(id).copied() else {
            return;
        };
        let Play::End { after, code } = run.play else {
            return;
        };
        if run.begun.elapsed() < after {
            return;
        }
        let ending = Ending {
            since: run.since,
            at: clock.now().whole_seconds(),
            code,
        };
        machine.running.remove(id);
        machine.ended.insert(id.clone(), ending);
        drop(machine);
        self.observer.ended(&id.0);
    }

    /// Ends what runs under a fence when its deadline has come; when to look again, if it has not.
    fn watch(&self, fence: i64) -> Option<Instant> {
        let mut machine = self.machine.lock();
        let deadline = *machine.deadlines.get(&fence)?;
        if Instant::now() < deadline {
            return Some(deadline);
        }
        machine.deadlines.remove(&fence);
        let ended = machine
            .running
            .extract_if(.., |_, run| run.fence == Some(fence))
            .map(|((pod, ..), _)| pod)
            .collect::<Vec<_>>();
        drop(machine);
        ended.iter().for_each(|pod| self.observer.ended(pod));
        None
    }
}

/// Runs pods by saying so.
pub struct HollowRunner {
    inner: Arc<Shared>,
}

struct Shared {
    pods: HollowPods,
    reports: Arc<Reports>,
    clock: Clock,
    latencies: Latencies,
    host_ip: String,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    /// What was started or taken up by this agent, with the work that is under way.
    known: BTreeMap<(ObjectKey, u32), Known>,
}

struct Known {
    work: PodWork,
    claimed: Timestamp,
    under_way: Option<AbortHandle>,
    stopping: bool,
}

impl Known {
    fn id(&self) -> Id {
        let header = &self.work.header;
        let placement = header.placement.unwrap_or_default();
        (self.work.key.clone(), header.uid.as_str().into(), placement)
    }
}

impl HollowRunner {
    /// A pod layer over `pods` whose reports go to `reports`.
    pub fn new(
        pods: HollowPods,
        reports: Arc<Reports>,
        clock: Clock,
        latencies: Latencies,
        host_ip: String,
        seed: u64,
    ) -> Self {
        let state = State {
            rng: Rng::with_seed(seed),
            known: BTreeMap::new(),
        };
        Self {
            inner: Arc::new(Shared {
                pods,
                reports,
                clock,
                latencies,
                host_ip,
                state: Mutex::new(state),
            }),
        }
    }
}

impl HollowRunner {
    /// Begins to start a pod.
    fn begin(&self, state: &mut State, known: &mut Known) {
        let latency = state.draw(&self.inner.latencies.start);
        let (shared, work, id) = (Arc::clone(&self.inner), known.work.clone(), known.id());
        let claimed = known.claimed;
        let start = async move {
            if !latency.is_zero() {
                sleep(latency).await;
            }
            shared.pods.start(&id, &work, &shared.clock);
            Shared::follow(&shared, work, id, claimed);
        };
        known.under_way = Some(task::spawn(start).abort_handle());
    }

    /// Ends a pod after this time, or what is left of an earlier one, and reports it.
    fn end(&self, known: &mut Known, latency: Duration) {
        if known.stopping && !latency.is_zero() {
            return;
        }
        known.stopping = true;
        if let Some(former) = known.under_way.take() {
            former.abort();
        }
        let (shared, id) = (Arc::clone(&self.inner), known.id());
        if latency.is_zero() {
            // Whatever else the agent does first: it is over now.
            shared.pods.end(&id);
        }
        let end = async move {
            if !latency.is_zero() {
                sleep(latency).await;
                shared.pods.end(&id);
            }
            let (key, _, placement) = id;
            let mut state = shared.state.lock();
            state.known.remove(&(key.clone(), placement));
            drop(state);
            shared.reports.post(PodReport::Stopped(key, placement));
        };
        known.under_way = Some(task::spawn(end).abort_handle());
    }
}

impl State {
    fn draw(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let micros = |d: &Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let (from, to) = (micros(range.start()), micros(range.end()));
        Duration::from_micros(self.rng.u64(from..=to.max(from)))
    }
}

impl Shared {
    /// Reports how far a pod has come, now and whenever there is something new until it is stopped.
    fn follow(shared: &Arc<Self>, work: PodWork, id: Id, claimed: Timestamp) {
        let Some(next) = shared.tell(&work, &id, claimed) else {
            return;
        };
        let shared = Arc::clone(shared);
        task::spawn(async move {
            let mut next = Some(next);
            while let Some(at) = next {
                sleep_until(at).await;
                shared.pods.inner.finish(&id, &shared.clock);
                if shared.is_stopping(&id) {
                    return;
                }
                next = shared.tell(&work, &id, claimed);
            }
        });
    }

    fn is_stopping(&self, id: &Id) -> bool {
        let state = self.state.lock();
        let known = state.known.get(&(id.0.clone(), id.2));
        known.is_none_or(|known| known.stopping)
    }

    /// Reports how far a pod has come, and says when there will be something new.
    fn tell(&self, work: &PodWork, id: &Id, claimed: Timestamp) -> Option<Instant> {
        let (progress, next) = self.pods.progress(id)?;
        let actual = play::status(work, progress, claimed, &self.host_ip);
        let report = PodReport::Status(id.0.clone(), id.2, Box::new(actual));
        self.reports.post(report);
        next
    }
}

impl PodRunner for HollowRunner {
    fn start(&self, work: PodWork, _begin: Begin, last: Option<PodActual>) {
        let claimed = last
            .and_then(|last| last.start_time)
            .unwrap_or_else(|| self.inner.clock.now().whole_seconds());
        let mut known = Known {
            work,
            claimed,
            under_way: None,
            stopping: false,
        };
        let id = known.id();
        let mut state = self.inner.state.lock();
        if self.inner.pods.progress(&id).is_some() {
            Shared::follow(&self.inner, known.work.clone(), id.clone(), claimed);
        } else {
            self.begin(&mut state, &mut known);
        }
        state.known.insert((id.0, id.2), known);
    }

    fn update(&self, _work: PodWork) {}

    fn stop(&self, key: &ObjectKey, placement: u32) {
        let mut state = self.inner.state.lock();
        let latency = state.draw(&self.inner.latencies.stop);
        match state.known.get_mut(&(key.clone(), placement)) {
            Some(known) => self.end(known, latency),
            None => self
                .inner
                .reports
                .post(PodReport::Stopped(key.clone(), placement)),
        }
    }

    fn stop_within(&self, key: &ObjectKey, placement: u32, within: Duration) -> bool {
        let mut state = self.inner.state.lock();
        let latency = state.draw(&self.inner.latencies.stop).min(within);
        let known = state.known.get_mut(&(key.clone(), placement));
        known.map(|known| self.end(known, latency)).is_some()
    }

    /// What the watchdog has ended is started again, as containers are that end before their time.
    fn extend(&self, fence: i64, deadline: Deadline) {
        self.inner.pods.extend(fence, deadline.at);
        let mut state = self.inner.state.lock();
        let mut known = std::mem::take(&mut state.known);
        for pod in known.values_mut() {
            let under = pod.work.fence.is_some_and(|f| f.revision == fence);
            let starts = pod.under_way.as_ref().is_some_and(|s| !s.is_finished());
            let there = self.inner.pods.progress(&pod.id()).is_some();
            if under && !pod.stopping && !starts && !there {
                self.begin(&mut state, pod);
            }
        }
        state.known = known;
    }

    /// Nothing runs under it: its watchdog ends by itself.
    fn forget_fence(&self, _fence: i64) {}

    /// Called when a session begins.
    fn purge_all_but(&self, known: BTreeSet<(String, u32)>) {
        let mut machine = self.inner.pods.inner.machine.lock();
        let first = !std::mem::replace(&mut machine.had_session, true);
        let all = machine.running.keys().chain(machine.ended.keys());
        let running: Vec<Id> = all.cloned().collect();
        drop(machine);
        self.inner.pods.inner.observer.session_began(first);
        for id in running {
            if !known.contains(&(id.1.to_string(), id.2)) {
                self.inner.pods.end(&id);
            }
        }
    }

    /// There are no directories.
    fn discard_claims(&self, uids: Vec<String>) -> BoxFuture<'static, Discarded> {
        ready(uids.into_iter().map(|uid| (uid, Ok(()))).collect()).boxed()
    }
}

#[cfg(test)]
mod tests;
