use std::time::Duration;

use setpoint_apis::core::{ContainerStateTerminated, Pod};
use setpoint_apis::document;

use super::*;
use crate::pod::decide::decide;
use crate::pod::model::{Blocked, Running};

fn pod(spec: &str) -> Pod {
    document::decode(
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: ns}}\nspec: {spec}\n")
            .as_bytes(),
    )
    .unwrap()
}

const ONE: &str = "{containers: [{name: a, image: host, command: [x]}]}";
const WITH_INIT: &str = "{initContainers: [{name: i, image: host, command: [x]}], containers: [{name: a, image: host, command: [x]}]}";

fn at(seconds: u64) -> Now {
    Now {
        wall: Timestamp::from_unix_seconds(seconds as i64),
        mono: Duration::from_secs(seconds),
    }
}

fn state(pod: &Pod) -> PodState {
    PodState {
        volumes: VolumesPhase::Ready,
        ..PodState::new(&pod.spec, at(0))
    }
}

fn running(since: u64) -> Running {
    Running {
        pid: 7,
        started_at: Timestamp::from_unix_seconds(since as i64),
        since: Duration::from_secs(since),
        post_start_done: true,
        stopping: None,
    }
}

fn exit(code: i32) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: code,
        reason: Some("Error".into()),
        ..Default::default()
    }
}

fn reported(pod: &Pod, state: &PodState, before: Option<&PodActual>, now: Now) -> PodActual {
    let id = Identity {
        uid: "u".into(),
        placement: 3,
        display: "ns/p".into(),
        host_ip: "h".into(),
        pod_ip: "ip".into(),
        driver: "process",
    };
    report(
        &id,
        &pod.spec,
        state,
        &decide(&pod.spec, state, now),
        before,
        now,
    )
}

fn condition<'a>(actual: &'a PodActual, kind: &str) -> &'a PodCondition {
    actual
        .conditions
        .iter()
        .find(|c| c.type_ == kind)
        .unwrap_or_else(|| panic!("{kind} in {:?}", actual.conditions))
}

fn waiting(actual: &PodActual) -> &str {
    actual.container_statuses[0]
        .state
        .waiting
        .as_ref()
        .and_then(|w| w.reason.as_deref())
        .unwrap_or("not waiting")
}

#[test]
fn a_running_pod_is_ready_and_says_where() {
    let pod = pod(ONE);
    let mut s = state(&pod);
    s.containers[0].begin_start();
    assert_eq!(
        waiting(&reported(&pod, &s, None, at(1))),
        "ContainerCreating"
    );
    s.containers[0].started(running(1), Vec::new());
    let a = reported(&pod, &s, None, at(1));
    assert!(a.is_ready());
    assert_eq!(
        (a.placement, a.stage, a.pod_ip.as_deref()),
        (3, PodStage::Running, Some("ip"))
    );
    let c = &a.container_statuses[0];
    assert_eq!(
        (
            c.ready,
            c.started,
            c.restart_count,
            c.container_id.as_deref()
        ),
        (true, Some(true), 0, Some("process://u/a/7"))
    );
    assert_eq!(
        c.state.running.as_ref().unwrap().started_at,
        Some(Timestamp::from_unix_seconds(1))
    );
}

#[test]
fn a_crash_loop_shows_as_waiting_with_the_last_end() {
    let pod = pod(ONE);
    let mut s = state(&pod);
    s.containers[0].started(running(1), Vec::new());
    s.containers[0].ended(exit(1), Duration::from_secs(2));
    s.containers[0].started(running(2), Vec::new());
    s.containers[0].ended(exit(2), Duration::from_secs(3));
    let a = reported(&pod, &s, None, at(4));
    let c = &a.container_statuses[0];
    assert_eq!((waiting(&a), c.restart_count), ("CrashLoopBackOff", 1));
    assert_eq!(c.last_state.terminated.as_ref().unwrap().exit_code, 2);
    assert!(
        c.state
            .waiting
            .as_ref()
            .unwrap()
            .message
            .as_ref()
            .unwrap()
            .contains("back-off 10s restarting failed container=a pod=ns/p")
    );
    assert_eq!(a.stage, PodStage::Running, "as kubectl has it");
}

