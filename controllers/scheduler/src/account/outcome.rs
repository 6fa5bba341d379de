//! What became of writes, and what is looked at again after a while.

use std::time::Duration;

use setpoint_apis::ObjectKey;
use setpoint_runtime::WriteOutcome;
use setpoint_runtime::backoff::Backoff;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Account, Retry, Tell, Then, Turn};
use crate::decide::WorkCopy;
use crate::writes::Effects;

/// The wait after a write whose guards did not hold: until the cache has caught up, mostly.
const AFTER_CONFLICT: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(2));
/// The wait after a write that the store refused.
const AFTER_FAILURE: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));

impl Account {
    /// Takes note of what became of a write. Returns what to tell people.
    pub(crate) fn finished(
        &mut self,
        then: Then,
        outcome: &WriteOutcome,
        tick: Instant,
    ) -> Option<(ObjectKey, Tell)> {
        self.writing -= 1;
        match then {
            Then::Pod {
                key,
                effects,
                binds,
                tell,
            } => {
                self.binding -= usize::from(binds);
                let committed = self.finished_pod(&key, effects, binds, outcome, tick);
                tell.filter(|_| committed).map(|t| (key, t))
            }
            Then::Status { of, key } => {
                self.status_finished(of, &key, outcome, tick);
                None
            }
            Then::Claim { item, effect } => {
                self.claim_finished(item, &effect, outcome, tick);
                None
            }
            Then::Content { place, written } => {
                match outcome {
                    WriteOutcome::Committed(revision) => {
                        self.contents.committed(&place, written, revision.0)
                    }
                    other => {
                        let failures = self.contents.failed(&place);
                        let delay = self.delay(other, failures, &place.1.object);
                        self.retry(tick + delay, Retry::Content(place));
                    }
                }
                None
            }
        }
    }

    fn finished_pod(
        &mut self,
        key: &ObjectKey,
        effects: Effects,
        binds: bool,
        outcome: &WriteOutcome,
        tick: Instant,
    ) -> bool {
        let mut state = self.pods.remove(key).unwrap_or_default();
        state.busy = false;
        let again = std::mem::take(&mut state.again);
        let committed = if let WriteOutcome::Committed(revision) = outcome {
            state.failures = 0;
            state.changed_at = revision.0;
            if effects.binding {
                state.not_before = revision.0;
            }
            state.work.retain(|w| {
                !effects.work_gone.contains(&w.node) && !effects.work_put.contains(&w.node)
            });
            // Nearly always one: a vector that grows by itself has room for four.
            state.work.reserve_exact(effects.work_put.len());
            state
                .work
                .extend(effects.work_put.into_iter().map(|node| WorkCopy {
                    node,
                    revision: revision.0,
                }));
            if let Some(recorded) = effects.recorded {
                state.recorded = recorded;
            }
            for (verb, by, revision) in &effects.intents_gone {
                self.intents.gone(key, *verb, by, *revision);
            }
            self.touch(key.clone());
            true
        } else {
            state.failures = state.failures.saturating_add(1);
            if binds {
                self.uncount(key);
            }
            // If it still wants a node it is lined up anew, with nothing left to wait for.
            if let Some(wish) = self.pending.remove(key) {
                self.quotas.wait_no_more(&wish.order);
            }
            let delay = self.delay(outcome, state.failures, key);
            self.retry(tick + delay, Retry::Pod(key.clone()));
            if again {
                self.touch(key.clone());
            }
            false
        };
        self.pods.insert(key.clone(), state);
        committed
    }

    pub(super) fn delay(
        &mut self,
        outcome: &WriteOutcome,
        failures: u32,
        object: &ObjectKey,
    ) -> Duration {
        match outcome {
            WriteOutcome::Failed(error) => {
                warn!(%object, failures, error = error as &dyn std::error::Error, "a write was refused; trying again");
                AFTER_FAILURE.delay(failures, &mut self.rng)
            }
            _ => {
                debug!(%object, failures, "a guard did not hold; deciding again");
                AFTER_CONFLICT.delay(failures, &mut self.rng)
            }
        }
    }

    /// What has become due.
    pub(super) fn wake(&mut self, turn: &Turn<'_>) {
        let later = self.deferred.split_off(&(turn.revision() + 1));
        for key in std::mem::replace(&mut self.deferred, later)
            .into_values()
            .flatten()
        {
            self.touch(key);
        }
        for (group, attempt) in self.gangs.take_found() {
            self.set_group_deadline(turn, group, attempt);
        }
        while let Some(entry) = self.retries.first_entry()
            && entry.key().0 <= turn.tick
        {
            match entry.remove() {
                Retry::Pod(key) => self.touch(key),
                Retry::Content(place) => self.contents.touch(place),
                Retry::Claim(item) => self.tombstones.touch(item),
                Retry::Group(group) => {
                    if self.group_reasons.is_over(&group) {
                        self.gangs.retry(&group);
                    }
                }
                Retry::GroupRested(group) => self.gangs.rest_is_over(&group),
                Retry::GroupDeadline(group, attempt) => {
                    if let Some(late) = self.gangs.overdue(&group, attempt) {
                        self.take_apart(late);
                        self.set_group_deadline(turn, group, attempt);
                    }
                }
                Retry::Reservation(key) => {
                    self.reservations.timer_is_over(&key);
                    self.dirty_reservations.insert(key);
                }
            }
        }
    }

    pub(super) fn retry(&mut self, at: Instant, retry: Retry) {
        self.retries.insert((at, self.next_retry), retry);
        self.next_retry += 1;
    }
}
