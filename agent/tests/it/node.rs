//! A whole agent against a real etcd. The test plays the scheduler: it puts work and takes it back.

mod at_most_one;
mod claims;
mod stops;

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use setpoint_agent::node::config::AgentConfig;
use setpoint_agent::node::{self, AgentError};
use setpoint_agent::process::{ProcessDriver, ProcessDriverConfig};
use setpoint_agent::runner::Runner;
use setpoint_agent::spec::{PID_FILE, PidRecord, read_record};
use setpoint_apis::records::{NodeAlive, NodeStatusRecord, PodActual, PodStage, WorkHeader};
use setpoint_apis::{Key, Keyspace, ObjectKey, document};
use setpoint_store::testing::TestEtcd;
use setpoint_store::{ConnectOptions, KeyValue, SharedStore, StoreError, Txn};
use tokio_util::sync::CancellationToken;

use crate::support::{Fixture, alive, eventually};

/// A cluster with nothing in it but etcd, and a directory for one node.
struct World {
    etcd: Arc<TestEtcd>,
    store: SharedStore,
    keyspace: Keyspace,
    /// Whether the tests run on an old etcd, where pods that must never run twice are claimed for tests only.
    holes: bool,
    /// Whether the agents wait much longer than any test for an etcd that does not answer.
    patient: bool,
    f: Fixture,
}

/// A running agent, in a runtime of its own so that it can be killed as a process can.
struct Agent {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
    ended: Arc<Mutex<Option<Result<(), AgentError>>>>,
}

const NODE: &str = "n1";
/// What somebody waits for etcd who is patient.
const PATIENCE: Duration = Duration::from_secs(120);
/// A session that lasts for a whole test, also of an agent that a busy machine holds up.
const LASTING: Duration = Duration::from_secs(60);

impl World {
    async fn new(name: &str) -> Self {
        Self::on(TestEtcd::shared().await, name).await
    }

