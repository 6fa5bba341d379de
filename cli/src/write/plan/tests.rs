//! Writing while others write: what comes between the reading and the transaction.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use parking_lot::Mutex;
use setpoint_apis::Keyspace;
use setpoint_apis::registry::Registry;
use setpoint_store::model::{Config, ModelStore};
use setpoint_store::{
    LeaseId, Page, RangeRequest, Revision, ServerStatus, SharedStore, Store, Txn, TxnResult,
    WatchBatch, WatchRequest,
};

use super::*;

type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A store in which somebody else writes just before the first transaction.
struct Meddled {
    store: SharedStore,
    before: Mutex<Option<Txn>>,
}

impl Store for Meddled {
    fn get(&self, key: &str) -> Answer<'_, (Option<KeyValue>, Revision)> {
        self.store.get(key)
    }

    fn range(&self, request: RangeRequest) -> Answer<'_, Page> {
        self.store.range(request)
    }

    fn txn(&self, txn: Txn) -> Answer<'_, TxnResult> {
        let before = self.before.lock().take();
        async move {
            if let Some(before) = before {
                self.store.txn(before).await?;
            }
            self.store.txn(txn).await
        }
        .boxed()
    }

    fn watch(
        &self,
        request: WatchRequest,
    ) -> Answer<'_, BoxStream<'static, Result<WatchBatch, StoreError>>> {
        self.store.watch(request)
    }

    fn lease_grant(&self, ttl: Duration) -> Answer<'_, (LeaseId, Duration)> {
        self.store.lease_grant(ttl)
    }

    fn lease_renew(&self, lease: LeaseId) -> Answer<'_, Duration> {
        self.store.lease_renew(lease)
    }

    fn lease_revoke(&self, lease: LeaseId) -> Answer<'_, ()> {
        self.store.lease_revoke(lease)
    }

    fn status(&self) -> Answer<'_, ServerStatus> {
        self.store.status()
    }
}

fn config_map(namespace: &str) -> Document {
    let text =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, namespace: {namespace}}}\n");
    Document {
        kind: *Registry::builtin().by_plural("configmaps").unwrap(),
        key: ObjectKey::namespaced(namespace, "a"),
        generate_name: None,
        value: serde_yaml::from_str(&text).unwrap(),
        text,
        source: "-".into(),
        line: 1,
    }
}

#[tokio::test]
async fn nothing_is_written_in_a_namespace_that_is_deleted_meanwhile() {
    for split in [false, true] {
        let keyspace = Keyspace::default();
        let store: SharedStore = Arc::new(ModelStore::new(Config::default()));
        let namespace = keyspace.build(&Key::Desired("namespaces", ObjectKey::cluster("team")));
        let there = Txn::new().put(
            namespace.clone(),
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n",
        );
        store.txn(there).await.unwrap();
        let meddled = Meddled {
            store: store.clone(),
            before: Mutex::new(Some(Txn::new().delete(namespace))),
        };
        let client = Client::new(Arc::new(meddled), keyspace.clone());
        let options = WriteOptions {
            mode: Mode::Apply,
            split,
            dry_run: false,
        };
        let documents = [config_map("team")];
        let written = write(&client, &documents, options).await;
        let left = keyspace.build(&Key::Desired("configmaps", documents[0].key.clone()));
        let (left, _) = store.get(&left).await.unwrap();
        assert!(left.is_none(), "it is in a namespace that is gone");
        let error = written.unwrap_err().to_string();
        assert!(error.contains("namespaces \"team\" not found"), "{error}");
    }
}

#[test]
fn who_was_overtaken_all_the_time_is_told_where_and_what_helps() {
    let words = overtaken(&["team"], 0);
    assert!(
        words.contains("namespace \"team\"") && words.contains("nothing was written"),
        "{words}"
    );
    assert!(words.contains("`setpoint get events -n team`"), "{words}");
    let words = overtaken(&[], 2);
    assert!(
        words.contains("changing these objects") && words.contains("2 transactions"),
        "{words}"
    );
}
