//! Pods with real processes: what a manifest says is what runs, and what is reported is what kubectl would show.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Fixture, alive, eventually, is_root};
use parking_lot::Mutex;
use setpoint_agent::content::Content;
use setpoint_agent::layout::DataDir;
use setpoint_agent::logs::{LogOptions, LogReader};
use setpoint_agent::pod::{
    HostUser, NodeFacts, PodContext, PodHandle, PodInput, Reporter, SteadyClock,
};
use setpoint_apis::core::{ConfigMap, Pod, Secret};
use setpoint_apis::records::{PodActual, PodStage};
use setpoint_apis::{Kind, ObjectKey, document};
use setpoint_runtime::Clock;
use setpoint_runtime::events::Recorder;

/// Keeps what pods report.
#[derive(Default)]
struct Reports(
    Mutex<BTreeMap<ObjectKey, (Vec<PodActual>, bool)>>,
    /// Set: the next report is one report too many.
    AtomicBool,
);

impl Reporter for Reports {
    fn status(&self, key: &ObjectKey, actual: PodActual) {
        self.0.lock().entry(key.clone()).or_default().0.push(actual);
        assert!(!self.1.swap(false, Ordering::Relaxed), "a bug");
    }

    fn stopped(&self, key: &ObjectKey, _: u32) {
        self.0.lock().entry(key.clone()).or_default().1 = true;
    }
}

struct World {
    f: Fixture,
    content: Arc<Content>,
}

/// One life of an agent, as far as pods are concerned.
struct Agent {
    ctx: Arc<PodContext>,
    reports: Arc<Reports>,
}

impl World {
    fn new() -> Self {
        Self {
            f: Fixture::new(),
            content: Arc::default(),
        }
    }

    fn agent(&self) -> Agent {
        self.agent_as(HostUser::current())
    }

    fn agent_as(&self, user: HostUser) -> Agent {
        let reports = Arc::<Reports>::default();
        let ctx = PodContext {
            driver: Arc::new(self.f.another_driver()),
            data: self.data(),
            content: self.content.clone(),
            node: NodeFacts {
                name: "n1".into(),
                address: "127.0.0.1".into(),
                base_env: vec![("PATH".into(), "/usr/bin:/bin".into())],
                ..NodeFacts::default()
            },
            user,
            recorder: Recorder::discarding(),
            reporter: reports.clone(),
            clock: SteadyClock::new(Clock::system()),
            mount_registry: self.f.path("registry"),
            pids_limit: None,
            log_max_bytes: 1 << 20,
            log_max_files: 2,
        };
        Agent {
            ctx: Arc::new(ctx),
            reports,
        }
    }

    fn data(&self) -> DataDir {
        DataDir::new(self.f.path("data"))
    }

    fn input(&self, spec: &str) -> PodInput {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: ns, labels: {{tier: x}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  {}\n",
            spec.replace('\n', "\n  ")
        );
        let pod: Pod = document::decode(text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        for container in pod.spec.all_containers() {
            for attempt in 0..6 {
                self.f
                    .track(&self.data().pod("u", 1).attempt(&container.name, attempt));
            }
        }
        PodInput {
            key: ObjectKey::namespaced("ns", "p"),
            uid: "u".into(),
            placement: 1,
            pod: Arc::new(pod),
            pod_ip: "127.0.0.1".into(),
            claimed_at: Clock::system().now(),
            fence: None,
        }
    }

    fn log(&self, container: &str, attempt: u32) -> String {
        let mut reader = LogReader::open(
            &self.data().pod("u", 1).log(container, attempt),
            &LogOptions::default(),
        )
        .unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = reader.next_chunk().unwrap() {
            text.extend(chunk);
        }
        String::from_utf8(text).unwrap()
    }

    fn put<K: Kind>(&self, text: &str, put: impl Fn(&Content, ObjectKey, Option<K>) -> bool) {
        let object: K = document::decode(text.as_bytes()).unwrap();
        put(
            &self.content,
            ObjectKey::namespaced("ns", object.metadata().name.as_str()),
            Some(object),
        );
    }
}

impl Agent {
    fn run(&self, input: &PodInput) -> PodHandle {
        PodHandle::spawn(self.ctx.clone(), input.clone())
    }

