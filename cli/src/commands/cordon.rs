//! `setpoint cordon` and `uncordon`: whether new pods may be placed on nodes.

use anyhow::{Result, bail};
use clap::Args;
use setpoint_apis::ObjectKey;
use setpoint_store::StoreError;

use crate::context::Context;
use crate::kinds;
use crate::resolve;
use crate::select::SelectArgs;
use crate::term;
use crate::write::{Modified, modify};
use crate::yaml_edit::{self, Change};

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
    let kind = kinds::builtin("nodes");
    let filter = args.select.filter()?;
    filter.check(&kind)?;
    let mut names: Vec<String> = args
        .nodes
        .iter()
        .map(|n| n.strip_prefix("node/").unwrap_or(n).to_owned())
        .collect();
    for name in &names {
        resolve::check_name(&kind, name)?;
    }
    let client = context.client().await?;
    if args.select.is_given() {
        let listed = client.list(kind, None).await?.objects;
        names.extend(
            listed
                .iter()
                .filter(|o| filter.matches(o))
                .map(|o| o.key.name.to_string()),
        );
    }
    if names.is_empty() {
        bail!("no node is named, or none has these labels");
    }
    let change = if cordon {
        Change::set(&["spec", "unschedulable"], true)
    } else {
        Change::remove(&["spec", "unschedulable"])
    };
    let word = if cordon { "cordoned" } else { "uncordoned" };
    let mut failed = Vec::new();
    for name in names {
        let key = ObjectKey::cluster(name.as_str());
        let modified = modify(&client, kind, &key, |text, _| {
            yaml_edit::edit(text, std::slice::from_ref(&change))
        });
        let modified = match modified.await {
            Ok(modified) => modified,
            Err(error) => {
                failed.push(term::chain(&error));
                // The others would have to wait for an answer in vain as well.
                if error.downcast_ref::<StoreError>().is_some() {
                    break;
                }
                continue;
            }
        };
        match modified {
            Modified::Unchanged => context.out.line(format_args!("node/{name} already {word}")),
            Modified::Changed { rewritten } => {
                if rewritten {
                    term::warn(format_args!(
                        "the document of node/{name} was written anew; its comments are lost"
                    ));
                }
                context.out.line(format_args!("node/{name} {word}"));
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("\nerror: "))
}
