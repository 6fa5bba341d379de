//! What may not be changed once it is there, as in Kubernetes.

use serde_json::Value;

/// Why a change of an object is refused, if it is. Both values have their defaults.
pub(super) fn refusal(plural: &str, old: &Value, new: &Value) -> Option<String> {
    match plural {
        "deployments" | "replicasets" if old["spec"]["selector"] != new["spec"]["selector"] => {
            Some("spec.selector: field is immutable; delete the object and create it anew".into())
        }
        "configmaps" | "secrets" if old["immutable"] == true => {
            let content = |v: &Value| [v["data"].clone(), v["binaryData"].clone(), v["stringData"].clone(), v["immutable"].clone()];
            (content(old) != content(new)).then(|| "it is immutable; delete it and create it anew".into())
        }
        "pods" if fixed(&old["spec"]) != fixed(&new["spec"]) => Some(
            "the spec of a pod cannot be changed, except spec.containers[*].image, spec.initContainers[*].image, \
             spec.activeDeadlineSeconds, spec.terminationGracePeriodSeconds and spec.tolerations; delete it and create it \
             anew, or let a Deployment do that"
                .into(),
        ),
        _ => None,
    }
}

/// What of a pod's spec stays as it is for life.
fn fixed(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let Some(map) = spec.as_object_mut() {
        for field in [
            "activeDeadlineSeconds",
            "terminationGracePeriodSeconds",
            "tolerations",
        ] {
            map.remove(field);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_kubernetes_fixes_is_fixed() {
        let pod = |command: &str, image: &str| json!({"spec": {"containers": [{"name": "c", "image": image, "command": [command]}]}});
        assert_eq!(refusal("pods", &pod("a", "x"), &pod("a", "y")), None);
        assert!(refusal("pods", &pod("a", "x"), &pod("b", "x")).is_some());
        let selector = |v: &str| json!({"spec": {"selector": {"matchLabels": {"app": v}}}});
        assert!(refusal("deployments", &selector("a"), &selector("b")).is_some());
        assert_eq!(refusal("deployments", &selector("a"), &selector("a")), None);
        let map = |v: &str| json!({"data": {"k": v}, "immutable": true});
        assert!(refusal("configmaps", &map("a"), &map("b")).is_some());
        assert_eq!(refusal("configmaps", &map("a"), &map("a")), None);
    }
}
