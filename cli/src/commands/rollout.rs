//! `setpoint rollout`: follows a rollout, restarts, pauses and resumes it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use setpoint_apis::{Key, ObjectKey};
use tokio::time::Instant;

use crate::client::Client;
use crate::context::Context;
use crate::kinds::KindInfo;
use crate::object::Object;
use crate::printers::columns::replicas;
use crate::resolve;
use crate::term::{self, Progress};
use crate::write::{Modified, modify};
use crate::yaml_edit::{self, Change};

/// The annotation of the template that makes it another one; kubectl's.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Flags of `setpoint rollout`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Show how far it is, until it is done
    Status {
        /// TYPE NAME or TYPE/NAME
        #[arg(required = true, value_name = "RESOURCE")]
        words: Vec<String>,
        /// Stay until it is done
        #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
        watch: bool,
        /// Give up after so long; 0 never
        #[arg(long, default_value = "0", value_name = "DURATION", value_parser = super::duration)]
        timeout: Duration,
    },
    /// Replace all pods by new ones, a few at a time
    Restart {
        /// TYPE NAME... or TYPE/NAME...
        #[arg(required = true, value_name = "RESOURCE")]
        words: Vec<String>,
    },
    /// Let changes of the template wait
    Pause {
        /// TYPE NAME... or TYPE/NAME...
        #[arg(required = true, value_name = "RESOURCE")]
        words: Vec<String>,
    },
    /// Let changes of the template go on
    Resume {
        /// TYPE NAME... or TYPE/NAME...
        #[arg(required = true, value_name = "RESOURCE")]
        words: Vec<String>,
    },
}

