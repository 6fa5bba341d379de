//! Fields of the pod that containers can read: in variables and in files.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{ConfigError, PodFacts};

/// The value of a field such as `metadata.name` or `metadata.labels['x']`. A label that is not set is empty.
///
/// # Errors
/// [`ConfigError::NoField`] when there is no such field.
pub fn field(facts: &PodFacts<'_>, path: &str) -> Result<String, ConfigError> {
    let meta = &facts.pod.metadata;
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => facts.uid.to_owned(),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => facts.node_name.to_owned(),
        "spec.serviceAccountName" => facts
            .pod
            .spec
            .service_account_name
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_owned(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.to_owned(),
        _ => {
            let by_key = |name: &str| {
                path.strip_prefix(name)?
                    .strip_prefix("['")?
                    .strip_suffix("']")
            };
            let value = match (by_key("metadata.labels"), by_key("metadata.annotations")) {
                (Some(key), _) => meta.labels.get(key),
                (_, Some(key)) => meta.annotations.get(key),
                _ => return Err(ConfigError::NoField(path.to_owned())),
            };
            value.cloned().unwrap_or_default()
        }
    })
}

/// All labels or annotations, one per line, as files of the downward API have them: `key="value"`.
fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter()
        .map(|(k, v)| format!("{k}={}", quoted(v)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A text in quotes, with the escapes that Kubernetes' readers expect.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lines_of_quoted_values_in_order() {
        let labels = BTreeMap::from([
            ("b".to_owned(), "2\n\"x\"".to_owned()),
            ("a/c".to_owned(), "ä\u{1}".to_owned()),
        ]);
        assert_eq!(lines(&labels), "a/c=\"ä\\x01\"\nb=\"2\\n\\\"x\\\"\"");
    }
}
