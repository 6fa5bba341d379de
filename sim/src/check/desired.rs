//! Nothing that is wanted is lost, and nothing is garbage-collected because of a document that does not parse.

use std::collections::BTreeMap;

use setpoint_apis::{Key, ObjectKey, ObjectMeta, OwnerReference, document};

use super::{Change, Check, Finding};
use crate::world::Role;

/// What is wanted, by plural and key.
#[derive(Debug, Default)]
pub(super) struct DesiredCheck {
    objects: BTreeMap<(Box<str>, ObjectKey), Wanted>,
}

#[derive(Debug)]
struct Wanted {
    create_revision: i64,
    /// The owners, as the last document said that could be read.
    owners: Vec<(Box<str>, ObjectKey)>,
    /// The document cannot be read now.
    broken: bool,
    /// The document says itself that it is to be deleted, once what it is about is over.
    expires: bool,
}

/// What is read of a document here, and no more.
#[derive(serde::Deserialize)]
struct Owned {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

impl Owned {
    fn of(metadata: &ObjectMeta) -> Self {
        let owner = |o: &OwnerReference| OwnerName {
            kind: o.kind.clone(),
            name: o.name.clone(),
        };
        Self {
            metadata: Meta {
                owner_references: metadata.owner_references.iter().map(owner).collect(),
            },
            spec: Spec::default(),
        }
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    ttl_seconds_after_finished: Option<i32>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    owner_references: Vec<OwnerName>,
}

#[derive(serde::Deserialize)]
struct OwnerName {
    kind: String,
    name: String,
}

impl Check for DesiredCheck {
    fn enter(&mut self, change: &Change<'_>, found: &mut Vec<Finding>) {
        let (entry, key) = (change.entry, &change.key);
        let Key::Desired(plural, object) = key else {
            return;
        };
        let id = (Box::from(*plural), object.clone());
        match entry.value {
            Some(value) => {
                let read = match &change.pod {
                    Some(pod) => Some(Owned::of(&pod.metadata)),
                    None => document::decode_value::<Owned>(value).ok(),
                };
                let owners = |owned: &Owned| {
                    let references = owned.metadata.owner_references.iter();
                    references
                        .map(|o| {
                            let plural = format!("{}s", o.kind.to_lowercase());
                            let name = o.name.as_str();
                            let key = ObjectKey::namespaced(object.namespace.clone(), name);
                            (plural.into(), key)
                        })
                        .collect()
                };
                let wanted = self.objects.entry(id).or_insert_with(|| Wanted {
                    create_revision: entry.create_revision,
                    owners: Vec::new(),
                    broken: false,
                    expires: false,
                });
                wanted.broken = read.is_none();
                if let Some(read) = &read {
                    wanted.owners = owners(read);
                    wanted.expires = read.spec.ttl_seconds_after_finished.is_some();
                }
            }
            None => {
                let Some(gone) = self.objects.remove(&id) else {
                    return;
                };
                let process = entry.sent.map_or("", |s| &*s.process);
                if Role::of(process) == Role::User {
                    return;
                }
                if let Some(why) = self.lost(plural, &gone) {
                    found.push((
                        "nothing lost",
                        format!("{process} deleted {}: {why}", entry.key),
                    ));
                }
            }
        }
    }
}

impl DesiredCheck {
    /// Why an object should not have been deleted by a controller.
    fn lost(&self, plural: &str, gone: &Wanted) -> Option<String> {
        if plural == "jobs" && gone.expires && !gone.broken {
            return None;
        }
        if gone.owners.is_empty() {
            return Some("it has no owner, so only users delete it".to_owned());
        }
        if gone.broken {
            return Some("its document cannot be read".to_owned());
        }
        for (owner_plural, owner) in &gone.owners {
            let Some(present) = self.objects.get(&(owner_plural.clone(), owner.clone())) else {
                continue;
            };
            // Another object of the same name owns nothing of the former's.
            if present.create_revision > gone.create_revision {
                continue;
            }
            if present.broken {
                return Some(format!("its owner {owner_plural}/{owner} cannot be read"));
            }
            // A controller that owns something may do with less of it.
            let parts = [
                "pods",
                "jobs",
                "replicasets",
                "controllerrevisions",
                "configmaps",
                "secrets",
            ];
            if !parts.contains(&plural) {
                return Some(format!("its owner {owner_plural}/{owner} is there"));
            }
        }
        None
    }
}
