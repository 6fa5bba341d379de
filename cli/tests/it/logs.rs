//! Logs: from the agent's files on the same machine, and over its endpoint from elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use setpoint_agent::layout::DataDir;
use setpoint_agent::server::{Listen, Server, TlsFiles};
use setpoint_apis::records::NodeStatusRecord;
use setpoint_apis::{Key, ObjectKey, document};
use setpoint_store::testing::{Certs, Options, TestEtcd};
use tokio_util::sync::CancellationToken;

use crate::fixture::{Fixture, LONG, Running, eventually, pod};

fn key(name: &str) -> ObjectKey {
    ObjectKey::namespaced("default", name)
}

/// A node whose agent has run the pod `p`: its log holds two lines, and the run before one.
async fn node_with_logs(f: &Fixture, machine_id: &str, endpoint: &str) {
    let data = f.dir.path().join("data");
    let place = DataDir::new(&data).pod("u-1", 1);
    for (attempt, lines) in [(0, "before"), (1, "one\ntwo")] {
        let path = place.log("c", attempt);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text: String = lines
            .lines()
            .map(|l| format!("2026-01-01T00:00:00.000000000Z stdout F {l}\n"))
            .collect();
        std::fs::write(path, text).unwrap();
    }
    let status = format!(
        "capacity: {{}}\nallocatable: {{}}\nendpoint: {endpoint}\ndataDir: {}\nnodeInfo: {{machineID: '{machine_id}'}}\n",
        data.display()
    );
    f.put(&Key::NodeStatus("n1"), &status).await;
    f.put(
        &Key::Binding(key("p")),
        "node: n1\nsession: 7\nplacement: 1\npodRevision: 1\nboundAt: 2026-01-01T00:00:00Z\n",
    )
    .await;
    f.put(
        &Key::NodePod("n1", key("p")),
        "placement: 1\nuid: u-1\nstage: Running\n",
    )
    .await;
}

