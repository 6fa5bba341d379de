//! Changing who owns an object without touching the rest of its document.

use crate::document::{self, DecodeError};
use crate::kind::Kind;
use crate::meta::{ObjectKey, OwnerReference};

/// The document of an object with other owner references.
///
/// Fields that this version does not know stay as they are; comments and layout do not.
///
/// # Errors
/// [`DecodeError`] when the bytes are no valid object of the kind.
pub fn with_owner_references<K: Kind>(
    key: &ObjectKey,
    bytes: &[u8],
    owners: &[OwnerReference],
) -> Result<String, DecodeError> {
    let mut object: K = document::decode_keyed(key, bytes)?;
    object.metadata_mut().owner_references = owners.to_vec();
    let edited = edit(bytes, owners).filter(|text| {
        // The text may hold something that only the tolerant reader understands; then the object itself is written.
        document::decode_keyed::<K>(key, text.as_bytes()).is_ok_and(|o| o == object)
    });
    Ok(edited.unwrap_or_else(|| document::encode(&object)))
}

fn edit(bytes: &[u8], owners: &[OwnerReference]) -> Option<String> {
    let mut tree: serde_json::Value = document::decode_value(bytes).ok()?;
    let metadata = tree.get_mut("metadata")?.as_object_mut()?;
    if owners.is_empty() {
        metadata.shift_remove("ownerReferences");
    } else {
        metadata.insert("ownerReferences".into(), serde_json::to_value(owners).ok()?);
    }
    Some(document::encode(&tree))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Pod;

    #[test]
    fn owners_change_and_what_this_version_does_not_know_stays() {
        let key = ObjectKey::namespaced("default", "a");
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {x: '1'}}\nfuture: {y: 2}\n\
                    spec: {hostNetwork: false, containers: [{name: c, image: host, args: ['yes', '1e3']}]}\n";
        let owner = OwnerReference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "r".into(),
            uid: "u".into(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let owned =
            with_owner_references::<Pod>(&key, text.as_bytes(), std::slice::from_ref(&owner))
                .unwrap();
        assert!(owned.contains("future:\n  'y': 2\n"), "{owned}");
        let pod: Pod = document::decode_keyed(&key, owned.as_bytes()).unwrap();
        assert_eq!(pod.metadata.owner_references, [owner]);
        assert_eq!(pod.spec.containers[0].args, ["yes", "1e3"]);
        let freed = with_owner_references::<Pod>(&key, owned.as_bytes(), &[]).unwrap();
        assert!(!freed.contains("ownerReferences"));
    }

    #[test]
    fn what_only_the_tolerant_reader_understands_survives() {
        let key = ObjectKey::namespaced("default", "a");
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
                    spec: {hostNetwork: yes, containers: [{name: c, image: host}]}\n";
        let freed = with_owner_references::<Pod>(&key, text.as_bytes(), &[]).unwrap();
        let pod: Pod = document::decode_keyed(&key, freed.as_bytes()).unwrap();
        assert_eq!(pod.spec.host_network, Some(true));
    }
}
