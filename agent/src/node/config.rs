//! How an agent is set up.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use setpoint_apis::ResourceList;
use setpoint_apis::core::{NodeImage, Taint};
use setpoint_apis::fnv::fnv32;

use crate::server::Listen;

/// The configuration of one agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node's name: a DNS label.
    pub node: String,
    /// Where pods, logs and the disk copy live. Locked: one agent at a time.
    pub data_dir: PathBuf,
    /// Labels the node gives itself.
    pub labels: BTreeMap<String, String>,
    /// Taints the node gives itself.
    pub taints: Vec<Taint>,
    /// What the machine has, where that is not what the kernel says.
    pub capacity: ResourceList,
    /// What is set aside for everything but pods.
    pub reserved: ResourceList,
    /// Images that are there, for drivers that have none of their own to tell of. Empty for processes, which run what the
    /// host has.
    pub images: Vec<NodeImage>,
    /// Addresses for pods, one each, out of this network; `None`: pods have the node's address.
    pub pod_cidr: Option<PodCidr>,
    /// The node's address.
    pub address: IpAddr,
    /// Time to live of the detection lease. etcd may grant more.
    pub lease_ttl: Duration,
    /// Time to live of the fence lease, which is held while there are pods that must never run twice. etcd may grant more.
    pub fence_lease_ttl: Duration,
    /// Claim pods that must never run twice whatever version etcd is. For development.
    pub allow_known_holes: bool,
    /// Where logs are served, and to whom.
    pub listen: Listen,
    /// The name of the control group under which the pods' are made.
    pub cgroup_root: PathBuf,
    /// Stop the pods when the agent stops. Otherwise they go on, and the next agent adopts them.
    pub stop_pods_on_exit: bool,
    /// How long etcd may be silent at start before the pods of the disk copy are taken up.
    pub offline_after: Duration,
    /// How often the node's own records are compared with what was written, a quarter more or less.
    pub look_over_every: Duration,
}

impl AgentConfig {
    /// The defaults for a node of this name and directory.
    pub fn new(node: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let (node, data_dir) = (node.into(), data_dir.into());
        Self {
            cgroup_root: cgroup_root(&node, &data_dir),
            node,
            data_dir,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            capacity: ResourceList::new(),
            reserved: ResourceList::new(),
            images: Vec::new(),
            pod_cidr: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            lease_ttl: Duration::from_secs(6),
            fence_lease_ttl: Duration::from_secs(30),
            allow_known_holes: false,
            listen: Listen::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 10250))),
            stop_pods_on_exit: false,
            offline_after: Duration::from_secs(3),
            look_over_every: Duration::from_secs(60),
        }
    }
}

/// The control group of an agent: node names repeat among the clusters of one machine, data directories do not.
fn cgroup_root(node: &str, data_dir: &Path) -> PathBuf {
    // The next agent of this directory must find the same.
    let hash = fnv32(data_dir.as_os_str().as_encoded_bytes());
    PathBuf::from("setpoint").join(format!("{node}-{hash:08x}"))
}

/// An IPv4 network for pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodCidr {
    base: u32,
    length: u8,
}

/// A text that is no network for pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an IPv4 network of at most 30 bits with no host bits set, such as 127.10.1.0/24"
)]
pub struct BadPodCidr(String);

impl std::str::FromStr for PodCidr {
    type Err = BadPodCidr;

    fn from_str(text: &str) -> Result<Self, BadPodCidr> {
        let wrong = || BadPodCidr(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let base = u32::from(address.parse::<Ipv4Addr>().map_err(|_| wrong())?);
        let length: u8 = length.parse().map_err(|_| wrong())?;
        let cidr = Self { base, length };
        if (8..=30).contains(&length) && base & (cidr.size() - 1) == 0 {
            Ok(cidr)
        } else {
            Err(wrong())
        }
    }
}

impl std::fmt::Display for PodCidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.length)
    }
}

impl PodCidr {
    fn size(self) -> u32 {
        1 << (32 - u32::from(self.length))
    }
}

/// Hands out addresses, and not the one that was given back last.
#[derive(Debug)]
pub(crate) struct Addresses {
    cidr: PodCidr,
    used: std::collections::BTreeSet<u32>,
    next: u32,
}

impl Addresses {
    pub(crate) fn new(cidr: PodCidr) -> Self {
        Self {
            cidr,
            used: std::collections::BTreeSet::new(),
            next: 1,
        }
    }

    /// A free address; `None` when all are taken. The first and the last of the network are never given.
    pub(crate) fn take(&mut self) -> Option<IpAddr> {
        let hosts = self.cidr.size() - 2;
        for _ in 0..hosts {
            let candidate = self.next;
            self.next = self.next % hosts + 1;
            if self.used.insert(candidate) {
                return Some(IpAddr::V4(Ipv4Addr::from(self.cidr.base + candidate)));
            }
        }
        None
    }

    /// Marks an address as taken: a pod that was adopted has it.
    pub(crate) fn keep(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.used.insert(offset);
        }
    }

    pub(crate) fn give_back(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.used.remove(&offset);
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u32> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        u32::from(address)
            .checked_sub(self.cidr.base)
            .filter(|o| *o < self.cidr.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_checked() {
        assert_eq!(
            "127.10.1.0/24".parse::<PodCidr>().unwrap().to_string(),
            "127.10.1.0/24"
        );
        for bad in [
            "",
            "127.10.1.0",
            "127.10.1.1/24",
            "::/64",
            "1.2.3.4/33",
            "127.0.0.0/31",
            "a/24",
        ] {
            assert!(bad.parse::<PodCidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_run_out_come_back_and_are_not_reused_at_once() {
        let mut addresses = Addresses::new("127.10.1.0/29".parse().unwrap());
        let all: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
        assert_eq!(all.len(), 6);
        assert_eq!(all[0], "127.10.1.1".parse::<IpAddr>().unwrap());
        addresses.give_back(all[2]);
        assert_eq!(addresses.take(), Some(all[2]));
        assert_eq!(addresses.take(), None);

        let mut addresses = Addresses::new("127.10.1.0/24".parse().unwrap());
        addresses.keep("127.10.1.1".parse().unwrap());
        let first = addresses.take().unwrap();
        assert_eq!(first, "127.10.1.2".parse::<IpAddr>().unwrap());
        addresses.give_back(first);
        assert_ne!(addresses.take(), Some(first));
    }
}
