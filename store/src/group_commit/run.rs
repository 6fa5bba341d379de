//! Carries batches out, and tells each item what became of it.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use tracing::debug;

use super::queue::{Batch, Taken};
use super::{Inner, Item, ItemOutcome};
use crate::Store;
use crate::error::{Outcome, StoreError};
use crate::types::{Txn, TxnOp, TxnResult};

/// Attempts alone that are under way at a time.
const ALONE_IN_FLIGHT: usize = 8;

/// Carries out a batch, then whatever has gathered meanwhile, until there is nothing to do.
pub(super) async fn work(inner: Arc<Inner>, first: Taken) {
    let mut next = Some(first);
    while let Some(Taken {
        batch,
        replies,
        cost,
    }) = next.take()
    {
        inner.room.add_permits(cost);
        let slot = Slot {
            inner: &inner,
            batch: Some(&batch),
        };
        for (reply, outcome) in replies.into_iter().zip(run(&inner, &batch).await) {
            // Nobody waits any more: the item was carried out all the same.
            let _ = reply.send(outcome);
        }
        // Whoever was woken may have more to submit. The slot is kept meanwhile, so that it gathers.
        tokio::task::yield_now().await;
        next = slot.exchange();
    }
}

/// The place of a batch among those under way; given back even when the task is dropped or panics.
struct Slot<'a> {
    inner: &'a Arc<Inner>,
    batch: Option<&'a Arc<Batch>>,
}

impl Slot<'_> {
    /// Gives the place back and takes what goes next; starts more if more may go.
    fn exchange(mut self) -> Option<Taken> {
        let mut queue = self.inner.queue.lock();
        if let Some(batch) = self.batch.take() {
            queue.finish(batch);
        }
        let next = queue.take(&self.inner.options);
        if queue.is_idle() {
            self.inner.idle.notify_waiters();
        }
        self.inner.start(queue);
        next
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch {
            self.inner.queue.lock().finish(batch);
        }
    }
}

async fn run(inner: &Inner, batch: &Batch) -> Vec<ItemOutcome> {
    let items = &batch.items;
    if let [item] = items.as_slice() {
        return vec![alone(&*inner.store, item).await];
    }
    let then = items
        .iter()
        .map(|item| TxnOp::Txn(Box::new(plain(item))))
        .collect();
    match inner
        .store
        .txn(Txn {
            then,
            ..Txn::default()
        })
        .await
    {
        Ok(result) => outcomes(items, &result),
        Err(error) if is_refusal(&error) => {
            debug!(
                items = items.len(),
                error = &error as &dyn std::error::Error,
                "transaction refused; trying its items alone"
            );
            inner.queue.lock().count_alone(items.len());
            let store = &*inner.store;
            let attempts: Vec<_> = items.iter().map(|item| alone(store, item)).collect();
            stream::iter(attempts)
                .buffered(ALONE_IN_FLIGHT)
                .collect()
                .await
        }
        Err(error) => items
            .iter()
            .map(|item| failed(error.clone(), item))
            .collect(),
    }
}

/// Whether one item can be the reason that all were refused.
fn is_refusal(error: &StoreError) -> bool {
    match error {
        StoreError::Invalid { .. }
        | StoreError::TooLarge { .. }
        | StoreError::PermissionDenied { .. }
        | StoreError::LeaseNotFound { .. }
        | StoreError::Compacted { .. } => true,
        StoreError::Unavailable { .. }
        | StoreError::Unknown { .. }
        | StoreError::NoSpace { .. }
        | StoreError::Unauthenticated { .. } => false,
    }
}

async fn alone(store: &dyn Store, item: &Item) -> ItemOutcome {
    match store.txn(plain(item)).await {
        Ok(result) => outcome(&result, &result),
        Err(error) => failed(error, item),
    }
}

fn plain(item: &Item) -> Txn {
    Txn {
        compares: item.guards.clone(),
        then: item.then.clone(),
        or_else: Vec::new(),
    }
}

fn outcomes(items: &[Item], result: &TxnResult) -> Vec<ItemOutcome> {
    let nested = result.nested.iter();
    let mut outcomes: Vec<_> = nested
        .zip(items)
        .map(|(nested, item)| {
            nested
                .as_ref()
                .map_or_else(|| mute(item), |nested| outcome(nested, result))
        })
        .collect();
    outcomes.extend(items[outcomes.len()..].iter().map(mute));
    outcomes
}

/// A nested answer carries no revision, so it is the outer one's.
fn outcome(nested: &TxnResult, outer: &TxnResult) -> ItemOutcome {
    let revision = outer.revision;
    if nested.succeeded {
        ItemOutcome::Committed { revision }
    } else {
        ItemOutcome::Rejected { revision }
    }
}

/// The store answered without saying what became of an item.
fn mute(item: &Item) -> ItemOutcome {
    let message = "the answer names fewer items than were sent".to_owned();
    ItemOutcome::Unknown(StoreError::Unknown {
        context: item.context.clone(),
        message,
    })
}

fn failed(error: StoreError, item: &Item) -> ItemOutcome {
    let error = if item.context.is_empty() {
        error
    } else {
        error.with_context(item.context.clone())
    };
    match error.outcome() {
        Outcome::NotApplied => ItemOutcome::Failed(error),
        Outcome::Unknown => ItemOutcome::Unknown(error),
    }
}
