//! Deleting what is in the trash.
//!
//! Trees are taken apart without being walked: what is in a directory is unlinked, and a directory in it is moved up into
//! the trash, where its turn comes. So no tree is too deep, no path is followed (everything is named relative to an open
//! directory, by one name, links not followed), and nothing beyond a mount point is touched, since the kernel moves no
//! directory that is one. Whoever ends on the way leaves a trash that the next one goes on with.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::discard::help;

/// Something could not be deleted.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}; {}", help(source))]
pub struct TrashError {
    /// What.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Deletes everything in a directory that need not exist, until it is empty or `stop` is set. What cannot be deleted is
/// left, and the rest goes all the same. Blocks, for long when there is much.
///
/// # Errors
/// The first thing that could not be deleted.
pub fn empty(trash: &Path, stop: &AtomicBool) -> Result<(), TrashError> {
    let at = |path: PathBuf| {
        move |source: Errno| TrashError {
            path,
            source: source.into(),
        }
    };
    let opened = match open(CWD, trash) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(at(trash.to_owned()))?,
    };
    let mut sweep = Sweep {
        trash,
        opened,
        stop,
        next: 0,
        deleted: 0,
        error: None,
    };
    loop {
        sweep.deleted = 0;
        sweep.error = None;
        let left = sweep.round().map_err(at(trash.to_owned()))?;
        if left == 0 || stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(error) = sweep.error.take_if(|_| sweep.deleted == 0) {
            return Err(error);
        }
    }
}

struct Sweep<'a> {
    trash: &'a Path,
    opened: OwnedFd,
    stop: &'a AtomicBool,
    /// Numbers what is moved up. One that is taken is tried over: all of it is trash.
    next: u64,
    /// What was deleted or moved up in this round.
    deleted: u64,
    error: Option<TrashError>,
}

impl Sweep<'_> {
    /// Takes everything apart once that is in the trash at the top. Returns how much there was.
    fn round(&mut self) -> Result<u64, Errno> {
        let mut there = 0;
        for name in names(&self.opened)? {
            let name = name?;
            there += 1;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if let Err((inner, errno)) = self.take_apart(&name) {
                self.note(&[&name, &inner], errno);
            }
        }
        Ok(there)
    }

    /// Deletes a file, or a directory with the files in it. With an error comes what in the directory it is about.
    fn take_apart(&mut self, name: &CStr) -> Result<(), (Box<CStr>, Errno)> {
        let here = |errno| (Box::<CStr>::default(), errno);
        if !is_directory(&self.opened, name).map_err(here)? {
            return self.unlink(None, name, AtFlags::empty()).map_err(here);
        }
        make_mine(&self.opened, name);
        let dir = open(&self.opened, name).map_err(here)?;
        let mut first = None;
        for inner in names(&dir).map_err(here)? {
            let inner = inner.map_err(here)?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let done = match is_directory(&dir, &inner) {
                Ok(true) => self.move_up(&dir, &inner),
                Ok(false) => self.unlink(Some(&dir), &inner, AtFlags::empty()),
                Err(errno) => Err(errno),
            };
            if let Err(errno) = done {
                first.get_or_insert((inner, errno));
            }
        }
        match first {
            Some(error) => Err(error),
            // What a listing did not show, because the directory changed under it, is there in the next round.
            None => match self.unlink(None, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) => Ok(()),
                done => done.map_err(here),
            },
        }
    }

    fn unlink(&mut self, dir: Option<&OwnedFd>, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
        rustix::fs::unlinkat(dir.unwrap_or(&self.opened), name, flags)?;
        self.deleted += 1;
        Ok(())
    }

    fn move_up(&mut self, dir: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        loop {
            let up = format!("d{}", self.next);
            self.next += 1;
            match rustix::fs::renameat(dir, name, &self.opened, up.as_str()) {
                // Taken, by something that is not an empty directory.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                // Its entry for its parent is written: without the right to that it cannot be moved.
                Err(Errno::ACCESS) if make_mine(dir, name) => {}
                done => {
                    done?;
                    self.deleted += 1;
                    return Ok(());
                }
            }
        }
    }

    fn note(&mut self, names: &[&CStr], errno: Errno) {
        if self.error.is_none() {
            let names = names.iter().map(|n| n.to_string_lossy().into_owned());
            let path = names
                .filter(|n| !n.is_empty())
                .fold(self.trash.to_owned(), |path: PathBuf, name| path.join(name));
            let source = errno.into();
            self.error = Some(TrashError { path, source });
        }
    }
}

fn open(dir: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// One name after the other of what is in a directory.
fn names(dir: &OwnedFd) -> Result<impl Iterator<Item = Result<Box<CStr>, Errno>> + use<>, Errno> {
    let entries = Dir::read_from(dir)?;
    Ok(entries.filter_map(|entry| match entry {
        Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
        Ok(entry) => Some(Ok(entry.file_name().into())),
        Err(errno) => Some(Err(errno)),
    }))
}

fn is_directory(dir: &OwnedFd, name: &CStr) -> Result<bool, Errno> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Gives the owner all rights to a directory, where they are missing and the agent needs them. Whether it has changed
/// anything.
fn make_mine(dir: &OwnedFd, name: &CStr) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return false;
    };
    let mode = Mode::from_raw_mode(stat.st_mode);
    !mode.contains(Mode::RWXU)
        && rustix::fs::chmodat(dir, name, mode | Mode::RWXU, AtFlags::empty()).is_ok()
}

#[cfg(test)]
mod tests;
