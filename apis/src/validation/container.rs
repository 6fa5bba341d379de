//! Containers: image, ports, environment, resources, mounts, probes.

use std::collections::BTreeSet;

use super::{Findings, key_path};
use crate::core::{Container, HttpGetAction, LifecycleHandler, Probe};
use crate::int_or_string::IntOrString;
use crate::names;
use crate::quantity::{Quantity, ResourceList};

pub(super) fn container(f: &mut Findings, path: &str, c: &Container, volumes: &BTreeSet<&str>) {
    if c.image.trim().is_empty() {
        f.add(
            format!("{path}.image"),
            "a container needs an image; `host` runs a program of the node itself",
        );
    } else if c.image.trim() != c.image {
        f.add(
            format!("{path}.image"),
            format!("{:?} begins or ends with a space", c.image),
        );
    }
    ports(f, path, c);
    super::env::env(f, path, c);
    resources(f, path, c);
    mounts(f, path, c, volumes);
    for (field, p) in [
        ("livenessProbe", &c.liveness_probe),
        ("readinessProbe", &c.readiness_probe),
        ("startupProbe", &c.startup_probe),
    ] {
        if let Some(p) = p {
            probe(
                f,
                &format!("{path}.{field}"),
                p,
                c,
                field != "readinessProbe",
            );
        }
    }
    if let Some(l) = &c.lifecycle {
        for (field, h) in [("postStart", &l.post_start), ("preStop", &l.pre_stop)] {
            if let Some(h) = h {
                handler(f, &format!("{path}.lifecycle.{field}"), h, c);
            }
        }
    }
    if let Some(s) = &c.security_context {
        f.at_least(
            format!("{path}.securityContext.runAsUser"),
            s.run_as_user,
            0,
        );
        f.at_least(
            format!("{path}.securityContext.runAsGroup"),
            s.run_as_group,
            0,
        );
        if s.allow_privilege_escalation == Some(false) && s.privileged == Some(true) {
            f.add(
                format!("{path}.securityContext.allowPrivilegeEscalation"),
                "must not be false for a privileged container",
            );
        }
    }
}

fn ports(f: &mut Findings, path: &str, c: &Container) {
    let mut seen = BTreeSet::new();
    for (i, p) in c.ports.iter().enumerate() {
        let path = format!("{path}.ports[{i}]");
        f.port(format!("{path}.containerPort"), p.container_port);
        if let Some(host_port) = p.host_port.filter(|&p| p != 0) {
            f.port(format!("{path}.hostPort"), host_port);
        }
        if let Some(ip) = p.host_ip.as_deref().filter(|ip| !ip.is_empty())
            && ip.parse::<std::net::IpAddr>().is_err()
        {
            f.add(
                format!("{path}.hostIP"),
                format!("{ip:?} is not an IP address"),
            );
        }
        if let Some(name) = p.name.as_deref().filter(|n| !n.is_empty()) {
            f.name(format!("{path}.name"), name, names::port_name(name));
            if !seen.insert(name) {
                f.add(
                    format!("{path}.name"),
                    format!("another port of the container is called {name:?}"),
                );
            }
        }
    }
}

fn resources(f: &mut Findings, path: &str, c: &Container) {
    let Some(r) = &c.resources else { return };
    amounts(f, &format!("{path}.resources.limits"), &r.limits);
    amounts(f, &format!("{path}.resources.requests"), &r.requests);
    for (name, request) in &r.requests {
        let path = key_path(&format!("{path}.resources.requests"), name);
        match r.limits.get(name) {
            Some(limit) if request > limit => {
                f.add(path, format!("{request} is more than the limit, {limit}"));
            }
            Some(limit) if is_indivisible(name) && request != limit => f.add(
                path,
                format!("must equal the limit, {limit}: this resource cannot be shared"),
            ),
            None if is_indivisible(name) => f.add(
                path,
                "needs a limit of the same amount: this resource cannot be shared",
            ),
            _ => {}
        }
    }
    let all = || r.requests.keys().chain(r.limits.keys());
    if all().any(|n| n.starts_with(HUGE_PAGES)) && !all().any(|n| n == "cpu" || n == "memory") {
        f.add(
            format!("{path}.resources"),
            "huge pages need a request or limit of cpu or memory beside them",
        );
    }
}

