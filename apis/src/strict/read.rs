//! From a text to documents.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value as Json;

use super::check::{Checker, Findings};
use super::locate::{locate, related};
use super::split::{Chunk, chunks};
use super::yaml::{self, Node, Place, Tree, Value};
use super::{Document, MAX_DOCUMENT_BYTES, Manifest, Options, Problem, nearest, rewrite};
use crate::meta::ObjectKey;
use crate::registry::KindInfo;
use crate::validation::key_path;

/// The most problems of one sort that are shown: who has more has another problem.
const MOST_PROBLEMS: usize = 200;

/// Reads a manifest. `source` is how messages call it: the path of the file, or `-`.
///
/// Never panics, whatever the text; takes time that grows with its length alone.
pub fn read_manifest(source: &str, text: &str, options: &Options<'_>) -> Manifest {
    let source: Arc<str> = source.into();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut manifest = Manifest::default();
    for chunk in chunks(text) {
        let mut reader = Reader {
            options,
            source: &source,
            offset: chunk.lines_before,
            manifest: &mut manifest,
        };
        reader.chunk(&chunk);
    }
    for list in [
        &mut manifest.errors,
        &mut manifest.warnings,
        &mut manifest.notes,
    ] {
        list.sort_by_key(|p| (p.line, p.column));
        list.dedup();
        if list.len() > MOST_PROBLEMS {
            let message = format!("and {} more of this sort", list.len() - MOST_PROBLEMS);
            list.truncate(MOST_PROBLEMS);
            list.push(Problem {
                source: source.clone(),
                ..Problem::new(Place::default(), "", message)
            });
        }
    }
    manifest
}

struct Reader<'a, 'o> {
    options: &'a Options<'o>,
    source: &'a Arc<str>,
    /// Lines of the file before the chunk.
    offset: usize,
    manifest: &'a mut Manifest,
}

/// What was found out about where an object comes from.
struct Origin<'a> {
    /// The text that it was written with; `None` for an item of a list.
    text: Option<&'a str>,
    /// Put before paths: `items[3].`.
    prefix: String,
}

impl Reader<'_, '_> {
    fn place(&self, mut problem: Problem, prefix: &str) -> Problem {
        problem.source = self.source.clone();
        if problem.line > 0 {
            problem.line += self.offset;
        }
        if !prefix.is_empty() {
            problem.path = format!("{prefix}{}", problem.path);
        }
        problem
    }

    fn error(&mut self, at: Place, path: &str, message: impl Into<String>, hint: Option<String>) {
        let problem = self.place(Problem::new(at, path, message).with_hint(hint), "");
        self.manifest.errors.push(problem);
    }

    fn chunk(&mut self, chunk: &Chunk<'_>) {
        if chunk.text.len() > MAX_DOCUMENT_BYTES * 8 {
            self.too_big(Place { line: 1, column: 1 }, "", chunk.text.len());
            return;
        }
        let text = &join_surrogates(chunk.text);
        match yaml::parse(text) {
            Ok(None) => {}
            Ok(Some(tree)) => self.tree(&tree, text),
            Err(faults) => {
                for f in faults {
                    self.error(f.at, &f.path, f.message, None);
                }
            }
        }
    }

    fn too_big(&mut self, at: Place, path: &str, bytes: usize) {
        let message = format!(
            "the document has {bytes} bytes; etcd takes no more than 1.5 MiB per request, which leaves \
             {MAX_DOCUMENT_BYTES} for a document"
        );
        self.error(at, path, message, None);
    }

    fn tree(&mut self, tree: &Tree, text: &str) {
        let root = &tree.root;
        if let Value::List(_) = root.value {
            return self.error(
                root.at,
                "",
                "a manifest is a mapping, or a List with items; this is a list",
                None,
            );
        }
        let Value::Map(_) = root.value else {
            return self.error(
                root.at,
                "",
                "a manifest is a mapping with apiVersion, kind and metadata",
                None,
            );
        };
        let kind = root.get("kind").and_then(Node::as_text).unwrap_or_default();
        let known = self.options.registry.by_kind(kind).is_some();
        if let Some(items) = root
            .get("items")
            .filter(|_| kind.ends_with("List") && !known)
        {
            return self.items(root, kind, items);
        }
        let origin = Origin {
            text: (!tree.indirect).then_some(text),
            prefix: String::new(),
        };
        self.object(root, &origin);
    }

