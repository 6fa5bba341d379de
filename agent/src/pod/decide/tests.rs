//! Stories: a pod is decided on, what was decided is carried out on the model, and so on until nothing is left to do.

use setpoint_apis::core::{ContainerStateTerminated, Pod};
use setpoint_apis::document;
use setpoint_apis::time::Timestamp;

use super::*;
use crate::pod::model::{Blocked, Running};

fn pod(spec: &str) -> Pod {
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: ns}}\nspec:\n  {}\n",
        spec.replace('\n', "\n  ")
    );
    document::decode(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

const ONE: &str = "containers: [{name: a, image: host, command: [x]}]";

/// A pod whose containers do what the test says.
struct Story {
    pod: Pod,
    state: PodState,
    now: Duration,
    /// What was done, in order: `start a`, `term a`, `kill a`, `hook a`.
    done: Vec<String>,
}

impl Story {
    fn of(spec: &str) -> Self {
        let pod = pod(spec);
        let state = PodState::new(
            &pod.spec,
            Now {
                wall: Timestamp::EPOCH,
                mono: Duration::ZERO,
            },
        );
        let mut story = Self {
            pod,
            state,
            now: Duration::ZERO,
            done: Vec::new(),
        };
        story.settle();
        story
    }

    fn plan(&self) -> Plan {
        decide(
            &self.pod.spec,
            &self.state,
            Now {
                wall: Timestamp::EPOCH,
                mono: self.now,
            },
        )
    }

    /// Carries out plans until there is nothing to do.
    fn settle(&mut self) {
        for _ in 0..100 {
            let plan = self.plan();
            if plan.actions.is_empty() {
                return;
            }
            for action in plan.actions {
                self.perform(action);
            }
        }
        panic!("never settles: {:?}", self.done);
    }

    fn perform(&mut self, action: Action) {
        let name = |i: usize| self.pod.spec.all_containers().nth(i).unwrap().name.clone();
        let now = self.now;
        let word = match &action {
            Action::PrepareVolumes => return self.state.volumes = VolumesPhase::Ready,
            Action::BeginStop {
                container, grace, ..
            } => {
                let hook = self
                    .pod
                    .spec
                    .all_containers()
                    .nth(*container)
                    .unwrap()
                    .lifecycle
                    .as_ref()
                    .is_some_and(|l| l.pre_stop.is_some());
                return self.state.containers[*container].begin_stop(now, *grace, hook);
            }
            Action::Start(i) => format!("start {}", name(*i)),
            Action::PreStop(i) => format!("hook {}", name(*i)),
            Action::Terminate(i) => format!("term {}", name(*i)),
            Action::Kill(i) => format!("kill {}", name(*i)),
        };
        self.done.push(word);
        match action {
            Action::Start(i) => {
                let run = &mut self.state.containers[i];
                run.begin_start();
                run.started(
                    Running {
                        pid: 1,
                        since: now,
                        post_start_done: true,
                        ..Running::default()
                    },
                    Vec::new(),
                );
            }
            Action::PreStop(i) => self.stopping(i).pre_stop_running = true,
            Action::Terminate(i) => self.stopping(i).terminated = true,
            Action::Kill(i) => self.stopping(i).killed = true,
            _ => {}
        }
    }

    fn stopping(&mut self, i: usize) -> &mut crate::pod::model::Stopping {
        self.state.containers[i]
            .running_mut()
            .unwrap()
            .stopping
            .as_mut()
            .unwrap()
    }

    fn index(&self, name: &str) -> usize {
        self.pod
            .spec
            .all_containers()
            .position(|c| c.name == name)
            .unwrap()
    }

    fn ends(&mut self, name: &str, code: i32) {
        let i = self.index(name);
        self.state.containers[i].ended(
            ContainerStateTerminated {
                exit_code: code,
                ..Default::default()
            },
            self.now,
        );
        self.settle();
    }

    fn after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.settle();
    }

    fn stop(&mut self, grace: u64) {
        self.state.order_stop(self.now, Duration::from_secs(grace));
        self.settle();
    }

    fn probed(&mut self, name: &str, kind: ProbeKind, ok: bool, times: usize) {
        let i = self.index(name);
        let probe = kind
            .of(self.pod.spec.all_containers().nth(i).unwrap())
            .unwrap()
            .clone();
        let run = &mut self.state.containers[i];
        let verdict = match kind {
            ProbeKind::Startup => &mut run.startup,
            ProbeKind::Readiness => &mut run.readiness,
            ProbeKind::Liveness => &mut run.liveness,
        };
        (0..times).for_each(|_| verdict.note(ok, &probe));
        self.settle();
    }

    /// What was done since the last call.
    fn did(&mut self) -> String {
        std::mem::take(&mut self.done).join(", ")
    }
}

