//! `setpoint label` and `annotate`: changes labels and annotations, and nothing else of the document.

use anyhow::{Result, bail};
use clap::Args;
use setpoint_apis::{ObjectKey, names};

use crate::context::Context;
use crate::kinds::KindInfo;
use crate::object::pairs;
use crate::resolve::{self, Targets};
use crate::select::SelectArgs;
use crate::write::{self, Modified, modify};
use crate::yaml_edit::Change;

/// Flags of `setpoint label` and `annotate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LabelArgs {
    /// TYPE NAME... or TYPE/NAME..., then KEY=VALUE to set and KEY- to remove
    #[arg(
        required = true,
        value_name = "RESOURCE... KEY=VALUE",
        allow_hyphen_values = false
    )]
    words: Vec<String>,
    /// Change keys that have another value
    #[arg(long)]
    overwrite: bool,
    /// All of the type
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    select: SelectArgs,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Labels.
    Labels,
    /// Annotations.
    Annotations,
}

impl What {
    fn field(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Annotations => "annotations",
        }
    }

    /// As kubectl: labels that were only removed make an object unlabeled.
    fn done(self, changes: &[(String, Option<String>)]) -> &'static str {
        match self {
            Self::Labels if changes.iter().all(|(_, value)| value.is_none()) => "unlabeled",
            Self::Labels => "labeled",
            Self::Annotations => "annotated",
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: LabelArgs, what: What, context: &mut Context) -> Result<()> {
    let (words, changes) = split(&args.words, what)?;
    let filter = args.select.filter()?;
    let client = context.client().await?;
    let namespace = context.namespace()?;
    let objects: Vec<(KindInfo, ObjectKey)> =
        match resolve::targets(&client, &words, &namespace).await? {
            Targets::Named(names) => names,
            Targets::Kinds(kinds) if args.all || args.select.is_given() => {
                let mut all = Vec::new();
                for kind in kinds {
                    filter.check(&kind)?;
                    let listed = client.list(kind, Some(&namespace)).await?.objects;
                    all.extend(
                        listed
                            .into_iter()
                            .filter(|o| filter.matches(o))
                            .map(|o| (kind, o.key)),
                    );
                }
                all
            }
            Targets::Kinds(_) => bail!("a resource name is needed, a selector or --all"),
        };
    for (kind, key) in objects {
        let modified = modify(&client, kind, &key, |text, stored| {
            let now = kind.read(&key, &stored.value)?;
            let now = pairs(now["metadata"].get(what.field()));
            for (name, value) in changes.iter().filter(|_| !args.overwrite) {
                if let (Some(old), Some(new)) = (now.get(name), value)
                    && old != new
                {
                    bail!(
                        "{}: {name} has the value {old:?} already, and --overwrite is not given",
                        kind.full_name(&key.name)
                    );
                }
            }
            let edits: Vec<Change> = changes
                .iter()
                .map(|(name, value)| match value {
                    Some(value) => Change::set(&["metadata", what.field(), name], value.as_str()),
                    None => Change::remove(&["metadata", what.field(), name]),
                })
                .collect();
            write::edit(text, &edits)
        })
        .await?;
        let name = kind.full_name(&key.name);
        modified.warn_when_rewritten(&name);
        match modified {
            Modified::Unchanged => context
                .out
                .line(format_args!("{name} not {}", what.done(&changes))),
            Modified::Changed { .. } => context
                .out
                .line(format_args!("{name} {}", what.done(&changes))),
        }
    }
    Ok(())
}

type Changes = Vec<(String, Option<String>)>;

fn split(words: &[String], what: What) -> Result<(Vec<String>, Changes)> {
    let is_change = |w: &&String| w.contains('=') || w.ends_with('-');
    let (changes, resources): (Vec<&String>, Vec<&String>) = words.iter().partition(is_change);
    if changes.is_empty() {
        bail!("nothing to change: KEY=VALUE sets, KEY- removes");
    }
    let mut parsed = Changes::new();
    for text in changes {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.strip_suffix('-').unwrap_or(text), None),
        };
        if let Err(problem) = names::label_key(name) {
            bail!("the key {name:?} {problem}");
        }
        if let (What::Labels, Some(value)) = (what, value)
            && let Err(problem) = names::label_value(value)
        {
            bail!("the value {value:?} {problem}");
        }
        parsed.push((name.to_owned(), value.map(str::to_owned)));
    }
    Ok((resources.into_iter().cloned().collect(), parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_as_kubectl_says_it() {
        let done = |what: What, word: &str| {
            let words = ["pod".to_owned(), word.to_owned()];
            what.done(&split(&words, what).unwrap().1)
        };
        assert_eq!(done(What::Labels, "x=1"), "labeled");
        assert_eq!(done(What::Labels, "x-"), "unlabeled");
        assert_eq!(done(What::Annotations, "x-"), "annotated");
    }

    #[test]
    fn resources_and_changes_are_told_apart() {
        let words: Vec<String> = ["pod", "a", "x=1", "example.com/y-"]
            .map(String::from)
            .to_vec();
        let (resources, changes) = split(&words, What::Labels).unwrap();
        assert_eq!(resources, ["pod", "a"]);
        assert_eq!(
            changes,
            [
                ("x".to_owned(), Some("1".to_owned())),
                ("example.com/y".to_owned(), None)
            ]
        );
        assert!(split(&["pod".to_owned(), "a b=1".to_owned()], What::Labels).is_err());
        assert!(split(&["pod".to_owned(), "a=b c".to_owned()], What::Labels).is_err());
        assert!(split(&["pod".to_owned(), "a=b c".to_owned()], What::Annotations).is_ok());
    }
}
