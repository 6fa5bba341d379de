//! The kinds without pods in them.

use std::collections::BTreeSet;

use super::{DATA_BYTES, Findings, key_path};
use crate::core::{
    ConfigMap, Event, Namespace, Node, PersistentVolumeClaim, PersistentVolumeClaimSpec, Secret,
    Service, ServiceAccount, ServiceType, TaintEffect,
};
use crate::int_or_string::IntOrString;
use crate::kind::FieldError;
use crate::names;
use crate::networking::{Ingress, IngressBackend};

/// What is wrong with a Namespace.
pub fn namespace(n: &Namespace) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &n.metadata, false, names::dns_label);
    f.0
}

/// What is wrong with a Node.
pub fn node(n: &Node) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &n.metadata, false, names::dns_subdomain);
    let mut seen: BTreeSet<(&str, TaintEffect)> = BTreeSet::new();
    for (i, t) in n.spec.taints.iter().enumerate() {
        let path = format!("spec.taints[{i}]");
        f.name(format!("{path}.key"), &t.key, names::label_key(&t.key));
        let value = t.value.as_deref().unwrap_or_default();
        f.name(format!("{path}.value"), value, names::label_value(value));
        if !seen.insert((&t.key, t.effect)) {
            f.add(
                path,
                format!(
                    "another taint has the key {:?} and the effect {}",
                    t.key, t.effect
                ),
            );
        }
    }
    f.0
}

/// What is wrong with an Event.
pub fn event(e: &Event) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &e.metadata, true, names::dns_subdomain);
    f.0
}

/// What is wrong with a ConfigMap.
pub fn config_map(c: &ConfigMap) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &c.metadata, true, names::dns_subdomain);
    for key in c.data.keys() {
        f.name(key_path("data", key), key, names::data_key(key));
    }
    for key in c.binary_data.keys() {
        f.name(key_path("binaryData", key), key, names::data_key(key));
        if c.data.contains_key(key) {
            f.add(
                key_path("binaryData", key),
                format!("data has a key {key:?} as well"),
            );
        }
    }
    let bytes = c.data.values().map(String::len).sum::<usize>()
        + c.binary_data.values().map(|v| v.0.len()).sum::<usize>();
    if bytes > DATA_BYTES {
        f.add(
            "data",
            format!("holds {bytes} bytes, the most is {DATA_BYTES}"),
        );
    }
    f.0
}

/// What is wrong with a Secret.
pub fn secret(s: &Secret) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &s.metadata, true, names::dns_subdomain);
    for key in s.data.keys() {
        f.name(key_path("data", key), key, names::data_key(key));
    }
    for key in s.string_data.keys() {
        f.name(key_path("stringData", key), key, names::data_key(key));
    }
    let bytes = s.entries().values().map(|v| v.len()).sum::<usize>();
    if bytes > DATA_BYTES {
        f.add(
            "data",
            format!("holds {bytes} bytes, the most is {DATA_BYTES}"),
        );
    }
    let required: &[&str] = match s.type_.as_deref().unwrap_or("Opaque") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required.iter().filter(|k| s.get(k).is_none()) {
        f.add(
            "data",
            format!("a Secret of this type needs the key {key:?}"),
        );
    }
    f.0
}

/// What is wrong with a ServiceAccount.
pub fn service_account(s: &ServiceAccount) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &s.metadata, true, names::dns_subdomain);
    f.0
}

/// What is wrong with a PersistentVolumeClaim.
pub fn claim(c: &PersistentVolumeClaim) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &c.metadata, true, names::dns_subdomain);
    claim_spec(&mut f, "spec", &c.spec);
    f.0
}

pub(super) fn claim_spec(f: &mut Findings, path: &str, spec: &PersistentVolumeClaimSpec) {
    if spec.access_modes.is_empty() {
        f.add(
            format!("{path}.accessModes"),
            "needs at least one access mode",
        );
    }
    let storage = spec.resources.as_ref();
    match storage.and_then(|r| r.requests.get("storage")) {
        None => f.add(
            format!("{path}.resources.requests"),
            "needs the amount of storage",
        ),
        Some(q) if q.is_zero() || q.is_negative() => f.add(
            format!("{path}.resources.requests.storage"),
            "must be more than nothing",
        ),
        Some(_) => {}
    }
    f.one_of(
        format!("{path}.volumeMode"),
        spec.volume_mode.as_deref(),
        &["Filesystem", "Block"],
    );
    if let Some(s) = &spec.selector {
        super::selector(f, &format!("{path}.selector"), s);
    }
}

