//! Manifests laid over a world: what would be wanted then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::apps::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::batch::{CronJob, Job};
use setpoint_apis::core::{Node, NodeStatus, PersistentVolumeClaim, Pod, PodTemplateSpec};
use setpoint_apis::document::{self, DecodeError};
use setpoint_apis::meta::{ObjectMeta, OwnerReference};
use setpoint_apis::stored::Stored;
use setpoint_apis::{Kind, ObjectKey};
use thiserror::Error;

use crate::door;
use crate::node::NodeParts;
use crate::world::{KnownPod, World};

/// The label that tells the pods of one template of a Deployment from those of others.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The most pods of one workload that are looked at: no cluster takes more.
const MOST_PODS: usize = 200_000;

/// Why an object cannot be laid over a world.
#[derive(Debug, Error)]
pub enum ProposalError {
    /// It is no valid object of its kind.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The LimitRanges or quotas of its namespace do not let it in.
    #[error("{0}")]
    Forbidden(String),
}

/// A world with manifests laid over it.
#[derive(Clone, Debug, Default)]
pub struct Proposal {
    pub(crate) world: World,
    /// The pods that there were none of before.
    pub(crate) new: BTreeSet<ObjectKey>,
    /// What there is to say of the manifests.
    pub(crate) notes: Vec<String>,
    next: i64,
}

impl Proposal {
    /// Nothing proposed yet.
    pub fn new(world: World) -> Self {
        let newest = world.pods.values().map(|p| p.created).max();
        let next = newest.unwrap_or(0).max(world.revision) + 1;
        Self {
            world,
            next,
            ..Self::default()
        }
    }

    /// The world as it would be.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Lays a node over the world, as a file has it.
    pub fn node(&mut self, node: Node, status: NodeStatus) {
        let name = node.metadata.name.clone();
        self.world
            .nodes
            .insert(name, NodeParts::from_file(node, status));
    }

    /// Whether objects of a kind are to be laid over a world before others, which go by them: everything that makes no pods
    /// and takes no room.
    pub fn comes_first(plural: &str) -> bool {
        let later = [
            Pod::PLURAL,
            PersistentVolumeClaim::PLURAL,
            Deployment::PLURAL,
            ReplicaSet::PLURAL,
        ];
        !later.contains(&plural)
    }

    /// Lays an object over the world: workloads become pods, everything else that has a say takes the place of what was
    /// there. Kinds that have no say in where pods go change nothing.
    ///
    /// Pods are as they would be stored: with what LimitRanges give to their containers.
    ///
    /// # Errors
    /// When the text is no valid object of the kind, or the LimitRanges or quotas of its namespace do not let it in.
    pub fn apply(
        &mut self,
        plural: &str,
        key: &ObjectKey,
        text: &str,
    ) -> Result<(), ProposalError> {
        let bytes = text.as_bytes();
        match plural {
            Pod::PLURAL => self.pod(key, document::decode_keyed(key, bytes)?)?,
            PersistentVolumeClaim::PLURAL => {
                let claim: PersistentVolumeClaim = document::decode_keyed(key, bytes)?;
                door::claim(&self.world, key, &claim.spec).map_err(ProposalError::Forbidden)?;
                self.world.set(plural, key, bytes)?;
            }
            Deployment::PLURAL => self.deployment(key, bytes)?,
            ReplicaSet::PLURAL => self.replica_set(key, bytes)?,
            _ => {
                self.world.set(plural, key, bytes)?;
            }
        }
        let makes_pods = [
            StatefulSet::PLURAL,
            DaemonSet::PLURAL,
            Job::PLURAL,
            CronJob::PLURAL,
        ];
        if makes_pods.contains(&plural) {
            let note = format!("{plural} {key}: which pods it would have is not worked out here");
            self.notes.push(note);
        }
        Ok(())
    }

    fn pod(&mut self, key: &ObjectKey, mut pod: Pod) -> Result<(), ProposalError> {
        let known = self.world.pods.get(key);
        if let Some((binding, _)) = known.and_then(|known| known.binding.as_ref()) {
            let note = format!("pod {key} is on {} already and stays there", binding.node);
            self.notes.push(note);
            return Ok(());
        }
        let created = known.map(|known| known.created);
        let template = PodTemplateSpec {
            metadata: pod.metadata,
            spec: pod.spec,
        };
        let furnished = door::furnished(&self.world, &key.namespace, template);
        if created.is_none() {
            let (room, why) = door::room(&self.world, &key.namespace, &furnished, 1);
            if let Some(why) = why.filter(|_| room == 0) {
                return Err(ProposalError::Forbidden(why));
            }
        }
        (pod.metadata, pod.spec) = (furnished.template.metadata, furnished.template.spec);
        self.add(key.clone(), pod, created);
        Ok(())
    }

