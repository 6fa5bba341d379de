//! The merges: desired documents with statuses, pods with bindings and reports, nodes with everything about them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use setpoint_apis::core::{Node, Pod};
use setpoint_apis::records::{
    Binding, NodeAlive, NodeHealth, NodeStatusRecord, PodActual, PodScheduling,
};
use setpoint_apis::time::Timestamp;
use setpoint_apis::{ObjectKey, document, meta, view};
use setpoint_store::KeyValue;

use super::timeline::Dates;
use crate::kinds::KindInfo;
use crate::object::{Object, Revisions};

/// What is stored about an object of any kind but Pod and Node.
pub(super) fn plain(
    kind: KindInfo,
    key: ObjectKey,
    desired: &KeyValue,
    status: Option<&KeyValue>,
) -> Object {
    let mut object = desired_part(kind, key, desired);
    if let Some(status) = status
        && let Some(value) = record::<Value>(&mut object, "status", status)
        && is_about(&value, &object)
    {
        object.value["status"] = value;
    }
    object
}

/// Whether a status is about an object, as far as is known: one that a former object of the name has left behind is not,
/// and its controller takes no notice of it either. Nobody knows the uid of an object whose document cannot be read.
fn is_about(status: &Value, object: &Object) -> bool {
    let places: &[&str] = match object.kind.plural {
        "deployments" | "replicasets" | "statefulsets" | "daemonsets" => &["/fixed/of"],
        "jobs" => &["/fixed/of", "/counted/of"],
        "cronjobs" => &["/firstSeen/uid"],
        "persistentvolumeclaims" => &["/uid"],
        _ => &[],
    };
    let mut recorded = places
        .iter()
        .filter_map(|place| status.pointer(place)?.as_str())
        .filter(|uid| !uid.is_empty());
    object.is_unreadable() || recorded.all(|uid| uid == object.uid())
}

/// What is stored about a pod.
#[derive(Clone, Default)]
pub(super) struct PodParts<'a> {
    pub(super) desired: Option<&'a KeyValue>,
    pub(super) binding: Option<&'a KeyValue>,
    pub(super) scheduling: Option<&'a KeyValue>,
    /// The node's name with what its agent reports.
    pub(super) actual: Vec<(&'a str, &'a KeyValue)>,
    /// What its node was given, where the document is gone or does not parse ([`lacks_document`]).
    pub(super) work: Option<&'a KeyValue>,
    /// What is concluded about nodes, its own among them.
    pub(super) nodes: Option<&'a BTreeMap<String, NodeHealth>>,
}

/// Merges a pod. `None` when nothing is stored about it.
pub(super) fn pod(kind: KindInfo, key: ObjectKey, parts: &PodParts<'_>) -> Option<Object> {
    let mut object = match parts.desired {
        Some(desired) => desired_part(kind, key.clone(), desired),
        None if parts.binding.is_none() && parts.actual.is_empty() => return None,
        None => gone(kind, &key),
    };
    let deleted = parts.desired.is_none();
    let unreadable = object.is_unreadable();
    let binding: Option<Binding> = parts
        .binding
        .and_then(|kv| record(&mut object, "binding", kv));
    let scheduling: Option<PodScheduling> = parts
        .scheduling
        .and_then(|kv| record(&mut object, "scheduling state", kv));
    let bound_to = binding.as_ref().map(|b| b.node.as_str());
    let report = parts
        .actual
        .iter()
        .find(|(node, _)| Some(*node) == bound_to)
        .or(parts.actual.first());
    let actual: Option<PodActual> =
        report.and_then(|(_, kv)| record(&mut object, "report of its agent", kv));
    let placed_at = binding
        .as_ref()
        .map(|b| b.bound_at)
        .or(actual.as_ref().and_then(|a| a.start_time));
    let node = bound_to
        .or(report.map(|(node, _)| *node))
        .map(str::to_owned);
    let typed = match parts.desired {
        Some(d) if !unreadable => document::decode_keyed::<Pod>(&key, &d.value).unwrap_or_default(),
        _ => {
            let work = parts.work.map(|kv| &*kv.value);
            view::stopping_pod(&key, work, actual.as_ref())
        }
    };
    if deleted && let Ok(value) = serde_json::to_value(&typed) {
        object.value = value;
        if typed.spec.containers.is_empty() {
            object.value["spec"] = json!({});
        }
    }
    if unreadable {
        show_known(&mut object, &typed);
    }
    let health = parts
        .nodes
        .zip(node.as_ref())
        .and_then(|(nodes, node)| nodes.get(node));
    let status = view::pod_status(
        &typed,
        binding.as_ref(),
        actual.as_ref(),
        scheduling.as_ref(),
        health,
        deleted,
    );
    object.value["status"] = serde_json::to_value(status).unwrap_or_default();
    object.terminating = deleted || binding.as_ref().is_some_and(|b| b.withdrawn.is_some());
    if let Some(node) = node {
        if !object.value["spec"].is_object() {
            object.value["spec"] = json!({});
        }
        object.value["spec"]["nodeName"] = json!(node);
    }
    if let Some(at) = binding
        .as_ref()
        .and_then(|b| b.withdrawn.as_ref())
        .map(|w| w.at)
    {
        object.value["metadata"]["deletionTimestamp"] = json!(at.whole_seconds());
    }
    if deleted {
        object.created = placed_at;
    }
    Some(object)
}

