//! How the parts of a cluster begin and are told to stop.

use std::sync::Arc;

use anyhow::Result;
use setpoint_apis::Keyspace;
use setpoint_store::SharedStore;
use tokio_util::sync::CancellationToken;

use crate::connect;
use crate::context::Context;
use crate::gate::{Gate, HolesArgs};
use crate::signals;

/// What a part needs.
pub(crate) struct Part {
    /// The store, which need not have answered yet. Nothing goes there before it has been looked at.
    pub(crate) store: SharedStore,
    /// What looks at it.
    pub(crate) gate: Arc<Gate>,
    /// The keyspace.
    pub(crate) keyspace: Keyspace,
    /// Cancelled by Ctrl-C or SIGTERM; a second one ends the process at once.
    pub(crate) shutdown: CancellationToken,
}

/// Connects a part, and lets it be stopped by signals.
///
/// # Errors
/// When the settings contradict each other, or etcd is there and is none to work with.
pub(crate) async fn begin(context: &Context, holes: HolesArgs) -> Result<Part> {
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        signals::interrupted().await;
        token.cancel();
        signals::interrupted().await;
        std::process::exit(130);
    });
    let flags = context.global().flags();
    let (gate, keyspace) = tokio::select! {
        connected = connect::patient(&flags, holes) => connected?,
        () = shutdown.cancelled() => anyhow::bail!("interrupted"),
    };
    Ok(Part {
        store: gate.clone(),
        gate,
        keyspace,
        shutdown,
    })
}
