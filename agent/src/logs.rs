//! Reads what the shim writes: the log of one run of a container, across rotation, and as it grows.
//!
//! Used by the command line on the same machine and by the agent's HTTP endpoint.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

/// What of a log to show, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only so many lines from the end.
    pub tail: Option<usize>,
    /// Only lines from this time on: nanoseconds since the epoch.
    pub since: Option<i64>,
    /// Each line begins with its time.
    pub timestamps: bool,
}

/// Reads a log to its present end.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<File>,
    /// Read, but not a whole record yet.
    rest: Vec<u8>,
    since: Option<String>,
    timestamps: bool,
    /// The last record shown was not the end of its line.
    in_line: bool,
}

impl LogReader {
    /// Opens the log whose current file is `path`. A log that does not exist yet is an empty one.
    ///
    /// # Errors
    /// IO errors.
    pub fn open(path: &Path, options: &LogOptions) -> io::Result<Self> {
        let mut reader = Self {
            path: path.into(),
            file: None,
            rest: Vec::new(),
            since: options.since.map(timestamp),
            timestamps: options.timestamps,
            in_line: false,
        };
        let files = opened(|| files_of(path))?;
        reader.file = match options.tail {
            Some(lines) => position_tail(files, lines)?,
            None => files.into_iter().next(),
        };
        Ok(reader)
    }

    /// The next lines, as they are shown. `None` at the present end.
    ///
    /// # Errors
    /// IO errors.
    pub fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(file) = self.file.as_mut() else {
                self.file = opened(|| files_of(&self.path))?.into_iter().next();
                if self.file.is_none() {
                    return Ok(None);
                }
                continue;
            };
            let mut buffer = vec![0; 32 * 1024];
            match file.read(&mut buffer)? {
                0 => {
                    let Some(next) = following(file, &self.path)? else {
                        return Ok(None);
                    };
                    // A file that has a successor is complete, but may have grown since it was read.
                    let grown = file.stream_position()? < file.metadata()?.len();
                    if !grown {
                        self.file = Some(next);
                        self.rest.clear();
                    }
                }
                n => {
                    self.rest.extend_from_slice(&buffer[..n]);
                    let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else {
                        continue;
                    };
                    let complete: Vec<u8> = self.rest.drain(..=end).collect();
                    let mut shown = Vec::with_capacity(complete.len());
                    for record in complete[..end].split(|b| *b == b'\n') {
                        self.show(record, &mut shown);
                    }
                    if !shown.is_empty() {
                        return Ok(Some(shown));
                    }
                }
            }
        }
    }

    fn show(&mut self, record: &[u8], out: &mut Vec<u8>) {
        let mut parts = record.splitn(4, |b| *b == b' ');
        let (Some(time), Some(_stream), Some(tag), Some(content)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return; // Half a record, from a disk that was full.
        };
        if self
            .since
            .as_ref()
            .is_some_and(|since| time < since.as_bytes())
        {
            return;
        }
        if self.timestamps && !self.in_line {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(content);
        self.in_line = tag == b"P";
        if !self.in_line {
            out.push(b'\n');
        }
    }
}

/// Reads a log as it grows, until its container has ended.
#[derive(Debug)]
pub struct LogFollower {
    reader: LogReader,
    changes: AsyncFd<OwnedFd>,
    /// Exists when the container has ended.
    exit_record: Option<PathBuf>,
}

impl LogFollower {
    /// Follows the log whose current file is `path`. With `exit_record` it ends when that file exists and all has been
    /// read; otherwise never.
    ///
    /// # Errors
    /// IO errors; the log's directory must exist.
    pub fn open(
        path: &Path,
        options: &LogOptions,
        exit_record: Option<PathBuf>,
    ) -> io::Result<Self> {
        let inotify =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        // Watched before the first read, so no change falls between.
        for dir in [Some(path), exit_record.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(Path::parent)
        {
            inotify::add_watch(&inotify, dir, events)?;
        }
        let changes = crate::asyncfd::readable(inotify)?;
        Ok(Self {
            reader: LogReader::open(path, options)?,
            changes,
            exit_record,
        })
    }

    /// The next lines; waits for them. `None` when there will be no more.
    ///
    /// # Errors
    /// IO errors.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is given up.
    pub async fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            // In this order: what was written before the end is seen after it.
            let ended = self
                .exit_record
                .as_ref()
                .is_some_and(|p| p.exists() || p.parent().is_some_and(|d| !d.exists()));
            if let Some(chunk) = self.reader.next_chunk()? {
                return Ok(Some(chunk));
            }
            if ended {
                return Ok(None);
            }
            let mut ready = self.changes.readable().await?;
            let mut events = [0u8; 4096];
            while rustix::io::read(ready.get_inner(), &mut events).is_ok_and(|n| n > 0) {}
            ready.clear_ready();
        }
    }
}

