//! Between a part of a cluster and etcd: nothing passes before etcd has been looked at.
//!
//! Parts begin also while etcd is away, so that an agent can take up what its disk names. What has to be known of etcd
//! before anything is read or written, the layout of the keyspace and whether the version can be relied on, is therefore
//! found out with the first request that could be answered. When etcd is none to work with, the part ends.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use setpoint_apis::Keyspace;
use setpoint_store::etcd::version::distrust;
use setpoint_store::{
    ConnectOptions, EtcdStore, KeyValue, LeaseId, LeaseTime, Page, RangeRequest, Revision,
    ServerStatus, SharedStore, Store, StoreError, Txn, TxnResult, WatchBatch, WatchRequest,
};
use tokio::sync::{Mutex, Notify};

use crate::connect::explain;

/// How often the versions of etcd's members are looked at again where they matter.
const AGAIN: Duration = Duration::from_secs(300);

/// The flag for an etcd that is not to be relied on.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct HolesArgs {
    /// Work with a version of etcd that has known holes also where they matter: with authentication, and for pods with the
    /// partition policy stop. For development and tests
    #[arg(
        long,
        env = "SETPOINT_ALLOW_KNOWN_HOLES",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub(crate) allow_known_holes: bool,
}

/// Why nothing passes.
#[derive(Debug)]
pub(crate) enum Closed {
    /// etcd does not answer. It is asked again with the next request.
    Away(StoreError),
    /// It will not do.
    Refused(anyhow::Error),
}

/// A store that answers nothing before etcd has been looked at.
pub(crate) struct Gate {
    store: Arc<EtcdStore>,
    shared: SharedStore,
    keyspace: Keyspace,
    /// Where the endpoints come from, for messages.
    source: String,
    /// Whether etcd's versions matter to the part as a whole.
    strict: bool,
    looking: Mutex<()>,
    open: OnceLock<()>,
    refusal: OnceLock<String>,
    refused: Notify,
}

impl Gate {
    /// Prepares the connection.
    ///
    /// # Errors
    /// As [`EtcdStore::connect`].
    pub(crate) async fn new(
        options: ConnectOptions,
        source: String,
        keyspace: Keyspace,
        holes: HolesArgs,
    ) -> Result<Arc<Self>, StoreError> {
        let certified = options.tls.as_ref().is_some_and(|tls| tls.client.is_some());
        let strict = (options.user.is_some() || certified) && !holes.allow_known_holes;
        let store = Arc::new(EtcdStore::connect(&options).await?);
        Ok(Arc::new(Self {
            shared: store.clone(),
            store,
            keyspace,
            source,
            strict,
            looking: Mutex::default(),
            open: OnceLock::new(),
            refusal: OnceLock::new(),
            refused: Notify::new(),
        }))
    }

    /// Looks at etcd, once it answers; from then on everything passes.
    ///
    /// # Errors
    /// Why nothing passes.
    pub(crate) async fn look(&self) -> Result<(), Closed> {
        let _one = self.looking.lock().await;
        if self.open.get().is_some() {
            return Ok(());
        }
        if let Some(refusal) = self.refusal.get() {
            return Err(Closed::Refused(anyhow!("{refusal}")));
        }
        let looked = self.judge().await;
        match &looked {
            Ok(()) => {
                // Nobody else opens it: the lock is held.
                let _ = self.open.set(());
            }
            Err(Closed::Away(_)) => {}
            Err(Closed::Refused(error)) => {
                let _ = self.refusal.set(format!("{error:#}"));
                self.refused.notify_waiters();
            }
        }
        looked
    }

    async fn judge(&self) -> Result<(), Closed> {
        let sorted = |error: StoreError| match error.is_retryable() {
            true => Closed::Away(error),
            false => Closed::Refused(explain(error, &self.source)),
        };
        let health = self.store.check().await.map_err(sorted)?;
        if self.strict
            && let Some(why) = distrust(&self.store.versions().await.map_err(sorted)?)
        {
            return Err(Closed::Refused(anyhow!(
                "{why}. Over a connection with authentication nothing works with such an etcd, unless \
                 --allow-known-holes (SETPOINT_ALLOW_KNOWN_HOLES=1) says that its permissions are not relied on"
            )));
        }
        crate::init::check_layout(&self.shared, &self.keyspace)
            .await
            .map_err(|error| match error.downcast::<StoreError>() {
                Ok(error) => sorted(error),
                Err(error) => Closed::Refused(error),
            })?;
        if let Some(caution) = health.version.and_then(|v| v.caution()) {
            tracing::info!("{caution}");
        }
        for warning in &health.warnings {
            tracing::warn!(warning, "etcd");
        }
        Ok(())
    }

    /// Runs a part, until etcd turns out to be none to work with. The part is dropped then, as if its process were killed.
    ///
    /// # Errors
    /// The part's, or why etcd is refused.
    pub(crate) async fn unless_refused(
        &self,
        part: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let refused = async {
            loop {
                let told = self.refused.notified();
                if let Some(refusal) = self.refusal.get() {
                    return anyhow!("{refusal}");
                }
                told.await;
            }
        };
        tokio::select! {
            result = part => result,
            refusal = refused => Err(refusal).context("etcd is there now, and is none to work with"),
            () = self.watch_over() => Ok(()),
        }
    }

    /// Looks at the versions again and again, where they matter: members are exchanged under running parts. What has been
    /// granted meanwhile cannot be taken back, so it is said, and the part goes on. Never returns.
    async fn watch_over(&self) {
        if !self.strict {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(AGAIN).await;
            // One that does not answer is the business of whoever needs it.
            if let Ok(versions) = self.store.versions().await
                && let Some(why) = distrust(&versions)
            {
                tracing::error!(
                    "etcd was exchanged for one that is not to be relied on with authentication: {why}"
                );
            }
        }
    }

