//! Handing plans to the store: the writes that both controllers make, and what becomes of them.

use std::time::Duration;

use setpoint_apis::records::Deletion;
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_runtime::{Leader, LeaderError, View, Write, WriteOutcome};
use setpoint_store::{Compare, Put, Revision, StoreError, TxnOp};

/// When to decide again after a conflict, once what caused it is in the cache.
pub(crate) const SOON: Duration = Duration::from_millis(20);

/// How long a pass that met a conflict waits for the cache to show what caused it. A cache that is level stays below
/// the revision of a conflict when events were written since, so this is also what such a pass waits for nothing.
const CATCH_UP: Duration = Duration::from_millis(250);

/// When to ask again for what others were about to take.
pub(crate) const CONTESTED: Duration = Duration::from_millis(100);

/// What became of writes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Written.
    pub(crate) committed: usize,
    /// Whether the last of all was written.
    pub(crate) last_committed: bool,
    /// A guard did not hold.
    pub(crate) conflicts: usize,
    /// The newest revision at which one did not.
    conflict_at: Option<Revision>,
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
            self.last_committed = matches!(outcome, WriteOutcome::Committed(_));
            match outcome {
                WriteOutcome::Committed(_) => self.committed += 1,
                WriteOutcome::Conflict(at) => {
                    self.conflicts += 1;
                    self.conflict_at = self.conflict_at.max(Some(at));
                }
                WriteOutcome::Failed(error) => self.refuse(error),
            }
        }
        true
    }

    /// Lets the cache catch up with what caused conflicts, if there were any: to decide again on the same snapshot would
    /// meet the same ones.
    pub(crate) async fn catch_up(&self, leader: &Leader) {
        if let Some(at) = self.conflict_at {
            leader.see(at, CATCH_UP).await;
        }
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

/// Whether nothing is made for an object now: it is being deleted, its dependents first; or a former object of its name is
/// gone, whose dependents are still being let go. The collector ends the latter soon, and then they are there to be taken
/// on, where new ones would have been made besides.
pub(crate) fn terminating<K: Kind>(view: &View<'_>, key: &ObjectKey, uid: &str) -> bool {
    let record = view.deletions(K::PLURAL).and_then(|t| t.get(key));
    record.is_some_and(|d| d.value.propagation_policy == Deletion::FOREGROUND || d.value.uid != uid)
}

#[cfg(test)]
mod tests {
    use setpoint_apis::core::ConfigMap;

    use super::*;
    use crate::led::Led;

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

    #[test]
    fn of_several_outcomes_the_newest_conflict_and_the_last_one_count() {
        let mut tally = Tally::default();
        let at = |n: i64| WriteOutcome::Conflict(Revision(n));
        let written = WriteOutcome::Committed(Revision(9));
        assert!(tally.count(Ok(vec![at(5), at(7), at(6), written.clone()])));
        assert_eq!((tally.conflicts, tally.conflict_at), (3, Some(Revision(7))));
        assert!(tally.last_committed);
        assert!(tally.count(Ok(vec![written, at(3)])));
        assert_eq!(tally.conflict_at, Some(Revision(7)));
        assert!(!tally.last_committed);
    }

    #[tokio::test(start_paused = true)]
    async fn the_cause_of_a_conflict_is_waited_for_and_what_no_cache_follows_not_for_long() {
        let led = Led::start().await;
        let key = led.desired::<ConfigMap>(&ObjectKey::namespaced("default", "a"));
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        let write = || Write {
            guards: vec![Compare::absent(key.clone())],
            ops: vec![put(key.clone(), text.to_owned())],
            context: "a test".to_owned(),
        };
        let theirs = led.put(key.clone(), text).await;
        let mut tally = Tally::default();
        assert!(tally.commit(&led.leader, vec![write()]).await);
        assert_eq!((tally.conflicts, tally.conflict_at), (1, Some(theirs)));
        let begin = tokio::time::Instant::now();
        tally.catch_up(&led.leader).await;
        assert!(led.leader.cache().revision() >= theirs);
        assert!(begin.elapsed() < CATCH_UP);

        led.put("/setpoint/events/default/x".into(), "x: 1\n").await;
        let mut tally = Tally::default();
        assert!(tally.commit(&led.leader, vec![write()]).await);
        let begin = tokio::time::Instant::now();
        tally.catch_up(&led.leader).await;
        assert_eq!(begin.elapsed(), CATCH_UP);
        let begin = tokio::time::Instant::now();
        Tally::default().catch_up(&led.leader).await;
        assert!(begin.elapsed().is_zero(), "nothing was in the way");
    }
}
