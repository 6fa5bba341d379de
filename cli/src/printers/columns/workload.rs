//! The columns of the kinds that make pods, besides Deployments and ReplicaSets.

use serde_json::Value;

use super::{AGE, Column, NAME, column, of_containers, or_none, replicas, selector, wide};
use crate::object::{Object, pairs};

pub(super) const STATEFUL_SET: &[Column] = &[
    NAME,
    column("READY", |o, _| {
        let ready = o.number_at(&["status", "readyReplicas"]);
        format!("{ready}/{}", replicas(o))
    }),
    AGE,
    wide("CONTAINERS", |o, _| of_containers(o, "name")),
    wide("IMAGES", |o, _| of_containers(o, "image")),
];

pub(super) const DAEMON_SET: &[Column] = &[
    NAME,
    column("DESIRED", |o, _| status(o, "desiredNumberScheduled")),
    column("CURRENT", |o, _| status(o, "currentNumberScheduled")),
    column("READY", |o, _| status(o, "numberReady")),
    column("UP-TO-DATE", |o, _| status(o, "updatedNumberScheduled")),
    column("AVAILABLE", |o, _| status(o, "numberAvailable")),
    column("NODE SELECTOR", |o, _| {
        let labels = pairs(o.at(&["spec", "template", "spec", "nodeSelector"]));
        let all: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        or_none(&all.join(","))
    }),
    AGE,
    wide("CONTAINERS", |o, _| of_containers(o, "name")),
    wide("IMAGES", |o, _| of_containers(o, "image")),
    wide("SELECTOR", |o, _| selector(o.at(&["spec", "selector"]))),
];

pub(super) const REVISION: &[Column] = &[
    NAME,
    column("CONTROLLER", |o, _| or_none(&controller(o))),
    column("REVISION", |o, _| o.number_at(&["revision"]).to_string()),
    AGE,
];

pub(super) const AUTOSCALER: &[Column] = &[
    NAME,
    column("REFERENCE", |o, _| {
        let target = |field: &str| o.text_at(&["spec", "scaleTargetRef", field]);
        format!("{}/{}", target("kind"), target("name"))
    }),
    column("TARGETS", |o, _| or_none(&targets(o))),
    column("MINPODS", |o, _| {
        let least = o.at(&["spec", "minReplicas"]).and_then(Value::as_i64);
        least.unwrap_or(1).to_string()
    }),
    column("MAXPODS", |o, _| {
        o.number_at(&["spec", "maxReplicas"]).to_string()
    }),
    column("REPLICAS", |o, _| status(o, "currentReplicas")),
    AGE,
];

fn status(o: &Object, field: &str) -> String {
    o.number_at(&["status", field]).to_string()
}

/// `statefulset.apps/web`.
fn controller(o: &Object) -> String {
    let owners = o.list_at(&["metadata", "ownerReferences"]).iter();
    let Some(owner) = owners.into_iter().find(|r| r["controller"] == true) else {
        return String::new();
    };
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let kind = text("kind").to_lowercase();
    match text("apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text("name")),
        None => format!("{kind}/{}", text("name")),
    }
}

/// `cpu: 40%/80%, packets: 5/10 (avg)`: what was measured, and what it should be.
fn targets(o: &Object) -> String {
    let measured = o.list_at(&["status", "currentMetrics"]);
    let all: Vec<String> = o
        .list_at(&["spec", "metrics"])
        .iter()
        .enumerate()
        .filter_map(|(i, metric)| {
            let field = match metric["type"].as_str()? {
                "Resource" => "resource",
                "ContainerResource" => "containerResource",
                "Pods" => "pods",
                "Object" => "object",
                "External" => "external",
                _ => return None,
            };
            let source = &metric[field];
            let name = source["name"]
                .as_str()
                .or(source["metric"]["name"].as_str())?;
            let target = &source["target"];
            let (value, unit, mean) = if target["averageUtilization"].is_number() {
                ("averageUtilization", "%", "")
            } else if !target["averageValue"].is_null() {
                ("averageValue", "", " (avg)")
            } else {
                ("value", "", "")
            };
            let show = |v: &Value| match v {
                Value::Null => "<unknown>".to_owned(),
                Value::String(text) => format!("{text}{unit}"),
                other => format!("{other}{unit}"),
            };
            let now = measured
                .get(i)
                .map_or(&Value::Null, |m| &m[field]["current"][value]);
            Some(format!(
                "{name}: {}/{}{mean}",
                show(now),
                show(&target[value])
            ))
        })
        .collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use setpoint_apis::time::Timestamp;

    use super::*;
    use crate::printers::tests::object;

    fn row(columns: &[Column], o: &Object) -> String {
        let now = Timestamp::from_unix_seconds(100);
        let shown = columns
            .iter()
            .filter(|c| !c.wide && c.name != "NAME" && c.name != "AGE");
        let cells: Vec<String> = shown.map(|c| (c.cell)(o, now)).collect();
        cells.join(" | ")
    }

    #[test]
    fn the_other_kinds_show_what_kubectl_shows() {
        let of =
            |plural: &str, columns: &[Column], value: Value| row(columns, &object(plural, value));
        assert_eq!(
            of(
                "statefulsets",
                STATEFUL_SET,
                json!({"spec": {"replicas": 3}, "status": {"readyReplicas": 2}})
            ),
            "2/3"
        );
        assert_eq!(
            of(
                "daemonsets",
                DAEMON_SET,
                json!({
                    "spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}},
                    "status": {"desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2, "numberAvailable": 1},
                })
            ),
            "5 | 4 | 3 | 2 | 1 | a=b"
        );
        assert_eq!(
            of(
                "controllerrevisions",
                REVISION,
                json!({"revision": 4, "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}})
            ),
            "statefulset.apps/web | 4"
        );
        let metrics = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            {"type": "Pods", "pods": {"metric": {"name": "packets"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
        ]);
        assert_eq!(
            of(
                "horizontalpodautoscalers",
                AUTOSCALER,
                json!({
                    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 9, "metrics": metrics},
                    "status": {"currentReplicas": 2, "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40}}}]},
                })
            ),
            "Deployment/web | cpu: 40%/80%, packets: <unknown>/10 (avg) | 1 | 9 | 2"
        );
    }
}
