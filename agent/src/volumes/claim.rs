//! Volumes that are a claim's: a directory per claim in the agent's data directory, which outlives the pods.
//!
//! The scheduler sends all pods of a claim to one node, so the directory is there for all of them. It is called after the
//! claim's uid: a claim that is made again under the same name begins with nothing.
//!
//! A placement of a pod keeps the directory that it began with, whatever becomes of the claim: a link in the pod's own
//! directory says which one that is. So the links say which directories are in use, also to the next agent, and go with
//! the pod's directory, which is removed when nothing of the pod runs any more.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use setpoint_apis::core::PersistentVolumeClaimVolumeSource;

use super::{VolumeProblem, host, open_to_all};
use crate::content::Content;
use crate::env::{ConfigError, PodFacts};
use crate::layout::{DataDir, PodDir};
use crate::spec::SPEC_FILE;

/// From a volume of a pod to the directory of a claim.
const LINK: &str = "../../../claims";

/// The directory of a claim, which is made when it is not there.
///
/// # Errors
/// The claim is not there (yet), or the disk.
pub(super) fn prepare(
    dir: &PodDir,
    facts: &PodFacts<'_>,
    content: &Content,
    source: &PersistentVolumeClaimVolumeSource,
    volume: &str,
    group: Option<u32>,
) -> Result<PathBuf, VolumeProblem> {
    let link = dir.volume(volume);
    // From the look at the claim until the link stands no directory is given up: the claim may be going just now.
    let _held = content.hold_claims();
    let name = match linked(&link) {
        Some(name) => name,
        None => {
            let claim = content.claim(&facts.pod.metadata.namespace, &source.claim_name);
            let uid = claim.as_ref().and_then(|c| c.metadata.uid.as_deref());
            let missing = || ConfigError::NotFound {
                kind: "persistentvolumeclaim",
                name: source.claim_name.clone(),
            };
            let path = dir.data().claim(uid.ok_or_else(missing)?);
            let name = path.file_name().unwrap_or_default().to_owned();
            make_link(&link, &name).map_err(host(&link))?;
            name
        }
    };
    let path = dir.data().claims().join(name);
    make(&path, group).map_err(host(&path))?;
    Ok(path)
}

fn make(path: &Path, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    // One that is empty was made just now, or by an agent that ended before it had come further.
    if fs::read_dir(path)?.next().is_none() {
        open_to_all(path, group)?;
    }
    Ok(())
}

fn make_link(link: &Path, name: &OsStr) -> io::Result<()> {
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent)?;
    }
    symlink(Path::new(LINK).join(name), link)
}

/// The name of the claim's directory that a volume is; `None` when it is none, or not yet.
fn linked(volume: &Path) -> Option<OsString> {
    let target = fs::read_link(volume).ok()?;
    let name = target.strip_prefix(LINK).ok()?;
    // One name, and none of `.` and `..`.
    (name.file_name()? == name.as_os_str()).then(|| name.as_os_str().to_owned())
}

/// Which of the directories with these names pods use that are here, whether they run or have yet to be cleaned up.
///
/// # Errors
/// Something cannot be read: then it is not known.
pub(super) fn in_use(data: &DataDir, names: &BTreeSet<OsString>) -> io::Result<BTreeSet<OsString>> {
    let mut used = BTreeSet::new();
    for pod in data.existing_pods()? {
        for volume in entries(&pod.path().join("volumes"))? {
            used.extend(linked(&volume).filter(|name| names.contains(name)));
        }
        // Containers that an agent without links has started.
        for container in entries(&pod.path().join("containers"))? {
            for attempt in entries(&container)? {
                let spec = match fs::read(attempt.join(SPEC_FILE)) {
                    Ok(spec) => spec,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                let speaks_of = |name: &&OsString| {
                    let path = data.claims().join(name);
                    let path = path.as_os_str().as_encoded_bytes();
                    spec.windows(path.len()).any(|part| part == path)
                };
                used.extend(names.iter().filter(speaks_of).cloned());
            }
        }
    }
    Ok(used)
}

/// What is in a directory that need not exist.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        // A file where a directory is looked for has nothing in it either.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}