    async fn on(etcd: Arc<TestEtcd>, name: &str) -> Self {
        let (store, keyspace) = (
            etcd.store().await,
            Keyspace::new(&etcd.prefix(name)).unwrap(),
        );
        let begun = Instant::now();
        let versions = loop {
            match store.versions().await {
                Ok(versions) => break versions,
                Err(error) if begun.elapsed() > Duration::from_secs(60) => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        Self {
            etcd,
            store,
            keyspace,
            holes: setpoint_store::etcd::version::distrust(&versions).is_some(),
            patient: false,
            f: Fixture::new(),
        }
    }

    fn config(&self, dir: &str) -> AgentConfig {
        AgentConfig {
            lease_ttl: Duration::from_secs(2),
            offline_after: Duration::from_millis(300),
            pod_cidr: Some("127.10.9.0/24".parse().unwrap()),
            allow_known_holes: self.holes,
            ..AgentConfig::new(NODE, self.f.path(dir))
        }
    }

    fn agent(&self) -> Agent {
        self.agent_with(self.config("data"))
    }

    fn agent_with(&self, config: AgentConfig) -> Agent {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (shutdown, ended) = (
            CancellationToken::new(),
            Arc::<Mutex<Option<Result<(), AgentError>>>>::default(),
        );
        let driver = ProcessDriverConfig {
            shim: vec![env!("CARGO_BIN_EXE_setpoint-shim").into()],
            cgroups: self.f.cgroups(),
        };
        let (mut options, keyspace) = (self.etcd.connect_options(), self.keyspace.clone());
        if self.patient {
            options = ConnectOptions {
                connect_timeout: PATIENCE,
                request_timeout: PATIENCE * 2,
                keep_alive_interval: PATIENCE * 2,
                watch_silence_limit: PATIENCE * 2,
                ..options
            };
        }
        let (token, result) = (shutdown.clone(), Arc::clone(&ended));
        runtime.spawn(async move {
            let store: SharedStore = Arc::new(
                setpoint_store::etcd::EtcdStore::connect(&options)
                    .await
                    .unwrap(),
            );
            let driver = Arc::new(ProcessDriver::new(driver));
            let make = |c: &AgentConfig, context| Ok(Runner::new(c, context, driver));
            // The agent before may take long to let go of the directory where the machine is busy.
            let surroundings = loop {
                match node::Surroundings::this("process", &config).await {
                    Err(AgentError::Disk(node::DiskError::InUse(_))) => {}
                    surroundings => break surroundings,
                }
            };
            let run = match surroundings {
                Ok(surroundings) => {
                    node::run(config, surroundings, store, keyspace, None, make, token).await
                }
                Err(error) => Err(error),
            };
            *result.lock().unwrap() = Some(run);
        });
        Agent {
            runtime: Some(runtime),
            shutdown,
            ended,
        }
    }

    fn key(&self, key: &Key<'_>) -> String {
        self.keyspace.build(key)
    }

    async fn get(&self, key: &Key<'_>) -> Option<KeyValue> {
        let begun = Instant::now();
        loop {
            match self.store.get(&self.key(key)).await {
                Ok((kv, _)) => return kv,
                Err(error) if begun.elapsed() > Duration::from_secs(60) => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn put(&self, key: &Key<'_>, value: impl Into<String>) {
        self.txn(Txn::new().put(self.key(key), value.into())).await;
    }

    async fn delete(&self, key: &Key<'_>) {
        self.txn(Txn::new().delete(self.key(key))).await;
    }

    async fn txn(&self, txn: Txn) {
        let begun = Instant::now();
        // Everything the test writes may be written twice.
        while let Err(error) = self.store.txn(txn.clone()).await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn work(&self, name: &str, placement: u32, spec: &str) -> (Key<'static>, String) {
        // Without a namespace, as a manifest may have it: the key says which.
        let document = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  {spec}\n"
        );
        let pod: setpoint_apis::core::Pod = document::decode(document.as_bytes()).unwrap();
        let dir = setpoint_agent::layout::DataDir::new(self.f.path("data"))
            .pod(&format!("uid-{name}"), placement);
        for (container, attempt) in pod
            .spec
            .all_containers()
            .flat_map(|c| (0..4).map(move |a| (c, a)))
        {
            self.f.track(&dir.attempt(&container.name, attempt));
        }
        let header = WorkHeader {
            placement: Some(placement),
            uid: format!("uid-{name}"),
            source_revision: 1,
        };
        (
            Key::WorkPod(NODE, pod_key(name)),
            document::encode_work(&header, &document),
        )
    }

    async fn give(&self, name: &str, placement: u32, spec: &str) {
        let (key, value) = self.work(name, placement, spec);
        self.put(&key, value).await;
    }

    async fn give_config(&self, name: &str, data: &str) {
        let header = WorkHeader {
            placement: None,
            uid: "u".into(),
            source_revision: 1,
        };
        let document =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data}\n");
        self.put(
            &Key::WorkContent(NODE, "configmaps", pod_key(name)),
            document::encode_work(&header, &document),
        )
        .await;
    }

    async fn take_back(&self, name: &str) {
        self.delete(&Key::WorkPod(NODE, pod_key(name))).await;
    }

    async fn actual(&self, name: &str) -> Option<PodActual> {
        let kv = self.get(&Key::NodePod(NODE, pod_key(name))).await?;
        Some(document::decode_value(&kv.value).unwrap())
    }

    async fn until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(Option<&PodActual>) -> bool,
    ) -> Option<PodActual> {
        let begun = Instant::now();
        loop {
            let actual = self.actual(name).await;
            if holds(actual.as_ref()) {
                return actual;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "timed out waiting until {what}; last: {actual:#?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ready(&self, name: &str) -> PodActual {
        self.until(name, &format!("{name} is ready"), |a| {
            a.is_some_and(PodActual::is_ready)
        })
        .await
        .unwrap()
    }

    async fn gone(&self, name: &str) {
        self.until(name, &format!("the record of {name} is gone"), |a| {
            a.is_none()
        })
        .await;
    }

    async fn alive(&self) -> KeyValue {
        let begun = Instant::now();
        loop {
            match self.get(&Key::NodeAlive(NODE)).await {
                Some(kv) => return kv,
                None => assert!(begun.elapsed() < Duration::from_secs(60), "no session"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The main process of the first run of a pod's container `c`.
    fn pid(&self, name: &str, placement: u32) -> i32 {
        let dir = setpoint_agent::layout::DataDir::new(self.f.path("data"))
            .pod(&format!("uid-{name}"), placement);
        read_record::<PidRecord>(&dir.attempt("c", 0), PID_FILE)
            .unwrap()
            .unwrap()
            .container
            .pid
    }
}

impl Agent {
    /// As `kill -9` would: nothing is said to anybody.
    fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    async fn ended(&self) -> Result<(), AgentError> {
        let mut result = None;
        eventually("the agent has ended", || {
            result = self.ended.lock().unwrap().take();
            result.is_some()
        })
        .await;
        result.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn pod_key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("shop", name)
}

const SLEEP: &str = "containers: [{name: c, image: host, command: [sleep, '1000']}]";

#[tokio::test]
async fn an_agent_ends_promptly_also_when_etcd_does_not_answer() {
    // Far less than a request to etcd or the session may take, and far more than an end takes.
    const PROMPT: Duration = Duration::from_secs(20);
    let mut w = World::on(Arc::new(TestEtcd::start().await), "prompt").await;
    w.patient = true;
    let config = AgentConfig {
        lease_ttl: PATIENCE,
        stop_pods_on_exit: true,
        ..w.config("data")
    };
    let agent = w.agent_with(config.clone());
    w.give("a", 1, SLEEP).await;
    w.ready("a").await;
    w.etcd.freeze();
    let asked = Instant::now();
    agent.shutdown.cancel();
    agent.ended().await.unwrap();
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    drop(agent);

    // One that has no session yet.
    let agent = w.agent_with(config);
    eventually("it has begun", || w.f.path("data").join("lock").exists()).await;
    let asked = Instant::now();
    agent.shutdown.cancel();
    agent.ended().await.unwrap();
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    w.etcd.thaw();
}

#[tokio::test]
async fn work_is_claimed_run_reported_and_given_back() {
    let w = World::new("claimed").await;
    let agent = w.agent();
    w.give("a", 3, SLEEP).await;
    let actual = w.ready("a").await;
    assert_eq!(
        (actual.placement, actual.uid.as_str(), actual.stage),
        (3, "uid-a", PodStage::Running)
    );
    assert!(
        actual
            .pod_ip
            .as_deref()
            .is_some_and(|ip| ip.starts_with("127.10.9."))
    );
    let pid = w.pid("a", 3);
    w.take_back("a").await;
    w.gone("a").await;
    assert!(!alive(pid));
    let status: NodeStatusRecord =
        document::decode_value(&w.get(&Key::NodeStatus(NODE)).await.unwrap().value).unwrap();
    assert!(status.allocatable["memory"].value() > 0 && status.drivers == ["process"]);
    let who: NodeAlive = document::decode_value(&w.alive().await.value).unwrap();
    assert_eq!((who.pid, who.lease_ttl_seconds), (std::process::id(), 2));
    drop(agent);
}

#[tokio::test]
async fn another_placement_begins_when_the_former_one_is_gone() {
    let w = World::new("placements").await;
    let _agent = w.agent();
    w.give("a", 1, SLEEP).await;
    w.ready("a").await;
    let first = w.pid("a", 1);
    w.give("a", 2, SLEEP).await;
    w.until("a", "the second placement is ready", |a| {
        a.is_some_and(|a| a.placement == 2 && a.is_ready())
    })
    .await;
    assert!(!alive(first) && alive(w.pid("a", 2)));
}

#[tokio::test]
async fn content_arrives_and_changes_arrive() {
    let w = World::new("content").await;
    let _agent = w.agent();
    let spec = "containers: [{name: c, image: host, command: [sleep, '1000'], volumeMounts: [{name: v, mountPath: /setpoint-test-nowhere}]}]\n  volumes: [{name: v, configMap: {name: m}}]";
    w.give("a", 1, spec).await;
    w.until("a", "it says what is missing", |a| {
        let waiting = a.and_then(|a| {
            a.container_statuses
                .first()?
                .state
                .waiting
                .as_ref()?
                .message
                .clone()
        });
        waiting.is_some_and(|m| m.contains("configmap \"m\" not found"))
    })
    .await;
    w.give_config("m", "{k: one}").await;
    w.ready("a").await;
    let file = setpoint_agent::layout::DataDir::new(w.f.path("data"))
        .pod("uid-a", 1)
        .volume("v")
        .join("k");
    assert_eq!(fs::read_to_string(&file).unwrap(), "one");
    w.give_config("m", "{k: two}").await;
    eventually("the change arrives", || {
        fs::read_to_string(&file).is_ok_and(|t| t == "two")
    })
    .await;
}

#[tokio::test]
async fn a_restarted_agent_keeps_its_session_and_its_pods() {
    let w = World::new("restart").await;
    let config = || AgentConfig {
        lease_ttl: LASTING,
        ..w.config("data")
    };
    let first = w.agent_with(config());
    w.give_config("m", "{k: one}").await;
    w.give("a", 1, "containers: [{name: c, image: host, command: [sleep, '1000'], env: [{name: K, valueFrom: {configMapKeyRef: {name: m, key: k}}}]}]").await;
    let before = w.ready("a").await;
    let (session, pid) = (w.alive().await.create_revision, w.pid("a", 1));
    first.kill();
    let _second = w.agent_with(config());
    w.give("b", 1, SLEEP).await;
    w.ready("b").await;
    assert_eq!(
        w.alive().await.create_revision,
        session,
        "nobody had a reason to move its pods"
    );
    assert!(alive(pid));
    assert_eq!(w.actual("a").await.unwrap(), before, "nothing has changed");
    assert_ne!(w.actual("b").await.unwrap().pod_ip, before.pod_ip);
    // It is killed, so it is started again: with the content and the namespace that the disk copy knows.
    crate::support::kill(pid);
    w.until("a", "it runs again", |a| {
        a.is_some_and(|a| a.is_ready() && a.container_statuses[0].restart_count == 1)
    })
    .await;
    w.take_back("a").await;
    w.gone("a").await;
}

#[tokio::test]
async fn an_agent_that_finds_its_record_broken_goes_on_with_the_present_definition() {
    let w = World::new("brokenrecord").await;
    let first = w.agent();
    w.give("a", 1, SLEEP).await;
    w.ready("a").await;
    w.give("a", 1, &SLEEP.replace("1000", "1001")).await;
    let before = w
        .until("a", "it has the new definition", |a| {
            a.is_some_and(|a| a.is_ready() && a.container_statuses[0].restart_count == 1)
        })
        .await
        .unwrap();
    first.kill();
    let record = Key::NodePod(NODE, pod_key("a"));
    w.put(&record, "{").await;
    let _second = w.agent();
    let begun = Instant::now();
    let after: PodActual = loop {
        let value = w.get(&record).await.unwrap().value;
        if let Ok(actual) = document::decode_value(&value) {
            break actual;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "not rewritten");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let essence = |a: &PodActual| {
        let c = &a.container_statuses[0];
        (a.start_time, c.restart_count, c.container_id.clone())
    };
    assert_eq!(essence(&after), essence(&before));
    // What comes later has overtaken nothing: no restart was under way.
    w.give("b", 1, SLEEP).await;
    w.ready("b").await;
    assert_eq!(essence(&w.actual("a").await.unwrap()), essence(&before));
}

#[tokio::test]
async fn records_that_somebody_else_damaged_or_deleted_are_written_again() {
    let w = World::new("repair").await;
    let _agent = w.agent_with(AgentConfig {
        look_over_every: Duration::from_millis(300),
        ..w.config("data")
    });
    w.give("a", 1, SLEEP).await;
    let before = w.ready("a").await;
    let (record, status) = (Key::NodePod(NODE, pod_key("a")), Key::NodeStatus(NODE));
    let own = w.get(&status).await.unwrap().value;
    for damage in [Some("x: ["), Some("placement: 7"), None] {
        for key in [&record, &status] {
            match damage {
                Some(text) => w.put(key, text).await,
                None => w.delete(key).await,
            }
        }
        let begun = Instant::now();
        loop {
            let pod = w.get(&record).await.map(|kv| kv.value);
            let pod = pod.and_then(|v| document::decode_value::<PodActual>(&v).ok());
            let node = w.get(&status).await.map(|kv| kv.value);
            if pod.as_ref() == Some(&before) && node.is_some_and(|v| v.len() >= own.len() / 2) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{damage:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_second_agent_of_the_same_name_is_refused_and_told_who_holds_it() {
    let w = World::new("second").await;
    let config = |dir| AgentConfig {
        lease_ttl: LASTING,
        ..w.config(dir)
    };
    let first = w.agent_with(config("data"));
    let session = w.alive().await.create_revision;
    let second = w.agent_with(config("other"));
    let error = second.ended().await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("process {}", std::process::id()))
            && error.contains("held by another agent"),
        "{error}"
    );
    assert_eq!(w.alive().await.create_revision, session);
    drop(first);
}

#[tokio::test]
async fn after_a_lost_session_what_is_no_longer_its_own_is_stopped_before_anything_is_claimed() {
    let w = World::new("lost").await;
    let _agent = w.agent();
    w.give("keep", 1, SLEEP).await;
    w.give("lose", 1, "containers: [{name: c, image: host, command: [sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done']}]").await;
    w.ready("keep").await;
    w.ready("lose").await;
    let (keep, lose) = (w.pid("keep", 1), w.pid("lose", 1));
    let alive_key = w.alive().await;
    // The session ends; meanwhile one pod is released (its records go at once) and another one is bound here.
    let (new_key, new_work) = w.work("new", 1, SLEEP);
    let mut session = alive_key.lease.unwrap();
    let release = Txn::new()
        .when(setpoint_store::Compare::absent(
            w.key(&Key::NodeAlive(NODE)),
        ))
        .delete(w.key(&Key::WorkPod(NODE, pod_key("lose"))))
        .delete(w.key(&Key::NodePod(NODE, pod_key("lose"))))
        .put(w.key(&new_key), new_work);
    // The agent takes a new session at once; where it was faster, that one ends as well.
    let begun = Instant::now();
    loop {
        // It may have expired.
        let _ = w.store.lease_revoke(session).await;
        let released = w.store.txn(release.clone()).await;
        if released.is_ok_and(|done| done.succeeded) {
            break;
        }
        session = w.alive().await.lease.unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "never between two sessions"
        );
    }
    w.until("new", "the new one is claimed", |a| a.is_some())
        .await;
    assert!(!alive(lose), "it was stopped before anything was claimed");
    assert!(alive(keep));
    assert_ne!(w.alive().await.create_revision, alive_key.create_revision);
    w.ready("keep").await;
    w.ready("new").await;
    assert!(w.actual("lose").await.is_none());
}

#[tokio::test]
async fn what_happens_while_etcd_is_away_is_told_when_it_is_back() {
    let w = World::on(Arc::new(TestEtcd::start().await), "away").await;
    let _agent = w.agent();
    let gate = w.f.path("gate");
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.02; done; exit 4",
        gate.display()
    );
    w.give("a", 1, &format!("restartPolicy: Never\n  containers: [{{name: c, image: host, command: [sh, -c, '{script}']}}]")).await;
    w.ready("a").await;
    let pid = w.pid("a", 1);
    w.etcd.kill();
    fs::write(&gate, "").unwrap();
    eventually("it has ended", || !alive(pid)).await;
    w.etcd.restart().await;
    let actual = w
        .until("a", "its end is told", |a| {
            a.is_some_and(|a| a.stage == PodStage::Failed)
        })
        .await
        .unwrap();
    assert_eq!(
        actual.container_statuses[0]
            .state
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        4
    );
    w.give("b", 1, SLEEP).await;
    w.ready("b").await;
}

#[tokio::test]
async fn an_agent_that_starts_without_etcd_goes_on_with_what_it_had_claimed() {
    let w = World::on(Arc::new(TestEtcd::start().await), "offline").await;
    let first = w.agent();
    w.give_config("m", "{k: one}").await;
    w.give("a", 1, "containers: [{name: c, image: host, command: [sh, -c, 'sleep 1000'], env: [{name: K, valueFrom: {configMapKeyRef: {name: m, key: k}}}]}]").await;
    w.ready("a").await;
    let pid = w.pid("a", 1);
    first.kill();
    w.etcd.kill();
    crate::support::kill(pid);
    let _second = w.agent();
    let dir = setpoint_agent::layout::DataDir::new(w.f.path("data")).pod("uid-a", 1);
    eventually("it is started again without etcd", || {
        read_record::<PidRecord>(&dir.attempt("c", 1), PID_FILE)
            .unwrap()
            .is_some_and(|r| alive(r.container.pid))
    })
    .await;
    w.etcd.restart().await;
    w.until("a", "etcd learns of it", |a| {
        a.is_some_and(|a| a.is_ready() && a.container_statuses[0].restart_count == 1)
    })
    .await;
}

#[tokio::test]
async fn broken_work_freezes_what_runs_and_disturbs_nothing_else() {
    let w = World::new("broken").await;
    let _agent = w.agent();
    w.give("a", 1, SLEEP).await;
    w.ready("a").await;
    let pid = w.pid("a", 1);
    for broken in [
        "",
        "{",
        "placement: 1\n---\nkind: Pod\n",
        "\u{0}",
        "a: 1\n---\n\t{",
    ] {
        w.put(&Key::WorkPod(NODE, pod_key("a")), broken).await;
        w.put(&Key::WorkContent(NODE, "configmaps", pod_key("x")), broken)
            .await;
        w.put(&Key::WorkPod(NODE, pod_key("never")), broken).await;
    }
    w.txn(Txn::new().put(
        format!("{}/work/{NODE}/what/is/this", w.keyspace.as_str()),
        "x",
    ))
    .await;
    w.give("b", 1, SLEEP).await;
    w.ready("b").await;
    assert!(alive(pid));
    assert!(w.actual("never").await.is_none());
    w.take_back("a").await;
    w.gone("a").await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_quiet_node_writes_nothing() {
    let w = World::on(Arc::new(TestEtcd::start().await), "quiet").await;
    let _agent = w.agent();
    w.give("a", 1, "containers: [{name: c, image: host, command: [sleep, '1000'], readinessProbe: {exec: {command: ['true']}, periodSeconds: 1}}]").await;
    w.ready("a").await;
    // The node's status and the pod's events are on their way; they end.
    let revision = async || w.store.get("/none").await.map(|(_, r)| r).unwrap();
    let mut before = revision().await;
    let mut quiet_since = Instant::now();
    let begun = Instant::now();
    while quiet_since.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = revision().await;
        if now != before {
            (before, quiet_since) = (now, Instant::now());
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it never becomes quiet"
        );
    }
    assert_eq!(
        w.actual("a").await.unwrap().container_statuses[0].restart_count,
        0
    );
}

#[tokio::test]
async fn pods_stop_with_the_agent_where_that_is_asked_for() {
    let w = World::new("exit").await;
    for placement in 1..=5 {
        let agent = w.agent_with(AgentConfig {
            lease_ttl: LASTING,
            stop_pods_on_exit: true,
            ..w.config("data")
        });
        w.give("a", placement, SLEEP).await;
        w.until("a", "it is ready", |a| {
            a.is_some_and(|a| a.placement == placement && a.is_ready())
        })
        .await;
        let pid = w.pid("a", placement);
        agent.shutdown.cancel();
        agent.ended().await.unwrap();
        assert!(!alive(pid));
        // The agent gives etcd only a moment to hear of it, so on a busy machine that may fail.
        let ended = Instant::now();
        while ended.elapsed() < Duration::from_secs(2) {
            if w.get(&Key::NodeAlive(NODE)).await.is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    panic!("the session does not end with it");
}

#[tokio::test]
async fn thirty_pods_run_at_once_and_each_has_its_own_address() {
    let w = World::new("thirty").await;
    let _agent = w.agent();
    let names: Vec<String> = (0..30).map(|i| format!("p{i}")).collect();
    let mut txn = Txn::new();
    for name in &names {
        let (key, value) = w.work(name, 1, SLEEP);
        txn = txn.put(w.key(&key), value);
    }
    w.txn(txn).await;
    let mut addresses = std::collections::BTreeSet::new();
    for name in &names {
        addresses.insert(w.ready(name).await.pod_ip);
    }
    assert_eq!(addresses.len(), names.len());
}

#[tokio::test]
async fn writes_of_a_session_that_is_over_are_refused() {
    // The fence itself, without the agent: a write guarded on `alive` as it was fails once that has been taken anew.
    let w = World::new("fence").await;
    let first = w.agent();
    w.give("a", 1, SLEEP).await;
    w.ready("a").await;
    let old = w.alive().await;
    w.store.lease_revoke(old.lease.unwrap()).await.unwrap();
    let begun = Instant::now();
    while w.alive().await.create_revision == old.create_revision {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "a new session is taken"
        );
    }
    let late = Txn::new()
        .when(setpoint_store::Compare::ModRevision(
            w.key(&Key::NodeAlive(NODE)),
            old.mod_revision,
        ))
        .put(w.key(&Key::NodePod(NODE, pod_key("a"))), "late");
    let outcome: Result<_, StoreError> = w.store.txn(late).await;
    assert!(!outcome.unwrap().succeeded);
    w.ready("a").await;
    drop(first);
}
