//! The terminal: standard output that takes a broken pipe quietly, colour, and one status line for what takes long.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Standard output, buffered.
///
/// A failed write is kept back and handed out by [`Out::flush`], so that the code which prints is not littered with
/// error handling; a reader that went away (`| head`) is told apart there.
pub(crate) struct Out {
    inner: Box<dyn Write>,
    error: Option<io::Error>,
    colour: bool,
}

impl Out {
    /// The process's standard output.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let colour = stdout.is_terminal() && wants_colour();
        Self {
            inner: Box::new(io::BufWriter::new(stdout)),
            error: None,
            colour,
        }
    }

    /// Whether colour is welcome.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) {
        self.text(format_args!("{line}\n"));
    }

    /// Writes text as it is.
    pub(crate) fn text(&mut self, text: impl fmt::Display) {
        if self.error.is_none()
            && let Err(error) = write!(self.inner, "{text}")
        {
            self.error = Some(error);
        }
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if self.error.is_none()
            && let Err(error) = self.inner.write_all(bytes)
        {
            self.error = Some(error);
        }
    }

    /// Hands everything to the terminal, for output that comes bit by bit.
    ///
    /// # Errors
    /// The first error of any write since the last call.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.inner.flush(),
        }
    }
}

/// Whether an error is, at its root, a reader that went away.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Writes a line to standard error, whatever becomes of it: there is nobody left to tell.
pub(crate) fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes a warning to standard error.
pub(crate) fn warn(text: impl fmt::Display) {
    let word = if io::stderr().is_terminal() && wants_colour() {
        "\x1b[33mwarning:\x1b[0m"
    } else {
        "warning:"
    };
    note(format_args!("{word} {text}"));
}

/// Writes an error with all of its causes to standard error.
pub(crate) fn error(error: &anyhow::Error) {
    let word = if io::stderr().is_terminal() && wants_colour() {
        "\x1b[31merror:\x1b[0m"
    } else {
        "error:"
    };
    note(format_args!("{word} {}", chain(error)));
}

/// An error and its causes as one text. A cause that the text before it ends with already is not said twice.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// `NO_COLOR` is the convention; a terminal that calls itself dumb has no colours either.
fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|v| v != "dumb")
}

/// One line on standard error that says what is being waited for. Nothing is drawn when that is not a terminal, nor in
/// the first half second.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Begins to wait.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(message.into());
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar }
    }

    /// Says something else.
    pub(crate) fn say(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Does something that writes to the terminal, with the line out of the way.
    pub(crate) fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        self.bar.suspend(f)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_not_said_twice() {
        let inner = anyhow::anyhow!("connection refused");
        let e = inner
            .context("reading a: connection refused")
            .context("get");
        assert_eq!(chain(&e), "get: reading a: connection refused");
    }

    #[test]
    fn a_reader_that_went_away_is_recognised_under_context() {
        let e = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&e));
        assert!(!is_broken_pipe(&anyhow::anyhow!("no")));
    }
}