async fn shown(f: &Fixture) {
    assert_eq!(f.run(&["logs", "p"]).ok(), "one\ntwo\n");
    assert_eq!(f.run(&["logs", "p", "--tail=1"]).ok(), "two\n");
    assert_eq!(
        f.run(&["logs", "pod/p", "c", "--previous"]).ok(),
        "before\n"
    );
    assert_eq!(
        f.run(&["logs", "p", "--tail=1", "--timestamps"]).ok(),
        "2026-01-01T00:00:00.000000000Z two\n"
    );
    assert_eq!(
        f.run(&[
            "logs",
            "-l",
            "app=p",
            "--since-time",
            "2026-01-02T00:00:00Z"
        ])
        .ok(),
        ""
    );
    assert_eq!(
        f.run(&["logs", "-l", "app=p", "--prefix"]).ok(),
        "[pod/p/c] one\n[pod/p/c] two\n"
    );
    let place = DataDir::new(f.dir.path().join("data")).pod("u-1", 1);
    std::fs::create_dir_all(place.attempt("c", 1)).unwrap();
    let mut running = Running::start(f.command(&["logs", "-f", "p"]));
    running
        .until("what there is", |out| out == "one\ntwo\n")
        .await;
    let more = std::fs::read_to_string(place.log("c", 1)).unwrap()
        + "2026-01-01T00:00:01.000000000Z stdout F three\n";
    std::fs::write(place.log("c", 1), more).unwrap();
    running
        .until("what comes", |out| out == "one\ntwo\nthree\n")
        .await;
    let exit = place.attempt("c", 1).join(setpoint_agent::spec::EXIT_FILE);
    std::fs::write(exit, "{}").unwrap();
    assert_eq!(running.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_from_the_agents_files_on_the_same_machine() {
    let Ok(machine_id) = std::fs::read_to_string("/etc/machine-id") else {
        return; // A machine without an id takes the other way.
    };
    let f = Fixture::new("logs-local").await;
    f.apply(&pod("p"));
    // Nobody listens there: only the files can answer.
    node_with_logs(&f, machine_id.trim(), "http://127.0.0.1:1").await;
    shown(&f).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_over_the_agents_endpoint_from_another_machine() {
    let f = Fixture::new("logs-http").await;
    f.apply(&pod("p"));
    let listen = Listen::plain("127.0.0.1:0".parse().unwrap());
    let server = Server::bind(&listen, &f.dir.path().join("data"))
        .await
        .unwrap();
    let endpoint = server.endpoint(listen.address.ip());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.run(stop.clone()));
    node_with_logs(&f, "another", &endpoint).await;
    shown(&f).await;
    let err = f.run(&["logs", "p", "--previous", "-c", "x"]).fails();
    assert!(err.contains("it has c"), "{err}");
    stop.cancel();
    serving.await.unwrap();
    node_with_logs(&f, "another", "http://127.0.0.1:1").await;
    let err = f.run(&["logs", "p"]).fails();
    assert!(
        err.contains("nobody listens at http://127.0.0.1:1"),
        "{err}"
    );
}

/// A keyspace in an etcd with TLS that lets clients without a certificate in, too; the program has the CA's.
async fn fixture_with_tls(name: &str) -> Fixture {
    let etcd = TestEtcd::start_with(Options {
        tls: true,
        // A CA for clients alone would make etcd want their certificates.
        args: vec![
            "--client-cert-auth=false".to_owned(),
            "--trusted-ca-file=".to_owned(),
        ],
        ..Options::default()
    })
    .await;
    let mut f = Fixture::of(Arc::new(etcd), name).await;
    let (ca, cert, key) = f.etcd.tls_files("root");
    f.env = vec![
        ("SETPOINT_CACERT", ca),
        ("SETPOINT_CERT", cert),
        ("SETPOINT_KEY", key),
    ];
    f.run(&["init"]).ok();
    f
}

/// Runs `setpoint logs p` without the client certificate.
fn logs_without_certificate(f: &Fixture) -> String {
    let mut command = f.command(&["logs", "p"]);
    command
        .env_remove("SETPOINT_CERT")
        .env_remove("SETPOINT_KEY");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_beyond_loopback_shows_logs_to_certificates_of_its_ca_alone() {
    let f = fixture_with_tls("logs-tls").await;
    f.apply(&pod("p"));
    let data = f.dir.path().join("data");
    let server = f.env[0].1.with_file_name("server.pem");
    let server_key = f.env[0].1.with_file_name("server-key.pem");
    let mut agent = f.command(&["agent", "--node-name", "n9", "--listen", "0.0.0.0:0"]);
    agent
        .args(["--stop-pods-on-exit", "--data-dir"])
        .arg(&data)
        .env("SETPOINT_TLS_CERT", &server)
        .env("SETPOINT_TLS_KEY", &server_key);
    let stranger = DataDir::new(&data).pod("stranger", 1);
    std::fs::create_dir_all(stranger.path()).unwrap();
    let _agent = Running::start(agent);
    // It cleans up once, at its beginning: what the test puts there later stays.
    eventually("the agent has cleaned up", || {
        let gone = !stranger.path().exists();
        gone.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let reported = async {
        loop {
            if let Some(kv) = f.get(&Key::NodeStatus("n9")).await {
                break document::decode_value::<NodeStatusRecord>(&kv.value).unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let status = tokio::time::timeout(LONG, reported).await.unwrap();
    let endpoint = status.endpoint.unwrap();
    assert!(endpoint.starts_with("https://127.0.0.1:"), "{endpoint}");
    // The same agent as that of a node on another machine: the program cannot take its files.
    node_with_logs(&f, "another", &endpoint).await;
    shown(&f).await;
    let err = logs_without_certificate(&f);
    assert!(
        err.contains("lets nobody in without a client certificate"),
        "{err}"
    );
    let plain = format!("http{}", endpoint.strip_prefix("https").unwrap());
    node_with_logs(&f, "another", &plain).await;
    f.run(&["logs", "p"]).fails();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_fit_are_told_apart() {
    let f = fixture_with_tls("logs-tls-wrong").await;
    f.apply(&pod("p"));
    let data = f.dir.path().join("data");
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Certs::write(elsewhere.path());
    let (other_ca, ..) = other.files("someone");
    let (ca, cert, key) = (&f.env[0].1, &f.env[1].1, &f.env[2].1);
    let own = |name: &str| ca.with_file_name(name);
    let files = |certificate: PathBuf, key: PathBuf, client_ca: PathBuf| TlsFiles {
        certificate,
        key,
        client_ca,
    };
    let cases = [
        (
            "127.0.0.1",
            files(
                elsewhere.path().join("server.pem"),
                elsewhere.path().join("server-key.pem"),
                ca.clone(),
            ),
            "is not signed by the CA that is trusted here",
        ),
        (
            "127.0.0.1",
            files(cert.clone(), key.clone(), ca.clone()),
            "is one of clients only",
        ),
        (
            "127.0.0.2",
            files(own("server.pem"), own("server-key.pem"), ca.clone()),
            "is for another name",
        ),
        (
            "127.0.0.1",
            files(own("server.pem"), own("server-key.pem"), other_ca),
            "refuses this client certificate",
        ),
    ];
    for (address, tls, words) in cases {
        let listen = Listen {
            tls: Some(tls),
            ..Listen::plain(format!("{address}:0").parse().unwrap())
        };
        let server = Server::bind(&listen, &data).await.unwrap();
        node_with_logs(&f, "another", &server.endpoint(listen.address.ip())).await;
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone()));
        let err = f.run(&["logs", "p"]).fails();
        assert!(err.contains(words), "{err}");
        stop.cancel();
        serving.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_does_not_show_logs_to_everybody_unless_that_is_meant() {
    let f = Fixture::new("logs-everybody").await;
    let data = f.dir.path().join("agent");
    let data = data.to_str().unwrap();
    let agent = ["agent", "--listen", "0.0.0.0:0", "--data-dir", data];
    let err = f.run(&agent).fails();
    assert!(err.contains("can be reached from other machines"), "{err}");
    assert!(err.contains("--listen-insecure"), "{err}");
    let err = f
        .run(&[&agent[..], &["--tls-client-ca", "/nonexistent"]].concat())
        .fails();
    assert!(err.contains("--tls-cert"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_pods_are_known_by_its_uid_and_a_cron_job_names_its_jobs() {
    let f = Fixture::new("logs-job").await;
    let template = "template: {spec: {restartPolicy: Never, containers: [{name: c, image: host}]}}";
    f.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: pi}}\nspec: {{{template}}}\n---\n\
         apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: often}}\n\
         spec: {{schedule: '* * * * *', jobTemplate: {{spec: {{{template}}}}}}}\n"
    ));
    let err = f.run(&["logs", "job/pi"]).fails();
    assert!(err.contains("job.batch/pi has no pods"), "{err}");
    let uid = f
        .run(&["get", "job/pi", "-o", "jsonpath={.metadata.uid}"])
        .ok();
    let label = format!("labels: {{batch.kubernetes.io/controller-uid: {uid}, ");
    f.apply(&pod("p").replacen("labels: {", &label, 1));
    let err = f.run(&["logs", "jobs/pi"]).fails();
    assert!(err.contains("pod \"p\""), "{err}");
    let err = f.run(&["logs", "cronjob/often"]).fails();
    assert!(err.contains("logs job/NAME"), "{err}");
}
