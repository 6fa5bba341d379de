//! Keeps the record of times, from which documents are dated, while others than the command line write documents
//! ([`setpoint_apis::timeline`]).
//!
//! # Promises
//! - When documents have changed, the record says so within a moment, or within [`INTERVAL`] of the last time.
//! - Only changes of documents lead to a write. The record is none, so a write never leads to the next one, and a cluster
//!   in which nobody changes documents is not written to.
//! - What the command line has noted already is not noted again, and what it notes meanwhile is not lost.

use std::time::Duration;

use setpoint_apis::timeline::{INTERVAL, KEY, Timeline};
use setpoint_apis::{Key, Timestamp};
use setpoint_runtime::cache::StateKey;
use setpoint_runtime::{Clock, Leader, LeaderError, Write, WriteOutcome};
use setpoint_store::{Compare, Revision};
use tokio::time::Instant;
use tracing::debug;

/// How long documents stay as they are before that is noted: a burst of changes is one sample at its beginning and one
/// at its end, whose times are those of the changes.
const QUIET: Duration = Duration::from_secs(2);

/// How many writes may follow each other faster than one in [`INTERVAL`], after a time without any: so that what
/// somebody does now and then is noted at once.
const BURST: u32 = 4;

/// A revision of the cache, and when it was seen: what it holds was written by then.
type Sample = (Revision, Timestamp);

/// What was seen and is not in the record yet.
#[derive(Debug)]
struct Unnoted {
    first: Sample,
    last: Sample,
    first_at: Instant,
    last_at: Instant,
}

/// Decides when to write, and what.
#[derive(Debug)]
struct Keeper {
    /// Where the cache stood when this began: what the former leader saw and did not note is older.
    before: Option<Sample>,
    unnoted: Option<Unnoted>,
    /// When the next write would be due if writes came at even distances.
    even: Option<Instant>,
    /// No write before this: the last one did not succeed.
    pause_until: Option<Instant>,
}

/// Keeps the record until the leadership is lost.
pub(crate) async fn keep(leader: &Leader, clock: &Clock) {
    let mut subscription = leader
        .cache()
        .subscribe(|key| matches!(key, StateKey::Desired(..)));
    let mut keeper = Keeper::new();
    loop {
        let due = keeper.due();
        tokio::select! {
            biased;
            () = leader.lost().cancelled() => return,
            changes = subscription.next() => {
                let seen = (leader.cache().revision(), clock.now());
                if changes.resync {
                    keeper.begins(seen);
                } else {
                    keeper.saw(seen, Instant::now());
                }
            }
            () = sleep_until(due) => {
                let done = note(leader, clock, &keeper).await;
                let now = Instant::now();
                match done {
                    Noted::Written => keeper.wrote(now),
                    Noted::Already => keeper.unnoted = None,
                    Noted::Overtaken => keeper.pause_until = Some(now + QUIET),
                    Noted::Failed => keeper.pause_until = Some(now + INTERVAL),
                    Noted::Deposed => return,
                }
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What became of an attempt to note what was seen.
enum Noted {
    Written,
    /// The record is newer than what was seen.
    Already,
    /// Somebody else wrote it at the same time.
    Overtaken,
    Failed,
    Deposed,
}

async fn note(leader: &Leader, clock: &Clock, keeper: &Keeper) -> Noted {
    let key = leader.keyspace().build(&Key::Meta(KEY));
    let (stored, _) = match leader.store().get(&key).await {
        Ok(read) => read,
        Err(error) => {
            debug!(
                error = &error as &dyn std::error::Error,
                "the record of times was not read; trying again later"
            );
            return Noted::Failed;
        }
    };
    let seen = stored.as_ref().map_or(0, |kv| kv.mod_revision);
    let mut timeline = stored.map_or_else(Timeline::default, |kv| {
        Timeline::parse(&kv.value, kv.mod_revision)
    });
    if !keeper.add_to(&mut timeline, Revision(seen)) {
        return Noted::Already;
    }
    let write = Write::put(
        "the record of times",
        key.clone(),
        timeline.encode(clock.now()),
    )
    .when(Compare::ModRevision(key, seen));
    // Nobody decides from it, so the cache need not have seen it.
    match leader.commit_only(vec![write]).await.as_deref() {
        Ok([WriteOutcome::Committed(_)]) => Noted::Written,
        Ok([WriteOutcome::Conflict(_)]) | Err(LeaderError::Refenced { .. }) => Noted::Overtaken,
        Ok(outcomes) => {
            debug!(
                ?outcomes,
                "the record of times was not written; trying again later"
            );
            Noted::Failed
        }
        Err(LeaderError::Deposed { .. }) => Noted::Deposed,
    }
}

impl Keeper {
    fn new() -> Self {
        Self {
            before: None,
            unnoted: None,
            even: None,
            pause_until: None,
        }
    }

    fn begins(&mut self, seen: Sample) {
        self.before = Some(seen);
    }

    fn saw(&mut self, seen: Sample, at: Instant) {
        match &mut self.unnoted {
            Some(unnoted) => (unnoted.last, unnoted.last_at) = (seen, at),
            none => {
                *none = Some(Unnoted {
                    first: seen,
                    last: seen,
                    first_at: at,
                    last_at: at,
                });
            }
        }
    }

    /// When to write; `None` while there is nothing to note.
    fn due(&self) -> Option<Instant> {
        let unnoted = self.unnoted.as_ref()?;
        let wanted = (unnoted.last_at + QUIET).min(unnoted.first_at + INTERVAL);
        let allowed = self
            .even
            .and_then(|even| even.checked_sub(INTERVAL * (BURST - 1)));
        let due = [allowed, self.pause_until].into_iter().flatten();
        Some(due.fold(wanted, Instant::max))
    }

    /// Adds what was seen to a record, `false` when that was written later than all of it.
    fn add_to(&self, timeline: &mut Timeline, written: Revision) -> bool {
        let Some(unnoted) = &self.unnoted else {
            return false;
        };
        if unnoted.last.0 <= written {
            return false;
        }
        let samples = [self.before, Some(unnoted.first), Some(unnoted.last)];
        for (revision, time) in samples.into_iter().flatten() {
            timeline.insert(revision.0, time);
        }
        true
    }

    fn wrote(&mut self, now: Instant) {
        self.before = None;
        self.unnoted = None;
        self.pause_until = None;
        self.even = Some(self.even.map_or(now, |even| even.max(now)) + INTERVAL);
    }
}

#[cfg(test)]
mod tests;
