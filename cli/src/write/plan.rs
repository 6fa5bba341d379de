//! Many documents at one revision, or none of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use setpoint_apis::strict::Document;
use setpoint_apis::{Key, ObjectKey};
use setpoint_store::{Compare, KeyValue, StoreError, TxnOp};

use super::chunks::chunks;
use super::door::{Doors, given_before};
use super::patience::{LIMIT, Patience};
use super::{frozen, noted};
use crate::client::Client;
use crate::context::DEFAULT_NAMESPACE;
use crate::kinds::KindInfo;
use crate::term;
use crate::yaml_edit::{self, Change};

/// What is meant to happen with objects that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are changed.
    Apply,
    /// They are an error.
    Create,
}

/// How to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteOptions {
    /// What is meant to happen with objects that exist.
    pub(crate) mode: Mode,
    /// Several transactions where one does not do.
    pub(crate) split: bool,
    /// Do everything but write.
    pub(crate) dry_run: bool,
}

/// What became of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There was none.
    Created,
    /// It was another.
    Configured,
    /// It said the same.
    Unchanged,
}

impl Verdict {
    /// The word that is printed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What became of one document, and which object it is about.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The kind.
    pub(crate) kind: KindInfo,
    /// The object.
    pub(crate) key: ObjectKey,
    /// What became of it.
    pub(crate) verdict: Verdict,
    /// It, as it is stored, or would be: pods with what LimitRanges give them.
    pub(crate) document: Document,
}

/// Writes documents. The outcomes are in the order of the documents.
///
/// # Errors
/// When anything at all is wrong; then nothing has been written (with `split`: of the transaction that failed and those
/// after it, which the error says).
pub(crate) async fn write(
    client: &Client,
    documents: &[Document],
    options: WriteOptions,
) -> Result<Vec<Outcome>> {
    no_doubles(documents)?;
    let mut first: Vec<Option<Verdict>> = vec![None; documents.len()];
    // Whether a try may have been written without our knowing.
    let mut unknown = false;
    let mut patience = Patience::new()?;
    // Transactions of this run that are written already.
    let mut written = 0_usize;
    'again: loop {
        let (stored, (), mut timeline, doors) = tokio::try_join!(
            read(client, documents),
            check_namespaces(client, documents),
            client.timeline(),
            Doors::open(client, documents)
        )?;
        let (mut given, anew) = over_stored(documents, &stored, options.mode)?;
        let notes = doors.furnish(&mut given, &stored)?;
        let documents = &given[..];
        let mut verdicts = Vec::with_capacity(documents.len());
        for (document, stored) in documents.iter().zip(&stored) {
            verdicts.push(judge(client, document, stored.as_ref(), options.mode, unknown).await?);
        }
        // What an earlier try of ours may have written counts as this run's doing.
        for (first, now) in first.iter_mut().zip(&verdicts) {
            if *now != Verdict::Unchanged || first.is_none() {
                *first = Some(*now);
            }
        }
        let mut guards = doors.admit(client, documents, &stored, &verdicts).await?;
        let keyspace = client.keyspace();
        let chunks = chunks(keyspace, documents, &verdicts, &guards, options.split)?;
        if !options.dry_run {
            let total = chunks.len();
            for (done, chunk) in chunks.iter().enumerate() {
                let mut txn = chunk.txn(keyspace, documents, &stored, &guards);
                txn.then.push(client.clock_put(&timeline));
                match client.txn(txn).await {
                    Ok(result) if result.succeeded => {
                        written += 1;
                        timeline.insert(result.revision.0, client.now());
                        guards.after(&chunk.spaces, result.revision);
                    }
                    Ok(_) => {
                        let counted = guards.counted_in(&chunk.spaces);
                        if !patience.pause().await {
                            bail!("{}", overtaken(&counted, written));
                        }
                        continue 'again;
                    }
                    Err(error) if error.is_retryable() && !unknown => {
                        unknown = true;
                        continue 'again;
                    }
                    Err(error) => return Err(explain(error, done, total)),
                }
            }
        }
        for note in notes {
            term::note(note);
        }
        for name in anew {
            term::warn(format_args!(
                "the document of {name} was written anew, to keep what commands have set; its comments are lost"
            ));
        }
        let verdicts = first.into_iter().map(|v| v.unwrap_or(Verdict::Unchanged));
        return Ok(outcomes(documents, verdicts));
    }
}

