//! Which ConfigMaps and Secrets a pod reads.

use std::collections::BTreeMap;

use super::pod::PodSpec;

pub(super) fn config_maps(spec: &PodSpec) -> BTreeMap<&str, bool> {
    let mut found = BTreeMap::new();
    for c in spec.all_containers() {
        for from in c.env_from.iter().filter_map(|e| e.config_map_ref.as_ref()) {
            note(&mut found, &from.name, from.optional);
        }
        for key in c
            .env
            .iter()
            .filter_map(|e| e.value_from.as_ref()?.config_map_key_ref.as_ref())
        {
            note(&mut found, &key.name, key.optional);
        }
    }
    for v in &spec.volumes {
        if let Some(source) = &v.config_map {
            note(&mut found, &source.name, source.optional);
        }
        for source in v
            .projected
            .iter()
            .flat_map(|p| &p.sources)
            .filter_map(|s| s.config_map.as_ref())
        {
            note(&mut found, &source.name, source.optional);
        }
    }
    found
}

pub(super) fn secrets(spec: &PodSpec) -> BTreeMap<&str, bool> {
    let mut found = BTreeMap::new();
    for c in spec.all_containers() {
        for from in c.env_from.iter().filter_map(|e| e.secret_ref.as_ref()) {
            note(&mut found, &from.name, from.optional);
        }
        for key in c
            .env
            .iter()
            .filter_map(|e| e.value_from.as_ref()?.secret_key_ref.as_ref())
        {
            note(&mut found, &key.name, key.optional);
        }
    }
    for v in &spec.volumes {
        if let Some(source) = &v.secret {
            note(
                &mut found,
                source.secret_name.as_deref().unwrap_or_default(),
                source.optional,
            );
        }
        for source in v
            .projected
            .iter()
            .flat_map(|p| &p.sources)
            .filter_map(|s| s.secret.as_ref())
        {
            note(&mut found, &source.name, source.optional);
        }
    }
    found
}

pub(super) fn rename(
    spec: &mut PodSpec,
    config_map: &dyn Fn(&str) -> Option<String>,
    secret: &dyn Fn(&str) -> Option<String>,
) {
    let config = |name: &mut String| {
        if let Some(new) = config_map(name) {
            *name = new;
        }
    };
    let secret = |name: &mut String| {
        if let Some(new) = secret(name) {
            *name = new;
        }
    };
    for c in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        for from in &mut c.env_from {
            from.config_map_ref
                .iter_mut()
                .for_each(|r| config(&mut r.name));
            from.secret_ref.iter_mut().for_each(|r| secret(&mut r.name));
        }
        for from in c.env.iter_mut().filter_map(|e| e.value_from.as_mut()) {
            let keys = from.config_map_key_ref.iter_mut();
            keys.for_each(|r| config(&mut r.name));
            from.secret_key_ref
                .iter_mut()
                .for_each(|r| secret(&mut r.name));
        }
    }
    for v in &mut spec.volumes {
        v.config_map.iter_mut().for_each(|s| config(&mut s.name));
        let secrets = v.secret.iter_mut();
        secrets
            .filter_map(|s| s.secret_name.as_mut())
            .for_each(secret);
        for source in v.projected.iter_mut().flat_map(|p| &mut p.sources) {
            source
                .config_map
                .iter_mut()
                .for_each(|s| config(&mut s.name));
            source.secret.iter_mut().for_each(|s| secret(&mut s.name));
        }
    }
}

/// An object is optional only when every reference to it is.
fn note<'a>(found: &mut BTreeMap<&'a str, bool>, name: &'a str, optional: Option<bool>) {
    if !name.is_empty() {
        let optional = optional.unwrap_or(false);
        found
            .entry(name)
            .and_modify(|o| *o &= optional)
            .or_insert(optional);
    }
}
