//! Deployments and ReplicaSets: how many, of what, how far.

use anyhow::Result;
use serde_json::Value;

use super::pod::containers;
use super::sheet::Sheet;
use crate::client::Client;
use crate::kinds;
use crate::object::Object;
use crate::printers::columns::{replicas, selector};

/// Adds what is particular to a workload.
pub(super) async fn describe(sheet: &mut Sheet, client: &Client, object: &Object) -> Result<()> {
    super::common(sheet, object, client.now());
    sheet.field("Selector", selector(object.at(&["spec", "selector"])));
    let status = |field: &str| object.number_at(&["status", field]);
    if object.kind.plural == "deployments" {
        let unavailable = status("unavailableReplicas");
        sheet.field(
            "Replicas",
            format!(
                "{} desired | {} updated | {} total | {} available | {unavailable} unavailable",
                replicas(object),
                status("updatedReplicas"),
                status("replicas"),
                status("availableReplicas"),
            ),
        );
        if let Some(reverted) = object.at(&["status", "revertedReplicas"]) {
            sheet.field(
                "Reverted",
                format!("{reverted} of the revision that runs instead"),
            );
        }
        sheet.field(
            "StrategyType",
            object.text_at(&["spec", "strategy", "type"]),
        );
        if let Some(rolling) = object.at(&["spec", "strategy", "rollingUpdate"]) {
            let part = |field: &str| crate::printers::jsonpath::plain(&rolling[field]);
            sheet.field(
                "RollingUpdate",
                format!(
                    "{} max unavailable, {} max surge",
                    part("maxUnavailable"),
                    part("maxSurge")
                ),
            );
        }
        if object.at(&["spec", "paused"]).and_then(Value::as_bool) == Some(true) {
            sheet.field("Paused", "true: changes of the template wait");
        }
    } else {
        sheet.field(
            "Replicas",
            format!(
                "{} current / {} desired",
                status("replicas"),
                replicas(object)
            ),
        );
        sheet.field("Ready", status("readyReplicas"));
    }
    sheet.section("Pod Template", |s| {
        s.pairs(
            "Labels",
            &crate::object::pairs(object.at(&["spec", "template", "metadata", "labels"])),
        );
        containers(
            s,
            "Init Containers",
            object.list_at(&["spec", "template", "spec", "initContainers"]),
            &[],
        );
        containers(
            s,
            "Containers",
            object.list_at(&["spec", "template", "spec", "containers"]),
            &[],
        );
    });
    conditions(sheet, object);
    if object.kind.plural == "deployments" {
        let sets = client
            .list(kinds::builtin("replicasets"), Some(&object.key.namespace))
            .await?
            .objects;
        let mut own: Vec<&Object> = sets
            .iter()
            .filter(|rs| {
                rs.list_at(&["metadata", "ownerReferences"])
                    .iter()
                    .any(|o| o["uid"] == object.uid())
                    || is_broken_set_of(rs, &object.key.name)
            })
            .collect();
        own.sort_by_key(|rs| std::cmp::Reverse(rs.revisions.map(|r| r.created)));
        let line = |rs: &&Object| {
            if rs.is_unreadable() {
                return format!(
                    "{} (Invalid, {} replicas)",
                    rs.key.name,
                    rs.number_at(&["status", "replicas"])
                );
            }
            format!(
                "{} ({}/{} replicas)",
                rs.key.name,
                rs.number_at(&["status", "replicas"]),
                replicas(rs)
            )
        };
        let (active, idle): (Vec<&Object>, Vec<&Object>) = own
            .into_iter()
            .partition(|rs| replicas(rs) > 0 || rs.number_at(&["status", "replicas"]) > 0);
        let join = |list: &[&Object]| match list {
            [] => "<none>".to_owned(),
            list => list.iter().map(line).collect::<Vec<_>>().join("\n"),
        };
        sheet.field("ReplicaSets", join(&active));
        if !idle.is_empty() {
            sheet.field("Old ReplicaSets", join(&idle));
        }
    }
    Ok(())
}

/// Whether a ReplicaSet that does not say whose it is has a name that the Deployment would have given it.
fn is_broken_set_of(set: &Object, deployment: &str) -> bool {
    let hash = set.key.name.strip_prefix(deployment);
    let hash = hash.and_then(|rest| rest.strip_prefix('-'));
    set.is_unreadable() && hash.is_some_and(|hash| !hash.is_empty() && !hash.contains('-'))
}

/// Adds the conditions, with their reasons and sentences.
pub(super) fn conditions(sheet: &mut Sheet, object: &Object) {
    let rows: Vec<Vec<String>> = object
        .list_at(&["status", "conditions"])
        .iter()
        .map(|c| {
            ["type", "status", "reason", "message"]
                .map(|f| c[f].as_str().unwrap_or_default().replace('\n', " "))
                .to_vec()
        })
        .collect();
    if !rows.is_empty() {
        sheet.section("Conditions", |s| {
            s.table(&["Type", "Status", "Reason", "Message"], &rows)
        });
    }
}
