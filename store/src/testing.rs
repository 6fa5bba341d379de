//! Real etcd servers for tests (feature `testing`).
//!
//! A test starts a [`TestEtcd`] and talks to it. It listens on 127.0.0.1, on ports that are its own as long as it lives,
//! keeps its data in a temporary directory, and is killed when it is dropped or when the test process dies. A missing
//! etcd fails the test: `make test` installs one.

mod certs;
mod process;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::process::{Port, Process};
use crate::error::StoreError;
use crate::etcd::{ConnectOptions, EtcdStore, Pem, TlsOptions};
use crate::types::{RangeRequest, Txn, TxnOp};
use crate::{SharedStore, Store};

pub use self::certs::Certs;
pub use self::process::{find_etcd, find_etcdctl};

/// How long an etcd may take to start. Generous: a machine can be busy.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How to start an etcd.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--quota-backend-bytes`. `None` for etcd's default.
    pub quota_bytes: Option<u64>,
    /// Serve TLS, and want client certificates.
    pub tls: bool,
    /// More arguments.
    pub args: Vec<String>,
    /// The server. `None` for the one that all tests use: `SETPOINT_ETCD`, or etcd on the path.
    pub binary: Option<PathBuf>,
}

/// An etcd of the test's own.
pub struct TestEtcd {
    options: Options,
    binary: PathBuf,
    directory: TempDir,
    certs: Option<Certs>,
    client: Port,
    peer: Port,
    process: Mutex<Option<Process>>,
}

impl TestEtcd {
    /// Starts one, and waits until it answers.
    ///
    /// # Panics
    /// When there is no etcd, or it does not start.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Starts one that serves TLS and wants client certificates.
    ///
    /// # Panics
    /// As [`TestEtcd::start`].
    pub async fn start_tls() -> Self {
        Self::start_with(Options {
            tls: true,
            ..Options::default()
        })
        .await
    }

