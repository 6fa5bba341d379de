//! Kinds as the command line names them, and how to read their stored documents without knowing the type.

use std::sync::LazyLock;

use anyhow::{Result, bail};
use serde_json::Value;
use setpoint_apis::document::{self, DecodeError};
use setpoint_apis::registry::{self, Registry};
use setpoint_apis::{
    Kind, ObjectKey, apps, autoscaling, batch, core, networking, placement, policy, scheduling,
};

/// The kinds of documents that `validate`, `schema` and `explain` know: those of the store, and those of files alone.
pub(crate) fn documents() -> &'static Registry {
    static DOCUMENTS: LazyLock<Registry> =
        LazyLock::new(|| Registry::builtin().clone().with::<setpoint_sim::Scenario>());
    &DOCUMENTS
}

/// What the command line knows of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KindInfo {
    /// `apps/v1`.
    pub(crate) api_version: &'static str,
    /// `Deployment`.
    pub(crate) kind: &'static str,
    /// `deployments`.
    pub(crate) plural: &'static str,
    /// `deploy`.
    pub(crate) short_names: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub(crate) namespaced: bool,
    /// Whether this program knows the type.
    pub(crate) builtin: bool,
}

impl KindInfo {
    /// `deployment`.
    pub(crate) fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// `apps`, empty for the core group.
    pub(crate) fn group(&self) -> &'static str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    /// `deployment.apps/web`.
    pub(crate) fn full_name(&self, name: &str) -> String {
        match self.group() {
            "" => format!("{}/{name}", self.singular()),
            group => format!("{}.{group}/{name}", self.singular()),
        }
    }

