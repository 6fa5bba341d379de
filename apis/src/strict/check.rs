//! Walks a document against the schema of its kind and finds every problem of shape at once.
//!
//! What is wrong is left out of the value that it gives back, or stands in for when it is required, so that the checks
//! behind it (the kind's own validation) still see the rest. Places that were wrong are remembered: findings about
//! them are consequences, not news.

mod leaves;

use std::ops::Range;
use std::sync::LazyLock;

use serde_json::{Map, Value as Json, json};

use super::scalar;
use super::yaml::{Entry, Node, Place, Value, join};
use super::{Problem, nearest};
use crate::fields::{self, Class};
use leaves::{mismatch, types, words};

/// A change of the writer's text.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    /// These bytes become this text.
    Replace(Range<usize>, String),
    /// These bytes become this text, unless they are fine as they are.
    Canonical(Range<usize>, String, fn(&str, &str) -> bool),
    /// This entry goes: from its key to the end of its value.
    Remove(Range<usize>),
}

/// What a walk finds.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    /// Paths of fields that were left out because etcd keeps them.
    pub(super) dropped: Vec<(Place, String)>,
    /// Paths that were wrong.
    pub(super) poisoned: Vec<String>,
    pub(super) edits: Vec<Edit>,
}

pub(super) struct Checker<'a> {
    /// The schema of the kind; its `$defs` are looked up in it.
    pub(super) schema: &'a Json,
    /// Whether refused fields are warnings.
    pub(super) ignore_unsupported: bool,
    /// Whether `metadata.uid` stays.
    pub(super) keep_uid: bool,
    pub(super) found: Findings,
}

/// What is known of a type: the schema itself, and the name under which the field table knows it.
#[derive(Clone, Copy)]
struct Shape<'a> {
    schema: &'a Json,
    name: &'a str,
}

/// The shapes of fields that are accepted and that no type of ours has.
static TEXT: LazyLock<Json> = LazyLock::new(|| json!({"type": ["string", "null"]}));
static TEXTS: LazyLock<Json> =
    LazyLock::new(|| json!({"type": ["array", "null"], "items": {"type": "string"}}));

impl<'a> Checker<'a> {
    /// Walks the root of a document of the kind `name`.
    pub(super) fn root(&mut self, name: &'a str, node: &Node) -> Json {
        let quiet = fields::kind_note(name).is_some();
        let shape = Shape {
            schema: self.schema,
            name,
        };
        self.walk(shape, node, "", quiet).unwrap_or(Json::Null)
    }

    fn error(&mut self, at: Place, path: &str, message: impl Into<String>, hint: Option<String>) {
        self.found.poisoned.push(path.into());
        self.found
            .errors
            .push(Problem::new(at, path, message).with_hint(hint));
    }

