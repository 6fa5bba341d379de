//! Which files a volume that is made from objects has: ConfigMap, Secret, downward API, and all of them in one.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use setpoint_apis::core::{
    ConfigMapProjection, DownwardApiVolumeFile, KeyToPath, SecretProjection, Volume,
    VolumeProjection,
};
use setpoint_apis::defaults::DEFAULT_MODE;

use super::VolumeProblem;
use super::payload::{Files, Payload};
use crate::content::Content;
use crate::env::{self, ConfigError, PodFacts};

/// Whether a volume's files may change while the pod runs.
pub fn reads_content(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The files, or `None` for a volume of another kind.
pub(super) fn files(
    facts: &PodFacts<'_>,
    content: &Content,
    volume: &Volume,
) -> Result<Option<Files>, VolumeProblem> {
    let mut files = Files::new();
    if let Some(s) = &volume.config_map {
        let source = ConfigMapProjection {
            name: s.name.clone(),
            items: s.items.clone(),
            optional: s.optional,
        };
        config_map(&mut files, facts, content, &source, s.default_mode)?;
    } else if let Some(s) = &volume.secret {
        let name = s.secret_name.clone().unwrap_or_default();
        let source = SecretProjection {
            name,
            items: s.items.clone(),
            optional: s.optional,
        };
        secret(&mut files, facts, content, &source, s.default_mode)?;
    } else if let Some(s) = &volume.downward_api {
        downward(&mut files, facts, &s.items, s.default_mode)?;
    } else if let Some(s) = &volume.projected {
        for source in &s.sources {
            projected(&mut files, facts, content, source, s.default_mode)?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files))
}

fn projected(
    files: &mut Files,
    facts: &PodFacts<'_>,
    content: &Content,
    source: &VolumeProjection,
    mode: Option<i32>,
) -> Result<(), VolumeProblem> {
    if let Some(s) = &source.config_map {
        config_map(files, facts, content, s, mode)?;
    }
    if let Some(s) = &source.secret {
        secret(files, facts, content, s, mode)?;
    }
    if let Some(s) = &source.downward_api {
        downward(files, facts, &s.items, mode)?;
    }
    if source.service_account_token.is_some() {
        return Err(VolumeProblem::Unsupported("projected.serviceAccountToken"));
    }
    Ok(())
}

fn config_map(
    files: &mut Files,
    facts: &PodFacts<'_>,
    content: &Content,
    source: &ConfigMapProjection,
    mode: Option<i32>,
) -> Result<(), VolumeProblem> {
    let optional = source.optional == Some(true);
    match content.config_map(&facts.pod.metadata.namespace, &source.name) {
        Some(object) => keys(
            files,
            &object.entries(),
            &source.items,
            optional,
            mode,
            |key| missing(facts, "ConfigMap", &source.name, key),
        ),
        None if optional => Ok(()),
        None => Err(ConfigError::NotFound {
            kind: "configmap",
            name: source.name.clone(),
        }
        .into()),
    }
}

fn secret(
    files: &mut Files,
    facts: &PodFacts<'_>,
    content: &Content,
    source: &SecretProjection,
    mode: Option<i32>,
) -> Result<(), VolumeProblem> {
    let optional = source.optional == Some(true);
    match content.secret(&facts.pod.metadata.namespace, &source.name) {
        Some(object) => keys(
            files,
            &object.entries(),
            &source.items,
            optional,
            mode,
            |key| missing(facts, "Secret", &source.name, key),
        ),
        None if optional => Ok(()),
        None => Err(ConfigError::NotFound {
            kind: "secret",
            name: source.name.clone(),
        }
        .into()),
    }
}

fn missing(facts: &PodFacts<'_>, kind: &'static str, name: &str, key: &str) -> ConfigError {
    ConfigError::NoKey {
        kind,
        namespace: facts.pod.metadata.namespace.clone(),
        name: name.to_owned(),
        key: key.to_owned(),
    }
}

/// All keys, or the chosen ones at the chosen paths.
fn keys(
    files: &mut Files,
    entries: &BTreeMap<&str, &[u8]>,
    items: &[KeyToPath],
    optional: bool,
    mode: Option<i32>,
    missing: impl Fn(&str) -> ConfigError,
) -> Result<(), VolumeProblem> {
    if items.is_empty() {
        for (key, bytes) in entries {
            add(files, key, bytes.to_vec(), mode)?;
        }
        return Ok(());
    }
    for item in items {
        match entries.get(item.key.as_str()) {
            Some(bytes) => add(files, &item.path, bytes.to_vec(), item.mode.or(mode))?,
            None if optional => {}
            None => return Err(missing(&item.key).into()),
        }
    }
    Ok(())
}

fn downward(
    files: &mut Files,
    facts: &PodFacts<'_>,
    items: &[DownwardApiVolumeFile],
    mode: Option<i32>,
) -> Result<(), VolumeProblem> {
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            env::field(facts, &reference.field_path)?
        } else if let Some(reference) = &item.resource_field_ref {
            env::resource(facts, &facts.pod.spec, None, reference)?
        } else {
            String::new()
        };
        add(files, &item.path, text.into_bytes(), item.mode.or(mode))?;
    }
    Ok(())
}

fn add(
    files: &mut Files,
    path: &str,
    bytes: Vec<u8>,
    mode: Option<i32>,
) -> Result<(), VolumeProblem> {
    let plain = Path::new(path)
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    if path.is_empty() || !plain || path.starts_with("..") {
        return Err(VolumeProblem::Escapes(path.to_owned()));
    }
    let mode = u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777;
    files.insert(path.into(), Payload { bytes, mode });
    Ok(())
}
