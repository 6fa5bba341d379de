//! `setpoint delete`: removes what is wanted, and waits until it is gone.

mod gone;
mod namespace;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use setpoint_apis::records::Deletion;
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::{Compare, Outcome, Put, StoreError, Txn, TxnOp};
use tokio::time::Instant;

use super::DryRun;
use crate::autoscaled;
use crate::client::Client;
use crate::context::{Context, DEFAULT_NAMESPACE};
use crate::kinds::KindInfo;
use crate::manifest::FileArgs;
use crate::object::Object;
use crate::printers::Format;
use crate::resolve::{self, Targets};
use crate::select::SelectArgs;
use crate::term;

/// How many objects are deleted by one transaction.
const BATCH: usize = 40;

/// A failure within this time is one of the connection, and another try may get through.
const PROMPT: Duration = Duration::from_secs(1);

/// Namespaces that a cluster cannot do without.
const KEPT: [&str; 2] = ["default", "setpoint-system"];

/// Flags of `setpoint delete`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeleteArgs {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all
    #[arg(value_name = "RESOURCE")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    select: SelectArgs,
    /// All of the type in the namespace
    #[arg(long)]
    all: bool,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// What happens with the objects that it owns
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "background", require_equals = true)]
    cascade: Cascade,
    /// Wait until it is gone, for pods: until they have stopped
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    wait: bool,
    /// Wait no longer than this; 0 for ever
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = super::duration)]
    timeout: Duration,
    /// What does not exist is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Not supported: the pod's own terminationGracePeriodSeconds applies
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    grace_period: Option<i64>,
    /// Not supported, as --grace-period=1
    #[arg(long)]
    now: bool,
    /// Not supported: what runs is never forgotten before it has stopped
    #[arg(long)]
    force: bool,
    /// Do not write
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// name prints names alone
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

/// What happens with the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Cascade {
    /// They are deleted after it
    #[default]
    Background,
    /// They stay
    Orphan,
    /// They are deleted first; with --wait the command ends when they have stopped
    Foreground,
}

/// Runs the command.
pub(crate) async fn run(args: DeleteArgs, context: &mut Context) -> Result<()> {
    refuse(&args)?;
    if let Some(format) = args.output.as_ref().filter(|f| !matches!(f, Format::Name)) {
        bail!("-o {} is not supported here: name", format.word());
    }
    let client = context.client().await?;
    let (objects, missing) = find(&args, context, &client).await?;
    for o in &objects {
        if o.kind.plural == "namespaces" && KEPT.contains(&&*o.key.name) {
            bail!(
                "namespaces {:?} is forbidden: this namespace may not be deleted",
                &*o.key.name
            );
        }
    }
    if objects.is_empty() && missing.is_empty() {
        context.out.line("No resources found");
    }
    let writes = args.dry_run == DryRun::None;
    for kept in autoscaled::kept(&client, &objects).await? {
        if writes {
            // Before the autoscaler goes: until then the number has no effect, and after that it holds at once.
            kept.write(&client).await?;
        }
        if args.output.is_none() {
            context.out.line(kept.line(writes));
        }
    }
    let mut family = gone::Family::default();
    if writes && args.wait && args.cascade == Cascade::Foreground {
        family = gone::Family::new(&objects);
        family.grow(&client).await?;
    }
    if writes {
        remove(&client, &objects, args.cascade).await?;
        forget_events(&client, &objects).await;
    }
    for o in &objects {
        match args.output {
            Some(_) => context.out.line(o.full_name()),
            None => {
                let kind = o.full_name();
                let kind = kind.split('/').next().unwrap_or_default();
                context.out.line(format_args!(
                    "{kind} {:?} deleted{}",
                    &*o.key.name,
                    args.dry_run.suffix()
                ));
            }
        }
    }
    context.out.flush()?;
    if args.wait && writes {
        if args.cascade == Cascade::Foreground {
            // What came between the first look and the deletion.
            family.grow(&client).await?;
        }
        gone::wait(&client, &objects, &family, args.timeout).await?;
        // Of how the pods stopped.
        forget_events(&client, &objects).await;
    }
    if missing.is_empty() || args.ignore_not_found {
        return Ok(());
    }
    bail!("{}", missing.join("\nerror: "))
}

fn refuse(args: &DeleteArgs) -> Result<()> {
    if args.grace_period.is_some_and(|s| s >= 0) || args.now {
        bail!(
            "--grace-period and --now are not supported: the pod's own terminationGracePeriodSeconds applies"
        );
    }
    if args.force {
        bail!(
            "--force is not supported: what runs is never forgotten before it has stopped, or its node is known to be lost"
        );
    }
    Ok(())
}

