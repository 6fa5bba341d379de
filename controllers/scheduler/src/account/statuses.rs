//! The statuses of quotas, budgets, groups and reservations: written when they differ from what stands there, and of one
//! object not more often than twice a second, however fast pods come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use rustc_hash::FxHashMap;
use setpoint_apis::core::{ResourceQuota, ResourceQuotaStatus};
use setpoint_apis::meta::Condition;
use setpoint_apis::placement::{PodGroup, PodGroupPhase, PodGroupStatus, Reservation};
use setpoint_apis::policy::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_runtime::{Write, WriteOutcome};
use setpoint_store::{Compare, TxnOp};
use tokio::time::Instant;

use super::{Account, Planned, Then, Turn};
use crate::writes::put;

/// How long a status is left after it was written.
const REST: Duration = Duration::from_millis(500);
/// Statuses that are written in one turn.
const MOST: usize = 200;

/// Whose status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum StatusOf {
    Quota,
    Budget,
    Group,
    Reservation,
}

#[derive(Debug, Default)]
struct Slot {
    /// It is among those to be looked at, then.
    due: Option<Instant>,
    /// It was written, then.
    written: Option<Instant>,
    busy: bool,
    /// It changed while a write was under way.
    again: bool,
    /// Not looked at before the view has reached this revision.
    not_before: i64,
    failures: u32,
}

/// Which statuses are to be looked at, and when.
#[derive(Debug, Default)]
pub(crate) struct Statuses {
    slots: FxHashMap<(StatusOf, ObjectKey), Slot>,
    /// Since they were marked, not yet put into order.
    marked: BTreeSet<(StatusOf, ObjectKey)>,
    due: BTreeSet<(Instant, StatusOf, ObjectKey)>,
}

impl Statuses {
    /// Something changed that a status may say.
    pub(crate) fn mark(&mut self, of: StatusOf, key: &ObjectKey) {
        self.marked.insert((of, key.clone()));
    }

    /// When something is to be looked at.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, ..)| *at)
    }

    fn line_up(&mut self, now: Instant) {
        for (of, key) in std::mem::take(&mut self.marked) {
            let slot = self.slots.entry((of, key.clone())).or_default();
            if slot.busy {
                slot.again = true;
            } else if slot.due.is_none() {
                let at = slot.written.map_or(now, |w| (w + REST).max(now));
                slot.due = Some(at);
                self.due.insert((at, of, key));
            }
        }
    }

    fn take_due(&mut self, now: Instant) -> Option<(StatusOf, ObjectKey)> {
        let (at, ..) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (_, of, key) = self.due.pop_first()?;
        if let Some(slot) = self.slots.get_mut(&(of, key.clone())) {
            slot.due = None;
        }
        Some((of, key))
    }

    fn later(&mut self, of: StatusOf, key: &ObjectKey, at: Instant) {
        let slot = self.slots.entry((of, key.clone())).or_default();
        if slot.due.is_none() {
            slot.due = Some(at);
            self.due.insert((at, of, key.clone()));
        }
    }
}

/// What is to be done about a status.
enum Status {
    Same,
    Put(String),
    Delete,
}

impl Account {
    /// Plans the writes of statuses that are due.
    pub(super) fn write_statuses(&mut self, turn: &Turn<'_>, out: &mut Vec<Planned>) {
        for key in self.quotas.take_changed() {
            self.statuses.mark(StatusOf::Quota, &key);
        }
        for key in self.budgets.take_changed() {
            self.statuses.mark(StatusOf::Budget, &key);
        }
        for key in self.gangs.take_changed() {
            self.statuses.mark(StatusOf::Group, &key);
        }
        self.statuses.line_up(turn.tick);
        // A status says what has been counted, and not what is known to have changed since.
        if !self.dirty.is_empty() {
            return;
        }
        let mut most = MOST;
        while most > 0
            && let Some((of, key)) = self.statuses.take_due(turn.tick)
        {
            let slot = self.statuses.slots.entry((of, key.clone())).or_default();
            if slot.not_before > turn.revision() {
                self.statuses.later(of, &key, turn.tick + REST);
                continue;
            }
            most -= 1;
            out.extend(self.status(of, key, turn));
        }
    }

