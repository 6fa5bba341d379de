//! Values without parts: texts, numbers, words, quantities.

use serde_json::{Value as Json, json};

use super::{Checker, Edit};
use crate::strict::nearest;
use crate::strict::scalar;
use crate::strict::yaml::{Node, Value, int_json};

impl Checker<'_> {
    pub(super) fn integer(&mut self, s: &Json, n: i128, node: &Node, path: &str) -> Option<Json> {
        let (low, high) = match s["format"].as_str() {
            Some("int32") => (i128::from(i32::MIN), i128::from(i32::MAX)),
            Some("uint32") => (0, i128::from(u32::MAX)),
            Some("uint16") => (0, i128::from(u16::MAX)),
            Some("uint8") => (0, i128::from(u8::MAX)),
            Some("uint64" | "uint") => (0, i128::from(u64::MAX)),
            _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
        };
        if !(low..=high).contains(&n) {
            self.error(
                node.at,
                path,
                format!("{n} is out of range: it must be between {low} and {high}"),
                None,
            );
            return None;
        }
        self.canonical(node, &n.to_string(), |written, canonical| {
            written == canonical
        });
        Some(int_json(n))
    }

    pub(super) fn word(&mut self, words: &[&str], node: &Node, path: &str) -> Option<Json> {
        match &node.value {
            Value::Text(text) if words.contains(&text.as_str()) => Some(Json::String(text.clone())),
            Value::Text(text) => {
                let hint = nearest(text, words.iter().copied());
                let message = match words {
                    [one] => format!("{text:?} must be {one:?}"),
                    _ => format!("{text:?} is not one of {}", words.join(", ")),
                };
                self.error(node.at, path, message, hint);
                None
            }
            _ => {
                let (message, _) = mismatch(&["string"], node);
                self.error(
                    node.at,
                    path,
                    format!("{message}: one of {}", words.join(", ")),
                    None,
                );
                None
            }
        }
    }

    pub(super) fn quantity(&mut self, node: &Node, path: &str) -> Option<Json> {
        let text = match &node.value {
            Value::Text(text) => {
                self.keep_text(node, text);
                text.clone()
            }
            Value::Int(_) | Value::Float(_) => {
                self.canonical(node, &node.to_json().to_string(), |written, _| {
                    scalar::is_json_number(written)
                });
                node.to_json().to_string()
            }
            _ => {
                let (message, _) = mismatch(&["a quantity such as 250m or 1Gi"], node);
                self.error(node.at, path, message, None);
                return None;
            }
        };
        if let Err(e) = text.parse::<crate::Quantity>() {
            self.error(node.at, path, e.to_string(), None);
            return None;
        }
        Some(node.to_json())
    }

    pub(super) fn int_or_string(&mut self, node: &Node, path: &str) -> Option<Json> {
        match &node.value {
            Value::Text(text) => {
                self.keep_text(node, text);
                Some(Json::String(text.clone()))
            }
            Value::Int(n) => self.integer(&json!({ "format": "int32" }), *n, node, path),
            _ => {
                let (message, _) = mismatch(&["a number or a text"], node);
                self.error(node.at, path, message, None);
                None
            }
        }
    }

    pub(super) fn formatted(&mut self, format: &str, node: &Node, path: &str) -> Option<Json> {
        let Value::Text(text) = &node.value else {
            let (message, _) = mismatch(&["string"], node);
            self.error(node.at, path, message, None);
            return None;
        };
        let problem = match format {
            "byte" => crate::base64::Base64::parse(text).err().map(|e| {
                format!("{e}: what is not encoded belongs under stringData (in a Secret) or data (in a ConfigMap)")
            }),
            _ => text.parse::<crate::Timestamp>().err().map(|e| e.to_string()),
        };
        if let Some(problem) = problem {
            self.error(node.at, path, problem, None);
            return None;
        }
        Some(Json::String(text.clone()))
    }

    /// What may be anything is kept, in words that every reader of YAML takes for the same.
    pub(super) fn as_every_reader_takes_it(&mut self, node: &Node) {
        match &node.value {
            Value::Text(text) => self.keep_text(node, text),
            Value::Bool(_) | Value::Int(_) => {
                self.canonical(node, &node.to_json().to_string(), |written, canonical| {
                    written == canonical
                });
            }
            Value::Float(_) => {
                self.canonical(node, &node.to_json().to_string(), |written, _| {
                    scalar::is_json_number(written)
                });
            }
            Value::Map(entries) => {
                for entry in entries {
                    if entry.key_rewritten {
                        let text = Json::String(entry.key.clone()).to_string();
                        self.found
                            .edits
                            .push(Edit::Replace(entry.key_range.clone(), text));
                    }
                    self.as_every_reader_takes_it(&entry.value);
                }
            }
            Value::List(items) => items
                .iter()
                .for_each(|item| self.as_every_reader_takes_it(item)),
            Value::Null => {}
        }
    }

    /// A text that a later YAML would read as a number is put in quotes.
    pub(super) fn keep_text(&mut self, node: &Node, text: &str) {
        let like_a_number =
            text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
        if node.plain
            && like_a_number
            && !serde_yaml::from_str::<Json>(text).is_ok_and(|v| v.is_string())
        {
            self.found.edits.push(Edit::Replace(
                node.range.clone(),
                Json::String(text.into()).to_string(),
            ));
        }
    }

    /// A word that only YAML 1.1 takes as this value is written as every reader takes it.
    pub(super) fn canonical(&mut self, node: &Node, canonical: &str, fine: fn(&str, &str) -> bool) {
        if node.plain {
            self.found
                .edits
                .push(Edit::Canonical(node.range.clone(), canonical.into(), fine));
        }
    }
}

