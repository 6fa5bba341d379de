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
