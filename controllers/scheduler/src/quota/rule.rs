//! What a quota limits, which pods it is about, and what a pod takes in its terms.

use std::collections::BTreeMap;

use setpoint_apis::core::{PodSpec, QosClass, QuotaScope, ResourceQuotaSpec, ScopeOperator};
use setpoint_apis::quantity::{Quantity, ResourceList};
use setpoint_apis::view::{container_requests, pod_limits, pod_requests, qos_class};

/// What is counted of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The pod itself.
    Pods,
    /// What it requests of a resource.
    Requests(String),
    /// What it limits a resource to.
    Limits(String),
}

impl Measure {
    /// What a name in `hard` counts; `None` for what is not counted of pods.
    pub(crate) fn of(name: &str) -> Option<Self> {
        if let Some(resource) = name.strip_prefix("requests.") {
            // Claims are storage, not pods.
            return (resource != "storage").then(|| Self::Requests(resource.into()));
        }
        if let Some(resource) = name.strip_prefix("limits.") {
            return Some(Self::Limits(resource.into()));
        }
        match name {
            "pods" | "count/pods" => Some(Self::Pods),
            "cpu" | "memory" | "ephemeral-storage" => Some(Self::Requests(name.into())),
            _ if name.starts_with("hugepages-") => Some(Self::Requests(name.into())),
            _ => None,
        }
    }
}

/// A limit of a quota.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hard {
    /// As the document names it.
    pub(crate) name: String,
    pub(crate) measure: Measure,
    pub(crate) limit: Quantity,
    /// `limit` in thousandths.
    pub(crate) milli: i128,
}

/// Which pods a quota is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// With, or without, `activeDeadlineSeconds`.
    Terminating(bool),
    /// Of the class of service `BestEffort`, or not.
    BestEffort(bool),
    /// With, or without, a rule about pods of other namespaces.
    CrossNamespaceAffinity(bool),
    /// With a priority class; `None` for any.
    PriorityIn(Option<Vec<String>>),
    /// Without one of these priority classes; `None` for without any.
    PriorityNotIn(Option<Vec<String>>),
}

/// A quota, read once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rule {
    pub(crate) hard: Vec<Hard>,
    pub(crate) scopes: Vec<Scope>,
}

impl Rule {
    /// What of `hard` is counted of pods, for pods to which all of `scopes` apply.
    pub(crate) fn new(hard: &ResourceList, scopes: Vec<Scope>) -> Self {
        let hard = hard.iter().filter_map(|(name, limit)| {
            Some(Hard {
                name: name.clone(),
                measure: Measure::of(name)?,
                limit: *limit,
                milli: milli(limit),
            })
        });
        Self {
            hard: hard.collect(),
            scopes,
        }
    }

    /// A quota as its document says it.
    pub(crate) fn of(spec: &ResourceQuotaSpec) -> Self {
        let scopes = spec.requirements().map(|(scope, operator, values)| {
            let named = || Some(values.to_vec());
            let there = !matches!(operator, ScopeOperator::DoesNotExist | ScopeOperator::NotIn);
            match (scope, operator) {
                (QuotaScope::Terminating, _) => Scope::Terminating(there),
                (QuotaScope::NotTerminating, _) => Scope::Terminating(!there),
                (QuotaScope::BestEffort, _) => Scope::BestEffort(there),
                (QuotaScope::NotBestEffort, _) => Scope::BestEffort(!there),
                (QuotaScope::CrossNamespacePodAffinity, _) => Scope::CrossNamespaceAffinity(there),
                (QuotaScope::PriorityClass, ScopeOperator::In) => Scope::PriorityIn(named()),
                (QuotaScope::PriorityClass, ScopeOperator::NotIn) => Scope::PriorityNotIn(named()),
                (QuotaScope::PriorityClass, ScopeOperator::Exists) => Scope::PriorityIn(None),
                (QuotaScope::PriorityClass, ScopeOperator::DoesNotExist) => {
                    Scope::PriorityNotIn(None)
                }
            }
        });
        Self::new(&spec.hard, scopes.collect())
    }

    /// Whether the quota is about the pod.
    pub(crate) fn matches(&self, pod: &PodUse) -> bool {
        self.scopes.iter().all(|scope| match scope {
            Scope::Terminating(is) => pod.terminating == *is,
            Scope::BestEffort(is) => pod.best_effort == *is,
            Scope::CrossNamespaceAffinity(is) => pod.cross_namespace == *is,
            Scope::PriorityIn(None) => pod.priority_class.is_some(),
            Scope::PriorityNotIn(None) => pod.priority_class.is_none(),
            Scope::PriorityIn(Some(names)) => pod
                .priority_class
                .as_ref()
                .is_some_and(|c| names.contains(c)),
            Scope::PriorityNotIn(Some(names)) => pod
                .priority_class
                .as_ref()
                .is_none_or(|c| !names.contains(c)),
        })
    }

