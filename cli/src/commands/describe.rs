//! `setpoint describe`: everything about an object that a person asks next, with its events.

mod events;
mod generic;
mod node;
mod pod;
pub(super) mod sheet;
mod workload;

use anyhow::{Result, bail};
use clap::Args;

use crate::client::Client;
use crate::context::{Context, DEFAULT_NAMESPACE};
use crate::manifest::FileArgs;
use crate::object::Object;
use crate::printers::age;
use crate::resolve::{self, Targets};
use crate::select::SelectArgs;
use sheet::Sheet;

/// Flags of `setpoint describe`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DescribeArgs {
    /// TYPE, TYPE NAME... or TYPE/NAME...; the beginning of a name will do
    #[arg(required_unless_present = "filenames", value_name = "RESOURCE")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    select: SelectArgs,
}

/// Runs the command.
pub(crate) async fn run(args: DescribeArgs, context: &mut Context) -> Result<()> {
    let filter = args.select.filter()?;
    let client = context.client().await?;
    let namespace = if args.all_namespaces {
        None
    } else {
        Some(context.namespace()?)
    };
    let in_namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let mut objects = Vec::new();
    let mut missing = Vec::new();
    match resolve::words_or_files(&client, &args.words, &args.files, in_namespace).await? {
        Targets::Kinds(kinds) => {
            for kind in kinds {
                filter.check(&kind)?;
                objects.extend(client.list(kind, namespace.as_deref()).await?.objects);
            }
            objects.retain(|o| filter.matches(o));
        }
        Targets::Named(names) => {
            for (kind, key) in names {
                let name = &*key.name;
                if let Some(object) = client.find(kind, &key).await? {
                    objects.push(object);
                    continue;
                }
                // As kubectl: the beginning of a name is enough.
                let mut listed = client.list(kind, namespace.as_deref()).await?.objects;
                listed.retain(|o| o.key.name.starts_with(name));
                if listed.is_empty() {
                    missing.push(format!("{} {name:?} not found", kind.full_plural()));
                }
                objects.extend(listed);
            }
        }
    }
    for (i, object) in objects.iter().enumerate() {
        if i > 0 {
            context.out.text("\n\n");
        }
        let sheet = describe(&client, object).await?;
        context.out.text(sheet);
    }
    context.out.flush()?;
    match (objects.is_empty(), missing.is_empty()) {
        (_, false) => bail!("{}", missing.join("\nerror: ")),
        (true, true) => {
            crate::term::note("No resources found");
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn describe(client: &Client, object: &Object) -> Result<Sheet> {
    let now = client.now();
    let mut sheet = Sheet::default();
    sheet.field("Name", &*object.key.name);
    if object.kind.namespaced {
        sheet.field("Namespace", &*object.key.namespace);
    }
    if let Some(message) = &object.invalid {
        sheet.field("Invalid", message);
        if object.text.is_some() && object.is_unreadable() {
            sheet.field(
                "",
                "what was good before stays in force; nothing is deleted because of this",
            );
        }
    }
    match object.kind.plural {
        "pods" => pod::describe(&mut sheet, client, object).await?,
        "nodes" => node::describe(&mut sheet, client, object).await?,
        "deployments" | "replicasets" => workload::describe(&mut sheet, client, object).await?,
        _ => generic::describe(&mut sheet, object),
    }
    if object.kind.plural != "events" {
        events::describe(&mut sheet, client, object, now).await?;
    }
    Ok(sheet)
}

/// Labels, annotations and the time of creation: what every object has.
fn common(sheet: &mut Sheet, object: &Object, now: setpoint_apis::time::Timestamp) {
    if let Some(created) = object.created {
        sheet.field(
            "Created",
            format!(
                "{} ({} ago)",
                created.whole_seconds(),
                age::since(Some(created), now)
            ),
        );
    }
    sheet.pairs("Labels", &object.labels());
    sheet.pairs(
        "Annotations",
        &crate::object::pairs(object.at(&["metadata", "annotations"])),
    );
    let owners = object.list_at(&["metadata", "ownerReferences"]).iter();
    if let Some(owner) = owners
        .filter(|o| o["controller"] == true)
        .find_map(|o| Some(format!("{}/{}", o["kind"].as_str()?, o["name"].as_str()?)))
    {
        sheet.field("Controlled By", owner);
    }
}