/// Runs the command.
pub(crate) async fn run(args: RolloutArgs, context: &mut Context) -> Result<()> {
    match args.what {
        What::Status {
            words,
            watch,
            timeout,
        } => {
            let client = context.client().await?;
            let namespace = context.namespace()?;
            let timeout = if timeout.is_zero() {
                Duration::from_secs(u64::from(u32::MAX))
            } else {
                timeout
            };
            for (kind, key) in resolve::named(&client, &words, &namespace).await? {
                if watch {
                    until_done(context, &client, kind, &key, timeout, true).await?;
                } else {
                    let object = client
                        .find(kind, &key)
                        .await?
                        .with_context(|| not_found(&kind, &key))?;
                    context.out.line(progress(&object)?.text());
                }
            }
            Ok(())
        }
        What::Restart { words } => {
            let now = context.now().whole_seconds().to_string();
            let path = ["spec", "template", "metadata", "annotations", RESTARTED_AT];
            change(context, &words, "restarted", &Change::set(&path, now)).await
        }
        What::Pause { words } => {
            change(
                context,
                &words,
                "paused",
                &Change::set(&["spec", "paused"], true),
            )
            .await
        }
        What::Resume { words } => {
            change(
                context,
                &words,
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
    words: &[String],
    word: &str,
    change: &Change,
) -> Result<()> {
    let client = context.client().await?;
    let namespace = context.namespace()?;
    for (kind, key) in resolve::named(&client, words, &namespace).await? {
        if kind.plural != "deployments" {
            bail!("{} have no rollouts", kind.plural);
        }
        let modified = modify(&client, kind, &key, |text, _| {
            yaml_edit::edit(text, std::slice::from_ref(change))
        })
        .await?;
        let name = kind.full_name(&key.name);
        match modified {
            Modified::Unchanged => context.out.line(format_args!("{name} already {word}")),
            Modified::Changed { rewritten } => {
                if rewritten {
                    term::warn(format_args!(
                        "the document of {name} was written anew; its comments are lost"
                    ));
                }
                context.out.line(format_args!("{name} {word}"));
            }
        }
    }
    Ok(())
}

/// How far a rollout is.
#[derive(Debug, PartialEq, Eq)]
enum Progressing {
    Done(String),
    Waiting(String),
}

impl Progressing {
    fn text(&self) -> &str {
        match self {
            Self::Done(text) | Self::Waiting(text) => text,
        }
    }
}

/// How far a workload is; an error when it will not get further.
fn progress(o: &Object) -> Result<Progressing> {
    let status = |field: &str| o.number_at(&["status", field]);
    let name = &o.key.name;
    let wanted = replicas(o);
    let observed = o
        .at(&["status", "observedGeneration"])
        .and_then(Value::as_i64);
    let generation = o.revisions.map_or(0, |r| r.version);
    refuse_invalid(o)?;
    if observed.is_none_or(|observed| observed < generation) {
        return Ok(Progressing::Waiting(format!(
            "Waiting for {} spec update to be observed...",
            o.kind.singular()
        )));
    }
    if o.kind.plural == "replicasets" {
        let ready = status("readyReplicas");
        return Ok(if ready >= wanted && status("replicas") == wanted {
            Progressing::Done(format!("replicaset {name:?} has {wanted} ready replicas"))
        } else {
            Progressing::Waiting(format!(
                "Waiting for replicaset {name:?}: {ready} of {wanted} replicas are ready..."
            ))
        });
    }
    if o.kind.plural != "deployments" {
        bail!("{} have no rollouts", o.kind.plural);
    }
    if o.condition("Progressing")
        .is_some_and(|c| c["reason"] == "ProgressDeadlineExceeded")
    {
        bail!("deployment {name:?} exceeded its progress deadline");
    }
    let (updated, total, available) = (
        status("updatedReplicas"),
        status("replicas"),
        status("availableReplicas"),
    );
    let waiting = |what: String| {
        Progressing::Waiting(format!(
            "Waiting for deployment {name:?} rollout to finish: {what}..."
        ))
    };
    Ok(if updated < wanted {
        waiting(format!(
            "{updated} out of {wanted} new replicas have been updated"
        ))
    } else if total > updated {
        waiting(format!(
            "{} old replicas are pending termination",
            total - updated
        ))
    } else if available < updated {
        waiting(format!(
            "{available} of {updated} updated replicas are available"
        ))
    } else {
        Progressing::Done(format!("deployment {name:?} successfully rolled out"))
    })
}

/// An error when the controller has frozen the workload, because a document does not parse.
fn refuse_invalid(o: &Object) -> Result<()> {
    let name = o.full_name();
    if let Some(message) = &o.invalid {
        bail!("{name} is invalid, so nothing of it is rolled out: {message}");
    }
    let Some(condition) = o.condition("Invalid").filter(|c| c["status"] == "True") else {
        return Ok(());
    };
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    // Of its own document that was said before it was mended.
    if text("reason") == "DocumentInvalid" {
        return Ok(());
    }
    bail!(
        "{name} is not rolled out: {}: {}",
        text("reason"),
        text("message")
    )
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
        let progress = progress(&object)?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Revisions;
    use crate::printers::tests::object;

    fn check(status: Value, expect: &str) {
        let mut o = object(
            "deployments",
            json!({"spec": {"replicas": 3}, "status": status}),
        );
        o.revisions = Some(Revisions {
            created: 1,
            modified: 2,
            version: 2,
        });
        let text = progress(&o).map_or_else(|e| e.to_string(), |p| p.text().to_owned());
        assert!(text.contains(expect), "{text}");
    }

    #[test]
    fn a_rollout_says_what_it_waits_for() {
        check(json!({}), "to be observed");
        check(json!({"observedGeneration": 1}), "to be observed");
        let at = |updated: i64, total: i64, available: i64| json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": total, "availableReplicas": available});
        check(at(1, 3, 3), "1 out of 3 new replicas");
        check(at(3, 4, 3), "1 old replicas");
        check(at(3, 3, 2), "2 of 3 updated replicas are available");
        check(at(3, 3, 3), "successfully rolled out");
        check(
            json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
            "exceeded its progress deadline",
        );
    }

    #[test]
    fn a_rollout_that_is_frozen_fails_with_the_reason() {
        let invalid = |reason: &str| {
            json!({"observedGeneration": 1, "conditions": [
                {"type": "Invalid", "status": "True", "reason": reason, "message": "ReplicaSet web-1: no"}]})
        };
        check(
            invalid("ReplicaSetInvalid"),
            "ReplicaSetInvalid: ReplicaSet web-1: no",
        );
        // The document is readable by now, and the controller has not looked at it yet.
        check(invalid("DocumentInvalid"), "to be observed");
        let mut broken = object("deployments", json!({"invalid": {"message": "no"}}));
        broken.invalid = Some("no".into());
        assert!(progress(&broken).is_err());
    }
}
