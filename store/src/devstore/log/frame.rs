//! What the log consists of: a header of the file, then frames. Each frame has a length and a checksum of its own.
//!
//! ```text
//! file   magic (8) | id of the directory (8) | CRC-32C of both (4) | frame ... | zeros, room for more
//! frame  CRC-32C (4) | length (4) | batch (8) | kind (1) | payload
//! ```
//!
//! Numbers are little-endian. The checksum covers the id of the directory too, so that a frame of another store that
//! happens to be stored as a value is not taken for one of this log. What is written and synced at once is one batch, and
//! ends with a frame that says so: only the last batch can be torn by a crash.

use std::ops::Range;

use prost::Message;

use crate::model::Record;
use crate::model::hash::Crc32c;

const MAGIC: &[u8; 8] = b"SPDEVST1";

/// Bytes of a file's header.
pub(super) const FILE_HEADER: usize = 20;

/// Bytes of a frame beside its payload.
pub(super) const FRAME_HEADER: usize = 17;

/// How far apart the batches of neighbouring frames can be at most. It narrows down what is taken for a frame when one is
/// searched behind damage.
const BATCH_SPREAD: u64 = 1 << 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A part of the snapshot that the log begins with.
    Snapshot = 1,
    /// The snapshot is complete.
    SnapshotEnd = 2,
    /// One change.
    Record = 3,
    /// The batch is complete.
    BatchEnd = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [
            Self::Snapshot,
            Self::SnapshotEnd,
            Self::Record,
            Self::BatchEnd,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// A whole frame, as it was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) batch: u64,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    pub(super) fn len(&self) -> usize {
        FRAME_HEADER + self.payload.len()
    }
}

/// The header of a file, for the directory of that id.
pub(super) fn file_header(id: u64) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..16].copy_from_slice(&id.to_le_bytes());
    let mut crc = Crc32c::default();
    crc.write(&header[..16]);
    header[16..].copy_from_slice(&crc.finish().to_le_bytes());
    header
}

/// The id in a file's header; `None` when it is not one.
pub(super) fn file_id(bytes: &[u8]) -> Option<u64> {
    let id = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    (bytes.get(..FILE_HEADER)? == file_header(id)).then_some(id)
}

/// Appends a frame whose payload is `write`'s.
fn frame(buffer: &mut Vec<u8>, id: u64, batch: u64, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 8]);
    buffer.extend_from_slice(&batch.to_le_bytes());
    buffer.push(kind as u8);
    write(buffer);
    // No payload is larger than a request or a part of a snapshot.
    let length = (buffer.len() - start - FRAME_HEADER) as u32;
    buffer[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    let crc = checksum(id, &buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

pub(super) fn bytes(buffer: &mut Vec<u8>, id: u64, batch: u64, kind: Kind, payload: &[u8]) {
    frame(buffer, id, batch, kind, |buffer| {
        buffer.extend_from_slice(payload);
    });
}

pub(super) fn record(buffer: &mut Vec<u8>, id: u64, batch: u64, record: &Record) {
    frame(buffer, id, batch, Kind::Record, |buffer| {
        // A vector grows, so this cannot fail.
        let _ = record.encode(buffer);
    });
}

fn checksum(id: u64, bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::default();
    crc.write(&id.to_le_bytes());
    crc.write(bytes);
    crc.finish()
}

/// The frame at the beginning of `bytes`; `None` when there is no whole one.
pub(super) fn read(id: u64, bytes: &[u8]) -> Option<Frame<'_>> {
    read_if(id, bytes, |_| true)
}

fn read_if(id: u64, bytes: &[u8], plausible: impl FnOnce(u64) -> bool) -> Option<Frame<'_>> {
    let number = |range: Range<usize>| Some(u32::from_le_bytes(bytes.get(range)?.try_into().ok()?));
    let (crc, length) = (number(0..4)?, number(4..8)?);
    let kind = Kind::of(*bytes.get(16)?)?;
    let batch = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let end = FRAME_HEADER.checked_add(usize::try_from(length).ok()?)?;
    let payload = bytes.get(FRAME_HEADER..end)?;
    (plausible(batch) && checksum(id, &bytes[4..end]) == crc).then_some(Frame {
        kind,
        batch,
        payload,
    })
}

/// The first whole frame of `batch` or a later one, wherever it begins, and where.
pub(super) fn search(id: u64, bytes: &[u8], batch: u64) -> Option<(usize, Frame<'_>)> {
    (0..bytes.len()).find_map(|start| {
        let plausible = |found: u64| (batch..batch.saturating_add(BATCH_SPREAD)).contains(&found);
        Some((start, read_if(id, &bytes[start..], plausible)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_again_and_no_bit_of_it_may_differ() {
        let mut log = Vec::new();
        bytes(&mut log, 7, 3, Kind::Record, b"payload");
        let found = read(7, &log).unwrap();
        assert_eq!((found.kind, found.batch), (Kind::Record, 3));
        assert_eq!(found.payload, b"payload");
        assert_eq!(found.len(), log.len());
        assert_eq!(read(8, &log), None, "of another directory");
        for bit in 0..log.len() * 8 {
            let mut damaged = log.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(7, &damaged), None, "bit {bit}");
        }
        for length in 0..log.len() {
            assert_eq!(read(7, &log[..length]), None, "length {length}");
        }
        assert_eq!(read(7, &[0; 64]), None, "zeros are no frame");
    }

    #[test]
    fn the_header_names_the_directory() {
        let header = file_header(0x0102_0304_0506_0708);
        assert_eq!(file_id(&header), Some(0x0102_0304_0506_0708));
        for byte in 0..header.len() {
            let mut damaged = header;
            damaged[byte] ^= 1;
            assert_eq!(file_id(&damaged), None, "byte {byte}");
        }
    }
}
