//! The layout of a description: names at the left, values in a column, sections indented.

use std::collections::BTreeMap;
use std::fmt;

/// The column of the values.
const COLUMN: usize = 18;

/// A description in the making.
#[derive(Default)]
pub(crate) struct Sheet {
    text: String,
    depth: usize,
}

impl Sheet {
    /// A name and its value; further lines of the value stand below its first.
    pub(crate) fn field(&mut self, name: &str, value: impl fmt::Display) {
        let value = value.to_string();
        let name = if name.is_empty() {
            String::new()
        } else {
            format!("{}{name}:", "  ".repeat(self.depth))
        };
        let column = COLUMN + 2 * self.depth;
        for (i, line) in value
            .trim_end()
            .lines()
            .chain(value.trim().is_empty().then_some(""))
            .enumerate()
        {
            let head = if i == 0 { name.as_str() } else { "" };
            let line = format!("{head:<column$} {line}");
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    /// A name and its value, when there is one.
    pub(crate) fn field_unless_empty(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.field(name, value);
        }
    }

    /// A mapping, one entry per line.
    pub(crate) fn pairs(&mut self, name: &str, pairs: &BTreeMap<String, String>) {
        if pairs.is_empty() {
            return self.field(name, "<none>");
        }
        let lines: Vec<String> = pairs
            .iter()
            .map(|(k, v)| format!("{k}={}", v.replace('\n', " ")))
            .collect();
        self.field(name, lines.join("\n"));
    }

    /// Names and values one below the other, in a column that is as wide as the names ask for.
    pub(crate) fn aligned(&mut self, pairs: &BTreeMap<String, String>) {
        let width = pairs.keys().map(|k| k.chars().count()).max().unwrap_or(0) + 1;
        for (name, value) in pairs {
            self.line(format!("{:<width$}  {value}", format!("{name}:")));
        }
    }

    /// A heading with what belongs under it.
    pub(crate) fn section(&mut self, name: &str, f: impl FnOnce(&mut Self)) {
        self.line(format!("{name}:"));
        self.depth += 1;
        f(self);
        self.depth -= 1;
    }

    /// A line at the present indentation.
    pub(crate) fn line(&mut self, line: impl fmt::Display) {
        let line = format!("{}{line}", "  ".repeat(self.depth));
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// Rows under headers, at the present indentation.
    pub(crate) fn table(&mut self, headers: &[&str], rows: &[Vec<String>]) {
        let rule: Vec<String> = headers.iter().map(|h| "-".repeat(h.len())).collect();
        let head: Vec<String> = headers.iter().map(|h| (*h).to_owned()).collect();
        let all: Vec<&Vec<String>> = [&head, &rule].into_iter().chain(rows).collect();
        let width = |i: usize| {
            all.iter()
                .filter_map(|r| r.get(i))
                .map(|c| c.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headers.len()).map(width).collect();
        for row in all {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, w)| {
                    format!(
                        "{}{}",
                        cell,
                        " ".repeat(w.saturating_sub(cell.chars().count()))
                    )
                })
                .collect();
            self.line(cells.join("  "));
        }
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_a_column_and_sections_are_indented() {
        let mut s = Sheet::default();
        s.field("Name", "web");
        s.pairs(
            "Labels",
            &[
                ("a".to_owned(), "1".to_owned()),
                ("b".to_owned(), "2".to_owned()),
            ]
            .into(),
        );
        s.section("Containers", |s| {
            s.section("c", |s| s.field("Image", "host"))
        });
        s.table(&["Type", "Status"], &[vec!["Ready".into(), "True".into()]]);
        assert_eq!(
            s.to_string(),
            "Name:              web\n\
             Labels:            a=1\n                   b=2\n\
             Containers:\n  c:\n    Image:             host\n\
             Type   Status\n----   ------\nReady  True\n"
        );
    }
}
