//! `setpoint schema` and `explain`: what may be written into manifests.

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;
use setpoint_apis::fields::{self, Class};
use setpoint_apis::registry::{KindInfo, Registry};
use setpoint_apis::schema;
use setpoint_apis::strict::nearest;

use crate::context::Context;
use crate::kinds;
use crate::printers::{self, Format};

/// Flags of `setpoint schema`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SchemaArgs {
    /// The kind; without one, a schema for files with any of them
    #[arg(value_name = "KIND")]
    kind: Option<String>,
    /// json or yaml
    #[arg(short, long, default_value = "json", value_name = "FORMAT")]
    output: Format,
}

/// Runs `schema`.
pub(crate) fn run(args: SchemaArgs, context: &mut Context) -> Result<()> {
    let registry = Registry::builtin();
    let value = match &args.kind {
        None => schema::combined(registry),
        Some(word) => schema::of_kind(find(word)?),
    };
    printers::value(&mut context.out, &args.output, &value)
}

/// Flags of `setpoint explain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ExplainArgs {
    /// The kind and the way to a field: deployment.spec.strategy
    #[arg(value_name = "KIND.FIELD...")]
    path: String,
    /// All fields below it, in outline
    #[arg(long)]
    recursive: bool,
}

/// Runs `explain`.
pub(crate) fn explain(args: ExplainArgs, context: &mut Context) -> Result<()> {
    let mut parts = args.path.split('.');
    let kind = find(parts.next().unwrap_or_default())?;
    let root = schema::raw(kind);
    let status = Value::from((kind.status_schema)());
    let mut node = Place {
        schema: &root,
        root: &root,
        type_name: kind.kind.to_owned(),
    };
    let mut way = kind.kind.to_lowercase();
    for part in parts {
        let part = part.trim_end_matches("[]").trim_end_matches("[*]");
        node = if part == "status" && way == kind.kind.to_lowercase() {
            Place {
                schema: &status,
                root: &status,
                type_name: format!("{}Status", kind.kind),
            }
        } else {
            node.field(part).with_context(|| {
                let names = node
                    .fields()
                    .into_iter()
                    .map(|(n, _)| n)
                    .collect::<Vec<_>>();
                match nearest(part, names.iter().map(String::as_str)) {
                    Some(near) => format!("{way} has no field {part:?}; did you mean {near:?}?"),
                    None if names.is_empty() => format!("{way} has no fields"),
                    None => format!("{way} has no field {part:?}; it has {}", names.join(", ")),
                }
            })?
        };
        way = format!("{way}.{part}");
    }
    let out = &mut context.out;
    out.line(format_args!("KIND:     {}", kind.kind));
    out.line(format_args!("VERSION:  {}", kind.api_version));
    out.line("");
    if way.contains('.') {
        out.line(format_args!("FIELD:    {way} <{}>", node.type_text()));
        out.line("");
    }
    out.line("DESCRIPTION:");
    out.line(format_args!(
        "    {}",
        node.description()
            .unwrap_or_else(|| "(none)".into())
            .replace('\n', "\n    ")
    ));
    let fields = node.fields();
    if !fields.is_empty() {
        out.line("");
        out.line("FIELDS:");
        outline(context, &node, 1, args.recursive, 0);
    }
    Ok(())
}

fn find(word: &str) -> Result<&'static KindInfo> {
    match kinds::documents().by_word(word) {
        Some(kind) => Ok(kind),
        None => kinds::unknown(word),
    }
}

fn outline(context: &mut Context, place: &Place<'_>, depth: usize, recursive: bool, level: usize) {
    for (name, field) in place.fields() {
        let required = if place.requires(&name) {
            " -required-"
        } else {
            ""
        };
        let remark = match fields::lookup(&place.target().1, &name) {
            Some(row) if row.class != Class::Supported => {
                format!(" ({}: {})", row.class.as_str(), row.why)
            }
            _ => String::new(),
        };
        let indent = "    ".repeat(depth);
        context.out.line(format_args!(
            "{indent}{name} <{}>{required}{remark}",
            field.type_text()
        ));
        if recursive {
            // Types that hold themselves are not followed for ever.
            if level < 12 {
                outline(context, &field, depth + 1, true, level + 1);
            }
        } else if let Some(text) = field.own_description() {
            for line in text.lines() {
                context.out.line(format_args!("{indent}  {line}"));
            }
        }
    }
}

