//! Jobs and CronJobs while nodes are lost, pods are moved, controllers are down for long, and clocks are changed.

use serde_json::{Value, json};
use setpoint_sim::pods::{ENDS_AFTER, FAILS};
use setpoint_sim::{Report, Scenario};

use crate::common::run_well;

/// Runs four nodes under two processes of controllers from this time on; nothing may be wrong.
fn check(seed: u64, begins: &str, timeline: Value) -> Report {
    let scenario: Scenario = serde_json::from_value(json!({
        "metadata": {"name": "jobs"},
        "spec": {
            "begins": begins,
            "controllers": {"replicas": 2},
            "nodes": [{"name": "node", "count": 4}],
            "clockError": "1s",
            "quiet": "20s",
            "timeline": timeline,
        },
    }))
    .unwrap();
    run_well(&scenario, seed, None)
}

fn template(ends: &str, fails: &str) -> Value {
    json!({
        "metadata": {"annotations": {ENDS_AFTER: ends, FAILS: fails}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "example/sum:1"}],
        },
    })
}

fn job(spec: Value) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "sum", "namespace": "default"},
        "spec": spec,
    })
}

fn cron_job(schedule: &str, more: Value) -> Value {
    let mut spec = json!({
        "schedule": schedule,
        "jobTemplate": {"spec": {"template": template("2s", "0")}},
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "report", "namespace": "default"},
        "spec": spec,
    })
}

fn status(report: &Report) -> Value {
    let text = &report.state["/setpoint/actual/jobs/default/sum"];
    setpoint_apis::document::decode_value(text.as_bytes()).unwrap()
}

/// The times of the Jobs that were kept, as they are annotated: in the CronJob's own time zone.
fn times(report: &Report) -> Vec<String> {
    let jobs = report
        .state
        .iter()
        .filter(|(key, _)| key.starts_with("/setpoint/desired/jobs/"));
    let time = |text: &String| {
        let job: Value = setpoint_apis::document::decode_value(text.as_bytes()).unwrap();
        let path = "/metadata/annotations/batch.kubernetes.io~1cronjob-scheduled-timestamp";
        job.pointer(path)
            .and_then(Value::as_str)
            .unwrap()
            .to_owned()
    };
    jobs.map(|(_, text)| time(text)).collect()
}

const NEW_YEAR: &str = "2030-01-01T00:00:00Z";

#[test]
fn pods_that_move_because_nodes_are_lost_have_not_failed() {
    for seed in 0..3 {
        let at = |millis: u64| format!("{}ms", millis + seed * 311);
        let sum = job(json!({
            "completions": 8,
            "parallelism": 4,
            "completionMode": "Indexed",
            // A single failure would be the end of it.
            "backoffLimit": 0,
            "template": template("12s", "0"),
        }));
        let report = check(
            seed,
            NEW_YEAR,
            json!([
                {"at": "1s", "apply": [sum]},
                {"at": at(3_000), "for": "40s", "powerOff": ["node-0"]},
                {"at": at(8_000), "for": "30s", "cut": ["node-1"]},
                {"at": at(20_000), "for": "6s", "crash": ["node-2"]},
                {"at": at(14_000), "move": 3},
                {"at": at(24_000), "for": "2s", "crash": ["controllers-0", "controllers-1"]},
                {"at": at(30_000), "move": 2},
            ]),
        );
        let status = status(&report);
        assert_eq!(
            (&status["succeeded"], &status["failed"]),
            (&json!(8), &Value::Null),
            "{report}"
        );
        assert_eq!(status["completedIndexes"], "0-7", "{report}");
    }
}

#[test]
fn failures_are_counted_once_each_whatever_becomes_of_controllers() {
    for seed in 0..3 {
        let at = |millis: u64| format!("{}ms", millis + seed * 277);
        let lossy = json!({"lostRequests": 0.05, "lostAnswers": 0.05, "lateWrites": 0.02});
        let sum = job(json!({
            "completions": 4,
            "parallelism": 4,
            "backoffLimit": 2,
            "template": template("2s", "1"),
        }));
        let report = check(
            seed,
            NEW_YEAR,
            json!([
                {"at": "1s", "apply": [sum]},
                {"at": "1s", "for": "25s", "network": lossy},
                {"at": at(2_500), "for": "3s", "crash": ["controllers-0"]},
                {"at": at(4_000), "for": "4s", "freeze": ["controllers-1"]},
                {"at": at(12_000), "for": "3s", "crash": ["controllers-0", "controllers-1"]},
            ]),
        );
        let status = status(&report);
        // Four ran at a time, and the fourth failure was one too many.
        let failed = status["failed"].as_i64().unwrap();
        assert!(
            (3..=4).contains(&failed) && status["succeeded"].is_null(),
            "{report}"
        );
    }
}

#[test]
fn after_an_outage_the_latest_time_is_made_up_for_and_no_other() {
    let everything = ["controllers-0", "controllers-1"];
    let at_quarters = cron_job("*/15 0-1 1 1 *", json!({"successfulJobsHistoryLimit": 20}));
    let report = check(
        1,
        NEW_YEAR,
        json!([
            {"at": "1s", "apply": [at_quarters]},
            // 00:16 to 01:10: 00:30, 00:45 and 01:00 are missed.
            {"at": "16m", "for": "54m", "crash": everything},
            {"at": "110m", "apply": []},
        ]),
    );
    let at = |time: &str| format!("2030-01-01T{time}:00Z");
    let expected = ["00:15", "01:00", "01:15", "01:30", "01:45"].map(at);
    assert_eq!(times(&report), expected, "{report}");
}

#[test]
fn what_was_missed_longer_ago_than_may_be_is_not_made_up_for() {
    let everything = ["controllers-0", "controllers-1"];
    let spec = json!({"startingDeadlineSeconds": 300, "successfulJobsHistoryLimit": 20});
    let report = check(
        1,
        NEW_YEAR,
        json!([
            {"at": "1s", "apply": [cron_job("*/15 0 1 1 *", spec)]},
            {"at": "16m", "for": "22m", "crash": everything},
            {"at": "50m", "apply": []},
        ]),
    );
    let expected = ["00:15", "00:45"].map(|time| format!("2030-01-01T{time}:00Z"));
    assert_eq!(times(&report), expected, "{report}");
}

#[test]
fn a_daily_job_runs_once_whether_clocks_skip_its_time_or_show_it_twice() {
    // Clocks in Berlin are set from 2:00 to 3:00 on the 31st of March 2030, and from 3:00 to 2:00 on the 27th of October.
    for (begins, expected) in [
        ("2030-03-31T00:50:00Z", "2030-03-31T03:00:00+02:00"),
        ("2030-10-26T23:50:00Z", "2030-10-27T02:30:00+02:00"),
    ] {
        let spec = json!({"timeZone": "Europe/Berlin"});
        let report = check(
            1,
            begins,
            json!([
                {"at": "1s", "apply": [cron_job("30 2 * * *", spec)]},
                // Whoever takes over looks at the schedule anew.
                {"at": "45m", "for": "10s", "crash": ["controllers-0"]},
                {"at": "100m", "restart": ["controllers-1"]},
                {"at": "110m", "apply": []},
            ]),
        );
        assert_eq!(times(&report), [expected], "{report}");
    }
}
