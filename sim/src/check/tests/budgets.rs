//! Evictions beyond a disruption budget are noticed.

use serde_json::json;
use setpoint_apis::Key;

use super::super::known::STALE;
use super::{Told, object, of_pods, pod_spec};

/// Three pods of which two have to be healthy, for long.
fn three() -> Told {
    let mut told = Told::new();
    for node in ["n1", "n2"] {
        told.node(node);
    }
    let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    told.user("poddisruptionbudgets", "web", spec);
    let db = told.user("statefulsets", "db", of_pods(json!({"replicas": 3})));
    for name in ["db-0", "db-1", "db-2"] {
        told.labelled(name, pod_spec(), ("StatefulSet", &db));
        told.runs(name, "Running");
    }
    told.millis += STALE;
    // Only so many are kept, of what is wrong with writes of which nobody led.
    told.checks.violations.clear();
    told
}

/// A pod is asked to be evicted, and is.
fn evict(told: &mut Told, name: &str, ignore_budgets: bool) {
    let key = Key::Intent {
        verb: "evict",
        pod: object(name),
        by: "user",
    };
    told.write("user", &key, Some(json!({"ignoreBudgets": ignore_budgets})));
    // Both in one transaction.
    told.write("controllers-0#1", &key, None);
    told.revision -= 1;
    told.withdraw(name);
}

#[test]
fn pods_that_are_evicted_though_too_few_are_left_are_noticed() {
    let mut told = three();
    evict(&mut told, "db-0", false);
    assert_eq!(told.found("disruption budget"), [""; 0]);
    // It has not come back.
    evict(&mut told, "db-1", false);
    told.breaks("disruption budget", 1);

    let mut told = three();
    evict(&mut told, "db-0", false);
    told.runs_on("n2", "db-0", "Running");
    evict(&mut told, "db-1", false);
    assert_eq!(told.found("disruption budget"), [""; 0]);
}

#[test]
fn who_asks_to_ignore_budgets_and_a_budget_that_has_just_been_changed_are_no_breach() {
    let mut told = three();
    evict(&mut told, "db-0", false);
    evict(&mut told, "db-1", true);
    assert_eq!(told.found("disruption budget"), [""; 0]);

    let mut told = three();
    let spec = json!({"maxUnavailable": 0, "selector": {"matchLabels": {"app": "web"}}});
    told.user("poddisruptionbudgets", "web", spec);
    evict(&mut told, "db-0", false);
    assert_eq!(told.found("disruption budget"), [""; 0]);
    told.millis += STALE;
    evict(&mut told, "db-1", false);
    told.breaks("disruption budget", 1);
}
