//! `setpoint agent`: one per machine; or many nodes that pretend, in one process.

mod hollow;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use setpoint_agent::node::config::{AgentConfig, PodCidr};
use setpoint_agent::server::{Listen, TlsFiles};
use setpoint_apis::core::{Taint, TaintEffect};
use setpoint_apis::{Keyspace, Quantity, ResourceList, names};
use setpoint_store::SharedStore;
use setpoint_store::etcd::{Pem, TlsOptions};
use tokio_util::sync::CancellationToken;

use crate::gate::HolesArgs;

/// Flags of `setpoint agent`.
#[derive(Args, Clone, Debug)]
pub(crate) struct AgentArgs {
    /// What runs pods
    #[arg(long, value_enum, default_value = "process")]
    pub(crate) driver: DriverKind,
    /// The node's name [default: the host's name]; with --count the beginning of the nodes' names
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub(crate) node_name: Option<String>,
    /// Where pods, logs and the copy of this node's work live [default: /var/lib/setpoint, or under the home directory without root]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Labels of the node
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE,...", value_parser = label)]
    pub(crate) node_labels: Vec<(String, String)>,
    /// Taints of the node
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE:EFFECT,...", value_parser = taint)]
    pub(crate) taints: Vec<Taint>,
    /// What the machine has, where the kernel does not know better: cpu, memory, pods, or resources of your own
    #[arg(long, value_delimiter = ',', value_name = "NAME=QUANTITY,...", value_parser = resource)]
    pub(crate) capacity: Vec<(String, Quantity)>,
    /// What is set aside for everything but pods
    #[arg(long, value_delimiter = ',', value_name = "NAME=QUANTITY,...", value_parser = resource)]
    pub(crate) reserved: Vec<(String, Quantity)>,
    /// The node's address
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    pub(crate) address: IpAddr,
    /// Gives every pod an address of its own out of this network, such as 127.10.1.0/24 of loopback
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Option<PodCidr>,
    /// Time to live of the node's detection lease
    #[arg(long, default_value = "6s", value_name = "DURATION", value_parser = seconds)]
    pub(crate) lease_ttl: Duration,
    /// Time to live of the node's fence lease, which is held for pods with the partition policy stop: those are stopped
    /// before it ends, and may then run elsewhere. Two fifths of it are the longest that they get to stop in
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = seconds)]
    pub(crate) fence_lease_ttl: Duration,
    #[command(flatten)]
    pub(crate) holes: HolesArgs,
    /// Where logs are served: HTTP on loopback, elsewhere HTTPS for those with a client certificate
    /// [default: 127.0.0.1:10250]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The certificate to serve logs with [default, beyond loopback: the client certificate of etcd]
    #[arg(
        long,
        env = "SETPOINT_TLS_CERT",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(
        long,
        env = "SETPOINT_TLS_KEY",
        hide_env_values = true,
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Whoever has a certificate that this CA has signed may read the logs [default: the CA of etcd]
    #[arg(
        long,
        env = "SETPOINT_TLS_CLIENT_CA",
        hide_env_values = true,
        value_name = "FILE"
    )]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Serve logs without TLS beyond loopback as well: whoever reaches the port may read them
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key", "tls_client_ca"])]
    pub(crate) listen_insecure: bool,
    /// Stop the pods when the agent stops, instead of leaving them to the next one
    #[arg(long)]
    pub(crate) stop_pods_on_exit: bool,
    #[command(flatten)]
    pub(crate) hollow: hollow::HollowArgs,
}

/// What runs pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DriverKind {
    /// Processes of this machine
    Process,
    /// Nothing: pods only seem to run. For clusters of thousands of nodes on one machine
    Hollow,
}

impl AgentArgs {
    /// Whether the nodes pretend.
    pub(crate) fn is_hollow(&self) -> bool {
        self.driver == DriverKind::Hollow
    }
}

