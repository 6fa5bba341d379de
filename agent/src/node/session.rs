//! The node's session: one key under the detection lease. Its create revision names the session to everybody else; its
//! mod revision is the fence of this agent's own writes.

use std::time::Duration;

use setpoint_apis::records::NodeAlive;
use setpoint_apis::{Key, Keyspace, document};
use setpoint_store::lease::LeaseKeeper;
use setpoint_store::{Compare, KeyValue, Outcome, SharedStore, StoreError, Txn};
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
    ///
    /// # Errors
    /// After [`SessionError::Store`] with an unknown outcome the session may be taken all the same; taking it again, within
    /// the time of the lease, goes on with it.
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
                // Somebody was faster, or the old key expired just now. Look again.
                Ok(_) => present = self.store.get(&key).await.map_err(failed)?.0,
                // The key may be under the new lease, or may come to be: were that revoked, the session that is to go on
                // would go with it. It is left to expire, and who tries again within its time finds the key.
                Err(error) if error.outcome() == Outcome::Unknown => return Err(failed(error)),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use futures::stream::BoxStream;
    use parking_lot::Mutex;
    use setpoint_store::model::ModelStore;
    use setpoint_store::{
        LeaseId, Page, RangeRequest, Revision, ServerStatus, Store, TxnResult, WatchBatch,
        WatchRequest,
    };

    use super::*;

    const TTL: Duration = Duration::from_secs(6);

    /// A store that carries one transaction out, or holds it back, and loses the answer.
    struct Forgetful {
        inner: ModelStore,
        applies: bool,
        lost: Mutex<Option<Txn>>,
        done: Mutex<bool>,
    }

    impl Forgetful {
        fn new(inner: ModelStore, applies: bool) -> Arc<Self> {
            Arc::new(Self {
                inner,
                applies,
                lost: Mutex::default(),
                done: Mutex::default(),
            })
        }
    }

    impl Store for Forgetful {
        fn get(
            &self,
            key: &str,
        ) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
            self.inner.get(key)
        }
        fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
            self.inner.range(request)
        }
        fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
            if std::mem::replace(&mut *self.done.lock(), true) {
                return self.inner.txn(txn);
            }
            let error = StoreError::Unknown {
                context: "a test".into(),
                message: "the answer is lost".into(),
            };
            if self.applies {
                self.inner.txn(txn).map(|_| Err(error)).boxed()
            } else {
                *self.lost.lock() = Some(txn);
                async { Err(error) }.boxed()
            }
        }
        fn watch(
            &self,
            request: WatchRequest,
        ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>>
        {
            self.inner.watch(request)
        }
        fn lease_grant(
            &self,
            ttl: Duration,
        ) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
            self.inner.lease_grant(ttl)
        }
        fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
            self.inner.lease_renew(lease)
        }
        fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
            self.inner.lease_revoke(lease)
        }
        fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
            self.inner.status()
        }
    }

    struct Node {
        store: SharedStore,
        keyspace: Keyspace,
        me: NodeAlive,
    }

    impl Node {
        fn new(store: SharedStore) -> Self {
            Self {
                store,
                keyspace: Keyspace::default(),
                me: NodeAlive {
                    instance: "i".to_owned(),
                    ..NodeAlive::default()
                },
            }
        }

        async fn acquire(&self) -> Result<Session, SessionError> {
            let sessions = Sessions {
                store: &self.store,
                keyspace: &self.keyspace,
                node: "n1",
                ttl: TTL,
                me: &self.me,
            };
            sessions.acquire().await
        }

        async fn alive(&self) -> Option<KeyValue> {
            let key = self.keyspace.build(&Key::NodeAlive("n1"));
            self.store.get(&key).await.unwrap().0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_goes_on_when_the_answer_to_its_takeover_is_lost() {
        let model = ModelStore::default();
        let before = Node::new(Arc::new(model.clone()));
        let session = before.acquire().await.unwrap();
        // The agent is started again.
        let after = Node::new(Forgetful::new(model, true));
        let lost = after.acquire().await;
        assert!(matches!(lost, Err(SessionError::Store { .. })));
        let alive = after.alive().await;
        assert_eq!(alive.map(|kv| kv.create_revision), Some(session.id));
        let again = after.acquire().await.unwrap();
        assert_eq!(again.id, session.id);
        assert!(again.epoch > session.epoch);
        // Nothing hangs on the leases of before.
        tokio::time::sleep(TTL * 3).await;
        let alive = after.alive().await;
        assert_eq!(alive.map(|kv| kv.mod_revision), Some(again.epoch));
    }

    #[tokio::test(start_paused = true)]
    async fn a_takeover_that_arrives_late_takes_nothing_from_the_next_one() {
        let model = ModelStore::default();
        let session = Node::new(Arc::new(model.clone())).acquire().await.unwrap();
        let forgetful = Forgetful::new(model.clone(), false);
        let after = Node::new(forgetful.clone());
        assert!(after.acquire().await.is_err());
        let again = after.acquire().await.unwrap();
        assert_eq!(again.id, session.id);
        let late = forgetful.lost.lock().take().unwrap();
        assert!(!model.txn(late).await.unwrap().succeeded);
        let alive = after.alive().await;
        assert_eq!(alive.map(|kv| kv.mod_revision), Some(again.epoch));
    }
}
