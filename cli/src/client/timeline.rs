//! When documents were created. etcd keeps no times: the record under `meta/clock` says which revision was written
//! when ([`setpoint_apis::timeline`]). One read of it dates a whole listing, and whoever writes adds to it.

use anyhow::{Context as _, Result};
use setpoint_apis::Key;
use setpoint_apis::Timestamp;
use setpoint_apis::timeline::{Curve, KEY, Timeline};
use setpoint_store::{Put, TxnOp};

use super::Client;

/// What dates documents.
#[derive(Debug, Default)]
pub(super) struct Dates {
    curve: Curve,
    /// The newest revision whose time is recorded. What is estimated after it supposes that somebody keeps the record,
    /// which nobody does while nothing changes.
    recorded: i64,
}

impl Dates {
    /// When a revision was written; `None` when nothing tells. `known` is the earliest time at which the object is known
    /// to have been there: where the record leaves that open, the object was created then rather than at any time
    /// between two samples, for what is created is looked at in a moment.
    pub(super) fn created(&self, revision: i64, known: Option<Timestamp>) -> Option<Timestamp> {
        let (estimate, known) = match (self.curve.at(revision), known) {
            (Some(estimate), Some(known)) => (estimate, known),
            (estimate, known) => return estimate.map(|e| e.time).or(known),
        };
        let after = estimate.earliest.is_none_or(|at| at <= known);
        let before = revision > self.recorded || estimate.latest.is_none_or(|at| known <= at);
        Some(if after && before {
            known
        } else {
            estimate.time.min(known)
        })
    }
}

impl Client {
    /// The record as it is stored, to be written on with [`Client::clock_put`].
    ///
    /// # Errors
    /// When the store does not answer: then nothing may be written in place of the record.
    pub(crate) async fn timeline(&self) -> Result<Timeline> {
        let (kv, _) = self
            .get(&Key::Meta(KEY))
            .await
            .context("reading the record of times")?;
        Ok(kv.map_or_else(Timeline::default, |kv| {
            Timeline::parse(&kv.value, kv.mod_revision)
        }))
    }

    /// The operation that notes the time of a write; goes into the write's transaction. It has no guard, so that two
    /// writers do not stand in each other's way: the later one may drop the sample of the one before, and what was
    /// written then is dated from its neighbours.
    pub(crate) fn clock_put(&self, timeline: &Timeline) -> TxnOp {
        TxnOp::Put(Put {
            key: self.key(&Key::Meta(KEY)),
            value: timeline.encode(self.now()).into(),
            lease: None,
        })
    }

    /// What dates revisions. A failure leaves ages unknown, which is no reason to fail a listing.
    pub(super) async fn dates(&self) -> Dates {
        let Ok((kv, revision)) = self.get(&Key::Meta(KEY)).await else {
            return Dates::default();
        };
        let recorded = kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let mut timeline = kv.map_or_else(Timeline::default, |kv| {
            Timeline::parse(&kv.value, kv.mod_revision)
        });
        timeline.insert_present(revision.0, self.now());
        Dates {
            curve: timeline.curve(),
            recorded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_700_000_000 + secs)
    }

    /// Samples at second 0 and 100, and the present at second 1000.
    fn dates() -> Dates {
        let mut timeline = Timeline::default();
        timeline.insert(10, at(0));
        timeline.insert(20, at(100));
        timeline.insert_present(30, at(1_000));
        Dates {
            curve: timeline.curve(),
            recorded: 20,
        }
    }

    #[test]
    fn what_an_object_says_itself_dates_it_where_the_record_leaves_it_open() {
        let created = |revision, known: Option<i64>| dates().created(revision, known.map(at));
        assert_eq!(created(15, None), Some(at(50)));
        assert_eq!(created(15, Some(80)), Some(at(80)));
        // Known for sure to be older than what it says.
        assert_eq!(created(15, Some(101)), Some(at(50)));
        // Another clock: it was there before.
        assert_eq!(created(15, Some(-1)), Some(at(-1)));
        assert_eq!(created(20, Some(500)), Some(at(100)));
        // After an idle time, when nobody has kept the record.
        assert_eq!(created(29, Some(990)), Some(at(990)));
        assert_eq!(Dates::default().created(1, Some(at(7))), Some(at(7)));
        assert_eq!(Dates::default().created(1, None), None);
    }
}
