//! Workloads whose size an autoscaler decides: how many pods they have then, and that they keep these when it is deleted.
//!
//! An autoscaler records its decision, and the number of the workload's document stays as its user wrote it. So a command
//! that writes that number changes no size while the autoscaler is there; and without it that number would hold at once,
//! where Kubernetes leaves the workload as it is.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;
use setpoint_apis::apps::{Deployment, ReplicaSet, StatefulSet};
use setpoint_apis::autoscaling::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use setpoint_apis::resolve::{Scalers, scaled_plural};
use setpoint_apis::{Kind, ObjectKey};

use crate::client::Client;
use crate::kinds::{self, KindInfo};
use crate::object::Object;
use crate::write::{self, modify};
use crate::yaml_edit::{Change, Edited};

/// A workload: plural and name.
type Target = (&'static str, ObjectKey);

/// The autoscalers of a namespace with what they have recorded, by name.
pub(crate) struct Autoscalers(Vec<Autoscaler>);

struct Autoscaler {
    key: ObjectKey,
    /// `None`: it cannot be read.
    document: Option<HorizontalPodAutoscaler>,
    /// `None`: there is nothing, or it cannot be read.
    recorded: Option<HorizontalPodAutoscalerStatus>,
    /// What it is about, as far as its document says that.
    target: Option<(&'static str, String)>,
    /// Why its document or its record cannot be read.
    invalid: Option<String>,
}

impl Autoscaler {
    fn name(&self) -> String {
        kinds::builtin(HorizontalPodAutoscaler::PLURAL).full_name(&self.key.name)
    }
}

impl Autoscalers {
    /// Those of a namespace but for the ones that `gone` names.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn read(
        client: &Client,
        namespace: &str,
        gone: impl Fn(&ObjectKey) -> bool,
    ) -> Result<Self> {
        let kind = kinds::builtin(HorizontalPodAutoscaler::PLURAL);
        let listed = client.list(kind, Some(namespace)).await?.objects;
        let here = listed.into_iter().filter(|o| !gone(&o.key));
        let all = here.map(|object| {
            let recorded = object.at(&["status"]).cloned();
            let recorded = recorded.map(serde_json::from_value).transpose();
            let (recorded, wrong) = match recorded {
                Ok(recorded) => (recorded, None),
                Err(error) => (None, Some(format!("its status: {error}"))),
            };
            Autoscaler {
                document: read_spec(&object),
                recorded,
                target: target(&object),
                key: object.key,
                invalid: object.invalid.or(wrong),
            }
        });
        Ok(Self(all.collect()))
    }

    /// The autoscaler that is about a workload.
    fn about(&self, plural: &str, key: &ObjectKey) -> Option<&Autoscaler> {
        let all = self.0.iter().map(|a| (&a.key, a.document.as_ref()));
        let (name, _) = Scalers::of(all).about((plural, &key.name))?;
        self.0.iter().find(|a| a.key == *name)
    }

    /// The autoscaler that decides how many pods a workload has, when its document asks for any at all, and how many that
    /// are; `None` when the document's number holds.
    pub(crate) fn decides(&self, plural: &str, key: &ObjectKey) -> Option<(String, i32)> {
        let scaler = self.about(plural, key)?;
        let spec = &scaler.document.as_ref()?.spec;
        Some((scaler.name(), spec.decided(scaler.recorded.as_ref()?)?))
    }

    /// The autoscaler of a workload, or one that may be, that cannot be read, and why: a size that was decided holds until
    /// it can.
    pub(crate) fn broken(&self, plural: &str, key: &ObjectKey) -> Option<(String, &str)> {
        let scaler = self.about(plural, key).or_else(|| {
            let unreadable = || self.0.iter().filter(|a| a.document.is_none());
            let is_its = |a: &&Autoscaler| match &a.target {
                Some((of, name)) => *of == plural && **name == *key.name,
                None => false,
            };
            unreadable().find(is_its).or_else(|| unreadable().next())
        })?;
        Some((scaler.name(), scaler.invalid.as_deref()?))
    }
}

fn read_spec(object: &Object) -> Option<HorizontalPodAutoscaler> {
    let spec = object.at(&["spec"])?.clone();
    Some(HorizontalPodAutoscaler {
        spec: serde_json::from_value(spec).ok()?,
        ..HorizontalPodAutoscaler::default()
    })
}

/// The number of pods in a document.
pub(crate) fn resize(text: &str, replicas: i32) -> Result<Edited> {
    let change = Change::set(&["spec", "replicas"], Value::from(replicas));
    write::edit(text, &[change])
}

/// A workload that has so many pods because of an autoscaler that is going to be deleted.
pub(crate) struct Kept {
    kind: KindInfo,
    key: ObjectKey,
    replicas: i32,
}

impl Kept {
    /// `deployment.apps/web`.
    fn name(&self) -> String {
        self.kind.full_name(&self.key.name)
    }

    /// What is said of it.
    pub(crate) fn line(&self, is_done: bool) -> String {
        let keeps = if is_done { "keeps" } else { "would keep" };
        let replicas = match self.replicas {
            1 => "its 1 replica".to_owned(),
            n => format!("its {n} replicas"),
        };
        format!("{} {keeps} {replicas}", self.name())
    }

    /// Writes the number into its document, as `scale` does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) async fn write(&self, client: &Client) -> Result<()> {
        let modified = modify(client, self.kind, &self.key, |text, stored| {
            let now = self.kind.read(&self.key, &stored.value)?;
            // Somebody has scaled it to nothing since: no autoscaler had a say in that.
            if now["spec"]["replicas"] == 0 {
                return Ok(Edited::unchanged(text));
            }
            resize(text, self.replicas)
        })
        .await
        .with_context(|| format!("keeping the size of {}", self.name()))?;
        modified.warn_when_rewritten(&self.name());
        Ok(())
    }
}

