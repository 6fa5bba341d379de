//! What a pod's task does: carries out actions, follows what it started, cleans up.

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::core::{Container as Definition, Lifecycle, Pod, TerminationMessagePolicy};
use setpoint_runtime::events::EventType;
use tracing::warn;

use super::{Failure, Message, Worker};
use crate::driver::{Adopted, Container, DriverError};
use crate::logs::{LogOptions, LogReader};
use crate::pod::decide::Action;
use crate::pod::model::{Now, ProbeKind, Stopping, VolumesPhase, definition};
use crate::pod::probe::{self, Target};
use crate::pod::{PodContext, PodInput, start};
use crate::volumes::{self, PreparedVolume, VolumeError, VolumeProblem};

/// How much of a failed container's log is its last words, where it asks for that. Kubernetes' numbers.
const LAST_WORDS_LINES: usize = 80;
const LAST_WORDS_BYTES: usize = 2048;
/// The longest a hook after the start may take; Kubernetes has no limit.
const POST_START_LIMIT: Duration = Duration::from_secs(3600);

impl Worker {
    pub(super) fn perform(&mut self, action: Action, now: Now) {
        match action {
            Action::PrepareVolumes => self.prepare_volumes(),
            Action::Start(container) => self.start(container),
            Action::BeginStop {
                container,
                grace,
                why,
            } => {
                let name = self.name(container);
                self.event(
                    EventType::Normal,
                    "Killing",
                    format!("Stopping container {name}: {why}"),
                );
                let has_hook =
                    lifecycle(&self.input.pod, container).is_some_and(|l| l.pre_stop.is_some());
                self.state.containers[container].begin_stop(
                    now.mono,
                    grace,
                    has_hook && !grace.is_zero(),
                );
            }
            Action::PreStop(container) => {
                if let Some(stopping) = self.stopping(container) {
                    stopping.pre_stop_running = true;
                }
                self.run_hook(container, false);
            }
            Action::Terminate(container) => {
                if let Some(stopping) = self.stopping(container) {
                    stopping.terminated = true;
                }
                if let Some(handle) = &self.handles[container] {
                    handle.signal(stop_signal(&self.input.pod, container));
                }
            }
            Action::Kill(container) => {
                if let Some(stopping) = self.stopping(container) {
                    stopping.killed = true;
                }
                if let Some(handle) = &self.handles[container] {
                    handle.kill();
                }
            }
        }
    }

    pub(super) fn stopping(&mut self, container: usize) -> Option<&mut Stopping> {
        self.state.containers[container]
            .running_mut()?
            .stopping
            .as_mut()
    }

    pub(super) fn prepare_volumes(&mut self) {
        self.prepared_version = self.content_version;
        if self.input.pod.spec.volumes.is_empty() {
            self.state.volumes = VolumesPhase::Ready;
            return;
        }
        self.state.volumes = VolumesPhase::Preparing;
        let (ctx, input, sender) = (self.ctx.clone(), self.input.clone(), self.sender.clone());
        let dir = ctx.data.pod(&input.uid, input.placement);
        let path = dir.path().to_owned();
        tokio::spawn(async move {
            let prepare = move || volumes::prepare(&dir, &ctx.facts(&input), &ctx.content);
            let result = match tokio::task::spawn_blocking(prepare).await {
                Ok(result) => result,
                Err(error) if error.is_panic() => Err(VolumeError {
                    volume: "*".to_owned(),
                    source: VolumeProblem::Host {
                        path,
                        source: std::io::Error::other(error),
                    },
                }),
                Err(_) => return, // The runtime is shutting down.
            };
            let _ = sender.send(Message::Volumes(result)).await;
        });
    }

    pub(super) fn start(&mut self, container: usize) {
        let run = &mut self.state.containers[container];
        let attempt = run.next_attempt();
        run.begin_start();
        let Some(own) = self.input.pod.spec.all_containers().nth(container).cloned() else {
            return;
        };
        let (ctx, input, volumes, sender) = (
            self.ctx.clone(),
            self.input.clone(),
            self.volumes.clone(),
            self.sender.clone(),
        );
        let (name, content_version) = (own.name.clone(), self.content_version);
        tokio::spawn(async move {
            let result = try_start(&ctx, input, own, volumes, attempt).await;
            let _ = sender
                .send(Message::Started {
                    name,
                    content_version,
                    result,
                })
                .await;
        });
    }

