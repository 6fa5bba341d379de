//! Which of the nodes that are still there have missed a renewal of their lease.
//!
//! Agents renew every third of the lease's time. A healthy lease therefore has at least two thirds of it left, and that
//! of a node that was cut off together with one whose lease has just expired at most a third and half a second. Half is
//! the line in between. etcd answers in whole seconds, rounded down.
//!
//! Of some nodes there may be no answer, most likely just in an outage. They are in doubt, which is a third thing.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rustc_hash::FxHashSet;
use setpoint_apis::Key;
use setpoint_runtime::Leader;
use setpoint_store::StoreError;
use tokio::time::Instant;
use tracing::warn;

/// How long the answers may take; nodes without one are in doubt. An etcd that is well answers in milliseconds; one that
/// is busy has to be waited for, since whatever took nodes away may have slowed it down as well.
const LIMIT: Duration = Duration::from_secs(1);
/// Questions in flight.
const CONCURRENCY: usize = 64;

/// How long nodes that are in doubt are asked again before it is decided without their answers. Longer than etcd takes to
/// elect another leader, and than nodes that are cut off together take to lose their leases one after the other (a third
/// of 6 s, and half a second): by then they are silent, for which nobody has to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was heard of the nodes that are there.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Those that are late.
    pub(crate) late: FxHashSet<Arc<str>>,
    /// Those of which there was no answer.
    pub(crate) in_doubt: FxHashSet<Arc<str>>,
}

/// For how long nodes have been in doubt.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    since: Option<Instant>,
}

impl Doubt {
    /// Nothing has to be known any more.
    pub(crate) fn end(&mut self) {
        self.since = None;
    }

    /// Takes note of what was heard of those who were asked at `asked`. Whether it is to be decided without the answers
    /// that are missing: a read that stays broken must not keep pods on lost nodes for good.
    pub(crate) fn is_over(&mut self, heard: &Heard, asked: Instant, now: Instant) -> bool {
        if heard.in_doubt.is_empty() {
            self.end();
            return true;
        }
        now.duration_since(*self.since.get_or_insert(asked)) >= PATIENCE
    }
}

/// Asks who out of `present` is late.
pub(crate) async fn ask(leader: &Leader, present: Vec<Arc<str>>) -> Heard {
    let mut late = FxHashSet::default();
    let mut in_doubt: FxHashSet<_> = present.iter().cloned().collect();
    let mut failed = None;
    let mut answers = futures::stream::iter(present)
        .map(|node| async move { (is_late(leader, &node).await, node) })
        .buffer_unordered(CONCURRENCY);
    let ask = async {
        while let Some((answer, node)) = answers.next().await {
            match answer {
                Ok(is_late) => {
                    in_doubt.remove(&node);
                    if is_late {
                        late.insert(node);
                    }
                }
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
    Heard { late, in_doubt }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_ends_with_the_answers_or_when_they_have_been_missing_for_too_long() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let known = Heard::default();
        let unknown = Heard {
            in_doubt: [Arc::from("n1")].into_iter().collect(),
            ..Heard::default()
        };
        let mut doubt = Doubt::default();
        assert!(doubt.is_over(&known, at(0), at(10)));
        assert!(!doubt.is_over(&unknown, at(1_000), at(2_000)));
        assert!(!doubt.is_over(&unknown, at(4_900), at(5_900)));
        // Five seconds after those were asked of whom there has been no answer since.
        assert!(doubt.is_over(&unknown, at(5_950), at(6_000)));
        assert!(
            doubt.is_over(&unknown, at(6_200), at(7_200)),
            "it stays over"
        );
        // An answer in between, or nothing that has to be known: it begins anew.
        assert!(doubt.is_over(&known, at(7_400), at(7_410)));
        assert!(!doubt.is_over(&unknown, at(20_000), at(21_000)));
        doubt.end();
        assert!(!doubt.is_over(&unknown, at(30_000), at(31_000)));
    }
}
