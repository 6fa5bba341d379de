//! The table of kinds: what the command line and the strict reader look kinds up in.

use std::sync::LazyLock;

use crate::apps::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use crate::autoscaling::HorizontalPodAutoscaler;
use crate::batch::{CronJob, Job};
use crate::core::{
    ConfigMap, Event, LimitRange, Namespace, Node, PersistentVolumeClaim, Pod, ResourceQuota,
    Secret, Service, ServiceAccount,
};
use crate::kind::{FieldError, Kind};
use crate::networking::Ingress;
use crate::placement::{PodGroup, Reservation, SchedulerProfile};
use crate::policy::PodDisruptionBudget;
use crate::scheduling::PriorityClass;

/// What is known of a kind.
#[derive(Clone, Copy)]
pub struct KindInfo {
    /// `apps/v1`.
    pub api_version: &'static str,
    /// `Deployment`.
    pub kind: &'static str,
    /// `deployments`.
    pub plural: &'static str,
    /// Short words: `deploy`.
    pub short_names: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// The JSON Schema, as schemars derives it.
    pub schema: fn() -> schemars::Schema,
    /// The JSON Schema of the status.
    pub status_schema: fn() -> schemars::Schema,
    /// Reads an object, fills in defaults and validates: what is wrong with it, or why it cannot be read at all.
    pub check: fn(serde_json::Value) -> Result<Vec<FieldError>, String>,
    /// What the second version of an object changes of the first and may not ([`Kind::immutable_changes`]). Nothing, when
    /// one of them cannot be read: then there are worse things to say about it.
    pub immutable_changes: fn(serde_json::Value, serde_json::Value) -> Vec<FieldError>,
}

impl KindInfo {
    /// What is known of `K`.
    pub const fn of<K: Kind>() -> Self {
        Self {
            api_version: K::API_VERSION,
            kind: K::KIND,
            plural: K::PLURAL,
            short_names: K::SHORT_NAMES,
            namespaced: K::NAMESPACED,
            schema: || schemars::schema_for!(K),
            status_schema: || schemars::schema_for!(K::Status),
            check: |value| {
                let mut object = K::from_json(value).map_err(|e| e.to_string())?;
                object.apply_defaults();
                Ok(object.validate())
            },
            immutable_changes: |old, new| {
                let read = |value| {
                    let mut object = K::from_json(value).ok()?;
                    object.apply_defaults();
                    Some(object)
                };
                match (read(old), read(new)) {
                    (Some(old), Some(new)) => old.immutable_changes(&new),
                    _ => Vec::new(),
                }
            },
        }
    }

    /// The lower-case kind: `deployment`.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// The group: `apps`, empty for the core group.
    pub fn group(&self) -> &'static str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    /// The version: `v1`.
    pub fn version(&self) -> &'static str {
        self.api_version
            .split_once('/')
            .map_or(self.api_version, |(_, version)| version)
    }
}

impl std::fmt::Debug for KindInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.api_version, self.kind)
    }
}

impl PartialEq for KindInfo {
    fn eq(&self, other: &Self) -> bool {
        (self.api_version, self.kind) == (other.api_version, other.kind)
    }
}

/// A set of kinds. [`Registry::builtin`] has ours; a program with kinds of its own adds them.
#[derive(Clone, Debug)]
pub struct Registry {
    kinds: Vec<KindInfo>,
}

static BUILTIN: LazyLock<Registry> = LazyLock::new(|| Registry {
    kinds: vec![
        KindInfo::of::<Namespace>(),
        KindInfo::of::<Node>(),
        KindInfo::of::<PriorityClass>(),
        KindInfo::of::<SchedulerProfile>(),
        KindInfo::of::<ResourceQuota>(),
        KindInfo::of::<LimitRange>(),
        KindInfo::of::<PodDisruptionBudget>(),
        KindInfo::of::<Reservation>(),
        KindInfo::of::<PodGroup>(),
        KindInfo::of::<Pod>(),
        KindInfo::of::<ReplicaSet>(),
        KindInfo::of::<Deployment>(),
        KindInfo::of::<ControllerRevision>(),
        KindInfo::of::<StatefulSet>(),
        KindInfo::of::<DaemonSet>(),
        KindInfo::of::<Job>(),
        KindInfo::of::<CronJob>(),
        KindInfo::of::<HorizontalPodAutoscaler>(),
        KindInfo::of::<ConfigMap>(),
        KindInfo::of::<Secret>(),
        KindInfo::of::<Service>(),
        KindInfo::of::<Ingress>(),
        KindInfo::of::<PersistentVolumeClaim>(),
        KindInfo::of::<ServiceAccount>(),
        KindInfo::of::<Event>(),
    ],
});