/// What is wrong with a Service.
pub fn service(s: &Service) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &s.metadata, true, names::dns_1035_label);
    super::labels(&mut f, "spec.selector", &s.spec.selector);
    let type_ = s.spec.type_.unwrap_or_default();
    let headless = s.spec.cluster_ip.as_deref() == Some("None");
    if s.spec.ports.is_empty() && type_ != ServiceType::ExternalName && !headless {
        f.add("spec.ports", "a service needs at least one port");
    }
    if type_ == ServiceType::ExternalName {
        let name = s.spec.external_name.as_deref().unwrap_or_default();
        f.name(
            "spec.externalName",
            name,
            names::dns_subdomain(name.strip_suffix('.').unwrap_or(name)),
        );
    }
    let (mut seen_names, mut seen_ports) = (BTreeSet::new(), BTreeSet::new());
    for (i, p) in s.spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        f.port(format!("{path}.port"), p.port);
        match p.name.as_deref().filter(|n| !n.is_empty()) {
            None if s.spec.ports.len() > 1 => f.add(
                format!("{path}.name"),
                "is required when there are several ports",
            ),
            None => {}
            Some(name) => {
                f.name(format!("{path}.name"), name, names::dns_label(name));
                if !seen_names.insert(name) {
                    f.add(
                        format!("{path}.name"),
                        format!("another port of the service is called {name:?}"),
                    );
                }
            }
        }
        if !seen_ports.insert((p.port, p.protocol)) {
            f.add(
                format!("{path}.port"),
                format!("another port of the service has the number {}", p.port),
            );
        }
        match &p.target_port {
            Some(IntOrString::Int(n)) => f.port(format!("{path}.targetPort"), *n),
            Some(IntOrString::String(name)) => {
                f.name(format!("{path}.targetPort"), name, names::port_name(name))
            }
            None => {}
        }
        if let Some(port) = p.node_port.filter(|&n| n != 0) {
            f.port(format!("{path}.nodePort"), port);
            if type_ == ServiceType::ClusterIp {
                f.add(
                    format!("{path}.nodePort"),
                    "has no meaning for a service of type ClusterIP",
                );
            }
        }
    }
    for (path, value, words) in [
        (
            "spec.sessionAffinity",
            &s.spec.session_affinity,
            ["None", "ClientIP"],
        ),
        (
            "spec.externalTrafficPolicy",
            &s.spec.external_traffic_policy,
            ["Cluster", "Local"],
        ),
        (
            "spec.internalTrafficPolicy",
            &s.spec.internal_traffic_policy,
            ["Cluster", "Local"],
        ),
    ] {
        f.one_of(path, value.as_deref().filter(|v| !v.is_empty()), &words);
    }
    f.0
}

/// What is wrong with an Ingress.
pub fn ingress(ing: &Ingress) -> Vec<FieldError> {
    let mut f = Findings::default();
    super::metadata(&mut f, &ing.metadata, true, names::dns_subdomain);
    if ing.spec.rules.is_empty() && ing.spec.default_backend.is_none() {
        f.add("spec", "needs rules or a defaultBackend");
    }
    if let Some(b) = &ing.spec.default_backend {
        backend(&mut f, "spec.defaultBackend", b);
    }
    for (i, rule) in ing.spec.rules.iter().enumerate() {
        if let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty()) {
            f.name(
                format!("spec.rules[{i}].host"),
                host,
                names::dns_subdomain(host.strip_prefix("*.").unwrap_or(host)),
            );
        }
        let Some(http) = &rule.http else { continue };
        if http.paths.is_empty() {
            f.add(
                format!("spec.rules[{i}].http.paths"),
                "needs at least one path",
            );
        }
        for (j, p) in http.paths.iter().enumerate() {
            let path = format!("spec.rules[{i}].http.paths[{j}]");
            let text = p.path.as_deref().unwrap_or_default();
            let free = p.path_type == crate::networking::PathType::ImplementationSpecific;
            if !(text.starts_with('/') || free && text.is_empty()) {
                f.add(
                    format!("{path}.path"),
                    format!("{text:?} must begin with '/'"),
                );
            }
            backend(&mut f, &format!("{path}.backend"), &p.backend);
        }
    }
    f.0
}

fn backend(f: &mut Findings, path: &str, b: &IngressBackend) {
    super::container::exactly_one(
        f,
        path,
        &[
            ("service", b.service.is_some()),
            ("resource", b.resource.is_some()),
        ],
    );
    let Some(s) = &b.service else { return };
    f.name(
        format!("{path}.service.name"),
        &s.name,
        names::dns_1035_label(&s.name),
    );
    match &s.port {
        None => f.add(format!("{path}.service.port"), "needs a name or a number"),
        Some(port) => {
            let named = port.name.as_deref().is_some_and(|n| !n.is_empty());
            super::container::exactly_one(
                f,
                &format!("{path}.service.port"),
                &[
                    ("name", named),
                    ("number", port.number.is_some_and(|n| n != 0)),
                ],
            );
            if let Some(n) = port.number.filter(|&n| n != 0) {
                f.port(format!("{path}.service.port.number"), n);
            }
        }
    }
}
