//! The task of one pod: takes events, decides, carries out, reports.

mod execute;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::core::{ContainerStateTerminated, Pod, PodSpec};
use setpoint_apis::records::{PodActual, PodStage};
use setpoint_apis::time::Timestamp;
use setpoint_runtime::events::{EventRef, EventType};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::adopt::{STATUS_FILE, adopt};
use super::decide::{Plan, decide};
use super::model::{
    Blocked, Now, Phase, PodState, ProbeKind, Running, VolumesPhase, definition, pod_display,
    same_containers, seconds, terminated,
};
use super::status::{Identity, in_backoff, report};
use super::{Orders, PodContext, PodInput};
use crate::deadline;
use crate::driver::Container;
use crate::spec::{ExitRecord, StepError, read_record, write_record};
use crate::volumes::{PreparedVolume, VolumeError, VolumeProblem};
use execute::lifecycle;

/// Messages that may wait for a pod's task; senders wait beyond that.
const QUEUE: usize = 16;
/// While containers are being started for the first time nothing is reported for this long: the claim says as much, and
/// usually they run before it is over.
const QUIET_START: Duration = Duration::from_millis(300);
/// When what the machine refused is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How often that wait doubles for a container that cannot be started: up to about five minutes.
const RETRY_DOUBLINGS: u32 = 6;
/// When it is tried again although nothing has changed: a repair of what a bug missed.
const RETRY_CONTENT: Duration = Duration::from_secs(60);

/// The file in which the spec is kept that a pod goes on with after its document got other containers.
const KEPT_FILE: &str = "kept-spec.json";

/// What a pod's task learns of its own doings.
enum Message {
    Volumes(Result<Vec<PreparedVolume>, VolumeError>),
    Started {
        name: String,
        content_version: u64,
        result: Result<Arc<dyn Container>, Failure>,
    },
    Ended {
        container: usize,
        run: u64,
        exit: ExitRecord,
        last_words: Option<String>,
    },
    Hook {
        container: usize,
        run: u64,
        post_start: bool,
        result: Result<(), String>,
    },
    Probe {
        container: usize,
        run: u64,
        kind: ProbeKind,
        result: Result<(), String>,
    },
}

/// Why a container did not start.
enum Failure {
    /// It cannot even be tried.
    Blocked {
        reason: &'static str,
        message: String,
        until_content_changes: bool,
    },
    /// It was tried.
    Failed(StepError),
}

pub(super) async fn run(ctx: Arc<PodContext>, mut input: PodInput, orders: Arc<Orders>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let kept = kept_before(&ctx, &mut input);
    let mut found = adopt(&ctx, &input, ctx.clock.now()).await;
    found.state.kept = kept;
    found.state.grace_cut = grace_cut(&input);
    let begins = found.reported.is_none();
    let count = found.handles.len();
    let mut worker = Worker {
        identity: identity(&ctx, &input),
        runs: vec![0; count],
        next_run: 1,
        backed_off: vec![0; count],
        probes: BTreeMap::new(),
        volumes: Vec::new(),
        content_version: 0,
        prepared_version: 0,
        state: found.state,
        handles: found.handles,
        reported: found.reported,
        ctx,
        input,
        orders,
        sender,
        receiver,
    };
    for i in 0..count {
        worker.follow(i);
    }
    if begins && let Some(why) = worker.state.grace_cut.clone() {
        worker.event(EventType::Warning, "GracePeriodCut", why);
    }
    worker.run().await;
}

/// Of a definition with other containers only the metadata is taken; the reason, for people. The spec that goes on is
/// kept on disk, for the agent that comes after this one.
fn keep_containers(
    ctx: &PodContext,
    input: &mut PodInput,
    present: &Arc<PodSpec>,
) -> Option<String> {
    let dir = ctx.data.pod(&input.uid, input.placement);
    if same_containers(present, &input.pod.spec) {
        let _ = std::fs::remove_file(dir.path().join(KEPT_FILE));
        return None;
    }
    if let Err(error) = write_record(dir.path(), KEPT_FILE, &**present) {
        warn!(object = %input.key, error = &error as &dyn std::error::Error, "the spec that a pod goes on with was not kept on disk");
    }
    let names = |spec: &PodSpec| {
        let names: Vec<&str> = spec.all_containers().map(|c| c.name.as_str()).collect();
        names.join(" ")
    };
    let why = format!(
        "the document has the containers [{}], and those of a running pod stay [{}]: delete the pod and create it anew to change them",
        names(&input.pod.spec),
        names(present)
    );
    let mut pod = Pod::clone(&input.pod);
    pod.spec = present.clone();
    input.pod = Arc::new(pod);
    Some(why)
}

