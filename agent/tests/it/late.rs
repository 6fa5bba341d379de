//! Writes of an agent that reach the store late: after their outcome was unknown, after their session was over. The pod
//! layer pretends, and the store is the model, on virtual time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use setpoint_agent::hollow::{HollowPods, HollowRunner, Latencies, Observer};
use setpoint_agent::node::config::AgentConfig;
use setpoint_agent::node::{self, Disk, HollowDisk, Machine, Surroundings};
use setpoint_agent::workload::PodRunner;
use setpoint_apis::records::{PodActual, PodStage, WorkHeader};
use setpoint_apis::{Key, Keyspace, ObjectKey, Timestamp, document};
use setpoint_runtime::Clock;
use setpoint_store::model::ModelStore;
use setpoint_store::{
    KeyValue, LeaseId, Page, RangeRequest, Revision, ServerStatus, SharedStore, Store, StoreError,
    Txn, TxnOp, TxnResult, WatchBatch, WatchRequest,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const NODE: &str = "n1";
/// Of virtual time; nothing waits for it to pass unless it fails.
const LIMIT: Duration = Duration::from_secs(60);

/// Holds back the first transaction that reports a pod at a stage, until the test says what becomes of it.
struct Slow {
    inner: ModelStore,
    stage: PodStage,
    held: Mutex<Option<Txn>>,
    /// One was held back.
    holds: Notify,
    /// Its sender is told that the outcome is unknown.
    give_up: Notify,
    /// It arrives now, and is answered.
    arrive: Notify,
}

impl Slow {
    fn reports(&self, ops: &[TxnOp]) -> bool {
        ops.iter().any(|op| match op {
            TxnOp::Put(put) => {
                document::decode_value::<PodActual>(&put.value).is_ok_and(|actual| {
                    put.key.ends_with("/pods/default/a") && actual.stage == self.stage
                })
            }
            TxnOp::Txn(txn) => self.reports(&txn.then),
            _ => false,
        })
    }
}

impl Store for Slow {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        self.inner.get(key)
    }
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.inner.range(request)
    }
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        let mut held = self.held.lock();
        if held.is_some() || !self.reports(&txn.then) {
            return self.inner.txn(txn);
        }
        *held = Some(txn.clone());
        self.holds.notify_one();
        Box::pin(async move {
            tokio::select! {
                () = self.arrive.notified() => self.inner.txn(txn).await,
                () = self.give_up.notified() => Err(StoreError::Unknown {
                    context: "a test".into(),
                    message: "held back".into(),
                }),
            }
        })
    }
    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>> {
        self.inner.watch(request)
    }
    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        self.inner.lease_grant(ttl)
    }
    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        self.inner.lease_renew(lease)
    }
    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.lease_revoke(lease)
    }
    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        self.inner.status()
    }
}

/// Notes at which revision a pod starts.
struct Starts {
    store: ModelStore,
    at: Arc<Mutex<Vec<i64>>>,
}

impl Observer for Starts {
    fn started(&self, _pod: &ObjectKey) {
        self.at
            .lock()
            .push(self.store.with(|model| model.revision()));
    }

    fn ended(&self, _pod: &ObjectKey) {}
}

/// An agent of which one report of a pod is held back.
struct World {
    keyspace: Keyspace,
    store: Arc<Slow>,
    starts: Arc<Mutex<Vec<i64>>>,
    agent: tokio::task::JoinHandle<()>,
    shutdown: CancellationToken,
}

impl World {
    /// Returns when the pod has been given to the agent, and its first report at this stage is held back. The first
    /// report of all is the claim.
    async fn holding_back(stage: PodStage) -> Self {
        let keyspace = Keyspace::default();
        let store = Arc::new(Slow {
            inner: ModelStore::default(),
            stage,
            held: Mutex::default(),
            holds: Notify::new(),
            give_up: Notify::new(),
            arrive: Notify::new(),
        });
        let starts = Arc::<Mutex<Vec<i64>>>::default();
        let pods = HollowPods::new(Starts {
            store: store.inner.clone(),
            at: Arc::clone(&starts),
        });
        let clock = Clock::starting_at(Timestamp::from_unix_seconds(1_893_456_000));
        let config = AgentConfig::new(NODE, "hollow");
        let surroundings = Surroundings {
            machine: Machine::hollow(NODE),
            disk: Disk::hollow("disk-of-n1", HollowDisk::default()),
            clock: clock.clone(),
        };
        let shutdown = CancellationToken::new();
        let run = node::run(
            config,
            surroundings,
            Arc::clone(&store) as SharedStore,
            keyspace.clone(),
            None,
            move |config: &AgentConfig, context: node::RunnerContext| {
                let address = config.address.to_string();
                let latencies = Latencies::default();
                let runner = HollowRunner::new(pods, context.reports, clock, latencies, address, 7);
                Ok(Arc::new(runner) as Arc<dyn PodRunner>)
            },
            shutdown.clone(),
        );
        let agent = tokio::spawn(async move { run.await.expect("the agent runs") });
        let world = Self {
            keyspace,
            store,
            starts,
            agent,
            shutdown,
        };
        world.give(1, "i").await;
        tokio::time::timeout(LIMIT, world.store.holds.notified())
            .await
            .expect("the pod is reported");
        world
    }

