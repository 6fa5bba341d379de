//! What a pod takes, as Kubernetes counts it.

use crate::core::{Container, PodSpec, QosClass};
use crate::quantity::{Quantity, ResourceList};

/// What has to be free on a node for the pod.
///
/// Containers and sidecars run together, so they add up. Other init containers run one at a time, beside the sidecars
/// that were started before them, so the greatest of them counts when it is more than that sum. Resources of the pod as
/// a whole win over those of its containers. The overhead comes on top.
pub fn pod_requests(spec: &PodSpec) -> ResourceList {
    let mut total = effective(spec, container_requests, |r| &r.requests);
    add(&mut total, &spec.overhead);
    total
}

/// The most that the pod may use, counted as [`pod_requests`] counts. A resource that some container leaves unlimited
/// is here with the sum of the limits of the others. The overhead comes on top of what is limited, and limits nothing
/// by itself.
pub fn pod_limits(spec: &PodSpec) -> ResourceList {
    let mut total = effective(spec, |c| c.limits().clone(), |r| &r.limits);
    for (name, limit) in total.iter_mut().filter(|(_, limit)| !limit.is_zero()) {
        if let Some(overhead) = spec.overhead.get(name) {
            *limit += *overhead;
        }
    }
    total
}

/// What a container reserves: its requests, and its limits where it has no request.
pub fn container_requests(c: &Container) -> ResourceList {
    let mut list = c.requests().clone();
    for (name, limit) in c.limits() {
        if !list.contains_key(name) {
            list.insert(name.clone(), *limit);
        }
    }
    list
}

fn effective(
    spec: &PodSpec,
    of: impl Fn(&Container) -> ResourceList,
    of_pod: impl Fn(&crate::core::ResourceRequirements) -> &ResourceList,
) -> ResourceList {
    let mut total = ResourceList::new();
    for c in &spec.containers {
        add(&mut total, &of(c));
    }
    let (mut sidecars, mut peak) = (ResourceList::new(), ResourceList::new());
    for c in &spec.init_containers {
        let mut now = of(c);
        if c.is_sidecar() {
            add(&mut total, &now);
            add(&mut sidecars, &now);
            now.clone_from(&sidecars);
        } else {
            add(&mut now, &sidecars);
        }
        raise(&mut peak, now);
    }
    raise(&mut total, peak);
    if let Some(pod) = &spec.resources {
        total.extend(of_pod(pod).iter().map(|(k, v)| (k.clone(), *v)));
    }
    total
}

fn add(total: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        match total.get_mut(name) {
            Some(sum) => *sum += *amount,
            None => {
                total.insert(name.clone(), *amount);
            }
        }
    }
}

fn raise(total: &mut ResourceList, peak: ResourceList) {
    for (name, amount) in peak {
        let entry = total.entry(name).or_insert(Quantity::ZERO);
        if amount > *entry {
            *entry = amount;
        }
    }
}

/// How the pod's resources are guaranteed.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let mut any = false;
    let mut guaranteed = true;
    for c in spec.all_containers() {
        let requests = container_requests(c);
        for name in ["cpu", "memory"] {
            let request = requests.get(name).filter(|q| !q.is_zero());
            let limit = c.limits().get(name).filter(|q| !q.is_zero());
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Pod;

    fn spec(yaml: &str) -> PodSpec {
        let text =
            format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{{yaml}}}}}");
        (*crate::document::decode::<Pod>(text.as_bytes())
            .unwrap()
            .spec)
            .clone()
    }

    fn requests(yaml: &str) -> String {
        let list = pod_requests(&spec(yaml));
        list.iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    const A: &str = "containers: [{name: a, image: host, resources: {requests: {cpu: 1, memory: 1Gi}}}, \
                     {name: b, image: host, resources: {limits: {cpu: 500m}}}]";

    #[test]
    fn containers_add_up_and_limits_stand_in_for_requests() {
        assert_eq!(requests(A), "cpu=1500m memory=1Gi");
    }

    #[test]
    fn the_greatest_init_container_counts_when_it_is_more() {
        let init = "initContainers: [{name: i, image: host, resources: {requests: {cpu: 2, memory: 1Mi}}}, \
                    {name: j, image: host, resources: {requests: {cpu: 1}}}]";
        assert_eq!(requests(&format!("{A}, {init}")), "cpu=2 memory=1Gi");
    }

    #[test]
    fn sidecars_run_beside_later_init_containers_and_beside_containers() {
        let init = "initContainers: [{name: i, image: host, resources: {requests: {cpu: 2}}}, \
                    {name: s, image: host, restartPolicy: Always, resources: {requests: {cpu: 1}}}, \
                    {name: j, image: host, resources: {requests: {cpu: 3}}}]";
        // The containers and the sidecar take 2.5; the last init container and the sidecar take 4.
        assert_eq!(requests(&format!("{A}, {init}")), "cpu=4 memory=1Gi");
    }

    #[test]
    fn overhead_comes_on_top() {
        assert_eq!(
            requests(&format!("{A}, overhead: {{cpu: 100m, memory: 1Mi}}")),
            "cpu=1600m memory=1025Mi"
        );
    }

    #[test]
    fn amounts_that_are_too_large_to_add_up_are_the_most_there_can_be() {
        let huge = "containers: [{name: a, image: host, resources: {requests: {cpu: 9223372036854775807}}}, \
                    {name: b, image: host, resources: {requests: {cpu: 9223372036854775807}}}]";
        let list = pod_requests(&{
            let text = format!("{{{huge}}}");
            crate::document::decode_value::<PodSpec>(text.as_bytes()).unwrap()
        });
        assert_eq!(list["cpu"].value(), i64::MAX);
    }

    #[test]
    fn overhead_is_added_to_limits_that_there_are() {
        let list = pod_limits(&spec(
            "containers: [{name: a, image: host, resources: {limits: {cpu: 1}}}], overhead: {cpu: 100m, memory: 1Mi}",
        ));
        assert_eq!(list["cpu"].to_string(), "1100m");
        assert_eq!(list.get("memory"), None);
    }

    #[test]
    fn classes_of_service_are_kubernetes() {
        let of = |resources: &str| {
            qos_class(&spec(&format!(
                "containers: [{{name: a, image: host{resources}}}]"
            )))
        };
        assert_eq!(of(""), QosClass::BestEffort);
        assert_eq!(of(", resources: {requests: {cpu: 1}}"), QosClass::Burstable);
        assert_eq!(
            of(", resources: {limits: {cpu: 1, memory: 1Gi}}"),
            QosClass::Guaranteed
        );
        assert_eq!(
            of(", resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m}}"),
            QosClass::Burstable
        );
    }
}
