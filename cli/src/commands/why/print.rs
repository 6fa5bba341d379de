//! What there is to say of a pod, for people.

use setpoint_apis::records::{Hope, MoveOutcome, MoveResult, Moving, NodeScore, PlacementDecision};
use setpoint_what_if::{Decided, State, Waits, Why, describe};

use super::super::describe::sheet::Sheet;

/// How many of the best nodes are shown unless all that are known are asked for.
const BEST: usize = 3;

pub(super) fn sheet(why: &Why, wide: bool) -> Sheet {
    let mut sheet = Sheet::default();
    sheet.field("Pod", &why.pod);
    sheet.field("Verdict", verdict(why));
    if let Some(decided) = &why.decided {
        self::decided(&mut sheet, decided, wide);
    }
    if let Some(waits) = &why.waits {
        self::waits(&mut sheet, waits, wide);
    }
    for note in &why.notes {
        sheet.field("Note", note);
    }
    sheet.field("As Of", format!("revision {}", why.revision));
    sheet
}

/// The answer in one line.
fn verdict(why: &Why) -> String {
    let node = why.decided.as_ref().map_or("", |d| d.node.as_str());
    match (why.state, &why.waits) {
        (State::Placed, _) => match why.decided.as_ref().and_then(|d| d.moving.as_ref()) {
            Some(moving) => format!("placed on {node}, and moving to {}", moving.to),
            None => format!("placed on {node}"),
        },
        (State::Leaving, _) => format!("stopping on {node}"),
        (State::Finished, _) => format!("has run to its end on {node}"),
        (State::Frozen, _) => "frozen: what is stored of it cannot be read".into(),
        (State::Waiting, None) => "waits".into(),
        (State::Waiting, Some(w)) => match (&w.nominated, w.hope) {
            (Some(n), _) if !n.waits_for.is_empty() => {
                format!("waits for {} to be cleared", n.node)
            }
            _ if w.reasons.is_empty() && !w.fits.is_empty() && why.scheduler => {
                "fits now; the scheduler has not placed it yet".into()
            }
            _ if w.reasons.is_empty() && !w.fits.is_empty() => {
                "would fit; no scheduler is running".into()
            }
            _ if w.nodes == 0 => "waits: there are no nodes".into(),
            (_, Hope::Never) => {
                "never fits as things are: the pod or the nodes have to be changed".into()
            }
            (_, Hope::Waits) => "waits: it may fit when something else changes".into(),
        },
    }
}

fn decided(sheet: &mut Sheet, decided: &Decided, wide: bool) {
    let times = match decided.placement {
        0 | 1 => String::new(),
        n => format!(", placement number {n}"),
    };
    sheet.field(
        "Bound",
        format!("at {}{times}", decided.bound_at.whole_seconds()),
    );
    if let Some((reason, at)) = &decided.withdrawn {
        let text = format!("since {}: {reason}", at.whole_seconds());
        sheet.field("Withdrawn", text);
    }
    moves(sheet, decided);
    let Some(decision) = &decided.decision else {
        sheet.field("Decision", "was not kept");
        return;
    };
    decision_of(sheet, decision, wide);
    match (&decided.runner_up_lost, &decision.runner_up) {
        (Some(lost), _) => sheet.field("Next Best", lost),
        (None, Some((node, score))) => {
            sheet.field("Next Best", format!("{node} with score {score}"));
        }
        (None, None) if decision.feasible == 1 => {
            sheet.field("Next Best", "none: no other node could run it");
        }
        (None, None) => {}
    }
}

/// The move in progress, and the last one.
fn moves(sheet: &mut Sheet, decided: &Decided) {
    if let Some(moving) = &decided.moving {
        sheet.field(
            "Moving",
            move_in_progress(moving, decided.withdrawn.is_some()),
        );
    }
    if let Some(leaving) = &decided.leaving {
        sheet.field("Still On", format!("{leaving}, until it has stopped there"));
    }
    if let Some(last) = &decided.last_move {
        sheet.field("Last Move", last_move(last));
    }
}

/// A move in progress, in words.
pub(in crate::commands) fn move_in_progress(moving: &Moving, stops_first: bool) -> String {
    let how = match stops_first {
        true => "when it has stopped here".to_owned(),
        false => format!(
            "when it is ready there, which must be by {}",
            moving.deadline.whole_seconds()
        ),
    };
    let mut text = format!(
        "to {} since {}: {how}",
        moving.to,
        moving.since.whole_seconds()
    );
    if !moving.reason.is_empty() {
        text.push_str(&format!(" ({})", moving.reason));
    }
    if let Some(d) = &moving.decision {
        text.push_str(&format!(
            "\n{} of {} nodes could take it; score {}",
            d.feasible, d.nodes, d.score
        ));
    }
    text
}

/// What became of the last request to move a pod, in words.
pub(in crate::commands) fn last_move(last: &MoveResult) -> String {
    let at = last.at.whole_seconds();
    let to = last.to.as_deref().unwrap_or("another node");
    let message = match last.message.as_str() {
        "" => String::new(),
        message => format!(": {message}"),
    };
    match last.outcome {
        MoveOutcome::Moved => format!("from {} to {to} at {at}{message}", last.from),
        MoveOutcome::Undone => format!("to {to} came to nothing at {at}{message}"),
        MoveOutcome::Refused => format!("to {to} was refused at {at}{message}"),
        MoveOutcome::Other => format!("to {to} ended at {at}{message}"),
    }
}

