//! kubectl's JSONPath templates: text, `{paths}`, `{range paths}...{end}`, `{"literals"}`.
//!
//! A path is converted to the standard's form (RFC 9535) and evaluated by a library. A path that leads nowhere prints
//! nothing, as with kubectl.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use serde_json_path::JsonPath;

/// A template, ready to be evaluated.
#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Path(Path),
    Range(Path, Vec<Part>),
}

/// A path, ready to be evaluated.
#[derive(Debug)]
pub(crate) struct Path(JsonPath);

impl Path {
    /// Reads a path in kubectl's form: with or without braces, `$` and the leading dot.
    ///
    /// # Errors
    /// When it is malformed.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let bare = text.trim();
        let bare = bare
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .unwrap_or(bare)
            .trim();
        let standard = standard_form(bare).with_context(|| format!("invalid JSONPath {text:?}"))?;
        let path = JsonPath::parse(&standard)
            .with_context(|| format!("invalid JSONPath {text:?} (read as {standard})"))?;
        Ok(Self(path))
    }

    /// The values that the path leads to.
    pub(crate) fn query<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        self.0.query(value).all()
    }
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it is malformed.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        // As kubectl, take a bare path for a template of that path.
        let owned;
        let mut rest = if text.contains('{') {
            text
        } else {
            owned = format!("{{{text}}}");
            &owned
        };
        let mut stack: Vec<(Path, Vec<Part>)> = Vec::new();
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let Some(open) = rest.find('{') else {
                parts.push(Part::Text(rest.to_owned()));
                break;
            };
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let (inner, after) = action(&rest[open + 1..])?;
            rest = after;
            let inner = inner.trim();
            if let Some(path) = inner.strip_prefix("range ") {
                stack.push((Path::parse(path)?, std::mem::take(&mut parts)));
            } else if inner == "end" {
                let Some((path, outer)) = stack.pop() else {
                    bail!("{{end}} without {{range}} in {text:?}")
                };
                let body = std::mem::replace(&mut parts, outer);
                parts.push(Part::Range(path, body));
            } else if inner.starts_with(['"', '\'']) {
                parts.push(Part::Text(literal(inner)?));
            } else {
                parts.push(Part::Path(Path::parse(inner)?));
            }
        }
        if !stack.is_empty() {
            bail!("{{range}} without {{end}} in {text:?}");
        }
        Ok(Self { parts })
    }

    /// Fills the template in.
    pub(crate) fn render(&self, value: &Value) -> String {
        let mut out = String::new();
        render(&self.parts, value, &mut out);
        out
    }
}

fn render(parts: &[Part], value: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Path(path) => {
                let found: Vec<String> = path.query(value).into_iter().map(plain).collect();
                out.push_str(&found.join(" "));
            }
            Part::Range(path, body) => {
                for item in path.query(value) {
                    render(body, item, out);
                }
            }
        }
    }
}

/// A value as text: strings without quotes, everything else as JSON.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// The inside of braces, and what follows. Braces inside of quotes do not count.
fn action(text: &str) -> Result<(&str, &str)> {
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            _ if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '}' => return Ok((&text[..i], &text[i + 1..])),
            None => {}
        }
    }
    bail!("unclosed '{{' before {text:?}")
}

fn literal(text: &str) -> Result<String> {
    let quote = &text[..1];
    let Some(inner) = text[1..].strip_suffix(quote) else {
        bail!("unclosed quote in {text}")
    };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    Ok(out)
}

/// `.a.b\.c[0]` as `$['a']['b.c'][0]`.
fn standard_form(path: &str) -> Result<String> {
    let mut out = String::from("$");
    let path = path.strip_prefix('$').unwrap_or(path);
    let path = if path.starts_with(['.', '[']) || path.is_empty() {
        path.to_owned()
    } else {
        format!(".{path}")
    };
    let mut rest = path.as_str();
    while let Some(c) = rest.chars().next() {
        match c {
            '.' => {
                rest = &rest[1..];
                if let Some(after) = rest.strip_prefix('.') {
                    out.push_str("..");
                    rest = after;
                }
                let (name, after) = member(rest);
                rest = after;
                match name.as_str() {
                    "" => {}
                    "*" => out.push_str("[*]"),
                    name => out.push_str(&format!(
                        "['{}']",
                        name.replace('\\', "\\\\").replace('\'', "\\'")
                    )),
                }
            }
            '[' => {
                let end = bracket(rest)?;
                let inner = rest[1..end].trim();
                match inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
                    Some(filter) => out.push_str(&format!("[?({})]", filter.trim())),
                    None => out.push_str(&format!("[{inner}]")),
                }
                rest = &rest[end + 1..];
            }
            other => bail!("unexpected {other:?}"),
        }
    }
    Ok(out)
}

/// A member name up to the next separator; a backslash takes the next character as it is.
fn member(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, &text[i..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// The index of the bracket that closes the first one.
fn bracket(text: &str) -> Result<usize> {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Ok(i);
                }
            }
            _ => {}
        }
    }
    bail!("'[' without ']'")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(template: &str, expect: &str) {
        let value = json!({
            "kind": "List",
            "items": [
                {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x", "my-key": "k"}}, "n": 1,
                 "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
                {"metadata": {"name": "b"}, "n": 2, "conditions": []},
            ],
        });
        assert_eq!(
            Template::parse(template).unwrap().render(&value),
            expect,
            "{template}"
        );
    }

    #[test]
    fn templates_of_kubectl_give_what_kubectl_gives() {
        check("{.items[*].metadata.name}", "a b");
        check(".items[*].metadata.name", "a b");
        check("{$.kind}", "List");
        check(
            "{.items[0].metadata.labels.app\\.kubernetes\\.io/name}",
            "x",
        );
        check("{.items[0].metadata.labels['app.kubernetes.io/name']}", "x");
        check("{.items[0].metadata.labels.my-key}", "k");
        check(
            "{range .items[*]}{.metadata.name}{\"\\t\"}{.n}{\"\\n\"}{end}",
            "a\t1\nb\t2\n",
        );
        check(
            "{.items[0].conditions[?(@.type==\"Ready\")].status}",
            "True",
        );
        check("{.items[0].conditions[?(@.type=='Ready')].status}", "True");
        check("{.items[-1].metadata.name}", "b");
        check("{.items[-1:].metadata.name}", "b");
        check("{..name}", "a b");
        check("{.nothing.here}", "");
        check("name: {.items[0].metadata.name}!", "name: a!");
        check(
            "{.items[0].metadata.labels}",
            "{\"app.kubernetes.io/name\":\"x\",\"my-key\":\"k\"}",
        );
        check(
            "{range .items[*]}{range .conditions[*]}{.type},{end}{end}",
            "Ready,Other,",
        );
    }

    #[test]
    fn malformed_templates_are_errors() {
        for bad in ["{.a", "{range .a}", "{end}", "{.a[}", "{.a[?(}", "{\"x}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
