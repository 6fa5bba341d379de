//! `setpoint simulate`: exit codes, reports, and that what it prints can be run again. Needs no etcd.

use crate::fixture::{manifests, run_alone, run_alone_with_input};

/// The line of a report that begins with `word`.
fn line<'a>(report: &'a str, word: &str) -> &'a str {
    let found = report.lines().find(|l| l.starts_with(word));
    found.unwrap_or_else(|| panic!("no {word} in {report}"))
}

#[test]
fn a_printed_scenario_is_the_same_run() {
    let first = run_alone(&["simulate", "--seed", "5"]).ok();
    assert!(first.contains("violations:   none"), "{first}");
    let printed = run_alone(&["simulate", "--seed", "5", "--print-scenario"]).ok();
    let again = run_alone_with_input(&["simulate", "--scenario", "-"], &printed).ok();
    assert_eq!(line(&first, "digest"), line(&again, "digest"));
    let other = run_alone_with_input(&["simulate", "-f", "-", "--seed", "6"], &printed).ok();
    assert_ne!(line(&first, "digest"), line(&other, "digest"));
    let valid = run_alone_with_input(&["validate", "-"], &printed).ok();
    assert!(valid.contains("standard-5 valid"), "{valid}");
}

/// A scenario in which nobody does what is asked for last.
fn unmet(scenario: &str) -> String {
    let all = "controllers-0, controllers-1, controllers-2";
    format!(
        "{scenario}  - at: 70s\n    crash: [{all}]\n    scale: {{default/web: 3}}\n  settle: 2s\n"
    )
}

#[test]
fn the_exit_code_tells_a_violation_from_bad_input() {
    let path = manifests().join("scenarios/lost-rack.yaml");
    let good = std::fs::read_to_string(&path).unwrap();
    let ran = run_alone_with_input(&["simulate", "-f", "-", "-o", "json"], &unmet(&good));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        report["violations"][0]["invariant"], "converges",
        "{report}"
    );
    assert!(report["trace"][0]["revision"].is_u64(), "{report}");

    let ran = run_alone_with_input(
        &["simulate", "-f", "-"],
        &good.replacen("west-0", "wset-0", 1),
    );
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.err.contains("-:42:16: spec.timeline[1].powerOff[0]"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("west-0"), "{}", ran.err);
    for args in [
        &["simulate"][..],
        &["simulate", "--scenario", "/nope.yaml"],
        &["simulate", "--seeds", "5..5"],
        &["simulate", "--sede", "5"],
        &["simulate", "--seeds", "0..9", "--trace"],
    ] {
        let ran = run_alone(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.err.starts_with("error:"), "{args:?}: {ran:?}");
    }
}

#[test]
fn many_seeds_end_with_a_summary_and_failures_say_how_to_repeat_them() {
    let report = run_alone(&["simulate", "--seeds", "0..3", "-o", "json"]).ok();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["seeds"], &report["failed"]),
        (&3.into(), &serde_json::json!([]))
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("unmet.yaml");
    let good = std::fs::read_to_string(manifests().join("scenarios/lost-rack.yaml")).unwrap();
    std::fs::write(&file, unmet(&good)).unwrap();
    let file = file.to_str().unwrap();
    let ran = run_alone(&["simulate", "-f", file, "--seeds", "7..9"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let command = format!("simulate --scenario {file} --seed 7");
    assert!(
        ran.out.contains(&command) && ran.out.contains("seeds with violations: 7 8"),
        "{ran:?}"
    );
}
