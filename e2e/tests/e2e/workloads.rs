//! From an apply to running processes, and back.

use setpoint_e2e::Cluster;

fn deployment(name: &str, replicas: u32, marker: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  \
         template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        \
         image: host\n        command: [sh, -c, \"echo {marker}; exec sleep 86400\"]\n"
    )
}

#[test]
fn a_deployment_runs_scales_rolls_over_and_goes() {
    let cluster = Cluster::start(2, 101);
    assert_eq!(
        cluster.apply(&deployment("web", 4, "first")).trim(),
        "deployment.apps/web created"
    );
    cluster.ready_pods("app=web", 4);
    assert_eq!(
        cluster.apply(&deployment("web", 4, "first")).trim(),
        "deployment.apps/web unchanged"
    );

    cluster
        .setpoint(["scale", "deployment/web", "--replicas=6"])
        .ok();
    cluster.ready_pods("app=web", 6);
    cluster
        .setpoint(["scale", "deployment/web", "--replicas=3"])
        .ok();
    cluster.ready_pods("app=web", 3);

    assert_eq!(
        cluster.apply(&deployment("web", 3, "second")).trim(),
        "deployment.apps/web configured"
    );
    cluster.eventually("every pod is of the second template", || {
        let pods = cluster.pods("app=web");
        let logs: Vec<String> = pods
            .iter()
            .map(|p| {
                cluster
                    .setpoint(["logs", p["metadata"]["name"].as_str().unwrap_or_default()])
                    .stdout
            })
            .collect();
        if pods.len() == 3 && logs.iter().all(|l| l.trim() == "second") {
            Ok(())
        } else {
            Err(format!("{logs:?}"))
        }
    });
    cluster.eventually("the status says so", || {
        let status = cluster.get(&["deployment", "web"])["status"].clone();
        let done = [
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
        ]
        .iter()
        .all(|f| status[f] == 3);
        if done {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });

    cluster
        .setpoint(["delete", "deployment", "web", "--wait"])
        .ok();
    cluster.eventually("its replica sets and pods are gone with it", || {
        let left = cluster
            .setpoint(["get", "replicasets,pods", "-o", "name"])
            .stdout;
        if left.trim().is_empty() {
            Ok(())
        } else {
            Err(left)
        }
    });
    cluster.eventually(
        "nothing of it is left in etcd but events and its history",
        || {
            let keys = cluster.etcdctl(&["get", "--prefix", "--keys-only", "/setpoint/"]);
            let left: Vec<&str> = keys
                .lines()
                .filter(|k| k.contains("web") && !k.contains("/events/"))
                .collect();
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join("\n"))
            }
        },
    );
}

#[test]
fn pods_that_are_stopping_are_found_by_label_and_a_foreground_deletion_waits_for_them() {
    let cluster = Cluster::start(1, 118);
    // It does not listen, so it takes its whole grace period to stop.
    let stubborn = |grace: u32| {
        deployment("web", 2, "stubborn")
            .replace(
                "echo stubborn; exec sleep 86400",
                "trap '' TERM; echo stubborn; while :; do sleep 0.1; done",
            )
            .replace("PeriodSeconds: 1", &format!("PeriodSeconds: {grace}"))
    };
    cluster.apply(&stubborn(20));
    let pods = cluster.ready_pods("app=web", 2);
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    // It is ready as soon as there is a process, which may be told to end before it has begun not to listen.
    cluster.eventually("it does not listen any more", || {
        match cluster.setpoint(["logs", name]).stdout {
            said if said.contains("stubborn") => Ok(()),
            said => Err(said),
        }
    });
    cluster
        .setpoint(["delete", "pod", name, "--wait=false"])
        .ok();
    let stopping = cluster.eventually("its agent is stopping it", || {
        let text = cluster.etcdctl(&[
            "get",
            "--print-value-only",
            &format!("/setpoint/actual/nodes/n1/pods/default/{name}"),
        ]);
        if text.contains("stage: Stopping") {
            Ok(text)
        } else {
            Err(text)
        }
    });
    assert!(
        stopping.contains("app: web") && stopping.contains("kind: ReplicaSet"),
        "{stopping}"
    );
    let found = cluster.pods("app=web");
    let found = found
        .iter()
        .find(|p| p["metadata"]["name"] == name)
        .expect("the pod that is stopping");
    assert_eq!(
        (
            &found["metadata"]["ownerReferences"],
            &found["metadata"]["uid"],
            &found["spec"]["containers"]
        ),
        (
            &pods[0]["metadata"]["ownerReferences"],
            &pods[0]["metadata"]["uid"],
            &pods[0]["spec"]["containers"]
        )
    );
    let gone = [
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "app=web",
        "--timeout=1s",
    ];
    assert!(cluster.setpoint(gone).refused().contains(name));

    cluster.apply(
        &stubborn(2)
            .replace("name: web", "name: brief")
            .replace("app: web", "app: brief"),
    );
    cluster.ready_pods("app=brief", 2);
    cluster
        .setpoint(["delete", "deployment", "brief", "--cascade=foreground"])
        .ok();
    let left = cluster.etcdctl(&[
        "get",
        "--prefix",
        "--keys-only",
        "/setpoint/actual/nodes/n1/pods/default/brief",
    ]);
    assert_eq!(left.trim(), "", "nothing of it runs");
}

#[test]
fn a_config_map_arrives_late_and_the_pod_says_what_it_waits_for() {
    let cluster = Cluster::start(1, 102);
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: late}\nspec:\n  containers:\n  - name: main\n    image: host\n    command: [sh, -c, 'echo got $GREETING; exec sleep 86400']\n    \
         env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}]\n",
    );
    cluster.eventually("it says what is missing", || {
        let text = cluster.setpoint(["describe", "pod", "late"]).stdout;
        if text.contains("words") && text.contains("CreateContainerConfigError") {
            Ok(())
        } else {
            Err(text)
        }
    });
    cluster.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: words}\ndata: {greeting: hello}\n",
    );
    cluster.pod_in_phase("late", "Running");
    cluster.eventually("it has the value", || {
        let log = cluster.setpoint(["logs", "late"]).stdout;
        if log.trim() == "got hello" {
            Ok(())
        } else {
            Err(log)
        }
    });
}

#[test]
fn an_idle_cluster_writes_nothing() {
    let cluster = Cluster::start(2, 103);
    cluster.apply(&deployment("web", 2, "idle"));
    cluster.ready_pods("app=web", 2);
    // What the start brought about (events, first reports) settles; then the revision stands still for a while.
    let mut last = cluster.revision();
    let mut since = std::time::Instant::now();
    cluster.eventually("ten seconds without a write", || {
        let now = cluster.revision();
        if now != last {
            (last, since) = (now, std::time::Instant::now());
        }
        if since.elapsed().as_secs() >= 10 {
            Ok(())
        } else {
            Err(format!("revision {now}"))
        }
    });
}
