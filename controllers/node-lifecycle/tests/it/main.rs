//! node-lifecycle against a real etcd and real leases.

mod mute;
mod rig;

use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::core::Node;
use setpoint_apis::records::{NodeHealth, NodeState};
use setpoint_apis::timeline::{self, Timeline};
use setpoint_apis::{Key, Kind};
use setpoint_runtime::Clock;
use setpoint_store::testing::dump;

use mute::Mute;
use rig::{Rig, cluster_key};

/// For those who are to lose it: as long as leases usually are, so that no agent that is only held up does.
const SHORT: Duration = Duration::from_secs(6);
/// For those who are not meant to lose it.
const LONG: Duration = Duration::from_secs(30);

async fn rig(name: &str) -> Rig {
    let rig = Rig::start(name, setpoint_node_lifecycle::register).await;
    rig.controller("node-lifecycle", setpoint_node_lifecycle::run);
    rig
}

impl Rig {
    async fn until_state(&self, node: &str, state: NodeState) -> NodeHealth {
        self.until(&format!("{node} is {state:?}"), |view| {
            let health = view.health().get(&cluster_key(node))?;
            (health.value.state == state).then(|| health.value.clone())
        })
        .await
    }
}

fn desired(node: &str) -> Key<'_> {
    Key::Desired(Node::PLURAL, cluster_key(node))
}

#[tokio::test]
async fn nodes_register_are_lost_when_their_lease_expires_and_come_back() {
    let rig = rig("life").await;
    let _others = (rig.agent("n2", LONG).await, rig.agent("n3", LONG).await);
    let agent = rig.agent("n1", SHORT).await;
    let health = rig.until_state("n1", NodeState::Ready).await;
    assert_eq!(health.session, agent.session);
    assert_eq!(
        rig.get(&desired("n1")).await.unwrap(),
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n"
    );

    agent.kill();
    let lost = rig.until_state("n1", NodeState::Unreachable).await;
    assert_eq!(
        (lost.session, lost.message.as_str()),
        (health.session, "its lease expired")
    );

    let back = rig.agent("n1", LONG).await;
    let health = rig.until_state("n1", NodeState::Ready).await;
    assert_eq!(health.session, back.session);
    assert!(health.taints.is_empty());
}

#[tokio::test]
async fn the_loss_of_most_nodes_suspends_them_from_the_first_on() {
    let rig = rig("brake").await;
    let history = rig.history().await;
    let _n3 = rig.agent("n3", LONG).await;
    let n1 = rig.agent("n1", SHORT).await;
    // Out of step with the first: etcd expires them far apart.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let n2 = rig.agent("n2", SHORT).await;
    for node in ["n1", "n2", "n3"] {
        rig.until_state(node, NodeState::Ready).await;
    }
    n1.kill();
    n2.kill();
    for node in ["n1", "n2"] {
        let health = rig.until_state(node, NodeState::Suspended).await;
        assert_eq!(health.message, "2 of 3 nodes are silent: nothing is moved");
    }
    for node in ["n1", "n2"] {
        history
            .until("the suspension is in the history", |h| {
                h.of(&Key::Health(node)).len() == 2
            })
            .await;
        let states: Vec<_> = history
            .of(&Key::Health(node))
            .into_iter()
            .flatten()
            .collect();
        assert!(
            states.iter().all(|h| !h.contains("Unreachable")),
            "{states:?}"
        );
    }
    // One comes back: the other is not given up at once.
    let _back = rig.agent("n1", LONG).await;
    rig.until_state("n1", NodeState::Ready).await;
    assert_eq!(
        rig.cache
            .view()
            .health()
            .get(&cluster_key("n2"))
            .unwrap()
            .value
            .state,
        NodeState::Suspended
    );
}

#[tokio::test]
async fn while_nobody_says_who_is_late_nobody_is_given_up_but_not_for_good() {
    let mut rig = Rig::start("mute", setpoint_node_lifecycle::register).await;
    rig.store = Arc::new(Mute(rig.store.clone()));
    rig.controller("node-lifecycle", setpoint_node_lifecycle::run);
    let n1 = rig.agent("n1", LONG).await;
    let _others = (rig.agent("n2", LONG).await, rig.agent("n3", LONG).await);
    for node in ["n1", "n2", "n3"] {
        rig.until_state(node, NodeState::Ready).await;
    }
    let begun = tokio::time::Instant::now();
    n1.stop().await;
    // Two of three could be silent.
    let lost = rig.until_state("n1", NodeState::Unreachable).await;
    assert_eq!(lost.message, "its lease expired");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(5), "given up after {took:?}");
}

#[tokio::test]
async fn a_deleted_node_is_drained_of_records_when_its_session_is_over() {
    let rig = rig("deleted").await;
    let _other = rig.agent("n2", LONG).await;
    let agent = rig.agent("n1", LONG).await;
    rig.until_state("n1", NodeState::Ready).await;
    rig.put(&Key::NodeStatus("n1"), "capacity: {}\nallocatable: {}\n")
        .await;
    let binding = format!(
        "node: n1\nsession: {}\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n",
        agent.session
    );
    let pod = setpoint_apis::ObjectKey::namespaced("default", "a");
    rig.put(&Key::Binding(pod.clone()), &binding).await;
    rig.delete(&desired("n1")).await;
    rig.until_state("n1", NodeState::Removed).await;

    agent.stop().await;
    let lost = rig.until_state("n1", NodeState::Unreachable).await;
    assert_eq!(lost.message, "its lease expired, and it has been deleted");
    assert!(
        rig.get(&Key::NodeStatus("n1")).await.is_some(),
        "its pods are not released yet"
    );

    // As if it had been silent for long: its agent is not waited for any more.
    let long_ago = "state: Unreachable\nsession: 1\nagentSince: 2026-01-01T00:00:00Z\nsince: 2026-01-01T00:00:00Z\n";
    rig.put(&Key::Health("n1"), long_ago).await;
    rig.delete(&Key::Binding(pod)).await;
    rig.until("n1 is forgotten", |view| {
        (!view.health().contains(&cluster_key("n1"))).then_some(())
    })
    .await;
    assert_eq!(rig.get(&Key::NodeStatus("n1")).await, None);
    assert_eq!(rig.get(&desired("n1")).await, None);
}

