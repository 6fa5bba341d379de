//! node-lifecycle and failover together, against a real etcd and real leases. The scheduler's part is played by the
//! tests: it is what removes bindings and intents.

#[path = "../../../node-lifecycle/tests/it/rig.rs"]
#[expect(dead_code, reason = "no agent is killed here")]
mod rig;

use std::time::Duration;

use setpoint_apis::core::Pod;
use setpoint_apis::records::{ClaimFence, NodeState, PodActual, PodStage};
use setpoint_apis::{Key, Kind, ObjectKey};
use setpoint_store::Txn;
use tokio::time::Instant;

use rig::{Rig, cluster_key};

/// Nobody is meant to lose it: those who are to be lost give it up.
const LONG: Duration = Duration::from_secs(30);

async fn rig(name: &str) -> Rig {
    let rig = Rig::start(name, |cache| {
        setpoint_failover::register(setpoint_node_lifecycle::register(cache))
    })
    .await;
    rig.controller("node-lifecycle", setpoint_node_lifecycle::run);
    rig.controller("failover", setpoint_failover::run);
    rig
}

fn pod(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

fn intent(name: &str) -> Key<'static> {
    Key::Intent {
        verb: "release",
        pod: pod(name),
        by: "failover",
    }
}

impl Rig {
    async fn ready(&self, node: &str) {
        self.until(&format!("{node} is ready"), |view| {
            let health = view.health().get(&cluster_key(node))?;
            (health.value.state == NodeState::Ready).then_some(())
        })
        .await;
    }

    async fn bind(&self, name: &str, node: &str, session: i64, annotation: &str) {
        let document = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\n{annotation}spec:\n  \
             containers:\n  - name: main\n    image: host\n    command: [sleep, '1000']\n"
        );
        let revision = self
            .put(&Key::Desired(Pod::PLURAL, pod(name)), &document)
            .await;
        let binding = format!(
            "node: {node}\nsession: {session}\nplacement: 1\npodRevision: {revision}\nboundAt: 2026-01-01T00:00:00Z\n"
        );
        self.put(&Key::Binding(pod(name)), &binding).await;
    }

    /// What an agent records of a pod that it runs.
    async fn claimed(&self, name: &str, node: &str, fence: Option<ClaimFence>) {
        let actual = PodActual {
            stage: PodStage::Running,
            fence,
            ..PodActual::default()
        };
        let record = setpoint_apis::document::encode(&actual);
        self.put(&Key::NodePod(node, pod(name)), &record).await;
    }
}

fn policy(word: &str) -> String {
    format!("  annotations:\n    setpoint.dev/partition-policy: {word}\n")
}

#[tokio::test]
async fn releases_are_asked_for_within_moments_of_the_loss() {
    let rig = rig("loss").await;
    let agent = rig.agent("n1", LONG).await;
    let _others = (rig.agent("n2", LONG).await, rig.agent("n3", LONG).await);
    for node in ["n1", "n2", "n3"] {
        rig.ready(node).await;
    }
    for i in 0..50 {
        rig.bind(&format!("p{i}"), "n1", agent.session, "").await;
    }
    rig.bind("kept", "n1", agent.session, &policy("keep")).await;
    rig.bind("done", "n1", agent.session, "").await;
    let succeeded = PodActual {
        stage: PodStage::Succeeded,
        ..PodActual::default()
    };
    rig.put(
        &Key::NodePod("n1", pod("done")),
        &setpoint_apis::document::encode(&succeeded),
    )
    .await;
    let session = agent.session;
    let history = rig.history().await;
    let start = Instant::now();
    agent.stop().await;
    history
        .until("all are asked for", |h| {
            (0..50).all(|i| !h.of(&intent(&format!("p{i}"))).is_empty())
        })
        .await;
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(15),
        "a busy machine is granted much, but {took:?} is no longer moments"
    );
    assert_eq!(
        rig.get(&intent("p7")).await.unwrap(),
        format!("node: n1\nsession: {session}\nreason: node n1 is unreachable\n")
    );

    // The scheduler carries them out; nothing is asked for twice, nor taken back.
    for i in 0..50 {
        let name = format!("p{i}");
        let txn = Txn::new()
            .delete(rig.keyspace.build(&Key::Binding(pod(&name))))
            .delete(rig.keyspace.build(&intent(&name)));
        rig.store.txn(txn).await.unwrap();
    }
    rig.bind("late", "n1", session, "").await;
    history
        .until("the late one is asked for", |h| {
            !h.of(&intent("late")).is_empty()
        })
        .await;
    for i in 0..50 {
        assert_eq!(
            history.of(&intent(&format!("p{i}"))).len(),
            2,
            "one request, one removal"
        );
    }
    assert_eq!(rig.get(&intent("kept")).await, None);
    assert_eq!(rig.get(&intent("done")).await, None);

    // A new pod of the finished one's name wants its place.
    let done = Key::Desired(Pod::PLURAL, pod("done"));
    let document = rig.get(&done).await.unwrap();
    rig.delete(&done).await;
    rig.put(&done, &document).await;
    history
        .until("the former one is asked for", |h| {
            !h.of(&intent("done")).is_empty()
        })
        .await;
}

