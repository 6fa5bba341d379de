//! The documents that a StatefulSet makes: pods with an identity, and the claims that go with it.

use std::sync::Arc;

use setpoint_apis::apps::StatefulSet;
use setpoint_apis::core::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use setpoint_apis::{Kind, ObjectKey, ObjectMeta, OwnerReference};

use super::plan::{NewClaim, NewPod};
use crate::revisions::REVISION_LABEL;

/// The label of a pod that holds its name.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label of a pod that holds its number.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// The annotation of a claim that names the StatefulSet whose controller made it: what does not have it is a user's, and
/// is never changed or deleted.
pub const CLAIM_OF: &str = "setpoint.dev/claim-of";

/// The number of a pod of this name, when it is one of the StatefulSet's.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The pod of a number.
pub fn pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    owner: OwnerReference,
    new: &NewPod,
) -> Pod {
    let mut labels = template.metadata.labels.clone();
    labels.insert(POD_NAME.into(), new.name.clone());
    labels.insert(POD_INDEX.into(), new.ordinal.to_string());
    labels.insert(REVISION_LABEL.into(), new.revision.clone());
    let mut spec = template.spec.clone();
    let inner = Arc::make_mut(&mut spec);
    inner.hostname = Some(new.name.clone());
    inner.subdomain = set.spec.service_name.clone().filter(|s| !s.is_empty());
    for claim in &set.spec.volume_claim_templates {
        let volume = Volume {
            name: claim.metadata.name.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.claim_name(&new.name),
                read_only: None,
            }),
            ..Volume::default()
        };
        // The claim comes before a volume of the template that is called like it, as in Kubernetes.
        inner.volumes.retain(|v| v.name != volume.name);
        inner.volumes.push(volume);
    }
    Pod {
        metadata: ObjectMeta {
            name: new.name.clone(),
            namespace: set.metadata.namespace.clone(),
            labels,
            annotations: template.metadata.annotations.clone(),
            owner_references: vec![owner],
            ..ObjectMeta::default()
        },
        spec,
        ..Pod::default()
    }
}

/// The name of a claim to create; `None` when there is no such template any more.
pub fn claim_key(set: &StatefulSet, new: &NewClaim) -> Option<ObjectKey> {
    let template = set.spec.volume_claim_templates.get(new.template)?;
    let name = template.claim_name(&new.pod);
    Some(ObjectKey::namespaced(
        set.metadata.namespace.as_str(),
        name.as_str(),
    ))
}

/// The claim of a pod; `owner` when it goes together with the StatefulSet.
pub fn claim(
    set: &StatefulSet,
    new: &NewClaim,
    owner: Option<OwnerReference>,
) -> Option<PersistentVolumeClaim> {
    let template = set.spec.volume_claim_templates.get(new.template)?;
    let mut labels = template.metadata.labels.clone();
    for (key, value) in &set.spec.selector.match_labels {
        labels.insert(key.clone(), value.clone());
    }
    let mut annotations = template.metadata.annotations.clone();
    annotations.insert(CLAIM_OF.into(), set.metadata.name.clone());
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: template.claim_name(&new.pod),
            namespace: set.metadata.namespace.clone(),
            labels,
            annotations,
            owner_references: owner.into_iter().collect(),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        ..PersistentVolumeClaim::default()
    })
}

/// The reference of a claim that goes together with the StatefulSet. It names an owner and no controller: nobody manages
/// a claim.
pub fn claim_owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: StatefulSet::API_VERSION.into(),
        kind: StatefulSet::KIND.into(),
        name: name.into(),
        uid: uid.into(),
        controller: None,
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::document;

    use super::*;
    use crate::documents::controller_reference;

    const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: default}
spec:
  serviceName: peers
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}, annotations: {note: "yes"}}
    spec:
      containers:
      - {name: c, image: host, volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, emptyDir: {}}, {name: tmp, emptyDir: {}}]
  volumeClaimTemplates:
  - metadata: {name: data, labels: {tier: hot}}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

    fn set() -> StatefulSet {
        document::decode(SET.as_bytes()).unwrap()
    }

    #[test]
    fn only_canonical_numbers_behind_the_name_are_members() {
        for (pod, number) in [
            ("db-0", Some(0)),
            ("db-17", Some(17)),
            ("db-017", None),
            ("db-", None),
            ("db--1", None),
            ("db-1x", None),
            ("db-+1", None),
            ("db-99999999999", None),
            ("other-0", None),
            ("db-x-0", None),
        ] {
            assert_eq!(ordinal("db", pod), number, "{pod}");
        }
        assert_eq!(ordinal("db-x", "db-x-0"), Some(0));
    }

    #[test]
    fn a_pod_has_its_identity_and_its_claims() {
        let set = set();
        let owner = controller_reference::<StatefulSet>("db", "u");
        let new = NewPod {
            ordinal: 3,
            name: "db-3".into(),
            revision: "db-5f7".into(),
        };
        let pod = pod(&set, &set.spec.template, owner.clone(), &new);
        let read: Pod = document::decode(document::encode(&pod).as_bytes()).unwrap();
        assert_eq!(read.metadata.controller(), Some(&owner));
        let labels = &read.metadata.labels;
        assert_eq!(
            [
                &labels[POD_NAME],
                &labels[POD_INDEX],
                &labels[REVISION_LABEL],
                &labels["app"]
            ],
            ["db-3", "3", "db-5f7", "db"]
        );
        assert_eq!(read.spec.hostname.as_deref(), Some("db-3"));
        assert_eq!(read.spec.subdomain.as_deref(), Some("peers"));
        let claim = |v: &Volume| {
            v.persistent_volume_claim
                .as_ref()
                .map(|c| c.claim_name.clone())
        };
        let volumes: Vec<_> = read
            .spec
            .volumes
            .iter()
            .map(|v| (&*v.name, claim(v)))
            .collect();
        assert_eq!(volumes, [("tmp", None), ("data", Some("data-db-3".into()))]);
    }

    #[test]
    fn a_claim_is_made_from_its_template_and_says_who_made_it() {
        let set = set();
        let new = NewClaim {
            template: 0,
            pod: "db-3".into(),
        };
        let made = claim(&set, &new, None).unwrap();
        let read: PersistentVolumeClaim =
            document::decode(document::encode(&made).as_bytes()).unwrap();
        assert_eq!(read.metadata.key(), claim_key(&set, &new).unwrap());
        assert_eq!(&*read.metadata.name, "data-db-3");
        assert_eq!(read.metadata.labels["tier"], "hot");
        assert_eq!(read.metadata.labels["app"], "db");
        assert_eq!(read.metadata.annotations[CLAIM_OF], "db");
        assert!(read.metadata.owner_references.is_empty());
        assert_eq!(read.spec, set.spec.volume_claim_templates[0].spec);
        let owned = claim(&set, &new, Some(claim_owner("db", "u"))).unwrap();
        assert_eq!(owned.metadata.owner_references[0].uid, "u");
        assert_eq!(owned.metadata.controller(), None);
        let other = NewClaim { template: 1, ..new };
        assert_eq!(claim(&set, &other, None), None);
    }
}
