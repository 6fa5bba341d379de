//! Writing YAML that every reader takes for the same.
//!
//! The writer underneath quotes what YAML 1.2 would not take for a text. Kubernetes' tools and our own reader of manifests
//! read YAML 1.1, where `yes`, `n` or `1_000` are no texts either; what is printed must survive being applied again.

use serde::Serialize;

use crate::strict::scalar::{Scalar, is_json_number, resolve};

/// Writes a value as YAML, so that readers of YAML 1.1 and of 1.2 read the same.
///
/// # Errors
/// When it cannot be written: a mapping whose keys are no texts.
pub fn to_yaml<T: Serialize>(value: &T) -> Result<String, serde_yaml::Error> {
    let text = serde_yaml::to_string(value)?;
    let mut quoted = String::new();
    // How much of the text is in `quoted` already.
    let mut done = 0;
    let mut block: Option<usize> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let line = line.trim_end_matches('\n');
        let indent = line.len() - line.trim_start_matches(' ').len();
        match block {
            // The lines of a text are indented more than what they belong to.
            Some(outer) if indent > outer || line.is_empty() => continue,
            _ => block = None,
        }
        let (depth, parts) = parts(line);
        for part in parts.into_iter().flatten() {
            let word = &line[part.clone()];
            if begins_block(word) {
                block = Some(depth);
            } else if is_ambiguous(word) {
                quoted.push_str(&text[done..start + part.start]);
                quoted.push('\'');
                quoted.push_str(word);
                quoted.push('\'');
                done = start + part.end;
            }
        }
    }
    if done == 0 {
        return Ok(text);
    }
    quoted.push_str(&text[done..]);
    Ok(quoted)
}

type Range = std::ops::Range<usize>;

/// The indentation of what a line says, behind dashes of lists, and where its key and its value are; what is in quotes is
/// left out.
fn parts(line: &str) -> (usize, [Option<Range>; 2]) {
    let mut start = line.len() - line.trim_start_matches(' ').len();
    let mut depth = start;
    let mut of_key = false;
    // A long key stands alone behind `? `, and its value on the next line behind `: `.
    while let Some(mark @ ("- " | "? " | ": ")) = line.get(start..start + 2) {
        start += 2;
        of_key |= mark != "- ";
        if mark == "- " {
            depth = start;
        }
    }
    // A list in a list item: the text of an item is indented more than the dash, not more than the item.
    if !of_key && depth > 0 && line[..depth].ends_with("- ") && !line[start..].contains(": ") {
        depth -= 2;
    }
    let rest = &line[start..];
    let whole = (!rest.starts_with(['\'', '"'])).then_some(start..line.len());
    let key_end = match rest.as_bytes().first() {
        Some(quote @ (b'\'' | b'"')) => after_quote(rest, *quote),
        _ => rest
            .find(": ")
            .or_else(|| rest.strip_suffix(':').map(str::len)),
    };
    let Some(end) = key_end.filter(|end| rest[*end..].starts_with(':')) else {
        return (depth, [whole, None]);
    };
    let key = whole.map(|_| start..start + end);
    let value = start + end + 2;
    let value = (value < line.len() && !line[value..].starts_with(['\'', '"']))
        .then_some(value..line.len());
    (depth, [key, value])
}

/// Where what begins with a quote ends.
fn after_quote(text: &str, quote: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 2,
            // Two of them are one within the text.
            b'\'' if quote == b'\'' && bytes.get(at + 1) == Some(&b'\'') => at += 2,
            byte if byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

/// Whether a word says that the lines of a text follow.
fn begins_block(word: &str) -> bool {
    let mut bytes = word.bytes();
    matches!(bytes.next(), Some(b'|' | b'>'))
        && bytes.all(|b| matches!(b, b'-' | b'+' | b'0'..=b'9'))
}

/// Whether a word is a text to YAML 1.2, which the writer has left as it is, and none to YAML 1.1.
fn is_ambiguous(word: &str) -> bool {
    // Such a text has been quoted.
    if is_json_number(word) {
        return false;
    }
    match resolve(word) {
        Scalar::Text => false,
        Scalar::Bool(_) => !matches!(word, "true" | "false"),
        Scalar::Null => !matches!(word, "null" | ""),
        Scalar::Int(_) | Scalar::Float(_) | Scalar::NotFinite => {
            matches!(
                serde_yaml::from_str(word),
                Ok(serde_yaml::Value::String(_)) | Err(_)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::strict::yaml::parse;

    const WORDS: [&str; 34] = [
        "y",
        "Y",
        "yes",
        "No",
        "on",
        "OFF",
        "n",
        "true",
        "null",
        "~",
        "",
        "1_000",
        "0644",
        "0b11",
        "0x1F",
        "0o17",
        "+1",
        "1e3",
        ".5",
        "5.",
        "1_0.5",
        ".inf",
        ".nan",
        "-.INF",
        "12:30:45",
        "2001-01-01",
        "- a",
        "a: b",
        "|",
        ">-",
        "a |",
        "it's",
        "yes: no",
        "# no",
    ];

    #[test]
    fn what_is_written_reads_back_as_the_same_in_both_versions_of_yaml() {
        let mut all = serde_json::Map::new();
        for word in WORDS {
            let lines = format!("{word}\nyes\n- n\na: on\n");
            all.insert(word.into(), json!(word));
            all.insert(
                format!("{word} in all places"),
                json!([word, [word, [lines, word]], {&lines: word, "n": "off"}, {word: word}, [{word: [word], "n": lines}], lines]),
            );
            all.insert(format!("{word} {}", "long ".repeat(40)), json!(word));
        }
        all.insert(
            "numbers".into(),
            json!([1, -2.5, true, false, null, {}, []]),
        );
        let all = Value::Object(all);
        let text = to_yaml(&all).unwrap();
        assert_eq!(serde_yaml::from_str::<Value>(&text).unwrap(), all, "{text}");
        let strict = parse(&text).unwrap().unwrap().root.to_json();
        assert_eq!(strict, all, "{text}");
    }

    #[test]
    fn only_what_is_ambiguous_is_quoted() {
        let value = json!({"a": ["yes", "no way", true, 5, "5"], "on": "x", "script": "yes\nno\n"});
        let text = "a:\n- 'yes'\n- no way\n- true\n- 5\n- '5'\n'on': x\nscript: |\n  yes\n  no\n";
        assert_eq!(to_yaml(&value).unwrap(), text);
    }
}