/// What to say when others were faster for as long as it was tried. `counted`: where a quota counts what is created.
fn overtaken(counted: &[&str], written: usize) -> String {
    let done = match written {
        0 => "nothing was written".to_owned(),
        n => format!("no more was written than {n} transactions; applying again is safe"),
    };
    let seconds = LIMIT.as_secs();
    match counted {
        [] => {
            format!("others have been changing these objects for {seconds} s, so {done}; try again")
        }
        [first, ..] => format!(
            "others have been creating what a quota counts in namespace {first:?} for {seconds} s without a gap, so {done}; \
             `setpoint get events -n {first}` says who creates there: stop that (scale it down or suspend it), or try again \
             later"
        ),
    }
}

/// What a change of one stored object must hold to, and what goes with it.
///
/// # Errors
/// When the LimitRanges or quotas of its namespace forbid it.
pub(crate) async fn change(
    client: &Client,
    document: &Document,
    stored: &KeyValue,
) -> Result<(Vec<Compare>, Vec<TxnOp>)> {
    let documents = std::slice::from_ref(document);
    let stored = [Some(stored.clone())];
    let doors = Doors::open(client, documents).await?;
    let verdicts = [Verdict::Configured];
    let guards = doors.admit(client, documents, &stored, &verdicts).await?;
    let guard = guards.of(&document.key.namespace).cloned();
    let guard = guard.unwrap_or_default();
    Ok((guard.compares, guard.puts))
}

/// The documents as they are to be stored over what is there: with what commands have set and they say nothing of, where
/// they are applied, and pods with what LimitRanges gave them when they were created. And the names of those whose
/// comments are lost by that.
fn over_stored(
    documents: &[Document],
    stored: &[Option<KeyValue>],
    mode: Mode,
) -> Result<(Vec<Document>, Vec<String>)> {
    let (mut all, mut anew) = (Vec::with_capacity(documents.len()), Vec::new());
    for (document, stored) in documents.iter().zip(stored) {
        let kept = match mode {
            Mode::Apply => noted::kept(document, stored.as_ref())?,
            Mode::Create => None,
        };
        let (document, rewritten) = kept.unwrap_or_else(|| (document.clone(), false));
        if rewritten {
            anew.push(KindInfo::from(&document.kind).full_name(&document.key.name));
        }
        let given = given_before(&document, stored.as_ref())?;
        let document = given.unwrap_or(document);
        all.push(match mode {
            Mode::Apply => with_uid(document, stored.as_ref())?,
            Mode::Create => document,
        });
    }
    Ok((all, anew))
}

/// A document with the uid that what is stored names, unless it names one itself. It is the same object, whatever a
/// manifest leaves out: what belongs to it, its dependents and the directory of a claim, goes by the uid.
fn with_uid(document: Document, stored: Option<&KeyValue>) -> Result<Document> {
    let uid = |value: &Value| Some(value.pointer("/metadata/uid")?.as_str()?.to_owned());
    let stored =
        stored.filter(|kv| uid(&document.value).is_none() && noted::mentions(&kv.value, "uid"));
    let stored = stored.and_then(|kv| serde_yaml::from_slice(&kv.value).ok());
    let Some(stored) = stored.as_ref().and_then(uid) else {
        return Ok(document);
    };
    let mut document = document;
    let keep = Change::set(&["metadata", "uid"], stored.as_str());
    document.text = yaml_edit::edit(&document.text, &[keep])
        .with_context(|| format!("keeping the uid of {:?}", &*document.key.name))?
        .text;
    document.value["metadata"]["uid"] = stored.into();
    Ok(document)
}

/// What would become of documents, as far as what is stored under their own keys tells. The outcomes are in the order of
/// the documents.
///
/// # Errors
/// When one could not be written over what is stored, or the store does not answer.
pub(crate) async fn preview(
    client: &Client,
    documents: &[Document],
    mode: Mode,
) -> Result<Vec<Outcome>> {
    no_doubles(documents)?;
    let stored = read(client, documents).await?;
    let (documents, _) = over_stored(documents, &stored, mode)?;
    let mut verdicts = Vec::with_capacity(documents.len());
    for (document, stored) in documents.iter().zip(&stored) {
        verdicts.push(judge(client, document, stored.as_ref(), mode, false).await?);
    }
    Ok(outcomes(&documents, verdicts))
}