    fn resolve(&self, mut shape: Shape<'a>) -> Shape<'a> {
        for _ in 0..16 {
            if let Some(name) = shape.schema["$ref"]
                .as_str()
                .and_then(|r| r.strip_prefix("#/$defs/"))
            {
                shape = Shape {
                    schema: &self.schema["$defs"][name],
                    name,
                };
            } else if let Some(options) = shape.schema["anyOf"].as_array() {
                let Some(option) = options.iter().find(|o| o["type"] != "null") else {
                    return shape;
                };
                shape = Shape {
                    schema: option,
                    name: shape.name,
                };
            } else if let Some([only]) = shape.schema["allOf"].as_array().map(Vec::as_slice) {
                shape = Shape {
                    schema: only,
                    name: shape.name,
                };
            } else {
                break;
            }
        }
        shape
    }

    /// The value at `path`; `None` when it is not of the right shape, which is then reported.
    fn walk(&mut self, shape: Shape<'a>, node: &Node, path: &str, quiet: bool) -> Option<Json> {
        let shape = self.resolve(shape);
        let s = shape.schema;
        if let Some(words) = words(s) {
            return self.word(&words, node, path);
        }
        let types = types(s);
        match s["format"].as_str() {
            Some("quantity") => return self.quantity(node, path),
            Some("int-or-string") => return self.int_or_string(node, path),
            Some(format @ ("byte" | "date-time")) => return self.formatted(format, node, path),
            _ => {}
        }
        if types.is_empty() {
            self.as_every_reader_takes_it(node);
            return Some(node.to_json());
        }
        let wanted = |name: &str| types.contains(&name);
        match &node.value {
            Value::Map(entries) if wanted("object") => {
                Some(self.object(shape, entries, node, path, quiet))
            }
            Value::List(items) if wanted("array") => Some(self.list(shape, items, path, quiet)),
            Value::Text(text) if wanted("string") => {
                self.keep_text(node, text);
                Some(Json::String(text.clone()))
            }
            Value::Bool(b) if wanted("boolean") => {
                self.canonical(node, &b.to_string(), |written, canonical| {
                    written == canonical
                });
                Some(Json::Bool(*b))
            }
            Value::Int(n) if wanted("integer") => self.integer(s, *n, node, path),
            Value::Float(x) if wanted("integer") && x.fract() == 0.0 && x.abs() < 9e15 => {
                self.integer(s, *x as i128, node, path)
            }
            Value::Int(_) | Value::Float(_) if wanted("number") => {
                self.canonical(node, &node.to_json().to_string(), |written, _| {
                    scalar::is_json_number(written)
                });
                Some(node.to_json())
            }
            _ => {
                let (message, hint) = mismatch(&types, node);
                self.error(node.at, path, message, None);
                if let (Some(hint), Some(e)) = (hint, self.found.errors.last_mut()) {
                    e.message = format!("{}: {hint}", e.message);
                }
                None
            }
        }
    }

    fn list(&mut self, shape: Shape<'a>, items: &[Node], path: &str, quiet: bool) -> Json {
        let inner = Shape {
            schema: &shape.schema["items"],
            name: "",
        };
        let mut list = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            match self.walk(inner, item, &path, quiet) {
                Some(value) => list.push(value),
                // Something must stand there, or the indexes of what follows would be wrong.
                None => list.push(self.stand_in(inner, 0)),
            }
        }
        Json::Array(list)
    }

    fn object(
        &mut self,
        shape: Shape<'a>,
        entries: &[Entry],
        node: &Node,
        path: &str,
        quiet: bool,
    ) -> Json {
        let properties = shape.schema["properties"].as_object();
        let additional = shape
            .schema
            .get("additionalProperties")
            .filter(|a| a.is_object());
        if properties.is_none() && additional.is_none() {
            return node.to_json();
        }
        let mut object = Map::new();
        for entry in entries {
            if entry.key_rewritten {
                let text = Json::String(entry.key.clone()).to_string();
                self.found
                    .edits
                    .push(Edit::Replace(entry.key_range.clone(), text));
            }
            let child = join(path, &entry.key);
            let known = properties.and_then(|p| p.get(&entry.key));
            match (known, additional) {
                (Some(schema), _) => {
                    self.property(shape.name, schema, entry, &child, quiet, &mut object)
                }
                (None, Some(schema)) => {
                    if let Some(value) =
                        self.walk(Shape { schema, name: "" }, &entry.value, &child, quiet)
                    {
                        object.insert(entry.key.clone(), value);
                    }
                }
                (None, None) => self.stranger(shape.name, properties, entry, &child, &mut object),
            }
        }
        for field in shape.schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
        {
            if object.contains_key(field) {
                continue;
            }
            let child = join(path, field);
            if !self.found.poisoned.contains(&child) {
                self.error(node.at, &child, "is required", None);
            }
            let schema = &shape.schema["properties"][field];
            object.insert(field.into(), self.stand_in(Shape { schema, name: "" }, 0));
        }
        Json::Object(object)
    }

    /// A field that the type has.
    fn property(
        &mut self,
        type_name: &str,
        schema: &'a Json,
        entry: &Entry,
        path: &str,
        quiet: bool,
        object: &mut Map<String, Json>,
    ) {
        if matches!(entry.value.value, Value::Null) {
            return;
        }
        let row = fields::lookup(type_name, &entry.key);
        let mut quiet = quiet;
        match row.map(|r| (r, r.concerns(&entry.value.to_json()))) {
            Some((row, _))
                if row.class == Class::Dropped && !(self.keep_uid && entry.key == "uid") =>
            {
                return self.drop_entry(entry, path);
            }
            Some((row, true)) if row.class == Class::Accepted => {
                if !quiet && !row.why.is_empty() {
                    let message = format!("has no effect here: {}", row.why);
                    self.found
                        .warnings
                        .push(Problem::new(entry.key_at, path, message));
                }
                quiet = true;
            }
            Some((row, true)) if row.class == Class::Refused => {
                self.refuse(entry.key_at, path, row.why);
                quiet = true;
            }
            _ => {}
        }
        if let Some(value) = self.walk(Shape { schema, name: "" }, &entry.value, path, quiet) {
            object.insert(entry.key.clone(), value);
        }
    }

