//! What needs no cluster: validation, schemas, completion, contexts.

use crate::fixture::{config_map, deployment, manifests, program, run_alone, run_alone_with_input};

#[test]
fn the_manifests_of_the_repository_are_valid() {
    let path = manifests();
    let out = run_alone(&["validate", "-R", "-f", path.to_str().unwrap()]).ok();
    assert!(out.contains("deployment.apps/hello valid"), "{out}");
}

#[test]
fn validation_reports_as_json_too() {
    let text = deployment("web", 1).replace("replicas", "replicsa");
    let ran = run_alone_with_input(&["validate", "-f", "-", "-o", "json"], &text);
    assert_eq!(ran.code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["valid"], false);
    assert_eq!(report["errors"][0]["line"], 7);
    assert_eq!(report["errors"][0]["hint"], "replicas");
    let ran = run_alone_with_input(&["validate", "-"], &config_map("a", "1"));
    assert_eq!(ran.ok(), "configmap/a valid\n");
}

#[test]
fn schemas_are_json_and_fields_are_explained() {
    let schema: serde_json::Value = serde_json::from_str(&run_alone(&["schema"]).ok()).unwrap();
    assert!(schema["$defs"]["Deployment"].is_object());
    let schema: serde_json::Value =
        serde_json::from_str(&run_alone(&["schema", "deploy"]).ok()).unwrap();
    assert!(schema["properties"]["spec"].is_object());
    let out = run_alone(&["explain", "deploy.spec.template.spec.containers"]).ok();
    assert!(
        out.contains("KIND:     Deployment") && out.contains("readinessProbe <Probe>"),
        "{out}"
    );
    let err = run_alone(&["explain", "deploy.spec.replica"]).fails();
    assert!(err.contains("did you mean \"replicas\""), "{err}");
    let out = run_alone(&["api-resources"]).ok();
    assert!(
        out.contains("deployments") && out.contains("deploy ") && out.contains("apps/v1"),
        "{out}"
    );
    assert!(run_alone(&["completion", "bash"]).ok().contains("setpoint"));
}

#[test]
fn contexts_are_made_listed_and_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sub/config.yaml");
    let run = |args: &[&str]| {
        let output = program()
            .args(args)
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, out, err) = run(&["config", "view"]);
    assert_eq!((code, out.as_str()), (Some(0), "contexts: []\n"), "{err}");
    let (code, _, err) = run(&["config", "get-contexts"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("set-context"), "{err}");
    assert_eq!(
        run(&[
            "config",
            "set-context",
            "dev",
            "--endpoints",
            "http://127.0.0.1:1"
        ])
        .1,
        "Context \"dev\" created.\n"
    );
    std::fs::write(
        &file,
        format!("# mine\n{}", std::fs::read_to_string(&file).unwrap()),
    )
    .unwrap();
    assert_eq!(
        run(&[
            "config",
            "set-context",
            "prod",
            "--endpoints",
            "http://127.0.0.1:2",
            "--key-prefix",
            "/prod"
        ])
        .0,
        Some(0)
    );
    assert_eq!(run(&["config", "current-context"]).1, "dev\n");
    assert_eq!(
        run(&["config", "use-context", "prod"]).1,
        "Switched to context \"prod\".\n"
    );
    let (_, out, _) = run(&["config", "get-contexts"]);
    assert!(
        out.lines()
            .any(|l| l.starts_with('*') && l.contains("prod") && l.contains("/prod")),
        "{out}"
    );
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .starts_with("# mine\n")
    );
    assert_eq!(
        run(&["config", "set-context", "--current", "-n", "team"]).1,
        "Context \"prod\" modified.\n"
    );
    let (_, out, _) = run(&["config", "get-contexts"]);
    assert!(out.contains("/prod") && out.contains("team"), "{out}");
    let (code, _, err) = run(&["config", "use-context", "nope"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("dev, prod"), "{err}");
    let (_, _, err) = run(&["get", "pods"]);
    assert!(
        err.contains("127.0.0.1:2") && err.contains("context prod of"),
        "{err}"
    );
    let (_, _, err) = run(&["get", "pods", "--context", "dev"]);
    assert!(err.contains("127.0.0.1:1"), "{err}");
}
