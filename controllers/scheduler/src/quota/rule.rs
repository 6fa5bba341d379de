//! What a quota limits, and what a pod takes in its terms.

use std::collections::BTreeMap;
use std::sync::Arc;

use setpoint_apis::core::{Container, PodSpec, ResourceQuotaSpec, ResourceRequirements};
use setpoint_apis::quantity::{Quantity, ResourceList};
use setpoint_apis::resolve::{quota_covers, quota_usage, unspecified};

/// A limit of a quota.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hard {
    /// The resource, as quotas name it.
    pub(crate) name: String,
    pub(crate) limit: Quantity,
    /// `limit` in thousandths.
    pub(crate) milli: i128,
}

/// A quota, read once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rule {
    spec: ResourceQuotaSpec,
    /// Whether nothing is known of what it says.
    pub(crate) unknown: bool,
    /// What is counted of pods.
    pub(crate) hard: Vec<Hard>,
}

impl Rule {
    /// A quota as its document says it.
    pub(crate) fn of(spec: &ResourceQuotaSpec) -> Self {
        let hard = spec.hard.iter().filter(|(name, _)| is_of_pods(name));
        let hard = hard.map(|(name, limit)| Hard {
            name: name.clone(),
            limit: *limit,
            milli: milli(limit),
        });
        Self {
            hard: hard.collect(),
            unknown: false,
            spec: spec.clone(),
        }
    }

    /// A quota whose document never parsed. It could limit anything, so nothing gets past it.
    pub(crate) fn unknown() -> Self {
        Self {
            unknown: true,
            ..Self::default()
        }
    }

    /// Whether the quota is about the pod.
    pub(crate) fn matches(&self, pod: &PodUse) -> bool {
        quota_covers(&self.spec, &pod.spec)
    }

    /// What containers do not say though the quota limits it: `limits.cpu for: c1,c2; limits.memory for: c1`.
    pub(crate) fn missing(&self, pod: &PodUse) -> Option<String> {
        let unsaid = unspecified(&self.spec.hard, &pod.spec);
        let unsaid = unsaid
            .into_iter()
            .map(|(name, containers)| format!("{name} for: {}", containers.join(",")));
        let unsaid: Vec<_> = unsaid.collect();
        (!unsaid.is_empty()).then(|| unsaid.join("; "))
    }
}

/// Whether quotas count this of pods, and not of other objects.
fn is_of_pods(name: &str) -> bool {
    match name {
        "pods" | "count/pods" | "cpu" | "memory" | "ephemeral-storage" => true,
        // Of claims.
        "requests.storage" => false,
        _ => ["requests.", "limits.", "hugepages-"]
            .iter()
            .any(|prefix| name.starts_with(prefix)),
    }
}

/// What a pod takes in terms of quotas. Pods of one template share it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodUse {
    spec: Arc<PodSpec>,
    /// In thousandths, by the names that quotas have for them.
    amounts: BTreeMap<String, i128>,
}

impl PodUse {
    /// What a pod with this spec takes.
    pub(crate) fn of(spec: &Arc<PodSpec>) -> Self {
        let usage = quota_usage(spec, false);
        Self {
            spec: spec.clone(),
            amounts: usage
                .iter()
                .map(|(name, q)| (name.clone(), milli(q)))
                .collect(),
        }
    }

    /// The same of a pod of which only its requests are known any more.
    pub(crate) fn of_requests(requests: &ResourceList) -> Self {
        let container = Container {
            resources: Some(ResourceRequirements {
                requests: requests.clone(),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        };
        Self::of(&Arc::new(PodSpec {
            containers: vec![container],
            ..PodSpec::default()
        }))
    }

    /// In thousandths; never less than nothing.
    pub(crate) fn amount(&self, resource: &str) -> i128 {
        self.amounts.get(resource).copied().unwrap_or(0).max(0)
    }
}

/// In thousandths, capped at 2^63 - 1 of them: nine petabytes.
fn milli(q: &Quantity) -> i128 {
    i128::from(q.milli_value())
}
