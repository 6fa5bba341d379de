//! The way to etcd: from flags, environment and contexts to a store that answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use setpoint_apis::Keyspace;
use setpoint_store::config::{self, Connection, Flags};
use setpoint_store::etcd::{ConnectOptions, EtcdStore, Health};
use setpoint_store::{SharedStore, StoreError};
use tokio::time::Instant;

use crate::gate::{Closed, Gate, HolesArgs};

/// An etcd that has not answered for so long is slow, not away.
const SLOW: Duration = Duration::from_secs(1);

/// How long a slow etcd is asked.
const PATIENCE: Duration = Duration::from_secs(8);

/// A store that has answered.
pub(crate) struct Connected {
    /// The store.
    pub(crate) store: SharedStore,
    /// The keyspace that is meant.
    pub(crate) keyspace: Keyspace,
    /// The endpoints.
    pub(crate) endpoints: Vec<String>,
    /// What etcd says of itself.
    pub(crate) health: Health,
}

/// Connects as flags, environment and contexts say, and makes sure that etcd answers.
///
/// # Errors
/// When the settings contradict each other, or etcd does not answer; in words that tell what to do.
pub(crate) async fn connect(flags: &Flags, request_timeout: Option<Duration>) -> Result<Connected> {
    let Connection {
        mut options,
        prefix,
        source,
        ..
    } = config::load(flags)?;
    let mut patience = PATIENCE;
    if let Some(limit) = request_timeout.filter(|limit| !limit.is_zero()) {
        options.request_timeout = limit;
        options.connect_timeout = options.connect_timeout.min(limit);
        patience = limit;
    }
    let keyspace = Keyspace::new(&prefix)?;
    let reached = match tokio::time::timeout(patience, reach(&options)).await {
        Ok(reached) => reached,
        Err(_) => Err(StoreError::Unavailable {
            context: "checking etcd".to_owned(),
            message: format!(
                "etcd at {} does not answer (no answer within {patience:?}): is it running, and is that its client URL?",
                options.endpoints.join(",")
            ),
        }),
    };
    let (store, health) = reached.map_err(|error| explain(error, &source))?;
    Ok(Connected {
        store: Arc::new(store),
        keyspace,
        endpoints: options.endpoints,
        health,
    })
}

/// The way to etcd for the parts of a cluster, which begin also while etcd is away: a warning says so, and goes on
/// saying so in the parts' own logs until it answers.
///
/// # Errors
/// When the settings contradict each other, a certificate cannot be read, or etcd is there and is none to work with.
pub(crate) async fn patient(flags: &Flags, holes: HolesArgs) -> Result<(Arc<Gate>, Keyspace)> {
    let Connection {
        options,
        prefix,
        source,
        ..
    } = config::load(flags)?;
    let keyspace = Keyspace::new(&prefix)?;
    let endpoints = options.endpoints.join(",");
    let gate = Gate::new(options, source.clone(), keyspace.clone(), holes)
        .await
        .map_err(|error| explain(error, &source))?;
    match gate.look().await {
        Ok(()) => {}
        Err(Closed::Away(error)) => {
            tracing::warn!(endpoints, "{:#}; waiting for it", explain(error, &source));
        }
        Err(Closed::Refused(error)) => return Err(error),
    }
    Ok((gate, keyspace))
}

/// Connects to one endpoint, and makes sure that etcd answers.
///
/// # Errors
/// When it does not.
pub(crate) async fn open(endpoint: &str) -> Result<SharedStore> {
    let (store, _) = reach(&ConnectOptions::new([endpoint])).await?;
    Ok(Arc::new(store))
}

async fn reach(options: &ConnectOptions) -> Result<(EtcdStore, Health), StoreError> {
    let store = EtcdStore::connect(options).await?;
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        match store.check().await {
            Ok(health) => return Ok((store, health)),
            // A refusal is an answer. One that is only slow is given a little more time: its disk may be busy.
            Err(error)
                if error.is_retryable() && asked.elapsed() > SLOW && begun.elapsed() < PATIENCE => {
            }
            Err(error) => return Err(error),
        }
    }
}

/// The error with where the endpoint comes from, and what to do.
pub(crate) fn explain(error: StoreError, source: &str) -> anyhow::Error {
    let from = match source {
        "default" => "this is the default endpoint".to_owned(),
        source => format!("the endpoint comes from {source}"),
    };
    match &error {
        StoreError::Unavailable { message, .. } | StoreError::Unknown { message, .. } => anyhow!(
            "{message}\n{from}; name another with --endpoints, SETPOINT_ENDPOINTS or a context, or start a cluster with \
             `setpoint dev`"
        ),
        _ => Err::<(), _>(error).context(from).unwrap_err(),
    }
}