const HUGE_PAGES: &str = "hugepages-";

/// The most that can be asked for of anything (8 Pi): what is more is a slip of the pen, and a thousand times that much
/// can still be added up.
const MOST: Quantity = Quantity::from_whole(1 << 53);

/// What is wrong with an amount of any resource.
pub(super) fn amount(f: &mut Findings, path: &str, amount: &Quantity) {
    if amount.is_negative() {
        f.add(path, format!("{amount} is negative"));
    }
    if *amount > MOST {
        f.add(
            path,
            format!("{amount} is more than any node can have: the most is 8Pi"),
        );
    }
}

/// What is wrong with amounts of what nodes have.
pub(super) fn amounts(f: &mut Findings, path: &str, list: &ResourceList) {
    for (name, quantity) in list {
        let path = key_path(path, name);
        if let Some(size) = name.strip_prefix(HUGE_PAGES) {
            huge_pages(f, &path, size, quantity);
        } else if name.contains('/') {
            f.name(path.clone(), name, names::label_key(name));
        } else if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            f.add(
                path.clone(),
                format!("{name:?} is not cpu, memory, ephemeral-storage or a name with a domain (example.com/gpu)"),
            );
        }
        amount(f, &path, quantity);
        if is_extended(name) && !quantity.is_whole() {
            f.add(
                path,
                format!("{quantity} is not a whole number: this resource cannot be divided"),
            );
        }
    }
}

fn huge_pages(f: &mut Findings, path: &str, size: &str, amount: &Quantity) {
    match size.parse::<Quantity>() {
        Ok(page) if page.is_whole() && page > Quantity::ZERO => {
            if !amount.is_whole() || amount.value() % page.value() != 0 {
                f.add(
                    path,
                    format!("{amount} is not a multiple of the page size, {page}"),
                );
            }
        }
        _ => f.add(
            path,
            format!("{size:?} is not the size of a page, such as 2Mi"),
        ),
    }
}

fn is_extended(name: &str) -> bool {
    name.contains('/')
}

/// Whether what one container has of a resource no other can use.
fn is_indivisible(name: &str) -> bool {
    is_extended(name) || name.starts_with(HUGE_PAGES)
}

fn mounts(f: &mut Findings, path: &str, c: &Container, volumes: &BTreeSet<&str>) {
    let mut seen = BTreeSet::new();
    for (i, m) in c.volume_mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{i}]");
        if !volumes.contains(m.name.as_str()) {
            f.add(
                format!("{path}.name"),
                format!("the pod has no volume {:?}", m.name),
            );
        }
        if m.mount_path.is_empty() {
            f.add(format!("{path}.mountPath"), "must not be empty");
        } else if !seen.insert(&m.mount_path) {
            f.add(
                format!("{path}.mountPath"),
                format!("{:?} is the place of another mount", m.mount_path),
            );
        }
        if let Some(sub) = m.sub_path.as_deref().filter(|s| !s.is_empty()) {
            relative(f, &format!("{path}.subPath"), sub);
            if m.sub_path_expr.as_deref().is_some_and(|s| !s.is_empty()) {
                f.add(
                    format!("{path}.subPathExpr"),
                    "there is a subPath already; one of the two must go",
                );
            }
        }
        if let Some(sub) = m.sub_path_expr.as_deref().filter(|s| !s.is_empty()) {
            relative(f, &format!("{path}.subPathExpr"), sub);
        }
        f.one_of(
            format!("{path}.mountPropagation"),
            m.mount_propagation.as_deref(),
            &["None", "HostToContainer", "Bidirectional"],
        );
    }
}

/// Whether `file` stays below the directory that it is relative to.
pub(super) fn relative(f: &mut Findings, path: &str, file: &str) {
    if file.starts_with('/') {
        f.add(path, format!("{file:?} must be relative"));
    }
    if file.split('/').any(|s| s == "..") {
        f.add(path, format!("{file:?} must not hold '..'"));
    }
}

