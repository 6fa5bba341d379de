//! The real program against a real etcd. One binary, a shared etcd, a prefix per test.
//!
//! Nothing here needs agents, and next to nothing controllers (`doors.rs` has them create while commands do): what they
//! write is put by the tests. Flows through a whole cluster are in `e2e/`.

mod ages;
mod apply;
mod autoscaled;
mod broken;
mod delete;
mod devstore;
mod displace;
mod door;
mod doors;
mod drain;
mod errors;
mod fixture;
mod frozen;
mod jobs;
mod kept;
mod logs;
mod offline;
mod rollout;
mod show;
mod simulate;
mod tls;
mod watch;
mod why;
