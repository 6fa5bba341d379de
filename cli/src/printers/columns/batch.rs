//! The columns of Jobs and CronJobs.

use serde_json::Value;
use setpoint_apis::time::Timestamp;

use super::{AGE, Column, NAME, column, containers_at, of_containers, selector, wide};
use crate::object::Object;
use crate::printers::age;

pub(super) const JOB: &[Column] = &[
    NAME,
    column("STATUS", |o, _| state(o).into()),
    column("COMPLETIONS", |o, _| completions(o)),
    column("DURATION", duration),
    AGE,
    wide("CONTAINERS", |o, _| of_containers(o, "name")),
    wide("IMAGES", |o, _| of_containers(o, "image")),
    wide("SELECTOR", |o, _| match o.at(&["spec", "selector"]) {
        Some(own) => selector(Some(own)),
        None => format!("batch.kubernetes.io/controller-uid={}", o.uid()),
    }),
];

pub(super) const CRON_JOB: &[Column] = &[
    NAME,
    column("SCHEDULE", |o, _| o.text_at(&["spec", "schedule"]).into()),
    column("TIMEZONE", |o, _| match o.text_at(&["spec", "timeZone"]) {
        "" => "<none>".into(),
        zone => zone.into(),
    }),
    column("SUSPEND", |o, _| {
        let suspended = o.at(&["spec", "suspend"]) == Some(&Value::Bool(true));
        if suspended { "True" } else { "False" }.into()
    }),
    column("ACTIVE", |o, _| {
        o.list_at(&["status", "active"]).len().to_string()
    }),
    column("LAST SCHEDULE", |o, now| {
        match o.time_at(&["status", "lastScheduleTime"]) {
            Some(last) => age::since(Some(last), now),
            None => "<none>".into(),
        }
    }),
    AGE,
    wide("CONTAINERS", |o, _| containers_at(o, CONTAINERS, "name")),
    wide("IMAGES", |o, _| containers_at(o, CONTAINERS, "image")),
];

const CONTAINERS: &[&str] = &[
    "spec",
    "jobTemplate",
    "spec",
    "template",
    "spec",
    "containers",
];

fn state(o: &Object) -> &'static str {
    let states = [
        "Complete",
        "Failed",
        "Suspended",
        "SuccessCriteriaMet",
        "FailureTarget",
    ];
    let is = |type_: &&str| o.condition(type_).is_some_and(|c| c["status"] == "True");
    states.into_iter().find(is).unwrap_or("Running")
}

fn completions(o: &Object) -> String {
    let done = o.number_at(&["status", "succeeded"]);
    match o.at(&["spec", "completions"]) {
        Some(wanted) => format!("{done}/{wanted}"),
        None => match o.number_at(&["spec", "parallelism"]) {
            n if n > 1 => format!("{done}/1 of {n}"),
            _ => format!("{done}/1"),
        },
    }
}

fn duration(o: &Object, now: Timestamp) -> String {
    match o.time_at(&["status", "startTime"]) {
        None => String::new(),
        Some(start) => {
            let end = o.time_at(&["status", "completionTime"]).unwrap_or(now);
            age::since(Some(start), end)
        }
    }
}
