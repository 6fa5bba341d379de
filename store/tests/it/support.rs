//! What the tests share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use setpoint_store::testing::prefix_end;
use setpoint_store::{
    Event, EventKind, KeyValue, LeaseId, Page, RangeRequest, Revision, ServerStatus, SharedStore,
    Store, StoreError, Txn, TxnOp, TxnResult, WatchBatch, WatchRequest,
};

/// Generous: nothing that should happen takes so long, whatever else the machine does.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) type Watch = BoxStream<'static, Result<WatchBatch, StoreError>>;

/// Waits for what should come soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen within {LONG:?}"))
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    soon(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

pub(crate) async fn put(
    store: &dyn Store,
    key: impl Into<String>,
    value: impl Into<String>,
) -> Revision {
    let done = store.txn(Txn::new().put(key, value.into())).await.unwrap();
    assert!(done.succeeded);
    done.revision
}

pub(crate) fn under(prefix: &str) -> RangeRequest {
    RangeRequest {
        start: prefix.to_owned(),
        end: prefix_end(prefix),
        ..RangeRequest::default()
    }
}

pub(crate) fn watching(prefix: &str, from: Option<Revision>) -> WatchRequest {
    WatchRequest {
        start: prefix.to_owned(),
        end: prefix_end(prefix),
        from,
    }
}

/// Reads events until there are `count`; checks that batches are whole revisions in order.
pub(crate) async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut all: Vec<Event> = Vec::new();
    while all.len() < count {
        let batch = soon("the next event", watch.next())
            .await
            .expect("the watch goes on")
            .expect("the watch is sound");
        let before = all.last().map_or(0, |event| event.kv.mod_revision);
        let revisions: Vec<_> = batch
            .events
            .iter()
            .map(|event| event.kv.mod_revision)
            .collect();
        assert!(
            revisions.is_sorted() && revisions.first().is_none_or(|first| *first > before),
            "{before} {revisions:?}"
        );
        assert!(
            revisions
                .last()
                .is_none_or(|last| *last <= batch.revision.0)
        );
        all.extend(batch.events);
    }
    assert_eq!(all.len(), count);
    all
}

/// The error that ends a watch.
pub(crate) async fn end_of(
    mut watch: impl Stream<Item = Result<WatchBatch, StoreError>> + Unpin,
) -> StoreError {
    let error = soon("the end of the watch", async {
        loop {
            match watch.next().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("the watch ended without an error"),
            }
        }
    })
    .await;
    for _ in 0..2 {
        assert!(
            watch.next().await.is_none(),
            "nothing comes after the error, however often one asks"
        );
    }
    error
}

/// `+key=value` and `-key`, without the prefix.
pub(crate) fn short(prefix: &str, events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            let key = event.kv.key.strip_prefix(prefix).unwrap();
            match event.kind {
                EventKind::Put => format!("+{key}={}", String::from_utf8_lossy(&event.kv.value)),
                EventKind::Delete => format!("-{key}"),
            }
        })
        .collect()
}

type Hook = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// A store with something happening before every page that is read, and a record of the transactions.
pub(crate) struct Hooked {
    store: SharedStore,
    before_range: Hook,
    /// How many items each transaction had: nested ones, or itself.
    pub(crate) txns: Mutex<Vec<usize>>,
}

impl Hooked {
    pub(crate) fn new(
        store: SharedStore,
        before_range: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            before_range: Box::new(before_range),
            txns: Mutex::default(),
        }
    }

    /// Only the record.
    pub(crate) fn recording(store: SharedStore) -> Arc<Self> {
        Arc::new(Self::new(store, || Box::pin(async {})))
    }
}

impl Store for Hooked {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        self.store.get(key)
    }
    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            (self.before_range)().await;
            self.store.range(request).await
        })
    }
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        let nested = txn
            .then
            .iter()
            .filter(|op| matches!(op, TxnOp::Txn(_)))
            .count();
        self.txns.lock().unwrap().push(nested.max(1));
        self.store.txn(txn)
    }
    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Watch, StoreError>> {
        self.store.watch(request)
    }
    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        self.store.lease_grant(ttl)
    }
    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        self.store.lease_renew(lease)
    }
    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.lease_revoke(lease)
    }
    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        self.store.status()
    }
}
