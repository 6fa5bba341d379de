//! Running programs and waiting for what they bring about.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How a program ended and what it printed.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output of a program that must have succeeded.
    ///
    /// # Panics
    /// When it did not, with all that it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(
            self.code, 0,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self.stdout
    }

    /// Standard error of a program that must have failed with exit code 1.
    ///
    /// # Panics
    /// When it did not, with all that it said.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!(
            self.code, 1,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self.stderr
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program to its end, with `input` on its standard input.
///
/// # Panics
/// When it cannot be started.
pub fn run(command: &mut Command, input: &str) -> Outcome {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input closes it; that is no failure of the test.
        let _ = stdin.write_all(input.as_bytes());
    }
    child
        .wait_with_output()
        .map_or_else(|e| panic!("waiting for {command:?}: {e}"), Outcome::from)
}

/// A program that is told to end with the test, also when that has failed.
pub struct Started(pub Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Waits until `holds` says yes, and returns what it found; `Err` is the state so far.
///
/// # Panics
/// After `limit`, with the last state.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match holds() {
            Ok(found) => return found,
            Err(state) if Instant::now() > deadline => {
                panic!("not within {limit:?}: {what}. Last state:\n{state}")
            }
            Err(_) => pause(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks at another process; what counts is the predicate"
)]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// The program under test: `SETPOINT_BIN`, else the one beside this test's own build.
///
/// # Panics
/// When there is none: build it first.
pub fn setpoint_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SETPOINT_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().expect("a test knows its own path");
    let built = own.ancestors().nth(2).map(|dir| dir.join("setpoint"));
    match built {
        Some(path) if path.is_file() => path,
        _ => panic!(
            "no setpoint program to test: run `make e2e`, or `cargo build` first, or set SETPOINT_BIN"
        ),
    }
}

/// The folder of the repository. As cargo says it when the test runs, not when it was built: checkouts may share their
/// build artefacts.
///
/// # Panics
/// When cargo does not run the test: run it with `make e2e`.
pub fn repository() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&own)
        .parent()
        .expect("the crate is in the repository")
        .into()
}
