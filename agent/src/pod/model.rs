//! What is known of a pod's containers, and how events change it. No clock, no IO.

use std::time::Duration;

use setpoint_apis::core::{
    Container, ContainerStateTerminated, Pod, PodSpec, Probe, RestartPolicy,
};
use setpoint_apis::fnv::fnv64;
use setpoint_apis::time::Timestamp;

use crate::spec::{Degraded, ExitRecord};

/// A container that ran this long has recovered: its next failure counts as the first.
pub const RECOVERED_AFTER: Duration = Duration::from_secs(600);
/// After a hook that took all the time, containers still get this long.
const LEAST_GRACE: Duration = Duration::from_secs(2);
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// A moment: wall time for people, and a steady clock for everything that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall time.
    pub wall: Timestamp,
    /// A clock that was set to the time since the epoch when the agent started, and that no jump of wall time moves.
    pub mono: Duration,
}

impl Now {
    /// When on the steady clock something was that a former agent recorded in wall time.
    pub fn when(self, recorded: Timestamp) -> Duration {
        self.mono.saturating_sub(self.wall.duration_since(recorded))
    }
}

/// Seconds that a document gives. Beyond a hundred years they are all the same, so that sums of them are still times.
pub fn seconds(given: i64) -> Duration {
    const LONGEST: u64 = 100 * 366 * 24 * 3600;
    Duration::from_secs(given.max(0).unsigned_abs().min(LONGEST))
}

/// What is known of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodState {
    /// Init containers, then containers, in the order of the spec.
    pub containers: Vec<ContainerRun>,
    /// The volumes.
    pub volumes: VolumesPhase,
    /// What a volume could not be given.
    pub degraded: Vec<Degraded>,
    /// Why the containers are not those that the document has by now.
    pub kept: Option<String>,
    /// Why the pod may get less than its grace period when the node's fence is about to end.
    pub grace_cut: Option<String>,
    /// When the pod was claimed.
    pub claimed: Option<Now>,
    /// Set when the pod is to be stopped.
    pub stop: Option<StopOrder>,
}

/// An order to stop the whole pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopOrder {
    /// When it came.
    pub since: Duration,
    /// How long containers may take.
    pub grace: Duration,
}

/// How far the volumes are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VolumesPhase {
    /// Not looked at, or to be looked at again.
    #[default]
    Needed,
    /// Being prepared.
    Preparing,
    /// Ready to be used.
    Ready,
    /// Cannot be used for now.
    Failed {
        /// Why.
        message: String,
        /// When to try again, if nothing changes before.
        retry_at: Duration,
    },
}

/// What is known of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerRun {
    /// Where it is.
    pub phase: Phase,
    /// The number of the present or last run, which is also how often it was restarted.
    pub attempt: u32,
    /// How the present run ended.
    pub exit: Option<ContainerStateTerminated>,
    /// How the run before ended.
    pub previous: Option<ContainerStateTerminated>,
    /// Runs in a row that ended before they had recovered.
    pub streak: u32,
    /// Why it cannot be started.
    pub blocked: Option<Blocked>,
    /// Tries in a row to start it that the machine refused.
    pub refusals: u32,
    /// Ended because its definition changed, so it is started again whatever the policy.
    pub redefined: bool,
    /// Startup probe.
    pub startup: Verdict,
    /// Readiness probe.
    pub readiness: Verdict,
    /// Liveness probe.
    pub liveness: Verdict,
    /// What could not be applied to the present run.
    pub degraded: Vec<Degraded>,
}

/// Where a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has never been started.
    #[default]
    Idle,
    /// It is being started; if that cannot even be tried, it is where it was.
    Starting(Box<Phase>),
    /// It runs.
    Running(Running),
    /// Its last run has ended.
    Ended {
        /// When that was seen.
        at: Duration,
    },
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// The main process.
    pub pid: i32,
    /// Wall time of its start.
    pub started_at: Timestamp,
    /// The same on the other clock.
    pub since: Duration,
    /// The hook after the start is done, or there is none.
    pub post_start_done: bool,
    /// Set when it is being stopped.
    pub stopping: Option<Stopping>,
}

/// How far a container's end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// When it is killed.
    pub deadline: Duration,
    /// The hook before the end is done, or there is none.
    pub pre_stop_done: bool,
    /// The hook runs.
    pub pre_stop_running: bool,
    /// TERM was sent.
    pub terminated: bool,
    /// KILL was sent.
    pub killed: bool,
}

