//! How fast the scheduler binds, against what the same etcd does of the same writes in the same run.
//!
//! The scheduler is the real one, in a process of its own. The nodes have no agents: what is measured ends with the
//! binding, so their sessions and statuses are written by the benchmark. All times are those of one watch.

mod cases;
mod core;
mod figures;
mod lab;
mod raw;
mod watch;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::bed::Bed;
use super::process;
use super::{Output, median, print, round};
use crate::dev::rss_bytes;
use cases::{Case, Plan};
use figures::{Figures, millis, quantile};
use lab::Lab;
use raw::Raw;
use watch::{Progress, Role, Seen, Watch};

/// How many nodes there are where nobody says another number.
const USUAL_NODES: usize = 1000;

/// Flags of `setpoint bench schedule`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The nodes are written into etcd by the benchmark, a session and a status each, and have no agents: only binding is
measured, and what a stopping pod holds back is free at once. The scheduler is `setpoint controllers --only scheduler`,
a process of its own. When all pods are bound, the placements are checked: against what the pods ask for, the room of
the nodes, and the groups that are all or nothing.

pods_per_second is from the first to the last binding (preloaded) or from the first creation to the last binding
(streaming), middle80_pods_per_second without the first and the last tenth of the bindings. p50_ms and p99_ms are from
the creation to the binding of a pod; preloaded pods wait for the scheduler to start as well. scheduler_cpu_seconds
counts what it spent from its start (preloaded) or from the first creation (streaming) on. raw_binds_per_second is what
group commit does, in the same run, of the same writes under the same guards, without anybody who decides.

With --core the decisions alone are measured, without etcd and without documents: the case that is named, or all of
them and `growth`, which fits the exponent with which the time per pod grows with the nodes. What etcd and a scheduler
would be told (--mode, --zones, --patience, --etcd) has no effect then.")]
pub(crate) struct ScheduleArgs {
    /// How many nodes [default: 1000; with --core: 5000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    nodes: Option<u32>,
    /// How many pods are bound [default: 10000; preemption: one per node; idle: 200; with --core: 5000 to 20000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=999_999))]
    pods: Option<u32>,
    /// What the pods ask for [default: basic; with --core: everything]
    #[arg(long, value_parser = PossibleValuesParser::new(case_names()))]
    case: Option<String>,
    /// Measure the scheduler's core alone, without etcd
    #[arg(long)]
    core: bool,
    /// When the pods are created
    #[arg(long, value_enum, default_value = "preloaded")]
    mode: Mode,
    /// How many zones the nodes are in
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    zones: u32,
    /// Give up when no pod was bound for so long
    #[arg(long, default_value = "20s", value_name = "DURATION", value_parser = crate::commands::duration)]
    patience: Duration,
    /// Use this running etcd instead of starting one
    #[arg(long, value_name = "ENDPOINT")]
    etcd: Option<String>,
    /// How to report
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Every name that `--case` takes: the cases with etcd, then those that only the core has.
fn case_names() -> Vec<PossibleValue> {
    let cases = Case::value_variants().iter();
    let mut names: Vec<PossibleValue> = cases.filter_map(ValueEnum::to_possible_value).collect();
    let of_core = core::ONLY.iter();
    names.extend(of_core.map(|name| PossibleValue::new(*name).help("Only with --core")));
    names
}

/// When the pods are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// All are stored before the scheduler starts
    Preloaded,
    /// A client creates them, in batches, while the scheduler binds
    Streaming,
}

#[derive(Debug, Serialize)]
struct Report {
    case: Case,
    nodes: usize,
    pods: usize,
    mode: Mode,
    #[serde(flatten)]
    figures: Figures,
    scheduler_rss_bytes: u64,
    /// `null` when etcd is not a process of this machine.
    etcd_rss_bytes: Option<u64>,
    scheduler_cpu_seconds: f64,
    etcd_cpu_seconds: Option<f64>,
    raw_binds_per_second: f64,
    ratio_to_raw: f64,
    /// From the write of one pod to its binding, less two raw transactions.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_p99_ms: Option<f64>,
}