/// Removes a log with its rotated files.
pub fn remove(path: &Path) {
    for file in files_of(path) {
        let _ = fs::remove_file(file);
    }
}

/// The files of a log, oldest first.
fn files_of(path: &Path) -> Vec<PathBuf> {
    // Looked at first: should it be rotated away now, it is found under its next name.
    let exists = path.exists();
    let mut rotated: Vec<(u64, PathBuf)> = Vec::new();
    if let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        && let Ok(entries) = fs::read_dir(dir)
    {
        for entry in entries.flatten() {
            let file = entry.file_name();
            let number = file
                .to_str()
                .and_then(|f| f.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
            if let Some(number) = number {
                rotated.push((number, entry.path()));
            }
        }
    }
    rotated.sort();
    let mut files: Vec<PathBuf> = rotated.into_iter().map(|(_, p)| p).collect();
    if exists {
        files.push(path.into());
    }
    files
}

/// How often names are looked up again because files were rotated meanwhile, which happens now and then.
const LOOKS: usize = 100;

/// The files that `list` names, as they were together at one moment: between the listing and the opening a name may be
/// gone, or have passed to a newer file, and what lies between would be skipped.
fn opened(mut list: impl FnMut() -> Vec<PathBuf>) -> io::Result<Vec<File>> {
    let mut missing = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..LOOKS {
        let mut open = || -> io::Result<Option<Vec<File>>> {
            let files = list().into_iter().map(File::open);
            let files = files.collect::<io::Result<Vec<_>>>()?;
            let ids = files.iter().map(|file| Ok(id(&file.metadata()?)));
            let listed = list().into_iter().map(|path| Ok(id(&fs::metadata(path)?)));
            let same =
                ids.collect::<io::Result<Vec<_>>>()? == listed.collect::<io::Result<Vec<_>>>()?;
            Ok(same.then_some(files))
        };
        match open() {
            Ok(Some(files)) => return Ok(files),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = error,
            Err(error) => return Err(error),
        }
    }
    Err(missing)
}

/// The file that comes after an open one; the oldest that is left when the open one has been removed.
fn following(file: &File, path: &Path) -> io::Result<Option<File>> {
    let own = id(&file.metadata()?);
    for _ in 0..LOOKS {
        let Some(next) = successor(own, path) else {
            break;
        };
        let file = match File::open(next) {
            Ok(file) => file,
            // Rotated away meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        // As in `opened`.
        let opened = id(&file.metadata()?);
        let still = successor(own, path)
            .and_then(|p| fs::metadata(p).ok())
            .map(|m| id(&m));
        if still == Some(opened) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The path of the file that comes after the one with this identity.
fn successor(own: (u64, u64), path: &Path) -> Option<PathBuf> {
    let files = files_of(path);
    let at = files
        .iter()
        .position(|p| fs::metadata(p).is_ok_and(|m| id(&m) == own));
    files.into_iter().nth(at.map_or(0, |i| i + 1))
}

/// What tells one file from another, whatever its name.
fn id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Opens the file in which the last `lines` records begin, at their beginning.
fn position_tail(files: Vec<File>, lines: usize) -> io::Result<Option<File>> {
    let mut missing = lines;
    let mut earliest = None;
    for mut file in files.into_iter().rev() {
        let (found, offset) = last_records(&mut file, missing)?;
        file.seek(SeekFrom::Start(offset))?;
        earliest = Some(file);
        missing -= found;
        if missing == 0 {
            break;
        }
    }
    Ok(earliest)
}

/// Where the last `wanted` records of a file begin, and how many there are.
fn last_records(file: &mut File, wanted: usize) -> io::Result<(usize, u64)> {
    const BLOCK: u64 = 32 * 1024;
    let mut end = file.seek(SeekFrom::End(0))?;
    // A record ends with a newline, so the one that ends record n begins record n + 1.
    let mut newlines = 0;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.resize((end - start) as usize, 0);
        file.read_exact(&mut block)?;
        for (i, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            newlines += 1;
            if newlines > wanted {
                return Ok((wanted, start + i as u64 + 1));
            }
        }
        end = start;
    }
    Ok((newlines, 0))
}

/// A time in the form that records have, so that they compare as text.
fn timestamp(nanos: i64) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(nanos)) {
        Ok(t) => format!("{t:.9}"),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests;
