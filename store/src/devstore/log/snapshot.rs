//! Snapshots as a file: the beginning of a log. `etcdctl snapshot save` gets the same, and its checksum.

use std::path::{Path, PathBuf};

use prost::Message;
use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

use super::frame::{self, FILE_HEADER, Kind};
use super::recover;
use crate::model::Snapshot;

/// Payload of a frame.
const PART: usize = 256 * 1024;

/// etcd's snapshot files are whole disk sectors and a checksum. Its client looks for that.
const SECTOR: usize = 512;

/// SHA-256, in bytes.
const CHECKSUM: usize = 32;

/// A log that holds nothing but a snapshot.
pub(in crate::devstore) fn image(id: u64, batch: u64, snapshot: &Snapshot) -> Vec<u8> {
    let encoded = snapshot.encode_to_vec();
    let mut bytes = Vec::with_capacity(FILE_HEADER + encoded.len() + encoded.len() / 1024 + 64);
    bytes.extend_from_slice(&frame::file_header(id));
    for part in encoded.chunks(PART) {
        frame::bytes(&mut bytes, id, batch, Kind::Snapshot, part);
    }
    frame::bytes(&mut bytes, id, batch, Kind::SnapshotEnd, &[]);
    bytes
}

/// What `etcdctl snapshot save` writes: a log, filled up with zeros to whole sectors, and the SHA-256 of it all.
pub(in crate::devstore) struct Image {
    pub(in crate::devstore) log: Vec<u8>,
    pub(in crate::devstore) checksum: Vec<u8>,
}

impl Image {
    pub(in crate::devstore) fn of(id: u64, snapshot: &Snapshot) -> Self {
        let mut log = image(id, 1, snapshot);
        log.resize(log.len().next_multiple_of(SECTOR), 0);
        let checksum = sha256(&log);
        Self { log, checksum }
    }
}

/// A snapshot file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error("reading the snapshot {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// Its checksum is not its content's.
    #[error("the snapshot {} is damaged or incomplete: its SHA-256 differs", .0.display())]
    Checksum(PathBuf),
    /// It is something else.
    #[error(
        "{} is not a snapshot of a development store (one of an etcd server cannot be read here)",
        .0.display()
    )]
    Foreign(PathBuf),
}

/// The log in a file that `etcdctl snapshot save` wrote.
pub(super) fn saved(file: &Path) -> Result<Vec<u8>, RestoreError> {
    let mut bytes =
        std::fs::read(file).map_err(|source| RestoreError::Read(file.into(), source))?;
    let id = frame::file_id(&bytes).ok_or_else(|| RestoreError::Foreign(file.into()))?;
    let checksum = match bytes.len().checked_sub(CHECKSUM) {
        Some(length) if length % SECTOR == 0 => bytes.split_off(length),
        _ => return Err(RestoreError::Checksum(file.into())),
    };
    if sha256(&bytes) != checksum {
        return Err(RestoreError::Checksum(file.into()));
    }
    let (_, end, _) =
        recover::snapshot(id, &bytes).map_err(|_| RestoreError::Checksum(file.into()))?;
    bytes.truncate(end);
    Ok(bytes)
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    match TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => {
            suite.common.hash_provider.hash(bytes).as_ref().to_vec()
        }
        // The constant is of TLS 1.3.
        SupportedCipherSuite::Tls12(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_sha_256() {
        let hex: String = sha256(b"abc").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
