//! Strict reading, for the door: what users hand in.
//!
//! A manifest is one or more YAML documents. Every problem of every document is found at once, each with its place in
//! the file, its path in the document, and the nearest name that would be right. Scalars mean what they mean to the
//! reader of Kubernetes' tools. What is accepted is stored as it was written, comments included.

mod check;
mod locate;
mod read;
mod rewrite;
pub(crate) mod scalar;
mod split;
pub(crate) mod yaml;

use std::fmt;
use std::sync::Arc;

pub use read::read_manifest;

use crate::meta::ObjectKey;
use crate::registry::{KindInfo, Registry};

/// The most bytes a stored document may have: etcd refuses requests over 1.5 MiB by default, and the key and the rest
/// of the request need room.
pub const MAX_DOCUMENT_BYTES: usize = 1_536 * 1024 - 4 * 1024;

/// How a manifest is read.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Fields and kinds that are not supported are warnings instead of errors.
    pub ignore_unsupported: bool,
    /// The namespace of namespaced objects that name none; without it their keys have an empty one.
    pub default_namespace: Option<&'a str>,
    /// Whether `metadata.uid` is kept, as a restore needs it.
    pub keep_uid: bool,
    /// Whether an object may have a `generateName` instead of a name: for `create`, not for `apply`.
    pub allow_generate_name: bool,
    /// The kinds that are known.
    pub registry: &'a Registry,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            ignore_unsupported: false,
            default_namespace: None,
            keep_uid: false,
            allow_generate_name: false,
            registry: Registry::builtin(),
        }
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// The documents without errors, in the order of the file.
    pub documents: Vec<Document>,
    /// What is wrong. A manifest with errors must not be applied, not even in part.
    pub errors: Vec<Problem>,
    /// What has no effect.
    pub warnings: Vec<Problem>,
    /// What was left out, because etcd or the status keeps it.
    pub notes: Vec<Problem>,
}

impl Manifest {
    /// Takes in what was read of another source.
    pub fn extend(&mut self, other: Self) {
        self.documents.extend(other.documents);
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
        self.notes.extend(other.notes);
    }
}

/// A document that may be stored.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its kind.
    pub kind: KindInfo,
    /// Its key. The namespace is empty for kinds without one, and when neither document nor options name one.
    pub key: ObjectKey,
    /// The prefix of the name to make, when there is no name.
    pub generate_name: Option<String>,
    /// The text to store.
    pub text: String,
    /// What the text means, without defaults.
    pub value: serde_json::Value,
    /// Where it was read.
    pub source: Arc<str>,
    /// The line on which it begins, from 1.
    pub line: usize,
}

/// Something to say about a place in a manifest.
///
/// Displays as `file:line:column: path: message (did you mean "x"?)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or `-`.
    pub source: Arc<str>,
    /// The line, from 1; 0 when it is about the file as a whole.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// The field; empty when it is about the document as a whole.
    pub path: String,
    /// What is so.
    pub message: String,
    /// The nearest name that would be right.
    pub hint: Option<String>,
}

impl Problem {
    fn new(at: yaml::Place, path: &str, message: impl Into<String>) -> Self {
        Self {
            source: Arc::from(""),
            line: at.line,
            column: at.column,
            path: path.into(),
            message: message.into(),
            hint: None,
        }
    }

    fn with_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (did you mean {hint:?}?)")?;
        }
        Ok(())
    }
}

/// The candidate that is most like `word`, when one is like enough to have been meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = word.to_lowercase();
    let most = 1 + lower.chars().count() / 4;
    let distance = |c: &str| {
        let c = c.to_lowercase();
        // A letter too many at the end (port, ports) is the commonest slip of all.
        if c.strip_suffix('s') == Some(&lower) || lower.strip_suffix('s') == Some(&c) {
            return 0;
        }
        strsim::damerau_levenshtein(&lower, &c)
    };
    candidates
        .into_iter()
        .filter(|c| *c != word)
        .map(|c| (distance(c), c))
        .filter(|(d, _)| *d <= most)
        .min()
        .map(|(_, c)| c.to_owned())
}

#[cfg(test)]
mod tests;
