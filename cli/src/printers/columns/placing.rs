//! The columns of the kinds about placing.

use serde_json::Value;

use super::{AGE, Column, NAME, column, or_none, wide};
use crate::object::{Object, pairs};
use crate::printers::age;

pub(super) const PRIORITY_CLASS: &[Column] = &[
    NAME,
    column("VALUE", |o, _| o.number_at(&["value"]).to_string()),
    column("GLOBAL-DEFAULT", |o, _| {
        (o.at(&["globalDefault"]) == Some(&Value::Bool(true))).to_string()
    }),
    AGE,
    column("PREEMPTIONPOLICY", |o, _| {
        o.text_at(&["preemptionPolicy"]).into()
    }),
];

pub(super) const BUDGET: &[Column] = &[
    NAME,
    column("MIN AVAILABLE", |o, _| amount(o, "minAvailable")),
    column("MAX UNAVAILABLE", |o, _| amount(o, "maxUnavailable")),
    column("ALLOWED DISRUPTIONS", |o, _| {
        o.number_at(&["status", "disruptionsAllowed"]).to_string()
    }),
    AGE,
];

pub(super) const QUOTA: &[Column] = &[
    NAME,
    column("REQUEST", |o, _| {
        used(o, |name| !name.starts_with("limits."))
    }),
    column("LIMIT", |o, _| used(o, |name| name.starts_with("limits."))),
    AGE,
];

pub(super) const POD_GROUP: &[Column] = &[
    NAME,
    column("PHASE", |o, _| match o.text_at(&["status", "phase"]) {
        "" => "Incomplete".into(),
        phase => phase.into(),
    }),
    column("MIN", |o, _| {
        o.number_at(&["spec", "minMember"]).to_string()
    }),
    column("MEMBERS", |o, _| {
        o.number_at(&["status", "members"]).to_string()
    }),
    column("BOUND", |o, _| {
        o.number_at(&["status", "bound"]).to_string()
    }),
    AGE,
];

pub(super) const RESERVATION: &[Column] = &[
    NAME,
    column("RESERVED", |o, _| {
        let kept: i64 = o
            .list_at(&["status", "nodes"])
            .iter()
            .filter_map(|n| n["count"].as_i64())
            .sum();
        format!("{kept}/{}", o.number_at(&["spec", "count"]))
    }),
    column("RESOURCES", |o, _| amounts(o.at(&["spec", "resources"]))),
    column("USED", |o, _| amounts(o.at(&["status", "used"]))),
    column("EXPIRES", |o, now| {
        match o.time_at(&["status", "expiresAt"]) {
            None => "never".into(),
            Some(at) if at <= now => "expired".into(),
            Some(at) => age::since(Some(now), at),
        }
    }),
    AGE,
    wide("NODES", |o, _| {
        let names = o
            .list_at(&["status", "nodes"])
            .iter()
            .filter_map(|n| n["name"].as_str());
        or_none(&names.collect::<Vec<_>>().join(","))
    }),
];

pub(super) const PROFILE: &[Column] = &[
    NAME,
    column("STRATEGY", |o, _| o.text_at(&["spec", "strategy"]).into()),
    AGE,
    wide("WEIGHTS", |o, _| amounts(o.at(&["spec", "weights"]))),
];

pub(super) const LIMIT_RANGE: &[Column] = &[
    NAME,
    column("CREATED AT", |o, _| {
        o.created.map_or_else(String::new, |at| at.to_string())
    }),
];

/// A number or a percentage of the spec.
fn amount(o: &Object, field: &str) -> String {
    match o.at(&["spec", field]) {
        None | Some(Value::Null) => "N/A".into(),
        Some(Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
    }
}

/// `cpu=1,memory=1Gi`.
fn amounts(list: Option<&Value>) -> String {
    let all: Vec<String> = list
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, amount)| match amount {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        })
        .collect();
    or_none(&all.join(","))
}

/// `pods: 1/4, requests.cpu: 500m/2`: of what a quota says, the part with these names.
fn used(o: &Object, wanted: fn(&str) -> bool) -> String {
    let used = |name: &str| match o.text_at(&["status", "used", name]) {
        "" => "0".to_owned(),
        used => used.to_owned(),
    };
    let all: Vec<String> = pairs(o.at(&["spec", "hard"]))
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, hard)| format!("{name}: {}/{hard}", used(name)))
        .collect();
    all.join(", ")
}
