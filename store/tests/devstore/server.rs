//! A development store of the test's own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use setpoint_store::devstore::{DevStore, OpenError, Options, Recovery};
use setpoint_store::{ConnectOptions, EtcdStore, SharedStore};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Little, so that a test which opens hundreds of stores does not reserve gigabytes.
const CHUNK: u64 = 512 * 1024;

pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) recovery: Recovery,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(options: Options) -> Self {
        let store = DevStore::open(options).expect("the store opens");
        let recovery = store.recovery();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            store
                .serve(listener, async {
                    let _ = stopped.await;
                })
                .await
                .expect("it serves");
        });
        Self {
            endpoint,
            recovery,
            stop: Some(stop),
            served,
        }
    }

    /// In memory.
    pub(crate) async fn memory() -> Self {
        Self::start(Options::default()).await
    }

    pub(crate) async fn store(&self) -> SharedStore {
        let options = ConnectOptions::new([self.endpoint.clone()]);
        Arc::new(EtcdStore::connect(&options).await.expect("it connects"))
    }

    pub(crate) async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.endpoint], None)
            .await
            .expect("it connects")
    }

    /// In order, so that the log says that it is complete.
    pub(crate) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.served.await.expect("it ends in order");
    }
}

pub(crate) fn in_directory(directory: &Path) -> Options {
    Options {
        directory: Some(directory.into()),
        log_chunk_bytes: CHUNK,
        ..Options::default()
    }
}

pub(crate) fn temporary() -> TempDir {
    tempfile::Builder::new()
        .prefix("setpoint-devstore-")
        .tempdir()
        .expect("a temporary directory")
}

/// Opens a directory as it is, and what was found there.
pub(crate) fn recovered(options: Options) -> Result<Recovery, OpenError> {
    DevStore::open(options).map(|store| store.recovery())
}