    /// What containers do not say though the quota limits it: `limits.cpu for: c1,c2; limits.memory for: c1`. As in
    /// Kubernetes, only cpu and memory have to be said.
    pub(crate) fn missing(&self, pod: &PodUse) -> Option<String> {
        let unsaid = self.hard.iter().filter_map(|hard| {
            let containers = pod.unsaid.get(&key(&hard.measure)?)?;
            Some(format!("{} for: {containers}", hard.name))
        });
        let unsaid: Vec<_> = unsaid.collect();
        (!unsaid.is_empty()).then(|| unsaid.join("; "))
    }
}

/// What a pod takes in terms of quotas. Pods of one template share it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodUse {
    requests: BTreeMap<String, i128>,
    limits: BTreeMap<String, i128>,
    /// The containers that do not say how much they take, by [`key`].
    unsaid: BTreeMap<(bool, &'static str), String>,
    terminating: bool,
    best_effort: bool,
    cross_namespace: bool,
    priority_class: Option<String>,
}

impl PodUse {
    /// What a pod with this spec takes.
    pub(crate) fn of(spec: &PodSpec) -> Self {
        let amounts =
            |list: ResourceList| list.iter().map(|(k, v)| (k.clone(), milli(v))).collect();
        let mut unsaid = BTreeMap::<_, String>::new();
        for c in spec.all_containers() {
            let requests = container_requests(c);
            for (limits, list) in [(false, &requests), (true, c.limits())] {
                for resource in SAID {
                    let of_pod = spec.resources.as_ref().is_some_and(|r| {
                        r.limits.contains_key(resource)
                            || (!limits && r.requests.contains_key(resource))
                    });
                    if of_pod || list.contains_key(resource) {
                        continue;
                    }
                    let names = unsaid.entry((limits, resource)).or_default();
                    if !names.is_empty() {
                        names.push(',');
                    }
                    names.push_str(&c.name);
                }
            }
        }
        Self {
            requests: amounts(pod_requests(spec)),
            limits: amounts(pod_limits(spec)),
            unsaid,
            terminating: spec.active_deadline_seconds.is_some(),
            best_effort: qos_class(spec) == QosClass::BestEffort,
            cross_namespace: crosses_namespaces(spec),
            priority_class: spec.priority_class_name.clone().filter(|c| !c.is_empty()),
        }
    }

    /// The same of a pod of which only its requests are known any more.
    pub(crate) fn of_requests(requests: &ResourceList) -> Self {
        Self {
            requests: requests
                .iter()
                .map(|(k, v)| (k.clone(), milli(v)))
                .collect(),
            best_effort: requests.is_empty(),
            ..Self::default()
        }
    }

    /// In thousandths; never less than nothing.
    pub(crate) fn amount(&self, measure: &Measure) -> i128 {
        let found = match measure {
            Measure::Pods => return 1000,
            Measure::Requests(resource) => self.requests.get(resource),
            Measure::Limits(resource) => self.limits.get(resource),
        };
        found.copied().unwrap_or_default().max(0)
    }
}

/// The resources that every container has to speak of where a quota limits them.
const SAID: [&str; 2] = ["cpu", "memory"];

fn key(measure: &Measure) -> Option<(bool, &'static str)> {
    let (limits, resource) = match measure {
        Measure::Pods => return None,
        Measure::Requests(resource) => (false, resource),
        Measure::Limits(resource) => (true, resource),
    };
    SAID.into_iter()
        .find(|said| said == resource)
        .map(|said| (limits, said))
}

fn crosses_namespaces(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else {
        return false;
    };
    [&affinity.pod_affinity, &affinity.pod_anti_affinity]
        .into_iter()
        .flatten()
        .any(|rules| {
            let required = &rules.required_during_scheduling_ignored_during_execution;
            let preferred = &rules.preferred_during_scheduling_ignored_during_execution;
            required
                .iter()
                .chain(preferred.iter().map(|p| &p.pod_affinity_term))
                .any(|t| !t.namespaces.is_empty() || t.namespace_selector.is_some())
        })
}

/// In thousandths, capped at 2^63 - 1 of them: nine petabytes.
fn milli(q: &Quantity) -> i128 {
    i128::from(q.milli_value())
}
