//! Objects that their controllers have frozen, because somebody has changed by hand what may not change: what may be
//! written over their documents, and what is to be said of them.
//!
//! What a controller has recorded in the status counts there, and not the document that is stored: that one is the
//! mistake, and whoever writes what was before puts it right.

use anyhow::Result;
use serde_json::Value;
use setpoint_apis::apps::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::batch::Job;
use setpoint_apis::fixed::{self, Fixed, FixedFields};
use setpoint_apis::kind::FieldError;
use setpoint_apis::{Key, Kind, ObjectKey, document, meta};
use setpoint_store::KeyValue;

use super::immutable;
use crate::client::Client;
use crate::kinds::KindInfo;
use crate::object::Object;

/// What can be done about a document that differs from what is recorded.
const PUT_BACK: &str = "put it back, or delete the object and apply it again";

/// Why a new text may not be written over what is stored, if so. `old` and `new` are what the two say, with defaults.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn refusal(
    client: &Client,
    (kind, key): (KindInfo, &ObjectKey),
    stored: &KeyValue,
    (old, new): (&Value, &Value),
    text: &str,
) -> Result<Option<String>> {
    let Some(why) = immutable::refusal(kind.plural, old, new) else {
        return Ok(None);
    };
    let (status, _) = client.get(&Key::Actual(kind.plural, key.clone())).await?;
    let status: Option<Value> = status.and_then(|kv| document::decode_value(&kv.value).ok());
    let recorded = status
        .as_ref()
        .and_then(|status| record(status.get("fixed")?));
    let uid = match old["metadata"]["uid"].as_str() {
        Some(uid) if !uid.is_empty() => uid.to_owned(),
        _ => meta::derived_uid(stored.create_revision, kind.plural, key),
    };
    let Some(recorded) = recorded else {
        return Ok(Some(why));
    };
    if changes(kind.plural, key, &stored.value, &uid, &recorded).is_empty() {
        return Ok(Some(why));
    }
    let left = changes(kind.plural, key, text.as_bytes(), &uid, &recorded);
    Ok(told(&left))
}

/// What is to be said when an object was changed and nothing will come of it.
pub(crate) fn warning(object: &Object) -> Option<String> {
    let name = object.full_name();
    let recorded = object.at(&["status", "fixed"]).and_then(record);
    if let (Some(recorded), Some(text)) = (recorded, &object.text) {
        let plural = object.kind.plural;
        let left = changes(
            plural,
            &object.key,
            text.as_bytes(),
            object.uid(),
            &recorded,
        );
        if let Some(why) = told(&left) {
            return Some(format!("{name} is frozen, so nothing of it is done: {why}"));
        }
    }
    let condition = object.condition("Invalid")?;
    // Of its own document that was said before it was changed.
    let own = ["DocumentInvalid", fixed::CHANGED].contains(&condition["reason"].as_str()?);
    if own || condition["status"] != "True" {
        return None;
    }
    let why = condition["message"].as_str().unwrap_or_default();
    Some(format!("{name} is frozen, so nothing of it is done: {why}"))
}

fn record(value: &Value) -> Option<FixedFields> {
    serde_json::from_value(value.clone()).ok()
}

fn told(changes: &[FieldError]) -> Option<String> {
    if changes.is_empty() {
        return None;
    }
    let all: Vec<String> = changes.iter().map(ToString::to_string).collect();
    Some(format!("{}; {PUT_BACK}", all.join("; ")))
}

/// What a text changes of what is recorded and may not.
fn changes(
    plural: &str,
    key: &ObjectKey,
    text: &[u8],
    uid: &str,
    recorded: &FixedFields,
) -> Vec<FieldError> {
    fn of<K: Fixed>(
        key: &ObjectKey,
        text: &[u8],
        uid: &str,
        recorded: &FixedFields,
    ) -> Vec<FieldError> {
        match document::decode_keyed::<K>(key, text) {
            Ok(object) => recorded.changed_by(&object, &FixedFields::of(uid, &object)),
            Err(_) => Vec::new(),
        }
    }
    let of = match plural {
        Deployment::PLURAL => of::<Deployment>,
        ReplicaSet::PLURAL => of::<ReplicaSet>,
        StatefulSet::PLURAL => of::<StatefulSet>,
        DaemonSet::PLURAL => of::<DaemonSet>,
        Job::PLURAL => of::<Job>,
        _ => return Vec::new(),
    };
    of(key, text, uid, recorded)
}
