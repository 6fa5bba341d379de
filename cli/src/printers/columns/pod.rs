//! The columns of pods. The STATUS column is not a field: it is the most telling of phase, reason, and what the
//! containers do.

use serde_json::Value;
use setpoint_apis::time::Timestamp;

use super::{AGE, Column, NAME, column, or_none, wide};
use crate::object::Object;
use crate::printers::age;

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("READY", |o, _| ready(o)),
    column("STATUS", |o, _| state(o)),
    column("RESTARTS", restarts),
    AGE,
    wide("IP", |o, _| or_none(o.text_at(&["status", "podIP"]))),
    wide("NODE", |o, _| or_none(o.text_at(&["spec", "nodeName"]))),
];

fn statuses<'a>(o: &'a Object, list: &str) -> &'a [Value] {
    o.list_at(&["status", list])
}

/// `1/2`: how many containers are ready, of how many. Sidecars count.
pub(super) fn ready(o: &Object) -> String {
    let sidecars: Vec<&str> = sidecars(o).collect();
    let mut ready = statuses(o, "containerStatuses")
        .iter()
        .filter(|c| c["ready"] == true)
        .count();
    ready += statuses(o, "initContainerStatuses")
        .iter()
        .filter(|c| c["ready"] == true && c["name"].as_str().is_some_and(|n| sidecars.contains(&n)))
        .count();
    // Without its document (deleted, and still running) the containers are those that are reported.
    let wanted = match o.list_at(&["spec", "containers"]).len() {
        0 => statuses(o, "containerStatuses").len(),
        n => n,
    };
    format!("{ready}/{}", wanted + sidecars.len())
}

fn sidecars(o: &Object) -> impl Iterator<Item = &str> {
    let inits = o.list_at(&["spec", "initContainers"]).iter();
    inits
        .filter(|c| c["restartPolicy"] == "Always")
        .filter_map(|c| c["name"].as_str())
}

