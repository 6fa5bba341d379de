//! How the parts of a cluster begin and are told to stop.

use anyhow::Result;
use setpoint_apis::Keyspace;
use setpoint_store::SharedStore;
use tokio_util::sync::CancellationToken;

use crate::connect;
use crate::context::Context;
use crate::signals;

/// What a part needs.
pub(crate) struct Part {
    /// The store, which need not have answered yet.
    pub(crate) store: SharedStore,
    /// The keyspace.
    pub(crate) keyspace: Keyspace,
    /// Cancelled by Ctrl-C or SIGTERM; a second one ends the process at once.
    pub(crate) shutdown: CancellationToken,
}

/// Connects a part, and lets it be stopped by signals.
///
/// # Errors
/// When the settings contradict each other.
pub(crate) async fn begin(context: &Context) -> Result<Part> {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        signals::interrupted().await;
        token.cancel();
        signals::interrupted().await;
        std::process::exit(130);
    });
    let flags = context.global().flags();
    let (store, keyspace) = tokio::select! {
        connected = connect::patient(&flags) => connected?,
        () = shutdown.cancelled() => anyhow::bail!("interrupted"),
    };
    Ok(Part {
        store,
        keyspace,
        shutdown,
    })
}
