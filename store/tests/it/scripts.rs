//! `scripts/more-etcds.sh`: an etcd that was asked for and could be had is not left out in silence.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the scripts take for granted on any machine.
const BASICS: [&str; 14] = [
    "bash", "cat", "chmod", "dirname", "env", "id", "mkdir", "mktemp", "mv", "nice", "rm", "sed",
    "tail", "test",
];

/// A machine with nothing but the basics, and no etcd anywhere.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn bare() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bin = directory.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for name in BASICS {
            symlink(on_path(name), bin.join(name)).unwrap();
        }
        Self { directory }
    }

    /// A program of this name that does nothing but fail.
    fn with_broken(self, name: &str) -> Self {
        self.program(name, "false");
        self
    }

    /// A program of this name that is another one. It is not written: a child that another test starts meanwhile could
    /// keep it open for writing, and what is open for writing cannot be run.
    fn program(&self, name: &str, is: &str) -> PathBuf {
        let path = self.directory.path().join("bin").join(name);
        symlink(on_path(is), &path).unwrap();
        path
    }

    fn more_etcds(&self, variables: &[(&str, &Path)]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/more-etcds.sh");
        Command::new(script)
            .env_clear()
            .env("PATH", self.directory.path().join("bin"))
            .env("HOME", self.directory.path())
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }
}

fn on_path(name: &str) -> PathBuf {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name} on PATH"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_etcd_that_could_be_had_and_is_not_to_be_had_is_an_error() {
    for tool in ["go", "apt-get"] {
        let output = Machine::bare().with_broken(tool).more_etcds(&[]);
        assert_eq!(output.status.code(), Some(1), "{tool}: {output:?}");
        let said = text(&output.stderr);
        let expected = format!("could not be had, though {tool} is there");
        assert!(said.contains(&expected) && said.contains("=none"), "{said}");
    }
}

#[test]
fn what_cannot_be_had_on_a_machine_is_said_to_be_skipped() {
    let output = Machine::bare().more_etcds(&[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        text(&output.stderr).matches("SKIPPED: ").count(),
        2,
        "{output:?}"
    );
    let code = text(&output.stdout);
    assert!(
        code.contains("export SETPOINT_ETCD_CURRENT=none\n"),
        "{code}"
    );
    assert!(
        code.contains("export SETPOINT_ETCD_OLDEST=none\n"),
        "{code}"
    );
    assert!(
        code.contains("export SETPOINT_ETCD_SKIPPED=$'SKIPPED: "),
        "{code}"
    );
}

#[test]
fn an_etcd_that_is_named_is_taken_and_must_be_there() {
    let machine = Machine::bare().with_broken("go").with_broken("apt-get");
    let named = machine.program("an-etcd", "true");
    let none = Path::new("none");
    let output = machine.more_etcds(&[
        ("SETPOINT_ETCD_CURRENT", &named),
        ("SETPOINT_ETCD_OLDEST", none),
    ]);
    assert!(output.status.success(), "{output:?}");
    let line = format!("export SETPOINT_ETCD_CURRENT={}\n", named.display());
    assert!(text(&output.stdout).contains(&line), "{output:?}");
    assert_eq!(
        text(&output.stderr).matches("SKIPPED: ").count(),
        1,
        "{output:?}"
    );

    let missing = Path::new("/nonexistent/etcd");
    let output = machine.more_etcds(&[("SETPOINT_ETCD_CURRENT", missing)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("SETPOINT_ETCD_CURRENT is /nonexistent/etcd"));
}
