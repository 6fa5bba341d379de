//! What `etcdctl snapshot save` gets, and the hash of the whole database.

use bytes::Bytes;
use futures::{Stream, stream};
use tonic::Status;

use super::engine::Engine;
use super::log::Image;
use super::wire::{HashResponse, SnapshotResponse};
use crate::model::api::HashKvRequest;
use crate::model::{Request, Response};

/// Bytes of a message of a snapshot.
const PART: usize = 64 * 1024;

/// etcd hashes its database file here. There is none; the hash over the keys serves the purpose.
pub(super) async fn hash(engine: &Engine) -> Result<HashResponse, Status> {
    match engine
        .call(Request::HashKv(HashKvRequest::default()))
        .await?
    {
        Response::HashKv(hashed) => Ok(HashResponse {
            header: hashed.header,
            hash: hashed.hash,
        }),
        _ => Err(Status::internal("unexpected answer of the model")),
    }
}

/// A snapshot in this store's own format, then its SHA-256: `etcdctl` writes both to its file. The development store can
/// begin with that file; etcd's tools cannot read it.
pub(super) async fn snapshot(
    engine: &Engine,
) -> Result<impl Stream<Item = Result<SnapshotResponse, Status>> + use<>, Status> {
    let (header, snapshot) = engine
        .durable(engine.look(|model| (model.header(), model.snapshot())))
        .await?;
    let id = engine.id();
    let image = tokio::task::spawn_blocking(move || Image::of(id, &snapshot))
        .await
        .map_err(|error| Status::internal(format!("making the snapshot: {error}")))?;
    let version = engine.options().model.version.clone();
    let mut remaining = image.log.len() as u64;
    let log = Bytes::from(image.log);
    let parts = (0..log.len())
        .step_by(PART)
        .map(move |start| log.slice(start..log.len().min(start + PART)));
    let messages = parts
        .map(move |blob| {
            remaining -= blob.len() as u64;
            (remaining, blob)
        })
        .chain([(0, Bytes::from(image.checksum))])
        .map(move |(remaining_bytes, blob)| {
            Ok(SnapshotResponse {
                header: header.clone(),
                remaining_bytes,
                blob,
                version: version.clone(),
            })
        });
    Ok(stream::iter(messages))
}
