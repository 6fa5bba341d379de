//! `setpoint agent --driver hollow`: nodes that behave as agents do and run nothing.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use setpoint_agent::fleet::{self, FleetConfig};
use setpoint_agent::hollow::Latencies;
use setpoint_agent::node::config::AgentConfig;
use setpoint_apis::core::NodeImage;
use setpoint_apis::{Quantity, ResourceList};
use setpoint_store::SharedStore;
use setpoint_store::etcd::{ConnectOptions, EtcdStore};

use super::{AgentArgs, own_name};
use crate::parts::Part;

/// Nodes that share a connection. A connection carries the watches, the renewals and the writes of its nodes.
const NODES_PER_CONNECTION: usize = 1_250;

/// What a hollow node has, where --capacity does not say otherwise.
const CAPACITY: [(&str, &str); 3] = [("cpu", "4"), ("memory", "8Gi"), ("pods", "110")];

/// Flags of hollow nodes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Hollow nodes (--driver hollow)")]
pub(crate) struct HollowArgs {
    /// How many nodes: NAME-0, NAME-1 and so on [default: one, of this name]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) count: Option<u32>,
    /// In how many zones they are, by turns: the label topology.kubernetes.io/zone is zone-0, zone-1 and so on
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) zones: Option<u32>,
    /// Images that the nodes say they have, with their sizes: registry.example.com/app:1=300Mi
    #[arg(long, value_delimiter = ',', value_name = "NAME=SIZE,...", value_parser = image)]
    pub(crate) images: Vec<NodeImage>,
    /// From the claim of a pod until it is Running: 50ms, or 50ms-2s for a time between these [default: 0s]
    #[arg(long, value_name = "DURATION[-DURATION]", value_parser = latency)]
    pub(crate) start_latency: Option<RangeInclusive<Duration>>,
    /// From the order to stop until nothing is left of a pod [default: 0s]
    #[arg(long, value_name = "DURATION[-DURATION]", value_parser = latency)]
    pub(crate) stop_latency: Option<RangeInclusive<Duration>>,
}

impl HollowArgs {
    /// Refuses flags that mean nothing where processes run.
    pub(super) fn refuse_for_processes(&self) -> Result<()> {
        let given = [
            ("--count", self.count.is_some()),
            ("--zones", self.zones.is_some()),
            ("--images", !self.images.is_empty()),
            ("--start-latency", self.start_latency.is_some()),
            ("--stop-latency", self.stop_latency.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((flag, _)) => bail!("{flag} is for hollow nodes: give --driver hollow as well"),
            None => Ok(()),
        }
    }
}

/// Refuses flags that mean nothing where nothing runs.
fn refuse_for_hollow(args: &AgentArgs) -> Result<()> {
    let given = [
        (
            "--data-dir",
            args.data_dir.is_some(),
            "hollow nodes have no disk",
        ),
        (
            "--listen",
            args.listen.is_some(),
            "hollow nodes have no logs",
        ),
        (
            "--listen-insecure",
            args.listen_insecure,
            "hollow nodes have no logs",
        ),
        (
            "--tls-cert",
            args.tls_cert.is_some(),
            "hollow nodes have no logs",
        ),
        (
            "--tls-client-ca",
            args.tls_client_ca.is_some(),
            "hollow nodes have no logs",
        ),
        (
            "--pod-cidr",
            args.pod_cidr.is_some(),
            "pods of hollow nodes have their node's address",
        ),
        (
            "--stop-pods-on-exit",
            args.stop_pods_on_exit,
            "pods of hollow nodes end with the process anyway",
        ),
    ];
    match given.iter().find(|(_, given, _)| *given) {
        Some((flag, _, why)) => bail!("{flag} has no meaning with --driver hollow: {why}"),
        None => Ok(()),
    }
}

/// Runs hollow nodes until the part is told to stop.
pub(crate) async fn run(args: AgentArgs, options: ConnectOptions, part: Part) -> Result<()> {
    refuse_for_hollow(&args)?;
    let mut capacity = ResourceList::new();
    for (name, amount) in CAPACITY {
        let amount: Quantity = amount.parse().context("a capacity of this program")?;
        capacity.insert(name.to_owned(), amount);
    }
    capacity.extend(args.capacity);
    let instance = format!(
        "hollow-{:016x}",
        u64::from_ne_bytes(crate::random::bytes()?)
    );
    let seed = u64::from_ne_bytes(crate::random::bytes()?);
    let fleet = FleetConfig {
        node: AgentConfig {
            labels: args.node_labels.into_iter().collect(),
            taints: args.taints,
            capacity,
            reserved: args.reserved.into_iter().collect(),
            images: args.hollow.images,
            address: args.address,
            lease_ttl: args.lease_ttl,
            fence_lease_ttl: args.fence_lease_ttl,
            allow_known_holes: args.holes.allow_known_holes,
            ..AgentConfig::new(own_name(args.node_name)?, "hollow")
        },
        count: args.hollow.count,
        zones: args.hollow.zones.unwrap_or_default(),
        latencies: Latencies {
            start: args.hollow.start_latency.unwrap_or(NO_LATENCY),
            stop: args.hollow.stop_latency.unwrap_or(NO_LATENCY),
        },
        seed,
    };
    let nodes = args.hollow.count.unwrap_or(1) as usize;
    let mut stores = vec![part.store];
    while stores.len() * NODES_PER_CONNECTION < nodes {
        let more: SharedStore = Arc::new(EtcdStore::connect(&options).await?);
        stores.push(more);
    }
    fleet::run(fleet, &instance, stores, part.keyspace, part.shutdown).await?;
    Ok(())
}

const NO_LATENCY: RangeInclusive<Duration> = Duration::ZERO..=Duration::ZERO;

/// One duration, or two with a hyphen between them.
fn latency(text: &str) -> Result<RangeInclusive<Duration>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (
        crate::commands::duration(from)?,
        crate::commands::duration(to)?,
    );
    if from > to {
        return Err(format!("{text:?} begins with the longer time"));
    }
    Ok(from..=to)
}

/// An image and how big it is: the size is behind the last `=`.
fn image(text: &str) -> Result<NodeImage, String> {
    let (name, size) = text
        .rsplit_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| {
            format!("{text:?} is not NAME=SIZE, such as registry.example.com/app:1=300Mi")
        })?;
    let size: Quantity = size.parse().map_err(|e| format!("{size:?}: {e}"))?;
    if size.is_negative() {
        return Err(format!("{text:?}: a size is not less than nothing"));
    }
    Ok(NodeImage {
        names: vec![name.to_owned()],
        size_bytes: size.value(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_names_and_sizes() {
        let app = image("registry.example.com:5000/app@sha256:0a=300Mi").unwrap();
        assert_eq!(app.names, ["registry.example.com:5000/app@sha256:0a"]);
        assert_eq!(app.size_bytes, 300 << 20);
        for bad in ["app", "=1Gi", "app=", "app=big", "app=-1"] {
            assert!(image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn latencies_are_a_time_or_two() {
        let ms = Duration::from_millis;
        assert_eq!(latency("50ms"), Ok(ms(50)..=ms(50)));
        assert_eq!(latency("50ms-2s"), Ok(ms(50)..=ms(2000)));
        assert!(latency("2s-50ms").is_err() && latency("-2s").is_err() && latency("").is_err());
    }
}