    /// Starts one with options.
    ///
    /// # Panics
    /// As [`TestEtcd::start`].
    pub async fn start_with(options: Options) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("setpoint-etcd-")
            .tempdir()
            .expect("a temporary directory");
        let certs = options.tls.then(|| Certs::write(directory.path()));
        let etcd = Self {
            binary: options.binary.clone().unwrap_or_else(find_etcd),
            options,
            directory,
            certs,
            client: Port::hold(),
            peer: Port::hold(),
            process: Mutex::new(None),
        };
        etcd.launch().await;
        etcd
    }

    /// One that all tests of the process share, each with a prefix of its own. It lives as long as somebody holds it.
    ///
    /// # Panics
    /// As [`TestEtcd::start`].
    pub async fn shared() -> Arc<Self> {
        static SHARED: tokio::sync::Mutex<Weak<TestEtcd>> =
            tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(etcd) = shared.upgrade() {
            return etcd;
        }
        let etcd = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&etcd);
        etcd
    }

    /// Its client URL.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certs.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://127.0.0.1:{}", self.client.number())
    }

    /// How to connect to it; with TLS, as the user `root`.
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            tls: self.tls_options("root"),
            ..ConnectOptions::new([self.endpoint()])
        }
    }

    /// The certificates of a user, when it serves TLS.
    pub fn tls_options(&self, user: &str) -> Option<TlsOptions> {
        self.certs.as_ref().map(|certs| {
            let (certificate, key) = certs.client(user);
            TlsOptions {
                ca: Pem::Text(certs.ca_pem()),
                client: Some((Pem::Text(certificate), Pem::Text(key))),
                server_name: None,
            }
        })
    }

    /// Writes the CA and a user's certificate and key to files, for programs that take paths.
    ///
    /// # Panics
    /// When it does not serve TLS, or the files cannot be written.
    pub fn tls_files(&self, user: &str) -> (PathBuf, PathBuf, PathBuf) {
        self.certs.as_ref().expect("an etcd with TLS").files(user)
    }

    /// A new connection, which is more patient than one by the defaults: what a test does with its own hands is to
    /// succeed on a busy machine too.
    ///
    /// # Panics
    /// When the options cannot work.
    pub async fn connect(&self) -> EtcdStore {
        let options = ConnectOptions {
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            keep_alive_timeout: Duration::from_secs(60),
            watch_silence_limit: Duration::from_secs(120),
            ..self.connect_options()
        };
        EtcdStore::connect(&options)
            .await
            .expect("options that work")
    }

    /// A new connection, as a shared store.
    ///
    /// # Panics
    /// As [`TestEtcd::connect`].
    pub async fn store(&self) -> SharedStore {
        Arc::new(self.connect().await)
    }

    /// A prefix that nobody else in this process has: `/t7-name`.
    pub fn prefix(&self, name: &str) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("/t{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.lock().as_ref().map(Process::id)
    }

    /// Ends it as a power failure would (SIGKILL), and waits until it is gone.
    pub fn kill(&self) {
        *self.process.lock() = None;
    }

    /// Starts it again, on the same data and ports, after [`TestEtcd::kill`].
    ///
    /// # Panics
    /// As [`TestEtcd::start`].
    pub async fn restart(&self) {
        self.kill();
        self.launch().await;
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Panics
    /// When it does not run.
    pub fn freeze(&self) {
        self.process.lock().as_ref().expect("etcd runs").freeze();
    }

    /// Lets it go on after [`TestEtcd::freeze`].
    ///
    /// # Panics
    /// When it does not run.
    pub fn thaw(&self) {
        self.process
            .lock()
            .as_ref()
            .expect("etcd runs")
            .signal(Signal::CONT);
    }

    /// Runs `etcdctl` against it, as `root` with TLS, and returns what it printed.
    ///
    /// # Panics
    /// When there is no etcdctl, or it fails.
    pub fn etcdctl(&self, args: &[&str]) -> String {
        let mut command = std::process::Command::new(process::find_etcdctl());
        command
            .env("ETCDCTL_API", "3")
            // The defaults are 5 s and 2 s: little on a busy machine.
            .args(["--command-timeout=60s", "--dial-timeout=30s"])
            .arg("--endpoints")
            .arg(self.endpoint());
        if self.certs.is_some() {
            let (ca, certificate, key) = self.tls_files("root");
            command
                .arg("--cacert")
                .arg(ca)
                .arg("--cert")
                .arg(certificate)
                .arg("--key")
                .arg(key);
        }
        let output = command.args(args).output().expect("etcdctl can be started");
        assert!(
            output.status.success(),
            "etcdctl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("etcd.log")
    }

    /// Starts the process and waits until it answers.
    async fn launch(&self) {
        let url = self.endpoint();
        let peer_url = format!("http://127.0.0.1:{}", self.peer.number());
        let mut args: Vec<String> = [
            "--name=test",
            &format!("--data-dir={}", self.data_dir().display()),
            &format!("--listen-client-urls={url}"),
            &format!("--advertise-client-urls={url}"),
            &format!("--listen-peer-urls={peer_url}"),
            &format!("--initial-advertise-peer-urls={peer_url}"),
            &format!("--initial-cluster=test={peer_url}"),
            "--logger=zap",
            "--log-level=warn",
        ]
        .map(str::to_owned)
        .into();
        if let Some(quota) = self.options.quota_bytes {
            args.push(format!("--quota-backend-bytes={quota}"));
        }
        if let Some(certs) = &self.certs {
            args.extend(certs.server_args());
        }
        args.extend(self.options.args.iter().cloned());
        *self.process.lock() = Some(Process::start(&self.binary, &args, &self.log_path()));

        // By the defaults: what is not answered soon is asked again.
        let store = EtcdStore::connect(&self.connect_options())
            .await
            .expect("options that work");
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if self.process.lock().as_mut().is_none_or(Process::has_ended) {
                panic!("etcd did not start:\n{}", self.log());
            }
            if self.client.accepts() && answers(&store).await {
                return;
            }
            assert!(
                Instant::now() <= deadline,
                "etcd did not answer within {START_LIMIT:?}\n{}",
                self.log()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Whether it has a leader, or turns us away, which it does only when it has one.
async fn answers(store: &EtcdStore) -> bool {
    match store.status().await {
        Ok(status) => status.has_leader,
        // From 3.6 on the status is not for everybody where authentication is switched on.
        Err(error) => {
            matches!(
                error,
                StoreError::Unauthenticated { .. } | StoreError::PermissionDenied { .. }
            )
        }
    }
}

/// Deletes everything under a prefix.
///
/// # Panics
/// When the store refuses.
pub async fn clear(store: &dyn Store, prefix: &str) {
    let end = prefix_end(prefix);
    let txn = Txn {
        then: vec![TxnOp::DeleteRange {
            start: prefix.to_owned(),
            end,
        }],
        ..Txn::default()
    };
    store.txn(txn).await.expect("the prefix can be deleted");
}

/// All keys and values under a prefix.
///
/// # Panics
/// When the store refuses.
pub async fn dump(store: &dyn Store, prefix: &str) -> Vec<(String, String)> {
    let request = RangeRequest {
        start: prefix.to_owned(),
        end: prefix_end(prefix),
        ..RangeRequest::default()
    };
    let page = store.range(request).await.expect("the prefix can be read");
    page.kvs
        .into_iter()
        .map(|kv| (kv.key, String::from_utf8_lossy(&kv.value).into_owned()))
        .collect()
}

/// The first key past all that begin with `prefix`, which must end in an ASCII character.
///
/// # Panics
/// When it does not.
pub fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let last = end
        .pop()
        .filter(char::is_ascii)
        .expect("a prefix that ends in an ASCII character");
    end.push(char::from(last as u8 + 1));
    end
}
