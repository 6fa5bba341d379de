//! `setpoint simulate`: the whole control plane on virtual time, with faults, from a seed; `simulate schedule`: the
//! scheduler's decisions alone.

use std::ops::Range;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use setpoint_apis::document;
use setpoint_sim::{Options, Report, Scenario, generate, scenario};

use crate::context::Context;
use crate::manifest;
use crate::term::{self, Progress};

mod schedule;
mod seeds;

/// An invariant was broken.
const BROKEN: u8 = 1;
/// What was asked for cannot be simulated.
pub(crate) const BAD_INPUT: u8 = 2;

/// Flags of `setpoint simulate`.
#[derive(Args, Clone, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 all is well, 1 an invariant was broken, 2 what was asked for cannot be simulated."
)]
pub(crate) struct SimulateArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// The scenario, a file or `-`; without one, each seed has a standard scenario of its own
    #[arg(long, short = 'f', value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    scenario: Option<String>,
    /// The seed: the same scenario with the same seed is the same run [default: the scenario's own, or 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Many seeds, on all cores: from FROM up to, and without, TO
    #[arg(long, value_name = "FROM..TO", value_parser = range, conflicts_with_all = ["seed", "trace", "minimize", "print_scenario"])]
    seeds: Option<Range<u64>>,
    /// How to report
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Print every write: when, at which revision, by whom
    #[arg(long)]
    trace: bool,
    /// Print the scenario instead of running it
    #[arg(long, conflicts_with_all = ["trace", "minimize"])]
    print_scenario: bool,
    /// After a violation, look for a smaller scenario that breaks the same invariant, and print it
    #[arg(long)]
    minimize: bool,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Show where pods would go, without a cluster
    Schedule(schedule::ScheduleArgs),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object
    Json,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let bad = || format!("{text:?} is not a range of seeds such as 0..1000");
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
    match (number(from)?, number(to)?) {
        (from, to) if from < to => Ok(from..to),
        (from, to) => Err(format!("there is no seed from {from} up to {to}")),
    }
}

/// Runs the command. Its exit code says more than whether it worked, see [`SimulateArgs`].
///
/// # Errors
/// The output could not be written, or a thread could not be started.
pub(crate) async fn run(args: SimulateArgs, context: &mut Context) -> Result<ExitCode> {
    match simulate(args, context).await {
        Ok(good) => Ok(if good {
            ExitCode::SUCCESS
        } else {
            BROKEN.into()
        }),
        Err(error) if term::is_broken_pipe(&error) => Err(error),
        Err(error) => {
            term::error(&error);
            Ok(BAD_INPUT.into())
        }
    }
}

/// Whether no invariant was broken, or all pods find a node.
async fn simulate(args: SimulateArgs, context: &mut Context) -> Result<bool> {
    if let Some(What::Schedule(args)) = args.what {
        return schedule::run(args, context).await;
    }
    let given = match &args.scenario {
        Some(name) => Some(read(name).await?),
        None if args.seed.is_none() && args.seeds.is_none() => {
            anyhow::bail!(
                "say what to simulate: --scenario FILE, --seed N for a standard scenario, or --seeds FROM..TO; or `simulate schedule`"
            )
        }
        None => None,
    };
    if let Some(seeds) = args.seeds {
        let plan = seeds::Plan {
            seeds,
            file: args.scenario,
            scenario: given,
        };
        return seeds::run(plan, args.output, context).await;
    }
    let seed = args.seed.or_else(|| given.as_ref()?.spec.seed).unwrap_or(1);
    let mut scenario = given.unwrap_or_else(|| generate::standard(seed));
    if args.print_scenario {
        scenario.spec.seed = Some(seed);
        print_scenario(&scenario, args.output, context)?;
        return Ok(true);
    }
    let options = Options {
        trace: args.trace,
        ..Options::default()
    };
    let progress = Progress::new(format!("simulating {}", scenario.metadata.name));
    let report = of_one(scenario.clone(), seed, options).await?;
    drop(progress);
    match args.output {
        Format::Text => context.out.text(&report),
        Format::Json => context.out.line(serde_json::to_string_pretty(&report)?),
    }
    context.out.flush()?;
    if args.minimize && !report.is_good() {
        minimize(scenario, seed, context).await?;
    }
    Ok(report.is_good())
}

async fn read(name: &str) -> Result<Scenario> {
    let source = manifest::read(name).await?;
    scenario::read(&source.name, &source.text).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        match lines.as_slice() {
            [one] => anyhow::anyhow!("{one}"),
            many => anyhow::anyhow!("{} problems:\n{}", many.len(), many.join("\n")),
        }
    })
}

fn print_scenario(scenario: &Scenario, output: Format, context: &mut Context) -> Result<()> {
    match output {
        Format::Text => context.out.text(document::encode(scenario)),
        Format::Json => context.out.line(serde_json::to_string_pretty(scenario)?),
    }
    Ok(())
}

/// Runs one seed on a thread of its own: a simulation brings its own runtime.
async fn of_one(scenario: Scenario, seed: u64, options: Options) -> Result<Report> {
    let report = tokio::task::spawn_blocking(move || setpoint_sim::run(&scenario, seed, options));
    Ok(report.await.context("the simulation stopped")??)
}

/// Prints the smallest scenario that is found to break what the first violation is about.
async fn minimize(scenario: Scenario, seed: u64, context: &mut Context) -> Result<()> {
    let progress = Progress::new("looking for a smaller scenario");
    let (steps, mut told) = tokio::sync::watch::channel(String::new());
    let search = tokio::task::spawn_blocking(move || {
        setpoint_sim::minimize(&scenario, seed, |left, runs| {
            let events = left.spec.timeline.len();
            let _ = steps.send(format!("{events} events are left after {runs} runs"));
        })
    });
    while told.changed().await.is_ok() {
        progress.say(told.borrow_and_update().clone());
    }
    let found = search.await.context("the simulation stopped")?;
    drop(progress);
    if let Some(found) = found {
        context.out.line(format_args!(
            "# smallest found in {} runs that still breaks: {}",
            found.runs, found.invariant
        ));
        context.out.text(document::encode(&found.scenario));
    }
    Ok(())
}

/// The command line that repeats a run.
fn command(file: Option<&str>, seed: u64) -> String {
    let program = std::env::args().next();
    let program = program.unwrap_or_else(|| "setpoint".to_owned());
    match file {
        Some(file) => format!("{program} simulate --scenario {file} --seed {seed}"),
        None => format!("{program} simulate --seed {seed}"),
    }
}

/// A report with what repeats it.
fn with_command(report: &Report, file: Option<&str>) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(report)?;
    value["command"] = json!(command(file, report.seed));
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_holds_at_least_one() {
        assert_eq!(range("0..10"), Ok(0..10));
        for bad in [
            "", "3", "..", "1..", "..5", "5..5", "7..2", "a..b", "-1..4", "1..=4",
        ] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