    fn last(&self) -> Option<PodActual> {
        self.reports
            .0
            .lock()
            .values()
            .next()
            .and_then(|(all, _)| all.last().cloned())
    }

    async fn until(&self, what: &str, holds: impl Fn(&PodActual) -> bool) -> PodActual {
        let begun = std::time::Instant::now();
        loop {
            let last = self.last();
            if let Some(actual) = last.as_ref().filter(|a| holds(a)) {
                return actual.clone();
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "timed out waiting until {what}; last: {last:#?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stopped(&self) {
        eventually("the pod is stopped", || {
            self.reports.0.lock().values().any(|(_, stopped)| *stopped)
        })
        .await;
    }
}

fn waits_for<'a>(a: &'a PodActual, reason: &str) -> Option<&'a str> {
    let waiting = a.container_statuses.first()?.state.waiting.as_ref()?;
    (waiting.reason.as_deref() == Some(reason))
        .then_some(waiting.message.as_deref().unwrap_or_default())
}

fn sh(script: &str) -> String {
    format!(
        "{{name: c, image: host, command: [sh, -c, {}]}}",
        serde_json::to_string(script).unwrap()
    )
}

#[tokio::test]
async fn a_user_that_the_agent_cannot_become_is_a_waiting_reason_and_no_crash_loop() {
    let w = World::new();
    let input = w.input(
        "securityContext: {runAsUser: 4711}\ncontainers: [{name: c, image: host, command: [sleep, '1000']}]",
    );
    let agent = w.agent_as(HostUser {
        uid: 1000,
        gid: 1000,
        groups: Vec::new(),
    });
    let pod = agent.run(&input);
    let actual = agent
        .until("it says why it waits", |a| {
            waits_for(a, "CreateContainerConfigError").is_some_and(|m| {
                m.starts_with("runAsUser 4711: the agent of this node is not root")
            })
        })
        .await;
    assert_eq!(actual.container_statuses[0].restart_count, 0);
    pod.stop(None);
    agent.stopped().await;
}

#[tokio::test]
async fn a_pod_runs_is_ready_and_leaves_nothing_when_it_is_taken_back() {
    // While that has not passed since the claim nothing is said of a start.
    const QUIET: Duration = Duration::from_millis(300);
    let w = World::new();
    let begun = std::time::Instant::now();
    let input = w.input("containers: [{name: c, image: host, command: [sleep, '1000']}]");
    let agent = w.agent();
    let pod = agent.run(&input);
    let actual = agent.until("it is ready", PodActual::is_ready).await;
    let reports = agent.reports.0.lock().values().next().unwrap().0.clone();
    let late = begun.elapsed() >= QUIET;
    assert!(
        reports.len() == 1 || (reports.len() == 2 && late),
        "one report is enough for a start that is quick: {reports:#?}"
    );
    let id = actual.container_statuses[0].container_id.clone().unwrap();
    let pid: i32 = id.rsplit('/').next().unwrap().parse().unwrap();
    assert!(alive(pid));
    pod.stop(None);
    agent.stopped().await;
    assert!(!alive(pid));
    assert!(!w.data().pod("u", 1).path().exists());
    let last = agent.last().unwrap();
    assert_eq!(last.stage, PodStage::Stopping);
    // By then its document and its work copy may be gone.
    let kept = last.metadata.unwrap_or_default();
    assert_eq!(kept.labels, input.pod.metadata.labels);
    assert!(!kept.labels.is_empty() && kept.name.is_empty(), "{kept:?}");
}

#[tokio::test]
async fn a_task_that_dies_of_a_bug_begins_again_and_the_container_goes_on() {
    let w = World::new();
    let agent = w.agent();
    agent.reports.1.store(true, Ordering::Relaxed);
    let handle = agent.run(&w.input(&format!(
        "containers: [{}]",
        sh("while :; do sleep 0.05; done")
    )));
    eventually("the task has died", || {
        !agent.reports.1.load(Ordering::Relaxed)
    })
    .await;
    // The order finds nobody, and is obeyed by the task that comes after.
    handle.stop(Some(Duration::ZERO));
    agent.stopped().await;
    let runs = agent.last().unwrap().container_statuses;
    assert!(runs.iter().all(|c| c.restart_count == 0), "{runs:?}");
}

#[tokio::test]
async fn init_containers_hand_over_and_a_finished_pod_has_succeeded() {
    let w = World::new();
    let volume = "volumeMounts: [{name: v, mountPath: /setpoint-test-nowhere}]";
    let input = w.input(&format!(
        "restartPolicy: Never\ninitContainers: [{{name: i, image: host, command: [sh, -c, 'echo one > $SETPOINT_VOLUME_V/f'], {volume}}}]\n\
         containers: [{{name: c, image: host, command: [sh, -c, 'cat $SETPOINT_VOLUME_V/f'], {volume}}}]\nvolumes: [{{name: v, emptyDir: {{}}}}]"
    ));
    let agent = w.agent();
    let _pod = agent.run(&input);
    let a = agent
        .until("it has succeeded", |a| a.stage == PodStage::Succeeded)
        .await;
    assert_eq!(
        a.container_statuses[0]
            .state
            .terminated
            .as_ref()
            .unwrap()
            .reason
            .as_deref(),
        Some("Completed")
    );
    assert_eq!(
        a.init_container_statuses[0]
            .state
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        0
    );
    assert_eq!(w.log("c", 0), "one\n");
}

#[tokio::test]
async fn a_failing_container_restarts_once_and_then_backs_off() {
    let w = World::new();
    let input = w.input(&format!("containers: [{}]", sh("echo again; exit 3")));
    let agent = w.agent();
    let _pod = agent.run(&input);
    let a = agent
        .until("it backs off", |a| {
            waits_for(a, "CrashLoopBackOff").is_some()
        })
        .await;
    let c = &a.container_statuses[0];
    assert_eq!(
        (
            c.restart_count,
            c.last_state.terminated.as_ref().unwrap().exit_code
        ),
        (1, 3)
    );
    assert_eq!(w.log("c", 0), "again\n");
    assert_eq!(w.log("c", 1), "again\n");
}

#[tokio::test]
async fn a_command_that_does_not_exist_says_so() {
    let w = World::new();
    let input = w.input("restartPolicy: Never\ncontainers: [{name: c, image: host, command: [no-such-program-xyz]}]");
    let agent = w.agent();
    let _pod = agent.run(&input);
    let a = agent
        .until("it has failed", |a| a.stage == PodStage::Failed)
        .await;
    let end = a.container_statuses[0].state.terminated.clone().unwrap();
    assert_eq!(
        (end.reason.as_deref(), end.exit_code),
        (Some("StartError"), 128)
    );
    assert!(end.message.unwrap().contains("not found in PATH"));
}

#[tokio::test]
async fn missing_content_is_waited_for_and_changes_arrive_in_files() {
    let w = World::new();
    let input = w.input(
        "containers: [{name: c, image: host, command: [sh, -c, 'echo $V; exec sleep 1000'], env: [{name: V, valueFrom: {secretKeyRef: {name: s, key: k}}}], \
         volumeMounts: [{name: v, mountPath: /setpoint-test-nowhere}]}]\nvolumes: [{name: v, configMap: {name: m}}]",
    );
    let agent = w.agent();
    let pod = agent.run(&input);
    agent
        .until("it waits for the volume", |a| {
            waits_for(a, "ContainerCreating")
                .is_some_and(|m| m.contains("configmap \"m\" not found"))
        })
        .await;
    let map = |v: &str| {
        w.put::<ConfigMap>(
            &format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{a: '{v}'}}\n"
            ),
            Content::put_config_map,
        )
    };
    map("1");
    pod.content_changed();
    agent
        .until("it waits for the secret", |a| {
            waits_for(a, "CreateContainerConfigError") == Some("secret \"s\" not found")
        })
        .await;
    w.put::<Secret>(
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hunter2}\n",
        Content::put_secret,
    );
    pod.content_changed();
    agent.until("it runs", PodActual::is_ready).await;
    eventually("it has said the secret", || w.log("c", 0) == "hunter2\n").await;
    let file = w.data().pod("u", 1).volume("v").join("a");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    map("2");
    pod.content_changed();
    eventually("the file has changed", || {
        fs::read_to_string(&file).is_ok_and(|t| t == "2")
    })
    .await;
    assert_eq!(agent.last().unwrap().container_statuses[0].restart_count, 0);
}