    /// A field that the type does not have: one that Kubernetes has and we do not take, or one that nobody has.
    fn stranger(
        &mut self,
        type_name: &str,
        properties: Option<&Map<String, Json>>,
        entry: &Entry,
        path: &str,
        object: &mut Map<String, Json>,
    ) {
        let row = fields::lookup(type_name, &entry.key);
        match row.map(|r| r.class) {
            Some(Class::Dropped) => self.drop_entry(entry, path),
            Some(Class::Refused) if matches!(entry.value.value, Value::Null) => {}
            Some(Class::Refused) => {
                self.refuse(entry.key_at, path, row.map_or("", |r| r.why));
                object.insert(entry.key.clone(), entry.value.to_json());
            }
            Some(Class::Accepted) => {
                if row.is_some_and(|r| r.concerns(&entry.value.to_json())) {
                    let message = format!("has no effect here: {}", row.map_or("", |r| r.why));
                    self.found
                        .warnings
                        .push(Problem::new(entry.key_at, path, message));
                }
                // Nobody keeps it, and it has to be what Kubernetes has there all the same.
                let schema = match entry.key.as_str() {
                    "finalizers" => &*TEXTS,
                    _ => &*TEXT,
                };
                let shape = Shape { schema, name: "" };
                if let Some(value) = self.walk(shape, &entry.value, path, true) {
                    object.insert(entry.key.clone(), value);
                }
            }
            _ => {
                let hint = nearest(
                    &entry.key,
                    properties
                        .into_iter()
                        .flat_map(Map::keys)
                        .map(String::as_str),
                );
                if let Some(meant) = &hint {
                    // That this other field is missing needs no saying.
                    let parent = path
                        .strip_suffix(&entry.key)
                        .map_or("", |p| p.trim_end_matches('.'));
                    self.found.poisoned.push(join(parent, meant));
                }
                self.error(entry.key_at, path, "there is no such field", hint);
            }
        }
    }

    fn refuse(&mut self, at: Place, path: &str, why: &str) {
        if self.ignore_unsupported {
            let message = format!("is not supported and is ignored: {why}");
            self.found.warnings.push(Problem::new(at, path, message));
        } else {
            let message = format!("is not supported: {why}; --ignore-unsupported applies the rest");
            self.found.errors.push(Problem::new(at, path, message));
        }
    }

    fn drop_entry(&mut self, entry: &Entry, path: &str) {
        if !matches!(entry.value.value, Value::Null) {
            self.found.dropped.push((entry.key_at, path.into()));
        }
        self.found
            .edits
            .push(Edit::Remove(entry.key_range.start..entry.value.range.end));
    }

    /// A value of the right shape for a required field that is missing or wrong.
    fn stand_in(&self, shape: Shape<'a>, depth: usize) -> Json {
        let shape = self.resolve(shape);
        let s = shape.schema;
        if let Some(words) = words(s) {
            return json!(words.first());
        }
        match types(s).iter().copied().find(|t| *t != "null") {
            Some("object") => {
                let mut object = Map::new();
                let required = s["required"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Json::as_str);
                for field in required.filter(|_| depth < 8) {
                    let schema = &s["properties"][field];
                    object.insert(
                        field.into(),
                        self.stand_in(Shape { schema, name: "" }, depth + 1),
                    );
                }
                Json::Object(object)
            }
            Some("array") => json!([]),
            Some("integer" | "number") => json!(0),
            Some("boolean") => json!(false),
            Some("string") if s["format"] == "date-time" => json!("1970-01-01T00:00:00Z"),
            Some("string") if s["format"] == "quantity" => json!("0"),
            Some("string") => json!(""),
            _ => Json::Null,
        }
    }
}
