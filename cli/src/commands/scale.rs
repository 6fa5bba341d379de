//! `setpoint scale`: changes the number of replicas, and nothing else of the document.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::rollout;
use crate::context::Context;
use crate::manifest::FileArgs;
use crate::resolve::{self, Targets};
use crate::term;
use crate::write::{self, Modified, modify};
use crate::yaml_edit::Change;

/// Flags of `setpoint scale`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScaleArgs {
    /// TYPE NAME... or TYPE/NAME...
    #[arg(value_name = "RESOURCE")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// How many
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    replicas: i32,
    /// Only when there are so many now
    #[arg(long, value_name = "NUMBER")]
    current_replicas: Option<i64>,
    /// All of the type
    #[arg(long)]
    all: bool,
    /// Wait so long for it to have been done
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    timeout: Option<Duration>,
}

/// Runs the command.
pub(crate) async fn run(args: ScaleArgs, context: &mut Context) -> Result<()> {
    let client = context.client().await?;
    let namespace = context.namespace()?;
    let objects =
        match resolve::words_or_files(&client, &args.words, &args.files, &namespace).await? {
            Targets::Named(names) => names,
            Targets::Kinds(kinds) if args.all => {
                let mut all = Vec::new();
                for kind in kinds {
                    all.extend(
                        client
                            .list(kind, Some(&namespace))
                            .await?
                            .objects
                            .into_iter()
                            .map(|o| (kind, o.key)),
                    );
                }
                all
            }
            Targets::Kinds(_) => bail!("a resource name is needed, or --all"),
        };
    // All of them or none: what cannot be scaled is told before anything is.
    for (kind, _) in &objects {
        if !matches!(kind.plural, "deployments" | "replicasets" | "statefulsets") {
            bail!("{} cannot be scaled", kind.plural);
        }
    }
    for (kind, key) in &objects {
        let modified = modify(&client, *kind, key, |text, stored| {
            if let Some(expected) = args.current_replicas {
                let now = kind.read(key, &stored.value)?;
                let now = now["spec"]["replicas"].as_i64().unwrap_or(1);
                if now != expected {
                    bail!(
                        "{}: there are {now} replicas wanted, not {expected}",
                        kind.full_name(&key.name)
                    );
                }
            }
            write::edit(
                text,
                &[Change::set(
                    &["spec", "replicas"],
                    Value::from(args.replicas),
                )],
            )
        })
        .await?;
        if modified == (Modified::Changed { rewritten: true }) {
            term::warn(format_args!(
                "the document of {} was written anew; its comments are lost",
                kind.full_name(&key.name)
            ));
        }
        context
            .out
            .line(format_args!("{} scaled", kind.full_name(&key.name)));
    }
    context.out.flush()?;
    if let Some(timeout) = args.timeout {
        for (kind, key) in &objects {
            rollout::until_done(context, &client, *kind, key, timeout, false).await?;
        }
    }
    Ok(())
}
