//! Cuts a file into its documents, so that one that cannot be read does not hide the others.

/// A document of a file.
pub(super) struct Chunk<'a> {
    /// Its text, with the line that begins it.
    pub(super) text: &'a str,
    /// How many lines of the file come before it.
    pub(super) lines_before: usize,
}

/// Cuts at lines that begin with `---`. A document without anything but blanks, comments and directives is left out.
pub(super) fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut out = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let (mut at, mut line) = (0, 0);
    for l in text.split_inclusive('\n') {
        if at > start && is_separator(l) {
            out.push(Chunk {
                text: &text[start..at],
                lines_before: start_line,
            });
            (start, start_line) = (at, line);
        }
        at += l.len();
        line += 1;
    }
    out.push(Chunk {
        text: &text[start..],
        lines_before: start_line,
    });
    out.retain(|c| c.text.lines().any(|l| !is_empty(l)));
    out
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn is_empty(line: &str) -> bool {
    let line = line
        .strip_prefix("---")
        .filter(|_| is_separator(line))
        .unwrap_or(line)
        .trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "..."
}
