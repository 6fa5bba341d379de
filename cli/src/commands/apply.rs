//! `setpoint apply`: what manifests describe becomes what is wanted, at one revision or not at all.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use setpoint_apis::LabelSelector;
use setpoint_apis::strict::{Document, Options};
use setpoint_what_if::Proposal;

use super::DryRun;
use crate::client::Client;
use crate::context::Context;
use crate::kinds::KindInfo;
use crate::manifest::{self, FileArgs, Source, StrictArgs};
use crate::object::{Object, pairs};
use crate::planning::{self, Origin};
use crate::printers::{self, Format};
use crate::term;
use crate::write::{self, Mode, Verdict, WriteOptions};

/// Flags of `setpoint apply`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    strict: StrictArgs,
    /// Only what has these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Do not write
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: Try,
    /// Several transactions where etcd's limits ask for it (about 120 objects, 1.5 MiB); each is all or nothing
    #[arg(long)]
    split: bool,
    /// Keep metadata.uid, as a restore needs it
    #[arg(long, hide = true)]
    keep_uid: bool,
    /// name, yaml, json or jsonpath=TEMPLATE; with --dry-run=schedule: wide, yaml, json or jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// How an apply is to be tried without doing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Try {
    /// Do it
    #[default]
    None,
    /// Write nothing; check the manifests, and say what would become of the objects
    Client,
    /// Write nothing; check as the writing would, namespaces and limits included
    Server,
    /// Write nothing; show where the pods would go, and which would wait
    Schedule,
}

/// Runs the command.
pub(crate) async fn run(args: ApplyArgs, context: &mut Context) -> Result<()> {
    let sources = args.files.read().await?;
    let namespace = context.namespace()?;
    let options = Options {
        ignore_unsupported: args.strict.ignore_unsupported,
        default_namespace: Some(&namespace),
        keep_uid: args.keep_uid,
        ..Options::default()
    };
    let mut documents = manifest::documents(&sources, &options)?;
    check_namespace_flag(&documents, context)?;
    if let Some(selector) = &args.selector {
        let selector: LabelSelector = selector.parse()?;
        documents.retain(|d| selector.matches(&pairs(d.value["metadata"].get("labels"))));
        if documents.is_empty() {
            bail!("no object has the labels of the selector");
        }
    }
    let dry_run = match args.dry_run {
        Try::None => DryRun::None,
        Try::Client => DryRun::Client,
        Try::Server => DryRun::Server,
        Try::Schedule => {
            return schedule(context, &sources, &documents, &args).await;
        }
    };
    let options = WriteOptions {
        mode: Mode::Apply,
        split: args.split,
        dry_run: dry_run == DryRun::Server,
    };
    finish(context, &documents, options, dry_run, args.output.as_ref()).await
}

/// Shows where the pods would go, as the cluster is now.
async fn schedule(
    context: &mut Context,
    sources: &[Source],
    documents: &[Document],
    args: &ApplyArgs,
) -> Result<()> {
    let output = args.output.as_ref();
    planning::check_format(output)?;
    let client = context.client().await?;
    // What could not be written is no plan, and what is planned is what would be written.
    let options = WriteOptions {
        mode: Mode::Apply,
        split: args.split,
        dry_run: true,
    };
    let outcomes = write::write(&client, documents, options).await?;
    let documents: Vec<Document> = outcomes.into_iter().map(|o| o.document).collect();
    let world = client.world().await?;
    planning::warn_of_unreadable(&world);
    let mut proposal = Proposal::new(world);
    planning::lay_over(&mut proposal, &documents, sources, Origin::Cluster)?;
    // The scheduler draws by the revision that it decides on; any other seed is as good for a guess.
    let seed = proposal.world().revision.unsigned_abs();
    planning::print(context, &proposal.plan(seed), output)
}

