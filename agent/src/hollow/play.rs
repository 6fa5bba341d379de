//! What pretended pods come to, and what is said of them.

use std::time::Duration;

use setpoint_apis::Timestamp;
use setpoint_apis::core::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, PodCondition,
};
use setpoint_apis::records::{PodActual, PodStage};

use crate::workload::PodWork;

/// What a pretended pod comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Play {
    /// It becomes ready and runs until it is stopped.
    #[default]
    Run,
    /// It runs, and never becomes ready.
    Unready,
    /// Its containers end after a time, are started again after [`RESTART_AFTER`], and so on; after [`RESTARTS`] times they
    /// wait for the next start for good.
    Crash {
        /// For so long it is ready each time; never when it is zero.
        serves: Duration,
    },
    /// It becomes ready and ends by itself after a time, with this exit code of all its containers.
    End {
        /// After so long.
        after: Duration,
        /// 0: it has succeeded.
        code: i32,
    },
}

/// How long a pod that has crashed waits for its next start.
pub const RESTART_AFTER: Duration = Duration::from_millis(400);
/// How often a pod that crashes is started again.
pub const RESTARTS: u32 = 3;

/// How a pod has ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) since: Timestamp,
    pub(super) at: Timestamp,
    pub(super) code: i32,
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It runs, and is ready, and was started again so often.
    Ready { since: Timestamp, restarts: u32 },
    /// It runs, and is not ready.
    Unready { since: Timestamp },
    /// It waits to be started again, and was so often.
    Crashes { since: Timestamp, restarts: u32 },
    /// It has ended by itself.
    Ended(Ending),
}

/// The status of a pod that has come so far.
pub(super) fn status(
    work: &PodWork,
    progress: Progress,
    claimed: Timestamp,
    host_ip: &str,
) -> PodActual {
    let (stage, changed) = match progress {
        Progress::Ready { since, .. }
        | Progress::Unready { since }
        | Progress::Crashes { since, .. } => (PodStage::Running, since),
        Progress::Ended(ending) if ending.code == 0 => (PodStage::Succeeded, ending.at),
        Progress::Ended(ending) => (PodStage::Failed, ending.at),
    };
    let ready = matches!(progress, Progress::Ready { .. });
    let containers = work.pod.spec.containers.iter();
    PodActual {
        placement: work.header.placement.unwrap_or_default(),
        uid: work.header.uid.clone(),
        stage,
        host_ip: Some(host_ip.to_owned()),
        pod_ip: Some(match work.pod_ip {
            Some(ip) => ip.to_string(),
            None => host_ip.to_owned(),
        }),
        start_time: Some(claimed),
        conditions: vec![
            PodCondition::new("Initialized", true, changed),
            PodCondition::new("ContainersReady", ready, changed),
            PodCondition::new("Ready", ready, changed),
        ],
        container_statuses: containers.map(|c| container(c, progress, ready)).collect(),
        ..PodActual::default()
    }
}

fn container(c: &Container, progress: Progress, ready: bool) -> ContainerStatus {
    let running = |since| ContainerState {
        running: Some(ContainerStateRunning {
            started_at: Some(since),
        }),
        ..ContainerState::default()
    };
    let (state, restarts) = match progress {
        Progress::Ready { since, restarts } => (running(since), restarts),
        Progress::Unready { since } => (running(since), 0),
        Progress::Crashes { restarts, .. } => {
            let waiting = ContainerStateWaiting {
                reason: Some("CrashLoopBackOff".to_owned()),
                message: None,
            };
            let state = ContainerState {
                waiting: Some(waiting),
                ..ContainerState::default()
            };
            (state, restarts)
        }
        Progress::Ended(ending) => {
            let reason = if ending.code == 0 {
                "Completed"
            } else {
                "Error"
            };
            let terminated = ContainerStateTerminated {
                exit_code: ending.code,
                reason: Some(reason.to_owned()),
                started_at: Some(ending.since),
                finished_at: Some(ending.at),
                ..ContainerStateTerminated::default()
            };
            let state = ContainerState {
                terminated: Some(terminated),
                ..ContainerState::default()
            };
            (state, 0)
        }
    };
    ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone(),
        ready,
        started: Some(ready),
        restart_count: i32::try_from(restarts).unwrap_or(i32::MAX),
        state,
        ..ContainerStatus::default()
    }
}
