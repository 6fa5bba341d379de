//! The thread that writes: whatever has come in since the last time goes to the disk with one write and one sync.

mod compaction;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::sync::watch;

use super::directory::Lock;
use super::frame::{self, FRAME_HEADER, Kind};
use crate::model::{Record, Snapshot};

/// Bytes that requests leave free, for leases that expire when the disk is full.
const RESERVE: u64 = 256 * 1024;

/// What a record may be larger than its request, its frame and the end of its batch included.
const OVERHEAD: u64 = 128;

/// A buffer that has become larger is not kept.
const KEPT_BUFFER: usize = 4 << 20;

/// Why a change was not made durable.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::devstore) enum LogError {
    /// Nothing was changed.
    #[error(
        "no room for changes: the log of the development store cannot grow ({0}). Free some space; reads go on"
    )]
    Full(Arc<str>),
    /// Whether the change is there shows when the store is started again.
    #[error("the log of the development store failed ({0}); it stops")]
    Failed(Arc<str>),
    /// Nothing was changed.
    #[error("the development store is stopping")]
    Closed,
}

/// How a file grows: bytes at a time, and by what call.
#[derive(Clone, Copy)]
pub(super) struct Room {
    chunk: u64,
    reserve: fn(&File, u64, u64) -> io::Result<()>,
}

impl Room {
    pub(super) fn new(chunk: u64, reserve: fn(&File, u64, u64) -> io::Result<()>) -> Self {
        Self {
            chunk: chunk.max(2 * RESERVE),
            reserve,
        }
    }
}

