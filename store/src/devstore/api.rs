//! Which call goes where: one service for all of etcd's, told apart by their paths, and two paths of plain HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Method, StatusCode, header};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, StdError};
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::engine::Engine;
use super::wire::{HashRequest, Member, MemberListRequest, MemberListResponse, SnapshotRequest};
use super::{leases, maintenance, watch};
use crate::model::api::{DefragmentRequest, LeaseLeasesRequest, StatusRequest};
use crate::model::{Request, Response};

/// What the one member is called.
const MEMBER: &str = "devstore";

/// etcd's API over an engine.
#[derive(Clone)]
pub(super) struct Api {
    engine: Arc<Engine>,
    address: SocketAddr,
}

impl Api {
    pub(super) fn new(engine: Arc<Engine>, address: SocketAddr) -> Self {
        Self { engine, address }
    }

    pub(super) fn routes(self) -> Routes {
        Routes::from(Routes::default().into_axum_router().fallback_service(self))
    }

    async fn answer<B>(self, request: http::Request<B>) -> http::Response<Body>
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<StdError> + Send,
    {
        let engine = self.engine;
        // Answers a unary call by the request of the model of the same name.
        macro_rules! step {
            ($name:ident) => {
                unary(request, &engine, |engine, message| async move {
                    match engine.call(Request::$name(message)).await? {
                        Response::$name(response) => Ok(response),
                        other => Err(mixed_up(&other)),
                    }
                })
                .await
            };
            ($name:ident, $message:ty) => {
                unary(request, &engine, |engine, _: $message| async move {
                    match engine.call(Request::$name).await? {
                        Response::$name(response) => Ok(response),
                        other => Err(mixed_up(&other)),
                    }
                })
                .await
            };
        }
        let path = request.uri().path().to_owned();
        match path.strip_prefix("/etcdserverpb.").unwrap_or(&path) {
            "KV/Range" => step!(Range),
            "KV/Put" => step!(Put),
            "KV/DeleteRange" => step!(DeleteRange),
            "KV/Txn" => step!(Txn),
            "KV/Compact" => step!(Compact),
            "Watch/Watch" => streaming(request, &engine, watch::serve).await,
            "Lease/LeaseGrant" => step!(LeaseGrant),
            "Lease/LeaseRevoke" => step!(LeaseRevoke),
            "Lease/LeaseTimeToLive" => step!(LeaseTimeToLive),
            "Lease/LeaseLeases" => step!(LeaseLeases, LeaseLeasesRequest),
            "Lease/LeaseKeepAlive" => streaming(request, &engine, leases::keep_alive).await,
            "Cluster/MemberList" => {
                let address = self.address;
                unary(
                    request,
                    &engine,
                    move |engine, _: MemberListRequest| async move {
                        members(&engine, address).await
                    },
                )
                .await
            }
            "Maintenance/Status" => step!(Status, StatusRequest),
            "Maintenance/Alarm" => step!(Alarm),
            "Maintenance/HashKV" => step!(HashKv),
            "Maintenance/Defragment" => {
                engine.compact_log();
                step!(Defragment, DefragmentRequest)
            }
            "Maintenance/Hash" => {
                unary(request, &engine, |engine, _: HashRequest| async move {
                    maintenance::hash(&engine).await
                })
                .await
            }
            "Maintenance/Snapshot" => {
                let handler = Handler(|_: SnapshotRequest| {
                    let engine = Arc::clone(&engine);
                    async move { maintenance::snapshot(&engine).await }
                });
                Grpc::new(ProstCodec::default())
                    .server_streaming(handler, request)
                    .await
            }
            "/health" | "/version" if request.method() == Method::GET => {
                plain(&engine, path == "/health").await
            }
            other => unsupported(other).into_http(),
        }
    }
}

async fn members(engine: &Engine, address: SocketAddr) -> Result<MemberListResponse, Status> {
    let header = engine.durable(engine.look(|model| model.header())).await?;
    let member = Member {
        id: engine.options().model.member_id,
        name: MEMBER.to_owned(),
        peer_urls: Vec::new(),
        client_urls: vec![format!("http://{address}")],
        is_learner: false,
    };
    Ok(MemberListResponse {
        header,
        members: vec![member],
    })
}