    /// Waits for the end of a container that runs.
    pub(super) fn follow(&mut self, container: usize) {
        let Some(handle) = &self.handles[container] else {
            return;
        };
        let run = self.next_run;
        self.next_run += 1;
        self.runs[container] = run;
        let (ended, sender) = (handle.ended(), self.sender.clone());
        let Some(own) = self.input.pod.spec.all_containers().nth(container) else {
            return;
        };
        let from_log =
            own.termination_message_policy == Some(TerminationMessagePolicy::FallbackToLogsOnError);
        let dir = self.ctx.data.pod(&self.input.uid, self.input.placement);
        let log = from_log.then(|| dir.log(&own.name, self.state.containers[container].attempt));
        tokio::spawn(async move {
            let exit = ended.await;
            let last_words = match log {
                Some(log) if exit.shell_code() != 0 => {
                    tokio::task::spawn_blocking(move || last_words(&log))
                        .await
                        .ok()
                        .flatten()
                }
                _ => None,
            };
            let _ = sender
                .send(Message::Ended {
                    container,
                    run,
                    exit,
                    last_words,
                })
                .await;
        });
    }

    pub(super) fn run_hook(&mut self, container: usize, post_start: bool) {
        let handler = lifecycle(&self.input.pod, container).and_then(|l| {
            if post_start {
                l.post_start.clone()
            } else {
                l.pre_stop.clone()
            }
        });
        let (Some(handler), Some(target)) = (handler, self.target(container)) else {
            return;
        };
        let (run, sender) = (self.runs[container], self.sender.clone());
        let now = self.ctx.clock.now().mono;
        let limit = if post_start {
            POST_START_LIMIT
        } else {
            self.stopping(container)
                .map_or(Duration::ZERO, |s| s.deadline.saturating_sub(now))
        };
        tokio::spawn(async move {
            let result = probe::hook(&handler, &target, limit).await;
            let _ = sender
                .send(Message::Hook {
                    container,
                    run,
                    post_start,
                    result,
                })
                .await;
        });
    }

    pub(super) fn target(&self, container: usize) -> Option<Target> {
        let definition = self.input.pod.spec.all_containers().nth(container)?.clone();
        let container = self.handles[container].clone()?;
        Some(Target {
            container,
            definition: Arc::new(definition),
            pod_ip: self.input.pod_ip.clone(),
        })
    }

    pub(super) fn reconcile_probes(&mut self, wanted: &[(usize, ProbeKind)]) {
        self.probes.retain(|(container, kind), (run, task)| {
            let keep =
                self.runs.get(*container) == Some(run) && wanted.contains(&(*container, *kind));
            if !keep {
                task.abort();
            }
            keep
        });
        for (container, kind) in wanted.iter().copied() {
            if self.probes.contains_key(&(container, kind)) {
                continue;
            }
            let Some(target) = self.target(container) else {
                continue;
            };
            let Some(own) = kind.of(&target.definition).cloned() else {
                continue;
            };
            let run = self.runs[container];
            let answered = kind == ProbeKind::Readiness
                && self.state.containers[container].readiness.ok == Some(true);
            let sender = self.sender.clone();
            let tell = move |result| {
                let sender = sender.clone();
                async move {
                    sender
                        .send(Message::Probe {
                            container,
                            run,
                            kind,
                            result,
                        })
                        .await
                        .is_ok()
                }
            };
            let task = tokio::spawn(probe::run(kind, own, target, answered, tell)).abort_handle();
            self.probes.insert((container, kind), (run, task));
        }
    }

    pub(super) fn stop_probes(&mut self) {
        std::mem::take(&mut self.probes)
            .into_values()
            .for_each(|(_, task)| task.abort());
    }

