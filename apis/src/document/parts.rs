//! Where the metadata of a document ends, found without reading it.
//!
//! Nearly all stored documents are written by programs, and are blocks: `apiVersion`, `kind`, `metadata`, then the rest
//! (the *body*). Such a text means what its parts mean, each read alone, because every construct of YAML that reaches
//! beyond the lines of its block is absent from the metadata: texts in quotes end on their line, there are no brackets
//! outside of quotes, no anchors, no tags, no comments, no characters that are line breaks to some. A text that is written
//! otherwise is simply not split.

/// A document in parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// `metadata:` and its block.
    pub(super) metadata: &'a str,
    /// The name, and the block of the metadata without the line that says it; when that is the first line.
    pub(super) named: Option<(&'a str, &'a str)>,
    /// Everything behind the metadata.
    pub(super) body: &'a str,
}

/// How many brackets the metadata may hold, in texts. Together with what a body may nest this stays below what an
/// ordinary read becomes suspicious of.
const MOST_BRACKETS: usize = 100;

/// The parts of a document of this kind, when it is written as programs write it.
pub(super) fn split<'a>(text: &'a str, api_version: &str, kind: &str) -> Option<Parts<'a>> {
    let from_metadata = text
        .strip_prefix("apiVersion: ")?
        .strip_prefix(api_version)?
        .strip_prefix("\nkind: ")?
        .strip_prefix(kind)?
        .strip_prefix('\n')?;
    let block = from_metadata.strip_prefix("metadata:\n")?;
    let mut body = block;
    while body.starts_with(' ') {
        let (line, behind) = body.split_once('\n')?;
        if !ends_on_its_line(line) {
            return None;
        }
        body = behind;
    }
    let block = &block[..block.len() - body.len()];
    let metadata = &from_metadata[..from_metadata.len() - body.len()];
    let brackets = block.bytes().filter(|b| matches!(b, b'[' | b'{')).count();
    if block.is_empty() || !body.starts_with("spec:") || brackets > MOST_BRACKETS {
        return None;
    }
    let named = block
        .strip_prefix("  name: ")
        .and_then(|rest| rest.split_once('\n'))
        .filter(|(name, _)| is_a_name(name));
    Some(Parts {
        metadata,
        named,
        body,
    })
}

/// Whether this is a name to YAML as well: no number, truth value or null, whoever reads it.
fn is_a_name(text: &str) -> bool {
    const OTHERS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && crate::names::dns_subdomain(text).is_ok()
        && !OTHERS.contains(&text)
        && !text.contains("null")
}

/// Whether a line of a block is `key:` or `key: value` (behind `- ` or not), with a value that ends where the line does.
fn ends_on_its_line(line: &str) -> bool {
    let line = line.trim_start_matches(' ');
    let line = line
        .strip_prefix("- ")
        .map_or(line, |l| l.trim_start_matches(' '));
    let key = line
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || b"._/-".contains(b))
        .count();
    if !line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return false;
    }
    let Some(value) = line[key..].strip_prefix(':') else {
        return false;
    };
    if value.is_empty() {
        return true;
    }
    let Some(value) = value.strip_prefix(' ') else {
        return false;
    };
    let printable = |b: &u8| matches!(b, b' '..=b'~');
    match value.as_bytes() {
        [b'\'', text @ .., b'\''] => text.iter().all(|b| printable(b) && *b != b'\''),
        [b'"', text @ .., b'"'] => text
            .iter()
            .all(|b| printable(b) && !matches!(b, b'"' | b'\\')),
        [first, rest @ ..] => {
            (first.is_ascii_alphanumeric() || b"./".contains(first))
                && rest
                    .iter()
                    .all(|b| b.is_ascii_alphanumeric() || b" ._/:+=,@-".contains(b))
        }
        [] => false,
    }
}

