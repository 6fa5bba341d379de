//! Finds out what an earlier agent left of a pod: which containers run, how others ended.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use setpoint_apis::core::Container as Definition;
use setpoint_apis::records::PodActual;
use setpoint_apis::time::Timestamp;
use tracing::info;

use super::model::{
    ContainerRun, Now, Phase, PodState, RECOVERED_AFTER, Running, Verdict, definition, terminated,
};
use super::{PodContext, PodInput};
use crate::driver::{Adopted, Container, adopt_surely};
use crate::layout::PodDir;
use crate::spec::{ContainerSpec, EXIT_FILE, ExitRecord, SPEC_FILE, read_record};

/// The file in which a pod's last reported status is kept.
pub(super) const STATUS_FILE: &str = "status.json";

/// What was found.
pub(super) struct Found {
    pub(super) state: PodState,
    pub(super) handles: Vec<Option<Arc<dyn Container>>>,
    /// What was reported last.
    pub(super) reported: Option<PodActual>,
}

/// Looks at a pod's directory.
pub(super) async fn adopt(ctx: &PodContext, input: &PodInput, now: Now) -> Found {
    let dir = ctx.data.pod(&input.uid, input.placement);
    let claimed = Now {
        wall: input.claimed_at,
        mono: now.when(input.claimed_at),
    };
    let mut state = PodState::new(&input.pod.spec, claimed);
    let mut handles = Vec::new();
    let reported: Option<PodActual> = read_record(dir.path(), STATUS_FILE).unwrap_or_default();
    for (run, definition) in state
        .containers
        .iter_mut()
        .zip(input.pod.spec.all_containers())
    {
        let handle = adopt_container(ctx, &dir, definition, run, now).await;
        if handle.is_some()
            && let Some(before) = before(reported.as_ref(), &definition.name)
        {
            // What was ready is ready until a probe says otherwise: a restart of the agent takes nothing out of service.
            if before.started == Some(true) {
                run.startup = Verdict::known(true);
            }
            if before.ready {
                run.readiness = Verdict::known(true);
            }
        }
        handles.push(handle);
    }
    end_strangers(ctx, &dir, input).await;
    Found {
        state,
        handles,
        reported,
    }
}

fn before<'a>(
    reported: Option<&'a PodActual>,
    name: &str,
) -> Option<&'a setpoint_apis::core::ContainerStatus> {
    let reported = reported?;
    reported
        .init_container_statuses
        .iter()
        .chain(&reported.container_statuses)
        .find(|c| c.name == name)
}

async fn adopt_container(
    ctx: &PodContext,
    dir: &PodDir,
    container: &Definition,
    run: &mut ContainerRun,
    now: Now,
) -> Option<Arc<dyn Container>> {
    let mut attempts = dir.attempts(&container.name);
    while let Some(attempt) = attempts.pop() {
        let path = dir.attempt(&container.name, attempt);
        let adopted = adopt_surely(&*ctx.driver, &path).await;
        let millis = |nanos: i64| Timestamp::from_unix_millis(nanos / 1_000_000);
        let previous = attempts.last().and_then(|a| {
            let record: Option<ExitRecord> =
                read_record(&dir.attempt(&container.name, *a), EXIT_FILE).unwrap_or_default();
            record.map(|r| terminated(&r, None, None))
        });
        match adopted {
            Adopted::NotStarted => {
                let _ = ctx.driver.remove(path).await;
            }
            Adopted::Running(handle) => {
                let record = handle.record().clone();
                let since = now.when(millis(record.started_at));
                info!(
                    container = container.name,
                    attempt,
                    pid = record.container.pid,
                    "adopted"
                );
                *run = ContainerRun {
                    phase: Phase::Running(Running {
                        pid: record.container.pid,
                        started_at: millis(record.started_at),
                        since,
                        post_start_done: true,
                        stopping: None,
                    }),
                    attempt,
                    previous,
                    streak: attempt,
                    degraded: record.degraded,
                    ..ContainerRun::default()
                };
                let spec: Option<ContainerSpec> = read_record(&path, SPEC_FILE).unwrap_or_default();
                run.redefined = spec.is_some_and(|s| {
                    !s.definition.is_empty() && s.definition != definition(container)
                });
                return Some(handle);
            }
            Adopted::Ended(record) => {
                let ran_for = u64::try_from(record.finished_at.saturating_sub(record.started_at))
                    .unwrap_or(0);
                let recovered =
                    record.started_at > 0 && u128::from(ran_for) >= RECOVERED_AFTER.as_nanos();
                *run = ContainerRun {
                    phase: Phase::Ended {
                        at: now.when(millis(record.finished_at)),
                    },
                    attempt,
                    exit: Some(terminated(&record, None, None)),
                    previous,
                    streak: if recovered {
                        1
                    } else {
                        attempt.saturating_add(1)
                    },
                    ..ContainerRun::default()
                };
                return None;
            }
        }
    }
    None
}

/// Containers that the pod's definition no longer has are ended.
async fn end_strangers(ctx: &PodContext, dir: &PodDir, input: &PodInput) {
    let known: BTreeSet<&str> = input
        .pod
        .spec
        .all_containers()
        .map(|c| c.name.as_str())
        .collect();
    let Ok(entries) = fs::read_dir(dir.path().join("containers")) else {
        return;
    };
    for name in entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
    {
        if known.contains(name.as_str()) {
            continue;
        }
        for attempt in dir.attempts(&name) {
            let path = dir.attempt(&name, attempt);
            if let Adopted::Running(handle) = adopt_surely(&*ctx.driver, &path).await {
                handle.kill();
                handle.ended().await;
            }
            let _ = ctx.driver.remove(path).await;
        }
    }
}