/// Writes documents and prints what became of them.
pub(crate) async fn finish(
    context: &mut Context,
    documents: &[Document],
    options: WriteOptions,
    dry_run: DryRun,
    output: Option<&Format>,
) -> Result<()> {
    printers::check_of_objects(output)?;
    if dry_run == DryRun::Client {
        return match output {
            None if options.mode == Mode::Create => {
                for d in documents {
                    context.out.line(format_args!(
                        "{} created{}",
                        KindInfo::from(&d.kind).full_name(&d.key.name),
                        dry_run.suffix()
                    ));
                }
                Ok(())
            }
            None => {
                let client = context.client_to_write(documents).await?;
                let outcomes = write::preview(&client, documents, options.mode).await?;
                told(context, &outcomes, dry_run);
                Ok(())
            }
            Some(format) => {
                let objects: Vec<Object> = documents.iter().map(unwritten).collect();
                printers::document(&mut context.out, format, &objects, objects.len() > 1)
            }
        };
    }
    let client = context.client_to_write(documents).await?;
    let outcomes = write::write(&client, documents, options).await?;
    if !options.dry_run {
        match write::overlaps(&client, &outcomes).await {
            Ok(warnings) => warnings.iter().for_each(term::warn),
            // It is written all the same.
            Err(error) => term::warn(format_args!(
                "whether others select the same pods could not be looked up: {error:#}"
            )),
        }
    }
    if !options.dry_run {
        warn_of_frozen(&client, &outcomes).await;
    }
    let Some(format) = output else {
        told(context, &outcomes, dry_run);
        return Ok(());
    };
    let objects = if options.dry_run {
        outcomes.iter().map(|o| unwritten(&o.document)).collect()
    } else {
        read_back(&client, &outcomes).await?
    };
    printers::document(&mut context.out, format, &objects, objects.len() > 1)
}

/// Says what became, or would become, of each object.
fn told(context: &mut Context, outcomes: &[write::Outcome], dry_run: DryRun) {
    for o in outcomes {
        context.out.line(format_args!(
            "{} {}{}",
            o.kind.full_name(&o.key.name),
            o.verdict.word(),
            dry_run.suffix()
        ));
    }
}

/// Warns of what was changed and is frozen. It is written, whatever the look-up comes to.
async fn warn_of_frozen(client: &Client, outcomes: &[write::Outcome]) {
    let may_be = [
        "deployments",
        "replicasets",
        "statefulsets",
        "daemonsets",
        "jobs",
    ];
    for o in outcomes {
        if o.verdict == Verdict::Created || !may_be.contains(&o.kind.plural) {
            continue;
        }
        let found = client.find(o.kind, &o.key).await.ok().flatten();
        if let Some(why) = found.as_ref().and_then(write::frozen) {
            term::warn(why);
        }
    }
}

async fn read_back(client: &Client, outcomes: &[write::Outcome]) -> Result<Vec<Object>> {
    let mut objects = Vec::with_capacity(outcomes.len());
    for o in outcomes {
        objects.extend(client.find(o.kind, &o.key).await?);
    }
    Ok(objects)
}

fn unwritten(document: &Document) -> Object {
    let mut value = document.value.clone();
    if !document.key.namespace.is_empty() {
        value["metadata"]["namespace"] = json!(&*document.key.namespace);
    }
    Object {
        kind: KindInfo::from(&document.kind),
        key: document.key.clone(),
        value,
        invalid: None,
        text: Some(document.text.clone()),
        revisions: None,
        created: None,
        terminating: false,
    }
}

/// A namespace that was asked for must not differ from what the documents say: one of the two is a mistake.
///
/// # Errors
/// Names the first document that says otherwise.
pub(crate) fn check_namespace_flag(documents: &[Document], context: &Context) -> Result<()> {
    let Some(asked) = context.given_namespace() else {
        return Ok(());
    };
    let other = |d: &&Document| d.kind.namespaced && &*d.key.namespace != asked;
    if let Some(d) = documents.iter().find(other) {
        bail!(
            "{}:{}: the namespace of the document, {:?}, is not the one that was asked for, {asked:?}; leave out --namespace or \
             the namespace of the document",
            d.source,
            d.line,
            &*d.key.namespace
        );
    }
    Ok(())
}
