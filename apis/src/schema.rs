//! JSON Schemas of the kinds: for editors, and for the strict reader.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use serde_json::{Map, Value, json};

use crate::registry::{KindInfo, Registry};

/// The schema of a kind as schemars derives it, with `$defs` for the types it uses.
pub fn raw(kind: &KindInfo) -> Value {
    Value::from((kind.schema)())
}

/// The same, derived once per kind.
pub(crate) fn cached(kind: &KindInfo) -> Arc<Value> {
    type Known = HashMap<(&'static str, &'static str, usize), Arc<Value>>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    // The address keeps two kinds apart that two programs' tests call by one name.
    let id = (kind.api_version, kind.kind, kind.schema as usize);
    let mut known = KNOWN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    known
        .entry(id)
        .or_insert_with(|| Arc::new(raw(kind)))
        .clone()
}

/// The schema of a kind for editors: fields that do not exist are errors, except that what the door leaves out
/// (`status`, `metadata.creationTimestamp`, ...) may be there.
pub fn of_kind(kind: &KindInfo) -> Value {
    let mut schema = raw(kind);
    close(&mut schema, Some(kind.kind));
    schema
}

/// One schema for all kinds of a registry, for files with any of them: what `setpoint schema` prints.
pub fn combined(registry: &Registry) -> Value {
    let mut defs = Map::new();
    let mut branches = Vec::new();
    for kind in registry.kinds() {
        let mut schema = of_kind(kind);
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
            if let Some(Value::Object(more)) = object.remove("$defs") {
                // The derived name of a type is unique, so equal names are equal types.
                defs.extend(more);
            }
        }
        let condition = json!({
            "required": ["apiVersion", "kind"],
            "properties": { "apiVersion": { "const": kind.api_version }, "kind": { "const": kind.kind } },
        });
        branches
            .push(json!({ "if": condition, "then": { "$ref": format!("#/$defs/{}", kind.kind) } }));
        defs.insert(kind.kind.into(), schema);
    }
    let versions: std::collections::BTreeSet<&str> =
        registry.kinds().iter().map(|k| k.api_version).collect();
    let kinds: Vec<&str> = registry.kinds().iter().map(|k| k.kind).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Setpoint manifest",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {
            "apiVersion": { "type": "string", "enum": versions },
            "kind": { "type": "string", "enum": kinds },
        },
        "allOf": branches,
        "$defs": defs,
    })
}

/// Forbids unknown fields in every object type, allowing those that the door drops.
fn close(schema: &mut Value, type_name: Option<&str>) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Object(defs)) = object.get_mut("$defs") {
        for (name, def) in defs {
            let name = name.clone();
            close(def, Some(&name));
        }
    }
    let Some(Value::Object(properties)) = object.get_mut("properties") else {
        return;
    };
    if let Some(name) = type_name {
        for (field, _) in
            crate::fields::fields_of(name).filter(|(_, c)| *c == crate::fields::Class::Dropped)
        {
            properties.entry(field).or_insert_with(
                || json!({ "description": "Left out when the manifest is applied." }),
            );
        }
    }
    object
        .entry("additionalProperties")
        .or_insert(Value::Bool(false));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_has_a_target() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|v| references(v, found));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, found)),
                _ => {}
            }
        }
        let schema = combined(Registry::builtin());
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(found.len() > 100);
        for reference in found {
            let name = reference
                .strip_prefix("#/$defs/")
                .unwrap_or_else(|| panic!("{reference}"));
            assert!(schema["$defs"].get(name).is_some(), "{reference}");
        }
    }

    #[test]
    fn unknown_fields_are_forbidden_and_dropped_ones_are_not() {
        let schema = of_kind(Registry::builtin().by_kind("Pod").unwrap());
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema["properties"].get("status").is_some());
        assert_eq!(schema["$defs"]["PodSpec"]["additionalProperties"], false);
        assert!(
            schema["$defs"]["ObjectMeta"]["properties"]
                .get("managedFields")
                .is_some()
        );
    }
}