    /// `deployments.apps`.
    pub(crate) fn full_plural(&self) -> String {
        match self.group() {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// A kind that this program does not know, found in the store. It lives as long as the process, which is short.
    pub(crate) fn foreign(plural: &str, api_version: &str, kind: &str, namespaced: bool) -> Self {
        let keep = |s: &str| -> &'static str { Box::leak(s.to_owned().into_boxed_str()) };
        Self {
            api_version: keep(api_version),
            kind: keep(kind),
            plural: keep(plural),
            short_names: &[],
            namespaced,
            builtin: false,
        }
    }

    /// Reads a stored document, with defaults filled in, as JSON. Of a Secret it is what the document amounts to:
    /// `data` alone.
    ///
    /// # Errors
    /// When it is no valid object of the kind.
    pub(crate) fn read(&self, key: &ObjectKey, bytes: &[u8]) -> Result<Value, DecodeError> {
        if self.builtin && self.plural == core::Secret::PLURAL {
            let secret: core::Secret = document::decode_keyed(key, bytes)?;
            return as_json(&secret.with_data_alone());
        }
        match read_builtin(self.plural, key, bytes) {
            Some(result) if self.builtin => result,
            _ => document::decode_value(bytes),
        }
    }
}

impl From<&registry::KindInfo> for KindInfo {
    fn from(k: &registry::KindInfo) -> Self {
        Self {
            api_version: k.api_version,
            kind: k.kind,
            plural: k.plural,
            short_names: k.short_names,
            namespaced: k.namespaced,
            builtin: true,
        }
    }
}

fn read_as<K: Kind>(key: &ObjectKey, bytes: &[u8]) -> Result<Value, DecodeError> {
    as_json(&document::decode_keyed::<K>(key, bytes)?)
}

fn as_json<K: Kind>(object: &K) -> Result<Value, DecodeError> {
    serde_json::to_value(object).map_err(|e| DecodeError::Malformed(e.to_string()))
}

fn read_builtin(plural: &str, key: &ObjectKey, bytes: &[u8]) -> Option<Result<Value, DecodeError>> {
    macro_rules! kinds {
        ($($kind:ty),* $(,)?) => {
            match plural {
                $(<$kind>::PLURAL => Some(read_as::<$kind>(key, bytes)),)*
                _ => None,
            }
        };
    }
    kinds!(
        core::Namespace,
        core::Node,
        scheduling::PriorityClass,
        placement::SchedulerProfile,
        core::ResourceQuota,
        core::LimitRange,
        policy::PodDisruptionBudget,
        placement::Reservation,
        placement::PodGroup,
        core::Pod,
        apps::ReplicaSet,
        apps::Deployment,
        apps::ControllerRevision,
        apps::StatefulSet,
        apps::DaemonSet,
        batch::Job,
        batch::CronJob,
        autoscaling::HorizontalPodAutoscaler,
        core::ConfigMap,
        core::Secret,
        core::Service,
        networking::Ingress,
        core::PersistentVolumeClaim,
        core::ServiceAccount,
        core::Event,
    )
}

/// All kinds that this program knows, in the order in which they should be created.
pub(crate) fn all() -> impl Iterator<Item = KindInfo> {
    Registry::builtin().kinds().iter().map(KindInfo::from)
}

/// The kind with this plural.
///
/// # Panics
/// When it is not one of ours: only for names written in this program.
pub(crate) fn builtin(plural: &str) -> KindInfo {
    Registry::builtin()
        .by_plural(plural)
        .map(KindInfo::from)
        .expect("a plural of ours")
}

/// The kind that a word means, when this program knows it.
pub(crate) fn by_word(word: &str) -> Option<KindInfo> {
    Registry::builtin().by_word(word).map(KindInfo::from)
}

/// The error for a word that means no kind, with the nearest one that does.
///
/// # Errors
/// Always.
pub(crate) fn unknown<T>(word: &str) -> Result<T> {
    let lower = word.to_lowercase();
    let words = Registry::builtin().words();
    let nearest = words
        .iter()
        .map(|w| (strsim::damerau_levenshtein(w, &lower), w))
        .min()
        .filter(|(distance, w)| *distance <= 2.max(w.len() / 3) && *distance < w.len());
    match nearest {
        Some((_, near)) => bail!(
            "the cluster doesn't have a resource type {word:?}; did you mean {near:?}? (`setpoint api-resources` lists them)"
        ),
        None => bail!(
            "the cluster doesn't have a resource type {word:?} (`setpoint api-resources` lists them)"
        ),
    }
}

/// The kinds that `all` stands for: what runs, and what makes it run.
pub(crate) const ALL: &[&str] = &[
    "pods",
    "services",
    "daemonsets",
    "deployments",
    "replicasets",
    "statefulsets",
    "horizontalpodautoscalers",
    "cronjobs",
    "jobs",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_registry_can_be_read() {
        let key = ObjectKey::cluster("x");
        for kind in all() {
            assert!(read_builtin(kind.plural, &key, b"{}").is_some(), "{kind:?}");
        }
    }

    #[test]
    fn what_a_secret_is_written_with_is_shown_as_data() {
        let text = b"apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: n}\ndata: {a: b2xk, b: eA==}\nstringData: {a: new, c: ''}\n";
        let shown = builtin("secrets")
            .read(&ObjectKey::namespaced("n", "s"), text)
            .unwrap();
        assert_eq!(
            shown["data"],
            serde_json::json!({"a": "bmV3", "b": "eA==", "c": ""})
        );
        assert_eq!(shown.get("stringData"), None);
    }

    #[test]
    fn names_are_kubectls() {
        assert_eq!(
            builtin("deployments").full_name("web"),
            "deployment.apps/web"
        );
        assert_eq!(builtin("pods").full_name("web"), "pod/web");
        assert_eq!(
            builtin("ingresses").full_plural(),
            "ingresses.networking.k8s.io"
        );
    }

    #[test]
    fn a_mistyped_kind_gets_a_suggestion() {
        let text = unknown::<()>("deploymint").unwrap_err().to_string();
        assert!(text.contains("\"deployment\""), "{text}");
        assert!(
            !unknown::<()>("zzzzzzzzz")
                .unwrap_err()
                .to_string()
                .contains("did you mean")
        );
    }
}
