//! What is known: nodes, pods, and everything that has a say in where pods go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::{Namespace, Node, Pod, ResourceQuota};
use setpoint_apis::document::{self, DecodeError};
use setpoint_apis::placement::{
    PodGroup, PodGroupPhase, PodGroupStatus, Profile, Reservation, ReservationStatus,
    SchedulerProfile,
};
use setpoint_apis::policy::PodDisruptionBudget;
use setpoint_apis::records::{Binding, PodActual, PodScheduling, PodStage};
use setpoint_apis::scheduling::PriorityClass;
use setpoint_apis::{Key, KeyRange, Keyspace, Kind, ObjectKey};

use crate::node::NodeParts;

/// One key of the store, as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The key.
    pub key: &'a str,
    /// The value.
    pub value: &'a [u8],
    /// The revision of its creation.
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
}

/// What is known at one revision. Documents that cannot be read are left out and named in [`World::unreadable`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// The revision; 0 for a world out of files.
    pub revision: i64,
    /// Whether a scheduler leads.
    pub scheduler: bool,
    /// The nodes.
    pub nodes: BTreeMap<String, NodeParts>,
    /// Namespaces with their labels.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Priority classes.
    pub classes: BTreeMap<String, PriorityClass>,
    /// Scheduler profiles.
    pub profiles: BTreeMap<String, Profile>,
    /// Groups of pods.
    pub groups: BTreeMap<ObjectKey, PodGroup>,
    /// Groups that have been placed once: they are left running when they lose pods, which are placed again one by one.
    pub placed_groups: BTreeSet<ObjectKey>,
    /// Quotas.
    pub quotas: BTreeMap<ObjectKey, ResourceQuota>,
    /// Quotas that cannot be read. They could limit anything, so nothing gets past them.
    pub unknown_quotas: BTreeSet<ObjectKey>,
    /// Disruption budgets.
    pub budgets: BTreeMap<ObjectKey, PodDisruptionBudget>,
    /// Reservations.
    pub reservations: BTreeMap<ObjectKey, Reserved>,
    /// Pods, those that are gone from the desired state and still run included.
    pub pods: BTreeMap<ObjectKey, KnownPod>,
    /// ReplicaSets, by which the pods of a Deployment are found.
    pub sets: BTreeMap<ObjectKey, ReplicaSet>,
    /// Deployments.
    pub deployments: BTreeMap<ObjectKey, Deployment>,
    /// Keys whose value cannot be read, with the reason.
    pub unreadable: BTreeMap<String, String>,
}

/// A reservation and where it is held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reserved {
    /// What is wanted.
    pub reservation: Reservation,
    /// What the scheduler says of it.
    pub status: Option<ReservationStatus>,
}

/// A pod with all that is stored about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownPod {
    /// The document. `None`: it was deleted, or cannot be read.
    pub pod: Option<Arc<Pod>>,
    /// The revision of the document's creation, whether or not it can be read; 0 without one. Older pods go first.
    pub created: i64,
    /// Where it is, with the revision of the binding.
    pub binding: Option<(Binding, i64)>,
    /// What nodes report, by node.
    pub actual: BTreeMap<String, PodActual>,
    /// Whether its document cannot be read.
    pub unreadable_document: bool,
    /// Whether its binding cannot be read.
    pub unreadable_binding: bool,
    /// What the scheduler says of it while it waits.
    pub scheduling: Option<PodScheduling>,
}

impl KnownPod {
    /// What the node reports that the pod is bound to.
    pub fn report(&self) -> Option<&PodActual> {
        self.actual.get(&self.binding.as_ref()?.0.node)
    }

    /// Whether it has run to its end.
    pub fn is_finished(&self) -> bool {
        self.report().is_some_and(has_ended)
    }

    /// Whether the scheduler decides nothing about it, and displaces it for nobody: what is stored of it cannot be read.
    pub fn is_frozen(&self) -> bool {
        self.unreadable_document || self.unreadable_binding
    }

    /// The node whose room it takes. Where the binding cannot be read that is the node that says it runs there.
    pub fn node(&self) -> Option<&str> {
        match &self.binding {
            Some((binding, _)) => (!self.is_finished()).then_some(binding.node.as_str()),
            None if self.is_frozen() => {
                let mut reports = self.actual.iter();
                let there = reports.find(|(_, actual)| !has_ended(actual));
                there.map(|(node, _)| node.as_str())
            }
            None => None,
        }
    }

    /// The other node whose room it takes while it is moved.
    pub fn other_node(&self) -> Option<&str> {
        let (binding, _) = self.binding.as_ref()?;
        let other = binding.other_node()?;
        let takes = binding.moving.is_some() || self.actual.contains_key(other);
        takes.then_some(other)
    }
}

fn has_ended(actual: &PodActual) -> bool {
    matches!(actual.stage, PodStage::Succeeded | PodStage::Failed)
}

impl World {
    /// The ranges of the store that a world is made of.
    pub fn ranges(keyspace: &Keyspace) -> Vec<KeyRange> {
        let desired = [
            Node::PLURAL,
            Namespace::PLURAL,
            PriorityClass::PLURAL,
            SchedulerProfile::PLURAL,
            PodGroup::PLURAL,
            ResourceQuota::PLURAL,
            PodDisruptionBudget::PLURAL,
            Reservation::PLURAL,
            Pod::PLURAL,
            ReplicaSet::PLURAL,
            Deployment::PLURAL,
        ];
        let mut ranges: Vec<KeyRange> = desired
            .iter()
            .map(|plural| keyspace.desired_range(plural, None))
            .collect();
        ranges.extend([
            keyspace.binding_range(None),
            keyspace.actual_range(Pod::PLURAL, None),
            keyspace.actual_range(Reservation::PLURAL, None),
            keyspace.actual_range(PodGroup::PLURAL, None),
            keyspace.node_actual_range(None),
            keyspace.health_range(),
            keyspace.leader_range(),
        ]);
        ranges
    }

