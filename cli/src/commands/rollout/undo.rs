//! `setpoint rollout undo`: asks for the template of an earlier revision again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use setpoint_apis::ObjectKey;
use setpoint_apis::core::PodTemplateSpec;
use setpoint_workloads::config::COPY_OF;
use setpoint_workloads::deployment::plan::{
    DESIRED_REPLICAS, HASH_LABEL, LAST_APPLIED, MAX_REPLICAS, REVISION, REVISION_HISTORY,
};

use super::history::{self, Revision};
use super::{RESTARTED_AT, TargetArgs, each};
use crate::client::Client;
use crate::commands::DryRun;
use crate::context::Context;
use crate::kinds::{self, KindInfo};
use crate::object::{Object, pairs};
use crate::term;
use crate::write::{self, Modified, modify};
use crate::yaml_edit::{self, Change, Edited};

/// Annotations that a revision does not bring back: those that ReplicaSets and Deployments have of their own.
const OWN_ANNOTATIONS: [&str; 5] = [
    LAST_APPLIED,
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

/// What `rollout undo` was told.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// The revision; the one before otherwise.
    pub(super) to: Option<i64>,
    /// Whether the content that the revision read is put back.
    pub(super) restore_config: bool,
    /// Whether nothing is written.
    pub(super) dry_run: DryRun,
}

/// Runs the command.
pub(super) async fn run(context: &mut Context, targets: &TargetArgs, how: How) -> Result<()> {
    let client = context.client().await?;
    let dry_run = how.dry_run != DryRun::None;
    let targets = targets.find(context, &client).await?;
    each(context, targets, async |context, kind, key| {
        let (object, all) = history::revisions(&client, kind, key).await?;
        let name = object.full_name();
        if object.at(&["spec", "paused"]) == Some(&Value::Bool(true)) {
            bail!("{name} is paused: `setpoint rollout resume {name}` first");
        }
        let revision = choose(&object, &all, how.to)?;
        let copies = copies(&client, &object).await?;
        let template = plain(&revision.template, &copies);
        let changed: Vec<&Copied> = copies
            .iter()
            .filter(|c| c.is_read_by(&revision.template) && !c.same)
            .collect();
        let number = revision.number;
        if dry_run {
            let text = object.text.as_deref().unwrap_or_default();
            let says = match asks_for(kind, key, text, &template) {
                true => format!("asks for the template of revision {number} already"),
                false => format!("would go back to revision {number}"),
            };
            context.out.line(format_args!("{name} {says}"));
        }
        for copy in &changed {
            let of = &copy.of;
            if !how.restore_config {
                term::warn(format_args!(
                    "{of} is not what revision {number} read: it stays as it is now, unless you add --restore-config"
                ));
            } else if dry_run {
                context.out.line(format_args!("{of} would be put back"));
            } else {
                restore(&client, &object.key, copy).await?;
                context.out.line(format_args!("{of} put back"));
            }
        }
        if dry_run {
            return Ok(());
        }
        let written = serde_json::to_value(&template)?;
        let modified = modify(&client, kind, key, |text, _| {
            if asks_for(kind, key, text, &template) {
                return Ok(Edited::unchanged(text));
            }
            let now: Value =
                serde_yaml::from_str(text).context("the stored document is no YAML")?;
            write::edit(text, &back(&now, revision, &written))
        })
        .await?;
        modified.warn_when_rewritten(&name);
        match modified {
            Modified::Unchanged => context.out.line(format_args!(
                "{name} asks for the template of revision {number} already"
            )),
            Modified::Changed { .. } => context
                .out
                .line(format_args!("{name} goes back to revision {number}")),
        }
        Ok(())
    })
    .await
}

/// Whether a document asks for a template already, in whatever words. That is so after a rollout of changed ConfigMaps
/// that was taken back: the revisions differ in what they read alone, and to write the template down anew would change
/// nothing but the document.
fn asks_for(kind: KindInfo, key: &ObjectKey, text: &str, template: &PodTemplateSpec) -> bool {
    let Ok(now) = kind.read(key, text.as_bytes()) else {
        return false;
    };
    let now = serde_json::from_value(now["spec"]["template"].clone());
    now.is_ok_and(|now: PodTemplateSpec| now == *template)
}