/// What comes before the name of a node to which a body pins its object, as programs write it.
const PIN: &str = "\n        nodeSelectorTerms:\n        - matchFields:\n          - key: metadata.name\n            \
                   operator: In\n            values:\n            - '";

/// A body that names a node, apart from that name: what is before it, the name, what is behind it. These lines may be
/// part of a longer text as well, so whoever takes them for a pin has to make sure.
pub(super) fn pin(body: &str) -> Option<(&str, &str, &str)> {
    let at = body.find(PIN)? + PIN.len();
    let (before, rest) = body.split_at(at);
    let (node, _) = rest.split_once('\'')?;
    let after = &rest[node.len()..];
    let plain = crate::names::dns_subdomain(node).is_ok() && !super::mentions_null(node);
    (plain && after.starts_with("'\n") && !after.contains(PIN)).then_some((before, node, after))
}

/// Whether a text may hold an alias to an anchor of its own. What aliases cost is counted over a whole document, so
/// such a text does not stand alone.
pub(super) fn may_repeat(text: &str) -> bool {
    let has = |mark: u8| {
        text.as_bytes().windows(2).any(|pair| {
            pair[0] == mark && (pair[1].is_ascii_alphanumeric() || b"_-".contains(&pair[1]))
        })
    };
    has(b'&') && has(b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: v1\nkind: Pod\n";

    fn metadata_of(block: &str) -> Option<String> {
        let text = format!("{HEAD}metadata:\n{block}spec:\n  x: 1\n");
        let parts = split(&text, "v1", "Pod").map(|p| p.metadata.to_owned());
        parts.inspect(|m| assert!(m.ends_with(block)))
    }

    #[test]
    fn a_document_as_programs_write_it_is_split() {
        let block = "  name: web-1\n  labels:\n    app: web\n    n: '1'\n    a.b/c: \"{&x\"\n  ownerReferences:\n  - apiVersion: apps/v1\n    controller: true\n";
        let text = format!("{HEAD}metadata:\n{block}spec:\n  x: 1\nstatus: {{}}\n");
        let parts = split(&text, "v1", "Pod").unwrap();
        assert_eq!(parts.metadata, format!("metadata:\n{block}"));
        assert_eq!(
            parts.named,
            Some(("web-1", &block["  name: web-1\n".len()..]))
        );
        assert_eq!(parts.body, "spec:\n  x: 1\nstatus: {}\n");
        assert_eq!(split(&text, "v1", "Node"), None);
    }

    #[test]
    fn metadata_that_could_reach_beyond_its_lines_is_not_split() {
        for block in [
            "",
            "\n  name: a\n",
            "  name: a # x\n",
            "  name: 'a\n",
            "  name: 'a''\n",
            "  name: \"a\\\"\n",
            "  labels: {a: b}\n",
            "  labels: [\n",
            "  labels: &x\n",
            "  labels: *x\n",
            "  name: !!str a\n",
            "  note: |\n    text\n",
            "  note: >-\n    text\n",
            "  name: a\r\n",
            "  name: a\u{2028}\n",
            "  name: a\n\tb: c\n",
            "  name: a\n  # x\n",
            "  name: a\n  b\n",
            "  ? a\n  : b\n",
            "  'name': a\n",
            "  name: a\n---\n",
            "  finalizers:\n  - a\n",
            "  name:  a\n",
        ] {
            assert_eq!(metadata_of(block), None, "{block:?}");
        }
        assert!(metadata_of("  labels:\n").is_some());
    }

    #[test]
    fn only_what_is_a_name_to_everybody_is_one() {
        for name in [
            "1e3", "0x1", "true", "null-1", "~", "A", "a b", "a_", "-a", "yes",
        ] {
            let text = format!("{HEAD}metadata:\n  name: {name}\nspec:\n");
            let named = split(&text, "v1", "Pod").and_then(|p| p.named.map(|n| n.0.to_owned()));
            assert_eq!(named, None, "{name}");
        }
    }
}
