//! Plans as tables.

use setpoint_apis::Quantity;
use setpoint_apis::records::{Hope, WaitReason};
use setpoint_what_if::{NodeUse, Plan, ResourceUse, Waiting, describe};

use crate::printers::table::Table;
use crate::term::Out;

/// How many nodes are shown unless all are asked for.
const MOST_NODES: usize = 20;

/// What is nearest to fitting: how many of it are shown.
const MOST_NEAREST: usize = 3;

pub(super) fn tables(out: &mut Out, plan: &Plan, wide: bool) {
    let mut begun = false;
    let mut section = |out: &mut Out| {
        if std::mem::replace(&mut begun, true) {
            out.line("");
        }
    };
    let placed: Vec<Vec<String>> = plan
        .placed
        .iter()
        .map(|p| {
            let how = match p.displaces.as_slice() {
                [] if p.feasible == 1 => format!("the only one of {}", p.nodes),
                [] => format!("best of {}/{}", p.feasible, p.nodes),
                gone => format!("displaces {}", gone.join(", ")),
            };
            let mut row = vec![p.pod.clone(), p.node.clone(), how];
            if wide {
                row.push(p.owner.clone().unwrap_or_default());
                row.push(p.score.to_string());
                row.push(match &p.runner_up {
                    Some((node, score)) => format!("{node} ({score})"),
                    None => "<none>".into(),
                });
                row.push(if p.new { "new" } else { "waiting" }.into());
            }
            row
        })
        .collect();
    if !placed.is_empty() {
        section(out);
        let mut headers = vec!["pod", "node", "how"];
        if wide {
            headers.extend(["owner", "score", "next best", "was"]);
        }
        Table::new(headers).print(out, &placed);
    }
    if !plan.waiting.is_empty() {
        section(out);
        let groups = alike(&plan.waiting);
        let rows: Vec<Vec<String>> = groups.iter().map(|(w, more)| waits(w, *more)).collect();
        Table::new(["waits", "hope", "why"]).print(out, &rows);
        for (waiting, _) in &groups {
            for near in waiting.nearest.iter().take(MOST_NEAREST) {
                out.line(format_args!("  {}: {}", waiting.pod, near.text));
            }
        }
    }
    if !plan.displaced.is_empty() {
        section(out);
        let rows: Vec<Vec<String>> = plan
            .displaced
            .iter()
            .map(|d| {
                let to = d.to.clone().unwrap_or_else(|| "<waits>".into());
                vec![d.pod.clone(), d.from.clone(), to, d.by.clone()]
            })
            .collect();
        Table::new(["displaced", "from", "to", "by"]).print(out, &rows);
    }
    if !plan.nodes.is_empty() {
        section(out);
        nodes(out, &plan.nodes, wide);
    }
    section(out);
    for note in &plan.notes {
        out.line(format_args!("note: {note}"));
    }
    out.line(summary(plan));
}

/// Pods of one workload that wait for the same reasons, and how many more there are of each.
fn alike(waiting: &[Waiting]) -> Vec<(&Waiting, usize)> {
    let mut groups: Vec<(&Waiting, usize)> = Vec::new();
    for w in waiting {
        let same = |(known, _): &&mut (&Waiting, usize)| {
            w.owner.is_some() && known.owner == w.owner && known.reasons == w.reasons
        };
        match groups.iter_mut().find(same) {
            Some((_, more)) => *more += 1,
            None => groups.push((w, 0)),
        }
    }
    groups
}

fn waits(waiting: &Waiting, more: usize) -> Vec<String> {
    let pod = match (more, &waiting.owner) {
        (0, _) | (_, None) => waiting.pod.clone(),
        (more, Some(owner)) => format!("{} and {more} more of {owner}", waiting.pod),
    };
    let hope = match waiting.hope {
        Hope::Never => "never fits",
        Hope::Waits => "may fit later",
    };
    vec![pod, hope.into(), sentence(&waiting.reasons)]
}

/// Reasons as one line.
fn sentence(reasons: &[WaitReason]) -> String {
    if reasons.is_empty() {
        return "there are no nodes".into();
    }
    let all: Vec<String> = reasons.iter().map(describe).collect();
    all.join("; ")
}

