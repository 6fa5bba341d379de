//! After a write that was not carried out: is the session still ours, and what does the store hold?

use std::time::Duration;

use futures::future::BoxFuture;
use setpoint_apis::Key;
use setpoint_runtime::backoff::Backoff;
use setpoint_store::StoreError;
use tokio::time::Instant;

use super::{NodeLoop, Parts};
use crate::node::session::{Session, Sessions};
use crate::node::state::Phase;

/// What a look at the fence finds: the session, if it is still ours.
pub(super) type Looked = Result<Option<Session>, StoreError>;

/// A doubt about the session or about what was written. While there is one nothing is written; everything else goes on.
#[derive(Default)]
pub(super) struct Doubt {
    /// When to look next; `None`: there is no doubt, or a look is under way.
    pub(super) look_at: Option<Instant>,
    /// The look that is under way.
    pub(super) looking: Option<BoxFuture<'static, Looked>>,
    /// An outcome is unknown: the fence moves on before anything else.
    unknown: bool,
    failures: u32,
}

impl Doubt {
    /// Whether there is one.
    pub(super) fn stands(&self) -> bool {
        self.look_at.is_some() || self.looking.is_some()
    }

    /// Something was not written.
    pub(super) fn arise(&mut self, unknown: bool) {
        self.unknown |= unknown;
        self.look_at = Some(Instant::now());
    }

    /// A look failed: the next one after a pause that grows.
    pub(super) fn persist(&mut self, rng: &mut fastrand::Rng) {
        const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        self.looking = None;
        self.failures += 1;
        self.look_at = Some(Instant::now() + BACKOFF.delay(self.failures, rng));
    }

    /// All is known again.
    pub(super) fn settle(&mut self) {
        *self = Self::default();
    }

    /// Begins a look. After an unknown outcome the fence moves on with it, so that what was sent before can no longer be
    /// applied.
    pub(super) fn look(
        &mut self,
        parts: &Parts,
        me: &setpoint_apis::records::NodeAlive,
        session: &Session,
    ) {
        let (store, keyspace) = (parts.store.clone(), parts.keyspace.clone());
        let (node, ttl, me) = (
            parts.config.node.clone(),
            parts.config.lease_ttl,
            me.clone(),
        );
        let (session, unknown) = (session.clone(), self.unknown);
        self.look_at = None;
        self.looking = Some(Box::pin(async move {
            if unknown {
                let sessions = Sessions {
                    store: &store,
                    keyspace: &keyspace,
                    node: &node,
                    ttl,
                    me: &me,
                };
                return sessions.refence(&session).await;
            }
            let (alive, _) = store.get(&keyspace.build(&Key::NodeAlive(&node))).await?;
            Ok(alive
                .filter(|kv| kv.mod_revision == session.epoch)
                .map(|_| session))
        }));
    }

    /// The fence has moved on: what is looked at again is not fenced again.
    pub(super) fn fenced(&mut self) {
        self.unknown = false;
    }
}

impl NodeLoop {
    /// Reads this node's records again: what was written by a transaction with an unknown outcome counts as written, and
    /// a claim that landed is a claim.
    pub(super) async fn reread(&mut self) -> Result<(), StoreError> {
        self.note_records().await?;
        // A record that is gone: the pod was released while this node was away. Its work key says what follows.
        self.state
            .locals
            .retain(|_, local| local.written.is_some() || local.phase != Phase::Gone);
        self.adopt_work();
        Ok(())
    }
}
