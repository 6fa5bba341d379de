//! Whether actual matches desired.

mod budgets;
mod jobs;
mod namespaces;
mod pods;
mod quotas;
mod rollouts;
mod room;

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::apps::{
    ControllerRevision, DaemonSetStatus, Deployment, DeploymentStatus, ReplicaSet, StatefulSet,
    StatefulSetStatus,
};
use setpoint_apis::core::{ConfigMap, PersistentVolumeClaim, Pod};
use setpoint_apis::records::{Binding, PodActual};
use setpoint_apis::{Key, Kind, ObjectKey, document};
use setpoint_store::list::{List, list_all};

use crate::world::World;

use budgets::Budgets;
use jobs::Jobs;
use namespaces::Namespaces;
use quotas::Quotas;
use rollouts::Rollouts;
use room::Room;

/// The most shortcomings that are named.
const MOST: usize = 10;

/// What a Deployment's controller makes, and the controllers behind it: what it cannot have it waits for.
const OF_DEPLOYMENTS: [&str; 3] = [Pod::PLURAL, ReplicaSet::PLURAL, ConfigMap::PLURAL];
/// The same of a StatefulSet's.
const OF_STATEFUL_SETS: [&str; 4] = [
    Pod::PLURAL,
    ControllerRevision::PLURAL,
    ConfigMap::PLURAL,
    PersistentVolumeClaim::PLURAL,
];

