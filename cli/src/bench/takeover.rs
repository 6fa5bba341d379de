//! How long controllers are without a leader: from the moment at which a leader is killed (SIGKILL) or asked to end
//! (SIGTERM) until the next one was elected, and until it has written.
//!
//! Leaders and standbys are processes of this program. In mode `lease` they are `setpoint controllers`, with all
//! controllers: elected they are when the records of all elections (`actual/leaders/<controller>`), which are written by
//! the transactions that take the election keys, name the next process; and the first write is what the workloads
//! controller writes for a Deployment that is put as soon as its former leader's election key is gone. In mode `shards`
//! they are members of a controller with 64 shards that does nothing but write once for each shard that it begins to
//! lead: here the last of all shards counts. How long the former leader's election keys were there is told as well. All
//! times end when a watch of the benchmark has told it.
//!
//! A process is killed at a random time after the last renewal of its lease, which is renewed each third of its time.

mod member;
mod witness;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use rustix::process::Signal;
use serde::Serialize;
use setpoint_apis::{Key, ObjectKey};
use setpoint_controllers::Name;
use setpoint_runtime::Shards;
use setpoint_runtime::election::DEFAULT_LEASE_TTL;
use setpoint_store::{Compare, Txn};
use tokio::process::Command;
use tokio::time::Instant;

use super::bed::Bed;
use super::{Output, median, print};
use crate::dev::Managed;

use witness::Witness;

pub(crate) use member::{MemberArgs, member};

/// The name of the sharded controller.
const CONTROLLER: &str = "bench";

/// The most that a takeover may take: more is a failure.
const WITHIN: Duration = Duration::from_secs(60);

/// What a standby gets to fill its cache in, and to find the election keys held.
const WARM: Duration = Duration::from_millis(1500);

/// What a process that was asked to end gets.
const GRACE: Duration = Duration::from_secs(10);

/// Flags of `setpoint bench takeover`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TakeoverArgs {
    /// Use this running etcd instead of starting one
    #[arg(long, value_name = "ENDPOINT")]
    etcd: Option<String>,
    /// How often each kind of takeover is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only leaders that end like this
    #[arg(long, value_enum, value_name = "END")]
    only: Option<End>,
    /// How to report
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Lease,
    Shards,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum End {
    /// By SIGTERM
    Stopped,
    /// By SIGKILL
    Killed,
}

#[derive(Debug, Serialize)]
struct Report {
    etcd_version: String,
    lease_ttl_ms: u64,
    rounds: u32,
    takeovers: Vec<Figures>,
}

#[derive(Debug, Serialize)]
struct Figures {
    mode: Mode,
    end: End,
    given_up_median_ms: f64,
    given_up_longest_ms: f64,
    elected_median_ms: f64,
    elected_longest_ms: f64,
    first_write_median_ms: f64,
    first_write_longest_ms: f64,
    /// Until election and first write, without the time of the lease, which is nothing where the leader gives it up.
    over_ttl_longest_ms: f64,
}

/// Runs the benchmark under a prefix of its own and prints the report.
pub(crate) async fn run(args: TakeoverArgs) -> Result<()> {
    let bed = Bed::make(args.etcd.as_deref()).await?;
    let result = tokio::select! {
        report = measure(&args, &bed) => report,
        () = crate::signals::interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    let removed = bed.end().await;
    // What went wrong first is what explains the rest.
    let report = result?;
    removed?;
    print(&report, args.output, rows)
}

async fn measure(args: &TakeoverArgs, bed: &Bed) -> Result<Report> {
    crate::init::initialise(&bed.store, &bed.keyspace).await?;
    let mut takeovers = Vec::new();
    for mode in [Mode::Lease, Mode::Shards] {
        let mut replicas = Replicas::begin(bed, mode).await?;
        for end in [End::Stopped, End::Killed] {
            if args.only.is_none_or(|only| only == end) {
                takeovers.push(replicas.measure(end, args.rounds).await?);
            }
        }
        replicas.leader.stop(GRACE).await;
    }
    Ok(Report {
        etcd_version: bed.store.status().await?.version,
        lease_ttl_ms: millis(DEFAULT_LEASE_TTL) as u64,
        rounds: args.rounds,
        takeovers,
    })
}

/// The processes that lead and stand by, one after the other.
struct Replicas<'a> {
    bed: &'a Bed,
    mode: Mode,
    program: PathBuf,
    witness: Witness,
    leader: Managed,
    started: u32,
    rng: fastrand::Rng,
}