/// A place in a schema.
struct Place<'a> {
    schema: &'a Value,
    root: &'a Value,
    /// The type's name, by which the table of fields knows it.
    type_name: String,
}

impl<'a> Place<'a> {
    /// The schema behind references, optionals and lists.
    fn target(&self) -> (&'a Value, String) {
        let mut at = self.schema;
        let mut name = self.type_name.clone();
        for _ in 0..16 {
            if let Some(reference) = at["$ref"].as_str() {
                name = reference.rsplit('/').next().unwrap_or_default().to_owned();
                match self.root.pointer(reference.trim_start_matches('#')) {
                    Some(next) => at = next,
                    None => break,
                }
            } else if let Some(next) = at["anyOf"]
                .as_array()
                .and_then(|a| a.iter().find(|s| s["type"] != "null"))
            {
                at = next;
            } else if let Some(items) = at.get("items").filter(|i| i.is_object()) {
                at = items;
            } else if let Some([one]) = at["allOf"].as_array().map(Vec::as_slice) {
                at = one;
            } else {
                break;
            }
        }
        (at, name)
    }

    fn field(&self, name: &str) -> Option<Self> {
        let (at, type_name) = self.target();
        let schema = at["properties"].get(name)?;
        Some(Self {
            schema,
            root: self.root,
            type_name: format!("{type_name}.{name}"),
        })
    }

    fn fields(&self) -> Vec<(String, Self)> {
        let (at, _) = self.target();
        let names = at["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(n, _)| n.clone());
        names
            .filter_map(|n| Some((n.clone(), self.field(&n)?.named())))
            .collect()
    }

    /// The same with the name of its type, so that its fields can be looked up in the table.
    fn named(self) -> Self {
        let type_name = self.target().1;
        Self { type_name, ..self }
    }

    fn requires(&self, name: &str) -> bool {
        self.target().0["required"]
            .as_array()
            .is_some_and(|r| r.iter().any(|n| n == name))
    }

    fn own_description(&self) -> Option<String> {
        self.schema["description"].as_str().map(str::to_owned)
    }

    fn description(&self) -> Option<String> {
        self.own_description()
            .or_else(|| self.target().0["description"].as_str().map(str::to_owned))
    }

    fn type_text(&self) -> String {
        let list = is_list(self.schema)
            || self.schema["anyOf"]
                .as_array()
                .is_some_and(|a| a.iter().any(is_list));
        let (at, name) = self.target();
        let text = if at["properties"].is_object() {
            name.rsplit('.').next().unwrap_or_default().to_owned()
        } else if at["additionalProperties"].is_object() {
            "map".to_owned()
        } else if at["enum"].is_array() || at["oneOf"].is_array() {
            "enum".to_owned()
        } else {
            match &at["type"] {
                Value::String(t) => t.clone(),
                Value::Array(all) => all
                    .iter()
                    .filter_map(Value::as_str)
                    .filter(|t| *t != "null")
                    .collect::<Vec<_>>()
                    .join(" or "),
                _ if at["const"].is_string() => "string".to_owned(),
                _ => "any".to_owned(),
            }
        };
        if list { format!("[]{text}") } else { text }
    }
}

fn is_list(schema: &Value) -> bool {
    schema["type"] == "array"
        || schema["type"]
            .as_array()
            .is_some_and(|t| t.iter().any(|t| t == "array"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_through_references_and_lists() {
        let kind = find("deploy").unwrap();
        let root = schema::raw(kind);
        let mut place = Place {
            schema: &root,
            root: &root,
            type_name: kind.kind.into(),
        };
        for part in [
            "spec",
            "template",
            "spec",
            "containers",
            "readinessProbe",
            "httpGet",
            "port",
        ] {
            place = place.field(part).unwrap_or_else(|| panic!("{part}"));
        }
        assert!(place.description().is_some());
        assert!(place.field("nope").is_none());
    }

    #[test]
    fn unknown_kinds_are_errors() {
        assert!(find("pood").is_err());
    }
}
