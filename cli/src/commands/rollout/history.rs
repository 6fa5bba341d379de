//! The revisions of a workload: a Deployment's ReplicaSets, the ControllerRevisions of the others.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use setpoint_apis::core::PodTemplateSpec;
use setpoint_apis::{ObjectKey, document};
use setpoint_workloads::deployment::plan::REVISION;

use super::progress::no_rollouts;
use super::{TargetArgs, each, not_found};
use crate::client::Client;
use crate::context::Context;
use crate::kinds::{self, KindInfo};
use crate::object::Object;
use crate::printers::table::Table;
use crate::printers::{self, Format, age};

/// The annotation that says why a revision was made.
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// One revision.
pub(super) struct Revision {
    /// Its number: the one that was asked for last has the greatest.
    pub(super) number: i64,
    /// The object that keeps it.
    pub(super) object: Object,
    /// Its pod template, as it is kept.
    pub(super) template: PodTemplateSpec,
}

/// A workload and its revisions, by number.
pub(super) async fn revisions(
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
) -> Result<(Object, Vec<Revision>)> {
    let (plural, path): (_, &[&str]) = match kind.plural {
        "deployments" => ("replicasets", &["spec", "template"]),
        "statefulsets" | "daemonsets" => ("controllerrevisions", &["data", "spec", "template"]),
        _ => bail!("{}", no_rollouts(kind)),
    };
    let object = client
        .find(kind, key)
        .await?
        .with_context(|| not_found(&kind, key))?;
    let kept = kinds::builtin(plural);
    let uid = object.uid().to_owned();
    let listing = client.list(kept, Some(&key.namespace)).await?;
    let mut found = Vec::new();
    for kept in listing.objects {
        if !owned(&kept, &uid) {
            continue;
        }
        let number = match plural {
            "replicasets" => kept
                .text_at(&["metadata", "annotations", REVISION])
                .parse()
                .unwrap_or(0),
            _ => kept.number_at(&["revision"]),
        };
        let template = kept.at(path).cloned().unwrap_or(Value::Null);
        let Ok(template) = serde_json::from_value(template) else {
            continue;
        };
        found.push(Revision {
            number,
            object: kept,
            template,
        });
    }
    found.sort_by_key(|r| r.number);
    Ok((object, found))
}

/// Whether the object of this uid is among the owners.
pub(super) fn owned(object: &Object, uid: &str) -> bool {
    let owners = object.list_at(&["metadata", "ownerReferences"]);
    owners.iter().any(|o| o["uid"] == uid)
}

/// What is remarkable about a revision: it runs, it has failed, ...
fn note(object: &Object, revision: &Revision, newest: bool) -> &'static str {
    let name = &*revision.object.key.name;
    let record = |field: &str| object.text_at(&["status", "rollback", field]) == name;
    if record("failedRevision") {
        "failed"
    } else if record("toRevision") {
        "runs instead"
    } else if newest && object.at(&["status", "rollback"]).is_none() {
        "current"
    } else {
        ""
    }
}

/// `rollout history`.
pub(super) async fn run(
    context: &mut Context,
    targets: &TargetArgs,
    one: Option<i64>,
    output: Option<&Format>,
) -> Result<()> {
    printers::check_of_objects(output)?;
    let client = context.client().await?;
    let now = context.now();
    let mut kept = Vec::new();
    let targets = targets.find(context, &client).await?;
    let shown = each(context, targets, async |context, kind, key| {
        let (object, all) = revisions(&client, kind, key).await?;
        let name = object.full_name();
        if output.is_some() {
            match one {
                Some(number) => kept.push(find(&name, &all, number)?.object.clone()),
                None => kept.extend(all.into_iter().map(|r| r.object)),
            }
            return Ok(());
        }
        if let Some(number) = one.filter(|n| *n != 0) {
            let revision = find(&name, &all, number)?;
            context.out.line(format_args!("{name} revision {number}"));
            let text = document::encode(&revision.template);
            context.out.line(text.trim_end());
            return Ok(());
        }
        context.out.line(&name);
        let mut table = Table::new(["REVISION", "NAME", "AGE", "STATE", "CHANGE-CAUSE"]);
        let newest = all.last().map(|r| r.number);
        let row = |r: &Revision| {
            let cause = r.object.text_at(&["metadata", "annotations", CHANGE_CAUSE]);
            vec![
                r.number.to_string(),
                r.object.key.name.to_string(),
                age::since(r.object.created, now),
                note(&object, r, newest == Some(r.number)).to_owned(),
                if cause.is_empty() { "<none>" } else { cause }.to_owned(),
            ]
        };
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        table.print(&mut context.out, &rows);
        Ok(())
    })
    .await;
    // What was found of several is shown although others have failed.
    if let Some(format) = output.filter(|_| shown.is_ok() || !kept.is_empty()) {
        printers::document(&mut context.out, format, &kept, kept.len() != 1)?;
    }
    shown
}

/// An error when another revision than this one was asked for last.
pub(super) async fn check_newest(
    client: &Client,
    kind: KindInfo,
    key: &ObjectKey,
    wanted: i64,
) -> Result<()> {
    let (object, all) = revisions(client, kind, key).await?;
    let name = object.full_name();
    let wanted = find(&name, &all, wanted)?.number;
    match all.last().map(|r| r.number) {
        Some(newest) if newest != wanted => {
            bail!("{name}: the revision {wanted} is not the one that was asked for last, {newest}")
        }
        _ => Ok(()),
    }
}

/// The revision of a number.
pub(super) fn find<'a>(name: &str, all: &'a [Revision], number: i64) -> Result<&'a Revision> {
    let found = all.iter().find(|r| r.number == number);
    found.with_context(|| {
        let there: Vec<String> = all.iter().map(|r| r.number.to_string()).collect();
        format!(
            "{name} has no revision {number}: there are {}",
            if there.is_empty() {
                "none".to_owned()
            } else {
                there.join(", ")
            }
        )
    })
}
