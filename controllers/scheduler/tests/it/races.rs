//! Everything at once, and a check of every revision of the history: what must never be, never was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use setpoint_apis::records::{Binding, Intent, PodActual, WorkHeader};
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::{EventKind, Revision, Txn, WatchRequest};

use crate::rig::{Agent, LIMIT, Rig, pod, pod_key};

/// The state at one revision, as far as the protocols are about it.
#[derive(Default)]
struct State {
    bindings: BTreeMap<ObjectKey, Binding>,
    /// Claims: node and pod.
    claims: BTreeMap<(String, ObjectKey), PodActual>,
    work: BTreeMap<(String, ObjectKey), WorkHeader>,
}

impl State {
    /// What must hold at every revision.
    fn check(&self, revision: i64, pods: &BTreeSet<ObjectKey>) {
        for ((node, pod), work) in self.work.iter().filter(|((_, pod), _)| pods.contains(pod)) {
            let binding = self
                .bindings
                .get(pod)
                .unwrap_or_else(|| panic!("{revision}: work of {pod} without a binding"));
            assert_eq!(
                binding.node, *node,
                "{revision}: work of {pod} where it is not bound"
            );
            assert_eq!(
                Some(binding.placement),
                work.placement,
                "{revision}: work of {pod}"
            );
            assert!(
                binding.withdrawn.is_none(),
                "{revision}: work of {pod}, which is withdrawn"
            );
        }
        for ((node, pod), claim) in self
            .claims
            .iter()
            .filter(|((_, pod), _)| pods.contains(pod))
        {
            let binding = self
                .bindings
                .get(pod)
                .unwrap_or_else(|| panic!("{revision}: {pod} runs without a binding"));
            assert_eq!(
                binding.node, *node,
                "{revision}: {pod} runs where it is not bound"
            );
            assert_eq!(
                binding.placement, claim.placement,
                "{revision}: {pod} runs as another placement"
            );
        }
    }
}

/// Replays all that happened after `from` and checks every revision. Returns how many claims, withdrawals of claimed
/// pods, and releases there were.
async fn check_history(rig: &Rig, from: Revision) -> (usize, usize, usize) {
    let (_, until) = rig.store.get("/none").await.unwrap();
    let all = rig.keyspace.all();
    let request = WatchRequest {
        start: all.start,
        end: all.end,
        from: Some(Revision(from.0 + 1)),
    };
    let mut watch = rig.store.watch(request).await.unwrap();
    let (mut state, mut seen) = (State::default(), from);
    let (mut claims, mut withdrawals, mut releases) = (0, 0, 0);
    // The end is marked, so that the replay does not wait for something else to happen.
    rig.put(&Key::Meta("end"), "x").await;
    while seen < until {
        let batch = tokio::time::timeout(LIMIT, watch.next())
            .await
            .expect("the history")
            .unwrap()
            .unwrap();
        seen = batch.revision;
        let mut revisions = BTreeMap::<i64, Vec<_>>::new();
        for event in batch.events {
            revisions
                .entry(event.kv.mod_revision)
                .or_default()
                .push(event);
        }
        for (revision, events) in revisions {
            let mut touched = BTreeSet::new();
            for event in events {
                let put = event.kind == EventKind::Put;
                let value = &event.kv.value;
                match rig.keyspace.split(&event.kv.key) {
                    Ok(Key::Binding(pod)) => {
                        touched.insert(pod.clone());
                        if put {
                            let binding: Binding = document::decode_value(value).unwrap();
                            withdrawals += usize::from(binding.withdrawn.is_some());
                            state.bindings.insert(pod, binding);
                        } else {
                            state.bindings.remove(&pod);
                        }
                    }
                    Ok(Key::NodePod(node, pod)) => {
                        touched.insert(pod.clone());
                        let key = (node.to_owned(), pod);
                        if put {
                            claims += 1;
                            state
                                .claims
                                .insert(key, document::decode_value(value).unwrap());
                        } else {
                            state.claims.remove(&key);
                        }
                    }
                    Ok(Key::WorkPod(node, pod)) => {
                        touched.insert(pod.clone());
                        let key = (node.to_owned(), pod);
                        if put {
                            let (header, _) = document::split_work(value).unwrap();
                            state
                                .work
                                .insert(key, document::decode_value(header).unwrap());
                        } else {
                            state.work.remove(&key);
                        }
                    }
                    Ok(Key::Actual("pods", _)) if put => {
                        releases += usize::from(
                            String::from_utf8_lossy(value).contains("reason: Released"),
                        );
                    }
                    _ => {}
                }
            }
            state.check(revision, &touched);
        }
    }
    (claims, withdrawals, releases)
}

