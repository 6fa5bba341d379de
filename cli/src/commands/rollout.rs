//! `setpoint rollout`: follows a rollout, restarts, pauses and resumes it, shows what was before and goes back to it.

mod content;
mod history;
mod progress;
mod undo;

use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use setpoint_apis::{Key, LabelSelector, ObjectKey};
use setpoint_store::StoreError;
use tokio::time::Instant;

use super::DryRun;
use crate::client::Client;
use crate::context::Context;
use crate::kinds::KindInfo;
use crate::manifest::FileArgs;
use crate::printers::Format;
use crate::resolve::{self, Targets};
use crate::term::{self, Progress};
use crate::write::{self, Modified, modify};
use crate::yaml_edit::Change;
use progress::Progressing;

/// The annotation of the template that makes it another one; kubectl's.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Flags of `setpoint rollout`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    what: What,
}

/// Which workloads are meant.
#[derive(Args, Clone, Debug)]
struct TargetArgs {
    /// TYPE NAME..., TYPE/NAME..., or TYPE for all of the namespace
    #[arg(value_name = "RESOURCE")]
    words: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
}

impl TargetArgs {
    /// The workloads that there are of those that are meant.
    ///
    /// # Errors
    /// When the words are none, a selector is malformed, nothing is meant, or the store does not answer.
    async fn find(&self, context: &Context, client: &Client) -> Result<Vec<(KindInfo, ObjectKey)>> {
        let namespace = context.namespace()?;
        let targets = resolve::words_or_files(client, &self.words, &self.files, &namespace).await?;
        let kinds = match targets {
            Targets::Named(_) if self.selector.is_some() => {
                bail!("names exclude a selector (-l)")
            }
            Targets::Named(named) => return Ok(named),
            Targets::Kinds(kinds) => kinds,
        };
        let selector: LabelSelector = match &self.selector {
            Some(text) => text.parse()?,
            None => LabelSelector::default(),
        };
        let mut found = Vec::new();
        for kind in kinds {
            let listed = client.list(kind, Some(&namespace)).await?.objects;
            let meant = listed.into_iter().filter(|o| selector.matches(&o.labels()));
            found.extend(meant.map(|o| (kind, o.key)));
        }
        if found.is_empty() {
            bail!("No resources found in {namespace} namespace.");
        }
        Ok(found)
    }
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Show how far it is, until it is done
    Status {
        #[command(flatten)]
        targets: TargetArgs,
        /// Stay until it is done
        #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        watch: bool,
        /// Only when this revision is the one that was asked for last; 0 is whichever that is
        #[arg(long, default_value_t = 0, value_name = "N")]
        revision: i64,
        /// Give up after so long; 0 never
        #[arg(long, default_value = "0", value_name = "DURATION", value_parser = super::duration)]
        timeout: Duration,
    },
    /// Replace all pods by new ones, a few at a time
    Restart {
        #[command(flatten)]
        targets: TargetArgs,
    },
    /// Let changes of the template wait
    Pause {
        #[command(flatten)]
        targets: TargetArgs,
    },
    /// Show the revisions there are
    History {
        #[command(flatten)]
        targets: TargetArgs,
        /// Show the pod template of this revision; 0: show all revisions
        #[arg(long, value_name = "N")]
        revision: Option<i64>,
        /// The objects that keep the revisions: name, yaml, json or jsonpath=TEMPLATE
        #[arg(short, long, value_name = "FORMAT")]
        output: Option<Format>,
    },
    /// Go back to the revision before, or to another one
    Undo {
        #[command(flatten)]
        targets: TargetArgs,
        /// The revision to go back to; the one before by default
        #[arg(long, value_name = "N")]
        to_revision: Option<i64>,
        /// Put back what was in the ConfigMaps and Secrets that the revision read, too
        #[arg(long)]
        restore_config: bool,
        /// Only say what would be done
        #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "client", require_equals = true)]
        dry_run: DryRun,
    },
    /// Let changes of the template go on
    Resume {
        #[command(flatten)]
        targets: TargetArgs,
    },
}

/// Runs the command.
pub(crate) async fn run(args: RolloutArgs, context: &mut Context) -> Result<()> {
    match args.what {
        What::Status {
            targets,
            watch,
            revision,
            timeout,
        } => {
            let client = context.client().await?;
            let timeout = if timeout.is_zero() {
                Duration::from_secs(u64::from(u32::MAX))
            } else {
                timeout
            };
            // One for all of them.
            let end = Instant::now() + timeout;
            let all = targets.find(context, &client).await?;
            each(context, all, async |context, kind, key| {
                let how = Follow {
                    watch,
                    revision,
                    timeout: end.saturating_duration_since(Instant::now()),
                };
                status(context, &client, kind, key, how).await
            })
            .await
        }
        What::History {
            targets,
            revision,
            output,
        } => history::run(context, &targets, revision, output.as_ref()).await,
        What::Undo {
            targets,
            to_revision,
            restore_config,
            dry_run,
        } => {
            let how = undo::How {
                to: to_revision,
                restore_config,
                dry_run,
            };
            undo::run(context, &targets, how).await
        }
        What::Restart { targets } => {
            let now = context.now().whole_seconds().to_string();
            let path = ["spec", "template", "metadata", "annotations", RESTARTED_AT];
            change(context, &targets, "restarted", &Change::set(&path, now)).await
        }
        What::Pause { targets } => {
            change(
                context,
                &targets,
                "paused",
                &Change::set(&["spec", "paused"], true),
            )
            .await
        }
        What::Resume { targets } => {
            change(
                context,
                &targets,
                "resumed",
                &Change::remove(&["spec", "paused"]),
            )
            .await
        }
    }
}

