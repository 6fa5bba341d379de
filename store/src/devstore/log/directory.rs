//! The directory: locked, and the one log in it found, begun or restored.

use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::frame::{self, Kind};
use super::recover::{Dropped, LogDamage, recover};
use super::snapshot::{RestoreError, image, saved};
use super::writer::{Log, Room, Start};
use crate::devstore::Options;
use crate::model::{Model, Request};

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refuses.
    #[error("{what} {}", .path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another development store{holder}; stop that one, or name another directory", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// ` (process 123)`, when it is known.
        holder: String,
    },
    /// An etcd server's data.
    #[error("{} holds the data of an etcd server, which the development store cannot read; name another directory", .0.display())]
    OfEtcd(PathBuf),
    /// A snapshot was to be restored over a store.
    #[error("{} holds a store already; a snapshot is restored into an empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// See there.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// See there.
    #[error(transparent)]
    Damage(#[from] LogDamage),
}

fn io<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> OpenError + use<'a> {
    move |source| OpenError::Io {
        what,
        path: path.into(),
        source,
    }
}

/// A store as it was left.
pub(in crate::devstore) struct Opened {
    pub(in crate::devstore) log: Log,
    pub(in crate::devstore) model: Model,
    pub(in crate::devstore) id: u64,
    /// Records that were made again.
    pub(in crate::devstore) records: u64,
    pub(in crate::devstore) dropped: Option<Dropped>,
}

/// A number that no other store has.
pub(in crate::devstore) fn fresh_id() -> u64 {
    // The standard library's keys are the system's random numbers.
    RandomState::new().hash_one(std::process::id()) | 1
}

/// Opens a directory, for one process at a time, and makes the state that its log describes.
pub(in crate::devstore) fn open(path: &Path, options: &Options) -> Result<Opened, OpenError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(path)
        .map_err(io("creating the data directory", path))?;
    if path.join("member").is_dir() {
        return Err(OpenError::OfEtcd(path.into()));
    }
    let lock = lock(path)?;
    let directory = File::open(path).map_err(io("opening the data directory", path))?;

    let mut logs = logs(path)?;
    let (number, file_path) = match logs.pop() {
        Some(_) if options.restore.is_some() => return Err(OpenError::NotEmpty(path.into())),
        Some(last) => last,
        None => begin(path, &directory, options)?,
    };
    for (_, replaced) in logs {
        std::fs::remove_file(&replaced).map_err(io("removing the replaced log", &replaced))?;
    }

    let mut file = File::options()
        .read(true)
        .write(true)
        .open(&file_path)
        .map_err(io("opening the log", &file_path))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(io("reading the log", &file_path))?;
    let recovered = recover(
        &file_path,
        &bytes,
        options.model.clone(),
        options.truncate_damaged_log,
    )?;
    if let Some(dropped) = recovered.dropped
        && options.truncate_damaged_log
    {
        let aside = path.join(format!("damaged-{number}-{}", dropped.offset));
        keep(&aside, &bytes[recovered.end..], &directory)
            .map_err(io("keeping the damaged end of the log in", &aside))?;
    }
    drop(bytes);

    // From here on what was torn is gone, and what was found is on the disk, whoever had written it.
    let mut end = recovered.end as u64;
    let cut = || {
        file.set_len(end)?;
        let mut closing = Vec::new();
        if !recovered.complete {
            frame::bytes(
                &mut closing,
                recovered.id,
                recovered.batch,
                Kind::BatchEnd,
                &[],
            );
            file.write_all_at(&closing, end)?;
        }
        file.sync_all()?;
        directory.sync_all()?;
        Ok(closing.len() as u64)
    };
    end += cut().map_err(io("completing the log", &file_path))?;

    let mut model = recovered.model;
    model.restart(Duration::ZERO);
    // Memory has no holes to keep.
    let _ = model.step(Duration::ZERO, Request::Defragment);
    model.take_records();

    let room = Room::new(options.log_chunk_bytes, options.reserve_room);
    let log = Log::start(Start {
        directory_path: path.into(),
        directory,
        lock,
        number,
        file,
        id: recovered.id,
        batch: recovered.batch + 1,
        end,
        snapshot_bytes: recovered.snapshot_bytes as u64,
        compact_after: options.compact_log_after,
        room,
    })
    .map_err(io("reserving room for the log in", path))?;
    Ok(Opened {
        log,
        model,
        id: recovered.id,
        records: recovered.records,
        dropped: recovered.dropped,
    })
}

/// Writes a file that is sure to be on the disk, with its name, when this returns: what it is a copy of is cut off then.
fn keep(path: &Path, bytes: &[u8], directory: &File) -> std::io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    directory.sync_all()
}

/// The directory is this process's own until it is dropped.
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough while a child that is being started has it, too.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let lock_path = path.join("lock");
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(io("opening", &lock_path))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // For the message only.
            let _ = lock.read_to_string(&mut holder);
            if !holder.is_empty() {
                holder = format!(" (process {})", holder.trim());
            }
            return Err(OpenError::InUse {
                path: path.into(),
                holder,
            });
        }
        Err(error) => return Err(io("locking", &lock_path)(error.into())),
    }
    let mut lock = Lock { file: lock };
    lock.file
        .set_len(0)
        .and_then(|()| writeln!(lock.file, "{}", std::process::id()))
        .map_err(io("writing", &lock_path))?;
    Ok(lock)
}

/// The logs by number. What a compaction has not completed is removed.
fn logs(path: &Path) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let failed = || io("reading the data directory", path);
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.strip_prefix("log-")) else {
            continue;
        };
        if let Ok(number) = number.parse() {
            logs.push((number, entry.path()));
        } else if number.ends_with(".tmp") {
            std::fs::remove_file(entry.path())
                .map_err(io("removing an unfinished log", &entry.path()))?;
        }
    }
    logs.sort_unstable();
    Ok(logs)
}

/// Writes the first log: of an empty store, or of the snapshot to restore.
fn begin(path: &Path, directory: &File, options: &Options) -> Result<(u64, PathBuf), OpenError> {
    let bytes = match &options.restore {
        Some(snapshot) => saved(snapshot)?,
        None => image(fresh_id(), 1, &Model::new(options.model.clone()).snapshot()),
    };
    let (unfinished, finished) = (path.join("log-1.tmp"), path.join("log-1"));
    let write = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &finished)?;
        directory.sync_all()
    };
    write().map_err(io("beginning a log in", path))?;
    Ok((1, finished))
}
