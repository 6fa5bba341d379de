//! Pod, its spec, and the template that controllers make pods from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::affinity::{Affinity, Toleration, TopologySpreadConstraint};
use super::container::Container;
use super::dns::{DnsPolicy, HostAlias, PodDnsConfig};
use super::pod_status::PodStatus;
use super::security::PodSecurityContext;
use super::volume::Volume;
use crate::kind::{ApiVersion, FieldError, Kind, KindName};
use crate::meta::ObjectMeta;
use crate::quantity::ResourceList;

/// The annotation that makes a pod go earlier (lower) or later (higher) than its siblings: a number of 32 bits, 0 without
/// it.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Containers that run together on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// `v1`.
    pub api_version: ApiVersion<Self>,
    /// `Pod`.
    pub kind: KindName<Self>,
    /// Name, namespace, labels, owners.
    pub metadata: ObjectMeta,
    /// What is to run. Shared between pods whose specs are equal.
    pub spec: Arc<PodSpec>,
}

impl Kind for Pod {
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "Pod";
    const PLURAL: &'static str = "pods";
    const SHORT_NAMES: &'static [&'static str] = &["po"];
    const PARTS_STAND_ALONE: bool = true;
    type Status = PodStatus;

    crate::compile_reading_here!();

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn apply_defaults(&mut self) {
        crate::defaults::pod_spec(Arc::make_mut(&mut self.spec));
    }

    fn validate(&self) -> Vec<FieldError> {
        crate::validation::pod(self)
    }

    fn pin_to(&mut self, node: &str) -> bool {
        let spec = Arc::make_mut(&mut self.spec);
        let pin = spec.affinity.as_mut().and_then(|a| a.pin());
        pin.map(|name| node.clone_into(name)).is_some()
    }
}

/// What a controller makes pods from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplateSpec {
    /// Labels and annotations of the pods.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The spec of the pods. Shared with every pod made from the template.
    pub spec: Arc<PodSpec>,
}

/// What a pod runs and where it may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The containers that the pod is there for; at least one.
    pub containers: Vec<Container>,
    /// Run one after the other before `containers`. One with `restartPolicy: Always` is a sidecar: it is
    /// started, and stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// What containers can mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// When containers are restarted; `Always` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Seconds between TERM and KILL; 30 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
    /// Seconds after which the pod is failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// Labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// The one node that may run the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Rules about nodes and about other pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Box<Affinity>>,
    /// The taints that do not keep the pod away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// How pods spread over zones, hosts and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Who places the pod; `default-scheduler` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// Names a PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// The priority itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Whether the pod may displace others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_policy: Option<PreemptionPolicy>,
    /// Who the processes run as, for all containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<Box<PodSecurityContext>>,
    /// The identity towards Kubernetes' API, which does not exist here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// The old name of `serviceAccountName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Whether a token of the service account is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automount_service_account_token: Option<bool>,
    /// Secrets for registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// How names are resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<DnsPolicy>,
    /// Resolver settings of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<Box<PodDnsConfig>>,
    /// Lines for `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_aliases: Vec<HostAlias>,
    /// The pod's host name; its own name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The domain under which `hostname` is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// Whether the host name is the full name.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "setHostnameAsFQDN"
    )]
    pub set_hostname_as_fqdn: Option<bool>,
    /// Use the node's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    /// See the node's processes.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "hostPID")]
    pub host_pid: Option<bool>,
    /// Use the node's IPC.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "hostIPC")]
    pub host_ipc: Option<bool>,
    /// `false` asks for a user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_users: Option<bool>,
    /// Let containers see each other's processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_process_namespace: Option<bool>,
    /// Whether services are put into the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_service_links: Option<bool>,
    /// Conditions of others that readiness waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readiness_gates: Vec<PodReadinessGate>,
    /// Names a RuntimeClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// What the pod costs beyond its containers.
    #[serde(default, skip_serializing_if = "ResourceList::is_empty")]
    pub overhead: ResourceList,
    /// The operating system the pod is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<PodOs>,
    /// While one is present the pod is not placed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduling_gates: Vec<PodSchedulingGate>,
    /// Devices, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_claims: Vec<PodResourceClaim>,
    /// What all containers may use together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<super::container::ResourceRequirements>,
}

impl PodSpec {
    /// When containers are restarted.
    pub fn restart_policy(&self) -> RestartPolicy {
        self.restart_policy.unwrap_or_default()
    }

    /// Seconds between TERM and KILL.
    pub fn termination_grace_period_seconds(&self) -> i64 {
        self.termination_grace_period_seconds.unwrap_or(30)
    }

    /// Init containers, then containers.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }

    /// The names of the volume claims that the pod uses.
    pub fn claim_names(&self) -> BTreeSet<&str> {
        let sources = self.volumes.iter();
        let sources = sources.filter_map(|v| v.persistent_volume_claim.as_ref());
        sources.map(|s| s.claim_name.as_str()).collect()
    }

    /// Gives the ConfigMaps and Secrets that the pod reads other names, where there is one.
    pub fn rename_content(
        &mut self,
        config_map: &dyn Fn(&str) -> Option<String>,
        secret: &dyn Fn(&str) -> Option<String>,
    ) {
        super::references::rename(self, config_map, secret);
    }

    /// The ConfigMaps that the pod reads, by name, with whether it can do without; sorted, each once.
    pub fn config_maps(&self) -> BTreeMap<&str, bool> {
        super::references::config_maps(self)
    }

    /// The Secrets that the pod reads, by name, with whether it can do without; sorted, each once.
    pub fn secrets(&self) -> BTreeMap<&str, bool> {
        super::references::secrets(self)
    }
}

/// When containers are restarted.
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
pub enum RestartPolicy {
    /// Whenever they end.
    #[default]
    Always,
    /// When they end with another exit code than 0.
    OnFailure,
    /// Never.
    Never,
}

impl RestartPolicy {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

impl std::fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a pod may displace pods of lower priority.
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
pub enum PreemptionPolicy {
    /// It may.
    #[default]
    PreemptLowerPriority,
    /// It waits.
    Never,
}

impl PreemptionPolicy {
    /// The word as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreemptLowerPriority => "PreemptLowerPriority",
            Self::Never => "Never",
        }
    }
}

impl std::fmt::Display for PreemptionPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names an object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// A condition that readiness waits for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodReadinessGate {
    /// The condition's type.
    pub condition_type: String,
}

/// The operating system a pod is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodOs {
    /// `linux`.
    pub name: String,
}

/// Holds a pod back from placement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodSchedulingGate {
    /// The gate's name.
    pub name: String,
}

/// A device, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodResourceClaim {
    /// How containers call it.
    pub name: String,
    /// The ResourceClaim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_claim_name: Option<String>,
    /// The template that a claim is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_claim_template_name: Option<String>,
}