/// The most telling word about a pod: `Running`, `CrashLoopBackOff`, `Init:0/1`, `Completed`, `Terminating`.
pub(crate) fn state(o: &Object) -> String {
    let phase = match o.text_at(&["status", "phase"]) {
        "" => "Pending",
        phase => phase,
    };
    let mut word = match o.text_at(&["status", "reason"]) {
        // What it did before its node was lost is no news.
        "NodeLost" => return "Unknown".into(),
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let initializing = init_state(o);
    if let Some(state) = &initializing {
        word.clone_from(state);
    } else {
        let mut running = false;
        for c in statuses(o, "containerStatuses").iter().rev() {
            let waiting = c["state"]["waiting"]["reason"]
                .as_str()
                .filter(|r| !r.is_empty());
            let ended = &c["state"]["terminated"];
            if let Some(reason) = waiting {
                word = reason.to_owned();
            } else if ended.is_object() {
                word = ended_word(ended);
            } else if c["ready"] == true && c["state"]["running"].is_object() {
                running = true;
            }
        }
        // Some have completed and others run on.
        if word == "Completed" && running {
            word = if o.condition("Ready").is_some_and(|c| c["status"] == "True") {
                "Running"
            } else {
                "NotReady"
            }
            .into();
        }
    }
    if o.terminating && !matches!(phase, "Succeeded" | "Failed") {
        return if phase == "Unknown" {
            "Unknown".into()
        } else {
            "Terminating".into()
        };
    }
    if phase == "Pending"
        && word == "Pending"
        && o.condition("PodScheduled")
            .is_some_and(|c| c["reason"] == "SchedulingGated")
    {
        return "SchedulingGated".into();
    }
    word
}

/// What init containers hold the pod up with, if they do.
fn init_state(o: &Object) -> Option<String> {
    // Sidecars are init containers that go on: once the pod was initialized they hold nothing up, however they end.
    let initialized = |c: &Value| c["status"] == "True";
    if o.condition("Initialized").is_some_and(initialized)
        || o.text_at(&["status", "phase"]) == "Succeeded"
    {
        return None;
    }
    let all = statuses(o, "initContainerStatuses");
    let total = o.list_at(&["spec", "initContainers"]).len().max(all.len());
    let sidecars: Vec<&str> = sidecars(o).collect();
    for (i, c) in all.iter().enumerate() {
        let (ended, waiting) = (&c["state"]["terminated"], &c["state"]["waiting"]);
        if ended["exitCode"] == 0 {
            continue;
        }
        if c["started"] == true && c["name"].as_str().is_some_and(|n| sidecars.contains(&n)) {
            continue;
        }
        if ended.is_object() {
            return Some(format!("Init:{}", ended_word(ended)));
        }
        return Some(match waiting["reason"].as_str() {
            Some(reason) if !reason.is_empty() && reason != "PodInitializing" => {
                format!("Init:{reason}")
            }
            _ => format!("Init:{i}/{total}"),
        });
    }
    None
}

fn ended_word(ended: &Value) -> String {
    match ended["reason"].as_str() {
        Some(reason) if !reason.is_empty() => reason.to_owned(),
        _ => match ended["signal"].as_i64() {
            Some(signal) if signal != 0 => format!("Signal:{signal}"),
            _ => format!(
                "ExitCode:{}",
                ended["exitCode"].as_i64().unwrap_or_default()
            ),
        },
    }
}

/// `3 (5m ago)`: the restarts of all containers, and how long ago the last one ended.
pub(super) fn restarts(o: &Object, now: Timestamp) -> String {
    let all = || {
        statuses(o, "containerStatuses")
            .iter()
            .chain(statuses(o, "initContainerStatuses"))
    };
    let count: i64 = all().filter_map(|c| c["restartCount"].as_i64()).sum();
    let ended = |c: &Value| {
        c["lastState"]["terminated"]["finishedAt"]
            .as_str()?
            .parse::<Timestamp>()
            .ok()
    };
    match all().filter_map(ended).max() {
        Some(last) if count > 0 => format!("{count} ({} ago)", age::since(Some(last), now)),
        _ => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::printers::tests::object;

    fn check(value: Value, terminating: bool, expect: &str) {
        let mut o = object("pods", value.clone());
        o.terminating = terminating;
        assert_eq!(state(&o), expect, "{value}");
    }

    #[test]
    fn the_status_column_says_the_most_telling_thing() {
        let running = json!({"ready": true, "state": {"running": {}}});
        check(json!({}), false, "Pending");
        check(
            json!({"status": {"phase": "Running", "containerStatuses": [running]}}),
            false,
            "Running",
        );
        check(
            json!({"status": {"phase": "Running", "containerStatuses": [running]}}),
            true,
            "Terminating",
        );
        for terminating in [false, true] {
            check(
                json!({"status": {"phase": "Running", "reason": "NodeLost", "containerStatuses": [running]}}),
                terminating,
                "Unknown",
            );
        }
        check(
            json!({"status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}}),
            true,
            "Completed",
        );
        check(
            json!({"status": {"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
            false,
            "CrashLoopBackOff",
        );
        check(
            json!({"status": {"phase": "Failed", "reason": "Evicted"}}),
            false,
            "Evicted",
        );
        check(
            json!({"status": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}}),
            false,
            "ExitCode:3",
        );
    }

    #[test]
    fn init_containers_hold_the_status_until_they_are_done() {
        let spec = json!({"initContainers": [{"name": "a"}, {"name": "s", "restartPolicy": "Always"}, {"name": "b"}], "containers": [{"name": "c"}]});
        let status = |inits: Value| json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": inits}});
        let done = json!({"name": "a", "state": {"terminated": {"exitCode": 0}}});
        let sidecar =
            json!({"name": "s", "started": true, "ready": true, "state": {"running": {}}});
        check(
            status(json!([{"name": "a", "state": {"running": {}}}])),
            false,
            "Init:0/3",
        );
        check(
            status(
                json!([done, sidecar, {"name": "b", "state": {"waiting": {"reason": "PodInitializing"}}}]),
            ),
            false,
            "Init:2/3",
        );
        check(
            status(
                json!([{"name": "a", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
            ),
            false,
            "Init:Error",
        );
        let o = object("pods", status(json!([done, sidecar])));
        assert_eq!(ready(&o), "1/2");
        let stopped = json!({"name": "s", "started": false, "state": {"terminated": {"exitCode": 143, "reason": "Error"}}});
        let completed =
            json!({"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        for (phase, conditions) in [
            ("Succeeded", json!([])),
            (
                "Running",
                json!([{"type": "Initialized", "status": "True"}]),
            ),
        ] {
            let ended = json!({"phase": phase, "conditions": conditions, "initContainerStatuses": [done, stopped], "containerStatuses": [completed]});
            check(json!({"spec": spec, "status": ended}), false, "Completed");
        }
    }

    #[test]
    fn restarts_are_summed_with_the_time_of_the_last() {
        let o = object(
            "pods",
            json!({"status": {"containerStatuses": [
                {"restartCount": 2, "lastState": {"terminated": {"finishedAt": "1970-01-01T00:01:00Z"}}}, {"restartCount": 1}]}}),
        );
        assert_eq!(
            restarts(&o, Timestamp::from_unix_seconds(90)),
            "3 (30s ago)"
        );
    }
}
