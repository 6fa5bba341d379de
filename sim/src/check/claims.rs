//! Pods run where the data of their claims is, a claim stays where it is, and no directory is ordered to go while the
//! claim is there that it belongs to. Claims that nobody deletes go only when scaling down takes them.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::apps::{ClaimRetention, StatefulSet};
use setpoint_apis::core::{PersistentVolumeClaim, PersistentVolumeClaimStatus};
use setpoint_apis::keyspace::uid_name;
use setpoint_apis::{Key, Keyspace, Kind, ObjectKey, document};

use super::fences::collected;
use super::known::Held;
use super::{Change, Finding};

#[derive(Debug, Default)]
pub(super) struct ClaimCheck {
    /// The uids of the claims that there are.
    uids: BTreeMap<ObjectKey, String>,
    /// Where their directories are: node and uid.
    homes: BTreeMap<ObjectKey, (String, String)>,
    /// Which claims pods use.
    uses: BTreeMap<ObjectKey, Vec<ObjectKey>>,
    /// The nodes that there are documents of.
    nodes: BTreeSet<String>,
    /// What StatefulSets ask for.
    sets: BTreeMap<ObjectKey, Held<Option<Size>>>,
    keyspace: Keyspace,
    /// Where pods are bound.
    bound: BTreeMap<ObjectKey, String>,
}

/// What a StatefulSet says that decides over claims.
#[derive(Debug, PartialEq)]
struct Size {
    replicas: i32,
    /// Claims go with pods that scaling down removes.
    goes: bool,
    /// The names of its templates of claims.
    templates: Vec<String>,
}

impl Size {
    fn of(set: &StatefulSet) -> Self {
        let retention = set.spec.persistent_volume_claim_retention_policy.as_ref();
        let templates = set.spec.volume_claim_templates.iter();
        Self {
            replicas: set.spec.replicas(),
            goes: retention.and_then(|r| r.when_scaled) == Some(ClaimRetention::Delete),
            templates: templates.map(|t| t.metadata.name.clone()).collect(),
        }
    }
}

impl ClaimCheck {
    /// Whether scaling down may have taken a claim: it is called `<template>-<set>-<ordinal>`.
    fn may_go(&self, claim: &ObjectKey, now: u64) -> bool {
        let named = claim.name.rsplit_once('-');
        let Some((rest, ordinal)) = named.and_then(|(r, n)| Some((r, n.parse::<i32>().ok()?)))
        else {
            return false;
        };
        let of_namespace = |set: &ObjectKey| set.namespace == claim.namespace;
        let mut sets = self.sets.iter().filter(|(set, _)| of_namespace(set));
        sets.any(|(set, sizes)| {
            let named = |template: &String| format!("{template}-{}", set.name) == rest;
            let mut sizes = sizes.at(now).flatten();
            sizes.any(|s| s.goes && ordinal >= s.replicas && s.templates.iter().any(named))
        })
    }

    /// Takes note of a change, and says what is wrong with it.
    pub(super) fn enter(&mut self, change: &Change<'_>, found: &mut Vec<Finding>) {
        let mut wrong = |message| found.push(("claim of data", message));
        match (&change.key, change.entry.value) {
            (Key::Desired(PersistentVolumeClaim::PLURAL, key), Some(value)) => {
                // One that does not parse is there all the same.
                if let Ok(claim) = document::decode_keyed::<PersistentVolumeClaim>(key, value) {
                    let (since, plural) =
                        (change.entry.create_revision, PersistentVolumeClaim::PLURAL);
                    let uid = claim.metadata.uid_since(since, plural, key);
                    self.uids.insert(key.clone(), uid);
                }
            }
            (Key::Desired(PersistentVolumeClaim::PLURAL, key), None) => {
                self.uids.remove(key);
                let (now, entry) = (change.entry.millis, change.entry);
                let scaled = change.by_controllers() && !collected(&self.keyspace, entry);
                if scaled && !self.may_go(key, now) {
                    wrong(format!("{key} was deleted, and no scaling down takes it"));
                }
            }
            (Key::Desired(StatefulSet::PLURAL, key), value) => {
                let read = value.map(|v| document::decode_keyed::<StatefulSet>(key, v));
                // One that does not parse is frozen.
                if let Ok(set) = read.transpose() {
                    let sizes = self.sets.entry(key.clone()).or_insert_with(Held::nothing);
                    sizes.set(change.entry.millis, set.map(|set| Size::of(&set)));
                }
            }
            (Key::Actual(PersistentVolumeClaim::PLURAL, key), Some(value)) => {
                let status = document::decode_value::<PersistentVolumeClaimStatus>(value).ok();
                let Some((node, uid)) = status.and_then(|s| s.node.zip(s.uid)) else {
                    return;
                };
                let before = self.homes.insert(key.clone(), (node.clone(), uid.clone()));
                if let Some((from, of)) = before.filter(|(from, of)| *of == uid && *from != node)
                    && self.nodes.contains(&from)
                {
                    wrong(format!(
                        "{key}, {of}, is said to be on {node}, and is on {from}"
                    ));
                }
            }
            (Key::Actual(PersistentVolumeClaim::PLURAL, key), None) => {
                let Some((node, uid)) = self.homes.remove(key) else {
                    return;
                };
                if self.uids.get(key) == Some(&uid) && self.nodes.contains(&node) {
                    wrong(format!(
                        "that {key} is on {node} was forgotten while it is there"
                    ));
                }
            }
            (Key::WorkTombstone(node, name), Some(_)) => {
                // Where it was before its node was removed for good, nothing of it is left.
                let elsewhere = |key: &ObjectKey, uid: &String| {
                    let home = self.homes.get(key).filter(|(_, of)| of == uid);
                    home.is_some_and(|(home, _)| **home != **node)
                };
                let mut there = self.uids.iter();
                let named = |(key, uid): &(&ObjectKey, &String)| {
                    uid_name(uid) == *name && !elsewhere(key, uid)
                };
                if let Some((key, _)) = there.find(named) {
                    wrong(format!(
                        "the directory of {key} on {node} is to go, and the claim is there"
                    ));
                }
            }
            (Key::Desired("nodes", key), value) => match value {
                Some(_) => drop(self.nodes.insert(key.name.to_string())),
                None => drop(self.nodes.remove(&*key.name)),
            },
            (Key::Desired("pods", key), Some(_)) => {
                let claims = change.pod.iter().flat_map(|pod| pod.spec.claim_names());
                let claims = claims.map(|name| ObjectKey::namespaced(key.namespace.clone(), name));
                self.uses.insert(key.clone(), claims.collect());
            }
            (Key::Desired("pods", key), None) => drop(self.uses.remove(key)),
            (Key::Binding(pod), Some(_)) => {
                let Some(binding) = &change.binding else {
                    return;
                };
                let before = self.bound.insert(pod.clone(), binding.node.clone());
                if before.as_ref() == Some(&binding.node) {
                    return;
                }
                for claim in self.uses.get(pod).into_iter().flatten() {
                    let home = self.homes.get(claim);
                    let home = home.filter(|(_, uid)| self.uids.get(claim) == Some(uid));
                    if let Some((node, _)) = home.filter(|(node, _)| **node != *binding.node) {
                        let to = &binding.node;
                        wrong(format!(
                            "{pod} was bound to {to}, and its claim {claim} is on {node}"
                        ));
                    }
                }
            }
            (Key::Binding(pod), None) => drop(self.bound.remove(pod)),
            _ => {}
        }
    }
}
