//! A pod's volumes: prepared on the host under the pod's directory, kept current, bind-mounted by the shim.

mod claim;
mod discard;
mod host_path;
mod mounts;
mod payload;
mod projection;
mod trash;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};
use setpoint_apis::core::{EmptyDirVolumeSource, Volume};

use crate::content::Content;
use crate::env::{ConfigError, PodFacts};
use crate::layout::PodDir;
use crate::spec::Degraded;
pub use discard::{DiscardProblem, Discarded, discard};
pub use mounts::{mounts, variable_name};
pub use projection::reads_content;
pub use trash::{TrashError, empty};

/// A volume that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedVolume {
    /// Its name in the pod.
    pub name: String,
    /// Where it is on the host.
    pub path: PathBuf,
    /// Containers may not write: it is made from objects.
    pub read_only: bool,
    /// What could not be applied.
    pub degraded: Option<Degraded>,
}

/// A volume that cannot be used, for now.
#[derive(Debug, thiserror::Error)]
#[error("volume {volume:?}")]
pub struct VolumeError {
    /// Its name in the pod.
    pub volume: String,
    /// Why.
    #[source]
    pub source: VolumeProblem,
}

/// Why a volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeProblem {
    /// What it is made from is missing or wrong. Tried again when the content changes.
    #[error(transparent)]
    Content(#[from] ConfigError),
    /// A file or directory of the host.
    #[error("{path}: {source}")]
    Host {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host has something else there.
    #[error("hostPath {path}: type {wanted} is wanted, and there is {found}")]
    WrongType {
        /// The path.
        path: PathBuf,
        /// What the manifest asks for.
        wanted: String,
        /// What the host has.
        found: &'static str,
    },
    /// A path that would leave the volume.
    #[error("path {0:?} must be relative and must not contain '..'")]
    Escapes(String),
    /// A kind of volume that this agent does not provide.
    #[error("volumes of type {0} are not supported by this version")]
    Unsupported(&'static str),
}

impl VolumeError {
    /// The whole reason in one line, as events have it.
    pub fn reason(&self) -> String {
        format!("volume {:?}: {}", self.volume, self.source)
    }
}

fn host(path: &Path) -> impl FnOnce(io::Error) -> VolumeProblem + '_ {
    |source| VolumeProblem::Host {
        path: path.into(),
        source,
    }
}

/// Prepares all volumes of a pod, and brings those that are made from objects up to date. Blocks on disks.
///
/// # Errors
/// The first volume that cannot be used; what was prepared stays.
pub fn prepare(
    dir: &PodDir,
    facts: &PodFacts<'_>,
    content: &Content,
) -> Result<Vec<PreparedVolume>, VolumeError> {
    let group = facts
        .pod
        .spec
        .security_context
        .as_ref()
        .and_then(|s| s.fs_group)
        .and_then(|g| u32::try_from(g).ok());
    let mut prepared = Vec::new();
    for volume in &facts.pod.spec.volumes {
        let one = prepare_one(dir, facts, content, volume, group);
        prepared.push(one.map_err(|source| VolumeError {
            volume: volume.name.clone(),
            source,
        })?);
    }
    Ok(prepared)
}

fn prepare_one(
    dir: &PodDir,
    facts: &PodFacts<'_>,
    content: &Content,
    volume: &Volume,
    group: Option<u32>,
) -> Result<PreparedVolume, VolumeProblem> {
    let path = dir.volume(&volume.name);
    let mut degraded = None;
    if let Some(source) = &volume.host_path {
        host_path::check(source)?;
        return Ok(PreparedVolume {
            name: volume.name.clone(),
            path: source.path.clone().into(),
            read_only: false,
            degraded,
        });
    }
    if let Some(source) = &volume.persistent_volume_claim {
        return Ok(PreparedVolume {
            name: volume.name.clone(),
            path: claim::prepare(dir, facts, content, source, &volume.name, group)?,
            read_only: source.read_only == Some(true),
            degraded,
        });
    }
    let read_only = match projection::files(facts, content, volume)? {
        Some(files) => {
            fs::create_dir_all(&path).map_err(host(&path))?;
            payload::write(&path, &files, group).map_err(host(&path))?;
            true
        }
        None => {
            let Some(source) = &volume.empty_dir else {
                return Err(VolumeProblem::Unsupported(kind(volume)));
            };
            degraded = empty_dir(&path, source, group).map_err(host(&path))?;
            false
        }
    };
    Ok(PreparedVolume {
        name: volume.name.clone(),
        path,
        read_only,
        degraded,
    })
}

fn empty_dir(
    path: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
) -> io::Result<Option<Degraded>> {
    if path.exists() {
        return Ok(None); // An earlier agent, or an earlier attempt, made it.
    }
    fs::create_dir_all(path)?;
    let mut degraded = None;
    if source.medium.as_deref() == Some("Memory") {
        let size = source
            .size_limit
            .map(|s| format!("size={}", s.value().max(1)));
        let options = std::ffi::CString::new(size.unwrap_or_default()).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        if let Err(e) =
            rustix::mount::mount("tmpfs", path, "tmpfs", flags, Some(options.as_c_str()))
        {
            let why = format!(
                "emptyDir with medium Memory is on disk: {}",
                io::Error::from(e)
            );
            degraded = Some(Degraded {
                what: "volumes.memory".into(),
                why,
            });
        }
    }
    open_to_all(path, group)?;
    Ok(degraded)
}

/// Everybody may write into a directory that has just been made, as in Kubernetes; what is made in it is `group`'s.
fn open_to_all(path: &Path, group: Option<u32>) -> io::Result<()> {
    let mode = match group {
        Some(group) => {
            std::os::unix::fs::chown(path, None, Some(group))?;
            0o2777
        }
        None => 0o777,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn kind(volume: &Volume) -> &'static str {
    if volume.ephemeral.is_some() {
        "ephemeral"
    } else if volume.csi.is_some() {
        "csi"
    } else if volume.nfs.is_some() {
        "nfs"
    } else if volume.image.is_some() {
        "image"
    } else {
        "unknown"
    }
}

/// Removes a pod's directory, volumes included. What is mounted below is unmounted first, never followed. Blocks.
///
/// # Errors
/// IO errors. May be repeated.
pub fn remove_pod_dir(dir: &PodDir) -> io::Result<()> {
    if let Ok(volumes) = fs::read_dir(dir.path().join("volumes")) {
        for volume in volumes.flatten() {
            // Fails when nothing is mounted there, or without permission; then nothing was mounted by us.
            let _ = rustix::mount::unmount(
                volume.path(),
                UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
            );
        }
    }
    match fs::remove_dir_all(dir.path()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
