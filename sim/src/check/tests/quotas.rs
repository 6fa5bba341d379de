//! The checks of quotas and LimitRanges notice what they are there for.

use super::*;

fn put(told: &mut Told, plural: &'static str, kind: &str, spec: Value) {
    let value = json!({
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "all", "namespace": "default"},
        "spec": spec,
    });
    told.write("user", &Key::Desired(plural, object("all")), Some(value));
}

fn quota(told: &mut Told, hard: Value) {
    put(
        told,
        "resourcequotas",
        "ResourceQuota",
        json!({"hard": hard}),
    );
}

fn made(told: &mut Told, name: &str) {
    told.controller("pods", name, pod_spec(), ("ReplicaSet", "x"));
}

#[test]
fn a_pod_that_a_controller_makes_beyond_a_quota_is_noticed() {
    let mut told = Told::new();
    quota(&mut told, json!({"pods": "2", "count/pods": "3"}));
    for name in ["a", "b"] {
        made(&mut told, name);
    }
    // What has ended counts in `count/pods` alone.
    told.runs("b", "Succeeded");
    made(&mut told, "c");
    assert_eq!(told.found("quota"), [""; 0]);
    made(&mut told, "d");
    let found = told.found("quota");
    assert!(
        found[0].ends_with("makes 4 of them, quota default/all lets in 3 count/pods"),
        "{found:?}"
    );
    assert!(
        found[1].ends_with("makes 3 of them, quota default/all lets in 2 pods"),
        "{found:?}"
    );
    assert_eq!(found.len(), 2);
}

#[test]
fn what_a_quota_was_before_counts_for_a_while_and_no_longer() {
    let mut told = Told::new();
    quota(&mut told, json!({"pods": "2"}));
    made(&mut told, "a");
    quota(&mut told, json!({"pods": "1"}));
    told.millis += STALE - 100;
    made(&mut told, "b");
    assert_eq!(told.found("quota"), [""; 0]);
    told.delete("pods", "b");
    told.millis += 100;
    made(&mut told, "b");
    assert_eq!(told.found("quota").len(), 1);
    // More is let in at once.
    quota(&mut told, json!({"pods": "3"}));
    made(&mut told, "c");
    assert_eq!(told.found("quota").len(), 1);
}

#[test]
fn a_quota_that_comes_when_others_are_there_holds_after_a_while() {
    let mut told = Told::new();
    made(&mut told, "a");
    quota(&mut told, json!({"pods": "1"}));
    made(&mut told, "b");
    assert_eq!(told.found("quota"), [""; 0]);
    told.millis += STALE;
    made(&mut told, "c");
    assert_eq!(told.found("quota").len(), 1);
}

#[test]
fn a_pod_that_is_bound_beyond_what_a_quota_lets_pods_request_is_noticed() {
    let mut told = Told::new();
    quota(&mut told, json!({"requests.cpu": "500m"}));
    let mut spec = pod_spec();
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "500m"}});
    // What has ended takes nothing.
    for (name, stage, found) in [("a", "Failed", 0), ("b", "Running", 0), ("c", "Running", 1)] {
        told.user("pods", name, spec.clone());
        told.runs(name, stage);
        assert_eq!(told.found("quota").len(), found, "{name}");
    }
}

#[test]
fn a_pod_without_what_a_limit_range_gives_is_noticed() {
    let mut told = Told::new();
    let limits = json!([{"type": "Container", "defaultRequest": {"cpu": "100m"}}]);
    put(
        &mut told,
        "limitranges",
        "LimitRange",
        json!({"limits": limits}),
    );
    let mut spec = pod_spec();
    spec["containers"][0]["resources"] = json!({"requests": {"cpu": "20m"}});
    told.controller("pods", "a", spec, ("ReplicaSet", "x"));
    // What a user writes by hand goes through no door.
    told.user("pods", "b", pod_spec());
    assert_eq!(told.found("limit range"), [""; 0]);
    made(&mut told, "c");
    assert_eq!(told.found("limit range").len(), 1);
}
