//! Reading a log after whatever happened to it.
//!
//! A crash can tear the last batch, which nobody was told of: it is cut off after its last whole record. Damage before
//! that is of something that was acknowledged. Then nothing is guessed: the log is refused.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::frame::{self, FILE_HEADER, Kind};
use crate::model::{Config, Model, Record, ReplayError, Snapshot};

/// What a log holds.
pub(super) struct Recovered {
    pub(super) model: Model,
    pub(super) id: u64,
    /// Where the next frame goes.
    pub(super) end: usize,
    /// The last batch.
    pub(super) batch: u64,
    /// Whether that batch has its end.
    pub(super) complete: bool,
    /// Bytes of the snapshot that the log begins with.
    pub(super) snapshot_bytes: usize,
    pub(super) records: u64,
    pub(super) dropped: Option<Dropped>,
}

/// What was cut off the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Where, in bytes from the beginning of the file.
    pub offset: u64,
    /// How much, without the room that had not been used.
    pub bytes: u64,
    /// Whole records among it. What is torn is not counted.
    pub records: u64,
}

/// A log that cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum LogDamage {
    /// No header.
    #[error("{} is not a log of the development store, or its first {FILE_HEADER} bytes are damaged", .0.display())]
    NotALog(PathBuf),
    /// The snapshot is incomplete. There is nothing to go on from.
    #[error("the snapshot at the beginning of {} is damaged at byte {offset}: nothing can be recovered from it", .file.display())]
    Snapshot {
        /// The log.
        file: PathBuf,
        /// The first byte that is no whole frame.
        offset: u64,
    },
    /// Whole records follow the damage: what is damaged had been acknowledged.
    #[error(
        "{} is damaged at byte {offset} and goes on at byte {resumes}: changes that were acknowledged are lost, those after \
         them are not to be trusted. Restore a snapshot, or keep only what came before (revision {revision}, {records} records) \
         with --truncate-damaged-log",
        .file.display()
    )]
    Middle {
        /// The log.
        file: PathBuf,
        /// The first byte that is no whole frame.
        offset: u64,
        /// Where the next whole frame of a later batch begins.
        resumes: u64,
        /// The revision up to there.
        revision: i64,
        /// Records up to there.
        records: u64,
    },
    /// A whole record that makes no sense where it is.
    #[error(
        "the record at byte {offset} of {} does not follow from what came before it. Restore a snapshot, or keep only what came \
         before (revision {revision}) with --truncate-damaged-log",
        .file.display()
    )]
    Replay {
        /// The log.
        file: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// The revision up to there.
        revision: i64,
        /// What is wrong with it.
        #[source]
        reason: ReplayError,
    },
}

/// Makes the model that a log describes. With `truncate`, damage in the middle ends the log there.
pub(super) fn recover(
    file: &Path,
    bytes: &[u8],
    config: Config,
    truncate: bool,
) -> Result<Recovered, LogDamage> {
    let id = frame::file_id(bytes).ok_or_else(|| LogDamage::NotALog(file.into()))?;
    let config = Config {
        cluster_id: id,
        ..config
    };
    let (snapshot, mut end, mut batch) =
        snapshot(id, bytes).map_err(|offset| LogDamage::Snapshot {
            file: file.into(),
            offset: length(offset),
        })?;
    let snapshot_bytes = end;
    let mut model = Model::restore(config, snapshot);
    // The snapshot was taken somewhere within its batch.
    let mut complete = false;
    let mut records = 0_u64;
    let mut dropped = None;
    while end < bytes.len() {
        let rest = &bytes[end..];
        let current = if complete { batch + 1 } else { batch };
        let Some(frame) = frame::read(id, rest).filter(|frame| frame.batch == current) else {
            dropped = tail(id, rest, current, end);
            if dropped.is_some()
                && !truncate
                && let Some((start, _)) = frame::search(id, rest, current + 1)
            {
                return Err(LogDamage::Middle {
                    file: file.into(),
                    offset: length(end),
                    resumes: length(end + start),
                    revision: model.revision(),
                    records,
                });
            }
            break;
        };
        if frame.kind == Kind::Record {
            let record = Record::decode(Bytes::copy_from_slice(frame.payload)).unwrap_or_default();
            // Numbered from the snapshot on.
            let index = usize::try_from(records).unwrap_or(usize::MAX);
            if let Err(reason) = model.apply(index, record) {
                if truncate {
                    dropped = tail(id, rest, batch, end);
                    break;
                }
                return Err(LogDamage::Replay {
                    file: file.into(),
                    offset: length(end),
                    revision: model.revision(),
                    reason,
                });
            }
            records += 1;
        }
        batch = frame.batch;
        complete = frame.kind == Kind::BatchEnd;
        end += frame.len();
    }
    Ok(Recovered {
        model,
        id,
        end,
        batch,
        complete,
        snapshot_bytes,
        records,
        dropped,
    })
}

/// The snapshot at the beginning, where it ends, and its batch. `Err` is where it is damaged.
pub(super) fn snapshot(id: u64, bytes: &[u8]) -> Result<(Snapshot, usize, u64), usize> {
    let mut end = FILE_HEADER;
    let mut parts = Vec::new();
    loop {
        let frame = frame::read(id, bytes.get(end..).unwrap_or_default()).ok_or(end)?;
        match frame.kind {
            Kind::Snapshot => parts.extend_from_slice(frame.payload),
            Kind::SnapshotEnd => {
                let snapshot = Snapshot::decode(&*parts).map_err(|_| end)?;
                return Ok((snapshot, end + frame.len(), frame.batch));
            }
            Kind::Record | Kind::BatchEnd => return Err(end),
        }
        end += frame.len();
    }
}

/// What is behind the last good frame; `None` when it is nothing but unused room.
fn tail(id: u64, rest: &[u8], batch: u64, offset: usize) -> Option<Dropped> {
    let used = rest.iter().rposition(|byte| *byte != 0)? + 1;
    let mut dropped = Dropped {
        offset: length(offset),
        bytes: length(used),
        records: 0,
    };
    let mut rest = rest;
    while let Some((start, frame)) = frame::search(id, rest, batch) {
        dropped.records += u64::from(frame.kind == Kind::Record);
        rest = &rest[start + frame.len()..];
    }
    Some(dropped)
}

fn length(bytes: usize) -> u64 {
    // Wider than the address space of any machine.
    bytes as u64
}
