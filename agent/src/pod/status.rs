//! What a pod's state looks like to everybody else: the record under the node's actual tree.

use setpoint_apis::core::{
    Container, ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus,
    PodCondition, PodSpec,
};
use setpoint_apis::records::{PodActual, PodStage};
use setpoint_apis::time::Timestamp;

use super::decide::Plan;
use super::model::{ContainerRun, Now, Phase, PodState, VolumesPhase, restarts};
use crate::spec::Degraded;

/// What of a pod's status does not come from its containers.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The pod's uid.
    pub uid: String,
    /// The placement that was claimed.
    pub placement: u32,
    /// The name that events and messages use: `namespace/name`.
    pub display: String,
    /// The node's address.
    pub host_ip: String,
    /// The pod's address.
    pub pod_ip: String,
    /// The driver, for container ids.
    pub driver: &'static str,
}

/// The record for the present state. Conditions keep their time from `before` while they do not change.
pub fn report(
    id: &Identity,
    spec: &PodSpec,
    state: &PodState,
    plan: &Plan,
    before: Option<&PodActual>,
    now: Now,
) -> PodActual {
    let inits = spec.init_containers.len();
    let status = |(i, c): (usize, &Container)| container_status(id, spec, state, plan, i, c, now);
    let mut statuses: Vec<ContainerStatus> =
        spec.all_containers().enumerate().map(status).collect();
    let container_statuses = statuses.split_off(inits);
    let (reason, message) = plan.reason.clone().unzip();
    let mut actual = PodActual {
        placement: id.placement,
        uid: id.uid.clone(),
        stage: plan.stage,
        reason,
        message,
        host_ip: Some(id.host_ip.clone()),
        pod_ip: Some(id.pod_ip.clone()),
        start_time: state.claimed.map(|c| c.wall.whole_seconds()),
        conditions: Vec::new(),
        init_container_statuses: statuses,
        container_statuses,
        fence: None,
        metadata: None,
    };
    actual.conditions = conditions(state, plan, &actual, before, now.wall.whole_seconds());
    actual
}

fn container_status(
    id: &Identity,
    spec: &PodSpec,
    state: &PodState,
    plan: &Plan,
    i: usize,
    c: &Container,
    now: Now,
) -> ContainerStatus {
    let run = &state.containers[i];
    let is_init = i < spec.init_containers.len();
    let (present, last) = states(id, spec, state, plan, i, c, now);
    let ready = if is_init && !c.is_sidecar() {
        run.succeeded()
    } else {
        run.is_ready(c)
    };
    let container_id = run
        .running()
        .map(|r| format!("{}://{}/{}/{}", id.driver, id.uid, c.name, r.pid));
    ContainerStatus {
        name: c.name.clone(),
        state: present,
        last_state: last,
        ready: ready && plan.stage != PodStage::Stopping,
        restart_count: i32::try_from(run.attempt).unwrap_or(i32::MAX),
        image: c.image.clone(),
        image_id: String::new(),
        container_id,
        started: Some(run.is_started(c)),
    }
}

/// The present and the last state of a container.
fn states(
    id: &Identity,
    spec: &PodSpec,
    state: &PodState,
    plan: &Plan,
    i: usize,
    c: &Container,
    now: Now,
) -> (ContainerState, ContainerState) {
    let run = &state.containers[i];
    let over = |t: &Option<_>| ContainerState {
        terminated: t.clone(),
        ..ContainerState::default()
    };
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..ContainerState::default()
    };
    if let Phase::Running(r) = &run.phase {
        let running = ContainerStateRunning {
            started_at: Some(r.started_at.whole_seconds()),
        };
        return (
            ContainerState {
                running: Some(running),
                ..ContainerState::default()
            },
            over(&run.previous),
        );
    }
    let will_start = matches!(plan.stage, PodStage::Starting | PodStage::Running)
        && (run.phase == Phase::Idle
            || matches!(run.phase, Phase::Starting(_))
            || restarts(spec, i, run));
    // A run that has ended becomes the last one when the next one is waited for.
    let last = if run.exit.is_some() {
        &run.exit
    } else {
        &run.previous
    };
    if let Some(blocked) = run.blocked.as_ref().filter(|_| will_start) {
        return (
            waiting(&blocked.reason, Some(blocked.message.clone())),
            over(last),
        );
    }
    match &run.phase {
        Phase::Ended { at } if will_start && now.mono < *at + run.backoff() => {
            let message = format!(
                "back-off {}s restarting failed container={} pod={}",
                run.backoff().as_secs(),
                c.name,
                id.display
            );
            (waiting("CrashLoopBackOff", Some(message)), over(&run.exit))
        }
        Phase::Ended { .. } => (over(&run.exit), over(&run.previous)),
        _ => {
            let is_init = i < spec.init_containers.len();
            let failure = match &state.volumes {
                VolumesPhase::Failed { message, .. } => Some(message.clone()),
                _ => None,
            };
            let reason = if failure.is_none() && !plan.initialized && !is_init {
                "PodInitializing"
            } else {
                "ContainerCreating"
            };
            (waiting(reason, failure), over(last))
        }
    }
}

