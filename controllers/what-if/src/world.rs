//! What is known: nodes, pods, and everything that has a say in where pods go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use setpoint_apis::core::{
    LimitRange, Namespace, Node, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod,
    ResourceQuota,
};
use setpoint_apis::document::{self, DecodeError};
use setpoint_apis::placement::{
    PodGroup, PodGroupPhase, PodGroupStatus, Profile, Reservation, ReservationStatus,
    SchedulerProfile,
};
use setpoint_apis::policy::PodDisruptionBudget;
use setpoint_apis::records::{Binding, PodActual, PodScheduling, PodStage};
use setpoint_apis::resolve::{self, Recorded, Said, Scaled, Scalers};
use setpoint_apis::scheduling::PriorityClass;
use setpoint_apis::stored::Stored;
use setpoint_apis::{Key, KeyRange, Keyspace, Kind, ObjectKey};

use setpoint_scheduler_core::claims::Claim;

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
    /// What containers get that do not say it, and between which limits they must stay.
    pub limit_ranges: BTreeMap<ObjectKey, LimitRange>,
    /// LimitRanges that cannot be read. They could forbid anything, so no pod gets past them.
    pub unknown_limit_ranges: BTreeSet<ObjectKey>,
    /// Disruption budgets.
    pub budgets: BTreeMap<ObjectKey, PodDisruptionBudget>,
    /// Budgets that cannot be read. They could be about any pod, and allow nothing.
    pub unknown_budgets: BTreeSet<ObjectKey>,
    /// Volume claims.
    pub claims: BTreeMap<ObjectKey, KnownClaim>,
    /// Reservations.
    pub reservations: BTreeMap<ObjectKey, Reserved>,
    /// Pods, those that are gone from the desired state and still run included.
    pub pods: BTreeMap<ObjectKey, KnownPod>,
    /// ReplicaSets, by which the pods of a Deployment are found.
    pub sets: BTreeMap<ObjectKey, Arc<Stored<ReplicaSet>>>,
    /// Deployments.
    pub deployments: BTreeMap<ObjectKey, Arc<Stored<Deployment>>>,
    /// StatefulSets.
    pub stateful_sets: BTreeMap<ObjectKey, Arc<Stored<StatefulSet>>>,
    /// What the controllers of workloads say of them, by plural and key.
    pub said: BTreeMap<(&'static str, ObjectKey), Said>,
    /// Autoscalers. `None`: it cannot be read.
    pub scalers: BTreeMap<ObjectKey, Option<HorizontalPodAutoscaler>>,
    /// What they have decided. `None`: that cannot be read.
    pub scaled: BTreeMap<ObjectKey, Option<HorizontalPodAutoscalerStatus>>,
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

/// A volume claim with all that is stored about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownClaim {
    /// The document. `None`: there is none, or it cannot be read.
    pub claim: Option<Arc<Stored<PersistentVolumeClaim>>>,
    /// Whether its document cannot be read.
    pub unreadable: bool,
    /// Where it is.
    pub status: Option<PersistentVolumeClaimStatus>,
    /// Whether that cannot be read.
    pub unreadable_status: bool,
}

impl KnownClaim {
    fn state(&self) -> Claim {
        let Some(claim) = &self.claim else {
            return match self.unreadable {
                true => Claim::Unreadable,
                false => Claim::Missing,
            };
        };
        if self.unreadable_status {
            return Claim::Nowhere;
        }
        Claim::of(self.status.as_ref(), &claim.uid())
    }
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
    /// The nodes whose report cannot be read.
    pub unreadable_reports: BTreeSet<String>,
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
    /// What there is to know of a volume claim.
    pub(crate) fn claim(&self, key: &ObjectKey) -> Claim {
        self.claims
            .get(key)
            .map_or(Claim::Missing, KnownClaim::state)
    }

    /// The LimitRanges of a namespace, in the order of their names.
    pub(crate) fn limit_ranges_of(&self, namespace: &str) -> Vec<&LimitRange> {
        let all = self.limit_ranges.iter();
        all.filter(|(key, _)| *key.namespace == *namespace)
            .map(|(_, range)| range)
            .collect()
    }

