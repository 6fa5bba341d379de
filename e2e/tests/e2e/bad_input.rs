//! Broken documents and wrong words: clear errors, nothing lost.

use setpoint_e2e::{Cluster, run, setpoint_binary};

#[test]
fn broken_yaml_in_every_tree_stops_nothing() {
    let cluster = Cluster::start(1, 114);
    cluster.apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    \
         spec: {containers: [{name: main, image: host, command: [sleep, '86400']}]}\n",
    );
    let before = cluster.ready_pods("app=web", 2);
    let ids = |pods: &[serde_json::Value]| -> Vec<String> {
        pods.iter()
            .map(|p| p["status"]["containerStatuses"][0]["containerID"].to_string())
            .collect()
    };
    let pod = before[0]["metadata"]["name"].as_str().unwrap();
    for key in [
        "desired/deployments/default/web".to_owned(),
        format!("desired/pods/default/{pod}"),
        "desired/replicasets/default/nobodys".to_owned(),
        "actual/deployments/default/nobodys".to_owned(),
        "actual/nodes/n9/status".to_owned(),
        "actual/nodes/n9/pods/default/x".to_owned(),
        "actual/nodes/n9/what/is/this".to_owned(),
        "actual/health/n9".to_owned(),
        "bindings/default/nobodys".to_owned(),
        "deletions/pods/default/nobodys".to_owned(),
        "intents/release/default/nobodys/me".to_owned(),
        "events/default/nobodys.1".to_owned(),
        "work/n1/pods/default/nobodys".to_owned(),
        "work/n1/content/configmaps/default/nobodys".to_owned(),
        "fleet/x".to_owned(),
        "desired/nodes/a/b/c/d".to_owned(),
    ] {
        cluster.etcdctl(&["put", &format!("/setpoint/{key}"), "{[: \u{1} not yaml"]);
    }
    // Something new still works, so every part has seen the above.
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: fine}\nspec: {containers: [{name: main, image: host, command: [sleep, '86400']}]}\n");
    cluster.pod_in_phase("fine", "Running");
    let after = cluster.eventually("the pods of the broken Deployment still run", || {
        let ids: Vec<_> = before
            .iter()
            .map(|p| cluster.get(&["pod", p["metadata"]["name"].as_str().unwrap()]))
            .collect();
        if ids.iter().all(|p| p["status"]["phase"] == "Running") {
            Ok(ids)
        } else {
            Err(cluster.pods_table())
        }
    });
    assert_eq!(ids(&before), ids(&after), "they are the same processes");
    let shown = cluster.setpoint(["get", "deployments"]);
    assert!(
        format!("{}{}", shown.stdout, shown.stderr).contains("Invalid"),
        "{shown:?}"
    );
}

#[test]
fn wrong_words_get_clear_answers() {
    let cluster = Cluster::start(1, 110);
    let unknown = cluster.setpoint_with(["apply", "-f", "-"], "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: main\n    imge: host\n").refused();
    assert!(
        unknown.contains("imge") && unknown.contains("image") && unknown.contains(":7:"),
        "{unknown}"
    );
    let name = cluster
        .setpoint_with(
            ["apply", "-f", "-"],
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ../../etc}\n",
        )
        .refused();
    assert!(name.contains("../../etc"), "{name}");
    let slash = cluster.setpoint(["get", "pod", "a/b/c"]).refused();
    assert!(slash.contains("a/b/c"), "{slash}");
    let big = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata: {{x: \"{}\"}}\n",
        "y".repeat(2 << 20)
    );
    let refused = cluster.setpoint_with(["apply", "-f", "-"], &big).refused();
    assert!(
        refused.contains("1.5 MiB") || refused.contains("the most is"),
        "{}",
        &refused[..refused.len().min(400)]
    );
    let word = cluster.setpoint(["aply"]).refused();
    assert!(word.contains("apply"), "{word}");
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: nosuch}\nspec: {containers: [{name: main, image: host, command: [/no/such/program]}]}\n");
    cluster.eventually("a command that does not exist is said so", || {
        let text = cluster.setpoint(["describe", "pod", "nosuch"]).stdout;
        if text.contains("/no/such/program") && text.contains("no such file") {
            Ok(())
        } else {
            Err(text)
        }
    });
}

#[test]
fn without_etcd_a_command_says_what_to_do() {
    // A port that nobody is given.
    let endpoint = "http://127.0.0.1:1";
    for args in [
        &["get", "pods"][..],
        &["apply", "-f", "-"],
        &["agent", "--node-name", "n1"],
        &["controllers"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(setpoint_binary());
        command
            .args(["--endpoints", endpoint])
            .args(args)
            .env("HOME", dir.path());
        if args[0] == "agent" {
            // Not the machine's own.
            command
                .args(["--listen", "127.0.0.1:0", "--data-dir"])
                .arg(dir.path().join("data"));
        }
        if args[0] == "agent" || args[0] == "controllers" {
            // Parts of a cluster wait for etcd; they must say so and go when told to.
            let mut child = command
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = String::new();
            let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
            while !said.contains(endpoint)
                && std::io::BufRead::read_line(&mut lines, &mut said).unwrap() > 0
            {}
            assert!(said.contains(endpoint), "{args:?}: {said}");
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::TERM,
            );
            child.wait().unwrap();
        } else {
            let said = run(
                &mut command,
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
            )
            .refused();
            assert!(said.contains(endpoint), "{args:?}: {said}");
        }
    }
}
