//! Replacing a log that has grown by one that begins with a newer snapshot.
//!
//! The snapshot is written by a thread of its own while the old log goes on. Then the writer copies what the old log has
//! got meanwhile, and the new one takes its place by its name. Until that moment the old one is all there is.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Shared, Writer, log_path, sync_directory};
use crate::devstore::log::snapshot::image;
use crate::model::Snapshot;

/// Bytes copied at a time.
const COPY: usize = 1 << 20;

/// When, and how far it is.
pub(super) struct State {
    /// Of the current log.
    number: u64,
    snapshot_bytes: u64,
    /// How much a log grows at least before it is replaced.
    after: u64,
    /// Where the log was when it was begun, or when replacing it failed.
    since: u64,
    running: bool,
    ready: Option<Replacement>,
}

impl State {
    pub(super) fn new(number: u64, snapshot_bytes: u64, after: u64) -> Self {
        Self {
            number,
            snapshot_bytes,
            after,
            since: snapshot_bytes,
            running: false,
            ready: None,
        }
    }

    pub(super) fn is_due(&self, used: u64) -> bool {
        // A log of twice its snapshot at most doubles what is written.
        !self.running && used.saturating_sub(self.since) > self.after.max(self.snapshot_bytes)
    }

    pub(super) fn take(&mut self) -> Option<Replacement> {
        self.ready.take()
    }
}

/// A log with a snapshot, complete but for what has happened since.
pub(super) struct Replacement {
    file: File,
    path: PathBuf,
    number: u64,
    snapshot_bytes: u64,
    /// From where on the old log has to be copied.
    from: u64,
}

pub(super) fn begin(shared: &Arc<Shared>, snapshot: Snapshot) {
    let (from, batch, number) = {
        let mut pending = shared.pending.lock();
        if std::mem::replace(&mut pending.compaction.running, true) {
            return;
        }
        (pending.used, pending.batch, pending.compaction.number + 1)
    };
    let owned = Arc::clone(shared);
    let work = move || {
        let path = owned.directory.join(format!("log-{number}.tmp"));
        match write(&owned, &path, batch, &snapshot) {
            Ok((file, snapshot_bytes)) => {
                owned.pending.lock().compaction.ready = Some(Replacement {
                    file,
                    path,
                    number,
                    snapshot_bytes,
                    from,
                });
                owned.wake.notify_one();
            }
            Err(error) => {
                let _ = std::fs::remove_file(&path);
                gave_up(&owned, &error);
            }
        }
    };
    let spawned = std::thread::Builder::new()
        .name("devstore-compact".to_owned())
        .spawn(work);
    if let Err(error) = spawned {
        gave_up(shared, &error);
    }
}

fn write(
    shared: &Shared,
    path: &std::path::Path,
    batch: u64,
    snapshot: &Snapshot,
) -> io::Result<(File, u64)> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let image = image(shared.id, batch, snapshot);
    file.write_all(&image)?;
    file.sync_all()?;
    Ok((file, image.len() as u64))
}

/// The old log stays; it is tried again when that has grown as much once more.
fn gave_up(shared: &Shared, error: &io::Error) {
    tracing::warn!(directory = %shared.directory.display(), %error, "the log could not be compacted");
    let mut pending = shared.pending.lock();
    pending.compaction.running = false;
    pending.compaction.since = pending.used;
}

impl Writer {
    /// Lets a new log take the place of the old one. An error is one after which it is not known which of them is there.
    pub(super) fn replace(&mut self, new: &Replacement) -> io::Result<()> {
        let prepared = self.prepare(new);
        let (file, end, reserved) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                let _ = std::fs::remove_file(&new.path);
                gave_up(&self.shared, &error);
                return Ok(());
            }
        };
        std::fs::rename(&new.path, log_path(&self.shared.directory, new.number))?;
        sync_directory(&self.directory)?;
        let replaced = {
            let mut pending = self.shared.pending.lock();
            pending.used = pending.used - self.end + end;
            pending.reserved = reserved;
            let number = std::mem::replace(&mut pending.compaction.number, new.number);
            pending.compaction.running = false;
            pending.compaction.snapshot_bytes = new.snapshot_bytes;
            pending.compaction.since = pending.used;
            number
        };
        tracing::debug!(log = new.number, bytes = end, "compacted the log");
        self.file = file;
        self.end = end;
        // One that stays is removed at the next start.
        let _ = std::fs::remove_file(log_path(&self.shared.directory, replaced));
        Ok(())
    }

    /// Copies what the old log has got meanwhile, and reserves the room that the old one had left.
    fn prepare(&self, new: &Replacement) -> io::Result<(File, u64, u64)> {
        let file = new.file.try_clone()?;
        let mut buffer = vec![0; COPY];
        let (mut from, mut to) = (new.from, new.snapshot_bytes);
        while from < self.end {
            let length = usize::try_from(self.end - from).map_or(COPY, |left| left.min(COPY));
            self.file.read_exact_at(&mut buffer[..length], from)?;
            file.write_all_at(&buffer[..length], to)?;
            from += length as u64;
            to += length as u64;
        }
        // Room that was promised on the old log is promised on the new one.
        let left = self.shared.pending.lock().reserved.saturating_sub(self.end);
        let room = left.max(self.room.chunk);
        (self.room.reserve)(&file, to, room)?;
        file.sync_all()?;
        Ok((file, to, to + room))
    }
}
