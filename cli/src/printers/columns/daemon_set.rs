//! The columns of DaemonSets, and of the revisions that they and StatefulSets have.

use super::{AGE, Column, NAME, column, of_containers, selector, wide};
use crate::object::Object;

fn counted(o: &Object, field: &str) -> String {
    o.number_at(&["status", field]).to_string()
}

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("DESIRED", |o, _| counted(o, "desiredNumberScheduled")),
    column("CURRENT", |o, _| counted(o, "currentNumberScheduled")),
    column("READY", |o, _| counted(o, "numberReady")),
    column("UP-TO-DATE", |o, _| counted(o, "updatedNumberScheduled")),
    column("AVAILABLE", |o, _| counted(o, "numberAvailable")),
    column("NODE SELECTOR", |o, _| {
        selector(o.at(&["spec", "template", "spec", "nodeSelector"]))
    }),
    AGE,
    wide("CONTAINERS", |o, _| of_containers(o, "name")),
    wide("IMAGES", |o, _| of_containers(o, "image")),
    wide("SELECTOR", |o, _| selector(o.at(&["spec", "selector"]))),
];

/// Whether the column of this name shows a number that the controller has counted.
pub(super) fn is_counted(name: &str) -> bool {
    ["DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE"].contains(&name)
}

pub(super) const REVISION: &[Column] = &[
    NAME,
    column("CONTROLLER", |o, _| {
        let owners = o.list_at(&["metadata", "ownerReferences"]).iter();
        let mut controllers = owners.filter(|r| r["controller"] == true);
        controllers.next().map_or_else(
            || "<none>".into(),
            |r| {
                let text = |field: &str| r[field].as_str().unwrap_or_default();
                let group = text("apiVersion").split_once('/').map_or("", |(g, _)| g);
                format!("{}.{group}/{}", text("kind").to_lowercase(), text("name"))
            },
        )
    }),
    column("REVISION", |o, _| o.number_at(&["revision"]).to_string()),
    AGE,
];
