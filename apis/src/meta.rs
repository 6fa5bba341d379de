//! Metadata that every object carries, and the key that names one object within its kind.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fnv::Fnv64;
use crate::string_map::StringMap;
use crate::time::Timestamp;

/// The name of one object within its kind. `namespace` is empty for cluster-scoped kinds.
///
/// Ordered by namespace, then by name. Clones share their text, and keys of the same namespace mostly do, so what is the same
/// text in memory is not compared: keys are what most maps are searched by.
#[derive(Clone)]
pub struct ObjectKey {
    /// The namespace, empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key of a namespaced object.
    pub fn namespaced(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// A key of a cluster-scoped object.
    pub fn cluster(name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: Arc::from(""),
            name: name.into(),
        }
    }
}

impl PartialEq for ObjectKey {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        same(&self.name, &other.name) && same(&self.namespace, &other.namespace)
    }
}

impl Eq for ObjectKey {}

impl Hash for ObjectKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.namespace.hash(state);
        self.name.hash(state);
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |a: &Arc<str>, b: &Arc<str>| match Arc::ptr_eq(a, b) {
            true => Ordering::Equal,
            false => a.cmp(b),
        };
        order(&self.namespace, &other.namespace).then_with(|| order(&self.name, &other.name))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Kubernetes' `metadata`, less what etcd keeps by itself (resourceVersion, generation, creationTimestamp).
///
/// Manifests that carry those are accepted at the door and the fields are dropped there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    /// The object's name, unique within its kind and namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A prefix from which `setpoint create` makes a unique name when `name` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// The namespace; empty for cluster-scoped kinds, and in manifests that take the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The identity of this incarnation where a writer put one; otherwise it is derived from the key's create revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Labels, for selection.
    #[serde(default, skip_serializing_if = "StringMap::is_empty")]
    pub labels: StringMap,
    /// Annotations, for everything else.
    #[serde(default, skip_serializing_if = "StringMap::is_empty")]
    pub annotations: StringMap,
    /// The objects that own this one; it is garbage-collected when all of them are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

impl ObjectMeta {
    /// The key of an object with this metadata.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::namespaced(self.namespace.as_str(), self.name.as_str())
    }

    /// The uid of an object whose key was created at this revision: the one its writer gave it, else [`derived_uid`].
    pub fn uid_since(&self, create_revision: i64, plural: &str, key: &ObjectKey) -> String {
        let own = self.uid.clone();
        own.unwrap_or_else(|| derived_uid(create_revision, plural, key))
    }

    /// The owner that manages this object, when there is one.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references
            .iter()
            .find(|o| o.controller == Some(true))
    }
}

/// One thing about an object that is so or not, as the statuses of most kinds have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// One CamelCase word.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The generation of the object that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
    /// A CamelCase word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Condition {
    /// A condition that is so or not, and why.
    pub fn new(type_: &str, status: bool, reason: &str, message: &str, since: Timestamp) -> Self {
        Self {
            type_: type_.into(),
            status: if status { "True" } else { "False" }.into(),
            observed_generation: None,
            last_transition_time: Some(since),
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// Whether it is so.
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// A reference to an owner in the same namespace (or to a cluster-scoped one).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// The owner's apiVersion.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid: an owner of the same name but another uid is another object.
    pub uid: String,
    /// Whether this owner manages the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Whether the owner, when it is deleted in the foreground, stays until this object has gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// The annotation that names the fields which commands have set one by one: JSON Pointers (RFC 6901) in order, separated by
/// spaces, such as `/metadata/labels/team /spec/replicas`. Applying a manifest that says nothing of such a field leaves it
/// as it is. It is about the document that it stands in, and is not given on to objects that are made for it.
pub const SET_BY_COMMAND: &str = "setpoint.dev/set-by-command";

/// The uid of an object whose writer gave none: a version-8 UUID (RFC 9562, custom layout) of 60 bits of the key's create
/// revision and 62 bits of a hash of kind and name. It is stable for one incarnation, differs for the next, and differs
/// for objects that one transaction has created together.
pub fn derived_uid(create_revision: i64, plural: &str, key: &ObjectKey) -> String {
    let mut hash = Fnv64::default();
    for part in [plural, &key.namespace, &key.name] {
        hash.write(part.as_bytes());
        hash.write(b"/");
    }
    let hash = hash.value();
    let revision = create_revision.unsigned_abs();
    format!(
        "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
        (revision >> 16) & 0xffff_ffff,
        revision & 0xffff,
        (revision >> 48) & 0xfff,
        0x8000 | ((hash >> 48) & 0x3fff),
        hash & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_by_their_texts_shared_or_not() {
        let (shared, name): (Arc<str>, Arc<str>) = (Arc::from("b"), Arc::from("b"));
        let mut keys = Vec::new();
        for namespace in ["", "a", "b", "ba"] {
            for object in ["a", "b", "ba"] {
                keys.push(ObjectKey::namespaced(namespace, object));
            }
            keys.push(ObjectKey::namespaced(namespace, name.clone()));
        }
        keys.extend(["a", "b"].map(|object| ObjectKey::namespaced(shared.clone(), object)));
        keys.push(ObjectKey::namespaced(shared, name));
        for a in &keys {
            for b in &keys {
                let texts = |k: &ObjectKey| (k.namespace.to_string(), k.name.to_string());
                assert_eq!(a.cmp(b), texts(a).cmp(&texts(b)), "{a} {b}");
                assert_eq!(a == b, texts(a) == texts(b), "{a} {b}");
            }
        }
    }

    #[test]
    fn uids_tell_incarnations_and_objects_of_one_transaction_apart() {
        let (a, b) = (
            ObjectKey::namespaced("default", "a"),
            ObjectKey::namespaced("default", "b"),
        );
        let uid = derived_uid(7, "pods", &a);
        assert_eq!(uid, derived_uid(7, "pods", &a));
        for other in [
            derived_uid(8, "pods", &a),
            derived_uid(7, "pods", &b),
            derived_uid(7, "secrets", &a),
        ] {
            assert_ne!(uid, other);
        }
        let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(
            uid[14..].starts_with('8') && uid[19..].starts_with(['8', '9', 'a', 'b']),
            "{uid}"
        );
    }
}
