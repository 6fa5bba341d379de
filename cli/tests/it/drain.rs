//! `setpoint drain`, and what `uncordon` and `evict` have to do with it. What the scheduler and agents write is put by the
//! tests.

use std::io::{BufRead as _, BufReader, Lines, Read};
use std::process::Stdio;
use std::sync::Arc;

use setpoint_apis::records::{Binding, Intent, PodActual, PodStage, Withdrawal};
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::testing::TestEtcd;
use setpoint_store::{KeyValue, Txn};

use crate::fixture::{Fixture, LONG, Ran, Running, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn request(name: &str) -> Key<'static> {
    Key::Intent {
        verb: "evict",
        pod: key(name),
        by: "drain",
    }
}

/// Binds a pod that was applied, and lets its node report it: as ready, or at another stage.
async fn place(f: &Fixture, name: &str, node: &str, placement: u32, stage: PodStage) {
    let desired = f
        .get(&Key::Desired("pods", key(name)))
        .await
        .expect("a pod");
    let binding = Binding {
        node: node.into(),
        session: 1,
        placement,
        pod_revision: desired.mod_revision,
        ..Binding::default()
    };
    let ready = setpoint_apis::core::PodCondition::new("Ready", true, Default::default());
    let report = PodActual {
        placement,
        stage,
        conditions: vec![ready],
        ..PodActual::default()
    };
    let txn = Txn::new()
        .put(f.key(&Key::Binding(key(name))), document::encode(&binding))
        .put(f.key(&Key::WorkPod(node, key(name))), "{}")
        .put(
            f.key(&Key::NodePod(node, key(name))),
            document::encode(&report),
        );
    f.store.txn(txn).await.expect("a transaction");
}

/// A pod leaves n1, as the scheduler and the agent have it: its request is consumed and it is withdrawn; it has stopped, and
/// is bound to n2.
async fn evict(f: &Fixture, name: &str) {
    let kv = f.get(&Key::Binding(key(name))).await.expect("a binding");
    let bound: Binding = document::decode_value(&kv.value).unwrap();
    let leaving = Binding {
        withdrawn: Some(Withdrawal {
            reason: "Evicted".into(),
            at: Default::default(),
            grace_seconds: None,
        }),
        ..bound.clone()
    };
    let txn = Txn::new()
        .delete(f.key(&request(name)))
        .delete(f.key(&Key::WorkPod("n1", key(name))))
        .put(f.key(&Key::Binding(key(name))), document::encode(&leaving));
    f.store.txn(txn).await.expect("a transaction");
    let txn = Txn::new()
        .delete(f.key(&Key::NodePod("n1", key(name))))
        .put(f.key(&Key::Binding(key(name))), {
            let binding = Binding {
                node: "n2".into(),
                placement: bound.placement + 1,
                ..bound
            };
            document::encode(&binding)
        })
        .put(f.key(&Key::WorkPod("n2", key(name))), "{}");
    f.store.txn(txn).await.expect("a transaction");
}

async fn nodes(name: &str) -> Fixture {
    with_nodes(Fixture::new(name).await).await
}

async fn with_nodes(f: Fixture) -> Fixture {
    for node in ["n1", "n2"] {
        f.apply(&format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n"
        ));
        f.put(
            &Key::NodeAlive(node),
            "{hostname: h, pid: 1, instance: i, since: null, leaseTtlSeconds: 10}",
        )
        .await;
    }
    // Somebody is elected.
    f.put(&Key::Leader("scheduler", None), "x").await;
    f
}

async fn until_asked(f: &Fixture, name: &str) -> Intent {
    let kv = until_there(f, &request(name)).await;
    document::decode_value(&kv.value).expect("an intent")
}