fn node_name(text: &str) -> Result<String, String> {
    names::dns_subdomain(text)
        .map(|()| text.to_owned())
        .map_err(|e| e.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not of the form key=value"))?;
    names::label_key(key).map_err(|e| e.to_string())?;
    names::label_value(value).map_err(|e| e.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

fn taint(text: &str) -> Result<Taint, String> {
    let wrong = || format!("{text:?} is not of the form key=value:effect or key:effect");
    let (rest, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let effect = match effect {
        "NoSchedule" => TaintEffect::NoSchedule,
        "PreferNoSchedule" => TaintEffect::PreferNoSchedule,
        "NoExecute" => TaintEffect::NoExecute,
        _ => {
            return Err(format!(
                "effect {effect:?} is none of NoSchedule, PreferNoSchedule, NoExecute"
            ));
        }
    };
    let (key, value) = rest
        .split_once('=')
        .map_or((rest, None), |(k, v)| (k, Some(v)));
    names::label_key(key).map_err(|e| e.to_string())?;
    Ok(Taint {
        key: key.into(),
        value: value.map(Into::into),
        effect,
        time_added: None,
    })
}

fn resource(text: &str) -> Result<(String, Quantity), String> {
    let (name, quantity) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not of the form name=quantity"))?;
    let quantity = quantity.parse().map_err(|e| format!("{name}: {e}"))?;
    Ok((name.to_owned(), quantity))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    match number.parse::<u64>() {
        Ok(n) if (1..=3600).contains(&n) => Ok(Duration::from_secs(n)),
        _ => Err(format!(
            "{text:?} is not a number of seconds from 1s to 3600s"
        )),
    }
}

pub(crate) use hollow::run as run_hollow;

/// Runs until `shutdown`.
///
/// `etcd` is what leads to etcd; its certificates serve the logs where there are no others.
pub(crate) async fn run(
    args: AgentArgs,
    etcd: Option<TlsOptions>,
    store: SharedStore,
    keyspace: Keyspace,
    shutdown: CancellationToken,
) -> Result<()> {
    args.hollow.refuse_for_processes()?;
    let listen = listen(&args, etcd)?;
    let node = own_name(args.node_name)?;
    let data_dir = match args.data_dir {
        Some(dir) => {
            std::path::absolute(dir).context("making the data directory's path absolute")?
        }
        None => default_data_dir()?,
    };
    let config = AgentConfig {
        labels: args.node_labels.into_iter().collect::<BTreeMap<_, _>>(),
        taints: args.taints,
        capacity: args.capacity.into_iter().collect::<ResourceList>(),
        reserved: args.reserved.into_iter().collect::<ResourceList>(),
        pod_cidr: args.pod_cidr,
        address: args.address,
        lease_ttl: args.lease_ttl,
        fence_lease_ttl: args.fence_lease_ttl,
        allow_known_holes: args.holes.allow_known_holes,
        listen,
        stop_pods_on_exit: args.stop_pods_on_exit,
        ..AgentConfig::new(node, data_dir)
    };
    setpoint_agent::run(config, store, keyspace, shutdown).await?;
    Ok(())
}

/// The name that was given, or the host's.
fn own_name(given: Option<String>) -> Result<String> {
    if let Some(name) = given {
        return Ok(name);
    }
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase();
    node_name(&host)
        .map_err(anyhow::Error::msg)
        .context("the host's name is no name for a node; give one with --node-name")
}

/// How the logs are served. On loopback TLS is for those who ask for it by name.
fn listen(args: &AgentArgs, etcd: Option<TlsOptions>) -> Result<Listen> {
    let address = args
        .listen
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 10250)));
    let plain = Listen {
        insecure: args.listen_insecure,
        ..Listen::plain(address)
    };
    let asked_for = args.tls_cert.is_some() || args.tls_client_ca.is_some();
    if args.listen_insecure || !asked_for && address.ip().to_canonical().is_loopback() {
        return Ok(plain);
    }
    let file = |pem: Pem| match pem {
        Pem::File(path) => Some(path),
        Pem::Text(_) => None,
    };
    let (ca, client) = etcd.map_or((None, None), |tls| (file(tls.ca), tls.client));
    let own = args.tls_cert.clone().zip(args.tls_key.clone());
    let pair = own.or_else(|| {
        let (certificate, key) = client?;
        Some((file(certificate)?, file(key)?))
    });
    match (pair, args.tls_client_ca.clone().or(ca)) {
        (Some((certificate, key)), Some(client_ca)) => Ok(Listen {
            tls: Some(TlsFiles {
                certificate,
                key,
                client_ca,
            }),
            ..plain
        }),
        (None, _) if args.tls_client_ca.is_some() => bail!(
            "--tls-client-ca: the certificate to serve with is missing (--tls-cert and --tls-key)"
        ),
        (Some(_), None) if args.tls_cert.is_some() => bail!(
            "--tls-cert: it is not said whose client certificates are let in (--tls-client-ca)"
        ),
        _ => Ok(plain),
    }
}

fn default_data_dir() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/setpoint".into());
    }
    let home =
        std::env::var_os("HOME").context("HOME is not set; name a directory with --data-dir")?;
    Ok(PathBuf::from(home).join(".local/share/setpoint"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_checked_where_they_are_given() {
        assert!(
            node_name("n1").is_ok()
                && node_name("N 1").is_err()
                && node_name("a/b").is_err()
                && node_name("..").is_err()
        );
        assert_eq!(taint("a=b:NoSchedule").unwrap().value.as_deref(), Some("b"));
        assert!(
            taint("a:NoExecute").is_ok() && taint("a=b").is_err() && taint("a=b:Never").is_err()
        );
        assert!(
            resource("cpu=500m").is_ok()
                && resource("cpu").is_err()
                && resource("cpu=lots").is_err()
        );
        assert_eq!(seconds("6s"), Ok(Duration::from_secs(6)));
        assert!(seconds("0").is_err() && seconds("6m").is_err());
    }
}
