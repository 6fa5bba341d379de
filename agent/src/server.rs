//! The agent's HTTP endpoint: logs and health. Data, not coordination: nothing here changes what runs.

use std::net::SocketAddr;
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
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::layout::DataDir;
use crate::logs::{LogFollower, LogOptions, LogReader};

/// A bound endpoint, not serving yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
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

impl Server {
    /// Takes the address. Port 0 takes any.
    ///
    /// # Errors
    /// The address is in use or not this machine's.
    pub async fn bind(address: SocketAddr, data_dir: &FsPath) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            data: Arc::new(DataDir::new(data_dir)),
        })
    }

    /// Where it is: `http://127.0.0.1:10250`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/logs/{uid}/{placement}/{container}", get(logs))
            .with_state(self.data);
        info!(address = %self.address, "serving logs");
        let serving =
            axum::serve(self.listener, router).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = serving.await {
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
