//! Handing plans to the store: the writes that both controllers make, and what becomes of them.

use std::time::Duration;

use setpoint_apis::records::Deletion;
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_runtime::{Leader, LeaderError, View, Write, WriteOutcome};
use setpoint_store::{Compare, Put, StoreError, TxnOp};

/// When to decide again after a conflict. What caused it is in the cache by then, most of the time, and has asked for
/// a pass itself.
pub(crate) const SOON: Duration = Duration::from_millis(20);

/// When to ask again for what others were about to take.
pub(crate) const CONTESTED: Duration = Duration::from_millis(100);

/// What became of writes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Written.
    pub(crate) committed: usize,
    /// A guard did not hold.
    pub(crate) conflicts: usize,
    /// The store did not take it.
    pub(crate) refused: usize,
    /// Why, for the first of them.
    pub(crate) first_error: Option<StoreError>,
    /// The namespace did not let something in, and the status does not say so yet.
    pub(crate) turned_away: bool,
    /// There was no room for something, because of what others were about to create.
    pub(crate) contested: bool,
}

impl Tally {
    /// The store did not do something that was to be done.
    pub(crate) fn refuse(&mut self, error: StoreError) {
        self.refused += 1;
        self.first_error.get_or_insert(error);
    }

    /// When the next pass is to come though nothing changes: at once when it finds something else, or has something to
    /// say. `planned` is when it comes anyway.
    pub(crate) fn comes_back(&self, planned: Option<Duration>) -> Option<Duration> {
        if self.conflicts > 0 || self.turned_away {
            Some(SOON)
        } else if self.contested {
            Some(planned.map_or(CONTESTED, |d| d.min(CONTESTED)))
        } else {
            planned
        }
    }

    /// Commits and counts. `false` when the leadership has ended or outcomes are unknown: then everything is to be
    /// decided afresh.
    pub(crate) async fn commit(&mut self, leader: &Leader, writes: Vec<Write>) -> bool {
        self.count(leader.commit(writes).await)
    }

    /// Counts what has been committed, with the result of [`Tally::commit`].
    pub(crate) fn count(&mut self, outcomes: Result<Vec<WriteOutcome>, LeaderError>) -> bool {
        let Ok(outcomes) = outcomes else {
            return false;
        };
        for outcome in outcomes {
            match outcome {
                WriteOutcome::Committed(_) => self.committed += 1,
                WriteOutcome::Conflict(_) => self.conflicts += 1,
                WriteOutcome::Failed(error) => self.refuse(error),
            }
        }
        true
    }
}

/// Puts a key.
pub(crate) fn put(key: String, value: String) -> TxnOp {
    TxnOp::Put(Put {
        key,
        value: value.into(),
        lease: None,
    })
}

/// Writes a status, while its object exists.
pub(crate) fn status<K: Kind>(leader: &Leader, key: &ObjectKey, status: &K::Status) -> Write {
    let keyspace = leader.keyspace();
    Write {
        guards: vec![Compare::Exists(
            keyspace.build(&Key::Desired(K::PLURAL, key.clone())),
        )],
        ops: vec![put(
            keyspace.build(&Key::Actual(K::PLURAL, key.clone())),
            document::encode(status),
        )],
        context: format!("status of {} {key}", K::PLURAL),
    }
}

/// Whether an object is being deleted, its dependents first.
pub(crate) fn terminating<K: Kind>(view: &View<'_>, key: &ObjectKey, uid: &str) -> bool {
    let record = view.deletions(K::PLURAL).and_then(|t| t.get(key));
    record.is_some_and(|d| d.value.propagation_policy == Deletion::FOREGROUND && d.value.uid == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_contested_is_asked_for_again_and_what_is_due_sooner_stays_so() {
        let ms = Duration::from_millis;
        let mut tally = Tally::default();
        assert_eq!(tally.comes_back(Some(ms(500))), Some(ms(500)));
        tally.contested = true;
        assert_eq!(tally.comes_back(None), Some(CONTESTED));
        assert_eq!(tally.comes_back(Some(ms(500))), Some(CONTESTED));
        assert_eq!(tally.comes_back(Some(ms(30))), Some(ms(30)));
        tally.turned_away = true;
        assert_eq!(tally.comes_back(None), Some(SOON));
    }
}
