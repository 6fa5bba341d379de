//! What workloads, autoscalers and limits want that their schemas do not say.

use serde_json::{Map, Value, json};

/// The types that [`fix`] knows.
pub(super) const FIXED: &[&str] = &[
    "StatefulSetUpdateStrategy",
    "DaemonSetUpdateStrategy",
    "RollingUpdateDaemonSet",
    "VolumeClaimTemplate",
    "JobSpec",
    "PodFailurePolicyOnExitCodesRequirement",
    "PodFailurePolicyOnPodConditionsPattern",
    "SuccessPolicyRule",
    "HorizontalPodAutoscalerSpec",
    "MetricSpec",
    "LimitRangeSpec",
    "LimitRangeItem",
];

/// Makes a value of a type valid. `unique` is a name that nothing else has.
pub(super) fn fix(type_name: &str, o: &mut Map<String, Value>, unique: String) {
    match type_name {
        "StatefulSetUpdateStrategy" | "DaemonSetUpdateStrategy" => {
            if o.get("type") == Some(&json!("OnDelete")) {
                o.remove("rollingUpdate");
            }
        }
        "RollingUpdateDaemonSet" => {
            if o.contains_key("maxUnavailable") {
                o.remove("maxSurge");
            } else if o.contains_key("maxSurge") {
                o.insert("maxUnavailable".into(), json!(0));
            }
        }
        "VolumeClaimTemplate" => {
            o.insert("metadata".into(), json!({ "name": unique }));
            o.entry("spec").or_insert(json!({
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Gi" } },
            }));
        }
        "JobSpec" => job_spec(o),
        "PodFailurePolicyOnExitCodesRequirement" => {
            o.remove("containerName");
            o.insert("values".into(), json!([1, 42, 137]));
        }
        "PodFailurePolicyOnPodConditionsPattern" => {
            o.insert("type".into(), "DisruptionTarget".into());
            o.insert("status".into(), "True".into());
        }
        "SuccessPolicyRule" => {
            o.insert("succeededIndexes".into(), "0".into());
            if o.contains_key("succeededCount") {
                o.insert("succeededCount".into(), json!(1));
            }
        }
        "HorizontalPodAutoscalerSpec" => {
            o.insert("maxReplicas".into(), json!(1000));
        }
        "MetricSpec" => metric(o),
        "LimitRangeSpec" => {
            if let Some(limits) = o.get_mut("limits").and_then(Value::as_array_mut) {
                limits.truncate(1);
            }
        }
        "LimitRangeItem" => limits(o),
        other => unreachable!("{other} is not in FIXED"),
    }
}

fn job_spec(o: &mut Map<String, Value>) {
    o.remove("selector");
    o.remove("manualSelector");
    o.remove("managedBy");
    if o.get("completionMode") == Some(&json!("Indexed")) {
        o.entry("completions").or_insert(json!(3));
    } else {
        o.remove("backoffLimitPerIndex");
        o.remove("successPolicy");
    }
    if o.contains_key("backoffLimitPerIndex") {
        o.insert("maxFailedIndexes".into(), json!(1));
    } else {
        o.remove("maxFailedIndexes");
    }
    let per_index = o.contains_key("backoffLimitPerIndex");
    if let Some(policy) = o.get_mut("podFailurePolicy") {
        for rule in policy["rules"].as_array_mut().into_iter().flatten() {
            if rule["action"] == "FailIndex" && !per_index {
                rule["action"] = json!("Count");
            }
        }
        if o.contains_key("podReplacementPolicy") {
            o.insert("podReplacementPolicy".into(), json!("Failed"));
        }
    }
}

fn metric(o: &mut Map<String, Value>) {
    let targets = [
        (
            "object",
            "Object",
            json!({ "type": "Value", "value": "10" }),
        ),
        (
            "pods",
            "Pods",
            json!({ "type": "AverageValue", "averageValue": "0.5" }),
        ),
        (
            "resource",
            "Resource",
            json!({ "type": "Utilization", "averageUtilization": 60 }),
        ),
        (
            "containerResource",
            "ContainerResource",
            json!({ "type": "AverageValue", "averageValue": "1Gi" }),
        ),
        (
            "external",
            "External",
            json!({ "type": "Value", "value": "3" }),
        ),
    ];
    for (field, type_, target) in targets {
        if let Some(source) = o.get_mut(field) {
            source["target"] = target;
            o.insert("type".into(), type_.into());
        }
    }
}

fn limits(o: &mut Map<String, Value>) {
    let amounts = match o["type"].as_str() {
        Some("Container") => json!({
            "min": { "cpu": "0.1" }, "defaultRequest": { "cpu": "200m", "memory": "1e3" },
            "default": { "cpu": 1 }, "max": { "cpu": "2" }, "maxLimitRequestRatio": { "cpu": "10" },
        }),
        Some("Pod") => json!({ "max": { "memory": "64Gi", "example.com/gpu": "4" } }),
        _ => json!({ "min": { "storage": "1Gi" }, "max": { "storage": "100Gi" } }),
    };
    let type_ = o["type"].clone();
    *o = amounts.as_object().cloned().unwrap_or_default();
    o.insert("type".into(), type_);
}

/// What holds across a Job's spec.
pub(super) fn job(spec: &mut Value) {
    let template = &mut spec["template"];
    if template["spec"].is_null() {
        template["spec"] = json!({ "containers": [{ "name": "a", "image": "host" }] });
    }
    template["metadata"] = json!({ "labels": { "app": "a" } });
    super::pod(&mut template["spec"]);
    template["spec"]["restartPolicy"] = json!("Never");
}
