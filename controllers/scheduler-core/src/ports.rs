//! Ports of nodes that pods take.

use setpoint_apis::core::{PodSpec, Protocol};

/// A port of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// `None` for all addresses of the node.
    pub(crate) address: Option<Box<str>>,
}

impl Port {
    /// Whether both cannot be had at the same time.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

/// The ports of the node that a pod takes, sorted. Numbers that are no ports take none.
pub(crate) fn ports(spec: &PodSpec) -> Box<[Port]> {
    let sidecars = spec.init_containers.iter().filter(|c| c.is_sidecar());
    let all = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| &c.ports);
    let on_host = spec.host_network == Some(true);
    let mut ports: Vec<_> = all
        .filter_map(|p| {
            let port = p.host_port.or(on_host.then_some(p.container_port))?;
            Some(Port {
                port: u16::try_from(port).ok().filter(|p| *p > 0)?,
                protocol: p.protocol.unwrap_or_default(),
                address: match p.host_ip.as_deref() {
                    None | Some("" | "0.0.0.0") => None,
                    Some(address) => Some(address.into()),
                },
            })
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports.into()
}

/// The ports that are taken on a node, with how many pods take each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken(Vec<(Port, u32)>);

impl Taken {
    pub(crate) fn add(&mut self, ports: &[Port]) {
        for port in ports {
            match self.0.binary_search_by(|(p, _)| p.cmp(port)) {
                Ok(at) => self.0[at].1 += 1,
                Err(at) => self.0.insert(at, (port.clone(), 1)),
            }
        }
    }

    pub(crate) fn remove(&mut self, ports: &[Port]) {
        for port in ports {
            if let Ok(at) = self.0.binary_search_by(|(p, _)| p.cmp(port)) {
                self.0[at].1 -= 1;
                if self.0[at].1 == 0 {
                    self.0.remove(at);
                }
            }
        }
    }

    /// Whether all of `ports` can be had as well.
    pub(crate) fn free(&self, ports: &[Port]) -> bool {
        ports.is_empty()
            || !self
                .0
                .iter()
                .any(|(t, _)| ports.iter().any(|p| p.conflicts(t)))
    }
}
