//! One YAML document as a tree in which every node knows its place.
//!
//! Aliases are expanded up to a budget, merge keys are merged, duplicate keys are faults. Nesting is limited.

mod convert;
mod read;

use std::ops::Range;

pub(crate) use convert::join;

use super::scalar;

/// How deep a document may nest: less than what the readers of stored documents take.
pub(crate) const DEPTH: usize = 100;
/// A place in a text, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Something wrong with the YAML itself.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Place,
    pub(crate) path: String,
    pub(crate) message: String,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Place,
    /// The bytes of the text that it was written with.
    pub(crate) range: Range<usize>,
    /// For scalars: written without quotes.
    pub(crate) plain: bool,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_at: Place,
    pub(crate) key_range: Range<usize>,
    /// The key means another text than the one written: `on`, `0644`.
    pub(crate) key_rewritten: bool,
    pub(crate) value: Node,
}

/// A document.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) root: Node,
    /// Whether anchors, merge keys or tags were used, so that the text cannot be kept as it is.
    pub(crate) indirect: bool,
}

/// Reads one document. `None` when there is nothing but comments.
pub(crate) fn parse(text: &str) -> Result<Option<Tree>, Vec<Fault>> {
    let raw = read::read(text).map_err(|f| vec![f])?;
    let Some((root, indirect)) = raw else {
        return Ok(None);
    };
    let mut c = convert::Converter::new(indirect);
    let root = c.convert(&root, "", 0);
    match root {
        Some(root) if c.faults.is_empty() => Ok(Some(Tree {
            root,
            indirect: c.indirect,
        })),
        _ => Err(c.faults),
    }
}

impl Node {
    /// The value of a key, when this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|e| &e.value)
    }

    /// The entry of a key, when this is a mapping that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// The text, when it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => int_json(*n),
            Value::Float(x) => Json::Number(scalar::number(*x)),
            Value::Text(s) => Json::String(s.clone()),
            Value::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|e| (e.key.clone(), e.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// A whole number as JSON.
pub(crate) fn int_json(n: i128) -> serde_json::Value {
    i64::try_from(n)
        .map(serde_json::Value::from)
        .or_else(|_| u64::try_from(n).map(serde_json::Value::from))
        .unwrap_or_default()
}