    fn work_key(&self) -> String {
        self.keyspace.build(&Key::WorkPod(NODE, pod()))
    }

    fn alive_key(&self) -> String {
        self.keyspace.build(&Key::NodeAlive(NODE))
    }

    async fn write(&self, txn: Txn) {
        assert!(self.store.inner.txn(txn).await.unwrap().succeeded);
    }

    async fn get(&self, key: &str) -> Option<KeyValue> {
        self.store.inner.get(key).await.unwrap().0
    }

    async fn give(&self, placement: u32, image: &str) {
        let header = WorkHeader {
            placement: Some(placement),
            uid: "u".into(),
            source_revision: 1,
        };
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers: [{{name: c, image: {image}}}]\n"
        );
        let text = document::encode_work(&header, &pod);
        self.write(Txn::new().put(self.work_key(), text)).await;
    }

    async fn record(&self) -> Option<(KeyValue, PodActual)> {
        let key = self.keyspace.build(&Key::NodePod(NODE, pod()));
        let kv = self.get(&key).await?;
        let actual = document::decode_value(&kv.value).unwrap();
        Some((kv, actual))
    }

    async fn until_it_runs(&self) {
        self.until("it is reported as running", async || {
            let record = self.record().await;
            record.is_some_and(|(_, actual)| actual.stage == PodStage::Running)
        })
        .await;
    }

    /// Waits until something holds of the state, looking whenever that changes.
    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let all = self.keyspace.all();
        let request = WatchRequest {
            start: all.start,
            end: all.end,
            from: None,
        };
        let mut changes = self.store.inner.watch(request).await.unwrap();
        let waiting = async {
            while !holds().await {
                changes.next().await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(LIMIT, waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// What was held back reaches the store after all.
    async fn let_it_arrive(&self) {
        let late = self.store.held.lock().clone().expect("it was held back");
        self.store.inner.txn(late).await.unwrap();
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.agent.await.unwrap();
    }
}

fn pod() -> ObjectKey {
    ObjectKey::namespaced("default", "a")
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_outcome_was_unknown_takes_no_effect_when_it_arrives_late() {
    let w = World::holding_back(PodStage::Running).await;
    let session = w.get(&w.alive_key()).await.unwrap().create_revision;
    w.store.give_up.notify_one();
    // It is reported again, withdrawn and forgotten.
    w.until_it_runs().await;
    w.write(Txn::new().delete(w.work_key())).await;
    w.until("its record is gone", async || w.record().await.is_none())
        .await;
    w.let_it_arrive().await;
    assert!(
        w.record().await.is_none(),
        "a late report brought back the record of a pod that is gone"
    );
    let alive = w.get(&w.alive_key()).await.unwrap();
    assert_eq!(alive.create_revision, session, "the session goes on");
    w.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_of_a_session_that_is_over_takes_no_effect() {
    let w = World::holding_back(PodStage::Running).await;
    let before = w.get(&w.alive_key()).await.unwrap();
    let (claim, _) = w.record().await.expect("the pod is claimed");
    // As if the lease had expired while nothing got through.
    w.store
        .inner
        .lease_revoke(before.lease.unwrap())
        .await
        .unwrap();
    w.until("a new session begins", async || {
        w.get(&w.alive_key()).await.is_some()
    })
    .await;
    w.let_it_arrive().await;
    assert_eq!(
        w.record().await.map(|(kv, _)| kv.mod_revision),
        Some(claim.mod_revision),
        "a report of the former session took effect"
    );
    w.store.give_up.notify_one();
    w.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_claim_is_refused_does_not_start_before_another_claim_stands() {
    let w = World::holding_back(PodStage::Starting).await;
    // The claim is for the work as it was.
    w.give(1, "another").await;
    w.store.arrive.notify_one();
    w.until_it_runs().await;
    let (record, _) = w.record().await.unwrap();
    let starts = w.starts.lock().clone();
    assert!(
        starts.iter().all(|at| *at >= record.create_revision),
        "started at {starts:?}, claimed at {}",
        record.create_revision
    );
    w.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_work_that_has_changed_is_refused() {
    let w = World::holding_back(PodStage::Starting).await;
    // As if the pod had been elsewhere in between.
    w.give(2, "i").await;
    w.store.arrive.notify_one();
    w.until("it is claimed", async || w.record().await.is_some())
        .await;
    let (_, claim) = w.record().await.unwrap();
    assert_eq!(claim.placement, 2, "the claim is of the former placement");
    w.end().await;
}
