//! What may not change of a workload, as its status records it.
//!
//! `apply` compares two documents, and refuses a change. Whoever writes a key by hand is asked by nobody, and a controller
//! sees the new document alone: so it notes in the status what it has taken up, and a change is told from that, by every
//! controller that comes later too. What is short stands there as it is, so that the former value can be put back; of
//! what is long a fingerprint does.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::apps::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use crate::batch::{Job, JobSpec};
use crate::core::PodTemplateSpec;
use crate::fnv::fnv64;
use crate::kind::{FieldError, Kind};
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

/// The reason of the condition `Invalid` of an object in which somebody has changed what may not change.
pub const CHANGED: &str = "ImmutableFieldChanged";

/// What a fingerprint begins with. It is of a value with its defaults, in the order of its fields: when either changes for
/// templates, claims or policies of failures, or they get a field more, this becomes another one, and what was recorded
/// before says nothing more. Two tests notice.
const FINGERPRINT: &str = "v1:";

/// What may not change of an object, as its controller has taken it up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FixedFields {
    /// The uid of the object: another one of its name begins anew.
    pub of: String,
    /// By the path of the field: what it says, or a fingerprint of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

impl FixedFields {
    /// What there is to record of an object.
    pub fn of<K: Fixed>(uid: &str, object: &K) -> Self {
        let fields = object.fixed_fields().into_iter();
        Self {
            of: uid.to_owned(),
            fields: fields.map(|(path, value)| (path.into(), value)).collect(),
        }
    }

    /// What an object changes of what is recorded, and may not; nothing, when the record is about another one. `now` is
    /// what there is to record of it.
    pub fn changed_by<K: Fixed>(&self, object: &K, now: &Self) -> Vec<FieldError> {
        if self.of != now.of {
            return Vec::new();
        }
        object.changes(&self.fields, &now.fields)
    }
}

/// A kind whose controller records what may not change.
pub trait Fixed: Kind {
    /// What may not change, by path.
    fn fixed_fields(&self) -> Vec<(&'static str, String)>;

    /// What differs between two records and may not. `self` is what the second one is of.
    fn changes(
        &self,
        before: &BTreeMap<String, String>,
        now: &BTreeMap<String, String>,
    ) -> Vec<FieldError> {
        let paths = now.keys();
        paths.filter_map(|p| difference(p, before, now)).collect()
    }
}

/// What is to be said of a field that differs. One that an older version did not record may be anything.
fn difference(
    path: &str,
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Option<FieldError> {
    let (before, now) = (before.get(path)?, now.get(path)?);
    if before == now {
        return None;
    }
    let scheme = |text: &str| text.split_once(':').is_some_and(|(v, _)| is_scheme(v));
    let message = match (scheme(before), scheme(now)) {
        // Another version made the fingerprint.
        (true, true) if !(before.starts_with(FINGERPRINT) && now.starts_with(FINGERPRINT)) => {
            return None;
        }
        (true, true) => "field is immutable, and was another one".to_owned(),
        _ => format!("field is immutable: it was {before:?}, and is {now:?}"),
    };
    Some(FieldError::new(path, message))
}

fn is_scheme(text: &str) -> bool {
    let digits = text.strip_prefix('v').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn fingerprint(value: &impl Serialize) -> String {
    // Nothing that is read from a document fails to be written.
    let mut value = serde_json::to_value(value).unwrap_or_default();
    same_quantities(&mut value, false);
    format!("{FINGERPRINT}{:016x}", fnv64(value.to_string().as_bytes()))
}

/// Writes equal quantities alike: `1Gi` is no other value than `1073741824`.
fn same_quantities(value: &mut Value, is_quantity: bool) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                let named =
                    ["limits", "requests", "sizeLimit", "divisor", "overhead"].contains(&&**key);
                same_quantities(inner, named || is_quantity);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| same_quantities(v, false)),
        Value::String(text) if is_quantity => {
            if let (Ok(one), Ok(quantity)) = ("1".parse::<Quantity>(), text.parse::<Quantity>()) {
                // A sum is written as its first part is.
                *text = (one + quantity).to_string();
            }
        }
        _ => {}
    }
}

const SELECTOR: &str = "spec.selector";

impl Fixed for Deployment {
    fn fixed_fields(&self) -> Vec<(&'static str, String)> {
        vec![(SELECTOR, self.spec.selector.to_string())]
    }
}

impl Fixed for ReplicaSet {
    fn fixed_fields(&self) -> Vec<(&'static str, String)> {
        vec![(SELECTOR, self.spec.selector.to_string())]
    }
}

