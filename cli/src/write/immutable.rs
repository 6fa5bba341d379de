//! What may not be changed once it is there, as in Kubernetes.

mod gated;

use serde_json::Value;
use setpoint_apis::registry::Registry;

/// What to do instead, for whoever meant the change.
const ANEW: &str = "to change it, delete the object and apply it again";

/// Why a change of an object is refused, if it is. Both values have their defaults.
pub(super) fn refusal(plural: &str, old: &Value, new: &Value) -> Option<String> {
    match plural {
        "configmaps" | "secrets" if old["immutable"] == true => {
            let content = |v: &Value| {
                ["data", "binaryData", "stringData", "immutable"].map(|field| v[field].clone())
            };
            (content(old) != content(new))
                .then(|| format!("data: field is immutable when `immutable` is set; {ANEW}"))
        }
        "priorityclasses" => ["value", "preemptionPolicy"]
            .iter()
            .find(|field| old[**field] != new[**field])
            .map(|field| format!("{field}: field is immutable; {ANEW}")),
        "pods" => pod(&old["spec"], &new["spec"]),
        _ => of_kind(plural, old, new),
    }
}

/// What the kind itself says of the change.
fn of_kind(plural: &str, old: &Value, new: &Value) -> Option<String> {
    let kind = Registry::builtin().by_plural(plural)?;
    let changes = (kind.immutable_changes)(old.clone(), new.clone());
    if changes.is_empty() {
        return None;
    }
    let all: Vec<String> = changes.iter().map(ToString::to_string).collect();
    Some(format!("{}; {ANEW}", all.join("; ")))
}