/// Runs the benchmark under a prefix of its own and prints the report.
pub(crate) async fn run(args: ScheduleArgs) -> Result<()> {
    let pods = args.pods.map(|pods| pods as usize);
    if args.core {
        let wanted = core::Wanted {
            case: args.case.as_deref(),
            nodes: args.nodes.map(|nodes| nodes as usize),
            pods,
        };
        return core::run(&wanted, args.output);
    }
    let plan = Plan::new(case(&args)?, nodes(&args), pods, args.zones as usize)
        .map_err(anyhow::Error::msg)?;
    let bed = Bed::make(args.etcd.as_deref()).await?;
    let etcd = bed.own_pid().or_else(|| process::listener(&bed.endpoint));
    let mut lab = Lab::new(
        bed.store.clone(),
        bed.keyspace.clone(),
        bed.endpoint.clone(),
        bed.directory().into(),
    );
    let result = tokio::select! {
        report = measure(&args, &plan, &mut lab, etcd) => report,
        () = crate::signals::interrupted() => Err(anyhow!("interrupted")),
    };
    lab.stop().await;
    let removed = bed.end().await;
    // What went wrong first is what explains the rest.
    let report = result?;
    removed?;
    print(&report, args.output, rows)
}

fn nodes(args: &ScheduleArgs) -> usize {
    args.nodes.map_or(USUAL_NODES, |nodes| nodes as usize)
}

fn case(args: &ScheduleArgs) -> Result<Case> {
    let Some(name) = &args.case else {
        return Ok(Case::Basic);
    };
    Case::from_str(name, false).map_err(|_| anyhow!("case {name} is measured with --core only"))
}

async fn measure(
    args: &ScheduleArgs,
    plan: &Plan,
    lab: &mut Lab,
    etcd: Option<u32>,
) -> Result<Report> {
    crate::init::initialise(&lab.store, &lab.keyspace).await?;
    lab.put_nodes(nodes(args), plan).await?;
    let (store, keyspace) = (lab.store.clone(), lab.keyspace.clone());
    let document = plan.pod_document(&Role::Measured.name(0), 0);
    let raw = Raw::new(&store, &keyspace, &document, nodes(args))?;
    // The first one warms the connection.
    raw.binds_per_second(1).await?;
    let mut raws = vec![raw.binds_per_second(plan.pods).await?];
    lab.put_pod_groups(plan).await?;
    let mut watch = Watch::start(&lab.store, &lab.keyspace, plan.pods).await?;
    fill(args, plan, lab, &mut watch).await?;

    let mut spent = Spent::start(lab, etcd);
    let mut idle = None;
    if plan.case == Case::Idle {
        warm_up(args, plan, lab, &mut watch).await?;
        spent = Spent::start(lab, etcd);
        idle = Some(one_by_one(args, plan, lab, &mut watch, &raw).await?);
    } else {
        if args.mode == Mode::Streaming {
            warm_up(args, plan, lab, &mut watch).await?;
            spent = Spent::start(lab, etcd);
        }
        all(args, plan, lab, &mut watch).await?;
    }
    let (scheduler_cpu_seconds, etcd_cpu_seconds) = spent.until_now(lab, etcd);
    let scheduler_rss_bytes = lab.scheduler().map_or(0, rss_bytes);
    let etcd_rss_bytes = etcd.map(rss_bytes);

    let seen = watch.finish().await?;
    let begin = match args.mode {
        Mode::Streaming => seen.created.iter().flatten().min().copied(),
        Mode::Preloaded => None,
    };
    let figures = figures::figures(&seen, begin);
    lab.stop_scheduler().await;
    check(plan, lab).await?;
    raws.push(raw.binds_per_second(plan.pods).await?);
    let raw_binds_per_second = median(&mut raws).round();
    let (idle_p50_ms, idle_p99_ms) = idle.map(|samples| samples.beyond_raw(&seen)).unzip();
    Ok(Report {
        case: plan.case,
        nodes: nodes(args),
        pods: plan.pods,
        mode: args.mode,
        ratio_to_raw: round(figures.pods_per_second / raw_binds_per_second),
        figures,
        scheduler_rss_bytes,
        etcd_rss_bytes,
        scheduler_cpu_seconds: round(scheduler_cpu_seconds),
        etcd_cpu_seconds: etcd_cpu_seconds.map(round),
        raw_binds_per_second,
        idle_p50_ms,
        idle_p99_ms,
    })
}

/// Looks whether the pods are bound as they may be.
async fn check(plan: &Plan, lab: &Lab) -> Result<()> {
    let (mut measured, mut others) = (Vec::new(), Vec::new());
    for (role, placed) in lab.placements().await? {
        match role {
            Role::Measured => measured.push(placed),
            Role::Fill | Role::Warm => others.push(placed.1),
        }
    }
    plan.check(&measured, &others)
        .map_err(|wrong| anyhow!("the pods are bound, but not as they may be: {wrong}"))
}

/// Binds what is to be there before.
async fn fill(args: &ScheduleArgs, plan: &Plan, lab: &mut Lab, watch: &mut Watch) -> Result<()> {
    if plan.fill() > 0 {
        lab.start_scheduler()?;
        lab.put_pods(Role::Fill, plan.fill(), |name, _| plan.fill_document(name))
            .await?;
        wait(args, lab, watch, Role::Fill, plan.fill(), |p| p.fill_bound).await?;
        if args.mode == Mode::Preloaded {
            lab.stop_scheduler().await;
        }
    }
    Ok(())
}

