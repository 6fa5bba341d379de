//! The field reference as a document.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use super::{Class, kind_note, types};
use crate::registry::Registry;

const HEAD: &str = "\
# Fields

<!-- Generated from the field table in apis/src/fields/table/. To renew: UPDATE=1 cargo test -p setpoint-apis fields -->

What becomes of every field of the kinds that Setpoint takes, today.

- **supported**: does what it does in Kubernetes.
- **accepted**: kept, without effect here; a warning says so.
- **refused**: ignoring it would change what runs, so using it is an error; `--ignore-unsupported` makes it a warning.
- **left out**: etcd or the status keeps it; it is not stored, and a note says so.

A value in parentheses asks for nothing special and is fine in any class, as is an empty one. A field that is not listed
does not exist, and is always an error.
";

/// The field reference as Markdown.
pub fn markdown() -> String {
    let mut out = String::from(HEAD);
    let mut shown = BTreeSet::new();
    for kind in Registry::builtin().kinds() {
        let _ = write!(out, "\n## {} ({})\n", kind.kind, kind.api_version);
        if let Some(note) = kind_note(kind.kind) {
            let _ = write!(out, "\nToday {note}.\n");
        }
        let schema = crate::schema::raw(kind);
        for name in types_in_order(&schema, kind.kind) {
            if shown.insert(name.clone()) {
                type_section(&mut out, &name, &schema, kind.kind);
            }
        }
    }
    out
}

/// The object types that a kind uses, each once, in the order in which a reader meets them.
pub(super) fn types_in_order(schema: &Value, root: &str) -> Vec<String> {
    fn visit(schema: &Value, value: &Value, order: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(name) = map
                    .get("$ref")
                    .and_then(Value::as_str)
                    .and_then(|r| r.strip_prefix("#/$defs/"))
                {
                    let definition = &schema["$defs"][name];
                    if definition.get("properties").is_some() && !order.iter().any(|o| o == name) {
                        order.push(name.into());
                        visit(schema, definition, order);
                    }
                }
                map.iter()
                    .filter(|(k, _)| *k != "$defs")
                    .for_each(|(_, v)| visit(schema, v, order));
            }
            Value::Array(items) => items.iter().for_each(|v| visit(schema, v, order)),
            _ => {}
        }
    }
    let mut order = vec![root.to_owned()];
    visit(schema, schema, &mut order);
    order
}

fn type_section(out: &mut String, name: &str, schema: &Value, root: &str) {
    let Some((_, groups)) = types().find(|(n, _)| *n == name) else {
        return;
    };
    let definition = if name == root {
        schema
    } else {
        &schema["$defs"][name]
    };
    let _ = write!(out, "\n### {name}\n\n| Field | | |\n|---|---|---|\n");
    for group in groups {
        for field in group.fields.split(' ') {
            let about = definition["properties"][field]["description"]
                .as_str()
                .unwrap_or_default()
                .replace('\n', " ");
            let about = about.replace('|', "\\|");
            let mut remark = about.trim().to_owned();
            if !group.why.is_empty() && group.class != Class::Supported {
                let stop = if remark.is_empty() { "" } else { " " };
                remark = format!("{remark}{stop}*{}*", group.why);
            }
            let unless = if group.unless.is_empty() {
                String::new()
            } else {
                format!(
                    " ({})",
                    group
                        .unless
                        .iter()
                        .map(|u| u.trim_matches('"'))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            };
            let _ = writeln!(
                out,
                "| `{field}` | {}{unless} | {remark} |",
                group.class.as_str()
            );
        }
    }
}