async fn until_there(f: &Fixture, key: &Key<'_>) -> KeyValue {
    let waited = tokio::time::timeout(LONG, async {
        loop {
            if let Some(kv) = f.get(key).await {
                return kv;
            }
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("a key")
}

/// What the scheduler says when a budget does not allow an eviction.
async fn hold_back(f: &Fixture, pod: &str, id: &str) {
    let text = format!(
        "{{apiVersion: v1, kind: Event, metadata: {{name: {id}, namespace: default}}, involvedObject: {{kind: Pod, name: {pod}}}, \
         reason: EvictionBlocked, type: Warning, message: 'not evicted yet: the disruption budget guard needs 1 healthy pods and has 1 currently'}}"
    );
    let key = Key::Event {
        node: None,
        namespace: "default",
        id,
    };
    f.put(&key, &text).await;
}

async fn is_cordoned(f: &Fixture, node: &str) -> bool {
    let kv = f
        .get(&Key::Desired("nodes", ObjectKey::cluster(node)))
        .await;
    let text = kv.map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
    text.is_some_and(|text| text.contains("unschedulable: true"))
}

fn budget(allowed: i32) -> String {
    format!(
        "{{disruptionsAllowed: {allowed}, currentHealthy: {}, desiredHealthy: 1, expectedPods: 2}}",
        1 + allowed
    )
}

const BUDGET: &str = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: guard}, spec: {minAvailable: 1, selector: {}}}";

#[tokio::test]
async fn a_drain_asks_for_every_pod_of_the_node_and_ends_when_they_have_left() {
    let f = nodes("drain-all").await;
    for name in ["a", "b", "done", "other"] {
        f.apply(&pod(name));
    }
    for name in ["a", "b"] {
        place(&f, name, "n1", 1, PodStage::Running).await;
    }
    place(&f, "done", "n1", 1, PodStage::Succeeded).await;
    place(&f, "other", "n2", 1, PodStage::Running).await;
    let mut drain =
        Running::start(f.command(&["drain", "n1", "--reason", "new disk", "--grace-period=5"]));
    let asked = until_asked(&f, "a").await;
    assert_eq!(
        (asked.node.as_deref(), asked.reason.as_str()),
        (Some("n1"), "new disk")
    );
    assert!(asked.uid.is_some() && !asked.ignore_budgets);
    assert_eq!(asked.grace_seconds, Some(5));
    until_asked(&f, "b").await;
    assert!(is_cordoned(&f, "n1").await && !is_cordoned(&f, "n2").await);
    for name in ["done", "other"] {
        assert!(f.get(&request(name)).await.is_none(), "{name}");
    }
    evict(&f, "a").await;
    drain
        .until("the first has left", |out| {
            out.contains("pod default/a evicted from n1; it is on n2 now")
        })
        .await;
    evict(&f, "b").await;
    assert_eq!(drain.ended().await, Some(0));
    let out = drain
        .until("the end", |out| out.contains("node/n1 drained"))
        .await;
    assert!(out.starts_with("node/n1 cordoned\n"), "{out}");
    // Once more: there is nothing to do.
    let out = f.run(&["drain", "node/n1"]).ok();
    assert_eq!(out, "node/n1 already cordoned\nnode/n1 drained\n");
}

#[tokio::test]
async fn pods_that_need_a_flag_are_named_before_anything_is_evicted_and_the_node_stays_cordoned() {
    let f = nodes("drain-refused").await;
    f.apply("{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: logs}, spec: {selector: {matchLabels: {app: logs}}, template: {metadata: {labels: {app: logs}}, spec: {containers: [{name: c, image: host}]}}}}");
    f.apply("{apiVersion: v1, kind: Pod, metadata: {name: logs-1, labels: {app: logs}, ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: logs, uid: u, controller: true}]}, spec: {containers: [{name: c, image: host}]}}");
    f.apply("{apiVersion: v1, kind: Pod, metadata: {name: cache}, spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: host}]}}");
    f.apply(&pod("web"));
    for name in ["logs-1", "cache", "web"] {
        place(&f, name, "n1", 1, PodStage::Running).await;
    }
    let dry = f.run(&["drain", "n1", "--dry-run"]).fails();
    assert!(dry.contains("error: nothing is evicted:"), "{dry}");
    assert!(!is_cordoned(&f, "n1").await);
    let err = f.run(&["drain", "n1"]).fails();
    for says in [
        "the nodes stay cordoned, and nothing is evicted",
        "(--ignore-daemonsets leaves them where they are): default/logs-1",
        "(--delete-emptydir-data evicts them): default/cache",
    ] {
        assert!(err.contains(says), "no {says:?} in {err}");
    }
    assert!(is_cordoned(&f, "n1").await);
    let flags = ["--ignore-daemonsets", "--delete-emptydir-data"];
    let args = [&["drain", "n1", "--dry-run=client"], &flags[..]].concat();
    let ran = f.run(&args);
    assert!(
        ran.err.contains("left where they are: default/logs-1"),
        "{ran:?}"
    );
    let out = ran.ok();
    for name in ["cache", "web"] {
        let line = format!("pod default/{name} is to be evicted from n1 (dry run)\n");
        assert!(out.contains(&line), "{out}");
    }
    for name in ["logs-1", "cache", "web"] {
        assert!(f.get(&request(name)).await.is_none(), "{name}");
    }
    // Without the others nothing is in the way.
    let mut drain = Running::start(f.command(&["drain", "n1", "--pod-selector", "app=web"]));
    until_asked(&f, "web").await;
    evict(&f, "web").await;
    assert_eq!(drain.ended().await, Some(0));
    assert!(f.get(&request("cache")).await.is_none());
}

#[tokio::test]
async fn a_pod_with_a_claim_on_the_node_is_evicted_only_when_it_may_be_down() {
    let f = nodes("drain-pinned").await;
    f.apply("{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}");
    f.apply("{apiVersion: v1, kind: Pod, metadata: {name: db, labels: {app: db}}, spec: {volumes: [{name: v, persistentVolumeClaim: {claimName: data}}], containers: [{name: c, image: host}]}}");
    place(&f, "db", "n1", 1, PodStage::Running).await;
    let claim = f
        .run(&["get", "pvc", "data", "-o", "jsonpath={.metadata.uid}"])
        .ok();
    let status = format!("{{node: n1, uid: {claim:?}}}");
    f.put(&Key::Actual("persistentvolumeclaims", key("data")), &status)
        .await;
    let err = f.run(&["drain", "n1"]).fails();
    assert!(err.contains("--stop-pinned"), "{err}");
    assert!(err.contains("default/db"), "{err}");
    let _drain = Running::start(f.command(&["drain", "n1", "--stop-pinned"]));
    until_asked(&f, "db").await;
}

#[tokio::test]
async fn a_drain_that_a_budget_holds_back_says_so_and_its_requests_stand_until_they_are_withdrawn()
{
    let f = nodes("drain-budget").await;
    for name in ["a", "b"] {
        f.apply(&pod(name));
        place(&f, name, "n1", 1, PodStage::Running).await;
    }
    f.apply(BUDGET);
    f.put(
        &Key::Actual("poddisruptionbudgets", key("guard")),
        &budget(0),
    )
    .await;
    // Its time is over before it knows what has become of its requests.
    let err = f.run(&["drain", "n1", "--timeout", "1ms"]).fails();
    for says in [
        "not drained within 0 s",
        "pod default/a on n1: the disruption budget guard allows no disruption now: it needs 1 healthy pods and has 1",
        "these requests to evict stand",
        "default/a, default/b",
        "`setpoint drain --cancel n1` withdraws them",
        "`setpoint uncordon n1` withdraws them, and lets pods onto the nodes again",
    ] {
        assert!(err.contains(says), "no {says:?} in {err}");
    }
    let first = f.get(&request("a")).await.expect("the request stands");
    // A second drain goes on with the same requests; the line says which budget.
    let mut drain = Running::start(f.command(&["drain", "n1"]));
    drain
        .until("why it waits", |out| {
            out.contains("pod default/b waits: the disruption budget guard")
        })
        .await;
    let second = f.get(&request("a")).await.expect("the request stands");
    assert_eq!(first.mod_revision, second.mod_revision);
    // Ctrl-C leaves the requests, and says so.
    let pid = rustix::process::Pid::from_raw(i32::try_from(drain.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(drain.ended().await, Some(130));
    assert!(f.get(&request("a")).await.is_some());
    let out = f.run(&["drain", "--cancel", "n1"]).ok();
    assert_eq!(
        out,
        "pod default/a: the request to evict it is withdrawn\npod default/b: the request to evict it is withdrawn\n"
    );
    assert!(f.get(&request("a")).await.is_none() && f.get(&request("b")).await.is_none());
    assert!(is_cordoned(&f, "n1").await);
    let out = f.run(&["drain", "--cancel", "n1"]).ok();
    assert_eq!(out, "No requests to withdraw\n");
}

#[tokio::test]
async fn uncordoning_a_node_ends_its_drain_and_withdraws_what_it_asked_for() {
    let f = nodes("drain-uncordon").await;
    f.apply(&pod("a"));
    place(&f, "a", "n1", 1, PodStage::Running).await;
    let mut drain = Running::start(f.command(&["drain", "n1"]));
    until_asked(&f, "a").await;
    // What somebody else has asked for is not a drain's.
    let _evict = Running::start(f.command(&["evict", "a"]));
    let own = Key::Intent {
        verb: "evict",
        pod: key("a"),
        by: "cli",
    };
    until_there(&f, &own).await;
    let out = f.run(&["uncordon", "n1"]).ok();
    assert!(out.starts_with("node/n1 uncordoned\n"), "{out}");
    assert_eq!(drain.ended().await, Some(1));
    assert!(f.get(&request("a")).await.is_none());
    assert!(f.get(&own).await.is_some());
    assert!(!is_cordoned(&f, "n1").await);
}

#[tokio::test]
async fn nodes_that_were_uncordoned_are_drained_no_further_although_another_one_could_not_be() {
    let f = nodes("drain-uncordon-some").await;
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        f.apply(&pod(name));
        place(&f, name, node, 1, PodStage::Running).await;
    }
    f.run(&["drain", "n1", "n2", "--timeout", "1s"]).fails();
    until_asked(&f, "a").await;
    let ran = f.run(&["uncordon", "n1", "nowhere"]);
    assert!(
        ran.out
            .contains("pod default/a: the request to evict it is withdrawn"),
        "{ran:?}"
    );
    assert!(ran.fails().contains("\"nowhere\" not found"));
    assert!(!is_cordoned(&f, "n1").await);
    assert!(f.get(&request("a")).await.is_none());
    // Nobody has uncordoned that one.
    assert!(is_cordoned(&f, "n2").await);
    assert!(f.get(&request("b")).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_nodes_one_may_be_uncordoned_by_somebody_else_while_they_are_drained() {
    let f = nodes("drain-uncordon-one").await;
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        f.apply(&pod(name));
        place(&f, name, node, 1, PodStage::Running).await;
    }
    let drain = f
        .command(&["drain", "n1", "n2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting setpoint");
    for name in ["a", "b"] {
        until_asked(&f, name).await;
    }
    // Not with `uncordon`, which would withdraw the requests itself.
    f.put(
        &Key::Desired("nodes", ObjectKey::cluster("n1")),
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n",
    )
    .await;
    let output = tokio::task::spawn_blocking(|| drain.wait_with_output());
    let ran = Ran::of(output.await.expect("a thread").expect("its output"));
    assert!(
        ran.out
            .contains("pod default/a: the request to evict it is withdrawn"),
        "{ran:?}"
    );
    let err = ran.fails();
    for says in [
        "node/n1 was uncordoned meanwhile: it is drained no further",
        "cordoned: n2",
        "stand, and are carried out when the budgets allow it: default/b",
    ] {
        assert!(err.contains(says), "{says:?} is not in {err}");
    }
    assert!(!is_cordoned(&f, "n1").await && is_cordoned(&f, "n2").await);
    assert!(f.get(&request("a")).await.is_none());
    assert!(f.get(&request("b")).await.is_some());
}

/// What a program writes.
fn lines<P: Read>(pipe: Option<P>) -> Lines<BufReader<P>> {
    BufReader::new(pipe.expect("what it writes")).lines()
}

/// Whether a program says so before it ends; and the rest of what it writes, which it may go on with.
async fn until_said<P: Read + Send + 'static>(
    mut lines: Lines<BufReader<P>>,
    words: &'static str,
) -> (bool, Lines<BufReader<P>>) {
    let said = tokio::task::spawn_blocking(move || {
        let said = lines.any(|line| line.unwrap_or_default().contains(words));
        (said, lines)
    });
    said.await.expect("a thread")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_outlives_a_while_without_etcd() {
    let etcd = Arc::new(TestEtcd::start().await);
    let f = Fixture::of(etcd, "drain-away").await;
    f.run(&["init"]).ok();
    let f = with_nodes(f).await;
    f.apply(&pod("a"));
    place(&f, "a", "n1", 1, PodStage::Running).await;
    let mut drain = f
        .command(&["drain", "n1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting setpoint");
    until_asked(&f, "a").await;
    f.etcd.freeze();
    let stderr = lines(drain.stderr.take());
    // It says so, and does not end.
    let (said, _stderr) = until_said(stderr, "the drain goes on when etcd answers again").await;
    f.etcd.thaw();
    assert!(said, "it has given up");
    evict(&f, "a").await;
    let output = tokio::task::spawn_blocking(|| drain.wait_with_output());
    let ran = Ran::of(output.await.expect("a thread").expect("its output"));
    assert!(ran.ok().contains("node/n1 drained"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_gives_up_in_time_and_an_eviction_is_waited_for_though_etcd_is_away() {
    let etcd = Arc::new(TestEtcd::start().await);
    let f = Fixture::of(etcd, "drain-away-timeout").await;
    f.run(&["init"]).ok();
    let f = with_nodes(f).await;
    f.apply(&pod("a"));
    place(&f, "a", "n1", 1, PodStage::Running).await;
    // What a budget holds back is told by those who look again: they are waiting by then, and have asked for all they want.
    f.apply(BUDGET);
    f.put(
        &Key::Actual("poddisruptionbudgets", key("guard")),
        &budget(0),
    )
    .await;
    let mut evict_a = f
        .command(&["evict", "pod/a", "--wait", "--timeout", "60s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting setpoint");
    let stderr = lines(evict_a.stderr.take());
    let (said, stderr) = until_said(stderr, "pod/a is not evicted yet").await;
    assert!(said, "it does not wait");
    // Long enough for two looks: etcd is to be away when the time is over, and not before.
    let mut drain = f
        .command(&["drain", "n1", "--timeout", "10s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting setpoint");
    let (said, _stdout) = until_said(lines(drain.stdout.take()), "pod default/a waits").await;
    assert!(said, "it does not wait");
    f.etcd.freeze();
    let output = tokio::task::spawn_blocking(|| drain.wait_with_output());
    let ran = Ran::of(output.await.expect("a thread").expect("its output"));
    let err = ran.fails();
    assert!(
        err.contains("given up after 10 s, in which etcd did not answer"),
        "{err}"
    );
    let (said, _stderr) = until_said(stderr, "waited for when etcd answers again").await;
    f.etcd.thaw();
    assert!(said, "it has given up");
    evict(&f, "a").await;
    let output = tokio::task::spawn_blocking(|| evict_a.wait_with_output());
    let ran = Ran::of(output.await.expect("a thread").expect("its output"));
    assert!(ran.ok().contains("was evicted from n1"));
}

#[tokio::test]
async fn budgets_are_ignored_when_that_is_wanted_also_by_requests_that_stand() {
    let f = nodes("drain-ignore").await;
    f.apply(&pod("a"));
    place(&f, "a", "n1", 1, PodStage::Running).await;
    f.run(&["drain", "n1", "--timeout", "1s"]).fails();
    assert!(!until_asked(&f, "a").await.ignore_budgets);
    f.run(&["drain", "n1", "--ignore-budgets", "--timeout", "1s"])
        .fails();
    assert!(until_asked(&f, "a").await.ignore_budgets);
}

#[tokio::test]
async fn several_nodes_are_drained_at_once_and_what_comes_back_is_not_evicted_again() {
    let f = nodes("drain-two").await;
    f.run(&["label", "node", "n1", "rack=r"]).ok();
    f.run(&["label", "node", "n2", "rack=r"]).ok();
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        f.apply(&pod(name));
        place(&f, name, node, 1, PodStage::Running).await;
    }
    let mut drain = Running::start(f.command(&["drain", "-l", "rack=r"]));
    until_asked(&f, "a").await;
    until_asked(&f, "b").await;
    f.run(&["delete", "pod", "b", "--wait=false"]).ok();
    f.remove(&Key::WorkPod("n2", key("b"))).await;
    f.remove(&Key::NodePod("n2", key("b"))).await;
    drain
        .until("the deleted one", |out| {
            out.contains("pod default/b is deleted, and has stopped on n2")
                && out.contains("node/n2 drained")
        })
        .await;
    // Onto the other node, which is drained as well: so it does whose pods tolerate that.
    evict(&f, "a").await;
    assert_eq!(drain.ended().await, Some(1));
    let out = drain
        .until("what is in the way", |out| {
            out.contains("pod default/a is not evicted: pods that were evicted and are back")
        })
        .await;
    assert!(!out.contains("node/n2 drained\nnode/n2"), "{out}");
    assert!(f.get(&request("a")).await.is_none());
}

#[tokio::test]
async fn what_cannot_be_drained_is_said_at_once() {
    let f = nodes("drain-errors").await;
    for (words, says) in [
        (&["drain"][..], "no node is named"),
        (&["drain", "n11"], "did you mean \"n1\"?"),
        (&["drain", "n1", "--grace-period", "soon"], "invalid value"),
        (
            &["drain", "n1", "--cancel", "--dry-run"],
            "exclude each other",
        ),
        (
            &["drain", "n1", "--pod-selector", "a in (b"],
            "--pod-selector",
        ),
    ] {
        let err = f.run(words).fails();
        assert!(err.contains(says), "{words:?}: no {says:?} in {err}");
    }
    assert!(!is_cordoned(&f, "n1").await);
}

fn by_hand(name: &str) -> Key<'static> {
    Key::Intent {
        verb: "evict",
        pod: key(name),
        by: "cli",
    }
}

/// What `setpoint evict` says, and its exit code, when the scheduler withdraws pods of these requests and says of others that
/// they are held back.
async fn answered(f: &Fixture, words: &[&str], leave: &[&str], held: &[&str]) -> Ran {
    let child = f
        .command(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting setpoint");
    for name in leave.iter().chain(held) {
        until_there(f, &by_hand(name)).await;
    }
    for name in leave {
        let kv = f.get(&Key::Binding(key(name))).await.expect("a binding");
        let leaving = Binding {
            withdrawn: Some(Withdrawal {
                reason: "Evicted".into(),
                at: Default::default(),
                grace_seconds: None,
            }),
            ..document::decode_value(&kv.value).unwrap()
        };
        let txn = Txn::new()
            .delete(f.key(&by_hand(name)))
            .put(f.key(&Key::Binding(key(name))), document::encode(&leaving));
        f.store.txn(txn).await.expect("a transaction");
    }
    for name in held {
        hold_back(f, name, &format!("{name}.1")).await;
    }
    let output = tokio::task::spawn_blocking(|| child.wait_with_output());
    Ran::of(output.await.expect("a thread").expect("its output"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_ends_with_the_answer_of_the_scheduler() {
    let f = nodes("evict-held").await;
    for name in ["a", "b", "c"] {
        f.apply(&pod(name));
    }
    for name in ["a", "b"] {
        place(&f, name, "n1", 1, PodStage::Running).await;
    }
    f.apply(BUDGET);
    f.put(
        &Key::Actual("poddisruptionbudgets", key("guard")),
        &budget(0),
    )
    .await;
    // That a budget has no room is no answer: here the scheduler knows better.
    let ran = answered(&f, &["evict", "pod/a"], &["a"], &[]).await;
    assert_eq!(ran.err, "");
    assert_eq!(ran.ok(), "pod/a is to be evicted from n1\n");
    place(&f, "a", "n1", 1, PodStage::Running).await;

    let ran = answered(&f, &["evict", "a"], &[], &["a"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert_eq!(ran.out, "pod/a is to be evicted from n1\n");
    assert!(
        ran.err.contains(
            "pod/a stays for now: the disruption budget guard allows no disruption now: it needs 1 healthy pods and has 1"
        ),
        "{ran:?}"
    );
    assert!(f.get(&by_hand("a")).await.is_some());
    // What was said of an earlier request is no answer to this one: one pod is let go, the other is held back.
    let ran = answered(&f, &["evict", "a", "b"], &["a"], &["b"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.err.contains("pod/b stays for now") && !ran.err.contains("pod/a stays"),
        "{ran:?}"
    );
    place(&f, "a", "n1", 1, PodStage::Running).await;
    // By labels, and what is not on a node is left out.
    let ran = answered(&f, &["evict", "-l", "app in (b, c)"], &[], &["b"]).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert_eq!(ran.out, "pod/b is to be evicted from n1\n");
    assert!(
        ran.err.contains("left out: pod/c is on no node yet"),
        "{ran:?}"
    );
    // Of those that are named all must be such that they can be.
    f.remove(&by_hand("a")).await;
    let err = f.run(&["evict", "pod", "a", "c", "x"]).fails();
    assert!(
        err.contains("pod/c is on no node yet") && err.contains("\"x\" not found"),
        "{err}"
    );
    assert!(f.get(&by_hand("a")).await.is_none());
    let err = f.run(&["evict", "-l", "app=z"]).fails();
    assert!(err.contains("no pod is selected"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_does_not_answer_is_not_waited_for_for_ever() {
    let f = nodes("evict-silent").await;
    f.apply(&pod("a"));
    place(&f, "a", "n1", 1, PodStage::Running).await;
    let ran = f.run(&["evict", "a"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(
        ran.err
            .contains("the scheduler has not answered within 10 s: pod/a stays for now"),
        "{ran:?}"
    );
    assert!(f.get(&by_hand("a")).await.is_some());
}

#[tokio::test]
async fn budgets_are_listed_over_namespaces_and_deleted_together() {
    let f = Fixture::new("budget-collection").await;
    f.apply("{apiVersion: v1, kind: Namespace, metadata: {name: other}}");
    for (name, namespace, least) in [
        ("a", "default", "2"),
        ("b", "default", "1%"),
        ("c", "other", "2"),
    ] {
        f.apply(&format!(
            "{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: {name}, namespace: {namespace}, labels: {{set: s}}}}, spec: {{minAvailable: {least}, selector: {{matchLabels: {{app: x}}}}}}}}"
        ));
    }
    let names = |args: &[&str]| {
        let args = [
            &["get", "pdb", "-o", "jsonpath={.items[*].metadata.name}"],
            args,
        ]
        .concat();
        f.run(&args).ok()
    };
    assert_eq!(names(&["-A", "-l", "set=s"]), "a b c");
    assert_eq!(names(&["-l", "set=s"]), "a b");
    f.run(&["delete", "poddisruptionbudgets", "--all"]).ok();
    assert_eq!(names(&["-A"]), "c");
}
