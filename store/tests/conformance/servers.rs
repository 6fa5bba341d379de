//! The etcd servers that the model is held against.

use std::path::PathBuf;

use setpoint_store::testing::{Options, TestEtcd, find_etcd};

/// Starts each etcd that is at hand: the one that all tests use, and the current one that `SETPOINT_ETCD_CURRENT` names.
/// `make test` sets both.
pub(crate) async fn start_all() -> Vec<TestEtcd> {
    let mut binaries = vec![find_etcd()];
    match std::env::var_os("SETPOINT_ETCD_CURRENT").map(PathBuf::from) {
        Some(current) if !binaries.contains(&current) => binaries.push(current),
        Some(_) => {}
        None => eprintln!(
            "SETPOINT_ETCD_CURRENT is not set: only {} is compared with the model",
            binaries[0].display()
        ),
    }
    let mut servers = Vec::new();
    for binary in binaries {
        let options = Options {
            binary: Some(binary),
            ..Options::default()
        };
        servers.push(TestEtcd::start_with(options).await);
    }
    servers
}
