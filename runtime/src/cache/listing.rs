//! A listing in progress: decoded aside, page by page, and made visible in one step.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use setpoint_store::{KeyValue, Revision};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;
use tracing::info;

use super::Inner;
use super::state::Place;
use super::table::Decoded;

/// Pages of fewer keys are decoded where they arrive: handing them over would take longer.
const WORTH_A_THREAD: usize = 64;

/// A row of a listing; `None` when the cache has it already.
type Row = (Place, Option<Decoded>);

/// A listing in progress: decoded, not yet visible.
///
/// Pages are decoded on other threads while the next ones are being read, and put together in the order in which they
/// came. On a runtime of one thread each is decoded as it comes, so that a run can be repeated step by step.
#[derive(Default)]
pub(super) struct Listing {
    rows: Vec<Row>,
    pending: VecDeque<JoinHandle<Vec<Row>>>,
}

/// The runtime is ending, and with it whatever was under way.
#[derive(Debug)]
pub(super) struct Ending;

impl Listing {
    /// Takes in a page. Waits while as many pages as there are processors are being decoded, so that what is held
    /// undecoded is bounded.
    pub(super) async fn page(
        &mut self,
        inner: &Arc<Inner>,
        kvs: Vec<KeyValue>,
    ) -> Result<(), Ending> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let parallel = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        if !parallel || kvs.len() < WORTH_A_THREAD {
            self.collect(0).await?;
            self.rows.extend(inner.decode_page(kvs));
            return Ok(());
        }
        self.collect(threads - 1).await?;
        let inner = Arc::clone(inner);
        self.pending
            .push_back(tokio::task::spawn_blocking(move || inner.decode_page(kvs)));
        Ok(())
    }

    /// Everything that was listed, in order.
    pub(super) async fn finish(mut self) -> Result<Vec<Row>, Ending> {
        self.collect(0).await?;
        Ok(self.rows)
    }

    /// Waits until no more than `most` pages are being decoded.
    async fn collect(&mut self, most: usize) -> Result<(), Ending> {
        while self.pending.len() > most
            && let Some(page) = self.pending.pop_front()
        {
            match page.await {
                Ok(rows) => self.rows.extend(rows),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(Ending),
                },
            }
        }
        Ok(())
    }
}

impl Inner {
    fn decode_page(&self, kvs: Vec<KeyValue>) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::with_capacity(kvs.len());
        for kv in kvs {
            let Some(mut place) = self.place(&kv.key) else {
                continue;
            };
            if let Some((before, _)) = rows.last() {
                place.share_namespace(before);
            }
            // What the cache has already at this revision is not decoded again.
            let (known, decoder) = {
                let state = self.state.read();
                let known = state
                    .table(&place)
                    .and_then(|t| t.mod_revision(place.row()))
                    == Some(kv.mod_revision);
                (known, state.decoder(&place))
            };
            let decoded = (!known).then(|| decoder.decode(place.row(), &kv));
            rows.push((place, decoded));
        }
        rows
    }

    /// Makes a listing visible in one step, as the difference to what was there: no gap, no flicker.
    pub(super) fn list_done(&self, rows: Vec<Row>, revision: Revision) {
        let mut changed = Vec::new();
        let mut state = self.state.write();
        let before = state.places();
        if !before.is_empty() {
            let named: FxHashSet<&Place> = rows.iter().map(|(place, _)| place).collect();
            for place in before.iter().filter(|place| !named.contains(place)) {
                if state.delete(place) {
                    changed.push(place.state_key());
                }
            }
        }
        for (place, decoded) in rows {
            if let Some(decoded) = decoded
                && state.table_mut(&place).put(place.row(), decoded)
            {
                changed.push(place.state_key());
            }
        }
        state.revision = state.revision.max(revision.0);
        self.publish(revision, &changed, true);
        drop(state);
        info!(
            revision = revision.0,
            changed = changed.len(),
            "cache listed"
        );
    }
}