/// How long one takeover took.
struct Takeover {
    /// Until the last election key of the former leader was gone.
    given_up: Duration,
    elected: Duration,
    first_write: Duration,
}

impl<'a> Replicas<'a> {
    /// Starts the first process and waits until it leads.
    async fn begin(bed: &'a Bed, mode: Mode) -> Result<Self> {
        let program = std::env::current_exe().context("finding the setpoint program")?;
        let mut witness = Witness::new(&bed.store, &bed.keyspace).await?;
        let leader = start(bed, mode, &program, 0)?;
        let limit = Instant::now() + WITHIN;
        while !mode.is_led_by(&witness, leader.pid()) {
            let led = witness.next(limit).await;
            led.with_context(|| format!("the first process:\n{}", leader.log_tail(5)))?;
        }
        Ok(Self {
            bed,
            mode,
            program,
            witness,
            leader,
            started: 1,
            rng: fastrand::Rng::with_seed(7),
        })
    }

    async fn measure(&mut self, end: End, rounds: u32) -> Result<Figures> {
        let (mut given_up, mut elected, mut wrote) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let standby = start(self.bed, self.mode, &self.program, self.started)?;
            let takeover = self.take_over(end, &standby).await;
            let takeover =
                takeover.with_context(|| format!("the standby:\n{}", standby.log_tail(5)))?;
            given_up.push(millis(takeover.given_up));
            elected.push(millis(takeover.elected));
            wrote.push(millis(takeover.first_write));
            let mut former = std::mem::replace(&mut self.leader, standby);
            former.stop(GRACE).await;
            self.started += 1;
        }
        let longest = |sample: &[f64]| sample.iter().copied().fold(0.0, f64::max);
        let lease = match end {
            End::Stopped => 0.0,
            End::Killed => millis(DEFAULT_LEASE_TTL),
        };
        Ok(Figures {
            mode: self.mode,
            end,
            given_up_longest_ms: longest(&given_up),
            elected_longest_ms: longest(&elected),
            first_write_longest_ms: longest(&wrote),
            over_ttl_longest_ms: tenths(longest(&elected).max(longest(&wrote)) - lease),
            given_up_median_ms: median(&mut given_up),
            elected_median_ms: median(&mut elected),
            first_write_median_ms: median(&mut wrote),
        })
    }

    /// Ends the leader while `standby` stands by, and waits until that has taken over.
    async fn take_over(&mut self, end: End, standby: &Managed) -> Result<Takeover> {
        let phase = DEFAULT_LEASE_TTL.mul_f64(self.rng.f64() / 3.0);
        self.witness.until(Instant::now() + WARM + phase).await?;
        let shares = self.witness.elected.values().any(|p| *p == standby.pid());
        ensure!(
            shares == (self.mode == Mode::Shards),
            "the standby is not where it should be after {WARM:?}: elected are {:?}",
            self.witness.elected
        );
        self.witness.vacant.clear();
        let work = format!("takeover-{}", self.started);
        let mut put = None;
        let (mut given_up, mut elected, mut first_write) = (Duration::ZERO, None, None);
        let mut vacant = 0;

        let begin = Instant::now();
        self.leader.signal(match end {
            End::Stopped => Signal::TERM,
            End::Killed => Signal::KILL,
        });
        loop {
            self.witness.next(begin + WITHIN).await?;
            let now = begin.elapsed();
            if self.witness.vacant.len() > vacant {
                (vacant, given_up) = (self.witness.vacant.len(), now);
            }
            if self.mode.is_led_by(&self.witness, standby.pid()) {
                elected.get_or_insert(now);
            }
            let written = match self.mode {
                Mode::Lease => self.witness.answered.contains(&work),
                Mode::Shards => all_are(&self.witness.wrote, standby.pid()),
            };
            if written {
                first_write.get_or_insert(now);
            }
            let is_vacant = |name: &String| name == Name::Workloads.as_str();
            if self.mode == Mode::Lease
                && put.is_none()
                && self.witness.vacant.iter().any(is_vacant)
            {
                put = Some(self.put(&work));
            }
            if let (Some(elected), Some(first_write)) = (elected, first_write) {
                if let Some(put) = put {
                    put.await.context("putting a Deployment")??;
                }
                return Ok(Takeover {
                    given_up,
                    elected,
                    first_write,
                });
            }
        }
    }

    /// Puts a Deployment without pods: something for the workloads controller to do.
    fn put(&self, name: &str) -> tokio::task::JoinHandle<Result<()>> {
        let key = Key::Desired("deployments", ObjectKey::namespaced("default", name));
        let key = self.bed.keyspace.build(&key);
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  replicas: 0\n  \
             selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      labels:\n        app: {name}\n    \
             spec:\n      containers:\n      - name: main\n        image: host\n        command: [sleep, \"1\"]\n"
        );
        let store = self.bed.store.clone();
        tokio::spawn(async move {
            let txn = Txn::new().when(Compare::absent(key.clone())).put(key, text);
            ensure!(store.txn(txn).await?.succeeded, "it exists already");
            Ok(())
        })
    }
}

