//! Where a container sees its volumes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use setpoint_apis::core::{Container, VolumeMount};

use super::PreparedVolume;
use crate::env::{ConfigError, expand_with};
use crate::spec::BindMount;

/// The variable that holds a volume's path on the host: `SETPOINT_VOLUME_MY_DATA` for `my-data`.
pub fn variable_name(volume: &str) -> String {
    format!(
        "SETPOINT_VOLUME_{}",
        volume.to_ascii_uppercase().replace(['-', '.'], "_")
    )
}

/// A container's mounts, outer ones before those inside them. Blocks: a `subPath` that is missing is made.
///
/// # Errors
/// [`ConfigError::Definition`] for a mount that cannot be.
pub fn mounts(
    container: &Container,
    volumes: &[PreparedVolume],
    env: &[(String, String)],
) -> Result<Vec<BindMount>, ConfigError> {
    let mut all = Vec::new();
    for mount in &container.volume_mounts {
        all.push(one(mount, volumes, env)?);
    }
    all.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(all)
}

fn one(
    mount: &VolumeMount,
    volumes: &[PreparedVolume],
    env: &[(String, String)],
) -> Result<BindMount, ConfigError> {
    let wrong =
        |why: String| ConfigError::Definition(format!("volumeMount {:?}: {why}", mount.name));
    let Some(volume) = volumes.iter().find(|v| v.name == mount.name) else {
        return Err(wrong("the pod has no such volume".to_owned()));
    };
    let target = PathBuf::from(&mount.mount_path);
    let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    if !target.is_absolute() || target == Path::new("/") || !target.components().all(plain) {
        return Err(wrong(format!(
            "mountPath {:?} must be an absolute path without '..', and not /",
            mount.mount_path
        )));
    }
    let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => Some(path.clone()),
        (_, Some(expression)) if !expression.is_empty() => Some(expand_with(env, expression)),
        _ => None,
    };
    let source = match sub_path {
        Some(path) => sub_path_in(volume, &path).map_err(wrong)?,
        None => volume.path.clone(),
    };
    Ok(BindMount {
        source,
        target,
        read_only: mount.read_only == Some(true) || volume.read_only,
    })
}

fn sub_path_in(volume: &PreparedVolume, sub_path: &str) -> Result<PathBuf, String> {
    if !Path::new(sub_path)
        .components()
        .all(|c| matches!(c, Component::Normal(_)))
    {
        return Err(format!(
            "subPath {sub_path:?} must be relative and must not contain '..'"
        ));
    }
    let path = volume.path.join(sub_path);
    if fs::symlink_metadata(&path).is_err() {
        if volume.read_only {
            return Err(format!("subPath {sub_path:?} does not exist"));
        }
        let made = fs::create_dir_all(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o777)));
        made.map_err(|e| format!("subPath {sub_path:?}: {e}"))?;
    }
    // A link inside the volume may point anywhere.
    let (real, root) = (fs::canonicalize(&path), fs::canonicalize(&volume.path));
    match (real, root) {
        (Ok(real), Ok(root)) if real.starts_with(&root) => Ok(real),
        (Ok(_), Ok(_)) => Err(format!("subPath {sub_path:?} leads out of the volume")),
        (Err(e), _) | (_, Err(e)) => Err(format!("subPath {sub_path:?}: {e}")),
    }
}
