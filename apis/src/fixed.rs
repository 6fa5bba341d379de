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
use crate::batch::Job;
use crate::core::PodTemplateSpec;
use crate::fnv::fnv64;
use crate::kind::{FieldError, Kind};
use crate::quantity::Quantity;
use crate::selector::LabelSelector;

/// What a fingerprint begins with. It is of a value with its defaults, in the order of its fields: when either changes for
/// templates, claims or policies of failures, this becomes another one, and what was recorded before says nothing more. A
/// test notices.
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

    /// What an object changes of what is recorded, and may not; nothing, when the record is about another one.
    pub fn changed_by<K: Fixed>(&self, uid: &str, object: &K) -> Vec<FieldError> {
        if self.of != uid {
            return Vec::new();
        }
        let now = object.fixed_fields().into_iter().collect();
        object.changes(&self.fields, &now)
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
        now: &BTreeMap<&'static str, String>,
    ) -> Vec<FieldError> {
        let paths = now.keys();
        paths.filter_map(|p| difference(p, before, now)).collect()
    }
}

/// What is to be said of a field that differs. One that an older version did not record may be anything.
fn difference(
    path: &str,
    before: &BTreeMap<String, String>,
    now: &BTreeMap<&'static str, String>,
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
                let named = ["limits", "requests", "sizeLimit", "divisor"].contains(&&**key);
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
        now: &BTreeMap<&'static str, String>,
    ) -> Vec<FieldError> {
        let suspended = before.get(SUSPEND).is_some_and(|s| s == "true");
        let differs = |path: &&'static str| match *path {
            SUSPEND => None,
            COMPLETIONS if scales_by_indexes(self) => None,
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

/// Whether a Job may have another number of completions than before.
fn scales_by_indexes(job: &Job) -> bool {
    let spec = &job.spec;
    spec.is_indexed() && spec.completions == Some(spec.parallelism())
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
mod tests {
    use super::*;
    use crate::document;

    const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: default}\nspec:\n  replicas: 3\n  \
        selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web, tier: front}}\n    \
        spec: {containers: [{name: c, image: host}]}\n";
    const SET: &str = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, namespace: default}\nspec:\n  replicas: 3\n  \
        serviceName: db\n  selector: {matchLabels: {app: db}}\n  podManagementPolicy: OrderedReady\n  \
        volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]\n  \
        template:\n    metadata: {labels: {app: db, tier: back}}\n    spec: {containers: [{name: c, image: host}]}\n";
    const JOB: &str = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: sum, namespace: default}\nspec:\n  completionMode: Indexed\n  \
        completions: 4\n  parallelism: 2\n  suspend: false\n  backoffLimitPerIndex: 1\n  template:\n    metadata: {labels: {app: sum}}\n    \
        spec: {restartPolicy: Never, containers: [{name: c, image: host}]}\n";

    fn changes<K: Fixed>(text: &str, edits: &[(&str, &str)]) -> Vec<String> {
        let old: K = document::decode(text.as_bytes()).unwrap();
        let mut edited = text.to_owned();
        for (from, to) in edits {
            assert!(edited.contains(from), "{from}");
            edited = edited.replace(from, to);
        }
        let new: K = document::decode(edited.as_bytes()).unwrap();
        let record = FixedFields::of("u", &old);
        // As the record is read back.
        let stored: FixedFields =
            document::decode_value(document::encode(&record).as_bytes()).unwrap();
        assert_eq!(stored, record);
        assert_eq!(record.changed_by("other", &new), []);
        // What the record tells is what `apply` tells.
        let found = record.changed_by("u", &new);
        let paths = |all: &[FieldError]| {
            let mut paths: Vec<String> = all.iter().map(|e| e.path.clone()).collect();
            paths.sort();
            paths
        };
        assert_eq!(paths(&found), paths(&old.immutable_changes(&new)));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_change_of_a_selector_names_both() {
        assert_eq!(
            changes::<Deployment>(
                DEPLOYMENT,
                &[("matchLabels: {app: web}", "matchLabels: {tier: front}")]
            ),
            ["spec.selector: field is immutable: it was \"app=web\", and is \"tier=front\""]
        );
        assert!(changes::<Deployment>(DEPLOYMENT, &[("replicas: 3", "replicas: 7")]).is_empty());
        assert!(changes::<Deployment>(DEPLOYMENT, &[("image: host", "image: other")]).is_empty());
    }

    #[test]
    fn of_a_stateful_set_what_apply_refuses_is_told() {
        for (from, to, path) in [
            (
                "matchLabels: {app: db}",
                "matchLabels: {tier: back}",
                "spec.selector",
            ),
            ("serviceName: db", "serviceName: other", "spec.serviceName"),
            ("serviceName: db", "", "spec.serviceName"),
            ("OrderedReady", "Parallel", "spec.podManagementPolicy"),
            ("storage: 1Gi", "storage: 2Gi", "spec.volumeClaimTemplates"),
            ("storage: 1Gi", "storage: 1G", "spec.volumeClaimTemplates"),
        ] {
            let found = changes::<StatefulSet>(SET, &[(from, to)]);
            assert!(found.len() == 1 && found[0].starts_with(path), "{found:?}");
        }
        for (from, to) in [
            ("replicas: 3", "replicas: 1"),
            ("storage: 1Gi", "storage: '1073741824'"),
        ] {
            assert!(
                changes::<StatefulSet>(SET, &[(from, to)]).is_empty(),
                "{to}"
            );
        }
    }

    #[test]
    fn of_a_job_what_apply_refuses_is_told() {
        let set = |from: &'static str, to: &'static str| vec![(from, to)];
        for (edits, path) in [
            (set("completions: 4", "completions: 5"), "spec.completions"),
            (set("image: host", "image: other"), "spec.template"),
            (
                set("backoffLimitPerIndex: 1", "backoffLimitPerIndex: 2"),
                "spec.backoffLimitPerIndex",
            ),
            (
                set(
                    "backoffLimitPerIndex: 1",
                    "managedBy: example.com/x\n  backoffLimitPerIndex: 1",
                ),
                "spec.managedBy",
            ),
            (
                set(
                    "backoffLimitPerIndex: 1",
                    "successPolicy: {rules: [{succeededCount: 1}]}\n  backoffLimitPerIndex: 1",
                ),
                "spec.successPolicy",
            ),
            (
                set(
                    "suspend: false",
                    "suspend: true\n  podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: X, status: 'True'}]}]}",
                ),
                "spec.podFailurePolicy",
            ),
        ] {
            let found = changes::<Job>(JOB, &edits);
            assert!(found.len() == 1 && found[0].starts_with(path), "{found:?}");
        }
        for fine in [
            set("parallelism: 2", "parallelism: 3"),
            set("suspend: false", "suspend: true"),
            vec![
                ("completions: 4", "completions: 5"),
                ("parallelism: 2", "parallelism: 5"),
            ],
        ] {
            assert!(changes::<Job>(JOB, &fine).is_empty(), "{fine:?}");
        }
        let suspended = JOB.replace("suspend: false", "suspend: true");
        let elsewhere = (
            "{restartPolicy: Never",
            "{nodeSelector: {a: b}, restartPolicy: Never",
        );
        assert!(changes::<Job>(&suspended, &[elsewhere]).is_empty());
        assert_eq!(changes::<Job>(JOB, &[elsewhere]).len(), 1);
        assert_eq!(
            changes::<Job>(&suspended, &[("image: host", "image: other")]).len(),
            1
        );
    }

    #[test]
    fn what_another_version_recorded_is_no_reason_to_stop() {
        let set: StatefulSet = document::decode(SET.as_bytes()).unwrap();
        let mut record = FixedFields::of("u", &set);
        let claims = record.fields.get_mut("spec.volumeClaimTemplates").unwrap();
        *claims = "v0:1234".into();
        record.fields.remove("spec.serviceName");
        record.fields.insert("spec.elsewhere".into(), "x".into());
        assert_eq!(record.changed_by("u", &set), []);
    }

    /// When this fails defaults have become others, and every Job and StatefulSet that runs would seem to be changed by
    /// hand after an upgrade: change [`FINGERPRINT`] and the texts here.
    #[test]
    fn fingerprints_are_the_same_in_every_version() {
        let job: Job = document::decode(JOB.as_bytes()).unwrap();
        let set: StatefulSet = document::decode(SET.as_bytes()).unwrap();
        let found = [
            fingerprint(&job.spec.template),
            fingerprint(&set.spec.volume_claim_templates),
            fingerprint(&job.spec.success_policy),
        ];
        assert_eq!(
            found,
            [
                "v1:119222f488c5b7aa",
                "v1:2e7ea58ac84e3dae",
                "v1:5b9bc4ba528108e4"
            ]
        );
    }
}