    /// A write of a status has an outcome.
    pub(super) fn status_finished(
        &mut self,
        of: StatusOf,
        key: &ObjectKey,
        outcome: &WriteOutcome,
        tick: Instant,
    ) {
        let slot = self.statuses.slots.entry((of, key.clone())).or_default();
        slot.busy = false;
        let again = std::mem::take(&mut slot.again);
        if let WriteOutcome::Committed(revision) = outcome {
            slot.written = Some(tick);
            slot.not_before = revision.0;
            slot.failures = 0;
            if again {
                self.statuses.mark(of, key);
            }
        } else {
            slot.failures = slot.failures.saturating_add(1);
            let failures = slot.failures;
            let delay = self.delay(outcome, failures, key);
            self.statuses.later(of, key, tick + delay);
        }
    }

    fn status(&mut self, of: StatusOf, key: ObjectKey, turn: &Turn<'_>) -> Option<Planned> {
        let (plural, created, status) = match of {
            StatusOf::Quota => self.quota_status(&key, turn),
            StatusOf::Budget => self.budget_status(&key, turn),
            StatusOf::Group => self.group_status(&key, turn),
            StatusOf::Reservation => self.reservation_status(&key, turn),
        };
        let desired = turn.keyspace.build(&Key::Desired(plural, key.clone()));
        let actual = turn.keyspace.build(&Key::Actual(plural, key.clone()));
        let (guard, op) = match status {
            Status::Same => {
                if created.is_none() {
                    self.statuses.slots.remove(&(of, key));
                }
                return None;
            }
            Status::Put(text) => (
                Compare::CreateRevision(desired, created.unwrap_or_default()),
                put(actual, text),
            ),
            Status::Delete => (Compare::absent(desired), TxnOp::Delete(actual)),
        };
        let slot = self.statuses.slots.entry((of, key.clone())).or_default();
        slot.busy = true;
        Some(Planned {
            write: Write {
                guards: vec![guard],
                ops: vec![op],
                context: format!("status of {plural} {key}"),
            },
            then: Then::Status { of, key },
        })
    }

    fn quota_status(&self, key: &ObjectKey, turn: &Turn<'_>) -> Judged {
        judged::<ResourceQuota>(key, turn, |quota, _, _| {
            let used = self.quotas.used(key)?;
            Some(ResourceQuotaStatus {
                hard: quota.value.spec.hard.clone(),
                used: used.into_iter().collect(),
            })
        })
    }

    fn budget_status(&self, key: &ObjectKey, turn: &Turn<'_>) -> Judged {
        let entry = turn.view.desired::<PodDisruptionBudget>().entry(key);
        let broken = entry.and_then(|e| e.invalid());
        judged::<PodDisruptionBudget>(key, turn, |budget, before, now| {
            let counts = self.budgets.counts(key)?;
            let said = before.map_or(&[][..], |b| &b.conditions);
            let broken = broken.map(|why| {
                let message = format!("{}; what it said before holds", why.message);
                condition(said, "Invalid", true, "DocumentInvalid", &message, now)
            });
            let (reason, message) = match counts {
                c if c.senseless => (
                    "SyncFailed",
                    "neither minAvailable nor maxUnavailable makes sense".to_owned(),
                ),
                c if c.allowed > 0 => ("SufficientPods", String::new()),
                c => (
                    "InsufficientPods",
                    format!(
                        "{} healthy pods are needed, there are {}",
                        c.desired, c.healthy
                    ),
                ),
            };
            Some(PodDisruptionBudgetStatus {
                observed_generation: Some(budget.version),
                disruptions_allowed: counts.allowed,
                current_healthy: counts.healthy,
                desired_healthy: counts.desired,
                expected_pods: counts.expected,
                conditions: [condition(
                    said,
                    "DisruptionAllowed",
                    counts.allowed > 0,
                    reason,
                    &message,
                    now,
                )]
                .into_iter()
                .chain(broken)
                .collect(),
                ..PodDisruptionBudgetStatus::default()
            })
        })
    }

