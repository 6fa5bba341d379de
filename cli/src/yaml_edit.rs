//! Small changes to a document that leave the rest of its text alone: comments, order and quoting stay its writer's.
//!
//! The change is made in the text at the place that the parser names, and then checked: the new text must parse to
//! exactly the old content with the change. Where it does not (anchors, exotic layout), the document is written anew
//! from its content, and the caller is told.

use anyhow::{Context, Result, bail};
use saphyr_parser::{Event, Parser, Span};
use serde_json::{Map, Value};
use setpoint_apis::document::to_yaml;

/// One change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The field at the path gets this value; mappings on the way are made. A number on the way is the place of an item
    /// that a list has.
    Set(Vec<String>, Value),
    /// The field at the path goes, and mappings that get empty by that go too.
    Remove(Vec<String>),
    /// The list at the path gets one more item; a list on the way is made.
    Append(Vec<String>, Value),
}

impl Change {
    /// Sets a field.
    pub(crate) fn set(path: &[&str], value: impl Into<Value>) -> Self {
        Self::Set(path.iter().map(|s| (*s).to_owned()).collect(), value.into())
    }

    /// Removes a field.
    pub(crate) fn remove(path: &[&str]) -> Self {
        Self::Remove(path.iter().map(|s| (*s).to_owned()).collect())
    }
}

/// A changed document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    /// Its text.
    pub(crate) text: String,
    /// Whether it had to be written anew, so that comments are lost.
    pub(crate) rewritten: bool,
}

impl Edited {
    /// The document as it is.
    pub(crate) fn unchanged(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            rewritten: false,
        }
    }
}

/// Makes changes to a document that is a mapping.
///
/// # Errors
/// When the document does not parse, or a path leads through something that is no mapping.
pub(crate) fn edit(text: &str, changes: &[Change]) -> Result<Edited> {
    let mut edited = Edited::unchanged(text);
    for change in changes {
        let before: Value =
            serde_yaml::from_str(&edited.text).context("the stored document is not valid YAML")?;
        let mut after = before.clone();
        match change {
            Change::Set(path, value) => set(&mut after, path, value.clone())?,
            Change::Remove(path) => remove(&mut after, path),
            Change::Append(path, item) => append(&mut after, path, item.clone())?,
        }
        if after == before {
            continue;
        }
        let attempt = match change {
            Change::Set(path, value) => set_in_text(&edited.text, path, value),
            Change::Remove(path) => remove_in_text(&edited.text, path),
            Change::Append(path, item) => append_in_text(&edited.text, path, item),
        };
        match attempt.filter(|t| serde_yaml::from_str::<Value>(t).is_ok_and(|v| v == after)) {
            Some(text) => edited.text = text,
            None => {
                edited = Edited {
                    text: to_yaml(&after)?,
                    rewritten: true,
                }
            }
        }
    }
    Ok(edited)
}

fn set(value: &mut Value, path: &[String], new: Value) -> Result<()> {
    let Some((last, way)) = path.split_last() else {
        bail!("an empty path")
    };
    let mut at = value;
    for key in way {
        if let Value::Array(items) = at {
            let item = key.parse().ok().and_then(|i: usize| items.get_mut(i));
            let Some(item) = item else {
                bail!("{key} is not in a list")
            };
            at = item;
            continue;
        }
        let Value::Object(map) = at else {
            bail!("{key} is not in a mapping")
        };
        at = map.entry(key.clone()).or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
    }
    let Value::Object(map) = at else {
        bail!("{last} is not in a mapping")
    };
    map.insert(last.clone(), new);
    Ok(())
}

fn remove(value: &mut Value, path: &[String]) {
    let (Some((key, rest)), Value::Object(map)) = (path.split_first(), value) else {
        return;
    };
    if rest.is_empty() {
        map.shift_remove(key);
    } else if let Some(inner) = map.get_mut(key) {
        let had = inner.as_object().is_some_and(|m| !m.is_empty());
        remove(inner, rest);
        if had && inner.as_object().is_some_and(Map::is_empty) {
            map.shift_remove(key);
        }
    }
}

