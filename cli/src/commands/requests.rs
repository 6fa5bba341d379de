//! Requests to the scheduler to evict or move pods, written and withdrawn many at a time.

use anyhow::Result;
use setpoint_apis::records::Intent;
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::{Compare, Revision, Txn, TxnOp};

use crate::client::Client;

/// Requests per transaction: etcd takes 128 operations in one.
const BATCH: usize = 100;

/// A request to be written.
#[derive(Debug)]
pub(super) struct Request {
    /// The pod.
    pub(super) pod: ObjectKey,
    /// The create revision of its document: the request is for no later pod of that name.
    pub(super) created: i64,
    /// What is asked.
    pub(super) intent: Intent,
}

/// A request that stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// The pod.
    pub(super) pod: ObjectKey,
    /// Its key.
    key: String,
    /// Its mod revision.
    pub(super) revision: i64,
    /// What is asked.
    pub(super) intent: Intent,
}

/// What came of writing requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// For each request its revision; `None` when the pod is gone.
    All(Vec<Option<Revision>>),
    /// The guard does not hold any more: this and what followed was not written.
    Stale,
}

/// Writes requests of one verb by one asker. Those for pods that are gone are left out.
///
/// # Errors
/// When the store does not answer: what was written before stands.
pub(super) async fn write(
    client: &Client,
    (verb, by): (&str, &str),
    requests: &[Request],
    guard: Option<&Compare>,
) -> Result<Written> {
    let mut revisions = Vec::with_capacity(requests.len());
    for batch in requests.chunks(BATCH) {
        let mut txn = Txn::new();
        txn.compares.extend(guard.cloned());
        for request in batch {
            let key = client.key(&Key::Intent {
                verb,
                pod: request.pod.clone(),
                by,
            });
            let pod = client.key(&Key::Desired("pods", request.pod.clone()));
            let one = Txn::new()
                .when(Compare::CreateRevision(pod, request.created))
                .put(key, document::encode(&request.intent));
            txn.then.push(TxnOp::Txn(Box::new(one)));
        }
        let done = client.txn(txn).await?;
        if !done.succeeded {
            return Ok(Written::Stale);
        }
        let each = done.nested.into_iter().map(|one| {
            let written = one.is_some_and(|one| one.succeeded);
            written.then_some(done.revision)
        });
        revisions.extend(each);
    }
    Ok(Written::All(revisions))
}

/// The requests to evict by one asker that stand, and can be read.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn standing(client: &Client, by: &str) -> Result<Vec<Standing>> {
    let range = client.keyspace().intent_range(Some("evict"));
    let (all, _) = client.range(&range, None).await?;
    let all = all.into_iter().filter_map(|kv| {
        let pod = match client.keyspace().split(&kv.key) {
            Ok(Key::Intent { pod, by: asker, .. }) if asker == by => pod,
            _ => return None,
        };
        Some(Standing {
            pod,
            intent: document::decode_value(&kv.value).ok()?,
            revision: kv.mod_revision,
            key: kv.key,
        })
    });
    Ok(all.collect())
}

/// Withdraws requests that are as they were read. Returns the pods of those that were; the scheduler has acted on the
/// others meanwhile.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn withdraw(client: &Client, requests: &[Standing]) -> Result<Vec<ObjectKey>> {
    let mut gone = Vec::new();
    for batch in requests.chunks(BATCH) {
        let mut txn = Txn::new();
        for request in batch {
            let one = Txn::new()
                .when(Compare::ModRevision(request.key.clone(), request.revision))
                .delete(request.key.clone());
            txn.then.push(TxnOp::Txn(Box::new(one)));
        }
        let done = client.txn(txn).await?;
        for (request, one) in batch.iter().zip(done.nested) {
            if one.is_some_and(|one| one.succeeded) {
                gone.push(request.pod.clone());
            }
        }
    }
    Ok(gone)
}
