//! Runs the program with a keyspace of the test's own, and looks at etcd directly.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use setpoint_apis::{Key, KeyRange, Keyspace, ObjectKey};
use setpoint_store::testing::TestEtcd;
use setpoint_store::{KeyValue, RangeRequest, Revision, SharedStore, Txn};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A keyspace in the shared etcd.
pub(crate) struct Fixture {
    pub(crate) etcd: Arc<TestEtcd>,
    pub(crate) store: SharedStore,
    pub(crate) keyspace: Keyspace,
    pub(crate) dir: TempDir,
    /// What the program's environment says besides.
    pub(crate) env: Vec<(&'static str, PathBuf)>,
}

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It went well: its output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }

    /// It failed with exit code 1: its words.
    #[track_caller]
    pub(crate) fn fails(self) -> String {
        assert_eq!(self.code, Some(1), "{self:#?}");
        assert!(
            self.err.contains("error:"),
            "no error is announced: {self:#?}"
        );
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self.err
    }
}

impl Fixture {
    /// An initialised keyspace.
    pub(crate) async fn new(name: &str) -> Self {
        let fixture = Self::bare(name).await;
        fixture.run(&["init"]).ok();
        fixture
    }

    /// A keyspace with nothing in it.
    pub(crate) async fn bare(name: &str) -> Self {
        Self::of(TestEtcd::shared().await, name).await
    }

    /// A keyspace with nothing in it, in an etcd of the test's own.
    pub(crate) async fn of(etcd: Arc<TestEtcd>, name: &str) -> Self {
        let keyspace = Keyspace::new(&etcd.prefix(name)).expect("a prefix");
        let store = etcd.store().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self {
            etcd,
            store,
            keyspace,
            dir,
            env: Vec::new(),
        }
    }

    /// The program with this keyspace.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command
            .args(args)
            .env("SETPOINT_ENDPOINTS", self.etcd.endpoint())
            .env("SETPOINT_PREFIX", self.keyspace.as_str())
            .env("XDG_CONFIG_HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().expect("running setpoint");
        Ran::of(output)
    }

    /// Runs the program with text on standard input.
    #[track_caller]
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Ran {
        Ran::of(with_input(self.command(args), input))
    }

    /// Applies a text.
    #[track_caller]
    pub(crate) fn apply(&self, text: &str) -> String {
        self.run_with_input(&["apply", "-f", "-"], text).ok()
    }

    /// Writes a file.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A key.
    pub(crate) fn key(&self, key: &Key<'_>) -> String {
        self.keyspace.build(key)
    }

    /// Puts a value, as `etcdctl put` would.
    pub(crate) async fn put(&self, key: &Key<'_>, value: &str) -> Revision {
        let txn = Txn::new().put(self.key(key), value.to_owned());
        self.store.txn(txn).await.expect("a put").revision
    }

    /// Removes a key.
    pub(crate) async fn remove(&self, key: &Key<'_>) {
        let txn = Txn::new().delete(self.key(key));
        self.store.txn(txn).await.expect("a delete");
    }

    /// Reads a key.
    pub(crate) async fn get(&self, key: &Key<'_>) -> Option<KeyValue> {
        self.store.get(&self.key(key)).await.expect("a read").0
    }

    /// All keys of a range.
    pub(crate) async fn range(&self, range: KeyRange) -> Vec<KeyValue> {
        let request = RangeRequest {
            start: range.start,
            end: range.end,
            ..RangeRequest::default()
        };
        self.store.range(request).await.expect("a range").kvs
    }

    /// The text of a desired document.
    pub(crate) async fn desired(&self, plural: &str, name: &str) -> Option<String> {
        let key = Key::Desired(plural, ObjectKey::namespaced("default", name));
        let kv = self.get(&key).await?;
        Some(String::from_utf8_lossy(&kv.value).into_owned())
    }
}

/// The program without any setting of the machine's.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_setpoint"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SETPOINT_")) {
        command.env_remove(name);
    }
    command
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .env_remove("NO_COLOR");
    command
}

/// Runs the program without a cluster.
#[track_caller]
pub(crate) fn run_alone(args: &[&str]) -> Ran {
    Ran::of(program().args(args).output().expect("running setpoint"))
}

/// Runs the program without a cluster, with text on standard input.
#[track_caller]
pub(crate) fn run_alone_with_input(args: &[&str], input: &str) -> Ran {
    let mut command = program();
    command.args(args);
    Ran::of(with_input(command, input))
}

fn with_input(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starting setpoint");
    // A program that does not read all of it is no failure of the test.
    let _ = child
        .stdin
        .take()
        .expect("its input")
        .write_all(input.as_bytes());
    child.wait_with_output().expect("its output")
}

/// A program that goes on, killed when the test ends in whatever way.
pub(crate) struct Running {
    child: Child,
    output: Arc<parking_lot::Mutex<String>>,
}

impl Running {
    /// Starts it, and collects what it writes to standard output.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting setpoint");
        let output = Arc::new(parking_lot::Mutex::new(String::new()));
        let mut pipe = child.stdout.take().expect("its output");
        let sink = output.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = std::io::Read::read(&mut pipe, &mut buffer) {
                sink.lock().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self { child, output }
    }

    /// Waits until its output is as told, and gives it back.
    pub(crate) async fn until(&self, what: &str, told: impl Fn(&str) -> bool) -> String {
        eventually(what, || {
            let text = self.output.lock().clone();
            told(&text)
                .then_some(text)
                .ok_or_else(|| self.output.lock().clone())
        })
        .await
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let child = &mut self.child;
        eventually("the program to end", || match child.try_wait() {
            Ok(Some(status)) => Ok(status.code()),
            other => Err(format!("{other:?}")),
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something, and says at the end of a long wait how it stood last.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        match look() {
            Ok(value) => return value,
            Err(state) if tokio::time::Instant::now() > deadline => {
                panic!("waited for {what}; last: {state}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Whether a path lies in the repository's manifests.
pub(crate) fn manifests() -> PathBuf {
    // As cargo says it now, not when this was built: checkouts may share their build artefacts.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs the tests");
    Path::new(&own).join("../manifests")
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  k: '{value}'\n")
}

/// A Pod that sleeps.
pub(crate) fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n  containers:\n  \
         - name: c\n    image: host\n    command: [sleep, inf]\n"
    )
}

/// A Deployment, with a comment that has to survive.
pub(crate) fn deployment(name: &str, replicas: i32) -> String {
    format!(
        "# Kept.\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\nspec:\n  replicas: {replicas} # so many\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         containers:\n      - {{name: c, image: host, command: [sleep, inf]}}\n"
    )
}
