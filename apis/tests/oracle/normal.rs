//! The form in which documents are compared: by value, without what is absent in all but name.

use serde_json::{Map, Value};
use setpoint_apis::quantity::Format;
use setpoint_apis::{Quantity, Timestamp};

/// Maps from a resource to a quantity.
const RESOURCES: &[&str] = &[
    "limits",
    "requests",
    "overhead",
    "hard",
    "max",
    "min",
    "default",
    "defaultRequest",
    "maxLimitRequestRatio",
];
/// Fields that are one quantity.
const QUANTITIES: &[&str] = &["sizeLimit", "divisor", "averageValue", "tolerance"];

/// Writes quantities that are numbers as texts.
pub(crate) fn quantities_to_texts(value: &mut Value) {
    walk(value, &mut |v| {
        if v.is_number() {
            *v = Value::String(v.to_string());
        }
    });
}

fn walk(value: &mut Value, f: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Object(map) => {
            for (key, v) in map {
                match v {
                    Value::Object(resources) if RESOURCES.contains(&key.as_str()) => {
                        resources.values_mut().for_each(&mut *f)
                    }
                    Value::String(_) | Value::Number(_) if QUANTITIES.contains(&key.as_str()) => {
                        f(v)
                    }
                    // What a metric is held to; `value` alone is a text elsewhere.
                    Value::Object(target) if key == "target" => {
                        if let Some(v) = target.get_mut("value") {
                            f(v)
                        }
                        walk(v, f)
                    }
                    v => walk(v, f),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| walk(v, f)),
        _ => {}
    }
}

/// In content of any shape `1e3` is a number with a point to one reader and without to the other.
fn numbers(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(numbers),
        Value::Array(items) => items.iter_mut().for_each(numbers),
        Value::Number(n) if n.is_i64() || n.is_u64() => {
            // Beyond what a number with a point can tell apart, they stay as they are.
            let exact = n.as_i64().filter(|n| n.unsigned_abs() < 1 << 53);
            if let Some(number) = exact.and_then(|n| serde_json::Number::from_f64(n as f64)) {
                *n = number;
            }
        }
        _ => {}
    }
}

/// Quantities and times in one form; null, empty lists and empty mappings gone.
pub(crate) fn form(mut value: Value) -> Value {
    quantities_to_texts(&mut value);
    walk(&mut value, &mut |v| {
        if let Some(q) = v.as_str().and_then(|s| s.parse::<Quantity>().ok()) {
            *v = Value::String(q.with_format(Format::DecimalSi).to_string());
        }
    });
    numbers(&mut value);
    prune(&mut value);
    value
}

/// What a claim template is need not be said.
fn claim_templates(of: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let templates = of.get_mut("volumeClaimTemplates");
    let templates = templates.and_then(Value::as_array_mut);
    templates
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// `null` is as good as nothing to say what a claim template is, except to the binding.
pub(crate) fn without_nulls_in_claim_templates(value: &mut Value) {
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        for claim in claim_templates(spec) {
            claim.retain(|key, v| !v.is_null() || (key != "apiVersion" && key != "kind"));
        }
    }
}

fn prune(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            // Kept in the text, read by nobody here.
            map.remove("finalizers");
            for claim in claim_templates(map) {
                claim.remove("apiVersion");
                claim.remove("kind");
            }
            map.retain(|_, v| prune(v));
            !map.is_empty()
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|v| {
                prune(v);
            });
            !items.is_empty()
        }
        Value::String(s) => {
            if s.len() >= 20
                && let Ok(t) = s.parse::<Timestamp>()
            {
                *s = t.to_string();
            }
            !s.is_empty()
        }
        Value::Null => false,
        _ => true,
    }
}
