//! The slow pass over this node's own records, which nobody else writes: what was damaged or deleted all the same is
//! written again. A watch of them would notice at once, and would bring each of the agent's own writes back to it; a read
//! of the node's own small range now and then costs less, and no write when all is well.

use std::collections::BTreeMap;
use std::time::Duration;

use setpoint_apis::records::NodeStatusRecord;
use setpoint_apis::{Key, document};
use setpoint_store::StoreError;
use tokio::time::Instant;
use tracing::warn;

use super::NodeLoop;
use crate::node::session::Session;
use crate::node::state::{Phase, is_current};

/// When to look over the records.
pub(super) struct Rounds {
    every: Duration,
    pub(super) next: Instant,
    rng: fastrand::Rng,
}

impl Rounds {
    /// `seed`: a generator of its own, so that nodes that began together do not read together for ever.
    pub(super) fn new(every: Duration, seed: i64) -> Self {
        let rng = fastrand::Rng::with_seed(seed.unsigned_abs());
        let mut rounds = Self {
            every,
            next: Instant::now(),
            rng,
        };
        rounds.done();
        rounds
    }

    /// The next one is due after the period, a quarter more or less.
    pub(super) fn done(&mut self) {
        self.next = Instant::now() + self.every.mul_f64(0.75 + self.rng.f64() / 2.0);
    }
}

impl NodeLoop {
    /// Compares what the store has with what it was told. The next plan writes what differs. To be called while no write
    /// is under way and nothing is in doubt: only then is a difference somebody else's. Returns what
    /// [`NodeLoop::report_node`] does.
    pub(super) async fn look_over(&mut self, session: &Session) -> bool {
        if let Err(error) = self.compare_records().await {
            warn!(
                node = self.parts.config.node,
                error = &error as &dyn std::error::Error,
                "this node's records could not be looked over; the next pass tries again"
            );
            return false;
        }
        self.reported.is_none() && self.report_node(session).await
    }

    async fn compare_records(&mut self) -> Result<(), StoreError> {
        let told: BTreeMap<_, _> = self
            .state
            .locals
            .iter()
            .filter(|(_, local)| local.phase != Phase::Gone && local.written.is_some())
            .map(|(key, local)| (key.clone(), local.written.clone()))
            .collect();
        self.reread().await?;
        for (key, written) in told {
            let Some(local) = self.state.locals.get(&key) else {
                continue;
            };
            let restorable =
                local.written.is_some() || is_current(self.state.work.get(&key), local);
            if local.written != written && restorable {
                self.repairs += 1;
                warn!(object = %key, repairs = self.repairs, "somebody else changed or deleted the record of a pod; writing it again");
            }
        }
        if let Some(reported) = &self.reported {
            let node = self.parts.config.node.clone();
            let key = self.parts.keyspace.build(&Key::NodeStatus(&node));
            let (stored, _) = self.parts.store.get(&key).await?;
            let stored =
                stored.and_then(|kv| document::decode_value::<NodeStatusRecord>(&kv.value).ok());
            if stored.as_ref() != Some(reported) {
                self.repairs += 1;
                warn!(
                    node,
                    repairs = self.repairs,
                    "somebody else changed or deleted the status of this node; writing it again"
                );
                self.reported = None;
            }
        }
        Ok(())
    }
}
