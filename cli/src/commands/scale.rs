//! `setpoint scale`: changes the number of replicas, and nothing else of the document.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use setpoint_apis::ObjectKey;

use super::rollout;
use crate::autoscaled::{self, Autoscalers};
use crate::client::Client;
use crate::context::Context;
use crate::kinds::KindInfo;
use crate::manifest::FileArgs;
use crate::resolve::{self, Targets};
use crate::term;
use crate::write::modify;

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
            autoscaled::resize(text, args.replicas)
        })
        .await?;
        let name = kind.full_name(&key.name);
        modified.warn_when_rewritten(&name);
        context.out.line(format_args!("{name} scaled"));
    }
    // None is what nobody decides otherwise.
    if args.replicas > 0 {
        warn_of_autoscalers(&client, &objects).await?;
    }
    context.out.flush()?;
    if let Some(timeout) = args.timeout {
        for (kind, key) in &objects {
            rollout::until_done(context, &client, *kind, key, timeout, false).await?;
        }
    }
    Ok(())
}

/// Says of which workloads the number comes to nothing, because an autoscaler decides.
async fn warn_of_autoscalers(client: &Client, objects: &[(KindInfo, ObjectKey)]) -> Result<()> {
    let mut by_namespace = BTreeMap::new();
    for (kind, key) in objects {
        let scalers = match by_namespace.entry(&key.namespace) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(Autoscalers::read(client, &key.namespace, |_| false).await?)
            }
        };
        if let Some((scaler, now)) = scalers.decides(kind.plural, key) {
            term::warn(format_args!(
                "{}: {scaler} decides how many there are ({now} now), whatever the document says",
                kind.full_name(&key.name)
            ));
        } else if let Some((scaler, why)) = scalers.broken(kind.plural, key)
            && let Some(object) = client.find(*kind, key).await?
            && let Some(now) = autoscaled::in_use(&object)
        {
            term::warn(format_args!(
                "{}: {scaler} cannot be read, so there are as many as it decided last ({now} now), whatever the document \
                 says: {why}",
                kind.full_name(&key.name)
            ));
        }
    }
    Ok(())
}