    fn add(&mut self, key: ObjectKey, pod: Pod, created: Option<i64>) {
        let created = created.unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        self.new.insert(key.clone());
        let known = KnownPod {
            pod: Some(Arc::new(pod)),
            created,
            ..KnownPod::default()
        };
        self.world.pods.insert(key, known);
    }

    fn deployment(&mut self, key: &ObjectKey, text: &[u8]) -> Result<(), DecodeError> {
        let mut owned = self.pods_of(key, Deployment::KIND);
        let before = self.world.deployments.get(key).cloned();
        self.world.set(Deployment::PLURAL, key, text)?;
        let Some(wanted) = self.world.deployments.get(key).cloned() else {
            return Ok(());
        };
        let template = &wanted.value.spec.template;
        let same = before
            .as_ref()
            .is_some_and(|d| d.value.spec.template == *template);
        let asked = wanted.value.spec.replicas.unwrap_or(1);
        let replicas = self.replicas(key, Deployment::PLURAL, asked);
        if before.is_some() && !same && !owned.is_empty() {
            let note = format!(
                "deployment {key} has a new template: what is shown is the end of the rollout, without its {} present pods",
                owned.len()
            );
            self.notes.push(note);
            for pod in owned.drain(..) {
                self.world.pods.remove(&pod);
            }
        }
        let owner = match self.set_of(&owned) {
            Some(set) => reference(&set),
            None => self.new_set(key, &wanted),
        };
        self.grow(key, Deployment::KIND, template, owner, owned, replicas);
        Ok(())
    }

    /// The ReplicaSet of the first of these pods.
    fn set_of(&self, pods: &[ObjectKey]) -> Option<Arc<Stored<ReplicaSet>>> {
        let key = pods.first()?;
        let pod = self.world.pods.get(key)?.pod.as_ref()?;
        let of = pod.metadata.controller()?;
        let set = ObjectKey::namespaced(key.namespace.clone(), of.name.as_str());
        self.world.sets.get(&set).cloned()
    }