fn not_found(kind: &KindInfo, key: &ObjectKey) -> String {
    format!("{} {:?} not found", kind.full_plural(), &*key.name)
}

async fn change(
    context: &mut Context,
    targets: &TargetArgs,
    word: &str,
    change: &Change,
) -> Result<()> {
    let client = context.client().await?;
    let targets = targets.find(context, &client).await?;
    let restart = word == "restarted";
    let known: &[&str] = match restart {
        true => &["deployments", "statefulsets", "daemonsets"],
        false => &["deployments"],
    };
    if let Some((kind, _)) = targets.iter().find(|(k, _)| !known.contains(&k.plural)) {
        bail!("{} cannot be {word}", kind.plural);
    }
    each(context, targets, async |context, kind, key| {
        let name = kind.full_name(&key.name);
        let modified = modify(&client, kind, key, |text, _| {
            if restart && serde_yaml::from_str::<Value>(text)?["spec"]["paused"] == true {
                bail!("{name} is paused: `setpoint rollout resume {name}` first");
            }
            write::edit(text, std::slice::from_ref(change))
        })
        .await?;
        modified.warn_when_rewritten(&name);
        match modified {
            Modified::Unchanged => context.out.line(format_args!("{name} already {word}")),
            Modified::Changed { .. } => context.out.line(format_args!("{name} {word}")),
        }
        Ok(())
    })
    .await
}

/// Does something about each of several workloads. When it fails for one the others have their turn all the same, unless
/// nobody answers or reads any more.
///
/// # Errors
/// What has failed, as one error.
async fn each(
    context: &mut Context,
    targets: Vec<(KindInfo, ObjectKey)>,
    mut does: impl AsyncFnMut(&mut Context, KindInfo, &ObjectKey) -> Result<()>,
) -> Result<()> {
    let mut failed = Vec::new();
    for (kind, key) in targets {
        let Err(error) = does(context, kind, &key).await else {
            continue;
        };
        let is_over = is_of_all(&error) || term::is_broken_pipe(&error);
        if is_over && failed.is_empty() {
            return Err(error);
        }
        failed.push(said_of(&kind, &key, &error));
        if is_over {
            break;
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    context.out.flush()?;
    bail!("{}", failed.join("\nerror: "))
}

/// Whether the next one would fail likewise.
fn is_of_all(error: &Error) -> bool {
    use StoreError::{NoSpace, Unavailable, Unknown};
    let error = error.downcast_ref();
    error.is_some_and(|e| matches!(e, Unavailable { .. } | Unknown { .. } | NoSpace { .. }))
}

/// An error with the name of the object that it is about.
fn said_of(kind: &KindInfo, key: &ObjectKey, error: &Error) -> String {
    let (text, name) = (term::chain(error), kind.full_name(&key.name));
    match text.contains(&name) || text.contains(&format!("{:?}", &*key.name)) {
        true => text,
        false => format!("{name}: {text}"),
    }
}

/// How `rollout status` looks.
#[derive(Clone, Copy, Debug)]
struct Follow {
    /// Until it is done.
    watch: bool,
    /// The revision that has to be the newest; 0 is whichever that is.
    revision: i64,
    /// How long.
    timeout: Duration,
}

/// `rollout status` of one workload.
async fn status(
    context: &mut Context,
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    how: Follow,
) -> Result<()> {
    if how.revision != 0 {
        history::check_newest(client, kind, key, how.revision).await?;
    }
    if how.watch {
        return until_done(context, client, kind, key, how.timeout, true).await;
    }
    let object = client
        .find(kind, key)
        .await?
        .with_context(|| not_found(&kind, key))?;
    let progress = content::progress(client, &object).await?;
    context.out.line(progress.text());
    Ok(())
}

/// Follows a workload until it is as wanted.
pub(crate) async fn until_done(
    context: &mut Context,
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    timeout: Duration,
    chatty: bool,
) -> Result<()> {
    let deadline = Instant::now() + timeout;
    let line = Progress::new(format!("waiting for {}", kind.full_name(&key.name)));
    let (_, revision) = client.get(&Key::Meta("schema")).await?;
    let mut changes = client.changes(kind, revision).await?;
    let mut said = String::new();
    loop {
        let object = client
            .find(kind, key)
            .await?
            .with_context(|| not_found(&kind, key))?;
        let progress = content::progress(client, &object).await?;
        let text = progress.text().to_owned();
        if chatty && text != said {
            line.suspend(|| {
                context.out.line(&text);
                context.out.flush()
            })?;
        }
        line.say(text.clone());
        said = text;
        if matches!(progress, Progressing::Done(_)) {
            return Ok(());
        }
        loop {
            let Ok(change) = tokio::time::timeout_at(deadline, changes.next()).await else {
                bail!("timed out: {said}")
            };
            if change?.keys.contains(key) {
                break;
            }
        }
    }
}
