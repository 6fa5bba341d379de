//! `setpoint init`: prepares a keyspace.

use anyhow::Result;
use clap::Args;

use crate::context::Context;
use crate::init;

/// Flags of `setpoint init`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct InitArgs {}

/// Runs the command.
pub(crate) async fn run(_: InitArgs, context: &mut Context) -> Result<()> {
    let connected = context.connect().await?;
    let done = init::initialise(&connected.store, &connected.keyspace).await?;
    for name in &done.created {
        context.out.line(format_args!("{name} created"));
    }
    let state = if done.created.is_empty() {
        "was ready already"
    } else {
        "is ready"
    };
    context.out.line(format_args!(
        "keyspace {} {state} (cluster {})",
        connected.keyspace, done.cluster_id
    ));
    Ok(())
}
