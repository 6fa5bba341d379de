//! What a document leaves out, as Kubernetes fills it in. Stored documents stay as written; this happens on every read.

mod autoscaling;
mod batch;
mod limits;
mod workload;

pub use autoscaling::autoscaler;
pub use batch::{cron_job, job};
pub use limits::limit_range;
pub use workload::{daemon_set, deployment, replica_set, stateful_set};

use crate::core::{
    Container, DnsPolicy, HttpGetAction, ImagePullPolicy, PodSpec, Probe, Protocol, ServiceSpec,
    ServiceType, TerminationMessagePolicy, UriScheme,
};
use crate::int_or_string::IntOrString;

/// Permission bits of files in volumes.
pub const DEFAULT_MODE: i32 = 0o644;

/// Fills in a pod's spec.
pub fn pod_spec(spec: &mut PodSpec) {
    spec.restart_policy.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.dns_policy.get_or_insert(DnsPolicy::ClusterFirst);
    spec.scheduler_name
        .get_or_insert_with(|| "default-scheduler".into());
    spec.enable_service_links.get_or_insert(true);
    if spec.service_account_name.is_none() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    for c in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        container(c);
        if spec.host_network == Some(true) {
            for port in &mut c.ports {
                let taken = port.host_port.filter(|&p| p != 0);
                port.host_port = Some(taken.unwrap_or(port.container_port));
            }
        }
    }
    for v in &mut spec.volumes {
        if let Some(s) = &mut v.config_map {
            s.default_mode.get_or_insert(DEFAULT_MODE);
        }
        if let Some(s) = &mut v.secret {
            s.default_mode.get_or_insert(DEFAULT_MODE);
        }
        if let Some(s) = &mut v.downward_api {
            s.default_mode.get_or_insert(DEFAULT_MODE);
        }
        if let Some(s) = &mut v.projected {
            s.default_mode.get_or_insert(DEFAULT_MODE);
        }
    }
}

fn container(c: &mut Container) {
    let pull = if floating(&c.image) {
        ImagePullPolicy::Always
    } else {
        ImagePullPolicy::IfNotPresent
    };
    c.image_pull_policy.get_or_insert(pull);
    c.termination_message_path
        .get_or_insert_with(|| "/dev/termination-log".into());
    c.termination_message_policy
        .get_or_insert(TerminationMessagePolicy::File);
    for port in &mut c.ports {
        port.protocol.get_or_insert(Protocol::Tcp);
    }
    if let Some(r) = &mut c.resources {
        for (name, limit) in &r.limits {
            r.requests.entry(name.clone()).or_insert(*limit);
        }
    }
    for p in [
        &mut c.liveness_probe,
        &mut c.readiness_probe,
        &mut c.startup_probe,
    ]
    .into_iter()
    .flatten()
    {
        probe(p);
    }
    for handler in c
        .lifecycle
        .iter_mut()
        .flat_map(|l| [&mut l.post_start, &mut l.pre_stop])
        .flatten()
    {
        if let Some(http) = &mut handler.http_get {
            http_get(http);
        }
    }
}

/// Whether the image's tag may come to mean another image: `latest`, or none and no digest.
fn floating(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn probe(p: &mut Probe) {
    p.initial_delay_seconds.get_or_insert(0);
    p.timeout_seconds.get_or_insert(1);
    p.period_seconds.get_or_insert(10);
    p.success_threshold.get_or_insert(1);
    p.failure_threshold.get_or_insert(3);
    if let Some(http) = &mut p.http_get {
        http_get(http);
    }
}

fn http_get(http: &mut HttpGetAction) {
    http.path.get_or_insert_with(|| "/".into());
    http.scheme.get_or_insert(UriScheme::Http);
}

/// Fills in a Service's spec.
pub fn service(spec: &mut ServiceSpec) {
    let type_ = *spec.type_.get_or_insert_default();
    spec.session_affinity.get_or_insert_with(|| "None".into());
    for port in &mut spec.ports {
        port.protocol.get_or_insert(Protocol::Tcp);
        if type_ != ServiceType::ExternalName {
            port.target_port.get_or_insert(IntOrString::Int(port.port));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::{Pod, ResourceRequirements, RestartPolicy};
    use crate::kind::Kind;

    fn container_of(image: &str) -> Container {
        Container {
            name: "c".into(),
            image: image.into(),
            ..Container::default()
        }
    }

    #[test]
    fn only_floating_images_are_always_pulled() {
        for (image, policy) in [
            ("nginx", ImagePullPolicy::Always),
            ("nginx:latest", ImagePullPolicy::Always),
            ("example.com:5000/nginx", ImagePullPolicy::Always),
            ("nginx:1.29", ImagePullPolicy::IfNotPresent),
            ("nginx@sha256:0", ImagePullPolicy::IfNotPresent),
        ] {
            let mut c = container_of(image);
            container(&mut c);
            assert_eq!(c.image_pull_policy, Some(policy), "{image}");
        }
    }

    #[test]
    fn limits_are_requests_when_nothing_else_is_said() {
        let mut c = container_of("host");
        let limits = [
            ("cpu".into(), "1".parse().unwrap()),
            ("memory".into(), "1Gi".parse().unwrap()),
        ];
        let requests = [("cpu".into(), "100m".parse().unwrap())];
        c.resources = Some(ResourceRequirements {
            limits: limits.into(),
            requests: requests.into(),
            ..Default::default()
        });
        container(&mut c);
        assert_eq!(c.requests()["cpu"].to_string(), "100m");
        assert_eq!(c.requests()["memory"].to_string(), "1Gi");
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let mut pod = Pod::default();
        let mut spec = PodSpec {
            containers: vec![container_of("host")],
            ..PodSpec::default()
        };
        spec.containers[0].liveness_probe = Some(Box::new(Probe {
            http_get: Some(HttpGetAction::default()),
            ..Probe::default()
        }));
        pod.spec = Arc::new(spec);
        pod.apply_defaults();
        let once = pod.clone();
        pod.apply_defaults();
        assert_eq!(pod, once);
        assert_eq!(pod.spec.restart_policy, Some(RestartPolicy::Always));
    }
}