fn pod(old: &Value, new: &Value) -> Option<String> {
    if let Some(why) = gated::refusal(old, new) {
        return Some(format!("{why}; {ANEW}"));
    }
    let gated = gated::is_gated(old);
    let fixed = |spec: &Value| fixed(spec, gated);
    if fixed(old) != fixed(new) {
        let changed = changed(&fixed(old), &fixed(new)).join(", ");
        return Some(format!(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`, \
             `spec.initContainers[*].image`, `spec.activeDeadlineSeconds` and `spec.tolerations` (only additions to existing \
             tolerations); changed: {changed}; {ANEW}, or let a Deployment replace its pods"
        ));
    }
    if removes_tolerations(&old["tolerations"], &new["tolerations"]) {
        return Some(format!(
            "spec.tolerations: Forbidden: existing tolerations can not be modified except for their tolerationSeconds; {ANEW}"
        ));
    }
    let deadline = |spec: &Value| spec["activeDeadlineSeconds"].as_i64();
    match (deadline(old), deadline(new)) {
        (Some(_), None) => Some(format!(
            "spec.activeDeadlineSeconds: Invalid value: must not be removed once it is set; {ANEW}"
        )),
        (Some(before), Some(after)) if after > before => Some(format!(
            "spec.activeDeadlineSeconds: Invalid value: {after}: must be less than or equal to the previous value, {before}; {ANEW}"
        )),
        _ => None,
    }
}

/// What of a pod's spec stays as it is for life. What [`gated`] has looked at is not in it.
fn fixed(spec: &Value, gated: bool) -> Value {
    let mut spec = spec.clone();
    if let Some(map) = spec.as_object_mut() {
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            map.remove(field);
        }
        if gated {
            gated::forget(map);
        }
        for list in ["containers", "initContainers"] {
            for container in map
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Some(c) = container.as_object_mut() {
                    c.remove("image");
                    // Its default follows from the image's tag.
                    c.remove("imagePullPolicy");
                }
            }
        }
    }
    spec
}

/// The fields of a spec that differ, as paths. One level is told; containers are told apart by their place.
fn changed(old: &Value, new: &Value) -> Vec<String> {
    let names = |v: &Value| -> Vec<String> {
        let map = v.as_object().into_iter();
        map.flat_map(|m| m.keys().cloned()).collect()
    };
    let mut fields = names(old);
    fields.extend(names(new));
    fields.sort();
    fields.dedup();
    let mut paths = Vec::new();
    for field in fields.iter().filter(|f| old[*f] != new[*f]) {
        match (old[field].as_array(), new[field].as_array()) {
            (Some(a), Some(b)) if a.len() == b.len() && field.ends_with("ontainers") => {
                for (i, (a, b)) in a.iter().zip(b).enumerate() {
                    let inner = changed(a, b);
                    let inner = inner.iter().map(|p| p.trim_start_matches("spec."));
                    paths.extend(inner.map(|p| format!("spec.{field}[{i}].{p}")));
                }
            }
            _ => paths.push(format!("spec.{field}")),
        }
    }
    paths
}

/// Whether a toleration is missing or another one now; only how long it tolerates may change.
fn removes_tolerations(old: &Value, new: &Value) -> bool {
    let list = |v: &Value| -> Vec<Value> {
        let mut all = v.as_array().cloned().unwrap_or_default();
        for toleration in all.iter_mut().filter_map(Value::as_object_mut) {
            toleration.remove("tolerationSeconds");
        }
        all
    };
    let new = list(new);
    list(old).iter().any(|t| !new.contains(t))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(field: &str, value: Value) -> Value {
        let mut pod = json!({"spec": {
            "containers": [{"name": "c", "image": "x", "imagePullPolicy": "IfNotPresent"}, {"name": "d", "image": "x"}],
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "activeDeadlineSeconds": 100,
            "terminationGracePeriodSeconds": 30,
        }});
        if let Some(place) = pod.pointer_mut(field) {
            *place = value;
        } else {
            pod["spec"][field] = value;
        }
        pod
    }

    #[test]
    fn of_a_pod_only_what_kubernetes_lets_change_changes() {
        let old = pod("/spec/activeDeadlineSeconds", json!(100));
        let a = json!({"key": "a", "operator": "Exists"});
        let longer = json!({"key": "a", "operator": "Exists", "tolerationSeconds": 5});
        let b = json!({"key": "b", "operator": "Exists"});
        for (field, value, refused) in [
            ("/spec/containers/0/image", json!("y"), None),
            ("/spec/containers/0/imagePullPolicy", json!("Always"), None),
            ("/spec/activeDeadlineSeconds", json!(50), None),
            (
                "/spec/activeDeadlineSeconds",
                json!(150),
                Some("spec.activeDeadlineSeconds: Invalid value: 150"),
            ),
            (
                "/spec/activeDeadlineSeconds",
                Value::Null,
                Some("must not be removed"),
            ),
            ("/spec/tolerations", json!([b, a]), None),
            ("/spec/tolerations", json!([longer]), None),
            (
                "/spec/tolerations",
                json!([b]),
                Some("spec.tolerations: Forbidden"),
            ),
            (
                "/spec/tolerations",
                json!([]),
                Some("spec.tolerations: Forbidden"),
            ),
            (
                "/spec/terminationGracePeriodSeconds",
                json!(5),
                Some("changed: spec.terminationGracePeriodSeconds;"),
            ),
            (
                "/spec/containers/1/name",
                json!("e"),
                Some("changed: spec.containers[1].name;"),
            ),
            (
                "/spec/containers",
                json!([]),
                Some("changed: spec.containers;"),
            ),
            (
                "restartPolicy",
                json!("Never"),
                Some("changed: spec.restartPolicy;"),
            ),
        ] {
            let found = refusal("pods", &old, &pod(field, value.clone()));
            match refused {
                None => assert_eq!(found, None, "{field}: {value}"),
                Some(words) => {
                    let found = found.unwrap_or_else(|| panic!("{field}: {value} is taken"));
                    assert!(found.contains(words) && found.contains("delete"), "{found}");
                }
            }
        }
        let mut labelled = old.clone();
        labelled["metadata"] = json!({"labels": {"app": "x"}});
        assert_eq!(refusal("pods", &old, &labelled), None);
    }

    #[test]
    fn selectors_and_immutable_content_stay() {
        let workload = |kind: &str, app: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "x"},
                "spec": {
                    "selector": {"matchLabels": {"app": app}},
                    "template": {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
                },
            })
        };
        for (plural, kind) in [
            ("deployments", "Deployment"),
            ("replicasets", "ReplicaSet"),
            ("daemonsets", "DaemonSet"),
            ("statefulsets", "StatefulSet"),
        ] {
            let (old, new) = (workload(kind, "a"), workload(kind, "b"));
            let why = refusal(plural, &old, &new).unwrap();
            assert!(
                why.starts_with("spec.selector: field is immutable; ") && why.contains("delete"),
                "{why}"
            );
            let mut scaled = old.clone();
            scaled["spec"]["minReadySeconds"] = json!(5);
            assert_eq!(refusal(plural, &old, &scaled), None);
        }
        let map = |v: &str| json!({"data": {"k": v}, "immutable": true});
        assert!(refusal("configmaps", &map("a"), &map("b")).is_some());
        assert_eq!(refusal("configmaps", &map("a"), &map("a")), None);
    }
}
