//! A run from beginning to end.

mod asks;
mod events;
mod namespaces;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use setpoint_apis::core::Namespace;
use setpoint_apis::{Key, Kind, ObjectKey};
use setpoint_store::list::{List, list_all};
use setpoint_store::{KeyValue, Txn};
use tokio::time::{Instant, sleep, sleep_until};

use crate::check::Violation;
use crate::fnv::Fnv;
use crate::goal;
use crate::ledger::Write;
use crate::network::Weather;
use crate::scenario::{Event, Network, Scenario};
use crate::world::World;

/// How often it is looked whether actual matches desired.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What follows from what happened before actual matched desired may still be written: events, a last status, and within
/// a minute the record of times.
const AFTERMATH: Duration = Duration::from_secs(75);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What happened, in order: milliseconds and words.
    pub timeline: Vec<(u64, String)>,
    /// From the last event until actual matched desired, in milliseconds; `None`: it never did.
    pub converged_after_ms: Option<u64>,
    /// The share of all nodes' cpu that was requested at the end.
    pub cpu_requested: f64,
    /// Pods that ran at the end.
    pub pods: usize,
    /// Changes of the store.
    pub writes: u64,
    /// How many transactions each controller has sent.
    pub transactions: BTreeMap<String, u64>,
    /// Virtual time in milliseconds.
    pub simulated_ms: u64,
    /// The same for the same seed, and hardly ever for another.
    pub digest: String,
    /// Invariants that were broken; empty in a good run.
    pub violations: Vec<Violation>,
    /// Every write, in a run that keeps them ([`Options::trace`]); otherwise none, and the last ones after a violation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<Write>,
    /// What the store held of desired and actual state at the end, in a run that keeps it ([`Options::state`]).
    #[serde(skip)]
    pub state: BTreeMap<String, String>,
}

/// How a scenario is run. Nothing of this changes what happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep every write for the report. A long run has hundreds of thousands.
    pub trace: bool,
    /// Keep what the store holds at the end for the report.
    pub state: bool,
}

/// How many of the last writes are shown with a violation.
const RECENT: usize = 40;

impl Report {
    /// Whether no invariant was broken.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Why a simulation could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime could not be made.
    #[error("the simulation's runtime could not be started")]
    Runtime(#[source] std::io::Error),
    /// An event of the scenario could not be carried out.
    #[error("the scenario's event at {at}: {message}")]
    Event {
        /// When.
        at: String,
        /// What is wrong.
        message: String,
    },
}

/// Runs a scenario.
///
/// # Errors
/// The scenario asks for something that cannot be done, such as scaling a Deployment that there is not. Invariants that
/// were broken are no error of this kind: they are in the report.
pub fn run(scenario: &Scenario, seed: u64, options: Options) -> Result<Report, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(async { Run::new(scenario, seed, options).run().await })
}

struct Run<'a> {
    scenario: &'a Scenario,
    seed: u64,
    options: Options,
    world: World,
    started: Instant,
    timeline: Vec<(u64, String)>,
    /// Documents that were overwritten with what does not parse, by the path that chose them, to be restored: what stood
    /// there, and the revision of what stands there now.
    corrupted: BTreeMap<String, Broken>,
    /// Chooses where a scenario leaves it open.
    rng: fastrand::Rng,
}

/// A document that was overwritten.
struct Broken {
    key: String,
    value: bytes::Bytes,
    revision: i64,
}

