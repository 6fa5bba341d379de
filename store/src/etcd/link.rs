//! Calls: which endpoint, with which token, until when, and what a failure means.
//!
//! One connection is used at a time. When it fails, the next endpoint takes over, for new calls; a request goes to a
//! second endpoint only when the first cannot have seen it, or when it does not matter (reads).

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use http::uri::PathAndQuery;
use parking_lot::RwLock;
use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::auth::Auth;
use super::errors::{Access, Verdict, judge};
use super::options::ConnectOptions;
use crate::error::StoreError;

/// How much longer other endpoints are waited for when all are asked and one has answered: one that is silent must not
/// hold up what depends on those that are not.
const SILENT: Duration = Duration::from_millis(300);

/// What is called, for whom.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub(super) path: &'static str,
    pub(super) access: Access,
}

impl Method {
    pub(super) const fn read(path: &'static str) -> Self {
        Self {
            path,
            access: Access::Read,
        }
    }

    pub(super) const fn write(path: &'static str) -> Self {
        Self {
            path,
            access: Access::Write,
        }
    }
}

/// The way to the cluster.
pub(super) struct Link {
    targets: Vec<Target>,
    current: AtomicUsize,
    auth: Option<Auth>,
    pub(super) options: ConnectOptions,
}

struct Target {
    name: String,
    endpoint: Endpoint,
    connection: RwLock<Connection>,
}

#[derive(Clone)]
struct Connection {
    channel: Channel,
    /// Counts replacements, so that one failure seen by many calls replaces the connection once.
    generation: u64,
}

/// A connection in use.
#[derive(Clone)]
pub(super) struct Route {
    index: usize,
    connection: Connection,
}

/// A stream that was opened.
pub(super) struct Opened<T> {
    pub(super) inbound: Streaming<T>,
    pub(super) route: Route,
}

impl Link {
    /// Prepares connections; nothing is sent yet. Must be called within a tokio runtime.
    pub(super) fn new(options: ConnectOptions) -> Result<Self, StoreError> {
        let targets = options
            .build()?
            .into_iter()
            .map(|(name, endpoint)| {
                let connection = RwLock::new(Connection {
                    channel: endpoint.connect_lazy(),
                    generation: 0,
                });
                Target {
                    name,
                    endpoint,
                    connection,
                }
            })
            .collect();
        let auth = options.user.clone().map(Auth::new);
        Ok(Self {
            targets,
            current: AtomicUsize::new(0),
            auth,
            options,
        })
    }

    pub(super) fn endpoint_count(&self) -> usize {
        self.targets.len()
    }