fn append(value: &mut Value, path: &[String], item: Value) -> Result<()> {
    let at = path.iter().try_fold(&*value, |v, key| v.get(key));
    let mut list = match at {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list.clone(),
        Some(_) => bail!("{} is not a list", path.join(".")),
    };
    list.push(item);
    set(value, path, Value::Array(list))
}

/// A node of a document and where its text is, in bytes.
struct Node {
    start: usize,
    end: usize,
    /// Where its last piece of text ends; `end` of a block mapping is where the next token begins.
    text_end: usize,
    /// For mappings: keys with the place of the key.
    entries: Option<Vec<(String, usize, Node)>>,
    /// For lists: the items.
    items: Vec<Node>,
    plain: bool,
}

fn set_in_text(text: &str, path: &[String], value: &Value) -> Option<String> {
    let scalar = render(value)?;
    let root = parse(text)?;
    let mut at = &root;
    let mut key_start = 0;
    for (depth, key) in path.iter().enumerate() {
        if at.entries.is_none() {
            at = at.items.get(key.parse::<usize>().ok()?)?;
            continue;
        }
        let entries = at.entries.as_ref()?;
        match entries.iter().find(|(k, ..)| k == key) {
            Some((_, start, next)) => (at, key_start) = (next, *start),
            None => return insert(text, at, &path[depth..], &scalar),
        }
    }
    if value.is_object() || value.is_array() {
        return replace_block(text, key_start, at, value);
    }
    // An empty value has no text to replace.
    (at.entries.is_none() && at.plain && at.end > at.start)
        .then(|| format!("{}{scalar}{}", &text[..at.start], &text[at.end..]))
}

/// Replaces what belongs to a key of a block mapping by lines of its own.
fn replace_block(text: &str, key_start: usize, node: &Node, value: &Value) -> Option<String> {
    let line = text[..key_start].rfind('\n').map_or(0, |i| i + 1);
    if !text[line..key_start].trim().is_empty() {
        return None;
    }
    let colon = key_start + text[key_start..].find(':')?;
    let indent = " ".repeat(key_start - line + 2);
    let mut lines = String::new();
    for line in to_yaml(value).ok()?.lines() {
        lines.push_str(&format!("{indent}{line}\n"));
    }
    let rest = &text[line_end(text, node.text_end)..];
    Some(format!("{}:\n{lines}{rest}", &text[..colon]))
}

/// Adds what is left of a path at the end of a mapping.
fn insert(text: &str, map: &Node, path: &[String], scalar: &str) -> Option<String> {
    let entries = map.entries.as_ref()?;
    let keys: Vec<String> = path
        .iter()
        .map(|k| render(&Value::String(k.clone())))
        .collect::<Option<_>>()?;
    if text[map.start..].starts_with('{') {
        let (last, way) = keys.split_last()?;
        let mut inner = format!("{last}: {scalar}");
        for key in way.iter().rev() {
            inner = format!("{key}: {{{inner}}}");
        }
        let (at, comma) = match entries.last() {
            Some((.., value)) => (value.text_end, ", "),
            None => (map.start + 1, ""),
        };
        return Some(format!("{}{comma}{inner}{}", &text[..at], &text[at..]));
    }
    let (_, first_key, _) = entries.first()?;
    let column = first_key - text[..*first_key].rfind('\n').map_or(0, |i| i + 1);
    let (.., last) = entries.last()?;
    let at = line_end(text, last.text_end);
    let mut lines = String::new();
    if at > 0 && !text[..at].ends_with('\n') {
        lines.push('\n');
    }
    for (depth, key) in keys.iter().enumerate() {
        lines.extend(std::iter::repeat_n(' ', column + 2 * depth));
        lines.push_str(key);
        lines.push(':');
        if depth + 1 == keys.len() {
            lines.push(' ');
            lines.push_str(scalar);
        }
        lines.push('\n');
    }
    Some(format!("{}{lines}{}", &text[..at], &text[at..]))
}

