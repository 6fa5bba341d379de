//! What a quota counts.

use std::collections::BTreeMap;
use std::fmt;

use crate::core::{
    PodAffinityTerm, PodSpec, QosClass, QuotaScope, ResourceQuotaSpec, ScopeOperator,
};
use crate::quantity::{Quantity, ResourceList};
use crate::view::{container_requests, pod_limits, pod_requests, qos_class};

/// Whether a quota is about a pod: all its scopes hold.
pub fn quota_covers(quota: &ResourceQuotaSpec, pod: &PodSpec) -> bool {
    let best_effort = || qos_class(pod) == QosClass::BestEffort;
    quota
        .requirements()
        .all(|(scope, operator, values)| match scope {
            QuotaScope::Terminating => pod.active_deadline_seconds.is_some(),
            QuotaScope::NotTerminating => pod.active_deadline_seconds.is_none(),
            QuotaScope::BestEffort => best_effort(),
            QuotaScope::NotBestEffort => !best_effort(),
            QuotaScope::CrossNamespacePodAffinity => reaches_other_namespaces(pod),
            QuotaScope::PriorityClass => {
                let class = pod
                    .priority_class_name
                    .as_ref()
                    .filter(|name| !name.is_empty());
                match operator {
                    ScopeOperator::In => class.is_some_and(|c| values.contains(c)),
                    ScopeOperator::NotIn => class.is_none_or(|c| !values.contains(c)),
                    ScopeOperator::Exists => class.is_some(),
                    ScopeOperator::DoesNotExist => class.is_none(),
                }
            }
        })
}

fn reaches_other_namespaces(pod: &PodSpec) -> bool {
    let reaches = |t: &PodAffinityTerm| !t.namespaces.is_empty() || t.namespace_selector.is_some();
    let Some(affinity) = &pod.affinity else {
        return false;
    };
    [&affinity.pod_affinity, &affinity.pod_anti_affinity]
        .into_iter()
        .flatten()
        .any(|rules| {
            rules
                .required_during_scheduling_ignored_during_execution
                .iter()
                .any(reaches)
                || rules
                    .preferred_during_scheduling_ignored_during_execution
                    .iter()
                    .any(|w| reaches(&w.pod_affinity_term))
        })
}

/// What a pod counts for in quotas. Of one that has ended (`finished`) there is `count/pods` alone.
pub fn quota_usage(pod: &PodSpec, finished: bool) -> ResourceList {
    let one = Quantity::from_whole(1);
    let mut usage = ResourceList::from([("count/pods".to_owned(), one)]);
    if finished {
        return usage;
    }
    usage.insert("pods".into(), one);
    usage.extend(compute(&pod_requests(pod), &pod_limits(pod)));
    usage
}

/// Requests and limits by the names that quotas have for them.
fn compute(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut usage = ResourceList::new();
    for (name, amount) in requests {
        if is_plain(name) || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
        }
        usage.insert(format!("requests.{name}"), *amount);
    }
    for (name, amount) in limits.iter().filter(|(name, _)| is_plain(name)) {
        usage.insert(format!("limits.{name}"), *amount);
    }
    usage
}

/// Requests, which are the limits where only these are said.
fn with_limits(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut all = limits.clone();
    all.extend(
        requests
            .iter()
            .map(|(name, amount)| (name.clone(), *amount)),
    );
    all
}

fn is_plain(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

/// The containers that leave out what a quota on cpu or memory wants every container to say, by the quota's resource.
/// What is said for the pod as a whole needs not be said by containers.
pub fn unspecified<'a>(
    hard: &ResourceList,
    pod: &'a PodSpec,
) -> BTreeMap<&'static str, Vec<&'a str>> {
    let wanted = [
        "cpu",
        "memory",
        "requests.cpu",
        "requests.memory",
        "limits.cpu",
        "limits.memory",
    ];
    let of_pod = pod.resources.as_ref().map_or_else(ResourceList::new, |r| {
        compute(&with_limits(&r.requests, &r.limits), &r.limits)
    });
    let mut missing: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
    for c in pod.all_containers() {
        let said = compute(&container_requests(c), c.limits());
        for name in wanted {
            if hard.contains_key(name) && !said.contains_key(name) && !of_pod.contains_key(name) {
                missing.entry(name).or_default().push(&c.name);
            }
        }
    }
    missing
}

