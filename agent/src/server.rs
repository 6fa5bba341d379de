//! The agent's HTTP endpoint: logs and health. Data, not coordination: nothing here changes what runs.
//!
//! On loopback it is plain, and open to everybody on the machine. Beyond loopback it is HTTPS, and open to everybody with
//! a certificate of the client CA ([`TlsFiles`]), unless it was asked to be plain there too.

mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::Path as FsPath;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::layout::DataDir;
use crate::logs::{LogFollower, LogOptions, LogReader};

use tls::TlsListener;
pub use tls::{TlsError, TlsFiles};

/// Where to listen, and who may ask.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The address. Port 0 takes any.
    pub address: SocketAddr,
    /// The certificates to serve HTTPS with; `None` for plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Plain HTTP is meant, beyond loopback as well: whoever reaches the port may read the logs.
    pub insecure: bool,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Plain HTTP beyond loopback, which nobody has asked for.
    #[error(
        "{0} can be reached from other machines: give --tls-cert, --tls-key and --tls-client-ca (or the client \
         certificate of etcd with --cacert, --cert and --key, which then serves here too), or --listen-insecure to let \
         everybody read the logs of this node"
    )]
    Unprotected(SocketAddr),
    /// The certificates cannot be used.
    #[error("cannot serve HTTPS")]
    Tls(#[source] TlsError),
    /// The address is in use or not this machine's.
    #[error("cannot listen on {address}: give another address with --listen, port 0 for any")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A bound endpoint, not serving yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    data: Arc<DataDir>,
}

/// What of a log to show.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LogQuery {
    follow: bool,
    previous: bool,
    tail: Option<usize>,
    /// Nanoseconds since the epoch.
    since: Option<i64>,
    timestamps: bool,
}

impl Listen {
    /// Plain HTTP on an address.
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            insecure: false,
        }
    }
}

impl Server {
    /// Takes the address, and reads the certificates.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn bind(listen: &Listen, data_dir: &FsPath) -> Result<Self, ServerError> {
        let address = listen.address;
        if listen.tls.is_none() && !listen.insecure && !address.ip().to_canonical().is_loopback() {
            return Err(ServerError::Unprotected(address));
        }
        let tls = listen
            .tls
            .as_ref()
            .map(TlsFiles::acceptor)
            .transpose()
            .map_err(ServerError::Tls)?;
        let failed = |source| ServerError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            tls,
            data: Arc::new(DataDir::new(data_dir)),
        })
    }

    /// Where it is: `https://192.0.2.7:10250`. One that listens on all addresses is at `node`, the node's own.
    pub fn endpoint(&self, node: IpAddr) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(node);
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/logs/{uid}/{placement}/{container}", get(logs))
            .with_state(self.data);
        info!(address = %self.address, tls = self.tls.is_some(), "serving logs");
        let end = shutdown.cancelled_owned();
        let served = match self.tls {
            Some(acceptor) => {
                let listener = TlsListener::new(self.listener, acceptor);
                axum::serve(listener, router)
                    .with_graceful_shutdown(end)
                    .await
            }
            None => {
                axum::serve(self.listener, router)
                    .with_graceful_shutdown(end)
                    .await
            }
        };
        if let Err(error) = served {
            warn!(%error, "the HTTP endpoint has ended");
        }
    }
}

async fn logs(
    State(data): State<Arc<DataDir>>,
    Path((uid, placement, container)): Path<(String, u32, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    // A container's name becomes part of a path.
    if setpoint_apis::names::dns_label(&container).is_err() {
        return (
            StatusCode::BAD_REQUEST,
            format!("{container:?} is no name of a container\n"),
        )
            .into_response();
    }
    let Some(location) = data
        .pod(&uid, placement)
        .find_log(&container, query.previous)
    else {
        let which = if query.previous { "previous " } else { "" };
        return (
            StatusCode::NOT_FOUND,
            format!("container {container:?} has no {which}log here\n"),
        )
            .into_response();
    };
    let options = LogOptions {
        tail: query.tail,
        since: query.since,
        timestamps: query.timestamps,
    };
    if query.follow {
        return match LogFollower::open(&location.log, &options, Some(location.exit_record)) {
            Ok(follower) => chunks(futures::stream::unfold(
                follower,
                |mut follower| async move {
                    let chunk = follower.next_chunk().await.transpose()?;
                    Some((chunk, follower))
                },
            )),
            Err(error) => failed(&error),
        };
    }
    match LogReader::open(&location.log, &options) {
        Ok(reader) => chunks(futures::stream::unfold(reader, |mut reader| async move {
            let chunk = reader.next_chunk().transpose()?;
            Some((chunk, reader))
        })),
        Err(error) => failed(&error),
    }
}

fn chunks(
    stream: impl futures::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static,
) -> Response {
    use futures::StreamExt as _;
    Body::from_stream(stream.map(|chunk| chunk.map(Bytes::from))).into_response()
}

fn failed(error: &std::io::Error) -> Response {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("the log cannot be read: {error}\n"),
    )
        .into_response()
}
