//! Which of the nodes that are still there have missed a renewal of their lease.
//!
//! Agents renew every third of the lease's time. A healthy lease therefore has at least two thirds of it left, and that
//! of a node that was cut off together with one whose lease has just expired at most a third and half a second. Half is
//! the line in between. etcd answers in whole seconds, rounded down.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rustc_hash::FxHashSet;
use setpoint_apis::Key;
use setpoint_runtime::Leader;
use setpoint_store::StoreError;
use tracing::warn;

/// How long the answers may take. Whoever is not known to be late by then is not.
const LIMIT: Duration = Duration::from_millis(300);
/// Questions in flight.
const CONCURRENCY: usize = 64;

/// The nodes out of `present` that are late.
pub(crate) async fn late(leader: &Leader, present: Vec<Arc<str>>) -> FxHashSet<Arc<str>> {
    let mut late = FxHashSet::default();
    let mut failed = None;
    let mut answers = futures::stream::iter(present)
        .map(|node| async move { (is_late(leader, &node).await, node) })
        .buffer_unordered(CONCURRENCY);
    let ask = async {
        while let Some((answer, node)) = answers.next().await {
            match answer {
                Ok(true) => {
                    late.insert(node);
                }
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
    };
    if tokio::time::timeout(LIMIT, ask).await.is_err() {
        warn!("etcd did not say in time how long the leases of the nodes have left");
    }
    if let Some(error) = failed {
        warn!(
            error = &error as &dyn std::error::Error,
            "it is not known of every node whether its lease is being renewed"
        );
    }
    late
}

async fn is_late(leader: &Leader, node: &str) -> Result<bool, StoreError> {
    let key = leader.keyspace().build(&Key::NodeAlive(node));
    let (kv, _) = leader.store().get(&key).await?;
    let Some(kv) = kv else { return Ok(true) };
    let Some(lease) = kv.lease else {
        return Ok(false);
    };
    match leader.store().lease_time_left(lease).await {
        Ok(Some(left)) => Ok(left.remaining * 2 < left.granted),
        Ok(None) => Ok(false),
        // Expired between the two questions.
        Err(StoreError::LeaseNotFound { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}
