//! An object as the command line shows it: the merge of what is wanted and what is, as one JSON value.

use serde_json::{Value, json};
use setpoint_apis::ObjectKey;
use setpoint_apis::time::Timestamp;

use crate::kinds::KindInfo;

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// Its kind.
    pub(crate) kind: KindInfo,
    /// Its name.
    pub(crate) key: ObjectKey,
    /// The merge, in Kubernetes' form.
    pub(crate) value: Value,
    /// Why the stored document cannot be used; what was good before it stays in force.
    pub(crate) invalid: Option<String>,
    /// The document as its writer wrote it. `None` when it was deleted and the object is still there.
    pub(crate) text: Option<String>,
    /// What etcd keeps about the document.
    pub(crate) revisions: Option<Revisions>,
    /// When it was created, as far as somebody recorded it.
    pub(crate) created: Option<Timestamp>,
    /// It is to go, or its document has gone, and it has not stopped yet.
    pub(crate) terminating: bool,
}

/// What etcd keeps about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revisions {
    /// The revision of its creation.
    pub(crate) created: i64,
    /// The revision of its last change: `resourceVersion`.
    pub(crate) modified: i64,
    /// How often it was written: `generation`.
    pub(crate) version: i64,
}

impl Object {
    /// Whether the stored document cannot be read, so that it says nothing about the object.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.invalid.is_some() && self.value.get("invalid").is_some()
    }

    /// The value at a path of keys.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter()
            .try_fold(&self.value, |v, key| v.get(key))
            .filter(|v| !v.is_null())
    }

    /// The text at a path; empty when there is none.
    pub(crate) fn text_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The number at a path; 0 when there is none.
    pub(crate) fn number_at(&self, path: &[&str]) -> i64 {
        self.at(path).and_then(Value::as_i64).unwrap_or_default()
    }

    /// The items of the list at a path.
    pub(crate) fn list_at(&self, path: &[&str]) -> &[Value] {
        self.at(path)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// The labels.
    pub(crate) fn labels(&self) -> std::collections::BTreeMap<String, String> {
        pairs(self.at(&["metadata", "labels"]))
    }

    /// The time at a path.
    pub(crate) fn time_at(&self, path: &[&str]) -> Option<Timestamp> {
        self.at(path)?.as_str()?.parse().ok()
    }

    /// The object's uid.
    pub(crate) fn uid(&self) -> &str {
        self.text_at(&["metadata", "uid"])
    }

    /// `deployment.apps/web`, as kubectl names objects.
    pub(crate) fn full_name(&self) -> String {
        self.kind.full_name(&self.key.name)
    }

    /// The status of the condition of a type, with its reason and message.
    pub(crate) fn condition(&self, type_: &str) -> Option<&Value> {
        self.list_at(&["status", "conditions"])
            .iter()
            .find(|c| c["type"] == type_)
    }

    /// Why its controller does nothing for it though its own document can be used: somebody has changed by hand what may
    /// not change, or something that belongs to it cannot be read.
    pub(crate) fn frozen(&self) -> Option<&str> {
        let condition = self.condition("Invalid")?;
        // That is said by what reads the document, and of a former version of it perhaps.
        let own = condition["reason"] == "DocumentInvalid";
        let is = condition["status"] == "True" && !own;
        is.then(|| condition["message"].as_str().unwrap_or_default())
    }

    /// The stand-in for a document that cannot be read: what its key says, and the document itself as text.
    pub(crate) fn invalid_value(
        kind: &KindInfo,
        key: &ObjectKey,
        message: &str,
        text: &str,
    ) -> Value {
        let mut metadata = json!({ "name": &*key.name });
        if !key.namespace.is_empty() {
            metadata["namespace"] = json!(&*key.namespace);
        }
        json!({
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": metadata,
            "invalid": { "message": message, "document": text },
        })
    }
}

/// A mapping of texts.
pub(crate) fn pairs(value: Option<&Value>) -> std::collections::BTreeMap<String, String> {
    let map = value.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}
