//! Volumes that are a claim's: a directory per claim in the agent's data directory, which outlives the pods.
//!
//! The scheduler sends all pods of a claim to one node, so the directory is there for all of them. It is called after the
//! claim's uid: a claim that is made again under the same name begins with nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use setpoint_apis::core::PersistentVolumeClaimVolumeSource;

use super::{VolumeProblem, host, open_to_all};
use crate::content::Content;
use crate::env::{ConfigError, PodFacts};
use crate::layout::PodDir;

/// The directory of a claim, which is made when it is not there.
///
/// # Errors
/// The claim is not there (yet), or the disk.
pub(super) fn prepare(
    dir: &PodDir,
    facts: &PodFacts<'_>,
    content: &Content,
    source: &PersistentVolumeClaimVolumeSource,
    group: Option<u32>,
) -> Result<PathBuf, VolumeProblem> {
    let missing = || ConfigError::NotFound {
        kind: "persistentvolumeclaim",
        name: source.claim_name.clone(),
    };
    let claim = content.claim(&facts.pod.metadata.namespace, &source.claim_name);
    let uid = claim.as_ref().and_then(|c| c.metadata.uid.as_deref());
    let path = dir.data().claim(uid.ok_or_else(missing)?);
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