/// Waits until the scheduler has shown that it is at work.
async fn warm_up(args: &ScheduleArgs, plan: &Plan, lab: &mut Lab, watch: &mut Watch) -> Result<()> {
    if lab.scheduler().is_none() {
        lab.start_scheduler()?;
    }
    if plan.case != Case::Preemption {
        lab.put_pods(Role::Warm, 1, |name, _| plan.fill_document(name))
            .await?;
        wait(args, lab, watch, Role::Warm, 1, |p| p.warm_bound).await?;
    }
    Ok(())
}

/// Creates all pods and waits until all are bound.
async fn all(args: &ScheduleArgs, plan: &Plan, lab: &mut Lab, watch: &mut Watch) -> Result<()> {
    let mut progress = watch.progress();
    let create = async |lab: &Lab| {
        lab.put_pods(Role::Measured, plan.pods, |name, number| {
            plan.pod_document(name, number)
        })
        .await
    };
    if args.mode == Mode::Preloaded {
        create(lab).await?;
        lab.start_scheduler()?;
    }
    let lab_ref = &*lab;
    let client = async {
        if args.mode == Mode::Streaming {
            create(lab_ref).await?;
        }
        anyhow::Ok(())
    };
    let churn = async {
        if plan.churns() {
            delete_meanwhile(plan, lab_ref, &mut progress).await?;
        }
        anyhow::Ok(())
    };
    let stop = CancellationToken::new();
    let bound = async {
        let bound = watch.until(plan.pods, args.patience, |p| p.bound).await;
        if !matches!(bound, Ok(Ok(()))) {
            // Nothing goes on: the deletions would wait without end.
            stop.cancel();
        }
        bound
    };
    let churn = async {
        tokio::select! {
            done = churn => done,
            () = stop.cancelled() => Ok(()),
        }
    };
    let (bound, created, deleted) = tokio::join!(bound, client, churn);
    created?;
    deleted?;
    match bound? {
        Ok(()) => Ok(()),
        Err(now) => Err(stalled(args, lab, Role::Measured, plan.pods, now).await?),
    }
}