/// Whether what is known of a pod is only its node's copy, its document being gone or not to be read.
pub(super) fn lacks_document(pod: &Object) -> bool {
    pod.text.is_none() || pod.is_unreadable()
}

/// Fills in what an unreadable document would have said, from what is known of the pod that runs.
fn show_known(object: &mut Object, known: &Pod) {
    let Ok(known) = serde_json::to_value(known) else {
        return;
    };
    for field in ["uid", "labels", "annotations", "ownerReferences"] {
        if let Some(value) = known["metadata"].get(field) {
            object.value["metadata"][field] = value.clone();
        }
    }
    if known["spec"]["containers"]
        .as_array()
        .is_some_and(|c| !c.is_empty())
    {
        object.value["spec"] = known["spec"].clone();
    }
}

/// What is stored about a node.
#[derive(Default)]
pub(super) struct NodeParts<'a> {
    pub(super) desired: Option<&'a KeyValue>,
    pub(super) alive: Option<&'a KeyValue>,
    pub(super) status: Option<&'a KeyValue>,
    pub(super) health: Option<&'a KeyValue>,
}

/// Merges a node. `None` when nothing is stored about it.
pub(super) fn node(kind: KindInfo, key: ObjectKey, parts: &NodeParts<'_>) -> Option<Object> {
    let mut object = match parts.desired {
        Some(desired) => desired_part(kind, key.clone(), desired),
        None if parts.alive.is_none() && parts.status.is_none() && parts.health.is_none() => {
            return None;
        }
        None => gone(kind, &key),
    };
    let status: Option<NodeStatusRecord> = parts
        .status
        .and_then(|kv| record(&mut object, "report of its agent", kv));
    let health: Option<NodeHealth> = parts
        .health
        .and_then(|kv| record(&mut object, "health", kv));
    let alive: Option<NodeAlive> = parts
        .alive
        .and_then(|kv| record(&mut object, "session", kv));
    let since = alive.as_ref().map(|a| a.since);
    let typed = parts
        .desired
        .and_then(|d| document::decode_keyed::<Node>(&key, &d.value).ok());
    let session = parts.alive.map(|kv| kv.create_revision);
    let merged = view::NodeView::new(
        &key.name,
        typed.as_ref(),
        status.as_ref(),
        health.as_ref(),
        session,
    );
    object.value["metadata"]["labels"] = json!(merged.labels);
    if !merged.taints.is_empty() {
        object.value["spec"]["taints"] = json!(merged.taints);
    }
    let mut shown = serde_json::to_value(merged.status()).unwrap_or_default();
    shown["state"] = json!(merged.state);
    if merged.state == setpoint_apis::records::NodeState::Ready && session.is_none() {
        // Nobody has concluded anything yet, and the session is gone.
        shown["state"] = json!(setpoint_apis::records::NodeState::Unreachable);
    }
    for (field, value) in [
        ("drivers", json!(merged.drivers)),
        ("usage", json!(merged.usage)),
        ("usageAt", json!(status.as_ref().and_then(|s| s.usage_at))),
        ("endpoint", json!(merged.endpoint)),
        ("dataDir", json!(merged.data_dir)),
        ("session", json!(merged.session)),
        (
            "agent",
            json!(alive.map(|a| json!({"hostname": a.hostname, "pid": a.pid, "since": a.since}))),
        ),
    ] {
        if !value.is_null() {
            shown[field] = value;
        }
    }
    object.value["status"] = shown;
    object.terminating = parts.desired.is_none();
    if parts.desired.is_none() {
        object.created = since;
    }
    Some(object)
}

