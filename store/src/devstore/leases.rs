//! Keep-alives: one answer for each, in order.

use std::sync::Arc;

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::engine::Engine;
use crate::model::api::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use crate::model::{Request, Response};

/// Answers that wait for a client that does not read.
const QUEUE: usize = 16;

pub(super) fn keep_alive(
    engine: Arc<Engine>,
    mut requests: Streaming<LeaseKeepAliveRequest>,
) -> impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send + 'static {
    let (answers, stream) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let request = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => request,
                    // It has no more to ask, or is gone.
                    Ok(None) | Err(_) => return,
                },
                () = engine.closed() => {
                    let _ = answers.try_send(Err(stopping()));
                    return;
                }
                () = answers.closed() => return,
            };
            let answer = match engine.call(Request::LeaseKeepAlive(request)).await {
                Ok(Response::LeaseKeepAlive(answer)) => Ok(answer),
                Ok(_) => Err(Status::internal("unexpected answer of the model")),
                Err(status) => Err(status),
            };
            let last = answer.is_err();
            if answers.send(answer).await.is_err() || last {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

/// How a stream ends when the store does.
pub(super) fn stopping() -> Status {
    Status::unavailable("the development store is stopping")
}
