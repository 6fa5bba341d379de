//! Mistakes and faults: clear words, exit code 1, no panic.

use std::process::Stdio;
use std::sync::Arc;

use setpoint_store::testing::TestEtcd;

use crate::fixture::{Fixture, LONG, config_map, program, run_alone, run_alone_with_input};

#[test]
fn etcd_that_is_not_there_is_named_with_where_the_setting_comes_from() {
    let err = run_alone(&["get", "pods", "--endpoints", "http://127.0.0.1:1"]).fails();
    assert!(
        err.contains("http://127.0.0.1:1")
            && err.contains("--endpoints")
            && err.contains("setpoint dev"),
        "{err}"
    );
    let output = program()
        .args(["get", "pods"])
        .env("SETPOINT_ENDPOINTS", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("comes from SETPOINT_ENDPOINTS"), "{err}");
    // The program's own version is told all the same.
    let ran = run_alone(&["version", "--endpoints", "http://127.0.0.1:1"]);
    assert!(ran.out.starts_with("setpoint "), "{ran:?}");
    assert!(ran.err.contains("does not answer"), "{ran:?}");
    ran.ok();
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_connected() {
    for (args, word) in [
        (&["get", "pods", "--endpoints", "ftp://x"][..], "ftp"),
        (&["get", "pods", "--key-prefix", "setpoint"], "slash"),
        (&["get", "pods", "--cert", "/nope"], "--key"),
        (&["get", "pods", "--context", "nope"], "nope"),
        (
            &["get", "pods", "--config", "/nope/config.yaml"],
            "/nope/config.yaml",
        ),
    ] {
        let err = run_alone(args).fails();
        assert!(err.contains(word), "{args:?}: {err}");
    }
}

#[test]
fn mistyped_words_get_a_suggestion_and_exit_code_1() {
    let err = run_alone(&["aply"]).fails();
    assert!(err.contains("apply"), "{err}");
    let err = run_alone(&["get", "pods", "--ouput", "json"]).fails();
    assert!(err.contains("--output"), "{err}");
    let err = run_alone(&["get", "pods", "-o", "yml"]).fails();
    assert!(err.contains("yaml"), "{err}");
    run_alone(&["get"]).fails();
    run_alone(&["apply"]).fails();
    assert!(run_alone(&["--help"]).ok().contains("apply"));
    assert!(run_alone(&["--version"]).ok().starts_with("setpoint "));
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_and_names_that_cannot_be_are_refused() {
    let f = Fixture::new("names").await;
    let err = f.run(&["get", "deploymnet"]).fails();
    assert!(err.contains("did you mean \"deployment\""), "{err}");
    for args in [
        &["get", "pod", "../x"][..],
        &["get", "pod", ".."],
        &["get", "pod/a/b"],
        &["delete", "pod", "a/../../desired"],
        &["describe", "pod", "A"],
        &["logs", ".."],
        &["cordon", "../n"],
        &["scale", "deploy/..", "--replicas=1"],
    ] {
        let err = f.run(args).fails();
        assert!(err.contains("not a valid name"), "{args:?}: {err}");
    }
    for namespace in ["../x", "a/b", "a.b", ".."] {
        let err = f.run(&["get", "pods", "-n", namespace]).fails();
        assert!(err.contains("not a valid name of a namespace"), "{err}");
    }
    let text = config_map("a", "1").replace("name: a", "name: ../../meta/schema");
    let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
    assert!(err.contains("metadata.name"), "{err}");
    let text = config_map("a", "1").replace("name: a", "name: a\n  namespace: a/b");
    let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
    assert!(err.contains("metadata.namespace"), "{err}");
    let err = f
        .run_with_input(
            &["apply", "-n", "other", "-f", "-"],
            &config_map("a", "1").replace("name: a", "name: a\n  namespace: default"),
        )
        .fails();
    assert!(
        err.contains("\"default\"") && err.contains("\"other\""),
        "{err}"
    );
}

#[test]
fn bad_yaml_is_told_with_its_place_all_at_once() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    imge: host\n    ports:\n    \
                - containerPort: high\n";
    let err = run_alone_with_input(&["validate", "-f", "-"], text).fails();
    assert!(
        err.contains("-:7:5") && err.contains("did you mean \"image\""),
        "{err}"
    );
    assert!(
        err.contains("-:9:") && err.contains("containerPort"),
        "{err}"
    );
    let err = run_alone_with_input(&["apply", "-f", "-"], "a: [1\n").fails();
    assert!(err.contains("-:"), "{err}");
    let err = run_alone_with_input(&["apply", "-f", "-"], "").fails();
    assert!(err.contains("no objects"), "{err}");
    let err = run_alone(&["apply", "-f", "/nope.yaml"]).fails();
    assert!(err.contains("/nope.yaml"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_error() {
    let f = Fixture::new("pipe").await;
    let text: String = (0..100)
        .map(|i| format!("{}---\n", config_map(&format!("m{i}"), "1")))
        .collect();
    f.apply(&text);
    let mut child = f
        .command(&["get", "cm", "-o", "yaml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_frozen_is_given_up_on() {
    let f = Fixture::of(Arc::new(TestEtcd::start().await), "frozen").await;
    f.run(&["init"]).ok();
    f.etcd.freeze();
    let begun = std::time::Instant::now();
    let err = f.run(&["get", "pods", "--request-timeout=1s"]).fails();
    assert!(begun.elapsed() < LONG / 2, "it took {:?}", begun.elapsed());
    assert!(
        err.contains(&f.etcd.endpoint()) && err.contains("does not answer"),
        "{err}"
    );
    f.etcd.thaw();
    f.run(&["get", "pods"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_tried_again_and_both_writers_win() {
    let f = Fixture::new("conflict").await;
    f.apply(&config_map("a", "0"));
    let writers: Vec<_> = (0..4)
        .map(|i| {
            let name = format!("w{i}");
            f.command(&["label", "cm", "a", &format!("{name}=1")])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let text = f.desired("configmaps", "a").await.unwrap();
    for i in 0..4 {
        assert!(
            text.contains(&format!("w{i}: '1'")) || text.contains(&format!("w{i}: \"1\"")),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_say_why_there_are_none() {
    let f = Fixture::new("logs").await;
    f.apply(&crate::fixture::pod("p"));
    let err = f.run(&["logs", "p"]).fails();
    assert!(err.contains("has not been placed"), "{err}");
    let err = f.run(&["logs", "p", "-c", "nope"]).fails();
    assert!(err.contains("it has c"), "{err}");
    let err = f.run(&["logs", "nope"]).fails();
    assert!(err.contains("pods \"nope\" not found"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyspace_of_a_newer_layout_is_left_alone() {
    let f = Fixture::new("layout").await;
    f.put(&setpoint_apis::Key::Meta("schema"), "version: 99\n")
        .await;
    for command in [
        &["get", "pods"][..],
        &["delete", "pod", "a"],
        &["init"],
        &["controllers"],
    ] {
        let err = f.run(command).fails();
        assert!(
            err.contains("layout version 99") && err.contains("newer setpoint"),
            "{command:?}: {err}"
        );
    }
}