impl Fixed for DaemonSet {
    fn fixed_fields(&self) -> Vec<(&'static str, String)> {
        vec![(SELECTOR, self.spec.selector.to_string())]
    }
}

impl Fixed for StatefulSet {
    fn fixed_fields(&self) -> Vec<(&'static str, String)> {
        let spec = &self.spec;
        let policy = spec.pod_management_policy.unwrap_or_default();
        vec![
            (SELECTOR, spec.selector.to_string()),
            (
                "spec.serviceName",
                spec.service_name.clone().unwrap_or_default(),
            ),
            ("spec.podManagementPolicy", policy.to_string()),
            (
                "spec.volumeClaimTemplates",
                fingerprint(&spec.volume_claim_templates),
            ),
        ]
    }
}

const COMPLETIONS: &str = "spec.completions";
const TEMPLATE: &str = "spec.template";
/// The template without what says where its pods run.
const TEMPLATE_ANYWHERE: &str = "spec.template, wherever it runs";
const SUSPEND: &str = "spec.suspend";

impl Fixed for Job {
    fn fixed_fields(&self) -> Vec<(&'static str, String)> {
        let spec = &self.spec;
        let number = |n: Option<i32>| n.map(|n| n.to_string()).unwrap_or_default();
        let selector = spec.selector.as_ref().map(LabelSelector::to_string);
        let mode = spec.completion_mode.unwrap_or_default();
        vec![
            (SELECTOR, selector.unwrap_or_default()),
            ("spec.completionMode", mode.to_string()),
            (COMPLETIONS, number(spec.completions)),
            (
                "spec.backoffLimitPerIndex",
                number(spec.backoff_limit_per_index),
            ),
            (
                "spec.managedBy",
                spec.managed_by.clone().unwrap_or_default(),
            ),
            (
                "spec.podFailurePolicy",
                fingerprint(&spec.pod_failure_policy),
            ),
            ("spec.successPolicy", fingerprint(&spec.success_policy)),
            (TEMPLATE, fingerprint(&spec.template)),
            (
                TEMPLATE_ANYWHERE,
                fingerprint(&placed_anywhere(&spec.template)),
            ),
            (SUSPEND, spec.is_suspended().to_string()),
        ]
    }

    fn changes(
        &self,
        before: &BTreeMap<String, String>,
        now: &BTreeMap<String, String>,
    ) -> Vec<FieldError> {
        // What is recorded may be several changes old, each of them lawful: it may have been suspended since, or scaled
        // twice.
        let suspended =
            self.spec.is_suspended() || before.get(SUSPEND).is_some_and(|s| s == "true");
        let differs = |path: &String| match path.as_str() {
            SUSPEND => None,
            COMPLETIONS if self.spec.is_indexed() && self.spec.completions.is_some() => None,
            COMPLETIONS if is_left_to_default(before.get(COMPLETIONS), &self.spec) => None,
            TEMPLATE if suspended => None,
            TEMPLATE_ANYWHERE if suspended => {
                let found = difference(TEMPLATE_ANYWHERE, before, now)?;
                Some(FieldError::new(TEMPLATE, found.message))
            }
            TEMPLATE_ANYWHERE => None,
            path => difference(path, before, now),
        };
        now.keys().filter_map(differs).collect()
    }
}

/// Whether a Job may never have said how many completions it wants: what was recorded could be the default or what it is
/// now, and the other one is nothing. The default depends on whether there is a parallelism.
fn is_left_to_default(before: Option<&String>, now: &JobSpec) -> bool {
    match before.map(String::as_str) {
        Some("1") => !now.is_indexed() && now.completions.is_none(),
        Some("") => completes_by_default(now),
        _ => false,
    }
}

/// Whether how many pods a Job wants is what it is by default.
pub(crate) fn completes_by_default(spec: &JobSpec) -> bool {
    !spec.is_indexed() && spec.completions == Some(1) && spec.parallelism() == 1
}

/// A template without what says where its pods run: that of a suspended Job may change.
pub(crate) fn placed_anywhere(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    template.metadata.labels = Default::default();
    template.metadata.annotations = Default::default();
    let spec = Arc::make_mut(&mut template.spec);
    spec.node_selector = Default::default();
    spec.tolerations = Vec::new();
    spec.scheduling_gates = Vec::new();
    if let Some(affinity) = &mut spec.affinity {
        affinity.node_affinity = None;
        if affinity.pod_affinity.is_none() && affinity.pod_anti_affinity.is_none() {
            spec.affinity = None;
        }
    }
    template
}

#[cfg(test)]
mod tests;
