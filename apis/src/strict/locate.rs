//! From the path of a field to its place in the text.

use super::yaml::{Node, Place, Value};

/// Whether one of the paths leads to the other.
pub(super) fn related(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The place of a path, or of the nearest thing above it that is there.
pub(super) fn locate(root: &Node, path: &str) -> Place {
    let mut node = root;
    let mut at = root.at;
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = step(rest);
        rest = after;
        match (step, &node.value) {
            (Step::Key(key), _) => match node.entry(&key) {
                Some(entry) => {
                    node = &entry.value;
                    // Of a mapping or a list it is the key that a reader looks for.
                    at = if matches!(node.value, Value::Map(_) | Value::List(_) | Value::Null) {
                        entry.key_at
                    } else {
                        node.at
                    };
                }
                None => return at,
            },
            (Step::Index(i), Value::List(items)) if i < items.len() => {
                node = &items[i];
                at = node.at;
            }
            _ => return at,
        }
    }
    at
}

enum Step {
    Key(String),
    Index(usize),
}

/// The first step of a path and what is behind it.
fn step(path: &str) -> (Step, &str) {
    let path = path.strip_prefix('.').unwrap_or(path);
    if let Some(inner) = path.strip_prefix('[') {
        if inner.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(inner).into_iter::<String>();
            if let Some(Ok(key)) = values.next() {
                let end = values.byte_offset();
                let after = inner.get(end..).unwrap_or_default();
                return (Step::Key(key), after.strip_prefix(']').unwrap_or(after));
            }
        }
        let (index, after) = inner.split_once(']').unwrap_or((inner, ""));
        return (
            index
                .parse()
                .map_or_else(|_| Step::Key(index.into()), Step::Index),
            after,
        );
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    (Step::Key(path[..end].into()), &path[end..])
}
