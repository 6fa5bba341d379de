//! The node's session: one key under the detection lease. Its create revision names the session to everybody else; its
//! mod revision is the fence of this agent's own writes.

use std::time::Duration;

use setpoint_apis::records::NodeAlive;
use setpoint_apis::{Key, Keyspace, document};
use setpoint_store::lease::LeaseKeeper;
use setpoint_store::{Compare, KeyValue, SharedStore, StoreError, Txn};
use tracing::{info, warn};

/// A session that this agent holds.
#[derive(Clone)]
pub(crate) struct Session {
    /// The create revision of `alive`.
    pub(crate) id: i64,
    /// The mod revision of `alive`: every write of this agent is guarded on it.
    pub(crate) epoch: i64,
    pub(crate) lease: LeaseKeeper,
}

/// Why a session could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// Another agent runs under this name.
    #[error("node {node} is held by another agent: host {}, process {}, since {}", holder.hostname, holder.pid, holder.since)]
    Held {
        node: String,
        holder: Box<NodeAlive>,
    },
    /// The store did not do it; worth another try.
    #[error("taking the session of node {node}")]
    Store {
        node: String,
        #[source]
        source: StoreError,
    },
}

pub(crate) struct Sessions<'a> {
    pub(crate) store: &'a SharedStore,
    pub(crate) keyspace: &'a Keyspace,
    pub(crate) node: &'a str,
    pub(crate) ttl: Duration,
    pub(crate) me: &'a NodeAlive,
}

impl Sessions<'_> {
    /// Takes the session: creates `alive`, or takes it over where it is our own from before a restart or a long pause,
    /// so that the session goes on and nobody moves our pods.
    pub(crate) async fn acquire(&self) -> Result<Session, SessionError> {
        let failed = |source| SessionError::Store {
            node: self.node.to_owned(),
            source,
        };
        let key = self.keyspace.build(&Key::NodeAlive(self.node));
        let lease = LeaseKeeper::grant(self.store.clone(), self.ttl)
            .await
            .map_err(failed)?;
        let mut present = self.store.get(&key).await.map_err(failed)?.0;
        loop {
            let guard = match &present {
                None => Compare::absent(key.clone()),
                Some(kv) => {
                    let holder = holder(kv);
                    if holder.instance != self.me.instance {
                        self.abandon(&lease).await;
                        return Err(SessionError::Held {
                            node: self.node.to_owned(),
                            holder: Box::new(holder),
                        });
                    }
                    Compare::ModRevision(key.clone(), kv.mod_revision)
                }
            };
            let value = document::encode(self.me);
            let txn = Txn::new()
                .when(guard)
                .put_with_lease(key.clone(), value, lease.id());
            match self.store.txn(txn).await {
                Ok(done) if done.succeeded => {
                    let id = present
                        .as_ref()
                        .map_or(done.revision.0, |kv| kv.create_revision);
                    let former = present.and_then(|kv| kv.lease).filter(|l| *l != lease.id());
                    if let Some(former) = former {
                        // Nothing hangs on it any more.
                        let _ = self.store.lease_revoke(former).await;
                    }
                    info!(node = self.node, session = id, "session taken");
                    return Ok(Session {
                        id,
                        epoch: done.revision.0,
                        lease,
                    });
                }
                // Somebody was faster, or the old key expired just now; or the outcome is unknown. Look again.
                Ok(_) => present = self.store.get(&key).await.map_err(failed)?.0,
                Err(error) => {
                    self.abandon(&lease).await;
                    return Err(failed(error));
                }
            }
        }
    }

    /// Writes `alive` again in place: the session stays, and older transactions of this agent fail from now on.
    /// `None` when the session is lost.
    pub(crate) async fn refence(&self, session: &Session) -> Result<Option<Session>, StoreError> {
        let key = self.keyspace.build(&Key::NodeAlive(self.node));
        let (present, _) = self.store.get(&key).await?;
        let Some(kv) = present.filter(|kv| kv.create_revision == session.id) else {
            return Ok(None);
        };
        let txn = Txn::new()
            .when(Compare::ModRevision(key.clone(), kv.mod_revision))
            .put_with_lease(key, document::encode(self.me), session.lease.id());
        let done = self.store.txn(txn).await?;
        Ok(done.succeeded.then(|| Session {
            epoch: done.revision.0,
            ..session.clone()
        }))
    }

    async fn abandon(&self, lease: &LeaseKeeper) {
        if let Err(error) = lease.revoke().await {
            warn!(
                node = self.node,
                error = &error as &dyn std::error::Error,
                "an unused lease could not be revoked; it will expire"
            );
        }
    }
}

/// Who holds the key. A document that does not parse is somebody else's.
fn holder(kv: &KeyValue) -> NodeAlive {
    document::decode_value(&kv.value).unwrap_or_else(|_| NodeAlive {
        hostname: "unknown".into(),
        ..NodeAlive::default()
    })
}
