//! The driver that pretends: pods become Running after a while, and nothing runs. For simulations, and for clusters of
//! thousands of nodes on one machine.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use setpoint_apis::core::{ContainerState, ContainerStateRunning, ContainerStatus, PodCondition};
use setpoint_apis::records::{PodActual, PodStage};
use setpoint_apis::{ObjectKey, Timestamp};
use setpoint_runtime::Clock;
use setpoint_store::task;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::deadline::Deadline;
use crate::workload::{Begin, PodReport, PodRunner, PodWork, Reports};

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
    /// Until when what runs under a fence may run. A watchdog waits for each.
    deadlines: BTreeMap<i64, Instant>,
    had_session: bool,
}

#[derive(Clone, Copy)]
struct Run {
    since: Timestamp,
    fence: Option<i64>,
}

/// Pod, uid and placement.
type Id = (ObjectKey, Arc<str>, u32);

/// Hears of what begins and ends to run on a pretended machine.
pub trait Observer: Send + Sync + 'static {
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

    /// The machine loses power: everything ends at once.
    pub fn power_off(&self) {
        let ended = std::mem::take(&mut *self.inner.machine.lock());
        ended
            .running
            .keys()
            .for_each(|(pod, ..)| self.inner.observer.ended(pod));
    }

    /// Does nothing under a fence that has ended.
    fn start(&self, id: &Id, now: Timestamp, fence: Option<i64>) {
        let mut machine = self.inner.machine.lock();
        let in_time = |fence| {
            let deadline = machine.deadlines.get(&fence);
            deadline.is_some_and(|deadline| Instant::now() < *deadline)
        };
        if !fence.is_none_or(in_time) {
            return;
        }
        let run = Run { since: now, fence };
        if machine.running.insert(id.clone(), run).is_none() {
            drop(machine);
            self.inner.observer.started(&id.0);
        }
    }

    fn since(&self, id: &Id) -> Option<Timestamp> {
        self.inner.machine.lock().running.get(id).map(|r| r.since)
    }

    fn end(&self, id: &Id) {
        let ended = self.inner.machine.lock().running.remove(id);
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
            let fence = work.fence.map(|fence| fence.revision);
            let now = shared.clock.now().whole_seconds();
            shared.pods.start(&id, now, fence);
            shared.tell(&work, &id, claimed);
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
    fn tell(&self, work: &PodWork, id: &Id, claimed: Timestamp) {
        let Some(since) = self.pods.since(id) else {
            return;
        };
        let condition = |name| PodCondition::new(name, true, since);
        let status = |c: &setpoint_apis::core::Container, running| ContainerStatus {
            name: c.name.clone(),
            image: c.image.clone(),
            ready: true,
            started: Some(true),
            state: ContainerState {
                running,
                ..ContainerState::default()
            },
            ..ContainerStatus::default()
        };
        let running = || {
            Some(ContainerStateRunning {
                started_at: Some(since),
            })
        };
        let actual = PodActual {
            placement: id.2,
            uid: id.1.to_string(),
            stage: PodStage::Running,
            host_ip: Some(self.host_ip.clone()),
            pod_ip: Some(match work.pod_ip {
                Some(ip) => ip.to_string(),
                None => self.host_ip.clone(),
            }),
            start_time: Some(claimed),
            conditions: ["Initialized", "ContainersReady", "Ready"]
                .map(condition)
                .into(),
            container_statuses: work
                .pod
                .spec
                .containers
                .iter()
                .map(|c| status(c, running()))
                .collect(),
            ..PodActual::default()
        };
        let report = PodReport::Status(id.0.clone(), id.2, Box::new(actual));
        self.reports.post(report);
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
        if self.inner.pods.since(&id).is_some() {
            self.inner.tell(&known.work, &id, claimed);
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
            if under && !pod.stopping && !starts && self.inner.pods.since(&pod.id()).is_none() {
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
        let running: Vec<Id> = machine.running.keys().cloned().collect();
        drop(machine);
        self.inner.pods.inner.observer.session_began(first);
        for id in running {
            if !known.contains(&(id.1.to_string(), id.2)) {
                self.inner.pods.end(&id);
            }
        }
    }
}
