//! How many pods per second the scheduler's core places, without etcd, and how the cost grows with the nodes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use setpoint_scheduler_core::bench::{self, Case, Measured};

use super::super::{Output, print, round};

/// The name of the measurement that is not of one case.
pub(super) const GROWTH: &str = "growth";
/// What the core measures and the benchmark with etcd does not.
pub(super) const ONLY: [&str; 6] = [
    "classes-20",
    "classes-200",
    "anti-affinity-zone",
    "spread-hostname",
    "preemption-budgets",
    GROWTH,
];
/// How often each point of the growth is measured; the fastest counts, since what else the machine does only slows down.
const REPEATS: usize = 3;

/// What to measure.
#[derive(Clone, Debug)]
pub(super) struct Wanted<'a> {
    /// A case of the core or [`GROWTH`]; everything when none is named.
    pub(super) case: Option<&'a str>,
    pub(super) nodes: Option<usize>,
    pub(super) pods: Option<usize>,
}

/// The names of everything that can be measured.
pub(super) fn names() -> Vec<String> {
    let cases = Case::ALL.into_iter().map(Case::name);
    cases.chain([GROWTH.to_owned()]).collect()
}

#[derive(Debug, Serialize)]
struct Line {
    case: String,
    nodes: usize,
    pods: usize,
    bound: usize,
    pods_per_second: f64,
    microseconds_per_pod: f64,
}

impl From<Measured> for Line {
    fn from(m: Measured) -> Self {
        Self {
            case: m.case.name(),
            nodes: m.nodes,
            pods: m.pods,
            bound: m.bound,
            pods_per_second: m.pods_per_second().round(),
            microseconds_per_pod: round(m.seconds_per_pod() * 1e6),
        }
    }
}

#[derive(Debug, Serialize)]
struct Growth {
    case: &'static str,
    /// The time per pod grows with the number of nodes to this power.
    exponent: f64,
    points: Vec<Line>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Report {
    Case(Line),
    Growth(Growth),
    All { cases: Vec<Line>, growth: Growth },
}

/// Measures and prints the report.
///
/// # Errors
/// What is wanted does not go together, or standard output is closed.
pub(super) fn run(wanted: &Wanted<'_>, output: Output) -> Result<()> {
    let began = Instant::now();
    let clock = || began.elapsed();
    print(&measure(wanted, &clock)?, output, rows)
}

fn measure(wanted: &Wanted<'_>, clock: &dyn Fn() -> Duration) -> Result<Report> {
    let one = |case: Case| {
        let nodes = wanted.nodes.unwrap_or(bench::USUAL_NODES);
        let usual = case.usual_pods(nodes);
        Line::from(bench::run(case, nodes, wanted.pods.unwrap_or(usual), clock))
    };
    Ok(match wanted.case {
        None => Report::All {
            cases: Case::ALL.into_iter().map(one).collect(),
            growth: growth(wanted.pods, clock),
        },
        Some(GROWTH) if wanted.nodes.is_some() => {
            bail!("{GROWTH} has numbers of nodes of its own; leave --nodes out")
        }
        Some(GROWTH) => Report::Growth(growth(wanted.pods, clock)),
        Some(name) => match Case::ALL.into_iter().find(|case| case.name() == name) {
            Some(case) => Report::Case(one(case)),
            None => bail!(
                "the core has no case {name:?}; there are {}",
                names().join(", ")
            ),
        },
    })
}

fn growth(pods: Option<usize>, clock: &dyn Fn() -> Duration) -> Growth {
    let points = bench::GROWTH_NODES.map(|nodes| {
        let pods = pods.unwrap_or(Case::Basic.usual_pods(nodes));
        let run = || bench::run(Case::Basic, nodes, pods, clock);
        let more = (1..REPEATS).map(|_| run());
        more.fold(
            run(),
            |best, run| if run.took < best.took { run } else { best },
        )
    });
    Growth {
        case: GROWTH,
        exponent: (bench::exponent(&points) * 1000.0).round() / 1000.0,
        points: points.map(Line::from).into(),
    }
}

fn rows(report: &Report) -> Vec<(String, String)> {
    match report {
        Report::Case(line) => vec![row(line)],
        Report::Growth(growth) => growth_rows(growth),
        Report::All { cases, growth } => {
            let mut rows: Vec<_> = cases.iter().map(row).collect();
            rows.extend(growth_rows(growth));
            rows
        }
    }
}

fn growth_rows(growth: &Growth) -> Vec<(String, String)> {
    let mut rows: Vec<_> = growth.points.iter().map(row).collect();
    rows.push((
        growth.case.to_owned(),
        format!(
            "the time per pod grows with the nodes to the power of {:.3}",
            growth.exponent
        ),
    ));
    rows
}

fn row(line: &Line) -> (String, String) {
    let unbound = match line.pods - line.bound {
        0 => String::new(),
        some => format!(", {some} of them without a node"),
    };
    (
        line.case.clone(),
        format!(
            "{:.0} pods/s, {:.2} us per pod; {} nodes, {} pods{unbound}",
            line.pods_per_second, line.microseconds_per_pod, line.nodes, line.pods
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn told(case: Option<&str>, nodes: Option<usize>) -> Result<serde_json::Value> {
        let ticks = Cell::new(0);
        let clock = || {
            ticks.set(ticks.get() + 1);
            Duration::from_millis(ticks.get())
        };
        let wanted = Wanted {
            case,
            nodes,
            pods: Some(20),
        };
        Ok(serde_json::to_value(measure(&wanted, &clock)?)?)
    }

    #[test]
    fn a_named_case_is_one_flat_object() {
        let told = told(Some("basic"), Some(10)).unwrap();
        assert_eq!(told["case"], "basic");
        assert_eq!((&told["nodes"], &told["bound"]), (&10.into(), &20.into()));
        assert_eq!(told["pods_per_second"], 20_000.0);
        assert_eq!(told["microseconds_per_pod"], 50.0);
    }

    #[test]
    fn growth_is_flat_where_every_run_takes_as_long_and_chooses_its_nodes() {
        let told_growth = told(Some(GROWTH), None).unwrap();
        assert_eq!(told_growth["exponent"], 0.0);
        let points = told_growth["points"].as_array().unwrap();
        assert_eq!(points.len(), bench::GROWTH_NODES.len());
        let refused = told(Some(GROWTH), Some(10)).unwrap_err().to_string();
        assert!(refused.contains("--nodes"), "{refused}");
    }

    #[test]
    fn a_case_that_only_etcd_has_is_refused_with_those_that_there_are() {
        let refused = told(Some("idle"), None).unwrap_err().to_string();
        assert!(refused.contains("\"idle\""), "{refused}");
        assert!(
            refused.contains("classes-20") && refused.contains(GROWTH),
            "{refused}"
        );
    }
}
