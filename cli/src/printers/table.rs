//! Tables as kubectl prints them: upper-case headers, three spaces between columns, no lines.

use crate::term::Out;

/// The gap between two columns.
const GAP: usize = 3;

/// Prints rows under headers, and remembers the widths so that rows which come later stay in line.
#[derive(Default)]
pub(crate) struct Table {
    headers: Vec<String>,
    widths: Vec<usize>,
    headers_due: bool,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new<S: Into<String>>(headers: impl IntoIterator<Item = S>) -> Self {
        let headers: Vec<String> = headers
            .into_iter()
            .map(|h| h.into().to_uppercase())
            .collect();
        Self {
            widths: vec![0; headers.len()],
            headers,
            headers_due: true,
        }
    }

    /// Leaves the headers out.
    #[must_use]
    pub(crate) fn without_headers(mut self) -> Self {
        self.headers_due = false;
        self
    }

    /// Prints rows, under the headers when they have not been printed yet.
    pub(crate) fn print(&mut self, out: &mut Out, rows: &[Vec<String>]) {
        let colour = out.colour();
        for line in self.lines(rows, colour) {
            out.line(line);
        }
    }

    fn lines(&mut self, rows: &[Vec<String>], colour: bool) -> Vec<String> {
        let mut all: Vec<&Vec<String>> = Vec::with_capacity(rows.len() + 1);
        let headers = self.headers.clone();
        if std::mem::take(&mut self.headers_due) {
            all.push(&headers);
        }
        let body_from = all.len();
        all.extend(rows);
        for row in &all {
            for (width, cell) in self.widths.iter_mut().zip(*row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        all.iter()
            .enumerate()
            .map(|(i, row)| self.line(row, colour && i >= body_from))
            .collect()
    }

    fn line(&self, row: &[String], colour: bool) -> String {
        let mut line = String::new();
        let last = row.len().saturating_sub(1);
        for (i, cell) in row.iter().enumerate() {
            // A line break in a message would break the table.
            let cell = if cell.contains(['\n', '\r', '\t']) {
                cell.replace(['\n', '\r', '\t'], " ")
            } else {
                cell.clone()
            };
            let shade = if colour {
                shade(&self.headers[i], &cell)
            } else {
                None
            };
            match shade {
                Some(code) => line.push_str(&format!("\x1b[{code}m{cell}\x1b[0m")),
                None => line.push_str(&cell),
            }
            if i < last {
                let pad = self.widths[i].saturating_sub(cell.chars().count()) + GAP;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        line.truncate(line.trim_end_matches(' ').len());
        line
    }
}

/// The colour of a cell: green for what is well, yellow for what is under way, red for what needs a person.
fn shade(header: &str, cell: &str) -> Option<u8> {
    const GREEN: u8 = 32;
    const YELLOW: u8 = 33;
    const RED: u8 = 31;
    match header {
        "STATUS" => Some(match cell.split([',', ':']).next().unwrap_or_default() {
            "Running" | "Ready" | "Active" | "Succeeded" | "Completed" | "Bound"
                if !cell.contains("Disabled") =>
            {
                GREEN
            }
            "Pending" | "ContainerCreating" | "PodInitializing" | "Init" | "Terminating"
            | "Running" | "Ready" => YELLOW,
            _ => RED,
        }),
        "TYPE" if cell == "Warning" => Some(YELLOW),
        "READY" => match cell.split_once('/') {
            Some((have, want)) if have != want => Some(YELLOW),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| (*c).to_owned()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let mut t = Table::new(["name", "status"]);
        let lines = t.lines(&[row(&["a-long-name", "Running"]), row(&["b", ""])], false);
        assert_eq!(
            lines,
            ["NAME          STATUS", "a-long-name   Running", "b"]
        );
    }

    #[test]
    fn later_rows_stay_in_line_and_headers_come_once() {
        let mut t = Table::new(["name", "age"]);
        t.lines(&[row(&["abcdef", "1s"])], false);
        assert_eq!(t.lines(&[row(&["x", "2s"])], false), ["x        2s"]);
    }

    #[test]
    fn colour_does_not_change_the_alignment() {
        let mut t = Table::new(["status", "x"]).without_headers();
        let lines = t.lines(
            &[row(&["Running", "1"]), row(&["CrashLoopBackOff", "2"])],
            true,
        );
        assert_eq!(lines[0], "\x1b[32mRunning\x1b[0m            1");
        assert_eq!(lines[1], "\x1b[31mCrashLoopBackOff\x1b[0m   2");
    }

    #[test]
    fn a_line_break_in_a_cell_does_not_break_the_table() {
        let mut t = Table::new(["message"]).without_headers();
        assert_eq!(t.lines(&[row(&["one\ntwo"])], false), ["one two"]);
    }
}