/// The changes that take a document back: the template, and of a Deployment the annotations that its ReplicaSet has got
/// from it then, so that what was told of a revision is told of it again.
fn back(now: &Value, revision: &Revision, template: &Value) -> Vec<Change> {
    let mut changes = vec![Change::set(&["spec", "template"], template.clone())];
    // Whoever restarts it has set that by a command; a manifest that is applied again does not take it away.
    let way = ["spec", "template", "metadata", "annotations", RESTARTED_AT];
    if let Some(restarted) = template["metadata"]["annotations"].get(RESTARTED_AT) {
        changes.insert(0, Change::set(&way, restarted.clone()));
    }
    if revision.object.kind.plural != "replicasets" {
        return changes;
    }
    let place = |name: &str| {
        ["metadata", "annotations", name]
            .map(str::to_owned)
            .to_vec()
    };
    let before = pairs(revision.object.at(&["metadata", "annotations"]));
    let before = before.into_iter().filter(|(name, _)| is_restored(name));
    let before: BTreeMap<String, String> = before.collect();
    let now = pairs(now["metadata"].get("annotations"));
    let gone = now
        .keys()
        .filter(|name| is_restored(name) && !before.contains_key(*name));
    changes.extend(gone.map(|name| Change::Remove(place(name))));
    let set = before
        .iter()
        .filter(|(name, value)| now.get(*name) != Some(value));
    changes.extend(set.map(|(name, value)| Change::Set(place(name), value.as_str().into())));
    changes
}

/// Whether going back to a revision brings an annotation back: not what belongs to a ReplicaSet or Deployment itself, nor
/// what says how a rollout goes.
fn is_restored(name: &str) -> bool {
    !OWN_ANNOTATIONS.contains(&name) && !name.starts_with("setpoint.dev/")
}

/// The revision to go back to.
fn choose<'a>(object: &Object, all: &'a [Revision], to: Option<i64>) -> Result<&'a Revision> {
    let name = object.full_name();
    if let Some(number) = to.filter(|n| *n != 0) {
        return history::find(&name, all, number);
    }
    // After an automatic rollback what runs is what people mean by "before".
    let instead = object.text_at(&["status", "rollback", "toRevision"]);
    if let Some(revision) = all.iter().find(|r| *r.object.key.name == *instead) {
        return Ok(revision);
    }
    let before = all.len().checked_sub(2).and_then(|i| all.get(i));
    before.with_context(|| format!("{name} has no revision before its present one"))
}

/// A copy that a workload's revisions read.
struct Copied {
    /// Whether it is of a Secret.
    secret: bool,
    /// The name of the copy.
    name: String,
    /// `configmap/app`.
    of: String,
    /// What it is a copy of.
    source: String,
    /// Whether that is the same now.
    same: bool,
    copy: Object,
}

impl Copied {
    fn is_read_by(&self, template: &PodTemplateSpec) -> bool {
        let spec = &template.spec;
        if self.secret {
            spec.secrets().contains_key(self.name.as_str())
        } else {
            spec.config_maps().contains_key(self.name.as_str())
        }
    }
}

/// What an object of this kind holds.
const CONTENT: [&str; 3] = ["data", "binaryData", "stringData"];

async fn copies(client: &Client, object: &Object) -> Result<Vec<Copied>> {
    let mut found = Vec::new();
    for (plural, secret) in [("configmaps", false), ("secrets", true)] {
        let kind = kinds::builtin(plural);
        let all = client.list(kind, Some(&object.key.namespace)).await?;
        for copy in &all.objects {
            let source = copy.text_at(&["metadata", "annotations", COPY_OF]);
            if source.is_empty() || !history::owned(copy, object.uid()) {
                continue;
            }
            let now = all.objects.iter().find(|o| *o.key.name == *source);
            let same = |field: &str| now.is_some_and(|now| now.at(&[field]) == copy.at(&[field]));
            found.push(Copied {
                secret,
                name: copy.key.name.to_string(),
                of: format!("{}/{source}", kind.singular()),
                source: source.to_owned(),
                same: CONTENT.iter().all(|field| same(field)),
                copy: copy.clone(),
            });
        }
    }
    Ok(found)
}

/// The template as its user wrote it: without what the controller added.
fn plain(template: &PodTemplateSpec, copies: &[Copied]) -> PodTemplateSpec {
    let mut template = template.clone();
    template.metadata.labels.remove(HASH_LABEL);
    let source = |secret: bool, name: &str| {
        let copy = copies.iter().find(|c| c.secret == secret && c.name == name);
        copy.map(|c| c.source.clone())
    };
    std::sync::Arc::make_mut(&mut template.spec)
        .rename_content(&|name| source(false, name), &|name| source(true, name));
    template
}

/// Puts what is in a copy back into what it is a copy of.
async fn restore(client: &Client, workload: &ObjectKey, copy: &Copied) -> Result<()> {
    let kind = copy.copy.kind;
    let key = ObjectKey::namespaced(workload.namespace.clone(), copy.source.as_str());
    let changes: Vec<Change> = CONTENT
        .iter()
        .map(|field| match copy.copy.at(&[field]) {
            Some(value) => Change::set(&[field], value.clone()),
            None => Change::remove(&[field]),
        })
        .collect();
    modify(client, kind, &key, |text, _| {
        yaml_edit::edit(text, &changes)
    })
    .await
    .with_context(|| format!("{} could not be put back", copy.of))?;
    Ok(())
}