#[tokio::test]
async fn requests_are_taken_back_when_the_node_returns_before_they_are_carried_out() {
    let rig = rig("returns").await;
    let agent = rig.agent("n1", LONG).await;
    let _others = (rig.agent("n2", LONG).await, rig.agent("n3", LONG).await);
    for node in ["n1", "n2", "n3"] {
        rig.ready(node).await;
    }
    rig.bind("a", "n1", agent.session, "").await;
    let history = rig.history().await;
    agent.stop().await;
    history
        .until("a is asked for", |h| h.of(&intent("a")).len() == 1)
        .await;
    let _back = rig.agent("n1", LONG).await;
    history
        .until("the request is taken back", |h| {
            h.of(&intent("a")).len() == 2
        })
        .await;
    assert_eq!(rig.get(&intent("a")).await, None);
}

#[tokio::test]
async fn a_stop_pod_that_was_claimed_without_a_fence_is_kept() {
    let rig = rig("unfenced").await;
    let agent = rig.agent("n1", LONG).await;
    let _others = (rig.agent("n2", LONG).await, rig.agent("n3", LONG).await);
    for node in ["n1", "n2", "n3"] {
        rig.ready(node).await;
    }
    rig.put(&Key::NodeFence("n1"), "x").await;
    rig.bind("single", "n1", agent.session, &policy("stop"))
        .await;
    rig.bind("former", "n1", agent.session, "").await;
    let former = Key::Desired(Pod::PLURAL, pod("former"));
    let document = rig.get(&former).await.unwrap();
    rig.delete(&former).await;
    let stop = format!("  namespace: default\n{}", policy("stop"));
    let next = document.replace("  namespace: default\n", &stop);
    rig.put(&former, &next).await;
    // One that is gone, and whose binding remembers.
    rig.bind("gone", "n1", agent.session, "").await;
    rig.delete(&Key::Desired(Pod::PLURAL, pod("gone"))).await;
    let binding = rig.get(&Key::Binding(pod("gone"))).await.unwrap();
    rig.put(
        &Key::Binding(pod("gone")),
        &(binding + "neverTwice: true\n"),
    )
    .await;
    for name in ["single", "former", "gone"] {
        rig.claimed(name, "n1", None).await;
    }
    rig.bind("many", "n1", agent.session, "").await;
    let history = rig.history().await;
    let agent_session = agent.session;
    agent.stop().await;
    history
        .until("the other one is asked for", |h| {
            !h.of(&intent("many")).is_empty()
        })
        .await;
    assert_eq!(rig.get(&intent("single")).await, None);
    rig.delete(&Key::NodeFence("n1")).await;
    rig.bind("later", "n1", agent_session, "").await;
    history
        .until("what comes after the end of the fence is asked for", |h| {
            !h.of(&intent("later")).is_empty()
        })
        .await;
    for name in ["single", "former", "gone"] {
        assert!(history.of(&intent(name)).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_stop_pod_is_released_when_the_fence_has_ended_and_until_then_says_why_it_waits() {
    let rig = rig("fence").await;
    let agent = rig.agent("n1", LONG).await;
    let _others = (rig.agent("n2", LONG).await, rig.agent("n3", LONG).await);
    for node in ["n1", "n2", "n3"] {
        rig.ready(node).await;
    }
    rig.put(&Key::NodeFence("n1"), "x").await;
    rig.bind("single", "n1", agent.session, &policy("stop"))
        .await;
    let fence = ClaimFence {
        revision: 1,
        lease_ttl_seconds: 30,
    };
    rig.claimed("single", "n1", Some(fence)).await;
    // One that no agent has claimed: nothing of it runs.
    rig.bind("unclaimed", "n1", agent.session, &policy("stop"))
        .await;
    let history = rig.history().await;
    agent.stop().await;
    let events = rig.keyspace.event_range("default").start;
    history
        .until("it is said until when it waits", |h| {
            let told = |(key, value): &(String, String)| {
                key.starts_with(&events)
                    && value.contains("name: single")
                    && value.contains("fence lease has ended, about 20")
            };
            h.all().iter().any(told)
        })
        .await;
    for name in ["single", "unclaimed"] {
        assert!(history.of(&intent(name)).is_empty(), "{name}");
    }
    rig.delete(&Key::NodeFence("n1")).await;
    for name in ["single", "unclaimed"] {
        history
            .until("it is asked for", |h| !h.of(&intent(name)).is_empty())
            .await;
    }
}

#[tokio::test]
async fn a_pod_that_is_kept_says_so_once_and_what_it_says_helps() {
    let rig = rig("kept").await;
    let agent = rig.agent("n1", LONG).await;
    let _others = (rig.agent("n2", LONG).await, rig.agent("n3", LONG).await);
    for node in ["n1", "n2", "n3"] {
        rig.ready(node).await;
    }
    let session = agent.session;
    for word in ["keep", "stop"] {
        rig.bind(word, "n1", session, &policy(word)).await;
        rig.claimed(word, "n1", None).await;
    }
    let history = rig.history().await;
    agent.stop().await;
    let events = rig.keyspace.event_range("default").start;
    let told = |h: &rig::History, name: &str| {
        let about = |(key, value): &(String, String)| {
            key.starts_with(&events)
                && value.contains("reason: NodeLost")
                && value.contains(&format!("annotate pod {name} -n default"))
        };
        h.all().iter().filter(|e| about(e)).count()
    };
    history
        .until("both are told of", |h| {
            told(h, "keep") == 1 && told(h, "stop") == 1
        })
        .await;
    // Further passes, which release other pods, have nothing new to tell.
    for name in ["x", "y"] {
        rig.bind(name, "n1", session, "").await;
        history
            .until("it is asked for", |h| !h.of(&intent(name)).is_empty())
            .await;
    }
    assert_eq!((told(&history, "keep"), told(&history, "stop")), (1, 1));
    // As the events say.
    for word in ["keep", "stop"] {
        let key = Key::Desired(Pod::PLURAL, pod(word));
        let document = rig.get(&key).await.unwrap();
        let policy = |word: &str| format!("partition-policy: {word}");
        rig.put(&key, &document.replace(&policy(word), &policy("replace")))
            .await;
        history
            .until("it is asked for", |h| !h.of(&intent(word)).is_empty())
            .await;
    }
}

#[tokio::test]
async fn a_new_leader_takes_back_what_its_predecessor_left() {
    let rig = Rig::start("heir", |cache| {
        setpoint_failover::register(setpoint_node_lifecycle::register(cache))
    })
    .await;
    rig.controller("node-lifecycle", setpoint_node_lifecycle::run);
    let agent = rig.agent("n1", LONG).await;
    rig.ready("n1").await;
    rig.bind("there", "n1", agent.session, "").await;
    let text = |session| format!("node: n1\nsession: {session}\nreason: x\n");
    rig.put(&intent("there"), &text(agent.session)).await;
    rig.put(&intent("gone"), &text(agent.session)).await;
    rig.put(&intent("unreadable"), "node: [").await;
    let foreign = Key::Intent {
        verb: "release",
        pod: pod("gone"),
        by: "somebody-else",
    };
    rig.put(&foreign, &text(1)).await;
    let history = rig.history().await;
    rig.controller("failover", setpoint_failover::run);
    for name in ["there", "gone", "unreadable"] {
        history.until(name, |h| h.of(&intent(name)) == [None]).await;
    }
    assert!(rig.get(&foreign).await.is_some(), "only one's own");
}