    /// Lets a request of the store pass once the gate is open.
    fn pass<'a, T: Send + 'a>(
        &'a self,
        context: &'static str,
        request: impl FnOnce(&'a EtcdStore) -> BoxFuture<'a, Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        if self.open.get().is_some() {
            return request(&self.store);
        }
        Box::pin(async move {
            match self.look().await {
                Ok(()) => request(&self.store).await,
                Err(Closed::Away(error)) => Err(error),
                Err(Closed::Refused(error)) => Err(StoreError::Invalid {
                    context: context.to_owned(),
                    message: format!("{error:#}"),
                }),
            }
        })
    }
}

impl Store for Gate {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), StoreError>> {
        let key = key.to_owned();
        self.pass("read", move |store| store.get(&key))
    }

    fn range(&self, request: RangeRequest) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.pass("read", |store| store.range(request))
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnResult, StoreError>> {
        self.pass("transaction", |store| store.txn(txn))
    }

    fn watch(
        &self,
        request: WatchRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchBatch, StoreError>>, StoreError>> {
        self.pass("watch", |store| store.watch(request))
    }

    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<(LeaseId, Duration), StoreError>> {
        self.pass("grant of a lease", move |store| store.lease_grant(ttl))
    }

    fn lease_renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<Duration, StoreError>> {
        self.pass("renewal of a lease", move |store| store.lease_renew(lease))
    }

    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.pass("revocation of a lease", move |store| {
            store.lease_revoke(lease)
        })
    }

    fn lease_time_left(
        &self,
        lease: LeaseId,
    ) -> BoxFuture<'_, Result<Option<LeaseTime>, StoreError>> {
        self.pass("remaining time of a lease", move |store| {
            store.lease_time_left(lease)
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<ServerStatus, StoreError>> {
        self.pass("status", |store| store.status())
    }

    fn versions(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.pass("versions", |store| store.versions())
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::Key;
    use setpoint_store::devstore::{self, DevStore};
    use setpoint_store::model;
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn listener() -> (TcpListener, ConnectOptions) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        (listener, ConnectOptions::new([endpoint]))
    }

    /// Serves as an etcd of this version, until the test's runtime ends.
    fn serve(listener: TcpListener, version: &str) {
        let options = devstore::Options {
            model: model::Config {
                version: version.to_owned(),
                ..model::Config::default()
            },
            ..devstore::Options::default()
        };
        let store = DevStore::open(options).unwrap();
        tokio::spawn(store.serve(listener, std::future::pending()));
    }

    async fn gate(options: ConnectOptions, strict: bool) -> Gate {
        let (source, holes) = ("a test".to_owned(), HolesArgs::default());
        let gate = Gate::new(options, source, Keyspace::default(), holes).await;
        let gate = Arc::into_inner(gate.unwrap()).unwrap();
        Gate { strict, ..gate }
    }

    #[tokio::test]
    async fn with_authentication_an_etcd_with_known_holes_is_refused_and_without_it_is_not() {
        let (socket, options) = listener().await;
        serve(socket, "3.4.23");
        let strict = gate(options.clone(), true).await;
        let Err(Closed::Refused(error)) = strict.look().await else {
            panic!("it passes");
        };
        let text = error.to_string();
        for part in [
            "etcd 3.4.23 has known holes",
            "update etcd to",
            "--allow-known-holes",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(strict.get("/k").await.is_err());
        let lax = gate(options, false).await;
        assert_eq!(lax.get("/k").await.unwrap().0, None);

        let (socket, options) = listener().await;
        serve(socket, "3.6.14");
        let strict = gate(options, true).await;
        assert_eq!(strict.get("/k").await.unwrap().0, None);
    }

    #[tokio::test]
    async fn credentials_make_versions_matter_unless_holes_are_allowed() {
        use setpoint_store::etcd::Credentials;
        let options = ConnectOptions {
            user: Some(Credentials {
                name: "agent".to_owned(),
                password: "secret".to_owned(),
            }),
            ..ConnectOptions::new(["http://127.0.0.1:1"])
        };
        for allow_known_holes in [false, true] {
            let holes = HolesArgs { allow_known_holes };
            let made = Gate::new(options.clone(), String::new(), Keyspace::default(), holes).await;
            assert_eq!(made.unwrap().strict, !allow_known_holes);
        }
    }

    #[tokio::test]
    async fn a_part_that_began_without_etcd_ends_before_it_touches_a_newer_layout() {
        // Nobody serves yet: connections stand, and nothing answers.
        let (socket, options) = listener().await;
        let watched = gate(options.clone(), false).await;
        assert!(matches!(watched.look().await, Err(Closed::Away(_))));

        serve(socket, "3.6.16");
        let store = EtcdStore::connect(&options).await.unwrap();
        let schema = Keyspace::default().build(&Key::Meta("schema"));
        let newer = Txn::new().put(schema, "version: 99\n");
        let begun = tokio::time::timeout(LONG, store.txn(newer)).await.unwrap();
        let begun = begun.unwrap().revision;

        let part = async {
            loop {
                let wrote = watched.txn(Txn::new().put("/by-the-part", "x")).await;
                assert!(wrote.is_err(), "it reached etcd");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::time::timeout(LONG, watched.unless_refused(part)).await;
        let text = format!("{:#}", ended.unwrap().unwrap_err());
        assert!(
            text.contains("layout version 99") && text.contains("use a newer setpoint"),
            "{text}"
        );
        assert_eq!(store.status().await.unwrap().revision, begun);
    }
}
