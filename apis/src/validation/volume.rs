//! Volumes.

use std::collections::BTreeSet;

use super::Findings;
use super::container::{exactly_one, relative};
use super::env::{field_path, resource_field};
use crate::core::{DownwardApiVolumeFile, KeyToPath, Volume, VolumeProjection};
use crate::names;

/// The fields of a pod that a file can hold, besides labels and annotations by key.
const FILE_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
];

/// Gives back the names of the volumes.
pub(super) fn volumes<'a>(f: &mut Findings, path: &str, list: &'a [Volume]) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (i, v) in list.iter().enumerate() {
        let path = format!("{path}[{i}]");
        f.name(format!("{path}.name"), &v.name, names::dns_label(&v.name));
        if !seen.insert(v.name.as_str()) {
            f.add(
                format!("{path}.name"),
                format!("another volume of the pod is called {:?}", v.name),
            );
        }
        volume(f, &path, v);
    }
    seen
}

fn volume(f: &mut Findings, path: &str, v: &Volume) {
    let sources = [
        ("emptyDir", v.empty_dir.is_some()),
        ("hostPath", v.host_path.is_some()),
        ("configMap", v.config_map.is_some()),
        ("secret", v.secret.is_some()),
        ("downwardAPI", v.downward_api.is_some()),
        ("projected", v.projected.is_some()),
        ("persistentVolumeClaim", v.persistent_volume_claim.is_some()),
        ("ephemeral", v.ephemeral.is_some()),
        ("csi", v.csi.is_some()),
        ("nfs", v.nfs.is_some()),
        ("image", v.image.is_some()),
    ];
    exactly_one(f, path, &sources);
    if let Some(s) = &v.empty_dir {
        let medium = s.medium.as_deref().unwrap_or_default();
        if !matches!(medium, "" | "Memory" | "HugePages") && !medium.starts_with("HugePages-") {
            f.add(
                format!("{path}.emptyDir.medium"),
                format!("{medium:?} is not Memory, HugePages or empty"),
            );
        }
        if s.size_limit.is_some_and(|l| l.is_negative()) {
            f.add(format!("{path}.emptyDir.sizeLimit"), "must not be negative");
        }
    }
    if let Some(s) = &v.host_path {
        if s.path.is_empty() {
            f.add(format!("{path}.hostPath.path"), "must not be empty");
        } else if s.path.split('/').any(|p| p == "..") {
            f.add(
                format!("{path}.hostPath.path"),
                format!("{:?} must not hold '..'", s.path),
            );
        }
        let types = [
            "",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
            "CharDevice",
            "BlockDevice",
        ];
        f.one_of(format!("{path}.hostPath.type"), s.type_.as_deref(), &types);
    }
    if let Some(s) = &v.config_map {
        f.name(
            format!("{path}.configMap.name"),
            &s.name,
            names::dns_subdomain(&s.name),
        );
        mode(f, &format!("{path}.configMap.defaultMode"), s.default_mode);
        items(f, &format!("{path}.configMap.items"), &s.items);
    }
    if let Some(s) = &v.secret {
        let name = s.secret_name.as_deref().unwrap_or_default();
        f.name(
            format!("{path}.secret.secretName"),
            name,
            names::dns_subdomain(name),
        );
        mode(f, &format!("{path}.secret.defaultMode"), s.default_mode);
        items(f, &format!("{path}.secret.items"), &s.items);
    }
    if let Some(s) = &v.downward_api {
        mode(
            f,
            &format!("{path}.downwardAPI.defaultMode"),
            s.default_mode,
        );
        files(f, &format!("{path}.downwardAPI.items"), &s.items);
    }
    if let Some(s) = &v.projected {
        mode(f, &format!("{path}.projected.defaultMode"), s.default_mode);
        for (i, source) in s.sources.iter().enumerate() {
            projection(f, &format!("{path}.projected.sources[{i}]"), source);
        }
    }
    if let Some(s) = &v.persistent_volume_claim {
        let path = format!("{path}.persistentVolumeClaim.claimName");
        f.name(path, &s.claim_name, names::dns_subdomain(&s.claim_name));
    }
}

fn projection(f: &mut Findings, path: &str, p: &VolumeProjection) {
    let sources = [
        ("configMap", p.config_map.is_some()),
        ("secret", p.secret.is_some()),
        ("downwardAPI", p.downward_api.is_some()),
        ("serviceAccountToken", p.service_account_token.is_some()),
    ];
    exactly_one(f, path, &sources);
    if let Some(s) = &p.config_map {
        f.name(
            format!("{path}.configMap.name"),
            &s.name,
            names::dns_subdomain(&s.name),
        );
        items(f, &format!("{path}.configMap.items"), &s.items);
    }
    if let Some(s) = &p.secret {
        f.name(
            format!("{path}.secret.name"),
            &s.name,
            names::dns_subdomain(&s.name),
        );
        items(f, &format!("{path}.secret.items"), &s.items);
    }
    if let Some(s) = &p.downward_api {
        files(f, &format!("{path}.downwardAPI.items"), &s.items);
    }
}

fn items(f: &mut Findings, path: &str, items: &[KeyToPath]) {
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        f.name(format!("{path}.key"), &item.key, names::data_key(&item.key));
        file(f, &format!("{path}.path"), &item.path);
        mode(f, &format!("{path}.mode"), item.mode);
    }
}

fn files(f: &mut Findings, path: &str, items: &[DownwardApiVolumeFile]) {
    for (i, item) in items.iter().enumerate() {
        let path = format!("{path}[{i}]");
        file(f, &format!("{path}.path"), &item.path);
        mode(f, &format!("{path}.mode"), item.mode);
        let refs = [
            ("fieldRef", item.field_ref.is_some()),
            ("resourceFieldRef", item.resource_field_ref.is_some()),
        ];
        exactly_one(f, &path, &refs);
        if let Some(r) = &item.field_ref {
            field_path(
                f,
                &format!("{path}.fieldRef.fieldPath"),
                &r.field_path,
                FILE_FIELDS,
            );
        }
        if let Some(r) = &item.resource_field_ref {
            if r.container_name.as_deref().unwrap_or_default().is_empty() {
                f.add(
                    format!("{path}.resourceFieldRef.containerName"),
                    "a file needs the name of the container",
                );
            }
            resource_field(f, &format!("{path}.resourceFieldRef"), r);
        }
    }
}

fn file(f: &mut Findings, path: &str, file: &str) {
    if file.is_empty() {
        f.add(path, "must not be empty");
    } else if file.starts_with("..") {
        f.add(path, format!("{file:?} must not begin with '..'"));
    } else {
        relative(f, path, file);
    }
}

fn mode(f: &mut Findings, path: &str, mode: Option<i32>) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        f.add(
            path,
            format!("{mode} is not a file mode between 0 and 0777 (511)"),
        );
    }
}
