//! A node is drained while what runs there serves.

use std::collections::BTreeMap;

use setpoint_apis::records::{Binding, PodActual};
use setpoint_apis::{Key, Keyspace, ObjectKey, document};
use setpoint_e2e::Cluster;
use setpoint_store::{ConnectOptions, EtcdStore, RangeRequest, Revision, Store};

/// Pods that are ready a while after they have started, of which one may be down; and what belongs on every node. The while
/// is one in which a drain on a busy machine looks at its budget.
const APP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: host
        command: [sh, -c, 'sleep 0.3; echo ready; exec sleep 86400']
        readinessProbe: {exec: {command: ["true"]}, initialDelaySeconds: 3, periodSeconds: 1}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: logs}
spec:
  selector: {matchLabels: {app: logs}}
  template:
    metadata: {labels: {app: logs}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: host, command: [sleep, "86400"]}]
"#;

/// How many pods of the Deployment were ready where they were bound, at each revision of a stretch.
async fn ready_over(endpoint: &str, from: i64, to: i64) -> BTreeMap<i64, usize> {
    let store = EtcdStore::connect(&ConnectOptions::new([endpoint]))
        .await
        .expect("a connection");
    let keyspace = Keyspace::default();
    let mut ready = BTreeMap::new();
    for revision in from..=to {
        let range = |range: setpoint_apis::KeyRange| RangeRequest {
            start: range.start,
            end: range.end,
            revision: Some(Revision(revision)),
            ..RangeRequest::default()
        };
        let bindings = range(keyspace.binding_range(Some("default")));
        let bindings = store.range(bindings).await.expect("the bindings").kvs;
        let reports = range(keyspace.node_actual_range(None));
        let reports = store.range(reports).await.expect("the reports").kvs;
        let report = |node: &str, pod: &ObjectKey| -> Option<PodActual> {
            let key = keyspace.build(&Key::NodePod(node, pod.clone()));
            let kv = reports.iter().find(|kv| kv.key == key)?;
            document::decode_value(&kv.value).ok()
        };
        let serves = bindings.iter().filter(|kv| {
            let Ok(Key::Binding(pod)) = keyspace.split(&kv.key) else {
                return false;
            };
            let binding: Binding = document::decode_value(&kv.value).expect("a binding");
            pod.name.starts_with("web-")
                && binding.withdrawn.is_none()
                && report(&binding.node, &pod)
                    .is_some_and(|r| r.is_ready() && r.placement == binding.placement)
        });
        ready.insert(revision, serves.count());
    }
    ready
}

#[test]
fn a_node_is_drained_within_the_budget_at_every_moment() {
    let cluster = Cluster::start(3, 133);
    cluster.apply(APP);
    let pods = cluster.ready_pods("app=web", 4);
    cluster.ready_pods("app=logs", 3);
    let node_of = |pod: &serde_json::Value| pod["spec"]["nodeName"].as_str().unwrap().to_owned();
    // One with as many as any: more than the budget lets go at once.
    let mut on: BTreeMap<String, usize> = BTreeMap::new();
    for pod in &pods {
        *on.entry(node_of(pod)).or_default() += 1;
    }
    let (node, most) = on.into_iter().max_by_key(|(_, n)| *n).unwrap();
    assert!(most >= 2, "{}", cluster.pods_table());
    let uids = |pods: &[serde_json::Value]| {
        let mut uids: Vec<_> = pods
            .iter()
            .map(|p| p["metadata"]["uid"].to_string())
            .collect();
        uids.sort();
        uids
    };
    let before = uids(&pods);

    let refused = cluster.setpoint(["drain", &node]).refused();
    assert!(refused.contains("--ignore-daemonsets"), "{refused}");
    let begun = cluster.revision();
    let said = cluster
        .setpoint([
            "drain",
            &node,
            "--ignore-daemonsets",
            "--timeout",
            "80s",
            "--reason",
            "new kernel",
        ])
        .ok();
    let done = cluster.revision();
    assert!(said.contains(&format!("node/{node} drained")), "{said}");
    assert!(
        said.contains("waits: the disruption budget web allows no disruption now"),
        "{said}"
    );
    // The same pods, elsewhere; what belongs on every node is where it was.
    let after = cluster.ready_pods("app=web", 4);
    assert_eq!(uids(&after), before);
    assert!(
        after.iter().all(|pod| node_of(pod) != node),
        "{}",
        cluster.pods_table()
    );
    let logs = cluster.ready_pods("app=logs", 3);
    assert!(logs.iter().any(|pod| node_of(pod) == node));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let ready = runtime.block_on(ready_over(cluster.endpoint(), begun, done));
    let fewest = ready.values().min().copied();
    assert_eq!(fewest, Some(3), "{ready:?}");

    // Nothing is left to do; and the node takes pods again.
    let again = cluster
        .setpoint(["drain", &node, "--ignore-daemonsets"])
        .ok();
    assert!(again.contains("drained"), "{again}");
    cluster.setpoint(["uncordon", &node]).ok();
    cluster
        .setpoint(["scale", "deployment/web", "--replicas=12"])
        .ok();
    let pods = cluster.ready_pods("app=web", 12);
    assert!(
        pods.iter().any(|pod| node_of(pod) == node),
        "{}",
        cluster.pods_table()
    );
}
