//! The store that is etcd, over gRPC.
//!
//! `etcd-client` brings etcd's API; the calls are made on tonic below it. Its own client hides which failures happened
//! before a request was sent, opens a keep-alive stream per lease, and copies every value. Here:
//!
//! - every call has a deadline, and its failure says whether it may have been applied;
//! - reads move on to the next endpoint, writes only when the first endpoint cannot have seen them;
//! - a watch is one stream, which ends when the server goes silent (`watch`);
//! - all leases of the process are renewed over one stream (`renew`).

mod auth;
mod check;
mod convert;
mod errors;
mod link;
mod options;
mod renew;
pub mod version;
mod watch;
mod wire;

pub use check::Health;
pub use options::{ConnectOptions, Credentials, Pem, TlsOptions};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse, PbStatusRequest, PbStatusResponse,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::time::Instant;

use self::link::{Link, Method};
use self::renew::Renewer;
use self::version::Version;
use crate::Store;
use crate::error::StoreError;
use crate::types::{
    Compare, KeyValue, LeaseId, LeaseTime, Page, RangeRequest, Revision, ServerStatus, Txn, TxnOp,
    TxnResult, WatchBatch, WatchRequest,
};

const RANGE: Method = Method::read("/etcdserverpb.KV/Range");
const TXN: Method = Method::write("/etcdserverpb.KV/Txn");
const GRANT: Method = Method::write("/etcdserverpb.Lease/LeaseGrant");
const REVOKE: Method = Method::write("/etcdserverpb.Lease/LeaseRevoke");
const TIME_TO_LIVE: Method = Method::read("/etcdserverpb.Lease/LeaseTimeToLive");
const STATUS: Method = Method::read("/etcdserverpb.Maintenance/Status");

/// How long a member may take to say how it is.
const STATUS_LIMIT: Duration = Duration::from_secs(3);

/// How often a check is repeated to learn why a TLS connection breaks.
const TLS_ATTEMPTS: u32 = 5;

/// etcd. Clones share the connection.
#[derive(Clone)]
pub struct EtcdStore {
    link: Arc<Link>,
    renewer: Arc<Renewer>,
    skipped: Arc<AtomicU64>,
}

impl EtcdStore {
    /// Prepares the connection. The server need not be there yet: [`EtcdStore::check`] tells, as does the first call.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the options contradict themselves, or a certificate cannot be read.
    #[expect(
        clippy::unused_async,
        reason = "connections need a runtime, which an async function has"
    )]
    pub async fn connect(options: &ConnectOptions) -> Result<Self, StoreError> {
        let link = Arc::new(Link::new(options.clone())?);
        Ok(Self {
            renewer: Arc::new(Renewer::new(Arc::clone(&link))),
            link,
            skipped: Arc::new(AtomicU64::new(0)),
        })
    }

    /// Asks the first endpoint that answers how it is, for at most a few seconds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when none answers, [`StoreError::Invalid`] when it is too old,
    /// [`StoreError::Unauthenticated`] when it does not let us in; each with words for whoever started the program.
    pub async fn check(&self) -> Result<Health, StoreError> {
        let deadline = Instant::now() + STATUS_LIMIT;
        let mut attempts = if self.uses_tls() { TLS_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match self.status_within(STATUS_LIMIT).await {
                Ok(status) => return check::judge(self, status),
                // A server that refuses a client certificate says so when the handshake is over for the client, and
                // hangs up. The word is lost when the request is written meanwhile; another attempt may hear it.
                Err(StoreError::Unavailable { .. })
                    if attempts > 0 && Instant::now() < deadline => {}
                Err(error) => return Err(check::explain(self, error)),
            }
        }
    }

    /// The endpoints, as one text for messages.
    pub fn endpoints(&self) -> String {
        self.link.names()
    }

    /// How many keys were skipped because they are not UTF-8. None of Setpoint's are.
    pub fn skipped_keys(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    fn uses_tls(&self) -> bool {
        self.link.options.tls.is_some()
    }

    async fn range_raw(
        &self,
        request: wire::RangeRequest,
        what: &str,
    ) -> Result<wire::RangeResponse, StoreError> {
        self.link
            .call(RANGE, request, || format!("read of {what}"))
            .await
    }

    async fn status_within(&self, limit: Duration) -> Result<ServerStatus, StoreError> {
        let status: PbStatusResponse = self
            .link
            .call_within(STATUS, PbStatusRequest {}, limit, || {
                "reading etcd's status".to_owned()
            })
            .await?;
        let alarms = ["NOSPACE", "CORRUPT"]
            .into_iter()
            .filter(|alarm| {
                status
                    .errors
                    .iter()
                    .any(|text| text.contains(&format!("alarm:{alarm}")))
            })
            .map(str::to_owned)
            .collect();
        Ok(ServerStatus {
            version: status.version,
            db_size_bytes: status.db_size,
            db_size_in_use_bytes: status.db_size_in_use,
            has_leader: status.leader != 0,
            alarms,
            revision: Revision(status.header.map_or(0, |header| header.revision)),
        })
    }
}