/// The workloads that would change their size by the deletion of the autoscalers among `objects`: neither those that are
/// deleted too, nor those that other autoscalers decide for.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn kept(client: &Client, objects: &[Object]) -> Result<Vec<Kept>> {
    let is_scaler = |o: &&Object| o.kind.plural == HorizontalPodAutoscaler::PLURAL;
    let mut targets: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    for scaler in objects.iter().filter(is_scaler) {
        let namespace = scaler.key.namespace.to_string();
        let may_be = match target(scaler) {
            Some((plural, name)) => {
                vec![(plural, ObjectKey::namespaced(namespace.as_str(), name))]
            }
            // It may be about any.
            None => scaled(client, &namespace).await?,
        };
        let all = targets.entry(namespace).or_default();
        for target in may_be {
            if !all.contains(&target) {
                all.push(target);
            }
        }
    }
    let is_deleted = |plural: &str, key: &ObjectKey| {
        objects.iter().any(|o| match o.kind.plural {
            "namespaces" => o.key.name == key.namespace,
            of => of == plural && o.key == *key,
        })
    };
    let mut kept = Vec::new();
    for (namespace, targets) in targets {
        let gone = |key: &ObjectKey| is_deleted(HorizontalPodAutoscaler::PLURAL, key);
        let left = Autoscalers::read(client, &namespace, gone).await?;
        for (plural, key) in targets {
            if is_deleted(plural, &key) || left.decides(plural, &key).is_some() {
                continue;
            }
            let kind = kinds::builtin(plural);
            if let Some(replicas) = client.find(kind, &key).await?.and_then(|o| in_use(&o)) {
                kept.push(Kept {
                    kind,
                    key,
                    replicas,
                });
            }
        }
    }
    Ok(kept)
}

/// The workloads of a namespace whose size an autoscaler has decided.
async fn scaled(client: &Client, namespace: &str) -> Result<Vec<Target>> {
    let mut all = Vec::new();
    for plural in [Deployment::PLURAL, ReplicaSet::PLURAL, StatefulSet::PLURAL] {
        let listed = client.list(kinds::builtin(plural), Some(namespace)).await?;
        let scaled = listed.objects.into_iter().filter(|o| in_use(o).is_some());
        all.extend(scaled.map(|o| (plural, o.key)));
    }
    Ok(all)
}

/// What an autoscaler is about, as far as its document says that: of the rest of it nothing has to be right.
fn target(scaler: &Object) -> Option<(&'static str, String)> {
    let document: Value = serde_yaml::from_str(scaler.text.as_deref()?).ok()?;
    let target = &document["spec"]["scaleTargetRef"];
    let plural = scaled_plural(target["kind"].as_str()?)?;
    Some((plural, target["name"].as_str()?.to_owned()))
}

/// How many pods a workload has been given by an autoscaler, while its document does not ask for them or the autoscaler
/// cannot be read. `None` as well for one that cannot be read, which is frozen as it is; for one that is scaled to nothing,
/// which an autoscaler has no say in; and for one that belongs to another, which decides what its document says.
pub(crate) fn in_use(o: &Object) -> Option<i32> {
    let decided = o.at(&["status", "desiredReplicas"])?.as_i64()?;
    let owners = o.list_at(&["metadata", "ownerReferences"]);
    let is_owned = owners.iter().any(|owner| owner["controller"] == true);
    let is_off = o.at(&["spec", "replicas"]).and_then(Value::as_i64) == Some(0);
    let is_meant = !(o.is_unreadable() || is_owned || is_off);
    i32::try_from(decided).ok().filter(|_| is_meant)
}
