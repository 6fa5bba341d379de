//! Pods that end: they are replaced, and on the same node the next ones that end stay longer each time.

use std::time::Duration;

use setpoint_apis::apps::DaemonSet;
use setpoint_apis::core::{Namespace, Pod};
use setpoint_apis::records::{Binding, PodActual, PodStage};
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{Clock, View};
use setpoint_store::Txn;
use tokio::time::{Instant, sleep, timeout};

use super::super::fit::pinned_to;
use super::super::plan::Setback;
use super::{World, at, daemon_set, rolling};
use crate::led::Led;
use crate::pod::PodState;

#[test]
fn a_pod_that_has_ended_is_replaced_once_it_has_stopped_and_the_next_ones_wait_longer() {
    let surging = ("1", "0");
    for (state, strategy) in [
        (PodState::Failed, ("0", "1")),
        (PodState::Succeeded, ("0", "1")),
        (PodState::Failed, surging),
        (PodState::Succeeded, surging),
    ] {
        let mut s = daemon_set(1, "a");
        s.strategy = rolling(strategy.0, strategy.1);
        let mut w = World::new(s);
        w.run();
        let name = w.s.pods[0].facts.key.name.clone();
        w.s.pods[0].facts.state = state;
        w.s.pods[0].facts.ready_since = None;
        w.s.pods[0].facts.reported = true;
        let removed = format!(
            "delete pod {name} at {} on n1 (it has ended)\n",
            w.s.pods[0].facts.mod_revision
        );
        assert_eq!(w.plan().to_string(), removed, "{state:?} {strategy:?}");
        let setback = |delay: u64| Setback {
            generation: 1,
            at: at(1_000),
            delay: Duration::from_secs(delay),
        };
        w.s.setbacks.insert("n1".into(), setback(4));
        w.now = 1_001;
        // The status may be written in the meantime.
        let plan = w.plan();
        assert!(plan.delete.is_empty() && plan.create.is_empty(), "{plan}");
        assert_eq!(plan.look_again, Some(Duration::from_secs(3)));
        // Another generation is tried at once.
        w.s.generation = 2;
        assert_eq!(w.plan().delete.len(), 1);
        w.s.generation = 1;
        w.now = 1_004;
        let plan = w.plan();
        w.apply(&plan);
        assert_eq!(w.pods(), "");
        // With surge the next one need not wait until its node is empty.
        let created = usize::from(strategy == surging);
        assert_eq!(w.plan().create.len(), created, "{state:?} {strategy:?}");
        w.stops();
        assert_eq!(w.plan().create.len(), 1);
    }
}

/// A DaemonSet under its controller, over a store in memory. Two nodes; what runs there is played here.
struct Field {
    led: Led,
}

impl Field {
    async fn start(strategy: &str) -> Self {
        let led = Led::start().await;
        let home = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n";
        led.put_desired::<Namespace>(&ObjectKey::cluster("default"), home)
            .await;
        let field = Self { led };
        for node in ["n1", "n2"] {
            let status = "{capacity: {cpu: 8}, allocatable: {cpu: 8}}\n";
            let alive = "{hostname: h, pid: 1, instance: i, since: 2026-01-01T00:00:00Z, leaseTtlSeconds: 6}\n";
            field
                .write(&[
                    (Key::NodeStatus(node), Some(status.to_owned())),
                    (Key::NodeAlive(node), Some(alive.to_owned())),
                ])
                .await;
        }
        let clock = Clock::starting_at(at(1_000_000));
        let leader = field.led.leader.clone();
        tokio::spawn(crate::run(leader, clock, Recorder::discarding(), 1));
        field.apply(strategy, 10).await;
        field
    }