/// Deletes the pods that were there before, as fast as others are bound.
async fn delete_meanwhile(
    plan: &Plan,
    lab: &Lab,
    progress: &mut tokio::sync::watch::Receiver<Progress>,
) -> Result<()> {
    let mut deleted = 0;
    while deleted < plan.fill() {
        let bound = progress.borrow_and_update().bound;
        let due = plan.fill() * bound / plan.pods;
        if due > deleted {
            lab.delete_pods(Role::Fill, deleted..due).await?;
            deleted = due;
        } else if progress.changed().await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Waits for the bindings of pods of a role, or says why there are none.
async fn wait(
    args: &ScheduleArgs,
    lab: &mut Lab,
    watch: &mut Watch,
    role: Role,
    pods: usize,
    count: impl Fn(&Progress) -> usize,
) -> Result<()> {
    match watch.until(pods, args.patience, count).await? {
        Ok(()) => Ok(()),
        Err(now) => Err(stalled(args, lab, role, pods, now).await?),
    }
}

/// What to say when nothing goes on: how many pods are left, and the reason of one of them.
async fn stalled(
    args: &ScheduleArgs,
    lab: &mut Lab,
    role: Role,
    pods: usize,
    bound: usize,
) -> Result<anyhow::Error> {
    if let Some(ended) = lab.scheduler_ended() {
        bail!("{ended}");
    }
    let what = match role {
        Role::Fill => "pods that are to be there before",
        Role::Measured => "pods",
        Role::Warm => "pods of the warm-up",
    };
    let without = unbound(lab, role, pods).await?;
    let reason = match &without {
        Some(name) => format!("{name}: {}", lab.reason(name).await?),
        None => "all have a binding by now".to_owned(),
    };
    Ok(anyhow!(
        "{} of {pods} {what} were not bound, and none was within {:?}: {reason}",
        pods - bound,
        args.patience
    ))
}

/// One pod of a role that has no binding.
async fn unbound(lab: &Lab, role: Role, pods: usize) -> Result<Option<String>> {
    let placed = lab.placements().await?.into_iter();
    let bound: BTreeSet<usize> = placed
        .filter_map(|(of, (pod, _))| (of == role).then_some(pod))
        .collect();
    let without = (0..pods).find(|number| !bound.contains(number));
    Ok(without.map(|number| role.name(number)))
}

/// Samples of single pods.
struct Singles {
    /// When each pod's write began.
    begun: Vec<Instant>,
    /// Two raw transactions, in milliseconds.
    raw: Vec<f64>,
}

/// Creates one pod after the other, each when the former is bound, with two raw transactions in between.
async fn one_by_one(
    args: &ScheduleArgs,
    plan: &Plan,
    lab: &mut Lab,
    watch: &mut Watch,
    raw: &Raw<'_>,
) -> Result<Singles> {
    let mut singles = Singles {
        begun: Vec::new(),
        raw: Vec::new(),
    };
    for number in 0..plan.pods {
        let took = raw.two_transactions(number).await?;
        singles.raw.push(millis(took));
        singles.begun.push(Instant::now());
        let name = Role::Measured.name(number);
        lab.put_pod(&name, plan.pod_document(&name, number)).await?;
        wait(args, lab, watch, Role::Measured, number + 1, |p| p.bound).await?;
    }
    raw.remove().await?;
    Ok(singles)
}

impl Singles {
    /// Median and 99th percentile of the time from a write to its binding, less the median of two raw transactions.
    fn beyond_raw(mut self, seen: &Seen) -> (f64, f64) {
        let raw = median(&mut self.raw);
        let mut times: Vec<f64> = self
            .begun
            .iter()
            .zip(&seen.bound)
            .filter_map(|(begun, bound)| Some(millis(bound.as_ref()?.duration_since(*begun))))
            .collect();
        times.sort_by(f64::total_cmp);
        (
            round(quantile(&times, 0.5) - raw),
            round(quantile(&times, 0.99) - raw),
        )
    }
}

/// Cpu time at the beginning.
struct Spent {
    scheduler: f64,
    etcd: Option<f64>,
}

impl Spent {
    /// A scheduler that does not run yet has spent nothing.
    fn start(lab: &Lab, etcd: Option<u32>) -> Self {
        Self {
            scheduler: lab.scheduler().map_or(0.0, process::cpu_seconds),
            etcd: etcd.map(process::cpu_seconds),
        }
    }

    fn until_now(&self, lab: &Lab, etcd: Option<u32>) -> (f64, Option<f64>) {
        let now = Self::start(lab, etcd);
        (
            now.scheduler - self.scheduler,
            now.etcd.zip(self.etcd).map(|(now, before)| now - before),
        )
    }
}

/// The report as a table.
fn rows(report: &Report) -> Vec<(String, String)> {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let unknown = || "unknown: it is not a process of this machine".to_owned();
    let f = &report.figures;
    let mut rows = vec![
        (
            "case".to_owned(),
            format!("{}, {}", word(report.case), word(report.mode)),
        ),
        ("nodes".to_owned(), report.nodes.to_string()),
        ("pods".to_owned(), report.pods.to_string()),
        (
            "bound, first to last".to_owned(),
            format!("{:.0} pods/s", f.pods_per_second),
        ),
        (
            "bound, middle 80 %".to_owned(),
            format!("{:.0} pods/s", f.middle80_pods_per_second),
        ),
        (
            "the same writes without a scheduler".to_owned(),
            format!(
                "{:.0} /s: the scheduler does {:.2} of that",
                report.raw_binds_per_second, report.ratio_to_raw
            ),
        ),
        (
            "creation to binding, median / 99th percentile".to_owned(),
            format!("{:.1} / {:.1} ms", f.p50_ms, f.p99_ms),
        ),
    ];
    if let (Some(p50), Some(p99)) = (report.idle_p50_ms, report.idle_p99_ms) {
        rows.push((
            "one pod: write to binding beyond two raw transactions".to_owned(),
            format!("{p50:.1} / {p99:.1} ms"),
        ));
    }
    rows.extend([
        (
            "scheduler".to_owned(),
            format!(
                "{:.2} s of cpu, {}",
                report.scheduler_cpu_seconds,
                mib(report.scheduler_rss_bytes)
            ),
        ),
        (
            "etcd".to_owned(),
            match (report.etcd_cpu_seconds, report.etcd_rss_bytes) {
                (Some(cpu), Some(rss)) => format!("{cpu:.2} s of cpu, {}", mib(rss)),
                _ => unknown(),
            },
        ),
    ]);
    rows
}

/// A value as it is given on the command line.
fn word(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_core_measures_can_be_named() {
        let values = case_names();
        let names: BTreeSet<&str> = values.iter().map(PossibleValue::get_name).collect();
        assert_eq!(names.len(), values.len(), "no name is given twice");
        let of_core = core::names();
        for name in &of_core {
            assert!(names.contains(name.as_str()), "{name}");
        }
        for name in core::ONLY {
            assert!(of_core.iter().any(|known| known == name), "{name}");
        }
    }
}