    /// The items of a `List`, or of a `PodList`, whose items need not say what they are.
    fn items(&mut self, root: &Node, kind: &str, items: &Node) {
        let Value::List(list) = &items.value else {
            if !matches!(items.value, Value::Null) {
                self.error(items.at, "items", "expected a list", None);
            }
            return;
        };
        let item_kind = kind.strip_suffix("List").filter(|k| !k.is_empty());
        for (i, item) in list.iter().enumerate() {
            let origin = Origin {
                text: None,
                prefix: format!("items[{i}]."),
            };
            let Value::Map(entries) = &item.value else {
                self.error(item.at, &format!("items[{i}]"), "expected an object", None);
                continue;
            };
            let mut item = item.clone();
            if let (Some(item_kind), Value::Map(own)) = (item_kind, &mut item.value) {
                for (key, text) in [
                    ("kind", Some(item_kind)),
                    ("apiVersion", root.get("apiVersion").and_then(Node::as_text)),
                ] {
                    let Some(text) = text.filter(|_| !entries.iter().any(|e| e.key == key)) else {
                        continue;
                    };
                    let value = Node {
                        value: Value::Text(text.into()),
                        at: items.at,
                        range: 0..0,
                        plain: false,
                    };
                    let entry = yaml::Entry {
                        key: key.into(),
                        key_at: items.at,
                        key_range: 0..0,
                        key_rewritten: false,
                        value,
                    };
                    own.insert(0, entry);
                }
            }
            self.object(&item, &origin);
        }
    }

    fn object(&mut self, root: &Node, origin: &Origin<'_>) {
        let Some(kind) = self.kind(root, origin) else {
            return;
        };
        let schema = crate::schema::cached(&kind);
        let mut checker = Checker {
            schema: &schema,
            ignore_unsupported: self.options.ignore_unsupported,
            keep_uid: self.options.keep_uid,
            found: Findings::default(),
        };
        let value = checker.root(kind.kind, root);
        let mut found = checker.found;
        if let Some(why) = crate::fields::kind_note(kind.kind) {
            found.warnings.push(Problem::new(root.at, "", why));
        }
        for (annotation, why) in crate::fields::idle_annotations(kind.kind) {
            if value["metadata"]["annotations"].get(annotation).is_some() {
                let path = key_path("metadata.annotations", annotation);
                let message = format!("has no effect here: {why}");
                let at = locate(root, &path);
                found.warnings.push(Problem::new(at, &path, message));
            }
        }
        validate(&kind, root, &value, &mut found);
        let name = root
            .get("metadata")
            .and_then(|m| m.get("name"))
            .and_then(Node::as_text)
            .unwrap_or_default();
        if name.is_empty()
            && !self.options.allow_generate_name
            && value["metadata"]["generateName"].is_string()
        {
            let at = root.get("metadata").map_or(root.at, |m| m.at);
            let message = "is required: a name is generated only by create, not by apply";
            found
                .errors
                .push(Problem::new(at, "metadata.name", message));
        }
        if !found.dropped.is_empty() {
            let at = found.dropped[0].0;
            let fields: Vec<String> = found
                .dropped
                .iter()
                .map(|(_, p)| format!("{}{p}", origin.prefix))
                .collect();
            let message = format!(
                "left out, because etcd and the status keep it: {}",
                fields.join(", ")
            );
            let note = self.place(Problem::new(at, "", message), "");
            self.manifest.notes.push(note);
        }
        let document = self.document(kind, root, origin, &value, &mut found);
        let fine = found.errors.is_empty();
        for p in found.errors {
            let p = self.place(p, &origin.prefix);
            self.manifest.errors.push(p);
        }
        for p in found.warnings {
            let p = self.place(p, &origin.prefix);
            self.manifest.warnings.push(p);
        }
        if fine {
            self.manifest.documents.push(document);
        }
    }

