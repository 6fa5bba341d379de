//! Pods that must never run twice, on versions of etcd that cannot be relied on for that. The pod layer pretends, and the
//! store is the model, on virtual time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use setpoint_agent::hollow::{HollowPods, HollowRunner, Latencies};
use setpoint_agent::node::config::AgentConfig;
use setpoint_agent::node::{self, Disk, HollowDisk, Machine, Surroundings};
use setpoint_agent::workload::PodRunner;
use setpoint_apis::records::{PodActual, PodStage, WorkHeader};
use setpoint_apis::{Key, Keyspace, ObjectKey, Timestamp, document};
use setpoint_runtime::Clock;
use setpoint_store::model::ModelStore;
use setpoint_store::{
    KeyValue, LeaseId, Page, RangeRequest, Revision, ServerStatus, SharedStore, Store, StoreError,
    Txn, TxnResult, WatchBatch, WatchRequest,
};
use tokio_util::sync::CancellationToken;

const NODE: &str = "n1";
/// Of virtual time; nothing waits for it to pass unless it fails.
const LIMIT: Duration = Duration::from_secs(120);
const GOOD: &str = "3.6.16";
const HOLES: &str = "3.4.23";

/// The model, as members of these versions.
struct Members {
    model: ModelStore,
    versions: Mutex<Vec<&'static str>>,
}

impl Store for Members {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        self.model.get(key)
    }
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.model.range(request)
    }
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        self.model.txn(txn)
    }
    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>> {
        self.model.watch(request)
    }
    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        self.model.lease_grant(ttl)
    }
    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        self.model.lease_renew(lease)
    }
    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.model.lease_revoke(lease)
    }
    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        self.model.status()
    }
    fn versions(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let versions: Vec<_> = self
            .versions
            .lock()
            .iter()
            .map(|v| (*v).to_owned())
            .collect();
        Box::pin(std::future::ready(Ok(versions)))
    }
}

struct World {
    keyspace: Keyspace,
    store: Arc<Members>,
    agent: tokio::task::JoinHandle<()>,
    shutdown: CancellationToken,
}

impl World {
    fn on(versions: &[&'static str], allow_known_holes: bool) -> Self {
        let keyspace = Keyspace::default();
        let store = Arc::new(Members {
            model: ModelStore::default(),
            versions: Mutex::new(versions.to_vec()),
        });
        let clock = Clock::starting_at(Timestamp::from_unix_seconds(1_893_456_000));
        let config = AgentConfig {
            allow_known_holes,
            ..AgentConfig::new(NODE, "hollow")
        };
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
                let (pods, latencies) = (HollowPods::new(()), Latencies::default());
                let runner = HollowRunner::new(pods, context.reports, clock, latencies, address, 7);
                Ok(Arc::new(runner) as Arc<dyn PodRunner>)
            },
            shutdown.clone(),
        );
        Self {
            keyspace,
            store,
            agent: tokio::spawn(async move { run.await.expect("the agent runs") }),
            shutdown,
        }
    }

    async fn give(&self, name: &str, annotations: &str) {
        let header = WorkHeader {
            placement: Some(1),
            uid: format!("uid-of-{name}"),
            source_revision: 1,
        };
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec:\n  containers: [{{name: c, \
             image: i}}]\n"
        );
        let key = self
            .keyspace
            .build(&Key::WorkPod(NODE, ObjectKey::namespaced("default", name)));
        let text = document::encode_work(&header, &pod);
        let txn = Txn::new().put(key, text);
        assert!(self.store.txn(txn).await.unwrap().succeeded);
    }

    async fn give_single(&self, name: &str) {
        self.give(name, "setpoint.dev/partition-policy: stop").await;
    }

    async fn record(&self, name: &str) -> Option<PodActual> {
        let key = self
            .keyspace
            .build(&Key::NodePod(NODE, ObjectKey::namespaced("default", name)));
        let kv = self.store.get(&key).await.unwrap().0?;
        Some(document::decode_value(&kv.value).unwrap())
    }

    async fn until_it_runs(&self, name: &str) {
        self.until(&format!("{name} runs"), async || {
            let record = self.record(name).await;
            record.is_some_and(|actual| actual.stage == PodStage::Running)
        })
        .await;
    }

    /// What events say why etcd is not trusted.
    async fn told(&self) -> Vec<String> {
        let all = self.keyspace.all();
        let request = RangeRequest {
            start: all.start,
            end: all.end,
            ..RangeRequest::default()
        };
        let page = self.store.range(request).await.unwrap();
        let texts = page.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.value));
        texts
            .filter(|text| text.contains("EtcdNotTrusted"))
            .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// Waits until something holds of the state, looking whenever that changes.
    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let all = self.keyspace.all();
        let request = WatchRequest {
            start: all.start,
            end: all.end,
            from: None,
        };
        let mut changes = self.store.watch(request).await.unwrap();
        let waiting = async {
            while !holds().await {
                changes.next().await.unwrap().unwrap();
            }
        };
        tokio::time::timeout(LIMIT, waiting)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.agent.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_pod_waits_with_a_reason_until_every_member_of_etcd_is_without_known_holes() {
    let world = World::on(&[GOOD, HOLES], false);
    world.give_single("single").await;
    world.give("plain", "").await;
    world.until_it_runs("plain").await;
    world
        .until("it is told", async || !world.told().await.is_empty())
        .await;
    let told = world.told().await.concat();
    for part in [
        "name: single",
        "etcd 3.4.23 has known holes",
        "a member that is no longer leader renews leases",
        "update etcd to the newest patch of 3.5, 3.6",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Virtual time: many questions later it is still not claimed, and not told again and again.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.record("single").await, None);
    assert_eq!(world.told().await.len(), 1);

    *world.store.versions.lock() = vec![GOOD, GOOD];
    world.until_it_runs("single").await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_etcd_that_is_exchanged_for_one_with_holes_gets_no_more_stop_pods() {
    let world = World::on(&[GOOD], false);
    world.give_single("before").await;
    world.until_it_runs("before").await;
    *world.store.versions.lock() = vec![HOLES];
    // The last answer counts for a while.
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.give_single("after").await;
    world
        .until("both are told", async || world.told().await.len() == 2)
        .await;
    assert_eq!(world.record("after").await, None);
    let runs = world.record("before").await.expect("it goes on");
    assert_eq!(runs.stage, PodStage::Running);
    let told = world.told().await.concat();
    assert!(told.contains("it goes on running"), "{told}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn known_holes_can_be_allowed() {
    let world = World::on(&[HOLES], true);
    world.give_single("single").await;
    world.until_it_runs("single").await;
    assert_eq!(world.told().await, Vec::<String>::new());
    world.end().await;
}