#[test]
fn containers_start_together_and_a_settled_pod_needs_nothing() {
    let mut s = Story::of(
        "containers: [{name: a, image: host, command: [x]}, {name: b, image: host, command: [x]}]",
    );
    assert_eq!(s.did(), "start a, start b");
    assert_eq!(
        (s.plan().stage, s.plan().wake_at, s.plan().actions),
        (PodStage::Running, None, vec![])
    );
}

#[test]
fn init_containers_run_in_order_before_the_others() {
    let mut s = Story::of(
        "initContainers: [{name: i, image: host, command: [x]}, {name: j, image: host, command: [x]}]\ncontainers: [{name: a, image: host, command: [x]}]",
    );
    assert_eq!(
        (s.did().as_str(), s.plan().stage, s.plan().initialized),
        ("start i", PodStage::Starting, false)
    );
    s.ends("i", 0);
    assert_eq!(s.did(), "start j");
    s.ends("j", 1);
    assert_eq!(s.did(), "start j", "the first restart is at once");
    s.ends("j", 0);
    assert_eq!(
        (s.did().as_str(), s.plan().stage, s.plan().initialized),
        ("start a", PodStage::Running, true)
    );
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut s = Story::of(
        "restartPolicy: Never\ninitContainers: [{name: i, image: host, command: [x]}]\ncontainers: [{name: a, image: host, command: [x]}]",
    );
    s.ends("i", 3);
    assert_eq!(
        (s.did().as_str(), s.plan().stage),
        ("start i", PodStage::Failed)
    );
}

#[test]
fn a_sidecar_is_up_before_the_others_start_and_goes_last() {
    let mut s = Story::of(
        "restartPolicy: Never\ninitContainers: [{name: side, image: host, command: [x], restartPolicy: Always, startupProbe: {exec: {command: [y]}}}]\ncontainers: [{name: a, image: host, command: [x]}]",
    );
    assert_eq!(s.did(), "start side");
    s.probed("side", ProbeKind::Startup, true, 1);
    assert_eq!(s.did(), "start a");
    s.ends("side", 1);
    assert_eq!(s.did(), "start side", "a sidecar is always restarted");
    s.ends("a", 0);
    assert_eq!(
        (s.did().as_str(), s.plan().stage),
        ("term side", PodStage::Succeeded)
    );
    s.ends("side", 143);
    assert_eq!(
        (s.did().as_str(), s.plan().stage),
        ("", PodStage::Succeeded)
    );
}

#[test]
fn restarts_back_off_from_ten_seconds_to_five_minutes() {
    let mut s = Story::of(ONE);
    s.did();
    for wait in [0, 10, 20, 40, 80, 160, 300, 300] {
        s.ends("a", 1);
        if wait > 0 {
            assert_eq!(s.plan().wake_at, Some(s.now + Duration::from_secs(wait)));
            s.after(wait - 1);
            assert_eq!(s.did(), "", "{wait} s are not over");
            s.after(1);
        }
        assert_eq!(s.did(), "start a", "{wait}");
    }
    s.after(600);
    s.ends("a", 1);
    assert_eq!(
        s.did(),
        "start a",
        "after ten minutes of running it counts anew"
    );
}

