//! What may be changed of a pod that its scheduling gates hold back: gates go, and where it may run gets narrower.

use serde_json::{Map, Value};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Whether gates hold the pod back.
pub(super) fn is_gated(spec: &Value) -> bool {
    !list(&spec["schedulingGates"]).is_empty()
}

/// Takes out of a spec what may be changed while a pod is gated.
pub(super) fn forget(spec: &mut Map<String, Value>) {
    spec.remove("nodeSelector");
    if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
        if affinity.is_empty() {
            spec.remove("affinity");
        }
    }
}

/// Why a change of gates, or of what may change under them, is refused.
pub(super) fn refusal(old: &Value, new: &Value) -> Option<String> {
    let before = list(&old["schedulingGates"]);
    if let Some(added) = list(&new["schedulingGates"])
        .iter()
        .find(|gate| !before.contains(gate))
    {
        return Some(format!(
            "spec.schedulingGates: Forbidden: gates can only be removed from a pod that is there; {} is new",
            added["name"]
        ));
    }
    if !is_gated(old) {
        return None;
    }
    let selector = |spec: &Value| {
        spec["nodeSelector"]
            .as_object()
            .cloned()
            .unwrap_or_default()
    };
    let after = selector(new);
    if let Some((key, _)) = selector(old).iter().find(|(k, v)| after.get(*k) != Some(v)) {
        return Some(format!(
            "spec.nodeSelector: Invalid value: a gated pod can only get further labels, but {key:?} is changed or gone"
        ));
    }
    let terms =
        |spec: &Value| spec["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].clone();
    let (before, after) = (terms(old), terms(new));
    let (before, after) = (list(&before), list(&after));
    // Without a term every node would do: any terms are narrower.
    if before.is_empty() {
        return None;
    }
    // One term is enough to match, so another one is wider.
    if before.len() != after.len() || !before.iter().zip(after).all(|(b, a)| narrower(b, a)) {
        return Some(format!(
            "spec.affinity.nodeAffinity.{REQUIRED}: Invalid value: the terms of a gated pod can only get further \
             requirements"
        ));
    }
    None
}

/// Whether a term has all requirements of another one.
fn narrower(before: &Value, after: &Value) -> bool {
    let fields = ["matchExpressions", "matchFields"];
    // A term without requirements matches nothing: with one it would match something.
    if fields.iter().all(|f| list(&before[*f]).is_empty()) {
        return before == after;
    }
    fields.iter().all(|field| {
        let after = list(&after[*field]);
        list(&before[*field]).iter().all(|r| after.contains(r))
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::refusal as of_kind;
    use super::*;

    fn gates(names: &[&str]) -> Value {
        names.iter().map(|n| json!({ "name": n })).collect()
    }

    fn pod(gates: Value, more: Value) -> Value {
        let mut spec =
            json!({"containers": [{"name": "c", "image": "x"}], "schedulingGates": gates});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        json!({ "spec": spec })
    }

    fn requires(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}})
    }

    fn has(keys: &[&str]) -> Value {
        let all: Vec<Value> = keys
            .iter()
            .map(|k| json!({"key": k, "operator": "Exists"}))
            .collect();
        json!({ "matchExpressions": all })
    }

    #[test]
    fn gates_go_and_do_not_come() {
        let of = |old: &[&str], new: &[&str]| {
            of_kind(
                "pods",
                &pod(gates(old), json!({})),
                &pod(gates(new), json!({})),
            )
        };
        assert_eq!(of(&["a", "b"], &["b"]), None);
        assert_eq!(of(&["a", "b"], &[]), None);
        assert_eq!(of(&["a", "b"], &["b", "a"]), None);
        for (old, new) in [
            (&["a"][..], &["a", "b"][..]),
            (&[][..], &["b"][..]),
            (&["a"][..], &["b"][..]),
        ] {
            let why = of(old, new).unwrap();
            assert!(why.starts_with("spec.schedulingGates: Forbidden"), "{why}");
            assert!(why.contains("\"b\" is new"), "{why}");
        }
    }

    #[test]
    fn where_a_gated_pod_may_run_gets_narrower_alone() {
        let selector = |v: Value| json!({ "nodeSelector": v });
        for (old, new, refused) in [
            (json!({}), selector(json!({"a": "1"})), None),
            (
                selector(json!({"a": "1"})),
                selector(json!({"a": "1", "b": "2"})),
                None,
            ),
            (
                selector(json!({"a": "1"})),
                selector(json!({"a": "2"})),
                Some("spec.nodeSelector"),
            ),
            (
                selector(json!({"a": "1"})),
                json!({}),
                Some("spec.nodeSelector"),
            ),
            (json!({}), requires(json!([has(&["a"])])), None),
            (
                requires(json!([has(&["a"])])),
                requires(json!([has(&["b", "a"])])),
                None,
            ),
            (
                requires(json!([has(&["a"])])),
                requires(json!([has(&["b"])])),
                Some("spec.affinity"),
            ),
            (
                requires(json!([has(&["a"])])),
                json!({}),
                Some("spec.affinity"),
            ),
            (
                requires(json!([has(&["a"])])),
                requires(json!([has(&["a"]), has(&["b"])])),
                Some("spec.affinity"),
            ),
            (
                requires(json!([{}])),
                requires(json!([has(&["a"])])),
                Some("spec.affinity"),
            ),
            (
                json!({}),
                json!({"affinity": {"podAffinity": {"x": 1}}}),
                Some("spec: Forbidden"),
            ),
        ] {
            let found = of_kind(
                "pods",
                &pod(gates(&["g"]), old.clone()),
                &pod(gates(&[]), new.clone()),
            );
            match refused {
                None => assert_eq!(found, None, "{old} {new}"),
                Some(words) => assert!(
                    found.as_deref().is_some_and(|f| f.starts_with(words)),
                    "{old} {new}: {found:?}"
                ),
            }
            // Nothing of the kind without a gate.
            if old != new {
                assert!(of_kind("pods", &pod(gates(&[]), old), &pod(gates(&[]), new)).is_some());
            }
        }
    }

    #[test]
    fn the_value_of_a_priority_class_stays() {
        let class = |value: i32| json!({"value": value, "preemptionPolicy": "Never"});
        assert!(of_kind("priorityclasses", &class(1), &class(2)).is_some());
        assert_eq!(of_kind("priorityclasses", &class(1), &class(1)), None);
    }
}
