//! The user: what is wanted, written as anybody may write it, and load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use setpoint_store::{Compare, SharedStore, StoreError, Txn};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Between two writes of the load.
const EVERY: Duration = Duration::from_millis(150);

/// Writes documents, and remembers which.
#[derive(Clone)]
pub struct User {
    store: SharedStore,
    wanted: Arc<Mutex<BTreeMap<String, String>>>,
    marker: Arc<str>,
}

impl User {
    /// `marker` tells the processes of this test's pods from everybody else's.
    pub(super) fn new(store: SharedStore, marker: String) -> Self {
        Self {
            store,
            wanted: Arc::default(),
            marker: marker.into(),
        }
    }

    /// What is wanted, by key.
    pub(super) fn wanted(&self) -> BTreeMap<String, String> {
        self.wanted.lock().clone()
    }

    /// Asks for so many replicas of a Deployment of this name.
    pub async fn deploy(&self, name: &str, replicas: usize) {
        let marker = &self.marker;
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
             spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: host\n        \
             command: [sleep, '{marker}']\n"
        );
        let key = format!("/setpoint/desired/deployments/default/{name}");
        self.put(&key, text).await;
    }

    /// Deletes a Deployment, however long it takes.
    pub async fn delete(&self, name: &str) {
        let key = format!("/setpoint/desired/deployments/default/{name}");
        self.wanted.lock().remove(&key);
        while self
            .store
            .txn(Txn::new().delete(key.clone()))
            .await
            .is_err()
        {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Writes a ConfigMap, which is a change that every cache sees and nobody acts on. Returns its revision.
    pub async fn note(&self, name: &str, text: &str) -> i64 {
        let key = format!("/setpoint/desired/configmaps/default/{name}");
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{text: '{text}'}}\n"
        );
        self.put(&key, text).await
    }

    /// Puts a document, however long it takes, and returns the revision that has it. Each attempt is guarded, so that one
    /// that was given up cannot undo a later one.
    async fn put(&self, key: &str, text: String) -> i64 {
        loop {
            match self.try_put(key, &text).await {
                Ok(Some(revision)) => {
                    self.wanted.lock().insert(key.to_owned(), text);
                    return revision;
                }
                Ok(None) => {}
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn try_put(&self, key: &str, text: &str) -> Result<Option<i64>, StoreError> {
        let (there, _) = self.store.get(key).await?;
        if let Some(kv) = there.as_ref().filter(|kv| kv.value == text) {
            return Ok(Some(kv.mod_revision));
        }
        let seen = there.map_or(0, |kv| kv.mod_revision);
        let txn = Txn::new()
            .when(Compare::ModRevision(key.to_owned(), seen))
            .put(key, text.to_owned());
        let done = self.store.txn(txn).await?;
        Ok(done.succeeded.then_some(done.revision.0))
    }

    /// Scales a Deployment up and down between these numbers and writes a ConfigMap in between, until the load is ended.
    pub(super) fn load(&self, name: &'static str, least: usize, most: usize) -> Load {
        let user = self.clone();
        let (ended, mut end) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut writes = 0;
            let numbers = (least..=most).chain((least..most).rev()).cycle();
            for replicas in numbers {
                user.deploy(name, replicas).await;
                for n in 0..6 {
                    user.note("load", &format!("{replicas}-{n}")).await;
                    writes += 1;
                    tokio::select! {
                        biased;
                        _ = end.changed() => return writes,
                        () = sleep(EVERY) => {}
                    }
                }
                writes += 1;
            }
            writes
        });
        Load { ended, task }
    }
}

/// Load that goes on.
pub struct Load {
    ended: watch::Sender<bool>,
    task: JoinHandle<usize>,
}

impl Load {
    /// Ends the load after the write that is under way; returns how many there were.
    pub(super) async fn end(self) -> usize {
        self.ended.send_replace(true);
        self.task.await.unwrap_or(0)
    }
}
