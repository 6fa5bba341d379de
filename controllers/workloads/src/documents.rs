//! The documents that these controllers write: pods and ReplicaSets.

use std::sync::Arc;

use setpoint_apis::apps::{Deployment, ReplicaSet, ReplicaSetSpec};
use setpoint_apis::core::{Pod, PodTemplateSpec};
use setpoint_apis::{Kind, ObjectKey, ObjectMeta, OwnerReference, document};

use crate::daemonset::fit::only_on;
use crate::deployment::plan::{Change, HASH_LABEL, NewSet};

/// A reference to the object of kind `K` that manages another one.
pub fn controller_reference<K: Kind>(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: name.into(),
        uid: uid.into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Writes the pods of one template. They differ in `metadata.name` alone, and `spec` comes last: so the spec is
/// serialised once here, and readers can share its decoding by the bytes of the block.
pub struct PodWriter {
    head: String,
    tail: String,
}

/// Stands for the name while the template is serialised; no name has capitals.
const NAME: &str = "NAME";

impl PodWriter {
    /// Pods in `namespace`, of `template`, managed by `owner`.
    pub fn new(namespace: &str, template: &PodTemplateSpec, owner: OwnerReference) -> Self {
        let metadata = ObjectMeta {
            name: NAME.into(),
            namespace: namespace.into(),
            labels: template.metadata.labels.clone(),
            annotations: template.metadata.annotations.clone(),
            owner_references: vec![owner],
            ..ObjectMeta::default()
        };
        let text = document::encode(&Pod {
            metadata,
            spec: template.spec.clone(),
            ..Pod::default()
        });
        // `name` is the first field of the metadata, so the first occurrence is that one.
        let (head, tail) = text.split_once(NAME).unwrap_or((&text, ""));
        Self {
            head: head.into(),
            tail: tail.into(),
        }
    }

    /// The document of the pod of this name.
    pub fn document(&self, name: &str) -> String {
        [&self.head, name, &self.tail].concat()
    }
}

/// Writes the pods of a template of which each is for one node. They differ in `metadata.name` and in the name of the
/// node, in the affinity that pins them to it; so this is serialised once as well, and readers decode it once.
pub struct PinnedPodWriter {
    head: String,
    middle: String,
    tail: String,
}

impl PinnedPodWriter {
    /// Pods in `namespace`, of `template`, managed by `owner`. What the template requires of nodes is replaced by the
    /// pin: whoever chose the node has looked at it.
    pub fn new(namespace: &str, template: &PodTemplateSpec, owner: OwnerReference) -> Self {
        let plain = PodWriter::new(namespace, template, owner.clone());
        // Stands for the node while the template is serialised; no name has capitals.
        let mut mark = "NODE".to_owned();
        while plain.head.contains(&mark) || plain.tail.contains(&mark) {
            mark.push('X');
        }
        let mut template = template.clone();
        let spec = Arc::make_mut(&mut template.spec);
        let affinity = spec.affinity.get_or_insert_default();
        let affinity = affinity.node_affinity.get_or_insert_default();
        affinity.required_during_scheduling_ignored_during_execution = Some(only_on(&mark));
        let PodWriter { head, tail } = PodWriter::new(namespace, &template, owner);
        let (middle, tail) = tail.split_once(&mark).unwrap_or((&tail, ""));
        Self {
            head,
            middle: middle.into(),
            tail: tail.into(),
        }
    }

    /// The document of the pod of this name on this node.
    pub fn document(&self, name: &str, node: &str) -> String {
        // In quotes: the name of a node may look like a number.
        [&self.head, name, &self.middle, "'", node, "'", &self.tail].concat()
    }
}

/// The ReplicaSet of a Deployment's present template, as it is pinned.
pub fn new_replica_set(
    key: &ObjectKey,
    uid: &str,
    deployment: &Deployment,
    template: &PodTemplateSpec,
    new: &NewSet,
) -> ReplicaSet {
    let spec = &deployment.spec;
    let mut template = template.clone();
    template
        .metadata
        .labels
        .insert(HASH_LABEL.into(), new.hash.clone());
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .insert(HASH_LABEL.into(), new.hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: new.name.clone(),
            namespace: (*key.namespace).into(),
            labels: template.metadata.labels.clone(),
            annotations: new.annotations.clone().into(),
            owner_references: vec![controller_reference::<Deployment>(&key.name, uid)],
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(new.replicas),
            selector,
            template: Some(template),
            min_ready_seconds: spec.min_ready_seconds,
        },
        ..ReplicaSet::default()
    }
}

