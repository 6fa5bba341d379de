//! What `setpoint controllers --metrics-listen` serves: metrics, and whether the process lives and is warm.

use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use setpoint_controllers::Started;
use setpoint_runtime::metrics::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What there is to show; `None` until the controllers have started.
type Shown = watch::Receiver<Option<Started>>;

/// Where it is served.
pub(super) struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

impl Endpoint {
    /// Takes the address.
    pub(super) async fn bind(address: SocketAddr) -> Result<Self> {
        let bind = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok::<_, std::io::Error>(Self { listener, address })
        };
        bind.await.with_context(|| {
            format!(
                "cannot listen on {address} for metrics; --metrics-listen names another address"
            )
        })
    }

    /// The address, with the port that was given where 0 was asked for.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `until`.
    pub(super) async fn serve(
        self,
        shown: Shown,
        until: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(shown);
        axum::serve(self.listener, router)
            .with_graceful_shutdown(until)
            .await
            .context("serving metrics")
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let text = match &*shown.borrow() {
        Some(started) => started.metrics.encode(),
        None => return (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
    };
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Warm: it could lead at once.
async fn ready(State(shown): State<Shown>) -> Response {
    let warm = shown
        .borrow()
        .as_ref()
        .is_some_and(|started| started.cache.revision().0 > 0);
    if warm {
        "ok\n".into_response()
    } else {
        let why = "the cache has not listed everything yet\n";
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use setpoint_apis::Keyspace;
    use setpoint_runtime::{CacheBuilder, Metrics};
    use setpoint_store::model::ModelStore;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_process_is_ready_when_its_cache_is_and_shows_what_it_counts() {
        let endpoint = Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = endpoint.address();
        let get = |path: &'static str| async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.0\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, body.to_owned())
        };
        let (show, shown) = watch::channel(None);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(endpoint.serve(shown, async {
            let _ = stopped.await;
        }));
        assert_eq!(get("/healthz").await, (200, "ok\n".into()));
        assert_eq!(get("/metrics").await.0, 503);

        let store = Arc::new(ModelStore::default());
        let (cache, driver) = CacheBuilder::new().build(store, Keyspace::default());
        let metrics = Metrics::default();
        metrics.show_cache(cache.clone());
        show.send_replace(Some(Started {
            cache: cache.clone(),
            metrics,
        }));
        assert_eq!(get("/readyz").await.0, 503);
        let filling = tokio::spawn(driver.run());
        cache.ready().await;
        assert_eq!(get("/readyz").await, (200, "ok\n".into()));
        let (status, text) = get("/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("\nsetpoint_cache_revision 1\n"), "{text}");
        filling.abort();
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    }
}