/// Loses a node and asks for the release of what is bound there, as failover does.
async fn lose(rig: &Rig, node: &str) {
    let alive = Key::NodeAlive(node);
    let Some(kv) = rig.get(&alive).await else {
        return;
    };
    let guard = setpoint_store::Compare::CreateRevision(rig.key(&alive), kv.create_revision);
    rig.store
        .txn(Txn::new().when(guard).delete(rig.key(&alive)))
        .await
        .unwrap();
    let bound: Vec<_> = {
        let view = rig.cache.view();
        let there = view.bindings().iter().filter(|(_, b)| b.value.node == node);
        there
            .map(|(pod, b)| (pod.name.to_string(), b.value.session))
            .collect()
    };
    for (pod, session) in bound {
        rig.ask(
            "release",
            &pod,
            &Intent {
                node: Some(node.into()),
                session: Some(session),
                reason: "lost".into(),
                ..Intent::default()
            },
        )
        .await;
    }
}

#[expect(
    clippy::print_stdout,
    reason = "a failing run names the seed that repeats it"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_races_a_pod_runs_only_where_it_is_bound_and_once() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(7);
    println!("SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let rig = Rig::start("races").await;
    let (_, from) = rig.store.get("/none").await.unwrap();
    let mut agents = Vec::new();
    for node in ["n1", "n2", "n3"] {
        agents.push(rig.node(node, 10).await.automatic());
    }
    let mut scheduler = Some(rig.scheduler());
    let names: Vec<_> = (0..40).map(|n| format!("p{n}")).collect();
    for round in 0..1_000 {
        let name = &names[rng.usize(..names.len())];
        match rng.u32(..100) {
            0..30 => {
                rig.apply(name, pod(name).replace("app: x", &format!("app: x{round}")))
                    .await;
            }
            30..40 => {
                rig.delete_pod(name).await;
            }
            40..48 => {
                rig.ask("evict", name, &Intent::default()).await;
            }
            48..50 => lose(&rig, ["n1", "n2", "n3"][rng.usize(..3)]).await,
            50..51 => {
                scheduler.take().unwrap().stop().await;
                scheduler = Some(rig.scheduler());
            }
            _ => tokio::time::sleep(Duration::from_millis(rng.u64(..10))).await,
        }
    }
    for name in &names {
        rig.delete_pod(name).await;
    }
    rig.until("nothing is left", |v| {
        let nodes = ["n1", "n2", "n3"];
        (v.bindings().is_empty() && nodes.iter().all(|n| v.pods_on(n).is_none())).then_some(())
    })
    .await;
    agents.iter().for_each(tokio::task::JoinHandle::abort);
    let (claims, withdrawals, releases) = check_history(&rig, from).await;
    assert!(
        claims > 20 && withdrawals > 3 && releases > 0,
        "{claims} {withdrawals} {releases}: too little happened"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_are_deleted_while_they_are_being_claimed_are_withdrawn_one_way_or_the_other() {
    let rig = Rig::start("claim-races").await;
    let (_, from) = rig.store.get("/none").await.unwrap();
    let agents: [Agent; 2] = [rig.node("n1", 50).await, rig.node("n2", 50).await];
    let agents = agents.map(Agent::automatic);
    let _s = rig.scheduler();
    let names: Vec<_> = (0..150).map(|n| format!("p{n}")).collect();
    for name in &names {
        rig.apply(name, pod(name)).await;
        rig.until_bound(name).await;
        // Its agent is claiming it now.
        rig.delete(&Key::Desired("pods", pod_key(name))).await;
    }
    rig.until("nothing is left", |v| {
        (v.bindings().is_empty() && v.pods_on("n1").is_none() && v.pods_on("n2").is_none())
            .then_some(())
    })
    .await;
    agents.iter().for_each(tokio::task::JoinHandle::abort);
    check_history(&rig, from).await;
}
