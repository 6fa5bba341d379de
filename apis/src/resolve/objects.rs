//! What objects count for in quotas by being there. What pods use is [`quota_usage`](super::quota_usage)'s.

use crate::core::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, ResourceQuotaSpec, Service, ServiceSpec,
    ServiceType,
};
use crate::kind::Kind;
use crate::quantity::{Quantity, ResourceList};

/// The kinds of the core group that quotas also name without `count/`.
const PLAIN: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];

/// What every object of a kind counts for: `count/jobs.batch`, `count/secrets` and `secrets`. Services and claims count
/// for more ([`service_usage`], [`claim_usage`]); of a pod that has ended there is `count/pods` alone.
pub fn object_usage<K: Kind>() -> ResourceList {
    usage_of(K::API_VERSION, K::PLURAL)
}

/// The same of a kind of which only the names are known, as those of others are.
pub fn usage_of(api_version: &str, plural: &str) -> ResourceList {
    let one = Quantity::from_whole(1);
    match api_version.split_once('/') {
        Some((group, _)) => ResourceList::from([(format!("count/{plural}.{group}"), one)]),
        None => {
            let mut usage = ResourceList::from([(format!("count/{plural}"), one)]);
            if PLAIN.contains(&plural) {
                usage.insert(plural.into(), one);
            }
            usage
        }
    }
}

/// What a pod counts for by being there. The requests and limits of those that are placed are the scheduler's.
pub fn pod_object_usage(finished: bool) -> ResourceList {
    let mut usage = object_usage::<Pod>();
    if finished {
        usage.remove(Pod::PLURAL);
    }
    usage
}

/// The plural of the objects that a resource of a quota counts by their being there; `None` for what pods request and
/// are limited to.
pub fn counted_plural(resource: &str) -> Option<&str> {
    if let Some(name) = resource.strip_prefix("count/") {
        return Some(name.split_once('.').map_or(name, |(plural, _)| plural));
    }
    let claims = PersistentVolumeClaim::PLURAL;
    match resource {
        "requests.storage" => Some(claims),
        "services.loadbalancers" | "services.nodeports" => Some(Service::PLURAL),
        _ if resource.contains(".storageclass.storage.k8s.io/") => Some(claims),
        _ => PLAIN.contains(&resource).then_some(resource),
    }
}

/// Whether a quota counts objects other than pods: one with scopes is about pods alone.
pub fn counts_objects(quota: &ResourceQuotaSpec) -> bool {
    quota.requirements().next().is_none()
}

/// What a Service counts for: itself, its load balancer, and the ports that it takes on nodes.
pub fn service_usage(spec: &ServiceSpec) -> ResourceList {
    let mut usage = object_usage::<Service>();
    let count = |n: usize| Quantity::from_whole(i64::try_from(n).unwrap_or(i64::MAX));
    let given = spec
        .ports
        .iter()
        .filter(|p| p.node_port.is_some_and(|n| n != 0));
    let node_ports = match spec.type_.unwrap_or_default() {
        ServiceType::NodePort => spec.ports.len(),
        ServiceType::LoadBalancer if spec.allocate_load_balancer_node_ports == Some(false) => {
            given.count()
        }
        ServiceType::LoadBalancer => spec.ports.len(),
        ServiceType::ClusterIp | ServiceType::ExternalName => 0,
    };
    if spec.type_ == Some(ServiceType::LoadBalancer) {
        usage.insert("services.loadbalancers".into(), count(1));
    }
    if node_ports > 0 {
        usage.insert("services.nodeports".into(), count(node_ports));
    }
    usage
}

/// What a claim counts for: itself and its storage, both also by its class.
pub fn claim_usage(spec: &PersistentVolumeClaimSpec) -> ResourceList {
    let mut usage = object_usage::<PersistentVolumeClaim>();
    let class = spec.storage_class_name.as_deref().filter(|c| !c.is_empty());
    let of_class = |name: &str| class.map(|c| format!("{c}.storageclass.storage.k8s.io/{name}"));
    let storage = spec.resources.as_ref();
    let storage = storage.and_then(|r| r.requests.get("storage")).copied();
    if let Some(storage) = storage {
        usage.insert("requests.storage".into(), storage);
        usage.extend(of_class("requests.storage").map(|name| (name, storage)));
    }
    usage.extend(of_class("persistentvolumeclaims").map(|name| (name, Quantity::from_whole(1))));
    usage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Job;
    use crate::core::{ResourceQuota, Secret};
    use crate::document::decode_value;

    fn list(yaml: &str) -> ResourceList {
        decode_value(yaml.as_bytes()).unwrap()
    }

    #[test]
    fn objects_count_by_the_names_that_quotas_take() {
        assert_eq!(object_usage::<Job>(), list("{count/jobs.batch: 1}"));
        assert_eq!(
            object_usage::<Secret>(),
            list("{count/secrets: 1, secrets: 1}")
        );
        let service = |yaml: &str| service_usage(&decode_value(yaml.as_bytes()).unwrap());
        assert_eq!(
            service("{ports: [{port: 1}]}"),
            list("{count/services: 1, services: 1}")
        );
        let two = "ports: [{port: 1, nodePort: 30000}, {port: 2}]";
        for (type_, more, nodes, balancers) in [
            ("NodePort", "", 2, 0),
            ("LoadBalancer", "", 2, 1),
            (
                "LoadBalancer",
                ", allocateLoadBalancerNodePorts: false",
                1,
                1,
            ),
        ] {
            let usage = service(&format!("{{type: {type_}, {two}{more}}}"));
            let of = |name: &str| usage.get(name).map_or(0, |q| q.value());
            assert_eq!(of("services.nodeports"), nodes, "{type_}{more}");
            assert_eq!(of("services.loadbalancers"), balancers, "{type_}{more}");
        }
        let claim: PersistentVolumeClaimSpec =
            decode_value(b"{storageClassName: fast, resources: {requests: {storage: 2Gi}}}")
                .unwrap();
        let wanted = list(
            "{count/persistentvolumeclaims: 1, persistentvolumeclaims: 1, requests.storage: 2Gi, \
             fast.storageclass.storage.k8s.io/requests.storage: 2Gi, \
             fast.storageclass.storage.k8s.io/persistentvolumeclaims: 1}",
        );
        assert_eq!(claim_usage(&claim), wanted);
        for (resource, plural) in [
            ("count/jobs.batch", Some("jobs")),
            ("count/pods", Some("pods")),
            ("pods", Some("pods")),
            ("services.nodeports", Some("services")),
            ("requests.storage", Some("persistentvolumeclaims")),
            (
                "fast.storageclass.storage.k8s.io/requests.storage",
                Some("persistentvolumeclaims"),
            ),
            ("replicationcontrollers", Some("replicationcontrollers")),
            ("requests.cpu", None),
            ("cpu", None),
            ("limits.memory", None),
            ("requests.example.com/gpu", None),
        ] {
            assert_eq!(counted_plural(resource), plural, "{resource}");
        }
        assert_eq!(pod_object_usage(false), list("{count/pods: 1, pods: 1}"));
        assert_eq!(pod_object_usage(true), list("{count/pods: 1}"));
        assert!(counts_objects(
            &decode_value(b"{hard: {secrets: 1}}").unwrap()
        ));
        assert!(!counts_objects(
            &decode_value(b"{scopes: [BestEffort]}").unwrap()
        ));
        // A quota may name all of them.
        let mut quota = ResourceQuota::default();
        quota.metadata.name = "q".into();
        quota.spec.hard = wanted;
        quota.spec.hard.extend(object_usage::<Job>());
        assert_eq!(quota.validate(), []);
    }
}