/// The same for what an earlier agent has kept.
fn kept_before(ctx: &PodContext, input: &mut PodInput) -> Option<String> {
    let dir = ctx.data.pod(&input.uid, input.placement);
    let kept: PodSpec = read_record(dir.path(), KEPT_FILE).ok().flatten()?;
    keep_containers(ctx, input, &Arc::new(kept))
}

/// Why the pod may get less than its grace period, for people: there is not room enough for it in the fence lease.
fn grace_cut(input: &PodInput) -> Option<String> {
    let seconds_of = |time: Duration| time.as_secs_f64();
    let ttl = Duration::from_secs(input.fence?.lease_ttl_seconds.try_into().ok()?);
    let grace = seconds(input.pod.spec.termination_grace_period_seconds());
    let room = deadline::room(ttl);
    (grace > room).then(|| {
        format!(
            "when the node can no longer renew its fence lease the pod has {} s to stop, and not {} s: the lease lives {} s (--fence-lease-ttl of the agent)",
            seconds_of(room),
            seconds_of(grace),
            seconds_of(ttl),
        )
    })
}

fn identity(ctx: &PodContext, input: &PodInput) -> Identity {
    Identity {
        uid: input.uid.to_string(),
        placement: input.placement,
        display: pod_display(&input.pod),
        host_ip: ctx.node.address.clone(),
        pod_ip: input.pod_ip.clone(),
        driver: ctx.driver.name(),
    }
}

struct Worker {
    ctx: Arc<PodContext>,
    input: PodInput,
    identity: Identity,
    state: PodState,
    handles: Vec<Option<Arc<dyn Container>>>,
    /// Numbers the runs of all containers, so that what is late is told apart.
    runs: Vec<u64>,
    next_run: u64,
    /// The streak at which an event about backing off was last recorded.
    backed_off: Vec<u32>,
    probes: BTreeMap<(usize, ProbeKind), (u64, AbortHandle)>,
    volumes: Vec<PreparedVolume>,
    /// Counts the changes of content, and of the definition.
    content_version: u64,
    /// The version that the volumes were last prepared from.
    prepared_version: u64,
    reported: Option<PodActual>,
    orders: Arc<Orders>,
    sender: mpsc::Sender<Message>,
    receiver: mpsc::Receiver<Message>,
}

impl Worker {
    async fn run(mut self) {
        // What is to stop before it has begun does not begin.
        self.take_orders();
        loop {
            let now = self.ctx.clock.now();
            let plan = decide(&self.input.pod.spec, &self.state, now);
            if !plan.actions.is_empty() {
                for action in plan.actions {
                    self.perform(action, now);
                }
                continue;
            }
            self.reconcile_probes(&plan.probes);
            self.note_backoff(now);
            let wake_at = self.report(&plan, now);
            if plan.stopped {
                self.clean_up().await;
                return;
            }
            let wake = wake_at.map(|at| self.ctx.clock.instant(at));
            // Cancel safety: a message is taken out of the channel or stays in it; orders stay until they are taken. What
            // is due by time is decided after every event, so the timer may come last.
            tokio::select! {
                biased;
                () = self.orders.given.notified() => {}
                message = self.receiver.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = sleep_until(wake) => {}
            }
            while let Ok(message) = self.receiver.try_recv() {
                self.take(message);
            }
            self.take_orders();
        }
    }

    // ---- what happens ----

    fn take_orders(&mut self) {
        let orders = self.orders.take();
        if let Some(input) = orders.update {
            self.update(*input);
        }
        if orders.content_changed {
            self.content_changed();
        }
        if let Some(grace) = orders.stop {
            let own = seconds(self.input.pod.spec.termination_grace_period_seconds());
            self.state
                .order_stop(self.ctx.clock.now().mono, grace.unwrap_or(own));
        }
    }

    fn take(&mut self, message: Message) {
        let now = self.ctx.clock.now();
        match message {
            Message::Volumes(result) => self.volumes_prepared(result, now),
            Message::Started {
                name,
                content_version,
                result,
            } => {
                let container = self
                    .input
                    .pod
                    .spec
                    .all_containers()
                    .position(|c| c.name == name);
                match (container, result) {
                    (Some(container), result) => {
                        self.started(container, content_version, result, now)
                    }
                    // It was taken out of the definition while it was being started.
                    (None, Ok(handle)) => handle.kill(),
                    (None, Err(_)) => {}
                }
            }
            Message::Ended {
                container,
                run,
                exit,
                last_words,
            } if self.is_present(container, run) => {
                self.ended(container, &exit, last_words, now);
            }
            Message::Hook {
                container,
                run,
                post_start,
                result,
            } if self.is_present(container, run) => {
                self.hook_returned(container, post_start, result, now);
            }
            Message::Probe {
                container,
                run,
                kind,
                result,
            } if self.is_present(container, run) => {
                self.probed(container, kind, result);
            }
            Message::Ended { .. } | Message::Hook { .. } | Message::Probe { .. } => {} // Of a run that is over.
        }
    }

