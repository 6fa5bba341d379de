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
use tokio::time::sleep;

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
    running: Mutex<BTreeMap<Id, Timestamp>>,
    observer: Box<dyn Observer>,
}

/// Pod, uid and placement.
type Id = (ObjectKey, Arc<str>, u32);

/// Hears of what begins and ends to run on a pretended machine.
pub trait Observer: Send + Sync + 'static {
    /// A pod's containers run from now on.
    fn started(&self, pod: &ObjectKey);
    /// A pod's containers have ended.
    fn ended(&self, pod: &ObjectKey);
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
                running: Mutex::default(),
                observer: Box::new(observer),
            }),
        }
    }

    /// How many pods run.
    pub fn len(&self) -> usize {
        self.inner.running.lock().len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The machine loses power: everything ends at once.
    pub fn power_off(&self) {
        let ended = std::mem::take(&mut *self.inner.running.lock());
        ended
            .keys()
            .for_each(|(pod, ..)| self.inner.observer.ended(pod));
    }

    fn start(&self, id: &Id, now: Timestamp) {
        if self.inner.running.lock().insert(id.clone(), now).is_none() {
            self.inner.observer.started(&id.0);
        }
    }

    fn since(&self, id: &Id) -> Option<Timestamp> {
        self.inner.running.lock().get(id).copied()
    }

    fn end(&self, id: &Id) {
        if self.inner.running.lock().remove(id).is_some() {
            self.inner.observer.ended(&id.0);
        }
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
    uid: Arc<str>,
    under_way: Option<AbortHandle>,
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
        let placement = work.header.placement.unwrap_or_default();
        let uid: Arc<str> = work.header.uid.as_str().into();
        let id = (work.key.clone(), Arc::clone(&uid), placement);
        let shared = Arc::clone(&self.inner);
        let claimed = last
            .and_then(|last| last.start_time)
            .unwrap_or_else(|| shared.clock.now().whole_seconds());
        let key = work.key.clone();
        let mut state = self.inner.state.lock();
        let under_way = if shared.pods.since(&id).is_some() {
            shared.tell(&work, &id, claimed);
            None
        } else {
            let latency = state.draw(&self.inner.latencies.start);
            let start = async move {
                if !latency.is_zero() {
                    sleep(latency).await;
                }
                shared.pods.start(&id, shared.clock.now().whole_seconds());
                shared.tell(&work, &id, claimed);
            };
            Some(task::spawn(start).abort_handle())
        };
        let known = Known { uid, under_way };
        state.known.insert((key, placement), known);
    }

    fn update(&self, _work: PodWork) {}

    fn stop(&self, key: &ObjectKey, placement: u32) {
        let shared = Arc::clone(&self.inner);
        let mut state = self.inner.state.lock();
        let known = state.known.remove(&(key.clone(), placement));
        if let Some(start) = known.as_ref().and_then(|k| k.under_way.as_ref()) {
            start.abort();
        }
        let latency = state.draw(&self.inner.latencies.stop);
        let key = key.clone();
        task::spawn(async move {
            if !latency.is_zero() {
                sleep(latency).await;
            }
            if let Some(known) = known {
                shared.pods.end(&(key.clone(), known.uid, placement));
            }
            shared.reports.post(PodReport::Stopped(key, placement));
        });
    }

    fn purge_all_but(&self, known: BTreeSet<(String, u32)>) {
        let running: Vec<Id> = self
            .inner
            .pods
            .inner
            .running
            .lock()
            .keys()
            .cloned()
            .collect();
        for id in running {
            if !known.contains(&(id.1.to_string(), id.2)) {
                self.inner.pods.end(&id);
            }
        }
    }
}
