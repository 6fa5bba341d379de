//! Showing objects: the merge of what is wanted and what is.

use setpoint_apis::{Key, ObjectKey};

use crate::fixture::{Fixture, config_map, deployment, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// What scheduler and agent would write about a pod on a node.
async fn place(f: &Fixture, name: &str, node: &str, stage: &str, ready: bool) {
    let binding = format!(
        "node: {node}\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n"
    );
    f.put(&Key::Binding(key(name)), &binding).await;
    let actual = format!(
        "placement: 1\nuid: u-{name}\nstage: {stage}\nhostIp: 10.0.0.1\npodIP: 127.10.1.5\nstartTime: 2026-01-01T00:00:00Z\n\
         conditions:\n- {{type: Ready, status: '{}'}}\ncontainerStatuses:\n- name: c\n  ready: {ready}\n  restartCount: 2\n  \
         state: {{running: {{startedAt: 2026-01-01T00:00:00Z}}}}\n",
        if ready { "True" } else { "False" }
    );
    f.put(&Key::NodePod(node, key(name)), &actual).await;
}

/// What an agent would write about its node.
async fn node(f: &Fixture, name: &str) {
    let document = format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n");
    f.put(&Key::Desired("nodes", ObjectKey::cluster(name)), &document)
        .await;
    let alive =
        "hostname: h\npid: 1\ninstance: i\nsince: 2026-01-01T00:00:00Z\nleaseTtlSeconds: 6\n";
    f.put(&Key::NodeAlive(name), alive).await;
    let status = "capacity: {cpu: '2', memory: 4Gi, pods: '110'}\nallocatable: {cpu: '2', memory: 4Gi, pods: '110'}\n\
                  conditions:\n- {type: Ready, status: 'True', reason: AgentReady}\n\
                  addresses:\n- {type: InternalIP, address: 10.0.0.1}\nlabels: {zone: a}\ndrivers: [process]\n\
                  nodeInfo: {kubeletVersion: v0.1.0, osImage: Debian}\n";
    f.put(&Key::NodeStatus(name), status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_shown_with_what_their_agent_reports() {
    let f = Fixture::new("get-pods").await;
    f.apply(&format!("{}---\n{}", pod("a"), pod("b")));
    place(&f, "a", "n1", "Running", true).await;
    let out = f.run(&["get", "pods"]).ok();
    let rows: Vec<Vec<&str>> = out
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(rows[1][..4], ["a", "1/1", "Running", "2"]);
    assert_eq!(rows[2][..4], ["b", "0/1", "Pending", "0"]);
    assert!(
        rows.iter()
            .skip(1)
            .all(|r| r[4].ends_with(['s', 'm', 'h', 'd', 'y']) || r[4].contains('d')),
        "{out}"
    );
    let wide = f.run(&["get", "po", "-o", "wide", "--no-headers"]).ok();
    assert!(
        wide.lines().next().unwrap().ends_with("127.10.1.5   n1"),
        "{wide}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&f.run(&["get", "pod", "a", "-o", "json"]).ok()).unwrap();
    assert_eq!(json["spec"]["nodeName"], "n1");
    assert_eq!(json["status"]["phase"], "Running");
    assert_eq!(json["spec"]["restartPolicy"], "Always");
    assert_eq!(json["metadata"]["generation"], 1);
    assert!(
        json["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse::<i64>()
            .unwrap()
            > 0
    );
    assert!(
        json["metadata"]["uid"].is_string() && json["metadata"]["creationTimestamp"].is_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_that_still_runs_is_terminating() {
    let f = Fixture::new("get-terminating").await;
    f.apply(&pod("a"));
    place(&f, "a", "n1", "Running", true).await;
    f.remove(&Key::Desired("pods", key("a"))).await;
    let out = f.run(&["get", "pods"]).ok();
    assert!(out.contains("a      1/1     Terminating"), "{out}");
    let out = f.run(&["describe", "pod", "a"]).ok();
    assert!(out.contains("Status:            Terminating"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_still_stopping_is_found_by_its_labels() {
    let f = Fixture::new("get-stopping").await;
    f.apply(&pod("a"));
    place(&f, "a", "n1", "Running", true).await;
    let work = format!(
        "placement: 1\nuid: u-a\nsourceRevision: 1\n---\n{}",
        pod("a")
    );
    f.put(&Key::WorkPod("n1", key("a")), &work).await;
    f.remove(&Key::Desired("pods", key("a"))).await;
    let listed = || f.run(&["get", "pods", "-l", "app=a", "-o", "name"]).ok();
    let command = || {
        let path =
            "jsonpath={.spec.containers[0].command[0]} {.metadata.uid} {.metadata.labels.app}";
        f.run(&["get", "pod", "a", "-o", path]).ok()
    };
    // Deleted, and the scheduler has not looked yet.
    assert_eq!(
        (listed().as_str(), command().as_str()),
        ("pod/a\n", "sleep u-a a")
    );

    // Withdrawn: the work copy goes in the transaction that says so.
    let binding = "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n\
                   withdrawn: {reason: Deleted, at: 2026-01-01T00:00:01Z}\n";
    let txn = setpoint_store::Txn::new()
        .put(f.key(&Key::Binding(key("a"))), binding)
        .delete(f.key(&Key::WorkPod("n1", key("a"))));
    f.store.txn(txn).await.unwrap();
    assert_eq!(
        (listed().as_str(), command().as_str()),
        ("pod/a\n", "sleep u-a a")
    );
    let wait = [
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "app=a",
        "--timeout=100ms",
    ];
    assert!(f.run(&wait).fails().contains("pod/a"));
    let out = f.run(&["describe", "pod", "a"]).ok();
    assert!(out.contains("app=a"), "{out}");

    // etcd has forgotten how it was before: the agent has kept what it is found by.
    let actual = "placement: 1\nuid: u-a\nstage: Stopping\nmetadata:\n  labels: {app: a}\n  ownerReferences:\n  \
                  - {apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: r, controller: true}\n";
    f.put(&Key::NodePod("n1", key("a")), actual).await;
    // Written again, so that the revision before the binding has no copy, as after a compaction.
    f.put(&Key::Binding(key("a")), binding).await;
    assert_eq!(listed(), "pod/a\n");
    let path = "jsonpath={.metadata.ownerReferences[0].name}";
    assert_eq!(f.run(&["get", "pod", "a", "-o", path]).ok(), "web");
    f.remove(&Key::NodePod("n1", key("a"))).await;
    f.remove(&Key::Binding(key("a"))).await;
    f.run(&wait).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pod_that_is_kept_on_a_lost_node_it_is_said_that_nothing_is_known() {
    let f = Fixture::new("get-lost").await;
    f.apply(&format!("{}---\n{}", pod("a"), pod("b")));
    place(&f, "a", "n1", "Running", true).await;
    place(&f, "b", "n2", "Running", true).await;
    let health = "state: Unreachable\nsession: 7\nsince: 2026-01-01T00:00:00Z\n";
    f.put(&Key::Health("n1"), health).await;
    let rows = f.run(&["get", "pods", "--no-headers"]).ok();
    let states: Vec<&str> = rows
        .lines()
        .filter_map(|l| l.split_whitespace().nth(2))
        .collect();
    assert_eq!(states, ["Unknown", "Running"], "{rows}");
    let out = f.run(&["describe", "pod", "a"]).ok();
    assert!(
        out.contains("NodeLost") && out.contains("n1 is unreachable"),
        "{out}"
    );
    let wait = ["wait", "--for=condition=Ready", "pod/a", "--timeout=0"];
    f.run(&wait).fails();
    f.put(&Key::Health("n1"), &health.replace("Unreachable", "Ready"))
        .await;
    f.run(&wait).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_names_and_namespaces_choose() {
    let f = Fixture::new("get-select").await;
    f.run(&["create", "ns", "team"]).ok();
    f.apply(&format!("{}---\n{}", pod("a"), pod("b")));
    f.run_with_input(&["apply", "-n", "team", "-f", "-"], &pod("c"))
        .ok();
    place(&f, "a", "n1", "Running", true).await;
    let names = |args: &[&str]| {
        let mut all = vec!["get", "pods", "-o", "name"];
        all.extend(args);
        f.run(&all)
            .ok()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["pod/a", "pod/b"]);
    assert_eq!(names(&["-A"]), ["pod/a", "pod/b", "pod/c"]);
    assert_eq!(names(&["-n", "team"]), ["pod/c"]);
    assert_eq!(names(&["-l", "app in (b,c)"]), ["pod/b"]);
    assert_eq!(names(&["--field-selector", "spec.nodeName=n1"]), ["pod/a"]);
    assert_eq!(
        names(&["--field-selector", "status.phase!=Running"]),
        ["pod/b"]
    );
    let out = f.run(&["get", "pods", "-A", "--show-labels"]).ok();
    assert!(
        out.starts_with("NAMESPACE") && out.contains("app=c"),
        "{out}"
    );
    let err = f
        .run(&["get", "pods", "--field-selector", "spec.foo=1"])
        .fails();
    assert!(err.contains("spec.nodeName"), "{err}");
    // What is there is shown also when another is not.
    let ran = f.run(&["get", "pods", "a", "nope"]);
    assert!(ran.out.contains("a      1/1"), "{ran:?}");
    assert!(ran.fails().contains("pods \"nope\" not found"));
    f.run(&["get", "pod", "nope", "--ignore-not-found"]).ok();
    let ran = f.run(&["get", "deploy"]);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (Some(0), "", "No resources found in default namespace.\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_kinds_and_all_are_tables_of_their_own() {
    let f = Fixture::new("get-several").await;
    f.apply(&format!(
        "{}---\n{}---\n{}",
        pod("a"),
        deployment("web", 3),
        config_map("m", "1")
    ));
    let out = f.run(&["get", "deploy,cm"]).ok();
    assert!(out.contains("deployment.apps/web   0/3"), "{out}");
    assert!(
        out.contains("\n\nNAME          DATA   AGE\nconfigmap/m   1 "),
        "{out}"
    );
    let out = f.run(&["get", "all"]).ok();
    assert!(
        out.contains("pod/a") && out.contains("deployment.apps/web") && !out.contains("configmap"),
        "{out}"
    );
    let file = f.file(
        "m.yaml",
        &format!("{}---\n{}", pod("a"), config_map("m", "1")),
    );
    let out = f
        .run(&["get", "-f", file.to_str().unwrap(), "-o", "name"])
        .ok();
    assert_eq!(out, "pod/a\nconfigmap/m\n");
    let out = f
        .run(&[
            "get",
            "pod/a",
            "deploy/web",
            "-o",
            "jsonpath={range .items[*]}{.kind} {end}",
        ])
        .ok();
    assert_eq!(out, "Pod Deployment ");
    let out = f
        .run(&[
            "get",
            "cm",
            "m",
            "-o",
            "custom-columns=N:.metadata.name,V:.data.k",
        ])
        .ok();
    assert_eq!(out, "N   V\nm   1\n");
    let out = f.run(&["get", "cm", "-o", "yaml"]).ok();
    assert!(
        out.contains("kind: List") && out.contains("    k: '1'"),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_merged_from_three_writers() {
    let f = Fixture::new("get-nodes").await;
    node(&f, "n1").await;
    node(&f, "n2").await;
    f.remove(&Key::NodeAlive("n2")).await;
    f.put(
        &Key::Health("n2"),
        "state: Unreachable\nsession: 1\nsince: 2026-01-01T00:00:00Z\nmessage: the lease is gone\n",
    )
    .await;
    assert_eq!(f.run(&["cordon", "n1"]).ok(), "node/n1 cordoned\n");
    let out = f.run(&["get", "nodes", "-o", "wide"]).ok();
    let rows: Vec<Vec<&str>> = out
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[1][..3], ["n1", "Ready,SchedulingDisabled", "<none>"]);
    assert_eq!(rows[2][..3], ["n2", "Unreachable", "<none>"]);
    assert!(out.contains("10.0.0.1") && out.contains("Debian"), "{out}");
    assert_eq!(f.run(&["uncordon", "n1"]).ok(), "node/n1 uncordoned\n");
    assert_eq!(
        f.run(&["uncordon", "n1"]).ok(),
        "node/n1 already uncordoned\n"
    );
    assert_eq!(
        f.run(&["get", "nodes", "-l", "zone=a", "-o", "name"]).ok(),
        "node/n1\nnode/n2\n"
    );
    let err = f.run(&["cordon", "nope"]).fails();
    assert!(err.contains("nodes \"nope\" not found"), "{err}");
    f.apply(&pod("a").replace(
        "command: [sleep, inf]",
        "command: [sleep, inf]\n    resources: {requests: {cpu: 500m}}",
    ));
    place(&f, "a", "n1", "Running", true).await;
    let out = f.run(&["describe", "node", "n1"]).ok();
    assert!(
        out.contains("Pods (1 in total)") && out.contains("500m (25%)"),
        "{out}"
    );
    let out = f.run(&["describe", "node", "n2"]).ok();
    assert!(out.contains("the lease is gone"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_documents_are_shown_as_invalid_and_break_nothing() {
    let f = Fixture::new("get-invalid").await;
    f.apply(&format!(
        "{}---\n{}---\n{}",
        pod("good"),
        deployment("web", 2),
        config_map("m", "1")
    ));
    f.put(&Key::Desired("pods", key("bad")), "kind: [unclosed\n")
        .await;
    f.put(
        &Key::Desired("deployments", key("web")),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: 7\n",
    )
    .await;
    f.put(&Key::Desired("configmaps", key("m")), "\u{0}\u{1}")
        .await;
    f.put(&Key::NodePod("n1", key("good")), "}{").await;
    f.put(&Key::Binding(key("good")), "node: 7: 8").await;
    let ran = f.run(&["get", "pods"]);
    assert!(
        ran.out.contains("bad") && ran.out.contains("Invalid"),
        "{ran:?}"
    );
    assert!(ran.out.lines().any(|l| l.starts_with("good")), "{ran:?}");
    assert!(
        ran.err.contains("warning: pod/bad is invalid") && ran.err.contains("pod/good is invalid"),
        "{ran:?}"
    );
    ran.ok();
    let out = f.run(&["get", "deploy,cm"]).ok();
    assert_eq!(out.matches("Invalid").count(), 2, "{out}");
    let out = f.run(&["get", "pod", "bad", "-o", "yaml"]).ok();
    assert!(
        out.contains("unclosed") && out.contains("name: bad"),
        "{out}"
    );
    let out = f.run(&["describe", "deploy", "web"]).ok();
    assert!(
        out.contains("Invalid:") && out.contains("stays in force"),
        "{out}"
    );
    // It is mended by applying, and can be deleted.
    assert_eq!(
        f.apply(&deployment("web", 2)),
        "deployment.apps/web configured\n"
    );
    f.run(&["delete", "pod", "bad"]).ok();
    assert_eq!(f.desired("pods", "bad").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_waits_says_why_and_shows_its_events() {
    let f = Fixture::new("describe").await;
    f.apply(&pod("a"));
    let why = "conditions:\n- type: PodScheduled\n  status: 'False'\n  reason: Unschedulable\n  message: 0/3 nodes are available\n";
    f.put(&Key::Actual("pods", key("a")), why).await;
    let event = "apiVersion: v1\nkind: Event\nmetadata: {name: a.1, namespace: default}\ntype: Warning\nreason: FailedScheduling\n\
                 message: nothing is big enough\ncount: 3\nfirstTimestamp: 2026-01-01T00:00:00Z\nlastTimestamp: 2026-01-01T00:01:00Z\n\
                 involvedObject: {kind: Pod, name: a, namespace: default}\nsource: {component: scheduler}\n";
    f.put(
        &Key::Event {
            node: None,
            namespace: "default",
            id: "a.1",
        },
        event,
    )
    .await;
    let of_node = event
        .replace("a.1", "a.2")
        .replace("FailedScheduling", "Started")
        .replace("component: scheduler", "component: agent, host: n1");
    f.put(
        &Key::Event {
            node: Some("n1"),
            namespace: "default",
            id: "a.2",
        },
        &of_node,
    )
    .await;
    let out = f.run(&["describe", "pod", "a"]).ok();
    assert!(
        out.contains("Waits:             Unschedulable: 0/3 nodes are available"),
        "{out}"
    );
    assert!(
        out.contains("FailedScheduling") && out.contains("x3 over") && out.contains("agent, n1"),
        "{out}"
    );
    let out = f.run(&["get", "events"]).ok();
    assert!(
        out.contains("pod/a") && out.contains("nothing is big enough"),
        "{out}"
    );
    let out = f
        .run(&[
            "get",
            "ev",
            "--field-selector",
            "reason=Started",
            "--no-headers",
        ])
        .ok();
    assert_eq!(out.lines().count(), 1, "{out}");
    // The beginning of a name is enough.
    f.apply(&deployment("web", 2));
    let out = f.run(&["describe", "deploy", "we"]).ok();
    assert!(
        out.contains("Name:              web") && out.contains("2 desired"),
        "{out}"
    );
    f.run(&["describe", "deploy", "nope"]).fails();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_rollback_is_in_force_a_deployment_says_how_many_pods_run_instead() {
    let f = Fixture::new("describe-reverted").await;
    f.apply(&deployment("web", 3));
    let status = "observedGeneration: 1\nreplicas: 3\nupdatedReplicas: 1\navailableReplicas: 2\n";
    for (more, line) in [
        (
            "revertedReplicas: 2\n",
            Some("Reverted:          2 of the revision that runs instead"),
        ),
        ("", None),
    ] {
        let status = format!("{status}{more}");
        f.put(&Key::Actual("deployments", key("web")), &status)
            .await;
        let out = f.run(&["describe", "deploy", "web"]).ok();
        let reverted = out.lines().find(|l| l.starts_with("Reverted"));
        assert_eq!(reverted, line, "{out}");
        assert!(out.contains("3 desired | 1 updated | 3 total"), "{out}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_the_program_does_not_know_can_be_shown_and_deleted() {
    let f = Fixture::new("foreign").await;
    let text = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: default}\nspec: {size: 3}\n";
    f.put(&Key::Desired("widgets", key("w")), text).await;
    let out = f.run(&["get", "widgets"]).ok();
    assert!(
        out.lines().nth(1).is_some_and(|l| l.starts_with("w ")),
        "{out}"
    );
    assert_eq!(
        f.run(&["get", "widget", "w", "-o", "jsonpath={.spec.size}"])
            .ok(),
        "3"
    );
    assert!(f.run(&["describe", "widget", "w"]).ok().contains("size:"));
    assert_eq!(
        f.run(&["delete", "widget/w"]).ok(),
        "widget.example.com \"w\" deleted\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_changed_without_losing_their_comments() {
    let f = Fixture::new("modify").await;
    f.apply(&deployment("web", 3));
    assert_eq!(
        f.run(&["scale", "deploy/web", "--replicas", "5"]).ok(),
        "deployment.apps/web scaled\n"
    );
    // Beside the number, that a command has set it.
    let noted = "\n  name: web\n  annotations:\n    setpoint.dev/set-by-command: /spec/replicas\n";
    assert_eq!(
        f.desired("deployments", "web").await.unwrap(),
        deployment("web", 5).replacen("\n  name: web\n", noted, 1)
    );
    let err = f
        .run(&[
            "scale",
            "deploy/web",
            "--replicas=1",
            "--current-replicas=3",
        ])
        .fails();
    assert!(err.contains("there are 5 replicas wanted, not 3"), "{err}");
    assert_eq!(
        f.run(&["label", "deploy", "web", "tier=front"]).ok(),
        "deployment.apps/web labeled\n"
    );
    let err = f.run(&["label", "deploy", "web", "tier=back"]).fails();
    assert!(err.contains("--overwrite"), "{err}");
    f.run(&["annotate", "deploy", "web", "note=two words"]).ok();
    f.run(&["label", "deploy", "web", "tier-"]).ok();
    let text = f.desired("deployments", "web").await.unwrap();
    assert!(
        text.contains("# Kept.") && text.contains("# so many") && text.contains("note: two words"),
        "{text}"
    );
    assert!(!text.contains("tier"), "{text}");
    f.run(&["rollout", "restart", "deploy/web"]).ok();
    assert!(
        f.desired("deployments", "web")
            .await
            .unwrap()
            .contains("restartedAt")
    );
    let err = f.run(&["scale", "cm/x", "--replicas=1"]).fails();
    assert!(err.contains("cannot be scaled"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_checked_and_what_was_typed_is_kept() {
    let f = Fixture::new("edit").await;
    f.apply(&deployment("web", 3));
    let edit = |script: &str| {
        let mut command = f.command(&["edit", "deploy/web"]);
        let output = command.env("EDITOR", script).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, out, _) = edit("sed -i 's/replicas: 3/replicas: 7/'");
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "deployment.apps/web edited\n")
    );
    assert_eq!(
        f.desired("deployments", "web").await.unwrap(),
        deployment("web", 7)
    );
    let (code, _, err) = edit("true");
    assert_eq!(code, Some(0));
    assert!(err.contains("no changes made"), "{err}");
    // The second run of the editor changes nothing more: whoever edits gives up.
    let (code, _, err) = edit("sed -i 's/replicas: 7/replicsa: 8/'");
    assert_eq!(code, Some(1));
    assert!(err.contains("did you mean \"replicas\""), "{err}");
    let kept = err
        .split_whitespace()
        .find(|w| w.contains("setpoint-edit-"))
        .expect("the place of the text");
    assert!(
        std::fs::read_to_string(kept)
            .unwrap()
            .contains("replicsa: 8")
    );
    std::fs::remove_file(kept).unwrap();
    let (code, _, err) = edit("sed -i 's/name: web/name: other/'");
    assert_eq!(code, Some(1));
    assert!(err.contains("must stay as they are"), "{err}");
    let (code, _, err) = edit("false");
    assert_eq!(code, Some(1));
    assert!(err.contains("nothing was changed"), "{err}");
    assert_eq!(
        f.desired("deployments", "web").await.unwrap(),
        deployment("web", 7)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_shows_its_data_however_it_was_written() {
    let f = Fixture::new("get-secret").await;
    f.apply("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {old: b2xk}\nstringData: {user: admin}\n");
    let path = "jsonpath={.data.user} {.data.old}{.stringData}";
    assert_eq!(
        f.run(&["get", "secret", "s", "-o", path]).ok(),
        "YWRtaW4= b2xk"
    );
    let yaml = f.run(&["get", "secret", "s", "-o", "yaml"]).ok();
    assert!(
        yaml.contains("user: YWRtaW4=") && !yaml.contains("stringData"),
        "{yaml}"
    );
    let out = f.run(&["describe", "secret", "s"]).ok();
    assert!(out.contains("5 bytes") && !out.contains("admin"), "{out}");
    let out = f.run(&["get", "secret", "s", "--no-headers"]).ok();
    assert_eq!(out.split_whitespace().nth(2), Some("2"), "{out}");
    // The document stays as its writer wrote it.
    assert!(
        f.desired("secrets", "s")
            .await
            .unwrap()
            .contains("stringData")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cordoning_goes_on_after_a_node_that_does_not_exist() {
    let f = Fixture::new("cordon-several").await;
    node(&f, "n1").await;
    node(&f, "n2").await;
    for (command, said, expected) in [
        ("cordon", "cordoned", "true"),
        ("uncordon", "uncordoned", ""),
    ] {
        let ran = f.run(&[command, "nope", "n1", "gone", "n2"]);
        assert_eq!(ran.out, format!("node/n1 {said}\nnode/n2 {said}\n"));
        let err = ran.fails();
        assert!(
            err.contains("nodes \"nope\" not found") && err.contains("nodes \"gone\" not found"),
            "{err}"
        );
        let path = "jsonpath={.items[*].spec.unschedulable}";
        let shown = f.run(&["get", "nodes", "-o", path]).ok();
        assert!(shown.split_whitespace().all(|w| w == expected), "{shown}");
        assert_eq!(shown.split_whitespace().count(), 2 * expected.len().min(1));
    }
}
