//! ResourceQuota: how much a namespace may use.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::ObjectMeta;
use crate::quantity::ResourceList;

/// How much the pods of a namespace may use together. A pod that would exceed it waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceQuota {
    /// `v1`.
    pub api_version: ApiVersion<Self>,
    /// `ResourceQuota`.
    pub kind: KindName<Self>,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// How much, of what.
    #[serde(default)]
    pub spec: ResourceQuotaSpec,
}

impl Kind for ResourceQuota {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "ResourceQuota";
    const PLURAL: &'static str = "resourcequotas";
    const SHORT_NAMES: &'static [&'static str] = &["quota"];
    type Status = ResourceQuotaStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::quota(self)
    }
}

/// How much, of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceQuotaSpec {
    /// The most, by resource: `requests.cpu`, `limits.memory`, `pods`, `requests.example.com/gpu`. Numbers of objects
    /// are held where objects are created, the rest where pods are placed.
    #[serde(default, skip_serializing_if = "ResourceList::is_empty")]
    pub hard: ResourceList,
    /// Which pods it is about; all of the list must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<QuotaScope>,
    /// The same with operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_selector: Option<ScopeSelector>,
}

impl ResourceQuotaSpec {
    /// All requirements on a pod: those of `scopes` and those of `scopeSelector`.
    pub fn requirements(&self) -> impl Iterator<Item = (QuotaScope, ScopeOperator, &[String])> {
        let plain = self
            .scopes
            .iter()
            .map(|s| (*s, ScopeOperator::Exists, &[] as &[String]));
        let selected = self.scope_selector.iter().flat_map(|s| {
            s.match_expressions
                .iter()
                .map(|r| (r.scope_name, r.operator, r.values.as_slice()))
        });
        plain.chain(selected)
    }
}

/// Which pods a quota is about; all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScopeSelector {
    /// The requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<ScopedResourceSelectorRequirement>,
}

/// A requirement on a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScopedResourceSelectorRequirement {
    /// What of the pod.
    pub scope_name: QuotaScope,
    /// How it is compared.
    pub operator: ScopeOperator,
    /// With what: names of priority classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// A property of pods that quotas know.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum QuotaScope {
    /// Has an `activeDeadlineSeconds`.
    #[default]
    Terminating,
    /// Has none.
    NotTerminating,
    /// Requests nothing and is limited in nothing.
    BestEffort,
    /// Requests or is limited in something.
    NotBestEffort,
    /// Has a priority class.
    PriorityClass,
    /// Has affinity to pods of other namespaces.
    CrossNamespacePodAffinity,
}

impl QuotaScope {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminating => "Terminating",
            Self::NotTerminating => "NotTerminating",
            Self::BestEffort => "BestEffort",
            Self::NotBestEffort => "NotBestEffort",
            Self::PriorityClass => "PriorityClass",
            Self::CrossNamespacePodAffinity => "CrossNamespacePodAffinity",
        }
    }
}

impl std::fmt::Display for QuotaScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a property is compared.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum ScopeOperator {
    /// Is one of the values.
    In,
    /// Is none of the values.
    NotIn,
    /// Is there.
    #[default]
    Exists,
    /// Is not there.
    DoesNotExist,
}

impl ScopeOperator {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }
}

impl std::fmt::Display for ScopeOperator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is, of a quota. Written by the scheduler, which enforces it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceQuotaStatus {
    /// The most, as it is enforced.
    #[serde(default, skip_serializing_if = "ResourceList::is_empty")]
    pub hard: ResourceList,
    /// How much is used. What of it are numbers of objects is counted when somebody looks, and not written.
    #[serde(default, skip_serializing_if = "ResourceList::is_empty")]
    pub used: ResourceList,
}