impl Mode {
    /// Whether this process was elected everywhere.
    fn is_led_by(self, witness: &Witness, process: u32) -> bool {
        match self {
            Self::Lease => Name::ALL
                .iter()
                .all(|name| witness.elected.get(name.as_str()) == Some(&process)),
            Self::Shards => all_are(&witness.elected, process),
        }
    }
}

/// Whether this process has all shards.
fn all_are(shards: &std::collections::BTreeMap<String, u32>, process: u32) -> bool {
    shards.len() == usize::from(Shards::DEFAULT.count()) && shards.values().all(|p| *p == process)
}

fn start(bed: &Bed, mode: Mode, program: &PathBuf, number: u32) -> Result<Managed> {
    let mut command = Command::new(program);
    let (endpoint, keys) = (bed.endpoint.as_str(), bed.keyspace.as_str());
    let name = match mode {
        Mode::Lease => {
            let ttl = DEFAULT_LEASE_TTL.as_secs().to_string();
            command
                .args(["controllers", "--endpoints", endpoint, "--key-prefix", keys])
                .args(["--leader-lease-ttl", &ttl]);
            format!("controllers-{number}")
        }
        Mode::Shards => {
            command.args([
                "bench",
                "takeover-member",
                "--etcd",
                endpoint,
                "--keys",
                keys,
            ]);
            format!("member-{number}")
        }
    };
    Managed::start(&name, command, bed.directory())
}

fn millis(time: Duration) -> f64 {
    tenths(time.as_secs_f64() * 1e3)
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// The report as a table.
fn rows(report: &Report) -> Vec<(String, String)> {
    let mut rows = vec![
        ("etcd".to_owned(), report.etcd_version.clone()),
        ("times each".to_owned(), report.rounds.to_string()),
        ("lease".to_owned(), format!("{} ms", report.lease_ttl_ms)),
    ];
    for f in &report.takeovers {
        let what = match (f.mode, f.end) {
            (Mode::Lease, End::Stopped) => "all controllers, leader asked to end",
            (Mode::Lease, End::Killed) => "all controllers, leader killed",
            (Mode::Shards, End::Stopped) => "64 shards, member asked to end",
            (Mode::Shards, End::Killed) => "64 shards, member killed",
        };
        let both = |median: f64, longest: f64| format!("median {median} ms, longest {longest} ms");
        rows.push((
            format!("{what}: election keys gone"),
            both(f.given_up_median_ms, f.given_up_longest_ms),
        ));
        rows.push((
            format!("{what}: next one elected"),
            both(f.elected_median_ms, f.elected_longest_ms),
        ));
        rows.push((
            format!("{what}: its first write"),
            both(f.first_write_median_ms, f.first_write_longest_ms),
        ));
        if f.end == End::Killed {
            rows.push((
                "  the longest, over the time of the lease".to_owned(),
                format!("{} ms", f.over_ttl_longest_ms),
            ));
        }
    }
    rows
}
