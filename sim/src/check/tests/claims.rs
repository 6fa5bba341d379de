//! Pods away from their data, and data that is given up though its claim is there, are noticed.

use serde_json::{Value, json};
use setpoint_apis::Key;

use super::{Told, object, of_pods, pod_spec};

/// A claim whose directory is on n1, and a pod that uses it.
fn claimed() -> (Told, String) {
    let mut told = Told::new();
    for node in ["n1", "n2"] {
        told.node(node);
    }
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
    let uid = told.user("persistentvolumeclaims", "data", spec);
    let mut spec = pod_spec();
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    told.user("pods", "db", spec);
    is_on(&mut told, "n1", &uid);
    told.runs_on("n1", "db", "Running");
    assert_eq!(told.found("claim of data"), [""; 0]);
    told.checks.violations.clear();
    (told, uid)
}

fn is_on(told: &mut Told, node: &str, uid: &str) {
    told.status(
        "persistentvolumeclaims",
        "data",
        json!({"node": node, "uid": uid}),
    );
}

fn user_deletes(told: &mut Told) {
    let key = Key::Desired("persistentvolumeclaims", object("data"));
    told.write("user", &key, None);
}

fn give_up(told: &mut Told, uid: &str) {
    let key = Key::WorkTombstone("n1", uid);
    let tombstone: Value = json!({"namespace": "default", "name": "data", "uid": uid});
    told.write("controllers-0#1", &key, Some(tombstone));
}

#[test]
fn a_pod_that_is_bound_away_from_its_data_is_noticed_and_one_whose_claim_is_new_is_not() {
    let (mut told, _) = claimed();
    told.runs_on("n2", "db", "Running");
    told.breaks("claim of data", 1);

    let (mut told, _) = claimed();
    user_deletes(&mut told);
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
    told.user("persistentvolumeclaims", "data", spec);
    told.runs_on("n2", "db", "Running");
    told.breaks("claim of data", 0);
}

#[test]
fn a_claim_that_is_said_to_be_elsewhere_or_forgotten_is_noticed_unless_its_node_is_gone() {
    let (mut told, uid) = claimed();
    is_on(&mut told, "n2", &uid);
    told.breaks("claim of data", 1);

    let status = Key::Actual("persistentvolumeclaims", object("data"));
    let (mut told, _) = claimed();
    told.write("controllers-0#1", &status, None);
    told.breaks("claim of data", 1);

    let (mut told, uid) = claimed();
    let node = Key::Desired("nodes", setpoint_apis::ObjectKey::cluster("n1"));
    told.write("user", &node, None);
    is_on(&mut told, "n2", &uid);
    told.breaks("claim of data", 0);
}

#[test]
fn a_claim_that_goes_with_a_pod_that_is_still_wanted_is_noticed() {
    for (policy, breaches) in [("Delete", 3), ("Retain", 4)] {
        let mut told = Told::new();
        let kept = json!({"whenScaled": policy});
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
        let claims = json!([{"metadata": {"name": "data"}, "spec": spec}]);
        let spec = json!({
            "replicas": 2,
            "persistentVolumeClaimRetentionPolicy": kept,
            "volumeClaimTemplates": claims,
        });
        told.user("statefulsets", "db", of_pods(spec));
        told.delete("persistentvolumeclaims", "data-db-2");
        told.delete("persistentvolumeclaims", "data-db-1");
        // Of another set, and of no template.
        told.delete("persistentvolumeclaims", "data-x-db-2");
        told.delete("persistentvolumeclaims", "logs-db-2");
        told.breaks("claim of data", breaches);
    }
}

#[test]
fn data_that_is_given_up_though_its_claim_is_there_is_noticed() {
    let (mut told, uid) = claimed();
    give_up(&mut told, &uid);
    told.breaks("claim of data", 1);

    // Its node was removed for good, and it has begun anew elsewhere.
    let (mut told, uid) = claimed();
    let node = Key::Desired("nodes", setpoint_apis::ObjectKey::cluster("n1"));
    told.write("user", &node, None);
    is_on(&mut told, "n2", &uid);
    give_up(&mut told, &uid);
    told.breaks("claim of data", 0);

    let (mut told, uid) = claimed();
    user_deletes(&mut told);
    give_up(&mut told, &uid);
    told.breaks("claim of data", 0);
}