/// The object as its desired document says it.
pub(super) fn desired_part(kind: KindInfo, key: ObjectKey, kv: &KeyValue) -> Object {
    let text = String::from_utf8_lossy(&kv.value).into_owned();
    let (mut value, invalid) = match kind.read(&key, &kv.value) {
        Ok(value) if value.is_object() => (value, None),
        Ok(_) => {
            let message = "the document is not a mapping";
            (
                Object::invalid_value(&kind, &key, message, &text),
                Some(message.to_owned()),
            )
        }
        Err(error) => {
            let message = error.to_string();
            (
                Object::invalid_value(&kind, &key, &message, &text),
                Some(message),
            )
        }
    };
    if !value["metadata"].is_object() {
        value["metadata"] = json!({ "name": &*key.name });
    }
    let revisions = Revisions {
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
    };
    if value["metadata"]["uid"].as_str().is_none_or(str::is_empty) {
        value["metadata"]["uid"] = json!(meta::derived_uid(kv.create_revision, kind.plural, &key));
    }
    value["metadata"]["resourceVersion"] = json!(kv.mod_revision.to_string());
    value["metadata"]["generation"] = json!(kv.version);
    Object {
        kind,
        key,
        value,
        invalid,
        text: Some(text),
        revisions: Some(revisions),
        created: None,
        terminating: false,
    }
}

/// An object whose document is gone, and that is still there.
fn gone(kind: KindInfo, key: &ObjectKey) -> Object {
    let mut metadata = json!({ "name": &*key.name });
    if !key.namespace.is_empty() {
        metadata["namespace"] = json!(&*key.namespace);
    }
    let value = json!({ "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata });
    Object {
        kind,
        key: key.clone(),
        value,
        invalid: None,
        text: None,
        revisions: None,
        created: None,
        terminating: true,
    }
}

/// Reads a record; one that cannot be read is noted on the object and otherwise treated as absent, for showing.
fn record<T: serde::de::DeserializeOwned>(
    object: &mut Object,
    what: &str,
    kv: &KeyValue,
) -> Option<T> {
    match document::decode_value(&kv.value) {
        Ok(value) => Some(value),
        Err(error) => {
            let message = format!("its {what} ({}): {error}", kv.key);
            match &mut object.invalid {
                Some(before) => *before = format!("{before}; {message}"),
                none => *none = Some(message),
            }
            None
        }
    }
}

/// Fills in the time of creation.
pub(super) fn date(object: &mut Object, dates: &Dates) {
    // Whatever has changed its condition was there before.
    let conditions = object.list_at(&["status", "conditions"]).iter();
    let earliest = conditions
        .filter_map(|c| c["lastTransitionTime"].as_str()?.parse::<Timestamp>().ok())
        .min();
    let begun = registered_after(object);
    let known = earliest.map_or(begun, |at| Some(begun.map_or(at, |begun| at.max(begun))));
    object.created = match object.revisions {
        // An event says itself when it was.
        Some(revisions) if object.kind.plural != "events" => {
            dates.created(revisions.created, known)
        }
        _ => object.created.into_iter().chain(known).min(),
    };
    if object.kind.plural == "events" && object.created.is_none() {
        object.created = object
            .time_at(&["firstTimestamp"])
            .or_else(|| object.time_at(&["eventTime"]));
    }
    if let Some(created) = object.created {
        object.value["metadata"]["creationTimestamp"] = json!(created.whole_seconds());
    }
}

/// When the agent was started that a node's document was made for: the document is younger than the agent's session.
fn registered_after(node: &Object) -> Option<Timestamp> {
    let session = node.at(&["status", "session"])?.as_i64()?;
    let registered = node.kind.plural == "nodes" && node.revisions?.created > session;
    node.time_at(&["status", "agent", "since"])
        .filter(|_| registered)
}

/// The status of a namespace is its being there.
pub(super) fn namespace(object: &mut Object) {
    if object.at(&["status", "phase"]).is_none() {
        object.value["status"] = json!({ "phase": "Active" });
    }
}