fn remove_in_text(text: &str, path: &[String]) -> Option<String> {
    let root = parse(text)?;
    let mut at = &root;
    // The entry to take out: the outermost of those that would be left empty.
    let mut victim = None;
    for key in path {
        let entries = at.entries.as_ref()?;
        let (_, key_start, next) = entries.iter().find(|(k, ..)| k == key)?;
        if entries.len() > 1 || victim.is_none() {
            victim = Some((*key_start, next.text_end));
        }
        at = next;
    }
    let (start, end) = victim?;
    let from = text[..start].rfind('\n').map_or(0, |i| i + 1);
    if !text[from..start].trim().is_empty() {
        return None;
    }
    Some(format!("{}{}", &text[..from], &text[line_end(text, end)..]))
}

/// Adds an item at the end of a block list that has some.
fn append_in_text(text: &str, path: &[String], item: &Value) -> Option<String> {
    let root = parse(text)?;
    let list = path.iter().try_fold(&root, |node, key| {
        let entries = node.entries.as_ref()?;
        entries.iter().find(|(k, ..)| k == key).map(|(.., n)| n)
    })?;
    let line = &text[..list.items.first()?.start];
    let line = &line[line.rfind('\n').map_or(0, |i| i + 1)..];
    let dash = line.rfind('-').filter(|d| line[..*d].trim().is_empty())?;
    let at = line_end(text, list.text_end);
    let mut lines = String::new();
    if at > 0 && !text[..at].ends_with('\n') {
        lines.push('\n');
    }
    for (i, line) in to_yaml(item).ok()?.lines().enumerate() {
        let lead = if i == 0 { "- " } else { "  " };
        lines.push_str(&format!("{}{lead}{line}\n", " ".repeat(dash)));
    }
    Some(format!("{}{lines}{}", &text[..at], &text[at..]))
}

/// The beginning of the line after the one that a piece of text ends in.
fn line_end(text: &str, end: usize) -> usize {
    if end > 0 && text.as_bytes()[end - 1] == b'\n' {
        return end;
    }
    text[end..].find('\n').map_or(text.len(), |i| end + i + 1)
}

/// A scalar as YAML on one line.
fn render(value: &Value) -> Option<String> {
    let text = to_yaml(value).ok()?;
    let text = text.trim_end();
    if text.contains('\n') || text.starts_with(['|', '>']) {
        serde_json::to_string(value).ok()
    } else {
        Some(text.to_owned())
    }
}

fn parse(text: &str) -> Option<Node> {
    // The parser counts characters.
    let mut bytes: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
    bytes.push(text.len());
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        events.push(event.ok()?);
    }
    let mut events = events.into_iter().peekable();
    while matches!(
        events.peek()?.0,
        Event::StreamStart | Event::DocumentStart(_) | Event::Nothing
    ) {
        events.next();
    }
    node(&mut events, &|i| {
        bytes.get(i).copied().unwrap_or(text.len())
    })
}