#[tokio::test]
async fn volumes_are_at_their_mount_paths() {
    if !is_root() {
        return; // Without root a condition says so; the driver's tests show that.
    }
    let w = World::new();
    w.put::<ConfigMap>(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: hello}\n",
        Content::put_config_map,
    );
    let at = w.f.path("mounted/here");
    let input = w.input(&format!(
        "containers: [{{name: c, image: host, command: [cat, {at}/conf/a, {at}/labels], volumeMounts: [{{name: v, mountPath: {at}/conf}}, {{name: d, mountPath: {at}/labels, subPath: labels}}]}}]\n\
         restartPolicy: Never\nvolumes: [{{name: v, configMap: {{name: m}}}}, {{name: d, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}]",
        at = at.display()
    ));
    let agent = w.agent();
    let _pod = agent.run(&input);
    agent
        .until("it has ended", |a| {
            a.stage == PodStage::Succeeded || a.stage == PodStage::Failed
        })
        .await;
    assert_eq!(w.log("c", 0), "hellotier=\"x\"\n");
    assert!(!w.f.path("mounted").exists());
}

#[tokio::test]
async fn the_next_agent_goes_on_where_the_last_one_stopped() {
    let w = World::new();
    let gate = w.f.path("gate");
    let script = format!(
        "echo up; while [ ! -e {} ]; do sleep 0.02; done; exit 5",
        gate.display()
    );
    let input = w.input(&format!(
        "restartPolicy: Never\ncontainers: [{}]",
        sh(&script).replace("]}", "], readinessProbe: {exec: {command: ['true']}}}")
    ));
    let first = w.agent();
    let pod = first.run(&input);
    let before = first.until("it is ready", PodActual::is_ready).await;
    drop(pod);
    let second = w.agent();
    let pod = second.run(&input);
    // Nothing has changed, so nothing is reported; the container's end is.
    fs::write(&gate, "").unwrap();
    let after = second
        .until("it has failed", |a| a.stage == PodStage::Failed)
        .await;
    assert_eq!(
        after.container_statuses[0]
            .state
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        5
    );
    assert_eq!(after.container_statuses[0].restart_count, 0);
    assert_eq!(after.start_time, before.start_time);
    let seen: Vec<bool> = second
        .reports
        .0
        .lock()
        .values()
        .next()
        .unwrap()
        .0
        .iter()
        .map(|a| a.container_statuses[0].state.running.is_some() && !a.is_ready())
        .collect();
    assert!(
        !seen.contains(&true),
        "it was never reported as not ready while it ran"
    );
    drop(pod);
    let third = w.agent();
    let pod = third.run(&input);
    pod.stop(None);
    third.stopped().await;
    assert!(!w.data().pod("u", 1).path().exists());
}

