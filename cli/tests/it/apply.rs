//! Applying and creating: one revision or nothing.

use setpoint_apis::{Key, ObjectKey};

use crate::fixture::{Fixture, config_map, deployment, manifests, pod};

#[tokio::test(flavor = "multi_thread")]
async fn init_is_idempotent() {
    let f = Fixture::bare("init").await;
    let first = f.run(&["init"]).ok();
    assert!(first.contains("namespace/default created"), "{first}");
    let id = |text: &str| text.rsplit("(cluster ").next().map(str::to_owned);
    let second = f.run(&["init"]).ok();
    assert!(!second.contains("created"), "{second}");
    assert_eq!(id(&first), id(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_stored_as_it_was_written_and_at_one_revision() {
    let f = Fixture::new("apply-one").await;
    let text = format!(
        "{}---\n{}---\n{}",
        config_map("a", "1"),
        deployment("web", 3),
        pod("p")
    );
    let out = f.apply(&text);
    assert_eq!(
        out,
        "configmap/a created\ndeployment.apps/web created\npod/p created\n"
    );
    assert_eq!(
        f.desired("deployments", "web").await.unwrap(),
        deployment("web", 3)
    );
    let mut revisions: Vec<i64> = Vec::new();
    for (plural, name) in [("configmaps", "a"), ("deployments", "web"), ("pods", "p")] {
        let key = Key::Desired(plural, ObjectKey::namespaced("default", name));
        revisions.push(f.get(&key).await.unwrap().mod_revision);
    }
    revisions.dedup();
    assert_eq!(revisions.len(), 1, "all of it is one revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_again_writes_nothing_and_changes_are_told() {
    let f = Fixture::new("apply-again").await;
    f.apply(&config_map("a", "1"));
    let key = Key::Desired("configmaps", ObjectKey::namespaced("default", "a"));
    let before = f.get(&key).await.unwrap();
    // Another layout of the same content is no change either.
    assert_eq!(f.apply(&config_map("a", "1")), "configmap/a unchanged\n");
    let other = "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"a\"}, \"data\": {\"k\": \"1\"}}";
    assert_eq!(f.apply(other), "configmap/a unchanged\n");
    assert_eq!(f.get(&key).await.unwrap().mod_revision, before.mod_revision);
    let text = format!("{}---\n{}", config_map("a", "2"), config_map("b", "1"));
    assert_eq!(
        f.apply(&text),
        "configmap/a configured\nconfigmap/b created\n"
    );
    assert_eq!(f.get(&key).await.unwrap().version, before.version + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_document_keeps_all_of_them_out() {
    let f = Fixture::new("apply-bad").await;
    let text = format!(
        "{}---\n{}",
        config_map("a", "1"),
        pod("p").replace("image", "imgae")
    );
    let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
    assert!(
        err.contains("-:") && err.contains("imgae") && err.contains("did you mean \"image\""),
        "{err}"
    );
    assert_eq!(f.desired("configmaps", "a").await, None);
    // A namespace that does not exist is found before anything is written.
    let text = format!(
        "{}---\n{}",
        config_map("a", "1"),
        config_map("b", "1").replace("name: b", "name: b\n  namespace: nope")
    );
    let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
    assert!(err.contains("namespaces \"nope\" not found"), "{err}");
    assert_eq!(f.desired("configmaps", "a").await, None);
    f.apply(&format!(
        "{}---\n{}",
        config_map("a", "1"),
        config_map("b", "1")
    ));
    let text = format!(
        "{}---\n{}---\n{}",
        config_map("a", "1"),
        config_map("b", "2"),
        config_map("c", "1")
    );
    assert_eq!(
        f.run_with_input(&["apply", "-f", "-", "--dry-run=client"], &text)
            .ok(),
        "configmap/a unchanged (dry run)\nconfigmap/b configured (dry run)\nconfigmap/c created (dry run)\n"
    );
    assert!(f.desired("configmaps", "b").await.unwrap().contains("'1'"));
    assert_eq!(f.desired("configmaps", "c").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_the_same_manifest_counts() {
    let f = Fixture::new("apply-ns").await;
    let map = config_map("a", "1").replace("name: a", "name: a\n  namespace: team");
    // The order does not matter: it is one transaction.
    let out = f.apply(&format!(
        "{map}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: team}}\n"
    ));
    assert!(
        out.contains("namespace/team created") && out.contains("configmap/a created"),
        "{out}"
    );
    assert_eq!(
        f.run(&["get", "cm", "-n", "team", "-o", "name"]).ok(),
        "configmap/a\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_etcd_takes_at_once_is_refused_unless_split() {
    let f = Fixture::new("apply-many").await;
    let text: String = (0..130)
        .map(|i| format!("{}---\n", config_map(&format!("m{i}"), "1")))
        .collect();
    let file = f.file("many.yaml", &text);
    let path = file.to_str().unwrap();
    let err = f.run(&["apply", "-f", path]).fails();
    assert!(
        err.contains("130 objects") && err.contains("--split"),
        "{err}"
    );
    assert_eq!(
        f.range(f.keyspace.desired_range("configmaps", None))
            .await
            .len(),
        0
    );
    let out = f.run(&["apply", "-f", path, "--split"]).ok();
    assert_eq!(out.lines().count(), 130);
    assert_eq!(
        f.range(f.keyspace.desired_range("configmaps", None))
            .await
            .len(),
        130
    );
    // What is the same already does not count.
    let out = f.run(&["apply", "-f", path]).ok();
    assert!(out.lines().all(|l| l.ends_with("unchanged")), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_as_many_as_etcd_takes_are_one_revision() {
    let f = Fixture::new("apply-120").await;
    let text: String = (0..120)
        .map(|i| format!("{}---\n", config_map(&format!("m{i}"), "1")))
        .collect();
    f.apply(&text);
    let all = f.range(f.keyspace.desired_range("configmaps", None)).await;
    assert_eq!(all.len(), 120);
    assert!(all.iter().all(|kv| kv.mod_revision == all[0].mod_revision));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_mebibytes_are_refused_in_clear_words() {
    let f = Fixture::new("apply-big").await;
    let big = config_map("big", &"x".repeat(2 << 20));
    let err = f.run_with_input(&["apply", "-f", "-"], &big).fails();
    assert!(
        err.contains("holds 2097152 bytes"),
        "{}",
        &err[..err.len().min(500)]
    );
    let big = pod("big").replace("inf", &"x".repeat(2 << 20));
    let err = f.run_with_input(&["apply", "-f", "-"], &big).fails();
    assert!(err.contains("1.5 MiB"), "{}", &err[..err.len().min(500)]);
    // Several that fit alone do not fit together.
    let half = "x".repeat(900 << 10);
    let text = format!("{}---\n{}", config_map("a", &half), config_map("b", &half));
    let err = f.run_with_input(&["apply", "-f", "-"], &text).fails();
    assert!(
        err.contains("1.5 MiB") && err.contains("--split"),
        "{}",
        &err[..err.len().min(500)]
    );
    f.run_with_input(&["apply", "-f", "-", "--split"], &text)
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_write_nothing_and_check_what_they_can() {
    let f = Fixture::new("apply-dry").await;
    let text = config_map("a", "1").replace("name: a", "name: a\n  namespace: nope");
    assert_eq!(
        f.run_with_input(&["apply", "-f", "-", "--dry-run"], &text)
            .ok(),
        "configmap/a created (dry run)\n"
    );
    let err = f
        .run_with_input(&["apply", "-f", "-", "--dry-run=server"], &text)
        .fails();
    assert!(err.contains("namespaces \"nope\" not found"), "{err}");
    let out = f
        .run_with_input(
            &["apply", "-f", "-", "--dry-run=server"],
            &config_map("a", "1"),
        )
        .ok();
    assert_eq!(out, "configmap/a created (server dry run)\n");
    assert_eq!(f.desired("configmaps", "a").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn create_refuses_what_exists_and_makes_names() {
    let f = Fixture::new("create").await;
    let file = f.file("a.yaml", &config_map("a", "1"));
    let path = file.to_str().unwrap();
    assert_eq!(f.run(&["create", "-f", path]).ok(), "configmap/a created\n");
    let err = f.run(&["create", "-f", path]).fails();
    assert!(err.contains("configmaps \"a\" already exists"), "{err}");
    let generated = config_map("x", "1").replace("name: x", "generateName: job-");
    let out = f
        .run_with_input(&["create", "-f", "-", "-o", "name"], &generated)
        .ok();
    let name = out
        .trim()
        .strip_prefix("configmap/job-")
        .expect("a generated name");
    assert_eq!(name.len(), 5, "{out}");
    let err = f.run_with_input(&["apply", "-f", "-"], &generated).fails();
    assert!(err.contains("metadata.name"), "{err}");
    assert_eq!(
        f.run(&["create", "namespace", "team"]).ok(),
        "namespace/team created\n"
    );
    let err = f.run(&["create", "namespace", "a/b"]).fails();
    assert!(err.contains("\"a/b\" is not a valid name"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_immutable_is_refused_and_nothing_else_is_changed_with_it() {
    let f = Fixture::new("immutable").await;
    f.apply(&format!("{}---\n{}", deployment("web", 1), pod("p")));
    let other = deployment("web", 1).replace("app: web", "app: other");
    let err = f
        .run_with_input(
            &["apply", "-f", "-"],
            &format!("{}---\n{other}", config_map("a", "1")),
        )
        .fails();
    assert!(err.contains("immutable"), "{err}");
    assert_eq!(f.desired("configmaps", "a").await, None);
    let err = f
        .run_with_input(&["apply", "-f", "-"], &pod("p").replace("inf", "1s"))
        .fails();
    assert!(
        err.contains("pod updates may not change") && err.contains("spec.containers[0].command"),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_get_prints_can_be_applied_and_changes_nothing() {
    let f = Fixture::new("round-trip").await;
    f.apply(&format!(
        "{}---\n{}---\n{}",
        config_map("a", "1"),
        deployment("web", 2),
        pod("p")
    ));
    let binding =
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n";
    f.put(
        &Key::Binding(ObjectKey::namespaced("default", "p")),
        binding,
    )
    .await;
    let shown = f.run(&["get", "cm,deploy,pods", "-o", "yaml"]).ok();
    assert!(shown.contains("nodeName: n1"), "{shown}");
    let out = f.apply(&shown);
    assert_eq!(
        out,
        "configmap/a unchanged\ndeployment.apps/web unchanged\npod/p unchanged\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selector_and_directories_choose_what_is_applied() {
    let f = Fixture::new("apply-select").await;
    f.file("dir/a.yaml", &pod("a"));
    f.file("dir/b.yml", &pod("b"));
    f.file("dir/readme.txt", "no yaml");
    f.file(
        "dir/sub/c.json",
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"c\"}}",
    );
    let dir = f.dir.path().join("dir");
    let dir = dir.to_str().unwrap();
    assert_eq!(
        f.run(&["apply", "-f", dir, "-l", "app=a"]).ok(),
        "pod/a created\n"
    );
    assert_eq!(
        f.run(&["apply", "-f", dir]).ok(),
        "pod/a unchanged\npod/b created\n"
    );
    assert_eq!(
        f.run(&["apply", "-R", "-f", dir]).ok(),
        "pod/a unchanged\npod/b unchanged\nconfigmap/c created\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_are_valid_and_apply() {
    let f = Fixture::new("examples").await;
    for part in ["examples", "demo"] {
        let path = manifests().join(part);
        f.run(&["apply", "-f", path.to_str().unwrap()]).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_comes_from_a_web_server_too() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let f = Fixture::new("apply-url").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/m.yaml", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // All of the request: a connection with something unread is reset when it is closed.
        let request = BufReader::new(&stream).lines().map(Result::unwrap);
        request.take_while(|line| !line.is_empty()).for_each(drop);
        let body = config_map("a", "1");
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
    });
    assert_eq!(f.run(&["apply", "-f", &url]).ok(), "configmap/a created\n");
    server.join().unwrap();
    let err = f.run(&["apply", "-f", "http://127.0.0.1:1/x.yaml"]).fails();
    assert!(err.contains("http://127.0.0.1:1/x.yaml"), "{err}");
}