fn node<'a>(
    events: &mut impl Iterator<Item = (Event<'a>, Span)>,
    byte: &impl Fn(usize) -> usize,
) -> Option<Node> {
    let (event, span) = events.next()?;
    let (start, end) = (byte(span.start.index()), byte(span.end.index()));
    let leaf = |plain| Node {
        start,
        end,
        text_end: end,
        entries: None,
        items: Vec::new(),
        plain,
    };
    match event {
        Event::Scalar(_, _, anchor, ref tag) => Some(leaf(anchor == 0 && tag.is_none())),
        Event::Alias(_) => Some(leaf(false)),
        Event::SequenceStart(..) => {
            let (mut text_end, mut items) = (end, Vec::new());
            loop {
                match sibling(events, byte, |e| matches!(e, Event::SequenceEnd))? {
                    Ok(item) => {
                        text_end = text_end.max(item.text_end);
                        items.push(item);
                    }
                    Err(closed) => {
                        return Some(Node {
                            start,
                            end: closed,
                            text_end: text_end.max(closed),
                            entries: None,
                            items,
                            plain: false,
                        });
                    }
                }
            }
        }
        Event::MappingStart(..) => {
            let (mut entries, mut text_end) = (Vec::new(), end);
            loop {
                let (event, span) = events.next()?;
                match event {
                    Event::MappingEnd => {
                        let closed = byte(span.end.index());
                        // Only a flow mapping has a character that closes it.
                        let text_end = if span.is_empty() { text_end } else { closed };
                        return Some(Node {
                            start,
                            end: closed,
                            text_end,
                            entries: Some(entries),
                            items: Vec::new(),
                            plain: false,
                        });
                    }
                    Event::Scalar(key, ..) => {
                        let key_start = byte(span.start.index());
                        let mut value = node(events, byte)?;
                        value.text_end = value.text_end.max(byte(span.end.index()) + 1);
                        text_end = text_end.max(value.text_end);
                        entries.push((key.into_owned(), key_start, value));
                    }
                    _ => return None,
                }
            }
        }
        _ => None,
    }
}