/// A ReplicaSet with its new size and annotations.
pub fn changed_replica_set(set: &ReplicaSet, change: &Change) -> ReplicaSet {
    let mut set = set.clone();
    set.metadata.annotations = change.annotations.clone().into();
    set.spec.replicas = Some(change.replicas);
    set.spec.min_ready_seconds = Some(change.min_ready_seconds);
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: &str = r##"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {note: "NAME: yes"}}
    spec:
      nodeSelector: {"1e3": "on"}
      containers:
      - name: c
        image: host
        command: [sh, -c, "echo NAME\nexec sleep 1000\n"]
        args: ["yes", "0x10", "null", "", "# no comment", "a: b"]
        env: [{name: N, value: "0123"}]
        resources: {requests: {cpu: "0.5", memory: 1Gi}, limits: {cpu: "2"}}
        readinessProbe: {httpGet: {port: http}}
        ports: [{name: http, containerPort: 8080}]
      volumes: [{name: d, emptyDir: {sizeLimit: 1G}}]
"##;

    fn deployment() -> Deployment {
        document::decode(DEPLOYMENT.as_bytes()).unwrap()
    }

    fn owner() -> OwnerReference {
        controller_reference::<ReplicaSet>("web-1", "u")
    }

    #[test]
    fn pods_read_back_as_their_template_and_differ_in_the_name_alone() {
        let template = deployment().spec.template;
        let writer = PodWriter::new("default", &template, owner());
        let (a, b) = (
            writer.document("web-1-aaaaa"),
            writer.document("web-1-bbbbb"),
        );
        let pod: Pod = document::decode(a.as_bytes()).unwrap();
        assert_eq!(pod.spec, template.spec);
        assert_eq!(
            (&pod.metadata.labels, &*pod.metadata.name),
            (&template.metadata.labels, "web-1-aaaaa")
        );
        assert_eq!(pod.metadata.annotations["note"], "NAME: yes");
        assert_eq!(pod.metadata.controller(), Some(&owner()));
        let spec = |text: &str| text.split_once("\nspec:\n").unwrap().1.to_owned();
        assert_eq!(spec(&a), spec(&b));
        assert!(
            spec(&a).lines().all(|l| l.starts_with(' ') || l.is_empty()),
            "spec comes last:\n{a}"
        );
        assert_eq!(a.replace("aaaaa", "bbbbb"), b);
    }

    #[test]
    fn pinned_pods_read_back_as_their_template_on_their_node_alone() {
        let mut template = deployment().spec.template;
        let spec = Arc::make_mut(&mut template.spec);
        spec.containers[0].args.push("NODE NODEX".into());
        spec.affinity = serde_yaml::from_str(
            "{nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: \
             [{matchExpressions: [{key: disk, operator: Exists}]}]}, \
             preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: \
             {matchExpressions: [{key: NODE, operator: Exists}]}}]}, podAntiAffinity: {}}",
        )
        .unwrap();
        let writer = PinnedPodWriter::new("default", &template, owner());
        for node in ["n1", "12", "1e3", "true", "rack-1.host-7"] {
            let text = writer.document("web-1-aaaaa", node);
            let pod: Pod = document::decode(text.as_bytes()).unwrap();
            let mut spec = template.spec.clone();
            let affinity = Arc::make_mut(&mut spec).affinity.as_mut().unwrap();
            let nodes = affinity.node_affinity.as_mut().unwrap();
            nodes.required_during_scheduling_ignored_during_execution = Some(only_on(node));
            assert_eq!(pod.spec, spec);
            assert_eq!(pod.metadata.name, "web-1-aaaaa");
        }
    }

    #[test]
    fn a_replica_set_reads_back_with_the_template_of_its_deployment() {
        let d = deployment();
        let new = NewSet {
            name: "web-5f7".into(),
            hash: "5f7".into(),
            collisions: 0,
            replicas: 2,
            annotations: [].into(),
        };
        let set = new_replica_set(
            &ObjectKey::namespaced("default", "web"),
            "u",
            &d,
            &d.spec.template,
            &new,
        );
        let read: ReplicaSet = document::decode(document::encode(&set).as_bytes()).unwrap();
        assert_eq!(read, set);
        let mut template = read.spec.template.unwrap();
        assert_eq!(
            template.metadata.labels.remove(HASH_LABEL).as_deref(),
            Some("5f7")
        );
        assert_eq!(template, d.spec.template);
        assert_eq!(read.spec.selector.match_labels[HASH_LABEL], "5f7");
    }
}
