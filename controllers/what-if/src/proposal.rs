//! Manifests laid over a world: what would be wanted then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use setpoint_apis::apps::{Deployment, ReplicaSet};
use setpoint_apis::core::{Node, NodeStatus, Pod, PodTemplateSpec};
use setpoint_apis::document::{self, DecodeError};
use setpoint_apis::meta::{ObjectMeta, OwnerReference};
use setpoint_apis::{Kind, ObjectKey};

use crate::node::NodeParts;
use crate::world::{KnownPod, World};

/// The label that tells the pods of one template of a Deployment from those of others.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The most pods of one workload that are looked at: no cluster takes more.
const MOST_PODS: usize = 200_000;

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

    /// Lays an object over the world: workloads become pods, everything else that has a say takes the place of what was
    /// there. Kinds that have no say in where pods go change nothing.
    ///
    /// # Errors
    /// When the text is no valid object of the kind.
    pub fn apply(&mut self, plural: &str, key: &ObjectKey, text: &str) -> Result<(), DecodeError> {
        let text = text.as_bytes();
        match plural {
            Pod::PLURAL => self.pod(key, document::decode_keyed(key, text)?),
            Deployment::PLURAL => self.deployment(key, document::decode_keyed(key, text)?),
            ReplicaSet::PLURAL => self.replica_set(key, document::decode_keyed(key, text)?),
            _ => {
                self.world.set(plural, key, text)?;
            }
        }
        Ok(())
    }

    fn pod(&mut self, key: &ObjectKey, pod: Pod) {
        if let Some((binding, _)) = self
            .world
            .pods
            .get(key)
            .and_then(|known| known.binding.as_ref())
        {
            let note = format!("pod {key} is on {} already and stays there", binding.node);
            self.notes.push(note);
            return;
        }
        let created = self.world.pods.get(key).map(|known| known.created);
        self.add(key.clone(), pod, created);
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

    fn deployment(&mut self, key: &ObjectKey, wanted: Deployment) {
        let owned = self.pods_of(key, Deployment::KIND);
        let before = self.world.deployments.get(key);
        let same = before.is_some_and(|d| d.spec.template == wanted.spec.template);
        let replicas = wanted.spec.replicas.unwrap_or(1);
        if before.is_some() && !same && !owned.is_empty() {
            let note = format!(
                "deployment {key} has a new template: what is shown is the end of the rollout, without its {} present pods",
                owned.len()
            );
            self.notes.push(note);
            for pod in &owned {
                self.world.pods.remove(pod);
            }
            self.grow(
                key,
                Deployment::KIND,
                &wanted.spec.template,
                Vec::new(),
                replicas,
            );
        } else {
            self.grow(
                key,
                Deployment::KIND,
                &wanted.spec.template,
                owned,
                replicas,
            );
        }
        self.world.deployments.insert(key.clone(), wanted);
    }

    fn replica_set(&mut self, key: &ObjectKey, wanted: ReplicaSet) {
        let owned = self.pods_of(key, ReplicaSet::KIND);
        let replicas = wanted.spec.replicas();
        if let Some(template) = &wanted.spec.template {
            self.grow(key, ReplicaSet::KIND, template, owned, replicas);
        }
        self.world.sets.insert(key.clone(), wanted);
    }

    /// Adds the pods that are missing, or takes away what is too much: what waits first, then the youngest.
    fn grow(
        &mut self,
        key: &ObjectKey,
        kind: &str,
        template: &PodTemplateSpec,
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
        let mut number = 0;
        for _ in owned.len()..replicas {
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
                owner_references: vec![OwnerReference {
                    kind: kind.into(),
                    name: key.name.to_string(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }],
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
                let of = set.metadata.controller();
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

/// The workload that a pod belongs to, as `deployment/web`.
pub(crate) fn owner(world: &World, pod: &Pod) -> Option<String> {
    let owner = pod.metadata.controller()?;
    let set = ObjectKey::namespaced(pod.metadata.namespace.as_str(), owner.name.as_str());
    let of_set = world
        .sets
        .get(&set)
        .filter(|_| owner.kind == ReplicaSet::KIND);
    let owner = of_set
        .and_then(|set| set.metadata.controller())
        .unwrap_or(owner);
    Some(format!("{}/{}", owner.kind.to_lowercase(), owner.name))
}