    /// Whether a message is about the present run of a container, and not about one that is over or gone.
    fn is_present(&self, container: usize, run: u64) -> bool {
        self.runs.get(container) == Some(&run)
    }

    /// What is changed of a container that runs restarts it. Which containers there are does not change.
    fn update(&mut self, mut input: PodInput) {
        let present = &self.input.pod.spec;
        self.state.kept = keep_containers(&self.ctx, &mut input, present);
        self.state.grace_cut = grace_cut(&input);
        for ((run, old), new) in self
            .state
            .containers
            .iter_mut()
            .zip(present.all_containers())
            .zip(input.pod.spec.all_containers())
        {
            run.redefined |= run.running().is_some() && definition(old) != definition(new);
        }
        self.input = input;
        self.identity = identity(&self.ctx, &self.input);
        self.backed_off.fill(0);
        self.stop_probes();
        self.content_changed();
    }

    fn content_changed(&mut self) {
        self.content_version += 1;
        for run in &mut self.state.containers {
            if let Some(blocked) = &mut run.blocked {
                blocked.retry_at = Duration::ZERO;
            }
        }
        let reads = !self.input.pod.spec.volumes.is_empty();
        if self.state.volumes != VolumesPhase::Preparing && reads {
            self.state.volumes = VolumesPhase::Needed;
        }
    }

    fn volumes_prepared(&mut self, result: Result<Vec<PreparedVolume>, VolumeError>, now: Now) {
        match result {
            Ok(volumes) => {
                for degraded in volumes.iter().filter_map(|v| v.degraded.clone()) {
                    if !self.state.degraded.contains(&degraded) {
                        self.state.degraded.push(degraded);
                    }
                }
                self.volumes = volumes;
                self.state.volumes = VolumesPhase::Ready;
            }
            Err(error) => {
                let message = error.reason();
                self.event(
                    EventType::Warning,
                    "FailedMount",
                    format!("MountVolume.SetUp failed for {message}"),
                );
                let retry = if matches!(error.source, VolumeProblem::Content(_)) {
                    RETRY_CONTENT
                } else {
                    RETRY
                };
                self.state.volumes = VolumesPhase::Failed {
                    message,
                    retry_at: now.mono + retry,
                };
            }
        }
        if self.prepared_version != self.content_version {
            self.state.volumes = VolumesPhase::Needed;
        }
    }

    fn started(
        &mut self,
        container: usize,
        content_version: u64,
        result: Result<Arc<dyn Container>, Failure>,
        now: Now,
    ) {
        let name = self.name(container);
        match &result {
            Ok(_) => self.event(
                EventType::Normal,
                "Started",
                format!("Started container {name}"),
            ),
            Err(Failure::Failed(error)) => {
                self.event(
                    EventType::Warning,
                    "Failed",
                    format!("Error: {name}: {error}"),
                );
            }
            Err(Failure::Blocked { message, .. }) => {
                self.event(
                    EventType::Warning,
                    "Failed",
                    format!("Error: {name}: {message}"),
                );
            }
        }
        let run = &mut self.state.containers[container];
        match result {
            Ok(handle) => {
                let record = handle.record();
                let has_hook =
                    lifecycle(&self.input.pod, container).is_some_and(|l| l.post_start.is_some());
                let running = Running {
                    pid: record.container.pid,
                    started_at: Timestamp::from_unix_millis(record.started_at / 1_000_000),
                    since: now.mono,
                    post_start_done: !has_hook,
                    stopping: None,
                };
                run.started(running, record.degraded.clone());
                self.handles[container] = Some(handle);
                self.follow(container);
                if has_hook {
                    self.run_hook(container, true);
                }
                self.remove_old_run(container);
            }
            Err(Failure::Failed(error)) => {
                let at = now.wall.as_unix_millis() * 1_000_000;
                let record = ExitRecord {
                    finished_at: at,
                    error: Some(error),
                    ..ExitRecord::default()
                };
                run.start_failed(terminated(&record, None, None), now.mono);
                self.remove_old_run(container);
            }
            Err(Failure::Blocked {
                reason,
                message,
                until_content_changes,
            }) => {
                let retry = match until_content_changes {
                    // What is missing may have come while we looked for it.
                    true if content_version != self.content_version => Duration::ZERO,
                    true => RETRY_CONTENT,
                    false => RETRY * (1 << run.refusals.min(RETRY_DOUBLINGS)),
                };
                run.start_blocked(Blocked {
                    reason: reason.to_owned(),
                    message,
                    retry_at: now.mono + retry,
                });
            }
        }
    }