    /// The ReplicaSet that the pods of a Deployment's template would belong to, under a name that no object has.
    fn new_set(&mut self, key: &ObjectKey, of: &Stored<Deployment>) -> OwnerReference {
        let name = format!("{}#new", key.name);
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: name.clone(),
                namespace: key.namespace.to_string(),
                owner_references: vec![reference(of)],
                ..ObjectMeta::default()
            },
            ..ReplicaSet::default()
        };
        let set = Stored {
            value: set,
            create_revision: 0,
            mod_revision: 0,
            version: 0,
        };
        let owner = reference(&set);
        let key = ObjectKey::namespaced(key.namespace.clone(), name);
        self.world.sets.insert(key, Arc::new(set));
        owner
    }

    fn replica_set(&mut self, key: &ObjectKey, text: &[u8]) -> Result<(), DecodeError> {
        let owned = self.pods_of(key, ReplicaSet::KIND);
        self.world.set(ReplicaSet::PLURAL, key, text)?;
        let Some(wanted) = self.world.sets.get(key).cloned() else {
            return Ok(());
        };
        let replicas = self.replicas(key, ReplicaSet::PLURAL, wanted.value.spec.replicas());
        if let Some(template) = &wanted.value.spec.template {
            let owner = reference(&wanted);
            self.grow(key, ReplicaSet::KIND, template, owner, owned, replicas);
        }
        Ok(())
    }

    /// How many pods a workload would have: what an autoscaler has decided, where there is one.
    fn replicas(&mut self, key: &ObjectKey, plural: &str, asked: i32) -> i32 {
        let scalers = self.world.scalers_of(&key.namespace);
        let wanted = self
            .world
            .wanted(&key.namespace, (plural, &*key.name), &scalers);
        match wanted {
            Some(wanted) if wanted != asked.max(0) => {
                let note =
                    format!("{plural} {key}: an autoscaler makes {wanted} of {asked} replicas");
                self.notes.push(note);
                wanted
            }
            _ => asked,
        }
    }

    /// Adds the pods that are missing, or takes away what is too much: what waits first, then the youngest.
    fn grow(
        &mut self,
        key: &ObjectKey,
        kind: &str,
        template: &PodTemplateSpec,
        owner: OwnerReference,
        mut owned: Vec<ObjectKey>,
        replicas: i32,
    ) {
        let mut replicas = usize::try_from(replicas).unwrap_or(0);
        if replicas > MOST_PODS {
            let note = format!(
                "{} {key} wants {replicas} pods; {MOST_PODS} of them are looked at",
                kind.to_lowercase()
            );
            self.notes.push(note);
            replicas = MOST_PODS;
        }
        owned.sort_by_key(|pod| {
            let known = &self.world.pods[pod];
            (known.binding.is_none(), known.created)
        });
        if owned.len() > replicas {
            let surplus = owned.split_off(replicas);
            let note = format!(
                "{} {key} has {} fewer pods",
                kind.to_lowercase(),
                surplus.len()
            );
            self.notes.push(note);
            for pod in surplus {
                self.world.pods.remove(&pod);
            }
            return;
        }
        let hash = owned.first().and_then(|pod| {
            let pod = self.world.pods[pod].pod.as_ref()?;
            pod.metadata.labels.get(TEMPLATE_HASH).cloned()
        });
        let furnished = door::furnished(&self.world, &key.namespace, template.clone());
        let missing = replicas - owned.len();
        let (room, why) = door::room(&self.world, &key.namespace, &furnished, missing);
        if let Some(why) = why {
            let note = format!(
                "{} {key}: {} of its pods would not be created: {why}",
                kind.to_lowercase(),
                missing - room
            );
            self.notes.push(note);
        }
        let template = furnished.template;
        let mut number = 0;
        for _ in 0..room {
            let pod = loop {
                number += 1;
                let name = format!("{}-{number}", key.name);
                let pod = ObjectKey::namespaced(key.namespace.clone(), name);
                if !self.world.pods.contains_key(&pod) {
                    break pod;
                }
            };
            let mut metadata = ObjectMeta {
                name: pod.name.to_string(),
                namespace: pod.namespace.to_string(),
                owner_references: vec![owner.clone()],
                ..template.metadata.clone()
            };
            if let Some(hash) = &hash {
                metadata.labels.insert(TEMPLATE_HASH.into(), hash.clone());
            }
            let made = Pod {
                metadata,
                spec: template.spec.clone(),
                ..Pod::default()
            };
            self.add(pod, made, None);
        }
    }

    /// The pods that belong to a workload and have not run to their end.
    fn pods_of(&self, owner: &ObjectKey, kind: &str) -> Vec<ObjectKey> {
        let mut owners: BTreeMap<(&str, &str), ()> = BTreeMap::from([((kind, &*owner.name), ())]);
        if kind == Deployment::KIND {
            let sets = self.world.sets.iter();
            let here = sets.filter(|(key, _)| key.namespace == owner.namespace);
            for (key, set) in here {
                let of = set.value.metadata.controller();
                if of.is_some_and(|o| o.kind == kind && *o.name == *owner.name) {
                    owners.insert((ReplicaSet::KIND, &*key.name), ());
                }
            }
        }
        let belongs = |known: &KnownPod| {
            let pod = known.pod.as_ref();
            pod.and_then(|p| p.metadata.controller())
                .is_some_and(|o| owners.contains_key(&(o.kind.as_str(), o.name.as_str())))
        };
        let pods = self.world.pods.iter();
        pods.filter(|(key, _)| key.namespace == owner.namespace)
            .filter(|(_, known)| belongs(known) && !known.is_finished())
            .map(|(key, _)| key.clone())
            .collect()
    }
}

/// What pods say of the workload that they belong to.
fn reference<K: Kind>(owner: &Stored<K>) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: owner.value.metadata().name.clone(),
        uid: owner.uid(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

/// The workload that a pod belongs to, as `deployment/web`.
pub(crate) fn owner(world: &World, pod: &Pod) -> Option<String> {
    let owner = pod.metadata.controller()?;
    let set = ObjectKey::namespaced(pod.metadata.namespace.as_str(), owner.name.as_str());
    let of_set = world
        .sets
        .get(&set)
        .filter(|_| owner.kind == ReplicaSet::KIND);
    let owner = of_set
        .and_then(|set| set.value.metadata.controller())
        .unwrap_or(owner);
    Some(format!("{}/{}", owner.kind.to_lowercase(), owner.name))
}