fn conditions(
    state: &PodState,
    plan: &Plan,
    actual: &PodActual,
    before: Option<&PodActual>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let unready: Vec<&str> = actual
        .container_statuses
        .iter()
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    let incomplete: Vec<&str> = actual
        .init_container_statuses
        .iter()
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    let named = |what: &str, names: &[&str]| {
        format!("containers with {what} status: [{}]", names.join(" "))
    };
    let mut found = Vec::new();
    let initialized = PodCondition::new("Initialized", plan.initialized, now);
    found.push(if plan.initialized {
        initialized
    } else {
        initialized.because("ContainersNotInitialized", named("incomplete", &incomplete))
    });
    for kind in ["ContainersReady", "Ready"] {
        let condition = PodCondition::new(kind, unready.is_empty() && plan.initialized, now);
        found.push(match plan.stage {
            _ if condition.is_true() => condition,
            PodStage::Succeeded => PodCondition {
                reason: Some("PodCompleted".to_owned()),
                ..condition
            },
            PodStage::Failed => PodCondition {
                reason: Some("PodFailed".to_owned()),
                ..condition
            },
            _ => condition.because("ContainersNotReady", named("unready", &unready)),
        });
    }
    found.extend(degraded(state, now));
    if let Some(why) = &state.kept {
        let condition = PodCondition::new("SpecApplied", false, now);
        found.push(condition.because("ContainersChanged", why.clone()));
    }
    if let Some(why) = &state.grace_cut {
        let condition = PodCondition::new("GracePeriodKept", false, now);
        found.push(condition.because("FenceLeaseTooShort", why.clone()));
    }
    if let Some(before) = before {
        for condition in &mut found {
            if let Some(same) = before
                .conditions
                .iter()
                .find(|b| b.type_ == condition.type_ && b.status == condition.status)
            {
                condition.last_transition_time = same.last_transition_time;
            }
        }
    }
    found
}

/// Conditions that are there only when something could not be applied.
fn degraded(state: &PodState, now: Timestamp) -> Vec<PodCondition> {
    let all: Vec<&Degraded> = state
        .degraded
        .iter()
        .chain(state.containers.iter().flat_map(|c| &c.degraded))
        .collect();
    let about = |pick: &dyn Fn(&str) -> bool| {
        let mut reasons: Vec<String> = all
            .iter()
            .filter(|d| pick(&d.what))
            .map(|d| format!("{}: {}", d.what, d.why))
            .collect();
        reasons.sort();
        reasons.dedup();
        reasons.join("; ")
    };
    let mut found = Vec::new();
    for (kind, reason, message) in [
        (
            "ResourceLimitsApplied",
            "CgroupsNotPermitted",
            about(&|w| w.starts_with("cgroup.")),
        ),
        (
            "VolumesMounted",
            "MountsNotPermitted",
            about(&|w| w == "mounts" || w.starts_with("volumes.")),
        ),
    ] {
        if !message.is_empty() {
            found.push(PodCondition::new(kind, false, now).because(reason, message));
        }
    }
    found
}

/// Whether a container waits after a failure, for the event that says so.
pub fn in_backoff(run: &ContainerRun, now: Now) -> bool {
    matches!(run.phase, Phase::Ended { at } if now.mono < at + run.backoff())
}

#[cfg(test)]
mod tests;