#[tokio::test]
async fn a_restarted_agent_of_a_deleted_node_registers_it_anew() {
    let rig = rig("anew").await;
    let _other = rig.agent("n2", LONG).await;
    let agent = rig.agent("n1", LONG).await;
    rig.until_state("n1", NodeState::Ready).await;
    rig.delete(&desired("n1")).await;
    rig.until_state("n1", NodeState::Removed).await;
    agent.stop().await;
    let again = rig.agent("n1", LONG).await;
    rig.until("n1 is registered again", |view| {
        let health = view.health().get(&cluster_key("n1"))?;
        (health.value.session == again.session
            && view.desired::<Node>().contains(&cluster_key("n1")))
        .then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_somebody_broke_is_repaired_and_disturbs_nothing() {
    let rig = rig("broken").await;
    let _agents = (rig.agent("n1", LONG).await, rig.agent("n2", LONG).await);
    rig.until_state("n1", NodeState::Ready).await;
    rig.until_state("n2", NodeState::Ready).await;
    rig.put(&Key::Health("n1"), "state: [").await;
    rig.put(&desired("n2"), ": no yaml {{{").await;
    rig.until("the health record is readable again", |view| {
        let entry = view.health().entry(&cluster_key("n1"))?;
        entry.valid()?;
        let odd = view.desired::<Node>().entry(&cluster_key("n2"))?;
        odd.invalid()?;
        Some(())
    })
    .await;
    assert_eq!(
        rig.cache
            .view()
            .health()
            .get(&cluster_key("n2"))
            .unwrap()
            .value
            .state,
        NodeState::Ready
    );
}

/// Longer than the record of times waits before it notes the last change.
const QUIET: Duration = Duration::from_secs(4);

/// Waits until an event of this reason is written, a moment after it was recorded, and then until nothing changes for a while.
async fn until_quiet(rig: &Rig, reason: &str) {
    let prefix = format!("{}/", rig.keyspace.as_str());
    let begun = tokio::time::Instant::now();
    let (mut before, mut since) = (Vec::new(), begun);
    while since.elapsed() < QUIET {
        assert!(begun.elapsed() < LONG * 2, "it never becomes quiet");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = dump(&*rig.store, &prefix).await;
        let told = now.iter().any(|(_, value)| value.contains(reason));
        if now != before || !told {
            (before, since) = (now, tokio::time::Instant::now());
        }
    }
}

#[tokio::test]
async fn a_quiet_cluster_writes_nothing_and_a_new_leader_neither() {
    let rig = Rig::start("quiet", setpoint_node_lifecycle::register).await;
    let first = rig.controller("node-lifecycle", setpoint_node_lifecycle::run);
    let _agents = (rig.agent("n1", LONG).await, rig.agent("n2", LONG).await);
    let gone = rig.agent("n3", LONG).await;
    for node in ["n1", "n2", "n3"] {
        rig.until_state(node, NodeState::Ready).await;
    }
    gone.stop().await;
    rig.until_state("n3", NodeState::Unreachable).await;
    until_quiet(&rig, "NodeNotReady").await;

    let history = rig.history().await;
    first.cancel();
    rig.controller("node-lifecycle", setpoint_node_lifecycle::run);
    let election = rig.keyspace.build(&Key::Leader("node-lifecycle", None));
    history
        .until("the second leads", |h| {
            h.keys().iter().filter(|k| **k == election).count() == 2
        })
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let election_record = rig
        .keyspace
        .build(&Key::Actual("leaders", cluster_key("node-lifecycle")));
    let written: Vec<_> = history
        .keys()
        .into_iter()
        .filter(|k| *k != election && *k != election_record)
        .collect();
    assert_eq!(written, Vec::<String>::new());
}

#[tokio::test]
async fn documents_that_others_write_are_noted_in_the_record_of_times_and_only_they() {
    let rig = rig("clock").await;
    let _agent = rig.agent("n1", LONG).await;
    rig.until_state("n1", NodeState::Ready).await;
    let begin = Clock::system().now().whole_seconds();
    let put = rig
        .put(
            &desired("n2"),
            "apiVersion: v1\nkind: Node\nmetadata: {name: n2}\n",
        )
        .await;
    let clock = rig.keyspace.build(&Key::Meta(timeline::KEY));
    let mut record = None;
    let deadline = tokio::time::Instant::now() + LONG;
    while record.is_none() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (kv, _) = rig.store.get(&clock).await.unwrap();
        record = kv.filter(|kv| kv.mod_revision > put.0);
    }
    let record = record.expect("the record is written");
    let noted = Timeline::parse(&record.value, record.mod_revision);
    let estimate = noted.curve().at(put.0).unwrap();
    assert!(
        (begin..=Clock::system().now()).contains(&estimate.time),
        "{estimate:?} of {record:?}"
    );

    // Neither its own write nor those of anything but documents lead to another one.
    for i in 0..5 {
        rig.put(&Key::NodeStatus("n1"), &format!("usage: {{cpu: '{i}'}}\n"))
            .await;
    }
    tokio::time::sleep(QUIET).await;
    let (kv, _) = rig.store.get(&clock).await.unwrap();
    assert_eq!(kv.map(|kv| kv.mod_revision), Some(record.mod_revision));
}