    /// The kind of a document; an error, or a warning where that was wanted, when it is none that we take.
    fn kind(&mut self, root: &Node, origin: &Origin<'_>) -> Option<KindInfo> {
        let mut word = |field: &str| match root.get(field).map(|n| (n, n.as_text())) {
            Some((_, Some(text))) if !text.is_empty() => Some(text.to_owned()),
            Some((n, _)) if !matches!(n.value, Value::Null) => {
                self.error(
                    n.at,
                    &format!("{}{field}", origin.prefix),
                    "expected a text",
                    None,
                );
                None
            }
            _ => {
                self.error(
                    root.at,
                    &format!("{}{field}", origin.prefix),
                    "is required",
                    None,
                );
                None
            }
        };
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        let (api_version, kind) = (api_version?, kind?);
        let registry = self.options.registry;
        if let Some(info) = registry.lookup(&api_version, &kind) {
            return Some(*info);
        }
        let at = |field: &str| root.get(field).map_or(root.at, |n| n.at);
        if let Some(info) = registry.by_kind(&kind) {
            let message = format!(
                "{api_version:?} is not the version of {kind} that is known: {}",
                info.api_version
            );
            self.error(
                at("apiVersion"),
                &format!("{}apiVersion", origin.prefix),
                message,
                None,
            );
            return None;
        }
        let hint = nearest(&kind, registry.kinds().iter().map(|k| k.kind));
        let (at, path) = (at("kind"), format!("{}kind", origin.prefix));
        if self.options.ignore_unsupported && hint.is_none() {
            let message =
                format!("the kind {kind} ({api_version}) is not known here and is ignored");
            let problem = self.place(Problem::new(at, &path, message), "");
            self.manifest.warnings.push(problem);
        } else {
            self.error(
                at,
                &path,
                format!("the kind {kind} ({api_version}) is not known here"),
                hint,
            );
        }
        None
    }

    fn document(
        &mut self,
        kind: KindInfo,
        root: &Node,
        origin: &Origin<'_>,
        value: &Json,
        found: &mut Findings,
    ) -> Document {
        let meta = |field: &str| value["metadata"][field].as_str().filter(|s| !s.is_empty());
        let namespace = match (kind.namespaced, meta("namespace")) {
            (false, _) => "",
            (true, Some(namespace)) => namespace,
            (true, None) => self.options.default_namespace.unwrap_or_default(),
        };
        let text = if found.errors.is_empty() {
            let kept = origin
                .text
                .and_then(|text| rewrite::edited(text, &found.edits, value));
            kept.unwrap_or_else(|| rewrite::rendered(value))
        } else {
            String::new()
        };
        if text.len() > MAX_DOCUMENT_BYTES {
            self.too_big(root.at, origin.prefix.trim_end_matches('.'), text.len());
        }
        Document {
            kind,
            key: ObjectKey::namespaced(namespace, meta("name").unwrap_or_default()),
            generate_name: meta("generateName").map(str::to_owned),
            text,
            value: value.clone(),
            source: self.source.clone(),
            line: root.at.line + self.offset,
        }
    }
}

/// The kind's own validation, each finding at its place.
fn validate(kind: &KindInfo, root: &Node, value: &Json, found: &mut Findings) {
    match (kind.check)(value.clone()) {
        Ok(errors) => {
            for e in errors {
                let consequence = found.poisoned.iter().any(|p| related(p, &e.path));
                if !consequence {
                    found
                        .errors
                        .push(Problem::new(locate(root, &e.path), &e.path, e.message));
                }
            }
        }
        // The walk is as strict as the reader; what it does not see is still no reason to let something through.
        Err(message) if found.errors.is_empty() => {
            found.errors.push(Problem::new(root.at, "", message))
        }
        Err(_) => {}
    }
}

/// JSON writes what lies beyond 16 bits as two escapes (`\ud83d\ude00`), of which YAML knows nothing: the character
/// itself means the same to both.
fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.trim_start().starts_with('{') || !(text.contains("\\ud") || text.contains("\\uD")) {
        return Cow::Borrowed(text);
    }
    let unit = |s: &str| {
        s.strip_prefix("\\u")
            .and_then(|s| u16::from_str_radix(s.get(..4)?, 16).ok())
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let pair = unit(rest).zip(rest.get(6..).and_then(unit));
        let joined = pair
            .and_then(|(a, b)| char::decode_utf16([a, b]).next()?.ok())
            .filter(|c| c.len_utf16() == 2);
        let taken = match joined {
            Some(c) => {
                out.push(c);
                12
            }
            // The backslash and what it escapes, so that the second of two backslashes begins nothing.
            None => {
                let taken = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..taken]);
                taken
            }
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}