/// What etcd answers to plain HTTP on the same port.
async fn plain(engine: &Engine, health: bool) -> http::Response<Body> {
    let model = &engine.options().model;
    let state = engine.look(|model| model.header());
    let (code, text) = match engine.durable(state).await {
        Err(status) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                r#"{{"health":"false","reason":"{}"}}"#,
                status.message().escape_default()
            ),
        ),
        Ok(_) if health => (
            StatusCode::OK,
            r#"{"health":"true","reason":""}"#.to_owned(),
        ),
        Ok(_) => {
            let cluster = model
                .version
                .rsplit_once('.')
                .map_or("", |(minor, _)| minor);
            (
                StatusCode::OK,
                format!(
                    r#"{{"etcdserver":"{}","etcdcluster":"{cluster}.0"}}"#,
                    model.version
                ),
            )
        }
    };
    let mut response = http::Response::new(Body::new(text));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

/// Why a call is not there.
fn unsupported(path: &str) -> Status {
    let why = match path.split_once('/') {
        Some(("Auth", _)) => {
            "the development store has no users and roles: everybody who reaches its port may do everything. Use etcd for authentication"
        }
        Some(("Cluster", _)) | Some(("Maintenance", _)) => {
            "the development store is one process without members to change. Use etcd for this"
        }
        _ => "the development store does not know this call",
    };
    Status::unimplemented(format!("{path}: {why}"))
}

/// The model gave the answer to something else, which would be a bug of it.
fn mixed_up(response: &Response) -> Status {
    Status::internal(format!("unexpected answer of the model: {response:?}"))
}

/// A closure as a method of a service.
struct Handler<F>(F);

impl<F, Q, A, Fut> UnaryService<Q> for Handler<F>
where
    F: FnMut(Q) -> Fut,
    Fut: Future<Output = Result<A, Status>> + Send + 'static,
{
    type Response = A;
    type Future = BoxFuture<'static, Result<tonic::Response<A>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(async move { answer.await.map(tonic::Response::new) })
    }
}

impl<F, Q, A, S, Fut> ServerStreamingService<Q> for Handler<F>
where
    F: FnMut(Q) -> Fut,
    Fut: Future<Output = Result<S, Status>> + Send + 'static,
    S: futures::Stream<Item = Result<A, Status>>,
{
    type Response = A;
    type ResponseStream = S;
    type Future = BoxFuture<'static, Result<tonic::Response<S>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(async move { answer.await.map(tonic::Response::new) })
    }
}

impl<F, Q, A, S> StreamingService<Q> for Handler<F>
where
    F: FnMut(Streaming<Q>) -> S,
    S: futures::Stream<Item = Result<A, Status>> + Send + 'static,
{
    type Response = A;
    type ResponseStream = S;
    type Future = std::future::Ready<Result<tonic::Response<S>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> Self::Future {
        std::future::ready(Ok(tonic::Response::new((self.0)(request.into_inner()))))
    }
}

async fn unary<B, Q, A, F, Fut>(
    request: http::Request<B>,
    engine: &Arc<Engine>,
    handler: F,
) -> http::Response<Body>
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send,
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Fn(Arc<Engine>, Q) -> Fut,
    Fut: Future<Output = Result<A, Status>> + Send + 'static,
{
    let limit = engine.message_limit();
    let mut reached = false;
    let handler = Handler(|message| {
        reached = true;
        handler(Arc::clone(engine), message)
    });
    let response = Grpc::new(ProstCodec::<A, Q>::default())
        .max_decoding_message_size(limit)
        .unary(handler, request)
        .await;
    // The server's library has another code for it than etcd's.
    if !reached
        && Status::from_header_map(response.headers()).is_some_and(|s| s.code() == Code::OutOfRange)
    {
        return Status::resource_exhausted(format!(
            "grpc: received message larger than max ({limit} bytes)"
        ))
        .into_http();
    }
    response
}

async fn streaming<B, Q, A, F, S>(
    request: http::Request<B>,
    engine: &Arc<Engine>,
    handler: F,
) -> http::Response<Body>
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send,
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Fn(Arc<Engine>, Streaming<Q>) -> S + Send + Sync,
    S: futures::Stream<Item = Result<A, Status>> + Send + 'static,
{
    let handler = Handler(|requests| handler(Arc::clone(engine), requests));
    Grpc::new(ProstCodec::<A, Q>::default())
        .max_decoding_message_size(engine.message_limit())
        .streaming(handler, request)
        .await
}

impl<B> Service<http::Request<B>> for Api
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.answer(request).await) })
    }
}
