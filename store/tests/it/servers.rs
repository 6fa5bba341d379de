//! The stores that the same cases are run against: the model, and each etcd that is at hand.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use setpoint_store::devstore::{self, DevStore};
use setpoint_store::model::{Config, ModelStore, Request, Response};
use setpoint_store::testing::{Options, TestEtcd, find_etcd};
use setpoint_store::{ConnectOptions, EtcdStore, Revision, SharedStore};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tonic::Status;

use crate::differential::client::Client;

/// The etcd servers of the tests, each once: the one that all tests use, and those that `SETPOINT_ETCD_CURRENT` and
/// `SETPOINT_ETCD_OLDEST` name. `make test` sets them.
pub(crate) fn binaries() -> Vec<PathBuf> {
    let mut binaries = vec![find_etcd()];
    for variable in ["SETPOINT_ETCD_CURRENT", "SETPOINT_ETCD_OLDEST"] {
        match named(variable) {
            Some(binary) if !binaries.contains(&binary) => binaries.push(binary),
            Some(_) => {}
            None => note(&format!(
                "SKIPPED: {variable} names no etcd: that one is not compared with the model"
            )),
        }
    }
    binaries
}

#[expect(
    clippy::print_stderr,
    reason = "whoever reads the output of a test that did nothing learns why"
)]
fn note(text: &str) {
    eprintln!("{text}");
}

/// The etcd that a variable names. Where it is not set nobody asked for one; `none` says that there is no way to get it.
fn named(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?;
    if value == "none" {
        return None;
    }
    let path = PathBuf::from(value);
    assert!(
        path.is_file(),
        "{variable} asks for a comparison with the etcd {path:?}, and there is none"
    );
    Some(path)
}

pub(crate) async fn start(binary: PathBuf, quota_bytes: Option<u64>) -> TestEtcd {
    let options = Options {
        binary: Some(binary),
        quota_bytes,
        ..Options::default()
    };
    TestEtcd::start_with(options).await
}

/// A development store that serves until the test's runtime ends: its endpoint, and its directory.
pub(crate) async fn devstore(config: Config) -> (String, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = DevStore::open(devstore::Options {
        model: config,
        directory: Some(directory.path().into()),
        log_chunk_bytes: 1 << 20,
        ..devstore::Options::default()
    })
    .expect("the store opens");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(store.serve(listener, std::future::pending()));
    (endpoint, directory)
}

/// Which store a case is run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    /// The model behind etcd's API, with a log.
    DevStore,
    /// The etcd that all tests use.
    Etcd,
    Current,
    Oldest,
}

/// A store under test: behind the trait, and with the whole of etcd's API.
pub(crate) struct Subject {
    pub(crate) store: SharedStore,
    api: Api,
    _server: Server,
}

enum Api {
    Model(ModelStore),
    Etcd(Client),
}

/// What has to live as long as the subject.
enum Server {
    None,
    Etcd { _etcd: Arc<TestEtcd> },
    DevStore { _directory: TempDir },
}

impl Subject {
    /// One that all cases share, each with a prefix of its own. `None`, with a word, when that etcd is not named, or is
    /// the one that all tests use.
    pub(crate) async fn shared(kind: Kind) -> Option<Self> {
        static SERVERS: Mutex<[Weak<TestEtcd>; 3]> =
            Mutex::const_new([Weak::new(), Weak::new(), Weak::new()]);
        let slot = match kind {
            Kind::Model | Kind::DevStore => return Self::own(kind, None).await,
            Kind::Etcd => 0,
            Kind::Current => 1,
            Kind::Oldest => 2,
        };
        let binary = binary(kind)?;
        let mut servers = SERVERS.lock().await;
        let server = match servers[slot].upgrade() {
            Some(server) => server,
            None => Arc::new(start(binary, None).await),
        };
        servers[slot] = Arc::downgrade(&server);
        drop(servers);
        Some(Self::of(server).await)
    }

    /// One of the case's own, with a quota if it is given.
    pub(crate) async fn own(kind: Kind, quota_bytes: Option<u64>) -> Option<Self> {
        if !matches!(kind, Kind::Model | Kind::DevStore) {
            let server = start(binary(kind)?, quota_bytes).await;
            return Some(Self::of(Arc::new(server)).await);
        }
        let mut config = Config::default();
        if let Some(quota) = quota_bytes {
            config.quota_bytes = quota.try_into().expect("a quota of some megabytes");
        }
        if kind == Kind::DevStore {
            return Some(Self::devstore(config).await);
        }
        let model = ModelStore::new(config);
        Some(Self {
            store: Arc::new(model.clone()),
            api: Api::Model(model),
            _server: Server::None,
        })
    }

    async fn devstore(config: Config) -> Self {
        let (endpoint, directory) = devstore(config).await;
        let options = ConnectOptions::new([endpoint.clone()]);
        Self {
            store: Arc::new(EtcdStore::connect(&options).await.expect("it connects")),
            api: Api::Etcd(Client::connect(endpoint)),
            _server: Server::DevStore {
                _directory: directory,
            },
        }
    }

    async fn of(server: Arc<TestEtcd>) -> Self {
        Self {
            store: server.store().await,
            api: Api::Etcd(Client::connect(server.endpoint())),
            _server: Server::Etcd { _etcd: server },
        }
    }

    /// Any call of the API.
    pub(crate) async fn call(&self, request: Request) -> Result<Response, Status> {
        match &self.api {
            Api::Model(model) => model.step(request).map_err(Status::from),
            Api::Etcd(client) => client.call(request).await,
        }
    }

    /// Forgets the history before a revision.
    pub(crate) async fn compact(&self, revision: Revision) {
        let request = setpoint_store::model::api::CompactionRequest {
            revision: revision.0,
            physical: true,
        };
        self.call(Request::Compact(request)).await.unwrap();
    }

    /// A prefix that no other case has.
    pub(crate) fn prefix(&self, name: &str) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("/c{}-{name}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

fn binary(kind: Kind) -> Option<PathBuf> {
    let variable = match kind {
        Kind::Model | Kind::DevStore => return None,
        Kind::Etcd => return Some(find_etcd()),
        Kind::Current => "SETPOINT_ETCD_CURRENT",
        Kind::Oldest => "SETPOINT_ETCD_OLDEST",
    };
    let binary = named(variable);
    match &binary {
        None => note(&format!("SKIPPED: {variable} names no etcd")),
        Some(binary) if *binary == find_etcd() => {
            note(&format!(
                "not run again: {variable} is the etcd that all tests use"
            ));
            return None;
        }
        Some(_) => {}
    }
    binary
}

/// How long a lease of one second may live: etcd makes it two, and looks for expired ones every half second.
pub(crate) const SHORTEST_LEASE: Duration = Duration::from_secs(2);
