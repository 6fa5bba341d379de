//! A cluster of three etcd members on loopback, which die one by one, or all at once.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use rustix::process::Signal;

use super::process::{Nursery, Process};

/// How many members there are: as many as it takes for one to be missed.
pub const MEMBERS: usize = 3;

/// How long a member may take to answer a question about itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Three members with data of their own.
pub struct EtcdCluster {
    members: Vec<Member>,
    nursery: Nursery,
}

struct Member {
    name: String,
    client: SocketAddr,
    peer: SocketAddr,
    dir: PathBuf,
    process: Option<Process>,
}

impl EtcdCluster {
    /// Starts the members. Each listens on an address of its own out of `127.<net>.<sub>.0/24`, so that while one is
    /// away nobody else takes its ports.
    ///
    /// # Panics
    /// When there is no etcd.
    pub(super) fn start(net: u8, sub: u8, dir: &Path, nursery: Nursery) -> Self {
        let members = (0..MEMBERS)
            .map(|i| {
                let name = format!("m{i}");
                let ip = Ipv4Addr::new(127, net, sub, 10 + u8::try_from(i).unwrap_or(0));
                let (client, peer) = free_ports(ip);
                let dir = dir.join(&name);
                std::fs::create_dir_all(&dir).expect("a directory for the member");
                Member {
                    name,
                    client,
                    peer,
                    dir,
                    process: None,
                }
            })
            .collect();
        let mut cluster = Self { members, nursery };
        for i in 0..MEMBERS {
            cluster.restart(i);
        }
        cluster
    }

    /// Where a member serves clients.
    pub fn address(&self, member: usize) -> SocketAddr {
        self.members[member].client
    }

    /// The URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        let urls = self.members.iter().map(|m| format!("http://{}", m.client));
        urls.collect()
    }

    /// Ends a member as a power failure would, but for what the disk has not got yet.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// Freezes a member: its connections stay open, and nothing answers.
    pub fn freeze(&self, member: usize) {
        if let Some(process) = &self.members[member].process {
            process.freeze();
        }
    }

    /// Lets a frozen member go on.
    pub fn thaw(&self, member: usize) {
        if let Some(process) = &self.members[member].process {
            process.signal(Signal::CONT);
        }
    }

    /// Starts a member on its own data. It need not answer yet.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn restart(&mut self, member: usize) {
        self.kill(member);
        let all: Vec<String> = self
            .members
            .iter()
            .map(|m| format!("{}=http://{}", m.name, m.peer))
            .collect();
        let binary = std::env::var_os("SETPOINT_ETCD").unwrap_or_else(|| "etcd".into());
        let it = &self.members[member];
        let (client, peer) = (
            format!("http://{}", it.client),
            format!("http://{}", it.peer),
        );
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            // etcd takes its flags from there as well.
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        command
            .arg(format!("--name={}", it.name))
            .arg(format!("--data-dir={}", it.dir.join("data").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .args([
                "--initial-cluster-state=new",
                "--logger=zap",
                "--log-level=warn",
            ]);
        let log = it.dir.join("etcd.log");
        let process = Process::start(&self.nursery, &it.name, command, &log);
        self.members[member].process = Some(process);
    }

    /// The members that run.
    pub fn running(&self) -> Vec<usize> {
        let running = (0..MEMBERS).filter(|i| self.members[*i].process.is_some());
        running.collect()
    }

    /// What each member has logged.
    pub(super) fn logs(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        self.members
            .iter()
            .map(|m| (m.name.as_str(), m.dir.join("etcd.log")))
    }

    /// A client of one member.
    pub(super) async fn client(&self, member: usize) -> Result<Client, etcd_client::Error> {
        connect(self.address(member)).await
    }

    /// Which member leads, as all that run agree.
    ///
    /// # Errors
    /// With what they say instead.
    pub async fn leader(&self) -> Result<usize, String> {
        let mut said = Vec::new();
        for i in self.running() {
            let status = async { self.client(i).await?.status().await };
            let status = tokio::time::timeout(PATIENCE, status).await;
            let status = status.map_err(|_| format!("m{i} does not answer"))?;
            let status = status.map_err(|e| format!("m{i}: {e}"))?;
            let id = status
                .header()
                .map_or(0, etcd_client::ResponseHeader::member_id);
            said.push((i, id, status.leader()));
        }
        let leader = said.first().map_or(0, |(_, _, leader)| *leader);
        let agreed = leader != 0 && said.iter().all(|(_, _, l)| *l == leader);
        let found = said.iter().find(|(_, id, _)| *id == leader);
        match found {
            Some((i, ..)) if agreed => Ok(*i),
            _ => Err(format!("(member, id, its leader): {said:?}")),
        }
    }
}

/// Connects to a member.
pub(super) async fn connect(address: SocketAddr) -> Result<Client, etcd_client::Error> {
    let options = ConnectOptions::new()
        .with_connect_timeout(PATIENCE)
        .with_timeout(Duration::from_secs(20));
    Client::connect([format!("http://{address}")], Some(options)).await
}

fn free_ports(ip: Ipv4Addr) -> (SocketAddr, SocketAddr) {
    let listen = || TcpListener::bind((ip, 0)).expect("a free port");
    let (one, other) = (listen(), listen());
    let address = |l: &TcpListener| l.local_addr().expect("a listener has an address");
    (address(&one), address(&other))
}
