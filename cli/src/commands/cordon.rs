//! `setpoint cordon` and `uncordon`: whether new pods may be placed on nodes. Uncordoning withdraws what drains have asked for.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use clap::Args;
use setpoint_apis::ObjectKey;
use setpoint_store::StoreError;

use super::drain;
use crate::client::Client;
use crate::context::Context;
use crate::kinds;
use crate::resolve;
use crate::select::SelectArgs;
use crate::term::{self, Out};
use crate::write::{self, Modified, modify};
use crate::yaml_edit::Change;

/// Flags of `setpoint cordon` and `uncordon`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CordonArgs {
    /// The nodes
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    #[command(flatten)]
    select: SelectArgs,
}

/// Runs the command.
pub(crate) async fn run(args: CordonArgs, cordon: bool, context: &mut Context) -> Result<()> {
    let client = context.client().await?;
    let names = names(&client, &args.nodes, &args.select).await?;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        match set(&client, &name, cordon, &mut context.out).await {
            Ok(()) => done.push(name),
            Err(error) => {
                failed.push(term::chain(&error));
                // The others would have to wait for an answer in vain as well.
                if error.downcast_ref::<StoreError>().is_some() {
                    break;
                }
            }
        }
    }
    context.out.flush()?;
    // After that: a drain that still runs writes nothing more for a node that is not cordoned.
    if !cordon && !done.is_empty() {
        match drain::withdraw(&client, &done, &mut context.out).await {
            Ok(_) => context.out.flush()?,
            Err(error) if failed.is_empty() => return Err(error),
            Err(error) => failed.push(term::chain(&error)),
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("\nerror: "))
}

/// The nodes that words and selectors name, each once.
///
/// # Errors
/// When a name cannot be one, or there is none; when the store does not answer.
pub(super) async fn names(
    client: &Client,
    words: &[String],
    select: &SelectArgs,
) -> Result<Vec<String>> {
    let kind = kinds::builtin("nodes");
    let filter = select.filter()?;
    filter.check(&kind)?;
    let mut names = Vec::new();
    for word in words {
        let name = word.strip_prefix("node/").unwrap_or(word);
        resolve::check_name(&kind, name)?;
        names.push(name.to_owned());
    }
    if select.is_given() {
        let listed = client.list(kind, None).await?.objects;
        let chosen = listed.iter().filter(|o| filter.matches(o));
        names.extend(chosen.map(|o| o.key.name.to_string()));
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.is_empty() {
        bail!("no node is named, or none has these labels");
    }
    Ok(names)
}

/// Cordons or uncordons a node, and says so.
///
/// # Errors
/// When there is no such node, its document cannot be changed, or the store does not answer.
pub(super) async fn set(client: &Client, name: &str, cordon: bool, out: &mut Out) -> Result<()> {
    let change = if cordon {
        Change::set(&["spec", "unschedulable"], true)
    } else {
        Change::remove(&["spec", "unschedulable"])
    };
    let word = if cordon { "cordoned" } else { "uncordoned" };
    let kind = kinds::builtin("nodes");
    let key = ObjectKey::cluster(name);
    let modified = modify(client, kind, &key, |text, _| {
        write::edit(text, std::slice::from_ref(&change))
    });
    let modified = modified.await?;
    modified.warn_when_rewritten(&format!("node/{name}"));
    match modified {
        Modified::Unchanged => out.line(format_args!("node/{name} already {word}")),
        Modified::Changed { .. } => out.line(format_args!("node/{name} {word}")),
    }
    Ok(())
}
