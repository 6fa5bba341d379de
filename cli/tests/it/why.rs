//! `setpoint why`, `setpoint simulate schedule` and `setpoint apply --dry-run=schedule`. What agents and the scheduler
//! write is put by the tests.

use serde_json::Value;
use setpoint_apis::{Key, ObjectKey};

use crate::fixture::{Fixture, Ran, config_map, deployment, pod, run_alone, run_alone_with_input};

/// A node with four cpus that is alive.
async fn node(f: &Fixture, name: &str, more: &str) {
    f.put(
        &Key::NodeAlive(name),
        "hostname: h\ninstance: i\npid: 1\nsince: 2026-01-02T03:04:05Z\nleaseTtlSeconds: 6\n",
    )
    .await;
    f.put(
        &Key::NodeStatus(name),
        &format!(
            "drivers: [process]\ncapacity: {{cpu: '4'}}\nallocatable: {{cpu: '4', memory: 8Gi, pods: '10'}}\n{more}"
        ),
    )
    .await;
}

fn asks(name: &str, cpu: &str) -> String {
    pod(name) + &format!("    resources: {{requests: {{cpu: '{cpu}'}}}}\n")
}

fn json(ran: Ran) -> Value {
    serde_json::from_str(&ran.ok()).expect("JSON")
}

#[tokio::test]
async fn a_waiting_pod_is_explained_although_no_scheduler_runs() {
    let f = Fixture::new("why-waits").await;
    node(&f, "n1", "").await;
    node(
        &f,
        "n2",
        "taints: [{key: dedicated, value: gpu, effect: NoSchedule}]\n",
    )
    .await;
    f.apply(&asks("big", "4200m"));
    for words in [
        &["why", "pod/big"][..],
        &["why", "pod", "big"],
        &["why", "big"],
    ] {
        let out = f.run(words).ok();
        for line in [
            "never fits",
            "1 node: taint dedicated=gpu is not tolerated",
            "1 node: too little cpu",
            "n1 would fit with 200m cpu less requested",
            "no scheduler is running",
        ] {
            assert!(out.contains(line), "{words:?}: no {line:?} in\n{out}");
        }
    }
    let told = json(f.run(&["why", "pod/big", "-o", "json"]));
    assert_eq!(told["waits"]["hope"], "Never", "{told}");
    assert_eq!(told["scheduler"], false);
    let yaml = f.run(&["why", "pod/big", "-o", "yaml"]).ok();
    assert!(yaml.contains("hope: Never"), "{yaml}");

    // What the scheduler wrote before the pod fitted is told to be old.
    f.apply(&asks("small", "1"));
    let written =
        "placements: 0\nreasons: [{constraint: Resources, detail: cpu, nodes: 2, hope: Waits}]\n";
    let key = ObjectKey::namespaced("default", "small");
    f.put(&Key::Actual("pods", key), written).await;
    f.put(&Key::Leader("scheduler", None), "x").await;
    let out = f.run(&["why", "pod/small"]).ok();
    assert!(out.contains("the scheduler has not placed it yet"), "{out}");
    assert!(
        out.contains("wrote something else last: 2 nodes: too little cpu"),
        "{out}"
    );
    assert!(!out.contains("no scheduler is running"), "{out}");
}

#[tokio::test]
async fn a_placed_pod_has_its_stored_decision() {
    let f = Fixture::new("why-placed").await;
    let used = "usage: {cpu: '1'}\nusageAt: 2026-01-02T03:04:05Z\n";
    node(&f, "n1", used).await;
    let shown = f.run(&["get", "node", "n1", "-o", "yaml"]).ok();
    assert!(shown.contains("usageAt: 2026-01-02T03:04:05"), "{shown}");
    f.apply(&asks("p", "1"));
    let binding = "node: n1\nsession: 1\nplacement: 2\npodRevision: 1\nboundAt: 2026-01-02T03:04:05Z\ndecision:\n  revision: 41\n  \
                   nodes: 3\n  feasible: 2\n  score: 90\n  runnerUp: [n2, 70]\n  best:\n  - {node: n1, score: 90, parts: resources=90}\n  \
                   - {node: n2, score: 70, parts: resources=70}\n  preempted: [default/low]\n  movedFrom: n3\n";
    f.put(
        &Key::Binding(ObjectKey::namespaced("default", "p")),
        binding,
    )
    .await;
    let out = f.run(&["why", "pod/p"]).ok();
    for line in [
        "placed on n1",
        "placement number 2",
        "2 of 3 nodes could run it, at revision 41; score 90",
        "n2 was worth 20 less: 20 less for resources",
        "default/low",
        "n3",
        "n1 90 resources=90",
    ] {
        assert!(out.contains(line), "no {line:?} in\n{out}");
    }
}