    fn ended(&mut self, container: usize, exit: &ExitRecord, last_words: Option<String>, now: Now) {
        let name = self.name(container);
        let pid = self.state.containers[container]
            .running()
            .map_or(0, |r| r.pid);
        let id = format!(
            "{}://{}/{name}/{pid}",
            self.identity.driver, self.identity.uid
        );
        let state: ContainerStateTerminated = terminated(exit, Some(id), last_words);
        debug!(
            pod = self.identity.display,
            container = name,
            code = state.exit_code,
            reason = state.reason,
            "ended"
        );
        if exit.oom_killed {
            self.event(
                EventType::Warning,
                "OOMKilled",
                format!("Container {name} needed more memory than its limit"),
            );
        }
        if exit.log_lines_dropped > 0 {
            let lost = exit.log_lines_dropped;
            self.event(
                EventType::Warning,
                "LogLinesLost",
                format!("{lost} log lines of container {name} could not be written"),
            );
        }
        self.state.containers[container].ended(state, now.mono);
        self.handles[container] = None;
        self.runs[container] = 0;
    }

    fn hook_returned(
        &mut self,
        container: usize,
        post_start: bool,
        result: Result<(), String>,
        now: Now,
    ) {
        let name = self.name(container);
        let (reason, hook) = if post_start {
            ("FailedPostStartHook", "PostStartHook")
        } else {
            ("FailedPreStopHook", "PreStopHook")
        };
        let failed = result.is_err();
        if let Err(why) = result {
            self.event(
                EventType::Warning,
                reason,
                format!("{hook} of container {name} failed: {why}"),
            );
        }
        let grace = seconds(self.input.pod.spec.termination_grace_period_seconds());
        let run = &mut self.state.containers[container];
        if !post_start {
            run.pre_stop_returned(now.mono);
        } else if failed {
            run.begin_stop(now.mono, grace, false);
        } else if let Some(running) = run.running_mut() {
            running.post_start_done = true;
        }
    }

    fn probed(&mut self, container: usize, kind: ProbeKind, result: Result<(), String>) {
        if let Err(why) = &result {
            self.event(
                EventType::Warning,
                "Unhealthy",
                format!("{} probe failed: {why}", kind.as_str()),
            );
        }
        let Some(probe) = self
            .input
            .pod
            .spec
            .all_containers()
            .nth(container)
            .and_then(|c| kind.of(c))
        else {
            return;
        };
        let run = &mut self.state.containers[container];
        let verdict = match kind {
            ProbeKind::Startup => &mut run.startup,
            ProbeKind::Readiness => &mut run.readiness,
            ProbeKind::Liveness => &mut run.liveness,
        };
        verdict.note(result.is_ok(), probe);
    }

    // ---- what is told ----

    /// Reports what has changed. Returns when to look again at the latest.
    fn report(&mut self, plan: &Plan, now: Now) -> Option<Duration> {
        let quiet_until = self
            .state
            .claimed
            .map_or(Duration::ZERO, |c| c.mono + QUIET_START);
        let starting = self.state.volumes == VolumesPhase::Preparing
            || self
                .state
                .containers
                .iter()
                .any(|c| matches!(c.phase, Phase::Starting(_)));
        if self.reported.is_none() && starting && now.mono < quiet_until {
            return Some(plan.wake_at.map_or(quiet_until, |w| w.min(quiet_until)));
        }
        let mut actual = report(
            &self.identity,
            &self.input.pod.spec,
            &self.state,
            plan,
            self.reported.as_ref(),
            now,
        );
        if actual.stage == PodStage::Stopping {
            actual.keep_metadata(&self.input.pod.metadata);
        }
        if self.reported.as_ref() != Some(&actual) {
            let dir = self.ctx.data.pod(&self.input.uid, self.input.placement);
            if !plan.stopped
                && let Err(error) = write_record(dir.path(), STATUS_FILE, &actual)
            {
                warn!(
                    pod = self.identity.display,
                    error = &error as &dyn std::error::Error,
                    "the status was not kept on disk"
                );
            }
            self.reported = Some(actual.clone());
            self.ctx.reporter.status(&self.input.key, actual);
        }
        plan.wake_at
    }

    fn note_backoff(&mut self, now: Now) {
        for i in 0..self.state.containers.len() {
            let run = &self.state.containers[i];
            if in_backoff(run, now) && self.backed_off[i] != run.streak {
                self.backed_off[i] = run.streak;
                let name = self.name(i);
                self.event(
                    EventType::Warning,
                    "BackOff",
                    format!("Back-off restarting failed container {name}"),
                );
            }
        }
    }

    fn event(&self, event_type: EventType, reason: &'static str, message: String) {
        let object = EventRef::of::<Pod>(&self.input.key, self.input.uid.clone());
        self.ctx.recorder.event(object, event_type, reason, message);
    }

    fn name(&self, container: usize) -> String {
        self.input
            .pod
            .spec
            .all_containers()
            .nth(container)
            .map(|c| c.name.clone())
            .unwrap_or_default()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop_probes();
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