#[derive(serde::Deserialize)]
struct Owned {
    metadata: OwnedMeta,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnedMeta {
    #[serde(default)]
    owner_references: Vec<Owner>,
}

#[derive(serde::Deserialize)]
struct Owner {
    name: String,
}

/// What is missing or too much; empty when actual matches desired.
pub(crate) async fn unmet(world: &World) -> Vec<String> {
    let mut state = State::default();
    for range in [
        world.keyspace.state(),
        world.keyspace.work_range(None),
        world.keyspace.intent_range(None),
    ] {
        let listed = list_all(&world.store, List::new(range.start, range.end)).await;
        let Ok((listed, _)) = listed else {
            return vec!["the store cannot be read".to_owned()];
        };
        for kv in &listed {
            if let Ok(key) = world.keyspace.split(&kv.key) {
                state.namespaces.take(&key, &kv.key);
                state.take(&key, &kv.value);
            }
        }
    }
    let mut unmet = state.unmet();
    let bound = state.bindings.keys();
    let bound = bound.filter(|pod| !state.has_ended(pod)).count();
    let running = world.running();
    if running != bound {
        unmet.push(format!(
            "{running} pods run, {bound} are bound and have not ended"
        ));
    }
    unmet.truncate(MOST);
    unmet
}

#[derive(Default)]
struct State {
    deployments: BTreeMap<ObjectKey, (u32, Option<DeploymentStatus>)>,
    stateful_sets: BTreeMap<ObjectKey, (u32, Option<StatefulSetStatus>)>,
    /// ReplicaSet to Deployment.
    replica_sets: BTreeMap<ObjectKey, ObjectKey>,
    /// ReplicaSets that nothing owns, with how many pods they are to have.
    own_replica_sets: BTreeMap<ObjectKey, u32>,
    /// DaemonSets, with what they say.
    daemon_sets: BTreeMap<ObjectKey, DaemonSetStatus>,
    config_maps: BTreeMap<ObjectKey, ConfigMap>,
    /// What nodes were given of ConfigMaps.
    content: BTreeMap<(String, ObjectKey), ConfigMap>,
    room: Room,
    jobs: Jobs,
    budgets: Budgets,
    namespaces: Namespaces,
    quotas: Quotas,
    rollouts: Rollouts,
    /// Pod to ReplicaSet.
    pods: BTreeMap<ObjectKey, Option<ObjectKey>>,
    bindings: BTreeMap<ObjectKey, Binding>,
    actual: BTreeMap<ObjectKey, Vec<(String, PodActual)>>,
    work: BTreeSet<(ObjectKey, String)>,
    /// Pods of which something is asked.
    intents: BTreeSet<ObjectKey>,
    broken: Vec<String>,
}

impl State {
    fn take(&mut self, key: &Key<'_>, value: &[u8]) {
        let owner = |object: &ObjectKey| {
            let owned: Owned = document::decode_value(value).ok()?;
            let owner = owned.metadata.owner_references.into_iter().next()?;
            Some(ObjectKey::namespaced(object.namespace.clone(), owner.name))
        };
        self.broken.extend(self.room.take(key, value));
        self.broken.extend(self.jobs.take(key, value));
        self.broken.extend(self.budgets.take(key, value));
        self.broken.extend(self.quotas.take(key, value));
        self.rollouts.take(key, value);
        match key {
            Key::Desired("configmaps", object) => {
                match document::decode_keyed::<ConfigMap>(object, value) {
                    Ok(map) => drop(self.config_maps.insert(object.clone(), map)),
                    Err(_) => self
                        .broken
                        .push(format!("configmap {object} cannot be read")),
                }
            }
            Key::WorkContent(node, "configmaps", object) => {
                match document::decode_work::<ConfigMap>(value) {
                    Ok((_, map)) => {
                        let place = ((*node).to_owned(), object.clone());
                        self.content.insert(place, map);
                    }
                    Err(_) => self
                        .broken
                        .push(format!("{object} on {node} cannot be read")),
                }
            }
            Key::Desired("deployments", object) => {
                match document::decode_keyed::<Deployment>(object, value) {
                    Ok(deployment) => {
                        let replicas = deployment.spec.replicas.unwrap_or(1);
                        let entry = self.deployments.entry(object.clone()).or_default();
                        entry.0 = u32::try_from(replicas).unwrap_or(0);
                    }
                    Err(_) => self
                        .broken
                        .push(format!("deployment {object} cannot be read")),
                }
            }
            Key::Actual("deployments", object) => {
                let entry = self.deployments.entry(object.clone()).or_default();
                entry.1 = document::decode_value(value).ok();
            }
            Key::Desired("daemonsets", object) => {
                self.daemon_sets.entry(object.clone()).or_default();
            }
            Key::Actual("daemonsets", object) => match document::decode_value(value) {
                Ok(status) => drop(self.daemon_sets.insert(object.clone(), status)),
                Err(_) => self
                    .broken
                    .push(format!("status of daemonset {object} cannot be read")),
            },
            Key::Desired("statefulsets", object) => {
                match document::decode_keyed::<StatefulSet>(object, value) {
                    Ok(set) => {
                        let entry = self.stateful_sets.entry(object.clone()).or_default();
                        entry.0 = u32::try_from(set.spec.replicas()).unwrap_or(0);
                    }
                    Err(_) => self
                        .broken
                        .push(format!("statefulset {object} cannot be read")),
                }
            }
            Key::Actual("statefulsets", object) => {
                let entry = self.stateful_sets.entry(object.clone()).or_default();
                entry.1 = document::decode_value(value).ok();
            }
            Key::Desired("replicasets", object) => {
                if let Some(owner) = owner(object) {
                    self.replica_sets.insert(object.clone(), owner);
                } else if let Ok(set) = document::decode_keyed::<ReplicaSet>(object, value) {
                    let replicas = u32::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
                    self.own_replica_sets.insert(object.clone(), replicas);
                } else {
                    self.broken
                        .push(format!("replicaset {object} cannot be read"));
                }
            }
            Key::Desired("pods", object) => drop(self.pods.insert(object.clone(), owner(object))),
            Key::Binding(object) => match document::decode_value(value) {
                Ok(binding) => drop(self.bindings.insert(object.clone(), binding)),
                Err(_) => self.broken.push(format!("binding {object} cannot be read")),
            },
            Key::NodePod(node, object) => match document::decode_value(value) {
                Ok(actual) => {
                    let records = self.actual.entry(object.clone()).or_default();
                    records.push(((*node).to_owned(), actual));
                }
                Err(_) => self
                    .broken
                    .push(format!("record of {object} cannot be read")),
            },
            Key::WorkPod(node, object) => {
                self.work.insert((object.clone(), (*node).to_owned()));
            }
            Key::Intent { pod, .. } => drop(self.intents.insert(pod.clone())),
            _ => {}
        }
    }

