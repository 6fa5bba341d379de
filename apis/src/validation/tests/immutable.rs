//! What may change of an object that is there, and what may not.

use crate::apps::{ControllerRevision, StatefulSet};
use crate::batch::Job;
use crate::kind::Kind;

/// What of the change of a manifest is refused.
fn changes<K: Kind>(manifest: &str, from: &str, to: &str) -> Vec<String> {
    let read = |yaml: &str| {
        let mut object: K = serde_yaml::from_str(yaml).unwrap();
        object.apply_defaults();
        object
    };
    let changed = manifest.replace(from, to);
    assert_ne!(changed, manifest, "{from}");
    let found = read(manifest).immutable_changes(&read(&changed));
    found.iter().map(|f| f.path.clone()).collect()
}

#[test]
fn of_a_stateful_set_seven_fields_may_change() {
    let manifest = "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a}, spec: {replicas: 1, serviceName: s, \
                    podManagementPolicy: Parallel, ordinals: {start: 0}, minReadySeconds: 1, revisionHistoryLimit: 1, \
                    updateStrategy: {type: OnDelete}, persistentVolumeClaimRetentionPolicy: {whenScaled: Retain}, \
                    selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a, v: '1'}}, spec: {containers: []}}, \
                    volumeClaimTemplates: [{metadata: {name: d}, spec: {}}]}}";
    for (from, to) in [
        ("replicas: 1", "replicas: 2"),
        ("start: 0", "start: 5"),
        ("v: '1'", "v: '2'"),
        ("OnDelete", "RollingUpdate"),
        ("whenScaled: Retain", "whenScaled: Delete"),
        ("minReadySeconds: 1", "minReadySeconds: 2"),
        ("revisionHistoryLimit: 1", "revisionHistoryLimit: 2"),
        // What a claim template is, and what is the default, need not be said.
        (
            "{metadata: {name: d}",
            "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: d}",
        ),
        (
            "{name: d}, spec: {}",
            "{name: d}, spec: {volumeMode: Filesystem}",
        ),
    ] {
        assert_eq!(
            changes::<StatefulSet>(manifest, from, to),
            Vec::<String>::new(),
            "{to}"
        );
    }
    for (from, to, path) in [
        ("serviceName: s", "serviceName: t", "spec.serviceName"),
        ("Parallel", "OrderedReady", "spec.podManagementPolicy"),
        (
            "matchLabels: {app: a}",
            "matchLabels: {app: b}",
            "spec.selector",
        ),
        ("{name: d}", "{name: e}", "spec.volumeClaimTemplates"),
    ] {
        assert_eq!(changes::<StatefulSet>(manifest, from, to), [path], "{to}");
    }
}

#[test]
fn of_a_job_how_pods_are_made_and_counted_stays() {
    let manifest = "{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {completionMode: Indexed, completions: 3, \
                    parallelism: 3, suspend: false, backoffLimitPerIndex: 1, \
                    template: {metadata: {labels: {v: '1'}}, spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}}";
    let fine = Vec::<String>::new();
    let more = "completions: 4, parallelism: 4";
    let both = "completions: 3, parallelism: 3";
    for (from, to, wanted) in [
        ("parallelism: 3", "parallelism: 9", vec![]),
        ("suspend: false", "suspend: true", vec![]),
        (both, more, vec![]),
        ("completions: 3", "completions: 4", vec!["spec.completions"]),
        ("Indexed", "NonIndexed", vec!["spec.completionMode"]),
        (
            "backoffLimitPerIndex: 1",
            "backoffLimitPerIndex: 2",
            vec!["spec.backoffLimitPerIndex"],
        ),
        ("image: x", "image: y", vec!["spec.template"]),
        ("v: '1'", "v: '2'", vec!["spec.template"]),
    ] {
        assert_eq!(changes::<Job>(manifest, from, to), wanted, "{to}");
    }
    let plain = manifest.replace("completionMode: Indexed, ", "");
    assert_eq!(changes::<Job>(&plain, both, more), ["spec.completions"]);
    // While it is suspended, where its pods run may change, and what they are may not.
    let suspended = manifest.replace("suspend: false", "suspend: true");
    for to in [
        "nodeSelector: {a: b}",
        "tolerations: [{operator: Exists}]",
        "schedulingGates: [{name: g}]",
    ] {
        let to = format!("restartPolicy: Never, {to}");
        assert_eq!(
            changes::<Job>(&suspended, "restartPolicy: Never", &to),
            fine,
            "{to}"
        );
        assert_eq!(
            changes::<Job>(manifest, "restartPolicy: Never", &to),
            ["spec.template"]
        );
    }
    assert_eq!(
        changes::<Job>(&suspended, "image: x", "image: y"),
        ["spec.template"]
    );
}

#[test]
fn of_a_revision_the_number_may_change_and_the_data_may_not() {
    let manifest = "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: a}, revision: 1, data: {a: 1}}";
    assert_eq!(
        changes::<ControllerRevision>(manifest, "revision: 1", "revision: 2"),
        Vec::<String>::new()
    );
    assert_eq!(
        changes::<ControllerRevision>(manifest, "a: 1", "a: 2"),
        ["data"]
    );
}