    /// Of a container's earlier runs only the last one is kept.
    pub(super) fn remove_old_run(&self, container: usize) {
        let Some(old) = self.state.containers[container].attempt.checked_sub(2) else {
            return;
        };
        let dir = self.ctx.data.pod(&self.input.uid, self.input.placement);
        let name = self.name(container);
        let (driver, attempt, log) = (
            self.ctx.driver.clone(),
            dir.attempt(&name, old),
            dir.log(&name, old),
        );
        tokio::spawn(async move {
            if let Err(error) = driver.remove(attempt).await {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "an old run was not removed"
                );
            }
            let _ = tokio::task::spawn_blocking(move || crate::logs::remove(&log)).await;
        });
    }

    pub(super) async fn clean_up(&mut self) {
        self.stop_probes();
        let dir = self.ctx.data.pod(&self.input.uid, self.input.placement);
        for name in self.input.pod.spec.all_containers().map(|c| c.name.clone()) {
            for attempt in dir.attempts(&name) {
                let _ = self.ctx.driver.remove(dir.attempt(&name, attempt)).await;
            }
        }
        let removed = tokio::task::spawn_blocking(move || volumes::remove_pod_dir(&dir)).await;
        if let Ok(Err(error)) = removed {
            warn!(
                pod = self.identity.display,
                error = &error as &dyn std::error::Error,
                "the pod's directory was not removed"
            );
        }
        self.ctx
            .reporter
            .stopped(&self.input.key, self.input.placement);
    }
}

pub(super) fn lifecycle(pod: &Pod, container: usize) -> Option<&Lifecycle> {
    pod.spec
        .all_containers()
        .nth(container)?
        .lifecycle
        .as_deref()
}

/// TERM, unless the container asks for another one.
fn stop_signal(pod: &Pod, container: usize) -> i32 {
    let name = lifecycle(pod, container).and_then(|l| l.stop_signal.as_deref());
    match name.map(|n| n.strip_prefix("SIG").unwrap_or(n)) {
        Some("INT") => libc::SIGINT,
        Some("QUIT") => libc::SIGQUIT,
        Some("HUP") => libc::SIGHUP,
        Some("USR1") => libc::SIGUSR1,
        Some("USR2") => libc::SIGUSR2,
        Some("KILL") => libc::SIGKILL,
        Some("WINCH") => libc::SIGWINCH,
        _ => libc::SIGTERM,
    }
}

async fn try_start(
    ctx: &Arc<PodContext>,
    input: PodInput,
    container: Definition,
    volumes: Vec<PreparedVolume>,
    attempt: u32,
) -> Result<Arc<dyn Container>, Failure> {
    let build = {
        let ctx = ctx.clone();
        move || {
            start::request(
                &ctx,
                &input,
                &container,
                &volumes,
                attempt,
                definition(&container),
            )
        }
    };
    let request = match tokio::task::spawn_blocking(build).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => {
            let message = error.to_string();
            return Err(Failure::Blocked {
                reason: "CreateContainerConfigError",
                message,
                until_content_changes: true,
            });
        }
        Err(error) if error.is_panic() => {
            return Err(Failure::Blocked {
                reason: "CreateContainerError",
                message: format!("a bug of the agent: {error}"),
                until_content_changes: false,
            });
        }
        Err(_) => std::future::pending().await, // The runtime is shutting down.
    };
    let dir = request.dir.clone();
    match ctx.driver.start(request).await {
        Ok(handle) => Ok(handle),
        Err(DriverError::Start(error)) => Err(Failure::Failed(error)),
        Err(error) => {
            // The machine, not the container, is at fault: the same run is tried again, unless it goes on after all.
            // Where that cannot be told everything stays as it is: the next try finds the directory in use.
            match ctx.driver.adopt(dir.clone()).await {
                Ok(Adopted::Running(handle)) => return Ok(handle),
                Ok(Adopted::NotStarted | Adopted::Ended(_)) => {
                    let _ = ctx.driver.remove(dir).await;
                }
                Err(_) => {}
            }
            let mut message = error.to_string();
            if let Some(cause) = std::error::Error::source(&error) {
                message = format!("{message}: {cause}");
            }
            Err(Failure::Blocked {
                reason: "CreateContainerError",
                message,
                until_content_changes: false,
            })
        }
    }
}

fn last_words(log: &std::path::Path) -> Option<String> {
    let mut reader = LogReader::open(
        log,
        &LogOptions {
            tail: Some(LAST_WORDS_LINES),
            ..LogOptions::default()
        },
    )
    .ok()?;
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = reader.next_chunk() {
        text.extend(chunk);
    }
    let text = String::from_utf8_lossy(&text);
    let mut from = text.len().saturating_sub(LAST_WORDS_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    (!text.is_empty()).then(|| text[from..].to_owned())
}
