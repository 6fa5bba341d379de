//! The node agent: takes the work of one node, runs it, and reports what became of it.

mod asyncfd;
pub mod cgroup;
pub mod driver;
pub mod logs;
pub mod process;
mod procfs;
pub mod shim;
pub mod spec;
// Division of labour: `node.rs`, `node/`, `server.rs` (the node loop over the store: session, claims, status writes, disk
// copy, node status, HTTP) are written by the lead NOW. The pod layer (`pod.rs`, `pod/`, `volumes.rs`, `env.rs`, ...)
// implements `workload::PodRunner` and sends `workload::PodReport`s; it needs nothing of the store. Delete this comment
// when both are in.
pub mod workload;
