//! etcd's API over gRPC, with the model's messages.

use prost::Message;
use setpoint_store::model::api;
use setpoint_store::model::{Request, Response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    pub(crate) fn connect(endpoint: String) -> Self {
        let channel = Channel::from_shared(endpoint)
            .expect("an endpoint")
            .connect_lazy();
        Self { channel }
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    async fn unary<Q, R>(&self, method: &'static str, request: Q) -> Result<R, Status>
    where
        Q: Message + Default + 'static,
        R: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(method);
        let codec = ProstCodec::<Q, R>::default();
        let mut grpc = self.ready().await?;
        let answer = grpc
            .unary(tonic::Request::new(request), path, codec)
            .await?;
        Ok(answer.into_inner())
    }

    /// One call of the API.
    pub(crate) async fn call(&self, request: Request) -> Result<Response, Status> {
        Ok(match request {
            Request::Range(request) => {
                Response::Range(self.unary("/etcdserverpb.KV/Range", request).await?)
            }
            Request::Put(request) => {
                Response::Put(self.unary("/etcdserverpb.KV/Put", request).await?)
            }
            Request::DeleteRange(request) => {
                Response::DeleteRange(self.unary("/etcdserverpb.KV/DeleteRange", request).await?)
            }
            Request::Txn(request) => {
                Response::Txn(self.unary("/etcdserverpb.KV/Txn", request).await?)
            }
            Request::Compact(request) => {
                Response::Compact(self.unary("/etcdserverpb.KV/Compact", request).await?)
            }
            Request::LeaseGrant(request) => Response::LeaseGrant(
                self.unary("/etcdserverpb.Lease/LeaseGrant", request)
                    .await?,
            ),
            Request::LeaseRevoke(request) => Response::LeaseRevoke(
                self.unary("/etcdserverpb.Lease/LeaseRevoke", request)
                    .await?,
            ),
            Request::LeaseKeepAlive(request) => {
                Response::LeaseKeepAlive(self.keep_alive(request).await?)
            }
            Request::LeaseTimeToLive(request) => Response::LeaseTimeToLive(
                self.unary("/etcdserverpb.Lease/LeaseTimeToLive", request)
                    .await?,
            ),
            Request::LeaseLeases => Response::LeaseLeases(
                self.unary(
                    "/etcdserverpb.Lease/LeaseLeases",
                    api::LeaseLeasesRequest {},
                )
                .await?,
            ),
            Request::Alarm(request) => Response::Alarm(
                self.unary("/etcdserverpb.Maintenance/Alarm", request)
                    .await?,
            ),
            Request::HashKv(request) => Response::HashKv(
                self.unary("/etcdserverpb.Maintenance/HashKV", request)
                    .await?,
            ),
            Request::Status => Response::Status(
                self.unary("/etcdserverpb.Maintenance/Status", api::StatusRequest {})
                    .await?,
            ),
            Request::Defragment => Response::Defragment(
                self.unary(
                    "/etcdserverpb.Maintenance/Defragment",
                    api::DefragmentRequest {},
                )
                .await?,
            ),
        })
    }

    async fn keep_alive(
        &self,
        request: api::LeaseKeepAliveRequest,
    ) -> Result<api::LeaseKeepAliveResponse, Status> {
        let path = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
        let requests = tokio_stream::once(request);
        let mut answers: Streaming<api::LeaseKeepAliveResponse> = self
            .ready()
            .await?
            .streaming(tonic::Request::new(requests), path, ProstCodec::default())
            .await?
            .into_inner();
        answers
            .message()
            .await?
            .ok_or_else(|| Status::unavailable("no answer"))
    }

    /// A watch on a stream of its own, and the server's first word about it.
    pub(super) async fn watch(
        &self,
        request: api::WatchCreateRequest,
    ) -> Result<(Watch, api::WatchResponse), Status> {
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let (requests, receiver) = mpsc::channel(1);
        let create = api::WatchRequest {
            request_union: Some(api::WatchUnion::Create(request)),
        };
        requests.try_send(create).expect("an empty channel");
        let mut answers: Streaming<api::WatchResponse> = self
            .ready()
            .await?
            .streaming(
                tonic::Request::new(ReceiverStream::new(receiver)),
                path,
                ProstCodec::default(),
            )
            .await?
            .into_inner();
        let created = answers
            .message()
            .await?
            .ok_or_else(|| Status::unavailable("no answer"))?;
        let watch = Watch {
            answers,
            _requests: requests,
        };
        Ok((watch, created))
    }
}

/// An open watch.
pub(super) struct Watch {
    pub(super) answers: Streaming<api::WatchResponse>,
    /// The stream lives as long as it could ask for more.
    _requests: mpsc::Sender<api::WatchRequest>,
}
