//! Nodes that die, and nodes that come back.

use std::time::Instant;

use setpoint_e2e::Cluster;

const WEB: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 4\n  selector: {matchLabels: {app: web}}\n  \
                   template:\n    metadata: {labels: {app: web}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        \
                   image: host\n        command: [sleep, '86400']\n";

#[test]
fn the_pods_of_a_dead_node_run_elsewhere_and_keep_their_names() {
    let cluster = Cluster::start_mortal(3, 104);
    cluster.apply(WEB);
    let before = cluster.ready_pods("app=web", 4);
    let names = |pods: &[serde_json::Value]| -> std::collections::BTreeSet<String> {
        pods.iter()
            .map(|p| p["metadata"]["name"].to_string())
            .collect()
    };
    let begin = Instant::now();
    let victim = before[0]["spec"]["nodeName"].as_str().unwrap();
    cluster.kill_node(victim);
    let after = cluster.eventually("all pods are ready on other nodes", || {
        let pods = cluster.ready_pods("app=web", 4);
        let elsewhere = pods.iter().all(|p| p["spec"]["nodeName"] != victim);
        if elsewhere {
            Ok(pods)
        } else {
            Err(cluster.pods_table())
        }
    });
    // The figure itself belongs to `setpoint bench startup`; minutes would be a failure.
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    assert_eq!(
        names(&before),
        names(&after),
        "a pod outlives its placement"
    );
    let node = cluster.setpoint(["get", "node", victim]).ok();
    assert!(
        node.contains("NotReady") || node.contains("Unreachable"),
        "{node}"
    );
}

#[test]
fn when_most_nodes_are_silent_nothing_is_moved_and_the_health_says_why() {
    let cluster = Cluster::start_mortal(3, 105);
    cluster.apply(WEB);
    let before = cluster.ready_pods("app=web", 4);
    cluster.kill_nodes(&["n1", "n2"]);
    // Their leases would expire one after the other, and how far apart is up to etcd. That who is about to follow is asked
    // before the first is given up is shown in `controllers/node-lifecycle`.
    let both = "\ndel /setpoint/actual/nodes/n1/alive\ndel /setpoint/actual/nodes/n2/alive\n\n\n";
    cluster.etcdctl_with(&["txn"], both);
    cluster.eventually("both are suspended", || {
        let text = cluster.etcdctl(&["get", "--prefix", "/setpoint/actual/health/"]);
        if text.matches("state: Suspended").count() == 2 {
            Ok(())
        } else {
            Err(text)
        }
    });
    let bindings = cluster.etcdctl(&["get", "--prefix", "--keys-only", "/setpoint/bindings/"]);
    assert_eq!(
        bindings.lines().filter(|l| !l.is_empty()).count(),
        before.len()
    );
    for pod in &before {
        let (name, node) = (
            pod["metadata"]["name"].as_str().unwrap(),
            pod["spec"]["nodeName"].as_str().unwrap(),
        );
        let binding = cluster.etcdctl(&[
            "get",
            "--print-value-only",
            &format!("/setpoint/bindings/default/{name}"),
        ]);
        assert!(
            binding.contains(&format!("node: {node}")),
            "{name}: {binding}"
        );
    }
    let described = cluster.setpoint(["describe", "node", "n1"]).ok();
    assert!(described.contains("silent"), "{described}");
}
