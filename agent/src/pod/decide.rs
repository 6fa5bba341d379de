//! What to do next with a pod: a pure function of its spec, what is known of its containers, and the time.
//!
//! Init containers run one after the other; those with `restartPolicy: Always` stay and are stopped last. Then the
//! containers run together and are restarted as the policy says. What has to stop is asked first and killed when its
//! time is over.

use std::time::Duration;

use setpoint_apis::core::{Container, PodSpec};
use setpoint_apis::records::PodStage;

use super::model::{
    ContainerRun, Now, Phase, PodState, ProbeKind, VolumesPhase, restarts, seconds,
};

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Now, in this order.
    pub actions: Vec<Action>,
    /// When to decide again if nothing happens before.
    pub wake_at: Option<Duration>,
    /// Which probes are to run.
    pub probes: Vec<(usize, ProbeKind)>,
    /// Where the pod is.
    pub stage: PodStage,
    /// Why, when there is something to explain.
    pub reason: Option<(String, String)>,
    /// All init containers are done (sidecars: are up).
    pub initialized: bool,
    /// The order to stop has been carried out: nothing runs.
    pub stopped: bool,
}

/// One thing to do. Containers are named by their place in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Prepare the volumes.
    PrepareVolumes,
    /// Start a container.
    Start(usize),
    /// Begin to stop a container: it has so long.
    BeginStop {
        /// The container.
        container: usize,
        /// Its time.
        grace: Duration,
        /// Why, for people.
        why: &'static str,
    },
    /// Run the hook before the end.
    PreStop(usize),
    /// Ask the container to end.
    Terminate(usize),
    /// End it.
    Kill(usize),
}

/// Decides.
pub fn decide(spec: &PodSpec, state: &PodState, now: Now) -> Plan {
    let mut d = Decision {
        spec,
        state,
        now,
        plan: Plan::default(),
    };
    d.decide();
    d.plan
}

struct Decision<'a> {
    spec: &'a PodSpec,
    state: &'a PodState,
    now: Now,
    plan: Plan,
}

