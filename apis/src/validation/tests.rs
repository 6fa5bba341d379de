mod batch;
mod immutable;
mod placing;
mod scaling;
mod workload;

use crate::apps::{Deployment, StatefulSet};
use crate::core::{Pod, Service};
use crate::kind::Kind;

fn findings<K: Kind>(yaml: &str) -> Vec<String> {
    let mut k: K = serde_yaml::from_str(yaml).unwrap();
    k.apply_defaults();
    k.validate().iter().map(ToString::to_string).collect()
}

/// Every change of the manifest has a finding that begins with this.
fn check<K: Kind>(manifest: &str, changes: &[(&str, &str, &str)]) {
    assert_eq!(findings::<K>(manifest), Vec::<String>::new());
    for (from, to, path) in changes {
        let yaml = manifest.replacen(from, to, 1);
        assert_ne!(yaml, manifest, "{from}");
        let found = findings::<K>(&yaml);
        assert!(found.iter().any(|f| f.starts_with(path)), "{to}: {found:?}");
    }
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: a
    image: host
    ports: [{name: http, containerPort: 80}]
    readinessProbe: {httpGet: {port: http}}
    volumeMounts: [{name: v, mountPath: /v}]
  volumes: [{name: v, emptyDir: {}}]
";

#[test]
fn an_ordinary_pod_has_no_findings() {
    assert_eq!(findings::<Pod>(POD), Vec::<String>::new());
}

#[test]
fn every_mistake_is_found_at_its_path() {
    for (from, to, path) in [
        ("name: web", "name: a/b", "metadata.name: \"a/b\""),
        ("name: web", "name: '..'", "metadata.name: \"..\""),
        ("name: web", "name: ''", "metadata.name: an object"),
        (
            "name: web",
            "name: w, labels: {a b: c}",
            "metadata.labels[\"a b\"]: ",
        ),
        ("image: host", "image: ''", "spec.containers[0].image: "),
        (
            "containerPort: 80",
            "containerPort: 65536",
            "spec.containers[0].ports[0].containerPort: 65536",
        ),
        (
            "port: http",
            "port: admin",
            "spec.containers[0].readinessProbe.httpGet.port: the container has no port",
        ),
        (
            "{port: http}}",
            "{port: 0}}",
            "spec.containers[0].readinessProbe.httpGet.port: 0",
        ),
        (
            "{httpGet: {port: http}}",
            "{}",
            "spec.containers[0].readinessProbe: needs one of exec",
        ),
        (
            "{port: http}}",
            "{port: 80}, tcpSocket: {port: 80}}",
            "spec.containers[0].readinessProbe.tcpSocket: only one",
        ),
        (
            "{port: http}}",
            "{port: 80}, periodSeconds: 0}",
            "spec.containers[0].readinessProbe.periodSeconds: 0",
        ),
        (
            "volumeMounts: [{name: v,",
            "volumeMounts: [{name: w,",
            "spec.containers[0].volumeMounts[0].name: the pod has no",
        ),
        (
            "emptyDir: {}",
            "emptyDir: {}, secret: {secretName: s}",
            "spec.volumes[0].secret: only one",
        ),
        (
            ", emptyDir: {}",
            "",
            "spec.volumes[0]: needs one of emptyDir",
        ),
        (
            "image: host",
            "image: host\n    resources: {requests: {cpu: 2}, limits: {cpu: 1}}",
            "spec.containers[0].resources.requests.cpu: 2 is more",
        ),
        (
            "image: host",
            "image: host\n    env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.x}}}]",
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: ",
        ),
        (
            "  volumes:",
            "  - {name: a, image: host}\n  volumes:",
            "spec.containers[1].name: another container",
        ),
        (
            "  volumes:",
            "  terminationGracePeriodSeconds: -1\n  volumes:",
            "spec.terminationGracePeriodSeconds: -1",
        ),
        (
            "  volumes:",
            "  terminationGracePeriodSeconds: 9223372036854775807\n  volumes:",
            "spec.terminationGracePeriodSeconds: 9223372036854775807 is too large",
        ),
        (
            "  volumes:",
            "  activeDeadlineSeconds: 2147483648\n  volumes:",
            "spec.activeDeadlineSeconds: 2147483648 is too large",
        ),
        (
            "  volumes:",
            "  tolerations: [{operator: Equal}]\n  volumes:",
            "spec.tolerations[0].operator: ",
        ),
    ] {
        let yaml = POD.replacen(from, to, 1);
        assert_ne!(yaml, POD, "{from}");
        let found = findings::<Pod>(&yaml);
        assert!(found.iter().any(|f| f.starts_with(path)), "{to}: {found:?}");
    }
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: a, image: host}]}
";

#[test]
fn deployments_must_select_their_own_pods() {
    assert_eq!(findings::<Deployment>(DEPLOYMENT), Vec::<String>::new());
    for (from, to, path) in [
        (
            "labels: {app: web}",
            "labels: {app: other}",
            "spec.template.metadata.labels: the selector (app=web)",
        ),
        (
            "{matchLabels: {app: web}}",
            "{}",
            "spec.selector: must not be empty",
        ),
        ("replicas: 3", "replicas: -1", "spec.replicas: -1"),
        (
            "{containers",
            "{restartPolicy: Never, containers",
            "spec.template.spec.restartPolicy",
        ),
        (
            "replicas: 3",
            "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}",
            "spec.strategy.rollingUpdate.maxUnavailable: must not be 0",
        ),
        (
            "replicas: 3",
            "strategy: {rollingUpdate: {maxSurge: x}}",
            "spec.strategy.rollingUpdate.maxSurge: ",
        ),
        (
            "replicas: 3",
            "strategy: {type: Recreate, rollingUpdate: {}}",
            "spec.strategy.rollingUpdate: has no meaning",
        ),
    ] {
        let found = findings::<Deployment>(&DEPLOYMENT.replacen(from, to, 1));
        assert!(found.iter().any(|f| f.starts_with(path)), "{to}: {found:?}");
    }
}

#[test]
fn services_need_names_for_several_ports() {
    let yaml = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}, {port: 81}]}}";
    assert_eq!(findings::<Service>(yaml).len(), 2);
}

#[test]
fn the_pods_of_a_stateful_set_can_be_host_names() {
    let found = |letters: usize, replicas: i32| {
        let name = "a".repeat(letters);
        findings::<StatefulSet>(&format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: a}}}}\n  template:\n    metadata: {{labels: {{app: a}}}}\n    \
             spec: {{containers: [{{name: c, image: host}}]}}\n"
        ))
    };
    assert_eq!(found(61, 10), Vec::<String>::new(), "-9 is the last");
    let too_long = found(61, 11);
    assert!(
        too_long[0].starts_with("metadata.name: is too long: pod "),
        "{too_long:?}"
    );
    assert_eq!(found(61, 0), Vec::<String>::new());
    assert_eq!(
        found(64, 11).len(),
        1,
        "what is wrong with the name alone is told once"
    );
}