    /// Takes note of a key. Keys that have no say in where pods go are passed over.
    pub fn take(&mut self, keyspace: &Keyspace, record: Record<'_>) {
        let Ok(key) = keyspace.split(record.key) else {
            return;
        };
        let value = record.value;
        let taken = match key {
            Key::Desired(plural, object) => self.take_desired(plural, &object, record),
            Key::Binding(pod) => {
                let known = self.pod(pod);
                let read = decode(value, |binding| {
                    known.binding = Some((binding, record.mod_revision));
                });
                known.unreadable_binding = read.is_err();
                read
            }
            Key::Actual(Pod::PLURAL, pod) => {
                decode(value, |said| self.pod(pod).scheduling = Some(said))
            }
            Key::Actual(Reservation::PLURAL, reservation) => decode(value, |status| {
                self.reservations.entry(reservation).or_default().status = Some(status);
            }),
            Key::Actual(PodGroup::PLURAL, group) => decode(value, |status: PodGroupStatus| {
                if status.phase == PodGroupPhase::Placed {
                    self.placed_groups.insert(group);
                }
            }),
            Key::NodePod(node, pod) => decode(value, |actual| {
                self.pod(pod).actual.insert(node.into(), actual);
            }),
            Key::NodeAlive(node) => {
                self.node(node).session = Some(record.create_revision);
                Ok(())
            }
            Key::NodeStatus(node) => {
                let read = decode(value, |status| self.node(node).status = Some(status));
                self.node(node).unreadable |= read.is_err();
                read
            }
            Key::Health(node) => {
                let read = decode(value, |health| self.node(node).health = Some(health));
                self.node(node).unreadable |= read.is_err();
                read
            }
            Key::Leader("scheduler", _) => {
                self.scheduler = true;
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = taken {
            self.unreadable
                .insert(record.key.to_owned(), error.to_string());
        }
    }

    /// What follows from all keys together. To be called once, after the last one.
    pub fn complete(&mut self) {
        // A status whose reservation is gone says nothing any more.
        self.reservations
            .retain(|_, r| !r.reservation.metadata.name.is_empty());
        // Reports of nodes that a pod was on before, and of pods that are gone.
        self.pods
            .retain(|_, p| p.created > 0 || p.binding.is_some() || p.is_frozen());
    }

    fn pod(&mut self, key: ObjectKey) -> &mut KnownPod {
        self.pods.entry(key).or_default()
    }

    fn node(&mut self, name: &str) -> &mut NodeParts {
        self.nodes.entry(name.to_owned()).or_default()
    }

    fn take_desired(
        &mut self,
        plural: &str,
        key: &ObjectKey,
        record: Record<'_>,
    ) -> Result<(), DecodeError> {
        let read = self.set(plural, key, record.value);
        if plural == Pod::PLURAL {
            let known = self.pod(key.clone());
            known.created = record.create_revision;
            known.unreadable_document = read.is_err();
        }
        if plural == Node::PLURAL && read.is_err() {
            self.node(&key.name).unreadable = true;
        }
        if plural == ResourceQuota::PLURAL && read.is_err() {
            self.unknown_quotas.insert(key.clone());
        }
        read.map(|_| ())
    }

    /// Takes over a document of a kind that has a say in where pods go, in the place of the one before. Returns whether
    /// it is of such a kind.
    ///
    /// # Errors
    /// When it is no valid object of the kind.
    pub fn set(&mut self, plural: &str, key: &ObjectKey, text: &[u8]) -> Result<bool, DecodeError> {
        let name = || key.name.to_string();
        match plural {
            Node::PLURAL => self.node(&key.name).desired = Some(read(key, text)?),
            Namespace::PLURAL => {
                let namespace: Namespace = read(key, text)?;
                let labels = BTreeMap::clone(&namespace.metadata.labels);
                self.namespaces.insert(name(), labels);
            }
            PriorityClass::PLURAL => {
                self.classes.insert(name(), read(key, text)?);
            }
            SchedulerProfile::PLURAL => {
                let profile: SchedulerProfile = read(key, text)?;
                self.profiles.insert(name(), Profile::from(&profile.spec));
            }
            PodGroup::PLURAL => {
                self.groups.insert(key.clone(), read(key, text)?);
            }
            ResourceQuota::PLURAL => {
                self.quotas.insert(key.clone(), read(key, text)?);
                self.unknown_quotas.remove(key);
            }
            PodDisruptionBudget::PLURAL => {
                self.budgets.insert(key.clone(), read(key, text)?);
            }
            Reservation::PLURAL => {
                self.reservations
                    .entry(key.clone())
                    .or_default()
                    .reservation = read(key, text)?;
            }
            Pod::PLURAL => {
                let pod = read(key, text)?;
                let known = self.pod(key.clone());
                known.pod = Some(Arc::new(pod));
                known.unreadable_document = false;
            }
            ReplicaSet::PLURAL => {
                self.sets.insert(key.clone(), read(key, text)?);
            }
            Deployment::PLURAL => {
                self.deployments.insert(key.clone(), read(key, text)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn read<K: Kind>(key: &ObjectKey, text: &[u8]) -> Result<K, DecodeError> {
    document::decode_keyed(key, text)
}

fn decode<T: serde::de::DeserializeOwned>(
    value: &[u8],
    take: impl FnOnce(T),
) -> Result<(), DecodeError> {
    document::decode_value(value).map(take)
}