    /// The workload of a plural and a name.
    fn workload(&self, namespace: &Arc<str>, plural: &str, name: &str) -> Option<Scaled<'_>> {
        let key = ObjectKey::namespaced(namespace.clone(), name);
        match plural {
            Deployment::PLURAL => {
                let found = self.deployments.get(&key)?;
                Some(self.scale(&key, found, found.value.spec.replicas))
            }
            ReplicaSet::PLURAL => {
                let found = self.sets.get(&key)?;
                Some(self.scale(&key, found, found.value.spec.replicas))
            }
            StatefulSet::PLURAL => {
                let found = self.stateful_sets.get(&key)?;
                Some(self.scale(&key, found, found.value.spec.replicas))
            }
            _ => None,
        }
    }

    fn scale<'a, K: Kind>(
        &'a self,
        key: &ObjectKey,
        workload: &'a Stored<K>,
        replicas: Option<i32>,
    ) -> Scaled<'a> {
        let said = self.said.get(&(K::PLURAL, key.clone()));
        Scaled::of(workload, replicas, said.cloned())
    }

    /// The workload that a pod belongs to and that has a number, as plural and name.
    pub(crate) fn owner<'a>(
        &'a self,
        key: &ObjectKey,
        pod: &'a Pod,
    ) -> Option<(&'static str, &'a str)> {
        resolve::scaled_owner(pod.metadata.controller(), |plural, name| {
            self.workload(&key.namespace, plural, name)
        })
    }

    /// The autoscalers of a namespace.
    pub(crate) fn scalers_of(&self, namespace: &str) -> Scalers<'_> {
        let all = self.scalers.iter();
        let here = all.filter(|(key, _)| *key.namespace == *namespace);
        Scalers::of(here.map(|(key, scaler)| (key, scaler.as_ref())))
    }

    /// How many pods a workload wants, as its controller takes it up; `None` when that is not known. `scalers` are those of
    /// its namespace.
    pub(crate) fn wanted(
        &self,
        namespace: &Arc<str>,
        (plural, name): (&str, &str),
        scalers: &Scalers<'_>,
    ) -> Option<i32> {
        let workload = self.workload(namespace, plural, name)?;
        scalers.wanted((plural, name), &workload, |key| {
            match self.scaled.get(key) {
                None => Recorded::Nothing,
                Some(None) => Recorded::Unreadable,
                Some(Some(status)) => Recorded::Is(status),
            }
        })
    }

    /// The ranges of the store that a world is made of.
    pub fn ranges(keyspace: &Keyspace) -> Vec<KeyRange> {
        let desired = [
            Node::PLURAL,
            Namespace::PLURAL,
            PriorityClass::PLURAL,
            SchedulerProfile::PLURAL,
            PodGroup::PLURAL,
            ResourceQuota::PLURAL,
            LimitRange::PLURAL,
            PodDisruptionBudget::PLURAL,
            PersistentVolumeClaim::PLURAL,
            Reservation::PLURAL,
            Pod::PLURAL,
            ReplicaSet::PLURAL,
            Deployment::PLURAL,
            StatefulSet::PLURAL,
            HorizontalPodAutoscaler::PLURAL,
        ];
        let actual = [
            Pod::PLURAL,
            Reservation::PLURAL,
            PodGroup::PLURAL,
            PersistentVolumeClaim::PLURAL,
            ReplicaSet::PLURAL,
            Deployment::PLURAL,
            StatefulSet::PLURAL,
            HorizontalPodAutoscaler::PLURAL,
        ];
        let mut ranges: Vec<KeyRange> = desired
            .iter()
            .map(|plural| keyspace.desired_range(plural, None))
            .collect();
        ranges.extend(actual.iter().map(|p| keyspace.actual_range(p, None)));
        ranges.extend([
            keyspace.binding_range(None),
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
            Key::Actual(PersistentVolumeClaim::PLURAL, claim) => {
                let known = self.claims.entry(claim).or_default();
                let read = decode(value, |status| known.status = Some(status));
                known.unreadable_status = read.is_err();
                read
            }
            Key::Actual(Deployment::PLURAL, key) => self.says::<Deployment>(key, value),
            Key::Actual(ReplicaSet::PLURAL, key) => self.says::<ReplicaSet>(key, value),
            Key::Actual(StatefulSet::PLURAL, key) => self.says::<StatefulSet>(key, value),
            Key::Actual(HorizontalPodAutoscaler::PLURAL, key) => {
                let known = self.scaled.entry(key).or_default();
                decode(value, |status| *known = Some(status))
            }
            Key::NodePod(node, pod) => {
                let known = self.pod(pod);
                let read = decode(value, |actual| {
                    known.actual.insert(node.into(), actual);
                });
                if read.is_err() {
                    known.unreadable_reports.insert(node.into());
                }
                read
            }
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
        // A status whose claim is gone, likewise.
        self.claims.retain(|_, c| c.claim.is_some() || c.unreadable);
        // Reports of nodes that a pod was on before, and of pods that are gone.
        self.pods
            .retain(|_, p| p.created > 0 || p.binding.is_some() || p.is_frozen());
    }

    fn says<K: Kind>(&mut self, key: ObjectKey, value: &[u8]) -> Result<(), DecodeError>
    where
        for<'a> Said: From<&'a K::Status>,
    {
        decode(value, |status: K::Status| {
            self.said.insert((K::PLURAL, key), Said::from(&status));
        })
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
        let read = self.set_created(plural, key, record.value, Some(record.create_revision));
        if plural == Pod::PLURAL {
            let known = self.pod(key.clone());
            known.created = record.create_revision;
            known.unreadable_document = read.is_err();
        }
        if plural == Node::PLURAL && read.is_err() {
            self.node(&key.name).unreadable = true;
        }
        if read.is_err() {
            match plural {
                ResourceQuota::PLURAL => drop(self.unknown_quotas.insert(key.clone())),
                LimitRange::PLURAL => drop(self.unknown_limit_ranges.insert(key.clone())),
                PodDisruptionBudget::PLURAL => drop(self.unknown_budgets.insert(key.clone())),
                HorizontalPodAutoscaler::PLURAL => drop(self.scalers.insert(key.clone(), None)),
                PersistentVolumeClaim::PLURAL => {
                    self.claims.entry(key.clone()).or_default().unreadable = true;
                }
                _ => {}
            }
        }
        read.map(|_| ())
    }

    /// Takes over a document of a kind that has a say in where pods go, in the place of the one before. Returns whether
    /// it is of such a kind.
    ///
    /// # Errors
    /// When it is no valid object of the kind.
    pub fn set(&mut self, plural: &str, key: &ObjectKey, text: &[u8]) -> Result<bool, DecodeError> {
        self.set_created(plural, key, text, None)
    }

    /// The same. `created`: the revision of its creation; without one that of what is there stays.
    fn set_created(
        &mut self,
        plural: &str,
        key: &ObjectKey,
        text: &[u8],
        created: Option<i64>,
    ) -> Result<bool, DecodeError> {
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
                self.unknown_budgets.remove(key);
            }
            LimitRange::PLURAL => {
                self.limit_ranges.insert(key.clone(), read(key, text)?);
                self.unknown_limit_ranges.remove(key);
            }
            PersistentVolumeClaim::PLURAL => {
                let before = self.claims.get(key).and_then(|k| k.claim.as_ref());
                let claim = stored(key, text, created, before)?;
                let known = self.claims.entry(key.clone()).or_default();
                known.claim = Some(claim);
                known.unreadable = false;
            }
            HorizontalPodAutoscaler::PLURAL => {
                let scaler = read(key, text)?;
                self.scalers.insert(key.clone(), Some(scaler));
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
            ReplicaSet::PLURAL => put(&mut self.sets, key, text, created)?,
            Deployment::PLURAL => put(&mut self.deployments, key, text, created)?,
            StatefulSet::PLURAL => put(&mut self.stateful_sets, key, text, created)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn put<K: Kind>(
    all: &mut BTreeMap<ObjectKey, Arc<Stored<K>>>,
    key: &ObjectKey,
    text: &[u8],
    created: Option<i64>,
) -> Result<(), DecodeError> {
    let object = stored(key, text, created, all.get(key))?;
    all.insert(key.clone(), object);
    Ok(())
}

/// A document with what its uid may follow from.
fn stored<K: Kind>(
    key: &ObjectKey,
    text: &[u8],
    created: Option<i64>,
    before: Option<&Arc<Stored<K>>>,
) -> Result<Arc<Stored<K>>, DecodeError> {
    let created = created.or_else(|| before.map(|b| b.create_revision));
    Ok(Arc::new(Stored {
        value: read(key, text)?,
        create_revision: created.unwrap_or(0),
        mod_revision: 0,
        version: 0,
    }))
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
