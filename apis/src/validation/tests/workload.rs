//! The rules of StatefulSets, DaemonSets and ControllerRevisions, and of what Deployments share with them.

use super::check;
use crate::apps::{ControllerRevision, DaemonSet, Deployment, StatefulSet};

const STATEFUL_SET: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 3
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: a, image: host, volumeMounts: [{name: data, mountPath: /d}]}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

#[test]
fn stateful_sets_are_held_to_their_rules() {
    check::<StatefulSet>(
        STATEFUL_SET,
        &[
            ("name: db", "name: d.b", "metadata.name: \"d.b\""),
            (
                "{app: db}}\n  template",
                "{app: x}}\n  template",
                "spec.template.metadata.labels: the selector",
            ),
            ("replicas: 3", "replicas: -1", "spec.replicas: -1"),
            (
                "replicas: 3",
                "ordinals: {start: -1}",
                "spec.ordinals.start: -1",
            ),
            (
                "replicas: 3",
                "ordinals: {start: 2147483647}",
                "spec.ordinals.start: 2147483648 is too large",
            ),
            (
                "replicas: 3",
                "updateStrategy: {rollingUpdate: {partition: -1}}",
                "spec.updateStrategy.rollingUpdate.partition: -1",
            ),
            (
                "replicas: 3",
                "updateStrategy: {rollingUpdate: {maxUnavailable: 0%}}",
                "spec.updateStrategy.rollingUpdate.maxUnavailable: must not be 0",
            ),
            (
                "replicas: 3",
                "updateStrategy: {rollingUpdate: {maxUnavailable: 101%}}",
                "spec.updateStrategy.rollingUpdate.maxUnavailable: 101% is more than 100%",
            ),
            (
                "replicas: 3",
                "updateStrategy: {type: OnDelete, rollingUpdate: {}}",
                "spec.updateStrategy.rollingUpdate: has no meaning",
            ),
            (
                "{name: db}\nspec",
                "{name: db, annotations: {setpoint.dev/progress-deadline-seconds: '-1'}}\nspec",
                "metadata.annotations[\"setpoint.dev/progress-deadline-seconds\"]: -1 is too small",
            ),
            (
                "{name: data, mountPath",
                "{name: other, mountPath",
                "spec.template.spec.containers[0].volumeMounts[0].name",
            ),
            (
                "{name: data}",
                "{name: ''}",
                "spec.volumeClaimTemplates[0].metadata.name",
            ),
            (
                "storage: 1Gi",
                "storage: 0",
                "spec.volumeClaimTemplates[0].spec.resources.requests.storage",
            ),
            (
                "{containers",
                "{restartPolicy: Never, containers",
                "spec.template.spec.restartPolicy",
            ),
            (
                "{name: db}",
                "{name: db, annotations: {setpoint.dev/rollback-on-failure: maybe}}",
                "metadata.annotations[\"setpoint.dev/rollback-on-failure\"]: \"maybe\" is not one of true, false",
            ),
        ],
    );
}

const DAEMON_SET: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  minReadySeconds: 1
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec: {containers: [{name: a, image: host}]}
";

#[test]
fn daemon_sets_are_held_to_their_rules() {
    let rolling = |fields: &str| format!("updateStrategy: {{rollingUpdate: {{{fields}}}}}");
    let (nothing, both, much) = (
        rolling("maxUnavailable: 0"),
        rolling("maxSurge: 1"),
        rolling("maxUnavailable: 0, maxSurge: 150%"),
    );
    let path = "spec.updateStrategy.rollingUpdate";
    let (moves, one, most) = (
        format!("{path}.maxUnavailable: must not be 0 when maxSurge is 0"),
        format!("{path}.maxSurge: must be 0 unless"),
        format!("{path}.maxSurge: 150% is more than 100%"),
    );
    check::<DaemonSet>(
        DAEMON_SET,
        &[
            ("minReadySeconds: 1", &nothing, &moves),
            // Without being said, maxUnavailable is 1.
            ("minReadySeconds: 1", &both, &one),
            ("minReadySeconds: 1", &much, &most),
            (
                "minReadySeconds: 1",
                "minReadySeconds: -1",
                "spec.minReadySeconds: -1",
            ),
            (
                "{matchLabels: {app: log}}",
                "{}",
                "spec.selector: must not be empty",
            ),
            (
                "{name: log}",
                "{name: log, annotations: {setpoint.dev/progress-deadline-seconds: '1'}}",
                "metadata.annotations[\"setpoint.dev/progress-deadline-seconds\"]: 1 must be more than minReadySeconds, 1",
            ),
            (
                "{name: log}",
                "{name: log, annotations: {setpoint.dev/progress-deadline-seconds: '0'}}",
                "metadata.annotations[\"setpoint.dev/progress-deadline-seconds\"]: 0 is too small",
            ),
            (
                "{name: log}",
                "{name: log, annotations: {setpoint.dev/progress-deadline-seconds: 10m}}",
                "metadata.annotations[\"setpoint.dev/progress-deadline-seconds\"]: \"10m\" is not a number of seconds",
            ),
            (
                "metadata: {labels: {app: log}}",
                "metadata: {labels: {app: log}, annotations: {controller.kubernetes.io/pod-deletion-cost: '1.5'}}",
                "spec.template.metadata.annotations[\"controller.kubernetes.io/pod-deletion-cost\"]: \"1.5\"",
            ),
            (
                "metadata: {labels: {app: log}}",
                "metadata: {labels: {app: log}, annotations: {controller.kubernetes.io/pod-deletion-cost: '07'}}",
                "spec.template.metadata.annotations[\"controller.kubernetes.io/pod-deletion-cost\"]: \"07\"",
            ),
            (
                "metadata: {labels: {app: log}}",
                "metadata: {labels: {app: log}, annotations: {setpoint.dev/partition-policy: never}}",
                "spec.template.metadata.annotations[\"setpoint.dev/partition-policy\"]: \"never\" is not one of",
            ),
            (
                "{name: log}",
                "{name: log, annotations: {setpoint.dev/config-rollout: 'no'}}",
                "metadata.annotations[\"setpoint.dev/config-rollout\"]",
            ),
        ],
    );
}

#[test]
fn annotations_about_rollouts_are_true_or_false() {
    let manifest = super::DEPLOYMENT.replace(
        "{name: web}",
        "{name: web, annotations: {setpoint.dev/config-rollout: 'false', setpoint.dev/rollback-on-failure: 'true'}}",
    );
    check::<Deployment>(
        &manifest,
        &[(
            "'true'",
            "'True'",
            "metadata.annotations[\"setpoint.dev/rollback-on-failure\"]",
        )],
    );
}

#[test]
fn percentages_of_deployments_end_at_a_hundred_where_pods_go_missing() {
    let with = |fields: &str| {
        super::DEPLOYMENT.replace(
            "replicas: 3",
            &format!("strategy: {{rollingUpdate: {{{fields}}}}}"),
        )
    };
    check::<Deployment>(
        &with("maxSurge: 150%, maxUnavailable: 100%"),
        &[(
            "maxUnavailable: 100%",
            "maxUnavailable: 101%",
            "spec.strategy.rollingUpdate.maxUnavailable: 101% is more than 100%",
        )],
    );
}

#[test]
fn revisions_have_a_number_and_data() {
    check::<ControllerRevision>(
        "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: a}, revision: 1, data: {spec: {}}}",
        &[
            ("revision: 1", "revision: -1", "revision: -1"),
            ("data: {spec: {}}", "data: null", "data: is missing"),
        ],
    );
}