#[test]
fn the_policy_decides_who_is_restarted() {
    for (policy, code, restarted, stage) in [
        ("Always", 0, true, PodStage::Running),
        ("Always", 1, true, PodStage::Running),
        ("OnFailure", 0, false, PodStage::Succeeded),
        ("OnFailure", 1, true, PodStage::Running),
        ("Never", 0, false, PodStage::Succeeded),
        ("Never", 1, false, PodStage::Failed),
    ] {
        let mut s = Story::of(&format!("restartPolicy: {policy}\n{ONE}"));
        s.did();
        s.ends("a", code);
        assert_eq!(
            (s.did() == "start a", s.plan().stage),
            (restarted, stage),
            "{policy} {code}"
        );
    }
}

#[test]
fn a_pod_whose_volumes_are_being_prepared_has_not_stopped() {
    let mut s = Story::of(ONE);
    s.state.volumes = VolumesPhase::Preparing;
    s.ends("a", 0);
    s.stop(30);
    assert!(!s.plan().stopped);
    s.state.volumes = VolumesPhase::Ready;
    assert!(s.plan().stopped);
}

#[test]
fn a_pod_that_stops_is_asked_and_then_killed() {
    let mut s = Story::of(ONE);
    s.did();
    s.stop(30);
    assert_eq!(
        (s.did().as_str(), s.plan().stage, s.plan().stopped),
        ("term a", PodStage::Stopping, false)
    );
    s.after(29);
    assert_eq!(s.did(), "");
    s.after(1);
    assert_eq!(s.did(), "kill a");
    s.ends("a", 137);
    assert_eq!((s.did().as_str(), s.plan().stopped), ("", true));
}

#[test]
fn no_grace_means_kill_and_a_shorter_order_wins() {
    let mut s = Story::of(ONE);
    s.did();
    s.stop(300);
    s.stop(600);
    assert_eq!(
        s.plan().wake_at,
        Some(Duration::from_secs(300)),
        "an order is never made longer"
    );
    s.stop(0);
    assert_eq!(s.did(), "term a, kill a");
    let mut s = Story::of(ONE);
    s.did();
    s.stop(0);
    assert_eq!(s.did(), "kill a");
}

#[test]
fn the_hook_before_the_end_runs_within_the_grace_period() {
    let mut s = Story::of(
        "containers: [{name: a, image: host, command: [x], lifecycle: {preStop: {exec: {command: [y]}}}}]",
    );
    s.did();
    s.stop(10);
    assert_eq!(s.did(), "hook a");
    s.after(9);
    s.state.containers[0].pre_stop_returned(s.now);
    s.settle();
    assert_eq!(s.did(), "term a");
    s.after(1);
    assert_eq!(s.did(), "", "after the hook it has two seconds");
    s.after(1);
    assert_eq!(s.did(), "kill a");
}

#[test]
fn sidecars_stop_in_reverse_order_after_the_others() {
    let side = |n: &str| format!("{{name: {n}, image: host, command: [x], restartPolicy: Always}}");
    let mut s = Story::of(&format!(
        "initContainers: [{}, {}]\n{ONE}",
        side("s1"),
        side("s2")
    ));
    assert_eq!(s.did(), "start s1, start s2, start a");
    s.stop(30);
    assert_eq!(s.did(), "term a");
    s.ends("a", 0);
    assert_eq!(s.did(), "term s2");
    s.ends("s2", 0);
    assert_eq!(s.did(), "term s1");
    s.after(30);
    assert_eq!(s.did(), "kill s1");
}

#[test]
fn a_failing_liveness_probe_restarts_the_container() {
    let mut s = Story::of(
        "terminationGracePeriodSeconds: 5\ncontainers: [{name: a, image: host, command: [x], livenessProbe: {exec: {command: [y]}, failureThreshold: 2}}]",
    );
    s.did();
    s.probed("a", ProbeKind::Liveness, false, 1);
    assert_eq!(s.did(), "");
    s.probed("a", ProbeKind::Liveness, false, 1);
    assert_eq!(s.did(), "term a");
    assert_eq!(
        s.plan().probes,
        vec![],
        "a container that stops is not probed"
    );
    s.after(5);
    assert_eq!(s.did(), "kill a");
    s.ends("a", 137);
    assert_eq!(s.did(), "start a");
    assert_eq!(s.state.containers[0].liveness.ok, None);
}

