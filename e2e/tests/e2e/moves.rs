//! A pod is moved between machines while it serves.

use setpoint_apis::document;
use setpoint_apis::records::{Binding, PodActual};
use setpoint_e2e::Cluster;

/// It is ready a while after it has started, and by what it did itself on its node.
const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: host
    workingDir: WORKDIR
    command: [sh, -c, 'echo on "$NODE"; sleep 1; touch "$NODE"; exec sleep 1000']
    env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
    readinessProbe: {exec: {command: [sh, -c, 'test -e "$NODE"']}, periodSeconds: 1}
"#;

/// What etcd had under a key at a revision.
fn at(cluster: &Cluster, key: &str, revision: i64) -> String {
    let revision = format!("--rev={revision}");
    cluster.etcdctl(&["get", "--print-value-only", &revision, key])
}

#[test]
fn a_pod_is_moved_without_a_moment_in_which_it_is_not_ready() {
    let cluster = Cluster::start(2, 131);
    let manifest = WEB.replace("WORKDIR", &cluster.dir().to_string_lossy());
    cluster.apply(&manifest);
    let before = cluster.ready_pods("app=web", 1).remove(0);
    let from = before["spec"]["nodeName"].as_str().unwrap().to_owned();
    let to = if from == "n1" { "n2" } else { "n1" };
    let begun = cluster.revision();

    let said = cluster
        .setpoint(["move", "pod/web", "--to", to, "--timeout", "90s", "--wait"])
        .ok();
    assert!(
        said.contains(&format!("pod/web moved from {from} to {to}")),
        "{said}"
    );
    let done = cluster.revision();
    let after = cluster.ready_pods("app=web", 1).remove(0);
    assert_eq!(after["spec"]["nodeName"], to);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(
        cluster.setpoint(["logs", "web"]).ok().trim(),
        format!("on {to}")
    );
    for revision in begun..=done {
        let binding = at(&cluster, "/setpoint/bindings/default/web", revision);
        let binding: Binding = document::decode_value(binding.as_bytes()).unwrap();
        let record = format!("/setpoint/actual/nodes/{}/pods/default/web", binding.node);
        let record = at(&cluster, &record, revision);
        let actual: PodActual = document::decode_value(record.as_bytes()).unwrap();
        assert!(
            actual.is_ready() && actual.placement == binding.placement,
            "at revision {revision}, on {}:\n{record}",
            binding.node
        );
    }
    // It has stopped where it was.
    let former = format!("/setpoint/actual/nodes/{from}/pods/default/web");
    cluster.eventually("it has stopped where it was", || {
        match cluster.etcdctl(&["get", "--print-value-only", &former]) {
            text if text.trim().is_empty() => Ok(()),
            text => Err(text),
        }
    });
    let why = cluster.setpoint(["why", "pod/web"]).ok();
    assert!(why.contains(&format!("from {from} to {to}")), "{why}");
    // Events are collected for a moment before they are written.
    cluster.eventually("the move is told", || {
        let described = cluster.setpoint(["describe", "pod", "web"]).ok();
        let mut words = ["Last Move", "Moving", "Moved"].iter();
        match words.find(|words| !described.contains(**words)) {
            None => Ok(()),
            Some(words) => Err(format!("no {words}:\n{described}")),
        }
    });
    // Nothing more happens by itself.
    assert_eq!(cluster.ready_pods("app=web", 1)[0]["spec"]["nodeName"], to);
}