    fn unmet(&self) -> Vec<String> {
        let mut unmet = self.broken.clone();
        unmet.extend(self.namespaces.unmet());
        let mut per_deployment: BTreeMap<&ObjectKey, u32> = BTreeMap::new();
        let mut per_set: BTreeMap<&ObjectKey, u32> = BTreeMap::new();
        // Workloads some pods of which wait for room, or for a quota, rightly.
        let mut wait = BTreeSet::new();
        for (pod, owner) in &self.pods {
            let deployment = owner.as_ref().and_then(|rs| self.replica_sets.get(rs));
            if let Some(deployment) = deployment {
                *per_deployment.entry(deployment).or_default() += 1;
            }
            if let Some(set) = owner {
                *per_set.entry(set).or_default() += 1;
            }
            if self.bindings.contains_key(pod) {
                let why = self.not_running(pod);
                let of_set = deployment.or(owner.as_ref());
                if why.is_some() && of_set.is_some_and(|set| self.rollouts.may_fail(set)) {
                    continue;
                }
                unmet.extend(why.map(|why| format!("pod {pod} {why}")));
                continue;
            }
            // What has ended takes no room.
            let bound = self.bindings.iter().filter(|(pod, _)| !self.has_ended(pod));
            let bound = bound.map(|(pod, b)| (pod, b.node.as_str()));
            let others = bound.clone().map(|(pod, _)| pod);
            let why = match self.quotas.hold_back(pod, others) {
                true => self.room.unexplained(pod),
                false => self.room.should_be_bound(pod, bound),
            };
            match why {
                Some(why) => unmet.push(format!("pod {pod} {why}")),
                None => {
                    wait.extend(deployment);
                    wait.extend(owner.as_ref().filter(|o| self.jobs.is_one(o)));
                    // In order, one that waits keeps those after it from coming.
                    wait.extend(
                        owner
                            .as_ref()
                            .filter(|o| self.stateful_sets.contains_key(*o)),
                    );
                }
            }
            if unmet.len() >= MOST {
                return unmet;
            }
        }
        let bound = self.bindings.keys().filter(|pod| !self.has_ended(pod));
        unmet.extend(self.quotas.unmet(bound));
        wait.extend(
            self.deployments
                .keys()
                .filter(|key| self.is_full(key, &OF_DEPLOYMENTS)),
        );
        wait.extend(
            self.stateful_sets
                .keys()
                .filter(|key| self.is_full(key, &OF_STATEFUL_SETS)),
        );
        for (set, replicas) in &self.own_replica_sets {
            let pods = per_set.get(set).copied().unwrap_or(0);
            if pods != *replicas {
                unmet.push(format!("replicaset {set} has {pods} pods of {replicas}"));
            }
        }
        for ((node, object), given) in &self.content {
            let wanted = self.config_maps.get(object);
            if wanted.is_none_or(|wanted| wanted.data != given.data) {
                unmet.push(format!("{node} was given another configmap {object}"));
            }
        }
        for (deployment, (replicas, status)) in &self.deployments {
            // How far a rollout comes that waits for room is its own affair.
            if wait.contains(deployment) || self.rollouts.may_fail(deployment) {
                continue;
            }
            let pods = per_deployment.get(deployment).copied().unwrap_or(0);
            if pods != *replicas {
                unmet.push(format!(
                    "deployment {deployment} has {pods} pods of {replicas}"
                ));
            }
            let available = status
                .as_ref()
                .map_or(0, |s| s.available_replicas.unwrap_or(0));
            if u32::try_from(available).ok() != Some(*replicas) {
                unmet.push(format!(
                    "deployment {deployment} says that {available} of {replicas} are available"
                ));
            }
        }
        unmet.extend(self.unmet_daemons());
        let runs = |pod: &ObjectKey| !self.has_ended(pod) && self.not_running(pod).is_none();
        unmet.extend(self.budgets.unmet(runs));
        unmet.extend(
            self.jobs
                .unmet(|job| wait.contains(job) || self.is_full(job, &[Pod::PLURAL])),
        );
        for (set, (replicas, status)) in &self.stateful_sets {
            if wait.contains(set) || self.rollouts.may_fail(set) {
                continue;
            }
            let first = (0..*replicas).map(|i| format!("{}-{i}", set.name));
            let missing = first.filter(|name| {
                let pod = ObjectKey::namespaced(set.namespace.clone(), name.as_str());
                !self.pods.contains_key(&pod)
            });
            unmet.extend(missing.map(|name| format!("pod {name} of statefulset {set} is missing")));
            let says = |s: &StatefulSetStatus| {
                // What was rolled back runs as what it was before.
                let updated = match s.rollback {
                    Some(_) => s.current_replicas,
                    None => s.updated_replicas,
                };
                let all = [s.available_replicas, updated, Some(s.replicas)];
                let all = all.map(|n| u32::try_from(n.unwrap_or(0)).ok());
                all == [Some(*replicas); 3]
            };
            if !status.as_ref().is_some_and(says) {
                unmet.push(format!(
                    "statefulset {set} does not say that all {replicas} are updated and available"
                ));
            }
        }
        let stray = |what: &str, pod: &ObjectKey| {
            (!self.pods.contains_key(pod)).then(|| format!("{what} of {pod}, which nobody wants"))
        };
        unmet.extend(self.bindings.keys().filter_map(|pod| stray("binding", pod)));
        unmet.extend(self.actual.keys().filter_map(|pod| stray("record", pod)));
        unmet.extend(self.intents.iter().filter_map(|pod| stray("request", pod)));
        for (pod, node) in &self.work {
            if self.bindings.get(pod).is_none_or(|b| b.node != *node) {
                unmet.push(format!("work of {pod} on {node}, where it is not bound"));
            }
        }
        unmet
    }

