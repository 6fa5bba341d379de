//! When objects were created. etcd keeps revisions and no times, so the time of a revision is looked up: every write of
//! the command line also writes the time under one key, and reading that key as of a revision tells the last such
//! write before it. Records with times of their own (bindings, claims, sessions) are further marks.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream;
use setpoint_apis::Key;
use setpoint_apis::time::Timestamp;
use setpoint_store::{KeyValue, Put, RangeRequest, Revision, StoreError, TxnOp};

use super::Client;

/// The key under `meta/` that holds the time of the last write through the command line.
const CLOCK: &str = "clock";

/// How many revisions are looked up for one listing; the others take the nearest mark.
const LOOKUPS: usize = 64;

/// What is known of which revision was written when.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    marks: BTreeMap<i64, Timestamp>,
}

impl Timeline {
    /// Adds a mark.
    pub(super) fn mark(&mut self, revision: i64, time: Timestamp) {
        self.marks.insert(revision, time);
    }

    /// The time of a revision: that of the nearest mark.
    pub(super) fn at(&self, revision: i64) -> Option<Timestamp> {
        let before = self.marks.range(..=revision).next_back();
        let after = self.marks.range(revision..).next();
        match (before, after) {
            (Some((b, time)), Some((a, later))) => Some(if revision - b <= a - revision {
                *time
            } else {
                *later
            }),
            (one, other) => one.or(other).map(|(_, time)| *time),
        }
    }
}

impl Client {
    /// The operation that notes the time of a write; goes into the write's transaction.
    pub(crate) fn clock_put(&self) -> TxnOp {
        TxnOp::Put(Put {
            key: self.key(&Key::Meta(CLOCK)),
            value: format!("time: {}\n", self.now()).into(),
            lease: None,
        })
    }

    /// Looks up revisions that have no mark. Failures leave ages unknown, which is no reason to fail a listing.
    pub(super) async fn look_up(
        &self,
        timeline: &mut Timeline,
        revisions: impl IntoIterator<Item = i64>,
    ) {
        let mut missing: Vec<i64> = revisions
            .into_iter()
            .filter(|r| !timeline.marks.contains_key(r))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        let step = missing.len().div_ceil(LOOKUPS).max(1);
        let picked: Vec<i64> = missing.into_iter().step_by(step).collect();
        let answers: Vec<_> = stream::iter(picked)
            .map(|r| self.clock_at(r))
            .buffer_unordered(16)
            .collect()
            .await;
        let mut oldest = None;
        for answer in answers {
            match answer {
                Ok(Some(kv)) => note(timeline, &kv),
                Err(StoreError::Compacted {
                    compact_revision, ..
                }) if compact_revision > 0 => oldest = Some(compact_revision),
                Ok(None) | Err(_) => {}
            }
        }
        // Older than the history that is left: at least as old as its beginning.
        if let Some(oldest) = oldest
            && let Ok(Some(kv)) = self.clock_at(oldest).await
        {
            note(timeline, &kv);
        }
    }

    async fn clock_at(&self, revision: i64) -> Result<Option<KeyValue>, StoreError> {
        let key = self.key(&Key::Meta(CLOCK));
        let request = RangeRequest {
            end: format!("{key}\0"),
            start: key,
            limit: 1,
            revision: Some(Revision(revision)),
            ..RangeRequest::default()
        };
        Ok(self.store().range(request).await?.kvs.into_iter().next())
    }
}

fn note(timeline: &mut Timeline, kv: &KeyValue) {
    let text = std::str::from_utf8(&kv.value).unwrap_or_default();
    if let Some(time) = text
        .strip_prefix("time: ")
        .and_then(|t| t.trim().parse().ok())
    {
        timeline.mark(kv.mod_revision, time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_has_the_time_of_the_nearest_mark() {
        let mut t = Timeline::default();
        assert_eq!(t.at(5), None);
        let time = Timestamp::from_unix_seconds;
        t.mark(10, time(100));
        t.mark(20, time(200));
        for (revision, seconds) in [
            (1, 100),
            (10, 100),
            (13, 100),
            (17, 200),
            (20, 200),
            (99, 200),
        ] {
            assert_eq!(t.at(revision), Some(time(seconds)), "{revision}");
        }
    }
}
