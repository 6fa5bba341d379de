//! The example does what it says, against a real etcd: decisions by value, then the binary, twice, one of them killed.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use custom_controller::{OwnPod, Plan, Website, WebsiteSpec, WebsiteStatus, decide};
use futures::StreamExt;
use setpoint_apis::core::Pod;
use setpoint_apis::{Key, KeyRange, Keyspace, Kind, ObjectKey, ObjectMeta, document};
use setpoint_runtime::Stored;
use setpoint_store::testing::TestEtcd;
use setpoint_store::{RangeRequest, Revision, SharedStore, Txn, WatchRequest};

/// Far longer than anything here takes: only a hang runs into it.
const LIMIT: Duration = Duration::from_secs(60);

fn site(replicas: u32) -> Website {
    Website {
        metadata: ObjectMeta {
            name: "docs".into(),
            namespace: "default".into(),
            ..ObjectMeta::default()
        },
        spec: WebsiteSpec {
            replicas,
            command: vec!["sleep".into(), "1000".into()],
        },
        ..Website::default()
    }
}

fn own(name: &str, owner: &str, ready: bool) -> OwnPod {
    OwnPod {
        key: ObjectKey::namespaced("default", name),
        owner: owner.into(),
        ready,
    }
}

#[test]
fn a_decision_creates_what_is_missing_and_deletes_what_is_too_much() {
    let stored = Stored {
        value: site(2),
        create_revision: 5,
        mod_revision: 5,
        version: 1,
    };
    let uid = stored.uid();
    let pods = [
        own("docs-0", &uid, true),
        own("docs-2", &uid, true),
        own("docs-1", "of a former website", true),
    ];
    let plan = decide(Some(&stored), &pods);
    assert_eq!(plan.create, []);
    assert_eq!(
        plan.delete.iter().map(|k| &*k.name).collect::<Vec<_>>(),
        ["docs-2", "docs-1"]
    );
    assert_eq!(
        plan.status,
        Some(WebsiteStatus {
            replicas: 1,
            ready: 1
        })
    );

    let plan = decide(Some(&stored), &pods[..1]);
    assert_eq!(plan.create.len(), 1);
    let pod: Pod = document::decode(document::encode(&plan.create[0]).as_bytes()).unwrap();
    assert_eq!(
        (
            pod.metadata.name.as_str(),
            pod.metadata.controller().unwrap().uid.as_str()
        ),
        ("docs-1", uid.as_str())
    );

    let done = [own("docs-0", &uid, true), own("docs-1", &uid, false)];
    let plan = decide(Some(&stored), &done);
    assert_eq!(
        plan,
        Plan {
            status: Some(WebsiteStatus {
                replicas: 2,
                ready: 1
            }),
            ..Plan::default()
        }
    );
    assert_eq!(decide(None, &done).delete.len(), 2);
}

/// A running controller; killed when dropped.
struct Replica(Child);

impl Replica {
    fn start(endpoint: &str, prefix: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_custom-controller"))
            .env("SETPOINT_ENDPOINTS", endpoint)
            .env("SETPOINT_PREFIX", prefix)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // SIGKILL: nothing is handed over. It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Cluster {
    store: SharedStore,
    keyspace: Keyspace,
}

impl Cluster {
    async fn put(&self, replicas: u32) {
        self.put_text(&document::encode(&site(replicas))).await;
    }

    async fn put_text(&self, text: &str) {
        let key = self.keyspace.build(&Key::Desired(
            Website::PLURAL,
            ObjectKey::namespaced("default", "docs"),
        ));
        self.store
            .txn(Txn::new().put(key, text.to_owned()))
            .await
            .unwrap();
    }

    async fn values(&self, range: KeyRange) -> (Vec<String>, Revision) {
        let request = RangeRequest {
            start: range.start,
            end: range.end,
            ..RangeRequest::default()
        };
        let page = self.store.range(request).await.unwrap();
        (
            page.kvs
                .iter()
                .map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
                .collect(),
            page.revision,
        )
    }

    /// Waits until the documents of a range fit.
    async fn until(&self, what: &str, range: KeyRange, fits: impl Fn(&[String]) -> bool) {
        let (mut values, revision) = self.values(range.clone()).await;
        let request = WatchRequest {
            start: range.start.clone(),
            end: range.end.clone(),
            from: Some(Revision(revision.0 + 1)),
        };
        let mut changes = self.store.watch(request).await.unwrap();
        let waited = tokio::time::timeout(LIMIT, async {
            while !fits(&values) {
                changes.next().await.unwrap().unwrap();
                values = self.values(range.clone()).await.0;
            }
        });
        assert!(waited.await.is_ok(), "waited in vain until {what}");
    }

    async fn until_pods(&self, count: usize) {
        let range = self.keyspace.desired_range(Pod::PLURAL, Some("default"));
        self.until(&format!("there are {count} pods"), range, |pods| {
            pods.len() == count
        })
        .await;
    }

    async fn until_status(&self, status: &str) {
        let range = self.keyspace.actual_range(Website::PLURAL, None);
        self.until(&format!("the status is {status:?}"), range, |found| {
            found == [status]
        })
        .await;
    }
}

#[tokio::test]
async fn websites_have_their_pods_whichever_replica_leads() {
    let etcd = TestEtcd::shared().await;
    let prefix = etcd.prefix("websites");
    let cluster = Cluster {
        store: etcd.store().await,
        keyspace: Keyspace::new(&prefix).unwrap(),
    };
    let first = Replica::start(&etcd.endpoint(), &prefix);
    cluster.put(3).await;
    cluster.until_pods(3).await;
    cluster.until_status("replicas: 3\nready: 0\n").await;

    let _second = Replica::start(&etcd.endpoint(), &prefix);
    drop(first);
    cluster.put(5).await;
    cluster.until_pods(5).await;
    cluster.until_status("replicas: 5\nready: 0\n").await;

    // What cannot be read is frozen; a repair is acted on.
    cluster.put_text("spec: [").await;
    let key = cluster.keyspace.build(&Key::Desired(
        Pod::PLURAL,
        ObjectKey::namespaced("default", "docs-4"),
    ));
    cluster.store.txn(Txn::new().delete(key)).await.unwrap();
    cluster.put(2).await;
    cluster.until_pods(2).await;
    cluster.until_status("replicas: 2\nready: 0\n").await;

    let site = cluster.keyspace.build(&Key::Desired(
        Website::PLURAL,
        ObjectKey::namespaced("default", "docs"),
    ));
    cluster.store.txn(Txn::new().delete(site)).await.unwrap();
    cluster.until_pods(0).await;
    cluster
        .until(
            "the status is gone",
            cluster.keyspace.actual_range(Website::PLURAL, None),
            |s| s.is_empty(),
        )
        .await;
}