/// Makes a file longer by zeros that are sure to have room on the disk.
pub(in crate::devstore) fn reserve_room(file: &File, offset: u64, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), offset, length) {
        Ok(()) => Ok(()),
        // Some file systems cannot; the zeros have to be written.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = [0; 64 * 1024];
            let mut done = 0;
            while done < length {
                let part = (length - done).min(zeros.len() as u64);
                file.write_all_at(&zeros[..part as usize], offset + done)?;
                done += part;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// What the writer begins with.
pub(super) struct Start {
    pub(super) directory_path: PathBuf,
    pub(super) directory: File,
    pub(super) lock: Lock,
    pub(super) number: u64,
    pub(super) file: File,
    pub(super) id: u64,
    pub(super) batch: u64,
    pub(super) end: u64,
    pub(super) snapshot_bytes: u64,
    pub(super) compact_after: u64,
    pub(super) room: Room,
}

/// How far the writer has come.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// Records that are on the disk.
    durable: u64,
    /// How often it has tried to get more room.
    attempts: u64,
    /// Why the last time failed.
    full: Option<Arc<str>>,
    /// Why it writes no more.
    ended: Option<LogError>,
}

/// What waits for the writer.
struct Pending {
    buffer: Vec<u8>,
    /// The batch of what is in the buffer.
    batch: u64,
    /// Records that were ever appended.
    appended: u64,
    /// Where the next frame will be in the file.
    used: u64,
    /// Bytes of the file that have room on the disk.
    reserved: u64,
    more_room: bool,
    closing: bool,
    compaction: compaction::State,
}

impl Pending {
    fn has_room(&self, bytes: u64) -> bool {
        self.used + bytes + OVERHEAD + RESERVE <= self.reserved
    }
}

struct Shared {
    id: u64,
    directory: PathBuf,
    pending: Mutex<Pending>,
    wake: Condvar,
    progress: watch::Sender<Progress>,
}

/// The log of a running store. Dropping it closes it.
pub(in crate::devstore) struct Log {
    shared: Arc<Shared>,
    /// The thread, and the lock of the directory. `None` once it is closed.
    open: Mutex<Option<(JoinHandle<()>, Lock)>>,
}

impl Log {
    pub(super) fn start(start: Start) -> io::Result<Self> {
        (start.room.reserve)(&start.file, start.end, start.room.chunk)?;
        let shared = Arc::new(Shared {
            id: start.id,
            directory: start.directory_path,
            pending: Mutex::new(Pending {
                buffer: Vec::new(),
                batch: start.batch,
                appended: 0,
                used: start.end,
                reserved: start.end + start.room.chunk,
                more_room: false,
                closing: false,
                compaction: compaction::State::new(
                    start.number,
                    start.snapshot_bytes,
                    start.compact_after,
                ),
            }),
            wake: Condvar::new(),
            progress: watch::Sender::default(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            directory: start.directory,
            file: start.file,
            end: start.end,
            room: start.room,
        };
        let thread = std::thread::Builder::new()
            .name("devstore-log".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            shared,
            open: Mutex::new(Some((thread, start.lock))),
        })
    }

    /// Whether a change of so many bytes is sure to fit.
    pub(in crate::devstore) fn has_room(&self, bytes: u64) -> bool {
        self.shared.pending.lock().has_room(bytes)
    }

    /// Waits until there is room for a change of so many bytes, or the disk refuses.
    pub(in crate::devstore) async fn make_room(&self, bytes: u64) -> Result<(), LogError> {
        let mut progress = self.shared.progress.subscribe();
        loop {
            let attempts = {
                let mut pending = self.shared.pending.lock();
                let seen = progress.borrow_and_update();
                if let Some(error) = &seen.ended {
                    return Err(error.clone());
                }
                if pending.has_room(bytes) {
                    return Ok(());
                }
                pending.more_room = true;
                seen.attempts
            };
            self.shared.wake.notify_one();
            let seen = progress
                .wait_for(|now| now.attempts > attempts || now.ended.is_some())
                .await
                .map_err(|_| LogError::Closed)?;
            if let Some(reason) = &seen.full {
                return Err(LogError::Full(Arc::clone(reason)));
            }
        }
    }

    /// Appends records. Returns the position after them, for [`Log::durable`].
    pub(in crate::devstore) fn append(&self, records: &[Record]) -> u64 {
        let mut pending = self.shared.pending.lock();
        if records.is_empty() {
            return pending.appended;
        }
        let (before, batch) = (pending.buffer.len(), pending.batch);
        for record in records {
            frame::record(&mut pending.buffer, self.shared.id, batch, record);
        }
        pending.used += (pending.buffer.len() - before) as u64;
        pending.appended += records.len() as u64;
        let position = pending.appended;
        drop(pending);
        self.shared.wake.notify_one();
        position
    }

    /// Waits until everything up to a position is on the disk.
    pub(in crate::devstore) async fn durable(&self, position: u64) -> Result<(), LogError> {
        {
            let now = self.shared.progress.borrow();
            if now.durable >= position {
                return Ok(());
            }
        }
        let mut progress = self.shared.progress.subscribe();
        let now = progress
            .wait_for(|now| now.durable >= position || now.ended.is_some())
            .await
            .map_err(|_| LogError::Closed)?;
        match &now.ended {
            Some(error) if now.durable < position => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Ready when the log can no longer be written.
    pub(in crate::devstore) async fn ended(&self) -> LogError {
        let mut progress = self.shared.progress.subscribe();
        match progress.wait_for(|now| now.ended.is_some()).await {
            Ok(now) => now.ended.clone().unwrap_or(LogError::Closed),
            Err(_) => LogError::Closed,
        }
    }

    /// Writes what was appended, marks the log as complete, and lets the directory go.
    pub(in crate::devstore) fn close(&self) {
        let mut open = self.open.lock();
        let Some((thread, lock)) = open.take() else {
            return;
        };
        self.shared.pending.lock().closing = true;
        self.shared.wake.notify_one();
        // It has said why it failed, if it did.
        let _ = thread.join();
        drop(lock);
    }

    /// Whether the log has grown so much that a new one should take its place.
    pub(in crate::devstore) fn wants_compaction(&self) -> bool {
        let pending = self.shared.pending.lock();
        pending.compaction.is_due(pending.used)
    }

    /// Begins a log with a snapshot that has all that was appended so far. Does nothing while one is being made.
    pub(in crate::devstore) fn compact(&self, snapshot: Snapshot) {
        compaction::begin(&self.shared, snapshot);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread's own.
struct Writer {
    shared: Arc<Shared>,
    directory: File,
    file: File,
    end: u64,
    room: Room,
}

/// What the thread has to do next.
struct Work {
    batch: Vec<u8>,
    position: u64,
    room: Demand,
    replacement: Option<compaction::Replacement>,
    closing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    None,
    /// Somebody will need it.
    Soon,
    /// Somebody waits for it.
    Now,
}

impl Writer {
    fn run(mut self) {
        let mut spare = Vec::new();
        loop {
            let work = self.next(spare);
            let done = self.carry_out(&work);
            if let Err(error) = done {
                let reason: Arc<str> = error.to_string().into();
                tracing::error!(directory = %self.shared.directory.display(), %error, "the log cannot be written");
                self.end(LogError::Failed(reason));
                return;
            }
            if work.closing {
                self.end(LogError::Closed);
                return;
            }
            spare = work.batch;
            spare.clear();
            spare.shrink_to(KEPT_BUFFER);
        }
    }

    fn end(&self, why: LogError) {
        self.shared
            .progress
            .send_modify(|progress| progress.ended = Some(why));
    }

    /// Waits for something to do.
    fn next(&self, spare: Vec<u8>) -> Work {
        let mut pending = self.shared.pending.lock();
        loop {
            let room = if pending.more_room {
                Demand::Now
            } else if pending.reserved < pending.used + self.room.chunk / 2
                && self.shared.progress.borrow().full.is_none()
            {
                Demand::Soon
            } else {
                Demand::None
            };
            let replacement = pending.compaction.take();
            if pending.buffer.is_empty()
                && room == Demand::None
                && replacement.is_none()
                && !pending.closing
            {
                self.shared.wake.wait(&mut pending);
                continue;
            }
            let mut batch = spare;
            std::mem::swap(&mut batch, &mut pending.buffer);
            // The last one says that all before it had been acknowledged.
            if !batch.is_empty() || pending.closing {
                frame::bytes(
                    &mut batch,
                    self.shared.id,
                    pending.batch,
                    Kind::BatchEnd,
                    &[],
                );
                pending.used += FRAME_HEADER as u64;
                pending.batch += 1;
            }
            pending.more_room = false;
            return Work {
                batch,
                position: pending.appended,
                room,
                replacement,
                closing: pending.closing,
            };
        }
    }

    fn carry_out(&mut self, work: &Work) -> io::Result<()> {
        if !work.batch.is_empty() {
            self.file.write_all_at(&work.batch, self.end)?;
            self.file.sync_data()?;
            self.end += work.batch.len() as u64;
            self.shared
                .progress
                .send_modify(|progress| progress.durable = work.position);
        }
        if work.closing {
            return Ok(());
        }
        if work.room != Demand::None {
            self.grow();
        }
        if let Some(replacement) = &work.replacement {
            self.replace(replacement)?;
        }
        Ok(())
    }

    /// Reserves more room, and says what became of it.
    fn grow(&self) {
        let from = self.shared.pending.lock().reserved;
        let grown = (self.room.reserve)(&self.file, from, self.room.chunk);
        let full: Option<Arc<str>> = match grown {
            Ok(()) => {
                self.shared.pending.lock().reserved = from + self.room.chunk;
                None
            }
            Err(error) => {
                if self.shared.progress.borrow().full.is_none() {
                    tracing::warn!(directory = %self.shared.directory.display(), %error, "the log cannot grow");
                }
                Some(error.to_string().into())
            }
        };
        self.shared.progress.send_modify(|progress| {
            progress.attempts += 1;
            progress.full = full;
        });
    }
}

/// Makes the names in a directory durable.
fn sync_directory(directory: &File) -> io::Result<()> {
    directory.sync_all()
}

fn log_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("log-{number}"))
}