    async fn apply(&self, strategy: &str, history: u32) {
        let text = format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: ds}}\nspec: {{revisionHistoryLimit: {history}, \
             selector: {{matchLabels: {{app: ds}}}}, updateStrategy: {strategy}, template: {{metadata: {{labels: \
             {{app: ds}}}}, spec: {{containers: [{{name: c, image: host}}]}}}}}}\n"
        );
        let key = ObjectKey::namespaced("default", "ds");
        self.led.put_desired::<DaemonSet>(&key, &text).await;
        self.until(|view| {
            let version = view.desired::<DaemonSet>().get(&key)?.version;
            let status = &view.actual::<DaemonSet>().get(&key)?.value;
            (status.observed_generation == Some(version)).then_some(())
        })
        .await;
    }

    /// Writes keys, or deletes them; the cache has them then.
    async fn write(&self, keys: &[(Key<'_>, Option<String>)]) {
        let keyspace = self.led.leader.keyspace();
        let txn = keys.iter().fold(Txn::new(), |txn, (key, value)| {
            let key = keyspace.build(key);
            match value {
                Some(value) => txn.put(key, value.clone()),
                None => txn.delete(key),
            }
        });
        let revision = self.led.store.txn(txn).await.unwrap().revision;
        self.led.leader.cache().wait_for(revision).await;
    }

    async fn until<T>(&self, look: impl Fn(&View<'_>) -> Option<T>) -> T {
        let cache = self.led.leader.cache();
        let mut changes = cache.subscribe(|_| true);
        let found = timeout(Duration::from_secs(10_000), async {
            loop {
                changes.next().await;
                if let Some(found) = look(&cache.view()) {
                    return found;
                }
            }
        });
        found.await.expect("it comes to pass")
    }

    /// The pod of a node ends as soon as it is there. How many seconds it is wanted after that; it has stopped then.
    async fn ends(&self, node: &str, stage: PodStage) -> u64 {
        let here = |view: &View<'_>| {
            let mut pods = view.desired::<Pod>().iter();
            let (key, pod) = pods.find(|(_, p)| pinned_to(&p.value.spec) == Some(node))?;
            Some((key.clone(), pod.uid(), pod.mod_revision))
        };
        let (pod, uid, revision) = self.until(here).await;
        let binding = Binding {
            node: node.into(),
            session: 1,
            placement: 1,
            pod_revision: revision,
            ..Binding::default()
        };
        let actual = PodActual {
            placement: 1,
            uid,
            stage,
            ..PodActual::default()
        };
        let begin = Instant::now();
        let (bound, report) = (Key::Binding(pod.clone()), Key::NodePod(node, pod.clone()));
        self.write(&[
            (bound.clone(), Some(document::encode(&binding))),
            (report.clone(), Some(document::encode(&actual))),
        ])
        .await;
        self.until(|view| (!view.desired::<Pod>().contains(&pod)).then_some(()))
            .await;
        let stayed = begin.elapsed();
        self.write(&[(bound, None), (report, None)]).await;
        // Passes and writes take a few milliseconds.
        (stayed + Duration::from_millis(500)).as_secs()
    }
}

#[tokio::test(start_paused = true)]
async fn pods_that_end_again_on_a_node_stay_twice_as_long_each_time_up_to_a_quarter_of_an_hour() {
    for strategy in ["{}", "{rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}"] {
        let field = Field::start(strategy).await;
        let mut stages = [PodStage::Failed, PodStage::Succeeded].into_iter().cycle();
        let mut stays = async |node: &str| field.ends(node, stages.next().unwrap()).await;
        for seconds in [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            assert_eq!(stays("n1").await, seconds, "{strategy}");
        }
        assert_eq!(stays("n2").await, 0, "of the other node nothing is known");
        assert_eq!(stays("n1").await, 900);
        // It is over, and not yet forgotten.
        sleep(Duration::from_secs(1_700)).await;
        assert_eq!((stays("n1").await, stays("n1").await), (0, 900));
        sleep(Duration::from_secs(1_900)).await;
        assert_eq!((stays("n1").await, stays("n1").await), (0, 1));
        assert_eq!(stays("n1").await, 2);
        // Another generation begins anew.
        field.apply(strategy, 5).await;
        assert_eq!((stays("n1").await, stays("n1").await), (0, 1));
    }
}