async fn find(
    args: &DeleteArgs,
    context: &Context,
    client: &Client,
) -> Result<(Vec<Object>, Vec<String>)> {
    let namespace = if args.all_namespaces {
        None
    } else {
        Some(context.namespace()?)
    };
    let filter = args.select.filter()?;
    let mut named: Vec<(KindInfo, ObjectKey)> = Vec::new();
    let mut objects = Vec::new();
    let in_namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    match resolve::words_or_files(client, &args.words, &args.files, in_namespace).await? {
        Targets::Named(_) if args.select.is_given() || args.all => {
            bail!("names exclude a selector and --all")
        }
        Targets::Named(names) if args.files.is_given() => {
            // The last one first: what needs another goes before it.
            named.extend(names.into_iter().rev());
        }
        Targets::Named(names) => {
            if args.all_namespaces {
                bail!("a resource cannot be deleted by name across all namespaces");
            }
            named = names;
        }
        Targets::Kinds(kinds) if args.all || args.select.is_given() => {
            for kind in kinds {
                filter.check(&kind)?;
                let listed = client.list(kind, namespace.as_deref()).await?.objects;
                objects.extend(listed.into_iter().filter(|o| filter.matches(o)));
            }
        }
        Targets::Kinds(_) => bail!("a resource name is needed, a selector (-l) or --all"),
    }
    let mut missing = Vec::new();
    for (kind, key) in named {
        match client.find(kind, &key).await? {
            Some(object) => objects.push(object),
            None => missing.push(format!("{} {:?} not found", kind.full_plural(), &*key.name)),
        }
    }
    if objects.iter().any(|o| o.kind.plural == "events") {
        bail!("events go away by themselves after an hour, and are not deleted");
    }
    Ok((objects, missing))
}

/// Deletes the documents. Each object is guarded on being the one that was found; one that was created anew meanwhile
/// stays.
async fn remove(client: &Client, objects: &[Object], cascade: Cascade) -> Result<()> {
    let (namespaces, others): (Vec<&Object>, Vec<&Object>) =
        objects.iter().partition(|o| o.kind.plural == "namespaces");
    let timeline = client.timeline().await?;
    for batch in others.chunks(BATCH) {
        let mut txn = Txn::new();
        for object in batch {
            txn.then
                .extend(deletion(client, object, cascade).map(|t| TxnOp::Txn(Box::new(t))));
        }
        if txn.then.is_empty() {
            continue;
        }
        txn.then.push(client.clock_put(&timeline));
        retried(client, txn).await.context("deleting")?;
    }
    for object in namespaces {
        namespace::remove(client, object, &timeline)
            .await
            .with_context(|| format!("deleting {}", object.full_name()))?;
    }
    Ok(())
}

/// Removes the events of namespaces that have been deleted.
async fn forget_events(client: &Client, objects: &[Object]) {
    for object in objects.iter().filter(|o| o.kind.plural == "namespaces") {
        // They go by themselves within an hour.
        if let Err(error) = namespace::forget_events(client, &object.key.name).await {
            term::warn(format_args!(
                "the events of {} have stayed: {error:#}",
                object.full_name()
            ));
        }
    }
}

/// Commits, and says whether the guards held in the end. Deleting is idempotent, so an unknown outcome is simply tried
/// again: not when an answer was waited for in vain, because the limit of a request is what a user has to wait.
async fn retried(client: &Client, mut txn: Txn) -> Result<bool> {
    let begun = Instant::now();
    let error = match client.txn(txn.clone()).await {
        Ok(result) => return Ok(result.succeeded),
        Err(error) => error,
    };
    match &error {
        // An etcd that is full takes deletions, and the clock can wait.
        StoreError::NoSpace { .. } => txn.then.retain(|op| !matches!(op, TxnOp::Put(_))),
        _ if error.is_retryable() && begun.elapsed() < PROMPT => {}
        _ => return Err(explain(error)),
    }
    match client.txn(txn).await {
        Ok(result) => Ok(result.succeeded),
        Err(error) => Err(explain(error)),
    }
}

fn explain(error: StoreError) -> anyhow::Error {
    match error.outcome() {
        Outcome::Unknown => anyhow::Error::from(error)
            .context("whether it was deleted is not known; deleting again is safe"),
        Outcome::NotApplied => error.into(),
    }
}

/// The transaction that deletes one object; `None` when its document is gone already and it only has to stop.
fn deletion(client: &Client, object: &Object, cascade: Cascade) -> Option<Txn> {
    let revisions = object.revisions?;
    let key = client.key(&Key::Desired(object.kind.plural, object.key.clone()));
    let mut txn = Txn::new().when(Compare::CreateRevision(key.clone(), revisions.created));
    let policy = match cascade {
        Cascade::Background => None,
        Cascade::Orphan => Some(Deletion::ORPHAN),
        Cascade::Foreground => Some(Deletion::FOREGROUND),
    };
    if let Some(policy) = policy {
        let record = Deletion {
            propagation_policy: policy.into(),
            uid: object.uid().into(),
        };
        let place = client.key(&Key::Deletion(object.kind.plural, object.key.clone()));
        txn.then.push(TxnOp::Put(Put {
            key: place,
            value: document::encode(&record).into(),
            lease: None,
        }));
    }
    if cascade != Cascade::Foreground {
        txn.then.push(TxnOp::Delete(key));
    }
    Some(txn)
}
