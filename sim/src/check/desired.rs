//! Nothing that is wanted is lost, and nothing is garbage-collected because of a document that does not parse.
//!
//! The collector deletes what nothing owns any more, and what is on its way out with its owner. Who owns something may do
//! with less of it: what that must not be, the checks of rollouts and Jobs say.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::batch::JobStatus;
use setpoint_apis::records::Deletion;
use setpoint_apis::{Key, Keyspace, ObjectKey, ObjectMeta, OwnerReference, document};

use super::fences::collected;
use super::{Change, Check, Finding};
use crate::world::Role;

/// What is wanted, by plural and key.
#[derive(Debug, Default)]
pub(super) struct DesiredCheck {
    keyspace: Keyspace,
    objects: BTreeMap<Id, Wanted>,
    /// The objects that are to be deleted, with whether their dependents go first.
    deletions: BTreeMap<Id, bool>,
    /// Jobs of which it is said that they have ended.
    ended: BTreeSet<ObjectKey>,
}

type Id = (Box<str>, ObjectKey);

#[derive(Debug)]
struct Wanted {
    create_revision: i64,
    /// The owners, as the last document said that could be read.
    owners: Vec<Id>,
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
        let (plural, object) = match key {
            Key::Desired(plural, object) => (plural, object),
            Key::Deletion(plural, object) => {
                let id = (Box::from(*plural), object.clone());
                let record = entry.value.map(document::decode_value::<Deletion>);
                match record {
                    Some(Ok(record)) => {
                        let foreground = record.propagation_policy == "Foreground";
                        self.deletions.insert(id, foreground);
                    }
                    Some(Err(_)) => {}
                    None => {
                        self.deletions.remove(&id);
                    }
                }
                return;
            }
            Key::Actual("jobs", object) => {
                let status = entry.value.map(document::decode_value::<JobStatus>);
                if status.is_some_and(|s| s.is_ok_and(|s| s.is_finished())) {
                    self.ended.insert(object.clone());
                } else {
                    self.ended.remove(object);
                }
                return;
            }
            _ => return,
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
                let collected = collected(&self.keyspace, entry);
                if let Some(why) = self.lost(&id, &gone, collected) {
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
    /// Why an object should not have been deleted by a controller. `collected`: it was the garbage collector.
    fn lost(&self, id: &Id, gone: &Wanted, collected: bool) -> Option<String> {
        let (plural, object) = (&*id.0, &id.1);
        if plural == "jobs" && gone.expires && !gone.broken && !collected {
            return (!self.ended.contains(object)).then(|| "it has not ended".to_owned());
        }
        // Which of them scaling down takes, the check of claims says.
        if plural == "persistentvolumeclaims" && !collected {
            return None;
        }
        let namespace = (
            "namespaces".into(),
            ObjectKey::cluster(object.namespace.clone()),
        );
        let homeless = !object.namespace.is_empty() && !self.objects.contains_key(&namespace);
        if collected && (homeless || self.deletions.contains_key(id)) {
            return None;
        }
        if gone.owners.is_empty() {
            return Some("it has no owner, so only users delete it".to_owned());
        }
        if gone.broken {
            return Some("its document cannot be read".to_owned());
        }
        let mut owners = gone.owners.iter().filter_map(|owner| {
            let present = self.objects.get(owner)?;
            // Another object of the same name owns nothing of the former's.
            let same = present.create_revision <= gone.create_revision;
            same.then_some((owner, present))
        });
        if let Some(((plural, name), _)) = owners.clone().find(|(_, present)| present.broken) {
            return Some(format!("its owner {plural}/{name} cannot be read"));
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
        let stays = owners.find(|(owner, _)| self.deletions.get(*owner) != Some(&true));
        let ((owner_plural, owner), _) = stays.filter(|_| collected || !parts.contains(&plural))?;
        Some(format!("its owner {owner_plural}/{owner} is there"))
    }
}
