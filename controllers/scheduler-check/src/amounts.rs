//! What a pod takes of a node.

use std::collections::{BTreeMap, BTreeSet};

use setpoint_apis::core::{Container, PodSpec, Protocol, RestartPolicy};
use setpoint_apis::{Quantity, ResourceList};

/// Amounts by resource: thousandths for `cpu`, whole units for everything else.
pub(crate) type Amounts = BTreeMap<String, i128>;

/// One quantity in the unit of its resource.
fn unit(resource: &str, quantity: &Quantity) -> i128 {
    if resource == "cpu" {
        i128::from(quantity.milli_value())
    } else {
        i128::from(quantity.value())
    }
}

/// A list of quantities in the units of their resources.
pub(crate) fn amounts(list: &ResourceList) -> Amounts {
    list.iter()
        .map(|(resource, quantity)| (resource.clone(), unit(resource, quantity)))
        .collect()
}

/// Adds `more` to `sum`.
pub(crate) fn add(sum: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        *sum.entry(resource.clone()).or_default() += amount;
    }
}

/// The greater of both, resource by resource.
fn greater(a: &Amounts, b: &Amounts) -> Amounts {
    let resources: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    resources
        .into_iter()
        .map(|r| {
            let of = |list: &Amounts| list.get(r).copied().unwrap_or(0);
            (r.clone(), of(a).max(of(b)))
        })
        .collect()
}

/// What a container asks for: a limit stands for the request that is not given.
fn of_container(container: &Container) -> Amounts {
    let Some(resources) = &container.resources else {
        return Amounts::new();
    };
    let mut asked = amounts(&resources.limits);
    asked.extend(amounts(&resources.requests));
    asked
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy == Some(RestartPolicy::Always)
}

/// What a pod asks for, over its whole life: the greatest of what runs at once at any time, plus the overhead.
///
/// Init containers run one after the other; each beside the sidecars that come before it in the list (and a sidecar
/// beside those before it). Then all containers run beside all sidecars. What the pod as a whole asks for of a resource
/// replaces what its containers ask for.
pub(crate) fn pod_amounts(spec: &PodSpec) -> Amounts {
    let mut most = Amounts::new();
    for (i, container) in spec.init_containers.iter().enumerate() {
        let mut now = of_container(container);
        for earlier in &spec.init_containers[..i] {
            if is_sidecar(earlier) {
                add(&mut now, &of_container(earlier));
            }
        }
        most = greater(&most, &now);
    }
    let mut running = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &of_container(container));
    }
    for container in &spec.init_containers {
        if is_sidecar(container) {
            add(&mut running, &of_container(container));
        }
    }
    most = greater(&most, &running);
    if let Some(whole) = &spec.resources {
        most.extend(amounts(&whole.requests));
    }
    add(&mut most, &amounts(&spec.overhead));
    most
}

/// A port on the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    pub(crate) protocol: Protocol,
    pub(crate) port: i32,
    pub(crate) ip: String,
}

impl HostPort {
    /// Whether both cannot be bound at once: the same port of the same protocol, on the same address or with one of
    /// them on all addresses.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        const ALL: &str = "0.0.0.0";
        (self.protocol, self.port) == (other.protocol, other.port)
            && (self.ip == other.ip || self.ip == ALL || other.ip == ALL)
    }
}

/// The ports on the node that a pod binds: those of its containers and of its sidecars.
pub(crate) fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().filter(|c| is_sidecar(c));
    let mut ports = Vec::new();
    for container in spec.containers.iter().chain(sidecars) {
        for port in &container.ports {
            if let Some(number) = port.host_port.filter(|p| *p > 0) {
                let ip = port.host_ip.clone().filter(|ip| !ip.is_empty());
                ports.push(HostPort {
                    protocol: port.protocol.unwrap_or(Protocol::Tcp),
                    port: number,
                    ip: ip.unwrap_or_else(|| "0.0.0.0".into()),
                });
            }
        }
    }
    ports
}
