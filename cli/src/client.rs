//! Reads merged objects from the store and follows their changes. What objects mean is not decided here.

pub(crate) mod counts;
mod merge;
mod read;
mod timeline;
pub(crate) mod watch;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Key, KeyRange, Keyspace, document};
use setpoint_runtime::Clock;
use setpoint_store::list::{self, List};
use setpoint_store::{
    KeyValue, RangeRequest, Revision, SharedStore, StoreError, Txn, TxnOp, TxnResult,
};
use tokio::time::Instant;

use crate::kinds::{self, KindInfo};
use crate::term;

pub(crate) use read::Listing;

/// Keys per page of a listing.
const PAGE: i64 = 1_000;
/// Keys per transaction that reads: etcd takes 128 operations in one.
const MANY: usize = 100;
/// How long etcd is left alone after it has not answered.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether nothing is wrong but that etcd does not answer.
pub(crate) fn is_away(error: &anyhow::Error) -> bool {
    let store = error.downcast_ref::<StoreError>();
    store.is_some_and(StoreError::is_retryable)
}

/// Looks, and looks again while etcd is away, until `end` at most: what waits takes long, and members of etcd are
/// restarted. Says so once, with what `goes_on` when etcd answers again.
///
/// # Errors
/// Those of `look`; the last one when etcd was away until `end`.
pub(crate) async fn patiently<T>(
    end: Instant,
    goes_on: &str,
    look: impl AsyncFn() -> Result<T>,
) -> Result<T> {
    let mut said = false;
    loop {
        match look().await {
            Err(error) if is_away(&error) && Instant::now() < end => {
                if !std::mem::replace(&mut said, true) {
                    term::warn(format_args!(
                        "{}; {goes_on} when etcd answers again",
                        term::chain(&error)
                    ));
                }
                tokio::time::sleep_until(end.min(Instant::now() + AGAIN)).await;
            }
            looked => return looked,
        }
    }
}

/// A connection with the keyspace it is about.
#[derive(Clone)]
pub(crate) struct Client {
    store: SharedStore,
    keyspace: Keyspace,
    clock: Clock,
}

impl Client {
    /// A client of a store.
    pub(crate) fn new(store: SharedStore, keyspace: Keyspace) -> Self {
        Self {
            store,
            keyspace,
            clock: Clock::system(),
        }
    }

    /// The keyspace.
    pub(crate) fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Builds a key.
    pub(crate) fn key(&self, key: &Key<'_>) -> String {
        self.keyspace.build(key)
    }

    /// Reads one key.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn get(&self, key: &Key<'_>) -> Result<(Option<KeyValue>, Revision)> {
        Ok(self.store.get(&self.key(key)).await?)
    }

    /// Reads many keys, those of each hundred at one revision. In the order of the keys; what does not exist is `None`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn get_many(&self, keys: &[Key<'_>]) -> Result<Vec<Option<KeyValue>>> {
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(MANY) {
            let mut txn = Txn::new();
            txn.then
                .extend(keys.iter().map(|key| TxnOp::Get(self.key(key))));
            all.extend(self.store.txn(txn).await?.reads);
        }
        Ok(all)
    }

    /// Reads a whole range, page by page at one revision.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn range(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
    ) -> Result<(Vec<KeyValue>, Revision)> {
        self.pages(range, at, false).await
    }

    /// Like [`Client::range`], without values.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn keys(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
    ) -> Result<(Vec<String>, Revision)> {
        let (kvs, revision) = self.pages(range, at, true).await?;
        Ok((kvs.into_iter().map(|kv| kv.key).collect(), revision))
    }

    async fn pages(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
        keys_only: bool,
    ) -> Result<(Vec<KeyValue>, Revision)> {
        if at.is_none() {
            let mut list = List::new(range.start.clone(), range.end.clone()).page_size(PAGE);
            list.keys_only = keys_only;
            return Ok(list::list_all(&*self.store, list).await?);
        }
        let mut request = RangeRequest {
            start: range.start.clone(),
            end: range.end.clone(),
            limit: PAGE,
            revision: at,
            keys_only,
            count_only: false,
        };
        let mut all = Vec::new();
        loop {
            let page = self.store.range(request.clone()).await?;
            let revision = *request.revision.get_or_insert(page.revision);
            all.extend(page.kvs);
            match all.last() {
                Some(last) if page.more => request.start = format!("{}\0", last.key),
                _ => return Ok((all, revision)),
            }
        }
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// When the store does not answer; the outcome may be unknown.
    pub(crate) async fn txn(&self, txn: Txn) -> Result<TxnResult, setpoint_store::StoreError> {
        self.store.txn(txn).await
    }

    /// The plurals that have documents in the store, those that this program does not know included.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn plurals(&self) -> Result<BTreeSet<String>> {
        Ok(self.plurals_now().await?.0)
    }

    /// As [`Client::plurals`], with the revision at which there were these and no others.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn plurals_now(&self) -> Result<(BTreeSet<String>, Revision)> {
        let all = self.keyspace.all_desired();
        let mut found = BTreeSet::new();
        let mut start = all.start;
        let mut revision = None;
        loop {
            let request = RangeRequest {
                start,
                end: all.end.clone(),
                limit: 1,
                revision,
                keys_only: true,
                ..RangeRequest::default()
            };
            let page = self.store.range(request).await?;
            let seen = *revision.get_or_insert(page.revision);
            let Some(first) = page.kvs.first() else {
                return Ok((found, seen));
            };
            start = match self.keyspace.split(&first.key) {
                Ok(Key::Desired(plural, _)) => {
                    found.insert(plural.to_owned());
                    // On to the first key behind this plural's.
                    self.keyspace.desired_range(plural, None).end
                }
                _ => format!("{}\0", first.key),
            };
        }
    }

    /// A kind that this program does not know, when the store has documents of it: by plural or kind.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn foreign_kind(&self, word: &str) -> Result<Option<KindInfo>> {
        let word = word.to_lowercase();
        for plural in self.plurals().await? {
            if kinds::all().any(|k| k.plural == plural) {
                continue;
            }
            let range = self.keyspace.desired_range(&plural, None);
            let request = RangeRequest {
                start: range.start,
                end: range.end,
                limit: 1,
                ..RangeRequest::default()
            };
            let page = self.store.range(request).await?;
            let Some(first) = page.kvs.first() else {
                continue;
            };
            let Ok(Key::Desired(_, key)) = self.keyspace.split(&first.key) else {
                continue;
            };
            let document: serde_json::Value =
                document::decode_value(&first.value).unwrap_or_default();
            let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
            let kind = match text("kind") {
                none if none.is_empty() => plural.clone(),
                kind => kind,
            };
            if word == plural || word == kind.to_lowercase() {
                return Ok(Some(KindInfo::foreign(
                    &plural,
                    &text("apiVersion"),
                    &kind,
                    !key.namespace.is_empty(),
                )));
            }
        }
        Ok(None)
    }
}
