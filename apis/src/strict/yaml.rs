//! One YAML document as a tree in which every node knows its place.
//!
//! Aliases are expanded up to a budget, merge keys are merged, duplicate keys are faults. Nesting is limited.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::scalar::{self, Scalar};

/// How deep a document may nest: less than what the readers of stored documents take.
pub(crate) const DEPTH: usize = 100;
/// How many nodes aliases may add to a document.
const ALIAS_BUDGET: usize = 100_000;

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
    let raw = read(text).map_err(|f| vec![f])?;
    let Some((root, indirect)) = raw else {
        return Ok(None);
    };
    let mut c = Converter {
        budget: ALIAS_BUDGET,
        inside_alias: 0,
        faults: Vec::new(),
        indirect,
    };
    let root = c.convert(&root, "", 0);
    match root {
        Some(root) if c.faults.is_empty() => Ok(Some(Tree {
            root,
            indirect: c.indirect,
        })),
        _ => Err(c.faults),
    }
}

struct Raw {
    kind: RawKind,
    at: Place,
    range: Range<usize>,
}

enum RawKind {
    Scalar {
        text: String,
        plain: bool,
        tag: Option<String>,
    },
    List(Vec<Rc<Raw>>),
    Map(Vec<(Rc<Raw>, Rc<Raw>)>),
    Alias(Rc<Raw>),
}

/// Saphyr counts characters; this finds their bytes.
struct Offsets(Option<Vec<usize>>, usize);

impl Offsets {
    fn new(text: &str) -> Self {
        let table = (!text.is_ascii()).then(|| text.char_indices().map(|(i, _)| i).collect());
        Self(table, text.len())
    }

    fn byte(&self, index: usize) -> usize {
        match &self.0 {
            None => index.min(self.1),
            Some(table) => table.get(index).copied().unwrap_or(self.1),
        }
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }
}

fn place(marker: &saphyr_parser::Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// A collection that is being read.
struct Open {
    anchor: usize,
    at: Place,
    start: usize,
    items: Vec<Rc<Raw>>,
    map: bool,
}

fn read(text: &str) -> Result<Option<(Rc<Raw>, bool)>, Fault> {
    let offsets = Offsets::new(text);
    let mut parser = Parser::new_from_str(text);
    let mut anchors: HashMap<usize, Rc<Raw>> = HashMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut root: Option<Rc<Raw>> = None;
    let mut indirect = false;
    let fault = |at, message: &str| Fault {
        at,
        path: String::new(),
        message: message.into(),
    };
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|e| {
            fault(
                place(e.marker()),
                &format!("the YAML cannot be read: {}", e.info()),
            )
        })?;
        let (at, range) = (place(&span.start), offsets.range(&span));
        let (done, anchor) = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let tag = tag.map(|t| t.to_string());
                indirect |= tag.is_some();
                let plain = style == ScalarStyle::Plain;
                (
                    Raw {
                        kind: RawKind::Scalar {
                            text: value.into_owned(),
                            plain,
                            tag,
                        },
                        at,
                        range,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, tag) => {
                indirect |= tag.is_some();
                open.push(Open {
                    anchor,
                    at,
                    start: range.start,
                    items: Vec::new(),
                    map: false,
                });
                check_depth(&open, at)?;
                continue;
            }
            Event::MappingStart(anchor, tag) => {
                indirect |= tag.is_some();
                open.push(Open {
                    anchor,
                    at,
                    start: range.start,
                    items: Vec::new(),
                    map: true,
                });
                check_depth(&open, at)?;
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(o) = open.pop() else { continue };
                // A bracket has a length; a block collection ends where its last item does.
                let last = o.items.last().map_or(range.start, |i| i.range.end);
                let end = if range.is_empty() { last } else { range.end };
                let range = o.start..end.max(o.start);
                let kind = if o.map {
                    let mut items = o.items.into_iter();
                    let mut pairs = Vec::new();
                    while let (Some(k), Some(v)) = (items.next(), items.next()) {
                        pairs.push((k, v));
                    }
                    RawKind::Map(pairs)
                } else {
                    RawKind::List(o.items)
                };
                (
                    Raw {
                        kind,
                        at: o.at,
                        range,
                    },
                    o.anchor,
                )
            }
            Event::Alias(id) => {
                indirect = true;
                let Some(target) = anchors.get(&id) else {
                    return Err(fault(at, "this alias refers to something that contains it"));
                };
                (
                    Raw {
                        kind: RawKind::Alias(target.clone()),
                        at,
                        range,
                    },
                    0,
                )
            }
            Event::DocumentStart(_) if root.is_some() => {
                return Err(fault(
                    at,
                    "a second document begins here: put a line with --- before it",
                ));
            }
            _ => continue,
        };
        let done = Rc::new(done);
        if anchor != 0 {
            indirect = true;
            anchors.insert(anchor, done.clone());
        }
        match open.last_mut() {
            Some(o) => o.items.push(done),
            None => root = Some(done),
        }
    }
    Ok(root.map(|r| (r, indirect)))
}

fn check_depth(open: &[Open], at: Place) -> Result<(), Fault> {
    if open.len() > DEPTH {
        return Err(Fault {
            at,
            path: String::new(),
            message: format!("nested more than {DEPTH} levels deep"),
        });
    }
    Ok(())
}

struct Converter {
    budget: usize,
    inside_alias: usize,
    faults: Vec<Fault>,
    indirect: bool,
}

impl Converter {
    fn fault(&mut self, at: Place, path: &str, message: impl Into<String>) {
        self.faults.push(Fault {
            at,
            path: path.into(),
            message: message.into(),
        });
    }

    fn convert(&mut self, raw: &Raw, path: &str, depth: usize) -> Option<Node> {
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
