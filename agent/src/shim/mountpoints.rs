//! Directories that exist only so that something can be mounted on them.
//!
//! A container with a volume at `/etc/app` needs a directory `/etc/app` on the host, which is removed again when no
//! container needs it. Two containers may share one, and removing a directory detaches what other mount namespaces
//! have mounted on it. So every directory that is created here has an entry in a registry that all agents of the
//! machine share: a file, locked shared by each shim whose container uses the directory. Whoever can lock it
//! exclusively is the last one, and removes directory and entry. The kernel drops locks of a shim that dies.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::spec::{BindMount, StepError};

/// The mount points that a container uses and that were not there before.
#[derive(Debug, Default)]
pub(super) struct MountPoints {
    /// Parents before children.
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    path: PathBuf,
    entry: PathBuf,
    lock: File,
}

impl MountPoints {
    /// Makes sure that every mount has something to be mounted on. Targets inside another mount's target are left to
    /// the container's own namespace ([`create_inside`]).
    pub(super) fn prepare(registry: &Path, mounts: &[BindMount]) -> Result<Self, StepError> {
        let mut all = Self::default();
        for (i, mount) in mounts.iter().enumerate() {
            if mounts[..i].iter().any(|earlier| {
                mount.target.starts_with(&earlier.target) && mount.target != earlier.target
            }) {
                continue;
            }
            let is_dir = fs::metadata(&mount.source)
                .map_err(|e| {
                    StepError::new(
                        "mount",
                        format_args!("volume {}: {e}", mount.source.display()),
                    )
                })?
                .is_dir();
            all.hold(registry, &mount.target, is_dir).map_err(|e| {
                StepError::new(
                    "mount",
                    format_args!("mount point {}: {e}", mount.target.display()),
                )
            })?;
        }
        Ok(all)
    }

    fn hold(&mut self, registry: &Path, target: &Path, target_is_dir: bool) -> io::Result<()> {
        let mut path = PathBuf::new();
        let components: Vec<Component<'_>> = target.components().collect();
        for (i, component) in components.iter().enumerate() {
            path.push(component);
            if i == 0 || self.held.iter().any(|h| h.path == path) {
                continue;
            }
            let as_dir = i + 1 < components.len() || target_is_dir;
            if let Some(held) = hold_one(registry, &path, as_dir)? {
                self.held.push(held);
            }
        }
        Ok(())
    }

    /// Removes what nobody else uses.
    pub(super) fn release(self) {
        for held in self.held.into_iter().rev() {
            let _ = try_remove(&held.path, &held.entry, &held.lock);
            // As in `Locked`: closing the file may not be enough.
            let _ = flock(&held.lock, FlockOperation::Unlock);
        }
    }
}

fn hold_one(registry: &Path, path: &Path, as_dir: bool) -> io::Result<Option<Held>> {
    let entry = registry.join(escape(path));
    loop {
        let lock = match File::open(&entry) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if fs::metadata(path).is_ok() {
                    if entry.exists() {
                        continue; // It was created between the two looks.
                    }
                    return Ok(None); // It was there before us, and stays.
                }
                fs::create_dir_all(registry)?;
                File::options()
                    .create(true)
                    .append(true)
                    .read(true)
                    .open(&entry)?
            }
            Err(e) => return Err(e),
        };
        flock(&lock, FlockOperation::LockShared)?;
        if !is_current(&entry, &lock) {
            continue; // Its last user removed it while we waited.
        }
        let made = if as_dir {
            fs::create_dir(path)
        } else {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .map(drop)
        };
        return match made {
            Ok(()) => Ok(Some(Held {
                path: path.into(),
                entry,
                lock,
            })),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(Some(Held {
                path: path.into(),
                entry,
                lock,
            })),
            Err(e) => {
                let _ = try_remove(path, &entry, &lock);
                Err(e)
            }
        };
    }
}

