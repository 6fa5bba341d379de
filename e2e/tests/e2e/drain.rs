//! A node is drained while what runs there serves.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Duration;

use setpoint_apis::records::{Binding, PodActual};
use setpoint_apis::{Key, Keyspace, ObjectKey, document};
use setpoint_e2e::{Cluster, Started};
use setpoint_store::{ConnectOptions, EtcdStore, RangeRequest, Revision, Store};

/// Pods of which one may be down; and what belongs on every node. A pod that starts while there is a file `HOLD` becomes
/// ready only when that is gone.
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
        workingDir: WORKDIR
        command: [sh, -c, 'while test -e HOLD; do sleep 0.1; done; touch "$POD.$NODE"; exec sleep 86400']
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        readinessProbe: {exec: {command: [sh, -c, 'test -e "$POD.$NODE"']}, periodSeconds: 1, timeoutSeconds: 20}
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
    let options = ConnectOptions {
        request_timeout: Duration::from_secs(60),
        ..ConnectOptions::new([endpoint])
    };
    let store = EtcdStore::connect(&options).await.expect("a connection");
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
    let dir = cluster.dir().to_string_lossy();
    cluster.apply(&APP.replace("WORKDIR", &dir));
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
    let (hold, log) = (cluster.dir().join("HOLD"), cluster.dir().join("drain.log"));
    fs::write(&hold, "").expect("a file");
    let drain = cluster
        .command()
        .args(["drain", &node, "--ignore-daemonsets", "--timeout", "10m"])
        .args(["--reason", "new kernel"])
        .stdout(File::create(&log).expect("a file"))
        .spawn()
        .expect("setpoint drain starts");
    let mut drain = Started(drain);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    // Where the first one has gone it is not ready yet.
    let waits = "waits: the disruption budget web allows no disruption now";
    cluster.eventually("the drain waits and says for what", || {
        let ended = drain.0.try_wait().expect("a child can be asked");
        match said() {
            said if said.contains(waits) => Ok(()),
            said => Err(format!("{said}\n{ended:?}")),
        }
    });
    fs::remove_file(&hold).expect("the file is there");
    cluster.eventually("the drain ends", || {
        match drain.0.try_wait().expect("a child can be asked") {
            Some(status) if status.success() => Ok(()),
            status => Err(format!("{}\n{status:?}", said())),
        }
    });
    let done = cluster.revision();
    let said = said();
    assert!(said.contains(&format!("node/{node} drained")), "{said}");
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
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: there}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         affinity:\n    nodeAffinity:\n      requiredDuringSchedulingIgnoredDuringExecution:\n        nodeSelectorTerms:\n        \
         - matchFields: [{{key: metadata.name, operator: In, values: [{node}]}}]\n  \
         containers: [{{name: main, image: host, command: [sleep, '86400']}}]\n"
    ));
    cluster.pod_in_phase("there", "Running");
}