    fn group_status(&self, key: &ObjectKey, turn: &Turn<'_>) -> Judged {
        judged::<PodGroup>(key, turn, |group, before, now| {
            let (counts, placed) = self.gangs.counts(key).unwrap_or_default();
            let min = usize::try_from(group.value.spec.min_member)
                .unwrap_or(1)
                .max(1);
            let (phase, reason, message) = if counts.bound >= min {
                (PodGroupPhase::Placed, "Placed", String::new())
            } else if counts.members < min && !placed {
                (
                    PodGroupPhase::Incomplete,
                    "NotEnoughMembers",
                    format!("{} of {min} members exist", counts.members),
                )
            } else if counts.binding > 0 {
                (
                    PodGroupPhase::Placing,
                    "Placing",
                    format!("{} of {min} members are bound", counts.bound),
                )
            } else {
                (
                    PodGroupPhase::Pending,
                    "DoesNotFit",
                    format!(
                        "{} of {min} members are bound; the others have no place together",
                        counts.bound
                    ),
                )
            };
            // A group that was placed once says so, for the next leader.
            let phase = if placed { PodGroupPhase::Placed } else { phase };
            let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
            Some(PodGroupStatus {
                observed_generation: Some(group.version),
                phase,
                members: count(counts.members),
                bound: count(counts.bound),
                conditions: vec![condition(
                    before.map_or(&[], |b| &b.conditions),
                    "Placed",
                    counts.bound >= min,
                    reason,
                    &message,
                    now,
                )],
            })
        })
    }

    fn reservation_status(&self, key: &ObjectKey, turn: &Turn<'_>) -> Judged {
        judged::<Reservation>(key, turn, |reservation, before, now| {
            self.reservation_says(key, reservation, before, now, turn.view)
        })
    }
}

/// The plural, the create revision of the document when there is one, and what is to be done about the status.
type Judged = (&'static str, Option<i64>, Status);

fn judged<K: Kind>(
    key: &ObjectKey,
    turn: &Turn<'_>,
    make: impl FnOnce(&setpoint_runtime::Stored<K>, Option<&K::Status>, Timestamp) -> Option<K::Status>,
) -> Judged {
    let entry = turn.view.desired::<K>().entry(key);
    let actual = turn.view.actual::<K>();
    let before = actual.get(key).map(|s| &s.value);
    let Some(entry) = entry else {
        let status = if actual.contains(key) {
            Status::Delete
        } else {
            Status::Same
        };
        return (K::PLURAL, None, status);
    };
    // What does not parse and never did keeps the status that it had.
    let Some(object) = entry.last_good() else {
        return (K::PLURAL, None, Status::Same);
    };
    let status = match make(object, before, turn.now.whole_seconds()) {
        Some(status) if before != Some(&status) => Status::Put(document::encode(&status)),
        _ => Status::Same,
    };
    (K::PLURAL, Some(object.create_revision), status)
}

/// A condition that keeps its time while it stays as it is.
pub(super) fn condition(
    before: &[Condition],
    type_: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Condition {
    let mut condition = Condition::new(type_, holds, reason, message, now);
    let same = before
        .iter()
        .find(|b| b.type_ == type_ && b.status == condition.status);
    if let Some(same) = same {
        condition.last_transition_time = same.last_transition_time;
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_status_is_looked_at_at_once_and_then_after_a_rest() {
        let mut s = Statuses::default();
        let key = ObjectKey::namespaced("default", "q");
        let start = Instant::now();
        s.mark(StatusOf::Quota, &key);
        s.mark(StatusOf::Quota, &key);
        s.line_up(start);
        assert_eq!(s.take_due(start), Some((StatusOf::Quota, key.clone())));
        assert_eq!(s.take_due(start), None);
        s.slots
            .get_mut(&(StatusOf::Quota, key.clone()))
            .unwrap()
            .written = Some(start);
        s.mark(StatusOf::Quota, &key);
        s.line_up(start);
        assert_eq!(s.take_due(start), None);
        assert_eq!(s.next_due(), Some(start + REST));
        assert_eq!(s.take_due(start + REST), Some((StatusOf::Quota, key)));
        assert_eq!(s.next_due(), None);
    }

    #[test]
    fn a_condition_keeps_its_time_while_it_stays_as_it_is() {
        let at = Timestamp::from_unix_seconds;
        let first = condition(&[], "X", true, "A", "", at(1));
        let same = condition(std::slice::from_ref(&first), "X", true, "B", "", at(2));
        assert_eq!(same.last_transition_time, Some(at(1)));
        let other = condition(&[same], "X", false, "B", "", at(3));
        assert_eq!(other.last_transition_time, Some(at(3)));
    }
}