/// The next item of a sequence, or where the sequence was closed.
fn sibling<'a>(
    events: &mut impl Iterator<Item = (Event<'a>, Span)>,
    byte: &impl Fn(usize) -> usize,
    closes: impl Fn(&Event<'a>) -> bool,
) -> Option<Result<Node, usize>> {
    let (event, span) = events.next()?;
    if closes(&event) {
        // A block sequence is closed by what comes next, which is not its text.
        return Some(Err(if span.is_empty() {
            0
        } else {
            byte(span.end.index())
        }));
    }
    let mut again = std::iter::once((event, span)).chain(events);
    node_dyn(&mut again, byte).map(Ok)
}

/// [`node`] behind a trait object, so that the recursion through [`sibling`] has a finite type.
fn node_dyn<'a>(
    events: &mut dyn Iterator<Item = (Event<'a>, Span)>,
    byte: &dyn Fn(usize) -> usize,
) -> Option<Node> {
    let mut events = events;
    node(&mut events, &|i| byte(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: &str = "\
# The web tier.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web   # its name
  labels:
    app: web
spec:
  replicas: 3 # enough for now
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: host
        command:
        - sh
        - -c
        - |
          exec sleep 1
";

    fn check(text: &str, changes: &[Change], expect: &str) {
        let edited = edit(text, changes).unwrap();
        assert_eq!(edited.text, expect);
        assert!(!edited.rewritten);
    }

    #[test]
    fn a_scalar_is_replaced_and_its_comment_stays() {
        let expect = DEPLOYMENT.replace("replicas: 3 #", "replicas: 5 #");
        check(
            DEPLOYMENT,
            &[Change::set(&["spec", "replicas"], 5)],
            &expect,
        );
    }

    #[test]
    fn a_key_is_added_at_the_end_of_its_mapping() {
        let expect =
            DEPLOYMENT.replace("    app: web\nspec", "    app: web\n    tier: front\nspec");
        check(
            DEPLOYMENT,
            &[Change::set(&["metadata", "labels", "tier"], "front")],
            &expect,
        );
        let expect = DEPLOYMENT.replace(
            "    app: web\nspec",
            "    app: web\n  annotations:\n    a/b: '1'\nspec",
        );
        check(
            DEPLOYMENT,
            &[Change::set(&["metadata", "annotations", "a/b"], "1")],
            &expect,
        );
    }

    #[test]
    fn an_item_of_a_list_is_changed_at_its_place() {
        let at = |field: &[&'static str]| {
            let way = ["spec", "template", "spec", "containers", "0"];
            [&way[..], field].concat()
        };
        let expect = DEPLOYMENT.replace("image: host", "image: other");
        check(
            DEPLOYMENT,
            &[Change::set(&at(&["image"]), "other")],
            &expect,
        );
        let expect =
            format!("{DEPLOYMENT}        resources:\n          limits:\n            cpu: 500m\n");
        let limit = Change::set(&at(&["resources", "limits", "cpu"]), "500m");
        check(DEPLOYMENT, std::slice::from_ref(&limit), &expect);
        let flow = "spec: {template: {spec: {containers: [{name: c}, {name: d}]}}}\n";
        let expect = flow.replace("{name: c}", "{name: c, resources: {limits: {cpu: 500m}}}");
        check(flow, &[limit], &expect);
        let missing = Change::set(
            &["spec", "template", "spec", "containers", "7", "image"],
            "x",
        );
        assert!(edit(DEPLOYMENT, &[missing]).is_err());
    }

    #[test]
    fn a_key_is_added_after_a_block_of_text() {
        let expect = format!("{DEPLOYMENT}  paused: true\n");
        check(
            DEPLOYMENT,
            &[Change::set(&["spec", "paused"], true)],
            &expect,
        );
    }

    #[test]
    fn missing_mappings_are_made() {
        let node = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1";
        check(
            node,
            &[Change::set(&["spec", "unschedulable"], true)],
            &format!("{node}\nspec:\n  unschedulable: true\n"),
        );
    }

    #[test]
    fn flow_mappings_stay_flow_mappings() {
        check(
            "{a: {b: c}}",
            &[Change::set(&["a", "d"], 1)],
            "{a: {b: c, d: 1}}",
        );
        check("a: {}\n", &[Change::set(&["a", "d"], 1)], "a: {d: 1}\n");
        check(
            r#"{"spec": {"replicas": 1}}"#,
            &[Change::set(&["spec", "replicas"], 2)],
            r#"{"spec": {"replicas": 2}}"#,
        );
    }

    #[test]
    fn removing_takes_the_line_and_what_gets_empty() {
        check(
            "a:\n  b: 1\n  c: 2 # two\nd: 3\n",
            &[Change::remove(&["a", "c"])],
            "a:\n  b: 1\nd: 3\n",
        );
        check(
            "a:\n  b:\n    c: 2\nd: 3\n",
            &[Change::remove(&["a", "b", "c"])],
            "d: 3\n",
        );
    }

    #[test]
    fn items_are_added_at_the_end_of_their_list() {
        let add = Change::Append(vec!["l".into()], serde_json::json!({"a": 2, "b": 3}));
        check(
            "l:\n  - a: 1 # one\nm: 1\n",
            std::slice::from_ref(&add),
            "l:\n  - a: 1 # one\n  - a: 2\n    b: 3\nm: 1\n",
        );
        check(
            "l:\n- a: 1",
            std::slice::from_ref(&add),
            "l:\n- a: 1\n- a: 2\n  b: 3\n",
        );
        assert!(edit("m: 1\n", &[add]).unwrap().rewritten);
    }

    #[test]
    fn what_cannot_be_done_in_the_text_is_written_anew_with_the_right_content() {
        let text = "base: &b {x: 1}\nspec: *b\n";
        let edited = edit(text, &[Change::set(&["spec", "x"], 2)]).unwrap();
        assert!(edited.rewritten);
        let value: Value = serde_yaml::from_str(&edited.text).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"base": {"x": 1}, "spec": {"x": 2}})
        );
    }

    #[test]
    fn a_change_that_changes_nothing_leaves_the_text_alone() {
        check(
            DEPLOYMENT,
            &[
                Change::set(&["spec", "replicas"], 3),
                Change::remove(&["spec", "nope"]),
            ],
            DEPLOYMENT,
        );
    }

    #[test]
    fn text_beyond_ascii_does_not_shift_places() {
        check(
            "a: ä # ü\nb: 1\n",
            &[Change::set(&["b"], 2)],
            "a: ä # ü\nb: 2\n",
        );
    }
}