#[test]
fn a_blocked_container_says_why() {
    let pod = pod(ONE);
    let mut s = state(&pod);
    s.containers[0].begin_start();
    s.containers[0].start_blocked(Blocked {
        reason: "CreateContainerConfigError".into(),
        message: "secret \"x\" not found".into(),
        retry_at: Duration::MAX,
    });
    let a = reported(&pod, &s, None, at(4));
    assert_eq!(
        (waiting(&a), a.stage),
        ("CreateContainerConfigError", PodStage::Starting)
    );
    s.containers[0] = ContainerRun::default();
    s.volumes = VolumesPhase::Failed {
        message: "volume \"v\": secret \"x\" not found".into(),
        retry_at: Duration::MAX,
    };
    let a = reported(&pod, &s, None, at(4));
    assert!(
        a.container_statuses[0]
            .state
            .waiting
            .as_ref()
            .unwrap()
            .message
            .as_ref()
            .unwrap()
            .contains("secret")
    );
}

#[test]
fn conditions_keep_their_time_while_they_do_not_change() {
    let pod = pod(WITH_INIT);
    let mut s = state(&pod);
    s.containers[0].started(running(1), Vec::new());
    let first = reported(&pod, &s, None, at(1));
    assert_eq!(waiting(&first), "PodInitializing");
    assert_eq!(
        condition(&first, "Initialized").reason.as_deref(),
        Some("ContainersNotInitialized")
    );
    s.containers[0].ended(exit(0), Duration::from_secs(5));
    s.containers[1].started(running(5), Vec::new());
    let second = reported(&pod, &s, Some(&first), at(5));
    let third = reported(&pod, &s, Some(&second), at(9));
    assert_eq!(
        second, third,
        "nothing changed, so nothing is to be written"
    );
    assert_eq!(
        condition(&third, "Ready").last_transition_time,
        Some(Timestamp::from_unix_seconds(5))
    );
    assert!(third.init_container_statuses[0].ready);
}

#[test]
fn what_could_not_be_applied_is_a_condition_and_otherwise_there_is_none() {
    let pod = pod(ONE);
    let mut s = state(&pod);
    s.containers[0].started(running(1), Vec::new());
    assert!(
        reported(&pod, &s, None, at(1))
            .conditions
            .iter()
            .all(|c| c.type_ != "ResourceLimitsApplied")
    );
    let degraded = vec![
        Degraded {
            what: "cgroup.memory".into(),
            why: "not root".into(),
        },
        Degraded {
            what: "mounts".into(),
            why: "not root".into(),
        },
    ];
    s.containers[0].degraded = degraded;
    let a = reported(&pod, &s, None, at(1));
    assert_eq!(condition(&a, "ResourceLimitsApplied").status, "False");
    assert_eq!(
        condition(&a, "ResourceLimitsApplied").message.as_deref(),
        Some("cgroup.memory: not root")
    );
    assert_eq!(condition(&a, "VolumesMounted").status, "False");
}

#[test]
fn a_pod_that_is_done_is_not_ready_because_it_is_completed() {
    let pod = pod("{restartPolicy: Never, containers: [{name: a, image: host, command: [x]}]}");
    let mut s = state(&pod);
    s.containers[0].started(running(1), Vec::new());
    s.containers[0].ended(exit(0), Duration::from_secs(2));
    let a = reported(&pod, &s, None, at(2));
    assert_eq!(
        (a.stage, condition(&a, "Ready").reason.as_deref()),
        (PodStage::Succeeded, Some("PodCompleted"))
    );
    assert_eq!(
        a.container_statuses[0]
            .state
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        0
    );
}
