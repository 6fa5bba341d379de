//! The columns of the kinds that make pods, besides Deployments and ReplicaSets.

use serde_json::Value;
use setpoint_apis::time::Timestamp;

use super::{AGE, Column, NAME, column, of_containers, or_none, replicas, selector, wide};
use crate::object::{Object, pairs};
use crate::printers::age;

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

pub(super) const JOB: &[Column] = &[
    NAME,
    column("STATUS", |o, _| job_state(o).into()),
    column("COMPLETIONS", |o, _| completions(o)),
    column("DURATION", duration),
    AGE,
    wide("CONTAINERS", |o, _| of_containers(o, "name")),
    wide("IMAGES", |o, _| of_containers(o, "image")),
    wide("SELECTOR", |o, _| selector(o.at(&["spec", "selector"]))),
];

pub(super) const CRON_JOB: &[Column] = &[
    NAME,
    column("SCHEDULE", |o, _| o.text_at(&["spec", "schedule"]).into()),
    column("TIMEZONE", |o, _| or_none(o.text_at(&["spec", "timeZone"]))),
    column("SUSPEND", |o, _| {
        if is_suspended(o) { "True" } else { "False" }.into()
    }),
    column("ACTIVE", |o, _| {
        o.list_at(&["status", "active"]).len().to_string()
    }),
    column("LAST SCHEDULE", |o, now| {
        match o.time_at(&["status", "lastScheduleTime"]) {
            None => "<none>".into(),
            at => age::since(at, now),
        }
    }),
    AGE,
    wide("CONTAINERS", |o, _| of_jobs(o, "name")),
    wide("IMAGES", |o, _| of_jobs(o, "image")),
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

fn is_suspended(o: &Object) -> bool {
    o.at(&["spec", "suspend"]) == Some(&Value::Bool(true))
}

/// `Complete`, `Failed`, `Terminating`, `Suspended`, `FailureTarget`, `SuccessCriteriaMet` or `Running`.
fn job_state(o: &Object) -> &'static str {
    let is = |type_: &str| o.condition(type_).is_some_and(|c| c["status"] == "True");
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if o.terminating => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

/// `2/5`; of a Job without completions, one is enough: `0/1 of 3` while three try.
fn completions(o: &Object) -> String {
    let succeeded = o.number_at(&["status", "succeeded"]);
    let number = |field: &str| o.at(&["spec", field]).and_then(Value::as_i64);
    match (number("completions"), number("parallelism").unwrap_or(1)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, at_once) if at_once > 1 => format!("{succeeded}/1 of {at_once}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

/// How long a Job has run, or ran.
fn duration(o: &Object, now: Timestamp) -> String {
    let Some(start) = o.time_at(&["status", "startTime"]) else {
        return String::new();
    };
    let failed = || {
        let failed = o.condition("Failed").filter(|c| c["status"] == "True")?;
        failed["lastTransitionTime"].as_str()?.parse().ok()
    };
    let end = o.time_at(&["status", "completionTime"]).or_else(failed);
    age::since(Some(start), end.unwrap_or(now))
}

fn of_jobs(o: &Object, field: &str) -> String {
    let containers = o
        .list_at(&[
            "spec",
            "jobTemplate",
            "spec",
            "template",
            "spec",
            "containers",
        ])
        .iter();
    let all: Vec<&str> = containers.filter_map(|c| c[field].as_str()).collect();
    all.join(",")
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
    fn a_job_shows_how_far_it_is() {
        let job = |spec: Value, status: Value| {
            row(
                JOB,
                &object("jobs", json!({"spec": spec, "status": status})),
            )
        };
        let at = |s: i64| Timestamp::from_unix_seconds(s).to_string();
        assert_eq!(
            job(json!({"completions": 5}), json!({})),
            "Running | 0/5 | "
        );
        assert_eq!(
            job(
                json!({"completions": 5}),
                json!({"succeeded": 2, "startTime": at(40)})
            ),
            "Running | 2/5 | 60s"
        );
        let ended =
            |type_: &str| json!([{"type": type_, "status": "True", "lastTransitionTime": at(50)}]);
        assert_eq!(
            job(
                json!({"parallelism": 3}),
                json!({"startTime": at(40), "conditions": ended("Failed")})
            ),
            "Failed | 0/1 of 3 | 10s"
        );
        assert_eq!(
            job(
                json!({}),
                json!({"succeeded": 1, "startTime": at(40), "completionTime": at(45), "conditions": ended("Complete")})
            ),
            "Complete | 1/1 | 5s"
        );
        assert_eq!(
            job(
                json!({"suspend": true}),
                json!({"conditions": ended("Suspended")})
            ),
            "Suspended | 0/1 | "
        );
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
                "cronjobs",
                CRON_JOB,
                json!({"spec": {"schedule": "@daily"}, "status": {"active": [{}], "lastScheduleTime": "1970-01-01T00:01:00Z"}})
            ),
            "@daily | <none> | False | 1 | 40s"
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
