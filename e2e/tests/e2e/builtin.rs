//! A cluster with nothing but the binary: its state is in the development store.

use setpoint_e2e::Cluster;

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: host
        command: [sh, -c, 'echo hello; exec sleep 86400']
";

#[test]
fn without_an_etcd_pods_run_all_the_same() {
    let cluster = Cluster::start_without_etcd(2, 141);
    assert!(cluster.has_devstore());
    let said = cluster.log("devstore");
    assert!(
        said.contains("development store: for development"),
        "{said}"
    );
    assert_eq!(
        cluster.apply(DEPLOYMENT).trim(),
        "deployment.apps/web created"
    );
    let pods = cluster.ready_pods("app=web", 3);
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    // It is ready as soon as its process exists, and that has something to say a little later.
    cluster.eventually("it has said something", || {
        let said = cluster.setpoint(["logs", name]);
        match said.stdout == "hello\n" {
            true => Ok(()),
            false => Err(format!("{said:?}")),
        }
    });
    // What a lost node leaves moves, so leases and fences work as they do in etcd.
    cluster.kill_node("n2");
    cluster.eventually("all pods are on the node that is left", || {
        let pods = cluster.pods("app=web");
        let moved = pods.iter().all(|p| p["spec"]["nodeName"] == "n1");
        if pods.len() == 3 && moved {
            Ok(())
        } else {
            Err(cluster.pods_table())
        }
    });
    cluster.ready_pods("app=web", 3);
    let keys = cluster.etcdctl(&[
        "get",
        "--prefix",
        "/setpoint/desired/deployments/",
        "--keys-only",
    ]);
    assert_eq!(keys.trim(), "/setpoint/desired/deployments/default/web");
}