/// The words that are possible, when the type is an enumeration.
pub(super) fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(word) = schema["const"].as_str() {
        return Some(vec![word]);
    }
    if let Some(words) = schema["enum"].as_array() {
        return Some(words.iter().filter_map(Json::as_str).collect());
    }
    let options = schema["oneOf"].as_array()?;
    let mut words = Vec::new();
    for option in options {
        if let Some(word) = option["const"].as_str() {
            words.push(word);
        } else {
            words.extend(option["enum"].as_array()?.iter().filter_map(Json::as_str));
        }
    }
    Some(words)
}

pub(super) fn types(schema: &Json) -> Vec<&str> {
    match &schema["type"] {
        Json::String(one) => vec![one],
        Json::Array(several) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// What was expected and what is there, and what the writer may have meant.
pub(super) fn mismatch(types: &[&str], node: &Node) -> (String, Option<String>) {
    let expected: Vec<&str> = types
        .iter()
        .filter(|t| **t != "null")
        .map(|t| match *t {
            "string" => "a text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a mapping",
            other => other,
        })
        .collect();
    let found = match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Int(n) => format!("the number {n}"),
        Value::Float(x) => format!("the number {}", scalar::number(*x)),
        Value::Text(text) if text.chars().count() > 40 => "a text".to_owned(),
        Value::Text(text) => format!("the text {text:?}"),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    };
    let hint = match (&node.value, types.contains(&"string")) {
        (Value::Bool(_) | Value::Int(_) | Value::Float(_), true) => {
            Some("put it in quotes".to_owned())
        }
        (Value::Null, true) => Some("an empty text is written \"\"".to_owned()),
        (Value::Text(text), _) if types.contains(&"integer") && text.parse::<i64>().is_ok() => {
            Some("take the quotes off".to_owned())
        }
        (Value::Text(text), _)
            if types.contains(&"boolean")
                && matches!(scalar::resolve(text), scalar::Scalar::Bool(_)) =>
        {
            Some("take the quotes off".to_owned())
        }
        _ => None,
    };
    (
        format!("expected {}, found {found}", expected.join(" or ")),
        hint,
    )
}