#[test]
fn other_probes_wait_for_the_startup_probe() {
    let mut s = Story::of(
        "containers: [{name: a, image: host, command: [x], startupProbe: {exec: {command: [y]}}, readinessProbe: {exec: {command: [y]}}, livenessProbe: {exec: {command: [y]}}}]",
    );
    assert_eq!(s.plan().probes, [(0, ProbeKind::Startup)]);
    s.probed("a", ProbeKind::Startup, true, 1);
    assert_eq!(
        s.plan().probes,
        [(0, ProbeKind::Readiness), (0, ProbeKind::Liveness)]
    );
}

#[test]
fn the_deadline_fails_the_pod_and_stops_it() {
    let mut s = Story::of(&format!("activeDeadlineSeconds: 60\n{ONE}"));
    s.did();
    assert_eq!(s.plan().wake_at, Some(Duration::from_secs(60)));
    s.after(60);
    assert_eq!(s.did(), "term a");
    assert_eq!(
        (s.plan().stage, s.plan().reason.unwrap().0.as_str()),
        (PodStage::Failed, "DeadlineExceeded")
    );
    s.ends("a", 143);
    assert_eq!((s.did().as_str(), s.plan().stage), ("", PodStage::Failed));
}

#[test]
fn times_that_no_clock_can_show_are_far_away() {
    let max = i64::MAX;
    let mut s = Story::of(ONE);
    let spec = std::sync::Arc::make_mut(&mut s.pod.spec);
    spec.termination_grace_period_seconds = Some(max);
    spec.active_deadline_seconds = Some(max);
    s.did();
    s.state.order_stop(s.now, seconds(max));
    s.settle();
    assert_eq!(s.did(), "term a");
    s.stop(1);
    s.after(1);
    assert_eq!(s.did(), "kill a");
}

#[test]
fn a_blocked_start_is_tried_again_in_time_and_counts_as_no_restart() {
    let mut s = Story::of(ONE);
    s.did();
    let mut run = ContainerRun::default();
    run.begin_start();
    run.start_blocked(Blocked {
        reason: "CreateContainerConfigError".into(),
        message: String::new(),
        retry_at: Duration::from_secs(7),
    });
    s.state.containers[0] = run;
    assert_eq!(
        (s.plan().actions, s.plan().wake_at, s.plan().stage),
        (vec![], Some(Duration::from_secs(7)), PodStage::Starting)
    );
    s.after(7);
    assert_eq!(s.did(), "start a");
    assert_eq!(
        (
            s.state.containers[0].attempt,
            s.state.containers[0].blocked.clone()
        ),
        (0, None)
    );
}

#[test]
fn nothing_starts_before_the_volumes_are_ready() {
    let mut s = Story::of(ONE);
    s.state = PodState::new(
        &s.pod.spec,
        Now {
            wall: Timestamp::EPOCH,
            mono: Duration::ZERO,
        },
    );
    s.state.volumes = VolumesPhase::Failed {
        message: String::new(),
        retry_at: Duration::from_secs(2),
    };
    assert_eq!(
        (s.plan().actions, s.plan().wake_at),
        (vec![], Some(Duration::from_secs(2)))
    );
    s.now = Duration::from_secs(2);
    assert_eq!(s.plan().actions, [Action::PrepareVolumes]);
}

#[test]
fn a_changed_definition_restarts_even_what_would_not_be() {
    let mut s = Story::of(&format!("restartPolicy: Never\n{ONE}"));
    s.did();
    s.state.containers[0].redefined = true;
    s.settle();
    assert_eq!(s.did(), "term a");
    s.ends("a", 143);
    assert_eq!(
        (s.did().as_str(), s.plan().stage),
        ("start a", PodStage::Running)
    );
}
