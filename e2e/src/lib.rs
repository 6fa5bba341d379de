//! A whole cluster out of built binaries, for tests: started with `setpoint dev`, used with `setpoint` and `etcdctl` as
//! a person would, and gone without a trace afterwards. And, in [`faults`], one that has a cluster of etcd and is made to
//! suffer.

mod cluster;
pub mod faults;
mod tools;

pub use cluster::{Agent, Cluster};
pub use tools::{Outcome, Started, eventually, repository, run, setpoint_binary};
