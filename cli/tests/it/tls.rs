//! Connecting with certificates: by flag, by environment, by context.

use setpoint_store::testing::TestEtcd;

use crate::fixture::{program, run_alone};

#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_from_flags_or_a_context() {
    let etcd = TestEtcd::start_tls().await;
    let (ca, cert, key) = etcd.tls_files("root");
    let (ca, cert, key) = (
        ca.to_str().unwrap(),
        cert.to_str().unwrap(),
        key.to_str().unwrap(),
    );
    let endpoint = etcd.endpoint();
    let flags = [
        "--endpoints",
        &endpoint,
        "--cacert",
        ca,
        "--cert",
        cert,
        "--key",
        key,
    ];
    let run = |args: &[&str]| run_alone(&[args, &flags].concat());
    assert!(run(&["init"]).ok().contains("is ready"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let config = file.to_str().unwrap();
    run(&["config", "set-context", "secure", "--config", config]).ok();
    let output = program()
        .args(["get", "ns", "-o", "name", "--config", config])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "namespace/default\nnamespace/setpoint-system\n",
        "{output:?}"
    );
    // Without a certificate nobody is let in, and it is said why.
    let err = run_alone(&["get", "ns", "--endpoints", &endpoint, "--cacert", ca]).fails();
    assert!(
        err.contains("certificate") || err.contains("authentication"),
        "{err}"
    );
    let err = run_alone(&["get", "ns", "--endpoints", &endpoint]).fails();
    assert!(err.contains("--cacert"), "{err}");
}
