//! The fence of the node loop: held while pods that must never run twice are here or are to be claimed.

use std::time::Duration;

use futures::future::BoxFuture;
use setpoint_apis::records::NodeFence;
use setpoint_runtime::backoff::Backoff;
use setpoint_store::{StoreError, task};
use tokio::time::Instant;
use tracing::warn;

use super::NodeLoop;
use crate::node::fence::{Acquired, Fence, FenceError, Fences, Guarded};
use crate::node::session::Session;
use crate::node::state::{HeldFence, Phase};

/// The wait before a fence is asked for again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// A fence that is being asked for.
#[derive(Default)]
pub(super) struct Asking {
    pub(super) under_way: Option<BoxFuture<'static, Result<Acquired, FenceError>>>,
    /// Not before this.
    pub(super) again_at: Option<Instant>,
    failures: u32,
}

impl NodeLoop {
    /// Before each plan: what is held is known to the state, what runs to the fence, and a fence is asked for where it is
    /// wanted and ended where it is not. `settled`: no write is under way whose outcome could claim something.
    pub(super) fn tend_fence(&mut self, session: &Session, asking: &mut Asking, settled: bool) {
        if self.fence.as_ref().is_some_and(|f| f.lease.is_lost()) {
            self.fence = None;
        }
        let wanted = self.state.wants_fence();
        match self.fence.take() {
            Some(fence) if !wanted && settled => {
                task::spawn(async move {
                    if let Err(error) = fence.end().await {
                        warn!(
                            error = &error as &dyn std::error::Error,
                            "the node's fence, which nothing needs any more, was not removed; it will expire"
                        );
                    }
                });
            }
            Some(fence) => {
                fence.watch_over(self.guarded(fence.claim.revision));
                self.fence = Some(fence);
            }
            None if wanted && asking.under_way.is_none() && asking.again_at.is_none() => {
                asking.under_way = Some(Box::pin(self.fences().acquire(session.epoch)));
            }
            None => {}
        }
        self.note_fence();
    }

    /// A fence that was asked for has come, or not.
    pub(super) fn fence_came(&mut self, asking: &mut Asking, came: Result<Acquired, FenceError>) {
        asking.under_way = None;
        match came {
            Ok(acquired) => {
                asking.failures = 0;
                self.hold(acquired);
            }
            Err(error) => {
                asking.failures += 1;
                if asking.failures > 1 {
                    warn!(
                        node = self.parts.config.node,
                        error = &error as &dyn std::error::Error,
                        "no fence for pods that must never run twice; trying again"
                    );
                }
                let delay = BACKOFF.delay(asking.failures, &mut self.rng);
                asking.again_at = Some(Instant::now() + delay);
            }
        }
    }

    /// At the beginning of a session, before anything that was claimed is taken up: is the fence still there that it was
    /// claimed under? If it is not, the next plan has it killed.
    pub(super) async fn resume_fence(
        &mut self,
        session: &Session,
        adopted: bool,
    ) -> Result<(), StoreError> {
        let claimed = self.state.locals.values().any(|l| l.fence.is_some())
            || !adopted && self.parts.disk.claims().iter().any(|c| c.fence.is_some());
        if self.fence.as_ref().is_some_and(|f| f.lease.is_lost()) {
            self.fence = None;
        }
        if claimed && self.fence.is_none() {
            match self.fences().acquire(session.epoch).await {
                Ok(acquired) => self.hold(acquired),
                Err(FenceError::Store(error)) => return Err(error),
                Err(error) => warn!(
                    node = self.parts.config.node,
                    error = &error as &dyn std::error::Error,
                    "the fence of pods that must never run twice is gone"
                ),
            }
        }
        self.note_fence();
        Ok(())
    }

    fn hold(&mut self, acquired: Acquired) {
        self.fence = Some(Fence::begin(acquired, self.parts.runner.clone()));
    }

    fn note_fence(&mut self) {
        self.state.fence = self.fence.as_ref().map(|fence| HeldFence {
            claim: fence.claim,
            fresh: fence.is_fresh(),
        });
    }

    fn fences(&self) -> Fences {
        let ttl = self.parts.config.fence_lease_ttl;
        Fences {
            store: self.parts.store.clone(),
            keyspace: self.parts.keyspace.clone(),
            node: self.parts.config.node.clone(),
            ttl,
            me: NodeFence {
                hostname: self.me.hostname.clone(),
                instance: self.me.instance.clone(),
                lease_ttl_seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            },
        }
    }

    /// The pods that run under a fence.
    fn guarded(&self, revision: i64) -> Vec<Guarded> {
        let locals = self.state.locals.iter();
        locals
            .filter(|(_, l)| {
                l.phase != Phase::Gone && l.fence.is_some_and(|f| f.revision == revision)
            })
            .map(|(key, local)| {
                let spec = self.state.work.get(key).map(|work| &work.pod.spec);
                let grace = spec.map_or(30, |spec| spec.termination_grace_period_seconds());
                Guarded {
                    key: key.clone(),
                    placement: local.placement,
                    grace: crate::pod::model::seconds(grace),
                }
            })
            .collect()
    }
}