fn outcomes(documents: &[Document], verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Outcome> {
    let outcome = |(d, verdict): (&Document, Verdict)| Outcome {
        kind: KindInfo::from(&d.kind),
        key: d.key.clone(),
        verdict,
        document: d.clone(),
    };
    documents.iter().zip(verdicts).map(outcome).collect()
}

fn explain(error: StoreError, done: usize, total: usize) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    if error
        .downcast_ref::<StoreError>()
        .is_some_and(|e| e.outcome() == setpoint_store::Outcome::Unknown)
    {
        return error.context("whether it was written is not known; applying again is safe");
    }
    match (done, total) {
        (0, _) => error.context("nothing was written"),
        (done, total) => error.context(format!("{done} of {total} transactions were written")),
    }
}

fn no_doubles(documents: &[Document]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for d in documents {
        if d.kind.plural == "events" {
            bail!(
                "{}:{}: events are written by whoever they come from, not applied",
                d.source,
                d.line
            );
        }
        if let Some((source, line)) = seen.insert((d.kind.plural, &d.key), (&d.source, d.line)) {
            let name = KindInfo::from(&d.kind).full_name(&d.key.name);
            bail!(
                "{}:{}: {name} was described already at {source}:{line}",
                d.source,
                d.line
            );
        }
    }
    Ok(())
}

async fn read(client: &Client, documents: &[Document]) -> Result<Vec<Option<KeyValue>>> {
    let keys = documents
        .iter()
        .map(|d| Key::Desired(d.kind.plural, d.key.clone()));
    stream::iter(keys)
        .map(|key| async move { Ok(client.get(&key).await?.0) })
        .buffered(32)
        .try_collect()
        .await
}

/// Makes sure that the namespaces exist that are not among the documents.
async fn check_namespaces(client: &Client, documents: &[Document]) -> Result<()> {
    let made: BTreeSet<&str> = documents
        .iter()
        .filter(|d| d.kind.plural == "namespaces")
        .map(|d| &*d.key.name)
        .collect();
    let needed: BTreeSet<&str> = documents
        .iter()
        .filter(|d| d.kind.namespaced && !made.contains(&*d.key.namespace))
        .map(|d| &*d.key.namespace)
        .collect();
    for name in needed {
        if client
            .get(&Key::Desired("namespaces", ObjectKey::cluster(name)))
            .await?
            .0
            .is_none()
        {
            let hint = if name == DEFAULT_NAMESPACE {
                " (has this cluster been prepared with `setpoint init`?)"
            } else {
                ""
            };
            bail!("namespaces {name:?} not found{hint}");
        }
    }
    Ok(())
}

async fn judge(
    client: &Client,
    document: &Document,
    stored: Option<&KeyValue>,
    mode: Mode,
    perhaps_ours: bool,
) -> Result<Verdict> {
    let kind = KindInfo::from(&document.kind);
    let Some(stored) = stored else {
        return Ok(Verdict::Created);
    };
    let same = stored.value == document.text.as_bytes();
    if mode == Mode::Create && !(same && perhaps_ours) {
        bail!(
            "{} {:?} already exists",
            kind.full_plural(),
            &*document.key.name
        );
    }
    if same {
        return Ok(Verdict::Unchanged);
    }
    let new = kind.read(&document.key, document.text.as_bytes())?;
    // One that cannot be read is simply replaced.
    let Ok(old) = kind.read(&document.key, &stored.value) else {
        return Ok(Verdict::Configured);
    };
    let mut new = content(&new);
    if kind.plural == "pods" && old["spec"].get("nodeName").is_none() {
        // What `get` shows says where the pod is; applying it again does not mean to pin it there.
        if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("nodeName");
        }
    }
    if content(&old) == new {
        return Ok(Verdict::Unchanged);
    }
    let of = (kind, &document.key);
    match frozen::refusal(client, of, stored, (&old, &new), &document.text).await? {
        Some(why) => bail!(
            "{}:{}: {}: {why}",
            document.source,
            document.line,
            kind.full_name(&document.key.name)
        ),
        None => Ok(Verdict::Configured),
    }
}

/// What a document says, without what a writer may leave to etcd.
fn content(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("uid");
    }
    value
}

#[cfg(test)]
mod tests;