impl Registry {
    /// The kinds that Setpoint knows, in the order in which they should be created.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// The same with one more kind.
    #[must_use]
    pub fn with<K: Kind>(mut self) -> Self {
        self.kinds
            .retain(|k| (k.api_version, k.kind) != (K::API_VERSION, K::KIND));
        self.kinds.push(KindInfo::of::<K>());
        self
    }

    /// All kinds, in the order in which they should be created.
    pub fn kinds(&self) -> &[KindInfo] {
        &self.kinds
    }

    /// The kind of a document.
    pub fn lookup(&self, api_version: &str, kind: &str) -> Option<&KindInfo> {
        self.kinds
            .iter()
            .find(|k| k.kind == kind && k.api_version == api_version)
    }

    /// The kind by its name alone.
    pub fn by_kind(&self, kind: &str) -> Option<&KindInfo> {
        self.kinds.iter().find(|k| k.kind == kind)
    }

    /// The kind by the segment that its keys have.
    pub fn by_plural(&self, plural: &str) -> Option<&KindInfo> {
        self.kinds.iter().find(|k| k.plural == plural)
    }

    /// The kind that a word on the command line means: `po`, `pod`, `Pods`, `deployments.apps`, `deploy.v1.apps`.
    pub fn by_word(&self, word: &str) -> Option<&KindInfo> {
        let word = word.to_lowercase();
        let (name, suffix) = word
            .split_once('.')
            .map_or((word.as_str(), None), |(n, s)| (n, Some(s)));
        self.kinds.iter().find(|k| {
            let named = k.plural == name || k.singular() == name || k.short_names.contains(&name);
            named
                && suffix.is_none_or(|s| {
                    s == k.group()
                        || s.strip_prefix(k.version())
                            .is_some_and(|g| g.trim_start_matches('.') == k.group())
                })
        })
    }

    /// The words that [`Registry::by_word`] takes, without groups: for completion and for suggestions.
    pub fn words(&self) -> Vec<String> {
        let words = |k: &KindInfo| {
            let short = k.short_names.iter().map(|s| (*s).to_owned());
            [k.plural.to_owned(), k.singular()]
                .into_iter()
                .chain(short)
                .collect::<Vec<_>>()
        };
        self.kinds.iter().flat_map(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_every_word_that_kubectl_takes() {
        let r = Registry::builtin();
        for (word, kind) in [
            ("po", "Pod"),
            ("pods", "Pod"),
            ("Pod", "Pod"),
            ("deploy", "Deployment"),
            ("deployments.apps", "Deployment"),
            ("deployment.v1.apps", "Deployment"),
            ("ingresses.networking.k8s.io", "Ingress"),
            ("ing", "Ingress"),
            ("cm", "ConfigMap"),
            ("no", "Node"),
            ("ns", "Namespace"),
            ("pvc", "PersistentVolumeClaim"),
            ("pdb", "PodDisruptionBudget"),
            ("quota", "ResourceQuota"),
            ("limits", "LimitRange"),
            ("sts", "StatefulSet"),
            ("ds", "DaemonSet"),
            ("cj", "CronJob"),
            ("jobs.batch", "Job"),
            ("hpa.v2.autoscaling", "HorizontalPodAutoscaler"),
            ("pc", "PriorityClass"),
            ("podgroups.setpoint.dev", "PodGroup"),
            ("pods.v1.", "Pod"),
        ] {
            assert_eq!(r.by_word(word).map(|k| k.kind), Some(kind), "{word}");
        }
        for word in ["", "poodle", "deployments.core", "pods.apps"] {
            assert_eq!(r.by_word(word), None, "{word}");
        }
    }

    #[test]
    fn no_two_kinds_share_a_word_or_a_key_segment() {
        let mut words = Registry::builtin().words();
        words.sort();
        let count = words.len();
        words.dedup();
        assert_eq!(words.len(), count);
    }
}