/// Why a container cannot be started for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// One word: `CreateContainerConfigError`.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When to try again, if nothing changes before.
    pub retry_at: Duration,
}

/// What a probe's results amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    successes: i32,
    failures: i32,
    /// `None` until a threshold is reached for the first time.
    pub ok: Option<bool>,
}

impl Verdict {
    /// A verdict that an earlier agent had come to.
    pub fn known(ok: bool) -> Self {
        Self {
            ok: Some(ok),
            ..Self::default()
        }
    }

    /// Takes a result.
    pub fn note(&mut self, success: bool, probe: &Probe) {
        if success {
            (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
            if self.successes >= probe.success_threshold() {
                self.ok = Some(true);
            }
        } else {
            (self.failures, self.successes) = (self.failures.saturating_add(1), 0);
            if self.failures >= probe.failure_threshold() {
                self.ok = Some(false);
            }
        }
    }
}

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Until it succeeds the others wait.
    Startup,
    /// Failing, it takes the pod out of service.
    Readiness,
    /// Failing, it restarts the container.
    Liveness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// The probe of this kind that a container has.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_deref(),
            Self::Readiness => container.readiness_probe.as_deref(),
            Self::Liveness => container.liveness_probe.as_deref(),
        }
    }

    /// The word that events begin with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

impl PodState {
    /// Of a pod that has just been claimed.
    pub fn new(spec: &PodSpec, claimed: Now) -> Self {
        Self {
            containers: spec
                .all_containers()
                .map(|_| ContainerRun::default())
                .collect(),
            claimed: Some(claimed),
            ..Self::default()
        }
    }

    /// The pod is to be stopped. An earlier order is only made shorter.
    pub fn order_stop(&mut self, now: Duration, grace: Duration) {
        let order = match self.stop {
            Some(old) if old.since + old.grace <= now + grace => old,
            _ => StopOrder { since: now, grace },
        };
        self.stop = Some(order);
        for stopping in self
            .containers
            .iter_mut()
            .filter_map(|c| c.running_mut()?.stopping.as_mut())
        {
            stopping.deadline = stopping.deadline.min(order.since + order.grace);
        }
    }
}

impl ContainerRun {
    /// The run, when it runs.
    pub fn running(&self) -> Option<&Running> {
        match &self.phase {
            Phase::Running(r) => Some(r),
            _ => None,
        }
    }

    /// The run, when it runs, to change.
    pub fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.phase {
            Phase::Running(r) => Some(r),
            _ => None,
        }
    }

    /// Whether nothing of it runs or is about to.
    pub fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Ended { .. })
    }

    /// Whether it has run at all.
    pub fn has_run(&self) -> bool {
        match &self.phase {
            Phase::Idle => false,
            Phase::Starting(before) => **before != Phase::Idle,
            Phase::Running(_) | Phase::Ended { .. } => true,
        }
    }

    /// The number of the run that comes next.
    pub fn next_attempt(&self) -> u32 {
        if self.has_run() { self.attempt + 1 } else { 0 }
    }

    /// Whether it is up as Kubernetes means it: hook done, startup probe passed.
    pub fn is_started(&self, definition: &Container) -> bool {
        self.running().is_some_and(|r| r.post_start_done)
            && (definition.startup_probe.is_none() || self.startup.ok == Some(true))
    }

    /// Whether it is ready to serve.
    pub fn is_ready(&self, definition: &Container) -> bool {
        self.is_started(definition)
            && (definition.readiness_probe.is_none() || self.readiness.ok == Some(true))
    }

    /// Whether its last run ended well.
    pub fn succeeded(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
            && self.exit.as_ref().is_some_and(|e| e.exit_code == 0)
    }

    /// It is to end within `grace`.
    pub fn begin_stop(&mut self, now: Duration, grace: Duration, has_hook: bool) {
        if let Some(running) = self.running_mut() {
            running.stopping = Some(Stopping {
                deadline: now + grace,
                pre_stop_done: !has_hook,
                pre_stop_running: false,
                terminated: false,
                killed: false,
            });
        }
    }

    /// The hook before the end has returned.
    pub fn pre_stop_returned(&mut self, now: Duration) {
        if let Some(stopping) = self.running_mut().and_then(|r| r.stopping.as_mut()) {
            stopping.pre_stop_done = true;
            stopping.deadline = stopping.deadline.max(now + LEAST_GRACE);
        }
    }

    /// A start is under way.
    pub fn begin_start(&mut self) {
        let before = std::mem::take(&mut self.phase);
        self.phase = Phase::Starting(Box::new(before));
    }

    /// A start could not be tried.
    pub fn start_blocked(&mut self, blocked: Blocked) {
        if let Phase::Starting(before) = std::mem::take(&mut self.phase) {
            self.phase = *before;
        }
        self.blocked = Some(blocked);
        self.refusals = self.refusals.saturating_add(1);
    }

    /// A run began.
    pub fn started(&mut self, running: Running, degraded: Vec<Degraded>) {
        self.begin_run();
        self.degraded = degraded;
        self.phase = Phase::Running(running);
    }

    /// A run could not begin: that counts as one that failed.
    pub fn start_failed(&mut self, exit: ContainerStateTerminated, at: Duration) {
        self.begin_run();
        self.exit = Some(exit);
        self.streak = self.streak.saturating_add(1);
        self.phase = Phase::Ended { at };
    }

    fn begin_run(&mut self) {
        self.attempt = self.next_attempt();
        if self.exit.is_some() {
            self.previous = self.exit.take();
        }
        self.blocked = None;
        self.refusals = 0;
        self.redefined = false;
        (self.startup, self.readiness, self.liveness) = Default::default();
    }

    /// The run ended.
    pub fn ended(&mut self, exit: ContainerStateTerminated, at: Duration) {
        let recovered = self
            .running()
            .is_some_and(|r| at.saturating_sub(r.since) >= RECOVERED_AFTER);
        self.streak = if recovered {
            1
        } else {
            self.streak.saturating_add(1)
        };
        self.exit = Some(exit);
        self.phase = Phase::Ended { at };
    }

    /// How long to wait after the last end. The first restart is at once, as Kubernetes' is.
    pub fn backoff(&self) -> Duration {
        match self.streak {
            0 | 1 => Duration::ZERO,
            n => FIRST_BACKOFF
                .saturating_mul(1 << (n - 2).min(10))
                .min(LONGEST_BACKOFF),
        }
    }
}