impl Store for EtcdStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        let key = key.to_owned();
        Box::pin(async move {
            let request = wire::RangeRequest {
                key: key.clone().into_bytes(),
                ..wire::RangeRequest::default()
            };
            let page = convert::page(self.range_raw(request, &key).await?, &self.skipped);
            Ok((page.kvs.into_iter().next(), page.revision))
        })
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            let what = format!("[{}, {})", request.start, request.end);
            let mut raw = wire::RangeRequest {
                key: request.start.into_bytes(),
                range_end: request.end.into_bytes(),
                limit: request.limit,
                revision: request.revision.map_or(0, |revision| revision.0),
                keys_only: request.keys_only,
                count_only: request.count_only,
            };
            loop {
                let response = self.range_raw(raw.clone(), &what).await?;
                let last = response.kvs.last().map(|kv| kv.key.clone());
                let page = convert::page(response, &self.skipped);
                match last {
                    // Nothing but foreign keys: a page without a last key could not be continued by the caller.
                    Some(last) if page.more && page.kvs.is_empty() => {
                        raw.key = last;
                        raw.key.push(0);
                    }
                    _ => return Ok(page),
                }
            }
        })
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        Box::pin(async move {
            let size = txn.then.len();
            let first = first_key(&txn).map(str::to_owned);
            let request = convert::txn_request(txn);
            let context = || match &first {
                Some(key) => format!("transaction of {size} operations on {key}"),
                None => "empty transaction".to_owned(),
            };
            let response = self.link.call(TXN, request, context).await?;
            Ok(convert::txn_result(response, &self.skipped))
        })
    }

    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>> {
        Box::pin(async move {
            // Asked anew each time: a server can be exchanged under a running process.
            let ordered = match self.status_within(self.link.options.request_timeout).await {
                Ok(status) => {
                    Version::parse(&status.version).is_some_and(Version::orders_requested_progress)
                }
                Err(error) if error.is_retryable() => return Err(error),
                // Not for this user to know; the watch itself may be permitted.
                Err(_) => false,
            };
            watch::open(
                Arc::clone(&self.link),
                request,
                ordered,
                Arc::clone(&self.skipped),
            )
            .await
        })
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        Box::pin(async move {
            // etcd counts in seconds; a shorter lease than asked for would be a surprise.
            let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
            let request = PbLeaseGrantRequest {
                ttl: i64::try_from(seconds).unwrap_or(i64::MAX),
                id: 0,
            };
            let context = || format!("grant of a lease for {ttl:?}");
            let granted: PbLeaseGrantResponse = self.link.call(GRANT, request, context).await?;
            if !granted.error.is_empty() {
                return Err(StoreError::Invalid {
                    context: context(),
                    message: granted.error,
                });
            }
            Ok((
                LeaseId(granted.id),
                Duration::from_secs(u64::try_from(granted.ttl).unwrap_or(0)),
            ))
        })
    }

    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        Box::pin(self.renewer.renew(lease))
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let context = || format!("revocation of lease {:x}", lease.0);
            let _: PbLeaseRevokeResponse = self
                .link
                .call(REVOKE, PbLeaseRevokeRequest { id: lease.0 }, context)
                .await?;
            Ok(())
        })
    }

    fn lease_time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<LeaseTime>, StoreError>> {
        Box::pin(async move {
            let context = || format!("remaining time of lease {:x}", lease.0);
            let request = PbLeaseTimeToLiveRequest {
                id: lease.0,
                keys: false,
            };
            let left: PbLeaseTimeToLiveResponse =
                self.link.call(TIME_TO_LIVE, request, context).await?;
            // etcd answers -1 and nothing granted for a lease that does not exist.
            if left.granted_ttl <= 0 {
                return Err(StoreError::LeaseNotFound { context: context() });
            }
            let seconds = |s: i64| Duration::from_secs(u64::try_from(s).unwrap_or(0));
            Ok(Some(LeaseTime {
                granted: seconds(left.granted_ttl),
                remaining: seconds(left.ttl),
            }))
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        Box::pin(self.status_within(STATUS_LIMIT))
    }

    fn versions(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let context = || "reading the version of etcd".to_owned();
            let ask = || {
                self.link.each::<_, PbStatusResponse>(
                    STATUS.path,
                    PbStatusRequest {},
                    STATUS_LIMIT,
                    context,
                )
            };
            let mut answers = ask().await;
            let stale = |answer: &Result<_, StoreError>| {
                matches!(answer, Err(StoreError::Unauthenticated { .. }))
            };
            if self.link.has_user() && answers.iter().any(stale) {
                // The token was too old; it is forgotten now.
                answers = ask().await;
            }
            let mut versions = Vec::new();
            let mut away = None;
            for answer in answers {
                match answer {
                    Ok(status) => versions.push(status.version),
                    Err(error) if error.is_retryable() => away = Some(error),
                    Err(error) => return Err(error),
                }
            }
            match away {
                Some(error) if versions.is_empty() => Err(error),
                _ => Ok(versions),
            }
        })
    }
}

/// A key to name a transaction by.
pub(crate) fn first_key(txn: &Txn) -> Option<&str> {
    txn.then
        .iter()
        .chain(&txn.or_else)
        .find_map(op_key)
        .or_else(|| {
            txn.compares.first().map(|compare| match compare {
                Compare::ModRevision(key, _)
                | Compare::CreateRevision(key, _)
                | Compare::Exists(key) => key.as_str(),
                Compare::RangeUnchangedSince { start, .. } => start.as_str(),
            })
        })
}

fn op_key(op: &TxnOp) -> Option<&str> {
    match op {
        TxnOp::Put(put) => Some(&put.key),
        TxnOp::Delete(key) | TxnOp::Get(key) | TxnOp::DeleteRange { start: key, .. } => Some(key),
        TxnOp::Txn(txn) => first_key(txn),
    }
}