#[tokio::test]
async fn hooks_run_after_the_start_and_before_the_end() {
    let w = World::new();
    let (after, before) = (w.f.path("after"), w.f.path("before"));
    let input = w.input(&format!(
        "containers: [{{name: c, image: host, command: [sleep, '1000'], lifecycle: {{postStart: {{exec: {{command: [touch, {}]}}}}, preStop: {{exec: {{command: [touch, {}]}}}}}}}}]",
        after.display(), before.display()
    ));
    let agent = w.agent();
    let pod = agent.run(&input);
    agent.until("it is ready", PodActual::is_ready).await;
    assert!(after.exists() && !before.exists());
    // The hook has as long as the pod has to end.
    pod.stop(Some(Duration::from_secs(30)));
    agent.stopped().await;
    assert!(before.exists());
}

#[tokio::test]
async fn readiness_follows_the_probe_and_liveness_restarts() {
    let w = World::new();
    let (ready, sick) = (w.f.path("ready"), w.f.path("sick"));
    let input = w.input(&format!(
        "containers: [{{name: c, image: host, command: [sh, -c, 'rm -f {sick}; exec sleep 1000'], \
         readinessProbe: {{exec: {{command: [test, -e, {ready}]}}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}}, \
         livenessProbe: {{exec: {{command: [test, '!', -e, {sick}]}}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}}}}]",
        ready = ready.display(), sick = sick.display()
    ));
    let agent = w.agent();
    let _pod = agent.run(&input);
    agent
        .until("it runs, not ready", |a| {
            a.stage == PodStage::Running && !a.is_ready()
        })
        .await;
    fs::write(&ready, "").unwrap();
    agent.until("it is ready", PodActual::is_ready).await;
    fs::remove_file(&ready).unwrap();
    agent
        .until("it is not ready any more", |a| !a.is_ready())
        .await;
    fs::write(&sick, "").unwrap();
    let a = agent
        .until("it was restarted", |a| {
            // More than once when it is asked before the container has removed the file.
            a.container_statuses[0].restart_count >= 1
                && a.container_statuses[0].state.running.is_some()
        })
        .await;
    assert!(a.container_statuses[0].last_state.terminated.is_some());
}