fn decision_of(sheet: &mut Sheet, decision: &PlacementDecision, wide: bool) {
    sheet.field(
        "Decision",
        format!(
            "{} of {} nodes could run it, at revision {}; score {}",
            decision.feasible, decision.nodes, decision.revision, decision.score
        ),
    );
    if let Some(profile) = &decision.profile {
        sheet.field("Profile", profile);
    }
    if let Some(from) = &decision.moved_from {
        sheet.field("Moved From", from);
    }
    if !decision.preempted.is_empty() {
        sheet.field("Displaced", decision.preempted.join("\n"));
    }
    scores(sheet, "Scores", &decision.best, wide);
}

fn scores(sheet: &mut Sheet, title: &str, best: &[NodeScore], wide: bool) {
    let most = if wide { best.len() } else { BEST };
    let lines: Vec<String> = best
        .iter()
        .take(most)
        .map(|s| {
            format!("{} {} {}", s.node, s.score, s.parts)
                .trim_end()
                .to_owned()
        })
        .collect();
    if !lines.is_empty() {
        sheet.field(title, lines.join("\n"));
    }
}

fn waits(sheet: &mut Sheet, waits: &Waits, wide: bool) {
    if waits.priority != 0 {
        sheet.field("Priority", waits.priority);
    }
    if let Some(profile) = &waits.profile {
        sheet.field("Profile", profile);
    }
    sheet.field("Nodes", waits.nodes);
    let reasons: Vec<String> = waits
        .reasons
        .iter()
        .map(|r| {
            let hope = match r.hope {
                Hope::Never => "never fits",
                Hope::Waits => "waiting can help",
            };
            format!("{} ({hope})", describe(r))
        })
        .collect();
    if !reasons.is_empty() {
        sheet.field("Reasons", reasons.join("\n"));
    }
    if !waits.nearest.is_empty() {
        let nearest: Vec<&str> = waits.nearest.iter().map(|n| n.text.as_str()).collect();
        sheet.field("Nearest", nearest.join("\n"));
    }
    scores(sheet, "Would Fit On", &waits.fits, wide);
    if let Some(gang) = &waits.gang {
        let text = format!(
            "{}: {} of its pods exist, {} are placed; {} must run together",
            gang.group, gang.members, gang.bound, gang.min_member
        );
        sheet.field("Pod Group", text);
    }
    if let Some(nominated) = &waits.nominated {
        let text = match nominated.waits_for.as_slice() {
            [] => nominated.node.clone(),
            pods => format!("{}, waits for {}", nominated.node, pods.join(", ")),
        };
        sheet.field("Nominated", text);
    }
    if let Some(victims) = &waits.could_displace {
        let mut text = format!("{} on {}", victims.pods.join(", "), victims.node);
        if victims.violated_budgets > 0 {
            text.push_str(&format!(
                " ({} against a disruption budget)",
                victims.violated_budgets
            ));
        }
        sheet.field("Could Displace", text);
    }
    if waits.record_differs
        && let Some(recorded) = &waits.recorded
    {
        let said: Vec<String> = recorded.reasons.iter().map(describe).collect();
        sheet.field(
            "Recorded",
            format!(
                "the scheduler wrote something else last: {}",
                said.join("; ")
            ),
        );
    } else if let Some(message) = waits.recorded.as_ref().and_then(|r| {
        let condition = r.conditions.iter().find(|c| c.type_ == "PodScheduled");
        condition?.message.clone()
    }) {
        sheet.field("Recorded", message);
    }
}

#[cfg(test)]
mod tests {
    use setpoint_apis::records::{ConstraintKind, WaitReason};
    use setpoint_what_if::{Nearest, Nominated};

    use super::*;

    fn waiting(waits: Waits) -> Why {
        Why {
            pod: "default/p".into(),
            waits: Some(waits),
            ..Why::default()
        }
    }

    #[test]
    fn a_waiting_pod_has_its_reasons_and_the_nearest_misses() {
        let waits = Waits {
            nodes: 3,
            hope: Hope::Never,
            reasons: vec![WaitReason {
                constraint: ConstraintKind::Taint,
                detail: "dedicated=gpu".into(),
                nodes: 3,
                hope: Hope::Never,
            }],
            nearest: vec![Nearest {
                text: "3 nodes would fit without taint dedicated=gpu".into(),
                ..Nearest::default()
            }],
            ..Waits::default()
        };
        let text = sheet(&waiting(waits), false).to_string();
        for line in [
            "never fits as things are",
            "3 nodes: taint dedicated=gpu is not tolerated (never fits)",
            "3 nodes would fit without taint dedicated=gpu",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn the_verdict_tells_what_it_waits_for() {
        let says = |waits, scheduler| {
            verdict(&Why {
                scheduler,
                ..waiting(waits)
            })
        };
        let nominated = Waits {
            nodes: 1,
            nominated: Some(Nominated {
                node: "n1".into(),
                waits_for: vec!["default/low".into()],
            }),
            ..Waits::default()
        };
        assert_eq!(says(nominated, true), "waits for n1 to be cleared");
        let fits = Waits {
            nodes: 1,
            fits: vec![NodeScore::default()],
            ..Waits::default()
        };
        assert!(says(fits.clone(), true).contains("has not placed it yet"));
        assert!(says(fits, false).contains("no scheduler is running"));
        assert!(says(Waits::default(), true).contains("there are no nodes"));
    }
}
