//! A whole cluster out of built binaries, for tests: started with `setpoint dev`, used with `setpoint` and `etcdctl` as
//! a person would, and gone without a trace afterwards.

mod cluster;
mod tools;

pub use cluster::{Agent, Cluster};
pub use tools::{Outcome, eventually, repository, run, setpoint_binary};
