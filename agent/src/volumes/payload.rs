//! Writes a set of files so that a reader sees the old set or the new one, never a mixture.
//!
//! The files are in a hidden directory of their own, `..data` is a symbolic link to it, and every name in the volume
//! is a link through `..data`. A new set is written aside, and one rename of `..data` puts it in place. This is what
//! programs that watch mounted ConfigMaps expect.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

/// The files of a volume by their path in it.
pub(super) type Files = BTreeMap<PathBuf, Payload>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

const DATA: &str = "..data";

/// Makes `volume` hold exactly `files`. Says whether anything had to be changed.
pub(super) fn write(volume: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    let current = fs::read_link(volume.join(DATA)).ok();
    if current.is_some() && holds(&volume.join(DATA), files, group)? {
        return Ok(false);
    }
    let fresh = fresh_name(volume)?;
    let dir = volume.join(&fresh);
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    for (path, payload) in files {
        let target = dir.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &payload.bytes)?;
        if let Some(group) = group {
            chown(&target, None, Some(group))?;
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(mode(payload, group)))?;
    }
    let link = volume.join("..data_tmp");
    let _ = fs::remove_file(&link);
    symlink(&fresh, &link)?;
    fs::rename(&link, volume.join(DATA))?;
    link_names(volume, files)?;
    if let Some(old) = current {
        fs::remove_dir_all(volume.join(old))?;
    }
    Ok(true)
}

fn mode(payload: &Payload, group: Option<u32>) -> u32 {
    if group.is_some() {
        payload.mode | 0o440
    } else {
        payload.mode
    }
}

fn holds(dir: &Path, files: &Files, group: Option<u32>) -> io::Result<bool> {
    let mut count = 0;
    let mut pending = vec![dir.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                count += 1;
            }
        }
    }
    if count != files.len() {
        return Ok(false);
    }
    for (path, payload) in files {
        let target = dir.join(path);
        match fs::metadata(&target) {
            Ok(meta) if meta.permissions().mode() & 0o7777 == mode(payload, group) => {}
            _ => return Ok(false),
        }
        if fs::read(&target)? != payload.bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn fresh_name(volume: &Path) -> io::Result<String> {
    let mut highest = 0;
    for entry in fs::read_dir(volume)? {
        let name = entry?.file_name();
        if let Some(number) = name
            .to_str()
            .and_then(|n| n.strip_prefix("..set-")?.parse::<u64>().ok())
        {
            highest = highest.max(number);
        }
    }
    Ok(format!("..set-{}", highest + 1))
}

/// Every first component of a path gets a link; links to what is no longer there go.
fn link_names(volume: &Path, files: &Files) -> io::Result<()> {
    let names: BTreeSet<PathBuf> = files
        .keys()
        .filter_map(|p| match p.components().next() {
            Some(Component::Normal(first)) => Some(PathBuf::from(first)),
            _ => None,
        })
        .collect();
    for name in &names {
        if fs::symlink_metadata(volume.join(name)).is_err() {
            symlink(Path::new(DATA).join(name), volume.join(name))?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let name = PathBuf::from(entry?.file_name());
        if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
            fs::remove_file(volume.join(name))?;
        }
    }
    Ok(())
}