fn nodes(out: &mut Out, nodes: &[NodeUse], wide: bool) {
    let changed = |n: &&NodeUse| n.pods != n.pods_before;
    let mut shown: Vec<&NodeUse> = nodes.iter().collect();
    if !wide && shown.len() > MOST_NODES {
        shown = nodes.iter().filter(changed).take(MOST_NODES).collect();
    }
    let extended: std::collections::BTreeSet<&str> = shown
        .iter()
        .flat_map(|n| n.resources.keys())
        .map(String::as_str)
        .filter(|r| !matches!(*r, "cpu" | "memory" | "pods"))
        .filter(|r| wide || *r != "ephemeral-storage")
        .collect();
    let mut headers = vec![
        "node".to_owned(),
        "pods".into(),
        "cpu".into(),
        "memory".into(),
    ];
    headers.extend(extended.iter().map(|r| (*r).to_owned()));
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|n| {
            let of = |resource: &str| n.resources.get(resource).map_or_else(String::new, share);
            let pods = match n.resources.get("pods") {
                Some(u) => format!("{}/{}{}", n.pods, u.allocatable, more(n)),
                None => format!("{}{}", n.pods, more(n)),
            };
            let mut row = vec![n.node.clone(), pods, of("cpu"), of("memory")];
            row.extend(extended.iter().map(|r| of(r)));
            row
        })
        .collect();
    if !rows.is_empty() {
        Table::new(headers).print(out, &rows);
    }
    if shown.len() < nodes.len() {
        let left = nodes.len() - shown.len();
        out.line(format_args!("and {left} more nodes (-o wide shows all)"));
    }
}

fn more(node: &NodeUse) -> String {
    match i64::from(node.pods) - i64::from(node.pods_before) {
        0 => String::new(),
        n => format!(" ({n:+})"),
    }
}

fn share(u: &ResourceUse) -> String {
    format!(
        "{}/{} ({} %)",
        short(u.after),
        short(u.allocatable),
        u.percent()
    )
}

/// Large amounts of bytes in whole MiB at least: they are added up from amounts in all units.
fn short(amount: Quantity) -> String {
    match amount.value() {
        bytes if bytes >= 1 << 30 && bytes % (1 << 20) == 0 => {
            Quantity::from_bytes(bytes).to_string()
        }
        bytes if bytes >= 1 << 30 => format!("{}Mi", bytes >> 20),
        _ => amount.to_string(),
    }
}

fn summary(plan: &Plan) -> String {
    let pods = |n: usize| {
        if n == 1 {
            "1 pod".to_owned()
        } else {
            format!("{n} pods")
        }
    };
    let (new, old): (Vec<_>, Vec<_>) = plan.placed.iter().partition(|p| p.new);
    let mut parts = vec![format!("{} would be placed", pods(new.len()))];
    let waiting = plan.waiting.iter().filter(|w| w.new).count();
    parts.push(format!("{waiting} would wait"));
    if !plan.displaced.is_empty() {
        parts.push(format!("{} would be displaced", plan.displaced.len()));
    }
    let others = plan.waiting.len() - waiting + old.len();
    if others > 0 {
        parts.push(format!(
            "{} of {others} that waited already or are displaced would be placed",
            old.len()
        ));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use setpoint_apis::records::ConstraintKind;

    use super::*;

    #[test]
    fn pods_that_wait_alike_are_told_once() {
        let waiting = |pod: &str, nodes| Waiting {
            pod: pod.into(),
            owner: Some("deployment/web".into()),
            reasons: vec![WaitReason {
                constraint: ConstraintKind::Resources,
                detail: "cpu".into(),
                nodes,
                hope: Hope::Never,
            }],
            hope: Hope::Never,
            ..Waiting::default()
        };
        let all = [waiting("d/a", 2), waiting("d/b", 2), waiting("d/c", 3)];
        let groups = alike(&all);
        assert_eq!(groups.iter().map(|g| g.1).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(
            waits(groups[0].0, groups[0].1),
            [
                "d/a and 1 more of deployment/web",
                "never fits",
                "2 nodes: too little cpu"
            ]
        );
    }

    #[test]
    fn amounts_are_short() {
        let short = |text: &str| short(text.parse().unwrap());
        assert_eq!(
            (short("1500m").as_str(), short("8Gi").as_str()),
            ("1500m", "8Gi")
        );
        assert_eq!(short("8589934593"), "8192Mi");
    }
}