fn probe(f: &mut Findings, path: &str, p: &Probe, c: &Container, once: bool) {
    exactly_one(
        f,
        path,
        &[
            ("exec", p.exec.is_some()),
            ("httpGet", p.http_get.is_some()),
            ("tcpSocket", p.tcp_socket.is_some()),
            ("grpc", p.grpc.is_some()),
        ],
    );
    if p.exec.as_ref().is_some_and(|e| e.command.is_empty()) {
        f.add(format!("{path}.exec.command"), "needs a command");
    }
    if let Some(http) = &p.http_get {
        http_get(f, &format!("{path}.httpGet"), http, c);
    }
    if let Some(tcp) = &p.tcp_socket {
        port_ref(f, &format!("{path}.tcpSocket.port"), &tcp.port, c);
    }
    if let Some(grpc) = &p.grpc {
        f.port(format!("{path}.grpc.port"), grpc.port);
    }
    f.at_least(
        format!("{path}.initialDelaySeconds"),
        p.initial_delay_seconds,
        0,
    );
    f.at_least(format!("{path}.timeoutSeconds"), p.timeout_seconds, 1);
    f.at_least(format!("{path}.periodSeconds"), p.period_seconds, 1);
    f.at_least(format!("{path}.successThreshold"), p.success_threshold, 1);
    f.at_least(format!("{path}.failureThreshold"), p.failure_threshold, 1);
    if once && p.success_threshold.is_some_and(|t| t > 1) {
        f.add(
            format!("{path}.successThreshold"),
            "must be 1 for liveness and startup",
        );
    }
    if p.termination_grace_period_seconds.is_some() && !once {
        f.add(
            format!("{path}.terminationGracePeriodSeconds"),
            "a readiness probe ends no container",
        );
    }
    f.at_least(
        format!("{path}.terminationGracePeriodSeconds"),
        p.termination_grace_period_seconds,
        1,
    );
}

fn handler(f: &mut Findings, path: &str, h: &LifecycleHandler, c: &Container) {
    exactly_one(
        f,
        path,
        &[
            ("exec", h.exec.is_some()),
            ("httpGet", h.http_get.is_some()),
            ("sleep", h.sleep.is_some()),
            ("tcpSocket", h.tcp_socket.is_some()),
        ],
    );
    if h.exec.as_ref().is_some_and(|e| e.command.is_empty()) {
        f.add(format!("{path}.exec.command"), "needs a command");
    }
    if let Some(http) = &h.http_get {
        http_get(f, &format!("{path}.httpGet"), http, c);
    }
    f.at_least(
        format!("{path}.sleep.seconds"),
        h.sleep.as_ref().map(|s| s.seconds),
        0,
    );
}

fn http_get(f: &mut Findings, path: &str, http: &HttpGetAction, c: &Container) {
    port_ref(f, &format!("{path}.port"), &http.port, c);
    for (i, h) in http.http_headers.iter().enumerate() {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if h.name.is_empty() || !h.name.bytes().all(token) {
            f.add(
                format!("{path}.httpHeaders[{i}].name"),
                format!("{:?} is not the name of a header", h.name),
            );
        }
    }
}

fn port_ref(f: &mut Findings, path: &str, port: &IntOrString, c: &Container) {
    match port {
        IntOrString::Int(n) => f.port(path, *n),
        IntOrString::String(name) => match names::port_name(name) {
            Err(problem) => f.add(path, format!("{name:?} {problem}")),
            Ok(()) if !c.ports.iter().any(|p| p.name.as_ref() == Some(name)) => {
                f.add(path, format!("the container has no port {name:?}"));
            }
            Ok(()) => {}
        },
    }
}

/// Adds a finding unless exactly one of the fields is there.
pub(super) fn exactly_one(f: &mut Findings, path: &str, fields: &[(&str, bool)]) {
    let there: Vec<&str> = fields
        .iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| *name)
        .collect();
    match there.as_slice() {
        [_] => {}
        [] => {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            f.add(path, format!("needs one of {}", names.join(", ")));
        }
        [_, second, ..] => f.add(
            format!("{path}.{second}"),
            format!("only one of {} may be set", there.join(", ")),
        ),
    }
}