    /// All endpoints, as one text.
    pub(super) fn names(&self) -> String {
        self.targets
            .iter()
            .map(|target| target.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The endpoint of a route.
    pub(super) fn name(&self, route: &Route) -> &str {
        &self.targets[route.index].name
    }

    /// The connection that is in use.
    pub(super) fn route(&self) -> Route {
        self.route_to(self.current.load(Ordering::Relaxed) % self.targets.len())
    }

    fn route_to(&self, index: usize) -> Route {
        Route {
            index,
            connection: self.targets[index].connection.read().clone(),
        }
    }

    /// Uses the next endpoint from now on, unless somebody has changed it already.
    pub(super) fn leave(&self, route: &Route) {
        let next = (route.index + 1) % self.targets.len();
        let _ =
            self.current
                .compare_exchange(route.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Leaves an endpoint that went silent. Its connection may hang for as long as TCP pleases, so a new one is made.
    pub(super) fn distrust(&self, route: &Route) {
        self.leave(route);
        let target = &self.targets[route.index];
        let mut connection = target.connection.write();
        if connection.generation == route.connection.generation {
            *connection = Connection {
                channel: target.endpoint.connect_lazy(),
                generation: connection.generation + 1,
            };
        }
    }

    /// Calls within the request timeout.
    pub(super) async fn call<Req, Resp>(
        &self,
        method: Method,
        request: Req,
        context: impl Fn() -> String,
    ) -> Result<Resp, StoreError>
    where
        Req: Message + 'static,
        Resp: Message + Default + 'static,
    {
        self.call_within(method, request, self.options.request_timeout, context)
            .await
    }

    /// Calls within a timeout of its own.
    pub(super) async fn call_within<Req, Resp>(
        &self,
        method: Method,
        request: Req,
        limit: Duration,
        context: impl Fn() -> String,
    ) -> Result<Resp, StoreError>
    where
        Req: Message + 'static,
        Resp: Message + Default + 'static,
    {
        let request = Arc::new(request);
        let deadline = Instant::now() + limit;
        let mut token_renewed = false;
        // Every endpoint once, and the one that a broken connection led to once more.
        let mut attempts = self.targets.len() + usize::from(method.access == Access::Read);
        loop {
            attempts -= 1;
            let route = self.route();
            let token = match &self.auth {
                Some(auth) => match timeout_at(deadline, auth.token(self, &route)).await {
                    Ok(Ok(token)) => token,
                    Ok(Err(Verdict::NotSent(_))) if attempts > 0 => {
                        self.leave(&route);
                        continue;
                    }
                    // Nothing but the login was sent.
                    Ok(Err(verdict)) => {
                        return Err(self.error(Access::Read, &route, verdict, context()));
                    }
                    Err(_) => {
                        self.distrust(&route);
                        return Err(self.error(Access::Read, &route, no_answer(limit), context()));
                    }
                },
                None => None,
            };
            let sent = self.send(method.path, Arc::clone(&request), &route, token.clone());
            let verdict = match timeout_at(deadline, sent).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => judge(&status),
                Err(_) => {
                    self.distrust(&route);
                    return Err(self.error(method.access, &route, no_answer(limit), context()));
                }
            };
            match (&verdict, &self.auth) {
                (Verdict::NotSent(_), _) => self.leave(&route),
                (Verdict::Lost(_), _) => {
                    self.leave(&route);
                    if method.access == Access::Write {
                        return Err(self.error(method.access, &route, verdict, context()));
                    }
                }
                (Verdict::TokenRefused(_), Some(auth)) if !token_renewed => {
                    auth.forget(token.as_ref());
                    token_renewed = true;
                    attempts += 1;
                }
                _ => return Err(self.error(method.access, &route, verdict, context())),
            }
            if attempts == 0 {
                return Err(self.error(method.access, &route, verdict, context()));
            }
        }
    }

    /// Reads from every endpoint, all at once. One that cannot be reached has an error of its own; one that is silent has
    /// none when others have answered.
    pub(super) async fn each<Req, Resp>(
        &self,
        path: &'static str,
        request: Req,
        limit: Duration,
        context: impl Fn() -> String,
    ) -> Vec<Result<Resp, StoreError>>
    where
        Req: Message + 'static,
        Resp: Message + Default + 'static,
    {
        let request = Arc::new(request);
        let ask = async |index| {
            let route = self.route_to(index);
            let asked = async {
                let token = match &self.auth {
                    Some(auth) => auth.token(self, &route).await?,
                    None => None,
                };
                let sent = self.send(path, Arc::clone(&request), &route, token.clone());
                sent.await.map_err(|status| {
                    let verdict = judge(&status);
                    if let (Verdict::TokenRefused(_), Some(auth)) = (&verdict, &self.auth) {
                        auth.forget(token.as_ref());
                    }
                    verdict
                })
            };
            let answer = match timeout_at(Instant::now() + limit, asked).await {
                Ok(answer) => answer,
                Err(_) => Err(no_answer(limit)),
            };
            answer.map_err(|verdict| self.error(Access::Read, &route, verdict, context()))
        };
        let mut asking: FuturesUnordered<_> = (0..self.targets.len()).map(ask).collect();
        let mut answers = Vec::new();
        let mut until = Instant::now() + limit;
        while let Ok(Some(answer)) = timeout_at(until, asking.next()).await {
            if answer.is_ok() {
                until = until.min(Instant::now() + SILENT);
            }
            answers.push(answer);
        }
        answers
    }

    /// One attempt.
    pub(super) async fn send<Req, Resp>(
        &self,
        path: &'static str,
        request: Arc<Req>,
        route: &Route,
        token: Option<AsciiMetadataValue>,
    ) -> Result<Resp, Status>
    where
        Req: Message + 'static,
        Resp: Message + Default + 'static,
    {
        let mut grpc = self.grpc(route);
        grpc.ready()
            .await
            .map_err(|error| Status::from_error(Box::new(error)))?;
        let mut request = Request::new(request);
        authorize(&mut request, token);
        let codec = SharedCodec::<Req, Resp>(PhantomData);
        Ok(grpc
            .unary(request, PathAndQuery::from_static(path), codec)
            .await?
            .into_inner())
    }

    /// Opens a stream in both directions. `outbound` must already hold what the server answers first.
    pub(super) async fn open<Req, Resp>(
        &self,
        path: &'static str,
        outbound: impl Stream<Item = Req> + Send + 'static,
        context: impl Fn() -> String,
    ) -> Result<Opened<Resp>, StoreError>
    where
        Req: Message + 'static,
        Resp: Message + Default + 'static,
    {
        let limit = self.options.request_timeout;
        let route = self.route();
        let opening = async {
            let token = match &self.auth {
                Some(auth) => auth.token(self, &route).await?,
                None => None,
            };
            let mut grpc = self.grpc(&route);
            grpc.ready()
                .await
                .map_err(|error| judge(&Status::from_error(Box::new(error))))?;
            let mut request = Request::new(outbound);
            authorize(&mut request, token.clone());
            // The server ends the stream when its member loses the leader, instead of serving it stale.
            request
                .metadata_mut()
                .insert("hasleader", AsciiMetadataValue::from_static("true"));
            let codec = ProstCodec::<Req, Resp>::default();
            let response = grpc
                .streaming(request, PathAndQuery::from_static(path), codec)
                .await
                .map_err(|status| {
                    let verdict = judge(&status);
                    if let (Verdict::TokenRefused(_), Some(auth)) = (&verdict, &self.auth) {
                        auth.forget(token.as_ref());
                    }
                    verdict
                })?;
            Ok(response.into_inner())
        };
        match timeout_at(Instant::now() + limit, opening).await {
            Ok(Ok(inbound)) => Ok(Opened { inbound, route }),
            Ok(Err(verdict)) => {
                if matches!(verdict, Verdict::NotSent(_) | Verdict::Lost(_)) {
                    self.leave(&route);
                }
                Err(self.error(Access::Read, &route, verdict, context()))
            }
            Err(_) => {
                self.distrust(&route);
                Err(self.error(Access::Read, &route, no_answer(limit), context()))
            }
        }
    }

    /// Forgets the token, so that the next call logs in again.
    pub(super) fn forget_token(&self) {
        if let Some(auth) = &self.auth {
            auth.forget(None);
        }
    }

    pub(super) fn has_user(&self) -> bool {
        self.auth.is_some()
    }

    /// The error that a verdict amounts to.
    pub(super) fn error(
        &self,
        access: Access,
        route: &Route,
        verdict: Verdict,
        context: String,
    ) -> StoreError {
        match verdict {
            Verdict::NotSent(text) => StoreError::Unavailable {
                context,
                message: format!("{}: {text}", self.name(route)),
            },
            Verdict::Lost(text) => {
                let message = format!("{}: {text}", self.name(route));
                match access {
                    Access::Read => StoreError::Unavailable { context, message },
                    Access::Write => StoreError::Unknown { context, message },
                }
            }
            Verdict::TokenRefused(text) if self.auth.is_none() => StoreError::Unauthenticated {
                context,
                message: format!(
                    "{text} (etcd wants a user: give --user, or a client certificate)"
                ),
            },
            Verdict::TokenRefused(message) => StoreError::Unauthenticated { context, message },
            Verdict::Answer(refusal) => refusal.into_error(context),
        }
    }

    fn grpc(&self, route: &Route) -> Grpc<Channel> {
        Grpc::new(route.connection.channel.clone())
            .max_decoding_message_size(self.options.max_message_bytes)
            .max_encoding_message_size(self.options.max_message_bytes)
    }
}

fn no_answer(limit: Duration) -> Verdict {
    Verdict::Lost(format!("no answer within {limit:?}"))
}

fn authorize<T>(request: &mut Request<T>, token: Option<AsciiMetadataValue>) {
    if let Some(token) = token {
        request.metadata_mut().insert("token", token);
    }
}

/// Encodes a shared message, so that an attempt at another endpoint needs no copy of it.
struct SharedCodec<Req, Resp>(PhantomData<(Req, Resp)>);

impl<Req: Message + 'static, Resp: Message + Default + 'static> Codec for SharedCodec<Req, Resp> {
    type Encode = Arc<Req>;
    type Decode = Resp;
    type Encoder = SharedEncoder<Req>;
    type Decoder = PlainDecoder<Resp>;

    fn encoder(&mut self) -> Self::Encoder {
        SharedEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        PlainDecoder(PhantomData)
    }
}

struct SharedEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for SharedEncoder<T> {
    type Item = Arc<T>;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

struct PlainDecoder<T>(PhantomData<T>);

impl<T: Message + Default> Decoder for PlainDecoder<T> {
    type Item = T;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<T>, Status> {
        T::decode(buffer)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
