//! The frame of a pass over one object, whatever its kind: keep a distance to the pass before, look, decide; and report
//! not more often than need be. What is looked at, decided and carried out is the kind's own.

use std::fmt::Display;

use setpoint_apis::{Kind, ObjectKey, Timestamp};
use setpoint_runtime::events::Recorder;
use setpoint_runtime::{Action, Clock, Leader, View, Write};
use tokio::time::Instant;
use tracing::debug;

use crate::manager::Error;
use crate::memory::Memory;
use crate::standing::{self, Conditions};
use crate::writes::{self, Tally};

/// All objects of a kind.
pub(crate) fn all<K: Kind>(view: &View<'_>) -> Vec<ObjectKey> {
    let entries = view.desired::<K>().entries();
    entries.map(|(key, _)| key.clone()).collect()
}

/// Looks at an object and decides. `observe` gives nothing when the object does not exist, `pods` says how much there was
/// to look at.
///
/// # Errors
/// What to do instead when there is nothing to carry out: it is too soon, or the object is gone.
pub(crate) fn plan<T: Default, S, P: Display>(
    memory: &Memory<T>,
    clock: &Clock,
    key: &ObjectKey,
    observe: impl FnOnce() -> Option<S>,
    pods: impl FnOnce(&S) -> usize,
    decide: impl FnOnce(&S, Timestamp) -> P,
) -> Result<(S, P), Action> {
    let now = Instant::now();
    if let Some(wait) = memory.with(key, |memo| memo.too_soon(now)) {
        return Err(Action::requeue(wait));
    }
    let Some(seen) = observe() else {
        memory.forget(key);
        return Err(Action::await_change());
    };
    memory.with(key, |memo| memo.pass(now, pods(&seen)));
    let plan = decide(&seen, clock.now());
    debug!(object = %key, %plan, "decided");
    Ok((seen, plan))
}

/// The write of a status that is due; otherwise the action comes back to it.
pub(crate) fn status<K: Kind, T: Default>(
    memory: &Memory<T>,
    leader: &Leader,
    key: &ObjectKey,
    status: Option<&K::Status>,
    action: &mut Action,
) -> Option<Write> {
    let status = status?;
    match memory.with(key, |memo| memo.status_too_soon(Instant::now())) {
        Some(wait) => {
            action.requeue_after = Some(action.requeue_after.map_or(wait, |d| d.min(wait)));
            None
        }
        None => Some(writes::status::<K>(leader, key, status)),
    }
}

/// An object, and what its status said and is to say.
pub(crate) struct Report<'a, K: Kind> {
    pub(crate) key: &'a ObjectKey,
    pub(crate) uid: &'a str,
    pub(crate) before: Option<&'a K::Status>,
    pub(crate) now: Option<&'a K::Status>,
}

/// The end of a pass: writes the status that is due, tells people what is new in it, and says when to come back.
///
/// # Errors
/// When the store has refused something in this pass.
pub(crate) async fn finish<K: Kind, T: Default>(
    (leader, recorder): (&Leader, &Recorder),
    memory: &Memory<T>,
    report: &Report<'_, K>,
    mut tally: Tally,
    mut action: Action,
) -> Result<Action, Error>
where
    K::Status: Conditions,
{
    let refused = tally.refused;
    let write = status::<K, _>(memory, leader, report.key, report.now, &mut action);
    if let Some(write) = write {
        if !tally.commit(leader, vec![write]).await {
            return Ok(Action::requeue(writes::SOON));
        }
        if tally.last_committed {
            standing::tell::<K>(recorder, report.key, report.uid, report.before, report.now);
        }
    }
    tally.catch_up(leader).await;
    action.requeue_after = tally.comes_back(action.requeue_after);
    match tally.first_error {
        Some(source) => Err(Error::Refused {
            refused: refused.max(1),
            source,
        }),
        None => Ok(action),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use setpoint_apis::apps::{DaemonSet, DaemonSetStatus, RollbackRecord};
    use setpoint_apis::core::Event;
    use setpoint_apis::document;
    use setpoint_store::RangeRequest;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::led::Led;
    use crate::memory::STATUS_INTERVAL;

    /// What people were told, each as often as they were.
    async fn told(led: &Led) -> Vec<String> {
        // The recorder has written by then.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let range = led.leader.keyspace().all_events();
        let request = RangeRequest {
            start: range.start,
            end: range.end,
            ..RangeRequest::default()
        };
        let mut told = Vec::new();
        for kv in led.store.range(request).await.unwrap().kvs {
            let event: Event = document::decode_value(&kv.value).unwrap();
            let times = usize::try_from(event.count.unwrap_or(1)).unwrap();
            told.extend(std::iter::repeat_n(event.reason.unwrap_or_default(), times));
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn that_a_rollout_is_taken_back_is_told_with_the_status_that_records_it_and_once() {
        let led = Led::start().await;
        let clock = Clock::system();
        let (recorder, driver) = Recorder::new(
            led.store.clone(),
            led.commits.clone(),
            led.leader.keyspace().clone(),
            clock.clone(),
            "workloads",
            None,
            CancellationToken::new(),
        );
        tokio::spawn(driver);
        let key = ObjectKey::namespaced("default", "ds");
        let text = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: ds}\n";
        led.put_desired::<DaemonSet>(&key, text).await;
        let running = DaemonSetStatus {
            desired_number_scheduled: 3,
            ..DaemonSetStatus::default()
        };
        let back = DaemonSetStatus {
            rollback: Some(RollbackRecord {
                failed_revision: "ds-b".into(),
                to_revision: "ds-a".into(),
                reason: "PodsCrash".into(),
                message: "one does".into(),
                at: clock.now(),
            }),
            ..running.clone()
        };
        let memory = Memory::<()>::default();
        let pass = async |before: Option<&DaemonSetStatus>, now: &DaemonSetStatus| {
            let report = Report::<DaemonSet> {
                key: &key,
                uid: "u",
                before,
                now: Some(now),
            };
            let by = (&led.leader, &recorder);
            let action = Action::await_change();
            let done = finish(by, &memory, &report, Tally::default(), action).await;
            done.unwrap().requeue_after
        };
        assert_eq!(pass(None, &running).await, None);
        // The next pass decides the same again, as long as the status has to wait.
        for _ in 0..3 {
            assert_eq!(pass(Some(&running), &back).await, Some(STATUS_INTERVAL));
        }
        tokio::time::advance(STATUS_INTERVAL).await;
        assert_eq!(pass(Some(&running), &back).await, None);
        tokio::time::advance(STATUS_INTERVAL).await;
        assert_eq!(pass(Some(&back), &back).await, None);
        assert_eq!(told(&led).await, ["RolledBack"]);
    }
}
