//! Many seeds on all cores: progress while it lasts, each failure as it is found, a summary at the end.

use std::io::IsTerminal as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use setpoint_sim::run::RunError;
use setpoint_sim::{Options, Report, Scenario, generate};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Format, command, with_command};
use crate::context::Context;
use crate::term::{self, Progress};

/// Failures that are reported one by one; of what is beyond, the seeds alone.
const MOST_SHOWN: usize = 20;
/// How often progress is said where no terminal shows a line that changes.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// What to run.
pub(super) struct Plan {
    pub(super) seeds: Range<u64>,
    /// How the scenario was named.
    pub(super) file: Option<String>,
    /// The scenario; `None`: the standard one of each seed.
    pub(super) scenario: Option<Scenario>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    seeds: u64,
    failed: Vec<u64>,
    simulated_ms: u64,
    writes: u64,
    elapsed_ms: u64,
    /// The slowest to converge: its seed, and how long it took.
    slowest: Option<(u64, u64)>,
    /// The first reports of failures.
    reports: Vec<serde_json::Value>,
}

/// Runs all seeds; whether all went well.
pub(super) async fn run(plan: Plan, output: Format, context: &mut Context) -> Result<bool> {
    let total = plan.seeds.end - plan.seeds.start;
    let begun = Instant::now();
    let mut said = begun;
    let mut finished = start(&plan)?;
    let mut summary = Summary {
        seeds: 0,
        failed: Vec::new(),
        simulated_ms: 0,
        writes: 0,
        elapsed_ms: 0,
        slowest: None,
        reports: Vec::new(),
    };
    let terminal = std::io::stderr().is_terminal();
    let progress = Progress::new(format!("0 of {total} seeds"));
    while let Some((seed, result)) = finished.recv().await {
        let report = result.with_context(|| format!("seed {seed}"))?;
        summary.take(&report, plan.file.as_deref())?;
        if !report.is_good() && summary.failed.len() <= MOST_SHOWN && output == Format::Text {
            progress.suspend(|| failure(&report, plan.file.as_deref(), context))?;
        }
        let done = format!(
            "{} of {total} seeds, {} with violations",
            summary.seeds,
            summary.failed.len()
        );
        if !terminal && said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            term::note(&done);
        }
        progress.say(done);
    }
    drop(progress);
    summary.elapsed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    summary.failed.sort_unstable();
    match output {
        Format::Json => context.out.line(serde_json::to_string_pretty(&summary)?),
        Format::Text => summary.print(plan.file.as_deref(), context),
    }
    Ok(summary.failed.is_empty())
}

type Outcome = (u64, Result<Report, RunError>);

/// Starts a thread per core. The last results are there when the channel ends.
fn start(plan: &Plan) -> Result<mpsc::Receiver<Outcome>> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (send, receive) = mpsc::channel(2 * threads);
    let next = Arc::new(AtomicU64::new(plan.seeds.start));
    let scenario = plan.scenario.clone().map(Arc::new);
    let end = plan.seeds.end;
    for _ in 0..threads {
        let (send, next, scenario) = (send.clone(), Arc::clone(&next), scenario.clone());
        let work = move || loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let result = match &scenario {
                Some(scenario) => setpoint_sim::run(scenario, seed, Options::default()),
                None => setpoint_sim::run(&generate::standard(seed), seed, Options::default()),
            };
            // Nobody waits any more: something else failed.
            if send.blocking_send((seed, result)).is_err() {
                return;
            }
        };
        std::thread::Builder::new()
            .name("simulation".to_owned())
            .spawn(work)
            .context("starting a thread")?;
    }
    Ok(receive)
}

/// Tells of a seed that broke an invariant, at once: what comes may take an hour.
fn failure(report: &Report, file: Option<&str>, context: &mut Context) -> Result<()> {
    context
        .out
        .line(format_args!("seed {} breaks:", report.seed));
    for violation in &report.violations {
        context.out.line(format_args!("  {violation}"));
    }
    context.out.line(format_args!(
        "  to repeat it: {}",
        command(file, report.seed)
    ));
    Ok(context.out.flush()?)
}

impl Summary {
    fn take(&mut self, report: &Report, file: Option<&str>) -> Result<()> {
        self.seeds += 1;
        self.simulated_ms += report.simulated_ms;
        self.writes += report.writes;
        if let Some(millis) = report.converged_after_ms
            && self.slowest.is_none_or(|(_, slowest)| millis > slowest)
        {
            self.slowest = Some((report.seed, millis));
        }
        if !report.is_good() {
            self.failed.push(report.seed);
            if self.failed.len() <= MOST_SHOWN {
                self.reports.push(with_command(report, file)?);
            }
        }
        Ok(())
    }

    fn print(&self, file: Option<&str>, context: &mut Context) {
        let out = &mut context.out;
        let hours = self.simulated_ms as f64 / 3_600_000.0;
        let seconds = self.elapsed_ms as f64 / 1000.0;
        out.line(format_args!(
            "{} seeds, {hours:.1} simulated hours in {seconds:.0} s, {} writes",
            self.seeds, self.writes
        ));
        if let Some((seed, millis)) = self.slowest {
            let slowest = millis as f64 / 1000.0;
            out.line(format_args!(
                "slowest to converge: seed {seed}, {slowest:.1} s after its last event"
            ));
        }
        let Some(first) = self.failed.first() else {
            out.line("no violations");
            return;
        };
        let seeds: Vec<String> = self.failed.iter().map(u64::to_string).collect();
        out.line(format_args!(
            "{} seeds with violations: {}",
            seeds.len(),
            seeds.join(" ")
        ));
        out.line(format_args!(
            "to repeat the first: {}",
            command(file, *first)
        ));
    }
}
