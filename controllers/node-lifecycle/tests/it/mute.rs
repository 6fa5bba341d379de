//! A store that does not say how long leases have left, as an etcd that has troubles of its own.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use setpoint_store::{
    KeyValue, LeaseId, LeaseTime, Page, RangeRequest, Revision, ServerStatus, SharedStore, Store,
    StoreError, Txn, TxnResult, WatchBatch, WatchRequest,
};

/// It does not answer that question, and passes all others on.
pub(crate) struct Mute(pub(crate) SharedStore);

impl Store for Mute {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        self.0.get(key)
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.0.range(request)
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        self.0.txn(txn)
    }

    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>> {
        self.0.watch(request)
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        self.0.lease_grant(ttl)
    }

    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        self.0.lease_renew(lease)
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.lease_revoke(lease)
    }

    fn lease_time_left(&self, _: LeaseId) -> BoxFuture<'_, Result<Option<LeaseTime>, StoreError>> {
        Box::pin(std::future::pending())
    }

    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        self.0.status()
    }
}