    /// Nodes without the one pod that they should have of a DaemonSet. That pods are bound and run is seen elsewhere.
    fn unmet_daemons(&self) -> Vec<String> {
        let mut unmet = Vec::new();
        let all = self.daemon_sets.iter();
        for (set, status) in all.filter(|(set, _)| !self.rollouts.may_fail(set)) {
            let own = |owner: &Option<ObjectKey>| owner.as_ref() == Some(set);
            let own = self.pods.iter().filter(|(_, owner)| own(owner));
            let pins: Vec<_> = own.map(|(pod, _)| self.room.pin(pod)).collect();
            for node in self.room.with_daemons() {
                let pods = pins.iter().filter(|pin| **pin == Some(node)).count();
                if pods != 1 {
                    unmet.push(format!("daemonset {set} has {pods} pods on {node}"));
                }
            }
            let (nodes, n) = (self.room.with_daemons().count(), status.number_available);
            if usize::try_from(n.unwrap_or(0)).ok() != Some(nodes) {
                unmet.push(format!(
                    "daemonset {set} says that {} of {nodes} are available",
                    n.unwrap_or(0)
                ));
            }
        }
        unmet
    }

    /// Whether the quotas of an object's namespace have no room for more of one of some kinds.
    fn is_full(&self, key: &ObjectKey, of: &[&str]) -> bool {
        let own = self.pods.keys().filter(|p| p.namespace == key.namespace);
        let ended = own.filter(|pod| self.has_ended(pod)).count();
        let ended = i64::try_from(ended).unwrap_or(i64::MAX);
        self.quotas.is_full(&key.namespace, of, ended)
    }
}