#[tokio::test]
async fn what_why_cannot_explain_is_refused_with_a_hint() {
    let f = Fixture::new("why-bad").await;
    f.apply(&(pod("web-1") + "---\n" + &deployment("web", 1)));
    for (args, hint) in [
        (&["why", "pod/wbe-1"][..], "did you mean \"web-1\"?"),
        (&["why", "pod/web-1", "-n", "team"], "(-n default)"),
        (&["why", "deploy/web"], "only pods are placed"),
        (&["why", "pdo/web-1"], "did you mean"),
        (&["why", "pod"], "setpoint why pod/NAME"),
        (&["why", "pod/web-1", "pod/web-2"], "one resource is needed"),
        (&["why", "pod/web-1", "-o", "name"], "wide, yaml, json"),
        (&["why", "pod/Not_A_Name"], "not a valid name"),
    ] {
        let err = f.run(args).fails();
        assert!(err.contains(hint), "{args:?}: {err}");
    }
}

#[tokio::test]
async fn a_dry_run_shows_where_pods_would_go_and_writes_nothing() {
    let f = Fixture::new("why-dry").await;
    node(&f, "n1", "").await;
    node(&f, "n2", "").await;
    f.apply(&asks("old", "3"));
    let binding =
        "node: n1\nsession: 1\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-02T03:04:05Z\n";
    f.put(
        &Key::Binding(ObjectKey::namespaced("default", "old")),
        binding,
    )
    .await;
    let before = f.range(f.keyspace.all()).await;
    let web = deployment("web", 6).replace(
        "command: [sleep, inf]}",
        "command: [sleep, inf], resources: {requests: {cpu: 1}}}",
    );
    let dry = &["apply", "-f", "-", "--dry-run=schedule"][..];
    let out = f
        .run_with_input(dry, &(web.clone() + "---\n" + &config_map("c", "1")))
        .ok();
    assert!(
        out.contains("5 pods would be placed, 1 would wait"),
        "{out}"
    );
    assert!(
        out.contains("default/web-6") && out.contains("2 nodes: too little cpu"),
        "{out}"
    );
    let wide = f
        .run_with_input(&[dry, &["-o", "wide"]].concat(), &web)
        .ok();
    assert!(
        wide.contains("NEXT BEST") && wide.contains("deployment/web"),
        "{wide}"
    );
    let plan = json(f.run_with_input(&[dry, &["-o", "json"]].concat(), &web));
    assert_eq!(plan["waiting"][0]["hope"], "Waits", "{plan}");
    assert_eq!(plan["nodes"][0]["podsBefore"], 1, "{plan}");
    let from_cluster = &[
        "simulate",
        "schedule",
        "-f",
        "-",
        "--from-cluster",
        "-o",
        "json",
    ];
    let ran = f.run_with_input(from_cluster, &web);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let simulated: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        simulated["placed"].as_array().map(Vec::len),
        Some(5),
        "{simulated}"
    );
    assert_eq!(
        f.range(f.keyspace.all()).await,
        before,
        "nothing is written"
    );
    let err = f
        .run_with_input(dry, &web.replace("replicas", "replicsa"))
        .fails();
    assert!(
        err.contains("-:7:") && err.contains("did you mean \"replicas\""),
        "{err}"
    );
}

const NODES: &str = "apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {zone: x}}\n\
                     status: {allocatable: {cpu: '2', memory: 4Gi}}\n---\n\
                     apiVersion: v1\nkind: Node\nmetadata: {name: gpu}\n\
                     spec: {taints: [{key: dedicated, value: gpu, effect: NoSchedule}]}\n\
                     status: {allocatable: {cpu: '8', memory: 4Gi, example.com/gpu: '1'}}\n";

