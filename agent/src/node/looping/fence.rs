//! After a write that was not carried out: is the session still ours, and what does the store hold?

use std::time::Duration;

use setpoint_apis::Key;
use setpoint_store::StoreError;
use tokio::time::sleep;
use tracing::warn;

use super::{End, NodeLoop};
use crate::node::session::{Session, Sessions};
use crate::node::state::Phase;

impl NodeLoop {
    /// Something was not written. Is the session still ours? After an unknown outcome the fence moves on first. What
    /// the store holds is read again, so that the next plan begins from the truth.
    pub(super) async fn check_fence(
        &mut self,
        session: &mut Session,
        unknown: bool,
    ) -> Option<End> {
        let (store, keyspace) = (self.parts.store.clone(), self.parts.keyspace.clone());
        let node = self.parts.config.node.clone();
        let (ttl, me) = (self.parts.config.lease_ttl, self.me.clone());
        let sessions = Sessions {
            store: &store,
            keyspace: &keyspace,
            node: &node,
            ttl,
            me: &me,
        };
        let mut wait = Duration::from_millis(50);
        loop {
            let current = if unknown {
                sessions.refence(session).await
            } else {
                let key = keyspace.build(&Key::NodeAlive(&node));
                store.get(&key).await.map(|(kv, _)| {
                    kv.filter(|kv| kv.mod_revision == session.epoch)
                        .map(|_| session.clone())
                })
            };
            match current {
                Ok(Some(renewed)) => {
                    *session = renewed;
                    if let Err(error) = self.reread().await {
                        warn!(
                            node,
                            error = &error as &dyn std::error::Error,
                            "this node's records could not be read again"
                        );
                        continue;
                    }
                    return None;
                }
                Ok(None) => return Some(End::SessionLost),
                Err(error) => {
                    warn!(
                        node,
                        error = &error as &dyn std::error::Error,
                        "the fence could not be checked; trying again"
                    );
                    tokio::select! {
                        () = session.lease.lost() => return Some(End::SessionLost),
                        () = sleep(wait) => wait = (wait * 2).min(Duration::from_secs(2)),
                    }
                }
            }
        }
    }

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