fn try_remove(path: &Path, entry: &Path, lock: &File) -> io::Result<()> {
    flock(lock, FlockOperation::NonBlockingLockExclusive)?;
    if !is_current(entry, lock) {
        return Ok(());
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => match fs::remove_dir(path) {
            // Somebody put something in: it is theirs now.
            Err(e)
                if e.kind() != io::ErrorKind::DirectoryNotEmpty
                    && e.kind() != io::ErrorKind::NotFound =>
            {
                return Err(e);
            }
            _ => {}
        },
        Ok(meta) if meta.is_file() && meta.len() == 0 => fs::remove_file(path)?,
        _ => {}
    }
    fs::remove_file(entry)
}

fn is_current(entry: &Path, lock: &File) -> bool {
    match (fs::metadata(entry), lock.metadata()) {
        (Ok(a), Ok(b)) => a.ino() == b.ino() && a.dev() == b.dev(),
        _ => false,
    }
}

/// A file name for a path: `/etc/app` is `%etc%app`.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%25").replace('/', "%")
}

/// Creates a mount point that lies inside a volume, from within the container's mount namespace.
pub(super) fn create_inside(mount: &BindMount) -> io::Result<()> {
    if fs::metadata(&mount.target).is_ok() {
        return Ok(());
    }
    if fs::metadata(&mount.source)?.is_dir() {
        fs::create_dir_all(&mount.target)
    } else {
        if let Some(parent) = mount.target.parent() {
            fs::create_dir_all(parent)?;
        }
        File::options()
            .create(true)
            .append(true)
            .open(&mount.target)
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(source: &Path, target: PathBuf) -> BindMount {
        BindMount {
            source: source.into(),
            target,
            read_only: false,
        }
    }

    #[test]
    fn what_was_created_goes_when_its_last_user_goes_and_what_was_there_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let (registry, host, volume) = (
            tmp.path().join("registry"),
            tmp.path().join("host"),
            tmp.path().join("volume"),
        );
        fs::create_dir(&host).unwrap();
        fs::create_dir(&volume).unwrap();
        let a = MountPoints::prepare(&registry, &[mount(&volume, host.join("etc/app"))]).unwrap();
        let b = MountPoints::prepare(&registry, &[mount(&volume, host.join("etc/other"))]).unwrap();
        assert!(host.join("etc/app").is_dir() && host.join("etc/other").is_dir());
        a.release();
        assert!(!host.join("etc/app").exists());
        assert!(
            host.join("etc/other").is_dir(),
            "still used by the second container"
        );
        b.release();
        assert!(!host.join("etc").exists());
        assert!(host.is_dir(), "it was there before");
        assert_eq!(fs::read_dir(&registry).unwrap().count(), 0);
    }

    #[test]
    fn a_mount_point_that_got_content_is_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let (registry, target, volume) = (
            tmp.path().join("registry"),
            tmp.path().join("a/b"),
            tmp.path().join("volume"),
        );
        fs::create_dir(&volume).unwrap();
        let points = MountPoints::prepare(&registry, &[mount(&volume, target.clone())]).unwrap();
        fs::write(target.join("precious"), "x").unwrap();
        points.release();
        assert!(target.join("precious").exists());
        assert_eq!(fs::read_dir(&registry).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_mounted_on_a_file() {
        let tmp = tempfile::tempdir().unwrap();
        let (registry, target, source) = (
            tmp.path().join("registry"),
            tmp.path().join("conf/app.conf"),
            tmp.path().join("f"),
        );
        fs::write(&source, "x").unwrap();
        let points = MountPoints::prepare(&registry, &[mount(&source, target.clone())]).unwrap();
        assert!(target.is_file());
        points.release();
        assert!(!tmp.path().join("conf").exists());
    }

    #[test]
    fn a_missing_volume_is_an_error_that_names_it() {
        let tmp = tempfile::tempdir().unwrap();
        let err = MountPoints::prepare(
            tmp.path(),
            &[mount(Path::new("/nonexistent/v"), tmp.path().join("t"))],
        )
        .unwrap_err();
        assert!(err.to_string().contains("/nonexistent/v"), "{err}");
    }
}