/// Whether a container that ended is started again.
pub fn restarts(spec: &PodSpec, index: usize, run: &ContainerRun) -> bool {
    if run.redefined {
        return true;
    }
    let failed = run.exit.as_ref().is_none_or(|e| e.exit_code != 0);
    match spec.init_containers.get(index) {
        Some(init) if init.is_sidecar() => true,
        Some(_) => failed && spec.restart_policy() != RestartPolicy::Never,
        None => match spec.restart_policy() {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => failed,
            RestartPolicy::Never => false,
        },
    }
}

/// How a run ended, as a pod's status has it.
pub fn terminated(
    record: &ExitRecord,
    container_id: Option<String>,
    last_words: Option<String>,
) -> ContainerStateTerminated {
    let at = |nanos: i64| {
        (nanos > 0).then(|| Timestamp::from_unix_millis(nanos / 1_000_000).whole_seconds())
    };
    let code = record.shell_code();
    let reason = match &record.error {
        Some(_) if record.started_at == 0 => "StartError",
        _ if record.oom_killed => "OOMKilled",
        None if code == 0 => "Completed",
        _ => "Error",
    };
    ContainerStateTerminated {
        exit_code: code,
        signal: record.signal,
        reason: Some(reason.to_owned()),
        message: record
            .error
            .as_ref()
            .map(ToString::to_string)
            .or(last_words),
        started_at: at(record.started_at),
        finished_at: at(record.finished_at),
        container_id,
    }
}

/// Identifies what a container is started with; differs when it has to be started again. Probes and resources may
/// change under a running container.
pub fn definition(container: &Container) -> String {
    let relevant = Container {
        liveness_probe: None,
        readiness_probe: None,
        startup_probe: None,
        lifecycle: None,
        image_pull_policy: None,
        resize_policy: Vec::new(),
        ..container.clone()
    };
    let text = serde_json::to_string(&relevant).unwrap_or_default();
    format!("{:016x}", fnv64(text.as_bytes()))
}

/// Whether two specs have the same containers in the same order. A pod has those that it began with: what they are
/// started from may change, which they are may not.
pub fn same_containers(a: &PodSpec, b: &PodSpec) -> bool {
    let names = |of: &[Container]| of.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    names(&a.init_containers) == names(&b.init_containers)
        && names(&a.containers) == names(&b.containers)
}

/// The name that people know a pod by.
pub fn pod_display(pod: &Pod) -> String {
    format!("{}/{}", pod.metadata.namespace, pod.metadata.name)
}
