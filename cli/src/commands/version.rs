//! `setpoint version`: this program's version and etcd's.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::printers::{self, Format};
use crate::term;

/// Flags of `setpoint version`.
#[derive(Args, Clone, Debug)]
pub(crate) struct VersionArgs {
    /// Only this program's
    #[arg(long)]
    client: bool,
    /// yaml, json or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// Runs the command. That etcd is not there is said, and is no error: the program's version was asked for, too.
pub(crate) async fn run(args: VersionArgs, context: &mut Context) -> Result<()> {
    let client = env!("CARGO_PKG_VERSION");
    let connected = if args.client {
        None
    } else {
        Some(context.connect().await)
    };
    let etcd = match &connected {
        Some(Ok(c)) => Some((c.health.status.version.clone(), c.endpoints.join(","))),
        _ => None,
    };
    match &args.output {
        Some(format) => {
            let mut value = json!({ "client": { "version": client } });
            if let Some((version, endpoints)) = &etcd {
                value["etcd"] = json!({ "version": version, "endpoints": endpoints });
            }
            printers::value(&mut context.out, format, &value)?;
        }
        None => {
            context.out.line(format_args!("setpoint {client}"));
            if let Some((version, endpoints)) = &etcd {
                context
                    .out
                    .line(format_args!("etcd {version} at {endpoints}"));
            }
        }
    }
    context.out.flush()?;
    match connected {
        Some(Err(error)) => {
            term::warn(term::chain(&error));
            Ok(())
        }
        Some(Ok(c)) => {
            // Here somebody wants to know.
            if context.global().verbose == 0 {
                c.health.holes.iter().for_each(term::warn);
            }
            Ok(())
        }
        None => Ok(()),
    }
}
