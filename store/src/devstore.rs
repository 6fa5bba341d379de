//! The development store: a server that speaks etcd's API and is nothing but the [model](crate::model) of etcd, with an
//! optional log on disk (feature `devstore`).
//!
//! It is for development: one process, one member, all data in memory. What it promises is that what it has acknowledged
//! is still there after a crash of the process or the machine, when it has a directory.
//!
//! | Part | Does |
//! |---|---|
//! | `engine` | steps the model, one request at a time, and holds each answer back until what it tells is on the disk |
//! | `log` | the directory: records, checksums, group sync, compaction, recovery |
//! | `api`, `kv`, `leases`, `maintenance`, `watch` | etcd's gRPC services |
//! | `wire` | messages that the model has no use for |

mod api;
mod engine;
mod leases;
mod log;
mod maintenance;
mod watch;
mod wire;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use self::log::{Dropped, LogDamage, OpenError, RestoreError};

use self::engine::Engine;
use crate::model::Config;

/// How long connections may take to end when the store stops and nothing is being carried out any more: enough for the last
/// answers, for a client that reads them.
const FAREWELL: Duration = Duration::from_millis(200);

/// How a development store behaves.
#[derive(Clone)]
pub struct Options {
    /// Limits, and what the status says. The ids are the directory's.
    pub model: Config,
    /// Where the log is. `None`: nothing outlives the process.
    pub directory: Option<PathBuf>,
    /// A snapshot that `etcdctl snapshot save` wrote, to begin an empty directory with.
    pub restore: Option<PathBuf>,
    /// A log that is damaged in the middle ends there. What is cut off is kept in a file of its own.
    pub truncate_damaged_log: bool,
    /// History older than this is compacted. `None`: all of it stays.
    pub retention: Option<Duration>,
    /// How often a quiet watcher that asked for it is told how far the store is. etcd: 10 minutes.
    pub progress_interval: Duration,
    /// A log that has grown by this many bytes, and by as much as its snapshot, begins anew with a snapshot.
    pub compact_log_after: u64,
    /// Bytes by which the log grows.
    pub log_chunk_bytes: u64,
    /// How long requests that are being carried out may take when the store stops.
    pub stop_limit: Duration,
    /// How the log grows: room on the disk, from an offset on, for so many bytes of zeros. Tests refuse here.
    pub reserve_room: fn(&File, u64, u64) -> io::Result<()>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            model: Config {
                journal: true,
                ..Config::default()
            },
            directory: None,
            restore: None,
            truncate_damaged_log: false,
            retention: None,
            progress_interval: Duration::from_secs(600),
            compact_log_after: 64 << 20,
            log_chunk_bytes: 16 << 20,
            stop_limit: Duration::from_secs(2),
            reserve_room: log::reserve_room,
        }
    }
}

/// What was found in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The revision of the last change.
    pub revision: i64,
    /// Changes that were made again from the log.
    pub records: u64,
    /// What was cut off its end: a crash had torn it, or it was damaged.
    pub dropped: Option<Dropped>,
}

/// A store that is ready to serve.
pub struct DevStore {
    engine: Arc<Engine>,
    recovery: Recovery,
}

impl DevStore {
    /// Opens the directory, if there is one, and brings the state back that its log describes.
    ///
    /// # Errors
    /// When the directory cannot be used: another process has it, the disk is full, or the log is damaged before its end.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let (engine, recovery) = Engine::open(options)?;
        Ok(Self {
            engine: Arc::new(engine),
            recovery,
        })
    }

    /// What was found.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The directory, if there is one.
    pub fn directory(&self) -> Option<&Path> {
        self.engine.options().directory.as_deref()
    }

    /// Serves until `shutdown`, then ends all streams.
    ///
    /// # Errors
    /// When the listener or the log fails. What was acknowledged is safe.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let engine = self.engine;
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        let api = api::Api::new(Arc::clone(&engine), address);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = Server::builder()
            // For the two paths that are plain HTTP.
            .accept_http1(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .add_routes(api.routes())
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                async {
                    // An error is that it was dropped: stop as well.
                    let _ = stopped.await;
                },
            );
        tokio::pin!(server, shutdown);
        let failure = tokio::select! {
            served = &mut server => return served.map_err(ServeError::Server),
            () = &mut shutdown => None,
            error = engine.failed() => Some(error),
            () = engine.housekeeping() => None,
        };
        engine.close();
        let _ = stop.send(());
        let limit = engine.options().stop_limit;
        let ends = async {
            let idle = tokio::time::timeout(limit, engine.idle());
            tokio::select! {
                // All connections have ended.
                _ = &mut server => return,
                _ = idle => {}
            }
            // One that does not end, since its client does not read, is cut with the runtime.
            let _ = tokio::time::timeout(FAREWELL, &mut server).await;
        };
        ends.await;
        engine.close_log();
        match failure {
            Some(error) => Err(ServeError::Log(error.to_string())),
            None => Ok(()),
        }
    }
}

/// Why a store no longer serves.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket is not usable.
    #[error("reading the listener's address")]
    Listener(#[source] io::Error),
    /// The server ended.
    #[error("serving etcd's API")]
    Server(#[source] tonic::transport::Error),
    /// The log cannot be written; the state in memory may be ahead of it, so nothing more is answered.
    #[error("{0}")]
    Log(String),
}