/// A resource of which a quota has too little left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The resource, as the quota calls it.
    pub resource: String,
    /// How much is asked for.
    pub requested: Quantity,
    /// How much is used.
    pub used: Quantity,
    /// The most.
    pub hard: Quantity,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            requested,
            used,
            hard,
        } = self;
        write!(
            f,
            "{resource}: {requested} requested, {used} of {hard} used"
        )
    }
}

/// What would be too much if `more` were used besides `used`. What is not asked for is never too much.
pub fn excess(hard: &ResourceList, used: &ResourceList, more: &ResourceList) -> Vec<Excess> {
    hard.iter()
        .filter_map(|(name, most)| {
            let requested = more.get(name).copied().filter(|m| !m.is_zero())?;
            let used = used.get(name).copied().unwrap_or(Quantity::ZERO);
            (used + requested > *most).then(|| Excess {
                resource: name.clone(),
                requested,
                used,
                hard: *most,
            })
        })
        .collect()
}

/// That a quota does not let something in, in the words of Kubernetes' admission.
pub fn exceeded(quota: &str, over: &[Excess]) -> String {
    let list = |of: fn(&Excess) -> Quantity| {
        let all = over.iter().map(|e| format!("{}={}", e.resource, of(e)));
        all.collect::<Vec<_>>().join(",")
    };
    format!(
        "exceeded quota: {quota}, requested: {}, used: {}, limited: {}",
        list(|e| e.requested),
        list(|e| e.used),
        list(|e| e.hard)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::decode_value;

    fn pod(yaml: &str) -> PodSpec {
        let text =
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{yaml}}}}}");
        let pod: crate::core::Pod = crate::document::decode(text.as_bytes()).unwrap();
        (*pod.spec).clone()
    }

    fn list(yaml: &str) -> ResourceList {
        decode_value(yaml.as_bytes()).unwrap()
    }

    const BARE: &str = "containers: [{name: c, image: host}]";

    #[test]
    fn a_pod_counts_for_its_requests_and_limits() {
        let spec = pod(
            "containers: [{name: c, image: host, resources: {requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 2Gi}, \
             limits: {cpu: 2, example.com/gpu: 3, hugepages-2Mi: 4Mi}}}], overhead: {cpu: 100m}, \
             initContainers: [{name: s, image: host, restartPolicy: Always, resources: {requests: {memory: 1Gi}}}]",
        );
        let wanted = list(
            "{count/pods: 1, pods: 1, cpu: 1100m, requests.cpu: 1100m, memory: 2Gi, requests.memory: 2Gi, \
             ephemeral-storage: 2Gi, requests.ephemeral-storage: 2Gi, limits.cpu: 2100m, \
             requests.example.com/gpu: 3, hugepages-2Mi: 4Mi, requests.hugepages-2Mi: 4Mi}",
        );
        assert_eq!(quota_usage(&spec, false), wanted);
        assert_eq!(quota_usage(&spec, true), list("{count/pods: 1}"));
        assert_eq!(
            quota_usage(&pod(BARE), false),
            list("{count/pods: 1, pods: 1}")
        );
    }

    #[test]
    fn scopes_choose_the_pods_that_count() {
        let busy = "containers: [{name: c, image: host, resources: {requests: {cpu: 1}}}]";
        let class = |name: &str| format!("{BARE}, priorityClassName: {name}");
        let select = |operator: &str| {
            format!(
                "{{scopeSelector: {{matchExpressions: [{{scopeName: PriorityClass, {operator}}}]}}}}"
            )
        };
        let far = format!(
            "{BARE}, affinity: {{podAntiAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: \
             [{{weight: 1, podAffinityTerm: {{topologyKey: a, namespaces: [x]}}}}]}}}}"
        );
        for (quota, spec, counts) in [
            ("{}".to_owned(), BARE.to_owned(), true),
            ("{scopes: [BestEffort]}".into(), BARE.into(), true),
            ("{scopes: [BestEffort]}".into(), busy.into(), false),
            ("{scopes: [NotBestEffort]}".into(), busy.into(), true),
            ("{scopes: [Terminating]}".into(), BARE.into(), false),
            (
                "{scopes: [Terminating]}".into(),
                format!("{BARE}, activeDeadlineSeconds: 5"),
                true,
            ),
            (
                "{scopes: [NotTerminating, BestEffort]}".into(),
                BARE.into(),
                true,
            ),
            ("{scopes: [PriorityClass]}".into(), BARE.into(), false),
            ("{scopes: [PriorityClass]}".into(), class("a"), true),
            (select("operator: In, values: [a]"), class("a"), true),
            (select("operator: In, values: [a]"), class("b"), false),
            (select("operator: In, values: [a]"), BARE.into(), false),
            (select("operator: NotIn, values: [a]"), class("b"), true),
            (select("operator: NotIn, values: [a]"), BARE.into(), true),
            (select("operator: DoesNotExist"), BARE.into(), true),
            (select("operator: DoesNotExist"), class("a"), false),
            (
                "{scopes: [CrossNamespacePodAffinity]}".into(),
                BARE.into(),
                false,
            ),
            ("{scopes: [CrossNamespacePodAffinity]}".into(), far, true),
        ] {
            let q: ResourceQuotaSpec = decode_value(quota.as_bytes()).unwrap();
            assert_eq!(quota_covers(&q, &pod(&spec)), counts, "{quota} {spec}");
        }
    }

    #[test]
    fn a_quota_on_cpu_wants_every_container_to_say_its_own() {
        let spec = pod(
            "containers: [{name: a, image: host, resources: {limits: {cpu: 1}}}, {name: b, image: host}]",
        );
        let hard = list("{requests.cpu: 4, limits.memory: 1Gi, pods: 3}");
        let missing = unspecified(&hard, &spec);
        assert_eq!(missing["requests.cpu"], ["b"]);
        assert_eq!(missing["limits.memory"], ["a", "b"]);
        assert_eq!(missing.len(), 2);
    }

    #[test]
    fn what_is_said_for_the_pod_as_a_whole_needs_not_be_said_by_containers() {
        let spec = pod(
            "containers: [{name: a, image: host}], resources: {limits: {cpu: 1}, requests: {memory: 1Gi}}",
        );
        let hard = list("{cpu: 4, requests.memory: 1Gi, limits.cpu: 4, limits.memory: 1Gi}");
        let missing = unspecified(&hard, &spec);
        assert_eq!(
            missing.into_iter().collect::<Vec<_>>(),
            [("limits.memory", vec!["a"])]
        );
    }

    #[test]
    fn only_what_is_asked_for_can_be_too_much() {
        let hard = list("{cpu: 2, pods: 1, memory: 1Gi}");
        let used = list("{cpu: 1500m, pods: 5}");
        assert_eq!(excess(&hard, &used, &list("{cpu: 500m, memory: 0}")), []);
        let found = excess(&hard, &used, &list("{cpu: 501m, pods: 1}"));
        let said: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "cpu: 501m requested, 1500m of 2 used",
                "pods: 1 requested, 5 of 1 used"
            ]
        );
        assert_eq!(
            exceeded("q", &found),
            "exceeded quota: q, requested: cpu=501m,pods=1, used: cpu=1500m,pods=5, limited: cpu=2,pods=1"
        );
        let all = list("{cpu: 9223372036854775807}");
        assert_eq!(excess(&hard, &all, &all).len(), 1);
    }
}
