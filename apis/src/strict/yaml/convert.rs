//! From the tree as it was written to what it means: scalars resolved, aliases expanded, merge keys merged.

use std::collections::HashMap;
use std::rc::Rc;

use super::read::{Raw, RawKind};
use super::{DEPTH, Entry, Fault, Node, Place, Value};
use crate::strict::scalar::{self, Scalar};

/// How many nodes aliases may add to a document.
const ALIAS_BUDGET: usize = 100_000;

pub(super) struct Converter {
    budget: usize,
    inside_alias: usize,
    pub(super) faults: Vec<Fault>,
    pub(super) indirect: bool,
}

impl Converter {
    pub(super) fn new(indirect: bool) -> Self {
        Self {
            budget: ALIAS_BUDGET,
            inside_alias: 0,
            faults: Vec::new(),
            indirect,
        }
    }

    fn fault(&mut self, at: Place, path: &str, message: impl Into<String>) {
        self.faults.push(Fault {
            at,
            path: path.into(),
            message: message.into(),
        });
    }

    pub(super) fn convert(&mut self, raw: &Raw, path: &str, depth: usize) -> Option<Node> {
        if depth > DEPTH {
            self.fault(
                raw.at,
                path,
                format!("nested more than {DEPTH} levels deep"),
            );
            return None;
        }
        if self.inside_alias > 0 {
            if self.budget == 0 {
                if self.faults.is_empty() {
                    self.fault(
                        raw.at,
                        path,
                        "the aliases of this document expand to too much",
                    );
                }
                return None;
            }
            self.budget -= 1;
        }
        let mut plain_scalar = false;
        let value = match &raw.kind {
            RawKind::Alias(target) => {
                self.inside_alias += 1;
                let node = self.convert(target, path, depth + 1);
                self.inside_alias -= 1;
                return node.map(|n| Node {
                    at: raw.at,
                    range: raw.range.clone(),
                    ..n
                });
            }
            RawKind::Scalar { text, plain, tag } => {
                plain_scalar = *plain;
                self.scalar(raw.at, path, text, *plain, tag.as_deref())?
            }
            RawKind::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (i, item) in items.iter().enumerate() {
                    list.extend(self.convert(item, &format!("{path}[{i}]"), depth + 1));
                }
                Value::List(list)
            }
            RawKind::Map(pairs) => Value::Map(self.map(pairs, path, depth)),
        };
        Some(Node {
            value,
            at: raw.at,
            range: raw.range.clone(),
            plain: plain_scalar,
        })
    }

    fn scalar(
        &mut self,
        at: Place,
        path: &str,
        text: &str,
        plain: bool,
        tag: Option<&str>,
    ) -> Option<Value> {
        let core = tag.and_then(|t| {
            t.strip_prefix("tag:yaml.org,2002:!")
                .or_else(|| t.strip_prefix("!!"))
        });
        let resolved = match (tag, core) {
            (None, _) if plain => scalar::resolve(text),
            (None, _) | (_, Some("str")) => Scalar::Text,
            (_, Some("int" | "float" | "bool" | "null")) => scalar::resolve(text),
            (Some(tag), _) => {
                self.fault(at, path, format!("the tag {tag} cannot be used here"));
                return None;
            }
        };
        Some(match resolved {
            Scalar::Null => Value::Null,
            Scalar::Bool(b) => Value::Bool(b),
            Scalar::Int(n) => Value::Int(n),
            Scalar::Float(x) => Value::Float(x),
            Scalar::Text => Value::Text(text.into()),
            Scalar::NotFinite => {
                self.fault(
                    at,
                    path,
                    format!(
                        "{text} is not a number that a field can hold; quote it if it is a text"
                    ),
                );
                return None;
            }
        })
    }

    fn map(&mut self, pairs: &[(Rc<Raw>, Rc<Raw>)], path: &str, depth: usize) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
        let mut places: HashMap<String, Place> = HashMap::with_capacity(pairs.len());
        let mut merges = Vec::new();
        for (key_raw, value_raw) in pairs {
            if matches!(&key_raw.kind, RawKind::Scalar { text, plain: true, .. } if text == "<<") {
                merges.push((key_raw, value_raw));
                continue;
            }
            let Some((key, key_rewritten)) = self.key(key_raw, path) else {
                continue;
            };
            let child = join(path, &key);
            if let Some(first) = places.insert(key.clone(), key_raw.at) {
                let message = format!(
                    "the key is here twice: it is on line {} already",
                    first.line
                );
                self.fault(key_raw.at, &child, message);
                continue;
            }
            if let Some(value) = self.convert(value_raw, &child, depth + 1) {
                let (key_at, key_range) = (key_raw.at, key_raw.range.clone());
                entries.push(Entry {
                    key,
                    key_at,
                    key_range,
                    key_rewritten,
                    value,
                });
            }
        }
        for (key, value) in merges {
            self.indirect = true;
            let Some(node) = self.convert(value, path, depth + 1) else {
                continue;
            };
            let sources = match node.value {
                Value::List(list) => list.into_iter().map(|n| n.value).collect(),
                other => vec![other],
            };
            for source in sources {
                let Value::Map(more) = source else {
                    self.fault(key.at, path, "<< merges a mapping, or a list of mappings");
                    continue;
                };
                for entry in more {
                    if !places.contains_key(&entry.key) {
                        places.insert(entry.key.clone(), entry.key_at);
                        entries.push(entry);
                    }
                }
            }
        }
        entries
    }

    /// The key as a text, and whether that is another text than the one that was written.
    fn key(&mut self, raw: &Raw, path: &str) -> Option<(String, bool)> {
        let (raw, at) = match &raw.kind {
            RawKind::Alias(target) => (&**target, raw.at),
            _ => (raw, raw.at),
        };
        let RawKind::Scalar { text, plain, tag } = &raw.kind else {
            self.fault(at, path, "a key must be a text");
            return None;
        };
        let key = match self.scalar(at, path, text, *plain, tag.as_deref())? {
            Value::Text(text) => text,
            Value::Bool(b) => b.to_string(),
            Value::Int(n) => n.to_string(),
            // Go's shortest form in single precision; Rust's is the same but for exponents, which no real key has.
            Value::Float(x) => (x as f32).to_string(),
            _ => {
                self.fault(at, path, "a key must be a text, not null");
                return None;
            }
        };
        let rewritten = *plain && key != *text;
        Some((key, rewritten))
    }
}

/// The path of a field of the object at `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    let joined = crate::validation::key_path(path, key);
    joined
        .strip_prefix('.')
        .map_or(joined.clone(), str::to_owned)
}
