//! `setpoint create`: like apply, but nothing of it may exist, and names may be generated.

mod job;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use setpoint_apis::ObjectKey;
use setpoint_apis::document::to_yaml;
use setpoint_apis::strict::{Document, Options};

use super::DryRun;
use super::apply::{check_namespace_flag, finish};
use crate::context::Context;
use crate::manifest::{self, FileArgs, Source, StrictArgs};
use crate::printers::Format;
use crate::random;
use crate::resolve::check_namespace;
use crate::write::{Mode, WriteOptions};
use crate::yaml_edit::{self, Change};

/// Flags of `setpoint create`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct CreateArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    strict: StrictArgs,
    /// Do not write
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// Several transactions where etcd's limits ask for it
    #[arg(long)]
    split: bool,
    /// name, yaml, json or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Create a job, of an image or from a cron job
    Job(job::JobArgs),
    /// Create a namespace
    #[command(visible_alias = "ns")]
    Namespace {
        /// Its name
        name: String,
        /// Do not write
        #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
        dry_run: DryRun,
        /// name, yaml, json or jsonpath=TEMPLATE
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<Format>,
    },
}

/// Runs the command.
pub(crate) async fn run(args: CreateArgs, context: &mut Context) -> Result<()> {
    let args = match args.what {
        Some(What::Job(job)) => return job::run(job, context).await,
        _ => args,
    };
    if let Some(What::Namespace {
        name,
        dry_run,
        output,
    }) = args.what
    {
        check_namespace(&name)?;
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let documents = documents(&namespace, None)?;
        let options = WriteOptions {
            mode: Mode::Create,
            split: false,
            dry_run: dry_run == DryRun::Server,
        };
        return finish(context, &documents, options, dry_run, output.as_ref()).await;
    }
    let sources = args.files.read().await?;
    let namespace = context.namespace()?;
    let options = Options {
        ignore_unsupported: args.strict.ignore_unsupported,
        default_namespace: Some(&namespace),
        allow_generate_name: true,
        ..Options::default()
    };
    let mut documents = manifest::documents(&sources, &options)?;
    check_namespace_flag(&documents, context)?;
    for document in &mut documents {
        name(document)?;
    }
    let options = WriteOptions {
        mode: Mode::Create,
        split: args.split,
        dry_run: args.dry_run == DryRun::Server,
    };
    finish(
        context,
        &documents,
        options,
        args.dry_run,
        args.output.as_ref(),
    )
    .await
}

/// The documents of what a command makes, checked as those that a user writes.
fn documents(made: &Value, namespace: Option<&str>) -> Result<Vec<Document>> {
    let source = Source {
        name: "what is to be created".into(),
        text: to_yaml(made).context("writing down what is to be created")?,
    };
    let options = Options {
        default_namespace: namespace,
        ..Options::default()
    };
    manifest::documents(&[source], &options)
}

/// Gives a document without a name one.
fn name(document: &mut Document) -> Result<()> {
    if !document.key.name.is_empty() {
        return Ok(());
    }
    let Some(prefix) = &document.generate_name else {
        bail!(
            "{}:{}: the object has neither a name nor a generateName",
            document.source,
            document.line
        );
    };
    // The whole must stay within the length of a name.
    let prefix: String = prefix.chars().take(58).collect();
    let name = format!("{prefix}{}", random::suffix()?);
    let set = Change::set(&["metadata", "name"], name.clone());
    document.text = yaml_edit::edit(&document.text, &[set])
        .context("putting the generated name into the document")?
        .text;
    document.value["metadata"]["name"] = name.clone().into();
    document.key = ObjectKey::namespaced(document.key.namespace.clone(), name);
    Ok(())
}
