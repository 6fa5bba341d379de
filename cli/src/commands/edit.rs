//! `setpoint edit`: a document in an editor, checked before it is stored. Nothing that was typed is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use setpoint_apis::strict::{Document, Options};
use setpoint_apis::{Key, ObjectKey};
use setpoint_store::{Compare, KeyValue, Txn};

use crate::client::Client;
use crate::context::Context;
use crate::kinds::KindInfo;
use crate::manifest::{self, Source, StrictArgs};
use crate::resolve;
use crate::term;
use crate::write;

/// Marks the lines at the top that are not part of the document.
const REMARK: &str = "#! ";

/// Flags of `setpoint edit`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EditArgs {
    /// TYPE NAME... or TYPE/NAME...
    #[arg(required = true, value_name = "RESOURCE")]
    words: Vec<String>,
    #[command(flatten)]
    strict: StrictArgs,
}

/// Runs the command: one object after the other.
pub(crate) async fn run(args: EditArgs, context: &mut Context) -> Result<()> {
    let client = context.client().await?;
    let namespace = context.namespace()?;
    let editor = editor();
    for (kind, key) in resolve::named(&client, &args.words, &namespace).await? {
        let name = &*key.name;
        let (stored, _) = client.get(&Key::Desired(kind.plural, key.clone())).await?;
        let Some(stored) = stored else {
            bail!("{} {name:?} not found", kind.full_plural())
        };
        let changed = one(&client, kind, &key, &stored, &editor, args.strict).await?;
        let name = kind.full_name(name);
        if changed {
            context.out.line(format_args!("{name} edited"));
        } else {
            term::note("Edit cancelled, no changes made.");
        }
        context.out.flush()?;
    }
    Ok(())
}

fn editor() -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
    set("SETPOINT_EDITOR")
        .or_else(|| set("KUBE_EDITOR"))
        .or_else(|| set("VISUAL"))
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".into())
}

async fn one(
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    stored: &KeyValue,
    editor: &str,
    strict: StrictArgs,
) -> Result<bool> {
    let original = String::from_utf8_lossy(&stored.value).into_owned();
    let mut text = original.clone();
    let mut remarks = vec![
        format!(
            "{} as it is stored. Lines that begin with {REMARK:?} are not part of it.",
            kind.full_name(&key.name)
        ),
        "Saving without a change, or an empty file, leaves it as it is.".to_owned(),
    ];
    let file = tempfile::Builder::new()
        .prefix("setpoint-edit-")
        .suffix(".yaml")
        .tempfile()
        .context("creating a temporary file")?;
    let path = file.path().to_owned();
    loop {
        let head: String = remarks
            .iter()
            .flat_map(|r| r.lines())
            .map(|l| format!("{REMARK}{l}\n"))
            .collect();
        std::fs::write(&path, format!("{head}{text}"))
            .with_context(|| format!("writing {}", path.display()))?;
        open(editor, &path)?;
        let edited = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let edited: String = edited
            .lines()
            .filter(|l| !l.starts_with(REMARK.trim_end()))
            .map(|l| format!("{l}\n"))
            .collect();
        if edited.trim().is_empty()
            || edited == original
            || edited.trim_end() == original.trim_end()
        {
            return Ok(false);
        }
        let problem = match check(client, kind, key, stored, &edited, strict).await {
            Ok(document) => match store(client, kind, key, stored, &document).await {
                Ok(()) => return Ok(true),
                Err(error) => {
                    let kept = keep(file, &edited);
                    return Err(error.context(format!(
                        "nothing was changed; the edited text is in {}",
                        kept?.display()
                    )));
                }
            },
            Err(error) => term::chain(&error),
        };
        if edited == text {
            // Saved again as it was: whoever edits gives up.
            let kept = keep(file, &edited)?;
            bail!(
                "{problem}\nnothing was changed; the edited text is in {}",
                kept.display()
            );
        }
        text = edited;
        remarks = vec![
            "This cannot be stored. Change it, or save it as it is to give up:".to_owned(),
            problem,
        ];
    }
}

fn open(editor: &str, path: &Path) -> Result<()> {
    // Editors are set with flags, so a shell takes them apart.
    let status = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(path)
        .status();
    let status = status.with_context(|| format!("starting the editor {editor:?}"))?;
    if !status.success() {
        bail!(
            "the editor {editor:?} ended with {status}; nothing was changed (EDITOR names another)"
        );
    }
    Ok(())
}

async fn check(
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    stored: &KeyValue,
    text: &str,
    strict: StrictArgs,
) -> Result<Document> {
    let namespace = (!key.namespace.is_empty()).then_some(&*key.namespace);
    let options = Options {
        ignore_unsupported: strict.ignore_unsupported,
        default_namespace: namespace,
        keep_uid: true,
        ..Options::default()
    };
    let sources = [Source {
        name: "document".into(),
        text: text.to_owned(),
    }];
    let mut documents = manifest::documents(&sources, &options)?;
    let (Some(document), true) = (documents.pop(), documents.is_empty()) else {
        bail!("there must be one document")
    };
    if KindInfo::from(&document.kind) != kind || document.key != *key {
        bail!(
            "kind, name and namespace must stay as they are: this is {} in place of {}",
            KindInfo::from(&document.kind).full_name(&document.key.name),
            kind.full_name(&key.name)
        );
    }
    write::check(client, kind, key, stored, &document.text).await?;
    Ok(document)
}

async fn store(
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    stored: &KeyValue,
    document: &Document,
) -> Result<()> {
    let path = client.key(&Key::Desired(kind.plural, key.clone()));
    // Not the one from before the editor was open: that may have taken hours.
    let timeline = client.timeline().await?;
    let (guards, more) = write::change(client, document, stored).await?;
    let mut txn = Txn::new()
        .when(Compare::ModRevision(path.clone(), stored.mod_revision))
        .put(path, document.text.clone());
    txn.compares.extend(guards);
    txn.then.extend(more);
    txn.then.push(client.clock_put(&timeline));
    if client.txn(txn).await?.succeeded {
        return Ok(());
    }
    bail!(
        "{} was changed by somebody else meanwhile",
        kind.full_name(&key.name)
    )
}

/// Keeps the file beyond the end of the program.
fn keep(file: tempfile::NamedTempFile, text: &str) -> Result<PathBuf> {
    let (_, path) = file.keep().context("keeping the temporary file")?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