impl Decision<'_> {
    fn decide(&mut self) {
        let mains_begun = self
            .mains()
            .any(|(i, _)| !matches!(self.state.containers[i].phase, Phase::Idle));
        self.plan.initialized = mains_begun || self.init_done();
        if let Some(stop) = self.state.stop {
            self.plan.stage = PodStage::Stopping;
            self.stop_all(stop.since + stop.grace, "the pod is stopped");
            // What prepares the volumes cannot be called off, and would write into what has been cleaned up.
            self.plan.stopped = self.state.volumes != VolumesPhase::Preparing
                && self.state.containers.iter().all(ContainerRun::is_down);
            return;
        }
        if let Some((stage, reason)) = self.outcome() {
            // What is left are sidecars, or containers past the pod's deadline.
            let grace = self.pod_grace();
            self.plan.stage = stage;
            self.plan.reason = reason;
            self.stop_all(self.now.mono + grace, "the pod is done");
            return;
        }
        if self.past_deadline() {
            self.plan.stage = PodStage::Failed;
            let message =
                "Pod was active on the node longer than the specified deadline".to_owned();
            self.plan.reason = Some(("DeadlineExceeded".to_owned(), message));
            let grace = self.pod_grace();
            self.stop_all(self.now.mono + grace, "the pod's deadline is over");
            return;
        }
        self.plan.stage = self.live_stage();
        self.volumes();
        self.restart_unhealthy();
        if self.state.volumes == VolumesPhase::Ready {
            self.start_what_should_run(mains_begun);
        }
        self.probes();
    }

    fn mains(&self) -> impl Iterator<Item = (usize, &Container)> {
        let first = self.spec.init_containers.len();
        self.spec
            .containers
            .iter()
            .enumerate()
            .map(move |(i, c)| (first + i, c))
    }

    fn pod_grace(&self) -> Duration {
        seconds(self.spec.termination_grace_period_seconds())
    }

    fn wake(&mut self, at: Duration) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |w| w.min(at)));
    }

    /// All init containers have ended well, sidecars are up.
    fn init_done(&self) -> bool {
        let runs = self.spec.init_containers.iter().zip(&self.state.containers);
        runs.into_iter().all(|(c, run)| {
            if c.is_sidecar() {
                run.is_started(c)
            } else {
                run.succeeded()
            }
        })
    }

    /// How the pod ended, once it is clear that nothing of it will be started again.
    fn outcome(&self) -> Option<(PodStage, Option<(String, String)>)> {
        for (i, init) in self.spec.init_containers.iter().enumerate() {
            let run = &self.state.containers[i];
            let over = matches!(run.phase, Phase::Ended { .. }) && !run.succeeded();
            if !init.is_sidecar() && over && !restarts(self.spec, i, run) && !self.plan.initialized
            {
                return Some((PodStage::Failed, None));
            }
        }
        let mut failed = false;
        for (i, _) in self.mains() {
            let run = &self.state.containers[i];
            if !matches!(run.phase, Phase::Ended { .. }) || restarts(self.spec, i, run) {
                return None;
            }
            failed |= !run.succeeded();
        }
        if self.spec.containers.is_empty() {
            return None;
        }
        Some((
            if failed {
                PodStage::Failed
            } else {
                PodStage::Succeeded
            },
            None,
        ))
    }

    fn past_deadline(&mut self) -> bool {
        let (Some(limit), Some(claimed)) = (self.spec.active_deadline_seconds, self.state.claimed)
        else {
            return false;
        };
        let deadline = claimed.mono + seconds(limit);
        if self.now.mono >= deadline {
            return true;
        }
        self.wake(deadline);
        false
    }

    /// Pending until every container has run once.
    fn live_stage(&self) -> PodStage {
        if self
            .mains()
            .all(|(i, _)| self.state.containers[i].has_run())
        {
            PodStage::Running
        } else {
            PodStage::Starting
        }
    }

    fn volumes(&mut self) {
        match &self.state.volumes {
            VolumesPhase::Needed => self.plan.actions.push(Action::PrepareVolumes),
            VolumesPhase::Failed { retry_at, .. } if self.now.mono >= *retry_at => {
                self.plan.actions.push(Action::PrepareVolumes);
            }
            VolumesPhase::Failed { retry_at, .. } => self.wake(*retry_at),
            VolumesPhase::Preparing | VolumesPhase::Ready => {}
        }
    }

    fn restart_unhealthy(&mut self) {
        for (i, c) in self.spec.all_containers().enumerate() {
            let run = &self.state.containers[i];
            let Some(running) = run.running() else {
                continue;
            };
            let failed = [
                (&run.startup, &c.startup_probe),
                (&run.liveness, &c.liveness_probe),
            ]
            .into_iter()
            .find_map(|(verdict, probe)| probe.as_ref().filter(|_| verdict.ok == Some(false)));
            let grace = match failed {
                Some(probe) => probe.termination_grace_period_seconds.map(seconds),
                None => None,
            };
            let deadline = self.now.mono + grace.unwrap_or_else(|| self.pod_grace());
            if failed.is_some() {
                self.stop_one(i, deadline, "its probe fails");
            } else if run.redefined {
                self.stop_one(i, deadline, "its definition changed");
            } else if running.stopping.is_some() {
                self.stop_one(i, deadline, "");
            }
        }
    }

    fn start_what_should_run(&mut self, mains_begun: bool) {
        for (i, init) in self.spec.init_containers.iter().enumerate() {
            let run = &self.state.containers[i];
            let done = if init.is_sidecar() {
                run.is_started(init)
            } else {
                run.succeeded()
            };
            if init.is_sidecar() || !mains_begun {
                self.start_if_due(i);
                if !done && !mains_begun {
                    return;
                }
            }
        }
        for i in self.spec.init_containers.len()..self.state.containers.len() {
            self.start_if_due(i);
        }
    }

    fn start_if_due(&mut self, i: usize) {
        let run = &self.state.containers[i];
        let due = match &run.phase {
            Phase::Idle => Duration::ZERO,
            Phase::Ended { at } if restarts(self.spec, i, run) => {
                if run.redefined {
                    Duration::ZERO
                } else {
                    *at + run.backoff()
                }
            }
            _ => return,
        };
        let due = run.blocked.as_ref().map_or(due, |b| due.max(b.retry_at));
        if self.now.mono >= due {
            self.plan.actions.push(Action::Start(i));
        } else {
            self.wake(due);
        }
    }

    fn probes(&mut self) {
        for (i, c) in self.spec.all_containers().enumerate() {
            let run = &self.state.containers[i];
            let regular_init = self
                .spec
                .init_containers
                .get(i)
                .is_some_and(|c| !c.is_sidecar());
            if regular_init
                || !run
                    .running()
                    .is_some_and(|r| r.post_start_done && r.stopping.is_none())
            {
                continue;
            }
            let started = run.is_started(c);
            for kind in ProbeKind::ALL {
                let wanted = if kind == ProbeKind::Startup {
                    !started
                } else {
                    started
                };
                if wanted && kind.of(c).is_some() {
                    self.plan.probes.push((i, kind));
                }
            }
        }
    }

    /// Stops the containers together, then the sidecars, the last one first.
    fn stop_all(&mut self, deadline: Duration, why: &'static str) {
        let sidecar = |i: usize| {
            self.spec
                .init_containers
                .get(i)
                .is_some_and(Container::is_sidecar)
        };
        let count = self.state.containers.len();
        let ordinary_down = (0..count)
            .filter(|i| !sidecar(*i))
            .all(|i| self.state.containers[i].is_down());
        for i in (0..count).filter(|i| !sidecar(*i)) {
            self.stop_one(i, deadline, why);
        }
        if ordinary_down || self.now.mono >= deadline {
            for i in (0..count).rev().filter(|i| sidecar(*i)) {
                self.stop_one(i, deadline, why);
                if !self.state.containers[i].is_down() && self.now.mono < deadline {
                    break;
                }
            }
        } else {
            self.wake(deadline);
        }
    }

    /// The next step of stopping one container.
    fn stop_one(&mut self, container: usize, deadline: Duration, why: &'static str) {
        let Some(running) = self.state.containers[container].running() else {
            return;
        };
        let Some(stopping) = &running.stopping else {
            let grace = deadline.saturating_sub(self.now.mono);
            self.plan.actions.push(Action::BeginStop {
                container,
                grace,
                why,
            });
            return;
        };
        let deadline = stopping.deadline;
        if self.now.mono >= deadline {
            if !stopping.killed {
                self.plan.actions.push(Action::Kill(container));
            }
            return;
        }
        if !stopping.pre_stop_done {
            if !stopping.pre_stop_running {
                self.plan.actions.push(Action::PreStop(container));
            }
        } else if !stopping.terminated {
            self.plan.actions.push(Action::Terminate(container));
        }
        self.wake(deadline);
    }
}

#[cfg(test)]
mod tests;
