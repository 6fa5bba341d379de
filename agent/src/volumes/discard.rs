//! Giving up the directories of volume claims that are gone: a move into the trash, which is deleted in its own time.
//!
//! The move is one step on one file system, so a directory is either still the claim's or on its way out, whenever the
//! machine stops. Who moves holds off those who prepare volumes, so that no pod begins with a directory that is going.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use setpoint_apis::keyspace::uid_name;

use super::claim::in_use;
use crate::content::Content;
use crate::layout::DataDir;

/// Why a directory has not been given up.
#[derive(Debug, thiserror::Error)]
pub enum DiscardProblem {
    /// A pod uses it. When that is gone it can go.
    #[error("a pod of this node still uses it")]
    InUse,
    /// Something is mounted on or below it, which is not the agent's to unmount, and whose files are not the claim's.
    #[error("something is mounted at {0}: unmount it, if it is not needed any more")]
    Mounted(PathBuf),
    /// It cannot be told who uses it, or it cannot be moved.
    #[error("{path}: {source}; {}", help(source))]
    Host {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DiscardProblem {
    /// Whether somebody has to do something about it.
    pub fn needs_help(&self) -> bool {
        !matches!(self, Self::InUse)
    }
}

/// What whoever runs the machine can do about it.
pub(crate) fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "let the agent's user delete it (owner, mode, immutable attribute: `lsattr`), or delete it yourself"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system writable",
        io::ErrorKind::ResourceBusy => "unmount what is mounted there (`findmnt`)",
        io::ErrorKind::CrossesDevices => {
            "the claims' directory and what is in it must be on one file system"
        }
        _ => "see to the disk",
    }
}

/// What became of the claims of some uids.
pub type Discarded = Vec<(String, Result<(), DiscardProblem>)>;

/// Gives up the directories of the claims of these uids, those that are not there included. Once `Ok` stands for one the
/// trash has it, also after a loss of power. Blocks on disks.
pub fn discard(data: &DataDir, content: &Content, uids: Vec<String>) -> Discarded {
    let failed = |path: &Path, source: io::Error| DiscardProblem::Host {
        path: path.to_owned(),
        source,
    };
    let _held = content.hold_claims();
    let names: BTreeSet<OsString> = uids.iter().map(|uid| uid_name(uid).into()).collect();
    let there = |name: &&OsString| fs::symlink_metadata(data.claims().join(name)).is_ok();
    let used = match names.iter().any(|name| there(&name)) {
        true => in_use(data, &names).map_err(|e| failed(&data.pods(), e)),
        false => Ok(BTreeSet::new()),
    };
    let mut moved = false;
    let mut discarded: Discarded = uids
        .into_iter()
        .map(|uid| {
            let name = OsString::from(uid_name(&uid));
            let path = data.claims().join(&name);
            let done = match (fs::symlink_metadata(&path), &used) {
                (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                (Err(error), _) => Err(failed(&path, error)),
                (Ok(_), Ok(used)) if used.contains(&name) => Err(DiscardProblem::InUse),
                (Ok(_), Ok(_)) => discard_one(data, &name, &path).inspect(|()| moved = true),
                (Ok(_), Err(DiscardProblem::Host { path, source })) => {
                    Err(failed(path, source.kind().into()))
                }
                (Ok(_), Err(_)) => Err(DiscardProblem::InUse),
            };
            (uid, done)
        })
        .collect();
    if moved && let Err(error) = sync(data) {
        // It is not known what a loss of power would leave: nothing is said to be done, and it is looked at again.
        let kind = error.kind();
        for (_, done) in discarded.iter_mut().filter(|(_, done)| done.is_ok()) {
            *done = Err(failed(&data.trash(), kind.into()));
        }
    }
    discarded
}

fn discard_one(data: &DataDir, name: &OsStr, path: &Path) -> Result<(), DiscardProblem> {
    let host = |source| DiscardProblem::Host {
        path: path.to_owned(),
        source,
    };
    // A mount would go along, and be in the way of the deletion.
    if let Some(at) = mounted_below(path).map_err(host)? {
        return Err(DiscardProblem::Mounted(at));
    }
    let trash = data.trash();
    fs::create_dir_all(&trash).map_err(host)?;
    fs::rename(path, vacant(&trash, name)).map_err(host)
}

/// A path in the trash that is not taken: a uid may come again, when documents are restored.
fn vacant(trash: &Path, name: &OsStr) -> PathBuf {
    let numbered = |n: u64| {
        let mut name = name.to_owned();
        name.push(format!(".{n}"));
        trash.join(name)
    };
    let taken = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
    let mut paths = (0..).map(numbered).skip_while(taken);
    paths.next().unwrap_or_else(|| trash.join(name))
}

/// Makes moves last.
fn sync(data: &DataDir) -> io::Result<()> {
    fs::File::open(data.trash())?.sync_all()?;
    fs::File::open(data.claims())?.sync_all()
}

/// The first mount point on or below a path.
fn mounted_below(path: &Path) -> io::Result<Option<PathBuf>> {
    let path = match fs::symlink_metadata(path)?.file_type().is_symlink() {
        // Somebody has put a link there. It goes, and what it points to stays.
        true => return Ok(None),
        false => fs::canonicalize(path)?,
    };
    let mounts = fs::read("/proc/self/mountinfo")?;
    let mut points = mounts.split(|b| *b == b'\n').filter_map(mount_point);
    Ok(points.find(|point| point.starts_with(&path)))
}

/// The mount point of a line of `mountinfo`: its fifth field, in which blanks are written in octal.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|b| *b == b' ').nth(4)?;
    let mut point = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match (byte == b'\\')
            .then(|| after.get(..3).and_then(octal))
            .flatten()
        {
            Some(meant) => {
                point.push(meant);
                rest = &after[3..];
            }
            None => {
                point.push(byte);
                rest = after;
            }
        }
    }
    Some(PathBuf::from(OsString::from_vec(point)))
}

#[cfg(test)]
mod tests;