#[tokio::test]
async fn a_changed_definition_restarts_its_container_alone() {
    let w = World::new();
    let before = w.input("containers: [{name: c, image: host, command: [sleep, '1000']}, {name: d, image: host, command: [sleep, '1001']}]");
    let after = w.input("containers: [{name: c, image: host, command: [sleep, '1002']}, {name: d, image: host, command: [sleep, '1001']}]");
    let agent = w.agent();
    let pod = agent.run(&before);
    let running = agent.until("both run", PodActual::is_ready).await;
    pod.update(PodInput {
        claimed_at: before.claimed_at,
        ..after
    });
    let a = agent
        .until("the new one runs", |a| {
            a.is_ready() && a.container_statuses[0].restart_count == 1
        })
        .await;
    assert_eq!(a.container_statuses[1], running.container_statuses[1]);
    let pids = pids(&running);
    eventually("the old one is gone", || !alive(pids[0])).await;
    assert!(alive(pids[1]));
    pod.stop(None);
    agent.stopped().await;
}

#[tokio::test]
async fn a_pod_goes_on_with_its_containers_and_says_so_when_the_document_has_others() {
    let w = World::new();
    let two = w.input("containers: [{name: c, image: host, command: [sleep, '1000']}, {name: d, image: host, command: [sleep, '1001']}]");
    let others = PodInput {
        claimed_at: two.claimed_at,
        ..w.input("containers: [{name: c, image: host, command: [sleep, '1002']}, {name: e, image: host, command: [sleep, '1003']}]")
    };
    let agent = w.agent();
    let pod = agent.run(&two);
    let running = agent.until("both run", PodActual::is_ready).await;
    let keeps = |a: &PodActual| {
        let condition = a.conditions.iter().find(|c| c.type_ == "SpecApplied");
        condition.is_some_and(|c| {
            let why = c.message.as_deref().unwrap_or_default();
            c.status == "False" && why.contains("[c e]") && why.contains("stay [c d]")
        })
    };
    pod.update(others.clone());
    let a = agent.until("it says so", keeps).await;
    assert_eq!(a.container_statuses, running.container_statuses);
    // The agent that comes next is given the new document alone. What it finds is what was reported: it says nothing.
    drop(pod);
    let agent = w.agent();
    let pod = agent.run(&others);
    pod.update(two);
    let a = agent
        .until("the document is as it was", |a| {
            a.is_ready() && a.conditions.iter().all(|c| c.type_ != "SpecApplied")
        })
        .await;
    assert_eq!(pids(&a), pids(&running));
    pod.stop(None);
    agent.stopped().await;
    assert!(pids(&running).iter().all(|pid| !alive(*pid)));
}

/// The main processes of a pod's containers.
fn pids(actual: &PodActual) -> Vec<i32> {
    let id = |c: &setpoint_apis::core::ContainerStatus| c.container_id.clone().unwrap();
    let ids = actual.container_statuses.iter().map(id);
    ids.map(|id| id.rsplit('/').next().unwrap().parse().unwrap())
        .collect()
}