/// Something to do at a time.
enum Step<'a> {
    Begin(&'a Event),
    /// Undo it.
    End(&'a Event),
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, seed: u64, options: Options) -> Self {
        let most_kept = if options.trace { usize::MAX } else { RECENT };
        Self {
            scenario,
            seed,
            options,
            world: World::new(&scenario.spec, seed, most_kept),
            started: Instant::now(),
            timeline: Vec::new(),
            corrupted: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(Fnv::seed(seed, "choices")),
        }
    }

    async fn run(mut self) -> Result<Report, RunError> {
        let spec = &self.scenario.spec;
        self.world.network.set_weather(weather(&spec.network));
        self.init().await?;
        self.world.start_all();
        let mut steps: Vec<(Duration, Step<'a>)> = Vec::new();
        for event in &self.scenario.spec.timeline {
            let at = event.at.get();
            steps.push((at, Step::Begin(event)));
            if let Some(lasts) = event.lasts {
                steps.push((at + lasts.get(), Step::End(event)));
            }
        }
        // Stable: what is written first happens first.
        steps.sort_by_key(|(at, _)| *at);
        for (at, step) in steps {
            sleep_until(self.started + at).await;
            match step {
                Step::Begin(event) => self.begin(event).await,
                Step::End(event) => self.end(event).await,
            }
            .map_err(|message| RunError::Event {
                at: format!("{} ms", at.as_millis()),
                message,
            })?;
        }
        Ok(self.finish().await)
    }

    /// What `setpoint init` writes.
    async fn init(&self) -> Result<(), RunError> {
        let key = self.world.keyspace.build(&Key::Desired(
            Namespace::PLURAL,
            ObjectKey::cluster("default"),
        ));
        let text = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n";
        let done = self.world.user(Txn::new().put(key, text)).await;
        done.map(|_| ()).map_err(|error| RunError::Event {
            at: "0 ms".to_owned(),
            message: error.to_string(),
        })
    }

    /// Waits for what may still be written once actual matches desired. Returns how many writes there were then.
    async fn aftermath(&self) -> u64 {
        let ledger = &self.world.ledger;
        sleep(AFTERMATH).await;
        ledger.catch_up(None);
        // A document may have changed meanwhile, as when an ended Job has been kept for as long as it asks; that has an
        // aftermath too. Once: what goes on for ever has none.
        let changed = Duration::from_millis(ledger.summary().last_document);
        let now = Duration::from_millis(ledger.millis());
        sleep((changed + AFTERMATH).saturating_sub(now)).await;
        ledger.catch_up(None);
        ledger.summary().changes
    }

    /// Waits until actual matches desired, and then that nothing more is written.
    async fn finish(mut self) -> Report {
        let spec = &self.scenario.spec;
        let begun = Instant::now();
        let mut violations = Vec::new();
        let converged = self.settled(begun, &mut violations).await;
        if let Some(after) = converged {
            self.note(format!(
                "actual matches desired, {} ms after the last event",
                after.as_millis()
            ));
            let before = self.aftermath().await;
            sleep(spec.quiet.get()).await;
            self.world.ledger.catch_up(None);
            let written = self.world.ledger.summary().changes - before;
            if written > 0 {
                let message = format!(
                    "{written} writes in {}, though nothing happened",
                    spec.quiet
                );
                violations.push(self.violation("quiet", message));
            }
            let unmet = goal::unmet(&self.world).await;
            violations.extend(
                unmet
                    .into_iter()
                    .map(|u| self.violation("stays converged", u)),
            );
        }
        let state = match self.options.state {
            true => self.state().await,
            false => BTreeMap::new(),
        };
        let ledger = &self.world.ledger;
        let summary = ledger.summary();
        // What broke first is told first.
        violations.splice(0..0, ledger.violations());
        Report {
            scenario: self.scenario.metadata.name.clone(),
            seed: self.seed,
            converged_after_ms: converged.map(|c| u64::try_from(c.as_millis()).unwrap_or(u64::MAX)),
            cpu_requested: ledger.with_checks(|checks| checks.requested("cpu")),
            pods: self.world.running(),
            writes: summary.changes,
            transactions: self.world.strikes.sent(),
            simulated_ms: ledger.millis(),
            state,
            digest: format!("{:016x}", summary.digest),
            trace: match violations.is_empty() && !self.options.trace {
                true => Vec::new(),
                false => ledger.kept(),
            },
            violations,
            timeline: self.timeline,
        }
    }

    /// What the store holds of desired and actual state.
    async fn state(&self) -> BTreeMap<String, String> {
        let range = self.world.keyspace.state();
        let listed = list_all(&self.world.store, List::new(range.start, range.end)).await;
        let (all, _) = listed.unwrap_or_default();
        let text = |kv: KeyValue| {
            let value = String::from_utf8_lossy(&kv.value).into_owned();
            (kv.key.to_string(), value)
        };
        all.into_iter().map(text).collect()
    }

    /// Waits until actual matches desired; says after how long, or what is unmet when the time is up.
    async fn settled(&self, begun: Instant, violations: &mut Vec<Violation>) -> Option<Duration> {
        let settle = self.scenario.spec.settle.get();
        let mut looked_at = None;
        loop {
            let late = begun.elapsed() > settle;
            // Looking is dear, and an answer stays true until something is written or runs.
            let state = (self.world.ledger.summary().changes, self.world.running());
            if looked_at != Some(state) || late {
                looked_at = Some(state);
                let unmet = goal::unmet(&self.world).await;
                if unmet.is_empty() {
                    return Some(begun.elapsed());
                }
                if late {
                    violations.extend(unmet.into_iter().map(|u| self.violation("converges", u)));
                    return None;
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn violation(&self, invariant: &'static str, message: String) -> Violation {
        Violation {
            invariant,
            millis: self.world.ledger.millis(),
            revision: 0,
            message,
        }
    }
}

fn weather(network: &Network) -> Weather {
    Weather {
        delay: network.min_delay.get()..=network.max_delay.get(),
        watch_delay: network.min_delay.get()
            ..=network.watch_delay.unwrap_or(network.max_delay).get(),
        lost_requests: network.lost_requests,
        lost_answers: network.lost_answers,
        late_writes: network.late_writes,
        broken_watches: network.broken_watches,
        ..Weather::default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario {}, seed {}", self.scenario, self.seed)?;
        for (millis, what) in &self.timeline {
            writeln!(f, "{:>9.3} s  {what}", *millis as f64 / 1000.0)?;
        }
        if !self.trace.is_empty() {
            writeln!(
                f,
                "{}:",
                if self.violations.is_empty() {
                    "the writes"
                } else {
                    "the last writes"
                }
            )?;
        }
        for write in &self.trace {
            writeln!(f, "{write}")?;
        }
        match self.converged_after_ms {
            Some(millis) => {
                let seconds = millis as f64 / 1000.0;
                writeln!(f, "converged:    {seconds:.1} s after the last event")?;
            }
            None => writeln!(f, "converged:    never")?,
        }
        writeln!(f, "pods running: {}", self.pods)?;
        writeln!(
            f,
            "utilisation:  {:.0} % of the cpu is requested",
            self.cpu_requested * 100.0
        )?;
        writeln!(
            f,
            "writes:       {} in {} simulated seconds",
            self.writes,
            self.simulated_ms / 1000
        )?;
        writeln!(f, "digest:       {}", self.digest)?;
        if self.violations.is_empty() {
            return writeln!(f, "violations:   none");
        }
        writeln!(f, "violations:   {}", self.violations.len())?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}
