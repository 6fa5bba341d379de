//! When documents were created. etcd keeps no times: the record under `meta/clock` says which revision was written
//! when ([`setpoint_apis::timeline`]). One read of it dates a whole listing, and whoever writes adds to it.

use anyhow::{Context as _, Result};
use setpoint_apis::Key;
use setpoint_apis::timeline::{Curve, KEY, Timeline};
use setpoint_store::{Put, TxnOp};

use super::Client;

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
    pub(super) async fn curve(&self) -> Curve {
        let Ok((kv, revision)) = self.get(&Key::Meta(KEY)).await else {
            return Curve::default();
        };
        let mut timeline = kv.map_or_else(Timeline::default, |kv| {
            Timeline::parse(&kv.value, kv.mod_revision)
        });
        timeline.insert_present(revision.0, self.now());
        timeline.curve()
    }
}