#[test]
fn a_simulation_of_the_scheduler_needs_no_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let nodes = file("nodes.yaml", NODES);
    let web = deployment("web", 3).replace(
        "command: [sleep, inf]}",
        "command: [sleep, inf], resources: {requests: {cpu: 1}}}",
    );
    let schedule = |nodes: &str, more: &[&str], input: &str| {
        let args = [&["simulate", "schedule", "-f", "-", "--nodes", nodes], more].concat();
        run_alone_with_input(&args, input)
    };
    let ran = schedule(&nodes, &[], &web);
    assert_eq!(ran.code, Some(1), "one waits: {ran:?}");
    for line in [
        "default/web-1",
        "1 node: taint dedicated=gpu is not tolerated; 1 node: too little cpu",
        "gpu would fit without taint dedicated=gpu",
        "2/2 (100 %)",
        "2 pods would be placed, 1 would wait",
    ] {
        assert!(ran.out.contains(line), "no {line:?} in\n{}", ran.out);
    }
    let scenario = "apiVersion: setpoint.dev/v1\nkind: Scenario\nmetadata: {name: s}\nspec:\n  nodes:\n  \
                    - {name: big, count: 100, capacity: {cpu: '16'}}\n";
    let many = file("many.yaml", scenario);
    let plan = json(schedule(&many, &["-o", "json"], &web));
    assert_eq!(plan["nodes"].as_array().map(Vec::len), Some(100));
    assert_eq!(plan["placed"][0]["feasible"], 100);
    assert_eq!(plan["waiting"], serde_json::json!([]));
    let again = json(schedule(&many, &["-o", "json"], &web));
    assert_eq!(plan, again, "the same input has the same plan");
    let priority = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: high}\nvalue: 10\n---\n";
    let high = asks("high", "2").replace("spec:\n", "spec:\n  priorityClassName: high\n");
    // All of them are new, so the important one goes first and displaces nobody.
    let plan = json(schedule(
        &many,
        &["-o", "json"],
        &format!("{priority}{high}---\n{web}"),
    ));
    assert_eq!(plan["displaced"], serde_json::json!([]));
    assert_eq!(plan["placed"].as_array().map(Vec::len), Some(4));
}

#[test]
fn what_cannot_be_simulated_is_named_by_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nodes.yaml");
    let nodes = path.to_str().unwrap();
    let says = |text: &str, input: &str| {
        std::fs::write(&path, text).unwrap();
        let args = ["simulate", "schedule", "-f", "-", "--nodes", nodes];
        let ran = run_alone_with_input(&args, input);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains("error:") && ran.out.is_empty(), "{ran:?}");
        ran.err
    };
    let good = pod("p");
    let err = says(&NODES.replacen("allocatable", "allocateable", 1), &good);
    assert!(
        err.contains("nodes.yaml:1: status.allocatable: is required"),
        "{err}"
    );
    assert!(err.contains("\"allocateable\""), "{err}");
    let err = says(&NODES.replacen("cpu: '2'", "cpu: lots", 1), &good);
    assert!(err.contains("status.allocatable.cpu: \"lots\""), "{err}");
    let err = says(&NODES.replace("taints:", "tains:"), &good);
    assert!(
        err.contains(":9:8: spec.tains") && err.contains("did you mean \"taints\""),
        "{err}"
    );
    let err = says(&pod("x"), &good);
    assert!(err.contains("nodes.yaml:1: is a Pod"), "{err}");
    let err = says(NODES, &good.replace("image:", "imgae:"));
    assert!(err.contains("did you mean \"image\""), "{err}");
    let err = says(NODES, &format!("{good}---\n{good}"));
    assert!(err.contains("was described already"), "{err}");
    let err = says(NODES, &config_map("c", "1"));
    assert!(err.contains("no pods"), "{err}");
    for (args, hint) in [
        (&["simulate", "schedule"][..], "a manifest is needed"),
        (
            &["simulate", "schedule", "-f", "-", "--nodes", "-"],
            "standard input",
        ),
        (
            &["simulate", "schedule", "-f", nodes, "-o", "name"],
            "wide, yaml",
        ),
        (&["simulate", "schedule", "-f", "/nope.yaml"], "/nope.yaml"),
        (&["simulate", "shedule"], "schedule"),
    ] {
        let ran = run_alone(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.err.contains(hint), "{args:?}: {ran:?}");
    }
    let ran = run_alone_with_input(&["simulate", "schedule", "-f", "-"], &good);
    assert!(ran.err.contains("--nodes FILE"), "{ran:?}");
}
